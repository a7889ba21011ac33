package e2e

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/unstale/unstale"
)

// conformTables are alike but for their replica identity: of goods a change shows
// the whole old row.
var conformTables = []string{"products", "goods"}

// conformClasses are the kinds of entries, and what the configuration says of each.
var conformClasses = map[string]string{
	"invalidate": "",
	"update":     ", on_change: update",
	"warm":       ", on_change: warm",
	"refresh":    ", on_change: refresh",
	"hash":       ", on_change: warm, format: hash",
	"few":        ", on_change: warm, columns: [price, id]",
}

const conformCreate = `CREATE TABLE %[1]s (id int PRIMARY KEY, name text, price numeric(10,2), n int NOT NULL, at timestamptz);
	ALTER TABLE %[1]s ALTER name SET STORAGE EXTERNAL;
	INSERT INTO %[1]s SELECT i, 'first ' || i, i, 0, '2026-01-01T00:00:00Z' FROM generate_series(1, 8) i`

var conformLong = strings.Repeat("long ", 10_000)

// An act is a step of the story, told of each table in turn (%[1]s).
type act struct {
	name string
	each []string
	// alters: the shape is another one. Until a look at the catalog has shown that,
	// only what was changed since is compared.
	alters bool
	// sweeps: which keys are cached behind it depends on when they were swept.
	sweeps bool
	// returns: a key goes and comes again in one transaction. What sets only cached keys
	// keeps it if one batch has both, whatever the source.
	returns bool
}

