package e2e

import (
	"context"
	bigendian "encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
	"github.com/unstale/unstale/internal/redissink"
	"github.com/unstale/unstale/internal/stack"
)

// shielded fills a key of an entry that SETs, by a load that has seen the log up
// to lsn.
func (m *master) shielded(key, token string, lsn uint64, format string, values ...any) string {
	m.t.Helper()
	h := string(bigendian.BigEndian.AppendUint64(nil, lsn))
	arguments := append([]any{token, h, guard.Shield.Milliseconds(), time.Minute.Milliseconds(), format}, values...)
	return m.script(guard.Fill, []string{key, m.side(key)}, arguments...)
}

func (m *master) invalidate(key, h string) string {
	m.t.Helper()
	return m.script(guard.Invalidate, []string{key, m.side(key)}, h, guard.Shield.Milliseconds())
}

// h is the shield of a key and how long it stands; zero without one.
func (m *master) h(key string) (lsn uint64, left time.Duration) {
	m.t.Helper()
	side, err := m.client.Get(m.t.Context(), m.side(key)).Result()
	if err == redis.Nil {
		return 0, 0
	}
	if err != nil || len(side) < 9 {
		m.t.Fatalf("side key of %s: %q, %v", key, side, err)
	}
	return bigendian.BigEndian.Uint64([]byte(side[1:9])), m.client.PTTL(m.t.Context(), m.side(key)).Val()
}

func (m *master) wantShield(key string, want uint64) {
	m.t.Helper()
	lsn, left := m.h(key)
	if lsn != want || want > 0 && (left <= 0 || left > guard.Shield) {
		m.t.Errorf("shield of %s: got %d for %s, want %d", key, lsn, left, want)
	}
}

func (m *master) get(key string) string {
	m.t.Helper()
	text, err := m.client.Get(m.t.Context(), key).Result()
	if err != nil && err != redis.Nil {
		m.t.Fatal(err)
	}
	return text
}

