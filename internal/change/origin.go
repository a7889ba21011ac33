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

// Attachment is what a source knows when it has taken its streams over.
type Attachment struct {
	Origin Origin
	// Streams are what is taken over: one replication slot, or each partition of
	// the topics that this instance was given.
	Streams []Stream
	// Reassigned is closed by the source when the streams are others: from then on Next
	// returns ErrReassigned. Nil: they stay as they are.
	Reassigned <-chan struct{}
}

// A Stream is consumed in order, and has a watermark of its own.
type Stream struct {
	// Name names the stream for good: two deployments on one Redis never share a
	// watermark. It has no braces.
	Name string
	// Title is what people call it; empty: Name.
	Title string
	// Confirmed is what the source will never send again. It can send every
	// change behind it.
	Confirmed Position
	// Begin is where the stream goes on if the sink does not know how far it is;
	// zero: at Confirmed.
	Begin Position
	// Gap says why the source itself knows that changes are missing (the slot
	// is new, it was lost); empty if it knows of none.
	Gap string
	// End is where the stream ended when it was attached; zero where only the log
	// of the database tells.
	End Position
	// Rewound: somebody has set the stream back to Begin. What comes from there on
	// is to be applied again, whatever the sink holds.
	Rewound bool
}

// ErrOriginChanged says that the primary is not, or no longer, the server that
// the stream comes from, or that it restarted. The stream must be attached
// again: what lies between is a gap.
var ErrOriginChanged = errors.New("the database is not the server that the stream comes from")

// ErrUnpublished says that the source no longer sends every change of a table:
// somebody changed the publication, or made the table anew. Attaching again
// mends it or says what does.
var ErrUnpublished = errors.New("the publication does not send every change of a table")

// ErrReassigned says that the source has other streams from now on. What it has
// given before is to be written; then it must be attached again.
var ErrReassigned = errors.New("the streams of this instance have changed")

// ErrReplan says that what follows from the entries' queries is not what it was.
// Whoever has planned must plan anew, and begin again.
var ErrReplan = errors.New("the database has changed what the queries of entries read")

// ErrUnanswerable says that the server has refused a statement for what it says, or
// for what it has met in rows: another try would end the same.
var ErrUnanswerable = errors.New("the database cannot answer")

// ErrUnassigned says that it will be known soon which streams this instance has.
var ErrUnassigned = errors.New("it is not known yet which streams this instance has")

// ErrInUse says that another instance holds the stream. There is nothing wrong:
// this one stands by.
var ErrInUse = errors.New("another instance owns the stream")
