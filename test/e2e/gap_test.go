package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/unstale/unstale/internal/admin"
	"github.com/unstale/unstale/internal/stack"
)

// A gapped is an instance over two tables, with keys in Redis that nobody has
// dropped. What a test does to them must be found.
type gapped struct {
	*fixture
	*instance
}

func (g *gapped) t() *testing.T { return g.fixture.t }

const twoEntries = `  product: {key: 'product:{id}', table: products, lease: 500ms}
  shop: {key: 'shop:{id}', table: shops, lease: 500ms}
`

func newGapped(t *testing.T, postgres *stack.Postgres, r *stack.Redis) *gapped {
	t.Helper()
	f := newFixtureOn(t, postgres, r)
	f.exec("CREATE TABLE products (id int PRIMARY KEY, name text)")
	f.exec("CREATE TABLE shops (id int PRIMARY KEY, name text)")
	f.exec("INSERT INTO products SELECT n, 'old' FROM generate_series(1, 10) n")
	f.exec("INSERT INTO shops SELECT n, 'old' FROM generate_series(1, 10) n")
	return &gapped{f, startInstance(t, f.config(twoEntries))}
}

const key = "product:1"

// fill caches what the row says now, as a reader would, and a side key.
func (g *gapped) fill() {
	g.t().Helper()
	g.fetch(key, product, 1)
	g.fetch("shop:1", "SELECT row_to_json(s)::text FROM shops s WHERE id = $1", 1)
	if !g.cached(key) || !g.cached("shop:1") {
		g.t().Fatal("nothing was cached")
	}
}

// change commits a new row.
func (g *gapped) change() { g.exec("UPDATE products SET name = name || '+' WHERE id = 1") }

// healed waits until the instance is ready again after n more gaps, and demands
// that it said what it found, counted it, and left no stale key.
func (g *gapped) healed(cause string, gaps int) {
	t := g.t()
	t.Helper()
	g.waitStatus(fmt.Sprintf("ready, after %d gaps", gaps), func(s *admin.Status) bool { return s.Ready && s.Gaps == gaps })
	g.clean()
	counted := g.metric(fmt.Sprintf("unstale_gaps_total{cause=%q}", cause))
	if counted != 1 {
		t.Errorf("counted %v gaps of cause %s, want 1\n%s", counted, cause, g.get("/metrics"))
	}
	said := g.lines("gap: ", "cause="+cause)
	if cause == "first_start" && said == 0 {
		said = g.lines("first start on this Redis")
	}
	if said != 1 {
		t.Errorf("said %d times that there is a gap of cause %s, want once", said, cause)
	}
	// It goes on working.
	g.change()
	g.barrier()
	g.clean()
	if value, _ := g.fetch(key, product, 1); !strings.HasSuffix(value, `+"}`) {
		t.Errorf("read %s", value)
	}
	if t.Failed() {
		t.Log(g.log)
	}
}

// clean demands that what is cached equals its row.
func (g *gapped) clean() {
	g.t().Helper()
	value, err := g.rdb.Get(within(g.t(), 10*time.Second), key).Result()
	if err != nil {
		return // gone
	}
	var row string
	check(g.t(), g.conn.QueryRow(within(g.t(), 10*time.Second), product, 1).Scan(&row))
	if value != row {
		g.t().Errorf("%s holds %s, the row is %s\n%s", key, value, row, g.log)
	}
}

// What is in Redis under our templates before the first start is not trusted;
// what is not ours is not touched.
func TestFirstStartSweeps(t *testing.T) {
	t.Parallel()
	f := newFixtureOn(t, sharedPostgres(t, 15), startRedis(t, stack.RedisOptions{}))
	f.exec("CREATE TABLE products (id int PRIMARY KEY, name text)")
	f.exec("CREATE TABLE shops (id int PRIMARY KEY, name text)")
	ctx := within(t, 10*time.Second)
	ours := []string{"product:1", "product:0", "{product:1}:l", "shop:7", "shop:-7"}
	foreign := []string{"products:1", "product", "{x}:l", "other:1", "session:{product:1}", "product:abc", "product:cart:77", "product:1:session", "{product:cart:77}:l"}
	for _, key := range append(ours, foreign...) {
		check(t, f.rdb.Set(ctx, key, "before", 0).Err())
	}
	i := startInstance(t, f.config(twoEntries))
	i.eventually("ready", func() bool {
		s, err := i.status()
		if err != nil || !s.Ready {
			return false
		}
		for _, key := range ours {
			if f.cached(key) {
				t.Errorf("ready, and %s is still there", key)
			}
		}
		return true
	})
	for _, key := range foreign {
		if !f.cached(key) {
			t.Errorf("%s is not ours and is gone", key)
		}
	}
	if got := i.metric(`unstale_gaps_total{cause="first_start"}`); got != 1 {
		t.Errorf("counted %v first starts", got)
	}
	i.stop()
}

