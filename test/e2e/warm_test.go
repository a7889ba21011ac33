package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"github.com/unstale/unstale/internal/admin"
	"github.com/unstale/unstale/internal/stack"
)

// warmEntries are the ways in which a row can be kept, and one that the control
// fills in its own way.
const warmEntries = `  product: {key: 'product:{id}', table: products, on_change: warm}
  fields: {key: 'fields:{id}', table: products, on_change: refresh, format: hash}
  control: {key: 'control:{id}', table: products}`

const warmTable = `CREATE TABLE products (id int PRIMARY KEY, name text, price numeric(10,2), changed timestamptz DEFAULT now())`

// A command is a subcommand of the built binary that runs beside the test.
type command struct {
	t     *testing.T
	cmd   *exec.Cmd
	log   *logBuffer
	out   *logBuffer
	ended chan struct{}
	exit  int
}

func startCommand(t *testing.T, args ...string) *command {
	t.Helper()
	c := &command{t: t, cmd: exec.Command(binary, args...), log: &logBuffer{}, out: &logBuffer{}, ended: make(chan struct{})}
	c.cmd.Stderr, c.cmd.Stdout = c.log, c.out
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(c.ended)
		_ = c.cmd.Wait() // the exit code says it
		c.exit = c.cmd.ProcessState.ExitCode()
	}()
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill() // it may have ended
		<-c.ended
	})
	return c
}

// wait waits for the end and returns the exit code.
func (c *command) wait() int {
	c.t.Helper()
	select {
	case <-c.ended:
		return c.exit
	case <-time.After(time.Minute):
		c.t.Fatalf("still running after a minute:\n%s", c.log)
		return 0
	}
}

// change changes random rows, several hundred a second in each of three sessions,
// until stop is called, which returns how many it were.
func (f *fixture) change(rows int) (stop func() int64) {
	f.t.Helper()
	ctx, cancel := context.WithCancel(f.t.Context())
	var changes atomic.Int64
	var writers sync.WaitGroup
	for range 3 {
		conn := connectTo(f.t, f.url)
		writers.Go(func() {
			tick := time.NewTicker(2 * time.Millisecond)
			defer tick.Stop()
			for ctx.Err() == nil {
				<-tick.C
				// A statement in the middle is let end.
				if _, err := conn.Exec(context.WithoutCancel(ctx), "UPDATE products SET price = price + 1, changed = clock_timestamp() WHERE id = $1", 1+rand.N(rows)); err != nil {
					f.t.Error(err)
					return
				}
				changes.Add(1)
			}
		})
	}
	stop = func() int64 {
		cancel()
		writers.Wait()
		return changes.Load()
	}
	f.t.Cleanup(func() { stop() })
	return stop
}

// compare returns how many keys of the form prefix:id are cached, and which of
// them do not hold their row.
func (f *fixture) compare(prefix string, hash bool) (cached int, wrong []string) {
	f.t.Helper()
	ctx := within(f.t, time.Minute)
	conn := connectTo(f.t, f.url+"&timezone=UTC")
	rows, err := conn.Query(ctx, `SELECT id, row_to_json(p)::text, (SELECT json_object_agg(key, value) FROM json_each_text(row_to_json(p)) WHERE value IS NOT NULL) FROM products p`)
	if err != nil {
		f.t.Fatal(err)
	}
	var id int
	var want string
	var wantFields map[string]string
	pipe := f.rdb.Pipeline()
	var check []func()
	_, err = pgx.ForEachRow(rows, []any{&id, &want, &wantFields}, func() error {
		key, want, wantFields := fmt.Sprintf("%s:%d", prefix, id), want, wantFields
		if hash {
			reply := pipe.HGetAll(ctx, key)
			check = append(check, func() {
				switch got := reply.Val(); {
				case len(got) == 0:
					return
				case !maps.Equal(got, wantFields):
					wrong = append(wrong, fmt.Sprintf("%s: got %v, want %v", key, got, wantFields))
				}
				cached++
			})
			return nil
		}
		reply := pipe.Get(ctx, key)
		check = append(check, func() {
			switch got, err := reply.Result(); {
			case err == redis.Nil:
				return
			case got != want:
				wrong = append(wrong, fmt.Sprintf("%s: got %s, want %s", key, got, want))
			}
			cached++
		})
		wantFields = nil
		return nil
	})
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := pipe.Exec(ctx); err != nil && err != redis.Nil {
		f.t.Fatal(err)
	}
	for _, c := range check {
		c()
	}
	return cached, wrong
}

