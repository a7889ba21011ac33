package database

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// unpublishedQuery lists the tables of which the publication does not send
// every change. A view of PostgreSQL 15 and later has the row filter; to_jsonb
// lets one statement do for all versions.
const unpublishedQuery = `
SELECT wanted.schema, wanted.table
FROM jsonb_to_recordset($2::jsonb) AS wanted(schema text, "table" text)
WHERE NOT EXISTS (
    SELECT FROM pg_publication p
    JOIN pg_publication_tables t ON t.pubname = p.pubname
    WHERE p.pubname = $1
      AND t.schemaname = wanted.schema AND t.tablename = wanted.table
      AND p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate
      AND to_jsonb(t) ->> 'rowfilter' IS NULL)`

// Unpublished returns the tables of which publication does not send every
// change. A table that was dropped and created again under its name is among
// them: publications follow tables, not names, and nobody is told.
func Unpublished(ctx context.Context, conn *pgx.Conn, publication string, names []Name) ([]Name, error) {
	wanted, err := json.Marshal(names)
	if err != nil {
		return nil, err
	}
	rows, err := conn.Query(ctx, unpublishedQuery, publication, string(wanted))
	if err != nil {
		return nil, fmt.Errorf("look at publication %s: %w", publication, err)
	}
	unpublished, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (n Name, err error) {
		return n, row.Scan(&n.Schema, &n.Table)
	})
	if err != nil {
		return nil, fmt.Errorf("look at publication %s: %w", publication, err)
	}
	return unpublished, nil
}
