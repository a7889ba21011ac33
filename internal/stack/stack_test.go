package stack_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/unstale/unstale/internal/stack"
)

// TestMain lets the test program play a part in its own tests: a process that
// starts servers and is then killed.
func TestMain(m *testing.M) {
	if os.Getenv("UNSTALE_STACK_ROLE") == "victim" {
		if err := victim(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func newStack(t *testing.T) *stack.Stack {
	t.Helper()
	s := stack.New(stack.Options{Say: func(line string) { t.Log(line) }})
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close the stack: %v", err)
		}
	})
	return s
}

func startPostgres(t *testing.T, s *stack.Stack, options stack.PostgresOptions) *stack.Postgres {
	t.Helper()
	p, err := s.Postgres(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func startRedis(t *testing.T, s *stack.Stack, options stack.RedisOptions) *stack.Redis {
	t.Helper()
	r, err := s.Redis(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// query runs SQL over a connection of its own and returns the first value.
func query(t *testing.T, p *stack.Postgres, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), p.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var value string
	if err := conn.QueryRow(t.Context(), sql).Scan(&value); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

// ask runs one command over a connection of its own.
func ask(t *testing.T, r *stack.Redis, args ...any) string {
	t.Helper()
	options, err := redis.ParseURL(r.URL())
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
	defer client.Close()
	reply, err := client.Do(t.Context(), args...).Result()
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	return fmt.Sprint(reply)
}

// The demo and the tests run on the oldest and the newest version that we
// test, on any machine.
func TestPostgresIsReadyForLogicalReplication(t *testing.T) {
	for _, major := range []int{15, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			p := startPostgres(t, newStack(t), stack.PostgresOptions{Major: major, Settings: map[string]string{"application_name": "it's"}})
			if p.Major() != major {
				t.Errorf("got major version %d, want %d", p.Major(), major)
			}
			for setting, want := range map[string]string{
				"wal_level": "logical", "max_wal_senders": "20", "max_replication_slots": "20", "fsync": "off",
				"listen_addresses": "127.0.0.1", "server_encoding": "UTF8", "timezone": "UTC", "application_name": "it's",
			} {
				if got := query(t, p, "SELECT current_setting('"+setting+"')"); got != want {
					t.Errorf("%s is %q, want %q", setting, got, want)
				}
			}
			if got, want := query(t, p, "SELECT datcollate || ' ' || rolname FROM pg_database, pg_roles WHERE datname = 'postgres' AND rolname = current_user AND rolsuper"), "C postgres"; got != want {
				t.Errorf("collation and superuser are %q, want %q", got, want)
			}
			query(t, p, "SELECT lsn::text FROM pg_create_logical_replication_slot('s', 'pgoutput')")
		})
	}
}

// The check of a database that is not set up starts from its defaults, and its
// advice is ALTER SYSTEM and a restart.
func TestAlterSystemOverridesTheSettings(t *testing.T) {
	p := startPostgres(t, newStack(t), stack.PostgresOptions{Settings: map[string]string{"wal_level": "replica"}})
	if got := query(t, p, "SHOW wal_level"); got != "replica" {
		t.Fatalf("wal_level is %s, want replica", got)
	}
	query(t, p, "ALTER SYSTEM SET wal_level = 'logical'")
	if err := p.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := query(t, p, "SHOW wal_level"); got != "logical" {
		t.Errorf("wal_level is %s after the restart, want logical", got)
	}
}

func TestPostgresFindsItsExtensionsAndTools(t *testing.T) {
	p := startPostgres(t, newStack(t), stack.PostgresOptions{Major: 18, Extensions: []string{"hstore", "citext", "ltree"}})
	query(t, p, "CREATE EXTENSION hstore")
	for _, name := range []string{"psql", "pgbench", "pg_recvlogical"} {
		path, err := p.Tool(name)
		if err != nil {
			t.Error(err)
		} else if output, err := exec.Command(path, "--version").CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, output)
		}
	}
	if _, err := p.Tool("pg_nosuchtool"); err == nil {
		t.Error("a tool that does not exist was found")
	}
}

