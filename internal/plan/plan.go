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
	"sync/atomic"
	"time"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/value"
)

// An Entry is a family of cached keys, over one table or over what Dependencies
// name.
type Entry struct {
	Name   string
	Key    *guard.Template
	Schema string
	Table  string
	// Dependencies are those of the results of Query; Schema and Table are empty then.
	Dependencies []Dependency
	Query        string
	DependsOn    string // what they are written as, if they do not follow from Query
	Load         string // Query, as a database.Load has it
	Many         bool   // its result has any number of rows; else one at most
	CacheAbsent  bool   // that there is no row is cached too
	RefreshMax   int    // keys that are loaded again for a row that asks a lookup
	// Partitioned: changes to the rows of partitions arrive under this table's
	// name, each with the replica identity of its partition. PrimaryKey is that of the
	// table then, and so of each partition; nil: it has none.
	Partitioned bool
	PrimaryKey  []string
	// Lease is how long the service may take to load a key.
	Lease    time.Duration
	OnChange OnChange

	// What a value is, for entries whose values the service writes: all but
	// those that are only invalidated. Their key columns identify a row.
	Columns []string // of the row; nil: all
	Hash    bool     // a Redis hash; else a string with a JSON object
	TTL     time.Duration
	Shape   value.Shape // of the table
	// Undescribed: there is no catalog to ask. A value has the columns that the
	// source shows, and is written if their types are known from there.
	Undescribed bool
}

// KeyBytesMax is the longest value that is part of a key. A row with a longer one
// has its entry swept: nobody caches under such a key.
const KeyBytesMax = 64 << 10

// OnChange is what a change of a row does to its key.
type OnChange uint8

const (
	// Invalidate drops it: the next reader loads.
	Invalidate OnChange = iota
	// Update SETs it from the change if it is cached. Where a change may not SET
	// the service loads it again.
	Update
	// Warm SETs it from the change, cached or not.
	Warm
	// Refresh drops it, and the service loads it again as a reader would.
	Refresh
)

// Sets reports whether changes of the entry SET values. Its readers leave
// shields then, and its drops keep them.
func (e *Entry) Sets() bool { return e.OnChange == Update || e.OnChange == Warm }

// Loads reports whether the service loads what a change has dropped; of Update,
// what was cached until then. Without a database it can load nothing.
func (e *Entry) Loads() bool { return e.OnChange != Invalidate && !e.Undescribed }

// Shapes are those of the tables of the entries, in their order.
type Shapes []value.Shape

// A Planner turns changes into effects. But for Know, it is not safe for
// concurrent use: it belongs to the goroutine that reads the source.
type Planner struct {
	entries []Entry
	// relations is indexed by change.Relation.Number.
	relations []relation
	// described remembers how each table was described last.
	described map[tableName]*change.Relation
	// known is what Know was told last, shapes what the relations were compiled
	// with.
	known  atomic.Pointer[Shapes]
	shapes *Shapes
	// lookups are those of all dependencies, indexes what answers some of them.
	lookups []EntryLookup
	indexes []EntryIndex
}

type tableName struct{ schema, table string }

// relation is what a planner compiled for one description of one table.
type relation struct {
	*change.Relation // as the log described it; nil if no entry is over it
	keys             []keyProgram
	dependencies     []dependencyProgram
	indexes          []indexProgram
	// moved is made anew for each update.
	moved columnSet
	nulls *nulls
	// reshaped: the table was described otherwise before. Nobody sent a change
	// for the rows that an ALTER TABLE rewrote, so its entries are swept with
	// the first change that shows the new shape.
	reshaped bool
}

// keyProgram renders the key of one entry from a row of one relation, and the
// value.
type keyProgram struct {
	number   int // of the entry
	entry    *Entry
	template *guard.Template
	// columns are those of the table that the values of the placeholders come from, or
	// the arguments of a lookup.
	columns []string
	// values are indexes into change.Row.Values, one for each placeholder; -1:
	// the relation has no such column.
	values []int
	// identified: the replica identity holds every key column. An update
	// without an old row has then left the key as it was. Under FULL an update
	// always shows its old row: one without comes from a partition with another
	// identity.
	identified bool
	// ordered: the changes that concern one key are in one stream, also where those
	// of the table are spread over several.
	ordered bool
	nulls   *nulls // of the relation
	// letters are those of the key's values.
	letters string
	// value renders what is SET; where it is nil, unrendered says why nothing is.
	value      *value.Program
	unrendered string
}

