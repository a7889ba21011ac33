package apply

import (
	"context"
	"errors"
	"fmt"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/plan"
)

// A Finder answers the planner's lookups on the primary.
type Finder interface {
	// Find calls each for every row of key values that a lookup leads to. arguments
	// has, for each of the lookup's, the values of all questions; nil is NULL.
	// insert is a position of the log behind every commit that it has seen. It
	// returns change.ErrUnanswerable where another try would end the same.
	Find(ctx context.Context, lookup int, arguments [][]*string, each func(values [][]byte) error) (insert uint64, err error)
}

const (
	// questionsMax is how many one statement answers.
	questionsMax = 1000
	// refreshMax is how many of the keys that one statement finds are loaded again:
	// what a change of a category with a million products drops, readers load.
	refreshMax = 1000
)

// find answers what the batches of a group ask, each lookup in as few statements as
// may be, and hands the keys on in batches of their own as they come: what a row
// leads to may be many times what Redis or memory should take at once. What is left
// goes with the group.
//
// It runs when the group is visible, so a lookup may see what was committed behind
// the change that asked. A row that led to a key then and no longer does has a change
// of its own, behind this one, that drops the key; settled waits for it.
func (s *session) find(ctx context.Context, outages *outages, group []*plan.Batch) ([]*plan.Batch, error) {
	asked, before := map[int][]plan.Question{}, map[string]bool{}
	var name []byte
	for _, b := range group {
		for _, q := range b.Questions {
			if name = q.Append(name[:0]); !before[string(name)] {
				before[string(name)] = true
				asked[q.Lookup] = append(asked[q.Lookup], q)
			}
		}
	}
	if len(asked) == 0 {
		return group, nil
	}
	found := &finding{session: s, of: group[0]}
	var seen uint64
	for lookup := range s.planner.Lookups() {
		questions := asked[lookup]
		for len(questions) > 0 {
			some := questions[:min(len(questions), questionsMax)]
			questions = questions[len(some):]
			insert, err := found.some(ctx, outages, lookup, some)
			if errors.Is(err, change.ErrUnanswerable) {
				found.begin()
				found.batch.Sweep(s.planner.Lookups()[lookup].Entry, plan.Unknown, fmt.Sprintf("its keys cannot be looked up: %v", err), "")
				continue
			}
			if err != nil {
				return nil, err
			}
			seen = max(seen, insert)
		}
	}
	for _, b := range group {
		if len(b.Questions) > 0 {
			b.LookedUp = seen
		}
	}
	return append(found.rest(), group...), nil
}

// A finding is the way of the keys that are found into batches.
type finding struct {
	*session
	of    *plan.Batch   // that asks, or one of those
	full  []*plan.Batch // that are to be handed on
	batch *plan.Batch   // that is filled; nil: none
}

// begin has a batch be filled. It does not move its stream.
func (f *finding) begin() {
	if f.batch != nil {
		return
	}
	select {
	case f.batch = <-f.besides:
		f.batch.Reset()
	default:
		f.batch = plan.NewBatch()
	}
	f.batch.Stream, f.batch.Beside = f.of.Stream, true
}

// add adds a key, and hands on what there is as soon as the writer takes it: while it
// is busy, as much as one round trip should have.
func (f *finding) add(ctx context.Context, lookup int, values [][]byte, loads bool) error {
	f.begin()
	f.planner.Found(f.batch, lookup, values, loads)
	if !f.batch.Full() {
		return nil
	}
	f.full, f.batch = append(f.full, f.batch), nil
	if len(f.full) < groupBatchesMax {
		select {
		case f.gated <- f.full:
			f.full = nil
		default:
		}
		return nil
	}
	select {
	case f.gated <- f.full:
		f.full = nil
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// rest is what was not handed on.
func (f *finding) rest() []*plan.Batch {
	if f.batch == nil {
		return f.full
	}
	return append(f.full, f.batch)
}

// some asks one statement's questions.
func (f *finding) some(ctx context.Context, outages *outages, lookup int, questions []plan.Question) (insert uint64, err error) {
	s := f.session
	arguments := make([][]*string, len(s.planner.Lookups()[lookup].Arguments))
	for i := range arguments {
		for _, q := range questions {
			if q.Arguments[i].Valid {
				arguments[i] = append(arguments[i], &q.Arguments[i].Text)
			} else {
				arguments[i] = append(arguments[i], nil)
			}
		}
	}
	var unanswerable error
	keys := 0
	err = outages.persist(ctx, serverDatabase, func(ctx context.Context) error {
		insert, err = s.options.Finder.Find(ctx, lookup, arguments, func(values [][]byte) error {
			keys++
			return f.add(ctx, lookup, values, keys <= refreshMax)
		})
		if errors.Is(err, change.ErrUnanswerable) {
			unanswerable = err // and the server is not away
			return nil
		}
		return err
	})
	return insert, errors.Join(err, unanswerable)
}

// lookedUp is what holds settled back because of lookups that have seen more than
// the stream has brought.
type lookedUp struct {
	now, next outlook
}

// An outlook is outstanding until the stream has passed until.
type outlook struct {
	before change.Position // where settled stands meanwhile
	until  uint64
}

// note notes a lookup that has seen what was committed up to seen; zero: none.
// before is where the stream stood without the change that asked.
func (l *lookedUp) note(before change.Position, seen uint64) {
	switch {
	case seen == 0 || before.Timeline == change.Offsets:
		// Where the log cannot be compared with the stream there are no barriers.
	case l.now.until == 0:
		l.now = outlook{before, seen}
	case l.next.until == 0:
		l.next = outlook{before, seen}
	default:
		// Two are enough: the first always comes to its end, and then the second
		// does, whatever has joined it.
		l.next.until = max(l.next.until, seen)
	}
}

// outstanding is where settled stands if something is.
func (l *lookedUp) outstanding(written change.Position) (before change.Position, yes bool) {
	for l.now.until > 0 && written.LSN+pageHeader >= l.now.until {
		l.now, l.next = l.next, outlook{}
	}
	return l.now.before, l.now.until > 0
}
