package demo

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/unstale/unstale"
)

// The three caches.
const (
	ttlOnly = iota
	delAfterEvent
	coherent // by Unstale
	cacheCount
)

// delPrefix begins the keys of the cache with DEL after the event.
const delPrefix = "del:"

// A cache is one way to read through Redis, and what came of it.
type cache struct {
	prefix string
	read   func(ctx context.Context, key string, load unstale.Load) ([]byte, error)

	reads, hits, stale atomic.Int64
	last               atomic.Pointer[StaleHit]
}

// plainRead is cache-aside as it is usually written.
func plainRead(rdb *redis.Client, ttl time.Duration) func(context.Context, string, unstale.Load) ([]byte, error) {
	return func(ctx context.Context, key string, load unstale.Load) ([]byte, error) {
		value, err := rdb.Get(ctx, key).Bytes()
		if !errors.Is(err, redis.Nil) {
			return value, err
		}
		if value, err = load(ctx); err != nil {
			return nil, err
		}
		return value, rdb.Set(ctx, key, value, ttl).Err()
	}
}
