package apply

import (
	"context"
	"time"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/plan"
)

// gateAll holds batches back until every transaction in them is visible on the
// primary. A change reaches us when its commit is flushed, which is before
// others can see it: a reader that loads in between, after we have dropped its
// key, would put the old row back.
func (s *session) gateAll(ctx context.Context, outages *outages) error {
	defer close(s.gated)
	var snapshot change.Snapshot
	var asked, lastIdle time.Time
	for {
		var group []*plan.Batch
		select {
		case <-ctx.Done():
			return nil
		case b, ok := <-s.planned:
			if !ok {
				return nil
			}
			group = append(group, b)
		}
		group = s.gather(ctx, group, lastIdle)
		if idle(group) {
			lastIdle = time.Now()
		}

		began, snapshots, said := time.Now(), 0, false
		if began.Sub(asked) > snapshotAgeMax {
			snapshot = change.Snapshot{}
		}
		for wait := gateAgainMin; !visible(&snapshot, group); wait = min(2*wait, max(gateAgainMax, min(time.Since(began)/100, gateAgainLong))) {
			if snapshots > 0 && !sleep(ctx, wait) {
				return nil
			}
			if err := s.snapshot(ctx, outages, &snapshot); err != nil {
				return err
			}
			asked = time.Now()
			snapshots++
			if !said && time.Since(began) > gateSayAfter {
				said = true
				s.logger.Warn("commits have reached the log and are not visible yet: is a synchronous standby stalled?", "waited", time.Since(began).Round(time.Second))
			}
		}
		s.observer.Gated(time.Since(began), snapshots)
		group, err := s.find(ctx, outages, group)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		select {
		case s.gated <- group:
		case <-ctx.Done():
			return nil
		}
	}
}

// gather adds what is planned already. While only positions move it waits, so
// that a busy database whose changes do not concern us costs Redis little.
func (s *session) gather(ctx context.Context, group []*plan.Batch, lastIdle time.Time) []*plan.Batch {
	for len(group) < groupBatchesMax {
		var b *plan.Batch
		var ok bool
		if wait := time.Until(lastIdle.Add(idleWriteEvery)); wait > 0 && idle(group) {
			select {
			case b, ok = <-s.planned:
			case <-time.After(wait):
				return group
			case <-ctx.Done():
				return group
			}
		} else {
			select {
			case b, ok = <-s.planned:
			default:
				return group
			}
		}
		if !ok {
			return group // closed; the caller's next receive sees it
		}
		if last := len(group) - 1; idle(group[last:]) && group[last].Stream == b.Stream {
			s.recycle(group[last])
			group = group[:last]
		}
		group = append(group, b)
	}
	return group
}

// idle reports whether the batches move the position and nothing else.
func idle(batches []*plan.Batch) bool {
	for _, b := range batches {
		if b.Changes > 0 || len(b.CommittedAt) > 0 || len(b.Sweeps) > 0 {
			return false
		}
	}
	return true
}

func visible(snapshot *change.Snapshot, batches []*plan.Batch) bool {
	for _, b := range batches {
		for _, xid := range b.XIDs {
			if !snapshot.Visible(xid) {
				return false
			}
		}
	}
	return true
}

func (s *session) snapshot(ctx context.Context, outages *outages, snapshot *change.Snapshot) error {
	var asked time.Time
	err := outages.persist(ctx, serverDatabase, func(ctx context.Context) error {
		s.asking.Lock()
		defer s.asking.Unlock()
		asked = time.Now()
		return s.gate.Snapshot(ctx, snapshot)
	})
	if err != nil {
		return err
	}
	s.oldest.Store(snapshot.XMin)
	// What is above this position was committed after the question was asked.
	s.lag.sample(asked, snapshot.InsertLSN)
	return nil
}

// sleep reports whether the whole time has passed.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
