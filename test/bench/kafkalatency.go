package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/unstale/unstale/internal/stack"
)

// The pace of the whole pipeline: Debezium takes some ten thousand changes a second
// on a machine of its own, and warm code is what is measured.
const (
	pipelineSessions  = 2
	pipelinePerSecond = 200
	// pipelineWarmUp are changes before, in which Java compiles what is hot.
	pipelineWarmUp = 10_000
)

// A passage is when a change was where.
type passage struct {
	committed time.Time // source.ts_us
	read      time.Time // ts_us: by the connector
	produced  time.Time // the record's timestamp, in ms
	fetched   time.Time // by a plain consumer in this process
	gone      time.Time // its key, in Redis
}

// passages collects those of the rows 1 to n, which change once each.
type passages struct {
	mu              sync.Mutex
	of              []passage // by id
	fetched, gone   int
	allFetchedGone  chan struct{}
	fetchedGoneOnce sync.Once
}

func newPassages(n int) *passages {
	return &passages{of: make([]passage, n+1), allFetchedGone: make(chan struct{})}
}

func (p *passages) note(id int64, note func(*passage)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if id <= 0 || id >= int64(len(p.of)) {
		return
	}
	one := &p.of[id]
	before := *one
	note(one)
	if before.fetched.IsZero() && !one.fetched.IsZero() {
		p.fetched++
	}
	if before.gone.IsZero() && !one.gone.IsZero() {
		p.gone++
	}
	if n := len(p.of) - 1; p.fetched == n && p.gone == n {
		p.fetchedGoneOnce.Do(func() { close(p.allFetchedGone) })
	}
}

// benchKafkaLatency measures how long a change takes from its commit to Redis
// through Debezium on Kafka Connect, a schema registry and Kafka.
func benchKafkaLatency(ctx context.Context, b *bench) (err error) {
	if err := b.startKafka(ctx); err != nil {
		return err
	}
	schemas, err := b.stack.Registry(ctx, stack.RegistryOptions{}) // asked twice
	if err != nil {
		return err
	}
	connect, err := b.stack.Connect(ctx, stack.ConnectOptions{Kafka: b.pipeline.kafka, Registry: schemas, JVM: stack.JVM{FullJIT: true}})
	if err != nil {
		return err
	}
	paced := b.sizes.LatencySecs * pipelinePerSecond
	rows := pipelineWarmUp + paced
	if err := b.exec(ctx,
		fmt.Sprintf(`INSERT INTO orders SELECT i, i %% 100000, 'new', 19.99, 1, 'someone.longer@example.com', 'please leave the parcel with the neighbour at number 12', true, now(), now()
			FROM generate_series(1, %d) i`, rows),
		`CREATE PROCEDURE change_orders_at_a_pace(first int, step int, last int, every interval) LANGUAGE plpgsql AS $$
		DECLARE due timestamptz := clock_timestamp();
		BEGIN
			FOR i IN first .. last BY step LOOP
				UPDATE orders SET quantity = quantity + 1 WHERE id = i;
				COMMIT;
				due := due + every;
				PERFORM pg_sleep(extract(epoch FROM due - clock_timestamp()));
			END LOOP;
		END $$`,
	); err != nil {
		return err
	}
	const prefix = "shop"
	topic := prefix + ".public." + orderTable
	if err := b.createTopic(ctx, topic, partitions); err != nil {
		return err
	}
	if err := b.connectDebezium(ctx, connect, schemas, prefix); err != nil {
		return err
	}
	b.groups++
	s, err := b.startService(ctx, fmt.Sprintf(`source:
  kafka:
    brokers: [%q]
    group: bench_%d
    topic_prefix: %s
    schema_registry: %s
entries:
  order:
    key: %s
    table: %s
`, b.pipeline.kafka.Brokers(), b.groups, prefix, schemas.CompatURL(), orderKey, orderTable))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	if err := s.ready(ctx); err != nil {
		return err
	}
	// Redis tells which keys are deleted, and when.
	if err := b.rdb.ConfigSet(ctx, "notify-keyspace-events", "Eg").Err(); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, b.rdb.ConfigSet(context.WithoutCancel(ctx), "notify-keyspace-events", "").Err())
	}()

	b.say(fmt.Sprintf("warming up with %s changes", thousands(pipelineWarmUp)))
	if _, err := b.passThrough(ctx, schemas, topic, paced+1, rows, 100*time.Microsecond); err != nil {
		return err
	}
	parts := []struct {
		name string
		from func(*passage) time.Time
		to   func(*passage) time.Time
		runs [2][]float64
	}{
		{name: "commit to Redis", from: committed, to: gone},
		{name: "of it, until the connector has it", from: committed, to: func(p *passage) time.Time { return p.read }},
		{name: "of it, until the connector's producer has it", from: committed, to: func(p *passage) time.Time { return p.produced }},
		{name: "of it, until a plain consumer has it", from: committed, to: fetched},
		{name: "of it, from there to Redis", from: fetched, to: gone},
	}
	for i := range b.sizes.Runs {
		b.say(fmt.Sprintf("measuring latency through Debezium, run %d of %d", i+1, b.sizes.Runs))
		passed, err := b.passThrough(ctx, schemas, topic, 1, paced, pipelineSessions*time.Second/pipelinePerSecond)
		if err != nil {
			return err
		}
		for k := range parts {
			part := &parts[k]
			var latencies []time.Duration
			for id := range passed.of[1:] {
				p := &passed.of[1+id]
				latencies = append(latencies, part.to(p).Sub(part.from(p)))
			}
			part.runs[0] = append(part.runs[0], quantile(latencies, 0.50))
			part.runs[1] = append(part.runs[1], quantile(latencies, 0.99))
		}
	}
	b.report.add("kafka-latency: commit to Redis, p50", "ms", parts[0].runs[0], "", nil, nil)
	b.report.add("kafka-latency: commit to Redis, p99", "ms", parts[0].runs[1], "", nil, nil)
	for _, part := range parts[1:] {
		b.report.add("kafka-latency: "+part.name+", p50", "ms", part.runs[0], "the whole", parts[0].runs[0], nil)
		b.report.add("kafka-latency: "+part.name+", p99", "ms", part.runs[1], "the whole", parts[0].runs[1], nil)
	}
	return b.rest(ctx, http.MethodDelete, connect.URL()+"/connectors/"+prefix, nil, nil)
}

