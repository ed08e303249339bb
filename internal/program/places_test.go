// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package program

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

const question = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

// status reads an answer until the connection ends, and returns its first line.
func status(t *testing.T, conn io.Reader) string {
	t.Helper()
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Error(err)
	}
	line, _, _ := strings.Cut(string(answer), "\r\n")
	return line
}

// Whoever takes all connections for bodies that do not come, or answers that are not taken, keeps nobody out.
func TestClientsThatAreWaitedForMakeRoom(t *testing.T) {
	const most = 5
	long := strings.Repeat("x", 32<<20) // more than sockets hold
	begun := make(chan struct{}, 100)
	address := listen(t, func(w http.ResponseWriter, r *http.Request) {
		begun <- struct{}{}
		switch r.URL.Path {
		case "/read":
			_, _ = io.Copy(io.Discard, r.Body)
		case "/long":
			_, _ = io.WriteString(w, long)
		}
	}, ServerLimits{MaxConnections: most, Patience: 50 * time.Millisecond})
	for name, request := range map[string]string{
		"a body that nobody asked for": "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n",
		"a body that is not read":      "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{",
		"half a body":                  "POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{",
		"half a chunk":                 "POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{",
		"an answer that is not taken":  "GET /long HTTP/1.1\r\nHost: a\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			for range most {
				send(t, address, request)
				<-begun
			}
			for range 2 * most {
				if got := status(t, send(t, address, question)); got != "HTTP/1.1 200 OK" {
					t.Fatalf("somebody else is answered %q", got)
				}
				<-begun
			}
		})
	}
}

// A header that is refused holds its place no longer than any other request whose body does not come.
func TestRefusedHeadersMakeRoom(t *testing.T) {
	const most = 5
	address := listen(t, func(http.ResponseWriter, *http.Request) {}, ServerLimits{
		MaxConnections: most, Patience: 50 * time.Millisecond,
	})
	request := "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n" + strings.Repeat("A: b\r\n", maxHeaderLines) + "\r\n"
	for range most {
		got := make([]byte, len("HTTP/1.1 431"))
		if _, err := io.ReadFull(send(t, address, request), got); err != nil || string(got) != "HTTP/1.1 431" {
			t.Fatalf("the answer begins with %q (%v)", got, err)
		}
	}
	for range 2 * most {
		if got := status(t, send(t, address, question)); got != "HTTP/1.1 200 OK" {
			t.Fatalf("somebody else is answered %q", got)
		}
	}
}

// A request that is being worked at keeps its place, however long that takes, and is answered.
func TestWorkKeepsItsPlace(t *testing.T) {
	begun, finish := make(chan struct{}), make(chan struct{})
	address := listen(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			_, _ = io.Copy(io.Discard, r.Body)
			close(begun)
			<-finish
		}
	}, ServerLimits{MaxConnections: 1, Patience: time.Millisecond})
	first := send(t, address, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
	<-begun
	second := send(t, address, question)
	<-time.After(5 * lookAgain)
	close(finish)
	for _, conn := range []io.Reader{first, second} {
		if got := status(t, conn); got != "HTTP/1.1 200 OK" {
			t.Errorf("the answer is %q", got)
		}
	}
}
