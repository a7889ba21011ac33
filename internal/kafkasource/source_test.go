package kafkasource_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/debezium"
	"github.com/unstale/unstale/internal/kafkasource"
)

// A position is the offset of the next record. The end of a transaction shows when
// another begins; when nothing more is at hand it may go on.
func TestRowsStandAtTheirOffsets(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	r.send(0, insert("1", 700), insert("2", 700), insert("3", 701), row("d", "3", 702, "shop"))
	c := r.consumer()
	c.begin(1)
	c.want("0 insert 1 in 700 to 1", "0 insert 2 in 700 to 2", "0 commit in 700 to 2",
		"0 insert 3 in 701 to 3", "0 commit in 701 to 3", "0 delete 3 in 702 to 4", "0 commit in 702 cut to 4")
	if c.Pending() {
		t.Error("pending, with nothing at hand")
	}
}

// What does not concern us moves the position, once for all of it.
func TestWhatIsPassedOverIsOneStep(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	for xid := range 5 {
		r.send(0, row("c", "1", 700+xid, "other"))
	}
	r.send(0, insert("1", 800))
	for xid := range 5 {
		r.send(0, row("c", "1", 900+xid, "other"))
	}
	c := r.consumer()
	c.begin(1)
	c.want("0 insert 1 in 800 to 6", "0 commit in 800 cut to 11")
	r.send(0, row("c", "1", 999, "other"))
	c.want("0 idle to 12")
}

// Through a pooler a database has another name, which another one may bear: what
// comes under it only drops.
func TestTheNameOfAPoolerOnlyDrops(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	r.send(0, row("c", "1", 700, "shop-pool"), row("c", "2", 701, "shop-pool"), insert("3", 702))
	c := r.consumer(func(o *kafkasource.Options) { o.Alias = "shop-pool" })
	c.begin(1)
	c.want("0 insert 1 in 700 again to 1", "0 commit in 700 to 1", "0 insert 2 in 701 again to 2", "0 commit in 701 to 2",
		"0 insert 3 in 702 to 3")
	if n := strings.Count(c.log.String(), "its records only drop"); n != 1 {
		t.Errorf("said %d times:\n%s", n, c.log)
	}
}

// Where nobody has said which database is ours, nobody knows it when a table comes
// from a second one: what was set before may be wrong, so all is swept, and from
// then on the table only drops.
func TestATableOfTwoDatabasesOnlyDrops(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	r.send(0, insert("1", 700), row("c", "1", 700, "other"), insert("2", 701), row("c", "3", 702, "third"))
	c := r.consumer(func(o *kafkasource.Options) { o.Database = "" })
	c.begin(1)
	c.want("0 insert 1 in 700 to 1", "0 restart to 1", "0 insert 1 in 700 again to 2", "0 commit in 700 to 2",
		"0 insert 2 in 701 again to 3", "0 commit in 701 to 3", "0 insert 3 in 702 again to 4")
	if n := strings.Count(c.log.String(), "a table comes from two databases"); n != 1 {
		t.Errorf("said %d times:\n%s", n, c.log)
	}
}

// A tombstone behind its delete says nothing new. One whose delete is not there any
// more drops its key.
func TestTombstones(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	grave := func(id string) kgo.Record { return kgo.Record{Key: key(id)} }
	r.send(0, insert("1", 699), row("d", "1", 700, "shop"), grave("1"), row("d", "2", 701, "shop"), grave("3"), grave("3"))
	c := r.consumer()
	c.begin(1)
	c.want("0 insert 1 in 699 to 1", "0 commit in 699 to 1",
		"0 delete 1 in 700 to 2", "0 commit in 700 to 3", "0 delete 2 in 701 to 4",
		"0 delete 3 in 701 again to 5", "0 delete 3 in 701 again to 6", "0 commit in 701 cut to 6")
}

