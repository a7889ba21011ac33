package apply_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
)

const pageTemplate = "page:{id}"

// pages are an entry whose pages show the name of their category, and are found by it.
func pages(t *testing.T) []plan.Entry {
	template, err := guard.ParseTemplate(pageTemplate)
	if err != nil {
		t.Fatal(err)
	}
	return []plan.Entry{{Name: "page", Key: template, Lease: guard.Lease, Query: "SELECT", Dependencies: []plan.Dependency{{
		Schema: "public", Table: "categories", Columns: []string{"id"},
		Paths: []plan.Path{{Lookup: &plan.Lookup{SQL: "SELECT", Arguments: []plan.Argument{{Column: "id", Type: "text"}}}}},
	}}}}
}

// categories are the inserts of one transaction, and its end.
func (r *rig) categories(xid uint32, lsn uint64, ids ...string) []change.Change {
	relation := r.relation(6, "categories", "id")
	changes := r.users(xid, lsn, ids...)
	for i := range ids {
		changes[i].Relation = relation
	}
	return changes
}

// finds answers each category c with the pages c1 to cn.
func finds(insert uint64, n int) func(context.Context, [][]*string, func([][]byte) error) (uint64, error) {
	return func(_ context.Context, arguments [][]*string, each func([][]byte) error) (uint64, error) {
		for _, category := range arguments[0] {
			for i := range n {
				if err := each([][]byte{fmt.Appendf(nil, "%s%d", *category, i+1)}); err != nil {
					return 0, err
				}
			}
		}
		return insert, nil
	}
}

// What was found goes before the batch that asked, and the position stays: who crashes
// in between asks again.
func TestFoundKeysGoInABatchOfTheirOwn(t *testing.T) {
	playWith(t, pages(t), func(r *rig) {
		r.finder.set(finds(0, 2))
		r.start()
		before := len(r.sink.all())
		r.send(r.categories(700, 200, "a", "b"), r.users(701, 300, "7"))
		var got []string
		for _, w := range r.sink.all()[before:] {
			got = append(got, fmt.Sprintf("%s: %s", w.end, w.keys))
		}
		want := []string{at(100).String() + ": page:a1 page:a2 page:b1 page:b2", at(308).String() + ": user:7"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"a b"}, r.finder.statements()); diff != "" {
			t.Errorf("statements (-want +got):\n%s", diff)
		}
		if r.sink.watermark().Lo != at(308) {
			t.Errorf("the watermark stands at %s", r.sink.watermark().Lo)
		}
	})
}

// A lookup runs when its change is visible, and no earlier: before that it would not
// find what the change has made of the rows.
func TestALookupWaitsForItsChange(t *testing.T) {
	playWith(t, pages(t), func(r *rig) {
		r.finder.set(finds(0, 1))
		r.gate.running[700] = true
		r.start()
		r.send(r.categories(700, 200, "a"))
		if asked := r.finder.statements(); len(asked) > 0 {
			t.Errorf("%q was asked before its transaction was visible", asked)
		}
		r.gate.set(func(g *gate) { delete(g.running, 700) })
		r.pass(time.Second)
		r.wantDrops("page:a1")
	})
}

// The same question of several batches is asked once, and of very many no more in one
// statement than there is a limit to.
func TestQuestionsAreGathered(t *testing.T) {
	playWith(t, pages(t), func(r *rig) {
		r.finder.set(finds(0, 1))
		r.gate.running[700] = true
		r.start()
		var all [][]change.Change
		for i := range 6 {
			all = append(all, r.categories(uint32(700+i), uint64(200+20*i), ids(300*i, 300*i+300)...))
			all = append(all, r.categories(uint32(800+i), uint64(210+20*i), "again"))
		}
		r.send(all...)
		r.gate.set(func(g *gate) { delete(g.running, 700) })
		r.pass(time.Second)
		again, total := 0, 0
		for _, statement := range r.finder.statements() {
			words := strings.Fields(statement)
			total += len(words)
			if len(words) > 1000 {
				t.Errorf("a statement with %d questions", len(words))
			}
			for _, word := range words {
				if word == "again" {
					again++
				}
			}
		}
		if n := len(r.finder.statements()); n > 5 || total > 1800+n || total < 1800 || again > n {
			t.Errorf("%d statements, %d questions, the same one %d times", n, total, again)
		}
		drops := r.drops()
		for _, id := range append(ids(0, 1800), "again") {
			if !slices.Contains(drops, "page:"+id+"1") {
				t.Fatalf("page:%s1 was not dropped", id)
			}
		}
	})
}

