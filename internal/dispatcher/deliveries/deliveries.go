// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package deliveries is the HTTP API of deliveries: those that wait, those that have ended, and what a person may do
// with one.
//
// It promises that a list shows only what its caller may see, newest first, without a gap or a repetition from page to
// page, and that a client finds there what has just ended. It shows no secret: its stores hold none.
// It knows nothing of how deliveries are sent, nor where the history lies.
package deliveries

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"net/http"
	"time"

	"nexus.io/webhooks/internal/dispatcher/history"
	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/dispatcher/rest"
	"nexus.io/webhooks/internal/routing"
)

// Store holds the deliveries; *queue.Queue is one.
type Store interface {
	Unfinished(ctx context.Context, s queue.Selection) ([]queue.Unfinished, error)
	History(ctx context.Context, f history.Filter, visible func(namespace string) bool) (
		[]queue.Ended, history.Cursor, error)
	Find(ctx context.Context, id string) (*queue.Unfinished, *queue.Ended, error)
	LastAttempts(ctx context.Context, deliveries []*queue.Unfinished) ([]*history.Record, error)
	Bodies(ctx context.Context, at []queue.Body) ([][]byte, error)
	Retry(ctx context.Context, id string) (queue.Changed, error)
	CancelDelivery(ctx context.Context, id string) (queue.Changed, error)
	Outbox
	Operator
}

// Routes finds the route of a subscription, nil if there is none, and all.
type Routes interface {
	Route(subscriptionID string) *routing.Route
	All() iter.Seq[*routing.Route]
}

type handler struct {
	store   Store
	archive Archive // nil: the store's history is all there is
	routes  Routes
	log     *slog.Logger
}

const (
	path        = "/api/v1/deliveries"
	resource    = "webhooksubscriptions"
	subresource = "deliveries"
)

// New returns the routes of the API. The archive is nil where there is none.
func New(store Store, archive Archive, routes Routes, log *slog.Logger) []rest.Route {
	h := &handler{store, archive, routes, log}
	return append(h.bulkRoutes(store), []rest.Route{
		{Method: http.MethodGet, Path: path, Serve: h.list},
		{Method: http.MethodGet, Path: path + "/pending", Serve: h.pending},
		{Method: http.MethodGet, Path: path + "/{id}", Serve: h.get},
		{Method: http.MethodGet, Path: "/api/v1/events/{id}", Serve: h.event},
		{Method: http.MethodPost, Path: path + "/{id}/retry", Serve: h.retry},
		{Method: http.MethodPost, Path: path + "/{id}/cancel", Serve: h.cancel},
	}...)
}

// namespaceOf is that of an unfinished delivery's subscription, "" where that is being deleted.
func (h *handler) namespaceOf(subscriptionID string) string {
	if route := h.routes.Route(subscriptionID); route != nil {
		return route.Namespace
	}
	return ""
}

const retryAway = 5 * time.Second

// failed turns an error of the store into the answer.
func (h *handler) failed(ctx context.Context, err error) *rest.Problem {
	if errors.Is(err, queue.ErrTooMany) {
		return rest.New(http.StatusUnprocessableEntity, err.Error()+", too many to be put in order: add namespace or "+
			"subscription_id, or take the list of all deliveries").Field("subscription_id", "must be there while so many wait")
	}
	if errors.Is(err, history.ErrUnavailable) || errors.Is(err, queue.ErrBehind) {
		h.log.DebugContext(ctx, "History cannot be read", "error", err) // the copier tells of an outage, now and then
		return behind(err)
	}
	h.log.WarnContext(ctx, "Deliveries cannot be read or changed", "error", err)
	return rest.New(http.StatusServiceUnavailable, "the deliveries cannot be read or changed just now, since Redis does "+
		"not answer: send this again later").Retry(retryAway)
}

func notFound(id string) *rest.Problem {
	return rest.New(http.StatusNotFound, "there is no delivery "+quoted(id)+", or it is no longer kept")
}
