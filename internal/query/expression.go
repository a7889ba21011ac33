package query

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// bind binds an expression. place is the block, or the join, that has it.
func (b *binder) bind(node *pg.Node, at *scope, place any) (*scalar, error) {
	s := &scalar{node: clone(node), references: map[*pg.ColumnRef]*resolved{}}
	return s, b.bindInto(s, s.node, at, place)
}

func (b *binder) bindInto(s *scalar, root *pg.Node, at *scope, place any) (wrong error) {
	walk(root, func(whole *pg.Node) bool {
		if wrong != nil {
			return false
		}
		switch n := whole.Node.(type) {
		case *pg.Node_ColumnRef:
			wrong = b.bindColumn(s, n.ColumnRef, at)
			return false
		case *pg.Node_ParamRef:
			if i := int(n.ParamRef.Number) - 1; !slices.Contains(s.parameters, i) {
				s.parameters = append(s.parameters, i)
			}
		case *pg.Node_SubLink:
			s.opaque = true
			if n.SubLink.Testexpr != nil {
				if wrong = b.bindInto(s, n.SubLink.Testexpr, at, place); wrong != nil {
					return false
				}
			}
			_, wrong = b.bindSublink(n.SubLink, at, place)
			return false
		case *pg.Node_JsonArrayQueryConstructor:
			wrong = b.refuse(n.JsonArrayQueryConstructor.Location, "JSON_ARRAY of a SELECT is beyond what is understood", "write ARRAY(SELECT ...), or "+instead)
		case *pg.Node_SelectStmt:
			wrong = b.refuse(-1, "a SELECT stands where none is understood", instead)
		case *pg.Node_AIndirection:
			wrong = b.bindFields(n.AIndirection, at)
		case *pg.Node_FuncCall:
			wrong = b.bindCall(s, n.FuncCall, at)
		case *pg.Node_SqlvalueFunction:
			wrong = b.refuse(n.SqlvalueFunction.Location, "the value of "+sqlValue(n.SqlvalueFunction)+" depends on the time or on who asks, and no change tells when it becomes another", whatever)
		case *pg.Node_GroupingFunc, *pg.Node_JsonObjectAgg, *pg.Node_JsonArrayAgg:
			s.aggregates, s.opaque = true, true
			wrong = b.ownAggregate(whole, -1, at)
		case *pg.Node_TypeCast:
			if n.TypeCast.Arg.GetAConst() != nil && isText(n.TypeCast.TypeName) {
				return false // 'now'::text is a text
			}
		case *pg.Node_AConst:
			switch text := strings.ToLower(strings.TrimSpace(n.AConst.GetSval().GetSval())); text {
			case "now", "today", "tomorrow", "yesterday":
				wrong = b.refuse(n.AConst.Location, "'"+text+"' may stand for a time, and no change tells when it becomes another", "write '"+text+"'::text if it is a text; else "+instead)
			}
		case *pg.Node_SetToDefault, *pg.Node_CurrentOfExpr:
			wrong = b.refuse(-1, "this cannot be part of a SELECT", "")
		}
		return wrong == nil
	})
	return wrong
}

// sqlValue is how SQL writes a function without parentheses: current_user.
func sqlValue(f *pg.SQLValueFunction) string {
	name := strings.TrimPrefix(f.Op.String(), "SVFOP_")
	return strings.ToLower(strings.TrimSuffix(name, "_N"))
}

func isText(t *pg.TypeName) bool {
	last := t.Names[len(t.Names)-1].GetString_().GetSval()
	return last == "text" || last == "varchar"
}

