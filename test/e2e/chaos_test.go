package e2e

import (
	"flag"
	"testing"
	"time"

	"github.com/unstale/unstale/test/chaos/engine"
)

var chaosSeed = flag.Uint64("chaos.seed", uint64(time.Now().UnixNano()), "seed of the faults and of their load")

// chaosFor is long enough for each fault to be dealt about once.
const chaosFor = time.Minute

// Whatever breaks, and while it is broken: no hit is older than what had settled
// before the read began, none goes back in time, none is of a version that was
// never committed, and after quiet every cached value equals its row. The ways of
// keeping a cache that everyone knows show all of that under the same load.
//
// It does not run beside others: it takes the whole machine.
func TestChaosForAMinute(t *testing.T) {
	t.Logf("seed %d (again: -chaos.seed)", *chaosSeed)
	report, err := engine.Run(within(t, 4*time.Minute), engine.Options{
		Binary: binary, Servers: servers, Dir: t.TempDir(), Seed: *chaosSeed, Instances: 2,
		Faults: engine.AllFaults(), For: chaosFor, Whole: true,
		Say: func(line string) { t.Log(line) },
	})
	t.Log(report)
	if err != nil {
		t.Fatal(err)
	}
	if err := report.Proof(); err != nil {
		t.Error(err)
	}
}

// kill -9 at any moment loses nothing, an instance that only begins included:
// thirty of them, one after the other.
func TestChaosOfKills(t *testing.T) {
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
	if err := report.Proof(); err != nil {
		t.Error(err)
	}
}
