package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"golang.org/x/sync/errgroup"
)

// The pace: transactions of one row from several sessions, whose waits are the
// server's own, so that no client of ours competes with what is measured.
const (
	paceSessions  = 4
	pacePerSecond = 1000
)

func benchLatency(ctx context.Context, b *bench) error {
	slots, err := b.newSlots(ctx, 1)
	if err != nil {
		return err
	}
	ourSlot := slots[0]
	if err := b.settle(ctx, ourSlot); err != nil {
		return err
	}
	var ours50, ours99, bare50, bare99, rates []float64
	for i := range b.sizes.Runs {
		b.say(fmt.Sprintf("measuring latency, run %d of %d", i+1, b.sizes.Runs))
		// The bare reader confirms nothing: on a slot that it has read before it
		// would have to catch up first.
		bareSlot, err := b.newSlots(ctx, 1)
		if err != nil {
			return err
		}
		slots = append(slots, bareSlot...)
		bare, err := b.bareLatencies(ctx, bareSlot[0])
		if err != nil {
			return err
		}
		ours, rate, err := b.ourLatencies(ctx, fmt.Sprintf("latency-%d", i+1), ourSlot)
		if err != nil {
			return err
		}
		bare50, bare99 = append(bare50, quantile(bare, 0.50)), append(bare99, quantile(bare, 0.99))
		ours50, ours99 = append(ours50, quantile(ours, 0.50)), append(ours99, quantile(ours, 0.99))
		rates = append(rates, rate)
	}
	const of = "bare reader, one UNLINK a commit, no gate"
	b.report.add("latency: commit to Redis, p50", "ms", ours50, of, bare50, below(2, "ms"))
	b.report.add("latency: commit to Redis, p99", "ms", ours99, of, bare99, nil)
	b.report.add("latency: pace that was kept", "changes/s", rates, "the pace wanted", slices.Repeat([]float64{pacePerSecond}, len(rates)), nil)
	return b.dropSlots(ctx, slots)
}

// quantile of latencies, in milliseconds.
func quantile(latencies []time.Duration, q float64) float64 {
	sorted := slices.Sorted(slices.Values(latencies))
	return sorted[int(q*float64(len(sorted)-1))].Seconds() * 1e3
}

// changes of one phase.
func (b *bench) paced() int { return b.sizes.LatencySecs * pacePerSecond }

// pace commits changes at the pace, and returns the rate that it kept.
func (b *bench) pace(ctx context.Context) (perSecond float64, err error) {
	sessions, ctx := errgroup.WithContext(ctx)
	began := time.Now()
	for i := range paceSessions {
		sessions.Go(func() error {
			conn, err := pgx.Connect(ctx, b.postgres.URL())
			if err != nil {
				return err
			}
			defer conn.Close(ctx)
			_, err = conn.Exec(ctx, "CALL change_at_a_pace($1, $2, $3)",
				i, b.paced()/paceSessions, time.Duration(paceSessions)*time.Second/pacePerSecond)
			return err
		})
	}
	err = sessions.Wait()
	return float64(b.paced()) / time.Since(began).Seconds(), err
}

// ourLatencies are from the time of each commit, as its record has it, to the
// moment when Redis has confirmed the batch with its change. Both are read from
// the same clock: one machine.
func (b *bench) ourLatencies(ctx context.Context, name, slot string) (latencies []time.Duration, perSecond float64, err error) {
	watcher := newWatcher(0)
	r, err := b.runLoop(ctx, slot, watcher)
	if err != nil {
		return nil, 0, err
	}
	// Ready: it has passed the changes of the phase before, which are not ours.
	err = r.ready(ctx)
	if err == nil {
		watcher.restart(b.paced())
		err = b.profile.during(name, func() error {
			var err error
			perSecond, err = b.pace(ctx)
			return errors.Join(err, watcher.await(ctx, r))
		})
	}
	if err := errors.Join(err, r.stop()); err != nil {
		return nil, 0, err
	}
	if watcher.changes != b.paced() || len(watcher.latencies) != b.paced() {
		return nil, 0, fmt.Errorf("%d changes in %d transactions were applied, want %d in as many", watcher.changes, len(watcher.latencies), b.paced())
	}
	return watcher.latencies, perSecond, nil
}

// bareLatencies are those of the least that keeps a cache fresh at all, and is
// not coherent: it reads the same stream over a plain connection, sends one
// UNLINK a transaction as soon as its commit arrives, and waits for the reply.
// No gate, no watermark, no batch.
func (b *bench) bareLatencies(ctx context.Context, slot string) (latencies []time.Duration, err error) {
	config, err := pgconn.ParseConfig(b.postgres.URL())
	if err != nil {
		return nil, err
	}
	config.RuntimeParams["replication"] = "database"
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	conn.Frontend().SendQuery(&pgproto3.Query{String: fmt.Sprintf(
		"START_REPLICATION SLOT %s LOGICAL 0/0 (proto_version '1', publication_names '%s')", slot, publication)})
	if err := conn.Frontend().Flush(); err != nil {
		return nil, err
	}
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error {
		_, err := b.pace(ctx)
		return err
	})
	work.Go(func() error {
		var reader bareReader
		for len(latencies) < b.paced() {
			message, err := conn.ReceiveMessage(ctx)
			if err != nil {
				return err
			}
			switch message := message.(type) {
			case *pgproto3.CopyData:
				key, committed := reader.read(message.Data)
				if key == nil {
					continue
				}
				if err := b.rdb.Unlink(ctx, keyPrefix+string(key)).Err(); err != nil {
					return err
				}
				latencies = append(latencies, time.Since(committed))
			case *pgproto3.ErrorResponse:
				return pgconn.ErrorResponseToPgError(message)
			}
		}
		return nil
	})
	err = work.Wait()
	return latencies, err
}

// bareReader reads just enough of pgoutput for transactions of one row whose
// first column is the key.
type bareReader struct {
	committed time.Time
	key       []byte
}

// read returns the key when its transaction's commit has come.
func (r *bareReader) read(b []byte) (key []byte, committed time.Time) {
	const header, postgresEpoch = 1 + 8 + 8 + 8, 946684800 * 1000000
	if b[0] != 'w' {
		return nil, time.Time{}
	}
	switch b = b[header:]; b[0] {
	case 'B':
		r.committed = time.UnixMicro(int64(binary.BigEndian.Uint64(b[1+8:])) + postgresEpoch)
		r.key = nil
	case 'U':
		const first = 1 + 4 + 1 + 2 + 1 // type, relation, 'N', number of columns, 't'
		n := binary.BigEndian.Uint32(b[first:])
		r.key = append(r.key, b[first+4:first+4+int(n)]...)
	case 'C':
		return r.key, r.committed
	}
	return nil, time.Time{}
}
