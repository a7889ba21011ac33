package stack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

const (
	// startMax bounds the wait for a server to answer after its start; crash
	// recovery after Kill is part of it. On a machine with ten times more to do
	// than it can, a server on Java takes most of a minute.
	startMax = 3 * time.Minute
	// probeEvery is how often a starting server is asked whether it answers.
	probeEvery = 5 * time.Millisecond
	// endMax bounds an immediate shutdown before Close kills.
	endMax = 5 * time.Second
)

// Server is what all servers have in common. It keeps its port and its
// data while it is stopped, so it can be started again as if nothing happened.
type Server struct {
	stack *Stack
	name  string
	dir   string
	port  *port

	command   func() *exec.Cmd
	probe     func(context.Context) error // nil once the server answers
	stop      os.Signal                   // asks for a clean end
	quit      os.Signal                   // ends it at once and cleans up behind it; nil if a kill does
	abandoned func()                      // frees what a killed server left in the kernel; may be nil

	mu     sync.Mutex
	proc   *process
	paused bool
}

// A process is one life of a server.
type process struct {
	pid   int
	done  chan struct{} // closed by the goroutine that waits for the process, once it is reaped
	state *os.ProcessState
}

func (p *process) running() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Name says what runs, with its version: "PostgreSQL 15.20".
func (s *Server) Name() string { return s.name }

// Addr is host:port. It stays the same over restarts.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port())) }

// Port is the TCP port. It is held for this server even while it is stopped.
func (s *Server) Port() int { return s.port.number }

// Dir holds everything that the server writes: its configuration, its data in
// "data", its log.
func (s *Server) Dir() string { return s.dir }

// Log is the path of the server's log, over all its lives.
func (s *Server) Log() string { return filepath.Join(s.dir, "log") }

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// PID is the server's first process, 0 while it is stopped.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.proc.running() {
		return 0
	}
	return s.proc.pid
}

// Done is closed when the present life of the server is over. It is closed
// already while the server is stopped.
func (s *Server) Done() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		never := make(chan struct{})
		close(never)
		return never
	}
	return s.proc.done
}

// Start starts a stopped server again, on its port and its data, and returns
// when it answers.
func (s *Server) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc.running() {
		return fmt.Errorf("start %s: it runs already as process %d", s.name, s.proc.pid)
	}
	if err := s.start(ctx); err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	return nil
}

func (s *Server) start(ctx context.Context) error {
	log, err := os.OpenFile(s.Log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := s.command()
	cmd.Dir = s.dir
	cmd.Stdout, cmd.Stderr = log, log
	if err := s.stack.launch(cmd); err != nil {
		return err
	}
	proc := &process{pid: cmd.Process.Pid, done: make(chan struct{})}
	// The owner of this goroutine is whoever ends the server: Stop, Kill and
	// Close wait for done.
	go func() {
		defer close(proc.done)
		_ = cmd.Wait() // a server that a test kills ends with an error; state tells
		proc.state = cmd.ProcessState
	}()
	s.proc, s.paused = proc, false

	ctx, cancel := context.WithTimeout(ctx, startMax)
	defer cancel()
	ticker := time.NewTicker(probeEvery)
	defer ticker.Stop()
	for {
		unanswered := s.probe(ctx)
		if unanswered == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-proc.done:
			return fmt.Errorf("it ended (%s) before it answered; its log ends with\n%s", proc.state, s.logTail())
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("it did not answer: %w (%v); its log ends with\n%s",
				unanswered, ctx.Err(), s.logTail()), s.kill())
		}
	}
}

func (s *Server) logTail() string {
	text, err := os.ReadFile(s.Log())
	if err != nil {
		return err.Error()
	}
	return tail(text)
}

// Stop asks the server to end cleanly (PostgreSQL: a fast shutdown) and waits
// until it has. If ctx ends first the server is left as it is. A paused server
// is resumed, a stopped one is left alone.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.signal(ctx, s.stop)
}

func (s *Server) signal(ctx context.Context, signal os.Signal) error {
	if !s.proc.running() {
		return nil
	}
	if err := s.resume(); err != nil {
		return err
	}
	process, err := os.FindProcess(s.proc.pid)
	if err != nil {
		return err
	}
	if err := process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", s.name, err)
	}
	select {
	case <-s.proc.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop %s: it did not end after %s: %w", s.name, signal, ctx.Err())
	}
}

// Kill ends the server as a power cut would: SIGKILL to every process of it.
// When it returns the port and the data directory are free. A stopped server
// is left alone.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kill()
}

func (s *Server) kill() error {
	if !s.proc.running() {
		return nil
	}
	if err := killFamily(s.proc.pid); err != nil {
		return fmt.Errorf("kill %s: %w", s.name, err)
	}
	<-s.proc.done
	s.paused = false
	return nil
}

// Pause freezes every process of the server: connections stay open, the port
// still accepts, nothing answers.
func (s *Server) Pause() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.proc.running() {
		return fmt.Errorf("pause %s: it does not run", s.name)
	}
	if err := pauseFamily(s.proc.pid); err != nil {
		return fmt.Errorf("pause %s: %w", s.name, err)
	}
	s.paused = true
	return nil
}

// Resume lets a paused server go on.
func (s *Server) Resume() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.resume()
}

func (s *Server) resume() error {
	if !s.paused || !s.proc.running() {
		return nil
	}
	if err := resumeFamily(s.proc.pid); err != nil {
		return fmt.Errorf("resume %s: %w", s.name, err)
	}
	s.paused = false
	return nil
}

// end ends the server for good. PostgreSQL shuts down immediately, which also
// frees its shared memory; the others, and what does not end in time, are
// killed.
func (s *Server) end() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.quitOrKill()
	if s.abandoned != nil {
		s.abandoned()
	}
	if s.port != nil {
		s.port.release()
	}
	return err
}

func (s *Server) quitOrKill() error {
	if s.quit == nil {
		return s.kill()
	}
	ctx, cancel := context.WithTimeout(context.Background(), endMax)
	defer cancel()
	if err := s.signal(ctx, s.quit); err != nil {
		return s.kill()
	}
	return nil
}
