package query

import (
	"fmt"
	"slices"

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
	// conditions are those of every AND, each in its parts; condition is the number of
	// the one that is being bound, counted from 1, 0: none.
	conditions [][]*conjunct
	condition  int
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

// whatever is what to do where a value changes and no row does: a ttl does not help, since
// only what the service writes has one.
const whatever = "compute it into a column; or write the entry with depends_on; or cache the result without Unstale, with a short TTL of the application's own"

// bindSelect binds a SELECT, a VALUES list or a set operation.
func (b *binder) bindSelect(s *pg.SelectStmt, outer *scope) (*block, error) {
	if b.depth++; b.depth > depthMax {
		return nil, &Error{Offset: -1, Text: "nested too deep"}
	}
	within := b.condition
	b.condition = 0
	defer func() {
		b.depth--
		b.condition = within
	}()
	switch {
	case s.IntoClause != nil:
		return nil, b.refuse(s.IntoClause.Rel.GetLocation(), "SELECT INTO writes", "a cached result is what a SELECT returns")
	case len(s.LockingClause) > 0:
		wrong := b.refuse(-1, "FOR UPDATE and FOR SHARE lock rows", "leave it out")
		if b.view == "" {
			wrong.Offset = b.query.locks()
		}
		return nil, wrong
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
	if _, ok := m.Interface().(*pg.Node); ok {
		// It has a field for each of some 270 kinds, and one of them.
		if one := m.WhichOneof(m.Descriptor().Oneofs().Get(0)); one != nil {
			visit(m.Get(one).Message())
		}
		return
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
