package stack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// PostgresOptions of one server. The zero value is the newest PostgreSQL that
// is installed, or 18.
type PostgresOptions struct {
	// Major version. 15 and 18 can be fetched; any other must be installed.
	Major int
	// Extensions that CREATE EXTENSION must find.
	Extensions []string
	// Settings go into postgresql.conf, over the defaults of this package, so
	// ALTER SYSTEM overrides them.
	Settings map[string]string
}

// Postgres is a running PostgreSQL with the superuser postgres, whom everyone
// on loopback may be, and an empty database of the same name, UTF-8, locale C.
type Postgres struct {
	*Server
	version version
	bin     string
}

// postgresSettings are the defaults. They leave nothing outside the data
// directory and make the server safe to kill, not safe from a power cut: a
// throw-away server never survives one.
func postgresSettings() map[string]string {
	return map[string]string{
		"wal_level":             "logical",
		"max_wal_senders":       "20",
		"max_replication_slots": "20",
		"fsync":                 "off",
		"listen_addresses":      "127.0.0.1",
		// The default of 0777 lets any local account in as the superuser.
		"unix_socket_permissions": "0700",
		// Segments in /dev/shm would outlive a killed server.
		"dynamic_shared_memory_type": "mmap",
		"jit":                        "off",
		"timezone":                   "UTC",
		"log_timezone":               "UTC",
	}
}

// Postgres starts a PostgreSQL: it looks for an installed one, fetches one if
// there is none, makes an empty cluster and returns when it answers.
func (s *Stack) Postgres(ctx context.Context, options PostgresOptions) (*Postgres, error) {
	if err := s.open(); err != nil {
		return nil, err
	}
	found, err := s.findPostgres(ctx, options)
	if err != nil {
		return nil, err
	}
	if err := s.account.reaches(found.bin); err != nil {
		return nil, err
	}
	server, err := s.newServer("postgres", fmt.Sprintf("PostgreSQL %s", found.version), s.account)
	if err != nil {
		return nil, err
	}
	p := &Postgres{Server: server, version: found.version, bin: found.bin}
	began := time.Now()
	server.mu.Lock()
	defer server.mu.Unlock()
	if err := p.create(ctx, options.Settings); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	s.say("started %s on %s in %s", p.name, p.Addr(), time.Since(began).Round(time.Millisecond))
	return p, nil
}

func (p *Postgres) create(ctx context.Context, settings map[string]string) (err error) {
	if p.port, err = reservePort(); err != nil {
		return err
	}
	if err := p.initdb(ctx); err != nil {
		return err
	}
	if err := p.configure(settings); err != nil {
		return err
	}
	p.command = func() *exec.Cmd {
		cmd := exec.Command(filepath.Join(p.bin, "postgres"), "-D", p.data())
		cmd.Env = p.environment()
		// An immediate shutdown, so that shared memory is freed too.
		cmd.SysProcAttr = attached(p.stack.account, syscall.SIGQUIT)
		return cmd
	}
	p.probe = func(ctx context.Context) error {
		conn, err := pgconn.Connect(ctx, p.URL())
		if err != nil {
			return err
		}
		return conn.Close(ctx)
	}
	p.stop, p.quit = syscall.SIGINT, syscall.SIGQUIT
	p.abandoned = func() { removeSharedMemory(p.data()) }
	return p.start(ctx)
}

func (p *Postgres) environment() []string {
	return []string{"PATH=" + p.bin + ":/usr/bin:/bin", "HOME=" + p.dir, "LC_ALL=C", "TZ=UTC"}
}

func (p *Postgres) initdb(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, "initdb"), "--pgdata="+p.data(),
		"--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
	cmd.Dir, cmd.Env = p.dir, p.environment()
	cmd.SysProcAttr = attached(p.stack.account, syscall.SIGKILL)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := p.stack.launch(cmd); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, tail(output.Bytes()))
	}
	return nil
}

func (p *Postgres) configure(extra map[string]string) error {
	settings := postgresSettings()
	settings["port"] = strconv.Itoa(p.Port())
	settings["unix_socket_directories"] = p.socketDir()
	maps.Copy(settings, extra)

	var lines strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&lines, "%s = '%s'\n", name, strings.ReplaceAll(settings[name], "'", "''"))
	}
	file, err := os.OpenFile(filepath.Join(p.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(lines.String())
	return errors.Join(err, file.Close())
}

// socketPathMax is the length of sun_path, less its final zero.
const socketPathMax = 107

// socketDir is the server's own directory, or nothing where the path of a
// socket in it would be too long for the kernel.
func (p *Postgres) socketDir() string {
	if len(filepath.Join(p.dir, ".s.PGSQL.65535.lock")) > socketPathMax {
		return ""
	}
	return p.dir
}

// Major is the major version.
func (p *Postgres) Major() int { return p.version.major() }

// URL reaches the database postgres as the superuser.
func (p *Postgres) URL() string { return p.DatabaseURL("postgres") }

// DatabaseURL reaches the named database as the superuser.
func (p *Postgres) DatabaseURL(name string) string {
	u := url.URL{Scheme: "postgres", User: url.User("postgres"), Host: p.Addr(), Path: "/" + name, RawQuery: "sslmode=disable"}
	return u.String()
}

// StopImmediate ends the server without a checkpoint: the next Start goes
// through crash recovery.
func (p *Postgres) StopImmediate(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.signal(ctx, syscall.SIGQUIT)
}

// Tool gives the path of one of PostgreSQL's programs, such as psql, pgbench or
// pg_recvlogical: the server's own, or that of the newest PostgreSQL that has
// it.
func (p *Postgres) Tool(name string) (string, error) {
	bins := []string{p.bin}
	for _, found := range installedPostgres() {
		bins = append(bins, found.bin)
	}
	for _, bin := range bins {
		if path, err := exec.LookPath(filepath.Join(bin, name)); err == nil {
			return path, nil
		}
	}
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	return "", fmt.Errorf("%s has no program %s; on Debian and Ubuntu it is in the package postgresql-client", p.name, name)
}