// A sweep takes the keys that a row can have, or could have had while something of
// it was cached: a column that was a text for a while has left others behind.
func TestASweepTakesTheKeysThatRowsCanHave(t *testing.T) {
	t.Parallel()
	f := newFixtureOn(t, sharedPostgres(t, 15), startRedis(t, stack.RedisOptions{}))
	f.exec("CREATE TABLE products (id int PRIMARY KEY, name text)")
	i := startInstance(t, f.config("  product: {key: 'product:{id}', table: products, lease: 500ms}\n"))
	i.waitReady()
	for _, test := range []struct {
		name     string
		do       []string
		textGoes bool
	}{
		{"truncated", []string{"TRUNCATE products"}, false},
		{"another column", []string{"ALTER TABLE products ADD COLUMN price int DEFAULT random()"}, false},
		{"a text", []string{"ALTER TABLE products ALTER COLUMN id TYPE text"}, true},
		{"a number again", []string{"ALTER TABLE products ALTER COLUMN id TYPE int USING id::int"}, true},
		{"another table for a while", []string{
			"ALTER TABLE products RENAME TO kept", "CREATE TABLE products (id text PRIMARY KEY)", "DROP TABLE products", "ALTER TABLE kept RENAME TO products",
		}, true},
	} {
		for _, key := range []string{"product:1", "product:abc"} {
			check(t, f.rdb.Set(within(t, 10*time.Second), key, "cached", 0).Err())
		}
		for _, statement := range test.do {
			f.exec(statement)
		}
		i.eventually("product:1 is swept: "+test.name, func() bool { return !f.cached("product:1") })
		// The catalog's look sweeps once more.
		i.waitStatus("ready", func(s *admin.Status) bool { return s.Ready })
		if test.textGoes {
			i.eventually("product:abc is swept: "+test.name, func() bool { return !f.cached("product:abc") })
		} else if !f.cached("product:abc") {
			t.Errorf("%s: product:abc is no row's and is gone\n%s", test.name, i.log)
		}
	}
	i.stop()
}

