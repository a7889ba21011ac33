package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/unstale/unstale/internal/database"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/query"
)

// Each of apps is a schema and cached queries of the size and shape that applications
// have them: a folder of testdata/apps with
//   - schema.sql, its tables, views and first rows;
//   - entries.yaml, its queries as entries of the configuration;
//   - values.yaml, for each parameter a SELECT of the values that it is given, of which
//     some are in no row;
//   - workload.sql, transactions with a blank line between them. {name} stands for one of
//     those values, the same throughout a transaction, {name.2} for another one, {1..9}
//     for a number.
var apps = []struct {
	name  string
	major int
}{{"shop", 15}, {"forum", 18}, {"rental", 15}}

const (
	// appRounds are how often all that is cached is compared. Of a transaction by itself
	// it is counted what it drops; in each third round several race with readers.
	appRounds   = 240
	racing      = 4 // transactions
	raceReaders = 2
	// unapplied are the transactions of the control, in which no service runs.
	unapplied = 40
	// keysMax are how many of an entry are cached.
	keysMax = 60
)

// Whatever an application does to its rows, behind the barrier nothing is cached that
// its query would not give. Without the service there is.
func TestTheQueriesOfApplicationsStayRight(t *testing.T) {
	for _, app := range apps {
		t.Run(app.name, func(t *testing.T) {
			t.Parallel()
			s := newShelf(t, app.name, app.major)
			i := startInstance(t, s.config(s.entries))
			i.waitReady()
			before := s.results()
			for round := range appRounds {
				s.fill()
				alone := round%3 < 2
				var told string
				if alone {
					told = s.commit(s.conn)
				} else {
					told = s.race()
				}
				s.barrier()
				after, cached := s.results(), s.cachedValues()
				for at, k := range s.keys {
					if value, ok := cached[at].(string); ok && value != after[at] {
						t.Errorf("round %d: %s is stale: %s\nwant %s\n%s", round, k.name, value, after[at], told)
					}
					if alone {
						k.count(before[at] != after[at], cached[at] == nil)
					}
				}
				before = after
			}
			if gaps := i.gaps(); gaps != 1 {
				t.Errorf("%d gaps, want that of the first start only\n%s", gaps, i.log)
			}
			s.fill()
			i.stop()
			for range unapplied {
				s.commit(s.conn)
			}
			after, cached := s.results(), s.cachedValues()
			for at, k := range s.keys {
				if cached[at] != after[at] {
					k.of.stale++
				}
			}
			s.judge()
		})
	}
}

// A shelf is the database of an application, and the results of its queries in the cache.
type shelf struct {
	*fixture
	dice         *rand.Rand
	entries      string
	values       map[string][]string
	transactions []string
	queries      []*cachedQuery
	keys         []cachedKey // in the order of queries
	readers      []*pgx.Conn

	committed, refused int // transactions, by a constraint
}

// A cachedQuery is an entry, and what happened to its keys.
type cachedQuery struct {
	name, function string
	arguments      [][]string // one list for each parameter, with a value for each key
	// dropped are keys that were, idle those of them whose result had not changed, changed
	// all results that had; stale are the keys that were so without the service.
	dropped, idle, changed, stale int
}

// A cachedKey is number n of its query.
type cachedKey struct {
	name string
	of   *cachedQuery
	n    int
}

func (k cachedKey) count(changed, dropped bool) {
	if changed {
		k.of.changed++
	}
	if dropped {
		k.of.dropped++
		if !changed {
			k.of.idle++
		}
	}
}

