package query

import (
	"fmt"
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// bindFrom binds one element of FROM. blk is the block that has it.
func (b *binder) bindFrom(node *pg.Node, inner *scope, blk *block) (*item, error) {
	switch n := node.Node.(type) {
	case *pg.Node_RangeVar:
		return b.bindRangeVar(n.RangeVar, inner)
	case *pg.Node_RangeSubselect:
		outer := inner.outer
		if n.RangeSubselect.Lateral {
			outer = inner
		}
		bound, err := b.bindSelect(n.RangeSubselect.Subquery.GetSelectStmt(), outer)
		if err != nil {
			return nil, err
		}
		it := &item{kind: itemBlock, place: -1, block: bound, outputs: slices.Clone(bound.outputs), anyColumn: bound.anyColumn}
		bound.up = it
		name(it, n.RangeSubselect.Alias)
		return it, nil
	case *pg.Node_JoinExpr:
		return b.bindJoin(n.JoinExpr, inner, blk)
	case *pg.Node_RangeFunction:
		it := &item{kind: itemOpaque, anyColumn: true, place: -1}
		for _, function := range n.RangeFunction.Functions {
			if _, err := b.bind(function.GetList().GetItems()[0], inner, blk); err != nil {
				return nil, err
			}
		}
		name(it, n.RangeFunction.Alias)
		if it.name == "" && len(n.RangeFunction.Functions) == 1 {
			if call := n.RangeFunction.Functions[0].GetList().GetItems()[0].GetFuncCall(); call != nil {
				it.name = call.Funcname[len(call.Funcname)-1].GetString_().GetSval()
			}
		}
		return it, nil
	case *pg.Node_RangeTableSample:
		return nil, b.refuse(n.RangeTableSample.Location, "TABLESAMPLE shows other rows each time", "leave it out")
	}
	// XMLTABLE and JSON_TABLE: functions with a syntax of their own.
	if _, err := b.bind(node, inner, blk); err != nil {
		return nil, err
	}
	it := &item{kind: itemOpaque, anyColumn: true, place: -1}
	name(it, aliasOf(node))
	return it, nil
}

func aliasOf(node *pg.Node) *pg.Alias {
	switch n := node.Node.(type) {
	case *pg.Node_RangeTableFunc:
		return n.RangeTableFunc.Alias
	case *pg.Node_JsonTable:
		return n.JsonTable.Alias
	}
	return nil
}

// name gives an item its alias.
func name(it *item, alias *pg.Alias) {
	if alias == nil {
		return
	}
	it.name = alias.Aliasname
	rename(it, alias.Colnames)
}

// rename gives the first columns of an item other names.
func rename(it *item, names []*pg.Node) {
	known := len(it.outputs)
	if it.block != nil && it.anyColumn {
		// Behind those whose number is not known nothing has a place.
		if known = slices.IndexFunc(it.outputs, func(o output) bool { return o.name == "" }); known < 0 {
			known = 0
		}
		for i := known; i < len(it.outputs) && len(names) > known; i++ {
			it.outputs[i].value, it.outputs[i].held = nil, true
		}
	}
	for i, name := range names {
		if i < known {
			it.outputs[i].name = name.GetString_().GetSval()
		} else if it.anyColumn {
			it.outputs = append(it.outputs, output{name: name.GetString_().GetSval(), held: true})
		}
	}
}

func (b *binder) bindRangeVar(v *pg.RangeVar, inner *scope) (*item, error) {
	if v.Schemaname == "" {
		if c := inner.cte(v.Relname); c != nil {
			return b.bindCTE(c, v)
		}
	}
	relation, err := b.catalog.Relation(v.Schemaname, v.Relname)
	if err != nil {
		return nil, err
	}
	named := v.Relname
	if v.Schemaname != "" {
		named = v.Schemaname + "." + named
	}
	if relation == nil {
		return nil, b.refuse(v.Location, "there is no table "+named, "name a table or a view of this database, with its schema if search_path does not have it")
	}
	if wrong, mend := unreadable(relation); wrong != "" {
		return nil, b.refuse(v.Location, named+" is "+wrong, mend)
	}
	for _, child := range relation.Children {
		if wrong, mend := unreadable(child); wrong != "" && v.Inh {
			return nil, b.refuse(v.Location, named+" has the child "+child.Name+", which is "+wrong, mend)
		}
	}
	if relation.Unlogged != "" {
		return nil, b.refuse(v.Location, named+" has the partition "+relation.Unlogged+", whose changes are not in the log", "make it a logged table of this database")
	}
	it := &item{kind: itemTable, name: v.Relname, place: b.offset(v.Location), relation: relation, only: !v.Inh, used: map[string][]int{}}
	if relation.Kind == 'v' {
		bound, err := b.bindView(relation, v)
		if err != nil {
			return nil, err
		}
		it.kind, it.relation, it.block, it.outputs, it.anyColumn = itemBlock, nil, bound, slices.Clone(bound.outputs), bound.anyColumn
		bound.up = it
		var names []*pg.Node
		for _, column := range relation.Columns {
			names = append(names, pg.MakeStrNode(column.Name))
		}
		rename(it, names)
	} else {
		for _, column := range relation.Columns {
			it.outputs = append(it.outputs, output{name: column.Name})
		}
		b.tables = append(b.tables, it)
	}
	name(it, v.Alias)
	return it, nil
}

// unreadable says why nothing tells when what a query shows of a relation has changed.
func unreadable(r *Relation) (what, mend string) {
	what, mend = r.Untold()
	switch {
	case what == "" && r.RowSecurity:
		return "under row security, so what a query shows depends on who asks", "read it without row security, or write the entry with depends_on"
	case r.ofSystem():
		return what, "leave it out; or write the entry with depends_on, whose values the application caches with a short TTL of its own"
	}
	return what, mend
}

// Untold says why no log tells the changes of the relation. Those of a view are told
// by the tables behind it.
func (r *Relation) Untold() (what, mend string) {
	switch {
	case r.ofSystem():
		return "a system catalog, whose changes are not in the log", "leave it out"
	case r.Kind == 'f':
		return "a foreign table, whose changes are not in this database's log", "copy it into a table"
	case r.Kind == 'm':
		return "a materialized view, and REFRESH is not in the log", "read the tables behind it"
	case r.Kind != 'r' && r.Kind != 'p' && r.Kind != 'v':
		return "no table", "read a table or a view"
	case r.Persistence == 't':
		return "a temporary table", "read a permanent one"
	case r.Persistence == 'u' && r.Kind != 'p':
		return "unlogged, so its changes are not in the log", "ALTER TABLE ... SET LOGGED"
	case r.Partition:
		return "a partition, whose changes the log tells as those of the partitioned table", "read that"
	}
	return "", ""
}

func (r *Relation) ofSystem() bool {
	return r.Schema == "pg_catalog" || r.Schema == "information_schema"
}

func (b *binder) bindView(r *Relation, v *pg.RangeVar) (*block, error) {
	result, err := pg.Parse(r.Definition)
	if err != nil || len(result.Stmts) != 1 || result.Stmts[0].Stmt.GetSelectStmt() == nil {
		return nil, b.refuse(v.Location, fmt.Sprintf("the definition of view %s cannot be read: %v", r.Name, err), "")
	}
	view, at := b.view, b.at
	if b.view == "" {
		b.at = b.offset(v.Location)
	}
	b.view = r.Name
	defer func() { b.view, b.at = view, at }()
	return b.bindSelect(result.Stmts[0].Stmt.GetSelectStmt(), nil)
}

func (b *binder) bindCTE(c *cte, v *pg.RangeVar) (*item, error) {
	it := &item{kind: itemBlock, name: v.Relname, place: b.offset(v.Location)}
	if c.inside {
		// What a recursive query has found so far: anything.
		it.kind, it.anyColumn = itemOpaque, true
		for _, column := range c.Aliascolnames {
			it.outputs = append(it.outputs, output{name: column.GetString_().GetSval(), held: true})
		}
		name(it, v.Alias)
		return it, nil
	}
	c.inside, c.read = c.recursive, true
	bound, err := b.bindSelect(c.Ctequery.GetSelectStmt(), c.scope)
	c.inside = false
	if err != nil {
		return nil, err
	}
	if c.recursive && refers(c.Ctequery, c.Ctename) {
		hold(bound)
	}
	it.block, it.outputs, it.anyColumn = bound, slices.Clone(bound.outputs), bound.anyColumn
	bound.up = it
	rename(it, c.Aliascolnames)
	if c.SearchClause != nil || c.CycleClause != nil {
		it.anyColumn = true
	}
	name(it, v.Alias)
	return it, nil
}

// hold keeps every condition out of a block.
func hold(blk *block) {
	for i := range blk.outputs {
		blk.outputs[i].held = true
	}
}

// refers reports whether a query names a table.
func refers(node *pg.Node, table string) bool {
	found := false
	walk(node, func(n *pg.Node) bool {
		if v := n.GetRangeVar(); v != nil && v.Schemaname == "" && v.Relname == table {
			found = true
		}
		return !found
	})
	return found
}

func (b *binder) bindJoin(j *pg.JoinExpr, inner *scope, blk *block) (*item, error) {
	if j.JoinUsingAlias != nil {
		return nil, b.refuse(-1, "JOIN ... USING (...) AS "+j.JoinUsingAlias.Aliasname+" is beyond what is understood", "leave out AS "+j.JoinUsingAlias.Aliasname+", and name the columns by their tables")
	}
	left, err := b.bindFrom(j.Larg, inner, blk)
	if err != nil {
		return nil, err
	}
	// A lateral subquery on the right sees the left.
	beside := &scope{items: append(slices.Clone(inner.items), visible(left)...), outer: inner.outer, ctes: inner.ctes}
	right, err := b.bindFrom(j.Rarg, beside, blk)
	if err != nil {
		return nil, err
	}
	it := &item{kind: itemJoin, join: j.Jointype, left: left, right: right, place: -1}
	left.up, right.up = it, it
	it.outputs = append(slices.Clone(outputsOf(left)), outputsOf(right)...)
	it.anyColumn = left.anyColumn || right.anyColumn
	on := &scope{items: append(slices.Clone(visible(left)), visible(right)...), outer: inner.outer, ctes: inner.ctes}
	var using []string
	for _, column := range j.UsingClause {
		using = append(using, column.GetString_().GetSval())
	}
	if j.IsNatural {
		if left.anyColumn || right.anyColumn {
			return nil, b.refuse(-1, "a NATURAL JOIN with something whose columns are not known", "write the condition as ON")
		}
		for _, l := range outputsOf(left) {
			if slices.ContainsFunc(outputsOf(right), func(r output) bool { return r.name == l.name }) {
				using = append(using, l.name)
			}
		}
	}
	if err := b.bindUsing(it, using, on, blk); err != nil {
		return nil, err
	}
	if j.Quals != nil {
		conjuncts, err := b.conjuncts(j.Quals, on, it)
		if err != nil {
			return nil, err
		}
		it.on = append(it.on, conjuncts...)
	}
	if j.Alias != nil {
		if it.anyColumn && len(j.Alias.Colnames) > 0 {
			return nil, b.refuse(-1, j.Alias.Aliasname+" names columns of a join with something whose columns are not known", "give that something an alias with names for its columns, and name columns by their tables")
		}
		name(it, j.Alias)
	}
	return it, nil
}

// bindUsing binds the equalities of USING, and merges its columns.
func (b *binder) bindUsing(it *item, using []string, on *scope, blk *block) error {
	if len(using) == 0 {
		return nil
	}
	var merged []output
	for _, column := range using {
		var sides [2]*scalar
		for i, side := range []*item{it.left, it.right} {
			node := &pg.Node{Node: &pg.Node_ColumnRef{ColumnRef: &pg.ColumnRef{Fields: []*pg.Node{pg.MakeStrNode(column)}, Location: -1}}}
			bound, err := b.bind(node, &scope{items: visible(side)}, blk)
			if err != nil {
				return err
			}
			sides[i] = bound
		}
		it.on = append(it.on, equality(sides[0], sides[1], it))
		shown := output{name: column, value: sides[0]}
		switch it.join {
		case pg.JoinType_JOIN_RIGHT:
			shown.value = sides[1]
		case pg.JoinType_JOIN_FULL:
			shown = output{name: column, held: true}
		}
		merged = append(merged, shown)
	}
	for _, shown := range it.outputs {
		if !slices.Contains(using, shown.name) {
			merged = append(merged, shown)
		}
	}
	it.outputs = merged
	it.using = using
	return nil
}

func outputsOf(it *item) []output {
	if it.kind != itemTable {
		return it.outputs
	}
	// A table's columns, as references.
	shown := make([]output, len(it.outputs))
	for i, out := range it.outputs {
		shown[i] = output{name: out.name, value: it.column(i)}
	}
	return shown
}

// column is column i of a table as a scalar.
func (it *item) column(i int) *scalar {
	ref := &pg.ColumnRef{Fields: []*pg.Node{pg.MakeStrNode(it.outputs[i].name)}, Location: -1}
	found := reference{item: it, name: it.relation.Columns[i].Name, from: []*item{it}}
	return &scalar{
		node:       &pg.Node{Node: &pg.Node_ColumnRef{ColumnRef: ref}},
		references: map[*pg.ColumnRef]*resolved{ref: {reference: found}},
		reads:      []reference{found},
	}
}

// visible are the items that names behind an element of FROM can mean.
func visible(it *item) []*item {
	if it.kind != itemJoin || it.name != "" {
		return []*item{it}
	}
	items := append(slices.Clone(visible(it.left)), visible(it.right)...)
	if len(it.using) > 0 {
		return append([]*item{it}, items...) // its merged columns are found first
	}
	return items
}
