package apply_test

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
)

// sweepTime is how long a sweep takes here, where only its waiting takes time.
const sweepTime = 2 * passTime

// wantSweep expects two passes over the templates, one right behind the other,
// and none before gated, when the cause was visible.
func wantSweep(r *rig, gated time.Time, templates ...string) {
	r.t.Helper()
	got := r.sink.sweeps()
	want := strings.Join(templates, " ")
	if len(got) != 2 || got[0].templates != want || got[1].templates != want {
		r.t.Fatalf("got the passes %v, want two over %s", got, want)
	}
	if got[0].at.Before(gated) {
		r.t.Errorf("the first pass began %s before the gate", gated.Sub(got[0].at))
	}
	if took := got[1].at.Sub(got[0].at); took != passTime {
		r.t.Errorf("the second pass began %s after the first, want %s", took, passTime)
	}
}

// Partitions have no order among them: one that lags may bring, behind the sweep, a
// row that a TRUNCATE or a new shape of its table has put an end to. With a database
// the catalog would show that some seconds later, without one nothing would.
func TestWhatIsOlderThanTheCauseOfASweepSetsNothing(t *testing.T) {
	for _, test := range []struct {
		name  string
		cause func(r *rig) []change.Change
	}{
		{"a truncate", func(r *rig) []change.Change {
			truncate := r.rows("warm", 701, 300, "x")
			truncate[0].Op, truncate[0].New = change.Truncate, change.Row{}
			return truncate
		}},
		{"a second one", func(r *rig) []change.Change {
			truncate := r.rows("warm", 701, 300, "x")
			truncate[0].Op, truncate[0].New = change.Truncate, change.Row{}
			earlier := truncate[0]
			earlier.LSN = 250
			return append([]change.Change{earlier}, truncate...)
		}},
		{"everything is read anew", func(r *rig) []change.Change {
			return []change.Change{{Op: change.Restart, LSN: 300, Reason: "anew"}}
		}},
		{"everything was read anew", func(r *rig) []change.Change {
			rows := r.rows("warm", 0, 300, "1")
			rows[0].Scan = change.Initial
			return rows
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			playTopics(t, func(r *rig) {
				r.gate.unknown = true
				r.sink.mark.Seen = change.Sequence{Commit: 50, LSN: 50}
				r.start()
				r.send(in(0, 20, test.cause(r)))
				r.pass(sweepTime + time.Second)
				if swept := r.sink.sweeps(); len(swept) != 2 {
					r.t.Fatalf("swept %v", swept)
				}
				r.send(r.now(in(1, 20, r.rows("warm", 700, 290, "1"))))
				r.send(r.now(in(1, 21, r.rows("warm", 702, 310, "2"))))
				if got := r.drops(); len(got) < 2 || got[len(got)-2] != "warm:1" || got[len(got)-1] != `warm:2={"id":"2"}@310` {
					r.t.Errorf("drops: %q", got)
				}
			})
		})
	}
}

func (r *rig) ready() bool { s := r.loop.Status(); return s.Ready() }

