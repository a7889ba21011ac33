package fill

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
)

// Keys are those of the rows that the primary has.
type Keys interface {
	// Next returns the key values of at most limit rows of entry number entry,
	// behind those of after, or the first of all if after is nil. The order is
	// always the same.
	Next(ctx context.Context, entry int, after []string, limit int) ([][]string, error)
}

// Limits of a Warmer.
const (
	aheadMax  = 64 // chunks that are done while an earlier one is not
	saveEvery = time.Second
	saveWait  = time.Second
	soon      = 20 * time.Millisecond // another's load is over
	walkWait  = time.Minute           // a query whose keys no index lists reads its tables
	sayAgain  = 10 * time.Second      // why it holds
)

// WarmOptions of a Warmer. Zero values mean the defaults.
type WarmOptions struct {
	// RowsPerSecond bounds what is asked of the primary. Default: no limit.
	RowsPerSecond int
	// Workers is how many chunks may be on their way at once.
	Workers int
	// Applied is that of Options. Required.
	Applied func() uint64
	// Claim is what the entries are for who warms. Required.
	Claim func() guard.Claim
	// Observer is required.
	Observer Observer
	Logger   *slog.Logger
	// Save is called with how far an entry is, every second and at the end.
	// Required. It has a second each time; an error is tried again a second later.
	Save func(ctx context.Context, entry int, p Progress) error
	// Show, if set, is called with the same, more often.
	Show func(entry int, p Progress)
}

// Progress is how far the warm of one entry has come.
type Progress struct {
	// After has the key values of the last row of which all before are done; nil:
	// none is.
	After []string `json:"after"`
	// Done: there are no rows behind it.
	Done bool `json:"done"`
	Tally
}

// A Warmer loads whole entries into the cache, beside readers and changes.
type Warmer struct {
	filler  *filler
	keys    Keys
	pace    pace
	hold    hold
	options WarmOptions
}

// NewWarmer returns a warmer for entries, by whose numbers keys and rows name
// them.
func NewWarmer(entries []plan.Entry, keys Keys, rows Rows, cache Cache, options WarmOptions) *Warmer {
	if options.Workers == 0 {
		options.Workers = Workers
	}
	f := newFiller(entries, rows, cache, options.Applied, options.Claim, options.Logger)
	return &Warmer{
		filler: f, keys: keys, options: options,
		pace: pace{perSecond: options.RowsPerSecond},
		hold: hold{logger: f.logger, observer: options.Observer, again: sayAgain},
	}
}

// A stretch is a run of keys in their order.
type stretch struct {
	number int
	last   []string // key values of its last row; nil: it is the end
	keys   []string
	tally  Tally
}

// Run loads an entry, going on behind from. When ctx ends it finishes what is
// under way and returns how far it has come, which has been saved, and the error
// of ctx. It holds while a server is away; other errors, such as ErrSuperseded,
// are what only a person can mend.
func (w *Warmer) Run(ctx context.Context, entry int, from Progress) (Progress, error) {
	stretches, done := make(chan *stretch), make(chan *stretch)
	ahead := make(chan struct{}, aheadMax)
	progress := from

	// Whoever is at work ends it, within a lease, also when ctx has ended.
	all, failed := errgroup.WithContext(context.WithoutCancel(ctx))
	stop, cancel := context.WithCancel(failed)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()

	all.Go(func() error {
		defer close(stretches)
		return w.walk(stop, entry, from.After, ahead, stretches)
	})
	var workers sync.WaitGroup
	for range w.options.Workers {
		workers.Add(1)
		// In the group of all: the error of one ends the others, who would wait for
		// its stretch.
		all.Go(func() error {
			defer workers.Done()
			for s := range stretches {
				if err := w.load(stop, failed, entry, s); err != nil {
					return stopped(stop, err) // the stretch is not done
				}
				select {
				case done <- s:
				case <-failed.Done():
					return nil
				}
			}
			return nil
		})
	}
	all.Go(func() error {
		workers.Wait()
		close(done)
		return nil
	})
	all.Go(func() error {
		return w.collect(failed, entry, ahead, done, &progress)
	})
	err := all.Wait()
	if err == nil && !progress.Done {
		err = ctx.Err()
	}
	return progress, err
}

