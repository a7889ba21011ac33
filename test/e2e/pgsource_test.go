package e2e

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/pgsource"
	"github.com/unstale/unstale/internal/stack"
)

// newSource returns a source over the tables of schema public in a database,
// with slot and publication named after it. Every column is wanted.
func newSource(t *testing.T, url string, tables ...string) *pgsource.Source {
	t.Helper()
	options := pgsource.Options{}
	for _, table := range tables {
		options.Tables = append(options.Tables, pgsource.Table{Schema: "public", Name: table})
	}
	return newSourceWith(t, url, options)
}

func newSourceWith(t *testing.T, url string, options pgsource.Options) *pgsource.Source {
	t.Helper()
	config, err := pgconn.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	options.Slot, options.Publication = slotOf(config), slotOf(config)
	options.Compile = func(r *change.Relation) []int {
		wanted := make([]int, len(r.Columns))
		for i := range wanted {
			wanted[i] = i
		}
		return wanted
	}
	options.Logger = slog.New(slog.DiscardHandler)
	options.Origin = func(ctx context.Context) (change.Origin, error) { return originOf(ctx, adminOf(url)) }
	s := pgsource.New(config, options)
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Errorf("close the source: %v", err)
		}
	})
	return s
}

func slotOf(config *pgconn.Config) string { return "source_" + config.Database }

// adminOf is the same database for the superuser.
func adminOf(url string) string {
	_, rest, _ := strings.Cut(url, "@")
	return "postgres://postgres@" + rest
}

