package debezium_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/debezium"
	"github.com/unstale/unstale/internal/value"
)

func base(oid uint32) *value.Type { return &value.Type{OID: oid, Name: fmt.Sprint(oid)} }

// named is a type in Avro as Connect's converters write it.
func named(of, name string) object { return object{"type": of, "connect.name": name} }

func typeMod(precision, scale int32) int32 { return precision<<16 | scale&0x7ff + 4 }

// oneColumn reads one column of a row, from Avro and from JSON with a schema, and
// both must agree. A case that has no JSON is of Avro alone.
type oneColumn struct {
	of      *value.Type
	typeMod int32
	avro    any // the type
	value   any
	connect string // the type as Connect's JSON has it, without braces
	json    string
	want    string
}

func (c *oneColumn) table() *debezium.Table {
	return &debezium.Table{Key: []string{"c"}, Shape: value.Shape{Columns: []value.Column{{Name: "c", TypeOID: c.of.OID, TypeMod: c.typeMod, Type: c.of}}}}
}

func (c *oneColumn) fromAvro(t *testing.T) string {
	t.Helper()
	field, err := json.Marshal(object{"name": "c", "type": c.avro})
	if err != nil {
		t.Fatal(err)
	}
	schema := envelopeOf(string(field))
	m := order()
	m["after"] = object{"c": c.value}
	return c.read(t, map[uint32]string{orderEnvelopeID: schema}, encode(t, orderEnvelopeID, schema, m))
}

func (c *oneColumn) fromJSON(t *testing.T) string {
	t.Helper()
	return c.read(t, nil, []byte(jsonMessage(`{`+c.connect+`,"field":"c"}`, `{"c":`+c.json+`}`)))
}

func (c *oneColumn) read(t *testing.T, schemas map[uint32]string, message []byte) string {
	t.Helper()
	d := debezium.NewDecoder(testOptions(schemas, c.table(), "c"))
	var e debezium.Event
	if err := d.Decode(t.Context(), nil, message, &e); err != nil {
		t.Fatalf("%v\n%s", err, message)
	}
	return show(e.Relation, e.New)[0][len("c="):]
}

// envelopeOf is an envelope whose rows have these fields.
func envelopeOf(fields string) string {
	return `{"type":"record","name":"Envelope","namespace":"x","fields":[
 {"name":"before","type":["null",{"type":"record","name":"Value","fields":[` + fields + `],"connect.name":"x.Value"}]},{"name":"after","type":["null","Value"]},
 {"name":"source","type":` + sourceType + `},{"name":"op","type":"string"}],"connect.name":"x.Envelope"}`
}

// jsonMessage is an insert with a schema.
func jsonMessage(fields, row string) string {
	return `{"schema":{"type":"struct","fields":[{"type":"struct","fields":[` + fields + `],"optional":true,"name":"x.Value","field":"before"},` +
		`{"type":"struct","fields":[` + fields + `],"optional":true,"name":"x.Value","field":"after"},{"type":"struct","fields":[],"field":"source"},{"type":"string","field":"op"}],"name":"x.Envelope"},` +
		`"payload":{"before":null,"after":` + row + `,"source":{"version":"3.6.3.Final","name":"shop","ts_ms":1763800000123,"snapshot":null,"db":"shopdb","sequence":"[null,\"24023192\"]","ts_us":1763800000123456,"schema":"public","table":"orders","txId":771,"lsn":24023192},"op":"c"}}`
}

