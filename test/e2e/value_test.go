package e2e

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/database"
	"github.com/unstale/unstale/internal/pgsource"
	"github.com/unstale/unstale/internal/stack"
	"github.com/unstale/unstale/internal/value"
)

var (
	valueSeed = flag.Uint64("value.seed", uint64(time.Now().UnixNano()), "seed of the rows that are rendered")
	valueRows = flag.Int("value.rows", 100_000, "how many whole rows are rendered and compared on each server, at least")
)

// Each table has this many random columns.
const valueColumns = 10

// A row that is written from a change must have the bytes that a reader would
// load, whatever its types and values are. A row is incomplete only where the
// log lacks a long value that the update did not touch.
func TestARowFromTheLogHasTheBytesOfTheDatabase(t *testing.T) {
	t.Parallel()
	t.Logf("seed %d (again: -value.seed)", *valueSeed)
	for _, major := range databaseMajors {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			v := newValues(t, sharedPostgres(t, major), rand.New(rand.NewPCG(*valueSeed, uint64(major))))
			// One in a hundred is incomplete.
			tables := v.createTables(1 + (*valueRows+*valueRows/50)/(2*v.tableRows))
			v.attach(tables)
			for i, table := range tables {
				v.insert(table, 0, v.tableRows)
				v.compare(table, v.read(v.tableRows))
				// Half of the columns move to another row, the others are untouched.
				v.update(table)
				v.compare(table, v.read(v.tableRows))
				if t.Failed() {
					t.Fatalf("table %d: %s", i, strings.Join(v.types[table], ", "))
				}
			}
			t.Logf("%d rows of %d types compared, %d incomplete, in %s; not in this server: %q",
				v.rendered, len(v.universe), v.incomplete, time.Since(began).Round(time.Millisecond), v.lacking)
			if v.rendered < *valueRows {
				t.Errorf("%d rows rendered and %d incomplete, want %d", v.rendered, v.incomplete, *valueRows)
			}
		})
	}
}

// values makes tables of random types with random rows, reads their changes and
// compares.
type values struct {
	t        *testing.T
	r        *rand.Rand
	url      string
	db       *pgx.Conn
	universe []drawnType
	deck     []drawnType
	lacking  []string
	types    map[string][]string
	drawers  map[string][]drawnType
	source   *pgsource.Source
	shapes   map[string]*value.Shape
	programs map[string]*value.Program
	// tableRows is how many rows each table has. Each is inserted and updated,
	// so it counts twice.
	tableRows int

	rendered, incomplete int
}

// A renderedRow is what the change of one row gave.
type renderedRow struct{ json, fields []byte }

func newValues(t *testing.T, server *stack.Postgres, r *rand.Rand) *values {
	v := &values{t: t, r: r, url: newDatabase(t, server),
		types: map[string][]string{}, drawers: map[string][]drawnType{},
		shapes: map[string]*value.Shape{}, programs: map[string]*value.Program{}, tableRows: 500}
	v.db = connectTo(t, v.url)
	execute(t, v.db, hostile(mustParse(t, v.url).Database)...)
	execute(t, v.db, valueTypes...)
	for _, s := range valueSettings {
		execute(t, v.db, "SET "+s)
	}
	v.universe = v.drawnTypes()
	return v
}

// valueSettings are what the bytes of a cached row are defined with.
var valueSettings = []string{
	"timezone = 'UTC'", "datestyle = 'ISO'", "intervalstyle = 'postgres'", "bytea_output = 'hex'", "extra_float_digits = 1",
}

var valueTypes = []string{
	`CREATE DOMAIN positive AS int CHECK (value > 0)`,
	`CREATE DOMAIN more_positive AS positive CHECK (value > 1)`,
	`CREATE DOMAIN ints AS int[]`,
	`CREATE DOMAIN stamps AS timestamptz[]`,
	`CREATE DOMAIN short_text AS varchar(20)`,
	`CREATE DOMAIN boxed AS box`,
	`CREATE TYPE mood AS ENUM ('sad', 'so "so"', 'back\slash', 'glücklich', 'a,b', '{}', '', 'NULL')`,
	`CREATE TYPE pair AS (a int, "b ""x\" text)`,
	`CREATE DOMAIN a_pair AS pair`,
	`CREATE TYPE lonely AS (x text)`,
	`CREATE TYPE hollow AS ()`,
	`CREATE TYPE deep AS (p pair, gone int, ps pair[], at timestamptz, j json, n numeric, f bool, m ints, d a_pair, l lonely, b box[])`,
	`ALTER TYPE deep DROP ATTRIBUTE gone`,
	`CREATE TYPE deeper AS (d deep, ds deep[], e mood[])`,
	`CREATE TYPE floats AS RANGE (subtype = float8)`,
	`CREATE TYPE moods AS RANGE (subtype = mood)`,
}

