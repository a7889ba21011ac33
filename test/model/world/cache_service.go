package world

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/test/model/fakeredis"
)

func (s *session) push(p packet) {
	s.window[s.sent] = p
	s.sent++
}

func (s *session) pop() {
	copy(s.window[:], s.window[1:])
	s.sent--
	s.window[s.sent] = packet{}
}

// session i takes its steps; 0 holds the slot, 1 held it before.
func (w *Cache) session(s *State, i int, step func(*State)) {
	at := &s.sessions[i]
	who := "service"
	if i == 1 {
		who = "the instance that has lost the slot"
	}
	switch at.phase {
	case owning:
		n := *s
		w.own(&n, &n.sessions[i])
		if w.listen != nil {
			w.say(&n, "%s: own arrives -> epoch %d, lo %d", who, n.sessions[i].epoch, n.sessions[i].lo)
		}
		step(&n)
	case owned:
		n := *s
		w.target(&n, &n.sessions[i])
		if w.listen != nil {
			w.say(&n, "%s: the log stands behind commit %d: up to there it only drops", who, n.sessions[i].target)
		}
		step(&n)
	case running:
		if at.sent < w.bounds.Window {
			w.send(s, i, who, step)
		}
		if at.sent > 0 {
			w.answer(s, i, who, false, step)
			if w.bounds.Full && at.window[0].does == set {
				w.answer(s, i, who, true, step)
			}
		}
		w.unlink(s, i, who, step)
		if i == 0 && at.sent == 0 && w.lost(s) {
			n := *s
			w.renew(&n)
			if w.listen != nil {
				w.say(&n, "service: looks at its watermark -> LOST")
			}
			step(&n)
		}
		if w.bounds.Copies {
			for j := range at.window[:at.sent] {
				n := *s
				reply := w.arrive(&n, &n.sessions[i], j, false)
				w.settle(&n)
				if n == *s {
					continue
				}
				if w.listen != nil {
					w.say(&n, "%s: batch %d arrives -> %s, and the reply is lost", who, at.n+1+uint8(j), reply)
				}
				step(&n)
			}
		}
		if i == 0 && at.lo > s.confirmed && w.durable(s, at.lo) && w.bounds.Flushes+w.bounds.Failovers+w.bounds.Recreations > 0 {
			n := *s
			n.confirmed = at.lo
			if w.listen != nil {
				w.say(&n, "service: confirms commit %d to the slot", at.lo)
			}
			step(&n)
		}
	}
	if i == 0 && s.takeovers < w.bounds.Takeovers {
		n := *s
		spend(&n.takeovers, w.bounds.Takeovers)
		w.lose(&n)
		if w.listen != nil {
			w.say(&n, "another instance takes the slot and sends own")
		}
		step(&n)
	}
}

// lost: the watermark is not where this owner left it, which who writes nothing
// must look for.
func (w *Cache) lost(s *State) bool {
	m := w.lab.mark(s.redis.cells[cellMark])
	return !w.off(Probe) && (m.owner != s.sessions[0].owner || m.n != s.sessions[0].n)
}

// durable: what Redis can lose no more.
func (w *Cache) durable(s *State, lo uint8) bool {
	return w.off(DurableFirst) || s.hasSaved == 0 || w.lab.mark(s.saved.cells[cellMark]).lo >= lo
}

// lose begins a new session. Whoever had the stream before has read what was
// flushed by now, and may still send it.
func (w *Cache) lose(n *State) {
	if n.sessions[0].phase != away {
		n.sessions[1] = n.sessions[0]
		n.sessions[1].limit = w.stream(n)
		if held := n.fan.settled(n.sweep.settled(255)); held != 255 {
			n.sessions[1].held = held + 1
		}
	}
	w.renew(n)
}

func (w *Cache) renew(n *State) {
	lo, owns := n.sessions[0].lo, uint8(fresh)
	if w.off(OwnersDiffer) {
		owns = 1
	}
	n.sessions[0] = session{phase: owning, owner: owns, limit: 255, target: w.targetNow(n)}
	if w.off(ResumeFromLo) {
		n.sessions[0].next = lo // where own is to find it
	}
	n.sweep, n.fan = sweep{}, fanOut{}
}

