// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/test/stack"
)

var (
	crowd = kind{name: "crowd", eventType: "release.created", fanOut: 10}
	// few have a namespace of their own, so that a dispatcher can serve them alone.
	few = kind{name: "few", namespace: "few", eventType: "release.started", fanOut: 10}
)

const (
	idleSubscriptions = 10_000
	idleTime          = 20 * time.Second
	idleSettle        = 5 * time.Second // after the start
	idleWrites        = 1000            // statuses a second, so that those of so many new ones are soon written

	mostIdleCommands = 5    // a second
	mostIdleCPU      = 0.01 // of a core

	mostLoadTime   = 20 * time.Second
	mostTableBytes = 1 << 30
	settledWrites  = 2 // statuses a second, as many as ten busy subscriptions cause
	mostChangeTime = time.Second
	leastAmongMany = 0.9 // of the rate with ten subscriptions

	writesPerSecond = 20 // the reflector's budget,
	writesSaved     = 40 // and how many of them it saves up
	writesTime      = 30 * time.Second

	leastBudgetUsed  = 0.9
	leastFirstWrites = 0.9
)

// grow brings the crowd to so many.
func (b *bench) grow(ctx context.Context, to int) error {
	from := b.crowd
	if from >= to {
		return nil
	}
	say("%d subscriptions are made", to-from)
	b.crowd = to
	return b.subscribe(ctx, crowd, from, to)
}

// idle is what subscriptions cost while nothing happens.
func idle(ctx context.Context, b *bench) error {
	if err := b.grow(ctx, idleSubscriptions); err != nil {
		return err
	}
	writing := shape{flags: []string{fmt.Sprint("--status-writes-per-second=", idleWrites)}}
	if err := b.withRig(ctx, writing, func(r *rig) error { return r.statusesWritten(ctx) }); err != nil {
		return err
	}
	return b.withRig(ctx, shape{}, func(r *rig) error {
		if err := r.statusesWritten(ctx); err != nil {
			return err
		}
		before := r.usage(ctx)
		if err := wait(ctx, idleTime); err != nil {
			return err
		}
		after := r.usage(ctx)
		commands := float64(after.commands-before.commands) / idleTime.Seconds()
		used := (after.dispatchers - before.dispatchers).Seconds() / idleTime.Seconds()
		name := fmt.Sprintf("idle, %d subscriptions: ", idleSubscriptions)
		b.ratioAtMost(name+"Redis commands a second", commands, mostIdleCommands, "")
		b.atMost(name+"CPU of the dispatcher, of a core", used, mostIdleCPU)
		return nil
	})
}

func many(ctx context.Context, b *bench) error {
	if err := b.grow(ctx, b.many); err != nil {
		return err
	}
	if err := b.makeFew(ctx); err != nil {
		return err
	}
	l := load{kind: few, events: b.events / few.fanOut, groups: 1}
	var table []column
	defer func() { printTable(table) }()
	alone := func() (rate float64, err error) {
		err = b.withRig(ctx, shape{flags: []string{"--watch-namespaces=few"}}, func(r *rig) error {
			f, err := r.run(ctx, "ten subscriptions", l)
			table, rate = append(table, column{"ten alone", f}), f.rate
			return err
		})
		return rate, err
	}
	before, err := alone()
	if err != nil {
		return err
	}
	// New statuses come once, those of so many for more than an hour: what an event costs from then on, and until then.
	var among, meanwhile figures
	var most int64
	settled := shape{flags: []string{fmt.Sprint("--status-writes-per-second=", settledWrites)}}
	err = b.withRig(ctx, settled, func(r *rig) (err error) {
		if err := r.restart(ctx); err != nil {
			return err
		}
		most = r.peak()
		among, err = r.run(ctx, "the same ten among all", l)
		table = append(table, column{"ten among all", among})
		most = max(most, among.peak)
		return err
	})
	if err != nil {
		return err
	}
	err = b.withRig(ctx, shape{}, func(r *rig) (err error) {
		most = max(most, r.peak())
		if meanwhile, err = r.run(ctx, "the same while statuses are written", l); err != nil {
			return err
		}
		table = append(table, column{"beside writes", meanwhile})
		if err := r.change(ctx); err != nil {
			return err
		}
		most = max(most, r.peak())
		err = r.churn(ctx)
		most = max(most, r.peak())
		return err
	})
	if err != nil {
		return err
	}
	after, err := alone()
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%d subscriptions, an event matching 10: rate, of that with 10 subscriptions", b.many)
	for _, f := range []struct {
		when string
		rate float64
	}{{"", among.rate}, {", while statuses are written", meanwhile.rate}} {
		b.atLeast(name+f.when, 2*f.rate/(before+after), leastAmongMany,
			fmt.Sprintf("%.0f/s beside %.0f/s", f.rate, (before+after)/2))
	}
	b.atMost(fmt.Sprintf("%d subscriptions: memory of the dispatcher, MiB", b.many), float64(most>>20), mostTableBytes>>20)
	return nil
}

func (b *bench) makeFew(ctx context.Context) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: few.namespace}}
	if err := b.kube.Create(ctx, namespace); err != nil {
		return fmt.Errorf("make a namespace: %w", err)
	}
	if err := b.makeKey(ctx, few.namespace); err != nil {
		return err
	}
	return b.subscribe(ctx, few, 0, few.fanOut)
}

