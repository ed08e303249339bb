// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package reflector writes what the queue counted into status.delivery and the Delivering condition.
//
// It promises that one dispatcher at a time writes, that a change of health shows within about 2 s and counters within
// about 10 s, that what is unchanged is not written, and that writes never exceed their budget, however many
// subscriptions change: then the longest waiting come first. It knows nothing of events, requests and secrets.
package reflector

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/routing"
)

// LeaseName is the Lease by which the dispatchers elect the one that writes.
const LeaseName = "webhooks-dispatcher-reflector"

// A leader that died is followed after leaseDuration; until then statistics wait in the queue.
const (
	leaseDuration = 10 * time.Second
	renewDeadline = 7 * time.Second
	retryPeriod   = 2 * time.Second
)

// Queue counts.
type Queue interface {
	Changed(ctx context.Context, limit int, urgentOnly bool) ([]queue.Statistics, error)
	Statistics(ctx context.Context, ids []string) ([]queue.Statistics, error)
	Reflected(ctx context.Context, statistics []queue.Statistics) error
}

// Subscriptions finds what is written to.
type Subscriptions interface {
	// Subscription gives the cached object and its route; nil where there is none.
	Subscription(id string) (*v1alpha1.WebhookSubscription, *routing.Route)
	// Subscribe calls f with the ids of routes that change, until stop.
	Subscribe(f func(ids []string)) (stop func())
	Table() *routing.Table
	Ready() bool
}

// Options of a Reflector. All but the last two are required.
type Options struct {
	Config        *rest.Config // to the Kubernetes API, as somebody who may patch the status and hold the Lease
	Namespace     string       // of the Lease
	Identity      string       // of this process, unique
	Queue         Queue
	Subscriptions Subscriptions
	// WritesPerSecond is the budget; twice as many may come at once after a pause. Default: 20.
	WritesPerSecond float64
	Log             *slog.Logger // slog.Default()
}

// Reflector writes while its process is elected.
type Reflector struct {
	Options
	client client.Client
	leases kubernetes.Interface
}

// New makes a Reflector that does nothing until Run.
func New(o Options) (*Reflector, error) {
	if o.WritesPerSecond == 0 {
		o.WritesPerSecond = 20
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("register the subscription's types: %w", err)
	}
	c, err := client.New(o.Config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("connect to the Kubernetes API: %w", err)
	}
	leases, err := kubernetes.NewForConfig(o.Config)
	if err != nil {
		return nil, fmt.Errorf("connect to the Kubernetes API: %w", err)
	}
	return &Reflector{Options: o, client: c, leases: leases}, nil
}

// Run stands for election until ctx ends, and writes while elected. Its only end is that of ctx.
func (r *Reflector) Run(ctx context.Context) error {
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Name: LeaseName, Namespace: r.Namespace},
			Client:     r.leases.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: r.Identity},
		},
		LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod,
		ReleaseOnCancel: true, Name: LeaseName,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: r.term,
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return fmt.Errorf("stand for election: %w", err)
	}
	for ctx.Err() == nil {
		elector.Run(ctx)
	}
	return nil
}