// own takes the stream over for session at.
func (w *Cache) own(n *State, at *session) {
	reply := w.lab.run(callID{'o', at.owner}, n.redis.cells[:cellNames], false, func() (guard.Script, []string, []string) {
		return guard.Own, []string{markKey}, []string{owner(at.owner), strconv.Itoa(guard.Format)}
	})
	found, err := guard.ParseOwn(reply)
	if err != nil {
		panic(err)
	}
	n.unnoticed = 0
	at.phase, at.epoch, at.n, at.seen = owned, uint8(found.Epoch), 0, n.redis.seen
	at.lo = uint8(found.Lo.LSN / 16)
	settled, sweeping := uint8(found.Settled.LSN/16), len(found.Sweeps) > 0
	if found.Lo.IsZero() && !w.off(SweepWhatIsUnknown) || n.confirmed > at.lo && !w.off(GapIsSwept) {
		sweeping = true
	}
	if settled < at.lo && w.looksUp() && !w.off(LookupsOutlive) {
		at.looks.note(settled, unknownEnd, w.hops())
	}
	at.lo = max(at.lo, n.confirmed)
	if w.off(ResumeFromLo) {
		at.lo = max(at.lo, at.next)
	}
	at.next = at.lo + 1
	switch {
	case at != &n.sessions[0] && sweeping:
		at.held = settled + 1
	case at == &n.sessions[0] && sweeping:
		n.sweep = sweep{phase: requested, before: settled}
	}
}

// target: what was in the log when the session began may have been applied by
// another owner, and shown by a Redis that has forgotten it.
func (w *Cache) target(n *State, at *session) {
	if !w.off(TargetBehindOwn) {
		at.target = w.targetNow(n)
	}
	if at.looks.until[0] == unknownEnd {
		at.looks.until[0] = w.stream(n)
	}
	if w.off(FirstDelivery) {
		at.target = 0
	}
	at.phase = running
	p := packet{lo: at.lo, settled: at.lo, note: done}
	switch {
	case at.held > 0:
		p.settled, p.note = at.held-1, pending
	case at == &n.sessions[0] && n.sweep.phase != noSweep:
		p.settled, p.note = n.sweep.before, pending
	}
	p.settled = at.looks.settled(p.settled, p.settled)
	at.push(p)
}

// targetNow is the newest commit that may have been shown before.
func (w *Cache) targetNow(n *State) uint8 {
	if w.bounds.Kafka && w.off(TargetIsOfTheLog) {
		return w.reached(n, n.end)
	}
	return n.flushed
}

// send sends the batch of the next commit, if it may.
func (w *Cache) send(s *State, i int, who string, step func(*State)) {
	at := &s.sessions[i]
	if at.next > w.stream(s) || at.next > at.limit {
		return
	}
	c := w.commit(s, at.next)
	if !s.sees(c) && !w.off(Gate) {
		return
	}
	n := *s
	w.sendNext(&n, &n.sessions[i])
	cut := n
	w.sends(&n, i, who, c, step)
	if p := &cut.sessions[i].window[cut.sessions[i].sent-1]; w.bounds.Cuts && p.does == set {
		p.does, p.until = forget, 0
		w.sends(&cut, i, who, c, step)
	}
}

// sends tells what session i has sent of commit c.
func (w *Cache) sends(n *State, i int, who string, c uint8, step func(*State)) {
	if w.listen != nil {
		what := map[uint8]string{nothing: "nothing for this row", drop: "drop", forget: "drop, h stays", set: "SET v" + strconv.Itoa(int(c)), restore: "SET v0 if nothing is there"}
		p := n.sessions[i].window[n.sessions[i].sent-1]
		if p.note == pending {
			what[nothing] = "a sweep is pending"
		}
		w.say(n, "%s: sends commit %d: %s", who, c, what[p.does])
	}
	step(n)
}

