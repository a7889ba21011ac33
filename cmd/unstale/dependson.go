package main

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"unicode"

	"github.com/unstale/unstale/internal/config"
	"github.com/unstale/unstale/internal/database"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
	"github.com/unstale/unstale/internal/query"
)

// take makes dependencies of what depends_on says. The problems are all that is wrong
// with it.
func (d *derived) take(queries *database.Queries, c *config.Config, entry *config.Entry, key []string) (config.Problems, error) {
	d.letters = map[string]guard.Alphabet{}
	var problems config.Problems
	var taken []*query.Relation
	for i := range entry.DependsOn {
		t := &taker{queries: queries, config: c, entry: entry, at: i, key: key}
		if err := t.take(); err != nil {
			return nil, err
		}
		problems = append(problems, t.problems...)
		if len(t.problems) > 0 {
			continue
		}
		if before := slices.IndexFunc(taken, t.same); before >= 0 {
			t.refuse("", 0, "is the table "+entry.DependsOn[before].Name, "keep one of them; a lookup may be the UNION of several")
			problems = append(problems, t.problems...)
		}
		taken = append(taken, t.relation)
		d.add(t)
	}
	return problems, nil
}

// add adds the dependency, and one for each table that inherits from its table.
func (d *derived) add(t *taker) {
	for i, of := range t.types {
		letters, known := d.letters[t.key[i]]
		if known && letters != alphabetOf(of) {
			d.letters[t.key[i]] = guard.AnyText
		} else {
			d.letters[t.key[i]] = alphabetOf(of)
		}
	}
	for _, relation := range append([]*query.Relation{t.relation}, t.relation.Children...) {
		of := plan.Dependency{Schema: relation.Schema, Table: relation.Name, Alias: relation.Name, Columns: t.columns(relation)}
		if t.path != nil {
			of.Paths = []plan.Path{*t.path}
		} else {
			of.Why = "depends_on says so"
		}
		d.dependencies = append(d.dependencies, of)
	}
}

// A taker reads one dependency of an entry.
type taker struct {
	queries *database.Queries
	config  *config.Config
	entry   *config.Entry
	at      int      // index into the entry's DependsOn
	key     []string // the placeholders

	relation *query.Relation
	path     *plan.Path   // nil: every key
	types    []query.Type // of the values that the path leads to
	problems config.Problems
}

// same reports whether it is the table of another dependency, under whatever name.
func (t *taker) same(other *query.Relation) bool {
	return other.Schema == t.relation.Schema && other.Name == t.relation.Name
}

func (t *taker) refuse(setting string, offset int, text, mend string) {
	t.problems = append(t.problems, t.config.ProblemAt(t.entry.DependencyPath(t.at, setting), offset, text, mend))
}

func (t *taker) take() (err error) {
	of := &t.entry.DependsOn[t.at]
	t.relation, err = t.queries.Relation(of.Schema, of.Table)
	if wrong, ok := errors.AsType[*query.Error](err); ok {
		t.refuse("", 0, wrong.Text, wrong.Mend)
		return nil
	}
	if err != nil {
		return err
	}
	if t.relation == nil {
		t.refuse("", 0, "there is no table "+of.Name, "name a table of this database, with its schema if search_path does not have it")
		return nil
	}
	if what, mend := t.relation.Untold(); what != "" {
		t.refuse("", 0, of.Name+" is "+what, mend)
		return nil
	}
	if t.relation.Kind == 'v' {
		t.refuse("", 0, of.Name+" is a view, and nothing is logged under its name", "name the tables behind it")
		return nil
	}
	t.have("columns", of.Columns)
	switch {
	case of.Sweep:
	case of.Lookup != "":
		err := t.lookup(of.Lookup)
		wrong, ok := errors.AsType[*query.Error](err)
		if !ok {
			return err
		}
		t.refuse("lookup", max(wrong.Offset, 0), wrong.Text, wrong.Mend)
	case len(of.Key) == 0 && len(t.key) > 0:
		t.refuse("", 0, "it does not say which keys a changed row leads to", fmt.Sprintf("name the column that has the value of {%s}; or write a lookup; or sweep: true", t.key[0]))
	case len(of.Key) != len(t.key):
		t.refuse("key", 0, fmt.Sprintf("%s, and the key %s has %s", counted(len(of.Key), "column"), t.entry.Key, counted(len(t.key), "placeholder")), "name one for each, in their order; or write a lookup")
	case t.have("key", of.Key):
		t.path = &plan.Path{Key: of.Key}
		for _, name := range of.Key {
			t.types = append(t.types, t.relation.Column(name).Type)
		}
	}
	return nil
}

