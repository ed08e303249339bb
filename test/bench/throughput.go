// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"nexus.io/webhooks/test/stack"
)

// subscriptions of each kind in most sections.
const subscriptions = 100

// figures of one stage.
type figures struct {
	deliveries        int
	rate              float64       // deliveries a second
	sender, redis     time.Duration // CPU: dispatchers (or the bare client), Redis
	receiver          time.Duration
	scripts, commands float64 // Redis calls a delivery: sent by the dispatchers, and with those inside scripts
	peak, redisPeak   int64   // resident bytes, of the largest dispatcher and the largest Redis
}

// cost is the CPU of a delivery in µs, of dispatchers (or the bare client) and Redis.
func (f figures) cost() float64 {
	return float64((f.sender + f.redis).Microseconds()) / float64(f.deliveries)
}

// throughput holds each stage to the bare client right before and after it, since the machine changes its speed while
// this runs.
func throughput(ctx context.Context, b *bench) error {
	if err := b.subscribe(ctx, single, 0, subscriptions); err != nil {
		return err
	}
	if err := b.subscribe(ctx, tenth, 0, subscriptions); err != nil {
		return err
	}
	stages := []struct {
		name string
		load load
		rate float64 // bar of the ratio
		cost float64 // bar, in times of the bare client's; 0: none
	}{
		{"fan-out 1", load{kind: single, events: b.events, groups: subscriptions}, 0.50, 3},
		{"fan-out 10", load{kind: tenth, events: b.events / 10, groups: subscriptions / 10}, 0.75, 2},
		{"batches", load{kind: single, events: b.events, groups: subscriptions, batch: true}, 0.65, 0},
	}
	return b.withRig(ctx, shape{}, func(r *rig) error {
		if err := r.warmUp(ctx, single, tenth); err != nil {
			return err
		}
		before, err := b.bare(ctx)
		if err != nil {
			return err
		}
		table := []column{{"bare client", before}}
		defer func() { printTable(table) }()
		for _, stage := range stages {
			profiled := func() {}
			if b.profile != "" {
				profiled = r.profile(ctx, b.profile+strings.ReplaceAll(stage.name, " ", "-")+".prof")
			}
			f, err := r.run(ctx, stage.name, stage.load)
			profiled()
			if err != nil {
				return err
			}
			table = append(table, column{stage.name, f})
			after, err := b.bare(ctx)
			if err != nil {
				return err
			}
			bareRate, bareCost := (before.rate+after.rate)/2, (before.cost()+after.cost())/2
			b.atLeast(stage.name+": rate, of the bare client's", f.rate/bareRate, stage.rate,
				fmt.Sprintf("%.0f/s beside %.0f/s", f.rate, bareRate))
			if stage.cost > 0 {
				b.ratioAtMost(stage.name+": CPU, times the bare client's", f.cost()/bareCost, stage.cost,
					fmt.Sprintf("%.0f µs beside %.0f µs", f.cost(), bareCost))
			}
			before = after
		}
		return nil
	})
}

// bare runs the bare client.
func (b *bench) bare(ctx context.Context) (figures, error) {
	say("bare client: %d requests", b.events)
	if err := b.reset(ctx); err != nil {
		return figures{}, err
	}
	receiver := cpu(b.receiver.Pid())
	p := stack.NewProcess("bare", filepath.Join(b.dir, "bare.log"), b.self, "role", "bare", b.receiver.URL+"/hook/bare",
		fmt.Sprint(b.events))
	if err := p.Start(); err != nil {
		return figures{}, err
	}
	used, err := waitCPU(p)
	if err != nil {
		return figures{}, fmt.Errorf("%w: %s", err, p.Tail(5))
	}
	c, err := b.counted(ctx)
	if err != nil {
		return figures{}, err
	}
	return figures{
		deliveries: c.Requests, rate: c.rate(), sender: used, receiver: cpu(b.receiver.Pid()) - receiver,
	}, nil
}

// run publishes a load and waits for the last arrival.
func (r *rig) run(ctx context.Context, name string, l load) (figures, error) {
	say("%s: %d events", name, l.events)
	if err := r.reset(ctx); err != nil {
		return figures{}, err
	}
	if err := r.resetPeaks(); err != nil {
		return figures{}, err
	}
	before := r.usage(ctx)
	if err := r.publish(ctx, l); err != nil {
		return figures{}, err
	}
	c, err := r.waitFor(ctx, l.events*l.kind.fanOut)
	if err != nil {
		return figures{}, err
	}
	after := r.usage(ctx)
	n := float64(c.Requests)
	return figures{
		deliveries: c.Requests, rate: c.rate(), sender: after.dispatchers - before.dispatchers,
		redis: after.redis - before.redis, receiver: after.receiver - before.receiver,
		scripts: float64(after.scripts-before.scripts) / n, commands: float64(after.commands-before.commands) / n,
		peak: r.peak(), redisPeak: r.redisPeak(),
	}, nil
}

func (c counted) rate() float64 { return float64(c.Requests) / c.Last.Sub(c.First).Seconds() }
