package guard

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Begun is the reply of Begin.
type Begun struct {
	Status string        // Hit, Wait or Leased
	Value  any           // Hit: a string, or the fields of a hash
	Left   time.Duration // Wait: until the other's lease ends
	// Err is what Redis says of this key alone, such as that it holds a list.
	Err error
}

// ParseBegin reads the reply of Begin.
func ParseBegin(reply any) (Begun, error) {
	fields, _ := reply.([]any)
	switch {
	case len(fields) == 2 && fields[0] == Hit:
		return Begun{Status: Hit, Value: fields[1]}, nil
	case len(fields) == 1 && fields[0] == Leased:
		return Begun{Status: Leased}, nil
	case len(fields) == 2 && fields[0] == Wait:
		if left, ok := fields[1].(int64); ok {
			return Begun{Status: Wait, Left: time.Duration(left) * time.Millisecond}, nil
		}
	}
	return Begun{}, fmt.Errorf("reply of script begin: %v", reply)
}

// A Claim is what the watermark of a stream has to say of who loads: while it
// does, what was swept for another owner or another shape is not filled again. Of
// Owner and Fingerprints one is set.
type Claim struct {
	Stream string
	// Owner is the stream's own: it loads what it has dropped.
	Owner string
	// Fingerprints are what the entries are for somebody who owns nothing.
	Fingerprints Fingerprints
}

// Field is the one of the watermark that Stands judges.
func (c *Claim) Field() string {
	if c.Fingerprints != nil {
		return "plan"
	}
	return "owner"
}

// Stands reports whether the field, which is empty where there is none, says so
// of an entry. A zero Claim never does.
func (c *Claim) Stands(entry, field string) bool {
	if field == "" || c.Fingerprints == nil {
		return field != "" && field == c.Owner
	}
	var said Fingerprints
	if json.Unmarshal([]byte(field), &said) != nil {
		return false
	}
	ours, known := c.Fingerprints[entry]
	return known && said[entry] == ours
}

// WatermarkFields are the fields of a watermark that ParseWatermark reads, in
// its order.
var WatermarkFields = []string{"format", "epoch", "lo", "settled", "origin", "plan", "sweeps", "seen"}

// ParseWatermark reads what HMGET of the WatermarkFields returned, for who looks
// on and owns nothing. ok is false if there is no watermark. One that a newer
// release wrote is a *change.Refusal.
func ParseWatermark(values []any) (w Watermark, ok bool, err error) {
	texts := make([]string, len(values))
	for i, value := range values {
		texts[i], _ = value.(string)
	}
	if len(texts) != len(WatermarkFields) || texts[0] == "" {
		return Watermark{}, false, nil
	}
	format, errFormat := strconv.Atoi(texts[0])
	if errFormat == nil && format > Format {
		_, err := ParseOwn([]any{"FORMAT", texts[0]})
		return Watermark{}, false, err
	}
	epoch, errEpoch := strconv.ParseInt(texts[1], 10, 64)
	if err := errors.Join(errFormat, errEpoch); err != nil {
		return Watermark{}, false, fmt.Errorf("watermark: %w", err)
	}
	reply := []any{epoch}
	for _, text := range texts[2:] {
		reply = append(reply, text)
	}
	w, err = ParseOwn(append(reply, int64(0)))
	return w, err == nil, err
}
