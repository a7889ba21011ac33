package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/unstale/unstale/test/proxy"
)

// process is `unstale run`, one life after the other.
type process struct {
	binary, config, address string
	database, redis         *proxy.Proxy // its ways

	log   lockedBuffer // of all lives
	cmd   *exec.Cmd
	ended chan struct{}
	err   error // of Wait, once ended is closed
}

func (p *process) start() error {
	cmd := exec.Command(p.binary, "run", "--config", p.config)
	cmd.Stdout, cmd.Stderr = &p.log, &p.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	p.cmd, p.ended = cmd, make(chan struct{})
	go func(ended chan struct{}) {
		p.err = cmd.Wait()
		close(ended)
	}(p.ended)
	return nil
}

// kill ends it as a power cut would.
func (p *process) kill() {
	if p.cmd != nil {
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.ended
	}
}

// terminate asks it to end, and demands that it does so cleanly.
func (p *process) terminate(ctx context.Context) error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("SIGTERM: %w (it ended: %v)", err, p.err)
	}
	select {
	case <-p.ended:
	case <-ctx.Done():
		return fmt.Errorf("it did not end after SIGTERM: %w", ctx.Err())
	}
	if p.err != nil {
		return fmt.Errorf("after SIGTERM: %w", p.err)
	}
	return nil
}

// ready reports whether it keeps the cache right now. One that stands by does
// not, although nothing is wrong with it.
func (p *process) ready() bool {
	// A moment is enough on loopback, unless it is frozen.
	client := http.Client{Timeout: time.Second}
	reply, err := client.Get("http://" + p.address + "/status")
	if err != nil {
		return false
	}
	defer reply.Body.Close()
	var status struct{ Ready bool }
	return json.NewDecoder(reply.Body).Decode(&status) == nil && status.Ready
}

// over says why it ended by itself; nil while it runs.
func (p *process) over() error {
	select {
	case <-p.ended:
		return fmt.Errorf("it ended by itself: %w", p.err)
	default:
		return nil
	}
}

// logTail returns the last lines of the log.
func (p *process) logTail() string {
	lines := strings.SplitAfter(p.log.String(), "\n")
	return strings.Join(lines[max(0, len(lines)-40):], "")
}

// lockedBuffer collects what a process prints.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
