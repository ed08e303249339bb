// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package program

import (
	"net"
	"net/http"
	"sync"
	"time"
)

// places bounds the connections at the same time, by holding the accept loop, which reports each new connection itself.
// A listener that wraps its connections would do the same but hide from the server that they are TCP, which it must
// know to end one without cutting off its last answer.
//
// Where all places are taken, the connection that has waited longest for a request makes room: whoever opens many and
// keeps quiet, or sends headers that do not end, must not keep others out. One whose request's header has come keeps
// its place.
type places struct {
	taken chan struct{}

	mu      sync.Mutex
	waiting map[net.Conn]time.Time // for their first or next request, since when
	wanted  bool                   // the accept loop waits for a place
}

func newPlaces(most int) *places {
	return &places{taken: make(chan struct{}, most), waiting: map[net.Conn]time.Time{}}
}

// changed is a server's ConnState.
func (p *places) changed(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		p.enter()
		p.waits(conn)
	case http.StateIdle:
		p.waits(conn)
	case http.StateActive:
		p.acts(conn)
	case http.StateClosed, http.StateHijacked:
		p.acts(conn)
		<-p.taken
	}
}

// enter returns once there is a place.
func (p *places) enter() {
	select {
	case p.taken <- struct{}{}:
		return
	default:
	}
	p.makeRoom()
	p.taken <- struct{}{}
	p.mu.Lock()
	p.wanted = false
	p.mu.Unlock()
}

// makeRoom closes the connection that has waited longest, or has the next one closed that would wait.
func (p *places) makeRoom() {
	p.mu.Lock()
	defer p.mu.Unlock()
	var longest net.Conn
	for conn, since := range p.waiting {
		if longest == nil || since.Before(p.waiting[longest]) {
			longest = conn
		}
	}
	if longest == nil {
		p.wanted = true
		return
	}
	delete(p.waiting, longest)
	_ = longest.Close()
}

func (p *places) waits(conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.wanted {
		p.wanted = false
		_ = conn.Close()
		return
	}
	p.waiting[conn] = time.Now()
}

func (p *places) acts(conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.waiting, conn)
}
