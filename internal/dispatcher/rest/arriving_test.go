// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// Bodies that are announced and do not come take no more memory than maxArriving, and keep no small one out.
func TestBodiesThatAreArrivingShareABound(t *testing.T) {
	const limit = 1 << 20
	begun := make(chan struct{}, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun <- struct{}{}
		if _, p := Read(w, r, limit); p != nil {
			p.Write(w)
		}
	}))
	defer server.Close()
	send := func(length int, body string) net.Conn {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_, err = fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
			length, body)
		if err != nil {
			t.Fatal(err)
		}
		<-begun
		return conn
	}
	answer := func(conn net.Conn) int {
		defer func() { _ = conn.Close() }()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		return response.StatusCode
	}
	var slow []net.Conn
	leave := func() {
		for _, conn := range slow {
			_ = conn.Close()
		}
	}
	defer leave()
	for range maxArriving / limit {
		slow = append(slow, send(limit, "{"))
	}
	arrivingIs(t, maxArriving)
	large := strings.Repeat(" ", freeBody) + "{}"
	if status := answer(send(len(large), large)); status != http.StatusServiceUnavailable {
		t.Errorf("a large body more is answered by %d", status)
	}
	if status := answer(send(2, "{}")); status != http.StatusOK {
		t.Errorf("a small one is answered by %d", status)
	}
	leave()
	arrivingIs(t, 0)
	if status := answer(send(len(large), large)); status != http.StatusOK {
		t.Errorf("a large body later is answered by %d", status)
	}
}

// arrivingIs waits until so many bytes count.
func arrivingIs(t *testing.T, want int64) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); arriving.Load() != want; {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes count, want %d", arriving.Load(), want)
		}
		<-time.After(time.Millisecond)
	}
}
