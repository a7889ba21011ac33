package plan

import (
	"slices"
	"time"
	"unicode/utf8"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
)

// Limits of a batch. A batch is one script, and Redis serves nobody else while
// a script runs: a full one takes it well under a millisecond.
const (
	BatchKeysMax    = 256
	BatchBytesMax   = 256 << 10
	BatchChangesMax = 4096
	// OpenFactor times as large a batch may become for the end of a transaction
	// that SETs: what is cut in two cannot be SET.
	OpenFactor = 4
)

// A Batch gathers the effects of consecutive changes, to be applied as one. Of
// several effects on one key the last one counts. It is reused: Reset keeps its
// memory.
type Batch struct {
	// Stream is where the changes come from: all from one.
	Stream int
	// End is where the stream resumes once the batch is applied.
	End change.Position
	// Settled is the position up to which nothing will be outstanding then. It,
	// Note and Until are for who writes the batch; planning leaves them alone.
	Settled change.Position
	// Note, if not nil, is what the watermark says beyond positions from then on.
	Note *guard.Note
	// Seen is the newest change that came over a topic.
	Seen change.Sequence
	// Until is when, by our clock, it is too late to SET anything.
	Until time.Time
	// Pressed: a full Redis has refused the values.
	Pressed bool
	// Beside: it holds keys that lookups have found, and moves nothing.
	Beside bool
	// LookedUp is a position of the log behind all that the lookups of the batch have
	// seen; zero: it has asked none.
	LookedUp uint64
	// XIDs are the transactions that must be visible before the batch may be
	// applied.
	XIDs []uint32
	// Changes is the number of row changes, Effects that of effects on keys
	// before they conflated.
	Changes, Effects int
	// CommittedAt has, for each transaction that ends in the batch, the time of
	// its commit in microseconds since the Unix epoch.
	CommittedAt []int64
	// Sweeps lists each entry to be swept once, and each part of one. SweptTo is the
	// greatest LSN of the changes that ask for that.
	Sweeps  []Sweep
	SweptTo uint64
	// Incomplete lists, once each, why rows could not be SET.
	Incomplete []Incomplete
	// Questions are to be answered by lookups, once the batch is visible: see
	// Planner.Found.
	Questions []Question
	// asked finds a question, and texts has the arguments of all.
	asked map[asked]int
	texts []Text
	// textBytes is what those have.
	textBytes int

	keys   distinct
	values []byte // the values of the sets, and of those that later ones replaced
	items  []item // one for each key
	sets   int    // items that SET
	// restores counts those that restore, also such that others have replaced.
	restores int
	// doubted are the items that were to SET and now forget.
	doubted int
	// oldest is the least LSN of the changes that SET, committed the least time.
	oldest    uint64
	committed int64
	// open is a transaction that has not ended in the batch, zero if there is
	// none; openSets: it SETs.
	open     uint32
	openSets bool

	// edited are the members of indexes, each behind its set, and adds what becomes of
	// each: else it is taken out.
	edited distinct
	adds   []bool
}

// item is the effect on one key.
type item struct {
	valueStart, valueEnd int // in values
	entry                int
	lsn                  uint64 // of the change
	committedAt          int64  // of its transaction, us since the Unix epoch
	xid                  uint32
	effect               Effect
	loads                bool
}

// Effect is what happens to a key.
type Effect uint8

const (
	// Drop unlinks the key and its side key.
	Drop Effect = iota
	// Forget unlinks the key and ends a lease; the shield that a reader has left
	// stays.
	Forget
	// Reload does that too, and asks whether the key was cached: what was, the
	// service loads again. A SetCached that may not set becomes one.
	Reload
	// Compare forgets a key that holds another value than the row that was read.
	Compare
	// Restore does that too, and writes the value where there is neither key nor
	// side key.
	Restore
	// Set writes a value, if it is newer than the shield and not too late.
	Set
	// SetCached does so only if the key is there.
	SetCached
)

func (e Effect) sets() bool { return e >= Set }

// An Incomplete says why changes of an entry could not SET what they changed.
type Incomplete struct {
	Entry  int
	Reason string
}

// Sweep is the effect of a change whose keys are unknown: every key of the
// entry goes, or of a part of it.
type Sweep struct {
	Entry  int // index into Planner.Entries
	Cause  Cause
	Reason string // for the log: what could not be known, and what mends it
	// Letters are those of the key's values as the log describes the table; empty:
	// any.
	Letters string
	Part    string // see guard.Sweep; empty: every key
}

// Keys are all keys of a template, or of a part of it, to be swept.
type Keys struct {
	*guard.Template
	Part *guard.Template // see guard.Sweep; nil: all
	// Shielded: the shields that readers have left stay, since changes SET these
	// keys.
	Shielded bool
	// Draft is what the names of the template have while they are made complete;
	// empty: they are not.
	Draft string
	// Indexes are those that know keys of the template, of Planner.Indexes: their sets go
	// too.
	Indexes []int
}

