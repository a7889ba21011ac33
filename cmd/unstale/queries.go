package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/unstale/unstale/internal/config"
	"github.com/unstale/unstale/internal/database"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
	"github.com/unstale/unstale/internal/query"
)

// A derived is what follows from the query of an entry, or from its depends_on; zero for
// an entry over a table.
type derived struct {
	query        *query.Query // nil: depends_on
	types        []query.Type // of its parameters
	dependencies []plan.Dependency
	// letters are those of the key's placeholders, of depends_on.
	letters map[string]guard.Alphabet
	// keys are how to list the keys to warm, of an entry whose results are loaded; noKeys
	// says why they cannot be.
	keys   query.Keys
	noKeys string
	// listed are the relations that warm_keys names.
	listed [][2]string
	// asides are what is wrong with the configuration and no reason to doubt a value: a
	// lookup that no index can answer, a warm_keys that cannot be run.
	asides config.Problems
	// unverified is why PostgreSQL could not be asked what the query reads; nil: it was.
	unverified error
}

// derive derives the dependencies of every entry that is not over a table.
func derive(ctx context.Context, c *config.Config, conn *pgx.Conn, templates []*guard.Template) ([]derived, config.Problems, error) {
	found := make([]derived, len(c.Entries))
	queries := database.NewQueries(ctx, conn)
	var problems config.Problems
	var names []string
	var all []database.Derived
	for i := range c.Entries {
		entry := &c.Entries[i]
		if templates[i] == nil {
			continue
		}
		if entry.DependsOn != nil {
			wrong, err := found[i].take(queries, c, entry, templates[i].Columns())
			if err != nil {
				return nil, nil, fmt.Errorf("entry %s: %w", entry.Name, err)
			}
			problems = append(problems, wrong...)
		}
		if entry.Query == "" {
			continue
		}
		err := found[i].derive(queries, entry, templates[i].Columns())
		if wrong, ok := errors.AsType[*query.Error](err); ok {
			problems = append(problems, c.ProblemAt(entry.Path("query"), max(wrong.Offset, 0), wrong.Text, wrong.Mend))
		} else if err != nil {
			return nil, nil, fmt.Errorf("entry %s: %w", entry.Name, err)
		} else {
			names, all = append(names, entry.Name), append(all, database.Derived{Query: found[i].query, Types: found[i].types, Dependencies: found[i].dependencies})
			wrong, err := found[i].list(queries, entry, templates[i].Columns())
			if err != nil {
				return nil, nil, fmt.Errorf("entry %s: %w", entry.Name, err)
			}
			if wrong != nil {
				found[i].noKeys = "warm_keys: " + wrong.Text
				found[i].asides = append(found[i].asides, c.ProblemAt(entry.Path("warm_keys"), max(wrong.Offset, 0), wrong.Text, wrong.Mend))
			}
			if why := found[i].noIndex(); entry.Lookup == config.LookupIndex && why != "" {
				found[i].asides = append(found[i].asides, c.Problem(entry.Path("lookup"), "is index, and "+why, "write lookup: database, which is what answers, or leave it out"))
			}
		}
	}
	for i, err := range queries.Verify(all) {
		if wrong, ok := errors.AsType[*query.Error](err); ok {
			problems = append(problems, c.Problem("entries."+names[i]+".query", wrong.Text, wrong.Mend))
		} else if errors.Is(err, database.ErrUnverified) {
			at := slices.IndexFunc(c.Entries, func(e config.Entry) bool { return e.Name == names[i] })
			found[at].unverified = err
		} else if err != nil {
			return nil, nil, fmt.Errorf("entry %s: %w", names[i], err)
		}
	}
	return found, problems, nil
}

