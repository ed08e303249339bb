// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package subscriptions

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"reflect"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/dispatcher/rest"
)

const (
	// maxTries bounds how often a change is decided anew because somebody else was quicker: other callers, and with
	// each of their changes the manager and the reflector, which write the status.
	maxTries = 20
	// mostPause bounds the random pause between two tries, which lets those who are at it together take turns.
	mostPause = 50 * time.Millisecond
)

// decision is what a change makes of the present object: the merge patch of its spec, empty where nothing changes.
type decision func(sub *v1alpha1.WebhookSubscription) (document, *rest.Problem)

// change applies a decision to the subscription of the path, and waits until this replica has seen it.
func (h *handler) change(r *rest.Request, decide decision) (*v1alpha1.WebhookSubscription, *rest.Problem) {
	params := rest.Query(r.Request)
	force := params.Bool("force", false)
	if p := params.Problem(); p != nil {
		return nil, p
	}
	sub, p := h.find(r, "patch")
	if p != nil {
		return nil, p
	}
	written, p := h.again(r.Context(), sub, func(
		sub *v1alpha1.WebhookSubscription,
	) (*v1alpha1.WebhookSubscription, *rest.Problem, error) {
		if p := checkManaged(sub, force); p != nil {
			return nil, p, nil
		}
		spec, p := decide(sub)
		if p != nil || len(spec) == 0 {
			return sub, p, nil
		}
		written, err := h.cluster.patch(r.Context(), sub, spec)
		return written, nil, err
	})
	if p != nil {
		return nil, p
	}
	// What was written is written: where this replica does not see it in time, it is the answer all the same.
	wait(r.Context(), routePatience, func() bool { return h.isRouted(idOf(sub), written.Generation) })
	return written, nil
}

// again writes an object, and does so anew to its present state while somebody else was quicker.
func (h *handler) again(ctx context.Context, sub *v1alpha1.WebhookSubscription, write func(
	*v1alpha1.WebhookSubscription,
) (*v1alpha1.WebhookSubscription, *rest.Problem, error),
) (*v1alpha1.WebhookSubscription, *rest.Problem) {
	id := idOf(sub)
	for range maxTries {
		written, p, err := write(sub)
		switch {
		case p != nil:
			return nil, p
		case err == nil:
			return written, nil
		case apierrors.IsNotFound(err):
			return nil, notFound(id)
		case !apierrors.IsConflict(err):
			return nil, h.refusal(err, sub.Namespace)
		}
		if !pause(ctx) {
			return nil, busy()
		}
		live, err := h.cluster.get(ctx, sub)
		switch {
		case apierrors.IsNotFound(err) || (err == nil && live.UID != sub.UID):
			return nil, notFound(id)
		case err != nil:
			return nil, h.refusal(err, sub.Namespace)
		}
		sub = live
	}
	return nil, busy()
}

// pause waits a little, false if ctx ended first.
func pause(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(rand.N(mostPause)): //nolint:gosec // nothing depends on its being guessed
		return true
	}
}

// patch serves PATCH /api/v1/subscriptions/{id}.
func (h *handler) patch(w http.ResponseWriter, r *rest.Request) int {
	body, p := rest.Read(w, r.Request, maxBody)
	if p != nil {
		return p.Write(w)
	}
	changes := document{}
	if p := rest.Unmarshal(body, &Fields{}); p != nil { // their names and types; null clears
		return p.Write(w)
	}
	if err := json.Unmarshal(body, &changes); err != nil {
		return rest.New(http.StatusBadRequest, "the body is not a JSON object").Write(w)
	}
	sub, p := h.change(r, func(sub *v1alpha1.WebhookSubscription) (document, *rest.Problem) {
		return h.merged(&sub.Spec, changes)
	})
	if p != nil {
		return p.Write(w)
	}
	return rest.JSON(w, http.StatusOK, h.show(sub))
}

// merged applies a merge patch (RFC 7396) in the API's words to a spec, and returns it as one of the spec itself.
func (h *handler) merged(spec *v1alpha1.WebhookSubscriptionSpec, changes document) (document, *rest.Problem) {
	bad := func(err error) (document, *rest.Problem) {
		return nil, rest.New(http.StatusUnprocessableEntity, "the change makes no subscription: "+err.Error())
	}
	present, err := fieldsOf(spec)
	if err != nil {
		return bad(err)
	}
	text, err := json.Marshal(merge(present, changes))
	if err != nil {
		return bad(err)
	}
	var fields Fields
	if p := rest.Unmarshal(text, &fields); p != nil {
		return nil, p
	}
	if p := h.check(&fields); p != nil {
		return nil, p
	}
	next, err := specOf(&fields)
	if err != nil {
		return bad(err)
	}
	return difference(spec, &next)
}

