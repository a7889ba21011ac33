package fill_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/fill"
	"github.com/unstale/unstale/internal/plan"
)

// running runs a queue over w until the test ends.
func running(t *testing.T, w *world, onChange plan.OnChange, options fill.Options) *fill.Queue {
	t.Helper()
	options.Applied, options.Claim, options.Observer = w.Applied, claim, w
	q := fill.NewQueue(entries(t, onChange), w, w, options)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- q.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return q
}

// settle lets everything that is under way come to its end.
func settle(d time.Duration) {
	time.Sleep(d) // of the bubble's clock
	synctest.Wait()
}

// What a change has dropped is there again before anybody asks.
func TestARequestedKeyIsLoaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(3)
		q := running(t, w, plan.Refresh, fill.Options{})
		q.Request(0, "product:1")
		q.Request(0, "product:7") // there is no such row
		settle(time.Second)
		if diff := cmp.Diff(map[string]string{"product:1": "row 1"}, w.values); diff != "" {
			t.Errorf("cached (-want +got):\n%s", diff)
		}
		if len(w.leases) != 0 || q.Pending() != 0 {
			t.Errorf("left: leases %v, %d pending", w.leases, q.Pending())
		}
		if diff := cmp.Diff(fill.Tally{Stored: 1, Absent: 1}, w.tally); diff != "" {
			t.Errorf("tally (-want +got):\n%s", diff)
		}
	})
}

// A change that comes while its key is being loaded has ended the lease: what was
// loaded is refused, and its own request loads what the change has made.
func TestAChangeDuringALoadLoadsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(3)
		w.loadTime = 100 * time.Millisecond
		q := running(t, w, plan.Refresh, fill.Options{})
		q.Request(0, "product:1")
		settle(50 * time.Millisecond)
		w.change("1", "changed")
		q.Request(0, "product:1")
		q.Request(0, "product:1")
		settle(time.Second)
		if got := w.values["product:1"]; got != "changed" {
			t.Errorf("cached %q", got)
		}
		if diff := cmp.Diff(fill.Tally{Stored: 1, Refused: 1}, w.tally); diff != "" {
			t.Errorf("tally (-want +got):\n%s", diff)
		}
	})
}

// A hot row that changes a hundred times while it waits is one row to load.
func TestAKeyWaitsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(3)
		w.is("database", errAway)
		q := running(t, w, plan.Refresh, fill.Options{})
		for range 100 {
			q.Request(0, "product:1")
		}
		if q.Pending() != 1 {
			t.Errorf("%d pending", q.Pending())
		}
		w.is("database", nil)
		settle(10 * time.Second)
		if diff := cmp.Diff([]int{1}, w.loads); diff != "" {
			t.Errorf("loads (-want +got):\n%s", diff)
		}
	})
}

// While another reader loads a key there is nothing to do but to see whether it
// did; and if it never does, its lease ends.
func TestALeaseOfAnotherIsWaitedFor(t *testing.T) {
	t.Run("which fills", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(3)
			q := running(t, w, plan.Refresh, fill.Options{})
			w.leases["product:1"] = lease{"other", time.Now().Add(time.Second)}
			q.Request(0, "product:1")
			settle(500 * time.Millisecond)
			if _, err := w.Fill(t.Context(), nil, "other", 0, []string{"product:1"}, [][]string{{"of the other"}}); err != nil {
				t.Fatal(err)
			}
			settle(time.Second)
			if diff := cmp.Diff(fill.Tally{Cached: 1}, w.tally); diff != "" {
				t.Errorf("tally (-want +got):\n%s", diff)
			}
		})
	})
	t.Run("which has died", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(3)
			q := running(t, w, plan.Refresh, fill.Options{})
			w.leases["product:1"] = lease{"other", time.Now().Add(time.Second)}
			q.Request(0, "product:1")
			settle(1100 * time.Millisecond)
			if diff := cmp.Diff(fill.Tally{Stored: 1}, w.tally); diff != "" {
				t.Errorf("tally (-want +got):\n%s", diff)
			}
		})
	})
	// A key that others load all the time is theirs.
	t.Run("again and again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(3)
			q := running(t, w, plan.Refresh, fill.Options{})
			w.othersLoad = time.Second
			q.Request(0, "product:1")
			settle(time.Hour)
			if diff := cmp.Diff(fill.Tally{Busy: 1}, w.tally); diff != "" || q.Pending() != 0 {
				t.Errorf("%d pending, tally (-want +got):\n%s", q.Pending(), diff)
			}
		})
	})
}

