package query

import (
	"fmt"
	"slices"
	"strings"
)

// A generator invents one query over a world.
type generator struct {
	*world
	classes    map[string]bool
	parameters []string // their types
	parametersMax,
	aliases int
	// sober: as an application would ask, rather than anything that SQL allows.
	sober bool
}

// A generated query.
type generated struct {
	sql     string
	classes []string
	ordered bool
}

// A source is what stands in FROM.
type source struct {
	alias   string
	columns []column
	// keys are the columns that identify its rows.
	table *table
}

type scope struct {
	sources []source
	outer   *scope
	ctes    []*table
}

func (w *world) query() generated {
	g := &generator{world: w, classes: map[string]bool{}, parametersMax: 2}
	switch n := w.r.IntN(100); {
	case n < 12:
		g.parametersMax = 0
	case n < 75:
		g.parametersMax = 1
	}
	g.sober = w.chance(60)
	depth := 1 + w.r.IntN(3)
	var q generated
	kind := w.r.IntN(100)
	switch {
	case kind < 18:
		g.parametersMax = 1
		q.sql = g.application()
	case kind < 30:
		g.parametersMax = 1
		q.sql = g.ofType()
	}
	switch {
	case q.sql != "":
	case kind < 60:
		g.parametersMax = 1 + w.r.IntN(4)/3
		q.sql = g.template(&scope{})
	default:
		q.sql, _, q.ordered = g.statement(&scope{}, nil, depth, true)
	}
	for class := range g.classes {
		q.classes = append(q.classes, class)
	}
	if len(q.classes) == 0 {
		q.classes = []string{"plain"}
	}
	slices.Sort(q.classes)
	return q
}

func (g *generator) is(class string) { g.classes[class] = true }

func (g *generator) alias() string {
	g.aliases++
	return fmt.Sprintf("s%d", g.aliases)
}

// families are the types that compare with each other.
func family(typ string) string {
	switch typ {
	case "int2", "int4", "int8", "small":
		return "int"
	case "text", "varchar", "bpchar", "word":
		return "text"
	case "date", "timestamp", "timestamptz":
		return "time"
	}
	return typ
}

// statement is a SELECT with all that may stand around it. wanted, if not nil, are
// the types of its columns.
func (g *generator) statement(outer *scope, wanted []string, depth int, top bool) (sql string, shown []column, ordered bool) {
	with := ""
	if depth > 0 && g.chance(14) {
		with, outer = g.with(outer, depth-1)
	}
	if depth > 0 && g.chance(10) {
		g.is("set operation")
		left, columns, _ := g.selects(outer, wanted, depth-1, top, false)
		types := make([]string, len(columns))
		for i, c := range columns {
			types[i] = c.typ
		}
		right, _, _ := g.selects(outer, types, depth-1, top, false)
		op := pick(g.r, []string{"UNION", "UNION ALL", "INTERSECT", "EXCEPT", "INTERSECT ALL", "EXCEPT ALL"})
		sql = fmt.Sprintf("(%s) %s (%s)", left, op, right)
		if g.chance(15) {
			sql += g.order(len(columns)) + g.limit()
			ordered = true
		}
		for i := range columns {
			columns[i].null = true
		}
		return with + sql, columns, ordered
	}
	sql, shown, ordered = g.selects(outer, wanted, depth, top, true)
	return with + sql, shown, ordered
}

func (g *generator) order(n int) string {
	g.is("order by")
	places := g.r.Perm(n)
	parts := make([]string, n)
	for i, at := range places {
		parts[i] = fmt.Sprint(at+1) + pick(g.r, []string{"", "", " DESC", " NULLS FIRST"})
	}
	return " ORDER BY " + strings.Join(parts, ", ")
}

func (g *generator) limit() string {
	switch g.r.IntN(4) {
	case 0:
		g.is("limit")
		return " LIMIT 1"
	case 1:
		g.is("limit")
		return " LIMIT 2 OFFSET 1"
	}
	return ""
}

