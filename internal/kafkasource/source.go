// Package kafkasource reads changes from Debezium's topics in Kafka.
//
// Each partition is a stream: ordered, with a watermark of its own in Redis. The
// consumer group says which partitions are ours, and only that; where each goes on
// is read from Redis, so a partition that moves between instances loses nothing
// and repeats nothing, however far the committed offsets are behind.
//
// It promises that an offset is committed when everything before it was
// confirmed, that a partition is given away when what was read of it is written,
// and that nothing is skipped: what is missing in a topic is a gap, which ends the
// attachment. Memory is bounded by what a fetch may bring.
package kafkasource

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/debezium"
)

const (
	// fetchBytesMax bounds what a broker gives at a time, partitionBytesMax what it
	// gives of one partition.
	fetchBytesMax     = 8 << 20
	partitionBytesMax = 1 << 20
	// pollRecordsMax is how many records are taken from the client at once.
	pollRecordsMax = 4096
	// holdAgain is when what a partition waits for is asked for again.
	holdAgain = time.Second
	// goneMax bounds how many schemas are known to be gone for good.
	goneMax = 4096
	// saidMax bounds how many different things of a kind are said.
	saidMax = 16
)

// ErrNoSchema is what the registry says of a schema that it does not have.
var ErrNoSchema = errors.New("the schema registry has no such schema")

// SessionTimeout is the default of Options.SessionTimeout.
const SessionTimeout = 10 * time.Second

// noSchemaMax is the default of Options.NoSchemaMax.
const noSchemaMax = time.Minute

// Options of a Source.
type Options struct {
	// Client says how to reach the brokers: their addresses, TLS, SASL.
	Client []kgo.Opt
	Group  string
	// Topics are read; where Pattern is set, they are regular expressions.
	Topics  []string
	Pattern bool
	// Instance, if not empty, makes the membership static (group.instance.id).
	Instance       string
	SessionTimeout time.Duration
	// Uncommitted also reads records of transactions of Kafka that were not
	// committed (isolation.level).
	Uncommitted bool
	// Database is the name of the database whose changes are ours, as it names
	// itself; empty: those of the first that comes.
	Database string
	// Alias is another name by which it is reached, through a pooler: the connector
	// may reach it so as well. What comes under it may be of a database that bears
	// that name itself, and only drops.
	Alias   string
	Decoder *debezium.Decoder
	// NoSchemaMax is how long the registry may say that it has no such schema: it may
	// lag behind the topic.
	NoSchemaMax time.Duration
	// Keep keeps a record that cannot be read for a person. It returns nil when that
	// is confirmed, and only then is the record passed over.
	Keep func(ctx context.Context, record *kgo.Record, reason error) error
	// Holding, if not nil, is told why a partition is held, with each try to go on, and
	// an empty reason when none is any more.
	Holding func(reason string)
	// Origin is what the database connection, by which changes are gated and
	// readers load, sees as its server.
	Origin func(context.Context) (change.Origin, error)
	Logger *slog.Logger
}

// Source is what the group gives to this instance. Confirm may be called beside
// Next, but not beside Attach; all else but Follow from one goroutine at a time.
type Source struct {
	options Options

	mu     sync.Mutex // topics and member, which Follow looks at
	topics []string
	member *member // nil until the first Attach

	reader     *kgo.Client
	partitions []*partition
	at         map[place]*partition
	queue      []*partition // those with records at hand
	changed    <-chan struct{}
	polling    context.Context // ends when the streams are others
	endPolling context.CancelFunc

	event  debezium.Event
	change change.Change

	behind    atomic.Int64 // records that were not given at the last poll
	committed atomic.Int64 // of the last change that was given, in us
	// scans are the initial snapshots that were met: each is told once, in whatever
	// partition it shows first.
	scans map[scan]bool
	// homes has, for each table of the entries, how its changes come.
	homes map[table]*home
	// gone are the schemas that the registry did not have for Options.NoSchemaMax.
	gone map[uint32]bool
	// ours are the names of our database, if it is known.
	ours []string
	// saidForeign has the other databases that were met.
	saidForeign map[string]bool
	// owners has the database of each table, where nobody has said which is ours.
	owners map[table]*owner
}

