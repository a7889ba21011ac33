package pgsource

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// A reader is the part of net.Conn that wire needs. A read that is under way
// when the deadline passes, or is set to the past, ends with
// os.ErrDeadlineExceeded and loses no bytes.
type reader interface {
	io.Reader
	SetReadDeadline(time.Time) error
}

// wire finds the messages in the server's bytes. It owns one buffer and hands
// out pieces of it: what it hands out is valid until the next call to fill.
type wire struct {
	conn     reader
	buffer   []byte
	from, to int // buffer[from:to] has arrived and is not consumed

	watched <-chan struct{} // Done of the context that ends reads now
	watch   *watch
}

// messageHeader is the length of a message's type and length. The length
// counts itself, not the type.
const messageHeader = 1 + 4

// roomMin is the room for one read below which the buffer is moved to its
// front: big enough that moving the incomplete message at the end costs
// nothing beside the read.
const roomMin = 64 << 10

func newWire(conn reader, size int) *wire {
	return &wire{conn: conn, buffer: make([]byte, size)}
}

// buffered is what has arrived and is not consumed.
func (w *wire) buffered() []byte { return w.buffer[w.from:w.to] }

// frame returns type and total length, header included, of the message at the
// start of b, which has messageHeader bytes or more.
func frame(b []byte) (kind byte, length int, err error) {
	n := binary.BigEndian.Uint32(b[1:])
	if n < 4 || n > 1<<30 {
		return 0, 0, fmt.Errorf("message %q with length %d: the stream is garbled", b[0], n)
	}
	return b[0], int(n) + 1, nil
}

// need waits until n bytes are buffered. n is at most the size of the buffer.
func (w *wire) need(ctx context.Context, n int) error {
	for w.to-w.from < n {
		if len(w.buffer)-w.from < n {
			w.compact()
		}
		if err := w.fill(ctx); err != nil {
			return err
		}
	}
	return nil
}

// take waits for n bytes and consumes them. n is at most the size of the
// buffer.
func (w *wire) take(ctx context.Context, n int) ([]byte, error) {
	if err := w.need(ctx, n); err != nil {
		return nil, err
	}
	b := w.buffer[w.from : w.from+n]
	w.from += n
	return b, nil
}

// skip consumes n bytes, however many, without keeping them.
func (w *wire) skip(ctx context.Context, n int) error {
	for {
		here := min(n, w.to-w.from)
		w.from += here
		n -= here
		if n == 0 {
			return nil
		}
		if err := w.fill(ctx); err != nil {
			return err
		}
	}
}

func (w *wire) compact() {
	w.to = copy(w.buffer, w.buffer[w.from:w.to])
	w.from = 0
}

// fill reads once: it waits for at least one byte.
func (w *wire) fill(ctx context.Context) error {
	if w.from == w.to {
		w.from, w.to = 0, 0
	} else if len(w.buffer)-w.to < roomMin && w.from > 0 {
		w.compact()
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	w.watchContext(ctx)
	n, err := w.conn.Read(w.buffer[w.to:])
	w.to += n
	switch {
	case n > 0:
		return nil // an error, if any, comes again with the next read
	case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil:
		return ctx.Err()
	case err == nil:
		return io.ErrNoProgress
	case errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	}
	return err
}

// A watch ends the read under way when its context ends. It stays from read to
// read as long as the context is the same, so that a read costs no allocation.
type watch struct {
	mu   sync.Mutex
	over bool // the watch must not touch the deadline any more
	stop func() bool
}

// watchContext makes the end of ctx end the next reads.
func (w *wire) watchContext(ctx context.Context) {
	if w.watch != nil && w.watched == ctx.Done() {
		return
	}
	w.unwatch()
	if ctx.Done() == nil {
		return
	}
	conn, current := w.conn, &watch{}
	current.stop = context.AfterFunc(ctx, func() {
		// The lock orders this against unwatch: a deadline set by a context that is
		// no longer watched would end a read that has nothing to do with it.
		current.mu.Lock()
		defer current.mu.Unlock()
		if !current.over {
			_ = conn.SetReadDeadline(time.Unix(1, 0))
		}
	})
	w.watch, w.watched = current, ctx.Done()
}

// unwatch forgets the watched context, and the deadline that it may have set.
func (w *wire) unwatch() {
	if w.watch == nil {
		return
	}
	w.watch.stop()
	w.watch.mu.Lock()
	w.watch.over = true
	w.watch.mu.Unlock()
	w.watch, w.watched = nil, nil
	_ = w.conn.SetReadDeadline(time.Time{})
}
