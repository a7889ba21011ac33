package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/database"
	"github.com/unstale/unstale/internal/query"
)

// What a query names is found as its own connection would find it, with the types
// that decide whether equal values are equal texts.
func TestTheCatalogOfQueries(t *testing.T) {
	for _, major := range databaseMajors {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			conn := connectTo(t, newDatabase(t, sharedPostgres(t, major)))
			execute(t, conn,
				`CREATE SCHEMA shop`,
				`SET search_path = shop, public`,
				`CREATE TYPE shop.status AS ENUM ('open', 'paid')`,
				`CREATE DOMAIN shop.amount AS bigint CHECK (value >= 0)`,
				`CREATE DOMAIN shop.small_amount AS shop.amount`,
				`CREATE TYPE shop.pair AS (a int, b int)`,
				`CREATE TABLE shop."Order" (id bigint PRIMARY KEY, gone int, status shop.status, code char(3) NOT NULL, total shop.small_amount NOT NULL, tags text[], two shop.pair, price numeric(10, 2),
					UNIQUE (code, total) INCLUDE (tags), UNIQUE (total, status), UNIQUE (total) DEFERRABLE)`,
				`CREATE UNIQUE INDEX ON shop."Order" (total) WHERE id > 0`,
				`CREATE UNIQUE INDEX ON shop."Order" (code, abs(total))`,
				`ALTER TABLE shop."Order" DROP COLUMN gone`,
				`CREATE TABLE shop.parent (id int)`,
				`CREATE TABLE shop.child (more int) INHERITS (shop.parent)`,
				`CREATE TABLE shop.grandchild () INHERITS (shop.child)`,
				`CREATE TABLE shop.events (id int) PARTITION BY RANGE (id)`,
				`CREATE TABLE shop.events_1 PARTITION OF shop.events DEFAULT`,
				`CREATE VIEW shop.open AS SELECT id FROM shop."Order" WHERE status = 'open'`,
				`CREATE FUNCTION shop.level(a int, b int DEFAULT 1) RETURNS int LANGUAGE sql STABLE AS 'SELECT a'`,
				`CREATE FUNCTION shop.lower(a int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT a'`,
			)
			catalog := database.NewQueries(t.Context(), conn)
			relation := func(schema, name string) *query.Relation {
				t.Helper()
				r, err := catalog.Relation(schema, name)
				if err != nil {
					t.Fatal(err)
				}
				return r
			}
			want := &query.Relation{Schema: "shop", Name: "Order", Kind: 'r', Persistence: 'p', Columns: []query.Column{
				{Name: "id", NotNull: true, Type: query.Type{Name: "bigint", Base: "int8"}},
				{Name: "status", Type: query.Type{Name: "shop.status", Base: "enum"}},
				{Name: "code", NotNull: true, Type: query.Type{Name: "bpchar", Base: "bpchar"}},
				{Name: "total", NotNull: true, Type: query.Type{Name: "bigint", Base: "int8"}},
				{Name: "tags", Type: query.Type{Name: "text[]", Element: "text"}},
				{Name: "two", Type: query.Type{Name: "shop.pair"}},
				{Name: "price", Type: query.Type{Name: "numeric", Base: "numeric"}},
			}, Unique: [][]string{{"id"}, {"code", "total"}, {"total", "status"}}}
			if diff := cmp.Diff(want, relation("", "Order")); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if got := relation("", "order"); got != nil {
				t.Errorf("there is no table %v", got)
			}
			if got := relation("shop", "parent").Children; len(got) != 2 || got[0].Name != "child" || got[1].Name != "grandchild" {
				t.Errorf("children of a table: %v", got)
			}
			if got := relation("", "events"); got.Kind != 'p' || len(got.Children) != 0 {
				t.Errorf("a partitioned table: %v", got)
			}
			if got := relation("", "events_1"); !got.Partition || got.Kind != 'r' {
				t.Errorf("a partition: %v", got)
			}
			execute(t, conn, `CREATE TABLE shop.keyed (a int, b int, c int UNIQUE DEFERRABLE, d int NOT NULL)`,
				`CREATE UNIQUE INDEX ON shop.keyed (b, a) INCLUDE (d)`, `CREATE UNIQUE INDEX ON shop.keyed (a) WHERE b > 0`,
				`CREATE UNIQUE INDEX ON shop.keyed (abs(a))`, `CREATE INDEX ON shop.keyed (d)`)
			if diff := cmp.Diff([][]string{{"b", "a"}}, relation("", "keyed").Unique); diff != "" {
				t.Errorf("unique keys: -want +got:\n%s", diff)
			}
			execute(t, conn, `CREATE TABLE shop.logs (id int) PARTITION BY RANGE (id)`, `CREATE UNLOGGED TABLE shop.logs_1 PARTITION OF shop.logs DEFAULT`)
			if got := relation("", "logs"); got.Unlogged != "logs_1" {
				t.Errorf("a partitioned table of which the log does not tell all: %v", got)
			}
			if got := relation("", "open"); got.Kind != 'v' || !strings.Contains(got.Definition, "'open'") {
				t.Errorf("a view: %v", got)
			}
			// PostgreSQL may have been built without ICU.
			_, err := conn.Exec(t.Context(), `CREATE COLLATION shop.folded (provider = icu, locale = 'und-u-ks-level2', deterministic = false)`)
			if err == nil {
				execute(t, conn, `CREATE TABLE shop.folds (name text COLLATE shop.folded)`)
				if got := relation("", "folds").Columns[0]; !got.Nondeterministic {
					t.Errorf("a nondeterministic collation: %v", got)
				}
			}
			for _, test := range []struct {
				schema, name string
				arguments    int
				want         *query.Function
			}{
				{"", "level", 1, &query.Function{Volatility: 's'}},
				{"", "level", 3, nil},
				{"", "lower", 1, &query.Function{Volatility: 'v'}},
				{"pg_catalog", "lower", 1, &query.Function{BuiltIn: true, Volatility: 'i'}},
				{"", "count", 0, &query.Function{BuiltIn: true, Volatility: 'i', Aggregate: true}},
				{"", "rank", 0, &query.Function{BuiltIn: true, Volatility: 'i', Aggregate: true, Window: true}},
				{"", "percentile_cont", 1, &query.Function{BuiltIn: true, Volatility: 'i', Aggregate: true}},
				{"", "concat_ws", 5, &query.Function{BuiltIn: true, Volatility: 's'}},
				{"", "generate_series", 3, &query.Function{BuiltIn: true, Volatility: 's', ReturnsSet: true}},
			} {
				got, err := catalog.Function(test.schema, test.name, test.arguments)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Errorf("%s of %d: -want +got:\n%s", test.name, test.arguments, diff)
				}
			}
		})
	}
}

