// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"nexus.io/webhooks/internal/routing"
	"nexus.io/webhooks/internal/signing"
)

// arrival is a request as an endpoint sees it.
type arrival struct {
	method, uri, host, proto string
	header                   http.Header
	body                     string
}

// recorder answers 200 and hands over what arrived.
func recorder(arrivals chan<- arrival) http.HandlerFunc {
	return func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		arrivals <- arrival{r.Method, r.RequestURI, r.Host, r.Proto, r.Header, string(body)}
	}
}

func TestTheRequestIsAsDocumented(t *testing.T) {
	arrivals := make(chan arrival, 1)
	e := startEndpoint(t, recorder(arrivals), plain)
	route := testRoute(e.url())
	route.Headers = append(route.Headers,
		routing.Header{Name: "X-Team", Value: "platform"},
		routing.Header{Name: "x-nexus-event", Value: "forged"},
		routing.Header{Name: "User-Agent", Value: "forged"})
	sender := NewSender(newTransport(t), "1.2.3")
	if got := sender.Send(t.Context(), route, testLease(1)); Classify(got).Reason != ReasonNone {
		t.Fatalf("exchange: %+v", got)
	}
	got := <-arrivals
	timestamp := got.header.Get("X-Nexus-Timestamp")
	if at, err := time.Parse(time.RFC3339, timestamp); err != nil || time.Since(at).Abs() > time.Minute {
		t.Errorf("timestamp %q: %v", timestamp, err)
	}
	signature := got.header.Get("X-Nexus-Signature-256")
	if !strings.HasPrefix(signature, "sha256=") ||
		!signing.Verify([]byte(secretKey), timestamp, []byte(got.body), signature) {
		t.Errorf("signature %q does not fit", signature)
	}
	got.header.Del("X-Nexus-Timestamp")
	got.header.Del("X-Nexus-Signature-256")
	want := arrival{
		method: "POST", uri: "/hooks?" + secretQuery, host: e.Listener.Addr().String(), proto: "HTTP/1.1", body: payload,
		header: http.Header{
			"Content-Type":     {"application/json"},
			"Content-Length":   {fmt.Sprint(len(payload))},
			"User-Agent":       {"Nexus-Webhook/1.2.3"},
			"X-Nexus-Event":    {"build.failed"},
			"X-Nexus-Delivery": {"0199aa00-0000-7000-8000-000000000001"},
			"Authorization":    {secretHeader},
			"X-Team":           {"platform"},
		},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(arrival{})); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
}

func TestEachAttemptHasTheSameBodyAndItsOwnTimestamp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var arrivals []arrival
		sender := NewSender(roundTrip(func(req *http.Request) (*http.Response, error) {
			body, err := io.ReadAll(req.Body)
			arrivals = append(arrivals, arrival{header: req.Header, body: string(body)})
			return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, err
		}), "dev")
		for attempt := range 3 {
			sender.Send(t.Context(), testRoute("https://endpoint.test/"), testLease(attempt+1))
			<-time.After(5 * time.Second)
		}
		for i, a := range arrivals {
			timestamp := signing.Timestamp(time.Date(2000, 1, 1, 0, 0, 5*i, 0, time.UTC))
			if got := a.header.Get("X-Nexus-Timestamp"); got != timestamp {
				t.Errorf("attempt %d: timestamp %s, want %s", i+1, got, timestamp)
			}
			if a.body != payload || a.header.Get("X-Nexus-Delivery") != arrivals[0].header.Get("X-Nexus-Delivery") {
				t.Errorf("attempt %d differs: %+v", i+1, a)
			}
			if !signing.Verify([]byte(secretKey), timestamp, []byte(payload), a.header.Get("X-Nexus-Signature-256")) {
				t.Errorf("attempt %d: the signature does not fit", i+1)
			}
		}
	})
}

