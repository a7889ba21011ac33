package query

import (
	"slices"
	"strings"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
)

// A log shows the planner what a transaction has changed as PostgreSQL's would: of old rows
// what the replica identity gives, and of new ones no long value that is as it was.
type log struct {
	*world
	relations map[string]*change.Relation
}

// log is one for a planner of its own. all: it says of every column that it is part of the
// replica identity, which is not so.
func (w *world) log(all bool) *log {
	l := &log{world: w, relations: map[string]*change.Relation{}}
	for i, t := range w.tables {
		r := &change.Relation{Number: i, Schema: "w", Name: t.name, Identity: change.IdentityFull}
		if t.sparse && len(t.partitions) == 0 {
			r.Identity = change.IdentityDefault
		}
		for _, c := range t.columns {
			r.Columns = append(r.Columns, change.Column{Name: c.name, Identifies: all || r.Identity == change.IdentityFull || slices.Contains(t.key, c.name)})
		}
		l.relations[t.name] = r
	}
	return l
}

// shows is a change as the log has it.
func (l *log) shows(c row) *change.Change {
	r := l.relations[c.table]
	shown := &change.Change{Relation: r}
	of := func(row map[string]*string, value func(column change.Column, text *string) change.Value) []change.Value {
		var values []change.Value
		for _, at := range r.Wanted {
			values = append(values, value(r.Columns[at], row[r.Columns[at].Name]))
		}
		return values
	}
	value := func(_ change.Column, text *string) change.Value {
		if text == nil {
			return change.Value{State: change.Null}
		}
		return change.Value{State: change.Text, Text: []byte(*text)}
	}
	t := l.tables[r.Number]
	switch {
	case c.truncated:
		shown.Op = change.Truncate
		return shown
	case c.old == nil:
		shown.Op = change.Insert
	case c.new == nil:
		shown.Op = change.Delete
	default:
		shown.Op = change.Update
	}
	moved := c.new == nil || slices.ContainsFunc(t.key, func(name string) bool { return !same(c.old[name], c.new[name]) })
	switch {
	case c.old == nil, t.sparse && !moved:
	case t.sparse:
		shown.Old = change.Row{Kind: change.IdentityOnly, Values: of(c.old, func(column change.Column, text *string) change.Value {
			switch {
			case slices.Contains(t.key, column.Name):
				return value(column, text)
			case r.Identity == change.IdentityFull:
				return change.Value{State: change.Null} // of a partition, under the name of the whole
			}
			return change.Value{}
		})}
		if r.Identity == change.IdentityFull {
			shown.Old.Kind = change.Whole
		}
	default:
		shown.Old = change.Row{Kind: change.Whole, Values: of(c.old, value)}
	}
	if c.new != nil {
		shown.New = change.Row{Kind: change.Whole, Values: of(c.new, func(column change.Column, text *string) change.Value {
			if t.toasts && c.old != nil && text != nil && same(c.old[column.Name], text) && slices.Contains([]string{"text", "varchar", "_text", "jsonb"}, t.column(column.Name).typ) {
				return change.Value{State: change.Unchanged}
			}
			return value(column, text)
		})}
	}
	return shown
}

// planned says for each transaction what plan.Planner drops; trusting: it takes old rows
// for whole that are not.
func (s *subject) planned(w *world, trusting bool, transactions [][]row, ask func(transaction int, of *plan.Lookup, rows []map[string]*string, into *drops)) ([]*drops, error) {
	text := "k"
	for _, name := range s.Parameters {
		text += ":{" + name + "}"
	}
	template, err := guard.ParseTemplate(text)
	if err != nil {
		return nil, err
	}
	entry := plan.Entry{Name: "e", Key: template, Query: s.SQL}
	log := w.log(trusting)
	for _, d := range s.dependencies {
		if d.Partitioned = d.Partitioned && !trusting; d.Partitioned {
			d.PrimaryKey = w.tables[log.relations[d.Table].Number].key
		}
		entry.Dependencies = append(entry.Dependencies, d)
	}
	planner := plan.New([]plan.Entry{entry})
	for _, r := range log.relations {
		r.Wanted = planner.Compile(r)
	}
	place := map[string]int{}
	for i, key := range s.keys {
		place[template.Key(key...)] = i
	}
	var result []*drops
	for number, changes := range transactions {
		d := &drops{some: map[int]bool{}}
		result = append(result, d)
		batch := plan.NewBatch()
		for _, c := range changes {
			planner.Plan(log.shows(c), batch)
		}
		for i := range batch.Len() {
			if at, ok := place[string(batch.Key(i))]; ok {
				d.some[at] = true
			}
		}
		for _, sweep := range batch.Sweeps {
			if sweep.Part == "" {
				d.all = true
				continue
			}
			part, err := guard.ParseTemplate(sweep.Part)
			if err != nil {
				return nil, err
			}
			for key, at := range place {
				if part.Matches(key) {
					d.some[at] = true
				}
			}
		}
		asks := make([][]map[string]*string, len(planner.Lookups()))
		for _, question := range batch.Questions {
			row := map[string]*string{}
			for i, argument := range planner.Lookups()[question.Lookup].Arguments {
				if question.Arguments[i].Valid {
					text := strings.Clone(question.Arguments[i].Text)
					row[argument.Column] = &text
				}
			}
			asks[question.Lookup] = append(asks[question.Lookup], row)
		}
		for i, rows := range asks {
			if len(rows) > 0 {
				ask(number, planner.Lookups()[i].Lookup, rows, d)
			}
		}
	}
	return result, nil
}
