package database

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/unstale/unstale/internal/change"
)

// gateTimeout is how long one answer may take, connecting included. A healthy
// server needs 0.2 ms; one that hangs must become an error, for nothing is
// applied while the gate waits.
const gateTimeout = 5 * time.Second

const gateName = "unstale_gate"

// gateStatement is one row. On a standby pg_current_snapshot() leaves the
// running transactions out and so would open the gate for them: that is why
// every answer says what the server is. The backend's process id tells apart
// the sessions that a connection pooler may put behind one connection. The age of
// the first number that a transaction can have tells the next one, without giving
// it to anybody.
const gateStatement = `
SELECT pg_current_snapshot()::text,
       CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_insert_lsn() END,
       CASE WHEN NOT pg_is_in_recovery() THEN pg_walfile_name(pg_current_wal_insert_lsn()) END,
       pg_backend_pid(),
       age('3'::xid)`

// Options of a [Gate].
type Options struct {
	// Timeout bounds one answer, connecting included. Default: 5 s.
	Timeout time.Duration
	// Logger hears once what the role may not see. Default: silence.
	Logger *slog.Logger
}

// A Gate says which transactions are visible on the primary. It owns one
// connection, opened when it is first needed and again after it broke, and
// answers only for the origin that it expects. It is not safe for concurrent
// use.
type Gate struct {
	config   *pgx.ConnConfig
	timeout  time.Duration
	logger   *slog.Logger
	expected change.Origin

	conn *pgconn.PgConn
	// verified: conn was seen to lead to expected, in the process backend.
	verified bool
	backend  string
	warned   bool
}

// NewGate returns a gate that will connect as config says.
func NewGate(config *pgx.ConnConfig, options Options) *Gate {
	if options.Timeout <= 0 {
		options.Timeout = gateTimeout
	}
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	return &Gate{config: config.Copy(), timeout: options.Timeout, logger: options.Logger}
}

// Expect sets the origin that Snapshot answers for.
func (g *Gate) Expect(origin change.Origin) {
	g.expected = origin
	g.verified = false
}

// Close ends the connection. The gate may be used again.
func (g *Gate) Close() {
	if g.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	// The session holds nothing, so an unclean end loses nothing.
	_ = g.conn.Close(ctx)
	g.conn = nil
	g.verified = false
}

// Origin identifies the server as it is now. A standby is
// change.ErrOriginChanged.
//
// Read it while the stream is connected: a restart before would have broken the
// stream, and one after is noticed against what this returned.
func (g *Gate) Origin(ctx context.Context) (change.Origin, error) {
	ctx, cancel := context.WithTimeout(ctx, g.timeout)
	defer cancel()
	var id identity
	err := g.ask(ctx, func() (err error) {
		id, err = readIdentity(ctx, g.conn)
		return err
	})
	if err != nil {
		return change.Origin{}, err
	}
	g.warn(id)
	return id.Origin, nil
}

// Snapshot reads into s what is visible now. After an error nothing is visible
// in s. change.ErrOriginChanged says that waiting will not help: attach again.
// Any other error is the world's and may pass.
func (g *Gate) Snapshot(ctx context.Context, s *change.Snapshot) error {
	ctx, cancel := context.WithTimeout(ctx, g.timeout)
	defer cancel()
	err := g.ask(ctx, func() error {
		if !g.verified {
			if err := g.verify(ctx); err != nil {
				return err
			}
		}
		return g.read(ctx, s)
	})
	if err != nil {
		*s = change.Snapshot{XIP: s.XIP[:0]}
	}
	return err
}

// ask runs question on a connection. One that has been idle may be dead without
// anybody having said so; then the question is asked again on a new one.
func (g *Gate) ask(ctx context.Context, question func() error) error {
	kept := g.conn != nil && !g.conn.IsClosed()
	err := g.attempt(ctx, question)
	if err != nil && kept && g.conn == nil && ctx.Err() == nil && !errors.Is(err, change.ErrOriginChanged) {
		err = g.attempt(ctx, question)
	}
	return err
}

