package pgsource

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/unstale/unstale/internal/change"
)

// stream turns the messages of one replication connection into changes.
//
// Whatever bytes arrive, it neither panics nor keeps more than its buffers: a
// message that does not fit is read through and only what is wanted of it is
// kept.
type stream struct {
	wire          *wire
	relations     *relations
	valueBytesMax int
	rowBytesMax   int
	timeline      uint32
	// reply is called when the server wants a status update at once.
	reply func()

	// The open transaction.
	open        bool
	xid         uint32
	commitLSN   uint64
	committedAt int64
	row         uint64 // ordinal of the last row

	last      uint64 // LSN of the last position outside a transaction
	truncated []byte // oids of the tables of a TRUNCATE that are still to be told
	change    change.Change
	old, new  []change.Value // backs change.Old.Values and change.New.Values
	compacted []byte         // a row that did not fit into the buffer, without what is not wanted
	broken    error          // what ended the stream
}

// postgresEpoch is 2000-01-01 in microseconds since the Unix epoch.
const postgresEpoch = 946684800 * 1000000

// The types of pgoutput's messages, and of those that carry them.
const (
	messageCopyData  = 'd'
	copyRow          = 'w' // XLogData
	copyKeepalive    = 'k'
	copyRowHeader    = 1 + 8 + 8 + 8
	copyKeepaliveLen = 1 + 8 + 8 + 1

	logicalBegin    = 'B'
	logicalCommit   = 'C'
	logicalOrigin   = 'O'
	logicalRelation = 'R'
	logicalType     = 'Y'
	logicalInsert   = 'I'
	logicalUpdate   = 'U'
	logicalDelete   = 'D'
	logicalTruncate = 'T'
	logicalMessage  = 'M'
)

// next blocks until there is a change. A context that ends between two
// messages leaves the stream as it is; every other error ends it.
func (s *stream) next(ctx context.Context) (*change.Change, error) {
	if s.broken != nil {
		return nil, s.broken
	}
	for {
		if len(s.truncated) > 0 {
			return s.end(s.nextTruncated())
		}
		b := s.wire.buffered()
		if len(b) < messageHeader {
			if err := s.wire.need(ctx, messageHeader); err != nil {
				return s.interrupted(ctx, err)
			}
			continue
		}
		kind, n, err := frame(b)
		if err != nil {
			return s.end(nil, err)
		}
		if n > len(s.wire.buffer) {
			if c, err := s.longMessage(ctx, kind, n); c != nil || err != nil {
				return s.end(c, err)
			}
			continue
		}
		if len(b) < n {
			if err := s.wire.need(ctx, n); err != nil {
				return s.interrupted(ctx, err)
			}
			continue
		}
		s.wire.from += n
		if c, err := s.message(kind, b[messageHeader:n]); c != nil || err != nil {
			return s.end(c, err)
		}
	}
}

func (s *stream) end(c *change.Change, err error) (*change.Change, error) {
	s.broken = err
	return c, err
}

func (s *stream) interrupted(ctx context.Context, err error) (*change.Change, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return s.end(nil, err)
}

// pending reports whether next will return without waiting. It is exact: a
// buffered message that brings no change of its own does not count, because
// next would go on to wait behind it.
func (s *stream) pending() bool {
	if s.broken != nil || len(s.truncated) > 0 {
		return true
	}
	open := s.open
	for b := s.wire.buffered(); len(b) >= messageHeader; {
		kind, n, err := frame(b)
		if err != nil {
			return true
		}
		if n > len(b) {
			return false
		}
		body := b[messageHeader:n]
		b = b[n:]
		switch {
		case kind == 'N' || kind == 'S':
		case kind == messageCopyData && len(body) == copyKeepaliveLen && body[0] == copyKeepalive:
			if !open && binary.BigEndian.Uint64(body[1:]) > s.last {
				return true
			}
		case kind == messageCopyData && len(body) > copyRowHeader && body[0] == copyRow:
			switch body[copyRowHeader] {
			case logicalBegin:
				open = true
			case logicalOrigin, logicalRelation, logicalType, logicalMessage:
			default:
				return true
			}
		default:
			return true // an error, which is told without waiting too
		}
	}
	return false
}

