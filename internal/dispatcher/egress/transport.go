// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package egress holds the one HTTP transport by which deliveries leave, and the guard that decides to which addresses
// it may connect.
//
// It promises that no connection is opened to an address that the Policy forbids, whatever a name resolves to and
// whenever that changes: the check sits between the creation of a socket and its connect, on the very address that is
// connected to. No proxy and no redirect leads around it. A refusal is a *DeniedError, a TLS handshake that went wrong
// a *HandshakeError; both are found by errors.As.
//
// It must not know subscriptions, deliveries or settings.
package egress

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

const (
	idleTimeout = 90 * time.Second
	// maxResponseHeader bounds what one response makes us hold, in bytes; nothing in it is of use but the status and
	// Retry-After.
	maxResponseHeader = 64 << 10
	// HTTP/2 lets a peer send this much before it is read. The defaults (4 MiB a stream) are for downloads.
	http2StreamBuffer = 128 << 10
	http2ConnBuffer   = 1 << 20
	// A connection on which nothing comes is probed after this time, and closed if the probe stays unanswered as long.
	http2ProbeAfter = 15 * time.Second
	// resumableSessions is the number of endpoints whose TLS session is kept to make the next handshake cheaper.
	resumableSessions = 1024
)

// Options shape a Transport.
type Options struct {
	Policy Policy
	// MaxIdleConns bounds the connections kept for reuse, per endpoint and in all; give it the number of requests that
	// may be in flight, so that a full load does not close connections only to open them again. Below 1: 1.
	MaxIdleConns int
	// RootCAs are trusted for https instead of the system's. Nil: the system's.
	RootCAs *x509.CertPool
	// Resolver resolves names. Nil: the system's.
	Resolver *net.Resolver
}

// Transport sends single requests, obeying a Policy. It is an http.RoundTripper and not an http.Client so that there is
// nothing that could follow a redirect. It uses no proxy, keeps no cookies, asks for no compression, and bounds only
// the time to connect: the time for the rest is the request's context.
//
// Small requests over HTTP/1.1 take the direct way; HTTP/2, large requests and unusual hosts go by http.Transport.
type Transport struct {
	// The guard of plain http is the stricter one, so a connection of one scheme must never serve the other.
	secure, plain *way
	identities    identities
}

// way leads to the endpoints of one scheme.
type way struct {
	direct  direct
	general *http.Transport
}

// NewTransport returns a Transport with its own pool of connections.
func NewTransport(o Options) *Transport {
	o.MaxIdleConns = max(o.MaxIdleConns, 1)
	plain, kept := baseTransport(o, false), newAllowance(o.MaxIdleConns)
	return &Transport{
		plain: &way{
			direct:  direct{peers: newPeers("80", newAllowance(o.MaxIdleConns)), dial: plain.DialContext},
			general: plain,
		},
		secure: newSecureWay(o, Identity{}, kept),
		identities: identities{
			lead: func(i Identity) *way { return newSecureWay(o, i, kept) },
			byID: map[string]*identified{},
		},
	}
}

// newSecureWay makes https connections by an identity; the ones that are kept count against the allowance.
func newSecureWay(o Options, identity Identity, kept *allowance) *way {
	general := baseTransport(o, true)
	handshakes := &handshaker{dial: general.DialContext, config: tlsConfig(o, identity)}
	if identity.Certificate != nil {
		handshakes.certificate = *identity.Certificate
	}
	handed := newHandOver()
	general.DialTLSContext = handed.or(dialBounded(handshakes.dialTLS))
	general.ForceAttemptHTTP2 = true
	return &way{
		direct:  direct{peers: newPeers("443", kept), dial: handshakes.dialTLS, handOver: handed},
		general: general,
	}
}

func tlsConfig(o Options, identity Identity) *tls.Config {
	config := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		RootCAs:            o.RootCAs,
		NextProtos:         []string{"h2", "http/1.1"},
		ClientSessionCache: tls.NewLRUClientSessionCache(resumableSessions),
	}
	if identity.RootCAs != nil {
		config.RootCAs = identity.RootCAs
	}
	return config
}

func baseTransport(o Options, encrypted bool) *http.Transport {
	return &http.Transport{
		DialContext:            guardedDialer(o, encrypted).DialContext,
		MaxIdleConns:           o.MaxIdleConns,
		MaxIdleConnsPerHost:    o.MaxIdleConns,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxResponseHeader,
		DisableCompression:     true,
		HTTP2: &http.HTTP2Config{
			MaxReceiveBufferPerConnection: http2ConnBuffer,
			MaxReceiveBufferPerStream:     http2StreamBuffer,
			SendPingTimeout:               http2ProbeAfter,
			PingTimeout:                   http2ProbeAfter,
		},
	}
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	return t.roundTrip(callOf(req), t.secure)
}

// RoundTripBefore is RoundTrip for one of many requests that share a context, where a context for each would cost much:
// the deadline covers everything from the connection to the last byte of the answer, as if it were the context's. When
// that context ends, kept connections which served it last end with it.
func (t *Transport) RoundTripBefore(req *http.Request, deadline time.Time) (*http.Response, error) {
	return t.roundTrip(callBefore(req, deadline), t.secure)
}

func (t *Transport) roundTrip(call call, secure *way) (*http.Response, error) {
	switch call.URL.Scheme {
	case "http":
		return t.plain.roundTrip(call)
	case "https":
		res, err := secure.roundTrip(call)
		return res, asHandshakeError(err)
	default:
		return secure.general.RoundTrip(call.Request) // which says that it knows no such scheme
	}
}

func (w *way) roundTrip(call call) (*http.Response, error) {
	p, open := w.direct.peers.find(call.URL.Host)
	if !open || !suits(call.Request) {
		return w.inTime(call, p)
	}
	c, err := w.direct.connection(call, p)
	switch {
	case err != nil:
		_ = call.Body.Close() // as a RoundTripper must
		return nil, err
	case c == nil:
		defer w.direct.handOver.drop(p.address) // in case another connection was there meanwhile
		return w.inTime(call, p)
	default:
		return c.roundTrip(call)
	}
}

// inTime sends by the http.Transport, which knows no other bound than a context.
func (w *way) inTime(call call, p *peer) (*http.Response, error) {
	if !call.shares {
		return w.generally(call.Request, p)
	}
	ctx, cancel := call.context()
	res, err := w.generally(call.WithContext(ctx), p)
	if err != nil {
		cancel()
		return nil, err
	}
	res.Body = &boundedBody{res.Body, cancel}
	return res, nil
}

// generally sends by the http.Transport, and says so where the peer seems not to like our certificate.
func (w *way) generally(req *http.Request, p *peer) (*http.Response, error) {
	req = countingDials(req)
	if !p.asks.Load() {
		return w.general.RoundTrip(req)
	}
	var fresh atomic.Bool
	ctx := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { fresh.Store(!info.Reused) },
	})
	res, err := w.general.RoundTrip(req.WithContext(ctx))
	if fresh.Load() {
		err = asRefusal(req, err)
	}
	return res, err
}

// CloseIdleConnections closes the connections that no request uses just now.
func (t *Transport) CloseIdleConnections() {
	t.secure.closeIdle()
	t.plain.closeIdle()
	t.identities.closeIdle()
}

func (w *way) closeIdle() {
	w.direct.peers.closeIdle()
	w.general.CloseIdleConnections()
}
