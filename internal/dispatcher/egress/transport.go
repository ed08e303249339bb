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
type Transport struct {
	// The guard of plain http is the stricter one, so a connection of one scheme must never serve the other.
	secure, plain *http.Transport
}

// NewTransport returns a Transport with its own pool of connections.
func NewTransport(o Options) *Transport {
	secure := baseTransport(o, true)
	secure.DialTLSContext = (&handshaker{
		dial: secure.DialContext,
		config: &tls.Config{
			MinVersion:         tls.VersionTLS12,
			RootCAs:            o.RootCAs,
			NextProtos:         []string{"h2", "http/1.1"},
			ClientSessionCache: tls.NewLRUClientSessionCache(resumableSessions),
		},
	}).dialTLS
	secure.ForceAttemptHTTP2 = true
	return &Transport{secure: secure, plain: baseTransport(o, false)}
}

func baseTransport(o Options, encrypted bool) *http.Transport {
	return &http.Transport{
		DialContext:            guardedDialer(o, encrypted).DialContext,
		MaxIdleConns:           max(o.MaxIdleConns, 1),
		MaxIdleConnsPerHost:    max(o.MaxIdleConns, 1),
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
	if req.URL.Scheme == "http" {
		return t.plain.RoundTrip(req)
	}
	return t.secure.RoundTrip(req) // which refuses what is not https
}

// CloseIdleConnections closes the connections that no request uses just now.
func (t *Transport) CloseIdleConnections() {
	t.secure.CloseIdleConnections()
	t.plain.CloseIdleConnections()
}
