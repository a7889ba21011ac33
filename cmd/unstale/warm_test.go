package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/unstale/unstale/internal/fill"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
)

// A right that is missing is named, and nobody is told that the same command goes
// on.
func TestAWarmNamesTheRightThatIsMissing(t *testing.T) {
	w := &warm{role: "app", entries: []plan.Entry{{Name: "order", Schema: "shop", Table: "Orders"}}}
	err := w.stopped(0, fmt.Errorf("estimate: %w", &pgconn.PgError{Code: "42501", Message: "permission denied for table Orders"}))
	for _, want := range []string{"permission denied", `GRANT SELECT ON "shop"."Orders" TO "app";`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "goes on") {
		t.Errorf("%q", err)
	}
	if err := w.stopped(0, errors.New("away")); !strings.Contains(err.Error(), "goes on") {
		t.Errorf("of another error: %q", err)
	}
	if err := w.stopped(0, fill.ErrSuperseded); strings.Contains(err.Error(), "goes on") {
		t.Errorf("of another owner: %q", err)
	}
}

// What was loaded before a sweep is gone, and only the watermark tells.
func TestAWatermarkTellsOfASweep(t *testing.T) {
	const key = "product:{id}"
	for _, test := range []struct {
		name  string
		mark  guard.Watermark
		found bool
		want  bool
	}{
		{"nothing has happened", guard.Watermark{Epoch: 3}, true, false},
		{"the service has started again", guard.Watermark{Epoch: 4}, true, false},
		{"another entry is swept", guard.Watermark{Epoch: 3, Sweeps: []guard.Sweep{{Key: "user:{id}"}}}, true, false},
		{"the entry is swept", guard.Watermark{Epoch: 3, Sweeps: []guard.Sweep{{Key: key, Letters: "i"}}}, true, true},
		{"redis was emptied", guard.Watermark{}, false, true},
		{"redis was emptied, and the service has noticed", guard.Watermark{Epoch: 1}, true, true},
	} {
		if got := sweeps(test.mark, test.found, 3, key); got != test.want {
			t.Errorf("%s: got %v", test.name, got)
		}
	}
}