// Whatever was not told, readers may have cached what nothing will drop.
func TestEachGapSweepsEveryEntryTwice(t *testing.T) {
	for _, test := range []struct {
		cause   string
		arrange func(r *rig)
		// settled is where the watermark says so, before and during the sweep.
		settled change.Position
	}{
		{"first_start", func(r *rig) { r.sink.mark = guard.Watermark{} }, change.Position{}},
		{"slot_ahead", func(r *rig) { r.source.at.Streams[0].Confirmed = at(101) }, at(90)},
		{"source", func(r *rig) { r.source.at.Streams[0].Gap = "the slot is new" }, at(90)},
		{"origin", func(r *rig) { r.source.at.Origin.StartedAt = time.Unix(2, 0) }, at(90)},
		{"origin", func(r *rig) { r.source.at.Origin.Timeline = 2 }, at(90)},
		{"slot_ahead", func(r *rig) { r.source.at.Streams[0].Confirmed = change.Position{Timeline: 2, LSN: 1} }, at(90)},
	} {
		t.Run(test.cause, func(t *testing.T) {
			play(t, func(r *rig) {
				r.sink.mark.Settled = at(90)
				test.arrange(r)
				began := time.Now()
				r.start()
				var gaps []string
				r.observer.get(func(o *observer) { gaps = o.gaps })
				r.wantStatus("gaps", gaps, []string{test.cause})
				if status := r.loop.Status(); status.Gaps != 1 || status.LastGap == "" {
					r.t.Errorf("status: %+v", status)
				}
				r.gate.set(func(g *gate) { g.insert = 300 })
				lsn := r.source.at.Streams[0].Confirmed.LSN + 100
				changes := r.users(700, lsn, "1")
				for i := range changes {
					changes[i].Position.Timeline = r.source.at.Streams[0].Confirmed.Timeline
				}
				r.send(changes)
				end := changes[1].Position

				// From the first batch on the watermark knows what is pending.
				if first := r.sink.all()[0]; first.note == nil || !slices.Equal(first.note.Sweeps, wide(productTemplate, userTemplate)) || first.note.Origin != r.source.at.Origin.String() || first.settled != test.settled {
					r.t.Errorf("the first batch: %+v, note %+v", first, first.note)
				}
				for r.pass(time.Millisecond); len(r.sink.sweeps()) < 2; r.pass(50 * time.Millisecond) {
					if w := r.sink.watermark(); w.Settled != test.settled || w.Lo != end {
						r.t.Fatalf("while sweeping the watermark stands at %s, settled %s, want %s and %s", w.Lo, w.Settled, end, test.settled)
					}
					if r.ready() {
						r.t.Fatal("ready while sweeping")
					}
					if got := r.loop.Status().Sweeping; !slices.Equal(got, []string{productTemplate, userTemplate}) {
						r.t.Fatalf("sweeping %v", got)
					}
				}
				r.pass(passTime + time.Second)
				wantSweep(r, began, productTemplate, userTemplate)
				if w := r.sink.watermark(); w.Settled != end || len(w.Sweeps) != 0 {
					r.t.Errorf("after the sweep settled is %s, pending %v; want %s", w.Settled, w.Sweeps, end)
				}
				if !r.ready() {
					r.t.Errorf("not ready after the sweep: %+v", r.loop.Status())
				}
				r.wantDrops("user:1")
			})
		})
	}
}

// Neither a restart of this program nor a source that delivers again what Redis
// has is a gap.
func TestAnOrdinaryStartSweepsNothing(t *testing.T) {
	play(t, func(r *rig) {
		r.source.at.Streams[0].Confirmed = at(50)
		r.start()
		r.send(r.users(600, 60, "old"), r.users(700, 200, "1"))
		r.pass(time.Minute)
		r.wantDrops("user:1")
		if sweeps := r.sink.sweeps(); len(sweeps) != 0 {
			r.t.Errorf("swept %v", sweeps)
		}
		if first := r.sink.all()[0]; first.end != at(100) {
			r.t.Errorf("the first batch stands at %s, want 100", first.end)
		}
		if !r.ready() {
			r.t.Errorf("not ready: %+v", r.loop.Status())
		}
		r.wantLogged("gap", 0)
	})
}

// The sweep that a first start calls for names the keys of entries that are no
// longer configured as well.
func TestAGapSweepsWhatFormerEntriesLeft(t *testing.T) {
	play(t, func(r *rig) {
		r.sink.mark.Fingerprints = guard.Fingerprints{"gone": {Key: "gone:{id}"}}
		r.sink.mark.Sweeps = wide("pending:{id}", userTemplate)
		r.source.at.Streams[0].Gap = "the slot is new"
		began := time.Now()
		r.start()
		r.pass(time.Minute)
		wantSweep(r, began, "gone:{id}", "pending:{id}", productTemplate, userTemplate)
	})
}

