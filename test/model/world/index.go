package world

import (
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"github.com/unstale/unstale/internal/guard"
)

// In this world the data key is a page: a product, with the name of its category. Which
// products are in category a is in a set, in the place where other worlds have names.
const (
	cellSet   = cellNames
	rowsMax   = 2 // commits of each of the two rows
	wholeMost = 100
)

var (
	setKey    = guard.IndexPrefix(0, stream, "products by category") + "a"
	setMember = string(guard.AppendMember(nil, []byte("1")))
)

// Changes of the product. All that the category has is renames.
const (
	// Told: the product moves from a to another category, or back, and the log tells
	// which product that was.
	Told = 'm'
	// Untold: the same, and the log does not tell, so the entry is swept.
	Untold = 'u'
	// Both: the log tells the move, and the same transaction renames a.
	Both = 'b'
)

// IndexBounds say what may happen in an Index.
type IndexBounds struct {
	Name    string
	Product string // its moves, in their order; it begins in a
	Away    bool   // it begins elsewhere
	Renames uint8  // of a, by themselves
	Readers int
	// Builds: sets are begun at any time. Somebody has asked for them before.
	Builds bool
	Built  bool // one is complete when everything begins
	Evicts bool // sets may be evicted
	Large  bool // a set is too large to be given at once
	Adds   bool // what was read is added in two parts, the page in the first
	Window uint8
	Copies bool // what is on its way may arrive, and its reply be lost
	// How often what befalls: see Bounds.
	Takeovers, Flushes, Failovers, Recreations uint8
}

// indexMaster is one Redis.
type indexMaster struct {
	cells [cellsMax]Cell
	run   uint8
	place uint8 // where in its set the member is, if it is there: SSCAN comes by 1 and then by 2
}

// What a batch does to the set.
const (
	noEdit = iota
	removes
	adds
)

type indexPacket struct {
	lo, settled, does, edit, note, mark uint8
}

// How far a lookup is, of the commit that is sent next.
const (
	unasked = iota
	toDatabase
	scanning
	answered
)

// How far the building of a set is.
const (
	noBuilding = iota
	readFirst  // without the rule
	begun
	wasRead
	addsMore
	gathered
)

type building struct {
	phase, token uint8
	finds        uint8 // 1: the database has shown the member
	from         uint8 // commits in the log behind that
}

type indexSession struct {
	phase, owner, epoch, n uint8
	lo, next, limit, held  uint8 // see session
	looks                  outlooks
	// snap are the commits that the last snapshot of the gate has shown, if it has shown
	// the next one: a bit each. shown is where the log ended then.
	snap, shown uint8
	asks        uint8
	finds, seen uint8 // what was answered, and the place in the log that the stream must pass
	// Of a scan: its token, the place that comes next, and on which Redis it began.
	token, left, run uint8
	edits            uint8 // without the rule: what is still to be done behind a batch
	sent             uint8
	window           [windowMax]indexPacket
	build            building
}

type indexSweep struct {
	phase, left uint8
	run         uint8
	before      uint8 // settled until it has ended
	again       uint8 // another was asked for: the commit before it, plus one
}

// IndexState is a state of an Index.
type IndexState struct {
	redis, saved indexMaster
	order        uint8 // of the log: a bit each, 1 a commit of the product
	both         uint8 // those that are of the category as well
	moved, named uint8 // commits of the product and of the category in the log
	// Of these, how many are visible. Two rows: neither waits for the other.
	seesMoved, seesNamed uint8
	readers              [readersMax + 1]reader
	sessions             [2]indexSession
	sweep                indexSweep
	confirmed            uint8
	hasSaved             uint8

	shown    uint8 // the newest page that any GET has returned, plus one, if an older one may come
	promised uint8 // up to here settled was seen, if it says less now

	takeovers, flushes, failovers, recreations uint8
	_                                          uint8 // evens the size
}

// Index is the world of one page, of two rows, on one master, with the set that tells
// the page to who renames the category.
type Index struct {
	bounds   IndexBounds
	ablation Ablation
	lab      *lab
	listen   func(string)
	broken   string
	patched  bool // the building of a set is not refused where it was
}

