// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"bufio"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"nexus.io/webhooks/internal/dispatcher/egress"
	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/routing"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// What must show nowhere but in the request itself.
const (
	secretKey    = "5e1f0d9c2e7a4835b6d1f0a9c8e7d6b5a4938271605f4e3d2c1b0a9f8e7d6c5b"
	secretHeader = "Bearer hunter2hunter2"
	secretQuery  = "token=s3cr3tquery"
)

const payload = `{"id":"evt_1","type":"build.failed","data":{"n":1.10}}`

func testRoute(endpoint string) *routing.Route {
	return &routing.Route{
		ID: "sub_1", Namespace: "team-a", Name: "notifier", Active: true,
		Endpoint: routing.ParseEndpoint(endpoint), Timeout: 10 * time.Second, Retry: briefRetry,
		Keys:    [][]byte{[]byte(secretKey)},
		Headers: []routing.Header{{Name: "authorization", Value: secretHeader, Secret: true}},
	}
}

func testLease(attempt int) queue.Lease {
	return queue.Lease{
		DeliveryID: "0199aa00-0000-7000-8000-000000000001", SubscriptionID: "sub_1", EventID: "evt_1",
		EventType: "build.failed", Attempt: attempt, Body: []byte(payload), Token: 7,
		Deadline: time.Now().Add(time.Minute),
	}
}

// endpoint is a server that counts its connections.
type endpoint struct {
	*httptest.Server
	connections atomic.Int32
}

func startEndpoint(t *testing.T, handler http.HandlerFunc, start func(*httptest.Server)) *endpoint {
	t.Helper()
	e := &endpoint{Server: httptest.NewUnstartedServer(handler)}
	e.Config.ErrorLog = log.New(io.Discard, "", 0)
	e.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			e.connections.Add(1)
		}
	}
	start(e.Server)
	t.Cleanup(e.Close)
	return e
}

func plain(s *httptest.Server) { s.Start() }

func withTLS(s *httptest.Server) { s.StartTLS() }

func withHTTP2(s *httptest.Server) {
	s.EnableHTTP2 = true
	s.StartTLS()
}

func (e *endpoint) url() string { return e.URL + "/hooks?" + secretQuery }

// startRaw answers each connection with what speak does once the request was read, headers and body.
func startRaw(t *testing.T, speak func(net.Conn)) (url string) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if req, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				_, _ = io.Copy(io.Discard, req.Body)
				speak(conn)
			}
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
	})
	return "http://" + listener.Addr().String() + "/hooks?" + secretQuery
}

func says(text string) func(net.Conn) {
	return func(conn net.Conn) { _, _ = io.WriteString(conn, text) }
}

// saysAndStays keeps the connection until the other side closes it.
func saysAndStays(text string) func(net.Conn) {
	return func(conn net.Conn) {
		says(text)(conn)
		_, _ = io.Copy(io.Discard, conn)
	}
}

// newTransport allows loopback and trusts the certificate of every httptest server.
func newTransport(tb testing.TB, servers ...*endpoint) *egress.Transport {
	tb.Helper()
	roots := x509.NewCertPool()
	for _, s := range servers {
		if s.Certificate() != nil {
			roots.AddCert(s.Certificate())
		}
	}
	transport := egress.NewTransport(egress.Options{
		Policy:       egress.Policy{AllowedNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
		MaxIdleConns: 64,
		RootCAs:      roots,
		Resolver:     noDNS,
	})
	tb.Cleanup(transport.CloseIdleConnections)
	return transport
}

// noDNS finds no name: its name server cannot be reached.
var noDNS = &net.Resolver{
	PreferGo: true,
	Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("no name server in tests")
	},
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }
