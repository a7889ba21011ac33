package pgsource

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/unstale/unstale/internal/change"
)

// applicationName is ours in pg_stat_activity and pg_stat_replication.
const applicationName = "unstale"

// answerMax is how long the server may take to let us in, and for an answer
// that waits for nobody else. Statements that wait for locks or transactions
// have no limit of their own.
const answerMax = 30 * time.Second

// Attach takes the stream over: it makes what is missing of publication and
// slot, starts replication, and returns where it stands. An earlier attachment
// ends first.
//
// The publication comes before the slot: a slot cannot read what was written
// before its publication was there.
func (s *Source) Attach(ctx context.Context) (change.Attachment, error) {
	if err := s.detach(ctx); err != nil {
		// The connection is gone, which is what was wanted. The server notices when
		// it writes; until then the slot is busy, and that error names the process.
		s.options.Logger.Debug("the last stream did not end cleanly", "slot", s.options.Slot, "error", err)
	}
	a, err := s.attach(ctx)
	if err != nil {
		return change.Attachment{}, fmt.Errorf("attach to slot %s: %w", s.options.Slot, err)
	}
	return a, nil
}

func (s *Source) attach(ctx context.Context) (change.Attachment, error) {
	admin, err := s.connectCatalog(ctx)
	if err != nil {
		return change.Attachment{}, err
	}
	defer admin.close()
	if err := admin.ready(ctx); err != nil {
		return change.Attachment{}, err
	}
	// Who waits for another instance to end changes nothing.
	if _, err := s.freeSlot(ctx, admin); err != nil {
		return change.Attachment{}, err
	}
	if err := s.publish(ctx, admin); err != nil {
		return change.Attachment{}, err
	}

	link, err := s.connectReplication(ctx, admin)
	if err != nil {
		return change.Attachment{}, err
	}
	defer func() {
		if link != nil {
			closeNow(link)
		}
	}()
	system, err := identify(ctx, link)
	if err != nil {
		return change.Attachment{}, err
	}
	if err := s.prepareSlot(ctx, admin, link); err != nil {
		return change.Attachment{}, err
	}
	senderTimeout, err := walSenderTimeout(ctx, link)
	if err != nil {
		return change.Attachment{}, err
	}

	// From here on the connection is ours alone: its bytes are read by wire.
	if err := syncConn(ctx, link); err != nil {
		return change.Attachment{}, fmt.Errorf("take over the replication connection: %w", err)
	}
	hijacked, err := link.Hijack()
	if err != nil {
		return change.Attachment{}, fmt.Errorf("take over the replication connection: %w", err)
	}
	link = nil
	conn := hijacked.Conn
	stream, begin, origin, err := s.start(ctx, admin, conn, hijacked.PID, system)
	if err != nil {
		cut(conn)
		return change.Attachment{}, err
	}

	gap := s.untold.gap()
	s.stream, s.conn, s.untold, s.replaceSlot = stream, conn, untold{}, false
	reporter := newReporter(conn, statusInterval(senderTimeout), begin)
	stream.reply = reporter.ask
	s.mu.Lock()
	s.reporter = reporter
	s.mu.Unlock()
	return change.Attachment{
		Origin: origin,
		Streams: []change.Stream{{
			Name:      fmt.Sprintf("%d:%d:%s", system.id, admin.database, s.options.Slot),
			Confirmed: begin,
			Gap:       gap,
		}},
	}, nil
}

