package database

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/unstale/unstale/internal/change"
)

// Name of a table as a person gave it: exact, without quotes. An empty Schema
// leaves the choice to search_path.
type Name struct {
	Schema string `json:"schema"`
	Table  string `json:"table"`
}

// String is the name as one would say it: shop.orders, or orders.
func (n Name) String() string {
	if n.Schema == "" {
		return n.Table
	}
	return n.Schema + "." + n.Table
}

// SQL is the name quoted for a statement.
func (n Name) SQL() string {
	if n.Schema == "" {
		return quote(n.Table)
	}
	return quote(n.Schema) + "." + quote(n.Table)
}

// Kind is pg_class.relkind.
type Kind string

const (
	KindTable            Kind = "r"
	KindPartitioned      Kind = "p"
	KindView             Kind = "v"
	KindMaterializedView Kind = "m"
	KindForeign          Kind = "f"
)

// Persistence is pg_class.relpersistence.
type Persistence string

const (
	Permanent Persistence = "p"
	Unlogged  Persistence = "u"
	Temporary Persistence = "t"
)

// A Relation is one relation of a table: the table itself, a partition of it at
// any level, or a table that inherits from it.
type Relation struct {
	OID         uint32      `json:"oid"`
	Name        Name        `json:"name"` // the schema is never empty
	Kind        Kind        `json:"kind"`
	Persistence Persistence `json:"persistence"`
	Partition   bool        `json:"partition"`
	Replica     Replica     `json:"replica"`
}

// Replica says which columns of an old row the log carries.
type Replica struct {
	// Setting is pg_class.relreplident, as letters of change.Identity.
	Setting string `json:"setting"`
	// PrimaryKey and Index are the columns of the primary key and of the index
	// of REPLICA IDENTITY USING INDEX. Both only as far as PostgreSQL would use
	// them: a deferrable primary key identifies nothing.
	PrimaryKey []string `json:"primary_key"`
	Index      []string `json:"index"`
}

// Identity is Setting in the words of the stream.
func (r Replica) Identity() change.Identity {
	if len(r.Setting) != 1 {
		return change.IdentityNothing
	}
	return change.Identity(r.Setting[0])
}

// Columns returns the columns of an old row, whole if it has all of them.
// Neither whole nor any column means that UPDATE and DELETE fail as soon as the
// table is published.
func (r Replica) Columns() (columns []string, whole bool) {
	switch r.Identity() {
	case change.IdentityFull:
		return nil, true
	case change.IdentityDefault:
		return r.PrimaryKey, false
	case change.IdentityIndex:
		return r.Index, false
	}
	return nil, false
}

// Holds reports whether the old row has all of columns.
func (r Replica) Holds(columns []string) bool {
	have, whole := r.Columns()
	return whole || len(have) > 0 && !slices.ContainsFunc(columns, func(c string) bool { return !slices.Contains(have, c) })
}

// A Table is what the catalog knows of a named table.
type Table struct {
	Asked Name
	// Relation.OID is zero where there is no such table; then nothing else is
	// set.
	Relation
	Columns []Column
	// Unique are the columns of each index that makes rows differ: the primary
	// key first, and none that is deferrable, not valid, partial or over an
	// expression.
	Unique [][]string
	// Root is the topmost table if this one is a partition.
	Root *Name
	// Below are the partitions of every level, and the inheriting tables.
	Below []Relation
	// Fingerprint is a hash of everything that can change what a cached row
	// ought to hold without a single row being sent: see [Fingerprints].
	Fingerprint string
}

// Column returns the column of that name, or nil.
func (t *Table) Column(name string) *Column {
	for i := range t.Columns {
		if t.Columns[i].Name == name {
			return &t.Columns[i]
		}
	}
	return nil
}

