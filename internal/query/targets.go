package query

import (
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
)

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
					read.mark(b.condition)
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
	outside.within = append(slices.Clone(shown.value.within), it)
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

// mark notes that a column of a table matters to a condition, 0: to something else.
func (r reference) mark(condition int) {
	if r.item == nil || r.item.kind != itemTable {
		return
	}
	if r.name != "" {
		r.item.used[r.name] = append(r.item.used[r.name], condition)
		return
	}
	for _, column := range r.item.relation.Columns {
		r.item.used[column.Name] = append(r.item.used[column.Name], condition)
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
