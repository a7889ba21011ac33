package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/unstale/unstale/internal/config"
)

// Exit codes.
const (
	exitDone  = 0
	exitWrong = 1 // something is wrong, and said on stderr
	exitUsage = 2
)

// usageError is a command line that cannot be understood.
type usageError struct{ error }

// helpOf is the command whose help says more of a command line.
func helpOf(root *cobra.Command, args []string) string {
	cmd, _, err := root.Find(args)
	if err != nil {
		cmd = root
	}
	return cmd.CommandPath()
}

// errSaid is something wrong that the command has printed itself.
var errSaid = errors.New("said already")

// execute runs one command line and returns the exit code.
func execute(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signalContext()
	defer stop()
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	var usage usageError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "unstale: %v\nRun '%s --help' for usage.\n", err, helpOf(root, args))
		return exitUsage
	case !errors.Is(err, errSaid):
		fmt.Fprintf(stderr, "unstale: %v\n", err)
	}
	return exitWrong
}

// signalContext ends with the first SIGINT or SIGTERM. The second one kills, as
// if nobody listened: whoever sends it does not want to wait.
func signalContext() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "unstale",
		Short: "Keep a Redis cache coherent with PostgreSQL",
		Long: `Unstale reads PostgreSQL's log and keeps the rows that a service caches in Redis
right: a committed change drops exactly the keys that it makes stale, or sets them to
the new row, or has them loaded again, as each entry says.`,
		Example: `  unstale demo                      see it work, on servers of its own
  unstale check                     what stands in the way, and what mends it
  unstale run                       keep the cache coherent`,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noArgs,
		// Without it cobra takes any word for a wish to read the help.
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SuggestionsMinimumDistance = 2
	root.PersistentFlags().StringP("config", "c", "unstale.yaml", "configuration file, - for standard input")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(newRun(), newCheck(), newPlan(), newWarm(), newStatus(), newDeadletter(), newConnector(), newDemo(), newVersion())
	return root
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	meant := ""
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		meant = fmt.Sprintf("; did you mean %s?", strings.Join(near, " or "))
	}
	return usageError{fmt.Errorf("unknown command or argument %q for %q%s", args[0], cmd.CommandPath(), meant)}
}

// loadConfig reads the configuration that the flags name.
func loadConfig(cmd *cobra.Command) (*config.Config, error) {
	path, err := cmd.Flags().GetString("config")
	if err != nil {
		return nil, err
	}
	return config.Load(path, os.LookupEnv)
}

// quoteJSON is text as a string of JSON, with < > & as they are.
func quoteJSON(text string) string {
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(text); err != nil {
		panic(fmt.Sprintf("encode %q: %v", text, err))
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func printJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}
