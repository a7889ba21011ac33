// Package fakeredis is a small Redis in memory that runs the guard's scripts in
// a Lua of its own: strings, hashes, sets, expiry, a clock that stands still until it
// is set, and a memory that is full when it is said to be. It knows the commands
// that the scripts and the model use, and refuses the others.
//
// A test runs the same sequences on it and on a real Redis, and demands the same
// replies and the same keys.
package fakeredis

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// An Entry is what stands under one key. The zero Entry is no key.
type Entry struct {
	// Text is the value of a string.
	Text string
	// Fields of a hash: name and value by turns, in the order in which they came.
	Fields []string
	// Members of a set, in their order.
	Members []string
	// ExpireAt is in milliseconds, as Now; 0: never.
	ExpireAt int64
	// Exists tells an empty string from no key.
	Exists bool
}

// Hash reports whether e is a hash.
func (e Entry) Hash() bool { return len(e.Fields) > 0 }

// Set reports whether e is a set.
func (e Entry) Set() bool { return len(e.Members) > 0 }

// Field returns the value of a field of a hash.
func (e Entry) Field(name string) (value string, ok bool) {
	for i := 0; i < len(e.Fields); i += 2 {
		if e.Fields[i] == name {
			return e.Fields[i+1], true
		}
	}
	return "", false
}

// Redis is one master. It is not safe for concurrent use.
type Redis struct {
	Keys map[string]Entry
	// Now is what TIME says, in milliseconds since 1970.
	Now int64
	// Full: commands that may need memory are refused, as with maxmemory reached
	// and nothing that may be evicted.
	Full bool

	lua *vm
	run *run // of the script that runs, if one does
}

// New returns an empty Redis.
func New() *Redis {
	r := &Redis{Keys: map[string]Entry{}}
	r.lua = newVM(r)
	return r
}

// Status and Error are the replies that are not plain texts.
type (
	Status string
	Error  string
)

const wrongType = Error("WRONGTYPE Operation against a key holding the wrong kind of value")

// command is what the table below knows of one: whether it writes, and whether
// a full Redis refuses it.
type command struct {
	write, grows bool
	arity        int // arguments beside the name, at least
	do           func(r *Redis, args []string) any
}

var commands = map[string]command{
	"GET":       {arity: 1, do: (*Redis).get},
	"MGET":      {arity: 1, do: (*Redis).mget},
	"EXISTS":    {arity: 1, do: (*Redis).exists},
	"PTTL":      {arity: 1, do: (*Redis).pttl},
	"TIME":      {do: (*Redis).time},
	"HGET":      {arity: 2, do: (*Redis).hget},
	"HMGET":     {arity: 2, do: (*Redis).hmget},
	"HGETALL":   {arity: 1, do: (*Redis).hgetall},
	"SET":       {arity: 2, write: true, grows: true, do: (*Redis).set},
	"HSET":      {arity: 3, write: true, grows: true, do: (*Redis).hset},
	"HINCRBY":   {arity: 3, write: true, grows: true, do: (*Redis).hincrby},
	"SADD":      {arity: 2, write: true, grows: true, do: (*Redis).sadd},
	"SREM":      {arity: 2, write: true, do: (*Redis).srem},
	"SCARD":     {arity: 1, do: (*Redis).scard},
	"SISMEMBER": {arity: 2, do: (*Redis).sismember},
	"SMEMBERS":  {arity: 1, do: (*Redis).smembers},
	"DEL":       {arity: 1, write: true, do: (*Redis).del},
	"UNLINK":    {arity: 1, write: true, do: (*Redis).del},
	"PEXPIRE":   {arity: 2, write: true, do: (*Redis).pexpire},
	"FLUSHALL":  {write: true, do: (*Redis).flushall},
}

// Do runs one command. The reply is nil, an int64, a string, a Status, an Error
// or a []any of these.
func (r *Redis) Do(args ...string) any {
	c, ok := commands[strings.ToUpper(args[0])]
	if !ok {
		return Error("ERR unknown command '" + args[0] + "'")
	}
	if len(args)-1 < c.arity {
		return Error("ERR wrong number of arguments for '" + strings.ToLower(args[0]) + "' command")
	}
	if r.Full && c.grows && !r.run.mayGrow() {
		return Error("OOM command not allowed when used memory > 'maxmemory'.")
	}
	if c.write && r.run != nil {
		r.run.wrote = true
	}
	return c.do(r, args[1:])
}

// look returns what stands under key, and removes it if it has expired.
func (r *Redis) look(key string) Entry {
	e := r.Keys[key]
	if e.ExpireAt != 0 && r.Now > e.ExpireAt {
		delete(r.Keys, key)
		return Entry{}
	}
	return e
}

func (r *Redis) get(args []string) any {
	switch e := r.look(args[0]); {
	case !e.Exists:
		return nil
	case e.Hash(), e.Set():
		return wrongType
	default:
		return e.Text
	}
}

func (r *Redis) mget(args []string) any {
	values := make([]any, len(args))
	for i, key := range args {
		if e := r.look(key); e.Exists && !e.Hash() && !e.Set() {
			values[i] = e.Text
		}
	}
	return values
}

func (r *Redis) exists(args []string) any {
	var n int64
	for _, key := range args {
		if r.look(key).Exists {
			n++
		}
	}
	return n
}

func (r *Redis) pttl(args []string) any {
	switch e := r.look(args[0]); {
	case !e.Exists:
		return int64(-2)
	case e.ExpireAt == 0:
		return int64(-1)
	default:
		return e.ExpireAt - r.Now
	}
}

func (r *Redis) time([]string) any {
	return []any{strconv.FormatInt(r.Now/1000, 10), strconv.FormatInt(r.Now%1000*1000, 10)}
}

