package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/unstale/unstale/internal/admin"
)

const megabyte = 1 << 20

// benchMemory has the built binary apply one huge transaction, and reads what
// the kernel says of its resident memory.
func benchMemory(ctx context.Context, b *bench) (err error) {
	if err := b.exec(ctx, "CREATE TABLE events (id bigint PRIMARY KEY, kind int NOT NULL, payload text NOT NULL)"); err != nil {
		return err
	}
	s, err := b.startService(ctx, `source: {postgres: {slot: bench_memory, publication: bench_memory}}
entries:
  event:
    key: event:{id}
    table: events
`)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	if err := s.ready(ctx); err != nil {
		return err
	}
	idle, err := peakMemory(s.pid())
	if err != nil {
		return err
	}
	b.say(fmt.Sprintf("writing %s rows in one transaction", thousands(int64(b.sizes.MemoryRows))))
	err = b.exec(ctx, fmt.Sprintf("INSERT INTO events SELECT i, i %% 10, 'event number ' || i FROM generate_series(1, %d) i", b.sizes.MemoryRows))
	if err != nil {
		return err
	}
	err = s.until(ctx, 50*time.Millisecond, func(s *admin.Status) bool { return s.Changes >= uint64(b.sizes.MemoryRows) })
	if err != nil {
		return err
	}
	peak, err := peakMemory(s.pid())
	if err != nil {
		return err
	}
	b.report.add(fmt.Sprintf("memory: peak in %s rows of one transaction", thousands(int64(b.sizes.MemoryRows))), "MB",
		[]float64{peak}, "peak before it", []float64{idle}, below(100, "MB"))
	return nil
}