// While a server is away nothing is lost, it is asked seldom, and it is said
// once.
func TestAnOutageIsHeldThrough(t *testing.T) {
	for _, server := range []string{"database", "redis"} {
		t.Run(server, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(1000)
				var log bytes.Buffer
				q := running(t, w, plan.Refresh, fill.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
				w.is(server, errAway)
				for i := range 1000 {
					q.Request(0, fmt.Sprint("product:", i))
				}
				settle(time.Minute)
				if q.Pending() != 1000 || len(w.leases) != 0 {
					t.Errorf("%d pending, %d leases", q.Pending(), len(w.leases))
				}
				// Once in 2.5 to 5 s, and at first more often, by each worker.
				if w.calls > 400 || w.held[server] == 0 {
					t.Errorf("%d calls, held %v", w.calls, w.held)
				}
				w.is(server, nil)
				settle(10 * time.Second)
				if wrong, cached := w.wrong(); cached != 1000 || len(wrong) > 0 {
					t.Errorf("%d cached, wrong: %v", cached, wrong)
				}
				if n := strings.Count(log.String(), "\n"); n != 2 {
					t.Errorf("%d lines:\n%s", n, log.String())
				}
			})
		})
	}
}

// A table that somebody alters for a while is no reason to leave the others
// alone, nor to say again and again that it is held.
func TestALockedTableHoldsItsOwnEntryOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(1000)
		locked := true
		w.refuses = func(id string) error {
			if locked && len(id) == 1 {
				return refusal("55P03")
			}
			return nil
		}
		var log bytes.Buffer
		both := entries(t, plan.Refresh)
		both = append(both, both[0])
		q := fill.NewQueue(both, w, w, fill.Options{Applied: w.Applied, Claim: claim, Observer: w, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- q.Run(ctx) }()
		for i := range 1000 {
			q.Request(min(1, i/10), fmt.Sprint("product:", i))
			if i%50 == 0 {
				settle(100 * time.Millisecond)
			}
		}
		settle(time.Second)
		if _, cached := w.wrong(); cached != 990 || q.Pending() != 10 {
			t.Errorf("%d cached, %d pending", cached, q.Pending())
		}
		w.mu.Lock()
		locked = false
		w.mu.Unlock()
		settle(10 * time.Second)
		if _, cached := w.wrong(); cached != 1000 {
			t.Errorf("%d cached", cached)
		}
		if n := strings.Count(log.String(), "\n"); n != 2 {
			t.Errorf("%d lines:\n%s", n, log.String())
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// Another instance has the stream, perhaps with other columns. What it sweeps is
// not filled again, and what it drops it has loaded itself.
func TestWhatAnotherOwnerHasTakenUpIsNotLoaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(1000)
		q := running(t, w, plan.Refresh, fill.Options{RowsPerSecond: 100})
		for i := range 1000 {
			q.Request(0, fmt.Sprint("product:", i))
		}
		settle(2 * time.Second)
		w.supersede()
		settle(time.Second)
		_, before := w.wrong()
		settle(time.Second)
		if _, cached := w.wrong(); cached != before || before == 0 || len(w.leases) != 0 {
			t.Errorf("%d cached, %d a second before, %d leases", cached, before, len(w.leases))
		}
		q.Forget()
		settle(time.Second)
		if _, cached := w.wrong(); q.Pending() != 0 || cached+w.dropped != 1000 {
			t.Errorf("%d pending, %d cached, %d dropped", q.Pending(), cached, w.dropped)
		}
		if len(w.held) != 0 {
			t.Errorf("held %v: no server is away", w.held)
		}
	})
}

// One row that cannot be read must not keep the others of its chunk from being
// loaded, nor be tried for ever.
func TestARowThatCannotBeReadCostsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(1000)
		w.refuses = func(id string) error {
			if id == "500" || id == "501" {
				return refusal("22P02")
			}
			return nil
		}
		var log bytes.Buffer
		q := running(t, w, plan.Refresh, fill.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		for i := range 1000 {
			q.Request(0, fmt.Sprint("product:", i))
		}
		settle(time.Minute)
		if diff := cmp.Diff(fill.Tally{Stored: 998, Failed: 2}, w.tally); diff != "" {
			t.Errorf("tally (-want +got):\n%s", diff)
		}
		if q.Pending() != 0 || len(w.leases) != 0 || len(w.held) != 0 {
			t.Errorf("%d pending, leases %v, held %v", q.Pending(), w.leases, w.held)
		}
		if n := strings.Count(log.String(), "\n"); n != 1 {
			t.Errorf("%d lines:\n%s", n, log.String())
		}
	})
}

