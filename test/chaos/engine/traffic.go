// Package engine puts load on a database and on a cache that Unstale keeps
// coherent, breaks things under it, and judges what the cache shows by what was
// committed.
//
// It judges from outside: what it knows comes from the writers, who keep a log
// of every commit, and from the barrier. Beside each way in which Unstale can
// keep a key it runs controls, ways that are known to be wrong, under the same
// load: where those never show an old row, the load was too light to prove
// anything.
package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/unstale/unstale"
	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
)

// Lease is the lease of the entries and of the readers: short, since who is killed
// with one holds its key up for as long.
const Lease = 500 * time.Millisecond

// bigEvery is how many rows there are for one whose column big is so long that
// PostgreSQL keeps it apart, and leaves it out of the log where an update did not
// touch it.
const bigEvery = 16

// schema has a note and a stamp in column big that tell a torn value, and a table
// in which each transaction leaves its tag.
const schema = `
CREATE TABLE items (id int PRIMARY KEY, version bigint NOT NULL, note text NOT NULL, big text);
ALTER TABLE items ALTER COLUMN big SET STORAGE EXTERNAL;
INSERT INTO items SELECT i, 1, 1 || repeat('x', 60), CASE WHEN i %% %[2]d = 0 THEN i || '.1' || repeat('x', 2500) END FROM generate_series(0, %[1]d) i;
CREATE TABLE outcomes (tag bigint NOT NULL);`

// TrafficOptions of a Traffic. Zero values mean the defaults.
type TrafficOptions struct {
	Database string // URL
	Redis    *redis.Options
	Slot     string
	Seed     uint64

	Rows    int // 64
	Writers int // 4, of rows
	Readers int // 2, for each lane
	// Pause is between two transactions of one writer. Default 4 ms.
	Pause time.Duration
	// ReadPause is between two reads of one reader. Default 10 ms.
	ReadPause time.Duration
	// Keeps adds the modes whose changes write values.
	Keeps bool
	// Follow, if not nil, takes the place of the barrier: it returns when the cache
	// reflects what was committed before it was called.
	Follow func(context.Context) error
	// Whole adds every mode, results of queries and those who change them, every
	// control, and what makes their races wide: a synchronous standby, and readers that
	// come at the moment of a drop. Redis must then have notify-keyspace-events Eg.
	Whole bool
}

// Traffic is writers and readers on one table.
type Traffic struct {
	options  TrafficOptions
	rdb      *redis.Client
	client   *unstale.Client
	oracle   *oracle
	families [kinds]*family
	lanes    []*lane
	consumer *consumer // nil unless Whole
	standby  *standby  // nil unless Whole
	random   *rand.Rand

	commits    atomic.Int64
	tags       atomic.Int64 // of transactions
	writers    sync.WaitGroup
	others     sync.WaitGroup
	endWriters chan struct{}
	endOthers  context.CancelFunc
	// background runs from NewTraffic to Close: what follows the log.
	background    sync.WaitGroup
	ctx           context.Context
	endBackground context.CancelFunc

	readErrors     atomic.Int64
	lastReadError  atomic.Value
	lastWriteError atomic.Value
}

