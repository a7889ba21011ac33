package apply_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
)

const manyKeys = 20_000

// fansOut answers category a with very many pages, of which it gives half and then waits
// for more, and others with one.
func fansOut(insert uint64, more <-chan struct{}, end error) func(context.Context, [][]*string, func([][]byte) error) (uint64, error) {
	return func(ctx context.Context, arguments [][]*string, each func([][]byte) error) (uint64, error) {
		for _, category := range arguments[0] {
			if (*category)[0] != 'a' {
				if err := each([][]byte{[]byte(*category + "1")}); err != nil {
					return 0, err
				}
				continue
			}
			for i := range manyKeys {
				if i == manyKeys/2 {
					select {
					case <-more:
					case <-ctx.Done():
						return 0, ctx.Err()
					}
				}
				if err := each([][]byte{fmt.Appendf(nil, "%s%d", *category, page(i))}); err != nil {
					return 0, err
				}
			}
		}
		return insert, end
	}
}

// page is the one that row i of a fan-out leads to: the first rows to a few.
func page(i int) int {
	if i < manyKeys/2 {
		return i % 100
	}
	return i
}

func (r *rig) wantMark(what string, lo, settled uint64, sweeps ...guard.Sweep) {
	r.t.Helper()
	mark := r.sink.watermark()
	if mark.Lo != at(lo) || mark.Settled != at(settled) || !slices.Equal(mark.Sweeps, sweeps) {
		r.t.Errorf("%s: the watermark stands at %s, settled %s, sweeps %v; want %s, %s, %v", what, mark.Lo, mark.Settled, mark.Sweeps, at(lo), at(settled), sweeps)
	}
}

// The changes behind one that very many keys hang on do not wait for them. As long as it
// lasts the watermark says that the entry is to be swept, and settled stands before it;
// then until all that the lookup has seen has dropped its keys.
func TestAFanOutGoesOnBeside(t *testing.T) {
	card, err := guard.ParseTemplate("card:{id}")
	if err != nil {
		t.Fatal(err)
	}
	entries := pages(t)
	entries = append([]plan.Entry{{Name: "card", Key: card, Lease: guard.Lease, Query: "SELECT", Dependencies: slices.Clone(entries[0].Dependencies)}}, entries...)
	entries[0].Dependencies[0].Paths = []plan.Path{{Lookup: &plan.Lookup{SQL: "SELECT", Arguments: []plan.Argument{{Column: "id", Type: "text"}}}}}
	playWith(t, entries, func(r *rig) {
		more := make(chan struct{})
		fan, asked := fansOut(900, more, nil), 0
		r.finder.set(func(ctx context.Context, arguments [][]*string, each func([][]byte) error) (uint64, error) {
			if asked++; asked == 1 { // the cards
				return 0, each([][]byte{[]byte("c")})
			}
			return fan(ctx, arguments, each)
		})
		r.start()
		r.send(r.categories(700, 200, "a"))
		r.wantMark("the fan-out has begun", 208, 100, wide(pageTemplate)...)
		if !slices.Contains(r.drops(), "card:c") {
			t.Error("what the lookup before has found is not dropped, and nothing says that it is to be")
		}
		r.finder.set(finds(0, 1))
		r.send(r.users(701, 300, "7"), r.categories(702, 320, "b"))
		r.wantMark("others go by", 328, 100, wide(pageTemplate)...)
		for _, key := range []string{"user:7", "page:b1", "card:b1"} {
			if !slices.Contains(r.drops(), key) {
				t.Errorf("%s waits for the fan-out", key)
			}
		}
		if status := r.loop.Status(); !status.Ready() {
			t.Errorf("not ready: %+v", status)
		}
		close(more)
		r.pass(time.Second)
		r.wantMark("the fan-out is over", 328, 100)
		dropped := map[string]bool{}
		for _, key := range r.drops() {
			dropped[key] = true
		}
		for i := range manyKeys {
			if key := fmt.Sprint("page:a", page(i)); !dropped[key] {
				t.Fatalf("%s was not dropped", key)
			}
		}
		r.send([]change.Change{idle(800)})
		r.pass(time.Second)
		r.wantMark("the stream is not there yet", 800, 100)
		r.send([]change.Change{idle(900)})
		r.pass(time.Second)
		r.wantMark("the stream has passed what it has seen", 900, 900)
		if swept := r.sink.sweeps(); len(swept) > 0 {
			t.Errorf("swept %v", swept)
		}
	})
}

// Nor do they wait for a statement that takes long, whatever it finds in the end.
func TestASlowLookupGoesOnBeside(t *testing.T) {
	playWith(t, pages(t), func(r *rig) {
		more := make(chan struct{})
		r.finder.set(func(ctx context.Context, arguments [][]*string, each func([][]byte) error) (uint64, error) {
			if err := each([][]byte{[]byte("early")}); err != nil {
				return 0, err
			}
			select {
			case <-more:
			case <-ctx.Done():
				return 0, ctx.Err()
			}
			return 0, each([][]byte{[]byte("late")})
		})
		r.start()
		r.send(r.categories(700, 200, "a"), r.users(701, 300, "7"))
		r.wantMark("it may end soon", 100, 100)
		r.pass(time.Second)
		r.wantMark("it does not", 308, 100, wide(pageTemplate)...)
		r.wantDrops("page:early", "user:7")
		close(more)
		r.pass(time.Second)
		r.wantDrops("page:early", "user:7", "page:late")
		r.wantMark("it has", 308, 308)
	})
}