// createTables makes tables whose columns take turns through all types.
func (v *values) createTables(n int) (tables []string) {
	for i := range n {
		table := fmt.Sprintf("t%d", i)
		definition := "id int PRIMARY KEY"
		for j := range valueColumns {
			if len(v.deck) == 0 {
				v.deck = append(v.deck, v.universe...)
				v.r.Shuffle(len(v.deck), func(i, j int) { v.deck[i], v.deck[j] = v.deck[j], v.deck[i] })
			}
			d := v.deck[0]
			v.deck = v.deck[1:]
			v.types[table] = append(v.types[table], d.name)
			v.drawers[table] = append(v.drawers[table], d)
			definition += fmt.Sprintf(", %s %s", pgx.Identifier{columnName(j)}.Sanitize(), d.name)
		}
		execute(v.t, v.db, fmt.Sprintf(`CREATE TABLE %s (gone text, %s)`, table, definition), `ALTER TABLE `+table+` DROP gone`)
		if i%2 == 0 {
			execute(v.t, v.db, `ALTER TABLE `+table+` REPLICA IDENTITY FULL`)
		}
		tables = append(tables, table)
	}
	return tables
}

func columnName(i int) string {
	return [...]string{"plain", "Upper", "spa ce", `quo"te`, `back\slash`, "größe", "tab\there", "😀", "select", "{x}"}[i%valueColumns]
}

func (v *values) attach(tables []string) {
	options := pgsource.Options{ValueBytesMax: 4 << 20, BufferBytes: 16 << 20}
	names := make([]database.Name, len(tables))
	for i, table := range tables {
		options.Tables = append(options.Tables, pgsource.Table{Schema: "public", Name: table})
		names[i] = database.Name{Table: table}
	}
	v.source = newSourceWith(v.t, v.url, options)
	attach(v.t, v.source, "slot created")
	shapes, err := database.Shapes(within(v.t, time.Minute), v.db, names)
	if err != nil {
		v.t.Fatal(err)
	}
	for i, table := range tables {
		v.shapes[table] = &shapes[i]
	}
}

// insert writes the rows with the ids from and following, up to before to.
func (v *values) insert(table string, from, to int) {
	var rows bytes.Buffer
	for id := from; id < to; id++ {
		rows.WriteString(strconv.Itoa(id))
		for _, d := range v.drawers[table] {
			rows.WriteByte('\t')
			if v.r.IntN(12) == 0 {
				rows.WriteString(`\N`)
			} else {
				_, _ = copyEscapes.WriteString(&rows, d.draw(v.r)) // a Buffer takes everything
			}
		}
		rows.WriteByte('\n')
	}
	if _, err := v.db.PgConn().CopyFrom(within(v.t, time.Minute), &rows, `COPY `+table+` FROM STDIN`); err != nil {
		v.t.Fatalf("types %q: %v", v.types[table], err)
	}
}

var copyEscapes = strings.NewReplacer("\\", `\\`, "\n", `\n`, "\r", `\r`, "\t", `\t`)

func (v *values) update(table string) {
	var set []string
	for _, j := range v.r.Perm(valueColumns)[:valueColumns/2] {
		column := pgx.Identifier{columnName(j)}.Sanitize()
		set = append(set, fmt.Sprintf("%s = s.%s", column, column))
	}
	execute(v.t, v.db, fmt.Sprintf(`UPDATE %s SET %s FROM %s s WHERE s.id = (%s.id + %d) %% %d`,
		table, strings.Join(set, ", "), table, table, 1+v.r.IntN(v.tableRows-1), v.tableRows))
}

// read renders the next n row changes; those that are incomplete are nil.
func (v *values) read(n int) map[int]*renderedRow {
	got := map[int]*renderedRow{}
	ctx := within(v.t, time.Minute)
	for len(got) < n {
		c, err := v.source.Next(ctx)
		if err != nil {
			v.t.Fatal(err)
		}
		if c.Op == change.Commit || c.Op == change.Idle {
			continue
		}
		if c.Op == change.Undecodable {
			v.t.Fatalf("%s: %s", c.Relation.Name, c.Reason)
		}
		p := v.programs[c.Relation.Name]
		if p == nil {
			var reason string
			if p, reason = v.shapes[c.Relation.Name].Compile(c.Relation, nil); reason != "" {
				v.t.Fatalf("types %q: %s", v.types[c.Relation.Name], reason)
			}
			p.Bind(c.Relation.Wanted)
			v.programs[c.Relation.Name] = p
		}
		unchanged := false
		for _, value := range c.New.Values {
			unchanged = unchanged || value.State == change.Unchanged
		}
		id, err := strconv.Atoi(string(c.New.Values[0].Text))
		if err != nil {
			v.t.Fatal(err)
		}
		json, why := p.AppendJSON(nil, &c.New)
		fields, whyFields := p.AppendFields(nil, &c.New)
		if (why != "") != unchanged || why != whyFields {
			v.t.Fatalf("%s, types %q: %s, %s, unchanged values %v, row %.2000q", c.Relation.Name, v.types[c.Relation.Name], why, whyFields, unchanged, c.New.Values)
		}
		got[id] = &renderedRow{json, fields}
		if unchanged {
			got[id] = nil
			v.incomplete++
		}
	}
	return got
}

