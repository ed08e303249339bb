// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	"nexus.io/webhooks/internal/dispatcher/egress"
	"nexus.io/webhooks/internal/dispatcher/queue"
)

var noon = time.Date(2025, 11, 30, 12, 0, 0, 0, time.UTC)

func TestEveryStatusHasItsVerdict(t *testing.T) {
	classes := map[int]Verdict{
		1: {Result: queue.Retry, Reason: "unexpected_status"},
		2: {Result: queue.Done},
		3: {Result: queue.Retry, Reason: "redirect"},
		4: {Result: queue.Retry, Reason: "client_error"},
		5: {Result: queue.Retry, Reason: "server_error"},
	}
	exceptions := map[int]Verdict{
		410: {Result: queue.Fail, Reason: "gone"},
		429: {Result: queue.Retry, Reason: "throttled", RetryAfter: time.Minute},
		503: {Result: queue.Retry, Reason: "server_error", RetryAfter: time.Minute},
	}
	for status := 100; status <= 599; status++ {
		want, special := exceptions[status]
		if !special {
			want = classes[status/100]
		}
		got := Classify(Exchange{StatusCode: status, RetryAfter: "60", Ended: noon})
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("status %d (-want +got):\n%s", status, diff)
		}
	}
}

func TestAStatusThatHTTPDoesNotKnowIsTriedAgain(t *testing.T) {
	for _, status := range []int{-1, 1, 99, 600, 999, math.MaxInt} {
		got := Classify(Exchange{StatusCode: status})
		if got.Result != queue.Retry || got.Reason != ReasonUnexpectedStatus {
			t.Errorf("status %d: %+v", status, got)
		}
	}
}

func TestTheStatusDecidesUnlessASuccessBrokeOff(t *testing.T) {
	for status, want := range map[int]Verdict{
		200: {Result: queue.Retry, Reason: ReasonTruncated},
		410: {Result: queue.Fail, Reason: ReasonGone},
		404: {Result: queue.Retry, Reason: ReasonClientError},
		503: {Result: queue.Retry, Reason: ReasonServerError, RetryAfter: 7 * time.Second},
	} {
		got := Classify(Exchange{StatusCode: status, RetryAfter: "7", Err: io.ErrUnexpectedEOF})
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("status %d with a broken body (-want +got):\n%s", status, diff)
		}
	}
}

// The kinds that a real server can make are in TestEachErrorKindByRealServers as well.
func TestEveryErrorKindHasItsReason(t *testing.T) {
	dial := func(err error) error {
		return &url.Error{Op: "Post", URL: "https://u:p@h/?q", Err: &net.OpError{Op: "dial", Net: "tcp", Err: err}}
	}
	call := func(errno syscall.Errno) error { return dial(os.NewSyscallError("connect", errno)) }
	cases := map[string]struct {
		err  error
		want Reason
	}{
		"egress denied":            {dial(&egress.DeniedError{Address: netip.IPv6Loopback()}), ReasonEgressDenied},
		"no such name":             {dial(&net.DNSError{Name: "h", IsNotFound: true}), ReasonDNS},
		"a name server's timeout":  {dial(&net.DNSError{Name: "h", IsTimeout: true}), ReasonDNS},
		"the deadline":             {fmt.Errorf("wrapped: %w", context.DeadlineExceeded), ReasonTimeout},
		"a connect that timed out": {call(syscall.ETIMEDOUT), ReasonTimeout},
		"a handshake's timeout":    {&egress.HandshakeError{Err: context.DeadlineExceeded}, ReasonTimeout},
		"a read that timed out":    {os.ErrDeadlineExceeded, ReasonTimeout},
		"an unknown authority":     {&egress.HandshakeError{Err: x509.UnknownAuthorityError{}}, ReasonTLS},
		"EOF in the handshake":     {&egress.HandshakeError{Err: io.EOF}, ReasonTLS},
		"refused":                  {call(syscall.ECONNREFUSED), ReasonRefused},
		"host unreachable":         {call(syscall.EHOSTUNREACH), ReasonUnreachable},
		"network unreachable":      {call(syscall.ENETUNREACH), ReasonUnreachable},
		"reset":                    {call(syscall.ECONNRESET), ReasonReset},
		"broken pipe":              {call(syscall.EPIPE), ReasonReset},
		"closed":                   {dial(net.ErrClosed), ReasonReset},
		"EOF":                      {fmt.Errorf("transport: %w", io.EOF), ReasonReset},
		"an HTTP/2 stream reset":   {http2.StreamError{Code: http2.ErrCodeInternal}, ReasonReset},
		"no descriptors":           {call(syscall.EMFILE), ReasonLocalLimit},
		"no ports":                 {call(syscall.EADDRNOTAVAIL), ReasonLocalLimit},
		"cut off":                  {dial(context.Canceled), ReasonShutdown},
		"no request":               {&RequestError{Part: "url"}, ReasonInvalidRequest},
		"something else":           {errors.New("?"), ReasonUnknown},
		"nothing at all":           {nil, ReasonUnknown},
	}
	seen := map[Reason]bool{}
	for name, c := range cases {
		seen[c.want] = true
		t.Run(name, func(t *testing.T) {
			want := Verdict{Result: queue.Retry, Reason: c.want}
			if c.want == ReasonLocalLimit {
				want.Result, want.RetryAfter = queue.Release, time.Second
			}
			if diff := cmp.Diff(want, Classify(Exchange{Err: c.err})); diff != "" {
				t.Errorf("verdict (-want +got):\n%s", diff)
			}
		})
	}
	for _, kind := range errorKinds {
		if !seen[kind.reason] {
			t.Errorf("no case for %s", kind.reason)
		}
	}
}

