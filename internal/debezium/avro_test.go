package debezium_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/avro"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/debezium"
	"github.com/unstale/unstale/internal/value"
)

// The schema of a realistic message: ten columns and the full source block.
const (
	orderFields = `[
 {"name":"id","type":"long"},
 {"name":"customer_id","type":"long"},
 {"name":"status","type":"string"},
 {"name":"amount","type":["null","string"],"default":null},
 {"name":"quantity","type":["null","int"],"default":null},
 {"name":"email","type":["null","string"],"default":null},
 {"name":"note","type":["null","string"],"default":null},
 {"name":"paid","type":["null","boolean"],"default":null},
 {"name":"created_at","type":{"type":"long","connect.version":1,"connect.name":"io.debezium.time.MicroTimestamp"}},
 {"name":"updated_at","type":["null",{"type":"long","connect.version":1,"connect.name":"io.debezium.time.MicroTimestamp"}],"default":null}
]`
	sourceType = `{"type":"record","name":"Source","namespace":"io.debezium.connector.postgresql","fields":[
 {"name":"version","type":"string"},{"name":"connector","type":"string"},{"name":"name","type":"string"},{"name":"ts_ms","type":"long"},
 {"name":"snapshot","type":[{"type":"string","connect.version":1,"connect.parameters":{"allowed":"true,first,first_in_data_collection,last_in_data_collection,last,false,incremental"},"connect.default":"false","connect.name":"io.debezium.data.Enum"},"null"],"default":"false"},
 {"name":"db","type":"string"},{"name":"sequence","type":["null","string"],"default":null},
 {"name":"ts_us","type":["null","long"],"default":null},{"name":"ts_ns","type":["null","long"],"default":null},
 {"name":"schema","type":"string"},{"name":"table","type":"string"},
 {"name":"txId","type":["null","long"],"default":null},{"name":"lsn","type":["null","long"],"default":null},{"name":"xmin","type":["null","long"],"default":null}
],"connect.name":"io.debezium.connector.postgresql.Source"}`
	orderEnvelope = `{"type":"record","name":"Envelope","namespace":"shop.public.orders","fields":[
 {"name":"before","type":["null",{"type":"record","name":"Value","fields":` + orderFields + `,"connect.name":"shop.public.orders.Value"}],"default":null},
 {"name":"after","type":["null","Value"],"default":null},
 {"name":"source","type":` + sourceType + `},
 {"name":"transaction","type":["null",{"type":"record","name":"block","namespace":"event","fields":[{"name":"id","type":"string"},{"name":"total_order","type":"long"},{"name":"data_collection_order","type":"long"}],"connect.version":1,"connect.name":"event.block"}],"default":null},
 {"name":"op","type":"string"},
 {"name":"ts_ms","type":["null","long"],"default":null},
 {"name":"ts_us","type":["null","long"],"default":null},
 {"name":"ts_ns","type":["null","long"],"default":null}
],"connect.version":2,"connect.name":"shop.public.orders.Envelope"}`
	orderKey = `{"type":"record","name":"Key","namespace":"shop.public.orders","fields":[{"name":"id","type":"long"}],"connect.name":"shop.public.orders.Key"}`
)

// The ids under which the schemas are registered.
const (
	orderEnvelopeID = 7
	orderKeyID      = 8
)

var orderTypes = []struct {
	name    string
	oid     uint32
	typeMod int32
}{
	{"id", 20, -1}, {"customer_id", 20, -1}, {"status", 25, -1}, {"amount", 1700, (12<<16 | 2) + 4}, {"quantity", 23, -1},
	{"email", 25, -1}, {"note", 25, -1}, {"paid", 16, -1}, {"created_at", 1114, -1}, {"updated_at", 1114, -1},
}

func orderTable() *debezium.Table {
	t := &debezium.Table{Key: []string{"id"}}
	for _, c := range orderTypes {
		t.Shape.Columns = append(t.Shape.Columns, value.Column{Name: c.name, TypeOID: c.oid, TypeMod: c.typeMod, Type: &value.Type{OID: c.oid, Name: c.name}})
	}
	return t
}

