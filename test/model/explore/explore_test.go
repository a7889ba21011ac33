package explore_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/test/model/explore"
)

// jugs hold three and five litres: the riddle of how to measure four.
type jugs struct{ three, five uint8 }

type riddle struct {
	forbidden uint8 // in the jug of five; 0: nothing is
	stuck     bool  // when it is quiet, nobody empties the jugs
	say       func(string)
}

func (riddle) Initial() jugs              { return jugs{} }
func (r *riddle) Listen(say func(string)) { r.say = say }
func (riddle) Calm(s *jugs) jugs          { return *s }
func (r riddle) step(s *jugs, a, b uint8) jugs {
	if r.say != nil {
		r.say(fmt.Sprintf("%d %d", a, b))
	}
	return jugs{a, b}
}

func (r *riddle) Next(s *jugs, step func(*jugs)) {
	over := min(s.three, 5-s.five)
	back := min(s.five, 3-s.three)
	for _, to := range []jugs{
		{3, s.five}, {s.three, 5}, {0, s.five}, {s.three, 0},
		{s.three - over, s.five + over}, {s.three + back, s.five - back},
	} {
		n := r.step(s, to.three, to.five)
		step(&n)
	}
}

func (r *riddle) Broken(s *jugs) string {
	if r.forbidden > 0 && s.five == r.forbidden {
		return fmt.Sprintf("%d litres", s.five)
	}
	return ""
}

func (r *riddle) Quiet(s *jugs, step func(*jugs)) (done bool) {
	if *s == (jugs{}) {
		return true
	}
	if !r.stuck {
		n := r.step(s, 0, 0)
		step(&n)
	}
	return false
}

// Both jugs can hold sixteen different pairs of amounts, and no more.
func TestEveryStateIsVisitedOnce(t *testing.T) {
	got := explore.Run(&riddle{}, explore.Limits{})
	if got.States != 16 || !got.Exhausted || got.Broken != "" {
		t.Errorf("got %+v, want 16 states, exhausted, nothing broken", got)
	}
}

// The story is the shortest there is.
func TestTheStoryIsTheShortest(t *testing.T) {
	got := explore.Run(&riddle{forbidden: 4}, explore.Limits{})
	want := []string{"0 5", "3 2", "0 2", "2 0", "2 5", "3 4"}
	if diff := cmp.Diff(want, got.Story); diff != "" || got.Broken != "4 litres" {
		t.Errorf("broken: %q; story (-want +got)\n%s", got.Broken, diff)
	}
}

// A state from which nothing leads to rest is broken, although no promise is in
// any state.
func TestAStateThatNeverComesToRestIsBroken(t *testing.T) {
	got := explore.Run(&riddle{stuck: true}, explore.Limits{})
	if diff := cmp.Diff([]string{"3 0", "-- all is quiet from here --"}, got.Story); diff != "" || got.Broken == "" {
		t.Errorf("broken: %q; story (-want +got)\n%s", got.Broken, diff)
	}
}

// A bound is not mistaken for the end.
func TestABoundedRunSaysSo(t *testing.T) {
	if got := explore.Run(&riddle{}, explore.Limits{States: 5}); got.Exhausted {
		t.Errorf("got %+v, want it not exhausted", got)
	}
}
