package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
	twmb "github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/unstale/unstale/internal/admin"
	"github.com/unstale/unstale/internal/deadletter"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
	"github.com/unstale/unstale/internal/redissink"
	"github.com/unstale/unstale/internal/stack"
)

// A letterFixture is a fixture whose changes come over a topic that the test
// itself writes.
type letterFixture struct {
	*fixture
	kafka  *stack.Kafka
	client *kgo.Client
	topic  string
	lsn    uint64
}

func newLetterFixture(t *testing.T) *letterFixture {
	t.Helper()
	f := &letterFixture{fixture: newFixture(t, 15), lsn: 1 << 30}
	ctx := within(t, 3*time.Minute)
	f.kafka, f.topic = useKafka(t), f.slot+".public.products"
	var err error
	if f.client, err = kgo.NewClient(kgo.SeedBrokers(f.kafka.Brokers()), kgo.DefaultProduceTopic(f.topic)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.client.Close)
	if _, err := kadm.NewClient(f.client).CreateTopic(ctx, 1, 1, nil, f.topic); err != nil {
		t.Fatal(err)
	}
	f.exec("CREATE TABLE products (id int PRIMARY KEY, name text)")
	f.exec("INSERT INTO products SELECT i, 'product ' || i FROM generate_series(1, 9) i")
	return f
}

// useKafka starts only the broker of the shared servers, if nobody has.
func useKafka(t *testing.T) *stack.Kafka {
	t.Helper()
	sharedPipeline.mu.Lock()
	defer sharedPipeline.mu.Unlock()
	if sharedPipeline.kafka == nil {
		kafka, err := servers.Kafka(within(t, 3*time.Minute), stack.KafkaOptions{})
		if err != nil {
			t.Fatal(err)
		}
		sharedPipeline.kafka = kafka
	}
	return sharedPipeline.kafka
}

func (f *letterFixture) config(rateMax int) string {
	return fmt.Sprintf(`database: %s
redis: %s
source:
  kafka:
    brokers: [%q]
    group: %s
    topic_prefix: %s
    deadletter_max_rate: %d
entries:
  product: {key: 'product:{id}', table: products}
`, f.url, f.redis.URL(), f.kafka.Brokers(), f.slot, f.slot, rateMax)
}

// produce writes records, each with a key that is not JSON if its value is none.
func (f *letterFixture) produce(key, value string, headers ...kgo.RecordHeader) {
	f.t.Helper()
	record := &kgo.Record{Key: []byte(key), Value: []byte(value), Headers: headers}
	if err := f.client.ProduceSync(within(f.t, 30*time.Second), record).FirstErr(); err != nil {
		f.t.Fatal(err)
	}
}

// updated is what Debezium writes of an update of a product.
func (f *letterFixture) updated(id int) (key, value string) {
	f.lsn += 8
	now := time.Now().UnixMilli()
	source := fmt.Sprintf(`{"version":"3.6.0.Final","connector":"postgresql","name":%[1]q,"ts_ms":%[2]d,"snapshot":"false","db":%[1]q,"sequence":"[\"%[3]d\",\"%[3]d\"]","schema":"public","table":"products","txId":3,"lsn":%[3]d,"xmin":null}`, f.slot, now, f.lsn)
	row := fmt.Sprintf(`{"id":%d,"name":"product"}`, id)
	return fmt.Sprintf(`{"id":%d}`, id), fmt.Sprintf(`{"before":null,"after":%s,"source":%s,"transaction":null,"op":"u","ts_ms":%d}`, row, source, now)
}

// A letterView is what list and show print as JSON.
type letterView struct {
	Number    int64
	Error     string
	Table     string
	Entries   []string
	Topic     string
	Partition *int
	Offset    *int64
	Position  string
	Headers   []struct{ Name, Text, Hex string }
	Key       *struct{ Text, Hex string }
	Value     *struct{ Text, Hex string }
}

