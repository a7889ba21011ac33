package main

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/linkedin/goavro/v2"
)

// What the benchmark writes by hand is what a library writes by the schema.
func TestRecordsAreOfTheirSchema(t *testing.T) {
	c := &orderChange{id: 1234567, xid: 771, before: farLSN, lsn: farLSN + 100, committed: time.UnixMicro(1763800000123456)}
	for _, record := range []struct {
		schema string
		bytes  []byte
	}{{orderKeySchema, avroConverter.key(nil, c.id)}, {orderEnvelopeSchema, avroConverter.value(nil, c)}} {
		codec, err := goavro.NewCodec(record.schema)
		if err != nil {
			t.Fatal(err)
		}
		native, rest, err := codec.NativeFromBinary(record.bytes[5:])
		if err != nil || len(rest) > 0 {
			t.Fatalf("%d bytes are left of %x: %v", len(rest), record.bytes, err)
		}
		again, err := codec.BinaryFromNative(nil, native)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again, record.bytes[5:]) {
			t.Errorf("got  %x\nwant %x", record.bytes[5:], again)
		}
	}
	for _, as := range []converter{jsonConverter, jsonSchemasConverter} {
		if key, value := as.key(nil, c.id), as.value(nil, c); !json.Valid(key) || !json.Valid(value) {
			t.Errorf("%s: not JSON: %s %s", as.name, key, value)
		}
	}
	for _, as := range []converter{avroConverter, jsonConverter, jsonSchemasConverter} {
		t.Logf("%s: a key of %d bytes, a value of %d", as.name, len(as.key(nil, c.id)), len(as.value(nil, c)))
	}
}