func (w *Cache) sendNext(n *State, at *session) {
	o := at.next
	c := w.commit(n, o)
	p := packet{lo: o, settled: o, version: c, does: drop}
	current := at == &n.sessions[0]
	switch {
	case c == 0:
		p.does = restore
	case w.change(c) == Other:
		p.does = nothing
	case w.change(c) == FanOut && (!current || n.fan.phase == noFanOut):
		p.does, p.note = nothing, pending
		if w.off(FanOutIsNoted) {
			p.note = asItIs
		}
		if current {
			n.fan = fanOut{phase: looks, before: o - 1, until: w.stream(n)}
		} else if at.held == 0 {
			at.held = o // it will be fenced before that could end, too
		}
	case w.change(c) == Lookup || w.change(c) == FanOut || w.change(c) == Between:
		if !w.off(LookupsSettleLater) {
			at.looks.note(o-1, w.stream(n), w.hops())
		}
		if !w.finds(n, c) {
			p.does = nothing
		}
	case w.change(c) == Truncate, w.change(c) == OtherPart:
		p.does = nothing
		spares := uint8(0)
		if w.change(c) == OtherPart {
			spares = 1
		}
		if current {
			switch n.sweep.phase {
			case noSweep:
				n.sweep = sweep{phase: requested, before: o - 1, derived: w.derived(), spares: spares}
			case requested: // which will do for this one as well
				n.sweep.spares &= spares
			default: // the running one may have passed the key already
				if n.sweep.again == 0 {
					n.sweep.again, n.sweep.againSpares = o, spares
				}
				n.sweep.againSpares &= spares
			}
		} else if at.held == 0 {
			// It does not sweep: it will be fenced before that could end.
			if at.held == 0 {
				at.held = o
			}
		}
		p.note = pending
		if w.off(SweepIsNoted) {
			p.note = asItIs
		}
	case w.bounds.Kafka && c < at.seen && !w.off(SeenOnce):
		p.does = forget
	case w.bounds.Sets && w.change(c) == Complete && c > at.target && (n.ages[c] <= youngTicks || w.off(Young)):
		p.does = set
		p.until = untilTicks
	case w.bounds.Sets:
		p.does = forget
	}
	p.settled = w.settledAt(n, at, o)
	if w.bounds.Kafka {
		at.seen = max(at.seen, c)
	}
	at.next++
	at.push(p)
}

// settledAt is how far nothing is outstanding, if a session has applied everything up
// to o.
func (w *Cache) settledAt(n *State, at *session, o uint8) uint8 {
	settled := o
	if at == &n.sessions[0] {
		if !w.off(SettledWaits) {
			settled = n.sweep.settled(settled)
		}
		if !w.off(FanOutHoldsSettled) {
			settled = n.fan.settled(settled)
		}
	}
	if at.held > 0 {
		settled = at.held - 1
	}
	dropped := settled
	if w.off(LookupsAwaitDrops) {
		dropped = o
	}
	return at.looks.settled(settled, dropped)
}

// unknownEnd stands for where the log ends, until that is asked.
const unknownEnd = 255

// hops is how often a lookup that has missed a key may rely on another one.
func (w *Cache) hops() uint8 {
	if strings.ContainsRune(w.bounds.Changes, rune(Between)) && !w.off(LookupsAwaitLookups) {
		return 1
	}
	return 0
}

// looksUp: keys may have to be looked up.
func (w *Cache) looksUp() bool {
	return strings.ContainsAny(w.bounds.Changes, string(Lookup)+string(FanOut)+string(Between))
}

// finds: a lookup that runs now leads from commit c to the key.
func (w *Cache) finds(n *State, c uint8) bool {
	for later := c + 1; later <= n.flushed; later++ {
		hides := w.change(later) == Moved || w.change(later) == Between || w.change(later) == Truncate
		if hides && n.sees(later) {
			return false
		}
	}
	return true
}

// settled is how far nothing is outstanding, if everything up to written has
// been applied.
func (s *sweep) settled(written uint8) uint8 {
	switch {
	case s.phase != noSweep && s.phase < noting:
		return s.before
	case s.again > 0:
		return s.again - 1
	}
	return written
}