func (v *values) compare(table string, got map[int]*renderedRow) {
	ctx := within(v.t, time.Minute)
	rows, err := v.db.Query(ctx, `SELECT id, row_to_json(t)::text FROM `+table+` t`)
	if err != nil {
		v.t.Fatal(err)
	}
	var id int
	var want string
	if _, err := pgx.ForEachRow(rows, []any{&id, &want}, func() error {
		row := got[id]
		if row == nil {
			return nil
		}
		v.rendered++
		if string(row.json) != want {
			v.t.Errorf("%s %d:\n got %s\nwant %s", table, id, around(string(row.json), want), around(want, string(row.json)))
			return io.EOF
		}
		return nil
	}); err != nil && !v.t.Failed() {
		v.t.Fatal(err)
	}

	rows, err = v.db.Query(ctx, `SELECT t.id, coalesce(e.key, ''), coalesce(e.value, '')
		FROM `+table+` t, json_each_text(row_to_json(t)) WITH ORDINALITY e(key, value, place)
		WHERE e.value IS NOT NULL ORDER BY t.id, place`)
	if err != nil {
		v.t.Fatal(err)
	}
	encoded := map[int][]byte{}
	var key, text string
	if _, err := pgx.ForEachRow(rows, []any{&id, &key, &text}, func() error {
		encoded[id] = appendLength(appendLength(encoded[id], key), text)
		return nil
	}); err != nil {
		v.t.Fatal(err)
	}
	for id, row := range got {
		if row != nil && !bytes.Equal(row.fields, encoded[id]) {
			v.t.Errorf("%s %d: fields\n got %s\nwant %s", table, id,
				around(string(row.fields), string(encoded[id])), around(string(encoded[id]), string(row.fields)))
			return
		}
	}
}

func appendLength(b []byte, s string) []byte {
	for n := len(s); ; n >>= 7 {
		if n < 0x80 {
			return append(append(b, byte(n)), s...)
		}
		b = append(b, byte(n)|0x80)
	}
}

// around is the part of s where it begins to differ from other.
func around(s, other string) string {
	i := 0
	for i < min(len(s), len(other)) && s[i] == other[i] {
		i++
	}
	return fmt.Sprintf("... %q", s[max(0, i-80):min(len(s), i+80)])
}

// A drawnType is a type of a column and how to write a random value of it.
type drawnType struct {
	name string
	draw func(*rand.Rand) string
}

// drawnTypes lists every type that this server has: base types, and arrays of
// each.
func (v *values) drawnTypes() (all []drawnType) {
	base := baseTypes(v.db.PgConn().ParameterStatus("server_version"))
	if _, err := v.db.Exec(within(v.t, time.Minute), `SELECT '<a/>'::xml`); err == nil {
		base = append(base, drawnType{"xml", drawXML})
	} else {
		v.lacking = append(v.lacking, "xml")
	}
	for _, name := range []string{"hstore", "citext"} {
		// Their casts to json are what everybody meets: no server may lack them.
		execute(v.t, v.db, `CREATE EXTENSION `+name)
	}
	base = append(base, drawnType{"hstore", drawHstore}, drawnType{"citext", drawText})
	for _, extension := range []struct {
		name  string
		types []drawnType
	}{
		{"ltree", []drawnType{{"ltree", pick("", "a", "a.b_1.c", "Top.under.x")}, {"lquery", pick("*.a", "a|b.*{1,2}")}}},
		{"cube", []drawnType{{"cube", pick("(1,2)", "(0.1, 2),(3, -4e-300)")}}},
		{"isn", []drawnType{{"isbn", pick("978-0-393-04002-9", "0-306-40615-2")}}},
		{"seg", []drawnType{{"seg", pick("1 .. 2", "~1.50", "<3")}}},
		{"vector", []drawnType{{"vector", pick("[1,2.5,-3e-9]")}}},
	} {
		if _, err := v.db.Exec(within(v.t, time.Minute), `CREATE EXTENSION `+extension.name); err != nil {
			v.lacking = append(v.lacking, extension.name)
			continue
		}
		base = append(base, extension.types...)
	}
	for _, d := range base {
		delimiter := ","
		if d.name == "box" || d.name == "boxed" {
			delimiter = ";"
		}
		all = append(all, d, drawnType{d.name + "[]", func(r *rand.Rand) string { return drawArray(r, delimiter, d.draw) }})
	}
	return append(all, drawnType{"text", drawLong})
}

