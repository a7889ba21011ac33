package unstale

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
)

// PositionQuery asks the primary for a position that Barrier waits for. Run it
// after COMMIT, on the primary and with synchronous_commit on: then everything
// that was committed before lies below it.
//
//	var position string
//	err := db.QueryRow(ctx, unstale.PositionQuery).Scan(&position)
const PositionQuery = `SELECT concat_ws('/', (SELECT system_identifier FROM pg_control_system()), ` +
	`(SELECT oid FROM pg_database WHERE datname = current_database()), ` +
	`('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int, ` +
	`pg_current_wal_flush_lsn() - '0/0'::pg_lsn)`

// How often Barrier looks.
const (
	barrierMin = 500 * time.Microsecond
	barrierMax = 20 * time.Millisecond
)

// Barrier waits until the cache reflects everything up to position, which
// PositionQuery gave: from then on no read of the cache returns a value older
// than that. It usually takes about a millisecond, and longer while the service
// is behind or sweeps; over Kafka as long as Kafka Connect takes to commit, which
// docs/kafka.md says how to shorten. It returns the error of ctx if that ends first.
func (c *Client) Barrier(ctx context.Context, position string) error {
	stream, want, err := parsePosition(position)
	if err != nil {
		return err
	}
	key := guard.WatermarkKey(0, stream+":"+c.options.Slot)
	timer := time.NewTimer(0)
	defer timer.Stop()
	var last error
	for wait := barrierMin; ; wait = min(2*wait, barrierMax) {
		select {
		case <-ctx.Done():
			if last != nil {
				return fmt.Errorf("wait for the cache to reach %s: %w (%w)", want, ctx.Err(), last)
			}
			return fmt.Errorf("wait for the cache to reach %s: %w", want, ctx.Err())
		case <-timer.C:
		}
		settled, err := c.settled(ctx, key)
		if err == nil && settled.Compare(want) >= 0 {
			return nil
		}
		if ctx.Err() == nil {
			last = err // and not that ctx has ended, which says nothing
		}
		timer.Reset(wait)
	}
}

func (c *Client) settled(ctx context.Context, key string) (change.Position, error) {
	text, err := c.redis.HGet(ctx, key, "settled").Bytes()
	if errors.Is(err, redis.Nil) {
		return change.Position{}, fmt.Errorf("no watermark %s: is the service running, on this Redis and with this slot?", key)
	}
	if err != nil {
		return change.Position{}, err
	}
	return change.DecodePosition(text)
}

// parsePosition reads what PositionQuery printed: system identifier, database,
// timeline and LSN, the last as a decimal number of bytes.
func parsePosition(text string) (stream string, p change.Position, err error) {
	fields := strings.Split(text, "/")
	if len(fields) != 4 {
		return "", p, fmt.Errorf("position %q: want what unstale.PositionQuery returns", text)
	}
	timeline, err := strconv.ParseUint(fields[2], 10, 32)
	if err != nil {
		return "", p, fmt.Errorf("timeline of position %q: %w", text, err)
	}
	lsn, err := strconv.ParseUint(fields[3], 10, 64)
	if err != nil {
		return "", p, fmt.Errorf("log position of position %q: %w", text, err)
	}
	return fields[0] + ":" + fields[1], change.Position{Timeline: uint32(timeline), LSN: lsn}, nil
}