// Between two runs the stream can lose changes in several ways. The next start
// finds out.
func TestGapWhileDown(t *testing.T) {
	for _, gap := range []struct {
		name, cause string
		own         map[string]string // settings of a PostgreSQL of its own
		lose        func(*gapped)
	}{
		{
			name: "the slot was dropped, and made again by somebody", cause: "slot_ahead",
			lose: func(g *gapped) {
				g.exec("SELECT pg_drop_replication_slot($1)", g.slot)
				g.change()
				g.exec("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", g.slot)
			},
		},
		{
			name: "the slot was dropped", cause: "source",
			lose: func(g *gapped) {
				g.exec("SELECT pg_drop_replication_slot($1)", g.slot)
				g.change()
			},
		},
		{
			name: "the slot was advanced", cause: "slot_ahead",
			lose: func(g *gapped) {
				g.change()
				g.exec("SELECT pg_replication_slot_advance($1, pg_current_wal_lsn())", g.slot)
			},
		},
		{
			name: "the slot was lost, since it kept too much", cause: "source",
			own: map[string]string{"max_slot_wal_keep_size": "1MB", "min_wal_size": "32MB"},
			lose: func(g *gapped) {
				g.change()
				for range 4 {
					g.exec("UPDATE shops SET name = name WHERE id = 2")
					g.exec("SELECT pg_switch_wal()")
				}
				g.exec("CHECKPOINT")
				var status string
				check(g.t(), g.conn.QueryRow(g.t().Context(), "SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1", g.slot).Scan(&status))
				if status != "lost" {
					g.t().Fatalf("the slot is %s", status)
				}
			},
		},
		{
			name: "the primary was restarted", cause: "origin", own: map[string]string{},
			lose: func(g *gapped) {
				g.change()
				check(g.t(), g.postgres.StopImmediate(within(g.t(), time.Minute)))
				check(g.t(), g.postgres.Start(within(g.t(), time.Minute)))
				g.reconnect()
			},
		},
		{
			name: "a standby was promoted", cause: "origin", own: map[string]string{},
			lose: func(g *gapped) {
				g.change()
				g.promote()
			},
		},
		{
			name: "the watermark was deleted", cause: "first_start",
			lose: func(g *gapped) {
				g.change()
				marks, err := g.rdb.Keys(g.t().Context(), "unstale:*").Result()
				check(g.t(), err)
				check(g.t(), g.rdb.Del(g.t().Context(), marks...).Err())
			},
		},
	} {
		t.Run(gap.name, func(t *testing.T) {
			t.Parallel()
			postgres := func() *stack.Postgres {
				if gap.own != nil {
					return startPostgres(t, stack.PostgresOptions{Major: 15, Settings: gap.own})
				}
				return sharedPostgres(t, 15)
			}()
			g := newGapped(t, postgres, startRedis(t, stack.RedisOptions{}))
			g.waitReady()
			g.fill()
			g.stop()
			gap.lose(g)
			if !g.cached(key) {
				t.Fatal("the stale key is gone before the start")
			}
			g.start()
			g.healed(gap.cause, 1)
			g.stop()
		})
	}
}

// reconnect replaces the connection that a restart of the server has broken.
func (f *fixture) reconnect() {
	f.t.Helper()
	conn, err := pgx.Connect(within(f.t, 10*time.Second), f.url)
	check(f.t, err)
	f.conn = conn
}

// promote makes the server a standby, at the same address and with its slots,
// and promotes it: its log goes on on a new timeline.
func (g *gapped) promote() {
	t := g.t()
	t.Helper()
	ctx := within(t, time.Minute)
	check(t, g.postgres.Stop(ctx))
	check(t, os.WriteFile(filepath.Join(g.postgres.Dir(), "data", "standby.signal"), nil, 0o644))
	// PostgreSQL removes the file, and wants to own what it touches.
	owner, err := os.Stat(filepath.Join(g.postgres.Dir(), "data"))
	check(t, err)
	stat := owner.Sys().(*syscall.Stat_t)
	check(t, os.Chown(filepath.Join(g.postgres.Dir(), "data", "standby.signal"), int(stat.Uid), int(stat.Gid)))
	check(t, g.postgres.Start(ctx))
	g.reconnect()
	g.exec("SELECT pg_promote()")
	var timeline string
	check(t, g.conn.QueryRow(ctx, "SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)").Scan(&timeline))
	if timeline != "00000002" {
		t.Fatalf("timeline %s", timeline)
	}
}

