package engine

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// A ledger is the commit log of one row, or of one result of a query, kept by its
// writers. Versions are dense and grow in the order of commits: a writer takes the next
// one while it holds the locks of all that it is made of, which PostgreSQL releases only
// when the commit is visible. A version that was rolled back is never used again, so
// whoever shows it shows what was never committed.
type ledger struct {
	mu       sync.Mutex
	versions []version // index is the number; 0 stands for nothing
	// newest is the last committed version; gone is the last one begun, and not
	// undone, at which there is no row, 0 if none.
	newest, gone atomic.Int64
	// texts has, where a value does not tell its version by itself, the last version
	// with each text, by its hash.
	texts map[uint64]int64
}

// hashOf is of a text: no two different ones meet, as good as surely.
func hashOf(text string) uint64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, text)
	return h.Sum64()
}

// A version of a row.
type version struct {
	outcome outcome
	gone    bool   // there is no row
	big     string // stamp of column big
	before  int64  // in a ledger of texts: the last one that looks the same, 0 if there is none
	seenBy  uint32 // lanes that showed it before its outcome was known
	begun   time.Duration
	ended   time.Duration // COMMIT or ROLLBACK had returned
	// settled is when each clock had it; 0: never, or only a later one.
	settled [clocks]time.Duration
}

type outcome uint8

const (
	open outcome = iota
	committed
	undone
)

// begin takes the next version. The caller holds its locks.
func (l *ledger) begin(now time.Duration) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.versions = append(l.versions, version{begun: now})
	return int64(len(l.versions) - 1)
}

// describe says what version n looks like, before it can be seen.
func (l *ledger) describe(n int64, gone bool, big string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.versions[n].gone, l.versions[n].big = gone, big
	if gone {
		l.gone.Store(max(l.gone.Load(), n))
	}
}

// describeText says what version n of a result looks like.
func (l *ledger) describeText(n int64, text string) {
	l.describe(n, text == absent, "")
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.texts == nil {
		l.texts = map[uint64]int64{}
	}
	hash := hashOf(text)
	l.versions[n].before = l.texts[hash]
	l.texts[hash] = n
}

// commit notes that COMMIT of version n has returned.
func (l *ledger) commit(n int64, now time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.versions[n].outcome, l.versions[n].ended = committed, now
	l.newest.Store(max(l.newest.Load(), n))
}

// undo notes that version n was never committed. It returns the lanes that have
// shown it all the same.
func (l *ledger) undo(n int64, now time.Duration) (seenBy uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.versions[n].outcome, l.versions[n].ended = undone, now
	if l.gone.Load() == n {
		before := n - 1
		for before > 0 && (!l.versions[before].gone || l.versions[before].outcome == undone) {
			before--
		}
		l.gone.Store(before)
	}
	return l.versions[n].seenBy
}

// settle notes that a clock has reached version n.
func (l *ledger) settle(n int64, clock int, now time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.versions[n].settled[clock] = now
}

// read says which version a cached text is of: of several that look the same the
// last.
func (l *ledger) read(text []byte) value {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.texts != nil:
		n := l.lookingLike(l.texts[hashOf(string(text))])
		return value{version: n, gone: l.versions[n].gone}
	case string(text) == absent:
		return value{gone: true, version: l.gone.Load()}
	}
	return parse(text)
}

// lookingLike is n, or else the last version before that looks the same and was not
// undone.
func (l *ledger) lookingLike(n int64) int64 {
	for n > 0 && l.versions[n].outcome == undone {
		n = l.versions[n].before
	}
	return n
}

// phantom reports whether v is a value that no committed version has. A version
// whose outcome is open is noted as seen by lane, a bit. Which deletion a missing
// row is of cannot be seen: it passes for the last.
func (l *ledger) phantom(v value, lane uint32) bool {
	if v.gone || v.version == 0 {
		return v.version == 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.texts != nil {
		// What looks like an earlier version may be that one.
		if n := &l.versions[v.version]; n.outcome == open && l.lookingLike(n.before) == 0 {
			n.seenBy |= lane
		}
		return l.lookingLike(v.version) == 0
	}
	if v.version <= 0 || v.version >= int64(len(l.versions)) {
		return true
	}
	n := &l.versions[v.version]
	if n.outcome == open {
		n.seenBy |= lane
	}
	return n.outcome == undone || n.gone || n.big != v.big
}

// since is the least version that v can be of, if whoever shows it does not fall
// behind version n: of a missing row that, or the first deletion above; of a result the
// first that looks the same. It is n where there is none.
func (l *ledger) since(v value, n int64) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.texts != nil:
		least := n
		for same := l.lookingLike(v.version); same >= n && same > 0; same = l.lookingLike(l.versions[same].before) {
			least = same
		}
		return least
	case !v.gone:
		return v.version
	}
	for above := n; above < int64(len(l.versions)); above++ {
		if l.versions[above].gone {
			return above
		}
	}
	return n
}

// behind is for how long, at a moment, a newer version than v had been
// committed; 0 where there was none.
func (l *ledger) behind(v int64, at time.Duration) time.Duration {
	if l.newest.Load() <= v {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.versions[v+1:] {
		if n.outcome == committed {
			return max(0, at-n.ended)
		}
	}
	return 0
}

// A value is what a cached text says: which version of its row it is of.
type value struct {
	version int64
	gone    bool
	big     string // stamp of column big, if it has one
}

// absent is the text for a row that is not there: that is cached too.
const absent = "null"

// parse reads a cached row. What is torn, with a note of another version than
// its own, is of no version: -1.
func parse(text []byte) value {
	number, ok := field(text, `"version":`)
	if !ok {
		return value{version: -1}
	}
	n, err := strconv.ParseInt(string(number), 10, 64)
	note, _ := field(text, `"note":"`)
	if err != nil || !bytes.Equal(note, number) {
		return value{version: -1}
	}
	big, _ := field(text, `"big":"`)
	return value{version: n, big: string(big)}
}

// textOf writes a hash as a row's text would be, without its NULLs.
func textOf(fields map[string]string) []byte {
	if len(fields) == 0 {
		return []byte(absent)
	}
	var names []string
	var values [][]byte
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		names, values = append(names, name), append(values, []byte(fields[name]))
	}
	return render(names, values)
}

// fieldsOf is the hash of a row's text.
func fieldsOf(text []byte) map[string]string {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var row map[string]any
	if decoder.Decode(&row) != nil {
		return nil
	}
	fields := map[string]string{}
	for name, value := range row {
		if value != nil {
			fields[name] = fmt.Sprint(value)
		}
	}
	return fields
}

// render writes a row as JSON, near enough to what PostgreSQL would: only note
// and big are texts.
func render(names []string, values [][]byte) []byte {
	var b bytes.Buffer
	for i, v := range values {
		b.WriteString(map[bool]string{true: "{", false: ","}[i == 0])
		b.WriteString(strconv.Quote(names[i]) + ":")
		switch {
		case v == nil:
			b.WriteString("null")
		case names[i] == "note" || names[i] == "big":
			b.WriteString(`"` + string(v) + `"`)
		default:
			b.Write(v)
		}
	}
	return append(b.Bytes(), '}')
}

// field returns the digits and dots behind name.
func field(text []byte, name string) ([]byte, bool) {
	at := bytes.Index(text, []byte(name))
	if at < 0 {
		return nil, false
	}
	text = text[at+len(name):]
	end := 0
	for end < len(text) && (text[end] >= '0' && text[end] <= '9' || text[end] == '.') {
		end++
	}
	return text[:end], end > 0
}