// A crash in the middle of a sweep does not end it.
func TestAPendingSweepIsResumedByTheNextOwner(t *testing.T) {
	play(t, func(r *rig) {
		r.sink.mark.Sweeps = wide(productTemplate)
		r.sink.mark.Settled = at(90)
		began := time.Now()
		r.start()
		r.send(r.users(700, 200, "1"))
		if r.ready() {
			r.t.Error("ready with a sweep pending")
		}
		if w := r.sink.watermark(); w.Settled != at(90) || !slices.Equal(w.Sweeps, wide(productTemplate)) {
			r.t.Errorf("settled %s, pending %v", w.Settled, w.Sweeps)
		}
		r.pass(2 * sweepTime)
		wantSweep(r, began, productTemplate)
		if w := r.sink.watermark(); w.Settled != at(208) || len(w.Sweeps) != 0 {
			r.t.Errorf("settled %s, pending %v", w.Settled, w.Sweeps)
		}
		r.wantLogged("gap", 0)
	})
}

// A crash before the second pass, and then again: it is never taken for done.
func TestASweepThatNeverEndsStaysPending(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		r.send(r.truncate(700, 200))
		for range 5 {
			r.pass(sweepTime - time.Second)
			r.source.fail(errors.New("connection reset"))
			if w := r.sink.watermark(); !slices.Equal(w.Sweeps, wide(productTemplate)) || w.Settled != at(100) {
				r.t.Fatalf("pending %v, settled %s", w.Sweeps, w.Settled)
			}
			r.pass(time.Second)
		}
		r.pass(2 * sweepTime)
		if w := r.sink.watermark(); len(w.Sweeps) != 0 || w.Settled != at(208) {
			r.t.Errorf("pending %v, settled %s", w.Sweeps, w.Settled)
		}
	})
}

// What a release left behind that named an entry's keys otherwise.
func TestAnEntryThatChangedIsSweptByItsOldNameAndItsNew(t *testing.T) {
	play(t, func(r *rig) {
		r.sink.mark.Fingerprints = guard.Fingerprints{
			"user":    {Key: "u:{id}", Hash: "1"},
			"product": {Key: productTemplate, Hash: "1"},
			"gone":    {Key: "gone:{id}", Hash: "1"},
		}
		began := time.Now()
		r.start()
		r.pass(2 * sweepTime)
		wantSweep(r, began, "gone:{id}", "u:{id}", userTemplate)
		if diff := cmp.Diff(r.catalog.now, r.sink.watermark().Fingerprints); diff != "" {
			r.t.Errorf("the plan in the watermark (-want +got):\n%s", diff)
		}
	})
}

// ALTER TABLE with a rewrite sends no rows: the catalog tells, while running.
func TestACatalogThatChangesIsSwept(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		r.send(r.users(700, 200, "1"))
		r.pass(time.Minute)
		if sweeps := r.sink.sweeps(); len(sweeps) != 0 {
			r.t.Fatalf("swept %v", sweeps)
		}
		began := time.Now()
		r.catalog.set(func(c *catalog) {
			c.now = guard.Fingerprints{"user": {Key: userTemplate, Hash: "2"}, "product": {Key: productTemplate, Hash: "1"}}
		})
		r.pass(5 * time.Second)
		if w := r.sink.watermark(); !slices.Equal(w.Sweeps, wide(userTemplate)) || w.Fingerprints["user"].Hash != "2" {
			r.t.Errorf("pending %v, plan %v", w.Sweeps, w.Fingerprints)
		}
		if r.ready() {
			r.t.Error("ready while sweeping")
		}
		r.pass(time.Minute)
		swept := r.sink.sweeps()
		if len(swept) != 2 || swept[0].templates != userTemplate || swept[1].at.Sub(began) < sweepTime {
			r.t.Errorf("swept %v", swept)
		}
		if !r.ready() {
			r.t.Error("not ready")
		}
	})
}

