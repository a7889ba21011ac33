// Package pgsource reads changes from PostgreSQL's log by logical replication.
//
// It owns the publication, the slot, the replication connection and its status
// updates, and it decodes pgoutput: a row is read in place, only the columns
// that the plan wants, without an allocation. It promises changes in commit
// order with positions at which the stream can resume, memory bounded by its
// limits whatever the server sends, and that the server is never told more
// than what was confirmed. It refuses to start where changes would be missing
// without anybody noticing.
package pgsource

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/unstale/unstale/internal/change"
)

// Defaults of Options.
const (
	// BufferBytes holds any ordinary message whole. Longer ones are read through
	// it.
	BufferBytes = 1 << 20
	// ValueBytesMax is the longest value that is given; that there is a longer
	// one is all that is told.
	ValueBytesMax = 4 << 20
	// RowBytesMax bounds what is kept of a row that does not fit into the buffer,
	// old version and new together.
	RowBytesMax = 8 << 20
	// RelationsMax and RelationBytesMax bound what is kept about tables.
	RelationsMax     = 100_000
	RelationBytesMax = 256 << 20
)

// bufferBytesMin leaves room for the longest message that is no row: a
// relation of 1600 columns.
const bufferBytesMin = 256 << 10

// closeMax is how long the server gets to end the stream before the connection
// is cut.
const closeMax = 2 * time.Second

// A Table that the publication must publish.
type Table struct {
	Schema, Name string
	// Inherited: other tables may inherit from it. Those whose changes concern somebody
	// are named as well.
	Inherited bool
}

// Options of a Source.
type Options struct {
	Slot, Publication string
	// Tables must be published. Others may be: their changes come too.
	Tables []Table
	// Failover makes the slot one that standbys keep up with. It is ignored
	// before PostgreSQL 17.
	Failover bool
	// Compile is called once for each new relation and returns the indexes of
	// the columns that the plan reads, ascending.
	Compile func(*change.Relation) (wanted []int)
	// Origin is what the database connection, by which changes are gated and
	// readers load, sees as its server.
	Origin func(context.Context) (change.Origin, error)
	Logger *slog.Logger

	// Limits; zero means the default of the same name.
	BufferBytes      int
	ValueBytesMax    int
	RowBytesMax      int
	RelationsMax     int
	RelationBytesMax int
}

// Source is one replication slot. Confirm may be called from anywhere; all
// else from one goroutine at a time.
type Source struct {
	config  *pgconn.Config
	options Options

	relations *relations
	stream    *stream
	conn      net.Conn
	// replaceSlot: the stream said that the slot reaches back to before its
	// publication, from where it can never be read.
	replaceSlot bool
	untold      untold

	mu       sync.Mutex // guards reporter, for Confirm
	reporter *reporter
}

// untold is why changes are missing that no attachment has told yet. An Attach
// that fails leaves it for the next: by then publication and slot look as if
// they had always been there.
type untold struct {
	slot string // why the slot is a new one
	// unpublished: there was no publication, and the slot is older than the one
	// that there is now.
	unpublished bool
	// tables were not in the publication. settled: whoever was writing to them
	// then has ended.
	tables  []Table
	settled bool
}

// add notes tables that are not in the publication.
func (u *untold) add(tables []Table) {
	u.settled = false
	for _, t := range tables {
		if !slices.Contains(u.tables, t) {
			u.tables = append(u.tables, t)
		}
	}
}

// gap is what change.Attachment says.
func (u *untold) gap() string {
	switch {
	case u.slot != "":
		return u.slot
	case len(u.tables) > 0:
		return "tables added to the publication: " + listTables(u.tables)
	}
	return ""
}

// errDetached is what Next returns while there is no attachment.
var errDetached = errors.New("not attached to a stream")

