package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
)

// compareWith holds what is cached against a query of keys and their values.
func (f *fixture) compareWith(keysAndValues string) (cached, all int, wrong []string) {
	f.t.Helper()
	ctx := within(f.t, time.Minute)
	rows, err := connectTo(f.t, f.url+"&timezone=UTC").Query(ctx, keysAndValues)
	if err != nil {
		f.t.Fatal(err)
	}
	var key, want string
	var keys, wants []string
	pipe := f.rdb.Pipeline()
	var replies []*redis.StringCmd
	if _, err := pgx.ForEachRow(rows, []any{&key, &want}, func() error {
		keys, wants, replies = append(keys, key), append(wants, want), append(replies, pipe.Get(ctx, key))
		return nil
	}); err != nil {
		f.t.Fatal(err)
	}
	if _, err := pipe.Exec(ctx); err != nil && err != redis.Nil {
		f.t.Fatal(err)
	}
	for i, reply := range replies {
		got, err := reply.Result()
		if err == redis.Nil {
			continue
		}
		cached++
		if got != wants[i] {
			wrong = append(wrong, fmt.Sprintf("%s: got %s, want %s", keys[i], got, wants[i]))
		}
	}
	return cached, len(keys), wrong
}

// warmedQueries are an entry with two placeholders, one through a join, one whose keys a
// statement finds, and one with a single key; and what is to be cached of each.
const warmedQueries = `  sums:
    key: sums:{category}:{kind}
    query: SELECT count(*) AS n, sum(price) AS price FROM products WHERE category_id = @category AND kind = @kind
    on_change: refresh
  list:
    key: list:{name}
    query: SELECT p.id, p.price FROM products p JOIN categories c ON c.id = p.category_id WHERE c.name = @name ORDER BY p.id
    rows: many
    on_change: refresh
  found:
    key: found:{email}
    query: SELECT id FROM categories WHERE lower(name) = @email
    on_change: refresh
    cache_absent: true
    warm_keys: SELECT lower(name) FROM categories WHERE id < 5 UNION VALUES ('nobody')
  all: {key: all, query: SELECT count(*) AS n FROM products, on_change: refresh}
`

var warmedValues = []string{
	`SELECT format('sums:%s:%s', category_id, kind), row_to_json(s)::text
	 FROM (SELECT category_id, kind FROM products GROUP BY 1, 2) k, LATERAL (SELECT count(*) AS n, sum(price) AS price FROM products p WHERE p.category_id = k.category_id AND p.kind = k.kind) s`,
	`SELECT 'list:' || c.name, '[' || string_agg(row_to_json((SELECT r FROM (SELECT p.id, p.price) r))::text, ',' ORDER BY p.id) || ']' FROM products p JOIN categories c ON c.id = p.category_id GROUP BY c.name`,
	`SELECT 'found:' || lower(name), format('{"id":%s}', id) FROM categories WHERE id < 5 UNION VALUES ('found:nobody', 'null')`,
	`SELECT 'all', format('{"n":%s}', count(*)) FROM products`,
}

func setUpWarmedQueries(f *fixture, rows int) {
	for _, statement := range []string{
		`CREATE TABLE categories (id int PRIMARY KEY, name text UNIQUE)`,
		`CREATE TABLE products (id int PRIMARY KEY, category_id int NOT NULL, kind text NOT NULL, price numeric(10,2), changed timestamptz)`,
		`ALTER TABLE products REPLICA IDENTITY FULL`, `ALTER TABLE categories REPLICA IDENTITY FULL`,
		`CREATE INDEX ON products (category_id, kind)`,
		`CREATE INDEX ON categories (lower(name))`,
	} {
		f.exec(statement)
	}
	f.exec("INSERT INTO categories SELECT i, 'Category ' || i FROM generate_series(0, $1::int / 8) i", rows)
	f.exec("INSERT INTO products SELECT i, i / 8, chr(97 + i % 4), i FROM generate_series(1, $1) i", rows)
	f.exec("ANALYZE")
}

// A warm of query results is killed in the middle and goes on, while their rows change.
// Afterwards every key that there is is cached, and holds what the query gives.
func TestAWarmOfQueryResultsThatIsKilledGoesOn(t *testing.T) {
	const rows = 20_000
	f := newFixture(t, 18)
	setUpWarmedQueries(f, rows)
	i := startInstance(t, f.config(warmedQueries))
	i.waitReady()

	stop := f.change(rows)
	first := startCommand(t, "warm", "sums", "--rate", "4000", "-c", i.config)
	i.eventually("it has come some way", func() bool { return f.warmProgress("sums") > 0 })
	if err := first.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	first.wait()
	second := startCommand(t, "warm", "-c", i.config)
	if exit := second.wait(); exit != 0 {
		t.Fatalf("exit %d:\n%s\n%s", exit, second.log, second.out)
	}
	if !strings.Contains(second.log.String(), "sums: going on behind sums:") {
		t.Errorf("it did not go on:\n%s", second.log)
	}
	for _, want := range []string{"sums: 10,00", "list: 2,501 rows", "found: 6 rows", "all: 1 rows"} {
		if !strings.Contains(second.out.String(), want) {
			t.Errorf("want %q in\n%s", want, second.out)
		}
	}
	t.Logf("\n%s", second.out)
	changes := stop()
	f.barrier()
	for _, values := range warmedValues {
		// What changes have dropped last is still being loaded.
		i.eventually("every key is cached", func() bool {
			cached, all, wrong := f.compareWith(values)
			if len(wrong) > 0 {
				t.Fatalf("%d of %d are not the query's result, such as %s", len(wrong), cached, wrong[0])
			}
			if cached == all {
				t.Logf("%d cached, after %d changes", cached, changes)
			}
			return cached == all
		})
	}
	if n := f.warmProgress("sums"); n != 0 {
		t.Errorf("progress of %d keys is left", n)
	}
	i.stop()
}