// NewIndex returns the world; the zero Ablation leaves every rule in place.
func NewIndex(b IndexBounds, a Ablation) *Index {
	w := &Index{bounds: b, ablation: a, lab: newLab([]string{dataKey, sideKey, markKey, setKey}, a.Patches...)}
	for _, p := range a.Patches {
		building := p.Script == guard.Build.Name || p.Script == guard.Gather.Name || p.Script == guard.Complete.Name
		w.patched = w.patched || building && (strings.Contains(p.Old, "ARGV[1]") || strings.Contains(p.Old, "SISMEMBER"))
	}
	return w
}

// Listen implements explore.World.
func (w *Index) Listen(say func(string)) { w.listen = say }

func (w *Index) say(next *IndexState, format string, args ...any) {
	w.listen(fmt.Sprintf("%-76s | %s, %s", fmt.Sprintf(format, args...), w.shows(next), w.tells(next)))
}

// shows is what a GET returns.
func (w *Index) shows(s *IndexState) string {
	v := w.lab.version(s.redis.cells[cellData])
	if v < 0 {
		return "-"
	}
	return w.text(uint8(v))
}

// tells is what the set has.
func (w *Index) tells(s *IndexState) string {
	set := s.redis.cells[cellSet]
	if set == 0 {
		return "no set"
	}
	text := "{}"
	if w.lab.has(set, setMember) {
		text = "{1}"
	}
	if !w.lab.has(set, guard.Completed) {
		text += " incomplete"
	}
	return text
}

func (w *Index) off(r Rule) bool { return w.ablation.Without&r != 0 }

// flushed is how many commits are in the log.
func (s *IndexState) flushed() uint8 {
	return s.moved + s.named - uint8(bits.OnesCount8(s.both))
}

// moves is how many of the first k commits are of the product, and names of the category.
func (s *IndexState) moves(k uint8) uint8 {
	return uint8(bits.OnesCount8(s.order & (1<<k - 1)))
}

func (s *IndexState) names(k uint8) uint8 {
	return uint8(bits.OnesCount8((^s.order | s.both) & (1<<k - 1)))
}

// isMove: commit k is of the product. isName: it is of the category.
func (s *IndexState) isMove(k uint8) bool { return s.order>>(k-1)&1 == 1 }
func (s *IndexState) isName(k uint8) bool { return (^s.order|s.both)>>(k-1)&1 == 1 }

// sees reports whether a snapshot of the primary shows commit k.
func (s *IndexState) sees(k uint8) bool {
	if s.isMove(k) {
		return s.moves(k) <= s.seesMoved
	}
	return s.names(k) <= s.seesNamed
}

// inside: the product is in a behind its first moves.
func (w *Index) inside(moves uint8) bool { return w.bounds.Away == (moves%2 == 1) }

// page is the version of the page that a snapshot shows. Elsewhere no name changes.
func (w *Index) page(s *IndexState) uint8 {
	if !w.inside(s.seesMoved) {
		return s.seesMoved * (rowsMax + 1)
	}
	return s.seesMoved*(rowsMax+1) + s.seesNamed
}

func (w *Index) text(version uint8) string {
	moves, names := version/(rowsMax+1), version%(rowsMax+1)
	if !w.inside(moves) {
		return fmt.Sprintf("p%d, b", moves)
	}
	return fmt.Sprintf("p%d, a%d", moves, names)
}

// lacks: a page does not show what the first k commits have done to it.
func (w *Index) lacks(s *IndexState, version, k uint8) bool {
	moves, names := version/(rowsMax+1), version%(rowsMax+1)
	return moves < s.moves(k) || w.inside(moves) && names < s.names(k)
}

// older: who has seen a page with version than must not see this one.
func (w *Index) older(version, than uint8) bool {
	moves, before := version/(rowsMax+1), than/(rowsMax+1)
	return moves < before || w.inside(moves) && w.inside(before) && version%(rowsMax+1) < than%(rowsMax+1)
}

