// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/routing"
)

const (
	scanPage      = 500  // routes compared at once at the start of a term
	scanBelow     = 1000 // no further page while so many wait
	roundSize     = 50   // subscriptions compared, and written, at once
	writers       = 8    // writes at the same time
	lookAhead     = 500  // changed statistics asked for beyond those that wait already
	lookAtMost    = 5000
	roundsASecond = 4 // while the budget is used up
	queueTimeout  = 10 * time.Second
)

// term is what a dispatcher knows while it is in office. One goroutine runs it.
type term struct {
	r       *Reflector
	backlog *backlog
	// scanned is the ID up to which all routes were compared at the start of the term.
	scanned  string
	complete bool
	// written holds what a write returned until the cache has it too: compared with an older object, a report that goes
	// back to what was before would seem to need no write.
	written map[string]*v1alpha1.WebhookSubscription
	// resting says by ID until when counters alone are no reason to write.
	resting map[string]time.Time

	nextUrgent, nextCounters, nextScan time.Time
}

func newTerm(r *Reflector) *term {
	return &term{
		r: r, backlog: newBacklog(), written: map[string]*v1alpha1.WebhookSubscription{}, resting: map[string]time.Time{},
	}
}

func (t *term) run(ctx context.Context) {
	stop := t.r.options.Subscriptions.Subscribe(func(ids []string) { t.backlog.add(true, ids...) })
	defer stop()
	for ctx.Err() == nil {
		t.look(ctx)
		t.scan(ctx)
		t.wait(ctx, t.round(ctx))
	}
}

// wait lasts until there may be something to do: d where the budget is used up, else until new work, or the next look.
func (t *term) wait(ctx context.Context, d time.Duration) {
	now := time.Now()
	all, due := t.backlog.len(now)
	t.r.metrics.waiting.Set(float64(all))
	wake := t.backlog.wake
	switch {
	case d > 0:
		wake = nil
	case due > 0 || t.scans(all, now):
		return
	case all > 0:
		d = min(time.Until(t.nextUrgent), retryAtFirst)
	default:
		d = time.Until(t.nextUrgent)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-wake:
	}
}

// look lists what the queue says has changed, when it is time to.
func (t *term) look(ctx context.Context) {
	now := time.Now()
	if now.Before(t.nextUrgent) {
		return
	}
	t.nextUrgent = now.Add(t.r.options.UrgentEvery)
	t.list(ctx, true)
	if !now.Before(t.nextCounters) {
		t.nextCounters = now.Add(t.r.options.CountersEvery)
		maps.DeleteFunc(t.resting, func(_ string, until time.Time) bool { return !now.Before(until) })
		t.list(ctx, false)
		t.forgetWritten()
	}
}

func (t *term) list(ctx context.Context, urgent bool) {
	ctx, cancel := context.WithTimeout(ctx, queueTimeout)
	defer cancel()
	all, _ := t.backlog.len(time.Now())
	changed, err := t.r.options.Queue.Changed(ctx, len(t.resting)+min(all+lookAhead, lookAtMost), urgent)
	if err != nil {
		t.complain(ctx, "Looking for changed statistics", err)
		return
	}
	for _, s := range changed {
		if _, rests := t.resting[s.SubscriptionID]; urgent || !rests {
			t.backlog.add(urgent, s.SubscriptionID)
		}
	}
}

// forgetWritten forgets what the cache has caught up with.
func (t *term) forgetWritten() {
	for id := range t.written {
		t.object(id)
	}
}

// scans tells whether a page may be scanned now.
func (t *term) scans(waiting int, now time.Time) bool {
	return !t.complete && waiting < scanBelow && !now.Before(t.nextScan)
}

// scan compares the next page of all routes with their objects, once in a term. What is right costs nothing more, and
// what is not is no more urgent than counters: the queue still knows whose health changed.
func (t *term) scan(ctx context.Context) {
	if all, _ := t.backlog.len(time.Now()); !t.scans(all, time.Now()) {
		return
	}
	ids := make([]string, 0, scanPage)
	for route := range t.r.options.Subscriptions.Table().After(t.scanned) {
		if ids = append(ids, route.ID); len(ids) == scanPage {
			break
		}
	}
	if len(ids) == 0 {
		t.complete = true
		return
	}
	statistics, err := t.statistics(ctx, ids)
	if err != nil {
		t.complain(ctx, "Comparing all statuses", err)
		t.nextScan = time.Now().Add(t.r.options.UrgentEvery)
		return
	}
	for _, id := range ids {
		if t.compare(id, statistics[id]) != nil {
			t.backlog.add(false, id)
		}
	}
	t.scanned = ids[len(ids)-1]
}

// change is a write to be made.
type change struct {
	work       *work
	object     *v1alpha1.WebhookSubscription
	report     report
	statistics queue.Statistics
	read       time.Time // before the statistics were

	result *v1alpha1.WebhookSubscription
	err    error
}

