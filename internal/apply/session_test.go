package apply_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/unstale/unstale/internal/apply"
	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
	"github.com/unstale/unstale/internal/value"
)

// Where another try cannot help, the stream is taken over anew from both sides,
// whoever notices and whether or not there is anything to write.
func TestTheStreamIsTakenOverAgain(t *testing.T) {
	for _, test := range []struct {
		name   string
		break_ func(r *rig, err error)
		errs   []error
	}{
		{"a write says so", func(r *rig, err error) {
			r.sink.set(func(s *sink) { s.err = err })
			r.send(r.users(700, 200, "1"))
		}, []error{guard.ErrLost, guard.ErrFenced}},
		{"a look at the watermark says so", func(r *rig, err error) {
			r.sink.set(func(s *sink) { s.err = err })
			r.pass(1200 * time.Millisecond)
		}, []error{guard.ErrLost, guard.ErrFenced}},
		{"the gate says so", func(r *rig, err error) {
			r.gate.set(func(g *gate) { g.err = err })
			r.send(r.users(1<<20+1, 200, "1"))
		}, []error{change.ErrOriginChanged}},
		{"the gate says so, with nothing to write", func(r *rig, err error) {
			r.gate.set(func(g *gate) { g.err = err })
			r.pass(1200 * time.Millisecond)
		}, []error{change.ErrOriginChanged}},
		{"the source says so", func(r *rig, err error) { r.source.fail(err) }, []error{change.ErrOriginChanged}},
	} {
		for _, err := range test.errs {
			t.Run(test.name+": "+err.Error(), func(t *testing.T) {
				play(t, func(r *rig) {
					r.start()
					_, attached := r.source.count()
					r.wantStatus("attached", attached, 1)
					test.break_(r, err)
					r.sink.set(func(s *sink) { s.err = nil })
					r.gate.set(func(g *gate) { g.err = nil })
					r.pass(time.Second)
					_, attached = r.source.count()
					if attached < 2 || r.sink.owners() < 2 {
						r.t.Errorf("attached %d times, owned %d times, want twice or more", attached, r.sink.owners())
					}
					r.wantStatus("state", r.loop.Status().State, apply.StateStreaming)
					// And it works.
					r.send(r.users(700, 400, "again"))
					r.pass(time.Second)
					if keys := r.drops(); len(keys) == 0 || keys[len(keys)-1] != "user:again" {
						r.t.Errorf("dropped %v", keys)
					}
				})
			})
		}
	}
}

// Two instances that fight for a stream must not do so in a busy loop, nor fill
// the log.
func TestAnOwnerThatIsFencedAgainAndAgainSlowsDown(t *testing.T) {
	play(t, func(r *rig) {
		r.sink.err = guard.ErrFenced
		r.start()
		r.pass(time.Minute)
		_, attached := r.source.count()
		if attached > 100 {
			r.t.Errorf("attached %d times in a minute", attached)
		}
	})
}

// A server that lets us in and breaks off at once is away, too.
func TestASourceThatFailsAfterEachAttachmentIsHeld(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		r.source.mu.Lock()
		r.source.attach = func() error { r.source.broken = errors.New("connection reset"); return nil }
		r.source.mu.Unlock()
		r.source.fail(errors.New("connection reset"))
		r.pass(time.Minute)
		_, attached := r.source.count()
		if attached > 40 {
			r.t.Errorf("attached %d times in a minute, want a backoff up to 5 s", attached)
		}
		if held := r.logs.count("holding"); held > 20 {
			r.t.Errorf("said %d times", held)
		}
		r.source.mu.Lock()
		r.source.attach = nil
		r.source.mu.Unlock()
		r.pass(6 * time.Second)
		r.send(r.users(700, 200, "1"))
		r.wantDrops("user:1")
		r.wantStatus("holding", len(r.loop.Status().Holding), 0)
	})
}

// The source being away is said once, and ends.
func TestASourceThatIsAwayIsHeld(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		r.source.mu.Lock()
		r.source.attach = func() error { return errors.New("connection refused") }
		r.source.mu.Unlock()
		r.source.fail(errors.New("connection reset"))
		r.pass(time.Minute)
		r.wantLogged("holding", 1)
		r.wantStatus("state", r.loop.Status().State, apply.StateHolding)
		if r.ready() {
			r.t.Error("ready without a source")
		}
		r.source.mu.Lock()
		r.source.attach = nil
		r.source.mu.Unlock()
		r.pass(6 * time.Second)
		r.wantLogged("going on", 1)
		if !r.ready() {
			r.t.Errorf("not ready: %+v", r.loop.Status())
		}
	})
}

