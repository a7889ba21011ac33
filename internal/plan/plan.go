// Package plan decides which cache keys a change makes stale. It is pure: no
// I/O, no clock, no goroutines. The same change always gives the same effects.
//
// What it cannot decide it widens: where the keys of a change are unknown, the
// entries of its table are swept. It never guesses a key and never skips a
// change.
package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
)

// An Entry is a family of cached keys over one table: a change to a row drops
// the row's key.
type Entry struct {
	Name   string
	Key    *guard.Template
	Schema string
	Table  string
	// Partitioned: changes to the rows of partitions arrive under this table's
	// name, each with the replica identity of its partition.
	Partitioned bool
	// Lease is the longest time that a reader of this entry may take to load.
	Lease time.Duration
}

// A Planner turns changes into effects. It is not safe for concurrent use: it
// belongs to the goroutine that reads the source.
type Planner struct {
	entries []Entry
	// relations is indexed by change.Relation.Number.
	relations []relation
	// shapes remembers how each table was described last.
	shapes map[tableName]*change.Relation
}

type tableName struct{ schema, table string }

// relation is what a planner compiled for one description of one table.
type relation struct {
	keys []keyProgram
	// reshaped: the table was described otherwise before. Nobody sent a change
	// for the rows that an ALTER TABLE rewrote, so its entries are swept with
	// the first change that shows the new shape.
	reshaped bool
}

// keyProgram renders the key of one entry from a row of one relation.
type keyProgram struct {
	entry    int
	template *guard.Template
	// values are indexes into change.Row.Values, one for each placeholder; -1:
	// the relation has no such column.
	values []int
	// identified: the replica identity holds every key column. An update
	// without an old row has then left the key as it was. Under FULL an update
	// always shows its old row: one without comes from a partition with another
	// identity.
	identified bool
	// nullsUnknown: a NULL in an old row may stand for a value that the
	// partition's identity did not give.
	nullsUnknown bool
}

// New returns a planner for entries, whose names and templates must differ.
func New(entries []Entry) *Planner {
	return &Planner{entries: entries, shapes: map[tableName]*change.Relation{}}
}

// Entries returns the entries in the order given to New. Batches name an entry
// by its index.
func (p *Planner) Entries() []Entry { return p.entries }

// Compile prepares for the changes of a relation and returns the indexes of the
// columns that the plan reads, ascending. The source calls it once for each
// relation, before the relation's first change.
func (p *Planner) Compile(r *change.Relation) (wanted []int) {
	var compiled relation
	for i := range p.entries {
		e := &p.entries[i]
		if e.Schema != r.Schema || e.Table != r.Name {
			continue
		}
		program := keyProgram{entry: i, template: e.Key, identified: r.Identity != change.IdentityFull, nullsUnknown: e.Partitioned}
		for _, name := range e.Key.Columns() {
			at := slices.IndexFunc(r.Columns, func(c change.Column) bool { return c.Name == name })
			program.values = append(program.values, at)
			if at < 0 {
				program.identified = false
				continue
			}
			program.identified = program.identified && r.Columns[at].Identifies
			if !slices.Contains(wanted, at) {
				wanted = append(wanted, at)
			}
		}
		compiled.keys = append(compiled.keys, program)
	}
	slices.Sort(wanted)
	for _, program := range compiled.keys {
		for i, at := range program.values {
			if at >= 0 {
				program.values[i] = slices.Index(wanted, at)
			}
		}
	}
	if len(compiled.keys) > 0 {
		name := tableName{r.Schema, r.Name}
		if before := p.shapes[name]; before != nil {
			// A shape in which no change came is still one that was.
			compiled.reshaped = p.relations[before.Number].reshaped || !sameShape(before, r)
		}
		p.shapes[name] = r
	}
	for len(p.relations) <= r.Number {
		p.relations = append(p.relations, relation{})
	}
	p.relations[r.Number] = compiled
	return wanted
}

