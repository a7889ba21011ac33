package redissink

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
)

const (
	// namesSlots is how many sets of names one round trip asks: Redis' time for it is
	// that of a SCAN of scanKeys.
	namesSlots = 256
	// namesKeys is how many names of each one round trip has, about, and how many keys
	// one script drops.
	namesKeys = 100
)

// SweepNamed drops the keys of the templates by their names, which tell what is cached
// of them without a look at all of Redis. left are those that must be swept otherwise,
// since names are missing; what was dropped of them is no harm. One pass is enough: the
// name of a key is there from before its load on, and goes with the key and its lease.
func (s *Sink) SweepNamed(ctx context.Context, keys []plan.Keys) (left []plan.Keys, scanned, dropped int, err error) {
	p := s.newPace()
	for _, same := range byTemplate(keys) {
		prefix, ok := same[0].Prefix()
		if ok && !slices.ContainsFunc(same, func(k plan.Keys) bool { return k.Shielded }) {
			var n, gone int
			n, gone, ok, err = s.sweepNamed(ctx, p, prefix, same)
			scanned, dropped = scanned+n, dropped+gone
			if err != nil {
				return nil, scanned, dropped, err
			}
		} else {
			ok = false
		}
		if !ok {
			left = append(left, same...)
		}
	}
	return left, scanned, dropped, nil
}

// byTemplate puts together the parts of each template.
func byTemplate(keys []plan.Keys) (groups [][]plan.Keys) {
	for _, k := range keys {
		at := slices.IndexFunc(groups, func(g []plan.Keys) bool { return g[0].String() == k.String() })
		if at < 0 {
			at, groups = len(groups), append(groups, nil)
		}
		groups[at] = append(groups[at], k)
	}
	return groups
}

// sweepNamed sweeps one template, or parts of it. It is not ok if the names of a slot are
// not complete, or were not until the end.
func (s *Sink) sweepNamed(ctx context.Context, p *pace, prefix string, keys []plan.Keys) (scanned, dropped int, ok bool, err error) {
	seal := keys[0].Seal()
	for first := 0; first < guard.Slots; first += namesSlots {
		slots := make([]*named, namesSlots)
		for i := range slots {
			slots[i] = &named{set: guard.NamesKey(uint16(first+i), prefix)}
		}
		p.seen(namesSlots)
		for open := slots; len(open) > 0; {
			pipe := s.client.Pipeline()
			pages := make([]*redis.ScanCmd, len(open))
			for i, of := range open {
				pages[i] = pipe.SScan(ctx, of.set, of.cursor, "", namesKeys)
			}
			if _, err := pipe.Exec(ctx); err != nil {
				return scanned, dropped, false, fmt.Errorf("read the names of keys to sweep: %w", err)
			}
			for i, of := range open {
				var members []string
				members, of.cursor = pages[i].Val()
				for _, member := range members {
					of.sealed = of.sealed || member == seal
					if guard.IsName(member) {
						scanned++
						p.seen(1)
						if matches, _ := matching(member, keys); matches {
							of.found = append(of.found, member)
						}
					}
				}
			}
			n, err := s.dropNamed(ctx, open)
			if err != nil {
				return scanned, dropped, false, err
			}
			dropped += n
			open = slices.DeleteFunc(slices.Clone(open), func(of *named) bool { return of.cursor == 0 })
			if err := p.wait(ctx); err != nil {
				return scanned, dropped, false, err
			}
		}
		// What a set has from the beginning to the end is seen: it must be the same one.
		pipe := s.client.Pipeline()
		still := make([]*redis.BoolCmd, len(slots))
		for i, of := range slots {
			still[i] = pipe.SIsMember(ctx, of.set, seal)
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return scanned, dropped, false, fmt.Errorf("ask whether the names of keys are complete: %w", err)
		}
		for i, of := range slots {
			if !of.sealed || !still[i].Val() {
				return scanned, dropped, false, nil
			}
		}
	}
	return scanned, dropped, true, nil
}

// named is a set of names that is gone over.
type named struct {
	set    string
	cursor uint64
	sealed bool // the seal was in it
	found  []string
}

// dropNamed drops what was found, and forgets it.
func (s *Sink) dropNamed(ctx context.Context, slots []*named) (dropped int, err error) {
	err = s.known(ctx, func() error {
		var replies []*redis.Cmd
		pipe := s.client.Pipeline()
		for _, of := range slots {
			for found := range slices.Chunk(of.found, namesKeys) {
				names := []string{of.set}
				for _, key := range found {
					side, _ := guard.SideKey(key) // it has one, or would not be named
					names = append(names, key, side)
				}
				replies = append(replies, pipe.EvalSha(ctx, guard.DropNamed.SHA, names))
			}
		}
		if len(replies) == 0 {
			return nil
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return fmt.Errorf("drop named keys: %w", err)
		}
		for _, reply := range replies {
			n, err := reply.Int()
			if err != nil {
				return fmt.Errorf("reply of script %s: %w", guard.DropNamed.Name, err)
			}
			dropped += n
		}
		return nil
	})
	for _, of := range slots {
		of.found = nil
	}
	return dropped, err
}

