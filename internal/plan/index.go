package plan

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
)

// An Index has, for each combination of values of some columns of a table, the set of
// the values of others: it answers the lookups that lead from the one to the other. A
// row is in it whatever else the lookup asks of it, so it leads to no key too few.
type Index struct {
	Schema string   `json:"schema"`
	Table  string   `json:"table"`
	Join   []string `json:"join"` // the columns by which a set is named
	Key    []string `json:"key"`  // those of its members, one for each placeholder
	// By has, for each column of Join, which of the lookup's arguments is equal to it.
	By []int `json:"by"`
	// Unique: no two rows have the same values in Join and Key. Else no member is ever
	// taken out, since another row may have it too.
	Unique bool `json:"unique"`
	// Types are those of Join and Key, as PostgreSQL spells them.
	Types []string `json:"types"`
	// SQL finds the members of sets. Its parameters are text arrays of equal length, one
	// for each column of Join; its rows are texts, one for each of Key.
	SQL string `json:"sql"`
}

// UniqueBy reports whether x is Unique where each of keys has columns that tell any two
// rows apart.
func (x *Index) UniqueBy(keys [][]string) bool {
	return slices.ContainsFunc(keys, func(key []string) bool {
		return !slices.ContainsFunc(key, func(column string) bool {
			return !slices.Contains(x.Join, column) && !slices.Contains(x.Key, column)
		})
	})
}

// EntryIndex is an index and whose keys it finds.
type EntryIndex struct {
	Entry int // index into Planner.Entries
	*Index
}

// Definition is another one wherever the sets for keys of e would hold something else:
// lookups that have it in common have one index.
func (x *Index) Definition(e *Entry) string {
	return fmt.Sprintf("%q %q %q %q %q %q %q %v", e.Name, e.Key, x.Schema, x.Table, x.Join, x.Key, x.Types, x.Unique)
}

// Indexes returns what answers lookups of e, each once.
func (e *Entry) Indexes() []*Index {
	var indexes []*Index
	var definitions []string
	for _, d := range e.Dependencies {
		for _, path := range d.Paths {
			if path.Lookup == nil || path.Lookup.Index == nil {
				continue
			}
			if definition := path.Lookup.Index.Definition(e); !slices.Contains(definitions, definition) {
				indexes, definitions = append(indexes, path.Lookup.Index), append(definitions, definition)
			}
		}
	}
	return indexes
}

// Indexes returns those of all entries. Batches name one by its index.
func (p *Planner) Indexes() []EntryIndex { return p.indexes }

// indexOf returns the number of the index that answers a lookup of an entry; -1: none
// does.
func (p *Planner) indexOf(entry int, of *Lookup) int {
	if of.Index == nil {
		return -1
	}
	e := &p.entries[entry]
	definition := of.Index.Definition(e)
	return slices.IndexFunc(p.indexes, func(x EntryIndex) bool { return x.Entry == entry && x.Definition(e) == definition })
}

// An IndexSet is one set of an index.
type IndexSet struct {
	Index int // index into Planner.Indexes
	// Name is what its name has of the values of Join, and Values are those.
	Name   string
	Values []string
}

// SetOf returns the set that answers a question of a lookup that has an index; it is not
// ok if the answer is that there are no keys: NULL is equal to nothing.
func (p *Planner) SetOf(q *Question) (set IndexSet, ok bool) {
	lookup := &p.lookups[q.Lookup]
	set.Index = lookup.Indexed
	var name []byte
	for i, by := range lookup.Index.By {
		argument := q.Arguments[by]
		if !argument.Valid {
			return IndexSet{}, false
		}
		name = guard.AppendIndexed(name, i, []byte(argument.Text))
		set.Values = append(set.Values, argument.Text)
	}
	set.Name = string(name)
	return set, true
}

// An Answer is what a set of an index has; a zero one says nothing.
type Answer struct {
	Whole   bool       // Members are all that there are
	Members [][][]byte // each has a value for each placeholder
	// Token, if not empty, says that there are all, and too many to be given at once: it is
	// a member, until the set is another one.
	Token string
}

// A Building is one making of a set of an index.
type Building struct {
	Set IndexSet
	// Token is the member that tells it from every other, and how far it is.
	Token string
	// From is a position behind all that was seen by who has read the members. The set
	// may answer when everything up to there is written.
	From change.Position
}

// An Edit adds a member to a set of an index, or takes it out.
type Edit struct {
	Index int    // index into Planner.Indexes
	Set   []byte // see IndexSet.Name
	// Member is made of values as guard.AppendMember does.
	Member []byte
	Adds   bool
}

// Edits returns how many members the batch adds or takes out.
func (b *Batch) Edits() int { return len(b.adds) }

// Edit returns edit i, which is valid until Reset.
func (b *Batch) Edit(i int) Edit {
	text := b.edited.at(i)
	set := text[4:]
	end := slices.Index(set, 0) // names of sets have no NUL
	return Edit{int(binary.BigEndian.Uint32(text)), set[:end], set[end+1:], b.adds[i]}
}

