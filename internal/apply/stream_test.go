package apply_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/apply"
	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
)

// A reader that loads between the drop and the commit's visibility would put
// the old row back: nothing is dropped before everybody can see the new one.
func TestNothingIsWrittenBeforeItsTransactionIsVisible(t *testing.T) {
	play(t, func(r *rig) {
		r.gate.running[700] = true
		r.start()
		r.send(r.users(700, 200, "1"))
		r.pass(time.Minute)
		r.wantDrops()
		if lo := r.sink.watermark().Lo; lo != at(100) {
			r.t.Errorf("the watermark moved to %s", lo)
		}
		r.gate.set(func(g *gate) { delete(g.running, 700) })
		r.pass(time.Second)
		r.wantDrops("user:1")
		if w := r.sink.watermark(); w.Lo != at(208) || w.Settled != at(208) {
			r.t.Errorf("the watermark stands at %s, settled %s, want 208", w.Lo, w.Settled)
		}
	})
}

// The order of commits is the order of the cache.
func TestNothingOvertakesATransactionThatWaits(t *testing.T) {
	play(t, func(r *rig) {
		r.gate.running[700] = true
		r.start()
		r.send(r.users(700, 200, "1"), r.users(701, 210, "2"))
		r.send(r.users(702, 220, "3"))
		r.send([]change.Change{idle(300)})
		r.pass(time.Second)
		r.wantDrops()
		if lo := r.sink.watermark().Lo; lo != at(100) {
			r.t.Errorf("the watermark moved to %s", lo)
		}
		r.gate.set(func(g *gate) { clear(g.running) })
		r.pass(50 * time.Millisecond)
		r.wantDrops("user:1", "user:2", "user:3")
		if lo := r.sink.watermark().Lo; lo != at(300) {
			r.t.Errorf("the watermark stands at %s, want 300", lo)
		}
	})
}

// Whichever transaction of a batch it is that cannot be seen yet.
func TestEachTransactionOfABatchMustBeVisible(t *testing.T) {
	for _, hidden := range []uint64{700, 701, 702} {
		play(t, func(r *rig) {
			r.gate.running[hidden] = true
			r.start()
			r.send(r.users(700, 200, "1"), r.users(701, 210, "2"), r.users(702, 220, "3"))
			r.pass(time.Second)
			r.wantDrops()
			r.gate.set(func(g *gate) { clear(g.running) })
			r.pass(time.Second)
			r.wantDrops("user:1", "user:2", "user:3")
		})
	}
}

// Nearly always a transaction becomes visible at once, so the primary is asked
// again soon; but less and less often where it does not, and a person hears of
// it once.
func TestAWaitingTransactionAsksSparingly(t *testing.T) {
	play(t, func(r *rig) {
		r.gate.running[700] = true
		r.start()
		before := r.gate.questions()
		r.send(r.users(700, 200, "1"))
		r.pass(100 * time.Millisecond)
		if asked := r.gate.questions() - before; asked < 90 || asked > 110 {
			r.t.Errorf("asked %d times in 100 ms, want about 100", asked)
		}
		r.pass(5 * time.Second)
		r.wantLogged("not visible yet", 0)
		r.pass(time.Hour)
		before = r.gate.questions()
		r.pass(time.Minute)
		if asked := r.gate.questions() - before; asked > 130 { // one a second each for the gate and for the lag
			r.t.Errorf("asked %d times in a minute, an hour later", asked)
		}
		r.wantLogged("not visible yet", 1)
	})
}