func lettersOf(t *testing.T, config string) (letters []letterView) {
	t.Helper()
	stdout, stderr, exit := unstaleCommand(t, "deadletter", "list", "--config", config, "--json")
	if exit != 0 {
		t.Fatalf("list: exit %d: %s", exit, stderr)
	}
	if err := json.Unmarshal([]byte(stdout), &letters); err != nil {
		t.Fatalf("%v in %s", err, stdout)
	}
	return letters
}

// wantLetters waits until there are so many.
func wantLetters(i *instance, n int) (letters []letterView) {
	i.t.Helper()
	i.eventually(fmt.Sprint(n, " letters"), func() bool {
		letters = lettersOf(i.t, i.config)
		return len(letters) == n
	})
	return letters
}

func wantCommand(t *testing.T, config string, exit int, wants []string, args ...string) {
	t.Helper()
	stdout, stderr, got := unstaleCommand(t, append([]string{"deadletter", "--config", config}, args...)...)
	if got != exit {
		t.Errorf("deadletter %v: exit %d, want %d\n%s%s", args, got, exit, stdout, stderr)
	}
	for _, want := range wants {
		if !strings.Contains(stdout+stderr, want) {
			t.Errorf("deadletter %v: want %q in\n%s%s", args, want, stdout, stderr)
		}
	}
}

// One record that nobody can read does not stop the others, and is not lost: a
// person finds it, whole, and what it could concern is dropped.
func TestARecordThatCannotBeReadBecomesADeadLetter(t *testing.T) {
	f := newLetterFixture(t)
	i := startInstance(t, f.config(10))
	i.waitReady()
	wantCommand(t, i.config, 0, []string{"no dead letters"})
	wantCommand(t, i.config, 0, []string{"no dead letters"}, "retry", "--all")

	f.cache("product:1", "product:2", "bystander")
	f.produce("\x00\xffpoison", "\x01\x02no message", kgo.RecordHeader{Key: "trace", Value: []byte("abc")})
	i.eventually("the entry is swept", func() bool { return !f.cached("product:1") && !f.cached("product:2") })
	letter := wantLetters(i, 1)[0]
	if letter.Topic != f.topic || *letter.Partition != 0 || *letter.Offset != 0 || letter.Table != "public.products" ||
		!cmp.Equal(letter.Entries, []string{"product"}) || !strings.Contains(letter.Error, "neither Avro") {
		t.Errorf("listed %+v", letter)
	}
	if !f.cached("bystander") {
		t.Error("a key of nobody is gone")
	}
	if n := i.metric(fmt.Sprintf(`unstale_deadletters_total{table="",topic=%q}`, f.topic)); n != 1 {
		t.Errorf("counted %v", n)
	}
	if n := i.said("kept as a dead letter"); n != 1 {
		t.Errorf("said %d times", n)
	}

	// The partition goes on.
	i.waitReady()
	f.cache("product:3", "product:4")
	f.produce(f.updated(3))
	i.eventually("the next change is applied", func() bool { return !f.cached("product:3") })
	if !f.cached("product:4") {
		t.Error("more than the key of the change is gone")
	}

	number := fmt.Sprint(letter.Number)
	wantCommand(t, i.config, 0, []string{f.topic + ", partition 0, offset 0", "it is neither Avro"}, "list")
	wantCommand(t, i.config, 0, []string{"error        undecodable message", "entries      product", "header       trace: abc", "key          00ff706f69736f6e (8 bytes, in hex)", "value        01026e6f206d657373616765 (12 bytes, in hex)"}, "show", number)
	wantCommand(t, i.config, 1, []string{"kept: undecodable message"}, "retry", number)
	wantCommand(t, i.config, 1, []string{"there is no dead letter 77"}, "show", "77")
	wantCommand(t, i.config, 2, []string{"--all"}, "drop")
	if len(lettersOf(t, i.config)) != 1 {
		t.Error("the letter that cannot be read is not there any more")
	}

	// A second start does not keep it again.
	i.stop()
	i.start()
	i.waitReady()
	f.cache("product:5")
	f.produce(f.updated(5))
	i.eventually("the next change is applied", func() bool { return !f.cached("product:5") })
	if letters := lettersOf(t, i.config); len(letters) != 1 || letters[0].Number != letter.Number {
		t.Errorf("after a restart: %+v", letters)
	}
	wantCommand(t, i.config, 0, []string{"removed"}, "drop", number)
	wantCommand(t, i.config, 0, []string{"no dead letters"}, "list")

	// What an older release could not read this one can: its key is dropped, beside
	// the running instance, and nothing else.
	f.cache("product:6", "product:7", "product:8")
	key, value := f.updated(6)
	f.keep(deadletter.Letter{Time: time.Now(), Reason: "too new", Record: &deadletter.Record{
		Topic: f.topic, Offset: 1000, Timestamp: time.Now(), Key: []byte(key), Value: []byte(value),
	}})
	wantCommand(t, i.config, 0, []string{"key          " + key, "value        " + value}, "show", fmt.Sprint(lettersOf(t, i.config)[0].Number))
	f.keep(deadletter.Letter{Time: time.Now(), Reason: "bad", Record: &deadletter.Record{Topic: f.topic, Offset: 1001, Timestamp: time.Now(), Value: []byte("{")}})
	// Of another day, when the table had another column.
	key, value = f.updated(8)
	f.keep(deadletter.Letter{Time: time.Now(), Reason: "too new", Record: &deadletter.Record{
		Topic: f.topic, Offset: 1002, Timestamp: time.Now(), Key: []byte(key), Value: []byte(strings.Replace(value, `"name":"product"`, `"extra":1,"name":"product"`, 1)),
	}})
	wantCommand(t, i.config, 1, []string{"dropped product:6; removed", "kept: undecodable message", "dropped product:8; removed"}, "retry", "--all")
	if f.cached("product:6") || !f.cached("product:7") || f.cached("product:8") {
		t.Errorf("product:6 is cached: %v, product:7: %v, product:8: %v", f.cached("product:6"), f.cached("product:7"), f.cached("product:8"))
	}
	if letters := lettersOf(t, i.config); len(letters) != 1 || letters[0].Error != "bad" {
		t.Errorf("after retry: %+v", letters)
	}
	wantCommand(t, i.config, 0, []string{"removed"}, "drop", "--all")
	i.stop()
}

