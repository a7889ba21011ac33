package pgsource

import (
	"bufio"
	"net"
	"time"
)

// PostgreSQL's walsender pays one send() for every message, and a reader that
// is fast enough to be woken by each of them makes both sides pay a context
// switch for every row: on loopback that, and nothing else, is the limit. A
// reader that naps before it reads again finds hundreds of messages at once.
//
// The nap is taken before a read, never behind one: bytes that have arrived
// are handed on first. It is taken only in the middle of a busy stream, so the
// first change after a pause, and a moderate stream, are never kept waiting.
const (
	// napFor is how long: longer gains nothing, and it is what a nap can add to
	// the latency of a change.
	napFor = 300 * time.Microsecond
	// napReadMax: a read that brought more than this was worth its cost.
	napReadMax = 32 << 10
	// A read that waited no longer than waitQuick found a busy stream; one that
	// waited longer than waitIdle, none at all. What lies between is either a
	// moderate stream or a server that lost its processor for a moment.
	waitQuick = 200 * time.Microsecond
	waitIdle  = 5 * time.Millisecond
	// The pace rises by one with every quick read, falls by paceFall with every
	// other one, and is zero after an idle one. At paceBusy naps begin: a
	// transaction of one row is three messages, so that it takes a dense row of
	// them. paceMax lets a busy stream stay busy through a few stalls.
	paceFall = 8
	paceBusy = 16
	paceMax  = 64
	// readAhead is the buffer below TLS, which asks for no more than a record
	// at a time.
	readAhead = 64 << 10
)

// napper is a connection as the kernel has it, below TLS.
type napper struct {
	net.Conn
	ahead   *bufio.Reader
	nap     func()
	pace    int
	drained bool // the last read took all that there was
}

func newNapper(conn net.Conn) *napper {
	n := &napper{Conn: conn, nap: newNap(conn)}
	n.ahead = bufio.NewReaderSize(kernelReader{n}, readAhead)
	return n
}

// Read hands on what was read ahead; where p is bigger than that buffer it
// reads into p.
func (n *napper) Read(p []byte) (int, error) { return n.ahead.Read(p) }

type kernelReader struct{ n *napper }

func (k kernelReader) Read(p []byte) (int, error) {
	n := k.n
	if n.drained && n.pace >= paceBusy {
		n.nap()
	}
	begin := time.Now()
	got, err := n.Conn.Read(p)
	n.waited(time.Since(begin))
	n.drained = got < len(p) && got <= napReadMax
	return got, err
}

func (n *napper) waited(wait time.Duration) {
	switch {
	case wait <= waitQuick:
		n.pace = min(n.pace+1, paceMax)
	case wait <= waitIdle:
		n.pace = max(n.pace-paceFall, 0)
	default:
		n.pace = 0
	}
}
