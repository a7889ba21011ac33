package e2e

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/database"
	"github.com/unstale/unstale/internal/stack"
)

// databaseMajors are the oldest and the newest PostgreSQL that the tests run on.
var databaseMajors = []int{15, 18}

// connectTo connects until the end of the test.
func connectTo(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(within(t, time.Minute), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) }) // the server may be gone
	return conn
}

// execute runs statements, each by itself.
func execute(t *testing.T, conn *pgx.Conn, statements ...string) {
	t.Helper()
	for _, statement := range statements {
		if _, err := conn.Exec(within(t, time.Minute), statement, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("%s\n%v", statement, err)
		}
	}
}

// newDatabase makes a database on a server that others use too, and returns its
// URL.
func newDatabase(t *testing.T, server *stack.Postgres) string {
	t.Helper()
	name := fmt.Sprintf("database_%d", databases.Add(1))
	execute(t, connectTo(t, server.URL()), `CREATE DATABASE `+name)
	return server.DatabaseURL(name)
}

// as is the URL of the same server for another role.
func as(role, url string) string {
	return strings.Replace(url, "postgres://postgres@", "postgres://"+role+"@", 1)
}

// Somebody who has just installed PostgreSQL gets everything at once, runs what
// is printed, in the order in which it is printed, and is done. The order
// matters: with synchronous_standby_names = '*' every other statement would
// wait for ever.
func TestNothingIsWrongOnceThePrintedStatementsHaveRun(t *testing.T) {
	for _, major := range databaseMajors {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			server := startPostgres(t, stack.PostgresOptions{Major: major, Settings: map[string]string{
				"wal_level": "replica", "synchronous_standby_names": "*",
				"max_wal_senders": "10", "max_replication_slots": "0",
			}})
			setup := connectTo(t, server.URL()+"&synchronous_commit=local")
			execute(t, setup,
				`CREATE ROLE app LOGIN`,
				`CREATE TABLE orders (id int PRIMARY KEY, customer_id int NOT NULL, doubled int GENERATED ALWAYS AS (customer_id * 2) STORED)`,
				`CREATE TABLE audit (id bigint)`,
				`CREATE UNLOGGED TABLE sessions (id uuid PRIMARY KEY)`,
				`CREATE TABLE events (id int PRIMARY KEY, kind text) PARTITION BY RANGE (id)`,
				`CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (100)`,
				`CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (100) TO (200)`,
				`ALTER TABLE events REPLICA IDENTITY FULL`,
				`CREATE TABLE "Weird ""Table""" (id int PRIMARY KEY, "from" text NOT NULL)`,
				`CREATE VIEW recent AS SELECT * FROM orders`,
				`INSERT INTO orders VALUES (1, 1)`, `INSERT INTO audit VALUES (1)`, `INSERT INTO events VALUES (1, 'a')`,
				`INSERT INTO "Weird ""Table""" VALUES (1, 'a')`,
			)
			app := connectTo(t, as("app", server.URL()))
			needs := database.Needs{Slot: "unstale", Publication: "unstale", ApplicationName: "unstale", Tables: []database.TableNeed{
				{Entry: "order", Name: database.Name{Table: "orders"}, KeyColumns: []string{"customer_id"}},
				{Entry: "audit", Name: database.Name{Schema: "public", Table: "audit"}, KeyColumns: []string{"id"}},
				{Entry: "session", Name: database.Name{Table: "sessions"}, KeyColumns: []string{"id"}},
				{Entry: "event", Name: database.Name{Table: "events"}, KeyColumns: []string{"kind"}},
				{Entry: "weird", Name: database.Name{Table: `Weird "Table"`}, KeyColumns: []string{"from"}},
				{Entry: "line", Name: database.Name{Table: "orders"}, KeyColumns: []string{"costumer_id"}},
				{Entry: "product", Name: database.Name{Table: "order"}, KeyColumns: []string{"id"}},
				{Entry: "recent", Name: database.Name{Table: "recent"}, KeyColumns: []string{"id"}},
			}}
			problems, err := database.Diagnose(within(t, time.Minute), app, needs)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range problems {
				got = append(got, strings.TrimSpace(fmt.Sprintf("%s: %s %s %s", p.Severity, p.Subject, p.Entry, p.Column)))
			}
			want := []string{
				"error: setting synchronous_standby_names",
				"error: setting wal_level",
				"error: setting max_replication_slots",
				"error: role app",
				"advice: role app",
				"error: table public.orders line costumer_id",
				"error: table order product",
				"error: table public.recent recent",
				"error: table public.orders",
				"error: table public.audit",
				"error: table public.sessions",
				"error: table public.events",
				`error: table public.Weird "Table"`,
				"error: publication unstale",
				"advice: setting max_slot_wal_keep_size",
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("(-want +got)\n%s\n%s", diff, problems)
			}

			root := connectTo(t, server.URL())
			for _, p := range problems {
				execute(t, root, p.Mend...)
			}
			if err := server.Stop(within(t, time.Minute)); err != nil {
				t.Fatal(err)
			}
			if err := server.Start(within(t, time.Minute)); err != nil {
				t.Fatal(err)
			}
			// The last three are the configuration's.
			needs.Tables = needs.Tables[:5]
			app = connectTo(t, as("app", server.URL()))
			problems, err = database.Diagnose(within(t, time.Minute), app, needs)
			if err != nil || len(problems) > 0 {
				t.Fatalf("got %v, %s, want silence", err, problems)
			}

			// The role may now do by itself what was not mentioned, and the
			// application's own statements still work.
			execute(t, app, `SELECT pg_create_logical_replication_slot('unstale', 'pgoutput')`)
			execute(t, connectTo(t, server.URL()),
				`UPDATE orders SET customer_id = 2`, `UPDATE audit SET id = 2`, `UPDATE events SET kind = 'b'`, `DELETE FROM events`,
				`UPDATE "Weird ""Table""" SET "from" = 'b'`)
			problems, err = database.Diagnose(within(t, time.Minute), app, needs)
			if err != nil || len(problems) > 0 {
				t.Fatalf("got %v, %s, want silence", err, problems)
			}
		})
	}
}

