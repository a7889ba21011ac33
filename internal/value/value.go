// Package value renders a row of the log as PostgreSQL would: the bytes of
// SELECT row_to_json(t)::text FROM t in a session with timezone UTC, datestyle
// ISO, intervalstyle postgres, bytea_output hex and extra_float_digits 1.
//
// It is pure, and it never guesses: what cannot be exact is incomplete, for a
// stated reason, and whoever asked drops the key instead.
package value

import (
	"encoding/binary"
	"iter"

	"github.com/unstale/unstale/internal/change"
)

// A Shape is what the catalog says of a table's columns: what row_to_json
// prints.
type Shape struct {
	Columns []Column // all of the table, in attnum order
}

// A Column of a table.
type Column struct {
	Name string
	// TypeOID and TypeMod are pg_attribute.atttypid and atttypmod, which the log
	// has too: of a domain, not of what is behind it.
	TypeOID uint32
	TypeMod int32
	// Type is the type behind all domains.
	Type *Type
	// Generated columns are in the log from PostgreSQL 18, and only if they are
	// stored and published.
	Generated bool
}

// Kind is what a type is made of.
type Kind uint8

const (
	Base Kind = iota
	Enum
	Range // multiranges too
	Array
	Composite
)

// A Type is a type that is no domain. Types refer to each other, never in a
// circle.
type Type struct {
	OID  uint32
	Name string // as a person would write it
	Kind Kind
	// Element of an array, int2vector and oidvector too; what a range spans.
	Element *Type
	// Delimiter stands between the elements of an array: a comma, but for box.
	Delimiter byte
	Fields    []Field // of a composite, in attnum order
	// Cast is the function of the type's cast to json, prefixed with the
	// extension that it belongs to: hstore.hstore_to_json. Empty if there is none.
	Cast string
	// Volatile: the type's text can differ between two sessions.
	Volatile bool
}

// A Field of a composite type.
type Field struct {
	Name string
	Type *Type // behind all domains
}

// A Program renders the rows of one relation. It is for one goroutine at a
// time.
type Program struct{}

// Compile prepares rendering rows of relation r, as the log describes it now,
// with the given columns; nil means all. If they cannot be rendered exactly,
// the Program is nil and reason says why.
func (s *Shape) Compile(r *change.Relation, columns []string) (p *Program, reason string) {
	return nil, "rows cannot be rendered yet"
}

// Columns returns the indexes into the relation's columns that p reads,
// ascending.
func (p *Program) Columns() []int { return nil }

// Bind says where those columns stand in a row: wanted is the relation's
// Wanted, which has all of them.
func (p *Program) Bind(wanted []int) {}

// AppendJSON appends row_to_json of the row to dst. If reason is not empty the
// row is incomplete, and out is dst.
func (p *Program) AppendJSON(dst []byte, row *change.Row) (out []byte, reason string) {
	return dst, "rows cannot be rendered yet"
}

// AppendFields appends the row as the fields of a hash: name and value, each
// behind its length, of every column that is not NULL. A value is what
// json_each_text(row_to_json(t)) has. If reason is not empty the row is
// incomplete, and out is dst.
func (p *Program) AppendFields(dst []byte, row *change.Row) (out []byte, reason string) {
	return dst, "rows cannot be rendered yet"
}

// Fields iterates over the names and values that AppendFields wrote.
func Fields(encoded []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		for len(encoded) > 0 {
			var name, value []byte
			var ok bool
			if name, encoded, ok = cut(encoded); !ok {
				return
			}
			if value, encoded, ok = cut(encoded); !ok || !yield(name, value) {
				return
			}
		}
	}
}

// cut takes a length and as many bytes from b.
func cut(b []byte) (part, rest []byte, ok bool) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return nil, nil, false
	}
	end := size + int(n)
	return b[size:end:end], b[end:], true
}