var story = []act{
	{name: "rows are inserted", each: []string{`INSERT INTO %[1]s VALUES (11, 'a "b"', 1, 1, now()), (12, NULL, NULL, 1, NULL), (13, '', 'NaN', 1, '-infinity')`}},
	{name: "rows are updated", each: []string{`UPDATE %[1]s SET price = price + 0.5, name = name || '!' WHERE id < 4`}},
	{name: "a NULL comes and goes", each: []string{`UPDATE %[1]s SET name = CASE WHEN name IS NULL THEN 'there' END, at = NULL WHERE id IN (1, 12)`}},
	{name: "a key moves", each: []string{`UPDATE %[1]s SET id = 21 WHERE id = 1`}},
	{name: "keys trade places", each: []string{`BEGIN`, `UPDATE %[1]s SET id = 99 WHERE id = 2`, `UPDATE %[1]s SET id = 2 WHERE id = 3`, `UPDATE %[1]s SET id = 3 WHERE id = 99`, `COMMIT`}, returns: true},
	{name: "a row is deleted", each: []string{`DELETE FROM %[1]s WHERE id = 21`}},
	{name: "a row is deleted and comes again, in one transaction", each: []string{`BEGIN`, `DELETE FROM %[1]s WHERE id = 4`, `INSERT INTO %[1]s VALUES (4, 'again', 4, 4, NULL)`, `COMMIT`}, returns: true},
	{name: "a row comes and goes, in one transaction", each: []string{`BEGIN`, `INSERT INTO %[1]s VALUES (31, 'short', 1, 1, NULL)`, `UPDATE %[1]s SET n = 2 WHERE id = 31`, `DELETE FROM %[1]s WHERE id = 31`, `COMMIT`}},
	{name: "several statements change one row", each: []string{`BEGIN`, `UPDATE %[1]s SET n = n + 1 WHERE id = 5`, `UPDATE %[1]s SET n = n + 1 WHERE id = 5`, `UPDATE %[1]s SET n = n + 1 WHERE id IN (5, 6)`, `COMMIT`}},
	{name: "a part is rolled back", each: []string{`BEGIN`, `UPDATE %[1]s SET n = 50 WHERE id = 5`, `SAVEPOINT s`, `UPDATE %[1]s SET n = 60 WHERE id = 6`, `ROLLBACK TO s`, `COMMIT`}},
	{name: "all is rolled back", each: []string{`BEGIN`, `UPDATE %[1]s SET n = 70`, `DELETE FROM %[1]s`, `ROLLBACK`}},
	{name: "a long value comes", each: []string{`UPDATE %[1]s SET name = '` + conformLong + `' WHERE id = 7`}},
	{name: "a long value is left alone", each: []string{`UPDATE %[1]s SET price = 77.7 WHERE id = 7`}},
	{name: "a key moves and leaves a long value alone", each: []string{`UPDATE %[1]s SET id = 77 WHERE id = 7`}},
	{name: "a transaction of many rows", each: []string{`INSERT INTO %[1]s SELECT i, 'many', i, 0, NULL FROM generate_series(1001, 1400) i`}},
	{name: "many rows are deleted", each: []string{`DELETE FROM %[1]s WHERE id > 1000`}},
	{name: "the table is emptied and filled", each: []string{`BEGIN`, `INSERT INTO %[1]s VALUES (41, 'before', 1, 1, NULL)`, `TRUNCATE %[1]s`, `INSERT INTO %[1]s SELECT i, 'second ' || i, i, 0, now() FROM generate_series(1, 6) i`, `COMMIT`}, sweeps: true},
	{name: "a column is added", each: []string{`ALTER TABLE %[1]s ADD added text`, `UPDATE %[1]s SET n = n + 1, added = 'x' WHERE id = 1`}, alters: true, sweeps: true},
	{name: "a column with a default is added", each: []string{`ALTER TABLE %[1]s ADD more int DEFAULT 7`, `UPDATE %[1]s SET n = n + 1, more = more + id - 1 WHERE id <= 2`}, alters: true, sweeps: true},
	{name: "a column is dropped", each: []string{`ALTER TABLE %[1]s DROP added`, `UPDATE %[1]s SET n = n + 1 WHERE id = 1`}, alters: true, sweeps: true},
	{name: "a column is renamed", each: []string{`ALTER TABLE %[1]s RENAME name TO title`, `UPDATE %[1]s SET n = n + 1 WHERE id = 1`}, alters: true, sweeps: true},
	{name: "a column is widened", each: []string{`ALTER TABLE %[1]s ALTER n TYPE bigint`, `UPDATE %[1]s SET n = n + 10000000000 WHERE id = 1`}, alters: true, sweeps: true},
	{name: "a column is made nullable", each: []string{`ALTER TABLE %[1]s ALTER n DROP NOT NULL`, `UPDATE %[1]s SET n = NULL WHERE id = 1`, `UPDATE %[1]s SET n = 5 WHERE id = 2`}, alters: true, sweeps: true},
	{name: "the table is emptied", each: []string{`TRUNCATE %[1]s`}},
}

// A conformist goes through the story with one source.
type conformist struct {
	*fixture
	*instance
	follow func() // until everything committed has been applied
	// kept are the keys that were cached behind each act.
	kept [][]string
}

