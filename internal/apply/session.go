package apply

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
)

// A session is one attachment of the source under one ownership of the sink.
// Whatever breaks either ends it, and the next one starts from what the sink
// and the source then say: there is one way to resume, after a crash as after a
// lost write.
type session struct {
	*Loop
	origin change.Origin
	// resume is where the sink stood: what lies before it is done.
	resume  change.Position
	target  uint64 // the primary's insert position when the session began
	durable time.Duration

	planned chan *plan.Batch
	gated   chan []*plan.Batch // groups that one snapshot has shown to be visible
	free    chan *plan.Batch
	queued  *semaphore.Weighted // bytes of the batches between reader and Redis
	looks   chan look
	noteDue chan struct{}      // a sweep has ended: the watermark is to say so
	marks   chan chan struct{} // a batch is to be written, and the channel closed
	sweeps  sweeps
	asking  sync.Mutex    // the gate answers one at a time
	oldest  atomic.Uint64 // XMin of the last answer
	lag     lag

	// The writer's own.
	written change.Position
	// doubtful: what was committed up to here may have been applied before, or
	// was rendered for another shape of its table. It SETs nothing.
	doubtful     uint64
	lastWrite    time.Time
	fingerprints guard.Fingerprints
	unconfirmed  []checkpoint
	latencies    []time.Duration
	saidReady    bool
	// unsettled, if not nil, is what the watermark said of the entries before
	// some were found to differ; they are swept once more when every
	// transaction below unsettledBelow has ended.
	unsettled      guard.Fingerprints
	unsettledBelow uint64
}

