package redissink

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/unstale/unstale/internal/guard"
)

// A Problem is something about a Redis with which Unstale cannot work.
type Problem struct {
	Text string
	Mend string
	// Passing: it may pass by itself, as a failover does.
	Passing bool
}

// probeScript starts only where scripts may declare what they do. It writes
// nothing. ARGV has commands, each behind the number of its words; it returns the numbers
// of those that the user may not run.
const probeScript = `#!lua flags=allow-oom,allow-cross-slot-keys
local refused, at, number = {}, 1, 0
while redis.acl_check_cmd and ARGV[at] do
  local words = tonumber(ARGV[at])
  if not redis.acl_check_cmd(unpack(ARGV, at + 1, at + words)) then refused[#refused + 1] = number end
  at, number = at + 1 + words, number + 1
end
return refused`

// probeKey is never there. Every user of the service may name it.
const probeKey = "unstale:probe"

// passing are the errors of a Redis that will soon answer again.
var passing = []string{"LOADING", "BUSY", "READONLY", "MISCONF", "MASTERDOWN", "CLUSTERDOWN", "NOREPLICAS", "OOM"}

// Keys are those of an entry.
type Keys struct {
	Template *guard.Template
	Kept     bool // its values are written by the service: it must read what is there
}

// Diagnose looks at everything that Unstale needs of the Redis behind client, for these
// keys. It changes nothing. The error is that of a Redis that does not answer.
func Diagnose(ctx context.Context, client *redis.Client, keys ...Keys) ([]Problem, error) {
	s := New(client, Options{})
	server, err := s.info(ctx, "server")
	if err != nil {
		switch text := err.Error(); {
		case strings.Contains(text, "NOPERM"):
			return []Problem{noPermission(client, "info", err)}, nil
		case strings.Contains(text, "WRONGPASS"), strings.Contains(text, "NOAUTH"), strings.Contains(text, "without any password configured"):
			return []Problem{{
				Text: fmt.Sprintf("user %s is not let in: %v", user(client), err),
				Mend: "correct redis.username, and redis.password or redis.password_file",
			}}, nil
		}
		return nil, err
	}
	var problems []Problem
	version := server["redis_version"]
	major, _, _ := strings.Cut(version, ".")
	if n, err := strconv.Atoi(major); err != nil || n < 7 {
		// Nothing else that such a server says would be of use.
		return []Problem{{
			Text: fmt.Sprintf("this is Redis %s; Unstale needs 7.0 or later, where a script can be let run on a full Redis", version),
			Mend: "upgrade to Redis 7.0 or later, or to Valkey",
		}}, nil
	}
	replication, err := s.info(ctx, "replication")
	if err != nil {
		return nil, err
	}
	if replication["role"] != "master" {
		// Every write would be refused, so nothing more can be tried.
		return []Problem{{
			Text:    fmt.Sprintf("this Redis is a replica of %s:%s: what it shows may be behind, and it takes no writes", replication["master_host"], replication["master_port"]),
			Mend:    "let redis name the master",
			Passing: true,
		}}, nil
	}
	cluster, err := s.info(ctx, "cluster")
	if err != nil {
		return nil, err
	}
	if cluster["cluster_enabled"] == "1" {
		problems = append(problems, Problem{
			Text: "this is a Redis Cluster, which this release does not work with",
			Mend: "let redis name a single master",
		})
	}
	tried := guard.Commands(probeKey)
	of := make([]int, len(tried)) // one more than which of the keys it is about
	// try adds a command that needs the right to write a key, and one that needs that to
	// read it.
	try := func(i int, key string, reads bool) {
		tried, of = append(tried, []string{"UNLINK", key}), append(of, i+1)
		if reads {
			tried, of = append(tried, []string{"GET", key}), append(of, i+1)
		}
	}
	for i, k := range keys {
		if len(k.Template.AppendLiteral(nil, 0)) == 0 {
			continue // the right may depend on the value that it begins with
		}
		key := k.Template.Key(slices.Repeat([]string{"0"}, len(k.Template.Columns()))...)
		try(i, key, k.Kept)
		if side, ok := guard.SideKey(key); ok {
			try(len(keys), side, true)
		}
	}
	var commands []any
	for _, command := range tried {
		commands = append(commands, len(command))
		for _, word := range command {
			commands = append(commands, word)
		}
	}
	eval := client.Eval(ctx, probeScript, nil, commands...)
	for _, probe := range []struct {
		command string
		err     error
	}{
		{"script|load", client.ScriptLoad(ctx, probeScript).Err()},
		{"eval", eval.Err()},
		{"evalsha", evalSHA(ctx, client)},
		{"time", client.Time(ctx).Err()},
		{"scan", client.Scan(ctx, 0, "", 1).Err()},
		{"dbsize", client.DBSize(ctx).Err()},
		{"unlink", client.Unlink(ctx, probeKey).Err()},
	} {
		_, answered := errors.AsType[redis.Error](probe.err)
		switch {
		case probe.err == nil:
		case !answered, slices.ContainsFunc(passing, func(prefix string) bool { return redis.HasErrorPrefix(probe.err, prefix) }):
			return nil, fmt.Errorf("%s: %w", probe.command, probe.err)
		case strings.Contains(probe.err.Error(), "NOPERM"):
			problems = append(problems, noPermission(client, probe.command, probe.err))
		default:
			problems = append(problems, Problem{
				Text: fmt.Sprintf("%s: %v", probe.command, probe.err),
				Mend: "Unstale needs this command",
			})
		}
	}
	var refused []string
	unreachable := make([]bool, len(keys)+1) // the last for side keys
	numbers, _ := eval.Int64Slice()          // its error was looked at
	for _, n := range numbers {
		if of[n] == 0 {
			refused = append(refused, tried[n][0])
		} else {
			unreachable[of[n]-1] = true
		}
	}
	switch {
	case len(refused) > 0:
		problems = append(problems, noPermission(client, strings.ToLower(strings.Join(refused, ", ")), errors.New("a script would end in its middle")))
	case len(problems) == 0:
		for i, k := range keys {
			if unreachable[i] {
				problems = append(problems, noKeys(client, "the keys "+k.Template.String(), patternOf(k.Template)))
			}
		}
		if unreachable[len(keys)] {
			problems = append(problems, noKeys(client, "what stands beside keys", "{*}:l*"))
		}
	}
	return problems, nil
}

