package debezium

import (
	"encoding/binary"
	"math/bits"

	"github.com/unstale/unstale/internal/change"
)

// A program reads one record of one schema: it jumps to what is wanted.
type program struct{ steps []step }

// A step of a program. It is small, so that a program stays near.
type step struct {
	op op
	// null says where null stands in a union with what the step reads.
	null nullness
	slot int32 // of the value, or what is captured
	n    int   // how many to step over; the size of a fixed
	// column says how to make the text.
	column *column
	inside *inside
}

// inside is what the value of a step is made of.
type inside struct {
	of       *avroType
	skip     *program   // over a record, an element, or a value of a map
	take     *program   // of an element, or a value of a map
	branches []*program // of a union
}

type nullness uint8

const (
	nullNever nullness = iota
	nullFirst
	nullSecond
)

type op uint8

const (
	skipVarints op = iota
	skipBytes      // a length and as many bytes
	skipFixed
	skipRecord
	skipUnion
	skipArray
	skipMap

	takeInteger // ruleInteger
	takeText    // ruleText
	takeVarint
	takeBytes
	takeBoolean
	takeFloat
	takeDouble
	takeFixed
	takeEnum
	takeArray
	takeMap

	captureVarint
	captureBytes
	captureRecord // what is captured is inside
)

// malformed is where reading ends that cannot go on.
const malformed = -1

// nullable takes a union of null and one other type apart.
func nullable(t *avroType) (of *avroType, null nullness) {
	if t.kind == avroUnion && len(t.branches) == 2 {
		switch {
		case t.branches[0].kind == avroNull && t.branches[1].kind != avroNull && t.branches[1].kind != avroUnion:
			return t.branches[1], nullFirst
		case t.branches[1].kind == avroNull && t.branches[0].kind != avroNull && t.branches[0].kind != avroUnion:
			return t.branches[0], nullSecond
		}
	}
	return t, nullNever
}

// skip adds steps over one value.
func (p *program) skip(t *avroType) {
	of, null := nullable(t)
	if null == nullNever && of.fixed {
		p.skipFixed(of.min)
		return
	}
	s := step{null: null}
	switch of.kind {
	case avroInt, avroLong, avroEnum:
		s.op, s.n = skipVarints, 1
		if last := len(p.steps) - 1; null == nullNever && last >= 0 && p.steps[last].op == skipVarints && p.steps[last].null == nullNever {
			p.steps[last].n++
			return
		}
	case avroBytes, avroString:
		s.op = skipBytes
	case avroArray:
		s.op, s.inside = skipArray, &inside{of: of.element, skip: skipOf(of.element)}
	case avroMap:
		s.op, s.inside = skipMap, &inside{of: of.element, skip: skipOf(of.element)}
	case avroUnion:
		s.op, s.inside = skipUnion, &inside{}
		for _, branch := range of.branches {
			s.inside.branches = append(s.inside.branches, skipOf(branch))
		}
	default:
		s.op, s.n = skipFixed, of.min
		if !of.fixed {
			s.op, s.inside = skipRecord, &inside{skip: skipOf(of)}
		}
	}
	p.steps = append(p.steps, s)
}

func (p *program) skipFixed(n int) {
	if n == 0 {
		return
	}
	if last := len(p.steps) - 1; last >= 0 && p.steps[last].op == skipFixed && p.steps[last].null == nullNever {
		p.steps[last].n = min(p.steps[last].n+n, sizeMax)
		return
	}
	p.steps = append(p.steps, step{op: skipFixed, n: n})
}

// skipOf is a program that steps over one value of t. Types that many places
// share, and that contain themselves, have one.
func skipOf(t *avroType) *program {
	if t.skip == nil {
		t.skip = &program{}
		if t.kind == avroRecord && !t.fixed {
			for _, f := range t.fields {
				t.skip.skip(f.of)
			}
		} else {
			t.skip.skip(t)
		}
	}
	return t.skip
}

// take adds the step that reads a column into a slot.
func (p *program) take(t *avroType, slot int, c *column) {
	of, null := nullable(t)
	s := step{null: null, slot: int32(slot), column: c}
	switch of.kind {
	case avroInt, avroLong:
		s.op = takeVarint
		if c.rule == ruleInteger && !c.doubtful {
			s.op = takeInteger
		}
	case avroBytes, avroString:
		s.op = takeBytes
		if c.rule == ruleText && !c.doubtful {
			s.op = takeText
		}
	case avroBoolean:
		s.op = takeBoolean
	case avroFloat:
		s.op = takeFloat
	case avroDouble:
		s.op = takeDouble
	case avroFixed:
		s.op, s.n = takeFixed, of.size
	case avroEnum:
		s.op, s.inside = takeEnum, &inside{of: of}
	case avroArray:
		s.op, s.inside = takeArray, &inside{of: of.element, skip: skipOf(of.element), take: &program{}}
		if c.rule == ruleArray {
			s.inside.take.take(of.element, 0, c.element)
		}
	case avroMap:
		s.op, s.inside = takeMap, &inside{of: of.element, skip: skipOf(of.element), take: &program{}}
		s.inside.take.take(of.element, 0, mapValue)
	default:
		// No rule reads it: its value stays missing.
		p.skip(t)
		return
	}
	p.steps = append(p.steps, s)
}

