package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/redis/go-redis/v9"

	"github.com/unstale/unstale/internal/database"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/pgsource"
	"github.com/unstale/unstale/internal/plan"
	"github.com/unstale/unstale/internal/stack"
)

// A bench has the servers and gathers the report.
type bench struct {
	sizes   sizes
	major   int
	say     func(line string)
	profile profiler
	report  report

	stack    *stack.Stack
	postgres *stack.Postgres
	redis    *stack.Redis
	conn     *pgx.Conn
	rdb      *redis.Client
	pipeline pipeline
	dir      string            // of what was built
	built    map[string]string // by name

	slots, groups, services int  // that were ever named
	shopped                 bool // there are the tables of the queries
	controlDir              string
}

const (
	publication = "bench"
	keyPrefix   = "product:"
	keyTemplate = keyPrefix + "{id}"
)

// postgresSettings keep the server's own housekeeping out of what is measured.
// max_wal_size, checkpoint_timeout and autovacuum do not change how the log is
// decoded and sent.
var postgresSettings = map[string]string{
	"max_wal_size":       "32GB",
	"checkpoint_timeout": "1h",
	"autovacuum":         "off",
	"shared_buffers":     "512MB",
}

func (b *bench) start(ctx context.Context) (err error) {
	b.stack = stack.New(stack.Options{Say: b.say})
	b.postgres, err = b.stack.Postgres(ctx, stack.PostgresOptions{Major: b.major, Settings: postgresSettings})
	if err != nil {
		return err
	}
	if b.redis, err = b.stack.Redis(ctx, stack.RedisOptions{PreferRedis: true}); err != nil {
		return err
	}
	if b.conn, err = pgx.Connect(ctx, b.postgres.URL()); err != nil {
		return err
	}
	options, err := redis.ParseURL(b.redis.URL())
	if err != nil {
		return err
	}
	options.MaxRetries = -1
	b.rdb = redis.NewClient(options)
	b.report.Environment = environment{
		PostgreSQL: b.postgres.Name(), Redis: b.redis.Name(), Go: runtime.Version(), CPUs: runtime.NumCPU(), CPU: cpuModel(),
		Sizes: b.sizes,
	}
	b.say(fmt.Sprintf("filling a table with %d rows", b.sizes.Rows))
	return b.exec(ctx,
		`CREATE TABLE products (
			id bigint PRIMARY KEY, category_id int NOT NULL, name text NOT NULL, description text NOT NULL,
			price numeric(10,2) NOT NULL, stock int NOT NULL, updated_at timestamptz NOT NULL
		) WITH (fillfactor = 50)`,
		`CREATE PUBLICATION bench FOR TABLE products`,
		fmt.Sprintf(`INSERT INTO products
			SELECT i, i %% 1000, 'product number ' || i, repeat('x', 40 + i %% 60), (i %% 10000) / 100.0, i %% 500, now()
			FROM generate_series(0, %d) i`, b.sizes.Rows),
		`CREATE PROCEDURE change_one_by_one(first int, last int) LANGUAGE plpgsql AS $$
		BEGIN
			FOR i IN first .. last LOOP
				UPDATE products SET price = price + 1 WHERE id = i;
				COMMIT;
			END LOOP;
		END $$`,
		`CREATE PROCEDURE change_by_hundreds(rows int) LANGUAGE plpgsql AS $$
		BEGIN
			FOR i IN 1 .. rows BY 100 LOOP
				UPDATE products SET price = price + 1 WHERE id BETWEEN i AND i + 99;
				COMMIT;
			END LOOP;
		END $$`,
		`CREATE PROCEDURE change_at_a_pace(session int, changes int, every interval) LANGUAGE plpgsql AS $$
		DECLARE due timestamptz := clock_timestamp();
		BEGIN
			FOR i IN 1 .. changes LOOP
				UPDATE products SET price = price + 1 WHERE id = 1 + session * 10000 + (i * 7919) % 10000;
				COMMIT;
				due := due + every;
				PERFORM pg_sleep(extract(epoch FROM due - clock_timestamp()));
			END LOOP;
		END $$`,
		`VACUUM ANALYZE products`,
		`CHECKPOINT`,
	)
}

