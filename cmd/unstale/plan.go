package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/spf13/cobra"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/database"
	"github.com/unstale/unstale/internal/plan"
	"github.com/unstale/unstale/internal/value"
)

func newPlan() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show what a change does to which keys",
		Long: `Plan prints, for each table, what each kind of change does to which keys: like
EXPLAIN, without doing it. With --change it prints the effects of one change, as
the log would carry it under the table's replica identity.

The change is JSON: table, op (c or insert, u or update, d or delete, t or
truncate), before and after. A column that is not given is one that the log does
not have. A value that JSON knows as text is as PostgreSQL prints it.

With --depends-on it writes each entry over a query as one with depends_on that
drops the same keys, or more: for a value that the application makes itself.`,
		Example: `  unstale plan
  unstale plan --change '{"table":"products","op":"u","before":{"id":7},"after":{"id":8}}'`,
		Args: noArgs,
	}
	one := cmd.Flags().String("change", "", "a change as JSON")
	withSQL := cmd.Flags().Bool("sql", false, "print the statements of lookups, and those that list the keys of unstale warm")
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	asDependsOn := cmd.Flags().Bool("depends-on", false, "write entries over queries as depends_on")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var asked *askedChange
		if *one != "" {
			var err error
			if asked, err = parseChange(*one); err != nil {
				return usageError{fmt.Errorf("--change: %w", err)}
			}
		}
		if *asDependsOn && (asked != nil || *withSQL || *asJSON) {
			return usageError{errors.New("--depends-on prints a configuration: take the other flags out")}
		}
		c, err := loadConfig(cmd)
		if err != nil {
			return err
		}
		options, err := databaseConfig(c)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), checkTimeout)
		defer cancel()
		conn, err := pgx.ConnectConfig(ctx, options)
		if err != nil {
			return fmt.Errorf("database: %w", err)
		}
		defer conn.Close(context.WithoutCancel(ctx))
		x, err := examine(ctx, c, conn)
		if err != nil {
			return err
		}
		if err := x.asides.Err(); err != nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s\n\n", err)
		}
		for _, p := range x.problems {
			if p.Severity == database.Wrong {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s\n\n", p) // what follows holds once this is mended
			}
		}
		if *asDependsOn {
			return printDependsOn(cmd.OutOrStdout(), database.NewQueries(ctx, conn), x.entries)
		}
		planner := plan.New(x.entries)
		if asked != nil {
			effects, err := asked.effects(planner, x)
			if err != nil {
				return fmt.Errorf("--change: %w", err)
			}
			return printEffects(cmd.OutOrStdout(), effects, *asJSON)
		}
		ways, err := x.ways(ctx, conn)
		if err != nil {
			return err
		}
		var rules []shownRule
		for _, r := range planner.Rules() {
			rules = append(rules, shownRule{Rule: r, lookedUp: lookedUpBy(r.Lookup, ways)})
		}
		for i := range x.entries {
			rules = append(rules, x.derived[i].warmRules(&x.entries[i])...)
		}
		return printRules(cmd.OutOrStdout(), rules, *withSQL, *asJSON)
	}
	return cmd
}

// A shownRule is a rule, and what the database says of its lookup.
type shownRule struct {
	plan.Rule
	lookedUp
	Statement string `json:"statement,omitempty"` // that lists the keys to warm
}

// ofTable reports whether it is one of an entry over a table.
func (r shownRule) ofTable() bool { return r.Op != anyOp && r.Op != warmOp }

// warmRules say how unstale warm finds the keys of an entry over a query.
func (d *derived) warmRules(e *plan.Entry) []shownRule {
	if d.query == nil || !e.Loads() {
		return nil
	}
	r := shownRule{Rule: plan.Rule{Op: warmOp, Effect: "load", Key: e.Key.String(), Entry: e.Name}, Statement: d.keys.All}
	if d.noKeys != "" {
		r.Why = d.noKeys
		if _, written := d.wrongKeys(); !written {
			r.Why += "; write warm_keys"
		}
	}
	return []shownRule{r}
}

// lookedUp is how the database would run a lookup.
type lookedUp struct {
	Keys      int64    `json:"keys,omitempty"`       // that it expects for one row
	Indexes   []string `json:"indexes,omitempty"`    // that it uses
	Unindexed []string `json:"unindexed,omitempty"`  // statements that make those it lacks
	ReadWhole []string `json:"read_whole,omitempty"` // tables of which it reads every row, whatever index there is
}