func mustParse(t *testing.T, url string) *pgx.ConnConfig {
	t.Helper()
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func attach(t *testing.T, s *pgsource.Source, gap string) change.Attachment {
	t.Helper()
	a, err := s.Attach(within(t, time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(a.Streams[0].Gap, gap) || (gap == "") != (a.Streams[0].Gap == "") {
		t.Fatalf("gap %q, want %q", a.Streams[0].Gap, gap)
	}
	return a
}

// told reads n row changes and the commits between them, and writes down the
// rows. It returns the position of the last commit or row.
func told(t *testing.T, s *pgsource.Source, n int) (rows []string, last change.Position) {
	t.Helper()
	ctx := within(t, time.Minute)
	for committed := true; len(rows) < n || !committed; {
		c, err := s.Next(ctx)
		if err != nil {
			t.Fatalf("after %q: %v", rows, err)
		}
		if c.Position.Compare(last) <= 0 {
			t.Fatalf("%v at %v after %v", c.Op, c.Position, last)
		}
		last = c.Position
		switch c.Op {
		case change.Idle:
		case change.Commit:
			committed = true
		default:
			committed = false
			words := []string{c.Op.String(), c.Relation.Name}
			for _, row := range []change.Row{c.Old, c.New} {
				if row.Kind == change.Absent {
					continue
				}
				var values []string
				for _, v := range row.Values {
					values = append(values, [...]string{"?", "NULL", "unchanged", "", "LONG"}[v.State]+string(v.Text[:min(len(v.Text), 40)]))
				}
				words = append(words, "("+strings.Join(values, ",")+")")
			}
			if c.Reason != "" {
				words = append(words, c.Reason)
			}
			rows = append(rows, strings.Join(words, " "))
		}
	}
	return rows, last
}

func expectRows(t *testing.T, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

func eachMajor(t *testing.T, test func(t *testing.T, server *stack.Postgres)) {
	for _, major := range databaseMajors {
		t.Run(fmt.Sprint(major), func(t *testing.T) { test(t, sharedPostgres(t, major)) })
	}
}

// Every kind of change, under every replica identity, from a partitioned table
// too, and text that does not depend on what a database has set.
func TestTheSourceTellsWhatWasCommitted(t *testing.T) {
	eachMajor(t, func(t *testing.T, server *stack.Postgres) {
		url := newDatabase(t, server)
		db := connectTo(t, url)
		execute(t, db,
			`CREATE TABLE products (id int PRIMARY KEY, name text, at timestamptz)`,
			`CREATE TABLE whole (id int, long text)`,
			`ALTER TABLE whole REPLICA IDENTITY FULL`,
			`ALTER TABLE whole ALTER long SET STORAGE EXTERNAL`,
			`CREATE TABLE parts (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)`,
			`CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100)`,
			fmt.Sprintf(`ALTER DATABASE %s SET datestyle = 'German'`, mustParse(t, url).Database),
			fmt.Sprintf(`ALTER DATABASE %s SET timezone = 'Asia/Tokyo'`, mustParse(t, url).Database),
		)
		s := newSource(t, url, "products", "whole", "parts")
		a := attach(t, s, "slot created")
		if !strings.HasSuffix(a.Streams[0].Name, ":source_"+mustParse(t, url).Database) || a.Streams[0].Confirmed.IsZero() {
			t.Errorf("attachment %+v", a)
		}
		execute(t, db,
			`INSERT INTO products VALUES (1, 'pen', '2024-02-29 12:00:00+00'), (2, NULL, NULL)`,
			`UPDATE products SET name = 'pencil' WHERE id = 1`,
			`UPDATE products SET id = 3 WHERE id = 1`,
			`DELETE FROM products WHERE id = 3`,
			`INSERT INTO whole VALUES (1, repeat('x', 5000000))`,
			`UPDATE whole SET id = 2`,
			`INSERT INTO parts VALUES (7, 'seven')`,
			`TRUNCATE products, whole`,
		)
		got, _ := told(t, s, 10)
		expectRows(t, got,
			"insert products (1,pen,2024-02-29 12:00:00+00)",
			"insert products (2,NULL,NULL)",
			"update products (1,pencil,2024-02-29 12:00:00+00)",
			"update products (1,?,?) (3,pencil,2024-02-29 12:00:00+00)",
			"delete products (3,?,?)",
			"insert whole (1,LONG)",
			"update whole (1,LONG) (2,LONG)",
			"insert parts (7,seven)",
			"truncate products",
			"truncate whole",
		)
	})
}

// What was confirmed is never sent again, what was not is sent again at the
// same positions, and closing loses no confirmation.
func TestTheSourceResumesBehindWhatWasConfirmed(t *testing.T) {
	eachMajor(t, func(t *testing.T, server *stack.Postgres) {
		url := newDatabase(t, server)
		db := connectTo(t, url)
		execute(t, db, `CREATE TABLE t (id int PRIMARY KEY)`)
		s := newSource(t, url, "t")
		attach(t, s, "slot created")
		execute(t, db, `INSERT INTO t VALUES (1)`)
		_, first := told(t, s, 1)
		execute(t, db, `INSERT INTO t VALUES (2), (3)`)
		got, second := told(t, s, 2)
		s.Confirm(0, first)

		a := attach(t, s, "")
		if a.Streams[0].Confirmed != first {
			t.Errorf("confirmed %v, want %v", a.Streams[0].Confirmed, first)
		}
		again, position := told(t, s, 2)
		if diff := cmp.Diff(got, again); diff != "" || position != second {
			t.Errorf("delivered again to %v, want %v (-want +got):\n%s", position, second, diff)
		}
		s.Confirm(0, position)
		if err := s.Close(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		if a := attach(t, s, ""); a.Streams[0].Confirmed != second {
			t.Errorf("confirmed %v, want %v", a.Streams[0].Confirmed, second)
		}
	})
}

// A slot that another instance holds is a matter of time. The error says whose.
func TestASlotInUseNamesItsProcess(t *testing.T) {
	server := sharedPostgres(t, 15)
	url := newDatabase(t, server)
	db := connectTo(t, url)
	execute(t, db, `CREATE TABLE t (id int PRIMARY KEY)`)
	attach(t, newSource(t, url, "t"), "slot created")
	var pid int
	if err := db.QueryRow(within(t, time.Minute), `SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'source_' || current_database()`).Scan(&pid); err != nil {
		t.Fatal(err)
	}
	_, err := newSource(t, url, "t").Attach(within(t, time.Minute))
	if err == nil || change.IsRefusal(err) || !strings.Contains(err.Error(), fmt.Sprintf("process %d ", pid)) {
		t.Errorf("got %v, want an error with process %d", err, pid)
	}
}

// The server hears of us while nobody reads, however much there would be to
// read: it never takes us for dead.
func TestTheServerKeepsAStreamThatNobodyReads(t *testing.T) {
	server := sharedPostgres(t, 18)
	url := newDatabase(t, server)
	db := connectTo(t, url)
	execute(t, db,
		`CREATE TABLE t (id int PRIMARY KEY, v text)`,
		fmt.Sprintf(`ALTER DATABASE %s SET wal_sender_timeout = '600ms'`, mustParse(t, url).Database))
	s := newSource(t, url, "t")
	attach(t, s, "slot created")
	execute(t, db, `INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 50000) i`)
	ctx := within(t, time.Minute)
	for alive := false; !alive; {
		// Several timeouts later the server has still heard of us just now.
		err := db.QueryRow(ctx, `SELECT reply_time > backend_start + interval '3 s' FROM pg_stat_replication
			WHERE pid = (SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'source_' || current_database())`).Scan(&alive)
		if err != nil {
			t.Fatalf("the stream has ended: %v", err)
		}
	}
	if got, _ := told(t, s, 50000); len(got) != 50000 {
		t.Errorf("%d rows", len(got))
	}
}

// A slot whose log was removed is made again, and that is said.
func TestALostSlotIsMadeAgain(t *testing.T) {
	for _, major := range databaseMajors {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			server := startPostgres(t, stack.PostgresOptions{Major: major, Settings: map[string]string{"max_slot_wal_keep_size": "1MB"}})
			url := newDatabase(t, server)
			db := connectTo(t, url)
			execute(t, db, `CREATE TABLE t (id int PRIMARY KEY)`)
			s := newSource(t, url, "t")
			attach(t, s, "slot created")
			if err := s.Close(within(t, time.Minute)); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				execute(t, db, `INSERT INTO t SELECT coalesce(max(id), 0) + 1 FROM t`, `SELECT pg_switch_wal()`)
			}
			execute(t, db, `CHECKPOINT`)
			attach(t, s, "slot was lost: wal_removed")
			execute(t, db, `INSERT INTO t VALUES (100)`)
			got, _ := told(t, s, 1)
			expectRows(t, got, "insert t (100)")
		})
	}
}

// A slot cannot read what was written before its publication was there. It is
// replaced, whether that shows at once or only in the stream.
func TestASlotOlderThanItsPublicationIsReplaced(t *testing.T) {
	eachMajor(t, func(t *testing.T, server *stack.Postgres) {
		url := newDatabase(t, server)
		db := connectTo(t, url)
		execute(t, db, `CREATE TABLE t (id int PRIMARY KEY)`)
		s := newSource(t, url, "t")
		attach(t, s, "slot created")
		execute(t, db, `DROP PUBLICATION source_`+mustParse(t, url).Database, `INSERT INTO t VALUES (1)`)
		attach(t, s, "publication created behind the slot")
		execute(t, db, `INSERT INTO t VALUES (2)`)
		got, _ := told(t, s, 1)
		expectRows(t, got, "insert t (2)")
	})
}

// A table that is added to a publication misses transactions that have written
// already: attaching waits until they are visible.
func TestATableAddedToThePublicationWaitsForWhatRuns(t *testing.T) {
	eachMajor(t, func(t *testing.T, server *stack.Postgres) {
		url := newDatabase(t, server)
		db := connectTo(t, url)
		execute(t, db, `CREATE TABLE t (id int PRIMARY KEY)`, `CREATE TABLE late (id int PRIMARY KEY)`)
		s := newSource(t, url, "t")
		attach(t, s, "slot created")
		if err := s.Close(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		writer := connectTo(t, url)
		execute(t, writer, `BEGIN`, `INSERT INTO late VALUES (1)`)

		s = newSource(t, url, "t", "late")
		attached := make(chan error, 1)
		go func() {
			a, err := s.Attach(within(t, time.Minute))
			if err == nil && a.Streams[0].Gap != "tables added to the publication: public.late" {
				err = fmt.Errorf("gap %q", a.Streams[0].Gap)
			}
			attached <- err
		}()
		ctx := within(t, time.Minute)
		for added := false; !added; {
			if err := db.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_publication_tables WHERE tablename = 'late')`).Scan(&added); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case err := <-attached:
			t.Fatalf("attached with a transaction running: %v", err)
		default:
		}
		execute(t, writer, `COMMIT`)
		if err := <-attached; err != nil {
			t.Fatal(err)
		}
	})
}

// Where waiting does not help, attaching says what does, and after that it
// works.
func TestTheSourceRefusesWhatOnlyAPersonCanMend(t *testing.T) {
	eachMajor(t, func(t *testing.T, server *stack.Postgres) {
		for _, c := range []struct {
			name    string
			prepare []string // % is the name of slot and publication
			role    string
			problem string
			mended  bool // the statement mends it as it is
		}{
			{"kinds of change", []string{`CREATE PUBLICATION % FOR TABLE t WITH (publish = 'insert')`}, "", "does not publish every kind", true},
			{"row filter", []string{`CREATE PUBLICATION % FOR TABLE t WHERE (id > 1)`}, "", "has a row filter on table public.t", true},
			{"column list", []string{`CREATE PUBLICATION % FOR TABLE t (id)`}, "", "has a column list on table public.t", true},
			{"partitions", []string{`DROP TABLE t`, `CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY LIST (id)`, `CREATE PUBLICATION % FOR TABLE t`}, "", "is partitioned", true},
			{"partition", []string{`DROP TABLE t`, `CREATE TABLE root (id int PRIMARY KEY, v text) PARTITION BY LIST (id)`, `CREATE TABLE t PARTITION OF root DEFAULT`,
				`CREATE PUBLICATION % FOR TABLE root WITH (publish_via_partition_root)`}, "", "is a partition of public.root", false},
			{"unlogged", []string{`ALTER TABLE t SET UNLOGGED`}, "", "unlogged", true},
			{"view", []string{`DROP TABLE t`, `CREATE VIEW t AS SELECT 1 AS id`}, "", "is not a table", false},
			{"children", []string{`CREATE TABLE child () INHERITS (t)`}, "", "inherit from it", false},
			{"missing", []string{`DROP TABLE t`}, "", "does not exist", false},
			{"physical slot", []string{`SELECT pg_create_physical_replication_slot('%')`}, "", "is a physical slot", false},
			{"no replication", []string{`CREATE ROLE "r_%" LOGIN`, `CREATE PUBLICATION % FOR TABLE t`}, "r_%", "may not replicate", true},
			{"no publication", []string{`CREATE ROLE "r_%" LOGIN REPLICATION`}, "r_%", "may not create publication", true},
			{"no table", []string{`CREATE ROLE "r_%" LOGIN REPLICATION`, `CREATE PUBLICATION %`}, "r_%", "may not add tables", true},
			{"standby", []string{`SET synchronous_commit = local`, `ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (other, *)'`, `SELECT pg_reload_conf()`}, "", "synchronous_standby_names", false},
		} {
			t.Run(c.name, func(t *testing.T) {
				url := newDatabase(t, server)
				db := connectTo(t, url)
				name := "source_" + mustParse(t, url).Database
				execute(t, db, `CREATE TABLE t (id int PRIMARY KEY, v text)`)
				for _, statement := range c.prepare {
					execute(t, db, strings.ReplaceAll(statement, "%", name))
				}
				if c.name == "standby" {
					defer execute(t, db, `ALTER SYSTEM RESET synchronous_standby_names`, `SELECT pg_reload_conf()`)
					awaitSetting(t, url, "synchronous_standby_names", "FIRST 1 (other, *)")
				}
				if c.role != "" {
					url = as(strings.ReplaceAll(c.role, "%", name), url)
				}
				s := newSource(t, url, "t")
				_, err := s.Attach(within(t, time.Minute))
				refusal, ok := errors.AsType[*change.Refusal](err)
				if !ok || !strings.Contains(refusal.Problem, c.problem) || refusal.Mend == "" {
					t.Fatalf("got %v, want a refusal with %q", err, c.problem)
				}
				if c.mended {
					execute(t, db, refusal.Mend)
					attach(t, s, "slot created")
				}
			})
		}
	})
}

// awaitSetting waits until new connections see a setting that was reloaded.
func awaitSetting(t *testing.T, url, name, want string) {
	t.Helper()
	for got := ""; got != want; {
		conn, err := pgx.Connect(within(t, time.Minute), url)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.QueryRow(within(t, time.Minute), `SELECT current_setting($1)`, name).Scan(&got); err != nil {
			t.Fatal(err)
		}
		conn.Close(context.Background())
	}
}

// Nothing that the source says has the password in it.
func TestErrorsOfTheSourceHaveNoPassword(t *testing.T) {
	url := "postgres://somebody:hunter2@" + freeAddress(t) + "/shop"
	_, err := newSource(t, url, "t").Attach(within(t, time.Minute))
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
}

// A log that was not asked to carry what changed has nothing to tell.
func TestTheSourceRefusesALogWithoutChanges(t *testing.T) {
	server := startPostgres(t, stack.PostgresOptions{Major: 18, Settings: map[string]string{"wal_level": "replica"}})
	s := newSource(t, server.URL())
	refused := func() {
		t.Helper()
		_, err := s.Attach(within(t, time.Minute))
		if refusal, ok := errors.AsType[*change.Refusal](err); !ok || !strings.Contains(refusal.Mend, "ALTER SYSTEM SET wal_level = 'logical'") {
			t.Fatalf("got %v, want a refusal", err)
		}
	}
	refused()
	execute(t, connectTo(t, server.URL()), `ALTER SYSTEM SET wal_level = 'logical'`)
	refused() // a restart is needed, as it says
	if err := server.Stop(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	if err := server.Start(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	attach(t, s, "slot created")
}