func (b *bench) close() error {
	if b.rdb != nil {
		b.rdb.Close()
	}
	err := b.pipeline.close()
	if b.dir != "" {
		err = errors.Join(err, os.RemoveAll(b.dir))
	}
	return errors.Join(err, b.stack.Close())
}

// exec runs each statement in its own transaction.
func (b *bench) exec(ctx context.Context, statements ...string) error {
	for _, sql := range statements {
		if _, err := b.conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", strings.Join(strings.Fields(sql), " "), err)
		}
	}
	return nil
}

// newSlots creates n slots that stand here.
func (b *bench) newSlots(ctx context.Context, n int) ([]string, error) {
	names := make([]string, n)
	for i := range names {
		b.slots++
		names[i] = fmt.Sprintf("bench_%d", b.slots)
		if _, err := b.conn.Exec(ctx, "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", names[i]); err != nil {
			return nil, fmt.Errorf("create slot: %w", err)
		}
	}
	return names, nil
}

func (b *bench) dropSlots(ctx context.Context, names []string) error {
	for _, name := range names {
		if _, err := b.conn.Exec(ctx, "SELECT pg_drop_replication_slot($1)", name); err != nil {
			return fmt.Errorf("drop slot %s: %w", name, err)
		}
	}
	return nil
}

// mark returns a position behind everything that was committed, and commits a
// change of row 0, which is there for nothing else, behind it: a reader that is to stop at the position sees that it has
// passed it at once. It also flushes what was committed asynchronously.
func (b *bench) mark(ctx context.Context) (lsn uint64, err error) {
	var text string
	if err := b.conn.QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()::text").Scan(&text); err != nil {
		return 0, fmt.Errorf("read the insert position: %w", err)
	}
	if err := b.exec(ctx, "SET synchronous_commit = on", "UPDATE products SET stock = stock + 1 WHERE id = 0"); err != nil {
		return 0, err
	}
	var high, low uint32
	if _, err := fmt.Sscanf(text, "%X/%X", &high, &low); err != nil {
		return 0, fmt.Errorf("insert position %q: %w", text, err)
	}
	return uint64(high)<<32 | uint64(low), nil
}

// reader is what stands before the sink: source, planner and gate, wired as the
// service wires them.
type reader struct {
	source  *pgsource.Source
	planner *plan.Planner
	gate    *database.Gate
}

// newReader returns one with these entries; with none, one that drops products.
func (b *bench) newReader(slot string, entries ...plan.Entry) (*reader, error) {
	if len(entries) == 0 {
		template, err := guard.ParseTemplate(keyTemplate)
		if err != nil {
			return nil, err
		}
		entries = []plan.Entry{{Name: "product", Key: template, Schema: "public", Table: "products", Lease: guard.Lease}}
	}
	config, err := pgx.ParseConfig(b.postgres.URL())
	if err != nil {
		return nil, err
	}
	sourceConfig, err := pgconn.ParseConfig(b.postgres.URL())
	if err != nil {
		return nil, err
	}
	r := &reader{
		planner: plan.New(entries),
		gate:    database.NewGate(config, database.Options{}),
	}
	tables := []pgsource.Table{}
	for _, e := range entries {
		names := []pgsource.Table{{Schema: e.Schema, Name: e.Table}}
		for _, d := range e.Dependencies {
			names = append(names, pgsource.Table{Schema: d.Schema, Name: d.Table})
		}
		for _, name := range names {
			if name.Name != "" && !slices.Contains(tables, name) {
				tables = append(tables, name)
			}
		}
	}
	r.source = pgsource.New(sourceConfig, pgsource.Options{
		Slot: slot, Publication: publication, Tables: tables,
		Compile: r.planner.Compile, Origin: r.gate.Origin, Logger: slog.New(slog.DiscardHandler),
	})
	return r, nil
}

func (r *reader) close(ctx context.Context) error {
	err := r.source.Close(ctx)
	r.gate.Close()
	return err
}

// cpuModel is the processor's name, empty if it does not tell.
func cpuModel() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

var errShort = errors.New("the peer ended before it had everything")
