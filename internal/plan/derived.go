package plan

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/unstale/unstale/internal/change"
)

// A Question asks a lookup which keys one version of a row leads to.
type Question struct {
	Lookup    int // index into Planner.Lookups
	Arguments []Text
}

// Append appends what tells q from every other question.
func (q *Question) Append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(q.Lookup))
	for _, argument := range q.Arguments {
		if !argument.Valid {
			dst = append(dst, 0)
			continue
		}
		dst = binary.AppendUvarint(dst, uint64(len(argument.Text)+1))
		dst = append(dst, argument.Text...)
	}
	return dst
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
	// identified: an update that shows no old row has left all that the paths begin
	// with as it was.
	identified bool
	where      test
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
	program := dependencyProgram{number: number, entry: e, Dependency: d, identified: true}
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
		compiled.keyProgram = keyProgram{
			number: number, entry: e, template: e.Key, columns: path.Columns(),
			identified: r.Identity != change.IdentityFull, nullsUnknown: d.Partitioned,
		}
		if path.Lookup != nil {
			compiled.lookup = slices.IndexFunc(p.lookups, func(l EntryLookup) bool { return l.Lookup == path.Lookup })
		}
		var places []int
		for _, name := range compiled.columns {
			at := column(name)
			places = append(places, at)
			compiled.identified = compiled.identified && at >= 0 && r.Columns[at].Identifies
		}
		if path.Lookup != nil {
			compiled.arguments = places
		} else {
			compiled.values = places
		}
		program.identified = program.identified && compiled.identified
		program.paths = append(program.paths, compiled)
	}
	program.where = compileTest(r, d.Where, column)
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

func compileTest(r *change.Relation, p *Predicate, column func(name string) int) test {
	t := test{Predicate: p, at: -1}
	if p == nil {
		return t
	}
	if p.Column != "" {
		t.at = column(p.Column)
		t.identifies = t.at >= 0 && r.Columns[t.at].Identifies
	}
	for i := range p.Args {
		t.args = append(t.args, compileTest(r, &p.Args[i], column))
	}
	return t
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
	d.where.bind(wanted)
}

func (p *test) bind(wanted []int) {
	if p.at >= 0 {
		p.at = slices.Index(wanted, p.at)
	}
	for i := range p.args {
		p.args[i].bind(wanted)
	}
}

func (d *dependencyProgram) plan(c *change.Change, b *Batch) {
	if b.sweeps(d.number) && c.Op != change.Truncate && c.Op != change.Undecodable {
		return // every key goes anyway
	}
	switch c.Op {
	case change.Insert:
		d.touch(c, version{row: &c.New}, b)
	case change.Update:
		d.update(c, b)
	case change.Delete:
		d.touch(c, version{row: &c.Old, nullsUnknown: d.Partitioned}, b)
	case change.Truncate:
		b.Sweep(d.number, Truncated, "", "")
	case change.Undecodable:
		b.Sweep(d.number, Unknown, c.Reason, "")
	default:
		panic(fmt.Sprintf("plan: a change of kind %v on a relation", c.Op))
	}
}

func (d *dependencyProgram) update(c *change.Change, b *Batch) {
	if d.untouched(c) {
		return
	}
	after := version{row: &c.New, other: &c.Old}
	if c.Old.Kind != change.Absent {
		d.touch(c, version{row: &c.Old, nullsUnknown: d.Partitioned}, b)
		d.touch(c, after, b)
		return
	}
	before := version{row: &c.New, before: true}
	if !d.identified && d.where.passes(before) {
		b.Sweep(d.number, Unknown, "an update that shows no old row: "+mend(c), "")
		return
	}
	// Both versions lead to the same keys: what the new one does not pass, the old
	// one may have.
	if d.where.passes(before) || d.where.passes(after) {
		d.lead(c, after, b)
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
		case after.State == change.Unchanged:
		case before.State == change.Null && after.State == change.Null && !d.Partitioned:
		case before.State == change.Text && after.State == change.Text && string(before.Text) == string(after.Text):
		default:
			return false
		}
	}
	return true
}

// touch drops the keys that one version of a row leads to, or asks for them, if it
// can be part of a result.
func (d *dependencyProgram) touch(c *change.Change, v version, b *Batch) {
	if d.where.passes(v) {
		d.lead(c, v, b)
	}
}

func (d *dependencyProgram) lead(c *change.Change, v version, b *Batch) {
	if len(d.paths) == 0 {
		if !b.sweeps(d.number) {
			b.Sweep(d.number, Derived, d.Why, "")
		}
		return
	}
	for i := range d.paths {
		path := &d.paths[i]
		if path.asks != nil {
			path.ask(c, v.row, v.other, b)
		} else if path.key(c, v.row, v.other, b) {
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
				b.Sweep(k.number, Unknown, fmt.Sprintf("%s that does not show the %s its keys are looked up by: %s", c.Op, k.columns[i], mend(c)), "")
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
