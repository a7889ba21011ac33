package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/database"
	"github.com/unstale/unstale/internal/stack"
)

// loaderOn returns a loader of a database until the end of the test.
func loaderOn(t *testing.T, url string, loads ...database.Load) *database.Loader {
	t.Helper()
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	loader := database.NewLoader(config, loads, database.LoaderOptions{Connections: 1})
	t.Cleanup(loader.Close)
	return loader
}

// What the service loads must be the bytes that a change would write and that an
// application loads: of every type, under whatever a role has set, also of a
// table whose columns have the names of our own aliases.
func TestLoadedValuesAreThoseOfTheRow(t *testing.T) {
	for _, major := range databaseMajors {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			server := sharedPostgres(t, major)
			url := newDatabase(t, server)
			setup := connectTo(t, url)
			role := fmt.Sprintf("loader_%d", databases.Add(1))
			execute(t, setup,
				`CREATE ROLE `+role+` LOGIN`,
				`ALTER ROLE `+role+` SET timezone = 'Asia/Tokyo'`,
				`ALTER ROLE `+role+` SET datestyle = 'German'`,
				`ALTER ROLE `+role+` SET default_transaction_isolation = 'repeatable read'`,
				`ALTER ROLE `+role+` SET extra_float_digits = -3`,
				`ALTER ROLE `+role+` SET bytea_output = 'escape'`,
				`CREATE TABLE wide (id bigint PRIMARY KEY, t text, "t_" int, x numeric, asked timestamptz, n bytea, "From" interval, d float8, a int[], j jsonb, gone int)`,
				`ALTER TABLE wide DROP COLUMN gone`,
				`INSERT INTO wide SELECT i, CASE WHEN i % 3 = 0 THEN NULL ELSE E'q"\\ \n' || i END, i, i * 1.10, '2024-02-29 12:00:00.5+00', '\x00ff', '1 day 2 hours', 0.1 + 0.2, ARRAY[i, NULL], '{"b": 1, "a": [2]}' FROM generate_series(1, 300) i`,
				`GRANT SELECT ON wide TO `+role,
			)
			loader := loaderOn(t, as(role, url),
				database.Load{Table: database.Name{Table: "wide"}, Key: []string{"id"}},
				database.Load{Table: database.Name{Table: "wide"}, Key: []string{"id"}, Columns: []string{"x", "t", "id"}},
				database.Load{Table: database.Name{Table: "wide"}, Key: []string{"id"}, Hash: true},
			)
			ctx := within(t, time.Minute)
			var keys [][]string
			for i := range 302 {
				keys = append(keys, []string{fmt.Sprint(i)})
			}
			utc := connectTo(t, url+"&timezone=UTC")
			for number, query := range []string{
				`SELECT ARRAY[row_to_json(w.*)::text] FROM wide w WHERE id = $1`,
				`SELECT ARRAY[row_to_json(s)::text] FROM (SELECT id, t, x FROM wide WHERE id = $1) s`,
				`SELECT array_agg(u.f ORDER BY e.n, u.m) FROM wide w, json_each_text(row_to_json(w)) WITH ORDINALITY e(k, v, n), unnest(ARRAY[e.k, e.v]) WITH ORDINALITY u(f, m) WHERE id = $1 AND e.v IS NOT NULL`,
			} {
				values, insert, err := loader.Load(ctx, number, keys)
				if err != nil {
					t.Fatal(err)
				}
				if insert == 0 {
					t.Error("no position of the log")
				}
				for i, key := range keys {
					want, err := selectValue(ctx, utc, query, i)
					if err != nil {
						t.Fatal(err)
					}
					if diff := cmp.Diff(want, values[i]); diff != "" {
						t.Fatalf("%s by load %d (-want +got):\n%s", key, number, diff)
					}
				}
			}
		})
	}
}

func selectValue(ctx context.Context, conn *pgx.Conn, query string, id int) (value []string, err error) {
	err = conn.QueryRow(ctx, query, id).Scan(&value)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return value, err
}

// Values that are equal are not the same: a key is of one of them, and the key
// of another is not filled with its row.
func TestARowCountsForItsOwnKeyOnly(t *testing.T) {
	url := newDatabase(t, sharedPostgres(t, 15))
	execute(t, connectTo(t, url),
		`CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)`,
		`CREATE TABLE names (name text COLLATE loose PRIMARY KEY)`,
		`CREATE TABLE codes (code char(4), price numeric(10,2), PRIMARY KEY (price, code))`,
		`INSERT INTO names VALUES ('a'), ('ß')`,
		`INSERT INTO codes VALUES ('ab', 1.50)`,
	)
	loader := loaderOn(t, url,
		database.Load{Table: database.Name{Table: "names"}, Key: []string{"name"}},
		database.Load{Table: database.Name{Table: "codes"}, Key: []string{"code", "price"}},
	)
	for number, test := range []struct{ keys, want [][]string }{
		{[][]string{{"A"}, {"a"}, {"ß"}}, [][]string{nil, {`{"name":"a"}`}, {`{"name":"ß"}`}}},
		{
			[][]string{{"ab  ", "1.50"}, {"ab", "1.50"}, {"ab  ", "1.5"}, {"ab  x", "1.50"}, {"ab  ", "1.501"}},
			[][]string{{`{"code":"ab  ","price":1.50}`}, nil, nil, nil, nil},
		},
	} {
		values, _, err := loader.Load(within(t, time.Minute), number, test.keys)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, values); diff != "" {
			t.Errorf("%v (-want +got):\n%s", test.keys, diff)
		}
	}
}

// A walk sees every key once, in any type and order of columns, and passes over
// rows that have none.
func TestAWalkSeesEveryKeyOnce(t *testing.T) {
	url := newDatabase(t, sharedPostgres(t, 18))
	setup := connectTo(t, url)
	execute(t, setup,
		`CREATE TABLE lines (shop text, product uuid, day date, amount int)`,
		`CREATE UNIQUE INDEX ON lines (day, shop, product)`,
		`INSERT INTO lines SELECT CASE WHEN i % 50 = 0 THEN NULL ELSE 'shop ' || i % 7 END, gen_random_uuid(), '2024-01-01'::date + i % 11, i FROM generate_series(1, 3000) i`,
		`CREATE TABLE parts (id int, name text, PRIMARY KEY (id)) PARTITION BY HASH (id)`,
		`CREATE TABLE parts_0 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 0)`,
		`CREATE TABLE parts_1 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 1)`,
		`INSERT INTO parts SELECT i, 'part' FROM generate_series(1, 1000) i`,
	)
	loader := loaderOn(t, url,
		database.Load{Table: database.Name{Table: "lines"}, Key: []string{"shop", "product", "day"}},
		database.Load{Table: database.Name{Table: "parts"}, Key: []string{"id"}},
	)
	for number, query := range []string{
		`SELECT concat_ws(',', shop, product, day) FROM lines WHERE shop IS NOT NULL`,
		`SELECT id::text FROM parts`,
	} {
		rows, err := setup.Query(within(t, time.Minute), query)
		if err != nil {
			t.Fatal(err)
		}
		want, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for after := []string(nil); ; {
			keys, err := loader.Next(within(t, time.Minute), number, after, 256)
			if err != nil {
				t.Fatal(err)
			}
			if len(keys) == 0 {
				break
			}
			for _, key := range keys {
				got = append(got, strings.Join(key, ","))
			}
			after = keys[len(keys)-1]
		}
		slices.Sort(want)
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("walk %d (-want +got):\n%s", number, diff)
		}
		if n, err := loader.Estimate(within(t, time.Minute), number); err != nil || n < 500 || n > 10_000 {
			t.Errorf("estimate of %d rows: %d, %v", len(want), n, err)
		}
	}
}

// A load that reads a big table from end to end would be felt by everybody who
// uses the database. The table has no statistics: it was just restored.
func TestLoadsUseTheIndex(t *testing.T) {
	for _, major := range databaseMajors {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			url := newDatabase(t, sharedPostgres(t, major))
			setup := connectTo(t, url)
			execute(t, setup,
				`CREATE TABLE big (id uuid, kind varchar(10), pad text, PRIMARY KEY (kind, id)) WITH (autovacuum_enabled = off)`,
				`INSERT INTO big SELECT gen_random_uuid(), 'kind ' || i % 3, repeat('x', 100) FROM generate_series(1, 100000) i`,
			)
			loader := loaderOn(t, url, database.Load{Table: database.Name{Table: "big"}, Key: []string{"id", "kind"}})
			ctx := within(t, time.Minute)
			scans := func() (sequential, index int) {
				t.Helper()
				if err := setup.QueryRow(ctx, `SELECT seq_scan, idx_scan FROM pg_stat_user_tables WHERE relname = 'big'`).Scan(&sequential, &index); err != nil {
					t.Fatal(err)
				}
				return sequential, index
			}
			before, _ := scans()
			var after []string
			for range 10 {
				keys, err := loader.Next(ctx, 0, after, 256)
				if err != nil {
					t.Fatal(err)
				}
				values, _, err := loader.Load(ctx, 0, keys)
				if err != nil || len(values) != 256 || values[255] == nil {
					t.Fatalf("%d values, %v", len(values), err)
				}
				after = keys[255]
			}
			loader.Close() // a session that ends reports what it has done
			sequential, index := scans()
			for index < 10*256 && ctx.Err() == nil {
				sequential, index = scans()
			}
			if sequential != before {
				t.Errorf("%d sequential scans, %d of the index", sequential-before, index)
			}
		})
	}
}

