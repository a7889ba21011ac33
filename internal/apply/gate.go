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
	looking, endLooking := context.WithCancel(ctx)
	ended := false
	defer func() {
		// Fan-outs go on until the session's time is over. Who waits for streams that
		// are no longer ours need not wait for them.
		if !ended || s.over != nil {
			endLooking()
		}
		s.fanning.Wait()
		endLooking()
		close(s.gated)
	}()
	var snapshot change.Snapshot
	var asked, lastIdle time.Time
	for {
		var group []*plan.Batch
		select {
		case <-ctx.Done():
			return nil
		case b, ok := <-s.planned:
			if !ok {
				ended = true
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
		for wait := gateAgainMin; ; wait = min(2*wait, max(gateAgainMax, min(time.Since(began)/100, gateAgainLong))) {
			// Only what was asked behind a record tells whether it is of another server.
			hidden, xid := s.hidden(&snapshot, group, snapshots > 0)
			if hidden == nil {
				break
			}
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
				s.sayHidden(hidden.Stream, xid, time.Since(began))
			}
		}
		s.observer.Gated(time.Since(began), snapshots)
		found, err := s.find(looking, outages, group, snapshot.InsertLSN)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		select {
		case s.gated <- found:
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

// hidden returns the first batch with a transaction that is to become visible, and
// which that is; nil if there is none. One of another server never will: in a topic
// may be what a former primary has sent, or the connector is not where our database
// connection is. It is not waited for, and its batch writes no value. fresh: the
// snapshot is younger than the batches.
func (s *session) hidden(snapshot *change.Snapshot, batches []*plan.Batch, fresh bool) (b *plan.Batch, xid uint32) {
	for _, b := range batches {
		for _, xid := range b.XIDs {
			switch {
			case snapshot.Visible(xid):
			case fresh && !s.streams[b.Stream].End.IsZero() && snapshot.Foreign(xid):
				b.Disown()
				s.sayForeign(b.Stream, xid)
			default:
				return b, xid
			}
		}
	}
	return nil, 0
}

func (s *session) sayHidden(stream int, xid uint32, waited time.Duration) {
	why := "is a synchronous standby stalled?"
	if !s.streams[stream].End.IsZero() {
		why = "is a synchronous standby stalled, or is the change of another server, where that number is another transaction's?"
	}
	s.logger.Warn("a commit has reached the log and is not visible yet: "+why,
		"transaction", xid, "stream", s.streams[stream].Name, "waited", waited.Round(time.Second))
}

// sayForeign says once a session that there are changes of another server.
func (s *session) sayForeign(stream int, xid uint32) {
	if s.saidForeign {
		return
	}
	s.saidForeign = true
	s.logger.Warn("changes of a transaction that the primary has never begun: they are of another server, and drop their keys; does the connector read the server that `database` names?",
		"transaction", xid, "stream", s.streams[stream].Name)
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
