package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/unstale/unstale/internal/admin"
)

// indexed are pages of products with the name of their category, and of orders with the
// names of their products, of which an order may have one twice.
const indexed = `  page:
    key: page:{id}
    query: SELECT p.id, p.name, c.name AS category FROM products p JOIN categories c ON c.id = p.category_id WHERE p.id = @id AND p.listed
    lookup: index
  order:
    key: order:{id}
    query: SELECT p.name FROM order_lines l JOIN products p ON p.id = l.product_id WHERE l.order_id = @id
    lookup: index
`

func newIndexed(t *testing.T, major int) *fixture {
	f := newFixture(t, major)
	execute(t, f.conn,
		`CREATE TABLE categories (id int PRIMARY KEY, name text NOT NULL)`,
		`CREATE TABLE products (id int PRIMARY KEY, name text NOT NULL, category_id bigint, listed boolean NOT NULL DEFAULT true)`,
		`CREATE TABLE order_lines (order_id int NOT NULL, product_id int NOT NULL, quantity int)`,
		`CREATE INDEX ON products (category_id)`, `CREATE INDEX ON order_lines (order_id)`,
		`CREATE INDEX ON order_lines (product_id)`,
		`ALTER TABLE products REPLICA IDENTITY FULL`, `ALTER TABLE order_lines REPLICA IDENTITY FULL`,
		`ALTER TABLE categories REPLICA IDENTITY FULL`,
		`INSERT INTO categories SELECT i, 'category ' || i FROM generate_series(1, 3) i`,
		`INSERT INTO products SELECT i, 'product ' || i, 1 + i % 2 FROM generate_series(1, 8) i`,
		`INSERT INTO products SELECT i, 'product ' || i, 3 FROM generate_series(1001, 3500) i`,
		`INSERT INTO order_lines VALUES (1, 1, 1), (1, 1, 2), (2, 1, 1), (2, 2, 1)`,
	)
	return f
}

// An indexedShop counts who has answered the lookups of an entry.
type indexedShop struct {
	*fixture
	i *instance
}

func (s *indexedShop) answered(entry, by string) int {
	return int(s.i.metric(fmt.Sprintf("unstale_lookups_total{by=%q,entry=%q}", by, entry)))
}

// try does a step and demands who answers its lookup, and that nobody else does. Where
// that is the database it waits until a set has been built. It may be asked again: by
// another session, and for a transaction that comes in two batches.
func (s *indexedShop) try(entry, by string, this step) {
	s.t.Helper()
	index, database := s.answered(entry, "index"), s.answered(entry, "database")
	sets := fmt.Sprintf("unstale_index_sets_built_total{entry=%q}", entry)
	built := s.i.metric(sets)
	s.fixture.try(s.i, []step{this})
	switch by {
	case "index":
		index++
	case "database":
		database++
		s.i.eventually("a set is built", func() bool { return s.i.metric(sets) > built })
	}
	if gotIndex, gotDatabase := s.answered(entry, "index"), s.answered(entry, "database"); gotIndex < index || by != "index" && gotIndex > index || gotDatabase < database || by != "database" && gotDatabase > database {
		s.t.Errorf("%s: the index has answered %d lookups and the database %d, want %d and %d", this.change, gotIndex, gotDatabase, index, database)
	}
}

func pagesOf(ids ...int) []string {
	var keys []string
	for _, id := range ids {
		keys = append(keys, fmt.Sprint("page:", id))
	}
	return keys
}

// renameOne changes the category of the pages 2, 4, 6 and 8.
const renameOne = "UPDATE categories SET name = name || '+' WHERE id = 1"

// newBuilt runs an instance with the set of that category built, on PostgreSQL 15.
func newBuilt(t *testing.T) *indexedShop {
	f := newIndexed(t, 15)
	s := &indexedShop{f, startInstance(t, f.config(indexed))}
	s.i.waitReady()
	s.try("page", "database", step{change: renameOne, gone: pagesOf(2, 4, 6, 8), kept: pagesOf(1, 3)})
	return s
}

