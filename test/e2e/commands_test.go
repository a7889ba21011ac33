package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/unstale/unstale/internal/admin"
	"github.com/unstale/unstale/internal/stack"
)

var rewrite = flag.Bool("rewrite", false, "write golden files anew")

// golden compares text with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; -rewrite writes it)\n%s", path, diff)
	}
}

// Somebody who has just installed PostgreSQL and has an old Redis runs check,
// does what it says, word for word, and then run works.
func TestCheckNamesEverythingAndWhatItPrintsMendsIt(t *testing.T) {
	for _, major := range databaseMajors {
		t.Run(fmt.Sprint("PostgreSQL ", major), func(t *testing.T) {
			t.Parallel()
			server := startPostgres(t, stack.PostgresOptions{Major: major, Settings: map[string]string{
				"wal_level": "replica", "synchronous_standby_names": "*", "max_replication_slots": "0",
			}})
			old := startRedis(t, stack.RedisOptions{Old: true})
			setup := connectTo(t, server.URL()+"&synchronous_commit=local")
			execute(t, setup,
				`CREATE ROLE app LOGIN`,
				`CREATE TABLE orders (id int PRIMARY KEY, customer_id int NOT NULL)`,
				`CREATE TABLE audit (id bigint)`,
				`CREATE UNLOGGED TABLE sessions (id uuid PRIMARY KEY)`,
			)
			slot := "check"
			write := func(redis, orderKey string) string {
				path, _ := writeConfig(t, fmt.Sprintf(`database: %s
redis: %s
source: {postgres: {slot: %s, publication: %s}}
entries:
  order: {key: '%s', table: orders, lease: 500ms}
  audit: {key: 'audit:{id}', table: audit, lease: 500ms}
  session: {key: 'session:{id}', table: sessions, lease: 500ms}
`, as("app", server.URL()), redis, slot, slot, orderKey))
				return path
			}

			// The column is wrong, and both servers are looked at all the same.
			first := checkJSON(t, write(old.URL(), "customer:{costumer_id}:orders"))
			var texts []string
			for _, finding := range first.Findings {
				texts = append(texts, finding.Subject+": "+finding.Text)
			}
			all := strings.Join(texts, "\n")
			for _, want := range []string{"costumer_id", "synchronous_standby_names", "wal_level", "max_replication_slots", "REPLICATION", "public.audit", "unlogged", "publication check", "Redis 6"} {
				if !strings.Contains(all, want) {
					t.Errorf("nothing is said of %s:\n%s", want, all)
				}
			}

			path := write(old.URL(), "customer:{customer_id}:orders")
			if _, _, exit := unstaleCommand(t, "run", "--config", path); exit != 1 {
				t.Errorf("run: exit %d, want 1", exit)
			}
			root := connectTo(t, server.URL())
			report := checkJSON(t, path)
			for _, finding := range report.Findings {
				if finding.Subject != "redis" {
					execute(t, root, finding.Mend...)
				}
			}
			if !strings.Contains(all, "Redis 6") || !slices.ContainsFunc(report.Findings, func(f finding) bool { return strings.Contains(f.Then, "restart PostgreSQL") }) {
				t.Errorf("nothing says to restart PostgreSQL: %v", report)
			}
			if err := server.Stop(within(t, time.Minute)); err != nil {
				t.Fatal(err)
			}
			if err := server.Start(within(t, time.Minute)); err != nil {
				t.Fatal(err)
			}

			r := startRedis(t, stack.RedisOptions{})
			path = write(r.URL(), "customer:{customer_id}:orders")
			stdout, stderr, exit := unstaleCommand(t, "check", "--config", path)
			if stdout+stderr != "" || exit != 0 {
				t.Errorf("after what it printed: exit %d\n%s%s", exit, stdout, stderr)
			}
			f := &fixture{t: t, postgres: server, redis: r, conn: connectTo(t, server.URL()), slot: slot, url: server.URL()}
			i := startInstance(t, readFile(t, path))
			i.waitReady()
			f.exec(`UPDATE orders SET customer_id = 2`)
			i.stop()
		})
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// writeConfig adds an address.
	before, _, _ := strings.Cut(string(text), "\nadmin:")
	return before
}

// What is wrong in one place hides nothing that is wrong in another.
func TestCheckLooksAtEverythingThatItCanReach(t *testing.T) {
	t.Parallel()
	f := newFixtureOn(t, sharedPostgres(t, 15), sharedRedis(t))
	f.exec(`CREATE TABLE t (id int)`)
	nobody := freeAddress(t)
	old := startRedis(t, stack.RedisOptions{Old: true})
	write := func(database, redis, more string) string {
		path, _ := writeConfig(t, fmt.Sprintf("database: %s\nredis: %s\nentries:\n  t: {key: 't:{id}', table: t}\n%s", database, redis, more))
		return path
	}
	away := "postgres://postgres@" + nobody + "/postgres"
	cases := []struct {
		fact string
		path string
		says []string
	}{
		{"the database is away", write(away, old.URL(), ""), []string{"error: database:", nobody, "error: redis: this is Redis 6"}},
		{"Redis is away", write(f.url, "redis://"+nobody, ""), []string{"error: redis:", nobody, "no replica identity"}},
		{"both are away", write(away, "redis://"+nobody, ""), []string{"error: database:", "error: redis:"}},
		{"the configuration is wrong too", write(f.url, old.URL(), "sweep: {keys_per_secund: 5}\n"), []string{"keys_per_secund", "no replica identity", "this is Redis 6"}},
		{"two entries collide", write(f.url, old.URL(), "  u: {key: 't:{id}', table: t}\n"), []string{"entries.u.key", "no replica identity", "this is Redis 6"}},
		{"the table is wrong, and one server away", write(f.url, "redis://"+nobody, "  u: {key: 'u:{id}', table: tt}\n"), []string{"entries.u.table", "no replica identity", "error: redis:"}},
	}
	for _, c := range cases {
		stdout, stderr, exit := unstaleCommand(t, "check", "--config", c.path)
		if exit != 1 {
			t.Errorf("%s: exit %d, want 1", c.fact, exit)
		}
		for _, says := range c.says {
			if !strings.Contains(stdout, says) {
				t.Errorf("%s: %q is not said\n%s%s", c.fact, says, stdout, stderr)
			}
		}
	}
}

func TestPlanPrintsWhatAChangeDoes(t *testing.T) {
	t.Parallel()
	f := newFixtureOn(t, sharedPostgres(t, 15), sharedRedis(t))
	execute(t, f.conn,
		`CREATE TABLE products (id int PRIMARY KEY, name text)`,
		`CREATE TABLE orders (id int PRIMARY KEY, customer int, paid bool)`, `ALTER TABLE orders REPLICA IDENTITY FULL`,
		`CREATE SCHEMA shop`, `CREATE TABLE shop."Line Items" ("order" int, no int, PRIMARY KEY ("order", no))`)
	path, _ := writeConfig(t, f.config(`  product: {key: 'product:{id}', table: products}
  order: {key: 'order:{id}', table: orders}
  customer_orders: {key: 'customer:{customer}:orders:{paid}', table: orders}
  line: {key: 'line:{order}:{no}', table: 'shop."Line Items"'}
`))
	s := session{t: t, config: path}
	s.run(0, "plan")
	s.run(0, "plan", "--json")
	s.changes([]asked{
		{0, `{"table":"products","op":"c","after":{"id":1,"name":"x"}}`},
		{0, `{"table":"public.products","op":"u","before":{"id":7},"after":{"id":8}}`},
		{0, `{"table":"products","op":"u","after":{"id":8}}`},
		{0, `{"table":"products","op":"d","before":{"id":7}}`},
		{0, `{"table":"products","op":"t"}`},
		{0, `{"table":"orders","op":"u","before":{"id":1,"customer":7,"paid":false},"after":{"id":1,"customer":null,"paid":true}}`},
		{0, `{"table":"shop.Line Items","op":"d","before":{"order":1,"no":2}}`},
		{0, `{"table":"shop.\"Line Items\"","op":"d","before":{"order":1,"no":2}}`},
		{1, `{"table":"orders","op":"u","before":{"id":1},"after":{"id":1,"customer":2,"paid":true}}`},
		{1, `{"table":"customers","op":"d","before":{"id":7}}`},
		{1, `{"table":"products","op":"c","after":{"nmae":"x"}}`},
		{2, `{"table":"products","op":"x"}`},
		{2, `{"op":"d","before":{"id":7}}`},
		{2, `{"table":"products","op":"d"}`},
		{2, `{"table":"products","op":"u"}`},
		{2, `{"table":"products","operation":"u"}`},
		{2, `{"table":"products","op":"t"} {}`},
		{2, `products`},
	})
	s.run(0, "plan", "--json", "--change", `{"table":"orders","op":"u","before":{"id":1,"customer":7,"paid":false},"after":{"id":2,"customer":7,"paid":true}}`)
	s.run(0, "plan", "--json", "--change", `{"table":"products","op":"t"}`)
	golden(t, "plan.txt", s.text.String())
}

// What a lookup costs is said before it runs: how many keys one row leads to, by which
// index, and where there is none, the statement that makes it. It is advice, and once
// it was followed check is silent.
func TestPlanAndCheckExplainLookups(t *testing.T) {
	t.Parallel()
	f := newFixtureOn(t, sharedPostgres(t, 15), sharedRedis(t))
	execute(t, f.conn,
		`CREATE TABLE categories (id int PRIMARY KEY, name text)`, `ALTER TABLE categories REPLICA IDENTITY FULL`,
		`CREATE TABLE products (id int PRIMARY KEY, name text, category_id int)`, `ALTER TABLE products REPLICA IDENTITY FULL`,
		`CREATE TABLE stock (product_id int, warehouse int, amount int, PRIMARY KEY (product_id, warehouse)) PARTITION BY HASH (product_id)`,
		`CREATE TABLE stock_0 PARTITION OF stock FOR VALUES WITH (MODULUS 2, REMAINDER 0)`,
		`CREATE TABLE stock_1 PARTITION OF stock FOR VALUES WITH (MODULUS 2, REMAINDER 1)`,
		`ALTER TABLE stock_0 REPLICA IDENTITY FULL`, `ALTER TABLE stock_1 REPLICA IDENTITY FULL`, `ALTER TABLE stock REPLICA IDENTITY FULL`,
		`CREATE TABLE warehouses (id int PRIMARY KEY, city text)`, `ALTER TABLE warehouses REPLICA IDENTITY FULL`,
		`CREATE TABLE customers (id int PRIMARY KEY, email text)`, `ALTER TABLE customers REPLICA IDENTITY FULL`,
		`INSERT INTO categories SELECT i, 'category ' || i FROM generate_series(1, 100) i`,
		`INSERT INTO products SELECT i, 'product ' || i, i % 100 + 1 FROM generate_series(1, 5000) i`,
		`INSERT INTO warehouses SELECT i, 'city ' || i FROM generate_series(1, 10) i`,
		`INSERT INTO stock SELECT i, i % 10 + 1, 5 FROM generate_series(1, 2000) i`,
		`ANALYZE`)
	path, _ := writeConfig(t, f.config(`  page: {key: 'page:{id}', query: 'SELECT p.id, p.name, c.name AS category FROM products p JOIN categories c ON c.id = p.category_id WHERE p.id = @id'}
  card: {key: 'card:{id}', query: 'SELECT p.id, c.name AS category FROM products p JOIN categories c ON c.id = p.category_id WHERE p.id = @id'}
  stock: {key: 'stock:{product}', query: 'SELECT s.amount, w.city FROM stock s JOIN warehouses w ON w.id = s.warehouse WHERE s.product_id = @product'}
  by_mail: {key: 'mail:{mail}', query: 'SELECT id FROM customers WHERE lower(email) = @mail'}
`))
	s := session{t: t, config: path}
	s.run(0, "plan")
	s.run(0, "check")
	var mend []string
	for _, finding := range checkJSON(t, path).Findings {
		mend = append(mend, finding.Mend...)
	}
	execute(t, f.conn, append(mend, "ANALYZE")...)
	s.run(0, "check")
	s.run(0, "plan")
	s.changes([]asked{
		{0, `{"table":"categories","op":"u","before":{"id":7,"name":"a"},"after":{"id":7,"name":"b"}}`},
		{0, `{"table":"categories","op":"u","before":{"id":7,"name":"a"},"after":{"id":8,"name":"a"}}`},
		{0, `{"table":"categories","op":"u","before":{"id":7,"name":"a"},"after":{"id":7,"name":"a"}}`},
		{0, `{"table":"products","op":"u","before":{"id":7,"name":"a","category_id":1},"after":{"id":7,"name":"a","category_id":null}}`},
		{0, `{"table":"warehouses","op":"t"}`},
	})
	golden(t, "lookups.txt", s.text.String())
}

// A session is what somebody types and what comes of it.
type session struct {
	t      *testing.T
	config string
	text   strings.Builder
}

func (s *session) run(exit int, args ...string) {
	s.t.Helper()
	stdout, stderr, got := unstaleCommand(s.t, append(args, "--config", s.config)...)
	fmt.Fprintf(&s.text, "$ unstale %s\n%s%s", strings.Join(args, " "), stdout, stderr)
	if got != exit {
		s.t.Errorf("%s: exit %d, want %d\n%s%s", args, got, exit, stdout, stderr)
	}
	fmt.Fprintf(&s.text, "exit %d\n\n", got)
}

type asked struct {
	exit   int
	change string
}

func (s *session) changes(all []asked) {
	s.t.Helper()
	for _, c := range all {
		s.run(c.exit, "plan", "--change", c.change)
	}
}

// What is written is shown as Redis will have it, and what is not, with the
// reason.
func TestPlanPrintsWhatAChangeWrites(t *testing.T) {
	t.Parallel()
	f := newFixtureOn(t, sharedPostgres(t, 15), sharedRedis(t))
	execute(t, f.conn,
		`CREATE DOMAIN price AS numeric(10,2)`,
		`CREATE TABLE items (id int PRIMARY KEY, name text, price price, tags text[], extra json, sold bool)`,
		`CREATE TABLE totals (id int PRIMARY KEY, net int, gross int GENERATED ALWAYS AS (net * 2) STORED)`,
		`CREATE TABLE lines (id int PRIMARY KEY, no int, UNIQUE (id, no))`, `ALTER TABLE lines REPLICA IDENTITY FULL`)
	path, _ := writeConfig(t, f.config(`  item: {key: 'item:{id}', table: items, on_change: warm}
  shown: {key: 'shown:{id}', table: items, on_change: update, columns: [name, id, price], format: hash}
  loaded: {key: 'loaded:{id}', table: items, on_change: refresh}
  total: {key: 'total:{id}', table: totals, on_change: update}
  line: {key: 'line:{id}:{no}', table: lines, on_change: warm}
`))
	s := session{t: t, config: path}
	s.run(0, "plan")
	s.changes([]asked{
		{0, `{"table":"items","op":"c","after":{"id":1,"name":"a \"b\"","price":1.50,"tags":"{x,NULL,\"y z\"}","extra":{"k":[1, true]},"sold":true}}`},
		{0, `{"table":"items","op":"u","after":{"id":1,"name":null,"price":2.00,"tags":null,"extra":"text","sold":false}}`},
		{0, `{"table":"items","op":"u","before":{"id":1},"after":{"id":2,"name":"a","price":2,"tags":"{}","extra":1,"sold":false}}`},
		{0, `{"table":"items","op":"u","after":{"id":1,"name":"a","price":2}}`},
		{0, `{"table":"items","op":"c","after":{"id":1,"name":"a","price":2,"tags":["x"],"extra":null,"sold":null}}`},
		{0, `{"table":"items","op":"d","before":{"id":1}}`},
		{0, `{"table":"items","op":"t"}`},
		{0, `{"table":"totals","op":"u","after":{"id":1,"net":2}}`},
		{1, `{"table":"totals","op":"u","after":{"id":1,"net":2,"gross":4}}`},
		{0, `{"table":"lines","op":"u","before":{"id":1,"no":2},"after":{"id":1,"no":3}}`},
		{0, `{"table":"lines","op":"u","before":{"id":1,"no":2},"after":{"id":1,"no":null}}`},
	})
	s.run(0, "plan", "--json", "--change", `{"table":"items","op":"u","before":{"id":1},"after":{"id":2,"name":"a","price":2}}`)
	golden(t, "written.txt", s.text.String())
}

// Entries whose values are written ask more of a table. What is wrong is shown
// at its place; what is only slow is advice, and the statement that is printed
// mends it.
func TestCheckExaminesWhatIsWritten(t *testing.T) {
	t.Parallel()
	f := newFixtureOn(t, sharedPostgres(t, 15), sharedRedis(t))
	execute(t, f.conn,
		`CREATE TABLE items (id int PRIMARY KEY, shop int, name text, cost money, total int GENERATED ALWAYS AS (id * 2) STORED)`)
	check := func(entries string) string {
		path, _ := writeConfig(t, f.config(entries))
		var text strings.Builder
		for _, finding := range checkJSON(t, path).Findings {
			if strings.HasPrefix(finding.Subject, "setting ") {
				continue // of the server, whatever is written
			}
			if at := strings.LastIndex(finding.Subject, " entries."); at >= 0 {
				finding.Subject = finding.Subject[at+1:]
			}
			fmt.Fprintf(&text, "%s: %s: %s\n", finding.Severity, finding.Subject, finding.Text)
			for _, mend := range append(finding.Mend, finding.Then) {
				if mend != "" {
					fmt.Fprintf(&text, "    %s\n", mend)
				}
			}
		}
		return text.String()
	}
	var text strings.Builder
	for _, entries := range []string{
		"  of_shop: {key: 'shop:{shop}', table: items, on_change: warm}\n  item: {key: 'item:{id}', table: items, on_change: refresh, columns: [id, nmae]}\n",
		"  item: {key: 'item:{id}', table: items, on_change: warm}\n",
		"  item: {key: 'item:{id}', table: items, on_change: update, columns: [id, name]}\n",
		"  item: {key: 'item:{id}', table: items, on_change: refresh}\n",
	} {
		fmt.Fprintf(&text, "%s----\n%s\n", entries, check(entries))
	}
	golden(t, "examined.txt", text.String())
	execute(t, f.conn, `ALTER TABLE public.items REPLICA IDENTITY FULL`)
	if got := check("  item: {key: 'item:{id}', table: items, on_change: update, columns: [id, name]}\n"); got != "" {
		t.Errorf("after what it printed: %s", got)
	}
}

// An evicted shield lets a value go back in time. Redis evicts only under a
// limit, and only what a change has written has a shield.
func TestCheckSaysThatRedisEvicts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		fact, limit, policy, onChange string
		says                          bool
	}{
		{"it evicts, and values are written from changes", "100mb", "allkeys-lru", "warm", true},
		{"it evicts, and values are the application's", "100mb", "allkeys-lru", "invalidate", false},
		{"it has no limit", "0", "allkeys-lru", "warm", false},
		{"it refuses writes", "100mb", "noeviction", "warm", false},
	} {
		r := startRedis(t, stack.RedisOptions{Settings: map[string]string{"maxmemory": c.limit, "maxmemory-policy": c.policy}})
		f := newFixtureOn(t, sharedPostgres(t, 15), r)
		f.exec(`CREATE TABLE t (id int PRIMARY KEY)`)
		path, _ := writeConfig(t, f.config("  t: {key: 't:{id}', table: t, on_change: "+c.onChange+"}\n"))
		stdout, stderr, exit := unstaleCommand(t, "check", "--config", path)
		if says := strings.Contains(stdout, "advice: redis: its maxmemory-policy is allkeys-lru"); says != c.says || exit != 0 {
			t.Errorf("%s: exit %d\n%s%s", c.fact, exit, stdout, stderr)
		}
	}
}