// bindCall refuses what may read more than its arguments.
func (b *binder) bindCall(s *scalar, call *pg.FuncCall, at *scope) error {
	schema, name := "", call.Funcname[len(call.Funcname)-1].GetString_().GetSval()
	if len(call.Funcname) > 1 {
		schema = call.Funcname[len(call.Funcname)-2].GetString_().GetSval()
	}
	function, err := b.catalog.Function(schema, name, len(call.Args))
	if err != nil {
		return err
	}
	switch {
	case function == nil:
		return b.refuse(call.Location, "there is no function "+name, "")
	case function.Volatility == 'v':
		return b.refuse(call.Location, name+"() may return another value each time, and no change tells when", instead)
	case function.Volatility == 's' && function.BuiltIn && slices.Contains(ofTheTime, name):
		return b.refuse(call.Location, "the value of "+name+"() depends on the time or on who asks, and no change tells when it becomes another", whatever)
	case function.Volatility == 's' && !(function.BuiltIn && slices.Contains(ofArgumentsOnly, name)):
		return b.refuse(call.Location, name+"() may read tables, and a change to those would not be noticed", "declare it IMMUTABLE if it reads nothing but its arguments; else "+instead)
	}
	switch {
	case call.Over != nil:
		s.windows, s.opaque = true, true
	case function.Aggregate:
		s.aggregates, s.opaque = true, true
		if err := b.ownAggregate(&pg.Node{Node: &pg.Node_FuncCall{FuncCall: call}}, call.Location, at); err != nil {
			return err
		}
	}
	if function.ReturnsSet {
		s.sets, s.opaque = true, true
	}
	return nil
}

// ownAggregate refuses an aggregate that reads nothing of the SELECT where it stands: it
// is one of a SELECT further out, which then shows one row.
func (b *binder) ownAggregate(call *pg.Node, location int32, at *scope) error {
	around := false
	for sc := at.outer; sc != nil; sc = sc.outer {
		around = around || len(sc.items) > 0
	}
	if !around {
		return nil
	}
	own, reads := false, false
	walk(call, func(n *pg.Node) bool {
		if n.GetSubLink() != nil {
			reads = true // perhaps of further out
			return false
		}
		if ref := n.GetColumnRef(); ref != nil {
			reads, own = true, own || at.owns(ref)
		}
		return true
	})
	if !reads || own {
		return nil
	}
	return b.refuse(location, "this aggregate reads only what is outside of its SELECT, so that it belongs to one further out", "write it there, or write the entry with depends_on")
}

// owns reports whether a name means something of the scope itself.
func (s *scope) owns(ref *pg.ColumnRef) bool {
	var names []string
	for _, field := range ref.Fields {
		names = append(names, field.GetString_().GetSval())
	}
	if len(names) > 1 {
		return slices.ContainsFunc(s.items, func(it *item) bool { return it.name == names[len(names)-2] })
	}
	name := names[0]
	column := func(it *item) bool { return it.showsBare(name) >= 0 }
	if slices.ContainsFunc(s.items, column) {
		return true
	}
	for sc := s.outer; sc != nil; sc = sc.outer {
		if slices.ContainsFunc(sc.items, column) {
			return false
		}
	}
	return slices.ContainsFunc(s.items, func(it *item) bool { return it.anyColumn || it.name == name })
}

// bindFields refuses what may be a function written as a field: (p).stock_left is
// stock_left(p) if p has no such column.
func (b *binder) bindFields(n *pg.A_Indirection, at *scope) error {
	ref := n.Arg.GetColumnRef()
	for i, part := range n.Indirection {
		field := part.GetString_().GetSval()
		if field == "" {
			continue
		}
		if i == 0 && ref != nil {
			row := &scalar{references: map[*pg.ColumnRef]*resolved{}}
			if err := b.bindColumn(row, ref, at); err != nil {
				return err
			}
			if to := row.references[ref]; to != nil && to.item != nil && to.name == "" {
				if to.item.shows(field) < 0 {
					return b.refuse(ref.Location, to.item.name+" has no column "+field+", and a function of that name may read tables", "call it as "+field+"("+to.item.name+")")
				}
				continue
			}
		}
		function, err := b.catalog.Function("", field, 1)
		if err != nil {
			return err
		}
		if function != nil {
			call := &pg.FuncCall{Funcname: []*pg.Node{pg.MakeStrNode(field)}, Args: []*pg.Node{n.Arg}, Location: ref.GetLocation(), Over: &pg.WindowDef{}}
			if ref == nil {
				call.Location = -1
			}
			if err := b.bindCall(&scalar{}, call, at); err != nil {
				return err
			}
		}
	}
	return nil
}

