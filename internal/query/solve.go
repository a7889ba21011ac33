package query

import (
	"cmp"
	"fmt"
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/unstale/unstale/internal/plan"
)

const (
	// alternativesMax bounds the ORs that are taken apart, one inside the other.
	alternativesMax = 32
	// triesMax bounds how often an occurrence is tried with some taken apart: with very
	// many ORs there is no end of ways.
	triesMax = 256
)

// A column of an occurrence of a table.
type column struct {
	item *item
	name string
}

func (c column) typ() Type { return c.item.relation.Column(c.name).Type }

// asked are the parameters to be reached, and their order.
type asked struct {
	parameters []string
	types      []Type
	key        []string
	without    Rule
	// alone: by what the row itself tells. A placeholder that it does not is left
	// empty; one at least it does.
	alone bool

	tries int // with the occurrence at hand
}

// solve finds the paths from a row of the occurrence to the values of the
// parameters. why says why there are none.
func (r *reach) solve(a *asked) (paths []plan.Path, why string) {
	a.tries = 0
	if paths, why = alternatives(a, r.usable, nil, alternativesMax, r.path); paths == nil {
		return r.alone(*a), why
	}
	return paths, ""
}

// alone finds the paths that ask nobody and lead to some of the values: to all keys
// that have these. Without any, every key is concerned.
func (r *reach) alone(a asked) []plan.Path {
	clear(r.asks)
	a.alone, a.tries = true, 0
	paths, _ := alternatives(&a, r.usable, nil, alternativesMax, r.path)
	return paths
}

// alternatives tries with the conditions as they are, and then takes one OR after
// the other apart. find finds one way from the row to the parameters.
func alternatives[way any](a *asked, usable, apart []*conjunct, budget int, find func(*asked, []*conjunct) (*way, string)) (ways []way, why string) {
	one, why := find(a, usable)
	if one != nil {
		return []way{*one}, ""
	}
	for _, c := range usable {
		if c.any == nil || slices.Contains(apart, c) || len(c.any) > budget {
			continue
		}
		ways = ways[:0]
		solved := true
		for _, one := range c.any {
			if a.tries++; a.tries > triesMax {
				return nil, why
			}
			more, _ := alternatives(a, append(slices.Clone(usable), one...), append(slices.Clone(apart), c), budget/len(c.any), find)
			if more == nil {
				solved = false
				break
			}
			ways = append(ways, more...)
		}
		if solved {
			return ways, ""
		}
	}
	return nil, why
}

// path finds one path, if the conditions tie every parameter to the row.
func (r *reach) path(a *asked, usable []*conjunct) (*plan.Path, string) {
	edges := r.edges(usable)
	found, why := r.sources(a, usable, edges)
	if found == nil {
		return nil, why
	}
	direct := make([]string, len(found))
	known := len(found) == 0
	for i, s := range found {
		if s.column.item == r.of {
			direct[i], known = s.column.name, true
		} else if !a.alone {
			return r.lookup(a, usable, edges, found)
		}
	}
	if !known {
		return nil, ""
	}
	return &plan.Path{Key: direct}, ""
}

// sources are where the values of the parameters come from, in the key's order; nil if
// one of them is not tied to the row, unless those are asked for that are, alone.
func (r *reach) sources(a *asked, usable []*conjunct, edges map[*item][]*item) ([]source, string) {
	classes := equalities(usable, a.types, a.without)
	near := distances(edges, r.of)
	found := make([]source, len(a.key))
	for i, name := range a.key {
		parameter := slices.Index(a.parameters, name)
		source, why := r.source(classes, usable, near, parameter, name, a.types[parameter])
		if source == nil && !a.alone {
			return nil, fmt.Sprintf("nothing ties its rows to @%s by an equality%s", name, why)
		}
		if source != nil {
			source.of = a.types[parameter]
			found[i] = *source
		}
	}
	return found, ""
}

// source is where the value of a parameter comes from: a column of the row, or an
// expression over it and other tables.
type source struct {
	column column
	*scalar
	// elements is an array that holds the value.
	elements *column
	of       Type // that of the parameter
}

