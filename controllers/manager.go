// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"nexus.io/webhooks/api/v1alpha1"
)

const (
	// LeaderElectionID names the Lease that the managers of a cluster elect their leader with.
	LeaderElectionID = "webhooks-manager.webhooks.nexus.io"

	shutdownTimeout = 20 * time.Second
	readyTimeout    = time.Second
)

// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=system,resources=leases,verbs=create
// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=system,resources=leases,resourceNames=webhooks-manager.webhooks.nexus.io,verbs=get;update
// +kubebuilder:rbac:groups="",namespace=system,resources=events,verbs=create

// Options is what a Manager needs.
type Options struct {
	// Config connects to the API server.
	Config *rest.Config
	// Catalogue knows the event types of this cluster.
	Catalogue Catalogue
	// Namespaces are those to follow, as somebody who may do so in each of them; none follows all.
	Namespaces []string
	// Logger gets everything that the manager and its libraries log.
	Logger *slog.Logger
	// MetricsAddress is where Prometheus metrics are served (host:port); "0" serves none.
	MetricsAddress string
	// HealthAddress is where /healthz and /readyz are served (host:port); "0" serves none.
	HealthAddress string
	// LeaderElection lets several managers run, of which one works.
	LeaderElection bool
	// LeaderElectionNamespace holds the Lease. Default: the namespace that the manager's Pod runs in.
	LeaderElectionNamespace string
}

// Manager runs the reconcilers.
type Manager struct {
	ctrl.Manager
}

// NewManager builds a manager. It listens and reads the API only from Run on.
func NewManager(ctx context.Context, options Options) (*Manager, error) {
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	mgr, err := ctrl.NewManager(unthrottled(options.Config), managerOptions(scheme, options))
	if err != nil {
		return nil, fmt.Errorf("build the manager: %w", err)
	}
	reconciler := &SubscriptionReconciler{
		Client:    mgr.GetClient(),
		Live:      mgr.GetAPIReader(),
		Events:    mgr.GetEventRecorder(v1alpha1.FieldOwnerManager),
		Catalogue: options.Catalogue,
		Now:       time.Now,
	}
	if err := reconciler.SetupWithManager(ctx, mgr); err != nil {
		return nil, err
	}
	if err := addListeners(mgr, options); err != nil {
		return nil, err
	}
	return &Manager{Manager: mgr}, nil
}

// unthrottled is the same connection without client-go's own limit, unless somebody set one: by default that is 5
// requests a second, with which many subscriptions would take hours. The API server protects itself by priority and
// fairness.
func unthrottled(original *rest.Config) *rest.Config {
	connection := rest.CopyConfig(original)
	if connection.QPS == 0 && connection.RateLimiter == nil {
		connection.QPS = -1
	}
	return connection
}

// Run works until ctx ends or something fails, then stops within 20 seconds and gives the leadership up.
func (m *Manager) Run(ctx context.Context) error {
	if err := m.Start(ctx); err != nil {
		return fmt.Errorf("run the manager: %w", err)
	}
	return nil
}

func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	builder := runtime.NewSchemeBuilder(clientgoscheme.AddToScheme, v1alpha1.AddToScheme)
	if err := builder.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("register the API types: %w", err)
	}
	return scheme, nil
}

func managerOptions(scheme *runtime.Scheme, options Options) ctrl.Options {
	timeout, yes := shutdownTimeout, true
	// Data of Secrets and ConfigMaps is read when it is needed and never kept: only their metadata is cached, and of
	// ConfigMaps that of those which opted in, since a cluster is full of others.
	uncached := []client.Object{&corev1.Secret{}, &corev1.ConfigMap{}}
	readable := labels.SelectorFromSet(labels.Set{v1alpha1.LabelReadable: v1alpha1.LabelReadableValue})
	var followed map[string]cache.Config // nil for all
	for _, namespace := range options.Namespaces {
		if followed == nil {
			followed = map[string]cache.Config{}
		}
		followed[namespace] = cache.Config{}
	}
	return ctrl.Options{
		Scheme:  scheme,
		Logger:  logr.FromSlogHandler(options.Logger.Handler()),
		Metrics: metricsserver.Options{BindAddress: noListener}, // addListeners has them, and the probes
		Cache: cache.Options{
			DefaultTransform: cache.TransformStripManagedFields(), DefaultNamespaces: followed,
			ByObject: map[client.Object]cache.ByObject{&corev1.ConfigMap{}: {Label: readable}},
		},
		Client: client.Options{Cache: &client.CacheOptions{DisableFor: uncached}},

		LeaderElection:                options.LeaderElection,
		LeaderElectionID:              LeaderElectionID,
		LeaderElectionNamespace:       options.LeaderElectionNamespace,
		LeaderElectionReleaseOnCancel: true,
		GracefulShutdownTimeout:       &timeout,
		// Several managers may live in one process: tests, and the quickstart of those who embed this.
		Controller: config.Controller{SkipNameValidation: &yes},
	}
}
