package apply

import (
	"cmp"
	"context"
	"crypto/rand"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
)

// sweeps are the sweeps that have not ended. They run in generations: what is
// asked for while one runs becomes the next one, since the running one may have
// passed those keys already. So settled moves at the end of each generation,
// however often sweeps are asked for.
type sweeps struct {
	mu          sync.Mutex
	generations []*generation // oldest first; the first may be running
	due         chan struct{} // wakes the sweeper
}

type generation struct {
	sweeps []guard.Sweep // distinct
	// derived are the templates of those that only a plan has asked for: what else does
	// may concern keys that have no name.
	derived map[string]bool
	// before is where settled stands, of the streams that have asked, until the
	// generation has ended.
	before  map[int]change.Position
	running bool
	awaited bool // the reader waits for it
}

// A sweepRequest is what is to be swept because of a stream.
type sweepRequest struct {
	stream int
	// settled is where the stream's settled stands if nothing but this is outstanding: it
	// may be ahead of where an earlier sweep holds it now, or it would never move while
	// sweeps follow each other.
	settled change.Position
	sweeps  []guard.Sweep
	derived []guard.Sweep // those that a plan asks for
}

func (s *sweeps) request(r sweepRequest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var g *generation
	if n := len(s.generations); n > 0 && !s.generations[n-1].running {
		g = s.generations[n-1]
	} else {
		g = &generation{derived: map[string]bool{}, before: map[int]change.Position{}}
		s.generations = append(s.generations, g)
	}
	if before, asked := g.before[r.stream]; !asked || r.settled.Compare(before) < 0 {
		g.before[r.stream] = r.settled
	}
	for _, sweep := range r.derived {
		if _, asked := g.derived[sweep.Key]; !asked {
			g.derived[sweep.Key] = true
		}
	}
	for _, sweep := range r.sweeps {
		g.derived[sweep.Key] = false
	}
	g.sweeps = distinct(slices.Concat(g.sweeps, r.sweeps, r.derived))
}

// distinct has each sweep once, and no part of what is swept wholly. Of very many
// parts of a template all keys are swept.
func distinct(sweeps []guard.Sweep) []guard.Sweep {
	slices.SortFunc(sweeps, func(a, b guard.Sweep) int {
		return cmp.Or(strings.Compare(a.Key, b.Key), strings.Compare(a.Letters, b.Letters), strings.Compare(a.Part, b.Part))
	})
	sweeps = slices.Compact(sweeps)
	parts := map[string]int{} // of a template; -1: it is swept wholly
	for _, sweep := range sweeps {
		switch of, known := parts[sweep.Key]; {
		case sweep.Part == "" && sweep.Letters == "":
			parts[sweep.Key] = -1
		case sweep.Part != "" && (!known || of >= 0):
			parts[sweep.Key]++
		}
	}
	var all []guard.Sweep // of which there are very many parts
	for key, n := range parts {
		if n > guard.PartsMax {
			all = append(all, guard.Sweep{Key: key})
		}
	}
	if all != nil {
		return distinct(append(sweeps, all...))
	}
	return slices.DeleteFunc(sweeps, func(sweep guard.Sweep) bool { return sweep.Part != "" && parts[sweep.Key] < 0 })
}

// keysOf are the templates of sweeps, each once.
func keysOf(sweeps []guard.Sweep) []string {
	keys := make([]string, len(sweeps))
	for i, sweep := range sweeps {
		keys[i] = sweep.Key
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// await has the reader told when what was requested last has ended. It is not ok if
// nothing is pending.
func (s *sweeps) await() (ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.generations)
	if n > 0 {
		s.generations[n-1].awaited = true
	}
	return n > 0
}

// wake lets the sweeper look for a generation.
func (s *sweeps) wake() {
	select {
	case s.due <- struct{}{}:
	default:
	}
}

// settled returns the position of a stream up to which nothing is outstanding,
// if everything up to written has been applied.
func (s *sweeps) settled(stream int, written change.Position) change.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.generations {
		if before, asked := g.before[stream]; asked {
			return before
		}
	}
	return written
}

// pending returns the templates of all sweeps that have not ended.
func (s *sweeps) pending() []string {
	return keysOf(s.that(func(*generation) bool { return true }))
}

// wholly returns the templates of which all keys are still to be swept. What a part is
// swept for is known, and hides nothing else.
func (s *sweeps) wholly() []string {
	return keysOf(slices.DeleteFunc(s.that(func(*generation) bool { return true }), func(sweep guard.Sweep) bool { return sweep.Part != "" }))
}

// pendingOf returns those that a stream has asked for, and what was swept
// together with them.
func (s *sweeps) pendingOf(stream int) []guard.Sweep {
	return s.that(func(g *generation) bool {
		_, asked := g.before[stream]
		return asked
	})
}

func (s *sweeps) that(are func(*generation) bool) []guard.Sweep {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := []guard.Sweep{}
	for _, g := range s.generations {
		if are(g) {
			found = append(found, g.sweeps...)
		}
	}
	return distinct(found)
}

// asking returns, in order, the streams that have asked for g.
func (s *sweeps) asking(g *generation) []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(g.before))
}

// next marks the oldest generation as running and returns it; nil if there is
// none.
func (s *sweeps) next() *generation {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.generations) == 0 {
		return nil
	}
	s.generations[0].running = true
	return s.generations[0]
}

// ended takes the oldest away, and returns the streams that had asked for it.
func (s *sweeps) ended() (streams []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	streams = slices.Sorted(maps.Keys(s.generations[0].before))
	s.generations = s.generations[1:]
	return streams
}

