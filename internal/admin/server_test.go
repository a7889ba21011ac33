package admin_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/admin"
	"github.com/unstale/unstale/internal/apply"
)

// serve runs a server that shows status, and returns a way to ask it.
func serve(t *testing.T, metrics *admin.Metrics, status func() apply.Status) (get func(path string) (int, string)) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- admin.NewServer("v1", status, metrics).Run(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	return func(path string) (int, string) {
		t.Helper()
		reply, err := http.Get("http://" + listener.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer reply.Body.Close()
		body, err := io.ReadAll(reply.Body)
		if err != nil {
			t.Fatal(err)
		}
		return reply.StatusCode, string(body)
	}
}

// Whoever routes traffic by /readyz must not send it to a cache that may hold
// old values, and the reason must be in the answer.
func TestReadyOnlyWhenCaughtUpAndSwept(t *testing.T) {
	for _, c := range []struct {
		status apply.Status
		code   int
		text   string
	}{
		{apply.Status{State: apply.StateStarting}, 503, "not ready: starting\n"},
		{apply.Status{State: apply.StateStreaming, LagBytes: 10}, 503, "not ready: catching up, 10 bytes behind\n"},
		{apply.Status{State: apply.StateStreaming, CaughtUp: true, Sweeping: []string{"a:{id}"}}, 503, "not ready: sweeping a:{id}\n"},
		{apply.Status{State: apply.StateStreaming, CaughtUp: true, Unplanned: map[string]string{"b": "why", "a": "why"}}, 503, "not ready: changes cannot be planned of a, b\n"},
		{apply.Status{State: apply.StateHolding, Holding: map[string]string{"redis": "refused"}}, 503, "not ready: holding for redis\n"},
		{apply.Status{State: apply.StateStreaming, CaughtUp: true}, 200, "ready\n"},
		{apply.Status{State: apply.StateStandby}, 200, "standby: another instance owns the stream\n"},
	} {
		get := serve(t, admin.NewMetrics(), func() apply.Status { return c.status })
		code, text := get("/readyz")
		if code != c.code || text != c.text {
			t.Errorf("%+v: got %d %q, want %d %q", c.status, code, text, c.code, c.text)
		}
		// An orchestrator that restarts us because Redis is away helps nobody.
		if code, _ := get("/healthz"); code != 200 {
			t.Errorf("%+v: /healthz answers %d", c.status, code)
		}
	}
}

// Dashboards and alerts are written against these names.
func TestMetricsHaveTheDocumentedNames(t *testing.T) {
	metrics := admin.NewMetrics()
	metrics.Written(apply.Written{Changes: 3, Effects: 5, Keys: 4, Sets: 1, Doubted: 2, Latencies: []time.Duration{time.Millisecond}})
	metrics.Gated(time.Millisecond, 2)
	metrics.Held("redis")
	metrics.Gap("slot_ahead")
	metrics.Sweep("product", "truncated")
	metrics.Swept(1000, 7)
	metrics.LookedUp("page", 2, 1)
	metrics.Built("page")
	get := serve(t, metrics, func() apply.Status { return apply.Status{LagBytes: 42, Lag: 1500 * time.Millisecond} })
	_, text := get("/metrics")
	for _, want := range []string{
		"unstale_changes_total 3",
		`unstale_effects_total{kind="key"} 5`,
		`unstale_effects_total{kind="sweep"} 1`,
		"unstale_keys_dropped_total 3",
		"unstale_keys_set_total 1",
		"unstale_keys_doubted_total 2",
		"unstale_batch_keys_count 1",
		"unstale_gate_wait_seconds_count 1",
		"unstale_gate_snapshots_total 2",
		"unstale_commit_to_redis_seconds_count 1",
		`unstale_errors_total{server="redis"} 1`,
		`unstale_errors_total{server="source"} 0`,
		`unstale_gaps_total{cause="slot_ahead"} 1`,
		`unstale_sweeps_total{cause="truncated",entry="product"} 1`,
		"unstale_sweep_scanned_keys_total 1000",
		"unstale_sweep_dropped_keys_total 7",
		`unstale_lookups_total{by="index",entry="page"} 2`,
		`unstale_lookups_total{by="database",entry="page"} 1`,
		`unstale_index_sets_built_total{entry="page"} 1`,
		"unstale_lag_bytes 42",
		"unstale_lag_seconds 1.5",
		"unstale_ready 0",
		"unstale_holding 0",
		"unstale_sweeping_entries 0",
	} {
		if !strings.Contains(text, "\n"+want+"\n") {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

// `unstale status` reads this.
func TestStatusIsOneObject(t *testing.T) {
	metrics := admin.NewMetrics()
	metrics.Written(apply.Written{Changes: 3, Effects: 4, Keys: 4, Sets: 1})
	metrics.WatchLoads(func() int { return 5 })
	metrics.Dropped("product")
	get := serve(t, metrics, func() apply.Status {
		return apply.Status{State: apply.StateStreaming, CaughtUp: true, Streams: []apply.StreamStatus{{Name: "1:2:slot"}}, Gaps: 1, LastGap: "why"}
	})
	_, text := get("/status")
	var got admin.Status
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	got.UpSeconds = 0
	want := admin.Status{
		Version: "v1", State: "streaming", Ready: true,
		Streams:  []admin.Stream{{Name: "1:2:slot", Position: "0/0/0", Settled: "0/0/0", Confirmed: "0/0/0"}},
		Sweeping: []string{}, Holding: map[string]string{}, Gaps: 1, LastGap: "why", Changes: 3, Dropped: 3, Set: 1,
		LoadsPending: 5, LoadsForgotten: 1,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// What stands before the topics is as far behind as what it has not read. It takes
// no instance out of service: none would have more.
func TestAPipelineThatIsStalledIsSeen(t *testing.T) {
	metrics := admin.NewMetrics()
	metrics.WatchPipeline(func() admin.Pipeline {
		return admin.Pipeline{Connector: "shop", State: "PAUSED", Slot: "shop", Read: true, BehindBytes: 4096, BehindSeconds: 42}
	})
	get := serve(t, metrics, func() apply.Status {
		return apply.Status{State: apply.StateStreaming, CaughtUp: true, Lag: time.Second}
	})
	if code, text := get("/readyz"); code != 200 || text != "ready, but no change comes: connector shop is PAUSED\n" {
		t.Errorf("/readyz: %d %q", code, text)
	}
	_, text := get("/metrics")
	for _, want := range []string{"unstale_pipeline_stalled 1", "unstale_lag_bytes 4096", "unstale_lag_seconds 42", "unstale_ready 1"} {
		if !strings.Contains(text, "\n"+want+"\n") {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	_, text = get("/status")
	var got admin.Status
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	if !got.Ready || got.LagBytes != 4096 || got.LagSeconds != 42 || got.Pipeline == nil || got.Pipeline.Stalled() == "" {
		t.Errorf("/status: %s", text)
	}
	for state, stalled := range map[string]bool{"": false, "RUNNING": false, "unreachable": false, "STOPPED": true, "FAILED": true, "absent": true} {
		p := admin.Pipeline{State: state}
		if got := p.Stalled() != ""; got != stalled {
			t.Errorf("%s: stalled is %v", state, got)
		}
	}
}
