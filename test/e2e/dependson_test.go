package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// A page of a product that the application makes of many queries: of the product, its
// reviews, the name of its category, its tags and the currency of the shop.
var dependsOnFacts = []fact{
	{
		name: "a page is dropped by whatever it is made of",
		setup: []string{
			`CREATE TABLE categories (id int PRIMARY KEY, name text NOT NULL, note text)`,
			`CREATE TABLE products (id int PRIMARY KEY, name text NOT NULL, category_id int REFERENCES categories ON UPDATE CASCADE)`,
			`CREATE TABLE reviews (id int PRIMARY KEY, product_id int NOT NULL, stars int NOT NULL, helpful int NOT NULL DEFAULT 0)`,
			`CREATE TABLE settings (name text PRIMARY KEY, value text, seen int)`,
			`CREATE INDEX ON products (category_id)`,
			`ALTER TABLE categories REPLICA IDENTITY FULL`, `ALTER TABLE products REPLICA IDENTITY FULL`,
			`ALTER TABLE reviews REPLICA IDENTITY FULL`, `ALTER TABLE settings REPLICA IDENTITY FULL`,
			`INSERT INTO categories VALUES (1, 'books'), (2, 'tools')`,
			`INSERT INTO products SELECT i, 'product ' || i, 1 + i % 2 FROM generate_series(1, 6) i`,
			`INSERT INTO reviews SELECT i, i, 3 FROM generate_series(1, 6) i`,
			`INSERT INTO settings VALUES ('currency', 'EUR', 0)`,
		},
		entries: `  product_view:
    key: product_view:{id}
    depends_on:
      products: id
      reviews: {key: product_id, columns: [stars]}
      categories:
        lookup: SELECT id FROM products WHERE category_id = @id -- those of the category
        columns: [name]
      settings: {sweep: true, columns: [value]}
    allow_sweep: true
  front_page:
    key: front_page
    depends_on:
      categories: {columns: [name]}
`,
		steps: []step{
			{change: `UPDATE products SET name = 'other' WHERE id = 1`, gone: []string{"product_view:1"}, kept: []string{"product_view:2", "product_view:3", "front_page"}},
			{change: `UPDATE reviews SET stars = 1 WHERE id = 2`, gone: []string{"product_view:2"}, kept: []string{"product_view:1"}},
			{change: `UPDATE reviews SET helpful = 1 WHERE id = 2`, kept: []string{"product_view:1", "product_view:2"}},
			{change: `UPDATE reviews SET product_id = 3 WHERE id = 2`, gone: []string{"product_view:2", "product_view:3"}, kept: []string{"product_view:1"}},
			{change: `UPDATE categories SET name = 'BOOKS' WHERE id = 1`, gone: []string{"product_view:2", "product_view:4", "product_view:6", "front_page"}, kept: []string{"product_view:1", "product_view:3"}},
			{change: `UPDATE categories SET note = 'on no page' WHERE id = 1`, kept: []string{"product_view:2", "front_page"}},
			{change: `UPDATE products SET category_id = 2 WHERE id = 2; UPDATE categories SET name = 'b' WHERE id = 1`, gone: []string{"product_view:2", "product_view:4"}, kept: []string{"product_view:1"}},
			{change: `DELETE FROM reviews WHERE id = 5`, gone: []string{"product_view:5"}, kept: []string{"product_view:4"}},
			{change: `UPDATE settings SET seen = 1`, kept: []string{"product_view:1", "product_view:2"}},
			{change: `UPDATE settings SET value = 'USD'`, gone: []string{"product_view:1", "product_view:2"}, kept: []string{"front_page"}},
			{change: `TRUNCATE reviews`, gone: []string{"product_view:1"}, kept: []string{"front_page"}},
		},
	},
	{
		name: "a key of several placeholders, and a lookup that computes",
		setup: []string{
			`CREATE SCHEMA sales`,
			`CREATE TABLE sales."Order" (shop_id int, order_id bigint, email text, gift boolean NOT NULL DEFAULT false, PRIMARY KEY (shop_id, order_id))`,
			`CREATE TABLE sales.lines (id int PRIMARY KEY, shop_id int, order_id bigint, amount int, changed text DEFAULT 'x')`,
			`CREATE TABLE sales.stock (line_id int PRIMARY KEY, changed text, found text)`,
			`ALTER TABLE sales."Order" REPLICA IDENTITY FULL`, `ALTER TABLE sales.lines REPLICA IDENTITY FULL`, `ALTER TABLE sales.stock REPLICA IDENTITY FULL`,
			`INSERT INTO sales."Order" VALUES (1, 10, 'A@x'), (1, 11, 'b@x'), (2, 10, NULL)`,
			`INSERT INTO sales.lines VALUES (1, 1, 10, 5), (2, 2, 10, 5), (3, NULL, 10, 5)`,
			`INSERT INTO sales.stock VALUES (1, 'x', 'y'), (2, 'x', 'y'), (3, 'x', 'y')`,
		},
		entries: `  order_view:
    key: order:{shop}:{order}
    depends_on:
      'sales."Order"': [shop_id, order_id]
      sales.lines: [shop_id, order_id]
      sales.stock:
        lookup: |
          SELECT l.shop_id, l.order_id
          FROM sales.lines l JOIN (SELECT 'x' AS changed) AS changed USING (changed)
          WHERE l.id = @line_id
  mails:
    key: mails:{mail}:{gift}
    depends_on:
      'sales."Order"':
        lookup: SELECT lower(@email), @gift;
        columns: [order_id]
`,
		steps: []step{
			{change: `UPDATE sales.lines SET amount = 6 WHERE id = 1`, gone: []string{"order:1:10"}, kept: []string{"order:1:11", "order:2:10"}},
			{change: `UPDATE sales.stock SET found = 'z'`, gone: []string{"order:1:10", "order:2:10"}, kept: []string{"order:1:11"}},
			{change: `UPDATE sales."Order" SET email = 'C@x' WHERE email = 'A@x'`, gone: []string{"order:1:10", "mails:a@x:f", "mails:c@x:f"}, kept: []string{"order:1:11", "mails:b@x:f", "mails:c@x:t"}},
			{change: `UPDATE sales."Order" SET gift = true WHERE order_id = 11`, gone: []string{"mails:b@x:f", "mails:b@x:t"}, kept: []string{"mails:c@x:f", "order:1:10"}},
		},
	},
}

