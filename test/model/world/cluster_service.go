package world

import (
	"fmt"
	"strconv"

	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/test/model/explore"
)

// service takes its steps. A session owns every master; then each master's first
// batch sets the watermark back to where the session begins, and takes from it
// the slots that it has no more; then each master goes at its own pace.
func (w *Cluster) service(s *ClusterState, step func(*ClusterState)) {
	at := &s.session
	switch at.phase {
	case owning:
		if at.owned[0]+at.owned[1] == 2 {
			n := *s
			w.begin(&n)
			if w.listen != nil {
				w.say(&n, "service: begins behind commit %d, by its map the slot is master %d's", n.session.resume, n.session.where+1)
			}
			step(&n)
			break
		}
		for m := range 2 {
			if at.owned[m] == 0 {
				n := *s
				w.own(&n, m)
				if w.listen != nil {
					w.say(&n, "service: own arrives at master %d -> lo %d", m+1, n.session.found[m])
				}
				step(&n)
			}
		}
	default:
		for m := range 2 {
			if at.window[m].there == 1 {
				n := *s
				line := w.answer(&n, m)
				if w.listen != nil {
					w.say(&n, "service: %s", line)
				}
				step(&n)
			} else if w.maySend(s, m) {
				n := *s
				line := w.send(&n, m)
				if w.listen != nil {
					w.say(&n, "service: %s", line)
				}
				step(&n)
			}
		}
		if w.moved(s) {
			n := *s
			w.renew(&n)
			if w.listen != nil {
				w.say(&n, "service: sees that the slot has moved, and begins anew")
			}
			step(&n)
		}
	}
	if s.takes < w.bounds.Takeovers {
		n := *s
		n.takes++
		n.strays = at.window
		w.renew(&n)
		if w.listen != nil {
			w.say(&n, "another instance takes the slot of the database")
		}
		step(&n)
	}
}

func (w *Cluster) renew(n *ClusterState) {
	n.owners++
	n.session = clusterSession{owner: n.owners}
	n.session.phase = owning
}

func (w *Cluster) moved(s *ClusterState) bool {
	return s.session.phase == running && s.slot == atSecond && s.session.where == 0
}

func (w *Cluster) own(n *ClusterState, m int) {
	at := &n.session
	reply := w.lab.run(callID{'o', at.owner}, n.cells[m][:cellNames], false, func() (guard.Script, []string, []string) {
		return guard.Own, []string{markKey}, []string{owner(at.owner), strconv.Itoa(guard.Format)}
	})
	found, err := guard.ParseOwn(reply)
	if err != nil {
		panic(err)
	}
	at.owned[m], at.epoch[m] = 1, uint8(found.Epoch)
	at.found[m], at.settled[m] = uint8(found.Lo.LSN/16), uint8(found.Settled.LSN/16)
}

// begin: every master is owned.
func (w *Cluster) begin(n *ClusterState) {
	at := &n.session
	at.phase, at.target = owned, n.flushed
	if w.off(FirstDelivery) {
		at.target = 0
	}
	at.resume, at.top = min(at.found[0], at.found[1]), max(at.found[0], at.found[1])
	if n.slot == atSecond {
		at.where = 1
	}
	for m := range uint8(2) {
		lo := at.resume
		if w.off(LowestResumes) {
			lo = at.found[m]
		}
		at.next[m] = lo + 1
		if w.off(LoGoesBack) {
			lo = at.found[m]
		}
		slots := n.slots[m]
		if at.where != m && !w.off(SlotsShrinkFirst) {
			slots = 0
		}
		if at.where == m && (at.resume == at.top || w.off(SlotsGrowLast)) {
			slots = 1
		}
		at.window[m] = clusterPacket{there: 1, lo: lo, settled: min(lo, at.settled[m]), slots: slots, n: 1, owner: at.owner, epoch: at.epoch[m]}
	}
}

func (w *Cluster) maySend(s *ClusterState, m int) bool {
	c := s.session.next[m]
	return s.session.phase == running && c <= s.flushed && s.visible>>c&1 == 1
}

