// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"nexus.io/webhooks/test/redistest"
	"nexus.io/webhooks/test/stack"
)

// shape of a rig.
type shape struct {
	dispatchers int // 0: one
	masters     int // of a Redis Cluster with as many shards; below 2: a single Redis
	flags       []string
}

// rig is an empty Redis with dispatchers.
type rig struct {
	*bench
	redis       []*redistest.Server
	dispatchers []*stack.Process
}

// withRig runs f with a rig that ends with it.
func (b *bench) withRig(ctx context.Context, s shape, f func(*rig) error) error {
	b.rigs++
	r := &rig{bench: b}
	defer r.end()
	if err := r.begin(ctx, filepath.Join(b.dir, fmt.Sprint("rig-", b.rigs)), s); err != nil {
		return err
	}
	if err := f(r); err != nil {
		return fmt.Errorf("%w\nlast lines of a dispatcher:\n%s", err, r.dispatchers[0].Tail(10))
	}
	return nil
}

func (r *rig) begin(ctx context.Context, dir string, s shape) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	url, err := r.beginRedis(dir, s.masters)
	if err != nil {
		return err
	}
	for i := range max(s.dispatchers, 1) {
		d, err := r.newDispatcher(filepath.Join(dir, fmt.Sprint("dispatcher-", i, ".log")), url, s)
		if err != nil {
			return err
		}
		if err := d.Start(); err != nil {
			return err
		}
		r.dispatchers = append(r.dispatchers, d)
	}
	for _, d := range r.dispatchers {
		if err := d.WaitReady(ctx); err != nil {
			return err
		}
	}
	return r.elected(ctx)
}

// electionTime bounds how long a Lease may lie with a dispatcher of an earlier rig.
const electionTime = time.Minute

// elected waits until one of the dispatchers writes the statuses: that is part of what is measured.
func (r *rig) elected(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, electionTime)
	defer cancel()
	for {
		sum, err := r.sum(ctx, "nexus_webhook_status_elected")
		if err != nil {
			return err
		}
		if sum == 1 {
			return nil
		}
		if err := wait(ctx, 100*time.Millisecond); err != nil {
			return fmt.Errorf("no dispatcher was elected to write statuses: %w", err)
		}
	}
}

// sum adds a metric of all dispatchers.
func (r *rig) sum(ctx context.Context, name string) (sum float64, err error) {
	for _, d := range r.dispatchers {
		n, err := metric(ctx, d, name)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// statusTime bounds how long the first statuses may take; quietTime is how long nothing must wait to be written then.
const (
	statusTime = 2 * time.Minute
	quietTime  = 3 * time.Second
)

// warmUp delivers once to each subscription and waits until their statuses say so: the first ones of new subscriptions
// come once, and at the greatest pace that there is. What is measured behind it is how a service goes on.
func (r *rig) warmUp(ctx context.Context, kinds ...kind) error {
	say("warming up")
	for _, k := range kinds {
		if err := r.reset(ctx); err != nil {
			return err
		}
		groups := subscriptions / k.fanOut
		if err := r.publish(ctx, load{kind: k, events: groups, groups: groups}); err != nil {
			return err
		}
		if _, err := r.waitFor(ctx, subscriptions); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	for since := time.Now(); time.Since(since) < quietTime; {
		waiting, err := r.sum(ctx, "nexus_webhook_status_waiting")
		if err != nil {
			return fmt.Errorf("the first statuses are not written: %w", err)
		}
		if waiting > 0 {
			since = time.Now()
		}
		if err := wait(ctx, 100*time.Millisecond); err != nil {
			return fmt.Errorf("%g statuses wait to be written: %w", waiting, err)
		}
	}
	return nil
}

func (r *rig) beginRedis(dir string, masters int) (url string, err error) {
	if masters < 2 {
		server, err := redistest.Start(dir, "--appendonly", "yes", "--appendfsync", "everysec")
		if err != nil {
			return "", err
		}
		r.redis = []*redistest.Server{server}
		return server.URL(), nil
	}
	cluster, err := redistest.StartCluster(dir, masters)
	if err != nil {
		return "", err
	}
	r.redis = cluster.Servers
	return cluster.URL(), nil
}

func (r *rig) newDispatcher(log, redis string, s shape) (*stack.Process, error) {
	api, err := stack.FreeAddress()
	if err != nil {
		return nil, err
	}
	metrics, err := stack.FreeAddress()
	if err != nil {
		return nil, err
	}
	flags := append([]string{
		"--kubeconfig=" + r.kubeconfig, "--listen-address=" + api, "--metrics-address=" + metrics, "--namespace=default",
		"--redis-url=" + redis, "--egress-allow-networks=127.0.0.0/8", "--profiling", "--auth=kubernetes",
		fmt.Sprint("--queue-shards=", max(s.masters, 1)),
	}, s.flags...)
	d := stack.NewProcess("dispatcher", log, filepath.Join(r.bin, "dispatcher"), flags...)
	d.Env = []string{"GOMEMLIMIT=870MiB"} // as config/dispatcher has it
	d.URL, d.MetricsURL = "http://"+api, "http://"+metrics
	return d, nil
}

// end lets the dispatchers give their Lease back, and waits for no deliveries.
func (r *rig) end() {
	for _, d := range r.dispatchers {
		if d.Signal(syscall.SIGTERM) == nil {
			_ = wait(context.Background(), time.Second)
		}
		d.Kill()
	}
	for _, server := range r.redis {
		server.Kill()
	}
}

// profile takes a dispatcher's CPU profile while a stage runs; the returned function waits for its end.
func (r *rig) profile(ctx context.Context, path string) func() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := r.takeProfile(ctx, path)
		say("profile: %s %v", path, err)
	}()
	return func() { <-done }
}

func (r *rig) takeProfile(ctx context.Context, path string) error {
	body, err := r.dispatchers[0].Observe(ctx, "/debug/pprof/profile?seconds=5")
	if err != nil {
		return err
	}
	return os.WriteFile(path, body, 0o600)
}
