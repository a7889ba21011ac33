package debezium_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/debezium"
	"github.com/unstale/unstale/internal/value"
)

var orderColumns = []string{"id", "customer_id", "status", "email"}

func decode(t *testing.T, d *debezium.Decoder, key, message []byte) debezium.Event {
	t.Helper()
	var e debezium.Event
	if err := d.Decode(t.Context(), key, message, &e); err != nil {
		t.Fatalf("%v\n%.300q", err, message)
	}
	return e
}

func orderKeyOf(t testing.TB, id int64) []byte {
	return encode(t, orderKeyID, orderKey, object{"id": id})
}

// before makes of the order a message with an old row.
func before(op string, old, updated any) map[string]any {
	m := order()
	m["op"], m["before"], m["after"] = op, old, updated
	return m
}

func row(changed ...any) object {
	r := order()["after"].(object)
	for i := 0; i < len(changed); i += 2 {
		r[changed[i].(string)] = changed[i+1]
	}
	return r
}

// Where the whole old row is not there, what stands in the place of its columns
// is nulls and defaults: they are not known.
func TestOnlyTheIdentityOfAnOldRowCounts(t *testing.T) {
	key := orderKeyOf(t, 7)
	deleted := encode(t, orderEnvelopeID, orderEnvelope, before("d", row("id", int64(7), "customer_id", int64(0), "status", "", "email", nil), nil))
	d := newDecoder(orderTable(), orderColumns...)
	e := decode(t, d, key, deleted)
	if diff := cmp.Diff([]string{"id=7", "customer_id=(missing)", "status=(missing)", "email=(missing)"}, show(e.Relation, e.Old)); diff != "" || e.Old.Kind != change.IdentityOnly || e.Op != 'd' || e.New.Kind != change.Absent {
		t.Errorf("%s\n%+v", diff, e)
	}
	if e.Relation.Identity != change.IdentityDefault || !e.Relation.Columns[0].Identifies || e.Relation.Columns[1].Identifies {
		t.Errorf("relation %+v", e.Relation)
	}

	full := orderTable()
	full.Full = true
	e = decode(t, newDecoder(full, orderColumns...), key, deleted)
	if diff := cmp.Diff([]string{"id=7", "customer_id=0", "status=", "email=(null)"}, show(e.Relation, e.Old)); diff != "" || e.Old.Kind != change.Whole {
		t.Error(diff)
	}
	if e.Relation.Identity != change.IdentityFull || !e.Relation.Columns[1].Identifies {
		t.Errorf("relation %+v", e.Relation)
	}
}

// Under REPLICA IDENTITY USING INDEX the key of the record says 0 for what is not
// in the index. Only what is in both, the record's key and the table's identity,
// identifies a row.
func TestAKeyThatIsNotTheIdentityIdentifiesNothing(t *testing.T) {
	table := orderTable()
	table.Key = []string{"status"}
	e := decode(t, newDecoder(table, orderColumns...), orderKeyOf(t, 0), encode(t, orderEnvelopeID, orderEnvelope, before("d", row("id", int64(0), "status", "x"), nil)))
	if slices.ContainsFunc(e.Relation.Columns, func(c change.Column) bool { return c.Identifies }) {
		t.Errorf("columns %+v", e.Relation.Columns)
	}
	if diff := cmp.Diff([]string{"id=(missing)", "customer_id=(missing)", "status=(missing)", "email=(missing)"}, show(e.Relation, e.Old)); diff != "" {
		t.Error(diff)
	}
}

