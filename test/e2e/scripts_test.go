package e2e

import (
	"context"
	bigendian "encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
	"github.com/unstale/unstale/internal/redissink"
	"github.com/unstale/unstale/internal/stack"
)

// A master is a Redis on which the scripts are run by hand.
type master struct {
	t       *testing.T
	client  *redis.Client
	cluster bool
}

// scriptStream is the stream of these tests.
const scriptStream = "1:2:scripts"

var scriptMark = guard.WatermarkKey(0, scriptStream)

func masterOn(t *testing.T, r *stack.Redis, cluster bool) *master {
	t.Helper()
	options, err := redis.ParseURL(r.URL())
	if err != nil {
		t.Fatal(err)
	}
	options.MaxRetries = -1
	client := redis.NewClient(options)
	t.Cleanup(func() { client.Close() })
	return &master{t, client, cluster}
}

// onBothKinds runs test on a Redis and on a cluster of one node, empty each
// time.
func onBothKinds(t *testing.T, tests map[string]func(m *master)) {
	t.Parallel()
	for _, cluster := range []bool{false, true} {
		kind := map[bool]string{false: "single", true: "cluster"}[cluster]
		server := startRedis(t, stack.RedisOptions{Cluster: cluster})
		for name, test := range tests {
			t.Run(kind+"/"+name, func(t *testing.T) {
				m := masterOn(t, server, cluster)
				m.do("FLUSHALL")
				m.do("CONFIG", "SET", "maxmemory", "0")
				test(m)
			})
		}
	}
}

func (m *master) do(command ...any) any {
	m.t.Helper()
	reply, err := m.client.Do(m.t.Context(), command...).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		m.t.Fatalf("%v: %v", command, err)
	}
	return reply
}

// script runs a script and returns its reply as text, the words of a list
// parted by spaces.
func (m *master) script(s guard.Script, keys []string, arguments ...any) string {
	m.t.Helper()
	reply, err := m.client.Eval(m.t.Context(), s.Source, keys, arguments...).Result()
	if err != nil {
		return "error " + err.Error()
	}
	if list, ok := reply.([]any); ok {
		var words []string
		for _, word := range list {
			words = append(words, fmt.Sprint(word))
		}
		return strings.Join(words, " ")
	}
	return fmt.Sprint(reply)
}

func (m *master) set(keys ...string) {
	m.t.Helper()
	for _, key := range keys {
		m.do("SET", key, "cached")
	}
}

func (m *master) wantKeys(want ...string) {
	m.t.Helper()
	got := m.client.Keys(m.t.Context(), "*").Val()
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(append([]string{}, want...), append([]string{}, got...)); diff != "" {
		m.t.Errorf("keys (-want +got):\n%s", diff)
	}
}