// source finds that of parameter i: at best a column of the row itself, else of the
// nearest table; see settled.
func (r *reach) source(c classes, usable []*conjunct, near map[*item]int, i int, name string, of Type) (*source, string) {
	var best *source
	why := ""
	if of.family() == "" && r.without&Families == 0 {
		return nil, fmt.Sprintf(" of texts: it %s%s", of.untextual(), asText(usable, i, name, of))
	}
	for _, at := range c.of(parameter(i)) {
		if at.item == r.of {
			return &source{column: column{at.item, at.name}}, ""
		}
		if at.item == nil || !r.there[at.item] {
			continue
		}
		if distance, ok := near[at.item]; best == nil || ok && distance < cmp.Or(near[best.column.item], len(r.there)) {
			best = &source{column: column{at.item, at.name}, scalar: at.scalar}
		}
	}
	if best != nil {
		return best, ""
	}
	nearest := 0
	for _, u := range usable {
		for _, sides := range [][2]*scalar{{u.left, u.right}, {u.right, u.left}} {
			if sides[0] == nil || sides[1] == nil || !sides[0].isParameter(i) {
				continue
			}
			by := sides[1]
			if to := by.column(); to != nil && to.item.relation.Column(to.name).family() != of.family() {
				why = fmt.Sprintf(" of texts: %s %s", to.name, to.typ().untextual())
				continue
			}
			if by.opaque || len(by.parameters) > 0 || len(by.reads) == 0 || !r.knows(by) {
				continue
			}
			if differs := by.untextual(of); differs != "" {
				why = " of texts: " + differs
				continue
			}
			if of.ofZone() || !r.steady(by) {
				why = " of timestamps with time zone: what it is depends on the session's time zone"
				if !of.ofZone() && !by.ofZone() {
					why = " whose text is the same in each session: it depends on settings"
				}
				continue
			}
			if by.floats() {
				why = " of exact numbers: it is computed of float"
				continue
			}
			distance := 0
			for _, read := range by.reads {
				at, ok := near[read.item]
				if !ok {
					at = len(r.there)
				}
				distance = max(distance, at)
			}
			if best == nil || distance < nearest {
				best, nearest = &source{scalar: by}, distance
			}
		}
	}
	if best != nil {
		return best, why
	}
	if why == "" && slices.ContainsFunc(usable, func(u *conjunct) bool { return u.computes(i) }) {
		why = fmt.Sprintf(" with itself: the query computes with it, and which values of it are the same then is not known; compare with @%s alone, and compute before the key is made", name)
	}
	for _, u := range usable {
		if at := u.holder(i); at != nil && r.there[at.item] {
			if at.typ().element().family() == of.family() {
				return &source{elements: at}, ""
			}
			why = fmt.Sprintf(" of texts: %s %s", at.name, at.typ().untextual())
		}
	}
	return nil, why
}

// asText is the equality that would tie parameter i where its type does not; empty: there
// is none. Of other types the text depends on settings, is compared as they are, or, of
// inet, is not what people write.
func asText(usable []*conjunct, i int, name string, of Type) string {
	if of.Base != "numeric" && of.Base != "name" {
		return ""
	}
	for _, u := range usable {
		for _, sides := range [][2]*scalar{{u.left, u.right}, {u.right, u.left}} {
			if sides[0] != nil && sides[1] != nil && sides[0].isParameter(i) && sides[1].column() != nil {
				return fmt.Sprintf("; %s::text = @%s would tie them", sides[1].column().name, name)
			}
		}
	}
	return ""
}

// computes reports whether an equality is one of an expression over parameter i.
func (c *conjunct) computes(i int) bool {
	over := func(s *scalar) bool { return s != nil && slices.Contains(s.parameters, i) && !s.isParameter(i) }
	return c.right != nil && (over(c.left) || over(c.right))
}

// holder is the column whose arrays hold the parameter where the condition is true, nil
// if it says nothing of that.
func (c *conjunct) holder(i int) *column {
	e := c.node.GetAExpr()
	if e == nil || e.Lexpr == nil {
		return nil
	}
	part := func(node *pg.Node) *scalar { return &scalar{node: node, references: c.references} }
	held, by := []*pg.Node{e.Lexpr}, e.Rexpr
	switch op := operator(e); {
	case e.Kind == pg.A_Expr_Kind_AEXPR_OP_ANY && op == "=":
	case e.Kind == pg.A_Expr_Kind_AEXPR_OP && op == "<@":
		held = e.Lexpr.GetAArrayExpr().GetElements()
	case e.Kind == pg.A_Expr_Kind_AEXPR_OP && op == "@>":
		held, by = e.Rexpr.GetAArrayExpr().GetElements(), e.Lexpr
	default:
		return nil
	}
	if !slices.ContainsFunc(held, func(node *pg.Node) bool { return part(node).isParameter(i) }) {
		return nil
	}
	return part(by).column()
}