// have reports whether the table has the columns of a setting.
func (t *taker) have(setting string, columns []string) bool {
	all := true
	for i, name := range columns {
		if t.relation.Column(name) == nil {
			all = false
			t.problems = append(t.problems, t.config.Problem(t.entry.DependencyColumnPath(t.at, setting, i), t.lacks(name), t.has()))
		}
	}
	return all
}

func (t *taker) lacks(column string) string {
	return fmt.Sprintf("%s.%s has no column %s", t.relation.Schema, t.relation.Name, column)
}

func (t *taker) has() string {
	var names []string
	for i := range t.relation.Columns {
		names = append(names, t.relation.Columns[i].Name)
	}
	return "it has " + strings.Join(names, ", ")
}

// lookup reads one. Its error is a *query.Error where the lookup is to blame.
func (t *taker) lookup(text string) error {
	q, err := query.Parse(text)
	if err != nil {
		return err
	}
	if len(q.Parameters) == 0 {
		return &query.Error{Offset: -1, Text: "no @column of the changed row is in it: every change would lead to the same keys", Mend: "compare a column with @column, or write sweep: true"}
	}
	columns := make([]query.Type, len(q.Parameters))
	for i, name := range q.Parameters {
		column, at := t.relation.Column(name), strings.Index(text, "@"+name)
		switch {
		case column == nil:
			return &query.Error{Offset: at, Text: t.lacks(name), Mend: t.has()}
		case isArray(column):
			return &query.Error{Offset: at, Text: name + " is an array, and arrays cannot be given to a lookup", Mend: "begin with another column"}
		}
		columns[i] = column.Type
	}
	if t.types, err = t.queries.Results(q, columns); err != nil {
		return err
	}
	if len(t.types) != len(t.key) {
		return &query.Error{
			Offset: -1, Text: fmt.Sprintf("it returns %s, and the key %s has %s", counted(len(t.types), "column"), t.entry.Key, counted(len(t.key), "placeholder")),
			Mend: "return one for each, in their order",
		}
	}
	for i, of := range t.types {
		if !of.Textual() {
			return &query.Error{
				Offset: -1, Text: fmt.Sprintf("what it returns for {%s} is %s, of which values that differ as texts are equal", t.key[i], of.Name),
				Mend: "cast it to text, as the application writes it into the key",
			}
		}
	}
	tables, err := q.Reads()
	if err != nil {
		return err
	}
	for _, table := range tables {
		hides, err := t.queries.Hides(table[0], table[1])
		if err != nil {
			return err
		}
		if hides {
			return &query.Error{
				Offset: strings.Index(text, table[1]), Text: fmt.Sprintf("row security hides rows of %s from this role, and the keys that they lead to would stay", table[1]),
				Mend: "ALTER ROLE ... BYPASSRLS, or read them through a view of the owner of the table",
			}
		}
	}
	found := q.Lookup(columns, t.types)
	t.path = &plan.Path{Lookup: found}
	return t.queries.Takes(found)
}

// columns are those that matter.
func (t *taker) columns(relation *query.Relation) []string {
	columns := slices.Clone(t.entry.DependsOn[t.at].Columns)
	if len(columns) == 0 {
		for i := range relation.Columns {
			columns = append(columns, relation.Columns[i].Name)
		}
	} else if t.path != nil {
		columns = append(columns, t.path.Columns()...)
	}
	slices.Sort(columns)
	return slices.Compact(columns)
}

// dependencyPath is the path of the dependency that a problem is about.
func dependencyPath(entry *config.Entry, p database.Problem) string {
	for i, of := range entry.DependsOn {
		if strings.HasSuffix(p.Subject, "."+of.Table) {
			return entry.DependencyPath(i, "")
		}
	}
	return entry.Path("depends_on")
}