// An instance that waits for another is in order: it must not look like an
// outage, and it must take over soon.
func TestAnInstanceStandsByWhileAnotherOwnsTheStream(t *testing.T) {
	play(t, func(r *rig) {
		r.source.attach = func() error { return fmt.Errorf("slot unstale: %w", change.ErrInUse) }
		r.start()
		r.pass(time.Minute)
		r.wantLogged("standing by", 1)
		r.wantLogged("holding", 0)
		status := r.loop.Status()
		r.wantStatus("state", status.State, apply.StateStandby)
		if r.loader.forgot != 1 {
			r.t.Errorf("the loader was told %d times to forget what the other instance drops now", r.loader.forgot)
		}
		if len(status.Holding) > 0 || status.Ready() {
			r.t.Errorf("standing by with %+v", status)
		}
		r.source.mu.Lock()
		r.source.attach = nil
		r.source.mu.Unlock()
		r.pass(2 * time.Second)
		if !r.ready() {
			r.t.Errorf("two seconds later: %+v", r.loop.Status())
		}
		r.wantLogged("msg=ready", 1)
	})
}

// An instance that was away hears from its group in a moment what it has: nobody else
// is in its way, so it does not say so.
func TestAnInstanceThatIsAboutToHearWhatItHasSaysNothing(t *testing.T) {
	play(t, func(r *rig) {
		err := fmt.Errorf("%w: the group is about to say", change.ErrUnassigned)
		r.source.attach = func() error { return err }
		r.start()
		r.pass(time.Second)
		r.wantLogged("standing by", 0)
		r.wantLogged("holding", 0)
		r.wantStatus("state", r.loop.Status().State, apply.StateStandby)
		// Unless that takes long.
		r.pass(time.Minute)
		r.wantLogged("standing by: nobody says", 1)
	})
	play(t, func(r *rig) {
		err := fmt.Errorf("%w: the group is about to say", change.ErrUnassigned)
		r.source.attach = func() error { return err }
		r.start()
		r.pass(time.Second)
		// It has nothing, in the end.
		r.source.mu.Lock()
		err = fmt.Errorf("%w: the group has no partition for this instance", change.ErrInUse)
		r.source.mu.Unlock()
		r.pass(time.Minute)
		r.wantLogged("standing by: this instance takes over", 1)
		r.wantLogged("standing by", 1)
		r.wantStatus("forgot", r.loader.forgot, 1)
	})
}

// A source says once that changes are missing. If the take-over fails before
// that is written down, the next one must still know.
func TestAGapIsNotForgottenWithATakeOverThatFailed(t *testing.T) {
	play(t, func(r *rig) {
		r.source.at.Streams[0].Gap = "the slot is new"
		r.catalog.set(func(c *catalog) { c.err = change.ErrUnpublished })
		r.start()
		r.pass(10 * time.Second)
		r.source.mu.Lock()
		r.source.at.Streams[0].Gap = ""
		r.source.mu.Unlock()
		r.catalog.set(func(c *catalog) { c.err = nil })
		r.pass(time.Minute)
		if swept := r.sink.sweeps(); len(swept) != 2 {
			r.t.Errorf("swept %v, want both passes", swept)
		}
	})
}

// The primary being away holds the gate, not more.
func TestADatabaseThatIsAwayIsHeld(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		r.gate.set(func(g *gate) { g.err = errors.New("connection refused") })
		r.send(r.users(700, 200, "1"))
		r.pass(time.Minute)
		r.wantDrops()
		r.wantLogged("holding", 1)
		r.gate.set(func(g *gate) { g.err = nil })
		r.pass(10 * time.Second)
		r.wantDrops("user:1")
		r.wantStatus("owners", r.sink.owners(), 1)
	})
}

// An outage that was given up, because the stream was taken over again in its
// course, ends as well.
func TestAnOutageEndsWithTheNextOwner(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		r.sink.set(func(s *sink) { s.err = errors.New("connection refused") })
		r.send(r.users(700, 200, "1"))
		r.pass(10 * time.Second)
		r.sink.set(func(s *sink) { s.err = nil })
		r.source.fail(errors.New("connection reset"))
		r.pass(10 * time.Second)
		r.wantStatus("holding", len(r.loop.Status().Holding), 0)
		r.wantLogged("server=redis held=", 1)
	})
}