// A Column of a table, dropped ones apart, in attnum order.
type Column struct {
	Number  int    `json:"number"`
	Name    string `json:"name"`
	TypeOID uint32 `json:"type_oid"`
	// TypeName is as PostgreSQL writes it, typmod included: numeric(10,2).
	TypeName string `json:"type_name"`
	// Base is the type behind all domains; the type itself where it is none.
	Base Base `json:"base"`
	// TypeMod is -1 where there is none; of a domain it is that of the domain.
	TypeMod int32 `json:"type_mod"`
	// Generated is pg_attribute.attgenerated: empty, "s" (stored) or "v"
	// (virtual).
	Generated string `json:"generated"`
	// Defaulted: it may be NULL and has a default.
	Defaulted bool `json:"defaulted"`
	// Logged: the log can have it. Stored generated columns are in the log from
	// PostgreSQL 18 on, if the publication says so, and virtual ones never.
	Logged bool `json:"logged"`
	// Deterministic: equal means the same bytes.
	Deterministic bool `json:"deterministic"`
	// Long: a value may be stored out of line. As a last resort that can happen
	// to columns with STORAGE MAIN too, such as numerics; those are left out.
	// https://www.postgresql.org/docs/current/storage-toast.html
	Long bool `json:"long"`
	// Readable: the asking role may SELECT it.
	Readable bool `json:"readable"`
}

// Base is a type that is no domain.
type Base struct {
	OID    uint32 `json:"oid"`
	Schema string `json:"schema"`
	Name   string `json:"name"`
	// Type is pg_type.typtype: "b" base, "c" composite, "e" enum, "r" range.
	Type string `json:"type"`
}

// builtIn reports whether b is the type of that name of PostgreSQL itself.
func (b Base) builtIn(names ...string) bool {
	return b.Schema == "pg_catalog" && slices.Contains(names, b.Name)
}

// Alphabet says which characters the text of a value can hold.
type Alphabet uint8

const (
	// AnyText: every character.
	AnyText Alphabet = iota
	// Integer: digits and '-'.
	Integer
	// UUID: hexadecimal digits and '-'.
	UUID
	// Boolean: t or f.
	Boolean
)

// Alphabet returns which characters the text of the column can hold.
func (c *Column) Alphabet() Alphabet {
	switch {
	case c.Base.builtIn("int2", "int4", "int8", "oid"):
		return Integer
	case c.Base.builtIn("uuid"):
		return UUID
	case c.Base.builtIn("bool"):
		return Boolean
	}
	return AnyText
}

// asked is $1 (schemas) and $2 (names), numbered, with the oids that they
// resolve to; tree adds everything below them. The catalogs are read directly:
// no table is locked, so the query never waits for an ALTER TABLE, and other
// than to_regclass() it does not fail in a schema that the role may not use.
const catalogTables = `
WITH RECURSIVE asked AS (
    SELECT a.number, a.schema, a.name, r.oid
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS a(schema, name, number)
    CROSS JOIN LATERAL (
        SELECT c.oid
        FROM pg_class c
        JOIN pg_namespace s ON s.oid = c.relnamespace
        LEFT JOIN unnest(current_schemas(true)) WITH ORDINALITY AS path(name, place) ON path.name = s.nspname
        WHERE c.relname = a.name AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
          AND CASE WHEN a.schema = '' THEN path.place IS NOT NULL ELSE s.nspname = a.schema END
        ORDER BY path.place
        LIMIT 1) r
), tree AS (
    SELECT number, oid FROM asked
    UNION
    SELECT t.number, i.inhrelid
    FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid AND NOT i.inhdetachpending
)`

// catalogTypes needs catalogTables before it: the types of the columns, and all
// that those are made of.
const catalogTypes = `, types AS (
    SELECT DISTINCT t.number, a.atttypid AS oid
    FROM asked t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
    UNION
    SELECT t.number, inner_type.oid
    FROM types t
    JOIN pg_type p ON p.oid = t.oid
    CROSS JOIN LATERAL (
        SELECT p.typbasetype AS oid WHERE p.typbasetype <> 0
        UNION ALL SELECT p.typelem WHERE p.typelem <> 0
        UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE p.oid IN (r.rngtypid, r.rngmultitypid)
        UNION ALL SELECT a.atttypid FROM pg_attribute a
                  WHERE p.typtype = 'c' AND a.attrelid = p.typrelid AND a.attnum > 0 AND NOT a.attisdropped
    ) inner_type
)`

