package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/unstale/unstale/internal/admin"
	"github.com/unstale/unstale/internal/apply"
)

// The shop of the README: a page of a product with the name of its category, a list
// by category, the open orders of a customer.
var queryFacts = []fact{
	{
		name: "a page is dropped by its product and by its category",
		setup: []string{
			`CREATE TABLE categories (id int PRIMARY KEY, name text NOT NULL, note text)`,
			`CREATE TABLE products (id int PRIMARY KEY, name text NOT NULL, price numeric(10,2), category_id int REFERENCES categories ON UPDATE CASCADE, stock int)`,
			`CREATE INDEX ON products (category_id)`,
			`ALTER TABLE products REPLICA IDENTITY FULL`,
			`ALTER TABLE categories REPLICA IDENTITY FULL`,
			`INSERT INTO categories VALUES (1, 'books'), (2, 'tools')`,
			`INSERT INTO products SELECT i, 'product ' || i, i, 1 + i % 2, 0 FROM generate_series(1, 8) i`,
		},
		entries: `  product_page:
    key: product_page:{id}
    query: |
      SELECT p.id, p.name, p.price, c.name AS category
      FROM products p JOIN categories c ON c.id = p.category_id
      WHERE p.id = @id
  category_list:
    key: category:{category}:products
    query: SELECT id, name FROM products WHERE category_id = @category ORDER BY name LIMIT 50
`,
		steps: []step{
			{
				change: `UPDATE categories SET name = 'BOOKS' WHERE id = 1`,
				gone:   []string{"product_page:2", "product_page:4", "product_page:6", "product_page:8"},
				kept:   []string{"product_page:1", "product_page:3", "category:1:products", "category:2:products"},
			},
			{
				change: `UPDATE categories SET note = 'not on any page' WHERE id = 1`,
				kept:   []string{"product_page:1", "product_page:2", "category:1:products"},
			},
			{
				change: `UPDATE products SET name = 'other' WHERE id = 1`,
				gone:   []string{"product_page:1", "category:2:products"},
				kept:   []string{"product_page:2", "category:1:products"},
			},
			{
				change: `UPDATE products SET stock = 5 WHERE id = 1`,
				kept:   []string{"product_page:1", "category:2:products"},
			},
			{
				change: `UPDATE products SET category_id = 1 WHERE id = 1`,
				gone:   []string{"product_page:1", "category:1:products", "category:2:products"},
				kept:   []string{"product_page:2"},
			},
			{
				change: `UPDATE products SET category_id = 2 WHERE id = 2; UPDATE categories SET name = 'b' WHERE id = 1`,
				gone:   []string{"product_page:1", "product_page:2", "product_page:4"},
				kept:   []string{"product_page:3", "product_page:5"},
			},
			{
				change: `UPDATE categories SET id = 3 WHERE id = 1`,
				gone:   []string{"product_page:1", "product_page:4", "category:1:products", "category:3:products"},
				kept:   []string{"product_page:2", "category:2:products"},
			},
			{
				change: `DELETE FROM products WHERE id = 8`,
				gone:   []string{"product_page:8", "category:3:products"},
				kept:   []string{"product_page:2", "category:2:products"},
			},
		},
	},
	{
		name: "what no predicate lets pass is spared, and NULL leads nowhere",
		setup: []string{
			`CREATE TYPE order_status AS ENUM ('open', 'paid', 'sent')`,
			`CREATE TABLE customers (id int PRIMARY KEY, email text NOT NULL)`,
			`CREATE TABLE customer_orders (id int PRIMARY KEY, customer_id int, status order_status NOT NULL, gift boolean NOT NULL DEFAULT false)`,
			`ALTER TABLE customers REPLICA IDENTITY FULL`, `ALTER TABLE customer_orders REPLICA IDENTITY FULL`,
			`INSERT INTO customers SELECT i, 'Mail' || i || '@x' FROM generate_series(1, 5) i`,
			`INSERT INTO customer_orders VALUES (1, 1, 'open'), (2, 2, 'paid'), (3, NULL, 'open')`,
		},
		entries: `  open_orders: {key: 'open:{customer}', query: "SELECT id FROM customer_orders WHERE customer_id = @customer AND status = 'open' ORDER BY id"}
  gifts: {key: 'gifts:{is}:{customer}', query: "SELECT id FROM customer_orders WHERE customer_id = @customer AND gift = @is"}
  by_mail: {key: 'mail:{mail}', query: 'SELECT id FROM customers WHERE lower(email) = @mail'}
  open_count: {key: 'open_count', query: "SELECT count(*) FROM customer_orders WHERE status = 'open'"}
`,
		steps: []step{
			{change: `UPDATE customer_orders SET status = 'sent' WHERE id = 2`, kept: []string{"gifts:f:2", "open:2", "open_count", "open:1"}},
			{change: `UPDATE customer_orders SET status = 'open' WHERE id = 2`, gone: []string{"open:2", "open_count"}, kept: []string{"open:1"}},
			{change: `UPDATE customer_orders SET gift = true WHERE id = 2`, gone: []string{"gifts:f:2", "gifts:t:2"}, kept: []string{"gifts:f:1", "open:2", "open:1"}},
			{change: `UPDATE customer_orders SET customer_id = 4 WHERE id = 3`, gone: []string{"open:4"}, kept: []string{"open:1", "open_count", "gifts:t:4"}},
			{change: `UPDATE customers SET email = 'NEW@x' WHERE id = 1`, gone: []string{"mail:mail1@x", "mail:new@x"}, kept: []string{"mail:mail2@x"}},
			{change: `TRUNCATE customer_orders`, gone: []string{"open:1", "open:2", "gifts:f:1", "open_count"}, kept: []string{"mail:mail2@x"}},
		},
	},
}

