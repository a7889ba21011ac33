package guard

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/unstale/unstale/internal/change"
)

// WatermarkKey names the hash in which a master keeps how far a stream has been
// applied to it. slot is the lowest slot that the master owns; 0 where Redis is
// not a cluster.
func WatermarkKey(slot uint16, stream string) string {
	return "unstale:{" + Tag(slot) + "}:" + stream
}

// DeadlettersKey names the stream in which a master keeps the changes of a stream
// that could not be applied.
func DeadlettersKey(slot uint16, stream string) string {
	return WatermarkKey(slot, "deadletters:"+stream)
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
	Origin string
	// Ungated is an offset: what the topic holds up to there may be of a server
	// before Origin. Zero: nothing.
	Ungated      change.Position
	Fingerprints Fingerprints
	// Sweeps are those that have not ended.
	Sweeps []Sweep
	// Seen is the newest change that came over a topic.
	Seen change.Sequence
	// Now is the master's TIME, in milliseconds.
	Now int64
}

// Fingerprints say what the cached values were made for: by the name of the entry.
type Fingerprints map[string]Fingerprint

// Fingerprint is that of one entry. Where it differs from today's, no
// row event told what became wrong: the entry is swept.
type Fingerprint struct {
	Key  string `json:"key"`         // template
	Hash string `json:"fingerprint"` // of the entry and its table
	// Letters are those of the key's values. Columns tells the columns of the key
	// from all that stood under their names before and will: as long as it is the
	// same, no key had other letters. Both are empty where that is not known.
	Letters string `json:"letters,omitempty"`
	Columns string `json:"columns,omitempty"`
}

// A Sweep is of the keys of a template whose values have these letters; all keys
// of the template, if there are none.
type Sweep struct {
	Key     string `json:"key"` // template
	Letters string `json:"letters,omitempty"`
	// Part is the template with some values filled in: only keys that are of this one
	// too are swept. Empty: all.
	Part string `json:"part,omitempty"`
}

const (
	// PartsMax is how many parts of a template are swept at once: of more all keys are.
	PartsMax = 64
	// PartBytesMax is the longest Part: a watermark holds it.
	PartBytesMax = 1 << 10
)

// Sweeps returns what may be cached of an entry, if it was before and is after; a
// zero Fingerprint is none. What its keys can be is known only as long as their
// columns have been the same: in between they may have held anything.
func Sweeps(before, after Fingerprint) []Sweep {
	switch {
	case before.Key == "":
		return []Sweep{{Key: after.Key, Letters: after.Letters}}
	case after.Key == "":
		return []Sweep{{Key: before.Key}}
	case before.Columns != after.Columns || before.Columns == "" || before.Letters != after.Letters:
		return []Sweep{{Key: before.Key}, {Key: after.Key}}
	}
	return []Sweep{{Key: before.Key, Letters: before.Letters}, {Key: after.Key, Letters: after.Letters}}
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
	if !ok || len(fields) != 8 {
		return Watermark{}, fmt.Errorf("reply of script own: %v", reply)
	}
	epoch, ok := fields[0].(int64)
	if !ok {
		return Watermark{}, fmt.Errorf("epoch of script own: %v", fields[0])
	}
	texts := make([]string, 6)
	for i := range texts {
		if texts[i], ok = fields[i+1].(string); !ok {
			return Watermark{}, fmt.Errorf("field %d of script own: %v", i+1, fields[i+1])
		}
	}
	now, ok := fields[7].(int64)
	if !ok {
		return Watermark{}, fmt.Errorf("time of script own: %v", fields[7])
	}
	w := Watermark{Epoch: epoch, Now: now}
	if err := w.read(texts); err != nil {
		return Watermark{}, &change.Refusal{
			Problem: fmt.Sprintf("the watermark in Redis is not what this service writes: %v", err),
			Mend:    "delete the hash unstale:* of this stream in Redis; the entries are then swept",
		}
	}
	return w, nil
}

