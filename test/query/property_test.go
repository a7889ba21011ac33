// Package query tries what internal/query derives on a real PostgreSQL: worlds of
// tables, queries over them and transactions are invented, and every key whose
// result changes must be dropped.
package query

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/unstale/unstale/internal/database"
	"github.com/unstale/unstale/internal/plan"
	"github.com/unstale/unstale/internal/query"
	"github.com/unstale/unstale/internal/stack"
)

var (
	pairs   = flag.Int("pairs", 0, "how many pairs of a query and a transaction are tried; 0: as many as fit into a minute")
	seed    = flag.Uint64("seed", 1, "of the first world; 0: another one each time")
	tell    = flag.Int("misses", 5, "how many misses are told, the shortest queries first")
	sweeps  = flag.Int("sweeps", 0, "how many queries that are swept are told, the shortest first")
	workers = flag.Int("workers", 2, "how many worlds are tried at once")
)

const (
	queriesPerWorld      = 14
	transactionsPerWorld = 30
	// withinMax is how long the test takes without -pairs, at most four times that where a rule
	// that was left out has not been noticed by then.
	withinMax = 50 * time.Second
)

// A pair is a query and a transaction: what the query shows for every value of its
// parameters is computed before and after, and every key whose value has changed
// must be among those that its plan drops.
func TestEveryChangedResultIsDropped(t *testing.T) {
	servers := stack.New(stack.Options{Say: func(line string) { fmt.Fprintln(os.Stderr, line) }})
	defer servers.Close()
	ctx := t.Context()
	server, err := servers.Postgres(ctx, stack.PostgresOptions{Extensions: []string{"citext"}, Settings: map[string]string{"wal_level": "minimal", "max_wal_senders": "0", "synchronous_commit": "off", "autovacuum": "off"}})
	if err != nil {
		t.Fatal(err)
	}
	first := *seed
	if first == 0 {
		first = uint64(time.Now().UnixNano()) % 1e9
	}
	t.Logf("seed %d", first)
	total := newReport()
	began := time.Now()
	var mu sync.Mutex
	var wg sync.WaitGroup
	next := first
	for worker := range *workers {
		wg.Go(func() {
			conns, err := open(ctx, server, worker)
			if err != nil {
				t.Error(err)
				return
			}
			defer conns.close()
			for {
				mu.Lock()
				if over := time.Since(began); total.pairs >= *pairs && *pairs > 0 || *pairs == 0 && (over > withinMax && total.noticed() || over > 4*withinMax) || len(total.misses) > 200 {
					mu.Unlock()
					return
				}
				number := next
				next++
				mu.Unlock()
				one := newReport()
				err := try(ctx, conns, number, one)
				if slow, ok := errors.AsType[*pgconn.PgError](err); ok && slow.Code == "57014" {
					// A generated query may take any time; the next world is as good.
					t.Logf("world %d is given up: %v", number, err)
					err = conns.rollback(ctx)
				}
				mu.Lock()
				total.add(one)
				mu.Unlock()
				if err != nil {
					t.Errorf("world %d: %v", number, err)
					return
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d pairs in %v\n%s", total.pairs, time.Since(began).Round(time.Second), total)
	total.judge(t)
}

// conns are the connections to a database of which one world after the other is made.
type conns struct {
	// service is set up as those are in which the service looks up keys, app as the
	// application's and that in which the service reads the catalog: as the database is.
	service, app *pgx.Conn
	icu          bool // the server has collations of ICU
}

func open(ctx context.Context, server *stack.Postgres, worker int) (*conns, error) {
	setup, err := pgx.Connect(ctx, server.URL())
	if err != nil {
		return nil, err
	}
	defer setup.Close(ctx)
	name := fmt.Sprintf("worker_%d", worker)
	if _, err := setup.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		return nil, err
	}
	if _, err := setup.Exec(ctx, fmt.Sprintf(ofDatabase, name), pgx.QueryExecModeSimpleProtocol); err != nil {
		return nil, err
	}
	c := &conns{}
	for _, conn := range []**pgx.Conn{&c.service, &c.app} {
		config, err := pgx.ParseConfig(server.DatabaseURL(name))
		if err != nil {
			return nil, err
		}
		// Every world has other tables of the same names, so no plan is kept.
		config.DefaultQueryExecMode = pgx.QueryExecModeExec
		config.RuntimeParams["search_path"] = "w, public"
		config.RuntimeParams["statement_timeout"] = "2s"
		config.RuntimeParams["client_min_messages"] = "error"
		if conn == &c.service {
			database.FixTexts(config)
		}
		if *conn, err = pgx.ConnectConfig(ctx, config); err != nil {
			return nil, errors.Join(err, c.close())
		}
	}
	if _, err := c.service.Exec(ctx, "CREATE EXTENSION citext SCHEMA public"); err != nil {
		return nil, errors.Join(err, c.close())
	}
	_, err = c.service.Exec(ctx, "CREATE COLLATION public.probe (provider = icu, locale = 'und')")
	c.icu = err == nil
	return c, nil
}

func (c *conns) rollback(ctx context.Context) error {
	_, err := c.service.Exec(ctx, "ROLLBACK")
	_, also := c.app.Exec(ctx, "ROLLBACK")
	return errors.Join(err, also)
}

func (c *conns) close() (err error) {
	for _, conn := range []*pgx.Conn{c.service, c.app} {
		if conn != nil {
			err = errors.Join(err, conn.Close(context.Background()))
		}
	}
	return err
}

// A subject is a query with its plan.
type subject struct {
	generated
	*query.Query
	types        []query.Type
	dependencies []plan.Dependency
	without      map[query.Rule][]plan.Dependency // where it differs
	mode         string
	keys         [][]string // every combination of values of the parameters
	place        map[string]int
	function     string
}

// try makes a world, queries and transactions of a seed.
func try(ctx context.Context, conns *conns, number uint64, report *report) error {
	conn, app := conns.service, conns.app
	w := newWorld(rand.New(rand.NewPCG(number, 1)), conns.icu)
	ddl := w.ddl()
	if _, err := app.Exec(ctx, "RESET ALL; "+w.session, pgx.QueryExecModeSimpleProtocol); err != nil {
		return err
	}
	for _, statement := range []string{"DROP SCHEMA IF EXISTS w CASCADE", "CREATE SCHEMA w"} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return err
		}
	}
	if _, err := conn.Exec(ctx, ddl+noted, pgx.QueryExecModeSimpleProtocol); err != nil {
		return fmt.Errorf("%w\n%s", err, ddl)
	}
	rows := w.rows()
	if _, err := conn.Exec(ctx, block(rows)); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, w.triggers(), pgx.QueryExecModeSimpleProtocol); err != nil {
		return err
	}
	for i := range w.r.IntN(3) {
		g := &generator{world: w, classes: map[string]bool{}}
		sql, columns := g.filtered()
		if w.chance(70) {
			sql, columns, _ = g.statement(&scope{}, nil, w.r.IntN(2), false)
		}
		view := &table{name: fmt.Sprintf("v%d", i+1), columns: columns}
		create := "CREATE VIEW " + view.name + " AS " + sql
		if _, err := app.Exec(ctx, create); err == nil {
			w.views = append(w.views, view)
			ddl += create + ";\n"
		}
	}
	catalog := database.NewQueries(ctx, app)
	var subjects []*subject
	for i := 0; len(subjects) < queriesPerWorld && i < 2*queriesPerWorld; i++ {
		s, err := newSubject(ctx, app, catalog, w.query(), len(subjects), report)
		if err != nil {
			return err
		}
		if s != nil {
			subjects = append(subjects, s)
		}
	}
	before, err := evaluate(ctx, app, w, subjects, nil, nil)
	if err != nil {
		return err
	}
	for done := 0; done < transactionsPerWorld; {
		// Lookups run later than the changes that they serve, at times after others.
		span := []int{1, 1, 2, 3, 4}[w.r.IntN(5)]
		state := map[string]string{}
		if err := dump(ctx, conn, w, state); err != nil {
			return err
		}
		states := [][][]string{before}
		var held []members // by the indexes, before each transaction
		var transactions [][]string
		var changes [][]row
		for range span {
			holds, err := hold(ctx, conn, subjects)
			if err != nil {
				return err
			}
			held = append(held, holds)
			transaction := w.transaction()
			if _, err := conn.Exec(ctx, block(transaction)); err != nil {
				return err
			}
			changed, err := read(ctx, conn)
			if err != nil {
				return err
			}
			after, err := evaluate(ctx, app, w, subjects, changed, states[len(states)-1])
			if err != nil {
				return err
			}
			states, transactions, changes = append(states, after), append(transactions, transaction), append(changes, changed)
		}
		done += span
		before = states[span]
		var asked lookups
		type attempt struct {
			rule  query.Rule
			drops []*drops // of each transaction
			// index answers the lookups that it can. late: it was asked before the first
			// transaction was written, so all keys go when all transactions are visible.
			// lacking: it is not complete.
			index, late, lacking bool
			// planner: the planner itself has decided, on what the log shows. trusting: it takes
			// all of that for whole.
			planner, trusting bool
		}
		attempts := make([][]attempt, len(subjects))
		for i, s := range subjects {
			ask := func(_ int, of *plan.Lookup, rows []map[string]*string, into *drops) { asked.ask(s, of, rows, into) }
			all := []attempt{{drops: s.drops(s.dependencies, changes, ask)}}
			// Half as often: it asks all lookups once more.
			for _, by := range []attempt{{planner: true}, {planner: true, trusting: true}} {
				if w.chance(50) || by.trusting && report.trusting > 3 {
					continue
				}
				if by.drops, err = s.planned(w, by.trusting, changes, ask); err != nil {
					return err
				}
				all = append(all, by)
			}
			for rule, dependencies := range s.without {
				if !report.caught(rule) {
					all = append(all, attempt{rule: rule, drops: s.drops(dependencies, changes, ask)})
				}
			}
			for _, by := range []attempt{{index: true}, {index: true, late: true}, {index: true, lacking: true}} {
				if !s.indexed() || by.lacking && report.lacking > 3 {
					continue
				}
				by.drops = s.drops(s.dependencies, changes, func(transaction int, of *plan.Lookup, rows []map[string]*string, into *drops) {
					if by.late {
						transaction = 0
					}
					if of.Index == nil {
						asked.ask(s, of, rows, into)
					} else {
						held[transaction].answer(s, of, rows, into, by.lacking)
					}
				})
				all = append(all, by)
			}
			attempts[i] = all
		}
		if err := asked.run(ctx, conn); err != nil {
			return fmt.Errorf("%w\n%s", err, ddl)
		}
		for i, s := range subjects {
			for _, changed := range changes {
				if s.touched(changed) {
					report.pairs++
					if s.indexed() {
						report.indexed++
					}
				}
			}
			for _, attempt := range attempts[i] {
				missed := -1
				for key := range s.keys {
					dropped := attempt.late && slices.ContainsFunc(attempt.drops, func(d *drops) bool { return d.has(key) })
					for k := span - 1; k >= 0 && missed < 0; k-- {
						dropped = dropped || attempt.drops[k].has(key)
						// A value that was read before transaction k, and is no longer right.
						if states[k][i][key] != states[span][i][key] && !dropped {
							missed = key
							if attempt.rule != 0 {
								report.rules[attempt.rule]++
								break
							}
							if attempt.lacking {
								report.lacking++
								break
							}
							if attempt.trusting {
								report.trusting++
								break
							}
							var b strings.Builder
							fmt.Fprintf(&b, "world %d\n%s\n%s\n%s\n\nparameters %v = %q\nclasses %v\n", number, w.session, ddl, s.generated.sql, s.Parameters, s.keys[key], s.classes)
							for _, t := range w.tables {
								fmt.Fprintf(&b, "%s (sparse %v, toasts %v): %s\n", t.name, t.sparse, t.toasts, state[t.name])
							}
							for k, transaction := range transactions {
								fmt.Fprintf(&b, "transaction: %s\n", strings.Join(transaction, "; "))
								for _, c := range changes[k] {
									fmt.Fprintf(&b, "  %s\n", c)
								}
							}
							for k := range states {
								fmt.Fprintf(&b, "result %d: %s\n", k, states[k][i][key])
							}
							fmt.Fprintf(&b, "missed from %d, index %v, late %v, planner %v\n%s", k, attempt.index, attempt.late, attempt.planner, told(s.dependencies))
							report.misses = append(report.misses, miss{len(s.generated.sql), b.String()})
						}
					}
				}
				if attempt.rule == 0 && !attempt.index && !attempt.planner && span == 1 && !slices.ContainsFunc(changes[0], func(c row) bool { return c.truncated }) {
					for key := range s.keys {
						if attempt.drops[0].has(key) {
							report.dropped(s, states[0][i][key] != states[1][i][key])
							if states[0][i][key] == states[1][i][key] && s.mode != "sweep" && s.mode != "part" && *sweeps > 0 {
								report.idle = append(report.idle, miss{len(s.generated.sql), fmt.Sprintf("%v %s %q\n%v\n%s\n%s", s.classes, s.generated.sql, s.keys[key], changes[0], states[0][i][key], told(s.dependencies))})
							}
						}
					}
				}
			}
		}
	}
	return list(ctx, conns, w, ddl, subjects, before, report)
}

// list has the keys of every query listed: one that shows a row, and shows none where
// the tables are empty, must be among them. In parts they are the same, in the same order.
func list(ctx context.Context, conns *conns, w *world, ddl string, subjects []*subject, shown [][]string, report *report) error {
	conn := conns.service
	listed := make([][][]string, len(subjects)) // nil: they cannot be
	for i, s := range subjects {
		keys, _, err := s.Query.Keys(database.NewQueries(ctx, conns.app), s.types, s.Parameters)
		if err != nil {
			return err
		}
		if keys.All == "" {
			continue
		}
		report.listed++
		get := func(statement string, arguments ...any) ([][]string, error) {
			rows, err := conn.Query(ctx, statement, arguments...)
			if err != nil {
				return nil, err
			}
			found, err := pgx.CollectRows(rows, pgx.RowTo[[]string])
			if err != nil {
				err = fmt.Errorf("%w\n%s\n%s", err, s.generated.sql, statement)
			}
			return found, err
		}
		if listed[i], err = get(keys.All); err != nil {
			return err
		}
		var parts [][]string
		for part, err := get(keys.First, 2); err != nil || len(part) > 0; {
			if err != nil {
				return err
			}
			parts = append(parts, part...)
			arguments := []any{2}
			for _, value := range part[len(part)-1] {
				arguments = append(arguments, value)
			}
			part, err = get(keys.Next, arguments...)
		}
		if !slices.EqualFunc(listed[i], parts, slices.Equal) {
			report.misses = append(report.misses, miss{len(s.generated.sql), fmt.Sprintf("listed %q\nin parts %q\n%s\n%s", listed[i], parts, s.generated.sql, keys.Next)})
		}
		listed[i] = append(listed[i], []string{}) // not nil
	}
	for _, t := range w.tables {
		if _, err := conn.Exec(ctx, "TRUNCATE "+t.name+" CASCADE"); err != nil {
			return err
		}
	}
	empty, err := evaluate(ctx, conns.app, w, subjects, nil, nil)
	if err != nil {
		return err
	}
	for i, s := range subjects {
		for key, values := range s.keys {
			if listed[i] == nil || shown[i][key] == "" || empty[i][key] != "" {
				continue
			}
			report.listedKeys++
			if !slices.ContainsFunc(listed[i], func(one []string) bool { return slices.Equal(one, values) }) {
				report.misses = append(report.misses, miss{len(s.generated.sql), fmt.Sprintf("not listed: %q, which shows %s\nlisted %q\n%s\n%s", values, shown[i][key], listed[i], ddl, s.generated.sql)})
			}
		}
	}
	return nil
}

// newSubject plans a query; nil if it is none, or refused.
func newSubject(ctx context.Context, conn *pgx.Conn, catalog *database.Queries, g generated, number int, report *report) (*subject, error) {
	q, err := query.Parse(g.sql)
	if err != nil {
		report.invalid[err.Error()+": "+g.sql]++
		return nil, nil
	}
	s := &subject{generated: g, Query: q, place: map[string]int{}, without: map[query.Rule][]plan.Dependency{}, function: fmt.Sprintf("f%d", number)}
	if s.types, err = catalog.Parameters(q); err != nil {
		if _, ok := errors.AsType[*query.Error](err); ok {
			report.invalid[err.Error()+": "+g.sql]++
			return nil, nil
		}
		return nil, err
	}
	s.dependencies, err = q.DeriveIndexed(catalog, s.types, q.Parameters)
	if wrong, ok := errors.AsType[*query.Error](err); ok {
		report.planned(s, "refused")
		report.refused[wrong.Text] = g.sql
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := catalog.Verify([]database.Derived{{Query: q, Types: s.types, Dependencies: s.dependencies}})[0]; err != nil {
		report.misses = append(report.misses, miss{len(g.sql), fmt.Sprintf("%v\n%s\n%s", err, g.sql, told(s.dependencies))})
		return nil, nil
	}
	for _, rule := range query.Rules {
		without, err := q.DeriveWithout(rule.Rule, catalog, s.types, q.Parameters)
		if err != nil {
			return nil, err
		}
		if !reflect.DeepEqual(without, s.dependencies) {
			s.without[rule.Rule] = without
		}
	}
	s.mode = "direct"
	for _, d := range s.dependencies {
		switch {
		case len(d.Paths) == 0:
			s.mode = "sweep"
		case d.Sweeps() && s.mode != "sweep":
			s.mode = "part"
		case s.mode == "direct" && slices.ContainsFunc(d.Paths, func(p plan.Path) bool { return p.Lookup != nil }):
			s.mode = "lookup"
		}
	}
	if len(q.Parameters) == 0 {
		s.mode = "one key"
	}
	report.planned(s, s.mode)
	if s.mode == "sweep" || s.mode == "part" {
		for _, d := range s.dependencies {
			if d.Sweeps() {
				report.swept = append(report.swept, miss{len(g.sql), fmt.Sprintf("%v %s\n%s\n", s.classes, g.sql, told(s.dependencies))})
				break
			}
		}
	}
	s.keys = [][]string{nil}
	for _, of := range s.types {
		base := of.Base
		switch {
		case base == "enum":
			base = "mood"
		case strings.HasSuffix(of.Name, ".citext"):
			base = "citext"
		case of.Element != "":
			base = "_" + of.Element
		}
		domain := values[base]
		if domain == nil {
			return nil, nil // of a type that no column has
		}
		if other := strange[base]; other != "" {
			domain = append(slices.Clone(domain), other)
		}
		var more [][]string
		for _, key := range s.keys {
			for _, value := range domain {
				more = append(more, append(slices.Clone(key), value))
			}
		}
		s.keys = more
	}
	for i, key := range s.keys {
		s.place[strings.Join(key, "\x00")] = i
	}
	types := make([]string, len(s.types))
	for i, of := range s.types {
		types[i] = of.Name
	}
	order := " ORDER BY the_row::text"
	if g.ordered {
		order = ""
	}
	if _, err := conn.Exec(ctx, fmt.Sprintf("CREATE OR REPLACE FUNCTION %s(%s) RETURNS text LANGUAGE sql STABLE AS $f$ SELECT coalesce(json_agg(the_row%s)::text, '') FROM (\n%s\n) AS the_row $f$",
		s.function, strings.Join(types, ", "), order, q.SQL)); err != nil {
		report.invalid[err.Error()+": "+g.sql]++
		return nil, nil
	}
	return s, nil
}

// touched reports whether the changes are to tables that the query reads.
func (s *subject) touched(changes []row) bool {
	return slices.ContainsFunc(changes, func(c row) bool {
		return slices.ContainsFunc(s.dependencies, func(d plan.Dependency) bool { return d.Table == c.table })
	})
}

// evaluate returns what every query shows for every key. Those of which no table has
// changed, by PostgreSQL's own account of them, show what they did before.
func evaluate(ctx context.Context, conn *pgx.Conn, w *world, subjects []*subject, changes []row, before [][]string) ([][]string, error) {
	batch := &pgx.Batch{}
	for _, s := range subjects {
		if before != nil && !s.touched(changes) {
			continue
		}
		if len(s.types) == 0 {
			batch.Queue("SELECT " + s.function + "()")
			continue
		}
		var arrays, names, arguments []string
		var of []any
		for i, typ := range s.types {
			var column []string
			for _, key := range s.keys {
				column = append(column, key[i])
			}
			of = append(of, column)
			arrays = append(arrays, fmt.Sprintf("$%d::text[]", i+1))
			names = append(names, fmt.Sprintf("a%d", i))
			arguments = append(arguments, fmt.Sprintf("a%d::%s", i, typ.Name))
		}
		batch.Queue(fmt.Sprintf("SELECT %s(%s) FROM unnest(%s) WITH ORDINALITY AS a(%s, number) ORDER BY number",
			s.function, strings.Join(arguments, ", "), strings.Join(arrays, ", "), strings.Join(names, ", ")), of...)
	}
	answers := conn.SendBatch(ctx, batch)
	defer answers.Close()
	results := make([][]string, len(subjects))
	for i, s := range subjects {
		if before != nil && !s.touched(changes) {
			results[i] = before[i]
			continue
		}
		rows, err := answers.Query()
		if err != nil {
			return nil, fmt.Errorf("%w\n%s", err, s.generated.sql)
		}
		if results[i], err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
			return nil, fmt.Errorf("%w\n%s", err, s.generated.sql)
		}
		for k := range results[i] {
			// 1 and 1.0 are equal: which of two equal ones comes first, or stands for a
			// group, is not said.
			results[i][k] = equals.Replace(results[i][k])
			if w.folds {
				results[i][k] = strings.ToLower(results[i][k])
			}
		}
	}
	return results, nil
}

// equals gives those numbers of values that are equal one text.
var equals = strings.NewReplacer("1.00", "1", "1.0", "1", "3.00", "3")

// A row is a change of one.
type row struct {
	table     string
	old, new  map[string]*string
	truncated bool
}

func (c row) String() string {
	if c.truncated {
		return c.table + " truncated"
	}
	return fmt.Sprintf("%s %s -> %s", c.table, tellRow(c.old), tellRow(c.new))
}

func tellRow(of map[string]*string) string {
	if of == nil {
		return "nothing"
	}
	var parts []string
	for name, value := range of {
		if value == nil {
			parts = append(parts, name+"=NULL")
		} else {
			parts = append(parts, name+"="+*value)
		}
	}
	slices.Sort(parts)
	return "(" + strings.Join(parts, " ") + ")"
}

// dump tells the rows of every table.
func dump(ctx context.Context, conn *pgx.Conn, w *world, into map[string]string) error {
	batch := &pgx.Batch{}
	for _, t := range w.tables {
		batch.Queue("SELECT coalesce(string_agg(r::text, ' '), '') FROM ONLY " + t.name + " r").QueryRow(func(row pgx.Row) error {
			var text string
			err := row.Scan(&text)
			into[t.name] = text
			return err
		})
	}
	return conn.SendBatch(ctx, batch).Close()
}

// read takes the changes from the log.
func read(ctx context.Context, conn *pgx.Conn) ([]row, error) {
	rows, err := conn.Query(ctx, "WITH taken AS (DELETE FROM changes RETURNING *) SELECT relation, old::text, new::text, truncated IS TRUE FROM taken ORDER BY number")
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(from pgx.CollectableRow) (row, error) {
		var c row
		var old, new *string
		if err := from.Scan(&c.table, &old, &new, &c.truncated); err != nil {
			return c, err
		}
		var err1, err2 error
		c.old, err1 = parse(old)
		c.new, err2 = parse(new)
		return c, errors.Join(err1, err2)
	})
}

