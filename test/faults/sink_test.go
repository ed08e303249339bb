// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// soakKinds of subscriptions: healthy, one that takes 100 ms, and one that fails every other time.
var soakKinds = []string{"soak-healthy", "soak-slow", "soak-flaky"}

func soakKind(n int) string {
	switch {
	case n%20 == 0:
		return "soak-slow"
	case n%21 == 0:
		return "soak-flaky"
	default:
		return "soak-healthy"
	}
}

// sink is a consumer that keeps only the numbers of what it took, so that it can take much.
type sink struct {
	url      string
	requests atomic.Int64
	taken    marks
	twice    atomic.Int64
	count    atomic.Int64
}

func newSink(t *testing.T) *sink {
	s := &sink{}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

func (s *sink) arrived() int { return int(s.count.Load()) }

var numberInEvent = regexp.MustCompile(`"n":(\d+)`)

// ServeHTTP implements http.Handler.
func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	found := numberInEvent.FindSubmatch(body)
	if err != nil || found == nil {
		http.Error(w, "no event", http.StatusBadRequest)
		return
	}
	switch r.URL.Path {
	case "/soak-slow":
		<-time.After(100 * time.Millisecond)
	case "/soak-flaky":
		if s.requests.Add(1)%2 == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
	}
	n, _ := strconv.Atoi(string(found[1]))
	if !s.taken.add(n) {
		s.twice.Add(1)
	}
	s.count.Add(1)
}

// marks is a set of numbers, a bit each.
type marks struct {
	mu   sync.Mutex
	bits []uint64
}

// add tells whether n is new.
func (m *marks) add(n int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.bits) <= n/64 {
		m.bits = append(m.bits, 0)
	}
	bit := uint64(1) << (n % 64)
	fresh := m.bits[n/64]&bit == 0
	m.bits[n/64] |= bit
	return fresh
}

// without counts the numbers that are not in other.
func (m *marks) without(other *marks) (missing int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	other.mu.Lock()
	defer other.mu.Unlock()
	for i, bits := range m.bits {
		if i < len(other.bits) {
			bits &^= other.bits[i]
		}
		for ; bits != 0; bits &= bits - 1 {
			missing++
		}
	}
	return missing
}
