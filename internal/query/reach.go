package query

import (
	"cmp"
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/unstale/unstale/internal/plan"
)

// A reach is what is known of the results in which a row of one occurrence of a
// table can make a difference: the conditions that hold there, and the rows of
// other tables that there must be.
//
// On the way from the occurrence to the top of the query a condition counts
//   - in the WHERE or ON that the row itself must pass;
//   - in what is joined with the row, as far as there must be such a row;
//   - across an outer join, whose other side may be missing, once a condition that
//     counts shows that it is not.
//
// It does not count where the row is on the side of an outer join that may be
// missing and the condition can be true when it is, nor where it would have to be
// carried into a block through a column that the block holds.
type reach struct {
	of      *item
	inside  map[any]bool // the nodes from the occurrence to the top
	missing []*item      // sides of outer joins that have the occurrence in them
	usable  []*conjunct
	there   map[*item]bool // tables of which there must be a row
	waiting []waiting
	offered []*conjunct // that might count later
	without Rule
	// asks are the tables that its lookups read. indexed: each is to have an index, if
	// one can answer it; indexable are the tables of those.
	asks      map[*item]bool
	indexed   bool
	indexable map[*plan.Lookup]*item
	paired    map[*conjunct][][2]*item // see pairs
}

// waiting is the far side of an outer join: it counts once a condition shows that
// it is there.
type waiting struct {
	side *item
	on   []*conjunct
	// only: ON counts only if the other side is there as well.
	other *item
}

func reachOf(of *item, without Rule) *reach {
	r := &reach{of: of, without: without, inside: map[any]bool{}, there: map[*item]bool{of: true}, asks: map[*item]bool{}, indexable: map[*plan.Lookup]*item{}, paired: map[*conjunct][][2]*item{}}
	for node := any(of); node != nil; {
		r.inside[node] = true
		switch n := node.(type) {
		case *item:
			node = n.up
		case *block:
			node = n.up
		case *sublink:
			node = n.up
		}
	}
	var from any = of
	for up := of.up; up != nil; {
		switch n := up.(type) {
		case *item:
			switch n.kind {
			case itemJoin:
				if sl, ok := from.(*sublink); ok {
					r.besideON(n, sl)
				} else {
					r.acrossJoin(n, from.(*item))
				}
			}
			from, up = n, n.up
		case *block:
			r.insideBlock(n, from)
			from, up = n, n.up
		case *sublink:
			if n.carried {
				r.offer(n.equal...)
			}
			from, up = n, n.up
		}
	}
	r.settle()
	return r
}

// acrossJoin goes from one side of a join up through it.
func (r *reach) acrossJoin(join, side *item) {
	other := join.left
	if side == join.left {
		other = join.right
	}
	switch {
	case join.join == pg.JoinType_JOIN_FULL:
		r.missing = append(r.missing, side)
		r.waiting = append(r.waiting, waiting{side: other, on: join.on})
	case join.nullable(other):
		r.waiting = append(r.waiting, waiting{side: other, on: join.on})
	default:
		r.offer(join.on...)
		r.require(other)
		if join.nullable(side) {
			r.missing = append(r.missing, side)
		}
	}
}

// besideON goes up from a subquery in the ON of a join: it matters for two rows that
// meet the rest of the condition.
func (r *reach) besideON(join *item, sl *sublink) {
	for _, c := range join.on {
		if c.sublink != sl {
			r.offer(c)
		}
	}
	r.require(join.left)
	r.require(join.right)
	for _, side := range []*item{join.left, join.right} {
		if join.nullable(side) {
			r.missing = append(r.missing, side)
		}
	}
}

// insideBlock goes up from something in a block to what the block shows.
func (r *reach) insideBlock(b *block, from any) {
	if sl, ok := from.(*sublink); ok && b.standing && !sl.filters && r.without&StandingBlocks == 0 {
		return // it shows what the subquery says, though it reads no row
	}
	for _, it := range b.from {
		if it != from {
			r.require(it)
		}
	}
	for _, c := range b.where {
		if c.sublink != nil && c.sublink == from {
			continue
		}
		r.offer(c)
	}
}

// require notes that there is a row of it.
func (r *reach) require(it *item) {
	switch it.kind {
	case itemTable:
		r.there[it] = true
	case itemBlock:
		r.requireBlock(it.block)
	case itemJoin:
		switch it.join {
		case pg.JoinType_JOIN_FULL:
			r.waiting = append(r.waiting, waiting{side: it.left, on: it.on, other: it.right}, waiting{side: it.right, on: it.on, other: it.left})
		case pg.JoinType_JOIN_LEFT:
			r.require(it.left)
			r.waiting = append(r.waiting, waiting{side: it.right, on: it.on})
		case pg.JoinType_JOIN_RIGHT:
			r.require(it.right)
			r.waiting = append(r.waiting, waiting{side: it.left, on: it.on})
		default:
			r.require(it.left)
			r.require(it.right)
			r.offer(it.on...)
		}
	}
}

// requireBlock notes that a block shows a row, which is made of rows of what it
// reads.
func (r *reach) requireBlock(b *block) {
	if b.standing && r.without&StandingBlocks == 0 || len(b.arms) > 0 {
		return
	}
	for _, it := range b.from {
		r.require(it)
	}
	r.offer(b.where...)
}

// offer brings conditions that hold if they may be looked at.
func (r *reach) offer(conjuncts ...*conjunct) {
	r.offered = append(r.offered, conjuncts...)
}