// An entry whose changes cannot be planned is never trusted: not between the sweeps, from
// the start or since, and not before the sweep has ended behind which it can be.
func TestWhatCannotBePlannedIsNotReady(t *testing.T) {
	play(t, func(r *rig) {
		looks := func(hash string, unplanned map[string]string) {
			r.catalog.set(func(c *catalog) {
				c.now = guard.Fingerprints{"user": {Key: userTemplate, Hash: hash}, "product": {Key: productTemplate, Hash: "1"}}
				c.unplanned = unplanned
			})
		}
		broken := map[string]string{"user": "there is no table"}
		looks("1 unplanned 1", broken)
		r.start()
		r.pass(time.Minute)
		if status := r.loop.Status(); len(r.sink.sweeps()) == 0 || len(status.Sweeping) > 0 || r.ready() || status.Unplanned["user"] == "" {
			r.t.Errorf("it is swept: %+v", status)
		}
		looks("1", nil)
		r.pass(5 * time.Second)
		if status := r.loop.Status(); r.ready() || len(status.Sweeping) == 0 {
			r.t.Errorf("it can be planned again, and was not swept since: %+v", status)
		}
		r.pass(time.Minute)
		if !r.ready() {
			r.t.Error("not ready")
		}
		looks("1", broken)
		r.pass(5 * time.Second)
		if r.ready() {
			r.t.Error("ready with an entry that cannot be planned")
		}
	})
}

// As long as the columns of a key are the same, a sweep takes the keys that their
// values can make, and the watermark says so to who resumes it.
func TestASweepIsOfTheKeysThatValuesCanMake(t *testing.T) {
	play(t, func(r *rig) {
		before := guard.Fingerprint{Key: userTemplate, Hash: "1", Letters: "i", Columns: "c"}
		r.sink.mark.Fingerprints["user"] = before
		r.catalog.now = guard.Fingerprints{"user": before, "product": {Key: productTemplate, Hash: "1"}}
		r.start()
		r.pass(time.Minute)
		for _, test := range []struct {
			hash, columns string
			want          []guard.Sweep
		}{
			{"2", "c", []guard.Sweep{{Key: userTemplate, Letters: "i"}}},
			{"3", "d", wide(userTemplate)},
		} {
			r.catalog.set(func(c *catalog) {
				c.now = guard.Fingerprints{"user": {Key: userTemplate, Hash: test.hash, Letters: "i", Columns: test.columns}, "product": {Key: productTemplate, Hash: "1"}}
			})
			r.pass(5 * time.Second)
			if got := r.sink.watermark().Sweeps; !slices.Equal(got, test.want) {
				r.t.Errorf("columns %s: pending %v, want %v", test.columns, got, test.want)
			}
			r.pass(time.Minute)
		}
		if got := len(r.sink.sweeps()); got != 4 {
			r.t.Errorf("%d passes, want 4", got)
		}
	})
}

// grants are an entry of which a changed row tells one placeholder of two.
func grants(t *testing.T) []plan.Entry {
	template, err := guard.ParseTemplate("can:{user}:{right}")
	if err != nil {
		t.Fatal(err)
	}
	return []plan.Entry{{Name: "can", Key: template, Lease: guard.Lease, Query: "SELECT", Dependencies: []plan.Dependency{{
		Schema: "public", Table: "grants", Columns: []string{"id"}, Paths: []plan.Path{{Key: []string{"id", ""}}}, Why: "why",
	}}}}
}

// grants are the inserts of one transaction, and its end.
func (r *rig) grants(xid uint32, lsn uint64, ids ...string) []change.Change {
	relation := r.relation(6, "grants", "id")
	changes := r.users(xid, lsn, ids...)
	for i := range ids {
		changes[i].Relation = relation
	}
	return changes
}

// A row that tells a part of the key sweeps the keys with that part, and the watermark
// has it: who takes over sweeps no more.
func TestAPartOfAnEntryIsSwept(t *testing.T) {
	playWith(t, grants(t), func(r *rig) {
		r.sink.mark.Sweeps = []guard.Sweep{{Key: "can:{user}:{right}", Part: "can:5:{right}"}, {Key: "can:{user}:{right}", Part: "can:{7:{right}"}}
		r.start()
		r.pass(2 * sweepTime)
		// What is no template is not a part of anything.
		wantSweep(r, time.Time{}, "can:5:{right}", "can:{user}:{right}")
		r.send(r.grants(700, 200, "7", "8", "7"))
		want := []guard.Sweep{{Key: "can:{user}:{right}", Part: "can:7:{right}"}, {Key: "can:{user}:{right}", Part: "can:8:{right}"}}
		if w := r.sink.watermark(); !slices.Equal(w.Sweeps, want) || w.Settled != at(100) {
			r.t.Errorf("pending %v, settled %s, want %v", w.Sweeps, w.Settled, want)
		}
		r.pass(2 * sweepTime)
		if got := r.sink.sweeps()[2:]; len(got) != 2 || got[0].templates != "can:7:{right} can:8:{right}" {
			r.t.Errorf("swept %v", got)
		}
		if w := r.sink.watermark(); len(w.Sweeps) != 0 || w.Settled != at(208) {
			r.t.Errorf("pending %v, settled %s", w.Sweeps, w.Settled)
		}
	})
}

