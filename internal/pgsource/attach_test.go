package pgsource

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/unstale/unstale/internal/change"
)

// A server is as much of PostgreSQL as Attach sees, with one table, t.
type server struct {
	mu          sync.Mutex
	publication bool
	published   bool // t is in it
	slot        bool
	slotPID     string // who holds the slot
	running     bool   // a transaction that began before everything else
	silent      string // a statement with this in it is never answered
	refused     string // one with this in it gets an error
	asked       func(sql string)
	statements  []string
	startup     map[string]string // what the connection that was made last has said first
	connections sync.WaitGroup
}

func newServer() *server {
	return &server{publication: true, published: true, slot: true, slotPID: "0"}
}

// source returns a source that reads from the server by pipes.
func (s *server) source(t *testing.T) *Source {
	t.Helper()
	return s.sourceBy(t, func(context.Context, string, string) (net.Conn, error) {
		client, conn := net.Pipe()
		s.connections.Go(func() { s.serve(conn) })
		return client, nil
	})
}

func (s *server) sourceBy(t *testing.T, dial pgconn.DialFunc) *Source {
	t.Helper()
	config, err := pgconn.ParseConfig("host=127.0.0.1 port=1 user=role database=db sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	config.DialFunc = dial
	return New(config, Options{
		Slot: "s", Publication: "p", Tables: []Table{{Schema: "public", Name: "t"}},
		Compile: everyColumn,
		Origin: func(context.Context) (change.Origin, error) {
			return change.Origin{System: 7, Database: 5, Timeline: 1}, nil
		},
		Logger: slog.New(slog.DiscardHandler),
	})
}

func (s *server) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// count counts the statements so far that have the text in them.
func (s *server) count(text string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, sql := range s.statements {
		if strings.Contains(sql, text) {
			n++
		}
	}
	return n
}

// answer is what the server does about a statement. It runs with s.mu held.
func (s *server) answer(sql string) (rows [][]string, err *pgproto3.ErrorResponse) {
	text := func(b bool) string { return map[bool]string{true: "t", false: "f"}[b] }
	has := func(part string) bool { return strings.Contains(sql, part) }
	row := func(values ...string) [][]string { return [][]string{values} }
	switch {
	case s.refused != "" && has(s.refused):
		return nil, &pgproto3.ErrorResponse{Severity: "ERROR", Code: "XX000", Message: "refused"}
	case has("server_version_num"):
		return row("150000", "5", "db", "role", "f", "logical", ""), nil
	case has("FROM pg_catalog.pg_publication WHERE"):
		if s.publication {
			return row("9", "f", "t", "t"), nil
		}
	case has("pg_partition_ancestors"):
		return row("r", "p", "f", "t", "public", "t", text(s.published), "f", "f", "f"), nil
	case has("CREATE PUBLICATION"):
		s.publication, s.published = true, true
	case has("ALTER PUBLICATION"):
		s.published = true
	case has("pg_snapshot_xmax"):
		return row("100"), nil
	case has("pg_snapshot_xmin"):
		return row(text(!s.running)), nil
	case has("IDENTIFY_SYSTEM"):
		return row("7", "1", "0/100", "db"), nil
	case has("SELECT confirmed_flush_lsn"):
		return row("0/100"), nil
	case has("pg_replication_slots"):
		if s.slot {
			return row("pgoutput", "logical", "db", s.slotPID, "", "f"), nil
		}
	case has("CREATE_REPLICATION_SLOT"):
		s.slot = true
	case has("DROP_REPLICATION_SLOT"):
		s.slot = false
	case has("wal_sender_timeout"):
		return row("60000"), nil
	}
	return nil, nil
}

func (s *server) serve(conn net.Conn) {
	defer conn.Close()
	backend := pgproto3.NewBackend(conn, conn)
	if startup, err := backend.ReceiveStartupMessage(); err != nil {
		return
	} else if m, ok := startup.(*pgproto3.StartupMessage); !ok {
		return // a cancel request
	} else {
		s.set(func() { s.startup = m.Parameters })
	}
	backend.Send(&pgproto3.AuthenticationOk{})
	backend.Send(&pgproto3.BackendKeyData{ProcessID: 42, SecretKey: []byte{1, 2, 3, 4}})
	backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	if backend.Flush() != nil {
		return
	}
	for sql := ""; ; {
		message, err := backend.Receive()
		if err != nil {
			return
		}
		switch m := message.(type) {
		case *pgproto3.Parse:
			sql = m.Query
			backend.Send(&pgproto3.ParseComplete{})
			backend.Send(&pgproto3.BindComplete{})
			continue
		case *pgproto3.Query:
			sql = m.String
		case *pgproto3.Sync:
		case *pgproto3.Terminate:
			return
		default:
			continue
		}
		if !s.reply(backend, sql) {
			_, _ = backend.Receive() // until the other end closes
			return
		}
		if backend.Flush() != nil {
			return
		}
	}
}

// reply answers one statement, if it is to be answered.
func (s *server) reply(backend *pgproto3.Backend, sql string) bool {
	s.mu.Lock()
	s.statements = append(s.statements, sql)
	rows, refusal := s.answer(sql)
	silent, asked := s.silent != "" && strings.Contains(sql, s.silent), s.asked
	s.mu.Unlock()
	if asked != nil {
		asked(sql)
	}
	switch {
	case silent:
		return false
	case refusal != nil:
		backend.Send(refusal)
	case strings.HasPrefix(sql, "START_REPLICATION"):
		backend.Send(&pgproto3.CopyBothResponse{})
		return true
	default:
		if len(rows) > 0 {
			backend.Send(&pgproto3.RowDescription{Fields: slices.Repeat([]pgproto3.FieldDescription{{Name: []byte("c")}}, len(rows[0]))})
		}
		for _, row := range rows {
			data := &pgproto3.DataRow{}
			for _, value := range row {
				data.Values = append(data.Values, []byte(value))
			}
			backend.Send(data)
		}
		backend.Send(&pgproto3.CommandComplete{CommandTag: []byte("OK")})
	}
	backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	return true
}

// A server that takes a question and is never heard of again must not hold
// whoever attaches. Only what waits for others may take its time.
func TestAttachEndsWhereTheServerFallsSilent(t *testing.T) {
	for _, silent := range []string{
		"server_version_num", "FROM pg_catalog.pg_publication WHERE", "pg_partition_ancestors", "IDENTIFY_SYSTEM",
		"wal_status", "wal_sender_timeout", "START_REPLICATION", "SELECT confirmed_flush_lsn",
	} {
		t.Run(silent, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := newServer()
				server.silent = silent
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				begin := time.Now()
				_, err := server.source(t).Attach(ctx)
				if took := time.Since(begin); err == nil || took > time.Minute {
					t.Errorf("after %v: %v", took, err)
				}
				server.connections.Wait()
			})
		})
	}
}

