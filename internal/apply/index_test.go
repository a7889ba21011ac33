package apply_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
)

// indexed are pages whose lookup an index answers: which are in a category is told by
// the table products, whose rows are pages.
func indexed(t *testing.T) []plan.Entry {
	entries := pages(t)
	entries[0].Dependencies[0].Paths[0].Lookup.Index = &plan.Index{
		Schema: "public", Table: "shelf", Join: []string{"category"}, Key: []string{"id"}, By: []int{0}, Unique: true,
	}
	entries[0].Dependencies = append(entries[0].Dependencies, plan.Dependency{
		Schema: "public", Table: "shelf", Columns: []string{"category", "id"}, Paths: []plan.Path{{Key: []string{"id"}}},
	})
	return entries
}

// shelf is the insert of a page into a category, in a transaction of its own.
func (r *rig) shelf(xid uint32, lsn uint64, category, id string) []change.Change {
	changes := r.users(xid, lsn, id)
	changes[0].Relation = r.relation(7, "shelf", "id", "category")
	changes[0].New.Values = append(changes[0].New.Values, change.Value{State: change.Text, Text: []byte(category)})
	return changes
}

// indexes are sets in a Redis that keeps what is written.
type indexes struct {
	mu       sync.Mutex
	sets     map[string]*set
	written  change.Position
	err      error         // what Ask returns
	large    bool          // no set is given whole
	scanning func()        // in the middle of a scan, if not nil
	begun    chan struct{} // holds BeginSet back until it is closed, if not nil
	tokens   int
}

type set struct {
	members  map[string]bool
	token    string
	complete bool
}

// apply does what a batch does.
func (x *indexes) apply(b *plan.Batch) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.written = b.End
	for i := range b.Edits() {
		edit := b.Edit(i)
		if of := x.sets[string(edit.Set)]; of != nil && edit.Adds {
			of.members[string(edit.Member)] = true
		} else if of != nil {
			delete(of.members, string(edit.Member))
		}
	}
}

func (x *indexes) Ask(_ context.Context, sets []plan.IndexSet) ([]plan.Answer, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	answers := make([]plan.Answer, len(sets))
	for i := range sets {
		if of := x.sets[sets[i].Name]; of == nil || !of.complete {
			continue
		} else if x.large {
			answers[i].Token = of.token
		} else {
			answers[i].Whole = true
			for _, member := range slices.Sorted(maps.Keys(of.members)) {
				values, _ := guard.MemberValues(nil, []byte(member))
				answers[i].Members = append(answers[i].Members, values)
			}
		}
	}
	return answers, x.err
}

