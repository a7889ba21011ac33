package world

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/test/model/fakeredis"
)

func (s *indexSession) push(p indexPacket) {
	s.window[s.sent] = p
	s.sent++
}

func (w *Index) reader(s *IndexState, i int, step func(*IndexState)) {
	r := s.readers[i]
	n := *s
	line := ""
	switch r.phase {
	case idle:
		if w.lease(&n, i) != guard.Leased {
			return
		}
		n.readers[i].phase = leased
		line = "begin -> LEASE"
	case leased:
		n.readers[i].phase, n.readers[i].value = loaded, w.page(s)
		line = "loads " + w.text(w.page(s))
	case loaded:
		reply := w.fill(&n, i)
		w.settle(&n)
		line = fmt.Sprintf("fill %s -> %s", w.text(r.value), reply)
	}
	if w.listen != nil {
		w.say(&n, "reader %c: %s", 'A'+rune(i), line)
	}
	step(&n)
}

func (w *Index) lease(n *IndexState, i int) string {
	reply := w.lab.run(callID{'b', uint8(i)}, n.redis.cells[:2], false, func() (guard.Script, []string, []string) {
		return guard.Begin, []string{dataKey, sideKey}, []string{
			token(uint8(i)), strconv.Itoa(leaseTicks * tick), strconv.Itoa(shieldTicks * tick), guard.String, strconv.Itoa(guard.NamesMax),
		}
	})
	return reply.([]any)[0].(string)
}

func (w *Index) fill(n *IndexState, i int) string {
	version := n.readers[i].value
	reply := w.lab.run(callID{'f', uint8(i), version}, n.redis.cells[:2], false, func() (guard.Script, []string, []string) {
		return guard.Fill, []string{dataKey, sideKey}, append([]string{
			token(uint8(i)), "", strconv.Itoa(shieldTicks * tick), strconv.Itoa(ttl), guard.String,
		}, fields(false, version)...)
	})
	w.leave(n, i)
	return fakeredis.Text(reply)
}

func (w *Index) leave(n *IndexState, i int) {
	n.readers[i] = reader{}
	for _, m := range []*indexMaster{&n.redis, &n.saved} {
		m.cells[cellSide] = w.lab.orphaned(m.cells[cellSide], i)
	}
}

