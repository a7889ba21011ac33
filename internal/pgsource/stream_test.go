package pgsource

import (
	"bytes"
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/unstale/unstale/internal/change"
)

// Every kind of message, in the order in which a server could send them.
// Positions inside a transaction are the commit record and the row; after it,
// its end.
func TestTransactionIsToldInOrder(t *testing.T) {
	var tp tape
	tp.keepalive(0x90, 0)
	tp.begin(0x100, 7)
	tp.logical([]byte{logicalOrigin}, be64(1), []byte("upstream\x00"))
	tp.logical([]byte{logicalType}, be32(9), []byte("public\x00mood\x00"))
	tp.table(1, "products", change.IdentityDefault, "id*", "name", "price")
	tp.table(2, "tags", change.IdentityFull, "id*", "label*")
	tp.insert(1, "1", "pen", null)
	tp.update(1, rowPart(partNew, "1", "pencil", "2.50"))
	tp.update(1, rowPart(partKey, "1", null, null), rowPart(partNew, "2", "pencil", "2.50"))
	tp.keepalive(0xfff, 0)
	tp.update(2, rowPart(partOld, "5", "old"), rowPart(partNew, "5", "new"))
	tp.delete(1, rowPart(partKey, "2", null, null))
	tp.delete(2, rowPart(partOld, "5", null))
	tp.logical([]byte{logicalMessage, 1}, be64(5), []byte("prefix\x00"), be32(1), []byte("x"))
	tp.truncate(1, 2)
	tp.commit(0x100, 0x140)
	tp.keepalive(0x140, 0)
	tp.keepalive(0x180, 0)
	tp.keepalive(0x170, 0)
	tp.begin(0x180, 8)
	tp.insert(2, "6", "next")
	tp.commit(0x180, 0x1c0)
	expect(t, told(play(tp)), `
1/0/90 idle
1/0/100+1 insert products new (1,pen,NULL)
1/0/100+2 update products new (1,pencil,2.50)
1/0/100+3 update products key (1,?,?) new (2,pencil,2.50)
1/0/100+4 update tags old (5,old) new (5,new)
1/0/100+5 delete products key (2,?,?)
1/0/100+6 delete tags old (5,NULL)
1/0/100+7 truncate products
1/0/100+8 truncate tags
1/0/140 commit
1/0/180 idle
1/0/180+1 insert tags new (6,next)
1/0/1C0 commit
`)
}

