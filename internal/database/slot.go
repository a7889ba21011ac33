package database

import (
	"context"
	"errors"
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
}

// Slot looks at a replication slot. One that does not exist is not usable.
func Slot(ctx context.Context, conn *pgx.Conn, name string) (s SlotState, err error) {
	var confirmed string
	err = conn.QueryRow(ctx, `
		SELECT wal_status IS DISTINCT FROM 'lost' AND confirmed_flush_lsn IS NOT NULL, active, coalesce(confirmed_flush_lsn, '0/0')::text,
		       coalesce(pg_wal_lsn_diff(pg_current_wal_insert_lsn(), confirmed_flush_lsn), 0)::bigint
		FROM pg_replication_slots WHERE slot_name = $1`, name).Scan(&s.Usable, &s.Active, &confirmed, &s.Behind)
	if errors.Is(err, pgx.ErrNoRows) {
		return SlotState{}, nil
	}
	s.Exists = true
	if err == nil {
		s.Confirmed, err = parseLSN([]byte(confirmed))
	}
	if err != nil {
		return SlotState{}, fmt.Errorf("look at slot %s: %w", name, err)
	}
	return s, nil
}
