package fill_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/fill"
	"github.com/unstale/unstale/internal/plan"
)

func warmer(t *testing.T, w *world, options fill.WarmOptions) *fill.Warmer {
	t.Helper()
	return warmerOf(entries(t, plan.Warm), w, options)
}

func warmerOf(entries []plan.Entry, w *world, options fill.WarmOptions) *fill.Warmer {
	options.Applied, options.Claim, options.Observer = w.Applied, claim, w
	if options.Save == nil {
		options.Save = w.save
	}
	return fill.NewWarmer(entries, w, w, w, options)
}

// Every row is in the cache afterwards, those that were cached are left alone,
// and progress only grows.
func TestAWarmLoadsEveryRow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(10_000)
		w.loadTime = time.Millisecond
		for i := range 100 {
			w.values[fmt.Sprint("product:", 10*i)] = fmt.Sprint("row ", 10*i)
		}
		p, err := warmer(t, w, fill.WarmOptions{}).Run(t.Context(), 0, fill.Progress{})
		if err != nil {
			t.Fatal(err)
		}
		want := fill.Progress{After: []string{"9999"}, Done: true, Tally: fill.Tally{Stored: 9900, Cached: 100}}
		if diff := cmp.Diff(want, p); diff != "" {
			t.Errorf("progress (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(want, w.saved[len(w.saved)-1]); diff != "" {
			t.Errorf("saved (-want +got):\n%s", diff)
		}
		if wrong, cached := w.wrong(); cached != 10_000 || len(wrong) > 0 || len(w.leases) > 0 {
			t.Errorf("%d cached, wrong %v, %d leases", cached, wrong, len(w.leases))
		}
	})
}

// Whoever interrupts a warm goes on where it was: what was under way is done,
// and all before the saved place is, so no row is left out.
func TestAnInterruptedWarmGoesOnWhereItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(10_000)
		w.loadTime = 20 * time.Millisecond
		var p fill.Progress
		runs := 0
		for !p.Done {
			runs++
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			var err error
			p, err = warmer(t, w, fill.WarmOptions{}).Run(ctx, 0, p)
			if !p.Done && !errors.Is(err, context.DeadlineExceeded) || p.Done && err != nil {
				t.Fatalf("%v: %v", p, err)
			}
			if diff := cmp.Diff(p, w.saved[len(w.saved)-1]); diff != "" {
				t.Fatalf("saved (-want +got):\n%s", diff)
			}
			cancel()
		}
		if wrong, cached := w.wrong(); cached != 10_000 || len(wrong) > 0 || runs < 3 {
			t.Errorf("%d cached in %d runs, wrong %v", cached, runs, wrong)
		}
		if n := p.Keys(); n != 10_000 {
			t.Errorf("%d keys counted", n)
		}
	})
}

// Rows change while they are being loaded: what was loaded before its change is
// refused.
func TestAWarmLeavesNoOldValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(2_000)
		w.loadTime = 5 * time.Millisecond
		var changed atomic.Int64
		w.afterLoad = func() {
			for range 3 {
				id := changed.Add(7)
				w.change(fmt.Sprint(id), fmt.Sprint("changed ", id))
			}
		}
		p, err := warmer(t, w, fill.WarmOptions{Workers: 8}).Run(t.Context(), 0, fill.Progress{})
		if err != nil {
			t.Fatal(err)
		}
		if wrong, cached := w.wrong(); len(wrong) > 0 || cached < 1_900 {
			t.Errorf("%d cached, %+v, wrong %v", cached, p, wrong)
		}
		if p.Refused == 0 {
			t.Error("no change met a load: this proves nothing")
		}
	})
}

