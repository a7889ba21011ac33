package database

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A Lack is a right that the asking role needs for a statement, and does not have.
type Lack struct {
	Text string   // what PostgreSQL says
	Mend []string // empty: nobody knows which it is
}

// ErrUnallowed is that the role lacks a right.
var ErrUnallowed = errors.New("a right is missing")

// grantsStatement finds the rights of relations, named as a query names them, and of the
// schemas and functions whose names are words of what PostgreSQL says, in whatever
// language. Which function of that name was meant it does not say.
const grantsStatement = `
WITH words AS (SELECT regexp_split_to_array($2, '[^[:alnum:]_]+') AS said)
SELECT 'USAGE ON SCHEMA ' || quote_ident(nspname) AS lacks
FROM words, pg_catalog.pg_namespace WHERE nspname = ANY (said) AND NOT has_schema_privilege(oid, 'USAGE')
UNION
SELECT 'EXECUTE ON FUNCTION ' || oid::regprocedure
FROM words, pg_catalog.pg_proc WHERE proname = ANY (said) AND prokind <> 'p' AND NOT has_function_privilege(oid, 'EXECUTE')
UNION
SELECT 'SELECT ON ' || quote_ident(n.nspname) || '.' || quote_ident(c.relname)
FROM unnest($1::text[]) AS named(name)
JOIN pg_catalog.pg_class c ON c.oid = to_regclass(named.name) JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v') AND NOT has_table_privilege(c.oid, 'SELECT')
ORDER BY lacks`

// grants are the statements that give the asking role what it lacks; without relations,
// only of schemas and functions.
func grants(ctx context.Context, conn *pgx.Conn, refused *pgconn.PgError, relations [][2]string) ([]string, error) {
	names := make([]string, len(relations))
	for i, relation := range relations {
		names[i] = Name{Schema: relation[0], Table: relation[1]}.SQL()
	}
	rows, err := conn.Query(ctx, grantsStatement, names, refused.Message)
	var rights []string
	if err == nil {
		rights, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if err != nil {
		return nil, fmt.Errorf("ask which rights are missing: %w", err)
	}
	for i := range rights {
		rights[i] = grant(rights[i], conn.Config().User)
	}
	return rights, nil
}

func grant(right, role string) string { return "GRANT " + right + " TO " + quote(role) + ";" }

// GrantTemporary is the statement that lets a role make temporary views.
func GrantTemporary(database, role string) string {
	return grant("TEMPORARY ON DATABASE "+quote(database), role)
}

// GrantRead are the statements that let a role read a table.
func GrantRead(table Name, role string) []string {
	return []string{grant("USAGE ON SCHEMA "+quote(table.Schema), role), grant("SELECT ON "+table.SQL(), role)}
}

// lacking is the right that an error says is missing; ok: it says so.
func lacking(err error) (refused *pgconn.PgError, ok bool) {
	refused, ok = errors.AsType[*pgconn.PgError](err)
	return refused, ok && refused.Code == "42501"
}

// LacksToLoad has PostgreSQL plan a load of query results; relations are those that the
// query names, each by a schema that may be empty. It is nil if the role may.
func LacksToLoad(ctx context.Context, conn *pgx.Conn, load *Load, relations [][2]string) (*Lack, error) {
	return lacks(ctx, conn, loadQuery(load), len(load.Key), relations)
}

// LacksToList is LacksToLoad of the statement that lists the keys.
func LacksToList(ctx context.Context, conn *pgx.Conn, load *Load, relations [][2]string) (*Lack, error) {
	if load.Keys.All == "" {
		return nil, nil
	}
	return lacks(ctx, conn, load.Keys.All, 0, relations)
}

// LacksToFind is LacksToLoad of a lookup with so many arguments. The rights on tables are
// Diagnose's.
func LacksToFind(ctx context.Context, conn *pgx.Conn, statement string, arguments int) (*Lack, error) {
	return lacks(ctx, conn, statement, arguments, nil)
}

func lacks(ctx context.Context, conn *pgx.Conn, statement string, arguments int, relations [][2]string) (*Lack, error) {
	_, err := explain(ctx, conn, statement, arguments)
	refused, ok := lacking(err)
	if !ok {
		if err != nil {
			return nil, fmt.Errorf("explain a statement: %w", err)
		}
		return nil, nil
	}
	mend, err := grants(ctx, conn, refused, relations)
	if err != nil {
		return nil, err
	}
	return &Lack{Text: refused.Message, Mend: mend}, nil
}
