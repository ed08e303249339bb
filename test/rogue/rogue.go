// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package rogue is endpoints that misbehave, each in its own way, for tests. They take the request and then break HTTP,
// TLS or HTTP/2, never end, or send far more than anybody asked for.
package rogue

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"nexus.io/webhooks/test/pki"
)

// Endpoint is one that misbehaves.
type Endpoint struct {
	Name string
	URL  string
	// Reason is why an attempt fails there. Empty: it succeeds all the same, since what the endpoint answers is a 2xx.
	Reason string
	// Slow holds each attempt until its timeout.
	Slow bool

	speak    func(net.Conn)
	listener net.Listener
	crowd    *crowd
	requests atomic.Int64
	sent     atomic.Int64
}

// Requests is how many connections it answered, and Sent how many bytes the other side's kernel took in all.
func (e *Endpoint) Requests() int64 { return e.requests.Load() }

// Sent is how many bytes were sent in all.
func (e *Endpoint) Sent() int64 { return e.sent.Load() }

// Open is how many connections to it the other side has not ended.
func (e *Endpoint) Open() int { return e.crowd.size() }

// Start runs all of them until the test ends. The ones with a proper certificate have it from an authority in the file
// bundle.
func Start(t testing.TB) (all []*Endpoint, bundle string) {
	t.Helper()
	authority := pki.NewAuthority(t, "rogue")
	bundle = filepath.Join(t.TempDir(), "bundle.pem")
	if err := os.WriteFile(bundle, authority.Bundle(), 0o600); err != nil {
		t.Fatal(err)
	}
	proper := serverConfig(t, authority)
	foreign := serverConfig(t, pki.NewAuthority(t, "nobody knows"))
	for name, b := range behaviours(proper, foreign) {
		all = append(all, b.start(t, name))
	}
	return all, bundle
}

func serverConfig(t testing.TB, a *pki.Authority) *tls.Config {
	t.Helper()
	certificate, err := tls.X509KeyPair(a.Issue("rogue"))
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}}
}

// place is where an endpoint is reached.
type place struct{ scheme, host string }

// behaviour is what an endpoint does once somebody connects.
type behaviour struct {
	place
	reason string
	slow   bool
	speak  func(net.Conn)
}

func (b behaviour) start(t testing.TB, name string) *Endpoint {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", b.host+":0")
	if err != nil {
		t.Fatal(err)
	}
	e := &Endpoint{
		Name: name, URL: b.scheme + listener.Addr().String() + "/", Reason: b.reason, Slow: b.slow,
		speak: b.speak, listener: listener, crowd: &crowd{present: map[net.Conn]bool{}},
	}
	var serving sync.WaitGroup
	serving.Go(e.serve)
	t.Cleanup(func() {
		_ = listener.Close()
		e.crowd.end()
		serving.Wait()
	})
	return e
}

func (e *Endpoint) serve() {
	var speaking sync.WaitGroup
	defer speaking.Wait()
	for {
		conn, err := e.listener.Accept()
		if err != nil {
			return
		}
		if !e.crowd.enter(conn) {
			return
		}
		speaking.Go(func() {
			defer e.crowd.leave(conn)
			e.requests.Add(1)
			e.speak(&counted{Conn: conn, sent: &e.sent})
			_, _ = io.Copy(io.Discard, conn) // until the other side has had enough, too
		})
	}
}

// counted counts what is sent.
type counted struct {
	net.Conn
	sent *atomic.Int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.sent.Add(int64(n))
	return n, err
}

// crowd is the connections that are open.
type crowd struct {
	mu      sync.Mutex
	ended   bool
	present map[net.Conn]bool
}

func (c *crowd) enter(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		_ = conn.Close()
		return false
	}
	c.present[conn] = true
	return true
}

func (c *crowd) leave(conn net.Conn) {
	_ = conn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.present, conn)
}

func (c *crowd) size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.present)
}

func (c *crowd) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	for conn := range c.present {
		_ = conn.Close()
	}
}