func newShelf(t *testing.T, app string, major int) *shelf {
	t.Helper()
	s := &shelf{fixture: newFixture(t, major), dice: rand.New(rand.NewPCG(1, 1)), values: map[string][]string{}}
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join("testdata", "apps", app, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	parse := func(text string, into any) {
		if err := yaml.Unmarshal([]byte(text), into); err != nil {
			t.Fatal(err)
		}
	}
	execute(t, s.conn, read("schema.sql"))
	s.transactions = strings.Split(strings.TrimSpace(read("workload.sql")), "\n\n")
	var selects map[string]string
	parse(read("values.yaml"), &selects)
	for name, sql := range selects {
		rows, err := s.conn.Query(t.Context(), "SELECT one::text FROM ("+sql+") AS values(one)")
		if err != nil {
			t.Fatal(err)
		}
		if s.values[name], err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
			t.Fatalf("values of %s: %v", name, err)
		}
	}
	s.entries = read("entries.yaml")
	var entries map[string]struct{ Key, Query string }
	parse(s.entries, &entries)
	catalog := database.NewQueries(t.Context(), s.conn)
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		q, err := query.Parse(entries[name].Query)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		types, err := catalog.Parameters(q)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		key, err := guard.ParseTemplate(entries[name].Key)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		of := &cachedQuery{name: name, function: "result_of_" + name}
		execute(t, s.conn, fmt.Sprintf("CREATE FUNCTION %s(%s) RETURNS text LANGUAGE sql STABLE AS $f$ SELECT coalesce(json_agg(one)::text, '') FROM (\n%s\n) AS one $f$",
			of.function, strings.Join(slices.Repeat([]string{"text"}, len(types)), ", "),
			q.With(func(i int) string { return fmt.Sprintf("($%d::%s)", i+1, types[i].Name) })))
		s.queries = append(s.queries, of)
		s.takeKeys(of, key, q.Parameters)
	}
	for range raceReaders {
		s.readers = append(s.readers, connectTo(t, s.url))
	}
	return s
}

// takeKeys adds the keys of all combinations of values, or of some.
func (s *shelf) takeKeys(of *cachedQuery, key *guard.Template, parameters []string) {
	combined := [][]string{nil}
	for _, name := range parameters {
		if s.values[name] == nil {
			s.t.Fatalf("%s: no values for %s", of.name, name)
		}
		var more [][]string
		for _, one := range combined {
			for _, value := range s.values[name] {
				more = append(more, append(slices.Clone(one), value))
			}
		}
		combined = more
	}
	s.dice.Shuffle(len(combined), func(i, j int) { combined[i], combined[j] = combined[j], combined[i] })
	of.arguments = make([][]string, len(parameters))
	for n, arguments := range combined[:min(len(combined), keysMax)] {
		values := make([]string, len(arguments))
		for i, column := range key.Columns() {
			values[i] = arguments[slices.Index(parameters, column)]
		}
		s.keys = append(s.keys, cachedKey{key.Key(values...), of, n})
		for i, value := range arguments {
			of.arguments[i] = append(of.arguments[i], value)
		}
	}
}

// results are what the queries give for each key.
func (s *shelf) results() (results []string) {
	s.t.Helper()
	batch := &pgx.Batch{}
	for _, q := range s.queries {
		sql := "SELECT " + q.function + "()"
		var arguments []any
		if len(q.arguments) > 0 {
			var arrays, names []string
			for i, values := range q.arguments {
				arguments = append(arguments, values)
				arrays, names = append(arrays, fmt.Sprintf("$%d::text[]", i+1)), append(names, fmt.Sprintf("a%d", i+1))
			}
			sql = fmt.Sprintf("SELECT %s(%s) FROM unnest(%s) WITH ORDINALITY AS a(%[2]s, n) ORDER BY n", q.function, strings.Join(names, ", "), strings.Join(arrays, ", "))
		}
		batch.Queue(sql, arguments...).Query(func(rows pgx.Rows) error {
			some, err := pgx.CollectRows(rows, pgx.RowTo[string])
			results = append(results, some...)
			return err
		})
	}
	if err := s.conn.SendBatch(within(s.t, time.Minute), batch).Close(); err != nil {
		s.t.Fatal(err)
	}
	return results
}

// cachedValues are those of each key, nil where none is cached.
func (s *shelf) cachedValues() []any {
	s.t.Helper()
	names := make([]string, len(s.keys))
	for at, k := range s.keys {
		names[at] = k.name
	}
	values, err := s.rdb.MGet(within(s.t, time.Minute), names...).Result()
	if err != nil {
		s.t.Fatal(err)
	}
	return values
}

// fill has a reader ask for what is not cached.
func (s *shelf) fill() {
	s.t.Helper()
	ctx := within(s.t, time.Minute)
	for at, value := range s.cachedValues() {
		if value != nil {
			continue
		}
		if err := s.read(ctx, s.readers[0], s.keys[at]); err != nil {
			s.t.Fatal(err)
		}
	}
}

