// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package egress

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"strings"
	"testing"
	"time"
)

// punctual is what a Transport is, with an identity or without.
type punctual interface {
	RoundTripBefore(req *http.Request, deadline time.Time) (*http.Response, error)
}

// sendBefore sends a body with a context that other requests may have too.
func sendBefore(ctx context.Context, transport punctual, url, body string, within time.Duration) (
	answer string, reused bool, err error,
) {
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return "", false, err
	}
	res, err := transport.RoundTripBefore(req, time.Now().Add(within))
	if err != nil {
		return "", reused, err
	}
	text, err := io.ReadAll(res.Body)
	return string(text), reused, errors.Join(err, res.Body.Close())
}

const inTime = 20 * time.Second

// startStalling answers the first request and stalls at the second, of which it tells, after it has said begun.
func startStalling(t *testing.T, begun string) (url string, stalled <-chan struct{}) {
	t.Helper()
	arrived := make(chan struct{}, 1)
	return startScripted(t, func(before int) string {
		if before == 0 {
			return ok
		}
		arrived <- struct{}{}
		if begun == "" {
			<-t.Context().Done()
		}
		return begun
	}), arrived
}

const halfAnAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"

func TestADeadlineBesideTheRequestCoversTheWholeExchange(t *testing.T) {
	small, large := "{}", strings.Repeat("x", maxDirectBody+1)
	cases := map[string]struct{ begun, body string }{
		"no answer":                    {"", small},
		"half an answer":               {halfAnAnswer, small},
		"no answer to a large body":    {"", large},
		"half of one to a large body":  {halfAnAnswer, large},
		"only what comes before it":    {"HTTP/1.1 103 Early Hints\r\n\r\n", small},
		"a header without an end":      {"HTTP/1.1 200 OK\r\nX: ", small},
		"chunks of which one is short": {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nok", small},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			url, _ := startStalling(t, c.begun)
			transport := startTransport(t, toLoopback(t))
			if _, _, err := sendBefore(t.Context(), transport, url, c.body, inTime); err != nil {
				t.Fatal(err)
			}
			wantDeadline(t, func(within time.Duration) (bool, error) {
				_, reused, err := sendBefore(t.Context(), transport, url, c.body, within)
				return reused, err
			})
		})
	}
}

// wantDeadline wants a request on a connection that served before to end with its time.
func wantDeadline(t *testing.T, send func(within time.Duration) (reused bool, err error)) {
	t.Helper()
	const within = 100 * time.Millisecond
	began := time.Now()
	reused, err := send(within)
	if !errors.Is(err, context.DeadlineExceeded) || !reused {
		t.Errorf("%v, reused %v", err, reused)
	}
	if took := time.Since(began); took < within || took > inTime/2 {
		t.Errorf("it took %v", took)
	}
}

func TestADeadlineBesideTheRequestCoversTheConnection(t *testing.T) {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0") // accepts and says nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	transport := startTransport(t, toLoopback(t))
	identified, _ := transport.As(Identity{ID: "1"}).(punctual)
	for name, transport := range map[string]punctual{"no identity": transport, "an identity": identified} {
		t.Run(name, func(t *testing.T) {
			const within = 100 * time.Millisecond
			began := time.Now()
			_, _, err := sendBefore(t.Context(), transport, "https://"+listener.Addr().String(), "{}", within)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			if took := time.Since(began); took < within || took > handshakeTimeout/2 {
				t.Errorf("it took %v", took)
			}
		})
	}
}

func TestTheEarlierOfTwoDeadlinesCounts(t *testing.T) {
	url, _ := startStalling(t, "")
	transport := startTransport(t, toLoopback(t))
	if _, _, err := sendTraced(t, transport, url); err != nil {
		t.Fatal(err)
	}
	wantDeadline(t, func(within time.Duration) (bool, error) {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		_, reused, err := sendBefore(ctx, transport, url, "{}", inTime)
		return reused, err
	})
}

func TestADeadlineThatPassedDoesNotEndTheNextExchange(t *testing.T) {
	url := startScripted(t, func(int) string { return ok })
	transport := startTransport(t, toLoopback(t))
	const within = 200 * time.Millisecond
	began := time.Now()
	if _, _, err := sendBefore(t.Context(), transport, url, "{}", within); err != nil {
		t.Fatal(err)
	}
	<-time.After(within - time.Since(began) + time.Millisecond)
	if body, reused, err := sendBefore(t.Context(), transport, url, "{}", inTime); body != "ok" || err != nil || !reused {
		t.Errorf("%q, %v, reused %v", body, err, reused)
	}
}

