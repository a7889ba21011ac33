package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/unstale/unstale/internal/admin"
)

// hotCategories are those that are renamed where sets answer: each is asked for again.
const hotCategories = 50

// roundsMax bounds how often they are renamed until all sets are there.
const roundsMax = 100

// lookupsByIndex has the built binary apply a backlog of transactions, each of which asks
// ten lookups, and another one that asks the database right after.
func (b *bench) lookupsByIndex(ctx context.Context) (err error) {
	by := func(lookup string) (*service, error) {
		var entries strings.Builder
		for i := range lookupEntries {
			fmt.Fprintf(&entries, "  %s%d: {key: '%s%d:{id}', lookup: %s, query: \"SELECT t.id, c.name FROM wares t JOIN categories c ON c.id = t.category_id WHERE t.id = @id\"}\n",
				lookup, i, lookup, i, lookup)
		}
		return b.startService(ctx, fmt.Sprintf("source: {postgres: {slot: bench_by_%s, publication: bench_lookups}}\nentries:\n%s", lookup, &entries))
	}
	index, err := by("index")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, index.stop()) }()
	if err := index.ready(ctx); err != nil {
		return err
	}
	database, err := by("database")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, database.stop()) }()
	if err := database.ready(ctx); err != nil {
		return err
	}
	b.say("building the sets of an index")
	written := uint64(0)
	for built, rounds := 0.0, 0; built < hotCategories*lookupEntries; rounds++ {
		if rounds == roundsMax {
			return fmt.Errorf("after %d rounds %.0f sets are built: %w", rounds, built, errShort)
		}
		if err := b.renameHot(ctx, hotCategories); err != nil {
			return err
		}
		written += hotCategories + 1
		if err := index.applied(ctx, written); err != nil {
			return err
		}
		if built, err = index.metric(ctx, "unstale_index_sets_built_total"); err != nil {
			return err
		}
	}
	asked := func() (bySet, byDatabase float64, err error) {
		bySet, err = index.metric(ctx, `unstale_lookups_total{by="index"`)
		if err == nil {
			byDatabase, err = index.metric(ctx, `unstale_lookups_total{by="database"`)
		}
		return bySet, byDatabase, err
	}
	bySetBefore, byDatabaseBefore, err := asked()
	if err != nil {
		return err
	}
	// Both stand still while it is written, and then one at a time works it off.
	services := []*service{index, database}
	rates, costs := make([][]float64, 2), make([][]drained, 2)
	for i := range b.sizes.Runs {
		b.say(fmt.Sprintf("looking up by index, run %d of %d", i+1, b.sizes.Runs))
		for _, s := range services {
			if err := errors.Join(s.applied(ctx, written), s.cmd.Process.Signal(syscall.SIGSTOP)); err != nil {
				return err
			}
		}
		if err := b.renameHot(ctx, b.sizes.Lookups); err != nil {
			return err
		}
		written += uint64(b.sizes.Lookups) + 1
		for n, s := range services {
			before, err := b.cpuNow()
			if err != nil {
				return err
			}
			spent, err := treeTime(s.pid())
			if err != nil {
				return err
			}
			began := time.Now()
			if err := s.cmd.Process.Signal(syscall.SIGCONT); err != nil {
				return err
			}
			if err := s.applied(ctx, written); err != nil {
				return err
			}
			rates[n] = append(rates[n], float64(b.sizes.Lookups)/time.Since(began).Seconds())
			after, err := b.cpuNow()
			if err != nil {
				return err
			}
			until, err := treeTime(s.pid())
			if err != nil {
				return err
			}
			d := drained{cpu: after.since(before)}
			d.cpu.reader = until - spent
			costs[n] = append(costs[n], d)
		}
	}
	bySet, byDatabase, err := asked()
	if err != nil {
		return err
	}
	bySet, byDatabase = bySet-bySetBefore, byDatabase-byDatabaseBefore
	if bySet < 0.99*(bySet+byDatabase) {
		return fmt.Errorf("sets have answered %.0f of %.0f questions: %w", bySet, bySet+byDatabase, errShort)
	}
	b.report.add("lookups: changes with ten lookups by index, five keys each", "changes/s", rates[0], "by database", rates[1], nil)
	b.cost("lookups: a change, by index", b.sizes.Lookups, costs[0])
	b.cost("lookups: a change, by database", b.sizes.Lookups, costs[1])
	return nil
}

// renameHot renames the hot categories in turn, so many times, and flushes that.
func (b *bench) renameHot(ctx context.Context, times int) error {
	return b.exec(ctx, "SET synchronous_commit = off", fmt.Sprintf("CALL rename_one_by_one(1, %d, %d)", times, hotCategories), "SET synchronous_commit = on",
		"UPDATE categories SET note = 'flushed ' || txid_current() WHERE id = 0")
}

// applied waits until a service has applied so many changes.
func (s *service) applied(ctx context.Context, changes uint64) error {
	return s.until(ctx, 5*time.Millisecond, func(status *admin.Status) bool { return status.Changes >= changes })
}

// metric is the sum of the metrics whose lines begin like that.
func (s *service) metric(ctx context.Context, beginning string) (sum float64, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.address+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	reply, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer reply.Body.Close()
	if reply.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("ask for metrics: %s", reply.Status)
	}
	lines := bufio.NewScanner(reply.Body)
	for lines.Scan() {
		if name, number, ok := strings.Cut(lines.Text(), " "); ok && strings.HasPrefix(name, beginning) {
			n, err := strconv.ParseFloat(number, 64)
			if err != nil {
				return 0, err
			}
			sum += n
		}
	}
	return sum, lines.Err()
}
