package engine

import (
	"sync/atomic"
	"time"
)

// bounds of the buckets of a histogram, above the first, which is zero.
var bounds = [...]time.Duration{
	time.Millisecond, 3 * time.Millisecond, 10 * time.Millisecond, 30 * time.Millisecond, 100 * time.Millisecond,
	300 * time.Millisecond, time.Second, 3 * time.Second, 10 * time.Second,
}

// A histogram counts for how long hits had been out of date.
type histogram struct {
	// counts of zero, of up to each bound, and of more.
	counts [len(bounds) + 2]atomic.Int64
}

func (h *histogram) add(d time.Duration) {
	bucket := 0
	if d > 0 {
		for bucket = 1; bucket <= len(bounds) && d > bounds[bucket-1]; {
			bucket++
		}
	}
	h.counts[bucket].Add(1)
}
