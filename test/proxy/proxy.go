// Package proxy stands between a client and a server, and misbehaves as
// networks do: it breaks connections, is slow, or keeps them open and loses what
// is sent.
package proxy

import (
	"fmt"
	"net"
	"sync"
	"time"
)

// A Proxy listens on loopback and leads each connection to its target. Its
// methods may be called by several goroutines.
type Proxy struct {
	listener net.Listener
	conns    sync.WaitGroup

	mu     sync.Mutex
	target string
	mode   mode
	delay  time.Duration
	links  map[*link]bool
}

type mode int

const (
	passing    mode = iota
	refusing        // connections break, and new ones at once
	swallowing      // connections stay open, and nothing arrives
	deaf            // what the client sends arrives; nothing comes back
)

// A link is one connection: both of its sides.
type link struct {
	near, far net.Conn
	once      sync.Once
	ended     chan struct{} // closed by close
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

// New starts a proxy to target, host:port. It runs until Close.
func New(target string) (*Proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for a proxy to %s: %w", target, err)
	}
	p := &Proxy{listener: listener, target: target, links: map[*link]bool{}}
	p.conns.Go(p.accept)
	return p, nil
}

// Close breaks every connection and waits until all have ended.
func (p *Proxy) Close() {
	p.listener.Close()
	p.Cut()
	p.conns.Wait()
}

// Addr is where it listens, host:port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Cut breaks every connection and lets no new one through.
func (p *Proxy) Cut() { p.set(refusing) }

// Swallow keeps connections open, and nothing that either side sends arrives.
func (p *Proxy) Swallow() { p.set(swallowing) }

// Deafen keeps connections open and loses only what the server sends: it does
// what it is told, and nobody hears of it.
func (p *Proxy) Deafen() { p.set(deaf) }

// Heal lets new connections through. Those that have lost bytes end.
func (p *Proxy) Heal() { p.set(passing) }

// set changes the mode. Connections of another mode end, but those that begin
// to lose bytes.
func (p *Proxy) set(mode mode) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mode = mode
	if mode == swallowing || mode == deaf {
		return
	}
	for l := range p.links {
		l.close()
	}
}

// Slow adds so much to the way of each piece of data.
func (p *Proxy) Slow(delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = delay
}

// Retarget leads new connections to another server.
func (p *Proxy) Retarget(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

func (p *Proxy) state() (mode mode, delay time.Duration, target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mode, p.delay, p.target
}

func (p *Proxy) accept() {
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
		if !p.add(l) {
			l.close()
			continue
		}
		var both sync.WaitGroup
		both.Go(func() { p.copy(l, l.far, l.near, false) })
		both.Go(func() { p.copy(l, l.near, l.far, true) })
		p.conns.Go(func() {
			both.Wait()
			p.mu.Lock()
			delete(p.links, l)
			p.mu.Unlock()
		})
	}
}

// add notes a link, unless the way was cut while it was made.
func (p *Proxy) add(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mode == refusing {
		return false
	}
	p.links[l] = true
	return true
}

// copy moves bytes one way until the link ends, and then ends it.
func (p *Proxy) copy(l *link, to, from net.Conn, back bool) {
	defer l.close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		mode, delay, _ := p.state()
		if delay > 0 {
			<-time.After(delay) // this is what a long way costs, not a wait for something
		}
		if mode == swallowing || mode == deaf && back {
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
