// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// endpoint is a server that counts the connections that reached it.
type endpoint struct {
	*httptest.Server
	connections atomic.Int32
}

func startEndpoint(t *testing.T, address string, start func(*httptest.Server)) *endpoint {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	e := &endpoint{}
	e.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Proto)
	}))
	_ = e.Listener.Close()
	e.Listener = listener
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

func withHTTP2(s *httptest.Server) {
	s.EnableHTTP2 = true
	s.StartTLS()
}

func (e *endpoint) port() string {
	_, port, _ := net.SplitHostPort(e.Listener.Addr().String())
	return port
}

func startTransport(t *testing.T, o Options) *Transport {
	t.Helper()
	o.MaxIdleConns = 16
	transport := NewTransport(o)
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// send returns the body of the answer.
func send(t *testing.T, transport http.RoundTripper, url string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader("{}"))
	if err != nil {
		return "", err
	}
	res, err := transport.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	return string(body), err
}

func TestNoNotationOfLoopbackReachesAListener(t *testing.T) {
	v4 := startEndpoint(t, "127.0.0.1:0", (*httptest.Server).Start)
	v6 := startEndpoint(t, "[::1]:"+v4.port(), (*httptest.Server).Start)
	resolver := startDNS(t, map[string][]string{
		"loopback.test.": {"127.0.0.1"}, "loopback6.test.": {"::1"}, "mapped.test.": {"::ffff:127.0.0.1"},
		"unspecified.test.": {"0.0.0.0"},
	})
	transport := startTransport(t, Options{Resolver: resolver})
	for _, host := range []string{
		"127.0.0.1", "localhost", "LOCALHOST", "localhost.", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1",
		"0177.0.0.1", "017700000001", "127.0.0.1.", "0.0.0.0", "0", "[::1]", "[::]", "[0:0:0:0:0:0:0:1]",
		"[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::1%25lo]", "user@127.0.0.1", "%31%32%37.0.0.1", "①②⑦.⓪.⓪.①",
		"loopback.test", "loopback6.test", "mapped.test", "unspecified.test",
	} {
		for _, scheme := range []string{"http", "https"} {
			if _, err := send(t, transport, scheme+"://"+host+":"+v4.port()+"/"); err == nil {
				t.Errorf("%s://%s was reached", scheme, host)
			}
		}
	}
	if n := v4.connections.Load() + v6.connections.Load(); n != 0 {
		t.Errorf("%d connections were opened, want none", n)
	}
	_, err := send(t, transport, "https://loopback.test:"+v4.port())
	wantDenied(t, err, "loopback")
}

