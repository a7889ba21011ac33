// Package explore visits every state that a world can reach, breadth first, so
// that what it finds broken it tells in the fewest steps.
//
// A visited state is kept as a hash of 64 bits: among thirty million states the
// odds that two share one, so that one of them is passed over, are 1 to 40,000.
package explore

import (
	"fmt"
	"hash/maphash"
	"reflect"
	"slices"
	"time"
	"unsafe"
)

// A World is what is explored. S is a struct of small integers without padding,
// so that its bytes are its identity.
type World[S comparable] interface {
	// Initial returns the state in which everything begins.
	Initial() S
	// Next gives step each state that one step can lead to, in an order that is
	// always the same. It calls Say before, where it has a listener.
	Next(s *S, step func(next *S))
	// Broken says which promise s breaks, and how; empty: none.
	Broken(s *S) string
	// Calm returns what is left of s when nothing happens any more that need not:
	// no new work, no faults, and those who may never answer never do.
	Calm(s *S) S
	// Quiet is the one step that happens in a calm state; done: nothing is left to
	// do, and all is as it should be.
	Quiet(s *S, step func(next *S)) (done bool)
	// Listen has the world tell each step from now on; nil: it is silent.
	Listen(say func(line string))
}

// Limits bound an exploration. Zero: no bound.
type Limits struct {
	States int
	Time   time.Duration
}

// Result of an exploration.
type Result struct {
	States    int
	Depth     int // steps of the longest shortest way
	Exhausted bool
	Calm      int // calm states from which all came right
	Elapsed   time.Duration
	// Broken says which promise is broken at the end of Story; empty: none.
	Broken string
	Story  []string
}

// Summary is one line for people.
func (r Result) Summary() string {
	how := "exhausted"
	if !r.Exhausted {
		how = "bounded"
	}
	return fmt.Sprintf("%10d states, %3d steps deep, %9s, all right from %7d calm ones, %s",
		r.States, r.Depth, how, r.Calm, r.Elapsed.Round(10*time.Millisecond))
}

// quietMax is how many quiet steps may pass before all is as it should be.
const quietMax = 500

// toldMax is how many of them a story tells.
const toldMax = 25

type visit[S comparable] struct {
	state S
	index uint32
}

type explorer[S comparable] struct {
	world   World[S]
	seed    maphash.Seed
	seen    set
	calm    set
	parents []uint32
	steps   []uint8 // the number of the step from the parent
}

// Run explores the world until a promise breaks, nothing is left, or a limit is
// met.
func Run[S comparable](w World[S], limits Limits) Result {
	var zero S
	mustBePlain(reflect.TypeOf(zero))
	began := time.Now()
	x := &explorer[S]{world: w, seed: maphash.MakeSeed()}
	result := Result{Exhausted: true}
	initial := w.Initial()
	x.add(&initial, 0, 0)
	var ahead queue[visit[S]]
	ahead.push(visit[S]{initial, 0})
	if broken, quiet := x.broken(&initial); broken != "" {
		result.Broken, result.Story = broken, x.tell(0, quiet)
	}
	last := uint32(0) // of the states at this depth
	for result.Broken == "" && ahead.length > 0 {
		at, number := ahead.pop(), 0
		if at.index > last {
			result.Depth++
			last = uint32(len(x.parents) - 1)
		}
		w.Next(&at.state, func(s *S) {
			number++
			if result.Broken != "" || !x.add(s, at.index, number-1) {
				return
			}
			index := uint32(len(x.parents) - 1)
			if broken, quiet := x.broken(s); broken != "" {
				result.Broken, result.Story = broken, x.tell(index, quiet)
				return
			}
			ahead.push(visit[S]{*s, index})
		})
		if number > 1<<8 {
			panic(fmt.Sprintf("%d steps from one state, and 256 are told apart", number))
		}
		if result.Broken == "" && ahead.length > 0 && (limits.States > 0 && len(x.parents) >= limits.States ||
			limits.Time > 0 && ahead.length%1024 == 0 && time.Since(began) > limits.Time) {
			result.Exhausted = false
			break
		}
	}
	result.States, result.Calm, result.Elapsed = len(x.parents), x.calm.count, time.Since(began)
	return result
}

// add reports whether s is new, and keeps where it came from.
func (x *explorer[S]) add(s *S, parent uint32, step int) bool {
	if !x.seen.add(x.hash(s)) {
		return false
	}
	x.parents = append(x.parents, parent)
	x.steps = append(x.steps, uint8(step))
	return true
}

