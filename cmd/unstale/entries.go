package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/unstale/unstale/internal/config"
	"github.com/unstale/unstale/internal/database"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/pgsource"
	"github.com/unstale/unstale/internal/plan"
	"github.com/unstale/unstale/internal/redissink"
	"github.com/unstale/unstale/internal/value"
)

// parseTemplates reads the key templates of all entries, in their order.
func parseTemplates(c *config.Config) ([]*guard.Template, config.Problems) {
	var problems config.Problems
	templates := make([]*guard.Template, len(c.Entries))
	for i, entry := range c.Entries {
		t, err := guard.ParseTemplate(entry.Key)
		if wrong, ok := errors.AsType[*guard.TemplateError](err); ok {
			problems = append(problems, c.ProblemAt(entry.Path("key"), wrong.Offset, wrong.Text, wrong.Mend))
			continue
		}
		if len(t.Columns()) == 0 && entry.Table != "" {
			problems = append(problems, c.Problem(entry.Path("key"), "a key without a placeholder",
				fmt.Sprintf("name the columns that tell two rows apart, such as %s:{id}", strings.TrimSuffix(entry.Key, ":"))))
			continue
		}
		templates[i] = t
	}
	// What two free texts could spell is judged when the columns are known.
	words := func(string) guard.Alphabet { return guard.Word }
	return templates, append(problems, collisions(c, templates, func(int) func(string) guard.Alphabet { return words })...)
}

// redisKeys are those of the entries that have a sound template.
func redisKeys(c *config.Config) (keys []redissink.Keys) {
	templates, _ := parseTemplates(c)
	for i, t := range templates {
		if t != nil {
			keys = append(keys, redissink.Keys{Template: t, Kept: c.Entries[i].OnChange != config.Invalidate})
		}
	}
	return keys
}

// collisions finds entries that could name the same key: a change to a row of
// one would leave the key of the other, or drop it for nothing.
func collisions(c *config.Config, templates []*guard.Template, alphabet func(entry int) func(column string) guard.Alphabet) config.Problems {
	var problems config.Problems
	for i, a := range templates {
		for j := range i {
			b := templates[j]
			if a == nil || b == nil || !a.Collide(b, alphabet(i), alphabet(j)) {
				continue
			}
			problems = append(problems, c.Problem(c.Entries[i].Path("key"),
				fmt.Sprintf("a key of this entry could also be one of entry %q (%s)", c.Entries[j].Name, b),
				fmt.Sprintf("begin one of them otherwise, such as %s:%s", c.Entries[i].Name, strings.TrimLeft(a.String(), ":"))))
		}
	}
	return problems
}

// An examination is what a look at the database tells about a configuration.
type examination struct {
	needs database.Needs
	// database is its name, as it names itself; alias, if it has another one, that of
	// the URL: a pooler's. Both are empty without a database.
	database, alias string

	entries []plan.Entry
	derived []derived // of the entries, in their order
	// unplanned are the entries over queries that cannot be planned, if they are held.
	unplanned map[string]config.Problem
	asides    config.Problems  // see derived
	tables    []database.Table // all that the entries are over, some several times
	shapes    []value.Shape    // of the tables
	// problems are the database's: what ought to be changed there.
	problems []database.Problem
}

// names are those of the database.
func (x *examination) names() []string {
	return slices.DeleteFunc([]string{x.database, x.alias}, func(name string) bool { return name == "" })
}

