package kafkasource

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/unstale/unstale/internal/change"
)

const (
	// commitEvery is how often offsets are committed, if there is anything new.
	commitEvery = 250 * time.Millisecond
	// letGoMax is how long a rebalance waits until what was read of a partition
	// that goes away is written. After that the next owner fences us in Redis.
	letGoMax = 20 * time.Second
	// heartbeatEvery is how often, at least, a member asks what the group is about. One
	// that is dead is missed when its session has ended; then the others hear of that
	// with their next heartbeat.
	heartbeatEvery = 500 * time.Millisecond
	// requestMax bounds one question to the brokers.
	requestMax = 10 * time.Second
	// metadataMax is how old what we know of topics may be: a new partition is
	// found within that time.
	metadataMax = 10 * time.Second
)

// committedByUs is the metadata of the offsets that we commit. An offset without
// it was set by a person or by another tool.
const committedByUs = "unstale"

// A member takes part in the consumer group. It fetches nothing: which partitions
// are ours is the group's matter, where they are read from is Redis'.
type member struct {
	client *kgo.Client
	admin  *kadm.Client
	group  string
	// instance is the name of a static member.
	instance string

	mu       sync.Mutex
	assigned map[place]bool
	// leaving are those of which what was read is still being written.
	leaving map[place]bool
	// joined: the group has said at least once what is ours, if only nothing.
	joined bool
	// changed is closed when assigned is no longer what taken was given.
	changed chan struct{}
	// letGo is closed when nothing that was read is still on its way; nil if
	// nobody reads.
	letGo chan struct{}
	// due are the offsets to be committed.
	due map[place]int64
	// refused is what the brokers have said last in place of giving us something.
	refused error
	// ids are those of the topics, as they were when they were first looked at.
	ids map[string]kadm.TopicID

	woken chan struct{}
	stop  context.CancelFunc
	done  chan struct{}
}

func newMember(options []kgo.Opt, group, instance string, sessionTimeout time.Duration) (*member, error) {
	m := &member{
		group:    group,
		instance: instance,
		assigned: map[place]bool{},
		leaving:  map[place]bool{},
		changed:  make(chan struct{}),
		due:      map[place]int64{},
		ids:      map[string]kadm.TopicID{},
		woken:    make(chan struct{}, 1),
		done:     make(chan struct{}),
	}
	options = append(slices.Clone(options),
		kgo.ConsumerGroup(group),
		kgo.SessionTimeout(sessionTimeout),
		kgo.HeartbeatInterval(min(sessionTimeout/3, heartbeatEvery)),
		kgo.RebalanceTimeout(2*letGoMax),
		kgo.DisableAutoCommit(),
		kgo.MetadataMaxAge(metadataMax),
		kgo.OnPartitionsAssigned(m.add),
		kgo.OnPartitionsRevoked(m.revoke),
		kgo.OnPartitionsLost(m.lose),
	)
	if instance != "" {
		options = append(options, kgo.InstanceID(instance))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return nil, err
	}
	m.client, m.admin = client, kadm.NewClient(client)
	ctx, cancel := context.WithCancel(context.Background())
	m.stop = cancel
	go m.commitAll(ctx)
	return m, nil
}

// add is called by the group, in its own goroutine.
func (m *member) add(_ context.Context, client *kgo.Client, added map[string][]int32) {
	client.PauseFetchPartitions(added)
	m.mu.Lock()
	defer m.mu.Unlock()
	for topic, numbers := range added {
		for _, number := range numbers {
			m.assigned[place{topic, number}] = true
		}
	}
	m.joined, m.refused = true, nil
	// Also if nothing is new for us: the group may have come together because a topic
	// has another partition, and then no key of it is where it was.
	m.change()
	select {
	case m.woken <- struct{}{}:
	default:
	}
}

// revoke takes partitions away, and returns when what was read of them is in
// Redis and committed: then another instance may have them.
func (m *member) revoke(ctx context.Context, _ *kgo.Client, revoked map[string][]int32) {
	letGo := m.remove(revoked, true)
	if letGo != nil {
		select {
		case <-letGo:
		case <-ctx.Done():
		case <-time.After(letGoMax):
		}
	}
	m.commit(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.leaving)
	m.forget()
}

// lose takes partitions away that another instance may have already. What the group
// gives is not known then: perhaps there is no broker to ask.
func (m *member) lose(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
	m.remove(lost, false)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.joined = false
	m.forget()
}

// forget has no offset committed of what is not ours: whoever has it now is further.
func (m *member) forget() {
	maps.DeleteFunc(m.due, func(p place, _ int64) bool { return !m.assigned[p] && !m.leaving[p] })
}

func (m *member) remove(removed map[string][]int32, leaving bool) (letGo chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	found := false
	for topic, numbers := range removed {
		for _, number := range numbers {
			p := place{topic, number}
			found = found || m.assigned[p]
			delete(m.assigned, p)
			if leaving {
				m.leaving[p] = true
			}
		}
	}
	if !found {
		return nil
	}
	m.change()
	return m.letGo
}

func (m *member) change() {
	select {
	case <-m.changed:
	default:
		close(m.changed)
	}
}

// take returns what is ours, in a fixed order, and a channel that is closed when
// something else is. Whoever took it before has let go of it.
func (m *member) take() (ours []place, changed <-chan struct{}, joined bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changed = make(chan struct{})
	for p := range m.assigned {
		ours = append(ours, p)
	}
	slices.SortFunc(ours, place.compare)
	if len(ours) > 0 {
		m.letGo = make(chan struct{})
	}
	return ours, m.changed, m.joined
}

// ping asks whether any broker answers.
func (m *member) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingEvery)
	defer cancel()
	return m.client.Ping(ctx)
}