// New returns a planner for entries, whose names and templates must differ.
func New(entries []Entry) *Planner {
	shapes := make(Shapes, len(entries))
	for i := range entries {
		shapes[i] = entries[i].Shape
	}
	p := &Planner{entries: entries, described: map[tableName]*change.Relation{}, shapes: &shapes}
	for i := range entries {
		for _, x := range entries[i].Indexes() {
			p.indexes = append(p.indexes, EntryIndex{i, x})
		}
		for _, d := range entries[i].Dependencies {
			for _, path := range d.Paths {
				if path.Lookup != nil {
					p.lookups = append(p.lookups, EntryLookup{i, path.Lookup, p.indexOf(i, path.Lookup)})
				}
			}
		}
	}
	p.known.Store(&shapes)
	return p
}

// Entries returns the entries in the order given to New. Batches name an entry
// by its index.
func (p *Planner) Entries() []Entry { return p.entries }

// Know tells the planner what the tables look like now. It may be called beside
// the other methods. What was planned before, and changes that were committed
// before the tables were looked at, may have been rendered wrongly: whoever
// calls it must let them SET nothing.
func (p *Planner) Know(shapes Shapes) { p.known.Store(&shapes) }

// Compile prepares for the changes of a relation and returns the indexes of the
// columns that the plan reads, ascending. The source calls it once for each
// relation, before the relation's first change.
func (p *Planner) Compile(r *change.Relation) (wanted []int) {
	compiled := relation{nulls: &nulls{}}
	want := func(column int) {
		if !slices.Contains(wanted, column) {
			wanted = append(wanted, column)
		}
	}
	for i := range p.entries {
		e := &p.entries[i]
		for j := range e.Dependencies {
			if d := &e.Dependencies[j]; d.Schema == r.Schema && d.Table == r.Name {
				compiled.dependencies = append(compiled.dependencies, p.compileDependency(r, i, d, compiled.nulls, want))
				compiled.nulls.of(d.Partitioned, d.PrimaryKey)
			}
		}
		if e.Schema != r.Schema || e.Table != r.Name {
			continue
		}
		program := keyProgram{number: i, entry: e, template: e.Key, columns: e.Key.Columns(), identified: r.Identity != change.IdentityFull, ordered: ordered(r, e.Key.Columns()), nulls: compiled.nulls}
		compiled.nulls.of(e.Partitioned, e.PrimaryKey)
		var alphabets []guard.Alphabet
		for _, name := range program.columns {
			at := columnOf(r, name)
			program.values = append(program.values, at)
			alphabets = append(alphabets, guard.AnyText)
			if at < 0 {
				program.identified = false
				continue
			}
			program.identified = program.identified && r.Columns[at].Identifies
			alphabets[len(alphabets)-1] = Alphabet(r.Columns[at].TypeOID)
			want(at)
		}
		program.letters = guard.Letters(alphabets...)
		// Which columns a value has is known when its shape is, which may change
		// while the relation stays as it is.
		for at := range r.Columns {
			if e.Sets() && (e.Columns == nil || slices.Contains(e.Columns, r.Columns[at].Name)) {
				want(at)
			}
		}
		compiled.keys = append(compiled.keys, program)
	}
	for i := range p.indexes {
		if p.indexes[i].Schema == r.Schema && p.indexes[i].Table == r.Name {
			compiled.indexes = append(compiled.indexes, p.compileIndex(r, i, want))
		}
	}
	slices.Sort(wanted)
	for _, program := range compiled.keys {
		for i, at := range program.values {
			if at >= 0 {
				program.values[i] = slices.Index(wanted, at)
			}
		}
	}
	for i := range compiled.dependencies {
		compiled.dependencies[i].bind(r, wanted)
	}
	compiled.nulls.bind(r, wanted)
	for i := range compiled.indexes {
		compiled.indexes[i].bind(r, wanted)
	}
	if len(compiled.keys)+len(compiled.dependencies) > 0 {
		// A copy: the source sets Wanted when this returns.
		described := *r
		described.Wanted = wanted
		compiled.Relation = &described
		compiled.moved = make(columnSet, (len(wanted)+63)/64)
		p.compileValues(&compiled)
		name := tableName{r.Schema, r.Name}
		if before := p.described[name]; before != nil {
			// A shape in which no change came is still one that was.
			compiled.reshaped = p.relations[before.Number].reshaped || !sameShape(before, r)
		}
		p.described[name] = r
	}
	for len(p.relations) <= r.Number {
		p.relations = append(p.relations, relation{})
	}
	p.relations[r.Number] = compiled
	return wanted
}

// compileValues compiles what the relation's entries SET.
func (p *Planner) compileValues(r *relation) {
	for i := range r.keys {
		k := &r.keys[i]
		if !k.entry.Sets() {
			continue
		}
		shape := (*p.shapes)[k.number]
		if k.entry.Undescribed {
			shape = shownShape(r.Relation)
		}
		if k.value, k.unrendered = shape.Compile(r.Relation, k.entry.Columns); k.value != nil {
			k.value.Bind(r.Wanted)
		}
	}
}