// A right that is gone is so for every key: to look for the one that is wrong, by
// halves, would be hundreds of statements for each chunk, and no key is.
func TestATableThatCannotBeReadIsAskedSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(1000)
		w.is("database", refusal("42501"))
		var log bytes.Buffer
		q := running(t, w, plan.Refresh, fill.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		for i := range 1000 {
			q.Request(0, fmt.Sprint("product:", i))
		}
		settle(time.Minute)
		if w.calls > 400 || len(w.leases) != 0 {
			t.Errorf("%d calls in a minute, %d leases", w.calls, len(w.leases))
		}
		if w.tally.Failed == 0 || w.tally.Failed+q.Pending() != 1000 {
			t.Errorf("%d failed, %d pending", w.tally.Failed, q.Pending())
		}
		w.is("database", nil)
		settle(10 * time.Second)
		if wrong, cached := w.wrong(); cached != 1000-w.tally.Failed || cached < 100 || len(wrong) > 0 {
			t.Errorf("%d cached, %d failed, wrong %v", cached, w.tally.Failed, wrong)
		}
		if n := strings.Count(log.String(), "\n"); n != 2 {
			t.Errorf("%d lines:\n%s", n, log.String())
		}
	})
}

// A database that is too busy for a chunk is not to be asked for its halves at
// once, and again for theirs, nor for as much the next time. Each such statement
// keeps it busy for the length of a lease.
func TestABusyDatabaseIsAskedForLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(1000)
		tooMuch, most := 0, 1
		w.busy = func(keys int) error {
			if keys > most {
				tooMuch++
				return refusal("57014")
			}
			return nil
		}
		q := running(t, w, plan.Refresh, fill.Options{})
		for i := range 1000 {
			q.Request(0, fmt.Sprint("product:", i))
		}
		settle(30 * time.Second)
		w.mu.Lock()
		if stored := w.tally.Stored; w.held["database"] != tooMuch || tooMuch > 16+stored/4 || stored == 0 || w.tally.Failed > 0 {
			t.Errorf("%d statements were too much, held %v, %+v", tooMuch, w.held, w.tally)
		}
		most = 1000
		w.mu.Unlock()
		settle(time.Minute)
		if _, cached := w.wrong(); cached != 1000 {
			t.Errorf("%d cached, %d pending", cached, q.Pending())
		}
	})
}

// Alone, a key whose row takes longer than its lease is the one.
func TestARowThatTakesTooLongCostsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(100)
		w.refuses = func(id string) error {
			if id == "50" {
				return refusal("57014")
			}
			return nil
		}
		q := running(t, w, plan.Refresh, fill.Options{})
		for i := range 100 {
			q.Request(0, fmt.Sprint("product:", i))
		}
		settle(time.Minute)
		if diff := cmp.Diff(fill.Tally{Stored: 99, Failed: 1}, w.tally); diff != "" {
			t.Errorf("%d pending, tally (-want +got):\n%s", q.Pending(), diff)
		}
	})
}

// A person needs a key to look at, and each reason once: ten thousand keys that
// have the same are one line, and do not hide another reason.
func TestEachReasonIsSaidOnceWithAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(100)
		other, noTag := errors.New("WRONGTYPE"), errors.New("empty tag")
		w.broken = map[string]error{}
		for i := range 10 {
			key := fmt.Sprint("product:", i)
			w.broken[key] = fmt.Errorf("%s holds a list: %w", key, other)
		}
		w.broken["product:99"] = fmt.Errorf("product:99: %w", noTag)
		w.refuses = func(id string) error {
			if id == "50" {
				return refusal("21000")
			}
			return nil
		}
		var log bytes.Buffer
		q := running(t, w, plan.Refresh, fill.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		for i := range 100 {
			q.Request(0, fmt.Sprint("product:", i))
		}
		settle(time.Minute)
		if diff := cmp.Diff(fill.Tally{Stored: 88, Failed: 12}, w.tally); diff != "" {
			t.Errorf("tally (-want +got):\n%s", diff)
		}
		if n := strings.Count(log.String(), "\n"); n != 3 {
			t.Errorf("%d lines", n)
		}
		for _, want := range []string{"key=product:99", "key=product:50", "WRONGTYPE"} {
			if strings.Count(log.String(), want) != 1 {
				t.Errorf("no line, or several, with %s", want)
			}
		}
		if t.Failed() {
			t.Log(log.String())
		}
	})
}

// What the primary is asked for stays below the limit, whatever is requested,
// and in small portions.
func TestLoadsKeepTheirPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(10_000)
		q := running(t, w, plan.Refresh, fill.Options{RowsPerSecond: 100})
		for i := range 10_000 {
			q.Request(0, fmt.Sprint("product:", i))
		}
		settle(10 * time.Second)
		if _, cached := w.wrong(); cached < 950 || cached > 1010 {
			t.Errorf("%d rows in ten seconds at 100 a second", cached)
		}
		for _, n := range w.loads {
			if n > 10 {
				t.Fatalf("%d rows at once", n)
			}
		}
	})
}

