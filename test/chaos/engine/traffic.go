// Package engine puts load on a database and on a cache that Unstale keeps
// coherent, breaks things under it, and judges what the cache holds by what was
// committed.
//
// It judges from outside: what it knows comes from the writers, who note each
// commit, and from the barrier. Beside the readers that fill under a lease it
// runs the control, readers that fill with a plain SET: if those never show an
// old row, the load was too light to prove anything.
package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/unstale/unstale"
)

// Lease is the lease of the entries and of the readers: short, since a sweep
// waits as long.
const Lease = 500 * time.Millisecond

// Entries is what belongs under `entries:` in the configuration.
const Entries = `  item: {key: 'item:{id}', table: items, lease: 500ms}
  plain: {key: 'plain:{id}', table: items, lease: 500ms}
`

// schema has the versions in a table that nobody caches: it is locked first, so
// the version of a row grows in the order of the commits, over deletions too.
const schema = `
CREATE TABLE versions (id int PRIMARY KEY, version bigint NOT NULL);
CREATE TABLE items (id int PRIMARY KEY, version bigint NOT NULL, note text NOT NULL);
INSERT INTO versions SELECT i, 1 FROM generate_series(0, %[1]d) i;
INSERT INTO items SELECT i, 1, repeat('x', 100) FROM generate_series(0, %[1]d) i;`

// absent is the value of a key without a row: that is cached too.
const absent = "null"

const loadItem = `SELECT coalesce((SELECT row_to_json(i)::text FROM items i WHERE id = $1), 'null')`

// TrafficOptions of a Traffic. Zero values mean the defaults.
type TrafficOptions struct {
	Database string // URL
	Redis    *redis.Options
	Slot     string
	Seed     uint64

	Rows    int // 32
	Writers int // 4
	Readers int // 6, and as many of the control
	// Pause is between two transactions of one writer. Default 4 ms.
	Pause time.Duration
}

// Traffic is writers and readers on one table.
type Traffic struct {
	options TrafficOptions
	rdb     *redis.Client
	client  *unstale.Client
	rows    []row

	commits atomic.Int64
	// era counts the times that Redis may have gone back in time, when floors
	// that were settled before say nothing.
	era            atomic.Int64
	leased, plain  counts
	writers        sync.WaitGroup
	others         sync.WaitGroup
	endWriters     chan struct{}
	endOthers      context.CancelFunc
	mu             sync.Mutex
	firstStale     string
	readErrors     atomic.Int64
	lastReadError  atomic.Value
	lastWriteError atomic.Value
}

// row is what is known about one row.
type row struct {
	mu sync.Mutex
	// committed is the version that was committed last.
	committed int64
	// deleted is the last version at which the row was, or was about to be,
	// absent.
	deleted int64
	// floor is what the cache must not show less than: a barrier that began
	// after this version was committed has ended.
	floor int64
}

type counts struct{ reads, hits, stale atomic.Int64 }

// NewTraffic makes the tables. Start starts the load.
func NewTraffic(ctx context.Context, options TrafficOptions) (*Traffic, error) {
	orDefault := func(n *int, value int) {
		if *n == 0 {
			*n = value
		}
	}
	orDefault(&options.Rows, 32)
	orDefault(&options.Writers, 4)
	orDefault(&options.Readers, 6)
	if options.Pause == 0 {
		options.Pause = 4 * time.Millisecond
	}
	conn, err := pgx.Connect(ctx, options.Database)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, fmt.Sprintf(schema, options.Rows-1)); err != nil {
		return nil, fmt.Errorf("make the tables: %w", err)
	}
	r := *options.Redis
	r.MaxRetries, r.DialerRetries = -1, 1
	logging.Disable() // faults are what this is about
	r.DialTimeout, r.ReadTimeout, r.WriteTimeout = time.Second, time.Second, time.Second
	t := &Traffic{options: options, rdb: redis.NewClient(&r), rows: make([]row, options.Rows)}
	for i := range t.rows {
		t.rows[i].committed = 1
	}
	t.client, err = unstale.New(t.rdb, unstale.Options{Slot: options.Slot, Lease: Lease})
	return t, err
}

