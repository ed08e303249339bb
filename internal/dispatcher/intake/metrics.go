// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	events   *prometheus.CounterVec
	requests *prometheus.HistogramVec
}

func newMetrics(registerer prometheus.Registerer) *metrics {
	m := &metrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nexus_webhook_events_total",
			Help: "Events that were posted, by type (unknown: none of the catalogue) and outcome (accepted, duplicate, " +
				"conflict, invalid, full, unavailable).",
		}, []string{"event_type", "outcome"}),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "nexus_webhook_http_request_duration_seconds",
			Help:    "Time to answer a request of the API, by route and status.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"route", "status"}),
	}
	registerer.MustRegister(m.events, m.requests)
	return m
}

func (m *metrics) request(route string, status int, took time.Duration) {
	m.requests.WithLabelValues(route, strconv.Itoa(status)).Observe(took.Seconds())
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
