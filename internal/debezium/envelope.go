package debezium

import (
	"context"
	"strings"

	"github.com/unstale/unstale/internal/change"
)

// An avroSchema is a schema of the registry, compiled.
type avroSchema struct {
	id   uint32
	root *avroType
	// Either every message of it is undecodable, or nothing to apply, or an
	// envelope.
	bad   string
	other bool
	parts []part

	// tellsNulls: see keptNulls.
	tellsNulls bool

	row    *avroType // of before and after
	fields []field   // of the row
	tables []*avroTable
	last   *avroTable

	key *keySchema // if it is the schema of a key
}

// A part of an envelope: a row, or what a program reads.
type part struct {
	role    role
	null    nullness // of a row
	program *program
}

type role uint8

const (
	roleOther role = iota
	roleBefore
	roleAfter
)

// An avroTable reads the rows of one table from messages of one schema.
type avroTable struct {
	*reader
	program *program
}

// captured is what is read of a message beside its rows: a number, or where a
// text is. It is small and has no pointers, so that clearing it costs nothing.
type captured struct {
	n         int64
	from, end uint32
}

const (
	captureOp = iota
	captureName
	captureDatabase
	captureSchema
	captureTable
	captureSnapshot
	captureSequence
	captureMillis
	captureMicros
	captureXID
	captureLSN
	capturedCount
)

// capturedFields are the fields of the source block.
var capturedFields = map[string]struct {
	slot int
	op   op
}{
	"name": {captureName, captureBytes}, "db": {captureDatabase, captureBytes},
	"schema": {captureSchema, captureBytes}, "table": {captureTable, captureBytes},
	"snapshot": {captureSnapshot, captureBytes}, "sequence": {captureSequence, captureBytes},
	"ts_ms": {captureMillis, captureVarint}, "ts_us": {captureMicros, captureVarint},
	"txId": {captureXID, captureVarint}, "lsn": {captureLSN, captureVarint},
}

// What the number of a captured text says of it.
const (
	hadEscapes = iota + 1 // it is in Decoder.unescaped
	wasNull               // there is none
)

// capturedText is the text that was captured.
func (d *Decoder) capturedText(slot int) []byte {
	c := &d.captured[slot]
	if c.n == hadEscapes {
		return d.unescaped[c.from:c.end]
	}
	return d.message[c.from:c.end]
}

// schema returns the compiled form of the schema of a message, whose id is id, and
// keeps it as the last one.
func (d *Decoder) schema(ctx context.Context, message []byte, id uint32, last **avroSchema) (*avroSchema, error) {
	bytes := message[1:avroHeader]
	s, ok := d.schemas.get(bytes)
	if !ok {
		text, err := d.options.Schema(ctx, id)
		if err != nil {
			return nil, &UnknownSchema{ID: id, Err: err}
		}
		s = newAvroSchema(id, text)
		d.schemas.put(bytes, s)
	}
	*last = s
	return s, nil
}

func newAvroSchema(id uint32, text string) *avroSchema {
	s := &avroSchema{id: id, key: &keySchema{}}
	root, err := parseAvro(text)
	if err != nil {
		s.bad = "its schema is not understood: " + err.Error()
		return s
	}
	s.root = root
	if root.kind != avroRecord {
		s.bad = reasonEnvelope
		return s
	}
	for i := range root.fields {
		s.key.fields = append(s.key.fields, fieldOf(&root.fields[i]))
		s.key.types = append(s.key.types, root.fields[i].of)
	}
	s.compile()
	return s
}

// compile finds out what the messages of the schema are.
func (s *avroSchema) compile() {
	var before, after, source, op *avroType
	for _, f := range s.root.fields {
		of, _ := nullable(f.of)
		switch f.name {
		case "before":
			before = of
		case "after":
			after = of
		case "source":
			source = of
		case "op":
			op = of
		}
	}
	switch {
	case nothingToApply(s.root.logical) || op != nil && source != nil && before == nil && after == nil:
		s.other = true
		return
	case op == nil && source == nil && strings.HasSuffix(s.root.logical, ".Value"):
		s.bad = reasonUnwrapped
		return
	case before == nil || before != after || before.kind != avroRecord || source == nil || source.kind != avroRecord || op == nil || op.kind != avroString:
		s.bad = reasonEnvelope
		return
	}
	s.row = before
	skipOf(s.row)
	for i := range s.row.fields {
		s.fields = append(s.fields, fieldOf(&s.row.fields[i]))
	}
	current := &program{}
	flush := func() {
		if len(current.steps) > 0 {
			s.parts = append(s.parts, part{program: current})
			current = &program{}
		}
	}
	for _, f := range s.root.fields {
		_, null := nullable(f.of)
		switch f.name {
		case "before":
			flush()
			s.parts = append(s.parts, part{role: roleBefore, null: null})
		case "after":
			flush()
			s.parts = append(s.parts, part{role: roleAfter, null: null})
		case "op":
			current.capture(f.of, captureOp, captureBytes)
		case "source":
			captures := current
			if null != nullNever {
				captures = &program{}
				current.steps = append(current.steps, step{op: captureRecord, null: null, inside: &inside{skip: captures}})
			}
			for _, f := range source.fields {
				if f.name == "snapshot" {
					field := fieldOf(&f)
					s.tellsNulls = hasFallback(&field)
				}
				if c, ok := capturedFields[f.name]; ok {
					captures.capture(f.of, c.slot, c.op)
				} else {
					captures.skip(f.of)
				}
			}
		default:
			current.skip(f.of)
		}
	}
	flush()
}