// Only a later row of another transaction shows that one has ended. What stands
// between its rows, or behind what was fetched of it, does not: shown as the end, it
// has a state set that was never committed.
func TestWhatShowsTheEndOfATransaction(t *testing.T) {
	t.Parallel()
	grave := kgo.Record{Key: key("1")}
	of := func(record kgo.Record, old, updated string) kgo.Record {
		record.Value = bytes.Replace(record.Value, []byte(old), []byte(updated), 1)
		return record
	}
	incremental := of(of(row("r", "9", 0, "shop"), `"snapshot":"true"`, `"snapshot":"incremental"`), `"txId":0`, `"txId":null`)
	for _, test := range []struct {
		name    string
		between []kgo.Record
		want    []string
	}{
		{"a tombstone", []kgo.Record{row("d", "1", 700, "shop"), grave}, []string{"0 delete 1 in 700 to 2", "0 update 2 in 700 to 4", "0 commit in 700 to 4"}},
		{"a tombstone whose delete is gone", []kgo.Record{grave}, []string{"0 delete 1 in 700 again to 2", "0 update 2 in 700 to 3", "0 commit in 700 to 3"}},
		{"a heartbeat", []kgo.Record{{Key: key("1"), Value: []byte(`{"ts_ms":1}`)}}, []string{"0 update 2 in 700 to 3", "0 commit in 700 to 3"}},
		{"a row of an incremental snapshot", []kgo.Record{incremental}, []string{"0 insert 9 in 700 to 2", "0 update 2 in 700 to 3", "0 commit in 700 to 3"}},
		{"a row of another database", []kgo.Record{row("c", "1", 9, "other")}, []string{"0 update 2 in 700 to 3", "0 commit in 700 to 3"}},
		{"another connector's row", []kgo.Record{of(insert("5", 705), `"name":"cdc"`, `"name":"cdc2"`)},
			[]string{"0 commit in 700 cut to 1", "0 insert 5 in 705 to 2", "0 commit in 705 cut to 2", "0 update 2 in 700 to 3"}},
		{"a connector that begins again further back", []kgo.Record{insert("5", 699)},
			[]string{"0 commit in 700 cut to 1", "0 insert 5 in 699 to 2", "0 commit in 699 to 2", "0 update 2 in 700 to 3"}},
		{"a record that cannot be read", []kgo.Record{{Key: key("1"), Value: []byte("rubbish")}},
			[]string{"0 commit in 700 cut to 1", "0 undecodable to 2", "0 update 2 in 700 to 3"}},
		{"a row of an initial snapshot", []kgo.Record{row("r", "5", 705, "shop")},
			[]string{"0 commit in 700 cut to 1", "0 restart to 1", "0 insert 5 to 2", "0 update 2 in 700 to 3"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 1)
			r.send(0, append([]kgo.Record{insert("2", 700)}, append(test.between, row("u", "2", 700, "shop"), insert("6", 710))...)...)
			c := r.consumer()
			c.begin(1)
			c.want(append([]string{"0 insert 2 in 700 to 1"}, test.want...)...)
		})
	}
}

// Two topics have no order between them, nor have records of one topic whose keys
// are of different columns: of a table that comes so nothing is set from then on.
func TestATableThatComesTwoWaysIsOnlyDropped(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	const other = "routed.users"
	if _, err := r.admin.CreateTopics(r.within(5*time.Second), 1, 1, nil, other); err != nil {
		t.Fatal(err)
	}
	c := r.consumer(func(o *kafkasource.Options) { o.Topics = []string{topic, other} })
	c.begin(2)
	r.send(0, insert("1", 700))
	c.want("0 insert 1 in 700 to 1", "0 commit in 700 cut to 1")
	record := insert("1", 701)
	record.Topic = other
	if err := r.producer.ProduceSync(r.within(5*time.Second), &record).FirstErr(); err != nil {
		t.Fatal(err)
	}
	c.want("1 insert 1 in 701 again to 1", "1 commit in 701 cut to 1")
	r.send(0, insert("1", 702))
	c.want("0 insert 1 in 702 again to 2")
	if n := strings.Count(c.log.String(), "have no order"); n != 1 {
		t.Errorf("said %d times:\n%s", n, c.log)
	}
}

