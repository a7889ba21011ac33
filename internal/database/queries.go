package database

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/unstale/unstale/internal/plan"
	"github.com/unstale/unstale/internal/query"
)

// Queries answers what a query names, as the search_path of its connection has it,
// and holds what is derived from a query against what PostgreSQL makes of it. It
// remembers every answer: who wants to see a changed catalog makes a new one.
type Queries struct {
	ctx       context.Context
	conn      *pgx.Conn
	relations map[[2]string]*query.Relation
	functions map[called]*query.Function
	types     map[uint32]query.Type
}

// called is how a query calls a function.
type called struct {
	schema, name string
	arguments    int
}

// NewQueries asks on conn, which nobody else uses meanwhile, until ctx ends.
func NewQueries(ctx context.Context, conn *pgx.Conn) *Queries {
	return &Queries{
		ctx: ctx, conn: conn,
		relations: map[[2]string]*query.Relation{}, functions: map[called]*query.Function{}, types: map[uint32]query.Type{},
	}
}

// Relation returns the relation of that name, nil if there is none. Its error is a
// *query.Error where the role may not look into the schema.
func (q *Queries) Relation(schema, name string) (*query.Relation, error) {
	asked := [2]string{schema, name}
	if known, ok := q.relations[asked]; ok {
		return known, nil
	}
	quoted := pgx.Identifier{name}
	if schema != "" {
		quoted = pgx.Identifier{schema, name}
	}
	found, err := q.relation("to_regclass($1::text)", quoted.Sanitize())
	if refused, lacks := lacking(err); lacks {
		return nil, q.unallowed(refused)
	}
	if err != nil {
		return nil, fmt.Errorf("read what %s is: %w", strings.Trim(schema+"."+name, "."), err)
	}
	q.relations[asked] = found
	return found, nil
}

const childrenStatement = `
WITH RECURSIVE child AS (
  SELECT inhrelid AS oid FROM pg_catalog.pg_inherits WHERE inhparent = $1
  UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN child c ON c.oid = i.inhparent)
SELECT c.oid FROM child JOIN pg_catalog.pg_class c ON c.oid = child.oid ORDER BY c.oid`

// relation returns the one whose oid an expression over $1 gives.
func (q *Queries) relation(oid string, argument any) (*query.Relation, error) {
	r := &query.Relation{}
	var number uint32
	var kind, persistence string
	// The constants of a view's definition are written as the session has it: they go into
	// lookups, which are read in sessions like the stream's.
	batch := &pgx.Batch{}
	for name, value := range textSettings {
		batch.Queue("SELECT pg_catalog.set_config($1::text, $2::text, true)", name, value)
	}
	batch.Queue(`
SELECT c.oid, n.nspname, c.relname, c.relkind::text, c.relpersistence::text, c.relrowsecurity, c.relispartition,
       CASE WHEN c.relkind = 'v' THEN pg_catalog.pg_get_viewdef(c.oid) ELSE '' END
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = `+oid, argument).QueryRow(func(row pgx.Row) error {
		return row.Scan(&number, &r.Schema, &r.Name, &kind, &persistence, &r.RowSecurity, &r.Partition, &r.Definition)
	})
	err := q.conn.SendBatch(q.ctx, batch).Close()
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r.Kind, r.Persistence = kind[0], persistence[0]
	rows, err := q.conn.Query(q.ctx, `
SELECT a.attname, a.attnotnull, a.attgenerated <> '', a.atttypid, coalesce(NOT l.collisdeterministic, false),
       CASE WHEN l.collprovider <> 'd' THEN pg_catalog.format('%I.%I', n.nspname, l.collname) ELSE '' END
FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
LEFT JOIN pg_catalog.pg_namespace n ON n.oid = l.collnamespace
WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`, number)
	if err != nil {
		return nil, err
	}
	var column query.Column
	var typ uint32
	var typs []uint32
	if _, err := pgx.ForEachRow(rows, []any{&column.Name, &column.NotNull, &column.Generated, &typ, &column.Nondeterministic, &column.Collation}, func() error {
		r.Columns, typs = append(r.Columns, column), append(typs, typ)
		return nil
	}); err != nil {
		return nil, err
	}
	types, err := q.typesOf(typs)
	if err != nil {
		return nil, err
	}
	for i, of := range types {
		r.Columns[i].Type.Name, r.Columns[i].Type.Base, r.Columns[i].Type.Element = of.Name, of.Base, of.Element
	}
	if r.Kind == 'r' || r.Kind == 'p' {
		name := Name{r.Schema, r.Name}
		unique, err := UniqueKeys(q.ctx, q.conn, []Name{name})
		if err != nil {
			return nil, err
		}
		for _, key := range unique[name] {
			r.Unique = append(r.Unique, key.Columns)
		}
	}
	switch r.Kind {
	case 'r':
	case 'p':
		err := q.conn.QueryRow(q.ctx, `
SELECT coalesce(min(c.relname), '') FROM pg_catalog.pg_partition_tree($1::oid) p JOIN pg_catalog.pg_class c ON c.oid = p.relid
WHERE c.relkind = 'f' OR c.relkind <> 'p' AND c.relpersistence <> 'p'`, number).Scan(&r.Unlogged)
		return r, err
	default:
		return r, nil
	}
	rows, err = q.conn.Query(q.ctx, childrenStatement, number)
	if err != nil {
		return nil, err
	}
	children, err := pgx.CollectRows(rows, pgx.RowTo[uint32])
	if err != nil {
		return nil, err
	}
	for _, child := range children {
		of, err := q.relation("$1::oid", child)
		if err != nil {
			return nil, err
		}
		if of != nil {
			r.Children = append(r.Children, of)
		}
	}
	return r, nil
}

