package fill

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// A hold keeps the workers back while a server is away: it says so once, waits
// with backoff and jitter, and says when the server is back.
type hold struct {
	logger   *slog.Logger
	observer Observer

	mu    sync.Mutex
	since time.Time // zero: nothing is away
	until time.Time
	wait  time.Duration
}

// failed puts the next try off.
func (h *hold) failed(err error) {
	server := serverDatabase
	if of, ok := errors.AsType[*serverError](err); ok {
		server = of.server
	}
	h.observer.Held(server)
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if h.since.IsZero() {
		h.since, h.wait = now, backoffMin
		h.logger.Warn("holding what is to be loaded: work goes on when this is over", "server", server, "err", err)
	}
	// Several workers may have failed at once: that is one failure.
	if now.Before(h.until) {
		return
	}
	h.until = now.Add(h.wait/2 + rand.N(h.wait/2))
	h.wait = min(2*h.wait, backoffMax)
}

// over notes that both servers answer.
func (h *hold) over() {
	h.mu.Lock()
	since := h.since
	h.since, h.until = time.Time{}, time.Time{}
	h.mu.Unlock()
	if !since.IsZero() {
		h.logger.Info("loading again", "held", time.Since(since).Round(time.Millisecond))
	}
}

// next is when work may go on.
func (h *hold) next() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.until
}

// A pace keeps loads to a number of rows a second. Who loads runs into debt, and
// the next waits until that is paid.
type pace struct {
	perSecond int // 0: no limit

	mu   sync.Mutex
	paid time.Time
}

func (p *pace) charge(rows int) {
	if p.perSecond == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); p.paid.Before(now) {
		p.paid = now
	}
	p.paid = p.paid.Add(time.Duration(rows) * time.Second / time.Duration(p.perSecond))
}

// next is when the next load may begin.
func (p *pace) next() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.paid
}

// limit is how many rows to load at once: a tenth of a second's, so that a slow
// pace is an even one.
func (p *pace) limit(rows int) int {
	if p.perSecond == 0 {
		return rows
	}
	return max(1, min(rows, p.perSecond/10))
}
