// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package deliveries

import (
	"context"
	"net/http"

	"nexus.io/webhooks/internal/dispatcher/history"
	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/dispatcher/rest"
)

// get serves GET /api/v1/deliveries/{id}.
func (h *handler) get(w http.ResponseWriter, r *rest.Request) int {
	d, p := h.find(r, "get")
	if p != nil {
		return p.Write(w)
	}
	page, _, err := h.addBodies(r.Context(), []*Delivery{d}, "")
	if err != nil {
		return h.failed(r.Context(), err).Write(w)
	}
	return rest.JSON(w, http.StatusOK, page[0])
}

// find returns the delivery of the path, with which the caller may do this.
func (h *handler) find(r *rest.Request, verb string) (*Delivery, *rest.Problem) {
	if p := rest.Query(r.Request).Problem(); p != nil {
		return nil, p
	}
	id := r.PathValue("id")
	if _, err := history.ParseID(id); err != nil {
		return nil, notFound(id)
	}
	open, ended, err := h.store.Find(r.Context(), id)
	if err != nil {
		return nil, h.failed(r.Context(), err)
	}
	var d *Delivery
	switch {
	case open != nil:
		d = h.viewUnfinished(open)
		d.last(&ended.Record)
		d.AttemptNumber = open.Attempts
	case ended != nil:
		d = viewEnded(ended)
	default:
		var p *rest.Problem
		if d, p = h.findArchived(r.Context(), id); p != nil {
			return nil, p
		}
		ended = &queue.Ended{Record: *d.record}
	}
	d.withAttempts(&ended.Record)
	return d, rest.RefusalByID(r.Caller.May(r.Context(), rest.Action{
		Verb: verb, Resource: resource, Subresource: subresource, Namespace: d.namespace,
	}))
}

// changed answers a retry or a cancellation.
type changed struct {
	Status     string `json:"status"`
	DeliveryID string `json:"delivery_id"`
	ReplayOf   string `json:"replay_of,omitempty"`
}

// retry serves POST /api/v1/deliveries/{id}/retry.
func (h *handler) retry(w http.ResponseWriter, r *rest.Request) int {
	return h.change(w, r, func(ctx context.Context, d *Delivery) (queue.Changed, error) {
		c, err := h.store.Retry(ctx, d.ID)
		if err == nil && c.Outcome == queue.NotFound && d.record != nil {
			return h.retryAgain(ctx, d)
		}
		return c, err
	}, http.StatusAccepted)
}

// cancel serves POST /api/v1/deliveries/{id}/cancel.
func (h *handler) cancel(w http.ResponseWriter, r *rest.Request) int {
	return h.change(w, r, func(ctx context.Context, d *Delivery) (queue.Changed, error) {
		return h.store.CancelDelivery(ctx, d.ID)
	}, http.StatusOK)
}

func (h *handler) change(
	w http.ResponseWriter, r *rest.Request, do func(context.Context, *Delivery) (queue.Changed, error), status int,
) int {
	if p := rest.NoBody(w, r.Request); p != nil {
		return p.Write(w)
	}
	d, p := h.find(r, "create")
	if p != nil {
		return p.Write(w)
	}
	c, err := do(r.Context(), d)
	if err != nil {
		return h.failed(r.Context(), err).Write(w)
	}
	switch c.Outcome {
	case queue.Requeued:
		answer := changed{"queued", c.ID, ""}
		if c.ID != d.ID {
			answer.ReplayOf = d.ID
		}
		return rest.JSON(w, status, answer)
	case queue.Canceled:
		return rest.JSON(w, status, changed{"canceled", c.ID, ""})
	case queue.NotFound:
		return notFound(d.ID).Write(w)
	default:
		return rest.New(http.StatusConflict, conflicts[c.Outcome]).Write(w)
	}
}

// conflicts say why a delivery's state does not allow what is asked.
var conflicts = map[queue.ChangeOutcome]string{
	queue.InFlight:     "the delivery is being sent just now: ask again once its attempt has ended",
	queue.AlreadyEnded: "the delivery has ended: there is nothing to cancel",
	queue.Unqueueable: "the delivery cannot be queued again: its subscription is gone or its backlog is full, or " +
		"the queue is, or its body is no longer kept",
}