// present asks the group whether it counts this instance in. One that was frozen
// for longer than its session finds that out with its next heartbeat; until then it
// would take streams over that others have.
func (m *member) present(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, requestMax)
	defer cancel()
	id, generation := m.client.GroupMetadata()
	request := kmsg.NewPtrHeartbeatRequest()
	request.Group, request.MemberID, request.Generation = m.group, id, generation
	if m.instance != "" {
		request.InstanceID = &m.instance
	}
	reply, err := request.RequestWith(ctx, m.client)
	if err != nil {
		return false, fmt.Errorf("ask group %s whether this instance is in: %w", m.group, err)
	}
	switch err := kerr.ErrorForCode(reply.ErrorCode); {
	case err == nil, errors.Is(err, kerr.RebalanceInProgress):
		return true, nil
	case errors.Is(err, kerr.UnknownMemberID):
		if id != "" {
			m.client.ForceRebalance() // joins again, before the next heartbeat would
		}
		return false, nil
	case errors.Is(err, kerr.IllegalGeneration), errors.Is(err, kerr.FencedInstanceID):
		return false, nil // the answer of the group is on its way
	default:
		return false, fmt.Errorf("ask group %s whether this instance is in: %w", m.group, err)
	}
}

// release says that nothing that was read is on its way any more.
func (m *member) release() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.letGo != nil {
		close(m.letGo)
		m.letGo = nil
	}
}

// confirm has an offset committed soon, if the partition is still ours.
func (m *member) confirm(p place, offset int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.assigned[p] || m.leaving[p] {
		m.due[p] = offset
	}
}

// commitAll commits what is confirmed until ctx ends.
func (m *member) commitAll(ctx context.Context) {
	defer close(m.done)
	tick := time.NewTicker(commitEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			m.commit(ctx)
			m.listen()
		}
	}
}

// listen takes what the client has to say beside records, of which it fetches none. It
// keeps it until somebody asks.
func (m *member) listen() {
	var atHand context.Context // none: it waits for nothing
	for _, failed := range m.client.PollFetches(atHand).Errors() {
		err := failed.Err
		if failed.Topic != "" {
			err = fmt.Errorf("topic %s: %w", failed.Topic, err)
		}
		m.mu.Lock()
		m.refused = err
		m.mu.Unlock()
	}
}

// refusal is what the brokers have said last in place of giving us something, nil if
// nothing. What only a person can mend is a *change.Refusal.
func (m *member) refusal() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case errors.Is(m.refused, kerr.GroupAuthorizationFailed):
		return &change.Refusal{
			Problem: fmt.Sprintf("this user may not join group %s: %v", m.group, m.refused),
			Mend:    allowGroup(m.group),
		}
	case errors.Is(m.refused, kerr.InvalidSessionTimeout):
		return &change.Refusal{
			Problem: fmt.Sprintf("the brokers do not accept the session timeout of group %s: %v", m.group, m.refused),
			Mend:    "set source.kafka.session_timeout between group.min.session.timeout.ms and group.max.session.timeout.ms of the brokers",
		}
	}
	return m.refused
}

// commit tells the group what is due. What it cannot take now is due still.
func (m *member) commit(ctx context.Context) {
	m.mu.Lock()
	due := m.due
	m.due = map[place]int64{}
	m.mu.Unlock()
	if len(due) == 0 {
		return
	}
	offsets := map[string]map[int32]kgo.EpochOffset{}
	for p, offset := range due {
		if offsets[p.topic] == nil {
			offsets[p.topic] = map[int32]kgo.EpochOffset{}
		}
		offsets[p.topic][p.number] = kgo.EpochOffset{Epoch: -1, Offset: offset}
	}
	ctx, cancel := context.WithTimeout(ctx, requestMax)
	defer cancel()
	ctx = kgo.PreCommitFnContext(ctx, func(request *kmsg.OffsetCommitRequest) error {
		ours := committedByUs
		for i := range request.Topics {
			for j := range request.Topics[i].Partitions {
				request.Topics[i].Partitions[j].Metadata = &ours
			}
		}
		return nil
	})
	m.client.CommitOffsetsSync(ctx, offsets, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, reply *kmsg.OffsetCommitResponse, err error) {
		if err == nil {
			for _, topic := range reply.Topics {
				for _, partition := range topic.Partitions {
					refused := kerr.ErrorForCode(partition.ErrorCode)
					if refused == nil || !errors.Is(refused, kerr.RebalanceInProgress) && !kerr.IsRetriable(refused) {
						delete(due, place{topic.Topic, partition.Partition})
					}
				}
			}
		}
		m.remind(due)
	})
}

// remind has offsets committed later, but for those that something newer was
// confirmed of meanwhile, and those of others.
func (m *member) remind(due map[place]int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for p, offset := range due {
		if _, newer := m.due[p]; !newer && (m.assigned[p] || m.leaving[p]) {
			m.due[p] = offset
		}
	}
}

// errMadeAnew says that a topic is another one under its name. A client holds on to
// the one that it knew, and commits nothing of the new one.
var errMadeAnew = errors.New("a topic was deleted and made anew")

// look asks the brokers about partitions.
func (m *member) look(ctx context.Context, places []place) ([]standing, error) {
	standings, err := look(ctx, m.client, m.group, places)
	if err != nil {
		return nil, err
	}
	for _, s := range standings {
		if known, ok := m.ids[s.topic]; ok && known != s.topicID {
			return nil, errMadeAnew
		}
		m.ids[s.topic] = s.topicID
	}
	return standings, nil
}

// close leaves the group.
func (m *member) close(ctx context.Context) {
	m.release()
	m.commit(ctx)
	m.stop()
	<-m.done
	m.client.CloseAllowingRebalance()
}
