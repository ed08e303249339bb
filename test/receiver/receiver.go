// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package receiver is a consumer of webhooks for tests: it records what arrives, checks signatures with the standard
// library alone, and misbehaves as its path says.
package receiver

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Arrival is one request that came.
type Arrival struct {
	At         time.Time
	Path       string
	DeliveryID string
	EventType  string
	EventID    string
	Timestamp  string
	Signature  string
	Header     http.Header
	Body       string
	Status     int // what was answered
}

// Receiver listens on loopback. Paths: /ok/..., /status/CODE/..., /hang/... (until the sender gives up, or Close),
// /slow/MILLISECONDS/..., /flaky/N/... (every Nth is taken, the others get 503), /busy/SECONDS/... (the first gets 503
// with Retry-After, the others are taken). After Recover, flaky ones take all.
type Receiver struct {
	URL string

	server   *http.Server
	release  chan struct{}
	mu       sync.Mutex
	arrivals []Arrival
	sound    bool
	counts   map[string]int // by path
	present  map[string]int // requests that are being answered, by path
	most     map[string]int // the most of them so far
	changed  chan struct{}  // closed and replaced at each arrival
}

const maxBody = 2 << 20

// Start listens on a free loopback port.
func Start() (*Receiver, error) {
	var config net.ListenConfig
	listener, err := config.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start receiver: %w", err)
	}
	r := &Receiver{
		URL: "http://" + listener.Addr().String(), release: make(chan struct{}), counts: map[string]int{},
		present: map[string]int{}, most: map[string]int{}, changed: make(chan struct{}),
	}
	r.server = &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = r.server.Serve(listener) }()
	return r, nil
}

// Close ends it, and every request that hangs.
func (r *Receiver) Close() {
	close(r.release)
	_ = r.server.Close()
}

// ServeHTTP implements http.Handler.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	at := time.Now()
	defer r.enter(q.URL.Path)()
	body, err := io.ReadAll(io.LimitReader(q.Body, maxBody))
	if err != nil {
		return // the sender died; nothing whole arrived
	}
	var envelope struct {
		ID string `json:"id"`
	}
	_ = json.Unmarshal(body, &envelope)
	status := r.note(Arrival{
		At: at, Path: q.URL.Path, DeliveryID: q.Header.Get("X-Nexus-Delivery"), EventType: q.Header.Get("X-Nexus-Event"),
		EventID: envelope.ID, Timestamp: q.Header.Get("X-Nexus-Timestamp"), Signature: q.Header.Get("X-Nexus-Signature-256"),
		Header: q.Header.Clone(), Body: string(body),
	})
	switch words := strings.Split(q.URL.Path, "/"); words[1] {
	case "busy":
		w.Header().Set("Retry-After", words[2])
	case "hang":
		select {
		case <-q.Context().Done():
		case <-r.release:
		}
	case "slow":
		ms, _ := strconv.Atoi(words[2])
		select {
		case <-q.Context().Done():
		case <-time.After(time.Duration(ms) * time.Millisecond):
		}
	}
	w.WriteHeader(status)
}

// enter counts a request until the returned function is called.
func (r *Receiver) enter(path string) (leave func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.present[path]++
	r.most[path] = max(r.most[path], r.present[path])
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.present[path]--
	}
}

// MostAtOnce is how many requests for path were being answered at once at the most.
func (r *Receiver) MostAtOnce(path string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.most[path]
}

func (r *Receiver) note(a Arrival) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[a.Path]++
	a.Status = answer(a.Path, r.counts[a.Path])
	if r.sound && strings.HasPrefix(a.Path, "/flaky/") {
		a.Status = http.StatusOK
	}
	r.arrivals = append(r.arrivals, a)
	close(r.changed)
	r.changed = make(chan struct{})
	return a.Status
}

// Recover has flaky paths take everything from now on.
func (r *Receiver) Recover() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sound = true
}

func answer(path string, count int) int {
	words := strings.Split(path, "/")
	if len(words) < 3 {
		return http.StatusOK
	}
	n, _ := strconv.Atoi(words[2])
	switch {
	case words[1] == "status":
		return n
	case words[1] == "flaky" && n > 0 && count%n != 0, words[1] == "busy" && count == 1:
		return http.StatusServiceUnavailable
	default:
		return http.StatusOK
	}
}

// Arrivals so far whose path starts with prefix.
func (r *Receiver) Arrivals(prefix string) []Arrival {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []Arrival
	for _, a := range r.arrivals {
		if strings.HasPrefix(a.Path, prefix) {
			list = append(list, a)
		}
	}
	return list
}

// Wait returns once done says so of what arrived under prefix, or ctx ends.
func (r *Receiver) Wait(ctx context.Context, prefix string, done func([]Arrival) bool) ([]Arrival, error) {
	for {
		r.mu.Lock()
		changed := r.changed
		r.mu.Unlock()
		list := r.Arrivals(prefix)
		if done(list) {
			return list, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return list, fmt.Errorf("%d arrivals under %s, still waiting: %w", len(list), prefix, ctx.Err())
		}
	}
}

// Verify checks an arrival's signature by the documented formula.
func (a Arrival) Verify(secret string) bool {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(a.Timestamp + "." + a.Body))
	return hmac.Equal([]byte("sha256="+hex.EncodeToString(mac.Sum(nil))), []byte(a.Signature))
}
