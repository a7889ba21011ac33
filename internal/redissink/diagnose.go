package redissink

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// A Problem is something about a Redis with which Unstale cannot work.
type Problem struct {
	Text string `json:"text"`
	Mend string `json:"mend"`
}

// probeScript starts only where scripts may declare what they do. It writes
// nothing.
const probeScript = "#!lua flags=allow-oom,allow-cross-slot-keys\nreturn 'ok'"

// Diagnose looks at everything that Unstale needs of the Redis behind client. It
// writes nothing. The error is that of a Redis that does not answer.
func Diagnose(ctx context.Context, client *redis.Client) ([]Problem, error) {
	s := New(client, Options{})
	server, err := s.info(ctx, "server")
	if err != nil {
		switch text := err.Error(); {
		case strings.Contains(text, "NOPERM"):
			return []Problem{noPermission(client, "info", err)}, nil
		case strings.Contains(text, "WRONGPASS"), strings.Contains(text, "NOAUTH"), strings.Contains(text, "without any password configured"):
			return []Problem{{
				fmt.Sprintf("user %s is not let in: %v", user(client), err),
				"correct redis.username, and redis.password or redis.password_file",
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
			fmt.Sprintf("this is Redis %s; Unstale needs 7.0 or later, where a script can be let run on a full Redis", version),
			"upgrade to Redis 7.0 or later, or to Valkey",
		}}, nil
	}
	replication, err := s.info(ctx, "replication")
	if err != nil {
		return nil, err
	}
	if replication["role"] != "master" {
		problems = append(problems, Problem{
			fmt.Sprintf("this Redis is a replica of %s:%s: what it shows may be behind, and it takes no writes", replication["master_host"], replication["master_port"]),
			"let redis name the master",
		})
	}
	cluster, err := s.info(ctx, "cluster")
	if err != nil {
		return nil, err
	}
	if cluster["cluster_enabled"] == "1" {
		problems = append(problems, Problem{"this is a Redis Cluster, which this release does not work with", "let redis name a single master"})
	}
	for _, probe := range []struct {
		command string
		err     error
	}{
		{"script|load", client.ScriptLoad(ctx, probeScript).Err()},
		{"eval", client.Eval(ctx, probeScript, nil).Err()},
		{"scan", client.Scan(ctx, 0, "", 1).Err()},
		{"unlink", client.Do(ctx, "ACL", "DRYRUN", user(client), "UNLINK", "unstale:probe").Err()},
	} {
		switch {
		case probe.err == nil:
		case strings.Contains(probe.err.Error(), "NOPERM") && !strings.Contains(probe.err.Error(), "acl"):
			problems = append(problems, noPermission(client, probe.command, probe.err))
		case probe.command != "unlink":
			problems = append(problems, Problem{fmt.Sprintf("%s: %v", probe.command, probe.err), "Unstale needs this command"})
		}
	}
	return problems, nil
}

func user(client *redis.Client) string {
	if name := client.Options().Username; name != "" {
		return name
	}
	return "default"
}

func noPermission(client *redis.Client, command string, err error) Problem {
	return Problem{
		fmt.Sprintf("user %s may not %s: %v", user(client), command, err),
		fmt.Sprintf("ACL SETUSER %s on ~* +@read +@write +@scripting +scan +info +ping +config|get", user(client)),
	}
}