// parse reads a row of the log.
func parse(text *string) (row map[string]*string, err error) {
	if text != nil {
		err = json.Unmarshal([]byte(*text), &row)
	}
	return row, err
}

// drops are the keys that the changes of one transaction drop.
type drops struct {
	all  bool
	some map[int]bool
}

func (d *drops) has(key int) bool { return d.all || d.some[key] }

// drops says for each transaction what its changes drop, once the lookups have run.
// It is what the planner does where the log shows all of a row, as plainly as it can be
// said.
// ask answers a lookup for rows that a transaction has changed.
func (s *subject) drops(dependencies []plan.Dependency, transactions [][]row, ask func(transaction int, of *plan.Lookup, rows []map[string]*string, into *drops)) []*drops {
	var result []*drops
	for number, changes := range transactions {
		d := &drops{some: map[int]bool{}}
		result = append(result, d)
		for i := range dependencies {
			of := &dependencies[i]
			asks := make([][]map[string]*string, len(of.Paths))
			for _, c := range changes {
				if c.table != of.Table {
					continue
				}
				if c.truncated {
					d.all = true
					continue
				}
				if c.old != nil && c.new != nil && spared(of, c) {
					continue
				}
				for _, version := range []map[string]*string{c.old, c.new} {
					if version == nil || !passes(of.Where, version) {
						continue
					}
					if len(of.Paths) == 0 {
						d.all = true
					}
					for p, path := range of.Paths {
						if path.Lookup != nil {
							asks[p] = append(asks[p], version)
							continue
						}
						for at, key := range s.keys {
							if leads(path.Key, version, key) {
								d.some[at] = true
							}
						}
					}
				}
			}
			for p, path := range of.Paths {
				if len(asks[p]) > 0 {
					ask(number, path.Lookup, asks[p], d)
				}
			}
		}
	}
	return result
}

