// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"nexus.io/webhooks/test/redistest"
)

// lossy stands before a Redis. It forwards requests whole, and now and then, when told to, ends a connection in place of
// forwarding an answer: what was asked for has been executed, and nobody learns of it.
type lossy struct {
	listener net.Listener
	server   string
	cuts     atomic.Int64 // that are to be made
	made     atomic.Int64
}

func startLossy(t *testing.T, server string) *lossy {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &lossy{listener: listener, server: server}
	t.Cleanup(func() { _ = listener.Close() })
	go l.serve()
	return l
}

func (l *lossy) serve() {
	for {
		client, err := l.listener.Accept()
		if err != nil {
			return
		}
		go l.join(client)
	}
}

func (l *lossy) join(client net.Conn) {
	defer func() { _ = client.Close() }()
	var dialer net.Dialer
	server, err := dialer.DialContext(context.Background(), "tcp", l.server)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	go func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	}()
	buffer := make([]byte, 1<<16)
	for {
		n, err := server.Read(buffer)
		if n > 0 && l.cut() {
			return
		}
		if _, failed := client.Write(buffer[:n]); err != nil || failed != nil {
			return
		}
	}
}

func (l *lossy) cut() bool {
	for {
		left := l.cuts.Load()
		if left == 0 {
			return false
		}
		if l.cuts.CompareAndSwap(left, left-1) {
			l.made.Add(1)
			return true
		}
	}
}

// Answers get lost 50 times a second. What they answered is asked for again, and done once.
func TestAnswersOfRedisThatGetLost(t *testing.T) {
	server := redistest.ForTest(t, "--appendonly", "yes")
	proxy := startLossy(t, server.Address)
	r := newTrial(t, expectation{redisURL: "redis://" + proxy.listener.Addr().String()})
	lost := 0
	r.run(func(ctx context.Context, r *trial) int {
		struck := r.every(ctx, 20*time.Millisecond, func(int) { proxy.cuts.Store(1) })
		lost = int(proxy.made.Load())
		if lost < struck/2 {
			r.Errorf("only %d answers got lost", lost)
		}
		return struck
	})
	if refused := r.load.refused[http.StatusServiceUnavailable]; refused > lost/20 { // the same answer got lost twice
		t.Errorf("%d events were refused in place of being asked for again, %d answers got lost", refused, lost)
	}
}
