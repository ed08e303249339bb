// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package delivery sends what the queue leases: it signs, sends, classifies what came of it and settles.
//
// It promises one request per lease at most, none after the lease's deadline, none beyond the pool's bounds, the same
// body on every attempt, and one settlement for every lease it took, also when it is stopped. What an outcome means is
// decided by pure functions (Classify, Backoff). Neither logs nor errors hold secrets or the query of a URL.
//
// It must not know where leases come from, how a subscription becomes a route, nor anything of Kubernetes or Redis.
package delivery

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/http2"

	"nexus.io/webhooks/internal/dispatcher/egress"
	"nexus.io/webhooks/internal/dispatcher/queue"
)

// Reason says why an attempt did not succeed. The set is closed: it labels metrics and is kept with the statistics.
type Reason string

// The reasons. ReasonNone is that of a success.
const (
	ReasonNone             Reason = ""
	ReasonGone             Reason = queue.ReasonGone    // 410: the endpoint wants no more
	ReasonRedirect         Reason = "redirect"          // 3xx, which is not followed
	ReasonThrottled        Reason = "throttled"         // 429
	ReasonClientError      Reason = "client_error"      // any other 4xx
	ReasonServerError      Reason = "server_error"      // 5xx
	ReasonUnexpectedStatus Reason = "unexpected_status" // a status that ends no exchange, or that HTTP does not know
	ReasonTimeout          Reason = "timeout"           // of the connection, the answer or its body
	ReasonDNS              Reason = "dns"               // the URL's name does not resolve
	ReasonRefused          Reason = "connection_refused"
	ReasonUnreachable      Reason = "unreachable" // no route to the address
	ReasonReset            Reason = "connection_reset"
	ReasonTLS              Reason = "tls"                    // the handshake failed
	ReasonEgressDenied     Reason = queue.ReasonEgressDenied // the policy forbids the address
	ReasonInvalidRequest   Reason = "invalid_request"        // the route's URL or headers make no request
	ReasonInvalidResponse  Reason = "invalid_response"       // not HTTP, or headers beyond the limit
	ReasonTruncated        Reason = "truncated_response"     // a 2xx whose body broke off
	ReasonLocalLimit       Reason = "local_limit"            // this process ran out of descriptors, ports or memory
	ReasonShutdown         Reason = "shutdown"               // cut off because this process stops
	ReasonUnknown          Reason = "unknown"
)

// Reasons returns the whole set but ReasonNone.
func Reasons() []Reason {
	return []Reason{
		ReasonGone, ReasonRedirect, ReasonThrottled, ReasonClientError, ReasonServerError, ReasonUnexpectedStatus,
		ReasonTimeout, ReasonDNS, ReasonRefused, ReasonUnreachable, ReasonReset, ReasonTLS, ReasonEgressDenied,
		ReasonInvalidRequest, ReasonInvalidResponse, ReasonTruncated, ReasonLocalLimit, ReasonShutdown, ReasonUnknown,
	}
}

// Exchange is what came of one attempt.
type Exchange struct {
	StatusCode int    // 0 where there was no answer
	RetryAfter string // the header of that name
	Body       []byte // the first maxSnippet bytes of the answer's body
	Err        error  // nil if the answer was read to its end or to the bound

	// Header are the headers as they were sent, those from Secrets too; nil where no request could be made.
	Header        http.Header
	Reused        bool   // the connection had carried a request before
	RemoteAddress string // host:port of the connection, "" where there was none

	Started  time.Time
	Ended    time.Time
	Duration time.Duration // from before the connection to the end of the answer
	// Sent tells whether the whole request was written; SentAgo is how long before Ended that was.
	Sent    bool
	SentAgo time.Duration
}

// Verdict is what an exchange means for its delivery.
type Verdict struct {
	Result queue.Result
	Reason Reason
	// RetryAfter is for how long the endpoint asked to be left alone, 0 if it did not. With Release, the time to wait.
	RetryAfter time.Duration
}

// releaseDelay is how long a delivery that could not be sent for a reason of ours waits before the next look.
const releaseDelay = time.Second

