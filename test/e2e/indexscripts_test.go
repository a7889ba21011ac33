package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
	"github.com/unstale/unstale/internal/redissink"
	"github.com/unstale/unstale/internal/stack"
)

// indexSet is a set of an index of the stream of these tests.
func indexSet(name string) string { return guard.IndexPrefix(0, scriptStream, "an index") + name }

// edits are what a batch does to sets: set and member by turns; voids are sets.
type edits struct{ removes, adds, voids []string }

func (o *owner) edit(n int64, e edits) string {
	o.m.t.Helper()
	header := guard.ApplyHeader{
		Owner: o.id, Epoch: o.epoch, N: n, Lo: position(n), Settled: position(n), Cluster: o.m.cluster,
		Removes: len(e.removes) / 2, Adds: len(e.adds) / 2, Voids: len(e.voids), Drops: 1,
	}
	var arguments []any
	for _, text := range slices.Concat(header.AppendArguments(nil), e.removes, e.adds, e.voids, []string{"dropped"}) {
		arguments = append(arguments, text)
	}
	return o.ok(guard.Apply, arguments)
}

func (m *master) members(set string, most int) string {
	m.t.Helper()
	words := strings.Fields(strings.Trim(m.script(guard.Members, []string{set}, most, guard.ReadMember("r")), "[]"))
	slices.Sort(words)
	return strings.ReplaceAll(strings.Join(words, " "), "\x00", "0")
}

// build makes of a set one that is being built.
func (o *owner) build(set, token string) string {
	o.m.t.Helper()
	return o.m.script(guard.Build, []string{scriptMark, set}, o.id, guard.BuildMember(token), time.Hour.Milliseconds())
}

// gather adds members to the set of a token, which is then that of another.
func (m *master) gather(set, token, then string, members ...any) string {
	m.t.Helper()
	return m.script(guard.Gather, []string{set}, append([]any{guard.BuildMember(token), guard.BuildMember(then)}, members...)...)
}

// complete lets a set answer when everything up to n is written.
func (o *owner) complete(set, token string, n int64) string {
	o.m.t.Helper()
	return o.m.script(guard.Complete, []string{scriptMark, set}, o.id, guard.BuildMember(token), position(n).Append(nil))
}

