package change_test

import (
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/unstale/unstale/internal/change"
)

// The rule of pg_visible_in_snapshot: below xmin, or below xmax and not running.
func TestATransactionIsVisibleOnceItHasLeftTheRunningOnes(t *testing.T) {
	s := change.Snapshot{XMin: 100, XMax: 110, XIP: []uint64{100, 105}}
	for xid, want := range map[uint32]bool{99: true, 100: false, 101: true, 105: false, 109: true, 110: false, 111: false} {
		if got := s.Visible(xid); got != want {
			t.Errorf("transaction %d visible: %v, want %v", xid, got, want)
		}
	}
}

// What has a number that nobody had yet cannot be of this server. What runs has one
// that may be above xmax.
func TestATransactionThatNobodyHasBegunIsForeign(t *testing.T) {
	const epoch = 1 << 32
	for _, test := range []struct {
		s    change.Snapshot
		xid  uint32
		want bool
	}{
		{change.Snapshot{XMin: 100, XMax: 110, Next: 115}, 109, false},
		{change.Snapshot{XMin: 100, XMax: 110, Next: 115}, 114, false},
		{change.Snapshot{XMin: 100, XMax: 110, Next: 115}, 115, true},
		{change.Snapshot{XMin: 100, XMax: 110, Next: 115}, 800_000_000, true},
		{change.Snapshot{XMin: 100, XMax: 110, Next: 115}, 3_000_000_000, true},
		{change.Snapshot{XMin: epoch + 100, XMax: epoch + 110, Next: epoch + 115}, 114, false},
		{change.Snapshot{XMin: epoch + 100, XMax: epoch + 110, Next: epoch + 115}, 115, true},
		{change.Snapshot{XMin: epoch + 100, XMax: epoch + 110, Next: epoch + 115}, 3_000_000_000, false}, // an old one of ours
		{change.Snapshot{XMin: 100, XMax: 110}, 800_000_000, false},                                      // nobody has said
		{change.Snapshot{Unknown: true}, 800_000_000, false},
	} {
		if got := test.s.Foreign(test.xid); got != test.want {
			t.Errorf("%d of %+v: foreign is %v, want %v", test.xid, test.s, got, test.want)
		}
	}
}

// Nothing is visible in a snapshot that was never asked for.
func TestAnEmptySnapshotShowsNothing(t *testing.T) {
	var s change.Snapshot
	for _, xid := range []uint32{1, 3, 1000, 1<<31 - 1} {
		if s.Visible(xid) {
			t.Errorf("transaction %d is visible in an empty snapshot", xid)
		}
	}
}

// The log has the lower 32 bits of a transaction id, which wrap around; the
// snapshot has all 64. Within two billion transactions either way there is only
// one that can be meant.
func TestThirtyTwoBitsAreWidenedToTheNearestTransaction(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		xmax := rapid.Uint64Range(3, 1<<40).Draw(t, "xmax")
		ahead := rapid.Bool().Draw(t, "ahead")
		full := xmax + rapid.Uint64Range(0, 1<<31-1).Draw(t, "distance")
		if !ahead {
			full = xmax - 1 - rapid.Uint64Range(0, min(1<<31-1, xmax-1)).Draw(t, "age")
		}
		s := change.Snapshot{XMin: xmax, XMax: xmax}
		if got, want := s.Visible(uint32(full)), full < xmax; got != want {
			t.Errorf("transaction %d seen from %d: visible %v, want %v", full, xmax, got, want)
		}
		running := change.Snapshot{XMin: full, XMax: max(full+1, xmax), XIP: []uint64{full}}
		if !ahead && running.Visible(uint32(full)) {
			t.Errorf("transaction %d is visible while it runs", full)
		}
	})
}

// Callers branch on it, however deep it is wrapped.
func TestARefusalIsFoundThroughWraps(t *testing.T) {
	refusal := &change.Refusal{Problem: "no slot", Mend: "SELECT 1"}
	if !change.IsRefusal(fmt.Errorf("attach: %w", refusal)) || change.IsRefusal(errors.New("no slot")) {
		t.Error("a refusal is not told apart")
	}
	if got, want := refusal.Error(), "no slot\n  mend it with: SELECT 1"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
