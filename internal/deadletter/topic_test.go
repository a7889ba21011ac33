package deadletter_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/deadletter"
)

const topicName = "unstale.deadletter"

func newTopic(t *testing.T) (*deadletter.Topic, *kfake.Cluster, *kgo.Client) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	options := []kgo.Opt{kgo.SeedBrokers(cluster.ListenAddrs()...)}
	client, err := kgo.NewClient(options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	topic := deadletter.NewTopic(options, topicName)
	t.Cleanup(topic.Close)
	return topic, cluster, client
}

var kept = time.Date(2026, 11, 26, 14, 0, 0, 0, time.UTC)

func poison(offset int64) deadletter.Letter {
	return deadletter.Letter{
		Time: kept, Reason: "undecodable message: it is cut short",
		Table: "public.products", Entries: []string{"page", "product"},
		Record: &deadletter.Record{
			Topic: "cdc.public.products", Partition: 2, Offset: offset, Timestamp: kept.Add(-time.Minute),
			Key: []byte(`{"id":7}`), Value: []byte{0, 0, 0, 0, 9, 0xff},
			Headers: []deadletter.Header{{Name: "trace", Value: []byte{1, 2}}, {Name: "empty"}},
		},
	}
}

func appendAll(t *testing.T, topic *deadletter.Topic, letters ...deadletter.Letter) {
	t.Helper()
	for i := range letters {
		if err := topic.Append(t.Context(), &letters[i]); err != nil {
			t.Fatal(err)
		}
	}
}

func numbers(t *testing.T, topic *deadletter.Topic) (numbers []int64) {
	t.Helper()
	letters, err := topic.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range letters {
		numbers = append(numbers, l.Number)
	}
	return numbers
}

// What a person, or another tool, finds in the topic is the record as it was, and
// behind its headers where it comes from.
func TestALetterHasAllOfItsRecord(t *testing.T) {
	topic, _, _ := newTopic(t)
	if n := numbers(t, topic); n != nil {
		t.Fatalf("before there was any: %v", n)
	}
	null, empty := poison(1), poison(2)
	null.Record.Key, null.Record.Value, null.Record.Headers, null.Table, null.Entries = nil, nil, nil, "", nil
	empty.Record.Key, empty.Record.Value = []byte{}, []byte{}
	// A record may itself be a letter that somebody has written back.
	again := poison(3)
	again.Record.Headers = append(again.Record.Headers,
		deadletter.Header{Name: "unstale.error", Value: []byte("old")}, deadletter.Header{Name: "unstale.topic", Value: []byte("old")})
	want := []deadletter.Letter{poison(0), null, empty, again}
	appendAll(t, topic, want...)
	for i := range want {
		got, err := topic.Read(t.Context(), int64(i))
		if err != nil {
			t.Fatal(err)
		}
		want[i].Number = int64(i)
		if diff := cmp.Diff(want[i], got, cmpopts.IgnoreUnexported(deadletter.Letter{})); diff != "" {
			t.Errorf("letter %d (-want +got)\n%s", i, diff)
		}
	}
	listed, err := topic.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(listed) != 4 || listed[3].Record.Value != nil || listed[3].Record.Offset != 3 || listed[3].Table != "public.products" {
		t.Errorf("listed %+v", listed)
	}
}

// The service may end between letter and watermark; then the record comes again.
func TestARecordThatIsKeptTwiceIsOneLetter(t *testing.T) {
	topic, _, _ := newTopic(t)
	appendAll(t, topic, poison(7), poison(8), poison(7))
	if diff := cmp.Diff([]int64{1, 2}, numbers(t, topic)); diff != "" {
		t.Errorf("letters (-want +got)\n%s", diff)
	}
}

func TestALetterThatIsRemovedIsGoneBeforeAndAfterCompaction(t *testing.T) {
	topic, cluster, _ := newTopic(t)
	appendAll(t, topic, poison(7), poison(8), poison(9))
	letters, err := topic.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range letters[1:] {
		if err := topic.Remove(t.Context(), l); err != nil {
			t.Fatal(err)
		}
	}
	for _, when := range []string{"before", "after"} {
		if diff := cmp.Diff([]int64{0}, numbers(t, topic)); diff != "" {
			t.Errorf("%s compaction (-want +got)\n%s", when, diff)
		}
		cluster.Compact()
	}
	if _, err := topic.Read(t.Context(), 1); err == nil {
		t.Error("a letter that was removed is still read")
	}
}

// One partition, so that an offset is a name; compacted, so that letters stay
// until they are removed; and large enough for the largest record.
func TestTheTopicIsCreatedWhenItIsNeeded(t *testing.T) {
	topic, _, client := newTopic(t)
	large := poison(0)
	large.Record.Value = make([]byte, 3<<20)
	appendAll(t, topic, large)
	admin := kadm.NewClient(client)
	details, err := admin.ListTopics(t.Context(), topicName)
	if err != nil || len(details[topicName].Partitions) != 1 {
		t.Errorf("details %v, %v", details, err)
	}
	configs, err := admin.DescribeTopicConfigs(t.Context(), topicName)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range configs[0].Configs {
		if c.Key == "cleanup.policy" && c.MaybeValue() != "compact" {
			t.Errorf("cleanup.policy %s", c.MaybeValue())
		}
	}
	if l, err := topic.Read(t.Context(), 0); err != nil || len(l.Record.Value) != 3<<20 {
		t.Errorf("read: %v", err)
	}
}

