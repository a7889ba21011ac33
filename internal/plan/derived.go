package plan

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
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
	// Indexed is the index that answers it, of Planner.Indexes; -1: the database does.
	Indexed int
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
		b.keys.text = e.Key.AppendValue(e.Key.AppendLiteral(b.keys.text, i), value)
	}
	b.keys.text = e.Key.AppendLiteral(b.keys.text, len(values))
	b.end(item{entry: number, effect: Drop, loads: loads && e.Loads()})
}

// dependencyProgram is a Dependency compiled for one description of its table.
type dependencyProgram struct {
	number int // of the entry
	entry  *Entry
	*Dependency
	nulls *nulls // of the relation
	// matters are the columns that do, for tables whose updates show the old row; nil:
	// it cannot be told.
	matters columnSet
	paths   []pathProgram
	// identified: an update that shows no old row has left all that the paths begin
	// with as it was.
	identified bool
	where      test
	decides    columnSet // the columns of where
	filters    []test
	beyond     columnSet // matters without the columns that only filters read
}

// pathProgram is a Path compiled so.
type pathProgram struct {
	keyProgram // of a direct one
	// around is, of a path in part, the key's template around its values; nil: it tells
	// every placeholder.
	around    []string
	asks      *Lookup // nil: direct
	lookup    int     // index into Planner.Lookups
	arguments []int   // indexes into change.Row.Values; -1: the relation has no such column
	// begins are the columns that the path begins with; nil where matters is.
	begins columnSet
}

// A columnSet has a bit for each index into change.Row.Values.
type columnSet []uint64

func (s columnSet) add(at int) columnSet {
	for len(s) <= at/64 {
		s = append(s, 0)
	}
	s[at/64] |= 1 << (at % 64)
	return s
}

func (s columnSet) has(at int) bool { return at/64 < len(s) && s[at/64]&(1<<(at%64)) != 0 }

func (s columnSet) meets(t columnSet) bool {
	for i := range min(len(s), len(t)) {
		if s[i]&t[i] != 0 {
			return true
		}
	}
	return false
}

// nulls tells whether a NULL in an old row is one. Of a partition it may stand for a
// value that its replica identity did not give, though that of the table is FULL.
type nulls struct {
	partitioned bool
	primaryKey  []string
	// beyond are indexes into change.Row.Values of columns outside of the primary key.
	beyond []int
}

func (n *nulls) of(partitioned bool, primaryKey []string) {
	if partitioned {
		n.partitioned, n.primaryKey = true, primaryKey
	}
}

func (n *nulls) bind(r *change.Relation, wanted []int) {
	for i, at := range wanted {
		if n.primaryKey != nil && !slices.Contains(n.primaryKey, r.Columns[at].Name) {
			n.beyond = append(n.beyond, i)
		}
	}
}

// unknown reports whether it may stand for something else. A partition that was made
// without thinking of it has the identity DEFAULT, which gives the primary key: an old
// row that shows more is whole. What somebody sets on a partition, the catalog tells.
func (n *nulls) unknown(old *change.Row) bool {
	return n.partitioned && !slices.ContainsFunc(n.beyond, func(at int) bool {
		state := valueAt(old, at).State
		return state == change.Text || state == change.Long
	})
}

// moved fills set with the columns that an update has changed, as far as the old row
// tells. Where NULL may stand for something that is not known it is no such column.
func moved(set columnSet, c *change.Change, nullsUnknown bool) {
	clear(set)
	for at := range min(64*len(set), max(len(c.Old.Values), len(c.New.Values))) {
		before, after := valueAt(&c.Old, at), valueAt(&c.New, at)
		switch {
		case after.State == change.Unchanged:
		case before.State == change.Null && after.State == change.Null && !nullsUnknown:
		case before.State == change.Text && after.State == change.Text && string(before.Text) == string(after.Text):
		default:
			set[at/64] |= 1 << (at % 64)
		}
	}
}

// compileDependency compiles one; want notes the columns that are to be decoded.
// The indexes are those of the relation until bind.
func (p *Planner) compileDependency(r *change.Relation, number int, d *Dependency, nulls *nulls, want func(int)) dependencyProgram {
	e := &p.entries[number]
	program := dependencyProgram{number: number, entry: e, Dependency: d, nulls: nulls, identified: true}
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
			identified: r.Identity != change.IdentityFull, nulls: nulls,
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
		if path.InPart() {
			compiled.around = e.Key.Around(func(placeholder int) bool { return path.Key[placeholder] != "" })
		}
		program.identified = program.identified && compiled.identified
		program.paths = append(program.paths, compiled)
	}
	program.where = compileTest(r, d.Where, column)
	for i := range d.Filters {
		program.filters = append(program.filters, compileTest(r, &d.Filters[i], column))
	}
	for _, name := range d.Columns {
		if r.Identity == change.IdentityFull {
			column(name)
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
		// Under FULL every column does; but an update that shows no old row then comes from
		// a partition with another identity, and which that is nobody says.
		t.identifies = t.at >= 0 && r.Identity != change.IdentityFull && r.Columns[t.at].Identifies
	}
	for i := range p.Args {
		t.args = append(t.args, compileTest(r, &p.Args[i], column))
	}
	return t
}