// What a change writes, and when it writes nothing.
func TestApplyValues(t *testing.T) {
	onBothKinds(t, map[string]func(m *master){
		"a change sets its key, with a time to live and without a side key": func(m *master) {
			o := m.own()
			m.want("keep", o.keep(1, keptBatch{sets: []keptSet{{key: "a", order: 7, fields: []string{"{1}"}}}}), guard.OK)
			m.want("value", m.get("a"), "{1}")
			if left := m.client.PTTL(m.t.Context(), "a").Val(); left <= 0 || left > time.Minute {
				m.t.Errorf("a lives for %s", left)
			}
			m.wantKeys("a", scriptMark)
		},
		"a hash holds the fields of the last change and no others": func(m *master) {
			o := m.own()
			m.want("keep", o.keep(1, keptBatch{hashes: []keptSet{{key: "h", order: 7, fields: []string{"a", "1", "b", ""}}}}), guard.OK)
			m.want("keep", o.keep(2, keptBatch{hashes: []keptSet{{key: "h", order: 8, fields: []string{"b", "2"}}}}), guard.OK)
			if got := m.client.HGetAll(m.t.Context(), "h").Val(); fmt.Sprint(got) != "map[b:2]" {
				m.t.Errorf("got %v", got)
			}
			if left := m.client.PTTL(m.t.Context(), "h").Val(); left <= 0 {
				m.t.Error("h lives for ever")
			}
		},
		"whatever is cached only if it is": func(m *master) {
			o := m.own()
			m.set("s", "h")
			m.want("keep", o.keep(1, keptBatch{
				sets:   []keptSet{{key: "s", order: 7, fields: []string{"{1}"}, cached: true}, {key: "t", order: 7, fields: []string{"{1}"}, cached: true}},
				hashes: []keptSet{{key: "h", order: 7, fields: []string{"a", "1"}, cached: true}, {key: "i", order: 7, fields: []string{"a", "1"}, cached: true}},
			}), guard.OK)
			m.want("s", m.get("s"), "{1}")
			m.want("h", fmt.Sprint(m.client.HGetAll(m.t.Context(), "h").Val()), "map[a:1]")
			m.wantKeys("s", "h", scriptMark)
		},
		// What was cached and is dropped in place of being set is to be loaded again;
		// the reply names it by a negative number.
		"a drop tells whether its key was cached": func(m *master) {
			o := m.own()
			m.set("a", "b", "s1", "f")
			m.do("HSET", "h1", "f", "v")
			m.want("begin", m.begin("c", "t", time.Second), "LEASE")
			sets := func(keys ...string) (sets []keptSet) {
				for _, key := range keys {
					sets = append(sets, keptSet{key: key, order: 7, fields: []string{"f", "v"}, cached: true})
				}
				return sets
			}
			m.want("late", o.keep(1, keptBatch{
				until: 1, forgets: []string{"f"}, reloads: []string{"a", "c", "b"}, sets: sets("s1", "s2"), hashes: sets("h1", "h2"),
			}), "OK -5 -7 -1 2 -3 4")
			m.want("fill", m.fill("c", "t", "old"), guard.Refused)
			m.wantKeys(scriptMark)
			m.set("a")
			m.want("in time", o.keep(2, keptBatch{reloads: []string{"a", "b"}, sets: sets("s1")}), "OK -2")
			m.want("again", o.keep(2, keptBatch{reloads: []string{"a", "b"}, sets: sets("s1")}), guard.Done)
			m.wantKeys(scriptMark)
		},
		// The load may have seen a commit that the stream brings only later: until
		// then nothing older may come back.
		"a shield holds off what is not newer": func(m *master) {
			o := m.own()
			for n, test := range []struct {
				order uint64
				reply string
				value string
			}{
				{1 << 40, "OK -1", ""},
				{1<<40 + 1<<32, "OK -1", ""},
				{1<<41 - 1, "OK -1", ""},
				{1 << 41, "OK -1", ""}, // it may be the one that was seen
				{1<<41 + 1, "OK", "new"},
				{1<<41 + 1<<32, "OK", "new"},
			} {
				m.do("DEL", "a", m.side("a"))
				m.want("begin", m.begin("a", "t", time.Second), "LEASE")
				m.want("fill", m.shielded("a", "t", 1<<41, guard.String, "loaded"), guard.Stored)
				m.want("keep", o.keep(int64(n+1), keptBatch{sets: []keptSet{{key: "a", order: test.order, fields: []string{"new"}}}}), test.reply)
				m.want(fmt.Sprintf("value after order %x", test.order), m.get("a"), test.value)
				m.wantShield("a", 1<<41)
			}
		},
		"a change ends the lease, whether it sets or forgets": func(m *master) {
			o := m.own()
			for i, s := range []keptBatch{
				{sets: []keptSet{{key: "a", order: 9, fields: []string{"new"}}}},
				{hashes: []keptSet{{key: "a", order: 9, fields: []string{"f", "new"}}}},
				{forgets: []string{"a"}},
				{sets: []keptSet{{key: "a", order: 1, fields: []string{"new"}, cached: true}}},
			} {
				m.do("DEL", "a")
				m.want("begin", m.begin("a", "t", time.Second), "LEASE")
				m.want("keep", o.keep(int64(i+1), s), guard.OK)
				m.want("fill", m.shielded("a", "t", 5, guard.String, "old"), guard.Refused)
				m.wantShield("a", 0)
			}
		},
		"a forgotten key keeps its shield, and a later lease carries it": func(m *master) {
			o := m.own()
			m.want("begin", m.begin("a", "t", time.Second), "LEASE")
			m.want("fill", m.shielded("a", "t", 50, guard.String, "v"), guard.Stored)
			m.want("keep", o.keep(1, keptBatch{forgets: []string{"a"}}), guard.OK)
			m.want("value", m.get("a"), "")
			m.wantShield("a", 50)
			m.want("begin", m.begin("a", "t2", time.Second), "LEASE")
			m.want("keep", o.keep(2, keptBatch{sets: []keptSet{{key: "a", order: 50, fields: []string{"old"}}}}), "OK 1")
			m.wantShield("a", 50)
			m.want("begin", m.begin("a", "t3", time.Second), "LEASE")
			m.want("release", m.script(guard.Release, []string{m.side("a")}, "t3"), guard.OK)
			m.wantShield("a", 50)
			m.want("begin", m.begin("a", "t4", time.Second), "LEASE")
			m.want("a load that saw more", m.shielded("a", "t4", 60, guard.String, "v"), guard.Stored)
			m.wantShield("a", 60)
			m.do("DEL", "a")
			m.want("begin", m.begin("a", "t5", time.Second), "LEASE")
			m.want("a fill behind the stream", m.fill("a", "t5", "v"), guard.Stored)
			m.wantShield("a", 60)
		},
		"a batch that was held up sets nothing": func(m *master) {
			o := m.own()
			m.set("a", "h", "b")
			now := m.client.Time(m.t.Context()).Val().UnixMilli()
			s := keptBatch{until: now - 1, sets: []keptSet{{key: "a", order: 7, fields: []string{"x"}}}, hashes: []keptSet{{key: "h", order: 7, fields: []string{"f", "x"}}}}
			m.want("keep", o.keep(1, s), "OK -1 -2")
			m.wantKeys("b", scriptMark)
		},
		"a batch that is sent again sets nothing twice": func(m *master) {
			o := m.own()
			s := keptBatch{sets: []keptSet{{key: "a", order: 7, fields: []string{"x"}}}}
			m.want("keep", o.keep(1, s), guard.OK)
			m.do("DEL", "a")
			m.want("again", o.keep(1, s), guard.Done)
			m.want("value", m.get("a"), "")
		},
		"a reader of a hash": func(m *master) {
			begin := func(token string) string {
				return m.script(guard.Begin, []string{"h", m.side("h")}, token, 1000, guard.Shield.Milliseconds(), guard.Hash, guard.NamesMax)
			}
			m.want("begin", begin("t"), "LEASE")
			m.want("fill", m.shielded("h", "t", 5, guard.Hash, "a", "1", "b", "2"), guard.Stored)
			m.want("hit", begin("t2"), "HIT [a 1 b 2]")
			m.wantShield("h", 5)
		},
		"a writer drops its own key and shields it": func(m *master) {
			o := m.own()
			m.set("a")
			m.want("begin", m.begin("b", "t", time.Second), "LEASE")
			for _, key := range []string{"a", "b"} {
				m.want("invalidate", m.invalidate(key, "\x00\x00\x00\x00\x00\x00\x00\x09"), guard.OK)
				m.wantShield(key, 9)
			}
			m.want("fill", m.shielded("b", "t", 5, guard.String, "old"), guard.Refused)
			m.want("keep", o.keep(1, keptBatch{sets: []keptSet{{key: "a", order: 9, fields: []string{"v"}}}}), "OK 1")
			m.want("invalidate", m.invalidate("a", ""), guard.OK)
			m.wantShield("a", 9)
			m.wantKeys(m.side("a"), m.side("b"), scriptMark)
		},
		"a full Redis refuses values and takes the same batch as drops": func(m *master) {
			o := m.own()
			m.set("a")
			m.want("begin", m.begin("b", "t", time.Minute), "LEASE")
			m.want("begin", m.begin("c", "t", time.Minute), "LEASE")
			m.do("CONFIG", "SET", "maxmemory", "1")
			if reply := o.keep(1, keptBatch{sets: []keptSet{{key: "a", order: 7, fields: []string{"x"}}}}); !strings.Contains(reply, "OOM") {
				m.t.Errorf("got %q", reply)
			}
			m.want("value", m.get("a"), "cached")
			m.want("as a drop", o.apply(1, nil, "a"), guard.OK)
			m.want("fill", m.shielded("c", "t", 5, guard.String, "v"), guard.Full)
			m.want("fill of a hash", m.shielded("b", "t", 5, guard.Hash, "f", "v"), guard.Full)
			m.do("CONFIG", "SET", "maxmemory", "0")
			m.wantKeys(scriptMark)
		},
	})
}