// A publication that somebody made by hand is mended too: its options, a row
// filter, a column list. The order of the statements keeps the application
// working: UPDATE fails where a replica identity has a generated column that is
// not published (18), where a row filter looks at a column outside of it, and
// where it is nothing at all.
func TestAPublicationMadeByHandIsMended(t *testing.T) {
	for _, major := range databaseMajors {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			server := sharedPostgres(t, major)
			root := connectTo(t, newDatabase(t, server))
			execute(t, root,
				`CREATE TABLE a (id int PRIMARY KEY, k int, g int GENERATED ALWAYS AS (k + 1) STORED)`,
				`CREATE TABLE b (id int PRIMARY KEY, k int)`,
				`CREATE TABLE c (id int PRIMARY KEY, k int)`,
				`CREATE TABLE n (id int)`,
				`CREATE TABLE p (id int PRIMARY KEY) PARTITION BY HASH (id)`,
				`CREATE TABLE p0 PARTITION OF p FOR VALUES WITH (MODULUS 1, REMAINDER 0)`,
				`CREATE PUBLICATION by_hand FOR TABLE a, b (id), c WHERE (k > 10), n, p WITH (publish = 'insert')`,
				`INSERT INTO a VALUES (1, 1)`, `INSERT INTO b VALUES (1, 1)`, `INSERT INTO c VALUES (1, 1)`, `INSERT INTO n VALUES (1)`,
			)
			needs := database.Needs{Slot: "by_hand", Publication: "by_hand", ApplicationName: "unstale", Tables: []database.TableNeed{
				{Entry: "a", Name: database.Name{Table: "a"}, KeyColumns: []string{"k"}},
				{Entry: "b", Name: database.Name{Table: "b"}, KeyColumns: []string{"id"}},
				{Entry: "c", Name: database.Name{Table: "c"}, KeyColumns: []string{"id"}},
				{Entry: "n", Name: database.Name{Table: "n"}, KeyColumns: []string{"id"}},
				{Entry: "p", Name: database.Name{Table: "p"}, KeyColumns: []string{"id"}},
			}}
			wrong := func() (wrong []database.Problem) {
				problems, err := database.Diagnose(within(t, time.Minute), root, needs)
				if err != nil {
					t.Fatal(err)
				}
				for _, p := range problems {
					if p.Severity == database.Wrong {
						wrong = append(wrong, p)
					}
				}
				return wrong
			}
			problems := wrong()
			want := 6 // the identities of a and n, columns, rows, operations, via root
			if major >= 18 {
				want++ // generated columns
			}
			if len(problems) != want {
				t.Fatalf("got %d problems, want %d:\n%s", len(problems), want, problems)
			}
			for _, p := range problems {
				execute(t, root, p.Mend...)
				execute(t, root, `UPDATE a SET k = k + 1`, `UPDATE b SET k = k + 1`, `UPDATE c SET k = k + 1`, `UPDATE n SET id = id + 1`)
			}
			if problems := wrong(); len(problems) > 0 {
				t.Errorf("got %s, want silence", problems)
			}
		})
	}
}