// Cached results go with every change that concerns them, and with no other.
func TestQueryFacts(t *testing.T) {
	for _, major := range databaseMajors {
		t.Run(fmt.Sprint("PostgreSQL ", major), func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, major)
			f.exec(`CREATE TABLE bystanders (id int PRIMARY KEY)`)
			entries := "  bystander: {key: 'bystander:{id}', table: bystanders}\n"
			for _, fact := range queryFacts {
				for _, statement := range fact.setup {
					f.exec(statement)
				}
				entries += fact.entries
			}
			i := startInstance(t, f.config(entries))
			i.waitReady()
			for _, fact := range queryFacts {
				t.Run(fact.name, func(t *testing.T) { f.on(t).try(i, fact.steps) })
			}
			i.stop()
		})
	}
}

// The service loads again what a change has dropped, as a reader that ran the query
// would.
func TestARefreshedQuery(t *testing.T) {
	for _, major := range databaseMajors {
		t.Run(fmt.Sprint("PostgreSQL ", major), func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, major)
			for _, statement := range queryFacts[0].setup {
				f.exec(statement)
			}
			i := startInstance(t, f.config(`  page:
    key: page:{id}
    query: SELECT p.id, p.name, c.name AS category FROM products p JOIN categories c ON c.id = p.category_id WHERE p.id = @id
    on_change: refresh
  list:
    key: list:{category}
    query: SELECT id, name FROM products WHERE category_id = @category ORDER BY name DESC
    rows: many
    on_change: refresh
  names: {key: names, query: 'SELECT id, name FROM categories ORDER BY id', rows: many, on_change: refresh}
`))
			i.waitReady()
			f.exec("UPDATE categories SET name = 'BOOKS' WHERE id = 1")
			for key, want := range map[string]string{
				"page:2": `{"id":2,"name":"product 2","category":"BOOKS"}`,
				"page:8": `{"id":8,"name":"product 8","category":"BOOKS"}`,
				"names":  `[{"id":1,"name":"BOOKS"},{"id":2,"name":"tools"}]`,
			} {
				i.eventually(key, func() bool { return f.value(key) == want })
			}
			f.exec("UPDATE products SET category_id = 1 WHERE id = 1")
			i.eventually("the list", func() bool {
				return f.value("list:1") == `[{"id":8,"name":"product 8"},{"id":6,"name":"product 6"},{"id":4,"name":"product 4"},{"id":2,"name":"product 2"},{"id":1,"name":"product 1"}]`
			})
			f.exec("DELETE FROM products")
			i.eventually("an empty list", func() bool { return f.value("list:1") == "[]" && f.value("page:1") == "" })
			i.stop()
		})
	}
}

