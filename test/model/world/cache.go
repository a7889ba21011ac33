package world

import (
	"fmt"
	"strconv"

	"github.com/unstale/unstale/internal/guard"
)

// Names of what one master holds in this world, and their places in its cells.
const (
	dataKey   = "product:1"
	stream    = "1:2:unstale"
	template  = "product:{id}"
	cellData  = 0
	cellSide  = 1
	cellMark  = 2
	cellNames = 3
	commitMax = 3

	readersMax = 3
	logMax     = 5
)

var (
	sideKey, _  = guard.SideKey(dataKey)
	namesKey, _ = guard.Names(dataKey)
	markKey     = guard.WatermarkKey(0, stream)
)

// Members of the names of the key's slot that are no names: the seal, and the drafts
// of who makes them complete.
const (
	seal       = "\x00" + template
	collecting = seal + "\x001"
	collected  = seal + "\x002"
)

// A Change is what a commit does to the one row that is cached.
type Change byte

const (
	// Complete: its new row is known, so an entry that SETs may SET it.
	Complete Change = 'c'
	// Doubtful: a delete, or a row that is not known wholly.
	Doubtful Change = 'd'
	// Truncate: its keys are unknown, so its entry is swept.
	Truncate Change = 't'
	// OtherPart: every key of a part of its entry is concerned, and this one is not of it.
	OtherPart Change = 'p'
	// Other: it is of another row.
	Other Change = 'o'
	// Lookup: it is of another table, and the database must be asked which keys
	// it concerns: it finds the key unless a Moved is visible by then.
	Lookup Change = 'l'
	// FanOut: the same, and it finds so many keys that it goes on beside the stream.
	FanOut Change = 'f'
	// Moved: the row is moved to where no lookup behind it finds it.
	Moved Change = 'm'
	// Between: a row that other lookups lead through is moved, so they do not find the key
	// behind it. The key that it led to must be looked up, too.
	Between Change = 'k'
)

// Bounds say what may happen in a Cache.
type Bounds struct {
	Name string

	Sets    bool   // the entry SETs
	Cached  bool   // and only keys that are cached (update)
	Hash    bool   // as a hash
	Changes string // of the commits, a Change each
	Readers int    // each may load as often as it likes
	// Loader: the last of the readers is the service, which loads by itself.
	Loader bool
	Writer bool // may drop the key itself after its commit
	Clock  bool // time passes
	Evicts bool // Redis may evict side keys; what a GET returns may go back then
	Full   bool // Redis may be full
	// Kafka: the commits come over a topic. Resends is how often what was sent is
	// sent again under new offsets.
	Kafka   bool
	Resends uint8
	// Cuts: a transaction that is the last at hand may go on, so it is dropped, and
	// loaded again if it was cached.
	Cuts bool
	// Snapshot: the topic begins with the row as the initial snapshot found it.
	Snapshot bool
	// Names: a plan asks for the sweeps, which go by the names of cached keys. Those may be
	// evicted.
	Names bool
	// Keeps: values neither expire nor are they evicted.
	Keeps bool
	// Window is how many batches are on their way at most.
	Window uint8
	// Copies: what is on its way may arrive, and its reply be lost.
	Copies  bool
	cluster bool // batches are sent as to a cluster
	// How often the service loses its stream to another instance, Redis is
	// flushed, a replica takes over, and the slot is made anew.
	Takeovers, Flushes, Failovers, Recreations uint8
}

// master is one Redis: see lab.
type master struct {
	cells [cellsMax]Cell
	run   uint8 // its run_id
	seen  uint8 // of the watermark: the newest commit that came over Kafka
}

// How far a reader is.
const (
	idle = iota
	leased
	loaded
)

type reader struct {
	phase    uint8
	value, h uint8 // what it has loaded; h: commits in the log then
}

// How far a session is.
const (
	away   = iota
	owning // own is on its way
	owned
	running
)

// What a batch does to the key.
const (
	nothing = iota
	drop
	forget
	set
	restore // a row of the initial snapshot
	unlink  // a drop beside the stream: a command of its own in front of the script
)

// What a batch notes about sweeps.
const (
	asItIs = iota
	pending
	done
)

type packet struct {
	lo, settled, does, note uint8
	version                 uint8
	until                   int8 // ticks
	mark                    uint8
	unlinked                uint8 // 1: of an unlink only the script is still to come
}

// What a batch is to the sweep.
const (
	ordinary = iota
	marker
	ending
)

const windowMax = 2