// tableNames are the tables that the entries are over, each once.
func (x *examination) tableNames() []database.Name {
	var names []database.Name
	for i := range x.entries {
		for _, name := range tablesOf(&x.entries[i]) {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// examine looks the tables of all entries up and has the database diagnosed. The
// error holds, at once, everything that is wrong with the configuration itself.
func examine(ctx context.Context, c *config.Config, conn *pgx.Conn) (*examination, error) {
	return examineHolding(ctx, c, conn, false)
}

// examineHolding is examine for who may hold entries over queries that cannot be planned:
// if nothing else is wrong they are no error, and have nothing that is derived.
func examineHolding(ctx context.Context, c *config.Config, conn *pgx.Conn, holds bool) (*examination, error) {
	templates, wrong := parseTemplates(c)
	queries, refused, err := derive(ctx, c, conn, templates)
	if err != nil {
		return nil, err
	}
	unplanned, asides := map[string]config.Problem{}, config.Problems(nil)
	for i := range c.Entries {
		if at := slices.IndexFunc(refused, func(p config.Problem) bool { return strings.HasPrefix(p.Path, "entries."+c.Entries[i].Name+".") }); at >= 0 {
			unplanned[c.Entries[i].Name] = refused[at]
			queries[i] = derived{}
		}
		asides = append(asides, queries[i].asides...)
	}
	if !holds {
		wrong = append(wrong, refused...)
	}
	needs := needsOf(c, templates, queries)
	names := make([]database.Name, len(needs.Tables))
	for i := range needs.Tables {
		names[i] = needs.Tables[i].Name
	}
	found, err := database.Diagnose(ctx, conn, needs)
	if err != nil {
		return nil, fmt.Errorf("diagnose the database: %w", err)
	}
	x := &examination{needs: needs, derived: queries, unplanned: unplanned, asides: asides}
	// The URL need not have a name, and a pooler's may be another one.
	if err := conn.QueryRow(ctx, "SELECT pg_catalog.current_database()").Scan(&x.database); err != nil {
		return nil, fmt.Errorf("ask the database for its name: %w", err)
	}
	if name := conn.Config().Database; name != x.database {
		x.alias = name
	}
	if reads, known := connectorReads(c, needs); known {
		// How the connector reads the log is its own business, unless values are
		// altered on their way: they would be set.
		problems, err := database.Diagnose(ctx, conn, reads)
		if err != nil {
			return nil, fmt.Errorf("diagnose the database: %w", err)
		}
		for _, p := range problems {
			if p.Alters {
				found = append(found, p)
			}
		}
	}
	for _, p := range found {
		if p.Entry == "" {
			x.problems = append(x.problems, p)
			continue
		}
		wrong = append(wrong, entryProblem(c, p))
	}
	for i := range queries {
		x.problems = append(x.problems, queries[i].advice(c.Entries[i].Name, x.database, conn.Config().User)...)
	}
	if x.tables, err = database.Tables(ctx, conn, names); err != nil {
		return nil, fmt.Errorf("look up the tables: %w", err)
	}
	if len(wrong) > 0 {
		if holds {
			wrong = append(wrong, refused...)
		}
		return x, wrong.Err()
	}
	if x.shapes, err = database.Shapes(ctx, conn, names); err != nil {
		return nil, fmt.Errorf("look up the tables: %w", err)
	}
	over := make([]*database.Table, len(c.Entries)) // nil: a query, or depends_on
	for i, entry := range c.Entries {
		described := plan.Entry{
			Name: entry.Name, Key: templates[i], Lease: entry.Lease, OnChange: onChange[entry.OnChange],
			Columns: entry.Columns, Hash: entry.Format == "hash", TTL: entry.TTL, Query: entry.Query, Many: entry.Rows == "many",
			CacheAbsent:  entry.CacheAbsent,
			RefreshMax:   entry.RefreshMax,
			Load:         queries[i].load(templates[i].Columns()),
			DependsOn:    written(entry.DependsOn),
			Dependencies: queries[i].dependencies,
		}
		at := slices.IndexFunc(needs.Tables, func(n database.TableNeed) bool { return n.Entry == entry.Name })
		for j := range described.Dependencies {
			d, table := &described.Dependencies[j], &x.tables[at+j]
			d.Partitioned, d.PrimaryKey = table.Kind == database.KindPartitioned, table.Replica.PrimaryKey
		}
		if entry.Table != "" {
			over[i] = &x.tables[at]
			described.Schema, described.Table = over[i].Relation.Name.Schema, over[i].Relation.Name.Table
			described.Partitioned, described.PrimaryKey = over[i].Kind == database.KindPartitioned, over[i].Replica.PrimaryKey
			described.Shape = x.shapes[at]
		}
		x.entries = append(x.entries, described)
	}
	for i := range templates {
		if _, held := unplanned[c.Entries[i].Name]; held {
			templates[i] = nil // what its placeholders can hold is not known
		}
	}
	return x, collisions(c, templates, func(entry int) func(string) guard.Alphabet {
		return func(column string) guard.Alphabet {
			if over[entry] == nil {
				return queries[entry].alphabet(column)
			}
			return alphabets[over[entry].Column(column).Alphabet()]
		}
	}).Err()
}

// needsOf says what the configuration asks of the database.
func needsOf(c *config.Config, templates []*guard.Template, queries []derived) database.Needs {
	needs := database.Needs{
		Foreign:         c.Source.FromKafka,
		Slot:            c.Source.Postgres.Slot,
		Publication:     c.Source.Postgres.Publication,
		ApplicationName: applicationName,
	}
	if c.Source.Postgres.URL != "" && !c.Source.FromKafka {
		// Whoever reads the stream is judged. A URL that cannot be read is said
		// by whoever connects to it.
		if replication, err := pgconn.ParseConfig(c.ReplicationConnString()); err == nil {
			needs.Role = replication.User
		}
	}
	for i, entry := range c.Entries {
		if entry.Table == "" {
			needs.Tables = append(needs.Tables, queries[i].needs(&c.Entries[i])...)
			continue
		}
		need := database.TableNeed{
			Entry: entry.Name, Name: database.Name{Schema: entry.Schema, Table: entry.Table},
			Written: entry.OnChange != config.Invalidate, Columns: entry.Columns, FromLog: entry.Sets(), Loaded: entry.Loads(),
		}
		if templates[i] != nil {
			need.KeyColumns = templates[i].Columns()
		}
		needs.Tables = append(needs.Tables, need)
	}
	return needs
}

// entryProblem gives a problem of the database that only the configuration can
// mend its place there.
func entryProblem(c *config.Config, p database.Problem) config.Problem {
	mend := strings.Join(append(slices.Clone(p.Mend), p.Then), "; ")
	i := slices.IndexFunc(c.Entries, func(e config.Entry) bool { return e.Name == p.Entry })
	entry := &c.Entries[i]
	switch {
	case entry.DependsOn != nil:
		return c.Problem(dependencyPath(entry, p), p.Subject+": "+p.Text, mend)
	case entry.Query != "":
		return c.Problem(entry.Path("query"), p.Subject+": "+p.Text, mend)
	case p.Setting == "key":
		return c.ProblemAt(entry.Path("key"), strings.Index(entry.Key, "{"+p.Column+"}"), p.Text, mend)
	case p.Setting == "columns":
		return c.Problem(entry.ColumnPath(slices.Index(entry.Columns, p.Column)), p.Text, mend)
	}
	return c.Problem(entry.Path(p.Setting), p.Text, mend)
}

var onChange = map[config.OnChange]plan.OnChange{
	config.Invalidate: plan.Invalidate,
	config.Update:     plan.Update,
	config.Warm:       plan.Warm,
	config.Refresh:    plan.Refresh,
}

var alphabets = map[database.Alphabet]guard.Alphabet{
	database.AnyText: guard.AnyText,
	database.Integer: guard.Integer,
	database.UUID:    guard.UUID,
	database.Boolean: guard.Boolean,
}

// published are the tables that the log must have, each once.
func (x *examination) published() (tables []pgsource.Table) {
	for i, need := range x.needs.Tables {
		name := x.tables[i].Name
		at := slices.IndexFunc(tables, func(t pgsource.Table) bool { return t.Schema == name.Schema && t.Name == name.Table })
		if at < 0 {
			tables = append(tables, pgsource.Table{Schema: name.Schema, Name: name.Table, Inherited: need.Inherited})
			continue
		}
		tables[at].Inherited = tables[at].Inherited && need.Inherited
	}
	return tables
}