// What the application makes of many tables goes with every change that concerns it,
// and with no other.
func TestDependsOnFacts(t *testing.T) {
	for _, major := range databaseMajors {
		t.Run(fmt.Sprint("PostgreSQL ", major), func(t *testing.T) {
			t.Parallel()
			tryFacts(t, major, dependsOnFacts, func(_ *fixture, entries string) string { return entries })
		})
	}
}

// The depends_on that plan prints for a query drops whatever the query would.
func TestAQueryIsWrittenAsDependsOn(t *testing.T) {
	t.Parallel()
	facts := append([]fact{{
		name: "a table at several places",
		setup: []string{
			`CREATE TABLE people (id int PRIMARY KEY, name text, boss_id int, flag boolean, "odd name" int)`,
			`ALTER TABLE people REPLICA IDENTITY FULL`,
			`INSERT INTO people VALUES (1, 'a', NULL, true), (2, 'b', 1, true), (3, 'c', 1, false), (4, 'd', 2, false)`,
			`CREATE TABLE rates (one int)`, `ALTER TABLE rates REPLICA IDENTITY FULL`, `INSERT INTO rates VALUES (1)`,
		},
		entries: `  person: {key: 'person:{id}', query: 'SELECT p.name, b.name AS boss FROM people p LEFT JOIN people b ON b.id = p.boss_id WHERE p.id = @id'}
  flags: {key: 'flags:{flag}:{id}', query: 'SELECT p.name, b.name AS boss FROM people p JOIN people b ON b.id = p.boss_id WHERE p.id = @id AND p.flag = @flag'}
  odd: {key: 'odd:{id}', query: 'SELECT p.name FROM people p JOIN people b ON b."odd name" = p.id WHERE p.boss_id = @id', allow_sweep: true}
  rated: {key: 'rated:{id}', query: 'SELECT p.name, (SELECT max(one) FROM rates) FROM people p WHERE p.id = @id', allow_sweep: true}
`,
		steps: []step{
			{change: `UPDATE people SET name = 'B' WHERE id = 2`, gone: []string{"person:2", "person:4", "flags:t:2", "flags:f:4", "odd:1"}},
			{change: `UPDATE people SET flag = false WHERE id = 2`, gone: []string{"flags:t:2", "flags:f:2"}},
			{change: `UPDATE people SET boss_id = 3 WHERE id = 4`, gone: []string{"person:4", "flags:f:4", "odd:3", "odd:2"}},
			{change: `UPDATE rates SET one = 2`, gone: []string{"rated:1", "rated:7"}},
		},
	}}, queryFacts...)
	tryFacts(t, 18, facts, func(f *fixture, entries string) string {
		path, _ := writeConfig(t, f.config(entries))
		stdout, stderr, exit := unstaleCommand(t, "plan", "--depends-on", "--config", path)
		if exit != 0 {
			t.Fatalf("exit %d\n%s", exit, stderr)
		}
		golden(t, "depends_on.txt", stdout)
		written, ok := strings.CutPrefix(stdout, "entries:\n")
		if !ok {
			t.Fatal(stdout)
		}
		return written + bystanders
	}, withoutKept)
}