// That there is no row is a value of its own with cache_absent, and none without. Of the
// keys that a lookup finds refresh_max are loaded again; all are dropped.
func TestWhatARefreshLeavesCached(t *testing.T) {
	f := newFixture(t, 18)
	for _, statement := range queryFacts[0].setup {
		f.exec(statement)
	}
	i := startInstance(t, f.config(`  absent: {key: 'absent:{id}', query: 'SELECT id, name FROM products WHERE id = @id', on_change: refresh, cache_absent: true}
  present: {key: 'present:{id}', query: 'SELECT id, name FROM products WHERE id = @id', on_change: refresh}
  page:
    key: page:{id}
    query: SELECT p.id, c.name AS category FROM products p JOIN categories c ON c.id = p.category_id WHERE p.id = @id
    on_change: refresh
    refresh_max: 2
`))
	i.waitReady()
	f.cache("absent:2", "present:2")
	f.exec("DELETE FROM products WHERE id = 2")
	i.eventually("its absence", func() bool { return f.value("absent:2") == "null" })
	i.eventually("gone", func() bool { return !f.cached("present:2") })
	f.exec("INSERT INTO products (id, name, category_id) VALUES (2, 'again', 1)")
	const again = `{"id":2,"name":"again"}`
	i.eventually("there again", func() bool { return f.value("absent:2") == again && f.value("present:2") == again })

	pages := []string{"page:2", "page:4", "page:6", "page:8"}
	f.cache(pages...)
	f.exec("UPDATE categories SET name = 'BOOKS' WHERE id = 1")
	f.barrier()
	// The next change is loaded behind those of this one.
	f.exec("UPDATE products SET name = 'last' WHERE id = 1")
	i.eventually("loaded", func() bool { return f.value("present:1") == `{"id":1,"name":"last"}` })
	loaded := 0
	i.eventually("two loaded", func() bool {
		loaded = 0
		for _, key := range pages {
			if f.cached(key) {
				loaded++
			}
		}
		return loaded >= 2
	})
	for _, key := range pages {
		if value := f.value(key); value != "" && !strings.Contains(value, "BOOKS") {
			t.Errorf("%s is %s", key, value)
		}
	}
	if loaded != 2 {
		t.Errorf("%d of 4 keys are loaded again, want 2", loaded)
	}
	i.stop()
}