// mark is a batch that a sweep wants behind what it has dropped, in each of the
// streams that have asked for it. A Redis that goes back to before the drops goes
// back to before that batch too, and answers the next one with LOST: so the end of
// a sweep is never noted on a Redis that has forgotten the sweep.
type mark struct {
	streams []int
	written chan struct{}
}

func (s *session) mark(ctx context.Context, streams []int) error {
	m := mark{streams, make(chan struct{})}
	select {
	case s.marks <- m:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-m.written:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sweepAll runs the sweeps, one generation after the other.
func (s *session) sweepAll(ctx context.Context, outages *outages) error {
	for {
		g := s.sweeps.next()
		if g == nil {
			select {
			case <-ctx.Done():
				return nil
			case <-s.sweeps.due:
			}
			continue
		}
		if err := s.sweep(ctx, outages, g); err != nil {
			if ctx.Err() != nil {
				return nil // the watermark still says that it is pending
			}
			return err
		}
		streams := s.sweeps.ended()
		select {
		case s.ended <- streams:
		case <-ctx.Done():
			return nil
		}
		if g.awaited {
			select {
			case s.swept <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// indexesKnowing are the indexes that know keys of a template. What made the keys
// doubtful may have made them so.
func (s *session) indexesKnowing(template string) []int {
	var numbers []int
	for number, x := range s.planner.Indexes() {
		if s.planner.Entries()[x.Entry].Key.String() == template {
			numbers = append(numbers, number)
		}
	}
	return numbers
}

// sweep goes by the names of the cached keys where it may, and over the keyspace twice
// where not. The first pass ends every lease that was given before the sweep's cause was
// visible; a reader that was quicker may have filled behind it, and the second drops
// that. No clock is asked.
func (s *session) sweep(ctx context.Context, outages *outages, g *generation) error {
	named, templates := s.templates(g)
	for {
		before, err := s.runID(ctx, outages)
		if err != nil {
			return err
		}
		collecting, err := s.sweepNamed(ctx, outages, named)
		if err != nil {
			return err
		}
		if all := slices.Concat(templates, collecting); len(all) > 0 {
			for range 2 {
				if err := s.pass(ctx, outages, all); err != nil {
					return err
				}
			}
		}
		if err := s.names(ctx, outages, collecting, s.sink.Collected); err != nil {
			return err
		}
		if err := s.mark(ctx, s.sweeps.asking(g)); err != nil {
			return err
		}
		after, err := s.runID(ctx, outages)
		if err != nil {
			return err
		}
		if before == after {
			return s.names(ctx, outages, collecting, func(ctx context.Context, keys []plan.Keys, _ string) error { return s.sink.Seal(ctx, keys) })
		}
		// A restart in between may have brought keys and leases back, and a cursor
		// over the keyspace does not survive it.
	}
}

// templates are the keys of a generation: those to be swept by their names, if those are
// complete, and the others.
func (s *session) templates(g *generation) (named, others []plan.Keys) {
	for _, sweep := range g.sweeps {
		text := sweep.Key
		t, err := guard.ParseTemplate(text)
		if err != nil {
			// It was written down by a release with other rules: nobody can say
			// which keys it named.
			s.logger.Error("a sweep of keys that this release cannot name: delete them by hand", "keys", text, "err", err)
			continue
		}
		shielded := slices.ContainsFunc(s.planner.Entries(), func(e plan.Entry) bool { return e.Sets() && e.Key.String() == text })
		keys := plan.Keys{Template: t.Narrow(sweep.Letters), Shielded: shielded}
		// Without any, and where a value has made of it what is no template, all keys go.
		if part, err := guard.ParseTemplate(sweep.Part); err == nil {
			keys.Part = part
		}
		if sweep.Part == "" {
			keys.Indexes = s.indexesKnowing(text)
		}
		// Only a pass over the keyspace finds the sets of indexes.
		if g.derived[text] && len(keys.Indexes) == 0 {
			named = append(named, keys)
		} else {
			others = append(others, keys)
		}
	}
	return named, others
}

// sweepNamed sweeps what it can by names. What is left must be swept otherwise, and has
// its names collected from now on.
func (s *session) sweepNamed(ctx context.Context, outages *outages, named []plan.Keys) (left []plan.Keys, err error) {
	if len(named) == 0 {
		return nil, nil
	}
	err = outages.persist(ctx, serverRedis, func(ctx context.Context) error {
		var scanned, dropped int
		left, scanned, dropped, err = s.sink.SweepNamed(ctx, named)
		if err == nil {
			s.observer.Swept(scanned, dropped)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return left, s.names(ctx, outages, left, s.sink.Collect)
}

// names does something to the names of keys, with a token of its own.
func (s *session) names(ctx context.Context, outages *outages, keys []plan.Keys, do func(ctx context.Context, keys []plan.Keys, token string) error) error {
	if len(keys) == 0 {
		return nil
	}
	token := rand.Text()
	return outages.persist(ctx, serverRedis, func(ctx context.Context) error { return do(ctx, keys, token) })
}

func (s *session) pass(ctx context.Context, outages *outages, templates []plan.Keys) error {
	return outages.persist(ctx, serverRedis, func(ctx context.Context) error {
		scanned, dropped, err := s.sink.Sweep(ctx, templates)
		if err == nil {
			s.observer.Swept(scanned, dropped)
		}
		return err
	})
}

func (s *session) runID(ctx context.Context, outages *outages) (id string, err error) {
	err = outages.persist(ctx, serverRedis, func(ctx context.Context) (err error) {
		id, err = s.sink.RunID(ctx)
		return err
	})
	return id, err
}
