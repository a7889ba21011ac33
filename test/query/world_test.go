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
	// folds: it has texts of which "a" and "A" are equal. icu: the server has collations of
	// ICU, for that.
	folds, icu bool
	// session is how those of the application are set up.
	session string
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
	// sparse: its replica identity is its key; of a partitioned table, only that of its
	// partitions. toasts: the log leaves out long values that are as they were.
	sparse, toasts bool
}

type column struct {
	name string
	typ  string // as pg_type has it
	null bool
}

// values are all that columns of a type are given: few, so that rows meet. Each has the
// text that the log has.
var values = map[string][]string{
	"int4": {"1", "2", "3", "4"}, "int8": {"1", "2", "3", "4"}, "int2": {"1", "2", "3"}, "small": {"1", "2", "3"},
	"text": {"a", "b", "A", "c"}, "varchar": {"a", "b", "A"}, "bpchar": {"a", "b"}, "word": {"a", "b", "A"}, "citext": {"a", "b", "A"},
	"bool": {"t", "f"}, "mood": {"sad", "ok", "happy"}, "numeric": {"1", "1.0", "2.50", "3"},
	"uuid": {"00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-00000000000a", "00000000-0000-0000-0000-00000000000b"},
	// The evening of January 31st in New York is February in UTC, and a day of India begins
	// half an hour before midnight there.
	"date": {"2026-01-02", "2026-01-31", "2026-02-01"}, "timestamp": {"2026-01-02 00:00:00", "2026-01-31 22:00:00", "2026-02-01 00:00:00"},
	"timestamptz": {"2026-01-02 00:00:00+00", "2026-01-31 18:30:00+00", "2026-02-01 03:00:00+00"},
	"interval":    {"1 day", "02:00:00", "-1 days +01:00:00"},
	"_text":       {"{a,b}", "{a}", "{}", "{A,NULL,c}"}, "_int4": {"{1,2}", "{3}", "{2,2}"},
	"jsonb": {`{"a": "a", "n": 1}`, `{"a": "b", "n": 1.0}`, `{"n": null}`, `[1]`},
}

// strange is a value of each type that no row has, though one may be equal to it.
var strange = map[string]string{
	"int4": "77", "int8": "77", "int2": "77", "text": "zz", "varchar": "zz", "bpchar": "zz", "citext": "B", "numeric": "1.00", "interval": "24:00:00",
	"date": "2030-01-01", "timestamp": "2026-01-31 00:00:00", "timestamptz": "2026-02-01 05:00:00+00", "uuid": "00000000-0000-0000-0000-000000000077",
}

// ambiguous are literals whose meaning depends on the settings of the session.
var ambiguous = map[string][]string{
	"date": {"01/02/2026", "02.01.2026"}, "timestamp": {"01/02/2026", "2/1/2026 00:00"},
	"timestamptz": {"2026-01-31 22:00:00", "01/02/2026"}, "interval": {"-1 1:00:00"},
}

// sessions are how those of an application may be set up. The service's own are not:
// what the first leaves to the database, that has set up in another way, too.
var sessions = []string{
	"", "SET datestyle = 'ISO, MDY'; SET timezone = 'UTC'; SET intervalstyle = 'postgres'",
	"SET datestyle = 'SQL, DMY'; SET timezone = 'Asia/Kolkata'; SET intervalstyle = 'iso_8601'",
}

// ofDatabase are the settings of the database.
const ofDatabase = "ALTER DATABASE %[1]s SET datestyle = 'German, DMY'; ALTER DATABASE %[1]s SET timezone = 'America/New_York'; ALTER DATABASE %[1]s SET intervalstyle = 'sql_standard'"

func (w *world) chance(percent int) bool { return w.r.IntN(100) < percent }

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

