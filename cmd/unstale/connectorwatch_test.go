package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/connect"
)

// A failed task is said once a reason, shows in the metric, and is restarted with
// growing pauses; that it runs again is said as well.
func TestAFailedConnectorIsSaidAndRestarted(t *testing.T) {
	var log bytes.Buffer
	status := connect.Status{Connector: connect.Part{State: connect.Running}, Tasks: []connect.Task{{Part: connect.Part{State: connect.Running}}}}
	var restarts []time.Duration
	begin := time.Unix(1_000_000, 0)
	now := begin
	w := &connectorWatch{
		ask:       func(context.Context) (connect.Status, error) { return status, nil },
		restart:   func(context.Context) error { restarts = append(restarts, now.Sub(begin)); return nil },
		logger:    slog.New(slog.NewTextHandler(&log, nil)),
		connector: "shop",
		wait:      restartMin,
	}
	pass := func(d time.Duration) {
		for end := now.Add(d); now.Before(end); now = now.Add(connectorEvery) {
			w.look(t.Context(), now)
		}
	}
	pass(time.Minute)
	if w.hasFailed() || log.Len() > 0 {
		t.Fatalf("nothing has failed: %s", &log)
	}
	status.Tasks[0].State, status.Tasks[0].Trace = connect.Failed, "org.apache.kafka.connect.errors.ConnectException: no slot\n\tat x.y(Z.java:1)\n"
	begin = now
	pass(2 * time.Minute)
	if !w.hasFailed() {
		t.Error("it has failed, and the metric does not say so")
	}
	if n := strings.Count(log.String(), "the connector has failed"); n != 1 || !strings.Contains(log.String(), "no slot") || strings.Contains(log.String(), "Z.java") {
		t.Errorf("said %d times:\n%s", n, &log)
	}
	want := []time.Duration{10 * time.Second, 30 * time.Second, 70 * time.Second}
	if len(restarts) != len(want) {
		t.Fatalf("restarted at %v, want %v", restarts, want)
	}
	for i := range want {
		if restarts[i] != want[i] {
			t.Errorf("restarted at %v, want %v", restarts, want)
		}
	}
	status.Tasks[0].State = connect.Running
	pass(connectorEvery)
	if w.hasFailed() || !strings.Contains(log.String(), `msg="the connector runs"`) {
		t.Errorf("it runs again, and nobody says so:\n%s", &log)
	}
}

// Of each state that is no failure, and of each answer that is none, what is said
// in two minutes, and what the metric shows. A start between two failures is not
// that it runs.
func TestAConnectorThatDoesNotRunIsSaid(t *testing.T) {
	state := func(connector connect.State, tasks ...connect.State) answerOfConnect {
		s := connect.Status{Connector: connect.Part{State: connector}}
		for _, task := range tasks {
			s.Tasks = append(s.Tasks, connect.Task{Part: connect.Part{State: task, Trace: "x.ConnectException: no slot\n"}})
		}
		return answerOfConnect{status: s}
	}
	failed, starts := state(connect.Running, connect.Failed), state(connect.Running, "RESTARTING")
	for _, tt := range []struct {
		name    string
		answers []answerOfConnect // each for two minutes
		failed  bool
		want    []string
	}{
		{"deleted", []answerOfConnect{{err: fmt.Errorf("GET: %w", connect.ErrNotFound)}}, true, []string{"ERROR there is no such connector"}},
		{"another login", []answerOfConnect{{err: errors.New("401")}}, false, []string{"WARN Kafka Connect does not say how the connector is"}},
		{"away after a failure", []answerOfConnect{failed, {err: errors.New("refused")}}, true, []string{"ERROR the connector has failed", "WARN Kafka Connect does not say how the connector is"}},
		{"paused", []answerOfConnect{state(connect.Paused, connect.Paused)}, false, []string{"WARN somebody has halted the connector"}},
		{"stopped, after a failure", []answerOfConnect{failed, state(connect.Stopped)}, false, []string{"ERROR the connector has failed", "WARN somebody has halted the connector"}},
		{"no task", []answerOfConnect{state(connect.Running)}, false, []string{"WARN the connector does not run, and has not failed"}},
		{"made anew", []answerOfConnect{{err: connect.ErrNotFound}, state(connect.Running, connect.Running)}, false, []string{"ERROR there is no such connector", "INFO the connector runs"}},
	} {
		w, said := watchOf()
		now := time.Unix(1_000_000, 0)
		for _, a := range tt.answers {
			w.ask = func(context.Context) (connect.Status, error) { return a.status, a.err }
			for end := now.Add(2 * time.Minute); now.Before(end); now = now.Add(connectorEvery) {
				w.look(t.Context(), now)
			}
		}
		if diff := cmp.Diff(tt.want, said()); diff != "" || w.hasFailed() != tt.failed {
			t.Errorf("%s: the metric says %v (-want +got):\n%s", tt.name, w.hasFailed(), diff)
		}
	}

	w, said := watchOf()
	now := time.Unix(1_000_000, 0)
	for range 5 {
		for _, a := range []answerOfConnect{failed, starts} {
			w.ask = func(context.Context) (connect.Status, error) { return a.status, a.err }
			w.look(t.Context(), now)
			now = now.Add(connectorEvery)
			if !w.hasFailed() {
				t.Fatal("it starts, and the metric says that it runs")
			}
		}
	}
	if diff := cmp.Diff([]string{"ERROR the connector has failed"}, said()); diff != "" {
		t.Errorf("it fails again and again (-want +got):\n%s", diff)
	}
}

type answerOfConnect struct {
	status connect.Status
	err    error
}

// watchOf returns a watch, and what it has said: level and message up to a colon.
func watchOf() (*connectorWatch, func() []string) {
	var log bytes.Buffer
	w := &connectorWatch{logger: slog.New(slog.NewJSONHandler(&log, nil)), connector: "shop", wait: restartMin}
	return w, func() (said []string) {
		for line := range strings.Lines(log.String()) {
			var l struct{ Level, Msg string }
			_ = json.Unmarshal([]byte(line), &l)
			message, _, _ := strings.Cut(l.Msg, ":")
			said = append(said, l.Level+" "+message)
		}
		return said
	}
}