// What a changed row leads to beyond refresh_max is dropped, and only that. Rows that
// come together have as much for each of them.
func TestAFanOutIsLoadedAgainUpToRefreshMax(t *testing.T) {
	entries := pages(t)
	entries[0].OnChange, entries[0].RefreshMax = plan.Refresh, 2
	playWith(t, entries, func(r *rig) {
		r.finder.set(finds(0, 3))
		r.start()
		r.send(r.categories(700, 200, "a"))
		r.wantDrops("page:a1", "page:a2", "page:a3")
		r.wantLoads("page:a1", "page:a2")
		r.send(r.categories(701, 300, "b", "c"))
		r.wantLoads("page:a1", "page:a2", "page:b1", "page:b2", "page:b3", "page:c1")
	})
}

// What one row leads to may be more than memory has room for: it is taken from the
// database as fast as Redis takes it.
func TestAHugeResultIsStreamed(t *testing.T) {
	const keys = 100_000
	playWith(t, pages(t), func(r *rig) {
		r.start()
		var given atomic.Int64
		r.finder.set(func(_ context.Context, _ [][]*string, each func([][]byte) error) (uint64, error) {
			for i := range keys {
				if err := each([][]byte{fmt.Appendf(nil, "%d", i)}); err != nil {
					return 0, err
				}
				given.Add(1)
			}
			return 0, nil
		})
		blocked := make(chan struct{})
		r.sink.set(func(s *sink) { s.blocked = blocked })
		r.send(r.categories(700, 200, "a"))
		r.pass(time.Minute)
		if n := given.Load(); n > 60*plan.BatchKeysMax {
			t.Errorf("%d keys were taken while Redis takes none", n)
		}
		r.sink.set(func(s *sink) { s.blocked = nil })
		close(blocked)
		r.pass(time.Minute)
		if n := len(r.drops()); n != keys {
			t.Errorf("%d keys were dropped, want %d", n, keys)
		}
		for _, w := range r.sink.all() {
			if n := len(strings.Fields(w.keys)); n > plan.BatchKeysMax {
				t.Errorf("a batch of %d keys", n)
			}
		}
		if r.sink.watermark().Lo != at(208) {
			t.Errorf("the watermark stands at %s", r.sink.watermark().Lo)
		}
	})
}

// Another try would end the same, so the entry is swept, and somebody is told why.
func TestAnUnanswerableLookupSweepsItsEntry(t *testing.T) {
	playWith(t, pages(t), func(r *rig) {
		r.start()
		r.finder.set(func(_ context.Context, _ [][]*string, each func([][]byte) error) (uint64, error) {
			_ = each([][]byte{[]byte("a1")})
			return 0, fmt.Errorf("look up keys: %w: division by zero", change.ErrUnanswerable)
		})
		r.send(r.categories(700, 200, "a"))
		if mark := r.sink.watermark(); mark.Lo != at(208) || mark.Settled != at(100) {
			t.Errorf("while it is swept the watermark stands at %s, settled %s", mark.Lo, mark.Settled)
		}
		r.pass(time.Minute)
		if swept := r.sink.sweeps(); len(swept) != 2 || swept[0].templates != pageTemplate {
			t.Errorf("swept %v", swept)
		}
		r.wantLogged("division by zero", 1)
		r.observer.get(func(o *observer) {
			if diff := cmp.Diff([]string{"page unknown"}, o.requested); diff != "" {
				t.Errorf("sweeps (-want +got):\n%s", diff)
			}
			if len(o.held) > 0 {
				t.Errorf("held: %v", o.held)
			}
		})
		if mark := r.sink.watermark(); mark.Settled != at(208) || len(mark.Sweeps) > 0 {
			t.Errorf("after it the watermark is %+v", mark)
		}
	})
}

// What was asked is asked again when the database is back, whatever it had answered.
func TestALookupIsHeldWhileTheDatabaseIsAway(t *testing.T) {
	playWith(t, pages(t), func(r *rig) {
		r.start()
		r.finder.set(func(_ context.Context, _ [][]*string, each func([][]byte) error) (uint64, error) {
			_ = each([][]byte{[]byte("a1")})
			return 0, errors.New("connection reset")
		})
		r.send(r.categories(700, 200, "a"), r.categories(701, 220, "b"))
		r.pass(time.Minute)
		if lo := r.sink.watermark().Lo; lo != at(100) {
			t.Errorf("the watermark stands at %s while nobody answers", lo)
		}
		r.wantLogged("holding", 1)
		r.finder.set(finds(0, 2))
		r.pass(time.Minute)
		if lo := r.sink.watermark().Lo; lo != at(228) {
			t.Errorf("the watermark stands at %s", lo)
		}
		for _, key := range []string{"page:a1", "page:a2", "page:b1", "page:b2"} {
			if !slices.Contains(r.drops(), key) {
				t.Errorf("%s was not dropped", key)
			}
		}
		r.wantLogged("going on", 1)
	})
}