// What a client has committed survives each way to end, on the same address.
func TestPostgresStartsAgainAfterEveryEnd(t *testing.T) {
	for _, major := range []int{15, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			p := startPostgres(t, newStack(t), stack.PostgresOptions{Major: major})
			query(t, p, "CREATE TABLE lives (n int)")
			// Several connections: each is a process that must go too.
			for range 3 {
				conn, err := pgx.Connect(t.Context(), p.URL())
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close(context.Background())
			}
			ends := []struct {
				name string
				end  func() error
			}{
				{"stop", func() error { return p.Stop(t.Context()) }},
				{"immediate", func() error { return p.StopImmediate(t.Context()) }},
				{"kill", p.Kill},
				{"kill while paused", func() error { return errors.Join(p.Pause(), p.Kill()) }},
				{"stop while paused", func() error { return errors.Join(p.Pause(), p.Stop(t.Context())) }},
			}
			addr := p.Addr()
			for i, end := range ends {
				query(t, p, fmt.Sprintf("INSERT INTO lives VALUES (%d)", i))
				done := p.Done()
				if err := end.end(); err != nil {
					t.Fatalf("%s: %v", end.name, err)
				}
				<-done
				if p.PID() != 0 {
					t.Errorf("%s: it has a process, %d", end.name, p.PID())
				}
				if conn, err := net.Dial("tcp", addr); err == nil {
					conn.Close()
					t.Errorf("%s: its port still answers", end.name)
				}
				if err := p.Start(t.Context()); err != nil {
					t.Fatalf("after %s: %v", end.name, err)
				}
				if got, want := query(t, p, "SELECT count(*)::text FROM lives"), fmt.Sprint(i+1); got != want {
					t.Errorf("after %s: %s rows, want %s", end.name, got, want)
				}
			}
			if p.Addr() != addr {
				t.Errorf("the address changed from %s to %s", addr, p.Addr())
			}
		})
	}
}

