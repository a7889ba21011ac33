package demo

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
)

const (
	canaryPause = 20 * time.Millisecond // on average
	// canaryMax gives up on one round: somebody else dropped its key.
	canaryMax = 10 * time.Second
)

// canary measures how long a committed change takes to reach Redis: it caches a
// row that nobody else touches in both caches that follow the stream, changes
// it, and hears from Redis when the one key goes and the other is set. The clock
// starts when COMMIT has returned: before that, nobody can know of the change.
type canary struct {
	pool      *pgxpool.Pool
	redis     *redis.Client
	keys      map[int]string        // by cache
	latencies [cacheCount]latencies // by cache
}

func newCanary(pool *pgxpool.Pool, rdb *redis.Client) *canary {
	key := "product:" + strconv.Itoa(canaryProduct)
	return &canary{pool: pool, redis: rdb, keys: map[int]string{coherent: key, delAfterEvent: delPrefix + key}}
}

// reached is a key that a change has dropped or set.
type reached struct {
	cache int
	at    time.Time
}

func (c *canary) run(ctx context.Context) error {
	channels := map[string]int{}
	pubsub := c.redis.Subscribe(ctx)
	defer pubsub.Close() // harmless twice
	for cache, key := range c.keys {
		channel := fmt.Sprintf("__keyspace@%d__:%s", c.redis.Options().DB, key)
		channels[channel] = cache
		if err := pubsub.Subscribe(ctx, channel); err != nil {
			return fmt.Errorf("listen to the canary's keys: %w", err)
		}
	}
	// Confirmed, before the first key is set.
	for range channels {
		if _, err := pubsub.Receive(ctx); err != nil {
			return fmt.Errorf("listen to the canary's keys: %w", err)
		}
	}
	work, working := errgroup.WithContext(ctx)
	changed := make(chan reached, len(c.keys))
	work.Go(func() error {
		defer pubsub.Close() // ends the receiver, which does not look at a context
		for {
			if err := c.round(working, changed); err != nil {
				return err
			}
		}
	})
	work.Go(func() error {
		for {
			message, err := pubsub.ReceiveMessage(working)
			if err != nil {
				return fmt.Errorf("listen to the canary's keys: %w", err)
			}
			if message.Payload != "del" && message.Payload != "set" {
				continue
			}
			select {
			case changed <- reached{channels[message.Channel], time.Now()}:
			case <-working.Done():
				return working.Err()
			}
		}
	})
	return work.Wait()
}

// round measures one change.
func (c *canary) round(ctx context.Context, changed <-chan reached) error {
	pause := time.Duration(rand.ExpFloat64() * float64(canaryPause))
	if err := pauseUntil(ctx, time.Now().Add(pause)); err != nil {
		return err
	}
	for len(changed) > 0 { // of a round that was given up
		<-changed
	}
	_, err := c.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, key := range c.keys {
			p.SetRange(ctx, key, 0, "canary") // an event of another name than SET's
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("cache the canary: %w", err)
	}
	var version int64
	if err := c.pool.QueryRow(ctx, priceProduct, canaryProduct, 1).Scan(&version); err != nil {
		return fmt.Errorf("change the canary: %w", err)
	}
	committed := time.Now()
	giveUp := time.NewTimer(canaryMax)
	defer giveUp.Stop()
	for range c.keys {
		select {
		case r := <-changed:
			c.latencies[r.cache].add(r.at.Sub(committed))
		case <-giveUp.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// latencies is a histogram whose buckets are two percent wide.
type latencies struct {
	mu      sync.Mutex
	buckets [1024]int64
	count   int64
}

const (
	latencyMin    = float64(time.Microsecond)
	latencyGrowth = 1.02 // over 1024 buckets: up to ten minutes
)

// add counts one latency. One below zero is none: the change was there before
// its COMMIT had returned.
func (l *latencies) add(d time.Duration) {
	bucket := 0
	if float64(d) > latencyMin {
		bucket = min(int(math.Ceil(math.Log(float64(d)/latencyMin)/math.Log(latencyGrowth))), len(l.buckets)-1)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buckets[bucket]++
	l.count++
}

// quantiles returns p50 and p99 in milliseconds, nil if there is nothing to say.
func (l *latencies) quantiles() *Latency {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.count == 0 {
		return nil
	}
	at := func(q float64) float64 {
		rank := int64(math.Ceil(q * float64(l.count)))
		for bucket, n := range l.buckets {
			if rank -= n; rank <= 0 {
				ms := latencyMin * math.Pow(latencyGrowth, float64(bucket)) / float64(time.Millisecond)
				return math.Round(ms*1000) / 1000
			}
		}
		panic("demo: a histogram whose buckets do not sum up to its count")
	}
	return &Latency{P50: at(0.50), P99: at(0.99)}
}
