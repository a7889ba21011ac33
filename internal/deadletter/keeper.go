package deadletter

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/unstale/unstale/internal/change"
)

// An Observer counts letters: each is of a topic, or of a table.
type Observer interface {
	Deadletter(topic, table string)
}

// Options of a Keeper.
type Options struct {
	// Append writes a letter, and returns when it is kept.
	Append func(context.Context, *Letter) error
	// RateMax is how many letters may be kept in a minute; negative: any number.
	RateMax  int
	Observer Observer
	Logger   *slog.Logger
}

const (
	// ratePeriod is what Options.RateMax is about.
	ratePeriod = time.Minute
	// saidMax bounds how many different reasons are said, keptMax how many letters
	// are known to be kept.
	saidMax = 64
	keptMax = 4096
)

// A Keeper keeps letters as they come. It belongs to the goroutine that reads the
// source.
type Keeper struct {
	options Options
	// began is when a minute began, in which count letters were kept.
	began, asked time.Time
	count        int
	// over is what is said while there were to be more, of the first of them, and
	// since then, at asked last, another.
	over *change.Refusal
	// kept are the letters that need not be kept again when the source gives their
	// changes again.
	kept map[kept]bool
	said map[said]bool
}

// A topic may be made anew, and have another record at the same place.
type kept struct {
	place string
	made  int64 // ms
}

type said struct{ topic, table, reason string }

// NewKeeper returns a keeper that has kept nothing yet.
func NewKeeper(options Options) *Keeper {
	return &Keeper{options: options, kept: map[kept]bool{}, said: map[said]bool{}}
}

// Keep keeps a letter, unless it is kept already. A rate above the limit is a
// *change.Refusal, the same one until for a minute no letter was to be kept.
func (k *Keeper) Keep(ctx context.Context, l *Letter) error {
	now := time.Now()
	which := kept{place: l.place()}
	if l.Record != nil {
		which.made = l.Record.Timestamp.UnixMilli()
	}
	if k.kept[which] {
		return nil
	}
	if refusal := k.refuse(l, now); refusal != nil {
		return refusal
	}
	l.Time = now
	if err := k.options.Append(ctx, l); err != nil {
		return err
	}
	k.count++
	if len(k.kept) == keptMax {
		clear(k.kept)
	}
	k.kept[which] = true
	k.observe(l)
	return nil
}

// refuse returns why a letter may not be kept, nil if it may. What is beyond the
// limit is asked for again and again, so that a source of nothing but letters stays
// where it is, and does not crawl on at the rate of the limit. Of several such
// sources now this one comes first, now that: what is said does not change.
func (k *Keeper) refuse(l *Letter, now time.Time) error {
	switch {
	case k.options.RateMax < 0:
		return nil
	case k.over != nil && now.Sub(k.asked) < ratePeriod:
		k.asked = now
		return k.over
	case k.over != nil, now.Sub(k.began) >= ratePeriod:
		k.began, k.count, k.over = now, 0, nil
	}
	if k.count < k.options.RateMax {
		return nil
	}
	k.asked = now
	k.over = &change.Refusal{
		Problem: fmt.Sprintf("more than %d dead letters in a minute: no more are kept, from %s on (%s)", k.options.RateMax, l.place(), l.Reason),
		Mend:    "find in unstale deadletter list what writes them, mend that, and start unstale run again; or raise source.kafka.deadletter_max_rate",
	}
	return k.over
}

// observe counts a letter, and says it if its reason was not said before.
func (k *Keeper) observe(l *Letter) {
	topic, table := "", l.Table
	attributes := []any{"err", l.Reason}
	if l.Record != nil {
		topic, table = l.Record.Topic, ""
		attributes = append(attributes, "topic", topic, "partition", l.Record.Partition, "offset", l.Record.Offset)
	} else {
		attributes = append(attributes, "position", l.Change.Position)
	}
	if l.Table != "" {
		attributes = append(attributes, "table", l.Table)
	}
	k.options.Observer.Deadletter(topic, table)
	what := said{topic, table, l.Reason}
	if k.said[what] || len(k.said) == saidMax {
		return
	}
	k.said[what] = true
	k.options.Logger.Warn("a change that cannot be applied is kept as a dead letter: see unstale deadletter; others like it are only counted", attributes...)
}