// New returns a source that is not attached yet. config is of the primary.
func New(config *pgconn.Config, options Options) *Source {
	orDefault := func(n *int, value int) {
		if *n == 0 {
			*n = value
		}
	}
	orDefault(&options.BufferBytes, BufferBytes)
	orDefault(&options.ValueBytesMax, ValueBytesMax)
	orDefault(&options.RowBytesMax, RowBytesMax)
	orDefault(&options.RelationsMax, RelationsMax)
	orDefault(&options.RelationBytesMax, RelationBytesMax)
	options.BufferBytes = max(options.BufferBytes, bufferBytesMin)
	return &Source{
		config:    config.Copy(),
		options:   options,
		relations: newRelations(options.Compile, options.RelationsMax, options.RelationBytesMax),
	}
}

// Next blocks until there is a change and returns it. It is valid until the
// next call. After an error of the stream, not of ctx, only Attach helps.
func (s *Source) Next(ctx context.Context) (*change.Change, error) {
	if s.stream == nil {
		return nil, errDetached
	}
	c, err := s.stream.next(ctx)
	if err != nil {
		return nil, s.streamError(ctx, err)
	}
	if c.Position.Row == 0 {
		s.reporter.delivered.Store(c.Position.LSN)
	}
	return c, nil
}

// Pending reports whether Next will return without waiting for the network.
func (s *Source) Pending() bool { return s.stream == nil || s.stream.pending() }

// Resume implements apply.Source. A slot begins where it was confirmed.
func (s *Source) Resume(context.Context, []change.Position) error { return nil }

// Behind implements apply.Source. The log of the database tells.
func (s *Source) Behind() (records int64, committed time.Time) { return 0, time.Time{} }

// Confirm says that everything up to p is durable where it was to go; there is
// one stream only. The server is told soon, and forgets what lies before p.
func (s *Source) Confirm(_ int, p change.Position) {
	s.mu.Lock()
	reporter := s.reporter
	s.mu.Unlock()
	if reporter != nil {
		reporter.confirm(p)
	}
}

// Close tells the server what is confirmed and ends the stream.
func (s *Source) Close(ctx context.Context) error {
	if err := s.detach(ctx); err != nil {
		return fmt.Errorf("end the stream of slot %s: %w", s.options.Slot, err)
	}
	return nil
}

// streamError says what an error of the stream is about.
func (s *Source) streamError(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return err
	}
	// Where updates cannot be sent the connection was closed under the reader:
	// why is in the reporter.
	if broken := s.reporter.broken(); broken != nil {
		err = broken
	}
	if publicationMissing(err, s.options.Publication) {
		s.replaceSlot = true
	}
	return fmt.Errorf("read the stream of slot %s: %w", s.options.Slot, err)
}

// detach ends the attachment, if there is one. The server is told what is
// confirmed, and gets the time to say good-bye: a connection that is cut with
// bytes unread takes the last update with it.
func (s *Source) detach(ctx context.Context) error {
	if s.stream == nil {
		return nil
	}
	stream, reporter, conn := s.stream, s.reporter, s.conn
	s.stream, s.conn = nil, nil
	s.mu.Lock()
	s.reporter = nil
	s.mu.Unlock()

	deadline := time.Now().Add(closeMax)
	if until, ok := ctx.Deadline(); ok && until.Before(deadline) {
		deadline = until
	}
	stream.wire.unwatch()
	reporter.close(deadline)
	defer cut(conn)
	if stream.broken != nil || reporter.broken() != nil {
		return nil // there is nobody to say it to
	}
	if err := reporter.send(); err != nil {
		return err
	}
	_ = conn.SetDeadline(deadline)
	if _, err := conn.Write(append([]byte{'c', 0, 0, 0, 4}, 'X', 0, 0, 0, 4)); err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, conn)
	return nil
}

// cut closes a connection at once. TLS would first say good-bye, for up to 5 s
// where the other end takes nothing; ours has been said, or is in vain.
func cut(conn net.Conn) {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	conn.Close()
}