// order is a message that updates a row.
func order() map[string]any {
	return map[string]any{
		"before": nil,
		"after": map[string]any{"id": int64(1234567), "customer_id": int64(99887), "status": "shipped", "amount": "19.99", "quantity": int32(3),
			"email": "someone.longer@example.com", "note": "please leave the parcel with the neighbour at number 12", "paid": true, "created_at": int64(1763800000000000), "updated_at": int64(1763800000100000)},
		"source": map[string]any{"version": "3.6.3.Final", "connector": "postgresql", "name": "shop", "ts_ms": int64(1763800000123), "snapshot": "false", "db": "shopdb",
			"sequence": `["24023128","24023192"]`, "ts_us": int64(1763800000123456), "ts_ns": int64(1763800000123456000), "schema": "public", "table": "orders", "txId": int64(771), "lsn": int64(24023192), "xmin": nil},
		"transaction": nil, "op": "u", "ts_ms": int64(1763800000456), "ts_us": int64(1763800000456789), "ts_ns": int64(1763800000456789000),
	}
}

// encode writes a message in Confluent's wire format.
func encode(t testing.TB, id uint32, schema string, v any) []byte {
	t.Helper()
	b, err := avro.MustParse(schema).AppendEncode(binary.BigEndian.AppendUint32([]byte{0}, id), v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// newDecoder reads some columns of the table public.orders.
func newDecoder(table *debezium.Table, columns ...string) *debezium.Decoder {
	return newDecoderOf(map[uint32]string{orderEnvelopeID: orderEnvelope, orderKeyID: orderKey}, table, columns...)
}

func newDecoderOf(schemas map[uint32]string, table *debezium.Table, columns ...string) *debezium.Decoder {
	return debezium.NewDecoder(testOptions(schemas, table, columns...))
}

func testOptions(schemas map[uint32]string, table *debezium.Table, columns ...string) debezium.Options {
	return debezium.Options{
		Schema: func(_ context.Context, id uint32) (string, error) {
			if s, ok := schemas[id]; ok {
				return s, nil
			}
			return "", fmt.Errorf("no schema %d", id)
		},
		Table:   func(schema, name string) *debezium.Table { return table },
		Wanted:  func(schema, name string) bool { return schema == "public" && name == "orders" },
		Compile: func(r *change.Relation) []int { return indexes(r, columns) },
	}
}

func indexes(r *change.Relation, columns []string) (wanted []int) {
	for i, c := range r.Columns {
		for _, name := range columns {
			if c.Name == name {
				wanted = append(wanted, i)
			}
		}
	}
	return wanted
}

// show writes a row as one reads it.
func show(r *change.Relation, row change.Row) []string {
	if row.Kind == change.Absent {
		return nil
	}
	shown := []string{}
	for i, v := range row.Values {
		text := string(v.Text)
		switch v.State {
		case change.Missing:
			text = "(missing)"
		case change.Null:
			text = "(null)"
		case change.Unchanged:
			text = "(unchanged)"
		}
		shown = append(shown, r.Columns[r.Wanted[i]].Name+"="+text)
	}
	return shown
}

// The wanted columns are decoded, and the source block tells what the change is.
func TestAnUpdateIsReadFromAvro(t *testing.T) {
	d := newDecoder(orderTable(), "id", "customer_id", "status", "email")
	key, message := encode(t, orderKeyID, orderKey, map[string]any{"id": int64(1234567)}), encode(t, orderEnvelopeID, orderEnvelope, order())
	var e debezium.Event
	for range 2 {
		if err := d.Decode(t.Context(), key, message, &e); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"id=1234567", "customer_id=99887", "status=shipped", "email=someone.longer@example.com"}, show(e.Relation, e.New)); diff != "" {
			t.Error(diff)
		}
		want := debezium.Event{
			Kind: debezium.Row, Op: 'u', Relation: e.Relation, New: e.New,
			Source: debezium.Source{Connector: "shop", Database: "shopdb", Schema: "public", Table: "orders"},
			LSN:    24023192, Sequence: [2]uint64{24023128, 24023192}, XID: 771, CommittedAt: 1763800000123456,
		}
		if diff := cmp.Diff(want, e); diff != "" {
			t.Error(diff)
		}
	}
}
