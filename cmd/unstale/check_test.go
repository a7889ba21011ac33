package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/config"
)

// A key that is nothing but a value looks like the keys of others, and a sweep
// drops those too.
func TestCheckAdvisesAgainstBareKeys(t *testing.T) {
	var found findings
	found.bareKeys(&config.Config{Entries: []config.Entry{
		{Name: "bare", Key: "{id}"}, {Name: "before", Key: "x:{id}"}, {Name: "behind", Key: "{id}:x"}, {Name: "two", Key: "{a}:{b}"}, {Name: "tag", Key: "{{{id}}}"},
	}})
	var got []string
	for _, f := range found {
		got = append(got, string(f.Severity)+" "+f.Subject)
	}
	if diff := cmp.Diff([]string{"advice entries.bare.key"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