func lookedUpBy(lookup *plan.Lookup, ways map[*plan.Lookup]database.Way) lookedUp {
	way, known := ways[lookup]
	if !known {
		return lookedUp{}
	}
	l := lookedUp{Keys: way.Rows, Indexes: way.Indexes}
	for _, missing := range way.Unindexed {
		l.Unindexed = append(l.Unindexed, missing.Mend...)
		if len(missing.Mend) == 0 {
			l.ReadWhole = append(l.ReadWhole, missing.Table.String())
		}
	}
	return l
}

// print prints a line for what it is expected to find, and one for the way.
func (l *lookedUp) print(w io.Writer) {
	if l.Keys == 0 {
		return // it may not be asked
	}
	keys := "about 1 key a row"
	if l.Keys > 1 {
		keys = fmt.Sprintf("about %d keys a row", l.Keys)
	}
	if len(l.Indexes) > 0 {
		keys += ", by " + strings.Join(l.Indexes, ", ")
	}
	fmt.Fprintf(w, "      %s\n", keys)
	for _, table := range l.ReadWhole {
		fmt.Fprintf(w, "      reads all of %s\n", table)
	}
	for _, statement := range l.Unindexed {
		fmt.Fprintf(w, "      no index: %s\n", statement)
	}
}

// anyOp is the Op of a rule that follows from a query, warmOp that of what unstale warm does.
const (
	anyOp  = "any"
	warmOp = "warm"
)

// printWarm prints how the keys of entries over queries are listed.
func printWarm(w io.Writer, rules []shownRule) {
	for _, r := range rules {
		switch {
		case r.Op != warmOp:
		case r.Why != "":
			fmt.Fprintf(w, "unstale warm %s: not possible: %s\n", r.Entry, r.Why)
		case r.Statement == "":
			fmt.Fprintf(w, "unstale warm %s: the one key %s\n", r.Entry, r.Key)
		default:
			fmt.Fprintf(w, "unstale warm %s: the keys of\n  %s\n", r.Entry, strings.ReplaceAll(r.Statement, "\n", "\n  "))
		}
	}
}

// printDerived prints, for each entry over a query or with depends_on, what follows from
// it: a line for each place where it reads a table, and how a change there finds the keys.
func printDerived(w io.Writer, rules []shownRule, withSQL bool) {
	entry, place := "", ""
	for _, r := range rules {
		if r.Op != anyOp {
			continue
		}
		if r.Entry != entry {
			entry, place = r.Entry, ""
			fmt.Fprintf(w, "%s  %s\n", r.Entry, r.Key)
		}
		if at := r.Table + " " + r.Alias + " " + r.Where + " " + r.Columns; at != place {
			place = at
			_, name, _ := strings.Cut(r.Table, ".")
			if r.Alias != name {
				name = r.Table + " " + r.Alias
			} else {
				name = r.Table
			}
			fmt.Fprintf(w, "  %s: %s\n", name, cmp.Or(r.Columns, "any row"))
			if r.Where != "" {
				fmt.Fprintf(w, "    only rows with %s\n", r.Where)
			}
		}
		switch {
		case r.Any != "":
			fmt.Fprintf(w, "    sweep by %s, whatever %s is: %s\n", r.By, r.Any, r.Why)
		case r.Why != "":
			fmt.Fprintf(w, "    sweep every key: %s\n", r.Why)
		case r.Lookup == nil:
			effect := r.Effect
			if strings.Contains(effect, ",") { // drop, then load
				effect += ","
			}
			fmt.Fprintf(w, "    %s by %s\n", effect, cmp.Or(r.By, "any change: it is the only key"))
		default:
			fmt.Fprintf(w, "    look up by %s%s\n", r.By, through(r.Lookup))
			r.print(w)
			if r.LoadsMax != nil {
				fmt.Fprintf(w, "      %s\n", plan.LoadedAgain(*r.LoadsMax))
			}
			switch x := r.Lookup.Index; {
			case x != nil:
				fmt.Fprintf(w, "      in an index: %s by %s\n", strings.Join(x.Key, ", "), strings.Join(x.Join, ", "))
			case r.Lookup.NoIndex != "":
				fmt.Fprintf(w, "      in the database: %s\n", r.Lookup.NoIndex)
			}
			if withSQL {
				fmt.Fprintf(w, "      %s\n", strings.ReplaceAll(r.Lookup.SQL, "\n", "\n      "))
				if r.Lookup.Index != nil {
					fmt.Fprintf(w, "      the members of a set\n      %s\n", strings.ReplaceAll(r.Lookup.Index.SQL, "\n", "\n      "))
				}
			}
		}
	}
	if withSQL {
		printWarm(w, rules)
	}
	if entry != "" && slices.ContainsFunc(rules, shownRule.ofTable) {
		fmt.Fprintln(w)
	}
}

