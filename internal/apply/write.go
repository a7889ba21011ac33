package apply

import (
	"context"
	"log/slog"
	"time"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
)

// writeAll writes what the gate lets through, in order, beginning with first.
// It owns the watermarks: position, settled, note, and what is confirmed.
func (s *session) writeAll(ctx context.Context, outages *outages, first []*plan.Batch) error {
	if err := s.write(ctx, outages, first); err != nil {
		return err
	}
	clear(s.gaps)
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
			s.beginFanOuts(g)
			for _, b := range g.batches {
				st := &s.streams[b.Stream]
				st.again = st.again && (b.Beside || b.End.Compare(st.written) < 0)
			}
			if len(g.batches) > 0 {
				if err := s.write(ctx, outages, g.batches); err != nil {
					return err
				}
			}
			for _, b := range g.batches {
				s.recycle(b)
			}
			if g.ended != nil {
				if err := s.endFanOut(ctx, outages, g.ended); err != nil {
					return err
				}
			}
		case streams := <-s.ended:
			if err := s.writeNotes(ctx, outages, streams); err != nil {
				return err
			}
		case m := <-s.marks:
			if err := s.writeNotes(ctx, outages, m.streams); err != nil {
				return err
			}
			close(m.written)
		case now := <-s.looks:
			if err := s.compare(ctx, outages, now); err != nil {
				return err
			}
		case now := <-tick.C:
			s.confirm(now)
			// Writes would notice that a watermark is gone. Without any,
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

// compare sweeps the entries that are not what they were at the last look.
func (s *session) compare(ctx context.Context, outages *outages, now look) error {
	s.doubtful = max(s.doubtful, now.doubtful)
	changed := changedEntries(s.fingerprints, now.Fingerprints)
	all := make([]int, len(s.streams))
	for i := range s.streams {
		all[i] = i
		changed = append(changed, s.settle(i)...)
	}
	if len(changed) > 0 {
		for i := range s.streams {
			s.sweeps.request(sweepRequest{stream: i, settled: s.streams[i].written, sweeps: changed})
		}
	}
	// At once: an entry that can be planned again is to be swept before this is ready.
	pending := s.sweeps.pending()
	s.Loop.status.set(func(status *Status) { status.Sweeping, status.Unplanned = pending, now.Unplanned })
	if len(changed) == 0 {
		return nil
	}
	s.logger.Info("sweeping: the catalog shows a change that no row tells", "keys", keysOf(changed))
	s.observeCatalog(now.Fingerprints)
	s.fingerprints = now.Fingerprints
	if err := s.writeNotes(ctx, outages, all); err != nil {
		return err
	}
	s.sweeps.wake()
	return nil
}

// observeCatalog counts the sweeps of the entries that are not what they were.
func (s *session) observeCatalog(now guard.Fingerprints) {
	for name, entry := range now {
		if s.fingerprints[name] != entry {
			s.observer.Sweep(name, causeCatalog)
		}
	}
}

// writeNotes has the watermarks of the streams say what there is to say now.
func (s *session) writeNotes(ctx context.Context, outages *outages, streams []int) error {
	notes := make([]*plan.Batch, len(streams))
	for i, number := range streams {
		b := plan.NewBatch()
		b.Stream, b.End, b.Note = number, s.streams[number].written, s.note(number)
		notes[i] = b
	}
	return s.write(ctx, outages, notes)
}

// write writes one group, trying again until it is in.
func (s *session) write(ctx context.Context, outages *outages, group []*plan.Batch) error {
	sweeping := false
	for _, b := range group {
		st := &s.streams[b.Stream]
		if len(b.Sweeps) > 0 {
			s.requestSweeps(b)
			sweeping = true
		}
		// A transaction that was applied in part before is applied again from
		// its start; the watermark never goes back.
		if b.End.Compare(st.written) < 0 {
			b.End = st.written
		}
		st.lookedUp.note(st.written, b.LookedUp)
		st.written = b.End
		b.Settled = s.settledAt(b.Stream)
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
	for _, b := range group {
		st := &s.streams[b.Stream]
		st.checkpoint(now)
		if !st.caughtUp && st.written.Compare(st.target) >= 0 {
			st.caughtUp = true
			s.behind--
		}
	}
	pending := s.sweeps.pending()
	s.Loop.status.set(func(status *Status) {
		for _, b := range group {
			st := &status.Streams[b.Stream]
			st.Position = s.streams[b.Stream].written
			st.Settled = b.Settled
		}
		status.CaughtUp = s.behind == 0
		status.Sweeping = pending
	})
	s.measureLag(now, s.Loop.Applied())
	s.sayReady()
	if sweeping {
		s.sweeps.wake()
	}
	s.sets.wake()
	return nil
}

// settledAt is how far a stream is settled, now that everything up to written is
// applied.
func (s *session) settledAt(stream int) change.Position {
	st := &s.streams[stream]
	settled := s.sweeps.settled(stream, st.written)
	if before, held, _ := s.fannedOut(stream); held && before.Compare(settled) < 0 {
		settled = before
	}
	dropped := settled.LSN
	if settled.Timeline != st.written.Timeline {
		dropped = 0 // a sweep stands in front of what is of another log
	}
	if before, outstanding := st.lookedUp.outstanding(dropped); outstanding && before.Compare(settled) < 0 {
		return before
	}
	return settled
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
	if s.unknown {
		// No primary says where its log is: the clocks must do.
		since, known = time.UnixMicro(b.OldestCommit()), b.OldestCommit() > 0
	}
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
	switch {
	case !ready || s.saidReady:
	case s.derived:
		s.logger.Debug("ready")
	case len(status.Streams) == 1:
		s.logger.Info("ready", "position", status.Streams[0].Position)
	default:
		s.logger.Info("ready", "streams", len(status.Streams))
	}
	s.saidReady = ready
	s.derived = s.derived && !ready
}

// levelOf is how loudly a sweep is said, and its end. One that a plan asks for with each
// change of a table is normal operation.
func (s *session) levelOf(cause plan.Cause) slog.Level {
	s.derived = cause == plan.Derived && (s.derived || s.saidReady)
	if cause == plan.Derived {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// requestSweeps notes the sweeps of b as pending. The same script that moves
// the watermark past b writes that down, so a crash does not forget them.
func (s *session) requestSweeps(b *plan.Batch) {
	entries := s.planner.Entries()
	request := sweepRequest{stream: b.Stream, settled: s.streams[b.Stream].written}
	for _, sweep := range b.Sweeps {
		entry := entries[sweep.Entry]
		s.observer.Sweep(entry.Name, sweep.Cause.String())
		if sweep.Cause == plan.Unknown {
			s.unapplied(entry, sweep.Reason)
		} else {
			attributes := []any{"entry", entry.Name, "cause", sweep.Cause}
			if sweep.Part != "" {
				attributes = append(attributes, "part", sweep.Part)
			}
			s.logger.Log(context.Background(), s.levelOf(sweep.Cause), "sweeping", attributes...)
		}
		// The look at the catalog may be older than what the log says, or newer.
		letters := sweep.Letters
		if letters != s.fingerprints[entry.Name].Letters {
			letters = ""
		}
		wanted := guard.Sweep{Key: entry.Key.String(), Letters: letters, Part: sweep.Part}
		if sweep.Cause == plan.Derived {
			request.derived = append(request.derived, wanted)
		} else {
			request.sweeps = append(request.sweeps, wanted)
		}
	}
	// A partition that lags may bring, behind the sweep, a row from before its cause:
	// nobody would tell that it is gone.
	s.doubtful = max(s.doubtful, b.SweptTo)
	s.sweeps.request(request)
	if b.Sweeps[0].Cause == plan.Restarted {
		s.sweeps.await()
	}
	b.Note = s.note(b.Stream)
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
	mend := "unstale check says what mends it"
	if status := s.Loop.Status(); status.OverTopics() {
		mend = "unstale check says it, if a setting of the connector does; a value that is NULL or its column's default is not known where the converter writes both alike"
	}
	s.logger.Info("a change that does not show the whole value: its key is dropped, now and whenever this happens again",
		"entry", entry.Name, "table", overTable(&entry), "reason", incomplete.Reason, "mend", mend)
}

// overTable names what an entry is over.
func overTable(e *plan.Entry) string {
	if e.Table == "" {
		return "several"
	}
	return e.Schema + "." + e.Table
}

// unapplied says once an entry and reason that a change could not be applied.
func (s *session) unapplied(entry plan.Entry, reason string) {
	what := unapplied{entry.Name, reason}
	if s.saidUnapplied[what] || len(s.saidUnapplied) == unappliedMax {
		return
	}
	s.saidUnapplied[what] = true
	s.logger.Warn("a change whose keys are unknown: the entry is swept, now and whenever this happens again",
		"entry", entry.Name, "table", overTable(&entry), "reason", reason)
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
		if b.Pressed != s.saidPressed && (b.Pressed || b.Writes()) {
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

// checkpoint remembers that Redis has confirmed written. One in confirmEvery
// is enough, so a few dozen at most wait to become durable.
func (st *stream) checkpoint(now time.Time) {
	if st.again {
		return
	}
	n := len(st.unconfirmed)
	if n > 1 && now.Sub(st.unconfirmed[n-2].at) < confirmEvery {
		st.unconfirmed[n-1] = checkpoint{now, st.written}
		return
	}
	st.unconfirmed = append(st.unconfirmed, checkpoint{now, st.written})
}

// confirm acknowledges what can no longer be lost to the source.
func (s *session) confirm(now time.Time) {
	for i := range s.streams {
		position, ok := s.streams[i].durable(now, s.durable)
		if !ok {
			continue
		}
		s.source.Confirm(i, position)
		s.Loop.status.set(func(status *Status) { status.Streams[i].Confirmed = position })
	}
}

// durable returns the last position that was written long enough ago, if it was
// not returned before.
func (st *stream) durable(now time.Time, after time.Duration) (p change.Position, ok bool) {
	durable := -1
	for i, c := range st.unconfirmed {
		if now.Sub(c.at) >= after {
			durable = i
		}
	}
	if durable < 0 {
		return p, false
	}
	p = st.unconfirmed[durable].position
	st.unconfirmed = append(st.unconfirmed[:0], st.unconfirmed[durable+1:]...)
	return p, true
}

// finish acknowledges what was written last. It waits until that is durable,
// but no longer than that takes; a source that was not told sends again. Who
// takes streams over that are no longer ours need not wait: it finds in Redis how
// far they are.
func (s *session) finish(ctx context.Context) error {
	var last time.Time
	for i := range s.streams {
		if n := len(s.streams[i].unconfirmed); n > 0 && s.streams[i].unconfirmed[n-1].at.After(last) {
			last = s.streams[i].unconfirmed[n-1].at
		}
	}
	if s.over == nil && !last.IsZero() {
		sleep(ctx, time.Until(last.Add(s.durable)))
	}
	s.confirm(time.Now())
	return nil
}
