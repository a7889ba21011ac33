package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/database"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
	"github.com/unstale/unstale/internal/query"
)

// A cached is an entry over a query.
type cached struct{ name, key, query string }

// derive plans entries over queries, as the service does at its start.
func (b *bench) derive(ctx context.Context, all []cached) ([]plan.Entry, error) {
	queries := database.NewQueries(ctx, b.conn)
	entries, found := make([]plan.Entry, len(all)), make([]database.Derived, len(all))
	for i, one := range all {
		template, err := guard.ParseTemplate(one.key)
		if err != nil {
			return nil, err
		}
		q, err := query.Parse(one.query)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", one.query, err)
		}
		types, err := queries.Parameters(q)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", one.query, err)
		}
		dependencies, err := q.Derive(queries, types, template.Columns())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", one.query, err)
		}
		found[i] = database.Derived{Query: q, Types: types, Dependencies: dependencies}
		entries[i] = plan.Entry{Name: one.name, Key: template, Lease: guard.Lease, Query: one.query, Dependencies: dependencies}
	}
	return entries, errors.Join(queries.Verify(found)...)
}

// shop makes the tables of the queries: categories and the wares in them.
func (b *bench) shop(ctx context.Context) error {
	if b.shopped {
		return nil
	}
	b.shopped = true
	return b.exec(ctx,
		`CREATE TABLE categories (id int PRIMARY KEY, name text NOT NULL, note text)`,
		`CREATE TABLE wares (id int PRIMARY KEY, category_id int NOT NULL, name text NOT NULL, price numeric(10,2) NOT NULL, stock int NOT NULL, sold boolean NOT NULL)`,
		`ALTER TABLE categories REPLICA IDENTITY FULL`, `ALTER TABLE wares REPLICA IDENTITY FULL`,
		`INSERT INTO categories SELECT i, 'category ' || i FROM generate_series(0, 10000) i`,
		`INSERT INTO wares SELECT i, 1 + i % 10000, 'ware ' || i, 1, 5, false FROM generate_series(1, 50000) i`,
		`CREATE INDEX ON wares (category_id)`,
		`CREATE TABLE shelves (id int PRIMARY KEY, category_id int NOT NULL UNIQUE)`, `ALTER TABLE shelves REPLICA IDENTITY FULL`,
		`INSERT INTO shelves SELECT i, i FROM generate_series(1, 10000) i`,
		`CREATE PROCEDURE rename_one_by_one(first int, last int, among int) LANGUAGE plpgsql AS $$
		BEGIN
			FOR i IN first .. last LOOP
				UPDATE categories SET name = 'name ' || txid_current() WHERE id = 1 + (i * 7919) % among;
				COMMIT;
			END LOOP;
		END $$`,
		`VACUUM ANALYZE categories`, `VACUUM ANALYZE wares`, `VACUUM ANALYZE shelves`,
		`ALTER PUBLICATION bench ADD TABLE categories, wares, shelves`)
}

