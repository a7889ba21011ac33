package redissink

import (
	"context"
	"crypto/rand"
	"fmt"

	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
)

const (
	// wholeMembers is how many members of sets may be given in one reply.
	wholeMembers = 8 * plan.BatchKeysMax
	// scanMembers is how many members one SSCAN looks at.
	scanMembers = 1000
)

// indexes are those of the planner, for one owner of the stream that keeps them up.
type indexes struct {
	watermark, owner string
	prefixes         []string // of the names of the sets
}

func (s *Sink) newIndexes(stream string) *indexes {
	x := &indexes{watermark: guard.WatermarkKey(0, stream), owner: s.owner}
	for _, of := range s.options.Indexes {
		x.prefixes = append(x.prefixes, guard.IndexPrefix(0, stream, of.Definition(&s.options.Entries[of.Entry])))
	}
	return x
}

// indexPrefixes begin the names of the sets that go with the keys of templates.
func (s *Sink) indexPrefixes(templates []plan.Keys) []string {
	x := s.indexes.Load()
	if x == nil {
		return nil // nobody has owned the stream yet
	}
	var prefixes []string
	for _, t := range templates {
		for _, number := range t.Indexes {
			prefixes = append(prefixes, x.prefixes[number])
		}
	}
	return prefixes
}

func (x *indexes) key(set plan.IndexSet) string { return x.prefixes[set.Index] + set.Name }

// Ask asks sets of indexes for their members, in one round trip if they have few, and
// returns what each has. It and the methods behind it need an owner of the stream.
func (s *Sink) Ask(ctx context.Context, sets []plan.IndexSet) ([]plan.Answer, error) {
	x := s.indexes.Load()
	answers := make([]plan.Answer, len(sets))
	token := guard.ReadMember(rand.Text())
	left := make([]int, len(sets)) // those that have not answered
	for i := range left {
		left[i] = i
	}
	for len(left) > 0 {
		keys := make([]string, len(left))
		for i, number := range left {
			keys[i] = x.key(sets[number])
		}
		var replies []any
		if err := s.known(ctx, func() (err error) {
			replies, err = s.client.EvalSha(ctx, guard.Members.SHA, keys, wholeMembers, token).Slice()
			return err
		}); err != nil {
			return answers, fmt.Errorf("ask sets of indexes: %w", err)
		}
		var later []int
		for i, reply := range replies {
			if reply == "LATER" {
				later = append(later, left[i])
				continue
			}
			var err error
			if answers[left[i]], err = readAnswer(reply, token); err != nil {
				return answers, err
			}
		}
		if len(replies) != len(left) || len(later) == len(left) {
			return answers, fmt.Errorf("reply of script members: %v", replies)
		}
		left = later
	}
	return answers, nil
}

func readAnswer(reply any, token string) (plan.Answer, error) {
	switch reply := reply.(type) {
	case string:
		if reply == "LARGE" {
			return plan.Answer{Token: token}, nil
		}
		return plan.Answer{}, nil
	case []any:
		answer := plan.Answer{Whole: true}
		for _, member := range reply {
			text, _ := member.(string)
			if values, ok := guard.MemberValues(nil, []byte(text)); ok {
				answer.Members = append(answer.Members, values)
			}
		}
		return answer, nil
	}
	return plan.Answer{}, fmt.Errorf("reply of script members: %v", reply)
}

// Scan calls each for every member of a set of which Ask has returned token, for some of
// them twice. It returns guard.ErrIncomplete if the set has become another one since:
// members may be missing then.
func (s *Sink) Scan(ctx context.Context, set plan.IndexSet, token string, each func(values [][]byte) error) error {
	x := s.indexes.Load()
	before, err := s.RunID(ctx)
	if err != nil {
		return err
	}
	var cursor uint64
	var values [][]byte
	for {
		members, next, err := s.client.SScan(ctx, x.key(set), cursor, "", scanMembers).Result()
		if err != nil {
			return fmt.Errorf("scan the set %s: %w", x.key(set), err)
		}
		for _, member := range members {
			var ok bool
			if values, ok = guard.MemberValues(values[:0], []byte(member)); ok {
				if err := each(values); err != nil {
					return err
				}
			}
		}
		if cursor = next; cursor == 0 {
			break
		}
	}
	// What stands in it from beginning to end is seen (SSCAN's guarantee), if it is one
	// set, in one process: another one, as that which takes over in a failover, has the
	// members in another order.
	same, err := s.client.SRem(ctx, x.key(set), token).Result()
	if err != nil {
		return fmt.Errorf("look whether the set %s is the same: %w", x.key(set), err)
	}
	after, err := s.RunID(ctx)
	if err != nil {
		return err
	}
	if same == 0 || before != after {
		return guard.ErrIncomplete
	}
	return nil
}

// BeginSet makes of a set one that is being built, whatever it was. It returns
// guard.ErrLost if the stream has another owner.
func (s *Sink) BeginSet(ctx context.Context, set plan.IndexSet) (b plan.Building, err error) {
	x := s.indexes.Load()
	b = plan.Building{Set: set, Token: guard.BuildMember(rand.Text())}
	_, err = s.run(ctx, guard.Build, []string{x.watermark, x.key(set)}, x.owner, b.Token, guard.IndexTTL.Milliseconds())
	return b, err
}

// FillSet adds members, each as guard.AppendMember has made it, to a set that is being
// built, and returns its building as it is then. It returns guard.ErrLost if the set is
// being built no more, or has lost members that were added before.
func (s *Sink) FillSet(ctx context.Context, b plan.Building, members []string) (plan.Building, error) {
	filled := b
	filled.Token = guard.BuildMember(rand.Text())
	arguments := make([]any, 0, len(members)+2)
	arguments = append(arguments, b.Token, filled.Token)
	for _, member := range members {
		arguments = append(arguments, member)
	}
	_, err := s.run(ctx, guard.Gather, []string{s.indexes.Load().key(b.Set)}, arguments...)
	return filled, err
}

// CompleteSet lets a set that is being built answer, if everything up to b.From is
// written; else it is not done. It returns guard.ErrLost as FillSet does.
func (s *Sink) CompleteSet(ctx context.Context, b plan.Building) (done bool, err error) {
	x := s.indexes.Load()
	answer, err := s.run(ctx, guard.Complete, []string{x.watermark, x.key(b.Set)}, x.owner, b.Token, b.From.Append(nil))
	return answer == guard.OK, err
}

// run runs a script of the building of a set.
func (s *Sink) run(ctx context.Context, script guard.Script, keys []string, arguments ...any) (answer string, err error) {
	err = s.known(ctx, func() (err error) {
		answer, err = s.client.EvalSha(ctx, script.SHA, keys, arguments...).Text()
		return err
	})
	switch {
	case err != nil:
		return "", fmt.Errorf("script %s: %w", script.Name, err)
	case answer == guard.Lost:
		return "", fmt.Errorf("script %s: %w", script.Name, guard.ErrLost)
	}
	return answer, nil
}
