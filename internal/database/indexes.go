package database

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// A Way is what PostgreSQL's planner says of a lookup.
type Way struct {
	// Rows are how many it expects to find for one row that changes.
	Rows int64
	// Indexes are those that it uses.
	Indexes []string
	// Unindexed are the tables that it must read all of.
	Unindexed []Unindexed
}

// Unindexed is a table that a lookup must read all of.
type Unindexed struct {
	Table Name
	// Mend are statements that each run by themselves; none where no column of the table
	// leads to it.
	Mend []string
}

// A Step is a table that a lookup reads, by one of these columns at least.
type Step struct {
	Table   Name
	Columns []string
}

// indexedStatement asks for an index that begins with one of the columns, and for the
// partitions of the table: the leaves.
const indexedStatement = `
SELECT EXISTS (
  SELECT FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
  WHERE i.indrelid = c.oid AND a.attname = ANY ($3) AND i.indisvalid AND i.indpred IS NULL),
  c.relkind = 'p',
  ARRAY(SELECT format('%I.%I', n.nspname, p.relname) FROM pg_catalog.pg_partition_tree(c.oid) t
        JOIN pg_catalog.pg_class p ON p.oid = t.relid JOIN pg_catalog.pg_namespace n ON n.oid = p.relnamespace
        WHERE t.isleaf AND p.oid <> c.oid ORDER BY 1)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = $2`

// ExplainLookup says how PostgreSQL would run a lookup for one row, with the settings
// of a Finder; its error is [ErrUnallowed] where the role may not. arguments is the number
// of its parameters.
func ExplainLookup(ctx context.Context, conn *pgx.Conn, statement string, arguments int, steps []Step) (way Way, err error) {
	top, err := explain(ctx, conn, statement, arguments)
	if _, lacks := lacking(err); lacks {
		return way, fmt.Errorf("explain a lookup: %w: %w", ErrUnallowed, err)
	}
	if err != nil {
		return way, fmt.Errorf("explain a lookup: %w", err)
	}
	way.Rows = top.Rows
	read := map[Name]bool{} // wholly
	top.walk(func(n *planNode) {
		if n.Index != "" && n.Cond != "" && !slices.Contains(way.Indexes, n.Index) {
			way.Indexes = append(way.Indexes, n.Index)
		}
		if n.Relation != "" && !n.searches() {
			read[Name{Schema: n.Schema, Table: n.Relation}] = true
		}
	})
	for _, step := range steps {
		var indexed, partitioned bool
		var leaves []string
		if err := conn.QueryRow(ctx, indexedStatement, step.Table.Schema, step.Table.Table, step.Columns).Scan(&indexed, &partitioned, &leaves); err != nil {
			return way, fmt.Errorf("look for an index of %s: %w", step.Table, err)
		}
		// A partial index may serve, or one of an expression.
		if indexed || !partitioned && !read[step.Table] ||
			slices.ContainsFunc(way.Unindexed, func(u Unindexed) bool { return u.Table == step.Table }) {
			continue
		}
		missing := Unindexed{Table: step.Table}
		if len(step.Columns) == 0 {
			way.Unindexed = append(way.Unindexed, missing)
			continue
		}
		column := quote(step.Columns[0])
		for _, leaf := range leaves {
			missing.Mend = append(missing.Mend, fmt.Sprintf("CREATE INDEX CONCURRENTLY ON %s (%s);", leaf, column))
		}
		if partitioned {
			// It takes the indexes of the partitions in, and builds none.
			missing.Mend = append(missing.Mend, fmt.Sprintf("CREATE INDEX ON %s (%s);", step.Table.SQL(), column))
		} else {
			missing.Mend = []string{fmt.Sprintf("CREATE INDEX CONCURRENTLY ON %s (%s);", step.Table.SQL(), column)}
		}
		way.Unindexed = append(way.Unindexed, missing)
	}
	return way, nil
}

// planNode is what we read of a node of EXPLAIN.
type planNode struct {
	Type     string     `json:"Node Type"`
	Rows     int64      `json:"Plan Rows"`
	Schema   string     `json:"Schema"`
	Relation string     `json:"Relation Name"`
	Index    string     `json:"Index Name"`
	Cond     string     `json:"Index Cond"`
	Plans    []planNode `json:"Plans"`
}

// searches reports whether a scan reads no more than what some index leads to. A bitmap
// has its indexes in nodes of their own below it.
func (n *planNode) searches() bool {
	bitmap := strings.HasPrefix(n.Type, "Bitmap") && len(n.Plans) > 0
	return n.Cond != "" || bitmap && !slices.ContainsFunc(n.Plans, func(below planNode) bool { return !below.searches() })
}

func (n *planNode) walk(each func(*planNode)) {
	each(n)
	for i := range n.Plans {
		n.Plans[i].walk(each)
	}
}

func explain(ctx context.Context, conn *pgx.Conn, statement string, arguments int) (top planNode, err error) {
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
	if err != nil {
		return top, err
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	for name, value := range byIndex {
		if _, err := tx.Exec(ctx, "SELECT set_config($1, $2, true)", name, value); err != nil {
			return top, err
		}
	}
	// Which values they are is not known to the planner behind unnest: it answers for
	// those of an average row.
	given := make([]any, arguments)
	for i := range given {
		given[i] = []*string{nil}
	}
	var plans []struct{ Plan planNode }
	if err := tx.QueryRow(ctx, "EXPLAIN (VERBOSE, FORMAT JSON) "+statement, given...).Scan(&plans); err != nil {
		return top, err
	}
	return plans[0].Plan, nil
}

// definitionsStatement numbers the versions of everything that a query may be made of
// besides tables.
const definitionsStatement = `
SELECT concat_ws(' ',
  (SELECT count(*) || '/' || coalesce(sum(hashtextextended(w.oid || ' ' || w.xmin || ' ' || c.oid || ' ' || c.xmin, 0)), 0)
   FROM pg_catalog.pg_rewrite w JOIN pg_catalog.pg_class c ON c.oid = w.ev_class
   WHERE c.relkind = 'v' AND c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace) AND c.relpersistence <> 't'),
  (SELECT count(*) || '/' || coalesce(sum(hashtextextended(p.oid || ' ' || p.xmin, 0)), 0)
   FROM pg_catalog.pg_proc p WHERE p.pronamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)),
  (SELECT count(*) || '/' || coalesce(sum(hashtextextended(c.oid::text, 0)), 0) FROM pg_catalog.pg_class c WHERE c.relrowsecurity))`

// Definitions is another text whenever a view or a function has changed, or row security
// of a table was switched on or off.
func Definitions(ctx context.Context, conn *pgx.Conn) (text string, err error) {
	if err := conn.QueryRow(ctx, definitionsStatement).Scan(&text); err != nil {
		return "", fmt.Errorf("read which views and functions there are: %w", err)
	}
	return text, nil
}
