package query

import (
	"fmt"
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// A binder resolves the names of a query.
type binder struct {
	query   *Query
	catalog Catalog
	types   []Type // of the parameters
	// view, if not empty, is being bound; its place is that of its reference.
	view    string
	at      int
	tables  []*item
	depth   int
	without Rule
}

// depthMax bounds views in views.
const depthMax = 64

// A scope is what names mean at some place.
type scope struct {
	items []*item
	ctes  map[string]*cte
	outer *scope
}

type cte struct {
	*pg.CommonTableExpr
	scope     *scope // where it stands
	recursive bool
	// inside: its own definition is being bound.
	inside bool
	read   bool
}

func (s *scope) cte(name string) *cte {
	for ; s != nil; s = s.outer {
		if c := s.ctes[name]; c != nil {
			return c
		}
	}
	return nil
}

func (b *binder) refuse(location int32, text, mend string) *Error {
	return &Error{Offset: b.offset(location), Text: b.within() + text, Mend: mend}
}

func (b *binder) offset(location int32) int {
	if b.view != "" {
		return b.at
	}
	if location < 0 {
		return -1
	}
	return b.query.offset(int(location))
}

func (b *binder) within() string {
	if b.view == "" {
		return ""
	}
	return "in view " + b.view + ": "
}

// instead is what to do where a query cannot be planned.
const instead = "compute it into a column, or write the entry with depends_on"

// bindSelect binds a SELECT, a VALUES list or a set operation.
func (b *binder) bindSelect(s *pg.SelectStmt, outer *scope) (*block, error) {
	if b.depth++; b.depth > depthMax {
		return nil, &Error{Offset: -1, Text: "nested too deep"}
	}
	defer func() { b.depth-- }()
	switch {
	case s.IntoClause != nil:
		return nil, b.refuse(s.IntoClause.Rel.GetLocation(), "SELECT INTO writes", "a cached result is what a SELECT returns")
	case len(s.LockingClause) > 0:
		return nil, b.refuse(-1, "FOR UPDATE and FOR SHARE lock rows", "leave it out")
	}
	if s.WithClause != nil {
		with, err := b.bindWith(s.WithClause, outer)
		if err != nil {
			return nil, err
		}
		blk, err := b.bindBody(s, with)
		if err != nil {
			return nil, err
		}
		for _, node := range s.WithClause.Ctes {
			if c := node.GetCommonTableExpr(); !with.ctes[c.Ctename].read {
				return nil, b.refuse(c.Location, "nothing reads WITH "+c.Ctename, "leave it out")
			}
		}
		return blk, nil
	}
	return b.bindBody(s, outer)
}

// bindBody binds what stands behind WITH.
func (b *binder) bindBody(s *pg.SelectStmt, outer *scope) (*block, error) {
	if s.Op != pg.SetOperation_SETOP_NONE && s.Op != pg.SetOperation_SET_OPERATION_UNDEFINED {
		return b.bindSetOperation(s, outer)
	}
	blk := &block{}
	inner := &scope{outer: outer}
	for _, node := range s.FromClause {
		it, err := b.bindFrom(node, inner, blk)
		if err != nil {
			return nil, err
		}
		it.up = blk
		blk.from = append(blk.from, it)
		inner.items = append(inner.items, visible(it)...)
	}
	if len(s.ValuesLists) > 0 {
		for _, list := range s.ValuesLists {
			row, err := b.bind(list, inner, blk)
			if err != nil {
				return nil, err
			}
			blk.anyColumn = blk.anyColumn || hasStar(list.GetList().GetItems())
			for len(blk.outputs) < len(row.node.GetList().GetItems()) {
				blk.outputs = append(blk.outputs, output{name: fmt.Sprintf("column%d", len(blk.outputs)+1), held: true})
			}
		}
		blk.standing = true // it shows rows though it reads none
		return blk, b.bindTail(s, inner, blk)
	}
	if s.WhereClause != nil {
		blk.filtering = true
		conjuncts, err := b.conjuncts(s.WhereClause, inner, blk)
		if err != nil {
			return nil, err
		}
		blk.where, blk.filtering = conjuncts, false
	}
	if err := b.bindTargets(s, inner, blk); err != nil {
		return nil, err
	}
	return blk, b.bindTail(s, inner, blk)
}

// bindTail binds what stands behind the select list.
func (b *binder) bindTail(s *pg.SelectStmt, inner *scope, blk *block) error {
	loose := []*pg.Node{s.LimitCount, s.LimitOffset}
	for _, sort := range s.SortClause {
		loose = append(loose, sort.GetSortBy().GetNode())
	}
	for _, node := range loose {
		if node == nil {
			continue
		}
		bound, err := b.bind(node, inner, blk)
		if err != nil && !shows(blk, node) {
			return err
		}
		if bound.aggregates && len(s.GroupClause) == 0 {
			blk.standing = true // ORDER BY count(*)
			hold(blk)
		}
	}
	return nil
}

// shows reports whether node is the name of a column of the select list.
func shows(blk *block, node *pg.Node) bool {
	fields := node.GetColumnRef().GetFields()
	return len(fields) == 1 && slices.ContainsFunc(blk.outputs, func(o output) bool { return o.name == fields[0].GetString_().GetSval() })
}

func (b *binder) bindSetOperation(s *pg.SelectStmt, outer *scope) (*block, error) {
	blk := &block{}
	for _, arm := range []*pg.SelectStmt{s.Larg, s.Rarg} {
		bound, err := b.bindSelect(arm, outer)
		if err != nil {
			return nil, err
		}
		bound.up = blk
		blk.arms = append(blk.arms, bound)
		blk.anyColumn = blk.anyColumn || bound.anyColumn
	}
	if len(blk.arms[0].outputs) != len(blk.arms[1].outputs) {
		if blk.anyColumn {
			return nil, b.refuse(-1, "a set operation of SELECTs whose numbers of columns are not known", "name the columns instead of *")
		}
		return nil, b.refuse(-1, "a set operation of SELECTs with different numbers of columns", "")
	}
	held := s.LimitCount != nil || s.LimitOffset != nil
	for i, shown := range blk.arms[0].outputs {
		other := blk.arms[1].outputs[i]
		shown.held = held || shown.held || other.held
		if shown.value != nil && other.value != nil && !(s.Op == pg.SetOperation_SETOP_UNION && s.All) {
			shown.held = shown.held || !b.sameAsText(shown.value, other.value)
		}
		if shown.value == nil || other.value == nil {
			shown.held, shown.value = true, nil
		} else {
			// What it stands for depends on the arm that one looks into.
			ref := &pg.ColumnRef{Fields: []*pg.Node{pg.MakeStrNode(shown.name)}, Location: -1}
			shown.value = &scalar{
				node:       &pg.Node{Node: &pg.Node_ColumnRef{ColumnRef: ref}},
				references: map[*pg.ColumnRef]*resolved{ref: {union: blk, column: i}},
				reads:      append(slices.Clone(shown.value.reads), other.value.reads...),
			}
		}
		blk.outputs = append(blk.outputs, shown)
	}
	if s.LimitCount != nil || s.LimitOffset != nil {
		for _, node := range []*pg.Node{s.LimitCount, s.LimitOffset} {
			if node == nil {
				continue
			}
			if _, err := b.bind(node, &scope{outer: outer}, blk); err != nil {
				return nil, err
			}
		}
	}
	return blk, nil
}

func (b *binder) bindWith(with *pg.WithClause, outer *scope) (*scope, error) {
	inner := &scope{outer: outer, ctes: map[string]*cte{}}
	for _, node := range with.Ctes {
		c := node.GetCommonTableExpr()
		if c.Ctequery.GetSelectStmt() == nil {
			return nil, b.refuse(c.Location, "WITH "+c.Ctename+" writes", "a cached result is what a SELECT returns")
		}
		// Without RECURSIVE a CTE sees those before it only.
		at := &scope{outer: inner.outer, ctes: map[string]*cte{}}
		if with.Recursive {
			at = inner
		} else {
			for name, before := range inner.ctes {
				at.ctes[name] = before
			}
		}
		inner.ctes[c.Ctename] = &cte{CommonTableExpr: c, scope: at, recursive: with.Recursive}
	}
	return inner, nil
}

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
	it := &item{kind: itemTable, name: v.Relname, place: b.offset(v.Location), relation: relation, only: !v.Inh, used: map[string]bool{}}
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
		return what, "leave it out, or give the entry a short ttl and depends_on"
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

func equality(left, right *scalar, place any) *conjunct {
	node := &pg.Node{Node: &pg.Node_AExpr{AExpr: &pg.A_Expr{
		Kind: pg.A_Expr_Kind_AEXPR_OP, Name: []*pg.Node{pg.MakeStrNode("=")}, Lexpr: left.node, Rexpr: right.node, Location: -1,
	}}}
	return &conjunct{scalar: join(node, left, right), place: place, left: left, right: right}
}

// join is the scalar of an expression over others.
func join(node *pg.Node, parts ...*scalar) *scalar {
	s := &scalar{node: node, references: map[*pg.ColumnRef]*resolved{}}
	for _, part := range parts {
		for ref, to := range part.references {
			s.references[ref] = to
		}
		for _, parameter := range part.parameters {
			if !slices.Contains(s.parameters, parameter) {
				s.parameters = append(s.parameters, parameter)
			}
		}
		s.opaque = s.opaque || part.opaque
		s.reads = append(s.reads, part.reads...)
		s.aggregates, s.windows, s.sets = s.aggregates || part.aggregates, s.windows || part.windows, s.sets || part.sets
	}
	return s
}

// bindTargets binds the select list and what groups it, and says what the block
// shows.
func (b *binder) bindTargets(s *pg.SelectStmt, inner *scope, blk *block) error {
	for _, node := range s.TargetList {
		target := node.GetResTarget()
		if fields := target.Val.GetColumnRef().GetFields(); len(fields) > 0 && fields[len(fields)-1].GetAStar() != nil {
			if err := b.bindStar(target.Val.GetColumnRef(), inner, blk); err != nil {
				return err
			}
			continue
		}
		bound, err := b.bind(target.Val, inner, blk)
		if err != nil {
			return err
		}
		shown := output{name: target.Name, value: bound}
		if shown.name == "" {
			shown.name = columnName(target.Val)
		}
		if last := target.Val.GetAIndirection().GetIndirection(); len(last) > 0 && last[len(last)-1].GetAStar() != nil {
			shown.name, blk.anyColumn = "", true // (a row).*
		}
		if bound.opaque || blk.anyColumn {
			shown.value = nil
		}
		shown.held = shown.value == nil
		blk.outputs = append(blk.outputs, shown)
		if bound.aggregates {
			blk.standing = true
		}
		if bound.sets {
			defer hold(blk)
		}
	}
	grouped := len(s.GroupClause) > 0
	sets := slices.ContainsFunc(s.GroupClause, func(n *pg.Node) bool { return n.GetGroupingSet() != nil })
	// What a column must be equal to so that conditions on it can be carried in. plain:
	// all rows of a group have the same texts in all that it groups by.
	kept := func(nodes []*pg.Node, of clause) (plain bool, err error) {
		var keys []string
		plain = true
		for _, node := range nodes {
			key, err := b.key(node, inner, blk, of)
			if err != nil {
				return false, err
			}
			if key == nil || b.family(key) == "" {
				plain = false
				continue
			}
			keys = append(keys, key.text())
		}
		for i := range blk.outputs {
			shown := &blk.outputs[i]
			shown.held = shown.held || shown.value == nil || !slices.Contains(keys, shown.value.text())
		}
		return plain, nil
	}
	if s.HavingClause != nil {
		having, err := b.conjuncts(s.HavingClause, inner, blk)
		if err != nil {
			return err
		}
		plain := false
		if grouped && !sets {
			if plain, err = kept(s.GroupClause, groupBy); err != nil {
				return err
			}
		}
		for _, c := range having {
			if c.aggregates || c.opaque {
				blk.standing = blk.standing || c.aggregates
				continue
			}
			if plain && c.equalAsText() {
				blk.where = append(blk.where, c) // on what it groups by
			}
		}
		blk.standing = blk.standing || !grouped
	}
	aggregates := blk.standing || grouped
	if grouped {
		blk.standing = false
	}
	if aggregates {
		if _, err := kept(s.GroupClause, groupBy); err != nil {
			return err
		}
		if sets {
			blk.standing = true // GROUPING SETS (()) shows a row though there is none
			hold(blk)
		}
	}
	for _, node := range s.WindowClause {
		if _, err := b.bind(node, inner, blk); err != nil {
			return err
		}
	}
	for _, window := range windows(s) {
		if _, err := kept(window, partitionBy); err != nil {
			return err
		}
	}
	switch {
	case len(s.DistinctClause) > 0 && s.DistinctClause[0].Node != nil:
		if _, err := kept(s.DistinctClause, distinctOn); err != nil {
			return err
		}
	case len(s.DistinctClause) > 0:
		for i := range blk.outputs {
			shown := &blk.outputs[i]
			shown.held = shown.held || b.family(shown.value) == ""
		}
	}
	if s.LimitCount != nil || s.LimitOffset != nil {
		hold(blk)
	}
	return nil
}

// windows are the partitions of every window that the select list or ORDER BY
// looks through.
func windows(s *pg.SelectStmt) (partitions [][]*pg.Node) {
	named := map[string]*pg.WindowDef{}
	for _, node := range s.WindowClause {
		named[node.GetWindowDef().GetName()] = node.GetWindowDef()
	}
	see := func(n *pg.Node) bool {
		if n.GetSubLink() != nil || n.GetSelectStmt() != nil {
			return false
		}
		call := n.GetFuncCall()
		if call == nil || call.Over == nil {
			return true
		}
		partition := call.Over.PartitionClause
		for def := call.Over; def != nil; {
			from := def.Refname
			if from == "" {
				from = def.Name
			}
			if def = named[from]; def != nil {
				partition = append(slices.Clone(partition), def.PartitionClause...)
				delete(named, from)
				defer func(name string, d *pg.WindowDef) { named[name] = d }(from, def)
			}
		}
		partitions = append(partitions, partition)
		return true
	}
	for _, node := range append(slices.Clone(s.TargetList), s.SortClause...) {
		walk(node, see)
	}
	return partitions
}

// A clause has rules of its own for what its names mean.
type clause int

const (
	groupBy     clause = iota // columns of FROM before names of the select list; and ordinals
	distinctOn                // names of the select list before columns; and ordinals
	partitionBy               // columns, and 1 is a constant
)

// key is what one element of GROUP BY, PARTITION BY or DISTINCT ON names; nil: nobody
// knows.
func (b *binder) key(node *pg.Node, inner *scope, blk *block, of clause) (*scalar, error) {
	if set := node.GetGroupingSet(); set != nil {
		for _, part := range set.Content {
			if _, err := b.key(part, inner, blk, of); err != nil {
				return nil, err
			}
		}
		return nil, nil
	}
	if of == partitionBy {
		return b.bind(node, inner, blk)
	}
	if number := node.GetAConst().GetIval(); number != nil {
		if i := int(number.Ival) - 1; i >= 0 && i < len(blk.outputs) {
			return blk.outputs[i].value, nil
		}
		return nil, nil
	}
	fields := node.GetColumnRef().GetFields()
	if len(fields) != 1 {
		return b.bind(node, inner, blk)
	}
	if of == groupBy {
		if bound, err := b.bind(node, &scope{items: inner.items}, blk); err == nil {
			return bound, nil
		}
	}
	if blk.anyColumn {
		_, err := b.bind(node, inner, blk)
		return nil, err
	}
	for _, shown := range blk.outputs {
		if shown.name == fields[0].GetString_().GetSval() {
			return shown.value, nil
		}
	}
	return b.bind(node, inner, blk)
}

// hasStar reports whether one of the expressions stands for several: t.*.
func hasStar(nodes []*pg.Node) bool {
	return slices.ContainsFunc(nodes, func(n *pg.Node) bool {
		parts := append(slices.Clone(n.GetColumnRef().GetFields()), n.GetAIndirection().GetIndirection()...)
		return len(parts) > 0 && parts[len(parts)-1].GetAStar() != nil
	})
}

// bindStar expands *, or table.*.
func (b *binder) bindStar(ref *pg.ColumnRef, inner *scope, blk *block) error {
	items := make([]*item, 0, len(blk.from))
	if len(ref.Fields) == 1 {
		items = append(items, blk.from...)
	} else {
		table := ref.Fields[len(ref.Fields)-2].GetString_().GetSval()
		var found *item
		for s := inner; s != nil && found == nil; s = s.outer {
			for _, it := range s.items {
				if it.name == table && it.name != "" {
					found = it
				}
			}
		}
		if found == nil {
			return b.refuse(ref.Location, "there is no "+table+" here", "")
		}
		items = append(items, found)
	}
	for _, it := range items {
		if it.anyColumn {
			// How many there are is not known, so what stands behind is not either.
			blk.outputs = append(blk.outputs, output{held: true})
			blk.anyColumn = true
		}
		for _, shown := range outputsOf(it) {
			bound := shown
			if shown.value != nil {
				bound.value = through(shown, it)
				for _, read := range bound.value.reads {
					read.mark()
				}
			}
			if blk.anyColumn {
				bound.value = nil
			}
			bound.held = bound.value == nil
			blk.outputs = append(blk.outputs, bound)
		}
	}
	return nil
}

// through is what a column of an item stands for to who stands outside of it.
func through(shown output, it *item) *scalar {
	if it.kind != itemBlock {
		return shown.value
	}
	outside := &scalar{node: shown.value.node, references: map[*pg.ColumnRef]*resolved{}, parameters: shown.value.parameters, opaque: shown.value.opaque}
	pass := func(r reference) reference {
		r.from = append(slices.Clone(r.from), it)
		if shown.held {
			r.through = append(slices.Clone(r.through), it.block)
		}
		return r
	}
	for ref, to := range shown.value.references {
		copied := *to
		copied.reference = pass(to.reference)
		if to.value != nil {
			copied.value = through(output{value: to.value, held: shown.held}, it)
		}
		if to.union != nil && shown.held {
			copied.held = append(slices.Clone(to.held), it.block)
		}
		outside.references[ref] = &copied
	}
	for _, read := range shown.value.reads {
		outside.reads = append(outside.reads, pass(read))
	}
	return outside
}

// mark notes that a column of a table matters.
func (r reference) mark() {
	if r.item == nil || r.item.kind != itemTable {
		return
	}
	if r.name != "" {
		r.item.used[r.name] = true
		return
	}
	for _, column := range r.item.relation.Columns {
		r.item.used[column.Name] = true
	}
}

// columnName is what PostgreSQL calls a column of a select list that has no name.
func columnName(node *pg.Node) string {
	switch n := node.Node.(type) {
	case *pg.Node_ColumnRef:
		return n.ColumnRef.Fields[len(n.ColumnRef.Fields)-1].GetString_().GetSval()
	case *pg.Node_FuncCall:
		return n.FuncCall.Funcname[len(n.FuncCall.Funcname)-1].GetString_().GetSval()
	case *pg.Node_TypeCast:
		if inner := columnName(n.TypeCast.Arg); inner != "?column?" {
			return inner
		}
		names := n.TypeCast.TypeName.Names
		return names[len(names)-1].GetString_().GetSval()
	case *pg.Node_AIndirection:
		for i := len(n.AIndirection.Indirection) - 1; i >= 0; i-- {
			if field := n.AIndirection.Indirection[i].GetString_(); field != nil {
				return field.Sval
			}
		}
		return columnName(n.AIndirection.Arg)
	case *pg.Node_CollateClause:
		return columnName(n.CollateClause.Arg)
	case *pg.Node_CaseExpr:
		if n.CaseExpr.Defresult != nil {
			if inner := columnName(n.CaseExpr.Defresult); inner != "?column?" {
				return inner
			}
		}
		return "case"
	case *pg.Node_CoalesceExpr:
		return "coalesce"
	case *pg.Node_MinMaxExpr:
		return strings.ToLower(strings.TrimPrefix(n.MinMaxExpr.Op.String(), "IS_"))
	case *pg.Node_RowExpr:
		return "row"
	case *pg.Node_AArrayExpr:
		return "array"
	case *pg.Node_SubLink:
		switch n.SubLink.SubLinkType {
		case pg.SubLinkType_EXISTS_SUBLINK:
			return "exists"
		case pg.SubLinkType_ARRAY_SUBLINK:
			return "array"
		case pg.SubLinkType_EXPR_SUBLINK:
			if targets := n.SubLink.Subselect.GetSelectStmt().GetTargetList(); len(targets) == 1 {
				if target := targets[0].GetResTarget(); target.Name != "" {
					return target.Name
				} else {
					return columnName(target.Val)
				}
			}
		}
	}
	return "?column?"
}

// walk calls see for every node below and including root, but not below one for
// which it returns false.
func walk(root *pg.Node, see func(*pg.Node) bool) {
	if root == nil || root.Node == nil || !see(root) {
		return
	}
	descend(root.ProtoReflect(), see)
}

// descend goes through the fields in their order: Range has another one in each build.
func descend(m protoreflect.Message, see func(*pg.Node) bool) {
	visit := func(below protoreflect.Message) {
		if node, ok := below.Interface().(*pg.Node); ok {
			walk(node, see)
			return
		}
		descend(below, see)
	}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		switch {
		case field.Message() == nil || !m.Has(field):
		case field.IsList():
			list := m.Get(field).List()
			for i := range list.Len() {
				visit(list.Get(i).Message())
			}
		default:
			visit(m.Get(field).Message())
		}
	}
}

func clone(node *pg.Node) *pg.Node { return proto.Clone(node).(*pg.Node) }
