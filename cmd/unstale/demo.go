package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/unstale/unstale/internal/demo"
)

func newDemo() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See it work: a shop under load and three caches, on servers of its own",
		Long: `Demo starts a PostgreSQL and a Redis of its own (it fetches them if none are
installed, and touches none that run), fills a shop, changes its rows, and reads
them and what queries make of them through three caches side by side:

  TTL only          GET; after a miss SET with a TTL of 10 s
  DEL after event   the same with a TTL of 1 h; a consumer of PostgreSQL's log
                    sends DEL for each key that the changed row names
  Unstale           the Go client, and a real 'unstale run' with an entry for
                    each on_change (categories warm, products update, customers
                    refresh, orders invalidate), and three over queries: a
                    product's page with the name of its category, the list of a
                    category, and how many orders of a customer are open

DEL after event knows the page of a product that changes, both lists of one that
moves, and the customer of an order. It does not know whose pages show a category
that is renamed: no event has that, and Unstale looks it up.

All three get the same reads, each loads for itself, and after its SELECT the
application takes --load-time before it writes to the cache, as one does that
makes something of a row. Nothing else is arranged. So where two caches differ
in their hit rate of one table, that is what they do on a change.

A hit is stale if it is older than a change that was committed, and that both
consumers had applied (for Unstale the barrier says so), before the read began.
One checker judges all three. A result of a query is as old as the oldest row that
it shows; a row that a list lacks is not seen.

With --kafka changes reach Unstale through Debezium on Kafka Connect, Kafka and a
schema registry, all started for the demo (Java 17 is needed, Maven fetches them
once); DEL after event reads the log as before. Results of queries may then be
stale for as long as one partition lags behind another (docs/queries.md): such hits
are shown as well, and do not fail the demo.

--json prints one object at the end:

  seconds, changes, changes_per_second
  caches.ttl_only, caches.del_after_event, caches.unstale, each with
    reads
    hits                    reads that did not load from the database
    loads                   reads that did
    hit_rate                0 to 1
    stale                   stale hits
    keys_set                keys that changes have set, the one that measures
                            latency included; of update, also where not cached
    latency_ms {p50, p99}   from COMMIT having returned until Redis has dropped
                            the key, or for Unstale set it; null for ttl_only,
                            which is told nothing
    entries.category, .product, .customer, .order, .product_page,
    .category_list, .open_orders, each with
      on_change             in caches.unstale only
      reads, hits, loads, hit_rate, stale
  servers
  pipeline                with --kafka: kafka, connect, schema_registry, connector
                          (its state), lag_records

Exit code 1: Unstale served a stale hit, or its hit rate was less than half of
that of DEL after event. Ctrl-C ends the demo and removes everything.`,
		Example: `  unstale demo
  unstale demo --for 20s --json
  unstale demo --kafka
  unstale demo --changes-per-second 1000 --readers 64 --load-time 0`,
		Args: noArgs,
	}
	var options demo.Options
	flags := cmd.Flags()
	flags.DurationVar(&options.For, "for", 0, "end after this time under load (default: with Ctrl-C)")
	flags.IntVar(&options.ChangesPerSecond, "changes-per-second", demo.ChangesPerSecond, "rows changed in a second")
	flags.IntVar(&options.Readers, "readers", demo.Readers, "readers, each with a pause of 20 ms between two reads")
	flags.DurationVar(&options.LoadTime, "load-time", demo.LoadTime, "what the application takes between SELECT and write, on average")
	flags.BoolVar(&options.Kafka, "kafka", false, "have changes reach the service through Debezium, Kafka and a schema registry")
	asJSON := flags.Bool("json", false, "print one JSON object at the end, and nothing else on standard output")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkDemoFlags(&options); err != nil {
			return usageError{err}
		}
		executable, err := os.Executable()
		if err != nil {
			return err
		}
		options.Executable = executable
		return runDemo(cmd, options, *asJSON)
	}
	return cmd
}

func checkDemoFlags(o *demo.Options) error {
	switch {
	case o.For < 0:
		return fmt.Errorf("--for %s: want a time above 0", o.For)
	case o.ChangesPerSecond < 1 || o.ChangesPerSecond > demo.ChangesPerSecondMax:
		return fmt.Errorf("--changes-per-second %d: want 1 to %d", o.ChangesPerSecond, demo.ChangesPerSecondMax)
	case o.Readers < 1 || o.Readers > demo.ReadersMax:
		return fmt.Errorf("--readers %d: want 1 to %d", o.Readers, demo.ReadersMax)
	case o.LoadTime < 0 || o.LoadTime > demo.LoadTimeMax:
		return fmt.Errorf("--load-time %s: want 0 to %s", o.LoadTime, demo.LoadTimeMax)
	}
	if o.LoadTime == 0 {
		o.LoadTime = -1 // nothing, and not the default
	}
	return nil
}

func runDemo(cmd *cobra.Command, options demo.Options, asJSON bool) error {
	out, progress := cmd.OutOrStdout(), cmd.OutOrStdout()
	terminal := newTerminal(out)
	screen := demo.NewScreen(options, terminal != nil && os.Getenv("NO_COLOR") == "")
	switch {
	case asJSON:
		progress = cmd.ErrOrStderr()
	case terminal != nil:
		options.Show = func(r demo.Report) { terminal.draw(screen.Lines(r)) }
	default:
		next := 1.0
		options.Show = func(r demo.Report) {
			if r.Seconds >= next {
				next = r.Seconds + 0.9
				fmt.Fprintln(out, screen.Line(r))
			}
		}
	}
	options.Say = func(line string) { fmt.Fprintln(progress, line) }
	report, err := demo.New(options).Run(cmd.Context())
	if terminal != nil {
		terminal.restore()
	}
	if report == nil || err != nil {
		return err
	}
	if asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(report); err != nil {
			return err
		}
	} else {
		fmt.Fprintln(out, strings.Join(screen.Summary(*report), "\n"))
	}
	return report.Verdict()
}

// terminal is a screen that is drawn in place and gives back what was there.
type terminal struct {
	file  *os.File
	drawn bool
}

// newTerminal returns nil if out is no terminal that can be drawn on.
func newTerminal(out io.Writer) *terminal {
	file, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) || os.Getenv("TERM") == "dumb" {
		return nil
	}
	return &terminal{file: file}
}

const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J" // another screen, no cursor, no wrapping
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	home        = "\x1b[H"
	clearLine   = "\x1b[K"
	clearBelow  = "\x1b[J"
)

// draw writes all lines in one piece, so that nothing flickers. Errors are left
// alone: whoever closed the terminal ends the demo too.
func (t *terminal) draw(lines []string) {
	var text strings.Builder
	if !t.drawn {
		t.drawn = true
		text.WriteString(enterScreen)
	}
	if _, height, err := term.GetSize(int(t.file.Fd())); err == nil {
		lines = lines[:min(len(lines), height)]
	}
	text.WriteString(home)
	text.WriteString(strings.Join(lines, clearLine+"\r\n"))
	text.WriteString(clearLine + clearBelow)
	_, _ = t.file.WriteString(text.String())
}

func (t *terminal) restore() {
	if t.drawn {
		_, _ = t.file.WriteString(leaveScreen)
	}
}
