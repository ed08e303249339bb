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

// parked takes deliveries and sends none.
var parked = kind{name: "parked", eventType: "release.completed", fanOut: 10, paused: true}

const (
	leastWhileWaiting = 0.8 // of the empty queue's rate
	mostWaitingBytes  = 400 // of Redis' memory for each delivery that waits, beside its payload
)

func waiting(ctx context.Context, b *bench) error {
	if err := b.subscribe(ctx, single, 0, subscriptions); err != nil {
		return err
	}
	if err := b.subscribe(ctx, parked, 0, subscriptions); err != nil {
		return err
	}
	flags := []string{
		fmt.Sprint("--queue-max-deliveries=", 2*b.waiting), "--queue-max-mebibytes=4096",
		fmt.Sprint("--subscription-max-backlog=", b.waiting),
	}
	return b.withRig(ctx, shape{flags: flags}, func(r *rig) error {
		l := load{kind: single, events: b.events, groups: subscriptions}
		empty, err := r.run(ctx, "empty queue", l)
		if err != nil {
			return err
		}
		before := r.memory(ctx)
		say("%d deliveries are made to wait", b.waiting)
		events := b.waiting / parked.fanOut
		err = r.publish(ctx, load{kind: parked, events: events, groups: subscriptions / parked.fanOut, batch: true})
		if err != nil {
			return err
		}
		if err := r.rewritten(ctx); err != nil {
			return err
		}
		taken := r.memory(ctx) - before - int64(events*len(parked.event(0, 0)))
		full, err := r.run(ctx, "full queue", l)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("%d deliveries waiting: ", b.waiting)
		b.atLeast(name+"rate, of the empty queue's", full.rate/empty.rate, leastWhileWaiting,
			fmt.Sprintf("%.0f/s beside %.0f/s", full.rate, empty.rate))
		b.atMost(name+"Redis memory for each beside its payload, bytes", float64(taken)/float64(b.waiting), mostWaitingBytes,
			"")
		return nil
	})
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