// The same can happen while the instance runs.
func TestGapWhileRunning(t *testing.T) {
	for _, gap := range []struct {
		name, cause string
		own         map[string]string
		redis       map[string]string
		lose        func(*gapped)
	}{
		{
			name: "Redis was emptied", cause: "emptied",
			lose: func(g *gapped) {
				check(g.t(), g.rdb.FlushAll(g.t().Context()).Err())
				// As a reader without a lease would, before the loss is found.
				check(g.t(), g.rdb.Set(g.t().Context(), key, "stale", 0).Err())
			},
		},
		{
			// The slot has gone on since.
			name: "Redis came back with an older state", cause: "slot_ahead",
			lose: func(g *gapped) {
				ctx := within(g.t(), 30*time.Second)
				check(g.t(), g.rdb.Save(ctx).Err())
				old, err := os.ReadFile(g.dump())
				check(g.t(), err)
				g.change()
				g.barrier()
				g.waitStatus("the change is acknowledged", func(s *admin.Status) bool { return s.Streams[0].Confirmed == s.Streams[0].Position })
				check(g.t(), g.redis.Kill())
				check(g.t(), os.WriteFile(g.dump(), old, 0o644))
				check(g.t(), g.redis.Start(ctx))
			},
		},
		{
			name: "the slot was lost, since Redis hung", cause: "source",
			own: map[string]string{"max_slot_wal_keep_size": "1MB", "min_wal_size": "32MB"},
			lose: func(g *gapped) {
				check(g.t(), g.redis.Pause())
				g.change()
				g.instance.eventually("the slot is lost", func() bool {
					g.exec("UPDATE shops SET name = name WHERE id = 2")
					g.exec("SELECT pg_switch_wal()")
					g.exec("CHECKPOINT")
					var lost bool
					check(g.t(), g.conn.QueryRow(g.t().Context(), "SELECT wal_status = 'lost' FROM pg_replication_slots WHERE slot_name = $1", g.slot).Scan(&lost))
					return lost
				})
				check(g.t(), g.redis.Resume())
			},
		},
		{
			name: "a standby was promoted", cause: "origin", own: map[string]string{},
			lose: func(g *gapped) { g.promote() },
		},
		{
			name: "the primary crashed", cause: "origin", own: map[string]string{},
			lose: func(g *gapped) {
				check(g.t(), g.postgres.StopImmediate(within(g.t(), time.Minute)))
				check(g.t(), g.postgres.Start(within(g.t(), time.Minute)))
				g.reconnect()
			},
		},
		{
			// The postmaster survives that, and none of its children.
			name: "one backend of the primary crashed", cause: "origin", own: map[string]string{},
			lose: func(g *gapped) {
				const children = "SELECT pg_backend_pid(), pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"
				var own, former, now int
				check(g.t(), g.conn.QueryRow(g.t().Context(), children).Scan(&own, &former))
				check(g.t(), syscall.Kill(own, syscall.SIGKILL))
				g.instance.eventually("it answers again, with new children", func() bool {
					conn, err := pgx.Connect(g.t().Context(), g.url)
					if err != nil {
						return false
					}
					g.conn = conn
					return conn.QueryRow(g.t().Context(), children).Scan(&own, &now) == nil && now != former
				})
			},
		},
	} {
		t.Run(gap.name, func(t *testing.T) {
			t.Parallel()
			postgres := func() *stack.Postgres {
				if gap.own != nil {
					return startPostgres(t, stack.PostgresOptions{Major: 15, Settings: gap.own})
				}
				return sharedPostgres(t, 15)
			}()
			g := newGapped(t, postgres, startRedis(t, stack.RedisOptions{}))
			g.waitReady()
			g.fill()
			gap.lose(g)
			g.healed(gap.cause, 2)
			g.stop()
		})
	}
}

// dump is where Redis saves to.
func (f *fixture) dump() string { return filepath.Join(f.redis.Dir(), "data", "dump.rdb") }

// An append-only file that ends too early is a prefix of what Redis had: the
// watermark in it says where to go on, and what was lost is applied again.
func TestRedisThatLostItsLastWritesGetsThemAgain(t *testing.T) {
	t.Parallel()
	g := newGapped(t, sharedPostgres(t, 15), startRedis(t, stack.RedisOptions{Settings: appendOnly}))
	g.waitReady()
	g.fill()
	logs, err := filepath.Glob(filepath.Join(g.redis.Dir(), "data", "appendonlydir", "*.incr.aof"))
	check(t, err)
	if len(logs) != 1 {
		t.Fatalf("append-only files: %q", logs)
	}
	before, err := os.Stat(logs[0])
	check(t, err)
	g.change()
	g.barrier()
	if g.cached(key) {
		t.Fatal("the change did not drop its key")
	}
	check(t, g.redis.Kill())
	check(t, os.Truncate(logs[0], before.Size()))
	check(t, g.redis.Start(within(t, 30*time.Second)))
	g.awaitLine("taking the stream over again", "lost writes")
	// The loss is found before anything is settled beyond it.
	g.barrier()
	g.waitReady()
	g.clean()
	g.stop()
}

