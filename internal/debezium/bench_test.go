package debezium_test

import (
	"encoding/json"
	"testing"

	"github.com/hamba/avro/v2"
	"github.com/linkedin/goavro/v2"
	twmb "github.com/twmb/avro"

	"github.com/unstale/unstale/internal/debezium"
)

// A realistic message: ten columns, the full source block, four columns wanted.
func BenchmarkAvro(b *testing.B) {
	key, message := encode(b, orderKeyID, orderKey, map[string]any{"id": int64(1234567)}), encode(b, orderEnvelopeID, orderEnvelope, order())
	body := message[5:]
	b.Run("ours", func(b *testing.B) {
		d := newDecoder(orderTable(), "id", "customer_id", "status", "email")
		var e debezium.Event
		if err := d.Decode(b.Context(), key, message, &e); err != nil { // compiles
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if err := d.Decode(b.Context(), key, message, &e); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("goavro", func(b *testing.B) {
		codec, err := goavro.NewCodec(orderEnvelope)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := codec.NativeFromBinary(body); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("hamba", func(b *testing.B) {
		schema, err := avro.Parse(orderEnvelope)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			var v any
			if err := avro.Unmarshal(schema, body, &v); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("twmb", func(b *testing.B) {
		schema := twmb.MustParse(orderEnvelope)
		b.ReportAllocs()
		for b.Loop() {
			var v any
			if _, err := schema.Decode(body, &v); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// The same row as JSON, with its schema and alone.
func BenchmarkJSON(b *testing.B) {
	fields := ""
	for i, f := range []string{
		`{"type":"int64","optional":false,"field":"id"}`, `{"type":"int64","optional":false,"field":"customer_id"}`, `{"type":"string","optional":false,"field":"status"}`,
		`{"type":"string","optional":true,"field":"amount"}`, `{"type":"int32","optional":true,"field":"quantity"}`, `{"type":"string","optional":true,"field":"email"}`,
		`{"type":"string","optional":true,"field":"note"}`, `{"type":"boolean","optional":true,"field":"paid"}`,
		`{"type":"int64","optional":false,"name":"io.debezium.time.MicroTimestamp","version":1,"field":"created_at"}`,
		`{"type":"int64","optional":true,"name":"io.debezium.time.MicroTimestamp","version":1,"field":"updated_at"}`,
	} {
		if i > 0 {
			fields += ","
		}
		fields += f
	}
	row, err := json.Marshal(order()["after"])
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name         string
		key, message []byte
	}{
		{"schema", []byte(`{"schema":{"type":"struct","fields":[{"type":"int64","optional":false,"field":"id"}],"optional":false,"name":"shop.public.orders.Key"},"payload":{"id":1234567}}`), []byte(jsonMessage(fields, string(row)))},
		{"plain", []byte(`{"id":1234567}`), []byte(plainMessage("c", string(row)))},
	} {
		b.Run(c.name+"/ours", func(b *testing.B) {
			d := newDecoderOf(nil, orderTable(), "id", "customer_id", "status", "email")
			var e debezium.Event
			if err := d.Decode(b.Context(), c.key, c.message, &e); err != nil { // compiles
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := d.Decode(b.Context(), c.key, c.message, &e); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(c.name+"/encoding", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var v any
				if err := json.Unmarshal(c.message, &v); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