// A snapshot costs a round trip: one shows a whole group, and none is asked
// where the last one shows it already.
func TestASnapshotServesAWholeGroup(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		var changes []change.Change
		for i := range 3000 {
			changes = append(changes, r.users(uint32(700+i), uint64(200+10*i), fmt.Sprint(i))...)
		}
		before := r.gate.questions()
		r.send(changes)
		asked := r.gate.questions() - before
		if got := len(r.drops()); got != 3000 {
			r.t.Fatalf("dropped %d keys, want 3000", got)
		}
		if asked != 1 {
			r.t.Errorf("asked %d times, want once: all was visible then", asked)
		}
		// New transactions need a new answer, once a group.
		r.gate.set(func(g *gate) { g.xmax = 1 << 21 })
		var last []int
		r.observer.get(func(o *observer) { o.gated = nil })
		r.send(r.users(1<<20+1, 100_000, "a"))
		r.send(r.users(1<<20+2, 100_010, "b"))
		r.observer.get(func(o *observer) { last = o.gated })
		if diff := cmp.Diff([]int{1, 0}, last); diff != "" {
			r.t.Errorf("snapshots by group (-want +got):\n%s", diff)
		}
	})
}

// The log has the lower half of a transaction's number only. An answer of days
// ago must not be taken for one about a transaction that wrapped around since.
func TestAnOldSnapshotIsNotTrusted(t *testing.T) {
	play(t, func(r *rig) {
		const begun = 1<<33 + 1<<20 // transactions, in the life of the server
		r.gate.xmax = begun
		r.start()
		r.send(r.users(uint32((begun-1)&0xffffffff), 200, "1"))
		r.pass(2 * time.Minute)
		// Half of all numbers have been used meanwhile: of days, say.
		now := uint64(begun + 1<<31 + 10)
		r.gate.set(func(g *gate) { g.xmax = now + 1; g.running[now] = true })
		r.send(r.users(uint32(now&0xffffffff), 300, "2"))
		r.pass(time.Second)
		r.wantDrops("user:1")
		r.gate.set(func(g *gate) { clear(g.running) })
		r.pass(time.Second)
		r.wantDrops("user:1", "user:2")
	})
}

func TestEverythingIsWrittenInOrderAndOnce(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		var want []string
		lsn := uint64(200)
		for i := range 50 {
			var id []string
			for j := range i * 40 { // up to several batches
				id = append(id, fmt.Sprint(i, "-", j))
				want = append(want, "user:"+id[j])
			}
			r.send(r.users(uint32(700+i), lsn, id...))
			lsn += 10
		}
		r.wantDrops(want...)
		for i, w := range r.sink.all() {
			if n := len(w.keys); n == 0 && w.note == nil && i > 0 && w.end == r.sink.all()[i-1].end {
				r.t.Errorf("batch %d says nothing", i)
			}
		}
		if w := r.sink.watermark(); w.Lo != at(lsn-2) {
			r.t.Errorf("the watermark stands at %s, want %s", w.Lo, at(lsn-2))
		}
	})
}

// With Redis away, what is read must not grow with what arrives.
func TestABlockedSinkStopsTheSource(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		r.sink.set(func(s *sink) { s.blocked = make(chan struct{}) })
		i := 0
		relation := r.relation(0, "users", "id")
		r.source.mu.Lock()
		r.source.more = func() *change.Change {
			i++
			return &change.Change{
				Op: change.Insert, Relation: relation, XID: 700, Position: change.Position{Timeline: 1, LSN: 200, Row: uint64(i)},
				New: change.Row{Kind: change.Whole, Values: []change.Value{{State: change.Text, Text: fmt.Append(nil, i)}}},
			}
		}
		r.source.mu.Unlock()
		r.source.nudge()
		synctest.Wait()
		before, _ := r.source.count()
		r.pass(time.Hour)
		read, _ := r.source.count()
		if read != before {
			r.t.Errorf("read %d changes, and %d an hour later", before, read)
		}
		if limit := 64 * plan.BatchKeysMax; read > limit || read < plan.BatchKeysMax {
			r.t.Errorf("read %d changes, want at most %d", read, limit)
		}
		r.source.mu.Lock()
		r.source.more = nil
		r.source.mu.Unlock()
		r.sink.set(func(s *sink) { close(s.blocked); s.blocked = nil })
		synctest.Wait()
		if got := len(r.drops()); got != read {
			r.t.Errorf("dropped %d keys of %d", got, read)
		}
	})
}

