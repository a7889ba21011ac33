package debezium

// generations keeps the last entries that were used, at most max of them, in two
// generations. Where the young one is full it becomes the old one, and what was
// left of the old one is forgotten: what is used moves to the young one, so half
// of the limit is never forgotten while it is in use.
type generations[V any] struct {
	max        int
	young, old map[string]V
}

func newGenerations[V any](max int) generations[V] {
	return generations[V]{max: max, young: map[string]V{}}
}

func (g *generations[V]) get(key []byte) (v V, ok bool) {
	if v, ok = g.young[string(key)]; ok {
		return v, true
	}
	if v, ok = g.old[string(key)]; ok {
		g.put(key, v)
	}
	return v, ok
}

func (g *generations[V]) put(key []byte, v V) {
	if len(g.young) >= (g.max+1)/2 {
		g.old, g.young = g.young, make(map[string]V)
	}
	g.young[string(key)] = v
}