func (g *generator) with(outer *scope, depth int) (string, *scope) {
	g.is("cte")
	inner := &scope{outer: outer, sources: nil}
	name := "c" + g.alias()
	if g.chance(25) {
		var of []*table
		for _, t := range g.tables {
			if up := t.column("up"); up != nil {
				of = append(of, t)
			}
		}
		if len(of) > 0 {
			g.is("recursive")
			t := pick(g.r, of)
			id := t.key[0]
			start := &scope{sources: []source{{alias: "b", columns: t.columns, table: t}}, outer: outer}
			by := "b.id = b.up"
			if !g.chance(10) {
				by = g.condition(start, 0, true)
			}
			join := "r.up = b." + id
			if g.chance(50) {
				join = "b.up = r." + id
			}
			all := pick(g.r, []string{"UNION", "UNION ALL"})
			inner.ctes = append(inner.ctes, &table{name: name, columns: []column{{"id", t.columns[0].typ, true}, {"up", t.columns[0].typ, true}, {"steps", "int4", true}}})
			return fmt.Sprintf("WITH RECURSIVE %s(id, up, steps) AS (SELECT b.%s, b.up, 1 FROM %s b WHERE %s %s SELECT b.%s, b.up, r.steps + 1 FROM %s b JOIN %s r ON %s WHERE r.steps < 4) ",
				name, id, t.name, by, all, id, t.name, name, join), inner
		}
	}
	sql, columns, _ := g.statement(outer, nil, depth, false)
	columns = slices.Clone(columns)
	for i := range columns {
		columns[i].name = fmt.Sprintf("x%d", i+1)
	}
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.name
	}
	inner.ctes = append(inner.ctes, &table{name: name, columns: columns})
	return fmt.Sprintf("WITH %s(%s) AS %s(%s) ", name, strings.Join(names, ", "), pick(g.r, []string{"", "", "MATERIALIZED ", "NOT MATERIALIZED "}), sql), inner
}

