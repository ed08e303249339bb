// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package program

import (
	"cmp"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	// maxScrapes bounds the scrapes at once, each of which takes memory for all metrics.
	maxScrapes = 4
	// scrapeTime leaves time to send the answer to a Prometheus that waits 10 s, as it does by default.
	scrapeTime = 8 * time.Second
)

// Metrics serves what a registry has gathered, to few at once (503). An answer is made before it is sent, so that slow
// readers hold no others up.
func Metrics(registry prometheus.Gatherer, onError promhttp.HandlerErrorHandling) http.Handler {
	scrape := promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorHandling: onError, MaxRequestsInFlight: maxScrapes,
	})
	return http.TimeoutHandler(scrape, scrapeTime, "gathering the metrics took too long")
}

// Observers are the limits of a listener for metrics or probes: Prometheus and the kubelet need one connection or two,
// and take an answer within 10 s. Few more may hold an answer that nobody takes. A profile that takes longer sets its
// own deadline.
func Observers() ServerLimits {
	return ServerLimits{MaxConnections: 16, WriteTimeout: 10 * time.Second}
}

// maxHeaderLines bounds the lines of a request's header: short ones take up to ten times their bytes in memory, for as
// long as the body takes to come. Clients and proxies send some 30 at most.
const maxHeaderLines = 100

// ServerLimits bound what a listener's connections may take. A zero field takes the default that is named with it.
type ServerLimits struct {
	ReadHeaderTimeout time.Duration // 10 s
	ReadTimeout       time.Duration // header and body together: 60 s
	WriteTimeout      time.Duration // from the end of the header to the end of the answer: 120 s
	IdleTimeout       time.Duration // between two requests of a connection: 120 s
	MaxHeaderBytes    int           // 16 KiB
	MaxConnections    int           // at the same time; see places for further ones: 2,000
	Patience          time.Duration // with a client's body or for an answer, where others want the place: 1 s
}

// NewServer makes a server with all the limits, so that every listener has them.
func NewServer(handler http.Handler, l ServerLimits) *http.Server {
	p := newPlaces(cmp.Or(l.MaxConnections, 2_000), cmp.Or(l.Patience, time.Second))
	return &http.Server{
		Handler:           p.boundHeaderLines(closesWhereReadersDiffer(p.watch(handler))),
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

// boundHeaderLines stands before watch: what net/http keeps until the connection has ended must be let go.
func (p *places) boundHeaderLines(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		lines := 0
		for _, values := range r.Header {
			lines += len(values)
		}
		if lines > maxHeaderLines {
			r.Header = nil
			w.Header().Set("Connection", "close")
			http.Error(w, fmt.Sprintf("the header has more than %d lines", maxHeaderLines),
				http.StatusRequestHeaderFieldsTooLarge)
			p.answered(r)
			return
		}
		handler.ServeHTTP(w, r)
	})
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
