package value

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
)

// appendString appends s as a JSON string, as PostgreSQL's escape_json does:
// no slash, no DEL and nothing beyond ASCII is escaped.
func appendString(dst, s []byte) []byte {
	dst = append(dst, '"')
	for {
		n := clean(s)
		dst = append(dst, s[:n]...)
		if n == len(s) {
			return append(dst, '"')
		}
		switch c := s[n]; c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\f':
			dst = append(dst, '\\', 'f')
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			const digits = "0123456789abcdef"
			dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		}
		s = s[n+1:]
	}
}

// clean returns how many bytes at the beginning of s need no escape. It looks
// at eight at a time: in each byte of dirty the high bit is set if the byte is
// below 0x20, a quote or a backslash. A borrow can set it wrongly, but only
// above one that is set rightly.
func clean(s []byte) int {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	n := 0
	for ; n+8 <= len(s); n += 8 {
		x := binary.LittleEndian.Uint64(s[n:])
		quote, backslash := x^'"'*ones, x^'\\'*ones
		if dirty := ((x - ' '*ones) | (quote - ones) | (backslash - ones)) &^ x & high; dirty != 0 {
			return n + bits.TrailingZeros64(dirty)/8
		}
	}
	for ; n < len(s); n++ {
		if c := s[n]; c < ' ' || c == '"' || c == '\\' {
			return n
		}
	}
	return n
}

// unescape appends the text that json means, of which PostgreSQL has checked
// the syntax: a string without quotes and escapes, all else as it is, without
// the space around it. It is not ok where PostgreSQL would fail: an escape that
// is no character can be stored as json and cannot be converted to text.
func unescape(dst, json []byte) (out []byte, ok bool) {
	json = bytes.Trim(json, " \t\n\r")
	isString := len(json) >= 2 && json[0] == '"' && json[len(json)-1] == '"'
	if !isString {
		return append(dst, json...), convertible(json)
	}
	for json = json[1 : len(json)-1]; ; {
		n := bytes.IndexByte(json, '\\')
		if n < 0 {
			return append(dst, json...), true
		}
		dst = append(dst, json[:n]...)
		r, size := escaped(json[n:])
		if size == 0 {
			return dst, false
		}
		dst = utf8.AppendRune(dst, r)
		json = json[n+size:]
	}
}

// convertible reports whether every escape in json is a character.
func convertible(json []byte) bool {
	for {
		n := bytes.IndexByte(json, '\\')
		if n < 0 {
			return true
		}
		_, size := escaped(json[n:])
		if size == 0 {
			return false
		}
		json = json[n+size:]
	}
}

// escaped reads the escape at the beginning of s. The size is zero if it is no
// character: \u0000, and half of a surrogate pair.
func escaped(s []byte) (r rune, size int) {
	if len(s) < 2 {
		return 0, 0
	}
	switch s[1] {
	case '"', '\\', '/':
		return rune(s[1]), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	}
	r = unit(s)
	switch {
	case r <= 0:
		return 0, 0
	case !utf16.IsSurrogate(r):
		return r, 6
	}
	if r = utf16.DecodeRune(r, unit(s[6:])); r == utf8.RuneError {
		return 0, 0
	}
	return r, 12
}

// unit reads \uXXXX at the beginning of s, or returns -1.
func unit(s []byte) rune {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return -1
	}
	var r rune
	for _, c := range s[2:6] {
		switch {
		case '0' <= c && c <= '9':
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