// ofTheTime are the stable functions of PostgreSQL that people use for the time.
var ofTheTime = strings.Fields(`now age transaction_timestamp statement_timestamp current_setting current_user session_user
	current_schema current_schemas current_database inet_client_addr pg_backend_pid txid_current_snapshot pg_current_snapshot`)

// ofArgumentsOnly are the stable functions of PostgreSQL whose value depends on
// their arguments and on settings of the session, and on nothing else.
var ofArgumentsOnly = strings.Fields(`to_char to_timestamp to_date to_number date_trunc date_part timezone make_timestamptz
	date_add date_subtract generate_series concat concat_ws format quote_literal quote_nullable array_to_string string_to_array
	to_json to_jsonb row_to_json array_to_json json_build_object json_build_array jsonb_build_object jsonb_build_array
	extract date time timestamp timestamptz overlaps
	json_agg jsonb_agg json_agg_strict jsonb_agg_strict json_object_agg jsonb_object_agg json_populate_record
	jsonb_populate_record json_populate_recordset jsonb_populate_recordset json_to_record jsonb_to_record json_to_recordset
	jsonb_to_recordset jsonb_path_query_tz jsonb_path_exists_tz jsonb_path_match_tz jsonb_path_query_array_tz
	jsonb_path_query_first_tz to_tsvector to_tsquery plainto_tsquery phraseto_tsquery websearch_to_tsquery ts_headline`)

// bindSublink binds a subquery in an expression.
func (b *binder) bindSublink(link *pg.SubLink, at *scope, place any) (*sublink, error) {
	bound, err := b.bindSelect(link.Subselect.GetSelectStmt(), at)
	if err != nil {
		return nil, err
	}
	sl := &sublink{block: bound, up: place}
	if blk, ok := place.(*block); ok {
		sl.filters = blk.filtering
	}
	bound.up = sl
	if link.SubLinkType != pg.SubLinkType_ANY_SUBLINK || len(link.OperName) > 0 && link.OperName[len(link.OperName)-1].GetString_().GetSval() != "=" {
		return sl, nil
	}
	tests := []*pg.Node{link.Testexpr}
	if row := link.Testexpr.GetRowExpr(); row != nil {
		tests = row.Args
	}
	if hasStar(tests) {
		return sl, nil
	}
	sl.carried = true
	for i, test := range tests {
		if i >= len(bound.outputs) || bound.outputs[i].value == nil {
			sl.carried = false
			continue
		}
		left, err := b.bind(test, at, place)
		if err != nil {
			return nil, err
		}
		right := through(bound.outputs[i], &item{kind: itemBlock, block: bound, up: sl})
		sl.equal = append(sl.equal, equality(left, right, place))
		// NULL NOT IN (...) and 1 NOT IN (..., NULL) are neither true nor false, so
		// that a row with a NULL touches every row that is compared.
		holdsNone := left.notNull() && !bound.outputs[i].held && bound.outputs[i].value.notNull()
		sl.carried = sl.carried && (holdsNone || b.without&NullsInNotIn != 0)
	}
	return sl, nil
}

// notNull reports whether a scalar is a column that holds no NULL.
func (s *scalar) notNull() bool {
	to := s.references[s.node.GetColumnRef()]
	if to == nil {
		return false
	}
	if to.value != nil {
		return to.value.notNull()
	}
	if to.item == nil || to.name == "" || !to.item.relation.Column(to.name).NotNull {
		return false
	}
	// An outer join may show NULL for it.
	for it, up := to.item, to.item.up; ; {
		join, ok := up.(*item)
		if !ok {
			return len(to.from) == 1
		}
		if join.kind == itemJoin && join.nullable(it) {
			return false
		}
		it, up = join, join.up
	}
}

// nullable reports whether a join may show NULLs for all of one of its sides.
func (it *item) nullable(side *item) bool {
	switch it.join {
	case pg.JoinType_JOIN_LEFT:
		return side == it.right
	case pg.JoinType_JOIN_RIGHT:
		return side == it.left
	case pg.JoinType_JOIN_FULL:
		return true
	}
	return false
}

