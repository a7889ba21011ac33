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

const megabyte = 1 << 20

// benchMemory has the built binary apply one huge transaction, and reads what
// the kernel says of its resident memory.
func benchMemory(ctx context.Context, b *bench) (err error) {
	dir, err := os.MkdirTemp("", "unstale-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "unstale")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "github.com/unstale/unstale/cmd/unstale")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build unstale: %w\n%s", err, out)
	}
	if err := b.exec(ctx, "CREATE TABLE events (id bigint PRIMARY KEY, kind int NOT NULL, payload text NOT NULL)"); err != nil {
		return err
	}
	address, err := freeAddress()
	if err != nil {
		return err
	}
	config := filepath.Join(dir, "unstale.yaml")
	text := fmt.Sprintf(`database: %s
redis: %s
source: {postgres: {slot: bench_memory, publication: bench_memory}}
admin: {listen: %q}
entries:
  event:
    key: event:{id}
    table: events
`, b.postgres.URL(), b.redis.URL(), address)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}

	cmd := exec.CommandContext(ctx, binary, "run", "--config", config)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	// The first end of it that is seen says what went wrong.
	until := func(done func(*admin.Status) bool) error {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case err := <-ended:
				ended <- err
				return fmt.Errorf("unstale ended early: %w\n%s", errors.Join(err, errShort), log.String())
			case <-ctx.Done():
				return ctx.Err()
			case <-tick.C:
			}
			if status, err := readStatus(ctx, address); err == nil && done(status) {
				return nil
			}
		}
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		if errEnd := <-ended; errEnd != nil && err == nil {
			err = fmt.Errorf("stop unstale: %w\n%s", errEnd, log.String())
		}
	}()

	if err := until(func(s *admin.Status) bool { return s.Ready }); err != nil {
		return err
	}
	idle, err := peakMemory(cmd.Process.Pid)
	if err != nil {
		return err
	}
	b.say(fmt.Sprintf("writing %s rows in one transaction", thousands(int64(b.sizes.MemoryRows))))
	err = b.exec(ctx, fmt.Sprintf("INSERT INTO events SELECT i, i %% 10, 'event number ' || i FROM generate_series(1, %d) i", b.sizes.MemoryRows))
	if err != nil {
		return err
	}
	err = until(func(s *admin.Status) bool { return s.Changes >= uint64(b.sizes.MemoryRows) })
	if err != nil {
		return err
	}
	peak, err := peakMemory(cmd.Process.Pid)
	if err != nil {
		return err
	}
	b.report.add(fmt.Sprintf("memory: peak in %s rows of one transaction", thousands(int64(b.sizes.MemoryRows))), "MB",
		[]float64{peak}, "peak before it", []float64{idle}, below(100, "MB"))
	return nil
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