// Redis may have run a script whose reply was lost, so exactly the same batches
// are sent again; the fake sink compares them. The outage is said once, and so
// is its end.
func TestARedisThatFailsGetsTheSameAgain(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		r.sink.set(func(s *sink) { s.err = errors.New("connection refused"); s.attempts = nil })
		r.send(r.users(700, 200, ids(0, 700)...))
		r.send(r.users(701, 210, "x"))
		r.pass(time.Minute)
		r.wantDrops()
		r.wantLogged("holding", 1)
		attempts := len(r.sink.attempts)
		if attempts < 10 || attempts > 40 {
			r.t.Errorf("%d attempts in a minute, want a backoff up to 5 s", attempts)
		}
		if status := r.loop.Status(); status.Holding["redis"] != "connection refused" {
			r.t.Errorf("status.Holding is %v", status.Holding)
		}
		if confirmed := r.source.confirmations(); len(confirmed) > 0 && confirmed[len(confirmed)-1].position.Compare(at(100)) > 0 {
			r.t.Errorf("confirmed %v", confirmed)
		}
		r.sink.set(func(s *sink) { s.err = nil })
		r.pass(6 * time.Second)
		if got := len(r.drops()); got != 701 {
			r.t.Errorf("dropped %d keys, want 701", got)
		}
		r.wantLogged("going on", 1)
		r.wantStatus("owners", r.sink.owners(), 1)
		r.wantStatus("holding", len(r.loop.Status().Holding), 0)
	})
}

// A group is one round trip that may fail in the middle.
func TestWhatIsInIsNotSentAgain(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		calls := 0
		r.sink.set(func(s *sink) {
			s.refuse = func(batches []*plan.Batch) (int, error) {
				if calls++; len(batches) > 1 {
					return 1, errors.New("broken pipe")
				}
				return len(batches), nil
			}
		})
		var want []string
		for _, id := range ids(0, 5*plan.BatchKeysMax) {
			want = append(want, "user:"+id)
		}
		r.gate.running[700] = true
		r.send(r.users(700, 200, ids(0, 5*plan.BatchKeysMax)...))
		r.gate.set(func(g *gate) { clear(g.running) })
		r.pass(time.Minute)
		r.wantDrops(want...)
		if calls < 3 {
			r.t.Errorf("the sink was called %d times: nothing failed", calls)
		}
		var changes int
		r.observer.get(func(o *observer) { changes = o.changes })
		r.wantStatus("changes observed", changes, 5*plan.BatchKeysMax)
	})
}

// The server holds what was confirmed no longer. What Redis has only in its
// memory may still be lost.
func TestOnlyWhatIsDurableIsConfirmed(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		lsn := uint64(200)
		for range 100 {
			r.send(r.users(700, lsn, "1"))
			r.pass(70 * time.Millisecond)
			lsn += 10
		}
		last := r.sink.watermark().Lo
		r.pass(3200 * time.Millisecond)
		confirmed := r.source.confirmations()
		if len(confirmed) < 30 {
			r.t.Fatalf("confirmed %d times in seven seconds", len(confirmed))
		}
		if got := confirmed[len(confirmed)-1].position; got != last {
			r.t.Errorf("confirmed %s at last, want %s", got, last)
		}
		wantConfirmed(r, confirmed)
	})
}

func wantConfirmed(r *rig, confirmed []confirmation) {
	r.t.Helper()
	batches := r.sink.all()
	var before change.Position
	for _, c := range confirmed {
		if c.position.Compare(before) < 0 {
			r.t.Errorf("confirmed %s after %s", c.position, before)
		}
		before = c.position
		// The first batch that reached the position is old enough.
		i := slices.IndexFunc(batches, func(w written) bool { return w.end.Compare(c.position) >= 0 })
		if i < 0 {
			r.t.Errorf("confirmed %s, which was never written", c.position)
			continue
		}
		if age := c.at.Sub(batches[i].at); age < r.sink.durable {
			r.t.Errorf("confirmed %s %s after it was written", c.position, age)
		}
	}
}

