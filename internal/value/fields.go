package value

import (
	"encoding/binary"
	"iter"
)

// Fields iterates over the names and values that AppendFields wrote.
func Fields(encoded []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		for len(encoded) > 0 {
			var name, value []byte
			var ok bool
			if name, encoded, ok = cut(encoded); !ok {
				return
			}
			if value, encoded, ok = cut(encoded); !ok || !yield(name, value) {
				return
			}
		}
	}
}

// cut takes a length and as many bytes from b.
func cut(b []byte) (part, rest []byte, ok bool) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return nil, nil, false
	}
	end := size + int(n)
	return b[size:end:end], b[end:], true
}