func baseTypes(version string) []drawnType {
	pair := record(drawInt(32), drawText)
	lonely := record(drawText)
	ints := func(r *rand.Rand) string { return drawArray(r, ",", drawInt(32)) }
	boxes := func(r *rand.Rand) string { return drawArray(r, ";", drawBox) }
	pairs := func(r *rand.Rand) string { return drawArray(r, ",", pair) }
	deep := record(pair, pairs, drawTimestamptz, drawJSON, drawNumeric, pick("t", "f"), ints, pair, lonely, boxes)
	deeps := func(r *rand.Rand) string { return drawArray(r, ",", deep) }
	mood := pick("sad", `so "so"`, `back\slash`, "glücklich", "a,b", "{}", "", "NULL")
	moods := func(r *rand.Rand) string { return drawArray(r, ",", mood) }
	character := pick("a", "", `"`, `\`, " ", "\x01")
	if !strings.HasPrefix(version, "15.") {
		character = pick("a", "", `"`, `\`, " ", "\x01", `\377`, `\200`)
	}
	ascending := func(draw func(*rand.Rand) int) func(*rand.Rand) (string, string) {
		return func(r *rand.Rand) (string, string) {
			a, b := draw(r), draw(r)
			return strconv.Itoa(min(a, b)), strconv.Itoa(max(a, b))
		}
	}
	whole := ascending(func(r *rand.Rand) int { return r.IntN(2000) - 1000 })
	dates := func(r *rand.Rand) (string, string) {
		a, b := r.IntN(500), r.IntN(500)
		day := time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)
		return day.AddDate(0, 0, min(a, b)).Format(time.DateOnly), day.AddDate(0, 0, max(a, b)).Format(time.DateOnly)
	}
	return []drawnType{
		{"int2", drawInt(16)}, {"int4", drawInt(32)}, {"int8", drawInt(64)},
		{"float4", drawFloat(32)}, {"float8", drawFloat(64)},
		{"numeric", drawNumeric}, {"numeric(12,3)", func(r *rand.Rand) string { return fmt.Sprintf("%d.%d", r.IntN(2e8)-1e8, r.IntN(10000)) }},
		{"bool", pick("t", "f")},
		{"text", drawText}, {"varchar", drawText}, {"varchar(20)", pick("", "NULL", "a\tb", "ä")}, {"char(7)", pick("", "a", `"\`, "😀")}, {"name", pick("", "a b", `"q"`, `\`)}, {`"char"`, character},
		{"bytea", func(r *rand.Rand) string { return fmt.Sprintf(`\x%x`, drawText(r)) }},
		{"oid", drawUnsigned}, {"xid", drawUnsigned}, {"cid", drawUnsigned}, {"xid8", drawUnsigned}, {"tid", pick("(0,1)", "(4294967295,65535)")},
		{"date", drawDate}, {"time", drawTime}, {"time(2)", drawTime}, {"timetz", func(r *rand.Rand) string { return drawTime(r) + drawZone(r) }},
		{"timestamp", drawTimestamp}, {"timestamp(3)", drawTimestamp}, {"timestamptz", drawTimestamptz}, {"timestamptz(0)", drawTimestamptz},
		{"interval", drawInterval}, {"interval day to second(2)", drawInterval},
		{"uuid", func(r *rand.Rand) string { return fmt.Sprintf("%016x%016x", r.Uint64(), r.Uint64()) }},
		{"json", drawJSON}, {"jsonb", drawJSON},
		{"jsonpath", pick(`$.a[*] ? (@.b > 1)`, `strict $."k\"q"`, `lax $.a.size()`)},
		{"inet", pick("10.0.0.1", "10.0.0.1/8", "::1", "fe80::1:2/64", "::ffff:1.2.3.4")}, {"cidr", pick("10.0.0.0/8", "2001:db8::/32")},
		{"macaddr", pick("08:00:2b:01:02:03")}, {"macaddr8", pick("08:00:2b:01:02:03:04:05")},
		{"bit(9)", func(r *rand.Rand) string { return fmt.Sprintf("%09b", r.IntN(512)) }}, {"varbit", pick("", "0", "101", strings.Repeat("01", 300))},
		{"point", drawPoint}, {"box", drawBox}, {"lseg", func(r *rand.Rand) string { return "[" + drawPoint(r) + "," + drawPoint(r) + "]" }},
		{"line", pick("{1,2,3}", "{-0.5,1e-300,0}")}, {"circle", func(r *rand.Rand) string { return "<" + drawPoint(r) + "," + strconv.Itoa(r.IntN(9)) + ">" }},
		{"path", func(r *rand.Rand) string { return "[" + drawPoint(r) + "," + drawPoint(r) + "]" }}, {"polygon", func(r *rand.Rand) string { return "(" + drawPoint(r) + "," + drawPoint(r) + ")" }},
		{"int2vector", pick("", "1", "1 -2 32767")}, {"oidvector", pick("", "1", "1 2 4294967295")},
		{"tsvector", pick("", `'a':1A,3 'b c':2`, `'it''s' '\\'`, `'"q"':7`)}, {"tsquery", pick("", `'a' & !'b':*AB | 'c d'`, `'x' <2> 'y'`)},
		{"pg_lsn", pick("0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF")}, {"txid_snapshot", pick("10:20:10,14,15", "1:1:")}, {"pg_snapshot", pick("10:20:10,14", "1:1:")},
		{"refcursor", drawText},
		{"int4range", drawRange(whole)}, {"int8range", drawRange(whole)}, {"numrange", drawRange(whole)}, {"floats", drawRange(whole)}, {"daterange", drawRange(dates)},
		{"tsrange", drawRange(dates)}, {"tstzrange", drawRange(dates)}, {"moods", pick("empty", `[sad,"so \"so\"")`, "(,)")},
		{"int4multirange", pick("{}", "{[1,2),[5,9)}")}, {"int8multirange", pick("{}", "{[1,2),[5,9223372036854775807)}")}, {"nummultirange", pick("{}", "{(0.10,1.50],[2,)}")},
		{"datemultirange", pick("{}", "{[1999-12-31,2000-02-29),[2020-01-01,)}")}, {"tsmultirange", pick("{}", `{["2020-01-01 00:00:00","2021-01-01 00:00:00.25")}`)}, {"tstzmultirange", pick("{}", `{["2020-01-01 00:00:00+00","2021-01-01 00:00:00+00"]}`)},
		{"positive", pick("1", "2147483647")}, {"more_positive", pick("7")}, {"ints", ints}, {"short_text", pick("", "NULL", "null", "a b")}, {"boxed", drawBox},
		{"stamps", func(r *rand.Rand) string { return drawArray(r, ",", drawTimestamptz) }},
		{"mood", mood}, {"pair", pair}, {"a_pair", pair}, {"lonely", lonely}, {"hollow", pick("()")},
		{"deep", deep}, {"deeper", record(deep, deeps, moods)},
		{"information_schema.sql_identifier", pick("a", `"`)}, {"information_schema.time_stamp", func(r *rand.Rand) string { return "2024-01-01 00:00:00.25+00" }},
	}
}

func pick(values ...string) func(*rand.Rand) string {
	return func(r *rand.Rand) string { return values[r.IntN(len(values))] }
}

func drawInt(bits int) func(*rand.Rand) string {
	return func(r *rand.Rand) string {
		switch r.IntN(8) {
		case 0:
			return strconv.FormatInt(-1<<(bits-1), 10)
		case 1:
			return strconv.FormatInt(1<<(bits-1)-1, 10)
		case 2:
			return "0"
		}
		return strconv.FormatInt(int64(r.Uint64())>>(64-bits+r.IntN(bits-1)), 10)
	}
}

func drawUnsigned(r *rand.Rand) string { return strconv.FormatUint(uint64(r.Uint32()>>r.IntN(32)), 10) }

func drawFloat(bits int) func(*rand.Rand) string {
	special := pick("NaN", "Infinity", "-Infinity", "-0", "0", "1", "0.1", "123456789012345680", "100000")
	return func(r *rand.Rand) string {
		switch r.IntN(5) {
		case 0:
			return special(r)
		case 1: // among them some that lie between two
			return fmt.Sprintf("%de%d", 1+r.IntN(999), r.IntN(26))
		case 2: // subnormal
			if bits == 32 {
				return strconv.FormatFloat(float64(math.Float32frombits(r.Uint32()>>10)), 'g', -1, 32)
			}
			return strconv.FormatFloat(math.Float64frombits(r.Uint64()>>13), 'g', -1, 64)
		case 3:
			return strconv.FormatFloat(r.NormFloat64()*1000, 'f', r.IntN(5), 64)
		}
		if bits == 32 {
			return strconv.FormatFloat(float64(math.Float32frombits(r.Uint32())), 'g', -1, 32)
		}
		return strconv.FormatFloat(math.Float64frombits(r.Uint64()), 'g', -1, 64)
	}
}

func drawNumeric(r *rand.Rand) string {
	switch r.IntN(10) {
	case 0:
		return pick("NaN", "Infinity", "-Infinity", "0", "-0", "0.00", "1e300", "1e-300", "-1.10e5")(r)
	case 1:
		return strings.Repeat("9", 1+r.IntN(300)) + "." + strings.Repeat("01", r.IntN(100)) + "0"
	}
	return strconv.FormatFloat(r.NormFloat64()*1e4, 'f', r.IntN(9), 64)
}

var textPieces = []string{
	"a", "word", " ", "\n", "\r", "\t", "\b", "\f", "\x01", "\x1f", "\x7f", `"`, `""`, `\`, `\\`, `\n`, `\u0041`, "'", "/", "{", "}", "(", ")", "[", "]", ",", ";", ":", "NULL", "null",
	"é", "ß", "\u2028", "漢字", "😀", "\U0010fffd", "<&>", "=>", "0123456789abcdef",
}

func drawText(r *rand.Rand) string {
	switch r.IntN(600) {
	case 0:
		return strings.Repeat(textPieces[r.IntN(len(textPieces))], 3000)
	case 1, 2: // too random to be compressed away
		b := make([]byte, 6000)
		for i := range b {
			b[i] = byte(' ' + r.IntN(95))
		}
		return string(b)
	case 3, 4, 5, 6, 7, 8:
		return pick("", "NULL", "null", `"`, `\`, " ", "{}", "()", "\\N", "\\.")(r)
	}
	var b strings.Builder
	for range r.IntN(8) {
		b.WriteString(textPieces[r.IntN(len(textPieces))])
	}
	return b.String()
}

