// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"nexus.io/webhooks/internal/program"
)

// serve starts a real listener and returns its address.
func (f *fixture) serve(t *testing.T, l program.ServerLimits) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := program.NewServer(f.handler, l)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
	})
	return listener.Addr().String()
}

// dial connects with a bound on everything that follows.
func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func send(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
}

func receive(t *testing.T, conn net.Conn) (*http.Response, string) {
	t.Helper()
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(body)
}

const head = "POST /api/v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"

func TestSlowBodyIsEnded(t *testing.T) {
	f := newFixture(t, nil)
	conn := dial(t, f.serve(t, program.ServerLimits{ReadTimeout: 50 * time.Millisecond}))
	send(t, conn, head+"Content-Length: 100\r\n\r\n{")
	response, body := receive(t, conn)
	if response.StatusCode != http.StatusRequestTimeout || !strings.Contains(body, "took too long") {
		t.Errorf("answer %d %s, want 408", response.StatusCode, body)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the connection stays open: %v", err)
	}
}

func TestSlowHeaderIsEnded(t *testing.T) {
	f := newFixture(t, nil)
	conn := dial(t, f.serve(t, program.ServerLimits{ReadHeaderTimeout: 50 * time.Millisecond}))
	send(t, conn, "POST /api/v1/events HTTP/1.1\r\nHo")
	if text, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(text), "HTTP/1.1 400 ") {
		t.Errorf("the server said %q (%v), want 400 and the end of the connection", text, err)
	}
}

func TestHeaderIsBounded(t *testing.T) {
	f := newFixture(t, nil)
	conn := dial(t, f.serve(t, program.ServerLimits{}))
	send(t, conn, head+"X-Filler: "+strings.Repeat("x", 80<<10)+"\r\n\r\n")
	if response, _ := receive(t, conn); response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("answer %d, want 431", response.StatusCode)
	}
}

func TestAnnouncedOversizeIsRefusedUnread(t *testing.T) {
	f := newFixture(t, nil)
	conn := dial(t, f.serve(t, program.ServerLimits{}))
	send(t, conn, head+"Content-Length: 1048577\r\n\r\n")
	if response, _ := receive(t, conn); response.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("answer %d, want 413", response.StatusCode)
	}
}

func TestEndlessBodyIsRefusedAtTheLimit(t *testing.T) {
	f := newFixture(t, nil)
	conn := dial(t, f.serve(t, program.ServerLimits{}))
	send(t, conn, head+"Transfer-Encoding: chunked\r\n\r\n")
	chunk := fmt.Sprintf("%x\r\n%s\r\n", 1<<16, strings.Repeat(" ", 1<<16))
	go func() {
		for {
			if _, err := io.WriteString(conn, chunk); err != nil {
				return // the server hung up
			}
		}
	}()
	response, _ := receive(t, conn)
	if response.StatusCode != http.StatusRequestEntityTooLarge || !response.Close {
		t.Errorf("answer %d, close %v; want 413 and the end of the connection", response.StatusCode, response.Close)
	}
}

func TestBodyThatEndsEarlyIsNotAnEvent(t *testing.T) {
	f := newFixture(t, nil)
	conn := dial(t, f.serve(t, program.ServerLimits{}))
	send(t, conn, head+fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(released)+10, released))
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	response, body := receive(t, conn)
	if response.StatusCode != http.StatusBadRequest || !strings.Contains(body, "ended early") {
		t.Errorf("answer %d %s, want 400", response.StatusCode, body)
	}
}

func TestMalformedChunksAreNoEarlyEnd(t *testing.T) {
	for name, c := range map[string]struct{ chunks, want string }{
		"not a number": {"zz\r\n{}\r\n0\r\n\r\n", "the body is malformed"},
		"too long":     {"1\r\n{}\r\n0\r\n\r\n", "the body is malformed"},
		"cut short":    {"5\r\n{}", "the body ended early"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, nil)
			conn := dial(t, f.serve(t, program.ServerLimits{}))
			send(t, conn, head+"Transfer-Encoding: chunked\r\n\r\n"+c.chunks)
			if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			response, body := receive(t, conn)
			if response.StatusCode != http.StatusBadRequest || !strings.Contains(body, c.want) {
				t.Errorf("answer %d %s, want 400 and %q", response.StatusCode, body, c.want)
			}
		})
	}
}

// working opens a connection whose request has begun; finish ends the request.
func working(t *testing.T, address string) (finish func()) {
	t.Helper()
	conn := dial(t, address)
	send(t, conn, head+fmt.Sprintf("Expect: 100-continue\r\nContent-Length: %d\r\n\r\n", len(released)))
	if response, _ := receive(t, conn); response.StatusCode != http.StatusContinue {
		t.Fatalf("answer %d", response.StatusCode)
	}
	return func() {
		t.Helper()
		send(t, conn, released)
		if response, body := receive(t, conn); response.StatusCode != http.StatusAccepted {
			t.Errorf("answer %d %s to one that had begun", response.StatusCode, body)
		}
	}
}

const getHealth = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"

func wantHealthy(t *testing.T, conn net.Conn) {
	t.Helper()
	if response, _ := receive(t, conn); response.StatusCode != http.StatusOK {
		t.Errorf("answer %d", response.StatusCode)
	}
}

func TestConnectionsBeyondTheLimitWait(t *testing.T) {
	f := newFixture(t, nil)
	address := f.serve(t, program.ServerLimits{MaxConnections: 1, Patience: time.Hour})
	finish := working(t, address)
	second := dial(t, address)
	send(t, second, getHealth)
	if err := second.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if _, err := second.Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatalf("the second connection was served beside the first: %v", err)
	}
	finish() // from here on the first is quiet
	if err := second.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	wantHealthy(t, second)
}

// Of connections that do nothing the longest quiet one makes room, and none that works.
func TestQuietConnectionsMakeRoom(t *testing.T) {
	f := newFixture(t, nil)
	address := f.serve(t, program.ServerLimits{MaxConnections: 3, Patience: time.Hour})
	finish := working(t, address)
	slow, idle := dial(t, address), dial(t, address)
	send(t, slow, getHealth[:10])
	send(t, idle, getHealth)
	wantHealthy(t, idle) // so all three were accepted
	for i, gone := range []net.Conn{slow, idle} {
		next := dial(t, address)
		send(t, next, getHealth)
		wantHealthy(t, next)
		if _, err := gone.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("connection %d is still open: %v", i, err)
		}
	}
	finish()
}
