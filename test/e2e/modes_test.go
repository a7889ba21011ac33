package e2e

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/unstale/unstale"
	"github.com/unstale/unstale/internal/deadletter"
)

// modes are one entry of each kind over one table. The names of the keys begin
// with those of the entries.
const modes = `  invalidate: {key: 'invalidate:{id}', table: products}
  update: {key: 'update:{id}', table: products, on_change: update}
  warm: {key: 'warm:{id}', table: products, on_change: warm}
  refresh: {key: 'refresh:{id}', table: products, on_change: refresh}
  hash: {key: 'hash:{id}', table: products, on_change: warm, format: hash}
  few: {key: 'few:{id}', table: products, on_change: warm, columns: [price, id], ttl: 1h}
`

// newModes runs unstale with an entry of each kind over products, and waits
// until changes may set values.
func newModes(t *testing.T, major int, create string) (*fixture, *instance) {
	t.Helper()
	f := newFixture(t, major)
	f.exec(create)
	i := startInstance(t, f.config(modes))
	i.waitReady()
	f.exec("CREATE TABLE begun (id int)") // the log goes on: what follows is new
	return f, i
}

const createProducts = "CREATE TABLE products (id int PRIMARY KEY, name text, price numeric(10,2))"

// get returns what is cached, "" if nothing is.
func (f *fixture) value(key string) string {
	f.t.Helper()
	text, err := f.rdb.Get(within(f.t, 10*time.Second), key).Result()
	if err != nil && err != redis.Nil {
		f.t.Fatal(err)
	}
	return text
}

// fetchKept reads a key of a kept entry through the client.
func (f *fixture) fetchKept(key, query string, arguments ...any) string {
	f.t.Helper()
	got, err := f.client.FetchKept(within(f.t, 30*time.Second), key, func(ctx context.Context) (text []byte, lsn int64, err error) {
		err = f.conn.QueryRow(ctx, "SELECT ("+query+"), "+unstale.LSN, arguments...).Scan(&text, &lsn)
		return text, lsn, err
	})
	if err != nil {
		f.t.Fatalf("fetch %s: %v", key, err)
	}
	return string(got)
}

func (f *fixture) want(what, got, want string) {
	f.t.Helper()
	if got != want {
		f.t.Errorf("%s: got %.200q, want %.200q", what, got, want)
	}
}

// Each mode does with a change what its name says, from insert to delete.
func TestModes(t *testing.T) {
	for _, major := range []int{15, 18} {
		t.Run(fmt.Sprint("PostgreSQL ", major), func(t *testing.T) {
			f, i := newModes(t, major, createProducts)
			f.exec("INSERT INTO products VALUES (1, 'A \"b\"', 1)")
			f.barrier()
			row := `{"id":1,"name":"A \"b\"","price":1.00}`
			f.want("update, not cached", f.value("update:1"), "")
			f.want("warm", f.value("warm:1"), row)
			f.want("columns in the order of the table", f.value("few:1"), `{"id":1,"price":1.00}`)
			if ttl := f.rdb.TTL(t.Context(), "few:1").Val(); ttl < 50*time.Minute || ttl > time.Hour {
				t.Errorf("few:1 lives for %s", ttl)
			}
			if diff := cmp.Diff(map[string]string{"id": "1", "name": `A "b"`, "price": "1.00"}, f.rdb.HGetAll(t.Context(), "hash:1").Val()); diff != "" {
				t.Errorf("hash (-want +got):\n%s", diff)
			}
			i.eventually("refresh has loaded", func() bool { return f.value("refresh:1") == row })

			f.want("a hit", f.fetchKept("warm:1", product, 1), row)
			f.want("a load", f.fetchKept("update:1", product, 1), row)
			f.fetch("invalidate:1", product, 1)
			f.exec("UPDATE products SET name = NULL, price = 2.5 WHERE id = 1")
			f.barrier()
			row = `{"id":1,"name":null,"price":2.50}`
			f.want("invalidate", f.value("invalidate:1"), "")
			f.want("update, cached", f.value("update:1"), row)
			f.want("warm", f.value("warm:1"), row)
			if diff := cmp.Diff(map[string]string{"id": "1", "price": "2.50"}, f.rdb.HGetAll(t.Context(), "hash:1").Val()); diff != "" {
				t.Errorf("hash (-want +got):\n%s", diff)
			}
			i.eventually("refresh has loaded", func() bool { return f.value("refresh:1") == row })

			f.exec("UPDATE products SET id = 2 WHERE id = 1")
			f.barrier()
			row = `{"id":2,"name":null,"price":2.50}`
			f.want("the old key", f.value("warm:1")+f.value("update:1"), "")
			f.want("the new key", f.value("warm:2"), row)
			f.want("the new key was not cached", f.value("update:2"), "")
			i.eventually("refresh has loaded", func() bool { return f.value("refresh:2") == row && f.value("refresh:1") == "" })

			f.exec("DELETE FROM products")
			f.barrier()
			f.want("deleted", f.value("warm:2")+f.value("refresh:2"), "")
			if n := f.rdb.Exists(t.Context(), "hash:2").Val(); n != 0 {
				t.Error("the hash of a deleted row is cached")
			}
			i.stop()
		})
	}
}

