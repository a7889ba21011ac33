package apply_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
)

// What comes for the first time, and soon, is SET. It is too late for that when
// a shield may have ended that stood when it was judged.
func TestAYoungChangeSetsItsKey(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		r.pass(10 * time.Second)
		r.send(r.rows("warm", 700, 200, "1"), r.rows("update", 701, 210, "2"))
		r.wantDrops(`warm:1={"id":"1"}@200`, `update:2={"id":"2"}@210`)
		r.wantLoads()
		batches := r.sink.all()
		if last := batches[len(batches)-1]; last.until != last.at.Add(guard.UntilMax) {
			t.Errorf("may be SET for %s, want %s", last.until.Sub(last.at), guard.UntilMax)
		}
	})
}

// What was in the log when this session began may have been applied before, by
// whoever owned the stream then: a reader may have loaded and filled something
// newer since, whose shield is gone.
func TestWhatMayHaveBeenAppliedBeforeOnlyDrops(t *testing.T) {
	play(t, func(r *rig) {
		r.gate.insert = 300
		r.start()
		r.send(r.rows("warm", 700, 200, "1"), r.rows("update", 701, 300, "2"))
		r.wantDrops("warm:1", "update:2")
		r.wantLoads("warm:1") // of update nobody asks that it is cached
		r.send(r.rows("warm", 702, 301, "3"))
		r.wantDrops("warm:1", "update:2", `warm:3={"id":"3"}@301`)
	})
}

// So it is in each session: Redis may have lost what is delivered again.
func TestALostWriteIsNotSetAgain(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		r.gate.set(func(g *gate) { g.insert = 250 })
		r.sink.set(func(s *sink) { s.err = guard.ErrLost })
		r.send(r.rows("warm", 700, 200, "1"))
		r.sink.set(func(s *sink) { s.err = nil })
		r.pass(10 * time.Second)
		r.send(r.rows("warm", 700, 200, "1"))
		r.send(r.rows("warm", 701, 260, "2"))
		r.wantDrops("warm:1", `warm:2={"id":"2"}@260`)
		r.wantLoads("warm:1")
	})
}

// The clock begins when the primary's log was last seen without the commit.
func TestAnOldChangeOnlyDrops(t *testing.T) {
	for _, test := range []struct {
		waited time.Duration
		want   string
	}{
		{guard.YoungMax - 2*time.Second, `warm:1={"id":"1"}@200`},
		{guard.YoungMax + 2*time.Second, "warm:1"},
	} {
		play(t, func(r *rig) {
			r.gate.running[700] = true
			r.start()
			r.send(r.rows("warm", 700, 200, "1"))
			r.gate.set(func(g *gate) { g.insert = 400 }) // every later look shows it behind the commit
			r.pass(test.waited)
			r.gate.set(func(g *gate) { clear(g.running) })
			r.pass(2 * time.Second)
			r.wantDrops(test.want)
		})
	}
}

// An outage of Redis may end long after the batch was judged: the limit that
// the master itself looks at does not move.
func TestAnOutageDoesNotMakeAChangeYoungAgain(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		r.sink.set(func(s *sink) { s.err = fmt.Errorf("away") })
		began := time.Now()
		r.send(r.rows("warm", 700, 200, "1"))
		r.pass(time.Minute)
		r.sink.set(func(s *sink) { s.err = nil })
		r.pass(10 * time.Second)
		batches := r.sink.all()
		if last := batches[len(batches)-1]; last.until != began.Add(guard.UntilMax) {
			t.Errorf("may be SET until %s behind its judgement, want %s", last.until.Sub(began), guard.UntilMax)
		}
	})
}

// What Redis refuses is loaded behind the batch, where a warm entry asks for it.
func TestWhatRedisRefusesIsLoaded(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		r.sink.set(func(s *sink) {
			s.refuse = func(batches []*plan.Batch) (int, error) {
				for _, b := range batches {
					b.Pressed = b.Sets() > 0
					b.Doubt()
				}
				return len(batches), nil
			}
		})
		r.send(r.rows("warm", 700, 200, "1", "2"), r.rows("update", 701, 210, "3"))
		r.wantLoads("warm:1", "warm:2")
		r.send(r.users(702, 220, "1"))
		r.send(r.rows("warm", 703, 230, "4"))
		r.wantLogged("redis is full", 1)
		r.sink.set(func(s *sink) { s.refuse = nil })
		r.send(r.rows("warm", 704, 240, "5"))
		r.wantLogged("redis takes values again", 1)
	})
}

