package main

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

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
	if w.hasFailed() || !strings.Contains(log.String(), "runs again") {
		t.Errorf("it runs again, and nobody says so:\n%s", &log)
	}
}
