// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// counted is what the receiver tells of what came since the last reset.
type counted struct {
	Requests int             `json:"requests"`
	First    time.Time       `json:"first"`
	Last     time.Time       `json:"last"`
	Took     []time.Duration `json:"took"` // publish to arrival, ascending, where the body says when it was published
}

// counter is the receiver: it reads each request to its end, counts it and answers 200. Its other endpoints count
// nothing.
type counter struct {
	mu sync.Mutex
	counted
}

// slowAnswer is how long the slow endpoint takes.
const slowAnswer = time.Second

// hang never answers.
func hang(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // only then the server notices that the caller went away
	<-r.Context().Done()
}

func fail(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }

var sentMark = []byte(`"sent_ns":`)

func receive(ctx context.Context, address string) error {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("receiver: %w", err)
	}
	c := &counter{}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /hook/{name...}", c.take)
	mux.HandleFunc("POST /hang", hang)
	mux.HandleFunc("POST /fail", fail)
	mux.HandleFunc("POST /slow", func(_ http.ResponseWriter, r *http.Request) { _ = wait(r.Context(), slowAnswer) })
	mux.HandleFunc("GET /counted", c.tell)
	mux.HandleFunc("POST /reset", c.reset)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	if err := server.Serve(listener); ctx.Err() == nil {
		return fmt.Errorf("receiver: %w", err)
	}
	return nil
}

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func (c *counter) take(w http.ResponseWriter, r *http.Request) {
	b, _ := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(b)
	b.Reset()
	if _, err := io.Copy(b, r.Body); err != nil {
		return
	}
	now := time.Now()
	took := sinceSent(b.Bytes(), now)
	c.mu.Lock()
	if c.Requests == 0 {
		c.First = now
	}
	c.Requests++
	c.Last = now
	if took > 0 {
		c.Took = append(c.Took, took)
	}
	c.mu.Unlock()
	w.WriteHeader(http.StatusOK)
}

func sinceSent(body []byte, now time.Time) time.Duration {
	_, rest, found := bytes.Cut(body, sentMark)
	if !found {
		return 0
	}
	digits, _, _ := bytes.Cut(rest, []byte(","))
	ns, err := strconv.ParseInt(string(digits), 10, 64)
	if err != nil {
		return 0
	}
	return now.Sub(time.Unix(0, ns))
}

func (c *counter) tell(w http.ResponseWriter, _ *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	slices.Sort(c.Took)
	_ = json.NewEncoder(w).Encode(c.counted)
}

func (c *counter) reset(w http.ResponseWriter, _ *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counted = counted{}
	w.WriteHeader(http.StatusNoContent)
}
