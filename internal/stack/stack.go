// Package stack finds, fetches and starts real servers for the demo and for the
// tests: PostgreSQL and Redis; Kafka, a schema registry, and Kafka Connect with
// Debezium.
//
// It promises three things. It uses what is installed before it fetches
// anything. It never touches a server that already runs: its own listen on free
// loopback ports and keep their data in a temporary directory. And it leaves
// nothing behind: when the process that started them ends, in whatever way, the
// servers end and their data goes.
//
// It refuses to install servers into the system, to start system services and
// to download from anywhere but the registries that the machine's own pip, mvn
// and apt-get are set up for. Servers can be started on Linux only.
package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
)

// Options of a Stack. The zero value is ready to use.
type Options struct {
	// Say receives one plain line for each step that takes time: what is
	// installed, fetched, started. Nil is silent. It may be called by several
	// goroutines at once.
	Say func(line string)
	// Cache keeps what was fetched. The default is "unstale" in the user's
	// cache directory; for root it is /var/cache/unstale, because root's home
	// is closed to the account that PostgreSQL must run under.
	Cache string
	// Dir is where the Stack's temporary directory is made; the default is
	// os.TempDir(). Everything that the servers write is in there, and goes
	// with Close.
	Dir string
}

// A Stack is a group of servers that live no longer than it. Its methods may
// be called by several goroutines.
type Stack struct {
	options Options

	mu      sync.Mutex
	opened  bool
	closed  bool
	account *account // whom PostgreSQL runs as; nil if as ourselves
	dir     string
	servers []*Server
	count   map[string]int

	launches chan launch
	ended    chan struct{}  // closed by Close, once the servers have ended
	launched sync.WaitGroup // the launcher goroutine
	keeper   *exec.Cmd
	lifeline io.WriteCloser // the keeper's standard input

	installing sync.Mutex // one search, installation or fetch at a time
}

var errClosed = errors.New("the stack is closed")

// New returns a Stack without servers. It starts nothing and touches nothing.
func New(options Options) *Stack {
	return &Stack{options: options, count: map[string]int{}}
}

func (s *Stack) say(format string, args ...any) {
	if s.options.Say != nil {
		s.options.Say(fmt.Sprintf(format, args...))
	}
}

// Close ends every server and removes everything that they wrote. The servers
// are not asked to end cleanly: their data goes anyway.
func (s *Stack) Close() error {
	s.mu.Lock()
	if !s.opened || s.closed {
		s.closed = true
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	servers := s.servers
	s.mu.Unlock()

	errs := make([]error, len(servers))
	var ending sync.WaitGroup
	for i, server := range servers {
		ending.Go(func() { errs[i] = server.end() })
	}
	ending.Wait()
	close(s.ended)
	s.launched.Wait()
	return errors.Join(errors.Join(errs...), s.dismissKeeper())
}

// open makes what the first server needs: the directory, its keeper, the
// launcher.
func (s *Stack) open() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return errClosed
	case s.opened:
		return nil
	}
	account, err := unprivileged()
	if err != nil {
		return err
	}
	parent := s.options.Dir
	if parent == "" {
		parent = os.TempDir()
	}
	if parent, err = filepath.Abs(parent); err != nil {
		return err
	}
	if err := account.reaches(parent); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(parent, "unstale-")
	if err != nil {
		return fmt.Errorf("make a directory for the servers: %w", err)
	}
	// MkdirTemp lets nobody but the owner in; PostgreSQL's account must be able
	// to walk through to its own directory.
	if err := os.Chmod(dir, 0o711); err != nil {
		return err
	}
	s.account, s.dir = account, dir
	if err := s.hireKeeper(); err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	s.launches, s.ended = make(chan launch), make(chan struct{})
	s.launched.Go(s.launcher)
	s.opened = true
	return nil
}

// newServer gives a server its name and its directory, which belongs to owner.
func (s *Stack) newServer(kind, name string, owner *account) (*Server, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	s.count[kind]++
	dir := filepath.Join(s.dir, fmt.Sprintf("%s-%d", kind, s.count[kind]))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	if err := owner.own(dir); err != nil {
		return nil, err
	}
	server := &Server{stack: s, name: name, dir: dir}
	s.servers = append(s.servers, server)
	return server, nil
}

// A launch is a command to start and where its result goes.
type launch struct {
	cmd    *exec.Cmd
	result chan<- error
}

// launcher starts every child, on one operating system thread that lives as
// long as the Stack. The kernel sends a child its parent-death signal when the
// THREAD that forked it ends, not the process; Go ends idle threads as it
// pleases, and a server started on one of those would die at random.
func (s *Stack) launcher() {
	runtime.LockOSThread() // and never unlock: the thread ends with this goroutine
	for {
		select {
		case l := <-s.launches:
			l.result <- l.cmd.Start()
		case <-s.ended:
			return
		}
	}
}

// launch starts cmd so that it gets the signal of its attributes when this
// process ends.
func (s *Stack) launch(cmd *exec.Cmd) error {
	result := make(chan error, 1)
	select {
	case s.launches <- launch{cmd: cmd, result: result}:
		return <-result
	case <-s.ended:
		return errClosed
	}
}

// The keeper is a shell that outlives us: it waits for its standard input to
// close, which the kernel does however we end, and then removes the directory.
// A PostgreSQL that was paused could not react to our death: it is woken first,
// its children too, since it waits five seconds for those before it kills them.
const keeperScript = `
cat >/dev/null
for file in "$1"/*/data/postmaster.pid; do
	[ -f "$file" ] && read -r pid <"$file" || continue
	# shellcheck disable=SC2046 # one word for each child
	kill -CONT $(cat "/proc/$pid/task/$pid/children") "$pid"
done 2>/dev/null
tries=0
until rm -rf -- "$1" 2>/dev/null; do
	tries=$((tries + 1))
	[ "$tries" -lt 100 ] || exit 1
	sleep 0.1
done
`

func (s *Stack) hireKeeper() error {
	s.keeper = exec.Command("/bin/sh", "-c", keeperScript, "unstale-keeper", s.dir)
	s.keeper.SysProcAttr = detached()
	s.keeper.Dir = "/"
	var err error
	if s.lifeline, err = s.keeper.StdinPipe(); err != nil {
		return err
	}
	if err := s.keeper.Start(); err != nil {
		return fmt.Errorf("start the shell that cleans up: %w", err)
	}
	return nil
}

func (s *Stack) dismissKeeper() error {
	if err := s.lifeline.Close(); err != nil {
		return err
	}
	if err := s.keeper.Wait(); err != nil {
		return fmt.Errorf("remove %s: %w", s.dir, err)
	}
	return nil
}

// run runs a command to its end; its output is in the error if it fails.
func run(ctx context.Context, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin = os.Stdin // sudo may ask for a password
	output, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, tail(output))
}

// tailLines bounds what an error carries of a log.
const tailLines = 20

// tail returns the last lines of text, indented.
func tail(text []byte) string {
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) > tailLines {
		lines = lines[len(lines)-tailLines:]
	}
	return "  " + strings.Join(lines, "\n  ")
}