func (d *derived) derive(queries *database.Queries, entry *config.Entry, key []string) (err error) {
	if d.query, err = query.Parse(entry.Query); err != nil {
		return err
	}
	for _, name := range d.query.Parameters {
		if !slices.Contains(key, name) {
			return &query.Error{Offset: strings.Index(entry.Query, "@"+name), Text: "the key has no placeholder for @" + name, Mend: fmt.Sprintf("add {%s} to the key %s", name, entry.Key)}
		}
	}
	for _, name := range key {
		if !slices.Contains(d.query.Parameters, name) {
			return &query.Error{Text: fmt.Sprintf("the key has {%s}, and the query no @%s", name, name), Mend: fmt.Sprintf("compare a column with @%s, or take it out of the key", name)}
		}
	}
	if d.types, err = queries.Parameters(d.query); err != nil {
		return err
	}
	derive := d.query.Derive
	if entry.Lookup == config.LookupIndex {
		derive = d.query.DeriveIndexed
	}
	if d.dependencies, err = derive(queries, d.types, key); err != nil {
		return err
	}
	if err = queries.TakesDerived(d.dependencies); err != nil {
		return err
	}
	for _, of := range d.dependencies {
		if of.Sweeps() && !entry.AllowSweep {
			concerned, dropped := "every key", "every key of the entry"
			if len(of.Paths) > 0 {
				concerned, dropped = "keys of which it tells a part only", "every key with that part"
			}
			return &query.Error{
				Offset: of.Place,
				Text:   fmt.Sprintf("a change of %s.%s concerns %s: %s", of.Schema, of.Table, concerned, of.Why),
				Mend:   "tie it to the parameters by an equality; or write allow_sweep: true, and each such change drops " + dropped,
			}
		}
	}
	return nil
}

// wrongKeys is what is wrong with the entry's warm_keys.
func (d *derived) wrongKeys() (p config.Problem, ok bool) {
	at := slices.IndexFunc(d.asides, func(p config.Problem) bool { return strings.HasSuffix(p.Path, ".warm_keys") })
	if at < 0 {
		return p, false
	}
	return d.asides[at], true
}

// noIndex is why no index answers any lookup; empty: one does.
func (d *derived) noIndex() string {
	why := "no change needs a lookup: each leads to its keys by itself"
	asks := false
	for _, of := range d.dependencies {
		for _, path := range of.Paths {
			switch lookup := path.Lookup; {
			case lookup == nil:
			case lookup.Index != nil:
				return ""
			case !asks:
				asks, why = true, fmt.Sprintf("none can answer what a change of %s.%s looks up: %s", of.Schema, of.Table, lookup.NoIndex)
			}
		}
	}
	return why
}

// list finds how to list the keys of an entry whose results the service loads. wrong is
// what is wrong with its warm_keys.
func (d *derived) list(queries *database.Queries, entry *config.Entry, key []string) (wrong *query.Error, err error) {
	switch {
	case !entry.Loads():
		return nil, nil
	case entry.WarmKeys == "":
		d.keys, d.noKeys, err = d.query.Keys(queries, d.types, key)
	default:
		d.keys, err = d.written(queries, entry, key)
	}
	if err == nil && d.noKeys == "" && len(key) > 0 {
		err = queries.TakesKeys(d.keys)
	}
	if wrong, ok := errors.AsType[*query.Error](err); ok {
		if entry.WarmKeys != "" {
			return wrong, nil
		}
		d.noKeys, err = wrong.Text, nil
	}
	return nil, err
}

// written is how to list the keys as warm_keys says. Its error is a *query.Error where that
// is to blame.
func (d *derived) written(queries *database.Queries, entry *config.Entry, key []string) (keys query.Keys, err error) {
	q, err := query.Parse(entry.WarmKeys)
	if err != nil {
		return keys, err
	}
	if len(q.Parameters) > 0 {
		name := q.Parameters[0]
		return keys, &query.Error{Offset: strings.Index(entry.WarmKeys, "@"+name), Text: "@" + name + " has no value here: the keys are listed for nobody's", Mend: "return a column for each placeholder of the key"}
	}
	if d.listed, err = q.Reads(); err != nil {
		return keys, err
	}
	results, err := queries.Results(q, nil)
	if err != nil {
		return keys, err
	}
	if len(results) != len(key) {
		return keys, &query.Error{
			Offset: -1, Text: fmt.Sprintf("it returns %s, and the key %s has %s", counted(len(results), "column"), entry.Key, counted(len(key), "placeholder")),
			Mend: "return one for each, in their order",
		}
	}
	types := make([]query.Type, len(key))
	for i, name := range key {
		types[i] = d.types[slices.Index(d.query.Parameters, name)]
		// PostgreSQL would take it, and the cast fail at the first text that is no such value.
		if results[i].Text() && !types[i].Text() {
			return keys, &query.Error{
				Offset: -1, Text: fmt.Sprintf("column %d is %s, and {%s} is compared with %s", i+1, results[i].Name, name, types[i].Name),
				Mend: fmt.Sprintf("return the column that @%s is compared with; or, where every text is such a value, cast it: ...::%s", name, types[i].Name),
			}
		}
	}
	return q.KeysWritten(types), nil
}

