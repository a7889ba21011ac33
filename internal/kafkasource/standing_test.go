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
