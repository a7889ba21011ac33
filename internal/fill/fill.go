// Package fill loads values from the primary and writes them under leases, as a
// reader would: one by one as changes ask for them (a Queue), and whole entries
// in key order (a Warmer).
//
// It promises that no key is left older than the database: a value is written
// only under a lease that was given before its load began. A key that is not
// loaded is absent, which is coherent, and the next reader loads it. So work may
// be left undone: requests beyond a limit are dropped, and counted.
package fill

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
)

// Rows are those of the primary.
type Rows interface {
	// Load reads the rows of entry number entry that have these key values, in
	// one statement that begins after the call. values has, for each key, the
	// text of the value, or the fields of a hash, name and value by turns;
	// nothing where there is no such row. insert is a position of the log behind
	// every commit that values show.
	Load(ctx context.Context, entry int, keys [][]string) (values [][]string, insert uint64, err error)
}

// A Cache gives leases and takes values. A token stands for one load.
type Cache interface {
	// Begin asks for the lease of each key, and behind that whether the claim
	// stands. The answers are in the order of keys.
	Begin(ctx context.Context, claim guard.Claim, e *plan.Entry, token string, keys []string) (begun []guard.Begun, stands bool, err error)
	// Fill writes the values whose lease still stands, and says of each what became
	// of it: guard.Stored, guard.Refused or guard.Full. With an insert that is not
	// zero each leaves a shield.
	Fill(ctx context.Context, e *plan.Entry, token string, insert uint64, keys []string, values [][]string) (filled []string, err error)
	// Release gives leases back.
	Release(ctx context.Context, token string, keys []string) error
}

// An Observer is told what happens, for metrics. Its methods must not block and
// may be called from several goroutines.
type Observer interface {
	// Filled: so many keys of an entry are done with.
	Filled(entry string, t Tally)
	// Dropped: a request found the queue full, or was forgotten since another
	// instance has the stream now.
	Dropped(entry string)
	// Held: a server refused or did not answer; it is tried again.
	Held(server string)
}

// A Tally counts keys by what became of them.
type Tally struct {
	Stored  int `json:"stored"`  // loaded, and cached now
	Cached  int `json:"cached"`  // were cached already
	Refused int `json:"refused"` // loaded, and changed meanwhile: not cached by this load
	Absent  int `json:"absent"`  // have no row any more
	Busy    int `json:"busy"`    // left to readers who are loading them
	Failed  int `json:"failed"`  // the database or Redis refuses this key
	Full    int `json:"full"`    // loaded, and Redis is full: not cached
}

// Keys is the number of keys that were counted.
func (t Tally) Keys() int {
	return t.Stored + t.Cached + t.Refused + t.Absent + t.Busy + t.Failed + t.Full
}

// Add adds the counts of other.
func (t *Tally) Add(other Tally) {
	t.Stored += other.Stored
	t.Cached += other.Cached
	t.Refused += other.Refused
	t.Absent += other.Absent
	t.Busy += other.Busy
	t.Failed += other.Failed
	t.Full += other.Full
}

func (t *Tally) count(o outcome) {
	switch o {
	case stored:
		t.Stored++
	case cached:
		t.Cached++
	case refused:
		t.Refused++
	case absent:
		t.Absent++
	case busy:
		t.Busy++
	case failed:
		t.Failed++
	case full:
		t.Full++
	}
}

// Limits.
const (
	chunkKeysMax  = 256     // loaded by one statement
	chunkKeysMin  = 16      // of an entry whose rows nobody has seen yet
	chunkBytesMax = 4 << 20 // of values, as far as earlier rows tell
	chunksCalm    = 8       // loaded behind one that was too much, before the next is larger
	looksMax      = 3       // at the lease of another, or at a key whose load was refused
	// shieldWait is how long a fill waits for the stream to pass what its load
	// may have seen. Beyond, the key gets a shield: one more key in Redis, for
	// guard.Shield.
	shieldWait  = 50 * time.Millisecond
	shieldLook  = 2 * time.Millisecond
	releaseWait = time.Second
	backoffMin  = 50 * time.Millisecond
	backoffMax  = 5 * time.Second
)

// The servers that are waited for, as logs and metrics name them.
const (
	serverDatabase = "database"
	serverRedis    = "redis"
)

// outcome of one key.
type outcome uint8

const (
	stored outcome = iota
	cached
	refused
	absent
	busy // left says for how long
	failed
	full
)

type result struct {
	outcome outcome
	left    time.Duration
}

// A serverError says whose error it is. Another try may help.
type serverError struct {
	server string
	err    error
}

func (e *serverError) Error() string { return e.err.Error() }
func (e *serverError) Unwrap() error { return e.err }

// ErrSuperseded says that the claim of who loads does not stand any more: the
// stream has another owner, or the entry is another one.
var ErrSuperseded = errors.New("what is loaded has been taken up by another owner, or in another shape")