// A paused server is what a hung machine looks like: it takes connections and
// says nothing.
func TestPausedServersAcceptAndStaySilent(t *testing.T) {
	s := newStack(t)
	p, r := startPostgres(t, s, stack.PostgresOptions{}), startRedis(t, s, stack.RedisOptions{})
	conn, err := pgx.Connect(t.Context(), p.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for _, server := range []*stack.Server{p.Server, r.Server} {
		if err := server.Pause(); err != nil {
			t.Fatal(err)
		}
		dialled, err := net.Dial("tcp", server.Addr())
		if err != nil {
			t.Fatalf("%s does not accept while paused: %v", server.Name(), err)
		}
		dialled.Close()
	}
	// The backend of an open connection is paused as well.
	answered := make(chan error, 1)
	go func() {
		_, err := conn.Exec(t.Context(), "SELECT 1")
		answered <- err
	}()
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	select {
	case err := <-answered:
		t.Errorf("a paused server answered: %v", err)
	case <-short.Done():
	}
	for _, server := range []*stack.Server{p.Server, r.Server} {
		if err := server.Resume(); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-answered; err != nil {
		t.Errorf("the query that waited: %v", err)
	}
	ask(t, r, "PING")
}

// Unstale works with Redis 7 and later and with Valkey, and refuses what is
// older.
func TestRedisIsOfTheVersionAskedFor(t *testing.T) {
	s := newStack(t)
	for _, options := range []stack.RedisOptions{{}, {PreferRedis: true}, {Old: true}} {
		r := startRedis(t, s, options)
		if got, want := r.Major() < 7, options.Old; got != want {
			t.Errorf("%+v gave %s", options, r.Name())
		}
		ask(t, r, "PING")
	}
}

func TestRedisKeepsItsDataOnlyIfAsked(t *testing.T) {
	for _, c := range []struct{ appendonly, want string }{{"no", "0"}, {"yes", "1"}} {
		t.Run("appendonly "+c.appendonly, func(t *testing.T) {
			t.Parallel()
			r := startRedis(t, newStack(t), stack.RedisOptions{Settings: map[string]string{
				"appendonly": c.appendonly, "appendfsync": "always", "requirepass": "secret",
			}})
			for _, end := range []func() error{func() error { return r.Stop(t.Context()) }, r.Kill} {
				ask(t, r, "SET", "k", "v")
				if err := end(); err != nil {
					t.Fatal(err)
				}
				if err := r.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				if got := ask(t, r, "EXISTS", "k"); got != c.want {
					t.Errorf("EXISTS is %s after the restart, want %s", got, c.want)
				}
			}
		})
	}
}

func TestRedisClusterServesEverySlot(t *testing.T) {
	r := startRedis(t, newStack(t), stack.RedisOptions{Cluster: true})
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{r.Addr()}})
	defer client.Close()
	for i := range 100 {
		if err := client.Set(t.Context(), fmt.Sprint("key", i), i, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

// A server that does not come up says why in its log, and the log goes with
// the stack: the error must carry it.
func TestTheErrorOfAServerThatDoesNotStartCarriesItsLog(t *testing.T) {
	s := newStack(t)
	_, err := s.Postgres(t.Context(), stack.PostgresOptions{Settings: map[string]string{"wal_level": "nonsense"}})
	if err == nil || !strings.Contains(err.Error(), `invalid value for parameter "wal_level"`) {
		t.Errorf("got %v", err)
	}
	_, err = s.Redis(t.Context(), stack.RedisOptions{Settings: map[string]string{"maxmemory-policy": "nonsense"}})
	if err == nil || !strings.Contains(err.Error(), "maxmemory-policy") {
		t.Errorf("got %v", err)
	}
}

// A client that dials a stopped server again and again must not be connected
// to itself, nor keep the port from the server.
func TestAStoppedServersPortIsGivenToNobodyElse(t *testing.T) {
	r := startRedis(t, newStack(t), stack.RedisOptions{})
	if err := r.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	addr, err := net.ResolveTCPAddr("tcp", r.Addr())
	if err != nil {
		t.Fatal(err)
	}
	// The kernel would choose this source port by chance, sooner or later.
	if conn, err := (&net.Dialer{LocalAddr: addr}).Dial("tcp", r.Addr()); err == nil {
		conn.Close()
		t.Errorf("a client was connected to itself: %s to %s", conn.LocalAddr(), conn.RemoteAddr())
	}
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestCloseLeavesNothingBehind(t *testing.T) {
	parent, err := os.MkdirTemp("", "stack-test-") // t.TempDir is closed to PostgreSQL's account
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(parent)
	if err := os.Chmod(parent, 0o755); err != nil {
		t.Fatal(err)
	}
	s := stack.New(stack.Options{Dir: parent})
	p, r := startPostgres(t, s, stack.PostgresOptions{}), startRedis(t, s, stack.RedisOptions{})
	if err := r.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := p.Pause(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(parent, "*")); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
	if p.PID() != 0 {
		t.Errorf("%s still runs", p.Name())
	}
	if err := s.Close(); err != nil {
		t.Errorf("the second Close: %v", err)
	}
	if err := p.Start(t.Context()); err == nil {
		t.Error("a server started after Close")
	}
	if _, err := s.Redis(t.Context(), stack.RedisOptions{}); err == nil {
		t.Error("a new server started after Close")
	}
}

// victim starts servers, says where, and waits for its death.
func victim() error {
	s := stack.New(stack.Options{})
	p, err := s.Postgres(context.Background(), stack.PostgresOptions{})
	if err != nil {
		return err
	}
	paused, err := s.Postgres(context.Background(), stack.PostgresOptions{})
	if err != nil {
		return err
	}
	if err := paused.Pause(); err != nil {
		return err
	}
	r, err := s.Redis(context.Background(), stack.RedisOptions{})
	if err != nil {
		return err
	}
	fmt.Println(p.PID(), paused.PID(), r.PID(), filepath.Dir(p.Dir()))
	select {}
}

// kill -9 of the demo must not leave servers or data on someone's machine.
func TestServersEndWithTheProcessThatStartedThem(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "UNSTALE_STACK_ROLE=victim")
	cmd.Stderr = os.Stderr
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, readErr := bufio.NewReader(output).ReadString('\n')
	killErr := cmd.Process.Kill()
	_ = cmd.Wait() // killed
	if err := errors.Join(readErr, killErr); err != nil {
		t.Fatal(err)
	}
	var pids [3]int
	var dir string
	if _, err := fmt.Sscan(line, &pids[0], &pids[1], &pids[2], &dir); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	eventually(t, dir+" is removed", func() bool {
		_, err := os.Stat(dir)
		return errors.Is(err, os.ErrNotExist)
	})
	for _, pid := range pids {
		eventually(t, fmt.Sprintf("process %d has ended", pid), func() bool {
			return !runs(pid)
		})
	}
}

// runs reports whether a process exists and is no zombie: a machine whose first
// process reaps nothing keeps those.
func runs(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ") && !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}

// eventually asks until the fact holds: nobody tells us of the death of a
// process that is not our child.
func eventually(t *testing.T, fact string, holds func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for !holds() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("not so after 20 s: %s", fact)
		}
	}
}
