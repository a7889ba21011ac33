package database

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const insufficientPrivilege = "42501" // https://www.postgresql.org/docs/current/errcodes-appendix.html

// unreadableStatement asks which of some relations are views that the role may not read.
const unreadableStatement = `
SELECT n.nspname, c.relname FROM unnest($1::text[]) AS named(name)
JOIN pg_catalog.pg_class c ON c.oid = to_regclass(named.name) JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'v' AND NOT has_table_privilege(c.oid, 'SELECT') GROUP BY 1, 2 ORDER BY 1, 2`

// MayLoad has PostgreSQL plan a load of query results, and the listing of its keys.
// refused is what it says if the role lacks a right for them, and views are those that
// the query names, each by a schema that may be empty, and the role may not read: the
// rights on tables are Diagnose's.
func MayLoad(ctx context.Context, conn *pgx.Conn, load *Load, relations [][2]string) (refused string, views []Name, err error) {
	_, err = explain(ctx, conn, loadQuery(load), len(load.Key))
	if err == nil && load.Keys.All != "" {
		_, err = explain(ctx, conn, load.Keys.All, 0)
	}
	lacks, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || lacks.Code != insufficientPrivilege {
		if err != nil {
			err = fmt.Errorf("explain a load: %w", err)
		}
		return "", nil, err
	}
	names := make([]string, len(relations))
	for i, relation := range relations {
		names[i] = quote(relation[1])
		if relation[0] != "" {
			names[i] = Name{Schema: relation[0], Table: relation[1]}.SQL()
		}
	}
	rows, err := conn.Query(ctx, unreadableStatement, names)
	if err == nil {
		views, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Name])
	}
	if err != nil {
		return "", nil, fmt.Errorf("ask which views may be read: %w", err)
	}
	return lacks.Message, views, nil
}
