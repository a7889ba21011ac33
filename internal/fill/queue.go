package fill

import (
	"container/heap"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
)

// Limits of a Queue.
const (
	// PendingKeysMax and PendingBytesMax bound the keys that wait. A request
	// beyond is dropped.
	PendingKeysMax  = 100_000
	PendingBytesMax = 16 << 20

	// RowsPerSecond and Workers are the defaults of Options.
	RowsPerSecond = 5000
	Workers       = 4
)

// Options of a Queue. Zero values mean the defaults.
type Options struct {
	// RowsPerSecond bounds what is asked of the primary.
	RowsPerSecond int
	// Workers is how many chunks may be on their way at once. Part of that they
	// spend with Redis, so twice the number of connections keeps those busy.
	Workers int
	// Applied is the LSN that the stream has applied to Redis, zero where that is not
	// known, as over topics: then each value gets a shield. Required.
	Applied func() uint64
	// Claim is that of the owner for whom the queue loads. Required.
	Claim func() guard.Claim
	// Observer is required.
	Observer Observer
	Logger   *slog.Logger
}

// A Queue loads the keys that changes have dropped and that the service is to
// load again. Requests come in beside Run.
type Queue struct {
	filler   *filler
	observer Observer
	workers  int
	pace     pace
	hold     hold

	mu      sync.Mutex
	pending map[string]*request
	bytes   int        // of pending keys
	due     []requests // for each entry, those that no worker has
	// forgotten has, for each entry, how many requests found no place since the
	// queue was half empty last.
	forgotten []int
	wake      chan struct{}
}

// request is one key that is to be loaded.
type request struct {
	entry int
	key   string
	due   time.Time
	looks int  // at the lease of another, or at a key whose load was refused
	place int  // in due; -1 while a worker has it
	again bool // asked for once more since then
}

// NewQueue returns a queue for entries, by whose numbers rows and requests name
// them.
func NewQueue(entries []plan.Entry, rows Rows, cache Cache, options Options) *Queue {
	if options.RowsPerSecond == 0 {
		options.RowsPerSecond = RowsPerSecond
	}
	if options.Workers == 0 {
		options.Workers = Workers
	}
	f := newFiller(entries, rows, cache, options.Applied, options.Claim, options.Logger)
	return &Queue{
		filler: f, observer: options.Observer, workers: options.Workers,
		pace:    pace{perSecond: options.RowsPerSecond},
		hold:    hold{logger: f.logger, observer: options.Observer},
		pending: map[string]*request{},
		due:     make([]requests, len(entries)), forgotten: make([]int, len(entries)),
		wake: make(chan struct{}, 1),
	}
}

// Request asks for a key of an entry to be loaded. It is to be called when the
// drop of the key is in Redis, since a drop behind it would only end the lease.
// It never blocks. A key that waits already waits once.
func (q *Queue) Request(entry int, key string) {
	if !q.request(entry, key) {
		q.observer.Dropped(q.filler.entries[entry].Name)
		return
	}
	q.signal()
}

func (q *Queue) request(entry int, key string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if r := q.pending[key]; r != nil {
		// What a worker loads now may be older than the change that asks.
		if r.again = r.place < 0; !r.again {
			// The change has ended the lease that the request may be waiting for.
			r.due, r.looks = time.Now(), 0
			heap.Fix(&q.due[entry], r.place)
		}
		return true
	}
	if len(q.pending) >= PendingKeysMax || q.bytes+len(key) > PendingBytesMax {
		if q.forgotten[entry]++; q.forgotten[entry] == 1 {
			q.filler.logger.Warn("too many keys are to be loaded: what changes from now on is dropped, and left to readers; when it is over, unstale warm loads the rest",
				"entry", q.filler.entries[entry].Name, "pending", len(q.pending))
		}
		return false
	}
	r := &request{entry: entry, key: key, due: time.Now()}
	q.pending[key] = r
	q.bytes += len(key)
	heap.Push(&q.due[entry], r)
	return true
}

// Forget drops the requests that no worker has: their keys are dropped by
// another instance now, which has them loaded.
func (q *Queue) Forget() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for entry := range q.due {
		for _, r := range q.due[entry] {
			q.drop(r)
		}
		q.due[entry] = nil
	}
	for _, r := range q.pending {
		r.again = false
	}
}

func (q *Queue) drop(r *request) {
	q.done(r)
	q.observer.Dropped(q.filler.entries[r.entry].Name)
}

