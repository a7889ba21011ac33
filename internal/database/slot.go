package database

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// SlotState says whether a replication slot can go on.
type SlotState struct {
	Exists bool
	// Usable: it is there, and all of the log that it wants is.
	Usable bool
	// Active: somebody reads it.
	Active bool
	// Confirmed is up to where it will never send again; Behind is how much of
	// the log has been written since, in bytes.
	Confirmed uint64
	Behind    int64
	// Sent is up to where the log was sent to whoever reads it; zero where nobody
	// does, or the role may not see it (pg_read_all_stats).
	Sent uint64
	// Flushed is where the server's log ends, as far as it is sent to anybody.
	Flushed uint64
}

// Slot looks at a replication slot. One that does not exist is not usable.
func Slot(ctx context.Context, conn *pgx.Conn, name string) (s SlotState, err error) {
	var flushed string
	var confirmed, sent *string
	err = conn.QueryRow(ctx, `
		SELECT s.slot_name IS NOT NULL, s.wal_status IS DISTINCT FROM 'lost' AND s.confirmed_flush_lsn IS NOT NULL, coalesce(s.active, false),
		       s.confirmed_flush_lsn::text, coalesce(pg_wal_lsn_diff(pg_current_wal_insert_lsn(), s.confirmed_flush_lsn), 0)::bigint,
		       w.sent_lsn::text, pg_current_wal_flush_lsn()::text
		FROM (VALUES ($1::name)) asked (name)
		LEFT JOIN pg_replication_slots s ON s.slot_name = asked.name
		LEFT JOIN pg_stat_replication w ON w.pid = s.active_pid`, name).Scan(&s.Exists, &s.Usable, &s.Active, &confirmed, &s.Behind, &sent, &flushed)
	for _, lsn := range []struct {
		text *string
		to   *uint64
	}{{confirmed, &s.Confirmed}, {sent, &s.Sent}, {&flushed, &s.Flushed}} {
		if err == nil && lsn.text != nil {
			*lsn.to, err = parseLSN([]byte(*lsn.text))
		}
	}
	if err != nil {
		return SlotState{}, fmt.Errorf("look at slot %s: %w", name, err)
	}
	return s, nil
}
