package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/unstale/unstale/internal/admin"
)

// build builds a program of a module, once, and returns its path.
func (b *bench) build(ctx context.Context, name, module, target string) (string, error) {
	if b.built[name] != "" {
		return b.built[name], nil
	}
	if b.dir == "" {
		dir, err := os.MkdirTemp("", "unstale-bench-")
		if err != nil {
			return "", err
		}
		b.dir = dir
	}
	binary := filepath.Join(b.dir, name)
	cmd := exec.CommandContext(ctx, "go", "build", "-o", binary, target)
	cmd.Dir = module
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", name, err, out)
	}
	b.built[name] = binary
	return binary, nil
}

// A service is the built binary.
type service struct {
	cmd     *exec.Cmd
	address string // of its admin server
	began   time.Time
	log     bytes.Buffer // to be read when it has ended
	ended   chan struct{}
	err     error // once ended is closed
}

// startService runs the built binary with a configuration, to which it adds where
// the servers are, and does not wait for anything.
func (b *bench) startService(ctx context.Context, config string) (*service, error) {
	binary, err := b.build(ctx, "unstale", "", "github.com/unstale/unstale/cmd/unstale")
	if err != nil {
		return nil, err
	}
	s := &service{ended: make(chan struct{})}
	if s.address, err = freeAddress(); err != nil {
		return nil, err
	}
	b.services++
	path := filepath.Join(b.dir, fmt.Sprintf("unstale-%d.yaml", b.services))
	text := fmt.Sprintf("database: %s\nredis: %s\nadmin: {listen: %q}\n%s", b.postgres.URL(), b.redis.URL(), s.address, config)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return nil, err
	}
	s.cmd = exec.CommandContext(ctx, binary, "run", "--config", path)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	s.began = time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(s.ended)
		s.err = s.cmd.Wait()
	}()
	return s, nil
}

func (s *service) pid() int { return s.cmd.Process.Pid }

// until waits until the service says so. Its end is an error.
func (s *service) until(ctx context.Context, every time.Duration, done func(*admin.Status) bool) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-s.ended:
			return fmt.Errorf("unstale ended early: %w\n%s", errors.Join(s.err, errShort), s.log.String())
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if status, err := readStatus(ctx, s.address); err == nil && done(status) {
			return nil
		}
	}
}

func (s *service) ready(ctx context.Context) error {
	return s.until(ctx, 20*time.Millisecond, func(s *admin.Status) bool { return s.Ready })
}

// stop ends it as an operator does.
func (s *service) stop() error {
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	_ = s.cmd.Process.Signal(syscall.SIGCONT) // or stand still
	<-s.ended
	if s.err != nil {
		return fmt.Errorf("stop unstale: %w\n%s", s.err, s.log.String())
	}
	return nil
}

// kill is kill -9.
func (s *service) kill() {
	_ = s.cmd.Process.Kill()
	<-s.ended
}

// peakMemory is the most resident memory that a process ever had, in MB.
func peakMemory(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kilobytes, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
			return kilobytes * 1024 / megabyte, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no VmHWM", pid)
}

func readStatus(ctx context.Context, address string) (*admin.Status, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/status", nil)
	if err != nil {
		return nil, err
	}
	reply, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	var s admin.Status
	return &s, json.NewDecoder(reply.Body).Decode(&s)
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
