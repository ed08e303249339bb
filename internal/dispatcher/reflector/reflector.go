// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package reflector writes how the deliveries of a subscription go into its status: status.delivery and the Delivering
// condition.
//
// It promises that one dispatcher at a time does so, that what is right is not written, that changes of state come
// before counters and none starves, and that the writes stay within a budget however many subscriptions there are.
// It knows neither how deliveries are made nor where routes come from.
package reflector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordination "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/routing"
)

// Queue tells what became of deliveries.
type Queue interface {
	// Changed gives statistics that were not marked as reflected, longest ago first.
	Changed(ctx context.Context, limit int, urgentOnly bool) ([]queue.Statistics, error)
	// Statistics of these subscriptions.
	Statistics(ctx context.Context, ids []string) ([]queue.Statistics, error)
	// Reflected marks statistics, unless they changed meanwhile.
	Reflected(ctx context.Context, statistics []queue.Statistics) error
}

// Source tells what is routed.
type Source interface {
	// Ready tells whether the table is complete. Nobody stands for election before.
	Ready() bool
	Table() *routing.Table
	// Subscription finds the cached object, and the route that was compiled from it or from an earlier generation.
	Subscription(id string) (*v1alpha1.WebhookSubscription, *routing.Route)
	// Subscribe calls f with the IDs of routes that changed, until stop is called.
	Subscribe(f func(ids []string)) (stop func())
}

// Options of a Reflector. Config, Queue, Subscriptions, Namespace and Identity are required.
type Options struct {
	// Config connects to the Kubernetes API, as somebody who may write the status of subscriptions, and Leases in
	// Namespace.
	Config        *rest.Config
	Queue         Queue
	Subscriptions Source
	// Namespace of the Lease by which one dispatcher is elected.
	Namespace string
	// LeaseName defaults to "webhooks-dispatcher-reflector".
	LeaseName string
	// Identity of this dispatcher in the election, unique among all.
	Identity string
	// WritesPerSecond and Burst are the budget of writes. Default: 20 and 40.
	WritesPerSecond float64
	Burst           int
	// UrgentEvery is how often changes of state are looked for. Default: 1 second.
	UrgentEvery time.Duration
	// CountersEvery is how often changed counters are looked for. Default: 2 seconds.
	CountersEvery time.Duration
	// CountersPause is for how long after its counters were read a status that was written is not written again for
	// counters alone, so that those that change all the time cost the Kubernetes API little. Default: 6 seconds.
	CountersPause time.Duration
	// LeaseDuration is how long others wait for an elected dispatcher that went silent, in whole seconds. Default: 15
	// seconds.
	LeaseDuration time.Duration
	// Registerer takes the metrics. Default: nobody does.
	Registerer prometheus.Registerer
	// Log defaults to slog.Default().
	Log *slog.Logger
}

const (
	defaultLeaseName       = "webhooks-dispatcher-reflector"
	defaultWritesPerSecond = 20
	defaultBurst           = 40
	defaultUrgentEvery     = time.Second
	defaultCountersEvery   = 2 * time.Second
	defaultCountersPause   = 6 * time.Second
	defaultLeaseDuration   = 15 * time.Second
	complainEvery          = 30 * time.Second
	readyEvery             = 100 * time.Millisecond
)

func (o *Options) setDefaults() {
	if o.LeaseName == "" {
		o.LeaseName = defaultLeaseName
	}
	if o.WritesPerSecond <= 0 {
		o.WritesPerSecond = defaultWritesPerSecond
	}
	if o.Burst <= 0 {
		o.Burst = defaultBurst
	}
	if o.UrgentEvery <= 0 {
		o.UrgentEvery = defaultUrgentEvery
	}
	if o.CountersEvery <= 0 {
		o.CountersEvery = defaultCountersEvery
	}
	if o.CountersPause <= 0 {
		o.CountersPause = defaultCountersPause
	}
	if o.LeaseDuration <= 0 {
		o.LeaseDuration = defaultLeaseDuration
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
}

// Reflector writes statuses while it is elected.
type Reflector struct {
	options Options
	log     *slog.Logger
	api     *applier
	leases  coordination.CoordinationV1Interface
	budget  *rate.Limiter
	metrics *metrics
	// complains bounds how often a lasting trouble is logged.
	complains *rate.Sometimes
	// term is held while this dispatcher is in office, so that two terms of its own never overlap.
	term sync.Mutex
}

// New makes a Reflector that does nothing until Run.
func New(options Options) (*Reflector, error) {
	options.setDefaults()
	if options.Identity == "" || options.Namespace == "" {
		return nil, errors.New("a reflector needs an identity and a namespace to be elected")
	}
	api, err := newApplier(options.Config)
	if err != nil {
		return nil, err
	}
	leases, err := coordination.NewForConfig(options.Config)
	if err != nil {
		return nil, fmt.Errorf("connect to the Kubernetes API: %w", err)
	}
	return &Reflector{
		options: options, log: options.Log, api: api, leases: leases,
		budget:    rate.NewLimiter(rate.Limit(options.WritesPerSecond), options.Burst),
		metrics:   newMetrics(options.Registerer),
		complains: &rate.Sometimes{Interval: complainEvery},
	}, nil
}

// Run stands for election, and reflects while elected, until ctx ends. The error is one of the options.
func (r *Reflector) Run(ctx context.Context) error {
	r.waitForSource(ctx)
	for ctx.Err() == nil {
		elector, err := leaderelection.NewLeaderElector(r.election())
		if err != nil {
			return fmt.Errorf("prepare the election of the reflector: %w", err)
		}
		elector.Run(klog.NewContext(ctx, logr.FromSlogHandler(calm{r.log.Handler(), r.complains})))
	}
	r.term.Lock() // the last term has ended
	defer r.term.Unlock()
	return nil
}

func (r *Reflector) waitForSource(ctx context.Context) {
	tick := time.NewTicker(readyEvery)
	defer tick.Stop()
	for !r.options.Subscriptions.Ready() {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (r *Reflector) election() leaderelection.LeaderElectionConfig {
	return leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: r.options.Namespace, Name: r.options.LeaseName},
			Client:     r.leases,
			LockConfig: resourcelock.ResourceLockConfig{Identity: r.options.Identity},
		},
		LeaseDuration:   r.options.LeaseDuration,
		RenewDeadline:   r.options.LeaseDuration * 2 / 3,
		RetryPeriod:     r.options.LeaseDuration * 2 / 15,
		ReleaseOnCancel: true,
		Name:            r.options.LeaseName,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: r.serve,
			OnStoppedLeading: func() {},
		},
	}
}

// serve is one term in office.
func (r *Reflector) serve(ctx context.Context) {
	r.term.Lock()
	defer r.term.Unlock()
	if ctx.Err() != nil {
		return
	}
	r.metrics.elected.Set(1)
	defer r.metrics.elected.Set(0)
	r.log.Info("Elected to write the statuses of subscriptions", slog.String("identity", r.options.Identity))
	newTerm(r).run(ctx)
	r.log.Info("Writing statuses ended", slog.String("identity", r.options.Identity))
}
