package change_test

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"github.com/unstale/unstale/internal/change"
)

var positions = rapid.Custom(func(t *rapid.T) change.Position {
	return change.Position{
		Timeline: rapid.Uint32().Draw(t, "timeline"),
		LSN:      rapid.Uint64().Draw(t, "lsn"),
		Row:      rapid.Uint64().Draw(t, "row"),
	}
})

// Redis holds positions as bytes, and whoever compares two of them must come to
// the same answer.
func TestTheOrderOfBytesIsTheOrderOfTheStream(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, q := positions.Draw(t, "p"), positions.Draw(t, "q")
		if got, want := bytes.Compare(p.Append(nil), q.Append(nil)), p.Compare(q); got != want {
			t.Errorf("bytes of %s and %s compare %d, positions %d", p, q, got, want)
		}
		back, err := change.DecodePosition(p.Append(nil))
		if err != nil || back != p {
			t.Errorf("%s came back as %s, %v", p, back, err)
		}
	})
}

// After a failover the new primary's log is later than anything on the old
// timeline, however far the old one had come.
func TestALaterTimelineBeatsAnyLSN(t *testing.T) {
	before := change.Position{Timeline: 1, LSN: 1 << 60, Row: 5}
	after := change.Position{Timeline: 2, LSN: 1}
	if before.Compare(after) >= 0 {
		t.Errorf("%s is not before %s", before, after)
	}
}

// A watermark that something else has overwritten must be an error, not a place.
func TestAPositionOfAnotherLengthIsAnError(t *testing.T) {
	for _, n := range []int{1, change.PositionSize - 1, change.PositionSize + 1} {
		if p, err := change.DecodePosition(make([]byte, n)); err == nil {
			t.Errorf("%d bytes were read as %s", n, p)
		}
	}
	if p, err := change.DecodePosition(nil); err != nil || !p.IsZero() {
		t.Errorf("no bytes: %s, %v", p, err)
	}
}

func TestAPositionPrintsAsPostgreSQLPrintsIt(t *testing.T) {
	for want, p := range map[string]change.Position{
		"1/0/16B3748":    {Timeline: 1, LSN: 0x16B3748},
		"3/A/FF000000+7": {Timeline: 3, LSN: 0xAFF000000, Row: 7},
		"offset 42":      {Timeline: change.Offsets, LSN: 42},
	} {
		if got := p.String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