// bind makes the indexes those of change.Row.Values.
func (d *dependencyProgram) bind(r *change.Relation, wanted []int) {
	rebind := func(places []int) {
		for i, at := range places {
			if at >= 0 {
				places[i] = slices.Index(wanted, at)
			}
		}
	}
	full := r.Identity == change.IdentityFull
	for i := range d.paths {
		path := &d.paths[i]
		rebind(path.values)
		rebind(path.arguments)
		for _, name := range path.columns {
			if at := columnOf(r, name); at >= 0 && full {
				path.begins = path.begins.add(slices.Index(wanted, at))
			} else {
				full = false
			}
		}
	}
	d.where.bind(wanted)
	for _, name := range d.Where.Columns(nil) {
		if at := columnOf(r, name); at >= 0 {
			d.decides = d.decides.add(slices.Index(wanted, at))
		}
	}
	for _, name := range d.Columns {
		at := columnOf(r, name)
		full = full && at >= 0 // else the table is not what the query was planned for
		if full {
			d.matters = d.matters.add(slices.Index(wanted, at))
			if !slices.Contains(d.Filtering, name) {
				d.beyond = d.beyond.add(slices.Index(wanted, at))
			}
		}
	}
	for i := range d.filters {
		d.filters[i].bind(wanted)
	}
	if full && d.matters == nil {
		d.matters = columnSet{}
	}
	if !full {
		d.matters = nil
	}
}

func (p *test) bind(wanted []int) {
	if p.at >= 0 {
		p.at = slices.Index(wanted, p.at)
	}
	for i := range p.args {
		p.args[i].bind(wanted)
	}
}

// plan adds the effects of c. moved are the columns that an update has changed; nil: it
// does not show its whole old row.
func (d *dependencyProgram) plan(c *change.Change, moved columnSet, b *Batch) {
	if b.sweeps(d.number) && c.Op != change.Truncate && c.Op != change.Undecodable {
		return // every key goes anyway
	}
	switch c.Op {
	case change.Insert:
		d.touch(c, &version{row: &c.New}, b)
	case change.Update:
		d.update(c, moved, b)
	case change.Delete:
		d.touch(c, &version{row: &c.Old, nullsUnknown: d.nulls.unknown(&c.Old)}, b)
	case change.Truncate:
		b.Sweep(d.number, Truncated, "", "")
	case change.Undecodable:
		b.Sweep(d.number, Unknown, c.Reason, "")
	default:
		panic(fmt.Sprintf("plan: a change of kind %v on a relation", c.Op))
	}
}

func (d *dependencyProgram) update(c *change.Change, moved columnSet, b *Batch) {
	known := moved != nil && d.matters != nil
	if known && !d.matters.meets(moved) {
		return
	}
	after := version{row: &c.New, other: &c.Old}
	before := version{row: &c.Old, nullsUnknown: d.nulls.unknown(&c.Old)}
	if known && !d.beyond.meets(moved) && d.sayTheSame(&before, &after) {
		return
	}
	switch {
	case known:
		passes := d.where.passes(&after)
		passed := passes
		if d.decides.meets(moved) {
			passed = d.where.passes(&before)
		}
		if !passed && !passes {
			return
		}
		if len(d.paths) == 0 {
			d.sweep(b)
		}
		for i := range d.paths {
			path := &d.paths[i]
			// A path whose columns are as they were leads both to the same keys.
			if passed && (!passes || path.begins.meets(moved)) {
				d.follow(path, c, &c.Old, nil, b)
			}
			if passes {
				d.follow(path, c, &c.New, &c.Old, b)
			}
		}
	case c.Old.Kind != change.Absent:
		d.touch(c, &before, b)
		d.touch(c, &after, b)
	default:
		before = version{row: &c.New, before: true}
		if !d.identified && d.where.passes(&before) {
			b.Sweep(d.number, Unknown, "an update that shows no old row: "+mend(c), "")
			return
		}
		// Both versions lead to the same keys: what the new one does not pass, the old
		// one may have.
		if d.where.passes(&before) || d.where.passes(&after) {
			d.lead(c, &after, b)
		}
	}
}