// Matches reports whether key could be one of them.
func (k *Keys) Matches(key string) bool {
	return (k.Part == nil || k.Part.Matches(key)) && k.Template.Matches(key)
}

// Cause of a sweep.
type Cause uint8

const (
	// Truncated: the table was truncated.
	Truncated Cause = iota
	// Reshaped: the table's columns changed.
	Reshaped
	// Unknown: a change that could not be applied, since its keys are unknown.
	Unknown
	// Restarted: the source has read everything anew.
	Restarted
	// Derived: the plan of the query says that every key is concerned.
	Derived
)

func (c Cause) String() string {
	return [...]string{"truncated", "reshaped", "unknown", "restarted", "derived"}[c]
}

// NewBatch returns an empty batch.
func NewBatch() *Batch {
	return &Batch{keys: newDistinct(BatchKeysMax)}
}

// Reset empties the batch.
func (b *Batch) Reset() {
	b.Seen = change.Sequence{}
	b.Stream, b.End, b.Settled, b.Note, b.Until, b.Pressed, b.LookedUp = 0, change.Position{}, change.Position{}, nil, time.Time{}, false, 0
	b.XIDs, b.CommittedAt, b.Sweeps, b.Incomplete, b.Questions = b.XIDs[:0], b.CommittedAt[:0], b.Sweeps[:0], b.Incomplete[:0], b.Questions[:0]
	b.Changes, b.Effects, b.SweptTo = 0, 0, 0
	b.items, b.sets, b.oldest = b.items[:0], 0, 0
	b.doubted, b.restores, b.open, b.openSets = 0, 0, 0, false
	if b.values = b.values[:0]; cap(b.values) > 2*BatchBytesMax {
		b.values = nil // one long row must not hold its memory for good
	}
	b.keys.reset()
	b.edited.reset()
	b.adds = b.adds[:0]
	clear(b.asked)
	clear(b.texts)
	b.texts, b.textBytes = b.texts[:0], 0
}

// Started reports whether the batch moves the stream at all.
func (b *Batch) Started() bool { return !b.End.IsZero() }

// Full reports whether the batch should be applied before it takes more.
func (b *Batch) Full() bool {
	times := 1
	if b.openSets {
		times = OpenFactor
	}
	return len(b.items)+len(b.Questions)+len(b.adds) >= times*BatchKeysMax || b.Bytes() >= times*BatchBytesMax || b.Changes >= times*BatchChangesMax || len(b.CommittedAt) >= BatchChangesMax
}

// Bytes is what the batch holds of keys, values, questions and members.
func (b *Batch) Bytes() int {
	return len(b.keys.text) + len(b.values) + b.textBytes + len(b.edited.text)
}

// Len returns the number of distinct keys.
func (b *Batch) Len() int { return len(b.items) }

// Sets returns how many keys are to be SET.
func (b *Batch) Sets() int { return b.sets }

// Doubted returns how many keys were to be SET and are not.
func (b *Batch) Doubted() int { return b.doubted }

// Oldest returns the least LSN of the changes that are to be SET.
func (b *Batch) Oldest() uint64 { return b.oldest }

// OldestCommit returns when, by the clock of the database, the first of those was
// committed, in microseconds since the Unix epoch.
func (b *Batch) OldestCommit() int64 { return b.committed }

// Key returns key i, which is valid until Reset.
func (b *Batch) Key(i int) []byte { return b.keys.at(i) }

// Effect returns what happens to key i.
func (b *Batch) Effect(i int) Effect { return b.items[i].effect }

// Entry returns the entry of key i, as an index into Planner.Entries.
func (b *Batch) Entry(i int) int { return b.items[i].entry }

// Value returns what key i is SET to, as its entry's format has it, and the LSN
// of the change that did so (change.Change.LSN).
func (b *Batch) Value(i int) (value []byte, lsn uint64) {
	it := &b.items[i]
	return b.values[it.valueStart:it.valueEnd], it.lsn
}

// Loads reports whether the service is to load key i behind the batch. Of one to
// Reload that is known when the batch is written: see Cached.
func (b *Batch) Loads(i int) bool { return b.items[i].loads && b.items[i].effect < Reload }

// Open reports whether the batch SETs for a transaction whose end it does not
// have.
func (b *Batch) Open() bool { return b.openSets }

// Close makes drops of what an open transaction SETs: it may write the row
// again, and what it had written first was never committed. The batch in which
// it ends has, of each of its keys, the last state.
func (b *Batch) Close() {
	if !b.openSets {
		return
	}
	for i := range b.items {
		if b.items[i].xid == b.open {
			b.Refuse(i)
		}
	}
	b.openSets = false
}

// Doubt makes every set a drop: doubt means delete.
func (b *Batch) Doubt() {
	for i := range b.items {
		b.Refuse(i)
	}
}

// Press makes the batch one that a full Redis takes: it writes no value, and unlinks
// the sets of indexes that it was to add to.
func (b *Batch) Press() {
	b.Pressed = true
	b.Disown()
}

