// Package admin shows what a running service does: health, readiness, metrics
// and status over HTTP. It only looks; nothing can be changed through it.
package admin

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/unstale/unstale/internal/apply"
	"github.com/unstale/unstale/internal/deadletter"
	"github.com/unstale/unstale/internal/fill"
)

// Metrics counts what a loop does, the queue that loads for it, and dead letters.
// It observes them all.
type Metrics struct {
	registry  *prometheus.Registry
	changes   prometheus.Counter
	effects   *prometheus.CounterVec
	dropped   prometheus.Counter
	set       prometheus.Counter
	doubted   prometheus.Counter
	batchKeys prometheus.Histogram
	gateWait  prometheus.Histogram
	snapshots prometheus.Counter
	latency   prometheus.Histogram
	retries   *prometheus.CounterVec
	gaps      *prometheus.CounterVec
	sweeps    *prometheus.CounterVec
	scanned   prometheus.Counter
	swept     prometheus.Counter
	loaded    *prometheus.CounterVec
	letters   *prometheus.CounterVec
	lookups   *prometheus.CounterVec
	built     *prometheus.CounterVec

	pending   atomic.Pointer[func() int] // asks how many keys are to be loaded
	pipeline  atomic.Pointer[func() Pipeline]
	forgotten atomic.Uint64
}

var (
	_ apply.Observer      = (*Metrics)(nil)
	_ deadletter.Observer = (*Metrics)(nil)
	_ fill.Observer       = (*Metrics)(nil)
)

// NewMetrics returns metrics that are all zero.
func NewMetrics() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		changes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "unstale_changes_total", Help: "Row changes applied."}),
		effects: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "unstale_effects_total", Help: "Effects of changes: on a key, before those on one key conflate, or sweeps."}, []string{"kind"}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "unstale_keys_dropped_total", Help: "Keys dropped in Redis, cached or not, sweeps apart."}),
		set: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "unstale_keys_set_total", Help: "Keys set to a new value; of update entries those that are not cached count too."}),
		doubted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "unstale_keys_doubted_total", Help: "Of the keys dropped, those that a change could have set: it came late or again, or a reader may have seen something newer."}),
		batchKeys: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "unstale_batch_keys", Help: "Keys of a batch that has any.", Buckets: prometheus.ExponentialBuckets(1, 2, 10)}),
		gateWait: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "unstale_gate_wait_seconds", Help: "Time until the changes of a batch were visible on the primary.", Buckets: prometheus.ExponentialBuckets(50e-6, 2, 18)}),
		snapshots: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "unstale_gate_snapshots_total", Help: "Snapshots asked of the primary by the gate."}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "unstale_commit_to_redis_seconds", Help: "Time from a transaction's commit, by the database's clock, until Redis had confirmed it.", Buckets: prometheus.ExponentialBuckets(100e-6, 2, 20)}),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "unstale_errors_total", Help: "Errors that were held through, by server; each is followed by another try."}, []string{"server"}),
		gaps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "unstale_gaps_total", Help: "Times that changes may have been missing, by cause; each is healed by a sweep."}, []string{"cause"}),
		sweeps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "unstale_sweeps_total", Help: "Sweeps that changes caused, by entry and cause; cause unknown is a change that could not be applied."}, []string{"entry", "cause"}),
		scanned: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "unstale_sweep_scanned_keys_total", Help: "Keys that sweeps have looked at."}),
		swept: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "unstale_sweep_dropped_keys_total", Help: "Keys that sweeps have dropped."}),
		loaded: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "unstale_loads_total", Help: "Keys that the service was to load, by entry and what became of them: stored; cached or busy, a reader has or is loading it; absent, it has no row; refused, it changed meanwhile; failed; full, Redis is; forgotten, there were too many, or another instance has the stream now."}, []string{"entry", "result"}),
		letters: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "unstale_deadletters_total", Help: "Changes that could not be applied and are kept for a person, by the topic of their record, or by their table where the database's log is read."}, []string{"topic", "table"}),
		lookups: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "unstale_lookups_total", Help: "Questions that changes have put to lookups, by entry and by what has answered: index or database."}, []string{"entry", "by"}),
		built: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "unstale_index_sets_built_total", Help: "Sets of indexes that were built, by entry."}, []string{"entry"}),
	}
	m.registry.MustRegister(m.changes, m.effects, m.dropped, m.set, m.doubted, m.batchKeys, m.gateWait, m.snapshots, m.latency,
		m.retries, m.gaps, m.sweeps, m.scanned, m.swept, m.loaded, m.letters, m.lookups, m.built)
	for _, kind := range []string{"key", "sweep"} {
		m.effects.WithLabelValues(kind)
	}
	for _, server := range []string{"source", "database", "redis"} {
		m.retries.WithLabelValues(server)
	}
	return m
}