// extras are columns beside keys and references, and how many tables of a hundred have
// each.
var extras = []struct {
	name, typ string
	percent   int
}{
	{"name", "text", 60}, {"n", "int4", 70}, {"flag", "bool", 60}, {"kind", "mood", 30}, {"amount", "numeric", 20}, {"code", "bpchar", 12}, {"label", "varchar", 12},
	{"made", "date", 12}, {"at", "timestamp", 10}, {"seen", "timestamptz", 12}, {"lasts", "interval", 6}, {"token", "uuid", 8}, {"tags", "_text", 12}, {"sizes", "_int4", 8},
	{"doc", "jsonb", 10}, {"few", "small", 8}, {"tiny", "int2", 8}, {"price", "numeric", 8}, {"slug", "text", 10}, {"word", "word", 8}, {"nick", "citext", 30},
}

// declared is how such a column is declared, where that is not its type.
func (w *world) declared(c column) string {
	switch c.name {
	case "code":
		return "char(2)"
	case "price":
		return "numeric(10,2)"
	case "slug":
		return "text COLLATE " + w.collation()
	}
	return c.typ
}

func (w *world) collation() string {
	if w.folds && w.icu {
		return "folds"
	}
	return `"C"`
}

// newWorld invents a schema: its tables refer to each other by foreign keys, loosely,
// to themselves, by keys of two columns; some are partitioned, some inherit.
func newWorld(r *rand.Rand, icu bool) *world {
	w := &world{r: r, icu: icu, session: pick(r, sessions)}
	w.folds = w.chance(25)
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
		for _, extra := range extras {
			if extra.typ == "citext" && !w.folds || !w.chance(extra.percent) {
				continue
			}
			null := w.chance(map[bool]int{true: 75, false: 50}[extra.name == "flag"])
			add(extra.name, extra.typ, null)
		}
		t.sparse, t.toasts = w.chance(30), w.chance(30)
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

// noted is the log.
const noted = `CREATE TABLE changes (number bigserial, relation text, old jsonb, new jsonb, truncated boolean)`

// ddl creates the tables, and the triggers that note what changes.
func (w *world) ddl() string {
	var b strings.Builder
	b.WriteString("CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');\nCREATE DOMAIN small AS int4;\n")
	if w.collation() == "folds" {
		b.WriteString("CREATE COLLATION folds (provider = icu, locale = 'und-u-ks-level2', deterministic = false);\n")
	}
	b.WriteString("CREATE DOMAIN word AS text COLLATE " + w.collation() + ";\n")
	for _, t := range w.tables {
		var parts []string
		for _, c := range t.columns {
			if t.child && c.name != "more" {
				continue
			}
			part := c.name + " " + w.declared(c)
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

// triggers write every change of a row into the log, whoever makes it, each value as
// PostgreSQL's log has it.
func (w *world) triggers() string {
	var b strings.Builder
	for _, t := range w.tables {
		row := func(version string) string {
			var parts []string
			for _, c := range t.columns {
				value := version + "." + c.name + "::text"
				if c.typ == "bool" {
					value = "left(" + value + ", 1)"
				}
				parts = append(parts, "'"+c.name+"', "+value)
			}
			return "jsonb_build_object(" + strings.Join(parts, ", ") + ")"
		}
		fmt.Fprintf(&b, `CREATE FUNCTION note_%[1]s() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF TG_OP = 'INSERT' THEN INSERT INTO w.changes (relation, new) VALUES ('%[1]s', %[3]s);
  ELSIF TG_OP = 'DELETE' THEN INSERT INTO w.changes (relation, old) VALUES ('%[1]s', %[2]s);
  ELSIF TG_OP = 'UPDATE' THEN INSERT INTO w.changes (relation, old, new) VALUES ('%[1]s', %[2]s, %[3]s);
  ELSE INSERT INTO w.changes (relation, truncated) VALUES ('%[1]s', true); END IF;
  RETURN NULL; END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON %[1]s FOR EACH ROW EXECUTE FUNCTION note_%[1]s();
CREATE TRIGGER note_truncate AFTER TRUNCATE ON %[1]s EXECUTE FUNCTION note_%[1]s();
`, t.name, row("OLD"), row("NEW"))
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
