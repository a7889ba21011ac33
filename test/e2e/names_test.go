package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
	"github.com/unstale/unstale/internal/redissink"
	"github.com/unstale/unstale/internal/stack"
)

// collect has the names of a key's slot be collected.
func (m *master) collect(key string) (names string) {
	m.t.Helper()
	names, ok := guard.Names(key)
	if !ok {
		m.t.Fatalf("%q has no names", key)
	}
	m.want("collect", m.script(guard.Collect, []string{names}, "\x00draft", guard.NamesTTL.Milliseconds()), "OK")
	return names
}

func (m *master) wantNames(names string, want ...string) {
	m.t.Helper()
	got := m.client.SMembers(m.t.Context(), names).Val()
	slices.Sort(got)
	if diff := cmp.Diff(append([]string{"\x00draft"}, want...), got); diff != "" {
		m.t.Errorf("names (-want +got):\n%s", diff)
	}
}

// Where names are collected, what is leased has its name there, from before the load on,
// until it is dropped by it.
func TestNames(t *testing.T) {
	onBothKinds(t, map[string]func(m *master){
		"nobody collects: no name": func(m *master) {
			m.want("begin", m.begin("a:1", "t", time.Second), "LEASE")
			m.want("fill", m.fill("a:1", "t", "v"), "STORED")
			m.wantKeys("a:1")
		},
		"a lease names its key": func(m *master) {
			names := m.collect("a:1")
			m.want("begin", m.begin("a:1", "t", time.Minute), "LEASE")
			m.wantNames(names, "a:1")
			if ttl := m.client.PTTL(t.Context(), names).Val(); ttl <= 0 || ttl > guard.NamesTTL {
				t.Errorf("the names stay for %s", ttl)
			}
		},
		"who gets no lease names nothing": func(m *master) {
			m.want("begin", m.begin("a:1", "t", time.Minute), "LEASE")
			names := m.collect("a:1")
			if got := m.begin("a:1", "u", time.Minute); !strings.HasPrefix(got, "WAIT") {
				t.Errorf("begin: %s", got)
			}
			m.want("a refused fill", m.fill("a:1", "u", "v"), "REFUSED")
			m.wantNames(names)
		},
		"too many names go": func(m *master) {
			names := m.collect("a:1")
			m.do("SADD", names, "a:{a:1}2")
			begin := func(max int) {
				t.Helper()
				m.want("begin", m.script(guard.Begin, guard.BeginKeys("a:1", m.side("a:1")), "t", 0, 1000, guard.String, max), "LEASE")
			}
			begin(3)
			m.wantNames(names, "a:1", "a:{a:1}2")
			begin(3)
			m.wantKeys(m.side("a:1"))
		},
		"a key without a prefix has none": func(m *master) {
			if _, ok := guard.Names("a"); ok {
				t.Error("it has")
			}
			m.want("begin", m.begin("a", "t", time.Minute), "LEASE")
			m.want("fill", m.fill("a", "t", "v"), "STORED")
			m.wantKeys("a")
		},
		"a drop takes key, lease and name": func(m *master) {
			names := m.collect("a:{x}1")
			m.begin("a:{x}1", "t", time.Minute)
			m.fill("a:{x}1", "t", "v")
			m.begin("a:{x}2", "t", time.Minute)
			m.begin("a:{x}3", "t", time.Minute)
			m.want("drop named", m.script(guard.DropNamed, []string{names, "a:{x}1", m.side("a:{x}1"), "a:{x}2", m.side("a:{x}2")}), "1")
			m.wantNames(names, "a:{x}3")
			m.wantKeys(names, m.side("a:{x}3"))
			m.want("a fill behind it", m.fill("a:{x}2", "t", "v"), "REFUSED")
		},
		"what a pass leaves is named where names are collected": func(m *master) {
			names, _ := guard.Names("a:1")
			m.want("name", m.script(guard.Name, []string{names}, "a:1"), "OK")
			m.wantKeys()
			m.collect("a:1")
			m.want("name", m.script(guard.Name, []string{names}, "a:1"), "OK")
			m.wantNames(names, "a:1")
		},
		"a seal takes the place of a draft that stands": func(m *master) {
			names := m.collect("a:1")
			m.want("seal", m.script(guard.Seal, []string{names}, "\x00other", "\x00seal"), "OK")
			m.wantNames(names)
			m.want("seal", m.script(guard.Seal, []string{names}, "\x00draft", "\x00seal"), "OK")
			if left := m.client.PTTL(t.Context(), names).Val(); left <= 0 {
				t.Errorf("it has lost its end: %s", left)
			}
			m.want("seal", m.script(guard.Seal, []string{names}, "\x00seal", "\x00seal"), "OK") // a retry
			if got := m.client.SMembers(t.Context(), names).Val(); !slices.Equal(got, []string{"\x00seal"}) {
				t.Errorf("%q", got)
			}
			m.do("DEL", names)
			m.want("seal", m.script(guard.Seal, []string{names}, "\x00draft", "\x00seal"), "OK")
			m.wantKeys()
		},
	})
}

