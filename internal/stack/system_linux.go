package stack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// An account is whom a server runs as when that is not us. A nil account is
// ourselves.
type account struct {
	name     string
	uid, gid uint32
}

// unprivileged is whom PostgreSQL, which refuses root, runs as: ourselves
// unless we are root.
func unprivileged() (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		found, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(found.Uid, 10, 32)
		if err != nil {
			return nil, err
		}
		gid, err := strconv.ParseUint(found.Gid, 10, 32)
		if err != nil {
			return nil, err
		}
		return &account{name: name, uid: uint32(uid), gid: uint32(gid)}, nil
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is neither an account postgres nor nobody: run this as another user")
}

// own gives path to the account.
func (a *account) own(path string) error {
	if a == nil {
		return nil
	}
	return os.Chown(path, int(a.uid), int(a.gid))
}

// reaches reports which directory on the way to path, path included, is closed
// to the account.
func (a *account) reaches(path string) error {
	if a == nil {
		return nil
	}
	for dir := path; ; dir = filepath.Dir(dir) {
		var stat syscall.Stat_t
		if err := syscall.Stat(dir, &stat); err != nil {
			return &os.PathError{Op: "stat", Path: dir, Err: err}
		}
		bit := uint32(0o001)
		switch {
		case stat.Uid == a.uid:
			bit = 0o100
		case stat.Gid == a.gid:
			bit = 0o010
		}
		if stat.Mode&bit == 0 {
			return fmt.Errorf("PostgreSQL must run as %s, to whom %s is closed: choose another directory, or chmod o+x %s", a.name, dir, dir)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

// attached is for a child that must not outlive us: it gets signal when the
// thread that starts it ends. A session of its own keeps the terminal's Ctrl-C
// from it: we decide when it ends.
func attached(as *account, signal syscall.Signal) *syscall.SysProcAttr {
	attributes := &syscall.SysProcAttr{Setsid: true, Pdeathsig: signal}
	if as != nil {
		attributes.Credential = &syscall.Credential{Uid: as.uid, Gid: as.gid}
	}
	return attributes
}

// detached is for the child that outlives us.
func detached() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// A port is a TCP port of loopback that is ours until it is released.
type port struct {
	number int
	socket int
}

// reservePort holds a free port by a socket that is bound to it and never
// listens. While it is held the kernel gives the port to nobody else, neither
// to a listener nor as the source port of a connection: a client that keeps
// dialling a stopped server would otherwise one day be connected to itself, and
// keep the server from its port. The server can still bind it, because both
// sockets allow the reuse of the address and only one of them listens.
func reservePort() (*port, error) {
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	p := &port{socket: socket}
	if err := p.bind(); err != nil {
		p.release()
		return nil, fmt.Errorf("reserve a port: %w", err)
	}
	return p, nil
}

func (p *port) bind() error {
	if err := syscall.Bind(p.socket, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	// Only now, so that the port that the kernel chose is shared with nobody.
	if err := syscall.SetsockoptInt(p.socket, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	name, err := syscall.Getsockname(p.socket)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	p.number = name.(*syscall.SockaddrInet4).Port
	return nil
}

// release gives the port back. The socket never carried data: closing it has
// nothing to report.
func (p *port) release() { _ = syscall.Close(p.socket) }

// settleMax bounds the wait for a signal to take effect on a process.
const settleMax = 5 * time.Second

// killFamily kills a process and all its descendants. PostgreSQL's processes
// each have a session of their own, so no process group names them all; and
// once their parent is dead nothing tells whose they were. So the family is
// frozen first, parents before children: a frozen process cannot fork.
func killFamily(pid int) error {
	family, err := freeze(pid)
	if err != nil {
		return err
	}
	for i := len(family) - 1; i >= 0; i-- { // the children first: a frozen parent does not see them go
		if err := syscall.Kill(family[i], syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	for _, member := range family {
		if err := await(member, "end", func(state byte) bool { return state == 0 || state == 'Z' || state == 'X' }); err != nil {
			return err
		}
	}
	return nil
}

func pauseFamily(pid int) error {
	_, err := freeze(pid)
	return err
}

func resumeFamily(pid int) error {
	family := []int{pid}
	for i := 0; i < len(family); i++ {
		children, err := childrenOf(family[i])
		if err != nil {
			return err
		}
		family = append(family, children...)
	}
	for i := len(family) - 1; i >= 0; i-- {
		if err := syscall.Kill(family[i], syscall.SIGCONT); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	return nil
}

// freeze stops a process and all its descendants and returns them, each parent
// before its children.
func freeze(pid int) ([]int, error) {
	family := []int{pid}
	for i := 0; i < len(family); i++ {
		if err := syscall.Kill(family[i], syscall.SIGSTOP); err != nil && !errors.Is(err, syscall.ESRCH) {
			return nil, err
		}
		// The signal is not yet the effect: only a process that has stopped
		// forks no more.
		if err := await(family[i], "stop", func(state byte) bool { return state == 0 || strings.IndexByte("TtZX", state) >= 0 }); err != nil {
			return nil, err
		}
		children, err := childrenOf(family[i])
		if err != nil {
			return nil, err
		}
		family = append(family, children...)
	}
	return family, nil
}

// await waits until the state of a process, 0 if there is no such process, is
// as it should be. The kernel tells nobody but the parent, so this has to ask.
func await(pid int, what string, as func(state byte) bool) error {
	for deadline := time.Now().Add(settleMax); ; time.Sleep(time.Millisecond) {
		state, _, err := processStat(pid)
		switch {
		case err != nil:
			return err
		case as(state):
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("process %d did not %s in %s, its state is %c", pid, what, settleMax, state)
		}
	}
}

// processStat reads the state of a process and its parent from proc(5); state 0
// says that there is no such process.
func processStat(pid int) (state byte, parent int, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	// The name before the state may hold spaces and parentheses.
	_, err = fmt.Sscanf(string(text[bytes.LastIndexByte(text, ')')+1:]), " %c %d", &state, &parent)
	if err != nil {
		return 0, 0, fmt.Errorf("read /proc/%d/stat: %w", pid, err)
	}
	return state, parent, nil
}

func childrenOf(pid int) ([]int, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var children []int
	for _, name := range names {
		candidate, err := strconv.Atoi(name)
		if err != nil {
			continue // not a process
		}
		_, parent, err := processStat(candidate)
		if err != nil {
			return nil, err
		}
		if parent == pid {
			children = append(children, candidate)
		}
	}
	return children, nil
}

// removeSharedMemory frees the System V segment by which a PostgreSQL that was
// killed guards its data directory. The kernel keeps it for ever otherwise. Its
// identifier is the second number on line 7 of postmaster.pid.
func removeSharedMemory(data string) {
	text, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return // it ended cleanly, or never began
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) < 7 {
		return
	}
	fields := strings.Fields(lines[6])
	if len(fields) != 2 {
		return
	}
	if id, err := strconv.Atoi(fields[1]); err == nil {
		// Gone already is as good.
		_, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil)
	}
}

// lockFile takes the lock of a file, waiting for another process to give it
// back.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil // closing gives the lock back
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), file.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("wait for another process to finish fetching (lock %s): %w", path, ctx.Err()), file.Close())
		case <-time.After(50 * time.Millisecond):
		}
	}
}
