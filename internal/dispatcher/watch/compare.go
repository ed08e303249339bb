// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nexus.io/webhooks/internal/event"
)

const (
	comparePage    = 500
	compareTimeout = 5 * time.Minute
	// A comparison cancels at most massShare of what the queue knows if that is more than massCount: so much is more
	// likely a Redis that is shared with another cluster than subscriptions that were deleted unseen.
	massCount = 100
	massShare = 0.5
)

// comparison finds subscriptions that were deleted unseen: while no dispatcher ran, or while the watch was interrupted.
// Cancelling cannot be undone, so absence from the caches is not enough. A subscription is gone if the Kubernetes API,
// read past every cache, does not have it; its route leaves the table then. Its deliveries are cancelled if the next
// comparison, ConfirmAfter later, finds the same. An error, a list that breaks off, or the loss of most of what the
// queue knows, cancels nothing.
type comparison struct {
	w        *Watcher
	suspects map[string]bool // missing at the previous comparison
}

func newComparison(w *Watcher) *comparison {
	return &comparison{w: w}
}

// run compares now, regularly, and when there is doubt, until ctx ends.
func (c *comparison) run(ctx context.Context) {
	for {
		err := c.compare(ctx)
		if ctx.Err() != nil {
			return
		}
		next := c.w.options.CompareEvery
		if err != nil {
			c.suspects = nil
			c.w.log.Warn("Comparing the queue with the routing table, trying again", slog.Any("error", err))
		}
		if err != nil || len(c.suspects) > 0 {
			next = min(next, c.w.options.ConfirmAfter)
		}
		c.wait(ctx, next)
	}
}

// wait lasts at most d. Doubt ends it early, but not while suspects wait for their confirmation: two comparisons right
// after one another would be hardly more than one.
func (c *comparison) wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	doubt := c.w.doubt
	if len(c.suspects) > 0 {
		doubt = nil
	}
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-doubt:
	}
}

// compare looks at the queue first and at the Kubernetes API then, so that what is configured meanwhile is in both.
func (c *comparison) compare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, compareTimeout)
	defer cancel()
	list, err := c.w.options.Queue.Known(ctx)
	if err != nil {
		return fmt.Errorf("list what the queue knows: %w", err)
	}
	known := make(map[string]bool, len(list))
	for _, id := range list {
		known[id] = true
	}
	if c.reconfigure(known) {
		c.suspects = nil
		return nil
	}
	existing, err := c.existing(ctx)
	if err != nil {
		return err
	}
	c.leave(existing)
	c.judge(known, existing)
	return nil
}

// reconfigure has the queue told again of routes that it does not know. It tells whether the table holds all that the
// queue knows, and a cache holds each route's object.
func (c *comparison) reconfigure(known map[string]bool) (complete bool) {
	complete, both := true, 0
	for r := range c.w.Table().All() {
		if known[r.ID] {
			both++
		} else {
			c.w.changes.reconfigure(key{r.Namespace, r.Name})
		}
		complete = complete && c.w.object(r) != nil
	}
	return complete && both == len(known)
}

// existing lists the IDs of all subscriptions that are followed, from the Kubernetes API itself, none of its caches. An
// incomplete list is an error.
func (c *comparison) existing(ctx context.Context) (map[string]bool, error) {
	ids := map[string]bool{}
	for _, namespace := range c.w.namespaces() {
		if err := c.existingIn(ctx, namespace, ids); err != nil {
			return nil, fmt.Errorf("list the subscriptions that exist: %w", err)
		}
	}
	return ids, nil
}

// existingIn adds those of a namespace, read in pages of one consistent snapshot.
func (c *comparison) existingIn(ctx context.Context, namespace string, ids map[string]bool) error {
	subscriptions := c.w.live(namespace)
	options := metav1.ListOptions{Limit: comparePage}
	for {
		page, err := subscriptions.List(ctx, options)
		if err != nil {
			return err
		}
		for i := range page.Items {
			ids[event.SubscriptionID(string(page.Items[i].UID))] = true
		}
		if options.Continue = page.Continue; options.Continue == "" {
			return nil
		}
	}
}

// leave has routes leave the table whose object neither a cache nor the Kubernetes API has.
func (c *comparison) leave(existing map[string]bool) {
	for r := range c.w.Table().All() {
		if !existing[r.ID] && c.w.object(r) == nil {
			c.w.changes.forget(key{r.Namespace, r.Name}, r.UID)
		}
	}
}

func (c *comparison) cached(id string) bool {
	sub, _ := c.w.Subscription(id)
	return sub != nil
}

// judge cancels what is missing for the second time and has left the table.
func (c *comparison) judge(known, existing map[string]bool) {
	table, missing, confirmed := c.w.Table(), map[string]bool{}, []string(nil)
	for id := range known {
		switch {
		case existing[id] || c.cached(id):
		case c.suspects[id] && table.Route(id) == nil:
			confirmed = append(confirmed, id)
		default:
			missing[id] = true
		}
	}
	c.suspects = missing
	if n := len(confirmed); n > massCount && float64(n) > massShare*float64(len(known)) {
		c.w.log.Error("Most subscriptions that the queue knows are not in this cluster, cancelling none of them: "+
			"Redis must not be shared with another cluster", slog.Int("missing", n), slog.Int("known", len(known)))
		return
	}
	c.w.gone.add(confirmed)
}