// bindColumn finds what a column name means.
func (b *binder) bindColumn(s *scalar, ref *pg.ColumnRef, at *scope) error {
	var names []string
	star := false
	for _, field := range ref.Fields {
		if field.GetAStar() != nil {
			star = true
			continue
		}
		names = append(names, field.GetString_().GetSval())
	}
	said := strings.Join(names, ".")
	column, table, schema := "", "", ""
	switch {
	case star && len(names) == 0:
		s.opaque = true // count(*)
		return nil
	case star:
		table = names[len(names)-1]
	default:
		column, names = names[len(names)-1], names[:len(names)-1]
		if len(names) > 0 {
			table = names[len(names)-1]
		}
		if len(names) > 1 {
			schema = names[len(names)-2]
		}
	}
	if table != "" {
		for sc := at; sc != nil; sc = sc.outer {
			for _, it := range sc.items {
				if it.name != table || schema != "" && (it.relation == nil || it.relation.Schema != schema) {
					continue
				}
				if star {
					b.whole(s, ref, it)
					return nil
				}
				if i := it.shows(column); i >= 0 {
					b.found(s, ref, it, i)
					return nil
				}
				if it.anyColumn {
					s.unknown(ref, it)
					return nil
				}
				// Not of one further out: p.f may also be the function f of the row p.
				return b.refuse(ref.Location, "there is no column "+said+" here", "")
			}
		}
		return b.refuse(ref.Location, "there is no column "+said+" here", "")
	}
	return b.bindName(s, ref, column, at)
}

// bindName finds what a name without a table means: the nearest column, else the row of
// the nearest table. Once something has columns that nobody has named, it may be any of
// these.
func (b *binder) bindName(s *scalar, ref *pg.ColumnRef, name string, at *scope) error {
	var doubtful *item
	candidates := &scalar{references: map[*pg.ColumnRef]*resolved{}}
	into := func() *scalar {
		if doubtful != nil {
			return candidates
		}
		return s
	}
	found := false
levels:
	for sc := at; sc != nil; sc = sc.outer {
		for _, it := range sc.items {
			if i := it.showsBare(name); i >= 0 {
				b.found(into(), ref, it, i)
				found = true
				break levels
			}
		}
		for _, it := range sc.items {
			if it.anyColumn && doubtful == nil {
				doubtful = it
			}
			if it.kind == itemTable && slices.Contains(ofSystem, name) {
				return b.refuse(ref.Location, name+" is a column of the system, and no change tells it", "leave it out")
			}
		}
	}
rows:
	for sc := at; sc != nil && !found; sc = sc.outer {
		for _, it := range sc.items {
			if it.name == name && !it.anyColumn {
				b.whole(into(), ref, it)
				found = true
				break rows
			}
		}
	}
	switch {
	case doubtful != nil && !found:
		s.unknown(ref, doubtful)
	case doubtful != nil:
		s.unknown(ref, doubtful)
		s.reads = append(s.reads, candidates.reads...)
		s.references[ref] = &resolved{} // of which of them is not known
		for _, parameter := range candidates.parameters {
			if !slices.Contains(s.parameters, parameter) {
				s.parameters = append(s.parameters, parameter)
			}
		}
	case !found:
		return b.refuse(ref.Location, "there is no column "+name+" here", "")
	}
	return nil
}

// ofSystem are the columns that every table has.
var ofSystem = strings.Fields("ctid xmin xmax cmin cmax tableoid")

// shows is the place of a column of that name; -1: there is none.
func (it *item) shows(column string) int {
	return slices.IndexFunc(it.outputs, func(o output) bool { return o.name == column })
}

// showsBare is so without the name of the item: a join without an alias shows what it
// has merged.
func (it *item) showsBare(column string) int {
	if it.kind == itemJoin && it.name == "" && !slices.Contains(it.using, column) {
		return -1
	}
	return it.shows(column)
}