// The columns of an entry are known to the database only; the place that is
// shown is that of the configuration.
func TestAnUnknownColumnIsShownWithACaret(t *testing.T) {
	t.Parallel()
	f := newFixtureOn(t, sharedPostgres(t, 15), sharedRedis(t))
	f.exec(`CREATE TABLE products (id int PRIMARY KEY, name text)`)
	path, _ := writeConfig(t, f.config("  product:\n    key: product:{nmae}\n    table: products\n"))
	for _, command := range []string{"check", "plan", "run"} {
		stdout, stderr, exit := unstaleCommand(t, command, "--config", path)
		if exit != 1 {
			t.Errorf("%s: exit %d, want 1", command, exit)
		}
		want := "   7 |     key: product:{nmae}\n     |                  ^\n"
		if got := stdout + stderr; !strings.Contains(got, want) || !strings.Contains(got, "it has no column nmae") || !strings.Contains(got, "did you mean name?") {
			t.Errorf("%s:\n%s\nwant\n%s", command, got, want)
		}
	}
}

func TestCommandLines(t *testing.T) {
	t.Parallel()
	nothing := filepath.Join(t.TempDir(), "missing.yaml")
	cases := []struct {
		args []string
		exit int
		says string
	}{
		{[]string{"version"}, 0, "unstale development, commit unknown, go1."},
		{[]string{"version", "--json"}, 0, `"version":"development"`},
		{[]string{"--help"}, 0, "unstale check"},
		{[]string{"help", "run"}, 0, "SIGTERM"},
		{[]string{"walk"}, 2, `"walk"`},
		{[]string{"runn"}, 2, "did you mean run?"},
		{[]string{"--walk"}, 2, "--walk"},
		{[]string{"run", "--walk"}, 2, "--walk"},
		{[]string{"run", "now"}, 2, `"now"`},
		{[]string{"check", "--json=maybe"}, 2, "maybe"},
		{[]string{"run", "--config"}, 2, "--config"},
		{[]string{"run", "--config", nothing}, 1, nothing},
		{[]string{"check", "--config", nothing}, 1, nothing},
		{[]string{"plan", "--config", nothing}, 1, nothing},
		{[]string{"status", "--config", nothing}, 1, nothing},
		{[]string{"status", "--address", freeAddress(t)}, 1, "connection refused"},
		{[]string{"completion", "bash"}, 0, "complete"},
		{[]string{"completion", "zsh"}, 0, "compdef"},
		{[]string{"completion", "fish"}, 0, "complete -c unstale"},
	}
	for _, c := range cases {
		stdout, stderr, exit := unstaleCommand(t, c.args...)
		if exit != c.exit || !strings.Contains(stdout+stderr, c.says) {
			t.Errorf("unstale %s: exit %d, want %d, and %q:\n%s%s", strings.Join(c.args, " "), exit, c.exit, c.says, stdout, stderr)
		}
		if exit == 0 && stderr != "" || exit != 0 && stdout != "" && c.args[0] != "check" {
			t.Errorf("unstale %s: exit %d with stdout %q, stderr %q", strings.Join(c.args, " "), exit, stdout, stderr)
		}
	}
	if stdout, stderr, exit := unstaleCommand(t); exit != 0 || !strings.Contains(stdout, "Available Commands") {
		t.Errorf("without arguments: exit %d\n%s%s", exit, stdout, stderr)
	}
	for _, command := range []string{"run", "check", "plan", "status", "version", "demo"} {
		stdout, _, exit := unstaleCommand(t, command, "--help")
		if exit != 0 || !strings.Contains(stdout, "Examples:\n  unstale "+command) {
			t.Errorf("%s --help has no example:\n%s", command, stdout)
		}
	}
}