// Initial implements explore.World: the stream was taken over, and a reader has cached
// the page.
func (w *Index) Initial() IndexState {
	var s IndexState
	s.redis.run = 1
	s.sessions[0] = indexSession{phase: owning, owner: 1, limit: 255}
	w.own(&s, &s.sessions[0])
	s.sweep = indexSweep{}
	s.sessions[0].window[0] = indexPacket{note: done}
	w.arrive(&s, &s.sessions[0], 0)
	w.confirm(&s, &s.sessions[0])
	s.redis.cells[cellData] = w.lab.value(false, 0)
	if w.bounds.Built {
		at := &s.sessions[0]
		w.begin(&s, at)
		w.normalise(&s)
		w.read(&s, at)
		for at.build.phase != gathered {
			w.gather(&s, at)
			w.normalise(&s)
		}
		if w.complete(&s, at) != guard.OK {
			panic("the first set is not complete")
		}
		*at = indexSession{phase: running, owner: at.owner, epoch: at.epoch, n: at.n, next: 1, limit: 255}
		s.redis.place = 2
	}
	w.normalise(&s)
	return s
}

// Next implements explore.World.
func (w *Index) Next(s *IndexState, each func(*IndexState)) {
	step := func(next *IndexState) {
		w.normalise(next)
		each(next)
	}
	w.database(s, step)
	for i := range w.bounds.Readers {
		w.reader(s, i, step)
	}
	for i := range s.sessions {
		w.session(s, i, step)
	}
	w.sweeper(s, step)
	w.faults(s, step)
}

// database: a row is locked until its commit is visible, so none of that row is written
// before. The two become visible in any order.
func (w *Index) database(s *IndexState, step func(*IndexState)) {
	move := byte(0)
	if int(s.moved) < len(w.bounds.Product) && s.moved == s.seesMoved {
		move = w.bounds.Product[s.moved]
	}
	if move != 0 && (move != Both || s.named == s.seesNamed) {
		n := *s
		n.order |= 1 << s.flushed()
		n.moved++
		if move == Both {
			n.both |= 1 << s.flushed()
			n.named++
		}
		if w.listen != nil {
			where := "out of a"
			if w.inside(n.moved) {
				where = "into a"
			}
			more := map[byte]string{Untold: ", and the log does not say which it was", Both: ", and renames a"}[move]
			w.say(&n, "database: commit %d moves the product %s%s; flushed, not visible", n.flushed(), where, more)
		}
		step(&n)
	}
	if s.named < w.bounds.Renames+uint8(bits.OnesCount8(s.both)) && s.named == s.seesNamed {
		n := *s
		n.named++
		if w.listen != nil {
			w.say(&n, "database: commit %d renames a; flushed, not visible", n.flushed())
		}
		step(&n)
	}
	both := s.flushed() > 0 && s.seesMoved < s.moved && w.bounds.Product[s.seesMoved] == Both
	if s.seesMoved < s.moved {
		n := *s
		n.seesMoved++
		if both {
			n.seesNamed++
		}
		if w.listen != nil {
			w.say(&n, "database: the move is visible")
		}
		step(&n)
	}
	if s.seesNamed < s.named && !both {
		n := *s
		n.seesNamed++
		if w.listen != nil {
			w.say(&n, "database: the new name is visible")
		}
		step(&n)
	}
}

func (w *Index) faults(s *IndexState, step func(*IndexState)) {
	lose := func(cell int, what string) {
		if s.redis.cells[cell] == 0 {
			return
		}
		n := *s
		n.redis.cells[cell] = 0
		if w.listen != nil {
			w.say(&n, "redis: %s", what)
		}
		step(&n)
	}
	lose(cellData, "the page expires, or is evicted")
	if w.bounds.Evicts {
		lose(cellSet, "the set is evicted")
	}
	if s.flushes < w.bounds.Flushes {
		n := *s
		spend(&n.flushes, w.bounds.Flushes)
		n.redis.cells = [cellsMax]Cell{}
		if w.listen != nil {
			w.say(&n, "redis: FLUSHALL")
		}
		step(&n)
		if s.redis.cells[cellMark] != 0 {
			n := *s
			spend(&n.flushes, w.bounds.Flushes)
			n.redis.cells[cellMark] = 0
			if w.listen != nil {
				w.say(&n, "redis: the watermark is evicted")
			}
			step(&n)
		}
	}
	if s.failovers < w.bounds.Failovers {
		w.failover(s, step)
	}
	if s.recreations < w.bounds.Recreations && s.seesMoved == s.moved && s.seesNamed == s.named && s.confirmed < s.flushed() {
		n := *s
		spend(&n.recreations, w.bounds.Recreations)
		n.confirmed = n.flushed()
		w.lose(&n)
		if w.listen != nil {
			w.say(&n, "database: the slot is dropped and made anew, behind commit %d", n.flushed())
		}
		step(&n)
	}
}