// A set of an index is begun, kept up and filled, and answers when it is complete.
func TestIndexScripts(t *testing.T) {
	a, b := indexSet("a"), indexSet("b")
	onBothKinds(t, map[string]func(m *master){
		"a set answers when it is complete": func(m *master) {
			o := m.own()
			m.want("absent", m.members(a, 9), "INCOMPLETE")
			m.want("begin", o.build(a, "x"), guard.OK)
			m.want("gather", m.gather(a, "x", "y", "1\x00", "2\x00"), guard.OK)
			m.want("batch", o.edit(1, edits{removes: []string{a, "2\x00"}, adds: []string{a, "3\x00"}}), guard.OK)
			m.want("being built", m.members(a, 9), "INCOMPLETE")
			m.want("complete", o.complete(a, "y", 1), guard.OK)
			m.want("whole", m.members(a, 4), "10 30 build:y complete")
			m.want("large", m.members(a, 3), "LARGE")
			if ttl := m.client.PTTL(t.Context(), a).Val(); ttl <= 0 || ttl > time.Hour {
				m.t.Errorf("it lasts %s", ttl)
			}
		},
		"sets that are asked together have their members counted together": func(m *master) {
			o := m.own()
			o.edit(1, edits{})
			for set, members := range map[string][]any{a: {"1\x00", "2\x00", "3\x00"}, b: {}} {
				o.build(set, "x")
				m.gather(set, "x", "y", members...)
				m.want("complete", o.complete(set, "y", 1), guard.OK)
			}
			ask := func(most int) string {
				return m.script(guard.Members, []string{b, a, indexSet("absent"), b}, most, guard.ReadMember("r"))
			}
			if got := ask(6); !strings.Contains(got, "] LATER INCOMPLETE [") {
				t.Errorf("too many together: %q", got)
			}
			if got := ask(4); !strings.Contains(got, "] LARGE INCOMPLETE [") {
				t.Errorf("too many by itself: %q", got)
			}
		},
		"a set is not complete before the stream is there": func(m *master) {
			o := m.own()
			o.build(a, "x")
			m.want("no batch", o.complete(a, "x", 1), "WAIT")
			o.edit(1, edits{})
			m.want("not far enough", o.complete(a, "x", 2), "WAIT")
			m.want("nothing has changed", m.members(a, 9), "INCOMPLETE")
			o.edit(2, edits{})
			m.want("there", o.complete(a, "x", 2), guard.OK)
		},
		"a batch does nothing to a set that is not there": func(m *master) {
			o := m.own()
			m.want("batch", o.edit(1, edits{removes: []string{a, "1\x00"}, adds: []string{b, "1\x00"}}), guard.OK)
			m.wantKeys(scriptMark)
		},
		"a set that has lost its last member is there": func(m *master) {
			o := m.own()
			o.build(a, "x")
			m.gather(a, "x", "y", "1\x00")
			o.edit(1, edits{removes: []string{a, "1\x00"}})
			o.complete(a, "y", 1)
			m.want("whole", m.members(a, 9), "build:y complete")
			o.edit(2, edits{adds: []string{a, "2\x00"}})
			m.want("with another one", m.members(a, 9), "20 build:y complete")
		},
		"a batch that comes again does nothing": func(m *master) {
			o := m.own()
			o.build(a, "x")
			o.complete(a, "x", 0)
			o.edit(1, edits{adds: []string{a, "1\x00"}})
			m.want("again", o.edit(1, edits{removes: []string{a, "1\x00"}}), guard.Done)
			o.complete(a, "x", 1)
			m.want("whole", m.members(a, 9), "10 build:x complete")
		},
		"a full Redis unlinks sets that cannot grow": func(m *master) {
			o := m.own()
			o.build(a, "x")
			o.build(b, "y")
			m.do("CONFIG", "SET", "maxmemory", "1")
			m.want("batch", o.edit(1, edits{voids: []string{a, indexSet("absent")}}), guard.OK)
			if begun := o.build(a, "z"); !strings.Contains(begun, "OOM") {
				m.t.Errorf("a set was begun on a full Redis: %s", begun)
			}
			m.do("CONFIG", "SET", "maxmemory", "0")
			m.wantKeys(scriptMark, b)
		},
		"what is no set is no longer there": func(m *master) {
			o := m.own()
			m.set(a, b, "dropped")
			m.want("batch", o.edit(1, edits{removes: []string{a, "1\x00"}, adds: []string{b, "1\x00"}}), guard.OK)
			m.wantKeys(scriptMark)
		},
		"only the owner builds": func(m *master) {
			former := m.own()
			former.build(a, "x")
			m.gather(a, "x", "w", "1\x00")
			former.edit(1, edits{})
			o := m.own()
			m.want("begin", former.build(b, "y"), guard.Lost)
			m.want("complete", former.complete(a, "w", 1), guard.Lost)
			m.wantKeys(scriptMark, a)
			m.want("begin anew", o.build(a, "z"), guard.OK)
			m.want("gather into the set that was", m.gather(a, "w", "v", "2\x00"), guard.Lost)
			m.want("complete it", o.complete(a, "w", 1), guard.Lost)
			m.want("complete the new one", o.complete(a, "z", 1), guard.OK)
			m.want("whole", m.members(a, 9), "build:z complete")
		},
		"a set that has lost what was added is built no further": func(m *master) {
			o := m.own()
			o.build(a, "x")
			was := m.do("DUMP", a)
			m.want("gather", m.gather(a, "x", "y", "1\x00"), guard.OK)
			m.want("the reply was lost", m.gather(a, "x", "y", "1\x00"), guard.OK)
			now := m.do("DUMP", a)
			m.do("RESTORE", a, 0, was, "REPLACE")
			m.want("gather more", m.gather(a, "y", "z", "2\x00"), guard.Lost)
			o.edit(1, edits{})
			m.want("complete", o.complete(a, "y", 1), guard.Lost)
			m.do("RESTORE", a, 0, now, "REPLACE")
			m.want("complete what has all", o.complete(a, "y", 1), guard.OK)
			m.want("whole", m.members(a, 9), "10 build:y complete")
		},
		"a set that was taken away is built no further": func(m *master) {
			o := m.own()
			o.build(a, "x")
			m.do("UNLINK", a)
			m.want("gather", m.gather(a, "x", "y", "1\x00"), guard.Lost)
			o.edit(1, edits{adds: []string{a, "1\x00"}})
			m.want("complete", o.complete(a, "x", 1), guard.Lost)
			m.wantKeys(scriptMark)
		},
	})
}