// keptEntries are a string and a hash.
var keptEntries = []plan.Entry{
	{Name: "s", OnChange: plan.Warm, TTL: time.Minute},
	{Name: "h", OnChange: plan.Update, TTL: time.Minute, Hash: true},
}

// keepingSink returns a sink that owns the stream.
func keepingSink(t *testing.T, m *master) *redissink.Sink {
	t.Helper()
	sink := redissink.New(m.client, redissink.Options{Entries: keptEntries})
	if _, err := sink.Own(t.Context(), []string{scriptStream}); err != nil {
		t.Fatal(err)
	}
	return sink
}

func keeping(end int64, until time.Time, keys ...string) *plan.Batch {
	b := plan.NewBatch()
	b.End, b.Settled, b.Until = position(end), position(end), until
	for _, key := range keys {
		if strings.HasPrefix(key, "h") {
			b.Add([]byte(key), plan.Set, 1, []byte("\x01f\x02xy"), uint64(end))
		} else {
			b.Add([]byte(key), plan.Set, 0, fmt.Appendf(nil, "{%d}", end), uint64(end))
		}
	}
	return b
}

// The batch must know what Redis did not set: the service loads those keys.
func TestSinkTellsWhatWasNotSet(t *testing.T) {
	t.Parallel()
	m := masterOn(t, startRedis(t, stack.RedisOptions{}), false)
	sink := keepingSink(t, m)
	soon := func() time.Time { return time.Now().Add(time.Minute) }

	first := keeping(100, soon(), "a", "h1", "b", "h2")
	wantWritten(t, sink, []*plan.Batch{first}, 1, nil)
	m.want("a", m.get("a"), "{100}")
	m.want("h1", fmt.Sprint(m.client.HGetAll(t.Context(), "h1").Val()), "map[f:xy]")
	if first.Sets() != 4 || first.Doubted() != 0 {
		t.Errorf("%d set and %d doubted, want 4 and 0", first.Sets(), first.Doubted())
	}

	// A reader of b and one of h2 have seen more than the stream has brought.
	for _, key := range []string{"b", "h2"} {
		m.do("DEL", key)
		format, values := guard.String, []any{"new"}
		if key == "h2" {
			format, values = guard.Hash, []any{"f", "new"}
		}
		m.want("begin", m.script(guard.Begin, []string{key, m.side(key)}, "t", 1000, guard.Shield.Milliseconds(), format, guard.NamesMax), "LEASE")
		m.want("fill", m.shielded(key, "t", 1000, format, values...), guard.Stored)
	}
	second := keeping(200, soon(), "a", "h1", "b", "h2")
	wantWritten(t, sink, []*plan.Batch{second}, 1, nil)
	var refused []string
	for i := range second.Len() {
		if second.Effect(i) == plan.Forget {
			refused = append(refused, string(second.Key(i)))
		}
	}
	if got := strings.Join(refused, " "); got != "b h2" {
		t.Errorf("refused %q, want b and h2", got)
	}

	late := keeping(300, time.Now().Add(-time.Second), "a", "h1")
	wantWritten(t, sink, []*plan.Batch{late}, 1, nil)
	if late.Doubted() != 2 {
		t.Errorf("%d of 2 sets were too late", late.Doubted())
	}
	m.wantKeys(m.side("b"), m.side("h2"), scriptMark)
}

