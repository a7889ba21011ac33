package demo

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

// Report is what the load has come to so far.
type Report struct {
	Seconds          float64 `json:"seconds"` // under load
	Changes          int64   `json:"changes"` // rows
	ChangesPerSecond float64 `json:"changes_per_second"`
	Caches           Caches  `json:"caches"`
	Servers          Servers `json:"servers"`
	// Pipeline is there where changes come through Kafka.
	Pipeline *PipelineReport `json:"pipeline,omitempty"`

	config string // path of the service's configuration
}

// Caches has the three caches side by side.
type Caches struct {
	TTLOnly       CacheReport `json:"ttl_only"`
	DELAfterEvent CacheReport `json:"del_after_event"`
	Unstale       CacheReport `json:"unstale"`
}

func (c *Caches) all() [cacheCount]*CacheReport {
	return [...]*CacheReport{ttlOnly: &c.TTLOnly, delAfterEvent: &c.DELAfterEvent, coherent: &c.Unstale}
}

// CacheReport is what one cache has answered.
type CacheReport struct {
	Tally
	// KeysSet counts the keys that changes have set.
	KeysSet int64 `json:"keys_set"`
	// Latency is from COMMIT to Redis; nil for a cache that hears of no change.
	Latency *Latency               `json:"latency_ms"`
	Entries map[string]EntryReport `json:"entries"`

	last *StaleHit
}

// EntryReport is what one cache has answered for one entry.
type EntryReport struct {
	OnChange string `json:"on_change,omitempty"` // in the cache that Unstale keeps
	Tally
	OverQuery bool `json:"-"` // its values are results of a query
}

// A Tally is what reads have come to.
type Tally struct {
	Reads   int64   `json:"reads"`
	Hits    int64   `json:"hits"`  // reads that did not load from the database
	Loads   int64   `json:"loads"` // reads that did
	HitRate float64 `json:"hit_rate"`
	// Stale counts the hits that were older than a change which was committed,
	// and settled, before the read began.
	Stale int64 `json:"stale"`
}

// add counts more reads.
func (t *Tally) add(reads, hits, stale int64) {
	t.Reads += reads
	t.Hits += hits
	t.Loads = t.Reads - t.Hits
	t.Stale += stale
	if t.Reads > 0 {
		t.HitRate = rounded(float64(t.Hits)/float64(t.Reads), 4)
	}
}

// Latency in milliseconds.
type Latency struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
}

// Servers names what the demo has started.
type Servers struct {
	PostgreSQL string `json:"postgresql"`
	Redis      string `json:"redis"`
}

func (d *Demo) report(ctx context.Context) Report {
	if status, err := d.service.status(ctx); err == nil { // else as before
		d.keysSet = status.KeysSet
	}
	r := Report{
		Seconds: time.Since(d.began).Seconds(),
		Changes: d.changes.Load(),
		Servers: d.servers,
		config:  d.config,
	}
	r.ChangesPerSecond = rounded(float64(r.Changes)/r.Seconds, 1)
	r.Seconds = rounded(r.Seconds, 2)
	for i, to := range r.Caches.all() {
		c := d.caches[i]
		*to = CacheReport{Latency: d.canary.latencies[i].quantiles(), Entries: map[string]EntryReport{}, last: c.last.Load()}
		for e, counts := range c.counts {
			// Hits before reads, or there could be more of them.
			stale, hits := counts.stale.Load(), counts.hits.Load()
			reads := counts.reads.Load()
			entry := EntryReport{OverQuery: e.query != ""}
			if i == coherent {
				entry.OnChange = e.onChange
			}
			entry.add(reads, hits, stale)
			to.add(reads, hits, stale)
			to.Entries[e.name] = entry
		}
	}
	r.Caches.Unstale.KeysSet = d.keysSet
	if d.pipeline != nil {
		r.Pipeline = d.pipeline.report(ctx, d.service)
	}
	return r
}

func rounded(value float64, digits int) float64 {
	scale := math.Pow10(digits)
	return math.Round(value*scale) / scale
}

// Verdict returns an error if Unstale did not do what it is for: it served a
// stale hit, or so few hits that an empty cache would have done as well. Over Kafka a
// result of a query may be stale for as long as one partition lags behind another: that
// is shown, and was not promised.
func (r *Report) Verdict() error {
	ours, theirs := &r.Caches.Unstale, &r.Caches.DELAfterEvent
	var wrong []error
	stale := ours.Stale
	for _, e := range ours.Entries {
		if r.Pipeline != nil && e.OverQuery {
			stale -= e.Stale
		}
	}
	if stale > 0 {
		wrong = append(wrong, fmt.Errorf("unstale served %d stale hits, the last one %s", stale, ours.last))
	}
	if ours.Hits == 0 || ours.HitRate < theirs.HitRate/2 {
		wrong = append(wrong, fmt.Errorf("unstale's hit rate is %.1f %% where DEL after the event has %.1f %%", 100*ours.HitRate, 100*theirs.HitRate))
	}
	return errors.Join(wrong...)
}

func (s *StaleHit) String() string {
	what := s.Key
	if s.Row != "" {
		what += " shows " + s.Row
	}
	return fmt.Sprintf("%s at version %d, %s after version %d was settled", what, s.Got, s.After.Round(time.Millisecond), s.Want)
}
