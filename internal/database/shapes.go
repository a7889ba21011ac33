package database

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/unstale/unstale/internal/value"
)

// typesDeepMax bounds a walk from a domain to what is behind it. PostgreSQL
// has no circles there; a damaged catalog may.
const typesDeepMax = 64

// shapesStatement locks nothing. The columns and their types come from one
// statement, so they fit together.
const shapesStatement = catalogTables + catalogTypes + `, columns AS (
    SELECT asked.number, a.attnum, a.attname, a.atttypid, a.atttypmod, a.attgenerated
    FROM asked JOIN pg_attribute a ON a.attrelid = asked.oid AND a.attnum > 0 AND NOT a.attisdropped
)
SELECT coalesce((SELECT json_agg(json_build_object(
           'number', number, 'name', attname, 'type', atttypid::bigint, 'type_mod', atttypmod, 'generated', attgenerated <> ''
       ) ORDER BY number, attnum) FROM columns), '[]')::text,
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
       )) FROM (SELECT DISTINCT oid FROM types) t JOIN pg_type p ON p.oid = t.oid), '[]')::text`

// Shapes returns what rows of the named tables look like as JSON, one shape
// for each name. That of a table that does not exist has no columns.
func Shapes(ctx context.Context, conn *pgx.Conn, names []Name) ([]value.Shape, error) {
	var columnsText, typesText string
	err := conn.QueryRow(ctx, shapesStatement, schemasOf(names), tablesOf(names)).Scan(&columnsText, &typesText)
	if err != nil {
		return nil, fmt.Errorf("read the columns of the tables and their types: %w", err)
	}
	var columns []struct {
		Number    int    `json:"number"`
		Name      string `json:"name"`
		Type      uint32 `json:"type"`
		TypeMod   int32  `json:"type_mod"`
		Generated bool   `json:"generated"`
	}
	var rows []catalogType
	for _, part := range []struct {
		text string
		into any
	}{{columnsText, &columns}, {typesText, &rows}} {
		if err := json.Unmarshal([]byte(part.text), part.into); err != nil {
			return nil, fmt.Errorf("read the columns of the tables and their types: %w", err)
		}
	}
	types := linkTypes(rows)
	shapes := make([]value.Shape, len(names))
	for _, c := range columns {
		s := &shapes[c.Number-1]
		s.Columns = append(s.Columns, value.Column{
			Name: c.Name, TypeOID: c.Type, TypeMod: c.TypeMod, Type: types[c.Type], Generated: c.Generated,
		})
	}
	return shapes, nil
}

// A catalogType is what pg_type says of a type, and what belongs to it.
type catalogType struct {
	OID       uint32 `json:"oid"`
	Name      string `json:"name"`
	Type      string `json:"type"` // pg_type.typtype
	Array     bool   `json:"array"`
	Delimiter string `json:"delimiter"` // between the elements of its arrays
	Base      uint32 `json:"base"`
	Element   uint32 `json:"element"`
	Fields    []struct {
		Name string `json:"name"`
		Type uint32 `json:"type"`
	} `json:"fields"`
	Cast     string `json:"cast"`
	Volatile bool   `json:"volatile"`
}

// linkTypes returns the types by oid, a domain as the type that is behind it.
func linkTypes(rows []catalogType) map[uint32]*value.Type {
	byOID := make(map[uint32]*catalogType, len(rows))
	types := make(map[uint32]*value.Type, len(rows))
	for i := range rows {
		r := &rows[i]
		byOID[r.OID] = r
		if r.Type != "d" {
			types[r.OID] = &value.Type{OID: r.OID, Name: r.Name, Cast: r.Cast, Volatile: r.Volatile}
		}
	}
	for _, r := range rows {
		base := r
		for deep := 0; base.Type == "d" && deep < typesDeepMax; deep++ {
			next, ok := byOID[base.Base]
			if !ok {
				break
			}
			base = *next
		}
		if r.Type == "d" && base.Type != "d" {
			types[r.OID] = types[base.OID]
		}
	}
	for _, r := range rows {
		t := types[r.OID]
		switch {
		case r.Type == "d":
		case r.Array:
			t.Kind, t.Element = value.Array, types[r.Element]
			if element, ok := byOID[r.Element]; ok && len(element.Delimiter) == 1 {
				t.Delimiter = element.Delimiter[0]
			}
		case r.Type == "c":
			t.Kind = value.Composite
			for _, f := range r.Fields {
				t.Fields = append(t.Fields, value.Field{Name: f.Name, Type: types[f.Type]})
			}
		case r.Type == "e":
			t.Kind = value.Enum
		case r.Type == "r" || r.Type == "m":
			t.Kind, t.Element = value.Range, types[r.Element]
		}
	}
	return types
}