// withoutKept takes more keys than need be for no harm.
func withoutKept(steps []step) (without []step) {
	for _, s := range steps {
		s.kept = nil
		without = append(without, s)
	}
	return without
}

const bystanders = "  bystander: {key: 'bystander:{id}', table: bystanders}\n"

func tryFacts(t *testing.T, major int, facts []fact, written func(f *fixture, entries string) string, alter ...func([]step) []step) {
	f := newFixture(t, major)
	f.exec(`CREATE TABLE bystanders (id int PRIMARY KEY)`)
	entries := bystanders
	for _, fact := range facts {
		for _, statement := range fact.setup {
			f.exec(statement)
		}
		entries += fact.entries
	}
	i := startInstance(t, f.config(written(f, entries)))
	i.waitReady()
	for _, fact := range facts {
		steps := fact.steps
		for _, to := range alter {
			steps = to(steps)
		}
		t.Run(fact.name, func(t *testing.T) { f.on(t).try(i, steps) })
	}
	i.stop()
}

// plan shows what is written by hand as it shows what is derived, and check takes it.
func TestPlanPrintsDependsOn(t *testing.T) {
	t.Parallel()
	f := newFixtureOn(t, sharedPostgres(t, 15), sharedRedis(t))
	execute(t, f.conn, dependsOnFacts[0].setup...)
	path, _ := writeConfig(t, f.config(dependsOnFacts[0].entries))
	s := session{t: t, config: path}
	s.run(0, "plan", "--sql")
	s.run(1, "plan", "--depends-on")
	s.run(2, "plan", "--depends-on", "--json")
	s.run(0, "plan", "--change", `{"table":"reviews","op":"u","before":{"id":1,"product_id":7,"stars":1},"after":{"id":1,"product_id":8,"stars":1}}`)
	golden(t, "depends_on_plan.txt", s.text.String())

	execute(t, f.conn, "ALTER TABLE reviews REPLICA IDENTITY DEFAULT")
	if text := fmt.Sprint(checkJSON(t, path)); !strings.Contains(text, "ALTER TABLE public.reviews REPLICA IDENTITY FULL") && !strings.Contains(text, `ALTER TABLE "public"."reviews" REPLICA IDENTITY FULL`) {
		t.Errorf("check does not ask for the old product of a review\n%s", text)
	}
}