// noKeys says that a user may not name keys.
func noKeys(client *redis.Client, what, pattern string) Problem {
	return Problem{
		Text: fmt.Sprintf("user %s may not read and write %s: the first change that drops one would be held", user(client), what),
		Mend: fmt.Sprintf("ACL SETUSER %s ~%s", user(client), pattern),
	}
}

// patternOf is Redis' pattern of the keys of a template.
func patternOf(t *guard.Template) string {
	pattern := globs.Replace(string(t.AppendLiteral(nil, 0)))
	if len(t.Columns()) > 0 {
		pattern += "*"
	}
	return pattern
}

// globs writes what a pattern of Redis would take for something else.
var globs = strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`)

// evalSHA is the error of running a script that nobody has loaded, if that is
// anything else.
func evalSHA(ctx context.Context, client *redis.Client) error {
	err := client.EvalSha(ctx, strings.Repeat("0", 40), nil).Err()
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		return nil
	}
	return err
}

// Evicts returns by which policy the Redis behind client may evict keys that
// have an end; empty if it evicts none.
func Evicts(ctx context.Context, client *redis.Client) (policy string, err error) {
	memory, err := New(client, Options{}).info(ctx, "memory")
	if err != nil || memory["maxmemory"] == "0" || memory["maxmemory_policy"] == "noeviction" {
		return "", err
	}
	return memory["maxmemory_policy"], nil
}

func user(client *redis.Client) string {
	if name := client.Options().Username; name != "" {
		return name
	}
	return "default"
}

func noPermission(client *redis.Client, command string, err error) Problem {
	return Problem{
		Text: fmt.Sprintf("user %s may not %s: %v", user(client), command, err),
		Mend: fmt.Sprintf("ACL SETUSER %s on ~* +@read +@write +@scripting +select +scan +info +ping +time +config|get", user(client)),
	}
}
