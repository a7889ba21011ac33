package demo

import (
	"testing"
	"time"
)

// A hit is stale only if it shows a row below the floor that stood when the read began.
func TestOnlyAHitBelowTheFloorIsStale(t *testing.T) {
	c := newChecker(newShop(), nil, nil, nil)
	s := c.shop
	began := time.Now()
	settled := func(row int, version int64) { c.floors[row].raise(version, began.UnixNano()) }
	settled(s.categories, 7)
	settled(s.products+1, 7)
	settled(s.orders+2, 7) // the second customer's first
	tests := []struct {
		index int
		value string
		stale bool
	}{
		{s.categories, `{"id":1,"version":6}`, true},
		{s.categories, `{"id":1,"version":7}`, false},
		{s.categories, `{"id":1,"version":8}`, false},
		{s.pages + 1, `{"id":2,"version":6,"category_id":1,"category_version":7}`, true},
		{s.pages + 1, `{"id":2,"version":7,"category_id":1,"category_version":6}`, true},
		{s.pages + 1, `{"id":2,"version":7,"category_id":1,"category_version":7}`, false},
		{s.pages + 1, `{"id":2,"version":7,"category_id":2,"category_version":6}`, false},
		{s.lists, `[{"id":1,"version":1},{"id":2,"version":6}]`, true},
		{s.lists, `[{"id":1,"version":1},{"id":2,"version":7}]`, false},
		{s.lists, `[]`, false},
		{s.opens + 1, `{"open":1,"versions":[6,1]}`, true},
		{s.opens + 1, `{"open":1,"versions":[7,1]}`, false},
		{s.opens, `{"open":1,"versions":[6,1]}`, false},
	}
	for _, test := range tests {
		for after, stale := range map[time.Duration]bool{-time.Microsecond: false, 0: test.stale} {
			got, err := c.judge(test.index, s.rows[test.index].key, []byte(test.value), began.Add(after))
			if err != nil {
				t.Fatal(err)
			}
			if (got != nil) != stale {
				t.Errorf("%s is %s, read %s after the floor: got %v, want stale %v", s.rows[test.index].key, test.value, after, got, stale)
			}
		}
	}
}

// Two writers of one row may come to the checker in the wrong order, before
// and after the newer of their versions is settled.
func TestAFloorNeverGoesDown(t *testing.T) {
	c := newChecker(newShop(), nil, nil, nil)
	c.committed(0, 3)
	c.committed(0, 2)
	if got := c.pending[0]; got != 3 {
		t.Errorf("pending version: got %d, want 3", got)
	}
	c.floors[0].raise(3, 1)
	c.floors[0].raise(2, 2)
	if got := c.floors[0].version.Load(); got != 3 {
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
