package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/unstale/unstale/internal/config"
	"github.com/unstale/unstale/internal/database"
	"github.com/unstale/unstale/internal/redissink"
)

// checkTimeout bounds the look at one server.
const checkTimeout = 15 * time.Second

func newCheck() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Find what is wrong, and the statement that mends it",
		Long: `Check looks at the configuration, the database and Redis, changes nothing, and
prints everything that stands in the way with the exact statement that mends it.
It is silent when there is nothing to say.

Exit code 1: something is wrong. Advice alone is exit code 0.`,
		Example: `  unstale check
  unstale check --json
  unstale check --print-config      the configuration in effect, defaults filled in, secrets hidden`,
		Args: noArgs,
	}
	printConfig := cmd.Flags().Bool("print-config", false, "print the configuration in effect and do nothing else")
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := loadConfig(cmd)
		wrong, isProblems := errors.AsType[config.Problems](err)
		if err != nil && (!isProblems || *printConfig) {
			return err
		}
		if *printConfig {
			_, err := io.WriteString(cmd.OutOrStdout(), c.Effective())
			return err
		}
		var found findings
		found.addConfig(wrong.Err())
		found.servers(cmd.Context(), c, wrong)
		if err := found.print(cmd.OutOrStdout(), *asJSON); err != nil {
			return err
		}
		if found.wrong() {
			return errSaid
		}
		return nil
	}
	return cmd
}

// A finding is one thing that check has to say.
type finding struct {
	Severity database.Severity `json:"severity"`
	Subject  string            `json:"subject"`
	Text     string            `json:"text"`
	Mend     []string          `json:"mend,omitempty"`
	Then     string            `json:"then,omitempty"`

	printed string
}

type findings []finding

func (fs *findings) addConfig(err error) {
	problems, ok := errors.AsType[config.Problems](err)
	if !ok {
		if err != nil {
			*fs = append(*fs, finding{Severity: database.Wrong, Subject: "configuration", Text: err.Error(), printed: "error: " + err.Error()})
		}
		return
	}
	for _, p := range problems {
		*fs = append(*fs, finding{Severity: database.Wrong, Subject: fmt.Sprintf("%s:%d:%d %s", p.File, p.Line, p.Column, p.Path), Text: p.Text, Mend: []string{p.Mend}, printed: p.String()})
	}
}

// servers looks at what the configuration says soundly: what is wrong in one
// place hides nothing that is wrong in another.
func (fs *findings) servers(ctx context.Context, c *config.Config, wrong config.Problems) {
	about := func(path string) bool {
		return slices.ContainsFunc(wrong, func(p config.Problem) bool {
			return p.Path == "" || p.Path == path || strings.HasPrefix(p.Path, path+".")
		})
	}
	sound := *c
	sound.Entries = slices.DeleteFunc(slices.Clone(c.Entries), func(e config.Entry) bool {
		return about(e.Path("table")) || about(e.Path("key")) || e.Table == "" || e.Key == ""
	})
	if about("database") || about("source") {
		_, templates := parseTemplates(&sound)
		fs.addConfig(templates.Err())
	} else if c.Database.URL != "" {
		fs.database(ctx, &sound)
	}
	if !about("redis") {
		fs.redis(ctx, &sound)
	}
}

func (fs *findings) add(subject, text, mend string) {
	f := finding{Severity: database.Wrong, Subject: subject, Text: text, printed: fmt.Sprintf("error: %s: %s", subject, text)}
	if mend != "" {
		f.Mend = []string{mend}
		f.printed += "\n    " + mend
	}
	*fs = append(*fs, f)
}

func (fs *findings) addProblem(p database.Problem) {
	*fs = append(*fs, finding{Severity: p.Severity, Subject: p.Subject, Text: p.Text, Mend: p.Mend, Then: p.Then, printed: p.String()})
}

func (fs *findings) database(ctx context.Context, c *config.Config) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	options, err := databaseConfig(c)
	if err != nil {
		fs.addConfig(err)
		return
	}
	conn, err := pgx.ConnectConfig(ctx, options)
	if err != nil {
		_, templates := parseTemplates(c)
		fs.addConfig(templates.Err())
		fs.add("database", err.Error(), "")
		return
	}
	defer conn.Close(context.WithoutCancel(ctx))
	x, err := examine(ctx, c, conn)
	fs.addConfig(err)
	if x == nil {
		return
	}
	for _, p := range x.problems {
		fs.addProblem(p)
	}
}

func (fs *findings) redis(ctx context.Context, c *config.Config) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	client, err := redisClient(c.Redis)
	if err != nil {
		fs.addConfig(err)
		return
	}
	defer client.Close()
	problems, err := redissink.Diagnose(ctx, client)
	if err != nil {
		fs.add("redis", err.Error(), "")
	}
	for _, p := range problems {
		fs.add("redis", p.Text, p.Mend)
	}
	if len(problems) > 0 || err != nil || !slices.ContainsFunc(c.Entries, config.Entry.Sets) {
		return
	}
	policy, err := redissink.Evicts(ctx, client)
	if err != nil {
		fs.add("redis", err.Error(), "")
	}
	if policy != "" {
		p := database.Problem{
			Severity: database.Advice, Subject: "redis",
			Text: fmt.Sprintf("its maxmemory-policy is %s: it may evict what keeps a value from going back in time, so that a key that is written from changes can, for as long as the stream is behind, show an older row after a newer one", policy),
			Mend: []string{"CONFIG SET maxmemory-policy noeviction"},
			Then: "a full Redis then drops what it cannot write; or give it so much memory that it evicts nothing",
		}
		fs.addProblem(p)
	}
}

func (fs findings) wrong() bool {
	for _, f := range fs {
		if f.Severity == database.Wrong {
			return true
		}
	}
	return false
}

func (fs findings) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return printJSON(w, map[string]any{"ok": !fs.wrong(), "findings": append(findings{}, fs...)})
	}
	for i, f := range fs {
		if i > 0 {
			fmt.Fprintln(w)
		}
		if _, err := fmt.Fprintln(w, f.printed); err != nil {
			return err
		}
	}
	return nil
}