// foreign fills a Redis with other keys: of few it is no use to have names.
func (m *master) foreign(n int) {
	m.t.Helper()
	pipe := m.client.Pipeline()
	for i := range n {
		pipe.Set(m.t.Context(), fmt.Sprint("foreign:", i), "v", 0)
	}
	if _, err := pipe.Exec(m.t.Context()); err != nil {
		m.t.Fatal(err)
	}
}

// complete makes the names of templates complete, as a sweep does, and returns what was
// swept meanwhile.
func complete(t *testing.T, sink *redissink.Sink, keys []plan.Keys) (dropped int) {
	t.Helper()
	check(t, sink.Collect(t.Context(), keys, "1"))
	for range 2 {
		_, n, err := sink.Sweep(t.Context(), keys)
		check(t, err)
		dropped += n
	}
	check(t, sink.Collected(t.Context(), keys, "2"))
	check(t, sink.Seal(t.Context(), keys))
	return dropped
}

func wantSwept(t *testing.T, sink *redissink.Sink, keys []plan.Keys, wantScanned, wantDropped int) {
	t.Helper()
	left, scanned, dropped, err := sink.SweepNamed(t.Context(), keys)
	if err != nil || len(left) > 0 || scanned != wantScanned || dropped != wantDropped {
		t.Errorf("%d are left, looked at %d names, dropped %d, %v; want none, %d, %d", len(left), scanned, dropped, err, wantScanned, wantDropped)
	}
}

func wantLeft(t *testing.T, what string, sink *redissink.Sink, keys []plan.Keys) {
	t.Helper()
	left, _, _, err := sink.SweepNamed(t.Context(), keys)
	if err != nil || len(left) != len(keys) {
		t.Errorf("%s: %d are left, %v, want %d", what, len(left), err, len(keys))
	}
	for _, k := range left {
		if k.Draft != "" {
			t.Errorf("%s: the draft of a sweep before: %q", what, k.Draft)
		}
	}
}

// partOf is a part of a template.
func partOf(t *testing.T, text, part string) []plan.Keys {
	t.Helper()
	keys := templatesOf(t, text)
	keys[0].Part = templatesOf(t, part)[0].Template
	return keys
}