// unknown binds a reference to a column that nobody has named.
func (s *scalar) unknown(ref *pg.ColumnRef, it *item) {
	s.opaque = true
	to := reference{from: []*item{it}}
	s.references[ref] = &resolved{reference: to}
	s.reads = append(s.reads, to)
}

// whole binds a reference to a row.
func (b *binder) whole(s *scalar, ref *pg.ColumnRef, it *item) {
	s.opaque = true
	var mark func(it *item)
	mark = func(it *item) {
		switch it.kind {
		case itemTable:
			found := reference{item: it, from: []*item{it}}
			found.mark(b.condition)
			s.reads = append(s.reads, found)
		case itemJoin:
			mark(it.left)
			mark(it.right)
		default:
			s.reads = append(s.reads, reference{from: []*item{it}})
		}
	}
	mark(it)
	s.references[ref] = &resolved{reference: reference{item: it, from: []*item{it}}}
}

// found binds a reference to column i of an item.
func (b *binder) found(s *scalar, ref *pg.ColumnRef, it *item, i int) {
	shown := it.outputs[i]
	if it.kind == itemTable {
		to := reference{item: it, name: it.relation.Columns[i].Name, from: []*item{it}}
		to.mark(b.condition)
		s.references[ref] = &resolved{reference: to}
		s.reads = append(s.reads, to)
		return
	}
	if shown.value == nil || shown.value.opaque {
		s.opaque = true
		to := reference{from: []*item{it}}
		s.references[ref] = &resolved{reference: to}
		s.reads = append(s.reads, to)
		return
	}
	value := through(shown, it)
	s.references[ref] = &resolved{value: value}
	for _, parameter := range value.parameters {
		if !slices.Contains(s.parameters, parameter) {
			s.parameters = append(s.parameters, parameter)
		}
	}
	for _, read := range value.reads {
		read.mark(b.condition)
		s.reads = append(s.reads, read)
	}
}

// anyFamily is that of a literal, which becomes a value of what it is beside.
const anyFamily = "any"

// family is that of the values of a scalar, among which those that are equal have the
// same text; empty if nobody knows. What is not in here may be of a type for which that
// is not so: name::citext.
func (b *binder) family(s *scalar) string {
	if s == nil || s.opaque {
		return ""
	}
	return b.familyOf(s, s.node)
}

func (b *binder) familyOf(s *scalar, node *pg.Node) string {
	common := func(nodes []*pg.Node) string {
		family := anyFamily
		for _, node := range nodes {
			family = merged(family, b.familyOf(s, node))
		}
		return family
	}
	switch n := node.GetNode().(type) {
	case *pg.Node_ColumnRef:
		to := s.references[n.ColumnRef]
		switch {
		case to == nil:
		case to.value != nil:
			return b.family(to.value)
		case to.union != nil:
			return merged(b.family(to.union.arms[0].outputs[to.column].value), b.family(to.union.arms[1].outputs[to.column].value))
		case to.item != nil && to.item.kind == itemTable && to.name != "":
			return column{to.item, to.name}.typ().family()
		}
	case *pg.Node_ParamRef:
		if i := int(n.ParamRef.Number) - 1; i < len(b.types) {
			return b.types[i].family()
		}
	case *pg.Node_AConst:
		switch {
		case n.AConst.GetIval() != nil:
			return "whole number"
		case n.AConst.GetBoolval() != nil:
			return "bool"
		case n.AConst.GetFval() == nil && n.AConst.GetBsval() == nil:
			return anyFamily
		}
	case *pg.Node_CoalesceExpr:
		return common(n.CoalesceExpr.Args)
	case *pg.Node_MinMaxExpr:
		return common(n.MinMaxExpr.Args)
	case *pg.Node_AExpr:
		if e := n.AExpr; e.Kind == pg.A_Expr_Kind_AEXPR_OP && e.Lexpr != nil && slices.Contains(ofWholes, operator(e)) && common([]*pg.Node{e.Lexpr, e.Rexpr}) == "whole number" {
			return "whole number"
		}
	case *pg.Node_FuncCall:
		name := n.FuncCall.Funcname[len(n.FuncCall.Funcname)-1].GetString_().GetSval()
		if slices.Contains(ofTexts, name) && common(n.FuncCall.Args) == "text" {
			return "text"
		}
	}
	return ""
}