// Two rows with one key would write over each other. What looks like a unique
// index does not always keep two rows apart: not until the end of a transaction,
// not where its WHERE does not hold, not if it was never finished.
func TestWhatKeepsRowsApart(t *testing.T) {
	for _, major := range databaseMajors {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			conn := connectTo(t, newDatabase(t, sharedPostgres(t, major)))
			execute(t, conn,
				`CREATE TABLE t (a int, b int, c int, d int, e int, f int, g int, h int, i text)`,
				`CREATE UNIQUE INDEX ON t (b, h)`,
				`CREATE UNIQUE INDEX ON t (f) INCLUDE (g)`,
				`ALTER TABLE t ADD PRIMARY KEY (a)`,
				`ALTER TABLE t ADD UNIQUE (c) DEFERRABLE`,
				`CREATE UNIQUE INDEX ON t (d) WHERE d > 0`,
				`CREATE UNIQUE INDEX ON t ((e + 1))`,
				`CREATE INDEX ON t (g)`,
				`CREATE UNIQUE INDEX unfinished ON t (h)`,
				`UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'unfinished'::regclass`,
				`CREATE TABLE p (id int, day int, note text) PARTITION BY RANGE (day)`,
				`CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (10)`,
				`CREATE UNIQUE INDEX ON p (id, day)`,
				`CREATE UNIQUE INDEX ON ONLY p (day)`,
				`CREATE TABLE none (id int)`,
			)
			tables, err := database.Tables(within(t, time.Minute), conn, []database.Name{{Table: "t"}, {Table: "p"}, {Table: "none"}})
			if err != nil {
				t.Fatal(err)
			}
			want := [][][]string{{{"a"}, {"b", "h"}, {"f"}}, {{"id", "day"}}, {}}
			for i, table := range tables {
				if diff := cmp.Diff(want[i], table.Unique); diff != "" {
					t.Errorf("%s (-want +got)\n%s", table.Name, diff)
				}
			}
		})
	}
}

