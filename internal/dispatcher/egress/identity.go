// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package egress

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// maxIdentities bounds the identities that keep connections; past it, the one that was not used for longest starts anew
// when it is used again.
const maxIdentities = 256

// Identity is how https connections are made for those who trust other authorities, or show a certificate.
type Identity struct {
	// ID tells identities apart. Two of the same ID must be the same in everything.
	ID string
	// RootCAs are trusted. Nil: those of the Transport.
	RootCAs *x509.CertPool
	// Certificate is shown to endpoints that ask for one. Nil: none.
	Certificate *tls.Certificate
}

// As returns the same transport, which makes its https connections by an identity. They serve that identity alone, be
// it by a session that is resumed, and are kept from one use of it to the next. Those of an identity that nobody used
// for 90 seconds are closed, as are those of an endpoint, and then nothing is left of it.
func (t *Transport) As(identity Identity) http.RoundTripper {
	return as{t, t.identities.find(identity)}
}

// as is a Transport with an identity.
type as struct {
	transport *Transport
	secure    *way
}

func (a as) RoundTrip(req *http.Request) (*http.Response, error) {
	return a.transport.roundTrip(callOf(req), a.secure)
}

// RoundTripBefore is that of the Transport.
func (a as) RoundTripBefore(req *http.Request, deadline time.Time) (*http.Response, error) {
	return a.transport.roundTrip(callBefore(req, deadline), a.secure)
}

// identities keeps the ways of identities that are in use.
type identities struct {
	lead func(Identity) *way // makes the way of one

	mu       sync.Mutex
	byID     map[string]*identified
	sweeping bool
}

type identified struct {
	way  *way
	used time.Time
}

func (is *identities) find(identity Identity) *way {
	is.mu.Lock()
	defer is.mu.Unlock()
	found := is.byID[identity.ID]
	if found == nil {
		if len(is.byID) >= maxIdentities {
			is.drop(is.oldest())
		}
		found = &identified{way: is.lead(identity)}
		is.byID[identity.ID] = found
		is.sweepLater()
	}
	found.used = time.Now()
	return found.way
}

func (is *identities) oldest() string {
	var id string
	for other, i := range is.byID {
		if id == "" || i.used.Before(is.byID[id].used) {
			id = other
		}
	}
	return id
}

// drop forgets an identity. A request that is under way goes on; its connection is closed some time after.
func (is *identities) drop(id string) {
	is.byID[id].way.closeIdle()
	delete(is.byID, id)
}

// sweepLater sees to it that a sweep comes; nothing is awake where there is nothing to sweep.
func (is *identities) sweepLater() {
	if is.sweeping {
		return
	}
	is.sweeping = true
	time.AfterFunc(sweepEvery, func() {
		is.mu.Lock()
		defer is.mu.Unlock()
		is.sweep(time.Now())
		is.sweeping = false
		if len(is.byID) > 0 {
			is.sweepLater()
		}
	})
}

func (is *identities) sweep(now time.Time) {
	for id, i := range is.byID {
		if now.Sub(i.used) >= idleTimeout {
			is.drop(id)
		}
	}
}

func (is *identities) closeIdle() {
	is.mu.Lock()
	defer is.mu.Unlock()
	for _, i := range is.byID {
		i.way.closeIdle()
	}
}

// asRefusal makes a HandshakeError of what went wrong with the first request on an HTTP/2 connection whose peer asked
// for a certificate: the alert by which it says what it thinks of ours does not get through net/http.
func asRefusal(req *http.Request, err error) error {
	if err == nil || req.Context().Err() != nil {
		return err
	}
	if _, known := errors.AsType[*HandshakeError](err); known {
		return err
	}
	return &HandshakeError{Err: fmt.Errorf("the endpoint asked for a certificate and ended the connection: %w", err)}
}

// asHandshakeError tells apart what a peer says about our certificate. In TLS 1.3 it looks at that only once the
// handshake is over for us, so that its alert comes in place of the answer.
func asHandshakeError(err error) error {
	if _, known := errors.AsType[*HandshakeError](err); known {
		return err
	}
	refused, ok := errors.AsType[*net.OpError](err)
	if !ok || refused.Op != "remote error" { // what crypto/tls calls an alert of the peer, and nothing else
		return err
	}
	return &HandshakeError{Err: err}
}