// What Debezium makes of a value is undone, and where that is not certain the
// value is missing. Each case was seen in the messages of a real Debezium.
func TestAValueIsPostgresText(t *testing.T) {
	const (
		missing, null, unchanged = "(missing)", "(null)", "(unchanged)"
		placeholder              = debezium.PlaceholderDefault
	)
	mood := &value.Type{OID: 20000, Name: "mood", Kind: value.Enum}
	citext, ltree := &value.Type{OID: 20002, Name: "citext"}, &value.Type{OID: 20003, Name: "other.ltree"}
	arrayOfMood := &value.Type{OID: 20004, Kind: value.Array, Element: mood, Delimiter: ','}
	zoned, interval := named("string", "io.debezium.time.ZonedTimestamp"), named("string", "io.debezium.time.Interval")
	const connectZoned, connectInterval = `"type":"string","name":"io.debezium.time.ZonedTimestamp"`, `"type":"string","name":"io.debezium.time.Interval"`
	jsonText := named("string", "io.debezium.data.Json")
	const connectJSON = `"type":"string","name":"io.debezium.data.Json"`
	timestamp, milli, micro, nano := base(1114), named("long", "io.debezium.time.Timestamp"), named("long", "io.debezium.time.MicroTimestamp"), named("long", "io.debezium.time.NanoTimestamp")
	const connectMilli, connectMicro = `"type":"int64","name":"io.debezium.time.Timestamp"`, `"type":"int64","name":"io.debezium.time.MicroTimestamp"`
	day := named("int", "io.debezium.time.Date")
	const connectDay = `"type":"int32","name":"io.debezium.time.Date"`
	decimal := func(scale int) object {
		return object{"type": "bytes", "connect.name": "org.apache.kafka.connect.data.Decimal", "connect.parameters": object{"scale": strconv.Itoa(scale)}}
	}
	connectDecimal := func(scale int) string {
		return fmt.Sprintf(`"type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"%d"}`, scale)
	}
	bits := func(n int) object {
		return object{"type": "bytes", "connect.name": "io.debezium.data.Bits", "connect.parameters": object{"length": strconv.Itoa(n)}}
	}
	connectBits := func(n int) string {
		return fmt.Sprintf(`"type":"bytes","name":"io.debezium.data.Bits","parameters":{"length":"%d"}`, n)
	}
	arrayIn := func(element any) object { return object{"type": "array", "items": []any{"null", element}} }
	const connectInts, connectTexts = `"type":"array","items":{"type":"int32","optional":true}`, `"type":"array","items":{"type":"string","optional":true}`
	optional := func(of any) []any { return []any{"null", of} }
	placeholderInts, placeholderJSON := []any{}, "["
	for i, c := range placeholder {
		placeholderInts = append(placeholderInts, int32(c))
		if i > 0 {
			placeholderJSON += ","
		}
		placeholderJSON += strconv.Itoa(int(c))
	}
	placeholderJSON += "]"

	for _, facts := range []struct {
		fact  string
		cases []oneColumn
	}{
		{"integers and oids are their digits", []oneColumn{
			{of: base(21), typeMod: -1, avro: object{"type": "int", "connect.type": "int16"}, value: int32(-32768), connect: `"type":"int16"`, json: `-32768`, want: "-32768"},
			{of: base(20), typeMod: -1, avro: "long", value: int64(math.MinInt64), connect: `"type":"int64"`, json: `-9223372036854775808`, want: "-9223372036854775808"},
			{of: base(26), typeMod: -1, avro: "long", value: int64(4294967295), connect: `"type":"int64"`, json: `4294967295`, want: "4294967295"},
			{of: base(23), typeMod: -1, avro: optional("int"), value: nil, connect: `"type":"int32","optional":true`, json: `null`, want: null},
		}},
		{"a boolean is a letter, a bit a digit", []oneColumn{
			{of: base(16), typeMod: -1, avro: "boolean", value: true, connect: `"type":"boolean"`, json: `true`, want: "t"},
			{of: base(16), typeMod: -1, avro: "boolean", value: false, connect: `"type":"boolean"`, json: `false`, want: "f"},
			{of: base(1560), typeMod: 1, avro: "boolean", value: true, connect: `"type":"boolean"`, json: `true`, want: "1"},
		}},
		{"texts are as they are", []oneColumn{
			{of: base(25), typeMod: -1, avro: "string", value: "a\"\\\n\x01é😀", connect: `"type":"string"`, json: `"a\"\\\n\u0001\u00e9\ud83d\ude00"`, want: "a\"\\\n\x01é😀"},
			{of: base(1042), typeMod: 11, avro: "string", value: "a      ", connect: `"type":"string"`, json: `"a      "`, want: "a      "},
			{of: citext, typeMod: -1, avro: "string", value: "A", connect: `"type":"string"`, json: `"A"`, want: "A"},
			{of: ltree, typeMod: -1, avro: named("string", "io.debezium.data.Ltree"), value: "a.b", connect: `"type":"string","name":"io.debezium.data.Ltree"`, json: `"a.b"`, want: "a.b"},
			{of: mood, typeMod: -1, avro: named("string", "io.debezium.data.Enum"), value: "sad", connect: `"type":"string","name":"io.debezium.data.Enum"`, json: `"sad"`, want: "sad"},
			{of: base(2950), typeMod: -1, avro: named("string", "io.debezium.data.Uuid"), value: "b68a35a7-17ad-35b3-af2a-ae46edb4545a", connect: `"type":"string","name":"io.debezium.data.Uuid"`, json: `"b68a35a7-17ad-35b3-af2a-ae46edb4545a"`, want: "b68a35a7-17ad-35b3-af2a-ae46edb4545a"},
			{of: base(114), typeMod: -1, avro: jsonText, value: ` {"a" : 1}`, connect: connectJSON, json: `" {\"a\" : 1}"`, want: ` {"a" : 1}`},
			{of: base(3614), typeMod: -1, avro: named("string", "io.debezium.data.Tsvector"), value: "'a':1", connect: `"type":"string","name":"io.debezium.data.Tsvector"`, json: `"'a':1"`, want: "'a':1"},
			{of: base(869), typeMod: -1, avro: "string", value: "10.0.0.1/8", connect: `"type":"string"`, json: `"10.0.0.1/8"`, want: "10.0.0.1/8"},
		}},
		{"the log's texts of type name are null", []oneColumn{
			{of: base(19), typeMod: -1, avro: optional("string"), value: nil, connect: `"type":"string","optional":true`, json: `null`, want: missing},
		}},
		{"a range of timestamptz is printed in the time zone of the connector's Java", []oneColumn{
			{of: base(3910), typeMod: -1, avro: "string", value: `["2024-01-01 00:00:00+00",)`, connect: `"type":"string"`, json: `"[\"2024-01-01 00:00:00+00\",)"`, want: `["2024-01-01 00:00:00+00",)`},
			{of: base(3910), typeMod: -1, avro: "string", value: `(,"0044-01-01 00:00:00+00 BC"]`, connect: `"type":"string"`, json: `"(,\"0044-01-01 00:00:00+00 BC\"]"`, want: `(,"0044-01-01 00:00:00+00 BC"]`},
			{of: base(3910), typeMod: -1, avro: "string", value: `["2024-01-01 01:00:00+01","2024-07-01 02:00:00+02")`, connect: `"type":"string"`, json: `"[\"2024-01-01 01:00:00+01\",\"2024-07-01 02:00:00+02\")"`, want: missing},
			{of: base(3910), typeMod: -1, avro: "string", value: "empty", connect: `"type":"string"`, json: `"empty"`, want: "empty"},
		}},
		{"bytes are hex digits", []oneColumn{
			{of: base(17), typeMod: -1, avro: "bytes", value: []byte{0, 0xff, 'a'}, connect: `"type":"bytes"`, json: `"AP9h"`, want: `\x00ff61`},
			{of: base(17), typeMod: -1, avro: "bytes", value: []byte{}, connect: `"type":"bytes"`, json: `""`, want: `\x`},
			{of: base(17), typeMod: -1, avro: "string", value: "AP9h", connect: `"type":"string"`, json: `"AP9h"`, want: `\x00ff61`},
			{of: base(17), typeMod: -1, avro: "string", value: "+/9h", connect: `"type":"string"`, json: `"+/9h"`, want: `\xfbff61`},
			{of: base(17), typeMod: -1, avro: "string", value: "-_9h", connect: `"type":"string"`, json: `"-_9h"`, want: `\xfbff61`},
			{of: base(17), typeMod: -1, avro: "string", value: "-/9h", connect: `"type":"string"`, json: `"-/9h"`, want: missing},
			{of: base(17), typeMod: -1, avro: "string", value: "00ff61", connect: `"type":"string"`, json: `"00ff61"`, want: `\x00ff61`},
			{of: base(17), typeMod: -1, avro: "string", value: "00ff6", connect: `"type":"string"`, json: `"00ff6"`, want: missing},
			{of: base(17), typeMod: -1, avro: "string", value: "", connect: `"type":"string"`, json: `""`, want: `\x`},
			{of: base(17), typeMod: -1, avro: "string", value: placeholder, connect: `"type":"string"`, json: `"` + placeholder + `"`, want: unchanged},
			{of: base(17), typeMod: -1, avro: optional("string"), value: nil, connect: `"type":"string","optional":true`, json: `null`, want: missing},
		}},
		{"bytes as text that could be hex digits or base64 are neither", []oneColumn{
			{of: base(17), typeMod: -1, avro: "string", value: "00ff", connect: `"type":"string"`, json: `"00ff"`, want: missing},
			{of: base(17), typeMod: -1, avro: "string", value: "abcdef00", connect: `"type":"string"`, json: `"abcdef00"`, want: missing},
		}},
		{"a numeric as text has names for what is no number", []oneColumn{
			{of: base(1700), typeMod: -1, avro: "string", value: "-1.50", connect: `"type":"string"`, json: `"-1.50"`, want: "-1.50"},
			{of: base(1700), typeMod: -1, avro: "string", value: "NAN", connect: `"type":"string"`, json: `"NAN"`, want: "NaN"},
			{of: base(1700), typeMod: -1, avro: "string", value: "NEGATIVE_INFINITY", connect: `"type":"string"`, json: `"NEGATIVE_INFINITY"`, want: "-Infinity"},
			{of: base(1700), typeMod: -1, avro: "string", value: "1E-7", connect: `"type":"string"`, json: `"1E-7"`, want: missing},
			{of: base(1700), typeMod: -1, avro: "double", value: 1.5, connect: `"type":"double"`, json: `1.5`, want: missing},
		}},
		{"a numeric as bytes is exact if its scale is the column's", []oneColumn{
			{of: base(1700), typeMod: typeMod(12, 2), avro: decimal(2), value: []byte{0x07, 0xcf}, connect: connectDecimal(2), json: `"B88="`, want: "19.99"},
			{of: base(1700), typeMod: typeMod(12, 2), avro: decimal(2), value: []byte{0xff}, connect: connectDecimal(2), json: `"/w=="`, want: "-0.01"},
			{of: base(1700), typeMod: typeMod(12, 0), avro: decimal(0), value: []byte{0xff, 0x38}, connect: connectDecimal(0), json: `"/zg="`, want: "-200"},
			{of: base(1700), typeMod: typeMod(30, 3), avro: decimal(3), value: []byte{0x80, 0, 0, 0, 0, 0, 0, 0, 0}, connect: connectDecimal(3), json: `"gAAAAAAAAAAA"`, want: "-2361183241434822606.848"},
			{of: base(1700), typeMod: typeMod(12, 4), avro: decimal(2), value: []byte{0x07, 0xcf}, connect: connectDecimal(2), json: `"B88="`, want: missing},
			{of: base(1700), typeMod: typeMod(5, -2), avro: decimal(-2), value: []byte{1}, connect: connectDecimal(-2), json: `"AQ=="`, want: missing},
			{of: base(1700), typeMod: typeMod(12, 2), avro: optional(decimal(2)), value: nil, connect: connectDecimal(2) + `,"optional":true`, json: `null`, want: missing}, // NaN
		}},
		{"floats have PostgreSQL's digits and exponents, not Java's", []oneColumn{
			{of: base(700), typeMod: -1, avro: "float", value: float32(1e-45), connect: `"type":"float"`, json: `1.4E-45`, want: "1e-45"},
			{of: base(700), typeMod: -1, avro: "float", value: float32(1e6), connect: `"type":"float"`, json: `1000000.0`, want: "1e+06"},
			{of: base(700), typeMod: -1, avro: "float", value: float32(100000), connect: `"type":"float"`, json: `100000.0`, want: "100000"},
			{of: base(700), typeMod: -1, avro: "float", value: float32(16777216), connect: `"type":"float"`, json: `1.6777216E7`, want: "1.6777216e+07"},
			{of: base(701), typeMod: -1, avro: "double", value: 123456789012345680.0, connect: `"type":"double"`, json: `1.2345678901234568E17`, want: "1.2345678901234568e+17"},
			{of: base(701), typeMod: -1, avro: "double", value: 0.0001, connect: `"type":"double"`, json: `1.0E-4`, want: "0.0001"},
			{of: base(701), typeMod: -1, avro: "double", value: 1e14, connect: `"type":"double"`, json: `1.0E14`, want: "100000000000000"},
			{of: base(701), typeMod: -1, avro: "double", value: 1e15, connect: `"type":"double"`, json: `1.0E15`, want: "1e+15"},
			{of: base(701), typeMod: -1, avro: "double", value: math.Copysign(0, -1), connect: `"type":"double"`, json: `-0.0`, want: "-0"},
			{of: base(701), typeMod: -1, avro: "double", value: math.NaN(), connect: `"type":"double"`, json: `"NaN"`, want: "NaN"},
			{of: base(701), typeMod: -1, avro: "double", value: math.Inf(-1), connect: `"type":"double"`, json: `"-Infinity"`, want: "-Infinity"},
			// Exactly between two doubles, of which it is read as the even one.
			{of: base(701), typeMod: -1, avro: "double", value: 1e23, connect: `"type":"double"`, json: `1.0E23`, want: "9.999999999999999e+22"},
		}},
		{"a date is days, with two of its own for infinity", []oneColumn{
			{of: base(1082), typeMod: -1, avro: day, value: int32(19782), connect: connectDay, json: `19782`, want: "2024-02-29"},
			{of: base(1082), typeMod: -1, avro: day, value: int32(-735160), connect: connectDay, json: `-735160`, want: "0044-03-15 BC"},
			{of: base(1082), typeMod: -1, avro: day, value: int32(2145042905), connect: connectDay, json: `2145042905`, want: "5874897-12-31"},
			{of: base(1082), typeMod: -1, avro: day, value: int32(-2440588), connect: connectDay, json: `-2440588`, want: "4714-11-24 BC"},
			{of: base(1082), typeMod: -1, avro: day, value: int32(-2147472692), connect: connectDay, json: `-2147472692`, want: "infinity"},
			{of: base(1082), typeMod: -1, avro: day, value: int32(-2147472691), connect: connectDay, json: `-2147472691`, want: "-infinity"},
			{of: base(1082), typeMod: -1, avro: day, value: int32(-622191234), connect: connectDay, json: `-622191234`, want: missing},
			{of: base(1082), typeMod: -1, avro: named("int", "org.apache.kafka.connect.data.Date"), value: int32(19782), connect: `"type":"int32","name":"org.apache.kafka.connect.data.Date"`, json: `19782`, want: missing},
		}},
		{"a time is counted, and ends the day at 24 o'clock", []oneColumn{
			{of: base(1083), typeMod: -1, avro: named("long", "io.debezium.time.MicroTime"), value: int64(43200500000), connect: `"type":"int64","name":"io.debezium.time.MicroTime"`, json: `43200500000`, want: "12:00:00.5"},
			{of: base(1083), typeMod: -1, avro: named("long", "io.debezium.time.MicroTime"), value: int64(86400000000), connect: `"type":"int64","name":"io.debezium.time.MicroTime"`, json: `86400000000`, want: "24:00:00"},
			{of: base(1083), typeMod: 2, avro: named("int", "io.debezium.time.Time"), value: int32(43200250), connect: `"type":"int32","name":"io.debezium.time.Time"`, json: `43200250`, want: "12:00:00.25"},
			{of: base(1083), typeMod: -1, avro: named("int", "io.debezium.time.Time"), value: int32(43200250), connect: `"type":"int32","name":"io.debezium.time.Time"`, json: `43200250`, want: missing},
			{of: base(1083), typeMod: -1, avro: named("long", "io.debezium.time.NanoTime"), value: int64(43200000001000), connect: `"type":"int64","name":"io.debezium.time.NanoTime"`, json: `43200000001000`, want: "12:00:00.000001"},
			{of: base(1266), typeMod: -1, avro: named("string", "io.debezium.time.ZonedTime"), value: "12:00:00Z", connect: `"type":"string","name":"io.debezium.time.ZonedTime"`, json: `"12:00:00Z"`, want: missing},
		}},
		{"a timestamp is counted, and beyond what fits it is another", []oneColumn{
			{of: timestamp, typeMod: -1, avro: micro, value: int64(1709208000000001), connect: connectMicro, json: `1709208000000001`, want: "2024-02-29 12:00:00.000001"},
			{of: timestamp, typeMod: 3, avro: milli, value: int64(1709208000250), connect: connectMilli, json: `1709208000250`, want: "2024-02-29 12:00:00.25"},
			{of: timestamp, typeMod: -1, avro: milli, value: int64(1709208000250), connect: connectMilli, json: `1709208000250`, want: missing},
			{of: timestamp, typeMod: -1, avro: micro, value: int64(-63517780800000000), connect: connectMicro, json: `-63517780800000000`, want: "0044-03-15 12:00:00 BC"},
			{of: timestamp, typeMod: -1, avro: micro, value: int64(-1), connect: connectMicro, json: `-1`, want: "1969-12-31 23:59:59.999999"},
			{of: timestamp, typeMod: -1, avro: micro, value: int64(9223372036825200000), connect: connectMicro, json: `9223372036825200000`, want: "infinity"},
			{of: timestamp, typeMod: 3, avro: milli, value: int64(-9223372036832400), connect: connectMilli, json: `-9223372036832400`, want: "-infinity"},
			{of: timestamp, typeMod: -1, avro: micro, value: int64(-9223372036853775810), connect: connectMicro, json: `-9223372036853775810`, want: missing}, // 294276-12-31 23:59:59.999999
			{of: timestamp, typeMod: -1, avro: nano, value: int64(1709208000000001000), connect: `"type":"int64","name":"io.debezium.time.NanoTimestamp"`, json: `1709208000000001000`, want: "2024-02-29 12:00:00.000001"},
			{of: timestamp, typeMod: -1, avro: nano, value: int64(1709208000000001001), connect: `"type":"int64","name":"io.debezium.time.NanoTimestamp"`, json: `1709208000000001001`, want: missing},
			{of: timestamp, typeMod: -1, avro: named("long", "org.apache.kafka.connect.data.Timestamp"), value: int64(1709208000250), connect: `"type":"int64","name":"org.apache.kafka.connect.data.Timestamp"`, json: `1709208000250`, want: missing},
		}},
		{"a timestamptz is written by Java, in UTC", []oneColumn{
			{of: base(1184), typeMod: -1, avro: zoned, value: "2024-02-29T12:00:00.500000Z", connect: connectZoned, json: `"2024-02-29T12:00:00.500000Z"`, want: "2024-02-29 12:00:00.5+00"},
			{of: base(1184), typeMod: -1, avro: zoned, value: "2024-02-29T12:00:00.000000Z", connect: connectZoned, json: `"2024-02-29T12:00:00.000000Z"`, want: "2024-02-29 12:00:00+00"},
			{of: base(1184), typeMod: -1, avro: zoned, value: "-0043-03-15T12:00:00Z", connect: connectZoned, json: `"-0043-03-15T12:00:00Z"`, want: "0044-03-15 12:00:00+00 BC"},
			{of: base(1184), typeMod: -1, avro: zoned, value: "0000-01-01T00:00:00Z", connect: connectZoned, json: `"0000-01-01T00:00:00Z"`, want: "0001-01-01 00:00:00+00 BC"},
			{of: base(1184), typeMod: -1, avro: zoned, value: "+294276-12-31T23:59:59.999999Z", connect: connectZoned, json: `"+294276-12-31T23:59:59.999999Z"`, want: "294276-12-31 23:59:59.999999+00"},
			{of: base(1184), typeMod: -1, avro: zoned, value: "-infinity", connect: connectZoned, json: `"-infinity"`, want: "-infinity"},
			{of: base(1184), typeMod: -1, avro: zoned, value: "2024-02-29T12:00:00+01:00", connect: connectZoned, json: `"2024-02-29T12:00:00+01:00"`, want: missing},
			{of: base(1184), typeMod: -1, avro: zoned, value: "2024-02-29T12:00Z", connect: connectZoned, json: `"2024-02-29T12:00Z"`, want: missing},
			{of: base(1184), typeMod: -1, avro: zoned, value: "2024-02-29T12:00:00.0000001Z", connect: connectZoned, json: `"2024-02-29T12:00:00.0000001Z"`, want: missing},
		}},
		{"an interval is written with the units of ISO 8601", []oneColumn{
			{of: base(1186), typeMod: -1, avro: interval, value: "P1Y2M-3DT4H5M6.789S", connect: connectInterval, json: `"P1Y2M-3DT4H5M6.789S"`, want: "1 year 2 mons -3 days +04:05:06.789"},
			{of: base(1186), typeMod: -1, avro: interval, value: "P-1Y0M0DT0H0M0S", connect: connectInterval, json: `"P-1Y0M0DT0H0M0S"`, want: "-1 years"},
			{of: base(1186), typeMod: -1, avro: interval, value: "P0Y0M0DT0H0M0S", connect: connectInterval, json: `"P0Y0M0DT0H0M0S"`, want: "00:00:00"},
			{of: base(1186), typeMod: -1, avro: interval, value: "P0Y0M1DT0H0M-0.5S", connect: connectInterval, json: `"P0Y0M1DT0H0M-0.5S"`, want: "1 day -00:00:00.5"},
			{of: base(1186), typeMod: -1, avro: interval, value: "P0Y-1M2DT-100H0M-1S", connect: connectInterval, json: `"P0Y-1M2DT-100H0M-1S"`, want: "-1 mons +2 days -100:00:01"},
			{of: base(1186), typeMod: -1, avro: interval, value: "P0Y0M0DT-26H0M-27.646425999S", connect: connectInterval, json: `"P0Y0M0DT-26H0M-27.646425999S"`, want: "-26:00:27.646426"},
			{of: base(1186), typeMod: -1, avro: interval, value: "P0Y0M0DT0H0M0.0000005S", connect: connectInterval, json: `"P0Y0M0DT0H0M0.0000005S"`, want: missing},
			{of: base(1186), typeMod: -1, avro: interval, value: "P0Y0M0DT1H-1M0S", connect: connectInterval, json: `"P0Y0M0DT1H-1M0S"`, want: missing},
			{of: base(1186), typeMod: -1, avro: named("long", "io.debezium.time.MicroDuration"), value: int64(1), connect: `"type":"int64","name":"io.debezium.time.MicroDuration"`, json: `1`, want: missing},
		}},
		{"the pairs of an hstore are in PostgreSQL's order", []oneColumn{
			{of: hstoreType(), typeMod: -1, avro: jsonText, value: `{"bb":"1","c":null,"a":"q\"\\"}`, connect: connectJSON, json: `"{\"bb\":\"1\",\"c\":null,\"a\":\"q\\\"\\\\\"}"`, want: `"a"=>"q\"\\", "c"=>NULL, "bb"=>"1"`},
			{of: hstoreType(), typeMod: -1, avro: object{"type": "map", "values": optional("string")}, value: map[string]any{"bb": "1", "c": nil}, connect: `"type":"map","keys":{"type":"string"},"values":{"type":"string","optional":true}`, json: `{"bb":"1","c":null}`, want: `"c"=>NULL, "bb"=>"1"`},
			{of: hstoreType(), typeMod: -1, avro: jsonText, value: `{}`, connect: connectJSON, json: `"{}"`, want: ``},
			{of: hstoreType(), typeMod: -1, avro: jsonText, value: `{"a":1}`, connect: connectJSON, json: `"{\"a\":1}"`, want: missing},
		}},
		{"bits are little-endian bytes", []oneColumn{
			{of: base(1560), typeMod: 9, avro: bits(9), value: []byte{5, 1}, connect: connectBits(9), json: `"BQE="`, want: "100000101"},
			{of: base(1560), typeMod: 9, avro: bits(9), value: []byte{}, connect: connectBits(9), json: `""`, want: "000000000"},
			{of: base(1560), typeMod: 9, avro: bits(9), value: []byte{0, 2}, connect: connectBits(9), json: `"AAI="`, want: missing},
			{of: base(1560), typeMod: 9, avro: bits(10), value: []byte{5}, connect: connectBits(10), json: `"BQ=="`, want: missing},
			{of: base(1560), typeMod: 9, avro: optional(bits(9)), value: nil, connect: connectBits(9) + `,"optional":true`, json: `null`, want: null},
			{of: base(1562), typeMod: 9, avro: bits(9), value: []byte{5}, connect: connectBits(9), json: `"BQ=="`, want: missing},
		}},
		{"an array is exact if it has neither NULLs nor a second dimension", []oneColumn{
			{of: arrayOf(23), typeMod: -1, avro: arrayIn("int"), value: []any{int32(1), int32(-2)}, connect: connectInts, json: `[1,-2]`, want: "{1,-2}"},
			{of: arrayOf(23), typeMod: -1, avro: arrayIn("int"), value: []any{}, connect: connectInts, json: `[]`, want: "{}"},
			{of: arrayOf(23), typeMod: -1, avro: arrayIn("int"), value: []any{int32(1), nil}, connect: connectInts, json: `[1,null]`, want: missing},
			{of: arrayOf(25), typeMod: -1, avro: arrayIn("string"), value: []any{"a", "", "b c", `"\`, "null", "{"}, connect: connectTexts, json: `["a","","b c","\"\\","null","{"]`, want: `{a,"","b c","\"\\","null","{"}`},
			{of: arrayOf(25), typeMod: -1, avro: arrayIn("string"), value: []any{"[Ljava.lang.String;@1b9e1916"}, connect: connectTexts, json: `["[Ljava.lang.String;@1b9e1916"]`, want: missing},
			{of: arrayOf(114), typeMod: -1, avro: arrayIn(jsonText), value: []any{"[Lorg.postgresql.util.PGobject;@7f"}, connect: `"type":"array","items":{` + connectJSON + `}`, json: `["[Lorg.postgresql.util.PGobject;@7f"]`, want: missing},
			{of: arrayOf(17), typeMod: -1, avro: arrayIn("bytes"), value: []any{[]byte{1}}, connect: `"type":"array","items":{"type":"bytes"}`, json: `["AQ=="]`, want: `{"\\x01"}`},
			{of: arrayOf(701), typeMod: -1, avro: arrayIn("double"), value: []any{1e15}, connect: `"type":"array","items":{"type":"double"}`, json: `[1.0E15]`, want: `{1e+15}`},
			{of: arrayOf(1082), typeMod: -1, avro: arrayIn(day), value: []any{int32(0)}, connect: `"type":"array","items":{` + connectDay + `}`, json: `[0]`, want: missing},
			{of: arrayOf(1184), typeMod: -1, avro: arrayIn(zoned), value: []any{"2024-02-29T12:00:00Z"}, connect: `"type":"array","items":{` + connectZoned + `}`, json: `["2024-02-29T12:00:00Z"]`, want: missing},
		}},
		{"an array that an update did not touch is null, but for a few types", []oneColumn{
			{of: arrayOf(25), typeMod: -1, avro: optional(arrayIn("string")), value: nil, connect: connectTexts + `,"optional":true`, json: `null`, want: null},
			{of: arrayOf(701), typeMod: -1, avro: optional(arrayIn("double")), value: nil, connect: `"type":"array","items":{"type":"double"},"optional":true`, json: `null`, want: missing},
			{of: arrayOfMood, typeMod: -1, avro: optional(arrayIn("string")), value: nil, connect: connectTexts + `,"optional":true`, json: `null`, want: missing},
			{of: base(1560), typeMod: 900, avro: optional(bits(900)), value: nil, connect: connectBits(900) + `,"optional":true`, json: `null`, want: missing},
		}},
		{"what an update did not touch is a placeholder", []oneColumn{
			{of: base(25), typeMod: -1, avro: "string", value: placeholder, connect: `"type":"string"`, json: `"` + placeholder + `"`, want: unchanged},
			{of: base(1700), typeMod: -1, avro: "string", value: placeholder, connect: `"type":"string"`, json: `"` + placeholder + `"`, want: unchanged},
			{of: base(3802), typeMod: -1, avro: jsonText, value: placeholder, connect: connectJSON, json: `"` + placeholder + `"`, want: unchanged},
			{of: base(17), typeMod: -1, avro: "bytes", value: []byte(placeholder), connect: `"type":"bytes"`, json: `"X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="`, want: unchanged},
			{of: hstoreType(), typeMod: -1, avro: jsonText, value: `{"` + placeholder + `":"` + placeholder + `"}`, connect: connectJSON, json: `"{\"` + placeholder + `\":\"` + placeholder + `\"}"`, want: unchanged},
			{of: arrayOf(25), typeMod: -1, avro: arrayIn("string"), value: []any{placeholder}, connect: connectTexts, json: `["` + placeholder + `"]`, want: unchanged},
			{of: arrayOf(23), typeMod: -1, avro: arrayIn("int"), value: placeholderInts, connect: connectInts, json: placeholderJSON, want: unchanged},
			{of: arrayOf(2950), typeMod: -1, avro: arrayIn(named("string", "io.debezium.data.Uuid")), value: []any{"b68a35a7-17ad-35b3-af2a-ae46edb4545a"}, connect: `"type":"array","items":{"type":"string","name":"io.debezium.data.Uuid"}`, json: `["b68a35a7-17ad-35b3-af2a-ae46edb4545a"]`, want: unchanged},
			{of: arrayOf(17), typeMod: -1, avro: arrayIn("bytes"), value: []any{[]byte(placeholder)}, connect: `"type":"array","items":{"type":"bytes"}`, json: `["X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="]`, want: unchanged},
		}},
		{"the catalog is of another day than the message", []oneColumn{
			{of: base(25), typeMod: -1, avro: "int", value: int32(1), connect: `"type":"int32"`, json: `1`, want: missing},
			{of: base(23), typeMod: -1, avro: "string", value: "1", connect: `"type":"string"`, json: `"1"`, want: missing},
			{of: base(600), typeMod: -1, avro: object{"type": "record", "name": "Point", "fields": []any{object{"name": "x", "type": "double"}}}, value: object{"x": 1.0}, connect: `"type":"struct","fields":[{"type":"double","field":"x"}]`, json: `{"x":1.0}`, want: missing},
		}},
	} {
		t.Run(facts.fact, func(t *testing.T) {
			for _, c := range facts.cases {
				if got := c.fromAvro(t); got != c.want {
					t.Errorf("type %d, Avro %v %v: got %q, want %q", c.of.OID, c.avro, c.value, got, c.want)
				}
				if got := c.fromJSON(t); got != c.want {
					t.Errorf("type %d, JSON %s %s: got %q, want %q", c.of.OID, c.connect, c.json, got, c.want)
				}
			}
		})
	}
}

// A converter may have put the default in the place of a NULL, so a value that
// equals it is not certain.
func TestAValueThatEqualsItsDefaultMayBeANull(t *testing.T) {
	const missing = "(missing)"
	last := func(of any) any { return []any{of, "null"} } // as converters do where there is a default
	for _, c := range []struct {
		fallback any
		connect  string
		oneColumn
	}{
		{5, `"optional":true,"default":5`, oneColumn{of: base(23), typeMod: -1, avro: last("int"), value: int32(5), connect: `"type":"int32"`, json: `5`, want: missing}},
		{5, `"optional":true,"default":5`, oneColumn{of: base(23), typeMod: -1, avro: last("int"), value: int32(6), connect: `"type":"int32"`, json: `6`, want: "6"}},
		{5, `"optional":true,"default":5`, oneColumn{of: base(23), typeMod: -1, avro: last("int"), value: nil, connect: `"type":"int32"`, json: `null`, want: "(null)"}},
		{5, `"optional":false,"default":5`, oneColumn{of: base(23), typeMod: -1, avro: "int", value: int32(5), connect: `"type":"int32"`, json: `5`, want: "5"}},
		{"new", `"optional":true,"default":"new"`, oneColumn{of: base(25), typeMod: -1, avro: last("string"), value: "new", connect: `"type":"string"`, json: `"new"`, want: missing}},
		{true, `"optional":true,"default":true`, oneColumn{of: base(16), typeMod: -1, avro: last("boolean"), value: true, connect: `"type":"boolean"`, json: `true`, want: missing}},
		{0.1, `"optional":true,"default":0.1`, oneColumn{of: base(700), typeMod: -1, avro: last("float"), value: float32(0.1), connect: `"type":"float"`, json: `0.1`, want: missing}},
		{"\u0005", `"optional":true,"default":"BQ=="`, oneColumn{of: base(17), typeMod: -1, avro: last("bytes"), value: []byte{5}, connect: `"type":"bytes"`, json: `"BQ=="`, want: missing}},
		{"\u0005", `"optional":true,"default":"BQ=="`, oneColumn{of: base(17), typeMod: -1, avro: last("bytes"), value: []byte{6}, connect: `"type":"bytes"`, json: `"Bg=="`, want: `\x06`}},
		{"1970-01-01T00:00:00.000000Z", `"optional":true,"default":"1970-01-01T00:00:00.000000Z"`, oneColumn{of: base(1184), typeMod: -1,
			avro: last(named("string", "io.debezium.time.ZonedTimestamp")), value: "1970-01-01T00:00:00.000000Z", connect: `"type":"string","name":"io.debezium.time.ZonedTimestamp"`, json: `"1970-01-01T00:00:00.000000Z"`, want: missing}},
	} {
		c.oneColumn.connect += "," + c.connect
		if got := c.fromJSON(t); got != c.want {
			t.Errorf("JSON %s %s: got %q, want %q", c.oneColumn.connect, c.json, got, c.want)
		}
		if c.avro == nil {
			continue
		}
		field, err := json.Marshal(object{"name": "c", "type": c.avro, "default": c.fallback})
		if err != nil {
			t.Fatal(err)
		}
		m := order()
		m["after"] = object{"c": c.value}
		schema := envelopeOf(string(field))
		if got := c.read(t, map[uint32]string{orderEnvelopeID: schema}, encode(t, orderEnvelopeID, schema, m)); got != c.want {
			t.Errorf("Avro %s %v: got %q, want %q", field, c.value, got, c.want)
		}
	}
}

// A row of the log has no value for source.snapshot, which has a default. Where
// that shows as null, the converter leaves NULLs alone: the others are certain.
func TestNullsThatAreKeptAreSeen(t *testing.T) {
	column := oneColumn{of: base(23), typeMod: -1}
	table := column.table()
	table.Defaulted = []string{"c"}
	avroSchema := envelopeOf(`{"name":"c","type":["int","null"],"default":5}`)
	avroMessage := func(snapshot any) []byte {
		m := order()
		m["after"] = object{"c": int32(5)}
		m["source"].(object)["snapshot"] = snapshot
		return encode(t, orderEnvelopeID, avroSchema, m)
	}
	schema := strings.Replace(jsonMessage(`{"type":"int32","optional":true,"default":5,"field":"c"}`, `{"c":5}`),
		`"fields":[],"field":"source"`, `"fields":[{"type":"string","optional":true,"default":"false","field":"snapshot"}],"field":"source"`, 1)
	plain := plainMessage("c", `{"c":5}`)
	for name, c := range map[string]struct {
		message []byte
		want    string
	}{
		"Avro kept":      {avroMessage(nil), "c=5"},
		"Avro replaced":  {avroMessage("false"), "c=(missing)"},
		"JSON kept":      {[]byte(schema), "c=5"},
		"JSON replaced":  {[]byte(strings.Replace(schema, `"snapshot":null`, `"snapshot":"false"`, 1)), "c=(missing)"},
		"plain kept":     {[]byte(strings.Replace(plain, `"snapshot":"false"`, `"snapshot":null`, 1)), "c=5"},
		"plain replaced": {[]byte(plain), "c=(missing)"},
	} {
		d := newDecoderOf(map[uint32]string{orderEnvelopeID: avroSchema}, table, "c")
		for range 2 {
			var e debezium.Event
			if err := d.Decode(t.Context(), nil, c.message, &e); err != nil {
				t.Fatal(err)
			}
			if got := show(e.Relation, e.New)[0]; got != c.want {
				t.Errorf("%s: got %s, want %s", name, got, c.want)
			}
		}
	}
}

// JSON without a schema has the types of the catalog. How the connector is set
// counts only where the value shows it.
func TestWithoutASchemaTheTypesAreTheCatalogs(t *testing.T) {
	const missing = "(missing)"
	for _, c := range []struct {
		of      *value.Type
		typeMod int32
		json    string
		want    string
	}{
		{base(23), -1, `1`, "1"},
		{base(23), -1, `"1"`, missing},
		{base(23), -1, `1.0`, missing},
		{base(25), -1, `"a\n"`, "a\n"},
		{base(25), -1, `null`, "(null)"},
		{base(16), -1, `true`, "t"},
		{base(17), -1, `"AP8="`, `\x00ff`},
		{base(17), -1, `"00ff"`, missing},
		{base(17), -1, `null`, missing},
		{base(17), -1, `"` + base64.StdEncoding.EncodeToString([]byte(debezium.PlaceholderDefault)) + `"`, "(unchanged)"},
		{base(1082), -1, `0`, "1970-01-01"},
		{base(1082), -1, `"1970-01-01Z"`, missing},
		{base(1083), 2, `43200000000`, missing},
		{base(1114), 3, `1709208000250`, missing},
		{base(1114), -1, `1709208000250000`, missing},
		{base(1184), -1, `"2024-02-29T12:00:00Z"`, "2024-02-29 12:00:00+00"},
		{base(1186), -1, `"P0Y0M1DT0H0M0S"`, "1 day"},
		{base(1186), -1, `86400000000`, missing},
		{hstoreType(), -1, `{"a":"1"}`, `"a"=>"1"`},
		{hstoreType(), -1, `"{\"a\":\"1\"}"`, `"a"=>"1"`},
		{arrayOf(23), -1, `[1,2]`, "{1,2}"},
		{base(1560), 9, `"BQ=="`, "000000101"},
		{base(600), -1, `{"x":1}`, missing},
	} {
		column := oneColumn{of: c.of, typeMod: c.typeMod}
		if got := column.read(t, nil, []byte(plainMessage("c", `{"c":`+c.json+`}`))); got != c.want {
			t.Errorf("type %d: %s: got %q, want %q", c.of.OID, c.json, got, c.want)
		}
	}
}

// Without a schema the digits of a numeric may be the base64 of its bytes, and a
// null NaN. One numeric that can only be text shows that none of its message is.
func TestANumericOfAMessageShowsHowTheOthersAreWritten(t *testing.T) {
	table := &debezium.Table{Key: []string{"n"}}
	for _, name := range []string{"n", "m"} {
		table.Shape.Columns = append(table.Shape.Columns, value.Column{Name: name, TypeOID: 1700, TypeMod: -1, Type: base(1700)})
	}
	table.Shape.Columns = append(table.Shape.Columns, value.Column{Name: "a", TypeOID: 1231, TypeMod: -1, Type: arrayOf(1700)})
	// One decoder reads them all: what one message shows is nothing to the next.
	d := debezium.NewDecoder(testOptions(nil, table, "n", "m", "a"))
	for _, c := range []struct{ row, want string }{
		{`{"n":"1234","m":null,"a":["1000"]}`, "n=(missing) m=(missing) a=(missing)"},
		{`{"n":"1234","m":"1.50","a":["1000"]}`, "n=1234 m=1.50 a={1000}"},
		{`{"n":"1234","m":null,"a":["1000","7"]}`, "n=1234 m=(null) a={1000,7}"},
		{`{"n":"1234","m":"1000","a":[]}`, "n=(missing) m=(missing) a={}"},
		{`{"n":"12","m":null,"a":[]}`, "n=12 m=(null) a={}"},
		{`{"n":"-123","m":null,"a":[]}`, "n=-123 m=(null) a={}"},
		{`{"n":"NAN","m":"NEGATIVE_INFINITY","a":[]}`, "n=NaN m=-Infinity a={}"},
		{`{"n":"BNI=","m":"1234","a":[]}`, "n=(missing) m=(missing) a={}"},       // precise
		{`{"n":1.5,"m":"NaN","a":[]}`, "n=(missing) m=(missing) a={}"},           // double
		{`{"n":{"scale":1,"value":"Dw=="},"m":null}`, "n=(missing) m=(missing)"}, // precise, of no scale
	} {
		var e debezium.Event
		if err := d.Decode(t.Context(), nil, []byte(plainMessage("c", c.row)), &e); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(show(e.Relation, e.New), " "); got != c.want {
			t.Errorf("%s: got %s, want %s", c.row, got, c.want)
		}
	}
	// A tombstone's key shows no more than itself.
	var e debezium.Event
	if err := d.Decode(t.Context(), []byte(`{"n":"1234"}`), []byte(plainMessage("c", `{"n":"1234","m":"1.50","a":[]}`)), &e); err != nil {
		t.Fatal(err)
	}
	if err := d.Decode(t.Context(), []byte(`{"n":"1234"}`), nil, &e); err != nil {
		t.Fatal(err)
	}
	if e.Relation != nil && e.Old.Values[0].State != change.Missing {
		t.Errorf("the tombstone has %q", e.Old.Values[0].Text)
	}
}

// plainMessage is a message without a schema.
func plainMessage(op, after string) string {
	return `{"before":null,"after":` + after + `,"source":{"version":"3.6.3.Final","connector":"postgresql","name":"shop","ts_ms":1763800000123,"snapshot":"false","db":"shopdb","sequence":"[\"24023128\",\"24023192\"]","ts_us":1763800000123456,"ts_ns":1763800000123456000,"schema":"public","table":"orders","txId":771,"lsn":24023192,"xmin":null},"transaction":null,"op":"` + op + `","ts_ms":1763800000456}`
}

// A column that may be NULL and has a default is not certain where nothing shows
// that NULLs are kept.
func TestWithoutASchemaADefaultIsDoubtful(t *testing.T) {
	column := oneColumn{of: base(23), typeMod: -1}
	kept := strings.Replace(plainMessage("c", `{"c":5}`), `"snapshot":"false"`, `"snapshot":null`, 1)
	for message, want := range map[string]string{plainMessage("c", `{"c":5}`): "(missing)", kept: "5"} {
		table := column.table()
		table.Defaulted = []string{"c"}
		d := debezium.NewDecoder(testOptions(nil, table, "c"))
		var e debezium.Event
		if err := d.Decode(t.Context(), nil, []byte(message), &e); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"c=" + want}, show(e.Relation, e.New)); diff != "" {
			t.Error(diff)
		}
	}
}

// A snapshot takes the era off a date: 44 BC is 44 there.
func TestADateOfASnapshotIsNotCertain(t *testing.T) {
	column := oneColumn{of: base(1082), typeMod: -1}
	for op, want := range map[string]string{"c": "2024-02-29", "r": "(missing)"} {
		if got := column.read(t, nil, []byte(plainMessage(op, `{"c":19782}`))); got != want {
			t.Errorf("op %s: got %s, want %s", op, got, want)
		}
	}
	if got := column.read(t, nil, []byte(plainMessage("r", `{"c":null}`))); got != "(null)" {
		t.Errorf("got %s for a NULL", got)
	}
}