// A table by its name.
type table struct{ schema, name string }

// An owner is the database that the first record of a table was of. mixed: there was
// one of another, so that nobody knows whose the table is.
type owner struct {
	database string
	mixed    bool
}

// A home is how the changes of a table have come so far.
type home struct {
	topic    string
	relation *change.Relation // as it was described last
	mixed    bool             // they have come otherwise, too
}

// A scan is one initial snapshot of one connector: its rows share an LSN.
type scan struct {
	connector string
	lsn       uint64
}

// begins reports whether the scan was not met before.
func (s *Source) begins(met scan) bool {
	if s.scans[met] {
		return false
	}
	if len(s.scans) >= saidMax {
		clear(s.scans)
	}
	s.scans[met] = true
	return true
}

// A partition is a stream.
type partition struct {
	standing
	stream int
	// high is where the partition ended at the last fetch.
	high int64
	// records were fetched and not given yet.
	records []*kgo.Record
	// position is behind the last record that was given or passed over; told is
	// what the loop knows of that.
	position, told change.Position
	// ahead: the first of records is decoded into Source.event.
	ahead bool
	// open is the transaction of the last row, zero if a Commit was given since;
	// connector and sequence are those of that row.
	open        uint64
	connector   string
	sequence    [2]uint64
	committedAt int64
	// deleted is the key of the last record if that was a delete: its tombstone may
	// follow.
	deleted []byte
	// scanning is the initial snapshot that the last row was of, if it was of one.
	// streamed: there was a row of the log since the attachment.
	scanning scan
	streamed bool
	// waiting: the schema of the first of records is not to be had, or it can be
	// neither read nor kept, since then. why says which, held all of it.
	waiting   time.Time
	why, held string
	again     time.Time // when to try again
	absent    time.Time // since when the registry has said that there is no such schema
}

// New returns a source that is not attached yet.
func New(options Options) *Source {
	options.SessionTimeout = cmp.Or(options.SessionTimeout, SessionTimeout)
	options.NoSchemaMax = cmp.Or(options.NoSchemaMax, noSchemaMax)
	if options.Holding == nil {
		options.Holding = func(string) {}
	}
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Source{
		options: options, topics: slices.Clone(options.Topics),
		saidForeign: map[string]bool{}, owners: map[table]*owner{}, scans: map[scan]bool{}, homes: map[table]*home{}, gone: map[uint32]bool{},
	}
	if options.Database != "" {
		s.ours = []string{options.Database, options.Alias}
	}
	return s
}

// Attach takes over the partitions that the group gives to this instance; while
// it gives none, that is change.ErrInUse, and while it is about to say,
// change.ErrUnassigned.
func (s *Source) Attach(ctx context.Context) (change.Attachment, error) {
	s.detach()
	for {
		if s.member == nil {
			if err := s.join(); err != nil {
				return change.Attachment{}, fmt.Errorf("join consumer group %s: %w", s.options.Group, err)
			}
		}
		a, err := s.attach(ctx)
		switch {
		case errors.Is(err, errMadeAnew):
			s.leave(ctx)
		case err != nil:
			s.member.release()
			return change.Attachment{}, fmt.Errorf("attach to group %s: %w", s.options.Group, err)
		default:
			return a, nil
		}
	}
}

// join makes this instance a member of the group.
func (s *Source) join() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	options := append([]kgo.Opt{kgo.ConsumeTopics(s.topics...)}, s.options.Client...)
	if s.options.Pattern {
		options = append(options, kgo.ConsumeRegex())
	}
	m, err := newMember(options, s.options.Group, s.options.Instance, s.options.SessionTimeout)
	if err != nil {
		return err
	}
	s.member = m
	return nil
}

