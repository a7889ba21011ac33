package e2e

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/unstale/unstale"
	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/database"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/redissink"
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

// What is noted is what has settled in the very Redis that holds the note. Each row
// is one thing that stands in the way.
func TestSettle(t *testing.T) {
	origin := change.Origin{System: 1, Database: 2, Timeline: 3, StartedAt: time.UnixMicro(4)}
	offset := func(n uint64) change.Position { return change.Position{Timeline: change.Offsets, LSN: n} }
	at := func(timeline uint32, lsn uint64) change.Position {
		return change.Position{Timeline: timeline, LSN: lsn}
	}
	onBothKinds(t, map[string]func(m *master){
		"every rule": func(m *master) {
			barriers := redissink.NewBarriers(m.client)
			mark := func(stream string, settled change.Position, origin, sweeps string) {
				m.do("HSET", guard.WatermarkKey(0, stream), "settled", string(settled.Append(nil)), "origin", origin, "sweeps", sweeps)
			}
			settle := func(position change.Position) string {
				b := guard.Barrier{Stream: "1:2:group", At: position, Origin: origin, Ends: []guard.End{
					{Stream: "kafka:a:0:group", At: offset(5)}, {Stream: "kafka:a:1:group", At: offset(1<<53 + 1)},
				}}
				lacking, err := barriers.Settle(m.t.Context(), &b)
				switch {
				case err != nil:
					return err.Error()
				case lacking != nil:
					return "wait for " + lacking.Stream
				}
				return "noted"
			}
			noted := func(want change.Position) {
				m.t.Helper()
				if got, err := barriers.Noted(m.t.Context(), "1:2:group"); err != nil || got.At != want {
					m.t.Errorf("noted %s, %v, want %s", got.At, err, want)
				}
			}
			m.want("nothing is there", settle(at(3, 100)), "wait for kafka:a:0:group")
			mark("kafka:a:0:group", offset(5), origin.String(), "null")
			m.want("another instance lags", settle(at(3, 100)), "wait for kafka:a:1:group")
			mark("kafka:a:1:group", offset(1<<53), origin.String(), "[]")
			m.want("by one, beyond what a number of Lua tells", settle(at(3, 100)), "wait for kafka:a:1:group")
			mark("kafka:a:1:group", offset(1<<53+1), origin.String(), `[{"key":"a:{id}"}]`)
			m.want("a sweep has not ended", settle(at(3, 100)), "wait for kafka:a:1:group")
			mark("kafka:a:1:group", offset(1<<53+1), strings.Replace(origin.String(), "/3/", "/2/", 1), "null")
			m.want("it is of the primary before", settle(at(3, 100)), "wait for kafka:a:1:group")
			mark("kafka:a:1:group", offset(1<<53+1), origin.String()+"0", "null")
			m.want("or of another start", settle(at(3, 100)), "wait for kafka:a:1:group")
			noted(change.Position{})
			mark("kafka:a:1:group", offset(1<<53+1), origin.String()+" ungated until offset 3", "")
			m.want("all are there", settle(at(3, 100)), "noted")
			noted(at(3, 100))
			m.want("it never goes back", settle(at(3, 99)), "noted")
			noted(at(3, 100))
			m.want("it goes on", settle(at(3, 1<<32)), "noted")
			m.want("an earlier timeline is over", settle(at(2, 1<<40)), "noted")
			noted(at(3, 1<<32))
			m.want("a later one is new", settle(at(4, 50)), "noted")
			noted(at(4, 50))
			m.do("HSET", guard.WatermarkKey(0, "1:2:group"), "format", guard.Format+1)
			if text := settle(at(4, 60)); !strings.Contains(text, "a newer one") {
				m.t.Errorf("of a newer release: %s", text)
			}
			m.do("HSET", guard.WatermarkKey(0, "1:2:group"), "format", guard.Format, "owner", "somebody")
			if text := settle(at(4, 60)); !strings.Contains(text, "watermark of a replication slot") {
				m.t.Errorf("of a slot: %s", text)
			}
			noted(at(4, 50))
		},
	})
}

// How far a slot is says the primary, of itself and of its own database only.
func TestConfirmationsAreOfThePrimaryAndItsDatabase(t *testing.T) {
	f, other := newFixture(t, 15), newFixture(t, 15)
	asks := func(f *fixture, slot string) *database.Confirmations {
		config, err := pgx.ParseConfig(f.url)
		check(t, err)
		c := database.NewConfirmations(config, slot)
		t.Cleanup(c.Close)
		return c
	}
	mine := asks(f, f.slot)
	if _, err := mine.Ask(t.Context()); !change.IsRefusal(err) {
		t.Errorf("without the slot: %v", err)
	}
	f.exec("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", f.slot)
	found, err := mine.Ask(t.Context())
	check(t, err)
	if want := f.scalar(`SELECT system_identifier || '/' || (SELECT oid FROM pg_database WHERE datname = current_database()) || '/1/' || (confirmed_flush_lsn - '0/0')::text
		FROM pg_control_system(), pg_replication_slots WHERE slot_name = $1`, f.slot); fmt.Sprintf("%d/%d/%d/%d", found.Origin.System, found.Origin.Database, found.At.Timeline, found.At.LSN) != want {
		t.Errorf("found %+v, want %s", found, want)
	}
	if _, err := asks(other, f.slot).Ask(t.Context()); !change.IsRefusal(err) {
		t.Errorf("of another database: %v", err)
	}
	f.exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()")
	_, _ = mine.Ask(t.Context())
	if _, err := mine.Ask(t.Context()); err != nil {
		t.Errorf("behind a connection that broke: %v", err)
	}
}
