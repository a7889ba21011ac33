package main_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/test/model/explore"
	"github.com/unstale/unstale/test/model/world"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// testStates is what a small world must not come to: one that grows beyond takes
// all tests too long, and is for `make model`.
const testStates = 1_000_000

// With every rule in place, no promise breaks in any order of events. These are
// the small worlds; `make model` has the large ones.
func TestEveryPromiseHolds(t *testing.T) {
	for _, c := range world.Worlds() {
		t.Run(c.Part+"/"+c.Name, func(t *testing.T) {
			t.Parallel()
			result := c.Small(explore.Limits{States: testStates})
			t.Log(result.Summary())
			switch {
			case result.Broken != "":
				t.Errorf("%s\n%s", strings.Join(result.Story, "\n"), result.Broken)
			case !result.Exhausted:
				t.Error("not every order of events was seen: make this world smaller")
			}
		})
	}
}

// A rule without which nothing breaks is not needed, or not modelled. Each story
// says what happens without one.
func TestEveryRuleIsNeeded(t *testing.T) {
	for _, a := range world.Ablations() {
		t.Run(a.Name, func(t *testing.T) {
			t.Parallel()
			result := a.Run(explore.Limits{})
			golden(t, a.Name+".txt", a.Story(result))
			switch {
			case a.Unneeded == "" && result.Broken == "":
				t.Errorf("nothing breaks in %s", result.Summary())
			case a.Unneeded != "" && result.Broken != "":
				t.Errorf("it is said not to be needed, since %s", a.Unneeded)
			}
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(fmt.Errorf("%w (write it with -rewrite)", err))
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; -rewrite if it is right)\n%s", file, diff)
	}
}
