package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/jackc/pgx/v5"
)

// A Verdict is what the load has shown so far.
type Verdict struct {
	Commits    int64
	Lanes      []Lane
	ReadErrors int64
}

// A Lane is what one way to keep a cache has shown.
type Lane struct {
	Name                                              string
	Control                                           bool
	Beside                                            string // the control that does as much
	Keeps                                             bool
	Asked, There                                      int64 // keys that readers asked for, and those that were there
	Loads, Changes                                    int64 // Changes: of what the lane caches
	Probes, Kept                                      int64 // changed rows behind the barrier, and those that were cached
	Hits                                              int64 // judged
	Stale, Backward, Phantoms, Misses, Wrong, Excused int64
	Compared                                          int64   // keys after quiet, of which Wrong differ from their rows
	Behind                                            []int64 // hits by how long they had been out of date
	First                                             string  // fault, with the history of its key
}

// HitRate is the share of keys that were there when a reader asked.
func (l Lane) HitRate() float64 { return share(l.There, l.Asked) }

// KeptShare is the share of changes behind which the key was there.
func (l Lane) KeptShare() float64 { return share(l.Kept, l.Probes) }

// Faults is how often the lane broke a promise.
func (l Lane) Faults() int64 { return l.Stale + l.Backward + l.Phantoms + l.Misses + l.Wrong }

func share(n, of int64) float64 { return float64(n) / float64(max(of, 1)) }

func (t *Traffic) verdict() Verdict {
	v := Verdict{Commits: t.commits.Load(), ReadErrors: t.readErrors.Load()}
	for _, l := range t.lanes {
		lane := Lane{
			Name: l.name, Control: l.control, Beside: l.beside, Keeps: l.keeps,
			Asked: l.asked.Load(), There: l.there.Load(), Loads: l.loads.Load(), Changes: l.changes.Load(),
			Probes: l.probes.Load(), Kept: l.kept.Load(), Hits: l.hits.Load(),
			Stale: l.stale.Load(), Backward: l.backward.Load(), Phantoms: l.phantoms.Load(),
			Misses: l.misses.Load(), Wrong: l.wrong.Load(), Excused: l.excused.Load(), Compared: l.compared.Load(),
		}
		for i := range l.behind.counts {
			lane.Behind = append(lane.Behind, l.behind.counts[i].Load())
		}
		l.mu.Lock()
		lane.First = l.told
		l.mu.Unlock()
		v.Lanes = append(v.Lanes, lane)
	}
	return v
}

// Quiet ends the writers, waits for the barrier, lets the readers fill, ends them
// and compares every cached value with its row. Start may be called again.
func (t *Traffic) Quiet(ctx context.Context) (Verdict, error) {
	t.stopWriters()
	s := &session{url: t.options.Database}
	defer s.close()
	err := t.barrier(ctx, s)
	if err == nil && t.consumer != nil {
		err = t.awaitConsumer(ctx, s)
	}
	// What readers put there from now on is right, if the leases are.
	for _, l := range t.lanes {
		if err == nil {
			err = t.awaitHits(ctx, l, int64(l.count))
		}
	}
	t.stopOthers()
	if err != nil {
		return t.verdict(), err
	}
	for _, l := range t.lanes {
		if err == nil {
			err = t.compare(ctx, s, l)
		}
	}
	return t.verdict(), err
}

// compare counts the cached values of a lane that are not what there is.
func (t *Traffic) compare(ctx context.Context, s *session, l *lane) error {
	var rows []string
	err := s.do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		rows, err = l.family.texts(ctx, conn, numbered(0, l.count))
		return err
	})
	if err != nil {
		return err
	}
	keys := make([]string, len(rows))
	for n := range rows {
		keys[n] = l.key(l.first + n)
	}
	texts, err := l.cached(ctx, t.rdb, keys)
	if err != nil {
		return err
	}
	for n, text := range texts {
		if text == nil {
			continue
		}
		l.compared.Add(1)
		want := []byte(rows[n])
		if l.hash {
			want = textOf(fieldsOf(want))
		}
		// A control writes JSON as it can: the version must do.
		if right := bytes.Equal(text, want) || l.control && l.kind == itemRow && parse(text) == parse(want); !right {
			t.oracle.found(l, l.first+n, &l.wrong, "unconverged key", "%.120s after quiet, and there is %.120s", text, want)
		}
	}
	return nil
}

