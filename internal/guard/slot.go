package guard

import (
	"strconv"
	"strings"
	"sync"
)

// Slots is the number of hash slots of a Redis Cluster.
const Slots = 16384

// SlotKey returns the part of key that Redis hashes: what stands between the
// first '{' and the first '}' behind it, if that is not empty; else all of key.
// (Redis Cluster specification, "Hash tags".)
func SlotKey(key string) string {
	open := strings.IndexByte(key, '{')
	if open < 0 {
		return key
	}
	length := strings.IndexByte(key[open+1:], '}')
	if length <= 0 {
		return key
	}
	return key[open+1 : open+1+length]
}

// Slot returns the hash slot of key.
func Slot(key string) uint16 { return crc16(SlotKey(key)) % Slots }

// AppendSideKey appends to dst the name of the side key of key: a key of the
// same slot that holds the lease while a load runs. It is "{key}:l", or
// "{tag}:l:key" where key has a hash tag.
//
// ok is false, and dst is unchanged, for a key whose slot no other name can
// share: one with a '}' but without a tag ("a}b"), or with an empty tag
// ("{}x"). Such a key can be dropped but never filled.
func AppendSideKey(dst []byte, key string) (side []byte, ok bool) {
	slotKey := SlotKey(key)
	if len(slotKey) == len(key) {
		// The whole key becomes the tag of its side key, so it must hold no
		// '}', and an empty tag is none.
		if key == "" || strings.IndexByte(key, '}') >= 0 {
			return dst, false
		}
		dst = append(dst, '{')
		dst = append(dst, key...)
		return append(dst, "}:l"...), true
	}
	dst = append(dst, '{')
	dst = append(dst, slotKey...)
	dst = append(dst, "}:l:"...)
	return append(dst, key...), true
}

// SideKey is AppendSideKey for a single key.
func SideKey(key string) (side string, ok bool) {
	b, ok := AppendSideKey(nil, key)
	return string(b), ok
}

// DataKey returns the data key whose side key is named side; ok is false if
// side is not the name of a side key.
func DataKey(side string) (key string, ok bool) {
	if side == "" || side[0] != '{' {
		return "", false
	}
	end := strings.IndexByte(side, '}')
	if end < 0 {
		return "", false
	}
	slotKey, rest := side[1:end], side[end+1:]
	switch {
	case rest == ":l":
		key = slotKey
	case strings.HasPrefix(rest, ":l:"):
		key = rest[len(":l:"):]
	default:
		return "", false
	}
	want, ok := SideKey(key)
	return key, ok && want == side
}

// tags holds, for each slot, the shortest text of lower-case letters and digits
// that hashes to it: the fixed tag that puts a watermark on the master that
// owns the slot.
var tags = sync.OnceValue(func() *[Slots]string {
	var table [Slots]string
	for i, found := 0, 0; found < Slots; i++ {
		text := strconv.FormatInt(int64(i), 36)
		if slot := crc16(text) % Slots; table[slot] == "" {
			table[slot] = text
			found++
		}
	}
	return &table
})

// Tag returns the fixed tag of a slot.
func Tag(slot uint16) string { return tags()[slot] }

// crc16 is CRC-16/XMODEM, as Redis Cluster uses it.
func crc16(text string) uint16 {
	var crc uint16
	for i := range len(text) {
		crc = crc<<8 ^ crcOfByte[byte(crc>>8)^text[i]]
	}
	return crc
}

// crcOfByte is the checksum of each byte: every key that is SET has its slot taken.
var crcOfByte = func() (table [256]uint16) {
	for i := range table {
		crc := uint16(i) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
		table[i] = crc
	}
	return table
}()
