package database

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// publicationsQuery says of each wanted table whether the publication sends
// every change of it, and what that rests on: the rows of the catalog, each by
// its oid and by the transaction that wrote it. A view of PostgreSQL 15 and
// later has the row filter; to_jsonb lets one statement do for all versions. %s
// is publishedSchemas, or nothing before 15.
const publicationsQuery = `
SELECT wanted.schema, wanted."table",
       coalesce(p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate, false)
       AND EXISTS (SELECT FROM pg_publication_tables t
                   WHERE t.pubname = $1 AND t.schemaname = wanted.schema AND t.tablename = wanted."table"
                     AND to_jsonb(t) ->> 'rowfilter' IS NULL)
       AND to_jsonb(m) ->> 'prattrs' IS NULL,
       EXISTS (SELECT FROM pg_inherits i JOIN pg_class child ON child.oid = i.inhrelid
                       WHERE i.inhparent = c.oid AND NOT child.relispartition),
       concat_ws(' ', p.oid, p.xmin, m.oid, m.xmin, CASE WHEN c.relkind = 'r' THEN c.relhassubclass END, %s),
       pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
       pg_snapshot_xmax(pg_current_snapshot())::text::bigint
FROM jsonb_to_recordset($2::jsonb) AS wanted(schema text, "table" text)
LEFT JOIN pg_publication p ON p.pubname = $1
LEFT JOIN pg_namespace s ON s.nspname = wanted.schema
LEFT JOIN pg_class c ON c.relnamespace = s.oid AND c.relname = wanted."table"
LEFT JOIN pg_publication_rel m ON m.prpubid = p.oid AND m.prrelid = c.oid`

const publishedSchemas = `(SELECT concat_ws(' ', n.oid, n.xmin) FROM pg_publication_namespace n WHERE n.pnpubid = p.oid AND n.pnnspid = s.oid)`

// A Published says how a table is published.
type Published struct {
	// Whole: every change of every row of the table, and of its partitions, is sent
	// under its name. A table that was dropped and created again under its name
	// is not: publications follow tables, not names, and nobody is told.
	Whole bool
	// Inherited: reading the table reads others, too, whose changes come under their own
	// names.
	Inherited bool
	// By changes whenever somebody changes what Whole rests on, also when it is
	// afterwards as it was before: what was written in between was not sent.
	By string
	// A transaction below XMax that is running may have written rows before By
	// became what it is. All below XMin have ended.
	XMin, XMax int64
}

// Publications returns how each table is published.
func Publications(ctx context.Context, conn *pgx.Conn, publication string, names []Name) (map[Name]Published, error) {
	wanted, err := json.Marshal(names)
	if err != nil {
		return nil, err
	}
	schemas := publishedSchemas
	if strings.HasPrefix(conn.PgConn().ParameterStatus("server_version"), "14") {
		schemas = "NULL"
	}
	rows, err := conn.Query(ctx, fmt.Sprintf(publicationsQuery, schemas), publication, string(wanted))
	if err != nil {
		return nil, fmt.Errorf("look at publication %s: %w", publication, err)
	}
	found := make(map[Name]Published, len(names))
	var n Name
	var p Published
	_, err = pgx.ForEachRow(rows, []any{&n.Schema, &n.Table, &p.Whole, &p.Inherited, &p.By, &p.XMin, &p.XMax}, func() error {
		found[n] = p
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look at publication %s: %w", publication, err)
	}
	return found, nil
}

// A PublicationState is what a publication sends.
type PublicationState struct {
	Exists    bool
	AllTables bool // FOR ALL TABLES; else Tables are those that it has
	Tables    []Name
	// ViaRoot: the changes of partitions come under the name of their table.
	ViaRoot bool
}

// Publication looks at a publication.
func Publication(ctx context.Context, conn *pgx.Conn, name string) (p PublicationState, err error) {
	err = conn.QueryRow(ctx, `SELECT puballtables, pubviaroot FROM pg_publication WHERE pubname = $1`, name).Scan(&p.AllTables, &p.ViaRoot)
	if errors.Is(err, pgx.ErrNoRows) {
		return PublicationState{}, nil
	}
	if p.Exists = true; err == nil && !p.AllTables {
		var rows pgx.Rows
		if rows, err = conn.Query(ctx, `SELECT schemaname::text, tablename::text FROM pg_publication_tables WHERE pubname = $1 ORDER BY 1, 2`, name); err == nil {
			p.Tables, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Name])
		}
	}
	if err != nil {
		return PublicationState{}, fmt.Errorf("look at publication %s: %w", name, err)
	}
	return p, nil
}

// splitQuery finds the publications that send the changes of a table's partitions
// under names of their own.
const splitQuery = `
SELECT DISTINCT p.pubname::text
FROM pg_partition_tree($1::oid) t
JOIN pg_class c ON c.oid = t.relid AND t.isleaf
JOIN pg_namespace s ON s.oid = c.relnamespace
JOIN pg_publication_tables m ON m.schemaname = s.nspname AND m.tablename = c.relname
JOIN pg_publication p ON p.pubname = m.pubname AND NOT p.pubviaroot
ORDER BY 1`

// Splits returns the names of the publications that send the changes of a
// partitioned table under the names of its partitions.
func Splits(ctx context.Context, conn *pgx.Conn, table *Table) ([]string, error) {
	rows, err := conn.Query(ctx, splitQuery, table.OID)
	if err != nil {
		return nil, fmt.Errorf("look at the publications of %s: %w", table.Name, err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("look at the publications of %s: %w", table.Name, err)
	}
	return names, nil
}

// SetViaRoot is the statement that has a publication send the changes of partitions
// under the name of their table.
func SetViaRoot(publication string) string {
	return "ALTER PUBLICATION " + quote(publication) + " SET (publish_via_partition_root = true);"
}
