// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"

	"nexus.io/webhooks/internal/dispatcher/egress"
	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/routing"
	"nexus.io/webhooks/internal/signing"
)

const (
	// maxDrained bounds how much of an answer is read, in bytes: what ends before it leaves a connection that can be
	// used again, what does not is cut off.
	maxDrained = 64 << 10
	// maxSnippet bounds how much of an answer is kept, in bytes.
	maxSnippet = 1000
)

// Sender makes single attempts.
type Sender struct {
	transport http.RoundTripper
	userAgent string
}

// identified is a transport that can make its https connections as a route asks.
type identified interface {
	As(identity egress.Identity) http.RoundTripper
}

// punctual is a transport that takes the deadline beside the request: a context for each attempt would cost more.
type punctual interface {
	RoundTripBefore(req *http.Request, deadline time.Time) (*http.Response, error)
}

// NewSender returns a Sender that sends by transport and calls itself Nexus-Webhook/version. The transport must not
// follow redirects. What a route's TLS asks for takes an egress.Transport: no other sends for such a route.
func NewSender(transport http.RoundTripper, version string) *Sender {
	return &Sender{transport: transport, userAgent: "Nexus-Webhook/" + version}
}

// RequestError reports that a route makes no valid request. It names the part and shows nothing of its value.
type RequestError struct {
	Part string
}

func (e *RequestError) Error() string { return "the subscription's " + e.Part + " cannot be sent" }

// Send makes one attempt and returns what came of it. It ends within the route's timeout, which covers everything from
// the connection to the last byte of the answer, or when ctx ends. The route must have a key.
func (s *Sender) Send(ctx context.Context, route *routing.Route, lease queue.Lease) Exchange {
	started := time.Now()
	e := Exchange{Started: started}
	clock := newSendClock(started)
	req, err := s.request(httptrace.WithClientTrace(ctx, &clock.trace), route, lease)
	transport := s.transport
	if err == nil && route.TLS != nil {
		transport, err = s.transportAs(route.TLS)
	}
	if err != nil {
		e.Err = err
	} else {
		e.Header = req.Header
		exchange(transport, req, started.Add(route.Timeout), &e)
	}
	if c := clock.connection.Load(); c != nil {
		e.Reused, e.RemoteAddress = c.reused, c.remote
	}
	e.Ended = time.Now()
	e.Duration = e.Ended.Sub(started)
	e.SentAgo, e.Sent = clock.ago(e.Ended)
	return e
}

// transportAs makes connections by the authorities and the certificate of a route.
func (s *Sender) transportAs(asked *routing.TLS) (http.RoundTripper, error) {
	transport, ok := s.transport.(identified)
	if !ok {
		return nil, &RequestError{Part: "tls"}
	}
	return transport.As(egress.Identity{ID: asked.ID, RootCAs: asked.RootCAs, Certificate: asked.Certificate}), nil
}

func exchange(transport http.RoundTripper, req *http.Request, deadline time.Time, e *Exchange) {
	send := transport.RoundTrip
	if t, ok := transport.(punctual); ok {
		send = func(req *http.Request) (*http.Response, error) { return t.RoundTripBefore(req, deadline) }
	} else {
		ctx, cancel := context.WithDeadline(req.Context(), deadline)
		defer cancel()
		req = req.WithContext(ctx)
	}
	res, err := send(req)
	if err != nil {
		e.Err = err
		return
	}
	e.StatusCode = res.StatusCode
	e.RetryAfter = res.Header.Get("Retry-After")
	if res.StatusCode != http.StatusSwitchingProtocols { // whose body is the connection, and has no end
		e.Body, e.Err = drain(res.Body)
	}
	_ = res.Body.Close() // nothing is left to be lost
}

func (s *Sender) request(ctx context.Context, route *routing.Route, lease queue.Lease) (*http.Request, error) {
	if route.Endpoint == nil {
		return nil, &RequestError{Part: "url"}
	}
	header, err := s.header(route, lease, time.Now())
	if err != nil {
		return nil, err
	}
	body := lease.Body // GetBody would keep the whole lease
	template := http.Request{
		Method:        http.MethodPost,
		URL:           route.Endpoint.URL,
		Host:          route.Endpoint.Host,
		Header:        header,
		Body:          inMemory(body),
		ContentLength: int64(len(body)),
		// Lets the transport send again what it could not write because a kept connection had just been closed.
		GetBody: func() (io.ReadCloser, error) { return inMemory(body), nil },
	}
	return template.WithContext(ctx), nil
}