// And which of the keys that it has dropped were cached: of an update entry the
// service loads those, and no other.
func TestSinkTellsWhatWasCached(t *testing.T) {
	t.Parallel()
	m := masterOn(t, startRedis(t, stack.RedisOptions{}), false)
	sink := keepingSink(t, m)
	m.set("a", "set")
	b := keeping(100, time.Now().Add(time.Minute), "set")
	for _, key := range []string{"a", "b", "a}b"} {
		b.Add([]byte(key), plan.Reload, 0, nil, 0)
	}
	wantWritten(t, sink, []*plan.Batch{b}, 1, nil)
	var got []plan.Effect
	for i := range b.Len() {
		got = append(got, b.Effect(i))
	}
	if diff := cmp.Diff([]plan.Effect{plan.Set, plan.Forget, plan.Reload, plan.Reload}, got); diff != "" {
		t.Errorf("effects behind the batch (-want +got):\n%s", diff)
	}
	m.wantKeys("set", scriptMark)
}

// A full Redis takes the drops of a batch whose values it refuses, and those of
// the batches behind it.
func TestSinkDropsWhatAFullRedisRefuses(t *testing.T) {
	t.Parallel()
	m := masterOn(t, startRedis(t, stack.RedisOptions{}), false)
	sink := keepingSink(t, m)
	m.set("a", "b", "c")
	m.do("CONFIG", "SET", "maxmemory", "1")
	drops := batchOf(1, "c")
	pressed, behind := keeping(2, time.Now().Add(time.Minute), "a"), keeping(3, time.Now().Add(time.Minute), "b")
	wantWritten(t, sink, []*plan.Batch{drops, pressed, behind}, 3, nil)
	m.wantKeys(scriptMark)
	if drops.Pressed || !pressed.Pressed || !behind.Pressed {
		t.Errorf("pressed: %v, %v, %v", drops.Pressed, pressed.Pressed, behind.Pressed)
	}
}

