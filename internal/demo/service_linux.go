package demo

import "syscall"

// attached is for a child that must not outlive us. A session of its own keeps
// the terminal's Ctrl-C from it: we decide when it ends. It is killed if we are,
// since its servers are gone then too.
func attached() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
}
