package database

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/unstale/unstale/internal/change"
)

// A Confirmation is how far the reader of a slot has confirmed that it has the log,
// by the word of the primary that has both.
type Confirmation struct {
	Origin change.Origin
	At     change.Position
}

// Confirmations asks for that of one slot, on a connection that is opened when it is
// needed and again after it broke. It is not safe for concurrent use.
type Confirmations struct {
	config *pgx.ConnConfig
	slot   string
	conn   *pgconn.PgConn
}

// NewConfirmations will connect as config says.
func NewConfirmations(config *pgx.ConnConfig, slot string) *Confirmations {
	return &Confirmations{config: config.Copy(), slot: slot}
}

// Close ends the connection.
func (c *Confirmations) Close() {
	if c.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.conn.Close(ctx) // the session holds nothing
	c.conn = nil
}

// Ask asks once. A standby is change.ErrOriginChanged; a slot that is not there, or
// of another database, a *change.Refusal.
func (c *Confirmations) Ask(ctx context.Context) (Confirmation, error) {
	ctx, cancel := context.WithTimeout(ctx, gateTimeout)
	defer cancel()
	answer, err := c.ask(ctx)
	if err != nil && !change.IsRefusal(err) {
		c.Close()
	}
	return answer, err
}

func (c *Confirmations) ask(ctx context.Context) (Confirmation, error) {
	if c.conn == nil || c.conn.IsClosed() {
		conn, err := pgconn.ConnectConfig(ctx, &c.config.Config)
		if err != nil {
			return Confirmation{}, fmt.Errorf("connect to ask for slot %s: %w", c.slot, err)
		}
		c.conn = conn
	}
	// One message is one transaction, so no pooler parts the two: the position is of
	// the server that says which it is.
	statement := originStatement + fmt.Sprintf(`;
SELECT confirmed_flush_lsn FROM pg_replication_slots
WHERE slot_name = '%s' AND database = current_database() AND wal_status IS DISTINCT FROM 'lost'`, strings.ReplaceAll(c.slot, "'", "''"))
	results, err := c.conn.Exec(ctx, statement).ReadAll()
	if err != nil {
		return Confirmation{}, fmt.Errorf("ask for slot %s: %w", c.slot, err)
	}
	if len(results) != 2 {
		return Confirmation{}, errors.New("ask for the slot: not two answers")
	}
	id, err := parseIdentity(results[0])
	if err != nil {
		return Confirmation{}, err
	}
	if rows := results[1].Rows; len(rows) != 1 || len(rows[0][0]) == 0 {
		return Confirmation{}, &change.Refusal{
			Problem: fmt.Sprintf("database %s has no replication slot %s that can be read", c.config.Database, c.slot),
			Mend:    "write the slot.name of the connector into source.kafka.connect.slot",
		}
	}
	lsn, err := parseLSN(results[1].Rows[0][0])
	if err != nil {
		return Confirmation{}, fmt.Errorf("ask for slot %s: %w", c.slot, err)
	}
	return Confirmation{id.Origin, change.Position{Timeline: id.Timeline, LSN: lsn}}, nil
}
