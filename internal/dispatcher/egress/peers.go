// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package egress

import (
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/http/httpguts"
)

// sweepEvery is how often kept connections are looked at: those that are old or that the other side closed go.
const sweepEvery = 15 * time.Second

// peers keeps what is known of endpoints, and the connections to them that no request uses just now.
type peers struct {
	defaultPort string
	kept        *allowance // may be shared with other peers

	mu       sync.Mutex
	byHost   map[string]*peer // by host and port as the URL has them
	idle     int              // connections
	sweeping bool
}

// peer is the host and port of an endpoint.
type peer struct {
	address string      // to dial, empty if the direct way is not for it
	host    string      // for the Host header
	http2   bool        // chose it when it was asked last
	asks    atomic.Bool // for a certificate, and speaks HTTP/2
	idle    []*conn
	used    time.Time
	gone    bool // nobody will look for its connections: it is forgotten, maybe while a request is under way
}

func newPeers(defaultPort string, kept *allowance) *peers {
	return &peers{defaultPort: defaultPort, kept: kept, byHost: make(map[string]*peer)}
}

// allowance bounds the connections that are kept.
type allowance struct {
	most int64
	used atomic.Int64
}

func newAllowance(most int) *allowance { return &allowance{most: int64(most)} }

// take tells whether one more may be kept, and counts it if so.
func (a *allowance) take() bool {
	if a.used.Add(1) <= a.most {
		return true
	}
	a.used.Add(-1)
	return false
}

func (a *allowance) give(n int) { a.used.Add(-int64(n)) }

// find returns the peer, and whether the direct way is open to it.
func (ps *peers) find(host string) (*peer, bool) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p := ps.byHost[host]
	if p == nil {
		p = newPeer(host, ps.defaultPort)
		ps.byHost[host] = p
		ps.sweepLater()
	}
	p.used = time.Now()
	return p, p.address != "" && !p.http2
}

// newPeer leaves what is no plain host and port to http.Transport, which knows what to say of it.
func newPeer(host, defaultPort string) *peer {
	ascii, err := httpguts.PunycodeHostPort(host)
	if err != nil || ascii == "" || strings.ContainsAny(ascii, "%@") || !httpguts.ValidHostHeader(ascii) {
		return &peer{}
	}
	p := &peer{host: ascii, address: ascii}
	if _, port, err := net.SplitHostPort(ascii); err != nil || port == "" {
		p.address = net.JoinHostPort(strings.Trim(strings.TrimSuffix(ascii, ":"), "[]"), defaultPort)
	}
	return p
}

// learnHTTP2 closes the direct way to the peer, until it is forgotten.
func (ps *peers) learnHTTP2(p *peer, asks bool) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p.http2 = true
	p.asks.Store(asks)
}

// take returns the connection that was kept last, nil if there is none.
func (ps *peers) take(p *peer) *conn {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	last := len(p.idle) - 1
	if last < 0 {
		return nil
	}
	c := p.idle[last]
	p.idle[last] = nil
	p.idle = p.idle[:last]
	ps.idle--
	ps.kept.give(1)
	return c
}

// keep takes a connection for the next request, or closes it where there are enough or nobody would find it.
func (ps *peers) keep(c *conn) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if c.peer.gone || !ps.kept.take() {
		c.discard()
		return
	}
	c.since = time.Now()
	c.peer.used = c.since
	c.peer.idle = append(c.peer.idle, c)
	ps.idle++
}

// sweepLater sees to it that a sweep comes; nothing is awake where there is nothing to sweep.
func (ps *peers) sweepLater() {
	if ps.sweeping {
		return
	}
	ps.sweeping = true
	time.AfterFunc(sweepEvery, func() {
		ps.mu.Lock()
		defer ps.mu.Unlock()
		ps.sweep(time.Now())
		ps.sweeping = false
		if len(ps.byHost) > 0 {
			ps.sweepLater()
		}
	})
}

// sweep closes the connections that nobody used for idleTimeout, or for sweepEvery and that the other side closed
// meanwhile, and forgets the peers that nobody used for idleTimeout. What was learned of one is learned anew after
// that.
func (ps *peers) sweep(now time.Time) {
	for host, p := range ps.byHost {
		kept := p.idle[:0]
		for _, c := range p.idle {
			idle := now.Sub(c.since)
			if idle < sweepEvery || idle < idleTimeout && c.alive() {
				kept = append(kept, c)
				continue
			}
			c.discard()
		}
		ps.idle -= len(p.idle) - len(kept)
		ps.kept.give(len(p.idle) - len(kept))
		clear(p.idle[len(kept):])
		p.idle = kept
		if len(kept) == 0 && now.Sub(p.used) >= idleTimeout {
			delete(ps.byHost, host)
			p.gone = true
		}
	}
}

// closeIdle closes the connections that no request uses just now.
func (ps *peers) closeIdle() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, p := range ps.byHost {
		for _, c := range p.idle {
			c.discard()
		}
		p.idle = nil
	}
	ps.kept.give(ps.idle)
	ps.idle = 0
}

// alive tells whether a kept connection can still be used: the other side neither closed it nor sent what nobody asked
// for.
func (c *conn) alive() bool {
	if c.raw == nil || c.reader.Buffered() > 0 {
		return false
	}
	return c.raw.Control(c.look) == nil && c.quiet
}

// peek notes whether nothing can be read, not even an end.
func (c *conn) peek(fd uintptr) {
	var b [1]byte
	_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	c.quiet = err == syscall.EAGAIN
}

// rawConn is the socket below a connection, TLS or not; nil where there is none.
func rawConn(conn net.Conn) syscall.RawConn {
	if layered, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = layered.NetConn()
	}
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}
