package world

import (
	"fmt"

	"github.com/unstale/unstale/internal/guard"
)

// Calm implements explore.World: readers and the zombie are never heard of
// again, and what was on the network for them is lost.
func (w *Cache) Calm(s *State) State {
	n := *s
	for i := range w.bounds.Readers {
		w.leave(&n, i)
	}
	n.sessions[1] = session{}
	n.saved, n.hasSaved = master{}, 0
	n.shown, n.promised, n.written, n.unnoticed = 0, 0, 0, 0
	n.takeovers, n.flushes, n.failovers, n.recreations = 0, 0, 0, 0
	n.resends = w.bounds.Resends
	return n
}

// Quiet implements explore.World: the service catches up, then one reader comes.
func (w *Cache) Quiet(s *State, step func(*State)) (done bool) {
	each := step
	step = func(next *State) {
		w.normalise(next)
		each(next)
	}
	n := *s
	at := &n.sessions[0]
	switch {
	case !s.sees(s.flushed):
		n.visible |= 1 << s.flushed
		w.tell("database: commit %d is visible", s.flushed)
	case at.phase == away:
		w.renew(&n)
		w.tell("service: attaches and sends own")
	case at.phase == owning:
		w.own(&n, at)
		w.tell("service: own arrives -> epoch %d, lo %d", at.epoch, at.lo)
	case at.phase == owned:
		w.target(&n, at)
		w.tell("service: the log stands behind commit %d", at.target)
	case at.sent > 0:
		w.answer(s, 0, "service", false, step)
		return false
	case w.bounds.Kafka && s.produced < s.flushed && s.end < logMax:
		w.topic(s, step)
		return false
	case at.next <= w.stream(s):
		w.sendNext(&n, at)
		w.tell("service: sends commit %d", at.next-1)
	case s.sweep.phase == firstPass || s.sweep.phase == secondPass:
		name := s.sweep.left & -s.sweep.left
		w.sweepOne(&n, name)
		w.tell("sweep: drops a name")
	case s.sweep.phase != noSweep:
		w.tell("sweep: %s", w.sweepOn(&n))
	case s.fan.phase != noFanOut:
		w.tell("fan-out: %s", w.fanOn(&n))
	case w.lost(s):
		w.renew(&n)
		w.tell("service: looks at its watermark -> LOST")
	default:
		return w.rest(s, step)
	}
	step(&n)
	return false
}

// rest: everything has been sent and answered. One reader comes.
func (w *Cache) rest(s *State, step func(*State)) (done bool) {
	m := w.lab.mark(s.redis.cells[cellMark])
	if m.lo != w.stream(s) || m.settled != w.stream(s) || m.sweeping {
		return false // stuck
	}
	n := *s
	const i = readersMax
	r := &n.readers[i]
	switch v := w.lab.version(s.redis.cells[cellData]); {
	case w.bounds.Kafka && s.produced < s.flushed:
		return true // the topic of this world is full
	case v >= 0 && uint8(v) != w.row(s):
		w.broken = fmt.Sprintf("G3: the cache holds v%d, the database v%d, and nothing is left to be done", v, w.row(s))
		return false
	case v >= 0:
		return true
	case r.phase == idle:
		if reply := w.begin(&n, i); reply != guard.Leased {
			n = *s
			w.tick(&n)
			w.tell("a last reader: begin -> %s, a tick", reply)
			break
		}
		r.phase = leased
		w.tell("a last reader: begin -> LEASE")
	case r.phase == leased:
		r.phase, r.value, r.h = loaded, w.row(s), s.flushed
		w.tell("a last reader: loads v%d", w.row(s))
	default:
		h := r.h
		if !w.bounds.Sets {
			h = unknownH
		}
		reply := w.fill(&n, i, h, false)
		w.leave(&n, i)
		w.tell("a last reader: fill v%d -> %s", r.value, reply)
	}
	step(&n)
	return false
}

func (w *Cache) tell(format string, args ...any) {
	if w.listen != nil {
		w.listen(fmt.Sprintf(format, args...))
	}
}