func TestATableWhoseKeysAreOfOtherColumnsIsOnlyDropped(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	var id string
	rekeyed := kgo.Record{Key: []byte(`{"id":"1","n":1}`)}
	partitioner := kgo.StickyKeyPartitioner(nil).ForTopic(topic)
	at := partitioner.Partition(&rekeyed, 2)
	id = placed(at, 2)
	rekeyed.Value = insert(id, 701).Value
	r.send(int32(at), insert(id, 700), rekeyed, insert(id, 702))
	c := r.consumer()
	c.begin(2)
	c.want(fmt.Sprintf("%d insert %s in 700 to 1", at, id), fmt.Sprintf("%d commit in 700 to 1", at),
		fmt.Sprintf("%d insert %s in 701 again to 2", at, id), fmt.Sprintf("%d commit in 701 to 2", at),
		fmt.Sprintf("%d insert %s in 702 again to 3", at, id))
}

// Rows move between partitions, so what comes under the name of one only drops. While
// nobody can say whether a table is a partition, its changes are not passed over.
func TestAPartitionOfATableIsOnlyDropped(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	partition := insert("1", 700)
	partition.Value = bytes.Replace(partition.Value, []byte(`"table":"users"`), []byte(`"table":"users_a"`), 1)
	r.send(0, partition, insert("2", 701))
	away := errors.New("the database is away")
	c := r.consumer(func(o *kafkasource.Options) {
		o.Decoder = debezium.NewDecoder(debezium.Options{
			Schema: r.registry.schema, Compile: compile, Table: described,
			Wanted: func(_, table string) bool { return table == "users" },
			Root: func(context.Context, string, string) (debezium.TableName, bool, error) {
				if away != nil {
					return debezium.TableName{}, false, away
				}
				return debezium.TableName{Schema: "public", Table: "users"}, true, nil
			},
		})
	})
	c.begin(1)
	if next, err := c.Next(c.within(10 * time.Second)); !errors.Is(err, away) {
		t.Fatalf("%v, %v; want %v", next, err, away)
	}
	away = nil
	c.begin(1)
	c.want("0 insert 1 in 700 again to 1", "0 commit in 700 to 1", "0 insert 2 in 701 to 2")
}

// A partition that is made later may have a topic of its own.
func TestATopicIsAddedLater(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	const later = "cdc.public.users_b"
	if _, err := r.admin.CreateTopics(r.within(5*time.Second), 1, 1, nil, later); err != nil {
		t.Fatal(err)
	}
	c := r.consumer()
	c.begin(1)
	reading := c.read()
	c.Follow([]string{topic, later})
	if err := <-reading.err; !errors.Is(err, change.ErrReassigned) {
		t.Fatal(err)
	}
	c.attach(2)
}