// With jit on, the server compiles a statement over the catalog for longer than it
// runs.
func TestStatementsOverTheCatalogAreNotCompiled(t *testing.T) {
	server := newServer()
	server.refused = "server_version_num" // asked first
	if _, err := server.source(t).Attach(t.Context()); err == nil {
		t.Fatal("attached to a server that refuses to say what it is")
	}
	server.connections.Wait()
	if got := server.startup["jit"]; got != "off" {
		t.Errorf("the catalog connection has jit = %q", got)
	}
}

// The server makes a slot when those who write have ended, however long that
// takes.
func TestMakingASlotMayTakeLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newServer()
		server.slot, server.silent = false, "CREATE_REPLICATION_SLOT"
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		begin := time.Now()
		_, err := server.source(t).Attach(ctx)
		if took := time.Since(begin); !errors.Is(err, context.DeadlineExceeded) || took < time.Hour {
			t.Errorf("after %v: %v", took, err)
		}
		server.connections.Wait()
	})
}

// Who waits for another instance to end must not change the publication: when
// it attaches at last, nothing would be missing any more, and nobody would hear
// of the changes that were.
func TestAWaitingInstanceChangesNothing(t *testing.T) {
	for name, publication := range map[string]bool{"no publication": false, "table not published": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := newServer()
				server.publication, server.published, server.slotPID = publication, false, "4711"
				_, err := server.source(t).Attach(t.Context())
				if err == nil || !strings.Contains(err.Error(), "in use by the process 4711") {
					t.Errorf("got %v, want the process that has the slot", err)
				}
				if server.count("PUBLICATION ") > 0 {
					t.Error("the publication was changed")
				}
				server.connections.Wait()
			})
		})
	}
}

// An Attach that fails behind a change of the publication or the slot has told
// nobody of it. The next one does, and waits if the first one did not.
func TestAFailedAttachLeavesItsGapToTheNext(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(*server)
		fails   string
		gap     string
		waits   int // times that somebody looked at who is running
	}{
		"table added, its answer lost": {func(s *server) { s.published = false }, "pg_snapshot_xmax",
			"tables added to the publication: public.t", 1},
		"table added and waited for": {func(s *server) { s.published = false }, "START_REPLICATION",
			"tables added to the publication: public.t", 1},
		"publication created": {func(s *server) { s.publication, s.published = false, false }, "IDENTIFY_SYSTEM",
			"publication created behind the slot", 0},
		"slot replaced": {func(s *server) { s.publication, s.published = false, false }, "START_REPLICATION",
			"publication created behind the slot", 0},
		"slot dropped, not made": {func(s *server) { s.publication, s.published = false, false }, "CREATE_REPLICATION_SLOT",
			"publication created behind the slot", 0},
		"slot created": {func(s *server) { s.slot = false }, "START_REPLICATION", "slot created", 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := newServer()
				c.prepare(server)
				server.refused = c.fails
				source := server.source(t)
				if _, err := source.Attach(t.Context()); err == nil {
					t.Fatalf("attached in spite of %s", c.fails)
				}
				server.set(func() { server.refused = "" })
				for _, want := range []string{c.gap, ""} {
					a, err := source.Attach(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					if a.Streams[0].Gap != want {
						t.Errorf("gap %q, want %q", a.Streams[0].Gap, want)
					}
				}
				if got := server.count("pg_snapshot_xmin"); got != c.waits {
					t.Errorf("looked %d times at who is running, want %d", got, c.waits)
				}
				if err := source.Close(t.Context()); err != nil {
					t.Error(err)
				}
				server.connections.Wait()
			})
		})
	}
}

// Whoever attaches after the table was added, at whatever try, waits for those
// who were writing then.
func TestTheNextAttachWaitsForWhatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newServer()
		server.published, server.running = false, true
		source := server.source(t)
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if _, err := source.Attach(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("attached with a transaction running: %v", err)
			}
			cancel()
		}
		server.set(func() { server.running = false })
		a, err := source.Attach(t.Context())
		if want := "tables added to the publication: public.t"; err != nil || a.Streams[0].Gap != want {
			t.Errorf("gap %q, %v, want %q", a.Streams[0].Gap, err, want)
		}
		if err := source.Close(t.Context()); err != nil {
			t.Error(err)
		}
		server.connections.Wait()
	})
}
