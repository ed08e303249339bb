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

// cut is where a connection ends.
type cut int

const (
	inPlaceOfAnswer cut = iota // what was asked for has been executed, and nobody learns of it
	amidAnswer                 // of some calls of a pipeline it is known
	amidRequest                // of a pipeline some calls are executed, and one arrived in part
	cuts
)

// lossy stands before a Redis, and now and then, when told to, ends a connection.
type lossy struct {
	listener net.Listener
	server   string
	next     [cuts]atomic.Bool // is to be made
	made     [cuts]atomic.Int64
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
		l.carry(client, server, amidRequest)
		_, _ = client.Close(), server.Close()
	}()
	l.carry(server, client, inPlaceOfAnswer, amidAnswer)
}

func (l *lossy) carry(from io.Reader, to io.Writer, possible ...cut) {
	buffer := make([]byte, 1<<16)
	for {
		n, err := from.Read(buffer)
		for _, c := range possible {
			if n == 0 || !l.next[c].CompareAndSwap(true, false) {
				continue
			}
			l.made[c].Add(1)
			if c != inPlaceOfAnswer {
				_, _ = to.Write(buffer[:n/2])
			}
			return
		}
		if _, failed := to.Write(buffer[:n]); err != nil || failed != nil {
			return
		}
	}
}

// Connections end 50 times a second, by turns in place of an answer, amid one and amid a request. What got lost is asked
// for again, and done once.
func TestConnectionsToRedisThatEndAmidCalls(t *testing.T) {
	server := redistest.ForTest(t, "--appendonly", "yes")
	proxy := startLossy(t, server.Address)
	r := newTrial(t, expectation{redisURL: "redis://" + proxy.listener.Addr().String()})
	made := 0
	r.run(func(ctx context.Context, r *trial) int {
		struck := r.every(ctx, 20*time.Millisecond, func(n int) { proxy.next[n%int(cuts)].Store(true) })
		for c := range proxy.made {
			n := int(proxy.made[c].Load())
			made += n
			if n < struck/int(cuts)/2 {
				r.Errorf("only %d connections ended in way %d", n, c)
			}
		}
		return struck
	})
	if refused := r.load.refused[http.StatusServiceUnavailable]; refused > made/8 { // the same trip was cut twice
		t.Errorf("%d events were refused in place of being asked for again, %d connections were cut", refused, made)
	}
}
