package debezium_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/avro"
	"pgregory.net/rapid"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/debezium"
	"github.com/unstale/unstale/internal/value"
)

// A drawnSchema is a schema that rapid draws piece by piece, and a value of each
// piece.
type drawnSchema struct {
	t     *rapid.T
	named int
}

func (d *drawnSchema) name() string {
	d.named++
	return fmt.Sprintf("N%d", d.named)
}

type object = map[string]any

// junk is a type that no column has, and a value of it: what the projection
// must find its way over.
func (d *drawnSchema) junk(depth int) (schema, v any) {
	kinds := []string{"null", "boolean", "int", "long", "float", "double", "bytes", "string", "enum", "fixed"}
	if depth > 0 {
		kinds = append(kinds, "array", "map", "union", "record", "list", "twice")
	}
	switch kind := rapid.SampledFrom(kinds).Draw(d.t, "kind"); kind {
	case "null":
		return kind, nil
	case "boolean":
		return kind, rapid.Bool().Draw(d.t, kind)
	case "int":
		return kind, rapid.Int32().Draw(d.t, kind)
	case "long":
		return kind, rapid.Int64().Draw(d.t, kind)
	case "float":
		return kind, rapid.Float32().Draw(d.t, kind)
	case "double":
		return kind, rapid.Float64().Draw(d.t, kind)
	case "bytes":
		return kind, rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(d.t, kind)
	case "string":
		return kind, rapid.StringN(0, 100, -1).Draw(d.t, kind)
	case "enum":
		return object{"type": "enum", "name": d.name(), "symbols": []string{"A", "B", "C"}}, rapid.SampledFrom([]string{"A", "B", "C"}).Draw(d.t, kind)
	case "fixed":
		size := rapid.IntRange(0, 20).Draw(d.t, "size")
		return object{"type": "fixed", "name": d.name(), "size": size}, rapid.SliceOfN(rapid.Byte(), size, size).Draw(d.t, kind)
	case "array":
		element, v := d.junk(depth - 1)
		values := []any{}
		for range rapid.IntRange(0, 5).Draw(d.t, "elements") {
			values = append(values, v)
		}
		return object{"type": "array", "items": element}, values
	case "map":
		element, v := d.junk(depth - 1)
		values := map[string]any{}
		for i := range rapid.IntRange(0, 5).Draw(d.t, "pairs") {
			values[strconv.Itoa(i)] = v
		}
		return object{"type": "map", "values": element}, values
	case "union":
		branches := []any{"null", "string", object{"type": "array", "items": "long"}}
		return rapid.Permutation(branches).Draw(d.t, "branches"), rapid.SampledFrom([]any{nil, "x", []any{int64(1), int64(-70)}}).Draw(d.t, kind)
	case "record":
		return d.record(depth)
	case "list": // contains itself
		name := d.name()
		var v any
		for range rapid.IntRange(0, 4).Draw(d.t, "length") {
			v = object{"v": int32(7), "next": v}
		}
		node := object{"type": "record", "name": name, "fields": []any{
			object{"name": "v", "type": "int"},
			object{"name": "next", "type": []any{"null", name}},
		}}
		return []any{"null", node}, v
	default: // twice: one type that is used again by its name
		record, v := d.record(depth)
		return object{"type": "record", "name": d.name(), "fields": []any{
			object{"name": "a", "type": record},
			object{"name": "b", "type": record.(object)["name"]},
		}}, object{"a": v, "b": v}
	}
}

func (d *drawnSchema) record(depth int) (schema, v any) {
	fields, values := []any{}, object{}
	name := d.name()
	for i := range rapid.IntRange(0, 3).Draw(d.t, "fields") {
		field := "f" + strconv.Itoa(i)
		inner, v := d.junk(depth - 1)
		fields = append(fields, object{"name": field, "type": inner})
		values[field] = v
	}
	return object{"type": "record", "name": name, "fields": fields}, values
}

// A drawnColumn is a column: what the schema and the catalog say of it, a value
// and what is to be read.
type drawnColumn struct {
	schema any
	of     *value.Type
	value  any
	text   string
}

func hstoreType() *value.Type {
	return &value.Type{OID: 20001, Name: "hstore", Cast: "hstore.hstore_to_json"}
}

func arrayOf(oid uint32) *value.Type {
	return &value.Type{OID: oid + 20000, Name: "array", Kind: value.Array, Element: &value.Type{OID: oid, Name: "element"}, Delimiter: ','}
}

