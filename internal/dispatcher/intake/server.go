// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
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
	MaxConnections    int           // at the same time; see places for further ones: 10,000
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
		ConnState:         newPlaces(l.MaxConnections).changed,
	}
}