type session struct {
	phase, owner, epoch, n uint8
	lo                     uint8 // confirmed by Redis
	next                   uint8 // commit to be sent
	target                 uint8 // up to here it may have been delivered before
	limit                  uint8 // commits that it has read, if it holds the slot no more
	held                   uint8 // where settled stands for good, plus one
	seen                   uint8 // the newest commit that came over Kafka
	looks                  outlooks
	sent                   uint8
	window                 [windowMax]packet
}

// How far a sweep is.
const (
	noSweep = iota
	requested
	asking        // are the names complete?
	reading       // them
	droppingNamed // what was read
	unnaming      // it, where that is a step of its own
	askingAgain
	collectingNames
	firstPass
	secondPass
	haveCollected
	marking
	marked // the marker is on its way
	checking
	sealing
	noting
	noted // the note that it has ended is on its way
)

const (
	sweepData = 1
	sweepSide = 2
)

type sweep struct {
	phase, left uint8
	run         uint8
	before      uint8 // settled until it has ended
	again       uint8 // another was asked for: the commit before it, plus one
	derived     uint8 // 1: a plan has asked for it
	completes   uint8 // 1: it makes the names complete
	spares      uint8 // 1: it is of a part that the key is not of
	againSpares uint8
}

// How far a fan-out is.
const (
	noFanOut = iota
	looks    // its statement runs
	found    // and has found its keys, or none
	fanned   // they are on their way
	over     // and so is its end: see outlooks
)

// A fanOut goes on beside the stream of the session that holds the slot.
type fanOut struct {
	phase  uint8
	before uint8 // where settled stands
	until  uint8 // what the lookup has seen
	finds  uint8 // 1: the key
}

// State of a Cache.
type State struct {
	redis, saved master
	flushed      uint8
	visible      uint8
	ages         [commitMax + 1]uint8   // ticks since a commit was flushed
	readers      [readersMax + 1]reader // and one that comes when all is quiet
	sessions     [2]session             // the current one, and one that has lost the slot
	sweep        sweep
	fan          fanOut
	log          [logMax]uint8 // the commit at each offset of the topic
	end          uint8
	produced     uint8 // commits that are in the topic
	resends      uint8
	confirmed    uint8 // where the slot resumes
	hasSaved     uint8

	shown    uint8 // the newest version that any GET has returned
	promised uint8 // up to here settled was seen
	herd     uint8 // 1: a lease was given while another was live
	written  uint8 // the newest commit whose writer has dropped the key itself

	takeovers, flushes, failovers, recreations uint8
	unnoticed                                  uint8 // 1: Redis has lost writes, and nobody has taken it over since
}

// Cache is the world of one key on one master: commits, readers, a writer, the
// service, and whatever may befall Redis.
type Cache struct {
	bounds   Bounds
	ablation Ablation
	lab      *lab
	listen   func(string)
	broken   string // by the step itself
	patched  bool   // the script that refuses is not what it is
}

// NewCache returns the world; the zero Ablation leaves every rule in place.
func NewCache(b Bounds, a Ablation) *Cache {
	w := &Cache{bounds: b, ablation: a, lab: newLab([]string{dataKey, sideKey, markKey, namesKey}, a.Patches...)}
	for _, p := range a.Patches {
		w.patched = w.patched || p.Script == guard.Fill.Name || p.Script == guard.Apply.Name
	}
	return w
}

// Listen implements explore.World.
func (w *Cache) Listen(say func(string)) { w.listen = say }

// say tells what the next step is. Its caller asks whether anybody listens.
func (w *Cache) say(next *State, format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	if next != nil {
		line = fmt.Sprintf("%-76s %s", line, w.shows(next))
	}
	w.listen(line)
}

// shows is what a GET returns.
func (w *Cache) shows(s *State) string {
	if v := w.lab.version(s.redis.cells[cellData]); v >= 0 {
		return "| v" + strconv.Itoa(int(v))
	}
	return "| -"
}

func (w *Cache) off(r Rule) bool { return w.ablation.Without&r != 0 }

// Initial implements explore.World: the stream was taken over, and a reader has
// cached the row.
func (w *Cache) Initial() State {
	var s State
	s.redis.run = 1
	for c := uint8(0); c <= commitMax; c++ {
		s.ages[c] = youngTicks + 1
	}
	s.visible = 1 // the row as it was before the first commit
	if w.bounds.Snapshot {
		s.end = 1
	}
	s.sessions[0] = session{phase: owning, owner: 1, limit: 255}
	w.own(&s, &s.sessions[0])
	// It is no first start: the sweep of that has ended.
	s.sessions[0].target, s.sessions[0].phase, s.sweep = 0, running, sweep{}
	s.sessions[0].push(packet{note: done})
	w.arrive(&s, &s.sessions[0], 0, false)
	w.confirm(&s, &s.sessions[0])
	s.redis.cells[cellData] = w.lab.value(w.bounds.Hash, 0)
	if w.bounds.Snapshot {
		s.redis.cells[cellData] = 0
		s.sessions[0].next = 1
	}
	return s
}