// keep writes a letter as a running instance would.
func (f *letterFixture) keep(l deadletter.Letter) {
	f.t.Helper()
	topic := deadletter.NewTopic([]kgo.Opt{kgo.SeedBrokers(f.kafka.Brokers())}, f.slot+".deadletter")
	defer topic.Close()
	if err := topic.Append(within(f.t, 30*time.Second), &l); err != nil {
		f.t.Fatal(err)
	}
}

// The letter is written before the record is passed over, so a crash in between
// writes it again: that is one letter all the same, and what the record could
// concern is dropped.
func TestACrashBehindALetterLeavesOne(t *testing.T) {
	f := newLetterFixture(t)
	p := newProxy(t, f.redis.Addr())
	i := startInstance(t, strings.Replace(f.config(10), f.redis.Addr(), p.addr(), 1))
	i.waitReady()
	f.cache("product:1")
	p.swallow() // Redis cannot be told that the record is passed over
	f.produce("1", "poison")
	first := wantLetters(i, 1)[0]
	i.kill()
	if !f.cached("product:1") {
		t.Fatal("the sweep was there before the crash")
	}
	p.heal()
	i.start()
	i.eventually("the entry is swept", func() bool { return !f.cached("product:1") })
	i.waitReady()
	if again := wantLetters(i, 1)[0]; *again.Offset != *first.Offset || again.Number == first.Number {
		t.Errorf("was %+v, is %+v: want it written again", first, again)
	}
	i.stop()
}

const productKey = `{"type":"record","name":"Key","namespace":"cdc.public.products","fields":[{"name":"id","type":"int"}]}`

