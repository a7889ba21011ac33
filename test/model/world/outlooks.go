package world

// outlooks hold settled back because of lookups that have seen more than the stream has
// brought: it stands at before until everything up to until has dropped its keys, and then
// at that of the second. Where until is 0 there is none.
type outlooks struct {
	before, until, hops [2]uint8
}

// note notes a lookup that has seen what was committed up to seen. hops is how many rows,
// one behind the other, may have led it astray.
func (l *outlooks) note(before, seen, hops uint8) {
	switch {
	case l.until[0] == 0:
		l.before[0], l.until[0], l.hops[0] = before, seen, hops
	case l.until[1] == 0:
		l.before[1], l.until[1], l.hops[1] = before, seen, hops
	default:
		l.until[1] = max(l.until[1], seen)
		l.before[1] = min(l.before[1], before)
	}
}

// settled is how far nothing is outstanding, if that is all but for lookups, and up to
// dropped each change has dropped its keys.
func (l *outlooks) settled(but, dropped uint8) uint8 {
	for l.until[0] > 0 && dropped >= l.until[0] {
		if l.hops[0] > 0 && l.until[1] > l.until[0] {
			l.until[0] = l.until[1]
			l.hops[0]--
			continue
		}
		*l = outlooks{[2]uint8{l.before[1]}, [2]uint8{l.until[1]}, [2]uint8{l.hops[1]}}
	}
	if l.until[0] > 0 {
		but = min(but, l.before[0])
	}
	if l.until[1] > 0 {
		but = min(but, l.before[1])
	}
	return but
}