// catalogShape needs catalogTypes before it: all that a value.Shape is made of.
// It is part of the fingerprint as well, so that no shape changes unnoticed.
const catalogShape = `, shape AS (
    SELECT asked.number,
       coalesce((SELECT json_agg(json_build_object(
               'name', a.attname, 'type', a.atttypid::bigint, 'type_mod', a.atttypmod, 'generated', a.attgenerated <> ''
           ) ORDER BY a.attnum)
           FROM pg_attribute a
           WHERE a.attrelid = asked.oid AND a.attnum > 0 AND NOT a.attisdropped), '[]')::text AS columns,
       coalesce((SELECT json_agg(json_build_object(
               'oid', p.oid::bigint,
               'name', format_type(p.oid, NULL),
               'type', p.typtype,
               'array', p.typelem <> 0 AND p.typsubscript = 'pg_catalog.array_subscript_handler'::regproc,
               'delimiter', p.typdelim,
               'base', p.typbasetype::bigint,
               'element', CASE WHEN p.typtype IN ('r', 'm')
                   THEN (SELECT r.rngsubtype::bigint FROM pg_range r WHERE p.oid IN (r.rngtypid, r.rngmultitypid))
                   ELSE p.typelem::bigint END,
               'fields', (SELECT json_agg(json_build_object('name', a.attname, 'type', a.atttypid::bigint) ORDER BY a.attnum)
                   FROM pg_attribute a
                   WHERE p.typtype = 'c' AND a.attrelid = p.typrelid AND a.attnum > 0 AND NOT a.attisdropped),
               'cast', (SELECT format('%s.%s', e.extname, f.prosrc)
                   FROM pg_cast c
                   JOIN pg_proc f ON f.oid = c.castfunc
                   LEFT JOIN pg_depend d ON d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = f.oid AND d.deptype = 'e'
                   LEFT JOIN pg_extension e ON e.oid = d.refobjid
                   WHERE c.castsource = p.oid AND c.casttarget = 'pg_catalog.json'::regtype AND c.castmethod = 'f'),
               'volatile', (SELECT f.provolatile <> 'i' FROM pg_proc f WHERE f.oid = p.typoutput)
           ) ORDER BY p.oid)
           FROM types t JOIN pg_type p ON p.oid = t.oid
           WHERE t.number = asked.number), '[]')::text AS types
    FROM asked
)`

// catalogFingerprint needs catalogShape before it.
const catalogFingerprint = `, fingerprint AS (
    SELECT asked.number, encode(sha256(convert_to(concat_ws(' ', shape.columns, shape.types,
        (SELECT json_agg(json_build_array(c.oid::bigint, c.relkind, c.relpersistence, c.relreplident, c.relfilenode::bigint) ORDER BY c.oid)
         FROM tree t JOIN pg_class c ON c.oid = t.oid WHERE t.number = asked.number),
        (SELECT json_agg(json_build_array(i.indrelid::bigint, i.indisprimary, i.indkey::text) ORDER BY i.indrelid, i.indisprimary, i.indkey::text)
         FROM tree t JOIN pg_index i ON i.indrelid = t.oid AND (i.indisprimary OR i.indisreplident) WHERE t.number = asked.number),
        (SELECT json_agg(json_build_array(a.attnum, a.attname, a.atttypid::bigint, a.atttypmod, a.attisdropped, a.attgenerated,
                    CASE WHEN a.attgenerated <> '' THEN d.oid::bigint END) ORDER BY a.attnum)
         FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
         WHERE a.attrelid = asked.oid AND a.attnum > 0),
        (SELECT json_agg(json_build_array(p.oid::bigint, a.attnum, a.attname, a.atttypid::bigint, a.atttypmod, a.attisdropped) ORDER BY p.oid, a.attnum)
         FROM types t JOIN pg_type p ON p.oid = t.oid AND p.typtype = 'c' JOIN pg_attribute a ON a.attrelid = p.typrelid AND a.attnum > 0
         WHERE t.number = asked.number),
        (SELECT json_agg(json_build_array(e.oid::bigint, e.enumlabel) ORDER BY e.oid)
         FROM types t JOIN pg_enum e ON e.enumtypid = t.oid WHERE t.number = asked.number)
    ), getdatabaseencoding())), 'hex') AS hash
    FROM asked JOIN shape ON shape.number = asked.number
)`

const fingerprintsStatement = catalogTables + catalogTypes + catalogShape + catalogFingerprint + `
SELECT number, hash FROM fingerprint`

