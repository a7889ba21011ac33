package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/database"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
)

// catalogTimeout bounds one look at the catalog, connecting included.
const catalogTimeout = 10 * time.Second

// A catalog tells the loop what the entries' values are made of. It belongs to
// one goroutine at a time.
type catalog struct {
	config  *pgx.ConnConfig
	needs   database.Needs
	entries []plan.Entry
	logger  *slog.Logger

	conn *pgx.Conn
	last guard.Plan
}

// Plan implements apply.Catalog.
func (c *catalog) Plan(ctx context.Context) (guard.Plan, error) {
	ctx, cancel := context.WithTimeout(ctx, catalogTimeout)
	defer cancel()
	if c.conn == nil || c.conn.IsClosed() {
		conn, err := pgx.ConnectConfig(ctx, c.config)
		if err != nil {
			return nil, fmt.Errorf("connect to the database: %w", err)
		}
		c.conn = conn
	}
	names := make([]database.Name, len(c.entries))
	for i, e := range c.entries {
		names[i] = database.Name{Schema: e.Schema, Table: e.Table}
	}
	fingerprints, unpublished, err := c.ask(ctx, names)
	if err != nil {
		c.close(ctx)
		return nil, err
	}
	if len(unpublished) > 0 {
		return nil, fmt.Errorf("%w: %v", change.ErrUnpublished, unpublished)
	}
	today := guard.Plan{}
	for i, e := range c.entries {
		sum := sha256.Sum256([]byte(fingerprints[names[i]] + "\n" + names[i].String()))
		today[e.Name] = guard.PlanEntry{Key: e.Key.String(), Fingerprint: hex.EncodeToString(sum[:8])}
	}
	if c.last != nil && !maps.Equal(c.last, today) {
		c.diagnose(ctx)
	}
	c.last = today
	return today, nil
}

// diagnose says what a change of the catalog has broken: a new partition whose
// replica identity does not hold the key columns, a key column that is gone.
// The entries are swept anyway, and go on being swept by the changes whose keys
// cannot be known; only a person can mend the cause.
func (c *catalog) diagnose(ctx context.Context) {
	problems, err := database.Diagnose(ctx, c.conn, c.needs)
	if err != nil {
		c.close(ctx) // the next look connects anew and says what is wrong
		return
	}
	for _, p := range problems {
		if p.Severity == database.Wrong {
			c.logger.Error("the database has changed and needs a person", "problem", p.String())
		}
	}
}

func (c *catalog) ask(ctx context.Context, names []database.Name) (map[database.Name]string, []database.Name, error) {
	fingerprints, err := database.Fingerprints(ctx, c.conn, names)
	if err != nil {
		return nil, nil, err
	}
	unpublished, err := database.Unpublished(ctx, c.conn, c.needs.Publication, names)
	return fingerprints, unpublished, err
}

func (c *catalog) close(ctx context.Context) {
	if c.conn != nil {
		_ = c.conn.Close(ctx) // it holds nothing
		c.conn = nil
	}
}
