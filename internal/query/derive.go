package query

import (
	"cmp"
	"slices"

	"github.com/unstale/unstale/internal/plan"
)

// Derive returns what a change to each table that the query reads does to the
// values of its parameters, in the order in which the query names the tables.
// types are those of q.Parameters, as PostgreSQL's PREPARE gives them; key names the
// parameters in the order of the key's placeholders, which is that of every path. Its
// error is an *Error where the query is to blame.
func (q *Query) Derive(catalog Catalog, types []Type, key []string) ([]plan.Dependency, error) {
	return q.derive(0, false, catalog, types, key)
}

// DeriveIndexed does so, and says of each lookup which index can answer it, or why none
// can.
func (q *Query) DeriveIndexed(catalog Catalog, types []Type, key []string) ([]plan.Dependency, error) {
	return q.derive(0, true, catalog, types, key)
}

func (q *Query) derive(without Rule, indexed bool, catalog Catalog, types []Type, key []string) ([]plan.Dependency, error) {
	b := &binder{query: q, catalog: catalog, types: types, without: without}
	if _, err := b.bindSelect(q.tree, nil); err != nil {
		return nil, err
	}
	if len(b.tables) == 0 {
		return nil, &Error{Text: "it reads no table, so that no change ever concerns it", Mend: "leave the entry out: what is cached so needs no keeping"}
	}
	all := asked{parameters: q.Parameters, types: types, key: key, without: without}
	reaches := make([]*reach, len(b.tables))
	paths, why := make([][]plan.Path, len(b.tables)), make([]string, len(b.tables))
	for i, it := range b.tables {
		reaches[i] = reachOf(it, without)
		reaches[i].indexed = indexed
		paths[i], why[i] = reaches[i].solve(&all)
	}
	if without&Settled == 0 {
		for _, i := range unsettled(reaches) {
			paths[i], why[i] = reaches[i].alone(all), "the rows that tell the parameters may all have moved on before a lookup runs"
		}
	}
	for i := range reaches {
		reaches[i].keepIndexes(paths[i], func(it *item) []plan.Path { return paths[slices.Index(b.tables, it)] })
	}
	var dependencies []plan.Dependency
	for i, it := range b.tables {
		where := reaches[i].predicate()
		d := plan.Dependency{
			Schema: it.relation.Schema, Table: it.relation.Name, Partitioned: it.relation.Kind == 'p', Place: it.place, Alias: it.name,
			Where: where, Paths: paths[i], Why: why[i],
		}
		for column := range it.used {
			d.Columns = append(d.Columns, column)
		}
		slices.Sort(d.Columns)
		d.Filtering, d.Filters = b.filters(reaches[i])
		dependencies = append(dependencies, d)
		if it.only || without&InheritedTables != 0 {
			continue
		}
		for _, child := range it.relation.Children {
			of := d
			of.Schema, of.Table = child.Schema, child.Name
			dependencies = append(dependencies, of)
		}
	}
	slices.SortStableFunc(dependencies, func(x, y plan.Dependency) int { return cmp.Compare(x.Place, y.Place) })
	return dependencies, nil
}

// unsettled are the occurrences that must not look up, so that no change is missed
// because a lookup runs later than the change that it serves.
//
// A result that is no longer right was made of rows of which some have changed
// since. If one of those asks only for rows that have not, its lookup finds them as
// they were, and so the key. There is such a row wherever no two occurrences ask for
// each other, in a circle. For instance, where @a is a column of one table and @b
// of another that it is joined with, both rows may have moved on when either is
// looked up: the lookups find (new a, new b), (old a, new b) and (new a, old b), and
// the key was (old a, old b). Of each circle the last occurrence is left to a sweep.
func unsettled(reaches []*reach) (swept []int) {
	settled := map[*item]bool{}
	for len(settled) < len(reaches) {
		before := len(settled)
		for _, r := range reaches {
			asks := false
			for it := range r.asks {
				asks = asks || !settled[it]
			}
			if !asks {
				settled[r.of] = true
			}
		}
		if len(settled) > before {
			continue
		}
		byItem := map[*item]*reach{}
		for _, r := range reaches {
			byItem[r.of] = r
		}
		for i, r := range slices.Backward(reaches) {
			if settled[r.of] || !asksItself(byItem, r) {
				continue
			}
			swept = append(swept, i)
			settled[r.of] = true
			break
		}
	}
	return swept
}

// asksItself reports whether the lookups of an occurrence, and those of the ones that
// they ask for, lead back to it.
func asksItself(byItem map[*item]*reach, r *reach) bool {
	seen := map[*item]bool{}
	for open := []*reach{r}; len(open) > 0; open = open[1:] {
		for it := range open[0].asks {
			if it == r.of {
				return true
			}
			if !seen[it] {
				seen[it] = true
				open = append(open, byItem[it])
			}
		}
	}
	return false
}
