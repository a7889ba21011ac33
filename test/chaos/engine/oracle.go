package engine

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Clocks say up to where a lane has followed the database: the barrier for what
// Unstale keeps, for the controls their own consumer or what they take for a barrier.
const (
	barrierClock = iota
	consumerClock
	// appliedClock runs ahead of the barrier: a change is applied, and what it needs
	// may be outstanding.
	appliedClock
	clocks
)

// An oracle judges what a cache shows by what the writers have committed. It
// knows nothing of Unstale but its barrier.
type oracle struct {
	start   time.Time
	ledgers []ledger
	lanes   []*lane
	faults  ring

	// era counts the times that Redis may have gone back in time. What was seen
	// or settled before then says nothing any more. mu keeps whoever begins an
	// era apart from those who raise floors.
	mu  sync.RWMutex
	era atomic.Int64
	// floors are, by clock and row, what must not be shown any more: versions
	// below were replaced, and the clock has had it.
	floors [clocks][]atomic.Int64
	// evicting: Redis may throw side keys away, or has and the stream is not
	// past it.
	evicting atomic.Bool
	// inspect says what cache and database hold right now, for a history.
	inspect func(l *lane, row int) string
}

func newOracle(families [kinds]*family, lanes []*lane) *oracle {
	rows := 0
	for _, f := range families {
		if f != nil {
			rows += f.count
		}
	}
	o := &oracle{start: time.Now(), ledgers: make([]ledger, rows), lanes: lanes}
	for clock := range o.floors {
		o.floors[clock] = make([]atomic.Int64, rows)
	}
	for i, l := range lanes {
		l.family, l.bit, l.cells = families[l.kind], 1<<i, make([]cell, rows)
	}
	for row := range o.ledgers {
		o.ledgers[row].begin(0) // 0
		o.ledgers[row].begin(0) // 1, with which every row begins
	}
	return o
}

func (o *oracle) now() time.Duration { return time.Since(o.start) }

// A look is what a read must not fall behind, taken before it begins.
type look struct {
	at          time.Duration
	era         int64
	floor, seen int64
}

func (o *oracle) look(l *lane, row int) look {
	return look{
		at: o.now(), era: o.era.Load(),
		floor: o.floors[l.clock][row].Load(), seen: l.cells[row].seen.Load(),
	}
}

// judge counts one hit: text is what the cache showed to a read that began with
// before.
func (o *oracle) judge(l *lane, row int, before look, text []byte) {
	book, cell := &o.ledgers[row], &l.cells[row]
	v := book.read(text)
	if o.era.Load() != before.era {
		return
	}
	l.hits.Add(1)
	cell.events.hit(o.now(), v)
	if book.phantom(v, l.bit) {
		o.found(l, row, &l.phantoms, "phantom", "%.80q, which was never committed", text)
		return
	}
	if v.version < before.floor {
		o.found(l, row, &l.stale, "stale hit", "version %d, although %d had settled before the read began", v.version, before.floor)
	}
	if v.version < before.seen {
		if l.keeps && o.evicting.Load() {
			l.excused.Add(1) // see Evicting
		} else {
			o.found(l, row, &l.backward, "backward hit", "version %d, although %d had been read before", v.version, before.seen)
		}
	}
	l.behind.add(book.behind(v.version, before.at))
	if !v.gone || !l.keeps || !o.evicting.Load() {
		raise(&cell.seen, book.since(v, before.seen))
	}
}

// found counts a fault of a cache, and keeps the history of the first one of a
// lane that must have none.
func (o *oracle) found(l *lane, row int, count *atomic.Int64, kind, format string, arguments ...any) {
	count.Add(1)
	if l.control {
		return
	}
	what := fmt.Sprintf("%s of %s: %s", kind, l.key(row), fmt.Sprintf(format, arguments...))
	l.mu.Lock()
	first := l.told == ""
	if first {
		l.told = what
	}
	l.mu.Unlock()
	if first {
		history := o.history(l, row)
		l.mu.Lock()
		l.told = what + "\n" + history
		l.mu.Unlock()
	}
}

// raise never lowers.
func raise(n *atomic.Int64, to int64) {
	for old := n.Load(); old < to && !n.CompareAndSwap(old, to); old = n.Load() {
	}
}

// undone notes a version that was never committed.
func (o *oracle) undone(row int, n int64) {
	seenBy := o.ledgers[row].undo(n, o.now())
	for _, l := range o.lanes {
		if seenBy&l.bit != 0 {
			o.found(l, row, &l.phantoms, "phantom", "version %d, which was rolled back", n)
		}
	}
}

// newest returns what is committed of each row.
func (o *oracle) newest(versions []int64) {
	for row := range versions {
		versions[row] = o.ledgers[row].newest.Load()
	}
}

// settled raises the floors of a clock to versions, unless an era has begun
// since.
func (o *oracle) settled(clock int, versions []int64, era int64) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if o.era.Load() != era {
		return
	}
	for row, n := range versions {
		if floor := &o.floors[clock][row]; floor.Load() < n {
			raise(floor, n)
			o.ledgers[row].settle(n, clock, o.now())
		}
	}
}

// newEra forgets what was settled and seen.
func (o *oracle) newEra() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.era.Add(1)
	for clock := range o.floors {
		for row := range o.floors[clock] {
			o.floors[clock][row].Store(0)
		}
	}
	for _, l := range o.lanes {
		for row := range l.cells {
			l.cells[row].seen.Store(0)
		}
	}
}

// history tells what happened to one key, oldest first.
func (o *oracle) history(l *lane, row int) string {
	var events []event
	book := &o.ledgers[row]
	book.mu.Lock()
	for n := max(1, len(book.versions)-historyVersions); n < len(book.versions); n++ {
		events = append(events, book.versions[n].events(int64(n), l.clock)...)
	}
	book.mu.Unlock()
	events = append(events, l.cells[row].events.all()...)
	events = append(events, o.faults.all()...)
	var b strings.Builder
	fmt.Fprintf(&b, "history of %s, in milliseconds since the start:\n", l.key(row))
	for _, e := range inOrder(events) {
		fmt.Fprintf(&b, "  %s\n", e)
	}
	if o.inspect != nil {
		fmt.Fprintf(&b, "  now: %s\n", o.inspect(l, row))
	}
	return b.String()
}

// absent reports whether a row is not there, as far as is known.
func (o *oracle) absent(row int) bool { return o.gone(row, o.ledgers[row].newest.Load()) }

// gone reports whether version n of a row is none.
func (o *oracle) gone(row int, n int64) bool {
	book := &o.ledgers[row]
	book.mu.Lock()
	defer book.mu.Unlock()
	return book.versions[n].gone
}

// probed judges what was cached behind the barrier that followed the commit of
// version n.
func (o *oracle) probed(l *lane, row int, n, era int64, text []byte) {
	if v := o.ledgers[row].read(text); v.version < n && o.era.Load() == era {
		o.found(l, row, &l.misses, "barrier miss", "version %d, behind the barrier that followed version %d", v.version, n)
	}
}