// start starts replication on the raw connection. When it returns, the slot is
// held and not one status update has been sent.
func (s *Source) start(ctx context.Context, admin *catalog, conn net.Conn, pid uint32, system system) (
	started *stream, begin change.Position, origin change.Origin, err error,
) {
	s.relations.beginSession()
	st := &stream{
		wire:          newWire(conn, s.options.BufferBytes),
		relations:     s.relations,
		valueBytesMax: s.options.ValueBytesMax,
		rowBytesMax:   s.options.RowBytesMax,
		timeline:      system.timeline,
	}
	defer st.wire.unwatch() // ctx is of this call only
	command := fmt.Sprintf("START_REPLICATION SLOT %s LOGICAL 0/0 (proto_version '1', publication_names %s)",
		quoteName(s.options.Slot), quoteText(quoteName(s.options.Publication)))
	if err := sendQuery(conn, command); err != nil {
		return nil, begin, origin, fmt.Errorf("start replication: %w", err)
	}
	if err := st.awaitStart(ctx); err != nil {
		return nil, begin, origin, fmt.Errorf("start replication: %w", err)
	}

	// Only now, with the slot held, can nobody move it any more.
	confirmed, err := admin.confirmedBy(ctx, s.options.Slot, pid)
	if err != nil {
		return nil, begin, origin, err
	}
	st.last = confirmed
	begin = change.Position{Timeline: system.timeline, LSN: confirmed}

	// A restart of the server after this is the end of our connection too, so
	// what is seen now holds for as long as this attachment.
	origin, err = s.options.Origin(ctx)
	if err != nil {
		return nil, begin, origin, fmt.Errorf("identify the server of the database connection: %w", err)
	}
	if err := system.same(origin, admin.database); err != nil {
		return nil, begin, origin, err
	}
	return st, begin, origin, nil
}

// awaitStart reads up to the message that begins the stream.
func (s *stream) awaitStart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerMax)
	defer cancel()
	for {
		if err := s.wire.need(ctx, messageHeader); err != nil {
			return err
		}
		kind, n, err := frame(s.wire.buffered())
		if err != nil {
			return err
		}
		if n > len(s.wire.buffer) {
			return fmt.Errorf("message %q of %d bytes before the stream", kind, n)
		}
		b, err := s.wire.take(ctx, n)
		if err != nil {
			return err
		}
		switch kind {
		case 'W': // CopyBothResponse
			return nil
		case 'E':
			return serverError(b[messageHeader:])
		case 'N', 'S':
		default:
			return fmt.Errorf("message %q before the stream: unknown", kind)
		}
	}
}

// sendQuery sends a simple query.
func sendQuery(conn net.Conn, query string) error {
	b := []byte{'Q'}
	b = binary.BigEndian.AppendUint32(b, uint32(4+len(query)+1))
	b = append(append(b, query...), 0)
	_, err := conn.Write(b)
	return err
}

// statusInterval is how often the server hears of us: several times within the
// time after which it gives up.
func statusInterval(senderTimeout time.Duration) time.Duration {
	if senderTimeout <= 0 {
		return statusEvery
	}
	return min(statusEvery, senderTimeout/6)
}

// The settings of the replication connection. Text depends on them, and a role
// or a database may have its own: a value must be the same bytes everywhere.
// No timeout may end a stream that is merely quiet.
var replicationParams = map[string]string{
	"application_name":     applicationName,
	"replication":          "database",
	"client_encoding":      "UTF8",
	"datestyle":            "ISO",
	"timezone":             "UTC",
	"intervalstyle":        "postgres",
	"bytea_output":         "hex",
	"extra_float_digits":   "1",
	"statement_timeout":    "0",
	"lock_timeout":         "0",
	"idle_session_timeout": "0",
}

// connect opens a connection of which the end is noticed, also if nobody says
// it.
func (s *Source) connect(ctx context.Context, params map[string]string, wrap func(net.Conn) net.Conn) (*pgconn.PgConn, error) {
	config := s.config.Copy()
	setParams(config, params)
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = answerMax
	}
	dial := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		noticeDeadPeer(conn)
		return wrap(conn), nil
	}
	return pgconn.ConnectConfig(ctx, config)
}

// connectReplication opens the connection that will carry the stream.
func (s *Source) connectReplication(ctx context.Context, admin *catalog) (*pgconn.PgConn, error) {
	link, err := s.connect(ctx, replicationParams, func(conn net.Conn) net.Conn { return newNapper(conn) })
	if isCode(err, codeInsufficientPrivilege) {
		return nil, admin.refuseReplication(err)
	}
	if err != nil {
		return nil, fmt.Errorf("open the replication connection: %w", err)
	}
	return link, nil
}

// setParams sets run-time parameters, whatever the spelling of those that the
// configuration has already: names are case-insensitive, and the server would
// get both.
func setParams(config *pgconn.Config, params map[string]string) {
	if config.RuntimeParams == nil {
		config.RuntimeParams = make(map[string]string)
	}
	for name := range config.RuntimeParams {
		if _, ours := params[strings.ToLower(name)]; ours {
			delete(config.RuntimeParams, name)
		}
	}
	for name, value := range params {
		config.RuntimeParams[name] = value
	}
}