const productEnvelope = `{"type":"record","name":"Envelope","namespace":"cdc.public.products","fields":[
	{"name":"before","type":["null",{"type":"record","name":"Value","fields":[{"name":"id","type":"int"},{"name":"name","type":["null","string"],"default":null}]}],"default":null},
	{"name":"after","type":["null","Value"],"default":null},
	{"name":"source","type":{"type":"record","name":"Source","namespace":"io.debezium.connector.postgresql","fields":[
		{"name":"version","type":"string"},{"name":"connector","type":"string"},{"name":"name","type":"string"},{"name":"ts_ms","type":"long"},
		{"name":"snapshot","type":["null","string"],"default":null},{"name":"db","type":"string"},{"name":"sequence","type":["null","string"],"default":null},
		{"name":"schema","type":"string"},{"name":"table","type":"string"},{"name":"txId","type":["null","long"],"default":null},{"name":"lsn","type":["null","long"],"default":null}]}},
	{"name":"op","type":"string"},{"name":"ts_ms","type":["null","long"],"default":null}]}`

// A registry that had lost a schema has it again: the letters that nobody could
// read are read, and shown as what they say.
func TestALetterIsReadWhenTheRegistryHasItsSchema(t *testing.T) {
	f := newLetterFixture(t)
	var known atomic.Bool
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/vnd.schemaregistry.v1+json")
		text := map[string]string{"/schemas/ids/1": productKey, "/schemas/ids/2": productEnvelope}[r.URL.Path]
		if text == "" || !known.Load() {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"error_code":40403,"message":"Schema not found"}`)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"schema": text})
	}))
	t.Cleanup(registry.Close)
	config, _ := writeConfig(t, strings.Replace(f.config(10), "    group:", "    schema_registry: "+registry.URL+"\n    group:", 1))

	encode := func(id byte, schema string, v any) []byte {
		message, err := twmb.MustParse(schema).AppendEncode([]byte{0, 0, 0, 0, id}, v)
		if err != nil {
			t.Fatal(err)
		}
		return message
	}
	key := encode(1, productKey, map[string]any{"id": int32(7)})
	value := encode(2, productEnvelope, map[string]any{
		"before": map[string]any{"id": int32(7), "name": "old"}, "after": nil, "op": "d", "ts_ms": nil,
		"source": map[string]any{"version": "3.6.0.Final", "connector": "postgresql", "name": f.slot, "ts_ms": int64(1763800000123), "snapshot": "false", "db": f.slot,
			"sequence": `["8","16"]`, "schema": "public", "table": "products", "txId": int64(7), "lsn": int64(16)},
	})
	f.keep(deadletter.Letter{Time: time.Now(), Reason: "schema 2", Record: &deadletter.Record{Topic: f.topic, Timestamp: time.Now(), Key: key, Value: value}})
	if err := f.rdb.MSet(within(t, 10*time.Second), "product:7", "old", "product:8", "other").Err(); err != nil {
		t.Fatal(err)
	}
	wantCommand(t, config, 0, []string{"key          000000000", "in hex"}, "show", "0")
	wantCommand(t, config, 1, []string{"0  kept: schema 2: ", "Schema not found"}, "retry", "0")
	known.Store(true)
	wantCommand(t, config, 0, []string{`key          {"id":7} (Avro, schema 1)`, `value        {"before":{"id":7,"name":"old"},"after":null,`}, "show", "0")
	wantCommand(t, config, 0, []string{"0  dropped product:7; removed"}, "retry", "0")
	if f.cached("product:7") || !f.cached("product:8") {
		t.Errorf("product:7 is cached: %v, product:8: %v", f.cached("product:7"), f.cached("product:8"))
	}
	if letters := lettersOf(t, config); len(letters) != 0 {
		t.Errorf("letters %+v", letters)
	}
}

// Debezium's publication names the partitions of a table, unless somebody says
// otherwise. Their topics are read, and their changes are those of the table's entry;
// a partition that is made later is found.
func TestTheChangesOfPartitionsAreThoseOfTheirTable(t *testing.T) {
	f := newLetterFixture(t)
	f.exec("CREATE TABLE orders (id int PRIMARY KEY, name text) PARTITION BY RANGE (id)")
	f.exec("CREATE TABLE orders_1 PARTITION OF orders FOR VALUES FROM (0) TO (10)")
	partition := func(table string, id int) {
		t.Helper()
		key, value := f.updated(id)
		record := &kgo.Record{Topic: f.slot + ".public." + table, Key: []byte(key), Value: []byte(strings.Replace(value, `"table":"products"`, `"table":"`+table+`"`, 1))}
		if err := f.client.ProduceSync(within(t, 30*time.Second), record).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	topic := func(table string) {
		t.Helper()
		if _, err := kadm.NewClient(f.client).CreateTopic(within(t, 30*time.Second), 1, 1, nil, f.slot+".public."+table); err != nil {
			t.Fatal(err)
		}
	}
	topic("orders_1")
	i := startInstance(t, f.config(10)+"  order: {key: 'order:{id}', table: orders}\n")
	i.waitReady()
	if err := f.rdb.MSet(within(t, 10*time.Second), "order:1", "old", "order:2", "old").Err(); err != nil {
		t.Fatal(err)
	}
	partition("orders_1", 1)
	i.eventually("order:1 is dropped", func() bool { return !f.cached("order:1") })
	if !f.cached("order:2") {
		t.Error("order:2 is dropped, too")
	}

	f.exec("CREATE TABLE orders_2 PARTITION OF orders FOR VALUES FROM (10) TO (20)")
	topic("orders_2")
	i.waitStatus("the topic is read", func(s *admin.Status) bool { return len(s.Streams) == 3 })
	i.waitReady()
	if err := f.rdb.MSet(within(t, 10*time.Second), "order:1", "old", "order:11", "old").Err(); err != nil {
		t.Fatal(err)
	}
	partition("orders_2", 11)
	i.eventually("order:11 is dropped", func() bool { return !f.cached("order:11") })
	if !f.cached("order:1") {
		t.Error("order:1 is dropped, too")
	}
	i.stop()
}

// A topic of which nothing can be read must not be copied record by record: it
// holds, says so once, and goes on when a person has decided.
func TestTooManyDeadLettersHoldThePartition(t *testing.T) {
	f := newLetterFixture(t)
	for n := range 6 {
		f.produce(fmt.Sprint(n), "poison")
	}
	i := startInstance(t, f.config(3))
	i.waitStatus("it holds", func(s *admin.Status) bool {
		return strings.Contains(s.Holding["source"], "more than 3 dead letters in a minute")
	})
	if letters := lettersOf(t, i.config); len(letters) != 3 || *letters[2].Offset != 2 {
		t.Errorf("letters %+v", letters)
	}
	held := i.metric(`unstale_errors_total{server="source"}`)
	i.eventually("it has tried again", func() bool { return i.metric(`unstale_errors_total{server="source"}`) >= held+3 })
	if letters := lettersOf(t, i.config); len(letters) != 3 {
		t.Errorf("letters %+v", letters)
	}
	if n := i.said("holding a partition: nothing of it is lost"); n != 1 {
		t.Errorf("said %d times:\n%s", n, i.log)
	}
	if stdout, _, _ := unstaleCommand(t, "status", "--config", i.config); !strings.Contains(stdout, "source: ") || !strings.Contains(stdout, "deadletter_max_rate") {
		t.Errorf("status:\n%s", stdout)
	}
	i.stop()

	i = startInstance(t, f.config(10))
	i.waitReady()
	letters := wantLetters(i, 6)
	if *letters[5].Offset != 5 {
		t.Errorf("letters %+v", letters)
	}
	for _, text := range []string{"kept as a dead letter", "a change whose keys are unknown"} {
		if n := i.said(text); n != 1 {
			t.Errorf("%q is said %d times:\n%s", text, n, i.log)
		}
	}
	i.stop()
}

// The database's log is not kept, so the letters of its changes stand in Redis
// and have no bytes. No PostgreSQL sends a row that cannot be read: the letter is
// written as an instance writes it.
func TestDeadLettersOfTheLog(t *testing.T) {
	f := newFixture(t, 15)
	f.exec("CREATE TABLE products (id int PRIMARY KEY, name text)")
	i := startInstance(t, f.config("  product: {key: 'product:{id}', table: products}"))
	i.waitReady()
	wantCommand(t, i.config, 0, []string{"no dead letters"})
	status, err := i.status()
	if err != nil {
		t.Fatal(err)
	}
	stream := status.Streams[0].Name
	letters := deadletter.NewStream(f.rdb, stream)
	for n := range uint32(3) {
		l := deadletter.Letter{
			Time: time.Now(), Reason: "a row that\nis short", Table: "public.products", Entries: []string{"product"},
			Change: &deadletter.Change{Stream: stream, Position: "1/0/1986928", XID: 700 + n},
		}
		if err := letters.Append(within(t, 10*time.Second), &l); err != nil {
			t.Fatal(err)
		}
	}
	wantCommand(t, i.config, 0, []string{"     1  ", "public.products  a row that is short\n"})
	wantCommand(t, i.config, 0, []string{"number       2", "stream       " + stream, "position     1/0/1986928", "transaction  701", "entries      product"}, "show", "2")
	wantCommand(t, i.config, 1, []string{"     2  kept: the database's log is not kept"}, "retry", "2")
	wantCommand(t, i.config, 0, []string{"     2  removed"}, "drop", "2")
	wantCommand(t, i.config, 1, []string{"there is no dead letter 2"}, "drop", "2")

	// A sweep of every entry leaves them, and a full Redis takes one more.
	f.exec("TRUNCATE products")
	f.barrier()
	ctx := within(t, 30*time.Second)
	if err := f.rdb.ConfigSet(ctx, "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	if err := letters.Append(ctx, &deadletter.Letter{Time: time.Now(), Reason: "full", Change: &deadletter.Change{Stream: stream}}); err != nil {
		t.Errorf("into a full Redis: %v", err)
	}
	if err := f.rdb.ConfigSet(ctx, "maxmemory", "0").Err(); err != nil {
		t.Fatal(err)
	}
	var numbers []int64
	for _, l := range lettersOf(t, i.config) {
		numbers = append(numbers, l.Number)
	}
	if diff := cmp.Diff([]int64{1, 3, 4}, numbers); diff != "" {
		t.Errorf("letters (-want +got)\n%s", diff)
	}
	wantCommand(t, i.config, 0, []string{"removed"}, "drop", "--all")
	wantCommand(t, i.config, 0, []string{"no dead letters"}, "list")
	i.stop()
}

// What is dropped outside of a stream leaves, of a key that changes SET, the
// shield that a reader has left: an old change must still not be SET over what
// that reader has seen. A lease ends either way.
func TestKeysAreDroppedAsASweepDrops(t *testing.T) {
	r := sharedRedis(t)
	options, err := redis.ParseURL(r.URL())
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
	t.Cleanup(func() { _ = client.Close() })
	ctx := within(t, 30*time.Second)
	parse := func(text string) *guard.Template {
		template, err := guard.ParseTemplate(text)
		if err != nil {
			t.Fatal(err)
		}
		return template
	}
	entries := []plan.Entry{{Name: "plain", Key: parse("droppedplain:{id}")}, {Name: "kept", Key: parse("droppedkept:{id}"), OnChange: plan.Warm}}
	const shield = "s\x00\x00\x00\x00\x00\x00\x00\x09"
	batch := plan.NewBatch()
	for i, e := range entries {
		key := e.Key.Key("1")
		side, _ := guard.SideKey(key)
		if err := client.MSet(ctx, key, "value", side, shield+"lease").Err(); err != nil {
			t.Fatal(err)
		}
		batch.Add([]byte(key), plan.Forget, i, nil, 0)
	}
	if err := redissink.New(client, redissink.Options{Entries: entries}).Drop(ctx, batch); err != nil {
		t.Fatal(err)
	}
	got := client.MGet(ctx, "droppedplain:1", "{droppedplain:1}:l", "droppedkept:1", "{droppedkept:1}:l").Val()
	if diff := cmp.Diff([]any{nil, nil, nil, shield}, got); diff != "" {
		t.Errorf("left (-want +got)\n%s", diff)
	}
}
