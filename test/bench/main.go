// Command bench measures Unstale beside its limits: each number stands next to
// that of a peer which does less, measured in the same run on the same servers,
// so that a slow machine makes both slow and the ratio stays.
//
// It starts its own PostgreSQL, Redis and Kafka and leaves nothing behind.
// docs/benchmarks.md says how each number is measured.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

// A benchmark measures one thing and reports it.
type benchmark struct {
	name, about string
	run         func(context.Context, *bench) error
}

var benchmarks = []benchmark{
	{"rows", "rows of one transaction: drained, applied to Redis, allocations", benchRows},
	{"transactions", "transactions of one row: drained, applied to Redis", benchTransactions},
	{"values", "what it costs that changes set values", benchValues},
	{"latency", "from commit to Redis at 1,000 changes a second", benchLatency},
	{"memory", "resident memory of the built binary in one huge transaction", benchMemory},
	{"plan", "what planning a change costs with 20 query entries on its table", benchPlan},
	{"queries", "parsing and planning 1,000 queries at start", benchQueries},
	{"lookups", "10 entries that need one lookup each, beside the same statements alone", benchLookups},
	{"fanout", "one change that a million keys hang on", benchFanOut},
	{"names", "a sweep of a few keys beside a million others", benchNames},
	{"kafka", "a backlog of Debezium's records in Kafka: dropped, set, JSON, memory", benchKafka},
	{"kafka-latency", "from commit to Redis through Debezium and Kafka", benchKafkaLatency},
	{"kafka-instances", "instances that share a topic, and one that is killed", benchKafkaInstances},
	{"kafka-partitions", "a trickle through very many partitions", benchKafkaPartitions},
}

// sizes of a run.
type sizes struct {
	Runs           int // of each peer; medians are reported
	Rows           int // in one transaction
	Transactions   int // of one row
	LatencySecs    int // of each phase
	MemoryRows     int // in one transaction
	Lookups        int // transactions of one row, each of which asks ten
	FanOut         int // keys of one change
	Records        int // in Kafka
	ControlRecords int // of them, for the control
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintln(stderr, "Bench measures Unstale beside its limits. The benchmarks:")
		for _, b := range benchmarks {
			fmt.Fprintf(stderr, "  %-13s %s\n", b.name, b.about)
		}
		fmt.Fprintln(stderr, "Flags:")
		flags.PrintDefaults()
	}
	quick := flags.Bool("quick", false, "a short version: fewer rows, one run; its ratios are rough")
	only := flags.String("only", "", "run these benchmarks only, `names` divided by commas")
	asJSON := flags.Bool("json", false, "print one JSON object in place of the table")
	major := flags.Int("postgres", 0, "major version of PostgreSQL; 0 is the newest that is installed")
	runs := flags.Int("runs", 0, "`times` that each peer runs; 0 is the default")
	profiles := flags.String("profiles", "", "write a CPU profile of each part that runs in this process into `directory`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	chosen, err := choose(*only)
	if err != nil {
		return err
	}

	b := &bench{
		sizes:   sizes{Runs: 3, Rows: 1_000_000, Transactions: 200_000, LatencySecs: 10, MemoryRows: 5_000_000, Lookups: 100_000, FanOut: 1_000_000, Records: 1_000_000, ControlRecords: 5_000},
		major:   *major,
		say:     func(line string) { fmt.Fprintln(stderr, line) },
		profile: profiler{dir: *profiles},
		built:   map[string]string{},
	}
	if *quick {
		b.sizes = sizes{Runs: 1, Rows: 200_000, Transactions: 30_000, LatencySecs: 3, MemoryRows: 1_000_000, Lookups: 20_000, FanOut: 1_000_000, Records: 300_000, ControlRecords: 2_000}
	}
	if *runs > 0 {
		b.sizes.Runs = *runs
	}
	if err := b.start(ctx); err != nil {
		return errors.Join(err, b.close())
	}
	defer func() { err = errors.Join(err, b.close()) }()
	for _, one := range chosen {
		if err := one.run(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", one.name, err)
		}
	}
	if *asJSON {
		encoder := json.NewEncoder(stdout)
		encoder.SetIndent("", "  ")
		return encoder.Encode(b.report)
	}
	return b.report.print(stdout)
}

// choose returns the named benchmarks, all of them for no name.
func choose(names string) ([]benchmark, error) {
	if names == "" {
		return benchmarks, nil
	}
	var chosen []benchmark
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(benchmarks, func(b benchmark) bool { return b.name == strings.TrimSpace(name) })
		if i < 0 {
			return nil, fmt.Errorf("no benchmark is named %q; -help lists them", name)
		}
		chosen = append(chosen, benchmarks[i])
	}
	return chosen, nil
}
