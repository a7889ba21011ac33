package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// A meter shows how far a long piece of work is: on a terminal a bar in one line
// that is drawn again, elsewhere a line now and then. What is written to it in
// between, such as a log, stands above the bar.
type meter struct {
	mu       sync.Mutex
	out      io.Writer
	terminal bool
	every    time.Duration
	next     time.Time
	bar      string // what is drawn; empty: nothing
	// width returns the columns of the terminal; 0: it does not say.
	width func() int
}

const (
	meterBar      = 24 // characters
	meterRedraw   = 100 * time.Millisecond
	meterLineEach = 5 * time.Second
)

func newMeter(out io.Writer) *meter {
	m := &meter{out: out, every: meterLineEach}
	if file, ok := out.(*os.File); ok && term.IsTerminal(int(file.Fd())) && os.Getenv("TERM") != "dumb" {
		m.terminal, m.every = true, meterRedraw
		m.width = func() int {
			width, _, err := term.GetSize(int(file.Fd()))
			if err != nil {
				return 0
			}
			return width
		}
	}
	m.next = time.Now().Add(m.every)
	return m
}

// show says that of about total rows so many are done, and were before it began.
func (m *meter) show(name string, done, before, total int64, elapsed time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if now.Before(m.next) {
		return
	}
	m.next = now.Add(m.every)
	if !m.terminal {
		fmt.Fprintln(m.out, meterLine(name, done, before, total, elapsed))
		return
	}
	m.bar = m.cut(meterBarLine(name, done, before, total, elapsed))
	fmt.Fprint(m.out, "\r"+m.bar+clearLine)
}

// cut keeps a line in one line: one that wraps cannot be drawn over. The last
// column stays free, since some terminals wrap behind it.
func (m *meter) cut(line string) string {
	if m.width == nil {
		return line
	}
	if width := m.width(); width > 0 && len(line) >= width {
		return line[:width-1] // names of entries are ASCII, as all else is
	}
	return line
}

// say writes a line.
func (m *meter) say(line string) { fmt.Fprintln(m, line) }

// Write implements io.Writer.
func (m *meter) Write(text []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.bar != "" {
		fmt.Fprint(m.out, "\r"+clearLine)
		defer func() { fmt.Fprint(m.out, m.bar) }()
	}
	return m.out.Write(text)
}

// clear takes the bar away.
func (m *meter) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.bar != "" {
		fmt.Fprint(m.out, "\r"+clearLine)
		m.bar = ""
	}
	m.next = time.Now().Add(m.every)
}

func meterLine(name string, done, before, total int64, elapsed time.Duration) string {
	speed, left := pacing(done, before, total, elapsed)
	return fmt.Sprintf("%s: %s of about %s rows (%d %%), %s rows/s, %s", name, thousands(done), thousands(max(total, done)), percent(done, total), thousands(speed), left)
}

func meterBarLine(name string, done, before, total int64, elapsed time.Duration) string {
	speed, left := pacing(done, before, total, elapsed)
	full := int(percent(done, total)) * meterBar / 100
	return fmt.Sprintf("%s [%s%s] %3d %%  %s/%s  %s/s  %s", name, strings.Repeat("#", full), strings.Repeat(".", meterBar-full),
		percent(done, total), thousands(done), thousands(max(total, done)), thousands(speed), left)
}

// percent is at most 99: total is an estimate, and only the end is the end.
func percent(done, total int64) int64 {
	if total <= 0 {
		return 0
	}
	return min(99, 100*done/total)
}

// pacing is the speed so far, and what it says of the end.
func pacing(done, before, total int64, elapsed time.Duration) (speed int64, left string) {
	if elapsed > 0 {
		speed = int64(float64(done-before) / elapsed.Seconds())
	}
	switch {
	case speed == 0:
		return 0, "time left unknown"
	case done >= total:
		return speed, "nearly done"
	}
	return speed, roughly(time.Duration(float64(total-done)/float64(speed)*float64(time.Second))) + " left"
}

// roughly is a duration as one would say it.
func roughly(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	}
	return fmt.Sprintf("%.1f h", d.Hours())
}

func size(bytes int64) string {
	switch {
	case bytes < 1<<10:
		return fmt.Sprintf("%d B", bytes)
	case bytes < 1<<20:
		return fmt.Sprintf("%.1f KB", float64(bytes)/(1<<10))
	case bytes < 1<<30:
		return fmt.Sprintf("%.1f MB", float64(bytes)/(1<<20))
	}
	return fmt.Sprintf("%.1f GB", float64(bytes)/(1<<30))
}

func thousands(n int64) string {
	digits := fmt.Sprint(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