// benchPlan has the planner plan one change again and again.
func benchPlan(ctx context.Context, b *bench) error {
	if err := b.shop(ctx); err != nil {
		return err
	}
	var all []cached
	for i := range 20 {
		one := cached{name: fmt.Sprint("ware", i), key: fmt.Sprintf("ware%d:{id}", i), query: "SELECT id, name FROM wares WHERE id = @id"}
		switch i % 4 {
		case 1:
			one.key, one.query = fmt.Sprintf("list%d:{category}", i), "SELECT id, name FROM wares WHERE category_id = @category AND NOT sold ORDER BY name LIMIT 50"
		case 2:
			one.query = "SELECT w.id, w.name, c.name AS category FROM wares w JOIN categories c ON c.id = w.category_id WHERE w.id = @id"
		case 3:
			one.key, one.query = fmt.Sprintf("count%d:{category}", i), "SELECT count(*), max(name) FROM wares WHERE category_id = @category AND price < 100"
		}
		all = append(all, one)
	}
	entries, err := b.derive(ctx, all)
	if err != nil {
		return err
	}
	// Of these the change is seen, and its rows pass nowhere.
	for i := range all {
		all[i].query = "SELECT id, name FROM wares WHERE id = @id AND sold AND stock < 100"
		all[i].key = fmt.Sprintf("spared%d:{id}", i)
	}
	spared, err := b.derive(ctx, all)
	if err != nil {
		return err
	}
	// Of these only the first shows it.
	for i := range all {
		all[i].query = "SELECT id, price FROM wares WHERE id = @id"
		all[i].key = fmt.Sprintf("one%d:{id}", i)
	}
	all[0].query = "SELECT id, name FROM wares WHERE id = @id"
	one, err := b.derive(ctx, all)
	if err != nil {
		return err
	}
	// The parent of each ware that is renamed has to be found.
	for i := range all {
		all[i].query = "SELECT w.id, c.name FROM wares w JOIN categories c ON c.id = w.category_id WHERE w.id = @id"
		all[i].key = fmt.Sprintf("found%d:{id}", i)
	}
	found, err := b.derive(ctx, all)
	if err != nil {
		return err
	}

	wares := []string{"id", "category_id", "name", "price", "stock", "sold"}
	ware := []string{"4711", "123", "ware 4711", "12.50", "5", "f"}
	free := &goal{"0", func(r *result) bool { return r.Ours < allocationsNone }}
	quick := below(500, "ns")
	for _, of := range []struct {
		what           string
		entries        []plan.Entry
		table          string
		columns        []string
		before, after  []string
		nanos, nothing *goal
	}{
		{"shows in no result", entries, "wares", wares, ware, with(ware, 4, "6"), quick, free},
		{"passes no predicate", spared, "wares", wares, ware, with(ware, 2, "other"), quick, free},
		{"a key", one, "wares", wares, ware, with(ware, 2, "other"), quick, free},
		{"20 keys", entries, "wares", wares, ware, with(ware, 2, "other"), quick, free},
		{"20 questions", found, "categories", []string{"id", "name", "note"}, []string{"4711", "a", "n"}, []string{"4711", "b", "n"}, nil, nil},
	} {
		var nanos, allocations []float64
		for range b.sizes.Runs {
			n, a := planAgain(of.entries, of.table, of.columns, of.before, of.after)
			nanos, allocations = append(nanos, n), append(allocations, a)
		}
		b.report.add("plan: an update, 20 entries: "+of.what, "ns", nanos, "", nil, of.nanos)
		b.report.add("plan: an update, 20 entries: "+of.what, "allocations", allocations, "", nil, of.nothing)
	}
	return nil
}

func with(row []string, at int, text string) []string {
	changed := append([]string{}, row...)
	changed[at] = text
	return changed
}

// planAgain returns the nanoseconds and allocations of one update of one row.
func planAgain(entries []plan.Entry, table string, columns, before, after []string) (nanos, allocations float64) {
	planner := plan.New(entries)
	r := &change.Relation{OID: 1, Schema: "public", Name: table, Identity: change.IdentityFull}
	for _, column := range columns {
		r.Columns = append(r.Columns, change.Column{Name: column, TypeOID: 25, TypeMod: -1, Identifies: true})
	}
	r.Wanted = planner.Compile(r)
	row := func(texts []string) change.Row {
		row := change.Row{Kind: change.Whole}
		for _, at := range r.Wanted {
			row.Values = append(row.Values, change.Value{State: change.Text, Text: []byte(texts[at])})
		}
		return row
	}
	c := &change.Change{Op: change.Update, Relation: r, XID: 1, LSN: 1, Position: change.Position{Timeline: 1, LSN: 1}, Old: row(before), New: row(after)}
	batch := plan.NewBatch()
	// Another row each time, or all but the first would find their keys in the batch.
	number := 0
	once := func() {
		number++
		for _, values := range [][]change.Value{c.Old.Values, c.New.Values} {
			for at, digits := 0, number; at < len(values[0].Text); at++ {
				values[0].Text[at] = byte('0' + digits%10)
				digits /= 10
			}
		}
		planner.Plan(c, batch)
		if batch.Full() {
			batch.Reset()
		}
	}
	const warm, times = 10_000, 300_000
	for range warm {
		once()
	}
	runtime.GC()
	var memory, then runtime.MemStats
	runtime.ReadMemStats(&memory)
	// Whatever else the machine does is not our cost.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	began := threadTime()
	for range times {
		once()
	}
	took := threadTime() - began
	runtime.ReadMemStats(&then)
	return float64(took.Nanoseconds()) / times, float64(then.Mallocs-memory.Mallocs) / times
}

