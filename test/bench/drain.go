package main

import (
	"context"
	"fmt"
	"os/exec"
	"runtime"
	"time"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/plan"
)

// A workload is written to the log once; then each peer reads it from a slot
// that stood before it.
type workload struct {
	name    string // of the profiles
	unit    string
	changes int
	goal    *goal // beside pg_recvlogical
	write   func(context.Context, *bench) error
}

func benchRows(ctx context.Context, b *bench) error {
	return b.drain(ctx, workload{
		name: "rows", unit: "rows/s", changes: b.sizes.Rows, goal: ratioAtLeast(1.5),
		write: func(ctx context.Context, b *bench) error {
			return b.exec(ctx, "UPDATE products SET price = price + 1 WHERE id > 0")
		},
	})
}

func benchTransactions(ctx context.Context, b *bench) error {
	return b.drain(ctx, workload{
		name: "transactions", unit: "tx/s", changes: b.sizes.Transactions, goal: ratioAtLeast(2.5),
		write: func(ctx context.Context, b *bench) error {
			return b.exec(ctx, "SET synchronous_commit = off",
				fmt.Sprintf("CALL change_one_by_one(1, %d)", b.sizes.Transactions))
		},
	})
}

// A drained is what one peer needed for a workload.
type drained struct {
	seconds float64
	cpu     cpuTimes
	// first is when the first change came: before that the server decodes the
	// transaction to its end.
	first       float64
	allocations float64 // a change
	batch       float64 // changes that one script applied
}

// drain has each peer read the workload, one right after the other, Runs times.
func (b *bench) drain(ctx context.Context, w workload) error {
	runs := b.sizes.Runs
	peerSlots, err := b.newSlots(ctx, runs)
	if err != nil {
		return err
	}
	ourSlots, err := b.newSlots(ctx, 1+runs)
	if err != nil {
		return err
	}
	nullSlot, applySlots := ourSlots[0], ourSlots[1:]
	for _, slot := range applySlots {
		if err := b.settle(ctx, slot); err != nil {
			return err
		}
	}

	b.say(fmt.Sprintf("writing %s %s", thousands(int64(w.changes)), w.name))
	if err := w.write(ctx, b); err != nil {
		return err
	}
	end, err := b.mark(ctx)
	if err != nil {
		return err
	}
	if err := b.exec(ctx, "CHECKPOINT"); err != nil {
		return err
	}

	var peers, nulls, applies, unlinks []drained
	for i := range runs {
		b.say(fmt.Sprintf("draining %s, run %d of %d", w.name, i+1, runs))
		peer, err := b.drainByPeer(ctx, peerSlots[i], end)
		if err != nil {
			return err
		}
		peers = append(peers, peer)
		null, err := b.drainToNull(ctx, fmt.Sprintf("%s-null-%d", w.name, i+1), nullSlot, w.changes, end)
		if err != nil {
			return err
		}
		nulls = append(nulls, null)
		apply, err := b.drainToRedis(ctx, fmt.Sprintf("%s-redis-%d", w.name, i+1), applySlots[i], w.changes, end)
		if err != nil {
			return err
		}
		applies = append(applies, apply)
		unlink, err := b.unlink(ctx, w.changes)
		if err != nil {
			return err
		}
		unlinks = append(unlinks, unlink)
	}

	rate := func(d drained) float64 { return float64(w.changes) / d.seconds }
	peerRates, applyRates := each(peers, rate), each(applies, rate)
	b.report.add(w.name+": planned, to nowhere", w.unit, each(nulls, rate), "pg_recvlogical to /dev/null", peerRates, w.goal)
	b.report.add(w.name+": applied to Redis", w.unit, applyRates, "pg_recvlogical to /dev/null", peerRates, nil)
	b.report.add(w.name+": applied to Redis", w.unit, applyRates, "UNLINK, pipelined, one key a command", each(unlinks, rate), nil)
	b.report.add(w.name+": allocations, planned", "a change", each(nulls, func(d drained) float64 { return d.allocations }), "", nil,
		&goal{"0", func(r *result) bool { return r.Ours < allocationsNone }})
	b.report.add(w.name+": allocations, applied", "a change", each(applies, func(d drained) float64 { return d.allocations }), "", nil, nil)
	b.report.add(w.name+": applied by one script", "changes", each(applies, func(d drained) float64 { return d.batch }), "", nil, nil)
	if first := median(each(nulls, func(d drained) float64 { return d.first })); first > 0.1 {
		b.report.add(w.name+": server decodes before the first", "s", []float64{first}, "", nil, nil)
	}
	for _, c := range []struct {
		what string
		runs []drained
	}{
		{"pg_recvlogical to /dev/null", peers}, {"planned, to nowhere", nulls},
		{"applied to Redis", applies}, {"UNLINK, pipelined", unlinks},
	} {
		b.cost(w.name+": "+c.what, w.changes, c.runs)
	}
	return b.dropSlots(ctx, append(peerSlots, ourSlots...))
}

