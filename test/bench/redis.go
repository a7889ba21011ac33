package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/unstale/unstale/internal/apply"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
	"github.com/unstale/unstale/internal/redissink"
)

// A running is the loop of the service, in this process: source, planner, gate
// and sink as `unstale run` wires them, without the admin server.
type running struct {
	reader *reader
	loop   *apply.Loop
	rdb    *redis.Client
	cancel context.CancelFunc
	ended  chan struct{}
	err    error // of the loop, once ended is closed
}

// runLoop starts a loop that tells observer what it does.
func (b *bench) runLoop(ctx context.Context, slot string, observer apply.Observer, entries ...plan.Entry) (*running, error) {
	return b.runFinding(ctx, slot, observer, nil, entries...)
}

// runFinding starts one that has its lookups answered by finder.
func (b *bench) runFinding(ctx context.Context, slot string, observer apply.Observer, finder apply.Finder, entries ...plan.Entry) (*running, error) {
	reader, err := b.newReader(slot, entries...)
	if err != nil {
		return nil, err
	}
	options, err := redis.ParseURL(b.redis.URL())
	if err != nil {
		return nil, err
	}
	options.MaxRetries = -1
	options.DisableIdentity = true
	r := &running{reader: reader, rdb: redis.NewClient(options), ended: make(chan struct{})}
	r.loop = apply.New(reader.source, reader.planner, reader.gate, fixedCatalog{}, redissink.New(r.rdb, redissink.Options{Entries: reader.planner.Entries()}), apply.Options{Observer: observer, Loader: noLoader{}, Finder: finder})
	ctx, r.cancel = context.WithCancel(ctx)
	go func() {
		defer close(r.ended)
		r.err = r.loop.Run(ctx)
	}()
	return r, nil
}

// stop ends the loop as SIGTERM does.
func (r *running) stop() error {
	r.cancel()
	<-r.ended
	r.reader.gate.Close()
	return errors.Join(r.err, r.rdb.Close())
}

// fixedCatalog stands for the catalog of a database whose tables nobody alters.
type fixedCatalog struct{}

func (fixedCatalog) Replan(context.Context) error { return nil }

func (fixedCatalog) Look(context.Context) (apply.Look, error) {
	return apply.Look{Fingerprints: guard.Fingerprints{"product": {Key: keyTemplate, Hash: "fixed"}}}, nil
}

// noLoader leaves keys to the readers.
type noLoader struct{}

func (noLoader) Request(int, string) {}
func (noLoader) Forget()             {}

// A watcher is told by a loop what it has written.
type watcher struct {
	mu        sync.Mutex
	changes   int
	sets      int
	batches   int
	latencies []time.Duration
	want      int           // changes
	reached   chan struct{} // closed when they are written
}

func newWatcher(want int) *watcher {
	w := &watcher{}
	w.restart(want)
	return w
}

// restart forgets what was written, and waits for so many changes from now on.
func (w *watcher) restart(want int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changes, w.sets, w.batches, w.want = 0, 0, 0, want
	w.latencies = make([]time.Duration, 0, want)
	w.reached = make(chan struct{})
}

func (w *watcher) Written(batch apply.Written) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.changes
	w.changes += batch.Changes
	w.sets += batch.Sets
	w.batches++
	w.latencies = append(w.latencies, batch.Latencies...)
	if before < w.want && w.changes >= w.want {
		close(w.reached)
	}
}

// perBatch is how many changes were written by one script.
func (w *watcher) perBatch() float64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return float64(w.changes) / float64(w.batches)
}

func (w *watcher) Gated(time.Duration, int) {}

func (w *watcher) LookedUp(string, int, int) {}

func (w *watcher) Built(string)         {}
func (w *watcher) Held(string)          {}
func (w *watcher) Gap(string)           {}
func (w *watcher) Sweep(string, string) {}
func (w *watcher) Swept(int, int)       {}