func through(lookup *plan.Lookup) string {
	var tables []string
	for _, t := range lookup.Through {
		table := t.Schema + "." + t.Table
		if len(t.Columns) > 0 {
			table += " (" + strings.Join(t.Columns, ", ") + ")"
		}
		tables = append(tables, table)
	}
	switch {
	case lookup.Written:
		return ", as depends_on says"
	case len(tables) == 0:
		return ", computed by PostgreSQL"
	}
	return ", through " + strings.Join(tables, ", ")
}

func printRules(w io.Writer, rules []shownRule, withSQL, asJSON bool) error {
	if asJSON {
		return printJSON(w, rules)
	}
	table, width := "", 0
	for _, r := range rules {
		if r.ofTable() {
			width = max(width, len(r.Effect))
		}
	}
	printDerived(w, rules, withSQL)
	for _, r := range rules {
		if !r.ofTable() {
			continue
		}
		if r.Table != table {
			if table != "" {
				fmt.Fprintln(w)
			}
			table = r.Table
			fmt.Fprintln(w, table)
		}
		op := r.Op
		if r.Columns != "" {
			op += " of " + r.Columns
		}
		of := ""
		if r.Of != "" {
			of = ", by " + r.Of
		}
		fmt.Fprintf(w, "  %-28s %-*s %s%s\n", op, width, r.Effect, r.Key, of)
	}
	return nil
}

func printEffects(w io.Writer, effects []plan.Outcome, asJSON bool) error {
	if asJSON {
		return printJSON(w, effects)
	}
	width := len("sweep")
	for _, e := range effects {
		width = max(width, len(e.Effect))
	}
	for _, e := range effects {
		more := ""
		switch {
		case e.Reason != "":
			more = "  (" + e.Reason + ")"
		case e.Value != "":
			more = " = " + e.Value
		case e.Fields != nil:
			var fields []string
			for _, f := range e.Fields {
				fields = append(fields, fmt.Sprintf("%s %q", f.Name, f.Value))
			}
			more = " = " + strings.Join(fields, ", ")
		}
		fmt.Fprintf(w, "%-*s %s%s\n", width, e.Effect, e.Key, more)
	}
	if len(effects) == 0 {
		fmt.Fprintln(w, "no effect")
	}
	return nil
}

// askedChange is what --change says.
type askedChange struct {
	Table  string
	Op     change.Op
	Before map[string]json.RawMessage
	After  map[string]json.RawMessage
}

var opsByName = map[string]change.Op{
	"c": change.Insert, "i": change.Insert, "insert": change.Insert,
	"u": change.Update, "update": change.Update,
	"d": change.Delete, "delete": change.Delete,
	"t": change.Truncate, "truncate": change.Truncate,
}

func parseChange(text string) (*askedChange, error) {
	var asked struct {
		Table  string                     `json:"table"`
		Op     string                     `json:"op"`
		Before map[string]json.RawMessage `json:"before"`
		After  map[string]json.RawMessage `json:"after"`
	}
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&asked); err != nil {
		return nil, fmt.Errorf("want one JSON object: %w", err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, errors.New("more than one change")
	}
	op := opsByName[strings.ToLower(asked.Op)]
	switch {
	case asked.Table == "":
		return nil, errors.New(`no "table"`)
	case op == 0:
		return nil, fmt.Errorf("op %q: want c, u, d or t", asked.Op)
	case (op == change.Insert || op == change.Update) && asked.After == nil:
		return nil, fmt.Errorf(`an %s needs "after"`, op)
	case op == change.Delete && asked.Before == nil:
		return nil, errors.New(`a delete needs "before"`)
	}
	return &askedChange{asked.Table, op, asked.Before, asked.After}, nil
}