// A commit carries what the gate and the metrics need, and so does each row.
func TestChangesCarryTheirTransaction(t *testing.T) {
	var tp tape
	tp.begin(0x100, 7)
	tp.table(1, "t", change.IdentityDefault, "id*")
	tp.insert(1, "1")
	tp.commit(0x100, 0x140)
	s := play(tp)
	for range 2 {
		c, err := s.next(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if c.XID != 7 || c.CommittedAt != postgresEpoch+1000 {
			t.Errorf("%v of transaction %d at %d, want 7 at %d", c.Op, c.XID, c.CommittedAt, postgresEpoch+1000)
		}
	}
}

// A long value that an update does not touch is not in the log. The old row
// has it under REPLICA IDENTITY FULL; without, nobody has.
func TestUnchangedValueComesFromTheOldRow(t *testing.T) {
	var tp tape
	tp.begin(0x100, 7)
	tp.table(1, "t", change.IdentityFull, "id*", "long*")
	tp.update(1, rowPart(partOld, "1", "the long one"), rowPart(partNew, "2", unchanged))
	tp.update(1, rowPart(partNew, "2", unchanged))
	tp.table(2, "u", change.IdentityDefault, "id*", "long")
	tp.update(2, rowPart(partKey, "a long key", null), rowPart(partNew, unchanged, unchanged))
	expect(t, told(play(tp)), `
1/0/100+1 update t old (1,the long one) new (2,the long one)
1/0/100+2 update t new (2,unchanged)
1/0/100+3 update u key (a long key,?) new (a long key,unchanged)
`)
}

// Only what the plan reads is decoded: what nobody wants may be anything.
func TestOnlyWantedColumnsAreDecoded(t *testing.T) {
	var tp tape
	tp.begin(0x100, 7)
	tp.table(1, "t", change.IdentityFull, "a", "b*", "c", "d*", "e")
	tp.insert(1, binaryOne, "b", strings.Repeat("x", 1000), "d", binaryOne)
	tp.update(1, rowPart(partOld, "1", "2", "3", "4", "5"), rowPart(partNew, "6", "7", "8", null, "9"))
	s := newStream(&player{rest: tp}, 1<<16, func(*change.Relation) []int { return []int{1, 3} })
	expect(t, told(s), `
1/0/100+1 insert t new (b,d)
1/0/100+2 update t old (2,4) new (7,NULL)
`)
}

// A row that cannot be read does not hold up those behind it. It keeps its
// position, so that a redelivery counts the same.
func TestDamagedRowIsAChangeAndTheStreamGoesOn(t *testing.T) {
	insert := func(row ...[]byte) []byte {
		return bytes.Join(append([][]byte{{logicalInsert}, be32(1)}, row...), nil)
	}
	for name, c := range map[string]struct {
		message []byte
		reason  string
	}{
		"no part":              {insert(), reasonShort},
		"no columns":           {insert([]byte("N")), reasonShort},
		"fewer columns":        {insert(rowPart(partNew, "1")), reasonColumns},
		"more columns":         {insert(rowPart(partNew, "1", "2", "3")), reasonColumns},
		"column missing":       {insert(rowPart(partNew, "1", null)[:8]), reasonShort},
		"length cut":           {insert([]byte{'N', 0, 2, 't', 0, 0}), reasonShort},
		"text cut":             {insert([]byte{'N', 0, 2, 't', 0, 0, 0, 9, 'x'}), reasonShort},
		"negative length":      {insert([]byte{'N', 0, 2, 't', 0xff, 0xff, 0xff, 0xff, 'x'}), reasonShort},
		"unknown column kind":  {insert([]byte{'N', 0, 2, '?', 'n'}), reasonKind},
		"binary":               {insert(rowPart(partNew, "1", binaryOne)), reasonBinary},
		"long of a server":     {insert([]byte{'N', 0, 2, columnLong, 'n'}), reasonKind},
		"key of an insert":     {insert(rowPart(partKey, "1", "2")), reasonParts},
		"new of a delete":      {append(append([]byte{logicalDelete}, be32(1)...), rowPart(partNew, "1", "2")...), reasonParts},
		"update without new":   {append(append([]byte{logicalUpdate}, be32(1)...), rowPart(partOld, "1", "2")...), reasonShort},
		"update with two olds": {bytes.Join([][]byte{{logicalUpdate}, be32(1), rowPart(partOld, "1", "2"), rowPart(partKey, "1", "2")}, nil), reasonParts},
	} {
		t.Run(name, func(t *testing.T) {
			var tp tape
			tp.begin(0x100, 7)
			tp.table(1, "t", change.IdentityFull, "id*", "v*")
			tp.logical(c.message)
			tp.insert(1, "1", "2")
			expect(t, told(play(tp)), "1/0/100+1 undecodable t "+c.reason+"\n1/0/100+2 insert t new (1,2)")
		})
	}
}

// Where it is not clear what follows, the stream ends with an error, and stays
// ended.
func TestGarbledStreamEnds(t *testing.T) {
	for name, c := range map[string]struct {
		play func(*tape)
		want string
	}{
		"length below itself":     {func(t *tape) { *t = append(*t, 'd', 0, 0, 0, 3) }, "length 3"},
		"length beyond 1 GB":      {func(t *tape) { *t = append(*t, 'd', 0x40, 0, 0, 1) }, "length 1073741825"},
		"unknown message":         {func(t *tape) { t.message('?', nil) }, `message '?'`},
		"empty copy":              {func(t *tape) { t.message('d', nil) }, "empty message"},
		"unknown copy":            {func(t *tape) { t.message('d', []byte("?")) }, `message '?'`},
		"short keepalive":         {func(t *tape) { t.message('d', []byte("k123")) }, "keepalive"},
		"row without message":     {func(t *tape) { t.logical() }, "row message"},
		"streamed transaction":    {func(t *tape) { t.logical([]byte("S123")) }, `message 'S' of pgoutput: unknown`},
		"begin inside":            {func(t *tape) { t.begin(1, 1); t.begin(2, 2) }, "inside a transaction"},
		"begin cut":               {func(t *tape) { t.logical([]byte("B123")) }, "begin message"},
		"begin goes back":         {func(t *tape) { t.keepalive(5, 0); t.begin(4, 1) }, "went backwards"},
		"commit outside":          {func(t *tape) { t.commit(1, 2) }, "commit message"},
		"commit of another":       {func(t *tape) { t.begin(1, 1); t.commit(2, 3) }, "commit message"},
		"row outside":             {func(t *tape) { t.table(1, "t", 'd', "id*"); t.insert(1, "1") }, "outside a transaction"},
		"row of an unknown table": {func(t *tape) { t.begin(1, 1); t.insert(1, "1") }, "relation 1, which was not described"},
		"truncate outside":        {func(t *tape) { t.table(1, "t", 'd', "id*"); t.truncate(1) }, "outside a transaction"},
		"truncate of more":        {func(t *tape) { t.begin(1, 1); t.logical([]byte{'T', 0, 0, 0, 2, 0, 0, 0, 0, 1}) }, "truncate message"},
		"relation cut":            {func(t *tape) { t.logical(tableBody(1, "t", 'd', "id*")[:12]) }, "cut short"},
		"relation with a tail":    {func(t *tape) { t.logical(append(tableBody(1, "t", 'd', "id*"), 1)) }, "1 bytes behind"},
		"server ends":             {func(t *tape) { t.message('c', nil) }, "the server ended the stream"},
		"server error": {func(t *tape) { t.message('E', []byte("SFATAL\x00C57P01\x00Mgoing down\x00\x00")) },
			"going down (SQLSTATE 57P01)"},
	} {
		t.Run(name, func(t *testing.T) {
			var tp tape
			c.play(&tp)
			s := play(tp)
			if got := told(s); !strings.Contains(got, "error: ") || !strings.Contains(got, c.want) {
				t.Errorf("told %q, want an error with %q", got, c.want)
			}
			if !s.pending() {
				t.Error("an ended stream makes its reader wait")
			}
			if _, err := s.next(context.Background()); err == nil {
				t.Error("an ended stream goes on")
			}
		})
	}
}

// A table that is described again as it was keeps its number, and with it what
// a planner compiled. One that changed is another.
func TestSameRelationKeepsItsNumber(t *testing.T) {
	compiled := 0
	var tp tape
	tp.begin(0x100, 7)
	tp.table(1, "t", change.IdentityDefault, "id*")
	tp.insert(1, "1")
	tp.table(1, "t", change.IdentityDefault, "id*")
	tp.insert(1, "2")
	tp.table(1, "t", change.IdentityDefault, "id*", "v")
	tp.insert(1, "3", "x")
	s := newStream(&player{rest: tp}, 1<<16, func(r *change.Relation) []int { compiled++; return everyColumn(r) })
	var got []int
	for range 3 {
		c, err := s.next(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, c.Relation.Number)
	}
	if diff := cmp.Diff([]int{1, 1, 2}, got); diff != "" {
		t.Errorf("numbers (-want +got):\n%s", diff)
	}
	if compiled != 2 {
		t.Errorf("compiled %d times, want 2", compiled)
	}
}

// What is kept of tables is bounded, and yet a transaction may touch any number
// of them: what is in use is kept.
func TestRelationsAreBounded(t *testing.T) {
	const tables, kept = 1000, 100
	var tp tape
	tp.begin(0x100, 7)
	for oid := range uint32(tables) {
		tp.table(oid, "t", change.IdentityDefault, "id*")
		tp.insert(oid, "1")
		tp.insert(0, "1")
	}
	tp.insert(1, "1")
	s := play(tp)
	for n := range 2 * tables {
		if _, err := s.next(context.Background()); err != nil {
			t.Fatalf("row %d: %v", n, err)
		}
		if got := len(s.relations.young) + len(s.relations.old); got > kept {
			t.Fatalf("%d relations are kept", got)
		}
	}
	// The row of a table that was forgotten must not be lost: the next session
	// has it again, behind its description.
	if _, err := s.next(context.Background()); !errors.Is(err, errRelations) {
		t.Errorf("got %v, want %v", err, errRelations)
	}
}

// The bytes of what is kept are bounded too.
func TestRelationBytesAreBounded(t *testing.T) {
	const bytesMax = 4000
	r := newRelations(everyColumn, 1000, bytesMax)
	for oid := range uint32(200) {
		if err := r.learn(tableBody(oid, strings.Repeat("t", 500), change.IdentityDefault, "id*")[1:]); err != nil {
			t.Fatal(err)
		}
		got := 0
		for _, generation := range []map[uint32]*relation{r.young, r.old} {
			for _, kept := range generation {
				got += len(kept.message)
			}
		}
		if got > bytesMax {
			t.Fatalf("%d bytes are kept", got)
		}
	}
}

// Pending must not say yes to a message that brings nothing: who believes it
// waits in Next with a batch in hand.
func TestPendingIsExact(t *testing.T) {
	for name, c := range map[string]struct {
		play func(*tape)
		want bool
	}{
		"nothing":            {func(*tape) {}, false},
		"begin":              {func(t *tape) { t.begin(0x200, 1) }, false},
		"keepalive inside":   {func(t *tape) { t.begin(0x200, 1); t.keepalive(0x300, 0) }, false},
		"same keepalive":     {func(t *tape) { t.keepalive(0x100, 1) }, false},
		"later keepalive":    {func(t *tape) { t.keepalive(0x101, 0) }, true},
		"description":        {func(t *tape) { t.table(1, "t", 'd', "id*") }, false},
		"row":                {func(t *tape) { t.begin(0x200, 1); t.insert(1, "1") }, true},
		"half a row":         {func(t *tape) { t.begin(0x200, 1); t.insert(1, "1"); *t = (*t)[:len(*t)-1] }, false},
		"commit":             {func(t *tape) { t.begin(0x200, 1); t.commit(0x200, 0x210) }, true},
		"second of truncate": {func(t *tape) { t.begin(0x200, 1); t.table(1, "t", 'd', "id*"); t.truncate(1, 1) }, true},
		"notice":             {func(t *tape) { t.message('N', nil) }, false},
		"error":              {func(t *tape) { t.message('E', []byte{0}) }, true},
		"garbage":            {func(t *tape) { *t = append(*t, 0, 0, 0, 0, 0) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			var tp tape
			c.play(&tp)
			s := play(tp)
			s.last = 0x100
			if len(tp) > 0 {
				if err := s.wire.fill(context.Background()); err != nil {
					t.Fatal(err)
				}
			}
			if got := s.pending(); got != c.want {
				t.Errorf("pending is %v, want %v", got, c.want)
			}
		})
	}
}

// A row that does not fit into the buffer is read through: what is not wanted
// passes, however long.
func TestLongRowsAreReadThrough(t *testing.T) {
	long := strings.Repeat("x", 50_000)
	var tp tape
	tp.begin(0x100, 7)
	tp.table(1, "t", change.IdentityFull, "id*", "long*", "v*")
	tp.insert(1, "1", long, "v1")
	tp.update(1, rowPart(partOld, "1", long, "v1"), rowPart(partNew, "2", unchanged, unchanged))
	tp.logical([]byte{logicalMessage}, []byte(long))
	tp.delete(1, rowPart(partOld, "2", long, null))
	tp.insert(1, long, "1", "1")
	tp.update(1, rowPart(partOld, "1", long, "v1"), rowPart(partNew, "1", "2"))
	tp.update(1, rowPart(partOld, "1", long, "v1"), rowPart(partNew, "1", "2", "3")[:8])
	tp.update(1, rowPart(partOld, "1", long, "v1"), rowPart(partOld, "1", "2", "3"), rowPart(partNew, "1", "2", "3"))
	tp.insert(1, "3", "short", "v3")
	tp.commit(0x100, 0x140)
	s := newStream(&player{rest: tp, chunk: 777}, 512, func(*change.Relation) []int { return []int{0, 2} })
	expect(t, told(s), `
1/0/100+1 insert t new (1,v1)
1/0/100+2 update t old (1,v1) new (2,v1)
1/0/100+3 delete t old (2,NULL)
1/0/100+4 insert t new (LONG,1)
1/0/100+5 undecodable t `+reasonColumns+`
1/0/100+6 undecodable t `+reasonShort+`
1/0/100+7 undecodable t `+reasonParts+`
1/0/100+8 insert t new (3,v3)
1/0/140 commit
`)
}

// A value that is too long is told of, and does not hide the others.
func TestAValueThatIsTooLongIsTold(t *testing.T) {
	var tp tape
	tp.begin(0x100, 7)
	tp.table(1, "t", change.IdentityFull, "id*", "v*")
	tp.insert(1, "1", strings.Repeat("x", 101))
	tp.update(1, rowPart(partOld, "1", strings.Repeat("x", 101)), rowPart(partNew, "1", unchanged))
	expect(t, told(play(tp)), "1/0/100+1 insert t new (1,LONG)\n1/0/100+2 update t old (1,LONG) new (1,LONG)")
}

// Long values that are each within bounds can together be beyond them.
func TestLongRowIsBounded(t *testing.T) {
	values := make([]string, 20)
	names := make([]string, 20)
	for i := range values {
		names[i], values[i] = "c", strings.Repeat("x", 90)
	}
	var tp tape
	tp.begin(0x100, 7)
	tp.table(1, "t", change.IdentityFull, names...)
	tp.insert(1, values...)
	s := newStream(&player{rest: tp}, 512, everyColumn)
	s.rowBytesMax = 512
	few := strings.Repeat(strings.Repeat("x", 90)+",", 5)
	expect(t, told(s), "1/0/100+1 insert t new ("+few+strings.Repeat("LONG,", 14)+"LONG)")
}

// A long message of any other kind is not worth memory.
func TestLongMessagesOfOtherKindsEndTheStream(t *testing.T) {
	var tp tape
	tp.message('E', make([]byte, 1000))
	if got := told(newStream(&player{rest: tp}, 512, everyColumn)); !strings.Contains(got, "only rows are that long") {
		t.Errorf("told %q", got)
	}
}

// A context that ends while nothing arrives ends the call, not the stream, and
// loses nothing, not even in the middle of a message.
func TestContextEndsACallNotTheStream(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	s := newStream(client, 1<<16, everyColumn)
	var tp tape
	tp.keepalive(0x100, 0)

	for i := range 3 {
		ctx, cancel := context.WithCancel(context.Background())
		written := make(chan struct{})
		go func() {
			defer close(written)
			_, _ = server.Write(tp[i*7 : i*7+7])
			cancel()
		}()
		if _, err := s.next(ctx); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, want the context's end", err)
		}
		<-written
	}
	go func() { _, _ = server.Write(tp[21:]) }()
	c, err := s.next(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	expect(t, line(c), "1/0/100 idle")
}

// Rows of the steady state cost no allocation, whatever the change.
func TestSteadyStateAllocatesNothing(t *testing.T) {
	s := newStream(steady(), 1<<16, func(*change.Relation) []int { return []int{0, 2} })
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	next := func() {
		if _, err := s.next(ctx); err != nil {
			t.Fatal(err)
		}
	}
	for range 100 {
		next()
	}
	if got := testing.AllocsPerRun(10_000, next); got != 0 {
		t.Errorf("%v allocations a change", got)
	}
}

// steady plays transactions of an insert, two updates and a delete, for ever.
func steady() *loop {
	var first, again tape
	first.table(1, "t", change.IdentityFull, "id*", "name*", "price*", "at*")
	again.begin(0x100, 7)
	again.insert(1, "12345", "a name of some length", "12.50", "2024-02-29 12:00:00+00")
	again.update(1, rowPart(partNew, "12345", "another name", "12.50", "2024-02-29 12:00:00+00"))
	again.update(1, rowPart(partOld, "12345", "another name", "12.50", null), rowPart(partNew, "1", unchanged, unchanged, null))
	again.delete(1, rowPart(partOld, "12345", "another name", "12.50", null))
	again.commit(0x100, 0x100)
	again.keepalive(0x100, 0)
	return &loop{player: player{rest: first}, again: again}
}

type loop struct {
	player
	again tape
}

func (l *loop) Read(b []byte) (int, error) {
	if len(l.rest) == 0 {
		l.rest = l.again
	}
	return l.player.Read(b)
}

func BenchmarkNext(b *testing.B) {
	s := newStream(steady(), 1<<16, func(*change.Relation) []int { return []int{0, 2} })
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.next(ctx); err != nil {
			b.Fatal(err)
		}
	}
}

