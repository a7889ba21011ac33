package pgsource

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// Both connections are given up by the kernel when the other end is gone: a
// session waits for either.
func TestBothConnectionsNoticeADeadPeer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	server := newServer()
	var mu sync.Mutex
	var dialled []*net.TCPConn
	source := server.sourceBy(t, func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", listener.Addr().String())
		if err != nil {
			return nil, err
		}
		accepted, err := listener.Accept()
		if err != nil {
			return nil, err
		}
		server.connections.Go(func() { server.serve(accepted) })
		mu.Lock()
		defer mu.Unlock()
		dialled = append(dialled, conn.(*net.TCPConn))
		return conn, nil
	})
	var timeouts []int
	server.asked = func(sql string) {
		if !strings.HasPrefix(sql, "IDENTIFY_SYSTEM") {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		for _, conn := range dialled {
			timeouts = append(timeouts, userTimeout(t, conn))
		}
	}
	if _, err := source.Attach(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := source.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	server.connections.Wait()
	if len(timeouts) != 2 || timeouts[0] != 30_000 || timeouts[1] != 30_000 {
		t.Errorf("unacknowledged bytes may wait %v ms, want 30000 on two connections", timeouts)
	}
}

func userTimeout(t *testing.T, conn *net.TCPConn) (ms int) {
	t.Helper()
	const tcpUserTimeout = 18
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Error(err)
		return 0
	}
	var asked error
	err = raw.Control(func(fd uintptr) {
		ms, asked = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout)
	})
	if err := errors.Join(err, asked); err != nil {
		t.Error(err)
	}
	return ms
}