func TestTheEndOfASharedContextEndsTheExchange(t *testing.T) {
	for name, begun := range map[string]string{"without an answer": "", "within an answer": halfAnAnswer} {
		t.Run(name, func(t *testing.T) {
			url, stalled := startStalling(t, begun)
			transport := startTransport(t, toLoopback(t))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if _, _, err := sendBefore(ctx, transport, url, "{}", inTime); err != nil {
				t.Fatal(err)
			}
			go func() {
				<-stalled
				cancel()
			}()
			began := time.Now()
			_, reused, err := sendBefore(ctx, transport, url, "{}", inTime)
			if !errors.Is(err, context.Canceled) || !reused || time.Since(began) > inTime/2 {
				t.Errorf("%v, reused %v, after %v", err, reused, time.Since(began))
			}
			if _, _, err := sendBefore(ctx, transport, url, "{}", inTime); !errors.Is(err, context.Canceled) {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

func TestASharedContextThatEndedLetsNothingOut(t *testing.T) {
	url := startScripted(t, func(int) string { return ok })
	transport := startTransport(t, toLoopback(t))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if _, _, err := sendBefore(ctx, transport, url, "{}", inTime); err != nil {
		t.Fatal(err)
	}
	cancel()
	p, _ := transport.plain.direct.peers.find(strings.Trim(strings.TrimPrefix(url, "http:"), "/"))
	_, err := p.idle[0].Conn.Read(make([]byte, 1)) // returns once the watch ran
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	if _, _, err := sendBefore(ctx, transport, url, "{}", inTime); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestAConnectionWhoseSharedContextEndedServesNobodyElse(t *testing.T) {
	next := map[string]func(*testing.T, *Transport, string) (string, bool, error){
		"a context of its own": sendTraced,
		"another shared context": func(t *testing.T, transport *Transport, url string) (string, bool, error) {
			t.Helper()
			return sendBefore(t.Context(), transport, url, "{}", inTime)
		},
	}
	for name, send := range next {
		t.Run(name, func(t *testing.T) {
			url := startScripted(t, func(int) string { return ok })
			transport := startTransport(t, toLoopback(t))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if _, _, err := sendBefore(ctx, transport, url, "{}", inTime); err != nil {
				t.Fatal(err)
			}
			cancel()
			if body, reused, err := send(t, transport, url); body != "ok" || err != nil || reused {
				t.Errorf("%q, %v, reused %v", body, err, reused)
			}
		})
	}
}

func TestAContextOfItsOwnSpoilsNoConnection(t *testing.T) {
	url, stalled := startStalling(t, ok)
	transport := startTransport(t, toLoopback(t))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if _, _, err := sendBefore(ctx, transport, url, "{}", inTime); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		body, reused, err := sendTraced(t, transport, url)
		<-stalled
		if body != "ok" || err != nil || !reused {
			t.Errorf("with its own: %q, %v, reused %v", body, err, reused)
		}
		body, reused, err = sendBefore(ctx, transport, url, "{}", inTime)
		<-stalled
		if body != "ok" || err != nil || !reused {
			t.Errorf("with the shared one: %q, %v, reused %v", body, err, reused)
		}
	}
}

func TestTheEndOfASharedContextSparesAContextOfItsOwn(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	url := startScripted(t, func(before int) string {
		if before == 1 {
			cancel() // while the second exchange runs on the connection of the first
			<-time.After(50 * time.Millisecond)
		}
		return ok
	})
	transport := startTransport(t, toLoopback(t))
	if _, _, err := sendBefore(ctx, transport, url, "{}", inTime); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if body, reused, err := sendTraced(t, transport, url); body != "ok" || err != nil || !reused {
			t.Errorf("%q, %v, reused %v", body, err, reused)
		}
	}
}

// An attempt may take longer than an endpoint is remembered that nobody else uses.
func TestAConnectionThatNobodyWouldFindIsClosed(t *testing.T) {
	arrived, answer := make(chan struct{}), make(chan struct{})
	url := startScripted(t, func(int) string {
		close(arrived)
		<-answer
		return ok
	})
	transport := startTransport(t, toLoopback(t))
	sent := make(chan error, 1)
	go func() {
		_, _, err := sendBefore(t.Context(), transport, url, "{}", inTime)
		sent <- err
	}()
	<-arrived
	peers := transport.plain.direct.peers
	peers.mu.Lock()
	peers.sweep(time.Now().Add(idleTimeout))
	peers.mu.Unlock()
	close(answer)
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	peers.mu.Lock()
	defer peers.mu.Unlock()
	if idle, kept := peers.idle, peers.kept.used.Load(); idle != 0 || kept != 0 {
		t.Errorf("%d connections are kept, %d counted", idle, kept)
	}
}
