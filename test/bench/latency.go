// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"
)

var (
	// troubled has one endpoint in ten that hangs and one that fails.
	troubled = kind{name: "troubled", eventType: "build.failed", fanOut: 1, hook: func(i int) string {
		switch i % 10 {
		case 0:
			return "/hang"
		case 1:
			return "/fail"
		default:
			return "/hook/troubled"
		}
	}}
	// slow is one endpoint that takes a second to answer.
	slow = kind{name: "slow", eventType: "build.started", fanOut: 1, hook: func(int) string { return "/slow" }}
)

// slowBacklog is what waits for the slow endpoint.
const slowBacklog = 1000

const (
	mostP50 = 2 * time.Millisecond
	mostP99 = 10 * time.Millisecond
	// mostBeside is the p99 of healthy endpoints beside others that are not, times the calm one.
	mostBeside = 2
)

// delays from publish to arrival, ascending.
type delays []time.Duration

func (d delays) at(percent int) time.Duration { return d[len(d)*percent/100] }

func latency(ctx context.Context, b *bench) error {
	for k, n := range map[*kind]int{&single: subscriptions, &troubled: subscriptions, &slow: 1} {
		if err := b.subscribe(ctx, *k, 0, n); err != nil {
			return err
		}
	}
	return b.withRig(ctx, shape{}, func(r *rig) error {
		if err := r.warmUp(ctx, single); err != nil {
			return err
		}
		calm, err := r.delays(ctx, single, 1)
		if err != nil {
			return err
		}
		b.atMost(fmt.Sprintf("publish to arrival at %d/s: p50, ms", pace), ms(calm.at(50)), ms(mostP50))
		b.atMost(fmt.Sprintf("publish to arrival at %d/s: p99, ms", pace), ms(calm.at(99)), ms(mostP99))
		if err := r.publish(ctx, load{kind: slow, events: slowBacklog, groups: 1}); err != nil {
			return err
		}
		if err := r.beside(ctx, single, 1, calm, "one endpoint slow, 1,000 waiting for it"); err != nil {
			return err
		}
		if calm, err = r.delays(ctx, single, 1); err != nil {
			return err
		}
		return r.beside(ctx, troubled, 0.8, calm, "1 endpoint in 10 hanging, 1 failing")
	})
}

// beside measures the healthy endpoints beside others.
func (r *rig) beside(ctx context.Context, k kind, healthy float64, calm delays, name string) error {
	took, err := r.delays(ctx, k, healthy)
	if err != nil {
		return err
	}
	r.noisyAtMost(name+": p99 of the others, times the calm one", float64(took.at(99))/float64(calm.at(99)), mostBeside,
		fmt.Sprintf("%.2f ms beside %.2f ms", ms(took.at(99)), ms(calm.at(99))))
	return nil
}

// delays publishes to all subscriptions of a kind in turn, of which a part is healthy.
func (r *rig) delays(ctx context.Context, k kind, healthy float64) (delays, error) {
	say("%s: %d events a second for %s", k.name, pace, r.latency)
	if err := r.reset(ctx); err != nil {
		return nil, err
	}
	if err := r.steadily(ctx, k, subscriptions, r.latency); err != nil {
		return nil, err
	}
	c, err := r.waitFor(ctx, int(r.latency.Seconds()*pace*healthy))
	return c.Took, err
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