// The first change of a category asks the database, the next ones the index, which the
// stream keeps up: exactly the right keys go.
func TestAnIndexAnswersLookups(t *testing.T) {
	for _, major := range databaseMajors {
		t.Run(fmt.Sprint("PostgreSQL ", major), func(t *testing.T) {
			t.Parallel()
			f := newIndexed(t, major)
			i := startInstance(t, f.config(indexed))
			i.waitReady()
			s := &indexedShop{f, i}
			const none = ""
			rename := func(id int) string { return fmt.Sprintf("UPDATE categories SET name = name || '+' WHERE id = %d", id) }

			s.try("page", "database", step{change: rename(1), gone: pagesOf(2, 4, 6, 8), kept: pagesOf(1, 3, 5, 7)})
			s.try("page", "index", step{change: rename(1), gone: pagesOf(2, 4, 6, 8), kept: pagesOf(1, 3, 5, 7)})
			s.try("page", none, step{change: "UPDATE products SET category_id = 2 WHERE id = 2", gone: pagesOf(2), kept: pagesOf(1, 4)})
			s.try("page", "index", step{change: rename(1), gone: pagesOf(4, 6, 8), kept: pagesOf(1, 2, 3)})
			s.try("page", "database", step{change: rename(2), gone: pagesOf(1, 2, 3, 5, 7), kept: pagesOf(4)})
			s.try("page", none, step{change: "INSERT INTO products VALUES (9, 'new', 1), (10, 'new', 2)", gone: pagesOf(9, 10), kept: pagesOf(1)})
			s.try("page", "index", step{change: rename(1), gone: pagesOf(4, 6, 8, 9), kept: pagesOf(2, 10)})
			s.try("page", none, step{change: "DELETE FROM products WHERE id = 9", gone: pagesOf(9), kept: pagesOf(4)})
			s.try("page", "index", step{change: rename(1), gone: pagesOf(4, 6, 8), kept: pagesOf(2, 9, 10)})
			s.try("page", none, step{change: "UPDATE products SET id = 11 WHERE id = 10", gone: pagesOf(10, 11)})
			s.try("page", "index", step{change: rename(2), gone: pagesOf(1, 2, 3, 5, 7, 11), kept: pagesOf(4, 10)})
			// In one transaction, in which the category changes first and last.
			s.try("page", "index", step{
				change: rename(1) + "; UPDATE products SET category_id = 1 WHERE id = 11; " + rename(1),
				gone:   pagesOf(4, 6, 8, 11), kept: pagesOf(1, 2),
			})
			s.try("page", "index", step{change: rename(1), gone: pagesOf(4, 6, 8, 11), kept: pagesOf(1, 2)})
			// A category that is new has a set when somebody asks for it.
			s.try("page", "database", step{change: "INSERT INTO categories VALUES (4, 'new')", kept: pagesOf(4, 11)})
			s.try("page", "index", step{
				change: rename(4) + "; UPDATE products SET category_id = 4 WHERE id IN (4, 6)", gone: pagesOf(4, 6), kept: pagesOf(8, 11),
			})
			s.try("page", "index", step{change: rename(4), gone: pagesOf(4, 6), kept: pagesOf(8, 11)})

			// More members than are given at once.
			many := pagesOf(1001, 1500, 2222, 3499, 3500)
			s.try("page", "database", step{change: rename(3), gone: many, kept: pagesOf(8)})
			s.try("page", none, step{change: "UPDATE products SET category_id = 1 WHERE id = 1500", gone: pagesOf(1500)})
			s.try("page", "index", step{change: rename(3), gone: pagesOf(1001, 2222, 3499, 3500), kept: pagesOf(8, 1500)})

			// An order has a product twice: when one of the lines goes the other is there.
			s.try("order", "database", step{change: "UPDATE products SET name = 'a' WHERE id = 1", gone: []string{"order:1", "order:2"}})
			s.try("order", none, step{change: "DELETE FROM order_lines WHERE order_id = 1 AND quantity = 1", gone: []string{"order:1"}, kept: []string{"order:2"}})
			s.try("order", "index", step{change: "UPDATE products SET name = 'b' WHERE id = 1", gone: []string{"order:1", "order:2"}})

			// Whatever takes a set away takes away that it is complete.
			for _, set := range f.sets() {
				f.rdb.Del(t.Context(), set)
			}
			s.try("page", none, step{change: "UPDATE products SET category_id = 1 WHERE id = 7", gone: pagesOf(7)})
			s.try("page", "database", step{change: rename(1), gone: pagesOf(7, 8, 11, 1500), kept: pagesOf(4, 1)})
			s.try("page", "index", step{change: rename(1), gone: pagesOf(7, 8, 11, 1500), kept: pagesOf(4, 1)})
			i.stop()
		})
	}
}

// sets are the names of those of indexes.
func (f *fixture) sets() []string {
	var names []string
	for _, name := range f.rdb.Keys(f.t.Context(), "unstale:*").Val() {
		if strings.Contains(name, "}:index:") {
			names = append(names, name)
		}
	}
	return names
}