// watch adds what the loop knows at the time of asking.
func (m *Metrics) watch(status func() apply.Status) {
	gauge := func(name, help string, value func(apply.Status) float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help},
			func() float64 { return value(status()) }))
	}
	gauge("unstale_lag_bytes", "Bytes of the primary's log that are not applied yet.",
		func(s apply.Status) float64 { return float64(m.behind(&s).LagBytes) })
	gauge("unstale_lag_records", "Records of the topics that are not applied yet.",
		func(s apply.Status) float64 { return float64(s.LagRecords) })
	gauge("unstale_lag_seconds", "How long ago the primary stood where Redis is; 0 when nothing is outstanding.",
		func(s apply.Status) float64 { return m.behind(&s).Lag.Seconds() })
	gauge("unstale_ready", "1 when the cache has caught up once, is swept, and every entry can be planned.",
		func(s apply.Status) float64 { return number(s.Ready()) })
	gauge("unstale_holding", "1 while a server is away.",
		func(s apply.Status) float64 { return number(len(s.Holding) > 0) })
	gauge("unstale_unplanned_entries", "Entries whose changes cannot be planned, since the database has changed: they are swept again and again.",
		func(s apply.Status) float64 { return float64(len(s.Unplanned)) })
	gauge("unstale_sweeping_entries", "Key templates that are being swept.",
		func(s apply.Status) float64 { return float64(len(s.Sweeping)) })
}

// WatchLoads adds how many keys wait to be loaded. A later call takes the place of an
// earlier one.
func (m *Metrics) WatchLoads(pending func() int) {
	if m.pending.Swap(&pending) == nil {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "unstale_loads_pending", Help: "Keys that the service is to load and has not yet."},
			func() float64 { return float64((*m.pending.Load())()) }))
	}
}

// WatchConnector adds whether the connector that writes the topics has failed. It
// is to be called once.
func (m *Metrics) WatchConnector(failed func() bool) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "unstale_connector_failed", Help: "1 while Debezium's connector or its task has failed, or there is no such connector."},
		func() float64 { return number(failed()) }))
}

// WatchPipeline adds what stands before the topics: its lag is the service's too.
// It is to be called once.
func (m *Metrics) WatchPipeline(pipeline func() Pipeline) {
	m.pipeline.Store(&pipeline)
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "unstale_pipeline_stalled", Help: "1 while no change comes into the topics: the connector does not run, or nobody reads its slot."},
		func() float64 { now := pipeline(); return number(now.Stalled() != "") }))
}

// behind adds to a loop's lag that of what stands before its topics.
func (m *Metrics) behind(s *apply.Status) *apply.Status {
	if ask := m.pipeline.Load(); ask != nil {
		p := (*ask)()
		s.LagBytes += p.BehindBytes
		s.Lag = max(s.Lag, time.Duration(p.BehindSeconds*float64(time.Second)))
	}
	return s
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Written implements apply.Observer.
func (m *Metrics) Written(w apply.Written) {
	m.changes.Add(float64(w.Changes))
	m.effects.WithLabelValues("key").Add(float64(w.Effects))
	m.dropped.Add(float64(w.Keys - w.Sets))
	m.set.Add(float64(w.Sets))
	m.doubted.Add(float64(w.Doubted))
	if w.Keys > 0 {
		m.batchKeys.Observe(float64(w.Keys))
	}
	for _, latency := range w.Latencies {
		m.latency.Observe(latency.Seconds())
	}
}

// LookedUp implements apply.Observer.
func (m *Metrics) LookedUp(entry string, index, database int) {
	m.lookups.WithLabelValues(entry, "index").Add(float64(index))
	m.lookups.WithLabelValues(entry, "database").Add(float64(database))
}

// Built implements apply.Observer.
func (m *Metrics) Built(entry string) { m.built.WithLabelValues(entry).Inc() }

// Gated implements apply.Observer.
func (m *Metrics) Gated(waited time.Duration, snapshots int) {
	m.gateWait.Observe(waited.Seconds())
	m.snapshots.Add(float64(snapshots))
}

// Held implements apply.Observer.
func (m *Metrics) Held(server string) { m.retries.WithLabelValues(server).Inc() }

// Gap implements apply.Observer.
func (m *Metrics) Gap(cause string) { m.gaps.WithLabelValues(cause).Inc() }

// Sweep implements apply.Observer.
func (m *Metrics) Sweep(entry, cause string) {
	m.effects.WithLabelValues("sweep").Inc()
	m.sweeps.WithLabelValues(entry, cause).Inc()
}

// Swept implements apply.Observer.
func (m *Metrics) Swept(scanned, dropped int) {
	m.scanned.Add(float64(scanned))
	m.swept.Add(float64(dropped))
}

// Filled implements fill.Observer.
func (m *Metrics) Filled(entry string, t fill.Tally) {
	for _, result := range []struct {
		name string
		keys int
	}{{"stored", t.Stored}, {"cached", t.Cached}, {"refused", t.Refused}, {"absent", t.Absent}, {"busy", t.Busy}, {"failed", t.Failed}, {"full", t.Full}} {
		if result.keys > 0 {
			m.loaded.WithLabelValues(entry, result.name).Add(float64(result.keys))
		}
	}
}

// Deadletter implements deadletter.Observer.
func (m *Metrics) Deadletter(topic, table string) { m.letters.WithLabelValues(topic, table).Inc() }

// Dropped implements fill.Observer.
func (m *Metrics) Dropped(entry string) {
	m.loaded.WithLabelValues(entry, "forgotten").Inc()
	m.forgotten.Add(1)
}

// loads returns how many keys wait to be loaded, and how many will not be.
func (m *Metrics) loads() (pending int, forgotten uint64) {
	if ask := m.pending.Load(); ask != nil {
		pending = (*ask)()
	}
	return pending, m.forgotten.Load()
}

// total reads a counter back.
func (m *Metrics) total(c prometheus.Counter) uint64 {
	var value dto.Metric
	if err := c.Write(&value); err != nil {
		return 0
	}
	return uint64(value.GetCounter().GetValue())
}
