package debezium

// generations keeps the last entries that were used, at most max of them, in two
// generations. Where the young one is full it becomes the old one, and what was
// left of the old one is forgotten: what is used moves to the young one, so half
// of the limit is never forgotten while it is in use.
type generations[K comparable, V any] struct {
	max        int
	young, old map[K]V
}

func newGenerations[K comparable, V any](max int) generations[K, V] {
	return generations[K, V]{max: max, young: map[K]V{}}
}

func (g *generations[K, V]) get(k K) (v V, ok bool) {
	if v, ok = g.young[k]; ok {
		return v, true
	}
	if v, ok = g.old[k]; ok {
		g.put(k, v)
	}
	return v, ok
}

func (g *generations[K, V]) put(k K, v V) {
	if len(g.young) >= (g.max+1)/2 {
		g.old, g.young = g.young, make(map[K]V)
	}
	g.young[k] = v
}
