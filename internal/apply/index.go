package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
)

// Indexes holds the sets of the planner's indexes, which the batches that a Sink writes
// keep up. Its methods may be called beside all others of the sink, by the owner of the
// stream.
type Indexes interface {
	// Ask returns what each set has. One that is not complete has nothing.
	Ask(ctx context.Context, sets []plan.IndexSet) ([]plan.Answer, error)
	// Scan calls each for every member of a set of which Ask has returned token. It returns
	// guard.ErrIncomplete if members may have been missing.
	Scan(ctx context.Context, set plan.IndexSet, token string, each func(values [][]byte) error) error
	// BeginSet makes of a set one that is being built, and has no members. From then on
	// batches keep it up.
	BeginSet(ctx context.Context, set plan.IndexSet) (plan.Building, error)
	// FillSet adds members, and returns the building as it is then. It returns guard.ErrLost
	// if the set is being built no more, or has lost members that were added before.
	FillSet(ctx context.Context, b plan.Building, members []string) (plan.Building, error)
	// CompleteSet lets the set answer from now on, if everything up to b.From is written.
	// It returns guard.ErrLost as FillSet does.
	CompleteSet(ctx context.Context, b plan.Building) (done bool, err error)
}

const (
	// setsAtOnce is how many sets are asked in one round trip.
	setsAtOnce = 100
	// setsMax is how many wait to be built. What is wanted beyond that is forgotten: it
	// will be asked for again.
	setsMax = 1000
	// builtMax is how many are built and wait for the stream.
	builtMax = 100
	// fillMembers is how many members are added in one round trip.
	fillMembers = 1000
)

// answer takes from asked what indexes answer, and adds the keys that they have. scans
// are, for each lookup, the sets that have too many to be given at once. What no set
// answers stays with the database, and has its set built.
//
// A set is where the stream is, or was a moment ago: behind the database. That is
// enough. Take a row of the index's table, and the version of it that a key has been
// made with. If the set has that version, the key is found. If not, a change of the row
// is not written yet, to that version or from it. It drops the key, whatever the set
// says, and does so after this; and this is after the change that asks was visible. What
// a reader fills behind that drop shows that change. Until the stream has brought what
// such a reader can have seen, which is not beyond shown, settled waits, as it does for
// lookups on the database.
//
// While all of an entry is to be swept its sets may lack rows. The sweep takes them
// away, so what is there behind it was begun behind its cause.
func (s *session) answer(ctx context.Context, asked map[int][]plan.Question, f *finding, shown uint64) (seen uint64, scans map[int][]*statement, err error) {
	if len(s.planner.Indexes()) == 0 {
		return 0, nil, nil
	}
	var ask []indexQuestion
	sweeping := s.sweeps.wholly()
	for number, lookup := range s.planner.Lookups() {
		if lookup.Indexed < 0 || slices.Contains(sweeping, s.planner.Entries()[lookup.Entry].Key.String()) {
			continue
		}
		for _, q := range asked[number] {
			if set, ok := s.planner.SetOf(&q); ok {
				ask = append(ask, indexQuestion{q, set})
			} // else it leads to no key
		}
		delete(asked, number)
	}
	scans = map[int][]*statement{}
	answered := map[int]int{} // by lookup
	for some := range slices.Chunk(ask, setsAtOnce) {
		sets := make([]plan.IndexSet, len(some))
		for i := range some {
			sets[i] = some[i].set
		}
		answers, err := s.options.Indexes.Ask(ctx, sets)
		if err != nil {
			if ctx.Err() != nil {
				return 0, nil, ctx.Err()
			}
			if !s.sets.saidSilent {
				s.logger.Warn("indexes do not answer: the database does, until they do again", "err", err)
			}
			answers = make([]plan.Answer, len(some))
		}
		s.sets.saidSilent = err != nil
		for i, q := range some {
			switch {
			case answers[i].Whole:
				seen = shown
				for n, values := range answers[i].Members {
					if err := f.add(ctx, q.Lookup, values, n < s.loadsMax(q.Lookup)); err != nil {
						return 0, nil, err
					}
				}
				answered[q.Lookup]++
			case answers[i].Token != "":
				scans[q.Lookup] = append(scans[q.Lookup], s.scan(q, answers[i].Token, shown))
			default:
				asked[q.Lookup] = append(asked[q.Lookup], q.Question)
				if err == nil {
					s.want(q.set)
				}
			}
		}
	}
	for lookup, n := range answered {
		s.lookedUp(lookup, n, 0)
	}
	return seen, scans, nil
}

// An indexQuestion is one that a set may answer.
type indexQuestion struct {
	plan.Question
	set plan.IndexSet
}

func (s *session) lookedUp(lookup, index, database int) {
	s.observer.LookedUp(s.planner.Entries()[s.planner.Lookups()[lookup].Entry].Name, index, database)
}

