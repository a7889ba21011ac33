package redissink

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
)

// scanKeys is how many keys one SCAN looks at: about 0.3 ms of Redis' time.
const scanKeys = 1000

// Sweep goes once over the keyspace and drops the data keys and side keys of the
// templates, and the sets of their indexes. It is safe beside everything else: it only
// drops. A key that is there from beginning to end is seen (SCAN's guarantee).
func (s *Sink) Sweep(ctx context.Context, templates []plan.Keys) (scanned, dropped int, err error) {
	var cursor uint64
	p := s.newPace()
	for {
		keys, next, err := s.client.Scan(ctx, cursor, "", scanKeys).Result()
		if err != nil {
			return scanned, dropped, fmt.Errorf("scan for keys to sweep: %w", err)
		}
		scanned += len(keys)
		p.seen(len(keys))
		var n int
		err = s.known(ctx, func() (err error) {
			n, err = s.dropMatching(ctx, keys, templates)
			return err
		})
		if err != nil {
			return scanned, dropped, err
		}
		dropped += n
		if err := s.nameLeft(ctx, keys, templates); err != nil {
			return scanned, dropped, err
		}
		if next == 0 {
			return scanned, dropped, nil
		}
		cursor = next
		if err := p.wait(ctx); err != nil {
			return scanned, dropped, err
		}
	}
}

// Drop drops the keys of a batch and ends their leases, whatever the batch would
// do to them. As a sweep does, it writes nothing else and needs no stream to own.
func (s *Sink) Drop(ctx context.Context, b *plan.Batch) error {
	return s.known(ctx, func() error { return s.drop(ctx, b) })
}

func (s *Sink) drop(ctx context.Context, b *plan.Batch) error {
	pipe := s.client.Pipeline()
	for i := range b.Len() {
		key := string(b.Key(i))
		side, ok := guard.SideKey(key)
		switch {
		case ok && s.options.Entries[b.Entry(i)].Sets():
			pipe.EvalSha(ctx, guard.Forget.SHA, []string{key, side})
		case ok:
			pipe.Unlink(ctx, key, side)
		default:
			pipe.Unlink(ctx, key)
		}
	}
	if pipe.Len() == 0 {
		return nil
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("drop keys: %w", err)
	}
	return nil
}

func (s *Sink) dropMatching(ctx context.Context, keys []string, templates []plan.Keys) (dropped int, err error) {
	pipe := s.client.Pipeline()
	sets := s.indexPrefixes(templates)
	for _, key := range keys {
		if slices.ContainsFunc(sets, func(prefix string) bool { return strings.HasPrefix(key, prefix) }) {
			pipe.Unlink(ctx, key)
			continue
		}
		// What has the form of a side key can be a data key all the same:
		// {7}:l is one of {{{user}}}:{kind}.
		data := key
		matches, shielded := matching(data, templates)
		if of, isSide := guard.DataKey(key); isSide && !matches {
			data = of
			matches, shielded = matching(data, templates)
		}
		if !matches {
			continue
		}
		if side, ok := guard.SideKey(data); ok && shielded {
			pipe.EvalSha(ctx, guard.Forget.SHA, []string{data, side})
		} else {
			pipe.Unlink(ctx, key)
		}
	}
	if dropped = pipe.Len(); dropped == 0 {
		return 0, nil
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return 0, fmt.Errorf("drop swept keys: %w", err)
	}
	return dropped, nil
}

// matching reports whether a data key is one of the templates, and whether
// shields are left beside it. An entry's old template and its new one may spell
// the same keys: then what the new one says of shields counts.
func matching(key string, templates []plan.Keys) (matches, shielded bool) {
	for _, t := range templates {
		if t.Matches(key) {
			matches = true
			shielded = shielded || t.Shielded
		}
	}
	return matches, shielded
}