// drawLong writes a megabyte now and then. It is not for elements of arrays.
func drawLong(r *rand.Rand) string {
	if r.IntN(100) == 0 {
		return strings.Repeat("0123456789 \\ \" \x02 é😀", 40_000)
	}
	return drawText(r)
}

func drawDate(r *rand.Rand) string {
	switch r.IntN(8) {
	case 0:
		return pick("infinity", "-infinity", "4713-01-01 BC", "0001-12-31 BC", "5874897-12-31", "10000-01-01", "99999-02-28")(r)
	case 1:
		return fmt.Sprintf("%04d-%02d-%02d BC", 1+r.IntN(4000), 1+r.IntN(12), 1+r.IntN(28))
	}
	return fmt.Sprintf("%04d-%02d-%02d", 1+r.IntN(9999), 1+r.IntN(12), 1+r.IntN(28))
}

func drawTime(r *rand.Rand) string {
	switch r.IntN(8) {
	case 0:
		return pick("24:00:00", "00:00:00", "23:59:59.999999")(r)
	case 1:
		return fmt.Sprintf("%02d:%02d:%02d", r.IntN(24), r.IntN(60), r.IntN(60))
	}
	return fmt.Sprintf("%02d:%02d:%02d.%0*d", r.IntN(24), r.IntN(60), r.IntN(60), 1+r.IntN(6), r.IntN(10))
}

