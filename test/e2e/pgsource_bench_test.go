package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/pgsource"
	"github.com/unstale/unstale/internal/stack"
)

// BenchmarkSourceDrains reads the same log with the source and with
// pg_recvlogical, which writes it to /dev/null, in turns, so that both meet the
// same machine. It reports the median of each and of their ratio; the time of
// an operation means nothing.
func BenchmarkSourceDrains(b *testing.B) {
	const rounds = 5
	for _, c := range []struct {
		name string
		rows int
		fill string
	}{
		{"one transaction", 1_000_000, `INSERT INTO t SELECT i, 'the text of row ' || i FROM generate_series(1, 1000000) i`},
		{"transactions of one row", 200_000,
			`DO $$ BEGIN FOR i IN 1..200000 LOOP INSERT INTO t VALUES (i, 'the text of row ' || i); COMMIT; END LOOP; END $$`},
	} {
		b.Run(c.name, func(b *testing.B) {
			ctx := b.Context()
			server, err := servers.Postgres(ctx, stack.PostgresOptions{Major: 15, Settings: map[string]string{"synchronous_commit": "off"}})
			if err != nil {
				b.Fatal(err)
			}
			defer server.Stop(context.Background())
			reference, err := server.Tool("pg_recvlogical")
			if err != nil {
				b.Fatal(err)
			}
			db, err := pgx.Connect(ctx, server.URL())
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close(context.Background())
			query := func(sql string) (text string) {
				if err := db.QueryRow(ctx, sql, pgx.QueryExecModeSimpleProtocol).Scan(&text); err != nil {
					b.Fatalf("%s: %v", sql, err)
				}
				return text
			}
			execute := func(sql string) {
				if _, err := db.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
					b.Fatalf("%s: %v", sql, err)
				}
			}
			execute(`CREATE TABLE t (id int PRIMARY KEY, v text)`)
			source := benchmarkSource(b, server.URL())
			drain := func(rows int) {
				if _, err := source.Attach(ctx); err != nil {
					b.Fatal(err)
				}
				for read := 0; read < rows; {
					c, err := source.Next(ctx)
					if err != nil {
						b.Fatal(err)
					}
					if c.Op == change.Insert {
						read++
					}
				}
				if err := source.Close(ctx); err != nil {
					b.Fatal(err)
				}
			}
			drain(0) // makes publication and slot
			execute(c.fill)
			end := query(`SELECT pg_current_wal_flush_lsn()::text`)

			var ours, theirs, ratios []float64
			for range rounds {
				// pg_recvlogical confirms what it has read: it gets a slot of its own.
				query(`SELECT slot_name::text FROM pg_copy_logical_replication_slot('bench', 'reference')`)
				begin := time.Now()
				command := exec.CommandContext(ctx, reference, "-d", server.URL(), "-S", "reference", "--start", "-f", "/dev/null",
					"-o", "proto_version=1", "-o", "publication_names=bench", "-E", end, "-F", "0", "-s", "0")
				if out, err := command.CombinedOutput(); err != nil {
					b.Fatalf("pg_recvlogical: %v\n%s", err, out)
				}
				their := time.Since(begin)
				query(`SELECT pg_drop_replication_slot('reference')::text`)

				begin = time.Now()
				drain(c.rows)
				our := time.Since(begin)
				ours = append(ours, float64(c.rows)/our.Seconds())
				theirs = append(theirs, float64(c.rows)/their.Seconds())
				ratios = append(ratios, their.Seconds()/our.Seconds())
			}
			for _, values := range [][]float64{ours, theirs, ratios} {
				slices.Sort(values)
			}
			b.ReportMetric(ours[rounds/2], "rows/s")
			b.ReportMetric(theirs[rounds/2], "pg_recvlogical-rows/s")
			b.ReportMetric(ratios[rounds/2], "ratio")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func benchmarkSource(b *testing.B, url string) *pgsource.Source {
	config, err := pgconn.ParseConfig(url)
	if err != nil {
		b.Fatal(err)
	}
	return pgsource.New(config, pgsource.Options{
		Slot:        "bench",
		Publication: "bench",
		Tables:      []pgsource.Table{{Schema: "public", Name: "t"}},
		Compile:     func(*change.Relation) []int { return []int{0} },
		Origin:      func(ctx context.Context) (change.Origin, error) { return originOf(ctx, url) },
		Logger:      slog.New(slog.DiscardHandler),
	})
}

// originOf is what a superuser sees.
func originOf(ctx context.Context, url string) (origin change.Origin, err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return origin, fmt.Errorf("connect to the database: %w", err)
	}
	defer conn.Close(ctx)
	err = conn.QueryRow(ctx, `SELECT system_identifier, (SELECT oid FROM pg_database WHERE datname = current_database()), timeline_id
		FROM pg_control_system(), pg_control_checkpoint()`).Scan(&origin.System, &origin.Database, &origin.Timeline)
	return origin, err
}