// The stream needs no right to read a table; loading rows does. Only what is
// loaded must be readable, and the printed statements make it so.
func TestWhatTheServiceLoadsItMayRead(t *testing.T) {
	for _, major := range databaseMajors {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			url := newDatabase(t, sharedPostgres(t, major))
			root := connectTo(t, url)
			execute(t, root,
				`CREATE ROLE loader LOGIN`,
				`CREATE SCHEMA hr`,
				`CREATE TABLE hr.people (id int PRIMARY KEY, name text, salary int)`,
				`ALTER TABLE hr.people ENABLE ROW LEVEL SECURITY`,
				`CREATE TABLE items (id int PRIMARY KEY, name text, cost int)`,
				`GRANT SELECT (id, name) ON items TO loader`,
			)
			conn := connectTo(t, as("loader", url))
			need := func(entry, schema, table string, loaded bool, columns ...string) database.TableNeed {
				return database.TableNeed{Entry: entry, Name: database.Name{Schema: schema, Table: table}, KeyColumns: []string{"id"}, Written: true, Loaded: loaded, Columns: columns}
			}
			mends := func(needs ...database.TableNeed) (mends []string) {
				problems, err := database.Diagnose(within(t, time.Minute), conn, database.Needs{Slot: "rows", Publication: "rows", ApplicationName: "unstale", Tables: needs})
				if err != nil {
					t.Fatal(err)
				}
				for _, p := range problems {
					if strings.Contains(p.Text, "the service") {
						mends = append(mends, p.Mend...)
					}
				}
				return mends
			}
			if got := mends(need("named", "", "items", true, "name")); got != nil {
				t.Errorf("got %q, want silence", got)
			}
			// What comes from the log is loaded where a change does not show it.
			if diff := cmp.Diff([]string{"ALTER ROLE loader BYPASSRLS;"}, mends(need("streamed", "hr", "people", false))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			all := []database.TableNeed{need("item", "", "items", true), need("person", "hr", "people", true)}
			got := mends(all...)
			want := []string{
				"GRANT SELECT ON public.items TO loader;",
				"GRANT USAGE ON SCHEMA hr TO loader;", "GRANT SELECT ON hr.people TO loader;",
				"ALTER ROLE loader BYPASSRLS;",
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			execute(t, root, got...)
			if got := mends(all...); got != nil {
				t.Errorf("after what was printed: got %q, want silence", got)
			}
		})
	}
}