// session i takes its steps; 0 holds the slot, 1 held it before.
func (w *Index) session(s *IndexState, i int, step func(*IndexState)) {
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
	case running:
		w.goOn(s, i, who, step)
		w.builder(s, i, who, step)
		if at.sent > 0 {
			w.answer(s, i, who, step)
		}
		if at.edits != noEdit {
			n := *s
			w.edit(&n, &n.sessions[i])
			if w.listen != nil {
				w.say(&n, "%s: edits the set, behind the batch", who)
			}
			step(&n)
		}
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
				reply := w.arrive(&n, &n.sessions[i], j)
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
		durable := s.hasSaved == 0 || w.lab.mark(s.saved.cells[cellMark]).lo >= at.lo
		if i == 0 && at.lo > s.confirmed && durable && w.bounds.Flushes+w.bounds.Failovers+w.bounds.Recreations > 0 {
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

// lost: the watermark is not where this owner left it.
func (w *Index) lost(s *IndexState) bool {
	m := w.lab.mark(s.redis.cells[cellMark])
	return m.owner != s.sessions[0].owner || m.n != s.sessions[0].n
}

// lose begins a new session. Whoever had the stream before has read what was flushed by
// now, and may still send it.
func (w *Index) lose(n *IndexState) {
	if n.sessions[0].phase != away {
		n.sessions[1] = n.sessions[0]
		n.sessions[1].limit = n.flushed()
		if held := n.sweep.settled(255); held != 255 {
			n.sessions[1].held = held + 1
		}
	}
	w.renew(n)
}

func (w *Index) renew(n *IndexState) {
	n.sessions[0] = indexSession{phase: owning, owner: fresh, limit: 255}
	n.sweep = indexSweep{}
}

// own takes the stream over for session at, which asks where the log ends behind that.
func (w *Index) own(n *IndexState, at *indexSession) {
	reply := w.lab.run(callID{'o', at.owner}, n.redis.cells[:cellMark+1], false, func() (guard.Script, []string, []string) {
		return guard.Own, []string{markKey}, []string{owner(at.owner), strconv.Itoa(guard.Format)}
	})
	found, err := guard.ParseOwn(reply)
	if err != nil {
		panic(err)
	}
	at.phase, at.epoch, at.n = running, uint8(found.Epoch), 0
	at.lo = uint8(found.Lo.LSN / 16)
	settled := uint8(found.Settled.LSN / 16)
	sweeping := len(found.Sweeps) > 0 || found.Lo.IsZero() || n.confirmed > at.lo
	if settled < at.lo {
		at.looks.note(settled, n.flushed(), 0)
	}
	at.lo = max(at.lo, n.confirmed)
	at.next = at.lo + 1
	switch {
	case at != &n.sessions[0] && sweeping:
		at.held = settled + 1
	case sweeping:
		n.sweep = indexSweep{phase: requested, before: settled}
	}
	p := indexPacket{lo: at.lo, note: done}
	if sweeping {
		p.note = pending
	}
	p.settled = w.settledAt(n, at, at.lo)
	at.push(p)
}

// settledAt is how far nothing is outstanding, if a session has applied everything up
// to o.
func (w *Index) settledAt(n *IndexState, at *indexSession, o uint8) uint8 {
	settled := o
	if at == &n.sessions[0] {
		settled = n.sweep.settled(settled)
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

func (s *indexSweep) settled(written uint8) uint8 {
	switch {
	case s.phase != noSweep && s.phase < noting:
		return s.before
	case s.again > 0:
		return s.again - 1
	}
	return written
}

func (s *indexSweep) pending() bool {
	return s.phase != noSweep && s.phase < noting || s.again > 0
}

// goOn brings the next commit of session i a step further.
func (w *Index) goOn(s *IndexState, i int, who string, step func(*IndexState)) {
	at := &s.sessions[i]
	if at.next > s.flushed() || at.next > at.limit {
		return
	}
	n := *s
	line := w.next(&n, &n.sessions[i])
	if line == "" {
		return
	}
	if w.listen != nil {
		w.say(&n, "%s: %s", who, line)
	}
	step(&n)
}

// next brings the next commit of a session a step further, if that may be.
func (w *Index) next(n *IndexState, at *indexSession) (line string) {
	o := at.next
	switch {
	case at.snap>>o&1 == 0:
		if !n.sees(o) {
			return ""
		}
		for k := o; k <= n.flushed(); k++ {
			if n.sees(k) {
				at.snap |= 1 << k
			}
		}
		at.shown = n.flushed()
		return fmt.Sprintf("asks what is visible: commit %d is; the log stands behind commit %d", o, at.shown)
	case !n.isName(o):
		return w.sendMove(n, at)
	case at.asks == unasked:
		return w.ask(n, at)
	case at.asks == toDatabase:
		at.asks, at.seen = answered, n.flushed()
		if w.inside(n.seesMoved) {
			at.finds = 1
		}
		return fmt.Sprintf("the database %s; the log stands behind commit %d", finds(at.finds), at.seen)
	case at.asks == scanning:
		return w.scan(n, at)
	case at.sent == w.bounds.Window:
		return ""
	}
	p := indexPacket{lo: o, does: nothing}
	if at.finds > 0 {
		p.does = drop
	}
	if n.isMove(o) {
		p = w.told(n, o)
	}
	if at.seen > 0 {
		at.looks.note(o-1, at.seen, 0)
	}
	at.asks, at.finds, at.seen = unasked, 0, 0
	w.send(n, at, p)
	return fmt.Sprintf("sends commit %d: %s, settled = %d", o, map[uint8]string{nothing: "nothing", drop: "drop"}[p.does], at.window[at.sent-1].settled)
}

func finds(one uint8) string {
	if one > 0 {
		return "finds the page"
	}
	return "does not find the page"
}

// sendMove: the batch drops the page itself, and keeps the set up.
func (w *Index) sendMove(n *IndexState, at *indexSession) (line string) {
	if at.sent == w.bounds.Window {
		return ""
	}
	o := at.next
	moves := n.moves(o)
	if w.bounds.Product[moves-1] == Told {
		w.send(n, at, w.told(n, o))
		return fmt.Sprintf("sends commit %d: drop, and the set is kept up", o)
	}
	switch {
	case at != &n.sessions[0]:
		if at.held == 0 { // it will be fenced before that could end
			at.held = o
		}
	case n.sweep.phase == noSweep:
		n.sweep = indexSweep{phase: requested, before: o - 1}
	case n.sweep.phase != requested && n.sweep.again == 0:
		n.sweep.again = o
	}
	w.send(n, at, indexPacket{lo: o, note: pending})
	return fmt.Sprintf("sends commit %d: a sweep is pending", o)
}

// told is the batch of a move that the log tells.
func (w *Index) told(n *IndexState, o uint8) indexPacket {
	p := indexPacket{lo: o, does: drop, edit: removes}
	if w.inside(n.moves(o)) {
		p.edit = adds
	}
	return p
}

func (w *Index) send(n *IndexState, at *indexSession, p indexPacket) {
	p.settled = w.settledAt(n, at, p.lo)
	at.next++
	at.push(p)
}

// ask asks the set, unless what it has may be doubtful.
func (w *Index) ask(n *IndexState, at *indexSession) (line string) {
	if (at.held > 0 || at == &n.sessions[0] && n.sweep.pending()) && !w.off(SweptIsAskedElsewhere) {
		at.asks = toDatabase
		return "the entry is to be swept, so the database is to be asked"
	}
	most := wholeMost
	if w.bounds.Large {
		most = 0
	}
	reply := w.lab.run(callID{'w'}, n.redis.cells[:], false, func() (guard.Script, []string, []string) {
		return guard.Members, []string{setKey}, []string{strconv.Itoa(most), guard.ReadMember(buildToken(fresh))}
	})
	if replies, ok := reply.([]any); ok && len(replies) == 1 {
		reply = replies[0] // of the one set
	}
	switch reply := reply.(type) {
	case []any:
		if slices.Contains(reply, any(setMember)) {
			at.finds = 1
		}
		return w.hasAnswered(at)
	case string:
		if reply == "LARGE" {
			at.asks, at.token, at.left, at.run = scanning, fresh, 1, n.redis.run
			return "asks the set: it is large"
		}
	}
	at.asks = toDatabase
	return "asks the set: " + fakeredis.Text(reply)
}

func (w *Index) hasAnswered(at *indexSession) (line string) {
	at.asks, at.seen = answered, at.shown
	if w.off(IndexSettlesLater) {
		at.seen = 0
	}
	return "the set " + finds(at.finds)
}

// scan comes by one place of a large set.
func (w *Index) scan(n *IndexState, at *indexSession) (line string) {
	place := at.left
	if n.redis.place == place && w.lab.has(n.redis.cells[cellSet], setMember) {
		at.finds = 1
	}
	if at.left++; place == 1 {
		return fmt.Sprintf("comes by place 1 of the set, and %s", finds(at.finds))
	}
	token := guard.ReadMember(buildToken(at.token))
	same := w.lab.has(n.redis.cells[cellSet], token) || w.off(ScanIsOfOneSet)
	one := at.run == n.redis.run || w.off(ScanIsOfOneProcess)
	at.token, at.left, at.run = 0, 0, 0
	if !same || !one {
		at.asks = toDatabase
		return "comes by place 2 of the set, and that is another one"
	}
	return "comes by place 2: " + w.hasAnswered(at)
}

// answer: the first batch on its way arrives, and so does its reply.
func (w *Index) answer(s *IndexState, i int, who string, step func(*IndexState)) {
	n := *s
	at := &n.sessions[i]
	p, number := at.window[0], at.n+1
	reply := w.arrive(&n, at, 0)
	switch {
	case reply == guard.OK || reply == guard.Done:
		w.confirm(&n, at)
	case i == 1:
		n.sessions[1] = indexSession{}
	default:
		// What is behind it is still on its way, and so is what is said of a set.
		n.sessions[1] = *at
		n.sessions[1].limit = 0
		w.renew(&n)
	}
	w.settle(&n)
	if w.listen != nil {
		w.say(&n, "%s: batch %d (commit %d) arrives -> %s", who, number, p.lo, reply)
	}
	step(&n)
}

// confirm: the session learns that its first batch is in.
func (w *Index) confirm(n *IndexState, at *indexSession) {
	p := at.window[0]
	copy(at.window[:], at.window[1:])
	at.sent--
	at.window[at.sent] = indexPacket{}
	at.n++
	at.lo = p.lo
	if at != &n.sessions[0] {
		return
	}
	switch {
	case p.mark == ordinary && n.sweep.phase == requested && p.note == pending:
		w.startSweep(n)
	case p.mark == marker:
		n.sweep.phase = checking
	case p.mark == ending:
		again := n.sweep.again
		n.sweep = indexSweep{}
		if again > 0 {
			n.sweep.before = again - 1
			w.startSweep(n)
		}
	}
}

// arrive runs batch j of a session on the master, and returns the reply.
func (w *Index) arrive(n *IndexState, at *indexSession, j int) string {
	p := at.window[j]
	number := at.n + 1 + uint8(j)
	later := p.edit != noEdit && w.off(EditsGoTogether)
	if later {
		p.edit = noEdit
	}
	id := callID{'a', at.owner, at.epoch, number, p.lo, p.settled, p.does, p.note, p.edit}
	reply := w.lab.run(id, n.redis.cells[:], false, func() (guard.Script, []string, []string) {
		return w.batch(at, number, p)
	})
	applied, err := guard.ParseApply(reply)
	if err != nil {
		panic(err)
	}
	if later && applied.Status == guard.OK {
		at.edits = at.window[j].edit
	}
	return applied.Status
}

func (w *Index) batch(at *indexSession, number uint8, p indexPacket) (guard.Script, []string, []string) {
	header := guard.ApplyHeader{
		Owner: owner(at.owner), Epoch: int64(at.epoch), N: int64(number),
		Lo: positionAfter(p.lo), Settled: positionAfter(p.settled),
	}
	switch p.note {
	case pending:
		header.Note = &guard.Note{Origin: "o", Sweeps: []guard.Sweep{{Key: template}}}
	case done:
		header.Note = &guard.Note{Origin: "o", Sweeps: []guard.Sweep{}}
	}
	var keys []string
	switch p.edit {
	case removes:
		header.Removes, keys = 1, []string{setKey, setMember}
	case adds:
		header.Adds, keys = 1, []string{setKey, setMember}
	}
	if p.does == drop {
		header.Drops, keys = 2, append(keys, dataKey, sideKey)
	}
	return guard.Apply, []string{markKey}, append(header.AppendArguments(nil), keys...)
}

// edit: without the rule, what a batch is to do to the set comes behind it.
func (w *Index) edit(n *IndexState, at *indexSession) {
	set := &n.redis.cells[cellSet]
	switch {
	case *set == 0:
	case at.edits == removes:
		*set = w.lab.without(*set, setMember)
	default:
		*set = w.lab.with(*set, setMember)
	}
	at.edits = noEdit
}

// builder takes the steps of the building of a set.
func (w *Index) builder(s *IndexState, i int, who string, step func(*IndexState)) {
	if !w.bounds.Builds {
		return
	}
	n := *s
	at := &n.sessions[i]
	var line string
	switch at.build.phase {
	case noBuilding:
		if w.off(SetIsBegunFirst) {
			line = w.read(&n, at)
			at.build.phase = readFirst
			break
		}
		w.begins(s, i, who, step)
		return
	case readFirst:
		w.begins(s, i, who, step)
		return
	case begun:
		line = w.read(&n, at)
	case wasRead, addsMore:
		line = w.gather(&n, at)
	case gathered:
		if w.off(CompleteAsksRedis) && at.lo < at.build.from {
			return
		}
		reply := w.complete(&n, at)
		if line = "completes the set -> " + reply; reply == "WAIT" {
			return
		}
	}
	if w.listen != nil {
		w.say(&n, "%s: %s", who, line)
	}
	step(&n)
}

func (w *Index) begins(s *IndexState, i int, who string, step func(*IndexState)) {
	n := *s
	reply := w.begin(&n, &n.sessions[i])
	if reply == guard.Lost && n == *s {
		return
	}
	w.placed(&n, func(n *IndexState, where string) {
		if w.listen != nil {
			w.say(n, "%s: begins the set -> %s%s", who, reply, where)
		}
		step(n)
	})
}

func (w *Index) begin(n *IndexState, at *indexSession) string {
	reply := w.lab.run(callID{'B', at.owner}, n.redis.cells[:], false, func() (guard.Script, []string, []string) {
		return guard.Build, []string{markKey, setKey}, []string{owner(at.owner), guard.BuildMember(buildToken(fresh)), strconv.Itoa(ttl)}
	})
	if reply != guard.OK {
		at.build = building{}
		return fakeredis.Text(reply)
	}
	b := &at.build
	b.token = fresh
	switch {
	case b.phase == readFirst && b.finds > 0:
		b.phase = wasRead
	case b.phase == readFirst:
		b.phase = gathered
	default:
		b.phase = begun
	}
	if w.off(SetPositionBehind) {
		b.from = n.flushed()
	}
	return guard.OK
}

func (w *Index) read(n *IndexState, at *indexSession) (line string) {
	b := &at.build
	b.phase = gathered // nothing
	if w.inside(n.seesMoved) {
		b.phase, b.finds = wasRead, 1
	}
	if !w.off(SetPositionBehind) {
		b.from = n.flushed()
	}
	return fmt.Sprintf("reads the set in the database, which %s; the log stood behind commit %d", finds(b.finds), b.from)
}

func (w *Index) gather(n *IndexState, at *indexSession) (line string) {
	b := &at.build
	then := uint8(fresh)
	if w.off(AdditionsAreMarked) {
		then = b.token
	}
	what, members := "what it has read", []string{setMember}
	after := uint8(gathered)
	switch {
	case b.phase == addsMore:
		what, members = "the rest", nil
	case w.bounds.Adds:
		after = addsMore
	}
	reply := w.lab.run(callID{'g', b.token, b.phase}, n.redis.cells[:], false, func() (guard.Script, []string, []string) {
		return guard.Gather, []string{setKey}, append([]string{guard.BuildMember(buildToken(b.token)), guard.BuildMember(buildToken(then))}, members...)
	})
	if b.phase, b.finds, b.token = after, 0, then; reply != guard.OK {
		*b = building{}
	}
	return "adds " + what + " -> " + fakeredis.Text(reply)
}

func (w *Index) complete(n *IndexState, at *indexSession) string {
	b := at.build
	reply := w.lab.run(callID{'C', at.owner, b.token, b.from}, n.redis.cells[:], false, func() (guard.Script, []string, []string) {
		return guard.Complete, []string{markKey, setKey}, []string{owner(at.owner), guard.BuildMember(buildToken(b.token)), string(positionAfter(b.from).Append(nil))}
	})
	if reply != "WAIT" {
		at.build = building{}
	}
	return fakeredis.Text(reply)
}

const sweepSet = 4

func (w *Index) startSweep(n *IndexState) {
	n.sweep.run, n.sweep.phase, n.sweep.left = n.redis.run, firstPass, w.sweepNames(firstPass)
}

func (w *Index) sweepNames(pass uint8) uint8 {
	if w.off(SetsAreSwept) || w.off(SetsAreSweptTwice) && pass == secondPass {
		return sweepData | sweepSide
	}
	return sweepData | sweepSide | sweepSet
}

// sweeper takes the steps of the sweep, of the session that holds the slot.
func (w *Index) sweeper(s *IndexState, step func(*IndexState)) {
	if s.sessions[0].phase != running {
		return
	}
	switch s.sweep.phase {
	case firstPass, secondPass:
		for _, name := range []uint8{sweepData, sweepSide, sweepSet} {
			if s.sweep.left&name == 0 {
				continue
			}
			n := *s
			w.sweepOne(&n, name)
			if w.listen != nil {
				pass := map[uint8]string{firstPass: "first", secondPass: "second"}[s.sweep.phase]
				what := map[uint8]string{sweepData: "the page", sweepSide: "the side key", sweepSet: "the set"}[name]
				w.say(&n, "sweep: %s pass drops %s, if it is there", pass, what)
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

func (w *Index) sweepOne(n *IndexState, name uint8) {
	n.sweep.left &^= name
	n.redis.cells[map[uint8]int{sweepData: cellData, sweepSide: cellSide, sweepSet: cellSet}[name]] = 0
	switch {
	case n.sweep.left > 0:
	case n.sweep.phase == firstPass:
		n.sweep.phase, n.sweep.left = secondPass, w.sweepNames(secondPass)
	default:
		n.sweep.phase = marking
	}
}

// sweepOn goes on to the next part of the sweep, if that may be.
func (w *Index) sweepOn(n *IndexState) (line string) {
	at := &n.sessions[0]
	switch n.sweep.phase {
	case marking:
		if at.sent == w.bounds.Window {
			return ""
		}
		at.push(indexPacket{lo: at.next - 1, settled: min(n.sweep.before, w.settledAt(n, at, at.next-1)), note: pending, mark: marker})
		n.sweep.phase = marked
		return "sends a marker behind what was dropped"
	case checking:
		if n.redis.run != n.sweep.run {
			w.startSweep(n)
			return "another Redis has taken over meanwhile: once more"
		}
		n.sweep.phase = noting
		return "it was one Redis all the time"
	case noting:
		if at.sent == w.bounds.Window {
			return ""
		}
		p := indexPacket{lo: at.next - 1, settled: w.settledAt(n, at, at.next-1), note: done, mark: ending}
		if n.sweep.again > 0 {
			p.note = pending
		}
		at.push(p)
		n.sweep.phase = noted
		return fmt.Sprintf("has ended: sends settled = %d", p.settled)
	}
	return ""
}

// Calm implements explore.World.
func (w *Index) Calm(s *IndexState) IndexState {
	n := *s
	for i := range w.bounds.Readers {
		w.leave(&n, i)
	}
	n.sessions[1], n.sessions[0].build = indexSession{}, building{}
	n.saved, n.hasSaved = indexMaster{}, 0
	n.shown, n.promised = 0, 0
	n.takeovers, n.flushes, n.failovers, n.recreations = 0, 0, 0, 0
	w.normalise(&n)
	return n
}

// Quiet implements explore.World: the service catches up, then one reader comes.
func (w *Index) Quiet(s *IndexState, step func(*IndexState)) (done bool) {
	each := step
	step = func(next *IndexState) {
		w.normalise(next)
		each(next)
	}
	n := *s
	at := &n.sessions[0]
	switch {
	case s.seesMoved < s.moved || s.seesNamed < s.named:
		n.seesMoved, n.seesNamed = n.moved, n.named
		w.tell("database: everything is visible")
	case at.phase == away:
		w.renew(&n)
		w.tell("service: attaches and sends own")
	case at.phase == owning:
		w.own(&n, at)
		w.tell("service: own arrives -> epoch %d, lo %d", at.epoch, at.lo)
	case at.sent > 0:
		w.answer(s, 0, "service", step)
		return false
	case at.next <= s.flushed():
		w.tell("service: %s", w.next(&n, at))
	case s.sweep.phase == firstPass || s.sweep.phase == secondPass:
		w.sweepOne(&n, s.sweep.left&-s.sweep.left)
		w.tell("sweep: drops a name")
	case s.sweep.phase != noSweep:
		w.tell("sweep: %s", w.sweepOn(&n))
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
func (w *Index) rest(s *IndexState, step func(*IndexState)) (done bool) {
	m := w.lab.mark(s.redis.cells[cellMark])
	if m.lo != s.flushed() || m.settled != s.flushed() || m.sweeping {
		return false // stuck
	}
	n := *s
	const i = readersMax
	r := &n.readers[i]
	switch v := w.lab.version(s.redis.cells[cellData]); {
	case v >= 0 && uint8(v) != w.page(s):
		w.broken = fmt.Sprintf("G3: the cache holds %s, the database %s, and nothing is left to be done", w.text(uint8(v)), w.text(w.page(s)))
		return false
	case v >= 0:
		return true
	case r.phase == idle:
		if reply := w.lease(&n, i); reply != guard.Leased {
			n = *s
			for _, m := range []*indexMaster{&n.redis, &n.saved} {
				m.cells[cellSide] = w.lab.ticked(m.cells[cellSide])
			}
			w.tell("a last reader: begin -> %s, a tick", reply)
			break
		}
		r.phase = leased
		w.tell("a last reader: begin -> LEASE")
	case r.phase == leased:
		r.phase, r.value = loaded, w.page(s)
		w.tell("a last reader: loads %s", w.text(r.value))
	default:
		v := r.value
		w.tell("a last reader: fill %s -> %s", w.text(v), w.fill(&n, i))
	}
	step(&n)
	return false
}

func (w *Index) tell(format string, args ...any) {
	if w.listen != nil {
		w.listen(fmt.Sprintf(format, args...))
	}
}
