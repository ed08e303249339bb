// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package subscriptions

import (
	"errors"
	"iter"
	"log/slog"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	kube "k8s.io/client-go/rest"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/dispatcher/rest"
	"nexus.io/webhooks/internal/event"
	"nexus.io/webhooks/internal/routing"
)

// Cache is the cluster as this replica has seen it. What it returns is shared and is not changed.
type Cache interface {
	// Ready tells whether the cache and the table are complete.
	Ready() bool
	Object(id string) *v1alpha1.WebhookSubscription
	Objects() iter.Seq[*v1alpha1.WebhookSubscription]
	// Secret finds one that has opted in to being read.
	Secret(namespace, name string) *corev1.Secret
	Table() *routing.Table
}

// Options of the API. All but Logger are required.
type Options struct {
	// Config connects to the Kubernetes API, as somebody who may create, patch and delete subscriptions.
	Config    *kube.Config
	Cache     Cache
	Catalogue *event.Catalogue
	// Namespace is where a subscription is created that names none.
	Namespace string
	// RateLimit a minute is that of subscriptions that say none.
	RateLimit int
	Logger    *slog.Logger // slog.Default()
}

type handler struct {
	Options
	cluster *cluster
}

const path = "/api/v1/subscriptions"

// New returns the routes of the API.
func New(o Options) ([]rest.Route, error) {
	if o.Config == nil || o.Cache == nil || o.Catalogue == nil || o.Namespace == "" {
		return nil, errors.New("subscriptions need a way to the Kubernetes API, a cache, a catalogue and a namespace")
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	cluster, err := connect(o.Config)
	if err != nil {
		return nil, err
	}
	return (&handler{o, cluster}).routes(), nil
}

func (h *handler) routes() []rest.Route {
	return []rest.Route{
		{Method: http.MethodPost, Path: path, Serve: h.create},
		{Method: http.MethodGet, Path: path, Serve: h.list},
		{Method: http.MethodGet, Path: path + "/{id}", Serve: h.get},
		{Method: http.MethodPatch, Path: path + "/{id}", Serve: h.patch},
		{Method: http.MethodDelete, Path: path + "/{id}", Serve: rest.WithoutBody(h.remove)},
		{Method: http.MethodPost, Path: path + "/{id}/pause", Serve: rest.WithoutBody(h.pause)},
		{Method: http.MethodPost, Path: path + "/{id}/resume", Serve: rest.WithoutBody(h.resume)},
		{Method: http.MethodPost, Path: path + "/{id}/toggle", Serve: rest.WithoutBody(h.toggle)},
		{Method: http.MethodPost, Path: path + "/{id}/rotate-secret", Serve: rest.WithoutBody(h.rotate)},
	}
}
