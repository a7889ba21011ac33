package engine

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"github.com/unstale/unstale/internal/guard"
)

// Prefixes of the keys that the consumer keeps.
const (
	setPrefix   = "set:"
	lsnPrefix   = "lsn:"
	leasePrefix = "lease:"
)

// A consumer does what is usually done with a change stream, as soon as a change
// arrives: for one lane SET and DEL, for one the same if the change's LSN is
// higher than what is known of the key, for one UNLINK of key and lease. It
// loses nothing: what it has not written it reads again.
type consumer struct {
	url  string
	rdb  *redis.Client
	rows int // of the table
	// columns is the table's shape, as the stream described it last.
	columns []string

	mu      sync.Mutex
	broken  error         // what the stream ended with last
	reached uint64        // everything below is written
	moved   chan struct{} // closed when reached moves, and replaced
}

const consumerSlot = "chaos_control" // and publication

func newConsumer(ctx context.Context, conn *pgx.Conn, url string, rdb *redis.Client, rows int) (*consumer, error) {
	for _, statement := range []string{
		"CREATE PUBLICATION " + consumerSlot + " FOR TABLE items",
		"SELECT pg_create_logical_replication_slot('" + consumerSlot + "', 'pgoutput')",
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return nil, fmt.Errorf("the controls' stream: %w", err)
		}
	}
	return &consumer{url: url, rdb: rdb, rows: rows, moved: make(chan struct{})}, nil
}

func (c *consumer) run(ctx context.Context) {
	for pause(ctx.Done(), retryPause) {
		err := c.attempt(ctx) // a server may be away
		c.mu.Lock()
		c.broken = err
		c.mu.Unlock()
	}
}

func (c *consumer) attempt(ctx context.Context) error {
	f, err := follow(ctx, c.url, "database", consumerSlot, fmt.Sprintf(
		"START_REPLICATION SLOT %s LOGICAL 0/0 (proto_version '1', publication_names '%[1]s')", consumerSlot))
	if err != nil {
		return err
	}
	defer f.close()
	defer context.AfterFunc(ctx, f.close)()
	pipe := c.rdb.Pipeline()
	for told := time.Now(); ; {
		kind, lsn, data, err := f.next()
		if err != nil {
			return err
		}
		if kind == 'w' {
			if lsn = c.apply(ctx, pipe, lsn, data); lsn == 0 {
				continue // in the middle of a transaction
			}
			if err := execute(ctx, pipe); err != nil {
				return fmt.Errorf("write to Redis: %w", err)
			}
		}
		c.advance(lsn)
		if kind == 'k' || time.Since(told) > 100*time.Millisecond {
			if err := f.confirm(lsn); err != nil {
				return err
			}
			told = time.Now()
		}
	}
}

// apply adds to pipe what a message of pgoutput asks for. It returns the end of
// the transaction that the message ends, 0 for any other.
func (c *consumer) apply(ctx context.Context, pipe redis.Pipeliner, lsn uint64, data []byte) uint64 {
	m := pgoutput(data)
	switch m.byte() {
	case 'R':
		c.columns = m.columns()
	case 'I':
		m.number(4) // the relation: there is but one
		m.byte()    // N
		c.set(ctx, pipe, lsn, m.tuple())
	case 'U':
		m.number(4)
		if m.byte() != 'N' { // the key has moved
			c.del(ctx, pipe, lsn, m.tuple())
			m.byte()
		}
		c.set(ctx, pipe, lsn, m.tuple())
	case 'D':
		m.number(4)
		m.byte()
		c.del(ctx, pipe, lsn, m.tuple())
	case 'T':
		for id := range c.rows {
			c.del(ctx, pipe, lsn, [][]byte{strconv.AppendInt(nil, int64(id), 10)})
		}
	case 'C':
		m.byte()    // flags
		m.number(8) // where the commit record begins
		return m.number(8)
	}
	return 0
}

// ifNewer SETs, or deletes where the value is empty, unless something newer is
// known of the key. KEYS: 1 key, 2 its LSN. ARGV: 1 LSN, 2 value.
var ifNewer = redis.NewScript(`
if tonumber(redis.call('GET', KEYS[2]) or 0) > tonumber(ARGV[1]) then return 0 end
if ARGV[2] == '' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], ARGV[2]) end
redis.call('SET', KEYS[2], ARGV[1])
return 1`)

func lsnKeys(key string) []string { return []string{key, key + ":at"} }

func (c *consumer) set(ctx context.Context, pipe redis.Pipeliner, lsn uint64, values [][]byte) {
	id, text := string(values[0]), render(c.columns, values)
	pipe.Set(ctx, setPrefix+id, text, 0)
	ifNewer.Eval(ctx, pipe, lsnKeys(lsnPrefix+id), lsn, text)
	c.unlink(ctx, pipe, id)
}

func (c *consumer) del(ctx context.Context, pipe redis.Pipeliner, lsn uint64, values [][]byte) {
	id := string(values[0])
	pipe.Del(ctx, setPrefix+id)
	ifNewer.Eval(ctx, pipe, lsnKeys(lsnPrefix+id), lsn, "")
	c.unlink(ctx, pipe, id)
}

func (c *consumer) unlink(ctx context.Context, pipe redis.Pipeliner, id string) {
	side, _ := guard.SideKey(leasePrefix + id)
	pipe.Unlink(ctx, leasePrefix+id, side)
}

// execute sends the pipeline and empties it.
func execute(ctx context.Context, pipe redis.Pipeliner) error {
	defer pipe.Discard()
	if pipe.Len() == 0 {
		return nil
	}
	_, err := pipe.Exec(ctx)
	return err
}

func (c *consumer) advance(lsn uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if lsn > c.reached {
		c.reached = lsn
		close(c.moved)
		c.moved = make(chan struct{})
	}
}

// await waits until everything below lsn is written.
func (c *consumer) await(ctx context.Context, lsn uint64) error {
	for {
		c.mu.Lock()
		reached, moved, broken := c.reached >= lsn, c.moved, c.broken
		c.mu.Unlock()
		if reached {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the controls' consumer: %w (it was interrupted by: %v)", ctx.Err(), broken)
		case <-moved:
		}
	}
}
