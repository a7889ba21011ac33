package world

import (
	"fmt"
	"strconv"

	"github.com/unstale/unstale/internal/guard"
)

// ClusterBounds say what may happen in a Cluster.
type ClusterBounds struct {
	Name      string
	Sets      bool
	Commits   uint8
	Readers   int
	Takeovers uint8
	Still     bool // the slot stays where it is
}

// Where the key's slot is.
const (
	atFirst = iota
	moving
	atSecond
)

// What happens to the key by itself, since its slot is moving.
const (
	dropSide = restore + 1 + iota
	dropData
)

// clusterPacket is one batch on its way to one master.
type clusterPacket struct {
	there, lo, settled, does, slots, n, owner, epoch uint8
}

// sameSlots: the batch leaves the watermark's slots as they are.
const sameSlots = 2

type clusterSession struct {
	phase, owner, where uint8
	resume, top, target uint8
	owned, epoch, n     [2]uint8
	found, settled      [2]uint8
	next                [2]uint8
	window              [2]clusterPacket
}

// ClusterState is a state of a Cluster.
type ClusterState struct {
	cells            [2][cellsMax]Cell
	slots            [2]uint8 // of the watermarks: 1, it speaks for the key's slot
	slot             uint8
	flushed, visible uint8
	readers          [readersMax + 1]reader
	session          clusterSession
	strays           [2]clusterPacket
	shown, promised  uint8
	owners, takes    uint8
	_                uint8 // evens the size
}

// Cluster is the world of one key on two masters, whose slot moves from the first
// to the second. Each master has a watermark. The service has none of this yet:
// the world has the rules, and runs the scripts that there are.
type Cluster struct {
	bounds   ClusterBounds
	ablation Ablation
	lab      *lab
	listen   func(string)
	broken   string
}

// NewCluster returns the world; the zero Ablation leaves every rule in place.
func NewCluster(b ClusterBounds, a Ablation) *Cluster {
	return &Cluster{bounds: b, ablation: a, lab: newLab([]string{dataKey, sideKey, markKey}, a.Patches...)}
}

func (w *Cluster) off(r Rule) bool { return w.ablation.Without&r != 0 }

// Listen implements explore.World.
func (w *Cluster) Listen(say func(string)) { w.listen = say }

func (w *Cluster) say(next *ClusterState, format string, args ...any) {
	shown := "-"
	if v := w.shows(next); v >= 0 {
		shown = "v" + strconv.Itoa(int(v))
	}
	w.listen(fmt.Sprintf("%-76s | %s", fmt.Sprintf(format, args...), shown))
}

// shows is what a GET returns that follows redirections; -1: nothing.
func (w *Cluster) shows(s *ClusterState) int8 {
	if v := w.lab.version(s.cells[0][cellData]); s.slot != atSecond && v >= 0 {
		return v
	}
	if s.slot == atFirst {
		return -1
	}
	return w.lab.version(s.cells[1][cellData])
}

// Initial implements explore.World.
func (w *Cluster) Initial() ClusterState {
	var s ClusterState
	s.visible, s.owners = 1, 1
	s.session = clusterSession{owner: 1, phase: owning}
	for m := range 2 {
		w.own(&s, m)
	}
	w.begin(&s)
	for m := range 2 {
		s.session.window[m].slots = uint8(1 - m)
		w.answer(&s, m)
	}
	s.cells[0][cellData] = w.lab.value(false, 0)
	return s
}

// Next implements explore.World.
func (w *Cluster) Next(s *ClusterState, each func(*ClusterState)) {
	step := func(next *ClusterState) {
		w.normalise(next)
		w.settle(next)
		each(next)
	}
	if s.flushed < w.bounds.Commits && s.visible>>s.flushed&1 == 1 {
		n := *s
		n.flushed++
		if w.listen != nil {
			w.say(&n, "database: commit %d is flushed, not visible", n.flushed)
		}
		step(&n)
	}
	w.show(s, step)
	for i := range w.bounds.Readers {
		w.reader(s, i, step)
	}
	w.service(s, step)
	for m := range 2 {
		if s.strays[m].there == 0 {
			continue
		}
		n := *s
		reply := w.arrive(&n, m, &n.strays[m])
		n.strays[m] = clusterPacket{}
		if w.listen != nil {
			w.say(&n, "a batch of the session before arrives at master %d -> %s", m+1, reply)
		}
		step(&n)
	}
	if v := w.shows(s); v >= 0 {
		n := *s
		n.cells[0][cellData], n.cells[1][cellData] = 0, 0
		if w.listen != nil {
			w.say(&n, "redis: the value expires, or is evicted")
		}
		step(&n)
	}
	w.move(s, step)
}

func (w *Cluster) show(s *ClusterState, step func(*ClusterState)) {
	if s.visible>>s.flushed&1 == 1 {
		return
	}
	n := *s
	n.visible |= 1 << s.flushed
	if w.listen != nil {
		w.say(&n, "database: commit %d is visible", s.flushed)
	}
	step(&n)
}

