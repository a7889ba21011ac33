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
	read   read
	counts map[*entry]*counts // has every entry; never changed
	last   atomic.Pointer[StaleHit]
}

// counts of one entry in one cache.
type counts struct {
	reads, hits, stale atomic.Int64
}

// A read reads one key of an entry through a cache.
type read func(ctx context.Context, e *entry, key string, load unstale.LoadKept) ([]byte, error)

func newCache(prefix string, read read) *cache {
	c := &cache{prefix: prefix, read: read, counts: map[*entry]*counts{}}
	for _, e := range entries {
		c.counts[e] = &counts{}
	}
	return c
}

// plainRead is cache-aside as it is usually written.
func plainRead(rdb *redis.Client, ttl time.Duration) read {
	return func(ctx context.Context, _ *entry, key string, load unstale.LoadKept) ([]byte, error) {
		value, err := rdb.Get(ctx, key).Bytes()
		if !errors.Is(err, redis.Nil) {
			return value, err
		}
		if value, _, err = load(ctx); err != nil {
			return nil, err
		}
		return value, rdb.Set(ctx, key, value, ttl).Err()
	}
}

// clientRead reads as Unstale's users do.
func clientRead(client *unstale.Client) read {
	return func(ctx context.Context, e *entry, key string, load unstale.LoadKept) ([]byte, error) {
		if e.kept() {
			return client.FetchKept(ctx, key, load)
		}
		return client.Fetch(ctx, key, func(ctx context.Context) ([]byte, error) {
			value, _, err := load(ctx)
			return value, err
		})
	}
}