// Only what may be stored out of line is left out of the log: neither short
// rows, nor numbers, nor a text whose storage forbids it.
func TestWhichColumnsAreLong(t *testing.T) {
	for _, major := range databaseMajors {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			conn := connectTo(t, newDatabase(t, sharedPostgres(t, major)))
			execute(t, conn,
				`CREATE TABLE t (id int, name text, price numeric, tags int[], plain text, code "char")`,
				`ALTER TABLE t ALTER plain SET STORAGE PLAIN`,
				`CREATE TABLE short (id int, code varchar(3))`,
				`CREATE TABLE p (id int, name text) PARTITION BY RANGE (id)`,
				`CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (10)`,
			)
			tables, err := database.Tables(within(t, time.Minute), conn, []database.Name{{Table: "t"}, {Table: "short"}, {Table: "p"}})
			if err != nil {
				t.Fatal(err)
			}
			var long []string
			for _, table := range tables {
				for _, c := range table.Columns {
					if c.Long {
						long = append(long, table.Name.Table+"."+c.Name)
					}
				}
			}
			if diff := cmp.Diff([]string{"t.name", "t.tags", "p.name"}, long); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// Some changes make cached rows wrong and no row is ever sent for them. They
// show in the fingerprint. What leaves rows as they are must not show, or the
// cache would be swept for nothing.
func TestWhatAFingerprintShows(t *testing.T) {
	changes := []struct {
		fact      string
		statement string
		shows     bool
	}{
		{"rows inserted", `INSERT INTO events SELECT i, 'calm'::feeling, (1, 'x')::pair, 1.5 FROM generate_series(0, 150) i`, false},
		{"rows updated", `UPDATE events SET amount = amount + 1`, false},
		{"rows deleted", `DELETE FROM events WHERE id = 7`, false},
		{"vacuum", `VACUUM events`, false},
		{"analyze", `ANALYZE events`, false},
		{"an index", `CREATE INDEX ON events (amount)`, false},
		{"a unique index", `CREATE UNIQUE INDEX ON events (id, amount)`, false},
		{"an index rebuilt", `REINDEX TABLE events_1`, false},
		{"statistics target", `ALTER TABLE events ALTER amount SET STATISTICS 200`, false},
		{"a check", `ALTER TABLE events ADD CHECK (id >= 0)`, false},
		{"another table", `CREATE TABLE other (id int)`, false},

		{"a partition truncated", `TRUNCATE events_1`, true},
		{"a type changed", `ALTER TABLE events ALTER amount TYPE numeric(12,3)`, true},
		{"a column added", `ALTER TABLE events ADD COLUMN note text DEFAULT 'x'`, true},
		{"a column renamed", `ALTER TABLE events RENAME note TO remark`, true},
		{"a column dropped", `ALTER TABLE events DROP COLUMN remark`, true},
		{"an enum label renamed, behind a domain", `ALTER TYPE mood RENAME VALUE 'calm' TO 'serene'`, true},
		{"an enum label renamed, behind a multirange", `ALTER TYPE size RENAME VALUE 'small' TO 'tiny'`, true},
		{"an attribute of a composite type renamed", `ALTER TYPE pair RENAME ATTRIBUTE b TO c`, true},
		{"a cast to json, behind an array", `CREATE CAST (mark AS json) WITH FUNCTION mark_json(mark)`, true},
		{"what the cast calls", `CREATE OR REPLACE FUNCTION mark_json(mark) RETURNS json LANGUAGE sql AS 'SELECT to_json(2)'`, true},
		{"the cast dropped", `DROP CAST (mark AS json)`, true},
		{"a cast to something else", `CREATE CAST (mark AS jsonb) WITH FUNCTION mark_jsonb(mark)`, false},
		{"an output function that is no longer immutable", `ALTER FUNCTION odd_out(odd) STABLE`, true},
		{"a type renamed", `ALTER TYPE odd RENAME TO stranger`, true},
		{"a partition detached", `ALTER TABLE events DETACH PARTITION events_2`, true},
		{"a partition attached", `ALTER TABLE events ATTACH PARTITION events_2 FOR VALUES FROM (100) TO (200)`, true},
		{"a partition unlogged", `ALTER TABLE events_1 SET UNLOGGED`, true},
		{"a partition logged again", `ALTER TABLE events_1 SET LOGGED`, true},
		{"replica identity of a partition", `ALTER TABLE events_1 REPLICA IDENTITY FULL`, true},
		{"a table replaced by its name", `BEGIN; ALTER TABLE events RENAME TO old; CREATE TABLE events (LIKE old); COMMIT`, true},
		{"the table gone", `DROP TABLE events`, true},
	}
	for _, major := range databaseMajors {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			server := sharedPostgres(t, major)
			conn := connectTo(t, newDatabase(t, server))
			execute(t, conn,
				`CREATE TYPE mood AS ENUM ('calm', 'wild')`,
				`CREATE DOMAIN feeling AS mood`,
				`CREATE TYPE pair AS (a int, b text)`,
				`CREATE TYPE size AS ENUM ('small', 'big')`,
				`CREATE TYPE sizes AS RANGE (subtype = size, multirange_type_name = many_sizes)`,
				`CREATE TYPE mark AS ENUM ('low', 'high')`,
				`CREATE FUNCTION mark_json(mark) RETURNS json LANGUAGE sql AS 'SELECT to_json(1)'`,
				`CREATE FUNCTION mark_jsonb(mark) RETURNS jsonb LANGUAGE sql AS 'SELECT to_jsonb(1)'`,
				`CREATE TYPE odd`,
				`CREATE FUNCTION odd_in(cstring) RETURNS odd LANGUAGE internal IMMUTABLE STRICT AS 'textin'`,
				`CREATE FUNCTION odd_out(odd) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout'`,
				`CREATE TYPE odd (INPUT = odd_in, OUTPUT = odd_out, LIKE = text)`,
				`CREATE TABLE events (id int PRIMARY KEY, feeling feeling, pair pair, amount numeric(10,2), sizes many_sizes, marks mark[], odd odd) PARTITION BY RANGE (id)`,
				`CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (100)`,
				`CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (100) TO (200)`,
			)
			name := database.Name{Table: "events"}
			fingerprint := func() string {
				fingerprints, err := database.Fingerprints(within(t, time.Minute), conn, []database.Name{{Table: "missing"}, name})
				if err != nil {
					t.Fatal(err)
				}
				tables, err := database.Tables(within(t, time.Minute), conn, []database.Name{name})
				if err != nil {
					t.Fatal(err)
				}
				if got, want := tables[0].Fingerprint, fingerprints[name]; got != want {
					t.Errorf("Tables says %q, Fingerprints %q", got, want)
				}
				return fingerprints[name]
			}
			before := fingerprint()
			for _, c := range changes {
				execute(t, conn, c.statement)
				after := fingerprint()
				if shows := after != before; shows != c.shows {
					t.Errorf("%s shows: got %v, want %v", c.fact, shows, c.shows)
				}
				before = after
			}
			if before != "" {
				t.Errorf("a table that is gone has the fingerprint %q, want none", before)
			}
		})
	}
}

