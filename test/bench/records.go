package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// The table that Debezium captures: ten columns of the usual types.
const (
	orderTable  = "orders"
	orderPrefix = "order:"
	orderKey    = orderPrefix + "{id}"
)

const createOrders = `CREATE TABLE orders (
	id bigint PRIMARY KEY, customer_id bigint NOT NULL, status text NOT NULL, amount numeric(12,2), quantity int,
	email text, note text, paid boolean, created_at timestamp NOT NULL, updated_at timestamp
)`

// The schemas that Debezium registers for it with decimal.handling.mode=string.
const (
	orderFields = `[{"name":"id","type":"long"},{"name":"customer_id","type":"long"},{"name":"status","type":"string"},` +
		`{"name":"amount","type":["null","string"],"default":null},{"name":"quantity","type":["null","int"],"default":null},` +
		`{"name":"email","type":["null","string"],"default":null},{"name":"note","type":["null","string"],"default":null},` +
		`{"name":"paid","type":["null","boolean"],"default":null},` +
		`{"name":"created_at","type":{"type":"long","connect.version":1,"connect.name":"io.debezium.time.MicroTimestamp"}},` +
		`{"name":"updated_at","type":["null",{"type":"long","connect.version":1,"connect.name":"io.debezium.time.MicroTimestamp"}],"default":null}]`
	orderSource = `{"type":"record","name":"Source","namespace":"io.debezium.connector.postgresql","fields":[` +
		`{"name":"version","type":"string"},{"name":"connector","type":"string"},{"name":"name","type":"string"},{"name":"ts_ms","type":"long"},` +
		`{"name":"snapshot","type":[{"type":"string","connect.version":1,"connect.parameters":{"allowed":"true,first,first_in_data_collection,last_in_data_collection,last,false,incremental"},"connect.default":"false","connect.name":"io.debezium.data.Enum"},"null"],"default":"false"},` +
		`{"name":"db","type":"string"},{"name":"sequence","type":["null","string"],"default":null},` +
		`{"name":"ts_us","type":["null","long"],"default":null},{"name":"ts_ns","type":["null","long"],"default":null},` +
		`{"name":"schema","type":"string"},{"name":"table","type":"string"},{"name":"txId","type":["null","long"],"default":null},` +
		`{"name":"lsn","type":["null","long"],"default":null},{"name":"xmin","type":["null","long"],"default":null}],` +
		`"connect.name":"io.debezium.connector.postgresql.Source"}`
	orderEnvelopeSchema = `{"type":"record","name":"Envelope","namespace":"shop.public.orders","fields":[` +
		`{"name":"before","type":["null",{"type":"record","name":"Value","fields":` + orderFields + `,"connect.name":"shop.public.orders.Value"}],"default":null},` +
		`{"name":"after","type":["null","Value"],"default":null},{"name":"source","type":` + orderSource + `},` +
		`{"name":"transaction","type":["null",{"type":"record","name":"block","namespace":"event","fields":[{"name":"id","type":"string"},{"name":"total_order","type":"long"},{"name":"data_collection_order","type":"long"}],"connect.version":1,"connect.name":"event.block"}],"default":null},` +
		`{"name":"op","type":"string"},{"name":"ts_ms","type":["null","long"],"default":null},{"name":"ts_us","type":["null","long"],"default":null},{"name":"ts_ns","type":["null","long"],"default":null}],` +
		`"connect.version":2,"connect.name":"shop.public.orders.Envelope"}`
	orderKeySchema = `{"type":"record","name":"Key","namespace":"shop.public.orders","fields":[{"name":"id","type":"long"}],"connect.name":"shop.public.orders.Key"}`
)

// The ids of the schemas in the registry.
const (
	orderKeySchemaID      = 1
	orderEnvelopeSchemaID = 2
)

// A registry answers as Confluent's does, for the two schemas.
type registry struct {
	server *http.Server
	url    string
}

func startRegistry() (*registry, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	for id, schema := range map[int]string{orderKeySchemaID: orderKeySchema, orderEnvelopeSchemaID: orderEnvelopeSchema} {
		answer, err := json.Marshal(map[string]string{"schema": schema})
		if err != nil {
			return nil, err
		}
		mux.HandleFunc(fmt.Sprintf("GET /schemas/ids/%d", id), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.schemaregistry.v1+json")
			_, _ = w.Write(answer) // who asked may have gone
		})
	}
	r := &registry{server: &http.Server{Handler: mux}, url: "http://" + listener.Addr().String()}
	go r.server.Serve(listener) //nolint:errcheck // it ends with close
	return r, nil
}

// A converter writes records as one of Connect's does.
type converter struct {
	name  string
	key   func(dst []byte, id int64) []byte
	value func(dst []byte, c *orderChange) []byte
}

// An orderChange is what an update of one row says. Its transaction has no other.
type orderChange struct {
	id          int64
	xid         int64
	before, lsn int64 // of the commit before, and its own
	committed   time.Time
}

