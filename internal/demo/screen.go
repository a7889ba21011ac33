package demo

import (
	"fmt"
	"strings"
	"time"
)

// A Screen renders reports for a terminal of 80 by 24. It remembers a few of
// them, to tell what happens now from what has happened since the start.
type Screen struct {
	color  bool
	load   time.Duration
	recent []Report // of the last few seconds, the oldest first
}

// recentMax is what "now" means: this many reports, a quarter of a second each.
const recentMax = 12

// NewScreen returns a screen for a demo with these options. Without color it
// holds text only.
func NewScreen(options Options, color bool) *Screen {
	return &Screen{color: color, load: options.withDefaults().LoadTime}
}

const (
	bold  = "\x1b[1m"
	faint = "\x1b[2m"
	red   = "\x1b[1;31m"
	green = "\x1b[1;32m"
	plain = "\x1b[0m"
)

func (s *Screen) paint(style, text string) string {
	if !s.color {
		return text
	}
	return style + text + plain
}

// Lines renders the live screen: 24 lines of 80 columns at most.
func (s *Screen) Lines(r Report) []string {
	s.recent = append(s.recent, r)
	if len(s.recent) > recentMax {
		s.recent = s.recent[1:]
	}
	before := &s.recent[0]
	changing := perSecond(&r, before, func(r *Report) int64 { return r.Changes })
	reading := perSecond(&r, before, func(r *Report) int64 { return r.Caches.Unstale.Reads })

	clock := time.Duration(r.Seconds * float64(time.Second)).Truncate(time.Second)
	lines := []string{
		" " + s.paint(bold, "unstale demo") + s.paint(faint, fmt.Sprintf("   %s, %s   %s   Ctrl-C ends it", r.Servers.PostgreSQL, r.Servers.Redis, clock)),
		"",
		" Rows of a shop change. Rows and results of queries are read through three",
		" caches. A miss loads, and takes " + about(s.load) + " more before it writes to Redis.",
		"",
		" changes/s  " + s.paint(bold, fmt.Sprintf("%-8.0f", changing)) + "  reads/s  " + s.paint(bold, fmt.Sprintf("%.0f", reading)) + " in each cache",
		"",
	}
	lines = append(lines, s.table(&r, before)...)
	if p := r.Pipeline; p != nil {
		lines = append(lines, " "+s.paint(faint, p.Connect+": "+p.String()))
	}
	return append(lines, "",
		" Stale: older than a change that DEL and Unstale had applied before the read.",
		" "+s.paint(faint, lastStale(&r.Caches.DELAfterEvent)),
		" "+s.paint(faint, "unstale status -c "+r.config))
}

// Summary renders what remains on the terminal at the end.
func (s *Screen) Summary(r Report) []string {
	return append([]string{fmt.Sprintf(" %s changes and %s reads of each cache in %.0f s:", thousands(r.Changes), thousands(r.Caches.Unstale.Reads), r.Seconds), ""},
		s.table(&r, nil)...)
}

// table has the caches side by side; before, if not nil, is a report of a few
// seconds ago.
func (s *Screen) table(r, before *Report) []string {
	caches := r.Caches.all()
	widths := [cacheCount]int{ttlOnly: 18, delAfterEvent: 17, coherent: 24}
	var lines []string
	line := func(name string, cell func(i int) (style, text string)) {
		var text strings.Builder
		fmt.Fprintf(&text, " %-20s", name)
		for i := range caches {
			style, value := cell(i)
			text.WriteString(s.paint(style, fmt.Sprintf("%*s", widths[i], value)))
		}
		lines = append(lines, text.String())
	}
	line("", func(i int) (string, string) { return bold, [...]string{"TTL only", "DEL after event", "Unstale"}[i] })
	line("after a miss", func(i int) (string, string) {
		return faint, [...]string{"SET, 10 s", "SET, 1 h", "lease, 1 h"}[i]
	})
	line("after a change", func(i int) (string, string) {
		return faint, [...]string{"nothing", "DEL", "as the entry says"}[i]
	})
	line("hit rate (stale)", func(i int) (string, string) { return verdictStyle(caches[i].Stale), hits(caches[i].Tally) })
	for _, e := range entries {
		line("  "+e.title, func(i int) (string, string) {
			entry := caches[i].Entries[e.name]
			return "", strings.TrimSpace(fmt.Sprintf("%-10s %12s", entry.OnChange, hits(entry.Tally)))
		})
	}
	if before != nil {
		line("stale a second, now", func(i int) (string, string) {
			return "", fmt.Sprintf("%.1f", perSecond(r, before, func(r *Report) int64 { return r.Caches.all()[i].Stale }))
		})
	}
	line("to Redis, p50 / p99", func(i int) (string, string) {
		if caches[i].Latency == nil {
			return faint, "-"
		}
		return "", fmt.Sprintf("%.2f / %.1f ms", caches[i].Latency.P50, caches[i].Latency.P99)
	})
	return lines
}

func perSecond(now, before *Report, count func(*Report) int64) float64 {
	if now.Seconds <= before.Seconds {
		return 0
	}
	return float64(count(now)-count(before)) / (now.Seconds - before.Seconds)
}

func lastStale(c *CacheReport) string {
	if c.last == nil {
		return ""
	}
	return "Last: " + c.last.String()
}

// Line renders r in one line, for where there is no terminal.
func (s *Screen) Line(r Report) string {
	c := &r.Caches
	text := fmt.Sprintf("%4.0fs  %.0f changes/s  hit rate %.1f / %.1f / %.1f %%  stale hits %d / %d / %d",
		r.Seconds, r.ChangesPerSecond, 100*c.TTLOnly.HitRate, 100*c.DELAfterEvent.HitRate, 100*c.Unstale.HitRate,
		c.TTLOnly.Stale, c.DELAfterEvent.Stale, c.Unstale.Stale)
	if l := c.Unstale.Latency; l != nil {
		text += fmt.Sprintf("  p50 %.2f p99 %.2f ms", l.P50, l.P99)
	}
	if r.Pipeline != nil {
		text += "  " + r.Pipeline.String()
	}
	return text
}

// hits has the hit rate of a tally, and its stale hits.
func hits(t Tally) string { return fmt.Sprintf("%.1f %% (%s)", 100*t.HitRate, thousands(t.Stale)) }

func verdictStyle(stale int64) string {
	if stale > 0 {
		return red
	}
	return green
}

func about(d time.Duration) string {
	if d == 0 {
		return "no time"
	}
	return "about " + d.String()
}

// thousands groups digits.
func thousands(n int64) string {
	digits := fmt.Sprint(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
