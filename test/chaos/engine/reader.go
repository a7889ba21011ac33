package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"github.com/unstale/unstale"
	"github.com/unstale/unstale/internal/guard"
)

// readAtOnce is how many keys a reader asks for at a time, at most. It is what makes
// ten million judged hits cheap.
const readAtOnce = 16

// fillers is how many readers of a lane load what is missing; missesMax is how many
// keys may wait for them.
const (
	fillers   = 6
	missesMax = 64
)

// read reads some rows of a lane after the other, and leaves what is missing to
// the fillers.
func (t *Traffic) read(ctx context.Context, l *lane, random *rand.Rand, missing chan<- int) {
	var rows []int
	var looks []look
	var keys []string
	for wait := t.options.ReadPause; pause(ctx.Done(), wait); {
		wait = t.options.ReadPause
		rows, looks, keys = rows[:0], looks[:0], keys[:0]
		for range readAtOnce {
			if row := l.pick(random); !slices.Contains(rows, row) {
				rows, looks, keys = append(rows, row), append(looks, t.oracle.look(l, row)), append(keys, l.key(row))
			}
		}
		texts, err := l.cached(ctx, t.rdb, keys)
		if err != nil {
			t.readError(ctx, err)
			wait = retryPause
			continue
		}
		for i, row := range rows {
			if texts[i] != nil {
				l.asked.Add(1)
				l.there.Add(1)
				t.oracle.judge(l, row, looks[i], texts[i])
				continue
			}
			if !t.oracle.absent(row) { // what is not there need not be cached
				l.asked.Add(1)
			}
			select {
			case missing <- row:
			default: // they have enough to do
			}
		}
	}
}

// fill reads through the cache what is missing.
func (t *Traffic) fill(ctx context.Context, l *lane, random *rand.Rand, missing <-chan int) {
	s := &session{url: t.options.Database}
	defer s.close()
	for {
		select {
		case <-ctx.Done():
			return
		case row := <-missing:
			if err := t.fetch(ctx, l, s, row, t.think(random), waitMax); err != nil {
				t.readError(ctx, err)
				pause(ctx.Done(), retryPause)
			}
		}
	}
}

func (t *Traffic) readError(ctx context.Context, err error) {
	if ctx.Err() == nil {
		t.readErrors.Add(1)
		t.lastReadError.Store(err.Error())
	}
}

// waitMax is how long a filler waits for another, at most.
const waitMax = 2 * time.Second

// think is what an application does between the query and the fill. It makes the
// race between a fill and a change wide enough to be met often. Now and then it
// takes longer than the lease.
func (t *Traffic) think(random *rand.Rand) time.Duration {
	if random.IntN(2000) == 0 {
		return Lease + 100*time.Millisecond
	}
	return time.Duration(random.Int64N(int64(20 * time.Millisecond)))
}

// fetch reads one row through the cache, unless it has to wait for another reader
// longer than patience. What it did not load itself is a hit.
func (t *Traffic) fetch(ctx context.Context, l *lane, s *session, row int, think, patience time.Duration) error {
	before, loaded := t.oracle.look(l, row), false
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	// It loads on when its lease has ended, as bad clients do: then it may not fill.
	text, err := l.fetch(t, waiting, l.key(row), func(context.Context) (text []byte, lsn int64, err error) {
		loaded = true
		l.loads.Add(1)
		err = s.do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
			text, lsn, err = l.load(ctx, conn, row)
			return err
		})
		if err == nil {
			l.cells[row].events.add(t.oracle.now(), "reader", "loads "+t.oracle.summary(row, text))
			if think > 0 && !pause(ctx.Done(), think) {
				err = ctx.Err()
			}
		}
		return text, lsn, err
	})
	if err == nil && !loaded {
		t.oracle.judge(l, row, before, text)
	}
	return err
}

// cached asks for keys: nil is what is not there.
func (l *lane) cached(ctx context.Context, rdb *redis.Client, keys []string) ([][]byte, error) {
	if l.hash {
		return cachedHashes(ctx, rdb, keys)
	}
	values, err := rdb.MGet(ctx, keys...).Result()
	if err != nil {
		return nil, err
	}
	texts := make([][]byte, len(values))
	for i, value := range values {
		if text, ok := value.(string); ok {
			texts[i] = []byte(text)
		}
	}
	return texts, nil
}

