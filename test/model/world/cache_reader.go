package world

import (
	"strconv"

	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/test/model/fakeredis"
)

const unknownH = 255

func (w *Cache) reader(s *State, i int, step func(*State)) {
	r := s.readers[i]
	name := 'A' + rune(i)
	loader := w.bounds.Loader && i == w.bounds.Readers-1
	who := "reader"
	if loader {
		who = "the service as reader"
	}
	switch r.phase {
	case idle:
		n := *s
		if w.begin(&n, i) != guard.Leased {
			return
		}
		if w.lab.leased(s.redis.cells[cellSide]) {
			n.herd = 1
		}
		n.readers[i].phase = leased
		if w.off(PositionBehind) {
			n.readers[i].h = s.flushed
		}
		if w.listen != nil {
			w.say(&n, "%s %c: begin -> LEASE", who, name)
		}
		step(&n)
	case leased:
		n := *s
		n.readers[i].phase, n.readers[i].value = loaded, w.row(s)
		if w.bounds.Sets && !w.off(PositionBehind) {
			n.readers[i].h = s.flushed
		}
		if w.listen != nil {
			if w.bounds.Sets {
				w.say(&n, "%s %c: loads v%d; the log stands behind commit %d", who, name, w.row(s), n.readers[i].h)
			} else {
				w.say(&n, "%s %c: loads v%d", who, name, w.row(s))
			}
		}
		step(&n)
		n = *s
		w.release(&n, i)
		if w.listen != nil {
			w.say(&n, "%s %c: gives up, release", who, name)
		}
		step(&n)
	case loaded:
		w.tryFill(s, i, who, false, step)
		if w.bounds.Full {
			w.tryFill(s, i, who, true, step)
		}
	}
}

func (w *Cache) tryFill(s *State, i int, who string, full bool, step func(*State)) {
	r := s.readers[i]
	h, shield := r.h, w.bounds.Sets && !w.off(Shield)
	if w.bounds.Loader && i == w.bounds.Readers-1 && (w.off(LoaderWaits) || !w.bounds.Kafka && s.sessions[0].phase == running && s.sessions[0].lo >= h) {
		// No change that the load has seen can SET any more. An offset does not tell.
		shield = false
	}
	if !shield {
		h = unknownH
	}
	n := *s
	reply := w.fill(&n, i, h, full)
	w.leave(&n, i)
	w.settle(&n)
	if w.listen != nil {
		with, on := "", ""
		if shield {
			with = ", H = " + strconv.Itoa(int(h))
		}
		if full {
			on = " on a full Redis"
		}
		w.say(&n, "%s %c: fill v%d%s%s -> %s", who, 'A'+rune(i), r.value, with, on, reply)
	}
	step(&n)
}

func (w *Cache) begin(n *State, i int) string {
	cells, keys := n.redis.cells[:2], []string{dataKey, sideKey}
	if w.bounds.Names {
		cells, keys = n.redis.cells[:], guard.BeginKeys(dataKey, sideKey)
	}
	reply := w.lab.run(callID{'b', uint8(i)}, cells, false, func() (guard.Script, []string, []string) {
		return guard.Begin, keys, []string{
			token(uint8(i)), strconv.Itoa(leaseTicks * tick), strconv.Itoa(shieldTicks * tick), format(w.bounds.Hash), strconv.Itoa(guard.NamesMax),
		}
	})
	return reply.([]any)[0].(string)
}

// fill writes what reader i has loaded. h = unknownH: the entry never SETs.
func (w *Cache) fill(n *State, i int, h uint8, full bool) string {
	version := n.readers[i].value
	reply := w.lab.run(callID{'f', uint8(i), version, h}, n.redis.cells[:2], full, func() (guard.Script, []string, []string) {
		position := ""
		if h != unknownH {
			position = lsn(endLSN(h))
		}
		return guard.Fill, []string{dataKey, sideKey}, append([]string{
			token(uint8(i)), position, strconv.Itoa(shieldTicks * tick), strconv.Itoa(ttl), format(w.bounds.Hash),
		}, fields(w.bounds.Hash, version)...)
	})
	return fakeredis.Text(reply)
}

func (w *Cache) release(n *State, i int) {
	w.lab.run(callID{'r', uint8(i)}, n.redis.cells[:2], false, func() (guard.Script, []string, []string) {
		return guard.Release, []string{sideKey}, []string{token(uint8(i))}
	})
	w.leave(n, i)
}

// leave: reader i has done, and its next load will have a token of its own.
func (w *Cache) leave(n *State, i int) {
	n.readers[i] = reader{}
	for _, m := range []*master{&n.redis, &n.saved} {
		m.cells[cellSide] = w.lab.orphaned(m.cells[cellSide], i)
	}
}

// writer of commit c drops the key itself, at any time after it is visible. It
// has asked for the log's position behind its commit.
func (w *Cache) writer(s *State, c uint8, step func(*State)) {
	if !s.sees(c) || w.elsewhere(c) {
		return
	}
	n := *s
	w.lab.run(callID{'i', c}, n.redis.cells[:2], false, func() (guard.Script, []string, []string) {
		position := ""
		if w.bounds.Sets {
			position = lsn(endLSN(c))
		}
		return guard.Invalidate, []string{dataKey, sideKey}, []string{position, strconv.Itoa(shieldTicks * tick)}
	})
	n.written = max(n.written, c)
	if n == *s {
		return
	}
	if w.listen != nil {
		if w.bounds.Sets {
			w.say(&n, "writer of commit %d: drops the key itself, H = %d", c, c)
		} else {
			w.say(&n, "writer of commit %d: drops the key itself", c)
		}
	}
	step(&n)
}
