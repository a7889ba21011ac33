package plan_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
	"github.com/unstale/unstale/internal/value"
)

var rewrite = flag.Bool("rewrite", false, "write what the stories in testdata should say")

// The stories in testdata, parted by empty lines: what is declared, what
// changes, and after the line what happens to which keys.
//
//	entry NAME TEMPLATE TABLE [on_change=MODE] [columns=(..)] [format=hash]
//	                                                   of a query, TABLE is -
//	depends ENTRY TABLE key=(..)|lookup=(..)|sweep=".." [columns=(..)] [where=..] [filtering=(..)] [filter=..] [partitioned=yes] [primary=(..)]
//	                                                   key and lookup as often as need be; in key
//	                                                   a * is a placeholder that is not known
//	    [index=(TABLE, (JOIN, ..), (KEY, ..)[, unique])]   answers the lookup before it
//	table TABLE (COLUMN, ..) [identity=KIND] [oid=N]   ! marks a column of the
//	                                                   replica identity, :N its type
//	change TABLE OP [before=(..)] [after=(..)] [reason=".."]
//	batch                                              what follows is the next batch
//	doubt                                              the batch may SET nothing
//	begin, commit                                      what stands between is one transaction
//	cut                                                the batch ends here
//	catalog TABLE (COLUMN, ..)                         what a later look has shown, where it
//	                                                   is not what the log says
//	reads TABLE                                        the columns that are decoded
//	rules
//
// A value is COLUMN=TEXT, NULL, ~ for a TOASTed one that the log left out, or
// LONG for one that is longer than the source gives, LONGER for one that is longer
// than a key's may be; a column that is not named is missing. Names that are no words are quoted.
func TestStories(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var written []string
			for told := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n\n") {
				input, want, _ := strings.Cut(told, "----")
				got := strings.TrimSpace(tell(t, input))
				if diff := cmp.Diff(strings.TrimSpace(want), got); diff != "" && !*rewrite {
					t.Errorf("%s(-want +got):\n%s", input, diff)
				}
				written = append(written, strings.TrimSpace(input+"----\n"+got))
			}
			if *rewrite {
				if err := os.WriteFile(path, []byte(strings.Join(written, "\n\n")+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// story is what the lines of one story have declared so far.
type story struct {
	t       *testing.T
	entries []plan.Entry
	planner *plan.Planner
	// tables holds each table as it was described last.
	tables map[string]*change.Relation
	count  int
	lsn    uint64
	open   bool // one transaction
	batch  *plan.Batch
	output strings.Builder
}

func tell(t *testing.T, input string) string {
	s := &story{t: t, tables: map[string]*change.Relation{}, batch: plan.NewBatch()}
	for line := range strings.Lines(input) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		words := split(line, ' ')
		switch words[0] {
		case "entry":
			s.entry(words[1:])
		case "depends":
			s.depends(words[1:])
		case "table":
			s.table(words[1:])
		case "change":
			s.change(words[1:])
		case "catalog":
			s.know(words[1], list(words[2]))
		case "doubt":
			s.batch.Doubt()
		case "commit":
			s.planner.Plan(&change.Change{Op: change.Commit, Position: change.Position{Timeline: 1, LSN: s.lsn + 1}}, s.batch)
			s.lsn, s.open = s.lsn+1, false
		case "begin":
			s.lsn, s.open = s.lsn+1, true
		case "cut":
			s.batch.Close()
		case "batch":
			s.flush()
			s.output.WriteString("next batch\n")
		case "reads":
			relation := s.tables[words[1]]
			var names []string
			for _, at := range relation.Wanted {
				names = append(names, relation.Columns[at].Name)
			}
			fmt.Fprintf(&s.output, "reads %s\n", strings.Join(names, ", "))
		case "rules":
			s.rules()
		default:
			t.Fatalf("%s: unknown word %q", line, words[0])
		}
	}
	s.flush()
	return s.output.String()
}

func (s *story) flush() {
	for i := range s.batch.Len() {
		said := "drop"
		switch s.batch.Effect(i) {
		case plan.Forget, plan.Reload:
			said = "forget"
		case plan.Set:
			said = "set"
		case plan.SetCached:
			said = "set if cached"
		}
		fmt.Fprintf(&s.output, "%s %s", said, s.batch.Key(i))
		encoded, lsn := s.batch.Value(i)
		switch {
		case s.batch.Loads(i):
			s.output.WriteString(", load it again")
		case s.batch.Effect(i) == plan.Reload:
			s.output.WriteString(", load it again if it was cached")
		case !strings.HasPrefix(said, "set"):
		case s.entries[s.batch.Entry(i)].Hash:
			fmt.Fprintf(&s.output, " at %d =", lsn)
			for name, text := range value.Fields(encoded) {
				fmt.Fprintf(&s.output, " %s=%s", name, text)
			}
		default:
			fmt.Fprintf(&s.output, " at %d = %s", lsn, encoded)
		}
		s.output.WriteByte('\n')
	}
	for _, incomplete := range s.batch.Incomplete {
		fmt.Fprintf(&s.output, "incomplete %s: %s\n", s.entries[incomplete.Entry].Name, incomplete.Reason)
	}
	for _, q := range s.batch.Questions {
		lookup := s.planner.Lookups()[q.Lookup]
		var arguments []string
		for i, text := range q.Arguments {
			value := "NULL"
			if text.Valid {
				value = text.Text
			}
			arguments = append(arguments, lookup.Arguments[i].Column+"="+value)
		}
		fmt.Fprintf(&s.output, "look up %s by %s\n", s.entries[lookup.Entry].Key, strings.Join(arguments, ", "))
	}
	for i := range s.batch.Edits() {
		edit := s.batch.Edit(i)
		said := "take out"
		if edit.Adds {
			said = "add"
		}
		values, _ := guard.MemberValues(nil, edit.Member)
		fmt.Fprintf(&s.output, "%s %s: %q of %s\n", s.planner.Indexes()[edit.Index].Table, said, values, edit.Set)
	}
	for _, sweep := range s.batch.Sweeps {
		swept := sweep.Part
		if swept == "" {
			swept = s.entries[sweep.Entry].Key.String()
		}
		fmt.Fprintf(&s.output, "sweep %s, %s", swept, sweep.Cause)
		if sweep.Reason != "" {
			fmt.Fprintf(&s.output, ": %s", sweep.Reason)
		}
		s.output.WriteByte('\n')
	}
	s.batch.Reset()
}

func (s *story) entry(words []string) {
	template, err := guard.ParseTemplate(plain(words[1]))
	if err != nil {
		s.t.Fatalf("template %s: %v", words[1], err)
	}
	e := plan.Entry{Name: words[0], Key: template, Lease: time.Second}
	if words[2] != "-" {
		e.Schema, e.Table = name(words[2])
	}
	for _, option := range words[3:] {
		switch key, value, _ := strings.Cut(option, "="); key {
		case "on_change":
			e.OnChange = map[string]plan.OnChange{"update": plan.Update, "warm": plan.Warm, "refresh": plan.Refresh}[value]
		case "columns":
			e.Columns = list(value)
		case "format":
			e.Hash = value == "hash"
		case "database":
			e.Undescribed = value == "none"
		default:
			s.t.Fatalf("unknown option %q", option)
		}
	}
	s.entries = append(s.entries, e)
}

func (s *story) depends(words []string) {
	i := slices.IndexFunc(s.entries, func(e plan.Entry) bool { return e.Name == words[0] })
	if i < 0 {
		s.t.Fatalf("no entry %s", words[0])
	}
	var d plan.Dependency
	d.Schema, d.Table = name(words[1])
	for _, option := range words[2:] {
		switch key, value, _ := strings.Cut(option, "="); key {
		case "key":
			columns := list(value)
			for i := range columns {
				if columns[i] == "*" {
					columns[i] = ""
				}
			}
			d.Paths = append(d.Paths, plan.Path{Key: columns})
		case "lookup":
			lookup := &plan.Lookup{}
			for _, column := range list(value) {
				lookup.Arguments = append(lookup.Arguments, plan.Argument{Column: column})
			}
			d.Paths = append(d.Paths, plan.Path{Lookup: lookup})
		case "index":
			words := list(value)
			x := &plan.Index{Join: list(words[1]), Key: list(words[2]), Unique: len(words) > 3}
			x.Schema, x.Table = name(words[0])
			for i := range x.Join {
				x.By = append(x.By, i)
			}
			d.Paths[len(d.Paths)-1].Lookup.Index = x
		case "sweep":
			d.Why = plain(value)
		case "columns":
			d.Columns = list(value)
		case "where":
			where := s.predicate(value)
			d.Where = &where
		case "filtering":
			d.Filtering = list(value)
		case "filter":
			d.Filters = append(d.Filters, s.predicate(value))
		case "partitioned":
			d.Partitioned = value == "yes"
		case "primary":
			d.PrimaryKey = list(value)
		default:
			s.t.Fatalf("unknown option %q", option)
		}
	}
	s.entries[i].Dependencies = append(s.entries[i].Dependencies, d)
}

// predicate reads ?, and(..), or(..), not(..), null(COLUMN), true(COLUMN), false(COLUMN),
// among(COLUMN, TEXT, ..), less(COLUMN, N) and atmost(COLUMN, N).
func (s *story) predicate(text string) plan.Predicate {
	if text == "?" {
		return plan.Predicate{}
	}
	word, _, _ := strings.Cut(text, "(")
	parts := list(text[len(word):])
	operator, known := map[string]plan.PredicateOp{
		"and": plan.And, "or": plan.Or, "not": plan.Not, "null": plan.IsNull, "true": plan.IsTrue, "false": plan.IsFalse,
		"among": plan.Among, "less": plan.Less, "atmost": plan.LessOrEqual,
	}[word]
	if !known {
		s.t.Fatalf("unknown predicate %q", text)
	}
	p := plan.Predicate{Op: operator}
	switch operator {
	case plan.And, plan.Or, plan.Not:
		for _, part := range parts {
			p.Args = append(p.Args, s.predicate(part))
		}
	case plan.Among:
		p.Column = parts[0]
		for _, value := range parts[1:] {
			p.Values = append(p.Values, plain(value))
		}
	case plan.Less, plan.LessOrEqual:
		p.Column, p.Number = parts[0], int64(number(s.t, parts[1]))
	default:
		p.Column = parts[0]
	}
	return p
}

// know tells the planner what a table looks like.
func (s *story) know(table string, columns []string) {
	shapes := make(plan.Shapes, len(s.entries))
	schema, bare := name(table)
	for i, e := range s.entries {
		if e.Schema != schema || e.Table != bare {
			continue
		}
		for _, column := range columns {
			c := s.column(column)
			shapes[i].Columns = append(shapes[i].Columns, value.Column{Name: c.Name, TypeOID: c.TypeOID, TypeMod: c.TypeMod, Type: &value.Type{OID: c.TypeOID, Name: "a type"}})
		}
	}
	s.planner.Know(shapes)
}

func (s *story) column(text string) change.Column {
	c := change.Column{TypeOID: 25, TypeMod: -1}
	text, c.Identifies = strings.CutSuffix(text, "!")
	text, kind, typed := strings.Cut(text, ":")
	if typed {
		c.TypeOID = uint32(number(s.t, kind))
	}
	c.Name = plain(text)
	return c
}

func (s *story) table(words []string) {
	if s.planner == nil {
		s.planner = plan.New(s.entries)
	}
	schema, table := name(words[0])
	r := &change.Relation{Number: s.count, OID: 1, Schema: schema, Name: table, Identity: change.IdentityDefault}
	s.count++
	for _, column := range list(words[1]) {
		r.Columns = append(r.Columns, s.column(column))
	}
	if s.tables[words[0]] == nil {
		s.know(words[0], list(words[1]))
	}
	for _, option := range words[2:] {
		switch key, value, _ := strings.Cut(option, "="); key {
		case "identity":
			r.Identity = change.Identity(value[0])
		case "oid":
			r.OID = uint32(number(s.t, value))
		default:
			s.t.Fatalf("unknown option %q", option)
		}
	}
	r.Wanted = s.planner.Compile(r)
	s.tables[words[0]] = r
}

func (s *story) change(words []string) {
	r := s.tables[words[0]]
	if r == nil {
		s.t.Fatalf("no table %s", words[0])
	}
	if !s.open {
		s.lsn++
	}
	c := &change.Change{Relation: r, XID: uint32(700 + s.lsn), LSN: s.lsn, Position: change.Position{Timeline: 1, LSN: s.lsn}}
	for op := change.Insert; op <= change.Undecodable; op++ {
		if op.String() == words[1] {
			c.Op = op
		}
	}
	for _, part := range words[2:] {
		switch key, value, _ := strings.Cut(part, "="); key {
		case "before":
			c.Old = s.row(r, value)
		case "after":
			c.New = s.row(r, value)
		case "reason":
			c.Reason = plain(value)
		default:
			s.t.Fatalf("unknown part %q", part)
		}
	}
	s.planner.Plan(c, s.batch)
}

// row is what a source gives: the wanted columns only.
func (s *story) row(r *change.Relation, text string) change.Row {
	values := make([]change.Value, len(r.Columns))
	given := list(text)
	for _, pair := range given {
		column, value, _ := strings.Cut(pair, "=")
		at := slices.IndexFunc(r.Columns, func(c change.Column) bool { return c.Name == plain(column) })
		if at < 0 {
			s.t.Fatalf("%s has no column %s", r.Name, column)
		}
		switch value {
		case "NULL":
			values[at] = change.Value{State: change.Null}
		case "~":
			values[at] = change.Value{State: change.Unchanged}
		case "LONGER":
			values[at] = change.Value{State: change.Text, Text: bytes.Repeat([]byte("x"), plan.KeyBytesMax+1)}
		case "LONG":
			values[at] = change.Value{State: change.Long}
		default:
			values[at] = change.Value{State: change.Text, Text: []byte(plain(value))}
		}
	}
	row := change.Row{Kind: change.IdentityOnly}
	if len(given) == len(r.Columns) {
		row.Kind = change.Whole
	}
	for _, at := range r.Wanted {
		row.Values = append(row.Values, values[at])
	}
	return row
}

func (s *story) rules() {
	for _, r := range plan.New(s.entries).Rules() {
		fmt.Fprintf(&s.output, "%s %s", r.Table, r.Op)
		if r.Columns != "" {
			fmt.Fprintf(&s.output, " of %s", r.Columns)
		}
		fmt.Fprintf(&s.output, ": %s %s", r.Effect, r.Key)
		if r.Of != "" {
			fmt.Fprintf(&s.output, " of %s", r.Of)
		}
		fmt.Fprintf(&s.output, " (%s)\n", r.Entry)
	}
}

// name reads a table's name, which is in public if it says nothing else.
func name(text string) (schema, table string) {
	parts := split(text, '.')
	if len(parts) == 1 {
		return "public", plain(parts[0])
	}
	return plain(parts[0]), plain(parts[1])
}

func list(text string) []string {
	inner := strings.TrimSuffix(strings.TrimPrefix(text, "("), ")")
	if inner == "" {
		return nil
	}
	items := split(inner, ',')
	for i := range items {
		items[i] = strings.TrimSpace(items[i])
	}
	return items
}

// split parts text at a character that stands outside quotes and parentheses.
func split(text string, at byte) []string {
	var parts []string
	quoted, depth, start := false, 0, 0
	for i := range len(text) {
		switch c := text[i]; {
		case c == '"' && (i == 0 || text[i-1] != '\\'):
			quoted = !quoted
		case quoted:
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == at && depth == 0:
			parts = append(parts, text[start:i])
			start = i + 1
		}
	}
	return append(parts, text[start:])
}

func plain(text string) string {
	if unquoted, err := strconv.Unquote(text); err == nil {
		return unquoted
	}
	return text
}

func number(t *testing.T, text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