// Bash itself completes with what is printed.
func TestBashCompletes(t *testing.T) {
	t.Parallel()
	script, _, _ := unstaleCommand(t, "completion", "bash")
	script += `
_get_comp_words_by_ref() { cur=${COMP_WORDS[COMP_CWORD]}; prev=${COMP_WORDS[COMP_CWORD-1]}; words=("${COMP_WORDS[@]}"); cword=$COMP_CWORD; }
_init_completion() { _get_comp_words_by_ref; }
COMP_WORDS=(` + binary + ` che) COMP_CWORD=1 COMP_LINE="` + binary + ` che" COMP_POINT=${#COMP_LINE} COMP_TYPE=9
__start_unstale
echo "${COMPREPLY[@]}"
`
	cmd := exec.CommandContext(within(t, time.Minute), "bash")
	cmd.Stdin = strings.NewReader(script)
	out, err := cmd.Output() // bash grumbles that nobody pressed the key
	if err != nil || strings.TrimSpace(string(out)) != "check" {
		t.Errorf("got %q, %v, want check", out, err)
	}
}

// documentedMetrics are the names that dashboards and alerts are made of.
var documentedMetrics = []string{
	"unstale_batch_keys", "unstale_changes_total", "unstale_commit_to_redis_seconds", "unstale_effects_total", "unstale_errors_total",
	"unstale_gaps_total", "unstale_gate_snapshots_total", "unstale_gate_wait_seconds", "unstale_holding", "unstale_keys_doubted_total", "unstale_keys_dropped_total", "unstale_keys_set_total",
	"unstale_lag_bytes", "unstale_lag_records", "unstale_lag_seconds", "unstale_loads_pending", "unstale_ready", "unstale_sweep_dropped_keys_total", "unstale_sweep_scanned_keys_total",
	"unstale_sweeping_entries", "unstale_sweeps_total", "unstale_unplanned_entries",
}