func (w *Cluster) send(n *ClusterState, m int) string {
	at := &n.session
	c := at.next[m]
	lo := c
	if w.off(LoGoesBack) {
		lo = max(c, at.found[m])
	}
	p := clusterPacket{there: 1, lo: lo, settled: lo, slots: sameSlots, n: at.n[m] + 1, owner: at.owner, epoch: at.epoch[m]}
	if int(at.where) == m {
		switch {
		case !w.bounds.Sets:
			p.does = drop
		case c > at.target:
			p.does = set
		default:
			p.does = forget
		}
	}
	if c >= at.top {
		p.slots = 0
		if int(at.where) == m {
			p.slots = 1
		}
	}
	at.window[m] = p
	at.next[m]++
	return fmt.Sprintf("sends commit %d to master %d: %s", c, m+1,
		map[uint8]string{nothing: "nothing for it", drop: "drop", forget: "drop, h stays", set: "SET v" + strconv.Itoa(int(c))}[p.does])
}

// answer: the batch on its way to master m arrives, and so does its reply; or,
// where its key's slot is moving, its names are dropped one by one.
func (w *Cluster) answer(n *ClusterState, m int) string {
	at := &n.session
	p := &at.window[m]
	switch p.does {
	case dropSide, dropData:
		cell, name := cellSide, "side key"
		if p.does == dropData {
			cell, name = cellData, "value"
		}
		n.cells[0][cell], n.cells[1][cell] = 0, 0
		first, second := uint8(dropSide), uint8(dropData)
		if w.off(SideKeyFirst) {
			first, second = second, first
		}
		if p.does == first {
			p.does = second
		} else {
			p.does = nothing
		}
		return fmt.Sprintf("drops the %s, wherever it is", name)
	}
	reply := w.arrive(n, m, p)
	number := p.lo
	switch reply {
	case guard.OK, guard.Done:
		*p = clusterPacket{}
		at.n[m]++
		if at.phase == owned && at.n[0] > 0 && at.n[1] > 0 || w.off(FirstsComeFirst) && at.phase == owned {
			at.phase = running
		}
	case "moving":
		p.does = dropSide
		if w.off(SideKeyFirst) {
			p.does = dropData
		}
		if w.off(MovedIsDropped) {
			p.does = nothing
		}
	default:
		w.renew(n)
	}
	return fmt.Sprintf("the batch of commit %d arrives at master %d -> %s", number, m+1, reply)
}

// arrive runs a batch on master m. The script looks at each of its keys before
// it writes, so that it fails wholly where one is not there.
func (w *Cluster) arrive(n *ClusterState, m int, p *clusterPacket) string {
	if p.does != nothing {
		switch {
		case n.slot == moving && m == 0 && (n.cells[0][cellData] == 0 || n.cells[0][cellSide] == 0):
			return "moving"
		case n.slot == atSecond && m == 0, n.slot == atFirst && m == 1, n.slot == moving && m == 1:
			return "MOVED"
		}
	}
	c := w.cache()
	id := callID{'a', p.owner, p.epoch, p.n, p.lo, p.settled, p.does}
	reply := w.lab.run(id, n.cells[m][:cellNames], false, func() (guard.Script, []string, []string) {
		return c.batch(&session{owner: p.owner, epoch: p.epoch}, p.n, packet{lo: p.lo, settled: p.settled, does: p.does, version: p.lo, until: untilTicks})
	})
	applied, err := guard.ParseApply(reply)
	if err != nil {
		panic(err)
	}
	if applied.Status == guard.OK && p.slots != sameSlots {
		n.slots[m] = p.slots
	}
	return applied.Status
}

// Calm implements explore.World.
func (w *Cluster) Calm(s *ClusterState) ClusterState {
	n := *s
	for i := range w.bounds.Readers {
		w.leave(&n, i)
	}
	n.strays = [2]clusterPacket{}
	n.shown, n.promised, n.takes = 0, 0, 0
	return n
}