func cachedHashes(ctx context.Context, rdb *redis.Client, keys []string) ([][]byte, error) {
	commands := make([]*redis.MapStringStringCmd, len(keys))
	_, err := rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, key := range keys {
			commands[i] = pipe.HGetAll(ctx, key)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	texts := make([][]byte, len(keys))
	for i, command := range commands {
		if fields := command.Val(); len(fields) > 0 {
			texts[i] = textOf(fields)
		}
	}
	return texts, nil
}

// fetchLeased reads as one should.
func fetchLeased(t *Traffic, ctx context.Context, key string, load load) ([]byte, error) {
	return t.client.Fetch(ctx, key, func(ctx context.Context) ([]byte, error) {
		text, _, err := load(ctx)
		return text, err
	})
}

// fetchKept reads as one should where the service writes values, too.
func fetchKept(t *Traffic, ctx context.Context, key string, load load) ([]byte, error) {
	return t.client.FetchKept(ctx, key, unstale.LoadKept(load))
}

// fetchHash is fetchKept for hashes.
func fetchHash(t *Traffic, ctx context.Context, key string, load load) ([]byte, error) {
	fields, err := t.client.FetchHash(ctx, key, func(ctx context.Context) (map[string]string, int64, error) {
		text, lsn, err := load(ctx)
		return fieldsOf(text), lsn, err
	})
	return textOf(fields), err
}

// fetchPlain reads as everyone does: SET what was loaded.
func fetchPlain(t *Traffic, ctx context.Context, key string, load load) ([]byte, error) {
	text, err := t.rdb.Get(ctx, key).Bytes()
	if !errors.Is(err, redis.Nil) {
		return text, err
	}
	if text, _, err = load(ctx); err == nil {
		err = t.rdb.Set(ctx, key, text, time.Hour).Err()
	}
	return text, err
}

// fetchLSN reads as one does who knows of the race: what was loaded is written
// unless the key has had a change that is newer.
func fetchLSN(t *Traffic, ctx context.Context, key string, load load) ([]byte, error) {
	text, err := t.rdb.Get(ctx, key).Bytes()
	if !errors.Is(err, redis.Nil) {
		return text, err
	}
	text, lsn, err := load(ctx)
	if err == nil {
		err = ifNewer.Eval(ctx, t.rdb, lsnKeys(key), lsn, text).Err()
	}
	return text, err
}

// expire throws keys away now and then, as a TTL does, so that there are fills
// where changes are written too.
func (t *Traffic) expire(ctx context.Context, random *rand.Rand) {
	keys := make([]string, len(t.lanes))
	for pause(ctx.Done(), expireEvery) {
		for i, l := range t.lanes {
			keys[i] = l.key(l.pick(random))
		}
		_ = t.rdb.Unlink(ctx, keys...).Err() // Redis may be away
	}
}

const expireEvery = 20 * time.Millisecond

// How many readers of a lane hunt, how many drops may wait for them, and for how
// long they wait where another was faster.
const (
	hunters   = 2
	huntQueue = 16
	huntWait  = 5 * time.Millisecond
)

// hunt has readers come at the moment at which a key is dropped, as they do where
// a key is read all the time. They load at once and do not think, so that what
// they see is as old as it can be.
func (t *Traffic) hunt(ctx context.Context) {
	drops := t.rdb.Subscribe(ctx, fmt.Sprintf("__keyevent@%d__:del", t.options.Redis.DB))
	defer drops.Close()
	queues := map[*lane]chan int{}
	for _, l := range t.lanes {
		queue := make(chan int, huntQueue)
		queues[l] = queue
		for range hunters {
			t.others.Go(func() {
				s := &session{url: t.options.Database}
				defer s.close()
				for row := range queue {
					_ = t.fetch(ctx, l, s, row, 0, huntWait) // a server may be away
				}
			})
		}
		defer close(queue)
	}
	for {
		select {
		case <-ctx.Done():
			return
		case drop, ok := <-drops.Channel():
			if !ok {
				return
			}
			if l, row, ok := t.owner(drop.Payload); ok {
				select {
				case queues[l] <- row:
				default: // enough are hunting
				}
			}
		}
	}
}

// owner finds the lane and the row of a key.
func (t *Traffic) owner(key string) (*lane, int, bool) {
	for _, l := range t.lanes {
		if number, ok := strings.CutPrefix(key, l.prefix); ok {
			n, err := strconv.Atoi(number)
			return l, l.first + n, err == nil && n < l.count
		}
	}
	return nil, 0, false
}

// summary says which version of a row a text is of.
func (o *oracle) summary(row int, text []byte) string {
	if string(text) == absent {
		return "no row"
	}
	return fmt.Sprintf("version %d", o.ledgers[row].read(text).version)
}

// inspect says what there is of a key right now.
func (t *Traffic) inspect(l *lane, row int) string {
	ctx, cancel := context.WithTimeout(t.ctx, time.Second)
	defer cancel()
	describe := func(what string, text []byte, err error) string {
		switch {
		case errors.Is(err, redis.Nil):
			return what + " nothing"
		case err != nil:
			return fmt.Sprintf("%s unknown (%v)", what, err)
		}
		return what + " " + t.oracle.summary(row, text)
	}
	var text []byte
	texts, err := l.cached(ctx, t.rdb, []string{l.key(row)})
	if err == nil {
		if text = texts[0]; text == nil {
			err = redis.Nil
		}
	}
	said := describe("Redis has", text, err)
	side, _ := guard.SideKey(l.key(row))
	lease, err := t.rdb.Get(ctx, side).Bytes()
	if err == nil {
		said += fmt.Sprintf(", side key %x", lease)
	}
	s := &session{url: t.options.Database}
	defer s.close()
	err = s.do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		text, _, err = l.load(ctx, conn, row)
		return err
	})
	return said + describe(", PostgreSQL has", text, err)
}
