package query

import (
	"fmt"
	"slices"
	"strings"
)

func (s source) names() (names []string) {
	for _, c := range s.columns {
		names = append(names, c.name)
	}
	return names
}

// template is a query in which one rule of the planner decides, over tables and
// columns as they come: random queries seldom hit those.
func (g *generator) template(outer *scope) string {
	at := &scope{outer: outer}
	table := func() source {
		t := pick(g.r, g.tables)
		if len(g.views) > 0 && g.chance(10) {
			t = pick(g.r, g.views)
		}
		s := source{g.alias(), t.columns, t}
		at.sources = append(at.sources, s)
		return s
	}
	g.sober = true
	a, b := table(), table()
	for range 4 {
		if len(g.fine([]source{a}, b)) > 0 {
			break
		}
		at.sources = at.sources[:1]
		b = table()
	}
	if g.chance(50) {
		a, b = b, a
		at.sources = []source{a, b}
	}
	named := func(s source) string { return s.table.name + " " + s.alias }
	on := g.on([]source{a}, b, false)
	x, of := g.anyColumn([]source{b})
	y, other := g.anyColumn([]source{a})
	some := func(s source) string {
		var shown []string
		for range 1 + g.r.IntN(2) {
			c, _ := g.anyColumn([]source{s})
			shown = append(shown, c+" AS o"+fmt.Sprint(len(shown)+1))
		}
		return strings.Join(shown, ", ")
	}
	also := func() string {
		if g.chance(40) {
			return " AND " + g.condition(at, 1, false)
		}
		return ""
	}
	p := func(typ string) string {
		if name := g.parameter(typ); name != "" {
			return name
		}
		return g.constant(typ)
	}
	outerJoin := pick(g.r, []string{" LEFT JOIN ", " LEFT JOIN ", " FULL JOIN ", " RIGHT JOIN "})
	if outerJoin != " LEFT JOIN " && !strings.Contains(on, " = ") {
		outerJoin = " LEFT JOIN "
	}
	within := func(inner, text string) string {
		alias := g.alias()
		return "SELECT " + alias + ".* FROM (" + inner + ") " + alias + " WHERE " + strings.ReplaceAll(text, "?", alias)
	}
	inside := named(a)
	if g.chance(50) {
		inside = named(a) + " JOIN " + named(b) + " ON " + on
	}
	only := &scope{sources: at.sources[:1], outer: at.outer}
	if inside != named(a) {
		only = at
	}
	where := ""
	if g.chance(50) {
		where = " WHERE " + g.condition(only, 1, false)
	}
	switch pick(g.r, []int{0, 0, 1, 2, 3, 3, 4, 4, 5, 6, 7, 8, 9, 10, 11, 11, 12, 12, 12, 12, 13, 14, 15, 16, 16, 16, 17, 17}) {
	case 0:
		g.is("missing side")
		return "SELECT " + some(a) + " FROM " + named(a) + outerJoin + named(b) + " ON " + on + " WHERE coalesce(" + x + ", " + g.constant(of.typ) + ") = " + p(of.typ) + also()
	case 1:
		g.is("missing side")
		return "SELECT " + some(a) + " FROM " + named(a) + outerJoin + named(b) + " ON " + on + " WHERE (" + x + " = " + p(of.typ) + " OR " + x + " IS NULL)" + also()
	case 2:
		g.is("missing side")
		return "SELECT " + some(a) + " FROM " + named(a) + outerJoin + named(b) + " ON " + on + " AND " + x + " = " + p(of.typ) + also()
	case 3:
		g.is("missing side")
		c := table()
		z, third := g.anyColumn([]source{c})
		return "SELECT " + some(a) + " FROM " + named(a) + outerJoin + "(" + named(b) + pick(g.r, []string{" JOIN ", " LEFT JOIN "}) + named(c) + " ON " + g.on([]source{b}, c, false) + ") ON " + on +
			" WHERE " + z + " = " + p(third.typ) + also()
	case 4:
		g.is("missing side")
		c := table()
		z, third := g.anyColumn([]source{c})
		return "SELECT " + some(b) + " FROM " + named(a) + outerJoin + named(b) + " ON " + on + pick(g.r, []string{" JOIN ", " LEFT JOIN "}) + named(c) + " ON " + g.on([]source{a, b}, c, false) +
			" WHERE " + pick(g.r, []string{z + " = " + p(third.typ), y + " = " + p(other.typ), x + " = " + p(of.typ)}) + also()
	case 5:
		g.is("limit inside")
		return within("SELECT "+y+" AS o9, "+some(a)+" FROM "+inside+where+" ORDER BY 1, 2, "+a.alias+"."+strings.Join(a.names(), ", "+a.alias+".")+" LIMIT 2", "?.o"+pick(g.r, []string{"1", "9"})+" = "+p(other.typ))
	case 6:
		g.is("window inside")
		z, _ := g.anyColumn([]source{a})
		return within("SELECT "+some(a)+", "+y+" AS o9, rank() OVER ("+pick(g.r, []string{"PARTITION BY " + y, "PARTITION BY " + z, ""})+" ORDER BY "+z+") AS o8 FROM "+inside+where, "?.o8 <= 2 AND ?.o9 = "+p(other.typ))
	case 7:
		g.is("distinct inside")
		z, _ := g.anyColumn([]source{a})
		return within("SELECT DISTINCT ON ("+pick(g.r, []string{y, z})+") "+y+" AS o1, "+z+" AS o2 FROM "+inside+where+" ORDER BY "+pick(g.r, []string{"1, 2", "2, 1"}), "?.o1 = "+p(other.typ))
	case 8:
		g.is("aggregate inside")
		z, _ := g.anyColumn([]source{a})
		return within("SELECT "+z+" AS o2, "+g.aggregate(&scope{sources: []source{a}}, other.typ, 0)+" AS o1, "+y+" AS o9 FROM "+inside+where+" GROUP BY "+z+", "+y, "?.o"+pick(g.r, []string{"1", "9"})+" = "+p(other.typ))
	case 9:
		g.is("aggregate of nothing")
		return "SELECT " + some(a) + ", l.* FROM " + named(a) + pick(g.r, []string{" LEFT", ""}) + " JOIN LATERAL (SELECT count(*) AS n, max(" + x + "::text) AS m FROM " + named(b) + " WHERE " + on + " AND " + x + " = " + p(of.typ) + ") l" +
			" ON true"
	case 10:
		g.is("aggregate of nothing")
		return "SELECT " + some(a) + " FROM " + named(a) + " WHERE EXISTS (SELECT " + pick(g.r, []string{"count(*)", "max(" + x + "::text)"}) + " FROM " + named(b) + " WHERE " + on + " AND " + x + " = " + p(of.typ) + pick(g.r, []string{"", " HAVING count(*) < 2"}) + ")" + also()
	case 11:
		g.is("predicate on null")
		for _, s := range []source{a, b} {
			if flag, ok := g.columnOf([]source{s}, "bool"); ok {
				return "SELECT " + some(a) + " FROM " + named(a) + " JOIN " + named(b) + " ON " + on + " WHERE " + y + " = " + p(other.typ) + " AND " + flag + pick(g.r, []string{" IS NOT TRUE", " IS NOT FALSE", " IS UNKNOWN", " IS NOT UNKNOWN"})
			}
		}
		return "SELECT " + some(a) + " FROM " + named(a) + " JOIN " + named(b) + " ON " + on + " WHERE " + y + " = " + p(other.typ) + " AND NOT (" + x + " = " + g.constant(of.typ) + ") IS TRUE"
	case 12:
		g.is("not in")
		in := source{g.alias(), a.columns, a.table}
		z, third := g.anyColumn([]source{in})
		w, ok := g.columnOf([]source{b}, third.typ)
		if !ok {
			w, z = x, g.constant(of.typ)
		}
		for range 20 {
			// Rather one that may be NULL.
			l, left := g.anyColumn([]source{in})
			r, right := g.anyColumn([]source{b})
			if right.null && left.typ == right.typ {
				z, w = l, r
				break
			}
		}
		correlated := ""
		if g.chance(30) {
			correlated = " WHERE " + g.on([]source{in}, b, false)
		}
		v, fourth := g.anyColumn([]source{in})
		return "SELECT " + some(in) + " FROM " + named(in) + " WHERE " + v + " = " + p(fourth.typ) + " AND " + z + pick(g.r, []string{" NOT IN ", " NOT IN ", " NOT IN ", " <> ALL ", " IN "}) + "(SELECT " + w + " FROM " + named(b) + correlated + ")"
	case 13:
		g.is("set operation inside")
		w, ok := g.columnOf([]source{b}, other.typ)
		if !ok {
			w = g.constant(other.typ)
		}
		return within("SELECT "+y+" AS o1 FROM "+named(a)+where+pick(g.r, []string{" UNION ", " UNION ALL ", " EXCEPT ", " INTERSECT ", " EXCEPT ALL "})+"SELECT "+w+" FROM "+named(b), "?.o1 = "+p(other.typ))
	case 14:
		g.is("aggregate of nothing")
		c := table()
		v, third := g.anyColumn([]source{c})
		condition := g.condition(&scope{sources: []source{c}}, 0, false)
		return "SELECT l.* FROM " + named(c) + ", LATERAL (SELECT count(*) AS n, (SELECT count(" + x + ") FROM " + named(b) + " WHERE " + g.on([]source{c}, b, false) + ") AS m FROM " + named(a) + " WHERE " + condition + ") l WHERE " + v + " = " + p(third.typ)
	case 15:
		g.is("using")
		if using := g.using([]source{a}, b); using != "" {
			return "SELECT " + using + ", " + some(a) + " FROM " + named(a) + outerJoin + named(b) + " USING (" + using + ") WHERE " + using + " = " + p(a.table.column(using).typ)
		}
		return "SELECT " + some(a) + " FROM " + named(a) + " NATURAL LEFT JOIN " + named(b) + " WHERE " + y + " = " + p(other.typ)
	case 16:
		g.is("two rows")
		g.parametersMax = 2
		for range 10 {
			// Columns that change while the rows stay joined.
			if strings.HasSuffix(x, "id") {
				x, of = g.anyColumn([]source{b})
			}
			if strings.HasSuffix(y, "id") {
				y, other = g.anyColumn([]source{a})
			}
		}
		return "SELECT " + some(a) + " FROM " + named(a) + pick(g.r, []string{" JOIN ", outerJoin}) + named(b) + " ON " + on + " WHERE " + y + " = " + p(other.typ) + " AND " + x + " = " + p(of.typ) + also()
	default:
		g.is("exists in or")
		return "SELECT " + some(a) + " FROM " + named(a) + " WHERE (" + y + " = " + p(other.typ) + pick(g.r, []string{" OR ", " AND "}) + pick(g.r, []string{"", "NOT "}) + "EXISTS (SELECT 1 FROM " + named(b) + " WHERE " + on + also() + "))"
	}
}

