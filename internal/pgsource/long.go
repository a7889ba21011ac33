package pgsource

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/unstale/unstale/internal/change"
)

// A message can have up to 1 GB: a row of several long values, or a logical
// message that we skip. One that does not fit into the buffer is read through
// piece by piece. A row becomes a row message again, in which the columns that
// are not wanted are marked as unchanged and those that are too long as that, so
// that rows are decoded in one place only.

// longMessage consumes a message of n bytes, header included, that does not fit
// into the buffer. Whatever ends it in the middle, a context too, ends the
// stream: the rest of the message cannot be told from what follows.
func (s *stream) longMessage(ctx context.Context, kind byte, n int) (*change.Change, error) {
	const header = messageHeader + copyRowHeader + 1
	head, err := s.wire.take(ctx, header)
	if err != nil {
		return nil, longError(n, err)
	}
	left := n - header
	logical := head[header-1]
	if kind != messageCopyData || head[messageHeader] != copyRow {
		return nil, fmt.Errorf("message %q of %d bytes: only rows are that long", kind, n)
	}
	switch logical {
	case logicalInsert, logicalUpdate, logicalDelete:
	case logicalMessage:
		if err := s.wire.skip(ctx, left); err != nil {
			return nil, longError(n, err)
		}
		return nil, nil
	default:
		return nil, fmt.Errorf("message %q of pgoutput of %d bytes: only rows are that long", logical, n)
	}

	row := longRow{ctx: ctx, wire: s.wire, left: left, valueBytesMax: s.valueBytesMax, rowBytesMax: s.rowBytesMax}
	if cap(s.compacted) > len(s.wire.buffer) {
		s.compacted = nil // the last one was very long
	}
	row.kept = append(s.compacted[:0], logical)
	oid, ok := row.take(4)
	if !ok {
		return nil, longError(n, row.err)
	}
	row.keep(oid...)
	rel, err := s.relation(binary.BigEndian.Uint32(oid))
	if err != nil {
		return nil, err
	}
	row.compact(rel)
	if row.err == nil {
		row.err = s.wire.skip(ctx, row.left)
	}
	if row.err != nil {
		return nil, longError(n, row.err)
	}
	s.compacted = row.kept
	c, err := s.readRow(row.kept, true)
	if err == nil && row.reason != "" {
		undecodable(c, row.reason)
	}
	return c, err
}

func longError(n int, err error) error {
	return fmt.Errorf("read message of %d bytes: %w", n, err)
}

// A longRow is a row on its way through the buffer.
type longRow struct {
	ctx           context.Context
	wire          *wire
	left          int    // bytes of the message that are not consumed
	kept          []byte // the compacted row
	valueBytesMax int
	rowBytesMax   int    // of the texts that are kept
	reason        string // why the row cannot be decoded
	err           error  // why the stream cannot be read
}

// take consumes n bytes, few. It is not ok if the row ends before or the
// stream broke.
func (r *longRow) take(n int) (b []byte, ok bool) {
	if n > r.left {
		r.reason = reasonShort
		return nil, false
	}
	b, r.err = r.wire.take(r.ctx, n)
	if r.err != nil {
		return nil, false
	}
	r.left -= n
	return b, true
}

// keep adds b to the compacted row.
func (r *longRow) keep(b ...byte) { r.kept = append(r.kept, b...) }

// compact keeps what is wanted of the row's parts.
func (r *longRow) compact(rel *relation) {
	for parts := 0; r.left > 0; parts++ {
		if parts == 2 {
			r.reason = reasonParts
			return
		}
		head, ok := r.take(3)
		if !ok {
			return
		}
		r.keep(head...)
		if int(binary.BigEndian.Uint16(head[1:])) != len(rel.slots) {
			r.reason = reasonColumns
			return
		}
		for _, slot := range rel.slots {
			if !r.compactColumn(slot != 0) {
				return
			}
		}
	}
}

func (r *longRow) compactColumn(wanted bool) bool {
	head, ok := r.take(1)
	if !ok {
		return false
	}
	switch head[0] {
	case columnNull, columnUnchanged:
		r.keep(head...)
		return true
	case columnText, columnBinary:
	default:
		r.reason = reasonKind
		return false
	}
	kind := head[0]
	head, ok = r.take(4)
	if !ok {
		return false
	}
	size := binary.BigEndian.Uint32(head)
	if uint64(size) > uint64(r.left) {
		r.reason = reasonShort
		return false
	}
	n := int(size)
	if !wanted || n > r.valueBytesMax || len(r.kept)+n > r.rowBytesMax {
		if wanted {
			r.keep(columnLong)
		} else {
			r.keep(columnUnchanged)
		}
		r.left -= n
		r.err = r.wire.skip(r.ctx, n)
		return r.err == nil
	}
	r.keep(kind)
	r.keep(head...)
	for n > 0 {
		piece, ok := r.take(min(n, len(r.wire.buffer)))
		if !ok {
			return false
		}
		r.keep(piece...)
		n -= len(piece)
	}
	return true
}
