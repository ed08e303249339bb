// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package deliveries

import (
	"net/http"

	"nexus.io/webhooks/internal/dispatcher/history"
	"nexus.io/webhooks/internal/dispatcher/rest"
)

// eventAnswer is what GET /api/v1/events/{id} answers: a page of the deliveries that are kept and that the caller may
// see, newest first.
type eventAnswer struct {
	EventID    string      `json:"event_id"`
	EventType  string      `json:"event_type"`
	Deliveries []*Delivery `json:"deliveries"`
}

// event serves GET /api/v1/events/{id}.
func (h *handler) event(w http.ResponseWriter, r *rest.Request) int {
	params := rest.Query(r.Request)
	limit := params.Int("limit", 1, history.MaxLimit, history.MaxLimit)
	s := &selection{open: true, ended: true}
	s.EventID, s.After = r.PathValue("id"), cursorOf(params)
	if p := params.Problem(); p != nil {
		return p.Write(w)
	}
	scope, p := rest.NewScope(r.Context(), r.Caller, h.listing(s))
	if p != nil {
		return p.Write(w)
	}
	found := []*Delivery{}
	for more := true; more && len(found) < limit; {
		s.Limit = limit - len(found)
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
	if len(found) == 0 && !params.Given("cursor") { // there may have been nothing behind the last page
		return rest.New(http.StatusNotFound, "there is no delivery of event "+quoted(s.EventID)+" that you may see, or none "+
			"is kept any longer").Write(w)
	}
	if s.After != "" {
		rest.NextPage(w, r.Request, place{string(s.After)})
	}
	answer := eventAnswer{EventID: s.EventID, Deliveries: found}
	if len(found) > 0 {
		answer.EventType = found[0].EventType
	}
	return rest.JSON(w, http.StatusOK, answer)
}
