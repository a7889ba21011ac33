package kafkasource

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Offsets of what the group has taken away are not committed later, when it has come
// together again: whoever has it now is further.
func TestWhatIsTakenAwayIsNotCommittedLater(t *testing.T) {
	kept, taken := place{"users", 0}, place{"users", 1}
	unreachable, err := kgo.NewClient(kgo.SeedBrokers("127.0.0.1:1"))
	if err != nil {
		t.Fatal(err)
	}
	defer unreachable.Close()
	ended, end := context.WithCancel(t.Context())
	end()
	for name, take := range map[string]func(m *member){
		"lost": func(m *member) { m.lose(ended, nil, map[string][]int32{"users": {1}}) },
		// Its last commit fails.
		"revoked": func(m *member) { m.revoke(ended, nil, map[string][]int32{"users": {1}}) },
	} {
		m := &member{
			client: unreachable, changed: make(chan struct{}), leaving: map[place]bool{},
			assigned: map[place]bool{kept: true, taken: true}, due: map[place]int64{},
		}
		m.confirm(kept, 7)
		m.confirm(taken, 8)
		take(m)
		if diff := cmp.Diff(map[place]int64{kept: 7}, m.due, cmp.AllowUnexported(place{})); diff != "" {
			t.Errorf("%s: due (-want +got):\n%s", name, diff)
		}
	}
}