// message handles one message. It returns nothing at all if the message brings
// no change.
func (s *stream) message(kind byte, body []byte) (*change.Change, error) {
	switch kind {
	case messageCopyData:
		return s.copyData(body)
	case 'N', 'S': // a notice; a changed parameter
		return nil, nil
	case 'E':
		return nil, serverError(body)
	case 'c', 'C':
		return nil, errors.New("the server ended the stream")
	}
	return nil, fmt.Errorf("message %q inside the stream: unknown", kind)
}

// serverError is what the server says when it ends the stream.
func serverError(body []byte) error {
	var message pgproto3.ErrorResponse
	if err := message.Decode(body); err != nil {
		return fmt.Errorf("error message of the server: %w", err)
	}
	return pgconn.ErrorResponseToPgError(&message)
}

func (s *stream) copyData(b []byte) (*change.Change, error) {
	if len(b) == 0 {
		return nil, errors.New("an empty message inside the stream")
	}
	switch b[0] {
	case copyRow:
		if len(b) <= copyRowHeader {
			return nil, fmt.Errorf("row message of %d bytes: the stream is garbled", len(b))
		}
		return s.logical(b[copyRowHeader:])
	case copyKeepalive:
		if len(b) != copyKeepaliveLen {
			return nil, fmt.Errorf("keepalive of %d bytes: the stream is garbled", len(b))
		}
		return s.keepalive(binary.BigEndian.Uint64(b[1:]), b[17] != 0), nil
	}
	return nil, fmt.Errorf("message %q inside the copied data: unknown", b[0])
}

// keepalive tells how far the server has read its log. Outside a transaction
// everything before that was sent.
func (s *stream) keepalive(end uint64, reply bool) *change.Change {
	if reply && s.reply != nil {
		s.reply()
	}
	if s.open || end <= s.last {
		return nil
	}
	s.last = end
	s.change = change.Change{Op: change.Idle, Position: change.Position{Timeline: s.timeline, LSN: end}}
	return &s.change
}

// logical handles one message of pgoutput, protocol version 1.
func (s *stream) logical(b []byte) (*change.Change, error) {
	switch b[0] {
	case logicalInsert, logicalUpdate, logicalDelete:
		return s.readRow(b, false)
	case logicalBegin:
		return nil, s.begin(b[1:])
	case logicalCommit:
		return s.commit(b[1:])
	case logicalRelation:
		return nil, s.relations.learn(b[1:])
	case logicalTruncate:
		return nil, s.truncate(b[1:])
	case logicalOrigin, logicalType, logicalMessage:
		return nil, nil
	}
	return nil, fmt.Errorf("message %q of pgoutput: unknown", b[0])
}

func (s *stream) begin(b []byte) error {
	p := parser{rest: b}
	lsn, at, xid := p.uint64(), p.uint64(), p.uint32()
	switch {
	case p.short || len(p.rest) > 0:
		return fmt.Errorf("begin message of %d bytes: the stream is garbled", len(b))
	case s.open:
		return errors.New("begin message inside a transaction: the stream is garbled")
	case lsn < s.last:
		return fmt.Errorf("transaction at %s behind %s: the stream went backwards", formatLSN(lsn), formatLSN(s.last))
	}
	s.open, s.xid, s.commitLSN, s.committedAt, s.row = true, xid, lsn, int64(at)+postgresEpoch, 0
	return nil
}

func (s *stream) commit(b []byte) (*change.Change, error) {
	p := parser{rest: b}
	_, lsn, end, _ := p.byte(), p.uint64(), p.uint64(), p.uint64()
	switch {
	case p.short || len(p.rest) > 0:
		return nil, fmt.Errorf("commit message of %d bytes: the stream is garbled", len(b))
	case !s.open || lsn != s.commitLSN || end < lsn:
		return nil, fmt.Errorf("commit message at %s does not end the transaction: the stream is garbled", formatLSN(lsn))
	}
	s.open, s.last = false, end
	s.change = change.Change{
		Op:          change.Commit,
		XID:         s.xid,
		CommittedAt: s.committedAt,
		Position:    change.Position{Timeline: s.timeline, LSN: end},
	}
	return &s.change, nil
}

func (s *stream) truncate(b []byte) error {
	p := parser{rest: b}
	tables, _ := p.uint32(), p.byte()
	if p.short || len(p.rest)%4 != 0 || uint64(tables) != uint64(len(p.rest)/4) {
		return fmt.Errorf("truncate message of %d bytes: the stream is garbled", len(b))
	}
	s.truncated = p.rest
	return nil
}

