package debezium_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/debezium"
	"github.com/unstale/unstale/internal/value"
)

// everything has a field of each kind that Avro knows, some inside of others and
// of themselves, behind which the row stands.
const everything = `{"type":"record","name":"Envelope","namespace":"x","fields":[
 {"name":"n","type":"null"},{"name":"b","type":"boolean"},{"name":"i","type":"int"},{"name":"f","type":"float"},{"name":"d","type":"double"},{"name":"s","type":"bytes"},
 {"name":"e","type":{"type":"enum","name":"E","symbols":["A","B"]}},{"name":"x","type":{"type":"fixed","name":"F","size":3}},
 {"name":"a","type":{"type":"array","items":{"type":"array","items":["null","string",{"type":"map","values":"F"}]}}},
 {"name":"nulls","type":{"type":"array","items":"null"}},
 {"name":"list","type":["null",{"type":"record","name":"List","fields":[{"name":"v","type":"E"},{"name":"next","type":["null","List"]}]}]},
 {"name":"before","type":["null",{"type":"record","name":"Value","fields":[
  {"name":"id","type":"long"},{"name":"status","type":["null","string"]},{"name":"ints","type":["null",{"type":"array","items":["null","int"]}]},
  {"name":"pairs","type":{"type":"map","values":["null","string"]}},{"name":"raw","type":"bytes"},
  {"name":"at","type":{"type":"string","connect.name":"io.debezium.time.ZonedTimestamp"}},{"name":"f4","type":"float"},{"name":"f8","type":"double"},
  {"name":"amount","type":{"type":"bytes","connect.name":"org.apache.kafka.connect.data.Decimal","connect.parameters":{"scale":"2"}}},
  {"name":"bits","type":{"type":"bytes","connect.name":"io.debezium.data.Bits","connect.parameters":{"length":"12"}}},
  {"name":"span","type":{"type":"string","connect.name":"io.debezium.time.Interval"}},{"name":"day","type":{"type":"int","connect.name":"io.debezium.time.Date"}}
 ]}]},
 {"name":"after","type":["Value","null"]},
 {"name":"source","type":["null",` + sourceType + `]},
 {"name":"op","type":"string"}
]}`

// everyTable has the columns of the row in everything.
func everyTable() *debezium.Table {
	t := &debezium.Table{Full: true}
	for _, c := range []struct {
		name    string
		of      *value.Type
		typeMod int32
	}{
		{"id", &value.Type{OID: 20}, -1}, {"status", &value.Type{OID: 25}, -1}, {"ints", arrayOf(23), -1}, {"pairs", hstoreType(), -1}, {"raw", &value.Type{OID: 17}, -1},
		{"at", &value.Type{OID: 1184}, -1}, {"f4", &value.Type{OID: 700}, -1}, {"f8", &value.Type{OID: 701}, -1}, {"amount", &value.Type{OID: 1700}, (12<<16 | 2) + 4},
		{"bits", &value.Type{OID: 1560}, 12}, {"span", &value.Type{OID: 1186}, -1}, {"day", &value.Type{OID: 1082}, -1},
	} {
		t.Shape.Columns = append(t.Shape.Columns, value.Column{Name: c.name, TypeOID: c.of.OID, TypeMod: c.typeMod, Type: c.of})
	}
	return t
}

var everyColumn = []string{"id", "status", "ints", "pairs", "raw", "at", "f4", "f8", "amount", "bits", "span", "day"}

// every is a message of that schema.
func every() map[string]any {
	m := order()
	for name, v := range map[string]any{
		"n": nil, "b": true, "i": int32(-1), "f": float32(1), "d": 2.5, "s": []byte("x"), "e": "B", "x": []byte("abc"),
		"a": []any{[]any{nil, "a", map[string]any{"k": []byte("abc")}}}, "nulls": []any{nil, nil}, "list": map[string]any{"v": "A", "next": map[string]any{"v": "B", "next": nil}},
		"after": map[string]any{"id": int64(7), "status": "ok", "ints": []any{int32(1), int32(-2)}, "pairs": map[string]any{"a": "b", "c": nil}, "raw": []byte{0, 255},
			"at": "2024-02-29T12:00:00.5Z", "f4": float32(1e-45), "f8": 1e23, "amount": []byte{0x07, 0xcf}, "bits": []byte{5}, "span": "P0Y0M1DT0H0M0S", "day": int32(19782)},
	} {
		m[name] = v
	}
	m["before"] = m["after"]
	return m
}

// textsOf is how many bytes of text an event holds.
func textsOf(e *debezium.Event) (n int) {
	for _, row := range []change.Row{e.Old, e.New} {
		for _, v := range row.Values {
			n += len(v.Text)
		}
	}
	return n
}

