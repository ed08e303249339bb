// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"nexus.io/webhooks/test/stack"
)

type options struct {
	events  int
	profile string
	latency struct{ duration time.Duration }
}

const (
	publishers      = 64
	latencyRate     = 200 // events a second
	latencyDuration = 15 * time.Second
	stageTimeout    = 5 * time.Minute
)

// Bars of the ratios to the bare client, and of the latency.
const (
	barFanOut1  = 0.30
	barFanOut10 = 0.45
	barLatency  = 5 * time.Millisecond
)

// filler makes a body of about 1 KiB once rendered.
var filler = strings.Repeat("x", 800)

// event is what is published. attribute selects the subscriptions that it matches.
func event(kind string, sent int64, attribute string) string {
	start := `{"type":"build.completed","source":"bench","data":{"project":"`
	if kind == "fan10" {
		start = `{"type":"deployment.completed","source":"bench","data":{"team":"`
	}
	return start + attribute + `","sent_ns":` + strconv.FormatInt(sent, 10) + `,"filler":"` + filler + `"}}`
}

func drive(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "nexus-webhooks-bench-")
	if err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	say("Starting API server, Redis, receiver and dispatcher")
	r, err := newRig(ctx, dir)
	if err != nil {
		return err
	}
	defer r.stop()
	if err := r.stages(ctx, o); err != nil {
		return fmt.Errorf("%w\nlast lines of the dispatcher:\n%s", err, r.dispatcher.Tail(10))
	}
	return nil
}

func (r *rig) stages(ctx context.Context, o options) error {
	// The machine changes its speed while this runs, so each stage is held to the bare client right before and after it.
	var bares [3]figures
	var err error
	if bares[0], err = r.bare(ctx, o.events); err != nil {
		return err
	}
	one, err := r.throughput(ctx, "fan1", o.events, 1, o.profile)
	if err != nil {
		return err
	}
	if bares[1], err = r.bare(ctx, o.events); err != nil {
		return err
	}
	ten, err := r.throughput(ctx, "fan10", o.events, 10, "")
	if err != nil {
		return err
	}
	if bares[2], err = r.bare(ctx, o.events); err != nil {
		return err
	}
	took, err := r.latency(ctx, o.latency.duration)
	if err != nil {
		return err
	}
	one.ratio = 2 * one.rate / (bares[0].rate + bares[1].rate)
	ten.ratio = 2 * ten.rate / (bares[1].rate + bares[2].rate)
	report(bares, one, ten, took)
	return nil
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...) }

// figures of one stage.
type figures struct {
	deliveries        int
	rate              float64       // deliveries a second
	ratio             float64       // of the rate to the bare client's
	sender, redis     time.Duration // CPU
	receiver          time.Duration
	scripts, commands float64 // Redis calls a delivery: sent by the dispatcher, and with those inside scripts
	peak              int64   // bytes, of the dispatcher
}

func (r *rig) bare(ctx context.Context, count int) (figures, error) {
	say("Bare client: %d requests", count)
	if err := r.reset(ctx); err != nil {
		return figures{}, err
	}
	receiver := cpu(r.receiver.Pid())
	p := stack.NewProcess("bare", filepath.Join(r.dir, "bare.log"), r.self, "role", "bare", r.hook("bare"),
		fmt.Sprint(count))
	if err := p.Start(); err != nil {
		return figures{}, err
	}
	used, err := waitCPU(p)
	if err != nil {
		return figures{}, fmt.Errorf("%w: %s", err, p.Tail(5))
	}
	c, err := r.counted(ctx)
	if err != nil {
		return figures{}, err
	}
	return figures{
		deliveries: c.Requests, rate: float64(c.Requests) / c.Last.Sub(c.First).Seconds(), sender: used,
		receiver: cpu(r.receiver.Pid()) - receiver,
	}, nil
}

// throughput publishes as fast as 64 publishers can and waits for the last arrival.
func (r *rig) throughput(ctx context.Context, kind string, deliveries, fanOut int, profile string) (figures, error) {
	events := deliveries / fanOut
	say("End to end at fan-out %d: %d events", fanOut, events)
	if err := r.reset(ctx); err != nil {
		return figures{}, err
	}
	if profile != "" {
		defer r.profile(ctx, profile)()
	}
	before := r.usage(ctx)
	if err := r.publish(ctx, kind, events); err != nil {
		return figures{}, err
	}
	c, err := r.waitFor(ctx, events*fanOut)
	if err != nil {
		return figures{}, err
	}
	after := r.usage(ctx)
	n := float64(c.Requests)
	return figures{
		deliveries: c.Requests, rate: n / c.Last.Sub(c.First).Seconds(), sender: after.dispatcher - before.dispatcher,
		redis: after.redis - before.redis, receiver: after.receiver - before.receiver,
		scripts: float64(after.scripts-before.scripts) / n, commands: float64(after.commands-before.commands) / n,
		peak: peak(r.dispatcher.Pid()),
	}, nil
}

func (r *rig) publish(ctx context.Context, kind string, events int) error {
	groups := subscriptions
	if kind == "fan10" {
		groups = subscriptions / 10
	}
	var next atomic.Int64
	var group sync.WaitGroup
	var failed atomic.Value
	for range publishers {
		group.Go(func() {
			p, err := dial(ctx, r.dispatcher.URL)
			if err != nil {
				failed.Store(err)
				return
			}
			defer p.close()
			for failed.Load() == nil {
				i := next.Add(1) - 1
				if i >= int64(events) {
					return
				}
				if err := p.publish(event(kind, 0, strconv.FormatInt(i%int64(groups), 10))); err != nil {
					failed.Store(err)
				}
			}
		})
	}
	group.Wait()
	if err, _ := failed.Load().(error); err != nil {
		return err
	}
	return nil
}

// latency publishes at a steady rate and returns the times from publish to arrival, ascending.
func (r *rig) latency(ctx context.Context, duration time.Duration) ([]time.Duration, error) {
	count := int(duration.Seconds() * latencyRate)
	say("Publish to arrival at %d events a second: %d events", latencyRate, count)
	if err := r.reset(ctx); err != nil {
		return nil, err
	}
	tick := time.NewTicker(time.Second / latencyRate)
	defer tick.Stop()
	var group sync.WaitGroup
	for i := range count {
		group.Go(func() {
			_, _, _ = stack.Post(ctx, http.DefaultClient, r.dispatcher.URL+"/api/v1/events",
				event("fan1", time.Now().UnixNano(), strconv.Itoa(i%subscriptions)))
		})
		<-tick.C
	}
	group.Wait()
	c, err := r.waitFor(ctx, count)
	return c.Took, err
}

func (r *rig) reset(ctx context.Context) error {
	_, _, err := stack.Post(ctx, http.DefaultClient, r.receiver.URL+"/reset", "")
	return err
}

func (r *rig) counted(ctx context.Context) (counted, error) {
	var c counted
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.receiver.URL+"/counted", nil)
	if err != nil {
		return c, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return c, fmt.Errorf("ask the receiver: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return c, fmt.Errorf("ask the receiver: %w", err)
	}
	return c, json.Unmarshal(body, &c)
}

func (r *rig) waitFor(ctx context.Context, requests int) (counted, error) {
	ctx, cancel := context.WithTimeout(ctx, stageTimeout)
	defer cancel()
	for {
		c, err := r.counted(ctx)
		if err != nil {
			return c, err
		}
		if c.Requests >= requests {
			return c, nil
		}
		select {
		case <-ctx.Done():
			return c, errors.Join(fmt.Errorf("%d of %d arrived", c.Requests, requests), ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}