// Classify is total: every exchange has a verdict. 2xx, read to its end, is a success; 410 ends the delivery; whatever
// else came is tried again by the schedule. The status decides where there is one, unless it is a success that broke
// off. An attempt that failed for want of our own resources does not count.
func Classify(e Exchange) Verdict {
	switch {
	case isSuccess(e.StatusCode) && e.Err == nil:
		return Verdict{Result: queue.Done}
	case e.StatusCode == http.StatusGone:
		return Verdict{Result: queue.Fail, Reason: ReasonGone}
	case e.StatusCode == 0 || isSuccess(e.StatusCode):
		return classifyError(e)
	default:
		return Verdict{Result: queue.Retry, Reason: reasonOfStatus(e.StatusCode), RetryAfter: requestedDelay(e)}
	}
}

func isSuccess(status int) bool { return status >= 200 && status <= 299 }

func reasonOfStatus(status int) Reason {
	switch {
	case status == http.StatusTooManyRequests:
		return ReasonThrottled
	case status >= 300 && status <= 399:
		return ReasonRedirect
	case status >= 400 && status <= 499:
		return ReasonClientError
	case status >= 500 && status <= 599:
		return ReasonServerError
	default:
		return ReasonUnexpectedStatus
	}
}

func classifyError(e Exchange) Verdict {
	reason := reasonOfError(e)
	if reason == ReasonLocalLimit {
		return Verdict{Result: queue.Release, Reason: reason, RetryAfter: releaseDelay}
	}
	return Verdict{Result: queue.Retry, Reason: reason}
}

// errorKinds are looked through in order: an error may be of several kinds, and the first tells most.
var errorKinds = []struct {
	reason Reason
	is     func(error) bool
}{
	{ReasonEgressDenied, hasType[*egress.DeniedError]},
	{ReasonInvalidRequest, hasType[*RequestError]},
	{ReasonShutdown, isAny(context.Canceled)},
	{ReasonLocalLimit, isAny(syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL)},
	{ReasonDNS, hasType[*net.DNSError]},
	{ReasonTimeout, isTimeout},
	{ReasonTLS, hasType[*egress.HandshakeError]},
	{ReasonRefused, isAny(syscall.ECONNREFUSED)},
	{ReasonUnreachable, isAny(syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.ENETDOWN)},
	{ReasonReset, isAny(syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE, net.ErrClosed)},
	{ReasonReset, isAny(io.EOF, io.ErrUnexpectedEOF)},
	{ReasonReset, hasType[http2.StreamError]}, // net/http's own type converts itself to this one
}

// reasonOfError finds the kind of e.Err. net/http gives no type to its complaints about an answer, so what has no kind
// is one of those if the request was written.
func reasonOfError(e Exchange) Reason {
	reason := ReasonUnknown
	for _, kind := range errorKinds {
		if kind.is(e.Err) {
			reason = kind.reason
			break
		}
	}
	switch {
	case e.StatusCode != 0 && (reason == ReasonReset || reason == ReasonUnknown):
		return ReasonTruncated
	case e.Sent && reason == ReasonUnknown:
		return ReasonInvalidResponse
	default:
		return reason
	}
}

func hasType[T error](err error) bool {
	_, ok := errors.AsType[T](err)
	return ok
}

func isAny(targets ...error) func(error) bool {
	return func(err error) bool {
		for _, target := range targets {
			if errors.Is(err, target) {
				return true
			}
		}
		return false
	}
}

func isTimeout(err error) bool {
	network, ok := errors.AsType[net.Error](err)
	return ok && network.Timeout() || errors.Is(err, context.DeadlineExceeded)
}

// requestedDelay is what Retry-After asks for where it has a meaning: with 429 and 503.
func requestedDelay(e Exchange) time.Duration {
	if e.StatusCode != http.StatusTooManyRequests && e.StatusCode != http.StatusServiceUnavailable {
		return 0
	}
	return parseRetryAfter(e.RetryAfter, e.Ended)
}

// parseRetryAfter reads seconds or an HTTP date (RFC 9110, 10.2.3), which counts from now. What is neither, or past,
// is 0. The result is never negative.
func parseRetryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if value == "" {
		return 0
	}
	if strings.Trim(value, "0123456789") == "" {
		const most = uint64(math.MaxInt64 / time.Second)
		seconds, err := strconv.ParseUint(value, 10, 64)
		if err != nil || seconds > most {
			seconds = most // too many digits is still a number, and a large one
		}
		return time.Duration(seconds) * time.Second //nolint:gosec // at most as many as a Duration holds
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return max(0, at.Sub(now))
}