// leave ends the membership.
func (s *Source) leave(ctx context.Context) {
	s.member.close(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.member = nil
}

// Follow has more topics read, where they are named. It may be called from anywhere.
func (s *Source) Follow(topics []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.options.Pattern {
		return
	}
	added := slices.DeleteFunc(slices.Clone(topics), func(topic string) bool { return slices.Contains(s.topics, topic) })
	if len(added) == 0 {
		return
	}
	s.topics = append(s.topics, added...)
	if s.member != nil {
		s.member.client.AddConsumeTopics(added...)
	}
}

func (s *Source) attach(ctx context.Context) (change.Attachment, error) {
	origin, err := s.options.Origin(ctx)
	if err != nil {
		return change.Attachment{}, err
	}
	ours, changed, err := s.assigned(ctx)
	if err != nil {
		return change.Attachment{}, err
	}
	standings, err := s.member.look(ctx, ours)
	if err != nil {
		return change.Attachment{}, err
	}
	a := change.Attachment{Origin: origin, Reassigned: changed}
	s.partitions, s.at, s.changed = nil, map[place]*partition{}, changed
	for i, standing := range standings {
		p := &partition{standing: standing, stream: i}
		s.partitions, s.at[standing.place] = append(s.partitions, p), p
		a.Streams = append(a.Streams, standing.stream(s.options.Group))
	}
	return a, nil
}

const (
	// assignedMax is how long Attach waits for the group to say what is ours.
	assignedMax = 30 * time.Second
	// pingEvery is how often it looks meanwhile whether there is a broker.
	pingEvery = 2 * time.Second
)

// assigned waits until the group has given this instance something.
func (s *Source) assigned(ctx context.Context) ([]place, <-chan struct{}, error) {
	deadline := time.NewTimer(assignedMax)
	defer deadline.Stop()
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	for {
		ours, changed, joined := s.member.take()
		if len(ours) > 0 {
			present, err := s.member.present(ctx)
			if err == nil && !present {
				err = fmt.Errorf("%w: the group is about to say", change.ErrUnassigned)
			}
			return ours, changed, err
		}
		if joined {
			return nil, nil, fmt.Errorf("%w: the group has no partition for this instance", change.ErrInUse)
		}
		select {
		case <-s.member.woken:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-ping.C:
			if err := s.member.ping(ctx); err != nil {
				return nil, nil, err
			}
			if err := s.member.refusal(); change.IsRefusal(err) {
				return nil, nil, err
			}
		case <-deadline.C:
			said := s.member.refusal()
			if said == nil {
				said = errors.New("are the topics there, and may this user describe them?")
			}
			return nil, nil, fmt.Errorf("the group has not said for %s which partitions of %s are ours: %w", assignedMax, s.topicsInWords(), said)
		}
	}
}

// topicsInWords names the first of the topics.
func (s *Source) topicsInWords() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if more := len(s.topics) - saidMax; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(s.topics[:saidMax], ", "), more)
	}
	return strings.Join(s.topics, ", ")
}

func offset(n int64) change.Position {
	return change.Position{Timeline: change.Offsets, LSN: uint64(n)}
}

// Resume begins to read each partition at its place.
func (s *Source) Resume(_ context.Context, from []change.Position) error {
	consume := map[string]map[int32]kgo.Offset{}
	for i, p := range s.partitions {
		if consume[p.topic] == nil {
			consume[p.topic] = map[int32]kgo.Offset{}
		}
		p.position, p.told, p.high = from[i], from[i], p.end
		consume[p.topic][p.number] = kgo.NewOffset().At(int64(from[i].LSN))
	}
	isolation := kgo.ReadCommitted()
	if s.options.Uncommitted {
		isolation = kgo.ReadUncommitted()
	}
	options := append([]kgo.Opt{
		kgo.ConsumePartitions(consume),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(isolation),
		kgo.KeepControlRecords(),
		kgo.FetchMaxBytes(fetchBytesMax),
		kgo.FetchMaxPartitionBytes(partitionBytesMax),
		kgo.FetchMaxWait(500 * time.Millisecond),
	}, s.options.Client...)
	reader, err := kgo.NewClient(options...)
	if err != nil {
		return fmt.Errorf("read the partitions: %w", err)
	}
	s.reader = reader
	s.polling, s.endPolling = context.WithCancel(context.Background())
	go func(changed <-chan struct{}, polling context.Context, end context.CancelFunc) {
		defer end()
		select {
		case <-changed:
		case <-polling.Done():
		}
	}(s.changed, s.polling, s.endPolling)
	return nil
}