// A stopped loop does not wait for a database that is away: what was asked comes again.
func TestALookupDoesNotHoldUpTheEnd(t *testing.T) {
	playWith(t, pages(t), func(r *rig) {
		r.finder.set(func(ctx context.Context, _ [][]*string, _ func([][]byte) error) (uint64, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		})
		r.start()
		r.send(r.categories(700, 200, "a"))
		began := time.Now()
		r.end()
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("it took %s", took)
		}
		if mark := r.sink.watermark(); mark.Lo != at(100) && len(mark.Sweeps) == 0 {
			t.Errorf("the watermark stands at %s, and nothing is to be swept", mark.Lo)
		}
	})
}

// A lookup may have seen that a row has left a category before the stream brings that:
// until it does, the row's key is not dropped, and a barrier must not pass.
func TestSettledWaitsForWhatLookupsHaveSeen(t *testing.T) {
	playWith(t, pages(t), func(r *rig) {
		r.finder.set(finds(500, 1))
		r.start()
		for _, step := range []struct {
			what        string
			changes     []change.Change
			lo, settled uint64
		}{
			{"a change before", r.users(699, 150, "1"), 158, 158},
			{"the change that asks", r.categories(700, 200, "a"), 208, 158},
			{"a change that asks nothing", r.users(701, 300, "1"), 308, 158},
			{"the log moves on, not far enough", []change.Change{idle(440)}, 440, 158},
			{"behind what the lookup saw", r.users(702, 500, "1"), 508, 508},
			{"and after that", []change.Change{idle(600)}, 600, 600},
		} {
			r.send(step.changes)
			r.pass(time.Second)
			if mark := r.sink.watermark(); mark.Lo != at(step.lo) || mark.Settled != at(step.settled) {
				t.Errorf("%s: the watermark stands at %s, settled %s, want %s, %s", step.what, mark.Lo, mark.Settled, at(step.lo), at(step.settled))
			}
		}
	})
}

// A lookup did not find a key since a row behind it had moved, and what that one drops is
// not known: its entry is swept. That the stream has passed it is not enough.
func TestSettledWaitsForTheSweepsThatLookupsRelyOn(t *testing.T) {
	playWith(t, pages(t), func(r *rig) {
		r.finder.set(finds(300, 1))
		r.start()
		r.send(r.categories(700, 200, "a"))
		r.wantMark("the lookup has seen more", 208, 100)
		truncated := r.categories(701, 300, "b")
		truncated[0].Op, truncated[0].New = change.Truncate, change.Row{}
		r.send(truncated)
		r.wantMark("the stream has passed that, and the sweep runs", 308, 100, wide(pageTemplate)...)
		r.pass(time.Minute)
		r.wantMark("it has ended", 308, 308)
	})
}

// A lookup did not find a key since a row had moved whose own keys must be looked up, and
// that lookup did not find it either, since another had moved.
func TestSettledWaitsForLookupsThatLookupsRelyOn(t *testing.T) {
	entries := pages(t)
	entries[0].Dependencies = append(entries[0].Dependencies, plan.Dependency{
		Schema: "public", Table: "shelves", Columns: []string{"id"},
		Paths: []plan.Path{{Lookup: &plan.Lookup{SQL: "SELECT", Arguments: []plan.Argument{{Column: "id", Type: "text"}}}}},
	})
	playWith(t, entries, func(r *rig) {
		r.finder.set(finds(300, 1))
		r.start()
		r.send(r.categories(700, 200, "a"))
		r.wantMark("the first has seen the second", 208, 100)
		r.finder.set(finds(400, 1))
		shelves := r.categories(701, 300, "b")
		shelves[0].Relation = r.relation(8, "shelves", "id")
		r.send(shelves)
		r.wantMark("the second has seen the third", 308, 100)
		r.finder.set(finds(500, 1))
		r.send(r.categories(702, 350, "c"))
		r.wantMark("on the first nothing relies", 358, 100)
		r.send([]change.Change{idle(400)})
		r.pass(time.Second)
		r.wantMark("the stream has brought the third", 400, 208)
	})
}

// A sweep may hold settled where the log of another timeline was, whose places say nothing
// of this one.
func TestASweepOfAnotherTimelineReleasesNoLookup(t *testing.T) {
	playWith(t, pages(t), func(r *rig) {
		old := change.Position{Timeline: 1, LSN: 5000}
		r.sink.mark.Lo, r.sink.mark.Settled = old, old
		r.source.at.Origin.Timeline = 2
		r.source.at.Streams[0].Confirmed = change.Position{Timeline: 2, LSN: 1000}
		r.gate.insert = 1000
		r.finder.set(finds(1300, 1))
		r.start()
		renamed := r.categories(700, 1200, "a")
		for i := range renamed {
			renamed[i].Position.Timeline = 2
		}
		r.send(renamed)
		r.pass(time.Minute)
		if settled := r.sink.watermark().Settled; settled != (change.Position{Timeline: 2, LSN: 1000}) {
			t.Errorf("settled at %s, and the lookup has seen 2/1300", settled)
		}
	})
}

