package query

import (
	"fmt"
	"slices"

	"github.com/unstale/unstale/internal/plan"
)

// index returns what can answer a lookup in place of the database, or why nothing can.
// It has the rows of one table by what equalities tie to the changed row, and asks
// nothing else of them: so it knows more rows than the lookup finds, and none too few.
func (r *reach) index(lookup *plan.Lookup, usable []*conjunct, found []source, with []*item) (x *plan.Index, why string) {
	switch {
	case len(with) == 0:
		return nil, "it reads no table"
	case len(with) > 1:
		return nil, fmt.Sprintf("it goes through %d tables", len(with))
	}
	of := with[0]
	if len(of.relation.Children) > 0 && !of.only {
		return nil, fmt.Sprintf("tables inherit from %s", of.relation.Name)
	}
	x = &plan.Index{Schema: of.relation.Schema, Table: of.relation.Name}
	w := &writer{of: r.of, with: with}
	var where []string
	tied := map[string]string{} // columns of the changed row, and those of the table that are equal
	for _, c := range usable {
		own, other := c.tie(r.of, of)
		if own == nil || tied[own.name] != "" || slices.Contains(x.Join, other.name) {
			continue
		}
		text, ok := c.write(w.name)
		if !ok || !r.knows(c.scalar) {
			continue
		}
		w.takes(c.scalar)
		where = append(where, "("+text+")")
		tied[own.name] = other.name
		x.Join, x.Types = append(x.Join, other.name), append(x.Types, other.typ().Name)
		x.By = append(x.By, slices.IndexFunc(lookup.Arguments, func(a plan.Argument) bool { return a.Column == own.name }))
	}
	if len(x.Join) == 0 {
		return nil, fmt.Sprintf("no column of %s that the log has is equal, as texts too, to one of the changed row", of.relation.Name)
	}
	var keys []string
	for _, s := range found {
		at := s.column
		if at.item == r.of && tied[at.name] != "" {
			at = column{of, tied[at.name]}
		}
		if at.item != of {
			return nil, fmt.Sprintf("not every value of the key is a column of %s", of.relation.Name)
		}
		x.Key, x.Types = append(x.Key, at.name), append(x.Types, at.typ().Name)
		keys = append(keys, asKey(w.column(at), s.of))
	}
	x.Unique = x.UniqueBy(of.relation.Unique)
	x.SQL = w.statement(keys, where, x.Unique)
	return x, ""
}

// tie returns the two columns that the condition says are equal, if it ties rows of two
// tables so that equal values have equal texts.
func (c *conjunct) tie(a, b *item) (ofA, ofB *column) {
	if c.left == nil || c.right == nil || c.opaque || len(c.parameters) > 0 || c.sublink != nil || !c.steady() {
		return nil, nil
	}
	ofA, ofB = c.left.column(), c.right.column()
	if ofA == nil || ofB == nil {
		return nil, nil
	}
	if ofA.item == b {
		ofA, ofB = ofB, ofA
	}
	if ofA.item != a || ofB.item != b || !ofA.typ().Textual() || ofA.typ().family() != ofB.typ().family() || ofB.item.relation.Column(ofB.name).Generated {
		return nil, nil
	}
	return ofA, ofB
}

// keepIndexes keeps the indexes of lookups whose table drops the same keys itself. An
// index has what the stream has brought: of a row that changes behind that, it may know
// another version than the one that has led to a key. That key is dropped by the row's
// own change then, without a lookup.
func (r *reach) keepIndexes(paths []plan.Path, of func(*item) []plan.Path) {
	for _, path := range paths {
		if path.Lookup == nil || path.Lookup.Index == nil {
			continue
		}
		it := r.indexable[path.Lookup]
		if !slices.ContainsFunc(of(it), func(own plan.Path) bool { return own.Lookup == nil && slices.Equal(own.Key, path.Lookup.Index.Key) }) {
			path.Lookup.Index, path.Lookup.NoIndex = nil, fmt.Sprintf("a change of %s does not drop the keys that it leads to by itself", it.relation.Name)
		}
	}
}
