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
	return q.derive(0, catalog, types, key)
}

func (q *Query) derive(without Rule, catalog Catalog, types []Type, key []string) ([]plan.Dependency, error) {
	b := &binder{query: q, catalog: catalog, types: types, without: without}
	if _, err := b.bindSelect(q.tree, nil); err != nil {
		return nil, err
	}
	var dependencies []plan.Dependency
	for _, it := range b.tables {
		r := reachOf(it, without)
		paths, why := r.solve(&asked{q.Parameters, types, key, without})
		where := r.predicate()
		d := plan.Dependency{
			Schema: it.relation.Schema, Table: it.relation.Name, Place: it.place, Alias: it.name,
			Where: where, Paths: paths, Why: why,
		}
		for column := range it.used {
			d.Columns = append(d.Columns, column)
		}
		slices.Sort(d.Columns)
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
