package main

import (
	"encoding/json"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

// Set by the linker: see the Makefile.
var (
	version = "development"
	commit  = "unknown"
)

func newVersion() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print version, commit and Go",
		Example: "  unstale version --json",
		Args:    noArgs,
	}
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *asJSON {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]string{"version": version, "commit": commit, "go": runtime.Version()})
		}
		fmt.Fprintf(cmd.OutOrStdout(), "unstale %s, commit %s, %s\n", version, commit, runtime.Version())
		return nil
	}
	return cmd
}
