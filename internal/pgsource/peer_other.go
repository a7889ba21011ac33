//go:build !linux

package pgsource

import (
	"net"
	"time"
)

func setUserTimeout(*net.TCPConn, time.Duration) {}
