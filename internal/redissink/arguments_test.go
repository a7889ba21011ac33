package redissink

import (
	"fmt"
	"strings"
	"testing"

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
				b.Drop([]byte(key))
				drops = append(drops, key)
				sides = append(sides, "{"+key+"}:l")
			}
			b.Drop([]byte("a}b")) // can have no side key
			commands = append(commands, a.apply("mark", guard.ApplyHeader{}, b))
			want = append(want, append(append(drops, "a}b"), sides...))
		}
	}
	for _, command := range commands {
		var keys []string
		for _, value := range command[4+guard.ApplyFields:] {
			keys = append(keys, *value.(*string))
		}
		got = append(got, keys)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What a batch costs in memory does not grow with its keys, however long they
// are.
func TestKeysCostNoAllocationEach(t *testing.T) {
	allocations := func(keys int) float64 {
		b := plan.NewBatch()
		for i := range keys {
			b.Drop(fmt.Appendf(nil, "%s:%d", strings.Repeat("long", 20), i))
		}
		var a arguments
		return testing.AllocsPerRun(100, func() {
			a.reset()
			a.apply("mark", guard.ApplyHeader{}, b)
		})
	}
	if few, many := allocations(1), allocations(plan.BatchKeysMax); few != many {
		t.Errorf("%v allocations for a batch of one key, %v for a full one", few, many)
	}
}

func BenchmarkArguments(b *testing.B) {
	batch := plan.NewBatch()
	for i := range plan.BatchKeysMax {
		batch.Drop(fmt.Appendf(nil, "product:%036d", i))
	}
	var a arguments
	b.ReportAllocs()
	for b.Loop() {
		a.reset()
		a.apply("mark", guard.ApplyHeader{}, batch)
	}
}