// NewTraffic makes the table. Start starts the load.
func NewTraffic(ctx context.Context, options TrafficOptions) (*Traffic, error) {
	orDefault := func(n *int, value int) {
		if *n == 0 {
			*n = value
		}
	}
	orDefault(&options.Rows, 64)
	orDefault(&options.Writers, 4)
	orDefault(&options.Readers, 2)
	if options.Pause == 0 {
		options.Pause = 4 * time.Millisecond
	}
	if options.ReadPause == 0 {
		options.ReadPause = 10 * time.Millisecond
	}
	conn, err := pgx.Connect(ctx, options.Database)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, fmt.Sprintf(schema, options.Rows-1, bigEvery)); err != nil {
		return nil, fmt.Errorf("make the table: %w", err)
	}
	r := *options.Redis
	r.MaxRetries, r.DialerRetries = -1, 1
	logging.Disable() // faults are what this is about
	r.DialTimeout, r.ReadTimeout, r.WriteTimeout = time.Second, time.Second, time.Second
	t := &Traffic{options: options, rdb: redis.NewClient(&r), lanes: basicLanes(), random: rand.New(rand.NewPCG(options.Seed, 1))}
	t.ctx, t.endBackground = context.WithCancel(context.Background())
	if t.client, err = unstale.New(t.rdb, unstale.Options{Slot: options.Slot, Lease: Lease}); err != nil {
		return nil, err
	}
	if options.Keeps {
		t.lanes = append(t.lanes, keepLanes()...)
	}
	if options.Whole {
		t.lanes = allLanes()
		if err := createRelated(ctx, conn); err != nil {
			return nil, fmt.Errorf("make the tables that queries read: %w", err)
		}
		if t.consumer, err = newConsumer(ctx, conn, options.Database, t.rdb, options.Rows); err != nil {
			return nil, err
		}
		t.standby = &standby{url: options.Database}
		t.background.Go(func() { t.consumer.run(t.ctx) })
		t.background.Go(func() { t.standby.run(t.ctx) })
	}
	t.families = families(options.Rows, options.Whole)
	t.oracle = newOracle(t.families, t.lanes)
	t.oracle.inspect = t.inspect
	return t, t.describeAll(ctx, conn)
}

// describeAll notes what everything looks like at first.
func (t *Traffic) describeAll(ctx context.Context, conn *pgx.Conn) error {
	for k, f := range t.families {
		if f == nil {
			continue
		}
		texts, err := f.texts(ctx, conn, numbered(0, f.count))
		if err != nil {
			return err
		}
		for n, text := range texts {
			book := &t.oracle.ledgers[f.first+n]
			switch {
			case kind(k) != itemRow:
				book.describeText(1, text)
			case n%bigEvery == 0:
				book.describe(1, false, stamp(n, 1))
			}
			book.commit(1, 0)
		}
	}
	return nil
}

// familyOf finds the family of a ledger.
func (t *Traffic) familyOf(row int) *family {
	return t.families[slices.IndexFunc(t.families[:], func(f *family) bool { return f.has(row) })]
}

// stamp is what the text in column big begins with.
func stamp(row int, version int64) string { return fmt.Sprintf("%d.%d", row, version) }

// Start starts writers, readers and whoever settles.
func (t *Traffic) Start() {
	end := make(chan struct{})
	t.endWriters = end
	var ctx context.Context
	ctx, t.endOthers = context.WithCancel(t.ctx)
	source := func() *rand.Rand { return rand.New(rand.NewPCG(t.options.Seed, t.random.Uint64())) }
	for i := range t.options.Writers {
		random := source()
		t.writers.Go(func() { t.write(end, random, i, t.invent) })
	}
	for _, l := range t.lanes {
		missing := make(chan int, missesMax)
		for range t.options.Readers {
			random := source()
			t.others.Go(func() { t.read(ctx, l, random, missing) })
		}
		for range fillers {
			random := source()
			t.others.Go(func() { t.fill(ctx, l, random, missing) })
		}
	}
	t.others.Go(func() { t.settle(ctx, barrierClock, t.barrier) })
	if t.options.Whole {
		weather, expiry := source(), source()
		for i := range relatedWriters {
			random := source()
			t.writers.Go(func() { t.write(end, random, i, t.relate) })
		}
		t.others.Go(func() { t.settle(ctx, consumerClock, t.awaitConsumer) })
		t.others.Go(func() { t.settle(ctx, appliedClock, t.awaitApplied) })
		t.others.Go(func() { t.standby.weather(ctx, weather) })
		t.others.Go(func() { t.expire(ctx, expiry) })
		t.others.Go(func() { t.hunt(ctx) })
	}
}