// answer: the first batch on its way arrives, and so does its reply.
func (w *Cache) answer(s *State, i int, who string, full bool, step func(*State)) {
	n := *s
	at := &n.sessions[i]
	p := at.window[0]
	reply := w.arrive(&n, at, 0, full)
	number := at.n + 1
	switch reply {
	case guard.OK, guard.Done:
		w.confirm(&n, at)
	case guard.Lost, guard.Fenced:
		if i == 1 {
			n.sessions[1] = session{}
		} else {
			if at.sent > 1 {
				// What is behind it is still on its way.
				n.sessions[1] = *at
				n.sessions[1].limit = 0
			}
			w.renew(&n)
		}
	default: // full: the same batch again, every set a drop
		at.window[0].does = forget
	}
	w.settle(&n)
	if w.listen != nil {
		what := ""
		if p.does == set && w.lab.version(n.redis.cells[cellData]) < 0 {
			what = ", as a drop"
		}
		w.say(&n, "%s: batch %d (commit %d) arrives -> %s%s", who, number, w.reached(&n, p.lo), reply, what)
	}
	step(&n)
}

// confirm: the session learns that its first batch is in.
func (w *Cache) confirm(n *State, at *session) {
	p := at.window[0]
	at.pop()
	at.n++
	at.lo = p.lo
	if at != &n.sessions[0] {
		return
	}
	switch {
	case p.mark == ordinary && n.sweep.phase == requested && (p.note == pending || w.off(SweepIsNoted)):
		w.startSweep(n)
	case p.mark == marker:
		n.sweep.phase = checking
	case p.mark == ending:
		again, spares := n.sweep.again, n.sweep.againSpares
		n.sweep = sweep{}
		if again > 0 {
			n.sweep = sweep{before: again - 1, derived: w.derived(), spares: spares}
			w.startSweep(n)
		}
	}
}

// arrive runs batch j of a session on the master, and returns the reply.
func (w *Cache) arrive(n *State, at *session, j int, full bool) string {
	p := at.window[j]
	number := at.n + 1 + uint8(j)
	wasCached := n.redis.cells[cellData] != 0
	if p.does == unlink && p.unlinked == 0 {
		n.redis.cells[cellData], n.redis.cells[cellSide] = 0, 0
	}
	id := callID{'a', at.owner, at.epoch, number, p.lo, p.settled, p.does, p.note, p.version, uint8(p.until)}
	reply := w.lab.run(id, n.redis.cells[:cellNames], full, func() (guard.Script, []string, []string) {
		return w.batch(at, number, p)
	})
	if failed, ok := reply.(fakeredis.Error); ok {
		return string(failed[:3])
	}
	applied, err := guard.ParseApply(reply)
	if err != nil {
		panic(err)
	}
	// The service loads again what was cached and is not, and nothing else. Which of
	// its loads come when is up to the reader that stands for it.
	dropped := wasCached && n.redis.cells[cellData] == 0 && (p.does == set || p.does == forget)
	if told := slices.Contains(applied.Dropped, guard.Dropped{Cached: true}); w.bounds.Cached && told != (applied.Status == guard.OK && dropped) {
		w.broken = fmt.Sprintf("the reply says %v of a key that was dropped, and cached: %v", applied.Dropped, dropped)
	}
	if applied.Status == guard.OK && w.bounds.Kafka {
		n.redis.seen = max(n.redis.seen, p.version)
	}
	return applied.Status
}