// Redis that syncs each write needs no waiting.
func TestWhatIsDurableAtOnceIsConfirmedSoon(t *testing.T) {
	play(t, func(r *rig) {
		r.sink.durable = 0
		r.start()
		r.send(r.users(700, 200, "1"))
		r.pass(200 * time.Millisecond)
		confirmed := r.source.confirmations()
		if len(confirmed) == 0 || confirmed[len(confirmed)-1].position != at(208) {
			r.t.Errorf("confirmed %v, want 208", confirmed)
		}
		wantConfirmed(r, confirmed)
	})
}

// What Redis lost again before it was durable is not confirmed.
func TestALostWriteIsNotConfirmed(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		r.send(r.users(700, 200, "1"))
		r.pass(2 * time.Second)
		// Back to what it was, as after a crash. The source delivers again.
		r.sink.set(func(s *sink) { s.err = guard.ErrLost; s.mark.Lo, s.mark.Settled = at(100), at(100) })
		r.pass(1500 * time.Millisecond)
		for _, c := range r.source.confirmations() {
			if c.position.Compare(at(100)) > 0 {
				r.t.Errorf("confirmed %s, which Redis has lost", c.position)
			}
		}
		if r.sink.owners() < 2 {
			r.t.Error("the stream was not taken over again")
		}
		r.sink.set(func(s *sink) { s.err = nil })
		r.pass(10 * time.Second)
		r.send(r.users(700, 200, "1"))
		r.wantDrops("user:1", "user:1")
	})
}

// A transaction may be larger than a batch, so a crash can leave it half
// applied. It is delivered again from its start, applied again, and the
// watermark does not go back meanwhile: nothing could tell what lies between.
func TestAHalfAppliedTransactionIsAppliedAgain(t *testing.T) {
	play(t, func(r *rig) {
		half := change.Position{Timeline: 1, LSN: 200, Row: 300}
		r.sink.mark.Lo, r.sink.mark.Settled = half, half
		r.start()
		r.send(r.users(690, 150, "skipped"), r.users(700, 200, ids(0, 600)...), r.users(701, 210, "next"))
		want := []string{}
		for _, id := range append(ids(0, 600), "next") {
			want = append(want, "user:"+id)
		}
		r.wantDrops(want...)
		for i, w := range r.sink.all() {
			if w.end.Compare(half) < 0 || w.settled.Compare(half) < 0 {
				r.t.Errorf("batch %d moved the watermark back to %s, settled %s", i, w.end, w.settled)
			}
		}
		var gaps int
		r.observer.get(func(o *observer) { gaps = len(o.gaps) })
		r.wantStatus("gaps", gaps, 0)
	})
}

// Two transactions may meet where one ends and the next commits: the position
// that the one was applied up to is where the other's rows stand.
func TestATransactionAtTheWatermarkIsNotSkipped(t *testing.T) {
	play(t, func(r *rig) {
		r.sink.mark.Lo, r.sink.mark.Settled = at(208), at(208)
		r.start()
		r.send(r.users(700, 200, "1"), r.users(701, 208, "2"))
		r.wantDrops("user:2")
	})
}

// The log of a new timeline begins below where the old one ended.
func TestANewTimelineIsNeverSkipped(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		changes := r.users(700, 50, "1")
		for i := range changes {
			changes[i].Position.Timeline = 2
		}
		r.send(changes)
		r.wantDrops("user:1")
		if lo := r.sink.watermark().Lo; lo.Timeline != 2 {
			r.t.Errorf("the watermark stands at %s", lo)
		}
	})
}

