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
	found := s.beside(group[0])
	var seen uint64
	for lookup := range s.planner.Lookups() {
		questions := asked[lookup]
		for len(questions) > 0 {
			some := questions[:min(len(questions), questionsMax)]
			questions = questions[len(some):]
			insert, err := s.findSome(ctx, outages, lookup, some, &found)
			if errors.Is(err, change.ErrUnanswerable) {
				found.Sweep(s.planner.Lookups()[lookup].Entry, plan.Unknown, fmt.Sprintf("its keys cannot be looked up: %v", err), "")
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
	return append([]*plan.Batch{found}, group...), nil
}

func (s *session) findSome(ctx context.Context, outages *outages, lookup int, questions []plan.Question, found **plan.Batch) (insert uint64, err error) {
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
			s.planner.Found(*found, lookup, values, keys <= refreshMax)
			if !(*found).Full() {
				return nil
			}
			select {
			case s.gated <- []*plan.Batch{*found}:
			case <-ctx.Done():
				return ctx.Err()
			}
			*found = s.beside(*found)
			return nil
		})
		if errors.Is(err, change.ErrUnanswerable) {
			unanswerable = err // and the server is not away
			return nil
		}
		return err
	})
	return insert, errors.Join(err, unanswerable)
}

// beside is an empty batch of the stream of another one. It does not move the stream.
func (s *session) beside(of *plan.Batch) *plan.Batch {
	b := plan.NewBatch()
	b.Stream, b.Beside = of.Stream, true
	return b
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
