package main

import (
	"testing"

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
