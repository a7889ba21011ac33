package stack_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/unstale/unstale/internal/stack"
)

// A pipeline is the way of a change from PostgreSQL into a topic.
type pipeline struct {
	postgres *stack.Postgres
	kafka    *stack.Kafka
	registry *stack.Registry
	connect  *stack.Connect
}

// These servers take seconds to start, so the facts about them share one life.
func TestDebeziumWritesToKafka(t *testing.T) {
	p := startPipeline(t)
	query(t, p.postgres, "CREATE TABLE users (id int PRIMARY KEY, name text)")
	converters := map[string]map[string]string{
		"avro":    p.registry.AvroConverters(),
		"json":    stack.JSONConverters(false),
		"schemas": stack.JSONConverters(true),
	}
	for name, settings := range converters {
		p.capture(t, name, settings)
	}
	for name := range converters {
		p.runs(t, name)
	}

	t.Run("a change arrives as its converter writes it", func(t *testing.T) {
		query(t, p.postgres, "INSERT INTO users VALUES (1, 'anna')")
		avro := p.read(t, "avro.public.users", "anna")
		if schema := p.schema(t, avro); !strings.Contains(schema, `\"namespace\":\"avro.public.users\"`) {
			t.Errorf("the schema of the value is %s", schema)
		}
		if key, want := string(p.read(t, "json.public.users", "anna").Key), `{"id":1}`; key != want {
			t.Errorf("the key in JSON is %s, want %s", key, want)
		}
		key := string(p.read(t, "schemas.public.users", "anna").Key)
		if !strings.HasPrefix(key, `{"schema":{`) || !strings.HasSuffix(key, `"payload":{"id":1}}`) {
			t.Errorf("the key in JSON with its schema is %s", key)
		}
	})

	t.Run("paused servers accept and stay silent", func(t *testing.T) {
		for _, server := range p.servers() {
			if err := server.Pause(); err != nil {
				t.Fatal(err)
			}
			conn, err := net.Dial("tcp", server.Addr())
			if err != nil {
				t.Fatalf("%s does not accept while paused: %v", server.Name(), err)
			}
			_, writeErr := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n") // to a broker a request that is too large
			deadlineErr := conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			_, readErr := conn.Read(make([]byte, 1))
			var timeout net.Error
			if !errors.As(readErr, &timeout) || !timeout.Timeout() {
				t.Errorf("%s said something while paused, or hung up: %v", server.Name(), readErr)
			}
			if err := errors.Join(writeErr, deadlineErr, conn.Close(), server.Resume()); err != nil {
				t.Fatal(err)
			}
		}
	})

	// What is acknowledged is there after a kill, and goes by the same names: a
	// record of before must find its schema afterwards.
	t.Run("all start again after kill -9 with their data", func(t *testing.T) {
		before := p.read(t, "avro.public.users", "anna")
		schema := p.schema(t, before)
		registered := call(t, http.MethodPost, p.registry.CompatURL()+"/subjects/late/versions", `{"schema": "{\"type\": \"long\"}"}`)
		for _, server := range p.servers() {
			if err := server.Kill(); err != nil {
				t.Fatal(err)
			}
		}
		query(t, p.postgres, "INSERT INTO users VALUES (2, 'berta')")
		var starting errgroup.Group
		starting.Go(func() error { return p.kafka.Start(t.Context()) })
		starting.Go(func() error { return p.registry.Start(t.Context()) })
		if err := starting.Wait(); err != nil {
			t.Fatal(err)
		}
		if err := p.connect.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if again := call(t, http.MethodPost, p.registry.CompatURL()+"/subjects/late/versions", `{"schema": "{\"type\": \"long\"}"}`); again != registered {
			t.Errorf("the schema that was %s is %s after the restart", registered, again)
		}
		old, after := p.read(t, "avro.public.users", "anna"), p.read(t, "avro.public.users", "berta")
		if got := p.schema(t, old); string(old.Value) != string(before.Value) || got != schema {
			t.Errorf("the record that was %x is %x with the schema %s", before.Value, old.Value, got)
		}
		if got := p.schema(t, after); got != schema {
			t.Errorf("the next record has the schema %s", got)
		}
		p.read(t, "json.public.users", "berta")
	})
}