// warmProgress is what Redis keeps of an interrupted warm.
func (f *fixture) warmProgress(entry string) (rows int) {
	f.t.Helper()
	keys, err := f.rdb.Keys(within(f.t, 10*time.Second), "unstale:*:warm:"+entry).Result()
	if err != nil {
		f.t.Fatal(err)
	}
	for _, key := range keys {
		var note struct{ Stored, Cached int }
		text, err := f.rdb.Get(within(f.t, 10*time.Second), key).Bytes()
		if err == redis.Nil {
			continue
		}
		if err != nil {
			f.t.Fatal(err)
		}
		if err := json.Unmarshal(text, &note); err != nil {
			f.t.Fatal(err)
		}
		rows += note.Stored + note.Cached
	}
	return rows
}

// A warm is killed in the middle and goes on, while rows change all the time.
// Afterwards nearly every row is cached, and none is old. The control loads the
// same rows under the same changes, and writes them with plain SETs.
func TestAWarmThatIsKilledGoesOnAndLeavesNothingOld(t *testing.T) {
	const rows = 20_000
	f := newFixture(t, 18)
	f.exec(warmTable)
	f.exec("INSERT INTO products SELECT i, 'product ' || i, i FROM generate_series(1, $1) i", rows)
	i := startInstance(t, f.config(warmEntries))
	i.waitReady()

	stop := f.change(rows)
	first := startCommand(t, "warm", "product", "--rate", "8000", "-c", i.config)
	i.eventually("it has come some way", func() bool { return f.warmProgress("product") > 0 })
	if err := first.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	first.wait()
	second := startCommand(t, "warm", "--json", "-c", i.config)
	if exit := second.wait(); exit != 0 {
		t.Fatalf("exit %d:\n%s", exit, second.log)
	}
	if !strings.Contains(second.log.String(), "product: going on behind product:") {
		t.Errorf("it did not go on:\n%s", second.log)
	}
	var result struct {
		Entries []struct {
			Entry                                       string
			Done, Resumed                               bool
			Rows, Stored, Cached, Refused, Busy, Failed int
		}
	}
	if err := json.Unmarshal([]byte(second.out.String()), &result); err != nil {
		t.Fatalf("%v:\n%s", err, second.out)
	}
	t.Logf("%+v", result)
	for n, entry := range result.Entries {
		if want := []string{"product", "fields"}[n]; entry.Entry != want || !entry.Done || entry.Rows != rows || entry.Failed > 0 || entry.Resumed != (n == 0) {
			t.Errorf("%+v", entry)
		}
	}

	// The control: a chunk is read, and then written.
	var controlled int
	for from := 0; from < rows; from += 2000 {
		found, err := f.conn.Query(within(t, time.Minute), "SELECT id, row_to_json(p)::text FROM products p WHERE id > $1 AND id <= $1 + 2000", from)
		if err != nil {
			t.Fatal(err)
		}
		values := map[int]string{}
		var id int
		var value string
		if _, err := pgx.ForEachRow(found, []any{&id, &value}, func() error { values[id] = value; return nil }); err != nil {
			t.Fatal(err)
		}
		if from == 0 {
			// One change comes in between, for certain.
			f.exec("UPDATE products SET name = name || '!' WHERE id = 1")
			f.barrier()
		}
		pipe := f.rdb.Pipeline()
		for id, value := range values {
			pipe.Set(t.Context(), fmt.Sprint("control:", id), value, time.Hour)
		}
		replies, err := pipe.Exec(within(t, time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		controlled += len(replies)
	}

	changes := stop()
	f.barrier()
	for _, prefix := range []string{"product", "fields"} {
		// What changes have dropped last is still being loaded.
		i.eventually("nearly every row is cached", func() bool {
			cached, wrong := f.compare(prefix, prefix == "fields")
			if len(wrong) > 0 {
				t.Fatalf("%s: %d of %d are not their row, such as %s", prefix, len(wrong), cached, wrong[0])
			}
			t.Logf("%s: %d cached of %d, after %d changes", prefix, cached, rows, changes)
			return cached >= rows*99/100
		})
	}
	cached, wrong := f.compare("control", false)
	t.Logf("control: %d cached of %d, %d wrong", cached, controlled, len(wrong))
	if len(wrong) == 0 {
		t.Error("the control has left nothing old: this proves nothing")
	}
	if n := f.warmProgress("product"); n != 0 {
		t.Errorf("progress of %d rows is left", n)
	}
	i.stop()
}

// Over Kafka too, where offsets tell nothing of the log: each value gets a shield.
// Who has no database has nothing to load from, and is told so.
func TestAWarmOverKafkaThatIsKilledGoesOnAndLeavesNothingOld(t *testing.T) {
	const rows = 20_000
	f := newTopicFixture(t, 15, avro)
	f.followed, f.told = []string{"products"}, map[string]string{"snapshot.mode": "no_data"}
	f.exec(warmTable)
	f.exec("INSERT INTO products SELECT i, 'product ' || i, i FROM generate_series(1, $1) i", rows)
	f.connectDebezium()
	f.eventually("there is a topic", func() bool {
		f.exec("UPDATE products SET price = price WHERE id = 1")
		_, err := f.ends(within(t, 10*time.Second))
		return err == nil
	})
	text := f.config("  product: {key: 'product:{id}', table: products, on_change: warm}\n  seldom: {key: 'seldom:{id}', table: products, on_change: update}\n")
	alone, _ := writeConfig(t, strings.TrimPrefix(text, "database: "+f.url+"\n"))
	text = strings.Replace(text, "  product:", "  priced: {key: 'priced:{id}', query: 'SELECT id, price FROM products WHERE id = @id', on_change: refresh}\n  product:", 1)
	path, _ := writeConfig(t, text)
	for path, want := range map[string]string{path: "no unstale run has worked with this Redis and partition 0 of " + f.slot + ".public.products yet", alone: "give `database` the address of the primary"} {
		if _, said, exit := unstaleCommand(t, "warm", "-c", path); exit != 1 || !strings.Contains(said, want) {
			t.Errorf("exit %d, want 1 with %q:\n%s", exit, want, said)
		}
	}
	i := startInstance(t, text)
	i.waitReady()

	stop := f.change(rows)
	first := startCommand(t, "warm", "product", "--rate", "8000", "-c", i.config)
	i.eventually("it has come some way", func() bool {
		select {
		case <-first.ended:
			t.Fatalf("exit %d:\n%s", first.exit, first.log)
		default:
		}
		return f.warmProgress("product") > 0
	})
	if err := first.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	first.wait()
	second := startCommand(t, "warm", "-c", i.config)
	if exit := second.wait(); exit != 0 || !strings.Contains(second.log.String(), "product: going on behind product:") {
		t.Fatalf("exit %d:\n%s", exit, second.log)
	}
	t.Log(second.out)
	changes := stop()
	f.barrier()
	for _, prefix := range []string{"product", "seldom"} {
		// What changes have dropped last is still being loaded.
		i.eventually("nearly every row is cached", func() bool {
			cached, wrong := f.compare(prefix, false)
			if len(wrong) > 0 {
				t.Fatalf("%s: %d of %d are not their row, such as %s", prefix, len(wrong), cached, wrong[0])
			}
			t.Logf("%s: %d cached of %d, after %d changes", prefix, cached, rows, changes)
			return cached >= rows*99/100
		})
	}
	i.eventually("nearly every result is cached", func() bool {
		cached, _, wrong := f.compareWith("SELECT 'priced:' || id, row_to_json((SELECT r FROM (SELECT id, price) r))::text FROM products")
		if len(wrong) > 0 {
			t.Fatalf("%d of %d are not the query's result, such as %s", len(wrong), cached, wrong[0])
		}
		t.Logf("priced: %d cached of %d", cached, rows)
		return cached >= rows*99/100
	})
	if n := f.warmProgress("product") + f.warmProgress("seldom") + f.warmProgress("priced"); n != 0 {
		t.Errorf("progress of %d rows is left", n)
	}
	i.stop()
	if _, said, exit := unstaleCommand(t, "warm", "product", "-c", path); exit != 0 || !strings.Contains(said, "no unstale run reads as group "+f.slot) {
		t.Errorf("exit %d:\n%s", exit, said)
	}
}

// Somebody types it for the first time: what is wrong is said with what to do,
// and a dry run writes nothing.
func TestWarmSaysWhatStandsInTheWay(t *testing.T) {
	f := newFixture(t, 15)
	f.exec(warmTable)
	f.exec("INSERT INTO products SELECT i, 'product ' || i, i FROM generate_series(1, 100) i")
	path, _ := writeConfig(t, f.config(warmEntries))
	refused := func(exit int, want string, args ...string) {
		t.Helper()
		out, said, got := unstaleCommand(t, append([]string{"warm", "-c", path}, args...)...)
		if got != exit || !strings.Contains(said, want) {
			t.Errorf("warm %v: exit %d, want %d with %q:\n%s%s", args, got, exit, want, out, said)
		}
	}
	refused(2, "the entries that can be loaded: product, fields", "prodct")
	refused(2, "--rate", "--rate", "-1")
	refused(1, "entry control is only invalidated", "control")
	refused(1, "no unstale run")
	if n := f.rdb.DBSize(t.Context()).Val(); n != 0 {
		t.Errorf("%d keys", n)
	}

	i := startInstance(t, f.config(warmEntries))
	i.waitReady()
	path = i.config
	before := f.rdb.DBSize(t.Context()).Val()
	out, said, exit := unstaleCommand(t, "warm", "-c", path, "--dry-run", "--rate", "10")
	if exit != 0 || !strings.Contains(out, "product: about 100 rows") || !strings.Contains(out, "0 are cached; 10 s at this rate") {
		t.Errorf("dry run: exit %d:\n%s%s", exit, out, said)
	}
	if n := f.rdb.DBSize(t.Context()).Val(); n != before {
		t.Errorf("a dry run has made %d keys of %d", n, before)
	}
	out, said, exit = unstaleCommand(t, "warm", "product", "-c", path)
	if exit != 0 || !strings.Contains(out, "product: 100 rows in ") || !strings.Contains(out, "100 loaded") {
		t.Errorf("exit %d:\n%s%s", exit, out, said)
	}
	out, _, _ = unstaleCommand(t, "warm", "product", "-c", path)
	if !strings.Contains(out, "100 cached already") {
		t.Errorf("the second time:\n%s", out)
	}
	i.stop()
	f.exec("SELECT pg_drop_replication_slot($1)", f.slot)
	refused(1, "slot "+f.slot+" is gone")
}

// Wide rows are as easy to count as to load: a statement that would answer with too
// much is asked for less.
func TestADryRunOfWideRowsLooksAtFewer(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 15)
	f.exec("CREATE TABLE products (id int PRIMARY KEY, body text)")
	f.exec("INSERT INTO products SELECT i, repeat('x', 100000) FROM generate_series(1, 300) i")
	f.exec("CREATE TABLE longer (id int PRIMARY KEY, body text)")
	f.exec("INSERT INTO longer VALUES (1, repeat('x', 9000000))")
	f.exec("ANALYZE products")
	i := startInstance(t, f.config(`  product: {key: 'product:{id}', table: products, on_change: refresh}
  longer: {key: 'longer:{id}', table: longer, on_change: refresh}`))
	i.waitReady()
	out, said, exit := unstaleCommand(t, "warm", "--dry-run", "-c", i.config)
	if exit != 0 || !strings.Contains(out, "product: about 300 rows, 28.6 MB of values; of the first 64, 0 are cached") ||
		!strings.Contains(out, "longer: about 1 rows; the first of them cannot be loaded") {
		t.Errorf("exit %d:\n%s%s", exit, out, said)
	}
	i.stop()
}

// A warm whose work is swept away has not done what it was asked for.
func TestAWarmThatIsSweptMeanwhileSaysSo(t *testing.T) {
	t.Parallel()
	f := newFixtureOn(t, sharedPostgres(t, 15), startRedis(t, stack.RedisOptions{}))
	f.exec(warmTable)
	f.exec("INSERT INTO products SELECT i, 'product ' || i, i FROM generate_series(1, 3000) i")
	i := startInstance(t, f.config(warmEntries))
	i.waitReady()
	for _, test := range []struct {
		name  string // the cause, as it is said
		sweep func()
	}{
		{"emptied", func() { check(t, f.rdb.FlushAll(within(t, 10*time.Second)).Err()) }},
		{"truncated", func() { f.exec("TRUNCATE products") }},
	} {
		c := startCommand(t, "warm", "product", "--rate", "300", "-c", i.config)
		i.eventually("it has come some way", func() bool { return f.warmProgress("product") > 0 })
		test.sweep()
		if exit := c.wait(); exit != 1 || !strings.Contains(c.log.String(), "swept meanwhile: product; what was loaded before is gone") {
			t.Errorf("%s: exit %d:\n%s", test.name, exit, c.log)
		}
		if n := f.warmProgress("product"); n != 0 {
			t.Errorf("%s: the next would go on behind %d rows", test.name, n)
		}
		// It was ready until it noticed.
		i.eventually("it is swept", func() bool { return i.saidInOrder("cause="+test.name, "msg=ready") })
	}
	i.stop()
}

// Ctrl-C ends what is under way and says how to go on. A table that has changed
// since is begun anew: its keys have been swept.
func TestAnInterruptedWarmOfAChangedTableBeginsAnew(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 15)
	f.exec(warmTable)
	f.exec("INSERT INTO products SELECT i, 'product ' || i, i FROM generate_series(1, 5000) i")
	i := startInstance(t, f.config(warmEntries))
	i.waitReady()
	interrupted := func() {
		t.Helper()
		c := startCommand(t, "warm", "product", "--restart", "--rate", "500", "-c", i.config)
		i.eventually("it has come some way", func() bool { return f.warmProgress("product") > 0 })
		if err := c.cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		if exit := c.wait(); exit != 1 || !strings.Contains(c.log.String(), "the same command goes on where this one stopped") {
			t.Fatalf("exit %d:\n%s", exit, c.log)
		}
		cached, _ := f.compare("product", false)
		if done := f.warmProgress("product"); done != cached {
			t.Errorf("%d rows are done by what is kept, %d are cached", done, cached)
		}
	}
	interrupted()
	if _, said, exit := unstaleCommand(t, "warm", "product", "-c", i.config); exit != 0 || !strings.Contains(said, "going on behind") {
		t.Errorf("exit %d:\n%s", exit, said)
	}

	f.exec("TRUNCATE products")
	f.exec("INSERT INTO products SELECT i, 'product ' || i, i FROM generate_series(1, 5000) i")
	f.barrier()
	// The look at the catalog shows a TRUNCATE as well. Its sweep may join the other.
	i.eventually("that is swept too", func() bool { return i.saidInOrder("the catalog shows a change", "msg=ready") })
	// What the service itself has loaded behind that is no progress of a warm.
	i.eventually("nothing is left to load", func() bool { return i.metric("unstale_loads_pending") == 0 })
	f.rdb.Unlink(t.Context(), f.rdb.Keys(t.Context(), "product:*").Val()...)
	interrupted()
	f.exec("ALTER TABLE products ADD COLUMN more int DEFAULT 7")
	var said string
	i.eventually("the change has been taken up", func() bool {
		var exit int
		_, said, exit = unstaleCommand(t, "warm", "product", "-c", i.config)
		return exit == 0
	})
	if !strings.Contains(said, "beginning anew") {
		t.Errorf("it went on:\n%s", said)
	}
	if cached, wrong := f.compare("product", false); cached != 5000 || len(wrong) > 0 {
		t.Errorf("%d cached, %d wrong", cached, len(wrong))
	}
	i.stop()
}