// Err says what is wrong with the cache; nil if nothing is.
func (v Verdict) Err() error {
	var errs []error
	for _, l := range v.Lanes {
		switch {
		case l.Control:
		case l.Faults() > 0:
			errs = append(errs, fmt.Errorf("%s: %d stale hits, %d backward, %d phantoms, %d barrier misses, %d unconverged keys; the first:\n%s",
				l.Name, l.Stale, l.Backward, l.Phantoms, l.Misses, l.Wrong, l.First))
		case l.Hits == 0 || l.Compared == 0:
			errs = append(errs, fmt.Errorf("%s: an empty cache proves nothing: %d hits, %d keys", l.Name, l.Hits, l.Compared))
		}
	}
	return errors.Join(errs...)
}

// How much of what a control has in its cache a lane must have: its hits beside
// those of the control that caches the same keys, and the changes that it keeps
// beside those of the control that SETs them all. Controls never drop a key that
// might be wrong, and neither sweep nor wait for anything: a lane cannot have as
// much while things break. One that only drops keeps a tenth of what they do at most.
const (
	hitRateMin   = 0.6
	keptShareMin = 0.15
	// calmHitRateMin is that of "warm" while nothing breaks: it writes as much as
	// the control that SETs every change.
	calmHitRateMin = 0.9
)

// proof says why the run proves nothing: a control that was never wrong, or a
// cache much emptier than that of its control. Nil: it does. calm: nothing was
// broken.
func (v Verdict) proof(calm bool) error {
	var errs []error
	byName := map[string]Lane{}
	for _, l := range v.Lanes {
		byName[l.Name] = l
		if l.Control && l.Stale == 0 {
			errs = append(errs, fmt.Errorf("the control %q never showed an old row: this load proves nothing", l.Name))
		}
	}
	for _, l := range v.Lanes {
		beside, ok := byName[l.Beside]
		if !ok {
			continue
		}
		least := hitRateMin
		if calm && l.Keeps && l.Beside == setDel {
			least = calmHitRateMin
		}
		if l.HitRate() < least*beside.HitRate() {
			errs = append(errs, fmt.Errorf("%s: hit rate of %.1f %%, that of %q is %.1f %%", l.Name, 100*l.HitRate(), beside.Name, 100*beside.HitRate()))
		}
		if sets := byName[setDel]; l.Keeps && l.KeptShare() < keptShareMin*sets.KeptShare() {
			errs = append(errs, fmt.Errorf("%s: %.1f %% of changed rows were cached behind the barrier, with %q %.1f %%", l.Name, 100*l.KeptShare(), sets.Name, 100*sets.KeptShare()))
		}
	}
	return errors.Join(errs...)
}

// Hits is how many hits were judged in the lanes that must be right.
func (v Verdict) Hits() (n int64) {
	for _, l := range v.Lanes {
		if !l.Control {
			n += l.Hits
		}
	}
	return n
}

func (v Verdict) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d commits; %d hits judged; %d reads failed\n", v.Commits, v.Hits(), v.ReadErrors)
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "hits\tstale\tbackward\texcused\tphantom\tbarrier miss\tunconverged\thit rate\tkept\tloads/change\t  lane\t")
	for _, l := range v.Lanes {
		fmt.Fprintf(table, "%d\t%d\t%d\t%d\t%d\t%d\t%d/%d\t%.1f%%\t%.1f%%\t%.2f\t  %s\t\n", l.Hits, l.Stale, l.Backward, l.Excused, l.Phantoms, l.Misses, l.Wrong, l.Compared,
			100*l.HitRate(), 100*l.KeptShare(), share(l.Loads, l.Changes), l.title())
	}
	table.Flush()
	fmt.Fprintln(&b, "hits by how long they had been out of date:")
	fmt.Fprint(table, "not")
	for _, bound := range bounds {
		fmt.Fprintf(table, "\t<%s", bound)
	}
	fmt.Fprintln(table, "\tmore\t  lane\t")
	for _, l := range v.Lanes {
		for i, n := range l.Behind {
			if i > 0 {
				fmt.Fprint(table, "\t")
			}
			fmt.Fprint(table, n)
		}
		fmt.Fprintf(table, "\t  %s\t\n", l.title())
	}
	table.Flush()
	return strings.TrimSuffix(b.String(), "\n")
}

func (l Lane) title() string {
	if l.Control {
		return "control: " + l.Name
	}
	return l.Name
}
