package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
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

// Whoever has given a database that cannot be read has given one.
func TestCheckDoesNotMissADatabaseThatHasAMistake(t *testing.T) {
	for database, says := range map[string]string{
		"postgres://app:hunter2@db:notaport/shop":       ":1:11: database: is a URL with a mistake in it",
		"'host=127.0.0.1 port=no password=hunter2'":     ":1:12: database: is no connection that can be made: invalid port",
		"'postgres://app:hunter2@127.0.0.1:1/shop?a=b'": "error: database: ",
		"": "advice: database: no database is given",
	} {
		text := "redis: redis://127.0.0.1:1\nsource: {kafka: {brokers: ['127.0.0.1:1'], topic_prefix: cdc}}\nentries: {p: {key: 'p:{id}', table: public.p}}\n"
		if database != "" {
			text = "database: " + database + "\n" + text
		}
		file := filepath.Join(t.TempDir(), "unstale.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var out, errs bytes.Buffer
		execute([]string{"check", "--config", file}, strings.NewReader(""), &out, &errs)
		said := out.String() + errs.String()
		if !strings.Contains(said, says) || strings.Contains(said, "no database is given") != (database == "") || strings.Contains(said, "hunter2") {
			t.Errorf("database: %s: check says\n%s", database, said)
		}
	}
}
