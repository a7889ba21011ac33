package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
	"github.com/unstale/unstale/internal/redissink"
)

// namedKeys is how many keys of the entry are cached, otherKeys how many keys stand
// beside them.
const (
	namedKeys = 1000
	otherKeys = 1_000_000
)

// benchNames sweeps an entry by the names of its cached keys and by the two passes over
// the keyspace that it takes without them, neither at a limited rate.
func benchNames(ctx context.Context, b *bench) error {
	template, err := guard.ParseTemplate("can:{user}:{right}")
	if err != nil {
		return err
	}
	entry := plan.Entry{Name: "can", Key: template, Lease: guard.Lease, TTL: time.Hour}
	keys := func() []plan.Keys { return []plan.Keys{{Template: template}} }
	sink := redissink.New(b.rdb, redissink.Options{Entries: []plan.Entry{entry}, SweepRate: 1 << 40})
	leases := redissink.NewLeases(b.rdb)
	var cached []string
	var values [][]string
	for i := range namedKeys {
		cached, values = append(cached, "can:"+strconv.Itoa(i)+":read"), append(values, []string{"t"})
	}
	load := func() error {
		if _, _, err := leases.Begin(ctx, guard.Claim{}, &entry, "token", cached); err != nil {
			return err
		}
		filled, err := leases.Fill(ctx, &entry, "token", 0, cached, values)
		for i := range filled {
			if filled[i] != guard.Stored && err == nil {
				err = fmt.Errorf("fill %s: %s", cached[i], filled[i])
			}
		}
		return err
	}
	passes := func(keys []plan.Keys) (dropped int, err error) {
		for range 2 {
			_, n, err := sink.Sweep(ctx, keys)
			if err != nil {
				return 0, err
			}
			dropped += n
		}
		return dropped, nil
	}
	left, err := b.fill(ctx, "foreign:", otherKeys)
	if err != nil {
		return err
	}
	collecting := keys()
	if err := sink.Collect(ctx, collecting, "1"); err != nil {
		return err
	}
	if _, err := passes(collecting); err != nil {
		return err
	}
	if err := sink.Collected(ctx, collecting, "2"); err != nil {
		return err
	}
	if err := sink.Seal(ctx, collecting); err != nil {
		return err
	}
	var named, scanned []float64
	// once runs one sweep of the keys, which must drop them all, and returns what it took.
	once := func(sweep func() (dropped int, err error)) (ms float64, err error) {
		if err := load(); err != nil {
			return 0, err
		}
		began := time.Now()
		dropped, err := sweep()
		ms = time.Since(began).Seconds() * 1e3
		if err == nil && dropped != namedKeys {
			err = fmt.Errorf("%d keys were swept, want %d", dropped, namedKeys)
		}
		return ms, err
	}
	for i := range b.sizes.Runs {
		b.say(fmt.Sprintf("sweeping by names, run %d of %d", i+1, b.sizes.Runs))
		ms, err := once(func() (int, error) {
			missing, _, dropped, err := sink.SweepNamed(ctx, keys())
			if err == nil && len(missing) > 0 {
				err = errors.New("names are missing")
			}
			return dropped, err
		})
		if err != nil {
			return err
		}
		named = append(named, ms)
		if ms, err = once(func() (int, error) { return passes(keys()) }); err != nil {
			return err
		}
		scanned = append(scanned, ms)
	}
	if _, err := b.unlinkAll(ctx, "foreign:", otherKeys); err != nil {
		return err
	}
	pipe := b.rdb.Pipeline()
	for slot := range guard.Slots {
		pipe.Unlink(ctx, guard.NamesKey(uint16(slot), "can"))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return err
	}
	b.report.add(fmt.Sprintf("names: a sweep of %s keys beside %s", thousands(namedKeys), thousands(otherKeys)), "ms", named, "two passes over all keys", scanned, ratioAtMost(0.2))
	return b.expectKeys(ctx, left)
}
