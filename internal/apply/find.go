package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

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
	// Members does so for every member of the set of an index that values name.
	Members(ctx context.Context, index int, values []string, each func(member [][]byte) error) (insert uint64, err error)
}

const (
	// fanOutKeys is how many keys a statement finds before it goes on by itself: as many
	// as one round trip to Redis has.
	fanOutKeys = groupBatchesMax * plan.BatchKeysMax
	// fanOutAfter is how long it may take, if the database answers.
	fanOutAfter = 50 * time.Millisecond
	// fanOutsMax is how many go by themselves at once.
	fanOutsMax = 2
	// questionsMax is how many one statement answers.
	questionsMax = 1000
)

// find answers what the batches of a group ask, each lookup in as few statements as
// may be, and hands the keys on in batches of their own as they come: what a row
// leads to may be many times what Redis or memory should take at once. What is left
// goes with the group.
//
// It runs when the group is visible, so a lookup may see what was committed behind
// the change that asked. A row that led to a key then and no longer does has a change
// of its own, behind this one, that drops the key; settled waits for it. shown is a
// position of the log behind all that could be seen by who does not see the group.
func (s *session) find(ctx context.Context, outages *outages, batches []*plan.Batch, shown uint64) (group, error) {
	g := group{batches: batches}
	if !slices.ContainsFunc(batches, func(b *plan.Batch) bool { return len(b.Questions) > 0 }) {
		return g, nil
	}
	asked, before := map[int][]plan.Question{}, map[string]bool{}
	var name []byte
	for _, b := range batches {
		for _, q := range b.Questions {
			if name = q.Append(name[:0]); !before[string(name)] {
				before[string(name)] = true
				asked[q.Lookup] = append(asked[q.Lookup], q)
			}
		}
	}
	found := s.finding(batches[0].Stream)
	var early []*plan.Batch // what was found before a fan-out went by itself
	seen, scans, err := s.answer(ctx, asked, found, shown)
	if err != nil {
		return g, err
	}
	for lookup := range s.planner.Lookups() {
		statements := scans[lookup]
		for questions := range slices.Chunk(asked[lookup], questionsMax) {
			statements = append(statements, s.statement(lookup, questions))
		}
		for _, statement := range statements {
			ended := make(chan struct{})
			found.large = make(chan *fanOut, 1)
			its := found // which is another one when this has become a fan-out
			s.fanning.Go(func() {
				defer close(ended)
				statement.run(ctx, outages, its)
			})
			fan, left := s.await(statement, found, ended)
			early = append(early, left...)
			if fan != nil {
				g.begun = append(g.begun, fan)
				found = s.finding(batches[0].Stream)
				continue
			}
			if errors.Is(statement.err, change.ErrUnanswerable) {
				found.begin()
				found.batch.Sweep(s.planner.Lookups()[lookup].Entry, plan.Unknown, unanswerable(statement.err), "")
			} else if statement.err != nil {
				return g, statement.err
			}
			seen = max(seen, statement.insert)
		}
	}
	for _, b := range batches {
		if len(b.Questions) > 0 {
			b.LookedUp = seen
		}
	}
	g.batches = slices.Concat(early, found.rest(), batches)
	return g, nil
}

func unanswerable(err error) string { return fmt.Sprintf("its keys cannot be looked up: %v", err) }

// A finding is the way of the keys that are found into batches.
type finding struct {
	*session
	stream int // of those who ask
	// large is told that the statement has become a fan-out, by itself.
	large chan *fanOut

	// mine is held by who uses the rest: whoever hands on under it may wait for Redis, and
	// who waits for that is to be seen to wait, in tests too: no mutex.
	mine   chan struct{}
	full   []*plan.Batch // that are to be handed on
	batch  *plan.Batch   // that is filled; nil: none
	fan    *fanOut       // what the statement has become; nil: none
	failed bool          // it has, once at least
	over   bool          // it has ended
}

func (s *session) finding(stream int) *finding {
	return &finding{session: s, stream: stream, mine: make(chan struct{}, 1)}
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
	f.batch.Stream, f.batch.Beside = f.stream, true
}

// add adds a key, and hands on what there is as soon as the writer takes it: while it
// is busy, as much as one round trip should have.
func (f *finding) add(ctx context.Context, lookup int, values [][]byte, loads bool) error {
	f.mine <- struct{}{}
	defer func() { <-f.mine }()
	f.begin()
	f.planner.Found(f.batch, lookup, values, loads)
	if !f.batch.Full() {
		return nil
	}
	f.full, f.batch = append(f.full, f.batch), nil
	if len(f.full) < groupBatchesMax {
		select {
		case f.gated <- group{batches: f.full}:
			f.full = nil
		default:
		}
		return nil
	}
	return f.flush(ctx, nil)
}

