package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/fill"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
)

// A right that is missing is named, and nobody is told that the same command goes
// on.
func TestAWarmNamesTheRightThatIsMissing(t *testing.T) {
	w := &warm{role: "app", entries: []plan.Entry{{Name: "order", Schema: "shop", Table: "Orders"}}}
	err := w.stopped(0, fmt.Errorf("estimate: %w", &pgconn.PgError{Code: "42501", Message: "permission denied for table Orders"}))
	for _, want := range []string{"permission denied", `GRANT SELECT ON shop."Orders" TO app;`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "goes on") {
		t.Errorf("%q", err)
	}
	if err := w.stopped(0, errors.New("away")); !strings.Contains(err.Error(), "goes on") {
		t.Errorf("of another error: %q", err)
	}
	if err := w.stopped(0, fill.ErrSuperseded); strings.Contains(err.Error(), "goes on") {
		t.Errorf("of another owner: %q", err)
	}
}

// What the next start of run would drop is not worth loading. Of several streams one
// is enough for that.
func TestWhatWouldNotStayIsNotLoaded(t *testing.T) {
	template, err := guard.ParseTemplate("product:{id}")
	if err != nil {
		t.Fatal(err)
	}
	offset := func(n uint64) change.Position { return change.Position{Timeline: change.Offsets, LSN: n} }
	today := guard.Fingerprints{"product": {Key: "product:{id}", Hash: "1"}}
	for _, test := range []struct {
		name    string
		changes func(st *warmStream, mark *guard.Watermark) *guard.Watermark
		want    string // empty: it stays
	}{
		{"all is well", func(_ *warmStream, m *guard.Watermark) *guard.Watermark { return m }, ""},
		{"nobody has read it", func(*warmStream, *guard.Watermark) *guard.Watermark { return nil }, "no unstale run has worked with this Redis and partition 1 of t yet"},
		{"records are gone", func(st *warmStream, m *guard.Watermark) *guard.Watermark { st.Confirmed = offset(11); return m }, "partition 1 of t has passed what Redis has"},
		{"the group knows of others", func(st *warmStream, m *guard.Watermark) *guard.Watermark { st.Gap = "is another one"; return m }, "partition 1 of t is another one: changes since are missing"},
		{"another primary", func(_ *warmStream, m *guard.Watermark) *guard.Watermark { m.Origin = "x"; return m }, "the database has restarted, or is another one"},
		{"another entry", func(_ *warmStream, m *guard.Watermark) *guard.Watermark { m.Fingerprints = nil; return m }, "run unstale warm again in ten seconds"},
		{"a sweep", func(_ *warmStream, m *guard.Watermark) *guard.Watermark {
			m.Sweeps = []guard.Sweep{{Key: "product:{id}"}}
			return m
		}, "entry product is being swept"},
	} {
		w := &warm{entries: []plan.Entry{{Name: "product", Key: template}}, numbers: []int{0}, today: today}
		var marks []*guard.Watermark
		for i := range 2 {
			w.streams = append(w.streams, warmStream{Stream: change.Stream{Confirmed: offset(0)}, said: fmt.Sprintf("partition %d of t", i)})
			marks = append(marks, &guard.Watermark{Lo: offset(10), Origin: w.origin.String(), Fingerprints: today})
		}
		marks[1] = test.changes(&w.streams[1], marks[1])
		switch err := w.stays(marks); {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", test.name, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
	}
}

// What was loaded before a sweep is gone, and only the watermark tells.
func TestAWatermarkTellsOfASweep(t *testing.T) {
	const key = "product:{id}"
	for _, test := range []struct {
		name string
		mark *guard.Watermark
		want bool
	}{
		{"nothing has happened", &guard.Watermark{Epoch: 3}, false},
		{"the service has started again", &guard.Watermark{Epoch: 4}, false},
		{"another entry is swept", &guard.Watermark{Epoch: 3, Sweeps: []guard.Sweep{{Key: "user:{id}"}}}, false},
		{"the entry is swept", &guard.Watermark{Epoch: 3, Sweeps: []guard.Sweep{{Key: key, Letters: "i"}}}, true},
		{"redis was emptied", nil, true},
		{"redis was emptied, and the service has noticed", &guard.Watermark{Epoch: 1}, true},
	} {
		if got := sweeps(test.mark, 3, key); got != test.want {
			t.Errorf("%s: got %v", test.name, got)
		}
	}
}

// A resumed run counts rows of others, and has seconds of its own.
func TestAResultSaysWhichRowsAreOfThisRun(t *testing.T) {
	for _, test := range []struct {
		result warmResult
		want   string
	}{
		{warmResult{Entry: "product", Rows: 1000, Seconds: 4, Tally: fill.Tally{Stored: 1000}}, "product: 1,000 rows in 4.0 s (250 rows/s), 1,000 loaded"},
		{warmResult{Entry: "product", Rows: 1000, Earlier: 600, Seconds: 4, Tally: fill.Tally{Stored: 1000}}, "product: 1,000 rows, 600 of them by earlier runs, the others in 4.0 s (100 rows/s), 1,000 loaded"},
		{warmResult{Entry: "product", Rows: 3, Seconds: 0.1, Tally: fill.Tally{Full: 3}}, "product: 3 rows in 0.1 s, 3 refused by a full Redis"},
	} {
		if got := test.result.String(); got != test.want {
			t.Errorf("got  %s\nwant %s", got, test.want)
		}
	}
}

// Whoever types it wrong is told what is wanted, and where more is said.
func TestARateIsANumberOfRows(t *testing.T) {
	for _, rate := range []string{"0", "-1", "abc", "1e3"} {
		var said bytes.Buffer
		exit := execute([]string{"warm", "--rate", rate}, strings.NewReader(""), io.Discard, &said)
		for _, want := range []string{"want a number of rows, 1 or more", "unstale warm --help"} {
			if exit != exitUsage || !strings.Contains(said.String(), want) {
				t.Errorf("--rate %s: exit %d, without %q:\n%s", rate, exit, want, &said)
			}
		}
		if strings.Contains(said.String(), "strconv") {
			t.Errorf("--rate %s:\n%s", rate, &said)
		}
	}
}
