// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package watch

import "github.com/prometheus/client_golang/prometheus"

var (
	activeMetric = prometheus.NewDesc("nexus_webhook_active_subscriptions",
		"Active subscriptions whose events hold the event type.", []string{"event_type"}, nil)
	routesMetric = prometheus.NewDesc("nexus_webhook_routing_table_routes",
		"Subscriptions in the routing table, active or not.", nil, nil)
	changeMetric = prometheus.NewDesc("nexus_webhook_routing_table_last_change_timestamp_seconds",
		"When the routing table last changed, 0 for never.", nil, nil)
	waitingMetric = prometheus.NewDesc("nexus_webhook_routing_table_changes_waiting",
		"Changes of subscriptions that are not in the routing table yet.", nil, nil)
)

const millisecondsPerSecond = 1000

// collector reads the table when it is asked.
type collector struct {
	w          *Watcher
	eventTypes []string
}

// Collector makes the metrics of the table; eventTypes are those that the cluster knows, and the only label values.
func (w *Watcher) Collector(eventTypes []string) prometheus.Collector {
	return collector{w, eventTypes}
}

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{activeMetric, routesMetric, changeMetric, waitingMetric} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	table := c.w.Table()
	for _, eventType := range c.eventTypes {
		gauge(activeMetric, float64(table.CountByType(eventType)), eventType)
	}
	gauge(routesMetric, float64(table.Len()))
	gauge(changeMetric, float64(c.w.lastChange.Load())/millisecondsPerSecond)
	gauge(waitingMetric, float64(c.w.changes.len()))
}
