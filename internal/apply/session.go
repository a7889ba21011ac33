package apply

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
)

// A stream is one of the source's, in a session.
type stream struct {
	change.Stream
	// resume is where the sink stood: what lies before it is done.
	resume change.Position
	// target is where the stream ended when the session began.
	target   change.Position
	caughtUp bool
	// ungated: up to here a change may be of a primary before this one. It is not
	// waited for, since this one may never have had its transaction or may use the
	// number again, and only drops. The watermark holds that for the sessions that
	// follow.
	ungated change.Position
	// seen is the newest change that the sink has, or was read.
	seen change.Sequence

	// The writer's own.
	written     change.Position
	lookedUp    lookedUp
	unconfirmed []checkpoint
	// again: somebody has set the stream back, and what it brings is behind what was
	// written. Nothing is confirmed meanwhile: it would not come again if this
	// session broke.
	again bool
	// unsettled, if not nil, is what the watermark said of the entries before
	// some were found to differ; they are swept once more when every
	// transaction below session.unsettledBelow has ended.
	unsettled guard.Fingerprints
}

// A session is one attachment of the source under one ownership of the sink.
// Whatever breaks either ends it, and the next one starts from what the sink
// and the source then say: there is one way to resume, after a crash as after a
// lost write.
type session struct {
	*Loop
	origin  change.Origin
	unknown bool // there is no primary to ask
	// logged is where the primary's log ended when the session began.
	logged  uint64
	streams []stream
	behind  int // streams that have not caught up
	durable time.Duration
	// over is why the reader has ended, if all that it has read is to be written
	// all the same. It is set before planned is closed.
	over error

	planned chan *plan.Batch
	gated   chan group // what one snapshot has shown to be visible
	free    chan *plan.Batch
	besides chan *plan.Batch    // that lookups have filled, to be used again
	queued  *semaphore.Weighted // bytes of the batches between reader and Redis
	looks   chan look
	// reassigned is change.Attachment.Reassigned.
	reassigned <-chan struct{}
	// restarted: every entry was swept since a connector has read everything anew.
	// The reader's own.
	restarted bool
	swept     chan struct{} // a sweep that the reader waits for has ended
	ended     chan []int    // a sweep has: the watermarks of these streams are to say so
	marks     chan mark
	sweeps    sweeps
	asking    sync.Mutex    // the gate answers one at a time
	oldest    atomic.Uint64 // XMin of the last answer
	lag       lag
	// fanOuts bounds the fan-outs that run, fanning waits for the statements of lookups,
	// and broken ends the session.
	fanOuts chan struct{}
	fanning sync.WaitGroup
	broken  func(error)
	// sets are to be built.
	sets sets
	// saidForeign is the gate's own.
	saidForeign bool

	// The writer's own. doubtful: what was committed up to here may have been applied before, or
	// was rendered for another shape of its table, or was swept before it was read. It
	// SETs nothing.
	doubtful     uint64
	lastWrite    time.Time
	fingerprints guard.Fingerprints
	latencies    []time.Duration
	saidReady    bool
	derived      bool // only sweeps that plans ask for are why it is not ready
	// unsettledBelow is about stream.unsettled.
	unsettledBelow uint64
	// fans are the fan-outs that are not over.
	fans []*fanOut
}

