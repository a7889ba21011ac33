package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/unstale/unstale/internal/stack"
)

// A pipeline is Kafka, a schema registry and Kafka Connect with Debezium.
type pipeline struct {
	kafka    *stack.Kafka
	registry *stack.Registry
	connect  *stack.Connect
	notes    *notes
}

// sharedPipeline is for the tests that break none of it.
var sharedPipeline struct {
	mu sync.Mutex
	pipeline
}

// A format is how Debezium writes keys and values.
type format int

const (
	avro format = iota
	jsonWithSchemas
	jsonPlain
)

func (f format) String() string { return [...]string{"Avro", "JSON with schemas", "JSON"}[f] }

// A topicFixture is a fixture whose changes come through Debezium and Kafka.
type topicFixture struct {
	*fixture
	pipeline
	format format
	tables string // table.include.list
	// followed are the tables of the entries, for follow.
	followed []string
	// told are settings of the connector over the usual ones.
	told map[string]string
	// seldom: Connect notes seldom what it has sent.
	seldom bool
	// losing: records are being lost, so what was committed may never be applied.
	losing atomic.Bool

	asked  sync.Once
	admins *kadm.Client
}

// newTopicFixture makes an empty database, whose connector is made by
// connectDebezium.
func newTopicFixture(t *testing.T, major int, format format) *topicFixture {
	t.Helper()
	return newTopicFixtureOn(t, sharedPostgres(t, major), startRedis(t, stack.RedisOptions{}), usePipeline(t), format)
}

func newTopicFixtureOn(t *testing.T, postgres *stack.Postgres, r *stack.Redis, p pipeline, format format) *topicFixture {
	t.Helper()
	return &topicFixture{fixture: newFixtureOn(t, postgres, r), pipeline: p, format: format, tables: "public\\..*"}
}

// usePipeline starts the shared servers, if nobody has.
func usePipeline(t *testing.T) pipeline {
	t.Helper()
	sharedPipeline.mu.Lock()
	defer sharedPipeline.mu.Unlock()
	ctx := within(t, 3*time.Minute)
	p := &sharedPipeline.pipeline
	var err error
	if p.kafka == nil {
		if p.kafka, err = servers.Kafka(ctx, stack.KafkaOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if p.registry == nil {
		if p.registry, err = servers.Registry(ctx, stack.RegistryOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if p.connect == nil {
		// What is sent is noted soon: follow waits for that.
		options := stack.ConnectOptions{Kafka: p.kafka, Registry: p.registry, Settings: map[string]string{"offset.flush.interval.ms": "100"}}
		if p.connect, err = servers.Connect(ctx, options); err != nil {
			t.Fatal(err)
		}
		check(t, p.watch())
	}
	return *p
}

// config is a configuration with these entries.
func (f *topicFixture) config(entries string) string {
	registry := ""
	if f.format == avro {
		registry = "\n    schema_registry: " + f.registry.CompatURL()
	}
	return fmt.Sprintf(`database: %s
redis: %s
source:
  kafka:
    brokers: [%q]
    group: %s
    topic_prefix: %s%s
entries:
%s`, f.url, f.redis.URL(), f.kafka.Brokers(), f.slot, f.slot, registry, entries)
}

// connector is what Debezium is told.
func (f *topicFixture) connector() map[string]string {
	database, err := pgx.ParseConfig(f.url)
	if err != nil {
		f.t.Fatal(err)
	}
	settings := map[string]string{
		"connector.class":                           "io.debezium.connector.postgresql.PostgresConnector",
		"database.hostname":                         database.Host,
		"database.port":                             fmt.Sprint(database.Port),
		"database.user":                             database.User,
		"database.dbname":                           database.Database,
		"topic.prefix":                              f.slot,
		"plugin.name":                               "pgoutput",
		"slot.name":                                 f.slot,
		"publication.name":                          f.slot,
		"publication.autocreate.mode":               "all_tables",
		"table.include.list":                        f.tables,
		"decimal.handling.mode":                     "string",
		"time.precision.mode":                       "adaptive_time_microseconds",
		"interval.handling.mode":                    "string",
		"hstore.handling.mode":                      "json",
		"skipped.operations":                        "none",
		"column.propagate.source.type":              ".*",
		"schema.name.adjustment.mode":               "avro",
		"field.name.adjustment.mode":                "avro",
		"topic.creation.default.partitions":         "3",
		"topic.creation.default.replication.factor": "1",
		"poll.interval.ms":                          "10",
		"extended.headers.enabled":                  "false",
		"slot.drop.on.stop":                         "true",
	}
	if f.format == avro {
		maps.Copy(settings, f.registry.AvroConverters())
	} else {
		maps.Copy(settings, stack.JSONConverters(f.format == jsonWithSchemas))
	}
	maps.Copy(settings, f.told)
	return settings
}

// connectDebezium creates the connector, and waits until its task runs.
func (f *topicFixture) connectDebezium() {
	f.t.Helper()
	f.exec(sentinels)
	f.rest(http.MethodPut, "/connectors/"+f.slot+"/config", f.connector(), nil)
	f.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_, _ = f.ask(ctx, http.MethodDelete, "/connectors/"+f.slot, nil)
	})
	f.eventually("the connector runs", func() bool { return f.taskState() == "RUNNING" })
}

func (f *topicFixture) taskState() string {
	state, trace := f.task()
	if state == "FAILED" {
		f.t.Fatalf("the connector has failed: %s", trace)
	}
	return state
}

// taskStateNow is taskState where a failure is what the test is about.
func (f *topicFixture) taskStateNow() string {
	state, _ := f.task()
	return state
}

func (f *topicFixture) task() (state, trace string) {
	var status struct {
		Tasks []struct{ State, Trace string }
	}
	text, err := f.ask(within(f.t, 10*time.Second), http.MethodGet, "/connectors/"+f.slot+"/status", nil)
	if err != nil || json.Unmarshal(text, &status) != nil || len(status.Tasks) == 0 {
		return "", ""
	}
	return status.Tasks[0].State, status.Tasks[0].Trace
}

func (f *topicFixture) rest(method, path string, body, reply any) {
	f.t.Helper()
	ctx := within(f.t, time.Minute)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	text, err := f.ask(ctx, method, path, body)
	// The worker is shared: a connector that another test makes or takes away.
	for err != nil && strings.Contains(err.Error(), "rebalance") && ctx.Err() == nil {
		<-tick.C
		text, err = f.ask(ctx, method, path, body)
	}
	if err != nil {
		f.t.Fatal(err)
	}
	if reply != nil {
		if err := json.Unmarshal(text, reply); err != nil {
			f.t.Fatalf("%s %s: %v in %s", method, path, err, text)
		}
	}
}

func (f *topicFixture) ask(ctx context.Context, method, path string, body any) ([]byte, error) {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, f.connect.URL()+path, content)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	reply, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	text, err := io.ReadAll(reply.Body)
	if err == nil && reply.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, reply.Status, text)
	}
	return text, err
}

