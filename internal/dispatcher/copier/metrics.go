// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package copier

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"nexus.io/webhooks/internal/dispatcher/history"
	"nexus.io/webhooks/internal/dispatcher/queue"
)

type metrics struct {
	queue            *queue.Queue
	copied           *prometheus.CounterVec
	lag, bytes, lost *prometheus.Desc
}

func newMetrics(q *queue.Queue, registerer prometheus.Registerer) *metrics {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("nexus_webhook_history_"+name, help+" Over all replicas.", nil, nil)
	}
	m := &metrics{
		queue: q,
		copied: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nexus_webhook_history_copied_total",
			Help: "Deliveries that this dispatcher copied into the history in PostgreSQL, by result: stored, repeated " +
				"(it was there already), expired (its day is no longer kept), rejected (it cannot be kept).",
		}, []string{"result"}),
		lag: desc("lag_seconds", "How long the oldest delivery that has ended waits to be copied into the history in "+
			"PostgreSQL; 0 where none waits."),
		bytes: desc("outbox_bytes", "What waits to be copied takes so much of Redis; a body counts for each delivery of it."),
		lost:  desc("lost_total", "Deliveries that are missing from the history in PostgreSQL, since more waited than may."),
	}
	for _, result := range []string{"stored", "repeated", "expired", "rejected"} {
		m.copied.WithLabelValues(result)
	}
	registerer.MustRegister(m.copied, m)
	return m
}

func (m *metrics) count(w history.Written) {
	m.copied.WithLabelValues("stored").Add(float64(w.Stored))
	m.copied.WithLabelValues("repeated").Add(float64(w.Repeated))
	m.copied.WithLabelValues("expired").Add(float64(w.Expired))
	m.copied.WithLabelValues("rejected").Add(float64(len(w.Rejected)))
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- m.lag
	ch <- m.bytes
	ch <- m.lost
}

const scrapeTimeout = 2 * time.Second

// Collect implements prometheus.Collector: the outbox is read from Redis at each scrape.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	backlog, err := m.queue.Backlog(ctx)
	if err != nil {
		for _, desc := range []*prometheus.Desc{m.lag, m.bytes, m.lost} {
			ch <- prometheus.NewInvalidMetric(desc, err)
		}
		return
	}
	ch <- prometheus.MustNewConstMetric(m.lag, prometheus.GaugeValue, backlog.Age.Seconds())
	ch <- prometheus.MustNewConstMetric(m.bytes, prometheus.GaugeValue, float64(backlog.Bytes))
	ch <- prometheus.MustNewConstMetric(m.lost, prometheus.CounterValue, float64(backlog.Lost))
}
