//go:build !linux

package stack

import (
	"context"
	"errors"
	"syscall"
)

// Elsewhere the package compiles, so that the rest of the program does, and
// starts nothing: the promise that no server outlives us rests on Linux.
var errLinuxOnly = errors.New("servers can be started on Linux only; give the URLs of your own")

type account struct{}

func unprivileged() (*account, error)   { return nil, errLinuxOnly }
func (a *account) own(string) error     { return errLinuxOnly }
func (a *account) reaches(string) error { return errLinuxOnly }
func killFamily(int) error              { return errLinuxOnly }
func pauseFamily(int) error             { return errLinuxOnly }
func resumeFamily(int) error            { return errLinuxOnly }
func removeSharedMemory(string)         {}
func detached() *syscall.SysProcAttr    { return nil }

func attached(*account, syscall.Signal) *syscall.SysProcAttr { return nil }

type port struct{ number int }

func reservePort() (*port, error) { return nil, errLinuxOnly }
func (p *port) release()          {}

func lockFile(context.Context, string) (func(), error) { return nil, errLinuxOnly }
