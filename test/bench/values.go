package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"time"

	"github.com/unstale/unstale/internal/database"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
	"github.com/unstale/unstale/internal/redissink"
)

// benchValues measures what it costs that changes SET: the sink alone beside a
// plain pipeline of SETs, and the whole loop beside one that drops.
func benchValues(ctx context.Context, b *bench) error {
	slots, err := b.newSlots(ctx, 2)
	if err != nil {
		return err
	}
	entries := map[plan.OnChange]plan.Entry{}
	for _, mode := range []plan.OnChange{plan.Invalidate, plan.Warm} {
		if entries[mode], err = b.entry(ctx, mode); err != nil {
			return err
		}
	}
	var plain, batched, dropped, set []float64
	for i := range b.sizes.Runs {
		b.say(fmt.Sprintf("setting values, run %d of %d", i+1, b.sizes.Runs))
		for _, one := range []struct {
			rates   *[]float64
			measure func() (float64, error)
		}{
			{&plain, func() (float64, error) { return b.setPlain(ctx) }},
			{&batched, func() (float64, error) { return b.setBatches(ctx, entries[plan.Warm]) }},
			{&dropped, func() (float64, error) { return b.live(ctx, slots[0], entries[plan.Invalidate]) }},
			{&set, func() (float64, error) { return b.live(ctx, slots[1], entries[plan.Warm]) }},
		} {
			rate, err := one.measure()
			if err != nil {
				return err
			}
			*one.rates = append(*one.rates, rate)
		}
	}
	b.report.add("values: set by full batches", "keys/s", batched, "SET PX, pipelined", plain, ratioAtLeast(0.8))
	b.report.add("values: rows applied while they come, set", "rows/s", set, "the same, dropped", dropped, nil)
	return b.dropSlots(ctx, slots)
}

// entry is the entry over products in one mode.
func (b *bench) entry(ctx context.Context, mode plan.OnChange) (plan.Entry, error) {
	template, err := guard.ParseTemplate(keyTemplate)
	if err != nil {
		return plan.Entry{}, err
	}
	shapes, err := database.Shapes(ctx, b.conn, []database.Name{{Schema: "public", Table: "products"}})
	if err != nil {
		return plan.Entry{}, err
	}
	return plan.Entry{Name: "product", Key: template, Schema: "public", Table: "products", Lease: guard.Lease, OnChange: mode, TTL: guard.TTL, Shape: shapes[0]}, nil
}

// A value of the length of a product's row.
var sampleValue = []byte(`{"id":1234567,"category_id":567,"name":"product number 1234567","description":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx","price":67.89,"stock":123,"updated_at":"2026-01-02T03:04:05.678901+00:00"}`)

func (b *bench) setPlain(ctx context.Context) (perSecond float64, err error) {
	began := time.Now()
	for next := 1; next <= b.sizes.Rows; {
		pipe := b.rdb.Pipeline()
		for range min(pipelineCommands, b.sizes.Rows-next+1) {
			pipe.Set(ctx, keyPrefix+strconv.Itoa(next), sampleValue, guard.TTL)
			next++
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return 0, err
		}
	}
	return float64(b.sizes.Rows) / time.Since(began).Seconds(), nil
}

// setBatches has the sink write full batches, in groups as the loop does.
func (b *bench) setBatches(ctx context.Context, entry plan.Entry) (perSecond float64, err error) {
	const group = 16
	sink := redissink.New(b.rdb, redissink.Options{Entries: []plan.Entry{entry}})
	if _, err := sink.Own(ctx, []string{"bench:values"}); err != nil {
		return 0, err
	}
	batches := make([]*plan.Batch, group)
	for i := range batches {
		batches[i] = plan.NewBatch()
	}
	runtime.GC()
	began := time.Now()
	set := 0
	var key []byte
	for next := 1; next <= b.sizes.Rows; {
		full := batches[:0]
		for len(full) < group && next <= b.sizes.Rows {
			batch := batches[:group][len(full)]
			batch.Reset()
			batch.End.LSN, batch.Until = uint64(next), time.Now().Add(guard.UntilMax)
			for ; !batch.Full() && next <= b.sizes.Rows; next++ {
				key = strconv.AppendInt(append(key[:0], keyPrefix...), int64(next), 10)
				batch.Add(key, plan.Set, 0, sampleValue, uint64(next))
			}
			full = append(full, batch)
		}
		if _, err := sink.Write(ctx, full); err != nil {
			return 0, err
		}
		for _, batch := range full {
			set += batch.Sets()
		}
	}
	if set != b.sizes.Rows {
		return 0, fmt.Errorf("%d keys were set, want %d", set, b.sizes.Rows)
	}
	return float64(b.sizes.Rows) / time.Since(began).Seconds(), nil
}

// live commits transactions of a hundred rows each while the loop runs, and
// returns the rate from the first to the last reply of Redis. What is set must be
// all of it: changes that come late, or in part, only drop.
func (b *bench) live(ctx context.Context, slot string, entry plan.Entry) (perSecond float64, err error) {
	watcher := newWatcher(0)
	r, err := b.runLoop(ctx, slot, watcher, entry)
	if err != nil {
		return 0, err
	}
	err = r.ready(ctx)
	if err == nil {
		err = b.exec(ctx, "UPDATE products SET stock = stock + 1 WHERE id = 0") // the log is past the beginning
	}
	if err == nil {
		watcher.restart(b.sizes.Rows)
		began := time.Now()
		if err = b.exec(ctx, "SET synchronous_commit = off", fmt.Sprintf("CALL change_by_hundreds(%d)", b.sizes.Rows)); err == nil {
			err = watcher.await(ctx, r)
			perSecond = float64(b.sizes.Rows) / time.Since(began).Seconds()
		}
	}
	if err := errors.Join(err, r.stop()); err != nil {
		return 0, err
	}
	if entry.Sets() && watcher.sets < b.sizes.Rows {
		return 0, fmt.Errorf("%d of %d rows were set: the rest came too late for that, so this measures nothing", watcher.sets, b.sizes.Rows)
	}
	return perSecond, nil
}
