// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/time/rate"

	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/event"
	"nexus.io/webhooks/internal/routing"
)

const (
	// batchSize bounds the subscriptions that are compiled, configured and published at once.
	batchSize = 500
	// configureTimeout bounds one try to reach the queue.
	configureTimeout = 30 * time.Second
	progressEvery    = 3 * time.Second
)

// worker turns changes into tables. One goroutine runs it; nothing here is for others.
type worker struct {
	w         *Watcher
	routes    map[key]string // IDs of the routes in the table
	refers    *references
	endings   *endings
	tls       *identities
	complains *rate.Sometimes
}

func newWorker(w *Watcher) *worker {
	return &worker{
		w: w, routes: map[key]string{}, refers: newReferences(), endings: newEndings(),
		tls: newIdentities(), complains: &rate.Sometimes{Interval: complainEvery},
	}
}

// load makes the first complete table.
func (k *worker) load(ctx context.Context) {
	started, progress := time.Now(), &rate.Sometimes{Interval: progressEvery}
	total := k.w.changes.len()
	for k.w.changes.len() > 0 && ctx.Err() == nil {
		k.persist(ctx)
		progress.Do(func() {
			k.w.log.Info("Loading subscriptions", slog.Int("loaded", k.w.Table().Len()), slog.Int("total", total))
		})
	}
	if ctx.Err() != nil {
		return
	}
	k.w.loaded.Store(true)
	k.w.log.Info("Routing table complete", slog.Int("subscriptions", k.w.Table().Len()),
		slog.Duration("took", time.Since(started)))
}

// run applies changes until ctx ends.
func (k *worker) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.w.changes.wake:
			k.persist(ctx)
		case <-k.endings.next():
			k.persist(ctx)
		}
	}
}

// persist applies a batch of changes. What cannot be done for trouble with the queue is tried again, together with what
// changed meanwhile, until it works or ctx ends.
func (k *worker) persist(ctx context.Context) {
	for wait := retryAtFirst; ; wait = min(2*wait, k.w.options.RetryAtMost) {
		b := k.w.changes.take(batchSize)
		err := k.apply(ctx, b)
		if err == nil || ctx.Err() != nil {
			return
		}
		k.w.changes.putBack(b.touched)
		k.complains.Do(func() {
			k.w.log.Error("The queue takes no limits, going on with the last routing table", slog.Any("error", err))
		})
		pause(ctx, wait)
	}
}

// apply does a batch: what is gone leaves the table first and is cancelled then; what is new or changed is configured
// first and enters the table then. On an error the removals are done and b.touched is what is left to do.
func (k *worker) apply(ctx context.Context, b batch) error {
	for source := range b.sources {
		for sub := range k.refers.to(source) {
			b.touch(sub, false)
		}
	}
	for _, sub := range k.endings.until(time.Now(), batchSize) {
		b.touch(sub, false)
	}
	removed, cancelled := k.removals(b)
	k.w.publish(nil, removed)
	k.w.gone.add(cancelled)

	upserts, limits := k.upserts(b.touched)
	if err := k.configure(ctx, limits); err != nil {
		return err
	}
	for _, r := range upserts {
		k.routes[key{r.Namespace, r.Name}] = r.ID
	}
	k.w.publish(upserts, nil)
	return nil
}

// removals lists the routes that leave the table: those of objects that are gone, and those whose name another object
// bears now. Cancelled are those of them about which there is no doubt.
func (k *worker) removals(b batch) (removed, cancelled []string) {
	remove := func(at key, id string) {
		removed = append(removed, id)
		delete(k.routes, at)
		k.refers.set(at, nil)
		k.endings.set(at, time.Time{})
	}
	for uid, d := range b.deleted {
		if route := k.route(d.at); route != nil && route.UID == uid {
			remove(d.at, route.ID)
		}
		if d.certain {
			cancelled = append(cancelled, event.SubscriptionID(uid))
		}
	}
	for at := range b.touched {
		route, sub := k.route(at), k.w.objects.subscription(at)
		if route != nil && sub != nil && route.UID != string(sub.UID) {
			remove(at, route.ID)
			cancelled = append(cancelled, route.ID)
		}
	}
	return removed, cancelled
}

// route is what the table holds for an object of this name, nil for nothing.
func (k *worker) route(at key) *routing.Route {
	id, ok := k.routes[at]
	if !ok {
		return nil
	}
	return k.w.Table().Route(id)
}

// upserts compiles what is in the cache. It lists what differs from the table, and what the queue has to be told.
func (k *worker) upserts(touched map[key]bool) ([]*routing.Route, []queue.Limits) {
	var upserts []*routing.Route
	var limits []queue.Limits
	for at, again := range touched {
		sub := k.w.objects.subscription(at)
		if sub == nil {
			continue
		}
		k.refers.set(at, routing.SourceNames(sub))
		from := k.w.objects.sources(time.Now())
		from.SharedTLS = k.tls.find
		current, next := k.route(at), routing.Compile(sub, from, k.w.options.Defaults)
		k.tls.add(next.TLS)
		next.Restrict(k.w.objects.grant(at.namespace))
		k.endings.set(at, next.PreviousUntil)
		changed := current == nil || !current.Equal(next)
		if changed {
			upserts = append(upserts, next)
		}
		if wanted := k.limits(next); again || current == nil || k.limits(current) != wanted {
			limits = append(limits, wanted)
		}
	}
	return upserts, limits
}

// limits is what the queue must know of a route: one on hold is paused as far as the queue is concerned.
func (k *worker) limits(r *routing.Route) queue.Limits {
	return queue.Limits{
		SubscriptionID: r.ID,
		Namespace:      r.Namespace,
		Generation:     r.Generation,
		RatePerMinute:  r.RatePerMinute,
		MaxInFlight:    r.MaxInFlight,
		MaxBacklog:     k.w.options.MaxBacklog,
		Active:         r.Active,
		Paused:         r.Paused || r.Hold != "",
	}
}

func (k *worker) configure(ctx context.Context, limits []queue.Limits) error {
	if len(limits) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, configureTimeout)
	defer cancel()
	return k.w.options.Queue.Configure(ctx, limits)
}

// pause waits, less if ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