func (w *Cache) batch(at *session, number uint8, p packet) (guard.Script, []string, []string) {
	header := guard.ApplyHeader{
		Owner: owner(at.owner), Epoch: int64(at.epoch), N: int64(number),
		Lo: positionAfter(p.lo), Settled: positionAfter(p.settled),
		Until: now + int64(p.until)*tick, Cluster: w.bounds.cluster,
	}
	switch p.note {
	case pending:
		header.Note = &guard.Note{Origin: "o", Sweeps: []guard.Sweep{{Key: template}}}
	case done:
		header.Note = &guard.Note{Origin: "o", Sweeps: []guard.Sweep{}}
	}
	script := guard.Apply
	var keys []string
	switch p.does {
	case drop:
		header.Drops, keys = 2, []string{dataKey, sideKey}
		if w.off(DropEndsLease) {
			header.Drops, keys = 1, keys[:1]
		}
	case forget:
		header.Forgets, keys = 1, []string{dataKey, sideKey}
		if w.bounds.Cached {
			header.Reloads = 1
		}
	case restore:
		script = guard.ApplyValues
		header.Restores, keys = 1, []string{dataKey, sideKey, strconv.Itoa(ttl), value(0)}
	case set:
		script = guard.ApplyValues
		life := strconv.Itoa(ttl)
		if w.bounds.Cached {
			life = "-" + life
		}
		keys = []string{dataKey, sideKey, life, lsn(commitLSN(p.version))}
		if w.bounds.Hash {
			header.Hashes = 1
			keys = append(append(keys, "1"), fields(true, p.version)...)
		} else {
			header.Strings = 1
			keys = append(keys, value(p.version))
		}
	}
	return script, []string{markKey}, append(header.AppendArguments(nil), keys...)
}

// sweepNames is what a pass of a sweep goes over, in any order.
func (w *Cache) sweepNames(pass uint8) uint8 {
	switch {
	case w.off(SweepsSideKeys):
		return sweepData
	case w.off(PassesAreWhole) && pass == firstPass:
		return sweepSide
	case w.off(PassesAreWhole):
		return sweepData
	}
	return sweepData | sweepSide
}

func (w *Cache) startSweep(n *State) {
	n.sweep.run, n.sweep.completes = n.redis.run, 0
	if n.sweep.derived == 1 {
		n.sweep.phase = asking
		return
	}
	w.startPasses(n)
}

func (w *Cache) startPasses(n *State) {
	n.sweep.phase, n.sweep.left = firstPass, w.sweepNames(firstPass)
}

// derived: a plan asks for the sweeps of the changes, but for those that an owner before
// has left.
func (w *Cache) derived() uint8 {
	if w.bounds.Names {
		return 1
	}
	return 0
}

// names runs a script on the names, and whatever else it concerns.
func (w *Cache) names(n *State, id byte, script guard.Script, keys []string, args ...string) {
	w.lab.run(callID{id}, n.redis.cells[:], false, func() (guard.Script, []string, []string) {
		return script, append([]string{namesKey}, keys...), args
	})
}

// sweeper takes the steps of the sweep, of the session that holds the slot.
func (w *Cache) sweeper(s *State, step func(*State)) {
	if s.sessions[0].phase != running {
		return
	}
	switch s.sweep.phase {
	case firstPass, secondPass:
		for _, name := range []uint8{sweepData, sweepSide} {
			if s.sweep.left&name == 0 {
				continue
			}
			n := *s
			w.sweepOne(&n, name)
			if w.listen != nil {
				pass := map[uint8]string{firstPass: "first", secondPass: "second"}[s.sweep.phase]
				what := map[uint8]string{sweepData: "the value", sweepSide: "the side key"}[name]
				if s.sweep.spares == 1 {
					w.say(&n, "sweep: %s pass comes by %s, and leaves it", pass, what)
				} else if w.bounds.Sets {
					w.say(&n, "sweep: %s pass drops the key, h stays, if %s is there", pass, what)
				} else {
					w.say(&n, "sweep: %s pass drops %s, if it is there", pass, what)
				}
			}
			step(&n)
		}
	default:
		n := *s
		if line := w.sweepOn(&n); line != "" {
			if w.listen != nil {
				w.say(&n, "sweep: %s", line)
			}
			step(&n)
		}
	}
}

