// Package world has the small worlds that the model explores: a database, a
// Redis that runs the guard's own scripts, readers, writers and the service, in
// every order in which they can take their steps.
package world

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/test/model/fakeredis"
)

// Time stands still but for ticks: at each, everything that is to come is moved
// one tick nearer. So states that differ in nothing but the date are one, and
// time has no end.
const (
	now  = 1_700_000_000_000 // ms, of every master
	tick = 1000              // ms

	leaseTicks  = 1
	shieldTicks = 4
	youngTicks  = shieldTicks / 2
	untilTicks  = shieldTicks / 4

	ttl = 100_000 * tick // data keys expire whenever they like
)

// A Cell is what stands under one key, as a number: equal cells, equal contents.
// 0 is nothing.
type Cell uint16

// lab runs the scripts on cells. A call is run once for the cells that it finds;
// from then on its outcome is looked up.
type lab struct {
	redis   *fakeredis.Redis
	sources map[string]string // of the scripts, by name
	names   []string          // of the keys, in the order of a master's cells

	entries []fakeredis.Entry
	ids     map[string]Cell
	memo    map[callOn]outcome

	renames map[renaming]Cell
	retells map[retelling]Cell

	versions []int8 // of data cells
	marks    []mark
	tickeds  []Cell
	holders  []int8
	known    int // cells of which the four above are known
}

// cellsMax is how many keys a master has at most: a data key, its side key, the
// watermark, and the names of cached keys, or the set of an index.
const cellsMax = 4

// A callID names a call; equal ones are equal calls.
type callID [14]uint8

type callOn struct {
	call  callID
	cells [cellsMax]Cell
}

type outcome struct {
	cells [cellsMax]Cell
	reply any
}

func newLab(names []string, patches ...Patch) *lab {
	if len(names) > cellsMax {
		panic(fmt.Sprintf("%d keys, and a master has %d at most", len(names), cellsMax))
	}
	l := &lab{
		redis: fakeredis.New(), names: names, sources: map[string]string{},
		entries: []fakeredis.Entry{{}}, ids: map[string]Cell{}, memo: map[callOn]outcome{}, renames: map[renaming]Cell{},
		retells: map[retelling]Cell{},
	}
	l.redis.Now = now
	for _, script := range scripts {
		l.sources[script.Name] = script.Source
	}
	for _, patch := range patches {
		for _, script := range scripts {
			if strings.HasPrefix(script.Name, patch.Script) {
				if strings.Count(script.Source, patch.Old) != 1 {
					panic(fmt.Sprintf("script %s has %d times %q, want once: the patch is to follow the script", script.Name, strings.Count(script.Source, patch.Old), patch.Old))
				}
				l.sources[script.Name] = strings.Replace(l.sources[script.Name], patch.Old, patch.New, 1)
			}
		}
	}
	return l
}

var scripts = []guard.Script{
	guard.Own, guard.Apply, guard.ApplyValues, guard.Begin, guard.Fill, guard.Release, guard.Invalidate, guard.Forget,
	guard.Collect, guard.Name, guard.Seal, guard.DropNamed,
	guard.Members, guard.Build, guard.Gather, guard.Complete,
}

// A Patch takes a rule out of a script.
type Patch struct {
	Script   string // its name begins so
	Old, New string
}

// run runs a script on the cells of a master.
func (l *lab) run(call callID, cells []Cell, full bool, build func() (guard.Script, []string, []string)) any {
	at := callOn{call: call}
	if full {
		at.call[len(at.call)-1]++
	}
	copy(at.cells[:], cells)
	done, ok := l.memo[at]
	if !ok {
		clear(l.redis.Keys)
		for i, c := range cells {
			if c != 0 {
				l.redis.Keys[l.names[i]] = l.entries[c]
			}
		}
		script, keys, args := build()
		l.redis.Full = full
		done.reply = l.redis.Eval(l.sources[script.Name], keys, args)
		if failed, ok := done.reply.(fakeredis.Error); ok && !strings.HasPrefix(string(failed), "OOM ") {
			panic(fmt.Sprintf("script %s %q %q: %s", script.Name, keys, args, failed))
		}
		for i, name := range l.names[:len(cells)] {
			done.cells[i] = l.cell(l.redis.Keys[name])
		}
		l.memo[at] = done
	}
	copy(cells, done.cells[:])
	return done.reply
}

