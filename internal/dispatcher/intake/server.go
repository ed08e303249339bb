// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"net"
	"net/http"
	"time"
)

// ServerLimits bound what a listener's connections may take. A zero field takes the default that is named with it.
type ServerLimits struct {
	ReadHeaderTimeout time.Duration // 10 s
	ReadTimeout       time.Duration // header and body together: 60 s
	WriteTimeout      time.Duration // from the end of the header to the end of the answer: 120 s
	IdleTimeout       time.Duration // between two requests of a connection: 120 s
	MaxHeaderBytes    int           // 64 KiB
	MaxConnections    int           // at the same time, further ones wait to be accepted: 10,000
}

// NewServer makes a server with all the limits, so that every listener has them.
func NewServer(handler http.Handler, l ServerLimits) *http.Server {
	setDefault(&l.ReadHeaderTimeout, 10*time.Second)
	setDefault(&l.ReadTimeout, 60*time.Second)
	setDefault(&l.WriteTimeout, 120*time.Second)
	setDefault(&l.IdleTimeout, 120*time.Second)
	setDefault(&l.MaxHeaderBytes, 64<<10)
	setDefault(&l.MaxConnections, 10_000)
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: l.ReadHeaderTimeout,
		ReadTimeout:       l.ReadTimeout,
		WriteTimeout:      l.WriteTimeout,
		IdleTimeout:       l.IdleTimeout,
		MaxHeaderBytes:    l.MaxHeaderBytes,
		ConnState:         limitConnections(l.MaxConnections),
	}
}

// limitConnections holds the accept loop, which reports each new connection itself, while all places are taken.
// A listener that wraps its connections would do the same but hide from the server that they are TCP, which it must
// know to end one without cutting off its last answer.
func limitConnections(most int) func(net.Conn, http.ConnState) {
	places := make(chan struct{}, most)
	return func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			places <- struct{}{}
		case http.StateClosed, http.StateHijacked:
			<-places
		case http.StateActive, http.StateIdle:
		}
	}
}
