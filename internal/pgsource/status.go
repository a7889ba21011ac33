package pgsource

import (
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/unstale/unstale/internal/change"
)

// Limits of status updates.
const (
	// statusEvery is the longest time between two. The server ends a connection
	// that it has not heard of for wal_sender_timeout; where that is short,
	// updates are sent more often.
	statusEvery = 10 * time.Second
	// statusGap is the shortest time between two that nobody waits for.
	statusGap = 100 * time.Millisecond
	// statusWriteMax is how long writing one may take. It is 39 bytes: a
	// connection that does not take them is dead.
	statusWriteMax = 30 * time.Second
)

// A reporter tells the server how far the stream is done. Its goroutine is the
// only writer on the connection, and it needs no reader: while nobody reads,
// because what lies behind the source holds everything up, the server hears of
// us all the same and keeps the connection.
type reporter struct {
	conn     net.Conn
	every    time.Duration
	timeline uint32

	// delivered is up to where this attachment has handed out everything. No
	// update goes beyond it, whatever is confirmed.
	delivered atomic.Uint64

	mu        sync.Mutex
	confirmed uint64
	until     time.Time // if not zero, when no update may be under way any more
	err       error

	changed chan struct{} // capacity 1: confirmed has grown
	asked   chan struct{} // capacity 1: the server wants an update at once
	stop    chan struct{} // closed by close
	stopped chan struct{} // closed by run
}

// newReporter starts reporting. begin is what the server knows as confirmed.
func newReporter(conn net.Conn, every time.Duration, begin change.Position) *reporter {
	r := &reporter{
		conn:      conn,
		every:     every,
		timeline:  begin.Timeline,
		confirmed: begin.LSN,
		changed:   make(chan struct{}, 1),
		asked:     make(chan struct{}, 1),
		stop:      make(chan struct{}),
		stopped:   make(chan struct{}),
	}
	r.delivered.Store(begin.LSN)
	go r.run()
	return r
}

// confirm raises what the server will be told. A position of another timeline
// says nothing about this one.
func (r *reporter) confirm(p change.Position) {
	if p.Timeline != r.timeline {
		return
	}
	r.mu.Lock()
	grown := p.LSN > r.confirmed
	if grown {
		r.confirmed = p.LSN
	}
	r.mu.Unlock()
	if grown {
		signal(r.changed)
	}
}

// ask makes the next update go out at once.
func (r *reporter) ask() { signal(r.asked) }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run sends updates until close, or until the connection breaks. Then it
// closes the connection, so that who reads learns of it.
func (r *reporter) run() {
	defer close(r.stopped)
	timer := time.NewTimer(r.every)
	defer timer.Stop()
	last := time.Now().Add(-statusGap)
	for {
		select {
		case <-r.stop:
			return
		case <-r.changed:
			if wait := statusGap - time.Since(last); wait > 0 {
				timer.Reset(wait)
				continue
			}
		case <-r.asked:
		case <-timer.C:
		}
		if err := r.send(); err != nil {
			r.mu.Lock()
			r.err = fmt.Errorf("send status update: %w", err)
			r.mu.Unlock()
			cut(r.conn)
			return
		}
		last = time.Now()
		timer.Reset(r.every)
	}
}

// broken is why updates can no longer be sent, or nil.
func (r *reporter) broken() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// close ends the goroutine. The connection stays as it is, but takes no update
// after until, not even one that is under way.
func (r *reporter) close(until time.Time) {
	r.mu.Lock()
	r.until = until
	_ = r.conn.SetWriteDeadline(until)
	r.mu.Unlock()
	close(r.stop)
	<-r.stopped
}

// send writes one update: everything up to the confirmed position is written,
// flushed and applied. The three are the same and none of them is left zero:
// the server moves the slot to the flushed position, and to nothing beyond it.
func (r *reporter) send() error {
	deadline := time.Now().Add(statusWriteMax)
	r.mu.Lock()
	lsn := r.confirmed
	if !r.until.IsZero() && r.until.Before(deadline) {
		deadline = r.until
	}
	// Under the lock, or it could replace the earlier one that close sets.
	err := r.conn.SetWriteDeadline(deadline)
	r.mu.Unlock()
	if err != nil {
		return err
	}
	lsn = min(lsn, r.delivered.Load())
	_, err = r.conn.Write(appendStatus(nil, lsn, time.Now()))
	return err
}

// appendStatus appends a standby status update.
func appendStatus(dst []byte, lsn uint64, now time.Time) []byte {
	const length = 4 + 1 + 8 + 8 + 8 + 8 + 1
	dst = append(dst, messageCopyData)
	dst = binary.BigEndian.AppendUint32(dst, length)
	dst = append(dst, 'r')
	for range 3 { // written, flushed, applied
		dst = binary.BigEndian.AppendUint64(dst, lsn)
	}
	dst = binary.BigEndian.AppendUint64(dst, uint64(now.UnixMicro()-postgresEpoch))
	return append(dst, 0) // no reply wanted
}
