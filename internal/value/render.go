package value

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/unstale/unstale/internal/change"
)

// Why a row is incomplete.
const (
	reasonPart        = "the log has only a part of the row"
	reasonMissing     = "the log does not have a column of the row"
	reasonLong        = "a value is longer than what is read of one"
	reasonUnchanged   = "the log does not have a long value that the update did not touch"
	reasonMalformed   = "a value is not written as its type is"
	reasonUnspeakable = "a json value has an escape that is no character"
)

// A Program renders the rows of one relation. It is for one goroutine at a
// time.
type Program struct {
	columns []int // indexes into the relation's columns, one a step
	steps   []step
	// scratch is a stack of unquoted elements of arrays and composites.
	scratch []byte
	// strict: json inside of other values must be convertible to text.
	strict bool
}

type step struct {
	value  int    // index into the row's values
	prefix []byte // "a": or ,"b":
	name   []byte // behind its length
	column string
	node   *node
}

// scratchKept is how much of a long row's scratch a Program keeps for the next.
const scratchKept = 1 << 20

// Bind says where the columns that p reads stand in a row: wanted is the
// relation's Wanted, which has all of them. Until then a row has them and no
// others.
func (p *Program) Bind(wanted []int) {
	for i, column := range p.columns {
		place, ok := slices.BinarySearch(wanted, column)
		if !ok {
			panic(fmt.Sprintf("column %d is not among those that are read: %d", column, wanted))
		}
		p.steps[i].value = place
	}
}

// AppendJSON appends row_to_json of the row to dst. If reason is not empty the
// row is incomplete, and out holds what dst held.
func (p *Program) AppendJSON(dst []byte, row *change.Row) (out []byte, reason string) {
	if row.Kind != change.Whole {
		return dst, reasonPart
	}
	p.begin(false)
	out = append(dst, '{')
	for i := range p.steps {
		s := &p.steps[i]
		out = append(out, s.prefix...)
		text, null, reason := s.text(row)
		switch {
		case reason != "":
			return out[:len(dst)], s.of(reason)
		case null:
			out = append(out, "null"...)
		default:
			if out, reason = p.json(out, s.node, text); reason != "" {
				return out[:len(dst)], s.of(reason)
			}
		}
	}
	return append(out, '}'), ""
}

// AppendFields appends the row as the fields of a hash: name and value, each
// behind its length, of every column that is not NULL. A value is what
// json_each_text(row_to_json(t)) has: a string without quotes, all else as the
// JSON has it, and nothing for a null inside of json. If reason is not empty
// the row is incomplete, and out holds what dst held.
func (p *Program) AppendFields(dst []byte, row *change.Row) (out []byte, reason string) {
	if row.Kind != change.Whole {
		return dst, reasonPart
	}
	p.begin(true)
	out = dst
	for i := range p.steps {
		s := &p.steps[i]
		text, null, reason := s.text(row)
		if reason != "" {
			return out[:len(dst)], s.of(reason)
		}
		if null || s.node.kind == asJSON && string(bytes.Trim(text, " \t\n\r")) == "null" {
			continue
		}
		// Nearly every length fits into the one byte that is left for it.
		out = append(append(out, s.name...), 0)
		at := len(out)
		if out, reason = p.plain(out, s.node, text); reason != "" {
			return out[:len(dst)], s.of(reason)
		}
		var length [binary.MaxVarintLen64]byte
		size := binary.PutUvarint(length[:], uint64(len(out)-at))
		out[at-1] = length[0]
		if size > 1 {
			out = slices.Insert(out, at, length[1:size]...)
		}
	}
	return out, ""
}

func (p *Program) begin(strict bool) {
	p.strict = strict
	p.scratch = p.scratch[:0]
	if cap(p.scratch) > scratchKept {
		p.scratch = nil
	}
}

// of names the column of a reason that is seldom one, and a person's to mend.
// What ordinary rows give all the time costs nothing.
func (s *step) of(reason string) string {
	switch reason {
	case reasonMissing, reasonMalformed:
		return fmt.Sprintf("%s: %q", reason, s.column)
	}
	return reason
}

func (s *step) text(row *change.Row) (text []byte, null bool, reason string) {
	if s.value >= len(row.Values) {
		return nil, false, reasonMissing
	}
	switch v := &row.Values[s.value]; v.State {
	case change.Text:
		return v.Text, false, ""
	case change.Null:
		return nil, true, ""
	case change.Unchanged:
		return nil, false, reasonUnchanged
	case change.Long:
		return nil, false, reasonLong
	}
	return nil, false, reasonMissing
}