// mapValue is a value of a map of texts.
var mapValue = &column{rule: ruleText, null: change.Null}

// varintEnd has the high bit of each byte of x that ends a varint.
func varintEnd(x uint64) uint64 { return ^x & 0x8080808080808080 }

// uvarint reads an unsigned varint. One of up to eight bytes is taken at once:
// groups of seven bits are moved together, pairs of groups, pairs of those.
func uvarint(b []byte, i int) (u uint64, next int) {
	if len(b)-i < 8 {
		return longUvarint(b, i)
	}
	x := binary.LittleEndian.Uint64(b[i:])
	end := varintEnd(x)
	if end == 0 {
		return longUvarint(b, i)
	}
	x &= end ^ (end - 1)
	x &= 0x7f7f7f7f7f7f7f7f
	x = x&0x007f007f007f007f | x&0x7f007f007f007f00>>1
	x = x&0x00003fff00003fff | x&0x3fff00003fff0000>>2
	return x&0x0fffffff | x>>4&^0x0fffffff, i + bits.TrailingZeros64(end)/8 + 1
}

// longUvarint reads one that is longer, or near the end.
func longUvarint(b []byte, i int) (u uint64, next int) {
	for shift := 0; i < len(b) && shift < 64; shift += 7 {
		c := b[i]
		i++
		if c < 0x80 {
			if shift == 63 && c > 1 {
				break // more than 64 bits
			}
			return u | uint64(c)<<shift, i
		}
		u |= uint64(c&0x7f) << shift
	}
	return 0, malformed
}

// skipVarint steps over a varint. Times are long ones: it looks at eight bytes at
// once for the one that ends it.
func skipVarint(b []byte, i int) (next int) {
	from := i
	if len(b)-i >= 8 {
		if end := varintEnd(binary.LittleEndian.Uint64(b[i:])); end != 0 {
			return i + bits.TrailingZeros64(end)/8 + 1
		}
		i += 8
	}
	for ; i < len(b) && i-from < binary.MaxVarintLen64; i++ {
		if b[i] < 0x80 {
			return i + 1
		}
	}
	return malformed
}

// length reads a length, and returns where as many bytes begin and end.
func length(b []byte, i int) (from, end int) {
	u, i := uvarint(b, i)
	if i < 0 || u&1 != 0 || u>>1 > uint64(len(b)-i) {
		return malformed, malformed
	}
	return i, i + int(u>>1)
}

func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

// isNull reads which of the two types of a union follows. One byte tells most
// times: that is looked at before this is called.
func isNull(b []byte, i int, n nullness) (null bool, next int) {
	u, i := uvarint(b, i)
	if i < 0 || u&^2 != 0 {
		return false, malformed
	}
	return u == 0 == (n == nullFirst), i
}

// run reads what p reads from b[i:], and returns where it ends or malformed.
func (d *Decoder) run(p *program, b []byte, i int, values []change.Value, depth int) int {
	for k := range p.steps {
		s := &p.steps[k]
		if s.null != nullNever {
			var null bool
			if i < len(b) && b[i]&^2 == 0 {
				null = b[i] == 0 == (s.null == nullFirst)
				i++
			} else if null, i = isNull(b, i, s.null); i < 0 {
				return malformed
			}
			if null {
				switch {
				case s.op == captureBytes:
					d.captured[s.slot].n = wasNull
				case s.op >= takeInteger && s.op <= takeMap:
					values[s.slot].State = s.column.null
				}
				continue
			}
		}
		switch s.op {
		case skipVarints:
			for range s.n {
				if i = skipVarint(b, i); i < 0 {
					return malformed
				}
			}
		case skipFixed:
			if s.n > len(b)-i {
				return malformed
			}
			i += s.n
		case skipBytes, takeText, takeBytes, captureBytes:
			// The length: one byte most times.
			var from, end int
			if i < len(b) && b[i]&0x81 == 0 {
				from = i + 1
				if end = from + int(b[i]>>1); end > len(b) {
					return malformed
				}
			} else if from, end = length(b, i); end < 0 {
				return malformed
			}
			i = end
			switch s.op {
			case takeText:
				text := b[from:end:end]
				v := &values[s.slot]
				if len(text) == len(d.placeholder.text) && string(text) == d.placeholder.text {
					v.State = change.Unchanged
					continue
				}
				v.State, v.Text = change.Text, text
			case takeBytes:
				d.set(&values[s.slot], s.column, raw{b: b[from:end:end]})
			case captureBytes:
				d.captured[s.slot] = captured{from: uint32(from), end: uint32(end)}
			}
		case takeInteger, takeVarint, captureVarint:
			u, next := uvarint(b, i)
			if next < 0 {
				return malformed
			}
			i = next
			n := unzigzag(u)
			switch s.op {
			case takeInteger:
				from := len(d.text)
				d.text = appendInteger(d.text, n)
				v := &values[s.slot]
				v.State, v.Text = change.Text, d.text[from:]
			case takeVarint:
				d.set(&values[s.slot], s.column, raw{n: n})
			default:
				d.captured[s.slot].n = n
			}
		default:
			if i = d.runRare(s, b, i, values, depth); i < 0 {
				return malformed
			}
		}
	}
	return i
}