// noticeDeadPeer makes the kernel give up a connection whose other end is gone
// without a word. An idle stream looks the same as a dead one, and a server
// that is decoding a huge transaction may say nothing for minutes: only the
// kernel at the other end knows.
func noticeDeadPeer(conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 4})
	setUserTimeout(tcp, 30*time.Second)
}

// system is what IDENTIFY_SYSTEM says.
type system struct {
	id       uint64
	timeline uint32
}

func identify(ctx context.Context, link *pgconn.PgConn) (system, error) {
	row, err := ask(ctx, link, "IDENTIFY_SYSTEM")
	if err != nil {
		return system{}, fmt.Errorf("identify the system: %w", err)
	}
	if len(row) < 2 {
		return system{}, errors.New("identify the system: no answer")
	}
	id, err := strconv.ParseUint(string(row[0]), 10, 64)
	if err != nil {
		return system{}, fmt.Errorf("identify the system: %w", err)
	}
	timeline, err := strconv.ParseUint(string(row[1]), 10, 32)
	if err != nil {
		return system{}, fmt.Errorf("identify the system: %w", err)
	}
	return system{id: id, timeline: uint32(timeline)}, nil
}

// same checks that the database connection leads to the server of the stream:
// otherwise the gate would ask the wrong one.
func (s system) same(origin change.Origin, database uint32) error {
	switch {
	case origin.System != s.id || origin.Database != database:
		return &change.Refusal{
			Problem: fmt.Sprintf("the database connection leads to database %d of system %d, the replication connection to database %d of system %d",
				origin.Database, origin.System, database, s.id),
			Mend: "let both lead to the same database of the same primary",
		}
	case origin.Timeline != s.timeline:
		// A failover in progress: it passes.
		return fmt.Errorf("the database connection is on timeline %d, the replication connection on timeline %d",
			origin.Timeline, s.timeline)
	}
	return nil
}

// walSenderTimeout asks on the replication connection: a role can have a value
// of its own.
func walSenderTimeout(ctx context.Context, link *pgconn.PgConn) (time.Duration, error) {
	row, err := ask(ctx, link, "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'")
	if err != nil {
		return 0, fmt.Errorf("read wal_sender_timeout: %w", err)
	}
	if len(row) != 1 {
		return 0, errors.New("read wal_sender_timeout: no answer")
	}
	ms, err := strconv.ParseInt(string(row[0]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read wal_sender_timeout: %w", err)
	}
	return time.Duration(ms) * time.Millisecond, nil
}

func syncConn(ctx context.Context, link *pgconn.PgConn) error {
	ctx, cancel := context.WithTimeout(ctx, answerMax)
	defer cancel()
	return link.SyncConn(ctx)
}

// ask is simple for a command that the server answers at once.
func ask(ctx context.Context, link *pgconn.PgConn, command string) ([][]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, answerMax)
	defer cancel()
	return simple(ctx, link, command)
}

// simple runs a command by the simple protocol, the only one that a replication
// connection speaks, and returns its first row.
func simple(ctx context.Context, link *pgconn.PgConn, command string) ([][]byte, error) {
	results, err := link.Exec(ctx, command).ReadAll()
	if err != nil {
		return nil, err
	}
	for _, result := range results {
		if result.Err != nil {
			return nil, result.Err
		}
		if len(result.Rows) > 0 {
			return result.Rows[0], nil
		}
	}
	return nil, nil
}

// closeNow closes a connection that nobody needs, without waiting for long.
func closeNow(conn *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

// SQLSTATEs that are told apart.
const (
	codeInsufficientPrivilege = "42501"
	codeUndefinedObject       = "42704"
	codeObjectInUse           = "55006"
	codeLimitExceeded         = "53400"
)

func isCode(err error, code string) bool {
	postgres, ok := errors.AsType[*pgconn.PgError](err)
	return ok && postgres.Code == code
}

// publicationMissing reports that the server, decoding a change, did not find
// the publication: it was not there yet when the change was made.
func publicationMissing(err error, publication string) bool {
	postgres, ok := errors.AsType[*pgconn.PgError](err)
	return ok && postgres.Code == codeUndefinedObject && strings.Contains(postgres.Message, publication)
}

// quoteName quotes an identifier.
func quoteName(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// quoteText quotes a literal.
func quoteText(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
