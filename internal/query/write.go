package query

import (
	"fmt"
	"slices"
	"strings"

	"github.com/unstale/unstale/internal/plan"
)

// A writer spells a lookup.
type writer struct {
	of        *item
	with      []*item
	arguments []plan.Argument
	// collations are those of the arguments; empty: the database's.
	collations []string
	elements   []string // arrays whose elements are keys
	reads      []column // of the tables
}

func (w *writer) name(it *item) string {
	if it == w.of {
		return "changed"
	}
	return fmt.Sprintf("t%d", slices.Index(w.with, it)+1)
}

func (w *writer) column(c column) string {
	w.read(c.item, c.name)
	return w.name(c.item) + "." + quote(c.name)
}

// element is the column of what an array holds, which the statement takes apart.
func (w *writer) element(c column) string {
	array := w.column(c)
	if c.item == w.of {
		array += "::" + c.typ().Name
	}
	w.elements = append(w.elements, array)
	return fmt.Sprintf("e%d.value", len(w.elements))
}

func (w *writer) takes(s *scalar) {
	for _, read := range s.reads {
		w.read(read.item, read.name)
	}
}

// read notes a column that the statement has: an argument, if it is the row's own.
func (w *writer) read(it *item, name string) {
	if it == w.of {
		w.take(name)
	} else if at := (column{it, name}); !slices.Contains(w.reads, at) {
		w.reads = append(w.reads, at)
	}
}

// readOf are the columns that the statement has of a table.
func (w *writer) readOf(it *item) (names []string) {
	for _, at := range w.reads {
		if at.item == it {
			names = append(names, at.name)
		}
	}
	return names
}

func (w *writer) take(name string) {
	if slices.ContainsFunc(w.arguments, func(a plan.Argument) bool { return a.Column == name }) {
		return
	}
	of := column{w.of, name}.typ()
	w.arguments = append(w.arguments, plan.Argument{Column: name, Type: of.argument()})
	w.collations = append(w.collations, of.Collation)
}

// argument is the type as which values are given to a statement: arrays as their texts,
// for an array of arrays would be one of their elements.
func (t Type) argument() string {
	if t.array() {
		return "text"
	}
	return t.Name
}

func (t Type) array() bool { return strings.HasSuffix(t.Name, "[]") }

// asKey spells the value of a column as the log would.
func asKey(value string, of Type) string {
	if of.Base == "bool" {
		return "left(" + value + "::boolean::text, 1)"
	}
	return value + "::text"
}

// computedKey does so for an expression, which may be of a type that only compares
// as equal with that of the parameter: 10.00 is the key 10.
func computedKey(value string, of Type) string {
	switch of.family() {
	case "whole number":
		return "trim_scale((" + value + ")::text::numeric)::text" // of a float all digits
	case "text":
		return "(" + value + ")::text"
	}
	return asKey("("+value+")::"+of.Name, of)
}

// statement selects the keys; apart: its rows differ as they are. Where they need not be
// compared they come as they are found, which for very many takes half the time.
func (w *writer) statement(keys, where []string, apart bool) string {
	var sql strings.Builder
	sql.WriteString("SELECT ")
	if !apart {
		sql.WriteString("DISTINCT ")
	}
	sql.WriteString(strings.Join(keys, ", ") + "\nFROM " + strings.Join(append([]string{w.rows("changed")}, w.tables()...), ", "))
	if len(where) > 0 {
		sql.WriteString("\nWHERE " + strings.Join(where, "\n  AND "))
	}
	return sql.String()
}

// tables are those that it reads, under their names in it.
func (w *writer) tables() []string {
	var tables []string
	for _, it := range w.with {
		only := ""
		if it.only {
			only = "ONLY "
		}
		tables = append(tables, fmt.Sprintf("%s%s.%s AS %s", only, quote(it.relation.Schema), quote(it.relation.Name), w.name(it)))
	}
	for i, array := range w.elements {
		tables = append(tables, fmt.Sprintf("unnest(%s) AS e%d(value)", array, i+1))
	}
	return tables
}

// rows are those that have changed, as a table whose columns compare as theirs do.
func (w *writer) rows(name string) string {
	values, names, collated := make([]string, len(w.arguments)), make([]string, len(w.arguments)), make([]string, len(w.arguments))
	plain := true
	for i, argument := range w.arguments {
		values[i] = fmt.Sprintf("$%d::text[]::%s[]", i+1, argument.Type)
		names[i] = quote(argument.Column)
		collated[i] = names[i]
		if w.collations[i] != "" {
			collated[i] = fmt.Sprintf("%s COLLATE %s AS %[1]s", names[i], w.collations[i])
			plain = false
		}
	}
	rows := fmt.Sprintf("unnest(%s) AS %s(%s)", strings.Join(values, ", "), name, strings.Join(names, ", "))
	if plain {
		return rows
	}
	return fmt.Sprintf("(SELECT %s FROM %s) AS %s", strings.Join(collated, ", "), rows, name)
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
