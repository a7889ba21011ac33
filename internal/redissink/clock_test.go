package redissink

import (
	"errors"
	"testing"
	"time"

	"github.com/unstale/unstale/internal/guard"
)

// A clock that was set, or a machine that stood still together with its clock,
// makes the age of every change a guess: the shield of a reader may be gone.
func TestClocksThatMoveApartAreNoticed(t *testing.T) {
	at := time.Unix(1000, 0)
	for _, test := range []struct {
		name           string
		elapsed        time.Duration
		master         int64 // since the first look
		wrong          bool
		when, whenWant time.Duration
	}{
		{"together", time.Minute, 60_000, false, time.Second, 61 * time.Second},
		{"an answer that took its time", time.Minute, 59_000, false, time.Second, 60 * time.Second},
		{"a little ahead", time.Minute, 61_000, false, time.Second, 62 * time.Second},
		{"we stood still", time.Second, 601_000, true, time.Second, 602 * time.Second},
		{"set back", time.Minute, -3_600_000, true, 0, -time.Hour},
	} {
		c := clock{master: 5_000, at: at}
		err := c.set(5_000+test.master, at.Add(test.elapsed))
		if errors.Is(err, guard.ErrClock) != test.wrong {
			t.Errorf("%s: %v", test.name, err)
		}
		if got := c.when(at.Add(test.elapsed).Add(test.when)); got != 5_000+test.whenWant.Milliseconds() {
			t.Errorf("%s: %d ms, want %s after 5 s", test.name, got, test.whenWant)
		}
	}
}