// errDetached is what Next returns while there is no attachment.
var errDetached = errors.New("not attached to any partition")

// Next blocks until there is a change and returns it. It is valid until the next
// call.
func (s *Source) Next(ctx context.Context) (*change.Change, error) {
	if s.reader == nil {
		return nil, errDetached
	}
	for {
		if s.polling.Err() != nil {
			return nil, change.ErrReassigned
		}
		for len(s.queue) > 0 {
			p := s.queue[0]
			c, err := s.give(ctx, p)
			if err != nil {
				return nil, err
			}
			if c == nil || len(p.records) == 0 && p.open == 0 {
				s.queue = s.queue[1:]
			}
			if c != nil {
				return c, nil
			}
		}
		if err := s.poll(ctx); err != nil {
			return nil, err
		}
	}
}

// Pending reports whether Next will return without waiting for the network.
func (s *Source) Pending() bool { return len(s.queue) > 0 }

// poll fetches records, or waits until a schema may be asked for again.
func (s *Source) poll(ctx context.Context) error {
	s.measure()
	polling, cancel := context.WithDeadline(s.polling, s.nextAgain())
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	fetches := s.reader.PollRecords(polling, pollRecordsMax)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case s.polling.Err() != nil:
		return change.ErrReassigned
	}
	for _, failed := range fetches.Errors() {
		if polling.Err() == nil {
			return fmt.Errorf("read partition %d of %s: %w", failed.Partition, failed.Topic, failed.Err)
		}
	}
	fetches.EachPartition(func(fetched kgo.FetchTopicPartition) {
		p := s.at[place{fetched.Topic, fetched.Partition}]
		if p == nil {
			return
		}
		p.high = max(p.high, fetched.HighWatermark)
		if len(fetched.Records) == 0 {
			return
		}
		p.records = append(p.records, fetched.Records...)
		if p.waiting.IsZero() {
			s.queue = append(s.queue, p)
		}
	})
	// One that waits goes alone: it may well go on waiting, and whoever collects
	// changes would keep what he has for as long as it is pending.
	now := time.Now()
	for _, p := range s.partitions {
		if len(s.queue) == 0 && !p.waiting.IsZero() && !now.Before(p.again) {
			s.queue = append(s.queue, p)
		}
	}
	s.measure()
	return nil
}

// measure counts what there is to be given.
func (s *Source) measure() {
	var behind int64
	for _, p := range s.partitions {
		behind += max(0, p.high-int64(p.position.LSN))
	}
	s.behind.Store(behind)
}

// Behind tells how many records there were at the last fetch that Next has not
// given since, and when the last change that it has given was committed.
func (s *Source) Behind() (records int64, committed time.Time) {
	if at := s.committed.Load(); at > 0 {
		committed = time.UnixMicro(at)
	}
	return s.behind.Load(), committed
}

// nextAgain is when the first of the partitions that wait for a schema asks for it
// again, or far away.
func (s *Source) nextAgain() time.Time {
	next := time.Now().Add(time.Hour)
	for _, p := range s.partitions {
		if !p.waiting.IsZero() && p.again.Before(next) {
			next = p.again
		}
	}
	return next
}