func (w *Index) failover(s *IndexState, step func(*IndexState)) {
	if s.hasSaved == 0 {
		n := *s
		n.saved, n.hasSaved = n.redis, 1
		if w.listen != nil {
			w.say(&n, "redis: what follows does not reach the replica")
		}
		step(&n)
		return
	}
	n := *s
	spend(&n.failovers, w.bounds.Failovers)
	run := n.redis.run + 1
	n.redis, n.saved, n.hasSaved = n.saved, indexMaster{}, 0
	n.redis.run = run
	// What was lost was seen, and it is said that it may be.
	n.shown, n.promised = 0, 0
	w.placed(&n, func(n *IndexState, where string) {
		if w.listen != nil {
			w.say(n, "redis: the replica takes over; what did not reach it is lost%s", where)
		}
		step(n)
	})
}

// placed gives step the set with the member in the first place, and in the second.
func (w *Index) placed(n *IndexState, step func(n *IndexState, where string)) {
	if !w.bounds.Large {
		step(n, "")
		return
	}
	for place := uint8(1); place <= 2; place++ {
		to := *n
		to.redis.place = place
		step(&to, fmt.Sprintf("; a member is in place %d", place))
	}
}

// normalise makes one of states between which nothing that is still to come can tell.
func (w *Index) normalise(s *IndexState) {
	for i := range w.bounds.Readers {
		// Its token is nowhere, so its fill will be refused, whatever it loads.
		if s.readers[i].phase != idle && w.lab.holder(s.redis.cells[cellSide]) != int8(i) && w.lab.holder(s.saved.cells[cellSide]) != int8(i) {
			s.readers[i] = reader{}
		}
	}
	for i := range s.sessions {
		at := &s.sessions[i]
		token := guard.BuildMember(buildToken(at.build.token))
		if at.build.phase > readFirst && !w.patched && !w.lab.has(s.redis.cells[cellSet], token) && !w.lab.has(s.saved.cells[cellSet], token) {
			at.build = building{}
		}
		if at.snap>>at.next&1 == 0 {
			at.snap, at.shown = 0, 0
		}
	}
	// No watermark knows it, so all that it sends will be refused, but for what it has read
	// for a set that it has begun.
	if z := &s.sessions[1]; z.phase == running && w.lab.mark(s.redis.cells[cellMark]).owner != z.owner && w.lab.mark(s.saved.cells[cellMark]).owner != z.owner {
		kept := indexSession{}
		if w.patched || z.build.phase > readFirst && z.build.phase < gathered {
			kept = indexSession{phase: running, owner: z.owner, next: 1, build: z.build}
		}
		*z = kept
	}
	w.rename(s)
	if s.promised <= w.lab.mark(s.redis.cells[cellMark]).settled {
		s.promised = 0
	}
	if s.shown > 0 {
		may := s.hasSaved != 0 || s.redis.cells[cellData] != 0
		for i := range w.bounds.Readers {
			may = may || s.readers[i].phase == loaded && w.older(s.readers[i].value, s.shown-1)
		}
		if !may {
			s.shown = 0
		}
	}
}

// rename gives owners, epochs, runs and tokens the smallest numbers that tell them
// apart, so that it does not matter how many there were.
func (w *Index) rename(s *IndexState) {
	first, second := &s.sessions[0], &s.sessions[1]
	w.lab.rename([2]*Cell{&s.redis.cells[cellMark], &s.saved.cells[cellMark]}, [2]*uint8{&first.owner, &second.owner}, [2]*uint8{&first.epoch, &second.epoch})
	since := func(run *uint8) {
		if *run != 0 && *run != s.redis.run {
			*run = another
		} else if *run != 0 {
			*run = 1
		}
	}
	tokens := retelling{}
	for i := range tokens.builds {
		tokens.builds[i] = dead
	}
	for i := range s.sessions {
		at := &s.sessions[i]
		if at.build.token != 0 {
			tokens.builds[at.build.token] = uint8(i + 1)
			at.build.token = uint8(i + 1)
		}
		if at.token != 0 {
			tokens.reads[at.token] = uint8(i + 1)
			at.token = uint8(i + 1)
		}
		since(&at.run)
	}
	since(&s.sweep.run)
	s.redis.run, s.saved.run = 1, 0
	for _, m := range []*indexMaster{&s.redis, &s.saved} {
		m.cells[cellSet] = w.lab.retold(m.cells[cellSet], tokens)
		if m.cells[cellSet] == 0 || !w.bounds.Large {
			m.place = 0
		}
	}
}

