package query

import (
	"fmt"
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// Keys are statements that list the values of a key's placeholders, as texts in an
// array: each once, in an order of their own. There are none where the key has no
// placeholder.
type Keys struct {
	All   string
	First string // the first $1 of them
	Next  string // the first $1 behind the values $2, $3 and so on
}

// Keys returns how to list the keys that rows of the database lead to: all whose result
// has a row, and more. types and key are those of Derive. why says why there are none.
func (q *Query) Keys(catalog Catalog, types []Type, key []string) (keys Keys, why string, err error) {
	if len(key) == 0 {
		return Keys{}, "", nil
	}
	b := &binder{query: q, catalog: catalog, types: types}
	top, err := b.bindSelect(q.tree, nil)
	if err != nil {
		return Keys{}, "", err
	}
	l := &lister{asked: asked{parameters: q.Parameters, types: types, key: key}}
	lists := l.shown(top)
	if lists == nil {
		// Whatever it shows, it shows something of one of these rows.
		lists = l.all(b.tables)
	}
	if lists == nil {
		return Keys{}, l.why, nil
	}
	of := make([]Type, len(key))
	for i, name := range key {
		of[i] = types[slices.Index(q.Parameters, name)]
	}
	return write(lists, of), "", nil
}

// KeysWritten is how to list the keys that a query without parameters finds: it has a
// column for each placeholder, of these types.
func (q *Query) KeysWritten(types []Type) Keys {
	if len(types) == 0 {
		return Keys{}
	}
	names, values := make([]string, len(types)), make([]string, len(types))
	for i, of := range types {
		names[i] = fmt.Sprintf("k%d", i+1)
		values[i] = fmt.Sprintf("written.%s::%s", names[i], of.Name)
	}
	from := fmt.Sprintf("(\n%s\n) AS written(%s)", q.SQL, strings.Join(names, ", "))
	return write([]list{{values: values, from: from}}, types)
}

// A list is a statement that lists keys: of a query, or of one of its parts.
type list struct {
	values []string // expressions, of each placeholder
	from   string
	where  []string
	tables int
	// collation is that of each value; empty: none that matters.
	collations []string
}

// A lister finds the lists that have the keys of all that a query shows.
type lister struct {
	asked
	why string
}

// shown are lists with the keys of all rows that a block shows; nil if nobody knows.
// Where it shows one there is a row of each thing in FROM that it cannot do without.
func (l *lister) shown(b *block) []list {
	if len(b.arms) > 0 {
		return l.both(l.shown(b.arms[0]), l.shown(b.arms[1]))
	}
	var best []list
	for _, it := range b.from {
		best = better(best, l.ofItem(it))
	}
	return best
}

func (l *lister) ofItem(it *item) []list {
	switch it.kind {
	case itemTable:
		return l.all([]*item{it})
	case itemBlock:
		if it.block.standing {
			return nil // it shows a row where there is none
		}
		return l.shown(it.block)
	case itemJoin:
		if it.join == pg.JoinType_JOIN_FULL {
			return l.both(l.ofItem(it.left), l.ofItem(it.right))
		}
		var best []list
		for _, side := range []*item{it.left, it.right} {
			if !it.nullable(side) {
				best = better(best, l.ofItem(side))
			}
		}
		return best
	}
	return nil
}

func (l *lister) both(a, b []list) []list {
	if a == nil || b == nil {
		return nil
	}
	return append(slices.Clone(a), b...)
}

// better is what reads less: the first, of those that read as much.
func better(a, b []list) []list {
	tables := func(lists []list) (n int) {
		for _, one := range lists {
			n += one.tables
		}
		return n
	}
	if a == nil || b != nil && tables(b) < tables(a) {
		return b
	}
	return a
}

// all are the lists with the keys that rows of the tables lead to.
func (l *lister) all(tables []*item) []list {
	var lists []list
	for _, it := range tables {
		r := reachOf(it, 0)
		l.tries = 0
		more, why := alternatives(&l.asked, r.usable, nil, alternativesMax, r.list)
		if more == nil {
			l.why = fmt.Sprintf("%s.%s: %s", it.relation.Schema, it.relation.Name, why)
			return nil
		}
		lists = append(lists, more...)
	}
	return lists
}

// list is that of the keys that the rows of the occurrence lead to. Of the conditions
// it has those that join: what the others would spare is no harm, and one of them may
// fail for a row that the query itself never comes to.
func (r *reach) list(a *asked, usable []*conjunct) (*list, string) {
	edges := r.edges(usable)
	found, why := r.sources(a, usable, edges)
	if found == nil {
		return nil, why
	}
	with, why := r.through(a, edges, found)
	if with == nil {
		return nil, why
	}
	w := &writer{with: append([]*item{r.of}, with...)}
	l := &list{tables: len(w.with)}
	for i, s := range found {
		if s.elements != nil {
			l.values = append(l.values, w.element(*s.elements))
			l.collations = append(l.collations, s.elements.typ().Collation)
			continue
		}
		if s.column.item != nil {
			l.values = append(l.values, w.column(s.column))
			l.collations = append(l.collations, s.column.typ().Collation)
			continue
		}
		text, ok := s.write(w.name)
		if !ok || s.of.family() != "text" {
			return nil, fmt.Sprintf("what @%s is equal to is computed, and may be no value of its type", a.key[i])
		}
		l.values = append(l.values, "("+text+")::text")
		l.collations = append(l.collations, computed)
	}
	l.from = strings.Join(w.tables(), ", ")
	for _, c := range usable {
		if !c.joins() || !r.says(c, with) {
			continue
		}
		if text, ok := c.write(w.name); ok && !slices.Contains(l.where, "("+text+")") {
			l.where = append(l.where, "("+text+")")
		}
	}
	return l, ""
}

// computed is the collation of what is computed: that of one of its parts.
const computed = "of a part"

// write writes the statements. Each list is in the order of its values, so that an
// index can serve, and what comes first in all comes first in one of them.
func write(lists []list, types []Type) Keys {
	collate(lists)
	places, texts := make([]string, len(types)), make([]string, len(types))
	for i, of := range types {
		places[i] = fmt.Sprintf("k%d", i+1)
		texts[i] = asKey("listed."+places[i], of)
	}
	statement := func(behind, limited bool) string {
		var parts []string
		for _, l := range lists {
			parts = append(parts, l.statement(types, behind, limited))
		}
		if len(parts) > 1 {
			for i := range parts {
				parts[i] = "(" + parts[i] + ")"
			}
		}
		limit := ""
		if limited {
			limit = " LIMIT $1"
		}
		return fmt.Sprintf("SELECT ARRAY[%s]\nFROM (%s) AS listed(%s)\nORDER BY %s%s",
			strings.Join(texts, ", "), strings.Join(parts, "\nUNION "), strings.Join(places, ", "), strings.Join(places, ", "), limit)
	}
	return Keys{All: statement(false, false), First: statement(false, true), Next: statement(true, true)}
}

// collate gives lists that are put together one order.
func collate(lists []list) {
	if len(lists) == 1 {
		return
	}
	for i, collation := range lists[0].collations {
		same := collation != computed
		for _, l := range lists {
			same = same && l.collations[i] == collation
		}
		if same {
			continue
		}
		for _, l := range lists {
			l.values[i] += ` COLLATE "C"`
		}
	}
}

func (l *list) statement(types []Type, behind, limited bool) string {
	where := slices.Clone(l.where)
	for _, value := range l.values {
		where = append(where, value+" IS NOT NULL")
	}
	if behind {
		given := make([]string, len(types))
		for i, of := range types {
			given[i] = fmt.Sprintf("$%d::text::%s", i+2, of.Name)
		}
		where = append(where, fmt.Sprintf("(%s) > (%s)", strings.Join(l.values, ", "), strings.Join(given, ", ")))
		if len(given) > 1 {
			// An index on the first alone can begin there.
			where = append(where, l.values[0]+" >= "+given[0])
		}
	}
	sql := fmt.Sprintf("SELECT DISTINCT %s\nFROM %s\nWHERE %s", strings.Join(l.values, ", "), l.from, strings.Join(where, "\n  AND "))
	if limited {
		places := make([]string, len(l.values))
		for i := range places {
			places[i] = fmt.Sprint(i + 1)
		}
		sql += "\nORDER BY " + strings.Join(places, ", ") + " LIMIT $1"
	}
	return sql
}