// read decodes lo, settled, origin, plan, sweeps and seen.
func (w *Watermark) read(texts []string) error {
	var err error
	if w.Lo, err = change.DecodePosition([]byte(texts[0])); err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	if w.Settled, err = change.DecodePosition([]byte(texts[1])); err != nil {
		return fmt.Errorf("settled: %w", err)
	}
	var until string
	var ungated bool
	if w.Origin, until, ungated = strings.Cut(texts[2], ungatedUntil); ungated {
		w.Ungated.Timeline = change.Offsets
		if w.Ungated.LSN, err = strconv.ParseUint(until, 10, 64); err != nil {
			return fmt.Errorf("origin: %w", err)
		}
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
	if w.Seen, err = change.DecodeSequence([]byte(texts[5])); err != nil {
		return fmt.Errorf("seen: %w", err)
	}
	return nil
}

// ApplyHeader is what Apply writes beside the keys, and the conditions under
// which it writes.
type ApplyHeader struct {
	Owner   string
	Epoch   int64
	N       int64
	Lo      change.Position
	Settled change.Position
	// Note, if not nil, replaces what the watermark says beyond positions.
	Note *Note
	// Seen, if not zero, replaces that of the watermark.
	Seen    change.Sequence
	Cluster bool
	// Until is the master's TIME, in milliseconds, after which nothing is SET any
	// more.
	Until int64
	// Drops is the number of names to drop, Forgets, Strings, Restores and Hashes
	// those of keys. Reloads are the last of Forgets: those that are to be loaded
	// again if they are cached.
	Drops, Forgets, Strings, Restores, Hashes, Reloads int
	// Removes and Adds are the numbers of members of indexes, Voids that of sets to
	// unlink.
	Removes, Adds, Voids int
}

// Note is the part of a watermark that seldom changes.
type Note struct {
	Origin       string
	Ungated      change.Position
	Fingerprints Fingerprints
	Sweeps       []Sweep
}

// ungatedUntil stands between origin and offset in the field that has both.
const ungatedUntil = " ungated until offset "

// AppendArguments appends Apply's arguments before those of the keys.
func (h *ApplyHeader) AppendArguments(arguments []string) []string {
	var origin, plan, sweeps, seen string
	if h.Note != nil {
		origin, plan, sweeps = h.Note.Origin, encode(h.Note.Fingerprints), encode(h.Note.Sweeps)
		if !h.Note.Ungated.IsZero() {
			origin += ungatedUntil + strconv.FormatUint(h.Note.Ungated.LSN, 10)
		}
	}
	if h.Seen != (change.Sequence{}) {
		seen = string(h.Seen.Append(nil))
	}
	cluster := "0"
	if h.Cluster {
		cluster = "1"
	}
	return append(arguments,
		h.Owner, strconv.FormatInt(h.Epoch, 10), strconv.FormatInt(h.N, 10),
		string(h.Lo.Append(nil)), string(h.Settled.Append(nil)),
		origin, plan, sweeps, cluster, strconv.FormatInt(h.Until, 10),
		strconv.Itoa(h.Drops), strconv.Itoa(h.Forgets), strconv.Itoa(h.Strings), strconv.Itoa(h.Restores), strconv.Itoa(h.Hashes), seen, strconv.Itoa(h.Reloads),
		strconv.Itoa(h.Removes), strconv.Itoa(h.Adds), strconv.Itoa(h.Voids))
}

// Applied is the reply of Apply.
type Applied struct {
	Status string // OK, Done, Lost or Fenced
	// Now is the master's TIME in milliseconds; zero if nothing was to be SET.
	Now int64
	// Dropped are the sets that became drops, and the keys to be loaded again that
	// were cached. Done does not tell them.
	Dropped []Dropped
}

// Dropped is a key that was dropped.
type Dropped struct {
	// Number counts the keys to set, strings first and hashes behind them, and then
	// those to be loaded again, each in their order, from zero.
	Number int
	// Cached: it was cached until then.
	Cached bool
}

// ParseApply reads the reply of Apply and of ApplyValues.
func ParseApply(reply any) (a Applied, err error) {
	fields, _ := reply.([]any)
	if len(fields) > 0 {
		a.Status, _ = fields[0].(string)
	}
	switch a.Status {
	case Done, Lost, Fenced:
		return a, nil
	case OK:
	default:
		return a, fmt.Errorf("reply of script apply: %v", reply)
	}
	for i, field := range fields[1:] {
		n, ok := field.(int64)
		switch {
		case !ok || i > 0 && n == 0:
			return a, fmt.Errorf("reply of script apply: %v", reply)
		case i == 0:
			a.Now = n
		default:
			a.Dropped = append(a.Dropped, Dropped{Number: int(max(n, -n)) - 1, Cached: n < 0})
		}
	}
	return a, nil
}

func encode(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		// Strings and maps of strings only.
		panic(fmt.Sprintf("encode %v: %v", v, err))
	}
	return string(text)
}
