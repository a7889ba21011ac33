package database

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// indexedStatement asks for an index that begins with one of the columns.
const indexedStatement = `
SELECT EXISTS (
  SELECT FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class c ON c.oid = i.indrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
  WHERE n.nspname = $1 AND c.relname = $2 AND a.attname = ANY ($3) AND i.indisvalid AND i.indpred IS NULL)`

// Unindexed returns what mends that a lookup must read all of a table, since no index
// of it begins with one of the columns; empty if one does.
func Unindexed(ctx context.Context, conn *pgx.Conn, name Name, columns []string) (statement string, err error) {
	var indexed bool
	if err := conn.QueryRow(ctx, indexedStatement, name.Schema, name.Table, columns).Scan(&indexed); err != nil {
		return "", fmt.Errorf("look for an index of %s: %w", name, err)
	}
	if indexed || len(columns) == 0 {
		return "", nil
	}
	return fmt.Sprintf("CREATE INDEX CONCURRENTLY ON %s (%s);", name.SQL(), quote(columns[0])), nil
}

// definitionsStatement numbers the versions of everything that a query may be made of
// besides tables.
const definitionsStatement = `
SELECT concat_ws(' ',
  (SELECT count(*) || '/' || coalesce(sum(hashtextextended(w.oid || ' ' || w.xmin || ' ' || c.oid || ' ' || c.xmin, 0)), 0)
   FROM pg_catalog.pg_rewrite w JOIN pg_catalog.pg_class c ON c.oid = w.ev_class
   WHERE c.relkind = 'v' AND c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace) AND c.relpersistence <> 't'),
  (SELECT count(*) || '/' || coalesce(sum(hashtextextended(p.oid || ' ' || p.xmin, 0)), 0)
   FROM pg_catalog.pg_proc p WHERE p.pronamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)))`

// Definitions is another text whenever a view or a function has changed.
func Definitions(ctx context.Context, conn *pgx.Conn) (text string, err error) {
	if err := conn.QueryRow(ctx, definitionsStatement).Scan(&text); err != nil {
		return "", fmt.Errorf("read which views and functions there are: %w", err)
	}
	return text, nil
}
