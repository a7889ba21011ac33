package config_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/config"
)

func rewrite() bool { return flag.Lookup("rewrite").Value.String() == "true" }

// A story is prose, environment variables, a configuration, and what comes of
// it.
type story struct {
	prose, env, input, output string
}

func stories(t *testing.T, path string) []story {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var found []story
	for _, part := range strings.Split(string(text), "====\n") {
		var s story
		input, output, _ := strings.Cut(part, "----\n")
		s.output = output
		for line := range strings.Lines(input) {
			switch {
			case s.input == "" && strings.HasPrefix(line, "#"):
				s.prose += line
			case s.input == "" && strings.HasPrefix(line, "$ "):
				s.env += line
			default:
				s.input += line
			}
		}
		found = append(found, s)
	}
	return found
}

func (s story) getenv(name string) (string, bool) {
	for line := range strings.Lines(s.env) {
		n, value, _ := strings.Cut(strings.TrimSpace(strings.TrimPrefix(line, "$ ")), "=")
		if n == name {
			return value, true
		}
	}
	return "", false
}

// outcome is the problems, or the effective configuration.
func (s story) outcome() string {
	c, err := config.Parse("unstale.yaml", []byte(s.input), s.getenv)
	if err != nil {
		return err.Error() + "\n"
	}
	return c.Effective()
}

