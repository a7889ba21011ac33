package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/unstale/unstale/internal/apply"
)

// Status is what /status answers and `unstale status` prints.
type Status struct {
	Version string      `json:"version"`
	State   apply.State `json:"state"`
	Ready   bool        `json:"ready"`
	Streams []Stream    `json:"streams"`
	// OverTopics: the streams are partitions, and LagRecords of them are to be read;
	// LagBytes are those of the log that the connector has not read.
	OverTopics bool     `json:"over_topics"`
	LagBytes   uint64   `json:"lag_bytes"`
	LagRecords int64    `json:"lag_records"`
	LagSeconds float64  `json:"lag_seconds"`
	Sweeping   []string `json:"sweeping"`
	// Unplanned says what is wrong with entries whose changes cannot be planned.
	Unplanned  map[string]string `json:"unplanned,omitempty"`
	Holding    map[string]string `json:"holding"`
	Gaps       int               `json:"gaps"`
	LastGap    string            `json:"last_gap,omitempty"`
	Unpromised []string          `json:"unpromised,omitempty"`
	Changes    uint64            `json:"changes"`
	Dropped    uint64            `json:"keys_dropped"`
	Set        uint64            `json:"keys_set"`
	// LoadsPending are keys that the service is to load, LoadsForgotten those that
	// it has left to readers since there were too many, or on a change of owner.
	LoadsPending   int    `json:"loads_pending"`
	LoadsForgotten uint64 `json:"loads_forgotten"`
	// Pipeline is what stands before the topics, where Kafka Connect is known.
	Pipeline  *Pipeline `json:"pipeline,omitempty"`
	UpSeconds float64   `json:"up_seconds"`
}

// A Pipeline is what stands between the database's log and the topics: Debezium's
// connector, and the slot that it reads.
type Pipeline struct {
	Connector string `json:"connector"`
	// State is what Kafka Connect says of the connector and its task, or absent, or
	// unreachable; empty: it was not asked yet. Reason is why it is not RUNNING.
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
	// Slot is empty without a database. Read: somebody reads it. Text is what is to be
	// known of it; both are of the last look.
	Slot string `json:"slot,omitempty"`
	Read bool   `json:"slot_read"`
	Text string `json:"slot_text,omitempty"`
	// Stuck: it is read and does not move, though the connector has a heartbeat.
	Stuck bool `json:"slot_stuck,omitempty"`
	// BehindBytes is the log that was not read, BehindSeconds how long ago the primary
	// stood there.
	BehindBytes   uint64  `json:"behind_bytes"`
	BehindSeconds float64 `json:"behind_seconds"`
}

// Stalled says why no change comes into the topics; it is empty where one would.
func (p *Pipeline) Stalled() string {
	switch p.State {
	case "", "RUNNING", "unreachable": // what cannot be asked may go on all the same
	default:
		return fmt.Sprintf("connector %s is %s", p.Connector, p.State)
	}
	if p.Slot != "" && (!p.Read || p.Stuck) && p.Text != "" {
		return fmt.Sprintf("slot %s: %s", p.Slot, p.Text)
	}
	return ""
}

// Stream is how far one replication slot or one partition is.
type Stream struct {
	Name      string `json:"stream"`
	Title     string `json:"title,omitempty"` // topic/partition
	Position  string `json:"position"`
	Settled   string `json:"settled"`
	Confirmed string `json:"confirmed"`
}

// A Server answers on one address.
type Server struct {
	status  func() apply.Status
	metrics *Metrics
	version string
	started time.Time
}

// NewServer returns a server that shows status and metrics.
func NewServer(version string, status func() apply.Status, metrics *Metrics) *Server {
	metrics.watch(status)
	return &Server{status: status, metrics: metrics, version: version, started: time.Now()}
}

// Run answers on listener until ctx ends.
func (s *Server) Run(ctx context.Context, listener net.Listener) error {
	server := &http.Server{Handler: s.handler(), ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	shutdown, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := server.Shutdown(shutdown); err != nil {
		server.Close()
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", listener.Addr(), err)
	}
	return nil
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	// Alive: the process answers. A server that is away is no reason to restart
	// this one.
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		status := s.status()
		if status.State == apply.StateStandby {
			// Nothing is wrong with it. A rolling update would wait for ever for
			// the instance that can work only when the old one has ended.
			fmt.Fprintln(w, "standby: another instance owns the stream")
			return
		}
		if !status.Ready() {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, notReady(status))
			return
		}
		// It has caught up with the topics. Who is sent elsewhere for what Debezium does
		// not do finds nothing better there.
		if p := s.pipeline(); p != nil && p.Stalled() != "" {
			fmt.Fprintln(w, "ready, but no change comes: "+p.Stalled())
			return
		}
		fmt.Fprintln(w, "ready")
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		_ = encoder.Encode(s.report()) // the client may have gone
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{}))
	return mux
}

func notReady(s apply.Status) string {
	switch {
	case len(s.Holding) > 0:
		servers := make([]string, 0, len(s.Holding))
		for server := range s.Holding {
			servers = append(servers, server)
		}
		return "not ready: holding for " + strings.Join(servers, ", ")
	case len(s.Unplanned) > 0:
		return "not ready: changes cannot be planned of " + strings.Join(slices.Sorted(maps.Keys(s.Unplanned)), ", ")
	case len(s.Sweeping) > 0:
		return "not ready: sweeping " + strings.Join(s.Sweeping, ", ")
	case s.State == apply.StateStreaming && s.LagRecords > 0:
		return fmt.Sprintf("not ready: catching up, %d records behind", s.LagRecords)
	case s.State == apply.StateStreaming:
		return fmt.Sprintf("not ready: catching up, %d bytes behind", s.LagBytes)
	}
	return "not ready: " + string(s.State)
}

// pipeline is what stands before the topics; nil if nothing does, or nobody looks.
func (s *Server) pipeline() *Pipeline {
	ask := s.metrics.pipeline.Load()
	if ask == nil {
		return nil
	}
	p := (*ask)()
	return &p
}

func (s *Server) report() Status {
	now := s.status()
	s.metrics.behind(&now)
	holding := map[string]string{}
	maps.Copy(holding, now.Holding)
	streams := []Stream{}
	for _, st := range now.Streams {
		streams = append(streams, Stream{st.Name, st.Title, st.Position.String(), st.Settled.String(), st.Confirmed.String()})
	}
	pending, forgotten := s.metrics.loads()
	return Status{
		Version:      s.version,
		State:        now.State,
		Ready:        now.Ready(),
		Streams:      streams,
		OverTopics:   now.OverTopics(),
		LagBytes:     now.LagBytes,
		LagRecords:   now.LagRecords,
		LagSeconds:   now.Lag.Seconds(),
		Sweeping:     append([]string{}, now.Sweeping...),
		Unplanned:    now.Unplanned,
		Holding:      holding,
		Gaps:         now.Gaps,
		LastGap:      now.LastGap,
		Unpromised:   now.Unpromised,
		Changes:      s.metrics.total(s.metrics.changes),
		Dropped:      s.metrics.total(s.metrics.dropped),
		Set:          s.metrics.total(s.metrics.set),
		LoadsPending: pending, LoadsForgotten: forgotten,
		Pipeline:  s.pipeline(),
		UpSeconds: time.Since(s.started).Seconds(),
	}
}
