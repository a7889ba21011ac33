package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// Whoever has written a query is told what is wrong with it, where, and what mends it; and
// nothing else.
func TestWhatCheckSaysOfQueries(t *testing.T) {
	t.Parallel()
	f := newFixtureOn(t, sharedPostgres(t, 15), sharedRedis(t))
	execute(t, f.conn,
		`CREATE TABLE items (id int PRIMARY KEY, tags text[], js json, n numeric, name text, made timestamptz)`,
		`ALTER TABLE items REPLICA IDENTITY FULL`,
		`CREATE TABLE kinds (id int PRIMARY KEY, name text)`,
		`CREATE TABLE products (id int PRIMARY KEY, kind int, code char(3))`, `CREATE INDEX ON products (kind)`)
	var told strings.Builder
	for _, entry := range []string{
		"key: 'a:{tag}', query: 'SELECT id FROM items WHERE tags @> ARRAY[@tag]'",
		"key: 'a:{tag}', query: 'SELECT id FROM items WHERE @tag = ANY (tags)'",
		"key: 'a:{k}', query: 'SELECT id FROM items WHERE js->>''a'' = @k'",
		"key: 'a:{k}', query: 'SELECT id FROM items WHERE n::bigint = @k'",
		"key: 'a:{made}', query: 'SELECT id FROM items WHERE made = @made'",
		"key: 'a:{n}', query: 'SELECT id FROM items WHERE n = @n'",
		"key: 'a:{n}', query: 'SELECT id FROM items WHERE n::text = @n'",
		"key: 'a:{id}', lookup: index, query: 'SELECT p.id, k.name FROM products p JOIN kinds k ON k.id = p.kind WHERE p.id = @id'",
		"key: 'a:{id}', lookup: index, query: 'SELECT p.id, k.name FROM products p JOIN kinds k ON k.id = p.kind WHERE p.id = @id'}\n  b: {key: 'b:{kind}', query: 'SELECT id FROM products WHERE kind = @kind'",
		"key: 'a:{id}', query: 'SELECT coun(*) FROM items WHERE id = @id'",
		"key: 'a:{id}', query: 'SELECT Lowr(name) FROM items WHERE id = @id'",
		"key: 'a:{id}', query: 'SELECT lower(id) FROM items WHERE id = @id'",
	} {
		path, _ := writeConfig(t, f.config("  a: {"+entry+"}\n"))
		out, _, _ := unstaleCommand(t, "check", "--config", path)
		fmt.Fprintf(&told, "%s\n----\n", entry)
		for said := range strings.SplitSeq(out, "\n\n") {
			if said != "" && !strings.HasPrefix(said, "advice: setting ") { // of the server, whatever is written
				fmt.Fprintf(&told, "%s\n\n", strings.TrimSpace(strings.ReplaceAll(said, path, "unstale.yaml")))
			}
		}
	}
	golden(t, "words.txt", told.String())
}

// A right that is missing is said with the statement that gives it; whoever runs what is
// printed, until nothing is, may do everything.
func TestCheckNamesTheRightsThatQueriesNeed(t *testing.T) {
	t.Parallel()
	f := newFixtureOn(t, sharedPostgres(t, 15), sharedRedis(t))
	role := f.slot + "_reads"
	execute(t, f.conn,
		`CREATE SCHEMA hid`, `CREATE TABLE hid.items (id int PRIMARY KEY, kind int)`, `ALTER TABLE hid.items REPLICA IDENTITY FULL`,
		`CREATE TABLE kinds (id int PRIMARY KEY, name text)`, `CREATE TABLE wanted (id int)`, `CREATE INDEX ON hid.items (kind)`,
		`CREATE FUNCTION "Imm"(a int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN a; END'`,
		`CREATE FUNCTION hid.imm(a int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN a; END'`,
		`REVOKE EXECUTE ON FUNCTION "Imm"(int), hid.imm(int) FROM PUBLIC`,
		`CREATE VIEW cards AS SELECT id, "Imm"(id) AS n FROM kinds`,
		"CREATE ROLE "+role+" LOGIN REPLICATION", "GRANT pg_read_all_stats TO "+role)
	granted := regexp.MustCompile(`GRANT [^;]* TO ` + role + `;`)
	for _, test := range []struct{ entry, first, says string }{
		{"query: 'SELECT id FROM hid.items WHERE id = @id'", "USAGE ON SCHEMA hid", "entries.a.query: permission denied for schema hid"},
		{"depends_on: {hid.items: id}", "USAGE ON SCHEMA hid", "entries.a.depends_on.hid.items: permission denied for schema hid"},
		{"query: 'SELECT n FROM cards WHERE id = @id', on_change: refresh", "SELECT ON public.kinds", "role " + role + " may not load its results: permission denied for"},
		{"query: 'SELECT name FROM kinds WHERE id = @id', on_change: refresh, warm_keys: SELECT id FROM wanted", "SELECT ON public.kinds", "entries.a.warm_keys: role " + role + " may not run it: permission denied for table wanted"},
		{"query: 'SELECT k.name FROM kinds k JOIN hid.items i ON i.kind = k.id WHERE hid.imm(i.id) = @id'", "USAGE ON SCHEMA hid", "role " + role + " may not look its keys up: permission denied for function imm"},
	} {
		path, _ := writeConfig(t, strings.Replace(f.config("  a: {key: 'a:{id}', "+test.entry+"}\n"), f.url, as(role, f.url), 1))
		first, all := "", ""
		for range 6 {
			out, _, exit := unstaleCommand(t, "check", "--config", path)
			all += out
			mend := granted.FindAllString(out, -1)
			if len(mend) == 0 {
				if exit != 0 && !strings.Contains(out, "publication") || strings.Contains(out, "permission denied") {
					t.Errorf("%s: nothing mends\n%s", test.entry, out)
				}
				break
			}
			if first == "" {
				first = mend[0]
			}
			execute(t, f.conn, mend...)
		}
		if first != "GRANT "+test.first+" TO "+role+";" || !strings.Contains(all, test.says) {
			t.Errorf("%s: want first %s, and %s in\n%s", test.entry, test.first, test.says, all)
		}
		execute(t, f.conn, "DROP OWNED BY "+role, "GRANT pg_read_all_stats TO "+role)
	}
}

// A lookup may be let read no more than it does.
func TestALookupNeedsTheRightsOnItsColumns(t *testing.T) {
	t.Parallel()
	f := newFixtureOn(t, sharedPostgres(t, 15), sharedRedis(t))
	role := f.slot + "_finds"
	execute(t, f.conn,
		`CREATE TABLE kinds (id int PRIMARY KEY, name text)`, `CREATE TABLE products (id int PRIMARY KEY, kind int, name text)`,
		"CREATE ROLE "+role+" LOGIN REPLICATION")
	path, _ := writeConfig(t, strings.Replace(f.config("  a: {key: 'a:{id}', query: 'SELECT p.name, k.name AS kind FROM products p JOIN kinds k ON k.id = p.kind WHERE p.id = @id'}\n"), f.url, as(role, f.url), 1))
	const says = "it may not read what the lookups of a read of public.products"
	for _, test := range []struct {
		right string
		want  bool
	}{{"", false}, {"SELECT (id)", false}, {"SELECT (id, kind)", true}} {
		if test.right != "" {
			execute(t, f.conn, "GRANT "+test.right+" ON products TO "+role)
		}
		out, _, _ := unstaleCommand(t, "check", "--config", path)
		if strings.Contains(out, says) == test.want || test.want && strings.Contains(out, "permission denied") {
			t.Errorf("%s:\n%s", test.right, out)
		}
	}
}
