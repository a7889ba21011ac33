package query

import (
	pg "github.com/pganalyze/pg_query_go/v6"
)

// The tree of a bound query. Its nodes are items, what stands in FROM, and blocks,
// one SELECT or set operation each. Every occurrence of a table is an item of its
// own; a view, and each reference to a CTE, is a block of its own.

// An item is something in a FROM clause.
type item struct {
	kind  itemKind
	name  string // what it is called; empty: nothing
	place int    // byte of the query as it was written

	relation *Relation        // of a table
	only     bool             // without what inherits from it
	used     map[string][]int // its columns that matter, each with the binder's conditions that read it
	block    *block           // of a subquery
	join     pg.JoinType
	left     *item
	right    *item
	on       []*conjunct
	using    []string // the columns that a join has merged

	outputs []output // its visible columns; a table's too
	// anyColumn: it may have columns that outputs does not tell.
	anyColumn bool

	up any // *item, a join; *block, which has it in its FROM
}

type itemKind uint8

const (
	itemTable itemKind = iota
	itemBlock
	itemJoin
	// itemOpaque has columns of which nothing is known: a function, a VALUES list.
	itemOpaque
)

// An output is a column that an item or a block shows.
type output struct {
	name string
	// value is what it stands for; nil: nobody knows.
	value *scalar
	// held: a condition on it must not be carried into the block that shows it.
	held bool
}

// A block is a SELECT, or a set operation of two blocks.
type block struct {
	from    []*item
	where   []*conjunct
	outputs []output
	arms    []*block // of a set operation
	// anyColumn: it shows columns that outputs does not tell.
	anyColumn bool
	// standing: it shows a row even where it reads none.
	standing bool
	// filtering: its WHERE is being bound.
	filtering bool

	up any // *item, a subquery; *sublink; *block, a set operation; nil: the query itself
}

// A sublink is a subquery in an expression of a block or of a join's ON.
type sublink struct {
	block *block
	up    any // *block or *item, a join
	// required: where it shows no row, whatever has the expression is no result.
	required bool
	// filters: it is in the WHERE of its block, whose rows it is asked for.
	filters bool
	// equal ties the rows that it shows to what they are compared with.
	// carried: also those that come or go are told by it.
	equal   []*conjunct
	carried bool
}

// A reference is a column that an expression reads.
type reference struct {
	item *item  // the table; nil: of something opaque
	name string // of the column; empty: all of them
	// through are the blocks that the reference goes through and that hold its
	// column: see output.held.
	through []*block
	// from are all items that the reference goes through, the table included.
	from []*item
}

// A scalar is a bound expression.
type scalar struct {
	node       *pg.Node // nobody changes it
	references map[*pg.ColumnRef]*resolved
	parameters []int // indexes into Query.Parameters
	// opaque: it cannot be written anywhere else, because of a subquery, an
	// aggregate, or a column of which nothing is known.
	opaque                    bool
	aggregates, windows, sets bool
	reads                     []reference // all that it reads, through subqueries too
	// within are the items that show it: where one of them is missing it is NULL.
	within []*item
}

// resolved is what a column name in a scalar stands for: a column of a table, or
// the expression that the block which shows it has for it.
type resolved struct {
	reference
	value *scalar // not nil: of an expression
	// union, if not nil, is the set operation whose column it is; held are the blocks
	// on the way to it that hold the column.
	union  *block
	column int
	held   []*block
}

// A conjunct is one condition of an AND.
type conjunct struct {
	*scalar
	place any // *item, a join's ON; *block, its WHERE or HAVING
	// left and right are the sides of an equality.
	left, right *scalar
	// any are the alternatives of an OR, each an AND.
	any [][]*conjunct
	// sublink is the subquery that is the condition.
	sublink *sublink
}