// Whatever the source, the same story leaves the same bytes. Where what Debezium
// sends does not tell a value for certain a key is absent that would be there
// otherwise, and never another way round.
func TestConformance(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	played := map[string]*conformist{}
	t.Run("source", func(t *testing.T) {
		play := func(name string, start func(t *testing.T) *conformist) {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				c := start(t)
				c.play()
				mu.Lock()
				defer mu.Unlock()
				played[name] = c
			})
		}
		play("the log", func(t *testing.T) *conformist {
			f := newFixture(t, 15)
			f.conformTables()
			i := startInstance(t, f.config(conformEntries()))
			i.waitReady()
			return &conformist{fixture: f, instance: i, follow: f.barrier}
		})
		for _, format := range []format{avro, jsonWithSchemas, jsonPlain} {
			play(format.String(), func(t *testing.T) *conformist {
				f := newTopicFixture(t, 15, format)
				f.conformTables()
				f.followed = conformTables
				f.connectDebezium()
				i := startInstance(t, f.config(conformEntries()))
				i.waitReady()
				f.barrier()
				return &conformist{fixture: f.fixture, instance: i, follow: f.barrier}
			})
		}
	})
	direct := played["the log"]
	if direct == nil {
		t.Fatal("nothing to compare with")
	}
	for _, name := range slices.Sorted(maps.Keys(played)) {
		fewer, all := map[string]int{}, map[string]int{}
		for n, kept := range played[name].kept {
			for _, key := range kept {
				if returned := story[n].returns && strings.Contains(key, ":update:"); !slices.Contains(direct.kept[n], key) && !story[n].sweeps && !returned {
					t.Errorf("%s: behind %q %s is cached, with the log it is not", name, story[n].name, key)
				}
			}
			var missing []string
			for _, key := range direct.kept[n] {
				class := key[:strings.LastIndexByte(key, ':')]
				all[class]++
				if !slices.Contains(kept, key) {
					fewer[class]++
					missing = append(missing, key)
				}
			}
			if len(missing) > 0 {
				t.Logf("%s: behind %q not cached: %s", name, story[n].name, strings.Join(missing, " "))
			}
		}
		for _, class := range slices.Sorted(maps.Keys(all)) {
			t.Logf("%s: %s: %d of %d keys fewer", name, class, fewer[class], all[class])
		}
	}
}

func (f *fixture) conformTables() {
	f.t.Helper()
	for _, table := range conformTables {
		f.exec(fmt.Sprintf(conformCreate, table))
	}
	f.exec("ALTER TABLE goods REPLICA IDENTITY FULL")
}

func conformEntries() string {
	var b strings.Builder
	for _, table := range conformTables {
		for _, class := range slices.Sorted(maps.Keys(conformClasses)) {
			fmt.Fprintf(&b, "  %[1]s_%[2]s: {key: '%[1]s:%[2]s:{id}', table: %[1]s, lease: 10s%[3]s}\n", table, class, conformClasses[class])
		}
	}
	return b.String()
}

func (c *conformist) t() *testing.T { return c.fixture.t }

func (c *conformist) play() {
	c.exec("CREATE TABLE begun (id int)") // the log goes on: what follows is new
	for _, act := range story {
		c.fill()
		for _, table := range conformTables {
			for _, sql := range act.each {
				c.exec(strings.ReplaceAll(sql, "%[1]s", table))
			}
		}
		c.quiet()
		if act.alters {
			c.right(act.name, "1")
			c.instance.eventually("the shape is known behind "+act.name, func() bool {
				c.exec("UPDATE products SET price = price + 1 WHERE id = 1; UPDATE goods SET price = price + 1 WHERE id = 1")
				c.quiet()
				kept := c.right(act.name, "1")
				s, err := c.status()
				return err == nil && s.Ready && slices.Contains(kept, "products:warm:1") && slices.Contains(kept, "goods:warm:1")
			})
			// The sweep may still be to come of what nobody has changed.
			c.instance.eventually("nothing is left of the shape before "+act.name, func() bool { return len(c.wrong("")) == 0 })
			c.fill()
			c.exec("UPDATE products SET price = price + 1; UPDATE goods SET price = price + 1")
			c.quiet()
		}
		c.kept = append(c.kept, c.right(act.name, ""))
	}
	c.stop()
}

// quiet waits until all is applied, and loaded that is to be.
func (c *conformist) quiet() {
	c.t().Helper()
	c.follow()
	c.instance.eventually("everything is loaded", func() bool {
		s, err := c.status()
		return err == nil && s.Ready && c.metric("unstale_loads_pending") == 0
	})
}

// conformRows are the rows of one table as each class has them, by id.
type conformRows struct {
	whole, few map[string]string
	fields     map[string]map[string]string
}