func TestWhileTwoKeysAreValidTheyTakeTurns(t *testing.T) {
	arrivals := make(chan arrival, 1)
	e := startEndpoint(t, recorder(arrivals), plain)
	sender := NewSender(newTransport(t), "dev")
	route := testRoute(e.url())
	route.Keys = [][]byte{[]byte("new"), []byte("old")}
	for attempt, want := range map[int][2]string{1: {"new", "old"}, 2: {"old", "new"}, 3: {"new", "old"}} {
		sender.Send(t.Context(), route, testLease(attempt))
		got := <-arrivals
		timestamp := got.header.Get("X-Nexus-Timestamp")
		for i, name := range []string{"X-Nexus-Signature-256", "X-Nexus-Signature-256-Alt"} {
			if !signing.Verify([]byte(want[i]), timestamp, []byte(payload), got.header.Get(name)) {
				t.Errorf("attempt %d: %s is not by the %s key", attempt, name, want[i])
			}
		}
	}
	route.Keys = route.Keys[:1]
	sender.Send(t.Context(), route, testLease(2))
	if _, ok := (<-arrivals).header["X-Nexus-Signature-256-Alt"]; ok {
		t.Error("a second signature with one key")
	}
}

func TestConnectionsAreReused(t *testing.T) {
	answers := map[string]struct {
		size int
		want int32 // connections for 5 attempts
	}{
		"no body":                    {0, 1},
		"a small body":               {100, 1},
		"a body up to the bound":     {maxDrained, 1},
		"a body far above the bound": {maxDrained * 40, 5},
	}
	for name, answer := range answers {
		t.Run(name, func(t *testing.T) {
			e := startEndpoint(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				_, _ = w.Write(bytes.Repeat([]byte("x"), answer.size))
			}, plain)
			sender := NewSender(newTransport(t), "dev")
			for range 5 {
				got := sender.Send(t.Context(), testRoute(e.url()), testLease(1))
				if Classify(got).Reason != ReasonNone || len(got.Body) != min(answer.size, maxSnippet) {
					t.Fatalf("exchange: %+v", got)
				}
			}
			if n := e.connections.Load(); n != answer.want {
				t.Errorf("%d connections for 5 attempts, want %d", n, answer.want)
			}
		})
	}
}

func TestHTTP2CarriesAttemptsSideBySideOnOneConnection(t *testing.T) {
	const attempts = 8
	var arrived atomic.Int32
	all := make(chan struct{})
	e := startEndpoint(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Proto != "HTTP/2.0" || string(body) != payload {
			w.WriteHeader(http.StatusTeapot)
		}
		if r.Header.Get("X-Nexus-Event") == "first" {
			return
		}
		if arrived.Add(1) == attempts {
			close(all)
		}
		<-all
	}, withHTTP2)
	sender := NewSender(newTransport(t, e), "dev")
	first := testLease(1)
	first.EventType = "first"
	sender.Send(t.Context(), testRoute(e.url()), first)
	results := make(chan Exchange)
	for range attempts {
		go func() { results <- sender.Send(t.Context(), testRoute(e.url()), testLease(1)) }()
	}
	for range attempts {
		if got := <-results; got.StatusCode != http.StatusOK || !got.Sent {
			t.Errorf("exchange: %+v", got)
		}
	}
	if n := e.connections.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

func TestARedirectIsNotFollowed(t *testing.T) {
	target := startEndpoint(t, func(http.ResponseWriter, *http.Request) {}, plain)
	for _, status := range []int{301, 302, 303, 307, 308} {
		for _, location := range []string{target.URL, "http://[broken", ""} {
			e := startEndpoint(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", location)
				w.WriteHeader(status)
			}, plain)
			got := NewSender(newTransport(t), "dev").Send(t.Context(), testRoute(e.url()), testLease(1))
			if got.StatusCode != status || Classify(got).Reason != ReasonRedirect {
				t.Errorf("%d to %q: %+v", status, location, got)
			}
		}
	}
	if target.connections.Load() != 0 {
		t.Error("a redirect was followed")
	}
}

func TestAnEndlessAnswerIsCutOffAndStillASuccess(t *testing.T) {
	for name, start := range map[string]func(*httptest.Server){"HTTP/1.1": plain, "HTTP/2": withHTTP2} {
		t.Run(name, func(t *testing.T) {
			stopped := make(chan int, 1)
			e := startEndpoint(t, func(w http.ResponseWriter, _ *http.Request) {
				chunk, written := bytes.Repeat([]byte("endless "), 128), 0
				for {
					n, err := w.Write(chunk)
					written += n
					if err != nil {
						stopped <- written
						return
					}
				}
			}, start)
			got := NewSender(newTransport(t, e), "dev").Send(t.Context(), testRoute(e.url()), testLease(1))
			if Classify(got).Reason != ReasonNone || len(got.Body) != maxSnippet {
				t.Errorf("exchange: status %d, %d bytes kept, %v", got.StatusCode, len(got.Body), got.Err)
			}
			if written := <-stopped; written > 64<<20 {
				t.Errorf("the endpoint could write %d bytes", written)
			}
		})
	}
}