func TestAnAllowedNetworkOpensPlainHTTP(t *testing.T) {
	v4 := startEndpoint(t, "127.0.0.1:0", (*httptest.Server).Start)
	v6 := startEndpoint(t, "[::1]:"+v4.port(), (*httptest.Server).Start)
	transport := startTransport(t, Options{Policy: Policy{AllowedNetworks: networks(t, "127.0.0.1", "::1")}})
	for _, host := range []string{"127.0.0.1", "[::ffff:127.0.0.1]", "[::1]", "localhost"} {
		if _, err := send(t, transport, "http://"+host+":"+v4.port()); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	if v4.connections.Load() == 0 || v6.connections.Load() == 0 {
		t.Error("an allowed endpoint was not reached")
	}
}

func TestPlainHTTPToAPublicAddressIsDenied(t *testing.T) {
	_, err := send(t, startTransport(t, Options{}), "http://192.31.196.1/")
	wantDenied(t, err, "plain http needs an allowed network")
}

func TestLinkLocalStaysClosedWhenAllIsAllowed(t *testing.T) {
	everything := Policy{AllowedNetworks: networks(t, "0.0.0.0/0", "::/0")}
	resolver := startDNS(t, map[string][]string{"metadata.test.": {"169.254.169.254"}})
	transport := startTransport(t, Options{Policy: everything, Resolver: resolver})
	for _, host := range []string{"169.254.169.254", "[::ffff:169.254.169.254]", "[fd00:ec2::254]", "metadata.test"} {
		_, err := send(t, transport, "http://"+host+"/latest/meta-data/")
		wantDenied(t, err, "never allowed")
	}
}

func TestANameThatChangesItsMindIsCheckedAgain(t *testing.T) {
	allowed := startEndpoint(t, "127.0.0.1:0", (*httptest.Server).Start)
	denied := startEndpoint(t, "127.0.0.2:"+allowed.port(), (*httptest.Server).Start)
	names := &zone{records: map[string][]string{"rebind.test.": {"127.0.0.1"}}}
	policy := Policy{AllowedNetworks: networks(t, "127.0.0.1")}
	transport := startTransport(t, Options{Policy: policy, Resolver: names.serve(t)})
	url := "http://rebind.test:" + allowed.port()
	if _, err := send(t, transport, url); err != nil {
		t.Fatal(err)
	}
	transport.CloseIdleConnections()
	names.set("rebind.test.", "127.0.0.2")
	_, err := send(t, transport, url)
	wantDenied(t, err, "loopback")
	if denied.connections.Load() != 0 || allowed.connections.Load() != 1 {
		t.Errorf("connections: %d to the denied, %d to the allowed endpoint; want 0 and 1",
			denied.connections.Load(), allowed.connections.Load())
	}
}

func TestOfSeveralAddressesOnlyTheAllowedOneIsDialled(t *testing.T) {
	allowed := startEndpoint(t, "127.0.0.1:0", (*httptest.Server).Start)
	denied := startEndpoint(t, "127.0.0.2:"+allowed.port(), (*httptest.Server).Start)
	records := map[string][]string{"both.test.": {"127.0.0.2", "127.0.0.1"}}
	policy := Policy{AllowedNetworks: networks(t, "127.0.0.1")}
	transport := startTransport(t, Options{Policy: policy, Resolver: startDNS(t, records)})
	if _, err := send(t, transport, "http://both.test:"+allowed.port()); err != nil {
		t.Fatal(err)
	}
	if denied.connections.Load() != 0 {
		t.Error("the denied address was connected to")
	}
}

func TestHTTPSReusesOneConnectionAndSpeaksHTTP2WhereItCan(t *testing.T) {
	cases := map[string]struct {
		start func(*httptest.Server)
		proto string
	}{
		"an endpoint with HTTP/2":    {withHTTP2, "HTTP/2.0"},
		"an endpoint without HTTP/2": {(*httptest.Server).StartTLS, "HTTP/1.1"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			e := startEndpoint(t, "127.0.0.1:0", c.start)
			transport := startTransport(t, trusting(t, e))
			for range 5 {
				proto, err := send(t, transport, e.URL)
				if err != nil || proto != c.proto {
					t.Fatalf("protocol %q, %v; want %s", proto, err, c.proto)
				}
			}
			if n := e.connections.Load(); n != 1 {
				t.Errorf("%d connections for 5 requests, want 1", n)
			}
		})
	}
}

func trusting(t *testing.T, e *endpoint) Options {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(e.Certificate())
	return Options{Policy: Policy{AllowedNetworks: networks(t, "127.0.0.0/8")}, RootCAs: roots}
}

func TestAHandshakeThatFailsHasAType(t *testing.T) {
	good := startEndpoint(t, "127.0.0.1:0", (*httptest.Server).StartTLS)
	old := startEndpoint(t, "127.0.0.1:0", func(s *httptest.Server) {
		s.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
		s.StartTLS()
	})
	plain := startEndpoint(t, "127.0.0.1:0", (*httptest.Server).Start)
	untrusting := trusting(t, good)
	untrusting.RootCAs = x509.NewCertPool()
	otherName := trusting(t, good)
	otherName.Resolver = startDNS(t, map[string][]string{"other.test.": {"127.0.0.1"}})
	cases := map[string]struct {
		options Options
		url     string
	}{
		"an untrusted certificate":       {untrusting, good.URL},
		"a certificate for another name": {otherName, "https://other.test:" + good.port()},
		"TLS 1.1":                        {trusting(t, old), old.URL},
		"a peer that does not speak TLS": {trusting(t, good), "https://127.0.0.1:" + plain.port()},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := send(t, startTransport(t, c.options), c.url)
			var handshake *HandshakeError
			if !errors.As(err, &handshake) {
				t.Errorf("got %v, want a HandshakeError", err)
			}
		})
	}
}

