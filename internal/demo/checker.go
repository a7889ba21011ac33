package demo

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/unstale/unstale"
)

// checker knows, for every row, the version below which no cache that follows
// the stream has an excuse: its change is committed, the barrier says that it
// is settled in Unstale's cache, and the consumer that sends DEL has had it too.
type checker struct {
	shop     *shop
	pool     *pgxpool.Pool
	consumer *delConsumer
	// barrier waits until the coherent cache has everything up to a position: as
	// PositionQuery gives it, and its LSN.
	barrier func(ctx context.Context, position string, lsn uint64) error

	floors []floor // by row

	mu sync.Mutex
	// pending has the newest version of each row that is committed and not yet
	// settled: no more than there are rows, however far the stream is behind.
	pending map[int]int64
	wake    chan struct{} // of one; full while pending is not empty
}

// floor has one writer, settle.
type floor struct {
	version atomic.Int64
	since   atomic.Int64 // Unix time in nanoseconds
}

// raise never lowers: of two commits of one row the later may be noted first.
func (f *floor) raise(version, now int64) {
	if f.version.Load() < version {
		f.since.Store(now)
		f.version.Store(version)
	}
}

// StaleHit is a hit that was older than it could have been.
type StaleHit struct {
	Key       string
	Row       string        // that it shows; empty: its own
	Got, Want int64         // versions of that
	After     time.Duration // since the wanted version was settled
}

func newChecker(shop *shop, pool *pgxpool.Pool, barrier func(context.Context, string, uint64) error, consumer *delConsumer) *checker {
	return &checker{
		shop: shop, pool: pool, barrier: barrier, consumer: consumer,
		floors: make([]floor, len(shop.rows)), pending: map[int]int64{}, wake: make(chan struct{}, 1),
	}
}

// committed notes a change whose COMMIT has returned.
func (c *checker) committed(row int, version int64) {
	c.mu.Lock()
	c.pending[row] = max(c.pending[row], version)
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// settle raises the floors until ctx ends. All commits since the last round
// share one position and one barrier.
func (c *checker) settle(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.wake:
		}
		c.mu.Lock()
		settling := c.pending
		c.pending = map[int]int64{}
		c.mu.Unlock()

		var position string
		var lsn uint64
		err := c.pool.QueryRow(ctx, "SELECT position, split_part(position, '/', 4)::bigint FROM ("+unstale.PositionQuery+" AS position) p").Scan(&position, &lsn)
		if err != nil {
			return fmt.Errorf("ask for the position of what was committed: %w", err)
		}
		if err := c.barrier(ctx, position, lsn); err != nil {
			return err
		}
		if err := c.consumer.waitFor(ctx, lsn); err != nil {
			return err
		}
		now := time.Now().UnixNano()
		for row, version := range settling {
			c.floors[row].raise(version, now)
		}
	}
}

// judge returns what is wrong with a hit, nil if nothing is: it shows a row as it was
// before a change that was settled when the read began.
func (c *checker) judge(index int, key string, value []byte, began time.Time) (*StaleHit, error) {
	seen, err := c.shop.sights(index, value)
	if err != nil {
		return nil, fmt.Errorf("cached value of %s: %w", key, err)
	}
	for _, s := range seen {
		floor := &c.floors[s.row]
		// The version before its time, which is then its own or a later one's.
		want := floor.version.Load()
		if since := floor.since.Load(); s.version < want && since <= began.UnixNano() {
			stale := &StaleHit{Key: key, Got: s.version, Want: want, After: time.Duration(time.Now().UnixNano() - since)}
			if s.row != index {
				stale.Row = c.shop.rows[s.row].key
			}
			return stale, nil
		}
	}
	return nil, nil
}