// Whatever the rows, the wanted columns, the size of the buffer and of the
// reads: what is told is what was written.
func TestRowsComeOutAsTheyWentIn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		width := rapid.IntRange(1, 12).Draw(t, "columns")
		var wanted []int
		names := make([]string, width)
		for i := range names {
			names[i] = "c"
			if rapid.Bool().Draw(t, "wanted") {
				wanted = append(wanted, i)
			}
		}
		value := rapid.OneOf(rapid.Just(null), rapid.Just(unchanged), rapid.StringN(0, 12, 99), rapid.Just(strings.Repeat("y", 99)))
		row := rapid.Custom(func(t *rapid.T) []string {
			values := rapid.SliceOfN(value, width, width).Draw(t, "values")
			for i := range values {
				if !slices.Contains(wanted, i) && rapid.Bool().Draw(t, "huge") {
					values[i] = strings.Repeat("z", 3000)
				}
			}
			return values
		})
		var tp tape
		var want []string
		expected := func(values []string) string {
			var words []string
			for _, i := range wanted {
				word := values[i]
				switch word {
				case null:
					word = "NULL"
				case unchanged:
					word = "unchanged"
				}
				words = append(words, word)
			}
			return "(" + strings.Join(words, ",") + ")"
		}
		tp.begin(0x100, 7)
		tp.table(1, "t", change.IdentityFull, names...)
		for n := range rapid.IntRange(1, 8).Draw(t, "rows") {
			position := change.Position{Timeline: 1, LSN: 0x100, Row: uint64(n + 1)}.String()
			old, updated := row.Draw(t, "old"), row.Draw(t, "new")
			switch rapid.IntRange(0, 2).Draw(t, "op") {
			case 0:
				tp.insert(1, updated...)
				want = append(want, position+" insert t new "+expected(updated))
			case 1:
				tp.update(1, rowPart(partOld, old...), rowPart(partNew, updated...))
				for i := range updated {
					if updated[i] == unchanged && old[i] != null {
						updated[i] = old[i]
					}
				}
				want = append(want, position+" update t old "+expected(old)+" new "+expected(updated))
			case 2:
				tp.delete(1, rowPart(partOld, old...))
				want = append(want, position+" delete t old "+expected(old))
			}
		}
		s := newStream(&player{rest: tp, chunk: rapid.IntRange(1, 300).Draw(t, "chunk")},
			rapid.SampledFrom([]int{3000, 5000, 1 << 16}).Draw(t, "buffer"), func(*change.Relation) []int { return wanted })
		if diff := cmp.Diff(strings.Join(want, "\n")+"\n", told(s)); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

// A deadline that passes is the context's, not the connection's; anything else
// that ends a read ends the stream.
func TestClosedConnectionEndsTheStream(t *testing.T) {
	client, server := net.Pipe()
	server.Close()
	s := newStream(client, 1<<16, everyColumn)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := s.next(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("got %v", err)
	}
}