// Somebody starts the service with other columns while a warm of the old ones
// runs. What it sweeps must not be filled behind it with rows of the old shape.
func TestAWarmDoesNotOutliveItsConfiguration(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 15)
	f.exec(warmTable)
	f.exec("INSERT INTO products SELECT i, 'product ' || i, i FROM generate_series(1, 20000) i")
	before := startInstance(t, f.config("  product: {key: 'product:{id}', table: products, on_change: warm}"))
	before.waitReady()
	c := startCommand(t, "warm", "--rate", "1000", "-c", before.config)
	before.eventually("it has come some way", func() bool { return f.warmProgress("product") > 0 })
	before.stop()
	after := startInstance(t, f.config("  product: {key: 'product:{id}', table: products, on_change: warm, columns: [id]}"))
	after.waitReady()
	if exit := c.wait(); exit != 1 || !strings.Contains(c.log.String(), "entry product is not what it was when this began") {
		t.Errorf("exit %d:\n%s", exit, c.log)
	}
	f.wantNoNames("product:*")
}

// An instance that has lost its stream has keys to load still. It must not fill
// what its successor, which has other columns, has swept.
func TestAnInstanceThatHasLostItsStreamLoadsNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 15)
	f.exec(warmTable)
	f.exec("INSERT INTO products SELECT i, 'product ' || i, i FROM generate_series(1, 1000) i")
	slow := func(columns string) string {
		return f.config("  product: {key: 'product:{id}', table: products, on_change: refresh"+columns+"}") + "\nload: {rows_per_second: 100, connections: 1}\n"
	}
	before := startInstance(t, slow(""))
	before.waitReady()
	after := startInstance(t, slow(", columns: [id]"))
	f.exec("UPDATE products SET price = price + 1")
	f.barrier()
	if err := before.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	f.exec("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1", f.slot)
	after.waitReady()
	if err := before.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	before.waitStatus("it stands by", func(s *admin.Status) bool { return s.State == "standby" })
	before.eventually("it has nothing to load any more", func() bool { return before.metric("unstale_loads_pending") == 0 })
	if n := before.metric(`unstale_loads_total{entry="product",result="forgotten"}`); n == 0 {
		t.Error("it had nothing to load: this proves nothing")
	}
	f.wantNoNames("product:*")
}

