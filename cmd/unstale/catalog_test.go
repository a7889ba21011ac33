package main

import (
	"errors"
	"log/slog"
	"maps"
	"testing"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/config"
	"github.com/unstale/unstale/internal/database"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
)

// A name may have spaces. Another set of columns makes other values, which must
// not be taken for those that are cached; another order of them makes the same.
func TestAFingerprintHasTheSetOfColumns(t *testing.T) {
	key, err := guard.ParseTemplate("product:{id}")
	if err != nil {
		t.Fatal(err)
	}
	of := func(columns ...string) guard.Fingerprint {
		return fingerprint(&plan.Entry{Name: "product", Table: "products", Key: key, Columns: columns}, "f", "1 2", 0)
	}
	if of("a b") == of("a", "b") {
		t.Error("one column and two have the same fingerprint")
	}
	if of("a", "b") != of("b", "a") {
		t.Error("the order of the columns shows")
	}
	columns := []string{"b", "a"}
	if of(columns...); columns[0] != "b" {
		t.Error("the columns of the entry were sorted")
	}
}

// What was cached under another depends_on was not dropped by what now drops it.
func TestAFingerprintHasDependsOn(t *testing.T) {
	key, err := guard.ParseTemplate("product:{id}")
	if err != nil {
		t.Fatal(err)
	}
	of := func(dependencies ...config.Dependency) guard.Fingerprint {
		return fingerprint(&plan.Entry{Name: "product", Key: key, DependsOn: written(dependencies)}, "f", "1 2", 0)
	}
	products := config.Dependency{Name: "products", Table: "products", Key: []string{"id"}}
	reviews := config.Dependency{Name: "reviews", Table: "reviews", Key: []string{"product_id"}}
	narrower := products
	narrower.Columns = []string{"name"}
	if of(products) == of(products, reviews) || of(products) == of(narrower) {
		t.Error("another depends_on has the same fingerprint")
	}
	if products.Name = `"products"`; of(products) != of(config.Dependency{Table: "products", Key: []string{"id"}}) {
		t.Error("how a table's name is written shows")
	}
}

// An entry whose query shows something else is planned anew, also while that of another one
// cannot be planned.
func TestAnEntryIsPlannedAnewBesideOneThatCannotBe(t *testing.T) {
	at := func(column string) []plan.Dependency {
		return []plan.Dependency{{Schema: "public", Table: "items", Paths: []plan.Path{{Key: []string{column}}}}}
	}
	problem := func(path string) config.Problems { return config.Problems{{Path: path, Text: "why"}} }
	for _, test := range []struct {
		name      string
		found     string
		problems  config.Problems
		anew      bool
		unplanned map[string]string
	}{
		{"nothing has changed", "id", nil, false, map[string]string{}},
		{"one cannot be planned", "id", problem("entries.broken.query"), false, map[string]string{"broken": "why"}},
		{"one is to be planned anew", "other", problem("entries.broken.query"), true, map[string]string{"broken": "why"}},
	} {
		c := &catalog{logger: slog.New(slog.DiscardHandler), entries: []plan.Entry{
			{Name: "card", Query: "SELECT", Dependencies: at("id")}, {Name: "broken", Query: "SELECT"}, {Name: "table", Table: "items"},
		}}
		found := []derived{{dependencies: at(test.found)}, {}, {}}
		err := c.compare(found, test.problems)
		if errors.Is(err, change.ErrReplan) != test.anew || !maps.Equal(c.unplanned, test.unplanned) {
			t.Errorf("%s: %v, %v", test.name, err, c.unplanned)
		}
	}
}

// What the stream does not bring under the name of an entry's table is swept for with each
// look; no other entry is.
func TestAnEntryIsInDoubtWhileItsTableIsInherited(t *testing.T) {
	name := database.Name{Schema: "public", Table: "items"}
	c := &catalog{
		looks: 7, wrong: []database.Problem{{Entry: "item", Table: name}},
		entries: []plan.Entry{
			{Name: "item", Schema: "public", Table: "items"}, {Name: "other", Schema: "public", Table: "others"},
			{Name: "query", Query: "SELECT", Dependencies: []plan.Dependency{{Schema: "public", Table: "items"}}},
		},
	}
	today := guard.Fingerprints{"item": {Hash: "a"}, "other": {Hash: "a"}, "query": {Hash: "a"}}
	c.doubt(today)
	want := guard.Fingerprints{"item": {Hash: "a in doubt 7"}, "other": {Hash: "a"}, "query": {Hash: "a"}}
	if !maps.Equal(today, want) {
		t.Errorf("got %v, want %v", today, want)
	}
}
