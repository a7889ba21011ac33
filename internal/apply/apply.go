// Package apply is the loop: it takes changes from a source, has them planned,
// waits until they are visible on the primary, has them written, and
// acknowledges to the source what the sink holds durably.
//
//	read ──▶ gate ──▶ write ──▶ confirm
//	                   ▲
//	        sweep ─────┘
//
// The stages overlap; between them stand short queues, so a slow Redis slows
// the source down and memory stays bounded. Nothing overtakes: batches are
// written in the order in which their changes were committed.
//
// When a server is away the loop holds, says so once and goes on where it was.
// It never skips a change: what it cannot apply it widens to a sweep.
package apply

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
)

// A Source is one or more streams of changes, each in commit order.
type Source interface {
	// Attach takes the streams over, ending an earlier attachment.
	Attach(ctx context.Context) (change.Attachment, error)
	// Resume says, once behind Attach, where each stream is to begin; a zero
	// position: where it stands by itself. What comes from before that is skipped.
	Resume(ctx context.Context, from []change.Position) error
	// Next returns the next change, which is valid until the next call. It
	// returns change.ErrReassigned when the streams are others from now on.
	Next(ctx context.Context) (*change.Change, error)
	// Pending reports whether Next will return without waiting.
	Pending() bool
	// Behind tells how many records there are that Next has not given, and when the
	// last one that it has was committed. It may be called beside Next. Zero where
	// the log of the database tells how far behind a stream is.
	Behind() (records int64, committed time.Time)
	// Confirm says that everything of a stream up to p is durable: the source need
	// not send it again. It may be called beside Next.
	Confirm(stream int, p change.Position)
	// Close tells the server what was confirmed last and ends the attachment.
	Close(ctx context.Context) error
}

// A Gate tells which transactions are visible on the primary.
type Gate interface {
	// Expect names the server that the answers must come from.
	Expect(o change.Origin)
	// Snapshot fills s. It returns change.ErrOriginChanged if the primary is not
	// the expected server any more.
	Snapshot(ctx context.Context, s *change.Snapshot) error
}

// A Catalog tells what the entries' values are made of.
type Catalog interface {
	// Look returns what there is today. It returns change.ErrUnpublished if the
	// source does not send every change of the entries' tables, and change.ErrReplan
	// if the planner's dependencies are not those of today.
	Look(ctx context.Context) (Look, error)
	// Replan returns change.ErrReplan if the planner's dependencies are not those of today,
	// or if an entry cannot be planned any more whose tables the source is still to have.
	// The next look shows all that it would have shown without.
	Replan(ctx context.Context) error
}

// A Look at the catalog.
type Look struct {
	Fingerprints guard.Fingerprints
	// Shapes are those of the entries' tables; nil if they are as they were at the
	// last look.
	Shapes plan.Shapes
	// Unplanned says what is wrong with entries whose changes cannot be planned, as long
	// as that is so. Each look has another fingerprint of them.
	Unplanned map[string]string
}

// A Loader loads keys as a reader does, in its own time. It may forget requests:
// the key is absent then, until a reader loads it.
type Loader interface {
	// Request asks for a key of an entry, by its index. It does not block.
	Request(entry int, key string)
	// Forget says that another instance has the stream now, and what it drops
	// loaded.
	Forget()
}

// A Sink holds the cache.
type Sink interface {
	// Own takes the named streams over, by whose places batches name them from
	// then on: whoever owned one before can write no more. It returns, for each,
	// the watermark that each master had.
	Own(ctx context.Context, streams []string) ([][]guard.Watermark, error)
	// Write applies batches in order and returns how many are in. Behind an
	// error, the rest may be given again, unchanged: a batch that had been
	// applied after all is not applied twice. What was not SET is noted in the
	// batch (plan.Batch.Refuse). guard.ErrLost, guard.ErrFenced and
	// guard.ErrClock call for Own.
	Write(ctx context.Context, batches []*plan.Batch) (written int, err error)
	// Probe returns guard.ErrLost or guard.ErrFenced as Write would, of any stream, without
	// writing.
	Probe(ctx context.Context) error
	// Sweep drops every key of the templates, once over the keyspace.
	Sweep(ctx context.Context, templates []plan.Keys) (scanned, dropped int, err error)
	// SweepNamed drops those whose names are complete, in one pass that is enough, and
	// returns the others.
	SweepNamed(ctx context.Context, keys []plan.Keys) (left []plan.Keys, scanned, dropped int, err error)
	// Collect has names be collected before the first pass over the keyspace, Collected
	// notes behind the last that none is missing, and Seal lets SweepNamed go by that:
	// where Redis has not restarted between Collect and Collected. Each notes in keys how
	// far it is. Of tokens each is another one.
	Collect(ctx context.Context, keys []plan.Keys, token string) error
	Collected(ctx context.Context, keys []plan.Keys, token string) error
	Seal(ctx context.Context, keys []plan.Keys) error
	// RunID changes when a master has restarted: a sweep under way is void then.
	RunID(ctx context.Context) (string, error)
	// DurableAfter is how long a confirmed write may still be lost.
	DurableAfter(ctx context.Context) (time.Duration, error)
}