// typesStatement goes through domains. A type is spelled with its schema unless
// it is PostgreSQL's own, so that no search_path makes another of it; with the
// modifier -1, for character alone would be character(1). A domain may have another
// collation than what is behind it.
const typesStatement = `
WITH RECURSIVE behind AS (
  SELECT t.oid AS asked, t.* FROM pg_catalog.pg_type t WHERE t.oid = ANY($1::oid[])
  UNION ALL SELECT b.asked, t.* FROM behind b JOIN pg_catalog.pg_type t ON t.oid = b.typbasetype WHERE b.typtype = 'd')
SELECT b.asked,
       CASE WHEN n.nspname = 'pg_catalog' OR e.oid IS NOT NULL THEN pg_catalog.format_type(b.oid, -1)
            ELSE pg_catalog.format('%I.%I', n.nspname, b.typname) END,
       CASE WHEN e.oid IS NOT NULL THEN ''
            WHEN b.typtype = 'e' THEN 'enum'
            WHEN n.nspname = 'pg_catalog' AND b.typtype IN ('b', 'r', 'm') THEN b.typname
            ELSE '' END,
       CASE WHEN e.typtype = 'b' AND e.typnamespace = 'pg_catalog'::regnamespace THEN e.typname ELSE '' END,
       coalesce(NOT l.collisdeterministic, false)
FROM behind b JOIN pg_catalog.pg_namespace n ON n.oid = b.typnamespace
JOIN pg_catalog.pg_type a ON a.oid = b.asked LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.typcollation
LEFT JOIN pg_catalog.pg_type e ON e.oid = b.typelem AND e.typarray = b.oid
WHERE b.typtype <> 'd'`

// typesOf returns the types of that oid, a domain as what is behind it.
func (q *Queries) typesOf(oids []uint32) ([]query.Type, error) {
	var missing []uint32
	for _, oid := range oids {
		if _, ok := q.types[oid]; !ok {
			missing = append(missing, oid)
		}
	}
	if len(missing) > 0 {
		rows, err := q.conn.Query(q.ctx, typesStatement, missing)
		if err != nil {
			return nil, err
		}
		var oid uint32
		var of query.Type
		if _, err := pgx.ForEachRow(rows, []any{&oid, &of.Name, &of.Base, &of.Element, &of.Nondeterministic}, func() error {
			q.types[oid] = of
			return nil
		}); err != nil {
			return nil, err
		}
	}
	types := make([]query.Type, len(oids))
	for i, oid := range oids {
		types[i] = q.types[oid]
	}
	return types, nil
}

