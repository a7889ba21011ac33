package query

import (
	"regexp"
	"slices"
	"strconv"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/unstale/unstale/internal/plan"
)

// predicate is what can be decided on a row of the occurrence alone; nil if
// nothing can.
func (r *reach) predicate() *plan.Predicate {
	var all []plan.Predicate
	for _, c := range r.usable {
		if c.sublink != nil || slices.ContainsFunc(c.reads, func(read reference) bool { return read.item != r.of }) || len(c.reads) == 0 {
			continue
		}
		if p := r.decide(c.scalar, c.node); p.Op != plan.Undecidable {
			all = append(all, p)
		}
	}
	all = append(all, r.present()...)
	switch len(all) {
	case 0:
		return nil
	case 1:
		return &all[0]
	}
	return &plan.Predicate{Op: plan.And, Args: all}
}

// filters are the conditions that can be decided on a row of the occurrence alone, and
// whose columns, or some of them, nothing else reads.
func (b *binder) filters(r *reach) (columns []string, filters []plan.Predicate) {
	decided := map[int]*plan.Predicate{}
	for i, parts := range b.conditions {
		whole := plan.Predicate{Op: plan.And}
		for _, c := range parts {
			if c.sublink != nil || slices.ContainsFunc(c.reads, func(read reference) bool { return read.item != r.of }) {
				whole.Args = append(whole.Args, undecidable)
			} else {
				whole.Args = append(whole.Args, r.decide(c.scalar, c.node))
			}
		}
		switch {
		case len(parts) == 0 || !whole.Exact():
		case len(parts) == 1:
			decided[i+1] = &whole.Args[0]
		default:
			decided[i+1] = &whole
		}
	}
	for column, conditions := range r.of.used {
		of := slices.ContainsFunc(conditions, func(c int) bool { return decided[c] != nil })
		elsewhere := slices.ContainsFunc(conditions, func(c int) bool { return decided[c] == nil })
		if of && (!elsewhere || b.without&ReadElsewhere != 0) {
			columns = append(columns, column)
		}
	}
	slices.Sort(columns)
	for i := range b.conditions {
		if p := decided[i+1]; p != nil && slices.ContainsFunc(p.Columns(nil), func(column string) bool { return slices.Contains(columns, column) }) {
			filters = append(filters, *p)
		}
	}
	return columns, filters
}

// present says that the columns which must be equal to something of another table
// hold a value.
func (r *reach) present() (all []plan.Predicate) {
	var names []string
	for _, c := range r.usable {
		if c.left == nil || c.right == nil {
			continue
		}
		for _, sides := range [][2]*scalar{{c.left, c.right}, {c.right, c.left}} {
			at := sides[0].column()
			if at == nil || at.item != r.of || at.typ().Base == "" || at.item.relation.Column(at.name).NotNull || slices.Contains(names, at.name) {
				continue
			}
			if !slices.ContainsFunc(sides[1].reads, func(read reference) bool { return read.item != r.of }) {
				continue
			}
			names = append(names, at.name)
			all = append(all, plan.Predicate{Op: plan.Not, Args: []plan.Predicate{{Op: plan.IsNull, Column: at.name}}})
		}
	}
	return all
}

var undecidable = plan.Predicate{}

// decide translates a condition.
func (r *reach) decide(s *scalar, node *pg.Node) plan.Predicate {
	switch n := node.Node.(type) {
	case *pg.Node_ColumnRef:
		to := s.references[n.ColumnRef]
		if to != nil && to.value != nil {
			return r.decide(to.value, to.value.node)
		}
		if at := r.own(s, node); at != nil && at.typ().Base == "bool" {
			return plan.Predicate{Op: plan.Among, Column: at.name, Values: []string{"t"}}
		}
	case *pg.Node_BoolExpr:
		p := plan.Predicate{Op: map[pg.BoolExprType]plan.PredicateOp{
			pg.BoolExprType_AND_EXPR: plan.And, pg.BoolExprType_OR_EXPR: plan.Or, pg.BoolExprType_NOT_EXPR: plan.Not,
		}[n.BoolExpr.Boolop]}
		decided := false
		for _, arg := range n.BoolExpr.Args {
			p.Args = append(p.Args, r.decide(s, arg))
			decided = decided || p.Args[len(p.Args)-1].Op != plan.Undecidable
		}
		if decided {
			return p
		}
	case *pg.Node_NullTest:
		at := r.own(s, n.NullTest.Arg)
		if at == nil || at.typ().Base == "" {
			break // of a row, IS NULL asks for its fields
		}
		p := plan.Predicate{Op: plan.IsNull, Column: at.name}
		if n.NullTest.Nulltesttype == pg.NullTestType_IS_NOT_NULL {
			return plan.Predicate{Op: plan.Not, Args: []plan.Predicate{p}}
		}
		return p
	case *pg.Node_BooleanTest:
		at := r.own(s, n.BooleanTest.Arg)
		if at == nil || at.typ().Base != "bool" {
			break
		}
		test := n.BooleanTest.Booltesttype
		op := map[pg.BoolTestType]plan.PredicateOp{
			pg.BoolTestType_IS_TRUE: plan.IsTrue, pg.BoolTestType_IS_NOT_TRUE: plan.IsTrue,
			pg.BoolTestType_IS_FALSE: plan.IsFalse, pg.BoolTestType_IS_NOT_FALSE: plan.IsFalse,
			pg.BoolTestType_IS_UNKNOWN: plan.IsNull, pg.BoolTestType_IS_NOT_UNKNOWN: plan.IsNull,
		}[test]
		p := plan.Predicate{Op: op, Column: at.name}
		if r.without&NullPredicates != 0 {
			switch test {
			case pg.BoolTestType_IS_NOT_TRUE:
				return plan.Predicate{Op: plan.IsFalse, Column: at.name}
			case pg.BoolTestType_IS_NOT_FALSE:
				return plan.Predicate{Op: plan.IsTrue, Column: at.name}
			}
		}
		switch test {
		case pg.BoolTestType_IS_NOT_TRUE, pg.BoolTestType_IS_NOT_FALSE, pg.BoolTestType_IS_NOT_UNKNOWN:
			return plan.Predicate{Op: plan.Not, Args: []plan.Predicate{p}}
		}
		return p
	case *pg.Node_AExpr:
		return r.compare(s, n.AExpr)
	}
	return undecidable
}