// A running instance tells what it does, and nothing before it is so.
func TestAnInstanceTellsWhatItDoes(t *testing.T) {
	t.Parallel()
	f := newFixtureOn(t, sharedPostgres(t, 18), startRedis(t, stack.RedisOptions{}))
	f.exec(`CREATE TABLE products (id int PRIMARY KEY, name text)`)
	// A sweep that can be watched.
	for n := range 3000 {
		f.rdb.Set(t.Context(), fmt.Sprint("other:", n), "", 0)
	}
	i := startInstance(t, f.config("  product: {key: 'product:{id}', table: products}\nsweep: {keys_per_second: 1500}"))
	i.waitStatus("sweeping", func(s *admin.Status) bool { return len(s.Sweeping) == 1 })
	if status, body := i.ask("/healthz"); status != 200 {
		t.Errorf("/healthz while sweeping: %d %s", status, body)
	}
	if status, body := i.ask("/readyz"); status != 503 || !strings.Contains(body, "not ready: sweeping product:{id}") {
		t.Errorf("/readyz while sweeping: %d %s", status, body)
	}
	stdout, stderr, exit := unstaleCommand(t, "status", "--config", i.config)
	if exit != 1 || !strings.Contains(stdout, "streaming, not ready") || !strings.Contains(stdout, "sweeping   product:{id}") {
		t.Errorf("status while sweeping: exit %d\n%s%s", exit, stdout, stderr)
	}
	if i.metric("unstale_ready") != 0 || i.metric("unstale_sweeping_entries") != 1 {
		t.Error("the metrics say otherwise")
	}
	i.waitReady()
	f.exec(`INSERT INTO products VALUES (1, 'a'), (2, 'b')`)
	f.exec(`TRUNCATE products`)
	f.barrier()
	i.waitStatus("swept", func(s *admin.Status) bool { return s.Ready })

	if status, body := i.ask("/readyz"); status != 200 || !strings.Contains(body, "ready") {
		t.Errorf("/readyz: %d %s", status, body)
	}
	stdout, stderr, exit = unstaleCommand(t, "status", "--address", i.address)
	shape := regexp.MustCompile(`^state      streaming, ready, up \d+s
stream     \d+:\d+:` + f.slot + `
position   1/\d+/[0-9A-F]+
settled    1/\d+/[0-9A-F]+
confirmed  1/\d+/[0-9A-F]+
lag        \d+ bytes, \d+\.\d s
changes    3, 2 keys dropped \(cached or not\), 0 set
gaps       1
last gap   no watermark of this stream in Redis: it is new, or was emptied; slot created
$`)
	if exit != 0 || !shape.MatchString(stdout) {
		t.Errorf("status: exit %d\n%s%s\nwant\n%s", exit, stdout, stderr, shape)
	}
	stdout, stderr, exit = unstaleCommand(t, "status", "--json", "--config", i.config)
	var status map[string]any
	if err := json.Unmarshal([]byte(stdout), &status); err != nil || exit != 0 {
		t.Fatalf("status --json: exit %d, %v\n%s%s", exit, err, stdout, stderr)
	}
	for _, name := range []string{"version", "state", "ready", "streams", "lag_bytes", "lag_records", "lag_seconds", "sweeping", "holding", "gaps", "last_gap", "changes", "keys_dropped", "up_seconds"} {
		if _, ok := status[name]; !ok {
			t.Errorf("status --json has no %s:\n%s", name, stdout)
		}
	}

	names := regexp.MustCompile(`(?m)^# TYPE (unstale_\w+)`).FindAllStringSubmatch(i.get("/metrics"), -1)
	var got []string
	for _, name := range names {
		got = append(got, name[1])
	}
	if diff := cmp.Diff(documentedMetrics, got); diff != "" {
		t.Errorf("metrics (-want +got)\n%s", diff)
	}
	if got := i.metric(`unstale_effects_total{kind="key"}`); got != 2 {
		t.Errorf("%v drops counted, want 2", got)
	}
	if got := i.metric(`unstale_sweeps_total{cause="truncated",entry="product"}`); got != 1 {
		t.Errorf("%v sweeps counted, want 1", got)
	}
	if got := i.metric("unstale_commit_to_redis_seconds_count"); got != 2 {
		t.Errorf("%v latencies, want one for each of 2 transactions", got)
	}
	i.stop()
	if _, _, exit := unstaleCommand(t, "status", "--config", i.config); exit != 1 {
		t.Errorf("status of one that has ended: exit %d, want 1", exit)
	}
}

