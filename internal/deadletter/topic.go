package deadletter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/unstale/unstale/internal/change"
)

const (
	// answerMax bounds one exchange with the brokers.
	answerMax = 10 * time.Second
	// letterBytesMax is the largest letter: a record may be as large as its own
	// topic allows, and its letter is larger.
	letterBytesMax = 64 << 20
	fetchBytesMax  = 8 << 20
)

// The headers of ours, behind those of the record. headerReason is the first of
// them.
const (
	headerReason    = "unstale.error"
	headerTopic     = "unstale.topic"
	headerPartition = "unstale.partition"
	headerOffset    = "unstale.offset"
	headerTimestamp = "unstale.timestamp"
	headerTable     = "unstale.table"
	headerEntries   = "unstale.entries"
	headerTime      = "unstale.time"
	headerKey       = "unstale.key"   // absent: null
	headerValue     = "unstale.value" // "null": there is none
)

// A Topic holds letters, each under the place of its record as the key: a letter
// that is written twice is one, and a null removes it, whether the topic is
// compacted or not. They are in partition 0, so that an offset names one.
type Topic struct {
	options []kgo.Opt
	name    string
	client  *kgo.Client // nil until it is needed
	admin   *kadm.Client
	known   bool // the topic is there
}

// NewTopic returns the topic of that name; options say how to reach the brokers.
func NewTopic(options []kgo.Opt, name string) *Topic { return &Topic{options: options, name: name} }

func (t *Topic) open() error {
	if t.client != nil {
		return nil
	}
	client, err := kgo.NewClient(append(slices.Clone(t.options),
		kgo.DefaultProduceTopic(t.name),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchMaxBytes(letterBytesMax),
		kgo.ProducerLinger(0),
	)...)
	if err != nil {
		return fmt.Errorf("dead letters: %w", err)
	}
	t.client, t.admin = client, kadm.NewClient(client)
	return nil
}

// Close ends the connections.
func (t *Topic) Close() {
	if t.client != nil {
		t.client.Close()
		t.client = nil
	}
}

// Append writes a letter; every replica has it when this returns. What only a
// person can mend is a *change.Refusal.
func (t *Topic) Append(ctx context.Context, l *Letter) error {
	if err := t.open(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, answerMax)
	defer cancel()
	if err := t.create(ctx); err != nil {
		return err
	}
	if err := t.produce(ctx, t.record(l)); err != nil {
		t.known = false
		return t.refusal(fmt.Errorf("write a dead letter into topic %s: %w", t.name, err))
	}
	return nil
}

// create makes the topic unless it is there.
func (t *Topic) create(ctx context.Context) error {
	if t.known {
		return nil
	}
	_, exists, err := t.detail(ctx)
	if err != nil {
		return err
	}
	if !exists {
		_, err := t.admin.CreateTopic(ctx, partitions, replication, topicConfigs(), t.name)
		if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			return t.refusal(fmt.Errorf("create topic %s of dead letters: %w", t.name, err))
		}
	}
	t.known = true
	return nil
}

// What the topic is created with; -1: as many replicas as the brokers take by
// default.
const partitions, replication = 1, -1

func topicConfigs() map[string]*string {
	compact, bytes := "compact", strconv.Itoa(letterBytesMax)
	return map[string]*string{"cleanup.policy": &compact, "max.message.bytes": &bytes}
}

// detail is what the brokers say of the topic.
func (t *Topic) detail(ctx context.Context) (detail kadm.TopicDetail, exists bool, err error) {
	details, err := t.admin.ListTopics(ctx, t.name)
	if err == nil {
		detail = details[t.name]
		err = detail.Err
	}
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return detail, false, nil
	case err != nil:
		return detail, false, t.refusal(fmt.Errorf("ask for topic %s of dead letters: %w", t.name, err))
	}
	return detail, true, nil
}

// Diagnose returns what would keep a letter from being written, as far as the
// brokers tell: a *change.Refusal is what only a person can mend. It changes
// nothing. Of a topic that is not there nobody knows who may write into it.
func (t *Topic) Diagnose(ctx context.Context) error {
	if err := t.open(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, answerMax)
	defer cancel()
	detail, exists, err := t.detail(kadm.WithAuthorizedOps(ctx))
	if err != nil {
		return err
	}
	if !exists {
		replies, err := t.admin.ValidateCreateTopics(ctx, partitions, replication, topicConfigs(), t.name)
		if err == nil {
			err = replies[t.name].Err
		}
		if err != nil {
			return t.refusal(fmt.Errorf("create topic %s of dead letters: %w", t.name, err))
		}
		return nil
	}
	// A broker that is old does not say.
	if may := detail.AuthorizedOperations; len(may) > 0 && !slices.Contains(may, kmsg.ACLOperationWrite) {
		return t.refusal(fmt.Errorf("write a dead letter into topic %s: %w", t.name, kerr.TopicAuthorizationFailed))
	}
	return nil
}

