// Package value renders a row of the log as PostgreSQL would: the bytes of
// SELECT row_to_json(t)::text FROM t in a session with timezone UTC, datestyle
// ISO, intervalstyle postgres, bytea_output hex and extra_float_digits 1.
//
// It is pure, and it never guesses: what cannot be exact is incomplete, for a
// stated reason, and whoever asked drops the key instead.
package value

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
	// Volatile: the type's output function is not immutable, so its text may
	// differ between two sessions. It counts for base types that are not
	// PostgreSQL's own.
	Volatile bool
}

// A Field of a composite type.
type Field struct {
	Name string
	Type *Type // behind all domains
}