// cell returns the number of a content.
func (l *lab) cell(e fakeredis.Entry) Cell {
	if !e.Exists {
		return 0
	}
	if _, version := versionOf(e); version {
		// When it expires is not looked at: see ttl.
		e.ExpireAt = min(e.ExpireAt, now+ttl)
	}
	var id strings.Builder
	id.WriteString(strconv.FormatInt(e.ExpireAt, 36))
	for _, text := range slices.Concat([]string{e.Text}, e.Fields, e.Members) {
		id.WriteByte('|')
		id.WriteString(strconv.Itoa(len(text)))
		id.WriteByte(':')
		id.WriteString(text)
	}
	c, ok := l.ids[id.String()]
	if !ok {
		if len(l.entries) == 1<<16 {
			panic("more contents than a cell can number")
		}
		c = Cell(len(l.entries))
		l.entries = append(l.entries, e)
		l.ids[id.String()] = c
	}
	return c
}

// value returns the cell of a value.
func (l *lab) value(hash bool, version uint8) Cell {
	e := fakeredis.Entry{Exists: true, ExpireAt: now + ttl}
	if hash {
		e.Fields = fields(true, version)
	} else {
		e.Text = value(version)
	}
	return l.cell(e)
}

// has reports whether a set's cell has a member.
func (l *lab) has(c Cell, member string) bool { return slices.Contains(l.entries[c].Members, member) }

// with returns a set's cell with a member.
func (l *lab) with(c Cell, member string) Cell {
	e := l.entries[c]
	if at, found := slices.BinarySearch(e.Members, member); !found {
		e.Members = slices.Insert(slices.Clone(e.Members), at, member)
	}
	return l.cell(e)
}

// without returns a set's cell without a member.
func (l *lab) without(c Cell, member string) Cell {
	e := l.entries[c]
	e.Members = slices.DeleteFunc(slices.Clone(e.Members), func(m string) bool { return m == member })
	return l.cell(e)
}

// know computes once what is asked of each cell.
func (l *lab) know(c Cell) {
	for int(c) >= l.known {
		e := l.entries[l.known]
		l.known++
		version, _ := versionOf(e)
		l.versions = append(l.versions, version)
		l.marks = append(l.marks, markOf(e))
		l.tickeds = append(l.tickeds, l.cell(tickedEntry(e)))
		l.holders = append(l.holders, holderOf(e))
	}
}

// version returns the version of a data cell; -1: it is empty.
func (l *lab) version(c Cell) int8 { l.know(c); return l.versions[c] }

// holder returns the reader whose token is in a side key's cell; -1: none's.
func (l *lab) holder(c Cell) int8 { l.know(c); return l.holders[c] }

// orphaned returns a side key's cell as it is once reader i has gone and left its
// token there: nobody's.
func (l *lab) orphaned(c Cell, i int) Cell {
	if l.holder(c) != int8(i) {
		return c
	}
	e := l.entries[c]
	e.Text = e.Text[:17] + token(nobody)
	return l.cell(e)
}

// mark reads a watermark's cell.
func (l *lab) mark(c Cell) mark { l.know(c); return l.marks[c] }

// rename gives the owners and epochs of two watermarks and of two sessions the smallest
// numbers that tell them apart.
func (l *lab) rename(marks [2]*Cell, owners, epochs [2]*uint8) {
	var taken uint32 // a bit each
	for i := range marks {
		taken |= 1<<l.mark(*marks[i]).epoch | 1<<*epochs[i]
	}
	rank := func(epoch uint8) uint8 { return uint8(bits.OnesCount32(taken >> 1 & (1<<epoch - 1))) }
	for _, c := range marks {
		if *c == 0 {
			continue
		}
		m := l.mark(*c)
		owns := uint8(dead)
		for i := range owners {
			if *owners[i] == m.owner {
				owns = uint8(i + 1)
			}
		}
		*c = l.renamed(*c, owns, rank(m.epoch))
	}
	for i := range owners {
		*epochs[i] = rank(*epochs[i])
		if *owners[i] != 0 {
			*owners[i] = uint8(i + 1)
		}
	}
}

// renamed returns a watermark's cell with another owner and epoch.
func (l *lab) renamed(c Cell, owns, epoch uint8) Cell {
	m := l.mark(c)
	if c == 0 || m.owner == owns && m.epoch == epoch {
		return c
	}
	at := renaming{c, owns, epoch}
	to, ok := l.renames[at]
	if !ok {
		e := l.entries[c]
		e.Fields = slices.Clone(e.Fields)
		for i := 0; i < len(e.Fields); i += 2 {
			switch e.Fields[i] {
			case "owner":
				e.Fields[i+1] = owner(owns)
			case "epoch":
				e.Fields[i+1] = strconv.Itoa(int(epoch))
			}
		}
		to = l.cell(e)
		l.renames[at] = to
	}
	return to
}

