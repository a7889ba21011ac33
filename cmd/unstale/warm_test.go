package main

import (
	"testing"

	"github.com/unstale/unstale/internal/guard"
)

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