// What only a person can mend ends the program at its start, when somebody
// looks, and does not when it has been running.
func TestARefusalEndsOnlyTheStart(t *testing.T) {
	refusal := &change.Refusal{Problem: "table users has no replica identity", Mend: "ALTER TABLE users REPLICA IDENTITY FULL"}
	for _, test := range []struct {
		name   string
		refuse func(r *rig, err error)
	}{
		{"source", func(r *rig, err error) {
			r.source.mu.Lock()
			r.source.attach = func() error { return err }
			r.source.mu.Unlock()
		}},
		{"catalog", func(r *rig, err error) { r.catalog.set(func(c *catalog) { c.err = err }) }},
		{"gate", func(r *rig, err error) { r.gate.set(func(g *gate) { g.err = err }) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			play(t, func(r *rig) {
				test.refuse(r, refusal)
				r.start()
				select {
				case err := <-r.done:
					if !change.IsRefusal(err) {
						r.t.Errorf("got %v, want the refusal", err)
					}
				default:
					r.t.Fatal("Run goes on")
				}
				r.wantStatus("closed", r.source.closed, 1)
				r.stop()
				r.loop = nil
			})
			play(t, func(r *rig) {
				r.start()
				test.refuse(r, refusal)
				r.source.fail(errors.New("connection reset"))
				r.pass(time.Minute)
				select {
				case err := <-r.done:
					r.t.Fatalf("Run returned %v", err)
				default:
				}
				r.wantLogged("no replica identity", 1)
				r.source.mu.Lock()
				r.source.attach = nil
				r.source.mu.Unlock()
				r.catalog.set(func(c *catalog) { c.err = nil })
				r.gate.set(func(g *gate) { g.err = nil })
				r.pass(10 * time.Second)
				r.send(r.users(700, 200, "1"))
				r.wantDrops("user:1")
			})
		})
	}
}

// A stop writes what was read, waits until that is durable and tells the
// source: the next start has nothing to do again.
func TestAStopWritesAndConfirmsWhatWasRead(t *testing.T) {
	play(t, func(r *rig) {
		r.gate.running[700] = true
		r.start()
		r.send(r.users(700, 200, ids(0, 1000)...), r.users(701, 210, "last"))
		r.wantDrops()
		r.stop()
		synctest.Wait()
		r.gate.set(func(g *gate) { clear(g.running) })
		r.end()
		if got := len(r.drops()); got != 1001 {
			r.t.Errorf("dropped %d keys, want 1001", got)
		}
		confirmed := r.source.confirmations()
		if len(confirmed) == 0 || confirmed[len(confirmed)-1].position != at(218) {
			r.t.Errorf("confirmed %v, want 218 at last", confirmed)
		}
		wantConfirmed(r, confirmed)
		r.wantStatus("closed", r.source.closed, 1)
	})
}

// The source has more at hand, so the batch is not yet full when the stop comes.
func TestAStopWritesAnUnfinishedBatch(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		changes := r.users(700, 200, ids(0, 10)...)
		i := 0
		r.source.mu.Lock()
		r.source.more = func() *change.Change {
			if i++; i == 6 {
				r.stop() // between two changes
			}
			return &changes[i-1]
		}
		r.source.mu.Unlock()
		r.source.nudge()
		synctest.Wait()
		r.end()
		read, _ := r.source.count()
		if got := len(r.drops()); got != read || read != 6 {
			r.t.Errorf("read %d changes and dropped %d keys, want 6", read, got)
		}
		if w := r.sink.watermark(); w.Lo != (change.Position{Timeline: 1, LSN: 200, Row: 6}) {
			r.t.Errorf("the watermark stands at %s", w.Lo)
		}
	})
}