// application is a query as most applications have it: of rows that refer to others,
// by a key or by a reference. Empty: this world has no such tables.
func (g *generator) application() string {
	var from *table
	var to *table
	for range 20 {
		t := pick(g.r, g.tables)
		for _, other := range g.tables {
			if len(other.key) == 1 && t.column(other.name+"_id") != nil && slices.ContainsFunc(t.constraints, func(c string) bool { return strings.HasPrefix(c, "FOREIGN KEY ("+other.name+"_id)") }) {
				from, to = t, other
			}
		}
	}
	if from == nil {
		return ""
	}
	a, b := source{g.alias(), from.columns, from}, source{g.alias(), to.columns, to}
	reference := a.alias + "." + to.name + "_id"
	some := func(s source) string {
		x, _ := g.anyColumn([]source{s})
		y, _ := g.anyColumn([]source{s})
		return x + ", " + y
	}
	join := from.name + " " + a.alias + pick(g.r, []string{" JOIN ", " LEFT JOIN "}) + to.name + " " + b.alias + " ON " + b.alias + ".id = " + reference
	predicate := func(s source) string {
		c, of := g.anyColumn([]source{s})
		switch {
		case of.typ == "bool":
			return c
		case of.null && g.chance(30):
			return c + " IS NOT NULL"
		case family(of.typ) == "int":
			return c + pick(g.r, []string{" >= ", " = ", " <> "}) + g.constant("int4")
		}
		return c + " = '" + pick(g.r, values[of.typ]) + "'"
	}
	key := a.alias + ".id = " + g.parameter(from.column("id").typ)
	switch g.r.IntN(6) {
	case 0:
		g.is("join by key")
		return "SELECT " + some(a) + ", " + some(b) + " FROM " + join + " WHERE " + key
	case 1:
		g.is("list by reference")
		return "SELECT " + some(a) + " FROM " + from.name + " " + a.alias + " WHERE " + reference + " = @p1"
	case 2:
		g.is("join and list")
		return "SELECT " + some(a) + ", " + some(b) + " FROM " + join + " WHERE " + reference + " = @p1"
	case 3:
		g.is("list with predicates")
		return "SELECT " + some(a) + " FROM " + from.name + " " + a.alias + " WHERE " + reference + " = @p1 AND " + predicate(a) + pick(g.r, []string{"", " AND " + predicate(a)})
	case 4:
		if g.chance(30) {
			// A page that is not shown is dropped too: the row of the key does not tell.
			g.is("join with predicates on the joined")
			return "SELECT " + some(a) + ", " + some(b) + " FROM " + join + " WHERE " + key + " AND " + predicate(b)
		}
		g.is("join with predicates")
		return "SELECT " + some(a) + ", " + some(b) + " FROM " + join + " WHERE " + key + " AND " + predicate(a)
	}
	g.is("count by reference")
	return "SELECT count(*) FROM " + from.name + " " + a.alias + " WHERE " + reference + " = @p1"
}

