//go:build !linux

package demo

import "syscall"

// Elsewhere no server can be started, so neither is the service.
func attached() *syscall.SysProcAttr { return nil }