// errFull says what mends what Redis does not take.
var errFull = errors.New("redis is full: raise its maxmemory, or keep fewer values")

// A tableError is why no key of an entry can be loaded now. A person must mend it.
type tableError struct{ err error }

func (e *tableError) Error() string { return e.err.Error() }
func (e *tableError) Unwrap() error { return e.err }

// A filler takes chunks of keys through begin, load and fill. It is safe for
// concurrent use.
type filler struct {
	entries []plan.Entry
	rows    Rows
	cache   Cache
	applied func() uint64
	claim   func() guard.Claim
	logger  *slog.Logger

	mu sync.Mutex
	// chunks has, for each entry, how many keys its next chunk may have.
	chunks []int
	// calm has, for each entry, how many chunks are to come before a larger one.
	calm []int
	// said has the problems that were logged: entry, server and reason.
	said map[string]bool
}

func newFiller(entries []plan.Entry, rows Rows, cache Cache, applied func() uint64, claim func() guard.Claim, logger *slog.Logger) *filler {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	f := &filler{entries: entries, rows: rows, cache: cache, applied: applied, claim: claim, logger: logger, said: map[string]bool{}}
	for range entries {
		f.chunks, f.calm = append(f.chunks, chunkKeysMin), append(f.calm, 0)
	}
	return f
}

// chunk is how many keys of an entry to load at once.
func (f *filler) chunk(entry int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.chunks[entry]
}

// halve makes the next chunks of an entry smaller than one of so many keys.
func (f *filler) halve(entry, keys int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.chunks[entry], f.calm[entry] = max(1, min(f.chunks[entry], keys/2)), chunksCalm
}

// learn sizes the next chunk by the rows that were loaded.
func (f *filler) learn(entry int, values [][]string) {
	bytes, rows := 0, 0
	for _, value := range values {
		if len(value) > 0 {
			rows++
		}
		for _, text := range value {
			bytes += len(text)
		}
	}
	if rows == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	larger := 2 * f.chunks[entry]
	if f.calm[entry] > 0 {
		f.calm[entry]--
		larger = f.chunks[entry]
	}
	f.chunks[entry] = max(1, min(larger, chunkKeysMax, chunkBytesMax/max(1, bytes/rows)))
}

// fill deals with keys of one entry. An error is a *serverError or that of ctx,
// and everything may then be done again; or ErrSuperseded; or, with results, a
// *tableError.
//
// A new owner notes what the entries are for it before it sweeps them. Leases that
// were given before that note are ended by the first pass of the sweep, or what was
// filled under them is dropped by the second; behind it the claim does not stand.
func (f *filler) fill(ctx context.Context, entry int, keys []string) ([]result, error) {
	e := &f.entries[entry]
	leased, cancel := context.WithTimeout(ctx, e.Lease)
	defer cancel()
	random := make([]byte, 16)
	rand.Read(random) // never fails
	token := string(random)

	begun, stands, err := f.cache.Begin(leased, f.claim(), e, token, keys)
	if err != nil {
		return nil, &serverError{serverRedis, fmt.Errorf("ask for leases on %s: %w", e.Name, err)}
	}
	results := make([]result, len(keys))
	var ours []int // the numbers of the keys that we are to load
	for i, b := range begun {
		switch {
		case b.Err != nil:
			results[i].outcome = failed
			f.say(e, serverRedis, keys[i], b.Err)
		case b.Status == guard.Hit:
			results[i].outcome = cached
		case b.Status == guard.Wait:
			results[i] = result{busy, b.Left}
		default:
			ours = append(ours, i)
		}
	}
	if len(ours) == 0 {
		return results, nil
	}
	ourKeys := make([]string, len(ours))
	for at, i := range ours {
		ourKeys[at] = keys[i]
	}
	if !stands {
		f.release(ctx, token, ourKeys)
		return nil, fmt.Errorf("load %s: %w", e.Name, ErrSuperseded)
	}
	outcomes, err := f.load(leased, entry, token, ourKeys)
	switch blame(err) {
	case ofTable:
		for _, i := range ours {
			results[i].outcome = failed
		}
		return results, &tableError{err}
	case ofTime:
		if len(ourKeys) > 1 {
			// The server is busy, or the chunk is too much: both call for patience.
			f.halve(entry, len(ourKeys))
			return nil, err
		}
		outcomes, err = f.divide(ctx, entry, ourKeys, err)
	case ofRow:
		f.halve(entry, len(ourKeys))
		outcomes, err = f.divide(ctx, entry, ourKeys, err)
	}
	if err != nil {
		return nil, err
	}
	for at, i := range ours {
		results[i] = outcomes[at]
	}
	return results, nil
}