// Quiet implements explore.World: the slot arrives, the service catches up, and
// one reader comes.
func (w *Cluster) Quiet(s *ClusterState, step func(*ClusterState)) (done bool) {
	once := func(next *ClusterState) {
		if step != nil {
			step(next)
		}
		step = nil
	}
	if s.slot == moving {
		w.move(s, once)
		return false
	}
	if w.show(s, once); step == nil {
		return false
	}
	quiet := *w
	quiet.bounds.Takeovers = 0
	if quiet.service(s, once); step == nil {
		return false
	}
	m := int(s.slot) / atSecond
	mark := w.lab.mark(s.cells[m][cellMark])
	if mark.lo != s.flushed || mark.settled != s.flushed || s.slots[m] != 1 {
		return false // stuck
	}
	v := w.shows(s)
	if v >= 0 && uint8(v) != s.row() {
		w.broken = fmt.Sprintf("G3: the cache holds v%d, the database v%d, and nothing is left to be done", v, s.row())
		return false
	}
	if v >= 0 {
		return true
	}
	w.reader(s, readersMax, once)
	if step != nil {
		// Somebody's lease is live.
		n := *s
		n.cells[m][cellSide] = w.lab.ticked(n.cells[m][cellSide])
		if w.listen != nil {
			w.say(&n, "time: a tick")
		}
		step(&n)
	}
	return false
}

// ClusterCases are the ablations of a Cluster.
var ClusterCases = []struct {
	Ablation
	Bounds ClusterBounds
}{
	{Ablation{Name: "lowest-lo-resumes", Says: "each master goes on at its own lo", Without: LowestResumes}, twoMasters},
	{Ablation{Name: "lo-goes-back", Says: "no watermark is set back to where the session begins", Without: LoGoesBack}, twoMasters},
	{Ablation{Name: "firsts-come-first", Says: "a master goes on before the others are set back", Without: FirstsComeFirst}, twoMasters},
	{Ablation{Name: "barrier-asks-slots", Says: "a barrier believes the watermark of the key's master, whatever its slots", Without: BarrierAsksSlots}, twoMasters},
	{Ablation{Name: "slots-shrink-first", Says: "a watermark keeps a slot that has moved away until the replay has ended", Without: SlotsShrinkFirst}, twoMasters},
	{Ablation{Name: "slots-grow-last", Says: "a watermark speaks for a slot before the replay has ended", Without: SlotsGrowLast,
		Unneeded: "it is set back first, so what it says of the slot is true at once"}, twoMasters},
	{Ablation{Name: "moved-is-dropped", Says: "a key that is moving is left out", Without: MovedIsDropped}, twoMasters},
	{Ablation{Name: "side-key-first", Says: "of a key that is moving, the value is dropped before the side key", Without: SideKeyFirst}, twoMasters},
	{Ablation{Name: "moved-only-drops", Says: "what is delivered again after a move is SET again", Without: FirstDelivery},
		ClusterBounds{Name: "two masters, sets", Sets: true, Commits: 2, Readers: 1}},
}

var twoMasters = ClusterBounds{Name: "two masters", Commits: 2, Readers: 1, Takeovers: 1}

// ClusterConfigurations are those of a Cluster.
var ClusterConfigurations = []struct{ Bounds, Small ClusterBounds }{
	{ClusterBounds{Name: "two masters, and a slot that moves", Commits: 3, Readers: 2, Takeovers: 1},
		ClusterBounds{Commits: 2, Readers: 1, Takeovers: 1}},
	{ClusterBounds{Name: "two masters, a slot that moves, and sets", Sets: true, Commits: 3, Readers: 2, Takeovers: 1},
		ClusterBounds{Sets: true, Commits: 2, Readers: 1, Takeovers: 1}},
	{ClusterBounds{Name: "two masters, and two take-overs", Commits: 2, Readers: 1, Takeovers: 2},
		ClusterBounds{Commits: 2, Readers: 1, Takeovers: 1, Still: true}},
}

func runCluster(b ClusterBounds, a Ablation) Run {
	return func(limits explore.Limits) explore.Result { return explore.Run(NewCluster(b, a), limits) }
}

// String says what may happen.
func (b ClusterBounds) String() string {
	does := "an entry that never SETs"
	if b.Sets {
		does = "an entry that SETs"
	}
	return fmt.Sprintf("%s, two masters, a slot that moves, %s, %s, %s", does,
		count(int(b.Commits), "commit"), count(b.Readers, "reader"), count(int(b.Takeovers), "take-over"))
}
