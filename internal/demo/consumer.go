package demo

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/redis/go-redis/v9"

	"github.com/unstale/unstale/internal/database"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/pgsource"
	"github.com/unstale/unstale/internal/plan"
)

// delConsumer is the usual invalidation: it reads the same stream from a slot
// of its own, as fast as the service reads its, and sends DEL for each change
// as it comes. What is written by hand knows the keys that a changed row names: the
// product's page, the lists that it leaves and comes into, its customer's open orders.
// That a category's name is on a thousand pages is what everyone forgets.
type delConsumer struct {
	source  *pgsource.Source
	gate    *database.Gate // only to say which server this is: nothing is gated
	planner *plan.Planner

	mu    sync.Mutex
	lsn   uint64        // up to here everything is deleted
	moved chan struct{} // closed when lsn moves, and replaced
}

const (
	delSlot  = "del_after_event" // and publication
	closeMax = time.Second
)

func newDELConsumer(databaseURL string) (*delConsumer, error) {
	gateConfig, err := pgx.ParseConfig(databaseURL)
	if err != nil {
		return nil, err
	}
	sourceConfig, err := pgconn.ParseConfig(databaseURL)
	if err != nil {
		return nil, err
	}
	c := &delConsumer{moved: make(chan struct{})}
	logger := slog.New(slog.DiscardHandler)
	c.gate = database.NewGate(gateConfig, database.Options{Logger: logger})
	var planned []plan.Entry
	for _, e := range entries {
		key, err := guard.ParseTemplate(delPrefix + e.key)
		if err != nil {
			return nil, err
		}
		planned = append(planned, plan.Entry{Name: e.name, Key: key, Schema: "public", Table: e.table})
	}
	var published []pgsource.Table
	for _, table := range tables {
		published = append(published, pgsource.Table{Schema: "public", Name: table})
	}
	c.planner = plan.New(planned)
	c.source = pgsource.New(sourceConfig, pgsource.Options{
		Slot: delSlot, Publication: delSlot, Tables: published,
		Compile: c.planner.Compile, Origin: c.gate.Origin, Logger: logger,
	})
	return c, nil
}

// attach makes the slot: from now on no change is missed.
func (c *delConsumer) attach(ctx context.Context) error {
	if _, err := c.source.Attach(ctx); err != nil {
		return fmt.Errorf("DEL after the event: %w", err)
	}
	return nil
}

func (c *delConsumer) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeMax)
	defer cancel()
	_ = c.source.Close(ctx) // the slot goes with its server
	c.gate.Close()
}

// run deletes until ctx ends.
func (c *delConsumer) run(ctx context.Context, rdb *redis.Client) error {
	batch := plan.NewBatch()
	for {
		next, err := c.source.Next(ctx)
		if err != nil {
			return err
		}
		c.planner.Plan(next, batch)
		if !batch.Full() && c.source.Pending() {
			continue // the service does the same
		}
		if err := deleteKeys(ctx, rdb, batch); err != nil {
			return err
		}
		end := batch.End
		batch.Reset()
		c.source.Confirm(0, end)
		c.advance(end.LSN)
	}
}

func deleteKeys(ctx context.Context, rdb *redis.Client, batch *plan.Batch) error {
	if batch.Len() == 0 {
		return nil
	}
	keys := make([]string, batch.Len())
	for i := range keys {
		keys[i] = string(batch.Key(i))
	}
	return rdb.Del(ctx, keys...).Err()
}

func (c *delConsumer) advance(lsn uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lsn = lsn
	close(c.moved)
	c.moved = make(chan struct{})
}

// waitFor waits until everything up to lsn has been deleted.
func (c *delConsumer) waitFor(ctx context.Context, lsn uint64) error {
	for {
		c.mu.Lock()
		reached, moved := c.lsn >= lsn, c.moved
		c.mu.Unlock()
		if reached {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-moved:
		}
	}
}
