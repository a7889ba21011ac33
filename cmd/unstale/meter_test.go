package main

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// In a log file a bar is noise: a line now and then says as much. How fast it is
// counts from where it began this time.
func TestTheMeterWritesALineNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		m := newMeter(&out)
		began := time.Now()
		for second := range 21 {
			m.show("product", int64(100_000+second*1000), 100_000, 130_000, time.Since(began))
			time.Sleep(time.Second) // of the bubble's clock
		}
		m.show("product", 140_000, 100_000, 130_000, 40*time.Second)
		want := `product: 105,000 of about 130,000 rows (80 %), 1,000 rows/s, 25 s left
product: 110,000 of about 130,000 rows (84 %), 1,000 rows/s, 20 s left
product: 115,000 of about 130,000 rows (88 %), 1,000 rows/s, 15 s left
product: 120,000 of about 130,000 rows (92 %), 1,000 rows/s, 10 s left
`
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Errorf("lines (-want +got):\n%s", diff)
		}
	})
}

// A log line stands above the bar, which is drawn again; the bar is one line and
// goes when it is over.
func TestTheBarMakesRoomForLines(t *testing.T) {
	var out bytes.Buffer
	m := &meter{out: &out, terminal: true}
	m.show("product", 50, 0, 100, time.Second)
	m.say("holding")
	m.clear()
	bar := "product [############............]  50 %  50/100  50/s  1.0 s left"
	want := fmt.Sprintf("\r%s%s\r%sholding\n%s\r%s", bar, clearLine, clearLine, bar, clearLine)
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A bar that wraps leaves a line behind with each redraw.
func TestTheBarIsNoWiderThanTheTerminal(t *testing.T) {
	var out bytes.Buffer
	m := &meter{out: &out, terminal: true, width: func() int { return 40 }}
	m.show("an-entry-with-a-long-name", 50, 0, 100, time.Second)
	if want := "\ran-entry-with-a-long-name [############" + clearLine; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}
