// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"nexus.io/webhooks/internal/dispatcher/queue"
)

const (
	// otherSubscribers is the label of the subscriptions beyond MaxSubscriberLabels.
	otherSubscribers = "other"
	// sweepInterval is how often at most a full set of labels is searched for subscriptions that are gone.
	sweepInterval = time.Minute
	// noReason labels the attempts that succeeded.
	noReason = "none"
)

type metrics struct {
	deliveries  *prometheus.CounterVec // event_type, status
	retries     *prometheus.CounterVec // event_type
	attempts    *prometheus.CounterVec // reason
	stale, held prometheus.Counter
	latency     *latencies
}

func newMetrics(registerer prometheus.Registerer, p *Pool) *metrics {
	m := &metrics{
		deliveries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nexus_webhook_deliveries_total",
			Help: "Deliveries that ended, by the type of their event and by success or failed.",
		}, []string{"event_type", "status"}),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nexus_webhook_retries_total",
			Help: "Attempts after the first of a delivery.",
		}, []string{"event_type"}),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nexus_webhook_attempts_total",
			Help: "Attempts by the reason of their failure, none for a success.",
		}, []string{"reason"}),
		stale: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nexus_webhook_stale_leases_total",
			Help: "Leases that had run out before anything was sent.",
		}),
		held: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nexus_webhook_held_leases_total",
			Help: "Leases given back because their subscription is unknown, paused, inactive or lacks a Secret.",
		}),
		latency: newLatencies(p.Routes, p.MaxSubscriberLabels),
	}
	registerer.MustRegister(m.deliveries, m.retries, m.attempts, m.stale, m.held, m.latency.vec,
		inFlightGauge("nexus_webhook_attempts_in_flight", "Attempts that run now.", func() int {
			deliveries, _ := p.occupied()
			return deliveries
		}),
		inFlightGauge("nexus_webhook_in_flight_bytes", "Bytes of the bodies of the attempts that run now.", func() int {
			_, bytes := p.occupied()
			return bytes
		}))
	m.attempts.WithLabelValues(noReason)
	for _, reason := range Reasons() {
		m.attempts.WithLabelValues(string(reason))
	}
	return m
}

func inFlightGauge(name, help string, value func() int) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
		return float64(value())
	})
}

// observe counts an attempt. Event types come from the catalogue, so their number is bounded.
func (m *metrics) observe(s queue.Settlement) {
	reason := noReason
	if s.Reason != "" {
		reason = s.Reason
	}
	m.attempts.WithLabelValues(reason).Inc()
	if s.Lease.Attempt > 1 && s.Result != queue.Release {
		m.retries.WithLabelValues(s.Lease.EventType).Inc()
	}
	if s.StatusCode != 0 {
		m.latency.observe(s.Lease.SubscriptionID, s.Duration)
	}
	switch s.Result {
	case queue.Done:
		m.deliveries.WithLabelValues(s.Lease.EventType, "success").Inc()
	case queue.Fail:
		m.deliveries.WithLabelValues(s.Lease.EventType, "failed").Inc()
	case queue.Retry, queue.Release:
	}
}

// latencies keeps a histogram for each of a bounded number of subscriptions, and one for all others together.
type latencies struct {
	vec    *prometheus.HistogramVec
	routes Routes
	most   int

	mu    sync.RWMutex
	known map[string]prometheus.Observer
	other prometheus.Observer
	swept time.Time
}

func newLatencies(routes Routes, most int) *latencies {
	vec := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "nexus_webhook_delivery_latency_seconds",
		Help:    "Time of the attempts that got an answer, from before the connection to the end of the answer.",
		Buckets: []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60},
	}, []string{"subscriber_id"})
	return &latencies{
		vec: vec, routes: routes, most: most,
		known: map[string]prometheus.Observer{},
		other: vec.WithLabelValues(otherSubscribers),
	}
}

func (l *latencies) observe(subscriptionID string, d time.Duration) {
	l.mu.RLock()
	observer := l.known[subscriptionID]
	l.mu.RUnlock()
	if observer == nil {
		observer = l.admit(subscriptionID)
	}
	observer.Observe(d.Seconds())
}

func (l *latencies) admit(subscriptionID string) prometheus.Observer {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.known) >= l.most {
		l.sweep(time.Now())
	}
	if len(l.known) >= l.most {
		return l.other
	}
	observer := l.vec.WithLabelValues(subscriptionID)
	l.known[subscriptionID] = observer
	return observer
}

// sweep forgets the subscriptions that are gone.
func (l *latencies) sweep(now time.Time) {
	if now.Sub(l.swept) < sweepInterval {
		return
	}
	l.swept = now
	for id := range l.known {
		if l.routes.Route(id) == nil {
			delete(l.known, id)
			l.vec.DeleteLabelValues(id)
		}
	}
}