// Another cluster behind the same address is another stream: nothing that was
// cached speaks of it.
func TestAnotherClusterBehindTheSameAddress(t *testing.T) {
	t.Parallel()
	r := startRedis(t, stack.RedisOptions{})
	f := newFixtureOn(t, sharedPostgres(t, 15), r)
	other := newFixtureOn(t, startPostgres(t, stack.PostgresOptions{Major: 15}), r)
	for _, each := range []*fixture{f, other} {
		each.exec("CREATE TABLE products (id int PRIMARY KEY, name text)")
		each.exec("CREATE TABLE shops (id int PRIMARY KEY, name text)")
		each.exec("INSERT INTO products VALUES (1, 'of ' || current_database())")
	}
	between := newProxy(t, f.postgres.Addr())
	i := startInstance(t, strings.Replace(f.config(twoEntries), f.postgres.Addr(), between.addr(), 1))
	i.waitReady()
	f.fetch(key, product, 1)
	between.cut()
	other.renameTo(f)
	between.retarget(other.postgres.Addr())
	between.heal()
	i.waitStatus("the other cluster's stream is applied", func(s *admin.Status) bool { return s.Ready && s.Gaps == 2 })
	if f.cached(key) {
		t.Error("a row of the former cluster is still cached")
	}
	if value, _ := other.fetch(key, product, 1); !strings.Contains(value, "of test_") {
		t.Errorf("read %s", value)
	}
	other.exec("UPDATE products SET name = 'new' WHERE id = 1")
	other.barrier()
	if f.cached(key) {
		t.Error("a change in the new cluster dropped nothing")
	}
	if got := i.metric(`unstale_gaps_total{cause="first_start"}`); got != 2 {
		t.Errorf("counted %v\n%s", got, i.log)
	}
	i.stop()
}

// renameTo gives the database the name and the slot of another one.
func (f *fixture) renameTo(other *fixture) {
	f.t.Helper()
	ctx := within(f.t, 30*time.Second)
	check(f.t, f.conn.Close(ctx))
	conn, err := pgx.Connect(ctx, f.postgres.URL())
	check(f.t, err)
	_, err = conn.Exec(ctx, fmt.Sprintf("ALTER DATABASE %s RENAME TO %s", f.slot, other.slot))
	check(f.t, err)
	check(f.t, conn.Close(ctx))
	f.url, f.slot = f.postgres.DatabaseURL(other.slot), other.slot
	f.client = other.client
	f.reconnect()
}

// An entry whose keys or table changed in the configuration is swept, by its old
// name and by its new; one that is gone, by its old; and no other.
func TestChangedConfigurationSweepsWhatChanged(t *testing.T) {
	for _, change := range []struct {
		name          string
		entries       string
		swept, stayed []string
	}{
		{
			name:    "nothing",
			entries: twoEntries,
			stayed:  []string{"product:1", "shop:1", "goods:1"},
		},
		{
			name:    "another key",
			entries: strings.Replace(twoEntries, "product:{id}", "goods:{id}", 1),
			swept:   []string{"product:1", "goods:1"},
			stayed:  []string{"shop:1"},
		},
		{
			name:    "another table",
			entries: strings.Replace(twoEntries, "table: products", "table: shops", 1),
			swept:   []string{"product:1"},
			stayed:  []string{"shop:1", "goods:1"},
		},
		{
			name:    "an entry less",
			entries: strings.SplitAfter(twoEntries, "\n")[1],
			swept:   []string{"product:1"},
			stayed:  []string{"shop:1", "goods:1"},
		},
		{
			name:    "an entry more",
			entries: twoEntries + "  goods: {key: 'goods:{id}', table: products, lease: 500ms}\n",
			swept:   []string{"goods:1"},
			stayed:  []string{"product:1", "shop:1"},
		},
	} {
		t.Run(change.name, func(t *testing.T) {
			t.Parallel()
			g := newGapped(t, sharedPostgres(t, 15), startRedis(t, stack.RedisOptions{}))
			g.waitReady()
			g.stop()
			for _, key := range []string{"product:1", "shop:1", "goods:1"} {
				check(t, g.rdb.Set(within(t, time.Second), key, "cached", 0).Err())
			}
			after := startInstance(t, g.fixture.config(change.entries))
			after.waitReady()
			for _, key := range change.swept {
				if g.cached(key) {
					t.Errorf("%s is still there", key)
				}
			}
			for _, key := range change.stayed {
				if !g.cached(key) {
					t.Errorf("%s is gone", key)
				}
			}
			if got := after.gaps(); got != 0 {
				t.Errorf("counted %d gaps, want none: the stream lost nothing\n%s", got, after.log)
			}
			after.stop()
		})
	}
}

