package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Problem is one thing that is wrong with the file.
type Problem struct {
	File   string `json:"file"`
	Line   int    `json:"line"`   // from 1
	Column int    `json:"column"` // from 1, in characters
	// Path is the key, like entries.product.key; empty where the file is not
	// even YAML.
	Path string `json:"path,omitempty"`
	Text string `json:"problem"`        // what is wrong
	Mend string `json:"mend,omitempty"` // what to write instead

	excerpt string // the line, passwords hidden
	caret   int    // where the caret stands in it, in characters from 0
}

// String gives the place, the problem, the line with a caret under the place,
// and what to write instead.
func (p Problem) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: ", p.File, p.Line, p.Column)
	if p.Path != "" {
		fmt.Fprintf(&b, "%s: ", p.Path)
	}
	b.WriteString(p.Text)
	number := fmt.Sprintf("%4d", p.Line)
	fmt.Fprintf(&b, "\n%s | %s\n%s | ", number, p.excerpt, strings.Repeat(" ", len(number)))
	for i, r := range []rune(p.excerpt) {
		if i >= p.caret {
			break
		}
		if r != '\t' {
			r = ' '
		}
		b.WriteRune(r)
	}
	b.WriteByte('^')
	if p.Mend != "" {
		fmt.Fprintf(&b, "\n  %s", p.Mend)
	}
	return b.String()
}

// Problems is an error that prints all of them.
type Problems []Problem

// Err sorts the problems by their place in the file. It is nil if there are
// none.
func (ps Problems) Err() error {
	if len(ps) == 0 {
		return nil
	}
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return ps
}

func (ps Problems) Error() string {
	texts := make([]string, len(ps))
	for i, p := range ps {
		texts[i] = p.String()
	}
	return strings.Join(texts, "\n\n")
}
