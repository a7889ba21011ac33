package debezium

import (
	"bytes"
	"math"
	"math/bits"
	"strconv"
)

// appendFloat appends a number as float4out and float8out print it, with size
// bits: the fewest digits that are nearer to it than to any other number, and an
// exponent from 1e+06 or 1e+15 on and below 0.0001.
func appendFloat(dst []byte, f float64, size int) []byte {
	switch {
	case math.IsNaN(f):
		return append(dst, "NaN"...)
	case math.IsInf(f, 1):
		return append(dst, "Infinity"...)
	case math.IsInf(f, -1):
		return append(dst, "-Infinity"...)
	case f == 0:
		if math.Signbit(f) {
			dst = append(dst, '-')
		}
		return append(dst, '0')
	}
	from := len(dst)
	dst = strconv.AppendFloat(dst, f, 'e', -1, size)
	if text := dst[from:]; isHalfway(text, size) {
		dst = append(dst[:from], strict(f, size)...)
	}
	digits, exponent := scientific(dst[from:])
	fixedBelow := 15
	if size == 32 {
		fixedBelow = 6
	}
	if exponent < -4 || exponent >= fixedBelow {
		return dst
	}
	return strconv.AppendFloat(dst[:from], parse(dst[from:], size), 'f', max(digits-1-exponent, 0), size)
}

// scientific says how many digits are in d.ddde±dd, and what its exponent is.
func scientific(text []byte) (digits, exponent int) {
	e := bytes.IndexByte(text, 'e')
	for _, c := range text[:e] {
		if isDigit(c) {
			digits++
		}
	}
	exponent, _ = strconv.Atoi(string(text[e+1:])) // as strconv wrote it
	return digits, exponent
}

func parse(text []byte, size int) float64 {
	f, err := strconv.ParseFloat(string(text), size)
	if err != nil {
		return math.NaN()
	}
	return f
}

// isHalfway reports whether a number, written as d.ddde±dd, lies exactly between
// two that have size bits. strconv takes it for the even one of the two;
// PostgreSQL prints a digit more, since not everybody who reads it rounds so.
func isHalfway(text []byte, size int) bool {
	precision := 53
	if size == 32 {
		precision = 24
	}
	e := bytes.IndexByte(text, 'e')
	var whole uint64
	digits := 0
	for _, c := range text[:e] {
		if isDigit(c) {
			whole = whole*10 + uint64(c-'0')
			digits++
		}
	}
	exponent, _ := strconv.Atoi(string(text[e+1:]))
	exponent -= digits - 1
	for whole != 0 && whole%10 == 0 {
		whole /= 10
		exponent++
	}
	// It is whole times a power of ten: of five, as far as it matters.
	for ; exponent < 0; exponent++ {
		if whole%5 != 0 {
			return false
		}
		whole /= 5
	}
	for ; exponent > 0; exponent-- {
		high, low := bits.Mul64(whole, 5)
		if high != 0 {
			return false
		}
		whole = low
	}
	return whole != 0 && bits.Len64(whole>>bits.TrailingZeros64(whole)) == precision+1
}

// strict is the shortest number that is read as f however one rounds.
func strict(f float64, size int) []byte {
	var text []byte
	for digits := 0; digits <= 17; digits++ {
		text = strconv.AppendFloat(text[:0], f, 'e', digits, size)
		for _, candidate := range [][]byte{text, next(text, 1), next(text, -1)} {
			if candidate != nil && parse(candidate, size) == f && !isHalfway(candidate, size) {
				return candidate
			}
		}
	}
	return text
}

// next is text with its last digit one more or less, nil if there is no such.
func next(text []byte, by int) []byte {
	text = bytes.Clone(text)
	last := bytes.IndexByte(text, 'e') - 1
	digit := int(text[last]) + by
	if digit < '0' || digit > '9' {
		return nil
	}
	text[last] = byte(digit)
	return text
}
