package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/unstale/unstale/internal/admin"
	"github.com/unstale/unstale/internal/apply"
	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/config"
	"github.com/unstale/unstale/internal/database"
	"github.com/unstale/unstale/internal/fill"
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
		Long: `Run reads the database's log from where Redis stands, and drops or sets what each
change makes stale, as its entry says. It creates the publication and the slot if
they are absent and the role may; otherwise it prints the SQL for someone who may.

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
	client, err := redisClient(c.Redis)
	if err != nil {
		return err
	}
	defer client.Close()

	// Health can be asked from the beginning, and until the last batch is
	// acknowledged.
	metrics := admin.NewMetrics()
	var status currentStatus
	work, workCtx := errgroup.WithContext(ctx)
	served, endServing := context.WithCancel(context.WithoutCancel(ctx))
	defer endServing()
	if c.Admin.Listen != "" {
		listener, err := net.Listen("tcp", c.Admin.Listen)
		if err != nil {
			return fmt.Errorf("admin: %w; choose another admin.listen, or off", err)
		}
		server := admin.NewServer(version, status.get, metrics)
		work.Go(func() error { return server.Run(served, listener) })
	}

	if c.Source.Kafka.Connect.URL != "" {
		connector, err := connectClient(c)
		if err != nil {
			return err
		}
		defer connector.Close()
		watch := newConnectorWatch(c, connector, logger)
		metrics.WatchConnector(watch.hasFailed)
		pipeline, hangUp, err := newPipelineWatch(c, connector, logger)
		if err != nil {
			return err
		}
		metrics.WatchPipeline(pipeline.pipeline)
		watch.ask = pipeline.hear(watch.ask)
		watching, endWatching := context.WithCancel(workCtx)
		work.Go(func() error {
			watch.run(watching)
			return nil
		})
		work.Go(func() error {
			defer hangUp()
			pipeline.run(watching)
			return nil
		})
		defer endWatching()
	}

	work.Go(func() error {
		defer endServing()
		if c.Database.URL == "" {
			return runAlone(workCtx, c, client, metrics, &status, logger)
		}
		for ran, said := false, ""; ; {
			err := runBeside(workCtx, c, client, metrics, &status, logger)
			switch {
			case errors.Is(err, change.ErrReplan):
				ran, said = true, ""
				logger.Info("planning anew", "reason", err)
				continue
			case !ran || err == nil || workCtx.Err() != nil:
				return err
			}
			// It has run as it is configured, so this is an outage, and no reason to end.
			if text := err.Error(); text != said {
				said = text
				holding := apply.Status{State: apply.StateHolding, Holding: map[string]string{"database": text}}
				status.is(func() apply.Status { return holding })
				logger.Warn("holding: what has changed cannot be planned, and work goes on when it can", "err", err)
			}
			select {
			case <-workCtx.Done():
				return nil
			case <-time.After(planAgainAfter):
			}
		}
	})
	return work.Wait()
}

// planAgainAfter is how long run waits between two tries to plan what has changed: each
// looks at everything.
const planAgainAfter = 5 * time.Second

// runBeside keeps the cache coherent beside a database that can be asked.
func runBeside(ctx context.Context, c *config.Config, client *redis.Client, metrics *admin.Metrics, status *currentStatus, logger *slog.Logger) error {
	databaseConfig, err := databaseConfig(c)
	if err != nil {
		return err
	}
	examined, err := examineWhenReachable(ctx, c, databaseConfig, logger, status)
	if ctx.Err() != nil {
		return nil // stopped before there was anything to finish
	}
	if err == nil {
		err = refuseRedis(ctx, c, client)
	}
	if err == nil {
		err = refuseUnknown(ctx, c, client, examined, logger)
	}
	if err != nil {
		return err
	}
	for _, p := range examined.asides {
		logger.Warn("a setting of an entry cannot be as it is written: what is cached is right all the same", "setting", p.Path, "problem", p.Text, "mend", p.Mend)
	}
	planner := plan.New(examined.entries)
	gate := database.NewGate(databaseConfig, database.Options{Logger: logger})
	defer gate.Close()
	catalog := &catalog{config: databaseConfig, needs: examined.needs, entries: examined.entries, logger: logger, derive: func(ctx context.Context, conn *pgx.Conn) ([]derived, config.Problems, error) {
		templates, _ := parseTemplates(c)
		return derive(ctx, c, conn, templates)
	}}
	defer catalog.close(context.WithoutCancel(ctx))
	source, err := newSource(c, examined, planner, gate, catalog, client, metrics, logger)
	if err != nil {
		return err
	}
	sink := redissink.New(client, redissink.Options{Entries: examined.entries, Indexes: planner.Indexes(), SweepRate: c.Sweep.KeysPerSecond})
	loader := database.NewLoader(databaseConfig, examined.loads(), database.LoaderOptions{Connections: c.Load.Connections})
	defer loader.Close()
	finder := database.NewFinder(databaseConfig, lookups(planner), members(planner))
	defer finder.Close()
	var loop *apply.Loop
	queue := fill.NewQueue(examined.entries, loader, redissink.NewLeases(client), fill.Options{
		RowsPerSecond: c.Load.RowsPerSecond,
		Workers:       2 * c.Load.Connections,
		Applied:       func() uint64 { return loop.Applied() },
		Claim:         sink.Claim,
		Observer:      metrics,
		Logger:        logger,
	})
	metrics.WatchLoads(queue.Pending)
	loop = apply.New(source, planner, primary{gate, loader, finder}, catalog, sink, apply.Options{Logger: logger, Observer: metrics, Loader: queue, Finder: finder, Indexes: sink})
	status.is(func() apply.Status { return heldStatus(loop.Status(), source) })

	beside, endBeside := context.WithCancel(ctx)
	var work errgroup.Group
	work.Go(func() error { return queue.Run(beside) })
	if topics, ok := source.(topicSource); ok && c.Source.Kafka.Connect.URL != "" {
		work.Go(func() error { return keepBarrier(beside, c, databaseConfig, topics, client, logger) })
	}
	err = loop.Run(ctx)
	endBeside()
	return errors.Join(err, work.Wait())
}

// newSource is where changes come from.
func newSource(c *config.Config, x *examination, planner *plan.Planner, gate *database.Gate, catalog *catalog, client *redis.Client, metrics *admin.Metrics, logger *slog.Logger) (apply.Source, error) {
	if c.Source.FromKafka {
		kafka, tables, err := newKafkaSource(c, x, planner, gate.Origin, metrics, logger)
		if err != nil {
			return nil, err
		}
		catalog.describe = tables.describe
		return kafka, nil
	}
	sourceConfig, err := pgconn.ParseConfig(c.ReplicationConnString())
	if err != nil {
		return nil, err
	}
	expectName(sourceConfig, c.Database.TLS.ServerName)
	source := pgsource.New(sourceConfig, pgsource.Options{
		Slot:        c.Source.Postgres.Slot,
		Publication: c.Source.Postgres.Publication,
		Failover:    c.Source.Postgres.Failover,
		Tables:      x.published(),
		Compile:     planner.Compile,
		Origin:      gate.Origin,
		Logger:      logger,
	})
	return newLogSource(source, client, x.entries, metrics, logger), nil
}

// A primary is what the gate and the loader ask: both only of the server that
// the stream comes from.
type primary struct {
	*database.Gate
	loader *database.Loader
	finder *database.Finder
}

func (p primary) Expect(origin change.Origin) {
	p.Gate.Expect(origin)
	p.loader.Expect(origin)
	p.finder.Expect(origin)
}

// loads says, for each entry, what its values are.
func (x *examination) loads() []database.Load {
	loads := make([]database.Load, len(x.entries))
	for i, e := range x.entries {
		loads[i] = database.Load{
			Table: database.Name{Schema: e.Schema, Table: e.Table}, Key: e.Key.Columns(), Columns: e.Columns, Hash: e.Hash,
			Query: e.Load, Many: e.Many, Absent: e.CacheAbsent, Keys: x.derived[i].keys,
		}
	}
	return loads
}

// currentStatus is what the admin server shows: the loop's, once there is one.
type currentStatus struct {
	mu  sync.Mutex
	ask func() apply.Status
}

func (s *currentStatus) is(ask func() apply.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ask = ask
}

func (s *currentStatus) get() apply.Status {
	s.mu.Lock()
	ask := s.ask
	s.mu.Unlock()
	if ask == nil {
		return apply.Status{State: apply.StateStarting}
	}
	return ask()
}
