package debezium

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/unstale/unstale/internal/change"
)

// An array that is being made, of one dimension. Debezium sends the elements
// without the bounds, and the rows of a second dimension as nulls or as what Java
// calls them, so an array with such an element is not certain.
type array struct {
	text    []byte
	certain bool
}

func (a *array) begin() {
	if cap(a.text) > scratchKept {
		a.text = nil
	}
	a.text, a.certain = append(a.text[:0], '{'), true
}

// isJavaArray reports whether an element may be what Java calls an array when it
// is made a text: [Ljava.lang.String;@1b9e1916.
func isJavaArray(text []byte) bool {
	return len(text) > 0 && text[0] == '[' && bytes.Contains(text, []byte(";@"))
}

// add adds an element; its text, if it is the placeholder, is not in v.
func (d *Decoder) add(v *change.Value) {
	a, text := &d.array, v.Text
	if v.State == change.Unchanged {
		d.scratch = append(d.scratch[:0], d.placeholder.text...)
		text = d.scratch
	} else if v.State != change.Text || isJavaArray(text) {
		a.certain = false
		return
	}
	if len(a.text) > 1 {
		a.text = append(a.text, ',')
	}
	a.text = appendElement(a.text, text)
}

// appendElement appends an element of an array as array_out does.
func appendElement(dst, text []byte) []byte {
	if !needsQuotes(text) {
		return append(dst, text...)
	}
	return appendQuoted(dst, text)
}

func needsQuotes(text []byte) bool {
	if len(text) == 0 || len(text) == 4 && bytes.EqualFold(text, []byte("NULL")) {
		return true
	}
	for _, c := range text {
		switch c {
		case '"', '\\', '{', '}', ',', ' ', '\t', '\n', '\r', '\v', '\f':
			return true
		}
	}
	return false
}

func appendQuoted(dst, text []byte) []byte {
	dst = append(dst, '"')
	for _, c := range text {
		if c == '"' || c == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, c)
	}
	return append(dst, '"')
}

// setArray delivers the array that was made.
func (d *Decoder) setArray(v *change.Value, c *column) {
	a := &d.array
	a.text = append(a.text, '}')
	switch {
	case d.placeholder.isArray(a.text):
		v.State = change.Unchanged
	case a.certain:
		from := len(d.text)
		d.text = append(d.text, a.text...)
		v.State, v.Text = change.Text, d.text[from:]
		d.doubt(v, c)
	}
}

// takeArray reads an array.
func (d *Decoder) takeArray(s *step, b []byte, i int, v *change.Value, depth int) int {
	v.State, v.Text = change.Missing, nil
	if s.column.rule != ruleArray {
		return d.skipBlocks(s, b, i, depth)
	}
	d.array.begin()
	for {
		count, _, next := block(b, i)
		switch {
		case next < 0 || count > uint64(len(b)-next):
			return malformed // an element takes a byte at least
		case count == 0:
			d.setArray(v, s.column)
			return next
		}
		i = next
		for range count {
			mark := len(d.text)
			d.element[0] = change.Value{}
			if i = d.run(s.inside.take, b, i, d.element[:], depth+1); i < 0 {
				return malformed
			}
			d.add(&d.element[0])
			d.text = d.text[:mark]
		}
	}
}

// A pair of an hstore. The value of null is NULL.
type pair struct {
	key, value []byte
	null       bool
}

// setPairs delivers an hstore that is made of the pairs: shorter keys first.
func (d *Decoder) setPairs(v *change.Value, c *column) {
	slices.SortFunc(d.pairs, func(a, b pair) int {
		return cmp.Or(cmp.Compare(len(a.key), len(b.key)), bytes.Compare(a.key, b.key))
	})
	from := len(d.text)
	for i := range d.pairs {
		if i > 0 {
			d.text = append(d.text, ", "...)
		}
		p := &d.pairs[i]
		d.text = appendPair(d.text, p.key, p.value, p.null)
	}
	v.State, v.Text = change.Text, d.text[from:]
	if string(v.Text) == d.placeholder.pair {
		v.State, v.Text = change.Unchanged, nil
		return
	}
	d.doubt(v, c)
}

func appendPair(dst, key, value []byte, null bool) []byte {
	dst = append(appendQuoted(dst, key), "=>"...)
	if null {
		return append(dst, "NULL"...)
	}
	return appendQuoted(dst, value)
}

// takeMap reads a map of texts.
func (d *Decoder) takeMap(s *step, b []byte, i int, v *change.Value, depth int) int {
	v.State, v.Text = change.Missing, nil
	if s.column.rule != ruleMap {
		return d.skipBlocks(s, b, i, depth)
	}
	d.pairs = d.pairs[:0]
	for {
		count, _, next := block(b, i)
		switch {
		case next < 0 || count > uint64(len(b)-next):
			return malformed
		case count == 0:
			d.setPairs(v, s.column)
			return next
		}
		i = next
		for range count {
			from, end := length(b, i)
			if end < 0 {
				return malformed
			}
			key := b[from:end]
			d.element[0] = change.Value{}
			if i = d.run(s.inside.take, b, end, d.element[:], depth+1); i < 0 {
				return malformed
			}
			value := d.element[0]
			if value.State == change.Unchanged {
				value.Text = []byte(d.placeholder.text)
			}
			d.pairs = append(d.pairs, pair{key, value.Text, value.State == change.Null})
		}
	}
}