// leads reports whether the columns of a row have the values of a key; an empty one is
// not known, and has any.
func leads(columns []string, row map[string]*string, key []string) bool {
	for i, name := range columns {
		if name != "" && (row[name] == nil || *row[name] != key[i]) {
			return false
		}
	}
	return true
}

// spared reports whether an update does nothing: it touches no column that matters, or
// only such that filters read, and leaves what those say.
func spared(of *plan.Dependency, c row) bool {
	for _, name := range of.Columns {
		if !same(c.old[name], c.new[name]) && !slices.Contains(of.Filtering, name) {
			return false
		}
	}
	return !slices.ContainsFunc(of.Filters, func(p plan.Predicate) bool {
		before, after := outcomes(&p, c.old), outcomes(&p, c.new)
		return len(before) != 1 || !slices.Equal(before, after)
	})
}

func same(a, b *string) bool { return a == nil && b == nil || a != nil && b != nil && *a == *b }

// passes reports whether a row may satisfy p, by SQL's logic of three values.
func passes(p *plan.Predicate, row map[string]*string) bool {
	return p == nil || slices.Contains(outcomes(p, row), yes)
}

// What a predicate may be.
const (
	no = iota
	null
	yes
)

// outcomes are all that a predicate may be. AND is the least of its parts, OR the
// greatest.
func outcomes(p *plan.Predicate, row map[string]*string) []int {
	is := func(b bool) []int {
		if b {
			return []int{yes}
		}
		return []int{no}
	}
	switch p.Op {
	case plan.Undecidable:
		return []int{no, null, yes}
	case plan.Not:
		var not []int
		for _, one := range outcomes(&p.Args[0], row) {
			not = append(not, yes-one)
		}
		return not
	case plan.And, plan.Or:
		all := outcomes(&p.Args[0], row)
		for i := range p.Args[1:] {
			var next []int
			for _, a := range all {
				for _, b := range outcomes(&p.Args[i+1], row) {
					if (p.Op == plan.And) == (a < b) {
						next = append(next, a)
					} else {
						next = append(next, b)
					}
				}
			}
			all = next
		}
		return all
	}
	value := row[p.Column]
	switch {
	case p.Op == plan.IsNull:
		return is(value == nil)
	case p.Op == plan.IsTrue:
		return is(value != nil && *value == "t")
	case p.Op == plan.IsFalse:
		return is(value != nil && *value == "f")
	case value == nil:
		return []int{null}
	case p.Op == plan.Among:
		return is(slices.Contains(p.Values, *value))
	}
	n, err := strconv.ParseInt(*value, 10, 64)
	if err != nil {
		return []int{no, null, yes}
	}
	return is(n < p.Number || p.Op == plan.LessOrEqual && n == p.Number)
}

// lookups are statements that run together.
type lookups struct {
	batch pgx.Batch
}

func (l *lookups) ask(s *subject, of *plan.Lookup, rows []map[string]*string, into *drops) {
	arguments := make([]any, len(of.Arguments))
	for i, argument := range of.Arguments {
		var column []*string
		for _, row := range rows {
			column = append(column, row[argument.Column])
		}
		arguments[i] = column
	}
	l.batch.Queue(of.SQL, arguments...).Query(func(found pgx.Rows) error {
		for found.Next() {
			var key []string
			for _, value := range found.RawValues() {
				if value == nil {
					key = nil
					break
				}
				key = append(key, string(value))
			}
			if at, ok := s.place[strings.Join(key, "\x00")]; ok && key != nil {
				into.some[at] = true
			}
		}
		if refused, ok := errors.AsType[*pgconn.PgError](found.Err()); ok {
			return fmt.Errorf("a lookup: %w\n%s\n%s", refused, s.generated.sql, of.SQL)
		}
		return found.Err()
	})
}

func (l *lookups) run(ctx context.Context, conn *pgx.Conn) error {
	if l.batch.Len() == 0 {
		return nil
	}
	return conn.SendBatch(ctx, &l.batch).Close()
}
