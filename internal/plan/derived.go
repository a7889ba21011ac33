package plan

import (
	"fmt"
	"slices"

	"github.com/unstale/unstale/internal/change"
)

// A Question asks a lookup which keys one version of a row leads to.
type Question struct {
	Lookup    int // index into Planner.Lookups
	Arguments []Text
}

// A Text is a value as PostgreSQL prints it, or NULL.
type Text struct {
	Text  string
	Valid bool
}

// EntryLookup is a lookup and whose keys it finds.
type EntryLookup struct {
	Entry int // index into Planner.Entries
	*Lookup
}

// Lookups returns those of all entries. Batches name one by its index.
func (p *Planner) Lookups() []EntryLookup { return p.lookups }

// Found adds the drop of the key that a lookup has found for these values; loads: the
// service is to load it again, if its entry is refreshed. It may be called beside the
// other methods.
func (p *Planner) Found(b *Batch, lookup int, values [][]byte, loads bool) {
	number := p.lookups[lookup].Entry
	e := &p.entries[number]
	b.begin()
	for i, value := range values {
		if len(value) > KeyBytesMax {
			b.abandon()
			return // nobody caches under such a key
		}
		b.keys = e.Key.AppendValue(e.Key.AppendLiteral(b.keys, i), value)
	}
	b.keys = e.Key.AppendLiteral(b.keys, len(values))
	b.end(item{entry: number, effect: Drop, loads: loads && e.Loads()})
}

// dependencyProgram is a Dependency compiled for one description of its table.
type dependencyProgram struct {
	number int // of the entry
	entry  *Entry
	*Dependency
	// matters are indexes into change.Row.Values of the columns that matter, for
	// tables whose updates show the old row; nil: it cannot be told.
	matters []int
	paths   []pathProgram
	// columns finds the value of a column that the predicate reads.
	columns map[string]int
}

// pathProgram is a Path compiled so.
type pathProgram struct {
	keyProgram         // of a direct one
	asks       *Lookup // nil: direct
	lookup     int     // index into Planner.Lookups
	arguments  []int   // indexes into change.Row.Values; -1: the relation has no such column
}

// compileDependency compiles one; want notes the columns that are to be decoded.
// The indexes are those of the relation until bind.
func (p *Planner) compileDependency(r *change.Relation, number int, d *Dependency, want func(int)) dependencyProgram {
	e := &p.entries[number]
	program := dependencyProgram{number: number, entry: e, Dependency: d, columns: map[string]int{}}
	column := func(name string) int {
		at := columnOf(r, name)
		if at >= 0 {
			want(at)
		}
		return at
	}
	for i := range d.Paths {
		path := &d.Paths[i]
		compiled := pathProgram{asks: path.Lookup}
		compiled.keyProgram = keyProgram{number: number, entry: e, template: e.Key, identified: r.Identity != change.IdentityFull, nullsUnknown: d.Partitioned}
		if path.Lookup != nil {
			compiled.lookup = slices.IndexFunc(p.lookups, func(l EntryLookup) bool { return l.Lookup == path.Lookup })
		}
		var places []int
		for _, name := range path.Columns() {
			at := column(name)
			places = append(places, at)
			compiled.identified = compiled.identified && at >= 0 && r.Columns[at].Identifies
		}
		if path.Lookup != nil {
			compiled.arguments = places
		} else {
			compiled.values = places
		}
		program.paths = append(program.paths, compiled)
	}
	for _, name := range d.Where.Columns(nil) {
		program.columns[name] = column(name)
	}
	if r.Identity == change.IdentityFull {
		program.matters = []int{}
		for _, name := range d.Columns {
			at := column(name)
			if at < 0 {
				program.matters = nil // the table is not what the query was planned for
				break
			}
			program.matters = append(program.matters, at)
		}
	}
	return program
}