// A set from before a gap lacks what happened in it: it must not answer behind it.
func TestAGapVoidsIndexes(t *testing.T) {
	for name, gap := range map[string]func(f *fixture, i *instance){
		"the slot is lost": func(f *fixture, i *instance) {
			i.stop()
			f.exec("SELECT pg_drop_replication_slot($1)", f.slot)
			f.exec("UPDATE products SET category_id = 1 WHERE id IN (1, 3)")
			i.start()
		},
		"Redis is emptied": func(f *fixture, i *instance) {
			f.rdb.FlushAll(f.t.Context())
			f.exec("UPDATE products SET category_id = 1 WHERE id IN (1, 3)")
			i.waitStatus("a gap", func(s *admin.Status) bool { return s.Gaps > 1 })
		},
		"nobody was there, and nothing is lost": func(f *fixture, i *instance) {
			i.stop()
			f.exec("UPDATE products SET category_id = 1 WHERE id IN (1, 3)")
			i.start()
		},
		"lookups were the database's in between": func(f *fixture, i *instance) {
			i.stop()
			other := startInstance(f.t, f.config(strings.ReplaceAll(indexed, "lookup: index", "lookup: database")))
			other.waitReady()
			f.exec("UPDATE products SET category_id = 1 WHERE id IN (1, 3)")
			f.barrier()
			other.stop()
			i.start()
		},
		"the catalog tells": func(f *fixture, i *instance) {
			sweeps := i.metric(`unstale_sweeps_total{cause="catalog",entry="page"}`)
			f.exec("ALTER TABLE products ADD weight int")
			f.exec("UPDATE products SET category_id = 1 WHERE id IN (1, 3)")
			i.eventually("a sweep", func() bool { return i.metric(`unstale_sweeps_total{cause="catalog",entry="page"}`) > sweeps })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newBuilt(t)
			f, i := s.fixture, s.i
			s.try("page", "index", step{change: renameOne, gone: pagesOf(2, 4, 6, 8), kept: pagesOf(1, 3)})
			before := f.sets()
			gap(f, i)
			i.waitReady()
			answers := "database"
			if strings.HasPrefix(name, "nobody") {
				answers = "index"
			}
			s.try("page", answers, step{change: renameOne, gone: pagesOf(1, 2, 3, 4, 6, 8), kept: pagesOf(5, 7)})
			s.try("page", "index", step{change: renameOne, gone: pagesOf(1, 2, 3, 4, 6, 8), kept: pagesOf(5, 7)})
			if len(before) != 1 || !slices.Equal(before, f.sets()) {
				t.Errorf("the sets were %q and are %q, want the same one", before, f.sets())
			}
			i.stop()
		})
	}
}

// What a set holds rests on a unique key. When that goes, two rows may be the same
// member, and one that goes must not take the other with it.
func TestAnIndexOutlivesItsUniqueKey(t *testing.T) {
	t.Parallel()
	s := newBuilt(t)
	f, i := s.fixture, s.i
	f.exec("ALTER TABLE products DROP CONSTRAINT products_pkey")
	f.exec("INSERT INTO products VALUES (2, 'alike', 1)")
	f.exec("DELETE FROM products WHERE id = 2 AND name = 'alike'")
	i.eventually("it is planned anew", func() bool { return i.said("planning anew") == 1 })
	i.waitReady()
	s.try("page", "database", step{change: renameOne, gone: pagesOf(2, 4, 6, 8), kept: pagesOf(1, 3)})
	f.exec("INSERT INTO products VALUES (2, 'alike', 1)")
	f.exec("DELETE FROM products WHERE id = 2 AND name = 'alike'")
	s.try("page", "index", step{change: renameOne, gone: pagesOf(2, 4, 6, 8), kept: pagesOf(1, 3)})
	i.stop()
}

// What is asked for, and cannot be, is said before anything runs; and what is, by whom.
func TestWhoAnswersALookupIsSaid(t *testing.T) {
	t.Parallel()
	f := newIndexed(t, 15)
	f.exec("ALTER TABLE products REPLICA IDENTITY DEFAULT")
	path, _ := writeConfig(t, f.config(indexed+`  spread:
    key: spread:{id}
    query: SELECT l.order_id FROM order_lines l JOIN products p ON p.id = l.product_id JOIN categories c ON c.id = p.category_id WHERE l.order_id = @id
    lookup: index
`))
	out, errs, exit := unstaleCommand(t, "plan", "--config", path)
	for _, want := range []string{
		"in an index: id by category_id\n", "in an index: order_id by product_id\n", "in the database: it goes through 2 tables\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if exit != 0 {
		t.Errorf("exit %d\n%s", exit, errs)
	}
	out, _, _ = unstaleCommand(t, "check", "--config", path)
	if want := "a row that moves stays in the index of entry page where it was"; strings.Count(out, want) != 1 {
		t.Errorf("%q is not said once:\n%s", want, out)
	}
	for query, want := range map[string]string{
		"SELECT id FROM products WHERE id = @id":                                                                   "no change needs a lookup",
		"SELECT p.id FROM products p JOIN categories c ON c.id + 0 = p.category_id WHERE p.id = @id":               "no column of products that the log has is equal",
		"SELECT p.id FROM products p JOIN categories c ON c.id::numeric = p.category_id::numeric WHERE p.id = @id": "no column of products that the log has is equal",
	} {
		path, _ := writeConfig(t, f.config(fmt.Sprintf("  one: {key: 'one:{id}', lookup: index, allow_sweep: true, query: %q}\n", query)))
		out, errs, exit := unstaleCommand(t, "check", "--config", path)
		if exit == 0 || !strings.Contains(out+errs, "entries.one.lookup: is index, and") || !strings.Contains(out+errs, want) {
			t.Errorf("%s: exit %d, want %q in\n%s%s", query, exit, want, out, errs)
		}
	}
}
