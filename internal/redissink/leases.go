package redissink

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

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

// Begin asks for the lease of each key of an entry, and behind that whether the
// claim stands.
func (l *Leases) Begin(ctx context.Context, claim guard.Claim, e *plan.Entry, token string, keys []string) (begun []guard.Begun, stands bool, err error) {
	format := guard.String
	if e.Hash {
		format = guard.Hash
	}
	var said *redis.StringCmd
	// Commands of one connection are done in their order.
	behind := func(pipe redis.Pipeliner) {
		said = pipe.HGet(ctx, guard.WatermarkKey(0, claim.Stream), claim.Field())
	}
	replies, err := l.run(ctx, guard.Begin, keys, func(i int, side string) ([]string, []any) {
		return guard.BeginKeys(keys[i], side), []any{token, e.Lease.Milliseconds(), guard.Shield.Milliseconds(), format, guard.NamesMax}
	}, behind)
	if err != nil {
		return nil, false, err
	}
	begun = make([]guard.Begun, len(keys))
	for i, reply := range replies {
		if reply == nil {
			begun[i].Err = fmt.Errorf("%s: %w", keys[i], errNoSideKey)
			continue
		}
		answer, err := reply.Result()
		switch {
		case redis.HasErrorPrefix(err, "WRONGTYPE"):
			begun[i].Err = fmt.Errorf("%s holds another type than its entry writes: delete the key: %w", keys[i], err)
			continue
		case err == nil:
			begun[i], err = guard.ParseBegin(answer)
		}
		if err != nil {
			return nil, false, fmt.Errorf("%s: %w", keys[i], err)
		}
	}
	if said == nil {
		return begun, true, nil // no key can have a lease
	}
	field, err := said.Result()
	if err != nil && err != redis.Nil {
		return nil, false, fmt.Errorf("read %s of the watermark: %w", claim.Field(), err)
	}
	return begun, claim.Stands(e.Name, field), nil
}

// Fill writes the values whose lease still stands, and says of each what became of
// it: guard.Stored, guard.Refused or guard.Full. insert, if
// not zero, is a position of the log behind what they show: they get a shield.
func (l *Leases) Fill(ctx context.Context, e *plan.Entry, token string, insert uint64, keys []string, values [][]string) ([]string, error) {
	format, h := guard.String, ""
	if e.Hash {
		format = guard.Hash
	}
	if insert > 0 {
		h = string(binary.BigEndian.AppendUint64(nil, insert))
	}
	replies, err := l.run(ctx, guard.Fill, keys, func(i int, side string) ([]string, []any) {
		arguments := []any{token, h, guard.Shield.Milliseconds(), guard.SpreadTTL(keys[i], e.TTL).Milliseconds(), format}
		for _, text := range values[i] {
			arguments = append(arguments, text)
		}
		return []string{keys[i], side}, arguments
	}, nil)
	if err != nil {
		return nil, err
	}
	filled := make([]string, len(keys))
	for i, reply := range replies {
		if filled[i] = guard.Refused; reply == nil {
			continue
		}
		if filled[i], err = reply.Text(); err != nil {
			return nil, fmt.Errorf("%s: %w", keys[i], err)
		}
	}
	return filled, nil
}

// Release gives leases back.
func (l *Leases) Release(ctx context.Context, token string, keys []string) error {
	replies, err := l.run(ctx, guard.Release, keys, func(i int, side string) ([]string, []any) {
		return []string{side}, []any{token}
	}, nil)
	if err != nil {
		return err
	}
	for i, reply := range replies {
		if reply == nil {
			continue
		}
		if err := reply.Err(); err != nil {
			return fmt.Errorf("%s: %w", keys[i], err)
		}
	}
	return nil
}

// errNoSideKey is said of a key whose hash tag is empty. Only its row makes it
// so: the template has a tag.
var errNoSideKey = errors.New("no lease for a key with an empty hash tag: give the column a value, or put more than it between the braces of the entry's key")

// run runs a script for each key in one round trip, and what behind, if not nil,
// adds. A key that can have no side
// key, and so no lease, has no reply: it is nil. The replies hold their own
// errors, except that Redis does not know the script: then it is told, and the
// whole is sent again. Redis knows a script for all calls or for none, unless it
// was restarted in between; then what the first of them did is lost as well.
func (l *Leases) run(ctx context.Context, script guard.Script, keys []string, call func(i int, side string) (names []string, arguments []any), behind func(redis.Pipeliner)) ([]*redis.Cmd, error) {
	for loaded := false; ; loaded = true {
		pipe := l.client.Pipeline()
		replies := make([]*redis.Cmd, len(keys))
		for i, key := range keys {
			side, ok := guard.SideKey(key)
			if !ok {
				continue
			}
			names, arguments := call(i, side)
			replies[i] = pipe.EvalSha(ctx, script.SHA, names, arguments...)
		}
		if behind != nil && pipe.Len() > 0 {
			behind(pipe)
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

// Watermarks reads those of streams, without owning them; nil: there is none.
func (l *Leases) Watermarks(ctx context.Context, streams []string) ([]*guard.Watermark, error) {
	pipe := l.client.Pipeline()
	replies := make([]*redis.SliceCmd, len(streams))
	for i, stream := range streams {
		replies[i] = pipe.HMGet(ctx, guard.WatermarkKey(0, stream), guard.WatermarkFields...)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("read the watermarks: %w", err)
	}
	marks := make([]*guard.Watermark, len(streams))
	for i, reply := range replies {
		mark, ok, err := guard.ParseWatermark(reply.Val())
		if err != nil {
			return nil, fmt.Errorf("read watermark %s: %w", guard.WatermarkKey(0, streams[i]), err)
		}
		if ok {
			marks[i] = &mark
		}
	}
	return marks, nil
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