// What a query reads may become something else while the service runs: a view is
// replaced, a column is renamed.
func TestAQueryIsPlannedAnew(t *testing.T) {
	f := newFixture(t, 15)
	for _, statement := range []string{
		`CREATE TABLE items (id int PRIMARY KEY, name text, maker_id int)`, `ALTER TABLE items REPLICA IDENTITY FULL`,
		`CREATE TABLE makers (id int PRIMARY KEY, name text)`, `ALTER TABLE makers REPLICA IDENTITY FULL`,
		`CREATE VIEW cards AS SELECT id, name FROM items`,
		`INSERT INTO makers VALUES (1, 'm')`, `INSERT INTO items VALUES (1, 'i', 1), (2, 'j', 2)`,
	} {
		f.exec(statement)
	}
	i := startInstance(t, f.config("  card: {key: 'card:{id}', query: 'SELECT * FROM cards WHERE id = @id'}\n"))
	i.waitReady()
	f.cache("card:1")
	f.exec("UPDATE makers SET name = 'n'")
	f.barrier()
	if !f.cached("card:1") {
		t.Error("a table that the view does not read dropped its key")
	}

	f.exec("CREATE OR REPLACE VIEW cards AS SELECT i.id, i.name, m.name AS maker FROM items i LEFT JOIN makers m ON m.id = i.maker_id")
	i.eventually("planned anew", func() bool { return i.saidInOrder("planning anew", "msg=ready") })
	if f.cached("card:1") {
		t.Error("what the old view showed is still cached")
	}
	f.cache("card:1", "card:2")
	f.exec("UPDATE makers SET name = 'o'")
	f.barrier()
	if f.cached("card:1") || !f.cached("card:2") {
		t.Error("a change of the maker: want the one card gone that shows it")
	}

	// The same columns of the same tables, and another result.
	f.cache("card:1")
	f.exec("CREATE OR REPLACE VIEW cards AS SELECT i.id, upper(i.name) AS name, m.name AS maker FROM items i LEFT JOIN makers m ON m.id = i.maker_id")
	i.eventually("swept", func() bool { return !f.cached("card:1") })

	// Nobody can plan it now: every look drops what is cached, until it is mended.
	f.exec("DROP VIEW cards")
	i.eventually("refused", func() bool { return i.said("a query cannot be planned any more") > 0 })
	f.cache("card:2")
	i.eventually("swept", func() bool { return !f.cached("card:2") })
	f.exec("CREATE VIEW cards AS SELECT i.id, i.name, m.name AS maker FROM items i LEFT JOIN makers m ON m.id = i.maker_id")
	i.eventually("mended", func() bool {
		return i.saidInOrder("a query cannot be planned any more", "every query can be planned again", "msg=ready")
	})
	f.cache("card:1", "card:2")
	f.exec("UPDATE makers SET name = 'p'")
	f.barrier()
	if f.cached("card:1") || !f.cached("card:2") {
		t.Error("after it was mended: want the one card gone that shows the maker")
	}
	i.stop()
}

// A query that reads a table reads what inherits from it. The log has the changes of each
// under its own name, also of a table that comes to inherit while the service runs.
func TestAQueryReadsWhatInherits(t *testing.T) {
	t.Parallel()
	for _, major := range databaseMajors {
		t.Run(fmt.Sprint("PostgreSQL ", major), func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, major)
			for _, statement := range []string{
				`CREATE TABLE cities (id int PRIMARY KEY, name text)`, `ALTER TABLE cities REPLICA IDENTITY FULL`,
				`CREATE TABLE capitals (state text) INHERITS (cities)`, `ALTER TABLE capitals REPLICA IDENTITY FULL`,
				`INSERT INTO cities VALUES (1, 'a')`, `INSERT INTO capitals VALUES (2, 'b', 's')`,
			} {
				f.exec(statement)
			}
			const entries = "  city: {key: 'city:{id}', query: 'SELECT id, name FROM cities WHERE id = @id'}\n" +
				"  only: {key: 'only:{id}', query: 'SELECT id, name FROM ONLY cities WHERE id = @id'}\n"
			i := startInstance(t, f.config(entries))
			i.waitReady()
			gone := func(what, statement string, want ...string) {
				t.Helper()
				keys := []string{"city:1", "city:2", "city:3", "only:1", "only:2", "only:3"}
				f.cache(keys...)
				f.exec(statement)
				f.barrier()
				var got []string
				for _, key := range keys {
					if !f.cached(key) {
						got = append(got, key)
					}
				}
				if !slices.Equal(got, want) {
					t.Errorf("%s: %q are gone, want %q", what, got, want)
				}
			}
			gone("a row of the table", "UPDATE ONLY cities SET name = 'c'", "city:1", "only:1")
			gone("a row of one that inherits", "UPDATE capitals SET name = 'd'", "city:2")
			gone("both", "UPDATE cities SET name = 'e'", "city:1", "city:2", "only:1")
			gone("moved", "WITH gone AS (DELETE FROM capitals WHERE id = 2 RETURNING id, name) INSERT INTO cities SELECT * FROM gone", "city:2", "only:2")

			f.exec("CREATE TABLE villages () INHERITS (cities)")
			f.exec("ALTER TABLE villages REPLICA IDENTITY FULL")
			i.eventually("planned anew", func() bool { return i.saidInOrder("planning anew", "msg=ready") })
			gone("a row of one that came later", "INSERT INTO villages VALUES (3, 'f')", "city:3")
			f.exec("DROP TABLE villages")
			i.eventually("planned without it", func() bool { return i.saidInOrder("planning anew", "msg=ready", "planning anew", "msg=ready") })
			gone("a row of the table", "UPDATE ONLY cities SET name = 'g' WHERE id = 1", "city:1", "only:1")
			i.stop()

			path, _ := writeConfig(t, f.config(entries))
			out, problems, code := unstaleCommand(t, "check", "--config", path)
			if code != 0 {
				t.Errorf("check: exit %d\n%s%s", code, out, problems)
			}
			path, _ = writeConfig(t, f.config(entries+"  row: {key: 'row:{id}', table: cities}\n"))
			for _, command := range []string{"check", "run"} {
				out, problems, code := unstaleCommand(t, command, "--config", path)
				if code != 1 || !strings.Contains(out+problems, "it is inherited: the rows of public.capitals are read through it") {
					t.Errorf("%s of a row of such a table: exit %d\n%s%s", command, code, out, problems)
				}
			}
		})
	}
}