// Whatever depends_on says wrong is said at its place, all at once.
func TestDependsOnIsHeldAgainstTheDatabase(t *testing.T) {
	t.Parallel()
	f := newFixtureOn(t, sharedPostgres(t, 15), sharedRedis(t))
	execute(t, f.conn,
		`CREATE TABLE products (id int PRIMARY KEY, name text, tags text[], category_id int, price numeric(10,2))`,
		`CREATE VIEW cards AS SELECT id, name FROM products`,
		`CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id)`, `CREATE TABLE part PARTITION OF parts DEFAULT`,
		`CREATE UNLOGGED TABLE visits (id int PRIMARY KEY)`)
	for _, c := range []struct{ dependsOn, where, says string }{
		{`{missing: id}`, `depends_on: {`, `there is no table missing`},
		{`{cards: id}`, `depends_on: {`, `cards is a view, and nothing is logged under its name`},
		{`{visits: id}`, `depends_on: {`, `visits is unlogged`},
		{`{pg_catalog.pg_class: oid}`, `depends_on: {`, `a system catalog`},
		{`{part: id}`, `depends_on: {`, `is a partition, whose changes`},
		{`{products: [id, nmae]}`, `depends_on: {products: `, `2 columns, and the key a:{id} has one placeholder`},
		{`{products: nmae}`, `depends_on: {products: `, `public.products has no column nmae`},
		{`{products: {columns: [name]}}`, `depends_on: {`, `it does not say which keys a changed row leads to`},
		{`{products: {key: id, columns: [name, colour]}}`, `depends_on: {products: {key: id, columns: [name, `, `public.products has no column colour`},
		{`{products: id, public.products: name}`, `depends_on: {products: id, `, `is the table products`},
		{`{products: {lookup: 'SELECT 1'}}`, `depends_on: {products: {lookup: '`, `no @column of the changed row is in it`},
		{`{products: {lookup: 'SELECT id FROM WHERE'}}`, `depends_on: {products: {lookup: 'SELECT id FROM `, `syntax error`},
		{`{products: {lookup: 'SELECT id FROM products WHERE category_id = @colour'}}`, `depends_on: {products: {lookup: 'SELECT id FROM products WHERE category_id = `, `public.products has no column colour`},
		{`{products: {lookup: 'SELECT id FROM products WHERE tags = @tags'}}`, `depends_on: {products: {lookup: 'SELECT id FROM products WHERE tags = `, `tags is an array`},
		{`{products: {lookup: 'SELECT id FROM products WHERE name = @category_id'}}`, `depends_on: {products: {lookup: 'SELECT id FROM products WHERE name `, `operator does not exist: text = integer`},
		{`{products: {lookup: 'SELECT id, name FROM products WHERE id = @id'}}`, `depends_on: {products: {lookup: '`, `it returns 2 columns, and the key a:{id} has one placeholder`},
		{`{products: {lookup: 'SELECT price FROM products WHERE id = @id'}}`, `depends_on: {products: {lookup: '`, `what it returns for {id} is numeric`},
		{`{products: {lookup: 'SELECT id FROM products WHERE id = @id FOR UPDATE'}}`, `depends_on: {products: {lookup: 'SELECT id FROM products WHERE id = @id `, `FOR UPDATE and FOR SHARE lock rows`},
		{`{products: {lookup: 'WITH gone AS (DELETE FROM products RETURNING id) SELECT id FROM gone WHERE id = @id'}}`, `depends_on: {products: {lookup: '`, `it cannot be run for many rows at once`},
	} {
		path, _ := writeConfig(t, f.config("  a: {key: 'a:{id}', depends_on: "+c.dependsOn+"}\n"))
		stdout, stderr, exit := unstaleCommand(t, "plan", "--config", path)
		caret := ""
		for line := range strings.Lines(stderr) {
			if strings.HasSuffix(strings.TrimSpace(line), "^") {
				caret = line
			}
		}
		at := strings.Index(stderr, c.where)
		begin := strings.LastIndexByte(stderr[:max(at, 0)], '\n') + 1
		if exit != 1 || at < 0 || !strings.Contains(stderr, c.says) || strings.IndexByte(caret, '^') != at-begin+len(c.where) {
			t.Errorf("%s: exit %d, want %s\n%s%s", c.dependsOn, exit, c.says, stdout, stderr)
		}
	}
}

