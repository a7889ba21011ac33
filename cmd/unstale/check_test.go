package main

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/config"
	"github.com/unstale/unstale/internal/database"
)

// A key that is nothing but a value looks like the keys of others, and a sweep
// drops those too.
func TestCheckAdvisesAgainstBareKeys(t *testing.T) {
	var found findings
	found.bareKeys(&config.Config{Entries: []config.Entry{
		{Name: "bare", Key: "{id}"}, {Name: "before", Key: "x:{id}"}, {Name: "behind", Key: "{id}:x"}, {Name: "two", Key: "{a}:{b}"}, {Name: "tag", Key: "{{{id}}}"},
	}})
	var got []string
	for _, f := range found {
		got = append(got, string(f.Severity)+" "+f.Subject)
	}
	if diff := cmp.Diff([]string{"advice entries.bare.key"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A broker refuses it without end, and nobody would know why.
func TestCheckAdvisesAgainstASessionTimeoutThatBrokersRefuse(t *testing.T) {
	for timeout, want := range map[time.Duration]int{time.Second: 1, 6 * time.Second: 0, 10 * time.Second: 0} {
		c := &config.Config{Source: config.Source{FromKafka: true, Kafka: config.Kafka{
			Brokers: []string{"127.0.0.1:1"}, TopicPrefix: "cdc", SessionTimeout: timeout}}}
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // the brokers are away
		var found findings
		found.kafka(ctx, c)
		got := 0
		for _, f := range found {
			if f.Subject == "source.kafka.session_timeout" && f.Severity == database.Advice {
				got++
			}
		}
		if got != want {
			t.Errorf("%s: %d findings, want %d: %+v", timeout, got, want, found)
		}
	}
}