const (
	orderStatus = "shipped"
	orderAmount = "19.99"
	orderEmail  = "someone.longer@example.com"
	orderNote   = "please leave the parcel with the neighbour at number 12"
	orderMicros = 1763800000123456
)

// orderRow is the row of a change as row_to_json has it.
func orderRow(id int64) string {
	return fmt.Sprintf(`{"id":%d,"customer_id":%d,"status":%q,"amount":%s,"quantity":%d,"email":%q,"note":%q,"paid":true,"created_at":"2025-11-22T08:26:40.123456","updated_at":"2025-11-22T08:26:40.123456"}`,
		id, id%100_000, orderStatus, orderAmount, id%10, orderEmail, orderNote)
}

var (
	avroConverter = converter{name: "Avro", key: appendAvroKey, value: appendAvroValue}
	// jsonConverter is that of Kafka Connect with schemas.enable=false.
	jsonConverter        = converter{name: "JSON", key: appendJSONKey, value: appendJSONValue}
	jsonSchemasConverter = converter{
		name: "JSON with schemas",
		key: func(dst []byte, id int64) []byte {
			dst = append(dst, `{"schema":`+jsonKeySchema+`,"payload":`...)
			return append(appendJSONKey(dst, id), '}')
		},
		value: func(dst []byte, c *orderChange) []byte {
			dst = append(dst, `{"schema":`+jsonEnvelopeSchema+`,"payload":`...)
			return append(appendJSONValue(dst, c), '}')
		},
	}
)

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendVarint(dst, int64(len(s))), s...)
}

// some is the second branch of a union, which stands for a value behind null.
const some = 2

func appendAvroKey(dst []byte, id int64) []byte {
	return binary.AppendVarint(append(dst, 0, 0, 0, 0, orderKeySchemaID), id)
}

func appendAvroValue(dst []byte, c *orderChange) []byte {
	dst = append(dst, 0, 0, 0, 0, orderEnvelopeSchemaID)
	dst = append(dst, 0, some) // before, after
	dst = binary.AppendVarint(dst, c.id)
	dst = binary.AppendVarint(dst, c.id%100_000)
	dst = appendString(dst, orderStatus)
	dst = appendString(append(dst, some), orderAmount)
	dst = binary.AppendVarint(append(dst, some), c.id%10)
	dst = appendString(append(dst, some), orderEmail)
	dst = appendString(append(dst, some), orderNote)
	dst = append(dst, some, 1) // paid
	dst = binary.AppendVarint(dst, orderMicros)
	dst = binary.AppendVarint(append(dst, some), orderMicros)

	dst = appendString(dst, "3.6.3.Final")
	dst = appendString(dst, "postgresql")
	dst = appendString(dst, "shop")
	dst = binary.AppendVarint(dst, c.committed.UnixMilli())
	dst = appendString(append(dst, 0), "false")
	dst = appendString(dst, "postgres")
	dst = appendString(append(dst, some), fmt.Sprintf(`["%d","%d"]`, c.before, c.lsn))
	dst = binary.AppendVarint(append(dst, some), c.committed.UnixMicro())
	dst = binary.AppendVarint(append(dst, some), c.committed.UnixNano())
	dst = appendString(dst, "public")
	dst = appendString(dst, orderTable)
	dst = binary.AppendVarint(append(dst, some), c.xid)
	dst = binary.AppendVarint(append(dst, some), c.lsn)
	dst = append(dst, 0) // xmin

	dst = append(dst, 0) // transaction
	dst = appendString(dst, "u")
	dst = binary.AppendVarint(append(dst, some), c.committed.UnixMilli())
	dst = binary.AppendVarint(append(dst, some), c.committed.UnixMicro())
	return binary.AppendVarint(append(dst, some), c.committed.UnixNano())
}

func appendJSONKey(dst []byte, id int64) []byte {
	return append(strconv.AppendInt(append(dst, `{"id":`...), id, 10), '}')
}

func appendJSONValue(dst []byte, c *orderChange) []byte {
	return fmt.Appendf(dst, `{"before":null,"after":{"id":%d,"customer_id":%d,"status":%q,"amount":%q,"quantity":%d,"email":%q,"note":%q,"paid":true,"created_at":%d,"updated_at":%d},`+
		`"source":{"version":"3.6.3.Final","connector":"postgresql","name":"shop","ts_ms":%d,"snapshot":"false","db":"postgres","sequence":"[\"%d\",\"%d\"]","ts_us":%d,"ts_ns":%d,"schema":"public","table":"orders","txId":%d,"lsn":%d,"xmin":null},`+
		`"transaction":null,"op":"u","ts_ms":%d,"ts_us":%d,"ts_ns":%d}`,
		c.id, c.id%100_000, orderStatus, orderAmount, c.id%10, orderEmail, orderNote, int64(orderMicros), int64(orderMicros),
		c.committed.UnixMilli(), c.before, c.lsn, c.committed.UnixMicro(), c.committed.UnixNano(), c.xid, c.lsn,
		c.committed.UnixMilli(), c.committed.UnixMicro(), c.committed.UnixNano())
}

