package redissink_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
	"github.com/unstale/unstale/internal/redissink"
)

// A row decides what stands in a hash tag, so it may be nothing. Such a key can
// have no lease, which is its own trouble: a service that stopped for it would
// stop again at each start.
func TestAKeyWithAnEmptyTagHasNoLease(t *testing.T) {
	template, err := guard.ParseTemplate("{{{sku}}}:p")
	if err != nil {
		t.Fatal(err)
	}
	e := &plan.Entry{Name: "p", Key: template, Lease: guard.Lease, OnChange: plan.Warm, TTL: time.Hour}
	// Nothing listens there: Redis is not asked.
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1})
	t.Cleanup(func() { _ = client.Close() })
	leases, keys := redissink.NewLeases(client), []string{template.Key("")}

	begun, stands, err := leases.Begin(t.Context(), guard.Claim{}, e, "token", keys)
	if err != nil || !stands || begun[0].Err == nil {
		t.Errorf("begin: %+v, stands %v, %v", begun, stands, err)
	}
	filled, err := leases.Fill(t.Context(), e, "token", 0, keys, [][]string{{"value"}})
	if err != nil || filled[0] != guard.Refused {
		t.Errorf("fill: %v, %v", filled, err)
	}
	if err := leases.Release(t.Context(), "token", keys); err != nil {
		t.Errorf("release: %v", err)
	}
}
