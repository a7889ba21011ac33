package debezium

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// appendInteger appends n in decimal. strconv writes the digits elsewhere and
// moves them; that is a third of its time, and nothing is done more often here.
func appendInteger(dst []byte, n int64) []byte {
	u := uint64(n)
	if n < 0 {
		dst, u = append(dst, '-'), -u
	}
	digits := decimalDigits(u)
	from := len(dst)
	dst = slices.Grow(dst, digits)[:from+digits]
	for i := len(dst); ; {
		if u < 10 {
			dst[i-1] = '0' + byte(u)
			return dst
		}
		pair := u % 100 * 2
		u /= 100
		i -= 2
		dst[i+1], dst[i] = pairsOfDigits[pair+1], pairsOfDigits[pair]
		if u == 0 {
			return dst
		}
	}
}

const pairsOfDigits = "0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849" +
	"5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899"

// decimalDigits is how many digits u has. 1233/4096 is near log10(2).
func decimalDigits(u uint64) int {
	digits := bits.Len64(u|1) * 1233 >> 12
	if u >= powersOfTen[digits] {
		digits++
	}
	return max(digits, 1)
}

var powersOfTen = [20]uint64{
	0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19,
}

// leadingDigits reads the digits at b[i:], and returns where they end.
func leadingDigits(b []byte, i int) (n uint64, next int) {
	for len(b)-i >= 8 {
		eight, ok := eightDigits(binary.LittleEndian.Uint64(b[i:]))
		if !ok {
			break
		}
		n, i = n*100_000_000+eight, i+8
	}
	for i < len(b) && isDigit(b[i]) {
		n, i = n*10+uint64(b[i]-'0'), i+1
	}
	return n, i
}

// eightDigits reads eight digits, of which the first is the lowest byte: it adds
// neighbours, pairs of them, and pairs of those.
func eightDigits(x uint64) (n uint64, ok bool) {
	const high, zeros, sixes = 0xf0f0f0f0f0f0f0f0, 0x3030303030303030, 0x0606060606060606
	if x&high != zeros || (x+sixes)&high != zeros {
		return 0, false
	}
	x -= zeros
	x = x*10 + x>>8
	x = (x&0x000000ff000000ff*(100+1_000_000<<32) + x>>16&0x000000ff000000ff*(1+10_000<<32)) >> 32
	return x, true
}