// functionStatement takes what may be meant. The arguments of an ordered-set
// aggregate are those before WITHIN GROUP.
const functionStatement = `
SELECT bool_and(n.nspname = 'pg_catalog'),
       CASE WHEN bool_or(p.provolatile = 'v') THEN 'v' WHEN bool_or(p.provolatile = 's') THEN 's' ELSE 'i' END,
       bool_or(p.prokind = 'a'), bool_or(p.prokind = 'w'), bool_or(p.proretset)
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
LEFT JOIN pg_catalog.pg_aggregate a ON a.aggfnoid = p.oid
WHERE p.proname = $2::text AND p.prokind <> 'p'
  AND CASE WHEN $1::text = '' THEN n.nspname = ANY(pg_catalog.current_schemas(true)) ELSE n.nspname = $1::text END
  AND (CASE WHEN p.provariadic <> 0 THEN $3::int4 >= p.pronargs - p.pronargdefaults - 1
            ELSE $3::int4 BETWEEN p.pronargs - p.pronargdefaults AND p.pronargs END
       OR coalesce(a.aggkind IN ('o', 'h') AND (a.aggnumdirectargs = $3::int4 OR p.provariadic <> 0), false))
HAVING count(*) > 0`

// Function returns what all functions of that name that take so many arguments
// have in common, nil if there is none.
func (q *Queries) Function(schema, name string, arguments int) (*query.Function, error) {
	asked := called{schema, name, arguments}
	if known, ok := q.functions[asked]; ok {
		return known, nil
	}
	f := &query.Function{}
	var volatility string
	err := q.conn.QueryRow(q.ctx, functionStatement, schema, name, arguments).Scan(&f.BuiltIn, &volatility, &f.Aggregate, &f.Window, &f.ReturnsSet)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		f = nil
	case err != nil:
		return nil, fmt.Errorf("read what function %s is: %w", name, err)
	default:
		f.Volatility = volatility[0]
	}
	q.functions[asked] = f
	return f, nil
}

// Parameters returns the types of a query's parameters as PREPARE finds them. Its
// error is a *query.Error where PostgreSQL does not take the query.
func (q *Queries) Parameters(of *query.Query) ([]query.Type, error) {
	prepared, err := q.conn.PgConn().Prepare(q.ctx, "", of.SQL, nil)
	if err != nil {
		return nil, q.untaken(of, "prepare the query", err)
	}
	types, err := q.typesOf(prepared.ParamOIDs)
	if err != nil {
		return nil, fmt.Errorf("read the types of the parameters: %w", err)
	}
	return types, nil
}

// untaken is why PostgreSQL does not take a query, and what mends it: a *query.Error where
// the query is to blame, or a right that is missing.
func (q *Queries) untaken(of *query.Query, doing string, err error) error {
	refused, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if _, lacks := lacking(err); lacks {
		return q.unallowed(refused)
	}
	if refused.Code == "42883" {
		return q.unknown(of, refused)
	}
	return of.At(int(refused.Position), refused.Message, refused.Hint)
}

