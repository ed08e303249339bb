// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package subscriptions

import (
	"context"
	"fmt"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/dispatcher/rest"
)

const (
	// maxBody bounds a request. The largest spec, with 32 headers of 4,096 characters each, has some 140 KiB.
	maxBody = 256 << 10
	// maxNames is how many names are tried; each further one has 25 random bits.
	maxNames = 5
	resource = "webhooksubscriptions"
)

// create serves POST /api/v1/subscriptions.
func (h *handler) create(w http.ResponseWriter, r *rest.Request) int {
	params := rest.Query(r.Request)
	namespace := params.Namespace(h.Namespace)
	if p := params.Problem(); p != nil {
		return p.Write(w)
	}
	may := rest.Action{Verb: "create", Resource: resource, Namespace: namespace}
	if p := rest.Refusal(r.Caller.May(r.Context(), may)); p != nil {
		return p.Write(w)
	}
	var fields Fields
	if p := rest.Decode(w, r.Request, maxBody, &fields); p != nil {
		return p.Write(w)
	}
	if p := h.checkNew(&fields); p != nil {
		return p.Write(w)
	}
	if !h.Cache.Ready() {
		return unready().Write(w)
	}
	spec, err := specOf(&fields)
	if err != nil {
		return rest.New(http.StatusUnprocessableEntity, "the body has no form of a subscription: "+err.Error()).Write(w)
	}
	sub, p := h.write(r.Context(), &v1alpha1.WebhookSubscription{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: slug(*fields.Name)}, Spec: spec,
	})
	if p != nil {
		return p.Write(w)
	}
	return h.handOver(w, r, sub)
}

func (h *handler) checkNew(fields *Fields) *rest.Problem {
	p := h.check(fields)
	if fields.Name != nil {
		return p
	}
	if p == nil {
		p = rest.New(http.StatusUnprocessableEntity, "")
	}
	return p.Field("name", "must be there, with 1 to 100 characters")
}

// write creates a subscription, under another name where that one is taken.
func (h *handler) write(
	ctx context.Context, sub *v1alpha1.WebhookSubscription,
) (*v1alpha1.WebhookSubscription, *rest.Problem) {
	base := sub.Name
	for range maxNames {
		written, err := h.cluster.create(ctx, sub)
		switch {
		case err == nil:
			return written, nil
		case !apierrors.IsAlreadyExists(err):
			return nil, h.refusal(err, sub.Namespace)
		}
		sub.Name = another(base)
	}
	return nil, rest.New(http.StatusConflict, fmt.Sprintf("%s and names like it are taken in the namespace %s: "+
		"choose another name", base, sub.Namespace))
}

// handOver waits until the key is there and events are routed, and answers with the key. Where that does not come in
// time nobody would have the key, so what was created is deleted.
func (h *handler) handOver(w http.ResponseWriter, r *rest.Request, sub *v1alpha1.WebhookSubscription) int {
	generates, secret, id := sub.GeneratesSigningKey(), "", idOf(sub)
	complete := wait(r.Context(), secretPatience, func() bool {
		if generates {
			secret = h.key(sub)
		}
		return (secret != "" || !generates) && h.isRouted(id, sub.Generation)
	})
	if !complete {
		return h.takeBack(context.WithoutCancel(r.Context()), sub).Write(w)
	}
	view := h.show(sub)
	view.Secret = secret
	w.Header().Set("Location", path+"/"+id)
	w.Header().Set("Cache-Control", "no-store")
	return rest.JSON(w, http.StatusCreated, view)
}

func (h *handler) takeBack(ctx context.Context, sub *v1alpha1.WebhookSubscription) *rest.Problem {
	const retry = 10 * time.Second
	err := h.cluster.remove(ctx, sub)
	if err == nil || apierrors.IsNotFound(err) {
		return rest.New(http.StatusServiceUnavailable, fmt.Sprintf("the subscription did not become usable within %s, "+
			"since its signing key or Redis is missing, and was deleted again: see that the manager runs and send this again",
			secretPatience)).Retry(retry)
	}
	h.Logger.Error("A subscription that did not become usable was not deleted", "subscription", idOf(sub),
		"namespace", sub.Namespace, "name", sub.Name, "error", err)
	return rest.New(http.StatusServiceUnavailable, fmt.Sprintf("the subscription %s (%s/%s) did not become usable within "+
		"%s and could not be deleted again: delete it, and create another",
		idOf(sub), sub.Namespace, sub.Name, secretPatience)).Retry(retry)
}
