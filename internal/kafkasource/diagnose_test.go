package kafkasource_test

import (
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/unstale/unstale/internal/kafkasource"
)

// Whatever makes changes go missing while an instance is away, or keeps it out, is
// said before it happens.
func TestDiagnose(t *testing.T) {
	t.Parallel()
	const short, small, compacted, absent = "short", "small", "compacted", "shop.public.absent"
	operations := func(which ...kmsg.ACLOperation) (mask int32) {
		for _, operation := range which {
			mask |= 1 << operation
		}
		return mask
	}
	for _, test := range []struct {
		name string
		code int16
		may  int32
		want bool
	}{
		{"who may join", 0, operations(kmsg.ACLOperationDescribe, kmsg.ACLOperationRead), false},
		{"who may only look", 0, operations(kmsg.ACLOperationDescribe), true},
		{"who may not even look", kerr.GroupAuthorizationFailed.Code, -1 << 31, true},
		{"a broker that does not say", 0, -1 << 31, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 1)
			for topic, settings := range map[string][2]string{short: {"retention.ms", "60000"}, small: {"retention.bytes", "1000"}, compacted: {"cleanup.policy", "compact"}} {
				if _, err := r.admin.CreateTopic(r.within(5*time.Second), 1, 1, map[string]*string{settings[0]: &settings[1]}, topic); err != nil {
					t.Fatal(err)
				}
			}
			r.cluster.ControlKey(int16(kmsg.DescribeGroups), func(request kmsg.Request) (kmsg.Response, error, bool) {
				reply := request.ResponseKind().(*kmsg.DescribeGroupsResponse)
				g := kmsg.NewDescribeGroupsResponseGroup()
				g.Group, g.ErrorCode, g.AuthorizedOperations = group, test.code, test.may
				reply.Groups = append(reply.Groups, g)
				return reply, nil, true
			})
			problems, err := kafkasource.Diagnose(r.within(10*time.Second), kafkasource.Options{
				Client: []kgo.Opt{kgo.SeedBrokers(r.cluster.ListenAddrs()...)}, Group: group, Topics: []string{topic, short, small, compacted, absent},
			})
			if err != nil {
				t.Fatal(err)
			}
			said := map[string]string{}
			for _, p := range problems {
				said[p.Subject] += p.Text
				if p.Wrong != (p.Subject == "group "+group) {
					t.Errorf("%s is wrong: %v", p.Subject, p.Wrong)
				}
			}
			for subject, text := range map[string]string{"topic " + short: "for 1m0s", "topic " + small: "1000 bytes", "topic " + compacted: "compacted", "topic " + absent: "is not there"} {
				if !strings.Contains(said[subject], text) {
					t.Errorf("%s: %q, want %q", subject, said[subject], text)
				}
			}
			if _, wrong := said["group "+group]; wrong != test.want || said["topic "+topic] != "" {
				t.Errorf("said %q", said)
			}
		})
	}
}