// What is wrong with rows or their table has a SQLSTATE, as if the server had
// said it: a caller takes it for no outage, and finds the key by halves. The
// connection is right, and the other rows are loaded on.
func TestRowsThatCannotBeLoadedAreNoOutage(t *testing.T) {
	url := newDatabase(t, sharedPostgres(t, 15))
	execute(t, connectTo(t, url), `CREATE TABLE products (sku text, body text)`, `INSERT INTO products VALUES ('a', 'x'), ('b', 'x'), ('b', 'y')`)
	table := database.Name{Table: "products"}
	loader := loaderOn(t, url,
		database.Load{Table: table, Key: []string{"sku"}},
		database.Load{Table: table, Key: []string{"id"}},
		database.Load{Table: database.Name{Table: "gone"}, Key: []string{"id"}},
		database.Load{Query: "SELECT body FROM products WHERE sku = k1", Key: []string{"sku"}},
		database.Load{Query: "SELECT body FROM products WHERE sku = k1", Key: []string{"sku"}, Many: true},
	)
	for _, test := range []struct {
		name   string
		number int
		keys   [][]string
		want   string
		says   string
	}{
		{"two rows with one key", 0, [][]string{{"a"}, {"b"}}, "21000", "on_change: invalidate"},
		{"the other row", 0, [][]string{{"a"}}, "", ""},
		{"a column that is gone", 1, [][]string{{"1"}}, "42703", "has no column id"},
		{"a table that is gone", 2, [][]string{{"1"}}, "42703", "has no column id"},
		{"a query with two rows", 3, [][]string{{"a"}, {"b"}}, "21000", "write rows: many, or LIMIT 1"},
		{"a query with one", 3, [][]string{{"a"}}, "", ""},
		{"a query that may have two", 4, [][]string{{"b"}}, "", ""},
	} {
		_, _, err := loader.Load(within(t, time.Minute), test.number, test.keys)
		got, says := "", ""
		if u, ok := errors.AsType[*database.Unloadable](err); ok {
			got, says = u.SQLState(), u.Error()
			err = nil
		}
		if err != nil || got != test.want || !strings.Contains(says, test.says) {
			t.Errorf("%s: %q %s, %v", test.name, got, says, err)
		}
	}
}

// Rows may be of any length, and memory is not: what is longer than the limit,
// alone or together, does not leave the server.
func TestALoadIsBounded(t *testing.T) {
	url := newDatabase(t, sharedPostgres(t, 15))
	const row = `{"id":1,"body":""}`
	execute(t, connectTo(t, url), `CREATE TABLE texts (id int PRIMARY KEY, body text)`,
		fmt.Sprintf(`INSERT INTO texts SELECT id, repeat('x', length) FROM (VALUES (1, %d), (2, %[1]d + 1), (3, %[1]d / 2), (4, 40000000), (5, 1)) v(id, length)`, database.LoadBytesMax-len(row)))
	table := database.Name{Table: "texts"}
	loader := loaderOn(t, url, database.Load{Table: table, Key: []string{"id"}}, database.Load{Table: table, Key: []string{"id"}, Hash: true})
	for _, test := range []struct {
		ids  string
		hash bool
		want bool
	}{
		{"1", false, true},
		{"2", false, false},
		{"2", true, true}, // fields and their names are shorter than JSON
		{"4", true, false},
		{"3 5", false, true},
		{"5 4", false, false},
		{"1 3", false, false},
		{"1 3", true, false},
	} {
		number := 0
		if test.hash {
			number = 1
		}
		var keys [][]string
		for _, id := range strings.Fields(test.ids) {
			keys = append(keys, []string{id})
		}
		values, _, err := loader.Load(within(t, time.Minute), number, keys)
		unloadable, ok := errors.AsType[*database.Unloadable](err)
		if ok && unloadable.SQLState() == "54000" {
			err = nil
		}
		if err != nil || ok == test.want || test.want && values[len(keys)-1] == nil {
			t.Errorf("rows %s, hash %v: loaded %v, %v", test.ids, test.hash, !ok, err)
		}
	}
}

