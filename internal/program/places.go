// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package program

import (
	"context"
	"io"
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
// keeps quiet, or sends headers that do not end, must not keep others out. Nor must who announces bodies that do not
// come, or does not take answers: after some patience such a connection counts as one that waits. One whose request is
// being worked at keeps its place.
type places struct {
	taken    chan struct{}
	patience time.Duration

	mu      sync.Mutex
	waiting map[net.Conn]time.Time // for its client, since when, or from when on
	wanted  bool                   // the accept loop waits for a place
}

// lookAgain is how often the accept loop looks whether somebody's patience has ended.
const lookAgain = 50 * time.Millisecond

func newPlaces(most int, patience time.Duration) *places {
	return &places{taken: make(chan struct{}, most), patience: patience, waiting: map[net.Conn]time.Time{}}
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
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		p.makeRoom()
		select {
		case p.taken <- struct{}{}:
			p.mu.Lock()
			p.wanted = false
			p.mu.Unlock()
			return
		case <-tick.C:
		}
	}
}

// makeRoom closes the connection that has waited longest, or has the next one closed that would wait.
func (p *places) makeRoom() {
	p.mu.Lock()
	defer p.mu.Unlock()
	var longest net.Conn
	now := time.Now()
	for conn, since := range p.waiting {
		if !since.After(now) && (longest == nil || since.Before(p.waiting[longest])) {
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

// mayWait has a connection wait once the patience with it has ended, which began then.
func (p *places) mayWait(conn net.Conn, begun time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting[conn] = begun.Add(p.patience)
}

// acts tells whether the connection waited, and was not closed because of that.
func (p *places) acts(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, waited := p.waiting[conn]
	delete(p.waiting, conn)
	return waited
}

type connectionKey struct{}

// connected is a server's ConnContext: a handler learns of its connection in no other way.
func (p *places) connected(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, conn)
}

// watch tells places when the handler waits for its client, and when net/http does behind it: for what is left of the
// body, and for the last of the answer to be taken.
func (p *places) watch(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn := connectionOf(r)
		watched := *r // net/http goes by the type of its own body
		if r.Body != http.NoBody {
			watched.Body = &watchedBody{ReadCloser: r.Body, places: p, conn: conn}
		}
		if r.Method == http.MethodGet || r.Method == http.MethodHead { // no other answer is long
			if r.ContentLength != 0 {
				w.Header().Set("Connection", "close") // or net/http would wait for the body amid the answer
			}
			w = &watchedAnswer{ResponseWriter: w, places: p, conn: conn}
		}
		handler.ServeHTTP(w, &watched)
		p.answered(r)
	})
}

// answered has a request's connection wait behind its handler.
func (p *places) answered(r *http.Request) { p.mayWait(connectionOf(r), time.Now()) }

func connectionOf(r *http.Request) net.Conn {
	conn, _ := r.Context().Value(connectionKey{}).(net.Conn) // connected put it there
	return conn
}

// watchedBody is a body of which no more may come.
type watchedBody struct {
	io.ReadCloser
	places *places
	conn   net.Conn
	begun  time.Time
}

func (b *watchedBody) Read(into []byte) (int, error) {
	if b.begun.IsZero() {
		b.begun = time.Now()
	}
	b.places.mayWait(b.conn, b.begun)
	n, err := b.ReadCloser.Read(into)
	if !b.places.acts(b.conn) {
		return 0, net.ErrClosed // what came cannot be answered
	}
	return n, err
}

// watchedAnswer is an answer that the client may not take.
type watchedAnswer struct {
	http.ResponseWriter
	places *places
	conn   net.Conn
}

func (a *watchedAnswer) Write(text []byte) (int, error) {
	a.places.mayWait(a.conn, time.Now())
	defer a.places.acts(a.conn)
	return a.ResponseWriter.Write(text) //nolint:wrapcheck // it is the writer's
}

// Unwrap is for http.ResponseController.
func (a *watchedAnswer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