// What a transaction of Kafka aborts was never there, and its marker is a place as
// every other.
func TestTransactionsOfKafka(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	producer := r.client(kgo.TransactionalID("connect"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for n, end := range []kgo.TransactionEndTry{kgo.TryAbort, kgo.TryCommit} {
		if err := producer.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		record := insert(fmt.Sprint(n), 700+n)
		record.Topic = topic
		if err := producer.ProduceSync(r.within(10*time.Second), &record).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := producer.EndTransaction(r.within(10*time.Second), end); err != nil {
			t.Fatal(err)
		}
	}
	c := r.consumer()
	c.begin(1)
	c.want("0 insert 1 in 701 to 3", "0 commit in 701 cut to 4")
}

// A record that cannot be read is kept before it is passed over. One that cannot be
// kept either holds its partition, and no other; that is said once.
func TestARecordIsKeptBeforeItIsPassed(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	ids := []string{placed(0, 2), placed(1, 2)}
	r.send(0, insert(ids[0], 700), kgo.Record{Key: []byte("k"), Value: []byte("rubbish")}, insert(ids[0], 701))
	var kept []int64
	var holding []string
	full := &change.Refusal{Problem: "no room for it"}
	c := r.consumer(func(o *kafkasource.Options) {
		o.Keep = func(_ context.Context, record *kgo.Record, reason error) error {
			kept = append(kept, record.Offset)
			if len(kept) < 3 {
				return full
			}
			return nil
		}
		o.Holding = func(reason string) {
			if len(holding) == 0 || holding[len(holding)-1] != reason {
				holding = append(holding, reason)
			}
		}
	})
	c.begin(2)
	c.want(fmt.Sprintf("0 insert %s in 700 to 1", ids[0]), "0 commit in 700 cut to 1")
	for xid := 700; len(kept) < 2; xid++ {
		r.send(1, insert(ids[1], xid))
		c.want(fmt.Sprintf("1 insert %s in %d to %d", ids[1], xid, xid-699), fmt.Sprintf("1 commit in %d cut to %d", xid, xid-699))
	}
	c.want("0 undecodable to 2", fmt.Sprintf("0 insert %s in 701 to 3", ids[0]), "0 commit in 701 cut to 3")
	if diff := cmp.Diff([]int64{1, 1, 1}, kept); diff != "" {
		t.Errorf("kept (-want +got):\n%s", diff)
	}
	if len(holding) != 3 || holding[0] != "" || !strings.Contains(holding[1], "no room for it") || holding[2] != "" {
		t.Errorf("held %q", holding)
	}
	if n := strings.Count(c.log.String(), "holding a partition"); n != 1 {
		t.Errorf("said %d times:\n%s", n, c.log)
	}
}

// A schema that was gone for the whole time is not waited for again: a topic with
// many records of it would stand for longer than anybody waits.
func TestASchemaThatIsGoneIsWaitedForOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	r.registry.set(func() (string, error) { return "", kafkasource.ErrNoSchema })
	r.send(0, avro(7), avro(7), avro(7), insert("1", 700))
	c := r.consumer(func(o *kafkasource.Options) { o.NoSchemaMax = 500 * time.Millisecond })
	c.begin(1)
	c.want("0 undecodable to 1")
	began := time.Now()
	c.want("0 undecodable to 2", "0 undecodable to 3", "0 insert 1 in 700 to 4")
	if took := time.Since(began); took > 500*time.Millisecond {
		t.Errorf("took %s for what was known", took)
	}
	// It may be away all the same, and then it has not said so.
	r.registry.set(func() (string, error) { return "", errors.New("no answer") })
	r.send(0, avro(7))
	c.want("0 commit in 700 cut to 4")
	r.eventually("it is held", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if next, err := c.Next(ctx); err == nil {
			t.Fatal(describe(next))
		}
		return strings.Contains(c.log.String(), "no answer")
	})
}

// Without a registry no record in Avro is ever read: that is the configuration, and
// not the registry's being away.
func TestAvroWithoutARegistryIsARefusal(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	r.registry.set(func() (string, error) { return "", &change.Refusal{Problem: "no registry", Mend: "set one"} })
	r.send(0, avro(7))
	c := r.consumer()
	c.begin(1)
	if next, err := c.Next(c.within(10 * time.Second)); !change.IsRefusal(err) {
		t.Fatalf("%v, %v; want a refusal", next, err)
	}
}

// Of a deleted row in another database neither the delete nor its tombstone concerns
// an entry, though a tombstone with a plain key does not say whose it is.
func TestATombstoneOfAnotherDatabase(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	deleted := row("d", "1", 700, "other")
	deleted.Key = []byte(`{"id":"1"}`)
	r.send(0, deleted, kgo.Record{Key: deleted.Key}, insert("1", 701))
	c := r.consumer()
	c.begin(1)
	c.want("0 insert 1 in 701 to 3")
}

