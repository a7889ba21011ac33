package debezium

import (
	"encoding/binary"
	"strconv"

	"github.com/unstale/unstale/internal/change"
)

// A program reads one record of one schema: it jumps to what is wanted.
type program struct{ steps []step }

// A step of a program.
type step struct {
	op op
	// null says where null stands in a union with what the step reads.
	null nullness
	slot int // of the value, or what is captured
	n    int // how many to step over; the size of a fixed
	// column says how to make the text.
	column *column
	sub    *program   // skips a record, or an element
	alts   []*program // of a union
	of     *avroType
	// elements takes an element of an array or the value of a map.
	elements *program
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
	s := step{null: null, of: of}
	switch of.kind {
	case avroInt, avroLong, avroEnum:
		s.op, s.n = skipVarints, 1
		if last := len(p.steps) - 1; null == nullNever && last >= 0 && p.steps[last].op == skipVarints && p.steps[last].null == nullNever {
			p.steps[last].n++
			return
		}
	case avroBytes, avroString:
		s.op = skipBytes
	case avroArray, avroMap:
		s.op, s.sub = skipArray, skipOf(of.element)
		if of.kind == avroMap {
			s.op = skipMap
		}
	case avroUnion:
		s.op = skipUnion
		for _, branch := range of.branches {
			s.alts = append(s.alts, skipOf(branch))
		}
	default:
		s.op, s.n = skipFixed, of.min
		if !of.fixed {
			s.op, s.sub = skipRecord, skipOf(of)
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
	s := step{null: null, slot: slot, column: c, of: of}
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
		s.op = takeEnum
	case avroArray:
		s.op, s.sub, s.elements = takeArray, skipOf(of.element), &program{}
		if c.rule == ruleArray {
			s.elements.take(of.element, 0, c.element)
		}
	case avroMap:
		s.op, s.sub, s.elements = takeMap, skipOf(of.element), &program{}
		s.elements.take(of.element, 0, mapValue)
	default:
		// No rule reads it: its value stays missing.
		p.skip(t)
		return
	}
	p.steps = append(p.steps, s)
}

// mapValue is a value of a map of texts.
var mapValue = &column{rule: ruleText, null: change.Null}

// uvarint reads an unsigned varint.
func uvarint(b []byte, i int) (u uint64, next int) {
	if i > len(b) {
		return 0, malformed
	}
	u, n := binary.Uvarint(b[i:])
	if n <= 0 {
		return 0, malformed
	}
	return u, i + n
}

// length reads a length and returns where as many bytes end.
func length(b []byte, i int) (from, end int) {
	var u uint64
	if i < len(b) && b[i] < 0x80 {
		u = uint64(b[i])
		i++
	} else if u, i = uvarint(b, i); i < 0 {
		return malformed, malformed
	}
	if u&1 != 0 || u>>1 > uint64(len(b)-i) {
		return malformed, malformed
	}
	return i, i + int(u>>1)
}

func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

// run reads what p reads from b[i:], and returns where it ends or malformed.
func (d *Decoder) run(p *program, b []byte, i int, values []change.Value, depth int) int {
	for k := range p.steps {
		s := &p.steps[k]
		var u uint64
		if s.null != nullNever {
			if i >= len(b) {
				return malformed
			}
			if u = uint64(b[i]); u < 0x80 {
				i++
			} else if u, i = uvarint(b, i); i < 0 {
				return malformed
			}
			if u > 2 || u == 1 {
				return malformed
			}
			if (u == 0) == (s.null == nullFirst) {
				if s.op >= takeInteger && s.op <= takeMap {
					values[s.slot].State = s.column.null
				}
				continue
			}
		}
		switch s.op {
		case skipVarints:
			for range s.n {
				from := i
				for i < len(b) && b[i] >= 0x80 {
					i++
				}
				if i >= len(b) || i-from >= binary.MaxVarintLen64 {
					return malformed
				}
				i++
			}
		case skipBytes:
			if _, i = length(b, i); i < 0 {
				return malformed
			}
		case skipFixed:
			if s.n > len(b)-i {
				return malformed
			}
			i += s.n
		case takeInteger, takeVarint, captureVarint:
			if i < len(b) && b[i] < 0x80 {
				u = uint64(b[i])
				i++
			} else if i >= len(b) {
				return malformed
			} else if u, i = uvarint(b, i); i < 0 {
				return malformed
			}
			switch s.op {
			case takeInteger:
				v := &values[s.slot]
				from := len(d.text)
				d.text = strconv.AppendInt(d.text, unzigzag(u), 10)
				v.State, v.Text = change.Text, d.text[from:]
			case takeVarint:
				d.set(&values[s.slot], s.column, raw{n: unzigzag(u)})
			default:
				d.captured[s.slot] = captured{n: unzigzag(u)}
			}
		case takeText, takeBytes, captureBytes:
			from, end := length(b, i)
			if end < 0 {
				return malformed
			}
			i = end
			switch text := b[from:end:end]; s.op {
			case takeText:
				v := &values[s.slot]
				v.State, v.Text = change.Text, text
				if len(text) == len(d.placeholder.text) && string(text) == d.placeholder.text {
					v.State, v.Text = change.Unchanged, nil
				}
			case takeBytes:
				d.set(&values[s.slot], s.column, raw{b: text})
			default:
				d.captured[s.slot] = captured{b: text}
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
		return d.run(s.sub, b, i, values, depth+1)
	case skipUnion:
		if i >= len(b) {
			return malformed
		}
		u, i := uvarint(b, i)
		if i < 0 || u&1 != 0 || u>>1 >= uint64(len(s.alts)) {
			return malformed
		}
		return d.run(s.alts[u>>1], b, i, values, depth+1)
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
		if i >= len(b) {
			return malformed
		}
		u, i := uvarint(b, i)
		if i < 0 || u&1 != 0 || u>>1 >= uint64(len(s.of.symbols)) {
			return malformed
		}
		from := len(d.text)
		d.text = append(d.text, s.of.symbols[u>>1]...)
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
	if i >= len(b) {
		return 0, 0, malformed
	}
	u, i := uvarint(b, i)
	if i < 0 {
		return 0, 0, malformed
	}
	n := unzigzag(u)
	if n >= 0 {
		return uint64(n), malformed, i
	}
	if i >= len(b) {
		return 0, 0, malformed
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
		element := s.of.element
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
			if i = d.run(s.sub, b, i, nil, depth+1); i < 0 {
				return malformed
			}
		}
	}
}
