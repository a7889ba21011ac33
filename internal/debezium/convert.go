package debezium

import (
	"bytes"
	"strconv"

	"github.com/unstale/unstale/internal/change"
)

// raw is a value as a message has it: b of what is text or bytes; n of all else,
// the bits of a floating-point number.
type raw struct {
	n int64
	b []byte
}

func appendInteger(dst []byte, n int64) []byte { return strconv.AppendInt(dst, n, 10) }

// set delivers a value that is not null, made by c's rule.
func (d *Decoder) set(v *change.Value, c *column, r raw) {
	v.State, v.Text = change.Missing, nil
	from, ok := len(d.text), true
	switch c.rule {
	case ruleText:
		if string(r.b) == d.placeholder.text {
			v.State = change.Unchanged
			return
		}
		v.State, v.Text = change.Text, r.b
	case ruleInteger:
		d.text = appendInteger(d.text, r.n)
	case ruleBoolean:
		d.text = append(d.text, "ft"[r.n&1])
	default:
		ok = false
	}
	if v.State == change.Missing && ok {
		v.State, v.Text = change.Text, d.text[from:]
	}
	if c.doubtful && (c.fallback == nil || bytes.Equal(v.Text, c.fallback)) {
		v.State, v.Text = change.Missing, nil
	}
}
