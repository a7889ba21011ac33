package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/unstale/unstale/internal/admin"
	"github.com/unstale/unstale/internal/apply"
	"github.com/unstale/unstale/internal/config"
	"github.com/unstale/unstale/internal/database"
	"github.com/unstale/unstale/internal/pgsource"
	"github.com/unstale/unstale/internal/plan"
	"github.com/unstale/unstale/internal/redissink"
)

// applicationName is how PostgreSQL's views show our connections.
const applicationName = "unstale"

func newRun() *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Keep the cache coherent",
		Long: `Run reads the database's log from where Redis stands and drops what each change
makes stale. It creates the publication and the slot if they are absent and the
role may; otherwise it prints the SQL for someone who may.

SIGTERM: what has been read is applied and acknowledged, exit 0. A second one
kills. kill -9 at any moment loses nothing.`,
		Example: `  unstale run --config unstale.yaml`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			return run(cmd.Context(), c, newLogger(c.Log, cmd.ErrOrStderr()))
		},
	}
}

// run wires the service in the order of the data: source, plan, apply, sink.
func run(ctx context.Context, c *config.Config, logger *slog.Logger) error {
	databaseConfig, err := databaseConfig(c)
	if err != nil {
		return err
	}
	examined, err := examineWhenReachable(ctx, c, databaseConfig, logger)
	if ctx.Err() != nil {
		return nil // stopped before there was anything to finish
	}
	if err != nil {
		return err
	}
	planner := plan.New(examined.entries)
	gate := database.NewGate(databaseConfig, database.Options{Logger: logger})
	defer gate.Close()

	sourceConfig, err := pgconn.ParseConfig(c.ReplicationConnString())
	if err != nil {
		return err
	}
	expectName(sourceConfig, c.Database.TLS.ServerName)
	source := pgsource.New(sourceConfig, pgsource.Options{
		Slot:        c.Source.Postgres.Slot,
		Publication: c.Source.Postgres.Publication,
		Failover:    c.Source.Postgres.Failover,
		Tables:      publishedTables(examined.tables),
		Compile:     planner.Compile,
		Origin:      gate.Origin,
		Logger:      logger,
	})

	client, err := redisClient(c.Redis)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := refuseRedis(ctx, client); err != nil {
		return err
	}
	sink := redissink.New(client, redissink.Options{SweepRate: c.Sweep.KeysPerSecond})

	metrics := admin.NewMetrics()
	catalog := &catalog{config: databaseConfig, needs: examined.needs, entries: examined.entries, logger: logger}
	defer catalog.close(context.WithoutCancel(ctx))
	loop := apply.New(source, planner, gate, catalog, sink, apply.Options{Logger: logger, Observer: metrics})

	work, workCtx := errgroup.WithContext(ctx)
	served, endServing := context.WithCancel(context.WithoutCancel(ctx))
	if c.Admin.Listen != "" {
		listener, err := net.Listen("tcp", c.Admin.Listen)
		if err != nil {
			endServing()
			return fmt.Errorf("admin: %w; choose another admin.listen, or off", err)
		}
		server := admin.NewServer(version, loop.Status, metrics)
		work.Go(func() error { return server.Run(served, listener) })
	}
	// Status and metrics can be read until the last batch is acknowledged.
	work.Go(func() error {
		defer endServing()
		return loop.Run(workCtx)
	})
	return work.Wait()
}

// connectAgainAfter is how long run waits between two tries to reach a database
// that is away when it starts.
const connectAgainAfter = time.Second

// examineWhenReachable holds until the database answers, and returns an error
// if something there must be mended by a person first.
func examineWhenReachable(ctx context.Context, c *config.Config, databaseConfig *pgx.ConnConfig, logger *slog.Logger) (*examination, error) {
	for said := false; ; said = true {
		conn, err := pgx.ConnectConfig(ctx, databaseConfig)
		if err == nil {
			var x *examination
			x, err = examine(ctx, c, conn)
			broken := conn.IsClosed()
			_ = conn.Close(context.WithoutCancel(ctx)) // it holds nothing
			if err == nil {
				return x, standsInTheWay(x.problems)
			}
			if !broken {
				return nil, err
			}
		}
		if refused, ok := errors.AsType[*pgconn.PgError](err); ok && strings.HasPrefix(refused.Code, "28") {
			return nil, fmt.Errorf("database: %w", err) // wrong user or password
		}
		if !said {
			logger.Warn("holding until the database can be reached", "server", "database", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(connectAgainAfter):
		}
	}
}

// standsInTheWay returns an error that prints every problem with which the
// stream could not start or could miss a change.
func standsInTheWay(problems []database.Problem) error {
	var texts []string
	for _, p := range problems {
		if p.Severity == database.Wrong {
			texts = append(texts, p.String())
		}
	}
	if len(texts) == 0 {
		return nil
	}
	return fmt.Errorf("the database is not ready (unstale check says the same):\n\n%s", strings.Join(texts, "\n\n"))
}

// refuseRedis returns an error that prints what only a person can mend. A Redis
// that is away is none of that: the loop holds until it is back.
func refuseRedis(ctx context.Context, client *redis.Client) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	problems, err := redissink.Diagnose(ctx, client)
	if err != nil || len(problems) == 0 {
		return nil
	}
	var texts []string
	for _, p := range problems {
		texts = append(texts, fmt.Sprintf("error: redis: %s\n    %s", p.Text, p.Mend))
	}
	return fmt.Errorf("redis is not ready (unstale check says the same):\n\n%s", strings.Join(texts, "\n\n"))
}

func databaseConfig(c *config.Config) (*pgx.ConnConfig, error) {
	databaseConfig, err := pgx.ParseConfig(c.Database.ConnString())
	if err != nil {
		return nil, err
	}
	expectName(&databaseConfig.Config, c.Database.TLS.ServerName)
	databaseConfig.RuntimeParams["application_name"] = applicationName
	return databaseConfig, nil
}

// expectName sets the name that the server's certificate must have, for which
// connection strings have no word.
func expectName(connection *pgconn.Config, name string) {
	if name == "" {
		return
	}
	if connection.TLSConfig != nil {
		connection.TLSConfig.ServerName = name
	}
	for _, fallback := range connection.Fallbacks {
		if fallback.TLSConfig != nil {
			fallback.TLSConfig.ServerName = name
		}
	}
}

func redisClient(c config.Redis) (*redis.Client, error) {
	options, err := redis.ParseURL(string(c.URL))
	if err != nil {
		return nil, err
	}
	if c.Username != "" {
		options.Username = c.Username
	}
	if c.Password != "" {
		options.Password = string(c.Password)
	}
	if options.TLSConfig, err = c.TLSConfig(); err != nil {
		return nil, err
	}
	options.DialTimeout, options.ReadTimeout, options.WriteTimeout = c.DialTimeout, c.ReadTimeout, c.WriteTimeout
	// The loop tries again, and says so once. The driver would print a line of
	// its own for each attempt.
	options.MaxRetries, options.DialerRetries = -1, 1
	logging.Disable()
	options.DisableIdentity = true
	return redis.NewClient(options), nil
}

func publishedTables(tables []database.Table) []pgsource.Table {
	var published []pgsource.Table
	for _, name := range distinctTables(tables) {
		published = append(published, pgsource.Table{Schema: name.Schema, Name: name.Table})
	}
	return published
}

func newLogger(c config.Log, w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelInfo // the configuration admits no other
	}
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
