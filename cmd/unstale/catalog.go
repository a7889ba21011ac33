package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

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
	entries []plan.Entry
	conn    *pgx.Conn
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
	fingerprints, err := database.Fingerprints(ctx, c.conn, names)
	if err != nil {
		c.close(ctx)
		return nil, err
	}
	today := guard.Plan{}
	for i, e := range c.entries {
		sum := sha256.Sum256([]byte(fingerprints[names[i]] + "\n" + names[i].String()))
		today[e.Name] = guard.PlanEntry{Key: e.Key.String(), Fingerprint: hex.EncodeToString(sum[:8])}
	}
	return today, nil
}

func (c *catalog) close(ctx context.Context) {
	if c.conn != nil {
		_ = c.conn.Close(ctx) // it holds nothing
		c.conn = nil
	}
}