func (q *Queue) done(r *request) {
	q.bytes -= len(r.key)
	delete(q.pending, r.key)
	if len(q.pending) > PendingKeysMax/2 || q.bytes > PendingBytesMax/2 {
		return
	}
	for entry, n := range q.forgotten {
		if n > 0 {
			name := q.filler.entries[entry].Name
			q.filler.logger.Warn("keys were not loaded, since there were too many: readers load them, or unstale warm "+name+" does", "entry", name, "keys", n)
			q.forgotten[entry] = 0
		}
	}
}

// Pending is the number of keys that wait or are being loaded.
func (q *Queue) Pending() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.pending)
}

// Run loads what is requested until ctx ends. What is left then stays absent in
// the cache.
func (q *Queue) Run(ctx context.Context) error {
	var work errgroup.Group
	for range q.workers {
		work.Go(func() error {
			for {
				chunk := q.next(ctx)
				if chunk == nil {
					return nil
				}
				q.load(ctx, chunk)
			}
		})
	}
	return work.Wait()
}

func (q *Queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// next waits for requests of one entry; nil: ctx has ended.
func (q *Queue) next(ctx context.Context) []*request {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		chunk, at := q.take(time.Now())
		if chunk != nil {
			q.signal() // there may be work for another worker
			return chunk
		}
		timer.Reset(time.Until(at))
		select {
		case <-ctx.Done():
		case <-q.wake:
		case <-timer.C:
		}
	}
	return nil
}

// take returns requests that are due, those first that have waited longest, or
// when to look again.
func (q *Queue) take(now time.Time) (chunk []*request, at time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if at = q.pace.next(); at.After(now) {
		return nil, at
	}
	oldest, at := -1, now.Add(time.Hour)
	for entry, due := range q.due {
		if len(due) == 0 {
			continue
		}
		next := due[0].due
		if held := q.hold.next(entry); held.After(next) {
			next = held
		}
		if next.Before(at) {
			oldest, at = entry, next
		}
	}
	if at.After(now) {
		return nil, at
	}
	due := &q.due[oldest]
	for limit := q.pace.limit(q.filler.chunk(oldest)); len(chunk) < limit && len(*due) > 0 && !(*due)[0].due.After(now); {
		chunk = append(chunk, heap.Pop(due).(*request))
	}
	q.pace.charge(len(chunk))
	return chunk, now
}

// load deals with a chunk.
func (q *Queue) load(ctx context.Context, chunk []*request) {
	entry := chunk[0].entry
	keys := make([]string, len(chunk))
	for i, r := range chunk {
		keys[i] = r.key
	}
	results, err := q.filler.fill(ctx, entry, keys)
	switch {
	case err == nil:
		q.hold.over(entry)
	case errors.Is(err, ErrSuperseded):
		q.mu.Lock()
		defer q.mu.Unlock()
		for _, r := range chunk {
			if r.again { // by who is the owner now
				q.putBack(r, time.Now())
			} else {
				q.drop(r)
			}
		}
		return
	case ctx.Err() == nil:
		q.hold.failed(entry, err)
	}
	if results == nil {
		q.mu.Lock()
		defer q.mu.Unlock()
		for _, r := range chunk {
			q.putBack(r, r.due)
		}
		return
	}

	var tally Tally
	q.mu.Lock()
	now := time.Now()
	for i, r := range chunk {
		switch {
		case r.again:
			r.looks = 0
			q.putBack(r, now)
		case q.filler.again(entry, results[i]) && r.looks < looksMax:
			// Whoever has the lease usually fills long before it ends.
			r.looks++
			q.putBack(r, now.Add(results[i].left+rand.N(10*time.Millisecond)))
			continue
		default:
			q.done(r)
		}
		tally.count(results[i].outcome)
	}
	q.mu.Unlock()
	if tally != (Tally{}) {
		q.observer.Filled(q.filler.entries[entry].Name, tally)
	}
}

func (q *Queue) putBack(r *request, due time.Time) {
	r.due, r.again = due, false
	heap.Push(&q.due[r.entry], r)
	q.signal()
}

// requests is a heap, the one that is due first on top.
type requests []*request

func (rs requests) Len() int           { return len(rs) }
func (rs requests) Less(i, j int) bool { return rs[i].due.Before(rs[j].due) }
func (rs requests) Swap(i, j int) {
	rs[i], rs[j] = rs[j], rs[i]
	rs[i].place, rs[j].place = i, j
}

func (rs *requests) Push(x any) {
	r := x.(*request)
	r.place = len(*rs)
	*rs = append(*rs, r)
}

func (rs *requests) Pop() any {
	last := len(*rs) - 1
	r := (*rs)[last]
	(*rs)[last] = nil
	*rs, r.place = (*rs)[:last], -1
	return r
}
