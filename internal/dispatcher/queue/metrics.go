package queue

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	stale, lost, expired prometheus.Counter
	size                 *prometheus.Desc
	q                    *Queue
}

func newMetrics(q *Queue, registerer prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		registerer.MustRegister(c)
		return c
	}
	m := &metrics{
		q: q,
		stale: counter("nexus_webhook_stale_settlements_total",
			"Attempts that ended after their lease had run out; the delivery is sent again."),
		lost: counter("nexus_webhook_lost_leases_total",
			"Leases that could not be extended because they had run out."),
		expired: counter("nexus_webhook_expired_leases_total",
			"Leases that ran out and were taken back by this dispatcher, its own or those of one that died."),
		size: prometheus.NewDesc("nexus_webhook_queue_size",
			"Deliveries that are not finished: waiting, in flight or due for a retry. Over all replicas.", nil, nil),
	}
	registerer.MustRegister(m)
	return m
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) { ch <- m.size }

// Collect implements prometheus.Collector: the size is read from Redis at each scrape.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	size, err := m.q.Size(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(m.size, err)
		return
	}
	ch <- prometheus.MustNewConstMetric(m.size, prometheus.GaugeValue, float64(size))
}

const scrapeTimeout = 2 * time.Second

// Ping returns nil if Redis answers.
func (q *Queue) Ping(ctx context.Context) error {
	if err := q.client.Ping(ctx).Err(); err != nil {
		return unavailable(err)
	}
	return nil
}

// Time is that of Redis, by which the queue goes.
func (q *Queue) Time(ctx context.Context) (time.Time, error) {
	now, err := q.client.Time(ctx).Result()
	if err != nil {
		return now, unavailable(err)
	}
	return now, nil
}

// Size is the number of unfinished deliveries over all shards.
func (q *Queue) Size(ctx context.Context) (int64, error) {
	var size int64
	for _, s := range q.shards {
		n, err := q.client.HLen(ctx, s.keys.deliveries()).Result()
		if err != nil {
			return 0, unavailable(err)
		}
		size += n
	}
	return size, nil
}