// A busy database whose changes do not concern us moves the position thousands
// of times a second. Redis hears of it now and then, but always of the last.
func TestIdlePositionsAreThrottledAndTheLastArrives(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		began := len(r.sink.all())
		lsn := uint64(200)
		for range 1000 {
			lsn++
			r.send([]change.Change{idle(lsn)})
			r.pass(500 * time.Microsecond)
		}
		r.pass(20 * time.Millisecond)
		writes := len(r.sink.all()) - began
		if writes > 60 || writes < 20 {
			r.t.Errorf("%d writes in half a second, want about 50", writes)
		}
		if w := r.sink.watermark(); w.Lo != at(lsn) || w.Settled != at(lsn) {
			r.t.Errorf("the watermark stands at %s, settled %s, want %s", w.Lo, w.Settled, at(lsn))
		}
		// And a change does not wait for its turn behind them.
		r.send([]change.Change{idle(lsn + 1)}, r.users(700, lsn+10, "1"))
		r.wantDrops("user:1")
	})
}

// A barrier waits for the position behind the last commit of the writer, with
// nothing else going on.
func TestOneIdlePositionArrivesAtOnce(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		r.pass(time.Second)
		began := time.Now()
		r.send([]change.Change{idle(200)})
		r.pass(time.Microsecond)
		w := r.sink.all()
		last := w[len(w)-1]
		if last.end != at(200) || last.at.Sub(began) > time.Millisecond {
			r.t.Errorf("%s was written after %s", last.end, last.at.Sub(began))
		}
	})
}

// Latency is from commit to Redis.
func TestLatencyIsObserved(t *testing.T) {
	play(t, func(r *rig) {
		r.gate.running[700] = true
		r.start()
		r.send(r.users(700, 200, "1"))
		r.pass(50 * time.Millisecond)
		r.gate.set(func(g *gate) { clear(g.running) })
		r.pass(time.Second)
		var latencies []time.Duration
		r.observer.get(func(o *observer) { latencies = o.latencies })
		if len(latencies) != 1 || latencies[0] < 50*time.Millisecond || latencies[0] > 52*time.Millisecond {
			r.t.Errorf("got %v, want 50 ms", latencies)
		}
	})
}

// The lag grows while Redis is away, and is gone when it is back.
func TestLagIsSeenToGrow(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		r.pass(time.Second)
		if status := r.loop.Status(); status.Lag != 0 || status.LagBytes != 0 {
			r.t.Errorf("idle: lag %s, %d bytes", status.Lag, status.LagBytes)
		}
		r.sink.set(func(s *sink) { s.err = errors.New("away") })
		r.gate.set(func(g *gate) { g.insert = 5000 })
		r.send(r.users(700, 4000, "1"))
		r.pass(30 * time.Second)
		status := r.loop.Status()
		if status.Lag < 28*time.Second || status.Lag > 32*time.Second || status.LagBytes != 4900 {
			r.t.Errorf("after 30 s: lag %s, %d bytes, want about 30 s, 4900", status.Lag, status.LagBytes)
		}
		r.sink.set(func(s *sink) { s.err = nil })
		r.send([]change.Change{idle(5000)})
		r.pass(10 * time.Second)
		if status := r.loop.Status(); status.Lag != 0 || status.LagBytes != 0 {
			r.t.Errorf("back: lag %s, %d bytes", status.Lag, status.LagBytes)
		}
	})
}

// Caught up means: to where the primary stood when the stream was attached.
func TestCaughtUpIsWhereThePrimaryStood(t *testing.T) {
	play(t, func(r *rig) {
		r.gate.insert = 1000
		r.start()
		ready := func() bool { s := r.loop.Status(); return s.Ready() }
		r.send(r.users(700, 900, "1"))
		r.pass(10 * time.Second)
		if ready() {
			r.t.Error("ready at 908 of 1000")
		}
		r.send([]change.Change{idle(1000)})
		r.pass(time.Second)
		if !ready() {
			r.t.Errorf("not ready at 1000: %+v", r.loop.Status())
		}
		r.wantStatus("state", r.loop.Status().State, apply.StateStreaming)
	})
}
