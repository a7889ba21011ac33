package pgsource

import (
	"encoding/binary"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/change"
)

// A recorder is a connection that notes each status update and when it came.
type recorder struct {
	net.Conn
	begin   time.Time
	updates chan update
	err     error
	closed  chan struct{}
}

type update struct {
	At                        time.Duration
	Written, Flushed, Applied uint64
}

func newRecorder() *recorder {
	return &recorder{begin: time.Now(), updates: make(chan update, 1000), closed: make(chan struct{})}
}

func (r *recorder) SetWriteDeadline(time.Time) error { return nil }

func (r *recorder) Close() error { close(r.closed); return nil }

func (r *recorder) Write(b []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if len(b) != 39 || b[0] != 'd' || binary.BigEndian.Uint32(b[1:]) != 38 || b[5] != 'r' {
		return 0, errors.New("no status update")
	}
	at := func(i int) uint64 { return binary.BigEndian.Uint64(b[i:]) }
	r.updates <- update{time.Since(r.begin), at(6), at(14), at(22)}
	return len(b), nil
}

func (r *recorder) all() []update {
	close(r.updates)
	var all []update
	for u := range r.updates {
		all = append(all, u)
	}
	return all
}

func same(at time.Duration, lsn uint64) update { return update{at, lsn, lsn, lsn} }

func lsn(n uint64) change.Position { return change.Position{Timeline: 1, LSN: n} }

// The server hears of us while nobody reads and nothing is confirmed, and what
// it hears is what it knew at the beginning, never zero.
func TestStatusGoesOutWhileNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := newRecorder()
		r := newReporter(conn, 10*time.Second, lsn(0x100))
		time.Sleep(35 * time.Second)
		r.close(time.Now().Add(time.Second))
		want := []update{same(10*time.Second, 0x100), same(20*time.Second, 0x100), same(30*time.Second, 0x100)}
		if diff := cmp.Diff(want, conn.all()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// What is confirmed is sent at once, then at most every 100 ms, the last of it
// without fail.
func TestConfirmationsAreSentSoonAndNotTooOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := newRecorder()
		r := newReporter(conn, 10*time.Second, lsn(0x100))
		r.delivered.Store(0x1000)
		synctest.Wait()
		for i := range uint64(15) {
			r.confirm(lsn(0x101 + i))
			synctest.Wait()
			time.Sleep(11 * time.Millisecond)
		}
		time.Sleep(time.Second)
		r.close(time.Now().Add(time.Second))
		want := []update{same(0, 0x101), same(100*time.Millisecond, 0x10a), same(200*time.Millisecond, 0x10f)}
		if diff := cmp.Diff(want, conn.all()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// A server that asks is answered at once.
func TestServerThatAsksIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := newRecorder()
		r := newReporter(conn, 10*time.Second, lsn(0x100))
		time.Sleep(time.Second)
		r.ask()
		synctest.Wait()
		r.ask()
		synctest.Wait()
		r.close(time.Now().Add(time.Second))
		if diff := cmp.Diff([]update{same(time.Second, 0x100), same(time.Second, 0x100)}, conn.all()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// The slot must never move past what this attachment handed out, nor by a
// position of another timeline, nor back.
func TestConfirmationNeverGoesTooFar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := newRecorder()
		r := newReporter(conn, 10*time.Second, lsn(0x100))
		r.delivered.Store(0x200)
		r.confirm(change.Position{Timeline: 2, LSN: 0x180})
		synctest.Wait()
		r.confirm(lsn(0x90))
		synctest.Wait()
		r.confirm(lsn(0x300))
		synctest.Wait()
		r.confirm(lsn(0x250))
		synctest.Wait()
		r.close(time.Now().Add(time.Second))
		if diff := cmp.Diff([]update{same(0, 0x200)}, conn.all()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// Where updates cannot be sent any more the reader must learn of it: it may be
// waiting for bytes that will not come.
func TestBrokenWriteClosesTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := newRecorder()
		conn.err = errors.New("gone")
		r := newReporter(conn, 10*time.Second, lsn(0x100))
		<-conn.closed
		r.close(time.Now().Add(time.Second))
		if err := r.broken(); !errors.Is(err, conn.err) {
			t.Errorf("got %v, want %v", err, conn.err)
		}
	})
}

// Several updates fit into the time after which the server gives up.
func TestStatusIntervalFollowsTheServer(t *testing.T) {
	for timeout, want := range map[time.Duration]time.Duration{
		0:                10 * time.Second,
		time.Minute:      10 * time.Second,
		time.Hour:        10 * time.Second,
		3 * time.Second:  500 * time.Millisecond,
		30 * time.Second: 5 * time.Second,
	} {
		if got := statusInterval(timeout); got != want {
			t.Errorf("statusInterval(%v) = %v, want %v", timeout, got, want)
		}
	}
}

// A moderate stream never naps; a dense one does, and goes on doing so through
// a stall of the server, but not after a pause.
func TestOnlyABusyStreamNaps(t *testing.T) {
	pace := func(begin int, waits ...time.Duration) int {
		n := &napper{pace: begin}
		for _, wait := range waits {
			n.waited(wait)
		}
		return n.pace
	}
	var moderate, dense []time.Duration
	for range 100 {
		moderate = append(moderate, time.Millisecond, 20*time.Microsecond, 20*time.Microsecond)
		dense = append(dense, 20*time.Microsecond)
	}
	if got := pace(0, moderate...); got >= paceBusy {
		t.Errorf("a thousand transactions a second: pace %d", got)
	}
	if got := pace(0, append(dense, time.Millisecond, time.Millisecond)...); got < paceBusy {
		t.Errorf("dense, then a stall: pace %d", got)
	}
	if got := pace(0, append(dense, 10*time.Millisecond)...); got != 0 {
		t.Errorf("after a pause: pace %d", got)
	}
}
