// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/test/kube"
	"nexus.io/webhooks/test/redistest"
	"nexus.io/webhooks/test/stack"
)

// subscriptions of each kind: one event matches one of the first or ten of the second.
const subscriptions = 100

const loadTimeout = time.Minute

// rig is everything that runs.
type rig struct {
	dir        string
	self       string // this program
	cluster    *kube.Cluster
	redis      *redistest.Server
	receiver   *stack.Process
	dispatcher *stack.Process
}

func newRig(ctx context.Context, dir string) (*rig, error) {
	r := &rig{dir: dir}
	if err := r.start(ctx); err != nil {
		r.stop()
		return nil, err
	}
	return r, nil
}

func (r *rig) start(ctx context.Context) error {
	var err error
	if r.self, err = os.Executable(); err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	bin, err := stack.Binaries()
	if err != nil {
		return err
	}
	if r.cluster, err = kube.Start(); err != nil {
		return err
	}
	if r.redis, err = redistest.Start(r.dir, "--appendonly", "yes", "--appendfsync", "everysec"); err != nil {
		return err
	}
	address, err := stack.FreeAddress()
	if err != nil {
		return err
	}
	r.receiver = stack.NewProcess("receiver", filepath.Join(r.dir, "receiver.log"), r.self, "role", "receiver", address)
	r.receiver.URL = "http://" + address
	if err := r.receiver.Start(); err != nil {
		return err
	}
	if err := r.subscribe(ctx); err != nil {
		return err
	}
	return r.dispatch(ctx, bin)
}

func (r *rig) dispatch(ctx context.Context, bin string) error {
	api, err := stack.FreeAddress()
	if err != nil {
		return err
	}
	metrics, err := stack.FreeAddress()
	if err != nil {
		return err
	}
	kubeconfig := filepath.Join(r.dir, "kubeconfig")
	if err := stack.WriteKubeconfig(r.cluster.Config, kubeconfig); err != nil {
		return err
	}
	r.dispatcher = stack.NewProcess("dispatcher", filepath.Join(r.dir, "dispatcher.log"), filepath.Join(bin, "dispatcher"),
		"--kubeconfig="+kubeconfig, "--listen-address="+api, "--metrics-address="+metrics, "--namespace=default",
		"--redis-url="+r.redis.URL(), "--egress-allow-networks=127.0.0.0/8", "--profiling")
	r.dispatcher.URL, r.dispatcher.MetricsURL = "http://"+api, "http://"+metrics
	if err := r.dispatcher.Start(); err != nil {
		return err
	}
	return r.dispatcher.WaitReady(ctx)
}

// subscribe makes the subscriptions of both kinds, and the key that all sign with.
func (r *rig) subscribe(ctx context.Context) error {
	c, err := stack.NewClient(r.cluster.Config)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	key := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "bench", Namespace: "default"}, Type: v1alpha1.SecretTypeSigningKey,
		StringData: map[string]string{v1alpha1.DefaultSigningKey: strings.Repeat("0123456789abcdef", 4)},
	}
	if err := c.Create(ctx, key); err != nil {
		return fmt.Errorf("make the signing key: %w", err)
	}
	for i := range subscriptions {
		one := r.subscription("fan1", i, "build.completed")
		one.Spec.Filter = &v1alpha1.EventFilter{Project: strconv.Itoa(i)}
		ten := r.subscription("fan10", i, "deployment.completed")
		ten.Spec.Filter = &v1alpha1.EventFilter{Team: strconv.Itoa(i / 10)}
		for _, sub := range []*v1alpha1.WebhookSubscription{one, ten} {
			if err := c.Create(ctx, sub); err != nil {
				return fmt.Errorf("make subscription %s: %w", sub.Name, err)
			}
		}
	}
	return nil
}

func (r *rig) subscription(kind string, i int, eventType string) *v1alpha1.WebhookSubscription {
	sub := &v1alpha1.WebhookSubscription{
		ObjectMeta: metav1.ObjectMeta{Name: kind + "-" + strconv.Itoa(i), Namespace: "default"},
	}
	sub.Spec.URL = r.hook(sub.Name)
	sub.Spec.Events = []string{eventType}
	sub.Spec.RateLimitPerMinute = new(int32(1_000_000))
	sub.Spec.Signing = &v1alpha1.Signing{SecretRef: &v1alpha1.SigningKeyReference{Name: "bench"}}
	return sub
}

func (r *rig) hook(name string) string { return r.receiver.URL + "/hook/" + name }

func (r *rig) stop() {
	for _, p := range []*stack.Process{r.dispatcher, r.receiver} {
		if p != nil {
			p.Kill()
		}
	}
	if r.redis != nil {
		r.redis.Kill()
	}
	if r.cluster != nil {
		_ = r.cluster.Stop()
	}
	stack.Cleanup()
}

// profile takes the dispatcher's CPU profile while the stage runs; the returned function waits for its end.
func (r *rig) profile(ctx context.Context, path string) func() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		url := r.dispatcher.MetricsURL + "/debug/pprof/profile?seconds=5"
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			say("profile: %v", err)
			return
		}
		defer func() { _ = response.Body.Close() }()
		if body, err := io.ReadAll(response.Body); err == nil {
			err = os.WriteFile(path, body, 0o600)
			say("profile: %s %v", path, err)
		}
	}()
	return func() { <-done }
}
