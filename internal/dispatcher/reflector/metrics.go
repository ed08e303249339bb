// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package reflector

import "github.com/prometheus/client_golang/prometheus"

// Results of a write, the values of the label result.
const (
	resultWritten  = "written"
	resultGone     = "gone"
	resultConflict = "conflict"
	resultFailed   = "failed"
)

type metrics struct {
	elected prometheus.Gauge
	waiting prometheus.Gauge
	writes  *prometheus.CounterVec
}

func newMetrics(registerer prometheus.Registerer) *metrics {
	m := &metrics{
		elected: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "nexus_webhook_status_elected", Help: "1 while this dispatcher writes the statuses of subscriptions.",
		}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "nexus_webhook_status_waiting", Help: "Subscriptions whose status waits to be compared or written.",
		}),
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nexus_webhook_status_writes_total", Help: "Writes of statuses, by result: written, gone, conflict or failed.",
		}, []string{"result"}),
	}
	for _, result := range []string{resultWritten, resultGone, resultConflict, resultFailed} {
		m.writes.WithLabelValues(result)
	}
	if registerer != nil {
		registerer.MustRegister(m.elected, m.waiting, m.writes)
	}
	return m
}