// Where the replies were lost nobody knows what was set.
func TestSinkDoubtsWhatItDidNotHear(t *testing.T) {
	t.Parallel()
	m := masterOn(t, startRedis(t, stack.RedisOptions{}), false)
	lost := &losing{}
	m.client.AddHook(lost)
	sink := keepingSink(t, m)
	b := keeping(1, time.Now().Add(time.Minute), "a")
	lost.loseAllBut(0)
	if n, err := sink.Write(t.Context(), []*plan.Batch{b}); n != 0 || err == nil {
		t.Fatalf("wrote %d, %v", n, err)
	}
	wantWritten(t, sink, []*plan.Batch{b}, 1, nil)
	m.want("a", m.get("a"), "{1}")
	if b.Doubted() != 1 {
		t.Error("the batch is sure of what it has not heard")
	}
}

// A sweep leaves the shields: an older change must not set what it has dropped.
func TestSweepKeepsShields(t *testing.T) {
	t.Parallel()
	m := masterOn(t, startRedis(t, stack.RedisOptions{}), false)
	sink := keepingSink(t, m)
	m.want("begin", m.begin("a:1", "t", time.Second), "LEASE")
	m.want("fill", m.shielded("a:1", "t", 50, guard.String, "v"), guard.Stored)
	m.want("begin", m.begin("a:2", "t", time.Minute), "LEASE")
	m.set("a:3")
	m.do("SCRIPT", "FLUSH")
	// Its key column has got another name: the old template is nobody's any more.
	keys := templatesOf(t, "a:{former}", "a:{id}")
	keys[1].Shielded = true
	if _, _, err := sink.Sweep(t.Context(), keys); err != nil {
		t.Fatal(err)
	}
	m.wantShield("a:1", 50)
	m.want("fill", m.fill("a:2", "t", "v"), guard.Refused)
	m.wantKeys(m.side("a:1"), scriptMark)
}

// breaking breaks the connection under one command.
type breaking struct {
	command string
	err     error
}

func (b breaking) DialHook(next redis.DialHook) redis.DialHook { return next }

func (b breaking) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (b breaking) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == b.command {
			cmd.SetErr(b.err)
			return b.err
		}
		return next(ctx, cmd)
	}
}

