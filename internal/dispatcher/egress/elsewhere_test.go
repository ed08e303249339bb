// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package egress

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"nexus.io/webhooks/test/pki"
)

// hosts is what an endpoint was called in requests.
type hosts struct {
	mu    sync.Mutex
	names map[string]int
}

func (h *hosts) count(name string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.names[name]
}

func (h *hosts) serve(w http.ResponseWriter, r *http.Request) {
	name, _, _ := strings.Cut(r.Host, ":")
	h.mu.Lock()
	h.names[name]++
	h.mu.Unlock()
	_, _ = w.Write([]byte(r.Proto))
}

// An endpoint with HTTP/2 whose certificate is good for another name too gets no requests to that name: those go to
// where the name leads, by a connection of their own that the policy was asked about.
func TestAConnectionServesNoOtherName(t *testing.T) {
	authority := pki.NewAuthority(t, "a")
	pair, err := tls.X509KeyPair(authority.Issue("endpoint", "one.test", "two.test"))
	if err != nil {
		t.Fatal(err)
	}
	at := func(address string, called *hosts) *endpoint {
		return startEndpoint(t, address, func(s *httptest.Server) {
			s.Config.Handler = http.HandlerFunc(called.serve)
			s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
			withHTTP2(s)
		})
	}
	first, second := &hosts{names: map[string]int{}}, &hosts{names: map[string]int{}}
	one := at("127.0.0.1:0", first)
	two := at("127.0.0.2:"+one.port(), second)
	resolver := startDNS(t, map[string][]string{"one.test.": {"127.0.0.1"}, "two.test.": {"127.0.0.2"}})
	for allowed, reaches := range map[string]bool{"127.0.0.1": false, "127.0.0.0/8": true} {
		before := two.connections.Load()
		transport := startTransport(t, Options{
			Policy: Policy{AllowedNetworks: networks(t, allowed)}, RootCAs: authority.Pool(), Resolver: resolver,
		})
		for range 3 {
			if proto, err := send(t, transport, "https://one.test:"+one.port()); err != nil || proto != "HTTP/2.0" {
				t.Fatalf("%q, %v", proto, err)
			}
			_, err := send(t, transport, "https://two.test:"+one.port())
			if !reaches {
				wantDenied(t, err, "loopback")
			} else if err != nil {
				t.Error(err)
			}
		}
		if n := two.connections.Load() - before; (n == 1) != reaches {
			t.Errorf("with %s allowed, %d connections for the other name", allowed, n)
		}
	}
	if n := first.count("two.test"); n != 0 || second.count("two.test") != 3 {
		t.Errorf("%d requests to the other name came by a connection that is not its own, %d by its own", n, second.count("two.test"))
	}
}

// Whatever an endpoint answers, nothing goes anywhere else.
func TestNoAnswerLeadsElsewhere(t *testing.T) {
	elsewhere := startEndpoint(t, "127.0.0.2:0", (*httptest.Server).Start)
	answers := map[string]http.Header{
		"Alt-Svc": {"Alt-Svc": {`h2="127.0.0.2:` + elsewhere.port() + `"; ma=3600, h2c="127.0.0.2:` + elsewhere.port() + `"`}},
		"Refresh": {"Refresh": {"0; url=" + elsewhere.URL}},
		"Link":    {"Link": {"<" + elsewhere.URL + ">; rel=preconnect"}},
		"Upgrade": {"Connection": {"Upgrade"}, "Upgrade": {"h2c"}},
	}
	statuses := []int{200, 201, 300, 301, 302, 303, 305, 307, 308, 401, 407, 421, 511}
	for _, status := range statuses {
		answers[strconv.Itoa(status)] = http.Header{
			"Location": {elsewhere.URL}, "Content-Location": {elsewhere.URL}, "Proxy-Authenticate": {"Basic"},
		}
	}
	for name, header := range answers {
		for _, start := range []func(*httptest.Server){(*httptest.Server).Start, (*httptest.Server).StartTLS, withHTTP2} {
			e := startEndpoint(t, "127.0.0.1:0", func(s *httptest.Server) {
				s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					for name, values := range header {
						w.Header()[name] = values
					}
					if status, err := strconv.Atoi(name); err == nil {
						w.WriteHeader(status)
					}
				})
				start(s)
			})
			options := toLoopback(t)
			if e.TLS != nil {
				options = trusting(t, e)
			}
			transport := startTransport(t, options)
			for range 2 {
				if _, err := send(t, transport, e.URL); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
	}
	if n := elsewhere.connections.Load(); n != 0 {
		t.Errorf("%d connections to where an answer pointed", n)
	}
}

// The name server answers each question with the next of two addresses. What is checked is what is connected to.
func TestANameThatChangesItsMindBetweenCheckAndConnection(t *testing.T) {
	allowed := startEndpoint(t, "127.0.0.1:0", (*httptest.Server).Start)
	denied := startEndpoint(t, "127.0.0.2:"+allowed.port(), (*httptest.Server).Start)
	names := &zone{records: map[string][]string{"rebind.test.": {"127.0.0.1", "127.0.0.2"}}, turns: true}
	policy := Policy{AllowedNetworks: networks(t, "127.0.0.1")}
	transport := startTransport(t, Options{Policy: policy, Resolver: names.serve(t)})
	refused := 0
	for range 20 {
		if _, err := send(t, transport, "http://rebind.test:"+allowed.port()); err != nil {
			wantDenied(t, err, "loopback")
			refused++
		}
		transport.CloseIdleConnections()
	}
	if denied.connections.Load() != 0 || refused == 0 || allowed.connections.Load() == 0 {
		t.Errorf("connections: %d to the denied, %d to the allowed endpoint, %d refused",
			denied.connections.Load(), allowed.connections.Load(), refused)
	}
}
