package main_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/stack"
	"github.com/unstale/unstale/test/model/fakeredis"
)

// The model proves as much as its Redis is like the real one: the same calls
// must give the same replies, and leave the same keys.
func TestFakeRedisAgreesWithRedis(t *testing.T) {
	servers := stack.New(stack.Options{Say: func(line string) { fmt.Fprintln(os.Stderr, line) }})
	t.Cleanup(func() { servers.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	server, err := servers.Redis(ctx, stack.RedisOptions{})
	if err != nil {
		t.Fatal(err)
	}
	options, err := redis.ParseURL(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	options.Protocol = 2 // a hash is a list then, whose order can be compared
	client := redis.NewClient(options)
	t.Cleanup(func() { client.Close() })

	calls := 0
	rapid.Check(t, func(t *rapid.T) {
		p := &pair{t: t, ctx: t.Context(), real: client, fake: fakeredis.New()}
		p.plain("FLUSHALL")
		p.full(false)
		for range rapid.IntRange(20, 80).Draw(t, "calls") {
			p.step()
			calls++
		}
	})
	t.Logf("%d calls agree", calls)
}

// A pair is a real Redis and the fake one, which are told the same.
type pair struct {
	t    *rapid.T
	ctx  context.Context
	real *redis.Client
	fake *fakeredis.Redis
}

var (
	pairData = []string{"product:1", "{eu}:product:2"}
	pairMark = guard.WatermarkKey(0, "1:2:pair")
	// pairNames are those of the first.
	pairNames, _ = guard.Names(pairData[0])
	pairMembers  = []string{"\x00seal", "\x00draft", pairData[0]}
	// pairSet is that of an index, and pairSetMembers are what may be in it.
	pairSet        = guard.IndexPrefix(0, "1:2:pair", "an index") + "a"
	pairSetMembers = []string{"1\x00", "2\x00", guard.Completed, guard.BuildMember("x"), guard.BuildMember("y"), guard.ReadMember("r")}
)

func pairSide(key string) string {
	side, _ := guard.SideKey(key)
	return side
}

func (p *pair) names() []string {
	return []string{pairData[0], pairSide(pairData[0]), pairData[1], pairSide(pairData[1]), pairMark, pairNames, pairSet}
}

func (p *pair) pick(label string, from ...string) string {
	return rapid.SampledFrom(from).Draw(p.t, label)
}

// Times are far ahead or just past, so that a few milliseconds tell nothing.
func (p *pair) ms(label string) string { return p.pick(label, "3600000", "400000") }

func (p *pair) lsn(label string) string {
	n := rapid.SampledFrom([]uint64{1, 2, 3, 1 << 32, 1<<32 + 1, 1<<63 + 2}).Draw(p.t, label)
	return string(binary.BigEndian.AppendUint64(nil, n))
}

func (p *pair) step() {
	key := p.pick("key", pairData...)
	both := []string{key, pairSide(key)}
	token := p.pick("token", "token A         ", "token B         ")
	form := p.pick("format", guard.String, guard.String, guard.String, guard.Hash)
	switch rapid.IntRange(0, 15).Draw(p.t, "what") {
	case 0, 1:
		p.script(guard.Begin, guard.BeginKeys(both[0], both[1]), token, p.pick("lease", "3600000", "3600000", "-1000"), p.ms("shield"), form, p.pick("names", "100", "2"))
	case 2, 3:
		h := p.lsn("H")
		if rapid.Bool().Draw(p.t, "no shield") {
			h = ""
		}
		p.script(guard.Fill, both, slices.Concat([]string{token, h, p.ms("shield"), p.ms("ttl"), form}, p.value(form))...)
	case 4:
		p.script(guard.Release, both[1:], token)
	case 5:
		p.script(guard.Invalidate, both, p.pick("H", "", p.lsn("H")), p.ms("shield"))
	case 6:
		p.script(guard.Forget, both)
	case 7:
		p.script(guard.Own, []string{pairMark}, p.owner(), p.pick("known", "1", "1", "1", "0"))
	case 8, 9, 10:
		p.apply()
	case 11:
		p.command(key)
	case 12:
		p.collect()
	case 13:
		p.full(rapid.IntRange(0, 2).Draw(p.t, "full") == 0)
	case 14, 15:
		p.index()
	}
	p.compare()
}

func (p *pair) index() {
	one, both := []string{pairSet}, []string{pairMark, pairSet}
	token := func(label string) string { return p.pick(label, pairSetMembers[3:5]...) }
	switch rapid.IntRange(0, 4).Draw(p.t, "index") {
	case 0:
		p.script(guard.Members, one, p.pick("whole", "9", "9", "2"), pairSetMembers[5])
	case 1:
		p.script(guard.Build, both, p.owner(), token("token"), p.ms("ttl"))
	case 2:
		p.script(guard.Gather, one, token("token"), token("next"), pairSetMembers[0], pairSetMembers[1])
	case 3, 4:
		position := change.Position{Timeline: 1, LSN: uint64(rapid.IntRange(0, 4).Draw(p.t, "position"))}
		p.script(guard.Complete, both, p.owner(), token("token"), string(position.Append(nil)))
	}
}

func (p *pair) collect() {
	one := []string{pairNames}
	switch rapid.IntRange(0, 4).Draw(p.t, "names") {
	case 0, 1:
		p.script(guard.Collect, one, pairMembers[1], p.ms("ttl"))
	case 2:
		p.script(guard.Seal, one, pairMembers[1], pairMembers[0])
	case 3:
		p.script(guard.Name, one, pairData[0])
	case 4:
		p.script(guard.DropNamed, append(one, pairData[0], pairSide(pairData[0])))
	}
}

func (p *pair) owner() string { return p.pick("owner", "owner 1         ", "owner 2         ") }

func (p *pair) value(form string) []string {
	value := p.pick("value", "v1", "v2", "")
	if form == guard.Hash {
		return []string{"name", value, "price", p.pick("price", "1", "2")}
	}
	return []string{value}
}

func (p *pair) apply() {
	small := rapid.IntRange(0, 4)
	header := guard.ApplyHeader{
		Owner: p.owner(), Epoch: int64(small.Draw(p.t, "epoch")), N: int64(small.Draw(p.t, "n")),
		Lo:      change.Position{Timeline: 1, LSN: uint64(small.Draw(p.t, "lo"))},
		Cluster: rapid.Bool().Draw(p.t, "one key a command"),
		Until:   time.Now().Add(rapid.SampledFrom([]time.Duration{time.Hour, time.Hour, -time.Hour}).Draw(p.t, "until")).UnixMilli(),
	}
	// Mostly the next batch of the owner that is there.
	if rapid.IntRange(0, 3).Draw(p.t, "next") > 0 {
		mark := p.fake.Keys[pairMark]
		if owner, ok := mark.Field("owner"); ok {
			n, _ := mark.Field("n")
			last, _ := strconv.ParseInt(n, 10, 64)
			header.Owner, header.N = owner, last+1
		}
	}
	if rapid.Bool().Draw(p.t, "note") {
		header.Note = &guard.Note{Origin: "o", Sweeps: []guard.Sweep{{Key: "product:{id}"}}}
	}
	if rapid.IntRange(0, 3).Draw(p.t, "seen") == 0 {
		header.Seen = change.Sequence{Commit: 7, LSN: uint64(small.Draw(p.t, "sequence"))}
	}
	var drops, forgets, reloads, strings, restores, hashes []string
	for _, key := range pairData {
		switch rapid.IntRange(0, 6).Draw(p.t, "does") {
		case 1:
			drops = append(drops, key, pairSide(key))
		case 2:
			forgets = append(forgets, key)
		case 3:
			strings = append(strings, key)
		case 4:
			hashes = append(hashes, key)
		case 5:
			restores = append(restores, key)
		case 6:
			reloads = append(reloads, key)
		}
	}
	forgets, header.Reloads = append(forgets, reloads...), len(reloads)
	header.Drops, header.Forgets, header.Strings, header.Restores, header.Hashes = len(drops), len(forgets), len(strings), len(restores), len(hashes)
	var edits []string
	for _, edit := range []struct {
		what  string
		count *int
	}{{"removes", &header.Removes}, {"adds", &header.Adds}} {
		*edit.count = rapid.IntRange(0, 2).Draw(p.t, edit.what)
		for range *edit.count {
			edits = append(edits, p.pick("set", pairSet, pairSet, pairSet, pairData[0]), p.pick("member", pairSetMembers[:2]...))
		}
	}
	if header.Voids = rapid.IntRange(0, 9).Draw(p.t, "voids") / 9; header.Voids > 0 {
		edits = append(edits, pairSet)
	}
	args := slices.Concat(header.AppendArguments(nil), edits, drops)
	sides := func(keys []string) {
		args = append(args, keys...)
		for _, key := range keys {
			args = append(args, pairSide(key))
		}
	}
	sides(forgets)
	lives := func(keys []string) {
		sides(keys)
		for range keys {
			args = append(args, p.pick("cached", "", "-")+p.ms("ttl"))
		}
	}
	orders := func(keys []string) {
		for range keys {
			args = append(args, p.lsn("order"))
		}
	}
	values := func(keys []string) {
		for range keys {
			args = append(args, p.value(guard.String)...)
		}
	}
	lives(strings)
	orders(strings)
	values(strings)
	lives(restores)
	values(restores)
	lives(hashes)
	orders(hashes)
	for range hashes {
		args = append(args, "2")
	}
	for range hashes {
		args = append(args, p.value(guard.Hash)...)
	}
	script := guard.Apply
	if len(strings)+len(restores)+len(hashes) > 0 {
		script = guard.ApplyValues
	}
	p.script(script, []string{pairMark}, args...)
}

func (p *pair) command(key string) {
	side := pairSide(key)
	command := rapid.SampledFrom([][]string{
		{"GET", key}, {"MGET", key, side, pairMark}, {"HGETALL", key}, {"HMGET", pairMark, "owner", "n", "lo"},
		{"SET", key, "v1", "PX", "3600000"}, {"SET", key, "v2", "XX", "KEEPTTL"}, {"SET", key, "v3", "NX"},
		{"HSET", key, "name", "v1", "price", "1"}, {"HINCRBY", key, "price", "2"}, {"HGET", key, "name"},
		{"DEL", key, side}, {"UNLINK", side}, {"UNLINK", pairMark}, {"EXISTS", key, side, pairMark},
		{"PEXPIRE", key, "400000"}, {"PEXPIRE", side, "-1"}, {"FLUSHALL"},
		{"SADD", pairNames, pairData[0]}, {"SREM", pairNames, pairMembers[1], pairData[0]}, {"DEL", pairNames}, {"SADD", key, "a"}, {"SCARD", key},
		{"SMEMBERS", pairSet}, {"SMEMBERS", key}, {"DEL", pairSet},
	}).Draw(p.t, "command")
	p.plain(command...)
}

// full fills both, or makes room in both.
func (p *pair) full(full bool) {
	limit := "0"
	if full {
		limit = "1"
	}
	if err := p.real.ConfigSet(p.ctx, "maxmemory", limit).Err(); err != nil {
		p.t.Fatal(err)
	}
	p.fake.Full = full
}

func (p *pair) plain(command ...string) {
	args := make([]any, len(command))
	for i, arg := range command {
		args[i] = arg
	}
	real, err := p.real.Do(p.ctx, args...).Result()
	p.fake.Now = time.Now().UnixMilli()
	p.same(strings.Join(command, " "), reply(p.t, real, err), p.fake.Do(command...))
}

func (p *pair) script(s guard.Script, keys []string, args ...string) {
	values := make([]any, len(args))
	for i, arg := range args {
		values[i] = arg
	}
	real, err := p.real.Eval(p.ctx, s.Source, keys, values...).Result()
	p.fake.Now = time.Now().UnixMilli()
	p.same(fmt.Sprintf("%s %q %q", s.Name, keys, args), reply(p.t, real, err), p.fake.Eval(s.Source, keys, args))
}

// reply is what a real Redis has answered, as the fake one says it.
func reply(t *rapid.T, value any, err error) any {
	var said redis.Error
	switch {
	case errors.Is(err, redis.Nil):
		return nil
	case errors.As(err, &said):
		return fakeredis.Error(said.Error())
	case err != nil:
		t.Fatal(err)
	}
	return value
}

func (p *pair) same(call string, real, fake any) {
	if strings.HasPrefix(call, "SMEMBERS ") || strings.HasPrefix(call, guard.Members.Name+" ") {
		real, fake = sorted(real), sorted(fake)
	}
	if diff := cmp.Diff(rough(real), rough(fake)); diff != "" {
		p.t.Fatalf("%s (-real +fake)\n%s", call, diff)
	}
}

// sorted has the members of a set in an order: Redis has none.
func sorted(reply any) any {
	members, ok := reply.([]any)
	if !ok {
		return reply
	}
	members = slices.Clone(members)
	slices.SortFunc(members, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	return members
}

// compare looks at every key of both.
func (p *pair) compare() {
	for _, name := range p.names() {
		kind, err := p.real.Type(p.ctx, name).Result()
		if err != nil {
			p.t.Fatal(err)
		}
		look := []string{"GET", name}
		switch kind {
		case "hash":
			look[0] = "HGETALL"
		case "set":
			look[0] = "SCARD"
			for _, member := range slices.Concat(pairMembers, pairSetMembers) {
				p.plain("SISMEMBER", name, member)
			}
		}
		p.plain("PTTL", name)
		p.plain(look...)
	}
}

// rough rounds times, of which the two have read different ones, and leaves of
// an error its first word.
func rough(value any) any {
	const step = 100_000 // ms
	round := func(ms int64) string { return fmt.Sprint("about ", (ms+step/2)/step) }
	now := time.Now().UnixMilli()
	switch value := value.(type) {
	case fakeredis.Status:
		return string(value)
	case fakeredis.Error:
		word, _, _ := strings.Cut(string(value), " ")
		return fakeredis.Error(word)
	case int64:
		switch {
		case value > now/2:
			return round(value - now)
		case value > step/2:
			return round(value)
		}
		return value
	case string:
		// A side key with a lease.
		if len(value) > 17 && value[0] == 1 {
			return value[:9] + round(int64(binary.BigEndian.Uint64([]byte(value[9:17])))-now) + value[17:]
		}
		return value
	case []any:
		list := make([]any, len(value))
		for i, one := range value {
			list[i] = rough(one)
		}
		return list
	}
	return value
}
