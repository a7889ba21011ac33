package e2e

import (
	"flag"
	"testing"
	"time"

	"github.com/unstale/unstale/test/chaos/engine"
)

var chaosSeed = flag.Uint64("chaos.seed", uint64(time.Now().UnixNano()), "seed of the kill loop")

// kill -9 at any moment loses nothing: after thirty of them, while writers write
// and readers fill, no hit was older than what had settled, and every cached
// value equals its row. Readers that fill with a plain SET under the same load
// show what that is worth: they do see old rows.
func TestKillAtRandomMoments(t *testing.T) {
	t.Parallel()
	t.Logf("seed %d (again: -chaos.seed)", *chaosSeed)
	report, err := engine.Run(within(t, 3*time.Minute), engine.Options{
		Binary: binary, Servers: servers, Dir: t.TempDir(), Seed: *chaosSeed,
		Faults: []engine.Fault{engine.Kill}, Count: 30,
		Say: func(line string) { t.Log(line) },
	})
	t.Log(report)
	if err != nil {
		t.Fatal(err)
	}
	if report.Ready == 0 || report.Early == 0 {
		t.Errorf("kills of an instance that was ready: %d, that was not: %d; want both", report.Ready, report.Early)
	}
	if report.Plain.Stale == 0 {
		t.Error("the control never showed an old row: the load was too light to prove anything")
	}
}