// A lookup that somebody has written may be led astray by a row of each table that it
// names, though a change of that one asks the same.
func TestSettledWaitsForAWrittenLookupOnItself(t *testing.T) {
	entries := pages(t)
	for i := range entries[0].Dependencies {
		for _, path := range entries[0].Dependencies[i].Paths {
			if path.Lookup != nil {
				path.Lookup.Written, path.Lookup.Reads = true, 2
			}
		}
	}
	playWith(t, entries, func(r *rig) {
		r.finder.set(finds(300, 1))
		r.start()
		r.send(r.categories(700, 200, "a"))
		r.wantMark("the first has seen the second", 208, 100)
		r.finder.set(finds(400, 1))
		r.send(r.categories(701, 300, "b"))
		r.wantMark("the second has seen a third", 308, 100)
	})
}

// Where every change asks, the log is always ahead of the stream: settled follows all
// the same, at a distance.
func TestSettledIsNotHeldForEver(t *testing.T) {
	playWith(t, pages(t), func(r *rig) {
		const ahead = 1000
		lsn := uint64(200)
		r.finder.set(func(ctx context.Context, arguments [][]*string, each func([][]byte) error) (uint64, error) {
			return lsn + ahead, nil
		})
		r.start()
		last := at(100)
		for i := range 200 {
			lsn = 200 + 100*uint64(i)
			r.send(r.categories(uint32(700+i), lsn, fmt.Sprint(i)))
			r.pass(20 * time.Millisecond)
			mark := r.sink.watermark()
			if mark.Settled.Compare(last) < 0 {
				t.Fatalf("settled went back from %s to %s", last, mark.Settled)
			}
			if mark.Lo != at(lsn+8) {
				t.Fatalf("the watermark stands at %s, want %s", mark.Lo, at(lsn+8))
			}
			if i > 30 && mark.Settled.LSN+3*ahead < lsn {
				t.Fatalf("the stream stands at %s, settled at %s", mark.Lo, mark.Settled)
			}
			last = mark.Settled
		}
		r.send([]change.Change{idle(lsn + ahead)})
		r.pass(time.Second)
		if mark := r.sink.watermark(); mark.Settled != mark.Lo {
			t.Errorf("behind everything settled stands at %s, not at %s", mark.Settled, mark.Lo)
		}
	})
}

// Nobody remembers how much the lookups of an earlier session have seen: no more than
// was in the log when this one began.
func TestSettledIsHeldOverARestart(t *testing.T) {
	playWith(t, pages(t), func(r *rig) {
		r.finder.set(finds(500, 1))
		r.start()
		r.send(r.categories(700, 200, "a"))
		if mark := r.sink.watermark(); mark.Lo != at(208) || mark.Settled != at(100) {
			t.Fatalf("the watermark stands at %s, settled %s", mark.Lo, mark.Settled)
		}
		r.end()
		r.gate.set(func(g *gate) { g.insert = 900 })
		r.start()
		for _, step := range []struct{ lsn, settled uint64 }{{600, 100}, {850, 100}, {900, 900}} {
			r.send([]change.Change{idle(step.lsn)})
			r.pass(time.Second)
			if mark := r.sink.watermark(); mark.Lo != at(step.lsn) || mark.Settled != at(step.settled) {
				t.Errorf("the watermark stands at %s, settled %s, want %s, %s", mark.Lo, mark.Settled, at(step.lsn), at(step.settled))
			}
		}
	})
}

// What the entries' queries read is not what it was: who has planned must plan anew.
func TestAReplanEndsRun(t *testing.T) {
	for _, when := range []string{"before it began", "later"} {
		t.Run(when, func(t *testing.T) {
			playWith(t, pages(t), func(r *rig) {
				replan := fmt.Errorf("%w: entry page", change.ErrReplan)
				if when != "later" {
					r.catalog.set(func(c *catalog) { c.err = replan })
				}
				r.finder.set(finds(0, 1))
				r.start()
				if when == "later" {
					r.send(r.categories(700, 200, "a"))
					r.catalog.set(func(c *catalog) { c.err = replan })
				}
				r.pass(time.Minute)
				select {
				case err := <-r.done:
					if !errors.Is(err, change.ErrReplan) {
						t.Errorf("Run returned %v", err)
					}
				default:
					t.Error("Run goes on")
					r.stop()
					<-r.done
				}
				r.stop()
				r.loop = nil
				synctest.Wait()
			})
		})
	}
}