func TestTheTimeoutCoversTheWholeExchange(t *testing.T) {
	handlers := map[string]struct {
		handler http.HandlerFunc
		status  int
	}{
		"no answer": {func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		}, 0},
		"no body after the headers": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, 200},
		"a body that trickles": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			for r.Context().Err() == nil {
				_, _ = w.Write([]byte("."))
				_ = http.NewResponseController(w).Flush()
				select {
				case <-r.Context().Done():
				case <-time.After(20 * time.Millisecond):
				}
			}
		}, 200},
	}
	for name, c := range handlers {
		for protocol, start := range map[string]func(*httptest.Server){"HTTP/1.1": plain, "HTTP/2": withHTTP2} {
			t.Run(name+" over "+protocol, func(t *testing.T) {
				e := startEndpoint(t, c.handler, start)
				route := testRoute(e.url())
				route.Timeout = 200 * time.Millisecond
				got := NewSender(newTransport(t, e), "dev").Send(t.Context(), route, testLease(1))
				if got.StatusCode != c.status || Classify(got).Reason != ReasonTimeout {
					t.Errorf("status %d, reason %q, %v", got.StatusCode, Classify(got).Reason, got.Err)
				}
				if got.Duration < route.Timeout || got.Duration > 5*time.Second {
					t.Errorf("it took %v", got.Duration)
				}
				if !got.Sent || got.SentAgo < 100*time.Millisecond || got.SentAgo > got.Duration {
					t.Errorf("sent %v, %v ago, of %v", got.Sent, got.SentAgo, got.Duration)
				}
			})
		}
	}
}

func TestHeadersThatTrickleRunIntoTheTimeout(t *testing.T) {
	url := startRaw(t, func(conn net.Conn) {
		for _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\n"); err == nil; {
			_, err = io.WriteString(conn, "X-Slow: 1\r\n")
			<-time.After(20 * time.Millisecond)
		}
	})
	route := testRoute(url)
	route.Timeout = 200 * time.Millisecond
	got := NewSender(newTransport(t), "dev").Send(t.Context(), route, testLease(1))
	if Classify(got).Reason != ReasonTimeout {
		t.Errorf("exchange: %+v", got)
	}
}

func TestEachErrorKindByRealServers(t *testing.T) {
	abort := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	untrusted := startEndpoint(t, func(http.ResponseWriter, *http.Request) {}, withTLS)
	aborting := startEndpoint(t, abort, withHTTP2)
	closed := startEndpoint(t, func(http.ResponseWriter, *http.Request) {}, plain)
	closed.Close()
	const ok = "HTTP/1.1 200 OK\r\n"
	const chunked = "Transfer-Encoding: chunked\r\n\r\n"
	const upgrade = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
	trusting, trustless := newTransport(t, aborting), newTransport(t)
	cases := map[string]struct {
		url    string
		status int
		want   Reason
	}{
		"nobody listens":             {closed.url(), 0, ReasonRefused},
		"a name without address":     {"https://nowhere.invalid/?" + secretQuery, 0, ReasonDNS},
		"a private address":          {"https://10.1.2.3/?" + secretQuery, 0, ReasonEgressDenied},
		"an unknown authority":       {untrusted.url(), 0, ReasonTLS},
		"https to an http port":      {strings.Replace(startRaw(t, says("")), "http:", "https:", 1), 0, ReasonTLS},
		"closed without an answer":   {startRaw(t, says("")), 0, ReasonReset},
		"reset":                      {startRaw(t, reset), 0, ReasonReset},
		"closed within the headers":  {startRaw(t, says("HTTP/1.1 200 OK\r\nX: y\r\n")), 0, ReasonReset},
		"an HTTP/2 stream reset":     {aborting.url(), 0, ReasonReset},
		"closed within the body":     {startRaw(t, says(ok+"Content-Length: 9\r\n\r\nabc")), 200, ReasonTruncated},
		"a broken chunk":             {startRaw(t, says(ok+chunked+"zz\r\n")), 200, ReasonTruncated},
		"half an answer, then reset": {startRaw(t, halfThenReset), 200, ReasonTruncated},
		"an error that breaks off":   {startRaw(t, says("HTTP/1.1 500 No\r\nContent-Length: 9\r\n\r\nabc")), 500, ReasonServerError},
		"not HTTP":                   {startRaw(t, says("220 mail.test ESMTP\r\n")), 0, ReasonInvalidResponse},
		"a status that is no number": {startRaw(t, says("HTTP/1.1 abc OK\r\n\r\n")), 0, ReasonInvalidResponse},
		"headers beyond the limit":   {startRaw(t, says("HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", 100<<10)+"\r\n\r\n")), 0, ReasonInvalidResponse},
		"another protocol":           {startRaw(t, saysAndStays(upgrade)), 101, ReasonUnexpectedStatus},
		"a status of another world":  {startRaw(t, says("HTTP/1.1 999 No\r\nContent-Length: 0\r\n\r\n")), 999, ReasonUnexpectedStatus},
		"a URL that is none":         {"https://%zz/?" + secretQuery, 0, ReasonInvalidRequest},
		"a URL without a host":       {"https:///?" + secretQuery, 0, ReasonInvalidRequest},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			transport := trusting
			if c.want == ReasonTLS {
				transport = trustless
			}
			got := NewSender(transport, "dev").Send(t.Context(), testRoute(c.url), testLease(1))
			if reason := Classify(got).Reason; got.StatusCode != c.status || reason != c.want {
				t.Errorf("status %d, reason %q; want %d, %q (%v)", got.StatusCode, reason, c.status, c.want, got.Err)
			}
			if got.Duration > 5*time.Second {
				t.Errorf("it took %v, as long as the timeout", got.Duration)
			}
			s := settlementOf(testLease(1), briefRetry, got, 0)
			if s.Error == "" || len(s.Error) > maxError {
				t.Errorf("error text %q", s.Error)
			}
			wantNoSecret(t, s.Error)
		})
	}
}

