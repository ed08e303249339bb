// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"nexus.io/webhooks/test/stack"
)

const (
	hostileIdle = 2_000 // as many as WEBHOOK_MAX_CONNECTIONS lets in
	hostileSlow = 200
)

// Whoever opens all connections that there may be, sends headers byte by byte or half a body, keeps nobody from
// publishing, and leaves nothing behind.
func TestHostileClientsKeepNobodyFromPublishing(t *testing.T) {
	s := start(t, 1, "--profiling")
	h := &hostile{T: t, stack: s, address: strings.TrimPrefix(s.Dispatchers[0].URL, "http://")}
	defer h.leave()
	h.publish("alone")
	before := h.level()

	h.openIdle(h.allowed(hostileIdle))
	h.publish("beside idle connections")
	slow := h.sendSlowHeaders()
	h.sendHalfBodies()
	h.publish("beside all of them")
	slow.Wait()
	t.Logf("%d connections, %.0f goroutines and %.0f MiB, before %.0f and %.0f MiB", len(h.open), h.level().goroutines,
		h.level().memory/(1<<20), before.goroutines, before.memory/(1<<20))

	h.leave()
	eventually(t, 30*time.Second, "the dispatcher is as it was", func(context.Context) error {
		now := h.level()
		if now.goroutines > before.goroutines+30 || now.files > before.files+30 || now.memory > before.memory+32<<20 {
			return fmt.Errorf("%+v, before %+v", now, before)
		}
		return nil
	})
}

type hostile struct {
	*testing.T
	stack   *stack.Stack
	address string
	mu      sync.Mutex
	open    []net.Conn
}

// allowed is how many of so many connections this process may open.
func (h *hostile) allowed(wanted int) int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		h.Fatal(err)
	}
	const others = 1000 // descriptors
	n := min(wanted, int(limit.Cur)-others)
	if n < wanted {
		h.Logf("only %d connections: RLIMIT_NOFILE is %d", n, limit.Cur)
	}
	return n
}

func (h *hostile) dial() net.Conn {
	dialer := net.Dialer{Timeout: 20 * time.Second}
	conn, err := dialer.DialContext(h.Context(), "tcp", h.address)
	if err != nil {
		h.Error(err)
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open = append(h.open, conn)
	return conn
}

func (h *hostile) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, conn := range h.open {
		_ = conn.Close()
	}
	h.open = nil
}

// side runs do so many times, a few at a time.
func side(count int, do func()) {
	var group sync.WaitGroup
	turns := make(chan struct{}, 32)
	for range count {
		turns <- struct{}{}
		group.Go(func() {
			defer func() { <-turns }()
			do()
		})
	}
	group.Wait()
}

// openIdle opens connections of which each made a request once, and keeps quiet since.
func (h *hostile) openIdle(count int) {
	side(count, func() {
		conn := h.dial()
		if conn == nil {
			return
		}
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		answer := make([]byte, 256)
		_, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
		if err == nil {
			_, err = conn.Read(answer)
		}
		if err != nil {
			h.Errorf("an idle connection: %v", err)
		}
	})
}

// sendSlowHeaders drips headers; the group waits until the dispatcher has hung up on all of them.
func (h *hostile) sendSlowHeaders() *sync.WaitGroup {
	group := &sync.WaitGroup{}
	side(hostileSlow, func() {
		conn := h.dial()
		if conn == nil {
			return
		}
		group.Go(func() {
			tick := time.NewTicker(time.Second)
			defer tick.Stop()
			_, err := io.WriteString(conn, "POST /api/v1/events HTTP/1.1\r\nX-Slow: ")
			for range 30 {
				if err != nil {
					return
				}
				<-tick.C
				_, err = io.WriteString(conn, "x")
			}
			h.Error("a header that does not end is waited for")
		})
	})
	return group
}

// sendHalfBodies announces bodies and sends a part of each.
func (h *hostile) sendHalfBodies() {
	part := `{"type":"build.completed","source":"` + strings.Repeat("x", 300<<10)
	side(hostileSlow, func() {
		if conn := h.dial(); conn != nil {
			_ = conn.SetWriteDeadline(time.Now().Add(20 * time.Second))
			_, _ = fmt.Fprintf(conn, "POST /api/v1/events HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"+
				"Content-Length: 1000000\r\n\r\n%s", part) // or it is refused at once, which is as well
		}
	})
}

// publish publishes over a connection of its own for each event, which is the worst case.
func (h *hostile) publish(when string) {
	h.Helper()
	fresh := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
	var took []time.Duration
	for i := range 200 {
		at := time.Now()
		status, answer, err := stack.Post(h.Context(), fresh, "http://"+h.address+"/api/v1/events",
			event("nobody", fmt.Sprintf("%s-%d", strings.ReplaceAll(when, " ", "-"), i)))
		if err != nil || status != http.StatusAccepted {
			h.Fatalf("%s: %d %s %v", when, status, answer, err)
		}
		took = append(took, time.Since(at))
	}
	slices.Sort(took)
	h.Logf("%s: p50 %s, p99 %s, slowest %s", when, took[100], took[198], took[199])
	if took[198] > time.Second {
		h.Errorf("%s: p99 is %s", when, took[198])
	}
}

type level struct{ goroutines, files, memory float64 }

// level is what the dispatcher uses after it collected its garbage.
func (h *hostile) level() (l level) {
	h.Helper()
	dispatcher := h.stack.Dispatchers[0]
	if _, err := dispatcher.Observe(h.Context(), "/debug/pprof/heap?gc=1"); err != nil {
		h.Fatal(err)
	}
	metrics, err := dispatcher.Metrics(h.Context())
	for name, into := range map[string]*float64{
		"go_goroutines": &l.goroutines, "process_open_fds": &l.files, "go_memstats_heap_inuse_bytes": &l.memory,
	} {
		if err == nil {
			*into, err = metrics.Sum(name)
		}
	}
	if err != nil {
		h.Fatal(err)
	}
	return l
}
