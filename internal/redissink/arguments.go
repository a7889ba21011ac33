package redissink

import (
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
)

// arguments builds the commands of one round trip in memory that is used again
// by the next. The driver takes each argument as an interface; a *string in one
// needs no allocation, where a string or a []byte would.
type arguments struct {
	text    []byte   // keys and side keys, one behind the other
	strings []string // what the interfaces point to
	values  []any
}

func (a *arguments) reset() {
	a.text, a.strings, a.values = a.text[:0], a.strings[:0], a.values[:0]
}

// apply returns the EVALSHA of one batch.
func (a *arguments) apply(watermark string, header guard.ApplyHeader, b *plan.Batch) []any {
	first := len(a.strings)
	a.strings = append(a.strings, "EVALSHA", guard.Apply.SHA, "1", watermark)
	a.strings = header.AppendArguments(a.strings)

	start := len(a.text)
	ends := make([]int, 0, 2*b.Len())
	for i := range b.Len() {
		key := b.Key(i)
		a.text = append(a.text, key...)
		ends = append(ends, len(a.text))
		// A key that can have no side key can have no lease either.
		if text, ok := guard.AppendSideKey(a.text, string(key)); ok {
			a.text = text
			ends = append(ends, len(a.text))
		}
	}
	keys := string(a.text[start:])
	from := start
	for _, end := range ends {
		a.strings = append(a.strings, keys[from-start:end-start])
		from = end
	}

	// a.strings may have moved while it grew: the pointers are taken last. A
	// command built earlier points into the old memory, which stays as it was.
	values := len(a.values)
	for i := first; i < len(a.strings); i++ {
		a.values = append(a.values, &a.strings[i])
	}
	return a.values[values:len(a.values):len(a.values)]
}
