package kafkasource_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/debezium"
	"github.com/unstale/unstale/internal/kafkasource"
	"github.com/unstale/unstale/internal/value"
)

const (
	topic = "cdc.public.users"
	group = "cache"
)

// A rig is a fake broker with one topic, and who writes to it.
type rig struct {
	t        *testing.T
	cluster  *kfake.Cluster
	producer *kgo.Client
	admin    *kadm.Client
	registry registry
}

func newRig(t *testing.T, partitions int32) *rig {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, topic), kfake.GroupMinSessionTimeout(time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	r := &rig{t: t, cluster: cluster}
	r.producer = r.client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	r.admin = kadm.NewClient(r.producer)
	return r
}

func (r *rig) client(options ...kgo.Opt) *kgo.Client {
	r.t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(r.cluster.ListenAddrs()...)}, options...)...)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(client.Close)
	return client
}

func (r *rig) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(r.t.Context(), d)
	r.t.Cleanup(cancel)
	return ctx
}

// send writes records into one partition, in order.
func (r *rig) send(partition int32, records ...kgo.Record) {
	r.t.Helper()
	for i := range records {
		records[i].Topic, records[i].Partition = topic, partition
		if err := r.producer.ProduceSync(r.within(10*time.Second), &records[i]).FirstErr(); err != nil {
			r.t.Fatal(err)
		}
	}
}

// key is that of a row of users. Its schema names the table.
func key(id string) []byte {
	return fmt.Appendf(nil, `{"schema":{"type":"struct","fields":[{"type":"string","optional":false,"field":"id"}],"optional":false,"name":"cdc.public.users.Key"},"payload":{"id":%q}}`, id)
}

// row is what Debezium writes of a row of users: op c, u, d or r, in a transaction,
// of a database.
func row(op, id string, xid int, database string) kgo.Record {
	before, after := "null", fmt.Sprintf(`{"id":%q}`, id)
	if op == "d" {
		before, after = after, before
	}
	snapshot := "false"
	if op == "r" {
		snapshot = "true"
	}
	return kgo.Record{
		Key: key(id),
		Value: fmt.Appendf(nil, `{"before":%s,"after":%s,"op":%q,"ts_ms":1,"source":{"connector":"postgresql","name":"cdc","db":%q,"schema":"public","table":"users","snapshot":%q,"sequence":"[\"%d\",\"%d\"]","txId":%d,"lsn":%d,"ts_ms":1}}`,
			before, after, op, database, snapshot, xid, xid, xid, xid),
	}
}

// partitionOf is where Kafka's partitioner puts a row.
func partitionOf(id string, partitions int) int {
	return kgo.StickyKeyPartitioner(nil).ForTopic(topic).Partition(&kgo.Record{Key: key(id)}, partitions)
}

// placed returns the id of a row that belongs there.
func placed(partition, partitions int) string {
	for n := 0; ; n++ {
		if id := fmt.Sprint(n); partitionOf(id, partitions) == partition {
			return id
		}
	}
}

func insert(id string, xid int) kgo.Record { return row("c", id, xid, "shop") }

// avro is a message whose schema has that id.
func avro(id byte) kgo.Record {
	return kgo.Record{Key: []byte(`{"id":"k"}`), Value: []byte{0, 0, 0, 0, id, 1, 2, 3}}
}

// registry has no schema, and may be told what to say instead.
type registry struct {
	mu     sync.Mutex
	answer func() (string, error)
}