// knows reports whether all that a scalar reads is there.
func (r *reach) knows(s *scalar) bool {
	return !slices.ContainsFunc(s.reads, func(read reference) bool { return read.item == nil || read.name == "" || !r.there[read.item] })
}

// steady: see scalar.steady.
func (r *reach) steady(s *scalar) bool { return r.without&Settings != 0 || s.steady() }

// bare is the scalar without casts that keep equality.
func (s *scalar) bare() *pg.Node {
	node := s.node
	for {
		switch n := node.Node.(type) {
		case *pg.Node_CollateClause:
			return node
		case *pg.Node_TypeCast:
			if len(n.TypeCast.TypeName.Typmods) > 0 || !n.TypeCast.Arg.ProtoReflect().IsValid() || n.TypeCast.Arg.GetParamRef() == nil {
				return node
			}
			node = n.TypeCast.Arg
		default:
			return node
		}
	}
}

func (s *scalar) isParameter(i int) bool {
	if to := s.references[s.node.GetColumnRef()]; to != nil && to.value != nil {
		return to.value.isParameter(i)
	}
	ref := s.bare().GetParamRef()
	return ref != nil && int(ref.Number)-1 == i
}

// column is the column of a table that the scalar is, nil if it is none.
func (s *scalar) column() *column {
	to := s.references[s.node.GetColumnRef()]
	switch {
	case to == nil:
		return nil
	case to.value != nil:
		return to.value.column()
	case to.item == nil || to.item.kind != itemTable || to.name == "":
		return nil
	}
	return &column{to.item, to.name}
}

// A term of an equality: a parameter or a column.
type term struct {
	parameter int // -1: a column
	item      *item
	name      string
	*scalar
}

func parameter(i int) term { return term{parameter: i} }

func (t term) same(u term) bool {
	return t.parameter == u.parameter && t.item == u.item && t.name == u.name
}

// classes are sets of terms that are equal, as texts too.
type classes [][]term

func (c classes) of(t term) []term {
	for _, class := range c {
		if slices.ContainsFunc(class, t.same) {
			return class
		}
	}
	return nil
}

func equalities(usable []*conjunct, types []Type, without Rule) classes {
	var c classes
	for _, u := range usable {
		if u.left == nil || u.right == nil {
			continue
		}
		l, okL := u.left.term(types)
		r, okR := u.right.term(types)
		if !okL || !okR || l.same(r) {
			continue
		}
		if family := l.family(types); without&Families == 0 && (family == "" || family != r.family(types)) {
			continue
		}
		a, b := c.index(l), c.index(r)
		switch {
		case a < 0 && b < 0:
			c = append(c, []term{l, r})
		case a < 0:
			c[b] = append(c[b], l)
		case b < 0:
			c[a] = append(c[a], r)
		case a != b:
			c[a] = append(c[a], c[b]...)
			c = slices.Delete(c, b, b+1)
		}
	}
	return c
}

func (c classes) index(t term) int {
	return slices.IndexFunc(c, func(class []term) bool { return slices.ContainsFunc(class, t.same) })
}

func (s *scalar) term(types []Type) (term, bool) {
	for i := range types {
		if s.isParameter(i) {
			return term{parameter: i, scalar: s}, true
		}
	}
	if at := s.column(); at != nil {
		return term{parameter: -1, item: at.item, name: at.name, scalar: s}, true
	}
	return term{}, false
}

func (t term) family(types []Type) string {
	if t.parameter >= 0 {
		return types[t.parameter].family()
	}
	return column{t.item, t.name}.typ().family()
}

