// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package egress

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	dialTimeout      = 10 * time.Second // over all addresses of a name
	handshakeTimeout = 10 * time.Second
)

// guardedDialer returns a dialer that asks the policy before every connect, after names were resolved.
func guardedDialer(o Options, encrypted bool) *net.Dialer {
	return &net.Dialer{
		Timeout:  dialTimeout,
		Resolver: o.Resolver,
		ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
			target, err := netip.ParseAddrPort(address)
			if err != nil {
				return fmt.Errorf("egress address %q: %w", address, err)
			}
			return o.Policy.Check(target.Addr(), encrypted)
		},
	}
}

// HandshakeError reports that an endpoint was reached but no TLS connection with it came about: an untrusted or
// expired certificate, another name, no common version, a peer that does not speak TLS.
type HandshakeError struct {
	Err error
}

func (e *HandshakeError) Error() string { return "TLS handshake: " + e.Err.Error() }

// Unwrap gives the cause, so that a handshake that ran out of time is also a timeout.
func (e *HandshakeError) Unwrap() error { return e.Err }

// handshaker opens TLS connections. It does so in place of http.Transport because that gives a handshake's failure no
// type by which to recognise it.
type handshaker struct {
	dial   dialFunc
	config *tls.Config
	// certificate is shown to every peer that asks, whatever authorities it names: it judges by more than their names,
	// and says what it thinks. Empty: none.
	certificate tls.Certificate
}

// secured is a connection with TLS.
type secured struct {
	*tls.Conn
	asked bool // the peer asked for a certificate
}

func (h *handshaker) dialTLS(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("endpoint address %q: %w", address, err)
	}
	raw, err := h.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	config := h.config.Clone()
	config.ServerName = host
	conn := &secured{}
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		conn.asked = true
		return &h.certificate, nil
	}
	conn.Conn = tls.Client(raw, config)
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, &HandshakeError{Err: closeAfter(raw, err)}
	}
	return conn, nil
}

// handOver gives connections on which a peer chose HTTP/2 to the http.Transport, which then need not open another.
type handOver struct {
	mu        sync.Mutex
	byAddress map[string]net.Conn
}

func newHandOver() *handOver { return &handOver{byAddress: make(map[string]net.Conn)} }

func (h *handOver) put(address string, conn net.Conn) {
	h.mu.Lock()
	before := h.byAddress[address]
	h.byAddress[address] = conn
	h.mu.Unlock()
	if before != nil {
		_ = before.Close() // one is enough for HTTP/2
	}
}

func (h *handOver) take(address string) net.Conn {
	h.mu.Lock()
	defer h.mu.Unlock()
	conn := h.byAddress[address]
	delete(h.byAddress, address)
	return conn
}

// drop closes what nobody took.
func (h *handOver) drop(address string) {
	if conn := h.take(address); conn != nil {
		_ = conn.Close() // it was never used
	}
}

// or returns a function that dials only where nothing was handed over.
func (h *handOver) or(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := h.take(address), error(nil)
		if conn == nil {
			conn, err = dial(ctx, network, address)
		}
		if s, ok := conn.(*secured); ok {
			return s.Conn, err // by this type http.Transport knows what was negotiated
		}
		return conn, err
	}
}

// maxDials bounds the connections that one request has opened. A peer that ends each HTTP/2 connection with GOAWAY
// before it answers gets the request again on the next, and http.Transport would go on so until the request's time is
// up: a thousand handshakes a second. A peer that just restarts takes one more, and one that takes a single request at
// a time on a connection some more: others may be faster to use the connection that a request opened.
const maxDials = 10

// errNoConnectionLasts wraps what a connection that just ends gives, since that is what happened, again and again.
var errNoConnectionLasts = fmt.Errorf("the endpoint ended %d connections without an answer: %w",
	maxDials, io.ErrUnexpectedEOF)

type dialsKey struct{}

// countingDials makes the request count what dialBounded opens for it. http.Transport hands nothing but the context on.
func countingDials(req *http.Request) *http.Request {
	return req.WithContext(context.WithValue(req.Context(), dialsKey{}, new(atomic.Int32)))
}

func dialBounded(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if dials, ok := ctx.Value(dialsKey{}).(*atomic.Int32); ok && dials.Add(1) > maxDials {
			return nil, errNoConnectionLasts
		}
		return dial(ctx, network, address)
	}
}

func speaksHTTP2(conn net.Conn) bool {
	encrypted, ok := conn.(*secured)
	return ok && encrypted.ConnectionState().NegotiatedProtocol == "h2"
}

func askedForCertificate(conn net.Conn) bool {
	encrypted, ok := conn.(*secured)
	return ok && encrypted.asked
}

// closeAfter closes conn, which is of no use after err, and returns err.
func closeAfter(conn net.Conn, err error) error {
	_ = conn.Close() // err says already why
	return err
}