// A retelling gives the tokens in a set other numbers. Reads with number 0 go.
type retelling struct {
	cell   Cell
	builds [fresh + 1]uint8
	reads  [fresh + 1]uint8
}

func buildToken(number uint8) string { return strconv.Itoa(int(number)) }

func (l *lab) retold(c Cell, as retelling) Cell {
	if c == 0 {
		return 0
	}
	as.cell = c
	to, ok := l.retells[as]
	if ok {
		return to
	}
	e := l.entries[c]
	var members []string
	for _, member := range e.Members {
		kind, token, found := strings.Cut(member, ":")
		if !found {
			members = append(members, member)
			continue
		}
		switch n := number(token); {
		case guard.BuildMember(token) == member:
			member = guard.BuildMember(buildToken(as.builds[n]))
		case as.reads[n] == 0:
			continue
		default:
			member = kind + ":" + strconv.Itoa(int(as.reads[n]))
		}
		members = append(members, member)
	}
	slices.Sort(members)
	e.Members = slices.Compact(members)
	to = l.cell(e)
	l.retells[as] = to
	return to
}

// settle notes what the last step has shown and promised.
func (w *Index) settle(s *IndexState) {
	if v := w.lab.version(s.redis.cells[cellData]); v >= 0 && (s.shown == 0 || !w.older(uint8(v), s.shown-1)) {
		s.shown = uint8(v) + 1
	}
	s.promised = max(s.promised, w.lab.mark(s.redis.cells[cellMark]).settled)
}

// Broken implements explore.World.
func (w *Index) Broken(s *IndexState) string {
	if w.broken != "" {
		broken := w.broken
		w.broken = ""
		return broken
	}
	found := w.lab.version(s.redis.cells[cellData])
	if found < 0 {
		return ""
	}
	v, m := uint8(found), w.lab.mark(s.redis.cells[cellMark])
	switch {
	case w.lacks(s, v, m.settled):
		return fmt.Sprintf("G1, G5: the cache holds %s, and commit %d is settled: nothing will drop it", w.text(v), m.settled)
	case !m.sweeping && v/(rowsMax+1) < s.moves(m.lo):
		return fmt.Sprintf("G1: the cache holds %s, and commit %d was applied: nothing will drop it", w.text(v), m.lo)
	case w.lacks(s, v, s.promised):
		return fmt.Sprintf("G1, G5: the cache holds %s, and commit %d was settled before", w.text(v), s.promised)
	case s.shown > 0 && w.older(v, s.shown-1):
		return fmt.Sprintf("G2: a GET returns %s, after one returned %s", w.text(v), w.text(s.shown-1))
	}
	return ""
}

// String says what may happen.
func (b IndexBounds) String() string {
	var parts []string
	add := func(when bool, format string, args ...any) {
		if when {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	where := "a product of a category"
	if b.Away {
		where = "a product of another category"
	}
	add(true, "%s", where)
	add(len(b.Product) > 0, "%s", count(len(b.Product), "move"))
	add(strings.ContainsRune(b.Product, Untold), "of which the log does not tell all")
	add(strings.ContainsRune(b.Product, Both), "one that renames the category")
	add(true, "%s of the category", count(int(b.Renames), "rename"))
	add(true, "%s", count(b.Readers, "reader"))
	add(b.Built, "a set that is complete")
	add(b.Builds, "sets that are built")
	add(b.Large, "large ones")
	add(b.Adds, "in two parts")
	add(b.Evicts, "evicted ones")
	add(true, "%s on the way at most", count(int(b.Window), "batch"))
	add(b.Copies, "lost replies")
	add(b.Takeovers > 0, "%s", count(int(b.Takeovers), "take-over"))
	add(b.Flushes > 0, "%s", count(int(b.Flushes), "FLUSHALL"))
	add(b.Failovers > 0, "%s with loss", count(int(b.Failovers), "failover"))
	add(b.Recreations > 0, "a slot made anew")
	return strings.Join(parts, ", ")
}
