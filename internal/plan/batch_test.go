package plan_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
)

func keysOf(b *plan.Batch) []string {
	keys := []string{}
	for i := range b.Len() {
		keys = append(keys, string(b.Key(i)))
	}
	return keys
}

// A key that was dropped twice costs Redis twice; one that was forgotten stays
// stale. Batches are used again and again, so what an earlier one left must not
// show.
func TestABatchHoldsEachKeyOnce(t *testing.T) {
	b := plan.NewBatch()
	rapid.Check(t, func(t *rapid.T) {
		b.Reset()
		want := []string{}
		seen := map[string]bool{}
		for _, n := range rapid.SliceOfN(rapid.IntRange(0, 300), 0, 2*plan.BatchKeysMax).Draw(t, "keys") {
			key := strings.Repeat("k", n%3) + fmt.Sprint(n/3)
			b.Add([]byte(key), plan.Drop, 0, nil, 0)
			if !seen[key] {
				seen[key] = true
				want = append(want, key)
			}
		}
		if diff := cmp.Diff(want, keysOf(b)); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

// One change may bring more keys than a batch should hold: none is lost then.
func TestNoKeyIsLostBeyondTheLimit(t *testing.T) {
	b := plan.NewBatch()
	var want []string
	for i := range 20 * plan.BatchKeysMax {
		key := fmt.Sprint("k", i)
		b.Add([]byte(key), plan.Drop, 0, nil, 0)
		want = append(want, key)
	}
	if diff := cmp.Diff(want, keysOf(b)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The empty key is a key: "{id}" of an empty text.
func TestAnEmptyKeyIsAKey(t *testing.T) {
	b := plan.NewBatch()
	b.Add(nil, plan.Drop, 0, nil, 0)
	b.Add([]byte("a"), plan.Drop, 0, nil, 0)
	b.Add(nil, plan.Drop, 0, nil, 0)
	if diff := cmp.Diff([]string{"", "a"}, keysOf(b)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestABatchIsFullAtItsLimits(t *testing.T) {
	commit := &change.Change{Op: change.Commit, Position: change.Position{LSN: 1}}
	planner, relation := users(t, "user:{id}")
	same := row(change.Insert, relation, 1, "", "7")
	for _, test := range []struct {
		limit string
		fill  func(b *plan.Batch, i int)
		max   int
	}{
		{"keys", func(b *plan.Batch, i int) { b.Add(fmt.Append(nil, i), plan.Drop, 0, nil, 0) }, plan.BatchKeysMax},
		{"bytes", func(b *plan.Batch, i int) {
			b.Add(append(make([]byte, 4<<10-4), fmt.Sprintf("%04d", i)...), plan.Drop, 0, nil, 0)
		}, plan.BatchBytesMax / (4 << 10)},
		{"changes", func(b *plan.Batch, i int) { planner.Plan(same, b) }, plan.BatchChangesMax},
		{"transactions", func(b *plan.Batch, i int) { planner.Plan(commit, b) }, plan.BatchChangesMax},
	} {
		t.Run(test.limit, func(t *testing.T) {
			b := plan.NewBatch()
			for i := range test.max {
				if b.Full() {
					t.Fatalf("full with %d of %d", i, test.max)
				}
				test.fill(b, i)
			}
			if !b.Full() {
				t.Errorf("not full with %d", test.max)
			}
			b.Reset()
			if b.Full() {
				t.Error("full after Reset")
			}
		})
	}
}

func TestResetForgetsEverything(t *testing.T) {
	planner, relation := users(t, "user:{id}")
	b := plan.NewBatch()
	planner.Plan(row(change.Insert, relation, 9, "", "7"), b)
	planner.Plan(&change.Change{Op: change.Truncate, Relation: relation, XID: 9, Position: change.Position{LSN: 9, Row: 2}}, b)
	planner.Plan(&change.Change{Op: change.Commit, CommittedAt: 5, Position: change.Position{LSN: 10}}, b)
	b.Settled, b.Note = b.End, &guard.Note{}
	if !b.Started() || b.Len() != 1 || len(b.Sweeps) != 1 || len(b.XIDs) != 1 || len(b.CommittedAt) != 1 || b.Changes != 2 || b.Effects != 1 {
		t.Fatalf("got %+v", b)
	}
	b.Reset()
	if b.Started() || b.Len() != 0 || len(b.Sweeps) != 0 || len(b.XIDs) != 0 || len(b.CommittedAt) != 0 || b.Changes != 0 || b.Effects != 0 || b.Note != nil || !b.Settled.IsZero() {
		t.Errorf("got %+v", b)
	}
}

// The gate asks for every transaction of a batch, and latency is counted for
// those that end in it. An idle position and the end of a transaction need no
// gate: what came before them has passed it.
func TestABatchKnowsItsTransactions(t *testing.T) {
	planner, relation := users(t, "user:{id}")
	b := plan.NewBatch()
	for i, c := range []*change.Change{
		row(change.Insert, relation, 100, "", "1"),
		row(change.Insert, relation, 100, "", "2"),
		{Op: change.Commit, XID: 100, CommittedAt: 11},
		row(change.Insert, relation, 99, "", "3"),
		{Op: change.Commit, XID: 99, CommittedAt: 12},
		{Op: change.Commit, XID: 101, CommittedAt: 13},
		{Op: change.Idle},
		row(change.Delete, relation, 102, "1", ""),
	} {
		c.Position = change.Position{Timeline: 1, LSN: uint64(100 + i)}
		planner.Plan(c, b)
		if b.End != c.Position {
			t.Fatalf("after change %d the batch ends at %s, want %s", i, b.End, c.Position)
		}
	}
	if diff := cmp.Diff([]uint32{100, 99, 102}, b.XIDs); diff != "" {
		t.Errorf("transactions (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]int64{11, 12, 13}, b.CommittedAt); diff != "" {
		t.Errorf("commits (-want +got):\n%s", diff)
	}
	if b.Changes != 4 || b.Effects != 4 || b.Len() != 3 {
		t.Errorf("got %d changes, %d drops, %d keys, want 4, 4, 3", b.Changes, b.Effects, b.Len())
	}
}

// users returns a planner of one entry over a table (id, name) whose first
// column is the primary key.
func users(t testing.TB, template string) (*plan.Planner, *change.Relation) {
	key, err := guard.ParseTemplate(template)
	if err != nil {
		t.Fatal(err)
	}
	planner := plan.New([]plan.Entry{{Name: "user", Key: key, Schema: "public", Table: "users"}})
	relation := &change.Relation{Schema: "public", Name: "users", Identity: change.IdentityDefault, Columns: []change.Column{{Name: "id", Identifies: true}, {Name: "name"}}}
	relation.Wanted = planner.Compile(relation)
	return planner, relation
}

// row is a change whose old and new rows have the id given; none if it is empty.
func row(op change.Op, relation *change.Relation, xid uint32, before, after string) *change.Change {
	c := &change.Change{Op: op, Relation: relation, XID: xid, Position: change.Position{Timeline: 1, LSN: 1}}
	if before != "" {
		c.Old = change.Row{Kind: change.IdentityOnly, Values: []change.Value{{State: change.Text, Text: []byte(before)}}}
	}
	if after != "" {
		c.New = change.Row{Kind: change.Whole, Values: []change.Value{{State: change.Text, Text: []byte(after)}}}
	}
	return c
}

// Millions of changes a minute pass here.
func TestPlanningAllocatesNothing(t *testing.T) {
	planner, relation := users(t, "user:{id}")
	changes := []*change.Change{
		row(change.Insert, relation, 7, "", "17"),
		row(change.Update, relation, 7, "", "17"),
		row(change.Update, relation, 8, "17", "%18"),
		row(change.Delete, relation, 8, "%18", ""),
		{Op: change.Commit, CommittedAt: 1, Position: change.Position{LSN: 3}},
		{Op: change.Idle, Position: change.Position{LSN: 4}},
	}
	b := plan.NewBatch()
	planAll := func() {
		for i := range 200 {
			if b.Full() {
				b.Reset()
			}
			planner.Plan(changes[i%len(changes)], b)
		}
		b.Reset()
	}
	planAll()
	if got := testing.AllocsPerRun(100, planAll); got != 0 {
		t.Errorf("got %v allocations, want none", got)
	}
}

// A million updates of a table whose identity does not suffice sweep its entry
// once a batch, and say why once a batch.
func TestSweepingAgainAllocatesNothing(t *testing.T) {
	planner, relation := users(t, "name:{name}")
	c := row(change.Update, relation, 7, "", "ann")
	b := plan.NewBatch()
	planner.Plan(c, b)
	if len(b.Sweeps) != 1 {
		t.Fatalf("got %v, want a sweep", b.Sweeps)
	}
	again := func() {
		b.Changes, b.Effects = 0, 0
		planner.Plan(c, b)
	}
	if got := testing.AllocsPerRun(100, again); got != 0 {
		t.Errorf("got %v allocations, want none", got)
	}
}

// Very many parts of an entry cost more than all of it, and one with a very long value
// more than a watermark should hold. What is no UTF-8 would not come back from there.
func TestManyPartsBecomeTheWholeEntry(t *testing.T) {
	template, err := guard.ParseTemplate("can:{user}:{right}")
	if err != nil {
		t.Fatal(err)
	}
	planner := plan.New([]plan.Entry{{Name: "can", Key: template, Dependencies: []plan.Dependency{{
		Schema: "public", Table: "grants", Columns: []string{"user"}, Paths: []plan.Path{{Key: []string{"user", ""}}}, Why: "why",
	}}}})
	relation := &change.Relation{Schema: "public", Name: "grants", Identity: change.IdentityFull, Columns: []change.Column{{Name: "user", Identifies: true}}}
	relation.Wanted = planner.Compile(relation)
	b := plan.NewBatch()
	insert := func(user string) {
		planner.Plan(&change.Change{Op: change.Insert, Relation: relation, Position: change.Position{LSN: 1}, New: change.Row{Kind: change.Whole, Values: []change.Value{{State: change.Text, Text: []byte(user)}}}}, b)
	}
	for _, test := range []struct {
		name  string
		users []string
		want  bool // the whole entry
	}{
		{"as many as there may be, each twice", slices.Repeat(numbers(guard.PartsMax), 2), false},
		{"one more", numbers(guard.PartsMax + 1), true},
		{"a long one", []string{strings.Repeat("x", guard.PartBytesMax)}, true},
		{"one that is no UTF-8", []string{"\xff"}, true},
	} {
		b.Reset()
		parts := map[string]bool{}
		for _, user := range test.users {
			insert(user)
		}
		for _, sweep := range b.Sweeps {
			parts[sweep.Part] = true
		}
		if parts[""] != test.want || len(parts) != len(b.Sweeps) || !test.want && len(parts) != guard.PartsMax || b.Len() > 0 || b.Effects > 0 {
			t.Errorf("%s: %d keys, %d sweeps, all of it %v", test.name, b.Len(), len(b.Sweeps), parts[""])
		}
	}
}

func numbers(n int) (texts []string) {
	for i := range n {
		texts = append(texts, strconv.Itoa(i))
	}
	return texts
}

// Every combination of what a log may say of a row is planned: it drops, it
// sweeps, or there is no key, but it never passes over a key that it does not
// know.
func TestWhatIsNotKnownIsSwept(t *testing.T) {
	states := []change.ValueState{change.Missing, change.Null, change.Unchanged, change.Text}
	for _, identifies := range []bool{false, true} {
		for _, old := range []change.RowKind{change.Absent, change.IdentityOnly, change.Whole} {
			for _, was := range states {
				for _, is := range states {
					planner, relation := users(t, "name:{name}")
					relation = &change.Relation{Number: 1, OID: relation.OID, Schema: "public", Name: "users", Columns: slices.Clone(relation.Columns)}
					relation.Columns[1].Identifies = identifies
					relation.Wanted = planner.Compile(relation)
					c := &change.Change{Op: change.Update, Relation: relation, Position: change.Position{LSN: 1}}
					if old != change.Absent {
						c.Old = change.Row{Kind: old, Values: []change.Value{{State: was, Text: []byte("old")}}}
					}
					c.New = change.Row{Kind: change.Whole, Values: []change.Value{{State: is, Text: []byte("new")}}}
					b := plan.NewBatch()
					planner.Plan(c, b)

					effective := is
					if is == change.Unchanged && old != change.Absent && was != change.Null {
						effective = was // what was left out is no NULL
					}
					known := effective == change.Text || effective == change.Null
					if old == change.Absent {
						known = known && identifies
					} else {
						known = known && (was == change.Text || was == change.Null)
					}
					where := fmt.Sprintf("identifies=%v old=%v was=%v is=%v", identifies, old, was, is)
					if got := len(b.Sweeps) > 0; got == known {
						t.Errorf("%s: swept is %v", where, got)
					}
					if old != change.Absent && was == change.Text && !slices.Contains(keysOf(b), "name:old") {
						t.Errorf("%s: the old key was not dropped", where)
					}
					if is == change.Text && !slices.Contains(keysOf(b), "name:new") {
						t.Errorf("%s: the new key was not dropped", where)
					}
				}
			}
		}
	}
}

// What `plan --change` prints.
func TestEffectsOfAChange(t *testing.T) {
	planner, relation := users(t, "user:{id}")
	got := planner.Effects(row(change.Update, relation, 7, "1", "2"))
	want := []plan.Outcome{{Effect: "drop", Key: "user:1"}, {Effect: "drop", Key: "user:2"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("update (-want +got):\n%s", diff)
	}
	got = planner.Effects(&change.Change{Op: change.Truncate, Relation: relation})
	want = []plan.Outcome{{Effect: "sweep", Key: "user:{id}", Reason: "the table was truncated"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("truncate (-want +got):\n%s", diff)
	}
}

// What a busy table brings to indexes costs no allocation each: a batch is used again.
func TestMembersCostNoAllocationEach(t *testing.T) {
	template, err := guard.ParseTemplate("page:{id}")
	if err != nil {
		t.Fatal(err)
	}
	planner := plan.New([]plan.Entry{{Name: "page", Key: template, Dependencies: []plan.Dependency{
		{Schema: "public", Table: "categories", Paths: []plan.Path{{Lookup: &plan.Lookup{
			Arguments: []plan.Argument{{Column: "id"}},
			Index:     &plan.Index{Schema: "public", Table: "products", Join: []string{"category"}, Key: []string{"id"}, By: []int{0}, Unique: true},
		}}}},
		{Schema: "public", Table: "products", Columns: []string{"id", "category"}, Paths: []plan.Path{{Key: []string{"id"}}}},
	}}})
	r := &change.Relation{Schema: "public", Name: "products", Identity: change.IdentityFull, Columns: []change.Column{{Name: "id", Identifies: true}, {Name: "category", Identifies: true}}}
	r.Wanted = planner.Compile(r)
	row := func(category byte) change.Row {
		return change.Row{Kind: change.Whole, Values: []change.Value{{State: change.Text, Text: []byte("4711")}, {State: change.Text, Text: []byte{category}}}}
	}
	c := &change.Change{Op: change.Update, Relation: r, Position: change.Position{Timeline: 1, LSN: 1}, Old: row('0'), New: row('1')}
	batch := plan.NewBatch()
	number := 0
	allocations := testing.AllocsPerRun(10*plan.BatchKeysMax, func() {
		number++
		c.Old.Values[1].Text[0], c.New.Values[1].Text[0] = byte('0'+number%10), byte('1'+number%10)
		c.Old.Values[0].Text[0] = byte('a' + number%26)
		c.New.Values[0].Text[0] = c.Old.Values[0].Text[0]
		if planner.Plan(c, batch); batch.Full() {
			batch.Reset()
		}
	})
	if allocations > 0 {
		t.Errorf("%v allocations for a row that moves", allocations)
	}
}