// A change of an update entry that comes in between finds no value to set, and asks
// for none: the warm loads the row again.
func TestAWarmOfAnUpdateEntryLoadsWhatHasChangedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(100)
		changes := 0
		w.afterLoad = func() {
			if changes++; changes <= 3 {
				w.change("7", fmt.Sprint("changed ", changes))
			}
		}
		options := fill.WarmOptions{Applied: w.Applied, Claim: claim, Observer: w, Save: w.save, Workers: 1}
		p, err := fill.NewWarmer(entries(t, plan.Update), w, w, w, options).Run(t.Context(), 0, fill.Progress{})
		if err != nil {
			t.Fatal(err)
		}
		if wrong, cached := w.wrong(); len(wrong) > 0 || cached != 100 || p.Stored != 100 {
			t.Errorf("%d cached, %+v, wrong %v", cached, p, wrong)
		}
	})
}

// What a full Redis refuses has not changed meanwhile: nobody writes it later.
func TestAWarmCountsWhatAFullRedisRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(100)
		w.full = true
		var log bytes.Buffer
		p, err := warmer(t, w, fill.WarmOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))}).Run(t.Context(), 0, fill.Progress{})
		if diff := cmp.Diff(fill.Tally{Full: 100}, p.Tally); diff != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
		if strings.Count(log.String(), "redis is full") != 1 {
			t.Errorf("the log does not say once that Redis is full:\n%s", &log)
		}
	})
}

// Somebody looks on: that it holds is said again, and why.
func TestAWarmThatHoldsSaysSoAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(100)
		w.is("redis", errors.New("OOM command not allowed"))
		time.AfterFunc(time.Minute, func() { w.is("redis", nil) })
		var log bytes.Buffer
		if _, err := warmer(t, w, fill.WarmOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))}).Run(t.Context(), 0, fill.Progress{}); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(log.String(), "OOM command not allowed"); n < 4 || n > 7 {
			t.Errorf("said %d times in a minute:\n%s", n, &log)
		}
	})
}

// An outage in the middle is held through; a server that is another one now is
// not.
func TestAWarmHoldsWhileAServerIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(10_000)
		w.loadTime = 10 * time.Millisecond
		time.AfterFunc(50*time.Millisecond, func() { w.is("redis", errAway) })
		time.AfterFunc(10*time.Second, func() { w.is("redis", nil); w.is("database", errAway) })
		time.AfterFunc(20*time.Second, func() { w.is("database", nil) })
		p, err := warmer(t, w, fill.WarmOptions{}).Run(t.Context(), 0, fill.Progress{})
		if err != nil || p.Stored != 10_000 {
			t.Errorf("%+v: %v", p, err)
		}

		w.is("database", change.ErrOriginChanged)
		if _, err := warmer(t, w, fill.WarmOptions{}).Run(t.Context(), 0, fill.Progress{}); !errors.Is(err, change.ErrOriginChanged) {
			t.Errorf("another server: %v", err)
		}
		w.is("database", refusal("42P01"))
		if _, err := warmer(t, w, fill.WarmOptions{}).Run(t.Context(), 0, fill.Progress{}); err == nil {
			t.Error("a table that is gone is no error")
		}
	})
}

// A right that is gone only a person can give again: it is said, and not that every
// row has failed.
func TestAWarmEndsAtATableThatCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(1000)
		w.refuses = func(string) error { return refusal("42501") }
		p, err := warmer(t, w, fill.WarmOptions{}).Run(t.Context(), 0, fill.Progress{})
		if err == nil || p.Keys() != 0 || w.calls > 20 || len(w.leases) != 0 {
			t.Errorf("%v, %+v, %d calls, %d leases", err, p, w.calls, len(w.leases))
		}
	})
}

// A warm must not end because the database is busy for a while, neither while it
// walks nor while it loads: then it takes smaller steps.
func TestAWarmOfABusyDatabaseTakesSmallerSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(5000)
		most := 1000
		w.busy = func(keys int) error {
			if keys > most {
				return refusal("57014")
			}
			return nil
		}
		w.loadTime = 10 * time.Millisecond
		for after, keys := range map[time.Duration]int{50 * time.Millisecond: 3, time.Minute: 1000} {
			time.AfterFunc(after, func() {
				w.mu.Lock()
				defer w.mu.Unlock()
				most = keys
			})
		}
		p, err := warmer(t, w, fill.WarmOptions{}).Run(t.Context(), 0, fill.Progress{})
		if err != nil || !p.Done || p.Stored != 5000 {
			t.Errorf("%+v: %v", p, err)
		}
		if w.held["database"] == 0 {
			t.Error("it was never too busy: this proves nothing")
		}
	})
}