// wantNoNames demands that no cached value has the column name.
func (f *fixture) wantNoNames(pattern string) {
	f.t.Helper()
	keys, err := f.rdb.Keys(within(f.t, time.Minute), pattern).Result()
	if err != nil {
		f.t.Fatal(err)
	}
	var old []string
	for _, key := range keys {
		if strings.Contains(f.value(key), "name") {
			old = append(old, key)
		}
	}
	if len(old) > 0 {
		f.t.Errorf("%d of %d cached values are of the old shape, such as %s", len(old), len(keys), old[0])
	}
}

// Nobody reads the stream while a warm runs and rows change. What it loads may be
// old then, as everything is while run is away; run begins with those changes.
func TestWhatIsWarmedWithoutRunIsMadeRightByTheNext(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 18)
	f.exec(warmTable)
	f.exec("INSERT INTO products SELECT i, 'product ' || i, i FROM generate_series(1, 3000) i")
	i := startInstance(t, f.config(warmEntries))
	i.waitReady()
	i.stop()
	stop := f.change(3000)
	c := startCommand(t, "warm", "--rate", "3000", "-c", i.config)
	if exit := c.wait(); exit != 0 || !strings.Contains(c.log.String(), "no unstale run reads slot") {
		t.Fatalf("exit %d:\n%s", exit, c.log)
	}
	stop()
	if _, wrong := f.compare("product", false); len(wrong) == 0 {
		t.Error("nothing has changed behind the warm: this proves nothing")
	}
	i.start()
	i.waitReady()
	f.barrier()
	for _, prefix := range []string{"product", "fields"} {
		i.eventually("every row is cached", func() bool {
			cached, wrong := f.compare(prefix, prefix == "fields")
			if len(wrong) > 0 {
				t.Fatalf("%s: %d of %d are not their row, such as %s", prefix, len(wrong), cached, wrong[0])
			}
			return cached == 3000
		})
	}
	i.stop()
}

