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
	// schemaAgain is when the registry is asked again for a schema that it did not
	// have. noSchemaMax is how long it may say that there is none: it may lag behind
	// the topic.
	schemaAgain = time.Second
	noSchemaMax = time.Minute
	// saidMax bounds how many different things of a kind are said.
	saidMax = 16
)

// ErrNoSchema is what the registry says of a schema that it does not have.
var ErrNoSchema = errors.New("the schema registry has no such schema")

// SessionTimeout is the default of Options.SessionTimeout.
const SessionTimeout = 10 * time.Second

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
	// Keep keeps a record that cannot be read for a person. It returns nil when that
	// is confirmed, and only then is the record passed over.
	Keep func(ctx context.Context, record *kgo.Record, reason error) error
	// Origin is what the database connection, by which changes are gated and
	// readers load, sees as its server.
	Origin func(context.Context) (change.Origin, error)
	Logger *slog.Logger
}

// Source is what the group gives to this instance. Confirm may be called from
// anywhere; all else from one goroutine at a time.
type Source struct {
	options Options
	member  *member // nil until the first Attach

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
	// open is the transaction of the last change, zero if a Commit was given since.
	open        uint64
	committedAt int64
	// deleted is the key of the last record if that was a delete: its tombstone may
	// follow.
	deleted []byte
	// scanning is the initial snapshot that the last row was of, if it was of one.
	// streamed: there was a row of the log since the attachment.
	scanning scan
	streamed bool
	// waiting: the schema of the first of records is not to be had, since then.
	waiting time.Time
	again   time.Time // when to ask for it again
	absent  time.Time // since when the registry has said that there is none
}

// New returns a source that is not attached yet.
func New(options Options) *Source {
	options.SessionTimeout = cmp.Or(options.SessionTimeout, SessionTimeout)
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	return &Source{options: options, saidForeign: map[string]bool{}, owners: map[table]*owner{}, scans: map[scan]bool{}}
}

// Attach takes over the partitions that the group gives to this instance; while
// it gives none, that is change.ErrInUse.
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
			s.member.close(ctx)
			s.member = nil
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
	options := append([]kgo.Opt{kgo.ConsumeTopics(s.options.Topics...)}, s.options.Client...)
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
	a := change.Attachment{Origin: origin}
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
				err = fmt.Errorf("%w: the group is about to say what this instance has", change.ErrInUse)
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
		case <-deadline.C:
			return nil, nil, errors.New("the group does not say which partitions are ours: are the topics there, and may this user join the group?")
		}
	}
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
			if _, unknown := errors.AsType[*debezium.UnknownSchema](err); unknown && ctx.Err() == nil {
				if s.wait(p, err, began) {
					break
				}
			}
			if err != nil {
				if ctx.Err() != nil {
					return nil, ctx.Err()
				}
				if p.open != 0 {
					return s.commit(p), nil
				}
				return s.undecodable(ctx, p, err)
			}
			p.arrived(s.reader)
		}
		if p.open != 0 && p.open != s.event.XID {
			p.ahead = true
			return s.commit(p), nil
		}
		p.ahead = false
		if c := s.row(p, record); c != nil {
			return c, nil
		}
	}
	switch {
	case p.open != 0:
		// Only the record of another transaction shows that one has ended.
		c := s.commit(p)
		c.Cut = true
		return c, nil
	case p.position.Compare(p.told) > 0:
		s.change = change.Change{Op: change.Idle, Stream: p.stream, Position: p.position}
		p.told = p.position
		return &s.change, nil
	}
	return nil, nil
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
			s.change = change.Change{Op: change.Restart, Stream: p.stream, Position: p.position, Reason: "the connector reads every table anew"}
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
		Again: s.doubted(e) || !placed(record.Key, p.number, p.partitions),
	}
	if e.Snapshot == debezium.None {
		c.Sequence = change.Sequence{Commit: e.Sequence[0], LSN: e.Sequence[1]}
	} else {
		c.Scan = scans[e.Snapshot]
	}
	p.open, p.committedAt, p.told = e.XID, e.CommittedAt, p.position
	s.committed.Store(e.CommittedAt)
	return c
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
// false if that concerns no entry.
func Late(e *debezium.Event) (c change.Change, ok bool) {
	switch {
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
	c.Stream, c.Position, c.Again = p.stream, p.position, true
	p.told = p.position
	return c
}

// foreign reports whether the event is of another database, and says so once.
func (s *Source) foreign(e *debezium.Event) bool {
	if s.options.Database == "" {
		return false
	}
	switch e.Source.Database {
	case "", s.options.Database, s.options.Alias:
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
// returns false when the registry has said for long enough that there is no such
// schema. began is when it was asked, zero for the first time.
func (s *Source) wait(p *partition, err error, began time.Time) bool {
	now := time.Now()
	if p.waiting.IsZero() {
		p.waiting, began = now, now
		s.reader.PauseFetchPartitions(map[string][]int32{p.topic: {p.number}})
		s.options.Logger.Warn("holding a partition until its schema can be had", "topic", p.topic, "partition", p.number, "err", err)
	}
	switch {
	case !errors.Is(err, ErrNoSchema):
		p.absent = time.Time{} // it was not there to say so
	case p.absent.IsZero():
		p.absent = now
	case now.Sub(p.absent) > noSchemaMax:
		return false
	}
	// A registry that hangs holds up every partition while it is asked.
	p.again = now.Add(max(schemaAgain, 4*now.Sub(began)))
	return true
}

// arrived says that a schema could be had after all.
func (p *partition) arrived(reader *kgo.Client) {
	if p.waiting.IsZero() {
		return
	}
	p.waiting, p.again, p.absent = time.Time{}, time.Time{}, time.Time{}
	reader.ResumeFetchPartitions(map[string][]int32{p.topic: {p.number}})
}

// undecodable turns a record that cannot be read into a change whose keys are
// unknown, when it is kept for a person.
func (s *Source) undecodable(ctx context.Context, p *partition, reason error) (*change.Change, error) {
	if err := s.options.Keep(ctx, p.records[0], reason); change.IsRefusal(err) {
		return nil, err // the same for each record, and said once
	} else if err != nil {
		return nil, fmt.Errorf("keep offset %d of partition %d of %s, which cannot be read (%w): %w", p.records[0].Offset, p.number, p.topic, reason, err)
	}
	p.arrived(s.reader)
	p.pass()
	p.told, p.deleted = p.position, nil
	s.change = change.Change{
		Op: change.Undecodable, Stream: p.stream, Position: p.position,
		// A reason is said once. Which record it was is in what Keep has kept.
		Reason: fmt.Sprintf("a record of %s: %v", p.topic, reason),
	}
	return &s.change, nil
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
	if s.member != nil {
		s.member.release()
	}
}

// Close commits what is confirmed and leaves the group.
func (s *Source) Close(ctx context.Context) error {
	s.detach()
	if s.member != nil {
		s.member.close(ctx)
		s.member = nil
	}
	return nil
}