// indexProgram is an Index compiled for one description of its table.
type indexProgram struct {
	number int // of the index
	entry  int
	*Index
	join, key []int // indexes into change.Row.Values; -1: the relation has no such column
	// fixed are those columns that an update which shows no old row has left as they
	// were.
	fixed columnSet
	// nullsUnknown: a NULL in an old row may be no NULL.
	nullsUnknown bool
}

// compileIndex compiles one; want notes the columns that are to be decoded. The indexes
// are those of the relation until bind.
func (p *Planner) compileIndex(r *change.Relation, number int, want func(int)) indexProgram {
	x := indexProgram{number: number, entry: p.indexes[number].Entry, Index: p.indexes[number].Index}
	places := func(names []string) []int {
		var list []int
		for _, name := range names {
			at := columnOf(r, name)
			if list = append(list, at); at >= 0 {
				want(at)
			}
		}
		return list
	}
	x.join, x.key = places(x.Join), places(x.Key)
	for i := range p.entries[x.entry].Dependencies {
		d := &p.entries[x.entry].Dependencies[i]
		x.nullsUnknown = x.nullsUnknown || d.Partitioned && d.Schema == r.Schema && d.Table == r.Name
	}
	return x
}

// bind makes the indexes those of change.Row.Values.
func (x *indexProgram) bind(r *change.Relation, wanted []int) {
	for _, places := range [][]int{x.join, x.key} {
		for i, at := range places {
			if at < 0 {
				continue
			}
			places[i] = slices.Index(wanted, at)
			if r.Identity != change.IdentityFull && r.Columns[at].Identifies {
				x.fixed = x.fixed.add(places[i])
			}
		}
	}
}

// plan adds what c does to the members, also of an entry that is swept: so a set is right
// whether the sweep takes it away or not.
func (x *indexProgram) plan(c *change.Change, b *Batch) {
	switch c.Op {
	case change.Insert:
		x.add(c, b)
	case change.Update:
		if x.stays(c) {
			return
		}
		x.remove(c, b)
		x.add(c, b)
	case change.Delete:
		x.remove(c, b)
	}
}

// stays reports whether an update is known to have left the set and the member as they
// were.
func (x *indexProgram) stays(c *change.Change) bool {
	for _, places := range [2][]int{x.join, x.key} {
		for _, at := range places {
			before, after := valueAt(&c.Old, at), valueAt(&c.New, at)
			switch {
			case after.State == change.Unchanged:
			case c.Old.Kind == change.Absent && at >= 0 && x.fixed.has(at):
			case before.State == change.Text && after.State == change.Text && string(before.Text) == string(after.Text):
			case before.State == change.Null && after.State == change.Null && !x.nullsUnknown:
			default:
				return false
			}
		}
	}
	return true
}

// add adds the member that the new row is. Where that is not known the entry is swept.
func (x *indexProgram) add(c *change.Change, b *Batch) {
	switch column, state := x.member(&c.New, &c.Old, b); state {
	case change.Text:
		b.endEdit(true)
	case change.Null: // it is joined with nothing, or names no key
	case change.Long:
		b.Sweep(x.entry, Unknown, fmt.Sprintf("%s with a %s that is too long for an index", c.Op, column), "")
	default:
		b.Sweep(x.entry, Unknown, fmt.Sprintf("%s that does not show the %s that an index has: %s", c.Op, column, mend(c)), "")
	}
}

// remove takes out the member that the old row was, if that is known and no other row
// can be it. What stays though it should not leads to a key too many.
func (x *indexProgram) remove(c *change.Change, b *Batch) {
	if !x.Unique {
		return
	}
	if _, state := x.member(&c.Old, nil, b); state == change.Text {
		b.endEdit(false)
	}
}

// member begins an edit of what a row is. Where a column has no text it is none, and
// the state of that column is not Text.
func (x *indexProgram) member(row, other *change.Row, b *Batch) (column string, state change.ValueState) {
	b.beginEdit(x.number)
	for i, at := range x.join {
		value, ok := indexed(row, other, at)
		if !ok {
			b.edited.abandon()
			return x.Join[i], value.State
		}
		b.edited.text = guard.AppendIndexed(b.edited.text, i, value.Text)
	}
	b.edited.text = append(b.edited.text, 0)
	for i, at := range x.key {
		value, ok := indexed(row, other, at)
		if !ok {
			b.edited.abandon()
			return x.Key[i], value.State
		}
		b.edited.text = guard.AppendMember(b.edited.text, value.Text)
	}
	return "", change.Text
}

// indexed is a value that a set or a member can have.
func indexed(row, other *change.Row, at int) (value change.Value, ok bool) {
	value = argument(row, other, at)
	if value.State == change.Text && len(value.Text) > KeyBytesMax {
		value.State = change.Long
	}
	return value, value.State == change.Text
}

// beginEdit begins one: what is appended to b.edited.text until endEdit.
func (b *Batch) beginEdit(index int) {
	if b.edited.index == nil {
		b.edited = newDistinct(BatchKeysMax)
	}
	b.edited.text = binary.BigEndian.AppendUint32(b.edited.text, uint32(index))
}

// endEdit closes an edit, which replaces an earlier one of the same member.
func (b *Batch) endEdit(adds bool) {
	if i, found := b.edited.end(); found {
		b.adds[i] = adds
	} else {
		b.adds = append(b.adds, adds)
	}
}