// Nobody knows how far a fan-out was whose session has ended: its entry is swept, and
// settled does not pass before that.
func TestAnUnfinishedFanOutIsSwept(t *testing.T) {
	playWith(t, pages(t), func(r *rig) {
		r.finder.set(fansOut(0, nil, nil))
		r.start()
		r.send(r.categories(700, 200, "a"), r.users(701, 300, "7"))
		r.wantMark("the fan-out has begun", 308, 100, wide(pageTemplate)...)
		began := time.Now()
		r.end()
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("the end took %s", took)
		}
		r.wantMark("it has ended", 308, 100, wide(pageTemplate)...)
		r.start()
		r.wantMark("another one has begun", 308, 100, wide(pageTemplate)...)
		r.pass(time.Minute)
		r.wantMark("it has swept", 308, 308)
		if swept := r.sink.sweeps(); len(swept) != 2 || swept[0].templates != pageTemplate {
			t.Errorf("swept %v", swept)
		}
	})
}

// A session that breaks takes its fan-outs with it.
func TestABrokenSessionEndsItsFanOuts(t *testing.T) {
	playWith(t, pages(t), func(r *rig) {
		r.finder.set(fansOut(0, nil, nil))
		r.start()
		r.send(r.categories(700, 200, "a"))
		r.wantMark("the fan-out has begun", 208, 100, wide(pageTemplate)...)
		r.source.fail(guard.ErrLost)
		r.pass(time.Minute)
		if owners := r.sink.owners(); owners < 2 {
			t.Error("the stream was not taken over again")
		}
		r.wantMark("the next one has swept", 208, 208)
	})
}

// A fan-out that is refused in its course has its entry swept; settled stands where the
// fan-out held it, though the stream has gone on.
func TestARefusedFanOutIsSwept(t *testing.T) {
	playWith(t, pages(t), func(r *rig) {
		more := make(chan struct{})
		r.finder.set(fansOut(0, more, fmt.Errorf("%w: out of range", change.ErrUnanswerable)))
		r.start()
		r.send(r.categories(700, 200, "a"), r.users(701, 300, "7"))
		close(more)
		synctest.Wait()
		r.wantMark("it is refused", 308, 100, wide(pageTemplate)...)
		r.wantLogged("out of range", 1)
		r.pass(time.Minute)
		r.wantMark("it was swept", 308, 308)
		if swept := r.sink.sweeps(); len(swept) != 2 || swept[0].templates != pageTemplate {
			t.Errorf("swept %v", swept)
		}
	})
}

// The sweep of a refused one may join others that were asked for later: settled does not
// pass it by their place.
func TestARefusedFanOutHoldsSettledBehindOtherSweeps(t *testing.T) {
	playWith(t, pages(t), func(r *rig) {
		more := make(chan struct{})
		r.finder.set(fansOut(0, more, fmt.Errorf("%w: out of range", change.ErrUnanswerable)))
		r.start()
		r.send(r.categories(700, 200, "a"), r.truncate(701, 300))
		r.pass(passTime / 2) // the first sweep runs
		r.send(r.truncate(702, 400))
		close(more)
		r.pass(2 * passTime)
		if swept := r.sink.sweeps(); len(swept) != 3 {
			t.Fatalf("swept %v", swept)
		}
		r.wantMark("the second sweep runs", 408, 100, wide(pageTemplate, productTemplate)...)
		r.pass(time.Minute)
		r.wantMark("it is over", 408, 408)
	})
}

// No more than two go on beside: what comes behind them waits, and nothing is lost.
func TestFanOutsAreBounded(t *testing.T) {
	playWith(t, pages(t), func(r *rig) {
		more := make(chan struct{})
		r.finder.set(fansOut(0, more, nil))
		r.start()
		for i := range 4 {
			r.send(r.categories(uint32(700+i), 200+20*uint64(i), fmt.Sprint("a", i, "-")))
		}
		r.wantMark("two go on beside", 228, 100, wide(pageTemplate)...)
		close(more)
		r.pass(time.Minute)
		r.wantMark("all are over", 268, 268)
		dropped := map[string]bool{}
		for _, key := range r.drops() {
			dropped[key] = true
		}
		if want := 4 * (manyKeys/2 + 100); len(dropped) != want {
			t.Errorf("%d keys were dropped, want %d", len(dropped), want)
		}
		if diff := cmp.Diff(4, len(r.finder.statements())); diff != "" {
			t.Errorf("statements (-want +got):\n%s", diff)
		}
	})
}

// A database that goes away in the course of one is waited for, and what it was asked is
// asked again: the batch that asked is another's by then.
func TestAFanOutHoldsWhileTheDatabaseIsAway(t *testing.T) {
	playWith(t, pages(t), func(r *rig) {
		more := make(chan struct{})
		r.finder.set(fansOut(0, more, fmt.Errorf("connection reset")))
		r.start()
		r.send(r.categories(700, 200, "a"))
		r.finder.set(finds(0, 1))
		for i := range 200 {
			r.send(r.categories(uint32(701+i), 300+10*uint64(i), fmt.Sprint("b", i)))
		}
		close(more)
		r.pass(time.Minute)
		r.wantMark("it is over", 2298, 2298)
		if last := r.finder.statements(); last[len(last)-1] != "a" {
			t.Errorf("it was asked again for %q", last[len(last)-1])
		}
	})
}