func drawZone(r *rand.Rand) string { return pick("+00", "-03:30", "+05:45", "+14", "-12:34:56")(r) }

func drawTimestamp(r *rand.Rand) string {
	switch r.IntN(8) {
	case 0:
		return pick("infinity", "-infinity", "4713-01-01 00:00:00 BC", "294276-12-31 23:59:59.999999", "0044-03-15 12:00:00.5 BC", "1999-12-31 24:00:00")(r)
	case 1:
		return fmt.Sprintf("%05d-%02d-%02d %s", 10000+r.IntN(200000), 1+r.IntN(12), 1+r.IntN(28), drawTime(r))
	}
	return fmt.Sprintf("%04d-%02d-%02d %s", 1+r.IntN(9998), 1+r.IntN(12), 1+r.IntN(28), drawTime(r))
}

func drawTimestamptz(r *rand.Rand) string {
	if r.IntN(8) == 0 {
		return pick("infinity", "-infinity", "0044-03-15 12:00:00.5+00 BC", "294276-12-31 23:59:59.999999+00")(r)
	}
	return fmt.Sprintf("%04d-%02d-%02d %s%s", 2+r.IntN(9990), 1+r.IntN(12), 1+r.IntN(28), drawTime(r), drawZone(r))
}

func drawInterval(r *rand.Rand) string {
	return fmt.Sprintf("%d years %d mons %d days %d.%06d seconds", r.IntN(9)-4, r.IntN(25)-12, r.IntN(70)-35, r.IntN(400000)-200000, r.IntN(3)*r.IntN(1000000)/2)
}

// drawJSON has no \u0000 and no half surrogate pairs: see
// TestJSONThatIsNoTextIsNoField.
func drawJSON(r *rand.Rand) string {
	return pick(`{}`, `[]`, `null`, `true`, `1.0e+5`, `-0`, `1.10`, `""`, `"a\"b\\c\/d\n\u00e9\ud83d\ude00 é"`, ` "spaced" `, "\n null\t", ` { "b" : 1 , "a":[1, {"x": null}], "a":2 } `,
		`[ 1,2 ,"\u0001\t" ]`, `{"\u00e9":"\u007f","t":"}{,\""}`, `12345678901234567890.123456789`, `"`+strings.Repeat("long ", 600)+`"`)(r)
}

func drawXML(r *rand.Rand) string {
	return pick(`<a>b &amp; "c"</a>`, `text <b/> content`, `<?xml version="1.0" encoding="UTF-8" standalone="yes"?><a x='1'>é</a>`, ``)(r)
}

func drawPoint(r *rand.Rand) string {
	draw := drawFloat(64)
	return "(" + draw(r) + "," + draw(r) + ")"
}

func drawBox(r *rand.Rand) string {
	return fmt.Sprintf("(%d,%g),(%d.5,%d)", r.IntN(100), r.NormFloat64(), r.IntN(100), -r.IntN(100))
}

func drawRange(bounds func(*rand.Rand) (string, string)) func(*rand.Rand) string {
	return func(r *rand.Rand) string {
		lower, upper := bounds(r)
		switch r.IntN(6) {
		case 0:
			return "empty"
		case 1:
			lower = ""
		case 2:
			upper = ""
		}
		return pick("[", "(")(r) + lower + "," + upper + pick("]", ")")(r)
	}
}

