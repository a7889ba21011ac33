package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/unstale/unstale/internal/admin"
	"github.com/unstale/unstale/internal/apply"
)

// statusTimeout is how long a running instance may take to answer.
const statusTimeout = 5 * time.Second

func newStatus() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show positions, lag and counts of a running instance",
		Long: `Status asks the running instance that the configuration's admin.listen names, or
the one at --address. Exit code 1: it does not answer, or is not ready.`,
		Example: `  unstale status
  unstale status --address 127.0.0.1:9187 --json`,
		Args: noArgs,
	}
	address := cmd.Flags().String("address", "", "host:port of the instance (default: admin.listen of the configuration)")
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *address == "" {
			// What else is in the file, such as a variable that is set only where
			// the service runs, does not matter here.
			c, err := loadConfig(cmd)
			if c == nil {
				return err
			}
			if *address = c.Admin.Listen; *address == "" {
				return fmt.Errorf("admin.listen is off in %s: set it, or give --address", c.File())
			}
		}
		status, err := askStatus(cmd.Context(), *address)
		if err != nil {
			return err
		}
		if *asJSON {
			if err := printJSON(cmd.OutOrStdout(), status); err != nil {
				return err
			}
		} else {
			printStatus(cmd.OutOrStdout(), status)
		}
		if !status.Ready && status.State != apply.StateStandby {
			return errSaid
		}
		return nil
	}
	return cmd
}

func askStatus(ctx context.Context, address string) (*admin.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/status", nil)
	if err != nil {
		return nil, err
	}
	reply, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("%w\n  is unstale running, and is this its admin.listen?", err)
	}
	defer reply.Body.Close()
	if reply.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET http://%s/status: %s: is this unstale?", address, reply.Status)
	}
	var status admin.Status
	if err := json.NewDecoder(io.LimitReader(reply.Body, 1<<20)).Decode(&status); err != nil {
		return nil, fmt.Errorf("read the answer of http://%s/status: %w", address, err)
	}
	return &status, nil
}

func pipelineState(name, state, reason string) string {
	if state == "" {
		state = "not asked yet"
	}
	if reason != "" {
		state += ": " + reason
	}
	return name + ", " + state
}

func slotState(p *admin.Pipeline) string {
	if p.Read && p.Text == "" {
		return "read"
	}
	return p.Text
}

func printStatus(w io.Writer, s *admin.Status) {
	line := func(name, format string, values ...any) {
		fmt.Fprintf(w, "%-10s "+format+"\n", append([]any{name}, values...)...)
	}
	ready := "ready"
	if !s.Ready {
		ready = "not ready"
	}
	stalled := ""
	if s.Pipeline != nil && s.Pipeline.Stalled() != "" {
		stalled = ", but no change comes"
	}
	line("state", "%s, %s%s, up %s", s.State, ready, stalled, (time.Duration(s.UpSeconds) * time.Second).String())
	for _, st := range s.Streams {
		line("stream", "%s", cmp.Or(st.Title, st.Name))
		line("position", "%s", st.Position)
		line("settled", "%s", st.Settled)
		line("confirmed", "%s", st.Confirmed)
	}
	switch {
	case s.State == apply.StateHolding || s.State == apply.StateStarting:
		line("lag", "unknown")
	case s.OverTopics:
		line("lag", "%d records, %.1f s", s.LagRecords, s.LagSeconds)
	default:
		line("lag", "%d bytes, %.1f s", s.LagBytes, s.LagSeconds)
	}
	if p := s.Pipeline; p != nil {
		line("connector", "%s", pipelineState(p.Connector, p.State, p.Reason))
		if p.Slot != "" {
			line("slot", "%s, %d bytes, %.1f s behind", pipelineState(p.Slot, slotState(p), ""), p.BehindBytes, p.BehindSeconds)
		}
	}
	line("changes", "%d, %d keys dropped (cached or not), %d set", s.Changes, s.Dropped, s.Set)
	if s.LoadsPending > 0 || s.LoadsForgotten > 0 {
		line("loads", "%d pending, %d forgotten", s.LoadsPending, s.LoadsForgotten)
	}
	if len(s.Sweeping) > 0 {
		line("sweeping", "%s", strings.Join(s.Sweeping, ", "))
	}
	for _, entry := range slices.Sorted(maps.Keys(s.Unplanned)) {
		line("unplanned", "%s: %s", entry, s.Unplanned[entry])
	}
	for _, server := range slices.Sorted(maps.Keys(s.Holding)) {
		line("holding", "%s: %s", server, s.Holding[server])
	}
	line("gaps", "%d", s.Gaps)
	for _, text := range s.Unpromised {
		line("promises", "%s", text)
	}
	if s.LastGap != "" {
		line("last gap", "%s", s.LastGap)
	}
}
