// Package redissink writes batches to Redis through the guard's scripts, and
// sweeps. It owns the watermarks: owner, epoch and the number of each batch.
//
// It promises that a batch is in Redis wholly, with its watermark, or not at
// all, and once, however often it is sent. It retries nothing by itself except
// a script that Redis has forgotten.
package redissink

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
)

// durableAfter is how long a confirmed write may be lost by a master that
// appends to its file once a second, or that has replicas: the file is at most
// two seconds behind, a replica that may take over usually far less.
const durableAfter = 3 * time.Second

// A Sink is one Redis master. It is not safe for concurrent use but for Sweep
// and RunID, which may run beside the others.
type Sink struct {
	client  *redis.Client
	options Options

	watermark string // key
	owner     string
	epoch     int64
	n         int64 // number of the batch that was confirmed last

	arguments arguments
}

// Options of a Sink. Zero values mean the defaults.
type Options struct {
	// SweepRate is how many keys a second a sweep looks at. Default 100,000.
	SweepRate int
}

// New returns a sink on a client that must not retry by itself (MaxRetries -1):
// the loop does, and says so.
func New(client *redis.Client, options Options) *Sink {
	if options.SweepRate <= 0 {
		options.SweepRate = 100_000
	}
	return &Sink{client: client, options: options}
}

// Own takes the stream over. The caller must hold it at its source.
func (s *Sink) Own(ctx context.Context, stream string) ([]guard.Watermark, error) {
	owner := make([]byte, 16)
	rand.Read(owner) // never fails
	key := guard.WatermarkKey(0, stream)
	if err := s.load(ctx); err != nil {
		return nil, err
	}
	reply, err := s.client.EvalSha(ctx, guard.Own.SHA, []string{key}, owner, guard.Format).Result()
	if err != nil {
		return nil, fmt.Errorf("take over %s: %w", key, err)
	}
	mark, err := guard.ParseOwn(reply)
	if err != nil {
		return nil, err
	}
	s.watermark, s.owner, s.epoch, s.n = key, string(owner), mark.Epoch, 0
	return []guard.Watermark{mark}, nil
}

func (s *Sink) load(ctx context.Context) error {
	for _, script := range []guard.Script{guard.Own, guard.Apply} {
		if err := s.client.ScriptLoad(ctx, script.Source).Err(); err != nil {
			return fmt.Errorf("load script %s: %w", script.Name, err)
		}
	}
	return nil
}

// Write sends batches in one round trip. The batches behind a failed one have
// failed too: Redis refuses a batch whose number does not follow.
func (s *Sink) Write(ctx context.Context, batches []*plan.Batch) (written int, err error) {
	written, err = s.write(ctx, batches)
	if err == nil || !strings.Contains(err.Error(), "NOSCRIPT") {
		return written, err
	}
	// Redis forgets its scripts when it restarts.
	if err := s.load(ctx); err != nil {
		return written, err
	}
	rest, err := s.write(ctx, batches[written:])
	return written + rest, err
}

func (s *Sink) write(ctx context.Context, batches []*plan.Batch) (written int, err error) {
	s.arguments.reset()
	pipe := s.client.Pipeline()
	for i, b := range batches {
		pipe.Do(ctx, s.arguments.apply(s.watermark, guard.ApplyHeader{
			Owner: s.owner, Epoch: s.epoch, N: s.n + 1 + int64(i),
			Lo: b.End, Settled: b.Settled, Note: b.Note,
		}, b)...)
	}
	// The commands hold their own errors, and each is looked at.
	replies, err := pipe.Exec(ctx)
	if len(replies) != len(batches) {
		return 0, fmt.Errorf("write %d batches: %w", len(batches), err)
	}
	for i, reply := range replies {
		text, err := reply.(*redis.Cmd).Text()
		switch {
		case err == nil && (text == guard.OK || text == guard.Done):
			s.n++
			continue
		case err == nil && text == guard.Lost:
			err = guard.ErrLost
		case err == nil && text == guard.Fenced:
			err = guard.ErrFenced
		case err == nil:
			err = fmt.Errorf("reply of script apply: %q", text)
		}
		return i, fmt.Errorf("write batch ending at %s: %w", batches[i].End, err)
	}
	return len(batches), nil
}

// Probe looks whether the watermark is where this owner left it.
func (s *Sink) Probe(ctx context.Context) error {
	fields, err := s.client.HMGet(ctx, s.watermark, "owner", "n", "epoch").Result()
	if err != nil {
		return fmt.Errorf("look at watermark %s: %w", s.watermark, err)
	}
	if fields[0] == s.owner && fields[1] == fmt.Sprint(s.n) {
		return nil
	}
	epoch, _ := fields[2].(string)
	var found int64
	if _, err := fmt.Sscan(epoch, &found); err == nil && fields[0] != s.owner && found >= s.epoch {
		return guard.ErrFenced
	}
	return guard.ErrLost
}

// RunID is Redis' own: it changes with every start.
func (s *Sink) RunID(ctx context.Context) (string, error) {
	info, err := s.info(ctx, "server")
	if err != nil {
		return "", err
	}
	if info["run_id"] == "" {
		return "", errors.New("INFO server has no run_id")
	}
	return info["run_id"], nil
}

// DurableAfter asks how Redis keeps what it has confirmed. A Redis without an
// append-only file and without replicas loses what it has when it ends, however
// long ago that was written; waiting would gain nothing, and the loss is found.
func (s *Sink) DurableAfter(ctx context.Context) (time.Duration, error) {
	persistence, err := s.info(ctx, "persistence")
	if err != nil {
		return 0, err
	}
	replication, err := s.info(ctx, "replication")
	if err != nil {
		return 0, err
	}
	if replication["connected_slaves"] != "0" {
		return durableAfter, nil
	}
	if persistence["aof_enabled"] != "1" {
		return 0, nil
	}
	// A role that may not read the configuration gets the careful answer.
	setting, err := s.client.ConfigGet(ctx, "appendfsync").Result()
	if err == nil && setting["appendfsync"] == "always" {
		return 0, nil
	}
	return durableAfter, nil
}

func (s *Sink) info(ctx context.Context, section string) (map[string]string, error) {
	text, err := s.client.Info(ctx, section).Result()
	if err != nil {
		return nil, fmt.Errorf("read INFO %s: %w", section, err)
	}
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[name] = value
		}
	}
	return fields, nil
}
