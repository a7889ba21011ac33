package e2e

import (
	"testing"
	"time"

	network "github.com/unstale/unstale/test/proxy"
)

// A proxy stands between the binary and a server, and ends with its test.
type proxy struct{ *network.Proxy }

// newProxy starts a proxy to target, host:port.
func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	p, err := network.New(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return &proxy{p}
}

func (p *proxy) addr() string             { return p.Addr() }
func (p *proxy) cut()                     { p.Cut() }
func (p *proxy) swallow()                 { p.Swallow() }
func (p *proxy) heal()                    { p.Heal() }
func (p *proxy) slow(delay time.Duration) { p.Slow(delay) }
func (p *proxy) retarget(target string)   { p.Retarget(target) }
