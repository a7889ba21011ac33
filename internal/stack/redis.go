package stack

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// RedisOptions of one server. The zero value is one of version 7 or later,
// without persistence.
type RedisOptions struct {
	// Old asks for a Redis below 7, which Unstale refuses to work with.
	Old bool
	// PreferRedis asks for Redis itself, installed or from the distribution's
	// packages, and takes Valkey only where that is not to be had. Without it
	// whatever is at hand will do.
	PreferRedis bool
	// Cluster makes it a cluster of one node that serves every slot.
	Cluster bool
	// Settings go into redis.conf, over the defaults of this package. A value
	// is written as it is, so it may be several words.
	Settings map[string]string
}

// Redis is a running Redis or Valkey.
type Redis struct {
	*Server
	build    redisBuild
	settings map[string]string
	bus      *port // of the cluster bus; nil if it is no cluster
}

// Redis starts a Redis: it looks for an installed one, fetches one if there is
// none, and returns when it answers; a cluster when all its slots are served,
// which takes Redis two seconds after every start of a master.
func (s *Stack) Redis(ctx context.Context, options RedisOptions) (*Redis, error) {
	if options.Old && options.Cluster {
		// cluster-port and CLUSTER ADDSLOTSRANGE came with 7.
		return nil, errors.New("a cluster needs a Redis of version 7 or later")
	}
	if err := s.open(); err != nil {
		return nil, err
	}
	found, err := s.findRedis(ctx, options)
	if err != nil {
		return nil, err
	}
	server, err := s.newServer("redis", found.name(), nil)
	if err != nil {
		return nil, err
	}
	r := &Redis{Server: server, build: found}
	began := time.Now()
	server.mu.Lock()
	defer server.mu.Unlock()
	if err := r.create(ctx, options); err != nil {
		return nil, fmt.Errorf("start %s: %w", r.name, err)
	}
	kind := ""
	if options.Cluster {
		kind = ", a cluster of one,"
	}
	s.say("started %s%s on %s in %s", r.name, kind, r.Addr(), time.Since(began).Round(time.Millisecond))
	return r, nil
}

func (r *Redis) create(ctx context.Context, options RedisOptions) (err error) {
	if r.port, err = reservePort(); err != nil {
		return err
	}
	if err := os.Mkdir(r.data(), 0o755); err != nil {
		return err
	}
	r.settings = map[string]string{
		"bind":       "127.0.0.1",
		"port":       strconv.Itoa(r.Port()),
		"dir":        r.data(),
		"daemonize":  "no",
		"save":       `""`,
		"appendonly": "no",
	}
	if options.Cluster {
		if r.bus, err = reservePort(); err != nil {
			return err
		}
		r.settings["cluster-enabled"] = "yes"
		r.settings["cluster-port"] = strconv.Itoa(r.bus.number)
	}
	maps.Copy(r.settings, options.Settings)

	var lines strings.Builder
	for _, name := range slices.Sorted(maps.Keys(r.settings)) {
		fmt.Fprintf(&lines, "%s %s\n", name, r.settings[name])
	}
	config := filepath.Join(r.dir, "redis.conf")
	if err := os.WriteFile(config, []byte(lines.String()), 0o644); err != nil {
		return err
	}
	r.command = func() *exec.Cmd {
		cmd := exec.Command(r.build.binary, config)
		cmd.Env = append(os.Environ(), r.build.env...)
		cmd.SysProcAttr = attached(nil, syscall.SIGKILL)
		return cmd
	}
	r.probe = r.answers
	if options.Cluster {
		r.probe = r.servesAllSlots
	}
	r.stop = syscall.SIGTERM
	r.abandoned = func() {
		if r.bus != nil {
			r.bus.release()
		}
	}
	return r.start(ctx)
}

// Major is the major version, of Redis or of Valkey.
func (r *Redis) Major() int { return r.build.version.major() }

// URL reaches database 0.
func (r *Redis) URL() string {
	u := url.URL{Scheme: "redis", Host: r.Addr()}
	if password := r.settings["requirepass"]; password != "" {
		u.User = url.UserPassword("", password)
	}
	return u.String()
}

// answers reports whether the server accepts commands: any reply but LOADING
// says so, a demand for a password included.
func (r *Redis) answers(ctx context.Context) error {
	reply, err := r.ask(ctx, "PING")
	if err != nil {
		return err
	}
	if strings.HasPrefix(reply, "-LOADING") {
		return errors.New(reply)
	}
	return nil
}

func (r *Redis) servesAllSlots(ctx context.Context) error {
	info, err := r.ask(ctx, "CLUSTER INFO")
	switch {
	case err != nil:
		return err
	case strings.Contains(info, "cluster_state:ok"):
		return nil
	case strings.Contains(info, "cluster_slots_assigned:0\r\n"):
		if reply, err := r.ask(ctx, "CLUSTER ADDSLOTSRANGE 0 16383"); err != nil || reply != "+OK" {
			return fmt.Errorf("assign the slots: %s %w", reply, err)
		}
	}
	return fmt.Errorf("the cluster is not ready: %q", info)
}

// askMax bounds one question to a starting server.
const askMax = time.Second

// ask sends one inline command over a connection of its own and returns the
// reply, a bulk reply without its header.
func (r *Redis) ask(ctx context.Context, command string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", r.Addr())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return "", err
	}
	replies := bufio.NewReader(conn)
	if password := r.settings["requirepass"]; password != "" {
		command = fmt.Sprintf("AUTH %s\r\n%s", password, command)
	}
	if _, err := fmt.Fprintf(conn, "%s\r\n", command); err != nil {
		return "", err
	}
	reply, err := readReply(replies)
	if err == nil && strings.HasPrefix(command, "AUTH ") {
		reply, err = readReply(replies)
	}
	return reply, err
}

func readReply(replies *bufio.Reader) (string, error) {
	line, err := replies.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimRight(line, "\r\n")
	size, bulk := strings.CutPrefix(line, "$")
	if !bulk {
		return line, nil
	}
	length, err := strconv.Atoi(size)
	if err != nil || length < 0 {
		return "", fmt.Errorf("unexpected reply %q", line)
	}
	var text strings.Builder
	for text.Len() < length {
		line, err := replies.ReadString('\n')
		if err != nil {
			return "", err
		}
		text.WriteString(line)
	}
	return text.String(), nil
}
