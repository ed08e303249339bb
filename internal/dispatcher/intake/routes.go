// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"nexus.io/webhooks/internal/event"
)

// endpoint answers a request and returns the status that it answered with.
type endpoint func(w http.ResponseWriter, r *http.Request) (status int)

func (h *handler) routes() http.Handler {
	mux := http.NewServeMux()
	for route, methods := range map[string]map[string]endpoint{
		"/api/v1/events":       {http.MethodPost: h.publishEvent},
		"/api/v1/events/batch": {http.MethodPost: h.publishBatch},
		"/api/v1/event-types":  {http.MethodGet: h.listEventTypes},
		"/health":              {http.MethodGet: healthy},
		"/healthz":             {http.MethodGet: healthy},
		"/readyz":              {http.MethodGet: h.ready},
	} {
		for method, serve := range methods {
			mux.Handle(method+" "+route, h.measured(route, serve))
		}
		mux.Handle(route, h.measured(route, methodNotAllowed(methods)))
	}
	other := h.measured("other", notFound)
	mux.Handle("/", other)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if path.Clean(r.URL.Path) != r.URL.Path { // the mux would redirect it, with an answer of its own
			other.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// measured counts and times an endpoint under its route, of which there is a fixed set.
func (h *handler) measured(route string, serve endpoint) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		status := serve(w, r)
		h.metrics.request(route, status, time.Since(start))
	})
}

func notFound(w http.ResponseWriter, r *http.Request) int {
	return newProblem(http.StatusNotFound,
		fmt.Sprintf("there is nothing at %.100q; events are posted to /api/v1/events", r.URL.Path)).write(w)
}

func methodNotAllowed(methods map[string]endpoint) endpoint {
	var names []string
	for method := range methods {
		names = append(names, method)
		if method == http.MethodGet {
			names = append(names, http.MethodHead)
		}
	}
	slices.Sort(names)
	allowed := strings.Join(names, ", ")
	return func(w http.ResponseWriter, r *http.Request) int {
		w.Header().Set("Allow", allowed)
		return newProblem(http.StatusMethodNotAllowed, r.URL.Path+" takes only "+allowed).write(w)
	}
}

func (h *handler) listEventTypes(w http.ResponseWriter, _ *http.Request) int {
	return answer(w, http.StatusOK, h.eventTypes)
}

func renderEventTypes(c *event.Catalogue) []byte {
	text, err := json.Marshal(map[string]any{"event_types": c.Types()})
	if err != nil {
		return nil // not reached: three strings each
	}
	return text
}

var contentTypeJSON = []string{"application/json"}

// answer writes a body of JSON. A client that is gone needs no answer, so a failed write is no error.
func answer(w http.ResponseWriter, status int, body []byte) int {
	w.Header()["Content-Type"] = contentTypeJSON
	w.WriteHeader(status)
	_, _ = w.Write(body)
	return status
}
