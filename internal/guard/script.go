package guard

import (
	"crypto/sha1"
	_ "embed"
	"encoding/hex"
	"errors"
)

// A Script is Lua that Redis runs atomically. Redis finds a loaded one by its
// hash (EVALSHA) and answers NOSCRIPT where it was not loaded.
type Script struct {
	Name   string
	Source string
	SHA    string
}

func newScript(name, source string) Script {
	sum := sha1.Sum([]byte(source))
	return Script{name, source, hex.EncodeToString(sum[:])}
}

//go:embed lua/own.lua
var ownSource string

//go:embed lua/apply.lua
var applySource string

//go:embed lua/begin.lua
var beginSource string

//go:embed lua/fill.lua
var fillSource string

//go:embed lua/release.lua
var releaseSource string

//go:embed lua/invalidate.lua
var invalidateSource string

//go:embed lua/forget.lua
var forgetSource string

//go:embed lua/settle.lua
var settleSource string

//go:embed lua/collect.lua
var collectSource string

//go:embed lua/name.lua
var nameSource string

//go:embed lua/seal.lua
var sealSource string

//go:embed lua/dropnamed.lua
var dropNamedSource string

//go:embed lua/members.lua
var membersSource string

//go:embed lua/build.lua
var buildSource string

//go:embed lua/gather.lua
var gatherSource string

//go:embed lua/complete.lua
var completeSource string

// The scripts of the protocol. Each file in lua/ states its keys, arguments and
// replies.
var (
	Own = newScript("own", ownSource)
	// Apply may run on a full Redis, so it is for batches that only drop.
	Apply = newScript("apply", "#!lua flags=allow-oom,allow-cross-slot-keys\n"+applySource)
	// ApplyValues is the same for batches that SET: a full Redis refuses it
	// before it has done anything.
	ApplyValues = newScript("apply values", "#!lua flags=allow-cross-slot-keys\n"+applySource)
	Begin       = newScript("begin", beginSource)
	Fill        = newScript("fill", fillSource)
	Release     = newScript("release", releaseSource)
	Invalidate  = newScript("invalidate", invalidateSource)
	Forget      = newScript("forget", forgetSource)
	Settle      = newScript("settle", settleSource)
	Collect     = newScript("collect", collectSource)
	Name        = newScript("name", nameSource)
	Seal        = newScript("seal", sealSource)
	DropNamed   = newScript("drop named", dropNamedSource)
	Members     = newScript("members", membersSource)
	Build       = newScript("build", buildSource)
	Gather      = newScript("gather", gatherSource)
	Complete    = newScript("complete", completeSource)
)

// Commands are those that the scripts run, with arguments as they may have. Redis
// asks for the right to each of them: one that is missing ends a script in its
// middle.
func Commands(key string) [][]string {
	return [][]string{
		{"TIME"}, {"GET", key}, {"MGET", key}, {"SET", key, "value"}, {"DEL", key}, {"UNLINK", key}, {"EXISTS", key}, {"PEXPIRE", key, "1"},
		{"HGET", key, "field"}, {"HMGET", key, "field"}, {"HGETALL", key}, {"HSET", key, "field", "value"}, {"HINCRBY", key, "field", "1"},
		{"SADD", key, "name"}, {"SREM", key, "name"}, {"SISMEMBER", key, "name"}, {"SCARD", key}, {"SMEMBERS", key}, {"SSCAN", key, "0"}, {"PTTL", key},
	}
}

// Replies of Apply.
const (
	OK     = "OK"
	Done   = "DONE"
	Lost   = "LOST"
	Fenced = "FENCED"
)

// Replies of Begin and Fill.
const (
	Hit     = "HIT"
	Wait    = "WAIT"
	Leased  = "LEASE"
	Stored  = "STORED"
	Refused = "REFUSED"
	Full    = "FULL"
)

// Formats of a value, as Begin and Fill are told.
const (
	String = "s"
	Hash   = "h"
)

var (
	// ErrLost says that a master is not where this owner left it: it lost
	// writes. The stream must be taken over again, from what is there.
	ErrLost = errors.New("redis lost writes that it had confirmed")
	// ErrClock says that a master's clock and ours have drifted apart: how old a
	// change is can no longer be told. The stream must be taken over again.
	ErrClock = errors.New("the clocks of redis and of this machine have moved apart")
	// ErrFenced says that another owner has taken the stream over.
	ErrFenced = errors.New("another instance has taken the stream over")
)
