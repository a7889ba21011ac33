package redissink

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/unstale/unstale/internal/guard"
)

// Barriers are the notes of how far the cache reflects the primary's log, where that
// comes through topics. It is safe for concurrent use.
type Barriers struct {
	client *redis.Client
}

// NewBarriers returns those on a Redis.
func NewBarriers(client *redis.Client) *Barriers { return &Barriers{client} }

// Noted returns what is noted under the name of a stream: its At, zero where there is
// nothing.
func (b *Barriers) Noted(ctx context.Context, stream string) (noted guard.Barrier, err error) {
	key := guard.WatermarkKey(0, stream)
	text, err := b.client.HGet(ctx, key, "settled").Result()
	if err != nil && err != redis.Nil {
		return guard.Barrier{}, fmt.Errorf("read %s: %w", key, err)
	}
	noted.Stream = stream
	if err := noted.Noted(text); err != nil {
		return guard.Barrier{}, fmt.Errorf("read %s: %w", key, err)
	}
	return noted, nil
}

// Settle notes the barrier if every stream has settled at its end. Otherwise it
// changes nothing, and returns an end that has not been reached.
func (b *Barriers) Settle(ctx context.Context, barrier *guard.Barrier) (lacking *guard.End, err error) {
	keys, arguments := barrier.Keys(), barrier.Arguments()
	reply, err := b.client.EvalSha(ctx, guard.Settle.SHA, keys, arguments...).Result()
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		reply, err = b.client.Eval(ctx, guard.Settle.Source, keys, arguments...).Result()
	}
	if err != nil {
		return nil, fmt.Errorf("note barrier %s: %w", keys[0], err)
	}
	return barrier.Lacking(reply)
}