// settle finds what counts, until nothing more does.
func (r *reach) settle() {
	for {
		offered := r.offered
		r.offered = nil
		for _, c := range offered {
			if !r.counts(c) {
				continue
			}
			if c = r.specialize(c); c == nil {
				continue
			}
			r.usable = append(r.usable, c)
			if c.sublink != nil && !r.inside[c.sublink] {
				r.requireBlock(c.sublink.block)
				r.offer(c.sublink.equal...)
			}
		}
		for i := 0; i < len(r.waiting); i++ {
			w := r.waiting[i]
			if r.without&WaitingSides == 0 && !slices.ContainsFunc(r.usable, func(c *conjunct) bool { return c.rejects(below(w.side)) }) {
				continue
			}
			r.waiting = slices.Delete(r.waiting, i, i+1)
			i--
			r.require(w.side)
			if w.other == nil {
				r.offer(w.on...)
			}
		}
		if len(r.offered) == 0 {
			return
		}
	}
}

// below tells what stands in a part of a FROM clause.
func below(top *item) func(*item) bool {
	return func(it *item) bool {
		for it != nil && it != top {
			up, ok := it.up.(*item)
			if !ok {
				return false
			}
			it = up
		}
		return it == top
	}
}

// counts reports whether a condition holds for what the row contributes.
func (r *reach) counts(c *conjunct) bool {
	for _, side := range r.missing {
		within := below(side)
		if placed, ok := c.place.(*item); ok && within(placed) || r.within(c.place, side) {
			continue // it is asked before the join
		}
		if c.touches(within) && !c.rejects(within) && r.without&MissingSides == 0 {
			return false
		}
	}
	for _, read := range c.all() {
		if r.without&HeldColumns == 0 && slices.ContainsFunc(read.through, func(b *block) bool { return r.inside[b] }) {
			return false
		}
	}
	return true
}

// within reports whether a place is somewhere inside a part of a FROM clause.
func (r *reach) within(place any, top *item) bool {
	for place != nil {
		switch p := place.(type) {
		case *item:
			if p == top {
				return true
			}
			place = p.up
		case *block:
			place = p.up
		case *sublink:
			place = p.up
		}
	}
	return false
}

// all is what the condition reads.
func (c *conjunct) all() []reference {
	if c.sublink == nil {
		return c.reads
	}
	reads := slices.Clone(c.reads)
	for _, equal := range c.sublink.equal {
		reads = append(reads, equal.reads...)
	}
	return reads
}

// touches reports whether the condition reads something of the items.
func (c *conjunct) touches(inside func(*item) bool) bool {
	return slices.ContainsFunc(c.all(), func(read reference) bool { return slices.ContainsFunc(read.from, inside) })
}

// specialize puts, for the columns of set operations that have the occurrence in
// them, what they are in its arm. It is nil if that is not known.
func (r *reach) specialize(c *conjunct) *conjunct {
	if c.any != nil {
		special := &conjunct{scalar: r.special(c.scalar), place: c.place}
		for _, one := range c.any {
			var all []*conjunct
			for _, part := range one {
				// What is left out of an alternative widens it.
				if r.counts(part) {
					if part = r.specialize(part); part != nil {
						all = append(all, part)
					}
				}
			}
			special.any = append(special.any, all)
		}
		if special.scalar == nil {
			special.scalar = &scalar{node: c.node, opaque: true}
		}
		return special
	}
	if c.sublink != nil {
		return c
	}
	s := r.special(c.scalar)
	if s == nil {
		return nil
	}
	if s == c.scalar {
		return c
	}
	special := &conjunct{scalar: s, place: c.place}
	if c.left != nil {
		special.left, special.right = r.special(c.left), r.special(c.right)
		if special.left == nil || special.right == nil {
			special.left, special.right = nil, nil
		}
	}
	return special
}

// inOrder are the names of columns in a scalar as they stand in it.
func (s *scalar) inOrder() []*pg.ColumnRef {
	var refs []*pg.ColumnRef
	walk(s.node, func(n *pg.Node) bool {
		if ref := n.GetColumnRef(); ref != nil && s.references[ref] != nil {
			refs = append(refs, ref)
		}
		return true
	})
	if len(refs) == len(s.references) {
		return refs
	}
	begin := len(refs)
	for ref := range s.references {
		if !slices.Contains(refs[:begin], ref) {
			refs = append(refs, ref)
		}
	}
	slices.SortFunc(refs[begin:], func(a, b *pg.ColumnRef) int { return cmp.Compare(a.Location, b.Location) })
	return refs
}

func (r *reach) special(s *scalar) *scalar {
	changed := false
	references := map[*pg.ColumnRef]*resolved{}
	inOrder := s.inOrder()
	for _, ref := range inOrder {
		to := s.references[ref]
		references[ref] = to
		for to.union != nil {
			arm := slices.IndexFunc(to.union.arms, func(b *block) bool { return r.inside[b] })
			if arm < 0 || r.without&HeldColumns == 0 && slices.ContainsFunc(to.held, func(b *block) bool { return r.inside[b] }) {
				return nil
			}
			to = &resolved{value: to.union.arms[arm].outputs[to.column].value}
			if inner := to.value.references[to.value.node.GetColumnRef()]; inner != nil && inner.union != nil {
				to = inner
				continue
			}
			changed = true
			break
		}
		if to.value != nil {
			value := r.special(to.value)
			if value == nil {
				return nil
			}
			if value != to.value {
				copied := *to
				copied.value = value
				to, changed = &copied, true
			}
		}
		references[ref] = to
	}
	if !changed {
		return s
	}
	copied := *s
	copied.references = references
	copied.reads = nil
	for _, ref := range inOrder {
		to := references[ref]
		if to.value != nil {
			copied.reads = append(copied.reads, to.value.reads...)
			for _, parameter := range to.value.parameters {
				if !slices.Contains(copied.parameters, parameter) {
					copied.parameters = append(slices.Clip(copied.parameters), parameter)
				}
			}
		} else {
			copied.reads = append(copied.reads, to.reference)
		}
	}
	return &copied
}