// A table that goes stops nobody but the entries that cannot do without it.
func TestATableOfAQueryGoes(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 15)
	for _, statement := range []string{
		`CREATE TABLE items (id int PRIMARY KEY, name text)`, `ALTER TABLE items REPLICA IDENTITY FULL`,
		`CREATE TABLE makers (id int PRIMARY KEY, name text)`, `ALTER TABLE makers REPLICA IDENTITY FULL`,
		`CREATE TABLE shops (id int PRIMARY KEY, name text)`, `ALTER TABLE shops REPLICA IDENTITY FULL`,
		`CREATE VIEW cards AS SELECT id, name FROM makers`,
		`INSERT INTO makers VALUES (1, 'm')`, `INSERT INTO items VALUES (1, 'i')`,
	} {
		f.exec(statement)
	}
	i := startInstance(t, f.config("  card: {key: 'card:{id}', query: 'SELECT * FROM cards WHERE id = @id'}\n"+
		"  shop: {key: 'shop:{id}', query: 'SELECT name FROM shops WHERE id = @id'}\n  item: {key: 'item:{id}', table: items}\n"))
	i.waitReady()
	works := func(what string) {
		t.Helper()
		f.cache("card:1", "item:1")
		f.exec("UPDATE items SET name = name || '!'")
		f.barrier()
		if f.cached("item:1") {
			t.Errorf("%s: the key of a changed row is still cached", what)
		}
	}
	for _, statement := range []string{"BEGIN", "DROP VIEW cards", "CREATE VIEW cards AS SELECT id, name FROM items", "DROP TABLE makers", "COMMIT"} {
		f.exec(statement)
	}
	i.eventually("planned without it", func() bool { return i.saidInOrder("planning anew", "msg=ready") })
	if works("a table that is read no more"); f.cached("card:1") {
		t.Error("the card is of another table now, and is not dropped with its row")
	}

	f.exec("DROP TABLE shops")
	i.eventually("held", func() bool { return i.saidInOrder("planning anew", "planning anew") })
	i.waitStatus("the others go on", func(s *admin.Status) bool { return s.State == apply.StateStreaming && s.Unplanned["shop"] != "" })
	works("a table that is still read")
	f.exec("CREATE TABLE shops (id int PRIMARY KEY, name text)")
	f.exec("ALTER TABLE shops REPLICA IDENTITY FULL")
	i.waitReady()
	works("a table that is back")
	f.cache("shop:1")
	f.exec("INSERT INTO shops VALUES (1, 's')")
	f.barrier()
	if f.cached("shop:1") {
		t.Error("a row of the table that is back has not dropped its key")
	}
	i.stop()
}

