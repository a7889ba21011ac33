package main

import (
	"strings"
	"testing"

	"github.com/unstale/unstale/test/model/explore"
)

// A name that is mistyped must not look like a model in which nothing breaks.
func TestAWorldThatDoesNotExistIsSaid(t *testing.T) {
	err := model(explore.Limits{}, "nosuch")
	if err == nil || !strings.Contains(err.Error(), "sweeps a sweep beside fills") {
		t.Errorf("got %v, want the names of the worlds", err)
	}
}
