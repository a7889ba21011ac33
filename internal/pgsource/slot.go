package pgsource

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/unstale/unstale/internal/change"
)

// patience is how long something may wait before it is said in the log.
const patience = 2 * time.Second

// freeSlot returns the slot, or nil if there is none, if it is ours to take.
func (s *Source) freeSlot(ctx context.Context, admin *catalog) (*slot, error) {
	name := s.options.Slot
	slot, err := admin.slot(ctx, name)
	if err != nil || slot == nil {
		return nil, err
	}
	if err := slot.ours(name, admin.databaseName); err != nil {
		return nil, err
	}
	if slot.activePID != 0 {
		return nil, fmt.Errorf("slot %s is in use by the process %d of the server: %w", name, slot.activePID, change.ErrInUse)
	}
	return slot, nil
}

// prepareSlot makes sure of a slot that can be read, and notes why changes are
// missing if it has to be made.
func (s *Source) prepareSlot(ctx context.Context, admin *catalog, link *pgconn.PgConn) error {
	name := s.options.Slot
	slot, err := s.freeSlot(ctx, admin)
	if err != nil {
		return err
	}
	switch {
	case slot == nil:
		if s.untold.slot == "" { // or we dropped it, and said why
			s.untold.slot = "slot created"
		}
	case slot.lost != "":
		s.untold.slot = "slot was lost: " + slot.lost
	case s.untold.unpublished:
		// What was written without a publication can never be read by it: the
		// server fails on every attempt, or skips it and says nothing.
		s.untold.slot = "publication created behind the slot"
	case s.replaceSlot:
		s.untold.slot = "slot reached back to before its publication"
	default:
		if s.options.Failover && admin.version >= 170000 && !slot.failover {
			if _, err := ask(ctx, link, fmt.Sprintf("ALTER_REPLICATION_SLOT %s (FAILOVER true)", quoteName(name))); err != nil {
				return fmt.Errorf("make slot %s a failover slot: %w", name, err)
			}
		}
		return nil
	}
	if slot != nil {
		if _, err := ask(ctx, link, "DROP_REPLICATION_SLOT "+quoteName(name)); err != nil {
			return fmt.Errorf("drop slot %s (%s): %w", name, s.untold.slot, err)
		}
	}
	if err := s.createSlot(ctx, admin, link); err != nil {
		return err
	}
	s.untold.unpublished, s.replaceSlot = false, false
	return nil
}

func (s *Source) createSlot(ctx context.Context, admin *catalog, link *pgconn.PgConn) error {
	name := s.options.Slot
	command := fmt.Sprintf("CREATE_REPLICATION_SLOT %s LOGICAL pgoutput NOEXPORT_SNAPSHOT", quoteName(name))
	if s.options.Failover && admin.version >= 170000 {
		command = fmt.Sprintf("CREATE_REPLICATION_SLOT %s LOGICAL pgoutput (SNAPSHOT 'nothing', FAILOVER true)", quoteName(name))
	}
	// The server waits for the transactions that are running.
	said := time.AfterFunc(patience, func() {
		s.options.Logger.Warn("creating the slot waits for running transactions to end", "slot", name)
	})
	_, err := simple(ctx, link, command)
	said.Stop()
	switch {
	case isCode(err, codeLimitExceeded):
		return &change.Refusal{
			Problem: fmt.Sprintf("create slot %s: %s", name, message(err)),
			Mend:    "drop a slot that is not needed (SELECT * FROM pg_replication_slots), or ALTER SYSTEM SET max_replication_slots to more and restart PostgreSQL",
		}
	case isCode(err, codeInsufficientPrivilege):
		return admin.refuseReplication(err)
	case err != nil:
		return fmt.Errorf("create slot %s: %w", name, err)
	}
	return nil
}

// slot is what matters of a row of pg_replication_slots.
type slot struct {
	plugin, kind, database string
	activePID              uint32
	lost                   string // why it can no longer be read
	failover               bool
}

// ours checks that the slot is one that we could have made.
func (s *slot) ours(name, database string) error {
	problem := ""
	switch {
	case s.kind != "logical":
		problem = "is a physical slot"
	case s.plugin != "pgoutput":
		problem = fmt.Sprintf("has the output plugin %s, not pgoutput", s.plugin)
	case s.database != database:
		problem = fmt.Sprintf("is of database %s, not %s", s.database, database)
	default:
		return nil
	}
	return &change.Refusal{
		Problem: fmt.Sprintf("slot %s %s: it belongs to somebody else", name, problem),
		Mend:    "set source.postgres.slot to another name, or, if nobody needs it, SELECT pg_drop_replication_slot(" + quoteText(name) + ");",
	}
}
