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
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
)

// durableAfter is how long a confirmed write may be lost by a master that
// appends to its file once a second, or that has replicas: the file is at most
// two seconds behind, a replica that may take over usually far less.
const durableAfter = 3 * time.Second

// A Sink is one Redis master. It is not safe for concurrent use but for what sweeps,
// RunID and Claim, and for what is done with the sets of indexes (see Ask), which may run
// beside the others.
type Sink struct {
	client  *redis.Client
	options Options

	owner   string
	streams []stream
	clock   clock
	claim   atomic.Pointer[guard.Claim] // what Claim returns
	indexes atomic.Pointer[indexes]

	arguments arguments
	sent      []int64 // by stream: of the batches of a round trip
}

// A stream is what is known of one watermark.
type stream struct {
	watermark string // key
	epoch     int64
	n         int64 // number of the batch that was confirmed last
}

// clock relates the master's TIME to ours. It is read seldom and carried on by
// our clock.
type clock struct {
	master         int64 // ms
	sent, received time.Time
}

// driftMax is how far the clocks may run apart between two looks. Beyond that
// one of them was set, or this machine stood still while its clock did too, and
// nobody can say any more how old a change is.
const driftMax = 2 * time.Second

// answerMax is how long an answer may take that tells the master's TIME. It may
// have been read at any moment in between, so two answers can hide a drift of twice
// as long, and of driftMax: less than a shield lasts beyond guard.YoungMax and
// guard.UntilMax.
const answerMax = 5 * time.Second

// when returns the master's TIME at t of our clock, or earlier: the answer took
// its time to come.
func (c *clock) when(t time.Time) int64 { return c.master + t.Sub(c.received).Milliseconds() }

// set notes that the master's TIME was read between sent and received. A slow
// answer is no drift.
func (c *clock) set(master int64, sent, received time.Time) error {
	earliest := c.when(sent)
	latest := c.master + received.Sub(c.sent).Milliseconds()
	*c = clock{master, sent, received}
	if took := received.Sub(sent); took > answerMax {
		return fmt.Errorf("%w, or may have: an answer took %s", guard.ErrClock, took.Round(time.Millisecond))
	}
	drift := time.Duration(max(master-latest, min(master-earliest, 0))) * time.Millisecond
	if drift.Abs() > driftMax {
		return fmt.Errorf("%w by %s", guard.ErrClock, drift)
	}
	return nil
}