// nextTruncated is the change of the next table of a TRUNCATE.
func (s *stream) nextTruncated() (*change.Change, error) {
	oid := binary.BigEndian.Uint32(s.truncated)
	s.truncated = s.truncated[4:]
	rel, err := s.relation(oid)
	if err != nil {
		return nil, err
	}
	return s.rowChange(change.Truncate, rel), nil
}

// relation finds the table of a row message.
func (s *stream) relation(oid uint32) (*relation, error) {
	if !s.open {
		return nil, errors.New("a row outside a transaction: the stream is garbled")
	}
	rel := s.relations.find(oid)
	if rel == nil && s.relations.forgot {
		return nil, errRelations
	}
	if rel == nil {
		return nil, fmt.Errorf("a row of relation %d, which was not described: the stream is garbled", oid)
	}
	return rel, nil
}

// rowChange makes s.change the next change of the transaction, without rows.
func (s *stream) rowChange(op change.Op, rel *relation) *change.Change {
	s.row++
	c := &s.change
	c.Op, c.Relation = op, rel.Relation
	c.Old, c.New = change.Row{}, change.Row{}
	c.XID, c.LSN, c.CommittedAt, c.Reason = s.xid, s.commitLSN, s.committedAt, ""
	c.Position = change.Position{Timeline: s.timeline, LSN: s.commitLSN, Row: s.row}
	return c
}

// rowHeader is the length of a row message before its parts: type and oid.
const rowHeader = 1 + 4

// readRow reads an Insert, Update or Delete message.
func (s *stream) readRow(b []byte, compacted bool) (*change.Change, error) {
	if len(b) < rowHeader {
		return nil, fmt.Errorf("row of %d bytes: the stream is garbled", len(b))
	}
	rel, err := s.relation(binary.BigEndian.Uint32(b[1:]))
	if err != nil {
		return nil, err
	}
	var op change.Op
	switch b[0] {
	case logicalInsert:
		op = change.Insert
	case logicalUpdate:
		op = change.Update
	default:
		op = change.Delete
	}
	c := s.rowChange(op, rel)
	if reason := s.readParts(c, rel, b[rowHeader:], compacted); reason != "" {
		return undecodable(c, reason), nil
	}
	return c, nil
}

func undecodable(c *change.Change, reason string) *change.Change {
	c.Op, c.Old, c.New, c.Reason = change.Undecodable, change.Row{}, change.Row{}, reason
	return c
}

// readParts reads the old and the new version of a row into c.
func (s *stream) readParts(c *change.Change, rel *relation, b []byte, compacted bool) (reason string) {
	if len(b) == 0 {
		return reasonShort
	}
	if c.Op != change.Insert && (b[0] == partKey || b[0] == partOld) {
		p := part{rel: rel, kind: b[0], compacted: compacted, values: room(&s.old, len(rel.Wanted))}
		b, reason = p.readColumns(b[1:], c.Op == change.Delete, s.valueBytesMax)
		if reason != "" {
			return reason
		}
		c.Old = change.Row{Kind: p.rowKind(), Values: p.values}
		if c.Op == change.Delete {
			return ""
		}
		if len(b) == 0 {
			return reasonShort
		}
	}
	if c.Op == change.Delete || b[0] != partNew {
		return reasonParts
	}
	p := part{rel: rel, kind: partNew, compacted: compacted, values: room(&s.new, len(rel.Wanted))}
	if _, reason = p.readColumns(b[1:], true, s.valueBytesMax); reason != "" {
		return reason
	}
	c.New = change.Row{Kind: p.rowKind(), Values: p.values}
	if c.Old.Kind != change.Absent {
		keepUnchanged(c.New.Values, c.Old.Values)
	}
	return ""
}

// room returns n values of *values, growing it if need be.
func room(values *[]change.Value, n int) []change.Value {
	if cap(*values) < n {
		*values = make([]change.Value, n)
	}
	return (*values)[:n]
}

// formatLSN prints an LSN as PostgreSQL does.
func formatLSN(lsn uint64) string { return fmt.Sprintf("%X/%X", uint32(lsn>>32), uint32(lsn)) }
