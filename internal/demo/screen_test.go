package demo_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/demo"
)

func report(seconds float64) demo.Report {
	return demo.Report{
		Seconds: seconds, Changes: int64(300 * seconds), ChangesPerSecond: 300,
		Servers: demo.Servers{PostgreSQL: "PostgreSQL 18.6", Redis: "Valkey 9.1.2"},
		Caches: demo.Caches{
			TTLOnly:       demo.CacheReport{Reads: int64(1400 * seconds), Hits: 1, HitRate: 0.885, Stale: int64(700 * seconds)},
			DELAfterEvent: demo.CacheReport{Reads: int64(1400 * seconds), Hits: 1, HitRate: 0.831, Stale: int64(2 * seconds), Latency: &demo.Latency{P50: 0.42, P99: 6.85}},
			Unstale:       demo.CacheReport{Reads: int64(1400 * seconds), Hits: 1, HitRate: 0.832, Latency: &demo.Latency{P50: 0.84, P99: 6.99}},
		},
	}
}

// The screen tells what has happened since the start, and beside it what
// happens now.
func TestTheScreenShowsTheCachesSideBySide(t *testing.T) {
	screen := demo.NewScreen(demo.Options{}, false)
	screen.Lines(report(3600))
	got := strings.Join(screen.Lines(report(3610)), "\n")
	want := ` unstale demo   PostgreSQL 18.6 and Valkey 9.1.2, started for it   1h0m10s

 A shop whose rows change, and are read through three caches, each row through
 all three. A miss loads from PostgreSQL; then the application takes about 5ms
 before it writes to the cache: the same for all three.

 changes/s  300       reads/s  1400 in each cache

                                 TTL only   DEL after event           Unstale
 after a miss                   SET, 10 s          SET, 1 h        lease, 1 h
 reads                          5,054,000         5,054,000         5,054,000
 hit rate                          88.5 %            83.1 %            83.2 %
 stale hits                     2,527,000             7,220                 0
   per second, now                  700.0               2.0               0.0
 commit to Redis  p50                   -           0.42 ms           0.84 ms
                  p99                   -           6.85 ms           6.99 ms

 A stale hit is older than a change that was committed, and that both DEL and
 Unstale had applied, before the read began.
 

 unstale status -c 
 Ctrl-C ends it and removes everything.`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	lines := strings.Split(got, "\n")
	if len(lines) > 24 {
		t.Errorf("%d lines, want 24 at most", len(lines))
	}
	for _, line := range lines {
		if n := utf8.RuneCountInString(line); n > 80 {
			t.Errorf("%d columns, want 80 at most: %s", n, line)
		}
	}
}

// Colors are for whoever asked for them.
func TestWithoutColorTheScreenIsText(t *testing.T) {
	for _, color := range []bool{false, true} {
		text := strings.Join(demo.NewScreen(demo.Options{}, color).Lines(report(1)), "\n")
		if got := strings.Contains(text, "\x1b"); got != color {
			t.Errorf("color %v: escape sequences %v", color, got)
		}
	}
}

// An empty cache has no stale hits either: that must not pass.
func TestTheVerdictAsksForHitsAndForNoStaleOnes(t *testing.T) {
	tests := []struct {
		fact   string
		change func(*demo.Report)
		want   string
	}{
		{"as it should be", func(*demo.Report) {}, ""},
		{"a stale hit", func(r *demo.Report) { r.Caches.Unstale.Stale = 1 }, "unstale served 1 stale hits"},
		{"no hits", func(r *demo.Report) { r.Caches.Unstale.Hits, r.Caches.Unstale.HitRate = 0, 0 }, "hit rate is 0.0 %"},
		{"few hits", func(r *demo.Report) { r.Caches.Unstale.HitRate = 0.4 }, "hit rate is 40.0 % where DEL after the event has 83.1 %"},
		{"nothing at all", func(r *demo.Report) { *r = demo.Report{} }, "hit rate is 0.0 %"},
		{"stale hits of others", func(r *demo.Report) { r.Caches.DELAfterEvent.Stale = 1000 }, ""},
	}
	for _, test := range tests {
		r := report(10)
		test.change(&r)
		err := r.Verdict()
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", test.fact, err, test.want)
		}
	}
}