// An Observer is told what happens, for metrics. Its methods must not block and
// may be called from several goroutines.
type Observer interface {
	// Written: a batch is in Redis.
	Written(w Written)
	// Gated: a group of batches waited for visibility, with so many snapshots.
	Gated(waited time.Duration, snapshots int)
	// Held: a server refused or did not answer; the loop tries again.
	Held(server string)
	// Gap: changes may be missing; the entries are swept.
	Gap(cause string)
	// Sweep: an entry is to be swept, for a cause as plan.Cause has it, or
	// because the catalog shows a change.
	Sweep(entry, cause string)
	// Swept: one pass of a sweep has looked at and dropped so many keys.
	Swept(scanned, dropped int)
	// LookedUp: so many questions of an entry were answered by an index, and so many put
	// to the database.
	LookedUp(entry string, index, database int)
	// Built: a set of an index of an entry is complete.
	Built(entry string)
}

// Written is what a batch has done.
type Written struct {
	Changes int // of rows
	Effects int // on keys, before those on one key conflated
	Keys    int
	Sets    int // of the keys: SET to a new value, if they were cached or need not be
	Doubted int // of the keys: dropped, though they were to be SET
	// Latencies are from each commit to now. They are valid until Written
	// returns.
	Latencies []time.Duration
}

// Options of a Loop. Zero values mean the defaults.
type Options struct {
	Logger   *slog.Logger
	Observer Observer // required
	Loader   Loader   // required if the service loads keys of any entry
	Finder   Finder   // required if the planner has lookups
	Indexes  Indexes  // required if the planner has indexes
	// ShutdownTimeout bounds how long a stopped loop goes on to write what it
	// has read. What is left is delivered again at the next start. Default 10 s.
	ShutdownTimeout time.Duration
}

const (
	queueBatches    = 4                                    // between two stages
	groupBatchesMax = 16                                   // gated by one snapshot, written in one round trip
	batchesMax      = queueBatches + 3*groupBatchesMax + 4 // the queue, three groups, one at each stage, one for a note
	idleWriteEvery  = 10 * time.Millisecond                // at most, while only positions move
	standbyEvery    = 500 * time.Millisecond
	standbySayAfter = 10 * time.Second // that it is not known which streams are ours
	probeEvery      = time.Second      // is our watermark still there, while nothing is written
	catalogEvery    = 5 * time.Second
	confirmEvery    = 100 * time.Millisecond
	gateAgainMin    = 200 * time.Microsecond
	gateAgainMax    = time.Millisecond
	gateAgainLong   = time.Second // at most, after a hundred times as long
	gateSayAfter    = 10 * time.Second
	snapshotAgeMax  = time.Minute // a transaction's number wraps around, in days
	queueBytesMax   = 64 << 20    // of keys and values that are planned and not written
	attachedAfter   = time.Second // without an error of the source
	backoffMin      = 50 * time.Millisecond
	backoffMax      = 5 * time.Second
)

// A Loop keeps one cache coherent with what one source sends.
type Loop struct {
	source   Source
	planner  *plan.Planner
	gate     Gate
	catalog  Catalog
	sink     Sink
	observer Observer
	logger   *slog.Logger
	options  Options

	status   status
	attached bool // once, at least
	// gaps are what the source has said to be missing, by the name of the stream,
	// until its watermark says that it is being swept. The source says it once.
	gaps map[string]string
	// saidUnapplied has what was logged of changes that could not be applied,
	// saidUnset of those that could not be SET.
	saidUnapplied, saidUnset map[unapplied]bool
	saidPressed, saidStandby bool
	saidStreaming            streaming
	standbySince             time.Time
}