func (r *Redis) hget(args []string) any {
	values, ok := r.hmget(args[:2]).([]any)
	if !ok {
		return wrongType
	}
	return values[0]
}

func (r *Redis) hmget(args []string) any {
	e := r.look(args[0])
	if e.Exists && !e.Hash() {
		return wrongType
	}
	values := make([]any, len(args)-1)
	for i, name := range args[1:] {
		if value, ok := e.Field(name); ok {
			values[i] = value
		}
	}
	return values
}

func (r *Redis) hgetall(args []string) any {
	e := r.look(args[0])
	if e.Exists && !e.Hash() {
		return wrongType
	}
	return list(e.Fields)
}

func list(texts []string) any {
	values := make([]any, len(texts))
	for i, text := range texts {
		values[i] = text
	}
	return values
}

func (r *Redis) set(args []string) any {
	e := Entry{Text: args[1], Exists: true}
	before := r.look(args[0])
	for i := 2; i < len(args); i++ {
		switch option := strings.ToUpper(args[i]); {
		case option == "PX" && i+1 < len(args):
			i++
			ms, err := strconv.ParseInt(args[i], 10, 64)
			if err != nil {
				return Error("ERR value is not an integer or out of range")
			}
			if ms <= 0 {
				return Error("ERR invalid expire time in 'set' command")
			}
			e.ExpireAt = r.Now + ms
		case option == "KEEPTTL":
			e.ExpireAt = before.ExpireAt
		case option == "XX":
			if !before.Exists {
				return nil
			}
		case option == "NX":
			if before.Exists {
				return nil
			}
		default:
			return Error("ERR syntax error")
		}
	}
	r.Keys[args[0]] = e
	return Status("OK")
}

func (r *Redis) hset(args []string) any {
	if len(args)%2 == 0 {
		return Error("ERR wrong number of arguments for 'hset' command")
	}
	e := r.look(args[0])
	if e.Exists && !e.Hash() {
		return wrongType
	}
	fields, added := slices.Clone(e.Fields), int64(0)
next:
	for i := 1; i < len(args); i += 2 {
		for j := 0; j < len(fields); j += 2 {
			if fields[j] == args[i] {
				fields[j+1] = args[i+1]
				continue next
			}
		}
		fields = append(fields, args[i], args[i+1])
		added++
	}
	e.Fields, e.Exists = fields, true
	r.Keys[args[0]] = e
	return added
}

func (r *Redis) hincrby(args []string) any {
	old := r.hget(args)
	if old == wrongType {
		return wrongType
	}
	var n int64
	if text, ok := old.(string); ok {
		var err error
		if n, err = strconv.ParseInt(text, 10, 64); err != nil {
			return Error("ERR hash value is not an integer")
		}
	}
	by, err := strconv.ParseInt(args[2], 10, 64)
	if err != nil {
		return Error("ERR value is not an integer or out of range")
	}
	r.hset([]string{args[0], args[1], strconv.FormatInt(n+by, 10)})
	return n + by
}

func (r *Redis) sadd(args []string) any {
	e := r.look(args[0])
	if e.Exists && !e.Set() {
		return wrongType
	}
	members, added := slices.Clone(e.Members), int64(0)
	for _, member := range args[1:] {
		if at, found := slices.BinarySearch(members, member); !found {
			members = slices.Insert(members, at, member)
			added++
		}
	}
	e.Members, e.Exists = members, true
	r.Keys[args[0]] = e
	return added
}

func (r *Redis) srem(args []string) any {
	e := r.look(args[0])
	if e.Exists && !e.Set() {
		return wrongType
	}
	left := slices.DeleteFunc(slices.Clone(e.Members), func(member string) bool { return slices.Contains(args[1:], member) })
	removed := int64(len(e.Members) - len(left))
	if e.Members = left; len(left) == 0 {
		delete(r.Keys, args[0])
	} else {
		r.Keys[args[0]] = e
	}
	return removed
}

func (r *Redis) scard(args []string) any {
	e := r.look(args[0])
	if e.Exists && !e.Set() {
		return wrongType
	}
	return int64(len(e.Members))
}

func (r *Redis) sismember(args []string) any {
	e := r.look(args[0])
	switch {
	case e.Exists && !e.Set():
		return wrongType
	case slices.Contains(e.Members, args[1]):
		return int64(1)
	}
	return int64(0)
}

// smembers returns the members in their order; a real Redis has none.
func (r *Redis) smembers(args []string) any {
	e := r.look(args[0])
	if e.Exists && !e.Set() {
		return wrongType
	}
	return list(e.Members)
}

func (r *Redis) del(args []string) any {
	var n int64
	for _, key := range args {
		if r.look(key).Exists {
			delete(r.Keys, key)
			n++
		}
	}
	return n
}

func (r *Redis) pexpire(args []string) any {
	ms, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return Error("ERR value is not an integer or out of range")
	}
	e := r.look(args[0])
	if !e.Exists {
		return int64(0)
	}
	if e.ExpireAt = r.Now + ms; ms <= 0 {
		delete(r.Keys, args[0])
	} else {
		r.Keys[args[0]] = e
	}
	return int64(1)
}

func (r *Redis) flushall([]string) any {
	clear(r.Keys)
	return Status("OK")
}

// Text prints a reply as people read it.
func Text(reply any) string {
	switch reply := reply.(type) {
	case nil:
		return "nothing"
	case []any:
		texts := make([]string, len(reply))
		for i, one := range reply {
			texts[i] = Text(one)
		}
		return strings.Join(texts, " ")
	default:
		return fmt.Sprint(reply)
	}
}