// flush hands on all that there is, and, if not nil, that fan has ended.
func (f *finding) flush(ctx context.Context, ended *fanOut) error {
	select {
	case f.gated <- group{batches: f.rest(), ended: ended}:
		f.full, f.batch = nil, nil
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

// A statement asks many questions of one lookup, of the database, or one of a set.
type statement struct {
	lookup   int
	find     func(ctx context.Context, each func(values [][]byte) error) (insert uint64, err error)
	loadsMax int // of the keys that it finds, so many are loaded again
	keys     int // found so far
	insert   uint64
	err      error
}

// statement copies the arguments: their batch is used again while a fan-out runs.
func (s *session) statement(lookup int, questions []plan.Question) *statement {
	arguments := make([][]*string, len(s.planner.Lookups()[lookup].Arguments))
	for i := range arguments {
		for _, q := range questions {
			if text := q.Arguments[i].Text; q.Arguments[i].Valid {
				arguments[i] = append(arguments[i], &text)
			} else {
				arguments[i] = append(arguments[i], nil)
			}
		}
	}
	// For each question as many as its entry allows: what a change of a category with a
	// million products drops beyond that, readers load. How many there are is not known
	// before all have come, and by then the first are dropped already.
	asks := len(questions)
	return &statement{lookup: lookup, loadsMax: asks * s.loadsMax(lookup), find: func(ctx context.Context, each func(values [][]byte) error) (uint64, error) {
		insert, err := s.options.Finder.Find(ctx, lookup, arguments, each)
		if err == nil {
			s.lookedUp(lookup, 0, asks)
		}
		return insert, err
	}}
}

// loadsMax is how many of the keys that a question of a lookup leads to are loaded again.
func (s *session) loadsMax(lookup int) int {
	return s.planner.Entries()[s.planner.Lookups()[lookup].Entry].RefreshMax
}

// run asks until there is an answer. One that has become a fan-out hands on the rest of
// its keys, and its end, by itself.
func (q *statement) run(ctx context.Context, outages *outages, f *finding) {
	s := f.session
	var refused error
	err := outages.persist(ctx, serverDatabase, func(ctx context.Context) (err error) {
		q.insert, err = q.find(ctx, func(values [][]byte) error {
			q.keys++
			if q.keys == fanOutKeys {
				if err := s.fanOut(ctx, q, f); err != nil {
					return err
				}
			}
			return f.add(ctx, q.lookup, values, q.keys <= q.loadsMax)
		})
		if errors.Is(err, change.ErrUnanswerable) {
			refused = err // and the server is not away
			return nil
		}
		if err != nil {
			f.mine <- struct{}{}
			f.failed = true
			<-f.mine
		}
		return err
	})
	q.err = errors.Join(err, refused)
	f.mine <- struct{}{}
	defer func() { <-f.mine }()
	if f.over = true; f.fan == nil {
		return
	}
	defer func() { <-s.fanOuts }()
	if err != nil {
		if ctx.Err() == nil {
			s.broken(err)
		}
		return // the watermark says that the entry is to be swept
	}
	f.fan.seen, f.fan.refused = q.insert, refused
	_ = f.flush(ctx, f.fan) // as above, if the session ends
}

// lookedUp is what holds settled back because of lookups that have seen more than
// has dropped its keys.
type lookedUp struct {
	// hops is how many rows, one behind the other, may have led a lookup astray, each by a
	// change whose own keys must be looked up.
	hops      int
	now, next outlook
}

// An outlook is outstanding until everything up to until has dropped its keys, and then,
// hops times, until what was looked up for that has.
type outlook struct {
	before change.Position // where settled stands meanwhile
	until  uint64
	hops   int
}

// lookupHops is lookedUp.hops: of each lookup there is another row on the way, or none; of
// a written one, of each table that it names.
func lookupHops(p *plan.Planner) int {
	lookups := map[int]int{} // by entry
	most := 1
	for _, lookup := range p.Lookups() {
		lookups[lookup.Entry] += max(1, lookup.Reads)
		most = max(most, lookups[lookup.Entry])
	}
	return most - 1
}

// note notes a lookup that has seen what was committed up to seen; zero: none.
// before is where the stream stood without the change that asked.
func (l *lookedUp) note(before change.Position, seen uint64) {
	switch {
	case seen == 0 || before.Timeline == change.Offsets:
		// The log cannot be compared with a topic: a barrier over topics does not wait for
		// what a lookup has seen.
	case l.now.until == 0:
		l.now = outlook{before, seen, l.hops}
	case l.next.until == 0:
		l.next = outlook{before, seen, l.hops}
	default:
		// Two are enough: the first always comes to its end, and then the second
		// does, whatever has joined it.
		l.next.until = max(l.next.until, seen)
		if before.Compare(l.next.before) < 0 {
			l.next.before = before // of a fan-out
		}
	}
}

// outstanding is where settled stands if something is. Up to dropped each change has
// dropped what it leads to, by itself, by what was looked up, and by a sweep. That the
// stream has passed one is not enough: a lookup relies on the keys of those behind it.
//
// Of these a lookup may have found too little as well, and rely on others behind it. All
// that are not above until are in next by now.
func (l *lookedUp) outstanding(dropped uint64) (before change.Position, yes bool) {
	for l.now.until > 0 && dropped+pageHeader >= l.now.until {
		if l.now.hops > 0 && l.next.until > l.now.until {
			l.now.until = l.next.until
			l.now.hops--
			continue
		}
		l.now, l.next = l.next, outlook{}
	}
	before = l.now.before
	if l.next.until > 0 && l.next.before.Compare(before) < 0 {
		before = l.next.before
	}
	return before, l.now.until > 0
}