// What Kafka Connect puts before each record where schemas.enable=true.
var (
	jsonKeySchema      = `{"type":"struct","fields":[{"type":"int64","optional":false,"field":"id"}],"optional":false,"name":"shop.public.orders.Key"}`
	jsonEnvelopeSchema = func() string {
		field := func(kind, name string, optional bool) string {
			return fmt.Sprintf(`{"type":%q,"optional":%t,"field":%q}`, kind, optional, name)
		}
		time := func(name string, optional bool) string {
			return fmt.Sprintf(`{"type":"int64","optional":%t,"name":"io.debezium.time.MicroTimestamp","version":1,"field":%q}`, optional, name)
		}
		row := func(name string) string {
			return `{"type":"struct","fields":[` + strings.Join([]string{
				field("int64", "id", false), field("int64", "customer_id", false), field("string", "status", false), field("string", "amount", true), field("int32", "quantity", true),
				field("string", "email", true), field("string", "note", true), field("boolean", "paid", true), time("created_at", false), time("updated_at", true),
			}, ",") + `],"optional":true,"name":"shop.public.orders.Value","field":"` + name + `"}`
		}
		source := `{"type":"struct","fields":[` + strings.Join([]string{
			field("string", "version", false), field("string", "connector", false), field("string", "name", false), field("int64", "ts_ms", false),
			`{"type":"string","optional":true,"name":"io.debezium.data.Enum","version":1,"parameters":{"allowed":"true,first,first_in_data_collection,last_in_data_collection,last,false,incremental"},"default":"false","field":"snapshot"}`,
			field("string", "db", false), field("string", "sequence", true), field("int64", "ts_us", true), field("int64", "ts_ns", true),
			field("string", "schema", false), field("string", "table", false), field("int64", "txId", true), field("int64", "lsn", true), field("int64", "xmin", true),
		}, ",") + `],"optional":false,"name":"io.debezium.connector.postgresql.Source","field":"source"}`
		block := `{"type":"struct","fields":[` + strings.Join([]string{
			field("string", "id", false), field("int64", "total_order", false), field("int64", "data_collection_order", false),
		}, ",") + `],"optional":true,"name":"event.block","version":1,"field":"transaction"}`
		return `{"type":"struct","fields":[` + strings.Join([]string{
			row("before"), row("after"), source, block, field("string", "op", false),
			field("int64", "ts_ms", true), field("int64", "ts_us", true), field("int64", "ts_ns", true),
		}, ",") + `],"optional":false,"name":"shop.public.orders.Envelope","version":2}`
	}()
)

// A writer writes changes of orders into a topic, each row in the partition where
// Kafka's own partitioner puts it.
type writer struct {
	client *kgo.Client
	topic  string
	as     converter
	// xids is how many transactions of the past it names in turns, before xid.
	xid, xids int64
	changes   int64
}

// pastXIDs is how many different transactions of the past the records name.
const pastXIDs = 200

// farLSN is a place in the log that no server comes to here: for whoever judges how
// old a change is, everything behind it was committed a moment ago. That stands for
// a connector which keeps up, and a topic that came all at once.
const farLSN = 1 << 44

// newWriter returns one whose producer has the defaults of Kafka Connect's: batches
// of 16 KiB at most, not compressed.
func (b *bench) newWriter(ctx context.Context, topic string, as converter) (*writer, error) {
	var xid int64
	if err := b.conn.QueryRow(ctx, "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint").Scan(&xid); err != nil {
		return nil, fmt.Errorf("read the oldest transaction: %w", err)
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(b.pipeline.kafka.Brokers()),
		kgo.DefaultProduceTopic(topic),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.ProducerBatchMaxBytes(16<<10),
		kgo.MaxBufferedRecords(50_000),
	)
	if err != nil {
		return nil, err
	}
	return &writer{client: client, topic: topic, as: as, xid: xid, xids: min(pastXIDs, xid-3)}, nil
}

// record is the next change: an update of one row.
func (w *writer) record(id int64) *kgo.Record {
	w.changes++
	c := orderChange{
		id: id, xid: w.xid - 1 - w.changes%w.xids,
		before: farLSN + 100*(w.changes-1), lsn: farLSN + 100*w.changes,
		committed: time.Now(),
	}
	return &kgo.Record{Key: w.as.key(nil, id), Value: w.as.value(nil, &c)}
}

// write writes an update of each row from 1 to n, and returns when all of it is in
// the topic.
func (w *writer) write(ctx context.Context, n int) error {
	failed := make(chan error, 1)
	for id := range int64(n) {
		w.client.Produce(ctx, w.record(id+1), func(_ *kgo.Record, err error) {
			if err != nil {
				select {
				case failed <- err:
				default:
				}
			}
		})
	}
	if err := w.client.Flush(ctx); err != nil {
		return err
	}
	select {
	case err := <-failed:
		return fmt.Errorf("write to topic %s: %w", w.topic, err)
	default:
		return nil
	}
}

func (w *writer) close() { w.client.Close() }