// give returns the next change of a partition, nil if there is none at hand.
func (s *Source) give(ctx context.Context, p *partition) (*change.Change, error) {
	for len(p.records) > 0 {
		record := p.records[0]
		if record.Attrs.IsControl() {
			p.pass()
			continue
		}
		if !p.ahead {
			var began time.Time
			if !p.waiting.IsZero() {
				began = time.Now()
			}
			err := s.options.Decoder.Decode(ctx, record.Key, record.Value, &s.event)
			switch {
			case err == nil:
				s.goOn(p)
			case ctx.Err() != nil:
				return nil, ctx.Err()
			case p.open != 0:
				return s.cut(p), nil
			case !ofTheRecord(err):
				return nil, fmt.Errorf("read offset %d of partition %d of %s: %w", record.Offset, p.number, p.topic, err)
			case s.wait(p, err, began):
				return s.idle(p), nil
			default:
				c := s.undecodable(ctx, p, err, began)
				if c == nil && ctx.Err() == nil {
					c = s.idle(p)
				}
				return c, ctx.Err()
			}
		}
		if p.open != 0 && s.leaves(p) {
			p.ahead = true
			if s.follows(p) {
				return s.commit(p), nil
			}
			return s.cut(p), nil
		}
		p.ahead = false
		if c := s.row(p, record); c != nil {
			return c, nil
		}
	}
	if p.open != 0 {
		return s.cut(p), nil
	}
	return s.idle(p), nil
}

// idle says where a partition stands, if that was not said; else it is nil.
func (s *Source) idle(p *partition) *change.Change {
	if p.position.Compare(p.told) <= 0 {
		return nil
	}
	s.change = change.Change{Op: change.Idle, Stream: p.stream, Position: p.position}
	p.told = p.position
	return &s.change
}

// ofTheRecord reports whether an error of the decoder is the record's, or its
// schema's. Else what it asks has not answered, or is not there to be asked.
func ofTheRecord(err error) bool {
	_, undecodable := errors.AsType[*debezium.Undecodable](err)
	_, unknown := errors.AsType[*debezium.UnknownSchema](err)
	return (undecodable || unknown) && !change.IsRefusal(err)
}

// pass takes the first record away.
func (p *partition) pass() {
	p.position = offset(p.records[0].Offset + 1)
	p.records = p.records[1:]
}

func (s *Source) commit(p *partition) *change.Change {
	s.change = change.Change{Op: change.Commit, Stream: p.stream, XID: uint32(p.open), CommittedAt: p.committedAt, Position: p.position}
	p.open, p.told = 0, p.position
	return &s.change
}

// cut ends a transaction of which more may come: only a row of another one shows
// that one has ended.
func (s *Source) cut(p *partition) *change.Change {
	c := s.commit(p)
	c.Cut = true
	return c
}

// leaves reports whether the event at hand is no part of what a partition has open.
// What is of no transaction stands anywhere: a tombstone behind its delete, a row
// that an incremental snapshot has read, a record of another database.
func (s *Source) leaves(p *partition) bool {
	e := &s.event
	switch {
	case e.Kind != debezium.Row && e.Kind != debezium.Truncate, e.Snapshot == debezium.Incremental, s.foreign(e):
		return false
	}
	return e.XID != p.open
}

// follows reports whether the event at hand shows that what a partition has open has
// ended: the connector has gone on to another transaction. One that was killed in
// the middle begins again further back, and sends the rest later.
func (s *Source) follows(p *partition) bool {
	e := &s.event
	return e.Snapshot == debezium.None && e.XID != 0 && e.Source.Connector == p.connector &&
		slices.Compare(e.Sequence[:], p.sequence[:]) >= 0
}

