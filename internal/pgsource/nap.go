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
	// napQuiet: a read that waited longer than this ends the busy time.
	napQuiet = 200 * time.Microsecond
	// napAfter is how many quick, small reads in a row make a stream busy. A
	// transaction of one row is three messages.
	napAfter = 16
	// readAhead is the buffer below TLS, which asks for no more than a record
	// at a time.
	readAhead = 64 << 10
)

// napper is a connection as the kernel has it, below TLS.
type napper struct {
	net.Conn
	ahead   *bufio.Reader
	quick   int  // quick reads in a row
	drained bool // the last read took all that there was
}

func newNapper(conn net.Conn) *napper {
	n := &napper{Conn: conn}
	n.ahead = bufio.NewReaderSize(kernelReader{n}, readAhead)
	return n
}

// Read hands on what was read ahead; where p is bigger than that buffer it
// reads into p.
func (n *napper) Read(p []byte) (int, error) { return n.ahead.Read(p) }

type kernelReader struct{ n *napper }

func (k kernelReader) Read(p []byte) (int, error) {
	n := k.n
	if n.drained && n.quick >= napAfter {
		nap()
	}
	begin := time.Now()
	got, err := n.Conn.Read(p)
	if time.Since(begin) > napQuiet {
		n.quick = 0
	} else {
		n.quick++
	}
	n.drained = got < len(p) && got <= napReadMax
	return got, err
}