// New returns a loop. Run starts it.
func New(source Source, planner *plan.Planner, gate Gate, catalog Catalog, sink Sink, options Options) *Loop {
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	if options.ShutdownTimeout == 0 {
		options.ShutdownTimeout = 10 * time.Second
	}
	l := &Loop{
		source: source, planner: planner, gate: gate, catalog: catalog, sink: sink,
		observer: options.Observer, logger: options.Logger, options: options,
		gaps: map[string]string{}, saidUnapplied: map[unapplied]bool{}, saidUnset: map[unapplied]bool{},
	}
	l.status.set(func(s *Status) { s.State = StateStarting })
	return l
}

// Run keeps the cache coherent until ctx ends; then it writes what it has read,
// acknowledges and returns nil. It returns an error only for what a person must
// mend before it can begin at all, later outages being held through; and
// change.ErrReplan, when it is to be made anew with another planner.
func (l *Loop) Run(ctx context.Context) error {
	outages := &outages{loop: l}
	again, saidAgain := backoffMin, ""
	for {
		began := time.Now()
		err := l.session(ctx, outages)
		if ctx.Err() != nil {
			return l.stop()
		}
		if change.IsRefusal(err) && !l.attached {
			return errors.Join(err, l.stop())
		}
		if change.IsRefusal(err) {
			// Perhaps nobody reads any more what the source cannot have.
			if replan := l.catalog.Replan(ctx); errors.Is(replan, change.ErrReplan) {
				err = replan
			}
		}
		if errors.Is(err, change.ErrReplan) {
			return errors.Join(err, l.closeSource()) // another loop goes on
		}
		if errors.Is(err, change.ErrInUse) || errors.Is(err, change.ErrUnassigned) {
			if !l.standBy(ctx, err) {
				return l.stop()
			}
			continue
		}
		if errors.Is(err, change.ErrReassigned) {
			continue
		}
		l.status.set(func(s *Status) { s.State = StateHolding; s.CaughtUp = false })
		if attachAgain(err) {
			// A server that comes up refuses for a while, each time with the same words.
			if text := err.Error(); text != saidAgain || time.Since(began) > 2*backoffMax {
				saidAgain = text
				l.logger.Warn("taking the stream over again", "err", err)
			}
			// Two instances that fence each other must not do so in a busy loop.
			if time.Since(began) > 2*backoffMax {
				again = backoffMin
			}
			if !sleep(ctx, jitter(again)) {
				return l.stop()
			}
			again = min(2*again, backoffMax)
			continue
		}
		if outages.hold(ctx, serverOf(err), err) != nil {
			return l.stop()
		}
	}
}

// standBy waits until it is worth asking for the streams again. It is said once,
// and is no outage: another instance does the work, or it is about to be known who
// does.
func (l *Loop) standBy(ctx context.Context, err error) bool {
	if l.Status().State != StateStandby {
		l.saidStandby, l.standbySince = false, time.Now()
		if l.options.Loader != nil {
			l.options.Loader.Forget()
		}
	}
	switch {
	case l.saidStandby:
	case errors.Is(err, change.ErrInUse):
		l.saidStandby = true
		l.logger.Info("standing by: this instance takes over when another one ends", "reason", err)
	case time.Since(l.standbySince) > standbySayAfter:
		l.saidStandby = true
		l.logger.Warn("standing by: nobody says which streams this instance has", "reason", err)
	}
	l.status.set(func(s *Status) { s.State = StateStandby; s.CaughtUp = false })
	return sleep(ctx, jitter(standbyEvery))
}

// stop closes the source, and says where the streams stand.
func (l *Loop) stop() error {
	err := l.closeSource()
	if now := l.Status(); len(now.Streams) == 1 {
		l.logger.Info("stopped", "position", now.Streams[0].Position, "confirmed", now.Streams[0].Confirmed)
	} else {
		l.logger.Info("stopped", "streams", len(now.Streams))
	}
	return err
}

// closeSource is bounded: the context of Run may have ended.
func (l *Loop) closeSource() error {
	ctx, cancel := context.WithTimeout(context.Background(), l.options.ShutdownTimeout)
	defer cancel()
	l.status.set(func(s *Status) { s.State = StateStopped })
	return l.source.Close(ctx)
}
