package world

// fanner takes the steps of a fan-out, of the session that holds the slot.
func (w *Cache) fanner(s *State, step func(*State)) {
	if s.sessions[0].phase != running {
		return
	}
	n := *s
	if line := w.fanOn(&n); line != "" {
		if w.listen != nil {
			w.say(&n, "fan-out: %s", line)
		}
		step(&n)
	}
}

// fanOn goes on to the next part of the fan-out, if that may be.
func (w *Cache) fanOn(n *State) (line string) {
	at := &n.sessions[0]
	switch n.fan.phase {
	case looks:
		n.fan.phase = found
		if !w.off(SeenBehindLookup) {
			n.fan.until = w.stream(n)
		}
		if !w.finds(n, w.commit(n, n.fan.before+1)) {
			return "the lookup does not find the key"
		}
		n.fan.finds = 1
		return "the lookup finds the key"
	case found, fanned:
		if at.sent == w.bounds.Window {
			return ""
		}
		keys := (n.fan.phase == found) != w.off(FanOutEndsBehind)
		p := packet{does: nothing}
		switch {
		case !keys:
			p.note, line = done, "its end is noted"
			if n.sweep.pending() {
				p.note = pending
			}
		case n.fan.finds > 0:
			p.does, line = unlink, "sends its last key"
		default:
			line = "has no key to send"
		}
		if n.fan.phase++; n.fan.phase == over {
			if !w.off(LookupsSettleLater) {
				at.looks.note(n.fan.before, n.fan.until, w.hops())
			}
			n.fan = fanOut{}
		}
		p.lo, p.settled = at.next-1, w.settledAt(n, at, at.next-1)
		at.push(p)
	}
	return line
}

// unlink: what stands in front of the script of a batch beside the stream arrives, and
// something may come between the two.
func (w *Cache) unlink(s *State, i int, who string, step func(*State)) {
	for j, p := range s.sessions[i].window[:s.sessions[i].sent] {
		if p.does != unlink || p.unlinked > 0 {
			continue
		}
		n := *s
		n.redis.cells[cellData], n.redis.cells[cellSide] = 0, 0
		n.sessions[i].window[j].unlinked = 1
		if w.listen != nil {
			w.say(&n, "%s: drops the key, and the script of that batch is still to come", who)
		}
		step(&n)
	}
}

// settled is how far nothing is outstanding, if that is all but for the fan-out.
func (f *fanOut) settled(but uint8) uint8 {
	if f.phase == noFanOut {
		return but
	}
	return min(but, f.before)
}

// pending: if the session ends now, the entry is to be swept, because of a fan-out, or
// of a sweep.
func (f *fanOut) pending() bool { return f.phase != noFanOut }

func (s *sweep) pending() bool {
	return s.phase != noSweep && s.phase != noted || s.again > 0
}