// Each file in testdata tells of one kind of problem.
func TestStories(t *testing.T) {
	t.Chdir("testdata")
	paths, err := filepath.Glob("*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(path, ".txt"), func(t *testing.T) {
			var written []string
			for _, s := range stories(t, path) {
				got := s.outcome()
				if !rewrite() {
					if diff := cmp.Diff(s.output, got); diff != "" {
						t.Errorf("%s%s(-want +got):\n%s", s.prose, s.input, diff)
					}
				}
				written = append(written, s.prose+s.env+s.input+"----\n"+got)
			}
			if rewrite() {
				if err := os.WriteFile(path, []byte(strings.Join(written, "====\n")), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestSchemaIsCurrent(t *testing.T) {
	const path = "../../unstale.schema.json"
	want := config.Schema()
	if rewrite() {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("unstale.schema.json is not current; run go generate ./internal/config (-want +got):\n%s", diff)
	}
}

func none(string) (string, bool) { return "", false }

const minimal = `database: postgres://app@localhost/shop
redis: redis://localhost
entries:
  product: {key: "product:{id}", table: products}
`

func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Parse("unstale.yaml", []byte(text), none)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDefaultsAreFilledIn(t *testing.T) {
	c := parse(t, minimal)
	if got, want := c.Source.Postgres, (config.Postgres{Slot: "unstale", Publication: "unstale", Failover: true}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	want := []config.Entry{{Name: "product", Key: "product:{id}", Table: "products", Lookup: config.LookupDatabase, OnChange: config.Invalidate, Lease: 3 * time.Second, Format: "json", Rows: "one", TTL: 24 * time.Hour, RefreshMax: 1000}}
	if diff := cmp.Diff(want, c.Entries); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
	if got, want := c.Load, (config.Loads{RowsPerSecond: 5000, Connections: 2}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got, want := c.Admin.Listen, "127.0.0.1:9187"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Plans and status pages list the entries as the operator wrote them.
func TestEntriesKeepTheOrderOfTheFile(t *testing.T) {
	c := parse(t, "database: host=x\nredis: redis://x\nentries:\n  b: {key: 'b:{id}', table: b}\n  a: {key: 'a:{id}', table: a}\n  c: {key: 'c:{id}', table: c}\n")
	var got []string
	for _, e := range c.Entries {
		got = append(got, e.Name)
	}
	if diff := cmp.Diff([]string{"b", "a", "c"}, got); diff != "" {
		t.Error(diff)
	}
}

// The planner finds an unknown column only once it knows the table. It reports
// it as if the parser had.
func TestLaterProblemsLookLikeTheParsersOwn(t *testing.T) {
	c := parse(t, "database: host=x\nredis: redis://x\nentries:\n  product:\n    key: product:{nmae}\n    table: products\n")
	got := c.ProblemAt(c.Entries[0].Path("key"), len("product:"), `no column "nmae" in table "products"`, "write {name}; the table has id, name, price").String()
	want := `unstale.yaml:5:18: entries.product.key: no column "nmae" in table "products"
   5 |     key: product:{nmae}
     |                  ^
  write {name}; the table has id, name, price`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// The caret must find its place through every way to write a value.
func TestCaretStandsUnderTheByteOfTheValue(t *testing.T) {
	for _, tt := range []struct {
		name, value, env string
		want             string // the line up to the caret
	}{
		{"plain", `ab:{id}`, "", `    key: ab:`},
		{"double quotes", `"ab:{id}"`, "", `    key: "ab:`},
		{"single quotes", `'ab:{id}'`, "", `    key: 'ab:`},
		{"a doubled quote", `'a''b:{id}'`, "", `    key: 'a''b:`},
		{"an escape", `"\x61\t:{id}"`, "", `    key: "\x61\t:`},
		{"letters beyond ASCII", `éü:{id}`, "", `    key: éü:`},
		{"a doubled dollar", `$$b:{id}`, "", `    key: $$b:`},
		{"behind a variable", `${P}:{id}`, "prefix", `    key: ${P}:`},
		{"inside a variable", `x${P}`, "ab:{id}", `    key: x`},
		{"an anchor", `&k ab:{id}`, "", `    key: &k ab:`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := "database: host=x\nredis: redis://x\nentries:\n  p:\n    key: " + tt.value + "\n    table: t\n"
			c, err := config.Parse("unstale.yaml", []byte(text), func(string) (string, bool) { return tt.env, true })
			if err != nil {
				t.Fatal(err)
			}
			p := c.ProblemAt("entries.p.key", strings.Index(c.Entries[0].Key, "{"), "x", "")
			line := []rune(strings.Split(text, "\n")[4])
			if got := string(line[:p.Column-1]); p.Line != 5 || got != tt.want {
				t.Errorf("line %d, caret behind %q, want %q", p.Line, got, tt.want)
			}
		})
	}
}

// So does a column that the table does not have: each of a list has its place.
func TestCaretStandsUnderTheColumnOfTheList(t *testing.T) {
	for _, tt := range []struct {
		columns, want string // the list, and its line up to the caret
	}{
		{"[id, nmae]", `    columns: [id, `},
		{`[id, "nmae"]`, `    columns: [id, "`},
		{"\n      - id\n      - nmae", `      - `},
		{"[\n      id,\n      nmae]", `      `},
		{"&c [id, nmae]", `    columns: &c [id, `},
	} {
		text := "database: host=x\nredis: redis://x\nentries:\n  p:\n    key: p:{id}\n    table: t\n    on_change: warm\n    columns: " + tt.columns + "\n"
		c := parse(t, text)
		p := c.ProblemAt(c.Entries[0].ColumnPath(1), 0, "x", "")
		line := []rune(strings.Split(text, "\n")[p.Line-1])
		if got := string(line[:p.Column-1]); got != tt.want || p.Path != "entries.p.columns[1]" {
			t.Errorf("%s: %s, caret behind %q, want %q", tt.columns, p.Path, got, tt.want)
		}
	}
}

// A caller that finds more problems wants them in one list with the parser's.
func TestConfigIsThereDespiteProblems(t *testing.T) {
	c, err := config.Parse("unstale.yaml", []byte(minimal+"colour: red\n"), none)
	problems, ok := errors.AsType[config.Problems](err)
	if !ok || c == nil {
		t.Fatalf("got %v, %v", c, err)
	}
	problems = append(problems, c.Problem("entries.product.table", `no table "products"`, ""))
	got := problems.Err().Error()
	if i, j := strings.Index(got, "no table"), strings.Index(got, "unknown key"); i < 0 || i > j {
		t.Errorf("not in the order of the file:\n%s", got)
	}
}

// A password must not come out by any way that a value is commonly printed.
func TestSecretsAreHidden(t *testing.T) {
	c := parse(t, strings.ReplaceAll(minimal, "redis: redis://localhost", `redis: {url: "redis://localhost", password: hunter2}`)+
		"source: {postgres: {url: postgres://app:hunter2@db/shop}}\n")
	if got := string(c.Redis.Password); got != "hunter2" {
		t.Fatalf("password is %q", got)
	}
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	logger.Info("x", "redis", c.Redis, "password", c.Redis.Password, "url", c.Source.Postgres.URL, "config", c)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "redis", c.Redis, "config", c)
	asJSON, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	asYAML, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	outputs := map[string]string{"slog": log.String(), "json": string(asJSON), "yaml": string(asYAML), "effective": c.Effective()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		outputs[verb] = fmt.Sprintf(verb+verb+verb+verb, c, *c, c.Redis.Password, c.Source.Postgres.URL)
	}
	kafka := parse(t, "redis: redis://x\nentries: {p: {key: 'p:{id}', table: p}}\nsource:\n  kafka:\n    brokers: [localhost:9092]\n    topic_prefix: cdc\n"+
		"    sasl: {mechanism: plain, username: u, password: hunter2}\n    schema_registry: http://u:hunter2@registry\n"+
		"    connect: {url: 'https://connect', username: u, password: hunter2, database: 'postgres://u:hunter2@db'}\n")
	if asJSON, err = json.Marshal(kafka); err != nil {
		t.Fatal(err)
	}
	outputs["kafka"] = fmt.Sprintf("%s %v %+v %#v %s", asJSON, kafka.Source, kafka.Source.Kafka, kafka.Source.Kafka.Connect, kafka.Effective())
	for way, text := range outputs {
		for _, secret := range []string{"hunter2", fmt.Sprintf("%x", "hunter2")} {
			if strings.Contains(text, secret) {
				t.Errorf("%s shows the password: %s", way, text)
			}
		}
	}
}

func TestURLHidesItsPassword(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"postgres://app:pw@db:5432/shop", "postgres://app:***@db:5432/shop"},
		{"postgres://app@db/shop", "postgres://app@db/shop"},
		{"postgres://a:1,b:2/shop", "postgres://a:1,b:2/shop"},
		{"postgres://app:pw@a:1,b:2/shop", "postgres://app:***@a:1,b:2/shop"},
		{"postgres://[::1]:5432/shop", "postgres://[::1]:5432/shop"},
		{"postgres://db/shop?password=pw&sslmode=require", "postgres://db/shop?password=***&sslmode=require"},
		{"postgres://app:p/w@db/shop", "postgres://app:***@db/shop"},
		{"postgres://app:p@w@db/shop", "postgres://app:***@db/shop"},
		{"postgres://app:p#w?x@db/shop", "postgres://app:***@db/shop"},
		{"redis://:pw@cache", "redis://:***@cache"},
		{"redis://default:pw", "redis://default:***"},
		{"host=db password='p w' user=x", "host=db password=*** user=x"},
		{`host=db password='p\'w' user=x`, "host=db password=*** user=x"},
		{"host=db password=pw", "host=db password=***"},
		{"host=db PASSWORD = pw", "host=db PASSWORD = ***"},
	} {
		if got := config.URL(tt.text).String(); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.text, got, tt.want)
		}
	}
}

// What the driver gets has everything that stands beside the URL in it.
func TestConnStringHasEverything(t *testing.T) {
	t.Chdir("testdata")
	tail := "redis: redis://x\nentries: {p: {key: 'p:{id}', table: p}}\n"
	for _, tt := range []struct{ name, database, want, replication string }{
		{"a plain URL", "postgres://app@db/shop",
			"postgres://app@db/shop?connect_timeout=10", ""},
		{"a query of its own", "postgres://app@db/shop?sslmode=require&connect_timeout=2",
			"postgres://app@db/shop?sslmode=require&connect_timeout=2", ""},
		{"a password file", "{url: 'postgres://app@db/shop', password_file: password, connect_timeout: 1500ms}",
			"postgres://app@db/shop?password=it%27s%20%26%20secret&connect_timeout=2", ""},
		{"key=value", "{url: host=db dbname=shop, password_file: password}",
			`host=db dbname=shop password='it\'s & secret' connect_timeout='10'`, ""},
		{"an authority means that names are checked", "{url: 'postgres://app@db/shop', tls: {ca_file: ca.pem}}",
			"postgres://app@db/shop?sslmode=verify-full&sslrootcert=ca.pem&connect_timeout=10", ""},
		{"replication elsewhere", "{url: 'postgres://app@pooler/shop', password_file: password}\nsource: {postgres: {url: 'postgres://app@db/shop'}}",
			"postgres://app@pooler/shop?password=it%27s%20%26%20secret&connect_timeout=10",
			"postgres://app@db/shop?password=it%27s%20%26%20secret&connect_timeout=10"},
		{"replication by its own password", "{url: 'postgres://app@pooler/shop', password_file: password}\nsource: {postgres: {url: 'postgres://r:own@db/shop'}}",
			"postgres://app@pooler/shop?password=it%27s%20%26%20secret&connect_timeout=10",
			"postgres://r:own@db/shop?connect_timeout=10"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := parse(t, "database: "+tt.database+"\n"+tail)
			if diff := cmp.Diff(tt.want, c.Database.ConnString()); diff != "" {
				t.Error(diff)
			}
			want := tt.replication
			if want == "" {
				want = tt.want
			}
			if diff := cmp.Diff(want, c.ReplicationConnString()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What Debezium gets leads to the database from where Connect's workers are, and
// is never weaker than what the service itself uses.
func TestConnectorConnStringLeavesOutWhatIsOurs(t *testing.T) {
	t.Chdir("testdata")
	for _, tt := range []struct{ name, database, connect, want string }{
		{"our own", "database: postgres://app:pw@db/shop", "", "postgres://app:pw@db/shop"},
		{"files are ours, what they mean is not", "database: {url: 'postgres://app@db/shop', password_file: password, tls: {ca_file: ca.pem}}", "",
			"postgres://app@db/shop?password=it%27s%20%26%20secret&sslmode=verify-full"},
		{"another address", "database: {url: 'postgres://app@db/shop', password_file: password, tls: {ca_file: ca.pem}}", ", database: host=db.internal dbname=shop",
			`host=db.internal dbname=shop password='it\'s & secret'`},
		{"another password", "database: {url: 'postgres://app@db/shop', password_file: password}", ", database: postgres://d:own@db.internal/shop",
			"postgres://d:own@db.internal/shop"},
		{"no database", "", ", database: postgres://d:own@db.internal/shop", "postgres://d:own@db.internal/shop"},
		{"nothing known", "", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := parse(t, tt.database+"\nredis: redis://x\nentries: {p: {key: 'p:{id}', table: p}}\n"+
				"source:\n  kafka:\n    brokers: [localhost:9092]\n    topic_prefix: cdc\n    connect: {url: 'http://connect:8083'"+tt.connect+"}\n")
			if diff := cmp.Diff(tt.want, c.ConnectorConnString()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What connection strings say of TLS, Debezium has keys for.
func TestConnectorTLSIsWhatTheConnectionStringSays(t *testing.T) {
	for _, tt := range []struct {
		database string
		want     map[string]string
	}{
		{"postgres://db/shop", map[string]string{}},
		{"postgres://db/shop?sslmode=verify-full&sslrootcert=%2Fetc%2Fmy%20ca.pem", map[string]string{"sslmode": "verify-full", "sslrootcert": "/etc/my ca.pem"}},
		{`"host=db sslmode = require sslrootcert='/etc/it\\'s.pem' dbname=shop"`, map[string]string{"sslmode": "require", "sslrootcert": "/etc/it's.pem"}},
		{"host=db dbname=sslmode", map[string]string{}},
	} {
		c := parse(t, "database: "+tt.database+"\nredis: redis://x\nentries: {p: {key: 'p:{id}', table: p}}\n")
		if diff := cmp.Diff(tt.want, c.ConnectorTLS("sslmode", "sslrootcert")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.database, diff)
		}
	}
}

// A login may stand beside a URL or in it.
func TestEndpointTellsLoginAndAddressApart(t *testing.T) {
	for _, tt := range []struct {
		endpoint                config.Endpoint
		address, user, password string
	}{
		{config.Endpoint{URL: "http://connect:8083/x"}, "http://connect:8083/x", "", ""},
		{config.Endpoint{URL: "http://app:p%40w@connect:8083/x"}, "http://connect:8083/x", "app", "p@w"},
		{config.Endpoint{URL: "http://connect", Username: "app", Password: "pw"}, "http://connect", "app", "pw"},
		{config.Endpoint{URL: "http://app@connect", Password: "pw"}, "http://connect", "app", "pw"},
	} {
		user, password := tt.endpoint.Login()
		if tt.endpoint.Address() != tt.address || user != tt.user || password != tt.password {
			t.Errorf("%s: got %s, %s, %s", tt.endpoint.URL, tt.endpoint.Address(), user, password)
		}
	}
}

// The brokers' TLS is a word, as nothing in their addresses says it; that of the
// others follows from their URLs.
func TestTLSOfKafkaAndItsNeighbours(t *testing.T) {
	const head = "redis: redis://x\nentries: {p: {key: 'p:{id}', table: p}}\nsource:\n  kafka:\n    brokers: [kafka.example.com:9093]\n    topic_prefix: cdc\n"
	k := parse(t, head+"    schema_registry: http://registry:8081\n").Source.Kafka
	if got, err := k.TLSConfig(); got != nil || err != nil {
		t.Errorf("without a word: %v, %v", got, err)
	}
	if got, err := k.SchemaRegistry.TLSConfig(); got != nil || err != nil {
		t.Errorf("http: %v, %v", got, err)
	}
	k = parse(t, head+"    tls: true\n    schema_registry: https://schemas.example.com:8081/apis/ccompat/v7\n    connect: {url: 'https://10.0.0.7:8083', tls: {server_name: connect}}\n").Source.Kafka
	if got, err := k.TLSConfig(); err != nil || got.ServerName != "" {
		t.Errorf("tls: true gives %v, %v", got, err)
	}
	if got, err := k.SchemaRegistry.TLSConfig(); err != nil || got.ServerName != "schemas.example.com" {
		t.Errorf("https gives %v, %v", got, err)
	}
	if got, err := k.Connect.TLSConfig(); err != nil || got.ServerName != "connect" {
		t.Errorf("a name of its own gives %v, %v", got, err)
	}
	k = parse(t, head+"    tls: {enabled: false}\n").Source.Kafka
	if got, err := k.TLSConfig(); got != nil || err != nil {
		t.Errorf("enabled: false gives %v, %v", got, err)
	}
}

func TestTLSOfRedisFollowsTheURL(t *testing.T) {
	c := parse(t, minimal)
	if got, err := c.Redis.TLSConfig(); got != nil || err != nil {
		t.Errorf("redis:// gives %v, %v", got, err)
	}
	c = parse(t, strings.Replace(minimal, "redis://localhost", "rediss://cache.example.com:6380", 1))
	if got, err := c.Redis.TLSConfig(); err != nil || got.ServerName != "cache.example.com" {
		t.Errorf("rediss:// gives %v, %v", got, err)
	}
}

// Windows editors end lines in CR LF, and some begin with a byte order mark.
func TestLinesOfWindowsCountOnce(t *testing.T) {
	text := "\ufeff# comment\r\n" + strings.ReplaceAll(minimal, "\n", "\r\n") + "colour: red\r\n"
	_, err := config.Parse("unstale.yaml", []byte(text), none)
	if err == nil || !strings.HasPrefix(err.Error(), "unstale.yaml:6:1: colour: unknown key") {
		t.Errorf("got %v", err)
	}
}

func TestLoadReadsTheFileAndItsNeighbours(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "unstale.yaml")
	text := strings.Replace(minimal, "postgres://app@localhost/shop", "{url: 'postgres://app@localhost/shop', password_file: pw}", 1)
	for name, content := range map[string]string{path: text, filepath.Join(dir, "pw"): "secret\n"} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := config.Load(path, none)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(c.Database.Password), "secret"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if _, err := config.Load(filepath.Join(dir, "absent.yaml"), none); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want that the file does not exist", err)
	}
}

// No input panics, every problem prints, and what is accepted is accepted
// again after it has been printed.
func FuzzParse(f *testing.F) {
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for part := range strings.SplitSeq(string(text), "====\n") {
			input, _, _ := strings.Cut(part, "----\n")
			f.Add([]byte(input))
		}
	}
	f.Add([]byte("entries: &e {a: *e}\n"))
	f.Add([]byte("redis: {password: |\n  a\n\n  b\n, x: 1}\n"))
	getenv := func(name string) (string, bool) { return "postgres://u:" + name + "@h", strings.HasPrefix(name, "D") }
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := config.Parse("unstale.yaml", text, getenv)
		if c == nil {
			return
		}
		fmt.Fprint(io.Discard, err, c.ProblemAt("entries.product.key", 7, "x", "y"), c.ProblemAt("database.url", -1, "x", "y"))
		if err != nil {
			return
		}
		printed := c.Effective()
		again, err := config.Parse("unstale.yaml", []byte(printed), none)
		if err != nil {
			t.Fatalf("the effective configuration is refused: %v\n%s", err, printed)
		}
		if diff := cmp.Diff(printed, again.Effective()); diff != "" {
			t.Fatalf("printed, read and printed again, it differs (-first +second):\n%s", diff)
		}
	})
}

// Whatever a value is made of, printing it and reading it back gives it again.
func FuzzEffectiveIsReadBack(f *testing.F) {
	f.Add("product:{id}", "products", "unstale", "id")
	f.Add("$${x}: #'\"\\", `a"b`, "null", "null")
	f.Add("~", "ÄÖ", " \t\u2028\x7f\u0085", "a, b: [c]")
	f.Fuzz(func(t *testing.T, key, table, publication, column string) {
		quoted := func(s string) string {
			text, err := json.Marshal(strings.ReplaceAll(s, "$", "$$"))
			if err != nil {
				t.Fatal(err)
			}
			return string(text)
		}
		text := fmt.Sprintf("database: host=x\nredis: redis://x\nsource:\n  postgres:\n    publication: %s\nentries:\n  e:\n    key: %s\n    table: %s\n    on_change: warm\n    columns: [a, %s]\n",
			quoted(publication), quoted(key), quoted(`"`+strings.ReplaceAll(table, `"`, `""`)+`"`), quoted(column))
		first, err := config.Parse("unstale.yaml", []byte(text), none)
		if err != nil {
			return
		}
		second, err := config.Parse("unstale.yaml", []byte(first.Effective()), none)
		if err != nil {
			t.Fatalf("%v\n%s", err, first.Effective())
		}
		if diff := cmp.Diff(first.Entries, second.Entries); diff != "" {
			t.Errorf("entries (-first +second):\n%s", diff)
		}
		if diff := cmp.Diff(first.Source, second.Source); diff != "" {
			t.Errorf("source (-first +second):\n%s", diff)
		}
	})
}

// No password gets into a problem, wherever it was put and whatever is wrong
// beside it.
func FuzzPasswordsStayOutOfProblems(f *testing.F) {
	for _, p := range []string{"hunter2hunter2", "p@ss:w/rd?x#y", "two words more", "quo'te\"d&x=y", "back\\slash\\", "{brace}s}", "://://x", "a: b, c: d", "#hash hash"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, password string) {
		const around = 8 // shorter ones occur in the rest of the text
		if len(password) < around || strings.ContainsAny(password, "\n\r$*") || strings.ContainsFunc(password, func(r rune) bool { return r < ' ' || r > '~' }) {
			return
		}
		quoted := "'" + strings.ReplaceAll(password, "'", "''") + "'"
		for _, form := range []string{
			"redis: {password: %s, dial_timeout: 5}\n",
			"redis: {pasword: %s, dial_timeout: 5}\n",
			"redis:\n  dial_timeout: 5\n  password: %s\n  password: 3\n",
			"redis: {dial_timeout: 5, password: &p %s, username: [*p]}\n",
		} {
			_, err := config.Parse("unstale.yaml", fmt.Appendf(nil, form, quoted), none)
			if err == nil {
				t.Fatal("no problem")
			}
			for _, shown := range []string{password, strings.ReplaceAll(password, "'", "''")} {
				if strings.Contains(err.Error(), shown) {
					t.Errorf("%s\nshows %s", err, shown)
				}
			}
		}
	})
}
