package fill

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// A hold keeps entries back whose server is away, or whose table is locked: it
// says so once, waits with backoff and jitter, and says when that is over.
type hold struct {
	logger   *slog.Logger
	observer Observer
	// again, if not zero, is after what time it is said again: somebody looks on.
	again time.Duration

	mu      sync.Mutex
	outages map[int]*outage // by the number of the entry
}

type outage struct {
	server string
	since  time.Time
	said   time.Time
	until  time.Time
	wait   time.Duration
}

// failed puts the next try of an entry off.
func (h *hold) failed(entry int, err error) {
	server := serverDatabase
	if of, ok := errors.AsType[*serverError](err); ok {
		server = of.server
	}
	h.observer.Held(server)
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	o := h.outages[entry]
	if o == nil {
		if !h.away(server) {
			h.logger.Warn("holding what is to be loaded: work goes on when this is over", "server", server, "err", err)
		}
		o = &outage{server: server, since: now, said: now, wait: backoffMin}
		if h.outages == nil {
			h.outages = map[int]*outage{}
		}
		h.outages[entry] = o
	}
	if h.again > 0 && now.Sub(o.said) >= h.again {
		o.said = now
		h.logger.Warn("still holding what is to be loaded", "server", server, "held", now.Sub(o.since).Round(time.Second), "err", err)
	}
	// Several workers may have failed at once: that is one failure.
	if now.Before(o.until) {
		return
	}
	o.until = now.Add(o.wait/2 + rand.N(o.wait/2))
	o.wait = min(2*o.wait, backoffMax)
}

// over notes that an entry can be loaded.
func (h *hold) over(entry int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	o := h.outages[entry]
	if o == nil {
		return
	}
	delete(h.outages, entry)
	if !h.away(o.server) {
		h.logger.Info("loading again", "server", o.server, "held", time.Since(o.since).Round(time.Millisecond))
	}
}

// away reports whether an entry is held because of a server.
func (h *hold) away(server string) bool {
	for _, o := range h.outages {
		if o.server == server {
			return true
		}
	}
	return false
}

// next is when an entry may be tried.
func (h *hold) next(entry int) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	if o := h.outages[entry]; o != nil {
		return o.until
	}
	return time.Time{}
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