// Collect has names be collected of the templates' keys from now on, for the sweeps to
// come, and notes in keys with which draft. What passes leave of them from then on is
// named as well. Where it is of no use, or Redis is full, there is no draft.
func (s *Sink) Collect(ctx context.Context, keys []plan.Keys, token string) error {
	size, err := s.client.DBSize(ctx).Result()
	if err != nil {
		return fmt.Errorf("ask how many keys there are: %w", err)
	}
	if size <= guard.Slots {
		return nil // to look at them all is no more than to ask each set
	}
	p := s.newPace()
	for _, same := range byTemplate(keys) {
		prefix, ok := same[0].Prefix()
		if !ok || same[0].Shielded {
			continue
		}
		draft := same[0].Template.Draft(token)
		err := s.eachNames(ctx, p, guard.Collect, prefix, draft, guard.NamesTTL.Milliseconds())
		if err != nil && strings.Contains(err.Error(), "OOM ") {
			continue
		}
		if err != nil {
			return err
		}
		note(keys, same[0], draft)
	}
	return nil
}

// Collected puts other drafts in the place of those of Collect, behind the last pass: all
// that is cached or leased of the templates is named now. It is for the caller to make
// sure that Redis has not restarted since Collect; where it does later, and goes back to
// before the passes, it goes back to before these drafts, and Seal does nothing.
func (s *Sink) Collected(ctx context.Context, keys []plan.Keys, token string) error {
	p := s.newPace()
	for _, same := range byTemplate(keys) {
		if err := s.replaceDraft(ctx, p, keys, same[0], same[0].Template.Draft(token)); err != nil {
			return err
		}
	}
	return nil
}

// Seal says of the names that they are complete, where the drafts of Collected stand.
func (s *Sink) Seal(ctx context.Context, keys []plan.Keys) error {
	p := s.newPace()
	for _, same := range byTemplate(keys) {
		if err := s.replaceDraft(ctx, p, keys, same[0], same[0].Seal()); err != nil {
			return err
		}
	}
	return nil
}

func (s *Sink) replaceDraft(ctx context.Context, p *pace, keys []plan.Keys, of plan.Keys, member string) error {
	if of.Draft == "" {
		return nil
	}
	prefix, _ := of.Prefix()
	if err := s.eachNames(ctx, p, guard.Seal, prefix, of.Draft, member); err != nil {
		return err
	}
	note(keys, of, member)
	return nil
}

// note notes the draft of all parts of a template.
func note(keys []plan.Keys, of plan.Keys, draft string) {
	for i := range keys {
		if keys[i].String() == of.String() {
			keys[i].Draft = draft
		}
	}
}

// nameLeft names the keys that a pass leaves though they are of a template whose names
// are collected: a part of it is swept. They may be there for longer than the names are.
func (s *Sink) nameLeft(ctx context.Context, keys []string, templates []plan.Keys) error {
	if !slices.ContainsFunc(templates, func(t plan.Keys) bool { return t.Draft != "" && t.Part != nil }) {
		return nil
	}
	left := func(key string) bool {
		if _, ok := guard.SideKey(key); !ok {
			return false // it is never leased, and what is there is nobody's
		}
		if matches, _ := matching(key, templates); matches {
			return false
		}
		return slices.ContainsFunc(templates, func(t plan.Keys) bool { return t.Draft != "" && t.Template.Matches(key) })
	}
	return s.known(ctx, func() error {
		pipe := s.client.Pipeline()
		for _, key := range keys {
			of, _ := guard.DataKey(key)
			for _, data := range []string{key, of} {
				if names, ok := guard.Names(data); ok && left(data) {
					pipe.EvalSha(ctx, guard.Name.SHA, []string{names}, data)
				}
			}
		}
		if pipe.Len() == 0 {
			return nil
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return fmt.Errorf("name keys that a sweep leaves: %w", err)
		}
		return nil
	})
}

// eachNames runs a script on the names of each slot, each as dear as a look at a key.
func (s *Sink) eachNames(ctx context.Context, p *pace, script guard.Script, prefix string, arguments ...any) error {
	for first := 0; first < guard.Slots; first += namesSlots {
		err := s.known(ctx, func() error {
			pipe := s.client.Pipeline()
			for slot := range namesSlots {
				pipe.EvalSha(ctx, script.SHA, []string{guard.NamesKey(uint16(first+slot), prefix)}, arguments...)
			}
			_, err := pipe.Exec(ctx)
			return err
		})
		if err != nil {
			return fmt.Errorf("script %s on names: %w", script.Name, err)
		}
		p.seen(namesSlots)
		if err := p.wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// known runs what runs scripts, and again if Redis has forgotten them.
func (s *Sink) known(ctx context.Context, run func() error) error {
	err := run()
	if err == nil || !strings.Contains(err.Error(), "NOSCRIPT") {
		return err
	}
	if err := s.load(ctx); err != nil {
		return err
	}
	return run()
}

// A pace is how fast keys are looked at.
type pace struct {
	rate  int // a second
	began time.Time
	keys  int
}

func (s *Sink) newPace() *pace { return &pace{rate: s.options.SweepRate, began: time.Now()} }

func (p *pace) seen(keys int) { p.keys += keys }

func (p *pace) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Until(p.began.Add(time.Duration(p.keys) * time.Second / time.Duration(p.rate)))):
		return nil
	}
}