// unknown is a function or an operator that there is not. PostgreSQL says coun() of coun(*),
// and that casts may help where there is no function of that name at all.
func (q *Queries) unknown(of *query.Query, refused *pgconn.PgError) error {
	wrong := of.At(int(refused.Position), refused.Message, refused.Hint)
	name := of.NameAt(wrong.Offset)
	if name == "" {
		return wrong
	}
	var names []string
	rows, err := q.conn.Query(q.ctx, "SELECT DISTINCT proname FROM pg_catalog.pg_proc WHERE pg_catalog.pg_function_is_visible(oid)")
	if err == nil {
		names, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if err != nil {
		return fmt.Errorf("look for similar functions: %w", err)
	}
	if slices.Contains(names, name) {
		return wrong
	}
	wrong.Text = "there is no function " + name
	wrong.Mend = "name one that search_path has, or write its schema"
	if near := nearest(name, names); len(near) > 0 {
		wrong.Mend = "did you mean " + list(near, "or") + "?"
	}
	return wrong
}

// unallowed is a right that is missing to read what a query names, as a *query.Error.
func (q *Queries) unallowed(refused *pgconn.PgError) error {
	mend, err := grants(q.ctx, q.conn, refused, nil)
	if err != nil {
		return err
	}
	return &query.Error{Offset: -1, Text: refused.Message, Mend: strings.Join(mend, " ")}
}

// Results returns the types of the columns of a query's result, its parameters being of
// those types. Its error is as that of Parameters.
func (q *Queries) Results(of *query.Query, parameters []query.Type) ([]query.Type, error) {
	names, oids := make([]string, len(parameters)), []uint32{}
	for i := range parameters {
		names[i] = parameters[i].Name
	}
	rows, err := q.conn.Query(q.ctx, "SELECT pg_catalog.to_regtype(n)::oid FROM unnest($1::text[]) WITH ORDINALITY AS t(n, i) ORDER BY i", names)
	if err == nil {
		oids, err = pgx.CollectRows(rows, pgx.RowTo[uint32])
	}
	if err != nil {
		return nil, fmt.Errorf("read the types of the columns: %w", err)
	}
	prepared, err := q.conn.PgConn().Prepare(q.ctx, "", of.SQL, oids)
	if err != nil {
		return nil, q.untaken(of, "prepare the lookup", err)
	}
	results := make([]uint32, len(prepared.Fields))
	for i := range prepared.Fields {
		results[i] = prepared.Fields[i].DataTypeOID
	}
	types, err := q.typesOf(results)
	if err != nil {
		return nil, fmt.Errorf("read the types of the result: %w", err)
	}
	return types, nil
}

// Hides reports whether row security hides rows of the relation of that name from who
// asks.
func (q *Queries) Hides(schema, name string) (hides bool, err error) {
	r, err := q.Relation(schema, name)
	if err != nil || r == nil || !r.RowSecurity {
		return false, err
	}
	err = q.conn.QueryRow(q.ctx, "SELECT pg_catalog.row_security_active($1::text)", pgx.Identifier{r.Schema, r.Name}.Sanitize()).Scan(&hides)
	if err != nil {
		return false, fmt.Errorf("read whether row security holds for %s.%s: %w", r.Schema, r.Name, err)
	}
	return hides, nil
}

// Takes has PostgreSQL prepare a lookup. Its error is a *query.Error where that does not
// take it.
func (q *Queries) Takes(l *plan.Lookup) error {
	return q.takes(l.SQL, func(refused *pgconn.PgError) *query.Error {
		return &query.Error{Offset: -1, Text: "it cannot be run for many rows at once: " + refused.Message, Mend: refused.Hint}
	})
}

// TakesDerived has PostgreSQL prepare the lookups that were derived from a query. Its
// error is a *query.Error where that does not take one, which is an error of ours.
func (q *Queries) TakesDerived(dependencies []plan.Dependency) error {
	for _, d := range dependencies {
		for _, path := range d.Paths {
			if path.Lookup == nil {
				continue
			}
			statements := []string{path.Lookup.SQL}
			if path.Lookup.Index != nil {
				statements = append(statements, path.Lookup.Index.SQL)
			}
			for _, statement := range statements {
				if err := q.takes(statement, func(refused *pgconn.PgError) *query.Error {
					return &query.Error{
						Offset: d.Place, Mend: "please report the query",
						Text: fmt.Sprintf("internal: PostgreSQL does not take the lookup of a change of %s.%s: %s", d.Schema, d.Table, refused.Message),
					}
				}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// TakesKeys has PostgreSQL prepare the statements that list keys. Its error is a
// *query.Error where that does not take them.
func (q *Queries) TakesKeys(keys query.Keys) error {
	// Next has all that the others have.
	return q.takes(keys.Next, func(refused *pgconn.PgError) *query.Error {
		return &query.Error{Offset: -1, Text: "its keys cannot be listed: " + refused.Message, Mend: refused.Hint}
	})
}

// takes has PostgreSQL prepare a statement; refusal says what it means that it does not
// take it.
func (q *Queries) takes(statement string, refusal func(*pgconn.PgError) *query.Error) error {
	_, err := q.conn.PgConn().Prepare(q.ctx, "", statement, nil)
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok {
		return refusal(refused)
	}
	if err != nil {
		return fmt.Errorf("prepare a statement that finds or lists keys: %w", err)
	}
	return nil
}

// ErrUnverified is that PostgreSQL could not be asked what a query reads.
var ErrUnverified = errors.New("not verified against PostgreSQL's own reading of the query")

// dependsStatement is what PostgreSQL keeps of a view so that nobody drops what it
// reads: the columns, those of the views that it reads included.
const dependsStatement = `
WITH RECURSIVE reads AS (
  SELECT v.place, d.refobjid AS relation, d.refobjsubid AS number
  FROM unnest($1::text[]) WITH ORDINALITY AS v(name, place) JOIN pg_catalog.pg_rewrite w ON w.ev_class = v.name::regclass
  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = w.oid
  WHERE d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid <> w.ev_class
  UNION
  SELECT r.place, d.refobjid, d.refobjsubid
  FROM reads r JOIN pg_catalog.pg_rewrite w ON w.ev_class = r.relation
  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = w.oid
  WHERE d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid <> w.ev_class)
SELECT r.place, n.nspname, c.relname, coalesce(a.attname, '')
FROM reads r JOIN pg_catalog.pg_class c ON c.oid = r.relation JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = r.number AND r.number > 0
WHERE c.relkind <> 'v' ORDER BY 1, 2, 3, 4`

// Derived is what was derived from a query.
type Derived struct {
	Query        *query.Query
	Types        []query.Type // of its parameters
	Dependencies []plan.Dependency
}

// verifiedAtOnce is how many queries Verify has in one transaction.
const verifiedAtOnce = 100

// Verify holds the dependencies of queries against what PostgreSQL says that views
// of them depend on: a column that they lack is an error of ours. It makes temporary
// views in transactions that it rolls back; where it may not make that of a query, the
// query's error is [ErrUnverified].
func (q *Queries) Verify(all []Derived) []error {
	var errs []error
	for some := range slices.Chunk(all, verifiedAtOnce) {
		found, err := q.verify(some)
		for i := range some {
			if errors.Is(err, ErrUnverified) && len(some) > 1 {
				// One of them is refused: which, each by itself tells.
				errs = append(errs, q.Verify(some[i:i+1])...)
			} else {
				errs = append(errs, errors.Join(found[i], err))
			}
		}
	}
	return errs
}

func (q *Queries) verify(all []Derived) (errs []error, err error) {
	errs = make([]error, len(all))
	// A role may be set up to read only, by default.
	tx, err := q.conn.BeginTx(q.ctx, pgx.TxOptions{AccessMode: pgx.ReadWrite})
	if err != nil {
		return errs, fmt.Errorf("begin to verify queries: %w", err)
	}
	defer tx.Rollback(q.ctx)
	var views strings.Builder
	names := make([]string, len(all))
	for i, one := range all {
		names[i] = fmt.Sprintf("pg_temp.unstale_verified_%d", i)
		// In a subquery, because the columns of a view must have names that differ.
		fmt.Fprintf(&views, "CREATE TEMPORARY VIEW unstale_verified_%d AS SELECT 1 AS one FROM (\n%s\n) AS of;\n", i, one.Query.WithoutParameters(one.Types))
	}
	_, err = tx.Exec(q.ctx, views.String())
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok {
		return errs, fmt.Errorf("%w: %s", ErrUnverified, refused.Message)
	}
	if err != nil {
		return errs, fmt.Errorf("make views of queries: %w", err)
	}
	rows, err := tx.Query(q.ctx, dependsStatement, names)
	if err != nil {
		return errs, fmt.Errorf("read what views depend on: %w", err)
	}
	var place int
	var schema, table, column string
	lacking := make([][]string, len(all))
	if _, err := pgx.ForEachRow(rows, []any{&place, &schema, &table, &column}, func() error {
		if !slices.ContainsFunc(all[place-1].Dependencies, func(d plan.Dependency) bool {
			return d.Schema == schema && d.Table == table && (column == "" || slices.Contains(d.Columns, column))
		}) {
			lacking[place-1] = append(lacking[place-1], strings.TrimSuffix(schema+"."+table+"."+column, "."))
		}
		return nil
	}); err != nil {
		return errs, fmt.Errorf("read what views depend on: %w", err)
	}
	for i := range all {
		if len(lacking[i]) > 0 {
			errs[i] = &query.Error{Text: fmt.Sprintf("internal: PostgreSQL reads %s for this query, and the plan does not know of it", strings.Join(lacking[i], ", ")), Mend: "please report the query; until then write the entry with depends_on"}
		}
	}
	return errs, nil
}