func (x *explorer[S]) hash(s *S) uint64 {
	return maphash.Bytes(x.seed, unsafe.Slice((*byte)(unsafe.Pointer(s)), unsafe.Sizeof(*s)))
}

// broken says what is broken in s, or will be when all is quiet.
func (x *explorer[S]) broken(s *S) (broken string, quiet bool) {
	if broken := x.world.Broken(s); broken != "" {
		return broken, false
	}
	at := x.world.Calm(s)
	var passed []uint64
	for range quietMax {
		h := x.hash(&at)
		if slices.Contains(passed, h) {
			return "liveness: it goes round in circles, and the change is not settled or the reader has not stored", true
		}
		// What followed from here was right the last time.
		if !x.calm.add(h) {
			return "", true
		}
		passed = append(passed, h)
		stuck := true
		done := x.world.Quiet(&at, func(next *S) { at, stuck = *next, false })
		if broken := x.world.Broken(&at); broken != "" {
			return broken, true
		}
		if done {
			return "", true
		}
		if stuck {
			return "liveness: nothing more happens, and the change is not settled or the reader has not stored", true
		}
	}
	return "liveness: it never comes to rest", true
}

// tell walks the way to a state once more and has each step told.
func (x *explorer[S]) tell(index uint32, quiet bool) []string {
	var way []uint8
	for ; index != 0; index = x.parents[index] {
		way = append(way, x.steps[index])
	}
	var story []string
	line := ""
	x.world.Listen(func(text string) { line = text })
	defer x.world.Listen(nil)
	at := x.world.Initial()
	for i := len(way) - 1; i >= 0; i-- {
		number, from := 0, at
		x.world.Next(&from, func(s *S) {
			if number == int(way[i]) {
				at = *s
				story = append(story, line)
			}
			number++
		})
	}
	if !quiet {
		return story
	}
	story = append(story, "-- all is quiet from here --")
	at = x.world.Calm(&at)
	for told := len(story); ; {
		if len(story) == told+toldMax {
			story = append(story, "... and so on")
			break
		}
		stuck := true
		done := x.world.Quiet(&at, func(next *S) {
			at, stuck = *next, false
			story = append(story, line)
		})
		if done || stuck || x.world.Broken(&at) != "" {
			break
		}
	}
	return story
}

// queue is first in, first out, in chunks that go when they are done with.
type queue[T any] struct {
	chunks [][]T
	length int
}

const chunkLength = 1 << 12

func (q *queue[T]) push(v T) {
	last := len(q.chunks) - 1
	if last < 0 || len(q.chunks[last]) == cap(q.chunks[last]) {
		q.chunks = append(q.chunks, make([]T, 0, chunkLength))
		last++
	}
	q.chunks[last] = append(q.chunks[last], v)
	q.length++
}

func (q *queue[T]) pop() T {
	v := q.chunks[0][0]
	q.chunks[0] = q.chunks[0][1:]
	if q.length--; len(q.chunks[0]) == 0 {
		q.chunks[0] = nil
		q.chunks = q.chunks[1:]
	}
	return v
}

func mustBePlain(t reflect.Type) {
	var size uintptr
	switch t.Kind() {
	case reflect.Struct:
		for i := range t.NumField() {
			mustBePlain(t.Field(i).Type)
			size += t.Field(i).Type.Size()
		}
	case reflect.Array:
		mustBePlain(t.Elem())
		return
	case reflect.Uint8, reflect.Int8, reflect.Uint16, reflect.Bool:
		return
	}
	if size != t.Size() {
		panic(fmt.Sprintf("%s has padding, or more than small integers", t))
	}
}

// set of hashes, by open addressing.
type set struct {
	slots []uint64
	count int
}

// add reports whether h is new.
func (s *set) add(h uint64) bool {
	if h == 0 {
		h = 1
	}
	if 4*s.count >= 3*len(s.slots) {
		s.grow()
	}
	if !s.put(h) {
		return false
	}
	s.count++
	return true
}

func (s *set) put(h uint64) bool {
	mask := uint64(len(s.slots) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		switch s.slots[i] {
		case 0:
			s.slots[i] = h
			return true
		case h:
			return false
		}
	}
}

func (s *set) grow() {
	old := s.slots
	s.slots = make([]uint64, max(1<<12, 2*len(old)))
	for _, h := range old {
		if h != 0 {
			s.put(h)
		}
	}
}