// A row decides what stands in a hash tag, so it may be nothing: that key is left
// alone, and the service goes on, also when it is started again.
func TestARowWithAnEmptyTagStopsNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 15)
	f.exec("CREATE TABLE products (sku text PRIMARY KEY)")
	f.exec("INSERT INTO products VALUES (''), ('a')")
	i := startInstance(t, f.config("  product: {key: '{{{sku}}}:p', table: products, on_change: refresh}\n"))
	i.waitReady()
	f.exec("INSERT INTO products VALUES ('b')")
	f.exec("DELETE FROM products WHERE sku = ''")
	f.exec("INSERT INTO products VALUES (''), ('c')")
	i.eventually("the others are loaded", func() bool { return f.value("{b}:p") != "" && f.value("{c}:p") != "" })
	i.awaitLine("a value cannot be loaded", "key={}:p", "empty hash tag")
	i.stop()
	i.start()
	i.waitReady()
	out, said, exit := unstaleCommand(t, "warm", "product", "-c", i.config)
	if exit != 1 || !strings.Contains(said, "1 rows could not be loaded") || f.value("{a}:p") == "" {
		t.Errorf("warm: exit %d:\n%s%s", exit, out, said)
	}
	if got := f.value("{}:p"); got != "" {
		t.Errorf("cached under an empty tag: %s", got)
	}
}

