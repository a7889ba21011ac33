package engine

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// How much of a key's past a history shows.
const (
	historyEvents   = 32 // of readers, and as many of the nemesis
	historyVersions = 24
)

// An event is one line of a history.
type event struct {
	at, until time.Duration
	who, what string
	version   int64 // of a hit or a load
	count     int   // of equal hits
}

func (e event) String() string {
	text := fmt.Sprintf("%10.1f  %-8s %s", ms(e.at), e.who, e.what)
	if e.count > 1 {
		text += fmt.Sprintf(", %d times until %.1f", e.count, ms(e.until))
	}
	return text
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// inOrder sorts events by their time.
func inOrder(events []event) []event {
	slices.SortStableFunc(events, func(a, b event) int { return int(a.at - b.at) })
	return events
}

// events are what the writers say about version n.
func (v version) events(n int64, clock int) []event {
	what := fmt.Sprintf("version %d", n)
	if v.gone {
		what += ", which is none: deleted"
	}
	events := []event{{at: v.begun, who: "writer", what: "begins " + what}}
	switch v.outcome {
	case committed:
		events = append(events, event{at: v.ended, who: "writer", what: fmt.Sprintf("COMMIT of version %d has returned", n)})
	case undone:
		events = append(events, event{at: v.ended, who: "writer", what: fmt.Sprintf("version %d is rolled back", n)})
	}
	if at := v.settled[clock]; at > 0 {
		events = append(events, event{at: at, who: "barrier", what: fmt.Sprintf("version %d has settled", n)})
	}
	return events
}

// A ring keeps the last events.
type ring struct {
	mu     sync.Mutex
	events [historyEvents]event
	next   int
}

func (r *ring) add(at time.Duration, who, what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.push(event{at: at, who: who, what: what})
}

func (r *ring) push(e event) {
	r.events[r.next%historyEvents] = e
	r.next++
}

// hit notes what a reader was shown; the same again only counts.
func (r *ring) hit(at time.Duration, v value) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next > 0 {
		last := &r.events[(r.next-1)%historyEvents]
		if last.count > 0 && last.version == v.version {
			last.count, last.until = last.count+1, at
			return
		}
	}
	what := fmt.Sprintf("hit, version %d", v.version)
	if v.gone {
		what = fmt.Sprintf("hit, no row: version %d at the latest", v.version)
	}
	r.push(event{at: at, until: at, who: "reader", what: what, version: v.version, count: 1})
}

func (r *ring) all() []event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events[:min(r.next, historyEvents)])
}