// session runs until ctx ends, and then writes what it has read, or until
// something breaks.
func (l *Loop) session(ctx context.Context, outages *outages) error {
	at, err := l.source.Attach(ctx)
	if err != nil {
		return of(serverSource, err)
	}
	for i := range at.Streams {
		of := &at.Streams[i]
		if of.Gap != "" {
			l.gaps[of.Name] = of.Gap
		}
		of.Gap = l.gaps[of.Name]
	}
	// A position on another timeline is none: whoever loads compares with it.
	l.status.set(func(now *Status) {
		for i := range now.Streams {
			if now.Streams[i].Position.Timeline != at.Origin.Timeline {
				now.Streams[i].Position = change.Position{}
			}
		}
	})
	l.gate.Expect(at.Origin)
	s := &session{
		Loop:       l,
		origin:     at.Origin,
		reassigned: at.Reassigned,
		planned:    make(chan *plan.Batch, queueBatches),
		gated:      make(chan group, 1),
		free:       make(chan *plan.Batch, batchesMax),
		besides:    make(chan *plan.Batch, 3*groupBatchesMax),
		queued:     semaphore.NewWeighted(queueBytesMax),
		looks:      make(chan look),
		swept:      make(chan struct{}),
		ended:      make(chan []int),
		marks:      make(chan mark),
		sweeps:     sweeps{due: make(chan struct{}, 1)},
		fanOuts:    make(chan struct{}, fanOutsMax),
		sets:       sets{wanted: make(chan plan.IndexSet, setsMax), underway: map[string]bool{}, moved: make(chan struct{}, 1)},
	}
	for range cap(s.free) {
		s.free <- plan.NewBatch()
	}

	// What has been read is still written after ctx has ended, for a while.
	work, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(l.options.ShutdownTimeout, func() { cancel(context.DeadlineExceeded) })
		context.AfterFunc(work, func() { timer.Stop() })
	})()

	// A server that shuts down waits for its stream to end, however long. While
	// the sink is away nothing passes the gate, so the watch begins here.
	var first []*plan.Batch
	taking, takingCtx := errgroup.WithContext(ctx)
	watchCtx, endWatch := context.WithCancel(takingCtx)
	taking.Go(func() error { return s.watchLag(watchCtx, outages) })
	taking.Go(func() (err error) {
		defer endWatch()
		first, err = s.takeOver(takingCtx, outages, at)
		return err
	})
	if err := taking.Wait(); err != nil {
		return err
	}
	l.attached = true
	outages.over(serverDatabase)
	outages.over(serverRedis)
	// A source that lets us in and breaks off at once is still away.
	attached := time.AfterFunc(attachedAfter, func() { outages.over(serverSource) })
	defer attached.Stop()

	// The stages end in their order: the reader closes the gate's queue, the
	// gate the writer's. What runs beside them ends with the writer.
	stages, stagesCtx := errgroup.WithContext(work)
	s.broken = func(err error) { stages.Go(func() error { return err }) }
	besideCtx, endBeside := context.WithCancel(stagesCtx)
	stages.Go(func() error { return s.read(ctx, stagesCtx) })
	stages.Go(func() error { return s.gateAll(stagesCtx, outages) })
	stages.Go(func() error {
		defer endBeside()
		return s.writeAll(stagesCtx, outages, first)
	})
	stages.Go(func() error { return s.sweepAll(besideCtx, outages) })
	stages.Go(func() error {
		s.buildAll(besideCtx)
		return nil
	})
	stages.Go(func() error { return s.watchCatalog(besideCtx, outages) })
	stages.Go(func() error { return s.watchLag(besideCtx, outages) })
	if err := stages.Wait(); err != nil {
		return err
	}
	return s.over
}