// A sweep by names drops what a sweep of the keyspace would, and looks at nothing else.
func TestASweepByNames(t *testing.T) {
	t.Parallel()
	m := masterOn(t, startRedis(t, stack.RedisOptions{}), false)
	m.foreign(20_000)
	sink := redissink.New(m.client, redissink.Options{}) // whose scripts Redis does not know yet
	all := func() []plan.Keys { return templatesOf(t, "can:{user}:{right}") }
	cache := func(users int) {
		for i := range users {
			for _, key := range []string{fmt.Sprintf("can:%d:read", i), fmt.Sprintf("can:%d:%%3A", i), fmt.Sprintf("can:%d:a:b", i)} {
				m.begin(key, "t", time.Minute)
				m.fill(key, "t", "v")
			}
		}
		m.begin("can:leased:x", "t", time.Minute)
	}
	wantLeft(t, "there are no names", sink, all())
	cache(100)
	if dropped := complete(t, sink, all()); dropped != 201 {
		t.Errorf("%d were dropped meanwhile, want 201", dropped)
	}
	wantSwept(t, sink, all(), 0, 0)
	cache(100)
	m.want("a reader begins", m.begin("can:7:b", "t", time.Minute), "LEASE")
	m.want("a reader of another entry", m.begin("can:7:a:c", "t", time.Minute), "LEASE")
	wantSwept(t, sink, partOf(t, "can:{user}:{right}", "can:7:{right}"), 203, 2)
	m.want("a reader that has begun before", m.fill("can:7:b", "t", "v"), "REFUSED")
	if n := m.client.Exists(t.Context(), "can:7:a:b", "can:8:read", "can:70:read").Val(); n != 3 {
		t.Errorf("%d of 3 keys that are of other users, or of nobody's template, are left", n)
	}
	wantSwept(t, sink, all(), 200, 198)
	wantSwept(t, sink, all(), 1, 0) // what is no key of the template stays

	// Another entry with the same prefix has a seal of its own.
	wantLeft(t, "names that are complete for another entry", sink, templatesOf(t, "can:{a}:{b}:{c}"))
	wantLeft(t, "a template whose keys have no prefix", sink, templatesOf(t, "{a}:{b}"))
	shielded := all()
	shielded[0].Shielded = true
	wantLeft(t, "shields are to stay", sink, shielded)

	slot := guard.NamesKey(guard.Slot("can:7:read"), "can")
	for _, lose := range []struct {
		name string
		does func()
	}{
		{"the names of one slot are gone", func() { m.do("DEL", slot) }},
		{"and collected anew", func() { m.script(guard.Collect, []string{slot}, "\x00x", 1000) }},
		{"all are gone", func() { m.do("FLUSHALL") }},
	} {
		lose.does()
		wantLeft(t, lose.name, sink, all())
	}
	if check(t, sink.Collect(t.Context(), all(), "1")); m.client.DBSize(t.Context()).Val() != 0 {
		t.Error("names of few keys are collected")
	}
}

// A sweep of a part leaves keys that were cached before names were collected: they get
// theirs by its passes, or what sweeps the next part would not find them.
func TestAPassNamesWhatItLeaves(t *testing.T) {
	t.Parallel()
	m := masterOn(t, startRedis(t, stack.RedisOptions{}), false)
	m.foreign(20_000)
	sink := sinkOn(t, m)
	const users = 3000
	for i := range users {
		key := fmt.Sprintf("can:%d:read", i)
		m.begin(key, "t", time.Minute)
		if i%2 == 0 {
			m.fill(key, "t", "v")
		}
	}
	if dropped := complete(t, sink, partOf(t, "can:{user}:{right}", "can:7:{right}")); dropped != 1 {
		t.Errorf("%d were dropped, want 1", dropped)
	}
	m.want("a lease from before", m.fill("can:9:read", "t", "v"), "STORED")
	wantSwept(t, sink, partOf(t, "can:{user}:{right}", "can:9:{right}"), users-1, 1)
	wantSwept(t, sink, templatesOf(t, "can:{user}:{right}"), users-2, users/2)
	m.want("a lease from before", m.fill("can:11:read", "t", "v"), "REFUSED")
}

// A set with many names comes in several pages; those that one script drops are few.
func TestASweepOfManyNamesOfOneSlot(t *testing.T) {
	t.Parallel()
	m := masterOn(t, startRedis(t, stack.RedisOptions{}), false)
	m.foreign(20_000)
	sink := sinkOn(t, m)
	all := func() []plan.Keys { return templatesOf(t, "can:{{x}}:{user}") }
	complete(t, sink, all())
	const keys = 5000
	for i := range keys {
		key := fmt.Sprint("can:{x}:", i)
		m.begin(key, "t", time.Minute)
		m.fill(key, "t", "v")
	}
	wantSwept(t, sink, all(), keys, keys)
	wantSwept(t, sink, all(), 0, 0)

	slow := redissink.New(m.client, redissink.Options{SweepRate: 1})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, _, err := slow.SweepNamed(ctx, all()); err == nil {
		t.Error("a sweep does not keep its rate")
	}
}

const right = "SELECT coalesce((SELECT 't' FROM grants g JOIN roles r ON r.id = g.role WHERE g.person = $1 AND r.rights LIKE '%' || $2 || '%' LIMIT 1), 'f')"

