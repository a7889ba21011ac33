package debezium

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
)

// A scanner steps through JSON. It finds the bounds of values and checks no more
// of their syntax than that takes.
type scanner struct {
	b []byte
	i int
}

// A token is one value: text of a string without its quotes, all else whole.
type token struct {
	kind    tokenKind
	escaped bool // a string that has escapes
	from    int  // where the text begins
	text    []byte
}

type tokenKind uint8

const (
	tokenNone tokenKind = iota // malformed
	tokenString
	tokenNumber
	tokenTrue
	tokenFalse
	tokenNull
	tokenObject
	tokenArray
)

// jsonDepthMax is how deep objects and arrays may be inside each other.
const jsonDepthMax = 512

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

// open steps over the beginning of an object or array, and reports whether
// there is something in it.
func (s *scanner) open(bracket, end byte) (some, ok bool) {
	s.space()
	if s.i >= len(s.b) || s.b[s.i] != bracket {
		return false, false
	}
	s.i++
	s.space()
	if s.i < len(s.b) && s.b[s.i] == end {
		s.i++
		return false, true
	}
	return true, true
}

// more steps over what is between two members or elements, and reports whether
// there is another.
func (s *scanner) more(end byte) (more, ok bool) {
	s.space()
	if s.i >= len(s.b) {
		return false, false
	}
	c := s.b[s.i]
	s.i++
	return c == ',', c == ',' || c == end
}

// name reads the name of a member, and steps over the colon behind it.
func (s *scanner) name() (t token) {
	s.space()
	if s.i >= len(s.b) || s.b[s.i] != '"' {
		return token{}
	}
	if t = s.string(); t.kind == tokenNone {
		return t
	}
	s.space()
	if s.i >= len(s.b) || s.b[s.i] != ':' {
		return token{}
	}
	s.i++
	return t
}

// value reads the next value.
func (s *scanner) value() token {
	s.space()
	if s.i >= len(s.b) {
		return token{}
	}
	from := s.i
	switch c := s.b[s.i]; c {
	case '"':
		return s.string()
	case '{', '[':
		if !s.skipNested() {
			return token{}
		}
		kind := tokenObject
		if c == '[' {
			kind = tokenArray
		}
		return token{kind: kind, from: from, text: s.b[from:s.i:s.i]}
	case 't':
		return s.word("true", tokenTrue)
	case 'f':
		return s.word("false", tokenFalse)
	case 'n':
		return s.word("null", tokenNull)
	}
	for s.i < len(s.b) && inNumber[s.b[s.i]] {
		s.i++
	}
	if s.i == from {
		return token{}
	}
	return token{kind: tokenNumber, text: s.b[from:s.i:s.i]}
}

// inNumber are the characters of numbers.
var inNumber = [256]bool{'-': true, '+': true, '.': true, 'e': true, 'E': true, '0': true, '1': true, '2': true, '3': true, '4': true, '5': true, '6': true, '7': true, '8': true, '9': true}

func (s *scanner) word(word string, kind tokenKind) token {
	if len(s.b)-s.i < len(word) || string(s.b[s.i:s.i+len(word)]) != word {
		return token{}
	}
	s.i += len(word)
	return token{kind: kind}
}

// string reads the string that begins here.
func (s *scanner) string() token {
	from := s.i + 1
	i, escaped := from+plain(s.b[from:]), false
	for i < len(s.b) && s.b[i] == '\\' {
		escaped = true
		if i += 2; i > len(s.b) {
			return token{}
		}
		i += plain(s.b[i:])
	}
	if i >= len(s.b) {
		return token{}
	}
	s.i = i + 1
	return token{kind: tokenString, escaped: escaped, from: from, text: s.b[from:i:i]}
}

// plain returns how many bytes b begins with that are neither a quote nor a
// backslash. It looks at eight at a time: in each byte of found the high bit is
// set if the byte is one of the two. A borrow can set it wrongly, but only above
// one that is set rightly.
func plain(b []byte) int {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	n := 0
	for ; n+8 <= len(b); n += 8 {
		x := binary.LittleEndian.Uint64(b[n:])
		quote, backslash := x^'"'*ones, x^'\\'*ones
		if found := ((quote-ones)&^quote | (backslash-ones)&^backslash) & high; found != 0 {
			return n + bits.TrailingZeros64(found)/8
		}
	}
	for n < len(b) && b[n] != '"' && b[n] != '\\' {
		n++
	}
	return n
}

// skipNested steps over an object or array.
func (s *scanner) skipNested() bool {
	depth := 0
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case '"':
			if s.string().kind == tokenNone {
				return false
			}
			continue
		case '{', '[':
			if depth++; depth > jsonDepthMax {
				return false
			}
		case '}', ']':
			if depth--; depth == 0 {
				s.i++
				return true
			}
		}
		s.i++
	}
	return false
}

// end reports whether nothing is left.
func (s *scanner) end() bool {
	s.space()
	return s.i == len(s.b)
}

// unescape appends what a string means. It is not ok where an escape is no
// character.
func unescape(dst, s []byte) (out []byte, ok bool) {
	for {
		n := bytes.IndexByte(s, '\\')
		if n < 0 {
			return append(dst, s...), true
		}
		dst = append(dst, s[:n]...)
		if s = s[n+1:]; len(s) == 0 {
			return dst, false
		}
		c := s[0]
		s = s[1:]
		switch c {
		case '"', '\\', '/':
			dst = append(dst, c)
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r := unit(s)
			if r < 0 {
				return dst, false
			}
			s = s[4:]
			if utf16.IsSurrogate(r) {
				if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
					return dst, false
				}
				if r = utf16.DecodeRune(r, unit(s[2:])); r == utf8.RuneError {
					return dst, false
				}
				s = s[6:]
			}
			dst = utf8.AppendRune(dst, r)
		default:
			return dst, false
		}
	}
}

// unit reads four hex digits, or returns -1.
func unit(s []byte) (r rune) {
	if len(s) < 4 {
		return -1
	}
	for _, c := range s[:4] {
		switch {
		case isDigit(c):
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}