// advice is what a person might mend of how the entry was derived.
func (d *derived) advice(entry, databaseName, role string) []database.Problem {
	if d.unverified == nil {
		return nil
	}
	return []database.Problem{{
		Severity: database.Advice, Subject: "entry " + entry, Text: d.unverified.Error(),
		Mend: []string{database.GrantTemporary(databaseName, role)},
	}}
}

// tablesOf are the tables whose changes concern an entry, each once.
func tablesOf(e *plan.Entry) []database.Name {
	if e.Table != "" {
		return []database.Name{{Schema: e.Schema, Table: e.Table}}
	}
	var names []database.Name
	for _, d := range e.Dependencies {
		if name := (database.Name{Schema: d.Schema, Table: d.Table}); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// needs are what the entry asks of each of its tables: the old values of the columns
// that lead to keys, and to be read by lookups, or by who loads the results.
func (d *derived) needs(entry *config.Entry) []database.TableNeed {
	read := map[database.Name][]string{} // by lookups
	for _, of := range d.dependencies {
		for _, path := range of.Paths {
			if path.Lookup == nil {
				continue
			}
			for _, table := range path.Lookup.Through {
				name := database.Name{Schema: table.Schema, Table: table.Table}
				read[name] = append(read[name], table.Reads...)
			}
		}
	}
	var needs []database.TableNeed
	for _, of := range d.dependencies {
		// Each that is read with it is a dependency of its own.
		need := database.TableNeed{Entry: entry.Name, Name: database.Name{Schema: of.Schema, Table: of.Table}, Inherited: true}
		if entry.Loads() {
			need.Loaded, need.Columns = true, of.Columns
		} else {
			need.Found = read[need.Name]
		}
		var direct []string
		for _, path := range of.Paths {
			if path.Lookup == nil {
				direct = append(direct, path.Columns()...)
			}
			for _, column := range path.Columns() {
				if !slices.Contains(need.KeyColumns, column) {
					need.KeyColumns = append(need.KeyColumns, column)
				}
			}
		}
		for _, column := range need.KeyColumns {
			if !slices.Contains(direct, column) {
				need.Passed = append(need.Passed, column)
			}
		}
		needs = append(needs, need)
	}
	return needs
}

// lookups are the statements of a planner's lookups.
func lookups(planner *plan.Planner) []string {
	var statements []string
	for _, lookup := range planner.Lookups() {
		statements = append(statements, lookup.SQL)
	}
	return statements
}

// members are the statements that find the members of a planner's indexes.
func members(planner *plan.Planner) []string {
	var statements []string
	for _, x := range planner.Indexes() {
		statements = append(statements, x.SQL)
	}
	return statements
}

// ways says how the database would run each lookup of the entries that it may run; of one that an index
// answers, how it would find the members of a set, of which it asks less of the rows.
func (x *examination) ways(ctx context.Context, conn *pgx.Conn) (map[*plan.Lookup]database.Way, error) {
	ways := map[*plan.Lookup]database.Way{}
	for _, lookup := range plan.New(x.entries).Lookups() {
		if _, known := ways[lookup.Lookup]; known {
			continue
		}
		var steps []database.Step
		for _, t := range lookup.Through {
			steps = append(steps, database.Step{Table: database.Name{Schema: t.Schema, Table: t.Table}, Columns: t.Columns})
		}
		statement, arguments := lookup.SQL, len(lookup.Arguments)
		if of := lookup.Index; of != nil {
			statement, arguments = of.SQL, len(of.Join)
			steps = []database.Step{{Table: database.Name{Schema: of.Schema, Table: of.Table}, Columns: of.Join}}
		}
		way, err := database.ExplainLookup(ctx, conn, statement, arguments, steps)
		if errors.Is(err, database.ErrUnallowed) {
			continue // check names the right
		}
		if err != nil {
			return nil, fmt.Errorf("entry %s: %w", x.entries[lookup.Entry].Name, err)
		}
		ways[lookup.Lookup] = way
	}
	return ways, nil
}

// unallowed are the entries whose lookups the role may not run, or whose results it may
// not load; the rights on tables are Diagnose's.
func (x *examination) unallowed(ctx context.Context, c *config.Config, conn *pgx.Conn) (problems []database.Problem, unlisted config.Problems, err error) {
	loads := x.loads()
	role := conn.Config().User
	say := func(entry, doing string, lack *database.Lack) {
		problems = append(problems, database.Problem{
			Severity: database.Wrong, Subject: "entry " + entry, Text: fmt.Sprintf("role %s may not %s: %s", role, doing, lack.Text), Mend: lack.Mend,
		})
	}
	for _, lookup := range plan.New(x.entries).Lookups() {
		name := x.entries[lookup.Entry].Name
		lack, err := database.LacksToFind(ctx, conn, lookup.SQL, len(lookup.Arguments))
		if err != nil {
			return nil, nil, fmt.Errorf("entry %s: %w", name, err)
		}
		if lack != nil {
			say(name, "look its keys up", lack)
		}
	}
	for i := range x.entries {
		name := x.entries[i].Name
		if loads[i].Query == "" || !x.entries[i].Loads() {
			continue
		}
		relations, err := x.derived[i].query.Reads()
		if err != nil {
			return nil, nil, err
		}
		lack, err := database.LacksToLoad(ctx, conn, &loads[i], relations)
		if err != nil {
			return nil, nil, fmt.Errorf("entry %s: %w", name, err)
		}
		if lack != nil {
			say(name, "load its results", lack)
			continue // what lists the keys reads the same
		}
		if lack, err = database.LacksToList(ctx, conn, &loads[i], x.derived[i].listed); err != nil {
			return nil, nil, fmt.Errorf("entry %s: %w", name, err)
		}
		switch entry := &c.Entries[i]; {
		case lack == nil:
		case entry.WarmKeys == "":
			say(name, "list its keys", lack)
		default:
			unlisted = append(unlisted, c.Problem(entry.Path("warm_keys"), fmt.Sprintf("role %s may not run it: %s", role, lack.Text), strings.Join(lack.Mend, " ")))
		}
	}
	return problems, unlisted, nil
}

// unindexed advises the indexes that lookups lack, each once.
func unindexed(x *examination, ways map[*plan.Lookup]database.Way) []database.Problem {
	var problems []database.Problem
	for i := range x.entries {
		for _, d := range x.entries[i].Dependencies {
			for _, path := range d.Paths {
				for _, missing := range ways[path.Lookup].Unindexed {
					p := database.Problem{
						Severity: database.Advice, Subject: "entry " + x.entries[i].Name,
						Text: fmt.Sprintf("a change of %s.%s looks its keys up in %s, which has no index for that: each statement reads the whole table", d.Schema, d.Table, missing.Table),
						Mend: missing.Mend,
					}
					if len(p.Mend) == 0 {
						p.Then = fmt.Sprintf("tie %s to it by an equality of columns; or make an index of the expression that ties it", missing.Table)
					}
					if !slices.ContainsFunc(problems, func(before database.Problem) bool {
						return slices.Equal(before.Mend, p.Mend) && before.Then == p.Then
					}) {
						problems = append(problems, p)
					}
				}
			}
		}
	}
	return problems
}

// lingering advises on tables of indexes whose updates do not show where a row was
// before, each once.
func lingering(x *examination) []database.Problem {
	var problems []database.Problem
	var said []database.Name
	for i := range x.entries {
		for _, of := range x.entries[i].Indexes() {
			name := database.Name{Schema: of.Schema, Table: of.Table}
			at := slices.IndexFunc(x.tables, func(t database.Table) bool { return t.Relation.Name == name })
			if !of.Unique || slices.Contains(said, name) || x.tables[at].Replica.Holds(slices.Concat(of.Join, of.Key)) {
				continue
			}
			said = append(said, name)
			problems = append(problems, database.Problem{
				Severity: database.Advice, Subject: "table " + name.String(),
				Text: fmt.Sprintf("an update does not show the old %s: a row that moves stays in the index of entry %s where it was, for up to a day, and its key is dropped with the others there", strings.Join(of.Join, ", "), x.entries[i].Name),
				Mend: []string{fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY FULL;", name.SQL())},
			})
		}
	}
	return problems
}

// alphabet says which characters the values of a placeholder can hold.
func (d *derived) alphabet(placeholder string) guard.Alphabet {
	if d.query == nil {
		return d.letters[placeholder]
	}
	return alphabetOf(d.types[slices.Index(d.query.Parameters, placeholder)])
}

func alphabetOf(of query.Type) guard.Alphabet {
	switch of.Base {
	case "int2", "int4", "int8", "oid":
		return guard.Integer
	case "uuid":
		return guard.UUID
	case "bool":
		return guard.Boolean
	}
	return guard.AnyText
}

// load is the query with the values of the key's placeholders in place of its
// parameters.
func (d *derived) load(key []string) string {
	if d.query == nil {
		return ""
	}
	return d.query.With(func(i int) string {
		return database.AskedFor(slices.Index(key, d.query.Parameters[i]), d.types[i].Name)
	})
}