func committed(p *passage) time.Time { return p.committed }
func fetched(p *passage) time.Time   { return p.fetched }
func gone(p *passage) time.Time      { return p.gone }

// connectDebezium makes the connector, as tuned for latency, and waits until it runs.
func (b *bench) connectDebezium(ctx context.Context, connect *stack.Connect, schemas *stack.Registry, prefix string) error {
	database, err := pgx.ParseConfig(b.postgres.URL())
	if err != nil {
		return err
	}
	settings := map[string]string{
		"connector.class":             "io.debezium.connector.postgresql.PostgresConnector",
		"database.hostname":           database.Host,
		"database.port":               fmt.Sprint(database.Port),
		"database.user":               database.User,
		"database.dbname":             database.Database,
		"topic.prefix":                prefix,
		"plugin.name":                 "pgoutput",
		"slot.name":                   prefix,
		"publication.name":            prefix,
		"publication.autocreate.mode": "filtered",
		"table.include.list":          "public." + orderTable,
		"snapshot.mode":               "no_data",
		"decimal.handling.mode":       "string",
		"time.precision.mode":         "adaptive_time_microseconds",
		"skipped.operations":          "none",
		"extended.headers.enabled":    "false",
		"slot.drop.on.stop":           "true",
		// By default half a second: no latency below could be seen.
		"poll.interval.ms": "5",
	}
	maps.Copy(settings, schemas.AvroConverters())
	if err := b.rest(ctx, http.MethodPut, connect.URL()+"/connectors/"+prefix+"/config", settings, nil); err != nil {
		return err
	}
	for {
		var status struct {
			Tasks []struct{ State, Trace string }
		}
		err := b.rest(ctx, http.MethodGet, connect.URL()+"/connectors/"+prefix+"/status", nil, &status)
		if err == nil && len(status.Tasks) == 1 {
			switch status.Tasks[0].State {
			case "RUNNING":
				var active bool
				err := b.conn.QueryRow(ctx, "SELECT count(*) > 0 FROM pg_replication_slots WHERE slot_name = $1 AND active", prefix).Scan(&active)
				if err != nil || active {
					return err
				}
			case "FAILED":
				return fmt.Errorf("the connector has failed: %s", status.Tasks[0].Trace)
			}
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// rest asks Kafka Connect.
func (b *bench) rest(ctx context.Context, method, url string, body, answer any) error {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, url, content)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, url, response.Status, text)
	}
	if answer != nil {
		return json.Unmarshal(text, answer)
	}
	return nil
}