// lookup writes the statement that leads from rows of the occurrence to the
// parameters, through the fewest tables.
func (r *reach) lookup(a *asked, usable []*conjunct, edges map[*item][]*item, found []source) (*plan.Path, string) {
	with, why := r.through(a, edges, found)
	if with == nil {
		return nil, why
	}
	w := &writer{of: r.of, with: with}
	var keys, where []string
	for i, s := range found {
		switch {
		case s.elements != nil:
			keys = append(keys, asKey(w.element(*s.elements), s.of))
		case s.column.item != nil:
			keys = append(keys, asKey(w.column(s.column), s.of))
		default:
			text, ok := s.write(w.name)
			if !ok {
				return nil, fmt.Sprintf("what @%s is equal to cannot be computed elsewhere", a.key[i])
			}
			w.takes(s.scalar)
			keys = append(keys, computedKey(text, s.of))
		}
	}
	long := func(read reference) bool {
		return read.item == r.of && (column{read.item, read.name}).typ().long() &&
			!slices.ContainsFunc(w.arguments, func(a plan.Argument) bool { return a.Column == read.name })
	}
	// First what joins: the rest takes no long values with it that this does not.
	byJoining := slices.Clone(usable)
	slices.SortStableFunc(byJoining, func(a, b *conjunct) int {
		switch x, y := a.joins(), b.joins(); {
		case x && !y:
			return -1
		case y && !x:
			return 1
		}
		return 0
	})
	for _, c := range byJoining {
		if !c.joins() && slices.ContainsFunc(c.reads, long) {
			continue
		}
		if !r.says(c, with) || slices.ContainsFunc(c.reads, func(read reference) bool { return read.item == r.of && (column{read.item, read.name}).typ().array() }) {
			continue
		}
		text, ok := c.write(w.name)
		if !ok || slices.Contains(where, "("+text+")") {
			continue
		}
		w.takes(c.scalar)
		where = append(where, "("+text+")")
	}
	if len(w.arguments) == 0 {
		return nil, "no column of its rows leads on"
	}
	lookup := &plan.Lookup{SQL: w.statement(keys, where, tellsApart(with, found)), Arguments: w.arguments}
	for _, it := range with {
		r.asks[it] = true
		lookup.Through = append(lookup.Through, plan.Through{Schema: it.relation.Schema, Table: it.relation.Name, Columns: joined(usable, it, append(with, r.of)), Reads: w.readOf(it)})
	}
	if r.indexed {
		lookup.Index, lookup.NoIndex = r.index(lookup, usable, found, with)
	}
	if lookup.Index != nil {
		r.indexable[lookup] = with[0]
	}
	return &plan.Path{Lookup: lookup}, ""
}

// through are the tables on the shortest ways from the row to where the values come
// from, the row's own left out; nil if no equalities lead there.
func (r *reach) through(a *asked, edges map[*item][]*item, found []source) ([]*item, string) {
	with := []*item{}
	for i, s := range found {
		var wanted []*item
		switch {
		case s.elements != nil:
			wanted = append(wanted, s.elements.item)
		case s.column.item != nil:
			wanted = append(wanted, s.column.item)
		default:
			for _, read := range s.reads {
				wanted = append(wanted, read.item)
			}
		}
		for _, it := range wanted {
			if it == r.of || slices.Contains(with, it) {
				continue
			}
			way := shortest(edges, r.of, it)
			if way == nil {
				return nil, fmt.Sprintf("no equality joins its rows with those of %s, which tell @%s", it.relation.Name, a.key[i])
			}
			for _, on := range way {
				if on != r.of && !slices.Contains(with, on) {
					with = append(with, on)
				}
			}
		}
	}
	slices.SortFunc(with, func(a, b *item) int { return cmp.Compare(a.place, b.place) })
	return with, ""
}

// says reports whether a condition is one of the row and the tables alone, and can be
// asked in another statement.
func (r *reach) says(c *conjunct, with []*item) bool {
	return !c.opaque && len(c.parameters) == 0 && len(c.reads) > 0 && c.sublink == nil && r.knows(c.scalar) && r.steady(c.scalar) &&
		!slices.ContainsFunc(c.reads, func(read reference) bool { return read.item != r.of && !slices.Contains(with, read.item) })
}

// tellsApart reports whether each row that a lookup finds has a key of its own: it
// reads one table, and the key has one of that.
func tellsApart(with []*item, found []source) bool {
	if len(with) != 1 || with[0].relation.Children != nil && !with[0].only || slices.ContainsFunc(found, func(s source) bool { return s.elements != nil }) {
		return false
	}
	return slices.ContainsFunc(with[0].relation.Unique, func(key []string) bool {
		return !slices.ContainsFunc(key, func(name string) bool {
			return !slices.ContainsFunc(found, func(s source) bool { return s.column == column{with[0], name} })
		})
	})
}