// What a plan asks for is swept by names. Where they are not complete the sweep makes
// them so: they are collected before its first pass, and whoever is quicker in between is
// named.
func TestASweepThatAPlanAsksForGoesByNames(t *testing.T) {
	playWith(t, grants(t), func(r *rig) {
		r.start()
		r.send(r.grants(700, 200, "7"))
		r.pass(2 * sweepTime)
		made := "collect can:{user}:{right}, collected can:{user}:{right}, seal can:{user}:{right}"
		if got := r.sink.steps(); len(r.sink.sweeps()) != 2 || got != made {
			r.t.Errorf("the first: the passes %v, %s", r.sink.sweeps(), got)
		}
		r.send(r.grants(701, 300, "8"))
		r.pass(time.Second)
		if got := r.sink.steps(); len(r.sink.sweeps()) != 2 || got != "names of can:8:{right}" {
			r.t.Errorf("the second: the passes %v, %s", r.sink.sweeps(), got)
		}
		if w := r.sink.watermark(); len(w.Sweeps) != 0 || w.Settled != at(308) {
			r.t.Errorf("pending %v, settled %s", w.Sweeps, w.Settled)
		}
		if marks := r.sink.all(); len(marks[len(marks)-1].note.Sweeps) > 0 || len(marks[len(marks)-2].note.Sweeps) != 1 {
			r.t.Error("no batch stands between the drops and the end of the sweep")
		}
		// The names are gone.
		r.sink.set(func(s *sink) { clear(s.sealed) })
		r.send(r.grants(702, 400, "9"))
		r.pass(2 * sweepTime)
		if got := r.sink.steps(); len(r.sink.sweeps()) != 4 || got != made {
			r.t.Errorf("without names: the passes %v, %s", r.sink.sweeps(), got)
		}
	})
}

// Only what a plan asks for is certain to be of keys that have names: nobody knows what
// a table was, or what an owner before did.
func TestWhatElseIsSweptGoesOverTheKeyspace(t *testing.T) {
	for _, test := range []struct {
		name  string
		sweep func(r *rig)
	}{
		{"a truncate", func(r *rig) {
			truncate := r.grants(700, 200, "7")
			truncate[0].Op, truncate[0].New = change.Truncate, change.Row{}
			r.send(truncate)
		}},
		{"a plan, and then a truncate", func(r *rig) {
			truncate := r.grants(700, 200, "7", "8")
			truncate[1].Op, truncate[1].New = change.Truncate, change.Row{}
			r.send(truncate)
		}},
		{"the catalog", func(r *rig) {
			r.catalog.set(func(c *catalog) { c.now = guard.Fingerprints{"can": {Key: "can:{user}:{right}", Hash: "2"}} })
			r.pass(5 * time.Second)
		}},
		{"a sweep that an owner before has not ended", func(r *rig) {
			r.end()
			r.sink.set(func(s *sink) { s.mark.Sweeps = wide("can:{user}:{right}") })
			r.start()
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			playWith(t, grants(t), func(r *rig) {
				r.sink.sealed["can:{user}:{right}"] = true
				r.start()
				test.sweep(r)
				r.pass(time.Minute)
				if got := r.sink.sweeps(); len(got) < 2 || !strings.Contains(got[0].templates, "can:{user}:{right}") {
					r.t.Errorf("got the passes %v", got)
				}
				if got := r.sink.steps(); got != "" {
					r.t.Errorf("%s", got)
				}
			})
		})
	}
}

