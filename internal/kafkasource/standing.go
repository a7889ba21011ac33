package kafkasource

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/unstale/unstale/internal/change"
)

// A Standing is a partition as it stands, for who looks on and reads nothing.
type Standing struct {
	change.Stream
	Topic     string
	Partition int32
}

// Standings looks at every partition of the topics of options, in a fixed order, and
// tells whether any instance of the group is there. A topic that is not there yet
// has none. It changes nothing.
func Standings(ctx context.Context, options Options) (found []Standing, consumed bool, err error) {
	client, err := kgo.NewClient(options.Client...)
	if err != nil {
		return nil, false, err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	// One that is away would be asked again for as long as ctx lasts.
	if err := client.Ping(ctx); err != nil {
		return nil, false, fmt.Errorf("reach the brokers: %w", err)
	}
	topics := options.Topics
	if options.Pattern {
		if topics, _, err = matching(ctx, admin, topics); err != nil || len(topics) == 0 {
			return nil, false, err
		}
	}
	details, err := admin.ListTopics(ctx, topics...)
	if err != nil {
		return nil, false, fmt.Errorf("ask for the topics: %w", err)
	}
	var places []place
	for _, topic := range topics {
		for number := range details[topic].Partitions {
			places = append(places, place{topic, number})
		}
	}
	slices.SortFunc(places, place.compare)
	standings, err := look(ctx, client, options.Group, places)
	if err != nil {
		return nil, false, err
	}
	for _, s := range standings {
		found = append(found, Standing{s.stream(options.Group), s.topic, s.number})
	}
	groups, err := admin.DescribeGroups(ctx, options.Group)
	if err != nil {
		return nil, false, fmt.Errorf("ask for group %s: %w", options.Group, err)
	}
	return found, len(groups[options.Group].Members) > 0, nil
}

// Ends says where every partition ends of the topics that are read, by the names of
// their streams: also those that other instances have. What the brokers had
// acknowledged before it was asked stands below, as far as the producer asks for
// acks=all, as Connect does. It may be called from anywhere, between the first Attach
// and Close.
func (s *Source) Ends(ctx context.Context) (map[string]change.Position, error) {
	ctx, cancel := context.WithTimeout(ctx, requestMax)
	defer cancel()
	s.mu.Lock()
	m, topics := s.member, slices.Clone(s.topics)
	s.mu.Unlock()
	if m == nil {
		return nil, errDetached
	}
	found, err := partitionsNow(ctx, m.client, topics, s.options.Pattern)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, errNoTopic
	}
	// Not up to where they are committed: another producer's open transaction may
	// stand before what ours has committed.
	offsets, err := m.admin.ListEndOffsets(ctx, slices.Collect(maps.Keys(found))...)
	if err != nil {
		return nil, fmt.Errorf("ask where the topics end: %w", err)
	}
	// An end is told by the name of the topic. Of one that was made anew in between it
	// would be taken for that of the topic before.
	again, err := partitionsNow(ctx, m.client, topics, s.options.Pattern)
	if err != nil {
		return nil, err
	}
	ends := map[string]change.Position{}
	for name, topic := range found {
		if again[name].id != topic.id {
			return nil, errMadeAnew
		}
		for _, number := range topic.partitions {
			end, known := offsets.Lookup(name, number)
			if !known {
				end.Err = kerr.UnknownTopicOrPartition
			}
			if end.Err != nil {
				return nil, fmt.Errorf("ask where partition %d of %s ends: %w", number, name, end.Err)
			}
			ends[streamName(topic.id, number, s.options.Group)] = offset(end.Offset)
		}
	}
	return ends, nil
}

// topicNow is a topic as a broker knows it now.
type topicNow struct {
	id         [16]byte
	partitions []int32
}

// partitionsNow asks a broker for those of the topics that are there. What kadm says
// of topics may be some seconds old: a partition that was added would be left out.
func partitionsNow(ctx context.Context, client *kgo.Client, topics []string, pattern bool) (map[string]topicNow, error) {
	request := kmsg.NewPtrMetadataRequest() // of all topics
	matches := func(topic string) bool { return slices.Contains(topics, topic) }
	if pattern {
		named, err := regexp.Compile(strings.Join(topics, "|"))
		if err != nil {
			return nil, err
		}
		matches = named.MatchString
	} else {
		for _, topic := range topics {
			wanted := kmsg.NewMetadataRequestTopic()
			wanted.Topic = &topic
			request.Topics = append(request.Topics, wanted)
		}
	}
	reply, err := request.RequestWith(ctx, client)
	if err != nil {
		return nil, fmt.Errorf("ask for the topics: %w", err)
	}
	found := map[string]topicNow{}
	for _, topic := range reply.Topics {
		switch err := kerr.ErrorForCode(topic.ErrorCode); {
		case topic.Topic == nil || !matches(*topic.Topic):
		case errors.Is(err, kerr.UnknownTopicOrPartition): // nothing has come for it yet
		case err != nil:
			return nil, fmt.Errorf("ask for topic %s: %w", *topic.Topic, err)
		default:
			now := topicNow{id: topic.TopicID}
			for _, partition := range topic.Partitions {
				now.partitions = append(now.partitions, partition.Partition)
			}
			found[*topic.Topic] = now
		}
	}
	return found, nil
}

