package engine

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A story is told to an oracle of one row and one lane that must be right.
type story struct {
	*oracle
	lane *lane
}

func newStory() *story {
	l := &lane{name: "lane", prefix: "item:", keeps: true}
	o := newOracle(families(1, false), []*lane{l})
	o.ledgers[0].commit(1, 0)
	return &story{o, l}
}

// begins and commits the next version.
func (s *story) commits() { s.ledgers[0].commit(s.ledgers[0].begin(s.now()), s.now()) }

func (s *story) deletes() {
	n := s.ledgers[0].begin(s.now())
	s.ledgers[0].describe(n, true, "")
	s.ledgers[0].commit(n, s.now())
}

// settles everything that is committed.
func (s *story) settles() {
	s.settled(barrierClock, []int64{s.ledgers[0].newest.Load()}, s.era.Load())
}

func (s *story) hit(text string) { s.judge(s.lane, 0, s.look(s.lane, 0), []byte(text)) }

const (
	first  = `{"id":0,"version":1,"note":"1xx","big":null}`
	second = `{"id":0,"version":2,"note":"2xx","big":null}`
	third  = `{"id":0,"version":3,"note":"3xx","big":null}`
)

// found is what the oracle counted.
type found struct{ Hits, Stale, Backward, Phantoms, Misses, Excused int64 }