const tablesStatement = catalogTables + catalogTypes + catalogShape + catalogFingerprint + `, above AS (
    SELECT t.number, i.inhparent AS oid, 1 AS level
    FROM asked t JOIN pg_class c ON c.oid = t.oid AND c.relispartition JOIN pg_inherits i ON i.inhrelid = t.oid
    UNION ALL
    SELECT b.number, i.inhparent, b.level + 1
    FROM above b JOIN pg_inherits i ON i.inhrelid = b.oid
), relations AS (
    SELECT DISTINCT c.oid, json_build_object(
        'oid', c.oid::bigint,
        'name', json_build_object('schema', s.nspname, 'table', c.relname),
        'kind', c.relkind,
        'persistence', c.relpersistence,
        'partition', c.relispartition,
        'replica', json_build_object(
            'setting', c.relreplident,
            'primary_key', (SELECT json_agg(a.attname ORDER BY k.place)
                FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY AS k(number, place), pg_attribute a
                WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate AND (i.indisvalid OR c.relkind = 'p')
                  AND k.place <= i.indnkeyatts AND a.attrelid = c.oid AND a.attnum = k.number),
            'index', (SELECT json_agg(a.attname ORDER BY k.place)
                FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY AS k(number, place), pg_attribute a
                WHERE i.indrelid = c.oid AND i.indisreplident AND i.indimmediate AND i.indisvalid
                  AND k.place <= i.indnkeyatts AND a.attrelid = c.oid AND a.attnum = k.number)))::text AS facts
    FROM tree t JOIN pg_class c ON c.oid = t.oid JOIN pg_namespace s ON s.oid = c.relnamespace
)
SELECT asked.number,
       (SELECT facts FROM relations WHERE relations.oid = asked.oid) AS relation,
       coalesce((SELECT json_agg(json_build_object(
            'number', a.attnum,
            'name', a.attname,
            'type_oid', a.atttypid::bigint,
            'type_name', format_type(a.atttypid, a.atttypmod),
            'type_mod', CASE WHEN base.type_mod IS NULL OR a.atttypmod >= 0 THEN a.atttypmod ELSE base.type_mod END,
            'generated', a.attgenerated,
            'defaulted', a.atthasdef AND a.attgenerated = '' AND NOT a.attnotnull,
            'logged', a.attgenerated = '' OR a.attgenerated = 's' AND current_setting('server_version_num')::int >= 180000,
            'deterministic', coalesce(collation_of.collisdeterministic, true),
            'readable', has_column_privilege(asked.oid, a.attnum, 'SELECT'),
            'long', a.attstorage IN ('x', 'e') AND EXISTS (SELECT FROM tree t JOIN pg_class c ON c.oid = t.oid
                WHERE t.number = asked.number AND c.reltoastrelid <> 0),
            'base', json_build_object('oid', base.oid::bigint, 'schema', base.schema, 'name', base.name, 'type', base.typtype)
        ) ORDER BY a.attnum)
        FROM pg_attribute a
        LEFT JOIN pg_collation collation_of ON collation_of.oid = a.attcollation
        CROSS JOIN LATERAL (
            WITH RECURSIVE domain AS (
                SELECT p.oid, p.typtype, p.typbasetype, p.typname, p.typnamespace, NULL::int AS type_mod
                FROM pg_type p WHERE p.oid = a.atttypid
                UNION ALL
                SELECT p.oid, p.typtype, p.typbasetype, p.typname, p.typnamespace,
                       CASE WHEN outer_type.typtypmod >= 0 THEN outer_type.typtypmod ELSE d.type_mod END
                FROM domain d JOIN pg_type outer_type ON outer_type.oid = d.oid JOIN pg_type p ON p.oid = d.typbasetype
                WHERE d.typtype = 'd'
            )
            SELECT d.oid, s.nspname AS schema, d.typname AS name, d.typtype, d.type_mod
            FROM domain d JOIN pg_namespace s ON s.oid = d.typnamespace WHERE d.typtype <> 'd') base
        WHERE a.attrelid = asked.oid AND a.attnum > 0 AND NOT a.attisdropped), '[]')::text AS columns,
       coalesce((SELECT json_agg(u.columns ORDER BY u.indisprimary DESC, u.indexrelid)
        FROM (SELECT i.indisprimary, i.indexrelid, json_agg(a.attname ORDER BY k.place) AS columns
            FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY AS k(number, place), pg_attribute a
            WHERE i.indrelid = asked.oid AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
              AND k.place <= i.indnkeyatts AND a.attrelid = asked.oid AND a.attnum = k.number
            GROUP BY i.indexrelid) u), '[]')::text AS unique_columns,
       (SELECT json_build_object('schema', s.nspname, 'table', c.relname)
        FROM above b JOIN pg_class c ON c.oid = b.oid JOIN pg_namespace s ON s.oid = c.relnamespace
        WHERE b.number = asked.number ORDER BY b.level DESC LIMIT 1)::text AS root,
       coalesce((SELECT json_agg(relations.facts::json ORDER BY relations.facts::json -> 'name' ->> 'schema', relations.facts::json -> 'name' ->> 'table')
        FROM tree t JOIN relations ON relations.oid = t.oid
        WHERE t.number = asked.number AND t.oid <> asked.oid), '[]')::text AS below,
       fingerprint.hash
FROM asked JOIN fingerprint ON fingerprint.number = asked.number
ORDER BY asked.number`

