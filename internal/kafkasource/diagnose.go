package kafkasource

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
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

// Diagnose looks at the brokers and at the topics of options. It changes nothing.
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
	if options.Pattern {
		return diagnosePattern(ctx, admin, options)
	}
	details, err := admin.ListTopics(ctx, options.Topics...)
	if err != nil {
		return nil, fmt.Errorf("ask for the topics: %w", err)
	}
	var problems []Problem
	var found []string
	for _, topic := range options.Topics {
		switch detail, ok := details[topic]; {
		case !ok || detail.Err != nil && len(detail.Partitions) == 0 && strings.Contains(detail.Err.Error(), "UNKNOWN_TOPIC"):
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
	}
	return problems, nil
}

func alterTopic(topic, setting string) string {
	return fmt.Sprintf("kafka-configs.sh --bootstrap-server BROKER --alter --entity-type topics --entity-name %s --add-config %s", topic, setting)
}