// What is in order is what has the same record's key. A key with a part that is no
// column, or that an old row does not show, says nothing about that.
func TestAKeyIsOfColumnsThatAnOldRowShows(t *testing.T) {
	full := orderTable()
	full.Full = true
	plainRow := []byte(plainMessage("c", `{"id":1,"customer_id":2,"status":"x","email":"y"}`))
	for _, c := range []struct {
		name  string
		table *debezium.Table
		key   string
		want  []string
	}{
		{"the primary key", orderTable(), `{"id":1}`, []string{"id"}},
		{"other columns, and the old row is whole", full, `{"customer_id":2}`, []string{"customer_id"}},
		{"other columns, which the old row lacks", orderTable(), `{"customer_id":2}`, nil},
		{"one column more, which the old row lacks", orderTable(), `{"id":1,"customer_id":2}`, nil},
		{"a part that a router has added", full, `{"id":1,"__dbz__physicalTableIdentifier":"orders"}`, nil},
		{"no key", full, ``, nil},
	} {
		e := decode(t, newDecoder(c.table, orderColumns...), []byte(c.key), plainRow)
		var got []string
		for _, column := range e.Relation.Columns {
			if column.Keyed {
				got = append(got, column.Name)
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", c.name, diff)
		}
	}
}

// An update of a table with the whole old row has there what it left untouched.
func TestAnUntouchedValueIsTakenFromTheOldRow(t *testing.T) {
	message := encode(t, orderEnvelopeID, orderEnvelope, before("u", row("email", "long"), row("email", debezium.PlaceholderDefault)))
	full := orderTable()
	full.Full = true
	for _, c := range []struct {
		table *debezium.Table
		want  string
	}{{full, "email=long"}, {orderTable(), "email=(unchanged)"}} {
		e := decode(t, newDecoder(c.table, orderColumns...), orderKeyOf(t, 1234567), message)
		if got := show(e.Relation, e.New)[3]; got != c.want {
			t.Errorf("full %v: got %s, want %s", c.table.Full, got, c.want)
		}
	}
}

// A row whose key changed is deleted and inserted, and a tombstone stands between
// the two. It is of the table whose messages had such a key.
func TestATombstoneIsOfTheTableWithItsKey(t *testing.T) {
	for _, format := range []string{"Avro", "JSON"} {
		t.Run(format, func(t *testing.T) {
			key, other := orderKeyOf(t, 7), orderKeyOf(t, 8)
			inserted := encode(t, orderEnvelopeID, orderEnvelope, before("c", nil, row("id", int64(8))))
			if format == "JSON" {
				jsonKey := func(id string) []byte {
					return []byte(`{"schema":{"type":"struct","fields":[{"type":"int64","field":"id"}],"name":"shop.public.orders.Key"},"payload":{"id":` + id + `}}`)
				}
				key, other = jsonKey("7"), jsonKey("8")
				inserted = []byte(jsonMessage(`{"type":"int64","field":"id"},{"type":"string","field":"status"}`, `{"id":8,"status":"x"}`))
			}
			d := newDecoder(orderTable(), orderColumns...)
			if e := decode(t, d, key, nil); e.Kind != debezium.Tombstone || e.Relation != nil {
				t.Errorf("before any message of the table: %+v", e)
			}
			relation := decode(t, d, other, inserted).Relation
			for range 2 {
				e := decode(t, d, key, nil)
				if e.Kind != debezium.Tombstone || e.Relation != relation || e.Old.Kind != change.IdentityOnly || show(relation, e.Old)[0] != "id=7" || e.Source.Table != "orders" {
					t.Errorf("got %+v", e)
				}
			}
		})
	}
}

// A tombstone of a table without entries is told from one of which nobody knows
// whose it is.
func TestATombstoneOfAnotherTableNamesIt(t *testing.T) {
	d := newDecoder(orderTable(), orderColumns...)
	m := order()
	m["source"].(object)["table"] = "others"
	decode(t, d, orderKeyOf(t, 7), encode(t, orderEnvelopeID, orderEnvelope, m))
	if e := decode(t, d, orderKeyOf(t, 7), nil); e.Kind != debezium.Tombstone || e.Relation != nil || e.Source.Table != "others" {
		t.Errorf("got %+v", e)
	}
}

// A transform can give the keys of all tables one name. A tombstone is then of
// any of them.
func TestATombstoneOfSeveralTablesIsOfNone(t *testing.T) {
	options := testOptions(map[uint32]string{orderEnvelopeID: orderEnvelope, orderKeyID: orderKey}, orderTable(), orderColumns...)
	options.Wanted = func(_, _ string) bool { return true }
	d := debezium.NewDecoder(options)
	for _, table := range []string{"orders", "archived_orders"} {
		m := order()
		m["source"].(object)["table"] = table
		e := decode(t, d, orderKeyOf(t, 7), encode(t, orderEnvelopeID, orderEnvelope, m))
		if e.Source.Table != table || e.Relation.Name != table {
			t.Errorf("got %+v, want table %s", e.Relation, table)
		}
	}
	if e := decode(t, d, orderKeyOf(t, 7), nil); e.Kind != debezium.Tombstone || e.Relation != nil {
		t.Errorf("got %+v", e)
	}
}

// One schema serves several tables where a transform routes them together; each
// message says whose it is.
func TestOneSchemaServesSeveralTables(t *testing.T) {
	d := newDecoder(orderTable(), orderColumns...)
	messages := map[string][]byte{}
	for _, table := range []string{"orders", "others"} {
		m := order()
		m["source"].(object)["table"] = table
		messages[table] = encode(t, orderEnvelopeID, orderEnvelope, m)
	}
	for range 2 {
		if e := decode(t, d, nil, messages["orders"]); e.Relation == nil || show(e.Relation, e.New)[2] != "status=shipped" {
			t.Errorf("got %+v", e)
		}
		// No entry is over this one.
		if e := decode(t, d, nil, messages["others"]); e.Relation != nil || e.Kind != debezium.Row || e.Source.Table != "others" || e.New.Values != nil {
			t.Errorf("got %+v", e)
		}
	}
}

// The rows of a partition are those of its table, with the replica identity of the
// partition; and which table that is may not be known.
func TestAPartitionIsOfItsTable(t *testing.T) {
	away := errors.New("no answer")
	full := orderTable()
	full.Full, full.Key = true, nil
	options := testOptions(nil, nil, orderColumns...)
	options.Table = func(_, table string) *debezium.Table {
		if table == "orders_2026" {
			return full
		}
		return orderTable()
	}
	answer := away
	options.Root = func(_ context.Context, schema, table string) (debezium.TableName, bool, error) {
		return debezium.TableName{Schema: schema, Table: "orders"}, table == "orders_2026", answer
	}
	message := func(table string) []byte {
		return bytes.Replace([]byte(plainMessage("c", `{"id":1,"status":"x"}`)), []byte(`"table":"orders"`), []byte(`"table":"`+table+`"`), 1)
	}
	d := debezium.NewDecoder(options)
	var e debezium.Event
	if err := d.Decode(t.Context(), []byte(`{"id":1}`), message("orders_2026"), &e); !errors.Is(err, away) {
		t.Fatalf("got %v, want %v", err, away)
	}
	answer = nil
	if e := decode(t, d, []byte(`{"id":1}`), message("orders_2026")); e.Relation == nil || e.Relation.Name != "orders" || e.Source.Table != "orders_2026" || e.Relation.Identity != change.IdentityFull {
		t.Errorf("got %+v of %+v", e.Relation, e.Source)
	}
	if e := decode(t, d, []byte(`{"id":1}`), message("others")); e.Relation != nil || e.Source.Table != "others" {
		t.Errorf("got %+v of %+v", e.Relation, e.Source)
	}
	if e := decode(t, d, []byte(`{"id":1}`), message("orders")); e.Relation == nil || e.Relation.Identity != change.IdentityDefault {
		t.Errorf("got %+v", e.Relation)
	}
}

// What a planner compiled for a relation is found by its number: the number must
// last while nothing of the relation changes, whatever schema its rows have.
func TestARelationKeepsItsNumberWhileItIsTheSame(t *testing.T) {
	const later = 20
	table := orderTable()
	options := testOptions(map[uint32]string{orderEnvelopeID: orderEnvelope, orderKeyID: orderKey, later: strings.ReplaceAll(orderEnvelope, "Envelope", "Envelope2")}, nil, orderColumns...)
	asked, compiled := 0, 0
	options.Table = func(_, _ string) *debezium.Table { asked++; return table }
	compile := options.Compile
	options.Compile = func(r *change.Relation) []int { compiled++; return compile(r) }
	d := debezium.NewDecoder(options)
	key, message := orderKeyOf(t, 1234567), encode(t, orderEnvelopeID, orderEnvelope, order())
	first := decode(t, d, key, message).Relation
	if first.Number != 1 {
		t.Errorf("number %d", first.Number)
	}
	again := append([]byte{0, 0, 0, 0, later}, message[5:]...)
	if got := decode(t, d, key, again).Relation; got != first {
		t.Errorf("another schema: %+v", got)
	}
	d.Forget()
	if got := decode(t, d, key, message).Relation; got != first || asked != 3 {
		t.Errorf("the same catalog: %+v, asked %d times", got, asked)
	}
	table = orderTable()
	table.Shape.Columns[2].TypeOID, table.Shape.Columns[2].Type = 1043, base(1043)
	if got := decode(t, d, key, message).Relation; got != first {
		t.Errorf("a catalog that nobody looked at: %+v", got)
	}
	d.Forget()
	changed := decode(t, d, key, message).Relation
	if changed.Number != 2 || changed.Columns[2].TypeOID != 1043 || compiled != 2 {
		t.Errorf("another type: %+v, compiled %d times", changed, compiled)
	}
	if got := decode(t, d, nil, message).Relation; got.Number != 3 || got.Columns[0].Identifies {
		t.Errorf("without a key: %+v", got)
	}
}

// Rows of JSON without a schema may have other members each time. What is kept of
// them has a limit, beyond which a record is no less than a sweep.
func TestThereIsALimitToSetsOfColumns(t *testing.T) {
	d := newDecoder(orderTable(), orderColumns...)
	var e debezium.Event
	for n := range 1 << 16 {
		err := d.Decode(t.Context(), []byte(`{"id":1}`), []byte(plainMessage("c", fmt.Sprintf(`{"id":1,"c%d":1}`, n))), &e)
		if undecodable, ok := errors.AsType[*debezium.Undecodable](err); ok {
			if n < 1<<12 || undecodable.Source.Table != "orders" {
				t.Errorf("row %d: %v of %+v", n, err, undecodable.Source)
			}
			if e := decode(t, d, []byte(`{"id":1}`), nil); e.Source.Table != "" {
				t.Errorf("a tombstone is of %+v", e.Source)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Error("there is none")
}

// What cannot be read says why, and whose it is if that is known.
func TestWhatIsNotDebeziumsEnvelopeSaysWhy(t *testing.T) {
	const unwrappedID, registeredID, brokenID = 30, 31, 32
	value := `{"type":"record","name":"Value","namespace":"shop.public.orders","fields":` + orderFields + `,"connect.name":"shop.public.orders.Value"}`
	schemas := map[uint32]string{orderEnvelopeID: orderEnvelope, unwrappedID: value, registeredID: `"string"`, brokenID: `{"type":"record","name":"R","fields":[{"name":"x","type":"nonsense"}]}`}
	orders := encode(t, orderEnvelopeID, orderEnvelope, order())
	op := order()
	op["op"] = "z"
	rowless := order()
	rowless["after"] = nil
	for name, c := range map[string]struct {
		message []byte
		want    string
		table   string
	}{
		"text":      {message: []byte("Struct{id=1}"), want: "neither Avro"},
		"unwrapped": {message: encode(t, unwrappedID, value, row()), want: "ExtractNewRecordState"},
		"another":   {message: encode(t, registeredID, `"string"`, "x"), want: "not from Debezium"},
		"schema":    {message: []byte{0, 0, 0, 0, brokenID, 0}, want: `the type "nonsense"`},
		"id":        {message: []byte{0, 0, 0}, want: "cut short"},
		"cut":       {message: orders[:len(orders)-1], want: "cut short", table: "orders"},
		"behind":    {message: append(slices.Clone(orders), 0), want: "behind its end", table: "orders"},
		"op":        {message: encode(t, orderEnvelopeID, orderEnvelope, op), want: "op is not known", table: "orders"},
		"row":       {message: encode(t, orderEnvelopeID, orderEnvelope, rowless), want: "lacks the row", table: "orders"},

		"JSON":           {message: []byte(`{"before":`), want: "JSON is malformed"},
		"JSON unwrapped": {message: []byte(`{"id":1,"status":"END"}`), want: "ExtractNewRecordState"},
		"JSON flattened": {message: []byte(`{"id":1,"op":"c"}`), want: "no before, after"},
		"JSON op":        {message: []byte(plainMessage("z", `{"id":1}`)), want: "op is not known", table: "orders"},
		"JSON row":       {message: []byte(plainMessage("u", `null`)), want: "lacks the row", table: "orders"},
		"JSON table":     {message: []byte(strings.Replace(plainMessage("c", `{"id":1}`), `"schema":"public",`, ``, 1)), want: "names no table", table: "orders"},
		"JSON schema":    {message: []byte(`{"schema":{"type":"struct","fields":[{"type":"int64","field":"id"}],"name":"shop.public.orders.Value"},"payload":{"id":1}}`), want: "ExtractNewRecordState"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDecoderOf(schemas, orderTable(), orderColumns...)
			var e debezium.Event
			var undecodable *debezium.Undecodable
			if err := d.Decode(t.Context(), nil, c.message, &e); !errors.As(err, &undecodable) || !strings.Contains(undecodable.Reason, c.want) || undecodable.Source.Table != c.table {
				t.Errorf("got %v of table %q, want %q of %q", err, undecodable.Source.Table, c.want, c.table)
			}
		})
	}
}

// A registry that does not answer is no fault of the message, and is asked
// again.
func TestAnUnknownSchemaIsAskedForAgain(t *testing.T) {
	away := errors.New("no answer")
	options := testOptions(nil, orderTable(), orderColumns...)
	asked := 0
	options.Schema = func(context.Context, uint32) (string, error) {
		if asked++; asked == 1 {
			return "", away
		}
		return orderEnvelope, nil
	}
	d := debezium.NewDecoder(options)
	message := encode(t, orderEnvelopeID, orderEnvelope, order())
	var e debezium.Event
	var unknown *debezium.UnknownSchema
	if err := d.Decode(t.Context(), nil, message, &e); !errors.As(err, &unknown) || unknown.ID != orderEnvelopeID || !errors.Is(err, away) {
		t.Errorf("got %v", err)
	}
	for range 3 {
		decode(t, d, nil, message)
	}
	if asked != 2 {
		t.Errorf("asked %d times", asked)
	}
}

// Messages that change no row are not errors.
func TestThereIsNothingToApplyInSomeMessages(t *testing.T) {
	const heartbeatID, messageID = 40, 41
	heartbeat := `{"type":"record","name":"Heartbeat","namespace":"io.debezium.connector.common","fields":[{"name":"ts_ms","type":"long"}],"connect.name":"io.debezium.connector.common.Heartbeat"}`
	logical := `{"type":"record","name":"MessageValue","namespace":"io.debezium.connector.postgresql","fields":[{"name":"op","type":"string"},{"name":"source","type":` + sourceType + `},{"name":"message","type":{"type":"record","name":"Message","fields":[{"name":"prefix","type":"string"}]}}]}`
	d := newDecoderOf(map[uint32]string{heartbeatID: heartbeat, messageID: logical}, orderTable())
	for name, message := range map[string][]byte{
		"heartbeat":        encode(t, heartbeatID, heartbeat, object{"ts_ms": int64(1)}),
		"logical message":  encode(t, messageID, logical, object{"op": "m", "source": order()["source"], "message": object{"prefix": "x"}}),
		"JSON heartbeat":   []byte(`{"ts_ms":1763800000123}`),
		"JSON transaction": []byte(`{"status":"BEGIN","id":"771:24023192","ts_ms":1763800000123,"event_count":null,"data_collections":null}`),
		"JSON message":     []byte(`{"op":"m","ts_ms":1,"source":{"schema":"","table":"","lsn":5},"message":{"prefix":"x"}}`),
		"JSON with schema": []byte(`{"schema":{"type":"struct","fields":[{"type":"int64","field":"ts_ms"}],"name":"io.debezium.connector.common.Heartbeat"},"payload":{"ts_ms":1}}`),
	} {
		if e := decode(t, d, nil, message); e.Kind != debezium.Other {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// A TRUNCATE names its table and has no row.
func TestATruncateNamesItsTable(t *testing.T) {
	avro, plain := newDecoder(orderTable(), orderColumns...), newDecoderOf(nil, orderTable(), orderColumns...)
	m := before("t", nil, nil)
	if e := decode(t, avro, nil, encode(t, orderEnvelopeID, orderEnvelope, m)); e.Kind != debezium.Truncate || e.Relation == nil || e.Relation.Name != "orders" {
		t.Errorf("Avro: %+v", e)
	}
	relation := decode(t, plain, nil, []byte(plainMessage("c", `{"id":1,"status":"x"}`))).Relation
	if e := decode(t, plain, nil, []byte(plainMessage("t", `null`))); e.Kind != debezium.Truncate || e.Relation != relation {
		t.Errorf("JSON: %+v", e)
	}
	if e := decode(t, newDecoderOf(nil, orderTable(), orderColumns...), nil, []byte(plainMessage("t", `null`))); e.Kind != debezium.Truncate || e.Relation == nil {
		t.Errorf("JSON, before any row: %+v", e)
	}
}

// A snapshot's rows say so, and have no transaction.
func TestASnapshotSaysSo(t *testing.T) {
	for text, want := range map[string]debezium.Snapshot{
		"false": debezium.None, "true": debezium.Initial, "first": debezium.Initial, "last_in_data_collection": debezium.Initial, "incremental": debezium.Incremental,
	} {
		m := order()
		source := m["source"].(object)
		source["snapshot"], source["txId"], source["sequence"], source["ts_us"], m["op"] = text, nil, `[null,"24023192"]`, nil, "r"
		e := decode(t, newDecoder(orderTable(), orderColumns...), nil, encode(t, orderEnvelopeID, orderEnvelope, m))
		if e.Snapshot != want || e.Op != 'r' || e.XID != 0 || e.Sequence != [2]uint64{0, 24023192} || e.CommittedAt != 1763800000123000 {
			t.Errorf("%s: %+v", text, e)
		}
	}
}

// JSON is read as Avro is, with a schema and without.
func TestAnUpdateIsReadFromJSON(t *testing.T) {
	row := `{"id":1234567,"customer_id":99887,"status":"shipped","email":"someone\u002elonger@example.com"}`
	fields := `{"type":"int64","field":"id"},{"type":"int64","field":"customer_id"},{"type":"string","field":"status"},{"type":"string","optional":true,"field":"email"}`
	for name, message := range map[string]string{
		"schema": jsonMessage(fields, row), "plain": plainMessage("c", row), "null schema": `{"schema":null,"payload":` + plainMessage("c", row) + `}`,
		"spaces": strings.ReplaceAll(strings.ReplaceAll(plainMessage("c", row), ":", " : "), ",\"", " ,\n\t\""),
	} {
		d := newDecoderOf(nil, orderTable(), orderColumns...)
		for range 2 {
			e := decode(t, d, []byte(`{"id":1234567}`), []byte(message))
			if diff := cmp.Diff([]string{"id=1234567", "customer_id=99887", "status=shipped", "email=someone.longer@example.com"}, show(e.Relation, e.New)); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
			want := debezium.Source{Connector: "shop", Database: "shopdb", Schema: "public", Table: "orders"}
			if e.Source != want || e.LSN != 24023192 || e.XID != 771 || e.CommittedAt != 1763800000123456 || e.Sequence[1] != 24023192 || !e.Relation.Columns[0].Identifies {
				t.Errorf("%s: %+v", name, e)
			}
		}
	}
}

// Members in another order, or of another version of the table, are found by
// their names.
func TestMembersOfARowAreFoundByTheirNames(t *testing.T) {
	d := newDecoderOf(nil, orderTable(), orderColumns...)
	for _, c := range []struct{ row, want string }{
		{`{"id":1,"customer_id":2,"status":"a","email":null}`, "id=1 customer_id=2 status=a email=(null)"},
		{`{"email":"e","status":"a","customer_id":2,"id":1}`, "email=e status=a customer_id=2 id=1"},
		{`{"id":1,"status":"a"}`, "id=1 status=a"},
		{`{"id":1,"more":[{"a":"]}"}],"status":"a"}`, "id=1 status=a"},
	} {
		e := decode(t, d, nil, []byte(plainMessage("c", c.row)))
		if got := strings.Join(show(e.Relation, e.New), " "); got != c.want {
			t.Errorf("%s: got %s, want %s", c.row, got, c.want)
		}
	}
	// With a schema the members are the schema's.
	fields := `{"type":"int64","field":"id"},{"type":"string","field":"status"}`
	e := decode(t, d, nil, []byte(jsonMessage(fields, `{"status":"a"}`)))
	if got := strings.Join(show(e.Relation, e.New), " "); got != "id=(missing) status=a" {
		t.Errorf("got %s", got)
	}
}

// The names of columns are adjusted to what Avro allows. A column is found if no
// other can be meant.
func TestAnAdjustedNameIsOneColumnOrNone(t *testing.T) {
	for _, c := range []struct {
		fact    string
		columns []string
		fields  []string
		want    []string
	}{
		{"avro", []string{"weird-col", "Ünï", "1st", "plain_col"}, []string{"weird_col", "_n_", "_1st", "plain_col"}, []string{"weird-col", "Ünï", "1st", "plain_col"}},
		{"avro_unicode", []string{"c_int", "ü", "1st", "a\nb", "😀"}, []string{"c_u005fint", "_u00fc", "_u0031st", "a_u00ab", "_ud83d_ude00"}, []string{"c_int", "ü", "1st", "a\nb", "😀"}},
		{"both are there", []string{"a-b", "a_b"}, []string{"a-b", "a_b"}, []string{"a-b", "a_b"}},
		{"one of two", []string{"a-b", "a_b"}, []string{"a_b"}, []string{"?"}},
		{"one of two that look alike", []string{"a-b", "a+b"}, []string{"a_b"}, []string{"?"}},
		{"a column that is gone", []string{"a"}, []string{"a", "b"}, []string{"a", "?"}},
		{"two fields for one column", []string{"a-b"}, []string{"a_b", "a_u002db"}, []string{"?", "?"}},
	} {
		t.Run(c.fact, func(t *testing.T) {
			table := &debezium.Table{}
			for _, name := range c.columns {
				table.Shape.Columns = append(table.Shape.Columns, value.Column{Name: name, TypeOID: 25, TypeMod: -1, Type: base(25)})
			}
			options := testOptions(nil, table)
			options.Compile = func(r *change.Relation) []int {
				all := make([]int, len(r.Columns))
				for i := range all {
					all[i] = i
				}
				return all
			}
			var fields, members, want []string
			for i, name := range c.fields {
				fields = append(fields, `{"type":"string","field":"`+name+`"}`)
				members = append(members, `"`+name+`":"x"`)
				if c.want[i] == "?" {
					want = append(want, name+"=(missing)")
				} else {
					want = append(want, c.want[i]+"=x")
				}
			}
			e := decode(t, debezium.NewDecoder(options), nil, []byte(jsonMessage(strings.Join(fields, ","), "{"+strings.Join(members, ",")+"}")))
			if diff := cmp.Diff(want, show(e.Relation, e.New)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The source's own name of a column says which it is without doubt.
func TestTheSourcesNameOfAColumnIsItsName(t *testing.T) {
	table := &debezium.Table{Shape: value.Shape{Columns: []value.Column{{Name: "a-b", TypeOID: 25, Type: base(25)}, {Name: "a+b", TypeOID: 25, Type: base(25)}}}}
	options := testOptions(nil, table, "a-b", "a+b")
	e := decode(t, debezium.NewDecoder(options), nil, []byte(jsonMessage(`{"type":"string","parameters":{"__debezium.source.column.name":"a+b"},"field":"a_b"}`, `{"a_b":"x"}`)))
	if diff := cmp.Diff([]string{"a+b=x"}, show(e.Relation, e.New)); diff != "" {
		t.Error(diff)
	}
}

// A generated column is null in a snapshot where its value is, and not there in
// the log: it is not known.
func TestAGeneratedColumnIsNotKnown(t *testing.T) {
	table := orderTable()
	table.Shape.Columns[2].Generated = true
	for _, status := range []string{`"shipped"`, `null`} {
		e := decode(t, newDecoderOf(nil, table, orderColumns...), nil, []byte(plainMessage("r", `{"id":1,"status":`+status+`}`)))
		if got := show(e.Relation, e.New)[1]; got != "status=(missing)" {
			t.Errorf("%s: got %s", status, got)
		}
	}
}

// Without a database a type is known if the message names it, or only one type
// is written so. Its text may be known where its JSON is not: a key can be made
// of it, a value cannot.
func TestWithoutADatabaseOnlyTheCertainTypesAreKnown(t *testing.T) {
	for _, c := range []struct {
		field, json string
		want        string
		oid         uint32
	}{
		{`"type":"int32"`, `5`, "5", 23},
		{`"type":"int64"`, `5`, "5", 0},
		{`"type":"int64","parameters":{"__debezium.source.column.type":"INT8"}`, `5`, "5", 20},
		{`"type":"int64","parameters":{"__debezium.source.column.type":"OID"}`, `5`, "5", 26},
		{`"type":"string"`, `"x"`, "x", 0},
		{`"type":"string"`, `"NAN"`, "(missing)", 0},
		{`"type":"string","parameters":{"__debezium.source.column.type":"NUMERIC"}`, `"NAN"`, "NaN", 1700},
		{`"type":"string","parameters":{"__debezium.source.column.type":"TEXT"}`, `"NAN"`, "NAN", 25},
		{`"type":"string","parameters":{"__debezium.source.column.type":"MONEY"}`, `"1.00"`, "(missing)", 0},
		{`"type":"string","name":"io.debezium.data.Enum","parameters":{"__debezium.source.column.type":"MOOD"}`, `"sad"`, "sad", 0},
		{`"type":"string","name":"io.debezium.data.Uuid"`, `"b68a35a7-17ad-35b3-af2a-ae46edb4545a"`, "b68a35a7-17ad-35b3-af2a-ae46edb4545a", 2950},
		{`"type":"string","name":"io.debezium.data.Json"`, `"{}"`, "(missing)", 0}, // or an hstore
		{`"type":"boolean"`, `true`, "(missing)", 0},                               // or a bit
		{`"type":"boolean","parameters":{"__debezium.source.column.type":"BOOL"}`, `true`, "t", 16},
		{`"type":"double"`, `1.5`, "(missing)", 0}, // or a numeric
		{`"type":"float"`, `1.5`, "1.5", 700},
		{`"type":"bytes"`, `"AA=="`, "(missing)", 0}, // or of an unknown type
		{`"type":"int32","name":"io.debezium.time.Date"`, `19782`, "2024-02-29", 1082},
		// Milliseconds are only of types that have no more.
		{`"type":"int64","name":"io.debezium.time.Timestamp"`, `1709208000123`, "2024-02-29 12:00:00.123", 1114},
		{`"type":"int64","name":"io.debezium.time.Timestamp","parameters":{"__debezium.source.column.type":"TIMESTAMP"}`, `1709208000000`, "2024-02-29 12:00:00", 1114},
		{`"type":"int32","name":"io.debezium.time.Time","parameters":{"__debezium.source.column.type":"TIME"}`, `43200005`, "12:00:00.005", 1083},
		{`"type":"int64","name":"org.apache.kafka.connect.data.Timestamp","parameters":{"__debezium.source.column.type":"TIMESTAMP"}`, `1709208000123`, "(missing)", 1114},
		{`"type":"string","name":"io.debezium.time.ZonedTimestamp"`, `"2024-02-29T12:00:00Z"`, "2024-02-29 12:00:00+00", 1184},
		{`"type":"array","items":{"type":"int32"}`, `[1]`, "(missing)", 0},
		{`"type":"array","items":{"type":"int32"},"parameters":{"__debezium.source.column.type":"_INT4"}`, `[1]`, "{1}", 1007},
	} {
		options := testOptions(nil, nil, "c")
		options.Table = nil
		e := decode(t, debezium.NewDecoder(options), nil, []byte(jsonMessage(`{`+c.field+`,"field":"c"}`, `{"c":`+c.json+`}`)))
		if got := show(e.Relation, e.New)[0]; got != "c="+c.want || e.Relation.Columns[0].TypeOID != c.oid {
			t.Errorf("%s %s: got %s of type %d, want %s of %d", c.field, c.json, got, e.Relation.Columns[0].TypeOID, c.want, c.oid)
		}
	}
	// Without a schema either, nothing is.
	options := testOptions(nil, nil, "id")
	e := decode(t, debezium.NewDecoder(options), nil, []byte(plainMessage("c", `{"id":1}`)))
	if got := show(e.Relation, e.New)[0]; got != "id=(missing)" {
		t.Errorf("got %s", got)
	}
}

// A message is read without allocating once its schema is known.
func TestReadingAllocatesNothing(t *testing.T) {
	fields := `{"type":"int64","field":"id"},{"type":"int64","field":"customer_id"},{"type":"string","field":"status"},{"type":"string","optional":true,"field":"email"}`
	const jsonRow = `{"id":1234567,"customer_id":99887,"status":"shi\"pped","email":"someone.longer@example.com"}`
	for name, c := range map[string]struct{ key, message []byte }{
		"Avro":      {orderKeyOf(t, 1234567), encode(t, orderEnvelopeID, orderEnvelope, order())},
		"JSON":      {[]byte(`{"schema":{"type":"struct","fields":[{"type":"int64","field":"id"}]},"payload":{"id":1234567}}`), []byte(jsonMessage(fields, jsonRow))},
		"plain":     {[]byte(`{"id":1234567}`), []byte(plainMessage("c", jsonRow))},
		"every":     {nil, encode(t, 9, everything, every())},
		"tombstone": {orderKeyOf(t, 1234567), nil},
	} {
		schemas := map[uint32]string{orderEnvelopeID: orderEnvelope, orderKeyID: orderKey, 9: everything}
		d := newDecoderOf(schemas, orderTable(), orderColumns...)
		if name == "every" {
			// Without the float that takes a second look.
			d = newDecoderOf(schemas, everyTable(), slices.DeleteFunc(slices.Clone(everyColumn), func(s string) bool { return s == "f8" })...)
		}
		var e debezium.Event
		if err := d.Decode(t.Context(), c.key, c.message, &e); err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(100, func() {
			if err := d.Decode(t.Context(), c.key, c.message, &e); err != nil {
				t.Fatal(err)
			}
		}); n > 0 {
			t.Errorf("%s: %.0f allocations", name, n)
		}
	}
}