// nothingToApply reports whether messages of that name are none of a table.
func nothingToApply(name string) bool {
	switch name {
	case "io.debezium.connector.common.Heartbeat", "io.debezium.connector.common.TransactionMetadataValue":
		return true
	}
	return strings.HasPrefix(name, "io.debezium.connector.") && strings.HasSuffix(name, ".SchemaChangeValue")
}

// capture adds the step that keeps a value, if it is written as is expected.
func (p *program) capture(t *avroType, slot int, o op) {
	of, null := nullable(t)
	switch {
	case o == captureBytes && of.kind == avroString:
	case o == captureVarint && (of.kind == avroInt || of.kind == avroLong):
	default:
		p.skip(t)
		return
	}
	p.steps = append(p.steps, step{op: o, null: null, slot: int32(slot)})
}

func (d *Decoder) decodeAvro(ctx context.Context, key, message []byte, e *Event) error {
	id, ok := avroID(message)
	if !ok {
		return &Undecodable{Reason: reasonShort}
	}
	s := d.lastSchema
	if s == nil || s.id != id {
		var err error
		if s, err = d.schema(ctx, message, id, &d.lastSchema); err != nil {
			return err
		}
	}
	switch {
	case s.bad != "":
		return &Undecodable{Reason: s.bad}
	case s.other:
		return nil
	}
	k, err := d.keyOf(ctx, key)
	if err != nil {
		return err
	}
	// The table is named behind the rows: they are read for the last one, and
	// once more if it is another.
	for t := s.last; ; {
		end := d.readEnvelope(s, t, message, e)
		if end != len(message) {
			reason := reasonShort
			if end >= 0 {
				reason = reasonBehind
			}
			return &Undecodable{Reason: reason, Source: d.source(nil)}
		}
		if t != nil && t.reads(d, k) {
			d.resolve(s.tellsNulls && d.keptNulls())
			return d.finish(t.reader, e)
		}
		if reason := d.known(); reason != "" {
			return &Undecodable{Reason: reason, Source: d.source(nil)}
		}
		if t, err = d.avroTable(ctx, s, k); err != nil {
			return err
		}
		s.last = t
		*e = Event{}
	}
}

// readEnvelope reads a message, its rows for table t, and returns where it ends
// or malformed.
func (d *Decoder) readEnvelope(s *avroSchema, t *avroTable, message []byte, e *Event) int {
	d.captured, d.message = [capturedCount]captured{}, message
	d.begin()
	i := avroHeader
	for k := range s.parts {
		p := &s.parts[k]
		if p.role == roleOther {
			if i = d.run(p.program, message, i, nil, 0); i < 0 {
				return malformed
			}
			continue
		}
		if p.null != nullNever {
			var null bool
			if i < len(message) && message[i]&^2 == 0 {
				null = message[i] == 0 == (p.null == nullFirst)
				i++
			} else if null, i = isNull(message, i, p.null); i < 0 {
				return malformed
			}
			if null {
				continue
			}
		}
		program, values := s.row.skip, []change.Value(nil)
		row := &e.Old
		if p.role == roleAfter {
			row = &e.New
		}
		row.Kind = change.Whole
		if t != nil && t.relation != nil {
			program = t.program
			values = d.values(p.role, len(t.relation.Wanted))
			row.Values = values
		}
		if i = d.run(program, message, i, values, 0); i < 0 {
			return malformed
		}
	}
	return i
}

// values are the values of a row, all Missing.
func (d *Decoder) values(r role, n int) []change.Value {
	values := &d.old
	if r == roleAfter {
		values = &d.new
	}
	if cap(*values) < n {
		*values = make([]change.Value, n)
	}
	*values = (*values)[:n]
	clear(*values)
	return *values
}

// avroTable returns what reads the table that was captured.
func (d *Decoder) avroTable(ctx context.Context, s *avroSchema, k *keySchema) (*avroTable, error) {
	for _, t := range s.tables {
		if t.reads(d, k) {
			return t, nil
		}
	}
	r, err := d.newReader(ctx, s.fields, k)
	if err != nil {
		return nil, err
	}
	t := &avroTable{reader: r}
	if t.relation != nil {
		t.program = &program{}
		for i, f := range s.row.fields {
			if slot := t.slots[i]; slot >= 0 && t.columns[i].rule != ruleNone {
				t.program.take(f.of, slot, t.columns[i])
			} else {
				t.program.skip(f.of)
			}
		}
	}
	// What it takes the place of was compiled before the catalog changed, or for
	// another key.
	for i, old := range s.tables {
		if old.name == t.name {
			s.tables[i] = t
			return t, nil
		}
	}
	if len(s.tables) >= programsKept {
		s.tables = nil
	}
	s.tables = append(s.tables, t)
	return t, nil
}
