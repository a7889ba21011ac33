package redissink

import (
	"context"
	"fmt"
	"time"

	"github.com/unstale/unstale/internal/guard"
)

// scanKeys is how many keys one SCAN looks at: about 0.3 ms of Redis' time.
const scanKeys = 1000

// Sweep goes once over the keyspace and drops the data keys and side keys of
// the templates. It is safe beside everything else: it only drops. A key that
// is there from beginning to end is seen (SCAN's guarantee).
func (s *Sink) Sweep(ctx context.Context, templates []*guard.Template) (guard.Swept, error) {
	var swept guard.Swept
	var cursor uint64
	began := time.Now()
	for {
		keys, next, err := s.client.Scan(ctx, cursor, "", scanKeys).Result()
		if err != nil {
			return swept, fmt.Errorf("scan for keys to sweep: %w", err)
		}
		swept.Scanned += scanKeys
		if err := s.dropMatching(ctx, keys, templates, &swept); err != nil {
			return swept, err
		}
		if next == 0 {
			return swept, nil
		}
		cursor = next
		pause := time.Until(began.Add(time.Duration(swept.Scanned) * time.Second / time.Duration(s.options.SweepRate)))
		select {
		case <-ctx.Done():
			return swept, ctx.Err()
		case <-time.After(pause):
		}
	}
}

func (s *Sink) dropMatching(ctx context.Context, keys []string, templates []*guard.Template, swept *guard.Swept) error {
	pipe := s.client.Pipeline()
	for _, key := range keys {
		data := key
		if owner, ok := guard.DataKey(key); ok {
			data = owner
		}
		for _, t := range templates {
			if t.Matches(data) {
				pipe.Unlink(ctx, key)
				break
			}
		}
	}
	swept.Dropped += pipe.Len()
	if pipe.Len() == 0 {
		return nil
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("drop swept keys: %w", err)
	}
	return nil
}