func (c *conformist) rows(table string) conformRows {
	c.t().Helper()
	ctx := c.t().Context()
	conn := connectTo(c.t(), c.url+"&timezone=UTC")
	defer conn.Close(ctx)
	found, err := conn.Query(ctx, fmt.Sprintf(`SELECT id::text, row_to_json(p)::text, (SELECT row_to_json(x)::text FROM (SELECT p.id, p.price) x),
		(SELECT json_object_agg(key, value) FROM json_each_text(row_to_json(p)) WHERE value IS NOT NULL) FROM %s p`, table))
	check(c.t(), err)
	rows := conformRows{map[string]string{}, map[string]string{}, map[string]map[string]string{}}
	var id, whole, few string
	var fields map[string]string
	_, err = pgx.ForEachRow(found, []any{&id, &whole, &few, &fields}, func() error {
		rows.whole[id], rows.few[id], rows.fields[id] = whole, few, fields
		fields = nil
		return nil
	})
	check(c.t(), err)
	return rows
}

// fill has every row cached in every class, as readers would.
func (c *conformist) fill() {
	c.t().Helper()
	ctx := c.t().Context()
	for _, table := range conformTables {
		rows := c.rows(table)
		for id := range rows.whole {
			for class := range conformClasses {
				key, text := fmt.Sprintf("%s:%s:%s", table, class, id), rows.whole[id]
				if class == "few" {
					text = rows.few[id]
				}
				position := func(ctx context.Context) (lsn int64, err error) {
					err = c.conn.QueryRow(ctx, "SELECT "+unstale.LSN).Scan(&lsn)
					return lsn, err
				}
				var err error
				switch class {
				case "invalidate", "refresh":
					_, err = c.client.Fetch(ctx, key, func(context.Context) ([]byte, error) { return []byte(text), nil })
				case "hash":
					_, err = c.client.FetchHash(ctx, key, func(ctx context.Context) (map[string]string, int64, error) {
						lsn, err := position(ctx)
						return rows.fields[id], lsn, err
					})
				default:
					_, err = c.client.FetchKept(ctx, key, func(ctx context.Context) ([]byte, int64, error) {
						lsn, err := position(ctx)
						return []byte(text), lsn, err
					})
				}
				check(c.t(), err)
			}
		}
	}
}

// right demands that what is cached is as the rows are, of one id or of all, and
// returns the keys.
func (c *conformist) right(behind, only string) []string {
	c.t().Helper()
	for _, wrong := range c.wrong(only) {
		c.t().Errorf("behind %q: %s", behind, wrong)
	}
	if c.t().Failed() {
		c.t().Fatal(c.log)
	}
	return c.keys(only)
}

func (c *conformist) keys(only string) (keys []string) {
	c.t().Helper()
	for _, table := range conformTables {
		for class := range conformClasses {
			id := "*"
			if only != "" {
				id = only
			}
			found, err := c.rdb.Keys(c.t().Context(), fmt.Sprintf("%s:%s:%s", table, class, id)).Result()
			check(c.t(), err)
			keys = append(keys, found...)
		}
	}
	return keys
}

func (c *conformist) wrong(only string) (wrong []string) {
	c.t().Helper()
	byTable := map[string]conformRows{}
	for _, table := range conformTables {
		byTable[table] = c.rows(table)
	}
	for _, key := range c.keys(only) {
		part := strings.Split(key, ":")
		rows, class, id := byTable[part[0]], part[1], part[2]
		var got, want any = c.rdb.HGetAll(c.t().Context(), key).Val(), rows.fields[id]
		right := maps.Equal(got.(map[string]string), rows.fields[id])
		if class != "hash" {
			text := rows.whole[id]
			if class == "few" {
				text = rows.few[id]
			}
			got, want = c.value(key), text
			right = text != "" && got == want
		}
		// What a sweep has taken since is not wrong.
		if gone := c.rdb.Exists(c.t().Context(), key).Val() == 0; !right && !gone {
			wrong = append(wrong, fmt.Sprintf("%s holds %.300v, want %.300v", key, got, want))
		}
	}
	return wrong
}