// row turns the event at hand into a change; nil if there is nothing to apply.
func (s *Source) row(p *partition, record *kgo.Record) *change.Change {
	e := &s.event
	wasDeleted := p.deleted
	p.deleted = nil
	switch {
	case e.Kind == debezium.Tombstone:
		if bytes.Equal(wasDeleted, record.Key) && wasDeleted != nil {
			p.pass()
			return nil
		}
		return s.tombstone(p)
	case e.Kind == debezium.Other, s.foreign(e):
		p.pass()
		if e.Op == 'd' {
			p.deleted = record.Key
		}
		return nil
	case s.mixes(e):
		p.ahead = true
		s.change = change.Change{Op: change.Restart, Stream: p.stream, Position: p.position,
			Reason: fmt.Sprintf("%s.%s comes from two databases", e.Relation.Schema, e.Relation.Name)}
		return &s.change
	case e.Snapshot == debezium.Initial && p.scanning != (scan{e.Source.Connector, e.LSN}):
		// A connector that loses its slot twice, or while nothing changes, sends one
		// scan right behind another.
		again := p.scanning != scan{}
		p.scanning = scan{e.Source.Connector, e.LSN}
		// One that was there when we came is older than the sweep of a first start, also
		// what comes of it later; and whoever did not start for the first time knows that
		// from its watermark.
		if s.begins(p.scanning) && (p.streamed || again || record.Offset >= p.end) {
			p.ahead = true
			s.change = change.Change{Op: change.Restart, Stream: p.stream, Position: p.position, LSN: e.LSN, Reason: "the connector reads every table anew"}
			return &s.change
		}
	case e.Snapshot == debezium.None:
		p.scanning, p.streamed = scan{}, true
	}
	p.pass()
	if e.Op == 'd' {
		p.deleted = record.Key
	}
	if e.Relation == nil {
		return nil
	}
	c := &s.change
	*c = change.Change{
		Op: opOf(e), Relation: e.Relation, Old: e.Old, New: e.New,
		Stream: p.stream, XID: uint32(e.XID), LSN: e.LSN, CommittedAt: e.CommittedAt, Position: p.position,
		// A key that another partition may have, too, has no order.
		Again:  !s.ordered(p) || s.doubted(e) || isPartition(e) || !placed(record.Key, p.number, p.partitions),
		Spread: p.partitions > 1,
	}
	p.told = p.position
	s.committed.Store(e.CommittedAt)
	if e.Snapshot != debezium.None {
		// What was read had been committed, so there is nothing to wait for.
		c.Scan, c.XID = scans[e.Snapshot], uint32(p.open)
		return c
	}
	// What names no transaction cannot wait for one.
	c.Again = c.Again || e.XID == 0
	c.Sequence = change.Sequence{Commit: e.Sequence[0], LSN: e.Sequence[1]}
	p.open, p.connector, p.sequence, p.committedAt = e.XID, e.Source.Connector, e.Sequence, e.CommittedAt
	return c
}

// ordered reports whether the changes of the table of the event at hand have come
// from one topic, with keys of the same columns. What came otherwise before may stand
// in another partition, and come later.
func (s *Source) ordered(p *partition) bool {
	r := s.event.Relation
	name := table{r.Schema, r.Name}
	h := s.homes[name]
	if h == nil {
		h = &home{topic: p.topic, relation: r}
		s.homes[name] = h
	}
	if h.mixed {
		return false
	}
	how := ""
	switch {
	case h.topic != p.topic:
		how = fmt.Sprintf("they come from topics %s and %s", h.topic, p.topic)
	case h.relation == r, s.event.Kind == debezium.Truncate:
	case p.partitions > 1 && !slices.Equal(keyed(h.relation), keyed(r)):
		how = "their keys are of other columns than before"
	default:
		h.relation = r
	}
	if h.mixed = how != ""; h.mixed {
		s.options.Logger.Warn("the changes of a table have no order: they drop keys, and set nothing", "table", r.Schema+"."+r.Name, "reason", how)
	}
	return !h.mixed
}

// keyed returns the columns of a record's key.
func keyed(r *change.Relation) (names []string) {
	for _, c := range r.Columns {
		if c.Keyed {
			names = append(names, c.Name)
		}
	}
	return names
}

// isPartition reports whether an event comes under the name of a partition. Rows move
// between partitions, and each partition may have a topic of its own.
func isPartition(e *debezium.Event) bool {
	return e.Source.Schema != e.Relation.Schema || e.Source.Table != e.Relation.Name
}

// opOf is what the event of a row, or a truncate, says to have happened.
func opOf(e *debezium.Event) change.Op {
	switch {
	case e.Kind == debezium.Truncate:
		return change.Truncate
	case e.Op == 'u':
		return change.Update
	case e.Op == 'd':
		return change.Delete
	}
	return change.Insert
}