// A connection that breaks while Redis is looked at is an outage: nobody has to
// mend anything, and a service that starts just then must not give up.
func TestAnOutageIsNoProblemOfRedis(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"info", "script", "eval", "evalsha", "time", "scan", "dbsize", "unlink"} {
		m := masterOn(t, sharedRedis(t), false)
		m.client.AddHook(breaking{command, io.ErrUnexpectedEOF})
		if problems, err := redissink.Diagnose(t.Context(), m.client); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: got %v, %v", command, problems, err)
		}
	}
}

// A user may be let name some keys only. Those of an entry that are not among them are
// found before the first change that drops one.
func TestKeysThatAreOutOfReachAreNamed(t *testing.T) {
	t.Parallel()
	server := startRedis(t, stack.RedisOptions{})
	m := masterOn(t, server, false)
	m.do("ACL", "SETUSER", "few", "on", "nopass", "~unstale:*", "~product:*", "%R~read:*", "%W~write:*", "%W~kept:*", "+@all")
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), Username: "few", Password: "x", MaxRetries: -1, DisableIdentity: true})
	defer client.Close()
	var keys []redissink.Keys
	for _, text := range []string{"product:{id}", "product_page:{id}", "read:{a}:{b}", "write:{id}", "kept:{id}", "odd*[:{id}", "all", "{tenant}:of"} {
		template, err := guard.ParseTemplate(text)
		check(t, err)
		keys = append(keys, redissink.Keys{Template: template, Kept: text == "kept:{id}"})
	}
	problems, err := redissink.Diagnose(t.Context(), client, keys...)
	check(t, err)
	var mends []string
	for _, p := range problems {
		mends = append(mends, p.Mend)
		var command []any
		for _, word := range strings.Fields(p.Mend) {
			command = append(command, word)
		}
		m.do(command...)
	}
	want := []string{
		"ACL SETUSER few ~product_page:*", "ACL SETUSER few ~read:*", "ACL SETUSER few ~kept:*", `ACL SETUSER few ~odd\*\[:*`, "ACL SETUSER few ~all",
		"ACL SETUSER few ~{*}:l*",
	}
	if !slices.Equal(mends, want) {
		t.Errorf("mends %q, want %q", mends, want)
	}
	if problems, err := redissink.Diagnose(t.Context(), client, keys...); err != nil || len(problems) > 0 {
		t.Errorf("mended: %v, %v", problems, err)
	}
}

// Redis asks for the right to each command that a script runs, when it comes to
// it. A user who lacks one would get as far as the first batch that needs it, so
// each is asked for before, and the statement that mends it is the whole of it.
func TestEachRightThatIsMissingIsNamed(t *testing.T) {
	t.Parallel()
	server := startRedis(t, stack.RedisOptions{})
	m := masterOn(t, server, false)
	commands := []string{"scan", "dbsize", "script|load", "eval", "evalsha"}
	for _, command := range guard.Commands("key") {
		commands = append(commands, strings.ToLower(command[0]))
	}
	for i, command := range commands {
		user := fmt.Sprint("user", i)
		m.do("ACL", "SETUSER", user, "on", "nopass", "~*", "+@all", "-"+command)
		client := redis.NewClient(&redis.Options{Addr: server.Addr(), Username: user, Password: "x", MaxRetries: -1, DisableIdentity: true})
		problems, err := redissink.Diagnose(t.Context(), client)
		if err != nil || len(problems) == 0 || !strings.Contains(problems[0].Text, command) {
			t.Errorf("%s: %v, %v", command, problems, err)
			continue
		}
		var mend []any
		for _, word := range strings.Fields(problems[0].Mend) {
			mend = append(mend, word)
		}
		m.do(mend...)
		if problems, err := redissink.Diagnose(t.Context(), client); err != nil || len(problems) > 0 {
			t.Errorf("%s, mended: %v, %v", command, problems, err)
		}
		_ = client.Close() // it holds nothing
	}
}
