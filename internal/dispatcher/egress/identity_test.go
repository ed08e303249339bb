// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package egress

import (
	"crypto/tls"
	"errors"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"nexus.io/webhooks/test/pki"
)

// startMutual returns an endpoint that its authority vouches for and that wants a certificate by the other one.
func startMutual(t *testing.T, server, clients *pki.Authority, http2 bool) *endpoint {
	t.Helper()
	pair, err := tls.X509KeyPair(server.Issue("endpoint"))
	if err != nil {
		t.Fatal(err)
	}
	return startEndpoint(t, "127.0.0.1:0", func(s *httptest.Server) {
		s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
		if clients != nil {
			s.TLS.ClientAuth, s.TLS.ClientCAs = tls.RequireAndVerifyClientCert, clients.Pool()
		}
		s.EnableHTTP2 = http2
		s.StartTLS()
	})
}

func identity(t *testing.T, id string, trusts, issues *pki.Authority) Identity {
	t.Helper()
	i := Identity{ID: id}
	if trusts != nil {
		i.RootCAs = trusts.Pool()
	}
	if issues != nil {
		pair, err := tls.X509KeyPair(issues.Issue("client"))
		if err != nil {
			t.Fatal(err)
		}
		i.Certificate = &pair
	}
	return i
}

func TestAnIdentityDecidesWhomToTrustAndWhatToShow(t *testing.T) {
	a, b := pki.NewAuthority(t, "a"), pki.NewAuthority(t, "b")
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		mutual, simple := startMutual(t, a, b, http2), startMutual(t, a, nil, http2)
		cases := map[string]struct {
			endpoint *endpoint
			identity Identity
			ok       bool
		}{
			"the right authority and certificate": {mutual, identity(t, "1", a, b), true},
			"no certificate":                      {mutual, identity(t, "2", a, nil), false},
			"a certificate by another authority":  {mutual, identity(t, "3", a, a), false},
			"another authority":                   {mutual, identity(t, "4", b, b), false},
			"the system's authorities":            {mutual, identity(t, "5", nil, b), false},
			"a certificate that nobody asks for":  {simple, identity(t, "6", a, a), true},
			"only the right authority":            {simple, identity(t, "7", a, nil), true},
		}
		for what, c := range cases {
			t.Run(name+" "+what, func(t *testing.T) {
				transport := startTransport(t, toLoopback(t))
				for range 3 { // the first one also learns what the endpoint speaks
					proto, err := send(t, transport.As(c.identity), c.endpoint.URL)
					if _, refused := errors.AsType[*HandshakeError](err); refused == c.ok || c.ok && proto != name {
						t.Errorf("%q, %v", proto, err)
					}
				}
			})
		}
	}
}

func TestIdentitiesShareNoConnectionAndKeepTheirs(t *testing.T) {
	a, b := pki.NewAuthority(t, "a"), pki.NewAuthority(t, "b")
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		t.Run(name, func(t *testing.T) {
			e := startMutual(t, a, b, http2)
			transport := startTransport(t, toLoopback(t))
			right, wrong := identity(t, "right", a, b), identity(t, "wrong", a, a)
			for range 5 {
				if _, err := send(t, transport.As(right), e.URL); err != nil {
					t.Fatal(err)
				}
			}
			if n := e.connections.Load(); n != 1 {
				t.Errorf("%d connections for 5 requests, want 1", n)
			}
			if _, err := send(t, transport.As(wrong), e.URL); err == nil {
				t.Error("a request went out on another identity's connection, or resumed its session")
			}
			if _, err := send(t, transport, e.URL); err == nil {
				t.Error("a request without an identity went out on the connection of one")
			}
			transport.CloseIdleConnections()
			if _, err := send(t, transport.As(wrong), e.URL); err == nil {
				t.Error("a request resumed another identity's session")
			}
		})
	}
}

func TestThePolicyHoldsForIdentitiesToo(t *testing.T) {
	a := pki.NewAuthority(t, "a")
	e := startMutual(t, a, nil, false)
	_, err := send(t, startTransport(t, Options{}).As(identity(t, "1", a, nil)), e.URL)
	wantDenied(t, err, "loopback")
	plain := startEndpoint(t, "127.0.0.1:0", (*httptest.Server).Start)
	_, err = send(t, startTransport(t, Options{}).As(identity(t, "1", a, nil)), plain.URL)
	wantDenied(t, err, "loopback")
	if n := e.connections.Load() + plain.connections.Load(); n != 0 {
		t.Errorf("%d connections were opened, want none", n)
	}
}

func TestAnIdentityThatNobodyUsesLeavesNothing(t *testing.T) {
	a := pki.NewAuthority(t, "a")
	e := startMutual(t, a, nil, false)
	transport := startTransport(t, toLoopback(t))
	if _, err := send(t, transport.As(identity(t, "1", a, nil)), e.URL); err != nil {
		t.Fatal(err)
	}
	is := &transport.identities
	sweep := func(after time.Duration) int {
		is.mu.Lock()
		defer is.mu.Unlock()
		is.sweep(time.Now().Add(after))
		return len(is.byID)
	}
	kept := transport.secure.direct.peers.kept
	if left := sweep(idleTimeout / 2); left != 1 || kept.used.Load() != 1 {
		t.Errorf("in use: %d identities and %d connections are left, want 1 and 1", left, kept.used.Load())
	}
	if left := sweep(idleTimeout); left != 0 || kept.used.Load() != 0 {
		t.Errorf("unused: %d identities and %d connections are left, want none", left, kept.used.Load())
	}
}

func TestIdentitiesAreBounded(t *testing.T) {
	transport := startTransport(t, Options{})
	is := &transport.identities
	first := is.find(Identity{ID: "0"})
	for i := range maxIdentities {
		is.find(Identity{ID: strconv.Itoa(i)})
	}
	if is.find(Identity{ID: "0"}) != first || len(is.byID) != maxIdentities {
		t.Fatalf("%d identities, want %d and the first among them", len(is.byID), maxIdentities)
	}
	is.find(Identity{ID: "one more"})
	if _, left := is.byID["1"]; left || len(is.byID) != maxIdentities {
		t.Errorf("%d identities, want %d and not the one that was not used for longest", len(is.byID), maxIdentities)
	}
	if is.find(Identity{ID: "0"}) != first {
		t.Error("one that was in use went")
	}
}

func TestIdentitiesShareTheBoundOfKeptConnections(t *testing.T) {
	a := pki.NewAuthority(t, "a")
	e := startMutual(t, a, nil, false)
	transport := NewTransport(Options{Policy: toLoopback(t).Policy, MaxIdleConns: 2})
	t.Cleanup(transport.CloseIdleConnections)
	var all sync.WaitGroup
	for i := range 5 {
		all.Go(func() {
			if _, err := send(t, transport.As(identity(t, strconv.Itoa(i), a, nil)), e.URL); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if kept := transport.secure.direct.peers.kept.used.Load(); kept != 2 {
		t.Errorf("%d connections are kept, want 2", kept)
	}
}