// An oracle that cannot see a fault is worth nothing, and one that sees faults
// where the protocol promises nothing is worth less.
func TestTheOracleSeesWhatItShould(t *testing.T) {
	for name, c := range map[string]struct {
		tell func(*story)
		want found
	}{
		"an old value is no fault before the new one has settled": {
			func(s *story) { s.commits(); s.hit(first) },
			found{Hits: 1},
		},
		"and is one behind that": {
			func(s *story) { s.commits(); s.settles(); s.hit(first); s.hit(second) },
			found{Hits: 2, Stale: 1},
		},
		"nor if the read began before": {
			func(s *story) {
				before := s.look(s.lane, 0)
				s.commits()
				s.settles()
				s.judge(s.lane, 0, before, []byte(first))
			},
			found{Hits: 1},
		},
		"a value goes back in time": {
			func(s *story) { s.commits(); s.hit(second); s.hit(first) },
			found{Hits: 2, Backward: 1},
		},
		"while Redis may throw shields away, that is excused": {
			func(s *story) { s.commits(); s.hit(second); s.evicting.Store(true); s.hit(first) },
			found{Hits: 2, Excused: 1},
		},
		"a new version may be seen before its COMMIT has returned": {
			func(s *story) { n := s.ledgers[0].begin(0); s.hit(second); s.ledgers[0].commit(n, 0) },
			found{Hits: 1},
		},
		"and is a phantom if it is rolled back in the end": {
			func(s *story) { n := s.ledgers[0].begin(0); s.hit(second); s.undone(0, n) },
			found{Hits: 1, Phantoms: 1},
		},
		"what was rolled back before is a phantom": {
			func(s *story) { s.undone(0, s.ledgers[0].begin(0)); s.hit(second) },
			found{Hits: 1, Phantoms: 1},
		},
		"a version that no writer has begun": {
			func(s *story) { s.hit(second) },
			found{Hits: 1, Phantoms: 1},
		},
		"a torn value: the columns are of two versions": {
			func(s *story) { s.commits(); s.hit(`{"id":0,"version":2,"note":"1xx","big":null}`) },
			found{Hits: 1, Phantoms: 1},
		},
		"a torn value: a column that the log left out is of another version": {
			func(s *story) {
				n := s.ledgers[0].begin(0)
				s.ledgers[0].describe(n, false, "0.2")
				s.ledgers[0].commit(n, 0)
				s.hit(`{"id":0,"version":2,"note":"2xx","big":"0.1xx"}`)
			},
			found{Hits: 1, Phantoms: 1},
		},
		"no row, where there always was one": {
			func(s *story) { s.hit(absent) },
			found{Hits: 1, Phantoms: 1},
		},
		"no row, after it was deleted": {
			func(s *story) { s.deletes(); s.settles(); s.hit(absent) },
			found{Hits: 1},
		},
		"no row, long after it is there again": {
			func(s *story) { s.deletes(); s.commits(); s.settles(); s.hit(absent) },
			found{Hits: 1, Stale: 1},
		},
		"a row that was deleted comes back as it was": {
			func(s *story) { s.deletes(); s.hit(absent); s.hit(first) },
			found{Hits: 2, Backward: 1},
		},
		"a row that was deleted and made again is deleted again: which time was it?": {
			func(s *story) {
				s.deletes()
				s.commits()
				s.deletes()
				s.hit(absent)
				s.hit(third)
				s.hit(first)
			},
			found{Hits: 3, Backward: 1},
		},
		"and it is the same one for as long as it is not there": {
			func(s *story) {
				s.deletes()
				s.commits()
				s.deletes()
				s.hit(absent)
				s.hit(absent)
				s.hit(third)
			},
			found{Hits: 3},
		},
		"it was the second time: the row had been seen in between": {
			func(s *story) {
				s.deletes()
				s.commits()
				s.deletes()
				s.hit(third)
				s.hit(absent)
				s.hit(third)
			},
			found{Hits: 3, Backward: 1},
		},
		"a deletion that was rolled back takes no row away": {
			func(s *story) {
				n := s.ledgers[0].begin(0)
				s.ledgers[0].describe(n, true, "")
				s.undone(0, n)
				s.hit(absent)
			},
			found{Hits: 1, Phantoms: 1},
		},
		"a Redis that lost writes owes nothing of before": {
			func(s *story) { s.commits(); s.settles(); s.hit(second); s.newEra(); s.hit(first) },
			found{Hits: 2},
		},
		"a read that began before that is not judged": {
			func(s *story) { before := s.look(s.lane, 0); s.newEra(); s.judge(s.lane, 0, before, []byte(first)) },
			found{},
		},
		"a barrier that began before that raises nothing": {
			func(s *story) {
				era := s.era.Load()
				s.commits()
				s.newEra()
				s.settled(barrierClock, []int64{2}, era)
				s.hit(first)
			},
			found{Hits: 1},
		},
		"a writer looks behind its barrier": {
			func(s *story) { s.commits(); s.probed(s.lane, 0, 2, s.era.Load(), []byte(first)) },
			found{Misses: 1},
		},
		"and finds what others have written since": {
			func(s *story) { s.commits(); s.commits(); s.probed(s.lane, 0, 2, 0, []byte(second)) },
			found{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory()
			c.tell(s)
			l := s.lane
			got := found{l.hits.Load(), l.stale.Load(), l.backward.Load(), l.phantoms.Load(), l.misses.Load(), l.excused.Load()}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// becomes has the result be text from its next version on.
func (s *story) becomes(text string) int64 {
	n := s.ledgers[0].begin(s.now())
	s.ledgers[0].describeText(n, text)
	s.ledgers[0].commit(n, s.now())
	return n
}

// A result does not tell its version: what it looks like does. One that looks as it did
// before is taken for the last version of which that is true, where it could be too old,
// and for the first, where it could make others look too old.
func TestTheOracleKnowsAResultByItsText(t *testing.T) {
	for name, c := range map[string]struct {
		tell func(*story)
		want found
	}{
		"an old one behind the barrier": {
			func(s *story) { s.becomes("b"); s.settles(); s.hit("a"); s.hit("b") },
			found{Hits: 2, Stale: 1},
		},
		"it goes back in time": {
			func(s *story) { s.becomes("b"); s.hit("b"); s.hit("a") },
			found{Hits: 2, Backward: 1},
		},
		"it never was like that": {
			func(s *story) { s.hit("b") },
			found{Hits: 1, Phantoms: 1},
		},
		"it never was like that, as it turns out": {
			func(s *story) {
				n := s.ledgers[0].begin(s.now())
				s.ledgers[0].describeText(n, "b")
				s.hit("b")
				s.undone(0, n)
				s.hit("b")
			},
			found{Hits: 2, Phantoms: 2},
		},
		"it looks again as it did: nobody can say that it is old": {
			func(s *story) { s.becomes("b"); s.becomes("a"); s.settles(); s.hit("a") },
			found{Hits: 1},
		},
		"and it may have been the first time": {
			func(s *story) { s.becomes("b"); s.becomes("a"); s.hit("a"); s.hit("b") },
			found{Hits: 2},
		},
		"and not, once something newer was seen": {
			func(s *story) { s.becomes("b"); s.becomes("a"); s.hit("b"); s.hit("a"); s.hit("b") },
			found{Hits: 3, Backward: 1},
		},
		"it would look again as it did, and that is rolled back": {
			func(s *story) {
				s.becomes("b")
				n := s.ledgers[0].begin(s.now())
				s.ledgers[0].describeText(n, "a")
				s.hit("a")
				s.undone(0, n)
				s.settles()
				s.hit("a")
			},
			found{Hits: 2, Stale: 1},
		},
		"there is none any more": {
			func(s *story) { s.becomes(absent); s.settles(); s.hit(absent); s.hit("a") },
			found{Hits: 2, Stale: 1, Backward: 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory()
			s.ledgers[0].describeText(1, "a")
			c.tell(s)
			l := s.lane
			got := found{l.hits.Load(), l.stale.Load(), l.backward.Load(), l.phantoms.Load(), l.misses.Load(), l.excused.Load()}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// How long a hit had been out of date is counted from the commit that made it so,
// not from the last one.
func TestAHitIsAsOldAsWhatReplacedIt(t *testing.T) {
	s := newStory()
	l := &s.ledgers[0]
	l.commit(l.begin(0), 10*time.Millisecond)
	l.undo(l.begin(0), 15*time.Millisecond)
	l.commit(l.begin(0), 20*time.Millisecond)
	for version, want := range map[int64]time.Duration{1: 90 * time.Millisecond, 2: 80 * time.Millisecond, 4: 0} {
		if got := l.behind(version, 100*time.Millisecond); got != want {
			t.Errorf("version %d: behind for %s, want %s", version, got, want)
		}
	}
}

// Whoever reads a failing seed needs what writers, readers and nemesis did, in the
// order of time.
func TestAHistoryTellsTheWholeStory(t *testing.T) {
	s := newStory()
	s.commits()
	s.hit(second)
	s.hit(second)
	s.faults.add(s.now(), "nemesis", "redis-flush")
	s.settles()
	s.inspect = func(*lane, int) string { return "Redis has version 1" }
	s.hit(first)
	at := 0
	for _, want := range []string{
		"stale hit of item:0: version 1, although 2 had settled before the read began",
		"begins version 2", "COMMIT of version 2 has returned", "hit, version 2, 2 times", "redis-flush", "version 2 has settled", "hit, version 1", "now: Redis has version 1",
	} {
		next := strings.Index(s.lane.told[at:], want)
		if next < 0 {
			t.Fatalf("no %q behind byte %d of\n%s", want, at, s.lane.told)
		}
		at += next
	}
}

// The text of a hash is judged like any other, so nothing may get lost on the way.
func TestAHashIsReadLikeItsRow(t *testing.T) {
	row := []byte(`{"id":7,"version":12,"note":"12xx","big":"7.12xx","extra1":null}`)
	want := value{version: 12, big: "7.12"}
	if got := parse(textOf(fieldsOf(row))); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := textOf(fieldsOf([]byte(absent))); string(got) != absent {
		t.Errorf("no row reads %s", got)
	}
}
