package redissink

import (
	"encoding/binary"
	"strconv"
	"unsafe"

	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
	"github.com/unstale/unstale/internal/value"
)

// arguments builds the commands of one round trip in memory that is used again
// by the next. The driver takes each argument as an interface; a *string in one
// needs no allocation, where a string or a []byte would.
type arguments struct {
	text    []byte   // of the strings that are being added
	ends    []int    // ends[i] is where string i ends in text
	strings []string // what the interfaces point to
	values  []any
	// prefixes begin the names of the sets of each index.
	prefixes []string

	// The items of the batch at hand, by what happens to them.
	drop, forget, reload, set, restore, setHash []int
}

func (a *arguments) reset() {
	a.strings, a.values = a.strings[:0], a.values[:0]
}

// apply returns the EVALSHA of one batch, and leaves the sets in a.set and
// a.setHash, in the order in which the script counts them, and those behind them
// in a.reload. Of a batch beside the stream the drops are for unlink.
func (a *arguments) apply(watermark string, header guard.ApplyHeader, b *plan.Batch, entries []plan.Entry) []any {
	a.sort(b, entries)
	script := guard.Apply
	if b.Writes() {
		script = guard.ApplyValues
	}
	header.Forgets, header.Reloads = len(a.forget)+len(a.reload), len(a.reload)
	header.Strings, header.Restores, header.Hashes = len(a.set), len(a.restore), len(a.setHash)

	first := len(a.strings)
	a.strings = append(a.strings, "EVALSHA", script.SHA, "1", watermark)
	head := len(a.strings)
	a.strings = header.AppendArguments(a.strings)
	header.Removes = a.addEdits(b, false)
	if header.Adds = a.addEdits(b, true); b.Pressed {
		header.Adds, header.Voids = 0, header.Adds
	}
	if !b.Beside {
		edited := len(a.ends)
		a.addKeys(b, a.drop)
		a.addSideKeys(b, a.drop)
		header.Drops = len(a.ends) - edited
	}
	header.AppendArguments(a.strings[:head]) // in place: now the numbers are known
	a.addKeys(b, a.forget)
	a.addKeys(b, a.reload)
	a.addSideKeys(b, a.forget)
	a.addSideKeys(b, a.reload)
	a.addSets(b, a.set, entries)
	a.addOrders(b, a.set)
	a.addValues(b, a.set)
	a.addSets(b, a.restore, entries)
	a.addValues(b, a.restore)
	a.addSets(b, a.setHash, entries)
	a.addOrders(b, a.setHash)
	for _, i := range a.setHash {
		fields := 0
		encoded, _ := b.Value(i)
		for range value.Fields(encoded) {
			fields++
		}
		a.text = strconv.AppendInt(a.text, int64(fields), 10)
		a.end()
	}
	for _, i := range a.setHash {
		encoded, _ := b.Value(i)
		for name, field := range value.Fields(encoded) {
			a.text = append(a.text, name...)
			a.end()
			a.text = append(a.text, field...)
			a.end()
		}
	}
	a.flush()
	return a.command(first)
}

// unlink returns the UNLINK of what a batch drops, nil if that is nothing.
func (a *arguments) unlink(b *plan.Batch, entries []plan.Entry) []any {
	a.sort(b, entries)
	if len(a.drop) == 0 {
		return nil
	}
	first := len(a.strings)
	a.strings = append(a.strings, "UNLINK")
	a.addKeys(b, a.drop)
	a.addSideKeys(b, a.drop)
	a.flush()
	return a.command(first)
}

// command is that of the strings from first on.
func (a *arguments) command(first int) []any {
	// a.strings may have moved while it grew: the pointers are taken last. A
	// command built earlier points into the old memory, which stays as it was.
	values := len(a.values)
	for i := first; i < len(a.strings); i++ {
		a.values = append(a.values, &a.strings[i])
	}
	return a.values[values:len(a.values):len(a.values)]
}

// sort finds what happens to each key. A key that can have no side key has no
// lease and no shield, so it is only ever dropped.
func (a *arguments) sort(b *plan.Batch, entries []plan.Entry) {
	a.drop, a.forget, a.reload = a.drop[:0], a.forget[:0], a.reload[:0]
	a.set, a.restore, a.setHash = a.set[:0], a.restore[:0], a.setHash[:0]
	for i := range b.Len() {
		list := &a.drop
		switch effect := b.Effect(i); {
		case effect == plan.Drop || !a.hasSideKey(b.Key(i)):
		case effect == plan.Forget:
			list = &a.forget
		case effect == plan.Reload:
			list = &a.reload
		case effect == plan.Compare, effect == plan.Restore:
			list = &a.restore
		case entries[b.Entry(i)].Hash:
			list = &a.setHash
		default:
			list = &a.set
		}
		*list = append(*list, i)
	}
}

func (a *arguments) hasSideKey(key []byte) bool {
	n := len(a.text)
	text, ok := guard.AppendSideKey(a.text, view(key))
	a.text = text[:n]
	return ok
}

// addEdits adds set and member of what is added to indexes, or taken out, and returns how
// many there are. To a full Redis nothing is added: the sets alone are named, and go.
func (a *arguments) addEdits(b *plan.Batch, adds bool) (n int) {
	for i := range b.Edits() {
		edit := b.Edit(i)
		if edit.Adds != adds {
			continue
		}
		n++
		a.text = append(append(a.text, a.prefixes[edit.Index]...), edit.Set...)
		a.end()
		if !adds || !b.Pressed {
			a.text = append(a.text, edit.Member...)
			a.end()
		}
	}
	return n
}

func (a *arguments) addKeys(b *plan.Batch, items []int) {
	for _, i := range items {
		a.text = append(a.text, b.Key(i)...)
		a.end()
	}
}

func (a *arguments) addSideKeys(b *plan.Batch, items []int) {
	for _, i := range items {
		if text, ok := guard.AppendSideKey(a.text, view(b.Key(i))); ok {
			a.text = text
			a.end()
		}
	}
}

// addSets adds keys, side keys and lifetimes of what is written.
func (a *arguments) addSets(b *plan.Batch, items []int, entries []plan.Entry) {
	a.addKeys(b, items)
	a.addSideKeys(b, items)
	for _, i := range items {
		ttl := guard.SpreadTTL(view(b.Key(i)), entries[b.Entry(i)].TTL).Milliseconds()
		if e := b.Effect(i); e == plan.SetCached || e == plan.Compare {
			ttl = -ttl
		}
		a.text = strconv.AppendInt(a.text, ttl, 10)
		a.end()
	}
}

func (a *arguments) addValues(b *plan.Batch, items []int) {
	for _, i := range items {
		text, _ := b.Value(i)
		a.text = append(a.text, text...)
		a.end()
	}
}

func (a *arguments) addOrders(b *plan.Batch, items []int) {
	for _, i := range items {
		_, lsn := b.Value(i)
		a.text = binary.BigEndian.AppendUint64(a.text, lsn)
		a.end()
	}
}

// end closes a string.
func (a *arguments) end() { a.ends = append(a.ends, len(a.text)) }

// flush makes the pieces of text strings that share one allocation.
func (a *arguments) flush() {
	text := string(a.text)
	start := 0
	for _, end := range a.ends {
		a.strings = append(a.strings, text[start:end])
		start = end
	}
	a.text, a.ends = a.text[:0], a.ends[:0]
	if cap(a.text) > 2*plan.BatchBytesMax {
		a.text = nil // one long value must not hold its memory for good
	}
}

// view is key as a string, without a copy: for calls that do not keep it.
func view(key []byte) string { return unsafe.String(unsafe.SliceData(key), len(key)) }
