package redissink

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
)

// Leases are what the service itself loads under: on one master, of many keys in
// one round trip. It is safe for concurrent use.
type Leases struct {
	client *redis.Client
}

// NewLeases returns leases on a client that must not retry by itself: a token is
// given once.
func NewLeases(client *redis.Client) *Leases { return &Leases{client} }

// Begin asks for the lease of each key of an entry.
func (l *Leases) Begin(ctx context.Context, e *plan.Entry, token string, keys []string) ([]guard.Begun, error) {
	format := guard.String
	if e.Hash {
		format = guard.Hash
	}
	replies, err := l.run(ctx, guard.Begin, len(keys), func(i int) ([]string, []any) {
		return both(keys[i]), []any{token, e.Lease.Milliseconds(), guard.Shield.Milliseconds(), format}
	})
	if err != nil {
		return nil, err
	}
	begun := make([]guard.Begun, len(keys))
	for i, reply := range replies {
		answer, err := reply.Result()
		switch {
		case redis.HasErrorPrefix(err, "WRONGTYPE"):
			begun[i].Err = fmt.Errorf("%s: %w", keys[i], err)
			continue
		case err == nil:
			begun[i], err = guard.ParseBegin(answer)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", keys[i], err)
		}
	}
	return begun, nil
}

// Fill writes the values whose lease still stands, and says which. insert, if
// not zero, is a position of the log behind what they show: they get a shield.
func (l *Leases) Fill(ctx context.Context, e *plan.Entry, token string, insert uint64, keys []string, values [][]string) ([]bool, error) {
	format, h := guard.String, ""
	if e.Hash {
		format = guard.Hash
	}
	if insert > 0 {
		h = string(binary.BigEndian.AppendUint64(nil, insert))
	}
	replies, err := l.run(ctx, guard.Fill, len(keys), func(i int) ([]string, []any) {
		arguments := []any{token, h, guard.Shield.Milliseconds(), guard.SpreadTTL(keys[i], e.TTL).Milliseconds(), format}
		for _, text := range values[i] {
			arguments = append(arguments, text)
		}
		return both(keys[i]), arguments
	})
	if err != nil {
		return nil, err
	}
	stored := make([]bool, len(keys))
	for i, reply := range replies {
		answer, err := reply.Text()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", keys[i], err)
		}
		stored[i] = answer == guard.Stored
	}
	return stored, nil
}

// Release gives leases back.
func (l *Leases) Release(ctx context.Context, token string, keys []string) error {
	replies, err := l.run(ctx, guard.Release, len(keys), func(i int) ([]string, []any) {
		return both(keys[i])[1:], []any{token}
	})
	if err != nil {
		return err
	}
	for i, reply := range replies {
		if err := reply.Err(); err != nil {
			return fmt.Errorf("%s: %w", keys[i], err)
		}
	}
	return nil
}

// both is a data key and its side key. A template that could name a key without
// one is refused.
func both(key string) []string {
	side, ok := guard.SideKey(key)
	if !ok {
		panic(fmt.Sprintf("key %q can have no side key", key))
	}
	return []string{key, side}
}

// run runs a script n times in one round trip. The replies hold their own
// errors, except that Redis does not know the script: then it is told, and the
// whole is sent again. Redis knows a script for all calls or for none, unless it
// was restarted in between; then what the first of them did is lost as well.
func (l *Leases) run(ctx context.Context, script guard.Script, n int, call func(i int) (keys []string, arguments []any)) ([]*redis.Cmd, error) {
	for loaded := false; ; loaded = true {
		pipe := l.client.Pipeline()
		replies := make([]*redis.Cmd, n)
		for i := range replies {
			keys, arguments := call(i)
			replies[i] = pipe.EvalSha(ctx, script.SHA, keys, arguments...)
		}
		_, err := pipe.Exec(ctx)
		if loaded || !redis.HasErrorPrefix(err, "NOSCRIPT") {
			return replies, nil
		}
		if err := l.client.ScriptLoad(ctx, script.Source).Err(); err != nil {
			return nil, fmt.Errorf("load script %s: %w", script.Name, err)
		}
	}
}

// Watermark reads that of a stream, without owning it. ok is false if there is
// none.
func (l *Leases) Watermark(ctx context.Context, stream string) (mark guard.Watermark, ok bool, err error) {
	key := guard.WatermarkKey(0, stream)
	values, err := l.client.HMGet(ctx, key, guard.WatermarkFields...).Result()
	if err == nil {
		mark, ok, err = guard.ParseWatermark(values)
	}
	if err != nil {
		return mark, false, fmt.Errorf("read watermark %s: %w", key, err)
	}
	return mark, ok, nil
}

// Lo is how far a stream has been applied here; zero if it never was.
func (l *Leases) Lo(ctx context.Context, stream string) (change.Position, error) {
	text, err := l.client.HGet(ctx, guard.WatermarkKey(0, stream), "lo").Bytes()
	if err != nil && err != redis.Nil {
		return change.Position{}, err
	}
	return change.DecodePosition(text)
}

// progressTTL is how long the progress of a warm that was interrupted is kept.
const progressTTL = 7 * 24 * time.Hour

// Progress returns what SaveProgress has kept of an entry; empty: nothing.
func (l *Leases) Progress(ctx context.Context, stream, entry string) (string, error) {
	text, err := l.client.Get(ctx, progressKey(stream, entry)).Result()
	if err == redis.Nil {
		return "", nil
	}
	return text, err
}

// SaveProgress keeps for a week how far the warm of an entry has come; an empty
// text forgets it.
func (l *Leases) SaveProgress(ctx context.Context, stream, entry, text string) error {
	if text == "" {
		return l.client.Unlink(ctx, progressKey(stream, entry)).Err()
	}
	return l.client.Set(ctx, progressKey(stream, entry), text, progressTTL).Err()
}

func progressKey(stream, entry string) string {
	return guard.WatermarkKey(0, stream) + ":warm:" + entry
}

// Cached returns how many of the keys are cached.
func (l *Leases) Cached(ctx context.Context, keys []string) (int64, error) {
	return l.client.Exists(ctx, keys...).Result()
}
