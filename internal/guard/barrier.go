package guard

import (
	"fmt"
	"strconv"

	"github.com/unstale/unstale/internal/change"
)

// A Barrier is a place in the primary's log, and what shows that the cache reflects
// it where the log comes through topics.
type Barrier struct {
	// Stream is the name under which clients look for At, as for the settled of a
	// slot's watermark.
	Stream string
	At     change.Position
	// Origin is that of the server that At is of. A partition whose owner has not
	// taken notice of it may still have to sweep.
	Origin change.Origin
	// Ends are of every partition: what was committed up to At stands below them.
	Ends []End
}

// An End is where a stream has to have settled.
type End struct {
	Stream string
	At     change.Position
}

// Keys are those of the script Settle.
func (b *Barrier) Keys() []string {
	keys := []string{WatermarkKey(0, b.Stream)}
	for _, end := range b.Ends {
		keys = append(keys, WatermarkKey(0, end.Stream))
	}
	return keys
}

// Arguments are those of the script Settle.
func (b *Barrier) Arguments() []any {
	arguments := []any{string(b.At.Append(nil)), b.Origin.String(), strconv.Itoa(Format)}
	for _, end := range b.Ends {
		arguments = append(arguments, string(end.At.Append(nil)))
	}
	return arguments
}

// Lacking reads the reply of Settle: the end that has not been reached, nil if all
// have and the barrier is noted.
func (b *Barrier) Lacking(reply any) (*End, error) {
	fields, _ := reply.([]any)
	key := WatermarkKey(0, b.Stream)
	switch {
	case len(fields) == 1 && fields[0] == OK:
		return nil, nil
	case len(fields) == 1 && fields[0] == "OWNED":
		return nil, &change.Refusal{
			Problem: fmt.Sprintf("%s is the watermark of a replication slot that has the name of the group", key),
			Mend:    fmt.Sprintf("DEL %s in Redis, if no unstale run reads such a slot any more; else another source.kafka.group", key),
		}
	case len(fields) == 2 && fields[0] == "FORMAT":
		_, err := ParseOwn(reply)
		return nil, err
	case len(fields) == 2 && fields[0] == "WAIT":
		if i, ok := fields[1].(int64); ok && i >= 1 && int(i) <= len(b.Ends) {
			return &b.Ends[i-1], nil
		}
	}
	return nil, fmt.Errorf("reply of script settle: %v", reply)
}

// Noted reads the settled of what Settle has written; an empty text is the zero
// position.
func (b *Barrier) Noted(settled string) (err error) {
	b.At, err = change.DecodePosition([]byte(settled))
	return err
}