// A schema that cannot be had holds its partition and no other. Whoever collects
// what comes is told when nothing more does.
func TestAnUnknownSchemaHoldsItsPartitionOnly(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	ids := []string{placed(0, 2), placed(1, 2)}
	r.send(0, insert(ids[0], 700), avro(7))
	c := r.consumer()
	c.begin(2)
	insertOf := func(partition, xid, to int) []string {
		return []string{fmt.Sprintf("%d insert %s in %d to %d", partition, ids[partition], xid, to), fmt.Sprintf("%d commit in %d cut to %d", partition, xid, to)}
	}
	c.want(insertOf(0, 700, 1)...)
	// Long enough for both to be at hand at once: the record, and another try.
	began := time.Now()
	for xid := 701; time.Since(began) < 2500*time.Millisecond; xid++ {
		r.send(1, insert(ids[1], xid))
		c.wantBehindIdles(insertOf(1, xid, xid-700)...)
		c.wantFlushed()
	}
	r.registry.set(func() (string, error) { return `"string"`, nil })
	c.wantBehindIdles("0 undecodable to 2")
	r.send(0, insert(ids[0], 710))
	c.wantBehindIdles(insertOf(0, 710, 3)...)
}

// wantBehindIdles demands changes, among which a held partition may say that it
// stands where it stood.
func (c *consumer) wantBehindIdles(want ...string) {
	c.t.Helper()
	for len(want) > 0 {
		next, err := c.Next(c.within(10 * time.Second))
		if err != nil {
			c.t.Fatalf("%v, want %q\n%s", err, want[0], c.log)
		}
		if next.Op == change.Idle {
			continue
		}
		if got := describe(next); got != want[0] {
			c.t.Fatalf("%q, want %q", got, want[0])
		}
		want = want[1:]
	}
}

// wantFlushed demands that a reader who goes on while something is pending is not
// left waiting with what it has: either nothing is pending, or Next returns.
func (c *consumer) wantFlushed() {
	c.t.Helper()
	for c.Pending() {
		if _, err := c.Next(c.within(5 * time.Second)); err != nil {
			c.t.Fatalf("pending, and nothing came: %v", err)
		}
	}
}

// Nobody commits what was not confirmed, and what we commit can be told from what
// a person did.
func TestOnlyWhatWasConfirmedIsCommitted(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	r.send(0, insert("1", 700), insert("2", 701), insert("3", 702))
	c := r.consumer()
	c.begin(1)
	c.want("0 insert 1 in 700 to 1", "0 commit in 700 to 1", "0 insert 2 in 701 to 2")
	if at, _ := r.committed(0); at != -1 {
		t.Fatalf("committed %d, with nothing confirmed", at)
	}
	// Whatever is committed from here on is what is confirmed: the first is that.
	first := make(chan int64, 1)
	r.cluster.ControlKey(int16(kmsg.OffsetCommit), func(request kmsg.Request) (kmsg.Response, error, bool) {
		select {
		case first <- request.(*kmsg.OffsetCommitRequest).Topics[0].Partitions[0].Offset:
		default: // a later one
		}
		return nil, nil, false
	})
	c.Confirm(0, change.Position{Timeline: change.Offsets, LSN: 1})
	if at := <-first; at != 1 {
		t.Fatalf("committed %d first, and 1 is confirmed", at)
	}
	r.eventually("it is committed", func() bool { at, by := r.committed(0); return at == 1 && by == "unstale" })
	c.attach(1)
	if st := c.at.Streams[0]; st.Rewound || st.Begin.LSN != 1 || st.Confirmed.LSN != 0 || st.End.LSN != 3 || st.Gap != "" {
		t.Errorf("attached to %+v", st)
	}
	c.Confirm(0, change.Position{Timeline: change.Offsets, LSN: 2})
	if err := c.Close(r.within(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if at, _ := r.committed(0); at != 2 {
		t.Errorf("committed %d at the end, want what was confirmed last", at)
	}
}

// Offsets that a person has set mean something: back, it is to be given again;
// forward, what lies between is lost; beyond the end, the topic is not what it was.
func TestOffsetsThatAPersonHasSet(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		offset  int64
		begin   uint64
		rewound bool
		gap     bool
	}{
		{"back", 1, 1, true, false},
		{"to the end", 3, 3, true, false},
		{"beyond the end", 9, 3, false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, 1)
			r.send(0, insert("1", 700), insert("2", 701), insert("3", 702))
			var offsets kadm.Offsets
			offsets.Add(kadm.Offset{Topic: topic, Partition: 0, At: test.offset, LeaderEpoch: -1})
			if _, err := r.admin.CommitOffsets(r.within(5*time.Second), group, offsets); err != nil {
				t.Fatal(err)
			}
			c := r.consumer()
			c.attach(1)
			if st := c.at.Streams[0]; st.Begin.LSN != test.begin || st.Rewound != test.rewound || (st.Gap != "") != test.gap {
				t.Errorf("attached to %+v", st)
			}
		})
	}
}