// The constants of a view go into lookups, which are read in another session than the one
// that has looked at the view.
func TestConstantsOfViewsAreWrittenAsTheStreamWritesTexts(t *testing.T) {
	for _, major := range databaseMajors {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			conn := connectTo(t, newDatabase(t, sharedPostgres(t, major)))
			execute(t, conn,
				`SET datestyle = 'German, DMY'`, `SET timezone = 'Asia/Tokyo'`, `SET intervalstyle = 'sql_standard'`, `SET extra_float_digits = -10`,
				`CREATE TABLE homes (built date, sold timestamptz, lasts interval, weight float8)`,
				`CREATE VIEW some_homes AS SELECT 1 AS one FROM homes WHERE built = '01/02/2026' AND sold = '2026-02-01' AND lasts = '-1 2:00' AND weight = 0.123456789::float8`,
			)
			r, err := database.NewQueries(t.Context(), conn).Relation("", "some_homes")
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"'2026-02-01'::date", "'2026-01-31 15:00:00+00'::timestamp", "'-1 days -02:00:00'::interval", "0.123456789"} {
				if !strings.Contains(r.Definition, want) {
					t.Errorf("%s is not in %s", want, r.Definition)
				}
			}
			var style string
			if err := conn.QueryRow(t.Context(), "SHOW datestyle").Scan(&style); err != nil || style != "German, DMY" {
				t.Errorf("the session has the datestyle %s then: %v", style, err)
			}
		})
	}
}

// PostgreSQL says which columns a query reads, and a plan that lacks one is refused;
// where it may not be asked, the query stands unverified.
func TestAQueryIsVerified(t *testing.T) {
	for _, major := range databaseMajors {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			url := newDatabase(t, sharedPostgres(t, major))
			conn := connectTo(t, url)
			execute(t, conn,
				`CREATE TABLE orders (id bigint PRIMARY KEY, customer text, total numeric)`,
				`CREATE TABLE items (order_id bigint, product text, note text)`,
				`CREATE VIEW lists AS SELECT o.id, o.customer, array_agg(i.product) AS products FROM orders o JOIN items i ON i.order_id = o.id GROUP BY 1, 2`,
			)
			catalog := database.NewQueries(t.Context(), conn)
			text := "SELECT l.*, l.id, o.total -- ünique $1 @no\nFROM lists l JOIN orders o USING (id)\nWHERE o.customer = @who::text AND o.id = @id AND l.customer = @who ORDER BY o.total; "
			q, err := query.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			types, err := catalog.Parameters(q)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]query.Type{{Name: "text", Base: "text"}, {Name: "bigint", Base: "int8"}}, types); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			dependencies, err := q.Derive(catalog, types, q.Parameters)
			if err != nil {
				t.Fatal(err)
			}
			if err := catalog.Verify([]database.Derived{{Query: q, Types: types, Dependencies: dependencies}})[0]; err != nil {
				t.Error(err)
			}
			right := database.Derived{Query: q, Types: types, Dependencies: slices.Clone(dependencies)}
			for i := range dependencies {
				if dependencies[i].Table == "items" {
					dependencies[i].Columns = []string{"order_id"}
				}
			}
			// Of very many each has its own error.
			many := slices.Repeat([]database.Derived{right}, 250)
			many[120].Dependencies = dependencies
			for i, err := range catalog.Verify(many) {
				if (err != nil) != (i == 120) {
					t.Errorf("query %d of many: %v", i, err)
				}
			}
			if err := catalog.Verify([]database.Derived{{Query: q, Types: types, Dependencies: dependencies}})[0]; err == nil || !strings.Contains(err.Error(), "public.items.product") {
				t.Errorf("a column that the plan lacks: %v", err)
			}
			execute(t, conn, `SET default_transaction_read_only = on`)
			if err := catalog.Verify([]database.Derived{{Query: q, Types: types, Dependencies: dependencies}})[0]; err == nil || errors.Is(err, database.ErrUnverified) {
				t.Errorf("for a role that only reads by default: %v", err)
			}
			q, err = query.Parse("SELECT 'ü', total FROM orders\nWHERE id = @id AND missing = 1")
			if err != nil {
				t.Fatal(err)
			}
			_, err = catalog.Parameters(q)
			wrong, ok := errors.AsType[*query.Error](err)
			if want := len("SELECT 'ü', total FROM orders\nWHERE id = @id AND "); !ok || wrong.Offset != want {
				t.Errorf("a column that does not exist: %v at %d, want %d", err, wrong.Offset, want)
			}
			if _, err := conn.Exec(context.Background(), "SELECT 1"); err != nil {
				t.Error(err)
			}
		})
	}
}