// threadTime is the processor time that the calling thread has used.
func threadTime() time.Duration {
	var used syscall.Rusage
	const rusageThread = 1 // RUSAGE_THREAD of Linux
	if err := syscall.Getrusage(rusageThread, &used); err != nil {
		panic(fmt.Sprintf("getrusage: %v", err))
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// queriesAtStart is how many entries benchQueries plans.
const queriesAtStart = 1000

// benchQueries parses, plans and verifies queries as applications have them.
func benchQueries(ctx context.Context, b *bench) error {
	if err := b.shop(ctx); err != nil {
		return err
	}
	shapes := []string{
		"SELECT id, name, price FROM wares WHERE id = @id AND stock > %d",
		"SELECT w.id, w.name, c.name AS category FROM wares w JOIN categories c ON c.id = w.category_id WHERE w.id = @id AND w.stock > %d",
		"SELECT id, name FROM wares WHERE category_id = @id AND NOT sold AND stock > %d ORDER BY name LIMIT 50",
		"SELECT c.name, count(*), sum(w.price) FROM categories c LEFT JOIN wares w ON w.category_id = c.id AND w.stock > %d WHERE c.id = @id GROUP BY c.name",
		"SELECT c.id, c.name FROM categories c WHERE c.id = @id AND EXISTS (SELECT FROM wares w WHERE w.category_id = c.id AND w.stock > %d)",
		"WITH cheap AS (SELECT * FROM wares WHERE price < %d) SELECT p.id, p.name, o.id AS other FROM products p JOIN cheap o ON o.category_id = p.category_id WHERE p.id = @id",
	}
	var all []cached
	for i := range queriesAtStart {
		all = append(all, cached{name: fmt.Sprint("entry", i), key: fmt.Sprintf("entry%d:{id}", i), query: fmt.Sprintf(shapes[i%len(shapes)], i)})
	}
	var seconds, new []float64
	var runs []drained
	for range b.sizes.Runs {
		before, err := b.cpuNow()
		if err != nil {
			return err
		}
		began := time.Now()
		entries, err := b.derive(ctx, all)
		if err != nil {
			return err
		}
		seconds = append(seconds, time.Since(began).Seconds())
		after, err := b.cpuNow()
		if err != nil {
			return err
		}
		runs = append(runs, drained{cpu: after.since(before)})
		began = time.Now()
		planner := plan.New(entries)
		for i, table := range []string{"wares", "categories", "products"} {
			planner.Compile(&change.Relation{Number: i, OID: uint32(i), Schema: "public", Name: table, Identity: change.IdentityFull, Columns: []change.Column{{Name: "id"}, {Name: "category_id"}, {Name: "name"}}})
		}
		new = append(new, time.Since(began).Seconds()*1e3)
	}
	b.report.add("queries: 1,000 parsed, planned and verified", "s", seconds, "", nil, below(2, "s"))
	b.cost("queries: an entry", queriesAtStart, runs)
	b.report.add("queries: compiled for 3 tables", "ms", new, "", nil, nil)
	return nil
}

// lookupEntries each need one lookup for a change of a category.
const lookupEntries = 10

// statement is one that a finder has run.
type statement struct {
	lookup    int
	arguments [][]*string
}

// A recorder is a finder that remembers what it has run.
type recorder struct {
	*database.Finder
	statements []statement
	questions  int
}

func (r *recorder) Find(ctx context.Context, lookup int, arguments [][]*string, each func([][]byte) error) (uint64, error) {
	kept := make([][]*string, len(arguments)) // the loop's own are used again
	for i, column := range arguments {
		for _, text := range column {
			if text != nil {
				text = new(strings.Clone(*text))
			}
			kept[i] = append(kept[i], text)
		}
	}
	r.statements = append(r.statements, statement{lookup, kept})
	r.questions += len(arguments[0])
	return r.Finder.Find(ctx, lookup, arguments, each)
}

// benchLookups has the whole loop apply single-row transactions, each of which
// has ten lookups asked, and then has the very statements that it ran run alone.
func benchLookups(ctx context.Context, b *bench) error {
	if err := b.shop(ctx); err != nil {
		return err
	}
	for _, of := range []struct{ table, keys string }{{"shelves", "one key"}, {"wares", "five keys"}} {
		if err := b.lookups(ctx, of.table, of.keys); err != nil {
			return err
		}
	}
	return b.lookupsByIndex(ctx)
}

// lookups measures those through a table, which has so many rows of each category.
func (b *bench) lookups(ctx context.Context, table, keys string) error {
	var all []cached
	for i := range lookupEntries {
		all = append(all, cached{
			name: fmt.Sprint("page", i), key: fmt.Sprintf("page%d:{id}", i),
			query: fmt.Sprintf("SELECT t.id, c.name FROM %s t JOIN categories c ON c.id = t.category_id WHERE t.id = @id", table),
		})
	}
	entries, err := b.derive(ctx, all)
	if err != nil {
		return err
	}
	var texts []string
	for _, lookup := range plan.New(entries).Lookups() {
		texts = append(texts, lookup.SQL)
	}
	config, err := pgx.ParseConfig(b.postgres.URL())
	if err != nil {
		return err
	}
	slots, err := b.newSlots(ctx, b.sizes.Runs)
	if err != nil {
		return err
	}
	for _, slot := range slots {
		if err := b.settle(ctx, slot); err != nil {
			return err
		}
	}
	changes := b.sizes.Lookups
	b.say(fmt.Sprintf("writing %s transactions that ten lookups follow from", thousands(int64(changes))))
	if err := b.exec(ctx, "SET synchronous_commit = off", fmt.Sprintf("CALL rename_one_by_one(1, %d, 10000)", changes), "SET synchronous_commit = on",
		"UPDATE categories SET note = 'flushed' WHERE id = 0", "CHECKPOINT"); err != nil {
		return err
	}
	var ours, alone, perThousand, perStatement []float64
	var costs []drained
	for i, slot := range slots {
		b.say(fmt.Sprintf("looking up, run %d of %d", i+1, b.sizes.Runs))
		finder := &recorder{Finder: database.NewFinder(config, texts, nil)}
		watcher := newWatcher(changes)
		runtime.GC()
		before, err := b.cpuNow()
		if err != nil {
			return err
		}
		err = b.profile.during(fmt.Sprintf("lookups-%s-%d", table, i+1), func() error {
			began := time.Now()
			r, err := b.runFinding(ctx, slot, watcher, finder, entries...)
			if err != nil {
				return err
			}
			err = watcher.await(ctx, r)
			ours = append(ours, float64(changes)/time.Since(began).Seconds())
			return errors.Join(err, r.stop())
		})
		if err != nil {
			return err
		}
		after, err := b.cpuNow()
		if err != nil {
			return err
		}
		costs = append(costs, drained{cpu: after.since(before)})
		if finder.questions == 0 {
			return errors.New("nothing was looked up")
		}
		began := time.Now()
		rows := 0
		for _, s := range finder.statements {
			if _, err := finder.Finder.Find(ctx, s.lookup, s.arguments, func([][]byte) error { rows++; return nil }); err != nil {
				return err
			}
		}
		alone = append(alone, float64(changes)/time.Since(began).Seconds())
		finder.Close()
		perThousand = append(perThousand, float64(len(finder.statements))*1000/float64(changes))
		perStatement = append(perStatement, float64(finder.questions)/float64(len(finder.statements)))
		if rows == 0 {
			return errors.New("nothing was found")
		}
	}
	b.cost("lookups: a change, "+keys+" each", changes, costs)
	b.report.add("lookups: changes with ten lookups, "+keys+" each", "changes/s", ours, "the same statements alone, from one connection", alone, ratioAtLeast(0.6))
	b.report.add("lookups: statements", "a thousand changes", perThousand, "", nil, nil)
	b.report.add("lookups: questions", "a statement", perStatement, "", nil, nil)
	return b.dropSlots(ctx, slots)
}

// benchFanOut has the built binary apply one change that very many keys hang on.
func benchFanOut(ctx context.Context, b *bench) (err error) {
	keys := b.sizes.FanOut
	b.say(fmt.Sprintf("filling a table with %s rows of one category", thousands(int64(keys))))
	if err := b.exec(ctx,
		`CREATE TABLE IF NOT EXISTS makers (id int PRIMARY KEY, name text NOT NULL)`, `ALTER TABLE makers REPLICA IDENTITY FULL`,
		`CREATE TABLE IF NOT EXISTS parts (id int PRIMARY KEY, maker_id int NOT NULL)`, `ALTER TABLE parts REPLICA IDENTITY FULL`,
		`INSERT INTO makers VALUES (1, 'm'), (2, 'n')`,
		fmt.Sprintf(`INSERT INTO parts SELECT i, 1 FROM generate_series(1, %d) i`, keys),
		`CREATE INDEX ON parts (maker_id)`, `VACUUM ANALYZE parts`); err != nil {
		return err
	}
	s, err := b.startService(ctx, `source: {postgres: {slot: bench_fanout, publication: bench_fanout}}
entries:
  part:
    key: part:{id}
    query: SELECT p.id, m.name FROM parts p JOIN makers m ON m.id = p.maker_id WHERE p.id = @id
`)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	if err := s.ready(ctx); err != nil {
		return err
	}
	idle, err := peakMemory(s.pid())
	if err != nil {
		return err
	}
	var ours, alone, small []float64
	var oursCost, aloneCost []drained
	// spent runs do and notes what it took.
	spent := func(costs *[]drained, service bool, do func() error) error {
		before, err := b.cpuNow()
		if err != nil {
			return err
		}
		began, err := treeTime(s.pid())
		if err == nil {
			err = do()
		}
		if err != nil {
			return err
		}
		after, err := b.cpuNow()
		if err != nil {
			return err
		}
		d := drained{cpu: after.since(before)}
		if service {
			ended, err := treeTime(s.pid())
			if err != nil {
				return err
			}
			d.cpu.reader = ended - began
		}
		*costs = append(*costs, d)
		return nil
	}
	for i := range b.sizes.Runs {
		b.say(fmt.Sprintf("fanning out, run %d of %d", i+1, b.sizes.Runs))
		left, err := b.fill(ctx, "part:", keys)
		if err != nil {
			return err
		}
		// The change counts as applied while its keys go.
		gone := func() error {
			for {
				n, err := b.rdb.DBSize(ctx).Result()
				if err != nil || n == left {
					return err
				}
				select {
				case <-s.ended:
					return fmt.Errorf("unstale ended early: %w\n%s", errors.Join(s.err, errShort), s.log.String())
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(2 * time.Millisecond):
				}
			}
		}
		began := time.Now()
		err = spent(&oursCost, true, func() error {
			if err := b.exec(ctx, fmt.Sprintf("UPDATE makers SET name = 'name %d' WHERE id = 1", i)); err != nil {
				return err
			}
			return gone()
		})
		if err != nil {
			return err
		}
		ours = append(ours, float64(keys)/time.Since(began).Seconds())

		if _, err := b.fill(ctx, "part:", keys); err != nil {
			return err
		}
		began = time.Now()
		if err := spent(&aloneCost, false, func() error { return b.unlinkHundreds(ctx, "part:", keys) }); err != nil {
			return err
		}
		alone = append(alone, float64(keys)/time.Since(began).Seconds())
		if err := b.expectKeys(ctx, left); err != nil {
			return err
		}

		// What others change meanwhile.
		if _, err := b.fill(ctx, "part:", keys); err != nil {
			return err
		}
		if err := b.exec(ctx, fmt.Sprintf("UPDATE makers SET name = 'again %d' WHERE id = 1", i)); err != nil {
			return err
		}
		if err := b.rdb.Set(ctx, "part:0", "x", 0).Err(); err != nil {
			return err
		}
		began = time.Now()
		if err := b.exec(ctx, "INSERT INTO parts VALUES (0, 2)"); err != nil {
			return err
		}
		for {
			n, err := b.rdb.Exists(ctx, "part:0").Result()
			if err != nil {
				return err
			}
			if n == 0 {
				break
			}
			time.Sleep(time.Millisecond)
		}
		small = append(small, time.Since(began).Seconds()*1e3)
		if err := b.exec(ctx, "DELETE FROM parts WHERE id = 0"); err != nil {
			return err
		}
		if err := gone(); err != nil {
			return err
		}
	}
	peak, err := peakMemory(s.pid())
	if err != nil {
		return err
	}
	what := fmt.Sprintf("fanout: %s keys of one change", thousands(int64(keys)))
	b.report.add(what, "keys/s", ours, "UNLINK, pipelined, 100 keys a command", alone, ratioAtLeast(0.6))
	b.cost("fanout: a key", keys, oursCost)
	b.cost("fanout: UNLINK, pipelined, a key", keys, aloneCost)
	b.report.add("fanout: a small change beside it, until its key is gone", "ms", small, "", nil, nil)
	b.report.add("fanout: peak memory", "MB", []float64{peak}, "peak before it", []float64{idle}, below(100, "MB"))
	return nil
}

// unlinkHundreds drops the keys 1 to n, a hundred with each command.
func (b *bench) unlinkHundreds(ctx context.Context, prefix string, n int) error {
	const perCommand, perPipeline = 100, 10
	for next := 1; next <= n; {
		pipe := b.rdb.Pipeline()
		for range perPipeline {
			var keys []string
			for ; len(keys) < perCommand && next <= n; next++ {
				keys = append(keys, fmt.Sprint(prefix, next))
			}
			if len(keys) > 0 {
				pipe.Unlink(ctx, keys...)
			}
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return fmt.Errorf("unlink: %w", err)
		}
	}
	return nil
}
