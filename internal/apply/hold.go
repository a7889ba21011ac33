package apply

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
)

// The servers that the loop waits for, as logs and metrics name them.
const (
	serverSource   = "source"
	serverDatabase = "database"
	serverRedis    = "redis"
)

// A serverError says whose error it is.
type serverError struct {
	server string
	err    error
}

func (e *serverError) Error() string { return e.err.Error() }
func (e *serverError) Unwrap() error { return e.err }

func of(server string, err error) error {
	if err == nil {
		return nil
	}
	return &serverError{server, err}
}

func serverOf(err error) string {
	if e, ok := errors.AsType[*serverError](err); ok {
		return e.server
	}
	return serverSource
}

// outages holds the loop while servers are away: it says so once, waits with
// backoff and jitter, and says when the server is back.
type outages struct {
	loop    *Loop
	mu      sync.Mutex
	servers map[string]*outage
}

type outage struct {
	since time.Time
	wait  time.Duration
	said  string
}

// hold waits before the next try. It returns an error only if ctx has ended.
func (o *outages) hold(ctx context.Context, server string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	wait := o.failed(server, err)
	o.loop.observer.Held(server)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(wait):
		return nil
	}
}

// failed says what the first failure of an outage was, and what a person must
// mend if that comes up in its course. It returns how long to wait before the
// next try.
func (o *outages) failed(server string, err error) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.servers == nil {
		o.servers = map[string]*outage{}
	}
	out := o.servers[server]
	if out == nil {
		out = &outage{since: time.Now(), wait: backoffMin}
		o.servers[server] = out
	}
	if text := err.Error(); out.said == "" || change.IsRefusal(err) && out.said != text {
		out.said = text
		o.loop.status.held(server, text)
		o.loop.logger.Warn("holding: nothing is lost, and work goes on when this is over", "server", server, "err", err)
	}
	wait := jitter(out.wait)
	out.wait = min(2*out.wait, backoffMax)
	return wait
}

// jitter makes half of a wait random, so that many instances do not come at
// once.
func jitter(wait time.Duration) time.Duration { return wait/2 + rand.N(wait/2) }

// over says that a server answers again.
func (o *outages) over(server string) {
	o.mu.Lock()
	out := o.servers[server]
	delete(o.servers, server)
	o.mu.Unlock()
	if out == nil {
		return
	}
	o.loop.status.held(server, "")
	o.loop.logger.Info("going on", "server", server, "held", time.Since(out.since).Round(time.Millisecond))
}

// persist calls do until it works. What another try cannot mend is returned.
// Only who failed can tell that an outage is over: of a server, one thing may
// work while another does not.
func (o *outages) persist(ctx context.Context, server string, do func(context.Context) error) error {
	for failed := false; ; failed = true {
		err := do(ctx)
		switch {
		case err == nil:
			if failed {
				o.over(server)
			}
			return nil
		case attachAgain(err), change.IsRefusal(err):
			return of(server, err)
		}
		if stopped := o.hold(ctx, server, err); stopped != nil {
			return stopped
		}
	}
}

// attachAgain reports whether err says that the stream must be taken over
// again: no server is away, and trying the same once more would not help.
func attachAgain(err error) bool {
	return errors.Is(err, guard.ErrLost) || errors.Is(err, guard.ErrFenced) || errors.Is(err, guard.ErrClock) ||
		errors.Is(err, change.ErrOriginChanged) || errors.Is(err, change.ErrUnpublished) || errors.Is(err, change.ErrReplan)
}