// A server that is away when run starts is waited for, and said once.
func TestRunWaitsForServersThatAreAway(t *testing.T) {
	t.Parallel()
	for _, away := range []string{"database", "redis"} {
		t.Run(away, func(t *testing.T) {
			t.Parallel()
			postgres, r := startPostgres(t, stack.PostgresOptions{Major: 15}), startRedis(t, stack.RedisOptions{})
			f := newFixtureOn(t, postgres, r)
			f.exec(`CREATE TABLE products (id int PRIMARY KEY)`)
			var server interface {
				Kill() error
				Start(ctx context.Context) error
			} = postgres
			if away == "redis" {
				server = r
			}
			if err := server.Kill(); err != nil {
				t.Fatal(err)
			}
			i := startInstance(t, f.config("  product: {key: 'product:{id}', table: products, lease: 500ms}"))
			f.eventually("it is said", func() bool { return i.said("holding") > 0 })
			if away == "redis" {
				f.eventually("it has tried again and again", func() bool { return i.metric(`unstale_errors_total{server="redis"}`) > 4 })
				if status, body := i.ask("/readyz"); status != 503 {
					t.Errorf("/readyz: %d %s", status, body)
				}
				stdout, _, exit := unstaleCommand(t, "status", "--config", i.config)
				if exit != 1 || !strings.Contains(stdout, "holding    redis: ") {
					t.Errorf("status: exit %d\n%s", exit, stdout)
				}
			}
			if err := server.Start(within(t, time.Minute)); err != nil {
				t.Fatal(err)
			}
			i.waitReady()
			if n := i.said("level=WARN"); n != 1 {
				t.Errorf("%d warnings, want 1\n%s", n, i.log)
			}
			i.stop()
		})
	}
}

