package apply

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
)

// lag tells how far behind a position is, by samples of the primary's insert
// position: no clock but ours is asked, since commit timestamps may carry
// another server's.
type lag struct {
	mu      sync.Mutex
	samples []insertSample // ascending
}

type insertSample struct {
	at  time.Time
	lsn uint64
}

const (
	lagSamplesMax = 512
	lagEvery      = 100 * time.Millisecond // between two samples, at least
	lagWatchEvery = time.Second
	// pageHeader: an insert position can stand behind a page header that no
	// commit's end ever reaches.
	pageHeader = 40
)

func (l *lag) sample(at time.Time, lsn uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// Who asked first may come second.
	if n := len(l.samples); n > 0 && (at.Sub(l.samples[n-1].at) < lagEvery || lsn < l.samples[n-1].lsn) {
		return
	}
	if len(l.samples) == lagSamplesMax {
		// Twice as coarse, as far back as before.
		kept := l.samples[:0]
		for i, s := range l.samples {
			if i%2 == 0 {
				kept = append(kept, s)
			}
		}
		l.samples = kept
	}
	l.samples = append(l.samples, insertSample{at, lsn})
}

// behind forgets the samples that lsn has passed, and returns how many bytes
// and how long ago the primary stood where lsn is.
func (l *lag) behind(now time.Time, lsn uint64) (bytes uint64, age time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	passed := 0
	for passed < len(l.samples) && l.samples[passed].lsn <= lsn+pageHeader {
		passed++
	}
	if passed == len(l.samples) {
		l.samples = l.samples[max(0, passed-1):]
		return 0, 0
	}
	// The newest sample that was passed says how old our state is; without one
	// the oldest known is a lower bound.
	l.samples = l.samples[max(0, passed-1):]
	return l.samples[len(l.samples)-1].lsn - lsn, now.Sub(l.samples[0].at)
}

// A Lag is what tells how far something is behind the primary's log that is no
// stream of a [Loop]. Its zero value knows nothing.
type Lag struct{ lag lag }

// Sample says where the primary's log stood at a moment. Moments do not go back.
func (l *Lag) Sample(at time.Time, lsn uint64) { l.lag.sample(at, lsn) }

// Behind returns how many bytes what stands at lsn is behind the newest sample,
// and how long ago the primary stood there. It forgets the samples before that.
func (l *Lag) Behind(now time.Time, lsn uint64) (bytes uint64, age time.Duration) {
	return l.lag.behind(now, lsn)
}

// trim forgets what is too old to tell anything of a change that may be SET.
func (l *lag) trim(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := 0
	for old < len(l.samples) && now.Sub(l.samples[old].at) > 2*guard.YoungMax {
		old++
	}
	l.samples = l.samples[old:]
}

// since returns a moment at which the primary had not yet come to lsn. It is not
// ok if none is known.
func (l *lag) since(lsn uint64) (at time.Time, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range slices.Backward(l.samples) {
		if s.lsn <= lsn {
			return s.at, true
		}
	}
	return time.Time{}, false
}

// measureLag notes how far behind applied is. The offsets of topics are no places
// in the log: there the source knows.
func (s *session) measureLag(now time.Time, applied uint64) {
	if applied == 0 {
		s.lag.trim(now)
		records, committed := s.source.Behind()
		var age time.Duration
		if records > 0 && !committed.IsZero() {
			age = max(0, now.Sub(committed))
		}
		s.Loop.status.set(func(status *Status) { status.LagRecords, status.Lag = records, age })
		return
	}
	bytes, age := s.lag.behind(now, applied)
	s.Loop.status.set(func(status *Status) { status.LagBytes, status.Lag = bytes, age })
}

// watchLag samples while nothing passes the gate, so that a lag is seen to grow
// while Redis is away.
func (s *session) watchLag(ctx context.Context, outages *outages) error {
	var snapshot change.Snapshot
	for sleep(ctx, lagWatchEvery) {
		if err := s.snapshot(ctx, outages, &snapshot); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		s.measureLag(time.Now(), s.Loop.Applied())
	}
	return nil
}
