// Package guard is the coherence protocol as Redis sees it: how keys, side keys
// and watermarks are named and written, and the scripts that change them. The
// service and the client share it, so that both obey the same rules.
//
// It knows no Redis driver and does no I/O: it gives names, arguments and
// scripts, and reads replies. docs/protocol.md says why each rule is needed.
package guard

import "time"

const (
	// Format is the number that a watermark and the scripts carry. A binary
	// refuses to write a watermark of a format that is newer than its own.
	Format = 1

	// Lease is how long a reader may take to load a value, unless it or its entry
	// says otherwise. Then the next reader may load as well.
	Lease = 3 * time.Second

	// Shield is how long a side key outlives its last use.
	Shield = 60 * time.Second

	// YoungMax is how long ago a change may have been committed to be SET, and
	// UntilMax how long after that was judged the SET may happen: together less
	// than Shield, so that the shield of a reader who has seen something newer
	// still stands.
	YoungMax = Shield / 2
	UntilMax = Shield / 4

	// TTL is how long a value stays in Redis, unless its entry says otherwise.
	TTL = 24 * time.Hour
)

// SpreadTTL shortens ttl by up to a tenth, by a hash of the key, so that keys
// that were written together do not expire together.
func SpreadTTL(key string, ttl time.Duration) time.Duration {
	// Divided before it is multiplied: the other way round a TTL of months
	// overflows.
	return ttl - ttl/10/Slots*time.Duration(Slot(key))
}
