package e2e

import (
	"net"
	"sync"
	"testing"
	"time"
)

// A proxy stands between the binary and a server, and misbehaves as networks
// do.
type proxy struct {
	listener net.Listener
	conns    sync.WaitGroup

	mu     sync.Mutex
	target string
	mode   proxyMode
	delay  time.Duration
	links  map[*link]bool
}

type proxyMode int

const (
	passing    proxyMode = iota
	refusing             // connections break, and new ones at once
	swallowing           // connections stay open, and nothing arrives
)

// A link is one connection: both of its sides.
type link struct {
	near, far net.Conn
	once      sync.Once
	ended     chan struct{}
}

func (l *link) close() {
	l.once.Do(func() { close(l.ended) })
	for _, c := range []net.Conn{l.near, l.far} {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // a reset, as a cut would be noticed
			_ = tcp.Close()
		}
	}
}

// newProxy starts a proxy to target, host:port.
func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener, target: target, links: map[*link]bool{}}
	p.conns.Go(p.accept)
	t.Cleanup(func() {
		listener.Close()
		p.set(refusing)
		p.conns.Wait()
	})
	return p
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

// cut breaks every connection and lets no new one through.
func (p *proxy) cut() { p.set(refusing) }

// swallow keeps connections open, and nothing that is sent arrives.
func (p *proxy) swallow() { p.set(swallowing) }

// heal lets new connections through. Those that have lost bytes end.
func (p *proxy) heal() { p.set(passing) }

// set changes the mode. Connections of another mode end, but those that begin
// to be swallowed.
func (p *proxy) set(mode proxyMode) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mode = mode
	if mode == swallowing {
		return
	}
	for l := range p.links {
		l.close()
	}
}

// slow adds so much to the way of each piece of data.
func (p *proxy) slow(delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = delay
}

// retarget leads new connections to another server.
func (p *proxy) retarget(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

func (p *proxy) state() (mode proxyMode, delay time.Duration, target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mode, p.delay, p.target
}

func (p *proxy) accept() {
	for {
		near, err := p.listener.Accept()
		if err != nil {
			return
		}
		mode, _, target := p.state()
		l := &link{near: near, ended: make(chan struct{})}
		if mode != refusing {
			l.far, err = net.Dial("tcp", target)
		}
		if mode == refusing || err != nil {
			l.close()
			continue
		}
		p.mu.Lock()
		p.links[l] = true
		p.mu.Unlock()
		var both sync.WaitGroup
		both.Go(func() { p.copy(l, l.far, l.near) })
		both.Go(func() { p.copy(l, l.near, l.far) })
		p.conns.Go(func() {
			both.Wait()
			p.mu.Lock()
			delete(p.links, l)
			p.mu.Unlock()
		})
	}
}

// copy moves bytes one way until the link ends, and then ends it.
func (p *proxy) copy(l *link, to, from net.Conn) {
	defer l.close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		mode, delay, _ := p.state()
		if delay > 0 {
			<-time.After(delay) // this is what a long way costs, not a wait for something
		}
		if mode == swallowing {
			if err == nil {
				continue
			}
			<-l.ended // nobody hears of an end either
			return
		}
		if _, errTo := to.Write(buffer[:n]); err != nil || errTo != nil {
			return
		}
	}
}