// The keys of a query that no index lists are found by reading its tables, as long for
// one of them as for all: to try again and again would read them again and again. Those of
// a table are in an index, and who cannot have one of them waits for a lock.
func TestAWarmEndsWhereNotOneKeyCanBeListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(1000)
		w.busy = func(int) error { return refusal("57014") }
		all := entries(t, plan.Refresh)
		all[0].Query = "SELECT 1"
		p, err := warmerOf(all, w, fill.WarmOptions{}).Run(t.Context(), 0, fill.Progress{})
		if err == nil || !strings.Contains(err.Error(), "write warm_keys") || p.Keys() != 0 {
			t.Errorf("%+v: %v", p, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := warmer(t, w, fill.WarmOptions{}).Run(ctx, 0, fill.Progress{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("of a table: %v", err)
		}
	})
}

// Behind a name that leads to several servers one load, and only one, may come to
// another one. The others must not wait for what that was to load.
func TestAWarmEndsWhenOneLoadComesToAnotherServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(100_000)
		w.loadTime = time.Millisecond
		rows := 0
		w.refuses = func(string) error {
			if rows++; rows == 500 {
				return change.ErrOriginChanged
			}
			return nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		p, err := warmer(t, w, fill.WarmOptions{}).Run(ctx, 0, fill.Progress{})
		if !errors.Is(err, change.ErrOriginChanged) || ctx.Err() != nil {
			t.Errorf("%+v: %v, %v", p, err, ctx.Err())
		}
	})
}

// Somebody starts the service with another configuration. What it sweeps must not
// be filled behind it with what the old one makes of a row.
func TestAWarmEndsWhereItsEntryIsAnotherOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(10_000)
		w.loadTime = 20 * time.Millisecond
		time.AfterFunc(50*time.Millisecond, w.supersede)
		p, err := warmer(t, w, fill.WarmOptions{}).Run(t.Context(), 0, fill.Progress{})
		if !errors.Is(err, fill.ErrSuperseded) || p.Done {
			t.Errorf("%+v: %v", p, err)
		}
		if _, cached := w.wrong(); cached == 0 || cached == 10_000 || len(w.leases) != 0 {
			t.Errorf("%d cached, %d leases", cached, len(w.leases))
		}
	})
}

// All loads wait behind a save, so one that fails or hangs is given up, and is
// left alone for a second: it is needed only in the end.
func TestASaveThatFailsHoldsNothingUp(t *testing.T) {
	for name, save := range map[string]func(context.Context) error{
		"at once": func(context.Context) error { return errAway },
		"hanging": func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(10_000)
				var saves []time.Time
				began := time.Now()
				var p fill.Progress
				_, err := warmer(t, w, fill.WarmOptions{RowsPerSecond: 1000, Save: func(ctx context.Context, _ int, at fill.Progress) error {
					saves = append(saves, time.Now())
					if p = at; at.Done {
						return nil
					}
					return save(ctx)
				}}).Run(t.Context(), 0, fill.Progress{})
				if err != nil || !p.Done || p.Stored != 10_000 {
					t.Errorf("saved at last: %+v, %v", p, err)
				}
				if took := time.Since(began); took > 15*time.Second || len(saves) < 4 {
					t.Errorf("took %s with %d saves", took, len(saves))
				}
				for i := 1; i < len(saves)-1; i++ {
					if apart := saves[i].Sub(saves[i-1]); apart < time.Second {
						t.Errorf("saved again after %s", apart)
					}
				}
			})
		})
	}
}

// Whoever says how fast, is obeyed.
func TestAWarmKeepsItsPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(1000)
		began := time.Now()
		if _, err := warmer(t, w, fill.WarmOptions{RowsPerSecond: 100}).Run(t.Context(), 0, fill.Progress{}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 9*time.Second || took > 11*time.Second {
			t.Errorf("1000 rows at 100 a second took %s", took)
		}
	})
}
