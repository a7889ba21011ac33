package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// A follower is a bare connection of the replication protocol, logical or
// physical. It is what the controls and the standby are made of, and shares
// nothing with Unstale's own.
type follower struct {
	conn     net.Conn
	frontend *pgproto3.Frontend
	mu       sync.Mutex // of conn's writing side
}

// follow starts replication: kind is the connection's parameter `replication`,
// name its application_name, command what starts the stream.
func follow(ctx context.Context, url, kind, name, command string) (*follower, error) {
	config, err := pgconn.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	config.RuntimeParams["replication"], config.RuntimeParams["application_name"] = kind, name
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	conn.Frontend().SendQuery(&pgproto3.Query{String: command})
	if err := conn.Frontend().Flush(); err != nil {
		conn.Conn().Close()
		return nil, err
	}
	for {
		message, err := conn.ReceiveMessage(ctx)
		if err != nil {
			conn.Conn().Close()
			return nil, fmt.Errorf("%s: %w", command, err)
		}
		switch m := message.(type) {
		case *pgproto3.CopyBothResponse:
			return &follower{conn: conn.Conn(), frontend: conn.Frontend()}, nil
		case *pgproto3.ErrorResponse: // such as a slot that is still in use
			conn.Conn().Close()
			return nil, pgconn.ErrorResponseToPgError(m)
		}
	}
}

func (f *follower) close() { f.conn.Close() }

// next returns the next piece of the stream: 'w' is data that begins at lsn, 'k'
// says that the server has sent everything below lsn. data is valid until the
// next call.
func (f *follower) next() (kind byte, lsn uint64, data []byte, err error) {
	for {
		message, err := f.frontend.Receive()
		if err != nil {
			return 0, 0, nil, err
		}
		switch m := message.(type) {
		case *pgproto3.ErrorResponse:
			return 0, 0, nil, pgconn.ErrorResponseToPgError(m)
		case *pgproto3.CopyData:
			switch {
			case len(m.Data) >= 25 && m.Data[0] == 'w':
				return 'w', binary.BigEndian.Uint64(m.Data[1:]), m.Data[25:], nil
			case len(m.Data) >= 9 && m.Data[0] == 'k':
				return 'k', binary.BigEndian.Uint64(m.Data[1:]), nil, nil
			}
		case *pgproto3.CopyDone:
			return 0, 0, nil, errors.New("the server has ended the stream")
		}
	}
}

// confirm tells the server that everything below lsn is safe here.
func (f *follower) confirm(lsn uint64) error {
	message := []byte{'d', 0, 0, 0, 38, 'r'}
	for range 3 { // written, flushed, applied
		message = binary.BigEndian.AppendUint64(message, lsn)
	}
	message = append(message, make([]byte, 9)...) // the time, and no reply
	f.mu.Lock()
	defer f.mu.Unlock()
	_, err := f.conn.Write(message)
	return err
}

// pgoutput reads the values of one message of pgoutput, version 1. Reading
// beyond the end gives zeros: the server is trusted.
type pgoutput []byte

func (m *pgoutput) bytes(n int) []byte {
	n = min(n, len(*m))
	b := (*m)[:n]
	*m = (*m)[n:]
	return b
}

func (m *pgoutput) byte() byte {
	if b := m.bytes(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

func (m *pgoutput) number(size int) (n uint64) {
	for _, b := range m.bytes(size) {
		n = n<<8 | uint64(b)
	}
	return n
}

func (m *pgoutput) text() string {
	for i, b := range *m {
		if b == 0 {
			return string(m.bytes(i + 1)[:i])
		}
	}
	return ""
}

// columns are the names of a relation message's columns.
func (m *pgoutput) columns() (names []string) {
	m.number(4) // the relation
	m.text()    // its schema
	m.text()    // its name
	m.byte()    // its replica identity
	for range m.number(2) {
		m.byte() // part of the key
		names = append(names, m.text())
		m.number(8) // type and its modifier
	}
	return names
}

// tuple reads a row: nil for NULL and for what the log leaves out.
func (m *pgoutput) tuple() (values [][]byte) {
	for range m.number(2) {
		if m.byte() != 't' {
			values = append(values, nil)
			continue
		}
		values = append(values, m.bytes(int(m.number(4))))
	}
	return values
}
