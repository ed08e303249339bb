// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// Proxy stands between clients and an API server, and breaks what goes through it. It speaks plain http and connects as
// an administrator.
type Proxy struct {
	Config *rest.Config // connects through it

	address string
	handler http.Handler

	mu     sync.Mutex
	server *http.Server // nil while it is away
	open   map[net.Conn]bool
	gone   bool
	told   int           // how often
	hung   chan struct{} // closed when it answers again; nil while it does
}

// NewProxy starts a proxy that lets everything pass and ends with the test.
func (c *Cluster) NewProxy(t testing.TB) *Proxy {
	t.Helper()
	address := c.Config.Host
	if !strings.Contains(address, "://") {
		address = "https://" + address
	}
	target, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	transport, err := rest.TransportFor(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	forward := httputil.NewSingleHostReverseProxy(target)
	forward.Transport, forward.FlushInterval = transport, -1
	forward.ErrorLog = log.New(io.Discard, "", 0)
	p := &Proxy{address: "127.0.0.1:0", handler: forward, open: map[net.Conn]bool{}}
	p.Return(t)
	p.Config = &rest.Config{Host: "http://" + p.address}
	t.Cleanup(func() { p.Leave(); p.Answer() })
	return p
}

// Leave makes it be away: connections end and further ones are refused.
func (p *Proxy) Leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server != nil {
		_ = p.server.Close()
		p.server = nil
	}
}

// Return ends what Leave began.
func (p *Proxy) Return(t testing.TB) {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(context.Background(), "tcp", p.address)
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.address = listener.Addr().String()
	p.server = &http.Server{Handler: p, ReadHeaderTimeout: time.Minute, ConnState: p.note}
	go func(s *http.Server) { _ = s.Serve(listener) }(p.server)
}

func (p *Proxy) note(conn net.Conn, state http.ConnState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if state == http.StateClosed || state == http.StateHijacked {
		delete(p.open, conn)
		return
	}
	p.open[conn] = true
}

// Cut ends the connections that there are, and returns of how many.
func (p *Proxy) Cut() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.open {
		_ = conn.Close()
	}
	return len(p.open)
}

// Hang lets requests wait without an answer, and watches without news, until Answer.
func (p *Proxy) Hang() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hung = make(chan struct{})
}

// Answer ends what Hang began.
func (p *Proxy) Answer() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hung != nil {
		close(p.hung)
		p.hung = nil
	}
}

// Expire says to every watch that goes on from a version that this is gone, until it is told otherwise: so does an API
// server whose history was compacted, and the client must list again. It returns how often it has said so.
func (p *Proxy) Expire(gone bool) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = gone
	return p.told
}

func (p *Proxy) hangs() chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hung
}

// expire answers a watch if its version is to be gone, as the API server does: at once, or in the stream of news.
func (p *Proxy) expire(w http.ResponseWriter) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.gone {
		return false
	}
	p.told++
	w.Header().Set("Content-Type", "application/json")
	text := `{"type":"ERROR","object":` + expired + "}\n"
	if p.told%2 == 0 {
		w.WriteHeader(http.StatusGone)
		text = expired
	}
	_, _ = io.WriteString(w, text) // or the client left
	return true
}

const expired = `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"too old resource version",` +
	`"reason":"Expired","code":410}`

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if hung := p.hangs(); hung != nil {
		select {
		case <-hung:
		case <-r.Context().Done():
			return
		}
	}
	query := r.URL.Query()
	if query.Has("watch") && query.Get("resourceVersion") != "" && p.expire(w) {
		return
	}
	p.handler.ServeHTTP(&pausing{ResponseWriter: w, proxy: p, request: r}, r)
}

// pausing holds back what is written while the proxy hangs.
type pausing struct {
	http.ResponseWriter
	proxy   *Proxy
	request *http.Request
}

func (w *pausing) Write(b []byte) (int, error) {
	if hung := w.proxy.hangs(); hung != nil {
		select {
		case <-hung:
		case <-w.request.Context().Done():
			return 0, w.request.Context().Err()
		}
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap gives http.ResponseController the writer below.
func (w *pausing) Unwrap() http.ResponseWriter { return w.ResponseWriter }