// walk cuts the keys of an entry into stretches.
func (w *Warmer) walk(ctx context.Context, entry int, after []string, ahead chan<- struct{}, stretches chan<- *stretch) error {
	e := &w.filler.entries[entry]
	for number := 0; ; number++ {
		var values [][]string
		err := w.persist(ctx, entry, func() (err error) {
			asking, cancel := context.WithTimeout(ctx, walkWait)
			defer cancel()
			limit := w.pace.limit(w.filler.chunk(entry))
			values, err = w.keys.Next(asking, entry, after, limit)
			switch blame(err) {
			case ofTable, ofRow:
				return err
			case ofTime:
				if limit == 1 && e.Query != "" {
					return fmt.Errorf("not one key within %s, so none ever will be: make an index that begins with the columns of the key, or write warm_keys: %w", walkWait, err)
				}
				w.filler.halve(entry, limit)
			}
			if err != nil {
				err = &serverError{serverDatabase, err}
			}
			return err
		})
		if err != nil {
			return stopped(ctx, err)
		}
		s := &stretch{number: number}
		for _, value := range values {
			s.keys = append(s.keys, e.Key.Key(value...))
		}
		if len(values) > 0 {
			after = values[len(values)-1]
			s.last = after
		}
		select {
		case ahead <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		select {
		case stretches <- s:
		case <-ctx.Done():
			return nil
		}
		if s.last == nil {
			return nil
		}
	}
}

// load takes a stretch through leases. It returns an error if that was not done,
// for one because stop has ended; what has begun is done while work lasts.
func (w *Warmer) load(stop, work context.Context, entry int, s *stretch) error {
	keys := s.keys
	for looks := 0; len(keys) > 0; looks++ {
		var left []string
		var wait time.Duration
		for len(keys) > 0 {
			if sleepUntil(stop, w.pace.next()); stop.Err() != nil {
				return stop.Err()
			}
			var results []result
			err := w.persist(stop, entry, func() (err error) {
				// It may be less than when the stretch was cut.
				chunk := keys[:min(len(keys), w.filler.chunk(entry))]
				w.pace.charge(len(chunk))
				results, err = w.filler.fill(work, entry, chunk)
				return err
			})
			if err != nil {
				return err
			}
			for i, r := range results {
				if w.filler.again(entry, r) && looks < looksMax {
					left, wait = append(left, keys[i]), max(wait, r.left)
					continue
				}
				s.tally.count(r.outcome)
			}
			keys = keys[len(results):]
		}
		if keys = left; len(keys) > 0 {
			// Whoever has the lease usually fills soon, and this stretch holds up
			// those behind it. The last look is when the lease ends.
			if looks < looksMax-1 {
				wait = min(wait, soon<<(2*looks))
			}
			sleep(stop, wait+rand.N(10*time.Millisecond))
		}
	}
	if s.tally != (Tally{}) {
		w.options.Observer.Filled(w.filler.entries[entry].Name, s.tally)
	}
	return nil
}

// collect puts what is done in order again, and saves how far that goes.
func (w *Warmer) collect(ctx context.Context, entry int, ahead <-chan struct{}, done <-chan *stretch, progress *Progress) error {
	early := map[int]*stretch{}
	saved := time.Now()
	for next := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case s, ok := <-done:
			if !ok {
				if err := w.save(context.Background(), entry, *progress); err != nil {
					return fmt.Errorf("save how far it has come: %w", err)
				}
				return nil
			}
			early[s.number] = s
		}
		for s := early[next]; s != nil; s = early[next] {
			delete(early, next)
			next++
			<-ahead
			progress.Tally.Add(s.tally)
			if progress.Done = s.last == nil; !progress.Done {
				progress.After = s.last
			}
		}
		if w.options.Show != nil {
			w.options.Show(entry, *progress)
		}
		if time.Since(saved) >= saveEvery {
			// It comes again, and what is saved last counts.
			_ = w.save(ctx, entry, *progress)
			saved = time.Now()
		}
	}
}

// save saves how far it has come. It has a deadline, since all stretches wait.
func (w *Warmer) save(ctx context.Context, entry int, progress Progress) error {
	ctx, cancel := context.WithTimeout(ctx, saveWait)
	defer cancel()
	return w.options.Save(ctx, entry, progress)
}

// persist calls do until it works; what is no server's passing trouble is
// returned.
func (w *Warmer) persist(ctx context.Context, entry int, do func() error) error {
	for {
		if sleepUntil(ctx, w.hold.next(entry)); ctx.Err() != nil {
			return ctx.Err()
		}
		err := do()
		if err == nil {
			w.hold.over(entry)
			return nil
		}
		_, passing := errors.AsType[*serverError](err)
		_, lasting := errors.AsType[*tableError](err)
		if !passing || lasting || errors.Is(err, change.ErrOriginChanged) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		w.hold.failed(entry, err)
	}
}

// stopped is nil for an error that only says that ctx has ended.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// sleepUntil waits, or returns early if ctx ends.
func sleepUntil(ctx context.Context, at time.Time) {
	if wait := time.Until(at); wait > 0 {
		sleep(ctx, wait)
	}
}
