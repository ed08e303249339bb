// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package subscriptions

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nexus.io/webhooks/api/v1alpha1"
)

const (
	// secretPatience is how long a caller waits for the manager to make or rotate a key. The manager takes well below a
	// second; the rest is for one that is just being replaced, whose Lease another takes over within 15 seconds.
	secretPatience = 15 * time.Second
	// routePatience is how long an answer waits for this replica to see what it wrote, which takes milliseconds.
	routePatience = 5 * time.Second
	// lookAgain is the pause between two looks at the cache, which cost next to nothing.
	lookAgain = 10 * time.Millisecond
)

// wait looks until found says that it is there; false if the time is up or ctx ended first.
func wait(ctx context.Context, patience time.Duration, found func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for !found() {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
	return true
}

// isRouted tells whether this replica has seen what was written: cache and table hold that generation or a later one.
func (h *handler) isRouted(id string, generation int64) bool {
	route := h.Cache.Table().Route(id)
	if route == nil || route.Generation < generation {
		return false
	}
	sub := h.Cache.Object(id)
	return sub != nil && sub.Generation >= generation
}

// key returns the generated key of a subscription, "" while there is none or the cache has not seen it.
func (h *handler) key(sub *v1alpha1.WebhookSubscription) string {
	ref := sub.SigningKey()
	secret := h.Cache.Secret(sub.Namespace, ref.Name)
	if secret == nil || !metav1.IsControlledBy(secret, sub) {
		return ""
	}
	return string(secret.Data[ref.Key])
}