// read reads a key as the application does.
func (s *shelf) read(ctx context.Context, conn *pgx.Conn, k cachedKey) error {
	_, err := s.client.Fetch(ctx, k.name, func(ctx context.Context) ([]byte, error) {
		var places []string
		var arguments []any
		for i, values := range k.of.arguments {
			places, arguments = append(places, fmt.Sprintf("$%d", i+1)), append(arguments, values[k.n])
		}
		var text []byte
		err := conn.QueryRow(ctx, "SELECT "+k.of.function+"("+strings.Join(places, ", ")+")", arguments...).Scan(&text)
		return text, err
	})
	return err
}

// race commits while readers read.
func (s *shelf) race() (told string) {
	s.t.Helper()
	ctx, end := context.WithCancel(within(s.t, time.Minute))
	var wg sync.WaitGroup
	for _, conn := range s.readers {
		dice := rand.New(rand.NewPCG(s.dice.Uint64(), 1))
		wg.Go(func() {
			for ctx.Err() == nil {
				// Not with ctx: a statement that is broken off ends its connection.
				if err := s.read(context.WithoutCancel(ctx), conn, s.keys[dice.IntN(len(s.keys))]); err != nil {
					s.t.Error(err)
					return
				}
			}
		})
	}
	for range racing {
		told += s.commit(s.conn) + "\n"
	}
	end()
	wg.Wait()
	return told
}

var placeholder = regexp.MustCompile(`\{([a-z_]+)(\.\d)?\}|\{(\d+)\.\.(\d+)\}`)

// commit does one transaction, of which a constraint may refuse some.
func (s *shelf) commit(conn *pgx.Conn) (sql string) {
	s.t.Helper()
	chosen := map[string]string{}
	sql = placeholder.ReplaceAllStringFunc(s.transactions[s.dice.IntN(len(s.transactions))], func(text string) string {
		parts := placeholder.FindStringSubmatch(text)
		if parts[1] == "" {
			from, _ := strconv.Atoi(parts[3])
			to, _ := strconv.Atoi(parts[4])
			return strconv.Itoa(from + s.dice.IntN(to-from+1))
		}
		values := s.values[parts[1]]
		if values == nil {
			s.t.Fatalf("no values for %s", text)
		}
		if chosen[text] == "" {
			chosen[text] = values[s.dice.IntN(len(values))]
		}
		return chosen[text]
	})
	_, err := conn.Exec(within(s.t, time.Minute), sql, pgx.QueryExecModeSimpleProtocol)
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok && strings.HasPrefix(refused.Code, "23") {
		s.refused++
		return "refused: " + sql
	}
	if err != nil {
		s.t.Fatalf("%s\n%v", sql, err)
	}
	s.committed++
	return sql
}

// judge prints what happened, and demands that it happened to every query.
func (s *shelf) judge() {
	var b strings.Builder
	fmt.Fprintf(&b, "%d transactions, %d refused by a constraint, %d keys\n%-24s %8s %8s %8s %6s %20s\n", s.committed, s.refused, len(s.keys), "entry", "changed", "dropped", "idle", "", "stale without")
	var all cachedQuery
	for _, q := range s.queries {
		q.print(&b)
		all.changed, all.dropped, all.idle, all.stale = all.changed+q.changed, all.dropped+q.dropped, all.idle+q.idle, all.stale+q.stale
		if q.changed == 0 {
			s.t.Errorf("no transaction has changed what %s gives", q.name)
		}
	}
	all.name = "all"
	all.print(&b)
	s.t.Log(b.String())
	if s.refused > s.committed {
		s.t.Errorf("%d transactions were refused, and %d were not", s.refused, s.committed)
	}
	if all.stale == 0 {
		s.t.Error("nothing was stale without the service, so that nothing shows that it would have been noticed")
	}
}

func (q *cachedQuery) print(b *strings.Builder) {
	fmt.Fprintf(b, "%-24s %8d %8d %8d %5d%% %20d\n", q.name, q.changed, q.dropped, q.idle, 100*q.idle/max(1, q.dropped), q.stale)
}
