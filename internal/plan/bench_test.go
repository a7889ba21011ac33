package plan_test

import (
	"fmt"
	"testing"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
)

// What a change costs on whose table 20 entries over queries depend: nothing may be
// allocated where nothing is looked up. test/bench has the same with entries that were
// derived from SQL.
func BenchmarkPlan(b *testing.B) {
	columns := []string{"id", "category_id", "name", "price", "sold"}
	row := []string{"4711", "1234", "ware", "12", "f"}
	for _, c := range []struct {
		name    string
		of      func(i int) plan.Dependency
		changed int // column
	}{
		{"untouched", func(int) plan.Dependency {
			return plan.Dependency{Columns: []string{"id", "category_id", "price", "sold"}, Paths: []plan.Path{{Key: []string{"id"}}}}
		}, 2},
		{"spared", func(int) plan.Dependency {
			return plan.Dependency{Columns: []string{"id", "name"}, Paths: []plan.Path{{Key: []string{"id"}}}, Where: &plan.Predicate{Op: plan.And, Args: []plan.Predicate{
				{Op: plan.Less, Column: "price", Number: 100}, {Op: plan.IsTrue, Column: "sold"},
			}}}
		}, 2},
		{"one key of 20 entries", func(i int) plan.Dependency {
			d := plan.Dependency{Columns: []string{"id", "price"}, Paths: []plan.Path{{Key: []string{"id"}}}}
			if i == 7 {
				d.Columns = append(d.Columns, "name")
			}
			return d
		}, 2},
		{"20 keys", func(int) plan.Dependency {
			return plan.Dependency{Columns: []string{"id", "name"}, Paths: []plan.Path{{Key: []string{"id"}}}}
		}, 2},
		{"20 questions", func(int) plan.Dependency {
			return plan.Dependency{Columns: []string{"id", "name"}, Paths: []plan.Path{{Lookup: &plan.Lookup{Arguments: []plan.Argument{{Column: "id"}}}}}}
		}, 2},
	} {
		b.Run(c.name, func(b *testing.B) {
			var entries []plan.Entry
			for i := range 20 {
				template, err := guard.ParseTemplate(fmt.Sprintf("ware%d:{id}", i))
				if err != nil {
					b.Fatal(err)
				}
				d := c.of(i)
				d.Schema, d.Table = "public", "wares"
				entries = append(entries, plan.Entry{Name: fmt.Sprint(i), Key: template, Dependencies: []plan.Dependency{d}})
			}
			planner := plan.New(entries)
			r := &change.Relation{Schema: "public", Name: "wares", Identity: change.IdentityFull}
			for _, name := range columns {
				r.Columns = append(r.Columns, change.Column{Name: name, Identifies: true})
			}
			r.Wanted = planner.Compile(r)
			ch := &change.Change{Op: change.Update, Relation: r, XID: 1, LSN: 1, Position: change.Position{Timeline: 1, LSN: 1}}
			for _, version := range []*change.Row{&ch.Old, &ch.New} {
				version.Kind = change.Whole
				for _, at := range r.Wanted {
					text := row[at]
					if version == &ch.New && at == c.changed {
						text += "!"
					}
					version.Values = append(version.Values, change.Value{State: change.Text, Text: []byte(text)})
				}
			}
			batch := plan.NewBatch()
			b.ReportAllocs()
			number := 0
			for b.Loop() {
				// Another row each time, or its keys would be in the batch.
				number++
				for i, n := 3, number; i >= 0; i-- {
					ch.Old.Values[0].Text[i] = byte('0' + n%10)
					ch.New.Values[0].Text[i] = byte('0' + n%10)
					n /= 10
				}
				planner.Plan(ch, batch)
				if batch.Full() {
					batch.Reset()
				}
			}
		})
	}
}