// Whatever bytes come, reading them ends, and takes no more memory than a
// multiple of theirs.
func FuzzAvro(f *testing.F) {
	whole := encode(f, orderEnvelopeID, everything, every())
	f.Add(whole)
	f.Add(whole[:40])
	// A length, and a count, that are more than there is of anything.
	f.Add(append([]byte{0, 0, 0, 0, orderEnvelopeID, 1, 2}, binary.AppendVarint(nil, 1<<62)...))
	f.Add(append(bytes.Clone(whole[:30]), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01))
	f.Add(append(bytes.Clone(whole[:30]), bytes.Repeat([]byte{0x80}, 30)...))
	d := newDecoderOf(map[uint32]string{orderEnvelopeID: everything}, everyTable(), everyColumn...)
	f.Fuzz(func(t *testing.T, message []byte) {
		var e debezium.Event
		err := d.Decode(t.Context(), message, message, &e)
		var undecodable *debezium.Undecodable
		var unknown *debezium.UnknownSchema
		if err != nil && !errors.As(err, &undecodable) && !errors.As(err, &unknown) {
			t.Fatal(err)
		}
		if n := textsOf(&e); n > 64*len(message)+4096 {
			t.Fatalf("%d bytes of text from %d", n, len(message))
		}
	})
}

// A schema may be anything too.
func FuzzAvroSchema(f *testing.F) {
	f.Add(everything, encode(f, orderEnvelopeID, everything, every())[5:])
	f.Add(orderEnvelope, encode(f, orderEnvelopeID, orderEnvelope, order())[5:])
	f.Add(`{"type":"record","name":"R","fields":[{"name":"r","type":"R"}]}`, []byte{0})
	f.Add(strings.Replace(everything, `"name":"n","type":"null"`, `"name":"n","type":"Envelope"`, 1), []byte{0})
	f.Add(strings.Repeat(`[`, 100_000), []byte{0})
	f.Add(strings.Repeat(`{"type":"array","items":`, 10_000), []byte{0})
	f.Fuzz(func(t *testing.T, schema string, message []byte) {
		d := newDecoderOf(map[uint32]string{orderEnvelopeID: schema, orderKeyID: schema}, everyTable(), everyColumn...)
		var e debezium.Event
		value := append([]byte{0, 0, 0, 0, orderEnvelopeID}, message...)
		key := append([]byte{0, 0, 0, 0, orderKeyID}, message...)
		_ = d.Decode(t.Context(), key, value, &e) // either way
		_ = d.Decode(t.Context(), key, nil, &e)
	})
}

// What encoding/json reads is read as it reads it.
func FuzzJSON(f *testing.F) {
	const payload = `{"before":null,"after":{"id":1,"status":"a\"\u00e9\ud83d\ude00","ints":[1,null],"pairs":{"a":"1"},"raw":"AP8=","at":"2024-02-29T12:00:00Z","f4":1.4E-45,"f8":"NaN","amount":"B88=","bits":"BQ==","span":"P0Y0M0DT0H0M1S","day":5},
"source":{"version":"3","name":"shop","ts_ms":1,"snapshot":"first","db":"d","sequence":"[null,\"5\"]","schema":"public","table":"orders","txId":null,"lsn":5},"op":"c"}`
	f.Add([]byte(payload), true)
	f.Add([]byte(`{"schema":null,"payload":`+payload+`}`), true)
	f.Add([]byte(`{"schema":{"type":"struct","fields":[{"type":"struct","fields":[{"type":"int64","field":"id"}],"field":"after"},{"field":"source"},{"field":"op"}]},"payload":`+payload+`}`), false)
	f.Add([]byte(`{"ts_ms":1}`), false)
	f.Add([]byte(`{"a":`+strings.Repeat(`[`, 5000)), false)
	f.Add([]byte(strings.ReplaceAll(payload, `"op":"c"`, `"op":"d"`)), false)
	f.Fuzz(func(t *testing.T, message []byte, asKey bool) {
		d := debezium.NewDecoder(debezium.Options{
			Table:   func(_, _ string) *debezium.Table { return everyTable() },
			Wanted:  func(_, _ string) bool { return true },
			Compile: func(r *change.Relation) []int { return indexes(r, everyColumn) },
		})
		var e debezium.Event
		key := []byte(`{"id":1}`)
		if asKey {
			key = message
		}
		err := d.Decode(t.Context(), key, message, &e)
		var undecodable *debezium.Undecodable
		var unknown *debezium.UnknownSchema
		if err != nil && !errors.As(err, &undecodable) && !errors.As(err, &unknown) {
			t.Fatal(err)
		}
		if n := textsOf(&e); n > 64*len(message)+4096 {
			t.Fatalf("%d bytes of text from %d", n, len(message))
		}
		var want struct {
			Before, After map[string]json.RawMessage
			Payload       struct{ Before, After map[string]json.RawMessage }
		}
		if err != nil || e.Kind != debezium.Row || json.Unmarshal(message, &want) != nil {
			return
		}
		row := want.After
		if want.Payload.After != nil {
			row = want.Payload.After
		}
		for i, v := range e.New.Values {
			if v.State != change.Text {
				continue
			}
			switch name := e.Relation.Columns[e.Relation.Wanted[i]].Name; name {
			case "id":
				var n int64
				if json.Unmarshal(row[name], &n) != nil || strconv.FormatInt(n, 10) != string(v.Text) {
					t.Fatalf("%s: got %q of %q", name, v.Text, row[name])
				}
			case "status":
				var s string
				if json.Unmarshal(row[name], &s) != nil || s != strings.ToValidUTF8(string(v.Text), "\ufffd") {
					t.Fatalf("%s: got %q of %q", name, v.Text, row[name])
				}
			}
		}
	})
}