// Start starts writers, readers and the goroutine that settles.
func (t *Traffic) Start() {
	t.endWriters = make(chan struct{})
	var ctx context.Context
	ctx, t.endOthers = context.WithCancel(context.Background())
	for i := range t.options.Writers {
		t.writers.Go(func() { t.write(rand.New(rand.NewPCG(t.options.Seed, uint64(i)))) })
	}
	for i := range t.options.Readers {
		t.others.Go(func() { t.read(ctx, rand.New(rand.NewPCG(t.options.Seed, uint64(100+i))), t.fetch, &t.leased) })
		t.others.Go(func() { t.read(ctx, rand.New(rand.NewPCG(t.options.Seed, uint64(200+i))), t.fetchPlain, &t.plain) })
	}
	t.others.Go(func() { t.settle(ctx) })
}

// Close ends the load, without a verdict.
func (t *Traffic) Close() {
	t.stopWriters()
	t.stopOthers()
	_ = t.rdb.Close()
}

func (t *Traffic) stopWriters() {
	if t.endWriters != nil {
		close(t.endWriters)
		t.endWriters = nil
	}
	t.writers.Wait()
}

func (t *Traffic) stopOthers() {
	if t.endOthers != nil {
		t.endOthers()
	}
	t.others.Wait()
}

// NewEra is called when Redis has gone back in time: before the cache may be
// read again.
func (t *Traffic) NewEra() {
	t.era.Add(1)
	for i := range t.rows {
		t.rows[i].mu.Lock()
		t.rows[i].floor = 0
		t.rows[i].mu.Unlock()
	}
}

// AwaitCommits waits until there have been n more commits.
func (t *Traffic) AwaitCommits(ctx context.Context, n int64) error {
	return t.await(ctx, fmt.Sprintf("%d more commits", n), t.commits.Load, t.commits.Load()+n)
}

// AwaitHits waits until the readers had n more hits.
func (t *Traffic) AwaitHits(ctx context.Context, n int64) error {
	return t.await(ctx, fmt.Sprintf("%d more hits", n), t.leased.hits.Load, t.leased.hits.Load()+n)
}

func (t *Traffic) await(ctx context.Context, what string, now func() int64, want int64) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for now() < want {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s, %d short: %w (readers: %v, writers: %v)", what, want-now(), ctx.Err(), t.lastReadError.Load(), t.lastWriteError.Load())
		case <-tick.C:
		}
	}
	return nil
}

// session is a connection that comes back.
type session struct {
	url  string
	conn *pgx.Conn
}

// statementTimeout bounds one step of a load or a transaction.
const statementTimeout = 30 * time.Second

func (s *session) do(ctx context.Context, f func(context.Context, *pgx.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	if s.conn == nil || s.conn.IsClosed() {
		conn, err := pgx.Connect(ctx, s.url)
		if err != nil {
			return err
		}
		s.conn = conn
	}
	return f(ctx, s.conn)
}

func (s *session) close() {
	if s.conn != nil {
		_ = s.conn.Close(context.Background())
	}
}

// pause waits without holding up the end; it reports whether to go on.
func pause(end <-chan struct{}, d time.Duration) bool {
	select {
	case <-end:
		return false
	case <-time.After(d):
		return true
	}
}

// retryPause is between two tries while a server is away.
const retryPause = 10 * time.Millisecond

func (t *Traffic) write(r *rand.Rand) {
	s := &session{url: t.options.Database}
	defer s.close()
	end := t.endWriters
	for wait := t.options.Pause; pause(end, wait); {
		wait = t.options.Pause
		// A transaction is never cut short, so that none is under way after
		// the writers have ended.
		if err := s.do(context.Background(), func(ctx context.Context, conn *pgx.Conn) error { return t.transaction(ctx, conn, r) }); err != nil {
			t.lastWriteError.Store(err.Error())
			wait = retryPause
		}
	}
}

// transaction changes one row or two: mostly updates, some deletions and
// insertions, some of it rolled back.
func (t *Traffic) transaction(ctx context.Context, conn *pgx.Conn, r *rand.Rand) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }() // nothing after a commit
	first := r.IntN(len(t.rows))
	ids := []int{first}
	if second := r.IntN(len(t.rows)); second > first && r.IntN(4) == 0 {
		ids = append(ids, second) // in order: no deadlocks
	}
	versions := make([]int64, len(ids))
	for i, id := range ids {
		if err := tx.QueryRow(ctx, "UPDATE versions SET version = version + 1 WHERE id = $1 RETURNING version", id).Scan(&versions[i]); err != nil {
			return err
		}
		if r.IntN(8) == 0 {
			t.rows[id].mu.Lock()
			t.rows[id].deleted = max(t.rows[id].deleted, versions[i])
			t.rows[id].mu.Unlock()
			_, err = tx.Exec(ctx, "DELETE FROM items WHERE id = $1", id)
		} else {
			_, err = tx.Exec(ctx, "INSERT INTO items VALUES ($1, $2, repeat('x', 100)) ON CONFLICT (id) DO UPDATE SET version = excluded.version", id, versions[i])
		}
		if err != nil {
			return err
		}
	}
	if r.IntN(16) == 0 {
		return tx.Rollback(ctx)
	}
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	for i, id := range ids {
		t.rows[id].mu.Lock()
		t.rows[id].committed = max(t.rows[id].committed, versions[i])
		t.rows[id].mu.Unlock()
	}
	t.commits.Add(1)
	return nil
}