// The sets of an index are found by a pass over the keyspace, and those of an entry that
// is swept wholly may lack what the batch of the cause has passed over.
func TestAnEntryWithAnIndexIsSweptWithItsSets(t *testing.T) {
	entries := indexed(t)
	entries[0].Dependencies = append(entries[0].Dependencies, plan.Dependency{Schema: "public", Table: "grants", Columns: []string{"id"}, Why: "why"})
	playWith(t, entries, func(r *rig) {
		r.sink.sealed[pageTemplate] = true
		r.start()
		r.send(r.grants(700, 200, "7"))
		r.pass(2 * sweepTime)
		if got := r.sink.sweeps(); len(got) != 2 || got[0].templates != pageTemplate+"+[0]" {
			r.t.Errorf("got the passes %v", got)
		}
		if got := r.sink.steps(); got != "" {
			r.t.Error(got)
		}
	})
}

// A Redis that restarts while names are made complete may have lost some of them.
func TestNamesAreNotSealedOverARestart(t *testing.T) {
	playWith(t, grants(t), func(r *rig) {
		r.sink.sweeping = func(pass int) {
			if pass == 2 {
				r.sink.set(func(s *sink) { s.runID = "b" })
			}
		}
		r.start()
		r.send(r.grants(700, 200, "7"))
		r.pass(4 * sweepTime)
		want := "collect can:{user}:{right}, collected can:{user}:{right}, collect can:{user}:{right}, collected can:{user}:{right}, seal can:{user}:{right}"
		if got := r.sink.steps(); len(r.sink.sweeps()) != 4 || got != want {
			r.t.Errorf("the passes %v, %s", r.sink.sweeps(), got)
		}
	})
}

// Parts that changes ask for while a sweep runs gather: of very many the entry is swept.
func TestManyPartsThatWaitBecomeTheWholeEntry(t *testing.T) {
	playWith(t, grants(t), func(r *rig) {
		r.start()
		r.send(r.grants(700, 200, "a"))
		r.send(r.grants(701, 300, ids(0, 40)...))
		if got := len(r.sink.watermark().Sweeps); got != 41 {
			r.t.Errorf("%d pending, want each of 41", got)
		}
		r.send(r.grants(702, 400, ids(40, 65)...))
		want := wide("can:{user}:{right}")
		if got := r.sink.watermark().Sweeps; !slices.Equal(got, want) {
			r.t.Errorf("pending %v, want %v", got, want)
		}
		r.pass(4 * sweepTime)
		if got := r.sink.sweeps(); len(got) != 2 || got[0].templates != "can:a:{right}" {
			r.t.Errorf("swept %v", got)
		}
		if steps := r.sink.steps(); !strings.HasSuffix(steps, ", names of can:{user}:{right}") {
			r.t.Error(steps)
		}
		if w := r.sink.watermark(); len(w.Sweeps) != 0 || w.Settled != at(408) {
			r.t.Errorf("pending %v, settled %s", w.Sweeps, w.Settled)
		}
	})
}

// The keys of this change are unknown. It is said once, however often it
// happens, and by whom.
func TestAChangeOfUnknownKeysSweepsItsEntry(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		began := time.Now()
		r.send(r.mail(700, 200))
		// The script that moved the position past the change has written down
		// what is still to be done for it.
		w := r.sink.watermark()
		if w.Lo != at(208) || w.Settled != at(100) || !slices.Equal(w.Sweeps, wide("mail:{mail}")) {
			r.t.Errorf("lo %s, settled %s, pending %v", w.Lo, w.Settled, w.Sweeps)
		}
		for _, batch := range r.sink.all() {
			if batch.sweeping && (batch.note == nil || len(batch.note.Sweeps) == 0) {
				r.t.Errorf("a batch moved past a sweep without a note: %+v", batch)
			}
		}
		r.pass(2 * sweepTime)
		wantSweep(r, began, "mail:{mail}")
		if w := r.sink.watermark(); w.Settled != at(208) {
			r.t.Errorf("settled %s", w.Settled)
		}
		for i := range 20 {
			r.send(r.mail(701, uint64(300+10*i)))
			deleted := r.mail(702, uint64(305+10*i))
			deleted[0].Op, deleted[0].Old, deleted[0].New = change.Delete, change.Row{Kind: change.IdentityOnly, Values: []change.Value{{}}}, change.Row{}
			r.send(deleted)
			r.pass(10 * time.Second)
		}
		r.wantLogged("keys are unknown", 2) // updates and deletes
		var requested []string
		r.observer.get(func(o *observer) { requested = o.requested })
		if len(requested) != 41 || requested[0] != "mail unknown" {
			r.t.Errorf("observed %d sweeps: %v", len(requested), requested)
		}
	})
}

