// Package e2e runs the built binary, and what only real servers can prove,
// against PostgreSQL and Redis that it starts itself.
package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/unstale/unstale/internal/stack"
)

// servers starts every server of these tests; binary is the path of unstale.
var (
	servers *stack.Stack
	binary  string
)

// parallelTests is how many tests run side by side: those that ask for it wait
// for servers and for the clock, not for a processor.
const parallelTests = "12"

func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", parallelTests); err != nil {
		panic(err)
	}
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "unstale-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "unstale")
	build := exec.Command("go", "build", "-o", binary, "github.com/unstale/unstale/cmd/unstale")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the binary: %v\n%s", err, out)
		return 1
	}
	servers = stack.New(stack.Options{Say: func(line string) { fmt.Fprintln(os.Stderr, line) }})
	defer servers.Close()
	return m.Run()
}

// A postgres or redis that several tests share is started by the first one that
// asks. Tests keep apart by databases, slots and key prefixes of their own.
var shared struct {
	mu       sync.Mutex
	postgres map[int]*stack.Postgres
	redis    *stack.Redis
}

// sharedPostgres returns the running PostgreSQL of that major version. Who wants
// to stop or break one starts its own.
func sharedPostgres(t *testing.T, major int) *stack.Postgres {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if p := shared.postgres[major]; p != nil {
		return p
	}
	// Tests run side by side, each with a slot of its own.
	p := startPostgres(t, stack.PostgresOptions{Major: major, Settings: map[string]string{
		"max_replication_slots": "100", "max_wal_senders": "100", "max_connections": "200",
	}})
	if shared.postgres == nil {
		shared.postgres = map[int]*stack.Postgres{}
	}
	shared.postgres[major] = p
	return p
}

// sharedRedis returns the running Redis that no test stops or flushes.
func sharedRedis(t *testing.T) *stack.Redis {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.redis == nil {
		shared.redis = startRedis(t, stack.RedisOptions{})
	}
	return shared.redis
}

// startPostgres starts a PostgreSQL that lives until the tests end.
func startPostgres(t *testing.T, options stack.PostgresOptions) *stack.Postgres {
	t.Helper()
	p, err := servers.Postgres(within(t, time.Minute), options)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// startRedis starts a Redis that lives until the tests end.
func startRedis(t *testing.T, options stack.RedisOptions) *stack.Redis {
	t.Helper()
	r, err := servers.Redis(within(t, time.Minute), options)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// within returns a context for one step of a test.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
