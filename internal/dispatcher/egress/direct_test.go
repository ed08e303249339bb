// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package egress

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// startScripted answers the requests of every connection by answer, which is given how many came before, over all
// connections, and closes a connection on which it says nothing, or says so.
func startScripted(t *testing.T, answer func(before int) string) (url string) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	var mu sync.Mutex
	requests := 0
	next := func() string {
		mu.Lock()
		defer mu.Unlock()
		requests++
		return answer(requests - 1)
	}
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { speak(conn, next) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
	})
	return "http://" + listener.Addr().String() + "/"
}

func speak(conn net.Conn, next func() string) {
	defer func() { _ = conn.Close() }()
	reader := bufio.NewReader(conn)
	for {
		req, err := http.ReadRequest(reader)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		text := next()
		if _, err := io.WriteString(conn, text); err != nil || text == "" || strings.Contains(text, "close") {
			return
		}
	}
}

// sendTraced tells also whether the connection had served before.
func sendTraced(t *testing.T, transport *Transport, url string) (body string, reused bool, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	wrote := false
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn:      func(info httptrace.GotConnInfo) { reused = info.Reused },
		WroteRequest: func(info httptrace.WroteRequestInfo) { wrote = info.Err == nil },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	res, err := transport.RoundTrip(req)
	if err != nil {
		return "", reused, err
	}
	text, err := io.ReadAll(res.Body)
	if !wrote {
		t.Error("nothing told that the request was written")
	}
	return string(text), reused, errors.Join(err, res.Body.Close())
}

func toLoopback(t *testing.T) Options {
	t.Helper()
	return Options{Policy: Policy{AllowedNetworks: networks(t, "127.0.0.0/8")}}
}

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

func TestAConnectionIsUsedAgainOnlyWhereThatIsSafe(t *testing.T) {
	cases := map[string]struct {
		answer string
		reused bool
	}{
		"a length":                     {ok, true},
		"chunks":                       {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", true},
		"no body":                      {"HTTP/1.1 204 No Content\r\n\r\n", true},
		"an answer to come first":      {"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + ok, true},
		"the endpoint says close":      {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", false},
		"HTTP/1.0":                     {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", false},
		"more than was announced":      {ok + "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged", false},
		"an upgrade nobody asked for":  {"HTTP/1.1 101 Switching Protocols\r\n\r\n", false},
		"chunks with something behind": {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nx", false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			url := startScripted(t, func(before int) string {
				if before == 0 {
					return c.answer
				}
				return ok
			})
			transport := startTransport(t, toLoopback(t))
			if _, _, err := sendTraced(t, transport, url); err != nil {
				t.Fatal(err)
			}
			body, reused, err := sendTraced(t, transport, url)
			if err != nil || reused != c.reused || body != "ok" {
				t.Errorf("second request: %q, %v, reused %v; want %v", body, err, reused, c.reused)
			}
		})
	}
}

// startClosing returns an endpoint that tells when one of its connections was closed.
func startClosing(t *testing.T) (*endpoint, <-chan struct{}) {
	t.Helper()
	closed := make(chan struct{}, 8)
	return startEndpoint(t, "127.0.0.1:0", func(s *httptest.Server) {
		counted := s.Config.ConnState
		s.Config.ConnState = func(conn net.Conn, state http.ConnState) {
			counted(conn, state)
			if state == http.StateClosed {
				closed <- struct{}{}
			}
		}
		s.Start()
	}), closed
}

func TestAKeptConnectionThatTheEndpointClosedIsNotUsed(t *testing.T) {
	e, closed := startClosing(t)
	transport := startTransport(t, toLoopback(t))
	if _, _, err := sendTraced(t, transport, e.URL); err != nil {
		t.Fatal(err)
	}
	e.CloseClientConnections()
	<-closed
	if _, reused, err := sendTraced(t, transport, e.URL); err != nil || reused {
		t.Errorf("second request: %v, reused %v", err, reused)
	}
}

func TestAnAnswerThatIsNoneIsAnError(t *testing.T) {
	cases := map[string]string{
		"nothing":                   "",
		"another protocol":          "220 mail.test ESMTP\r\n",
		"a header without an end":   "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 2*maxResponseHeader) + "\r\n\r\n",
		"1xx without an end":        strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", maxInformational+1) + ok,
		"a body that breaks off":    "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nok",
		"two lengths that disagree": "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok",
	}
	for name, answer := range cases {
		t.Run(name, func(t *testing.T) {
			url := startScripted(t, func(before int) string { return [2]string{answer, ""}[min(before, 1)] })
			if body, _, err := sendTraced(t, startTransport(t, toLoopback(t)), url); err == nil {
				t.Errorf("no error, and the body %q", body)
			}
		})
	}
}

func TestALineBreakInAHeaderMakesNoSecondHeader(t *testing.T) {
	e := startEndpoint(t, "127.0.0.1:0", (*httptest.Server).Start)
	for name, value := range map[string]string{"X-A": "1\r\nX-B: 2", "X-A\r\nX-B": "2", "X A": "1"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, e.URL, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header[name] = []string{value}
		res, err := startTransport(t, toLoopback(t)).RoundTrip(req)
		if err == nil {
			_ = res.Body.Close()
			t.Errorf("%q: %q was sent", name, value)
		}
	}
}

func TestALargeBodyIsAnsweredBeforeItIsRead(t *testing.T) {
	e := startEndpoint(t, "127.0.0.1:0", func(s *httptest.Server) {
		s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			_ = http.NewResponseController(w).Flush()
			<-t.Context().Done() // and it stays open
		})
		s.Start()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	body := strings.NewReader(strings.Repeat("x", 32<<20))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.URL, body)
	if err != nil {
		t.Fatal(err)
	}
	res, err := startTransport(t, toLoopback(t)).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("status %d", res.StatusCode)
	}
}