// Options of a Sink. Zero values mean the defaults.
type Options struct {
	// Entries are those of the planner, as Indexes: batches name them.
	Entries []plan.Entry
	Indexes []plan.EntryIndex
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

// Own takes the named streams over. The caller must hold them at their source.
func (s *Sink) Own(ctx context.Context, names []string) ([][]guard.Watermark, error) {
	owner := make([]byte, 16)
	rand.Read(owner) // never fails
	if err := s.load(ctx); err != nil {
		return nil, err
	}
	streams := make([]stream, len(names))
	pipe := s.client.Pipeline()
	for i, name := range names {
		streams[i].watermark = guard.WatermarkKey(0, name)
		pipe.EvalSha(ctx, guard.Own.SHA, []string{streams[i].watermark}, owner, guard.Format)
	}
	sent := time.Now()
	// The commands hold their own errors, and each is looked at.
	replies, err := pipe.Exec(ctx)
	received := time.Now()
	if len(replies) != len(names) {
		return nil, fmt.Errorf("take over %d streams: %w", len(names), err)
	}
	marks := make([][]guard.Watermark, len(names))
	for i, reply := range replies {
		answer, err := reply.(*redis.Cmd).Result()
		if err != nil {
			return nil, fmt.Errorf("take over %s: %w", streams[i].watermark, err)
		}
		mark, err := guard.ParseOwn(answer)
		if err != nil {
			return nil, err
		}
		streams[i].epoch = mark.Epoch
		marks[i] = []guard.Watermark{mark}
		s.clock = clock{mark.Now, sent, received}
	}
	s.owner, s.streams, s.sent = string(owner), streams, make([]int64, len(streams))
	claim := guard.Claim{Owner: s.owner}
	if len(names) > 0 {
		claim.Stream = names[0] // one owner has them all
		s.indexes.Store(s.newIndexes(names[0]))
		s.arguments.prefixes = s.indexes.Load().prefixes
	}
	s.claim.Store(&claim)
	return marks, nil
}

// Claim is that of what is loaded for the owner of the streams; one that does not
// stand before the first Own.
func (s *Sink) Claim() guard.Claim {
	if claim := s.claim.Load(); claim != nil {
		return *claim
	}
	return guard.Claim{}
}

func (s *Sink) load(ctx context.Context) error {
	for _, script := range []guard.Script{guard.Own, guard.Apply, guard.ApplyValues, guard.Forget, guard.Collect, guard.Name, guard.Seal, guard.DropNamed, guard.Members, guard.Build, guard.Gather, guard.Complete} {
		if err := s.client.ScriptLoad(ctx, script.Source).Err(); err != nil {
			return fmt.Errorf("load script %s: %w", script.Name, err)
		}
	}
	return nil
}

// Write sends batches in one round trip. The batches of a stream behind a failed
// one have failed too: Redis refuses a batch whose number does not follow. Those of
// other streams may be in; when they are sent again, under the same numbers, nothing
// happens. The sets that Redis made drops, or may have, are noted in their batch, and
// which of the keys that it dropped were cached.
//
// The drops of a batch beside the stream stand before its script, as a command of their
// own, at half the cost. To drop is right whoever does it, and a Redis that has the
// script's number has all that stood before it.
func (s *Sink) Write(ctx context.Context, batches []*plan.Batch) (written int, err error) {
	for loaded := false; ; {
		n, err := s.write(ctx, batches[written:])
		written += n
		switch {
		case err == nil:
			return written, nil
		case strings.Contains(err.Error(), "NOSCRIPT") && !loaded:
			// Redis forgets its scripts when it restarts.
			loaded = true
			if err := s.load(ctx); err != nil {
				return written, err
			}
		case redis.HasErrorPrefix(errors.Unwrap(err), "OOM") && batches[written].Writes():
			// A full Redis takes no values. It takes drops, which free it.
			for _, b := range batches[written:] {
				if b.Writes() {
					b.Press()
				}
			}
		default:
			return written, err
		}
	}
}

func (s *Sink) write(ctx context.Context, batches []*plan.Batch) (written int, err error) {
	s.arguments.reset()
	pipe := s.client.Pipeline()
	told := make([][]int, len(batches))
	unlinks, scripts := make([]*redis.Cmd, len(batches)), make([]*redis.Cmd, len(batches))
	clear(s.sent)
	for i, b := range batches {
		st := &s.streams[b.Stream]
		s.sent[b.Stream]++
		if b.Beside {
			if command := s.arguments.unlink(b, s.options.Entries); command != nil {
				unlinks[i] = pipe.Do(ctx, command...)
			}
		}
		scripts[i] = pipe.Do(ctx, s.arguments.apply(st.watermark, guard.ApplyHeader{
			Owner: s.owner, Epoch: st.epoch, N: st.n + s.sent[b.Stream],
			Lo: b.End, Settled: b.Settled, Note: b.Note, Seen: b.Seen, Until: s.clock.when(b.Until),
		}, b, s.options.Entries)...)
		told[i] = slices.Concat(s.arguments.set, s.arguments.setHash, s.arguments.reload)
	}
	sent := time.Now()
	// The commands hold their own errors, and each is looked at.
	want := pipe.Len()
	replies, err := pipe.Exec(ctx)
	received := time.Now()
	if len(replies) != want {
		return 0, fmt.Errorf("write %d batches: %w", len(batches), err)
	}
	var drifted error
	for i, script := range scripts {
		if unlinks[i] != nil && unlinks[i].Err() != nil {
			// The script may be in: sent again, it is answered DONE.
			return i, fmt.Errorf("drop the keys that lookups have found: %w", unlinks[i].Err())
		}
		if err := s.confirm(script, batches[i], told[i], sent, received); errors.Is(err, guard.ErrClock) {
			drifted = err // the batch is in
		} else if err != nil {
			if drifted == nil {
				drifted = fmt.Errorf("write batch ending at %s: %w", batches[i].End, err)
			}
			// Behind a drift nothing is sent again: the clock says by now what it
			// was set to, and how old the changes are was judged before.
			return i, drifted
		}
	}
	return len(batches), drifted
}

// confirm reads the reply to one batch, which came in between. told are its items
// of which it tells something, as the script counts them.
func (s *Sink) confirm(reply *redis.Cmd, b *plan.Batch, told []int, sent, received time.Time) error {
	answer, err := reply.Result()
	if err != nil {
		return err
	}
	applied, err := guard.ParseApply(answer)
	if err != nil {
		return err
	}
	switch applied.Status {
	case guard.Lost:
		return guard.ErrLost
	case guard.Fenced:
		return guard.ErrFenced
	case guard.Done:
		b.Doubt() // what became of its sets was in the reply that was lost
	}
	s.streams[b.Stream].n++
	for _, dropped := range applied.Dropped {
		switch {
		case dropped.Number >= len(told):
			return fmt.Errorf("reply of script apply: it tells of key %d of %d", dropped.Number+1, len(told))
		case dropped.Cached:
			b.Cached(told[dropped.Number])
		default:
			b.Refuse(told[dropped.Number])
		}
	}
	if applied.Now > 0 {
		return s.clock.set(applied.Now, sent, received)
	}
	return nil
}

// Probe looks whether every watermark is where this owner left it, and what the
// time is there.
func (s *Sink) Probe(ctx context.Context) error {
	pipe := s.client.Pipeline()
	clock := pipe.Time(ctx)
	marks := make([]*redis.SliceCmd, len(s.streams))
	for i := range s.streams {
		marks[i] = pipe.HMGet(ctx, s.streams[i].watermark, "owner", "n", "epoch")
	}
	sent := time.Now()
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("look at the watermarks: %w", err)
	}
	received := time.Now()
	for i := range s.streams {
		if err := s.streams[i].compare(marks[i].Val(), s.owner); err != nil {
			return err
		}
	}
	return s.clock.set(clock.Val().UnixMilli(), sent, received)
}

// compare looks at owner, n and epoch of a watermark.
func (st *stream) compare(fields []any, owner string) error {
	if fields[0] == owner && fields[1] == fmt.Sprint(st.n) {
		return nil
	}
	epoch, _ := fields[2].(string)
	var found int64
	if _, err := fmt.Sscan(epoch, &found); err == nil && fields[0] != owner && found >= st.epoch {
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
