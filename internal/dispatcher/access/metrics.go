// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package access

import "github.com/prometheus/client_golang/prometheus"

const (
	reviewToken  = "token"
	reviewAccess = "access"

	outcomeAllowed = "allowed"
	outcomeRefused = "refused"
	outcomeFailed  = "failed"  // the Kubernetes API was away
	outcomeLimited = "limited" // it was not asked, since too many reviews were wanted
)

type metrics struct {
	reviews *prometheus.CounterVec
	stale   prometheus.Counter
}

func newMetrics() *metrics {
	m := &metrics{
		reviews: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nexus_webhook_access_reviews_total",
			Help: "Questions to the Kubernetes API about callers of the HTTP API, by their kind and what came of them.",
		}, []string{"review", "outcome"}),
		stale: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nexus_webhook_access_outage_answers_total",
			Help: "Callers and actions that were allowed on an old answer, while the Kubernetes API was away.",
		}),
	}
	for _, review := range []string{reviewToken, reviewAccess} {
		for _, outcome := range []string{outcomeAllowed, outcomeRefused, outcomeFailed, outcomeLimited} {
			m.reviews.WithLabelValues(review, outcome)
		}
	}
	return m
}

func (m *metrics) register(registerer prometheus.Registerer, callers func() float64) {
	registerer.MustRegister(m.reviews, m.stale, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "nexus_webhook_access_known_callers",
		Help: "Bearer tokens that are remembered as good.",
	}, callers))
}

func (m *metrics) count(review, outcome string) { m.reviews.WithLabelValues(review, outcome).Inc() }
