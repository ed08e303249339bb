// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	events *prometheus.CounterVec
}

func newMetrics(registerer prometheus.Registerer) *metrics {
	m := &metrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nexus_webhook_events_total",
			Help: "Events that were posted, by type (unknown: none of the catalogue) and outcome (accepted, duplicate, " +
				"conflict, invalid, full, unavailable).",
		}, []string{"event_type", "outcome"}),
	}
	registerer.MustRegister(m.events)
	return m
}

// count counts an event under its type, where that is one of the catalogue.
func (h *handler) count(e *entry) {
	eventType := e.eventType
	if eventType == "" {
		eventType = "unknown"
	}
	h.metrics.events.WithLabelValues(eventType, e.result()).Inc()
}

func (e *entry) result() string {
	switch {
	case e.refused == nil && e.outcome.duplicate:
		return "duplicate"
	case e.refused == nil:
		return "accepted"
	case e.refused.Status == http.StatusConflict:
		return "conflict"
	case e.refused.Status == http.StatusTooManyRequests:
		return "full"
	case e.refused.Status == http.StatusServiceUnavailable:
		return "unavailable"
	default:
		return "invalid"
	}
}