func (w *Cache) sweepOne(n *State, name uint8) {
	n.sweep.left &^= name
	cell := cellData
	if name == sweepSide {
		cell = cellSide
	}
	switch {
	case n.sweep.spares == 1:
		if n.redis.cells[cell] != 0 && n.sweep.completes == 1 && !w.off(PassesName) {
			w.names(n, 'n', guard.Name, nil, dataKey)
		}
	case w.bounds.Sets && n.redis.cells[cell] != 0:
		w.lab.run(callID{'F'}, n.redis.cells[:2], false, func() (guard.Script, []string, []string) {
			return guard.Forget, []string{dataKey, sideKey}, nil
		})
	default:
		n.redis.cells[cell] = 0
	}
	if n.sweep.left > 0 {
		return
	}
	switch {
	case n.sweep.phase == firstPass && !w.off(SweepsTwice):
		n.sweep.phase, n.sweep.left = secondPass, w.sweepNames(secondPass)
	case n.sweep.completes == 1:
		n.sweep.phase = haveCollected
	default:
		n.sweep.phase = marking
	}
}

// sweepOn goes on to the next part of the sweep, if that may be.
func (w *Cache) sweepOn(n *State) (line string) {
	at := &n.sessions[0]
	sealed := w.lab.has(n.redis.cells[cellNames], seal)
	switch n.sweep.phase {
	case asking:
		if !sealed && !w.off(SealIsAsked) {
			n.sweep.phase = collectingNames
			return "the names are not complete"
		}
		n.sweep.phase = reading
		return "the names are complete"
	case reading:
		if !w.lab.has(n.redis.cells[cellNames], dataKey) || n.sweep.spares == 1 {
			n.sweep.phase = askingAgain
			return "no name is there that it looks for"
		}
		n.sweep.phase = droppingNamed
		return "reads the key's name"
	case droppingNamed:
		n.sweep.phase = askingAgain
		if w.off(NamesGoTogether) {
			n.redis.cells[cellData], n.redis.cells[cellSide] = 0, 0
			n.sweep.phase = unnaming
			return "drops the key, and its lease"
		}
		w.names(n, 'd', guard.DropNamed, []string{dataKey, sideKey})
		return "drops the key, its lease and its name"
	case unnaming:
		n.redis.cells[cellNames] = w.lab.without(n.redis.cells[cellNames], dataKey)
		n.sweep.phase = askingAgain
		return "drops the name"
	case askingAgain:
		if !sealed && !w.off(SealStands) && !w.off(SealIsAsked) {
			n.sweep.phase = collectingNames
			return "the names are not what they were"
		}
		n.sweep.phase = marking
		return "the names are complete still"
	case collectingNames:
		w.names(n, 'c', guard.Collect, nil, collecting, strconv.Itoa(ttl))
		n.sweep.completes = 1
		w.startPasses(n)
		return "names are collected from now on"
	case haveCollected:
		if n.sweep.phase = marking; w.off(SealsLast) {
			w.names(n, 's', guard.Seal, nil, collecting, seal)
			n.sweep.completes = 0
			return "seals the names"
		}
		w.names(n, 'm', guard.Seal, nil, collecting, collected)
		return "notes that names are collected"
	case sealing:
		w.names(n, 'l', guard.Seal, nil, collected, seal)
		n.sweep.phase = noting
		return "seals the names, if all were collected here"
	case marking:
		if w.off(MarkerBehind) {
			n.sweep.phase = checking
			return "no marker"
		}
		if at.sent == w.bounds.Window {
			return ""
		}
		p := packet{lo: at.next - 1, settled: n.sweep.before, note: pending, mark: marker}
		at.push(p)
		n.sweep.phase = marked
		return "sends a marker behind what was dropped"
	case checking:
		if n.redis.run != n.sweep.run && !w.off(RunID) {
			w.startSweep(n)
			return "another Redis has taken over meanwhile: once more"
		}
		if n.sweep.phase = noting; n.sweep.completes == 1 {
			n.sweep.phase = sealing
		}
		return "it was one Redis all the time"
	case noting:
		if at.sent == w.bounds.Window {
			return ""
		}
		p := packet{lo: at.next - 1, settled: w.settledAt(n, at, at.next-1), note: done, mark: ending}
		if n.sweep.again > 0 || n.fan.pending() {
			p.note = pending
		}
		at.push(p)
		n.sweep.phase = noted
		return fmt.Sprintf("has ended: sends settled = %d", p.settled)
	}
	return ""
}