// Where a person must do something, they are told what.
func TestATopicThatMayNotBeCreatedIsARefusal(t *testing.T) {
	topic, cluster, _ := newTopic(t)
	cluster.ControlKey(int16(kmsg.CreateTopics), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		reply := request.ResponseKind().(*kmsg.CreateTopicsResponse)
		refused := kmsg.NewCreateTopicsResponseTopic()
		refused.Topic, refused.ErrorCode = topicName, kerr.TopicAuthorizationFailed.Code
		reply.Topics = append(reply.Topics, refused)
		return reply, nil, true
	})
	l := poison(0)
	err := topic.Append(t.Context(), &l)
	if !change.IsRefusal(err) || !strings.Contains(err.Error(), "--create --topic "+topicName) {
		t.Errorf("got %v", err)
	}
}

// Before there is anything to keep it shows whether that could be kept, and what
// to do where it could not; nothing is created for it.
func TestWhatWouldKeepALetterFromBeingWrittenIsFound(t *testing.T) {
	const otherTopic = "unstale.other"
	allow := func(topic string, operations ...kmsg.ACLOperation) (acls []kfake.ACL) {
		for _, o := range operations {
			acls = append(acls, kfake.ACL{Resource: kmsg.ACLResourceTypeTopic, Name: topic, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: o, Allow: true})
		}
		return acls
	}
	users := map[string][]kfake.ACL{
		"reader":   allow(topicName, kmsg.ACLOperationRead, kmsg.ACLOperationDescribe),
		"writer":   allow(topicName, kmsg.ACLOperationRead, kmsg.ACLOperationWrite),
		"creator":  allow(otherTopic, kmsg.ACLOperationCreate, kmsg.ACLOperationDescribe),
		"onlooker": allow(otherTopic, kmsg.ACLOperationDescribe),
		"nobody":   nil,
	}
	options := []kfake.Opt{kfake.NumBrokers(1), kfake.EnableSASL(), kfake.EnableACLs(), kfake.Superuser("PLAIN", "admin", "admin"), kfake.SeedTopics(1, topicName)}
	for user, acls := range users {
		options = append(options, kfake.User("PLAIN", user, user, acls...))
	}
	cluster, err := kfake.NewCluster(options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	as := func(user string) []kgo.Opt {
		return []kgo.Opt{kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.SASL(plain.Auth{User: user, Pass: user}.AsMechanism())}
	}
	for _, c := range []struct{ user, topic, want string }{
		{"writer", topicName, ""},
		{"reader", topicName, "write a dead letter into topic " + topicName},
		{"nobody", topicName, "ask for topic " + topicName},
		{"creator", otherTopic, ""},
		{"onlooker", otherTopic, "create topic " + otherTopic},
	} {
		topic := deadletter.NewTopic(as(c.user), c.topic)
		err := topic.Diagnose(t.Context())
		topic.Close()
		if c.want == "" && err != nil {
			t.Errorf("%s, %s: %v", c.user, c.topic, err)
		}
		if c.want != "" && (!change.IsRefusal(err) || !strings.HasPrefix(err.Error(), c.want) || !strings.Contains(err.Error(), "kafka-acls.sh --add --topic "+c.topic)) {
			t.Errorf("%s, %s: got %v, want %s", c.user, c.topic, err, c.want)
		}
	}
	client, err := kgo.NewClient(as("admin")...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if details, err := kadm.NewClient(client).ListTopics(t.Context()); err != nil || details.Has(otherTopic) {
		t.Errorf("topics %v, %v", details.Names(), err)
	}
}

// Only what the broker has acknowledged is kept.
func TestALetterThatIsNotAcknowledgedIsAnError(t *testing.T) {
	topic, cluster, _ := newTopic(t)
	cluster.ControlKey(int16(kmsg.Produce), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		produce := request.(*kmsg.ProduceRequest)
		if produce.Acks != -1 {
			t.Errorf("acks %d, want all", produce.Acks)
		}
		reply := produce.ResponseKind().(*kmsg.ProduceResponse)
		for _, rt := range produce.Topics {
			answer := kmsg.NewProduceResponseTopic()
			answer.Topic, answer.TopicID = rt.Topic, rt.TopicID
			for _, rp := range rt.Partitions {
				partition := kmsg.NewProduceResponseTopicPartition()
				partition.Partition, partition.ErrorCode = rp.Partition, kerr.TopicAuthorizationFailed.Code
				answer.Partitions = append(answer.Partitions, partition)
			}
			reply.Topics = append(reply.Topics, answer)
		}
		return reply, nil, true
	})
	l := poison(0)
	if err := topic.Append(t.Context(), &l); !change.IsRefusal(err) {
		t.Errorf("got %v", err)
	}
	if n := numbers(t, topic); n != nil {
		t.Errorf("letters %v", n)
	}
}

// What somebody else has put there can be seen and removed.
func TestARecordOfSomebodyElseIsALetter(t *testing.T) {
	topic, _, client := newTopic(t)
	appendAll(t, topic, poison(7))
	if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: topicName, Key: []byte("k"), Value: []byte("v")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	letters, err := topic.List(t.Context())
	if err != nil || len(letters) != 2 || letters[1].Reason != "not written by unstale" {
		t.Fatalf("letters %+v, %v", letters, err)
	}
	if err := topic.Remove(t.Context(), letters[1]); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int64{0}, numbers(t, topic)); diff != "" {
		t.Errorf("letters (-want +got)\n%s", diff)
	}
}