func (s *ClusterState) row() uint8 {
	if s.visible>>s.flushed&1 == 1 {
		return s.flushed
	}
	return s.flushed - 1
}

// move: keys go over one by one, and then the slot.
func (w *Cluster) move(s *ClusterState, step func(*ClusterState)) {
	switch s.slot {
	case atFirst:
		if w.bounds.Still {
			return
		}
		n := *s
		n.slot = moving
		if w.listen != nil {
			w.say(&n, "cluster: the slot begins to move to master 2")
		}
		step(&n)
	case moving:
		for _, cell := range []int{cellData, cellSide} {
			if s.cells[0][cell] == 0 {
				continue
			}
			n := *s
			n.cells[1][cell], n.cells[0][cell] = n.cells[0][cell], 0
			if w.listen != nil {
				w.say(&n, "cluster: the %s moves", []string{"value", "side key"}[cell])
			}
			step(&n)
		}
		if s.cells[0][cellData] == 0 && s.cells[0][cellSide] == 0 {
			n := *s
			n.slot = atSecond
			if w.listen != nil {
				w.say(&n, "cluster: the slot is master 2's")
			}
			step(&n)
		}
	}
}

// reader: while the slot moves, what is missing cannot be begun nor filled.
func (w *Cluster) reader(s *ClusterState, i int, step func(*ClusterState)) {
	if s.slot == moving && s.readers[i].phase != leased {
		return
	}
	c := w.at(s)
	name := 'A' + rune(i)
	switch r := s.readers[i]; r.phase {
	case idle:
		cs := c.single(s)
		if c.begin(&cs, i) != guard.Leased {
			return
		}
		n := *s
		c.back(&n, &cs)
		n.readers[i].phase = leased
		if w.listen != nil {
			w.say(&n, "reader %c: begin -> LEASE", name)
		}
		step(&n)
	case leased:
		n := *s
		n.readers[i].phase, n.readers[i].value = loaded, s.row()
		if w.bounds.Sets {
			n.readers[i].h = s.flushed
		}
		if w.listen != nil {
			w.say(&n, "reader %c: loads v%d", name, s.row())
		}
		step(&n)
	default:
		h := r.h
		if !w.bounds.Sets {
			h = unknownH
		}
		cs := c.single(s)
		reply := c.fill(&cs, i, h, false)
		n := *s
		c.back(&n, &cs)
		w.leave(&n, i)
		if w.listen != nil {
			w.say(&n, "reader %c: fill v%d -> %s", name, r.value, reply)
		}
		step(&n)
	}
}

// A masterOf lends a Cache's calls to the master that has the key's slot.
type masterOf struct {
	*Cache
	m int
}

func (w *Cluster) at(s *ClusterState) masterOf {
	m := 0
	if s.slot == atSecond {
		m = 1
	}
	return masterOf{w.cache(), m}
}

// cache makes the calls of this world; it has no state.
func (w *Cluster) cache() *Cache {
	return &Cache{bounds: Bounds{Sets: w.bounds.Sets, cluster: true}, ablation: w.ablation, lab: w.lab}
}

func (c masterOf) single(s *ClusterState) State {
	return State{redis: master{cells: s.cells[c.m]}, readers: s.readers}
}

func (c masterOf) back(n *ClusterState, from *State) { n.cells[c.m] = from.redis.cells }

func (w *Cluster) leave(n *ClusterState, i int) {
	n.readers[i] = reader{}
	for m := range 2 {
		n.cells[m][cellSide] = w.lab.orphaned(n.cells[m][cellSide], i)
	}
}

func (w *Cluster) normalise(s *ClusterState) {
	for i := range w.bounds.Readers {
		if s.readers[i].phase != idle && w.lab.holder(s.cells[0][cellSide]) != int8(i) && w.lab.holder(s.cells[1][cellSide]) != int8(i) {
			s.readers[i] = reader{}
		}
	}
}

// settle notes what GETs and barriers have told. A client may have an old map of
// the slots, so it may ask either watermark that speaks for the key's slot.
func (w *Cluster) settle(s *ClusterState) {
	if v := w.shows(s); v >= 0 {
		s.shown = max(s.shown, uint8(v))
	}
	for m := range 2 {
		mine := s.slot == atSecond == (m == 1)
		if s.slots[m] == 1 || w.off(BarrierAsksSlots) && mine {
			s.promised = max(s.promised, w.lab.mark(s.cells[m][cellMark]).settled)
		}
	}
}

// Broken implements explore.World.
func (w *Cluster) Broken(s *ClusterState) string {
	if w.broken != "" {
		broken := w.broken
		w.broken = ""
		return broken
	}
	switch v := w.shows(s); {
	case v < 0:
		return ""
	case uint8(v) < s.promised:
		return fmt.Sprintf("G1, G5: a GET returns v%d, and a watermark that speaks for its slot has said that commit %d is settled", v, s.promised)
	case uint8(v) < s.shown:
		return fmt.Sprintf("G2: a GET returns v%d, after one returned v%d", v, s.shown)
	}
	return ""
}
