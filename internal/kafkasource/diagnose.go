package kafkasource

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A Problem is something about the topics that ought to be known.
type Problem struct {
	// Wrong: changes could not be read. Else it works, and there is something to
	// know.
	Wrong   bool
	Subject string // "topic cdc.public.products"
	Text    string
	Mend    string
}

// retentionMin is how long a topic ought to keep its records: an instance that is
// away for longer has lost some, and sweeps.
const retentionMin = 24 * time.Hour

// Diagnose looks at the brokers, and at the group and the topics of options. It changes nothing.
// The error is that of brokers that do not answer.
func Diagnose(ctx context.Context, options Options) ([]Problem, error) {
	client, err := kgo.NewClient(options.Client...)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	// One that is away would be asked again for as long as ctx lasts.
	if err := client.Ping(ctx); err != nil {
		return nil, fmt.Errorf("reach the brokers: %w", err)
	}
	problems, err := diagnoseGroup(ctx, client, options.Group)
	if err != nil {
		return nil, err
	}
	look := diagnoseNamed
	if options.Pattern {
		look = diagnosePattern
	}
	more, err := look(ctx, admin, options)
	return append(problems, more...), err
}

// diagnoseGroup looks whether the user may join the group.
func diagnoseGroup(ctx context.Context, client *kgo.Client, group string) ([]Problem, error) {
	request := kmsg.NewPtrDescribeGroupsRequest()
	request.Groups, request.IncludeAuthorizedOperations = []string{group}, true
	reply, err := request.RequestWith(ctx, client)
	if err != nil && !errors.Is(err, kerr.GroupAuthorizationFailed) {
		return nil, fmt.Errorf("ask for group %s: %w", group, err)
	}
	may := err == nil
	if may {
		for _, g := range reply.Groups {
			// Who may describe it is told what else he may; no operation at all: old
			// brokers do not say.
			may = may && g.ErrorCode != kerr.GroupAuthorizationFailed.Code &&
				(g.AuthorizedOperations <= 0 || g.AuthorizedOperations&(1<<kmsg.ACLOperationRead) != 0)
		}
	}
	if may {
		return nil, nil
	}
	return []Problem{{
		Wrong: true, Subject: "group " + group,
		Text: "this user may not join it",
		Mend: allowGroup(group),
	}}, nil
}

func allowGroup(group string) string {
	return fmt.Sprintf("kafka-acls.sh --bootstrap-server BROKER --add --allow-principal User:USER --operation read --group %s", group)
}

// diagnoseNamed looks at the topics that are named.
func diagnoseNamed(ctx context.Context, admin *kadm.Client, options Options) ([]Problem, error) {
	details, err := admin.ListTopics(ctx, options.Topics...)
	if err != nil {
		return nil, fmt.Errorf("ask for the topics: %w", err)
	}
	var problems []Problem
	var found []string
	for _, topic := range options.Topics {
		switch detail, ok := details[topic]; {
		case !ok || errors.Is(detail.Err, kerr.UnknownTopicOrPartition):
			problems = append(problems, Problem{
				Subject: "topic " + topic,
				Text:    "it is not there: the connector makes it with the first row of its table",
				Mend:    "nothing, if the connector is new; else look whether its topic.prefix is " + prefixOf(topic) + ", and whether its table.include.list has the table",
			})
		case detail.Err != nil:
			problems = append(problems, Problem{Wrong: true, Subject: "topic " + topic, Text: detail.Err.Error(), Mend: "let the user READ and DESCRIBE the topic"})
		default:
			found = append(found, topic)
		}
	}
	more, err := diagnoseTopics(ctx, admin, found)
	return append(problems, more...), err
}

func prefixOf(topic string) string {
	prefix, _, _ := strings.Cut(topic, ".")
	return prefix
}

// diagnosePattern looks at the topics that match.
func diagnosePattern(ctx context.Context, admin *kadm.Client, options Options) ([]Problem, error) {
	found, all, err := matching(ctx, admin, options.Topics)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return []Problem{{
			Subject: "topics",
			Text:    fmt.Sprintf("none of the %d topics that this user may see matches %s", all, strings.Join(options.Topics, ", ")),
			Mend:    "nothing, if the connector is new; else change source.kafka.topics_pattern",
		}}, nil
	}
	return diagnoseTopics(ctx, admin, found)
}

// diagnoseTopics looks at how long topics keep their records.
func diagnoseTopics(ctx context.Context, admin *kadm.Client, topics []string) ([]Problem, error) {
	if len(topics) == 0 {
		return nil, nil
	}
	configs, err := admin.DescribeTopicConfigs(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("ask for the settings of the topics: %w", err)
	}
	var problems []Problem
	for _, config := range configs {
		if config.Err != nil {
			continue // who may read a topic need not be let see its settings
		}
		settings := map[string]string{}
		for _, c := range config.Configs {
			settings[c.Key] = c.MaybeValue()
		}
		subject := "topic " + config.Name
		if strings.Contains(settings["cleanup.policy"], "compact") {
			problems = append(problems, Problem{
				Subject: subject,
				Text:    "it is compacted: of a deleted row only the tombstone may be left, and where that does not tell its table every entry is swept",
				Mend:    alterTopic(config.Name, "cleanup.policy=delete"),
			})
		}
		milliseconds, err := strconv.ParseInt(settings["retention.ms"], 10, 64)
		retention := time.Duration(milliseconds) * time.Millisecond
		if err == nil && strings.Contains(settings["cleanup.policy"], "delete") && milliseconds >= 0 && retention < retentionMin {
			problems = append(problems, Problem{
				Subject: subject,
				Text:    fmt.Sprintf("it keeps records for %s: an instance that is away for longer has missed changes, and every entry is swept", retention),
				Mend:    alterTopic(config.Name, "retention.ms=604800000"),
			})
		}
		most, err := strconv.ParseInt(settings["retention.bytes"], 10, 64)
		if err == nil && strings.Contains(settings["cleanup.policy"], "delete") && most >= 0 {
			problems = append(problems, Problem{
				Subject: subject,
				Text:    fmt.Sprintf("it keeps %d bytes of each partition, however old they are: an instance that is away while more than that is written has missed changes, and every entry is swept", most),
				Mend:    alterTopic(config.Name, "retention.bytes=-1"),
			})
		}
	}
	return problems, nil
}

func alterTopic(topic, setting string) string {
	return fmt.Sprintf("kafka-configs.sh --bootstrap-server BROKER --alter --entity-type topics --entity-name %s --add-config %s", topic, setting)
}
