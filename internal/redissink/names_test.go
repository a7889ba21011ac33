package redissink_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
	"github.com/unstale/unstale/internal/redissink"
)

// vast is a Redis with many keys that takes every script, at once.
type vast struct{}

func (vast) DialHook(next redis.DialHook) redis.DialHook { return next }

func (vast) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(_ context.Context, command redis.Cmder) error {
		command.(*redis.IntCmd).SetVal(1_000_000) // DBSIZE
		return nil
	}
}

func (vast) ProcessPipelineHook(redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(context.Context, []redis.Cmder) error { return nil }
}

// What a sweep does to the sets of names is a script in each slot: without the pace of
// the sweep Redis would have no time for anybody else.
func TestTheNamesOfASweepKeepToItsPace(t *testing.T) {
	template, err := guard.ParseTemplate("product:{id}")
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1})
	t.Cleanup(func() { _ = client.Close() })
	client.AddHook(vast{})
	sink := redissink.New(client, redissink.Options{SweepRate: 1000})
	synctest.Test(t, func(t *testing.T) {
		keys := []plan.Keys{{Template: template}}
		for _, step := range []struct {
			name string
			do   func() error
		}{
			{"collect", func() error { return sink.Collect(t.Context(), keys, "a") }},
			{"collected", func() error { return sink.Collected(t.Context(), keys, "b") }},
			{"seal", func() error { return sink.Seal(t.Context(), keys) }},
		} {
			began := time.Now()
			if err := step.do(); err != nil {
				t.Fatalf("%s: %v", step.name, err)
			}
			if got, want := time.Since(began), guard.Slots*time.Millisecond; got != want {
				t.Errorf("%s: took %s, want %s", step.name, got, want)
			}
		}
	})
}