// filtered is a view of the rows of a table by a literal.
func (g *generator) filtered() (sql string, columns []column) {
	t := pick(g.r, g.tables)
	name, c := g.anyColumn([]source{{"a", t.columns, t}})
	return "SELECT a.* FROM " + t.name + " a WHERE " + name + pick(g.r, []string{" = ", " <> ", " >= "}) + g.literal(c.typ), t.columns
}

// literal is a constant, perhaps one that is of the type only because of what it is
// compared with.
func (g *generator) literal(typ string) string {
	text := g.constant(typ)
	if ambiguous[typ] != nil && g.chance(60) {
		text = "'" + pick(g.r, ambiguous[typ]) + "'::" + typ
	}
	if g.chance(50) {
		text, _, _ = strings.Cut(text, "::")
	}
	return text
}

// ofType is a query in which a column decides whose equality, or whose text, is not what it
// seems. Empty: this world has none.
func (g *generator) ofType() string {
	special := func(c column) bool {
		return !slices.Contains([]string{"int4", "int8", "bool", "mood", "varchar"}, c.typ)
	}
	if g.chance(60) {
		special = func(c column) bool { return ambiguous[c.typ] != nil }
	}
	var from []*table
	for _, t := range slices.Concat(g.tables, g.views) {
		if slices.ContainsFunc(t.columns, special) {
			from = append(from, t)
		}
	}
	if len(from) == 0 {
		return ""
	}
	t, to := pick(g.r, from), pick(g.r, g.tables)
	a, b := source{"a", t.columns, t}, source{"b", to.columns, to}
	x, of := g.anyColumn([]source{a})
	for !special(of) {
		x, of = g.anyColumn([]source{a})
	}
	shown, _ := g.anyColumn([]source{a})
	id, key := "b."+to.columns[0].name, to.columns[0]
	if g.chance(50) {
		id, key = "a."+t.columns[0].name, t.columns[0]
	}
	literal := g.literal(of.typ)
	compares := pick(g.r, []string{" = ", " = ", " <> ", " >= ", " < "})
	join := "SELECT " + shown + ", " + id + " FROM " + t.name + " a JOIN " + to.name + " b ON "
	switch g.r.IntN(4) {
	case 0:
		g.is("literal of a type")
		return join + g.on([]source{a}, b, false) + " WHERE " + id + " = " + g.parameter(key.typ) + " AND " + x + compares + literal
	case 1:
		for _, c := range b.columns {
			if family(c.typ) == family(of.typ) && (c.name != of.name || g.chance(30)) {
				g.is("join of types")
				return join + "b." + c.name + " = " + x + " WHERE " + id + " = " + g.parameter(key.typ)
			}
		}
		return ""
	}
	g.is("column of a type")
	condition := ""
	if g.chance(80) {
		condition = g.ofPart(x, of.typ)
	}
	switch {
	case condition == "" && g.chance(50):
		condition = x + " = " + g.parameter(of.typ)
	case condition == "":
		condition = "coalesce(" + x + ", " + literal + ") = " + g.parameter(of.typ)
	}
	if g.chance(50) {
		return "SELECT " + shown + " FROM " + t.name + " a WHERE " + condition
	}
	return join + g.on([]source{a}, b, false) + " WHERE " + condition
}
