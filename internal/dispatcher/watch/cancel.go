// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"golang.org/x/time/rate"
)

// canceller cancels what waits for subscriptions that are gone. It has a goroutine of its own, because a long backlog
// takes a while and other changes must not wait for it.
type canceller struct {
	w         *Watcher
	mu        sync.Mutex
	ids       map[string]bool
	wake      chan struct{}
	complains *rate.Sometimes
}

func newCanceller(w *Watcher) *canceller {
	return &canceller{w: w, ids: map[string]bool{}, wake: make(chan struct{}, 1),
		complains: &rate.Sometimes{Interval: complainEvery}}
}

// add marks subscriptions that are certainly gone and no longer in the table.
func (c *canceller) add(ids []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		c.ids[id] = true
	}
	if len(c.ids) > 0 {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

func (c *canceller) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := slices.Sorted(maps.Keys(c.ids))
	clear(c.ids)
	return ids
}

// run cancels until ctx ends, and tries again where the queue cannot be reached.
func (c *canceller) run(ctx context.Context) {
	wait := retryAtFirst
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		}
		ids := c.take()
		if len(ids) == 0 {
			continue // they went with those before
		}
		err := c.w.options.Queue.Cancel(ctx, ids)
		if err == nil {
			c.w.log.Info("Cancelled what waited for subscriptions that are gone", slog.Any("subscriptions", ids))
			wait = retryAtFirst
			continue
		}
		c.add(ids)
		c.complains.Do(func() {
			c.w.log.Error("Cancelling what waits for subscriptions that are gone, trying again", slog.Any("error", err))
		})
		pause(ctx, wait)
		wait = min(2*wait, c.w.options.RetryAtMost)
	}
}