// Late returns the change of an event that is applied long after its turn: it may
// only drop. It is Undecodable if nobody knows what the event is about, and ok is
// false if that concerns no entry over the database that has these names; of none, any.
func Late(e *debezium.Event, ours ...string) (c change.Change, ok bool) {
	switch {
	case foreign(e, ours):
		return change.Change{}, false
	case e.Kind == debezium.Tombstone && e.Relation == nil && e.Source.Table == "":
		return change.Change{Op: change.Undecodable, Reason: "a tombstone whose table nobody knows"}, true
	case e.Kind == debezium.Other, e.Relation == nil:
		return change.Change{}, false
	case e.Kind == debezium.Tombstone:
		return change.Change{Op: change.Delete, Relation: e.Relation, Old: e.Old, Again: true}, true
	}
	return change.Change{Op: opOf(e), Relation: e.Relation, Old: e.Old, New: e.New, Again: true}, true
}

var scans = map[debezium.Snapshot]change.Scan{
	debezium.Initial:     change.Initial,
	debezium.Incremental: change.Incremental,
}

// tombstone drops the key of a record that has no value: of a compacted topic it
// may be all that is left of a delete.
func (s *Source) tombstone(p *partition) *change.Change {
	e := &s.event
	p.pass()
	c := &s.change
	switch {
	case e.Relation != nil:
		*c = change.Change{Op: change.Delete, Relation: e.Relation, Old: e.Old}
	case e.Source.Table == "":
		*c = change.Change{Op: change.Undecodable, Reason: fmt.Sprintf("a tombstone in %s, whose table nobody knows", p.topic)}
	default:
		return nil
	}
	c.Stream, c.XID, c.Position, c.Again = p.stream, uint32(p.open), p.position, true
	p.told = p.position
	return c
}

// foreign reports whether the event is of another database than those names are of;
// of none, any is ours.
func foreign(e *debezium.Event, ours []string) bool {
	return len(ours) > 0 && e.Source.Database != "" && !slices.Contains(ours, e.Source.Database)
}

// foreign reports whether the event is of another database, and says so once.
func (s *Source) foreign(e *debezium.Event) bool {
	if !foreign(e, s.ours) {
		return false
	}
	if s.meets(e.Source.Database) {
		s.options.Logger.Warn("records of another database are passed over", "database", e.Source.Database, "ours", s.options.Database)
	}
	return true
}

// meets reports whether a name of a database is met for the first time.
func (s *Source) meets(database string) bool {
	if s.saidForeign[database] || len(s.saidForeign) >= saidMax {
		return false
	}
	s.saidForeign[database] = true
	return true
}

// mixes reports, once, that a table of the entries comes from a second database
// where nobody has said which one is ours: what was set may be of the wrong one.
func (s *Source) mixes(e *debezium.Event) bool {
	if s.options.Database != "" || e.Source.Database == "" || e.Relation == nil {
		return false
	}
	name := table{e.Relation.Schema, e.Relation.Name}
	o := s.owners[name]
	switch {
	case o == nil:
		s.owners[name] = &owner{database: e.Source.Database}
		return false
	case o.mixed || o.database == e.Source.Database:
		return false
	}
	o.mixed = true
	s.options.Logger.Error("a table comes from two databases, and nothing says which is ours: its records only drop from now on",
		"table", name.schema+"."+name.name, "database", o.database, "another", e.Source.Database,
		"mend", "give database the address of ours, or read topics that one database has")
	return true
}

// doubted reports whether nobody knows that the event, of a table of the entries, is
// of our database.
func (s *Source) doubted(e *debezium.Event) bool {
	if s.options.Database == "" {
		o := s.owners[table{e.Relation.Schema, e.Relation.Name}]
		return o != nil && o.mixed
	}
	if e.Source.Database == "" || e.Source.Database == s.options.Database {
		return false
	}
	if s.meets(e.Source.Database) {
		s.options.Logger.Warn("the connector names the database otherwise than it names itself: its records only drop",
			"database", e.Source.Database, "ours", s.options.Database, "mend", "let the connector reach the database by its own name (database.dbname)")
	}
	return true
}

