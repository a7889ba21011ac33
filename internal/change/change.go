// Package change is the vocabulary of the stream: one row change in commit
// order, where it stands, and what must be true before it may be applied.
//
// It owns no I/O and no policy. Every other package of the data's way speaks
// in these words, so it imports none of them.
package change

// Op is what happened.
type Op uint8

const (
	// Insert carries New.
	Insert Op = iota + 1
	// Update carries New, and Old as far as the replica identity gives it.
	Update
	// Delete carries Old as far as the replica identity gives it.
	Delete
	// Truncate carries the relation only. A TRUNCATE of several tables is one
	// change a table.
	Truncate
	// Commit ends a transaction. It has no relation; its Position is the place
	// after the transaction.
	Commit
	// Idle says that nothing is pending up to Position: the log moved on
	// without a change for us.
	Idle
	// Undecodable is a change whose rows could not be read. Reason says why. Which
	// keys it touches is unknown; without a Relation, its table is.
	Undecodable
	// Restart says that what follows was read anew: what was deleted since the
	// source began before is told by nobody.
	Restart
)

var opNames = [...]string{"none", "insert", "update", "delete", "truncate", "commit", "idle", "undecodable", "restart"}

func (o Op) String() string {
	if int(o) < len(opNames) {
		return opNames[o]
	}
	return "unknown"
}

// A Change is one step of the stream. The source owns it and everything that
// it points to: it is valid until the source's next call to Next.
type Change struct {
	Op       Op
	Relation *Relation // nil for Commit, Idle and Restart
	Old, New Row

	// Stream is where it comes from, an index into Attachment.Streams.
	Stream int
	// XID is the top-level transaction, 32 bits as the log has it. Zero (Idle)
	// needs no gate.
	XID uint32
	// LSN tells whether the change is newer than what a reader may have seen: the
	// commit is not below it. PostgreSQL's log: the commit record. Debezium: the
	// row's own record, so a change may count as older than it is; of a Restart where
	// everything is read.
	LSN uint64
	// Again: it may have been delivered before, so it SETs nothing.
	Again bool
	// Spread: changes of its table are in several streams, which have no order among
	// them. Those of rows with the same Keyed columns are in one.
	Spread bool
	// Cut, of a Commit: the source cannot tell whether more of the transaction comes.
	Cut bool
	// Sequence orders what a connector sends into a topic, for those that came from
	// the log; zero where there is none. A connector that was killed sends again
	// what it had sent, with the sequences that it had.
	Sequence Sequence
	// Scan: the row was read, not changed.
	Scan Scan
	// CommittedAt is when the transaction committed, in microseconds since the
	// Unix epoch by the clock of the server that committed it: a replicated
	// transaction carries its origin's clock. So it is for metrics, and tells how
	// old a change is only where there is no database to ask.
	CommittedAt int64
	// Position is where its stream resumes once this change is applied.
	Position Position
	// Reason says why an Undecodable change could not be read.
	Reason string
}

// Scan says whether a row was read from its table, by what the connector calls a
// snapshot, rather than changed.
type Scan uint8

const (
	// Streamed: it was not.
	Streamed Scan = iota
	// Initial: by a scan behind which the log begins.
	Initial
	// Incremental: by one that runs beside the log.
	Incremental
)

// RowKind says how much of a row is known.
type RowKind uint8

const (
	// Absent: there is no such row (Old of an insert, New of a delete), or the
	// replica identity did not give it (Old of an update).
	Absent RowKind = iota
	// IdentityOnly: only the columns of the replica identity are known; the
	// others are Missing.
	IdentityOnly
	// Whole: every column that the log carries is known.
	Whole
)

// A Row holds the wanted columns of one version of a row: Values[i] is the
// column Relation.Columns[Relation.Wanted[i]].
type Row struct {
	Kind   RowKind
	Values []Value
}

// Value is one column of a row, as PostgreSQL's text output has it.
type Value struct {
	State ValueState
	Text  []byte // valid until the source's next call to Next
}

// ValueState says what is known of a value.
type ValueState uint8

const (
	// Missing: the log does not carry the column here.
	Missing ValueState = iota
	// Null is SQL's NULL.
	Null
	// Unchanged: a TOASTed value that the update did not touch; its text is not
	// in the log.
	Unchanged
	// Text: Value.Text holds it.
	Text
	// Long: there is a text, longer than the source gives.
	Long
)

// Relation describes a table as the log described it last. It is immutable; a
// changed table is a new Relation with a new Number.
type Relation struct {
	// Number is dense and unique in this process: what a planner compiled for
	// the relation is found by it.
	Number   int
	OID      uint32
	Schema   string
	Name     string
	Identity Identity
	Columns  []Column // in the order of the log, which is attnum order
	// Wanted lists the indexes into Columns that the plan reads, ascending.
	// Nothing else is decoded.
	Wanted []int
}

// Column of a relation.
type Column struct {
	Name    string
	TypeOID uint32
	TypeMod int32
	// Identifies: part of the replica identity.
	Identifies bool
	// Keyed: part of the key of a record, by which changes are spread over streams.
	// None is, if not every part of that key is a column that an old row shows: then
	// nothing tells in which stream the change before is.
	Keyed bool
}

// Identity is pg_class.relreplident.
type Identity byte

const (
	IdentityDefault Identity = 'd'
	IdentityNothing Identity = 'n'
	IdentityFull    Identity = 'f'
	IdentityIndex   Identity = 'i'
)