// think is what an application does between the query and the fill. It makes
// the race between a fill and a change wide enough to be met often.
const think = 10 * time.Millisecond

func (t *Traffic) load(ctx context.Context, s *session, id int) (value []byte, err error) {
	err = s.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, loadItem, id).Scan(&value)
	})
	if err == nil && !pause(ctx.Done(), think) {
		err = ctx.Err()
	}
	return value, err
}

// fetch reads through the client.
func (t *Traffic) fetch(ctx context.Context, s *session, id int) (value []byte, hit bool, err error) {
	hit = true
	value, err = t.client.Fetch(ctx, itemKey(id), func(ctx context.Context) ([]byte, error) {
		hit = false
		return t.load(ctx, s, id)
	})
	return value, hit, err
}

// fetchPlain reads as everyone does: SET what was loaded.
func (t *Traffic) fetchPlain(ctx context.Context, s *session, id int) (value []byte, hit bool, err error) {
	value, err = t.rdb.Get(ctx, plainKey(id)).Bytes()
	if err == nil {
		return value, true, nil
	}
	if !errors.Is(err, redis.Nil) {
		return nil, false, err
	}
	if value, err = t.load(ctx, s, id); err == nil {
		err = t.rdb.Set(ctx, plainKey(id), value, time.Hour).Err()
	}
	return value, false, err
}

func itemKey(id int) string  { return fmt.Sprintf("item:%d", id) }
func plainKey(id int) string { return fmt.Sprintf("plain:%d", id) }

// readPause keeps readers from taking the processor from everyone else.
const readPause = time.Millisecond

func (t *Traffic) read(ctx context.Context, r *rand.Rand, fetch func(context.Context, *session, int) ([]byte, bool, error), n *counts) {
	s := &session{url: t.options.Database}
	defer s.close()
	for wait := readPause; pause(ctx.Done(), wait); {
		wait = readPause
		id := r.IntN(len(t.rows))
		row, era := &t.rows[id], t.era.Load()
		row.mu.Lock()
		floor := row.floor
		row.mu.Unlock()
		value, hit, err := fetch(ctx, s, id)
		if err != nil {
			if ctx.Err() == nil {
				t.readErrors.Add(1)
				t.lastReadError.Store(err.Error())
			}
			wait = retryPause
			continue
		}
		n.reads.Add(1)
		if !hit {
			continue
		}
		n.hits.Add(1)
		if seen := row.version(value); seen < floor && era == t.era.Load() {
			n.stale.Add(1)
			t.sawStale(n, fmt.Sprintf("row %d: hit %s after version %d had settled", id, value, floor))
		}
	}
}

func (t *Traffic) sawStale(n *counts, what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n == &t.leased && t.firstStale == "" {
		t.firstStale = what
	}
}

// version is the newest version that value can be of.
func (r *row) version(value []byte) int64 {
	if string(value) == absent {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.deleted
	}
	var item struct {
		Version int64 `json:"version"`
	}
	if err := json.Unmarshal(value, &item); err != nil {
		return -1 // not even a row
	}
	return item.Version
}

// settle raises the floors: what was committed before a barrier that has ended.
func (t *Traffic) settle(ctx context.Context) {
	s := &session{url: t.options.Database}
	defer s.close()
	committed := make([]int64, len(t.rows))
	for pause(ctx.Done(), 5*time.Millisecond) {
		era := t.era.Load()
		for i := range t.rows {
			t.rows[i].mu.Lock()
			committed[i] = t.rows[i].committed
			t.rows[i].mu.Unlock()
		}
		if t.barrier(ctx, s) != nil {
			continue
		}
		for i := range t.rows {
			t.rows[i].mu.Lock()
			if era == t.era.Load() {
				t.rows[i].floor = committed[i]
			}
			t.rows[i].mu.Unlock()
		}
	}
}