func (x *indexes) Scan(_ context.Context, asked plan.IndexSet, token string, each func(values [][]byte) error) error {
	x.mu.Lock()
	of := x.sets[asked.Name]
	members := slices.Sorted(maps.Keys(of.members))
	x.mu.Unlock()
	for i, member := range members {
		if i == len(members)/2 && x.scanning != nil {
			x.scanning()
		}
		values, _ := guard.MemberValues(nil, []byte(member))
		if err := each(values); err != nil {
			return err
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if of := x.sets[asked.Name]; of == nil || of.token != token || !of.complete {
		return guard.ErrIncomplete
	}
	return nil
}

func (x *indexes) BeginSet(ctx context.Context, of plan.IndexSet) (plan.Building, error) {
	if x.begun != nil {
		select {
		case <-x.begun:
		case <-ctx.Done():
			return plan.Building{}, ctx.Err()
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.tokens++
	b := plan.Building{Set: of, Token: fmt.Sprint(x.tokens)}
	x.sets[of.Name] = &set{members: map[string]bool{}, token: b.Token}
	return b, nil
}

func (x *indexes) built(b plan.Building) (*set, error) {
	if of := x.sets[b.Set.Name]; of != nil && of.token == b.Token {
		return of, nil
	}
	return nil, guard.ErrLost
}

func (x *indexes) FillSet(_ context.Context, b plan.Building, members []string) (plan.Building, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	of, err := x.built(b)
	if err != nil {
		return b, err
	}
	for _, member := range members {
		of.members[member] = true
	}
	x.tokens++
	b.Token = fmt.Sprint(x.tokens)
	of.token = b.Token
	return b, nil
}

func (x *indexes) CompleteSet(_ context.Context, b plan.Building) (bool, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	of, err := x.built(b)
	if err != nil || x.written.Compare(b.From) < 0 {
		return false, err
	}
	of.complete = true
	return true, nil
}

// drop takes all sets away, as a sweep does or an eviction.
func (x *indexes) drop() {
	x.mu.Lock()
	defer x.mu.Unlock()
	clear(x.sets)
}

// playIndexed runs test with a database that finds the pages c1 and c2 in each category c.
func playIndexed(t *testing.T, test func(r *rig, x *indexes)) {
	playWith(t, indexed(t), func(r *rig) {
		x := &indexes{sets: map[string]*set{}}
		r.sink.apply, r.options.Indexes = x.apply, x
		r.finder.set(finds(0, 2))
		r.finder.members = func(_ context.Context, values []string, each func([][]byte) error) (uint64, error) {
			return finds(0, 2)(nil, [][]*string{{&values[0]}}, each)
		}
		test(r, x)
	})
}

// wantLookups demands how often an index and the database have answered, and the keys
// that were dropped since the last call.
func (r *rig) wantLookups(what string, index, database int, keys ...string) {
	r.t.Helper()
	r.observer.get(func(o *observer) {
		if o.lookups != [2]int{index, database} {
			r.t.Errorf("%s: the index has answered %d lookups, the database %d; want %d and %d", what, o.lookups[0], o.lookups[1], index, database)
		}
	})
	drops := r.drops()
	r.sink.set(func(s *sink) { s.batches = nil })
	if diff := cmp.Diff(strings.Join(keys, " "), strings.Join(drops, " ")); diff != "" {
		r.t.Errorf("%s: drops (-want +got):\n%s", what, diff)
	}
}

// Whoever asks first asks the database; then a set is there, which the stream keeps up.
func TestAnIndexAnswersFromTheSecondTimeOn(t *testing.T) {
	playIndexed(t, func(r *rig, x *indexes) {
		r.start()
		r.send(r.categories(700, 200, "a"))
		r.wantLookups("nothing is built", 0, 1, "page:a1", "page:a2")
		r.send(r.categories(701, 220, "a"))
		r.wantLookups("it is built", 1, 1, "page:a1", "page:a2")
		r.send(r.shelf(702, 240, "a", "new"), r.categories(703, 260, "a"))
		r.send(r.categories(704, 280, "a"))
		r.wantLookups("the stream has brought one", 3, 1, "page:a1", "page:a2", "page:new", "page:a1", "page:a2", "page:new")
		x.drop()
		r.send(r.categories(705, 300, "a"))
		r.wantLookups("the set was evicted", 3, 2, "page:a1", "page:a2")
		r.send(r.categories(706, 320, "a"))
		r.wantLookups("it is built anew", 4, 2, "page:a1", "page:a2")
		if got := r.finder.built; !slices.Equal(got, []string{"a", "a"}) {
			t.Errorf("sets were built for %q", got)
		}
	})
}

// A row that comes while a set is read is in it: the stream brings it, and finds the set.
func TestASetIsBegunBeforeItIsRead(t *testing.T) {
	playIndexed(t, func(r *rig, x *indexes) {
		r.finder.members = func(context.Context, []string, func([][]byte) error) (uint64, error) {
			x.mu.Lock()
			defer x.mu.Unlock()
			if x.sets["a"] == nil {
				t.Error("what the stream brings now is in no set")
			}
			return 0, nil
		}
		r.start()
		r.send(r.categories(700, 200, "a"))
		r.send(r.categories(701, 220, "a"))
		r.wantLookups("it is built", 1, 1, "page:a1", "page:a2")
	})
}

// What the database has shown may be ahead of the stream: a set that says that it is
// complete is one that the stream could have made.
func TestASetIsCompleteWhenTheStreamHasBroughtWhatTheDatabaseHadSeen(t *testing.T) {
	playIndexed(t, func(r *rig, _ *indexes) {
		r.finder.members = func(context.Context, []string, func([][]byte) error) (uint64, error) { return 500, nil }
		r.start()
		r.send(r.categories(700, 200, "a"))
		r.wantLookups("it is wanted", 0, 1, "page:a1", "page:a2")
		r.send(r.categories(701, 300, "a"))
		r.wantLookups("the stream is not there", 0, 2, "page:a1", "page:a2")
		r.send(r.categories(702, 500, "a"))
		r.wantLookups("it is there with this one", 0, 3, "page:a1", "page:a2")
		r.send(r.categories(703, 520, "a"))
		r.wantLookups("it is there", 1, 3)
	})
}

// Members are taken out by the unique keys that the tables have today. While the stream
// brings what is older, one of two rows that were alike would take out the other's.
func TestNoSetIsBegunWhileTheStreamIsOlderThanTheCatalog(t *testing.T) {
	playIndexed(t, func(r *rig, _ *indexes) {
		r.gate.set(func(g *gate) { g.insert = 1000 })
		r.start()
		r.send(r.categories(700, 200, "a"))
		r.send(r.categories(701, 300, "a"))
		r.wantLookups("the log had more when the session began", 0, 2, "page:a1", "page:a2", "page:a1", "page:a2")
		if got := r.finder.built; len(got) > 0 {
			t.Errorf("sets were built for %q", got)
		}
		r.send([]change.Change{idle(1000)})
		r.send(r.categories(702, 1020, "a"))
		r.send(r.categories(703, 1040, "a"))
		r.wantLookups("the stream has come that far", 1, 3, "page:a1", "page:a2", "page:a1", "page:a2")
	})
}

// A change that is behind in the log may have been visible before: a reader who has seen
// it may have filled a key that the index did not know when it was asked.
func TestSettledWaitsForWhatReadersMayHaveSeen(t *testing.T) {
	playIndexed(t, func(r *rig, _ *indexes) {
		r.start()
		r.send(r.categories(700, 200, "a"))
		r.gate.set(func(g *gate) { g.insert = 900 })
		r.pass(2 * time.Minute) // the last snapshot is too old to be used
		r.send(r.categories(701, 300, "a"))
		r.wantMark("the index has answered", 308, 208)
		r.send([]change.Change{idle(850)})
		r.wantMark("the log had more when the change was visible", 850, 208)
		r.send([]change.Change{idle(900)})
		r.pass(time.Second)
		r.wantMark("the stream has brought that", 900, 900)
	})
}

// What an entry is swept for may have left rows out of its sets.
func TestAnIndexDoesNotAnswerWhileItsEntryIsSwept(t *testing.T) {
	playIndexed(t, func(r *rig, x *indexes) {
		r.start()
		r.send(r.categories(700, 200, "a"))
		r.wantLookups("it is built", 0, 1, "page:a1", "page:a2")
		r.sink.set(func(s *sink) {
			s.sweeping = func(int) { x.drop() } // of the set, in each pass
		})
		swept := r.shelf(701, 220, "a", "new")
		swept[0].Op, swept[0].New = change.Truncate, change.Row{}
		r.send(swept)
		r.send(r.categories(703, 260, "a"))
		r.wantLookups("while it is swept", 0, 2, "page:a1", "page:a2")
		r.pass(time.Minute)
		if swept := r.sink.sweeps(); len(swept) != 2 || swept[0].templates != pageTemplate+"+[0]" {
			t.Errorf("swept %v, want the entry and its index", swept)
		}
		r.send(r.categories(704, 280, "a"))
		r.wantLookups("no set is left", 0, 3, "page:a1", "page:a2")
		r.send(r.categories(705, 300, "a"))
		r.wantLookups("it is built anew", 1, 3, "page:a1", "page:a2")
	})
}

// A set that has become another one while it was read may never have had some members.
func TestASetThatChangesWhileItIsReadDoesNotCount(t *testing.T) {
	playIndexed(t, func(r *rig, x *indexes) {
		r.start()
		r.send(r.categories(700, 200, "a"))
		r.wantLookups("it is built", 0, 1, "page:a1", "page:a2")
		x.large = true
		r.send(r.categories(701, 220, "a"))
		r.wantLookups("it is read", 1, 1, "page:a1", "page:a2")
		x.scanning = x.drop
		r.finder.set(finds(0, 3))
		r.send(r.categories(702, 240, "a"))
		r.wantLookups("it is gone in between", 1, 2, "page:a1", "page:a2", "page:a3")
	})
}

// Redis is away from the indexes, or a set cannot be built: the database answers, and
// nothing waits for that.
func TestTheDatabaseAnswersWhereAnIndexCannot(t *testing.T) {
	playIndexed(t, func(r *rig, x *indexes) {
		r.start()
		r.finder.members = func(context.Context, []string, func([][]byte) error) (uint64, error) {
			return 0, errors.New("the connection has broken")
		}
		r.send(r.categories(700, 200, "a"))
		r.send(r.categories(701, 220, "a"))
		r.wantLookups("it was not built", 0, 2, "page:a1", "page:a2", "page:a1", "page:a2")
		x.err = errors.New("LOADING")
		r.send(r.categories(702, 240, "a"))
		r.wantLookups("Redis does not answer", 0, 3, "page:a1", "page:a2")
		if got := r.finder.built; !slices.Equal(got, []string{"a", "a"}) {
			t.Errorf("it was tried for %q, want once for each answer that there is no set", got)
		}
		r.observer.get(func(o *observer) {
			if len(o.held) > 0 {
				t.Errorf("held: %v", o.held)
			}
		})
	})
}

// While one set takes its time those that are wanted wait, each once, and no more than
// there is room for.
func TestSetsThatAreWantedWaitOnce(t *testing.T) {
	playIndexed(t, func(r *rig, x *indexes) {
		x.begun = make(chan struct{})
		r.start()
		for i := range 3 {
			r.send(r.categories(uint32(700+i), uint64(200+20*i), ids(0, 1500)...))
		}
		close(x.begun)
		r.send([]change.Change{idle(400)})
		r.pass(time.Second)
		slices.Sort(r.finder.built)
		if n := len(slices.Compact(r.finder.built)); n != len(r.finder.built) || n < 1000 || n > 1001 {
			t.Errorf("%d sets were built, %d different ones", len(r.finder.built), n)
		}
	})
}

// NULL is joined with nothing: nobody need be asked.
func TestAnIndexKnowsWhatNULLLeadsTo(t *testing.T) {
	playIndexed(t, func(r *rig, _ *indexes) {
		r.start()
		null := r.categories(700, 200, "a")
		null[0].New.Values[0] = change.Value{State: change.Null}
		r.send(null)
		r.wantLookups("NULL", 0, 0)
	})
}