func counted(n int, what string) string {
	switch n {
	case 0:
		return "no " + what
	case 1:
		return "one " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// written is what depends_on says, whatever its layout.
func written(dependencies []config.Dependency) string {
	var text strings.Builder
	for _, d := range dependencies {
		text.WriteString(d.YAML(0))
	}
	return text.String()
}

// printDependsOn prints, for each entry over a query, the depends_on that drops the
// same keys, or more.
func printDependsOn(w io.Writer, queries *database.Queries, entries []plan.Entry) error {
	entries = slices.DeleteFunc(slices.Clone(entries), func(e plan.Entry) bool { return e.Query == "" })
	if len(entries) == 0 {
		return errors.New("no entry is over a query: there is nothing to write as depends_on")
	}
	fmt.Fprintln(w, "entries:")
	for i := range entries {
		e := &entries[i]
		fmt.Fprintf(w, "  %s:\n    key: %s\n    depends_on:\n", e.Name, config.Scalar(e.Key.String()))
		sweeps := false
		for _, name := range tablesOf(e) {
			relation, err := queries.Relation(name.Schema, name.Table)
			if err != nil {
				return err
			}
			if relation == nil {
				return fmt.Errorf("table %s is gone", name)
			}
			of, comments := dependsOn(relation, slices.DeleteFunc(slices.Clone(e.Dependencies), func(d plan.Dependency) bool {
				return d.Schema != name.Schema || d.Table != name.Table
			}))
			if found, err := queries.Relation("", name.Table); err != nil {
				return err
			} else if found == nil || found.Schema != name.Schema {
				of.Schema = name.Schema
			}
			for _, comment := range comments {
				fmt.Fprintf(w, "      # %s\n", comment)
			}
			fmt.Fprint(w, of.YAML(6))
			sweeps = sweeps || of.Sweep
		}
		if sweeps {
			fmt.Fprintln(w, "    allow_sweep: true")
		}
	}
	return nil
}

// dependsOn is one dependency that drops what several of one table drop.
func dependsOn(relation *query.Relation, several []plan.Dependency) (of config.Dependency, comments []string) {
	of.Table = relation.Name
	var paths []plan.Path
	comment := func(text string) {
		text = strings.Map(func(r rune) rune {
			if !unicode.IsPrint(r) {
				return ' ' // it would end the comment
			}
			return r
		}, text)
		if !slices.Contains(comments, text) {
			comments = append(comments, text)
		}
	}
	for _, d := range several {
		if d.Where != nil {
			comment("of the query only rows with " + d.Where.String() + " count, here all do")
		}
		if d.Sweeps() {
			of.Sweep = true
			comment(d.Why)
		}
		for _, path := range d.Paths {
			if !slices.ContainsFunc(paths, func(p plan.Path) bool { return reflect.DeepEqual(p, path) }) {
				paths = append(paths, path)
			}
		}
		of.Columns = append(of.Columns, d.Columns...)
	}
	slices.Sort(of.Columns)
	if of.Columns = slices.Compact(of.Columns); len(of.Columns) == len(relation.Columns) {
		of.Columns = nil
	}
	if of.Sweep {
		return of, comments
	}
	if len(paths) == 1 && paths[0].Lookup == nil {
		of.Key = paths[0].Key
		return of, comments
	}
	var lookups []string
	for _, path := range paths {
		if at := slices.IndexFunc(path.Columns(), func(name string) bool { return isArray(relation.Column(name)) }); at >= 0 {
			of.Sweep = true
			comment(path.Columns()[at] + " is an array, which a lookup of depends_on cannot be given")
			return of, comments
		}
		text, ok := lookupOf(relation, &path, len(paths) > 1)
		if !ok {
			of.Sweep = true
			comment("the name of a column cannot be written behind an @")
			return of, comments
		}
		if !slices.Contains(lookups, text) {
			lookups = append(lookups, text)
		}
	}
	of.Lookup = strings.Join(lookups, "\nUNION\n")
	return of, comments
}

func isArray(column *query.Column) bool {
	return column != nil && strings.HasSuffix(column.Type.Name, "[]")
}

// lookupOf writes a path as a lookup.
func lookupOf(relation *query.Relation, path *plan.Path, asTexts bool) (text string, ok bool) {
	if path.Lookup != nil {
		return query.ForOne(path.Lookup, asTexts)
	}
	values := make([]string, len(path.Key))
	for i, name := range path.Key {
		values[i] = "@" + name + "::text"
		if column := relation.Column(name); column != nil && column.Base == "bool" {
			values[i] = "left(@" + name + "::text, 1)"
		}
	}
	text = "SELECT " + strings.Join(values, ", ")
	q, err := query.Parse(text)
	return text, err == nil && slices.Equal(q.Parameters, path.Key)
}