// json appends the JSON of a value that is not NULL.
func (p *Program) json(dst []byte, n *node, s []byte) (out []byte, reason string) {
	switch n.kind {
	case asString:
		return appendString(dst, s), ""
	case asNumber:
		if isSpecial(s) {
			return appendString(dst, s), ""
		}
	case asTimestamp, asTimestamptz:
		out, reason = p.plain(append(dst, '"'), n, s)
		return append(out, '"'), reason
	case asJSON:
		if p.strict && !convertible(s) {
			return dst, reasonUnspeakable
		}
		return append(dst, s...), ""
	}
	return p.plain(dst, n, s)
}

// plain appends a value that is not NULL as json_each_text has it.
func (p *Program) plain(dst []byte, n *node, s []byte) (out []byte, reason string) {
	ok := true
	switch n.kind {
	case asString:
		return append(dst, s...), ""
	case asNumber:
		if !isNumber(s) && !isSpecial(s) {
			return dst, reasonMalformed
		}
		return append(dst, s...), ""
	case asBoolean:
		switch string(s) {
		case "t":
			return append(dst, "true"...), ""
		case "f":
			return append(dst, "false"...), ""
		}
		return dst, reasonMalformed
	case asTimestamp, asTimestamptz:
		if out, ok = appendTimestamp(dst, s, n.kind == asTimestamptz); !ok {
			return dst, reasonMalformed
		}
		return out, ""
	case asJSON:
		if out, ok = unescape(dst, s); !ok {
			return dst, reasonUnspeakable
		}
		return out, ""
	case asArray:
		return p.array(dst, n, s)
	case asVector:
		return p.vector(dst, n, s)
	case asObject:
		return p.composite(dst, n, s)
	case asHstore:
		return p.hstore(dst, s)
	}
	panic(fmt.Sprintf("kind %d", n.kind))
}

// appendTimestamp appends 2024-02-29 12:00:00.5+00 BC as
// 2024-02-29T12:00:00.5+00:00 BC.
func appendTimestamp(dst, s []byte, zoned bool) (out []byte, ok bool) {
	if string(s) == "infinity" || string(s) == "-infinity" {
		return append(dst, s...), true
	}
	year := digits(s)
	if year < 4 || !matches(s[year:], "-00-00 00:00:00") {
		return dst, false
	}
	const date, clock = len("-00-00"), len("-00-00 00:00:00")
	end := year + clock
	if end < len(s) && s[end] == '.' {
		end += 1 + digits(s[end+1:])
	}
	dst = append(dst, s[:year+date]...)
	dst = append(dst, 'T')
	dst = append(dst, s[year+date+1:end]...)
	era := s[end:]
	if zoned {
		if era, ok = bytes.CutPrefix(era, []byte("+00")); !ok {
			return dst, false
		}
		dst = append(dst, "+00:00"...)
	}
	return append(dst, era...), len(era) == 0 || string(era) == " BC"
}

// isSpecial reports whether s is one of the numbers that JSON does not have.
func isSpecial(s []byte) bool {
	return string(s) == "NaN" || string(s) == "Infinity" || string(s) == "-Infinity"
}

// isNumber reports whether s is a number as JSON has it.
func isNumber(s []byte) bool {
	if len(s) > 0 && s[0] == '-' {
		s = s[1:]
	}
	n := digits(s)
	if n == 0 || n > 1 && s[0] == '0' {
		return false
	}
	s = s[n:]
	if len(s) > 0 && s[0] == '.' {
		if n = digits(s[1:]); n == 0 {
			return false
		}
		s = s[1+n:]
	}
	if len(s) > 0 && s[0]|0x20 == 'e' {
		s = s[1:]
		if len(s) > 0 && (s[0] == '+' || s[0] == '-') {
			s = s[1:]
		}
		if n = digits(s); n == 0 {
			return false
		}
		s = s[n:]
	}
	return len(s) == 0
}

// digits returns how many digits s begins with.
func digits(s []byte) int {
	n := 0
	for n < len(s) && isDigit(s[n]) {
		n++
	}
	return n
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// matches reports whether s begins with the pattern, in which 0 is any digit.
func matches(s []byte, pattern string) bool {
	if len(s) < len(pattern) {
		return false
	}
	for i := range len(pattern) {
		if pattern[i] == '0' && !isDigit(s[i]) || pattern[i] != '0' && pattern[i] != s[i] {
			return false
		}
	}
	return true
}