// More requests than the limit are dropped and counted: the keys are absent, and
// the next reader loads them. Memory is bounded.
func TestRequestsBeyondTheLimitAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(1)
		w.is("redis", errAway)
		var log bytes.Buffer
		q := running(t, w, plan.Refresh, fill.Options{RowsPerSecond: 1e6, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		for i := range fill.PendingKeysMax + 500 {
			q.Request(0, fmt.Sprint("product:", i))
		}
		if q.Pending() != fill.PendingKeysMax || w.dropped != 500 {
			t.Errorf("%d pending, %d dropped", q.Pending(), w.dropped)
		}
		w.is("redis", nil)
		for q.Pending() > 0 {
			time.Sleep(time.Second)
			synctest.Wait()
		}
		for _, said := range []string{"too many keys are to be loaded", "unstale warm product does\" entry=product keys=500"} {
			if strings.Count(log.String(), said) != 1 {
				t.Errorf("%q is not said once:\n%s", said, &log)
			}
		}
		long := newWorld(1)
		long.is("redis", errAway)
		q = running(t, long, plan.Refresh, fill.Options{})
		for i := range 100 {
			q.Request(0, fmt.Sprint("product:", strings.Repeat("9", 1<<20), i))
		}
		if q.Pending() >= 16 || q.Pending()+long.dropped != 100 {
			t.Errorf("%d pending, %d dropped", q.Pending(), long.dropped)
		}
	})
}

// A value that a change could overwrite with an older one gets a shield; if the
// stream is past it none is needed, and a moment's wait saves a key in Redis.
func TestAShieldIsLeftOnlyWhereTheStreamIsBehind(t *testing.T) {
	for _, test := range []struct {
		name     string
		onChange plan.OnChange
		behind   time.Duration
		shield   bool
	}{
		{"never set by a change", plan.Refresh, time.Hour, false},
		{"stream is past", plan.Warm, 0, false},
		{"stream comes soon", plan.Warm, 20 * time.Millisecond, false},
		{"stream is behind", plan.Warm, time.Second, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(3)
				w.log, w.applied = 100, 1
				time.AfterFunc(test.behind, func() {
					w.mu.Lock()
					defer w.mu.Unlock()
					w.applied = 100
				})
				synctest.Wait()
				q := running(t, w, test.onChange, fill.Options{})
				q.Request(0, "product:1")
				settle(500 * time.Millisecond)
				if shield, filled := w.shields["product:1"]; shield != test.shield || !filled {
					t.Errorf("filled %v, with a shield %v", filled, shield)
				}
			})
		})
	}
}

// Over topics nobody knows what of the log is applied: a wait would be for nothing,
// and readers would wait as long.
func TestNobodyWaitsForAStreamWhosePlaceIsNotKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(3)
		w.log = 100
		q := running(t, w, plan.Warm, fill.Options{})
		q.Request(0, "product:1")
		synctest.Wait()
		if shield, filled := w.shields["product:1"]; !shield || !filled {
			t.Errorf("filled %v, with a shield %v", filled, shield)
		}
	})
}

// A change of an update entry asks for no load of a key that is not cached, and
// while it is being loaded it is not. A row that never rests is left to readers.
func TestAnUpdateDuringALoadLoadsAgain(t *testing.T) {
	for _, test := range []struct {
		changes int
		want    fill.Tally
	}{{2, fill.Tally{Stored: 1}}, {100, fill.Tally{Refused: 1}}} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(3)
			n := 0
			w.afterLoad = func() {
				if n++; n <= test.changes {
					w.change("1", fmt.Sprint("changed ", n))
				}
			}
			q := running(t, w, plan.Update, fill.Options{})
			q.Request(0, "product:1")
			settle(time.Second)
			if diff := cmp.Diff(test.want, w.tally); diff != "" {
				t.Errorf("tally (-want +got):\n%s", diff)
			}
			if wrong, cached := w.wrong(); len(wrong) > 0 || cached != test.want.Stored || q.Pending() != 0 {
				t.Errorf("%d cached, wrong %v, %d pending", cached, wrong, q.Pending())
			}
		})
	}
}

// A load that takes longer than the lease is refused; its key is not loaded for
// ever, and the lease is not left behind.
func TestALoadThatHangsIsGivenUpWithItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(3)
		w.loadTime = time.Hour
		q := running(t, w, plan.Refresh, fill.Options{})
		q.Request(0, "product:1")
		settle(3500 * time.Millisecond)
		if w.held["database"] == 0 {
			t.Error("not held")
		}
		w.mu.Lock()
		w.loadTime = 0
		w.mu.Unlock()
		settle(time.Minute)
		if got := w.values["product:1"]; got != "row 1" {
			t.Errorf("cached %q", got)
		}
	})
}
