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

	// Lease is how long a reader may take to load a value, unless its entry
	// says otherwise. A load that takes longer is not cached.
	Lease = 3 * time.Second

	// Shield is how long a side key outlives its last use.
	Shield = 60 * time.Second
)