func (t *Traffic) barrier(ctx context.Context, s *session) error {
	return s.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		var position string
		if err := conn.QueryRow(ctx, unstale.PositionQuery).Scan(&position); err != nil {
			return err
		}
		return t.client.Barrier(ctx, position)
	})
}

// A Verdict is what the load has shown.
type Verdict struct {
	Commits       int64
	Leased, Plain Share
	FirstStale    string // one hit under a lease that was stale
	FirstWrong    string // one key under a lease that differs from its row
	ReadErrors    int64
	LastReadError any
}

// Share is what one kind of readers saw.
type Share struct {
	Reads, Hits, Stale int64
	// Cached and Wrong are of the keys that were there after the barrier:
	// Wrong ones differ from their row.
	Cached, Wrong int
}

// Quiet ends the writers, waits for the barrier, ends the readers and compares
// every cached value with its row. Start may be called again.
func (t *Traffic) Quiet(ctx context.Context) (Verdict, error) {
	t.stopWriters()
	s := &session{url: t.options.Database}
	defer s.close()
	// A transaction whose connection broke in COMMIT may still be at it.
	err := s.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "BEGIN; LOCK TABLE versions IN ACCESS EXCLUSIVE MODE; COMMIT")
		return err
	})
	if err != nil {
		return Verdict{}, fmt.Errorf("wait for the last transaction: %w", err)
	}
	if err := t.barrier(ctx, s); err != nil {
		return Verdict{}, err
	}
	// What readers put there from now on is right, if the leases are.
	hits := t.AwaitHits(ctx, int64(len(t.rows)))
	t.stopOthers()
	v := Verdict{Commits: t.commits.Load(), FirstStale: t.firstStale, ReadErrors: t.readErrors.Load(), LastReadError: t.lastReadError.Load()}
	if hits != nil {
		return v, hits
	}
	for _, kind := range []struct {
		n   *counts
		key func(int) string
		to  *Share
	}{{&t.leased, itemKey, &v.Leased}, {&t.plain, plainKey, &v.Plain}} {
		*kind.to = Share{Reads: kind.n.reads.Load(), Hits: kind.n.hits.Load(), Stale: kind.n.stale.Load()}
		first, err := t.compare(ctx, s, kind.key, kind.to)
		if err != nil {
			return v, err
		}
		if kind.n == &t.leased {
			v.FirstWrong = first
		}
	}
	return v, nil
}

func (t *Traffic) compare(ctx context.Context, s *session, key func(int) string, share *Share) (first string, err error) {
	for id := range t.rows {
		cached, err := t.rdb.Get(ctx, key(id)).Result()
		if errors.Is(err, redis.Nil) {
			continue
		}
		if err != nil {
			return first, err
		}
		share.Cached++
		var want []byte
		err = s.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			return conn.QueryRow(ctx, loadItem, id).Scan(&want)
		})
		if err != nil {
			return first, err
		}
		if cached != string(want) {
			share.Wrong++
			if first == "" {
				first = fmt.Sprintf("%s holds %s, the row is %s", key(id), cached, want)
			}
		}
	}
	return first, nil
}

// Err says what is wrong with the cache; nil if nothing is.
func (v Verdict) Err() error {
	var errs []error
	if v.Leased.Stale > 0 {
		errs = append(errs, fmt.Errorf("%d stale hits, the first: %s", v.Leased.Stale, v.FirstStale))
	}
	if v.Leased.Wrong > 0 {
		errs = append(errs, fmt.Errorf("%d keys differ from their rows, the first: %s", v.Leased.Wrong, v.FirstWrong))
	}
	if v.Leased.Cached == 0 || v.Leased.Hits == 0 {
		errs = append(errs, fmt.Errorf("an empty cache proves nothing: %d hits, %d keys", v.Leased.Hits, v.Leased.Cached))
	}
	return errors.Join(errs...)
}

func (v Verdict) String() string {
	return fmt.Sprintf("%d commits; under a lease %s; plain SET %s", v.Commits, v.Leased, v.Plain)
}

func (s Share) String() string {
	return fmt.Sprintf("%d reads, %d hits, %d stale hits, %d keys, %d wrong", s.Reads, s.Hits, s.Stale, s.Cached, s.Wrong)
}
