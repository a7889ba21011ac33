package pgsource

import (
	"net"
	"syscall"
	"time"
)

// setUserTimeout limits how long sent bytes may stay unacknowledged: without
// it, keepalives wait behind our own updates, and those are repeated for a
// quarter of an hour.
func setUserTimeout(conn *net.TCPConn, limit time.Duration) {
	const tcpUserTimeout = 18 // from linux/tcp.h, which package syscall lacks
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(limit/time.Millisecond))
	})
}