func (d *drawnSchema) column() (c drawnColumn) {
	switch rapid.SampledFrom([]string{"int4", "int8", "bool", "text", "bytea", "date", "array", "hstore", "junk"}).Draw(d.t, "type") {
	case "int4":
		n := rapid.Int32().Draw(d.t, "int4")
		c = drawnColumn{"int", &value.Type{OID: 23}, n, strconv.Itoa(int(n))}
	case "int8":
		n := rapid.Int64().Draw(d.t, "int8")
		c = drawnColumn{"long", &value.Type{OID: 20}, n, strconv.FormatInt(n, 10)}
	case "bool":
		b := rapid.Bool().Draw(d.t, "bool")
		c = drawnColumn{"boolean", &value.Type{OID: 16}, b, "f"}
		if b {
			c.text = "t"
		}
	case "text":
		s := rapid.StringN(0, 300, -1).Draw(d.t, "text")
		c = drawnColumn{"string", &value.Type{OID: 25}, s, s}
	case "bytea":
		b := rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(d.t, "bytea")
		c = drawnColumn{"bytes", &value.Type{OID: 17}, b, fmt.Sprintf(`\x%x`, b)}
	case "date":
		days := rapid.Int32Range(0, 20000).Draw(d.t, "days")
		c = drawnColumn{object{"type": "int", "connect.version": 1, "connect.name": "io.debezium.time.Date"}, &value.Type{OID: 1082}, days, date(int(days))}
	case "array":
		numbers := rapid.SliceOfN(rapid.Int32(), 0, 5).Draw(d.t, "array")
		values, texts := []any{}, []string{}
		for _, n := range numbers {
			values, texts = append(values, n), append(texts, strconv.Itoa(int(n)))
		}
		c = drawnColumn{object{"type": "array", "items": []any{"null", "int"}}, arrayOf(23), values, "{" + strings.Join(texts, ",") + "}"}
	case "hstore":
		s := rapid.StringMatching(`[a-z ,]{0,20}`).Draw(d.t, "hstore")
		c = drawnColumn{object{"type": "map", "values": []any{"null", "string"}}, hstoreType(), map[string]any{"bb": nil, "c": s}, `"c"=>"` + s + `", "bb"=>NULL`}
	default:
		schema, v := d.junk(2)
		if union, ok := schema.([]any); ok { // a union is in no union
			schema = object{"type": "record", "name": d.name(), "fields": []any{object{"name": "u", "type": union}}}
			v = object{"u": v}
		}
		if schema == "null" {
			schema, v = "int", int32(1)
		}
		return drawnColumn{schema, &value.Type{OID: 600}, v, "(missing)"}
	}
	return c
}

// date counts days the slow way.
func date(days int) string {
	year, month := 1970, 0
	length := func() int {
		leap := year%4 == 0 && (year%100 != 0 || year%400 == 0)
		if month == 1 && leap {
			return 29
		}
		return []int{31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}[month]
	}
	for days >= length() {
		days -= length()
		if month++; month == 12 {
			month, year = 0, year+1
		}
	}
	return fmt.Sprintf("%d-%02d-%02d", year, month+1, days+1)
}

// Whatever a schema looks like, the projection reads what twmb/avro has written,
// and finds that every part of it is cut short.
func TestTheProjectionReadsWhatAvroWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := &drawnSchema{t: t}
		table := &debezium.Table{Key: []string{"c0"}, Full: true}
		var fields []any
		row := object{}
		var want, wanted []string
		for i := range rapid.IntRange(1, 8).Draw(t, "columns") {
			name := "c" + strconv.Itoa(i)
			c := d.column()
			schema, v, text := c.schema, c.value, c.text
			if rapid.Bool().Draw(t, "nullable") {
				branches := []any{"null", schema}
				if rapid.Bool().Draw(t, "last") {
					branches = []any{schema, "null"}
				}
				schema = branches
				if rapid.IntRange(0, 3).Draw(t, "null") == 0 {
					v = nil
					if text != "(missing)" {
						text = "(null)"
					}
				}
			}
			fields = append(fields, object{"name": name, "type": schema})
			row[name] = v
			c.of.Name = name
			table.Shape.Columns = append(table.Shape.Columns, value.Column{Name: name, TypeOID: c.of.OID, TypeMod: -1, Type: c.of})
			if rapid.IntRange(0, 2).Draw(t, "wanted") > 0 {
				wanted = append(wanted, name)
				want = append(want, name+"="+text)
			}
		}
		var source any
		if err := json.Unmarshal([]byte(sourceType), &source); err != nil {
			t.Fatal(err)
		}
		// The row is defined where it is met first.
		parts := rapid.Permutation([]string{"before", "after", "source", "op", "x", "y"}).Draw(t, "parts")
		message := order()
		before := rapid.Bool().Draw(t, "before")
		message["before"], message["after"] = nil, row
		if before {
			message["before"] = row
		}
		var envelope []any
		defined := false
		for _, part := range parts {
			var schema any
			switch part {
			case "before", "after":
				var of any = "Value"
				if !defined {
					of = object{"type": "record", "name": "Value", "fields": fields}
				}
				defined = true
				schema = []any{"null", of}
			case "source":
				schema = source
			case "op":
				schema = "string"
			default:
				schema, message[part] = d.junk(3)
			}
			envelope = append(envelope, object{"name": part, "type": schema})
		}
		text, err := json.Marshal(object{"type": "record", "name": "Envelope", "namespace": "x.public.orders", "fields": envelope})
		if err != nil {
			t.Fatal(err)
		}
		writer, err := avro.Parse(string(text))
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		encoded, err := writer.AppendEncode(binary.BigEndian.AppendUint32([]byte{0}, orderEnvelopeID), message)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		decoder := newDecoderOf(map[uint32]string{orderEnvelopeID: string(text)}, table, wanted...)
		var e debezium.Event
		if err := decoder.Decode(t.Context(), nil, encoded, &e); err != nil {
			t.Fatalf("%v\n%s\n%q", err, text, encoded)
		}
		if diff := cmp.Diff(want, show(e.Relation, e.New)); diff != "" && len(want) > 0 {
			t.Fatalf("%s\n%s", diff, text)
		}
		if before {
			if diff := cmp.Diff(want, show(e.Relation, e.Old)); diff != "" && len(want) > 0 {
				t.Fatalf("the old row: %s\n%s", diff, text)
			}
		} else if e.Old.Kind != change.Absent {
			t.Fatal("there is an old row")
		}
		cut := rapid.IntRange(5, len(encoded)-1).Draw(t, "cut")
		var undecodable *debezium.Undecodable
		if err := decoder.Decode(t.Context(), nil, encoded[:cut], &e); !errors.As(err, &undecodable) {
			t.Fatalf("%d of %d bytes: %v", cut, len(encoded), err)
		}
		if err := decoder.Decode(t.Context(), nil, append(encoded, 0), &e); !errors.As(err, &undecodable) {
			t.Fatalf("a byte more: %v", err)
		}
	})
}