// A cast to json changes what row_to_json returns. Whoever makes one while the
// service runs gets no more values of the old shape, neither those that are
// cached nor new ones.
func TestACastToJSONIsNoticed(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 15)
	f.exec("CREATE TYPE mood AS ENUM ('sad', 'ok')")
	f.exec("CREATE TABLE products (id int PRIMARY KEY, mood mood)")
	i := startInstance(t, f.config("  warm: {key: 'warm:{id}', table: products, on_change: warm}\n"))
	i.waitReady()
	f.exec("CREATE TABLE begun (id int)") // the log goes on: what follows is new
	f.exec("INSERT INTO products VALUES (1, 'sad')")
	f.barrier()
	f.want("before", f.value("warm:1"), `{"id":1,"mood":"sad"}`)
	f.exec(`CREATE FUNCTION mood_json(mood) RETURNS json LANGUAGE sql IMMUTABLE AS $$ SELECT '{"x":1}'::json $$`)
	f.exec("CREATE CAST (mood AS json) WITH FUNCTION mood_json(mood)")
	i.eventually("the old shape is swept", func() bool { return f.value("warm:1") != `{"id":1,"mood":"sad"}` })
	f.exec("UPDATE products SET mood = 'ok'")
	f.barrier()
	if got := f.value("warm:1"); got != "" && got != `{"id":1,"mood":{"x":1}}` {
		t.Errorf("after the cast: %s", got)
	}
	i.stop()
}

// Without its unique index a key may be that of two rows. No value is wrong yet,
// so nothing is swept, but a person is told, and how to mend it.
func TestAUniqueIndexThatGoesIsSaid(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 15)
	f.exec("CREATE TABLE products (id int PRIMARY KEY, sku text)")
	f.exec("CREATE UNIQUE INDEX by_sku ON products (sku)")
	f.exec("ALTER TABLE products REPLICA IDENTITY FULL")
	i := startInstance(t, f.config("  product: {key: 'product:{sku}', table: products, on_change: warm}\n"))
	i.waitReady()
	f.exec("CREATE TABLE begun (id int)") // the log goes on: what follows is new
	f.exec("INSERT INTO products VALUES (1, 'a')")
	f.barrier()
	f.exec("DROP INDEX by_sku")
	// It takes up to a minute, as long as eventually waits.
	ctx := within(t, 3*time.Minute)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for i.said("needs a person") == 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("nobody was told\n%s", i.log)
		}
	}
	if i.said("run CREATE UNIQUE INDEX CONCURRENTLY ON public.products (sku)") != 1 {
		t.Errorf("it does not say what to do\n%s", i.log)
	}
	f.want("not swept", f.value("product:a"), `{"id":1,"sku":"a"}`)
	f.exec("CREATE UNIQUE INDEX by_sku ON products (sku)")
	i.eventually("it is mended", func() bool { return i.said("is mended") == 1 })
	i.stop()
}