// selects is one SELECT. Its columns have names.
func (g *generator) selects(outer *scope, wanted []string, depth int, top, tail bool) (sql string, shown []column, ordered bool) {
	at := &scope{outer: outer}
	from := g.from(at, depth)
	where := ""
	if top && len(g.parameters) == 0 && g.parametersMax > 0 && g.chance(85) || g.chance(55) {
		where = " WHERE " + g.condition(at, depth, top)
		if g.chance(35) {
			where += " AND " + g.condition(at, depth, false)
		}
	}
	kind := "plain"
	switch n := g.r.IntN(100); {
	case n < 16:
		kind = "aggregate"
	case n < 24:
		kind = "window"
	case n < 30:
		kind = "distinct"
	case n < 36:
		kind = "distinct on"
	}
	var targets, tails []string
	target := func(text, typ string, null bool) {
		name := fmt.Sprintf("x%d", len(targets)+1)
		targets = append(targets, text+" AS "+name)
		shown = append(shown, column{name, typ, null})
	}
	some := func() []string {
		if wanted != nil {
			return wanted
		}
		var types []string
		for range 1 + g.r.IntN(3) {
			types = append(types, pick(g.r, allColumns(at)).typ)
		}
		return types
	}
	if kind != "plain" {
		g.is(kind)
	}
	switch kind {
	case "aggregate":
		var groups []string
		types := some()
		grouped := g.chance(70)
		for i, typ := range types {
			if grouped && (i == 0 || g.chance(50)) {
				key, ok := g.columnOf(at.sources, typ)
				if ok {
					groups = append(groups, key)
					target(key, typ, true)
					continue
				}
			}
			target(g.aggregate(at, typ, depth), typ, true)
		}
		if wanted == nil && g.chance(80) {
			target(g.aggregate(at, "int8", depth), "int8", true)
		}
		if len(groups) > 0 {
			list := strings.Join(groups, ", ")
			switch n := g.r.IntN(100); {
			case n < 8:
				g.is("grouping sets")
				list = "GROUPING SETS ((" + list + "), ())"
			case n < 14:
				g.is("grouping sets")
				list = "ROLLUP (" + list + ")"
			case n < 18:
				g.is("grouping sets")
				list = "GROUPING SETS ((" + list + "), (" + groups[0] + "))"
			}
			tails = append(tails, " GROUP BY "+list)
		}
		if g.chance(30) {
			g.is("having")
			having := "count(*) > " + fmt.Sprint(g.r.IntN(3))
			if len(groups) > 0 && g.chance(40) {
				having += " AND " + groups[0] + " IS NOT NULL"
			}
			tails = append(tails, " HAVING "+having)
		}
	case "window":
		for _, typ := range some() {
			target(g.expression(at, typ, 0), typ, true)
		}
		if wanted == nil || slices.Contains(wanted, "int8") {
			partition := ""
			if g.chance(60) {
				c, _ := g.anyColumn(at.sources)
				partition = "PARTITION BY " + c + " "
				if g.chance(20) {
					c, _ = g.anyColumn(at.sources)
					partition = strings.TrimSpace(partition) + ", " + c + " "
				}
			}
			c, _ := g.anyColumn(at.sources)
			call := pick(g.r, []string{"rank()", "count(*)", "dense_rank()"}) + " OVER (" + partition + "ORDER BY " + c + ")"
			if wanted == nil {
				target(call, "int8", false)
			} else {
				at := slices.Index(wanted, "int8")
				targets[at] = call + fmt.Sprintf(" AS x%d", at+1)
			}
		}
	default:
		for _, typ := range some() {
			target(g.expression(at, typ, depth), typ, true)
		}
	}
	distinct := ""
	switch kind {
	case "distinct":
		distinct = "DISTINCT "
	case "distinct on":
		n := 1 + g.r.IntN(len(targets))
		var places, names []string
		for i := range targets {
			places = append(places, fmt.Sprint(i+1))
			if i < n {
				names = append(names, fmt.Sprint(i+1))
			}
		}
		distinct = "DISTINCT ON (" + strings.Join(names, ", ") + ") "
		if tail {
			tails = append(tails, " ORDER BY "+strings.Join(places, ", ")+g.limit())
			ordered = true
		} else {
			// In an arm of a set operation too: it stands in parentheses.
			tails = append(tails, " ORDER BY "+strings.Join(places, ", "))
		}
	default:
		if g.chance(18) {
			tails = append(tails, g.order(len(targets))+g.limit())
			ordered = true
		} else if kind == "plain" && g.chance(6) {
			// By what is not shown.
			c, _ := g.anyColumn(at.sources)
			g.is("order by")
			tails = append(tails, " ORDER BY "+c+", "+strings.TrimPrefix(g.order(len(targets)), " ORDER BY ")+g.limit())
			ordered = true
		}
	}
	return "SELECT " + distinct + strings.Join(targets, ", ") + from + where + strings.Join(tails, ""), shown, ordered
}

func allColumns(at *scope) (columns []column) {
	for _, s := range at.sources {
		columns = append(columns, s.columns...)
	}
	return columns
}

// from invents a FROM clause, whose sources it adds to the scope.
func (g *generator) from(at *scope, depth int) string {
	sql := " FROM " + g.joined(at, depth)
	if !g.sober && g.chance(15) {
		g.is("cross join")
		sql += ", " + g.joined(at, min(depth, 1))
	}
	return sql
}