func TestKeptConnectionsAreBounded(t *testing.T) {
	ps := newPeers("80", newAllowance(2))
	p, _ := ps.find("endpoint.test")
	var theirs []net.Conn
	for range 3 {
		mine, other := net.Pipe()
		theirs = append(theirs, other)
		c := newConn(mine, p, ps)
		ps.keep(c)
	}
	if len(p.idle) != 2 || ps.idle != 2 {
		t.Errorf("%d and %d kept, want 2", len(p.idle), ps.idle)
	}
	if _, err := theirs[2].Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the third: %v, want it closed", err)
	}
	ps.closeIdle()
	for i, other := range theirs {
		if _, err := other.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("connection %d: %v, want it closed", i, err)
		}
	}
}

func TestASweepClosesWhatIsOldOrDead(t *testing.T) {
	e, closed := startClosing(t)
	transport := startTransport(t, toLoopback(t))
	ps := transport.plain.direct.peers
	sweep := func(after time.Duration) (idle, peers int) {
		ps.mu.Lock()
		defer ps.mu.Unlock()
		ps.sweep(time.Now().Add(after))
		return ps.idle, len(ps.byHost)
	}
	request := func() {
		if _, _, err := sendTraced(t, transport, e.URL); err != nil {
			t.Fatal(err)
		}
	}
	request()
	if idle, peers := sweep(idleTimeout / 2); idle != 1 || peers != 1 {
		t.Errorf("young: %d connections of %d peers, want 1 and 1", idle, peers)
	}
	e.CloseClientConnections()
	<-closed
	if idle, peers := sweep(sweepEvery); idle != 0 || peers != 1 {
		t.Errorf("dead: %d connections of %d peers, want 0 and 1", idle, peers)
	}
	request()
	if idle, peers := sweep(idleTimeout); idle != 0 || peers != 0 {
		t.Errorf("old: %d connections of %d peers, want none", idle, peers)
	}
	<-closed
}

func TestPeerOfAHost(t *testing.T) {
	cases := map[string]struct{ address, host string }{
		"endpoint.test":       {"endpoint.test:80", "endpoint.test"},
		"endpoint.test:":      {"endpoint.test:80", "endpoint.test:"},
		"endpoint.test:8080":  {"endpoint.test:8080", "endpoint.test:8080"},
		"[::1]":               {"[::1]:80", "[::1]"},
		"[::1]:8080":          {"[::1]:8080", "[::1]:8080"},
		"bücher.test:8080":    {"xn--bcher-kva.test:8080", "xn--bcher-kva.test:8080"},
		"[fe80::1%25lo]:8080": {},
		"a b":                 {},
		"":                    {},
	}
	for host, want := range cases {
		p := newPeer(host, "80")
		if p.address != want.address || p.host != want.host {
			t.Errorf("%q: dial %q as %q, want %q as %q", host, p.address, p.host, want.address, want.host)
		}
	}
}

func TestHTTP2IsSpokenOnTheConnectionThatChoseIt(t *testing.T) {
	e := startEndpoint(t, "127.0.0.1:0", withHTTP2)
	transport := startTransport(t, trusting(t, e))
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			if proto, err := send(t, transport, e.URL+"/"+strconv.Itoa(i)); err != nil || proto != "HTTP/2.0" {
				t.Errorf("%q, %v", proto, err)
			}
		})
	}
	all.Wait()
	if left := len(transport.secure.direct.handOver.byAddress); left != 0 {
		t.Errorf("%d connections were handed over and not taken", left)
	}
}
