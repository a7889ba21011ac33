package kafkasource_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/kafkasource"
)

// Who looks on finds every partition, under the name that its watermark has,
// whoever of the group has it. A topic that is not there yet has none.
func TestStandingsAreThoseOfEveryPartition(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	r.send(1, insert(placed(1, 3), 700))
	options := kafkasource.Options{
		Client: []kgo.Opt{kgo.SeedBrokers(r.cluster.ListenAddrs()...)},
		Group:  group, Topics: []string{topic, "cdc.public.absent"},
	}
	look := func() (streams []change.Stream, consumed bool) {
		t.Helper()
		found, consumed, err := kafkasource.Standings(r.within(10*time.Second), options)
		if err != nil {
			t.Fatal(err)
		}
		for i, s := range found {
			if s.Topic != topic || s.Partition != int32(i) {
				t.Errorf("number %d is partition %d of %s", i, s.Partition, s.Topic)
			}
			streams = append(streams, s.Stream)
		}
		return streams, consumed
	}
	if _, consumed := look(); consumed {
		t.Error("somebody reads, before anybody does")
	}
	c := r.consumer()
	c.begin(3)
	for _, options.Pattern = range []bool{false, true} {
		if options.Pattern {
			options.Topics = []string{`^cdc\.public\.`}
		}
		got, consumed := look()
		if diff := cmp.Diff(c.at.Streams, got); diff != "" || !consumed {
			t.Errorf("pattern %v: somebody reads: %v; streams (-attached +found):\n%s", options.Pattern, consumed, diff)
		}
	}
	options.Topics = []string{"^nothing$"}
	if got, _ := look(); len(got) > 0 {
		t.Errorf("found %v", got)
	}
	r.cluster.Close()
	if _, _, err := kafkasource.Standings(r.within(time.Second), options); err == nil || !strings.Contains(err.Error(), "reach the brokers") {
		t.Errorf("without a broker: %v", err)
	}
}

// Where the topics end is told of every partition, also of those that another
// instance of the group has, and of those that nobody has yet: a barrier that leaves
// one out proves nothing. Under the name of a topic that was made anew stand other
// streams.
func TestEndsAreOfEveryPartitionOfTheGroup(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	absent := func(o *kafkasource.Options) { o.Topics = append(o.Topics, "cdc.public.absent") }
	c, other := r.consumer(absent), r.consumer(absent)
	if _, err := c.Ends(r.within(time.Second)); err == nil {
		t.Error("it told of topics before it was attached")
	}
	c.attach(3)
	go func() { _, _ = other.Attach(r.within(20 * time.Second)) }()
	r.eventually("the other has a partition", func() bool {
		select {
		case <-c.at.Reassigned:
			return true
		default:
			return false
		}
	})
	r.send(2, insert(placed(2, 3), 700), insert(placed(2, 3), 701))
	ends := func(consumer *consumer) map[string]change.Position {
		t.Helper()
		ends, err := consumer.Ends(r.within(10 * time.Second))
		if err != nil {
			t.Fatal(err)
		}
		return ends
	}
	found := ends(c)
	want := map[string]change.Position{}
	for i, st := range c.at.Streams {
		want[st.Name] = change.Position{Timeline: change.Offsets, LSN: []uint64{0, 0, 2}[i]}
	}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Errorf("ends (-want +got):\n%s", diff)
	}
	if _, err := r.admin.CreatePartitions(r.within(5*time.Second), 1, topic); err != nil {
		t.Fatal(err)
	}
	// It may not know at once where that one ends; it never leaves it out.
	r.eventually("the end of a partition that was added is told", func() bool {
		grown, err := c.Ends(r.within(5 * time.Second))
		if err == nil && len(grown) != 4 {
			t.Fatalf("a partition was added, and there are %v", grown)
		}
		return err == nil
	})
	pattern := r.consumer(func(o *kafkasource.Options) { o.Topics, o.Pattern, o.Group = []string{`^cdc\.`}, true, "pattern" })
	pattern.attach(4)
	if named := ends(pattern); len(named) != 4 {
		t.Errorf("by a pattern: %v", named)
	}
	if _, err := r.admin.DeleteTopic(r.within(5*time.Second), topic); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Ends(r.within(5 * time.Second)); err == nil {
		t.Error("without any topic it told where they end")
	}
	if _, err := r.admin.CreateTopic(r.within(5*time.Second), 3, 1, nil, topic); err != nil {
		t.Fatal(err)
	}
	for name := range ends(c) {
		if _, same := found[name]; same {
			t.Errorf("%s is of the topic before", name)
		}
	}
}