// effects plans the change as the log would carry it.
func (a *askedChange) effects(planner *plan.Planner, x *examination) ([]plan.Outcome, error) {
	at := slices.IndexFunc(x.tables, func(t database.Table) bool { return a.names(t.Name) })
	if at < 0 {
		var names []string
		for i := range x.tables {
			names = append(names, x.tables[i].Name.String())
		}
		slices.Sort(names)
		return nil, fmt.Errorf("no entry is over table %q; entries are over %s", a.Table, strings.Join(slices.Compact(names), ", "))
	}
	relation := relationOf(&x.tables[at], &x.shapes[at])
	relation.Wanted = planner.Compile(relation)
	var keys []string
	for _, e := range x.entries {
		if e.Schema == relation.Schema && e.Table == relation.Name {
			keys = append(keys, e.Key.Columns()...)
		}
		for _, d := range e.Dependencies {
			for _, path := range d.Paths {
				if d.Schema == relation.Schema && d.Table == relation.Name {
					keys = append(keys, path.Columns()...)
				}
			}
		}
	}
	c := &change.Change{Op: a.Op, Relation: relation, Position: change.Position{LSN: 1}}
	var err error
	if a.Op == change.Insert || a.Op == change.Update {
		if c.New, err = row(relation, keys, "after", a.After, change.Whole); err != nil {
			return nil, err
		}
	}
	if a.Op == change.Update && a.Before == nil && relation.Identity == change.IdentityFull {
		return nil, fmt.Errorf(`"before" is missing: under REPLICA IDENTITY FULL, which %s.%s has, the log has the whole old row`, relation.Schema, relation.Name)
	}
	if a.Op == change.Delete || a.Op == change.Update && a.Before != nil {
		kind := change.IdentityOnly
		if relation.Identity == change.IdentityFull {
			kind = change.Whole
		}
		if c.Old, err = row(relation, keys, "before", a.Before, kind); err != nil {
			return nil, err
		}
	}
	// Under any identity but FULL an update shows its old row only if a column
	// of the identity has changed.
	if a.Op == change.Update && c.Old.Kind == change.IdentityOnly && sameIdentity(relation, c.Old, c.New) {
		c.Old = change.Row{}
	}
	return planner.Effects(c), nil
}

func (a *askedChange) names(name database.Name) bool {
	return a.Table == name.Table || a.Table == name.String() || a.Table == name.SQL()
}

// relationOf describes a table as the log would.
func relationOf(t *database.Table, shape *value.Shape) *change.Relation {
	r := &change.Relation{OID: t.OID, Schema: t.Relation.Name.Schema, Name: t.Relation.Name.Table, Identity: t.Replica.Identity()}
	identity, whole := t.Replica.Columns()
	for _, column := range shape.Columns {
		if known := t.Column(column.Name); known != nil && known.Logged {
			r.Columns = append(r.Columns, change.Column{
				Name: column.Name, TypeOID: column.TypeOID, TypeMod: column.TypeMod,
				Identifies: whole || slices.Contains(identity, column.Name),
			})
		}
	}
	return r
}

// row gives the wanted columns of a row. A column of a key that is not given is
// an error: the log would carry it.
func row(r *change.Relation, keys []string, name string, values map[string]json.RawMessage, kind change.RowKind) (change.Row, error) {
	made := change.Row{Kind: kind}
	for column := range values {
		if !slices.ContainsFunc(r.Columns, func(c change.Column) bool { return c.Name == column }) {
			return made, fmt.Errorf("%q has %q, which is no column of the table in the log", name, column)
		}
	}
	for _, at := range r.Wanted {
		column := r.Columns[at]
		if kind == change.IdentityOnly && !column.Identifies {
			made.Values = append(made.Values, change.Value{})
			continue
		}
		raw, ok := values[column.Name]
		switch {
		case !ok && slices.Contains(keys, column.Name):
			return made, fmt.Errorf("%q has no %q, which a key needs", name, column.Name)
		case !ok:
			made.Values = append(made.Values, change.Value{})
			continue
		}
		given, err := valueOf(raw, column.TypeOID)
		if err != nil {
			return made, fmt.Errorf("%q of %q: %w", column.Name, name, err)
		}
		made.Values = append(made.Values, given)
	}
	return made, nil
}

// valueOf gives a JSON value the text that PostgreSQL would print.
func valueOf(raw json.RawMessage, typeOID uint32) (change.Value, error) {
	switch text := string(raw); {
	case text == "null":
		return change.Value{State: change.Null}, nil
	case typeOID == pgtype.JSONOID || typeOID == pgtype.JSONBOID:
	case text == "true" || text == "false":
		return change.Value{State: change.Text, Text: raw[:1]}, nil
	case strings.HasPrefix(text, `"`):
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return change.Value{}, err
		}
		return change.Value{State: change.Text, Text: []byte(s)}, nil
	}
	return change.Value{State: change.Text, Text: raw}, nil
}

func sameIdentity(r *change.Relation, before, after change.Row) bool {
	for i, at := range r.Wanted {
		given := before.Values[i].State != change.Missing
		if given && r.Columns[at].Identifies && (before.Values[i].State != after.Values[i].State || string(before.Values[i].Text) != string(after.Values[i].Text)) {
			return false
		}
	}
	return true
}