// reader reads a consumer until it ends, as the loop does.
type reader struct {
	changes chan string
	err     chan error
}

func (c *consumer) read() reader {
	r := reader{make(chan string, 1000), make(chan error, 1)}
	ctx := c.within(time.Minute)
	go func() {
		for {
			next, err := c.Next(ctx)
			if err != nil {
				r.err <- err
				return
			}
			r.changes <- describe(next)
		}
	}()
	return r
}

// When another instance comes, the streams are others for both. Nobody has a
// partition before who had it has let go of it.
func TestAnInstanceThatJoins(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	r.send(0, insert("1", 700))
	first, second := r.consumer(), r.consumer()
	first.begin(2)
	reading := first.read()
	if got := <-reading.changes; got != "0 insert 1 in 700 again to 1" {
		t.Fatal(got)
	}
	took := make(chan struct{})
	go func() {
		second.attach(1)
		close(took)
	}()
	if err := <-reading.err; !errors.Is(err, change.ErrReassigned) {
		t.Fatalf("ended with %v, want %v", err, change.ErrReassigned)
	}
	first.Confirm(0, change.Position{Timeline: change.Offsets, LSN: 1})
	select {
	case <-took:
		t.Fatal("the second has a partition that the first still writes to")
	case <-time.After(500 * time.Millisecond):
	}
	first.attach(1)
	<-took
	if a, b := first.at.Streams[0].Name, second.at.Streams[0].Name; a == b {
		t.Errorf("both have %s", a)
	}
	if at, _ := r.committed(0); at != 1 {
		t.Errorf("committed %d, want what was confirmed before it was given away", at)
	}
}

