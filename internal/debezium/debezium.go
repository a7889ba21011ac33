// Package debezium reads the messages of Debezium's PostgreSQL connector, as
// Avro with a schema registry and as JSON, with and without schemas.
//
// A value is delivered as PostgreSQL's text output of the column, the same bytes
// that its log has in a session with datestyle ISO, timezone UTC, intervalstyle
// postgres, bytea_output hex and extra_float_digits 1. So keys and cached rows
// are made of it as they are made of the log. Debezium converts every value,
// and not every conversion can be undone: where the text is not certain the
// value is Missing, and whoever reads it drops the key. It never guesses, and asks
// nobody how the connector is set: that says nothing of a message that was written
// before, or by a task that has not heard of it yet.
//
// It takes the connector's session for one with the settings above that matter
// there: a role or database that has another bytea_output, an extra_float_digits
// below 1 or the intervalstyle sql_standard makes Debezium send other bytes,
// numbers and intervals, and nothing in a message shows it.
//
// It does no I/O: schemas and tables are asked for.
package debezium

import (
	"context"
	"encoding/binary"
	"sync/atomic"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/value"
)

// PlaceholderDefault is what Debezium puts for a long value that an update did
// not touch: unavailable.value.placeholder.
const PlaceholderDefault = "__debezium_unavailable_value"

// Limits of what a decoder keeps.
const (
	schemasMax   = 4096 // of the registry, compiled
	jsonKept     = 2048 // schemas of messages in JSON, and lists of members
	tablesMax    = 16384
	relationsMax = 32768   // a planner keeps them for good
	stringsMax   = 4096    // interned
	scratchKept  = 1 << 20 // bytes of texts
	pairsKept    = 1 << 14
	schemaBytes  = 16 << 20
	nestingMax   = 64 // records, arrays and unions inside each other
	programsKept = 64 // tables that share one schema
)

// Table is what the catalog says of a table.
type Table struct {
	// Shape has the columns, their types and the types behind domains.
	Shape value.Shape
	// Full: REPLICA IDENTITY FULL. The row `before` is then the whole old row.
	Full bool
	// Key are the columns of the replica identity otherwise.
	Key []string
	// Defaulted are the columns that may be NULL and have a default. They count
	// for messages without schemas only, which do not show that a converter put
	// the default in the place of a NULL.
	Defaulted []string
}

// TableName is the name of a table.
type TableName struct{ Schema, Table string }

// Options of a decoder. How the connector is set is not among them: whatever it is
// now, a message may have been written when it was another. What a message does
// not show is Missing.
type Options struct {
	// Schema returns the text of an Avro schema. One that it returned is not asked
	// for again soon: the compiled form is kept.
	Schema func(ctx context.Context, id uint32) (string, error)
	// Table describes a table, as nil if the database does not know it. Without a
	// database it may be nil itself. Types are then those that the message names
	// without doubt, and the replica identity is taken to be the key of the
	// record: a key that is less, or more, makes changes of it go unseen.
	Table func(schema, table string) *Table
	// Wanted reports whether any entry is over the table. Rows of other tables
	// are not decoded.
	Wanted func(schema, table string) bool
	// Root, if it is not nil, names the table of which one that is not wanted is a
	// partition, if an entry is over that: its rows are those of that table. It may
	// ask the database: an error of it is Decode's.
	Root func(ctx context.Context, schema, table string) (root TableName, ok bool, err error)
	// Compile is called once for each new relation, before its first row, and
	// returns the indexes of the columns that are read, ascending.
	Compile func(*change.Relation) []int
	// Placeholder is the connector's unavailable.value.placeholder;
	// PlaceholderDefault if it is empty.
	Placeholder string
}

// A Decoder reads messages, one at a time. But for Forget it is for one
// goroutine.
type Decoder struct {
	options     Options
	placeholder placeholders

	schemas   generations[*avroSchema]    // by the bytes of the id
	blocks    generations[*jsonSchema]    // by the text of the schema
	plain     generations[*jsonSchema]    // by table and members
	plainKeys generations[*keySchema]     // by members
	relations map[string]*change.Relation // by what they are made of
	readers   map[TableName]*reader       // the last of each table
	strings   map[string]string
	// forgets counts calls of Forget: what was compiled before the last one is
	// compiled again.
	forgets atomic.Uint64

	lastSchema, lastKey                *avroSchema
	lastBlock, lastKeyBlock, lastPlain *jsonSchema
	lastPlainKey                       *keySchema
	noKey                              keySchema // of a key that is missing or not understood

	// What the last message pointed to.
	old, new      []change.Value // of the rows
	text          []byte         // texts that are made, not found
	message       []byte
	captured      [capturedCount]captured
	unescaped     []byte
	doubted       []*change.Value // they may stand for NULLs
	decimals      decimals
	scratch       []byte
	sourceMembers []sourceMember // of the last message in JSON
	// signature is made of the names of an object's members.
	signature []byte
	array     array
	element   [1]change.Value
	pairs     []pair
}

// NewDecoder returns a decoder.
func NewDecoder(options Options) *Decoder {
	if options.Placeholder == "" {
		options.Placeholder = PlaceholderDefault
	}
	if options.Table == nil {
		options.Table = func(_, _ string) *Table { return nil }
	}
	return &Decoder{
		options:     options,
		placeholder: newPlaceholders(options.Placeholder),
		relations:   map[string]*change.Relation{},
		readers:     map[TableName]*reader{},
		strings:     map[string]string{},
		schemas:     newGenerations[*avroSchema](schemasMax),
		blocks:      newGenerations[*jsonSchema](jsonKept),
		plain:       newGenerations[*jsonSchema](jsonKept),
		plainKeys:   newGenerations[*keySchema](jsonKept),
		noKey:       keySchema{ambiguous: true},
	}
}

// Forget makes the decoder ask for tables again: the catalog has changed. A
// relation gets a new number only if what it is made of differs. It may be
// called beside Decode.
func (d *Decoder) Forget() { d.forgets.Add(1) }

// Decode reads one record. What e points to is valid until the next call, and as
// long as key and value are not changed.
//
// The error is an *UnknownSchema if a schema could not be had, and an
// *Undecodable if the record can never be read; else it is that of Options.Root.
func (d *Decoder) Decode(ctx context.Context, key, value []byte, e *Event) error {
	if cap(d.text)+cap(d.scratch)+cap(d.unescaped) > scratchKept || cap(d.pairs) > pairsKept {
		d.text, d.scratch, d.unescaped, d.pairs = nil, nil, nil, nil
	}
	d.text, d.scratch = d.text[:0], d.scratch[:0]
	*e = Event{}
	switch {
	case len(value) == 0:
		return d.tombstone(ctx, key, e)
	case value[0] == avroMagic:
		return d.decodeAvro(ctx, key, value, e)
	case looksLikeJSON(value):
		return d.decodeJSON(ctx, key, value, e)
	}
	return &Undecodable{Reason: reasonNeither}
}

// avroMagic is the first byte of a message in Confluent's wire format, which the
// four bytes of the schema's id follow.
const avroMagic = 0

const avroHeader = 5

// avroID returns the id of the schema of a message in Confluent's wire format.
func avroID(message []byte) (id uint32, ok bool) {
	if len(message) < avroHeader || message[0] != avroMagic {
		return 0, false
	}
	return binary.BigEndian.Uint32(message[1:]), true
}
