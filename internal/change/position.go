package change

import (
	"cmp"
	"encoding/binary"
	"fmt"
)

// Position is a place in a stream: everything before it is done. It is opaque
// to all but its source; others may compare, store and print it.
//
// PostgreSQL's log: Timeline, LSN (the commit record's start while inside a
// transaction, its end after it, the server's write position when idle) and
// the ordinal of the row inside the transaction. A change's own LSN is never a
// position: COPY gives many rows one LSN, and LSNs of interleaved transactions
// are not in commit order.
//
// A partition of a topic: Timeline is Offsets, and LSN the offset of the next
// record.
type Position struct {
	Timeline uint32
	LSN      uint64
	Row      uint64
}

// Offsets in place of a timeline says that a position is an offset.
const Offsets = 1<<32 - 1

// PositionSize is the length of an encoded position in bytes.
const PositionSize = 20

// Sequence is Debezium's source.sequence: where the last commit before a change
// ended, and where the change stands, in the log. It never decreases in what a
// connector sends for the first time; rows of one COPY share it.
type Sequence struct{ Commit, LSN uint64 }

const sequenceSize = 16

// Compare orders sequences as the connector sends them.
func (s Sequence) Compare(t Sequence) int {
	return cmp.Or(cmp.Compare(s.Commit, t.Commit), cmp.Compare(s.LSN, t.LSN))
}

// Append appends the encoding of s to dst, big-endian.
func (s Sequence) Append(dst []byte) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(dst, s.Commit), s.LSN)
}

// DecodeSequence reads what Append wrote. An empty text is the zero sequence.
func DecodeSequence(b []byte) (Sequence, error) {
	if len(b) == 0 {
		return Sequence{}, nil
	}
	if len(b) != sequenceSize {
		return Sequence{}, fmt.Errorf("sequence of %d bytes, want %d", len(b), sequenceSize)
	}
	return Sequence{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}, nil
}

// Compare orders positions as the stream does. A later timeline is later than
// anything on an earlier one.
func (p Position) Compare(q Position) int {
	return cmp.Or(cmp.Compare(p.Timeline, q.Timeline), cmp.Compare(p.LSN, q.LSN), cmp.Compare(p.Row, q.Row))
}

// IsZero reports whether p is no position at all.
func (p Position) IsZero() bool { return p == Position{} }

// Append appends the encoding of p to dst: PositionSize bytes, big-endian, so
// that the order of bytes is the order of the stream.
func (p Position) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, p.Timeline)
	dst = binary.BigEndian.AppendUint64(dst, p.LSN)
	return binary.BigEndian.AppendUint64(dst, p.Row)
}

// DecodePosition reads what Append wrote. An empty text is the zero position.
func DecodePosition(b []byte) (Position, error) {
	if len(b) == 0 {
		return Position{}, nil
	}
	if len(b) != PositionSize {
		return Position{}, fmt.Errorf("position of %d bytes, want %d", len(b), PositionSize)
	}
	return Position{
		Timeline: binary.BigEndian.Uint32(b),
		LSN:      binary.BigEndian.Uint64(b[4:]),
		Row:      binary.BigEndian.Uint64(b[12:]),
	}, nil
}

// String prints p as PostgreSQL prints an LSN, with the timeline before it and
// the row behind it: "1/0/16B3748" or "1/0/16B3748+3". An offset is "offset 42".
func (p Position) String() string {
	if p.Timeline == Offsets {
		return fmt.Sprintf("offset %d", p.LSN)
	}
	s := fmt.Sprintf("%d/%X/%X", p.Timeline, uint32(p.LSN>>32), uint32(p.LSN))
	if p.Row > 0 {
		s += fmt.Sprintf("+%d", p.Row)
	}
	return s
}
