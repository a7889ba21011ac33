package debezium

import (
	"bytes"
	"encoding/binary"
	"math"
	"strconv"
	"testing"

	"pgregory.net/rapid"
)

// Integers are written and read in ways of our own, for speed: as others do it.
func TestIntegersAreWrittenAndReadAsByOthers(t *testing.T) {
	check := func(t interface{ Fatalf(string, ...any) }, n int64, behind []byte) {
		if got, want := string(appendInteger([]byte("x"), n)), "x"+strconv.FormatInt(n, 10); got != want {
			t.Fatalf("%d: wrote %s", n, got)
		}
		u := uint64(n)
		digits := strconv.AppendUint(nil, u, 10)
		if got, next := leadingDigits(append(digits, '"'), 0); got != u || next != len(digits) {
			t.Fatalf("%d: read %d up to %d", u, got, next)
		}
		b := append(binary.AppendUvarint([]byte{0xff}, u), behind...)
		want, size := binary.Uvarint(b[1:])
		if got, next := uvarint(b, 1); got != want || next != 1+size {
			t.Fatalf("%x: read %d up to %d, want %d up to %d", b, got, next, want, 1+size)
		}
		if next := skipVarint(b, 1); next != 1+size {
			t.Fatalf("%x: skipped to %d, want %d", b, next, 1+size)
		}
		for cut := 1; cut < size; cut++ {
			if _, next := uvarint(b[:1+cut], 1); next != malformed || skipVarint(b[:1+cut], 1) != malformed {
				t.Fatalf("%x: read what is cut short", b[:1+cut])
			}
		}
	}
	for power := int64(1); power > 0 && power < math.MaxInt64/10; power *= 10 {
		for _, n := range []int64{power - 1, power, power + 1, -power} {
			check(t, n, nil)
		}
	}
	for shift := range 64 {
		check(t, 1<<shift, bytes.Repeat([]byte{0x81}, 9))
		check(t, 1<<shift-1, bytes.Repeat([]byte{0x01}, 9))
	}
	rapid.Check(t, func(t *rapid.T) {
		check(t, rapid.Int64().Draw(t, "n")>>rapid.IntRange(0, 63).Draw(t, "shift"), rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(t, "behind"))
	})
	if _, next := uvarint(bytes.Repeat([]byte{0xff}, 20), 0); next != malformed || skipVarint(bytes.Repeat([]byte{0xff}, 20), 0) != malformed {
		t.Error("a varint without an end was read")
	}
}