// Reasons may be as many as changes; the log's lines may not, nor what is
// remembered of them.
func TestUndecodableChangesDoNotFillTheLog(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		for i := range 500 {
			changes := r.mail(700, uint64(200+10*i))
			changes[0].Op, changes[0].Reason = change.Undecodable, fmt.Sprintf("a row of %d columns", i)
			r.send(changes)
		}
		if said := r.logs.count("keys are unknown"); said < 1 || said > 100 {
			r.t.Errorf("said %d times", said)
		}
	})
}

// A sweep that is asked for while another runs may be about keys that the other
// has passed already: it is one of its own, of two passes.
func TestASweepAskedForWhileOneRunsIsAnother(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		r.send(r.truncate(700, 200))
		r.pass(2 * time.Second)
		second := time.Now()
		r.send(r.truncate(701, 300))
		r.pass(time.Minute)
		swept := r.sink.sweeps()
		if len(swept) != 4 {
			r.t.Fatalf("got the passes %v, want four", swept)
		}
		if swept[3].at.Sub(second) < sweepTime {
			r.t.Errorf("the last pass began %s after the gate", swept[3].at.Sub(second))
		}
	})
}

// A barrier must come to its end even where sweeps never do: settled moves to
// before what is still being swept, each time that a sweep ends.
func TestSettledMovesThoughSweepsFollowEachOther(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		lsn := uint64(200)
		var before change.Position
		moved := 0
		sent := map[uint64]time.Time{}
		for range 120 { // a minute
			sent[lsn] = time.Now()
			r.send(r.truncate(700, lsn))
			r.pass(500 * time.Millisecond)
			w := r.sink.watermark()
			if w.Settled.Compare(before) < 0 {
				r.t.Fatalf("settled went back from %s to %s", before, w.Settled)
			}
			if w.Settled != before {
				moved++
			}
			before = w.Settled
			lsn += 10
			// Two passes have ended for all that settled has passed.
			for truncated, when := range sent {
				var since []sweep
				for _, pass := range r.sink.sweeps() {
					if !pass.at.Before(when) {
						since = append(since, pass)
					}
				}
				if at(truncated).Compare(w.Settled) <= 0 && (len(since) < 2 || since[len(since)-1].at.Sub(when) < sweepTime) {
					r.t.Fatalf("settled is %s, and the sweep for %s has not ended", w.Settled, at(truncated))
				}
			}
		}
		if moved < 10 {
			r.t.Errorf("settled moved %d times, to %s of %s", moved, before, at(lsn))
		}
	})
}

// Redis that restarted may have brought dropped keys back, and a cursor over the
// keyspace means nothing to it.
func TestARestartOfRedisBeginsTheSweepAgain(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		r.send(r.truncate(700, 200))
		r.pass(2 * time.Second)
		r.sink.set(func(s *sink) { s.runID = "b" })
		r.pass(sweepTime)
		if w := r.sink.watermark(); len(w.Sweeps) == 0 {
			r.t.Error("the sweep ended over a restart")
		}
		r.pass(time.Minute)
		if swept := r.sink.sweeps(); len(swept) != 4 {
			r.t.Errorf("got the passes %v, want four", swept)
		}
		if w := r.sink.watermark(); len(w.Sweeps) != 0 || w.Settled != at(208) {
			r.t.Errorf("pending %v, settled %s", w.Sweeps, w.Settled)
		}
	})
}