func drawHstore(r *rand.Rand) string {
	var pairs []string
	for range r.IntN(4) {
		pair := quoted(pick("a", "b b", `q"`, `\`, "", "NULL", "=>", "é\n")(r)) + "=>"
		if r.IntN(4) == 0 {
			pair += "NULL"
		} else {
			pair += quoted(pick("1", "t", "", "NULL", `"x" \`, "a, b", "\t\x01")(r))
		}
		pairs = append(pairs, pair)
	}
	return strings.Join(pairs, ", ")
}

// quoted writes an element of an array or composite.
func quoted(s string) string { return `"` + quoteEscapes.Replace(s) + `"` }

var quoteEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// drawArray writes an array of up to three dimensions, some with bounds of
// their own.
func drawArray(r *rand.Rand, delimiter string, element func(*rand.Rand) string) string {
	if r.IntN(8) == 0 {
		return "{}"
	}
	dimensions := 1
	if r.IntN(3) == 0 {
		dimensions += r.IntN(3)
	}
	bounds := ""
	lengths := make([]int, dimensions)
	for i := range lengths {
		lengths[i] = 1 + r.IntN(3)
		lower := r.IntN(5) - 2
		bounds += fmt.Sprintf("[%d:%d]", lower, lower+lengths[i]-1)
	}
	var write func(i int) string
	write = func(i int) string {
		if i == dimensions {
			if r.IntN(8) == 0 {
				return "NULL"
			}
			return quoted(element(r))
		}
		parts := make([]string, lengths[i])
		for k := range parts {
			parts[k] = write(i + 1)
		}
		return "{" + strings.Join(parts, delimiter) + "}"
	}
	if r.IntN(2) == 0 {
		return write(0)
	}
	return bounds + "=" + write(0)
}

func record(fields ...func(*rand.Rand) string) func(*rand.Rand) string {
	return func(r *rand.Rand) string {
		parts := make([]string, len(fields))
		for i, draw := range fields {
			if r.IntN(8) > 0 {
				parts[i] = quoted(draw(r))
			}
		}
		return "(" + strings.Join(parts, ",") + ")"
	}
}

// A renderer is a source over some tables and the shapes of their rows.
type renderer struct {
	t      *testing.T
	db     *pgx.Conn
	names  []database.Name
	source *pgsource.Source
	shapes map[string]*value.Shape
}

func newRenderer(t *testing.T, server *stack.Postgres, tables []string, statements ...string) *renderer {
	r := &renderer{t: t, shapes: map[string]*value.Shape{}}
	url := newDatabase(t, server)
	r.db = connectTo(t, url)
	execute(t, r.db, statements...)
	for _, s := range valueSettings {
		execute(t, r.db, "SET "+s)
	}
	for _, table := range tables {
		r.names = append(r.names, database.Name{Schema: "public", Table: table})
	}
	r.source = newSource(t, url, tables...)
	attach(t, r.source, "slot created")
	r.look()
	return r
}

// look reads the shapes anew.
func (r *renderer) look() {
	shapes, err := database.Shapes(within(r.t, time.Minute), r.db, r.names)
	if err != nil {
		r.t.Fatal(err)
	}
	for i, name := range r.names {
		r.shapes[name.Table] = &shapes[i]
	}
}

// next is the next row change.
func (r *renderer) next() *change.Change {
	for {
		c, err := r.source.Next(within(r.t, time.Minute))
		if err != nil {
			r.t.Fatal(err)
		}
		if c.Relation != nil {
			return c
		}
	}
}

// expect renders the change with some columns, or refuses to for a reason.
func (r *renderer) expect(c *change.Change, columns []string, wantReason string) {
	r.t.Helper()
	p, reason := r.shapes[c.Relation.Name].Compile(c.Relation, columns)
	if reason != wantReason {
		r.t.Errorf("%s %q: got reason %q, want %q", c.Relation.Name, columns, reason, wantReason)
	}
	if reason != "" {
		return
	}
	p.Bind(c.Relation.Wanted)
	got, reason := p.AppendJSON(nil, &c.New)
	var want string
	list := "*"
	if columns != nil {
		list = strings.Join(columns, ", ")
	}
	if err := r.db.QueryRow(within(r.t, time.Minute), `SELECT row_to_json(x)::text FROM (SELECT `+list+` FROM `+c.Relation.Name+`) x`).Scan(&want); err != nil {
		r.t.Fatal(err)
	}
	if string(got) != want {
		r.t.Errorf("%s %q: got %s %s, want %s", c.Relation.Name, columns, got, reason, want)
	}
}

// What the catalog says of a column decides whether it can be written from the
// log. One that cannot does not stand in the way of the others.
func TestOneColumnThatCannotBeExactSparesTheOthers(t *testing.T) {
	eachMajor(t, func(t *testing.T, server *stack.Postgres) {
		// From PostgreSQL 18 the log has what is stored, and lacks what is not.
		stored, virtual := `column "stored" is generated, and the log does not have it`, "STORED"
		if server.Major() >= 18 {
			stored, virtual = "", "VIRTUAL"
		}
		r := newRenderer(t, server, []string{"odd"},
			`CREATE TYPE own AS ENUM ('a')`,
			`CREATE FUNCTION own_json(own) RETURNS json IMMUTABLE LANGUAGE sql RETURN '"owned"'::json`,
			`CREATE CAST (own AS json) WITH FUNCTION own_json(own)`,
			`CREATE TYPE other AS ENUM ('a')`,
			`CREATE CAST (other AS json) WITH INOUT`, // is not asked by row_to_json
			`CREATE TYPE amounts AS RANGE (subtype = money)`,
			`CREATE TYPE inside AS (x int, y regtype)`,
			`CREATE TABLE odd (id int PRIMARY KEY, class regclass, types regtype[], price money, own own, other other,
				amounts amounts, inside inside, stored int GENERATED ALWAYS AS (id * 2) STORED,
				virtual int GENERATED ALWAYS AS (id * 3) `+virtual+`, acl aclitem, name text)`)
		execute(t, r.db, `INSERT INTO odd VALUES (1, 'odd', '{int}', 1.5, 'a', 'a', '[1,2)', '(1,int)', DEFAULT, DEFAULT, NULL, 'x')`)
		c := r.next()
		const resolved = " is printed as the session's search_path and the catalog have it"
		for column, want := range map[string]string{
			"class":   "regclass" + resolved,
			"types":   "regtype" + resolved,
			"price":   "money is printed as the session's lc_monetary has it",
			"own":     "own has a cast to json of its own",
			"amounts": "money is printed as the session's lc_monetary has it",
			"inside":  "regtype" + resolved,
			"acl":     "aclitem" + resolved,
		} {
			r.expect(c, []string{"id", column}, fmt.Sprintf("column %q: %s", column, want))
		}
		r.expect(c, []string{"id", "stored"}, stored)
		r.expect(c, []string{"id", "virtual"}, `column "virtual" is generated, and the log does not have it`)
		r.expect(c, []string{"id", "other", "name"}, "")
		if _, reason := r.shapes["odd"].Compile(c.Relation, nil); reason == "" {
			t.Error("all columns can be rendered")
		}
	})
}

// A row of a partition comes with the columns of the root, in their order,
// whatever the order is in the partition.
func TestARowOfAPartitionHasTheShapeOfTheRoot(t *testing.T) {
	eachMajor(t, func(t *testing.T, server *stack.Postgres) {
		r := newRenderer(t, server, []string{"root"},
			`CREATE TABLE root (gone int, id int PRIMARY KEY, name text, at timestamptz) PARTITION BY RANGE (id)`,
			`ALTER TABLE root DROP gone`,
			`CREATE TABLE leaf (at timestamptz, id int NOT NULL, gone int, name text)`,
			`ALTER TABLE leaf DROP gone`,
			`ALTER TABLE root ATTACH PARTITION leaf FOR VALUES FROM (0) TO (10)`)
		execute(t, r.db, `INSERT INTO root VALUES (1, 'x', '2024-02-29 12:00:00+00')`)
		r.expect(r.next(), nil, "")
	})
}

// Between an ALTER TABLE and the next look at the catalog nothing is written.
func TestAChangedTableIsRenderedAfterTheNextLook(t *testing.T) {
	eachMajor(t, func(t *testing.T, server *stack.Postgres) {
		r := newRenderer(t, server, []string{"grown"}, `CREATE TABLE grown (id int PRIMARY KEY, name varchar(10))`)
		r.names = append(r.names, database.Name{Table: "missing"})
		r.look()
		if missing := r.shapes["missing"]; len(missing.Columns) > 0 {
			t.Errorf("a table that does not exist has the columns %v", missing.Columns)
		}
		execute(t, r.db, `INSERT INTO grown VALUES (1, 'x')`)
		r.expect(r.next(), nil, "")
		for _, step := range []struct{ alter, reason string }{
			{`ALTER TABLE grown ADD size int DEFAULT 1`, `the catalog does not have column "size" where the log has it`},
			{`ALTER TABLE grown DROP name`, `the log does not have column "name"`},
			{`ALTER TABLE grown ADD name varchar(10)`, `the catalog does not have column "name" where the log has it`},
			{`ALTER TABLE grown ALTER name TYPE varchar(20)`, `column "name" has another type in the log than in the catalog`},
			{`ALTER TABLE grown RENAME name TO label`, `the catalog does not have column "label" where the log has it`},
		} {
			execute(t, r.db, step.alter, `UPDATE grown SET size = 2`)
			c := r.next()
			r.expect(c, nil, step.reason)
			r.look()
			r.expect(c, nil, "")
		}
	})
}

// Where json holds an escape that is no character, PostgreSQL prints the row and
// fails to give its texts. So the row is a string, and no hash.
func TestJSONThatIsNoTextIsNoField(t *testing.T) {
	eachMajor(t, func(t *testing.T, server *stack.Postgres) {
		r := newRenderer(t, server, []string{"escapes"}, `CREATE TABLE escapes (j json, js json[])`, `ALTER TABLE escapes REPLICA IDENTITY FULL`)
		for _, json := range []string{
			`"\u0000"`, `"\ud800"`, `"\udc00"`, `"\ud800\ud800"`, `"\ud800\n"`, `"\ud83d\ude00"`, `"\u0001\u001F\u007f"`, `"\\u0000"`,
			`{"\u0000":1}`, `["\ud800"]`, `{"a":"\\\u0000"}`, `{"a":"\ud83d\ude00\"\/\b\f\n\r\t"}`,
		} {
			for _, column := range []string{"j", "js"} {
				var argument any = json
				if column == "js" {
					argument = []string{json}
				}
				if _, err := r.db.Exec(within(t, time.Minute), `INSERT INTO escapes (`+column+`) VALUES ($1)`, argument); err != nil {
					t.Fatal(err)
				}
				c := r.next()
				r.expect(c, nil, "")
				var want string
				failed := r.db.QueryRow(within(t, time.Minute), `SELECT e.value FROM escapes t, json_each_text(row_to_json(t)) e WHERE e.value IS NOT NULL`).Scan(&want)
				p, _ := r.shapes["escapes"].Compile(c.Relation, nil)
				encoded, reason := p.AppendFields(nil, &c.New)
				if (failed != nil) != (reason != "") {
					t.Errorf("%s in %s: PostgreSQL: %v; we: %q", json, column, failed, reason)
				}
				for _, got := range value.Fields(encoded) {
					if string(got) != want {
						t.Errorf("%s in %s: got %q, want %q", json, column, got, want)
					}
				}
				execute(t, r.db, `DELETE FROM escapes`)
				r.next()
			}
		}
	})
}