// What ran holds while a table of another entry is missing as well, and goes on by itself.
func TestATableOfAQueryIsMadeAnew(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 15)
	create := []string{`CREATE TABLE items (id int PRIMARY KEY, name text)`, `ALTER TABLE items REPLICA IDENTITY FULL`, `INSERT INTO items VALUES (1, 'i')`}
	for _, statement := range create {
		f.exec(statement)
	}
	i := startInstance(t, f.config("  card: {key: 'card:{id}', query: 'SELECT name FROM items WHERE id = @id'}\n  item: {key: 'item:{id}', table: items}\n"))
	i.waitReady()
	f.exec("DROP TABLE items")
	i.eventually("it holds", func() bool { return i.said("work goes on when it can") > 0 })
	i.waitStatus("holding", func(s *admin.Status) bool { return s.State == apply.StateHolding && !s.Ready })
	f.cache("card:1", "item:1")
	for _, statement := range create {
		f.exec(statement)
	}
	i.waitReady()
	if f.cached("card:1") || f.cached("item:1") {
		t.Error("what was cached of the table before is still there")
	}
	f.cache("card:1", "item:1")
	f.exec("UPDATE items SET name = 'j'")
	f.barrier()
	if f.cached("card:1") || f.cached("item:1") {
		t.Error("a change of the table that is back has not dropped its keys")
	}
	i.stop()
}

// Somebody has dropped a view while nothing ran. The start is not refused: the entries that
// can be planned are kept, the other one is swept again and again, and everything says
// so, until it is mended. What nobody has ever planned is refused.
func TestAStartHoldsWhatCannotBePlannedAnyMore(t *testing.T) {
	f := newFixture(t, 15)
	for _, statement := range []string{
		`CREATE TABLE items (id int PRIMARY KEY, name text)`, `ALTER TABLE items REPLICA IDENTITY FULL`,
		`CREATE TABLE makers (id int PRIMARY KEY, name text)`, `ALTER TABLE makers REPLICA IDENTITY FULL`,
		`CREATE VIEW cards AS SELECT id, name FROM makers`,
		`INSERT INTO makers VALUES (1, 'm')`, `INSERT INTO items VALUES (1, 'i'), (2, 'j')`,
	} {
		f.exec(statement)
	}
	const entries = "  item: {key: 'item:{id}', table: items}\n  card: {key: 'card:{id}', query: 'SELECT * FROM cards WHERE id = @id'}\n"
	refused := func(why, entries, want string) {
		t.Helper()
		path, _ := writeConfig(t, f.config(entries))
		c := startCommand(t, "run", "-c", path)
		if exit := c.wait(); exit != 1 || !strings.Contains(c.log.String(), want) {
			t.Errorf("%s: exit %d, want 1 with %q:\n%s", why, exit, want, c.log)
		}
	}
	typo := strings.Replace(entries, "FROM cards", "FROM card", 1)
	refused("a typo at the first start", typo, `entries.card.query: relation "card" does not exist`)
	if n := f.scalar("SELECT count(*)::text FROM pg_replication_slots WHERE slot_name = '" + f.slot + "'"); n != "0" {
		t.Error("what was refused has made a slot")
	}

	i := startInstance(t, f.config(entries))
	i.waitReady()
	f.cache("card:1")
	i.stop()
	f.exec("DROP VIEW cards")
	const missing = `relation "cards" does not exist`
	refused("a typo in an entry that is new", entries+"  other: {key: 'other:{id}', query: 'SELECT * FROM card WHERE id = @id'}\n", `entries.other.query: relation "card" does not exist`)
	refused("there is nothing else to keep", strings.SplitAfter(entries, "\n")[1], missing)
	if out, _, exit := unstaleCommand(t, "check", "-c", i.config); exit != 1 || !strings.Contains(out, missing) {
		t.Errorf("check: exit %d:\n%s", exit, out)
	}

	i.start()
	status := i.waitStatus("it is held", func(s *admin.Status) bool { return s.Unplanned["card"] != "" })
	if status.Ready || status.Unplanned["card"] != missing {
		t.Errorf("%+v", status)
	}
	out, _, exit := unstaleCommand(t, "status", "-c", i.config)
	if exit != 1 || !strings.Contains(out, "unplanned  card: "+missing) {
		t.Errorf("status: exit %d:\n%s", exit, out)
	}
	if got := i.metric("unstale_unplanned_entries"); got != 1 {
		t.Errorf("unstale_unplanned_entries %v", got)
	}
	i.eventually("swept", func() bool { return !f.cached("card:1") })
	f.cache("card:1")
	i.eventually("swept again", func() bool { return !f.cached("card:1") })
	f.cache("item:1", "item:2")
	f.exec("UPDATE items SET name = 'k' WHERE id = 1")
	f.barrier()
	if f.cached("item:1") || !f.cached("item:2") {
		t.Error("want the one item gone that has changed")
	}
	if status, err := i.status(); err != nil || status.Ready {
		t.Errorf("ready with an entry that cannot be planned: %v", err)
	}

	f.exec("CREATE VIEW cards AS SELECT id, name FROM makers")
	i.waitReady()
	if got := i.metric("unstale_unplanned_entries"); got != 0 {
		t.Errorf("unstale_unplanned_entries %v", got)
	}
	f.cache("card:1")
	f.exec("UPDATE makers SET name = 'n'")
	f.barrier()
	if f.cached("card:1") {
		t.Error("after it was mended a change of its table was missed")
	}
	i.stop()
}

