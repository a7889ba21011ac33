package demo

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

const (
	writers   = 8
	readPause = 20 * time.Millisecond // on average
	showEvery = 250 * time.Millisecond
	// behindMax bounds what a writer makes up for after a stall.
	behindMax = time.Second
)

// underLoad runs the load until Options.For is over or ctx ends, and reports
// what it came to.
func (d *Demo) underLoad(ctx context.Context) (*Report, error) {
	loading, end := context.WithCancel(ctx)
	defer end()
	if d.options.For > 0 {
		// No deadline: a connection that is given one can time out before the
		// context says that it is over.
		defer time.AfterFunc(d.options.For, end).Stop()
	}
	work, working := errgroup.WithContext(loading)
	// carry runs one carrier of the load. That the time is over is no error.
	carry := func(run func(context.Context) error) {
		work.Go(func() error {
			err := run(working)
			if loading.Err() != nil {
				return nil
			}
			return err
		})
	}
	d.began = time.Now()
	carry(func(ctx context.Context) error { return d.consumer.run(ctx, d.redis) })
	carry(d.checker.settle)
	carry(d.canary.run)
	for range writers {
		carry(d.write)
	}
	for range d.options.Readers {
		carry(d.readOn)
	}
	if d.options.Show != nil {
		carry(d.show)
	}
	err := work.Wait()
	report := d.report(context.WithoutCancel(ctx))
	return &report, err
}

// write changes rows at its share of the rate, whatever the caches do.
func (d *Demo) write(ctx context.Context) error {
	shopper := newShopper(d.shop)
	mean := writers * float64(time.Second) / float64(d.options.ChangesPerSecond)
	for due := time.Now(); ; {
		if err := pauseUntil(ctx, due); err != nil {
			return err
		}
		updates := shopper.changes()
		if err := d.commit(ctx, updates); err != nil {
			return err
		}
		due = due.Add(time.Duration(shopper.random.ExpFloat64() * mean * float64(len(updates))))
		if late := time.Now().Add(-behindMax); due.Before(late) {
			due = late
		}
	}
}

// commit makes the updates in one transaction.
func (d *Demo) commit(ctx context.Context, updates []update) error {
	versions := make([]int64, len(updates))
	var batch pgx.Batch
	for i, u := range updates {
		batch.Queue(u.sql, u.arguments...).QueryRow(func(row pgx.Row) error { return row.Scan(&versions[i]) })
	}
	if err := d.pool.SendBatch(ctx, &batch).Close(); err != nil {
		return fmt.Errorf("change rows: %w", err)
	}
	d.changes.Add(int64(len(updates)))
	for i, u := range updates {
		d.checker.committed(u.row, versions[i])
	}
	return nil
}

// readOn reads one row after the other, each through all three caches. Which of
// them comes first is chosen anew each time.
func (d *Demo) readOn(ctx context.Context) error {
	shopper := newShopper(d.shop)
	for {
		pause := time.Duration(shopper.random.ExpFloat64() * float64(readPause))
		if err := pauseUntil(ctx, time.Now().Add(pause)); err != nil {
			return err
		}
		row := shopper.reads()
		for i, first := 0, shopper.random.IntN(cacheCount); i < cacheCount; i++ {
			// As much in the first cache as in the last: half to one and a half times
			// the mean.
			loadTime := time.Duration((0.5 + shopper.random.Float64()) * float64(d.options.LoadTime))
			if err := d.read(ctx, d.caches[(first+i)%cacheCount], row, loadTime); err != nil {
				return err
			}
		}
	}
}

// read reads one row through one cache, and has a hit judged.
func (d *Demo) read(ctx context.Context, c *cache, index int, loadTime time.Duration) error {
	row := &d.shop.rows[index]
	key := c.prefix + row.key
	loaded := false
	began := time.Now()
	value, err := c.read(ctx, row.entry, key, func(ctx context.Context) (value []byte, lsn int64, err error) {
		loaded = true
		if err := d.pool.QueryRow(ctx, row.entry.load, row.ids...).Scan(&value, &lsn); err != nil {
			return nil, 0, err
		}
		return value, lsn, pauseUntil(ctx, time.Now().Add(loadTime))
	})
	if err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	counts := c.counts[row.entry]
	counts.reads.Add(1)
	if loaded {
		return nil
	}
	counts.hits.Add(1)
	stale, err := d.checker.judge(index, key, value, began)
	if err != nil {
		return err
	}
	if stale != nil {
		counts.stale.Add(1)
		c.last.Store(stale)
	}
	return nil
}

func (d *Demo) show(ctx context.Context) error {
	tick := time.NewTicker(showEvery)
	defer tick.Stop()
	for {
		d.options.Show(d.report(ctx))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// pauseUntil returns early, with its error, if ctx ends.
func pauseUntil(ctx context.Context, at time.Time) error {
	pause := time.Until(at)
	if pause <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
