package apply

import (
	"slices"
	"sync"
	"time"

	"github.com/unstale/unstale/internal/change"
)

// State of a loop.
type State string

const (
	StateStarting  State = "starting"
	StateStreaming State = "streaming"
	StateHolding   State = "holding" // the stream has ended, and the source is away
	StateStandby   State = "standby" // another instance owns the stream
	StateStopped   State = "stopped"
)

// Status is what a loop is doing.
type Status struct {
	State   State
	Streams []StreamStatus
	// LagBytes is the log between what Redis holds and the primary's insert
	// position; Lag is how long ago the primary stood there. Over topics there are
	// LagRecords to be read, and the last that was was committed Lag ago.
	LagBytes   uint64
	LagRecords int64
	Lag        time.Duration
	CaughtUp   bool // once since the streams were attached
	// Sweeping lists the key templates that are being swept.
	Sweeping []string
	// Unplanned says what is wrong with entries whose changes cannot be planned: they are
	// swept again and again, until a person has mended that.
	Unplanned map[string]string
	// Holding has, for each server that is away, what it said first, or what a
	// person must mend.
	Holding map[string]string
	Gaps    int
	LastGap string
	// Unpromised has what cannot be promised as the service is configured.
	Unpromised []string
}

// StreamStatus is how far a stream is.
type StreamStatus struct {
	Name  string
	Title string // what people call it; may be empty
	// Position is what Redis holds, Settled what it holds with nothing
	// outstanding, Confirmed what the source need not send again.
	Position, Settled, Confirmed change.Position
}

// OverTopics reports whether the streams are partitions of topics, so that records
// are what they are behind.
func (s *Status) OverTopics() bool {
	return slices.ContainsFunc(s.Streams, func(st StreamStatus) bool { return st.Position.Timeline == change.Offsets })
}

// Ready reports whether the cache can be trusted: caught up once, swept, and every change
// planned.
func (s *Status) Ready() bool {
	return s.State == StateStreaming && s.CaughtUp && len(s.Sweeping) == 0 && len(s.Unplanned) == 0
}

type status struct {
	mu  sync.Mutex
	now Status
}

func (s *status) set(update func(*Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	update(&s.now)
}

// held notes what a server that is away said; nothing if it is back.
func (s *status) held(server, said string) {
	s.set(func(now *Status) {
		holding := map[string]string{}
		for other, text := range now.Holding {
			holding[other] = text
		}
		if holding[server] = said; said == "" {
			delete(holding, server)
		}
		now.Holding = holding
	})
}

// Status returns what the loop is doing now. It may be called beside Run.
func (l *Loop) Status() Status {
	l.status.mu.Lock()
	defer l.status.mu.Unlock()
	now := l.status.now
	now.Streams = slices.Clone(now.Streams)
	return now
}

// Applied returns the LSN up to which the log of the database is in Redis: zero
// where that is not known, as over the partitions of topics.
func (l *Loop) Applied() uint64 {
	l.status.mu.Lock()
	defer l.status.mu.Unlock()
	if streams := l.status.now.Streams; len(streams) == 1 && streams[0].Position.Timeline != change.Offsets {
		return streams[0].Position.LSN
	}
	return 0
}