// A lookup sees what its role sees: rows that are hidden from it lead to no key, and would
// stay unnoticed.
func TestDependsOnSeesEveryRow(t *testing.T) {
	t.Parallel()
	f := newFixtureOn(t, sharedPostgres(t, 15), sharedRedis(t))
	role := f.slot + "_reader"
	execute(t, f.conn,
		`CREATE TABLE categories (id int PRIMARY KEY)`, `CREATE TABLE products (id int PRIMARY KEY, category_id int)`,
		`ALTER TABLE products ENABLE ROW LEVEL SECURITY`, `ALTER TABLE categories ENABLE ROW LEVEL SECURITY`,
		`CREATE ROLE `+role, `GRANT SELECT ON products, categories TO `+role)
	plan := func(url string) (stderr string) {
		path, _ := writeConfig(t, strings.Replace(f.config("  a: {key: 'a:{id}', depends_on: {categories: {lookup: 'SELECT id FROM products WHERE category_id = @id'}}}\n"), f.url, url, 1))
		_, stderr, _ = unstaleCommand(t, "plan", "--config", path)
		return stderr
	}
	const says = "row security hides rows of products from this role"
	if got := plan(f.url + "&options=-c%20role%3D" + role); !strings.Contains(got, says) {
		t.Errorf("a role that does not see every row: %s", got)
	}
	if got := plan(f.url); strings.Contains(got, says) {
		t.Errorf("a superuser: %s", got)
	}
	execute(t, f.conn, `DROP OWNED BY `+role, `DROP ROLE `+role)
}

// A lookup that a change of the database has broken is no reason to serve what is stale.
func TestDependsOnIsPlannedAnew(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 15)
	for _, statement := range []string{
		`CREATE TABLE makers (id int PRIMARY KEY, name text)`, `ALTER TABLE makers REPLICA IDENTITY FULL`,
		`CREATE TABLE items (id int PRIMARY KEY, maker_id int)`, `ALTER TABLE items REPLICA IDENTITY FULL`,
		`INSERT INTO makers VALUES (1, 'm')`, `INSERT INTO items VALUES (1, 1), (2, 2)`,
	} {
		f.exec(statement)
	}
	i := startInstance(t, f.config("  card: {key: 'card:{id}', depends_on: {items: id, makers: {lookup: 'SELECT id FROM items WHERE maker_id = @id'}}}\n"))
	i.waitReady()
	f.exec("ALTER TABLE items RENAME maker_id TO made_by")
	i.eventually("refused", func() bool { return i.said("a query cannot be planned any more") > 0 })
	f.cache("card:2")
	i.eventually("swept", func() bool { return !f.cached("card:2") })
	f.exec("ALTER TABLE items RENAME made_by TO maker_id")
	i.eventually("mended", func() bool {
		return i.saidInOrder("a query cannot be planned any more", "every query can be planned again", "msg=ready")
	})
	f.cache("card:1", "card:2")
	f.exec("UPDATE makers SET name = 'n'")
	f.barrier()
	if f.cached("card:1") || !f.cached("card:2") {
		t.Error("want the one card gone that shows the maker")
	}
	i.stop()
}
