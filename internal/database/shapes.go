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
const shapesStatement = catalogTables + catalogTypes + catalogShape + `
SELECT number, columns, types FROM shape`

// Shapes returns what rows of the named tables look like as JSON, one shape
// for each name. That of a table that does not exist has no columns.
func Shapes(ctx context.Context, conn *pgx.Conn, names []Name) ([]value.Shape, error) {
	rows, err := conn.Query(ctx, shapesStatement, schemasOf(names), tablesOf(names))
	if err != nil {
		return nil, fmt.Errorf("read the columns of the tables and their types: %w", err)
	}
	shapes := make([]value.Shape, len(names))
	var number int
	var columnsText, typesText string
	_, err = pgx.ForEachRow(rows, []any{&number, &columnsText, &typesText}, func() error {
		var columns []struct {
			Name      string `json:"name"`
			Type      uint32 `json:"type"`
			TypeMod   int32  `json:"type_mod"`
			Generated bool   `json:"generated"`
		}
		if err := json.Unmarshal([]byte(columnsText), &columns); err != nil {
			return err
		}
		var described []catalogType
		if err := json.Unmarshal([]byte(typesText), &described); err != nil {
			return err
		}
		types := linkTypes(described)
		s := &shapes[number-1]
		for _, c := range columns {
			s.Columns = append(s.Columns, value.Column{
				Name: c.Name, TypeOID: c.Type, TypeMod: c.TypeMod, Type: types[c.Type], Generated: c.Generated,
			})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the columns of the tables and their types: %w", err)
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