// load loads and writes keys whose leases the token has, while ctx lasts.
func (f *filler) load(ctx context.Context, entry int, token string, keys []string) ([]result, error) {
	e := &f.entries[entry]
	asked := make([][]string, len(keys))
	for i, key := range keys {
		values, ok := e.Key.Values(key)
		if !ok {
			panic(fmt.Sprintf("fill: %q is no key of entry %s (%s)", key, e.Name, e.Key))
		}
		asked[i] = values
	}
	values, insert, err := f.rows.Load(ctx, entry, asked)
	if err != nil {
		// Nobody else can load while the leases last.
		f.release(ctx, token, keys)
		return nil, &serverError{serverDatabase, fmt.Errorf("load %s: %w", e.Name, err)}
	}
	f.learn(entry, values)

	results := make([]result, len(keys))
	var found, none []string
	var foundValues [][]string
	var foundAt []int
	for i, value := range values {
		if len(value) == 0 {
			results[i].outcome = absent
			none = append(none, keys[i])
			continue
		}
		found, foundValues, foundAt = append(found, keys[i]), append(foundValues, value), append(foundAt, i)
	}
	if len(none) > 0 {
		f.release(ctx, token, none)
	}
	if len(found) == 0 {
		return results, nil
	}
	if !e.Sets() || f.passed(ctx, insert) {
		insert = 0
	}
	written, err := f.cache.Fill(ctx, e, token, insert, found, foundValues)
	if err != nil {
		return nil, &serverError{serverRedis, fmt.Errorf("fill %s: %w", e.Name, err)}
	}
	for at, i := range foundAt {
		switch written[at] {
		case guard.Stored:
		case guard.Full:
			results[i].outcome = full
			f.say(e, serverRedis, keys[i], errFull)
		default:
			results[i].outcome = refused
		}
	}
	return results, nil
}

// divide loads the halves of a chunk that the database refuses, so that one row
// that cannot be read costs no other.
func (f *filler) divide(ctx context.Context, entry int, keys []string, refusal error) ([]result, error) {
	if len(keys) == 1 {
		f.say(&f.entries[entry], serverDatabase, keys[0], refusal)
		return []result{{outcome: failed}}, nil
	}
	first, err := f.fill(ctx, entry, keys[:len(keys)/2])
	if err != nil {
		return nil, err
	}
	second, err := f.fill(ctx, entry, keys[len(keys)/2:])
	if err != nil {
		return nil, err
	}
	return append(first, second...), nil
}

// passed waits a moment for the stream to pass a position of the log. Where nobody
// knows how far it is, there is nothing to wait for.
func (f *filler) passed(ctx context.Context, insert uint64) bool {
	if f.applied() == 0 {
		return false
	}
	for began := time.Now(); f.applied() < insert; {
		if time.Since(began) >= shieldWait || ctx.Err() != nil {
			return false
		}
		sleep(ctx, shieldLook)
	}
	return true
}

// again reports whether a key is worth another look, after r.left: whoever has its
// lease may not fill. Or a change of an update entry came in between; it has found
// no value, since that was being loaded, and so asks for none.
func (f *filler) again(entry int, r result) bool {
	return r.outcome == busy || r.outcome == refused && f.entries[entry].OnChange == plan.Update
}

// release gives leases back, also when ctx has ended. Where that does not work
// they end by themselves.
func (f *filler) release(ctx context.Context, token string, keys []string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseWait)
	defer cancel()
	_ = f.cache.Release(ctx, token, keys)
}

// say logs once for each reason why keys of an entry cannot be loaded, with the
// first of them.
func (f *filler) say(e *plan.Entry, server, key string, err error) {
	what := e.Name + " " + server + " " + reason(err)
	f.mu.Lock()
	before := f.said[what]
	f.said[what] = true
	f.mu.Unlock()
	if !before {
		f.logger.Warn("a value cannot be loaded: its key, and others for this reason, are left to readers", "entry", e.Name, "key", key, "server", server, "err", err)
	}
}

// reason is what is the same for all keys that have an error: its SQLSTATE, or
// the words of its cause, which name no key.
func reason(err error) string {
	if state := change.SQLState(err); state != "" {
		return state
	}
	for cause := err; cause != nil; cause = errors.Unwrap(cause) {
		err = cause
	}
	return err.Error()
}

// A blamed is what an error of the database is about, and so what mends it.
type blamed uint8

const (
	ofServer blamed = iota // another try may help
	ofTime                 // fewer keys, or another try, may help
	ofTable                // no key of the entry can be loaded: a right or a column is gone
	ofRow                  // of one of the keys: a value that cannot be read
)

// blame tells by the SQLSTATE with which the server has read a statement and
// refused it.
func blame(err error) blamed {
	switch state := change.SQLState(err); {
	case state == "57014": // it has run for too long
		return ofTime
	case change.OfServer(err):
		return ofServer
	case state[:2] == "42":
		return ofTable
	}
	return ofRow
}

// sleep waits, or returns early if ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