// runRare is one step of the kinds that are not in every message.
func (d *Decoder) runRare(s *step, b []byte, i int, values []change.Value, depth int) int {
	if depth > nestingMax {
		return malformed
	}
	switch s.op {
	case captureRecord, skipRecord:
		return d.run(s.inside.skip, b, i, values, depth+1)
	case skipUnion:
		u, i := uvarint(b, i)
		if i < 0 || u&1 != 0 || u>>1 >= uint64(len(s.inside.branches)) {
			return malformed
		}
		return d.run(s.inside.branches[u>>1], b, i, values, depth+1)
	case skipArray, skipMap:
		return d.skipBlocks(s, b, i, depth)
	case takeBoolean:
		if i >= len(b) {
			return malformed
		}
		n := int64(0)
		if b[i] == 1 {
			n = 1
		}
		d.set(&values[s.slot], s.column, raw{n: n})
		return i + 1
	case takeFloat:
		if len(b)-i < 4 {
			return malformed
		}
		d.set(&values[s.slot], s.column, raw{n: int64(binary.LittleEndian.Uint32(b[i:]))})
		return i + 4
	case takeDouble:
		if len(b)-i < 8 {
			return malformed
		}
		d.set(&values[s.slot], s.column, raw{n: int64(binary.LittleEndian.Uint64(b[i:]))})
		return i + 8
	case takeFixed:
		if s.n > len(b)-i {
			return malformed
		}
		d.set(&values[s.slot], s.column, raw{b: b[i : i+s.n : i+s.n]})
		return i + s.n
	case takeEnum:
		symbols := s.inside.of.symbols
		u, i := uvarint(b, i)
		if i < 0 || u&1 != 0 || u>>1 >= uint64(len(symbols)) {
			return malformed
		}
		from := len(d.text)
		d.text = append(d.text, symbols[u>>1]...)
		d.set(&values[s.slot], s.column, raw{b: d.text[from:]})
		return i
	case takeArray:
		return d.takeArray(s, b, i, &values[s.slot], depth)
	case takeMap:
		return d.takeMap(s, b, i, &values[s.slot], depth)
	}
	panic("a step of an unknown kind")
}

// block reads the count at the beginning of a block of an array or map. A block
// that says its size can be stepped over.
func block(b []byte, i int) (count uint64, size, next int) {
	u, i := uvarint(b, i)
	if i < 0 {
		return 0, 0, malformed
	}
	n := unzigzag(u)
	if n >= 0 {
		return uint64(n), malformed, i
	}
	from, end := length(b, i)
	if end < 0 {
		return 0, 0, malformed
	}
	return uint64(-n), end - from, from
}

// skipBlocks steps over an array or map.
func (d *Decoder) skipBlocks(s *step, b []byte, i, depth int) int {
	for {
		count, size, next := block(b, i)
		switch {
		case next < 0:
			return malformed
		case count == 0:
			return next
		case size >= 0:
			i = next + size
			continue
		}
		i = next
		element := s.inside.of
		if s.op == skipArray && element.fixed {
			if element.min > 0 && count > uint64((len(b)-i)/element.min) {
				return malformed
			}
			i += int(count) * element.min
			continue
		}
		// An element takes a byte at least, so the count is no more than there is.
		if count > uint64(len(b)-i) {
			return malformed
		}
		for range count {
			if s.op == skipMap {
				if _, i = length(b, i); i < 0 {
					return malformed
				}
			}
			if i = d.run(s.inside.skip, b, i, nil, depth+1); i < 0 {
				return malformed
			}
		}
	}
}