// passThrough changes the rows first to last, each cached, at a pace, and returns
// when each was where.
func (b *bench) passThrough(ctx context.Context, schemas *stack.Registry, topic string, first, last int, every time.Duration) (*passages, error) {
	if _, err := b.fill(ctx, orderPrefix, last); err != nil {
		return nil, err
	}
	passed := newPassages(last - first + 1)
	work, cancel := context.WithCancel(ctx)
	defer cancel()
	group, work := errgroup.WithContext(work)

	events := b.rdb.Subscribe(work, "__keyevent@0__:del", "__keyevent@0__:unlink")
	defer events.Close()
	if _, err := events.Receive(work); err != nil {
		return nil, err
	}
	deleted := events.Channel()
	group.Go(func() error {
		for {
			select {
			case <-work.Done():
				return nil
			case message := <-deleted:
				text, ok := strings.CutPrefix(message.Payload, orderPrefix)
				if id, err := strconv.ParseInt(text, 10, 64); ok && err == nil {
					passed.note(id-int64(first)+1, func(p *passage) { p.gone = time.Now() })
				}
			}
		}
	})

	ends, err := b.pipeline.admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return nil, err
	}
	from := map[string]map[int32]kgo.Offset{topic: {}}
	for number, end := range ends[topic] {
		from[topic][number] = kgo.NewOffset().At(end.Offset)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(b.pipeline.kafka.Brokers()), kgo.ConsumePartitions(from))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	group.Go(func() error {
		codecs := map[uint32]*avro.Schema{}
		for {
			fetches := client.PollFetches(work)
			now := time.Now()
			if work.Err() != nil {
				return nil
			}
			if err := fetches.Err(); err != nil {
				return err
			}
			for _, record := range fetches.Records() {
				id, committed, read, err := b.times(work, schemas, codecs, record.Value)
				if err != nil {
					return err
				}
				passed.note(id-int64(first)+1, func(p *passage) {
					p.committed, p.read, p.produced, p.fetched = committed, read, record.Timestamp, now
				})
			}
		}
	})

	group.Go(func() error {
		sessions, pacing := errgroup.WithContext(work)
		for i := range pipelineSessions {
			sessions.Go(func() error {
				conn, err := pgx.Connect(pacing, b.postgres.URL())
				if err != nil {
					return err
				}
				defer conn.Close(context.WithoutCancel(pacing))
				_, err = conn.Exec(pacing, "CALL change_orders_at_a_pace($1, $2, $3, $4)", first+i, pipelineSessions, last, every)
				return err
			})
		}
		if err := sessions.Wait(); err != nil {
			return err
		}
		select {
		case <-passed.allFetchedGone:
		case <-time.After(time.Minute):
			return fmt.Errorf("%d of %d changes came to the consumer, %d to Redis: %w", passed.fetched, last-first+1, passed.gone, errShort)
		case <-work.Done():
			return work.Err()
		}
		cancel()
		return nil
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return passed, ctx.Err()
}

// times reads when a change was committed, and when the connector had it.
func (b *bench) times(ctx context.Context, schemas *stack.Registry, codecs map[uint32]*avro.Schema, value []byte) (id int64, committed, read time.Time, err error) {
	if len(value) < 5 {
		return 0, committed, read, nil // a tombstone
	}
	number := binary.BigEndian.Uint32(value[1:])
	if codecs[number] == nil {
		var answer struct{ Schema string }
		if err := b.rest(ctx, http.MethodGet, fmt.Sprintf("%s/schemas/ids/%d", schemas.CompatURL(), number), nil, &answer); err != nil {
			return 0, committed, read, err
		}
		if codecs[number], err = avro.Parse(answer.Schema); err != nil {
			return 0, committed, read, err
		}
	}
	var envelope map[string]any
	if _, err := codecs[number].Decode(value[5:], &envelope); err != nil {
		return 0, committed, read, err
	}
	after, _ := envelope["after"].(map[string]any)
	source, _ := envelope["source"].(map[string]any)
	id, known := after["id"].(int64)
	committedMicros, said := source["ts_us"].(int64)
	readMicros, saidRead := envelope["ts_us"].(int64)
	if !known || !said || !saidRead {
		return 0, committed, read, fmt.Errorf("a record without its row or its times: %v", envelope)
	}
	return id, time.UnixMicro(committedMicros), time.UnixMicro(readMicros), nil
}