func TestTheEnvironmentsProxyIsNotUsed(t *testing.T) {
	proxy := startEndpoint(t, "127.0.0.1:0", (*httptest.Server).Start)
	e := startEndpoint(t, "127.0.0.1:0", (*httptest.Server).Start)
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"} {
		t.Setenv(name, proxy.URL)
	}
	options := Options{Policy: Policy{AllowedNetworks: networks(t, "127.0.0.1")}}
	options.Resolver = startDNS(t, map[string][]string{"endpoint.test.": {"127.0.0.1"}})
	if _, err := send(t, startTransport(t, options), "http://endpoint.test:"+e.port()); err != nil {
		t.Fatal(err)
	}
	if proxy.connections.Load() != 0 || e.connections.Load() != 1 {
		t.Error("the request went through the proxy")
	}
}

func TestOtherSchemesAreRefused(t *testing.T) {
	if _, err := send(t, startTransport(t, Options{}), "ftp://8.8.8.8/"); err == nil {
		t.Error("no error for ftp")
	}
}

func TestADeniedErrorIsFoundThroughAClientsError(t *testing.T) {
	client := &http.Client{Transport: startTransport(t, Options{})}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://127.0.0.1/?token=x", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(req)
	if err == nil {
		_ = res.Body.Close()
	}
	wantDenied(t, err, "loopback")
}

// zone is a DNS server that knows the names in records (with the dot at their end) and no other.
type zone struct {
	mu      sync.Mutex
	records map[string][]string
	turns   bool // each answer has the next address only
}

func startDNS(t *testing.T, records map[string][]string) *net.Resolver {
	t.Helper()
	return (&zone{records: records}).serve(t)
}

func (z *zone) set(name string, addresses ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.records[name] = addresses
}

func (z *zone) serve(t *testing.T) *net.Resolver {
	t.Helper()
	conn, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(z.answer(buffer[:n]), from)
		}
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-done
	})
	return &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
		},
	}
}

func (z *zone) answer(query []byte) []byte {
	var message dnsmessage.Message
	if message.Unpack(query) != nil || len(message.Questions) != 1 {
		return nil
	}
	question := message.Questions[0]
	message.Response, message.Additionals = true, nil
	z.mu.Lock()
	name := strings.ToLower(question.Name.String())
	addresses, known := z.records[name]
	if z.turns && known && question.Type == dnsmessage.TypeA {
		z.records[name] = append(addresses[1:len(addresses):len(addresses)], addresses[0])
		addresses = addresses[:1]
	}
	z.mu.Unlock()
	if !known {
		message.RCode = dnsmessage.RCodeNameError
	}
	for _, address := range addresses {
		if body := record(netip.MustParseAddr(address)); (question.Type == dnsmessage.TypeA) == isA(body) {
			message.Answers = append(message.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET},
				Body:   body,
			})
		}
	}
	packed, err := message.Pack()
	if err != nil {
		return nil
	}
	return packed
}

func record(addr netip.Addr) dnsmessage.ResourceBody {
	if addr.Is4() {
		return &dnsmessage.AResource{A: addr.As4()}
	}
	return &dnsmessage.AAAAResource{AAAA: addr.As16()}
}

func isA(body dnsmessage.ResourceBody) bool {
	_, ok := body.(*dnsmessage.AResource)
	return ok
}
