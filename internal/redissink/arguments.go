package redissink

import (
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
)

// arguments builds the commands of one round trip in memory that is used again
// by the next. The driver takes each argument as an interface; a *string in one
// needs no allocation, where a string or a []byte would.
type arguments struct {
	text    []byte   // of the strings that are being added
	ends    []int    // ends[i] is where string i ends in text
	strings []string // what the interfaces point to
	values  []any
}

func (a *arguments) reset() {
	a.strings, a.values = a.strings[:0], a.values[:0]
}

// apply returns the EVALSHA of one batch.
func (a *arguments) apply(watermark string, header guard.ApplyHeader, b *plan.Batch) []any {
	first := len(a.strings)
	a.strings = append(a.strings, "EVALSHA", guard.Apply.SHA, "1", watermark)
	a.strings = header.AppendArguments(a.strings)

	keys := len(a.strings)
	for i := range b.Len() {
		a.text = append(a.text, b.Key(i)...)
		a.ends = append(a.ends, len(a.text))
	}
	a.addStrings()
	for _, key := range a.strings[keys:] {
		// A key that can have no side key can have no lease either.
		if text, ok := guard.AppendSideKey(a.text, key); ok {
			a.text = text
			a.ends = append(a.ends, len(text))
		}
	}
	a.addStrings()

	// a.strings may have moved while it grew: the pointers are taken last. A
	// command built earlier points into the old memory, which stays as it was.
	values := len(a.values)
	for i := first; i < len(a.strings); i++ {
		a.values = append(a.values, &a.strings[i])
	}
	return a.values[values:len(a.values):len(a.values)]
}

// addStrings makes the pieces of text strings that share one allocation.
func (a *arguments) addStrings() {
	text := string(a.text)
	start := 0
	for _, end := range a.ends {
		a.strings = append(a.strings, text[start:end])
		start = end
	}
	a.text, a.ends = a.text[:0], a.ends[:0]
}