// ofWholes are the operators that make whole numbers of whole numbers, and ofTexts the
// functions that make texts of texts.
var (
	ofWholes = strings.Fields("+ - * / %")
	ofTexts  = strings.Fields("lower upper initcap btrim ltrim rtrim md5 replace")
)

// merged is the family of what is of either of two.
func merged(a, b string) string {
	switch {
	case a == anyFamily || a == b:
		return b
	case b == anyFamily:
		return a
	}
	return ""
}

// sameAsText reports whether values of either that are equal have the same text.
func (b *binder) sameAsText(one, other *scalar) bool {
	return merged(b.family(one), b.family(other)) != ""
}

// conjuncts binds a condition as the conditions that must all hold.
func (b *binder) conjuncts(node *pg.Node, at *scope, place any) ([]*conjunct, error) {
	if and := node.GetBoolExpr(); and != nil && and.Boolop == pg.BoolExprType_AND_EXPR {
		var all []*conjunct
		for _, arg := range and.Args {
			some, err := b.conjuncts(arg, at, place)
			if err != nil {
				return nil, err
			}
			all = append(all, some...)
		}
		return all, nil
	}
	if b.condition > 0 {
		return b.conjunct(node, at, place) // part of another one
	}
	b.conditions = append(b.conditions, nil)
	b.condition = len(b.conditions)
	parts, err := b.conjunct(node, at, place)
	b.conditions[b.condition-1] = parts
	b.condition = 0
	return parts, err
}

// conjunct binds one condition of an AND.
func (b *binder) conjunct(node *pg.Node, at *scope, place any) ([]*conjunct, error) {
	if link := node.GetSubLink(); link != nil && (link.SubLinkType == pg.SubLinkType_EXISTS_SUBLINK || link.SubLinkType == pg.SubLinkType_ANY_SUBLINK) {
		sl, err := b.bindSublink(link, at, place)
		if err != nil {
			return nil, err
		}
		s := &scalar{node: clone(node), opaque: true}
		if link.Testexpr != nil {
			tested, err := b.bind(link.Testexpr, at, place)
			if err != nil {
				return nil, err
			}
			s.reads, s.parameters = tested.reads, tested.parameters
		}
		sl.required, sl.carried = true, len(sl.equal) > 0
		return []*conjunct{{scalar: s, place: place, sublink: sl}}, nil
	}
	if or := node.GetBoolExpr(); or != nil && or.Boolop == pg.BoolExprType_OR_EXPR && !hasSublink(node) {
		whole, err := b.bind(node, at, place)
		if err != nil {
			return nil, err
		}
		c := &conjunct{scalar: whole, place: place}
		for _, arg := range or.Args {
			one, err := b.conjuncts(arg, at, place)
			if err != nil {
				return nil, err
			}
			c.any = append(c.any, one)
		}
		return []*conjunct{c}, nil
	}
	compare := node.GetAExpr()
	if compare != nil && compare.Kind == pg.A_Expr_Kind_AEXPR_IN && operator(compare) == "=" && !hasSublink(node) {
		whole, err := b.bind(node, at, place)
		if err != nil {
			return nil, err
		}
		c := &conjunct{scalar: whole, place: place}
		for _, one := range compare.Rexpr.GetList().GetItems() {
			left, err := b.bind(compare.Lexpr, at, place)
			if err != nil {
				return nil, err
			}
			right, err := b.bind(one, at, place)
			if err != nil {
				return nil, err
			}
			c.any = append(c.any, []*conjunct{equality(left, right, place)})
		}
		return []*conjunct{c}, nil
	}
	if compare != nil && operator(compare) == "=" && compare.Lexpr != nil && (compare.Kind == pg.A_Expr_Kind_AEXPR_OP ||
		compare.Kind == pg.A_Expr_Kind_AEXPR_NOT_DISTINCT && (isParameter(compare.Lexpr) || isParameter(compare.Rexpr))) {
		l, r := compare.Lexpr.GetRowExpr(), compare.Rexpr.GetRowExpr()
		if l != nil && r != nil && len(l.Args) == len(r.Args) && !hasStar(l.Args) && !hasStar(r.Args) {
			var all []*conjunct
			for i := range l.Args {
				some, err := b.conjuncts(&pg.Node{Node: &pg.Node_AExpr{AExpr: &pg.A_Expr{
					Kind: compare.Kind, Name: compare.Name, Lexpr: l.Args[i], Rexpr: r.Args[i], Location: compare.Location,
				}}}, at, place)
				if err != nil {
					return nil, err
				}
				all = append(all, some...)
			}
			return all, nil
		}
		left, err := b.bind(compare.Lexpr, at, place)
		if err != nil {
			return nil, err
		}
		right, err := b.bind(compare.Rexpr, at, place)
		if err != nil {
			return nil, err
		}
		return []*conjunct{equality(left, right, place)}, nil
	}
	bound, err := b.bind(node, at, place)
	if err != nil {
		return nil, err
	}
	return []*conjunct{{scalar: bound, place: place}}, nil
}

