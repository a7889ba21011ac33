package database

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/unstale/unstale/internal/change"
)

// originStatement reads what identifies a run of a server.
//
// backend_start of the checkpointer is the sign of a restart: the postmaster
// survives the crash of a backend, its children do not, and commits with
// synchronous_commit = off are lost then as well. A role without
// pg_read_all_stats sees no backend_type. From PostgreSQL 15 on there is a
// second sign that everyone may read: recovery from a crash throws the
// statistics away, which sets their stats_reset (tried on 15.18 and 18.6). Of
// those the archiver's are the least likely to be reset by hand, and a reset by
// hand only costs a sweep. PostgreSQL 14 reports the time of reading where its
// collector has no file yet, so it is left out there.
const originStatement = `
SELECT s.system_identifier,
       d.oid,
       CASE WHEN NOT pg_is_in_recovery() THEN pg_walfile_name(pg_current_wal_insert_lsn()) END,
       (extract(epoch FROM (SELECT backend_start FROM pg_stat_activity WHERE backend_type = 'checkpointer')) * 1000000)::bigint,
       (extract(epoch FROM greatest(pg_postmaster_start_time(),
           CASE WHEN current_setting('server_version_num')::int >= 150000
                THEN (SELECT stats_reset FROM pg_stat_archiver) END)) * 1000000)::bigint,
       current_setting('server_version_num'),
       quote_ident(current_user),
       pg_backend_pid()
FROM pg_control_system() s, pg_database d
WHERE d.datname = current_database()`

// identity is what originStatement says.
type identity struct {
	change.Origin
	// checkpointer: StartedAt is the checkpointer's, not the second-best sign.
	checkpointer bool
	version      int
	role         string // quoted
	backend      string // process id
}

func readIdentity(ctx context.Context, conn *pgconn.PgConn) (identity, error) {
	results, err := conn.Exec(ctx, originStatement).ReadAll()
	if err != nil {
		return identity{}, fmt.Errorf("identify the server: %w", err)
	}
	if len(results) != 1 {
		return identity{}, errors.New("identify the server: not one answer")
	}
	return parseIdentity(results[0])
}

// parseIdentity reads the answer to originStatement.
func parseIdentity(result *pgconn.Result) (identity, error) {
	if len(result.Rows) != 1 {
		return identity{}, errors.New("identify the server: the answer is not one row")
	}
	var row [8]string
	for i, value := range result.Rows[0] {
		row[i] = string(value)
	}
	if row[2] == "" {
		return identity{}, fmt.Errorf("%w: it is a standby (pg_is_in_recovery)", change.ErrOriginChanged)
	}

	id := identity{checkpointer: row[3] != "", role: row[6], backend: row[7]}
	started := row[3]
	if !id.checkpointer {
		started = row[4]
	}
	system, errSystem := strconv.ParseInt(row[0], 10, 64)
	database, errDatabase := strconv.ParseUint(row[1], 10, 32)
	timeline, errTimeline := parseTimeline([]byte(row[2]))
	micros, errStarted := strconv.ParseInt(started, 10, 64)
	version, errVersion := strconv.Atoi(row[5])
	if err := errors.Join(errSystem, errDatabase, errTimeline, errStarted, errVersion); err != nil {
		return identity{}, fmt.Errorf("identify the server by %q: %w", row, err)
	}
	id.version = version
	id.Origin = change.Origin{
		System:    uint64(system),
		Database:  uint32(database),
		Timeline:  timeline,
		StartedAt: time.UnixMicro(micros).UTC(),
	}
	return id, nil
}

// differs returns nil, or change.ErrOriginChanged with everything that is different.
func differs(got, want change.Origin) error {
	var what []string
	if got.System != want.System {
		what = append(what, fmt.Sprintf("its system identifier is %d, not %d", got.System, want.System))
	}
	if got.Database != want.Database {
		what = append(what, fmt.Sprintf("its database has the oid %d, not %d", got.Database, want.Database))
	}
	if got.Timeline != want.Timeline {
		what = append(what, fmt.Sprintf("it is on timeline %d, not %d", got.Timeline, want.Timeline))
	}
	if !got.StartedAt.Equal(want.StartedAt) {
		what = append(what, fmt.Sprintf("it started at %s, not at %s", stamp(got.StartedAt), stamp(want.StartedAt)))
	}
	if len(what) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", change.ErrOriginChanged, strings.Join(what, ", "))
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000Z") }