// shownShape is what the relation itself shows of its table.
func shownShape(r *change.Relation) value.Shape {
	var shape value.Shape
	for _, c := range r.Columns {
		column := value.Column{Name: c.Name, TypeOID: c.TypeOID, TypeMod: c.TypeMod}
		if c.TypeOID != 0 {
			column.Type = &value.Type{OID: c.TypeOID, Name: fmt.Sprintf("type %d", c.TypeOID)}
		}
		shape.Columns = append(shape.Columns, column)
	}
	return shape
}

// learn compiles every value anew, if Know was called.
func (p *Planner) learn() {
	known := p.known.Load()
	if known == p.shapes {
		return
	}
	p.shapes = known
	for i := range p.relations {
		p.compileValues(&p.relations[i])
	}
}

// Alphabet returns that of the values of a type. It is a free text where it is not
// one of PostgreSQL's own; a domain is not.
// https://github.com/postgres/postgres/blob/master/src/include/catalog/pg_type.dat
func Alphabet(typeOID uint32) guard.Alphabet {
	switch typeOID {
	case 20, 21, 23, 26: // int8, int2, int4, oid
		return guard.Integer
	case 2950: // uuid
		return guard.UUID
	case 16: // bool
		return guard.Boolean
	}
	return guard.AnyText
}

func columnOf(r *change.Relation, name string) int {
	return slices.IndexFunc(r.Columns, func(c change.Column) bool { return c.Name == name })
}

// ordered reports whether rows with the same key have the same Keyed columns.
func ordered(r *change.Relation, key []string) bool {
	keyed := false
	for _, c := range r.Columns {
		if c.Keyed && !slices.Contains(key, c.Name) {
			return false
		}
		keyed = keyed || c.Keyed
	}
	return keyed
}

// sameShape reports whether a cached row looks the same under both.
func sameShape(a, b *change.Relation) bool {
	return a.OID == b.OID && slices.EqualFunc(a.Columns, b.Columns, func(x, y change.Column) bool {
		return x.Name == y.Name && x.TypeOID == y.TypeOID && x.TypeMod == y.TypeMod
	})
}

// Plan adds the effects of c to b, and moves b's end to c's position.
func (p *Planner) Plan(c *change.Change, b *Batch) {
	p.learn()
	sweeps := len(b.Sweeps)
	p.plan(c, b)
	// Of an entry that is swept already a second TRUNCATE shows in nothing else.
	if len(b.Sweeps) > sweeps || c.Op == change.Truncate {
		b.SweptTo = max(b.SweptTo, c.LSN)
	}
}

func (p *Planner) plan(c *change.Change, b *Batch) {
	b.moveTo(c)
	if c.Relation == nil {
		p.planAll(c, b)
		return
	}
	compiled := &p.relations[c.Relation.Number]
	if compiled.reshaped {
		compiled.reshaped = false
		for i := range compiled.keys {
			b.Sweep(compiled.keys[i].number, Reshaped, "its columns changed", compiled.keys[i].letters)
		}
		for i := range compiled.dependencies {
			b.Sweep(compiled.dependencies[i].number, Reshaped, "its columns changed", "")
		}
	}
	for i := range compiled.keys {
		compiled.keys[i].plan(c, b)
	}
	if len(compiled.dependencies) == 0 {
		return
	}
	var changed columnSet
	if c.Op == change.Update && c.Old.Kind == change.Whole {
		changed = compiled.moved
		moved(changed, c, compiled.nulls.unknown(&c.Old))
	}
	for i := range compiled.dependencies {
		compiled.dependencies[i].plan(c, changed, b)
	}
	for i := range compiled.indexes {
		compiled.indexes[i].plan(c, b)
	}
}

// planAll sweeps every entry, if c says that any of them may be concerned.
func (p *Planner) planAll(c *change.Change, b *Batch) {
	cause := Restarted
	switch c.Op {
	case change.Restart:
	case change.Undecodable:
		cause = Unknown
	default:
		return
	}
	for i := range p.entries {
		b.Sweep(i, cause, c.Reason, "")
	}
}