// scan asks a large set, and where that turns out not to be complete the database.
func (s *session) scan(q indexQuestion, token string, shown uint64) *statement {
	database := s.statement(q.Lookup, []plan.Question{q.Question})
	return &statement{lookup: q.Lookup, loadsMax: database.loadsMax, find: func(ctx context.Context, each func(values [][]byte) error) (uint64, error) {
		err := s.options.Indexes.Scan(ctx, q.set, token, each)
		switch {
		case err == nil:
			s.lookedUp(q.Lookup, 1, 0)
			return shown, nil
		case ctx.Err() != nil:
			return 0, ctx.Err()
		}
		if errors.Is(err, guard.ErrIncomplete) {
			s.want(q.set)
		}
		return database.find(ctx, each)
	}}
}

// want has a set built, unless the stream is older than what the session knows of the
// tables: members are taken out by the unique keys that there are today, and of rows that
// were alike before one would take out the other's.
func (s *session) want(set plan.IndexSet) {
	if s.Loop.Applied()+pageHeader >= s.logged {
		s.sets.want(set)
	}
}

// sets are those of indexes that somebody has asked for and that are not complete.
type sets struct {
	wanted chan plan.IndexSet
	moved  chan struct{} // the stream has come further

	mu       sync.Mutex
	underway map[string]bool // those that are wanted or being built

	saidSilent  bool // the gate's own
	saidUnbuilt bool // the builder's own
}

func setName(set plan.IndexSet) string { return fmt.Sprintf("%d:%s", set.Index, set.Name) }

// want has a set built, if there is room and it is not being built already.
func (s *sets) want(set plan.IndexSet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name := setName(set); !s.underway[name] {
		select {
		case s.wanted <- set:
			s.underway[name] = true
		default:
		}
	}
}

func (s *sets) over(set plan.IndexSet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.underway, setName(set))
}

// wake lets the builder look how far the stream is.
func (s *sets) wake() {
	select {
	case s.moved <- struct{}{}:
	default:
	}
}

// buildAll builds the sets that are wanted, one after the other. A set is begun first and
// read then: what the database does not show any more, or not yet, the stream brings. It
// answers when everything that the database had seen is written, so it is as if the
// stream had made it. No set is worth ending the session, or a second try: who asks for
// it asks the database, and wants it again.
func (s *session) buildAll(ctx context.Context) {
	var waiting []plan.Building // sets that have all members that the database had
	for {
		wanted := s.sets.wanted
		if len(waiting) == builtMax {
			wanted = nil
		}
		select {
		case <-ctx.Done():
			return
		case set := <-wanted:
			b, err := s.build(ctx, set)
			if err != nil {
				if !s.sets.saidUnbuilt && !errors.Is(err, guard.ErrLost) && ctx.Err() == nil {
					s.logger.Warn("a set of an index cannot be built: the database answers, until one can be again", "set", set.Name, "err", err)
					s.sets.saidUnbuilt = true
				}
				s.sets.over(set)
				continue
			}
			s.sets.saidUnbuilt = false
			waiting = append(waiting, b)
		case <-s.sets.moved:
		}
		waiting = slices.DeleteFunc(waiting, func(b plan.Building) bool { return s.complete(ctx, b) })
	}
}

func (s *session) build(ctx context.Context, set plan.IndexSet) (plan.Building, error) {
	b, err := s.options.Indexes.BeginSet(ctx, set)
	if err != nil {
		return b, err
	}
	var members []string
	fill := func() (err error) {
		b, err = s.options.Indexes.FillSet(ctx, b, members)
		members = members[:0]
		return err
	}
	insert, err := s.options.Finder.Members(ctx, set.Index, set.Values, func(values [][]byte) error {
		var member []byte
		for _, value := range values {
			member = guard.AppendMember(member, value)
		}
		if members = append(members, string(member)); len(members) < fillMembers {
			return nil
		}
		return fill()
	})
	if err == nil && len(members) > 0 {
		err = fill()
	}
	// An insert position can stand behind a page header that no commit reaches.
	b.From = change.Position{Timeline: s.origin.Timeline, LSN: insert - min(insert, pageHeader)}
	return b, err
}

// complete lets a set answer, if it is time; over: it does, or never will.
func (s *session) complete(ctx context.Context, b plan.Building) (over bool) {
	if s.Loop.Applied() < b.From.LSN {
		return false
	}
	done, err := s.options.Indexes.CompleteSet(ctx, b)
	switch {
	case done:
		s.observer.Built(s.planner.Entries()[s.planner.Indexes()[b.Set.Index].Entry].Name)
	case err == nil:
		return false
	case !errors.Is(err, guard.ErrLost):
		s.logger.Debug("a set of an index was not completed", "set", b.Set.Name, "err", err)
	}
	s.sets.over(b.Set)
	return true
}