// header builds the request's headers; ours win over the route's.
func (s *Sender) header(route *routing.Route, lease queue.Lease, now time.Time) (http.Header, error) {
	const own = 7
	header := make(http.Header, len(route.Headers)+own)
	values := make([]string, 0, len(route.Headers)+own)
	set := func(name, value string) {
		values = append(values, value)
		header[name] = values[len(values)-1 : len(values) : len(values)]
	}
	for _, h := range route.Headers {
		if !httpguts.ValidHeaderFieldName(h.Name) || !httpguts.ValidHeaderFieldValue(h.Value) {
			return nil, &RequestError{Part: "header " + strconv.Quote(h.Name)}
		}
		set(http.CanonicalHeaderKey(h.Name), h.Value)
	}
	timestamp := signing.Timestamp(now)
	set("Content-Type", "application/json")
	set("User-Agent", s.userAgent)
	set("X-Nexus-Event", lease.EventType)
	set("X-Nexus-Delivery", lease.DeliveryID)
	set("X-Nexus-Timestamp", timestamp)
	first, second := keysFor(route.Keys, lease.Attempt)
	set("X-Nexus-Signature-256", signing.Sign(first, timestamp, lease.Body))
	if second != nil {
		set("X-Nexus-Signature-256-Alt", signing.Sign(second, timestamp, lease.Body))
	}
	return header, nil
}

// keysFor picks the keys for the two signature headers. While a rotated-out key is still valid they take turns, so that
// a consumer that knows one key and one header accepts the delivery at the latest on its retry.
func keysFor(keys [][]byte, attempt int) (first, second []byte) {
	switch {
	case len(keys) == 1:
		return keys[0], nil
	case attempt%2 == 1:
		return keys[0], keys[1]
	default:
		return keys[1], keys[0]
	}
}

// sendClock holds when a request was written, and over which connection.
type sendClock struct {
	trace   httptrace.ClientTrace // by which it learns of them
	started time.Time
	after   atomic.Int64 // nanoseconds from started until then, 0 while it was not

	connection atomic.Pointer[connection] // that the request went over, nil while there is none
}

type connection struct {
	remote string
	reused bool
}

func newSendClock(started time.Time) *sendClock {
	c := &sendClock{started: started}
	c.trace.WroteRequest, c.trace.GotConn = c.stop, c.connected
	return c
}

func (c *sendClock) connected(info httptrace.GotConnInfo) {
	got := &connection{reused: info.Reused}
	if address := info.Conn.RemoteAddr(); address != nil {
		got.remote = address.String()
	}
	c.connection.Store(got)
}

// stop notes that the request was written, or broke off after a part of it may have gone out.
func (c *sendClock) stop(httptrace.WroteRequestInfo) {
	c.after.Store(max(1, int64(time.Since(c.started))))
}

// ago returns how long before now the request was written, and whether it was.
func (c *sendClock) ago(now time.Time) (time.Duration, bool) {
	after := c.after.Load()
	if after == 0 {
		return 0, false
	}
	return max(0, now.Sub(c.started)-time.Duration(after)), true
}

// inMemory is a body of a kind that the transport knows to be at hand, so that it writes headers and body at once.
func inMemory(body []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(body)) }

var buffers = sync.Pool{New: func() any { return new([4096]byte) }}

// drain reads body to its end or to maxDrained, and returns a copy of the first maxSnippet bytes. Reaching the bound is
// no error.
func drain(body io.Reader) (snippet []byte, err error) {
	buffer, _ := buffers.Get().(*[4096]byte)
	defer buffers.Put(buffer)
	for total := 0; total <= maxDrained; {
		n, err := body.Read(buffer[:])
		if missing := maxSnippet - len(snippet); missing > 0 && n > 0 {
			snippet = append(snippet, buffer[:min(n, missing)]...)
		}
		total += n
		if errors.Is(err, io.EOF) {
			return snippet, nil
		}
		if err != nil {
			return snippet, fmt.Errorf("read the answer's body: %w", err)
		}
	}
	return snippet, nil
}