func (g *generator) joined(at *scope, depth int) string {
	before := len(at.sources)
	sql := g.source(at, depth, false)
	for range []int{0, 0, 1, 1, 1, 2}[g.r.IntN(6)] {
		left := slices.Clone(at.sources[before:])
		kind := pick(g.r, []string{"JOIN", "JOIN", "JOIN", "LEFT JOIN", "LEFT JOIN", "RIGHT JOIN"})
		if !g.sober {
			kind = pick(g.r, []string{"JOIN", "JOIN", "JOIN", "JOIN", "LEFT JOIN", "LEFT JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "CROSS JOIN"})
		}
		lateral := depth > 0 && (kind == "JOIN" || kind == "LEFT JOIN") && g.chance(12)
		g.is(map[string]string{"JOIN": "inner join", "LEFT JOIN": "outer join", "RIGHT JOIN": "outer join", "FULL JOIN": "full join", "CROSS JOIN": "cross join"}[kind])
		right := g.source(at, depth, lateral)
		joined := at.sources[len(at.sources)-1]
		if kind == "CROSS JOIN" {
			sql += " CROSS JOIN " + right
			continue
		}
		if !lateral && g.chance(10) {
			if using := g.using(left, joined); using != "" {
				g.is("using")
				sql = "(" + sql + " " + kind + " " + right + " USING (" + using + "))"
				continue
			}
		}
		on := &scope{sources: append(left, joined), outer: nil, ctes: nil}
		condition := g.on(left, joined, kind == "FULL JOIN")
		if kind != "FULL JOIN" && g.chance(25) {
			on.outer = at.outer
			condition += " AND " + g.condition(on, min(depth, 1), false)
		}
		if lateral && !g.sober && g.chance(40) {
			condition = "true"
		}
		sql += " " + kind + " " + right + " ON " + condition
	}
	return sql
}

// using is a column that exactly one source on each side has.
func (g *generator) using(left []source, right source) string {
	for _, c := range right.columns {
		n, same := 0, false
		for _, s := range left {
			for _, l := range s.columns {
				if l.name == c.name {
					n++
					same = family(l.typ) == family(c.typ)
				}
			}
		}
		if n == 1 && same {
			return c.name
		}
	}
	return ""
}

// on is what joins a source with those before it: mostly an equality, at best of a
// reference with a key.
func (g *generator) on(left []source, right source, full bool) string {
	fine := g.fine(left, right)
	var good, possible []string
	for _, s := range left {
		for _, l := range s.columns {
			for _, c := range right.columns {
				if family(l.typ) != family(c.typ) {
					continue
				}
				equal := fmt.Sprintf("%s.%s = %s.%s", s.alias, l.name, right.alias, c.name)
				if g.chance(50) {
					equal = fmt.Sprintf("%s.%s = %s.%s", right.alias, c.name, s.alias, l.name)
				}
				possible = append(possible, equal)
				if c.name == "id" || l.name == "id" {
					good = append(good, equal)
				}
			}
		}
	}
	for _, list := range [][]string{fine, good, possible} {
		if len(list) > 0 && (g.sober || g.chance(75)) {
			equal := pick(g.r, list)
			if len(list) > 1 && g.chance(15) {
				equal += " AND " + pick(g.r, list)
			}
			return equal
		}
	}
	if full || len(possible) == 0 {
		return "true"
	}
	return strings.Replace(pick(g.r, possible), " = ", pick(g.r, []string{" < ", " <> ", " >= ", " = ", " IS NOT DISTINCT FROM "}), 1)
}

// fine are the equalities of a reference with what it refers to.
func (g *generator) fine(left []source, right source) (fine []string) {
	for _, s := range left {
		for _, l := range s.columns {
			for _, c := range right.columns {
				if family(l.typ) != family(c.typ) {
					continue
				}
				if right.table != nil && (l.name == right.table.name+"_"+c.name || s.table == right.table && l.name == "up" && c.name == "id") || s.table != nil && c.name == s.table.name+"_"+l.name {
					fine = append(fine, fmt.Sprintf("%s.%s = %s.%s", s.alias, l.name, right.alias, c.name))
				}
			}
		}
	}
	return fine
}

// source is one thing in FROM.
func (g *generator) source(at *scope, depth int, lateral bool) string {
	alias := g.alias()
	add := func(columns []column, t *table) {
		at.sources = append(at.sources, source{alias, columns, t})
	}
	if lateral {
		g.is("lateral")
		sql, columns, _ := g.statement(&scope{sources: slices.Clone(at.sources), outer: at.outer}, nil, depth-1, false)
		add(columns, nil)
		return "LATERAL (" + sql + ") " + alias
	}
	var ctes []*table
	for s := at; s != nil; s = s.outer {
		ctes = append(ctes, s.ctes...)
	}
	switch n := g.r.IntN(100); {
	case len(ctes) > 0 && n < 60:
		t := pick(g.r, ctes)
		add(t.columns, nil)
		return t.name + " " + alias
	case n < 12 && depth > 0:
		g.is("subquery in from")
		// It does not see what stands beside it.
		sql, columns, _ := g.statement(at.outer, nil, depth-1, false)
		if at.outer == nil {
			panic("a scope without an outer one")
		}
		add(columns, nil)
		return "(" + sql + ") " + alias
	case n < 24 && len(g.views) > 0:
		g.is("view")
		t := pick(g.r, g.views)
		add(t.columns, t)
		return t.name + " " + alias
	case n < 26:
		g.is("values")
		add([]column{{"v", "int4", true}, {"w", "text", true}}, nil)
		return "(VALUES (1, 'a'), (2, 'b'), (NULL, 'A')) " + alias + "(v, w)"
	case n < 28:
		g.is("function in from")
		add([]column{{"v", "int4", false}}, nil)
		return "generate_series(1, 3) " + alias + "(v)"
	}
	t := pick(g.r, g.tables)
	if len(t.partitions) > 0 {
		g.is("partitioned")
	}
	if slices.ContainsFunc(g.tables, func(c *table) bool { return c.options == " INHERITS ("+t.name+")" }) {
		g.is("inherited")
		if g.chance(25) {
			add(t.columns, t)
			return "ONLY " + t.name + " " + alias
		}
	}
	for _, s := range at.sources {
		if s.table == t {
			g.is("self join")
		}
	}
	add(t.columns, t)
	return t.name + " " + alias
}

// columnOf is a column of a type, or of its family.
func (g *generator) columnOf(sources []source, typ string) (string, bool) {
	var fit []string
	for _, s := range sources {
		for _, c := range s.columns {
			if c.typ == typ {
				fit = append(fit, s.alias+"."+c.name)
			}
		}
	}
	if len(fit) == 0 {
		return "", false
	}
	return pick(g.r, fit), true
}

func (g *generator) anyColumn(sources []source) (string, column) {
	s := pick(g.r, sources)
	c := pick(g.r, s.columns)
	return s.alias + "." + c.name, c
}

// sourcesOf are those that an expression may name: sometimes those outside.
func (g *generator) sourcesOf(at *scope) []source {
	for s := at.outer; s != nil; s = s.outer {
		if len(s.sources) > 0 && g.chance(25) {
			return s.sources
		}
	}
	if len(at.sources) == 0 {
		for s := at.outer; s != nil; s = s.outer {
			if len(s.sources) > 0 {
				return s.sources
			}
		}
	}
	return at.sources
}

func (g *generator) constant(typ string) string {
	v := pick(g.r, values[typ])
	switch {
	case typ == "bool":
		return map[string]string{"t": "true", "f": "false"}[v]
	case family(typ) == "int":
		if typ != "int4" {
			return v + "::" + typ
		}
		return v
	case typ == "numeric":
		return v + "::numeric"
	case ambiguous[typ] != nil && g.chance(40):
		v = pick(g.r, ambiguous[typ])
	}
	return "'" + v + "'::" + typ
}

// expression is one of a type.
func (g *generator) expression(at *scope, typ string, depth int) string {
	plain := func() string {
		if c, ok := g.columnOf(g.sourcesOf(at), typ); ok {
			return c
		}
		if c, ok := g.columnOf(at.sources, typ); ok {
			return c
		}
		return g.constant(typ)
	}
	switch n := g.r.IntN(100); {
	case n < 72:
		return plain()
	case n < 76:
		g.is("expression")
		return "coalesce(" + plain() + ", " + g.constant(typ) + ")"
	case n < 80:
		g.is("expression")
		return "CASE WHEN " + g.condition(at, 0, false) + " THEN " + plain() + " ELSE " + plain() + " END"
	case n < 84 && typ == "text":
		g.is("expression")
		return "lower(" + plain() + ")"
	case n < 84 && family(typ) == "int":
		g.is("expression")
		return "(" + plain() + " + 1)::" + typ
	case n < 90 && depth > 0:
		g.is("scalar subquery")
		inner := &scope{outer: at}
		from := g.from(inner, depth-1)
		sql := "(SELECT " + g.aggregate(inner, typ, 0) + from
		if g.chance(80) {
			sql += " WHERE " + g.correlated(inner, at, depth-1)
		}
		return sql + ")"
	case n < 92 && depth > 0:
		g.is("scalar subquery")
		inner := &scope{outer: at}
		from := g.from(inner, depth-1)
		return "(SELECT " + g.expression(inner, typ, 0) + " AS y" + from + " WHERE " + g.correlated(inner, at, depth-1) + " ORDER BY 1 LIMIT 1)"
	case n < 94:
		return g.constant(typ)
	}
	return plain()
}

// aggregate is one of a type.
func (g *generator) aggregate(at *scope, typ string, depth int) string {
	filter := ""
	if g.chance(12) {
		filter = " FILTER (WHERE " + g.condition(&scope{sources: at.sources}, 0, false) + ")"
	}
	c, ok := g.columnOf(at.sources, typ)
	if !ok {
		c = g.constant(typ)
	}
	switch typ {
	case "int8":
		any, _ := g.anyColumn(at.sources)
		return pick(g.r, []string{"count(*)", "count(" + any + ")", "count(DISTINCT " + any + ")"}) + filter
	case "bool":
		return pick(g.r, []string{"bool_or", "bool_and"}) + "(" + c + ")" + filter
	case "text":
		return "string_agg(" + c + ", ',' ORDER BY " + c + ")" + filter
	case "varchar", "uuid", "jsonb", "small", "word":
		return "max(" + c + "::text)" + filter + "::" + typ // there may be none of its own
	}
	return pick(g.r, []string{"min", "max"}) + "(" + c + ")" + filter
}

// correlated is the condition of a subquery, mostly one with what is outside.
func (g *generator) correlated(inner, outer *scope, depth int) string {
	condition := ""
	if len(outer.sources) > 0 && len(inner.sources) > 0 && (g.sober || g.chance(80)) {
		condition = g.on(outer.sources, pick(g.r, inner.sources), false)
	}
	if condition == "" || g.chance(35) {
		if condition != "" {
			condition += " AND "
		}
		condition += g.condition(inner, depth, false)
	}
	return condition
}

// parameter is a placeholder that is compared with something of a type.
func (g *generator) parameter(typ string) string {
	var same []int
	for i, other := range g.parameters {
		if family(other) == family(typ) {
			same = append(same, i)
		}
	}
	if len(g.parameters) < g.parametersMax && (len(same) == 0 || g.chance(40)) {
		g.parameters = append(g.parameters, typ)
		same = []int{len(g.parameters) - 1}
	}
	if len(same) == 0 {
		return ""
	}
	i := pick(g.r, same)
	name := fmt.Sprintf("@p%d", i+1)
	if g.parameters[i] != typ || g.chance(15) {
		name += "::" + g.parameters[i]
	}
	return name
}

// retype makes a parameter one of another type.
func (g *generator) retype(name, typ string) {
	name, _, _ = strings.Cut(name, "::")
	for i := range g.parameters {
		if name == fmt.Sprintf("@p%d", i+1) {
			g.parameters[i] = typ
		}
	}
}

// ofPart is a condition on what a value of such a type is made of, or can be made into;
// empty: there is none.
func (g *generator) ofPart(name, typ string) string {
	part := map[string]string{
		"_text": "text", "_int4": "int4", "jsonb": "text", "text": "text", "varchar": "text",
		"date": "text", "interval": "text", "timestamp": "date", "timestamptz": "date",
	}[typ]
	p := ""
	if part != "" {
		p = g.parameter(part)
	}
	if p == "" {
		return ""
	}
	switch typ {
	case "jsonb":
		g.is("part of a document")
		return pick(g.r, []string{name + "->>'a' = " + p, name + " ->> 'n' = " + p, "lower(" + name + "->>'a') = " + p})
	case "timestamp":
		g.is("part of a time")
		return pick(g.r, []string{name + "::date = " + p, "date_trunc('month', " + name + ")::date = " + p})
	case "timestamptz":
		g.is("part of a time")
		return pick(g.r, []string{name + "::date = " + p, "(" + name + " AT TIME ZONE 'UTC')::date = " + p, "date_trunc('day', " + name + ", 'UTC')::date = " + p})
	case "date", "interval":
		g.is("part of a time")
		return pick(g.r, []string{name + "::text = " + p, name + "::word = " + p, name + " || '' = " + p})
	case "text", "varchar":
		g.is("domain")
		return pick(g.r, []string{name + "::word = " + p, name + " = " + p + "::word", name + " COLLATE " + g.collation() + " = " + p, "lower(" + name + "::word) = " + p})
	}
	g.is("element of an array")
	return pick(g.r, []string{p + " = ANY (" + name + ")", p + " = ANY (" + name + ")", name + " @> ARRAY[" + p + "]", "ARRAY[" + p + ", " + g.constant(part) + "] <@ " + name,
		p + " <> ALL (" + name + ")", "NOT " + p + " = ANY (" + name + ")", name + " && ARRAY[" + p + "]", name + "[1] = " + p})
}

// condition is a boolean expression. byParameter: rather one with a parameter.
func (g *generator) condition(at *scope, depth int, byParameter bool) string {
	sources := at.sources
	if len(sources) == 0 || g.chance(10) {
		sources = g.sourcesOf(at)
	}
	if len(sources) == 0 {
		return "true"
	}
	name, c := g.anyColumn(sources)
	if byParameter || g.chance(22) {
		if g.sober || g.chance(40) {
			// Of a key or a reference.
			for range 6 {
				if strings.HasSuffix(c.name, "id") {
					break
				}
				name, c = g.anyColumn(sources)
			}
		}
		if g.chance(80) && (family(c.typ) != "text" || g.chance(10)) {
			if condition := g.ofPart(name, c.typ); condition != "" {
				return condition
			}
		}
		if p := g.parameter(c.typ); p != "" {
			if slices.Contains([]string{"interval", "jsonb", "citext", "_text", "_int4"}, c.typ) || g.collation() == "folds" && (c.name == "slug" || c.typ == "word") {
				g.is("equality of no texts")
			}
			n := g.r.IntN(100)
			if g.sober && g.chance(60) {
				n = 0
			}
			switch {
			case (c.typ == "numeric" || c.typ == "bpchar") && g.chance(60):
				g.is("expression = parameter")
				g.retype(p, "text")
				return name + "::text = " + strings.ReplaceAll(p, "::"+c.typ, "::text")
			case n < 68:
				if g.chance(20) {
					return p + " = " + name
				}
				return name + " = " + p
			case n < 72 && c.typ == "text":
				g.is("expression = parameter")
				return "lower(" + name + ") = " + p
			case n < 76 && family(c.typ) == "int":
				g.is("expression = parameter")
				return pick(g.r, []string{name + " + 1 = " + p, name + "::int8 = " + p, name + "::numeric = " + p, "abs(" + name + ") = " + p})
			case n < 80:
				g.is("parameter in list")
				return name + " IN (" + p + ", " + g.constant(c.typ) + ")"
			case n < 88:
				g.is("or")
				other, d := g.anyColumn(sources)
				if q := g.parameter(d.typ); q != "" {
					return "(" + name + " = " + p + " OR " + other + " = " + q + ")"
				}
				return "(" + name + " = " + p + " OR " + g.condition(at, 0, false) + ")"
			case n < 92:
				g.is("range of a parameter")
				return name + pick(g.r, []string{" > ", " <= ", " <> "}) + p
			case n < 94:
				return name + " IS NOT DISTINCT FROM " + p
			case n < 96:
				return "NOT (" + name + " = " + p + ")"
			case n < 98:
				g.is("expression = parameter")
				return "coalesce(" + name + ", " + g.constant(c.typ) + ") = " + p
			default:
				return name + " = " + p
			}
		}
	}
	switch n := g.r.IntN(100); {
	case n < 16:
		g.is("predicate")
		return name + pick(g.r, []string{" = ", " = ", " <> ", " < ", " >= "}) + g.constant(c.typ)
	case n < 22:
		g.is("predicate")
		return name + pick(g.r, []string{" IN (", " NOT IN ("}) + g.constant(c.typ) + ", " + g.constant(c.typ) + ")"
	case n < 27:
		g.is("predicate")
		return name + pick(g.r, []string{" BETWEEN ", " NOT BETWEEN "}) + g.constant(c.typ) + " AND " + g.constant(c.typ)
	case n < 35:
		g.is("predicate")
		return name + pick(g.r, []string{" IS NULL", " IS NOT NULL", " IS NOT NULL"})
	case n < 42:
		g.is("predicate")
		for range 5 {
			if c.typ == "bool" {
				return pick(g.r, []string{"", "NOT "}) + name + pick(g.r, []string{"", "", " IS TRUE", " IS NOT TRUE", " IS FALSE", " IS NOT FALSE", " IS UNKNOWN"})
			}
			name, c = g.anyColumn(sources)
		}
		return "NOT (" + g.condition(at, depth, false) + ")"
	case n < 50:
		g.is("or")
		return "(" + g.condition(at, depth, false) + " OR " + g.condition(at, depth, false) + ")"
	case n < 54:
		other, ok := g.columnOf(g.sourcesOf(at), c.typ)
		if ok {
			return name + pick(g.r, []string{" = ", " = ", " < ", " IS DISTINCT FROM "}) + other
		}
	case n < 68 && depth > 0:
		inner := &scope{outer: at}
		from := g.from(inner, depth-1)
		negated := pick(g.r, []string{"", "", "NOT "})
		g.is(negated + "exists")
		return negated + "EXISTS (SELECT 1" + from + " WHERE " + g.correlated(inner, at, depth-1) + ")"
	case n < 82 && depth > 0:
		negated := pick(g.r, []string{" IN (", " IN (", " NOT IN ("})
		g.is(strings.ToLower(strings.Trim(negated, " (")))
		if g.chance(60) {
			inner := &scope{outer: at}
			from := g.from(inner, depth-1)
			sql := "SELECT " + g.expression(inner, c.typ, 0) + " AS y" + from
			if g.chance(60) {
				sql += " WHERE " + g.correlated(inner, at, depth-1)
			}
			return name + negated + sql + ")"
		}
		sql, _, _ := g.statement(at, []string{c.typ}, depth-1, false)
		return name + negated + sql + ")"
	case n < 86 && depth > 0:
		g.is("scalar subquery")
		inner := &scope{outer: at}
		from := g.from(inner, depth-1)
		return name + pick(g.r, []string{" = ", " > ", " <= "}) + "(SELECT " + g.aggregate(inner, c.typ, 0) + from + " WHERE " + g.correlated(inner, at, depth-1) + ")"
	case n < 87 && depth > 0:
		g.is("row in")
		inner := &scope{outer: at}
		from := g.from(inner, depth-1)
		other, d := g.anyColumn(sources)
		return "(" + name + ", " + other + ")" + pick(g.r, []string{" IN ", " IN ", " NOT IN "}) + "(SELECT " + g.expression(inner, c.typ, 0) + ", " + g.expression(inner, d.typ, 0) + from +
			" WHERE " + g.correlated(inner, at, depth-1) + pick(g.r, []string{"", " ORDER BY 1, 2 LIMIT 1"}) + ")"
	case n < 88 && depth > 0:
		g.is("array of a subquery")
		inner := &scope{outer: at}
		from := g.from(inner, depth-1)
		return name + pick(g.r, []string{" = ANY ", " <> ALL "}) + "(ARRAY(SELECT " + g.expression(inner, c.typ, 0) + from + " WHERE " + g.correlated(inner, at, depth-1) + "))"
	case n < 89 && depth > 0:
		g.is("quantified")
		inner := &scope{outer: at}
		from := g.from(inner, depth-1)
		return name + pick(g.r, []string{" > ALL ", " = ANY ", " <> ALL ", " < SOME "}) + "(SELECT " + g.expression(inner, c.typ, 0) + from + " WHERE " + g.correlated(inner, at, depth-1) + ")"
	case n < 90:
		g.is("predicate")
		return name + " = ANY (ARRAY[" + g.constant(c.typ) + ", " + g.constant(c.typ) + "])"
	case n < 92:
		other, d := g.anyColumn(sources)
		return "(" + name + ", " + other + ") = (" + g.constant(c.typ) + ", " + g.constant(d.typ) + ")"
	case n < 94:
		g.is("expression")
		return g.expression(at, c.typ, 0) + " = " + g.constant(c.typ)
	}
	g.is("predicate")
	return name + " = " + g.constant(c.typ)
}