// A second instance waits for the slot, and takes over when the first is gone.
func TestSecondInstanceWaitsAndTakesOver(t *testing.T) {
	t.Parallel()
	g := newGapped(t, sharedPostgres(t, 15), startRedis(t, stack.RedisOptions{}))
	g.waitReady()
	second := startInstance(t, g.fixture.config(twoEntries))
	second.awaitLine("standing by", "another instance owns the stream")
	for range 20 { // changes, while it waits
		g.change()
		g.barrier()
	}
	g.fill()
	if s, err := second.status(); err != nil || s.Ready {
		t.Errorf("the second instance, which waits: %+v, %v", s, err)
	}
	g.kill()
	began := time.Now()
	g.change()
	second.waitReady()
	g.barrier()
	t.Logf("took over %s after the kill", time.Since(began).Round(time.Millisecond))
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("took %s to take over", took)
	}
	g.clean()
	if got := second.lines("standing by"); got != 1 {
		t.Errorf("said %d times that it waits, want once\n%s", got, second.log)
	}
	if got := second.gaps(); got != 0 {
		t.Errorf("found %d gaps, want none: nothing was lost\n%s", got, second.log)
	}
	second.stop()
}

// An instance that was frozen with a batch in hand, lost the stream to another
// meanwhile and wakes up is fenced: the batch does no harm, and it waits. Its
// connection to PostgreSQL has died without a word, so it is Redis that tells.
func TestFrozenInstanceIsFenced(t *testing.T) {
	t.Parallel()
	g := newGapped(t, sharedPostgres(t, 15), startRedis(t, stack.RedisOptions{}))
	g.waitReady()
	g.stop()
	database, cache := newProxy(t, g.postgres.Addr()), newProxy(t, g.redis.Addr())
	frozen := startInstance(t, strings.NewReplacer(g.postgres.Addr(), database.addr(), g.redis.Addr(), cache.addr()).
		Replace(g.fixture.config(twoEntries)))
	frozen.waitReady()
	second := startInstance(t, g.fixture.config(twoEntries))
	second.awaitLine("standing by", "another instance owns the stream")

	cache.swallow()
	g.change()
	frozen.awaitLine("holding", "server=redis")
	database.swallow()
	check(t, frozen.cmd.Process.Signal(syscall.SIGSTOP))
	g.exec("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1", g.slot)
	second.waitReady()
	g.barrier()
	g.fill()
	mark := g.rdb.HGetAll(within(t, time.Second), g.markOf(second)).Val()

	cache.heal()
	check(t, frozen.cmd.Process.Signal(syscall.SIGCONT))
	frozen.awaitLine("another instance has taken the stream over")
	database.heal()
	frozen.waitStatus("the first waits for the stream", func(s *admin.Status) bool { return s.State == "standby" })
	if !g.cached(key) {
		t.Error("it dropped a key after it had lost the stream")
	}
	now := g.rdb.HGetAll(within(t, time.Second), g.markOf(second)).Val()
	if now["owner"] != mark["owner"] || now["epoch"] != mark["epoch"] {
		t.Errorf("the watermark changed its owner: %q, was %q", now, mark)
	}
	g.change()
	g.barrier()
	g.clean()
	if got := second.lines("taking the stream over again") + second.gaps(); got != 0 {
		t.Errorf("the second was disturbed\n%s", second.log)
	}
	for _, server := range []string{"database", "source", "redis"} {
		if got := frozen.lines("holding", "server="+server); got > 1 {
			t.Errorf("the first said %d times that it holds for %s\n%s", got, server, frozen.log)
		}
	}
	second.stop()
	frozen.waitReady() // its turn again
	frozen.stop()
}

// markOf is the key of the watermark of an instance's stream.
func (f *fixture) markOf(i *instance) string {
	f.t.Helper()
	s, err := i.status()
	check(f.t, err)
	marks, err := f.rdb.Keys(within(f.t, time.Second), "unstale:*:"+s.Streams[0].Name).Result()
	check(f.t, err)
	if len(marks) != 1 {
		f.t.Fatalf("watermarks of %s: %q", s.Streams[0].Name, marks)
	}
	return marks[0]
}