// The server judges a statement. Where what was refused may be what the connection
// believed of the table, another is asked; any other refusal costs no connection.
func TestALoadFollowsTheTable(t *testing.T) {
	url := newDatabase(t, sharedPostgres(t, 18))
	setup := connectTo(t, url)
	execute(t, setup, `CREATE TABLE things (id int PRIMARY KEY)`, `INSERT INTO things VALUES (1)`)
	loader := loaderOn(t, url, database.Load{Table: database.Name{Table: "things"}, Key: []string{"id"}})
	load := func(id string) (string, error) {
		values, _, err := loader.Load(within(t, time.Minute), 0, [][]string{{id}})
		if err != nil {
			return "", err
		}
		return strings.Join(values[0], ""), nil
	}
	if got, err := load("1"); err != nil || got != `{"id":1}` {
		t.Fatalf("%s, %v", got, err)
	}
	backends := func() (pids []int) {
		t.Helper()
		if err := setup.QueryRow(within(t, time.Minute), `SELECT array_agg(pid) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()`).Scan(&pids); err != nil {
			t.Fatal(err)
		}
		return pids
	}
	before := backends()
	if _, err := load("no number"); !isSQLState(err, "22P02") {
		t.Fatalf("what is no number: %v", err)
	}
	if got, err := load("1"); err != nil || got != `{"id":1}` {
		t.Fatalf("%s, %v", got, err)
	}
	if diff := cmp.Diff(before, backends()); diff != "" {
		t.Errorf("connections (-before +after):\n%s", diff)
	}
	execute(t, setup, `ALTER TABLE things ALTER id TYPE text, ADD COLUMN more int DEFAULT 7`, `INSERT INTO things VALUES ('x')`)
	if got, err := load("x"); err != nil || got != `{"id":"x","more":7}` {
		t.Fatalf("%s, %v", got, err)
	}

	// A backend that dies between two loads is no reason to fail.
	execute(t, setup, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`)
	if got, err := load("x"); err != nil || got != `{"id":"x","more":7}` {
		t.Fatalf("%s, %v", got, err)
	}

	// A statement that would outlive its caller is ended by the server, and says
	// so: that is no outage.
	execute(t, setup, `CREATE FUNCTION slow() RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN PERFORM pg_sleep(10); RETURN 1; END'`,
		`CREATE TABLE slow_things (id int PRIMARY KEY)`, `INSERT INTO slow_things VALUES (1)`,
		`ALTER TABLE slow_things ENABLE ROW LEVEL SECURITY`, `ALTER TABLE slow_things FORCE ROW LEVEL SECURITY`,
		`CREATE POLICY p ON slow_things USING (slow() = 1)`)
	role := fmt.Sprintf("slow_%d", databases.Add(1))
	execute(t, setup, `CREATE ROLE `+role+` LOGIN`, `GRANT SELECT ON slow_things TO `+role)
	slow := loaderOn(t, as(role, url), database.Load{Table: database.Name{Table: "slow_things"}, Key: []string{"id"}})
	if _, _, err := slow.Load(within(t, time.Second), 0, [][]string{{"1"}}); !isSQLState(err, "57014") {
		t.Errorf("a slow statement: %v", err)
	}
}

func isSQLState(err error, state string) bool {
	said, ok := errors.AsType[*pgconn.PgError](err)
	return ok && said.Code == state
}

// A standby may be behind: nothing is loaded from one.
func TestNothingIsLoadedFromAStandby(t *testing.T) {
	server := startPostgres(t, stack.PostgresOptions{Major: 15})
	execute(t, connectTo(t, server.URL()), `CREATE TABLE things (id int PRIMARY KEY)`)
	loader := loaderOn(t, server.URL(), database.Load{Table: database.Name{Table: "things"}, Key: []string{"id"}})
	load := func() error {
		_, _, err := loader.Load(within(t, time.Minute), 0, [][]string{{"1"}})
		return err
	}
	if err := load(); err != nil {
		t.Fatal(err)
	}
	if err := server.Stop(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(server.Dir(), "data", "standby.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := server.Start(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	if err := load(); !errors.Is(err, change.ErrOriginChanged) {
		t.Errorf("from a standby: %v", err)
	}
}

// The service must not fill the cache from a server that the stream does not
// come from: it may be behind.
func TestALoaderReadsTheExpectedServerOnly(t *testing.T) {
	url := newDatabase(t, sharedPostgres(t, 18))
	execute(t, connectTo(t, url), `CREATE TABLE things (id int PRIMARY KEY)`, `INSERT INTO things VALUES (1)`)
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	gate := database.NewGate(config, database.Options{})
	t.Cleanup(gate.Close)
	origin, err := gate.Origin(within(t, time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	loader := loaderOn(t, url, database.Load{Table: database.Name{Table: "things"}, Key: []string{"id"}})
	for _, test := range []struct {
		expect change.Origin
		want   error
	}{
		{origin, nil},
		{change.Origin{System: origin.System, Database: origin.Database, Timeline: origin.Timeline + 1, StartedAt: origin.StartedAt}, change.ErrOriginChanged},
		{origin, nil},
	} {
		loader.Expect(test.expect)
		if _, _, err := loader.Load(within(t, time.Minute), 0, [][]string{{"1"}}); !errors.Is(err, test.want) {
			t.Errorf("expecting %v: %v", test.expect, err)
		}
	}
}
