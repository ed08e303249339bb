// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// nowhere is where an answer goes that nobody reads.
type nowhere struct{ header http.Header }

func (n nowhere) Header() http.Header       { return n.header }
func (nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (nowhere) WriteHeader(int)             {}

// The way to an endpoint costs an event no more than the mux does, but for the Request.
func TestAHandlerAllocatesOneRequest(t *testing.T) {
	body := []byte("{}")
	mux := http.NewServeMux()
	mux.HandleFunc("/api/v1/events", func(w http.ResponseWriter, _ *http.Request) { Answer(w, http.StatusAccepted, body) })
	handler := Handler([]Route{{Method: http.MethodPost, Path: "/api/v1/events", Serve: func(w http.ResponseWriter, r *Request) int {
		if err := r.Caller.May(r.Context(), Action{Verb: "create", Resource: "events"}); err != nil {
			t.Error(err)
		}
		return Answer(w, http.StatusAccepted, body)
	}}}, HandlerOptions{Authenticator: Anybody{}, Observe: func(string, int, time.Duration) {}})
	request, w := httptest.NewRequest(http.MethodPost, "/api/v1/events", nil), nowhere{http.Header{}}
	measure := func(h http.Handler) float64 {
		return testing.AllocsPerRun(1000, func() { h.ServeHTTP(w, request) })
	}
	if bare, ours := measure(mux), measure(handler); ours > bare+1 {
		t.Errorf("%v allocations, want at most one more than the %v of a mux", ours, bare)
	}
}
