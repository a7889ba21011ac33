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

// The same message as the JSON converter writes it.
func BenchmarkJSON(b *testing.B) {
	key := []byte(`{"id":1234567}`)
	message, err := json.Marshal(order())
	if err != nil {
		b.Fatal(err)
	}
	d := newDecoder(orderTable(), "id", "customer_id", "status", "email")
	var e debezium.Event
	b.ReportAllocs()
	for b.Loop() {
		if err := d.Decode(b.Context(), key, message, &e); err != nil {
			b.Fatal(err)
		}
	}
}
