package demo

import (
	"testing"
	"time"
)

// A hit is stale only below the floor that stood before the read began.
func TestOnlyAHitBelowTheFloorIsStale(t *testing.T) {
	c := newChecker(1, nil, nil, nil)
	c.floors[0].raise(7, time.Now().UnixNano())
	want := c.floor(0)
	for version, stale := range map[string]bool{"6": true, "7": false, "8": false} {
		got, err := c.judge(0, "product:1", []byte(`{"id":1,"version":`+version+`}`), want)
		if err != nil {
			t.Fatal(err)
		}
		if (got != nil) != stale {
			t.Errorf("version %s below the floor of %d: got %v, want %v", version, want, got, stale)
		}
	}
}

// Two writers of one row may come to the checker in the wrong order, before
// and after the newer of their versions is settled.
func TestAFloorNeverGoesDown(t *testing.T) {
	c := newChecker(1, nil, nil, nil)
	c.committed(0, 3)
	c.committed(0, 2)
	if got := c.pending[0]; got != 3 {
		t.Errorf("pending version: got %d, want 3", got)
	}
	c.floors[0].raise(3, 1)
	c.floors[0].raise(2, 2)
	if got := c.floor(0); got != 3 {
		t.Errorf("floor: got %d, want 3", got)
	}
}

// Buckets two percent wide are finer than anything that is said about them.
func TestQuantilesAreWithinTwoPercent(t *testing.T) {
	var l latencies
	if got := l.quantiles(); got != nil {
		t.Errorf("of nothing: got %v, want nil", got)
	}
	l.add(-time.Millisecond) // gone before COMMIT had returned
	for i := 1; i < 1000; i++ {
		l.add(time.Duration(i) * 10 * time.Microsecond)
	}
	got := l.quantiles()
	for _, q := range []struct{ got, want float64 }{{got.P50, 4.99}, {got.P99, 9.89}} {
		if q.got < q.want || q.got > 1.021*q.want {
			t.Errorf("got %v ms, want %v and at most two percent more", q.got, q.want)
		}
	}
	l.add(24 * time.Hour) // beyond the last bucket
}

// Two transactions that lock the same two rows in different orders would end in
// a deadlock: tables come in one order, and no transaction changes two rows of
// one table.
func TestTransactionsLockInOneOrder(t *testing.T) {
	s := newShop()
	shopper := newShopper(s)
	for range 1000 {
		last := ""
		for _, u := range shopper.changes() {
			table := s.rows[u.row].entry.table
			if order := map[string]int{"": 0, "products": 1, "orders": 2, "customers": 3, "categories": 4}; order[table] <= order[last] {
				t.Fatalf("%s after %s", table, last)
			}
			last = table
		}
		if row := shopper.reads(); row < 0 || row >= len(s.rows) {
			t.Fatalf("row %d of %d", row, len(s.rows))
		}
	}
}
