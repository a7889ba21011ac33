package pgsource

import (
	"syscall"
	"time"
)

// nap blocks the thread, not only the goroutine: the runtime's timers wake an
// idle process at whole milliseconds, three times as long as a nap should be.
func nap() {
	left := syscall.NsecToTimespec(int64(napFor / time.Nanosecond))
	_ = syscall.Nanosleep(&left, nil)
}
