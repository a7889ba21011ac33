//go:build !linux

package pgsource

import (
	"net"
	"time"
)

func newNap(net.Conn) func() { return func() { time.Sleep(napFor) } }
