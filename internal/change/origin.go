package change

import (
	"errors"
	"fmt"
	"time"
)

// Origin identifies the server that a stream comes from, as far as it matters
// for what readers may have seen: a change of Timeline or of StartedAt means
// that commits which readers have loaded may never be delivered.
type Origin struct {
	System   uint64 // system identifier
	Database uint32 // oid
	Timeline uint32
	// StartedAt is backend_start of the checkpointer: it changes with every
	// restart of the server, a crash of one backend included.
	StartedAt time.Time
}

// String is the form that is kept beside the watermark and compared.
func (o Origin) String() string {
	return fmt.Sprintf("%d/%d/%d/%d", o.System, o.Database, o.Timeline, o.StartedAt.UnixMicro())
}

// A Refusal is something that only a person can mend: waiting will not help.
type Refusal struct {
	Problem string // what is wrong, naming the object
	Mend    string // the exact statement or setting that mends it
}

func (r *Refusal) Error() string {
	if r.Mend == "" {
		return r.Problem
	}
	return r.Problem + "\n  mend it with: " + r.Mend
}

// IsRefusal reports whether err is, or wraps, a Refusal.
func IsRefusal(err error) bool {
	_, ok := errors.AsType[*Refusal](err)
	return ok
}

// Attachment is what a source knows when it has taken its stream over.
type Attachment struct {
	// Stream names the stream for good: two deployments on one Redis never
	// share a watermark. It has no braces.
	Stream string
	Origin Origin
	// Confirmed is what the source will never send again. Next gives every
	// change behind it.
	Confirmed Position
	// Gap says why the source itself knows that changes are missing (the slot
	// is new, it was lost); empty if it knows of none.
	Gap string
}

// ErrOriginChanged says that the primary is not, or no longer, the server that
// the stream comes from, or that it restarted. The stream must be attached
// again: what lies between is a gap.
var ErrOriginChanged = errors.New("the database is not the server that the stream comes from")

// ErrUnpublished says that the source no longer sends every change of a table:
// somebody changed the publication, or made the table anew. Attaching again
// mends it or says what does.
var ErrUnpublished = errors.New("the publication does not send every change of a table")

// ErrInUse says that another instance holds the stream. There is nothing wrong:
// this one stands by.
var ErrInUse = errors.New("another instance owns the stream")
