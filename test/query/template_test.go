package query

import (
	"fmt"
	"strings"
)

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
	switch n := g.r.IntN(17); n {
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
		return within("SELECT "+some(a)+", "+y+" AS o9 FROM "+inside+where+" ORDER BY o9, o1 LIMIT 2", "?.o"+pick(g.r, []string{"1", "9"})+" = "+p(other.typ))
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
		correlated := ""
		if g.chance(30) {
			correlated = " WHERE " + g.on([]source{in}, b, false)
		}
		v, fourth := g.anyColumn([]source{in})
		return "SELECT " + some(in) + " FROM " + named(in) + " WHERE " + v + " = " + p(fourth.typ) + " AND " + z + pick(g.r, []string{" NOT IN ", " <> ALL ", " IN "}) + "(SELECT " + w + " FROM " + named(b) + correlated + ")"
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
	default:
		g.is("exists in or")
		return "SELECT " + some(a) + " FROM " + named(a) + " WHERE (" + y + " = " + p(other.typ) + pick(g.r, []string{" OR ", " AND "}) + pick(g.r, []string{"", "NOT "}) + "EXISTS (SELECT 1 FROM " + named(b) + " WHERE " + on + also() + "))"
	}
}