// refusal makes one of what only a person can mend.
func (t *Topic) refusal(err error) error {
	mend := ""
	switch {
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed), errors.Is(err, kerr.PolicyViolation), errors.Is(err, kerr.InvalidReplicationFactor):
		mend = fmt.Sprintf("kafka-topics.sh --create --topic %[1]s --partitions 1 --config cleanup.policy=compact --config max.message.bytes=%[2]d, and kafka-acls.sh --add --topic %[1]s --operation read --operation write --operation describe for this user; or name another topic in source.kafka.deadletter_topic", t.name, letterBytesMax)
	case errors.Is(err, kerr.MessageTooLarge), errors.Is(err, kerr.RecordListTooLarge):
		mend = fmt.Sprintf("kafka-configs.sh --alter --topic %s --add-config max.message.bytes=%d", t.name, letterBytesMax)
	default:
		return err
	}
	return &change.Refusal{Problem: err.Error(), Mend: mend}
}

// produce writes records. The client cannot take back what it has sent, so when
// the time is over it may still write them: once more is no harm.
func (t *Topic) produce(ctx context.Context, records ...*kgo.Record) error {
	ended := make(chan error, len(records))
	for _, record := range records {
		t.client.Produce(ctx, record, func(_ *kgo.Record, err error) { ended <- err })
	}
	for range records {
		select {
		case err := <-ended:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return fmt.Errorf("the brokers do not confirm it: %w", ctx.Err())
		}
	}
	return nil
}

func (t *Topic) record(l *Letter) *kgo.Record {
	r := l.Record
	record := &kgo.Record{Key: []byte(l.place()), Value: r.Value, Timestamp: l.Time}
	for _, h := range r.Headers {
		record.Headers = append(record.Headers, kgo.RecordHeader{Key: h.Name, Value: h.Value})
	}
	add := func(name, value string) {
		record.Headers = append(record.Headers, kgo.RecordHeader{Key: name, Value: []byte(value)})
	}
	add(headerReason, l.Reason)
	add(headerTopic, r.Topic)
	add(headerPartition, strconv.Itoa(int(r.Partition)))
	add(headerOffset, strconv.FormatInt(r.Offset, 10))
	add(headerTimestamp, r.Timestamp.UTC().Format(time.RFC3339Nano))
	add(headerTime, l.Time.UTC().Format(time.RFC3339))
	if l.Table != "" {
		add(headerTable, l.Table)
	}
	if len(l.Entries) > 0 {
		add(headerEntries, strings.Join(l.Entries, ","))
	}
	if r.Key != nil {
		add(headerKey, string(r.Key))
	}
	if r.Value == nil {
		// A null would remove the letter.
		record.Value = []byte{}
		add(headerValue, "null")
	}
	return record
}

// letter reads what record has written. A record that somebody else has put there
// is a letter too, of which little is known.
func letter(record *kgo.Record) Letter {
	l := Letter{Number: record.Offset, Time: record.Timestamp, Record: &Record{Value: record.Value}, key: record.Key}
	ours := len(record.Headers)
	for i, h := range record.Headers {
		if h.Key == headerReason {
			ours = i
		}
	}
	for _, h := range record.Headers[:ours] {
		l.Record.Headers = append(l.Record.Headers, Header{h.Key, h.Value})
	}
	if ours == len(record.Headers) {
		l.Reason = "not written by unstale"
		l.Record.Topic, l.Record.Partition, l.Record.Offset = record.Topic, record.Partition, record.Offset
		l.Record.Timestamp, l.Record.Key = record.Timestamp, record.Key
		return l
	}
	for _, h := range record.Headers[ours:] {
		text := string(h.Value)
		switch h.Key {
		case headerReason:
			l.Reason = text
		case headerTopic:
			l.Record.Topic = text
		case headerPartition:
			n, _ := strconv.ParseInt(text, 10, 32)
			l.Record.Partition = int32(n)
		case headerOffset:
			l.Record.Offset, _ = strconv.ParseInt(text, 10, 64)
		case headerTimestamp:
			l.Record.Timestamp, _ = time.Parse(time.RFC3339Nano, text)
		case headerTime:
			l.Time, _ = time.Parse(time.RFC3339, text)
		case headerTable:
			l.Table = text
		case headerEntries:
			l.Entries = strings.Split(text, ",")
		case headerKey:
			l.Record.Key = h.Value
		case headerValue:
			l.Record.Value = nil
		}
	}
	return l
}

