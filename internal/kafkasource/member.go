package kafkasource

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// commitEvery is how often offsets are committed, if there is anything new.
	commitEvery = 250 * time.Millisecond
	// letGoMax is how long a rebalance waits until what was read of a partition
	// that goes away is written. After that the next owner fences us in Redis.
	letGoMax = 20 * time.Second
	// requestMax bounds one question to the brokers.
	requestMax = 10 * time.Second
	// metadataMax is how old what we know of topics may be: a new partition is
	// found within that time.
	metadataMax = 10 * time.Second
)

// committedByUs is the metadata of the offsets that we commit. An offset without
// it was set by a person or by another tool.
const committedByUs = "unstale"

// A place is one partition of one topic.
type place struct {
	topic  string
	number int32
}

// A member takes part in the consumer group. It fetches nothing: which partitions
// are ours is the group's matter, where they are read from is Redis'.
type member struct {
	client *kgo.Client
	admin  *kadm.Client
	group  string

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

	woken chan struct{}
	stop  context.CancelFunc
	done  chan struct{}
}

func newMember(options []kgo.Opt, group, instance string, sessionTimeout time.Duration) (*member, error) {
	m := &member{
		group:    group,
		assigned: map[place]bool{},
		leaving:  map[place]bool{},
		changed:  make(chan struct{}),
		due:      map[place]int64{},
		woken:    make(chan struct{}, 1),
		done:     make(chan struct{}),
	}
	options = append(slices.Clone(options),
		kgo.ConsumerGroup(group),
		kgo.SessionTimeout(sessionTimeout),
		kgo.HeartbeatInterval(sessionTimeout/3),
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
	m.joined = true
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
}

// lose takes partitions away that another instance may have already.
func (m *member) lose(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
	m.remove(lost, false)
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
	slices.SortFunc(ours, func(a, b place) int {
		if a.topic != b.topic {
			return cmp.Compare(a.topic, b.topic)
		}
		return cmp.Compare(a.number, b.number)
	})
	if len(ours) > 0 {
		m.letGo = make(chan struct{})
	}
	return ours, m.changed, m.joined
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
		}
	}
}

// commit tells the group what is due. What it refuses is told again by a later
// confirmation, of whoever has the partition then: Redis knows how far it is.
func (m *member) commit(ctx context.Context) {
	m.mu.Lock()
	offsets := map[string]map[int32]kgo.EpochOffset{}
	for p, offset := range m.due {
		if offsets[p.topic] == nil {
			offsets[p.topic] = map[int32]kgo.EpochOffset{}
		}
		offsets[p.topic][p.number] = kgo.EpochOffset{Epoch: -1, Offset: offset}
	}
	clear(m.due)
	m.mu.Unlock()
	if len(offsets) == 0 {
		return
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
	m.client.CommitOffsetsSync(ctx, offsets, func(*kgo.Client, *kmsg.OffsetCommitRequest, *kmsg.OffsetCommitResponse, error) {})
}

// A standing is where one partition begins and ends, and what the group has
// committed.
type standing struct {
	place
	topicID    [16]byte
	partitions int // of the topic
	start, end int64
	committed  int64 // -1: nothing
	byUs       bool
}

// look asks the brokers about partitions.
func (m *member) look(ctx context.Context, places []place) ([]standing, error) {
	ctx, cancel := context.WithTimeout(ctx, requestMax)
	defer cancel()
	var topics []string
	for _, p := range places {
		if !slices.Contains(topics, p.topic) {
			topics = append(topics, p.topic)
		}
	}
	details, err := m.admin.ListTopics(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("ask for the topics: %w", err)
	}
	starts, err := m.admin.ListStartOffsets(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("ask where the topics begin: %w", err)
	}
	ends, err := m.admin.ListEndOffsets(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("ask where the topics end: %w", err)
	}
	committed, err := m.admin.FetchOffsets(ctx, m.group)
	if err != nil {
		return nil, fmt.Errorf("ask for the offsets of group %s: %w", m.group, err)
	}
	standings := make([]standing, len(places))
	for i, p := range places {
		s := standing{place: p, committed: -1}
		detail := details[p.topic]
		start, known := starts.Lookup(p.topic, p.number)
		end, ends := ends.Lookup(p.topic, p.number)
		switch {
		case detail.Err != nil:
			return nil, fmt.Errorf("ask for topic %s: %w", p.topic, detail.Err)
		case !known || !ends:
			return nil, fmt.Errorf("ask for partition %d of %s: %w", p.number, p.topic, kerr.UnknownTopicOrPartition)
		case start.Err != nil:
			return nil, fmt.Errorf("ask where partition %d of %s begins: %w", p.number, p.topic, start.Err)
		case end.Err != nil:
			return nil, fmt.Errorf("ask where partition %d of %s ends: %w", p.number, p.topic, end.Err)
		}
		s.topicID, s.partitions = [16]byte(detail.ID), len(detail.Partitions)
		s.start, s.end = start.Offset, end.Offset
		if at, ok := committed.Lookup(p.topic, p.number); ok && at.Err == nil && at.At >= 0 {
			s.committed, s.byUs = at.At, at.Metadata == committedByUs
		}
		standings[i] = s
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
