package main

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/config"
	"github.com/unstale/unstale/internal/database"
	"github.com/unstale/unstale/internal/plan"
	"github.com/unstale/unstale/internal/value"
)

// The changes of a partition are those of its table: of one that the last look at the
// catalog has shown, and of one that is younger. Of a table that nobody can be asked
// about nothing is said.
func TestPartitionsAreFound(t *testing.T) {
	name := func(table string) database.Name { return database.Name{Schema: "public", Table: table} }
	x := &examination{entries: []plan.Entry{{Schema: "public", Table: "orders", Partitioned: true}}}
	tables, err := newTables(config.Kafka{}, x, plan.New(x.entries))
	if err != nil {
		t.Fatal(err)
	}
	var followed []database.Name
	tables.follow = func(partitions []database.Name) { followed = partitions }
	younger, full := name("orders_2027"), database.Replica{Setting: "f"}
	tables.look = func(_ context.Context, asked database.Name) (database.Table, error) {
		root := name("orders")
		switch asked {
		case younger:
			return database.Table{Relation: database.Relation{OID: 3, Name: asked, Replica: full}, Root: &root}, nil
		case name("users"):
			return database.Table{Relation: database.Relation{OID: 4, Name: asked}}, nil
		}
		return database.Table{}, errors.New("the database is away")
	}
	tables.describe([]database.Table{{
		Relation: database.Relation{OID: 1, Name: name("orders"), Replica: database.Replica{Setting: "d", PrimaryKey: []string{"id"}}},
		Below:    []database.Relation{{OID: 2, Name: name("orders_2026"), Partition: true, Replica: full}},
	}}, plan.Shapes{{Columns: []value.Column{{Name: "id"}}}})
	if diff := cmp.Diff([]database.Name{name("orders_2026")}, followed); diff != "" {
		t.Errorf("follows (-want +got):\n%s", diff)
	}
	for _, c := range []struct {
		table string
		found bool
		err   bool
	}{{"orders_2026", true, false}, {"orders_2027", true, false}, {"users", false, false}, {"carts", false, true}} {
		root, found, err := tables.root(t.Context(), "public", c.table)
		if found != c.found || (err != nil) != c.err || found && root.Table != "orders" {
			t.Errorf("%s: %v, %v, %v", c.table, root, found, err)
		}
		if described := tables.table("public", c.table); found && (described == nil || !described.Full || len(described.Shape.Columns) != 1) {
			t.Errorf("%s is %+v", c.table, described)
		}
	}
}
