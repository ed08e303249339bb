// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"iter"

	corev1 "k8s.io/api/core/v1"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/event"
)

// Object finds the subscription of an ID in the cache, whether it is routed already or not, nil if there is none. It is
// shared and must not be changed.
func (w *Watcher) Object(id string) *v1alpha1.WebhookSubscription {
	if sub, _ := w.Subscription(id); sub != nil {
		return sub
	}
	for sub := range w.Objects() {
		// The hash is for those alone whose status says it, or says nothing yet.
		if (sub.Status.ID == id || sub.Status.ID == "") && event.SubscriptionID(string(sub.UID)) == id {
			return sub
		}
	}
	return nil
}

// Objects lists the subscriptions in the cache, in no order. They are shared and must not be changed.
func (w *Watcher) Objects() iter.Seq[*v1alpha1.WebhookSubscription] {
	return func(yield func(*v1alpha1.WebhookSubscription) bool) {
		for _, p := range w.objects.places {
			for _, item := range p.subscriptions.GetStore().List() {
				if sub, is := item.(*v1alpha1.WebhookSubscription); is && !yield(sub) {
					return
				}
			}
		}
	}
}

// Secret finds a Secret that has opted in, as the cache has it, nil if there is none. It is shared and must not be
// changed, logged or shown.
func (w *Watcher) Secret(namespace, name string) *corev1.Secret {
	return w.objects.secret(namespace, name)
}