func (k *keyProgram) plan(c *change.Change, b *Batch) {
	switch c.Op {
	case change.Insert:
		k.put(c, b)
	case change.Update:
		if c.Old.Kind != change.Absent {
			k.remove(c, b)
		} else if !k.identified && !b.sweeps(k.number) {
			b.Sweep(k.number, Unknown, k.withoutOld(c), k.letters)
		}
		k.put(c, b)
	case change.Delete:
		k.remove(c, b)
	case change.Truncate:
		b.Sweep(k.number, Truncated, "", k.letters)
	case change.Undecodable:
		b.Sweep(k.number, Unknown, c.Reason, k.letters)
	default:
		panic(fmt.Sprintf("plan: a change of kind %v on a relation", c.Op))
	}
}

// remove drops the key of the old row.
func (k *keyProgram) remove(c *change.Change, b *Batch) {
	if k.key(c, &c.Old, nil, b) {
		b.end(item{entry: k.number, effect: k.dropping()})
	}
}

// put does to the key of the new row what the entry asks for.
func (k *keyProgram) put(c *change.Change, b *Batch) {
	if !k.key(c, &c.New, &c.Old, b) {
		return
	}
	it := item{entry: k.number, effect: k.dropping(), loads: k.entry.Loads() && c.Scan == change.Streamed, lsn: c.LSN, xid: c.XID, committedAt: c.CommittedAt, valueStart: len(b.values)}
	switch {
	case !k.entry.Sets():
	case c.Again, c.Spread && !k.ordered, c.Scan != change.Streamed && k.entry.Hash:
		b.doubted++
	default:
		reason := k.render(&c.New, b)
		switch {
		case reason != "":
			b.incomplete(k.number, reason)
		case c.Scan == change.Initial && k.entry.OnChange == Warm:
			it.effect = Restore
		case c.Scan != change.Streamed:
			it.effect = Compare
		case k.entry.Hash && len(b.values) == it.valueStart:
			it.loads = false // no column has a value: there is no such hash
		case k.entry.OnChange == Update:
			it.effect = SetCached
		default:
			it.effect = Set
		}
	}
	if it.effect == Forget && it.loads && k.entry.OnChange == Update {
		it.effect = Reload
	}
	b.end(it)
}

func (k *keyProgram) render(row *change.Row, b *Batch) (reason string) {
	switch {
	case k.value == nil:
		return k.unrendered
	case k.entry.Hash:
		b.values, reason = k.value.AppendFields(b.values, row)
	default:
		b.values, reason = k.value.AppendJSON(b.values, row)
	}
	return reason
}

func (k *keyProgram) dropping() Effect {
	if k.entry.Sets() {
		return Forget
	}
	return Drop
}

// key begins a key of b and renders that of row into it. Where the log leaves a
// value out because it did not change, other has it. It is not ok if there is
// no key; then either none is needed or the entry is swept.
func (k *keyProgram) key(c *change.Change, row, other *change.Row, b *Batch) (ok bool) {
	b.begin()
	for i := range k.values {
		b.keys.text = k.template.AppendLiteral(b.keys.text, i)
		value, known := k.shown(c, i, row, other, b)
		if !known {
			b.abandon()
			return false
		}
		b.keys.text = k.template.AppendValue(b.keys.text, value)
	}
	b.keys.text = k.template.AppendLiteral(b.keys.text, len(k.values))
	return true
}

// shown is the value of placeholder i, if the row shows one. Where it has to, but does
// not, the entry is swept.
func (k *keyProgram) shown(c *change.Change, i int, row, other *change.Row, b *Batch) (text []byte, ok bool) {
	value := argument(row, other, k.values[i])
	switch value.State {
	case change.Null: // no key has a NULL in it
		if row == &c.Old && k.nulls.unknown(row) && !b.sweeps(k.number) {
			b.Sweep(k.number, Unknown, fmt.Sprintf("%s shows NULL for the old %s, as a partition with a lesser replica identity does: %s and its partitions", c.Op, k.columns[i], mend(c)), k.letters)
		}
		return nil, false
	case change.Text:
		if len(value.Text) <= KeyBytesMax {
			return value.Text, true
		}
		value.State = change.Long
	}
	if !b.sweeps(k.number) {
		b.Sweep(k.number, Unknown, k.without(c, i, value.State), k.letters)
	}
	return nil, false
}

// withoutOld says why the old key of an update that shows no old row is not
// known.
func (k *keyProgram) withoutOld(c *change.Change) string {
	for i, at := range k.values {
		if at < 0 {
			return k.without(c, i, change.Missing)
		}
	}
	return "an update that shows no old row: " + mend(c)
}

// without says why placeholder i of a key is not known.
func (k *keyProgram) without(c *change.Change, i int, state change.ValueState) string {
	column := k.columns[i]
	switch {
	case k.values[i] < 0:
		return fmt.Sprintf("the table has no column %s any more, or does not publish it", column)
	case state == change.Long:
		return fmt.Sprintf("%s with a %s that is too long for a key", c.Op, column)
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