func (s *registry) set(answer func() (string, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func (s *registry) schema(context.Context, uint32) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.answer == nil {
		return "", errors.New("the registry is away")
	}
	return s.answer()
}

// A consumer is a source, and what of it a test looks at.
type consumer struct {
	*rig
	*kafkasource.Source
	at  change.Attachment
	log *lockedBuffer
}

func (r *rig) consumer(change ...func(*kafkasource.Options)) *consumer {
	r.t.Helper()
	c := &consumer{rig: r, log: &lockedBuffer{}}
	options := kafkasource.Options{
		Client: []kgo.Opt{kgo.SeedBrokers(r.cluster.ListenAddrs()...)},
		Group:  group, Topics: []string{topic}, Database: "shop", SessionTimeout: 2 * time.Second,
		Decoder: debezium.NewDecoder(debezium.Options{Schema: r.registry.schema, Compile: compile, Table: described, Wanted: func(string, string) bool { return true }}),
		Keep:    func(context.Context, *kgo.Record, error) error { return nil },
		Origin:  origin,
		Logger:  slog.New(slog.NewTextHandler(c.log, nil)),
	}
	for _, f := range change {
		f(&options)
	}
	c.Source = kafkasource.New(options)
	r.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		c.Close(ctx)
	})
	return c
}

func origin(context.Context) (change.Origin, error) { return change.Origin{System: 1}, nil }

func described(string, string) *debezium.Table {
	column := value.Column{Name: "id", TypeOID: 25, Type: &value.Type{OID: 25, Name: "text"}}
	return &debezium.Table{Shape: value.Shape{Columns: []value.Column{column}}, Key: []string{"id"}}
}

func compile(r *change.Relation) (wanted []int) {
	for i := range r.Columns {
		wanted = append(wanted, i)
	}
	return wanted
}

// attach takes over what the group gives, which is so many partitions.
func (c *consumer) attach(partitions int) {
	c.t.Helper()
	ctx := c.within(20 * time.Second)
	for {
		at, err := c.Attach(ctx)
		if err == nil && len(at.Streams) == partitions {
			c.at = at
			return
		}
		if err != nil && !errors.Is(err, change.ErrInUse) && !errors.Is(err, change.ErrUnassigned) {
			c.t.Fatal(err)
		}
		select {
		case <-ctx.Done():
			c.t.Fatalf("attached to %d streams, %v; want %d", len(at.Streams), err, partitions)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// begin attaches and reads from where the group is.
func (c *consumer) begin(partitions int) {
	c.t.Helper()
	c.attach(partitions)
	from := make([]change.Position, len(c.at.Streams))
	for i, st := range c.at.Streams {
		from[i] = st.Begin
	}
	if err := c.Resume(c.t.Context(), from); err != nil {
		c.t.Fatal(err)
	}
}

// describe puts a change into words.
func describe(c *change.Change) string {
	text := fmt.Sprintf("%d %s", c.Stream, c.Op)
	for _, row := range []change.Row{c.Old, c.New} {
		if row.Kind != change.Absent {
			text += fmt.Sprintf(" %s", row.Values[0].Text)
		}
	}
	if c.XID != 0 {
		text += fmt.Sprintf(" in %d", c.XID)
	}
	if c.Again {
		text += " again"
	}
	if c.Cut {
		text += " cut"
	}
	return text + fmt.Sprintf(" to %d", c.Position.LSN)
}

// want demands what comes next.
func (c *consumer) want(want ...string) {
	c.t.Helper()
	for i, text := range want {
		next, err := c.Next(c.within(10 * time.Second))
		if err != nil {
			c.t.Fatalf("change %d: %v, want %q\n%s", i, err, text, c.log)
		}
		if got := describe(next); got != text {
			c.t.Fatalf("change %d: %q, want %q", i, got, text)
		}
	}
}

// committed returns the group's offset of a partition, -1 if there is none, and
// what stands beside it.
func (r *rig) committed(partition int32) (int64, string) {
	r.t.Helper()
	offsets, err := r.admin.FetchOffsets(r.within(5*time.Second), group)
	if err != nil {
		r.t.Fatal(err)
	}
	at, ok := offsets.Lookup(topic, partition)
	if !ok {
		return -1, ""
	}
	return at.At, at.Metadata
}

func (r *rig) eventually(what string, done func() bool) {
	r.t.Helper()
	deadline := time.After(20 * time.Second)
	for !done() {
		select {
		case <-deadline:
			r.t.Fatalf("not after 20 s: %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