// An entry of which some changes sweep costs, from the second on, what is cached of it;
// and nothing stale stays.
func TestAnEntryIsSweptByTheNamesOfItsKeys(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 15)
	f.exec("CREATE TABLE grants (id int PRIMARY KEY, person int NOT NULL, role int NOT NULL)")
	f.exec("CREATE TABLE roles (id int PRIMARY KEY, rights text NOT NULL)")
	f.exec("ALTER TABLE grants REPLICA IDENTITY FULL")
	f.exec("ALTER TABLE roles REPLICA IDENTITY FULL")
	f.exec("INSERT INTO roles SELECT i, 'read' FROM generate_series(1, 50) i")
	f.exec("INSERT INTO grants SELECT i, i, i FROM generate_series(1, 50) i")
	m := masterOn(t, f.redis, false)
	m.foreign(20_000)
	i := startInstance(t, f.config(`  can:
    key: can:{person}:{right}
    query: |
      SELECT EXISTS (SELECT 1 FROM grants g JOIN roles r ON r.id = g.role WHERE g.person = @person AND r.rights LIKE '%' || @right::text || '%')
    allow_sweep: true
`))
	i.waitReady()
	scanned := func() int { return int(i.metric("unstale_sweep_scanned_keys_total")) }
	load := func() {
		for person := 1; person <= 50; person++ {
			for _, which := range []string{"read", "write"} {
				f.fetch(fmt.Sprintf("can:%d:%s", person, which), right, person, which)
			}
		}
	}
	cached := func() (n int) {
		for person := 1; person <= 50; person++ {
			for _, which := range []string{"read", "write"} {
				if f.cached(fmt.Sprintf("can:%d:%s", person, which)) {
					n++
				}
			}
		}
		return n
	}
	want := func(what string, wantCached int, looked func(int) bool, sql string) {
		t.Helper()
		load()
		before := scanned()
		f.exec(sql)
		f.barrier()
		if got := scanned() - before; !looked(got) {
			t.Errorf("%s: it looked at %d keys", what, got)
		}
		if got := cached(); got != wantCached {
			t.Errorf("%s: %d keys are cached, want %d", what, got, wantCached)
		}
	}
	all, few := func(n int) bool { return n > 40_000 }, func(n int) bool { return n <= 200 }
	want("the first sweep", 98, all, "UPDATE grants SET role = 2 WHERE person = 7")
	want("the second", 98, few, "UPDATE grants SET role = 7 WHERE person = 7")
	want("a role, which tells nobody", 0, few, "UPDATE roles SET rights = 'read write' WHERE id = 3")
	if value, _ := f.fetch("can:3:write", right, 3, "write"); value != "t" {
		t.Errorf("what a person may do: %s", value)
	}
	names := guard.NamesKey(guard.Slot("can:3:write"), "can")
	if n := f.rdb.Del(t.Context(), names).Val(); n != 1 {
		t.Fatal("there are no names")
	}
	want("without the names of one slot", 98, all, "UPDATE grants SET role = 2 WHERE person = 7")
	want("and again with them", 98, few, "UPDATE grants SET role = 7 WHERE person = 7")
	// Not TRUNCATE: the catalog shows it some seconds later, once more.
	f.exec("DELETE FROM grants")
	f.barrier()

	// A reader that has loaded before the change fills behind the sweep.
	f.exec("INSERT INTO grants VALUES (60, 60, 3)")
	f.barrier()
	_, err := f.client.Fetch(t.Context(), "can:60:write", func(ctx context.Context) ([]byte, error) {
		before := scanned()
		f.exec("UPDATE roles SET rights = 'nothing' WHERE id = 3")
		f.barrier()
		if got := scanned() - before; !few(got) {
			t.Errorf("it looked at %d keys", got)
		}
		return []byte("t"), nil
	})
	check(t, err)
	if f.cached("can:60:write") {
		t.Error("a reader that has loaded before the change has filled behind the sweep")
	}

	// Who takes over goes by the names that are there.
	i.stop()
	i.start()
	i.waitReady()
	want("a new owner", 0, few, "UPDATE roles SET rights = 'write' WHERE id = 4")
	i.stop()
}
