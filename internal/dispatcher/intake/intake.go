// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/dispatcher/rest"
	"nexus.io/webhooks/internal/event"
	"nexus.io/webhooks/internal/routing"
)

// Publisher queues events and returns a receipt for each. An error says why some of them are queue.Unqueued; the other
// receipts hold all the same. It must not keep a Publication's Body after it returned.
type Publisher interface {
	Publish(ctx context.Context, publications []queue.Publication) ([]queue.Receipt, error)
}

// Options of the API.
type Options struct {
	Publisher Publisher // required
	// Table returns the present routing table, nil until the first one is complete: until then events are refused,
	// since they would miss subscriptions. Required.
	Table func() *routing.Table
	// Loading tells what keeps the first table from being complete, nil for nothing but its size. Whoever asks for the
	// readiness is shown it: no secrets.
	Loading    func() error
	Catalogue  *event.Catalogue      // event.Builtin()
	Checks     []Check               // what else must work for the dispatcher to be ready
	Limits     Limits                // of requests
	Registerer prometheus.Registerer // required
	Logger     *slog.Logger          // slog.Default()
}

// Limits of requests. A zero field takes the default that is named with it.
type Limits struct {
	MaxEventBytes  int64 // of one event: 1 MiB
	MaxBatchBytes  int64 // of a batch as a whole: 16 MiB
	MaxBatchEvents int   // events in a batch: 1,000
	// MaxBufferedBytes bounds the request bodies that are in memory at the same time, over all connections: four times
	// MaxBatchBytes. Until it is queued, an event takes up to three times its size. Bodies up to 8 KiB do not count,
	// the number of connections bounds those.
	MaxBufferedBytes int64
}

const (
	idleLogInterval = 10 * time.Second // between two lines about the same outage
	retryUnready    = 2 * time.Second
	retryFull       = 10 * time.Second
	retryDown       = 5 * time.Second
)

// New returns the routes of the event API, event types and health. The error names a missing option.
func New(o Options) ([]rest.Route, error) {
	if o.Publisher == nil || o.Table == nil || o.Registerer == nil {
		return nil, errors.New("intake needs a publisher, a table and a registerer")
	}
	setDefaults(&o)
	h := &handler{
		Options:    o,
		metrics:    newMetrics(o.Registerer),
		eventTypes: renderEventTypes(o.Catalogue),
		outages:    rate.Sometimes{First: 1, Interval: idleLogInterval},
	}
	return h.routes(), nil
}

func setDefaults(o *Options) {
	if o.Catalogue == nil {
		o.Catalogue = event.Builtin()
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	setDefault(&o.Limits.MaxEventBytes, 1<<20)
	setDefault(&o.Limits.MaxBatchBytes, 16<<20)
	setDefault(&o.Limits.MaxBatchEvents, 1000)
	setDefault(&o.Limits.MaxBufferedBytes, 4*o.Limits.MaxBatchBytes)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

type handler struct {
	Options
	metrics    *metrics
	eventTypes []byte // the answer, which never changes
	buffered   budget
	exchanges  sync.Pool // of *exchange
	outages    rate.Sometimes
}