// isParameter reports whether it is one, which never is NULL: there is no key of NULL.
func isParameter(node *pg.Node) bool {
	if cast := node.GetTypeCast(); cast != nil {
		node = cast.Arg
	}
	return node.GetParamRef() != nil
}

func operator(e *pg.A_Expr) string {
	if len(e.Name) != 1 {
		return "" // OPERATOR(schema.=): whose it is is not known
	}
	return e.Name[0].GetString_().GetSval()
}

func hasSublink(node *pg.Node) bool {
	found := false
	walk(node, func(n *pg.Node) bool {
		found = found || n.GetSubLink() != nil
		return !found
	})
	return found
}

// strict are PostgreSQL's operators that give NULL for NULL.
var strict = strings.Fields("= <> != < > <= >= + - * / % ^ ~~ !~~ ~~* !~~* ~ ~* !~ !~*")

// rejects reports whether the condition cannot be true where every column of the
// items for which inside is true is NULL.
func (c *conjunct) rejects(inside func(*item) bool) bool {
	if c.sublink != nil {
		for _, equal := range c.sublink.equal {
			if equal.left.nullIfNull(equal.left.node, inside) {
				return true
			}
		}
		return false
	}
	return c.scalar.rejectsIn(c.node, inside)
}

func (s *scalar) rejectsIn(node *pg.Node, inside func(*item) bool) bool {
	switch n := node.Node.(type) {
	case *pg.Node_BoolExpr:
		and := n.BoolExpr.Boolop == pg.BoolExprType_AND_EXPR
		if n.BoolExpr.Boolop == pg.BoolExprType_NOT_EXPR {
			return s.nullIfNull(n.BoolExpr.Args[0], inside)
		}
		for _, arg := range n.BoolExpr.Args {
			if s.rejectsIn(arg, inside) == and {
				return and
			}
		}
		return !and
	case *pg.Node_NullTest:
		return n.NullTest.Nulltesttype == pg.NullTestType_IS_NOT_NULL && s.nullIfNull(n.NullTest.Arg, inside)
	case *pg.Node_BooleanTest:
		switch n.BooleanTest.Booltesttype {
		case pg.BoolTestType_IS_TRUE, pg.BoolTestType_IS_FALSE, pg.BoolTestType_IS_NOT_UNKNOWN:
			return s.nullIfNull(n.BooleanTest.Arg, inside)
		}
		return false
	}
	return s.nullIfNull(node, inside)
}

