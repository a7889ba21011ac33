// Command chaos breaks Unstale, its PostgreSQL, its Redis and the network between
// at random moments under load, and demands that the cache is right all the time.
//
//	go run ./test/chaos -seed 7 -minutes 5 -faults kill,redis-flush
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/unstale/unstale/internal/stack"
	"github.com/unstale/unstale/test/chaos/engine"
)

func main() {
	seed := flag.Uint64("seed", 0, "of the moments and of the load; 0 takes one from the clock")
	minutes := flag.Float64("minutes", 2, "how long")
	faults := flag.String("faults", "", "which ones, with commas between; none for the load alone (default all)")
	flag.Parse()
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	chosen, err := engine.ParseFaults(*faults)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := chaos(ctx, *seed, time.Duration(*minutes*float64(time.Minute)), chosen); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func chaos(ctx context.Context, seed uint64, during time.Duration, faults []engine.Fault) error {
	fmt.Println("seed", seed)
	dir, err := os.MkdirTemp("", "unstale-chaos-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "unstale")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "github.com/unstale/unstale/cmd/unstale")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the binary: %w\n%s", err, out)
	}
	servers := stack.New(stack.Options{Say: func(line string) { fmt.Println(line) }})
	defer servers.Close()
	report, err := engine.Run(ctx, engine.Options{
		Binary: binary, Servers: servers, Dir: dir, Seed: seed, Instances: 2,
		Faults: faults, For: during, Whole: true,
		Say: func(line string) { fmt.Println(line) },
	})
	fmt.Println(report)
	return errors.Join(err, report.Proof())
}
