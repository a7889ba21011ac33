package main

import (
	"context"
	"log/slog"

	"github.com/redis/go-redis/v9"

	"github.com/unstale/unstale/internal/admin"
	"github.com/unstale/unstale/internal/apply"
	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/config"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
	"github.com/unstale/unstale/internal/redissink"
)

// unpromised is what nobody can promise without a database to ask. check, the log
// and status say it.
var unpromised = []string{
	"no database is given: a change may be applied before its commit is visible, and a reader who loads in between puts the old row back",
	"no database is given: which values are young enough to be written goes by the clocks of this machine and of the database",
	"no database is given: of a transaction that writes a row twice the first state can show for a moment",
	"no database is given: a TRUNCATE stands in one partition, and a row that stands in another one that lags is written again behind it, if another instance reads that one",
	"no database is given: a table that comes from two databases is noticed when one instance has read both; until then the rows of both are written",
	"no database is given: a column that the connector leaves out, and a table that is altered without a change of a row, go unnoticed",
	"no database is given: changes that come under the names of a table's partitions are passed over, unless the connector has publish.via.partition.root=true",
}

// runAlone keeps the cache as near to a database as one can that cannot be asked:
// changes come from Kafka.
func runAlone(ctx context.Context, c *config.Config, client *redis.Client, metrics *admin.Metrics, status *currentStatus, logger *slog.Logger) error {
	x, err := examineAlone(c)
	if err == nil {
		err = refuseRedis(ctx, c, client)
	}
	if err != nil {
		return err
	}
	for _, text := range unpromised {
		logger.Warn("not promised: " + text)
	}
	planner := plan.New(x.entries)
	source, _, err := newKafkaSource(c, x, planner, func(context.Context) (change.Origin, error) { return change.Origin{}, nil }, metrics, logger)
	if err != nil {
		return err
	}
	sink := redissink.New(client, redissink.Options{Entries: x.entries, SweepRate: c.Sweep.KeysPerSecond})
	loop := apply.New(source, planner, noDatabase{}, fixedCatalog(x.entries), sink, apply.Options{Logger: logger, Observer: metrics})
	status.is(func() apply.Status {
		now := heldStatus(loop.Status(), source)
		now.Unpromised = unpromised
		return now
	})
	return loop.Run(ctx)
}

// examineAlone is what a configuration says without a database.
func examineAlone(c *config.Config) (*examination, error) {
	templates, wrong := templatesAlone(c)
	if len(wrong) > 0 {
		return nil, wrong.Err()
	}
	tables, err := tableNames(context.Background(), c)
	if err != nil {
		return nil, err
	}
	x := &examination{}
	for i, entry := range c.Entries {
		x.entries = append(x.entries, plan.Entry{
			Name: entry.Name, Key: templates[i], Lease: entry.Lease, Schema: tables[i].Schema, Table: tables[i].Table,
			OnChange: onChange[entry.OnChange], Columns: entry.Columns, Hash: entry.Format == "hash", TTL: entry.TTL,
			Undescribed: true,
		})
	}
	return x, nil
}

// templatesAlone reads the key templates where nobody knows the columns' types:
// each may hold any text, and entries must be told apart without them.
func templatesAlone(c *config.Config) ([]*guard.Template, config.Problems) {
	templates, wrong := parseTemplates(c)
	if len(wrong) > 0 {
		return templates, wrong
	}
	anyText := func(string) guard.Alphabet { return guard.AnyText }
	wrong = collisions(c, templates, func(int) func(string) guard.Alphabet { return anyText })
	for i := range wrong {
		wrong[i].Mend += "; or give `database`, whose types may tell them apart"
	}
	return templates, wrong
}

// noDatabase is what is asked where there is none.
type noDatabase struct{}

func (noDatabase) Expect(change.Origin) {}

func (noDatabase) Snapshot(_ context.Context, s *change.Snapshot) error {
	*s = change.Snapshot{Unknown: true}
	return nil
}

// fixedCatalog is what the entries are by the configuration alone.
type fixedCatalog []plan.Entry

func (fixedCatalog) Replan(context.Context) error { return nil }

func (c fixedCatalog) Look(context.Context) (apply.Look, error) {
	fingerprints := guard.Fingerprints{}
	for i := range c {
		fingerprints[c[i].Name] = fingerprint(&c[i], "", "", 0)
	}
	return apply.Look{Fingerprints: fingerprints}, nil
}
