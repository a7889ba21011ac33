package demo

import (
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
	Reads   int64   `json:"reads"`
	Hits    int64   `json:"hits"` // reads that did not load from the database
	HitRate float64 `json:"hit_rate"`
	// Stale counts the hits that were older than a change which was committed,
	// and settled, before the read began.
	Stale int64 `json:"stale"`
	// Latency is from COMMIT to Redis; nil for a cache that hears of no change.
	Latency *Latency `json:"latency_ms"`

	last *StaleHit
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

func (d *Demo) report() Report {
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
		// Hits before reads, or there could be more of them.
		*to = CacheReport{Stale: c.stale.Load(), Hits: c.hits.Load(), last: c.last.Load(), Latency: d.canary.latencies[i].quantiles()}
		to.Reads = c.reads.Load()
		if to.Reads > 0 {
			to.HitRate = rounded(float64(to.Hits)/float64(to.Reads), 4)
		}
	}
	return r
}

func rounded(value float64, digits int) float64 {
	scale := math.Pow10(digits)
	return math.Round(value*scale) / scale
}

// Verdict returns an error if Unstale did not do what it is for: it served a
// stale hit, or so few hits that an empty cache would have done as well.
func (r *Report) Verdict() error {
	ours, theirs := &r.Caches.Unstale, &r.Caches.DELAfterEvent
	var wrong []error
	if ours.Stale > 0 {
		wrong = append(wrong, fmt.Errorf("unstale served %d stale hits, the last one %s", ours.Stale, ours.last))
	}
	if ours.Hits == 0 || ours.HitRate < theirs.HitRate/2 {
		wrong = append(wrong, fmt.Errorf("unstale's hit rate is %.1f %% where DEL after the event has %.1f %%", 100*ours.HitRate, 100*theirs.HitRate))
	}
	return errors.Join(wrong...)
}

func (s *StaleHit) String() string {
	return fmt.Sprintf("%s at version %d, %s after version %d was settled", s.Key, s.Got, s.After.Round(time.Millisecond), s.Want)
}