// takeOver reads where the sink stands, finds gaps and pending sweeps, and
// returns the batches that note all that in the watermarks, one for each stream.
func (s *session) takeOver(ctx context.Context, outages *outages, at change.Attachment) ([]*plan.Batch, error) {
	var snapshot change.Snapshot
	var seen Look
	err := outages.persist(ctx, serverDatabase, func(ctx context.Context) (err error) {
		if seen, err = s.catalog.Look(ctx); err != nil {
			return err
		}
		s.fingerprints = seen.Fingerprints
		if seen.Shapes != nil {
			s.planner.Know(seen.Shapes)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}

	names := make([]string, len(at.Streams))
	for i := range at.Streams {
		names[i] = at.Streams[i].Name
	}
	var marks [][]guard.Watermark
	err = outages.persist(ctx, serverRedis, func(ctx context.Context) error {
		if marks, err = s.sink.Own(ctx, names); err != nil {
			return err
		}
		s.durable, err = s.sink.DurableAfter(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	// Whatever another owner has applied was in the log before this is asked.
	if err := s.snapshot(ctx, outages, &snapshot); err != nil {
		return nil, err
	}
	s.logged, s.doubtful, s.unsettledBelow, s.unknown = snapshot.InsertLSN, snapshot.InsertLSN, snapshot.XMax, snapshot.Unknown
	s.streams, s.behind = make([]stream, len(at.Streams)), len(at.Streams)
	first := make([]*plan.Batch, len(at.Streams))
	resume := make([]change.Position, len(at.Streams))
	found := gaps{}
	for i := range at.Streams {
		s.streams[i].Stream = at.Streams[i]
		first[i] = s.resume(i, marks[i], &snapshot, found)
		resume[i] = s.streams[i].resume
	}
	s.sayGaps(found)
	// The sweeps that any stream asks for are known now, so each can note them.
	for i, b := range first {
		b.Note = s.note(i)
	}
	if err := s.source.Resume(ctx, resume); err != nil {
		return nil, of(serverSource, err)
	}
	s.Loop.status.set(func(now *Status) {
		now.State, now.CaughtUp = StateStreaming, false
		now.Streams = make([]StreamStatus, len(first))
		for i, b := range first {
			now.Streams[i] = StreamStatus{Name: names[i], Title: at.Streams[i].Title, Position: b.End, Confirmed: at.Streams[i].Confirmed}
		}
		now.Sweeping, now.Unplanned = s.sweeps.pending(), seen.Unplanned
	})
	return first, nil
}

// resume finds where a stream goes on and what is to be swept for it, and returns
// its first batch.
func (s *session) resume(number int, marks []guard.Watermark, snapshot *change.Snapshot, gaps gaps) *plan.Batch {
	st := &s.streams[number]
	st.lookedUp.hops = lookupHops(s.planner)
	lowest := marks[0]
	for _, mark := range marks[1:] {
		if mark.Lo.Compare(lowest.Lo) < 0 {
			lowest.Lo = mark.Lo
		}
		if mark.Settled.Compare(lowest.Settled) < 0 {
			lowest.Settled = mark.Settled
		}
		if mark.Seen.Compare(lowest.Seen) > 0 {
			lowest.Seen = mark.Seen
		}
		if mark.Ungated.Compare(lowest.Ungated) > 0 {
			lowest.Ungated = mark.Ungated
		}
	}
	st.seen = lowest.Seen
	// Of this primary nothing can have been seen that is not in its log. What a log
	// that had come further has shown would make all that comes look old.
	ahead := !s.unknown && max(st.seen.Commit, st.seen.LSN) > s.logged
	if ahead {
		st.seen = change.Sequence{Commit: s.logged, LSN: s.logged}
	}
	if st.ungated = lowest.Ungated; ahead || hadOtherOrigin(marks, s.origin) || st.ungated.Compare(st.End) > 0 {
		st.ungated = st.End
	}
	begin := st.Begin
	if begin.IsZero() {
		begin = st.Confirmed
	}
	if st.target = st.End; st.target.IsZero() {
		// An insert position can stand behind a page header that no commit reaches.
		st.target = change.Position{Timeline: begin.Timeline, LSN: snapshot.InsertLSN - min(snapshot.InsertLSN, pageHeader)}
	}
	sweeps := s.pendingSweeps(marks)
	cause, reason := findGap(&st.Stream, s.origin, marks, lowest.Lo)
	switch {
	case cause == gapFirstStart && s.hadWatermark(st.Name):
		cause, reason = gapEmptied, "no watermark in Redis any more: it was emptied, or has restarted without its data"
	case cause == "" && ahead:
		cause, reason = gapOrigin, fmt.Sprintf("the topic has brought changes of another server: up to %X, and the primary's log ends at %X", lowest.Seen.LSN, s.logged)
	}
	if cause != "" {
		gaps.add(cause, reason, cmp.Or(st.Title, st.Name))
		sweeps = s.everySweep(marks)
	} else if len(changedEntries(lowest.Fingerprints, s.fingerprints)) > 0 && snapshot.XMin < snapshot.XMax {
		// What changed while nobody looked may be how a table is published: a
		// transaction that was running then can have written rows that are never
		// sent, and commit behind this sweep.
		st.unsettled = lowest.Fingerprints
	}

	first := plan.NewBatch()
	first.Stream = number
	if ahead {
		first.Seen = st.seen
	}
	switch {
	case cause == "" && st.Rewound:
		st.resume, first.End, st.again = begin, lowest.Lo, true
	case cause == "":
		st.resume, first.End = lowest.Lo, lowest.Lo
	case cause == gapOrigin && lowest.Lo.Timeline == change.Offsets:
		// The topic is as it was, and so is where we are in it.
		st.resume, first.End = lowest.Lo, lowest.Lo
	default:
		st.resume, first.End = begin, begin
	}
	if len(s.planner.Lookups()) > 0 && lowest.Settled.Compare(lowest.Lo) < 0 {
		// Lookups may have seen more than the stream had brought when this was written.
		st.lookedUp.note(lowest.Settled, snapshot.InsertLSN)
	}
	// A primary that was set back will use the same places in its log again.
	if first.End.Compare(lowest.Settled) < 0 {
		lowest.Settled = first.End
	}
	if len(sweeps) > 0 {
		s.sweeps.request(sweepRequest{stream: number, settled: lowest.Settled, sweeps: sweeps})
	}
	return first
}

// gaps are what a take-over finds to be missing, by cause.
type gaps map[string]gap

type gap struct {
	reason  string // of the first stream
	stream  string
	streams int
}

func (g gaps) add(cause, reason, stream string) {
	if _, known := g[cause]; !known {
		g[cause] = gap{reason: reason, stream: stream}
	}
	found := g[cause]
	found.streams++
	g[cause] = found
}

// sayGaps says each cause once, however many streams it has hit.
func (s *session) sayGaps(found gaps) {
	for _, cause := range slices.Sorted(maps.Keys(found)) {
		g := found[cause]
		s.observer.Gap(cause)
		attributes := []any{"reason", g.reason}
		if len(s.streams) > 1 {
			attributes = append(attributes, "stream", g.stream, "streams", g.streams)
		}
		switch {
		case cause == gapFirstStart && !s.attached && g.streams == len(s.streams):
			s.logger.Info("first start on this Redis: every entry is swept before this instance is ready", attributes...)
		case cause == gapFirstStart: // a topic or a partition that is new, while others are not
			s.logger.Info("a stream that is new to this Redis: every entry is swept before this instance is ready", attributes...)
		default:
			s.logger.Warn("gap: changes may be missing, so every entry is swept before this instance is ready", append([]any{"cause", cause}, attributes...)...)
		}
		s.Loop.status.set(func(now *Status) { now.Gaps++; now.LastGap = g.reason })
	}
	switch {
	case len(s.streams) > 1:
		// A source that lets us in and breaks off again and again says so itself.
		said := streaming{len(s.streams), strings.Join(s.sweeps.pending(), " ")}
		if said != s.saidStreaming || len(found) > 0 {
			s.logger.Info("streaming", "streams", len(s.streams), "sweeping", s.sweeps.pending())
		}
		s.saidStreaming = said
	case len(found) == 0:
		s.logger.Info("streaming", "stream", s.streams[0].Name, "position", s.streams[0].resume, "sweeping", s.sweeps.pending())
	}
}

// streaming is what is said of a session over several streams.
type streaming struct {
	streams  int
	sweeping string
}

// hadWatermark reports whether an earlier session of this process has written the
// watermark of a stream.
func (s *session) hadWatermark(name string) bool {
	return slices.ContainsFunc(s.Loop.Status().Streams, func(st StreamStatus) bool { return st.Name == name })
}

// causeCatalog is the cause, as metrics name it, of a sweep that no change in the
// stream has asked for.
const causeCatalog = "catalog"

// The causes of a gap, as metrics name them.
const (
	gapSource     = "source"
	gapFirstStart = "first_start"
	gapEmptied    = "emptied"
	gapSlotAhead  = "slot_ahead"
	gapOrigin     = "origin"
)

// findGap reports why changes may be missing between what the sink holds and
// what the source will send; cause is empty if none are.
func findGap(st *change.Stream, origin change.Origin, marks []guard.Watermark, lo change.Position) (cause, reason string) {
	if lo.IsZero() {
		reason = "no watermark of this stream in Redis: it is new, or was emptied"
		if st.Gap != "" {
			reason += "; " + st.Gap
		}
		return gapFirstStart, reason
	}
	if st.Gap != "" {
		return gapSource, st.Gap
	}
	for _, mark := range marks {
		if mark.Origin != origin.String() {
			return gapOrigin, fmt.Sprintf("the primary has restarted or is another one: readers may have seen commits that no stream delivers (was %s, is %s)", mark.Origin, origin)
		}
	}
	if !st.End.IsZero() && lo.Compare(st.End) > 0 {
		return gapSource, fmt.Sprintf("the topic ends at %s, Redis stands at %s: what was in between is lost", st.End, lo)
	}
	if st.Confirmed.Compare(lo) > 0 {
		return gapSlotAhead, fmt.Sprintf("the source has forgotten what Redis does not have: it resumes at %s, Redis stands at %s", st.Confirmed, lo)
	}
	return "", ""
}

// hadOtherOrigin reports whether what the marks tell of came from another primary, or
// from this one before it restarted.
func hadOtherOrigin(marks []guard.Watermark, origin change.Origin) bool {
	return slices.ContainsFunc(marks, func(m guard.Watermark) bool { return m.Origin != "" && m.Origin != origin.String() })
}

// pendingSweeps returns those that an earlier owner had not finished, and those of
// every entry that is not what it was: by its old name and by its new.
func (s *session) pendingSweeps(marks []guard.Watermark) []guard.Sweep {
	var sweeps []guard.Sweep
	for _, mark := range marks {
		sweeps = append(sweeps, mark.Sweeps...)
		if !mark.Lo.IsZero() {
			sweeps = append(sweeps, changedEntries(mark.Fingerprints, s.fingerprints)...)
		}
	}
	return sweeps
}

func (s *session) everySweep(marks []guard.Watermark) []guard.Sweep {
	var sweeps []guard.Sweep
	for _, mark := range marks {
		sweeps = append(sweeps, mark.Sweeps...)
		for _, name := range entriesOf(mark.Fingerprints, s.fingerprints) {
			sweeps = append(sweeps, guard.Sweeps(mark.Fingerprints[name], s.fingerprints[name])...)
		}
	}
	return sweeps
}

// changedEntries returns the sweeps of the entries that differ.
func changedEntries(before, after guard.Fingerprints) []guard.Sweep {
	var sweeps []guard.Sweep
	for _, name := range entriesOf(before, after) {
		if before[name] != after[name] {
			sweeps = append(sweeps, guard.Sweeps(before[name], after[name])...)
		}
	}
	return distinct(sweeps)
}

// entriesOf are the names of all entries in either.
func entriesOf(before, after guard.Fingerprints) []string {
	names := slices.AppendSeq(slices.Collect(maps.Keys(before)), maps.Keys(after))
	slices.Sort(names)
	return slices.Compact(names)
}

// note is what the watermark of a stream is to say. Entries that are to be swept
// once more have a fingerprint that is nobody's, so that a crash does not forget
// it. It must not be the old one: who comes back with the old configuration, or
// loads by it still, would take what is cached for its own.
func (s *session) note(stream int) *guard.Note {
	said := maps.Clone(s.fingerprints)
	if unsettled := s.streams[stream].unsettled; unsettled != nil {
		for name, entry := range s.fingerprints {
			if before, known := unsettled[name]; !known {
				delete(said, name)
			} else if before != entry {
				said[name] = guard.Fingerprint{Key: before.Key}
			}
		}
	}
	_, _, pending := s.fannedOut(stream)
	return &guard.Note{Origin: s.origin.String(), Ungated: s.streams[stream].ungated, Fingerprints: said, Sweeps: distinct(append(s.sweeps.pendingOf(stream), pending...))}
}

// settle sweeps the entries that differed at the take-over once more, when it
// is time.
func (s *session) settle(stream int) (due []guard.Sweep) {
	st := &s.streams[stream]
	if st.unsettled == nil || s.oldest.Load() < s.unsettledBelow {
		return nil
	}
	due = changedEntries(st.unsettled, s.fingerprints)
	st.unsettled = nil
	return due
}

// look is what a look at the catalog tells the writer.
type look struct {
	Look
	// doubtful, if not zero: the planner has been told of new shapes, and what
	// was committed up to here may have been rendered for the old ones, or is
	// older than them.
	doubtful uint64
}

// watchCatalog finds what no stream tells: a rewritten table, a truncated
// partition, a renamed enum label.
func (s *session) watchCatalog(ctx context.Context, outages *outages) error {
	var snapshot change.Snapshot
	tick := time.NewTicker(catalogEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		var now look
		err := outages.persist(ctx, serverDatabase, func(ctx context.Context) (err error) {
			now.Look, err = s.catalog.Look(ctx)
			return err
		})
		if err == nil && now.Shapes != nil {
			s.planner.Know(now.Shapes)
			err = s.snapshot(ctx, outages, &snapshot)
			now.doubtful = snapshot.InsertLSN
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case s.looks <- now:
		case <-ctx.Done():
			return nil
		}
	}
}

// read has changes planned into batches, each of one stream, and hands a batch on
// when it is full, when the next change is of another stream, or when the source
// has nothing more at hand. It returns when stop ends, or the streams are others
// from now on, and hands the last batch on before; or when ctx ends.
func (s *session) read(stop, ctx context.Context) error {
	defer close(s.planned)
	reading, cancel := context.WithCancel(stop)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	batch := <-s.free
	batch.Reset()
	for {
		c, err := s.source.Next(reading)
		if err != nil {
			switch {
			case ctx.Err() != nil:
				return nil
			case errors.Is(err, change.ErrReassigned):
				s.over = of(serverSource, err)
			case stop.Err() == nil:
				return of(serverSource, err)
			}
			if batch.Started() {
				s.handOn(ctx, batch)
			}
			return nil
		}
		st := &s.streams[c.Stream]
		// A transaction that the sink holds wholly is skipped. One that it holds
		// in part is applied again from its first row: its rows stand at the
		// LSN of a commit that the sink has not passed.
		if c.Position.LSN < st.resume.LSN && c.Position.Timeline == st.resume.Timeline {
			continue
		}
		if c.Scan != change.Streamed {
			// It was visible to who read it, whose own transaction may run for hours.
			c.XID = 0
		}
		s.distrust(st, c)
		if c.Scan == change.Initial && st.seen != (change.Sequence{}) && st.seen != seenBy(c) && !s.restarted {
			// The connector has lost its history while nobody was attached: what was
			// deleted meanwhile is told by nobody.
			if batch = s.restart(ctx, reading, batch, c); batch == nil {
				return nil
			}
		}
		if c.Scan == change.Initial && st.seen == (change.Sequence{}) && !c.Again && s.sweeps.await() {
			// It may be written, and nobody sends it again: a sweep beside it would
			// drop what it has written.
			if batch = s.finishSweeps(ctx, reading, batch); batch == nil {
				return nil
			}
		}
		s.recognize(st, c)
		if batch.Started() && (batch.Stream != c.Stream || c.Op == change.Restart) {
			if batch = s.handOn(ctx, batch); batch == nil {
				return nil
			}
		}
		if c.Cut && batch.Started() && !s.unknown {
			// The row may be written again, and this state was never committed then.
			// Without a database nothing could load it.
			batch.Close()
		}
		if c.Op == change.Restart {
			s.readAnew(c)
		}
		s.planner.Plan(c, batch)
		batch.Seen = st.seen
		if c.Op == change.Restart {
			s.restarted = true
			if batch = s.handOn(ctx, batch); batch == nil || !s.awaitSweep(reading) {
				return nil
			}
			continue
		}
		// What a transaction SETs is shown when it has ended, if it fits.
		if !batch.Full() && (s.source.Pending() || batch.Open()) {
			continue
		}
		if batch = s.handOn(ctx, batch); batch == nil {
			return nil
		}
	}
}

// distrust lets what was in a topic when the session began SET nothing. The row of an
// initial snapshot yields to whatever is there, so it may be written again; but not if
// it may be, or is for certain, of another server: its place in the log is above where
// the primary's ended. Then that place says nothing of what is ours.
func (s *session) distrust(st *stream, c *change.Change) {
	if c.Position.Compare(st.End) > 0 {
		return
	}
	c.Again = c.Again || c.Scan == change.Streamed
	if c.Position.Compare(st.ungated) <= 0 {
		c.XID = 0
	} else if s.unknown || c.LSN <= s.logged {
		return
	}
	c.Again, c.LSN, c.Sequence = true, 0, change.Sequence{}
}

// restart sweeps every entry, once a session, before c, and returns an empty batch;
// nil if the reader is to end.
func (s *session) restart(ctx, reading context.Context, batch *plan.Batch, c *change.Change) *plan.Batch {
	s.restarted = true
	s.readAnew(c)
	if batch.Started() {
		if batch = s.handOn(ctx, batch); batch == nil {
			return nil
		}
	}
	at := c.Position
	at.LSN--
	s.planner.Plan(&change.Change{Op: change.Restart, Stream: c.Stream, Position: at, LSN: c.LSN, Reason: "the connector has read every table anew"}, batch)
	batch.Seen = s.streams[c.Stream].seen
	if batch = s.handOn(ctx, batch); batch == nil || !s.awaitSweep(reading) {
		return nil
	}
	return batch
}

// finishSweeps waits until the sweeps that are known have ended, with what was read
// before handed on, and returns an empty batch; nil if the reader is to end.
func (s *session) finishSweeps(ctx, reading context.Context, batch *plan.Batch) *plan.Batch {
	if batch.Started() {
		if batch = s.handOn(ctx, batch); batch == nil {
			return nil
		}
	}
	if !s.awaitSweep(reading) {
		return nil
	}
	return batch
}

// awaitSweep waits until a sweep has ended that would drop what is read next. It is
// not ok if the reader is to end instead. Whoever joins the group waits for us to let
// go, and streams that we are given wait for us to read them: no sweep is worth that.
// It is noted, and goes on with the next session.
func (s *session) awaitSweep(ctx context.Context) (ok bool) {
	select {
	case <-s.swept:
		return true
	case <-s.reassigned:
		s.over = of(serverSource, change.ErrReassigned)
	case <-ctx.Done():
	}
	return false
}

// recognize tells what a connector sends again from what it sends for the first
// time, and an initial snapshot from one that repairs.
func (s *session) recognize(st *stream, c *change.Change) {
	switch {
	case c.Scan == change.Initial && st.seen != (change.Sequence{}):
		c.Scan = change.Incremental
		st.scanned(c)
	case c.Sequence == (change.Sequence{}):
	case c.Sequence.Compare(st.seen) < 0:
		c.Again = true
	default:
		st.seen = c.Sequence
	}
}

// readAnew notes that a connector reads everything anew, at c's place in the log. It
// may be another log than before: what was seen before counts no more.
func (s *session) readAnew(c *change.Change) {
	for i := range s.streams {
		s.streams[i].scanned(c)
	}
}

// scanned notes for one stream that what it brings from then on is not below c's place
// in the log.
func (st *stream) scanned(c *change.Change) {
	if st.seen != (change.Sequence{}) && c.LSN != 0 {
		st.seen = seenBy(c)
	}
}

// seenBy is what has been seen when everything was read anew at c's place in the log.
func seenBy(c *change.Change) change.Sequence { return change.Sequence{Commit: c.LSN, LSN: c.LSN} }

// handOn gives a batch to the gate and returns an empty one; nil if ctx has
// ended.
func (s *session) handOn(ctx context.Context, batch *plan.Batch) *plan.Batch {
	batch.Close()
	if s.queued.Acquire(ctx, weight(batch)) != nil {
		return nil
	}
	select {
	case s.planned <- batch:
	case <-ctx.Done():
		return nil
	}
	select {
	case batch = <-s.free:
		batch.Reset()
		return batch
	case <-ctx.Done():
		return nil
	}
}

// weight is what a batch takes of queueBytesMax: one that is larger than that
// goes alone.
func weight(b *plan.Batch) int64 { return min(int64(b.Bytes()), queueBytesMax) }

// recycle takes back a batch that the reader has filled, or a lookup.
func (s *session) recycle(b *plan.Batch) {
	if b.Beside {
		select {
		case s.besides <- b:
		default:
		}
		return
	}
	s.queued.Release(weight(b))
	s.free <- b
}
