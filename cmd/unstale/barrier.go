package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/config"
	"github.com/unstale/unstale/internal/connect"
	"github.com/unstale/unstale/internal/database"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/redissink"
)

const (
	// barrierMin and barrierMax are how often the primary is asked whether the slot
	// has moved: soon again behind a move, and seldom while there is none.
	barrierMin, barrierMax = 100 * time.Millisecond, time.Second
	// settledMin and settledMax are how often Redis is asked meanwhile.
	settledMin, settledMax = 2 * time.Millisecond, 50 * time.Millisecond
	// barrierAnew is how long the partitions are waited for before it is asked
	// whether they are still the same.
	barrierAnew = 5 * time.Second
)

// A topicBarrier keeps, in Redis, up to where in the primary's log the cache reflects
// it, where changes come through topics: Client.Barrier waits for that as for the
// watermark of a slot.
//
// A heartbeat in one partition proves nothing about another, and the position of the
// connector's slot nothing about Kafka: Debezium confirms the offset of whatever record
// was acknowledged last, and of two partitions the later record may be first
// (BaseSourceTask.commitRecord of Debezium 3.6; github.com/debezium/debezium/pull/7852,
// github.com/yugabyte/yugabyte-db/issues/33126). What counts is the offset that Connect
// has committed (see connect.Offset). The slot says that it is one of this server and
// of this timeline, and when it is worth asking.
//
// The order is everything: first the position, then where the topics end, then what
// has settled. Each instance does it; what each notes is true, and the greatest
// stands.
type topicBarrier struct {
	group     string
	confirmed func(context.Context) (database.Confirmation, error)
	sent      func(context.Context) (uint64, error)
	ends      func(context.Context) (map[string]change.Position, error)
	noted     func(ctx context.Context, stream string) (guard.Barrier, error)
	settle    func(context.Context, *guard.Barrier) (*guard.End, error)
	logger    *slog.Logger

	failing time.Time // since when; zero: it is not
	said    bool
}

// keepBarrier keeps the barrier of source until ctx ends.
func keepBarrier(ctx context.Context, c *config.Config, primary *pgx.ConnConfig, source topicSource, client *redis.Client, logger *slog.Logger) error {
	connector, err := connectClient(c)
	if err != nil {
		return err
	}
	defer connector.Close()
	k := c.Source.Kafka
	confirmations := database.NewConfirmations(primary, k.Connect.Slot)
	defer confirmations.Close()
	barriers := redissink.NewBarriers(client)
	b := &topicBarrier{
		group:     k.Group,
		confirmed: confirmations.Ask,
		sent:      func(ctx context.Context) (uint64, error) { return sentBy(ctx, connector, k.Connect) },
		ends:      source.Ends,
		noted:     barriers.Noted,
		settle:    barriers.Settle,
		logger:    logger,
	}
	b.run(ctx)
	return nil
}

// sentBy asks Connect how far everything was sent that the connector of our slot has
// read; zero while that is not known.
func sentBy(ctx context.Context, client *connect.Client, k config.Connect) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	have, err := client.Config(ctx, k.Connector)
	if err != nil {
		return 0, err
	}
	if have["slot.name"] != k.Slot {
		return 0, &change.Refusal{
			Problem: fmt.Sprintf("connector %s reads slot %q, and source.kafka.connect.slot is %q", k.Connector, have["slot.name"], k.Slot),
			Mend:    "source.kafka.connect.slot with the slot.name of the connector that writes the topics, and source.kafka.connect.connector with its name",
		}
	}
	offsets, err := client.Offsets(ctx, k.Connector)
	if err != nil {
		return 0, err
	}
	for _, o := range offsets {
		if o.Prefix == have["topic.prefix"] { // not one that it had before
			return o.Sent, nil
		}
	}
	return 0, nil
}

// run keeps it until ctx ends.
func (b *topicBarrier) run(ctx context.Context) {
	for wait := barrierMin; ; {
		moved, err := b.look(ctx)
		if ctx.Err() != nil {
			return
		}
		b.tell(err, time.Now())
		if wait = min(2*wait, barrierMax); moved {
			wait = barrierMin
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// look notes how far the cache reflects the log, if that may be further than what is
// noted. Where nothing has moved it costs one question to the primary and one to
// Redis, which may have lost the note.
func (b *topicBarrier) look(ctx context.Context) (moved bool, err error) {
	confirmed, err := b.confirmed(ctx)
	if err != nil {
		return false, err
	}
	origin := confirmed.Origin
	noted, err := b.noted(ctx, fmt.Sprintf("%d:%d:%s", origin.System, origin.Database, b.group))
	if err != nil || confirmed.At.Compare(noted.At) <= 0 {
		return false, err
	}
	sent, err := b.sent(ctx)
	if err != nil || sent == 0 {
		return false, err
	}
	at := confirmed.At
	at.LSN = min(at.LSN, sent)
	if at.Compare(noted.At) <= 0 {
		return false, nil
	}
	// Not before: what is sent in between would be below at, and beyond the ends.
	ends, err := b.ends(ctx)
	if err != nil {
		return false, err
	}
	barrier := guard.Barrier{Stream: noted.Stream, At: at, Origin: origin}
	for _, stream := range slices.Sorted(maps.Keys(ends)) {
		barrier.Ends = append(barrier.Ends, guard.End{Stream: stream, At: ends[stream]})
	}
	return b.await(ctx, &barrier)
}

// await waits until every partition has settled at its end, and reports whether that
// was noted. A topic that was made anew, or another primary, would be waited for in
// vain; a stream that lags is not, for as long as it takes: it never would be reached
// by beginning anew, further on.
func (b *topicBarrier) await(ctx context.Context, barrier *guard.Barrier) (noted bool, err error) {
	again := time.Now().Add(barrierAnew)
	for wait := settledMin; ; wait = min(2*wait, settledMax) {
		lacking, err := b.settle(ctx, barrier)
		if err != nil || lacking == nil {
			return err == nil, err
		}
		if now := time.Now(); now.After(again) {
			again = now.Add(barrierAnew)
			if same, err := b.stands(ctx, barrier); err != nil || !same {
				return false, err
			}
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// stands reports whether the primary and the partitions are those of the barrier.
func (b *topicBarrier) stands(ctx context.Context, barrier *guard.Barrier) (bool, error) {
	confirmed, err := b.confirmed(ctx)
	if err != nil || confirmed.Origin.String() != barrier.Origin.String() {
		return false, err
	}
	ends, err := b.ends(ctx)
	if err != nil {
		return false, err
	}
	gone := func(end guard.End) bool { _, there := ends[end.Stream]; return !there }
	return !slices.ContainsFunc(barrier.Ends, gone), nil
}

// tell says what stands in the way when it has for a while: servers that are away are
// missed by the others too, and a connector may be about to be made.
func (b *topicBarrier) tell(err error, now time.Time) {
	switch {
	case err == nil:
		if b.said {
			b.logger.Info("the barrier moves again")
		}
		b.failing, b.said = time.Time{}, false
	case b.failing.IsZero():
		b.failing = now
	case !b.said && now.Sub(b.failing) >= unclearMax:
		b.said = true
		attributes := []any{"err", err}
		if refused, ok := errors.AsType[*change.Refusal](err); ok {
			attributes = []any{"reason", refused.Problem, "mend", refused.Mend}
		}
		b.logger.Warn("the barrier does not move: who waits for one waits in vain", attributes...)
	}
}
