// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"nexus.io/webhooks/internal/dispatcher/queue"
)

const (
	turnEvery = time.Second
	// countersEvery is in turns. Counters are read less often than changes of health.
	countersEvery = 5
	// checkPage bounds how many subscriptions one turn compares that nobody said had changed.
	checkPage = 500
	logEvery  = time.Minute
)

// term is the time in which this process is elected.
type term struct {
	*Reflector
	budget *rate.Limiter
	turns  int
	logged time.Time

	mu    sync.Mutex
	check []string        // ids to compare, oldest first: routes that changed, and all of them at the start
	known map[string]bool // those in check
}

func (r *Reflector) term(ctx context.Context) {
	r.Log.InfoContext(ctx, "Elected to reflect statistics", "dispatcher", r.Identity)
	t := &term{
		Reflector: r, known: map[string]bool{},
		budget: rate.NewLimiter(rate.Limit(r.WritesPerSecond), max(1, int(2*r.WritesPerSecond))),
	}
	stop := r.Subscriptions.Subscribe(t.add)
	defer stop()
	tick := time.NewTicker(turnEvery)
	defer tick.Stop()
	for loaded := false; ; {
		if !loaded && r.Subscriptions.Ready() {
			loaded = true
			t.addAll()
		}
		if err := t.turn(ctx); err != nil && ctx.Err() == nil {
			t.complain(ctx, err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// complain logs an outage once and then once a minute.
func (t *term) complain(ctx context.Context, err error) {
	if time.Since(t.logged) < logEvery {
		return
	}
	t.logged = time.Now()
	t.Log.WarnContext(ctx, "Statistics cannot be reflected; trying again", "error", err)
}

func (t *term) add(ids []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range ids {
		if !t.known[id] {
			t.known[id] = true
			t.check = append(t.check, id)
		}
	}
}

func (t *term) addAll() {
	var ids []string
	for route := range t.Subscriptions.Table().All() {
		ids = append(ids, route.ID)
	}
	t.add(ids)
}

func (t *term) take(most int) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := min(most, len(t.check))
	ids := t.check[:n:n]
	t.check = t.check[n:]
	for _, id := range ids {
		delete(t.known, id)
	}
	return ids
}

// turn spends what the budget has now: at most half of it on changes of health, so that a few flaky endpoints cannot
// starve the others; then on routes that changed; then on counters. What is left unused by one goes to the next.
func (t *term) turn(ctx context.Context) error {
	t.turns++
	urgent, err := t.Queue.Changed(ctx, max(1, t.left()/2), true)
	if err != nil {
		return err
	}
	if err := t.reflect(ctx, urgent); err != nil {
		return err
	}
	if err := t.compare(ctx); err != nil {
		return err
	}
	if t.turns%countersEvery != 0 || t.left() == 0 {
		return nil
	}
	counters, err := t.Queue.Changed(ctx, t.left(), false)
	if err != nil {
		return err
	}
	return t.reflect(ctx, counters)
}

func (t *term) left() int { return max(0, int(t.budget.Tokens())) }

// compare looks at routes that changed, and puts back what the budget does not reach.
func (t *term) compare(ctx context.Context) error {
	ids := t.take(checkPage)
	if len(ids) == 0 {
		return nil
	}
	statistics, err := t.Queue.Statistics(ctx, ids)
	if err != nil {
		t.add(ids)
		return err
	}
	var later []string
	for _, s := range statistics {
		done := false
		if err == nil {
			done, err = t.write(ctx, s)
		}
		if !done {
			later = append(later, s.SubscriptionID)
		}
	}
	t.add(later)
	return err
}

// reflect writes statistics and tells the queue which of them stand in the status now.
func (t *term) reflect(ctx context.Context, statistics []queue.Statistics) error {
	var done []queue.Statistics
	var failed error
	for _, s := range statistics {
		var written bool
		if written, failed = t.write(ctx, s); failed != nil {
			break
		}
		if written {
			done = append(done, s)
		}
	}
	if len(done) > 0 {
		if err := t.Queue.Reflected(ctx, done); err != nil {
			return err
		}
	}
	return failed
}

// write brings one status up to date if it is not. It reports whether nothing is left to do, and an error that stops
// the turn: the Kubernetes API is in trouble.
func (t *term) write(ctx context.Context, s queue.Statistics) (done bool, err error) {
	sub, route := t.Subscriptions.Subscription(s.SubscriptionID)
	if sub == nil || route == nil {
		return true, nil // gone, or not yet routed: then its route's change brings it back
	}
	status, changed := desired(sub, route, s, time.Now())
	if !changed {
		return true, nil
	}
	if !t.budget.Allow() {
		return false, nil
	}
	err = t.apply(ctx, sub, status)
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("apply the status of subscription %s/%s: %w", sub.Namespace, sub.Name, err)
	}
	return true, nil
}
