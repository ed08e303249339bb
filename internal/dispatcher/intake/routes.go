// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"encoding/json"
	"net/http"

	"nexus.io/webhooks/internal/dispatcher/rest"
	"nexus.io/webhooks/internal/event"
)

func (h *handler) routes() []rest.Route {
	return []rest.Route{
		{Method: http.MethodPost, Path: "/api/v1/events", Serve: h.publishEvent},
		{Method: http.MethodPost, Path: "/api/v1/events/batch", Serve: h.publishBatch},
		{Method: http.MethodPost, Path: "/api/v1/events/explain", Serve: h.explainEvent},
		{Method: http.MethodGet, Path: "/api/v1/event-types", Serve: h.listEventTypes},
		{Method: http.MethodGet, Path: "/health", Serve: healthy, Open: true},
		{Method: http.MethodGet, Path: "/healthz", Serve: healthy, Open: true},
		{Method: http.MethodGet, Path: "/readyz", Serve: h.ready, Open: true},
	}
}

func (h *handler) listEventTypes(w http.ResponseWriter, r *rest.Request) int {
	if p := rest.Query(r.Request).Problem(); p != nil {
		return p.Write(w)
	}
	return rest.Answer(w, http.StatusOK, h.eventTypes)
}

func renderEventTypes(c *event.Catalogue) []byte {
	text, err := json.Marshal(map[string]any{"event_types": c.Types()})
	if err != nil {
		return nil // not reached: three strings each
	}
	return text
}