// wait sets a partition aside until the schema of its next record may be had. It
// returns false if it is no schema that is missing, or when the registry has said for
// long enough that there is no such schema, about this record or one before.
func (s *Source) wait(p *partition, err error, began time.Time) bool {
	unknown, ok := errors.AsType[*debezium.UnknownSchema](err)
	absent := errors.Is(err, ErrNoSchema)
	if !ok || absent && s.gone[unknown.ID] {
		return false
	}
	switch {
	case !absent:
		p.absent = time.Time{} // it was not there to say so
	case p.absent.IsZero():
		p.absent = time.Now()
	case time.Since(p.absent) > s.options.NoSchemaMax:
		if len(s.gone) >= goneMax {
			clear(s.gone)
		}
		s.gone[unknown.ID] = true
		return false
	}
	s.hold(p, began, "a schema cannot be had", err)
	return true
}

// hold sets a partition aside, and no other. Why is said once, and once more where it
// has become another reason. began is when this try did, zero for the first.
func (s *Source) hold(p *partition, began time.Time, why string, err error) {
	now := time.Now()
	if p.waiting.IsZero() {
		p.waiting, began = now, now
		s.reader.PauseFetchPartitions(map[string][]int32{p.topic: {p.number}})
	}
	reason := fmt.Sprintf("partition %d of %s: %s: %v", p.number, p.topic, why, err)
	if p.why != why || change.IsRefusal(err) && p.held != reason {
		p.why, p.held = why, reason
		s.options.Logger.Warn("holding a partition: nothing of it is lost, and it goes on when this is over", "topic", p.topic, "partition", p.number, "reason", why, "err", err)
	}
	s.options.Holding(p.held)
	// What hangs holds up every partition while it is asked.
	p.again = now.Add(max(holdAgain, 4*now.Sub(began)))
}

// goOn says that there is nothing any more that a partition waits for.
func (s *Source) goOn(p *partition) {
	if p.waiting.IsZero() {
		return
	}
	p.waiting, p.why, p.held, p.again, p.absent = time.Time{}, "", "", time.Time{}, time.Time{}
	s.reader.ResumeFetchPartitions(map[string][]int32{p.topic: {p.number}})
	s.options.Logger.Info("going on", "topic", p.topic, "partition", p.number)
	reason := ""
	for _, other := range s.partitions {
		reason = cmp.Or(reason, other.held)
	}
	s.options.Holding(reason)
}

// undecodable turns a record that cannot be read into a change whose keys are
// unknown, when it is kept for a person; until then its partition is held, and this
// is nil.
func (s *Source) undecodable(ctx context.Context, p *partition, reason error, began time.Time) *change.Change {
	if err := s.options.Keep(ctx, p.records[0], reason); err != nil {
		if ctx.Err() == nil {
			s.hold(p, began, "a record can be neither read nor kept", fmt.Errorf("offset %d (%w): %w", p.records[0].Offset, reason, err))
		}
		return nil
	}
	s.goOn(p)
	p.pass()
	p.told, p.deleted = p.position, nil
	s.change = change.Change{
		Op: change.Undecodable, Stream: p.stream, Position: p.position,
		// A reason is said once. Which record it was is in what Keep has kept.
		Reason: fmt.Sprintf("a record of %s: %v", p.topic, reason),
	}
	return &s.change
}

// Confirm says that everything of a stream up to p is durable where it was to go.
// The group is told soon.
func (s *Source) Confirm(stream int, p change.Position) {
	s.member.confirm(s.partitions[stream].place, int64(p.LSN))
}

// detach ends the attachment: what was read and not given is read again.
func (s *Source) detach() {
	if s.reader != nil {
		s.endPolling()
		s.reader.Close()
		s.reader = nil
	}
	s.queue = nil
	s.options.Holding("")
	if s.member != nil {
		s.member.release()
	}
}

// Close commits what is confirmed and leaves the group.
func (s *Source) Close(ctx context.Context) error {
	s.detach()
	if s.member != nil {
		s.leave(ctx)
	}
	return nil
}