// An instance for which there is no partition stands by, and takes over when
// another leaves.
func TestAnInstanceStandsByWhileTheGroupHasNothingForIt(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	first, second := r.consumer(), r.consumer()
	first.begin(1)
	reading := first.read()
	// Who is second is the group's choice.
	for range 3 {
		if _, err := second.Attach(r.within(10 * time.Second)); err == nil {
			<-reading.err
			first, second = second, first
			break
		} else if !errors.Is(err, change.ErrInUse) && !errors.Is(err, change.ErrUnassigned) {
			t.Fatal(err)
		}
	}
	if _, err := second.Attach(r.within(10 * time.Second)); !errors.Is(err, change.ErrInUse) && !errors.Is(err, change.ErrUnassigned) {
		t.Fatalf("%v, want %v", err, change.ErrInUse)
	}
	if err := first.Close(r.within(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	second.attach(1)
}

// Where a topic has got another partition no key is where it was. That concerns
// those too who keep what they had.
func TestAPartitionIsAdded(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	both := []*consumer{r.consumer(), r.consumer()}
	both[0].begin(2)
	reading := both[0].read()
	began := make(chan struct{})
	go func() {
		both[1].begin(1)
		close(began)
	}()
	<-reading.err
	both[0].begin(1)
	<-began
	readings := []reader{both[0].read(), both[1].read()}
	if _, err := r.admin.CreatePartitions(r.within(5*time.Second), 1, topic); err != nil {
		t.Fatal(err)
	}
	// Whoever lets go waits for what is theirs now.
	attaching, endAttaching := context.WithCancel(t.Context())
	var letGo sync.WaitGroup
	defer letGo.Wait()
	defer endAttaching()
	// The clients look for new partitions now and then.
	deadline := time.After(25 * time.Second)
	for i := range both {
		select {
		case err := <-readings[i].err:
			if !errors.Is(err, change.ErrReassigned) {
				t.Fatal(err)
			}
			letGo.Go(func() { both[i].Attach(attaching) })
		case <-deadline:
			t.Fatalf("%d goes on as if nothing had happened", i)
		}
	}
}

// A key has moved as soon as its topic has another partition, whenever the client
// has last looked.
func TestAPartitionWasAddedJustNow(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	c := r.consumer()
	c.begin(2)
	if _, err := r.admin.CreatePartitions(r.within(5*time.Second), 1, topic); err != nil {
		t.Fatal(err)
	}
	c.begin(2) // the group has not noticed yet
	stays, moves := "", ""
	for n := 0; stays == "" || moves == ""; n++ {
		switch id := fmt.Sprint(n); {
		case partitionOf(id, 2) != 0:
		case partitionOf(id, 3) == 0:
			stays = id
		default:
			moves = id
		}
	}
	r.send(0, insert(stays, 700))
	c.want("0 insert "+stays+" in 700 to 1", "0 commit in 700 cut to 1")
	r.send(0, insert(moves, 701))
	c.want("0 insert " + moves + " in 701 again to 2")
}

// What retention has taken away is an error where it is met, and shows at the next
// attachment.
func TestRetentionHasPassedTheReader(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	r.send(0, insert("1", 700), insert("2", 701), insert("3", 702))
	var offsets kadm.Offsets
	offsets.Add(kadm.Offset{Topic: topic, Partition: 0, At: 2})
	if _, err := r.admin.DeleteRecords(r.within(5*time.Second), offsets); err != nil {
		t.Fatal(err)
	}
	c := r.consumer()
	c.attach(1)
	if err := c.Resume(t.Context(), []change.Position{{Timeline: change.Offsets, LSN: 1}}); err != nil {
		t.Fatal(err)
	}
	if next, err := c.Next(r.within(10 * time.Second)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%v, %v; want an error of the broker", next, err)
	}
	c.begin(1)
	if st := c.at.Streams[0]; st.Confirmed.LSN != 2 {
		t.Errorf("attached to %+v", st)
	}
	c.want("0 insert 3 in 702 to 3")
}

// A topic that was made anew is another stream, whatever its name.
func TestATopicIsMadeAnew(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	r.send(0, insert("1", 700))
	c := r.consumer()
	c.begin(1)
	before := c.at.Streams[0].Name
	reading := c.read()
	<-reading.changes
	if _, err := r.admin.DeleteTopics(r.within(5*time.Second), topic); err != nil {
		t.Fatal(err)
	}
	if _, err := r.admin.CreateTopics(r.within(5*time.Second), 1, 1, nil, topic); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-reading.err:
		if errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		t.Log(err)
	case <-time.After(30 * time.Second):
		t.Fatal("it reads on as if nothing had happened")
	}
	r.eventually("it is another stream", func() bool {
		at, err := c.Attach(r.within(10 * time.Second))
		return err == nil && len(at.Streams) == 1 && at.Streams[0].Name != before && at.Streams[0].Begin.LSN == 0
	})
	r.producer = r.client(kgo.RecordPartitioner(kgo.ManualPartitioner())) // the other knows the topic that was
	r.send(0, insert("2", 701))
	c.begin(1)
	c.want("0 insert 2 in 701 to 1", "0 commit in 701 cut to 1")
	c.Confirm(0, change.Position{Timeline: change.Offsets, LSN: 1})
	r.eventually("it is committed", func() bool { at, _ := r.committed(0); return at == 1 })
}

// A commit that a broker has refused is made again, though nothing more comes.
func TestARefusedCommitIsMadeAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	r.send(0, insert("1", 700))
	c := r.consumer()
	c.begin(1)
	c.want("0 insert 1 in 700 to 1", "0 commit in 700 cut to 1")
	refused := make(chan struct{})
	r.cluster.ControlKey(int16(kmsg.OffsetCommit), func(request kmsg.Request) (kmsg.Response, error, bool) {
		reply := request.ResponseKind().(*kmsg.OffsetCommitResponse)
		for _, topic := range request.(*kmsg.OffsetCommitRequest).Topics {
			answer := kmsg.OffsetCommitResponseTopic{Topic: topic.Topic, TopicID: topic.TopicID}
			for _, p := range topic.Partitions {
				answer.Partitions = append(answer.Partitions, kmsg.OffsetCommitResponseTopicPartition{Partition: p.Partition, ErrorCode: kerr.RebalanceInProgress.Code})
			}
			reply.Topics = append(reply.Topics, answer)
		}
		close(refused)
		return reply, nil, true
	})
	c.Confirm(0, change.Position{Timeline: change.Offsets, LSN: 1})
	<-refused
	r.eventually("it is committed", func() bool { at, _ := r.committed(0); return at == 1 })
}

