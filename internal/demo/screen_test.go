package demo_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/demo"
)

func report(seconds float64) demo.Report {
	tally := func(reads, hitRate, stale float64) demo.Tally {
		return demo.Tally{Reads: int64(reads * seconds), Hits: 1, Loads: int64(reads * seconds * (1 - hitRate)), HitRate: hitRate, Stale: int64(stale * seconds)}
	}
	perEntry := func(category, product, customer, order float64, modes ...string) map[string]demo.EntryReport {
		modes = append(modes, "", "", "", "")
		missed := 7.0 // pages that a renamed category has left
		if modes[0] != "" {
			missed = 0
		}
		return map[string]demo.EntryReport{
			"category": {OnChange: modes[0], Tally: tally(210, category, 0)},
			"product":  {OnChange: modes[1], Tally: tally(840, product, 0)},
			"customer": {OnChange: modes[2], Tally: tally(168, customer, 0)},
			"order":    {OnChange: modes[3], Tally: tally(182, order, 0)},

			"product_page":  {OnChange: modes[2], Tally: tally(500, product, missed)},
			"category_list": {OnChange: modes[2], Tally: tally(100, customer, 0)},
			"open_orders":   {OnChange: modes[3], Tally: tally(100, order, 0)},
		}
	}
	return demo.Report{
		Seconds: seconds, Changes: int64(300 * seconds), ChangesPerSecond: 300,
		Servers: demo.Servers{PostgreSQL: "PostgreSQL 18.6", Redis: "Valkey 9.1.2"},
		Caches: demo.Caches{
			TTLOnly: demo.CacheReport{Tally: tally(1400, 0.885, 700), Entries: perEntry(0.98, 0.9, 0.85, 0.79)},
			DELAfterEvent: demo.CacheReport{Tally: tally(1400, 0.831, 2), Entries: perEntry(0.975, 0.848, 0.85, 0.65),
				Latency: &demo.Latency{P50: 0.42, P99: 6.85}},
			Unstale: demo.CacheReport{Tally: tally(1400, 0.954, 0), Entries: perEntry(1, 0.998, 0.981, 0.651, "warm", "update", "refresh", "invalidate"),
				KeysSet: int64(145 * seconds), Latency: &demo.Latency{P50: 0.84, P99: 6.99}},
		},
	}
}

// The screen tells what has happened since the start, and beside it what
// happens now.
func TestTheScreenShowsTheCachesSideBySide(t *testing.T) {
	screen := demo.NewScreen(demo.Options{}, false)
	screen.Lines(report(3600))
	got := strings.Join(screen.Lines(report(3610)), "\n")
	want := ` unstale demo   PostgreSQL 18.6, Valkey 9.1.2   1h0m10s   Ctrl-C ends it

 Rows of a shop change. Rows and results of queries are read through three
 caches. A miss loads, and takes about 5ms more before it writes to Redis.

 changes/s  300       reads/s  1400 in each cache

                               TTL only  DEL after event                 Unstale
 after a miss                 SET, 10 s         SET, 1 h              lease, 1 h
 after a change                 nothing              DEL       as the entry says
 hit rate (stale)    88.5 % (2,527,000)   83.1 % (7,220)              95.4 % (0)
   categories                98.0 % (0)       97.5 % (0) warm        100.0 % (0)
   products                  90.0 % (0)       84.8 % (0) update       99.8 % (0)
   customers                 85.0 % (0)       85.0 % (0) refresh      98.1 % (0)
   orders                    79.0 % (0)       65.0 % (0) invalidate   65.1 % (0)
   product pages        90.0 % (25,270)  84.8 % (25,270) refresh      99.8 % (0)
   category lists            85.0 % (0)       85.0 % (0) refresh      98.1 % (0)
   open orders               79.0 % (0)       65.0 % (0) invalidate   65.1 % (0)
 stale a second, now              700.0              2.0                     0.0
 to Redis, p50 / p99                  -    0.42 / 6.8 ms           0.84 / 7.0 ms

 Stale: older than a change that DEL and Unstale had applied before the read.
 
 unstale status -c `
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

// Where changes come through Kafka, each way of telling has how the connector is.
func TestTheConnectorIsTold(t *testing.T) {
	r := report(10)
	r.Pipeline = &demo.PipelineReport{Connect: "Kafka Connect 4.3.1", Connector: "RUNNING", LagRecords: 7}
	screen := demo.NewScreen(demo.Options{}, false)
	for way, text := range map[string]string{"screen": strings.Join(screen.Lines(r), "\n"), "line": screen.Line(r)} {
		if !strings.Contains(text, "connector RUNNING, 7 records to be read") {
			t.Errorf("the %s does not tell it:\n%s", way, text)
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
		{"over Kafka, a result of a query while a partition lags", func(r *demo.Report) {
			r.Pipeline = &demo.PipelineReport{}
			r.Caches.Unstale.Stale = 1
			r.Caches.Unstale.Entries["product_page"] = demo.EntryReport{OverQuery: true, Tally: demo.Tally{Stale: 1}}
		}, ""},
		{"over Kafka, a row", func(r *demo.Report) {
			r.Pipeline = &demo.PipelineReport{}
			r.Caches.Unstale.Stale = 1
			r.Caches.Unstale.Entries["product"] = demo.EntryReport{Tally: demo.Tally{Stale: 1}}
		}, "unstale served 1 stale hits"},
		{"a result of a query", func(r *demo.Report) {
			r.Caches.Unstale.Stale = 1
			r.Caches.Unstale.Entries["product_page"] = demo.EntryReport{OverQuery: true, Tally: demo.Tally{Stale: 1}}
		}, "unstale served 1 stale hits"},
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
