package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
	"github.com/unstale/unstale/internal/redissink"
	"github.com/unstale/unstale/internal/stack"
)

// leaseEntry is an entry whose keys are item:<id>.
func leaseEntry(t *testing.T, onChange plan.OnChange, hash bool) *plan.Entry {
	t.Helper()
	template, err := guard.ParseTemplate("item:{id}")
	if err != nil {
		t.Fatal(err)
	}
	return &plan.Entry{Name: "item", Key: template, OnChange: onChange, Hash: hash, Lease: guard.Lease, TTL: time.Hour}
}

// One round trip, many keys, and each has its own answer.
func TestLeasesOfManyKeysInOneRoundTrip(t *testing.T) {
	server := startRedis(t, stack.RedisOptions{})
	for _, hash := range []bool{false, true} {
		t.Run(fmt.Sprint("hash ", hash), func(t *testing.T) {
			m := masterOn(t, server, false)
			m.do("FLUSHALL")
			m.do("SCRIPT", "FLUSH")
			leases, ctx, e := redissink.NewLeases(m.client), within(t, time.Minute), leaseEntry(t, plan.Warm, hash)
			value := func(text string) []string { return []string{text} }
			if hash {
				value = func(text string) []string { return []string{"name", text, "empty", ""} }
			}
			keys := []string{"item:cached", "item:taken", "item:list", "item:1", "item:2", "item:3", "item:4", "{}:tag"}
			if hash {
				m.do("HSET", "item:cached", "name", "x")
			} else {
				m.do("SET", "item:cached", "x")
			}
			if _, _, err := leases.Begin(ctx, guard.Claim{}, e, "other", keys[1:2]); err != nil {
				t.Fatal(err)
			}
			m.do("RPUSH", "item:list", "x")
			m.do("SCRIPT", "FLUSH") // somebody cleans up
			m.do("HSET", guard.WatermarkKey(0, "stream"), "owner", "us")
			begun, stands, err := leases.Begin(ctx, guard.Claim{Stream: "stream", Owner: "us"}, e, "token", keys)
			if err != nil || !stands {
				t.Fatalf("stands %v, %v", stands, err)
			}
			m.do("DEL", guard.WatermarkKey(0, "stream"))
			var got []string
			for _, b := range begun {
				text := b.Status
				if b.Err != nil {
					text, _, _ = strings.Cut(b.Err.Error(), ": ")
				}
				if (b.Status == guard.Wait) != (b.Left > 0 && b.Left <= guard.Lease) {
					t.Errorf("%+v", b)
				}
				got = append(got, text)
			}
			want := []string{"HIT", "WAIT", "item:list holds another type than its entry writes", "LEASE", "LEASE", "LEASE", "LEASE", "{}:tag"}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("begun (-want +got):\n%s", diff)
			}

			// A change comes for one of them, another has no row any more.
			m.script(guard.Forget, []string{"item:2", "{item:2}:l"})
			m.do("SCRIPT", "FLUSH")
			if err := leases.Release(ctx, "token", []string{"item:3"}); err != nil {
				t.Fatal(err)
			}
			if err := leases.Release(ctx, "another", []string{"item:4"}); err != nil {
				t.Fatal(err)
			}
			m.do("SCRIPT", "FLUSH")
			stored, err := leases.Fill(ctx, e, "token", 0, []string{"item:1", "item:2", "item:3"}, [][]string{value("one"), value("two"), value("three")})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{guard.Stored, guard.Refused, guard.Refused}, stored); diff != "" {
				t.Errorf("stored without a shield (-want +got):\n%s", diff)
			}
			stored, err = leases.Fill(ctx, e, "token", 1<<40, []string{"item:4"}, [][]string{value("four")})
			if err != nil || stored[0] != guard.Stored {
				t.Errorf("stored with a shield: %v, %v", stored, err)
			}
			m.wantKeys("item:cached", "{item:taken}:l", "item:list", "item:1", "item:4", "{item:4}:l")
			if hash {
				if diff := cmp.Diff(map[string]string{"name": "one", "empty": ""}, m.client.HGetAll(ctx, "item:1").Val()); diff != "" {
					t.Errorf("item:1 (-want +got):\n%s", diff)
				}
			} else {
				m.want("item:1", m.client.Get(ctx, "item:1").Val(), "one")
			}
			for _, key := range []string{"item:1", "item:4"} {
				if ttl, want := m.client.PTTL(ctx, key).Val(), guard.SpreadTTL(key, e.TTL); ttl > want || ttl < want-time.Minute {
					t.Errorf("%s lives for %s, want %s", key, ttl, want)
				}
			}
		})
	}
}

// Who loads is told, in the round trip of its leases and behind them, whether it
// still is who may.
func TestAClaimStandsWhileTheWatermarkSaysSo(t *testing.T) {
	m := masterOn(t, startRedis(t, stack.RedisOptions{}), false)
	sink := redissink.New(m.client, redissink.Options{})
	leases, e, ctx := redissink.NewLeases(m.client), leaseEntry(t, plan.Warm, false), within(t, time.Minute)
	ours, theirs := guard.Fingerprints{"item": {Key: "item:{id}", Hash: "1"}}, guard.Fingerprints{"item": {Key: "item:{id}", Hash: "2"}}
	want := func(when string, want bool, claim guard.Claim) {
		t.Helper()
		_, stands, err := leases.Begin(ctx, claim, e, "token", []string{"item:1"})
		if err != nil || stands != want {
			t.Errorf("%s: stands %v, want %v; %v", when, stands, want, err)
		}
	}
	own := func(note guard.Fingerprints) {
		t.Helper()
		if _, err := sink.Own(ctx, []string{"stream", "another"}); err != nil {
			t.Fatal(err)
		}
		b := plan.NewBatch()
		b.Note = &guard.Note{Fingerprints: note}
		if _, err := sink.Write(ctx, []*plan.Batch{b}); err != nil {
			t.Fatal(err)
		}
	}
	want("nobody's claim", false, sink.Claim())
	want("no watermark", false, guard.Claim{Stream: "stream", Fingerprints: ours})
	own(ours)
	owner := sink.Claim()
	want("the owner", true, owner)
	want("the entry as it is", true, guard.Claim{Stream: "stream", Fingerprints: ours})
	own(theirs)
	want("a former owner", false, owner)
	want("the owner behind it", true, sink.Claim())
	want("the entry as it was", false, guard.Claim{Stream: "stream", Fingerprints: ours})
}

// A Redis that takes no more is the whole's trouble, and not that of a key: the
// caller holds and comes again.
func TestLeasesOnAFullRedisAreAnError(t *testing.T) {
	m := masterOn(t, startRedis(t, stack.RedisOptions{}), false)
	m.do("CONFIG", "SET", "maxmemory", "1")
	leases, e := redissink.NewLeases(m.client), leaseEntry(t, plan.Refresh, false)
	if _, _, err := leases.Begin(within(t, time.Minute), guard.Claim{}, e, "token", []string{"item:1"}); err == nil || !strings.Contains(err.Error(), "OOM") {
		t.Errorf("begin: %v", err)
	}
}
