// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package deliveries

import (
	"net/http"

	"nexus.io/webhooks/internal/dispatcher/history"
	"nexus.io/webhooks/internal/dispatcher/rest"
)

// eventAnswer is what GET /api/v1/events/{id} answers: the deliveries that are kept and that the caller may see, the
// newest MaxLimit of them.
type eventAnswer struct {
	EventID    string      `json:"event_id"`
	EventType  string      `json:"event_type"`
	Deliveries []*Delivery `json:"deliveries"`
}

// event serves GET /api/v1/events/{id}.
func (h *handler) event(w http.ResponseWriter, r *rest.Request) int {
	if p := rest.Query(r.Request).Problem(); p != nil {
		return p.Write(w)
	}
	s := &selection{open: true, ended: true}
	s.EventID, s.Limit = r.PathValue("id"), history.MaxLimit
	scope, p := rest.NewScope(r.Context(), r.Caller, h.listing(s))
	if p != nil {
		return p.Write(w)
	}
	found := []*Delivery{}
	for more := true; more && len(found) < history.MaxLimit; {
		page, next, err := h.page(r.Context(), s, scope)
		if err != nil {
			return h.failed(r.Context(), err).Write(w)
		}
		if err := h.addAttempts(r.Context(), page); err != nil {
			return h.failed(r.Context(), err).Write(w)
		}
		found = append(found, page...)
		s.After, more = history.Cursor(next), next != ""
	}
	if p := scope.Problem(); p != nil {
		return p.Write(w)
	}
	if len(found) == 0 {
		return rest.New(http.StatusNotFound, "there is no delivery of event "+quoted(s.EventID)+" that you may see, or none "+
			"is kept any longer").Write(w)
	}
	return rest.JSON(w, http.StatusOK, eventAnswer{s.EventID, found[0].EventType, found})
}