// sameShape reports whether a cached row looks the same under both.
func sameShape(a, b *change.Relation) bool {
	return a.OID == b.OID && slices.EqualFunc(a.Columns, b.Columns, func(x, y change.Column) bool {
		return x.Name == y.Name && x.TypeOID == y.TypeOID && x.TypeMod == y.TypeMod
	})
}

// Plan adds the effects of c to b, and moves b's end to c's position.
func (p *Planner) Plan(c *change.Change, b *Batch) {
	b.moveTo(c)
	if c.Relation == nil {
		return
	}
	compiled := &p.relations[c.Relation.Number]
	if compiled.reshaped {
		compiled.reshaped = false
		for i := range compiled.keys {
			b.Sweep(compiled.keys[i].entry, Reshaped, "its columns changed")
		}
	}
	for i := range compiled.keys {
		compiled.keys[i].plan(c, b)
	}
}

func (k *keyProgram) plan(c *change.Change, b *Batch) {
	switch c.Op {
	case change.Insert:
		k.drop(c, &c.New, nil, b)
	case change.Update:
		if c.Old.Kind != change.Absent {
			k.drop(c, &c.Old, nil, b)
		} else if !k.identified && !b.sweeps(k.entry) {
			b.Sweep(k.entry, Unknown, k.withoutOld(c))
		}
		k.drop(c, &c.New, &c.Old, b)
	case change.Delete:
		k.drop(c, &c.Old, nil, b)
	case change.Truncate:
		b.Sweep(k.entry, Truncated, "")
	case change.Undecodable:
		b.Sweep(k.entry, Unknown, c.Reason)
	default:
		panic(fmt.Sprintf("plan: a change of kind %v on a relation", c.Op))
	}
}

// drop drops the key of row. Where the log leaves a value out because it did
// not change, other has it.
func (k *keyProgram) drop(c *change.Change, row, other *change.Row, b *Batch) {
	b.begin()
	for i, at := range k.values {
		b.keys = k.template.AppendLiteral(b.keys, i)
		value := valueAt(row, at)
		if value.State == change.Unchanged && other != nil {
			value = valueAt(other, at)
		}
		switch value.State {
		case change.Null:
			b.abandon() // no key has a NULL in it
			if k.nullsUnknown && row == &c.Old && !b.sweeps(k.entry) {
				b.Sweep(k.entry, Unknown, fmt.Sprintf("%s shows NULL for the old %s, as a partition with a lesser replica identity does: %s and its partitions", c.Op, k.template.Columns()[i], mend(c)))
			}
			return
		case change.Text:
			b.keys = k.template.AppendValue(b.keys, value.Text)
		default:
			b.abandon()
			if !b.sweeps(k.entry) {
				b.Sweep(k.entry, Unknown, k.without(c, i))
			}
			return
		}
	}
	b.keys = k.template.AppendLiteral(b.keys, len(k.values))
	b.end()
}

// withoutOld says why the old key of an update that shows no old row is not
// known.
func (k *keyProgram) withoutOld(c *change.Change) string {
	for i, at := range k.values {
		if at < 0 {
			return k.without(c, i)
		}
	}
	return "an update that shows no old row: " + mend(c)
}

// without says why placeholder i of a key is not known.
func (k *keyProgram) without(c *change.Change, i int) string {
	column := k.template.Columns()[i]
	if k.values[i] < 0 {
		return fmt.Sprintf("the table has no column %s any more, or does not publish it", column)
	}
	return fmt.Sprintf("%s without its %s: %s", c.Op, column, mend(c))
}

func mend(c *change.Change) string {
	return fmt.Sprintf("ALTER TABLE %s.%s REPLICA IDENTITY FULL", quote(c.Relation.Schema), quote(c.Relation.Name))
}

func quote(identifier string) string {
	return `"` + strings.ReplaceAll(identifier, `"`, `""`) + `"`
}

func valueAt(row *change.Row, at int) change.Value {
	if at < 0 || at >= len(row.Values) {
		return change.Value{}
	}
	return row.Values[at]
}
