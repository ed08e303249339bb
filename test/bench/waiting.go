// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Both take deliveries and send none.
var (
	parked = kind{name: "parked", eventType: "release.completed", fanOut: 10, paused: true}
	alone  = kind{name: "alone", eventType: "release.failed", fanOut: 1, paused: true}
)

const (
	leastWhileWaiting = 0.8 // of the empty queue's rate
	mostWaitingBytes  = 400 // of Redis' memory for each delivery that waits, beside its payload
	alonePart         = 10  // of those that wait: a body for each takes as much memory as ten times the deliveries
)

func waiting(ctx context.Context, b *bench) error {
	for _, k := range []kind{single, parked, alone} {
		if err := b.subscribe(ctx, k, 0, subscriptions); err != nil {
			return err
		}
	}
	flags := []string{
		fmt.Sprint("--queue-max-deliveries=", 2*b.waiting), "--queue-max-mebibytes=4096",
		fmt.Sprint("--subscription-max-backlog=", b.waiting),
	}
	return b.withRig(ctx, shape{flags: flags}, func(r *rig) error {
		if err := r.warmUp(ctx, single); err != nil {
			return err
		}
		l := load{kind: single, events: b.events, groups: subscriptions}
		empty, err := r.run(ctx, "empty queue", l)
		if err != nil {
			return err
		}
		many, err := r.park(ctx, parked, b.waiting)
		if err != nil {
			return err
		}
		full, err := r.run(ctx, "full queue", l)
		if err != nil {
			return err
		}
		each, err := r.park(ctx, alone, b.waiting/alonePart)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("%d deliveries waiting: ", b.waiting)
		b.atLeast(name+"rate, of the empty queue's", full.rate/empty.rate, leastWhileWaiting,
			fmt.Sprintf("%.0f/s beside %.0f/s", full.rate, empty.rate))
		b.ratioAtMost(name+"Redis memory for each beside its payload, bytes", many, mostWaitingBytes, "fan-out 10")
		b.ratioAtMost("memory of one whose event has no other, bytes", each, mostWaitingBytes,
			"with what the allocator rounds")
		return nil
	})
}

// park makes deliveries wait, and returns how many bytes of Redis' memory each takes beside the bodies.
func (r *rig) park(ctx context.Context, k kind, deliveries int) (float64, error) {
	say("%d deliveries are made to wait", deliveries)
	body, err := k.body(time.Now())
	if err != nil {
		return 0, err
	}
	before, events := r.memory(ctx), deliveries/k.fanOut
	err = r.publish(ctx, load{kind: k, events: events, groups: subscriptions / k.fanOut, batch: true})
	if err != nil {
		return 0, err
	}
	if err := r.rewritten(ctx); err != nil {
		return 0, err
	}
	return float64(r.memory(ctx)-before-int64(events*len(body))) / float64(deliveries), nil
}

// rewritten waits until no Redis writes its append-only file anew, which takes a core while it lasts.
func (r *rig) rewritten(ctx context.Context) error {
	for {
		busy := false
		for _, server := range r.redis {
			client := server.Client()
			busy = busy || !strings.Contains(client.Info(ctx, "persistence").Val(), "aof_rewrite_in_progress:0")
			_ = client.Close()
		}
		if !busy {
			return nil
		}
		if err := wait(ctx, time.Second); err != nil {
			return err
		}
	}
}

// memory of all Redis servers, in bytes.
func (r *rig) memory(ctx context.Context) int64 {
	sum := int64(0)
	for _, server := range r.redis {
		client := server.Client()
		for line := range strings.Lines(client.Info(ctx, "memory").Val()) {
			if value, found := strings.CutPrefix(line, "used_memory:"); found {
				n, _ := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
				sum += n
			}
		}
		_ = client.Close()
	}
	return sum
}