// Next implements explore.World.
func (w *Cache) Next(s *State, each func(*State)) {
	step := func(next *State) {
		w.normalise(next)
		each(next)
	}
	w.database(s, step)
	for i := range w.bounds.Readers {
		w.reader(s, i, step)
	}
	if w.bounds.Writer {
		for c := uint8(1); c <= s.flushed; c++ {
			w.writer(s, c, step)
		}
	}
	for i := range s.sessions {
		w.session(s, i, step)
	}
	w.sweeper(s, step)
	w.fanner(s, step)
	w.faults(s, step)
}

// normalise makes one of states between which nothing that is still to come can
// tell.
func (w *Cache) normalise(s *State) {
	for i := range w.bounds.Readers {
		// Its token is nowhere, so its fill will be refused, whatever it loads.
		r := &s.readers[i]
		if r.phase != idle && !w.patched && w.lab.holder(s.redis.cells[cellSide]) != int8(i) && w.lab.holder(s.saved.cells[cellSide]) != int8(i) {
			n := *s
			if w.fill(&n, i, unknownH, false) == guard.Refused && n == *s {
				*r = reader{}
			}
		}
	}
	// No watermark knows it, so all that it sends will be refused.
	if z := &s.sessions[1]; z.phase == running && !w.patched && w.lab.mark(s.redis.cells[cellMark]).owner != z.owner && w.lab.mark(s.saved.cells[cellMark]).owner != z.owner {
		refused := true
		for j := range z.window[:z.sent] {
			n := *s
			reply := w.arrive(&n, &n.sessions[1], j, false)
			refused = refused && n == *s && (reply == guard.Fenced || reply == guard.Lost)
		}
		if refused {
			*z = session{}
		}
	}
	w.rename(s)
	for c := uint8(1); c <= s.flushed && !w.bounds.Kafka; c++ {
		if !w.bounds.Sets || w.sent(&s.sessions[0], c) && w.sent(&s.sessions[1], c) {
			s.ages[c] = youngTicks + 1
		}
	}
}

// rename gives owners, epochs and runs the smallest numbers that tell them
// apart, so that it does not matter how many there were.
func (w *Cache) rename(s *State) {
	if w.off(OwnersDiffer) {
		return
	}
	first, second := &s.sessions[0], &s.sessions[1]
	w.lab.rename([2]*Cell{&s.redis.cells[cellMark], &s.saved.cells[cellMark]}, [2]*uint8{&first.owner, &second.owner}, [2]*uint8{&first.epoch, &second.epoch})
	if s.sweep.run != 0 && s.sweep.run != s.redis.run {
		s.sweep.run = another
	} else if s.sweep.run != 0 {
		s.sweep.run = 1
	}
	s.redis.run, s.saved.run = 1, 0
}

// Names of an owner that is in no session, of one that is new, and of a run that
// is over.
const (
	dead    = 3
	fresh   = 4
	another = 9
)

// sent: the session will never judge commit c any more.
func (w *Cache) sent(at *session, c uint8) bool {
	switch at.phase {
	case away:
		return true
	case running:
		return c < at.next || c > at.limit
	}
	return false
}

// stream is where the stream ends: a commit, or over Kafka an offset.
func (w *Cache) stream(s *State) uint8 {
	if w.bounds.Kafka {
		return s.end
	}
	return s.flushed
}

// commit is what stands at a position of the stream.
func (w *Cache) commit(s *State, position uint8) uint8 {
	if w.bounds.Kafka {
		return s.log[position-1]
	}
	return position
}

// reached is the newest commit up to a position of the stream.
func (w *Cache) reached(s *State, position uint8) uint8 {
	if !w.bounds.Kafka {
		return position
	}
	newest := uint8(0)
	for _, c := range s.log[:position] {
		newest = max(newest, c)
	}
	return newest
}

// sees reports whether a snapshot of the primary shows commit c.
func (s *State) sees(c uint8) bool { return s.visible>>c&1 == 1 }

// row is the version that a snapshot shows.
func (w *Cache) row(s *State) uint8 {
	if c := w.touched(s.flushed); c == 0 || s.sees(c) {
		return c
	}
	return w.touched(s.flushed - 1)
}