func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
}

func halfThenReset(conn net.Conn) {
	says("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")(conn)
	reset(conn)
}

func wantNoSecret(t *testing.T, text string) {
	t.Helper()
	for _, secret := range []string{secretKey, secretHeader, "hunter2", secretQuery, "s3cr3t"} {
		if strings.Contains(text, secret) {
			t.Errorf("%q shows %q", text, secret)
		}
	}
}

func TestAnEndpointThatEchoesTheRequestLeaksNothing(t *testing.T) {
	echo := startRaw(t, says("POST /hooks?"+secretQuery+" HTTP/1.1\r\nAuthorization: "+secretHeader+"\r\n\r\n"))
	got := NewSender(newTransport(t), "dev").Send(t.Context(), testRoute(echo), testLease(1))
	s := settlementOf(testLease(1), briefRetry, got, 0)
	if s.Reason != string(ReasonInvalidResponse) {
		t.Errorf("reason %q", s.Reason)
	}
	wantNoSecret(t, s.Error)
}

func TestAHeaderThatIsNoneIsNotSent(t *testing.T) {
	e := startEndpoint(t, func(http.ResponseWriter, *http.Request) {}, plain)
	for name, header := range map[string]routing.Header{
		"a value with a line feed": {Name: "Authorization", Value: secretHeader + "\nX-Evil: 1", Secret: true},
		"a name with a space":      {Name: "X Y", Value: "1"},
	} {
		t.Run(name, func(t *testing.T) {
			route := testRoute(e.url())
			route.Headers = []routing.Header{header}
			got := NewSender(newTransport(t), "dev").Send(t.Context(), route, testLease(1))
			s := settlementOf(testLease(1), briefRetry, got, 0)
			if s.Reason != string(ReasonInvalidRequest) || !strings.Contains(s.Error, header.Name) {
				t.Errorf("settlement: reason %q, error %q", s.Reason, s.Error)
			}
			wantNoSecret(t, s.Error)
		})
	}
	if e.connections.Load() != 0 {
		t.Error("something was sent")
	}
}

func TestAnAnswerBeforeTheEndOfTheRequestCounts(t *testing.T) {
	e := startEndpoint(t, func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		_ = control.EnableFullDuplex()
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		_ = control.Flush()
		_, _ = io.Copy(io.Discard, r.Body)
	}, plain)
	lease := testLease(1)
	lease.Body = bytes.Repeat([]byte("x"), 16<<20)
	got := NewSender(newTransport(t), "dev").Send(t.Context(), testRoute(e.url()), lease)
	if got.StatusCode != http.StatusRequestEntityTooLarge || Classify(got).Reason != ReasonClientError {
		t.Errorf("status %d, reason %q: %v", got.StatusCode, Classify(got).Reason, got.Err)
	}
}

