package debezium

import (
	"fmt"

	"github.com/unstale/unstale/internal/change"
)

// An Event is one message.
type Event struct {
	Kind Kind
	// Op is 'c' of an insert, 'u', 'd', or 'r' of a row that a snapshot read.
	Op byte
	// Relation is the table of Old and New, nil if no entry is over it. That of a
	// partition has the name of its root; Source has the partition's.
	Relation *change.Relation
	// Old is Absent where Debezium gives no `before`. It is Whole under REPLICA
	// IDENTITY FULL; else only the columns of the replica identity count, and
	// the others are Missing whatever the message shows.
	Old, New change.Row
	Source   Source

	// LSN is where the change is in the log. It neither orders changes nor
	// identifies one.
	LSN uint64
	// Sequence is the LSN of the last commit before the change, and its own.
	Sequence [2]uint64
	// XID is the transaction, 0 of a row that a snapshot has read: that names the
	// snapshot's own, or none.
	XID uint64
	// CommittedAt is in microseconds since the Unix epoch, 0 if unknown.
	CommittedAt int64
	Snapshot    Snapshot
}

// Kind is what a message is.
type Kind uint8

const (
	// Other is nothing to apply: a heartbeat, a transaction's begin or end, a
	// logical message, a schema change.
	Other Kind = iota
	// Row is the change of a row.
	Row
	// Truncate empties a table.
	Truncate
	// Tombstone follows a delete, and is what a compacted topic keeps of it. Old
	// has the key, and Source and Relation say of which table, if an earlier
	// message of that table had a key of the same schema and no other table's
	// had. The schema's name is not asked: a transform that routes messages
	// changes it. A key in JSON without a schema names no table.
	Tombstone
)

// Source is where a change comes from.
type Source struct {
	Connector string // source.name: the prefix of the connector's topics
	Database  string
	Schema    string
	Table     string
}

// Snapshot says whether a row was read by a snapshot.
type Snapshot uint8

const (
	// None: the row is from the log.
	None Snapshot = iota
	// Initial: a snapshot that the log waits for.
	Initial
	// Incremental: one that runs beside the log.
	Incremental
)

// An UnknownSchema is an Avro schema that could not be had.
type UnknownSchema struct {
	ID  uint32
	Err error
}

func (e *UnknownSchema) Error() string { return fmt.Sprintf("schema %d: %v", e.ID, e.Err) }

// Unwrap returns what the registry answered.
func (e *UnknownSchema) Unwrap() error { return e.Err }

// An Undecodable record can never be read.
type Undecodable struct {
	Reason string
	Source Source // as far as it is known
}

func (e *Undecodable) Error() string { return "undecodable message: " + e.Reason }

// Why a message is undecodable.
const (
	reasonNeither   = "it is neither Avro with a schema registry nor JSON"
	reasonShort     = "it is cut short, or is not written with its schema"
	reasonBehind    = "there are bytes behind its end"
	reasonEnvelope  = "it has no before, after, source and op: it is not from Debezium's PostgreSQL connector, or a transform has changed it"
	reasonUnwrapped = "it is unwrapped by ExtractNewRecordState: remove that transform from the connector"
	reasonJSON      = "its JSON is malformed"
	reasonOp        = "its op is not known"
	reasonRow       = "it lacks the row that its op announces"
	reasonTable     = "its source names no table"
	reasonRelations = "rows have come with more different sets of columns than are kept: what writes them makes columns of data; starting unstale anew begins to count anew"
)
