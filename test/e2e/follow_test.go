package e2e

import (
	"context"
	byteorder "encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
)

// sentinels is a table of no entry. A row in it is the last thing that is committed
// before a wait.
const sentinels = "CREATE TABLE IF NOT EXISTS sentinels (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY)"

// follow waits until what was committed before it began has been applied. It owes
// nothing to the barrier of the service, which it may judge: it goes by what only a
// test may ask for.
func (f *topicFixture) follow(ctx context.Context) error {
	if f.losing.Load() {
		return errLosing
	}
	if err := f.sent(ctx); err != nil {
		return err
	}
	ends, err := f.ends(ctx)
	if err != nil {
		return err
	}
	err = f.await(ctx, "every partition has settled", func() error { return f.settledAt(ctx, ends) })
	if f.losing.Load() {
		return errLosing
	}
	return err
}

var errLosing = errors.New("records are being lost")

// sent waits until what was committed before it began is in the topics.
//
// A sentinel is committed. Once Connect has noted an offset that is no less, the
// brokers have acknowledged every record before that: it notes an offset when all
// before are.
func (f *topicFixture) sent(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, f.url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if f.seldom {
		return f.sentBehind(ctx, conn)
	}
	var before uint64
	if err := conn.QueryRow(ctx, "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint").Scan(&before); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "INSERT INTO sentinels DEFAULT VALUES"); err != nil {
		return err
	}
	return f.await(ctx, "Connect has noted that everything was sent", func() error {
		if noted := f.notes.of(f.slot); noted < before {
			return fmt.Errorf("Connect has noted %X, want %X", noted, before)
		}
		return nil
	})
}

// sentBehind is for a Connect that notes its offsets seldom. It has one request on
// its way at a time. So what was to be sent before a sentinel is in the topics when
// another one is, which was committed when the first had been seen.
func (f *topicFixture) sentBehind(ctx context.Context, conn *pgx.Conn) error {
	for range 2 {
		var id int64
		if err := conn.QueryRow(ctx, "INSERT INTO sentinels DEFAULT VALUES RETURNING id").Scan(&id); err != nil {
			return err
		}
		if err := f.await(ctx, "the sentinel is in its topic", func() error {
			if seen := f.notes.sentinel(f.slot); seen < id {
				return fmt.Errorf("sentinel %d of %d", seen, id)
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// await asks until the answer is nil.
func (f *topicFixture) await(ctx context.Context, what string, ask func() error) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w (%w)", what, ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// notes are what a worker of Connect has noted, as it stands in its topic.
type notes struct {
	mu        sync.Mutex
	lsn       map[string]uint64 // by connector
	sentinels map[string]int64  // the last one, by connector
}

// watch reads the notes of a pipeline until the tests end, and the sentinels that
// come in Avro.
func (p *pipeline) watch() error {
	topic := filepath.Base(p.connect.Dir()) + "-offsets"
	client, err := kgo.NewClient(kgo.SeedBrokers(p.kafka.Brokers()), kgo.ConsumeTopics(topic, `^.*\.public\.sentinels$`), kgo.ConsumeRegex(), kgo.MetadataMinAge(100*time.Millisecond), kgo.MetadataMaxAge(time.Second))
	if err != nil {
		return err
	}
	n := &notes{lsn: map[string]uint64{}, sentinels: map[string]int64{}}
	p.notes = n
	go func() {
		for {
			client.PollFetches(context.Background()).EachRecord(func(r *kgo.Record) {
				n.mu.Lock()
				defer n.mu.Unlock()
				if slot, ok := strings.CutSuffix(r.Topic, ".public.sentinels"); ok {
					if len(r.Key) > 5 {
						id, _ := byteorder.Varint(r.Key[5:])
						n.sentinels[slot] = max(n.sentinels[slot], id)
					}
					return
				}
				var key []any
				var offset struct {
					LSN uint64 `json:"lsn"`
				}
				if json.Unmarshal(r.Key, &key) == nil && json.Unmarshal(r.Value, &offset) == nil && len(key) > 0 {
					n.lsn[fmt.Sprint(key[0])] = offset.LSN
				}
			})
		}
	}()
	return nil
}

// of is the place in the log up to which all was sent.
func (n *notes) of(connector string) uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lsn[connector]
}

// sentinel is the last one that came.
func (n *notes) sentinel(connector string) int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sentinels[connector]
}

// admin asks the broker. It is closed with the test. What it is told of topics it
// holds for so short a time that nothing can have come into a partition of which it
// does not know yet.
func (f *topicFixture) admin() *kadm.Client {
	f.asked.Do(func() {
		client, err := kgo.NewClient(kgo.SeedBrokers(f.kafka.Brokers()), kgo.MetadataMinAge(10*time.Millisecond))
		if err != nil {
			panic(err) // of options only
		}
		f.t.Cleanup(client.Close)
		f.admins = kadm.NewClient(client)
	})
	return f.admins
}

// ends are where the partitions of the entries' topics end, by the name of the
// stream. A topic that is not there yet has no record.
func (f *topicFixture) ends(ctx context.Context) (map[string]change.Position, error) {
	admin := f.admin()
	topics, err := admin.ListTopics(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, table := range f.followed {
		if name := f.slot + ".public." + table; topics.Has(name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, errors.New("there is no topic yet")
	}
	offsets, err := admin.ListEndOffsets(ctx, names...)
	if err != nil {
		return nil, err
	}
	ends := map[string]change.Position{}
	offsets.Each(func(o kadm.ListedOffset) {
		err = errors.Join(err, o.Err)
		ends[fmt.Sprintf("kafka:%x:%d:%s", [16]byte(topics[o.Topic].ID), o.Partition, f.slot)] = change.Position{Timeline: change.Offsets, LSN: uint64(o.Offset)}
	})
	return ends, err
}

// settledAt says which watermark has not come to where its stream is to be.
func (f *topicFixture) settledAt(ctx context.Context, ends map[string]change.Position) error {
	for stream, end := range ends {
		text, err := f.rdb.HGet(ctx, guard.WatermarkKey(0, stream), "settled").Bytes()
		if err != nil && err != redis.Nil {
			return err
		}
		settled, err := change.DecodePosition(text)
		if err != nil {
			return err
		}
		if settled.Compare(end) < 0 {
			return fmt.Errorf("%s has settled at %s of %s", stream, settled, end)
		}
	}
	return nil
}

// barrier waits until the cache reflects everything committed so far.
func (f *topicFixture) barrier() {
	f.t.Helper()
	if err := f.follow(within(f.t, 2*time.Minute)); err != nil {
		f.t.Fatal(err)
	}
}

// A follower lets many wait at once: whoever asks joins the next round.
type follower struct {
	follow  func(context.Context) error
	mu      sync.Mutex
	next    *round
	running sync.Mutex
}

type round struct {
	done chan struct{}
	err  error
}

// roundMax bounds a round: a server may be away for longer.
const roundMax = 2 * time.Minute

// roundEvery is how often the servers are asked, at most.
const roundEvery = 300 * time.Millisecond

func (f *follower) wait(ctx context.Context) error {
	f.mu.Lock()
	if f.next == nil {
		f.next = &round{done: make(chan struct{})}
		go f.run(f.next)
	}
	r := f.next
	f.mu.Unlock()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *follower) run(r *round) {
	f.running.Lock()
	defer f.running.Unlock()
	<-time.After(roundEvery) // the pace: who asks meanwhile joins this round
	f.mu.Lock()
	f.next = nil
	f.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), roundMax)
	defer cancel()
	r.err = f.follow(ctx)
	close(r.done)
}