// The load of a reader may show a commit that the stream brings only later.
// Until it has, no older change may set the key back; one that is newer sets it.
func TestAShieldHoldsUntilTheStreamHasPassed(t *testing.T) {
	f, i := newModes(t, 15, createProducts)
	f.exec("INSERT INTO products VALUES (1, 'first', 1)")
	f.barrier()
	f.rdb.Del(t.Context(), "warm:1")
	row := f.fetchKept("warm:1", product, 1)
	f.want("filled", f.value("warm:1"), row)
	if n := f.rdb.Exists(t.Context(), "{warm:1}:l").Val(); n != 1 {
		t.Fatal("the fill left no shield")
	}
	f.exec("UPDATE products SET name = 'second'")
	f.barrier()
	f.want("a change behind the shield", f.value("warm:1"), `{"id":1,"name":"second","price":1.00}`)
	i.stop()
}

// A reader that says nothing of the log's position shields its key from every
// change: they drop it, and none is older than what it has shown. It was cached, so
// the service loads it again.
func TestAFillWithoutAPositionIsNeverSet(t *testing.T) {
	f, i := newModes(t, 15, createProducts)
	f.exec("INSERT INTO products VALUES (1, 'first', 1)")
	f.barrier()
	f.rdb.Del(t.Context(), "update:1")
	if _, err := f.client.FetchKept(t.Context(), "update:1", func(context.Context) ([]byte, int64, error) { return []byte("v"), 0, nil }); err != nil {
		t.Fatal(err)
	}
	f.exec("UPDATE products SET name = 'second'")
	f.barrier()
	i.eventually("it is loaded again", func() bool { return f.value("update:1") == `{"id":1,"name":"second","price":1.00}` })
	if n := i.metric(`unstale_loads_total{entry="update",result="stored"}`); n != 1 {
		t.Errorf("%v loads, want 1", n)
	}
	i.stop()
}

// A writer that drops its own key reads its write, and a change that comes later
// does not bring back what was before.
func TestAWriterReadsItsOwnWrite(t *testing.T) {
	f, i := newModes(t, 15, createProducts)
	f.exec("INSERT INTO products VALUES (1, 'first', 1)")
	f.barrier()
	f.exec("UPDATE products SET name = 'second'")
	var position string
	if err := f.conn.QueryRow(t.Context(), unstale.PositionQuery).Scan(&position); err != nil {
		t.Fatal(err)
	}
	if err := f.client.Invalidate(t.Context(), position, "warm:1", "update:1"); err != nil {
		t.Fatal(err)
	}
	f.want("read", f.fetchKept("warm:1", product, 1), `{"id":1,"name":"second","price":1.00}`)
	f.barrier()
	if got := f.value("warm:1"); got != "" && got != `{"id":1,"name":"second","price":1.00}` {
		t.Errorf("got %s", got)
	}
	i.stop()
}

