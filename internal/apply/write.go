package apply

import (
	"context"
	"time"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
)

// writeAll writes what the gate lets through, in order, beginning with first.
// It owns the watermark: position, settled, note, and what is confirmed.
func (s *session) writeAll(ctx context.Context, outages *outages, first *plan.Batch) error {
	if err := s.write(ctx, outages, []*plan.Batch{first}); err != nil {
		return err
	}
	s.gap = ""
	s.sweeps.wake()
	tick := time.NewTicker(confirmEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case g, ok := <-s.gated:
			if !ok {
				return s.finish(ctx)
			}
			if err := s.write(ctx, outages, g); err != nil {
				return err
			}
		case <-s.noteDue:
			if err := s.writeNote(ctx, outages); err != nil {
				return err
			}
		case written := <-s.marks:
			if err := s.writeNote(ctx, outages); err != nil {
				return err
			}
			close(written)
		case now := <-s.looks:
			s.doubtful = max(s.doubtful, now.doubtful)
			changed := append(changedTemplates(s.fingerprints, now.Fingerprints), s.settle()...)
			if len(changed) == 0 {
				continue
			}
			s.logger.Info("sweeping: the catalog shows a change that no row tells", "keys", changed)
			s.observeCatalog(now.Fingerprints)
			s.sweeps.request(changed, s.written)
			s.fingerprints = now.Fingerprints
			if err := s.writeNote(ctx, outages); err != nil {
				return err
			}
			s.sweeps.wake()
		case now := <-tick.C:
			s.confirm(now)
			// Writes would notice that the watermark is gone. Without any,
			// someone has to look.
			if now.Sub(s.lastWrite) > probeEvery {
				s.lastWrite = now
				if err := outages.persist(ctx, serverRedis, s.sink.Probe); err != nil {
					return err
				}
			}
		}
	}
}

// observeCatalog counts the sweeps of the entries that are not what they were.
func (s *session) observeCatalog(now guard.Fingerprints) {
	for name, entry := range now {
		if s.fingerprints[name] != entry {
			s.observer.Sweep(name, causeCatalog)
		}
	}
}

func (s *session) writeNote(ctx context.Context, outages *outages) error {
	b := <-s.free
	b.Reset()
	b.End, b.Note = s.written, s.note()
	return s.write(ctx, outages, []*plan.Batch{b})
}

// write writes one group, trying again until it is in.
func (s *session) write(ctx context.Context, outages *outages, group []*plan.Batch) error {
	sweeping := false
	for _, b := range group {
		if len(b.Sweeps) > 0 {
			s.requestSweeps(b)
			sweeping = true
		}
		// A transaction that was applied in part before is applied again from
		// its start; the watermark never goes back.
		if b.End.Compare(s.written) < 0 {
			b.End = s.written
		}
		s.written = b.End
		b.Settled = s.sweeps.settled(b.End)
		s.judge(b)
	}

	batches := group
	err := outages.persist(ctx, serverRedis, func(ctx context.Context) error {
		n, err := s.sink.Write(ctx, batches)
		s.observe(batches[:n])
		s.load(batches[:n])
		batches = batches[n:]
		return err
	})
	if err != nil {
		return err
	}
	now := time.Now()
	s.lastWrite = now
	s.checkpoint(now)
	settled := s.sweeps.settled(s.written)
	pending := s.sweeps.pending()
	s.Loop.status.set(func(status *Status) {
		status.Position, status.Settled = s.written, settled
		status.LagBytes, status.Lag = s.lag.behind(now, s.written.LSN)
		status.CaughtUp = status.CaughtUp || s.written.LSN+pageHeader >= s.target
		status.Sweeping = pending
	})
	s.sayReady()
	for _, b := range group {
		s.recycle(b)
	}
	if sweeping {
		s.sweeps.wake()
	}
	return nil
}

// judge decides whether the batch may SET. Only what is delivered for the first
// time may, and only while the shield of a reader that has seen something newer
// is sure to stand: a shield lasts guard.Shield from when the reader filled, and
// that was after this commit.
func (s *session) judge(b *plan.Batch) {
	if b.Sets() == 0 {
		return
	}
	now := time.Now()
	since, known := s.lag.since(b.Oldest())
	if b.Oldest() <= s.doubtful || !known || now.Sub(since) > guard.YoungMax {
		b.Doubt()
	}
	b.Until = now.Add(guard.UntilMax)
}

// load has the service load what the batches have dropped.
func (s *session) load(batches []*plan.Batch) {
	for _, b := range batches {
		for i := range b.Len() {
			if b.Loads(i) {
				s.options.Loader.Request(b.Entry(i), string(b.Key(i)))
			}
		}
	}
}