// errNoTopic is what Ends returns while none of the topics is there.
var errNoTopic = errors.New("none of the topics is there")

// matching returns the topics that a pattern means, and how many there are of any
// name.
func matching(ctx context.Context, admin *kadm.Client, patterns []string) (found []string, all int, err error) {
	topics, err := admin.ListTopics(ctx)
	if err != nil {
		return nil, 0, fmt.Errorf("ask for the topics: %w", err)
	}
	pattern, err := regexp.Compile(strings.Join(patterns, "|"))
	if err != nil {
		return nil, 0, err
	}
	return slices.DeleteFunc(topics.Names(), func(topic string) bool { return !pattern.MatchString(topic) }), len(topics), nil
}

// A place is one partition of one topic.
type place struct {
	topic  string
	number int32
}

func (p place) compare(q place) int {
	return cmp.Or(cmp.Compare(p.topic, q.topic), cmp.Compare(p.number, q.number))
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

// look asks the brokers about partitions, anew: how many a topic has decides what of
// it is in order.
func look(ctx context.Context, client *kgo.Client, group string, places []place) ([]standing, error) {
	ctx, cancel := context.WithTimeout(ctx, requestMax)
	defer cancel()
	var topics []string
	for _, p := range places {
		if !slices.Contains(topics, p.topic) {
			topics = append(topics, p.topic)
		}
	}
	if len(topics) == 0 {
		return nil, nil // of all topics, a broker would think
	}
	found, err := partitionsNow(ctx, client, topics, false)
	if err != nil {
		return nil, err
	}
	admin := kadm.NewClient(client)
	// Before the ends: who looks on must not find committed what came in between.
	committed, err := admin.FetchOffsets(ctx, group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return nil, fmt.Errorf("ask for the offsets of group %s: %w", group, err)
	}
	starts, err := admin.ListStartOffsets(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("ask where the topics begin: %w", err)
	}
	ends, err := admin.ListEndOffsets(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("ask where the topics end: %w", err)
	}
	standings := make([]standing, len(places))
	for i, p := range places {
		s := standing{place: p, committed: -1}
		start, known := starts.Lookup(p.topic, p.number)
		end, ends := ends.Lookup(p.topic, p.number)
		switch {
		case !known || !ends || len(found[p.topic].partitions) == 0:
			return nil, fmt.Errorf("ask for partition %d of %s: %w", p.number, p.topic, kerr.UnknownTopicOrPartition)
		case start.Err != nil:
			return nil, fmt.Errorf("ask where partition %d of %s begins: %w", p.number, p.topic, start.Err)
		case end.Err != nil:
			return nil, fmt.Errorf("ask where partition %d of %s ends: %w", p.number, p.topic, end.Err)
		}
		s.topicID, s.partitions = found[p.topic].id, len(found[p.topic].partitions)
		s.start, s.end = start.Offset, end.Offset
		switch at, ok := committed.Lookup(p.topic, p.number); {
		case ok && at.Err != nil:
			return nil, fmt.Errorf("ask what group %s has committed of partition %d of %s: %w", group, p.number, p.topic, at.Err)
		case ok && at.At >= 0:
			s.committed, s.byUs = at.At, at.Metadata == committedByUs
		}
		standings[i] = s
	}
	return standings, nil
}

func streamName(topicID [16]byte, number int32, group string) string {
	return fmt.Sprintf("kafka:%s:%d:%s", hex.EncodeToString(topicID[:]), number, group)
}

// stream says what the brokers know of a partition.
func (s *standing) stream(group string) change.Stream {
	st := change.Stream{
		// The topic's id, not its name: one that was made anew is another stream.
		Name:      streamName(s.topicID, s.number, group),
		Title:     fmt.Sprintf("%s/%d", s.topic, s.number),
		Confirmed: offset(s.start),
		End:       offset(s.end),
	}
	switch {
	case s.committed < 0:
		st.Begin = st.Confirmed
	case s.committed > s.end:
		st.Begin = st.End
		st.Gap = fmt.Sprintf("the group has committed offset %d of partition %d of %s, which ends at %d", s.committed, s.number, s.topic, s.end)
	default:
		st.Begin = offset(max(s.start, s.committed))
		if !s.byUs {
			// Somebody has set it. Forward, what lies between is skipped as they want,
			// and the sink is ahead or swept; back, it is given again.
			st.Confirmed, st.Rewound = st.Begin, true
		}
	}
	return st
}