// compare makes the change that an object needs, nil if it needs none or is gone.
func (t *term) compare(id string, s queue.Statistics) *change {
	object, route := t.object(id)
	if object == nil {
		return nil
	}
	report := wanted(object, route, s, time.Now())
	if !report.differs(object) {
		return nil
	}
	return &change{object: object, report: report, statistics: s}
}

// object is the latest of an object that is known, from the cache or a write.
func (t *term) object(id string) (*v1alpha1.WebhookSubscription, *routing.Route) {
	cached, route := t.r.options.Subscriptions.Subscription(id)
	mine := t.written[id]
	if mine == nil || cached == nil {
		delete(t.written, id)
		return cached, route
	}
	order, err := resourceversion.CompareResourceVersion(cached.ResourceVersion, mine.ResourceVersion)
	if err != nil || order >= 0 {
		delete(t.written, id)
		return cached, route
	}
	return mine, route
}

// round compares and writes what waits, as far as the budget goes. It returns how long to wait for more budget, 0 if
// there was enough or trouble has its own delay.
func (t *term) round(ctx context.Context) (waitFor time.Duration) {
	_, due := t.backlog.len(time.Now())
	if due == 0 {
		return 0
	}
	step := max(1, min(float64(due), t.r.options.WritesPerSecond/roundsASecond, float64(t.r.options.Burst)))
	if missing := step - t.r.budget.Tokens(); missing > 0 {
		return time.Duration(missing / t.r.options.WritesPerSecond * float64(time.Second))
	}
	taken := t.backlog.take(min(roundSize, int(t.r.budget.Tokens())), time.Now())
	ids := make([]string, len(taken))
	for i, w := range taken {
		ids[i] = w.id
	}
	read := time.Now()
	statistics, err := t.statistics(ctx, ids)
	if err != nil {
		t.complain(ctx, "Reading statistics", err)
		for _, w := range taken {
			t.backlog.retry(w, time.Now())
		}
		return 0
	}
	t.settle(ctx, t.write(ctx, taken, statistics, read))
	return 0
}

// write makes the changes that are needed, by statistics that were read after a time. It returns what the statuses say
// now.
func (t *term) write(
	ctx context.Context, taken []*work, statistics map[string]queue.Statistics, read time.Time,
) []queue.Statistics {
	var right []queue.Statistics
	var changes []*change
	writing := errgroup.Group{}
	writing.SetLimit(writers)
	for _, w := range taken {
		c := t.compare(w.id, statistics[w.id])
		if c == nil {
			right = append(right, statistics[w.id])
			continue
		}
		t.r.budget.Allow() // there is enough for all that were taken
		c.work, c.read = w, read
		changes = append(changes, c)
		writing.Go(func() error {
			c.result, c.err = t.r.api.apply(ctx, c.object, c.report)
			return nil
		})
	}
	_ = writing.Wait()
	for _, c := range changes {
		if t.conclude(ctx, c) {
			right = append(right, c.statistics)
		}
	}
	return right
}

// conclude takes note of how a write ended, and tells whether nothing is left to do.
func (t *term) conclude(ctx context.Context, c *change) bool {
	switch {
	case c.err == nil:
		t.r.metrics.writes.WithLabelValues(resultWritten).Inc()
		t.written[c.work.id] = c.result
		t.resting[c.work.id] = c.read.Add(t.r.options.CountersPause)
		return true
	case apierrors.IsNotFound(c.err):
		t.r.metrics.writes.WithLabelValues(resultGone).Inc()
		return true
	case apierrors.IsConflict(c.err): // the cache lags behind
		t.r.metrics.writes.WithLabelValues(resultConflict).Inc()
		delete(t.written, c.work.id)
		t.backlog.retry(c.work, time.Now())
		return false
	default:
		t.r.metrics.writes.WithLabelValues(resultFailed).Inc()
		t.complain(ctx, "Writing a status", c.err)
		t.backlog.retry(c.work, time.Now())
		return false
	}
}

// settle marks what the statuses say. If that fails it is found again, and found right.
func (t *term) settle(ctx context.Context, right []queue.Statistics) {
	if len(right) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, queueTimeout)
	defer cancel()
	if err := t.r.options.Queue.Reflected(ctx, right); err != nil {
		t.complain(ctx, "Marking statistics as reflected", err)
	}
}

func (t *term) statistics(ctx context.Context, ids []string) (map[string]queue.Statistics, error) {
	ctx, cancel := context.WithTimeout(ctx, queueTimeout)
	defer cancel()
	found, err := t.r.options.Queue.Statistics(ctx, ids)
	if err != nil {
		return nil, err
	}
	byID := make(map[string]queue.Statistics, len(ids))
	for _, id := range ids {
		byID[id] = queue.Statistics{SubscriptionID: id}
	}
	for _, s := range found {
		byID[s.SubscriptionID] = s
	}
	return byID, nil
}

// complain logs trouble now and then; the end of the term is none.
func (t *term) complain(ctx context.Context, during string, err error) {
	if errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	t.r.complains.Do(func() {
		t.r.log.Warn("Reflecting statistics into statuses goes on later",
			slog.String("during", during), slog.Any("error", err))
	})
}
