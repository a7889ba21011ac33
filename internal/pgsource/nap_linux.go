package pgsource

import (
	"net"
	"syscall"
)

// newNap returns what naps on behalf of a reader of conn.
//
// It blocks the thread, not only the goroutine: the runtime's timers wake an
// idle process at whole milliseconds, three times as long as a nap should be.
// And it asks the kernel to be quiet meanwhile: the runtime's poller watches
// the socket whether somebody reads or not, and would be woken by each message
// that arrives, which is just what the nap is to save.
func newNap(conn net.Conn) func() {
	sleep := func() {
		left := syscall.NsecToTimespec(int64(napFor))
		_ = syscall.Nanosleep(&left, nil)
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return sleep
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return sleep
	}
	quietly := func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVLOWAT, napReadMax)
		sleep()
		// The kernel looks at once whether there is something to wake for.
		_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVLOWAT, 1)
	}
	return func() { _ = raw.Control(quietly) }
}
