package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/unstale/unstale/internal/admin"
)

// An instance is `unstale run` of the built binary.
type instance struct {
	t       *testing.T
	config  string // path
	address string // admin.listen
	cmd     *exec.Cmd
	log     *logBuffer
	ended   chan struct{}
	err     error // of Wait, once ended is closed
}

// writeConfig writes a configuration with an admin address of its own, and
// returns the file and the address.
func writeConfig(t *testing.T, text string) (path, address string) {
	t.Helper()
	address = freeAddress(t)
	path = filepath.Join(t.TempDir(), "unstale.yaml")
	text += fmt.Sprintf("\nadmin: {listen: %q}\n", address)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, address
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// startInstance starts `unstale run` and does not wait for it. The test fails
// if it is not ended by the test and panics or races.
func startInstance(t *testing.T, config string) *instance {
	t.Helper()
	path, address := writeConfig(t, config)
	i := &instance{t: t, config: path, address: address}
	i.start()
	return i
}

// start starts the instance, again if it has ended.
func (i *instance) start() {
	i.t.Helper()
	i.log = &logBuffer{}
	i.cmd = exec.Command(binary, "run", "--config", i.config)
	i.cmd.Stderr, i.cmd.Stdout = i.log, i.log
	i.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := i.cmd.Start(); err != nil {
		i.t.Fatal(err)
	}
	i.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) {
		i.err = cmd.Wait()
		close(ended)
	}(i.cmd, i.ended)
	i.t.Cleanup(i.kill)
}

// kill ends the instance as a power cut would.
func (i *instance) kill() {
	_ = i.cmd.Process.Kill() // it may have ended
	<-i.ended
}

// stop sends SIGTERM and demands a clean end.
func (i *instance) stop() {
	i.t.Helper()
	if err := i.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		i.t.Fatalf("SIGTERM: %v\n%s", err, i.log)
	}
	select {
	case <-i.ended:
	case <-time.After(15 * time.Second):
		i.t.Fatalf("still running 15 s after SIGTERM\n%s", i.log)
	}
	if i.err != nil {
		i.t.Fatalf("after SIGTERM: %v\n%s", i.err, i.log)
	}
}

// waitReady waits until /readyz says so.
func (i *instance) waitReady() {
	i.t.Helper()
	i.waitStatus("ready", func(s *admin.Status) bool { return s.Ready })
}

// waitStatus waits until the status is as wanted.
func (i *instance) waitStatus(what string, want func(*admin.Status) bool) *admin.Status {
	i.t.Helper()
	var last *admin.Status
	i.eventually(what, func() bool {
		s, err := i.status()
		if err != nil {
			return false
		}
		last = s
		return want(s)
	})
	return last
}

func (i *instance) eventually(what string, done func() bool) {
	i.t.Helper()
	deadline := time.After(60 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-deadline:
			i.t.Fatalf("not after 60 s: %s\n%s", what, i.log)
		case <-i.ended:
			i.t.Fatalf("ended (%v) before: %s\n%s", i.err, what, i.log)
		case <-tick.C:
		}
	}
}

func (i *instance) status() (*admin.Status, error) {
	reply, err := http.Get("http://" + i.address + "/status")
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	var s admin.Status
	return &s, json.NewDecoder(reply.Body).Decode(&s)
}

// said returns how many lines of the log contain text.
func (i *instance) said(text string) int {
	n := 0
	for line := range strings.Lines(i.log.String()) {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// saidInOrder reports whether the log has a line with each of the texts, each
// behind the one before.
func (i *instance) saidInOrder(texts ...string) bool {
	for line := range strings.Lines(i.log.String()) {
		if len(texts) > 0 && strings.Contains(line, texts[0]) {
			texts = texts[1:]
		}
	}
	return len(texts) == 0
}

// unstaleCommand runs a subcommand to its end.
func unstaleCommand(t *testing.T, args ...string) (stdout, stderr string, exit int) {
	t.Helper()
	cmd := exec.CommandContext(within(t, time.Minute), binary, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// logBuffer collects what a process prints.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
