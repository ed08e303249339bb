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
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"nexus.io/webhooks/test/stack"
)

const (
	publishers = 64 // for each dispatcher
	// batchSize is the number of events in a request of a batch.
	batchSize = 100
	eventPath = "/api/v1/events"
	batchPath = "/api/v1/events/batch"
)

// load is what is published as fast as 64 publishers can, or as 64 for each dispatcher.
type load struct {
	kind   kind
	events int
	groups int // among which the events take turns
	batch  bool
}

// publish returns once everything was accepted.
func (r *rig) publish(ctx context.Context, l load) error {
	var next atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for i := range publishers * len(r.dispatchers) {
		group.Go(func() error {
			p, err := dial(ctx, r.dispatchers[i%len(r.dispatchers)].URL, r.token)
			if err != nil {
				return err
			}
			defer p.close()
			for ctx.Err() == nil {
				path, body := l.request(&next)
				if body == "" {
					return nil
				}
				if err := p.publish(path, body); err != nil {
					return err
				}
			}
			return ctx.Err()
		})
	}
	return group.Wait()
}

// request is the next one to send, without a body where all were sent.
func (l load) request(next *atomic.Int64) (path, body string) {
	if !l.batch {
		i := int(next.Add(1) - 1)
		if i >= l.events {
			return "", ""
		}
		return eventPath, l.kind.event(i%l.groups, 0)
	}
	first := int(next.Add(batchSize) - batchSize)
	if first >= l.events {
		return "", ""
	}
	events := make([]string, 0, batchSize)
	for i := first; i < min(first+batchSize, l.events); i++ {
		events = append(events, l.kind.event(i%l.groups, 0))
	}
	return batchPath, "[" + strings.Join(events, ",") + "]"
}

// pace is the rate of latency stages, in events a second.
const pace = 200

// steadily publishes to all groups in turn, at the pace of latency stages.
func (r *rig) steadily(ctx context.Context, k kind, groups int, duration time.Duration) error {
	tick := time.NewTicker(time.Second / pace)
	defer tick.Stop()
	var group errgroup.Group
	client := &http.Client{Transport: &authorized{token: r.token}}
	for i := range int(duration.Seconds() * pace) {
		group.Go(func() error {
			body := k.event(i%groups, time.Now().UnixNano())
			status, answer, err := stack.Post(ctx, client, r.dispatchers[0].URL+eventPath, body)
			if err == nil && status != http.StatusAccepted {
				err = fmt.Errorf("publish: status %d: %s", status, answer)
			}
			return err
		})
		<-tick.C
	}
	return group.Wait()
}

// authorized sends with a token.
type authorized struct{ token string }

func (a *authorized) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+a.token)
	return http.DefaultTransport.RoundTrip(r)
}

// reset makes the receiver forget what came.
func (b *bench) reset(ctx context.Context) error {
	_, _, err := stack.Post(ctx, http.DefaultClient, b.receiver.URL+"/reset", "")
	return err
}

func (b *bench) counted(ctx context.Context) (counted, error) {
	var c counted
	body, err := b.receiver.Observe(ctx, "/counted")
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal(body, &c)
}

// waitFor waits until so many requests have come.
func (b *bench) waitFor(ctx context.Context, requests int) (counted, error) {
	ctx, cancel := context.WithTimeout(ctx, stageTimeout)
	defer cancel()
	for {
		c, err := b.counted(ctx)
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