type renaming struct {
	cell         Cell
	owner, epoch uint8
}

// ticked returns what is left of a cell a tick later.
func (l *lab) ticked(c Cell) Cell { l.know(c); return l.tickeds[c] }

// Values are v0, v1, ...: the number is that of the commit that wrote them.
func versionOf(e fakeredis.Entry) (version int8, ok bool) {
	text := e.Text
	if e.Hash() {
		text, _ = e.Field("v")
	}
	if len(text) != 2 || text[0] != 'v' {
		return -1, false
	}
	return int8(text[1] - '0'), true
}

// nobody has a token of its own.
const nobody = 'X' - 'A'

func holderOf(e fakeredis.Entry) int8 {
	if _, version := versionOf(e); version || e.Hash() || len(e.Text) < 18 {
		return -1
	}
	return int8(e.Text[17+len("token ")] - 'A')
}

func tickedEntry(e fakeredis.Entry) fakeredis.Entry {
	if _, version := versionOf(e); version || e.Hash() || e.Set() || !e.Exists {
		return e
	}
	// A side key: see begin.lua.
	if e.ExpireAt -= tick; e.ExpireAt < now {
		return fakeredis.Entry{}
	}
	if len(e.Text) > 17 {
		deadline := binary.BigEndian.Uint64([]byte(e.Text[9:17]))
		text := []byte(e.Text)
		// All that has passed is alike.
		binary.BigEndian.PutUint64(text[9:], max(deadline-tick, now))
		e.Text = string(text)
	}
	return e
}

// leased reports whether a side key's cell holds a lease that is live.
func (l *lab) leased(c Cell) bool {
	text := l.entries[c].Text
	return len(text) > 17 && binary.BigEndian.Uint64([]byte(text[9:17])) > now
}

// mark is what a watermark says.
type mark struct {
	sweeping    bool
	lo, settled uint8 // numbers of commits
	owner, n    uint8
	epoch       uint8
}

func markOf(e fakeredis.Entry) mark {
	if _, ok := e.Field("epoch"); !ok {
		return mark{}
	}
	var m mark
	name, _ := e.Field("owner")
	m.owner = number(strings.TrimPrefix(name, "owner "))
	n, _ := e.Field("n")
	m.n = number(n)
	epoch, _ := e.Field("epoch")
	m.epoch = number(epoch)
	lo, _ := e.Field("lo")
	settled, _ := e.Field("settled")
	m.lo, m.settled = commitAt(lo), commitAt(settled)
	sweeps, _ := e.Field("sweeps")
	m.sweeping = sweeps != "" && sweeps != "[]"
	return m
}

// Commit c has its record at LSN 16c, and it ends at 16c+8.
func commitLSN(c uint8) uint64 { return 16 * uint64(c) }
func endLSN(c uint8) uint64    { return 16*uint64(c) + 8 }

// positionAfter is where the stream stands behind commit c; c = 0: where the
// slot was made.
func positionAfter(c uint8) change.Position {
	return change.Position{Timeline: 1, LSN: endLSN(c)}
}

func commitAt(position string) uint8 {
	p, err := change.DecodePosition([]byte(position))
	if err != nil {
		panic(err)
	}
	return uint8(p.LSN / 16)
}

func number(text string) uint8 {
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 8)
	if err != nil {
		panic(err)
	}
	return uint8(n)
}

// lsn encodes a position of the log as the scripts take it.
func lsn(n uint64) string { return string(binary.BigEndian.AppendUint64(nil, n)) }

func value(version uint8) string { return "v" + strconv.Itoa(int(version)) }

// fields returns the arguments of a value.
func fields(hash bool, version uint8) []string {
	if hash {
		return []string{"v", value(version)}
	}
	return []string{value(version)}
}

// token and owner have sixteen bytes, as in the product.
func token(reader uint8) string { return fmt.Sprintf("token %c%9s", 'A'+reader, "") }
func owner(number uint8) string { return fmt.Sprintf("owner %-10d", number) }

func format(hash bool) string {
	if hash {
		return guard.Hash
	}
	return guard.String
}