// Nobody waits for ever for a Redis that is away. What is left comes again.
func TestAStopIsBounded(t *testing.T) {
	for _, test := range []struct {
		name string
		away func(r *rig)
	}{
		{"redis refuses", func(r *rig) { r.sink.set(func(s *sink) { s.err = errors.New("connection refused") }) }},
		{"redis hangs", func(r *rig) { r.sink.set(func(s *sink) { s.blocked = make(chan struct{}) }) }},
		{"the database is away", func(r *rig) { r.gate.set(func(g *gate) { g.err = errors.New("connection refused") }) }},
		{"a commit stays invisible", func(r *rig) { r.gate.set(func(g *gate) { g.running[1<<20-1] = true }) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			play(t, func(r *rig) {
				r.start()
				test.away(r)
				r.send(r.users(1<<20-1, 200, ids(0, 1000)...))
				r.pass(time.Second)
				began := time.Now()
				r.end()
				if took := time.Since(began); took > 11*time.Second {
					r.t.Errorf("the stop took %s", took)
				}
				for _, c := range r.source.confirmations() {
					if c.position.Compare(at(100)) > 0 {
						r.t.Errorf("confirmed %s, which was not written", c.position)
					}
				}
			})
		})
	}
}

// A stop while nothing has begun yet, and before anything could.
func TestAStopBeforeTheFirstAttachment(t *testing.T) {
	play(t, func(r *rig) {
		r.source.attach = func() error { return errors.New("connection refused") }
		r.start()
		r.pass(10 * time.Second)
		r.end()
	})
	play(t, func(r *rig) {
		ctx, cancel := context.WithCancel(r.t.Context())
		cancel()
		loop := apply.New(r.source, r.planner, r.gate, r.catalog, r.sink, r.options)
		if err := loop.Run(ctx); err != nil {
			r.t.Errorf("got %v", err)
		}
		r.wantStatus("state", loop.Status().State, apply.StateStopped)
	})
}

// The gate answers for the server that the stream comes from.
func TestTheGateIsToldTheOrigin(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		r.wantStatus("expected", r.gate.expected, origin)
	})
}

// Someone has to look whether the watermark is still there, but not all the
// time, and not while writes do.
func TestAnIdleWatermarkIsLookedAt(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		r.pass(10 * time.Second)
		if probes := r.sink.probes; probes < 8 || probes > 11 {
			r.t.Errorf("looked %d times in ten seconds", probes)
		}
		before := r.sink.probes
		lsn := uint64(200)
		for range 100 {
			r.send(r.users(700, lsn, "1"))
			r.pass(100 * time.Millisecond)
			lsn += 10
		}
		if probes := r.sink.probes - before; probes > 1 {
			r.t.Errorf("looked %d times while writing", probes)
		}
	})
}

// A refusal of the source is no look at the catalog: what that shows once, the next
// session sees.
func TestARefusalTakesNoShapesAway(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		r.source.mu.Lock()
		r.source.attach = func() error { return &change.Refusal{Problem: "wal_level"} }
		r.source.mu.Unlock()
		r.source.fail(errors.New("reset"))
		shapes := make(plan.Shapes, len(r.planner.Entries()))
		for i, e := range r.planner.Entries() {
			shapes[i] = e.Shape
			if e.Name == "warm" {
				shapes[i] = value.Shape{Columns: []value.Column{{Name: "id", Type: &value.Type{OID: 20}}}}
			}
		}
		r.catalog.set(func(c *catalog) { c.shapes = shapes })
		r.pass(time.Minute)
		r.source.mu.Lock()
		r.source.attach = nil
		r.source.mu.Unlock()
		r.pass(20 * time.Second)
		r.gate.set(func(g *gate) { g.insert = 300 })
		r.send(r.rows("warm", 702, 310, "3"))
		r.wantDrops(`warm:3={"id":3}@310`)
	})
}

// What the source cannot have is perhaps no longer read: the loop ends, to be made anew.
func TestARefusalMayMeanAnotherPlan(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		r.source.mu.Lock()
		r.source.attach = func() error { return &change.Refusal{Problem: "table t does not exist"} }
		r.source.mu.Unlock()
		r.catalog.set(func(c *catalog) { c.replan = fmt.Errorf("%w: t", change.ErrReplan) })
		r.source.fail(errors.New("reset"))
		r.pass(time.Minute)
		select {
		case err := <-r.done:
			if !errors.Is(err, change.ErrReplan) {
				t.Errorf("ended with %v, want %v", err, change.ErrReplan)
			}
		default:
			t.Error("it goes on as if nothing had happened")
			r.stop()
			<-r.done
		}
		r.stop()
		r.loop = nil
		synctest.Wait()
	})
}