func TestReasonsIsTheWholeSet(t *testing.T) {
	listed := map[Reason]bool{}
	for _, reason := range Reasons() {
		if listed[reason] || reason == ReasonNone {
			t.Errorf("reason %q is listed twice or is none", reason)
		}
		listed[reason] = true
	}
	for _, kind := range errorKinds {
		if !listed[kind.reason] {
			t.Errorf("reason %q of an error is not listed", kind.reason)
		}
	}
	for status := range 700 {
		if reason := Classify(Exchange{StatusCode: status}).Reason; reason != ReasonNone && !listed[reason] {
			t.Errorf("reason %q of status %d is not listed", reason, status)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	cases := map[string]time.Duration{
		"0":                              0,
		"120":                            2 * time.Minute,
		" 7 ":                            7 * time.Second,
		"007":                            7 * time.Second,
		"Sun, 30 Nov 2025 12:01:30 GMT":  90 * time.Second,
		"Sunday, 30-Nov-25 12:00:05 GMT": 5 * time.Second,
		"Sun Nov 30 12:00:05 2025":       5 * time.Second,
		"Sun, 30 Nov 2025 11:59:00 GMT":  0,
		"99999999999999999999999999":     math.MaxInt64 / time.Second * time.Second,
		"":                               0,
		"-5":                             0,
		"+5":                             0,
		"5.5":                            0,
		"5s":                             0,
		"soon":                           0,
		"٥":                              0,
	}
	for value, want := range cases {
		t.Run(value, func(t *testing.T) {
			if got := parseRetryAfter(value, noon); got != want {
				t.Errorf("%v, want %v", got, want)
			}
		})
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, value := range []string{"0", "120", "-1", "Sun, 30 Nov 2025 12:01:30 GMT", "99999999999999999999", "x"} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		delay := parseRetryAfter(value, noon)
		if delay < 0 {
			t.Fatalf("%q gives %v", value, delay)
		}
		if later := parseRetryAfter(value, noon.Add(time.Hour)); later > delay {
			t.Fatalf("%q gives %v, an hour later %v", value, delay, later)
		}
	})
}

func FuzzTidy(f *testing.F) {
	f.Add("plain")
	f.Add(strings.Repeat("ü", 200))
	f.Add("a\nb\x00\xff")
	f.Fuzz(func(t *testing.T, text string) {
		got := tidy(text)
		if len(got) > maxError || !utf8.ValidString(got) || strings.ContainsAny(got, "\n\r\x00\x1b") {
			t.Fatalf("tidy(%q) = %q", text, got)
		}
	})
}