// Where the keys cannot be listed, whoever asks for the entry is told, and the others are
// loaded all the same. What warm_keys says is checked, and shown.
func TestAWarmOfQueriesSaysWhatItLists(t *testing.T) {
	f := newFixture(t, 15)
	setUpWarmedQueries(f, 80)
	const unknown = "  dear: {key: 'dear:{price}', query: 'SELECT id FROM products WHERE price::int > @price::int', on_change: refresh, allow_sweep: true}\n"
	i := startInstance(t, f.config(warmedQueries+unknown))
	i.waitReady()
	const why = "nobody knows which keys entry dear has: public.products: nothing ties its rows to @price"
	if _, said, exit := unstaleCommand(t, "warm", "dear", "-c", i.config); exit != 1 || !strings.Contains(said, why) || !strings.Contains(said, "write warm_keys") {
		t.Errorf("exit %d:\n%s", exit, said)
	}
	out, said, exit := unstaleCommand(t, "warm", "-c", i.config, "--dry-run")
	if exit != 0 || !strings.Contains(said, why) || !strings.Contains(out, "sums: about 41 rows") || !strings.Contains(out, "all: about 1 rows") {
		t.Errorf("dry run: exit %d:\n%s%s", exit, out, said)
	}
	if out, said, exit := unstaleCommand(t, "warm", "-c", i.config); exit != 0 || !strings.Contains(out, "list: 11 rows") {
		t.Errorf("exit %d:\n%s%s", exit, out, said)
	}
	for _, values := range warmedValues {
		if cached, all, wrong := f.compareWith(values); cached != all || len(wrong) > 0 {
			t.Errorf("%d of %d are cached: %v", cached, all, wrong)
		}
	}
	out, said, exit = unstaleCommand(t, "plan", "--sql", "-c", i.config)
	for _, want := range []string{
		"unstale warm sums: the keys of\n  SELECT ARRAY[listed.k1::text, listed.k2::text]\n  FROM (SELECT DISTINCT t1.\"category_id\", t1.\"kind\"\n  FROM \"public\".\"products\" AS t1\n",
		"SELECT lower(name) FROM categories WHERE id < 5 UNION VALUES ('nobody')", "unstale warm all: the one key all\n",
		"unstale warm dear: not possible: public.products: nothing ties",
	} {
		if exit != 0 || !strings.Contains(out, want) {
			t.Errorf("plan: exit %d, want %q in\n%s%s", exit, want, out, said)
		}
	}
	i.stop()

	const found = "  found: {key: 'found:{a}:{b}', query: 'SELECT id FROM products WHERE id = @a AND kind = @b', on_change: refresh, warm_keys: %q}\n"
	for statement, want := range map[string]string{
		"SELECT id FROM products":                                             "it returns one column, and the key found:{a}:{b} has 2 placeholders",
		"SELECT id, kind FROM product":                                        `relation "product" does not exist`,
		"SELECT id, kind FROM products WHERE id = @a":                         "@a has no value here",
		"SELECT id, kind FROM products FOR UPDATE":                            "FOR UPDATE and FOR SHARE lock rows",
		"SELECT kind, kind FROM products":                                     "column 1 is text, and {a} is compared with integer",
		"SELECT ARRAY[id], kind FROM products":                                "its keys cannot be listed: cannot cast",
		"WITH d AS (DELETE FROM products RETURNING *) SELECT id, kind FROM d": "its keys cannot be listed",
		"DELETE FROM products RETURNING id, kind":                             "not a SELECT",
	} {
		path, _ := writeConfig(t, f.config(fmt.Sprintf(found, statement)))
		if out, _, exit := unstaleCommand(t, "check", "-c", path); exit != 1 || !strings.Contains(out, want) || !strings.Contains(out, "entries.found.warm_keys") {
			t.Errorf("%s: exit %d, want %q:\n%s", statement, exit, want, out)
		}
	}
	i = startInstance(t, f.config(fmt.Sprintf(found, "SELECT id, kind FROM product")))
	i.waitReady()
	if i.said("setting=entries.found.warm_keys") != 1 {
		t.Error("what only warm needs has stopped run, or was not said")
	}
	i.stop()
}
