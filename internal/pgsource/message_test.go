package pgsource

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/unstale/unstale/internal/change"
)

// A tape is what a server sent, as the messages of one replication connection.
type tape []byte

func (t *tape) message(kind byte, body []byte) {
	*t = append(*t, kind)
	*t = binary.BigEndian.AppendUint32(*t, uint32(4+len(body)))
	*t = append(*t, body...)
}

// logical adds a message of pgoutput.
func (t *tape) logical(body ...[]byte) {
	header := make([]byte, copyRowHeader)
	header[0] = copyRow
	t.message(messageCopyData, append(header, bytes.Join(body, nil)...))
}

func (t *tape) begin(lsn uint64, xid uint32) {
	t.logical([]byte{logicalBegin}, be64(lsn), be64(1000), be32(xid))
}

func (t *tape) commit(lsn, end uint64) {
	t.logical([]byte{logicalCommit, 0}, be64(lsn), be64(end), be64(1000))
}

func (t *tape) keepalive(end uint64, reply byte) {
	t.message(messageCopyData, bytes.Join([][]byte{{copyKeepalive}, be64(end), be64(0), {reply}}, nil))
}

// table describes a table. A column that ends in * is part of the identity.
func (t *tape) table(oid uint32, name string, identity change.Identity, columns ...string) {
	t.logical(tableBody(oid, name, identity, columns...))
}

func tableBody(oid uint32, name string, identity change.Identity, columns ...string) []byte {
	b := append([]byte{logicalRelation}, be32(oid)...)
	b = append(b, "public\x00"+name+"\x00"...)
	b = append(b, byte(identity))
	b = append(b, be16(uint16(len(columns)))...)
	for _, column := range columns {
		column, key := strings.CutSuffix(column, "*")
		b = append(b, map[bool]byte{true: 1}[key])
		b = append(b, column+"\x00"...)
		b = append(append(b, be32(25)...), 0xff, 0xff, 0xff, 0xff)
	}
	return b
}

func (t *tape) insert(oid uint32, values ...string) {
	t.logical([]byte{logicalInsert}, be32(oid), rowPart(partNew, values...))
}

func (t *tape) update(oid uint32, parts ...[]byte) {
	t.logical([]byte{logicalUpdate}, be32(oid), bytes.Join(parts, nil))
}

func (t *tape) delete(oid uint32, old []byte) {
	t.logical([]byte{logicalDelete}, be32(oid), old)
}

func (t *tape) truncate(oids ...uint32) {
	b := append(append([]byte{logicalTruncate}, be32(uint32(len(oids)))...), 0)
	for _, oid := range oids {
		b = append(b, be32(oid)...)
	}
	t.logical(b)
}

// What stands for a value that is no text.
const (
	null      = "\x00null"
	unchanged = "\x00unchanged"
	binaryOne = "\x00binary"
)

func rowPart(kind byte, values ...string) []byte {
	b := append([]byte{kind}, be16(uint16(len(values)))...)
	for _, value := range values {
		switch value {
		case null:
			b = append(b, columnNull)
		case unchanged:
			b = append(b, columnUnchanged)
		case binaryOne:
			b = append(append(append(b, columnBinary), be32(1)...), 7)
		default:
			b = append(append(b, columnText), be32(uint32(len(value)))...)
			b = append(b, value...)
		}
	}
	return b
}

func be16(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }
func be32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
func be64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// A player plays a tape, at most chunk bytes a read.
type player struct {
	rest  []byte
	chunk int
}

func (p *player) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	if p.chunk > 0 {
		b = b[:min(len(b), p.chunk)]
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

func (p *player) SetReadDeadline(time.Time) error { return nil }

// everyColumn wants all.
func everyColumn(r *change.Relation) []int {
	wanted := make([]int, len(r.Columns))
	for i := range wanted {
		wanted[i] = i
	}
	return wanted
}

func newStream(conn reader, buffer int, compile func(*change.Relation) []int) *stream {
	return &stream{
		wire:          newWire(conn, buffer),
		relations:     newRelations(compile, 100, 1<<20),
		valueBytesMax: 100,
		rowBytesMax:   1 << 20,
		timeline:      1,
	}
}

func play(t tape) *stream { return newStream(&player{rest: t}, 1<<16, everyColumn) }

// told plays a stream to its end and writes down what it told.
func told(s *stream) string {
	var b strings.Builder
	for {
		c, err := s.next(context.Background())
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return b.String()
		}
		if err != nil {
			fmt.Fprintf(&b, "error: %v\n", err)
			return b.String()
		}
		b.WriteString(line(c) + "\n")
	}
}

// line writes a change in one line.
func line(c *change.Change) string {
	words := []string{c.Position.String(), c.Op.String()}
	if c.Relation != nil {
		words = append(words, c.Relation.Name)
	}
	if c.Old.Kind != change.Absent {
		words = append(words, map[change.RowKind]string{change.IdentityOnly: "key", change.Whole: "old"}[c.Old.Kind], columns(c.Old))
	}
	if c.New.Kind != change.Absent {
		words = append(words, "new", columns(c.New))
	}
	if c.Reason != "" {
		words = append(words, c.Reason)
	}
	return strings.Join(words, " ")
}

func columns(r change.Row) string {
	var words []string
	for _, v := range r.Values {
		switch v.State {
		case change.Text:
			words = append(words, string(v.Text))
		case change.Null:
			words = append(words, "NULL")
		case change.Unchanged:
			words = append(words, "unchanged")
		case change.Long:
			words = append(words, "LONG")
		default:
			words = append(words, "?")
		}
	}
	return "(" + strings.Join(words, ",") + ")"
}

func expect(t *testing.T, got, want string) {
	t.Helper()
	if strings.TrimSpace(got) != strings.TrimSpace(want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}