// List returns the letters, in the order in which they were kept, without what
// their records held.
func (t *Topic) List(ctx context.Context) ([]Letter, error) {
	found := map[string]Letter{}
	err := t.read(ctx, -1, func(record *kgo.Record) {
		// One that was written again, or removed.
		delete(found, string(record.Key))
		if record.Value == nil {
			return
		}
		l := letter(record)
		l.Record.Key, l.Record.Value, l.Record.Headers = nil, nil, nil
		found[string(record.Key)] = l
	})
	if err != nil {
		return nil, fmt.Errorf("read topic %s of dead letters: %w", t.name, err)
	}
	letters := make([]Letter, 0, len(found))
	for _, l := range found {
		letters = append(letters, l)
	}
	slices.SortFunc(letters, func(a, b Letter) int { return int(a.Number - b.Number) })
	return letters, nil
}

// Read returns the letter of that number, one that List has shown.
func (t *Topic) Read(ctx context.Context, number int64) (Letter, error) {
	var found *Letter
	err := t.read(ctx, number, func(record *kgo.Record) {
		if record.Offset == number && record.Value != nil {
			l := letter(record)
			found = &l
		}
	})
	if err != nil {
		return Letter{}, fmt.Errorf("read topic %s of dead letters: %w", t.name, err)
	}
	if found == nil {
		return Letter{}, fmt.Errorf("dead letter %d is gone", number)
	}
	return *found, nil
}

// Remove takes a letter away, one that List or Read has returned.
func (t *Topic) Remove(ctx context.Context, l Letter) error {
	if err := t.open(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, answerMax)
	defer cancel()
	if err := t.produce(ctx, &kgo.Record{Key: l.key}); err != nil {
		return t.refusal(fmt.Errorf("remove a dead letter from topic %s: %w", t.name, err))
	}
	return nil
}

// read gives each the records of the topic, or, where number is not negative, at
// least the one at that offset. It asks the leader itself: a consumer is not told
// that the end is reached where the last records were compacted away.
func (t *Topic) read(ctx context.Context, number int64, each func(*kgo.Record)) error {
	if err := t.open(); err != nil {
		return err
	}
	details, err := t.admin.ListTopics(ctx, t.name)
	if err != nil {
		return err
	}
	detail := details[t.name]
	switch {
	case errors.Is(detail.Err, kerr.UnknownTopicOrPartition):
		return nil // no letter was ever kept
	case detail.Err != nil:
		return detail.Err
	case len(detail.Partitions) == 0, detail.Partitions[0].Leader < 0:
		return kerr.LeaderNotAvailable
	}
	starts, err := t.admin.ListStartOffsets(ctx, t.name)
	if err != nil {
		return err
	}
	ends, err := t.admin.ListEndOffsets(ctx, t.name)
	if err != nil {
		return err
	}
	start, _ := starts.Lookup(t.name, 0)
	end, _ := ends.Lookup(t.name, 0)
	if err := errors.Join(start.Err, end.Err); err != nil {
		return err
	}
	at, until := start.Offset, end.Offset
	if number >= 0 {
		at, until = max(number, at), min(number+1, until)
	}
	for at < until {
		next, err := t.fetch(ctx, detail, at, each)
		if err != nil {
			return err
		}
		if next <= at {
			return fmt.Errorf("nothing comes at offset %d", at)
		}
		at = next
	}
	return nil
}

// fetch gives each the records of one answer, and returns the offset behind them.
func (t *Topic) fetch(ctx context.Context, topic kadm.TopicDetail, at int64, each func(*kgo.Record)) (next int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerMax)
	defer cancel()
	request := kmsg.NewPtrFetchRequest()
	request.MaxWaitMillis, request.MinBytes, request.MaxBytes = int32(answerMax.Milliseconds()/2), 1, fetchBytesMax
	partition := kmsg.NewFetchRequestTopicPartition()
	partition.FetchOffset, partition.PartitionMaxBytes = at, fetchBytesMax
	asked := kmsg.NewFetchRequestTopic()
	asked.Topic, asked.TopicID = t.name, topic.ID
	asked.Partitions = append(asked.Partitions, partition)
	request.Topics = append(request.Topics, asked)
	reply, err := t.client.Broker(int(topic.Partitions[0].Leader)).RetriableRequest(ctx, request)
	if err != nil {
		return at, err
	}
	answer, ok := reply.(*kmsg.FetchResponse)
	if !ok || len(answer.Topics) != 1 || len(answer.Topics[0].Partitions) != 1 {
		return at, fmt.Errorf("the broker answers a fetch of one partition with %v", reply)
	}
	if err := kerr.ErrorForCode(answer.ErrorCode); err != nil {
		return at, err
	}
	options := kgo.ProcessFetchPartitionOpts{Offset: at, Topic: t.name, KeepControlRecords: true}
	fetched, next := kgo.ProcessFetchPartition(options, &answer.Topics[0].Partitions[0], kgo.DefaultDecompressor(), nil)
	for _, record := range fetched.Records {
		if !record.Attrs.IsControl() {
			each(record)
		}
	}
	return next, fetched.Err
}