func TestSentAgoIsFromWhenTheRequestWasWritten(t *testing.T) {
	const held = 150 * time.Millisecond
	arrived := make(chan time.Time, 1)
	e := startEndpoint(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		arrived <- time.Now()
		<-time.After(held)
	}, plain)
	before := time.Now()
	got := NewSender(newTransport(t), "dev").Send(t.Context(), testRoute(e.url()), testLease(1))
	sent := got.Ended.Add(-got.SentAgo)
	if !got.Sent || got.SentAgo < held || sent.Before(before) || sent.After((<-arrived).Add(held/2)) {
		t.Errorf("sent %v, %v ago", got.Sent, got.SentAgo)
	}
}

func TestWhatWasNotWrittenHasNoTime(t *testing.T) {
	got := NewSender(newTransport(t), "dev").Send(t.Context(), testRoute("https://10.0.0.1/"), testLease(1))
	if got.Sent || got.SentAgo != 0 {
		t.Errorf("sent %v, %v ago", got.Sent, got.SentAgo)
	}
}

func TestACancelledAttemptIsAShutdown(t *testing.T) {
	arrived := make(chan struct{}, 1)
	e := startEndpoint(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		arrived <- struct{}{}
		<-r.Context().Done()
	}, plain)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	got := NewSender(newTransport(t), "dev").Send(ctx, testRoute(e.url()), testLease(1))
	if Classify(got).Reason != ReasonShutdown {
		t.Errorf("exchange: %+v", got)
	}
}

func TestACancelledAttemptOnAConnectionThatServedBeforeIsAShutdown(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var requests atomic.Int32
	e := startEndpoint(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if requests.Add(1) == 3 {
			cancel()
			<-r.Context().Done()
		}
	}, plain)
	sender := NewSender(newTransport(t), "dev")
	for attempt := 1; attempt <= 2; attempt++ {
		if got := sender.Send(ctx, testRoute(e.url()), testLease(attempt)); got.Err != nil {
			t.Fatal(got.Err)
		}
	}
	got := sender.Send(ctx, testRoute(e.url()), testLease(3))
	if Classify(got).Reason != ReasonShutdown || !got.Reused || got.Duration > 5*time.Second {
		t.Errorf("exchange: %+v", got)
	}
}

func TestTheTimeoutBindsATransportThatKnowsOnlyContexts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport := roundTrip(func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		})
		route := testRoute("https://endpoint.test/")
		got := NewSender(transport, "dev").Send(t.Context(), route, testLease(1))
		if Classify(got).Reason != ReasonTimeout || got.Duration != route.Timeout {
			t.Errorf("exchange: %+v", got)
		}
	})
}

func TestRunningOutOfDescriptorsCostsNoAttempt(t *testing.T) {
	transport := roundTrip(func(*http.Request) (*http.Response, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("socket", syscall.EMFILE)}
	})
	got := NewSender(transport, "dev").Send(t.Context(), testRoute("https://endpoint.test/"), testLease(9))
	s := settlementOf(testLease(9), briefRetry, got, 0)
	if s.RetryAfter != time.Second || s.Reason != string(ReasonLocalLimit) {
		t.Errorf("settlement: %+v", s)
	}
}

func BenchmarkSend(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	b.Cleanup(server.Close)
	lease := testLease(1)
	lease.Body = bytes.Repeat([]byte("x"), 1024)
	route := testRoute(server.URL)
	sender := NewSender(newTransport(b), "dev")
	b.ReportAllocs()
	for b.Loop() {
		if e := sender.Send(b.Context(), route, lease); e.Err != nil {
			b.Fatal(e.Err)
		}
	}
}

// BenchmarkSendAlone leaves out the client and the server: what is ours of an attempt.
func BenchmarkSendAlone(b *testing.B) {
	lease := testLease(1)
	lease.Body = bytes.Repeat([]byte("x"), 1024)
	route := testRoute("https://endpoint.test/hooks")
	sender := NewSender(roundTrip(func(req *http.Request) (*http.Response, error) {
		_, err := io.Copy(io.Discard, req.Body)
		return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, err
	}), "dev")
	b.ReportAllocs()
	for b.Loop() {
		if e := sender.Send(b.Context(), route, lease); e.Err != nil {
			b.Fatal(e.Err)
		}
	}
}