// session runs until ctx ends, and then writes what it has read, or until
// something breaks.
func (l *Loop) session(ctx context.Context, outages *outages) error {
	at, err := l.source.Attach(ctx)
	if err != nil {
		return of(serverSource, err)
	}
	if at.Gap != "" {
		l.gap = at.Gap
	}
	at.Gap = l.gap
	// A position on another timeline is none: whoever loads compares with it.
	l.status.set(func(now *Status) {
		if now.Position.Timeline != at.Origin.Timeline {
			now.Position = change.Position{}
		}
	})
	l.gate.Expect(at.Origin)
	s := &session{
		Loop:    l,
		origin:  at.Origin,
		planned: make(chan *plan.Batch, queueBatches),
		gated:   make(chan []*plan.Batch, 1),
		free:    make(chan *plan.Batch, batchesMax),
		queued:  semaphore.NewWeighted(queueBytesMax),
		looks:   make(chan look),
		noteDue: make(chan struct{}, 1),
		marks:   make(chan chan struct{}),
		sweeps:  sweeps{due: make(chan struct{}, 1)},
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
	var first *plan.Batch
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
	besideCtx, endBeside := context.WithCancel(stagesCtx)
	stages.Go(func() error { return s.read(ctx, stagesCtx) })
	stages.Go(func() error { return s.gateAll(stagesCtx, outages) })
	stages.Go(func() error {
		defer endBeside()
		return s.writeAll(stagesCtx, outages, first)
	})
	stages.Go(func() error { return s.sweepAll(besideCtx, outages) })
	stages.Go(func() error { return s.watchCatalog(besideCtx, outages) })
	stages.Go(func() error { return s.watchLag(besideCtx, outages) })
	return stages.Wait()
}

// takeOver reads where the sink stands, finds gaps and pending sweeps, and
// returns the batch that notes all that in the watermark.
func (s *session) takeOver(ctx context.Context, outages *outages, at change.Attachment) (*plan.Batch, error) {
	var snapshot change.Snapshot
	err := outages.persist(ctx, serverDatabase, func(ctx context.Context) error {
		seen, err := s.catalog.Look(ctx)
		if err != nil {
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

	var marks []guard.Watermark
	err = outages.persist(ctx, serverRedis, func(ctx context.Context) error {
		if marks, err = s.sink.Own(ctx, at.Stream); err != nil {
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
	s.target, s.doubtful = snapshot.InsertLSN, snapshot.InsertLSN

	lowest := marks[0]
	for _, mark := range marks[1:] {
		if mark.Lo.Compare(lowest.Lo) < 0 {
			lowest.Lo = mark.Lo
		}
		if mark.Settled.Compare(lowest.Settled) < 0 {
			lowest.Settled = mark.Settled
		}
	}
	templates := s.pendingSweeps(marks)
	s.resume = lowest.Lo
	cause, reason := findGap(at, marks, lowest.Lo)
	if cause == gapFirstStart && s.Loop.Status().Stream == at.Stream {
		cause, reason = gapEmptied, "no watermark in Redis any more: it was emptied, or has restarted without its data"
	}
	if cause != "" {
		s.observer.Gap(cause)
		if cause == gapFirstStart {
			s.logger.Info("first start on this Redis: every entry is swept before this instance is ready", "reason", reason)
		} else {
			s.logger.Warn("gap: changes may be missing, so every entry is swept before this instance is ready", "cause", cause, "reason", reason)
		}
		s.Loop.status.set(func(now *Status) { now.Gaps++; now.LastGap = reason })
		templates = s.everyTemplate(marks)
		s.resume = change.Position{}
	} else if before := marks[0].Fingerprints; len(changedTemplates(before, s.fingerprints)) > 0 && snapshot.XMin < snapshot.XMax {
		// What changed while nobody looked may be how a table is published: a
		// transaction that was running then can have written rows that are never
		// sent, and commit behind this sweep.
		s.unsettled, s.unsettledBelow = before, snapshot.XMax
	}

	if cause == "" {
		s.logger.Info("streaming", "stream", at.Stream, "position", s.resume, "sweeping", templates)
	}
	first := <-s.free
	first.Reset()
	first.End = at.Confirmed
	if s.resume.Compare(first.End) > 0 {
		first.End = s.resume
	}
	// A primary that was set back will use the same places in its log again.
	if first.End.Compare(lowest.Settled) < 0 {
		lowest.Settled = first.End
	}
	if len(templates) > 0 {
		s.sweeps.request(templates, lowest.Settled)
	}
	first.Note = s.note()
	s.Loop.status.set(func(now *Status) {
		now.State, now.CaughtUp, now.Stream = StateStreaming, false, at.Stream
		now.Position, now.Confirmed = first.End, at.Confirmed
		now.Sweeping = s.sweeps.pending()
	})
	return first, nil
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
func findGap(at change.Attachment, marks []guard.Watermark, lo change.Position) (cause, reason string) {
	if lo.IsZero() {
		reason = "no watermark of this stream in Redis: it is new, or was emptied"
		if at.Gap != "" {
			reason += "; " + at.Gap
		}
		return gapFirstStart, reason
	}
	if at.Gap != "" {
		return gapSource, at.Gap
	}
	for _, mark := range marks {
		if mark.Origin != at.Origin.String() {
			return gapOrigin, fmt.Sprintf("the primary has restarted or is another one: readers may have seen commits that no stream delivers (was %s, is %s)", mark.Origin, at.Origin)
		}
	}
	if at.Confirmed.Compare(lo) > 0 {
		return gapSlotAhead, fmt.Sprintf("the source has forgotten what Redis does not have: it resumes at %s, Redis stands at %s", at.Confirmed, lo)
	}
	return "", ""
}

// pendingSweeps returns the templates that an earlier owner had not finished,
// and those of every entry that is not what it was: by its old name and by its
// new.
func (s *session) pendingSweeps(marks []guard.Watermark) []string {
	var templates []string
	for _, mark := range marks {
		templates = append(templates, mark.Sweeps...)
		if !mark.Lo.IsZero() {
			templates = append(templates, changedTemplates(mark.Fingerprints, s.fingerprints)...)
		}
	}
	return templates
}

func (s *session) everyTemplate(marks []guard.Watermark) []string {
	var templates []string
	for _, mark := range marks {
		templates = append(templates, mark.Sweeps...)
		for _, entry := range mark.Fingerprints {
			templates = append(templates, entry.Key)
		}
	}
	for _, entry := range s.fingerprints {
		templates = append(templates, entry.Key)
	}
	return templates
}

// changedTemplates returns the templates, old and new, of the entries that
// differ.
func changedTemplates(before, after guard.Fingerprints) []string {
	var templates []string
	for name, entry := range before {
		if after[name] != entry {
			templates = append(templates, entry.Key)
		}
	}
	for name, entry := range after {
		if before[name] != entry {
			templates = append(templates, entry.Key)
		}
	}
	slices.Sort(templates)
	return slices.Compact(templates)
}

// note is what the watermark is to say. Entries that are to be swept once more
// keep their old fingerprints, so that a crash does not forget it.
func (s *session) note() *guard.Note {
	said := maps.Clone(s.fingerprints)
	if s.unsettled != nil {
		for name, entry := range s.fingerprints {
			if before, known := s.unsettled[name]; !known {
				delete(said, name)
			} else if before != entry {
				said[name] = before
			}
		}
	}
	return &guard.Note{Origin: s.origin.String(), Fingerprints: said, Sweeps: s.sweeps.pending()}
}

// settle sweeps the entries that differed at the take-over once more, when it
// is time.
func (s *session) settle() (templates []string) {
	if s.unsettled == nil || s.oldest.Load() < s.unsettledBelow {
		return nil
	}
	templates = changedTemplates(s.unsettled, s.fingerprints)
	s.unsettled = nil
	return templates
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

// read has changes planned into batches and hands a batch on when it is full or
// when the source has nothing more at hand. It returns when stop ends, and hands
// the last batch on before, or when ctx does.
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
			case stop.Err() == nil:
				return of(serverSource, err)
			}
			batch.Close()
			if batch.Started() && s.queued.Acquire(ctx, weight(batch)) == nil {
				select {
				case s.planned <- batch:
				case <-ctx.Done():
				}
			}
			return nil
		}
		// A transaction that the sink holds wholly is skipped. One that it holds
		// in part is applied again from its first row: its rows stand at the
		// LSN of a commit that the sink has not passed.
		if c.Position.LSN < s.resume.LSN && c.Position.Timeline == s.resume.Timeline {
			continue
		}
		s.planner.Plan(c, batch)
		// What a transaction SETs is shown when it has ended, if it fits.
		if !batch.Full() && (s.source.Pending() || batch.Open()) {
			continue
		}
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
		case <-ctx.Done():
			return nil
		}
	}
}

// weight is what a batch takes of queueBytesMax: one that is larger than that
// goes alone.
func weight(b *plan.Batch) int64 { return min(int64(b.Bytes()), queueBytesMax) }

// recycle takes back a batch that the reader has filled.
func (s *session) recycle(b *plan.Batch) {
	s.queued.Release(weight(b))
	s.free <- b
}