// An ALTER TABLE that waits for a long transaction holds a lock that nobody
// passes. Looking at the catalog must not stand in that queue.
func TestFingerprintsDoNotWaitForALock(t *testing.T) {
	url := newDatabase(t, sharedPostgres(t, 15))
	conn, holder := connectTo(t, url), connectTo(t, url)
	execute(t, holder,
		`CREATE TABLE t (id int PRIMARY KEY) PARTITION BY RANGE (id)`,
		`CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (100)`,
		`BEGIN`, `LOCK TABLE t, t1 IN ACCESS EXCLUSIVE MODE`)
	execute(t, conn, `SET lock_timeout = 1`)
	names := []database.Name{{Table: "t"}}
	if _, err := database.Fingerprints(within(t, time.Minute), conn, names); err != nil {
		t.Error(err)
	}
	if _, err := database.Tables(within(t, time.Minute), conn, names); err != nil {
		t.Error(err)
	}
}

func newGate(t *testing.T, url string, options database.Options) *database.Gate {
	t.Helper()
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	gate := database.NewGate(config, options)
	t.Cleanup(gate.Close)
	return gate
}

// expectItself makes the gate answer for the server as it is.
func expectItself(t *testing.T, gate *database.Gate) change.Origin {
	t.Helper()
	origin, err := gate.Origin(within(t, time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	gate.Expect(origin)
	var s change.Snapshot
	if err := gate.Snapshot(within(t, time.Minute), &s); err != nil {
		t.Fatal(err)
	}
	return origin
}

// snapshotUntil asks the gate until it answers as wanted, or a minute has gone.
func snapshotUntil(t *testing.T, gate *database.Gate, wanted func(error) bool) error {
	t.Helper()
	ctx := within(t, time.Minute)
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		var s change.Snapshot
		err := gate.Snapshot(ctx, &s)
		if wanted(err) || ctx.Err() != nil {
			return err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
		}
	}
}

func originChanged(err error) bool { return errors.Is(err, change.ErrOriginChanged) }

// A transaction that runs is not visible, and is once it has committed.
func TestTheGateOpensWhenTheTransactionIsVisible(t *testing.T) {
	server := sharedPostgres(t, 15)
	gate := newGate(t, server.URL(), database.Options{})
	expectItself(t, gate)
	writer := connectTo(t, server.URL())
	execute(t, writer, `BEGIN`)
	var xid uint64
	if err := writer.QueryRow(within(t, time.Minute), `SELECT pg_current_xact_id()::text::int8`).Scan(&xid); err != nil {
		t.Fatal(err)
	}
	visible := func() bool {
		var s change.Snapshot
		if err := gate.Snapshot(within(t, time.Minute), &s); err != nil {
			t.Fatal(err)
		}
		if s.InsertLSN == 0 {
			t.Error("the snapshot has no place in the log")
		}
		// Whether it runs or has ended, it was begun here: others have higher numbers.
		if s.Foreign(uint32(xid)) || !s.Foreign(uint32(xid+1<<30)) {
			t.Errorf("transaction %d of %+v is foreign: %v, one far above it: %v", xid, s, s.Foreign(uint32(xid)), s.Foreign(uint32(xid+1<<30)))
		}
		return s.Visible(uint32(xid))
	}
	if visible() {
		t.Error("a running transaction is visible")
	}
	execute(t, writer, `COMMIT`)
	if !visible() {
		t.Error("a committed transaction is not visible")
	}
}

// The postmaster survives the crash of a backend, its children do not, and what
// was committed asynchronously is gone. A role without pg_read_all_stats does
// not see the children: then the statistics tell, and it is said once.
func TestTheGateNoticesARestartAfterACrash(t *testing.T) {
	for _, major := range databaseMajors {
		server := startPostgres(t, stack.PostgresOptions{Major: major})
		execute(t, connectTo(t, server.URL()), `CREATE ROLE plain LOGIN`)
		for _, role := range []string{"postgres", "plain"} {
			t.Run(fmt.Sprint(major, role), func(t *testing.T) {
				var log strings.Builder
				gate := newGate(t, as(role, server.URL()), database.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
				before := expectItself(t, gate)
				if after := expectItself(t, gate); after != before {
					t.Fatalf("nothing happened, and %s became %s", before, after)
				}
				victim := connectTo(t, server.URL())
				// The gate may still answer until the server has noticed.
				if err := syscall.Kill(int(victim.PgConn().PID()), syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				// While it recovers it lets nobody in, which ends an attachment too.
				restarted := func(err error) bool { return originChanged(err) && strings.Contains(err.Error(), "it started at") }
				if err := snapshotUntil(t, gate, restarted); !restarted(err) {
					t.Errorf("got %v, want the start of the server", err)
				}
				after := expectItself(t, gate)
				after.StartedAt = before.StartedAt
				if after != before {
					t.Errorf("more than the start changed: %s, %s", before, after)
				}
				said := strings.Count(log.String(), "GRANT pg_read_all_stats TO plain;")
				if want := map[string]int{"postgres": 0, "plain": 1}[role]; said != want {
					t.Errorf("the missing right was said %d times, want %d:\n%s", said, want, &log)
				}
			})
		}
	}
}

// A standby shows transactions as finished that still run, and a promoted one
// has forked off from what readers may have seen.
func TestTheGateAnswersForNoStandbyAndNoOtherTimeline(t *testing.T) {
	for _, major := range databaseMajors {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			server := startPostgres(t, stack.PostgresOptions{Major: major})
			gate := newGate(t, server.URL(), database.Options{})
			before := expectItself(t, gate)

			if err := server.Stop(within(t, time.Minute)); err != nil {
				t.Fatal(err)
			}
			// Owned by whoever owns the data: the server removes it at promotion.
			data := filepath.Join(server.Dir(), "data")
			owner, err := os.Stat(data)
			if err != nil {
				t.Fatal(err)
			}
			signal := filepath.Join(data, "standby.signal")
			if err := os.WriteFile(signal, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			as := owner.Sys().(*syscall.Stat_t)
			if err := os.Chown(signal, int(as.Uid), int(as.Gid)); err != nil {
				t.Fatal(err)
			}
			if err := server.Start(within(t, time.Minute)); err != nil {
				t.Fatal(err)
			}
			standby := func(err error) bool { return originChanged(err) && strings.Contains(err.Error(), "standby") }
			if err := snapshotUntil(t, gate, standby); !standby(err) {
				t.Errorf("got %v, want a standby", err)
			}
			conn := connectTo(t, server.URL())
			problems, err := database.Diagnose(within(t, time.Minute), conn, database.Needs{ApplicationName: "unstale"})
			if err != nil || len(problems) != 1 || !strings.Contains(problems[0].Text, "standby") {
				t.Errorf("got %v, %s, want one problem: a standby", err, problems)
			}

			execute(t, conn, `SELECT pg_promote()`)
			want := fmt.Sprintf("it is on timeline %d, not %d", before.Timeline+1, before.Timeline)
			promoted := func(err error) bool { return originChanged(err) && strings.Contains(err.Error(), want) }
			if err := snapshotUntil(t, gate, promoted); !promoted(err) {
				t.Errorf("got %v, want that %s", err, want)
			}
			expectItself(t, gate)
		})
	}
}

// A server that hangs keeps its connections and answers nothing. The gate must
// say so in time, and answer again when the server does.
func TestTheGateDoesNotHangWithTheServer(t *testing.T) {
	server := startPostgres(t, stack.PostgresOptions{Major: 15})
	gate := newGate(t, server.URL(), database.Options{Timeout: 200 * time.Millisecond})
	expectItself(t, gate)
	if err := server.Pause(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	s := change.Snapshot{XMin: 10, XMax: 10}
	if err := gate.Snapshot(t.Context(), &s); err == nil || errors.Is(err, change.ErrOriginChanged) {
		t.Errorf("got %v, want a timeout", err)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
	if s.Visible(5) {
		t.Error("after an error the last snapshot is still there")
	}
	if err := server.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := snapshotUntil(t, gate, func(err error) bool { return err == nil }); err != nil {
		t.Error(err)
	}

	// An idle connection that the server ended costs no error.
	execute(t, connectTo(t, server.URL()), `SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()`)
	if err := gate.Snapshot(t.Context(), &s); err != nil {
		t.Error(err)
	}
}