// What is set only if it is cached is loaded only if it was: the key that Redis
// says it had.
func TestOfUpdateOnlyWhatWasCachedIsLoaded(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		r.sink.set(func(s *sink) {
			s.refuse = func(batches []*plan.Batch) (int, error) {
				for _, b := range batches {
					for i := range b.Len() {
						if b.Refuse(i); string(b.Key(i)) == "update:2" {
							b.Cached(i)
						}
					}
				}
				return len(batches), nil
			}
		})
		r.send(r.rows("update", 700, 200, "1", "2", "3"))
		r.wantLoads("update:2")
	})
}

// What one transaction writes twice was never committed as it was first: it is
// shown when the transaction has ended, however its changes come.
func TestATransactionIsSetWhenItHasEnded(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		whole := r.rows("warm", 700, 200, "1", "2", "1")
		for i := range whole {
			r.wantDrops()
			r.send(whole[i : i+1])
			r.pass(time.Second)
		}
		r.wantDrops(`warm:1={"id":"1"}@200`, `warm:2={"id":"2"}@200`)
	})
}

// One that does not fit into a batch may go on with a row that it has written
// already. Its last part has the last state of what is in it.
func TestAPartOfATransactionSetsNothing(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		many := plan.OpenFactor * plan.BatchKeysMax
		r.send(r.rows("warm", 700, 200, append(ids(0, many), "0", "x")...))
		var want []string
		for i := range many {
			want = append(want, fmt.Sprintf("warm:%d", i))
		}
		r.wantDrops(append(want, `warm:0={"id":"0"}@200`, `warm:x={"id":"x"}@200`)...)
	})
}

// A transaction that only drops waits for nothing: who drops a key once too often
// does no harm.
func TestDropsDoNotWaitForTheEndOfTheirTransaction(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		r.send(r.users(700, 200, "1")[:1])
		r.pass(time.Second)
		r.wantDrops("user:1")
	})
}

// A session that ends has still to load what it has dropped: the next one does
// not see those changes again.
func TestWhatWasWrittenBeforeABreakIsLoaded(t *testing.T) {
	play(t, func(r *rig) {
		r.gate.insert = 300
		r.start()
		r.sink.set(func(s *sink) {
			s.refuse = func(batches []*plan.Batch) (int, error) { return len(batches), guard.ErrClock }
		})
		r.send(r.rows("warm", 700, 200, "1"))
		r.wantLoads("warm:1")
		r.sink.set(func(s *sink) { s.refuse = nil })
	})
}

// The row of a table that was altered may have been rendered for its old shape,
// or be older than the new one: nothing that was in the log at the look is SET.
func TestALookWithNewShapesMakesWhatCameBeforeDoubtful(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		shapes := make(plan.Shapes, len(r.planner.Entries()))
		for i, e := range r.planner.Entries() {
			shapes[i] = e.Shape
		}
		r.gate.set(func(g *gate) { g.insert = 300 })
		r.catalog.set(func(c *catalog) { c.shapes = shapes })
		r.pass(6 * time.Second) // a look
		r.send(r.rows("warm", 700, 290, "1"), r.rows("warm", 701, 300, "2"))
		r.send(r.rows("warm", 702, 310, "3"))
		r.wantDrops("warm:1", "warm:2", `warm:3={"id":"3"}@310`)
	})
}

// Rows as large as they come must not add up while Redis is slow.
func TestLongValuesAreNotReadAheadWithoutLimit(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		blocked := make(chan struct{})
		r.sink.set(func(s *sink) { s.blocked = blocked })
		long := strings.Repeat("x", 8<<20)
		var changes []change.Change
		for i := range 14 {
			changes = append(changes, r.long(uint32(700+i), uint64(200+10*i), fmt.Sprint(i), long)...)
		}
		r.source.give(changes)
		synctest.Wait()
		if read, _ := r.source.count(); read > 2*(64/8)+6 {
			t.Errorf("read %d changes of 8 MB ahead", read)
		}
		close(blocked)
		r.pass(time.Second)
		if read, _ := r.source.count(); read != len(changes) {
			t.Errorf("read %d of %d in the end", read, len(changes))
		}
	})
}
