package plan

import (
	"hash/maphash"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
)

// Limits of a batch. A batch is one script, and Redis serves nobody else while
// a script runs: a full one takes it well under a millisecond.
const (
	BatchKeysMax    = 256
	BatchBytesMax   = 256 << 10
	BatchChangesMax = 4096
)

// A Batch gathers the effects of consecutive changes, to be applied as one.
// Drops of the same key conflate. It is reused: Reset keeps its memory.
type Batch struct {
	// End is where the stream resumes once the batch is applied.
	End change.Position
	// Settled is the position up to which nothing will be outstanding then. It
	// and Note are for who writes the batch; planning leaves them alone.
	Settled change.Position
	// Note, if not nil, is what the watermark says beyond positions from then on.
	Note *guard.Note
	// XIDs are the transactions that must be visible before the batch may be
	// applied.
	XIDs []uint32
	// Changes is the number of row changes, Drops that of drops before they
	// conflated.
	Changes, Drops int
	// CommittedAt has, for each transaction that ends in the batch, the time of
	// its commit in microseconds since the Unix epoch.
	CommittedAt []int64
	// Sweeps lists each entry to be swept once.
	Sweeps []Sweep

	keys []byte // the keys, one behind the other
	ends []int  // ends[i] is where key i ends
	// index finds a key by its hash: open addressing, the number of a key + 1.
	index [4 * BatchKeysMax]uint16
	seed  maphash.Seed
}

// Sweep is the effect of a change whose keys are unknown: every key of the
// entry goes.
type Sweep struct {
	Entry  int // index into Planner.Entries
	Cause  Cause
	Reason string // for the log: what could not be known, and what mends it
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
)

func (c Cause) String() string {
	return [...]string{"truncated", "reshaped", "unknown"}[c]
}

// NewBatch returns an empty batch.
func NewBatch() *Batch { return &Batch{seed: maphash.MakeSeed()} }

// Reset empties the batch.
func (b *Batch) Reset() {
	b.End, b.Settled, b.Note = change.Position{}, change.Position{}, nil
	b.XIDs, b.CommittedAt, b.Sweeps = b.XIDs[:0], b.CommittedAt[:0], b.Sweeps[:0]
	b.Changes, b.Drops = 0, 0
	b.keys, b.ends = b.keys[:0], b.ends[:0]
	clear(b.index[:])
}

// Started reports whether the batch moves the stream at all.
func (b *Batch) Started() bool { return !b.End.IsZero() }

// Full reports whether the batch should be applied before it takes more.
func (b *Batch) Full() bool {
	return len(b.ends) >= BatchKeysMax || len(b.keys) >= BatchBytesMax || b.Changes >= BatchChangesMax || len(b.CommittedAt) >= BatchChangesMax
}

// Len returns the number of distinct keys to drop.
func (b *Batch) Len() int { return len(b.ends) }

// Key returns key i, which is valid until Reset.
func (b *Batch) Key(i int) []byte {
	start := 0
	if i > 0 {
		start = b.ends[i-1]
	}
	return b.keys[start:b.ends[i]]
}

// Drop adds a key.
func (b *Batch) Drop(key []byte) {
	b.begin()
	b.keys = append(b.keys, key...)
	b.end()
}

// Sweep adds a sweep, if the entry has none yet.
func (b *Batch) Sweep(entry int, cause Cause, reason string) {
	if !b.sweeps(entry) {
		b.Sweeps = append(b.Sweeps, Sweep{entry, cause, reason})
	}
}

// sweeps reports whether the batch sweeps the entry already. A reason is only
// put into words if it does not.
func (b *Batch) sweeps(entry int) bool {
	for i := range b.Sweeps {
		if b.Sweeps[i].Entry == entry {
			return true
		}
	}
	return false
}

// begin starts a key: what is appended to b.keys until end or abandon.
func (b *Batch) begin() { b.Drops++ }

func (b *Batch) abandon() {
	b.Drops--
	b.keys = b.keys[:b.used()]
}

// end closes the key, and forgets it again if the batch has it already.
func (b *Batch) end() {
	start := b.used()
	key := b.keys[start:]
	// The index holds four times BatchKeysMax, but one change may bring many
	// keys: beyond half full, keys are added without a look.
	if len(b.ends) >= len(b.index)/2 {
		b.ends = append(b.ends, len(b.keys))
		return
	}
	for at := maphash.Bytes(b.seed, key) % uint64(len(b.index)); ; at = (at + 1) % uint64(len(b.index)) {
		switch n := b.index[at]; {
		case n == 0:
			b.ends = append(b.ends, len(b.keys))
			b.index[at] = uint16(len(b.ends))
			return
		case string(b.Key(int(n)-1)) == string(key):
			b.keys = b.keys[:start]
			return
		}
	}
}

func (b *Batch) used() int {
	if len(b.ends) == 0 {
		return 0
	}
	return b.ends[len(b.ends)-1]
}

// moveTo notes where c stands.
func (b *Batch) moveTo(c *change.Change) {
	b.End = c.Position
	switch c.Op {
	case change.Idle:
		return
	case change.Commit:
		b.CommittedAt = append(b.CommittedAt, c.CommittedAt)
		return
	}
	b.Changes++
	if n := len(b.XIDs); n == 0 || b.XIDs[n-1] != c.XID {
		b.XIDs = append(b.XIDs, c.XID)
	}
}
