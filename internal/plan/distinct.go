package plan

import "hash/maphash"

// distinct are texts, each once, in the order in which they came first. One is built in
// text, behind used, until end. reset keeps the memory.
type distinct struct {
	text []byte // of all, one behind the other
	ends []int  // where each ends; it begins where the one before ends
	// index finds a text by its hash: open addressing, the number of a text + 1. Its
	// length is a power of two.
	index []int32
	seed  maphash.Seed
}

// newDistinct has room for that many, a power of two, before it grows.
func newDistinct(texts int) distinct {
	return distinct{seed: maphash.MakeSeed(), index: make([]int32, 4*texts)}
}

func (d *distinct) reset() {
	d.text, d.ends = d.text[:0], d.ends[:0]
	clear(d.index)
}

// at returns text i, which is valid until reset.
func (d *distinct) at(i int) []byte {
	start := 0
	if i > 0 {
		start = d.ends[i-1]
	}
	return d.text[start:d.ends[i]]
}

func (d *distinct) used() int {
	if len(d.ends) == 0 {
		return 0
	}
	return d.ends[len(d.ends)-1]
}

// abandon forgets what stands behind used.
func (d *distinct) abandon() { d.text = d.text[:d.used()] }

// end closes the text behind used, and returns its number; found: it was there before.
func (d *distinct) end() (i int, found bool) {
	text := d.text[d.used():]
	at, found := d.find(text)
	if found {
		d.abandon()
		return int(d.index[at]) - 1, true
	}
	d.ends = append(d.ends, len(d.text))
	d.index[at] = int32(len(d.ends))
	if len(d.ends) > len(d.index)/2 {
		d.grow()
	}
	return len(d.ends) - 1, false
}

// find returns the place of text in the index, or that where it belongs.
func (d *distinct) find(text []byte) (at int, found bool) {
	last := len(d.index) - 1
	for at := int(maphash.Bytes(d.seed, text)) & last; ; at = (at + 1) & last {
		n := int(d.index[at]) - 1
		if n < 0 {
			return at, false
		}
		if string(d.at(n)) == string(text) {
			return at, true
		}
	}
}

// grow makes the index larger: a change of a table with very many entries
// brings more keys than a batch should have.
func (d *distinct) grow() {
	d.index = make([]int32, 2*len(d.index))
	for i := range d.ends {
		at, _ := d.find(d.at(i))
		d.index[at] = int32(i + 1)
	}
}
