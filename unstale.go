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
	"encoding/binary"
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

	// Lease is how long one load may take: its context ends then, and the next
	// reader who asks may load too. Until then others wait for it. Default 3 s.
	Lease time.Duration

	// Slot is the replication slot that the service reads, as in its
	// configuration (source.postgres.slot); over Kafka its consumer group
	// (source.kafka.group). Barrier needs it. Default "unstale".
	Slot string

	// OnError, if set, is told of Redis errors that Fetch has read around. It is
	// called by the goroutine that called Fetch.
	OnError func(error)
}

// Defaults of Options.
const (
	DefaultTTL  = guard.TTL
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
// A nil value, as a NULL is scanned, is returned and not cached; an empty one is.
// Its context ends when the lease does.
type Load func(ctx context.Context) ([]byte, error)

// LSN is an SQL expression for the position of the log that LoadKept and
// LoadHash return. It may stand in the statement that loads the value:
//
//	"SELECT row_to_json(p)::text, " + unstale.LSN + " FROM products p WHERE id = $1"
//
// A commit that the statement's snapshot shows was in the log before the
// snapshot was taken, and the expression is evaluated after that.
const LSN = "(pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint"

// A LoadKept is a Load of a key of a kept entry: one whose values the service
// sets itself (on_change: update or warm). It also returns LSN, read in the
// statement that loads or after it; 0 says that it is not known, and then the
// service sets the key only after a minute without a fill.
type LoadKept func(ctx context.Context) (value []byte, lsn int64, err error)

// A LoadHash is a LoadKept of an entry with format: hash. The fields are those
// of json_each_text(row_to_json(row)) that are not NULL; none at all are not
// cached. Where the entry is not kept the position only makes the shield short.
type LoadHash func(ctx context.Context) (fields map[string]string, lsn int64, err error)

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
//
// Fetch is for entries whose changes drop the key (on_change: invalidate or
// refresh). For the others use FetchKept, or a value that was read from the
// cache may be followed by an older one.
func (c *Client) Fetch(ctx context.Context, key string, load Load) ([]byte, error) {
	v, err := c.fetch(ctx, key, guard.String, func(ctx context.Context) (value, error) {
		text, err := load(ctx)
		return value{text: text}, err
	})
	return v.text, err
}

// FetchKept is Fetch for keys of kept entries: those with on_change: update or
// warm. What it fills leaves a shield beside the key, of some hundred bytes for a
// minute: until then no change that load has seen already can set the key back.
func (c *Client) FetchKept(ctx context.Context, key string, load LoadKept) ([]byte, error) {
	v, err := c.fetch(ctx, key, guard.String, func(ctx context.Context) (value, error) {
		text, lsn, err := load(ctx)
		return value{text: text, shield: shield(lsn)}, err
	})
	return v.text, err
}

// FetchHash is FetchKept for entries with format: hash.
func (c *Client) FetchHash(ctx context.Context, key string, load LoadHash) (map[string]string, error) {
	v, err := c.fetch(ctx, key, guard.Hash, func(ctx context.Context) (value, error) {
		fields, lsn, err := load(ctx)
		return value{fields: fields, shield: shield(lsn)}, err
	})
	return v.fields, err
}

// Invalidate drops keys of kept entries that the caller has just changed, so
// that it reads its own writes at once, without a Barrier. position is what
// PositionQuery gave after the COMMIT. It is only ever a shortcut: the change
// itself drops or sets the keys, whoever makes it.
func (c *Client) Invalidate(ctx context.Context, position string, keys ...string) error {
	_, at, err := parsePosition(position)
	if err != nil {
		return err
	}
	for _, key := range keys {
		side, ok := guard.SideKey(key)
		if !ok {
			continue // never cached
		}
		if _, err := c.run(ctx, guard.Invalidate, []string{key, side}, binary.BigEndian.AppendUint64(nil, at.LSN), guard.Shield.Milliseconds()); err != nil {
			return fmt.Errorf("invalidate %s: %w", key, err)
		}
	}
	return nil
}

// value is what is cached under a key: a text or fields.
type value struct {
	text   []byte
	fields map[string]string
	// shield is H as the fill script takes it.
	shield []byte
}

// shield is the position up to which a load may have seen commits.
func shield(lsn int64) []byte {
	if lsn <= 0 {
		return []byte("\xff\xff\xff\xff\xff\xff\xff\xff")
	}
	return binary.BigEndian.AppendUint64(nil, uint64(lsn))
}

// loader loads a value of either format.
type loader func(ctx context.Context) (value, error)

func (c *Client) fetch(ctx context.Context, key, format string, load loader) (value, error) {
	v, err := c.get(ctx, key, format)
	if err == nil {
		return v, nil
	}
	if ctx.Err() != nil {
		return value{}, ctx.Err()
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
	keys, named := []string{key, side}, guard.BeginKeys(key, side)
	for wait := waitMin; ; wait = min(2*wait, waitMax) {
		reply, err := c.run(ctx, guard.Begin, named, token, c.options.Lease.Milliseconds(), guard.Shield.Milliseconds(), format, guard.NamesMax)
		if err != nil {
			if ctx.Err() != nil {
				return value{}, ctx.Err()
			}
			return c.readThrough(ctx, load, fmt.Errorf("ask for a lease on %s: %w", key, err))
		}
		begun, err := guard.ParseBegin(reply)
		switch {
		case err != nil:
			return c.readThrough(ctx, load, fmt.Errorf("lease on %s: %w", key, err))
		case begun.Status == guard.Hit:
			return hit(begun.Value), nil
		case begun.Status == guard.Leased:
			return c.fill(ctx, keys, format, token, load)
		}
		select {
		case <-ctx.Done():
			return value{}, ctx.Err()
		case <-time.After(min(wait/2+mathrand.N(wait/2), begun.Left)):
		}
	}
}

// get reads the key. What is not there is redis.Nil.
func (c *Client) get(ctx context.Context, key, format string) (v value, err error) {
	if format == guard.String {
		v.text, err = c.redis.Get(ctx, key).Bytes()
		return v, err
	}
	v.fields, err = c.redis.HGetAll(ctx, key).Result()
	if err == nil && len(v.fields) == 0 {
		err = redis.Nil
	}
	return v, err
}

// hit reads the value in the reply of the begin script.
func hit(reply any) value {
	pairs, isHash := reply.([]any)
	if !isHash {
		text, _ := reply.(string)
		return value{text: []byte(text)}
	}
	fields := map[string]string{}
	for i := 0; i+1 < len(pairs); i += 2 {
		name, _ := pairs[i].(string)
		fields[name], _ = pairs[i+1].(string)
	}
	return value{fields: fields}
}

// fill loads under the lease that token stands for, and caches the value if the
// lease still stands.
func (c *Client) fill(ctx context.Context, keys []string, format string, token []byte, load loader) (value, error) {
	leased, cancel := context.WithTimeout(ctx, c.options.Lease)
	defer cancel()
	v, err := load(leased)
	if err != nil || v.text == nil && len(v.fields) == 0 {
		// The caller's context may be why: the lease goes back all the same.
		if _, err := c.run(context.WithoutCancel(ctx), guard.Release, keys[1:], token); err != nil {
			c.tell(fmt.Errorf("release the lease on %s: %w", keys[0], err))
		}
		return v, err
	}
	arguments := []any{token, v.shield, guard.Shield.Milliseconds(), guard.SpreadTTL(keys[0], c.options.TTL).Milliseconds(), format}
	if format == guard.String {
		arguments = append(arguments, v.text)
	}
	for name, field := range v.fields {
		arguments = append(arguments, name, field)
	}
	// REFUSED is no error: the value is right for this caller, and the next
	// reader loads again. A caller that has just given up has loaded all the
	// same, and others wait for it.
	if _, err := c.run(context.WithoutCancel(ctx), guard.Fill, keys, arguments...); err != nil {
		c.tell(fmt.Errorf("fill %s: %w", keys[0], err))
	}
	return v, nil
}

func (c *Client) readThrough(ctx context.Context, load loader, err error) (value, error) {
	c.tell(err)
	return load(ctx)
}

func (c *Client) tell(err error) {
	if c.options.OnError != nil {
		c.options.OnError(err)
	}
}

// run runs a script by its hash, and by its source where Redis does not have it.
func (c *Client) run(ctx context.Context, script guard.Script, keys []string, arguments ...any) (any, error) {
	reply, err := c.redis.EvalSha(ctx, script.SHA, keys, arguments...).Result()
	if err != nil && strings.HasPrefix(err.Error(), "NOSCRIPT") {
		reply, err = c.redis.Eval(ctx, script.Source, keys, arguments...).Result()
	}
	return reply, err
}
