// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package stats is the HTTP API of the statistics of the whole service.
//
// It promises numbers over all dispatchers and restarts, read in one round trip whatever the number of subscriptions.
// It knows nothing of single subscriptions, whose statistics are in their status.
package stats

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/dispatcher/rest"
	"nexus.io/webhooks/internal/routing"
)

// Store has the totals; *queue.Queue is one.
type Store interface {
	Totals(ctx context.Context) (queue.Totals, error)
}

const retryAway = 5 * time.Second

type handler struct {
	store Store
	table func() *routing.Table
	log   *slog.Logger
}

// New returns the route of the API. The table is nil until it is complete.
func New(store Store, table func() *routing.Table, log *slog.Logger) []rest.Route {
	h := &handler{store, table, log}
	return []rest.Route{{Method: http.MethodGet, Path: "/api/v1/stats", Serve: h.get}}
}

// statistics is what GET /api/v1/stats answers.
type statistics struct {
	Subscriptions  int              `json:"total_subscriptions"`
	Active         int              `json:"active_subscriptions"`
	Events         int64            `json:"total_events_processed"`
	Successful     int64            `json:"successful_deliveries"`
	Failed         int64            `json:"failed_deliveries"`
	Retrying       int64            `json:"pending_retries"`
	AverageLatency float64          `json:"avg_delivery_time_ms"`
	EventsByType   map[string]int64 `json:"events_by_type"`
}

// get serves GET /api/v1/stats, to those who may list the deliveries of every namespace: the numbers are of all.
func (h *handler) get(w http.ResponseWriter, r *rest.Request) int {
	if p := rest.Query(r.Request).Problem(); p != nil {
		return p.Write(w)
	}
	may := r.Caller.May(r.Context(), rest.Action{
		Verb: "list", Resource: "webhooksubscriptions", Subresource: "deliveries",
	})
	if p := rest.Refusal(may); p != nil {
		return p.Write(w)
	}
	table := h.table()
	if table == nil {
		return rest.New(http.StatusServiceUnavailable, "the subscriptions are still being read: send this again in a moment").
			Retry(retryAway).Write(w)
	}
	t, err := h.store.Totals(r.Context())
	if err != nil {
		h.log.WarnContext(r.Context(), "Statistics cannot be read", "error", err)
		return rest.New(http.StatusServiceUnavailable, "the statistics cannot be read just now, since Redis does not "+
			"answer: send this again later").Retry(retryAway).Write(w)
	}
	return rest.JSON(w, http.StatusOK, statistics{
		table.Len(), table.Active(), t.Events, t.Successful, t.Failed, t.Retrying,
		float64(t.AverageLatency) / float64(time.Millisecond), t.EventsByType,
	})
}