// What never helps itself is no outage.
func TestRunEndsAtOnceWhereAPasswordIsWrong(t *testing.T) {
	t.Parallel()
	postgres := withPassword(t, startPostgres(t, stack.PostgresOptions{Major: 15}), "right")
	r := startRedis(t, stack.RedisOptions{Settings: map[string]string{"requirepass": "right"}})
	execute(t, connectTo(t, postgres.url("right", "")), `CREATE TABLE t (id int PRIMARY KEY)`)
	for _, c := range []struct{ database, redis, says string }{
		{postgres.url("wr0ng-secret", ""), r.URL(), "password authentication failed"},
		{postgres.url("right", ""), "redis://:wr0ng-secret@" + r.Addr(), "WRONGPASS"},
		{postgres.url("right", ""), "redis://" + r.Addr(), "NOAUTH"},
	} {
		path, _ := writeConfig(t, fmt.Sprintf("database: %s\nredis: %s\nentries:\n  t: {key: 't:{id}', table: t}", c.database, c.redis))
		for _, command := range []string{"check", "run"} {
			stdout, stderr, exit := unstaleCommand(t, command, "--config", path)
			if exit != 1 || !strings.Contains(stdout+stderr, c.says) {
				t.Errorf("%s: exit %d, want 1 and %q\n%s%s", command, exit, c.says, stdout, stderr)
			}
			if strings.Contains(stdout+stderr, "wr0ng-secret") {
				t.Errorf("%s shows the password\n%s%s", command, stdout, stderr)
			}
		}
	}
}

// A lockedPostgres asks everyone on TCP for a password.
type lockedPostgres struct{ *stack.Postgres }

func withPassword(t *testing.T, p *stack.Postgres, password string) lockedPostgres {
	t.Helper()
	conn := connectTo(t, p.URL())
	execute(t, conn, `ALTER ROLE postgres PASSWORD '`+password+`'`)
	path := filepath.Join(p.Dir(), "data", "pg_hba.conf")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.ReplaceAll(text, []byte("trust"), []byte("scram-sha-256"))
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	execute(t, conn, `SELECT pg_reload_conf()`)
	locked := lockedPostgres{p}
	for ctx := within(t, 30*time.Second); ; {
		attempt, err := pgx.Connect(ctx, locked.url("no", ""))
		if err != nil {
			return locked
		}
		attempt.Close(ctx)
	}
}

func (p lockedPostgres) url(password, query string) string {
	return fmt.Sprintf("postgres://postgres:%s@%s/postgres?%s", password, p.Addr(), query)
}