// merge is that of RFC 7396.
func merge(present any, patch document) document {
	from, _ := present.(document)
	merged := make(document, len(from)+len(patch))
	for name, value := range from {
		merged[name] = value
	}
	for name, value := range patch {
		switch value := value.(type) {
		case nil:
			delete(merged, name)
		case document:
			merged[name] = merge(merged[name], value)
		default:
			merged[name] = value
		}
	}
	return merged
}

// difference is the merge patch from one spec to another.
func difference(from, to *v1alpha1.WebhookSubscriptionSpec) (document, *rest.Problem) {
	before, err := documentOf(from)
	if err != nil {
		return nil, rest.New(http.StatusUnprocessableEntity, err.Error())
	}
	after, err := documentOf(to)
	if err != nil {
		return nil, rest.New(http.StatusUnprocessableEntity, err.Error())
	}
	return differ(before, after), nil
}

func differ(before, after document) document {
	patch := document{}
	for name := range before {
		if _, stays := after[name]; !stays {
			patch[name] = nil
		}
	}
	for name, value := range after {
		old, is := before[name].(document)
		inner, both := value.(document)
		switch {
		case reflect.DeepEqual(before[name], value):
		case is && both:
			patch[name] = differ(old, inner)
		default:
			patch[name] = value
		}
	}
	return patch
}

// paused is the answer to pause and resume.
type paused struct {
	SubscriptionID string `json:"subscription_id"`
	Paused         bool   `json:"paused"`
	Pending        int64  `json:"pending"` // deliveries that wait, as of some seconds ago
}

// pause serves POST /api/v1/subscriptions/{id}/pause.
func (h *handler) pause(w http.ResponseWriter, r *rest.Request) int { return h.setPaused(w, r, true) }

// resume serves POST /api/v1/subscriptions/{id}/resume.
func (h *handler) resume(w http.ResponseWriter, r *rest.Request) int { return h.setPaused(w, r, false) }

func (h *handler) setPaused(w http.ResponseWriter, r *rest.Request, value bool) int {
	sub, p := h.change(r, func(sub *v1alpha1.WebhookSubscription) (document, *rest.Problem) {
		if sub.IsPaused() == value {
			return nil, nil
		}
		return document{"paused": value}, nil
	})
	if p != nil {
		return p.Write(w)
	}
	answer := paused{SubscriptionID: idOf(sub), Paused: sub.IsPaused()}
	if sub.Status.Delivery != nil {
		answer.Pending = sub.Status.Delivery.Pending
	}
	return rest.JSON(w, http.StatusOK, answer)
}

// toggle serves POST /api/v1/subscriptions/{id}/toggle.
func (h *handler) toggle(w http.ResponseWriter, r *rest.Request) int {
	sub, p := h.change(r, func(sub *v1alpha1.WebhookSubscription) (document, *rest.Problem) {
		return document{"active": !sub.IsActive()}, nil
	})
	if p != nil {
		return p.Write(w)
	}
	return rest.JSON(w, http.StatusOK, struct {
		SubscriptionID string `json:"subscription_id"`
		Active         bool   `json:"active"`
	}{idOf(sub), sub.IsActive()})
}

// remove serves DELETE /api/v1/subscriptions/{id}.
func (h *handler) remove(w http.ResponseWriter, r *rest.Request) int {
	params := rest.Query(r.Request)
	force := params.Bool("force", false)
	if p := params.Problem(); p != nil {
		return p.Write(w)
	}
	sub, p := h.find(r, "delete")
	if p == nil {
		p = checkManaged(sub, force)
	}
	if p != nil {
		return p.Write(w)
	}
	id := idOf(sub)
	switch err := h.cluster.remove(r.Context(), sub); {
	case apierrors.IsNotFound(err) || apierrors.IsConflict(err): // gone, or another one has its name
		return notFound(id).Write(w)
	case err != nil:
		return h.refusal(err, sub.Namespace).Write(w)
	}
	wait(r.Context(), routePatience, func() bool {
		return h.Cache.Table().Route(id) == nil && h.Cache.Object(id) == nil
	})
	return rest.JSON(w, http.StatusOK, struct {
		Status         string `json:"status"`
		SubscriptionID string `json:"subscription_id"`
	}{"deleted", id})
}
