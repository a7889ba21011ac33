//go:build !linux

package pgsource

import "time"

func nap() { time.Sleep(napFor) }