// restart measures how long a dispatcher takes to load the whole table. It returns once that writes the statuses again.
func (r *rig) restart(ctx context.Context) error {
	d := r.dispatchers[0]
	if err := d.Stop(); err != nil {
		return err
	}
	started := time.Now()
	if err := d.Start(); err != nil {
		return err
	}
	if err := d.WaitReady(ctx); err != nil {
		return err
	}
	took := time.Since(started).Seconds()
	r.atMost(fmt.Sprintf("%d subscriptions: loaded in, s", r.many), took, mostLoadTime.Seconds())
	return r.elected(ctx)
}

// change measures how long a new subscription takes to get events.
func (r *rig) change(ctx context.Context) error {
	k := crowd
	k.name = "newcomer"
	i := r.many * 10 // of a team of its own
	started := time.Now()
	if err := r.subscribe(ctx, k, i, i+1); err != nil {
		return err
	}
	client := &http.Client{Transport: &authorized{token: r.token}}
	for {
		_, answer, err := stack.Post(ctx, client, r.dispatchers[0].URL+eventPath, k.event(i/k.fanOut, 0))
		if err != nil {
			return err
		}
		var matched struct {
			Count int `json:"subscriptions_matched"`
		}
		if err := json.Unmarshal([]byte(answer), &matched); err != nil {
			return fmt.Errorf("publish: %s: %w", answer, err)
		}
		if matched.Count > 0 {
			break
		}
		if time.Since(started) > time.Minute {
			return errors.New("a new subscription did not get events within a minute")
		}
	}
	r.atMost(fmt.Sprintf("%d subscriptions: a change is live after, s", r.many), time.Since(started).Seconds(),
		mostChangeTime.Seconds())
	return nil
}

// churn changes the counters of all subscriptions and watches the writes of statuses, from before the first one.
func (r *rig) churn(ctx context.Context) error {
	before, err := r.statusWrites(ctx)
	if err != nil {
		return err
	}
	since := time.Now()
	f, err := r.run(ctx, "all of them", load{
		kind: crowd, events: r.many / crowd.fanOut, groups: r.many / crowd.fanOut, batch: true,
	})
	if err != nil {
		return err
	}
	say("all of them, each once: %.0f deliveries/s", f.rate)
	if err := wait(ctx, writesTime); err != nil {
		return err
	}
	after, err := r.statusWrites(ctx)
	if err != nil {
		return err
	}
	writes, took := after-before, time.Since(since).Seconds()
	if least := leastBudgetUsed * writesPerSecond * took; writes < least {
		return fmt.Errorf("%.0f statuses were written in %.1f s, want at least %.0f", writes, took, least)
	}
	shown, err := r.reflected(ctx)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%d subscriptions changing at once: ", r.many)
	r.ratioAtMost(name+"writes of statuses, of the budget's", writes/(writesPerSecond*took+writesSaved), 1,
		fmt.Sprintf("%.0f in %.1f s", writes, took))
	// Beside what became urgent one write in five is of the others, some of which show no delivery yet.
	r.atLeast(name+"of the writes, the first of their subscription", float64(shown)/writes, leastFirstWrites,
		fmt.Sprintf("%d subscriptions by %.0f writes", shown, writes))
	return nil
}

// statusesWritten waits until no status waits to be written.
func (r *rig) statusesWritten(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stageTimeout)
	defer cancel()
	for {
		if err := wait(ctx, idleSettle); err != nil {
			return fmt.Errorf("statuses are still written: %w", err)
		}
		waiting, err := metric(ctx, r.dispatchers[0], "nexus_webhook_status_waiting")
		if err != nil || waiting == 0 {
			return err
		}
		say("%.0f statuses wait to be compared or written", waiting)
	}
}

// statusWrites is how many the dispatcher made.
func (r *rig) statusWrites(ctx context.Context) (float64, error) {
	return metric(ctx, r.dispatchers[0], "nexus_webhook_status_writes_total")
}

// metric is the sum of a metric of a dispatcher over its labels.
func metric(ctx context.Context, d *stack.Process, name string) (float64, error) {
	metrics, err := d.Metrics(ctx)
	if err != nil {
		return 0, err
	}
	return metrics.Sum(name)
}

// reflected counts the subscriptions of the crowd whose status tells of a delivery.
func (r *rig) reflected(ctx context.Context) (int, error) {
	list, count := &v1alpha1.WebhookSubscriptionList{}, 0
	options := []client.ListOption{client.InNamespace("default"), client.Limit(2000)}
	for {
		if err := r.kube.List(ctx, list, append(options, client.Continue(list.Continue))...); err != nil {
			return 0, fmt.Errorf("list the subscriptions: %w", err)
		}
		for i := range list.Items {
			if s := &list.Items[i]; strings.HasPrefix(s.Name, crowd.name) && delivered(s) {
				count++
			}
		}
		if list.Continue == "" {
			return count, nil
		}
	}
}

func delivered(s *v1alpha1.WebhookSubscription) bool {
	return s.Status.Delivery != nil && s.Status.Delivery.LastAttemptTime != nil
}

// wait lets time pass.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
