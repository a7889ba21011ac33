package plan_test

import (
	"testing"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
	"github.com/unstale/unstale/internal/value"
)

// Where the changes of a table are spread over streams by the key of their records,
// an entry SETs only if those that concern one of its keys are in one of them. An
// older state that comes later through another stream would stay for good.
func TestAChangeOfASpreadTableSetsOnlyWhatIsInOrder(t *testing.T) {
	text := &value.Type{OID: 25, Name: "text"}
	for _, c := range []struct {
		name   string
		key    string
		keyed  []string
		spread bool
		scan   change.Scan
		want   plan.Effect
	}{
		{"the record's key", "o:{id}", []string{"id"}, true, change.Streamed, plan.Set},
		{"more than the record's key", "o:{id}:{customer}", []string{"id"}, true, change.Streamed, plan.Set},
		{"less than the record's key", "o:{id}", []string{"id", "customer"}, true, change.Streamed, plan.Forget},
		{"another column", "o:{id}", []string{"customer"}, true, change.Streamed, plan.Forget},
		{"another column, of a row that was read", "o:{id}", []string{"customer"}, true, change.Initial, plan.Forget},
		{"a record's key of which nothing is known", "o:{id}", nil, true, change.Streamed, plan.Forget},
		{"one stream", "o:{id}", []string{"customer"}, false, change.Streamed, plan.Set},
	} {
		template, err := guard.ParseTemplate(c.key)
		if err != nil {
			t.Fatal(err)
		}
		entry := plan.Entry{Name: "o", Key: template, Schema: "public", Table: "orders", OnChange: plan.Warm}
		relation := &change.Relation{Number: 1, Schema: "public", Name: "orders", Identity: change.IdentityFull}
		row := change.Row{Kind: change.Whole}
		for _, name := range []string{"id", "customer"} {
			entry.Shape.Columns = append(entry.Shape.Columns, value.Column{Name: name, TypeOID: 25, TypeMod: -1, Type: text})
			column := change.Column{Name: name, TypeOID: 25, TypeMod: -1, Identifies: true}
			for _, keyed := range c.keyed {
				column.Keyed = column.Keyed || keyed == name
			}
			relation.Columns = append(relation.Columns, column)
			row.Values = append(row.Values, change.Value{State: change.Text, Text: []byte("1")})
		}
		planner := plan.New([]plan.Entry{entry})
		relation.Wanted = planner.Compile(relation)
		b := plan.NewBatch()
		planner.Plan(&change.Change{Op: change.Insert, Relation: relation, New: row, XID: 7, Spread: c.spread, Scan: c.scan, Position: change.Position{LSN: 1}}, b)
		if got := b.Effect(0); got != c.want {
			t.Errorf("%s: effect %d, want %d", c.name, got, c.want)
		}
		if c.scan == change.Streamed && c.want == plan.Forget && !b.Loads(0) {
			t.Errorf("%s: it is not loaded again", c.name)
		}
	}
}
