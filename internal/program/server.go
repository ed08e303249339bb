// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package program

import (
	"cmp"
	"net/http"
	"time"
)

// What metrics and probes are served with.
const (
	// MaxObservers bounds the connections of such a listener: Prometheus and the kubelet need one or two.
	MaxObservers = 100
	// MaxScrapes bounds the scrapes at once, each of which takes memory for all metrics.
	MaxScrapes = 4
)

// ServerLimits bound what a listener's connections may take. A zero field takes the default that is named with it.
type ServerLimits struct {
	ReadHeaderTimeout time.Duration // 10 s
	ReadTimeout       time.Duration // header and body together: 60 s
	WriteTimeout      time.Duration // from the end of the header to the end of the answer: 120 s
	IdleTimeout       time.Duration // between two requests of a connection: 120 s
	MaxHeaderBytes    int           // 16 KiB
	MaxConnections    int           // at the same time; see places for further ones: 10,000
	Patience          time.Duration // with a client's body or for an answer, where others want the place: 1 s
}

// NewServer makes a server with all the limits, so that every listener has them.
func NewServer(handler http.Handler, l ServerLimits) *http.Server {
	p := newPlaces(cmp.Or(l.MaxConnections, 10_000), cmp.Or(l.Patience, time.Second))
	return &http.Server{
		Handler:           closesWhereReadersDiffer(p.watch(handler)),
		ReadHeaderTimeout: cmp.Or(l.ReadHeaderTimeout, 10*time.Second),
		ReadTimeout:       cmp.Or(l.ReadTimeout, 60*time.Second),
		WriteTimeout:      cmp.Or(l.WriteTimeout, 120*time.Second),
		IdleTimeout:       cmp.Or(l.IdleTimeout, 120*time.Second),
		MaxHeaderBytes:    cmp.Or(l.MaxHeaderBytes, 16<<10),
		ConnState:         p.changed,
		ConnContext:       p.connected,
		// net/http's own answer to OPTIONS * would pass the handler by.
		DisableGeneralOptionsHandler: true,
	}
}

// closesWhereReadersDiffer ends a connection after a request whose body came in chunks. There may have been a
// Content-Length too, of which net/http does not tell: a proxy that went by that takes what follows for its body, and
// would give somebody the answer to a request that somebody else hid there. RFC 9112, section 6.1, has such a
// connection end, and one of HTTP/1.0 with chunks, which net/http passes over.
func closesWhereReadersDiffer(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TransferEncoding) > 0 || !r.ProtoAtLeast(1, 1) {
			w.Header().Set("Connection", "close")
		}
		handler.ServeHTTP(w, r)
	})
}