// sayReady says once a session, and again behind each sweep, that the cache can
// be trusted.
func (s *session) sayReady() {
	status := s.Loop.Status()
	ready := status.Ready()
	if ready && !s.saidReady {
		s.logger.Info("ready", "position", status.Position)
	}
	s.saidReady = ready
}

// requestSweeps notes the sweeps of b as pending. The same script that moves
// the watermark past b writes that down, so a crash does not forget them.
func (s *session) requestSweeps(b *plan.Batch) {
	entries := s.planner.Entries()
	var templates []string
	for _, sweep := range b.Sweeps {
		entry := entries[sweep.Entry]
		s.observer.Sweep(entry.Name, sweep.Cause.String())
		if sweep.Cause == plan.Unknown {
			s.unapplied(entry, sweep.Reason)
		} else {
			s.logger.Info("sweeping", "entry", entry.Name, "cause", sweep.Cause)
		}
		templates = append(templates, entry.Key.String())
	}
	s.sweeps.request(templates, s.written)
	b.Note = s.note()
}

// unapplied is why a change could not be applied.
type unapplied struct{ entry, reason string }

// unappliedMax bounds how many different ones are said: a reason may name a row.
const unappliedMax = 64

// unset says once an entry and reason that a change could not be SET.
func (s *session) unset(incomplete plan.Incomplete) {
	entry := s.planner.Entries()[incomplete.Entry]
	what := unapplied{entry.Name, incomplete.Reason}
	if s.saidUnset[what] || len(s.saidUnset) == unappliedMax {
		return
	}
	s.saidUnset[what] = true
	s.logger.Info("a change that does not show the whole value: its key is dropped, now and whenever this happens again; unstale check says what mends it",
		"entry", entry.Name, "table", entry.Schema+"."+entry.Table, "reason", incomplete.Reason)
}

// unapplied says once an entry and reason that a change could not be applied.
func (s *session) unapplied(entry plan.Entry, reason string) {
	what := unapplied{entry.Name, reason}
	if s.saidUnapplied[what] || len(s.saidUnapplied) == unappliedMax {
		return
	}
	s.saidUnapplied[what] = true
	s.logger.Warn("a change whose keys are unknown: the entry is swept, now and whenever this happens again",
		"entry", entry.Name, "table", entry.Schema+"."+entry.Table, "reason", reason)
}

func (s *session) observe(batches []*plan.Batch) {
	now := time.Now().UnixMicro()
	for _, b := range batches {
		s.latencies = s.latencies[:0]
		for _, committed := range b.CommittedAt {
			s.latencies = append(s.latencies, time.Duration(now-committed)*time.Microsecond)
		}
		for _, incomplete := range b.Incomplete {
			s.unset(incomplete)
		}
		if b.Pressed != s.saidPressed && (b.Pressed || b.Sets() > 0) {
			s.sayPressed(b.Pressed)
		}
		s.observer.Written(Written{
			Changes: b.Changes, Effects: b.Effects, Keys: b.Len(), Sets: b.Sets(), Doubted: b.Doubted(), Latencies: s.latencies,
		})
	}
}

// sayPressed says when a full Redis begins to refuse values, and when it takes
// them again.
func (s *session) sayPressed(pressed bool) {
	s.saidPressed = pressed
	if pressed {
		s.logger.Warn("redis is full: changes drop their keys instead of setting them; raise maxmemory, or let fewer values be kept")
	} else {
		s.logger.Info("redis takes values again")
	}
}

// checkpoint is a position and when it was written.
type checkpoint struct {
	at       time.Time
	position change.Position
}

// checkpoint remembers that Redis has confirmed s.written. One in confirmEvery
// is enough, so a few dozen at most wait to become durable.
func (s *session) checkpoint(now time.Time) {
	n := len(s.unconfirmed)
	if n > 1 && now.Sub(s.unconfirmed[n-2].at) < confirmEvery {
		s.unconfirmed[n-1] = checkpoint{now, s.written}
		return
	}
	s.unconfirmed = append(s.unconfirmed, checkpoint{now, s.written})
}

// confirm acknowledges what can no longer be lost to the source.
func (s *session) confirm(now time.Time) {
	durable := -1
	for i, c := range s.unconfirmed {
		if now.Sub(c.at) >= s.durable {
			durable = i
		}
	}
	if durable < 0 {
		return
	}
	position := s.unconfirmed[durable].position
	s.unconfirmed = append(s.unconfirmed[:0], s.unconfirmed[durable+1:]...)
	s.source.Confirm(position)
	s.Loop.status.set(func(status *Status) { status.Confirmed = position })
}

// finish acknowledges what was written last. It waits until that is durable,
// but no longer than that takes; a source that was not told sends again.
func (s *session) finish(ctx context.Context) error {
	if n := len(s.unconfirmed); n > 0 {
		sleep(ctx, time.Until(s.unconfirmed[n-1].at.Add(s.durable)))
		s.confirm(time.Now())
	}
	return nil
}
