package query

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// A world is a schema with a few rows in it.
type world struct {
	r      *rand.Rand
	tables []*table
	views  []*table
}

// A table, or a view, as queries see it.
type table struct {
	name    string
	columns []column
	key     []string
	// options are behind the columns in CREATE TABLE: PARTITION BY, INHERITS.
	constraints []string
	options     string
	partitions  []string
	child       bool // it inherits
}

type column struct {
	name string
	typ  string // as pg_type has it
	null bool
}

// values are all that columns of a type are given: few, so that rows meet.
var values = map[string][]string{
	"int4": {"1", "2", "3", "4"}, "int8": {"1", "2", "3", "4"},
	"text": {"a", "b", "A", "c"}, "varchar": {"a", "b", "A"}, "bpchar": {"a", "b"},
	"bool": {"t", "f"}, "mood": {"sad", "ok", "happy"}, "numeric": {"1", "1.0", "2.50", "3"},
}

// strange is a value of each type that no row has.
var strange = map[string]string{"int4": "77", "int8": "77", "text": "zz", "varchar": "zz", "bpchar": "zz", "numeric": "77"}

func (w *world) chance(percent int) bool { return w.r.IntN(100) < percent }

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

// newWorld invents a schema: its tables refer to each other by foreign keys, loosely,
// to themselves, by keys of two columns; some are partitioned, some inherit.
func newWorld(r *rand.Rand) *world {
	w := &world{r: r}
	for i := range 2 + r.IntN(4) {
		t := &table{name: fmt.Sprintf("t%d", i+1)}
		add := func(name, typ string, null bool) { t.columns = append(t.columns, column{name, typ, null}) }
		id := pick(r, []string{"int4", "int8", "int4"})
		switch {
		case i > 0 && w.chance(10):
			parent := w.tables[r.IntN(i)]
			if parent.options == "" && !parent.child {
				t.columns = slices.Clone(parent.columns)
				t.options = " INHERITS (" + parent.name + ")"
				t.child = true
				t.key = parent.key
				add("more", "int4", true)
				w.tables = append(w.tables, t)
				continue
			}
			fallthrough
		case w.chance(75):
			add("id", id, false)
			t.key = []string{"id"}
		default:
			add("id", id, false)
			add("part", pick(r, []string{"int4", "text"}), false)
			t.key = []string{"id", "part"}
		}
		for range r.IntN(3) {
			if len(w.tables) == 0 {
				break
			}
			to := pick(r, w.tables)
			w.refer(t, to)
		}
		if w.chance(25) && len(t.key) == 1 {
			add("up", t.columns[0].typ, true)
			if w.chance(50) {
				t.constraints = append(t.constraints, "FOREIGN KEY (up) REFERENCES "+t.name+w.action())
			}
		}
		for _, extra := range []column{{"name", "text", true}, {"n", "int4", true}, {"flag", "bool", true}, {"kind", "mood", true}, {"amount", "numeric", true}, {"code", "bpchar", true}, {"label", "varchar", true}} {
			if w.chance(map[string]int{"name": 60, "n": 70, "flag": 60, "kind": 30, "amount": 20, "code": 12, "label": 12}[extra.name]) {
				extra.null = w.chance(map[bool]int{true: 75, false: 50}[extra.name == "flag"])
				t.columns = append(t.columns, extra)
			}
		}
		if w.chance(12) && len(t.constraints) == 0 {
			t.options = " PARTITION BY LIST (id)"
			t.partitions = []string{"FOR VALUES IN (1, 2)", "DEFAULT"}
		}
		w.tables = append(w.tables, t)
	}
	return w
}

// refer gives a table columns that another's key is in.
func (w *world) refer(t, to *table) {
	var names []string
	for _, key := range to.key {
		of := to.column(key)
		name := to.name + "_" + key
		if t.column(name) != nil {
			return
		}
		typ := of.typ
		if w.chance(10) && strings.HasPrefix(typ, "int") {
			typ = pick(w.r, []string{"int4", "int8"})
		}
		t.columns = append(t.columns, column{name, typ, w.chance(60)})
		names = append(names, name)
	}
	if w.chance(60) && !to.child {
		t.constraints = append(t.constraints, "FOREIGN KEY ("+strings.Join(names, ", ")+") REFERENCES "+to.name+w.action())
	}
}

func (w *world) action() string {
	return pick(w.r, []string{"", " ON DELETE CASCADE", " ON DELETE CASCADE ON UPDATE CASCADE", " ON DELETE SET NULL", " ON UPDATE CASCADE"})
}

func (t *table) column(name string) *column {
	for i := range t.columns {
		if t.columns[i].name == name {
			return &t.columns[i]
		}
	}
	return nil
}