// different returns the keys of a prefix that are not cached as the rows of products
// are, or are and have no row.
func (f *topicFixture) different(prefix string) map[string]string {
	f.t.Helper()
	ctx := within(f.t, 30*time.Second)
	wrong := map[string]string{}
	cached := f.rdb.Keys(ctx, prefix+":*").Val()
	for _, key := range cached {
		if !strings.Contains(key, "{") {
			wrong[key] = "no such row"
		}
	}
	rows, err := f.conn.Query(ctx, `SELECT id, row_to_json(p)::text FROM products p`)
	if err != nil {
		f.t.Fatal(err)
	}
	var id int
	var want string
	_, err = pgx.ForEachRow(rows, []any{&id, &want}, func() error {
		key := fmt.Sprintf("%s:%d", prefix, id)
		if delete(wrong, key); f.value(key) != want {
			wrong[key] = fmt.Sprintf("%s, want %s", f.value(key), want)
		}
		return nil
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return wrong
}

func (f *topicFixture) eventually(what string, done func() bool) {
	f.t.Helper()
	deadline := time.After(60 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-deadline:
			f.t.Fatalf("not after 60 s: %s", what)
		case <-tick.C:
		}
	}
}

// Rows that the connector's snapshot has read are warm, changes are set and
// dropped: the same bytes as from the log itself.
func TestChangesComeThroughDebeziumAndKafka(t *testing.T) {
	f := newTopicFixture(t, 15, avro)
	f.exec("CREATE TABLE products (id int PRIMARY KEY, name text, price numeric(10,2))")
	f.exec("INSERT INTO products SELECT i, 'product ' || i, i FROM generate_series(1, 20) i")
	f.connectDebezium()
	i := startInstance(t, f.config("  warm: {key: 'warm:{id}', table: products, on_change: warm}\n  dropped: {key: 'dropped:{id}', table: products}\n"))
	i.waitReady()
	i.eventually("what the snapshot has read is warm", func() bool { return len(f.different("warm")) == 0 })

	f.fetch("dropped:7", product, 7)
	f.exec("UPDATE products SET price = 77.70 WHERE id = 7")
	i.eventually("it is dropped", func() bool { return !f.cached("dropped:7") })
	i.eventually("it is set", func() bool { return f.value("warm:7") == `{"id":7,"name":"product 7","price":77.70}` })
	f.exec("UPDATE products SET id = 21 WHERE id = 1")
	f.exec("DELETE FROM products WHERE id = 2")
	f.exec("INSERT INTO products VALUES (22, NULL, NULL)")
	i.eventually("every row is cached, and no other", func() bool { return len(f.different("warm")) == 0 })
	i.stop()
}

// A URL without the name of a database leads to that of the user's name. Which it
// is, the database says: records of another one with the same table concern nobody.
func TestTheDatabaseSaysItselfWhichItIs(t *testing.T) {
	f := newLetterFixture(t)
	f.exec(fmt.Sprintf("CREATE ROLE %[1]s SUPERUSER LOGIN", f.slot))
	defer f.exec(fmt.Sprintf("DROP ROLE %s", f.slot))
	server, err := url.Parse(as(f.slot, f.url))
	check(t, err)
	server.Path = ""
	i := startInstance(t, strings.Replace(f.config(10), f.url, server.String(), 1))
	i.waitReady()
	f.cache("product:1")
	f.cache("product:2")
	key, value := f.updated(1)
	f.produce(key, strings.Replace(value, fmt.Sprintf(`"db":%q`, f.slot), `"db":"other"`, 1))
	f.produce(f.updated(2))
	i.eventually("ours is dropped", func() bool { return !f.cached("product:2") })
	if !f.cached("product:1") || i.said("records of another database are passed over") != 1 {
		t.Errorf("the record of another database has dropped a key, or was not said:\n%s", i.log)
	}
	i.stop()
}

// A change that comes alone is the last in its partition, and sets nothing: its
// transaction may go on. What was cached is there again all the same, before
// anybody asks; what nobody has cached stays away.
func TestAnUpdateThatComesAloneIsLoadedAgain(t *testing.T) {
	f := newTopicFixture(t, 15, avro)
	f.exec("CREATE TABLE products (id int PRIMARY KEY, name text, price numeric(10,2))")
	f.exec("INSERT INTO products SELECT i, 'product ' || i, i FROM generate_series(1, 20) i")
	f.connectDebezium()
	i := startInstance(t, f.config("  update: {key: 'update:{id}', table: products, on_change: update}\n  hash: {key: 'hash:{id}', table: products, on_change: update, format: hash}\n  dropped: {key: 'dropped:{id}', table: products}\n"))
	i.waitReady()
	const loaded, loadedHash = `unstale_loads_total{entry="update",result="stored"}`, `unstale_loads_total{entry="hash",result="stored"}`
	f.fetchKept("update:7", product, 7)
	f.rdb.HSet(t.Context(), "hash:7", "id", 7)
	const changes = 10
	for n := range changes {
		f.exec("UPDATE products SET price = $1 WHERE id = 7", 100+n)
		i.eventually("it is loaded again", func() bool {
			return f.value("update:7") == fmt.Sprintf(`{"id":7,"name":"product 7","price":%d.00}`, 100+n) &&
				f.rdb.HGet(t.Context(), "hash:7", "price").Val() == fmt.Sprintf("%d.00", 100+n)
		})
	}
	before, beforeHash := i.metric(loaded), i.metric(loadedHash)
	if before < changes || beforeHash < changes {
		t.Errorf("%v and %v loads, want one for each of %d changes", before, beforeHash, changes)
	}
	for range changes {
		f.fetch("dropped:8", product, 8)
		f.exec("UPDATE products SET price = price + 1 WHERE id = 8")
		i.eventually("the change was applied", func() bool { return !f.cached("dropped:8") })
	}
	i.eventually("nothing is left to load", func() bool { return i.metric("unstale_loads_pending") == 0 })
	if f.cached("update:8") || f.cached("hash:8") || i.metric(loaded) != before || i.metric(loadedHash) != beforeHash {
		t.Errorf("what nobody has cached was loaded: %v and %v loads, were %v and %v", i.metric(loaded), i.metric(loadedHash), before, beforeHash)
	}
	i.stop()
}

// The service of the well-known examples has no database to ask: changes are
// dropped and, where the connector shows the types, set. What cannot be promised
// is said.
func TestKafkaWithoutADatabase(t *testing.T) {
	f := newTopicFixture(t, 15, avro)
	f.exec("CREATE TABLE products (id int PRIMARY KEY, name text, price numeric(10,2))")
	f.exec("INSERT INTO products SELECT i, 'product ' || i, i FROM generate_series(1, 20) i")
	f.connectDebezium()
	text := f.config("  warm: {key: 'warm:{id}', table: products, on_change: warm}\n  dropped: {key: 'dropped:{id}', table: products}\n")
	i := startInstance(t, strings.TrimPrefix(text, "database: "+f.url+"\n"))
	i.waitReady()
	i.eventually("what the snapshot has read is warm", func() bool { return len(f.different("warm")) == 0 })
	f.fetch("dropped:7", product, 7)
	f.exec("UPDATE products SET price = 77.70 WHERE id = 7")
	i.eventually("it is dropped", func() bool { return !f.cached("dropped:7") })
	// A change that is not young enough by the clocks only drops; the next one sets.
	i.eventually("it is set", func() bool {
		f.exec("UPDATE products SET name = name WHERE id = 7")
		return f.value("warm:7") == `{"id":7,"name":"product 7","price":77.70}`
	})
	if s, err := i.status(); err != nil || len(s.Unpromised) == 0 || i.said("not promised") != len(s.Unpromised) {
		t.Errorf("it does not say what is not promised: %+v, %v\n%s", s, err, i.log)
	}
	i.stop()
}
