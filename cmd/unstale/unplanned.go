package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/redis/go-redis/v9"

	"github.com/unstale/unstale/internal/config"
	"github.com/unstale/unstale/internal/kafkasource"
	"github.com/unstale/unstale/internal/redissink"
)

// refuseUnknown returns an error for entries whose changes cannot be planned, and which no
// watermark knows: what is wrong is then the configuration. What a watermark knows could be
// planned once, and somebody has changed the database since: for that the other entries
// are not stopped. Where nobody can be asked, they are not either.
func refuseUnknown(ctx context.Context, c *config.Config, client *redis.Client, x *examination, logger *slog.Logger) error {
	if len(x.unplanned) == 0 {
		return nil
	}
	known, err := knownEntries(ctx, c, client, x)
	if err != nil {
		logger.Warn("whether an entry that cannot be planned was planned before is not known: it is held, and swept again and again", "err", err)
	}
	var refused config.Problems
	for i := range x.entries {
		e := &x.entries[i]
		problem, held := x.unplanned[e.Name]
		if held && (err == nil && !known[e.Key.String()] || len(x.unplanned) == len(x.entries)) {
			refused = append(refused, problem)
		}
	}
	return refused.Err()
}

// knownEntries are the key templates that the watermarks of the streams know.
func knownEntries(ctx context.Context, c *config.Config, client *redis.Client, x *examination) (map[string]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	var names []string
	if c.Source.FromKafka {
		brokers, err := kafkaClient(c.Source.Kafka)
		if err != nil {
			return nil, err
		}
		topics, pattern := kafkaTopics(c.Source.Kafka, x.tableNames())
		found, _, err := kafkasource.Standings(ctx, kafkasource.Options{Client: brokers, Group: c.Source.Kafka.Group, Topics: topics, Pattern: pattern})
		if err != nil {
			return nil, fmt.Errorf("kafka: %w", err)
		}
		for _, partition := range found {
			names = append(names, partition.Name)
		}
	} else {
		name, err := logStream(ctx, c)
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	known := map[string]bool{}
	if len(names) == 0 {
		return known, nil
	}
	marks, err := redissink.NewLeases(client).Watermarks(ctx, names)
	if err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	for _, mark := range marks {
		if mark == nil {
			continue
		}
		for _, entry := range mark.Fingerprints {
			known[entry.Key] = true
		}
	}
	return known, nil
}
