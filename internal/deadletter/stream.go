package deadletter

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
)

// StreamLettersMax is how many letters a stream holds, about: what is older goes.
const StreamLettersMax = 10_000

// readLetters is how many letters are read in one round trip.
const readLetters = 1000

// appendScript may run on a full Redis: the stream is short, and a change must
// not wait until there is room. Redis numbers the letters, from one.
// KEYS: 1 stream. ARGV: 1 length, then fields and their values.
const appendScript = "#!lua flags=allow-oom\n" +
	"return redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '0-*', unpack(ARGV, 2))"

// A Stream holds the letters of one stream of changes, in Redis.
type Stream struct {
	client *redis.Client
	key    string
	name   string
}

// NewStream returns the letters of the stream of that name.
func NewStream(client *redis.Client, name string) *Stream {
	return &Stream{client, guard.DeadlettersKey(0, name), name}
}

// Append writes a letter. What only a person can mend is a *change.Refusal.
func (s *Stream) Append(ctx context.Context, l *Letter) error {
	fields := []any{
		StreamLettersMax, "time", l.Time.UTC().Format(time.RFC3339), "error", l.Reason, "table", l.Table,
		"entries", strings.Join(l.Entries, ","), "position", l.Change.Position, "xid", l.Change.XID,
	}
	err := s.client.Eval(ctx, appendScript, []string{s.key}, fields...).Err()
	switch {
	case err == nil:
		return nil
	case strings.Contains(err.Error(), "NOPERM"), strings.Contains(err.Error(), "ACL failure"):
		return &change.Refusal{
			Problem: fmt.Sprintf("this user may not write dead letters into Redis (%s): %v", s.key, err),
			Mend:    "ACL SETUSER with ~unstale:* and +xadd +xrange +xdel for it",
		}
	}
	return fmt.Errorf("write a dead letter into %s of Redis: %w", s.key, err)
}

// List returns the letters, in the order in which they were kept.
func (s *Stream) List(ctx context.Context) ([]Letter, error) {
	var letters []Letter
	for from := "-"; ; {
		found, err := s.client.XRangeN(ctx, s.key, from, "+", readLetters).Result()
		if err != nil {
			return nil, fmt.Errorf("read dead letters from %s of Redis: %w", s.key, err)
		}
		for _, message := range found {
			l, err := s.letter(message)
			if err != nil {
				return nil, err
			}
			letters = append(letters, l)
		}
		if len(found) < readLetters {
			return letters, nil
		}
		from = "(" + found[len(found)-1].ID
	}
}

// Read returns the letter of that number.
func (s *Stream) Read(ctx context.Context, number int64) (Letter, error) {
	id := streamID(number)
	found, err := s.client.XRange(ctx, s.key, id, id).Result()
	switch {
	case err != nil:
		return Letter{}, fmt.Errorf("read dead letter %d from %s of Redis: %w", number, s.key, err)
	case len(found) == 0:
		return Letter{}, fmt.Errorf("dead letter %d is gone", number)
	}
	return s.letter(found[0])
}

// Remove takes a letter away.
func (s *Stream) Remove(ctx context.Context, l Letter) error {
	if err := s.client.XDel(ctx, s.key, streamID(l.Number)).Err(); err != nil {
		return fmt.Errorf("remove dead letter %d from %s of Redis: %w", l.Number, s.key, err)
	}
	return nil
}

// Close does nothing: the client is not ours.
func (s *Stream) Close() {}

func streamID(number int64) string { return "0-" + strconv.FormatInt(number, 10) }

func (s *Stream) letter(message redis.XMessage) (Letter, error) {
	_, sequence, _ := strings.Cut(message.ID, "-")
	number, err := strconv.ParseInt(sequence, 10, 64)
	if err != nil {
		return Letter{}, fmt.Errorf("dead letter %s in %s of Redis: %w", message.ID, s.key, err)
	}
	text := func(field string) string {
		value, _ := message.Values[field].(string)
		return value
	}
	l := Letter{Number: number, Reason: text("error"), Table: text("table"), Change: &Change{Stream: s.name, Position: text("position")}}
	l.Time, _ = time.Parse(time.RFC3339, text("time")) // of a letter that somebody else has written it is zero
	if names := text("entries"); names != "" {
		l.Entries = strings.Split(names, ",")
	}
	xid, _ := strconv.ParseUint(text("xid"), 10, 32)
	l.Change.XID = uint32(xid)
	return l, nil
}