// The rights on tables are not enough where a query reads a view.
func TestAViewThatMayNotBeReadIsNamed(t *testing.T) {
	f := newFixture(t, 15)
	role := f.slot + "_loads"
	for _, statement := range []string{
		`CREATE TABLE items (id int PRIMARY KEY, name text)`, `CREATE VIEW cards AS SELECT id, name FROM items`,
		"CREATE ROLE " + role + " LOGIN REPLICATION", "GRANT pg_read_all_stats TO " + role, "GRANT SELECT ON items TO " + role,
	} {
		f.exec(statement)
	}
	const entry = "  card: {key: 'card:{id}', query: 'SELECT * FROM cards WHERE id = @id', on_change: %s}\n"
	check := func(onChange string) string {
		path, _ := writeConfig(t, strings.Replace(f.config(fmt.Sprintf(entry, onChange)), f.url, as(role, f.url), 1))
		out, _, _ := unstaleCommand(t, "check", "-c", path)
		return out
	}
	want := fmt.Sprintf(`GRANT SELECT ON public.cards TO %s;`, role)
	if out := check("refresh"); !strings.Contains(out, want) || !strings.Contains(out, "permission denied for view cards") {
		t.Errorf("want %s in\n%s", want, out)
	}
	if out := check("invalidate"); strings.Contains(out, want) {
		t.Errorf("readers load it, and the service needs no right:\n%s", out)
	}
	f.exec("GRANT SELECT ON cards TO " + role)
	if out := check("refresh"); strings.Contains(out, "cards") {
		t.Errorf("it is mended, and said all the same:\n%s", out)
	}
}