// Java puts the reason above a stack trace: both must be in the error.
func TestTheErrorOfAServerOnJavaCarriesItsLog(t *testing.T) {
	_, err := newStack(t).Kafka(t.Context(), stack.KafkaOptions{Settings: map[string]string{"process.roles": "nonsense"}})
	if err == nil || !strings.Contains(err.Error(), "Invalid value nonsense for configuration process.roles") {
		t.Errorf("got %v", err)
	}
}

func startPipeline(t *testing.T) pipeline {
	t.Helper()
	s := newStack(t)
	p := pipeline{postgres: startPostgres(t, s, stack.PostgresOptions{})}
	var starting errgroup.Group
	starting.Go(func() (err error) {
		p.registry, err = s.Registry(t.Context(), stack.RegistryOptions{})
		return err
	})
	starting.Go(func() (err error) {
		p.kafka, err = s.Kafka(t.Context(), stack.KafkaOptions{})
		return err
	})
	if err := starting.Wait(); err != nil {
		t.Fatal(err)
	}
	var err error
	if p.connect, err = s.Connect(t.Context(), stack.ConnectOptions{Kafka: p.kafka, Registry: p.registry}); err != nil {
		t.Fatal(err)
	}
	return p
}

// servers are those on Java.
func (p pipeline) servers() []*stack.Server {
	return []*stack.Server{p.kafka.Server, p.registry.Server, p.connect.Server}
}

// capture creates a connector whose topics begin with its name.
func (p pipeline) capture(t *testing.T, name string, converters map[string]string) {
	t.Helper()
	config := map[string]string{
		"connector.class":                   "io.debezium.connector.postgresql.PostgresConnector",
		"plugin.name":                       "pgoutput",
		"topic.prefix":                      name,
		"slot.name":                         name,
		"publication.name":                  name,
		"database.hostname":                 "127.0.0.1",
		"database.port":                     fmt.Sprint(p.postgres.Port()),
		"database.user":                     "postgres",
		"database.password":                 "",
		"database.dbname":                   "postgres",
		"topic.creation.default.partitions": "1",
		"topic.creation.default.replication.factor": "1",
	}
	maps.Copy(config, converters)
	body, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	call(t, http.MethodPut, p.connect.URL()+"/connectors/"+name+"/config", string(body))
}

// runs waits until a connector and its task run.
func (p pipeline) runs(t *testing.T, name string) {
	t.Helper()
	var status string
	eventually(t, "the connector "+name+" runs", func() bool {
		_, status = request(t, http.MethodGet, p.connect.URL()+"/connectors/"+name+"/status", "")
		if strings.Contains(status, `"FAILED"`) {
			t.Fatal(status)
		}
		return strings.Count(status, `"RUNNING"`) == 2
	})
}

// readMax bounds the wait for a record; Debezium's retries are part of it.
const readMax = time.Minute

// read returns the first record of the topic whose value has the text.
func (p pipeline) read(t *testing.T, topic, text string) *kgo.Record {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(p.kafka.Brokers()), kgo.ConsumeTopics(topic),
		kgo.MetadataMinAge(100*time.Millisecond)) // a topic begins with its first record
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), readMax)
	defer cancel()
	for {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatalf("read %s for %q: %v", topic, text, err)
		}
		for record := range fetches.RecordsAll() {
			if strings.Contains(string(record.Value), text) {
				return record
			}
		}
	}
}

// schema is what the registry has for the id that an Avro record begins with.
func (p pipeline) schema(t *testing.T, record *kgo.Record) string {
	t.Helper()
	if len(record.Value) < 5 || record.Value[0] != 0 {
		t.Fatalf("%x is no record of Confluent's format", record.Value)
	}
	id := binary.BigEndian.Uint32(record.Value[1:])
	return call(t, http.MethodGet, fmt.Sprintf("%s/schemas/ids/%d", p.registry.CompatURL(), id), "")
}

// call returns the answer to a request that must be served.
func call(t *testing.T, method, url, body string) string {
	t.Helper()
	status, answer := request(t, method, url, body)
	if status/100 != 2 {
		t.Fatalf("%s %s: %d %s", method, url, status, answer)
	}
	return answer
}

func request(t *testing.T, method, url, body string) (status int, answer string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Close = true
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}