// Secrets come as URLs, from files and from the environment. None comes out,
// whatever happens.
func TestNoSecretIsEverShown(t *testing.T) {
	t.Parallel()
	const databaseSecret, redisSecret = "db-s3cret%21x", "redis-s3cret-x"
	secrets := []string{databaseSecret, "db-s3cret!x", redisSecret}
	postgres := withPassword(t, startPostgres(t, stack.PostgresOptions{Major: 15}), "db-s3cret!x")
	execute(t, connectTo(t, postgres.url(databaseSecret, "")), `CREATE TABLE t (id int PRIMARY KEY)`, `INSERT INTO t SELECT generate_series(1, 100)`)
	r := startRedis(t, stack.RedisOptions{Settings: map[string]string{"requirepass": redisSecret}})
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	databaseFile, redisFile := file("database", "db-s3cret!x\n"), file("redis", redisSecret+"\n")
	nobody := freeAddress(t)
	hidden := func(what, text string) {
		t.Helper()
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("%s shows %s:\n%s", what, secret, text)
			}
		}
	}
	const entry = "entries:\n  t: {key: 't:{id}', table: t, lease: 500ms}\n  loaded: {key: 'loaded:{id}', table: t, on_change: refresh}\n"

	good := []string{
		fmt.Sprintf("database: %s\nredis: redis://:%s@%s\n", postgres.url(databaseSecret, "sslmode=disable"), redisSecret, r.Addr()),
		fmt.Sprintf("database: {url: 'postgres://postgres@%s/postgres', password_file: %s}\nredis: {url: 'redis://%s', password_file: %s}\n", postgres.Addr(), databaseFile, r.Addr(), redisFile),
		fmt.Sprintf("database: host=127.0.0.1 port=%d user=postgres dbname=postgres password='db-s3cret!x'\nredis: {url: 'redis://%s', password: %s}\n", postgres.Port(), r.Addr(), redisSecret),
	}
	for n, text := range good {
		path, _ := writeConfig(t, text+fmt.Sprintf("source: {postgres: {slot: s%d}}\nlog: {level: debug}\n", n)+entry)
		stdout, stderr, exit := unstaleCommand(t, "check", "--print-config", "--config", path)
		hidden("check --print-config", stdout+stderr)
		if exit != 0 || !strings.Contains(stdout, "keys_per_second: 100000") || n != 1 && !strings.Contains(stdout, "***") {
			t.Errorf("check --print-config: exit %d\n%s%s", exit, stdout, stderr)
		}
		for _, args := range [][]string{{"check"}, {"check", "--json"}, {"plan"}, {"plan", "--json"}} {
			stdout, stderr, exit := unstaleCommand(t, append(args, "--config", path)...)
			hidden(strings.Join(args, " "), stdout+stderr)
			if exit != 0 {
				t.Errorf("%s: exit %d\n%s%s", args, exit, stdout, stderr)
			}
		}
		i := startInstance(t, readFile(t, path))
		i.waitReady()
		// What loads has connections of its own, which break.
		execute(t, connectTo(t, postgres.url(databaseSecret, "")), fmt.Sprintf(`INSERT INTO t VALUES (%d)`, 1000+n))
		i.eventually("a row is loaded", func() bool { return i.metric(`unstale_loads_total{entry="loaded",result="stored"}`) > 0 })
		execute(t, connectTo(t, postgres.url(databaseSecret, "")), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()`,
			fmt.Sprintf(`INSERT INTO t VALUES (%d)`, 2000+n))
		i.eventually("another one is", func() bool { return i.metric(`unstale_loads_total{entry="loaded",result="stored"}`) > 1 })
		for _, args := range [][]string{{"warm", "--dry-run"}, {"warm", "--json"}} {
			stdout, stderr, exit := unstaleCommand(t, append(args, "--config", i.config)...)
			hidden(strings.Join(args, " "), stdout+stderr)
			if exit != 0 {
				t.Errorf("%s: exit %d\n%s%s", args, exit, stdout, stderr)
			}
		}
		hidden("/status", i.get("/status"))
		hidden("/metrics", i.get("/metrics"))
		stdout, stderr, _ = unstaleCommand(t, "status", "--json", "--config", i.config)
		hidden("status", stdout+stderr)
		i.stop()
		hidden("the log", i.log.String())
	}

	// Away, refused, of no such database, broken: with the secrets in the URLs.
	redisGood := fmt.Sprintf("redis: redis://:%s@%s\n", redisSecret, r.Addr())
	databaseGood := "database: " + postgres.url(databaseSecret, "sslmode=disable") + "\n"
	bad := map[string]string{
		"database away":          fmt.Sprintf("database: postgres://postgres:%s@%s/postgres\n", databaseSecret, nobody) + redisGood,
		"database unknown":       fmt.Sprintf("database: postgres://postgres:%s@%s/nowhere\n", databaseSecret, postgres.Addr()) + redisGood,
		"user unknown":           fmt.Sprintf("database: postgres://nobody:%s@%s/postgres\n", databaseSecret, postgres.Addr()) + redisGood,
		"TLS demanded":           "database: " + postgres.url(databaseSecret, "sslmode=require") + "\n" + redisGood,
		"database URL is broken": fmt.Sprintf("database: postgres://postgres:%s@%s:x/postgres\n", databaseSecret, postgres.Addr()) + redisGood,
		"port out of range":      fmt.Sprintf("database: postgres://postgres:%s@127.0.0.1:99999/postgres\n", databaseSecret) + redisGood,
		"key=value away":         fmt.Sprintf("database: host=%s port=1 user=postgres password='db-s3cret!x'\n", "127.0.0.1") + redisGood,
		"redis away":             databaseGood + fmt.Sprintf("redis: redis://:%s@%s\n", redisSecret, nobody),
		"redis user unknown":     databaseGood + fmt.Sprintf("redis: redis://nobody:%s@%s\n", redisSecret, r.Addr()),
		"redis speaks no TLS":    databaseGood + fmt.Sprintf("redis: {url: 'rediss://:%s@%s', dial_timeout: 200ms, read_timeout: 200ms}\n", redisSecret, r.Addr()),
		"redis URL is broken":    databaseGood + fmt.Sprintf("redis: redis://:%s@%s:x/0\n", redisSecret, r.Addr()),
		"redis database unknown": databaseGood + fmt.Sprintf("redis: redis://:%s@%s/99\n", redisSecret, r.Addr()),
	}
	for what, text := range bad {
		path, _ := writeConfig(t, text+"source: {postgres: {slot: bad}}\nlog: {level: debug}\n"+entry)
		stdout, stderr, exit := unstaleCommand(t, "check", "--config", path)
		hidden(what+": check", stdout+stderr)
		if exit != 1 {
			t.Errorf("%s: exit %d\n%s%s", what, exit, stdout, stderr)
		}
		stdout, stderr, exit = unstaleCommand(t, "warm", "--config", path)
		hidden(what+": warm", stdout+stderr)
		if exit != 1 {
			t.Errorf("%s: warm: exit %d\n%s%s", what, exit, stdout, stderr)
		}
		i := startInstance(t, readFile(t, path))
		waitSaid(t, i)
		hidden(what+": run", i.log.String())
	}
}

// waitSaid waits until the instance has said what is wrong or has ended.
func waitSaid(t *testing.T, i *instance) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ctx := within(t, 30*time.Second); ; {
		if i.said("holding") > 0 {
			_ = i.cmd.Process.Signal(syscall.SIGTERM) // it may have ended meanwhile
		}
		select {
		case <-i.ended:
			return
		case <-ctx.Done():
			t.Fatalf("says nothing and does not end\n%s", i.log)
		case <-tick.C:
		}
	}
}

// certificates are an authority and what it has signed for server.test.
type certificates struct{ ca, cert, key string }

func newCertificates(t *testing.T) certificates {
	t.Helper()
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		must(os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return path
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	must(err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "server"}, DNSNames: []string{"server.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	must(err)
	keyDER, err := x509.MarshalECPrivateKey(key)
	must(err)
	return certificates{ca: write("ca.pem", "CERTIFICATE", caDER), cert: write("server.pem", "CERTIFICATE", der), key: write("server.key", "EC PRIVATE KEY", keyDER)}
}

// terminateTLS stands before a server that has no TLS of its own, as many builds
// have not, and lets nobody in without. A server of Redis asks for the client's
// certificate, one of PostgreSQL is asked for TLS first.
func terminateTLS(t *testing.T, backend string, c certificates, postgres bool) (address string) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		t.Fatal(err)
	}
	authority, err := os.ReadFile(c.ca)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: x509.NewCertPool()}
	config.ClientCAs.AppendCertsFromPEM(authority)
	if !postgres {
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() {
		listener.Close()
		serving.Wait()
	})
	serve := func(client net.Conn) {
		defer client.Close()
		if postgres {
			// SSLRequest: its length and 1234.5679; the answer is one byte.
			request := make([]byte, 8)
			if _, err := io.ReadFull(client, request); err != nil || !bytes.Equal(request, []byte{0, 0, 0, 8, 4, 210, 22, 47}) {
				return
			}
			if _, err := client.Write([]byte("S")); err != nil {
				return
			}
		}
		secured := tls.Server(client, config)
		if secured.Handshake() != nil {
			return
		}
		server, err := net.Dial("tcp", backend)
		if err != nil {
			return
		}
		defer server.Close()
		done := make(chan struct{}, 2)
		for _, way := range [][2]net.Conn{{secured, server}, {server, secured}} {
			go func() {
				_, _ = io.Copy(way[0], way[1]) // until either end is closed
				secured.Close()
				server.Close()
				done <- struct{}{}
			}()
		}
		<-done
		<-done
	}
	serving.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { serve(client) })
		}
	})
	return listener.Addr().String()
}

// Everything is encrypted and proven, and the role and the user may only what
// the documentation says.
func TestTLSToBothServers(t *testing.T) {
	t.Parallel()
	postgres := withPassword(t, startPostgres(t, stack.PostgresOptions{Major: 18}), "root")
	root := connectTo(t, postgres.url("root", ""))
	execute(t, root,
		`CREATE ROLE unstale LOGIN REPLICATION PASSWORD 'pg-s3cret'`, `GRANT CREATE ON DATABASE postgres TO unstale`,
		`GRANT EXECUTE ON FUNCTION pg_control_system() TO unstale`, `GRANT pg_read_all_stats TO unstale`,
		`CREATE TABLE t (id int PRIMARY KEY)`, `ALTER TABLE t OWNER TO unstale`)
	r := startRedis(t, stack.RedisOptions{Settings: map[string]string{
		"user": "unstale on >redis-s3cret ~* +@read +@write +@scripting +scan +info +ping +time +config|get",
	}})
	ours, theirs, other := newCertificates(t), newCertificates(t), newCertificates(t)
	postgresTLS, redisTLS := terminateTLS(t, postgres.Addr(), ours, true), terminateTLS(t, r.Addr(), theirs, false)

	passwords := t.TempDir()
	for name, secret := range map[string]string{"pg": "pg-s3cret\n", "redis": "redis-s3cret\n"} {
		if err := os.WriteFile(filepath.Join(passwords, name), []byte(secret), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write := func(databaseCA, databaseName, redisCA, redisName string) string {
		path, _ := writeConfig(t, fmt.Sprintf(`database:
  url: postgres://unstale@%s/postgres
  password_file: %s/pg
  tls: {mode: verify-full, ca_file: %s, server_name: %s}
redis:
  url: rediss://%s
  username: unstale
  password_file: %s/redis
  tls: {ca_file: %s, cert_file: %s, key_file: %s, server_name: %s}
entries:
  t: {key: 't:{id}', table: t, lease: 500ms}
`, postgresTLS, passwords, databaseCA, databaseName, redisTLS, passwords, redisCA, theirs.cert, theirs.key, redisName))
		return path
	}
	for _, c := range []struct{ path, says string }{
		{write(other.ca, "server.test", theirs.ca, "server.test"), "error: database:"},
		{write(ours.ca, "elsewhere.test", theirs.ca, "server.test"), "error: database:"},
		{write(ours.ca, "server.test", other.ca, "server.test"), "error: redis:"},
		{write(ours.ca, "server.test", theirs.ca, "elsewhere.test"), "error: redis:"},
	} {
		stdout, stderr, exit := unstaleCommand(t, "check", "--config", c.path)
		if exit != 1 || !strings.Contains(stdout, c.says) || !strings.Contains(stdout, "certificate") {
			t.Errorf("exit %d, want 1 and %q\n%s%s", exit, c.says, stdout, stderr)
		}
	}
	path := write(ours.ca, "server.test", theirs.ca, "server.test")
	stdout, stderr, exit := unstaleCommand(t, "check", "--config", path)
	if exit != 0 || strings.Contains(stdout, "error") {
		t.Errorf("check: exit %d\n%s%s", exit, stdout, stderr)
	}
	i := startInstance(t, readFile(t, path))
	i.waitReady()
	f := &fixture{t: t, conn: root}
	f.exec(`INSERT INTO t VALUES (1)`)
	i.waitStatus("applied", func(s *admin.Status) bool { return s.Dropped == 1 })
	i.stop()
	if strings.Contains(i.log.String(), "s3cret") {
		t.Errorf("the log shows a password\n%s", i.log)
	}
}