// touched is the last commit up to c that has changed the row.
func (w *Cache) touched(c uint8) uint8 {
	for c > 0 && w.elsewhere(c) {
		c--
	}
	return c
}

// elsewhere: commit c leaves the row as it was.
func (w *Cache) elsewhere(c uint8) bool { return w.change(c) == Other || w.change(c) == OtherPart }

func (w *Cache) commits() uint8 { return uint8(len(w.bounds.Changes)) }

func (w *Cache) change(c uint8) Change { return Change(w.bounds.Changes[c-1]) }

// database: the commits are of one row, so the lock on it lets none be written
// before the one before is visible.
func (w *Cache) database(s *State, step func(*State)) {
	if s.flushed < w.commits() && s.sees(s.flushed) {
		n := *s
		n.flushed++
		n.ages[n.flushed] = 0
		if w.listen != nil {
			what := map[Change]string{Complete: "", Doubtful: ", a delete,", Truncate: ", a TRUNCATE,", OtherPart: ", of another part of the entry,", Other: ", of another row,", Lookup: ", of a row that a lookup leads from,", FanOut: ", of a row that a fan-out leads from,", Moved: ", which moves the row,", Between: ", which moves a row that lookups lead through,"}[w.change(n.flushed)]
			w.say(&n, "database: commit %d%s is flushed, not visible", n.flushed, what)
		}
		step(&n)
	}
	if !s.sees(s.flushed) {
		n := *s
		n.visible |= 1 << n.flushed
		if w.listen != nil {
			w.say(&n, "database: commit %d is visible", n.flushed)
		}
		step(&n)
	}
}

// Always is a number of times without end.
const Always = 255

func spend(times *uint8, most uint8) {
	if most != Always {
		*times++
	}
}

// faults, and time.
func (w *Cache) faults(s *State, step func(*State)) {
	if w.bounds.Kafka {
		w.topic(s, step)
	}
	if s.redis.cells[cellData] != 0 && !w.bounds.Keeps {
		n := *s
		n.redis.cells[cellData] = 0
		if w.listen != nil {
			w.say(&n, "redis: the value expires, or is evicted")
		}
		step(&n)
	}
	if w.bounds.Names && s.redis.cells[cellNames] != 0 {
		n := *s
		n.redis.cells[cellNames] = 0
		if w.listen != nil {
			w.say(&n, "redis: the names are evicted")
		}
		step(&n)
	}
	if w.bounds.Evicts && s.redis.cells[cellSide] != 0 {
		n := *s
		n.redis.cells[cellSide] = 0
		if w.listen != nil {
			w.say(&n, "redis: the side key is evicted")
		}
		step(&n)
	}
	if w.bounds.Clock {
		n := *s
		w.tick(&n)
		if n != *s {
			if w.listen != nil {
				w.say(&n, "time: a tick (a lease is %d, a shield %d)", leaseTicks, shieldTicks)
			}
			step(&n)
		}
	}
	if s.flushes < w.bounds.Flushes {
		n := *s
		spend(&n.flushes, w.bounds.Flushes)
		n.redis.cells, n.redis.seen = [cellsMax]Cell{}, 0
		if w.listen != nil {
			w.say(&n, "redis: FLUSHALL")
		}
		step(&n)
		if s.redis.cells[cellMark] != 0 {
			n := *s
			spend(&n.flushes, w.bounds.Flushes)
			n.redis.cells[cellMark], n.redis.seen = 0, 0
			if w.listen != nil {
				w.say(&n, "redis: the watermark is evicted")
			}
			step(&n)
		}
	}
	if s.failovers < w.bounds.Failovers {
		if s.hasSaved == 0 {
			n := *s
			n.saved, n.hasSaved = n.redis, 1
			if w.listen != nil {
				w.say(&n, "redis: what follows does not reach the replica")
			}
			step(&n)
		} else {
			n := *s
			spend(&n.failovers, w.bounds.Failovers)
			run := n.redis.run + 1
			w.disconnect(&n)
			n.unnoticed = 1
			n.redis, n.saved, n.hasSaved = n.saved, master{}, 0
			n.redis.run = run
			// What was lost was seen, and it is said that it may be.
			n.shown, n.written, n.promised = 0, 0, w.threshold(&n)
			if w.listen != nil {
				w.say(&n, "redis: the replica takes over; what did not reach it is lost")
			}
			step(&n)
		}
	}
	if s.recreations < w.bounds.Recreations && s.sees(s.flushed) && s.confirmed < s.flushed {
		n := *s
		spend(&n.recreations, w.bounds.Recreations)
		n.confirmed = n.flushed
		w.lose(&n)
		if w.listen != nil {
			w.say(&n, "database: the slot is dropped and made anew, behind commit %d", n.flushed)
		}
		step(&n)
	}
}