// plan says what is loaded again, what a lookup must read all of, and what cannot be
// written as depends_on.
func TestPlanTellsWhatALookupCosts(t *testing.T) {
	t.Parallel()
	f := newFixtureOn(t, sharedPostgres(t, 15), sharedRedis(t))
	for _, statement := range []string{
		`CREATE TABLE makers (id int PRIMARY KEY, name text)`, `ALTER TABLE makers REPLICA IDENTITY FULL`,
		`CREATE TABLE items (id int PRIMARY KEY, name text, tags text[], maker_id int)`, `ALTER TABLE items REPLICA IDENTITY FULL`, `CREATE INDEX ON items (maker_id)`,
		`CREATE TABLE rates (name text PRIMARY KEY, rate int)`, `ALTER TABLE rates REPLICA IDENTITY FULL`,
	} {
		f.exec(statement)
	}
	config := f.config(`  card: {key: 'card:{id}', query: 'SELECT i.name, m.name AS maker FROM items i JOIN makers m ON m.id = i.maker_id WHERE i.id = @id', on_change: refresh, refresh_max: 10}
  rated: {key: 'rated:{id}', query: "SELECT i.name, r.rate FROM items i LEFT JOIN rates r ON r.name = CASE WHEN i.id > 50 THEN 'a' ELSE 'b' END WHERE i.id = @id"}
  tag: {key: 'tag:{tag}', query: 'SELECT count(*) FROM items WHERE @tag = ANY (tags)'}
`)
	path, _ := writeConfig(t, config)
	s := session{t: t, config: path}
	s.run(0, "plan")
	s.run(0, "plan", "--depends-on")
	s.run(0, "plan", "--change", `{"table":"makers","op":"u","before":{"id":7,"name":"a"},"after":{"id":7,"name":"b"}}`)
	s.run(0, "plan", "--change", `{"table":"rates","op":"u","before":{"name":"a\nb","rate":1},"after":{"name":"a\nb","rate":2}}`)
	s.run(1, "plan", "--change", `{"table":"makers","op":"u","after":{"id":7,"name":"b"}}`)
	golden(t, "lookup_costs.txt", s.text.String())

	const unindexed = "entry rated: a change of public.rates looks its keys up in public.items, which has no index for that"
	if out, _, exit := unstaleCommand(t, "check", "--config", path); exit != 0 || !strings.Contains(out, unindexed) {
		t.Errorf("check: exit %d, want %s in\n%s", exit, unindexed, out)
	}
	written, _, exit := unstaleCommand(t, "plan", "--depends-on", "--config", path)
	byHand, _ := writeConfig(t, f.config(strings.TrimPrefix(written, "entries:\n")))
	if out, problems, code := unstaleCommand(t, "check", "--config", byHand); exit != 0 || code != 0 {
		t.Errorf("what plan writes as depends_on, check refuses: exit %d\n%s%s", code, out, problems)
	}

	role := f.slot + "_reads"
	for _, statement := range []string{"CREATE ROLE " + role + " LOGIN REPLICATION", "GRANT pg_read_all_stats TO " + role, "GRANT SELECT ON items, rates TO " + role} {
		f.exec(statement)
	}
	path, _ = writeConfig(t, strings.Replace(config, f.url, as(role, f.url), 1))
	out, _, _ := unstaleCommand(t, "check", "--config", path)
	if strings.Contains(out, "SQLSTATE") || !strings.Contains(out, "GRANT SELECT ON public.makers") || !strings.Contains(out, "look up in public.items") && !strings.Contains(out, "looks its keys up in public.items") {
		t.Errorf("where a right is missing, check says\n%s", out)
	}
	if out, problems, code := unstaleCommand(t, "plan", "--config", path); code != 0 || !strings.Contains(out, "look up by id, through public.items") {
		t.Errorf("where a right is missing, plan ends with %d\n%s%s", code, out, problems)
	}
}

// Where PostgreSQL cannot be asked what a query reads, that is said, with what mends it.
func TestAQueryThatIsNotVerifiedIsSaid(t *testing.T) {
	f := newFixture(t, 15)
	name := f.scalar("SELECT current_database()")
	f.exec("CREATE TABLE items (id int PRIMARY KEY)")
	f.exec("CREATE ROLE " + f.slot + "_asks LOGIN")
	f.exec("REVOKE TEMPORARY ON DATABASE " + name + " FROM PUBLIC")
	config := strings.Replace(f.config("  item: {key: 'item:{id}', query: 'SELECT id FROM items WHERE id = @id'}\n"), f.url, as(f.slot+"_asks", f.url), 1)
	path, _ := writeConfig(t, config)
	mend := fmt.Sprintf(`GRANT TEMPORARY ON DATABASE %s TO %s;`, name, f.slot+"_asks")
	if out, _, _ := unstaleCommand(t, "check", "--config", path); !strings.Contains(out, mend) {
		t.Errorf("want %s in\n%s", mend, out)
	}
	f.exec("GRANT TEMPORARY ON DATABASE " + name + " TO PUBLIC")
	if out, _, _ := unstaleCommand(t, "check", "--config", path); strings.Contains(out, "TEMPORARY") {
		t.Errorf("it is mended, and said all the same:\n%s", out)
	}
}
