// Package deadletter keeps, for a person, the changes that could not be applied:
// over Kafka in a topic, with all that their record had; from the database's log
// in a stream of Redis of limited length.
//
// It promises that a letter is kept when its server has confirmed that, and that
// in a minute no more are kept than is allowed. A change may be kept twice, when
// the service ends between that and its own note of it; over Kafka both are one
// letter. What becomes of the cache is not decided here.
package deadletter

import (
	"fmt"
	"time"
)

// A Letter is a change that could not be applied.
type Letter struct {
	// Number is what people call it: its place in the store, for good.
	Number int64
	// Time is when it was kept.
	Time time.Time
	// Reason is why the change could not be applied.
	Reason string
	// Table is schema.table, empty if nobody knows. Entries are the names of those
	// that were swept.
	Table   string
	Entries []string
	// Exactly one is set: the record that Kafka had, or what is known of a change
	// of the database's log.
	Record *Record
	Change *Change

	key []byte // in the topic
}

// A Record is a record of Kafka as it was.
type Record struct {
	Topic     string
	Partition int32
	Offset    int64
	Timestamp time.Time
	// Key and Value are nil where they were null. List leaves them out, and
	// Headers.
	Key, Value []byte
	Headers    []Header
}

// Header of a record.
type Header struct {
	Name  string
	Value []byte
}

// A Change is one of the database's log.
type Change struct {
	Stream   string
	Position string
	XID      uint32
}

// place is where the change comes from: two letters with the same are of one.
func (l *Letter) place() string {
	if l.Record != nil {
		return fmt.Sprintf("%s:%d:%d", l.Record.Topic, l.Record.Partition, l.Record.Offset)
	}
	return l.Change.Stream + " " + l.Change.Position
}