// FetchHash reads what the service writes, and fills what it would write.
func TestFetchHash(t *testing.T) {
	f, i := newModes(t, 15, createProducts)
	f.exec("INSERT INTO products VALUES (1, 'first', NULL)")
	f.barrier()
	loads := 0
	fetch := func() map[string]string {
		fields, err := f.client.FetchHash(t.Context(), "hash:1", func(ctx context.Context) (map[string]string, int64, error) {
			loads++
			// As docs/modes.md has it.
			var fields map[string]string
			var lsn int64
			err := f.conn.QueryRow(ctx, `SELECT (SELECT json_object_agg(key, value) FROM json_each_text(row_to_json(p)) WHERE value IS NOT NULL), `+
				unstale.LSN+` FROM products p WHERE id = $1`, 1).Scan(&fields, &lsn)
			return fields, lsn, err
		})
		if err != nil {
			t.Fatal(err)
		}
		return fields
	}
	written := fetch()
	f.rdb.Del(t.Context(), "hash:1")
	filled := fetch()
	cached := fetch()
	if loads != 1 {
		t.Errorf("loaded %d times, want once", loads)
	}
	for _, got := range []map[string]string{written, filled, cached} {
		if diff := cmp.Diff(map[string]string{"id": "1", "name": "first"}, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	i.stop()
}

// An update that leaves a TOASTed value alone does not carry it. Under REPLICA
// IDENTITY FULL the old row has it; otherwise the key is dropped, and one that was
// cached, or is warm, loaded again. A placeholder is never cached.
func TestUnchangedTOAST(t *testing.T) {
	long := strings.Repeat("abcdefghij", 20_000)
	for _, full := range []bool{false, true} {
		t.Run(fmt.Sprint("full ", full), func(t *testing.T) {
			f, i := newModes(t, 15, "CREATE TABLE products (id int PRIMARY KEY, name text, price numeric(10,2)); ALTER TABLE products ALTER name SET STORAGE EXTERNAL")
			if full {
				f.exec("ALTER TABLE products REPLICA IDENTITY FULL")
				i.eventually("it is swept", func() bool { return i.said("msg=ready") == 2 })
				f.exec("CREATE TABLE begun_again (id int)")
			}
			f.exec("INSERT INTO products VALUES (1, $1, 1)", long)
			f.barrier()
			row := func(price string) string { return fmt.Sprintf(`{"id":1,"name":"%s","price":%s}`, long, price) }
			f.want("inserted", f.value("warm:1"), row("1.00"))
			f.want("loaded", f.fetchKept("update:1", product, 1), row("1.00"))
			f.exec("UPDATE products SET price = 2")
			f.barrier()
			if full {
				f.want("update", f.value("update:1"), row("2.00"))
				f.want("warm", f.value("warm:1"), row("2.00"))
			} else {
				i.eventually("both are loaded again", func() bool { return f.value("warm:1") == row("2.00") && f.value("update:1") == row("2.00") })
				if i.said("does not show the whole value") == 0 {
					t.Errorf("nothing was said:\n%s", i.log)
				}
			}
			f.want("the columns that are there", f.value("few:1"), `{"id":1,"price":2.00}`)
			i.stop()
		})
	}
}

// Before PostgreSQL 18 the log has no generated columns, so a row is never
// whole and must be loaded; one without them is.
func TestGeneratedColumns(t *testing.T) {
	for _, major := range []int{15, 18} {
		t.Run(fmt.Sprint("PostgreSQL ", major), func(t *testing.T) {
			f, i := newModes(t, major, "CREATE TABLE products (id int PRIMARY KEY, price numeric(10,2), name text GENERATED ALWAYS AS ('no ' || id) STORED)")
			f.exec("INSERT INTO products VALUES (1, 1)")
			f.barrier()
			i.eventually("warm is there", func() bool { return f.value("warm:1") == `{"id":1,"price":1.00,"name":"no 1"}` })
			f.want("without the column", f.value("few:1"), `{"id":1,"price":1.00}`)
			f.want("loaded", f.fetchKept("update:1", product, 1), `{"id":1,"price":1.00,"name":"no 1"}`)
			f.exec("UPDATE products SET price = 2")
			f.barrier()
			const want = `{"id":1,"price":2.00,"name":"no 1"}`
			if major >= 18 {
				f.want("update", f.value("update:1"), want)
			}
			i.eventually("update is there", func() bool { return f.value("update:1") == want })
			i.stop()
		})
	}
}

// What was committed before this instance began may have been applied already:
// it only drops, and the service loads it again.
func TestABacklogIsLoadedNotSet(t *testing.T) {
	f, i := newModes(t, 15, createProducts)
	f.exec("INSERT INTO products SELECT n, 'first', n FROM generate_series(1, 50) n")
	f.barrier()
	i.kill()
	f.exec("UPDATE products SET name = 'second'")
	i.start()
	i.waitReady()
	f.barrier()
	for n := 1; n <= 50; n++ {
		key, want := fmt.Sprintf("warm:%d", n), fmt.Sprintf(`{"id":%d,"name":"second","price":%d.00}`, n, n)
		i.eventually(key+" is loaded", func() bool { return f.value(key) == want })
	}
	s, err := i.status()
	if err != nil || s.Set != 0 {
		t.Errorf("%d keys were set from the backlog, %v", s.Set, err)
	}
	i.stop()
}

// A column that comes, goes or changes its type: nothing wrong is ever set, and
// soon the new shape is.
func TestValuesFollowTheTable(t *testing.T) {
	for _, alter := range []struct{ name, sql, want string }{
		{"a column is added", "ALTER TABLE products ADD note text DEFAULT 'n'", `{"id":1,"name":"second","price":1.00,"note":"n"}`},
		{"a column is dropped", "ALTER TABLE products DROP COLUMN price", `{"id":1,"name":"second"}`},
		{"a column is renamed", "ALTER TABLE products RENAME price TO cost", `{"id":1,"name":"second","cost":1.00}`},
		{"a column is widened", "ALTER TABLE products ALTER price TYPE numeric(12,4)", `{"id":1,"name":"second","price":1.0000}`},
	} {
		t.Run(alter.name, func(t *testing.T) {
			f, i := newModes(t, 15, createProducts)
			f.exec("INSERT INTO products VALUES (1, 'first', 1)")
			f.barrier()
			f.exec(alter.sql)
			f.exec("UPDATE products SET name = 'second'")
			f.barrier()
			if got := f.value("update:1"); got != "" && got != alter.want {
				t.Errorf("update: got %s", got)
			}
			i.eventually("the shape is known", func() bool {
				f.exec("UPDATE products SET name = 'second'")
				f.barrier()
				got := f.value("warm:1")
				if got != "" && got != alter.want {
					t.Fatalf("warm: got %s, want %s", got, alter.want)
				}
				s, err := i.status()
				return err == nil && got == alter.want && s.Set > 2 && s.Ready
			})
			i.stop()
		})
	}
}

// The two Redis users that docs/operations.md gives are enough for every mode.
func TestTheRightsInTheDocumentationAreEnough(t *testing.T) {
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, 15)
	found := regexp.MustCompile(`(?m)^    redis-cli ACL SETUSER ((?:.*\\\n)*.*)$`).FindAllStringSubmatch(string(text), -1)
	if len(found) != 2 {
		t.Fatalf("%d users in the documentation, want 2", len(found))
	}
	for _, user := range found {
		command := []any{"ACL", "SETUSER"}
		for _, word := range strings.Fields(strings.NewReplacer("\\\n", " ", "'", "").Replace(user[1])) {
			command = append(command, word)
		}
		if err := f.rdb.Do(t.Context(), command...).Err(); err != nil {
			t.Fatalf("%v: %v", command, err)
		}
	}
	f.exec(createProducts)
	config := strings.Replace(f.config(strings.NewReplacer("'update:", "'product:update:", "'warm:", "'product:warm:", "'refresh:", "'product:refresh:",
		"'hash:", "'product:hash:", "'few:", "'product:few:", "'invalidate:", "'customer:").Replace(modes)), "redis://", "redis://unstale:secret@", 1)
	if _, stderr, exit := unstaleCommand(t, "check", "--config", configFile(t, config)); exit != 0 {
		t.Errorf("check: %s", stderr)
	}
	i := startInstance(t, config)
	i.waitReady()

	options, err := redis.ParseURL(f.redis.URL())
	if err != nil {
		t.Fatal(err)
	}
	options.Username, options.Password = "app", "secret"
	app := redis.NewClient(options)
	defer app.Close()
	f.client, err = unstale.New(app, unstale.Options{Slot: f.slot, OnError: func(err error) { t.Errorf("client: %v", err) }})
	if err != nil {
		t.Fatal(err)
	}
	f.exec("INSERT INTO products VALUES (1, 'first', 1)")
	f.barrier()
	for range 2 {
		f.fetch("customer:1", product, 1)
		f.fetchKept("product:update:1", product, 1)
		f.fetchKept("product:warm:1", product, 1)
		if _, err := f.client.FetchHash(t.Context(), "product:hash:1", func(context.Context) (map[string]string, int64, error) {
			return map[string]string{"id": "1"}, 0, nil
		}); err != nil {
			t.Fatal(err)
		}
		f.exec("UPDATE products SET price = price + 1")
		f.barrier()
		f.rdb.Del(t.Context(), "product:hash:1", "product:warm:1")
	}
	var position string
	if err := f.conn.QueryRow(t.Context(), unstale.PositionQuery).Scan(&position); err != nil {
		t.Fatal(err)
	}
	if err := f.client.Invalidate(t.Context(), position, "product:warm:1"); err != nil {
		t.Error(err)
	}
	f.exec("DELETE FROM products")
	f.exec("TRUNCATE products")
	f.barrier()

	options.Username = "unstale"
	service := redis.NewClient(options)
	defer service.Close()
	status, err := i.status()
	if err != nil {
		t.Fatal(err)
	}
	letter := deadletter.Letter{Reason: "bad", Change: &deadletter.Change{}}
	if err := deadletter.NewStream(service, status.Streams[0].Name).Append(t.Context(), &letter); err != nil {
		t.Error(err)
	}
	if stdout, stderr, exit := unstaleCommand(t, "deadletter", "drop", "--all", "--config", i.config); exit != 0 || !strings.Contains(stdout, "removed") {
		t.Errorf("deadletter: exit %d\n%s%s", exit, stdout, stderr)
	}
	i.stop()
	if n := i.said("NOPERM"); n > 0 {
		t.Errorf("refused %d times:\n%s", n, i.log)
	}
}

func configFile(t *testing.T, text string) string {
	path, _ := writeConfig(t, text)
	return path
}

// What a transaction writes and writes over again was never committed: nobody
// sees it, though a transaction comes in many pieces.
func TestNothingUncommittedIsShown(t *testing.T) {
	f, i := newModes(t, 15, createProducts)
	f.exec("INSERT INTO products SELECT n, 'committed', 0 FROM generate_series(1, 300) n")
	f.barrier()
	keys := make([]string, 300)
	for n := range keys {
		keys[n] = fmt.Sprint("warm:", n+1)
	}
	ctx, stop := context.WithCancel(t.Context())
	seen := make(chan map[string]int)
	go func() {
		names := map[string]int{}
		for ctx.Err() == nil {
			values, err := f.rdb.MGet(t.Context(), keys...).Result()
			if err != nil {
				t.Error(err)
				break
			}
			for _, value := range values {
				text, _ := value.(string)
				_, name, _ := strings.Cut(text, `"name":"`)
				name, _, _ = strings.Cut(name, `"`)
				names[name]++
			}
		}
		seen <- names
	}()
	for range 10 {
		f.exec("BEGIN; UPDATE products SET name = 'draft'; UPDATE products SET name = 'committed', price = price + 1; COMMIT")
		f.barrier()
	}
	stop()
	names := <-seen
	if names["draft"] > 0 || names["committed"] == 0 {
		t.Errorf("seen: %v", names)
	}
	s, err := i.status()
	if err != nil || s.Set < 3000 {
		t.Errorf("%d keys were set, %v", s.Set, err)
	}
	i.stop()
}

// A hash has no field for a NULL, and one of NULLs has none at all: it is not
// cached, and what comes behind it is.
func TestAHashOfNullsIsNotCached(t *testing.T) {
	f := newFixture(t, 15)
	f.exec(createProducts)
	i := startInstance(t, f.config("  name: {key: 'name:{id}', table: products, on_change: warm, format: hash, columns: [name]}"))
	i.waitReady()
	f.exec("CREATE TABLE begun (id int)")
	f.exec("INSERT INTO products VALUES (1, 'first', 1), (2, 'other', 1)")
	f.barrier()
	f.exec("UPDATE products SET name = NULL WHERE id = 1")
	f.exec("UPDATE products SET name = 'second' WHERE id = 2")
	f.barrier()
	if f.cached("name:1") || f.rdb.HGet(t.Context(), "name:2", "name").Val() != "second" {
		t.Errorf("the hashes are %v and %v", f.rdb.HGetAll(t.Context(), "name:1").Val(), f.rdb.HGetAll(t.Context(), "name:2").Val())
	}
	i.stop()
}

// A row that is not there is nil, and not cached as an empty text.
func TestWhatIsNotThereIsNotCached(t *testing.T) {
	f, i := newModes(t, 15, createProducts)
	if value := f.fetchKept("warm:1", product, 1); value != "" {
		t.Errorf("got %q", value)
	}
	if f.cached("warm:1") || f.cached("{warm:1}:l") {
		t.Error("something is cached")
	}
	i.stop()
}