// bind makes the indexes those of change.Row.Values.
func (d *dependencyProgram) bind(wanted []int) {
	rebind := func(places []int) {
		for i, at := range places {
			if at >= 0 {
				places[i] = slices.Index(wanted, at)
			}
		}
	}
	rebind(d.matters)
	for i := range d.paths {
		rebind(d.paths[i].values)
		rebind(d.paths[i].arguments)
	}
	for name, at := range d.columns {
		if at >= 0 {
			d.columns[name] = slices.Index(wanted, at)
		}
	}
}

func (d *dependencyProgram) plan(c *change.Change, b *Batch) {
	if b.sweeps(d.number) && c.Op != change.Truncate && c.Op != change.Undecodable {
		return // every key goes anyway
	}
	switch c.Op {
	case change.Insert:
		d.touch(c, &c.New, nil, b)
	case change.Update:
		if d.untouched(c) {
			return
		}
		if c.Old.Kind != change.Absent {
			d.touch(c, &c.Old, nil, b)
		} else if i := slices.IndexFunc(d.paths, func(p pathProgram) bool { return !p.identified }); i >= 0 {
			b.Sweep(d.number, Unknown, "an update that shows no old row: "+mend(c), "")
		}
		d.touch(c, &c.New, &c.Old, b)
	case change.Delete:
		d.touch(c, &c.Old, nil, b)
	case change.Truncate:
		b.Sweep(d.number, Truncated, "", "")
	case change.Undecodable:
		b.Sweep(d.number, Unknown, c.Reason, "")
	default:
		panic(fmt.Sprintf("plan: a change of kind %v on a relation", c.Op))
	}
}

// untouched reports whether an update has left every column that matters as it was.
func (d *dependencyProgram) untouched(c *change.Change) bool {
	if c.Old.Kind != change.Whole || d.matters == nil {
		return false
	}
	for _, at := range d.matters {
		before, after := valueAt(&c.Old, at), valueAt(&c.New, at)
		switch {
		case after.State == change.Unchanged, before.State == change.Null && after.State == change.Null:
		case before.State == change.Text && after.State == change.Text && string(before.Text) == string(after.Text):
		default:
			return false
		}
	}
	return true
}

// touch drops the keys that one version of a row leads to, or asks for them.
func (d *dependencyProgram) touch(c *change.Change, row, other *change.Row, b *Batch) {
	if !d.Where.Passes(row, d.columns) {
		return
	}
	if len(d.paths) == 0 {
		if !b.sweeps(d.number) {
			b.Sweep(d.number, Derived, d.Why, "")
		}
		return
	}
	for i := range d.paths {
		path := &d.paths[i]
		if path.asks != nil {
			path.ask(c, row, other, b)
		} else if path.key(c, row, other, b) {
			b.end(item{entry: d.number, effect: Drop, loads: d.entry.Loads() && c.Scan == change.Streamed})
		}
	}
}

// ask adds the question that the row puts to the lookup.
func (k *pathProgram) ask(c *change.Change, row, other *change.Row, b *Batch) {
	arguments := make([]Text, len(k.arguments))
	for i, at := range k.arguments {
		value := valueAt(row, at)
		if value.State == change.Unchanged && other != nil {
			value = valueAt(other, at)
		}
		switch {
		case value.State == change.Null && !(k.nullsUnknown && row == &c.Old):
		case value.State == change.Text && len(value.Text) <= KeyBytesMax:
			arguments[i] = Text{string(value.Text), true}
		default:
			if !b.sweeps(k.number) {
				b.Sweep(k.number, Unknown, fmt.Sprintf("%s that does not show the %s its keys are looked up by: %s", c.Op, k.asks.Arguments[i].Column, mend(c)), "")
			}
			return
		}
	}
	b.ask(Question{Lookup: k.lookup, Arguments: arguments})
}

// ask adds a question, unless the batch has it already.
func (b *Batch) ask(q Question) {
	if !slices.ContainsFunc(b.Questions, func(before Question) bool {
		return before.Lookup == q.Lookup && slices.Equal(before.Arguments, q.Arguments)
	}) {
		b.Questions = append(b.Questions, q)
	}
}