// Disown lets the batch write no value at all, not even the rows of a snapshot.
func (b *Batch) Disown() {
	b.Doubt()
	for i := range b.items {
		if b.items[i].effect == Restore {
			b.items[i].effect = Compare
		}
	}
	b.restores = 0
}

// Writes reports whether the batch may write a value, or members of indexes.
func (b *Batch) Writes() bool {
	return b.sets > 0 || b.restores > 0 || !b.Pressed && slices.Contains(b.adds, true)
}

// Refuse makes the set of key i a drop, or notes that Redis did.
func (b *Batch) Refuse(i int) {
	it := &b.items[i]
	if !it.effect.sets() {
		return
	}
	if it.effect == SetCached && it.loads {
		it.effect = Reload
	} else {
		it.effect = Forget
	}
	b.sets--
	b.doubted++
}

// Cached notes that Redis had key i, which it was to set or to reload, and has
// dropped it.
func (b *Batch) Cached(i int) {
	b.Refuse(i)
	if b.items[i].effect == Reload {
		b.items[i].effect = Forget
	}
}

// Sweep adds a sweep, if the entry has none yet; one that the plan has not asked for is
// another one: it may concern keys that have no name. What its keys are made of is only
// known if all sweeps of the batch agree.
func (b *Batch) Sweep(entry int, cause Cause, reason, letters string) {
	for i := range b.Sweeps {
		if s := &b.Sweeps[i]; s.Entry == entry && s.Part == "" {
			if s.Letters != letters {
				s.Letters = ""
			}
			if s.Cause == Derived {
				s.Cause, s.Reason = cause, reason
			}
			return
		}
	}
	b.Sweeps = append(b.Sweeps, Sweep{Entry: entry, Cause: cause, Reason: reason, Letters: letters})
}

// sweepPart adds a sweep of a part of the entry, unless the batch has it, or has so many
// of them that all keys had better go.
func (b *Batch) sweepPart(entry int, part []byte, reason string) {
	parts := 0
	for i := range b.Sweeps {
		if s := &b.Sweeps[i]; s.Entry == entry {
			if s.Part == "" || s.Part == string(part) {
				return
			}
			parts++
		}
	}
	if parts == guard.PartsMax || len(part) > guard.PartBytesMax || !utf8.Valid(part) {
		b.Sweep(entry, Derived, reason, "")
		return
	}
	b.Sweeps = append(b.Sweeps, Sweep{Entry: entry, Cause: Derived, Reason: reason, Part: string(part)})
}

// sweeps reports whether the batch sweeps all of the entry already, and not only because
// the plan says so. A reason is only put into words if it does not.
func (b *Batch) sweeps(entry int) bool {
	for i := range b.Sweeps {
		if s := &b.Sweeps[i]; s.Entry == entry && s.Part == "" && s.Cause != Derived {
			return true
		}
	}
	return false
}

func (b *Batch) incomplete(entry int, reason string) {
	b.doubted++
	for i := range b.Incomplete {
		if b.Incomplete[i] == (Incomplete{entry, reason}) {
			return
		}
	}
	b.Incomplete = append(b.Incomplete, Incomplete{entry, reason})
}

// Add adds the effect on one key. value and lsn, the change's, are for those that
// SET.
func (b *Batch) Add(key []byte, effect Effect, entry int, value []byte, lsn uint64) {
	b.begin()
	b.keys.text = append(b.keys.text, key...)
	it := item{effect: effect, entry: entry, lsn: lsn, valueStart: len(b.values)}
	b.values = append(b.values, value...)
	b.end(it)
}

// begin starts a key: what is appended to b.keys.text until end or abandon.
func (b *Batch) begin() { b.Effects++ }

func (b *Batch) abandon() {
	b.Effects--
	b.keys.abandon()
}

// end closes the key with its effect, which replaces that of an earlier change
// to the same key. The value is what stands behind valueStart in b.values.
func (b *Batch) end(it item) {
	it.valueEnd = len(b.values)
	if it.effect == Restore {
		b.restores++
	}
	if it.effect.sets() {
		if b.sets == 0 || it.lsn < b.oldest {
			b.oldest = it.lsn
		}
		if b.sets == 0 || it.committedAt < b.committed {
			b.committed = it.committedAt
		}
		b.sets++
		b.openSets = b.openSets || it.xid == b.open && b.open != 0
	}
	i, found := b.keys.end()
	if !found {
		b.items = append(b.items, it)
		return
	}
	if b.items[i].effect.sets() {
		b.sets--
	}
	b.items[i] = it
}

// moveTo notes where c stands.
func (b *Batch) moveTo(c *change.Change) {
	b.Stream, b.End = c.Stream, c.Position
	switch c.Op {
	case change.Idle:
		b.open, b.openSets = 0, false
		return
	case change.Commit:
		b.open, b.openSets = 0, false
		b.CommittedAt = append(b.CommittedAt, c.CommittedAt)
		return
	}
	b.open = c.XID
	b.Changes++
	if n := len(b.XIDs); c.XID != 0 && (n == 0 || b.XIDs[n-1] != c.XID) {
		b.XIDs = append(b.XIDs, c.XID)
	}
}