func (r *reach) compare(s *scalar, e *pg.A_Expr) plan.Predicate {
	switch e.Kind {
	case pg.A_Expr_Kind_AEXPR_IN:
		at := r.own(s, e.Lexpr)
		if at == nil {
			return undecidable
		}
		p := plan.Predicate{Op: plan.Among, Column: at.name}
		for _, one := range e.Rexpr.GetList().GetItems() {
			text, ok := constant(one, at.typ())
			if !ok {
				return undecidable
			}
			p.Values = append(p.Values, text)
		}
		if operator(e) == "<>" {
			return plan.Predicate{Op: plan.Not, Args: []plan.Predicate{p}}
		}
		return p
	case pg.A_Expr_Kind_AEXPR_BETWEEN:
		list := e.Rexpr.GetList().GetItems()
		at := r.own(s, e.Lexpr)
		if at == nil || len(list) != 2 {
			return undecidable
		}
		return plan.Predicate{Op: plan.And, Args: []plan.Predicate{order(">=", at, list[0]), order("<=", at, list[1])}}
	case pg.A_Expr_Kind_AEXPR_OP:
	default:
		return undecidable
	}
	if e.Lexpr == nil {
		return undecidable
	}
	op, at, other := operator(e), r.own(s, e.Lexpr), e.Rexpr
	if at == nil {
		at, other = r.own(s, e.Rexpr), e.Lexpr
		op = map[string]string{"=": "=", "<>": "<>", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}[op]
	}
	if at == nil {
		return undecidable
	}
	switch op {
	case "=", "<>", "!=":
		text, ok := constant(other, at.typ())
		if !ok {
			return undecidable
		}
		p := plan.Predicate{Op: plan.Among, Column: at.name, Values: []string{text}}
		if op != "=" {
			return plan.Predicate{Op: plan.Not, Args: []plan.Predicate{p}}
		}
		return p
	}
	return order(op, at, other)
}

func order(op string, at *column, other *pg.Node) plan.Predicate {
	text, ok := constant(other, at.typ())
	if !ok || at.typ().family() != "whole number" {
		return undecidable
	}
	number, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return undecidable
	}
	less := plan.Predicate{Op: plan.Less, Column: at.name, Number: number}
	atMost := plan.Predicate{Op: plan.LessOrEqual, Column: at.name, Number: number}
	switch op {
	case "<":
		return less
	case "<=":
		return atMost
	case ">":
		return plan.Predicate{Op: plan.Not, Args: []plan.Predicate{atMost}}
	case ">=":
		return plan.Predicate{Op: plan.Not, Args: []plan.Predicate{less}}
	}
	return undecidable
}

// own is the column of the occurrence that a node is.
func (r *reach) own(s *scalar, node *pg.Node) *column {
	to := s.references[node.GetColumnRef()]
	switch {
	case node.GetColumnRef() == nil || to == nil:
		return nil
	case to.value != nil:
		return r.own(to.value, to.value.node)
	case to.item != r.of || to.name == "":
		return nil
	}
	return &column{to.item, to.name}
}

var (
	wholeText = regexp.MustCompile(`^(0|-?[1-9][0-9]{0,17})$`)
	uuidText  = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
)

// constant is the text that the log has for a value that is equal to a constant.
func constant(node *pg.Node, of Type) (text string, ok bool) {
	if cast := node.GetTypeCast(); cast != nil {
		// A cast to another type may change what is compared.
		name := cast.TypeName.Names[len(cast.TypeName.Names)-1].GetString_().GetSval()
		if len(cast.TypeName.Typmods) > 0 || len(cast.TypeName.ArrayBounds) > 0 {
			return "", false
		}
		if of.Base == "enum" && name != of.bareName() || of.Base != "enum" && (Type{Base: name}).family() != of.family() {
			return "", false
		}
		node = cast.Arg
	}
	minus := false
	if e := node.GetAExpr(); e != nil && e.Kind == pg.A_Expr_Kind_AEXPR_OP && e.Lexpr == nil && operator(e) == "-" {
		minus, node = true, e.Rexpr
	}
	c := node.GetAConst()
	if c == nil || c.Isnull {
		return "", false
	}
	literal := false
	switch v := c.Val.(type) {
	case *pg.A_Const_Ival:
		text = strconv.Itoa(int(v.Ival.GetIval()))
	case *pg.A_Const_Fval:
		text = v.Fval.Fval
	case *pg.A_Const_Boolval:
		if of.Base != "bool" {
			return "", false
		}
		return strconv.FormatBool(v.Boolval.Boolval)[:1], true
	case *pg.A_Const_Sval:
		text, literal = v.Sval.Sval, true
	default:
		return "", false
	}
	if minus {
		text = "-" + text
	}
	switch of.family() {
	case "whole number":
		return text, wholeText.MatchString(text)
	case "text":
		return text, literal && !minus
	case "uuid":
		return text, literal && uuidText.MatchString(text)
	case "bool":
		switch text {
		case "t", "true":
			return "t", literal
		case "f", "false":
			return "f", literal
		}
		return "", false
	}
	if of.Base == "enum" {
		return text, literal && !minus
	}
	return "", false
}
