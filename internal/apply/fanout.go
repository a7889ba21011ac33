package apply

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
)

// A group is what is written in one round trip.
type group struct {
	batches []*plan.Batch
	// begun are the fan-outs that the batches have begun and do not wait for.
	begun []*fanOut
	// ended, if not nil, is one whose last keys are in the batches.
	ended *fanOut
}

// A fanOut is a lookup that finds very many keys. It goes on beside the stream, so that
// the changes behind the one that has asked need not wait for it. Until its last key is
// dropped the watermark says that the entry is to be swept: who takes over from a
// session that broke does not know how far it was. settled is held meanwhile, and then
// for what the lookup has seen, as for that of any other.
type fanOut struct {
	entry int // index into Planner.Entries
	sweep guard.Sweep
	// Told with the end: a position of the log behind all that it has seen, and why its
	// keys could not be looked up after all.
	seen    uint64
	refused error

	// The writer's own. before is where settled stands, of the streams that have asked.
	before map[int]change.Position
	over   bool
}

// fanOut makes one of a statement that has found many keys, unless there are enough: it
// hands on what was found, also by the statements before it, since it is this entry
// alone that would be swept.
func (s *session) fanOut(ctx context.Context, q *statement, f *finding) error {
	f.mine <- struct{}{}
	defer func() { <-f.mine }()
	if f.fan != nil || !s.acquireFanOut() {
		return nil
	}
	if len(f.rest()) > 0 {
		if err := f.flush(ctx, nil); err != nil {
			<-s.fanOuts
			return err
		}
	}
	f.fan = s.newFanOut(q)
	f.large <- f.fan
	return nil
}

func (s *session) newFanOut(q *statement) *fanOut {
	entry := s.planner.Lookups()[q.lookup].Entry
	return &fanOut{entry: entry, sweep: guard.Sweep{Key: s.planner.Entries()[entry].Key.String()}, before: map[int]change.Position{}}
}

func (s *session) acquireFanOut() bool {
	select {
	case s.fanOuts <- struct{}{}:
		return true
	default:
		return false
	}
}

// await waits until a statement has ended or is a fan-out, which it becomes by itself, or
// because it takes long: of very many rows the first may come late, and without an index
// each. left is what was found until then.
func (s *session) await(q *statement, f *finding, ended <-chan struct{}) (fan *fanOut, left []*plan.Batch) {
	late := time.NewTimer(fanOutAfter)
	defer late.Stop()
	for {
		select {
		case fan = <-f.large:
			return fan, nil
		case <-ended:
			select {
			case fan = <-f.large:
			default:
			}
			return fan, nil
		case <-late.C:
		}
		f.mine <- struct{}{}
		if f.fan == nil && !f.over && !f.failed && s.acquireFanOut() {
			f.fan = s.newFanOut(q)
			fan, left = f.fan, f.rest()
			f.full, f.batch = nil, nil
		}
		<-f.mine
		if fan != nil {
			return fan, left
		}
	}
}

// beginFanOuts notes what a group has begun, before it moves its streams.
func (s *session) beginFanOuts(g group) {
	if len(g.begun) == 0 {
		return
	}
	for _, fan := range g.begun {
		for _, b := range g.batches {
			if !b.Beside {
				fan.before[b.Stream] = s.streams[b.Stream].written
			}
		}
		if fan.over {
			s.overFanOut(fan)
		} else {
			s.fans = append(s.fans, fan)
		}
	}
	// The first batch that moves a stream says so in the same script.
	for i, b := range g.batches {
		first := !b.Beside
		for _, earlier := range g.batches[:i] {
			first = first && (earlier.Beside || earlier.Stream != b.Stream)
		}
		if first {
			b.Note = s.note(b.Stream)
		}
	}
}

// endFanOut notes that the last keys of a fan-out are written. It may be before the
// group that has begun it is.
func (s *session) endFanOut(ctx context.Context, outages *outages, fan *fanOut) error {
	fan.over = true
	if len(fan.before) == 0 {
		return nil
	}
	s.fans = slices.DeleteFunc(s.fans, func(f *fanOut) bool { return f == fan })
	s.overFanOut(fan)
	return s.writeNotes(ctx, outages, slices.Sorted(maps.Keys(fan.before)))
}

// overFanOut: all keys of a fan-out are written, and settled waits for what it has seen.
// The entry of one that did not come to its end is swept.
func (s *session) overFanOut(fan *fanOut) {
	for stream, before := range fan.before {
		s.streams[stream].lookedUp.note(before, fan.seen)
	}
	if fan.refused == nil {
		return
	}
	entry := s.planner.Entries()[fan.entry]
	s.observer.Sweep(entry.Name, plan.Unknown.String())
	s.unapplied(entry, unanswerable(fan.refused))
	for stream, before := range fan.before {
		s.sweeps.request(sweepRequest{stream: stream, settled: before, sweeps: []guard.Sweep{fan.sweep}})
	}
	s.sweeps.wake()
}

// fannedOut is where settled stands because of fan-outs, and what is to be swept if
// the session ends now.
func (s *session) fannedOut(stream int) (before change.Position, held bool, pending []guard.Sweep) {
	for _, fan := range s.fans {
		since, asked := fan.before[stream]
		if !asked {
			continue
		}
		if !held || since.Compare(before) < 0 {
			before, held = since, true
		}
		pending = append(pending, fan.sweep)
	}
	return before, held, pending
}
