package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const (
	// stopMax is how long the service gets to end after SIGTERM.
	stopMax     = 5 * time.Second
	readyEvery  = 25 * time.Millisecond
	askMax      = time.Second
	answerMax   = 64 << 10
	logTailSize = 4 << 10
)

// service is `unstale run` as anybody would start it, in a process of its own.
type service struct {
	executable  string
	config, log string // paths
	address     string // of its admin server
}

func newService(executable, config, log string) *service {
	return &service{executable: executable, config: config, log: log}
}

// configure writes the configuration and returns it. source is the part that says
// where changes come from; empty: from the database.
func (s *service) configure(databaseURL, redisURL, source string) (string, error) {
	// The port is free now, and the kernel gives it to nobody soon.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	s.address = listener.Addr().String()
	if err := listener.Close(); err != nil {
		return "", err
	}
	var text strings.Builder
	fmt.Fprintf(&text, "database: %s\nredis: %s\n%sadmin: {listen: %q}\nentries:\n", databaseURL, redisURL, source, s.address)
	for _, e := range entries {
		settings := fmt.Sprintf("key: %q, on_change: %s, lease: %s", e.key, e.onChange, lease)
		if e.onChange != "invalidate" { // the service writes values
			settings += fmt.Sprintf(", ttl: %gh", LongTTL.Hours())
		}
		if e.many {
			settings += ", rows: many"
		}
		if e.query == "" {
			fmt.Fprintf(&text, "  %-9s {table: %s, %s}\n", e.name+":", e.table, settings)
			continue
		}
		fmt.Fprintf(&text, "  %s:\n    %s\n    query: |\n      %s\n", e.name,
			strings.ReplaceAll(settings, ", ", "\n    "), strings.ReplaceAll(e.query, "\n", "\n      "))
	}
	return text.String(), os.WriteFile(s.config, []byte(text.String()), 0o600)
}

// run starts the service and ends it when ctx does. That it ends by itself is
// an error. It must have its operating system thread until the service is gone:
// the kernel ends the service with the THREAD that started it.
func (s *service) run(ctx context.Context) error {
	runtime.LockOSThread() // and never unlock: the thread ends with this goroutine
	log, err := os.Create(s.log)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, s.executable, "run", "--config", s.config)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = attached()
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopMax // then it is killed
	err = cmd.Run()
	if ctx.Err() != nil && (err == nil || errors.Is(err, ctx.Err())) {
		return nil
	}
	return fmt.Errorf("unstale run ended (%v); its log ends with\n%s", err, s.logTail())
}

func (s *service) logTail() string {
	text, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text[max(0, len(text)-logTailSize):]))
}

// waitReady waits until the cache may be trusted, and says what that takes.
func (s *service) waitReady(ctx context.Context, say func(string, ...any)) error {
	tick := time.NewTicker(readyEvery)
	defer tick.Stop()
	for said := ""; ; {
		ready, state := s.ready(ctx)
		if state != said {
			said = state
			say("unstale: %s", state)
		}
		if ready {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// ready asks once. If the service never answers, run returns why.
func (s *service) ready(ctx context.Context) (ready bool, state string) {
	status, text, err := s.ask(ctx, "/readyz")
	if err != nil {
		return false, "starting"
	}
	return status == http.StatusOK, strings.TrimPrefix(strings.TrimSpace(string(text)), "not ready: ")
}

// serviceStatus is what of /status is shown here.
type serviceStatus struct {
	KeysSet    int64 `json:"keys_set"` // by changes
	LagRecords int64 `json:"lag_records"`
	Streams    []struct{ Stream, Settled string }
}

func (s *service) status(ctx context.Context) (status serviceStatus, err error) {
	_, text, err := s.ask(ctx, "/status")
	if err == nil {
		err = json.Unmarshal(text, &status)
	}
	return status, err
}

// offsets returns how far each partition is settled, by the id of its topic and
// its number.
func (s *service) offsets(ctx context.Context) (map[string]int64, error) {
	status, err := s.status(ctx)
	if err != nil {
		return nil, err
	}
	offsets := map[string]int64{}
	for _, st := range status.Streams {
		// kafka:TOPIC:PARTITION:GROUP; settled nowhere until it was swept.
		parts := strings.Split(st.Stream, ":")
		var offset int64
		if _, err := fmt.Sscanf(st.Settled, "offset %d", &offset); err == nil && len(parts) == 4 {
			offsets[parts[1]+":"+parts[2]] = offset
		}
	}
	return offsets, nil
}

func (s *service) ask(ctx context.Context, path string) (status int, text []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.address+path, nil)
	if err != nil {
		panic(err) // the address is our own
	}
	request.Close = true
	reply, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer reply.Body.Close()
	text, err = io.ReadAll(io.LimitReader(reply.Body, answerMax))
	return reply.StatusCode, text, err
}
