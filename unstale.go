// Package unstale is the Go client of a cache that the Unstale service keeps
// coherent with PostgreSQL.
//
// A reader that misses and then writes what it loaded with a plain SET can put
// an old row back over a change, and the service cannot see it happen. Fetch
// closes that race: it loads under a lease that every change to the key ends.
//
//	client, err := unstale.New(redisClient, unstale.Options{})
//	...
//	value, err := client.Fetch(ctx, "product:101", func(ctx context.Context) ([]byte, error) {
//		var row []byte
//		err := db.QueryRow(ctx, "SELECT row_to_json(p)::text FROM products p WHERE id = $1", 101).Scan(&row)
//		return row, err
//	})
//
// A cached value is a plain Redis string under the key that the service's
// configuration names, so any other client can GET it too.
package unstale

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/unstale/unstale/internal/guard"
)

// Options of a Client. Zero values mean the defaults.
type Options struct {
	// TTL is how long a filled value stays in Redis. Each key's own is up to a
	// tenth shorter, by a hash of the key, so that keys that are filled together
	// do not expire together. Default 24 h.
	TTL time.Duration

	// Lease is how long one load may take; a slower one is returned to its
	// caller but not cached. It must not be longer than the entry's `lease` in
	// the service's configuration, since a sweep waits that long. Default 3 s.
	Lease time.Duration

	// Slot is the replication slot that the service reads, as in its
	// configuration (source.postgres.slot). Barrier needs it. Default "unstale".
	Slot string

	// OnError, if set, is told of Redis errors that Fetch has read around. It is
	// called by the goroutine that called Fetch.
	OnError func(error)
}

// Defaults of Options.
const (
	DefaultTTL  = 24 * time.Hour
	DefaultSlot = "unstale"
)

// A Client reads through the cache. It may be used by several goroutines.
type Client struct {
	redis   redis.UniversalClient
	options Options
}

// New returns a client that reads through rdb, which stays the caller's to
// close. rdb must read from masters only: a replica may be behind what the
// protocol has promised.
func New(rdb redis.UniversalClient, options Options) (*Client, error) {
	if options.TTL == 0 {
		options.TTL = DefaultTTL
	}
	if options.Lease == 0 {
		options.Lease = guard.Lease
	}
	if options.Slot == "" {
		options.Slot = DefaultSlot
	}
	switch {
	case rdb == nil:
		return nil, errors.New("unstale: no Redis client")
	case options.TTL < time.Second:
		return nil, fmt.Errorf("unstale: TTL of %s, want a second at least", options.TTL)
	case options.Lease < time.Millisecond || options.Lease > guard.Shield/2:
		return nil, fmt.Errorf("unstale: Lease of %s, want between 1ms and %s", options.Lease, guard.Shield/2)
	}
	return &Client{redis: rdb, options: options}, nil
}

// Key renders the key of a row by a key template as the service's configuration
// has it, such as "product:{id}": one value for each placeholder, as PostgreSQL
// prints it. Characters that a key gives a meaning to are percent-encoded; for
// numbers, UUIDs and ordinary names nothing is, and writing the key by hand
// gives the same.
func Key(template string, values ...string) (string, error) {
	t, err := guard.ParseTemplate(template)
	if err != nil {
		return "", fmt.Errorf("key template %q: %w", template, err)
	}
	if len(values) != len(t.Columns()) {
		return "", fmt.Errorf("key template %q has %d placeholders, got %d values", template, len(t.Columns()), len(values))
	}
	return t.Key(values...), nil
}

// A Load reads a value from the database. It must read from the primary, in a
// statement that begins after Load was called, and outside any transaction that
// has written or that holds an older snapshot (REPEATABLE READ): otherwise what
// it returns may be older than a change that has already passed.
//
// Its context ends when the lease does.
type Load func(ctx context.Context) ([]byte, error)

// How long a reader waits between two looks while another loads.
const (
	waitMin = 5 * time.Millisecond
	waitMax = 50 * time.Millisecond
)