// A pass that broke off is no pass.
func TestAFailedPassIsDoneAgain(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		r.sink.set(func(s *sink) {
			s.sweeping = func(pass int) {
				s.set(func(s *sink) {
					if s.err = nil; pass <= 3 {
						s.err = errors.New("connection reset")
					}
				})
			}
		})
		r.send(r.truncate(700, 200))
		r.pass(2 * time.Minute)
		var passes int
		r.observer.get(func(o *observer) { passes = o.passes })
		r.wantStatus("passes observed", passes, 2)
		if w := r.sink.watermark(); len(w.Sweeps) != 0 || w.Settled != at(208) {
			r.t.Errorf("pending %v, settled %s", w.Sweeps, w.Settled)
		}
	})
}

// A pending sweep whose template this release cannot read must not stop all.
func TestATemplateThatNobodyCanReadIsSaid(t *testing.T) {
	play(t, func(r *rig) {
		r.sink.mark.Sweeps = wide("{a}{b}", userTemplate)
		began := time.Now()
		r.start()
		r.pass(time.Minute)
		wantSweep(r, began, userTemplate)
		r.wantLogged("delete them by hand", 1)
		if !r.ready() {
			r.t.Error("not ready")
		}
	})
}

// A Redis that crashes when the sweep is over may go back to before its drops,
// and must then go back to before a batch that it had confirmed: only so is the
// loss found, and the end of the sweep not noted.
func TestABatchIsWrittenBehindASweepBeforeItsEndIsNoted(t *testing.T) {
	play(t, func(r *rig) {
		r.start()
		r.send(r.truncate(700, 200))
		r.pass(time.Minute)
		last := r.sink.sweeps()[1].at
		var behind []bool // of each batch behind the second pass: is the sweep pending?
		for _, b := range r.sink.all() {
			if !b.at.Before(last) && b.note != nil {
				behind = append(behind, len(b.note.Sweeps) > 0)
			}
		}
		if want := []bool{true, false}; !slices.Equal(behind, want) {
			r.t.Errorf("behind the second pass the sweep was noted as pending %v, want %v", behind, want)
		}
	})
}

// A primary that was set back writes other commits at places where settled has
// been: a barrier would let a writer through before its change is applied.
func TestSettledGoesBackWithThePrimary(t *testing.T) {
	play(t, func(r *rig) {
		r.sink.mark.Lo, r.sink.mark.Settled = at(500), at(500)
		r.source.at.Origin.StartedAt = time.Unix(2, 0)
		r.start()
		r.pass(time.Second)
		if w := r.sink.watermark(); w.Settled.Compare(at(100)) > 0 {
			r.t.Errorf("settled is %s, and the stream begins at %s", w.Settled, at(100))
		}
	})
}

// How a table is published may have changed while nobody looked, and a
// transaction that began before can commit rows that are never sent, behind the
// sweep of the start. A crash before that must not forget it, and who comes back
// with the old configuration must not take what is cached now for its own.
func TestWhatDifferedAtTheStartIsSweptAgainWhenOldTransactionsHaveEnded(t *testing.T) {
	play(t, func(r *rig) {
		r.sink.mark.Fingerprints = guard.Fingerprints{
			"user":    {Key: userTemplate, Hash: "0"},
			"product": {Key: productTemplate, Hash: "1"},
		}
		r.gate.running[900] = true
		r.start()
		r.pass(time.Minute)
		if swept := r.sink.sweeps(); len(swept) != 2 || swept[0].templates != userTemplate {
			r.t.Fatalf("swept %v", swept)
		}
		if got, want := r.sink.watermark().Fingerprints["user"], (guard.Fingerprint{Key: userTemplate}); got != want {
			r.t.Errorf("the watermark has the fingerprint %v, want nobody's %v", got, want)
		}
		r.gate.set(func(g *gate) { delete(g.running, 900) })
		r.pass(time.Minute)
		if swept := r.sink.sweeps(); len(swept) != 4 || swept[3].templates != userTemplate {
			r.t.Errorf("swept %v, want two more passes", swept)
		}
		if got := r.sink.watermark().Fingerprints["user"].Hash; got != "1" {
			r.t.Errorf("the watermark has the fingerprint %q in the end", got)
		}
	})
}