func (m *master) want(what, got, want string) {
	m.t.Helper()
	if got != want {
		m.t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// owner is one taking over of the stream.
type owner struct {
	m     *master
	id    string
	epoch int64
	found guard.Watermark
}

var ownerIDs struct {
	sync.Mutex
	last int
}

func (m *master) own() *owner {
	m.t.Helper()
	ownerIDs.Lock()
	ownerIDs.last++
	id := fmt.Sprintf("owner %06d\x00\xff\r\n", ownerIDs.last)
	ownerIDs.Unlock()
	reply, err := m.client.Eval(m.t.Context(), guard.Own.Source, []string{scriptMark}, id, guard.Format).Result()
	if err != nil {
		m.t.Fatal(err)
	}
	found, err := guard.ParseOwn(reply)
	if err != nil {
		m.t.Fatal(err)
	}
	return &owner{m, id, found.Epoch, found}
}

func position(lsn int64) change.Position {
	return change.Position{Timeline: 1, LSN: uint64(lsn), Row: 1<<63 + 5}
}

// apply runs batch n, which drops keys and their side keys and ends at n.
func (o *owner) apply(n int64, note *guard.Note, keys ...string) string {
	o.m.t.Helper()
	header := guard.ApplyHeader{Owner: o.id, Epoch: o.epoch, N: n, Lo: position(n), Settled: position(n - 1), Note: note, Cluster: o.m.cluster}
	var names []any
	for _, key := range keys {
		names = append(names, key)
		if side, ok := guard.SideKey(key); ok {
			names = append(names, side)
		}
	}
	header.Drops = len(names)
	var arguments []any
	for _, argument := range header.AppendArguments(nil) {
		arguments = append(arguments, argument)
	}
	arguments = append(arguments, names...)
	return o.ok(guard.Apply, arguments)
}

// ok runs apply; where nothing was to be SET the time in the reply is 0.
func (o *owner) ok(script guard.Script, arguments []any) string {
	o.m.t.Helper()
	return strings.TrimSuffix(o.m.script(script, []string{scriptMark}, arguments...), " 0")
}

// A keptBatch is a batch of entries that SET.
type keptBatch struct {
	until   int64 // ms of Redis' time; 0: no limit
	forgets []string
	reloads []string // are forgotten too
	sets    []keptSet
	hashes  []keptSet
}

// keptSet is what a change writes.
type keptSet struct {
	key    string
	order  uint64
	fields []string // a string has one
	cached bool     // only if it is
}

// keep runs batch n and returns its reply without the time.
func (o *owner) keep(n int64, s keptBatch) string {
	o.m.t.Helper()
	forgets := slices.Concat(s.forgets, s.reloads)
	header := guard.ApplyHeader{
		Owner: o.id, Epoch: o.epoch, N: n, Lo: position(n), Settled: position(n), Cluster: o.m.cluster, Until: s.until,
		Forgets: len(forgets), Reloads: len(s.reloads), Strings: len(s.sets), Hashes: len(s.hashes),
	}
	if s.until == 0 {
		header.Until = 1 << 50
	}
	texts := header.AppendArguments(nil)
	texts = append(texts, forgets...)
	for _, key := range forgets {
		texts = append(texts, o.m.side(key))
	}
	for i, sets := range [][]keptSet{s.sets, s.hashes} {
		for _, w := range sets {
			texts = append(texts, w.key)
		}
		for _, w := range sets {
			texts = append(texts, o.m.side(w.key))
		}
		for _, w := range sets {
			texts = append(texts, map[bool]string{true: "-60000", false: "60000"}[w.cached])
		}
		for _, w := range sets {
			texts = append(texts, string(bigendian.BigEndian.AppendUint64(nil, w.order)))
		}
		for _, w := range sets {
			if isHash := i == 1; isHash {
				texts = append(texts, fmt.Sprint(len(w.fields)/2))
			} else {
				texts = append(texts, w.fields[0])
			}
		}
	}
	for _, w := range s.hashes {
		texts = append(texts, w.fields...)
	}
	arguments := make([]any, len(texts))
	for i := range texts {
		arguments[i] = texts[i]
	}
	words := strings.Fields(o.m.script(guard.ApplyValues, []string{scriptMark}, arguments...))
	if len(words) > 1 && words[0] == guard.OK {
		words = slices.Delete(words, 1, 2)
	}
	return strings.Join(words, " ")
}

func (m *master) side(key string) string {
	m.t.Helper()
	side, ok := guard.SideKey(key)
	if !ok {
		m.t.Fatalf("%q has no side key", key)
	}
	return side
}

func (m *master) begin(key, token string, lease time.Duration) string {
	m.t.Helper()
	return m.script(guard.Begin, guard.BeginKeys(key, m.side(key)), token, lease.Milliseconds(), guard.Shield.Milliseconds(), guard.String, guard.NamesMax)
}

func (m *master) fill(key, token, value string) string {
	m.t.Helper()
	return m.script(guard.Fill, []string{key, m.side(key)}, token, "", guard.Shield.Milliseconds(), time.Minute.Milliseconds(), guard.String, value)
}

// until asks until the fact holds: Redis tells nobody that time has passed.
func (m *master) until(fact string, holds func() bool) {
	m.t.Helper()
	ctx := within(m.t, 20*time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			m.t.Fatalf("not so after 20 s: %s", fact)
		}
	}
}

// One batch on one master: wholly, with its watermark, once; or not at all.
func TestApply(t *testing.T) {
	onBothKinds(t, map[string]func(m *master){
		"a batch drops its keys and moves the watermark": func(m *master) {
			o := m.own()
			m.set("a:1", "a:2", "{tag}:3", "b:1")
			m.want("apply", o.apply(1, nil, "a:1", "a:2", "{tag}:3", "absent"), guard.OK)
			m.wantKeys("b:1", scriptMark)
			next := m.own()
			if next.found.Lo != position(1) || next.found.Settled != position(0) || next.epoch != o.epoch+1 {
				m.t.Errorf("found %+v", next.found)
			}
		},
		"a batch without keys moves the watermark": func(m *master) {
			o := m.own()
			m.want("apply", o.apply(1, nil), guard.OK)
			if found := m.own().found; found.Lo != position(1) {
				m.t.Errorf("found %+v", found)
			}
		},
		"a batch of thousands of keys is one batch": func(m *master) {
			o := m.own()
			var keys []string
			pipe := m.client.Pipeline()
			for i := range 2501 {
				keys = append(keys, fmt.Sprint("k:", i))
				pipe.Set(m.t.Context(), keys[i], "cached", 0)
				pipe.Set(m.t.Context(), m.side(keys[i]), "lease", 0)
			}
			if _, err := pipe.Exec(m.t.Context()); err != nil {
				m.t.Fatal(err)
			}
			m.want("apply", o.apply(1, nil, keys...), guard.OK)
			m.wantKeys(scriptMark)
		},
		"any bytes are a key": func(m *master) {
			o := m.own()
			keys := []string{"", "\x00", "\xff\xfe", "a b\r\n", "a}b", "{}x", "{\x00}:k", "%s", "ключ"}
			m.set(keys...)
			m.want("apply", o.apply(1, nil, keys...), guard.OK)
			m.wantKeys(scriptMark)
		},
		"whatever is at a key goes": func(m *master) {
			o := m.own()
			m.do("HSET", "h", "f", "v")
			m.do("RPUSH", "{h}:l", "v")
			m.do("SADD", "s", "v")
			m.want("apply", o.apply(1, nil, "h", "s"), guard.OK)
			m.wantKeys(scriptMark)
		},
		"a batch that is sent again is done": func(m *master) {
			o := m.own()
			m.want("apply", o.apply(1, nil, "a"), guard.OK)
			m.set("a") // a reader has loaded since
			m.want("again", o.apply(1, nil, "a"), guard.Done)
			m.wantKeys("a", scriptMark)
			m.want("next", o.apply(2, nil, "a"), guard.OK)
			m.wantKeys(scriptMark)
		},
		// A round trip carries several batches. When its replies are lost all of
		// them are sent again, beginning with the first.
		"batches that are sent again are done": func(m *master) {
			o := m.own()
			for n := range int64(3) {
				m.want("apply", o.apply(n+1, nil, "a"), guard.OK)
			}
			m.set("a")
			for n := range int64(3) {
				m.want("again", o.apply(n+1, nil, "a"), guard.Done)
			}
			m.wantKeys("a", scriptMark)
			if got := m.do("HGET", scriptMark, "n"); got != "3" {
				m.t.Errorf("n is %v, want 3", got)
			}
		},
		"a batch behind a failed one is not applied": func(m *master) {
			o := m.own()
			m.set("a")
			m.want("apply 2", o.apply(2, nil, "a"), guard.Lost)
			m.wantKeys("a", scriptMark)
			m.want("apply 1", o.apply(1, nil), guard.OK)
			m.want("apply 2", o.apply(2, nil, "a"), guard.OK)
			m.wantKeys(scriptMark)
		},
		"a former owner is fenced": func(m *master) {
			former := m.own()
			m.want("apply", former.apply(1, nil), guard.OK)
			owner := m.own()
			m.set("a")
			m.want("the former", former.apply(2, nil, "a"), guard.Fenced)
			m.want("the former again", former.apply(1, nil, "a"), guard.Fenced)
			m.wantKeys("a", scriptMark)
			if found := m.own().found; found.Lo != position(1) {
				m.t.Errorf("found %+v", found)
			}
			m.want("fenced in turn", owner.apply(1, nil, "a"), guard.Fenced)
		},
		"an emptied Redis has lost its writes": func(m *master) {
			o := m.own()
			m.want("apply", o.apply(1, nil), guard.OK)
			m.do("FLUSHALL")
			m.set("a")
			m.want("apply", o.apply(2, nil, "a"), guard.Lost)
			m.wantKeys("a")
		},
		"a batch in flight does not survive an emptied Redis": func(m *master) {
			o := m.own()
			m.do("FLUSHALL")
			m.want("the first batch", o.apply(1, nil), guard.Lost)
			m.wantKeys()
		},
		"an older state has lost writes": func(m *master) {
			o := m.own()
			for n := range int64(5) {
				m.want("apply", o.apply(n+1, nil), guard.OK)
			}
			m.do("HSET", scriptMark, "n", 3) // a replica that was behind took over
			m.set("a")
			m.want("apply", o.apply(6, nil, "a"), guard.Lost)
			m.wantKeys("a", scriptMark)
		},
		"a state before our time has lost writes": func(m *master) {
			m.own()
			before := m.do("HGETALL", scriptMark)
			o := m.own()
			m.do("DEL", scriptMark)
			restored := []any{"HSET", scriptMark}
			switch fields := before.(type) {
			case map[any]any:
				for field, value := range fields {
					restored = append(restored, field, value)
				}
			default:
				m.t.Fatalf("HGETALL gave %T", before)
			}
			m.do(restored...)
			m.want("apply", o.apply(1, nil), guard.Lost)
		},
		// Epochs begin anew in an emptied Redis. Owners do not.
		"an owner of the same epoch is another": func(m *master) {
			former := m.own()
			m.do("FLUSHALL")
			owner := m.own()
			if former.epoch != owner.epoch {
				m.t.Fatalf("epochs %d and %d", former.epoch, owner.epoch)
			}
			m.want("the former", former.apply(1, nil), guard.Fenced)
			m.want("the owner", owner.apply(1, nil), guard.OK)
		},
		"an owner of a later epoch in an emptied Redis has lost": func(m *master) {
			m.own()
			former := m.own()
			m.do("FLUSHALL")
			owner := m.own()
			m.want("the former", former.apply(1, nil), guard.Lost)
			m.want("the owner", owner.apply(1, nil), guard.OK)
		},
		"a note is kept until the next": func(m *master) {
			o := m.own()
			note := &guard.Note{Origin: "1/2/3/4", Fingerprints: guard.Fingerprints{"a": {Key: "a:{id}", Hash: "f"}}, Sweeps: []guard.Sweep{{Key: "a:{id}"}}}
			m.want("apply", o.apply(1, note), guard.OK)
			m.want("apply", o.apply(2, nil), guard.OK)
			found := m.own().found
			want := guard.Watermark{Epoch: found.Epoch, Lo: position(2), Settled: position(1), Origin: note.Origin, Fingerprints: note.Fingerprints, Sweeps: note.Sweeps, Now: found.Now}
			if diff := cmp.Diff(want, found); diff != "" {
				m.t.Errorf("(-want +got):\n%s", diff)
			}
			o = m.own()
			note.Sweeps = []guard.Sweep{}
			m.want("apply", o.apply(1, note), guard.OK)
			if found := m.own().found; len(found.Sweeps) != 0 || found.Origin != note.Origin {
				m.t.Errorf("found %+v", found)
			}
		},
		"a watermark of a newer release is left alone": func(m *master) {
			o := m.own()
			m.want("apply", o.apply(1, nil), guard.OK)
			m.do("HSET", scriptMark, "format", guard.Format+1)
			m.want("own", m.script(guard.Own, []string{scriptMark}, "intruder", guard.Format), fmt.Sprint("FORMAT ", guard.Format+1))
			m.want("the owner goes on", o.apply(2, nil), guard.OK)
		},
		// A full Redis needs nothing more than drops.
		"a full Redis takes drops": func(m *master) {
			o := m.own()
			m.set("a")
			m.do("CONFIG", "SET", "maxmemory", "1mb")
			defer m.do("CONFIG", "SET", "maxmemory", "0")
			if err := m.client.Set(m.t.Context(), "b", "x", 0).Err(); err == nil || !strings.Contains(err.Error(), "OOM") {
				m.t.Fatalf("the Redis is not full: %v", err)
			}
			m.want("apply", o.apply(1, nil, "a"), guard.OK)
			m.wantKeys(scriptMark)
			if found := m.own().found; found.Lo != position(1) {
				m.t.Errorf("found %+v", found)
			}
		},
	})
}

// A reader fills a key under a lease. Whatever comes in between refuses it.
func TestLeases(t *testing.T) {
	onBothKinds(t, map[string]func(m *master){
		"a miss gives the lease to one": func(m *master) {
			m.want("first", m.begin("a", "t1", 3*time.Second), "LEASE")
			words := strings.Fields(m.begin("a", "t2", 3*time.Second))
			if len(words) != 2 || words[0] != guard.Wait {
				m.t.Fatalf("second: got %v", words)
			}
			if left, err := strconv.Atoi(words[1]); err != nil || left < 1 || left > 3000 {
				m.t.Errorf("second: told to wait %s ms", words[1])
			}
			m.want("stored", m.fill("a", "t1", "v1"), guard.Stored)
			m.want("hit", m.begin("a", "t2", 3*time.Second), "HIT v1")
			if left := m.client.PTTL(m.t.Context(), "a").Val(); left <= 50*time.Second || left > time.Minute {
				m.t.Errorf("the value lives %s", left)
			}
			m.wantKeys("a") // nothing beside a cached key
		},
		"values and tokens are bytes": func(m *master) {
			token := "\x00\xff{}\r\n\x80 token"
			for _, value := range []string{"", "\x00", "\xff\xfe", strings.Repeat("x", 1<<20)} {
				m.do("FLUSHALL")
				m.want("begin", m.begin("{t}:a", token, time.Second), "LEASE")
				m.want("fill", m.fill("{t}:a", token, value), guard.Stored)
				m.want("value", m.client.Get(m.t.Context(), "{t}:a").Val(), value)
				m.want("hit", m.begin("{t}:a", "t2", time.Second), "HIT "+value)
			}
		},
		"a change kills the lease": func(m *master) {
			o := m.own()
			m.want("begin", m.begin("a", "t1", 3*time.Second), "LEASE")
			m.want("apply", o.apply(1, nil, "a"), guard.OK)
			m.want("fill", m.fill("a", "t1", "old"), guard.Refused)
			m.wantKeys(scriptMark)
		},
		"a change lets the next reader load at once": func(m *master) {
			o := m.own()
			m.want("begin", m.begin("a", "t1", 3*time.Second), "LEASE")
			m.want("apply", o.apply(1, nil, "a"), guard.OK)
			m.want("begin", m.begin("a", "t2", 3*time.Second), "LEASE")
			m.want("the old lease", m.fill("a", "t1", "old"), guard.Refused)
			m.want("the new lease", m.fill("a", "t2", "new"), guard.Stored)
			m.want("value", m.client.Get(m.t.Context(), "a").Val(), "new")
		},
		"a change of another key leaves the lease": func(m *master) {
			o := m.own()
			m.want("begin", m.begin("{t}:a", "t1", 3*time.Second), "LEASE")
			m.want("apply", o.apply(1, nil, "{t}:b", "t", "{t}", "a"), guard.OK)
			m.want("fill", m.fill("{t}:a", "t1", "v"), guard.Stored)
		},
		// Whatever has changed meanwhile would have ended the lease.
		"a load that takes too long is cached, if nobody else has begun": func(m *master) {
			m.want("begin", m.begin("a", "t1", time.Millisecond), "LEASE")
			began := m.client.Time(m.t.Context()).Val()
			m.until("the deadline has passed", func() bool { return m.client.Time(m.t.Context()).Val().Sub(began) > 2*time.Millisecond })
			m.want("fill", m.fill("a", "t1", "late"), guard.Stored)
			m.wantKeys("a")
		},
		"a lease whose deadline has passed goes to the next": func(m *master) {
			m.want("begin", m.begin("a", "t1", time.Millisecond), "LEASE")
			m.until("the lease is free", func() bool { return m.begin("a", "t2", time.Minute) == "LEASE" })
			m.want("the first", m.fill("a", "t1", "late"), guard.Refused)
			if words := m.begin("a", "t3", time.Second); !strings.HasPrefix(words, guard.Wait) {
				m.t.Errorf("the second lost its lease to the first: %s", words)
			}
			m.want("the second", m.fill("a", "t2", "v"), guard.Stored)
		},
		"a side key that expired refuses": func(m *master) {
			m.want("begin", m.script(guard.Begin, []string{"a", m.side("a")}, "t1", 3000, 1, guard.String, guard.NamesMax), "LEASE")
			m.until("the side key has expired", func() bool { return m.client.Exists(m.t.Context(), m.side("a")).Val() == 0 })
			m.want("fill", m.fill("a", "t1", "v"), guard.Refused)
			m.wantKeys()
		},
		"a side key that was evicted refuses": func(m *master) {
			m.want("begin", m.begin("a", "t1", 3*time.Second), "LEASE")
			m.do("FLUSHALL")
			m.want("fill", m.fill("a", "t1", "v"), guard.Refused)
			m.wantKeys()
		},
		"a fill without a lease refuses": func(m *master) {
			m.want("no side key", m.fill("a", "t1", "v"), guard.Refused)
			m.want("begin", m.begin("a", "t1", 3*time.Second), "LEASE")
			for _, token := range []string{"t2", "", "t", "t11"} {
				m.want("token "+token, m.fill("a", token, "v"), guard.Refused)
			}
			m.want("fill", m.fill("a", "t1", "v"), guard.Stored)
			m.want("twice", m.fill("a", "t1", "w"), guard.Refused)
			m.want("value", m.client.Get(m.t.Context(), "a").Val(), "v")
		},
		"a side key is gone after its shield": func(m *master) {
			m.want("begin", m.begin("a", "t1", 3*time.Second), "LEASE")
			if left := m.client.PTTL(m.t.Context(), m.side("a")).Val(); left <= 50*time.Second || left > guard.Shield {
				m.t.Errorf("the side key lives %s", left)
			}
		},
		"a lease is given back by who has it": func(m *master) {
			side := []string{m.side("a")}
			m.want("begin", m.begin("a", "t1", 3*time.Second), "LEASE")
			m.want("another's", m.script(guard.Release, side, "t2"), guard.OK)
			if words := m.begin("a", "t2", time.Second); !strings.HasPrefix(words, guard.Wait) {
				m.t.Errorf("the lease went: %s", words)
			}
			m.want("release", m.script(guard.Release, side, "t1"), guard.OK)
			m.want("none", m.script(guard.Release, side, "t1"), guard.OK)
			m.want("begin", m.begin("a", "t2", 3*time.Second), "LEASE")
			m.want("fill", m.fill("a", "t1", "v"), guard.Refused)
		},
		// What is no string under a key that should be one was not written by us:
		// the reader is told, reads through, and the next change drops it.
		"another type at a data key is said": func(m *master) {
			o := m.own()
			m.do("HSET", "h", "f", "v")
			if reply := m.begin("h", "t1", time.Second); !strings.Contains(reply, "WRONGTYPE") {
				m.t.Errorf("begin: got %s", reply)
			}
			m.want("apply", o.apply(1, nil, "h"), guard.OK)
			m.want("begin", m.begin("h", "t1", 3*time.Second), "LEASE")
			m.do("RPUSH", "h", "v") // and in the middle of a load
			m.want("fill", m.fill("h", "t1", "v"), guard.Stored)
			m.want("value", m.client.Get(m.t.Context(), "h").Val(), "v")
		},
		"another type at a side key is said": func(m *master) {
			o := m.own()
			m.do("HSET", m.side("a"), "f", "v")
			for _, reply := range []string{m.begin("a", "t1", time.Second), m.fill("a", "t1", "v")} {
				if !strings.Contains(reply, "WRONGTYPE") {
					m.t.Errorf("got %s", reply)
				}
			}
			m.want("apply", o.apply(1, nil, "a"), guard.OK)
			m.want("begin", m.begin("a", "t1", time.Second), "LEASE")
		},
		"a full Redis gives no lease and takes no value": func(m *master) {
			m.want("begin", m.begin("a", "t1", time.Minute), "LEASE")
			m.want("begin", m.begin("b", "t1", time.Minute), "LEASE")
			m.do("CONFIG", "SET", "maxmemory", "1mb")
			defer m.do("CONFIG", "SET", "maxmemory", "0")
			if reply := m.begin("c", "t1", time.Second); !strings.Contains(reply, "OOM") {
				m.t.Errorf("begin: got %s", reply)
			}
			m.want("fill", m.fill("a", "t1", "v"), guard.Full)
			m.want("release", m.script(guard.Release, []string{m.side("b")}, "t1"), guard.OK)
			m.wantKeys() // and what they stood for is free
		},
	})
}

// A replica that was promoted by mistake, or a stale address: nothing is
// written, and the error says why.
func TestAReplicaRefusesTheScripts(t *testing.T) {
	t.Parallel()
	primary := startRedis(t, stack.RedisOptions{Settings: map[string]string{"repl-diskless-sync-delay": "0"}})
	m := masterOn(t, primary, false)
	o := m.own()
	m.set("a")
	m.want("apply", o.apply(1, nil), guard.OK)
	replica := masterOn(t, startRedis(t, stack.RedisOptions{Settings: map[string]string{"replicaof": strings.Replace(primary.Addr(), ":", " ", 1)}}), false)
	replica.until("the replica has everything", func() bool {
		return replica.client.HGet(t.Context(), scriptMark, "n").Val() == "1"
	})
	there := *o
	there.m = replica
	for name, reply := range map[string]string{
		"apply": there.apply(2, nil, "a"),
		"own":   replica.script(guard.Own, []string{scriptMark}, "x", guard.Format),
		"begin": replica.begin("b", "t1", time.Second),
	} {
		if !strings.Contains(reply, "READONLY") {
			t.Errorf("%s: got %s, want READONLY", name, reply)
		}
	}
	if got, err := redissink.New(m.client, redissink.Options{}).DurableAfter(t.Context()); err != nil || got != 3*time.Second {
		t.Errorf("a replica may take over, and durable is after %s, %v", got, err)
	}
	m.want("apply", o.apply(2, nil, "a"), guard.OK)
	replica.until("the replica has dropped it too", func() bool { return replica.client.Exists(t.Context(), "a").Val() == 0 })
	if got := replica.do("HGET", scriptMark, "lo"); got != string(position(2).Append(nil)) {
		t.Errorf("the replica's watermark stands at %q", got)
	}
}

// The slot rule is Redis's own.
func TestSlotsAreWhatTheClusterSays(t *testing.T) {
	t.Parallel()
	m := masterOn(t, startRedis(t, stack.RedisOptions{Cluster: true}), true)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	pieces := []string{"{", "}", "{}", ":", "a", "user:7", "\x00", "\xff", "é", ":l", " "}
	pipe := m.client.Pipeline()
	var keys []string
	for range 5000 {
		var key strings.Builder
		for range random.IntN(8) {
			key.WriteString(pieces[random.IntN(len(pieces))])
		}
		keys = append(keys, key.String())
		if side, ok := guard.SideKey(key.String()); ok {
			keys = append(keys, side)
		}
	}
	for slot := range uint16(guard.Slots) {
		if slot%64 == 0 {
			keys = append(keys, guard.WatermarkKey(slot, scriptStream))
		}
	}
	for _, key := range keys {
		pipe.ClusterKeySlot(t.Context(), key)
	}
	replies, err := pipe.Exec(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, reply := range replies {
		if got, want := int64(guard.Slot(keys[i])), reply.(*redis.IntCmd).Val(); got != want {
			t.Errorf("key %q: got slot %d, Redis says %d", keys[i], got, want)
		}
	}
}

// A key whose slot is elsewhere fails the whole batch before its first write.
func TestABatchWithAKeyThatMovedDoesNothing(t *testing.T) {
	t.Parallel()
	m := masterOn(t, startRedis(t, stack.RedisOptions{Cluster: true, Settings: map[string]string{"cluster-require-full-coverage": "no"}}), true)
	o := m.own()
	m.want("apply", o.apply(1, nil), guard.OK)
	m.set("here:1", "here:2")
	m.do("CLUSTER", "DELSLOTS", guard.Slot("moved"))
	reply := o.apply(2, nil, "here:1", "moved", "here:2")
	if !strings.HasPrefix(reply, "error") {
		t.Fatalf("got %s, want an error", reply)
	}
	if got := m.do("EXISTS", "here:1"); got != int64(1) {
		t.Error("a key was dropped by a batch that failed")
	}
	if got := m.do("HGET", scriptMark, "n"); got != "1" {
		t.Errorf("n is %v, want 1", got)
	}
	m.want("without it", o.apply(2, nil, "here:1", "here:2"), guard.OK)
}

// A losing client loses replies: Redis has run the commands, and the connection
// broke before the answers came.
type losing struct {
	mu    sync.Mutex
	keep  int // replies of the next pipeline that arrive
	armed bool
	// pipelines counts the round trips.
	pipelines int
}

func (l *losing) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (l *losing) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (l *losing) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, commands []redis.Cmder) error {
		err := next(ctx, commands)
		if commands[0].Name() != "evalsha" {
			return err // the driver greets Redis on a new connection
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.pipelines++
		if !l.armed {
			return err
		}
		l.armed = false
		for _, command := range commands[l.keep:] {
			command.SetErr(io.ErrUnexpectedEOF)
		}
		return io.ErrUnexpectedEOF
	}
}

func (l *losing) loseAllBut(keep int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.armed, l.keep = true, keep
}

func batchOf(end int64, keys ...string) *plan.Batch {
	b := plan.NewBatch()
	b.End, b.Settled = position(end), position(end)
	for _, key := range keys {
		b.Add([]byte(key), plan.Drop, 0, nil, 0)
	}
	return b
}

// sinkOn returns a sink that owns the stream.
func sinkOn(t *testing.T, m *master) *redissink.Sink {
	t.Helper()
	sink := redissink.New(m.client, redissink.Options{})
	if _, err := sink.Own(t.Context(), []string{scriptStream}); err != nil {
		t.Fatal(err)
	}
	return sink
}

func wantWritten(t *testing.T, sink *redissink.Sink, batches []*plan.Batch, want int, wantErr error) {
	t.Helper()
	n, err := sink.Write(t.Context(), batches)
	if n != want || !errors.Is(err, wantErr) || (wantErr == nil) != (err == nil) {
		t.Fatalf("wrote %d, %v, want %d, %v", n, err, want, wantErr)
	}
}

func TestSinkWritesAGroupInOneRoundTrip(t *testing.T) {
	t.Parallel()
	m := masterOn(t, startRedis(t, stack.RedisOptions{}), false)
	lost := &losing{}
	m.client.AddHook(lost)
	sink := sinkOn(t, m)
	var batches []*plan.Batch
	for i := range int64(16) {
		var keys []string
		for j := range 40 {
			keys = append(keys, fmt.Sprintf("k:%d:%d", i, j), fmt.Sprintf("{t}%d:%d", i, j))
		}
		m.set(keys...)
		m.set(m.side(keys[0]), m.side(keys[1]))
		batches = append(batches, batchOf(i+1, keys...))
	}
	m.set("other")
	lost.pipelines = 0
	wantWritten(t, sink, batches, 16, nil)
	if lost.pipelines != 1 {
		t.Errorf("%d round trips, want 1", lost.pipelines)
	}
	m.wantKeys("other", scriptMark)
	marks, err := redissink.New(m.client, redissink.Options{}).Own(t.Context(), []string{scriptStream})
	if err != nil || len(marks) != 1 || marks[0][0].Lo != position(16) || marks[0][0].Settled != position(16) {
		t.Errorf("got %+v, %v", marks, err)
	}
}

// Whatever of a round trip Redis has run and whatever of its answers arrived,
// the rest is given again and nothing is applied twice or taken for lost.
func TestSinkSurvivesLostReplies(t *testing.T) {
	t.Parallel()
	m := masterOn(t, startRedis(t, stack.RedisOptions{}), false)
	lost := &losing{}
	m.client.AddHook(lost)
	sink := sinkOn(t, m)
	end := int64(0)
	for keep := range 6 {
		var batches []*plan.Batch
		for range 5 {
			end++
			batches = append(batches, batchOf(end, "a"))
		}
		lost.loseAllBut(keep)
		want := io.ErrUnexpectedEOF
		if keep == 5 {
			want = nil
		}
		n, err := sink.Write(t.Context(), batches)
		if n != keep || !errors.Is(err, want) {
			t.Fatalf("with %d replies: wrote %d, %v", keep, n, err)
		}
		m.set("a") // loaded since: what was applied is not applied again
		wantWritten(t, sink, batches[n:], 5-n, nil)
		m.wantKeys("a", scriptMark)
		if err := sink.Probe(t.Context()); err != nil {
			t.Fatalf("with %d replies: %v", keep, err)
		}
	}
}

func TestSinkLoadsScriptsThatRedisForgot(t *testing.T) {
	t.Parallel()
	m := masterOn(t, startRedis(t, stack.RedisOptions{}), false)
	sink := sinkOn(t, m)
	wantWritten(t, sink, []*plan.Batch{batchOf(1, "a")}, 1, nil)
	m.set("a", "b")
	m.do("SCRIPT", "FLUSH")
	wantWritten(t, sink, []*plan.Batch{batchOf(2, "a"), batchOf(3, "b"), batchOf(4)}, 3, nil)
	m.wantKeys(scriptMark)
	if err := sink.Probe(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestSinkSeesWhatBecameOfItsWatermark(t *testing.T) {
	t.Parallel()
	server := startRedis(t, stack.RedisOptions{})
	for _, test := range []struct {
		name    string
		happens func(m *master)
		want    error
	}{
		{"nothing", func(m *master) {}, nil},
		{"another owner", func(m *master) { m.own() }, guard.ErrFenced},
		{"emptied", func(m *master) { m.do("FLUSHALL") }, guard.ErrLost},
		{"emptied, and another owner of the first epoch", func(m *master) { m.do("FLUSHALL"); m.own() }, guard.ErrLost},
		{"an older state", func(m *master) { m.do("HINCRBY", scriptMark, "n", -1) }, guard.ErrLost},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := masterOn(t, server, false)
			m.do("FLUSHALL")
			m.own()
			sink := sinkOn(t, m)
			wantWritten(t, sink, []*plan.Batch{batchOf(1), batchOf(2)}, 2, nil)
			test.happens(m)
			m.set("a")
			if err := sink.Probe(t.Context()); !errors.Is(err, test.want) {
				t.Errorf("Probe: got %v, want %v", err, test.want)
			}
			want := 0
			if test.want == nil {
				want = 1
			}
			wantWritten(t, sink, []*plan.Batch{batchOf(3, "a")}, want, test.want)
			if got := m.do("EXISTS", "a"); got != int64(1-want) {
				t.Errorf("EXISTS a: got %v", got)
			}
			// Who takes over again goes on.
			if _, err := sink.Own(t.Context(), []string{scriptStream}); err != nil {
				t.Fatal(err)
			}
			wantWritten(t, sink, []*plan.Batch{batchOf(3, "a")}, 1, nil)
		})
	}
}

func TestSinkRefusesAWatermarkOfANewerRelease(t *testing.T) {
	t.Parallel()
	m := masterOn(t, startRedis(t, stack.RedisOptions{}), false)
	m.own()
	m.do("HSET", scriptMark, "format", guard.Format+1)
	_, err := redissink.New(m.client, redissink.Options{}).Own(t.Context(), []string{scriptStream})
	if !change.IsRefusal(err) {
		t.Errorf("got %v, want a refusal", err)
	}
}

func templatesOf(t *testing.T, texts ...string) []plan.Keys {
	t.Helper()
	var templates []plan.Keys
	for _, text := range texts {
		template, err := guard.ParseTemplate(text)
		if err != nil {
			t.Fatal(err)
		}
		templates = append(templates, plan.Keys{Template: template})
	}
	return templates
}

// A sweep drops its templates' data keys and side keys, and nothing else.
func TestSweepDropsWhatMatches(t *testing.T) {
	t.Parallel()
	m := masterOn(t, startRedis(t, stack.RedisOptions{}), false)
	sink := sinkOn(t, m)
	goes := []string{
		"user:7", "user:", "user:a:b", "user:%7B", "{user:7}:l", "{user:new}:l",
		"{7}:cart", "{7}:l:{7}:cart", "{8}:l:{8}:cart",
		"{7}:l", // the data key of (7, l), though it looks like a side key
	}
	stays := []string{"user", "users:7", "user:\n", "user:{7}", "auser:7", "{auser:7}:l", "{user:7}:x", "{7}", "{7}:l:{8}:cart", "product:7", "{product:7}:l", "other"}
	m.set(goes...)
	m.set(stays...)
	m.do("HSET", "user:hash", "f", "v")
	scanned, dropped, err := sink.Sweep(t.Context(), templatesOf(t, "user:{id}", "{{{id}}}:{kind}"))
	if err != nil || dropped != len(goes)+1 || scanned == 0 {
		t.Errorf("scanned %d, dropped %d, %v, want %d dropped", scanned, dropped, err, len(goes)+1)
	}
	m.wantKeys(append(stays, scriptMark)...)
	if _, dropped, err := sink.Sweep(t.Context(), nil); err != nil || dropped != 0 {
		t.Errorf("a sweep of nothing dropped %d, %v", dropped, err)
	}
	wantWritten(t, sink, []*plan.Batch{batchOf(1)}, 1, nil)
}

// What is there from beginning to end is found, though readers fill meanwhile
// and the table of Redis grows under the cursor.
func TestSweepMissesNothingWhileOthersWrite(t *testing.T) {
	t.Parallel()
	m := masterOn(t, startRedis(t, stack.RedisOptions{}), false)
	sink := sinkOn(t, m)
	pipe := m.client.Pipeline()
	for i := range 20_000 {
		pipe.Set(t.Context(), fmt.Sprint("user:", i), "v", 0)
		pipe.Set(t.Context(), fmt.Sprint("product:", i), "v", 0)
	}
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	inserted := 0
	writers.Go(func() {
		for ; ctx.Err() == nil; inserted += 500 {
			pipe := m.client.Pipeline()
			for i := range 500 {
				pipe.Set(t.Context(), fmt.Sprint("new:", inserted+i), "v", 0)
			}
			if _, err := pipe.Exec(t.Context()); err != nil {
				t.Error(err)
				return
			}
		}
	})
	_, dropped, err := sink.Sweep(t.Context(), templatesOf(t, "user:{id}"))
	stop()
	writers.Wait()
	if err != nil || dropped != 20_000 {
		t.Errorf("dropped %d, %v, want 20000", dropped, err)
	}
	if inserted == 0 {
		t.Error("nothing was inserted meanwhile")
	}
	if got, want := m.client.DBSize(t.Context()).Val(), int64(20_000+inserted+1); got != want {
		t.Errorf("%d keys are left, want %d", got, want)
	}
}

// A sweep goes slowly enough for those who are served meanwhile, and stops when
// it is told to.
func TestSweepKeepsItsRate(t *testing.T) {
	t.Parallel()
	m := masterOn(t, startRedis(t, stack.RedisOptions{}), false)
	pipe := m.client.Pipeline()
	for i := range 5000 {
		pipe.Set(t.Context(), fmt.Sprint("user:", i), "v", 0)
	}
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	slow := redissink.New(m.client, redissink.Options{SweepRate: 10_000})
	began := time.Now()
	if _, _, err := slow.Sweep(t.Context(), templatesOf(t, "x:{id}")); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 300*time.Millisecond {
		t.Errorf("looked at 5000 keys in %s, want half a second", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := redissink.New(m.client, redissink.Options{SweepRate: 1}).Sweep(ctx, templatesOf(t, "x:{id}")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the deadline", err)
	}
}

// A sweep that a restart interrupted is void, and a restart shows.
func TestRunIDChangesWithARestart(t *testing.T) {
	t.Parallel()
	server := startRedis(t, stack.RedisOptions{})
	m := masterOn(t, server, false)
	sink := redissink.New(m.client, redissink.Options{})
	ask := func() string {
		id, err := sink.RunID(t.Context())
		if err != nil || id == "" {
			t.Fatalf("got %q, %v", id, err)
		}
		return id
	}
	before := ask()
	if again := ask(); again != before {
		t.Errorf("got %q and %q", before, again)
	}
	if err := server.Stop(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := sink.RunID(t.Context()); err == nil {
		t.Error("a stopped server answered")
	}
	if err := server.Start(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	if after := ask(); after == before {
		t.Errorf("got %q before and after a restart", after)
	}
}

// How long to wait before the source may forget depends on what Redis syncs. One
// that syncs nothing loses all that it has, however old: waiting gains nothing.
func TestDurabilityFollowsTheAppendOnlyFile(t *testing.T) {
	t.Parallel()
	m := masterOn(t, startRedis(t, stack.RedisOptions{}), false)
	sink := redissink.New(m.client, redissink.Options{})
	for _, test := range []struct {
		appendonly, appendfsync string
		want                    time.Duration
	}{
		{"no", "everysec", 0},
		{"yes", "everysec", 3 * time.Second},
		{"yes", "always", 0},
		{"no", "always", 0},
	} {
		m.do("CONFIG", "SET", "appendonly", test.appendonly)
		m.do("CONFIG", "SET", "appendfsync", test.appendfsync)
		if got, err := sink.DurableAfter(t.Context()); err != nil || got != test.want {
			t.Errorf("appendonly %s, appendfsync %s: got %s, %v, want %s", test.appendonly, test.appendfsync, got, err, test.want)
		}
	}
}
