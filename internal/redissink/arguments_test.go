package redissink

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
)

// A batch's commands hold pointers into memory that the batches behind it make
// grow; each must still say what it said.
func TestEachBatchOfARoundTripKeepsItsArguments(t *testing.T) {
	var a arguments
	var got [][]string
	var commands [][]any
	var want [][]string
	for round := range 2 {
		a.reset()
		got, commands, want = nil, nil, nil
		for i := range 4 {
			b := plan.NewBatch()
			drops := []string{}
			sides := []string{}
			for j := range 1 + 50*i {
				key := fmt.Sprintf("key:%d:%d:%d", round, i, j)
				b.Add([]byte(key), plan.Drop, 0, nil, 0)
				drops = append(drops, key)
				sides = append(sides, "{"+key+"}:l")
			}
			b.Add([]byte("a}b"), plan.Drop, 0, nil, 0) // can have no side key
			commands = append(commands, a.apply("mark", guard.ApplyHeader{}, b, nil))
			want = append(want, append(append(drops, "a}b"), sides...))
		}
	}
	for _, command := range commands {
		var keys []string
		for _, value := range command[4+headerFields:] {
			keys = append(keys, *value.(*string))
		}
		got = append(got, keys)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// headerFields is the number of arguments before those of the keys.
var headerFields = len((&guard.ApplyHeader{}).AppendArguments(nil))

// The script tells what is to happen to a key by where it stands.
func TestEachEffectHasItsPlace(t *testing.T) {
	entries := []plan.Entry{{}, {OnChange: plan.Warm, TTL: time.Second}, {OnChange: plan.Update, Hash: true, TTL: time.Second}}
	b := plan.NewBatch()
	b.Add([]byte("d"), plan.Drop, 0, nil, 0)
	b.Add([]byte("s1"), plan.Set, 1, []byte("{}"), 1)
	b.Add([]byte("h"), plan.SetCached, 2, []byte("\x01a\x02xy\x01b\x00"), 2)
	b.Add([]byte("f"), plan.Forget, 1, nil, 0)
	b.Add([]byte("s2"), plan.SetCached, 1, []byte("{1}"), 3)
	b.Add([]byte("a}b"), plan.Set, 1, []byte("{}"), 4) // can have no shield
	b.Add([]byte("s1"), plan.Set, 1, []byte("{2}"), 5)
	b.Add([]byte("r1"), plan.Restore, 1, []byte("{3}"), 6)
	b.Add([]byte("l"), plan.Reload, 1, nil, 0)
	b.Add([]byte("f2"), plan.Forget, 1, nil, 0)
	b.Add([]byte("r2"), plan.Compare, 1, []byte("{4}"), 7)
	var a arguments
	command := a.apply("mark", guard.ApplyHeader{}, b, entries)
	var got []string
	for _, argument := range command[4+headerFields-10:] {
		got = append(got, *argument.(*string))
	}
	ttl := func(key string) string { return fmt.Sprint(guard.SpreadTTL(key, time.Second).Milliseconds()) }
	want := []string{
		"3", "3", "2", "2", "1", "", "1", "0", "0", "0",
		"d", "a}b", "{d}:l",
		"f", "f2", "l", "{f}:l", "{f2}:l", "{l}:l",
		"s1", "s2", "{s1}:l", "{s2}:l", ttl("s1"), "-" + ttl("s2"), "\x00\x00\x00\x00\x00\x00\x00\x05", "\x00\x00\x00\x00\x00\x00\x00\x03", "{2}", "{1}",
		"r1", "r2", "{r1}:l", "{r2}:l", ttl("r1"), "-" + ttl("r2"), "{3}", "{4}",
		"h", "{h}:l", "-" + ttl("h"), "\x00\x00\x00\x00\x00\x00\x00\x02", "2", "a", "xy", "b", "",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := *command[1].(*string); got != guard.ApplyValues.SHA {
		t.Error("a script that a full Redis runs is to SET values")
	}
}

// What a batch costs in memory does not grow with its keys, however long they
// are.
func TestKeysCostNoAllocationEach(t *testing.T) {
	allocations := func(keys int) float64 {
		b := plan.NewBatch()
		for i := range keys {
			b.Add(fmt.Appendf(nil, "%s:%d", strings.Repeat("long", 20), i), plan.Drop, 0, nil, 0)
		}
		var a arguments
		return testing.AllocsPerRun(100, func() {
			a.reset()
			a.apply("mark", guard.ApplyHeader{}, b, nil)
		})
	}
	if few, many := allocations(plan.BatchKeysMax/2), allocations(plan.BatchKeysMax); few != many {
		t.Errorf("%v allocations for half a batch, %v for a full one", few, many)
	}
}

func BenchmarkArguments(b *testing.B) {
	batch := plan.NewBatch()
	for i := range plan.BatchKeysMax {
		batch.Add(fmt.Appendf(nil, "product:%036d", i), plan.Drop, 0, nil, 0)
	}
	var a arguments
	b.ReportAllocs()
	for b.Loop() {
		a.reset()
		a.apply("mark", guard.ApplyHeader{}, batch, nil)
	}
}