// Fetch returns the value of key: from Redis if it is cached, otherwise from
// load, whose value it caches unless the key changed meanwhile. While another
// reader loads the key, Fetch waits for that one instead.
//
// The value is one that the database held at some moment after the last change
// that was settled before Fetch was called. An error of load is returned as it
// is and nothing is cached. A Redis that does not answer, is full or refuses
// makes Fetch slower, not wrong: it loads, and tells Options.OnError.
func (c *Client) Fetch(ctx context.Context, key string, load Load) ([]byte, error) {
	value, err := c.redis.Get(ctx, key).Bytes()
	if err == nil {
		return value, nil
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if !errors.Is(err, redis.Nil) {
		return c.readThrough(ctx, load, fmt.Errorf("get %s: %w", key, err))
	}
	side, ok := guard.SideKey(key)
	if !ok {
		return c.readThrough(ctx, load, fmt.Errorf("key %q cannot be cached: it has a } without a hash tag, so no side key can share its slot", key))
	}

	token := make([]byte, 16)
	rand.Read(token) // never fails
	keys := []string{key, side}
	for wait := waitMin; ; wait = min(2*wait, waitMax) {
		reply, err := c.run(ctx, guard.Begin, keys, token, c.options.Lease.Milliseconds(), guard.Shield.Milliseconds())
		if err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return c.readThrough(ctx, load, fmt.Errorf("ask for a lease on %s: %w", key, err))
		}
		fields, _ := reply.([]any)
		switch {
		case len(fields) == 2 && fields[0] == guard.Hit:
			value, _ := fields[1].(string)
			return []byte(value), nil
		case len(fields) == 1 && fields[0] == guard.Leased:
			return c.fill(ctx, keys, token, load)
		case len(fields) == 2 && fields[0] == guard.Wait:
			left, _ := fields[1].(int64)
			pause := min(wait/2+mathrand.N(wait/2), time.Duration(left)*time.Millisecond)
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(pause):
			}
		default:
			return c.readThrough(ctx, load, fmt.Errorf("lease on %s: reply %v", key, reply))
		}
	}
}

// fill loads under the lease that token stands for, and caches the value if the
// lease still stands.
func (c *Client) fill(ctx context.Context, keys []string, token []byte, load Load) ([]byte, error) {
	leased, cancel := context.WithTimeout(ctx, c.options.Lease)
	defer cancel()
	value, err := load(leased)
	if err != nil {
		// The caller's context may be why: the lease goes back all the same.
		if _, err := c.run(context.WithoutCancel(ctx), guard.Release, keys[1:], token); err != nil {
			c.tell(fmt.Errorf("release the lease on %s: %w", keys[0], err))
		}
		return nil, err
	}
	// REFUSED is no error: the value is right for this caller, and the next
	// reader loads again. A caller that has just given up has loaded all the
	// same, and others wait for it.
	if _, err := c.run(context.WithoutCancel(ctx), guard.Fill, keys, token, value, c.ttl(keys[0]).Milliseconds()); err != nil {
		c.tell(fmt.Errorf("fill %s: %w", keys[0], err))
	}
	return value, nil
}

func (c *Client) readThrough(ctx context.Context, load Load, err error) ([]byte, error) {
	c.tell(err)
	return load(ctx)
}

func (c *Client) tell(err error) {
	if c.options.OnError != nil {
		c.options.OnError(err)
	}
}

// ttl spreads the ends of values that begin together.
func (c *Client) ttl(key string) time.Duration {
	// Divided before it is multiplied: the other way round a TTL of months
	// overflows.
	return c.options.TTL - c.options.TTL/10/guard.Slots*time.Duration(guard.Slot(key))
}

// run runs a script by its hash, and by its source where Redis does not have it.
func (c *Client) run(ctx context.Context, script guard.Script, keys []string, arguments ...any) (any, error) {
	reply, err := c.redis.EvalSha(ctx, script.SHA, keys, arguments...).Result()
	if err != nil && strings.HasPrefix(err.Error(), "NOSCRIPT") {
		reply, err = c.redis.Eval(ctx, script.Source, keys, arguments...).Result()
	}
	return reply, err
}
