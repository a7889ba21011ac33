package e2e

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"github.com/unstale/unstale"
	"github.com/unstale/unstale/internal/stack"
)

// A fixture is one database, one Redis and a client that reads through it.
type fixture struct {
	t        *testing.T
	postgres *stack.Postgres
	redis    *stack.Redis
	conn     *pgx.Conn
	rdb      *redis.Client
	client   *unstale.Client
	url      string // of the database
	// slot is the name of the slot and of the publication: slots are the
	// server's, not the database's.
	slot string
}

var databases atomic.Int64

// newFixture makes an empty database on a shared PostgreSQL, with a Redis of
// its own.
func newFixture(t *testing.T, major int) *fixture {
	t.Helper()
	return newFixtureOn(t, sharedPostgres(t, major), startRedis(t, stack.RedisOptions{}))
}

func newFixtureOn(t *testing.T, postgres *stack.Postgres, r *stack.Redis) *fixture {
	t.Helper()
	ctx := within(t, 30*time.Second)
	admin, err := pgx.Connect(ctx, postgres.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(ctx)
	name := fmt.Sprintf("test_%d", databases.Add(1))
	if _, err := admin.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, postgres: postgres, redis: r, url: postgres.DatabaseURL(name), slot: name}
	if f.conn, err = pgx.Connect(ctx, f.url); err != nil {
		t.Fatal(err)
	}
	options, err := redis.ParseURL(r.URL())
	if err != nil {
		t.Fatal(err)
	}
	f.rdb = redis.NewClient(options)
	if f.client, err = unstale.New(f.rdb, unstale.Options{Slot: f.slot}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.dropSlot()
		f.rdb.Close()
		f.conn.Close(context.Background())
	})
	return f
}

// dropSlot makes room for the slots of other tests. A server that a test has
// broken has none to share.
func (f *fixture) dropSlot() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	const drop = `SELECT CASE WHEN active THEN pg_terminate_backend(active_pid) ELSE pg_drop_replication_slot(slot_name) IS NULL END
		FROM pg_replication_slots WHERE slot_name = $1`
	for ctx.Err() == nil {
		tag, err := f.conn.Exec(ctx, drop, f.slot)
		if err == nil && tag.RowsAffected() == 0 || f.conn.IsClosed() {
			return
		}
	}
}

// config is a configuration with these entries.
func (f *fixture) config(entries string) string {
	return fmt.Sprintf(`database: %s
redis: %s
source:
  postgres: {slot: %s, publication: %s}
entries:
%s`, f.url, f.redis.URL(), f.slot, f.slot, entries)
}

func (f *fixture) exec(sql string, arguments ...any) {
	f.t.Helper()
	if _, err := f.conn.Exec(within(f.t, 30*time.Second), sql, arguments...); err != nil {
		f.t.Fatalf("%s: %v", sql, err)
	}
}

// barrier waits until the cache reflects everything committed so far.
func (f *fixture) barrier() {
	f.t.Helper()
	ctx := within(f.t, 30*time.Second)
	var position string
	if err := f.conn.QueryRow(ctx, unstale.PositionQuery).Scan(&position); err != nil {
		f.t.Fatal(err)
	}
	if err := f.client.Barrier(ctx, position); err != nil {
		f.t.Fatal(err)
	}
}

// fetch reads key through the client; what is loaded is the text of a query.
func (f *fixture) fetch(key, query string, arguments ...any) (value string, loaded bool) {
	f.t.Helper()
	got, err := f.client.Fetch(within(f.t, 30*time.Second), key, func(ctx context.Context) ([]byte, error) {
		loaded = true
		var text []byte
		err := f.conn.QueryRow(ctx, query, arguments...).Scan(&text)
		return text, err
	})
	if err != nil {
		f.t.Fatalf("fetch %s: %v", key, err)
	}
	return string(got), loaded
}

func (f *fixture) cached(key string) bool {
	f.t.Helper()
	n, err := f.rdb.Exists(within(f.t, 10*time.Second), key).Result()
	if err != nil {
		f.t.Fatal(err)
	}
	return n == 1
}

const product = "SELECT row_to_json(p)::text FROM products p WHERE id = $1"

// The main job: a committed change drops the key, and the next reader caches
// the new row.
func TestAChangeDropsItsKey(t *testing.T) {
	for _, major := range []int{15, 18} {
		t.Run(fmt.Sprint("PostgreSQL ", major), func(t *testing.T) {
			f := newFixture(t, major)
			f.exec("CREATE TABLE products (id int PRIMARY KEY, name text)")
			f.exec("INSERT INTO products VALUES (1, 'old'), (2, 'other')")
			i := startInstance(t, f.config("  product: {key: 'product:{id}', table: products}"))
			i.waitReady()

			if value, loaded := f.fetch("product:1", product, 1); value != `{"id":1,"name":"old"}` || !loaded {
				t.Fatalf("first read: %s, loaded %v", value, loaded)
			}
			if _, loaded := f.fetch("product:1", product, 1); loaded {
				t.Fatal("the second read was not a hit")
			}
			f.exec("UPDATE products SET name = 'new' WHERE id = 1")
			f.barrier()
			if f.cached("product:1") {
				t.Fatal("the key is still there after the barrier")
			}
			if value, _ := f.fetch("product:1", product, 1); value != `{"id":1,"name":"new"}` {
				t.Fatalf("after the change: %s", value)
			}
			i.stop()
		})
	}
}

// The stream describes a partition's rows by the replica identity of the root:
// an update of the key that shows no old row looks like one that left the key
// as it was. The catalog tells, and nothing of the entry is kept until somebody
// has mended the partition.
func TestAPartitionWithALesserIdentityIsSweptUntilItIsMended(t *testing.T) {
	f := newFixture(t, 15)
	f.exec("CREATE TABLE products (id int, code int NOT NULL, name text, PRIMARY KEY (id)) PARTITION BY RANGE (id)")
	f.exec("CREATE TABLE products_1 PARTITION OF products FOR VALUES FROM (0) TO (1000)")
	f.exec("CREATE UNIQUE INDEX products_1_code ON products_1 (code)")
	f.exec("INSERT INTO products VALUES (1, 10, 'one')")
	i := startInstance(t, f.config("  product: {key: 'product:{id}', table: products, lease: 500ms}"))
	i.waitReady()

	f.exec("ALTER TABLE products_1 REPLICA IDENTITY USING INDEX products_1_code")
	i.eventually("it says so", func() bool { return i.said("needs a person") > 0 })
	f.fetch("product:1", product, 1)
	f.exec("UPDATE products SET id = 2 WHERE id = 1")
	i.eventually("the old key goes", func() bool { return !f.cached("product:1") })
	if n := i.said("needs a person"); n != 1 {
		t.Errorf("said %d times:\n%s", n, i.log)
	}

	f.exec("ALTER TABLE products_1 REPLICA IDENTITY DEFAULT")
	i.eventually("it is mended, and swept for the last time", func() bool {
		return i.saidInOrder("is mended", "the catalog shows a change", "msg=ready")
	})
	f.fetch("product:2", product, 2)
	f.barrier()
	if !f.cached("product:2") {
		t.Error("the entry is still being swept")
	}
	i.stop()
}