// noted writes every change of a row into the log, whoever makes it.
const noted = `
CREATE TABLE changes (number bigserial, relation text, old jsonb, new jsonb, truncated boolean);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF TG_OP = 'INSERT' THEN INSERT INTO w.changes (relation, new) VALUES (TG_ARGV[0], to_jsonb(NEW));
  ELSIF TG_OP = 'DELETE' THEN INSERT INTO w.changes (relation, old) VALUES (TG_ARGV[0], to_jsonb(OLD));
  ELSIF TG_OP = 'UPDATE' THEN INSERT INTO w.changes (relation, old, new) VALUES (TG_ARGV[0], to_jsonb(OLD), to_jsonb(NEW));
  ELSE INSERT INTO w.changes (relation, truncated) VALUES (TG_ARGV[0], true); END IF;
  RETURN NULL; END $$;
`

// ddl creates the tables, and the triggers that note what changes.
func (w *world) ddl() string {
	var b strings.Builder
	b.WriteString("CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');\n")
	for _, t := range w.tables {
		var parts []string
		for _, c := range t.columns {
			if t.child && c.name != "more" {
				continue
			}
			part := c.name + " " + map[string]string{"bpchar": "char(2)"}[c.typ]
			if c.typ != "bpchar" {
				part += c.typ
			}
			if !c.null {
				part += " NOT NULL"
			}
			parts = append(parts, part)
		}
		parts = append(parts, "PRIMARY KEY ("+strings.Join(t.key, ", ")+")")
		parts = append(parts, t.constraints...)
		fmt.Fprintf(&b, "CREATE TABLE %s (%s)%s;\n", t.name, strings.Join(parts, ", "), t.options)
		for i, partition := range t.partitions {
			fmt.Fprintf(&b, "CREATE TABLE %s_%d PARTITION OF %s %s;\n", t.name, i+1, t.name, partition)
		}
	}
	return b.String()
}

func (w *world) triggers() string {
	var b strings.Builder
	for _, t := range w.tables {
		fmt.Fprintf(&b, "CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION note('%s');\n", t.name, t.name)
		fmt.Fprintf(&b, "CREATE TRIGGER note_truncate AFTER TRUNCATE ON %s EXECUTE FUNCTION note('%s');\n", t.name, t.name)
	}
	return b.String()
}

// value is a literal for a column.
func (w *world) value(c column) string {
	if c.null && w.chance(20) {
		return "NULL"
	}
	return "'" + pick(w.r, values[c.typ]) + "'"
}

// statement is one that changes rows.
func (w *world) statement() string {
	t := pick(w.r, w.tables)
	where := func() string {
		c := pick(w.r, t.columns)
		if w.chance(60) {
			c = *t.column(t.key[0])
		}
		switch {
		case c.null && w.chance(15):
			return c.name + " IS NULL"
		case w.chance(10):
			return "true"
		}
		return c.name + " = '" + pick(w.r, values[c.typ]) + "'"
	}
	switch n := w.r.IntN(100); {
	case n < 40:
		return w.insert(t)
	case n < 82:
		var sets []string
		seen := map[string]bool{}
		for range 1 + w.r.IntN(2) {
			c := pick(w.r, t.columns)
			if seen[c.name] {
				continue
			}
			seen[c.name] = true
			if strings.HasPrefix(c.typ, "int") && w.chance(15) {
				sets = append(sets, fmt.Sprintf("%s = %s %% 4 + 1", c.name, c.name))
				continue
			}
			sets = append(sets, c.name+" = "+w.value(c))
		}
		return fmt.Sprintf("UPDATE %s SET %s WHERE %s", t.name, strings.Join(sets, ", "), where())
	case n < 98:
		return fmt.Sprintf("DELETE FROM %s WHERE %s", t.name, where())
	}
	return "TRUNCATE " + t.name + " CASCADE"
}

func (w *world) insert(t *table) string {
	var names, row []string
	for _, c := range t.columns {
		names, row = append(names, c.name), append(row, w.value(c))
	}
	return fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s)", t.name, strings.Join(names, ", "), strings.Join(row, ", "))
}

// block runs statements, each as far as the constraints allow it.
func block(statements []string) string {
	var b strings.Builder
	b.WriteString("DO $do$ BEGIN\n")
	for _, s := range statements {
		fmt.Fprintf(&b, "BEGIN %s; EXCEPTION WHEN OTHERS THEN NULL; END;\n", s)
	}
	b.WriteString("END $do$")
	return b.String()
}

func (w *world) transaction() []string {
	var statements []string
	for range 1 + w.r.IntN(3) {
		statements = append(statements, w.statement())
	}
	return statements
}

func (w *world) rows() []string {
	var statements []string
	for _, t := range w.tables {
		for range 3 + w.r.IntN(5) {
			statements = append(statements, w.insert(t))
		}
	}
	return statements
}
