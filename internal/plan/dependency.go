package plan

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/unstale/unstale/internal/change"
)

// A Dependency says which keys of an entry a change to the rows of one table
// makes stale. A query has one for each place where it reads a table.
type Dependency struct {
	Schema, Table string
	// Partitioned and PrimaryKey: see Entry.
	Partitioned bool
	PrimaryKey  []string
	// Columns matter: an update that touches none of them does nothing.
	Columns []string
	// Where spares the row versions that cannot be part of any result; nil: none
	// can be told apart.
	Where *Predicate
	// Filtering are those of Columns that nothing but Filters reads, which are decided on
	// the row alone: an update that touches no other of Columns, and leaves what each
	// filter says as it was, does nothing.
	Filtering []string
	Filters   []Predicate
	// Paths lead from a version of the row to keys, each to some of them. Without
	// any, every key of the entry is concerned. Why says why, and why a path is in part
	// only.
	Paths []Path
	Why   string

	// Place is the byte of the query at which the table stands, Alias what it is
	// called there. For people.
	Place int
	Alias string
}

// A Path leads from a row to the values of the key's placeholders: by columns of
// the row itself or by a lookup.
type Path struct {
	// Key has the columns, one for each placeholder. An empty one is not known: the
	// path leads to every key that has the values of the others.
	Key    []string
	Lookup *Lookup // nil: Key
}

// InPart reports whether the path does not tell every placeholder, so that its keys are
// swept.
func (p *Path) InPart() bool { return p.Lookup == nil && slices.Contains(p.Key, "") }

// Sweeps reports whether changes may sweep keys, as the plan has it.
func (d *Dependency) Sweeps() bool {
	return len(d.Paths) == 0 || slices.ContainsFunc(d.Paths, func(p Path) bool { return p.InPart() })
}

// Columns are those of the changed row that the path begins with.
func (p *Path) Columns() []string {
	if p.Lookup == nil {
		return slices.DeleteFunc(slices.Clone(p.Key), func(name string) bool { return name == "" })
	}
	columns := make([]string, len(p.Lookup.Arguments))
	for i, argument := range p.Lookup.Arguments {
		columns[i] = argument.Column
	}
	return columns
}

// A Lookup is a statement that finds key values for many rows at once. Its
// parameters are text arrays of equal length, one for each argument; its rows are
// texts, one for each placeholder.
type Lookup struct {
	SQL       string     `json:"sql"`
	Arguments []Argument `json:"arguments"`
	// Through are the tables that it reads, in the order of the statement; of one that
	// is Written by a person they are not known.
	Through []Through `json:"through"`
	Written bool      `json:"written,omitempty"`
	// Reads is how many tables a Written one names, each as often as it does.
	Reads int `json:"-"`
	// Index, if not nil, can answer in place of the database; else NoIndex says, where
	// somebody asked for that, why none can.
	Index   *Index `json:"index,omitempty"`
	NoIndex string `json:"no_index,omitempty"`
}

// Through is a table on the way of a lookup.
type Through struct {
	Schema string `json:"schema"`
	Table  string `json:"table"`
	// Columns are those that an equality ties to the row or to another table: one
	// of them had better be indexed.
	Columns []string `json:"columns"`
	// Reads are all that the lookup reads of it.
	Reads []string `json:"-"`
}

// An Argument is a column of the changed row.
type Argument struct {
	Column string `json:"column"`
	Type   string `json:"type"` // as PostgreSQL spells it
}

// Op of a Predicate.
type PredicateOp uint8

const (
	// Undecidable may be anything.
	Undecidable PredicateOp = iota
	And
	Or
	Not
	// IsNull, IsTrue and IsFalse of a column are never NULL themselves.
	IsNull
	IsTrue
	IsFalse
	// Among: the column's text is one of Values. For types whose equality is that
	// of their texts.
	Among
	// Less and LessOrEqual compare a whole number with Number.
	Less
	LessOrEqual
)

// A Predicate is decided on a row alone, in SQL's logic of three values.
type Predicate struct {
	Op     PredicateOp
	Args   []Predicate
	Column string
	Values []string
	Number int64
}

// truth is the set of what a predicate may be.
type truth uint8

const (
	isTrue truth = 1 << iota
	isFalse
	isNull
	anything = isTrue | isFalse | isNull
)

func known(b bool) truth {
	if b {
		return isTrue
	}
	return isFalse
}

func (t truth) not() truth {
	n := t & isNull
	if t&isTrue != 0 {
		n |= isFalse
	}
	if t&isFalse != 0 {
		n |= isTrue
	}
	return n
}

// and is what the conjunction of one of t and one of u may be.
func (t truth) and(u truth) truth {
	var n truth
	if t&isTrue != 0 && u&isTrue != 0 {
		n |= isTrue
	}
	if t&isFalse != 0 || u&isFalse != 0 {
		n |= isFalse
	}
	if t&isNull != 0 && u&(isNull|isTrue) != 0 || u&isNull != 0 && t&(isNull|isTrue) != 0 {
		n |= isNull
	}
	return n
}