// A unique index may be dropped while the service runs. Rows that then have one
// key must not keep the others of the entry from being loaded.
func TestRowsWithOneKeyHoldNoOther(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 15)
	f.exec("CREATE TABLE products (id int PRIMARY KEY, sku text)")
	f.exec("CREATE UNIQUE INDEX by_sku ON products (sku)")
	f.exec("ALTER TABLE products REPLICA IDENTITY FULL")
	i := startInstance(t, f.config("  product: {key: 'product:{sku}', table: products, on_change: refresh}\n"))
	i.waitReady()
	f.exec("DROP INDEX by_sku")
	f.exec("INSERT INTO products VALUES (1, 'a'), (2, 'b'), (3, 'b'), (4, 'c')")
	i.awaitLine("a value cannot be loaded", "key=product:b", "make that unique again")
	f.exec("INSERT INTO products VALUES (5, 'd')")
	i.eventually("the others are loaded", func() bool {
		return f.value("product:a") != "" && f.value("product:c") != "" && f.value("product:d") != ""
	})
	if got := f.value("product:b"); got != "" || i.lines("holding what is to be loaded") > 0 {
		t.Errorf("cached of two rows: %q\n%s", got, i.log)
	}
}

// One row that is too long to be kept is left to the database, and costs its
// neighbours nothing, nor the service its memory.
func TestALongRowIsNotLoaded(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 15)
	f.exec("CREATE TABLE products (id int PRIMARY KEY, body text)")
	i := startInstance(t, f.config("  product: {key: 'product:{id}', table: products, on_change: warm, lease: 30s}\n"))
	i.waitReady()
	before := i.residentMax()
	f.exec("INSERT INTO products SELECT i, repeat('x', 40000000) FROM generate_series(1, 6) i")
	f.exec("INSERT INTO products SELECT i, repeat('x', 5000000) FROM generate_series(7, 12) i") // not from the log, but by a load
	i.awaitLine("a value cannot be loaded", "narrow the entry by columns")
	i.eventually("the others are loaded", func() bool {
		for id := 7; id <= 12; id++ {
			if f.value(fmt.Sprint("product:", id)) == "" {
				return false
			}
		}
		return i.metric("unstale_loads_pending") == 0
	})
	if n := f.rdb.Exists(t.Context(), "product:1", "product:2", "product:3", "product:4", "product:5", "product:6").Val(); n != 0 {
		t.Errorf("%d long rows are cached", n)
	}
	if grown := i.residentMax() - before; grown > 150<<20 {
		t.Errorf("memory has grown by %d MB", grown>>20)
	}
}
