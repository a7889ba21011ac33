package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/unstale/unstale"
	"github.com/unstale/unstale/internal/stack"
)

// clientOn returns a client on a Redis, and the errors that it read around.
func clientOn(t *testing.T, r *stack.Redis, lease time.Duration) (*unstale.Client, *redis.Client, func() []string) {
	t.Helper()
	options, err := redis.ParseURL(r.URL())
	if err != nil {
		t.Fatal(err)
	}
	options.MaxRetries = -1
	rdb := redis.NewClient(options)
	t.Cleanup(func() { rdb.Close() })
	var mu sync.Mutex
	var told []string
	client, err := unstale.New(rdb, unstale.Options{Lease: lease, OnError: func(err error) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, err.Error())
	}})
	if err != nil {
		t.Fatal(err)
	}
	return client, rdb, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string{}, told...)
	}
}

func constant(value string) unstale.Load {
	return func(context.Context) ([]byte, error) { return []byte(value), nil }
}

// A popular key that is dropped must not send every reader to the database.
func TestOneReaderLoadsAndTheOthersWait(t *testing.T) {
	client, _, told := clientOn(t, sharedRedis(t), 3*time.Second)
	var loads atomic.Int32
	loading, release := make(chan struct{}), make(chan struct{})
	load := func(context.Context) ([]byte, error) {
		if loads.Add(1) == 1 {
			close(loading)
		}
		<-release
		return []byte("value"), nil
	}
	var readers sync.WaitGroup
	for range 50 {
		readers.Go(func() {
			value, err := client.Fetch(t.Context(), "herd:1", load)
			if err != nil || string(value) != "value" {
				t.Errorf("got %q, %v", value, err)
			}
		})
	}
	<-loading
	close(release)
	readers.Wait()
	if n := loads.Load(); n != 1 {
		t.Errorf("%d readers loaded, want 1", n)
	}
	if errs := told(); len(errs) > 0 {
		t.Errorf("errors read around: %v", errs)
	}
}

// A reader that dies with the lease must not lock the key for longer than the
// lease.
func TestALeaseThatIsNotGivenBackEnds(t *testing.T) {
	client, rdb, _ := clientOn(t, sharedRedis(t), 200*time.Millisecond)
	ctx := within(t, 10*time.Second)
	began := time.Now()
	slow, err := client.Fetch(ctx, "slow:1", func(leased context.Context) ([]byte, error) {
		<-leased.Done() // longer than the lease
		second, err := client.Fetch(ctx, "slow:1", constant("second"))
		if string(second) != "second" || err != nil {
			t.Errorf("the second reader got %q, %v", second, err)
		}
		return []byte("first"), nil
	})
	if string(slow) != "first" || err != nil {
		t.Errorf("the slow reader got %q, %v", slow, err)
	}
	if waited := time.Since(began); waited > 5*time.Second {
		t.Errorf("the second reader waited %s", waited)
	}
	if cached := rdb.Get(ctx, "slow:1").Val(); cached != "second" {
		t.Errorf("cached is %q: a load that outlived its lease was stored", cached)
	}
}

