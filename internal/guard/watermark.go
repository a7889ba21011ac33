package guard

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/unstale/unstale/internal/change"
)

// WatermarkKey names the hash in which a master keeps how far a stream has been
// applied to it. slot is the lowest slot that the master owns; 0 where Redis is
// not a cluster.
func WatermarkKey(slot uint16, stream string) string {
	return "unstale:{" + Tag(slot) + "}:" + stream
}

// A Watermark is what own found on one master.
type Watermark struct {
	Epoch int64
	// Lo is the position up to which every change is in this master's data.
	// Zero: nothing was ever applied here.
	Lo change.Position
	// Settled is the position up to which nothing is outstanding, sweeps
	// included.
	Settled change.Position
	// Origin is change.Origin.String() of the server that Lo speaks of.
	Origin       string
	Fingerprints Fingerprints
	// Sweeps are the key templates whose sweep has not ended.
	Sweeps []string
}

// Fingerprints say what the cached values were made for: by the name of the entry.
type Fingerprints map[string]Fingerprint

// Fingerprint is that of one entry. Where it differs from today's, no
// row event told what became wrong: the entry is swept.
type Fingerprint struct {
	Key  string `json:"key"`         // template
	Hash string `json:"fingerprint"` // of the entry and its table
}

// ParseOwn reads the reply of the Own script. A watermark that a newer release
// wrote is a *change.Refusal.
func ParseOwn(reply any) (Watermark, error) {
	fields, ok := reply.([]any)
	if ok && len(fields) == 2 && fields[0] == "FORMAT" {
		return Watermark{}, &change.Refusal{
			Problem: fmt.Sprintf("the watermark in Redis is of format %v, this release knows up to %d", fields[1], Format),
			Mend:    "run the release that wrote it, or a newer one",
		}
	}
	if !ok || len(fields) != 6 {
		return Watermark{}, fmt.Errorf("reply of script own: %v", reply)
	}
	epoch, ok := fields[0].(int64)
	if !ok {
		return Watermark{}, fmt.Errorf("epoch of script own: %v", fields[0])
	}
	texts := make([]string, 5)
	for i := range texts {
		if texts[i], ok = fields[i+1].(string); !ok {
			return Watermark{}, fmt.Errorf("field %d of script own: %v", i+1, fields[i+1])
		}
	}
	w := Watermark{Epoch: epoch, Origin: texts[2]}
	if err := w.read(texts); err != nil {
		return Watermark{}, &change.Refusal{
			Problem: fmt.Sprintf("the watermark in Redis is not what this service writes: %v", err),
			Mend:    "delete the hash unstale:* of this stream in Redis; the entries are then swept",
		}
	}
	return w, nil
}

// read decodes lo, settled, plan and sweeps: all of the texts but the origin.
func (w *Watermark) read(texts []string) error {
	var err error
	if w.Lo, err = change.DecodePosition([]byte(texts[0])); err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	if w.Settled, err = change.DecodePosition([]byte(texts[1])); err != nil {
		return fmt.Errorf("settled: %w", err)
	}
	if texts[3] != "" {
		if err := json.Unmarshal([]byte(texts[3]), &w.Fingerprints); err != nil {
			return fmt.Errorf("plan: %w", err)
		}
	}
	if texts[4] != "" {
		if err := json.Unmarshal([]byte(texts[4]), &w.Sweeps); err != nil {
			return fmt.Errorf("sweeps: %w", err)
		}
	}
	return nil
}

// ApplyHeader is what Apply writes beside the drops.
type ApplyHeader struct {
	Owner   string
	Epoch   int64
	N       int64
	Lo      change.Position
	Settled change.Position
	// Note, if not nil, replaces what the watermark says beyond positions.
	Note    *Note
	Cluster bool
}

// Note is the part of a watermark that seldom changes.
type Note struct {
	Origin       string
	Fingerprints Fingerprints
	Sweeps       []string
}

// AppendArguments appends Apply's arguments before the keys to drop:
// ApplyFields of them.
func (h *ApplyHeader) AppendArguments(arguments []string) []string {
	var origin, plan, sweeps string
	if h.Note != nil {
		origin, plan, sweeps = h.Note.Origin, encode(h.Note.Fingerprints), encode(h.Note.Sweeps)
	}
	cluster := "0"
	if h.Cluster {
		cluster = "1"
	}
	return append(arguments,
		h.Owner, strconv.FormatInt(h.Epoch, 10), strconv.FormatInt(h.N, 10),
		string(h.Lo.Append(nil)), string(h.Settled.Append(nil)),
		origin, plan, sweeps, cluster)
}

func encode(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		// Strings and maps of strings only.
		panic(fmt.Sprintf("encode %v: %v", v, err))
	}
	return string(text)
}
