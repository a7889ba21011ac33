package query

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

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

	tries int // with the occurrence at hand
}

// solve finds the paths from a row of the occurrence to the values of the
// parameters. why says why there are none.
func (r *reach) solve(a *asked) (paths []plan.Path, why string) {
	a.tries = 0
	if paths, why = r.alternatives(a, r.usable, nil, alternativesMax); paths == nil {
		clear(r.asks)
	}
	return paths, why
}

// alternatives tries with the conditions as they are, and then takes one OR after
// the other apart.
func (r *reach) alternatives(a *asked, usable []*conjunct, apart []*conjunct, budget int) (paths []plan.Path, why string) {
	path, why := r.path(a, usable)
	if path != nil {
		return []plan.Path{*path}, ""
	}
	for _, c := range usable {
		if c.any == nil || slices.Contains(apart, c) || len(c.any) > budget {
			continue
		}
		paths = paths[:0]
		solved := true
		for _, one := range c.any {
			if a.tries++; a.tries > triesMax {
				return nil, why
			}
			more, _ := r.alternatives(a, append(slices.Clone(usable), one...), append(slices.Clone(apart), c), budget/len(c.any))
			if more == nil {
				solved = false
				break
			}
			paths = append(paths, more...)
		}
		if solved {
			return paths, ""
		}
	}
	return nil, why
}

// path finds one path, if the conditions tie every parameter to the row.
func (r *reach) path(a *asked, usable []*conjunct) (*plan.Path, string) {
	classes := equalities(usable, a.types, a.without)
	edges := r.edges(usable)
	near := distances(edges, r.of)
	found := make([]source, len(a.key))
	for i, name := range a.key {
		parameter := slices.Index(a.parameters, name)
		source, why := r.source(classes, usable, near, parameter, a.types[parameter])
		if source == nil {
			return nil, fmt.Sprintf("nothing ties its rows to @%s by an equality%s", name, why)
		}
		source.of = a.types[parameter]
		found[i] = *source
	}
	direct := make([]string, len(found))
	for i, s := range found {
		if s.column.item != r.of {
			return r.lookup(a, usable, edges, found)
		}
		direct[i] = s.column.name
	}
	return &plan.Path{Key: direct}, ""
}

// source is where the value of a parameter comes from: a column of the row, or an
// expression over it and other tables.
type source struct {
	column column
	*scalar
	of Type // that of the parameter
}

