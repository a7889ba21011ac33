package pgsource

import (
	"context"
	"errors"
	"testing"

	"github.com/unstale/unstale/internal/change"
)

// FuzzNext feeds arbitrary bytes as the server's. However they are cut into
// reads and however small the buffer, the stream must end with an error, tell
// positions that only grow, and keep no more than its buffers.
func FuzzNext(f *testing.F) {
	var story tape
	story.keepalive(0x90, 1)
	story.begin(0x100, 7)
	story.table(1, "products", change.IdentityDefault, "id*", "name", "price")
	story.insert(1, "1", "pen", null)
	story.update(1, rowPart(partKey, "1", null, null), rowPart(partNew, "2", unchanged, "2.50"))
	story.delete(1, rowPart(partOld, "2", "x", null))
	story.truncate(1, 1)
	story.logical([]byte{logicalMessage}, make([]byte, 600))
	story.insert(1, "1", string(make([]byte, 600)), null)
	story.commit(0x100, 0x140)
	story.message('E', []byte("SFATAL\x00C57P01\x00Mgoing down\x00\x00"))
	f.Add([]byte(story), uint16(0), false)
	f.Add([]byte(story), uint16(1), true)
	f.Add([]byte(story[:len(story)-40]), uint16(7), true)
	f.Fuzz(func(t *testing.T, sent []byte, chunk uint16, small bool) {
		buffer := 1 << 12
		if small {
			buffer = 256
		}
		s := newStream(&player{rest: sent, chunk: int(chunk)}, buffer, func(r *change.Relation) []int {
			var wanted []int
			for i := range r.Columns {
				if i%2 == 0 {
					wanted = append(wanted, i)
				}
			}
			return wanted
		})
		s.rowBytesMax = 512
		var last change.Position
		for range len(sent) + 1 {
			s.pending()
			c, err := s.next(context.Background())
			if err != nil {
				if _, again := s.next(context.Background()); !errors.Is(again, err) {
					t.Fatalf("ended with %v, then %v", err, again)
				}
				if len(s.compacted) > 512+1<<14 || len(s.wire.buffer) > buffer || s.relations.bytes > s.relations.bytesMax {
					t.Fatalf("kept %d, %d, %d bytes", len(s.compacted), len(s.wire.buffer), s.relations.bytes)
				}
				return
			}
			if c.Position.Compare(last) <= 0 && c.Position.Row != 0 {
				t.Fatalf("%v at %v after %v", c.Op, c.Position, last)
			}
			last = c.Position
			for _, row := range []change.Row{c.Old, c.New} {
				if row.Kind != change.Absent && len(row.Values) != len(c.Relation.Wanted) {
					t.Fatalf("%d values of %d", len(row.Values), len(c.Relation.Wanted))
				}
			}
		}
		t.Fatalf("more changes than bytes: %d", len(sent))
	})
}

// FuzzRow feeds arbitrary rows of a known table: each is a change or says why
// it is none, and the stream goes on behind it.
func FuzzRow(f *testing.F) {
	f.Add(byte(logicalInsert), rowPart(partNew, "1", "pen", null))
	f.Add(byte(logicalUpdate), append(rowPart(partKey, "1", null, null), rowPart(partNew, "2", unchanged, "x")...))
	f.Add(byte(logicalUpdate), append(rowPart(partOld, "1", "a", "b"), rowPart(partNew, "2", unchanged, binaryOne)...))
	f.Add(byte(logicalDelete), rowPart(partOld, "1", "a", null))
	f.Fuzz(func(t *testing.T, op byte, row []byte) {
		switch op {
		case logicalInsert, logicalUpdate, logicalDelete:
		default:
			op = logicalUpdate
		}
		var tp tape
		tp.begin(0x100, 7)
		tp.table(1, "t", change.IdentityDefault, "id*", "name", "price")
		tp.logical([]byte{op}, be32(1), row)
		tp.insert(1, "1", "2", "3")
		s := play(tp)
		c, err := s.next(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if (c.Op == change.Undecodable) != (c.Reason != "") {
			t.Fatalf("%v with the reason %q", c.Op, c.Reason)
		}
		if c, err = s.next(context.Background()); err != nil {
			t.Fatal(err)
		}
		expect(t, line(c), "1/0/100+2 insert t new (1,2,3)")
	})
}