// await waits until everything is written.
func (w *watcher) await(ctx context.Context, r *running) error {
	select {
	case <-w.reached:
		return nil
	case <-r.ended:
		return fmt.Errorf("the loop ended: %w", errors.Join(r.err, errShort))
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ready waits until the loop has caught up and swept.
func (r *running) ready(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if status := r.loop.Status(); status.Ready() {
			return nil
		}
		select {
		case <-tick.C:
		case <-r.ended:
			return fmt.Errorf("the loop ended: %w", errors.Join(r.err, errShort))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// settle runs a loop on a slot until it is ready: a first start sweeps, and that
// is not what is measured.
func (b *bench) settle(ctx context.Context, slot string) error {
	r, err := b.runLoop(ctx, slot, newWatcher(0))
	if err != nil {
		return err
	}
	err = r.ready(ctx)
	if err := errors.Join(err, r.stop()); err != nil {
		return fmt.Errorf("first start on slot %s: %w", slot, err)
	}
	return nil
}

// drainToRedis has the whole loop apply the workload to a Redis that caches
// every row.
func (b *bench) drainToRedis(ctx context.Context, name, slot string, changes int, end uint64) (d drained, err error) {
	left, err := b.fill(ctx, keyPrefix, changes)
	if err != nil {
		return d, err
	}
	runtime.GC()
	before, err := b.cpuNow()
	if err != nil {
		return d, err
	}
	watcher := newWatcher(changes)
	err = b.profile.during(name, func() error {
		var memory, then runtime.MemStats
		runtime.ReadMemStats(&memory)
		began := time.Now()
		r, err := b.runLoop(ctx, slot, watcher)
		if err != nil {
			return err
		}
		err = watcher.await(ctx, r)
		d.seconds = time.Since(began).Seconds()
		runtime.ReadMemStats(&then)
		d.allocations = float64(then.Mallocs-memory.Mallocs) / float64(changes)
		d.batch = watcher.perBatch()
		after, errCPU := b.cpuNow()
		d.cpu = after.since(before)
		return errors.Join(err, errCPU, r.stop())
	})
	if err != nil {
		return d, err
	}
	return d, b.expectKeys(ctx, left)
}

// unlink drops the same keys with the same client and nothing else: one key a
// command, in pipelines.
func (b *bench) unlink(ctx context.Context, keys int) (d drained, err error) {
	left, err := b.fill(ctx, keyPrefix, keys)
	if err != nil {
		return d, err
	}
	runtime.GC()
	before, err := b.cpuNow()
	if err != nil {
		return d, err
	}
	began := time.Now()
	if _, err := b.unlinkAll(ctx, keyPrefix, keys); err != nil {
		return d, err
	}
	d.seconds = time.Since(began).Seconds()
	after, err := b.cpuNow()
	if err != nil {
		return d, err
	}
	d.cpu = after.since(before)
	return d, b.expectKeys(ctx, left)
}

// pipelineCommands is how many commands one round trip of a plain pipeline has.
// More does not make it faster.
const pipelineCommands = 1000

// fill caches the rows 1 to n, and returns how many other keys there are.
func (b *bench) fill(ctx context.Context, prefix string, n int) (others int64, err error) {
	if others, err = b.rdb.DBSize(ctx).Result(); err != nil {
		return 0, err
	}
	value := strings.Repeat("x", 200)
	const atOnce = 500
	pairs := make([]any, 0, 2*atOnce)
	for i := 1; i <= n; i++ {
		pairs = append(pairs, prefix+strconv.Itoa(i), value)
		if len(pairs) == cap(pairs) || i == n {
			if err := b.rdb.MSet(ctx, pairs...).Err(); err != nil {
				return 0, fmt.Errorf("fill the cache: %w", err)
			}
			pairs = pairs[:0]
		}
	}
	return others, nil
}

// expectKeys demands that every cached row is gone and nothing else is.
func (b *bench) expectKeys(ctx context.Context, want int64) error {
	got, err := b.rdb.DBSize(ctx).Result()
	if err == nil && got != want {
		return fmt.Errorf("%d keys are left in Redis, want %d", got, want)
	}
	return err
}
