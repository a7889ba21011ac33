package main

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/unstale/unstale/internal/admin"
	"github.com/unstale/unstale/internal/apply"
	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/config"
	"github.com/unstale/unstale/internal/database"
	"github.com/unstale/unstale/internal/deadletter"
	"github.com/unstale/unstale/internal/debezium"
	"github.com/unstale/unstale/internal/kafkasource"
	"github.com/unstale/unstale/internal/plan"
)

// topicLetters keeps records of Kafka that cannot be read.
type topicLetters struct {
	*deadletter.Keeper
	topic  *deadletter.Topic
	tables map[string]database.Name // by the topic that is named after them
	x      *examination
}

func newTopicLetters(k config.Kafka, client []kgo.Opt, x *examination, observer deadletter.Observer, logger *slog.Logger) *topicLetters {
	l := &topicLetters{topic: deadletter.NewTopic(client, k.DeadletterTopic), tables: map[string]database.Name{}, x: x}
	l.Keeper = deadletter.NewKeeper(deadletter.Options{Append: l.topic.Append, RateMax: k.DeadletterMaxRate, Observer: observer, Logger: logger})
	if k.TopicPrefix != "" {
		for _, e := range x.entries {
			name := database.Name{Schema: e.Schema, Table: e.Table}
			l.tables[topicName(k.TopicPrefix, name)] = name
		}
	}
	return l
}

// keep keeps a record. Its table is the one that it names; where it names none,
// that after which its topic is named.
func (l *topicLetters) keep(ctx context.Context, record *kgo.Record, reason error) error {
	letter := &deadletter.Letter{Reason: reason.Error(), Record: &deadletter.Record{
		Topic: record.Topic, Partition: record.Partition, Offset: record.Offset, Timestamp: record.Timestamp,
		Key: record.Key, Value: record.Value,
	}}
	for _, h := range record.Headers {
		letter.Record.Headers = append(letter.Record.Headers, deadletter.Header{Name: h.Key, Value: h.Value})
	}
	table := l.tables[record.Topic]
	if unread, ok := errors.AsType[*debezium.Undecodable](reason); ok && unread.Source.Table != "" {
		table = database.Name{Schema: unread.Source.Schema, Table: unread.Source.Table}
	}
	if table != (database.Name{}) {
		letter.Table = table.String()
	}
	// What a record says of its table that cannot be read is no proof: all are swept.
	for _, e := range l.x.entries {
		letter.Entries = append(letter.Entries, e.Name)
	}
	slices.Sort(letter.Entries)
	return l.Keep(ctx, letter)
}

func entriesOver(entries []plan.Entry, table database.Name) (names []string) {
	for _, e := range entries {
		if e.Schema == table.Schema && e.Table == table.Table {
			names = append(names, e.Name)
		}
	}
	slices.Sort(names)
	return names
}

// topicSource closes, with the source, what keeps its letters.
type topicSource struct {
	*kafkasource.Source
	letters *deadletter.Topic
	held    *heldPartition
}

// A heldPartition is why a partition is held while the others go on. The loop does
// not hear of it: status shows it, and metrics count the tries to go on.
type heldPartition struct {
	metrics *admin.Metrics
	mu      sync.Mutex
	reason  string
}

func (h *heldPartition) tell(reason string) {
	if reason != "" {
		h.metrics.Held("source")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reason = reason
}

// heldStatus is the status of a loop, with what its source holds.
func heldStatus(now apply.Status, source apply.Source) apply.Status {
	s, ok := source.(topicSource)
	if !ok {
		return now
	}
	s.held.mu.Lock()
	defer s.held.mu.Unlock()
	if s.held.reason != "" && now.Holding["source"] == "" {
		holding := map[string]string{"source": s.held.reason}
		maps.Copy(holding, now.Holding)
		now.Holding = holding
	}
	return now
}

// Close implements apply.Source.
func (s topicSource) Close(ctx context.Context) error {
	defer s.letters.Close()
	return s.Source.Close(ctx)
}

// logSource keeps the changes that a source of the database's log hands out as
// undecodable. Of those there is no original: what is kept is where they stand.
type logSource struct {
	apply.Source
	keep    func(context.Context, *deadletter.Letter) error
	entries []plan.Entry

	streams []change.Stream
	from    []change.Position
}

// newLogSource keeps the letters of source in Redis. They need no limit in a
// minute: the stream has one.
func newLogSource(source apply.Source, client *redis.Client, entries []plan.Entry, observer deadletter.Observer, logger *slog.Logger) *logSource {
	keeper := deadletter.NewKeeper(deadletter.Options{
		Append: func(ctx context.Context, l *deadletter.Letter) error {
			return deadletter.NewStream(client, l.Change.Stream).Append(ctx, l)
		},
		RateMax: -1, Observer: observer, Logger: logger,
	})
	return &logSource{Source: source, keep: keeper.Keep, entries: entries}
}

// Attach implements apply.Source.
func (s *logSource) Attach(ctx context.Context) (change.Attachment, error) {
	a, err := s.Source.Attach(ctx)
	s.streams = a.Streams
	return a, err
}

// Resume implements apply.Source.
func (s *logSource) Resume(ctx context.Context, from []change.Position) error {
	s.from = from
	return s.Source.Resume(ctx, from)
}

// Next implements apply.Source. A change that cannot be kept is not given: it
// comes again when the stream is taken over again.
func (s *logSource) Next(ctx context.Context) (*change.Change, error) {
	c, err := s.Source.Next(ctx)
	if err != nil || c.Op != change.Undecodable {
		return c, err
	}
	if from := s.from[c.Stream]; c.Position.LSN < from.LSN && c.Position.Timeline == from.Timeline {
		return c, nil // it was applied, and kept, before
	}
	letter := &deadletter.Letter{Reason: c.Reason, Change: &deadletter.Change{
		Stream: s.streams[c.Stream].Name, Position: c.Position.String(), XID: c.XID,
	}}
	if c.Relation != nil {
		table := database.Name{Schema: c.Relation.Schema, Table: c.Relation.Name}
		letter.Table, letter.Entries = table.String(), entriesOver(s.entries, table)
	}
	if err := s.keep(ctx, letter); err != nil {
		return nil, err
	}
	return c, nil
}