// joins reports whether it is an equality of two tables.
func (c *conjunct) joins() bool {
	return c.left != nil && c.right != nil && slices.ContainsFunc(c.left.reads, func(a reference) bool {
		return slices.ContainsFunc(c.right.reads, func(b reference) bool { return a.item != b.item })
	})
}

// long reports whether values of the type may be of any length. A change of a value
// that is too long for a lookup concerns every key, so lookups take none without need.
func (t Type) long() bool {
	switch t.Base {
	case "bool", "int2", "int4", "int8", "oid", "numeric", "float4", "float8", "money", "name", "char", "uuid", "enum", "pg_lsn",
		"date", "time", "timetz", "timestamp", "timestamptz", "interval", "macaddr", "macaddr8", "inet", "cidr", "point",
		"int4range", "int8range", "numrange", "daterange", "tsrange", "tstzrange":
		return false
	}
	return true
}

// joined are the columns of a table that equalities tie to others of the tables.
func joined(usable []*conjunct, of *item, with []*item) []string {
	var columns []string
	for _, c := range usable {
		for _, sides := range [][2]*scalar{{c.left, c.right}, {c.right, c.left}} {
			if sides[0] == nil || sides[1] == nil {
				continue
			}
			at, other := sides[0].column(), sides[1].column()
			if at != nil && other != nil && at.item == of && other.item != of && slices.Contains(with, other.item) && !slices.Contains(columns, at.name) {
				columns = append(columns, at.name)
			}
		}
	}
	return columns
}

// edges are the tables that equalities join, both ways.
func (r *reach) edges(usable []*conjunct) map[*item][]*item {
	edges := map[*item][]*item{}
	for _, c := range usable {
		for _, pair := range r.pairs(c) {
			edges[pair[0]] = append(edges[pair[0]], pair[1])
			edges[pair[1]] = append(edges[pair[1]], pair[0])
		}
	}
	return edges
}

// pairs are the tables that one condition joins. It is asked with each try, and spelling a
// condition takes as long as all the rest.
func (r *reach) pairs(c *conjunct) (pairs [][2]*item) {
	if known, ok := r.paired[c]; ok {
		return known
	}
	defer func() { r.paired[c] = pairs }()
	if c.left == nil || c.right == nil || c.opaque || len(c.parameters) > 0 || !r.knows(c.scalar) || !r.steady(c.scalar) {
		return nil
	}
	if _, ok := c.write(func(*item) string { return "t" }); !ok {
		return nil
	}
	var items []*item
	for _, read := range c.reads {
		if !slices.Contains(items, read.item) {
			items = append(items, read.item)
		}
	}
	if len(items) != 2 {
		return nil // it says nothing about two of them without the third
	}
	for _, a := range c.left.reads {
		for _, b := range c.right.reads {
			if a.item == b.item || a.item == r.of && (column{a.item, a.name}).typ().array() || b.item == r.of && (column{b.item, b.name}).typ().array() {
				continue
			}
			pairs = append(pairs, [2]*item{a.item, b.item})
		}
	}
	return pairs
}

// distances are the lengths of the shortest ways from a table.
func distances(edges map[*item][]*item, from *item) map[*item]int {
	near := map[*item]int{from: 0}
	for open := []*item{from}; len(open) > 0; open = open[1:] {
		for _, next := range edges[open[0]] {
			if _, ok := near[next]; !ok {
				near[next] = near[open[0]] + 1
				open = append(open, next)
			}
		}
	}
	return near
}

// shortest is a shortest way between two tables, both included.
func shortest(edges map[*item][]*item, from, to *item) []*item {
	before := map[*item]*item{from: from}
	for open := []*item{from}; len(open) > 0; open = open[1:] {
		at := open[0]
		if at == to {
			var way []*item
			for ; at != from; at = before[at] {
				way = append(way, at)
			}
			return append(way, from)
		}
		for _, next := range edges[at] {
			if before[next] == nil {
				before[next] = at
				open = append(open, next)
			}
		}
	}
	return nil
}