// sayTheSame reports whether each filter surely says the same of two versions.
func (d *dependencyProgram) sayTheSame(before, after *version) bool {
	for i := range d.filters {
		said := d.filters[i].eval(after)
		if said != isTrue && said != isFalse && said != isNull || d.filters[i].eval(before) != said {
			return false
		}
	}
	return true
}

// touch drops the keys that one version of a row leads to, or asks for them, if it
// can be part of a result.
func (d *dependencyProgram) touch(c *change.Change, v *version, b *Batch) {
	if d.where.passes(v) {
		d.lead(c, v, b)
	}
}

func (d *dependencyProgram) lead(c *change.Change, v *version, b *Batch) {
	if len(d.paths) == 0 {
		d.sweep(b)
	}
	for i := range d.paths {
		d.follow(&d.paths[i], c, v.row, v.other, b)
	}
}

func (d *dependencyProgram) sweep(b *Batch) {
	b.Sweep(d.number, Derived, d.Why, "")
}

func (d *dependencyProgram) follow(path *pathProgram, c *change.Change, row, other *change.Row, b *Batch) {
	switch {
	case path.asks != nil:
		path.ask(c, row, other, b)
	case path.around != nil:
		path.sweep(c, row, other, d.Why, b)
	case path.key(c, row, other, b):
		b.end(item{entry: d.number, effect: Drop, loads: d.entry.Loads() && c.Scan == change.Streamed})
	}
}

// sweep adds the sweep of the keys that have the values of the row.
func (k *pathProgram) sweep(c *change.Change, row, other *change.Row, why string, b *Batch) {
	b.begin()
	defer b.abandon() // no key, the template of some
	for i := range k.values {
		value, ok := k.shown(c, i, row, other, b)
		if !ok {
			return
		}
		b.keys.text = k.template.AppendValue(append(b.keys.text, k.around[i]...), value)
	}
	b.keys.text = append(b.keys.text, k.around[len(k.values)]...)
	b.sweepPart(k.number, b.keys.text[b.keys.used():], why)
}

// ask adds the question that the row puts to the lookup, unless the batch has it
// already.
func (k *pathProgram) ask(c *change.Change, row, other *change.Row, b *Batch) {
	var hash maphash.Hash
	hash.SetSeed(b.keys.seed)
	for i, at := range k.arguments {
		value := argument(row, other, at)
		switch {
		case value.State == change.Null && !(row == &c.Old && k.nulls.unknown(row)):
			hash.WriteByte(0)
		case value.State == change.Text && len(value.Text) <= KeyBytesMax:
			hash.WriteByte(1)
			hash.Write(value.Text)
		default:
			if !b.sweeps(k.number) {
				b.Sweep(k.number, Unknown, fmt.Sprintf("%s that does not show the %s its keys are looked up by: %s", c.Op, k.columns[i], mend(c)), "")
			}
			return
		}
	}
	name := asked{k.lookup, hash.Sum64()}
	if at, found := b.asked[name]; found && k.same(&b.Questions[at], row, other) {
		return
	}
	// Of two questions with one hash the later is asked as often as it comes.
	if b.asked == nil {
		b.asked = map[asked]int{}
	}
	b.asked[name] = len(b.Questions)
	start := len(b.texts)
	for _, at := range k.arguments {
		value := argument(row, other, at)
		b.texts = append(b.texts, Text{string(value.Text), value.State == change.Text})
		b.textBytes += len(value.Text)
	}
	b.Questions = append(b.Questions, Question{Lookup: k.lookup, Arguments: b.texts[start:len(b.texts):len(b.texts)]})
}

// asked names a question.
type asked struct {
	lookup int
	hash   uint64
}

func (k *pathProgram) same(q *Question, row, other *change.Row) bool {
	for i, at := range k.arguments {
		value := argument(row, other, at)
		if q.Arguments[i].Valid != (value.State == change.Text) || q.Arguments[i].Text != string(value.Text) {
			return false
		}
	}
	return true
}

// argument is a value of the row; where the log leaves it out because it did not
// change, other has it. What is left out is no NULL: one in its place is what a partition
// with a lesser replica identity shows.
func argument(row, other *change.Row, at int) change.Value {
	value := valueAt(row, at)
	if value.State == change.Unchanged && other != nil {
		if before := valueAt(other, at); before.State != change.Null {
			return before
		}
	}
	return value
}