// Close ends the load, without a verdict.
func (t *Traffic) Close() {
	t.endBackground()
	t.stopWriters()
	t.stopOthers()
	t.background.Wait()
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

// NewEra is called when Redis has gone back in time, before it may be read
// again: what had been applied may be lost until the next batch tells, so what
// was seen and settled before says nothing.
func (t *Traffic) NewEra() { t.oracle.newEra() }

// AwaitCommits waits until there have been n more commits.
func (t *Traffic) AwaitCommits(ctx context.Context, n int64) error {
	return t.await(ctx, fmt.Sprintf("%d more commits", n), t.commits.Load, t.commits.Load()+n)
}

// awaitHits waits until a lane has had n more hits.
func (t *Traffic) awaitHits(ctx context.Context, l *lane, n int64) error {
	return t.await(ctx, fmt.Sprintf("%d more hits of %s", n, l.name), l.hits.Load, l.hits.Load()+n)
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

// settleEvery is how often floors are raised, at most.
const settleEvery = 5 * time.Millisecond

// settle raises the floors of a clock: what was committed before a wait began
// that has ended.
func (t *Traffic) settle(ctx context.Context, clock int, wait func(context.Context, *session) error) {
	s := &session{url: t.options.Database}
	defer s.close()
	versions := make([]int64, len(t.oracle.ledgers))
	for pause(ctx.Done(), settleEvery) {
		era := t.oracle.era.Load()
		t.oracle.newest(versions)
		if wait(ctx, s) == nil {
			t.oracle.settled(clock, versions, era)
		}
	}
}

// barrier waits until Unstale has followed.
func (t *Traffic) barrier(ctx context.Context, s *session) error {
	if t.options.Follow != nil {
		return t.options.Follow(ctx)
	}
	position, err := t.position(ctx, s)
	if err != nil {
		return err
	}
	return t.client.Barrier(ctx, position)
}

// awaitConsumer waits until the controls' consumer has.
func (t *Traffic) awaitConsumer(ctx context.Context, s *session) error {
	_, lsn, err := t.flushed(ctx, s)
	if err != nil {
		return err
	}
	return t.consumer.await(ctx, lsn)
}

// awaitApplied waits until Unstale has applied everything, whether it is settled or
// not.
func (t *Traffic) awaitApplied(ctx context.Context, s *session) error {
	stream, lsn, err := t.flushed(ctx, s)
	if err != nil {
		return err
	}
	key := guard.WatermarkKey(0, stream+":"+t.options.Slot)
	for pause(ctx.Done(), time.Millisecond) {
		text, err := t.rdb.HGet(ctx, key, "lo").Bytes()
		if err != nil {
			continue // Redis may be away
		}
		if lo, err := change.DecodePosition(text); err != nil || lo.LSN >= lsn {
			return err
		}
	}
	return ctx.Err()
}

// flushed is what stream the log is, and how far it is safe.
func (t *Traffic) flushed(ctx context.Context, s *session) (stream string, lsn uint64, err error) {
	position, err := t.position(ctx, s)
	if err != nil {
		return "", 0, err
	}
	fields := strings.Split(position, "/") // system, database, timeline, position
	lsn, err = strconv.ParseUint(fields[3], 10, 64)
	return fields[0] + ":" + fields[1], lsn, err
}

func (t *Traffic) position(ctx context.Context, s *session) (position string, err error) {
	err = s.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, unstale.PositionQuery).Scan(&position)
	})
	return position, err
}

// note puts what the nemesis does into every history.
func (t *Traffic) note(what string) { t.oracle.faults.add(t.oracle.now(), "nemesis", what) }

// Evicting says that Redis may throw side keys away from now on. The protocol
// excuses backward hits then, for as long as the stream is behind: a side key is
// what keeps an older row from being written over a newer one. Nothing else is
// excused.
func (t *Traffic) Evicting() { t.oracle.evicting.Store(true) }

// Evicted waits until the stream is past everything whose side key may be gone.
func (t *Traffic) Evicted(ctx context.Context) error {
	s := &session{url: t.options.Database}
	defer s.close()
	if err := t.barrier(ctx, s); err != nil {
		return err
	}
	t.oracle.evicting.Store(false)
	return nil
}