// Tables looks the named tables up and returns one Table for each, in their
// order. A name that leads to nothing is no error: its OID is zero.
func Tables(ctx context.Context, conn *pgx.Conn, names []Name) ([]Table, error) {
	tables := make([]Table, len(names))
	for i, name := range names {
		tables[i].Asked = name
	}
	rows, err := conn.Query(ctx, tablesStatement, schemasOf(names), tablesOf(names))
	if err != nil {
		return nil, fmt.Errorf("read the catalog: %w", err)
	}
	var number int
	var relation, columns, unique, below, fingerprint string
	var root *string
	_, err = pgx.ForEachRow(rows, []any{&number, &relation, &columns, &unique, &root, &below, &fingerprint}, func() error {
		t := &tables[number-1]
		t.Fingerprint = fingerprint
		if root != nil {
			if err := json.Unmarshal([]byte(*root), &t.Root); err != nil {
				return err
			}
		}
		for _, part := range []struct {
			text string
			into any
		}{{relation, &t.Relation}, {columns, &t.Columns}, {unique, &t.Unique}, {below, &t.Below}} {
			if err := json.Unmarshal([]byte(part.text), part.into); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the catalog: %w", err)
	}
	return tables, nil
}

// Fingerprints returns the fingerprint of each table; that of a table that does
// not exist is empty. It is one query of a few milliseconds that takes no lock
// on any table, made to be asked every few seconds: some changes make cached
// rows wrong and are never sent, and show only here.
//
// A fingerprint changes with the table's columns and their types (rewritten
// rows, dropped and renamed columns, labels of enums, attributes of composite
// types, casts to json: whatever [Shapes] returns), with the storage of the table
// and of each partition (TRUNCATE of a partition, SET UNLOGGED and back), with the
// set of partitions, and with the replica identity. It does not change with rows,
// VACUUM, ANALYZE or indexes. VACUUM FULL and CLUSTER do change it: from outside
// they cannot be told from a rewrite.
func Fingerprints(ctx context.Context, conn *pgx.Conn, names []Name) (map[Name]string, error) {
	fingerprints := make(map[Name]string, len(names))
	for _, name := range names {
		fingerprints[name] = ""
	}
	rows, err := conn.Query(ctx, fingerprintsStatement, schemasOf(names), tablesOf(names))
	if err != nil {
		return nil, fmt.Errorf("read the fingerprints of the tables: %w", err)
	}
	var number int
	var hash string
	_, err = pgx.ForEachRow(rows, []any{&number, &hash}, func() error {
		fingerprints[names[number-1]] = hash
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the fingerprints of the tables: %w", err)
	}
	return fingerprints, nil
}

// A UniqueKey are columns that tell any two rows of a table apart that have no NULL in
// them, at any time: also inside a transaction.
type UniqueKey struct {
	Columns []string
	// Index is the oid of the index that says so: of one that was made anew, another.
	Index uint32
}

const uniqueKeysStatement = catalogTables + `
SELECT asked.number, i.indexrelid,
       ARRAY(SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place)
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum WHERE k.place <= i.indnkeyatts ORDER BY k.place)
FROM asked JOIN pg_index i ON i.indrelid = asked.oid
WHERE i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL ORDER BY 1, 2`

// UniqueKeys returns those of the named tables.
func UniqueKeys(ctx context.Context, conn *pgx.Conn, tables []Name) (map[Name][]UniqueKey, error) {
	rows, err := conn.Query(ctx, uniqueKeysStatement, schemasOf(tables), tablesOf(tables))
	if err != nil {
		return nil, fmt.Errorf("read the unique keys of the tables: %w", err)
	}
	keys := map[Name][]UniqueKey{}
	var number int
	var key UniqueKey
	_, err = pgx.ForEachRow(rows, []any{&number, &key.Index, &key.Columns}, func() error {
		name := tables[number-1]
		keys[name] = append(keys[name], UniqueKey{slices.Clone(key.Columns), key.Index})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the unique keys of the tables: %w", err)
	}
	return keys, nil
}

// A KeyColumn is a column as long as it is the same.
type KeyColumn struct {
	TypeOID uint32
	// History is another one when the type of the column may have been another in
	// between, however it was brought back: by ALTER TABLE, or by another table
	// under the same name. TRUNCATE and a change of other columns leave it.
	History string
}

// keyColumnsStatement: a row of the catalog that was written has another xmin.
// Renaming a table writes its row type, changing the type of a column that.
const keyColumnsStatement = catalogTables + `
SELECT asked.number, a.attname, a.atttypid, concat_ws('/', t.oid, t.xmin, a.attnum, a.atttypid, a.xmin)
FROM asked
JOIN pg_class c ON c.oid = asked.oid
JOIN pg_type t ON t.oid = c.reltype
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE a.attname = ANY ($3)`

// KeyColumns returns those of the named tables that have one of these names.
func KeyColumns(ctx context.Context, conn *pgx.Conn, tables []Name, columns []string) (map[Name]map[string]KeyColumn, error) {
	rows, err := conn.Query(ctx, keyColumnsStatement, schemasOf(tables), tablesOf(tables), columns)
	if err != nil {
		return nil, fmt.Errorf("read the columns of keys: %w", err)
	}
	found := map[Name]map[string]KeyColumn{}
	var number int
	var column string
	var c KeyColumn
	_, err = pgx.ForEachRow(rows, []any{&number, &column, &c.TypeOID, &c.History}, func() error {
		name := tables[number-1]
		if found[name] == nil {
			found[name] = map[string]KeyColumn{}
		}
		found[name][column] = c
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the columns of keys: %w", err)
	}
	return found, nil
}

func schemasOf(names []Name) []string {
	schemas := make([]string, len(names))
	for i, n := range names {
		schemas[i] = n.Schema
	}
	return schemas
}

func tablesOf(names []Name) []string {
	tables := make([]string, len(names))
	for i, n := range names {
		tables[i] = n.Table
	}
	return tables
}

// quote quotes an identifier where SQL needs it and leaves it readable where
// not, so that a printed statement looks like one that a person would write.
func quote(identifier string) string {
	plain := len(identifier) > 0 && !('0' <= identifier[0] && identifier[0] <= '9')
	for _, c := range []byte(identifier) {
		plain = plain && (c == '_' || 'a' <= c && c <= 'z' || '0' <= c && c <= '9')
	}
	if plain && !reserved(identifier) {
		return identifier
	}
	return pgx.Identifier{identifier}.Sanitize()
}

// reserved reports whether a plain word needs quotes as the name of a table,
// column or role. It may err towards true.
// https://www.postgresql.org/docs/current/sql-keywords-appendix.html
func reserved(word string) bool {
	return slices.Contains(reservedWords, word)
}

var reservedWords = strings.Fields(`
	all analyse analyze and any array as asc asymmetric authorization between bigint binary bit boolean both case
	cast char character check coalesce collate collation column concurrently constraint create cross current_catalog
	current_date current_role current_schema current_time current_timestamp current_user dec decimal default
	deferrable desc distinct do else end except exists extract false fetch float for foreign freeze from full grant
	greatest group grouping having ilike in initially inner inout int integer intersect interval into is isnull join
	json_array json_arrayagg json_exists json_object json_objectagg json_query json_scalar json_serialize json_table
	json_value lateral leading least left like limit localtime localtimestamp merge_action national natural nchar none
	normalize not notnull null nullif numeric offset on only or order out outer overlaps overlay placing position
	precision primary real references returning right row select session_user setof similar smallint some
	substring symmetric system_user table tablesample then time timestamp to trailing treat trim true union unique user
	using values varchar variadic verbose when where window with without xmlattributes xmlconcat xmlelement xmlexists
	xmlforest xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable`)
