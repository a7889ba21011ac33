package e2e

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unstale/unstale"
)

// barrierConfig is that of a fixture whose connector is known to the service.
func (f *topicFixture) barrierConfig(entries string) string {
	return strings.Replace(f.config(entries), "    topic_prefix:", fmt.Sprintf("    connect: {url: %q, connector: %s, slot: %s}\n    topic_prefix:", f.connect.URL(), f.slot, f.slot), 1)
}

// heartbeats are what `unstale connector` sets: without, no barrier ends in a database
// that is quiet.
func heartbeats(every time.Duration) map[string]string {
	return map[string]string{
		"heartbeat.interval.ms":       fmt.Sprint(every.Milliseconds()),
		"heartbeat.action.query":      "SELECT pg_logical_emit_message(true, 'unstale.heartbeat', '')",
		"message.prefix.exclude.list": "unstale.heartbeat",
	}
}

// position is that of what has been committed so far.
func (f *topicFixture) position() (position string) {
	f.t.Helper()
	check(f.t, f.conn.QueryRow(within(f.t, 10*time.Second), unstale.PositionQuery).Scan(&position))
	return position
}

// older returns those of the keys that are cached as the rows were before.
func (f *topicFixture) older(keys []string, version int) (older []string) {
	f.t.Helper()
	values, err := f.rdb.MGet(within(f.t, 10*time.Second), keys...).Result()
	check(f.t, err)
	for i, value := range values {
		if text, ok := value.(string); ok && !strings.Contains(text, fmt.Sprintf(`"version":%d}`, version)) {
			older = append(older, keys[i])
		}
	}
	return older
}

// A writer that has waited for its commit finds no key that is older, whatever
// partition its rows are in and whichever instance has that. The same look without
// the wait finds many.
func TestABarrierOverKafkaWaitsForEveryPartition(t *testing.T) {
	f := newTopicFixture(t, 15, avro)
	f.told = heartbeats(100 * time.Millisecond)
	f.exec("CREATE TABLE products (id int PRIMARY KEY, name text, version int)")
	f.exec("INSERT INTO products SELECT i, 'product ' || i, 0 FROM generate_series(1, 200) i")
	f.connectDebezium()
	config := f.barrierConfig("  dropped: {key: 'dropped:{id}', table: products}\n  update: {key: 'update:{id}', table: products, on_change: update}\n")
	first, second := startInstance(t, config), startInstance(t, config)
	first.waitReady()
	first.eventually("both have partitions", func() bool {
		a, errA := first.status()
		b, errB := second.status()
		return errA == nil && errB == nil && len(a.Streams) > 0 && len(b.Streams) > 0 && b.Ready
	})
	check(t, f.client.Barrier(within(t, time.Minute), f.position()))

	const rounds, rows = 60, 20
	var took []time.Duration
	stale := 0
	for version := 1; version <= rounds; version++ {
		var keys []string
		var ids []int
		for _, id := range rand.Perm(200)[:rows] {
			id++
			ids = append(ids, id)
			dropped, update := fmt.Sprintf("dropped:%d", id), fmt.Sprintf("update:%d", id)
			f.fetch(dropped, product, id)
			f.fetchKept(update, product, id)
			keys = append(keys, dropped, update)
		}
		f.exec("UPDATE products SET version = $1 WHERE id = ANY($2)", version, ids)
		position := f.position()
		if version%2 == 0 { // the control: it does not wait
			stale += len(f.older(keys, version))
			check(t, f.client.Barrier(within(t, time.Minute), position))
			continue
		}
		began := time.Now()
		check(t, f.client.Barrier(within(t, time.Minute), position))
		took = append(took, time.Since(began))
		if older := f.older(keys, version); len(older) > 0 {
			t.Fatalf("round %d: behind the barrier %s are older than it", version, older)
		}
	}
	if stale == 0 {
		t.Error("without the wait nothing is older: the test shows nothing")
	}
	slices.Sort(took)
	t.Logf("%d barriers: p50 %s, p99 %s; without the wait %d of %d keys were older", len(took), took[len(took)/2], took[len(took)*99/100], stale, rounds/2*rows*2)
	for _, i := range []*instance{first, second} {
		if i.said("the barrier does not move") > 0 {
			t.Errorf("%s", i.log)
		}
	}

	// A Redis that is emptied has no note either, and the next is of what is there.
	f.rdb.FlushAll(t.Context())
	check(t, f.client.Barrier(within(t, time.Minute), f.position()))

	// One instance is enough, and one that comes back as well.
	second.kill()
	f.exec("UPDATE products SET version = -1")
	check(t, f.client.Barrier(within(t, time.Minute), f.position()))
	first.stop()
}