// cost reports the processor time of runs, divided by their changes.
func (b *bench) cost(what string, changes int, runs []drained) {
	spent := func(of func(cpuTimes) time.Duration) float64 {
		return median(each(runs, func(d drained) float64 { return of(d.cpu).Seconds() * 1e6 / float64(changes) }))
	}
	b.report.Costs = append(b.report.Costs, cost{
		What:     what,
		Reader:   spent(func(t cpuTimes) time.Duration { return t.reader }),
		Postgres: spent(func(t cpuTimes) time.Duration { return t.postgres }),
		Redis:    spent(func(t cpuTimes) time.Duration { return t.redis }),
		Kafka:    spent(func(t cpuTimes) time.Duration { return t.kafka }),
		Others:   median(each(runs, func(d drained) float64 { return d.cpu.others() })),
	})
}

// allocationsNone is what counts as no allocation a change: a buffer that grows
// once, a timer, the runtime's own, spread over all changes.
const allocationsNone = 0.005

func each(runs []drained, value func(drained) float64) []float64 {
	values := make([]float64, len(runs))
	for i, run := range runs {
		values[i] = value(run)
	}
	return values
}

// drainByPeer has pg_recvlogical read up to end.
func (b *bench) drainByPeer(ctx context.Context, slot string, end uint64) (d drained, err error) {
	tool, err := b.postgres.Tool("pg_recvlogical")
	if err != nil {
		return d, err
	}
	// The same connection as ours: TCP, no TLS.
	cmd := exec.CommandContext(ctx, tool, "--dbname="+b.postgres.URL(), "--slot="+slot, "--start", "--no-loop",
		"--option=proto_version=1", "--option=publication_names="+publication,
		"--file=/dev/null", fmt.Sprintf("--endpos=%X/%X", end>>32, uint32(end)))
	before, err := b.cpuNow()
	if err != nil {
		return d, err
	}
	began := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return d, fmt.Errorf("pg_recvlogical: %w\n%s", err, out)
	}
	d.seconds = time.Since(began).Seconds()
	after, err := b.cpuNow()
	if err != nil {
		return d, err
	}
	d.cpu = after.since(before)
	d.cpu.reader = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return d, nil
}

// drainToNull reads and plans up to end, as the loop does, and throws the
// batches away. Nothing is confirmed, so the slot can be read again.
func (b *bench) drainToNull(ctx context.Context, name, slot string, changes int, end uint64) (d drained, err error) {
	r, err := b.newReader(slot)
	if err != nil {
		return d, err
	}
	defer r.gate.Close()
	batch := plan.NewBatch()
	runtime.GC() // what came before is not our cost
	before, err := b.cpuNow()
	if err != nil {
		return d, err
	}
	err = b.profile.during(name, func() error {
		began := time.Now()
		at, err := r.source.Attach(ctx)
		if err != nil {
			return err
		}
		if at.Streams[0].Gap != "" {
			return fmt.Errorf("gap: %s", at.Streams[0].Gap)
		}
		var memory, then runtime.MemStats
		runtime.ReadMemStats(&memory)
		planned, keys := 0, 0
		for {
			c, err := r.source.Next(ctx)
			if err != nil {
				return err
			}
			if c.Op == change.Commit && c.Position.LSN > end {
				break // of the marker behind the workload
			}
			if d.first == 0 {
				d.first = time.Since(began).Seconds()
			}
			r.planner.Plan(c, batch)
			if batch.Full() || !r.source.Pending() {
				planned += batch.Changes
				keys += batch.Len()
				batch.Reset()
			}
		}
		d.seconds = time.Since(began).Seconds()
		runtime.ReadMemStats(&then)
		planned += batch.Changes
		keys += batch.Len()
		if planned != changes+1 || keys != changes+1 { // and the marker's
			return fmt.Errorf("%d changes and %d keys were planned, want %d: %w", planned, keys, changes+1, errShort)
		}
		d.allocations = float64(then.Mallocs-memory.Mallocs) / float64(changes)
		return nil
	})
	if err != nil {
		return d, err
	}
	after, err := b.cpuNow()
	if err != nil {
		return d, err
	}
	d.cpu = after.since(before)
	return d, r.close(ctx)
}