func (g *Gate) attempt(ctx context.Context, question func() error) error {
	if err := g.connect(ctx); err != nil {
		return err
	}
	err := question()
	if err != nil {
		// Whatever went wrong, the next answer begins with a connection whose
		// server has been looked at.
		g.Close()
	}
	return err
}

func (g *Gate) connect(ctx context.Context) error {
	if g.conn != nil && !g.conn.IsClosed() {
		return nil
	}
	g.conn, g.verified = nil, false
	conn, err := pgconn.ConnectConfig(ctx, &g.config.Config)
	if goingDown(err) {
		return &closed{err}
	}
	if err != nil {
		return fmt.Errorf("connect the gate: %w", err)
	}
	if _, err := conn.Prepare(ctx, gateName, gateStatement, nil); err != nil {
		_ = conn.Close(ctx)
		return fmt.Errorf("prepare the gate's query: %w", err)
	}
	g.conn = conn
	return nil
}

// closed is change.ErrOriginChanged of a server that lets nobody in: it may well be
// the same one, and is left for another run of it.
type closed struct{ err error }

func (e *closed) Error() string {
	return fmt.Sprintf("the database shuts down, or has not come up yet: connect the gate: %v", e.err)
}

func (e *closed) Unwrap() []error { return []error{change.ErrOriginChanged, e.err} }

// goingDown reports that the server is shutting down, or has not come up again
// (SQLSTATE cannot_connect_now). A server that shuts down waits for a stream to
// confirm everything it was sent (WalSndDone), and what is not visible yet is
// never confirmed once the gate is closed: whoever holds a stream must let go.
func goingDown(err error) bool {
	said, ok := errors.AsType[*pgconn.PgError](err)
	return ok && said.Code == "57P03"
}

// verify makes sure that the connection leads to the expected run of the
// expected server, and notes the backend that said so.
func (g *Gate) verify(ctx context.Context) error {
	id, err := readIdentity(ctx, g.conn)
	if err != nil {
		return err
	}
	if err := differs(id.Origin, g.expected); err != nil {
		return err
	}
	g.warn(id)
	g.backend = id.backend
	g.verified = true
	return nil
}

func (g *Gate) read(ctx context.Context, s *change.Snapshot) error {
	result := g.conn.ExecPrepared(ctx, gateName, nil, nil, nil)
	rows := 0
	var errRow error
	for result.NextRow() {
		rows++
		errRow = g.scan(result.Values(), s)
	}
	if _, err := result.Close(); err != nil {
		return fmt.Errorf("ask the gate: %w", err)
	}
	if errRow == nil && rows != 1 {
		return fmt.Errorf("ask the gate: %d rows, want 1", rows)
	}
	return errRow
}

func (g *Gate) scan(row [][]byte, s *change.Snapshot) error {
	snapshot, lsn, walfile, backend := row[0], row[1], row[2], row[3]
	if lsn == nil || walfile == nil {
		return fmt.Errorf("%w: it is a standby (pg_is_in_recovery)", change.ErrOriginChanged)
	}
	timeline, err := parseTimeline(walfile)
	if err != nil {
		return fmt.Errorf("ask the gate: %w", err)
	}
	if timeline != g.expected.Timeline {
		return fmt.Errorf("%w: it is on timeline %d, not %d", change.ErrOriginChanged, timeline, g.expected.Timeline)
	}
	if string(backend) != g.backend {
		// A pooler has moved us to a session that may be of a server restarted
		// since.
		return fmt.Errorf("ask the gate: the session moved from backend %s to %s: a connection pooler stands between, `database` must be the address of the server itself", g.backend, backend)
	}
	if s.InsertLSN, err = parseLSN(lsn); err != nil {
		return fmt.Errorf("ask the gate: %w", err)
	}
	if err := parseSnapshot(snapshot, s); err != nil {
		return fmt.Errorf("ask the gate: %w", err)
	}
	if s.Next, err = nextAfter(s.XMax, row[4]); err != nil {
		return fmt.Errorf("ask the gate: %w", err)
	}
	return nil
}