// An indexedSink owns a stream on a Redis, with one index.
type indexedSink struct {
	*redissink.Sink
	m       *master
	planner *plan.Planner
	name    string // of set 1
}

func newIndexedSink(t *testing.T, r *stack.Redis) *indexedSink {
	t.Helper()
	template, err := guard.ParseTemplate("page:{id}:{shop}")
	if err != nil {
		t.Fatal(err)
	}
	entries := []plan.Entry{{Name: "page", Key: template, Dependencies: []plan.Dependency{{Schema: "public", Table: "categories", Paths: []plan.Path{{Lookup: &plan.Lookup{
		Arguments: []plan.Argument{{Column: "id", Type: "int4"}},
		Index:     &plan.Index{Schema: "public", Table: "products", Join: []string{"category"}, Key: []string{"id", "shop"}, By: []int{0}, Unique: true},
	}}}}, {Schema: "public", Table: "products", Columns: []string{"id", "shop", "category"}, Paths: []plan.Path{{Key: []string{"id", "shop"}}}}}}}
	s := &indexedSink{m: masterOn(t, r, false), planner: plan.New(entries)}
	s.Sink = redissink.New(s.m.client, redissink.Options{Entries: entries, Indexes: s.planner.Indexes()})
	if _, err := s.Own(t.Context(), []string{scriptStream}); err != nil {
		t.Fatal(err)
	}
	s.name = guard.IndexPrefix(0, scriptStream, s.planner.Indexes()[0].Definition(&entries[0])) + "1"
	return s
}

var one = plan.IndexSet{Name: "1", Values: []string{"1"}}

// fill builds set 1 with n members, and returns them.
func (s *indexedSink) fill(n int) (members []string) {
	t := s.m.t
	t.Helper()
	b, err := s.BeginSet(t.Context(), one)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		members = append(members, string(guard.AppendMember(guard.AppendMember(nil, fmt.Append(nil, i)), nil)))
	}
	for some := range slices.Chunk(members, 1000) {
		if b, err = s.FillSet(t.Context(), b, some); err != nil {
			t.Fatal(err)
		}
	}
	batch := plan.NewBatch()
	batch.End = position(1)
	if _, err := s.Write(t.Context(), []*plan.Batch{batch}); err != nil {
		t.Fatal(err)
	}
	if done, err := s.CompleteSet(t.Context(), b); err != nil || !done {
		t.Fatalf("done %v, %v", done, err)
	}
	return members
}

// What a set has comes back as it went in, whole or bit by bit; also values that are
// empty, and beside what the set says of itself.
func TestASetIsRead(t *testing.T) {
	s := newIndexedSink(t, startRedis(t, stack.RedisOptions{}))
	ask := func() plan.Answer {
		t.Helper()
		answers, err := s.Ask(t.Context(), []plan.IndexSet{one})
		if err != nil {
			t.Fatal(err)
		}
		return answers[0]
	}
	scan := func(token string, each func(values [][]byte)) (members []string, err error) {
		err = s.Scan(t.Context(), one, token, func(values [][]byte) error {
			each(values)
			members = append(members, string(guard.AppendMember(guard.AppendMember(nil, values[0]), values[1])))
			return nil
		})
		slices.Sort(members)
		return slices.Compact(members), err
	}
	if answer := ask(); answer.Whole || answer.Token != "" {
		t.Errorf("there is none: %+v", answer)
	}
	s.fill(2)
	answer := ask()
	slices.SortFunc(answer.Members, func(a, b [][]byte) int { return strings.Compare(string(a[0]), string(b[0])) })
	if diff := cmp.Diff(plan.Answer{Whole: true, Members: [][][]byte{{[]byte("0"), {}}, {[]byte("1"), {}}}}, answer); diff != "" {
		t.Errorf("a small one (-want +got):\n%s", diff)
	}
	s.fill(1500)
	several, err := s.Ask(t.Context(), []plan.IndexSet{one, one, one})
	check(t, err)
	for i, answer := range several {
		if len(answer.Members) != 1500 {
			t.Errorf("answer %d of sets that are too large for one reply together has %d members", i, len(answer.Members))
		}
	}
	want := s.fill(5000)
	slices.Sort(want)
	if answer := ask(); answer.Token == "" || answer.Whole {
		t.Errorf("a large one is given as %+v", answer)
	}
	got, err := scan(ask().Token, func([][]byte) {})
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v, (-want +got):\n%s", err, diff)
	}
	// Another set under its name may lack what this one has, though it is complete too.
	for name, replace := range map[string]func(){
		"it is gone":       func() { s.m.do("UNLINK", s.name) },
		"it is built":      func() { s.fill(0) },
		"another is begun": func() { _, _ = s.BeginSet(t.Context(), one) },
	} {
		s.fill(5000)
		seen := 0
		_, err := scan(ask().Token, func([][]byte) {
			if seen++; seen == 2000 {
				replace()
			}
		})
		if !errors.Is(err, guard.ErrIncomplete) {
			t.Errorf("%s while it is read: %v", name, err)
		}
	}
}