// nullIfNull reports whether the expression is NULL where every column of the items
// for which inside is true is.
func (s *scalar) nullIfNull(node *pg.Node, inside func(*item) bool) bool {
	switch n := node.Node.(type) {
	case *pg.Node_ColumnRef:
		to := s.references[n.ColumnRef]
		if to == nil {
			return false
		}
		if to.value != nil {
			// What a subquery shows is NULL outside of it, whatever it is made of.
			return slices.ContainsFunc(to.value.within, inside) || to.value.nullIfNull(to.value.node, inside)
		}
		return slices.ContainsFunc(to.from, inside)
	case *pg.Node_TypeCast:
		return s.nullIfNull(n.TypeCast.Arg, inside)
	case *pg.Node_CollateClause:
		return s.nullIfNull(n.CollateClause.Arg, inside)
	case *pg.Node_AExpr:
		e := n.AExpr
		switch e.Kind {
		case pg.A_Expr_Kind_AEXPR_OP, pg.A_Expr_Kind_AEXPR_LIKE, pg.A_Expr_Kind_AEXPR_ILIKE:
			if !slices.Contains(strict, operator(e)) || e.Rexpr.GetSubLink() != nil && e.Rexpr.GetSubLink().SubLinkType != pg.SubLinkType_EXPR_SUBLINK {
				return false
			}
			return e.Lexpr != nil && s.nullIfNull(e.Lexpr, inside) || s.nullIfNull(e.Rexpr, inside)
		case pg.A_Expr_Kind_AEXPR_IN, pg.A_Expr_Kind_AEXPR_BETWEEN:
			return s.nullIfNull(e.Lexpr, inside)
		case pg.A_Expr_Kind_AEXPR_OP_ANY:
			return s.nullIfNull(e.Rexpr, inside) // an empty array is no NULL
		}
	case *pg.Node_BoolExpr:
		return n.BoolExpr.Boolop == pg.BoolExprType_NOT_EXPR && s.nullIfNull(n.BoolExpr.Args[0], inside)
	}
	return false
}

// text names what a scalar is: two of the same text are always equal.
func (s *scalar) text() string {
	text, ok := s.write(func(it *item) string { return fmt.Sprintf("%p", it) })
	if !ok {
		return fmt.Sprintf("%p", s)
	}
	return text
}

// write spells the scalar with the names that tables have; not ok if it cannot be.
func (s *scalar) write(name func(*item) string) (sql string, ok bool) {
	node, ok := s.spell(name)
	if !ok {
		return "", false
	}
	sql, err := pg.Deparse(&pg.ParseResult{Version: version(), Stmts: []*pg.RawStmt{{Stmt: &pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: &pg.SelectStmt{
		TargetList:  []*pg.Node{{Node: &pg.Node_ResTarget{ResTarget: &pg.ResTarget{Val: node}}}},
		LimitOption: pg.LimitOption_LIMIT_OPTION_DEFAULT, Op: pg.SetOperation_SETOP_NONE,
	}}}}}})
	if err != nil {
		return "", false
	}
	return strings.TrimPrefix(sql, "SELECT "), true
}

// version is that of the parser's trees.
var version = sync.OnceValue(func() int32 {
	result, err := pg.Parse("SELECT")
	if err != nil {
		panic(err)
	}
	return result.Version
})

// spell is a copy of the expression in which every column has the name of its table.
func (s *scalar) spell(name func(*item) string) (*pg.Node, bool) {
	if s.opaque {
		return nil, false
	}
	// The copy's references are found in the order of the original's.
	var originals []*pg.ColumnRef
	walk(s.node, func(n *pg.Node) bool {
		if ref := n.GetColumnRef(); ref != nil {
			originals = append(originals, ref)
		}
		return true
	})
	copied := clone(s.node)
	ok, i := true, 0
	walk(copied, func(n *pg.Node) bool {
		if n.GetColumnRef() == nil {
			return true
		}
		to := s.references[originals[i]]
		i++
		switch {
		case to == nil, to.union != nil:
			ok = false
		case to.value != nil:
			below, fine := to.value.spell(name)
			if !fine {
				ok = false
				return false
			}
			n.Node = below.Node
		case to.item == nil || to.name == "":
			ok = false
		default:
			n.Node = &pg.Node_ColumnRef{ColumnRef: &pg.ColumnRef{Fields: []*pg.Node{pg.MakeStrNode(name(to.item)), pg.MakeStrNode(to.name)}}}
		}
		return false
	})
	return copied, ok
}