// disconnect: what is still to come of a batch will not come on this connection. It is
// sent again as a whole.
func (w *Cache) disconnect(n *State) {
	if w.off(UnlinkedAgain) {
		return
	}
	for i := range n.sessions {
		for j := range n.sessions[i].window {
			n.sessions[i].window[j].unlinked = 0
		}
	}
}

// topic: the connector writes what it reads into the topic. One that was killed
// begins again where it had last noted its place.
func (w *Cache) topic(s *State, step func(*State)) {
	if s.produced < s.flushed && s.end < logMax {
		n := *s
		n.produced++
		n.log[n.end] = n.produced
		n.end++
		if w.listen != nil {
			w.say(&n, "connector: writes commit %d, at offset %d", n.produced, n.end)
		}
		step(&n)
	}
	if s.resends < w.bounds.Resends {
		for back := range s.produced {
			n := *s
			spend(&n.resends, w.bounds.Resends)
			n.produced = back
			if w.listen != nil {
				w.say(&n, "connector: was killed, and begins again behind commit %d", back)
			}
			step(&n)
		}
	}
}

func (w *Cache) tick(n *State) {
	for c := uint8(1); c <= n.flushed; c++ {
		n.ages[c] = min(n.ages[c]+1, youngTicks+1)
	}
	for _, m := range []*master{&n.redis, &n.saved} {
		m.cells[cellSide] = w.lab.ticked(m.cells[cellSide])
	}
	for i := range n.sessions {
		for j := range n.sessions[i].window[:n.sessions[i].sent] {
			p := &n.sessions[i].window[j]
			if p.does == set {
				p.until = max(p.until-1, -1)
			}
		}
	}
}

// threshold is the commit that whatever is cached must not be older than: what
// is settled and, unless a sweep is pending, what was applied and needs none.
func (w *Cache) threshold(s *State) uint8 {
	m := w.lab.mark(s.redis.cells[cellMark])
	settled := w.touched(w.reached(s, m.settled))
	if applied := w.touched(w.reached(s, m.lo)); !m.sweeping && applied > 0 && !w.later(applied) {
		return max(settled, applied)
	}
	return settled
}

// later: what commit c asks for is not done when it is applied.
func (w *Cache) later(c uint8) bool {
	return w.change(c) == Truncate || w.change(c) == Lookup || w.change(c) == FanOut || w.change(c) == Between
}

// settle notes what the last step has shown and promised.
func (w *Cache) settle(s *State) {
	if v := w.lab.version(s.redis.cells[cellData]); v >= 0 {
		s.shown = max(s.shown, uint8(v))
	}
	if s.unnoticed > 0 && w.bounds.Loader {
		// The service leaves no shield where it has applied what it loads. A Redis
		// that has lost that has none to stop what an older owner still sends.
		s.shown = 0
	}
	s.promised = max(s.promised, w.threshold(s))
}

// Broken implements explore.World.
func (w *Cache) Broken(s *State) string {
	if w.broken != "" {
		broken := w.broken
		w.broken = ""
		return broken
	}
	if s.herd > 0 {
		return "G4: two readers load at a time, and no change has ended the first one's lease"
	}
	m := w.lab.mark(s.redis.cells[cellMark])
	v := w.lab.version(s.redis.cells[cellData])
	if v < 0 {
		return ""
	}
	switch {
	case uint8(v) < w.touched(w.reached(s, m.settled)):
		return fmt.Sprintf("G1, G5: the cache holds v%d, and commit %d is settled: nothing will drop it", v, w.touched(w.reached(s, m.settled)))
	case uint8(v) < w.threshold(s):
		return fmt.Sprintf("G1: the cache holds v%d, and commit %d was applied: nothing will drop it", v, w.threshold(s))
	case uint8(v) < s.promised:
		return fmt.Sprintf("G1, G5: the cache holds v%d, and commit %d was settled before", v, s.promised)
	case uint8(v) < s.written && !(w.bounds.Evicts && w.bounds.Sets):
		return fmt.Sprintf("own writes: the cache holds v%d, and the writer of commit %d has dropped it", v, s.written)
	case !w.bounds.Evicts && uint8(v) < s.shown:
		return fmt.Sprintf("G2: a GET returns v%d, after one returned v%d", v, s.shown)
	}
	return ""
}