// An instance that was frozen does not know that the group has given its partitions
// to others. It asks before it takes them over, and joins again.
func TestWhoTheGroupHasGivenUpTakesNothingOver(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	r.send(0, insert("1", 700))
	c := r.consumer()
	c.begin(1)
	groups, err := r.admin.DescribeGroups(r.within(5*time.Second), group)
	if err != nil {
		t.Fatal(err)
	}
	request := kmsg.NewPtrLeaveGroupRequest()
	request.Group = group
	for _, m := range groups[group].Members {
		request.MemberID = m.MemberID
		member := kmsg.NewLeaveGroupRequestMember()
		member.MemberID = m.MemberID
		request.Members = append(request.Members, member)
	}
	if _, err := request.RequestWith(r.within(5*time.Second), r.producer); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if at, err := c.Attach(r.within(10 * time.Second)); err == nil {
		// A heartbeat may have been quicker: then it has joined again.
		now, err := r.admin.DescribeGroups(r.within(5*time.Second), group)
		if err != nil || len(now[group].Members) == 0 || now[group].Members[0].MemberID == request.MemberID {
			t.Fatalf("%+v, as member %q of %+v, %v", at, request.MemberID, now[group].Members, err)
		}
	} else if !errors.Is(err, change.ErrUnassigned) {
		t.Fatal(err)
	}
	c.begin(1)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("joined again after %s", took)
	}
	c.want("0 insert 1 in 700 to 1")
}

// Without a broker an instance does not stand by for another one: it is cut off, and
// that is an error.
func TestNoBrokerIsNoStandby(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	c := r.consumer()
	c.begin(1)
	reading := c.read()
	r.cluster.Close()
	select {
	case err := <-reading.err:
		t.Log(err)
	case <-time.After(30 * time.Second):
		t.Fatal("it reads on")
	}
	if _, err := c.Attach(r.within(20 * time.Second)); err == nil || errors.Is(err, change.ErrInUse) || errors.Is(err, change.ErrUnassigned) || errors.Is(err, context.DeadlineExceeded) && r.t.Context().Err() != nil {
		t.Errorf("got %v", err)
	}
}

// A user who may not join the group is told so, and what lets him, before anybody has
// waited for long.
func TestWhoMayNotJoinIsTold(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		refused *kerr.Error
		want    string
	}{{kerr.GroupAuthorizationFailed, "--group " + group}, {kerr.InvalidSessionTimeout, "source.kafka.session_timeout"}} {
		t.Run(test.refused.Message, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 1)
			r.cluster.ControlKey(int16(kmsg.JoinGroup), func(request kmsg.Request) (kmsg.Response, error, bool) {
				r.cluster.KeepControl()
				reply := request.ResponseKind().(*kmsg.JoinGroupResponse)
				reply.ErrorCode = test.refused.Code
				return reply, nil, true
			})
			c := r.consumer()
			at, err := c.Attach(r.within(10 * time.Second))
			if !change.IsRefusal(err) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%+v, %v; want a refusal with %q", at, err, test.want)
			}
		})
	}
}
