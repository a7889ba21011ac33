package database

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/change"
)

func TestASnapshotIsReadIntoTheMemoryOfTheLast(t *testing.T) {
	s := &change.Snapshot{XIP: make([]uint64, 0, 8)}
	texts := []string{"100:100:", "18446744073709551000:18446744073709551615:18446744073709551003", "752:760:752,755,758"}
	for _, text := range texts {
		if err := parseSnapshot([]byte(text), s); err != nil {
			t.Fatal(err)
		}
	}
	want := &change.Snapshot{XMin: 752, XMax: 760, XIP: []uint64{752, 755, 758}}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	last := []byte(texts[2])
	if got := testing.AllocsPerRun(100, func() { _ = parseSnapshot(last, s) }); got != 0 {
		t.Errorf("%v allocations a snapshot, want none", got)
	}
}

// Visible searches the running transactions by halves. A list that is out of
// order would make it overlook one, and open the gate too early.
func TestASnapshotOutOfOrderIsRefused(t *testing.T) {
	for _, text := range []string{
		"", "1", "1:2", "a:2:", "1:b:", "1:2:c", "9:8:", "-1:2:",
		"10:20:15,12", "10:20:12,12", "10:20:9", "10:20:20", "10:20:12,", "10:20:,12", "10:20:12:13",
	} {
		if err := parseSnapshot([]byte(text), &change.Snapshot{}); err == nil {
			t.Errorf("snapshot %q was accepted", text)
		}
	}
}

// Whatever is accepted means what PostgreSQL says that it means, and is written
// back as it came.
func FuzzSnapshot(f *testing.F) {
	for _, seed := range []string{"100:100:", "752:760:752,755,758", "1:18446744073709551615:4294967296", "10:20:15,12", "::", "1:2:3:4"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var s change.Snapshot
		if parseSnapshot([]byte(text), &s) != nil {
			return
		}
		if s.XMin > s.XMax || !slices.IsSorted(s.XIP) {
			t.Fatalf("%q was read as %+v", text, s)
		}
		for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == ':' || r == ',' }) {
			if part != strings.TrimLeft(part, "0") {
				return // leading zeros are not written back
			}
		}
		var running []string
		for _, xid := range s.XIP {
			running = append(running, strconv.FormatUint(xid, 10))
		}
		got := strconv.FormatUint(s.XMin, 10) + ":" + strconv.FormatUint(s.XMax, 10) + ":" + strings.Join(running, ",")
		if got != text {
			t.Errorf("got %q, want %q", got, text)
		}
	})
}

// PostgreSQL tells an age as 32 bits with a sign. The next transaction is never
// below the snapshot's end, and may be the first behind 2^32.
func TestTheNextTransactionIsToldByAnAge(t *testing.T) {
	for _, test := range []struct {
		xmax uint64
		age  string
		want uint64
	}{
		{760, "757", 760},
		{760, "770", 773},
		{3<<32 + 760, "757", 3<<32 + 760},
		{1<<31 + 5, "-2147483646", 1<<31 + 5},
		{1<<32 - 1, "2", 1<<32 + 5},
	} {
		if got, err := nextAfter(test.xmax, []byte(test.age)); got != test.want || err != nil {
			t.Errorf("behind %d, of age %s: got %d, %v, want %d", test.xmax, test.age, got, err, test.want)
		}
	}
	for _, age := range []string{"", "x", "2147483648"} {
		if _, err := nextAfter(760, []byte(age)); err == nil {
			t.Errorf("age %q was accepted", age)
		}
	}
}

func TestAPlaceInTheLogIsReadAsPostgreSQLWritesIt(t *testing.T) {
	lsn, err := parseLSN([]byte("16/B374D848"))
	if want := uint64(0x16_B374D848); lsn != want || err != nil {
		t.Errorf("got %X, %v, want %X", lsn, err, want)
	}
	timeline, err := parseTimeline([]byte("0000000A00000001000000C3"))
	if want := uint32(10); timeline != want || err != nil {
		t.Errorf("got %d, %v, want %d", timeline, err, want)
	}
	for _, text := range []string{"", "1", "1/", "/1", "1/2/3", "1/100000000", "x/1"} {
		if _, err := parseLSN([]byte(text)); err == nil {
			t.Errorf("LSN %q was accepted", text)
		}
	}
	for _, text := range []string{"", "00000001", "0000000g00000001000000C3"} {
		if _, err := parseTimeline([]byte(text)); err == nil {
			t.Errorf("WAL file name %q was accepted", text)
		}
	}
}
