package fill_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/unstale/unstale/internal/fill"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
)

// A world is a table, a cache and the stream between them. It keeps the rules of
// the scripts: a change ends the lease of its key.
type world struct {
	mu      sync.Mutex
	rows    map[string]string // by id
	log     uint64            // insert position
	applied uint64            // by the stream
	values  map[string]string // cached, by key
	leases  map[string]lease
	shields map[string]bool

	// othersLoad, if not zero, is what is left of a lease that others always have.
	othersLoad time.Duration

	loads    []int // the number of keys of each statement
	loadTime time.Duration
	refuses  func(id string) error // a row that cannot be read
	broken   map[string]error      // keys that can have no lease
	away     map[string]error      // servers that do not answer
	busy     func(keys int) error  // a statement that cannot be done, for its number of keys
	// superseded: the claim of who loads does not stand.
	full       bool // Redis is
	superseded bool
	calls      int
	saved      []fill.Progress
	dropped    int
	held       map[string]int
	tally      fill.Tally
	afterLoad  func()
}

type lease struct {
	token string
	until time.Time
}

func newWorld(rows int) *world {
	w := &world{rows: map[string]string{}, values: map[string]string{}, leases: map[string]lease{}, shields: map[string]bool{}, away: map[string]error{}, held: map[string]int{}}
	for i := range rows {
		w.rows[strconv.Itoa(i)] = fmt.Sprintf("row %d", i)
	}
	return w
}

func entries(t *testing.T, onChange plan.OnChange) []plan.Entry {
	t.Helper()
	template, err := guard.ParseTemplate("product:{id}")
	if err != nil {
		t.Fatal(err)
	}
	return []plan.Entry{{Name: "product", Key: template, OnChange: onChange, Lease: guard.Lease, TTL: guard.TTL}}
}

// change is what a committed change does, once it is applied.
func (w *world) change(id, row string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log++
	w.rows[id] = row
	delete(w.values, "product:"+id)
	delete(w.leases, "product:"+id)
}

func (w *world) is(server string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.away[server] = err
}

func (w *world) Load(ctx context.Context, entry int, keys [][]string) ([][]string, uint64, error) {
	w.mu.Lock()
	w.calls++
	err := w.away["database"]
	if w.busy != nil && err == nil {
		err = w.busy(len(keys))
	}
	var values [][]string
	for _, key := range keys {
		if w.refuses != nil && err == nil {
			err = w.refuses(key[0])
		}
		var value []string
		if row, ok := w.rows[key[0]]; ok {
			value = []string{row}
		}
		values = append(values, value)
	}
	insert, took := w.log, w.loadTime
	if err == nil {
		w.loads = append(w.loads, len(keys))
	}
	w.mu.Unlock()
	select {
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	case <-time.After(took):
	}
	if err != nil {
		return nil, 0, err
	}
	if w.afterLoad != nil {
		w.afterLoad()
	}
	return values, insert, nil
}

func (w *world) Next(ctx context.Context, entry int, after []string, limit int) ([][]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.away["database"]; err != nil {
		return nil, err
	}
	if w.busy != nil {
		if err := w.busy(limit); err != nil {
			return nil, err
		}
	}
	from := 0
	if after != nil {
		n, err := strconv.Atoi(after[0])
		if err != nil {
			return nil, err
		}
		from = n + 1
	}
	var keys [][]string
	for i := from; len(keys) < limit && i < len(w.rows); i++ {
		keys = append(keys, []string{strconv.Itoa(i)})
	}
	return keys, nil
}

func (w *world) Begin(ctx context.Context, claim guard.Claim, e *plan.Entry, token string, keys []string) ([]guard.Begun, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls++
	if err := w.away["redis"]; err != nil {
		return nil, false, err
	}
	var begun []guard.Begun
	for _, key := range keys {
		_, hit := w.values[key]
		left := max(w.othersLoad, time.Until(w.leases[key].until))
		switch {
		case w.broken[key] != nil:
			begun = append(begun, guard.Begun{Err: w.broken[key]})
		case hit:
			begun = append(begun, guard.Begun{Status: guard.Hit})
		case left > 0:
			begun = append(begun, guard.Begun{Status: guard.Wait, Left: left})
		default:
			w.leases[key] = lease{token, time.Now().Add(e.Lease)}
			begun = append(begun, guard.Begun{Status: guard.Leased})
		}
	}
	return begun, !w.superseded, nil
}

// supersede has another owner take the stream up.
func (w *world) supersede() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.superseded = true
}

func claim() guard.Claim { return guard.Claim{} }

func (w *world) Fill(ctx context.Context, e *plan.Entry, token string, insert uint64, keys []string, values [][]string) ([]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.away["redis"]; err != nil {
		return nil, err
	}
	filled := make([]string, len(keys))
	for i, key := range keys {
		filled[i] = guard.Refused
		if l := w.leases[key]; l.token == token && time.Now().Before(l.until) {
			delete(w.leases, key)
			if filled[i] = guard.Full; w.full {
				continue
			}
			filled[i] = guard.Stored
			w.values[key] = values[i][0]
			w.shields[key] = insert > 0
		}
	}
	return filled, nil
}

func (w *world) Release(ctx context.Context, token string, keys []string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, key := range keys {
		if w.leases[key].token == token {
			delete(w.leases, key)
		}
	}
	return ctx.Err()
}

func (w *world) Applied() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.applied
}

func (w *world) Filled(entry string, t fill.Tally) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tally.Add(t)
}

func (w *world) Dropped(string) { w.dropped++ }

func (w *world) Held(server string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held[server]++
}

func (w *world) save(_ context.Context, _ int, p fill.Progress) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.saved = append(w.saved, p)
	return w.away["redis"]
}

// wrong returns the keys whose cached value is not the row, and the number of
// those that have one.
func (w *world) wrong() (wrong []string, cached int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key, value := range w.values {
		if w.rows[key[len("product:"):]] != value {
			wrong = append(wrong, key)
		}
	}
	slices.Sort(wrong)
	return wrong, len(w.values)
}

// refusal is an error that the database server has sent.
type refusal string

func (r refusal) Error() string    { return "refused: " + string(r) }
func (r refusal) SQLState() string { return string(r) }

var errAway = errors.New("connection refused")
