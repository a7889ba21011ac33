package e2e

import (
	"context"
	byteorder "encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"github.com/unstale/unstale/internal/admin"
	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/stack"
	"github.com/unstale/unstale/test/chaos/engine"
)

// memoryMax is what the binary may take at its peak, whatever happens.
const memoryMax = 100 << 20

// A trial is an instance under load, in which something is going to break.
type trial struct {
	*fixture
	*instance
	traffic *engine.Traffic
	// watched ends the watch over what is acknowledged, and returns what it saw.
	watched func() error
}

// trialOptions say by which way the instance reaches its servers, where not
// directly, and what else its configuration says.
type trialOptions struct {
	database string // host:port
	redis    string // URL
	// timeout is Redis' read timeout. Default 2 s.
	timeout time.Duration
}

// newTrial starts an instance and load, and returns when both work.
func newTrial(t *testing.T, postgres *stack.Postgres, r *stack.Redis, options trialOptions) *trial {
	t.Helper()
	f := newFixtureOn(t, postgres, r)
	database, redisURL := f.url, r.URL()
	if options.database != "" {
		u, err := url.Parse(f.url)
		if err != nil {
			t.Fatal(err)
		}
		u.Host = options.database
		database = u.String()
	}
	if options.redis != "" {
		redisURL = options.redis
	}
	if options.timeout == 0 {
		options.timeout = 2 * time.Second
	}
	traffic, err := engine.NewTraffic(within(t, 30*time.Second), engine.TrafficOptions{
		Database: f.url, Redis: &redis.Options{Addr: r.Addr()}, Slot: f.slot, Seed: 1,
		Rows: 16, Writers: 2, Readers: 2, Pause: 5 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(traffic.Close)
	i := startInstance(t, fmt.Sprintf(`database: %s
redis: {url: %q, read_timeout: %s}
source:
  postgres: {slot: %s, publication: %s}
entries:
%s`, database, redisURL, options.timeout, f.slot, f.slot, engine.Entries))
	trial := &trial{fixture: f, instance: i, traffic: traffic}
	i.waitReady()
	trial.watched = trial.watch()
	traffic.Start()
	trial.commits(50)
	return trial
}

func (tr *trial) t() *testing.T { return tr.fixture.t }

// commits waits until the load has committed n times more.
func (tr *trial) commits(n int64) {
	tr.t().Helper()
	if err := tr.traffic.AwaitCommits(within(tr.t(), time.Minute), n); err != nil {
		tr.t().Fatalf("%v\n%s", err, tr.log)
	}
}

// lines returns how many lines of the log contain all of texts.
func (i *instance) lines(texts ...string) int {
	n := 0
	for line := range strings.Lines(i.log.String()) {
		has := true
		for _, text := range texts {
			has = has && strings.Contains(line, text)
		}
		if has {
			n++
		}
	}
	return n
}

// awaitLine waits until the log has a line with all of texts.
func (i *instance) awaitLine(texts ...string) {
	i.t.Helper()
	i.eventually("said: "+strings.Join(texts, " "), func() bool { return i.lines(texts...) > 0 })
}

// right ends the load and demands that every cached value equals its row, that
// the cache is not empty, that the barrier works, that no more was ever
// acknowledged than Redis had, and that memory was bounded.
func (tr *trial) right() {
	t := tr.t()
	t.Helper()
	tr.waitReady()
	tr.commits(50)
	v, err := tr.traffic.Quiet(within(t, time.Minute))
	if err = errors.Join(err, v.Err(), tr.watched()); err != nil {
		t.Errorf("%v\n%s", err, tr.log)
	}
	if peak := tr.residentMax(); peak > memoryMax {
		t.Errorf("took %d MB at its peak, want at most %d", peak>>20, memoryMax>>20)
	}
	t.Log(v)
}

// watermark returns the place in the log up to which Redis has everything; zero
// where there is no watermark.
func (f *fixture) watermark(ctx context.Context, stream string) (change.Position, error) {
	text, err := f.rdb.HGet(ctx, guard.WatermarkKey(0, stream), "lo").Bytes()
	if err != nil {
		return change.Position{}, err
	}
	return change.DecodePosition(text)
}

const confirmedQuery = "SELECT coalesce(confirmed_flush_lsn - '0/0', 0)::bigint FROM pg_replication_slots WHERE slot_name = $1"

// watch looks, until it is ended, whether PostgreSQL was ever told to forget
// what Redis did not have.
func (tr *trial) watch() (end func() error) {
	s, err := tr.status()
	if err != nil {
		tr.t().Fatal(err)
	}
	stream := s.Streams[0].Name
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		var conn *pgx.Conn
		looks := 0
		tick := time.NewTicker(25 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				if conn != nil {
					conn.Close(context.Background())
				}
				if looks == 0 {
					done <- errors.New("nobody ever saw what was acknowledged")
					return
				}
				done <- nil
				return
			case <-tick.C:
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			confirmed, lo, err := tr.look(ctx, &conn, stream)
			cancel()
			if err != nil {
				continue // a server is away
			}
			looks++
			if confirmed > lo {
				done <- fmt.Errorf("PostgreSQL was told to forget up to %X, Redis had everything up to %X", confirmed, lo)
				return
			}
		}
	}()
	ended := false
	stopOnce := func() error {
		if ended {
			return nil
		}
		ended = true
		close(stop)
		return <-done
	}
	tr.t().Cleanup(func() { _ = stopOnce() })
	return stopOnce
}

// look asks PostgreSQL first: Redis only moves on meanwhile.
func (tr *trial) look(ctx context.Context, conn **pgx.Conn, stream string) (confirmed, lo uint64, err error) {
	if *conn == nil || (*conn).IsClosed() {
		if *conn, err = pgx.Connect(ctx, tr.url); err != nil {
			return 0, 0, err
		}
	}
	if err := (*conn).QueryRow(ctx, confirmedQuery, tr.slot).Scan(&confirmed); err != nil {
		return 0, 0, err
	}
	p, err := tr.watermark(ctx, stream)
	return confirmed, p.LSN, err
}

// A redisFault is something that happens to Redis, and how it ends.
type redisFault struct {
	name     string
	settings map[string]string
	user     string // of the instance, with a password of the same name
	inflict  func(*trial)
	mend     func(*trial)
	// gaps is how often changes may be missing because of it.
	gaps int
	// quiet: nothing needs to be held.
	quiet bool
}

var appendOnly = map[string]string{"appendonly": "yes", "appendfsync": "everysec"}

// Redis can be away, or refuse, in many ways. In each: the instance holds and
// says so once, goes on by itself, and nothing is lost.
func TestRedisFaults(t *testing.T) {
	var other *stack.Redis
	command := func(args ...any) func(*trial) {
		return func(tr *trial) {
			if err := tr.rdb.Do(within(tr.t(), 10*time.Second), args...).Err(); err != nil {
				tr.t().Fatal(err)
			}
		}
	}
	stop := func(tr *trial) { check(tr.t(), tr.redis.Stop(within(tr.t(), 10*time.Second))) }
	start := func(tr *trial) { check(tr.t(), tr.redis.Start(within(tr.t(), 10*time.Second))) }
	for _, fault := range []redisFault{
		{name: "stopped and started, with an append-only file", settings: appendOnly, inflict: stop, mend: start},
		// What it held is gone, the watermark too: that is found.
		{name: "stopped and started, without persistence", inflict: stop, mend: start, gaps: 1},
		{
			name:    "hangs for longer than the read timeout",
			inflict: func(tr *trial) { check(tr.t(), tr.redis.Pause()) },
			mend:    func(tr *trial) { check(tr.t(), tr.redis.Resume()) },
		},
		{
			name: "loading",
			// It saves when it ends. Then each key takes a millisecond to load, and
			// in between it answers that it is loading.
			settings: map[string]string{"save": "3600 1000000", "key-load-delay": "1000", "loading-process-events-interval-bytes": "1024"},
			inflict: func(tr *trial) {
				pipe := tr.rdb.Pipeline()
				for n := range 1000 {
					pipe.Set(tr.t().Context(), fmt.Sprintf("filler:%d", n), strings.Repeat("x", 100), 0)
				}
				_, err := pipe.Exec(within(tr.t(), 10*time.Second))
				check(tr.t(), err)
				check(tr.t(), tr.redis.Stop(within(tr.t(), 10*time.Second)))
				// A client that was refused a few times dials once a second only, and
				// would look away for as long as the loading takes.
				ping := func() error {
					rdb := redis.NewClient(&redis.Options{Addr: tr.redis.Addr(), MaxRetries: -1, DialerRetries: 1})
					defer rdb.Close()
					return rdb.Ping(tr.t().Context()).Err()
				}
				started := make(chan error, 1)
				go func() { started <- tr.redis.Start(within(tr.t(), 30*time.Second)) }()
				loading := 0
				for done := false; !done; {
					select {
					case err := <-started:
						check(tr.t(), err)
						done = true
					default:
						if err := ping(); err != nil && strings.HasPrefix(err.Error(), "LOADING") {
							loading++
						}
					}
				}
				if loading == 0 {
					tr.t().Error("Redis was never seen to be loading")
				}
			},
			mend: func(*trial) {},
		},
		{
			name:    "a replica of a master that is not there",
			inflict: command("REPLICAOF", "127.0.0.1", "1"),
			mend:    command("REPLICAOF", "NO", "ONE"),
		},
		{
			// It takes over what the other one holds: nothing of ours.
			name: "a replica of another master, for a while",
			inflict: func(tr *trial) {
				other = startRedis(tr.t(), stack.RedisOptions{})
				command("REPLICAOF", "127.0.0.1", other.Port())(tr)
				tr.instance.eventually("the other's data is there", func() bool {
					info, err := tr.rdb.Info(within(tr.t(), time.Second), "replication").Result()
					return err == nil && strings.Contains(info, "master_link_status:up")
				})
			},
			mend: command("REPLICAOF", "NO", "ONE"),
			gaps: 1,
		},
		{
			name:     "cannot save and refuses writes (MISCONF)",
			settings: map[string]string{"save": "3600 1000000"},
			inflict: func(tr *trial) {
				// Redis saves into another file first, which cannot become this.
				check(tr.t(), os.Mkdir(filepath.Join(tr.redis.Dir(), "data", "dump.rdb"), 0o755))
				command("BGSAVE")(tr)
				tr.instance.eventually("the save has failed", func() bool {
					info, err := tr.rdb.Info(within(tr.t(), time.Second), "persistence").Result()
					return err == nil && strings.Contains(info, "rdb_last_bgsave_status:err")
				})
			},
			mend: command("CONFIG", "SET", "stop-writes-on-bgsave-error", "no"),
		},
		{
			name:    "takes a right away and gives it back (NOPERM)",
			user:    "service",
			inflict: command("ACL", "SETUSER", "service", "-evalsha"),
			mend:    command("ACL", "SETUSER", "service", "+evalsha"),
		},
		{
			name: "full", quiet: true,
			inflict: func(tr *trial) {
				command("CONFIG", "SET", "maxmemory-policy", "noeviction")(tr)
				command("CONFIG", "SET", "maxmemory", "1")(tr)
				if err := tr.rdb.Set(within(tr.t(), time.Second), "more", "x", 0).Err(); err == nil || !strings.HasPrefix(err.Error(), "OOM") {
					tr.t().Fatalf("SET on a full Redis: %v", err)
				}
				// Drops go on, and so does the watermark.
				tr.commits(100)
				tr.barrier()
				if s, err := tr.status(); err != nil || !s.Ready || len(s.Holding) > 0 {
					tr.t().Errorf("status on a full Redis: %+v, %v", s, err)
				}
			},
			mend: command("CONFIG", "SET", "maxmemory", "0"),
		},
	} {
		t.Run(fault.name, func(t *testing.T) {
			t.Parallel()
			r := startRedis(t, stack.RedisOptions{Settings: fault.settings})
			options := trialOptions{}
			if fault.user != "" {
				rdb := redis.NewClient(&redis.Options{Addr: r.Addr()})
				defer rdb.Close()
				check(t, rdb.Do(within(t, time.Second), "ACL", "SETUSER", fault.user, "on", ">"+fault.user, "~*", "+@all").Err())
				options.redis = fmt.Sprintf("redis://%s:%s@%s", fault.user, fault.user, r.Addr())
			}
			tr := newTrial(t, sharedPostgres(t, 15), r, options)
			gaps := tr.gaps()
			fault.inflict(tr)
			if !fault.quiet {
				tr.awaitLine("holding", "server=redis")
			}
			tr.commits(100)
			if fault.gaps > 0 {
				tr.traffic.NewEra()
			}
			fault.mend(tr)
			if !fault.quiet {
				tr.awaitLine("going on", "server=redis")
			}
			tr.right()

			want := 1
			if fault.quiet {
				want = 0
			}
			if got := tr.lines("holding"); got != want {
				t.Errorf("said %d times that it holds, want %d", got, want)
			}
			if got := tr.gaps() - gaps; got != fault.gaps {
				t.Errorf("found %d gaps, want %d", got, fault.gaps)
			}
			if got := tr.lines("taking the stream over again"); got > fault.gaps {
				t.Errorf("took the stream over %d times, want %d", got, fault.gaps)
			}
			if t.Failed() {
				t.Log(tr.log)
			}
		})
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// gaps returns how often the instance found that changes may be missing.
func (i *instance) gaps() int {
	i.t.Helper()
	s, err := i.status()
	if err != nil {
		i.t.Fatal(err)
	}
	return s.Gaps
}

// PostgreSQL can be away in several ways as well. A restart is a gap each time,
// since readers may have seen commits that no stream delivers; a mere pause is
// none.
func TestPostgresFaults(t *testing.T) {
	start := func(tr *trial) { check(tr.t(), tr.postgres.Start(within(tr.t(), time.Minute))) }
	for _, fault := range []struct {
		name          string
		inflict, mend func(*trial)
		gaps          int
	}{
		{
			name:    "stopped under load, and started",
			inflict: func(tr *trial) { check(tr.t(), tr.postgres.Stop(within(tr.t(), 20*time.Second))) },
			mend:    start, gaps: 1,
		},
		{
			// The server waits for the stream, and the stream for Redis: who lets
			// go is unstale.
			name: "stopped while Redis hangs, and started",
			inflict: func(tr *trial) {
				check(tr.t(), tr.redis.Pause())
				tr.commits(100)
				tr.awaitLine("holding", "server=redis")
				check(tr.t(), tr.postgres.Stop(within(tr.t(), 20*time.Second)))
				check(tr.t(), tr.redis.Resume())
			},
			mend: start, gaps: 1,
		},
		{
			name:    "stopped immediately, and started",
			inflict: func(tr *trial) { check(tr.t(), tr.postgres.StopImmediate(within(tr.t(), 20*time.Second))) },
			mend:    start, gaps: 1,
		},
		{
			name:    "hangs for longer than the gate waits",
			inflict: func(tr *trial) { check(tr.t(), tr.postgres.Pause()) },
			mend:    func(tr *trial) { check(tr.t(), tr.postgres.Resume()) },
		},
	} {
		t.Run(fault.name, func(t *testing.T) {
			t.Parallel()
			tr := newTrial(t, startPostgres(t, stack.PostgresOptions{Major: 15}), startRedis(t, stack.RedisOptions{}), trialOptions{})
			gaps := tr.gaps()
			fault.inflict(tr)
			tr.instance.eventually("it holds", func() bool {
				return tr.lines("holding", "server=database")+tr.lines("holding", "server=source") > 0
			})
			fault.mend(tr)
			tr.commits(50)
			tr.waitStatus("nothing is held", func(s *admin.Status) bool { return len(s.Holding) == 0 && s.Gaps == gaps+fault.gaps })
			tr.right()
			for _, server := range []string{"database", "source", "redis"} {
				if got := tr.lines("holding", "server="+server); got > 1 {
					t.Errorf("said %d times that it holds for %s", got, server)
				}
			}
			if got := tr.gaps() - gaps; got != fault.gaps {
				t.Errorf("found %d gaps, want %d", got, fault.gaps)
			}
			if t.Failed() {
				t.Log(tr.log)
			}
		})
	}
}

// The network between can break, swallow everything, or be slow. None of that
// is a gap: the servers themselves have lost nothing.
func TestNetworkFaults(t *testing.T) {
	for _, fault := range []struct {
		name          string
		inflict, mend func(database, redis *proxy)
		holds         []string // for which servers
	}{
		{
			name:    "Redis is cut off",
			inflict: func(_, redis *proxy) { redis.cut() },
			mend:    func(_, redis *proxy) { redis.heal() },
			holds:   []string{"redis"},
		},
		{
			name:    "what is sent to Redis disappears",
			inflict: func(_, redis *proxy) { redis.swallow() },
			mend:    func(_, redis *proxy) { redis.heal() },
			holds:   []string{"redis"},
		},
		{
			name:    "PostgreSQL is cut off",
			inflict: func(database, _ *proxy) { database.cut() },
			mend:    func(database, _ *proxy) { database.heal() },
			holds:   []string{"source"},
		},
		{
			name:    "what is sent to PostgreSQL disappears",
			inflict: func(database, _ *proxy) { database.swallow() },
			mend:    func(database, _ *proxy) { database.heal() },
			holds:   []string{"database"},
		},
		{
			name:    "both are cut off",
			inflict: func(database, redis *proxy) { database.cut(); redis.cut() },
			mend:    func(database, redis *proxy) { database.heal(); redis.heal() },
			// Whichever is missed first: who waits for Redis reads no source.
			holds: []string{""},
		},
		{
			name: "a long way to both",
			inflict: func(database, redis *proxy) {
				database.slow(20 * time.Millisecond)
				redis.slow(20 * time.Millisecond)
			},
			mend: func(database, redis *proxy) { database.slow(0); redis.slow(0) },
		},
	} {
		t.Run(fault.name, func(t *testing.T) {
			t.Parallel()
			postgres, r := sharedPostgres(t, 15), startRedis(t, stack.RedisOptions{Settings: appendOnly})
			database, cache := newProxy(t, postgres.Addr()), newProxy(t, r.Addr())
			tr := newTrial(t, postgres, r, trialOptions{database: database.addr(), redis: "redis://" + cache.addr()})
			gaps := tr.gaps()
			fault.inflict(database, cache)
			for _, server := range fault.holds {
				tr.awaitLine("holding", "server="+server)
			}
			tr.commits(100)
			fault.mend(database, cache)
			tr.waitStatus("nothing is held", func(s *admin.Status) bool { return len(s.Holding) == 0 })
			tr.right()
			for _, server := range []string{"database", "source", "redis"} {
				if got := tr.lines("holding", "server="+server); got > 1 {
					t.Errorf("said %d times that it holds for %s", got, server)
				}
			}
			if got := tr.gaps() - gaps; got != 0 {
				t.Errorf("found %d gaps, want none", got)
			}
			if t.Failed() {
				t.Log(tr.log)
			}
		})
	}
}

// While Redis is away the log grows on the primary, not in our memory: a
// quarter of a million changes in transactions small and large, and the process stays small.
func TestMemoryIsBoundedWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	r := startRedis(t, stack.RedisOptions{Settings: appendOnly})
	f := newFixtureOn(t, sharedPostgres(t, 15), r)
	f.exec("CREATE TABLE products (id text PRIMARY KEY, name text)")
	i := startInstance(t, f.config("  product: {key: 'product:{id}', table: products, lease: 500ms}"))
	i.waitReady()
	check(t, r.Pause())
	f.exec("INSERT INTO products SELECT md5(n::text) || repeat('k', 100), 'old' FROM generate_series(1, 100000) n")
	f.exec("UPDATE products SET name = 'new'")
	f.exec("DO $$ BEGIN FOR n IN 1..1000 LOOP UPDATE products SET name = 'last' WHERE id = md5(n::text) || repeat('k', 100); COMMIT; END LOOP; END $$")
	i.awaitLine("holding", "server=redis")
	peak := i.residentMax()
	check(t, r.Resume())
	f.barrier()
	after := i.residentMax()
	t.Logf("peak of the resident size: %d MB while Redis was away, %d MB after catching up", peak>>20, after>>20)
	if max(peak, after) > memoryMax {
		t.Errorf("want at most %d MB", memoryMax>>20)
	}
	i.stop()
}

// SIGTERM under load: what was read is written and acknowledged. The next start
// finds no gap, and no transaction is sent again that Redis had wholly.
func TestTerminationFinishesAndAcknowledges(t *testing.T) {
	t.Parallel()
	tr := newTrial(t, sharedPostgres(t, 15), startRedis(t, stack.RedisOptions{Settings: appendOnly}), trialOptions{})
	s, err := tr.status()
	check(t, err)
	tr.stop()
	lo, err := tr.watermark(t.Context(), s.Streams[0].Name)
	check(t, err)
	if lo.IsZero() {
		t.Fatal("no watermark")
	}
	if again := tr.transactionsBelow(lo.LSN); again != 0 {
		t.Errorf("%d transactions would be sent again that Redis has wholly", again)
	}
	tr.start()
	tr.right()
	if got := tr.gaps(); got != 0 {
		t.Errorf("found %d gaps after the restart, want none\n%s", got, tr.log)
	}
	tr.stop()
}

// transactionsBelow counts the transactions that the slot would send again
// although they ended before lsn.
func (f *fixture) transactionsBelow(lsn uint64) (n int) {
	f.t.Helper()
	rows, err := f.conn.Query(within(f.t, 30*time.Second),
		"SELECT data FROM pg_logical_slot_peek_binary_changes($1, NULL, NULL, 'proto_version', '1', 'publication_names', $2)", f.slot, f.slot)
	check(f.t, err)
	messages, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	check(f.t, err)
	for _, m := range messages {
		// Commit: type, flags, LSN of the commit, LSN of its end, time.
		if m[0] == 'C' && byteorder.BigEndian.Uint64(m[10:]) <= lsn {
			n++
		}
	}
	return n
}

// A second SIGTERM kills: whoever sends it does not want to wait for a Redis
// that hangs.
func TestSecondTerminationKills(t *testing.T) {
	t.Parallel()
	tr := newTrial(t, sharedPostgres(t, 15), startRedis(t, stack.RedisOptions{}), trialOptions{timeout: time.Minute})
	check(t, tr.redis.Pause())
	tr.commits(50)
	began := time.Now()
	// When the first one has been heard nobody can see from outside, so more
	// follow until it is over.
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for sent, ended := 0, false; !ended; {
		select {
		case <-tr.ended:
			ended = true
			if sent < 2 {
				t.Errorf("it ended after %d signals: Redis did not hold it up", sent)
			}
		case <-tick.C:
			sent++
			_ = tr.cmd.Process.Signal(syscall.SIGTERM) // it may just have ended
		case <-t.Context().Done():
			return
		}
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	status, ok := tr.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() || status.Signal() != syscall.SIGTERM {
		t.Errorf("it ended with %v, want by SIGTERM", tr.cmd.ProcessState)
	}
	check(t, tr.redis.Resume())
	tr.start()
	tr.right()
}
