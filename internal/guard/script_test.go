package guard_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/guard"
)

// What is asked for before the service starts is what its scripts run later.
func TestCommandsAreThoseOfTheScripts(t *testing.T) {
	files, err := filepath.Glob("lua/*.lua")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	var want []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		// fill.lua and apply.lua have functions of their own for what may be refused.
		for _, found := range regexp.MustCompile(`(?:redis\.p?call|\b(?:try|edit))\('(\w+)'`).FindAllSubmatch(text, -1) {
			want = append(want, string(found[1]))
		}
	}
	// Those of no script are run by themselves.
	got := []string{}
	for _, command := range guard.Commands("key") {
		if command[0] != "SSCAN" {
			got = append(got, command[0])
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(slices.Compact(want), got); diff != "" {
		t.Errorf("commands (-scripts +asked for):\n%s", diff)
	}
}