// source finds that of parameter i: at best a column of the row itself, else of the
// nearest table; see settled.
func (r *reach) source(c classes, usable []*conjunct, near map[*item]int, i int, of Type) (*source, string) {
	var best *source
	why := ""
	if of.family() == "" && r.without&Families == 0 {
		return nil, fmt.Sprintf(" of texts: it is %s, of which values that differ as texts are equal", cmp.Or(of.Name, "of an unknown type"))
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
				why = fmt.Sprintf(" of texts: %s is %s", to.name, to.typ().Name)
				continue
			}
			if by.opaque || len(by.parameters) > 0 || len(by.reads) == 0 || !r.knows(by) || !by.textual() {
				continue
			}
			if of.ofZone() || !by.steady() {
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
	return best, why
}

// knows reports whether all that a scalar reads is there.
func (r *reach) knows(s *scalar) bool {
	return !slices.ContainsFunc(s.reads, func(read reference) bool { return read.item == nil || read.name == "" || !r.there[read.item] })
}

// textual reports whether nothing in a computed value makes texts equal that
// differ.
func (s *scalar) textual() bool {
	fine := true
	walk(s.node, func(n *pg.Node) bool {
		fine = fine && n.GetCollateClause() == nil
		return fine
	})
	for _, to := range s.references {
		fine = fine && (to.value == nil || to.value.textual())
	}
	return fine && !slices.ContainsFunc(s.reads, func(read reference) bool {
		of := column{read.item, read.name}.typ()
		return of.Nondeterministic || of.Base == "bpchar" || of.Base == ""
	})
}

// ofZone reports whether values of the type are written, read, and taken apart in the
// time zone of the session.
func (t Type) ofZone() bool { return t.Base == "timestamptz" || t.Base == "timetz" }

// ofSettings reports whether how values of the type are written, or are read from a
// text, depends on settings of the session.
func (t Type) ofSettings() bool {
	switch t.Base {
	case "bool", "int2", "int4", "int8", "oid", "numeric", "text", "varchar", "bpchar", "name", "uuid", "enum", "macaddr", "inet", "cidr":
		return false
	}
	return true
}

// ofZone reports whether it reads something that depends on the time zone.
func (s *scalar) ofZone() bool {
	found := slices.ContainsFunc(s.reads, func(read reference) bool { return column{read.item, read.name}.typ().ofZone() })
	walk(s.node, func(n *pg.Node) bool {
		found = found || n.GetTypeCast() != nil && namedType(n.GetTypeCast().TypeName).ofZone()
		return !found
	})
	return found
}

// namedType is the built-in type that a cast names.
func namedType(of *pg.TypeName) Type {
	return Type{Base: of.Names[len(of.Names)-1].GetString_().GetSval()}
}

// floats reports whether it reads or makes floats, of which one is equal to many whole
// numbers.
func (s *scalar) floats() bool {
	float := func(of Type) bool { return of.Base == "float4" || of.Base == "float8" }
	found := false
	walk(s.node, func(n *pg.Node) bool {
		found = found || n.GetTypeCast() != nil && float(namedType(n.GetTypeCast().TypeName))
		return !found
	})
	for _, to := range s.references {
		found = found || to.value != nil && to.value.floats()
	}
	return found || slices.ContainsFunc(s.reads, func(read reference) bool { return float(column{read.item, read.name}.typ()) })
}

// steady reports whether it is the same in every session, so that a lookup finds what
// the application's session had: nothing in it depends on TimeZone, DateStyle or
// another setting. Columns that depend on those are steady by themselves, and compared
// with others of their type.
func (s *scalar) steady() bool { return s.column() != nil || s.steadyIn(s.node) }

func (s *scalar) steadyIn(root *pg.Node) bool {
	fine := true
	walk(root, func(n *pg.Node) bool {
		if !fine {
			return false
		}
		switch n := n.Node.(type) {
		case *pg.Node_ColumnRef:
			to := s.references[n.ColumnRef]
			switch {
			case to == nil:
			case to.value != nil:
				fine = to.value.steadyIn(to.value.node)
			case to.item != nil && to.item.kind == itemTable && to.name != "":
				fine = !column{to.item, to.name}.typ().ofZone()
			}
			return false
		case *pg.Node_NullTest:
			return s.bareType(n.NullTest.Arg) == nil
		case *pg.Node_AExpr:
			if n.AExpr.Kind != pg.A_Expr_Kind_AEXPR_OP || n.AExpr.Lexpr == nil {
				return true
			}
			switch operator(n.AExpr) {
			case "=", "<>", "!=", "<", "<=", ">", ">=":
				left, right := s.bareType(n.AExpr.Lexpr), s.bareType(n.AExpr.Rexpr)
				return left == nil || right == nil || left.Base != right.Base
			case "||":
				fine = !s.written(n.AExpr.Lexpr) && !s.written(n.AExpr.Rexpr)
			}
		case *pg.Node_TypeCast:
			to := namedType(n.TypeCast.TypeName)
			switch to.Base {
			case "timestamptz", "timetz":
				fine = false
			case "text", "varchar", "bpchar", "name", "json", "jsonb":
				fine = !s.written(n.TypeCast.Arg)
			case "date", "time", "timestamp", "interval":
				// Of a text, and of what a function returns, it may depend on settings.
				of := s.bareType(n.TypeCast.Arg)
				fine = n.TypeCast.Arg.GetAConst() != nil || of != nil && (of.Base == "date" || of.Base == "timestamp" || of.Base == "time" || of.Base == "interval") || s.ofTime(n.TypeCast.Arg)
			}
		case *pg.Node_FuncCall:
			call := n.FuncCall
			name := call.Funcname[len(call.Funcname)-1].GetString_().GetSval()
			switch name {
			case "timezone":
				fine = s.ofTime(&pg.Node{Node: n})
				return false
			case "date_trunc", "date_part", "extract":
				fine = false
				if len(call.Args) == 2 {
					of := s.bareType(call.Args[1])
					fine = s.ofTime(call.Args[1]) || of != nil && (of.Base == "timestamp" || of.Base == "interval" || name != "date_trunc" && (of.Base == "date" || of.Base == "time"))
				}
				return false
			case "concat", "concat_ws", "format", "quote_literal", "quote_nullable", "array_to_string", "string_to_array":
				fine = !slices.ContainsFunc(call.Args, s.written)
			default:
				fine = !slices.Contains(ofArgumentsOnly, name)
			}
		}
		return fine
	})
	return fine
}

// bareType is the type of a column that stands there by itself, nil if none does.
func (s *scalar) bareType(node *pg.Node) *Type {
	to := s.references[node.GetColumnRef()]
	if node.GetColumnRef() == nil || to == nil {
		return nil
	}
	if to.value != nil {
		return to.value.bareType(to.value.node)
	}
	if to.item == nil || to.item.kind != itemTable || to.name == "" {
		return nil
	}
	of := column{to.item, to.name}.typ()
	return &of
}

// ofTime reports whether it is a timestamp without time zone in every session: one
// AT TIME ZONE that is written out, or cut off.
func (s *scalar) ofTime(node *pg.Node) bool {
	if to := s.references[node.GetColumnRef()]; node.GetColumnRef() != nil && to != nil && to.value != nil {
		return to.value.ofTime(to.value.node)
	}
	call := node.GetFuncCall()
	if call == nil || len(call.Args) != 2 {
		return false
	}
	of := s.bareType(call.Args[1])
	switch call.Funcname[len(call.Funcname)-1].GetString_().GetSval() {
	case "timezone":
		return call.Args[0].GetAConst().GetSval() != nil && of != nil && of.Base == "timestamptz"
	case "date_trunc":
		return s.ofTime(call.Args[1]) || of != nil && of.Base == "timestamp"
	}
	return false
}

// written reports whether a node's text may depend on settings of the session.
func (s *scalar) written(node *pg.Node) bool {
	found := false
	walk(node, func(n *pg.Node) bool {
		switch {
		case n.GetColumnRef() != nil:
			to := s.references[n.GetColumnRef()]
			if to != nil && to.value != nil {
				found = found || to.value.written(to.value.node)
			} else if of := s.bareType(n); of != nil {
				found = found || of.ofSettings()
			}
		case n.GetTypeCast() != nil:
			switch namedType(n.GetTypeCast().TypeName).Base {
			case "date", "time", "timestamp", "interval", "timestamptz", "timetz", "money", "bytea", "float4", "float8":
				found = true
			}
		}
		return !found
	})
	return found
}

// equalAsText reports whether values of it that are equal are of equal columns, so
// that each of a group says what all of it do: 1 and 1.0 are one group, and which of
// them it shows is not known.
func (s *scalar) equalAsText() bool {
	return !slices.ContainsFunc(s.reads, func(read reference) bool {
		return read.item == nil || read.name == "" || column{read.item, read.name}.typ().family() == ""
	})
}

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
	with := []*item{}
	for i, s := range found {
		wanted := []*item{s.column.item}
		if s.column.item == nil {
			wanted = wanted[:0]
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
	w := &writer{of: r.of, with: with}
	var keys, where []string
	for i, s := range found {
		if s.column.item != nil {
			keys = append(keys, asKey(w.column(s.column), s.of))
		} else {
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
		if c.opaque || len(c.parameters) > 0 || len(c.reads) == 0 || c.sublink != nil || !r.knows(c.scalar) || !c.steady() {
			continue
		}
		if slices.ContainsFunc(c.reads, func(read reference) bool {
			return read.item == nil || read.name == "" || read.item != r.of && !slices.Contains(with, read.item) || read.item == r.of && !takeable(column{read.item, read.name})
		}) {
			continue
		}
		text, ok := c.write(w.name)
		if !ok || slices.Contains(where, "("+text+")") {
			continue
		}
		w.takes(c.scalar)
		where = append(where, "("+text+")")
	}
	if slices.ContainsFunc(w.arguments, func(a plan.Argument) bool { return a.Type == "" }) {
		return nil, "a column that leads on is an array"
	}
	if len(w.arguments) == 0 {
		return nil, "no column of its rows leads on"
	}
	lookup := &plan.Lookup{SQL: w.statement(keys, where), Arguments: w.arguments}
	for _, it := range with {
		r.asks[it] = true
		lookup.Through = append(lookup.Through, plan.Through{Schema: it.relation.Schema, Table: it.relation.Name, Columns: joined(usable, it, append(with, r.of))})
	}
	return &plan.Path{Lookup: lookup}, ""
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

// takeable reports whether the column's values can be given to a statement in an
// array.
func takeable(c column) bool { return !strings.HasSuffix(c.typ().Name, "[]") }

// edges are the tables that equalities join, both ways.
func (r *reach) edges(usable []*conjunct) map[*item][]*item {
	edges := map[*item][]*item{}
	for _, c := range usable {
		if c.left == nil || c.right == nil || c.opaque || len(c.parameters) > 0 || !r.knows(c.scalar) || !c.steady() {
			continue
		}
		if _, ok := c.write(func(*item) string { return "t" }); !ok {
			continue
		}
		var items []*item
		for _, read := range c.reads {
			if !slices.Contains(items, read.item) {
				items = append(items, read.item)
			}
		}
		if len(items) != 2 {
			continue // it says nothing about two of them without the third
		}
		for _, a := range c.left.reads {
			for _, b := range c.right.reads {
				if a.item == b.item || a.item == r.of && !takeable(column{a.item, a.name}) || b.item == r.of && !takeable(column{b.item, b.name}) {
					continue
				}
				edges[a.item] = append(edges[a.item], b.item)
				edges[b.item] = append(edges[b.item], a.item)
			}
		}
	}
	return edges
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

// A writer spells a lookup.
type writer struct {
	of        *item
	with      []*item
	arguments []plan.Argument
	// collations are those of the arguments; empty: the database's.
	collations []string
}

func (w *writer) name(it *item) string {
	if it == w.of {
		return "changed"
	}
	return fmt.Sprintf("t%d", slices.Index(w.with, it)+1)
}

func (w *writer) column(c column) string {
	if c.item == w.of {
		w.take(c.name)
	}
	return w.name(c.item) + "." + quote(c.name)
}

func (w *writer) takes(s *scalar) {
	for _, read := range s.reads {
		if read.item == w.of {
			w.take(read.name)
		}
	}
}

func (w *writer) take(name string) {
	if slices.ContainsFunc(w.arguments, func(a plan.Argument) bool { return a.Column == name }) {
		return
	}
	argument := plan.Argument{Column: name}
	if at := (column{w.of, name}); takeable(at) {
		argument.Type = at.typ().Name
	}
	w.arguments = append(w.arguments, argument)
	w.collations = append(w.collations, column{w.of, name}.typ().Collation)
}

// asKey spells the value of a column as the log would.
func asKey(value string, of Type) string {
	if of.Base == "bool" {
		return "left(" + value + "::boolean::text, 1)"
	}
	return value + "::text"
}

// computedKey does so for an expression, which may be of a type that only compares
// as equal with that of the parameter: 10.00 is the key 10.
func computedKey(value string, of Type) string {
	switch of.family() {
	case "whole number":
		return "trim_scale((" + value + ")::text::numeric)::text" // of a float all digits
	case "text":
		return "(" + value + ")::text"
	}
	return asKey("("+value+")::"+of.Name, of)
}

func (w *writer) statement(keys, where []string) string {
	var sql strings.Builder
	sql.WriteString("SELECT DISTINCT " + strings.Join(keys, ", ") + "\nFROM " + w.rows("changed"))
	for _, it := range w.with {
		sql.WriteString(", ")
		if it.only {
			sql.WriteString("ONLY ")
		}
		fmt.Fprintf(&sql, "%s.%s AS %s", quote(it.relation.Schema), quote(it.relation.Name), w.name(it))
	}
	if len(where) > 0 {
		sql.WriteString("\nWHERE " + strings.Join(where, "\n  AND "))
	}
	return sql.String()
}

// rows are those that have changed, as a table whose columns compare as theirs do.
func (w *writer) rows(name string) string {
	values, names, collated := make([]string, len(w.arguments)), make([]string, len(w.arguments)), make([]string, len(w.arguments))
	plain := true
	for i, argument := range w.arguments {
		values[i] = fmt.Sprintf("$%d::text[]::%s[]", i+1, argument.Type)
		names[i] = quote(argument.Column)
		collated[i] = names[i]
		if w.collations[i] != "" {
			collated[i] = fmt.Sprintf("%s COLLATE %s AS %[1]s", names[i], w.collations[i])
			plain = false
		}
	}
	rows := fmt.Sprintf("unnest(%s) AS %s(%s)", strings.Join(values, ", "), name, strings.Join(names, ", "))
	if plain {
		return rows
	}
	return fmt.Sprintf("(SELECT %s FROM %s) AS %s", strings.Join(collated, ", "), rows, name)
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