// A database error must not make the next reader wait for a lease.
func TestAFailedLoadGivesTheLeaseBack(t *testing.T) {
	client, rdb, _ := clientOn(t, sharedRedis(t), 30*time.Second)
	ctx := within(t, 10*time.Second)
	broken := errors.New("no connection")
	if _, err := client.Fetch(ctx, "broken:1", func(context.Context) ([]byte, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Errorf("got %v, want the error of the load", err)
	}
	if n := rdb.Exists(ctx, "broken:1", "{broken:1}:l").Val(); n != 0 {
		t.Errorf("%d keys are left", n)
	}
	if value, err := client.Fetch(ctx, "broken:1", constant("now")); string(value) != "now" || err != nil {
		t.Errorf("the next reader got %q, %v", value, err)
	}
}

// Redis must never be why a read fails: full, away, or with something else
// under the key, the reader loads.
func TestFetchReadsAroundRedis(t *testing.T) {
	t.Run("full", func(t *testing.T) {
		r := startRedis(t, stack.RedisOptions{Settings: map[string]string{"maxmemory-policy": "noeviction"}})
		client, rdb, told := clientOn(t, r, time.Second)
		ctx := within(t, 10*time.Second)
		if err := rdb.ConfigSet(ctx, "maxmemory", "1").Err(); err != nil {
			t.Fatal(err)
		}
		if value, err := client.Fetch(ctx, "full:1", constant("v")); string(value) != "v" || err != nil {
			t.Errorf("got %q, %v", value, err)
		}
		if errs := told(); len(errs) != 1 || !strings.Contains(errs[0], "OOM") {
			t.Errorf("told %v, want one OOM", errs)
		}
	})
	t.Run("full while loading", func(t *testing.T) {
		r := startRedis(t, stack.RedisOptions{Settings: map[string]string{"maxmemory-policy": "noeviction"}})
		client, rdb, _ := clientOn(t, r, time.Second)
		ctx := within(t, 10*time.Second)
		value, err := client.Fetch(ctx, "full:2", func(context.Context) ([]byte, error) {
			return []byte("v"), rdb.ConfigSet(ctx, "maxmemory", "1").Err()
		})
		if string(value) != "v" || err != nil {
			t.Errorf("got %q, %v", value, err)
		}
		if n := rdb.Exists(ctx, "full:2", "{full:2}:l").Val(); n != 0 {
			t.Errorf("%d keys are left: the lease was not given back", n)
		}
	})
	t.Run("away", func(t *testing.T) {
		r := startRedis(t, stack.RedisOptions{})
		client, _, told := clientOn(t, r, time.Second)
		if err := r.Kill(); err != nil {
			t.Fatal(err)
		}
		if value, err := client.Fetch(within(t, 20*time.Second), "away:1", constant("v")); string(value) != "v" || err != nil {
			t.Errorf("got %q, %v", value, err)
		}
		if len(told()) != 1 {
			t.Errorf("told %v, want one error", told())
		}
	})
	t.Run("another type", func(t *testing.T) {
		client, rdb, told := clientOn(t, sharedRedis(t), time.Second)
		ctx := within(t, 10*time.Second)
		rdb.HSet(ctx, "hash:1", "field", "value")
		if value, err := client.Fetch(ctx, "hash:1", constant("v")); string(value) != "v" || err != nil {
			t.Errorf("got %q, %v", value, err)
		}
		if errs := told(); len(errs) != 1 || !strings.Contains(errs[0], "WRONGTYPE") {
			t.Errorf("told %v, want one WRONGTYPE", errs)
		}
	})
	t.Run("a key without a side key", func(t *testing.T) {
		client, rdb, told := clientOn(t, sharedRedis(t), time.Second)
		ctx := within(t, 10*time.Second)
		for _, key := range []string{"a}b", "{}x"} {
			if value, err := client.Fetch(ctx, key, constant("v")); string(value) != "v" || err != nil {
				t.Errorf("%s: got %q, %v", key, value, err)
			}
			if rdb.Exists(ctx, key).Val() != 0 {
				t.Errorf("%s was cached without a lease", key)
			}
		}
		if len(told()) != 2 {
			t.Errorf("told %v, want two errors", told())
		}
	})
}

// A caller that gives up while another loads gets its own error at once.
func TestAWaitingReaderCanGiveUp(t *testing.T) {
	client, _, _ := clientOn(t, sharedRedis(t), 30*time.Second)
	gaveUp, cancel := context.WithCancelCause(t.Context())
	_, err := client.Fetch(t.Context(), "waiting:1", func(context.Context) ([]byte, error) {
		cancel(nil)
		_, err := client.Fetch(gaveUp, "waiting:1", constant("never"))
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
		return []byte("v"), nil
	})
	if err != nil {
		t.Error(err)
	}
}

// Keys that are filled together must not expire together.
func TestTimesToLiveAreSpread(t *testing.T) {
	client, rdb, _ := clientOn(t, sharedRedis(t), time.Second)
	ctx := within(t, 10*time.Second)
	seen := map[time.Duration]bool{}
	for i := range 50 {
		key := fmt.Sprintf("ttl:%d", i)
		if _, err := client.Fetch(ctx, key, constant("v")); err != nil {
			t.Fatal(err)
		}
		ttl := rdb.TTL(ctx, key).Val()
		if ttl > unstale.DefaultTTL || ttl < unstale.DefaultTTL*9/10-time.Second {
			t.Errorf("%s lives for %s", key, ttl)
		}
		seen[ttl.Round(time.Minute)] = true
	}
	if len(seen) < 25 {
		t.Errorf("50 keys end in %d different minutes", len(seen))
	}
}

// What a caller passes in is looked at before anything is done with it.
func TestWrongArgumentsAreErrors(t *testing.T) {
	if _, err := unstale.New(nil, unstale.Options{}); err == nil {
		t.Error("a nil Redis was taken")
	}
	if _, err := unstale.Key("product:{id}"); err == nil {
		t.Error("a key without its value was rendered")
	}
	client, _, _ := clientOn(t, sharedRedis(t), time.Second)
	for _, position := range []string{"", "1/2/3", "1/2/x/4", "1/2/3/x"} {
		if err := client.Barrier(t.Context(), position); err == nil {
			t.Errorf("Barrier took %q", position)
		}
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := client.Barrier(short, "1/2/3/4"); err == nil || !strings.Contains(err.Error(), "no watermark") {
		t.Errorf("waiting for a service that is not there: %v", err)
	}
}