// Columns adds those that the predicate reads to dst.
func (p *Predicate) Columns(dst []string) []string {
	if p == nil {
		return dst
	}
	if p.Column != "" && !slices.Contains(dst, p.Column) {
		dst = append(dst, p.Column)
	}
	for i := range p.Args {
		dst = p.Args[i].Columns(dst)
	}
	return dst
}

// Exact reports whether all of it can be decided.
func (p *Predicate) Exact() bool {
	return p.Op != Undecidable && !slices.ContainsFunc(p.Args, func(arg Predicate) bool { return !arg.Exact() })
}

// A test is a Predicate compiled for one description of its table.
type test struct {
	*Predicate
	args []test
	// at is the index of the column into change.Row.Values; -1: the relation has no
	// such column.
	at int
	// identifies: the column is part of the replica identity.
	identifies bool
}

// A version is what is known of the row that a test is decided on.
type version struct {
	row *change.Row
	// other, if not nil, has what row leaves out because it did not change.
	other *change.Row
	// before: row is the new one, and the old one is meant, of which nothing is shown:
	// the columns of the identity are as they were, and no other is known.
	before bool
	// nullsUnknown: a NULL may stand for a value that a partition's identity did not
	// give.
	nullsUnknown bool
}

// passes reports whether the row may satisfy the predicate. What may be true need not
// be told from what may be NULL, and mostly a row passes or does not by one column.
func (p *test) passes(v *version) bool {
	switch {
	case p.Predicate == nil:
		return true
	case p.Op == And:
		for i := range p.args {
			if !p.args[i].passes(v) {
				return false
			}
		}
		return true
	case p.Op == Or:
		for i := range p.args {
			if p.args[i].passes(v) {
				return true
			}
		}
		return false
	}
	return p.eval(v)&isTrue != 0
}

func (p *test) eval(of *version) truth {
	switch p.Op {
	case And, Or:
		all := isTrue
		for i := range p.args {
			t := p.args[i].eval(of)
			if p.Op == Or {
				t = t.not()
			}
			if t == isTrue {
				continue
			}
			if all = all.and(t); all == isFalse {
				break // whatever the others are
			}
		}
		if p.Op == Or {
			return all.not()
		}
		return all
	case Not:
		return p.args[0].eval(of).not()
	case Undecidable:
		return anything
	}
	if of.before && !p.identifies {
		return anything
	}
	v := argument(of.row, of.other, p.at)
	switch v.State {
	case change.Null:
		switch {
		case of.nullsUnknown:
			return anything
		case p.Op == IsNull:
			return isTrue
		case p.Op == IsTrue, p.Op == IsFalse:
			return isFalse
		}
		return isNull
	case change.Text:
	case change.Unchanged, change.Long:
		if p.Op == IsNull {
			return isFalse
		}
		return anything
	default:
		return anything
	}
	switch p.Op {
	case IsNull:
		return isFalse
	case IsTrue:
		return known(string(v.Text) == "t")
	case IsFalse:
		return known(string(v.Text) == "f")
	case Among:
		for _, text := range p.Values {
			if text == string(v.Text) {
				return isTrue
			}
		}
		return isFalse
	default:
		n, ok := whole(v.Text)
		if !ok {
			return anything
		}
		return known(n < p.Number || n == p.Number && p.Op == LessOrEqual)
	}
}

// whole reads a whole number as PostgreSQL prints it.
func whole(text []byte) (n int64, ok bool) {
	negative := len(text) > 0 && text[0] == '-'
	if negative {
		text = text[1:]
	}
	if len(text) == 0 || len(text) > 19 {
		return 0, false
	}
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, false
		}
		// Below zero there is room for one more: of -9223372036854775808 too.
		if n = 10*n - int64(c-'0'); n > 0 {
			return 0, false
		}
	}
	if negative {
		return n, true
	}
	return -n, n != math.MinInt64
}

// String is the predicate as SQL would have it; what cannot be decided is an
// ellipsis.
func (p Predicate) String() string {
	several := func(word string) string {
		parts := make([]string, len(p.Args))
		for i := range p.Args {
			parts[i] = p.Args[i].String()
		}
		return "(" + strings.Join(parts, word) + ")"
	}
	switch p.Op {
	case And:
		return several(" AND ")
	case Or:
		return several(" OR ")
	case Not:
		if p.Args[0].Op == IsNull {
			return p.Args[0].Column + " IS NOT NULL"
		}
		return "NOT " + p.Args[0].String()
	case IsNull:
		return p.Column + " IS NULL"
	case IsTrue:
		return p.Column + " IS TRUE"
	case IsFalse:
		return p.Column + " IS FALSE"
	case Among:
		if len(p.Values) == 1 {
			return fmt.Sprintf("%s = '%s'", p.Column, p.Values[0])
		}
		return fmt.Sprintf("%s IN ('%s')", p.Column, strings.Join(p.Values, "', '"))
	case Less:
		return fmt.Sprintf("%s < %d", p.Column, p.Number)
	case LessOrEqual:
		return fmt.Sprintf("%s <= %d", p.Column, p.Number)
	}
	return "…"
}
