package query

import "strings"

// A Catalog answers what a query names, as the search_path of who runs it has it.
type Catalog interface {
	// Relation returns the relation of that name, nil if there is none. The schema
	// may be empty.
	Relation(schema, name string) (*Relation, error)
	// Function returns what all functions of that name that take so many arguments
	// have in common, in doubt the worse; nil if there is none. The schema may be
	// empty.
	Function(schema, name string, arguments int) (*Function, error)
}

// A Relation is a table or a view.
type Relation struct {
	Schema, Name string
	Kind         byte // pg_class.relkind
	Persistence  byte // pg_class.relpersistence
	RowSecurity  bool
	Columns      []Column
	// Definition is the SELECT of a view.
	Definition string
	// Children are the tables that inherit from it, of every level; none of a
	// partitioned table.
	Children []*Relation
	// Partition: it is one, whose changes the log tells as those of the partitioned
	// table.
	Partition bool
	// Unique are the sets of columns that tell any two rows of a table apart, at any time,
	// that have no NULL in them.
	Unique [][]string
	// Unlogged is the name of a partition whose changes are not in the log; empty:
	// there is none.
	Unlogged string
}

// Column returns the column of that name, nil if there is none.
func (r *Relation) Column(name string) *Column {
	for i := range r.Columns {
		if r.Columns[i].Name == name {
			return &r.Columns[i]
		}
	}
	return nil
}

// A Column of a relation.
type Column struct {
	Name    string
	NotNull bool
	// Generated: the log need not have its values.
	Generated bool
	Type
}

// A Type as far as equality is concerned.
type Type struct {
	Name string // as PostgreSQL spells it, without a modifier
	// Base is the name of the built-in type behind it, through domains: int4; enum
	// for an enum; empty for a row, and for what an extension brings.
	Base string
	// Element is the Base of what an array of PostgreSQL's own types holds; empty: it is
	// no such array.
	Element string
	// Nondeterministic: texts that differ may be equal.
	Nondeterministic bool
	// Collation is that of a column, with its schema and quoted; empty: the database's.
	Collation string
}

// Textual reports whether values of the type are equal exactly if their texts are.
func (t Type) Textual() bool { return t.family() != "" }

// Text reports whether values of the type are texts, whose casts to other types may fail.
func (t Type) Text() bool {
	return t.Base == "text" || t.Base == "varchar" || t.Base == "bpchar" || t.Base == "name"
}

// family groups the types whose values are equal exactly if their texts are, also
// across types, and whose cast to text is their output. Empty: equality is not that of
// texts, or, of inet and cidr, their cast adds what their output leaves out.
func (t Type) family() string {
	switch t.Base {
	case "int2", "int4", "int8":
		return "whole number"
	case "text", "varchar":
		if t.Nondeterministic {
			return ""
		}
		return "text"
	case "bool", "uuid", "date", "timestamp", "timestamptz", "time", "bytea", "macaddr", "oid":
		return t.Base
	case "enum":
		return "enum " + t.Name
	}
	return ""
}

// element is the type of what an array holds.
func (t Type) element() Type { return Type{Base: t.Element, Nondeterministic: t.Nondeterministic} }

// A Function is what matters of a function, an aggregate or a window function.
type Function struct {
	BuiltIn    bool
	Volatility byte // pg_proc.provolatile: i, s or v
	Aggregate  bool
	Window     bool
	ReturnsSet bool
}

// bareName is the name without its schema and quotes.
func (t Type) bareName() string {
	name := t.Name[strings.LastIndexByte(t.Name, '.')+1:]
	return strings.ReplaceAll(strings.Trim(name, `"`), `""`, `"`)
}