// nextAfter returns the number of the next transaction, which is not below xmax, by
// the age of the first one: an int32 that wraps around.
func nextAfter(xmax uint64, age []byte) (uint64, error) {
	n, err := strconv.ParseInt(string(age), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("age of a transaction: %w", err)
	}
	const first = 3
	next := xmax&^0xffffffff | uint64(uint32(n)+first)
	if next < xmax {
		next += 1 << 32
	}
	return next, nil
}

func (g *Gate) warn(id identity) {
	if id.checkpointer || g.warned {
		return
	}
	g.warned = true
	unnoticed := "a server that restarts by itself after one of its processes crashed"
	if id.version >= 150000 {
		unnoticed = "nothing, but pg_stat_reset_shared('archiver') is taken for a restart"
	}
	g.logger.Warn("the role may not see when the server's processes started",
		"unnoticed", unnoticed, "mend", grantStats(id.role))
}

func grantStats(quotedRole string) string {
	return "GRANT pg_read_all_stats TO " + quotedRole + ";"
}

// parseSnapshot reads the text of a pg_snapshot, "xmin:xmax:xip,xip", into s
// and keeps the memory of s.XIP.
// https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-PG-SNAPSHOT-PARTS
func parseSnapshot(text []byte, s *change.Snapshot) error {
	xmin, rest, ok := bytes.Cut(text, []byte{':'})
	xmax, list, ok2 := bytes.Cut(rest, []byte{':'})
	if !ok || !ok2 {
		return fmt.Errorf("snapshot %q is not xmin:xmax:xip", text)
	}
	var err, err2 error
	s.XMin, err = strconv.ParseUint(string(xmin), 10, 64)
	s.XMax, err2 = strconv.ParseUint(string(xmax), 10, 64)
	if err = errors.Join(err, err2); err != nil {
		return fmt.Errorf("snapshot %q: %w", text, err)
	}
	if s.XMin > s.XMax {
		return fmt.Errorf("snapshot %q: xmin is above xmax", text)
	}
	s.XIP = s.XIP[:0]
	for last := uint64(0); len(list) > 0; {
		var id []byte
		var more bool
		id, list, more = bytes.Cut(list, []byte{','})
		xid, err := strconv.ParseUint(string(id), 10, 64)
		if err != nil {
			return fmt.Errorf("snapshot %q: %w", text, err)
		}
		// Visible searches by halves, so a list out of order would open the
		// gate for a running transaction.
		if xid < s.XMin || xid >= s.XMax || len(s.XIP) > 0 && xid <= last || more && len(list) == 0 {
			return fmt.Errorf("snapshot %q: the list of running transactions is out of order", text)
		}
		s.XIP = append(s.XIP, xid)
		last = xid
	}
	return nil
}

// parseLSN reads a pg_lsn, "16/B374D848".
func parseLSN(text []byte) (uint64, error) {
	high, low, ok := bytes.Cut(text, []byte{'/'})
	if !ok {
		return 0, fmt.Errorf("LSN %q has no slash", text)
	}
	h, err := strconv.ParseUint(string(high), 16, 32)
	l, err2 := strconv.ParseUint(string(low), 16, 32)
	if err = errors.Join(err, err2); err != nil {
		return 0, fmt.Errorf("LSN %q: %w", text, err)
	}
	return h<<32 | l, nil
}

// parseTimeline reads the timeline from the name of a WAL file, whose first
// eight hexadecimal digits it is.
func parseTimeline(walfile []byte) (uint32, error) {
	if len(walfile) != 24 {
		return 0, fmt.Errorf("WAL file name %q has not 24 digits", walfile)
	}
	timeline, err := strconv.ParseUint(string(walfile[:8]), 16, 32)
	if err != nil {
		return 0, fmt.Errorf("WAL file name %q: %w", walfile, err)
	}
	return uint32(timeline), nil
}