// A Redis that has restarted, or another that has taken over, has all that was in a set,
// the token of who reads it as well, and its members in another order.
func TestALargeSetIsReadInOneProcess(t *testing.T) {
	r := startRedis(t, stack.RedisOptions{Settings: map[string]string{"appendonly": "yes"}})
	s := newIndexedSink(t, r)
	s.fill(5000)
	answers, err := s.Ask(t.Context(), []plan.IndexSet{one})
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	err = s.Scan(t.Context(), one, answers[0].Token, func([][]byte) error {
		if seen++; seen != 2000 {
			return nil
		}
		check(t, r.Stop(within(t, time.Minute)))
		check(t, r.Start(within(t, time.Minute)))
		if kept, err := s.m.client.SIsMember(t.Context(), s.name, answers[0].Token).Result(); err != nil || !kept {
			t.Errorf("the token has stayed: %v, %v", kept, err)
		}
		return nil
	})
	if !errors.Is(err, guard.ErrIncomplete) {
		t.Errorf("Redis has restarted while the set was read: %v", err)
	}
}

// A full Redis takes no members. The sets that lack them must go, and what the batch
// drops must go as well.
func TestAFullRedisVoidsSets(t *testing.T) {
	s := newIndexedSink(t, startRedis(t, stack.RedisOptions{}))
	s.fill(2)
	relation := &change.Relation{Schema: "public", Name: "products", Identity: change.IdentityFull, Columns: []change.Column{{Name: "id"}, {Name: "shop"}, {Name: "category"}}}
	relation.Wanted = s.planner.Compile(relation)
	product := func(lsn int64, op change.Op, id string) *plan.Batch {
		text := func(text string) change.Value { return change.Value{State: change.Text, Text: []byte(text)} }
		c := &change.Change{Op: op, Relation: relation, Position: position(lsn)}
		row := change.Row{Kind: change.Whole, Values: []change.Value{text(id), text(""), text("1")}}
		if op == change.Insert {
			c.New = row
		} else {
			c.Old = row
		}
		batch := plan.NewBatch()
		s.planner.Plan(c, batch)
		return batch
	}
	write := func(batches ...*plan.Batch) {
		t.Helper()
		if n, err := s.Write(t.Context(), batches); err != nil || n != len(batches) {
			t.Fatalf("%d batches are in, %v", n, err)
		}
	}
	write(product(2, change.Insert, "2"), product(3, change.Delete, "0"))
	s.m.want("there is room", s.m.members(s.name, 9), "100 200 "+strings.Fields(s.m.members(s.name, 9))[2]+" complete")
	s.m.do("CONFIG", "SET", "maxmemory", "1")
	taken := product(4, change.Delete, "1")
	write(taken)
	if s.m.client.Exists(t.Context(), s.name).Val() == 0 || taken.Pressed {
		t.Error("taking out needs no memory, and the set is gone")
	}
	added := product(5, change.Insert, "3")
	write(added, product(6, change.Delete, "2"))
	s.m.wantKeys(scriptMark)
	if !added.Pressed {
		t.Error("nobody is told that Redis is full")
	}
}
