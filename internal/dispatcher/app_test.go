// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package dispatcher_test

import (
	"errors"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/dispatcher"
	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/test/stack"
)

func TestItIsReadyDeliversAndLeavesNothingBehind(t *testing.T) {
	r := newRig(t)
	sub := r.subscribe("whole", "/slow/300/whole", nil)
	before := goleak.IgnoreCurrent()
	a := r.start(nil)
	a.ready()
	a.accepted("whole", "whole-1")
	r.arrived("/slow/300/whole", 1)
	if err := a.stop(); err != nil { // while the attempt is under way
		t.Fatalf("Run: %v\n%s", err, r.log)
	}
	r.gate.shut()
	http.DefaultClient.CloseIdleConnections()
	if err := goleak.Find(before); err != nil {
		t.Error(err)
	}
	for _, address := range []string{a.Address(), a.MetricsAddress()} {
		if conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address); err == nil {
			_ = conn.Close()
			t.Errorf("%s is still open", address)
		}
	}
	if list := r.receiver.Arrivals("/slow/300/whole"); len(list) != 1 || !list[0].Verify(signingKey) {
		t.Errorf("arrivals %+v", list)
	}
	r.isEmpty()
	r.gate.open()
	r.start(nil).ready()
	r.status(sub, func(d *v1alpha1.DeliveryStatus) bool { return d.Successful == 1 && d.Pending == 0 })
}

// isEmpty proves that the queue holds nothing and lost nothing.
func (r *rig) isEmpty() {
	r.Helper()
	redis := r.redis.Client()
	defer func() { _ = redis.Close() }()
	q, err := queue.New(queue.Options{Client: redis, Dispatcher: "audit", Registerer: prometheus.NewRegistry()})
	r.must(err)
	size, err := q.Size(r.Context())
	violations, _, auditErr := q.Audit(r.Context())
	if err != nil || auditErr != nil || size != 0 || len(violations) > 0 {
		r.Errorf("queue holds %d deliveries, audit %v, errors %v %v", size, violations, err, auditErr)
	}
}

// What does not end within the drain time is cut off and goes back: the next dispatcher sends it.
func TestDrainEndsWithItsTimeAndLosesNothing(t *testing.T) {
	r := newRig(t)
	r.subscribe("drain", "/flaky/1/drain", nil)
	hanging := r.subscribe("hang", "/hang/drain", nil)
	a := r.start(func(o *dispatcher.Options) { o.Drain = time.Second })
	a.ready()
	a.accepted("hang", "hang-1")
	r.arrived("/hang/drain", 1)
	started := time.Now()
	err := a.stop()
	if err == nil || !strings.Contains(err.Error(), "1 attempts cut off") || time.Since(started) > 5*time.Second {
		t.Errorf("Run ended with %v after %s", err, time.Since(started))
	}
	patch := client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"url":"`+r.receiver.URL+`/ok/drain"}}`))
	r.must(r.client.Patch(t.Context(), hanging, patch))
	r.start(nil)
	if list := r.arrived("/ok/drain", 1); list[0].EventID != "hang-1" {
		t.Errorf("arrived: %+v", list)
	}
}

func TestItRefusesARedisThatWouldLoseEvents(t *testing.T) {
	r := newRig(t, "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
	a := r.start(nil)
	err := a.end(patience)
	if err == nil || !containsAll(err.Error(), []string{"REDIS_URL", "allkeys-lru", "noeviction"}) {
		t.Errorf("Run ended with %v", err)
	}
	if _, _, err := get("http://" + a.Address() + "/healthz"); err == nil {
		t.Error("it still serves")
	}
}

func TestItWaitsForRedisAndIsReadyByItself(t *testing.T) {
	r := newRig(t)
	r.subscribe("wait", "/ok/wait", nil)
	r.redis.Kill()
	a := r.start(nil)
	eventually(t, "the log tells", func() error { return r.log.has(`"level":"WARN"`, "Redis cannot be reached") })
	r.must(errors.Join(a.expect("/healthz", http.StatusOK), a.expect("/readyz", http.StatusServiceUnavailable)))
	if status := a.publish("wait", "wait-0"); status != http.StatusServiceUnavailable {
		t.Errorf("publish without Redis: %d, want 503", status)
	}
	r.must(r.redis.Restart())
	a.ready()
	a.accepted("wait", "wait-1")
	r.arrived("/ok/wait", 1)
	if n := strings.Count(r.log.String(), "Redis cannot be reached"); n != 1 {
		t.Errorf("the log says %d times that Redis is away", n)
	}
}

func TestItEndsWhileItWaitsForRedis(t *testing.T) {
	r := newRig(t)
	r.redis.Kill()
	a := r.start(nil)
	eventually(t, "it is alive", func() error { return a.expect("/healthz", http.StatusOK) })
	if err := a.stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestItTellsOfRedisAndTheKubernetesAPIWhenBothAreAway(t *testing.T) {
	r := newRig(t)
	r.redis.Kill()
	closed, err := stack.FreeAddress()
	r.must(err)
	a := r.start(func(o *dispatcher.Options) { o.Kube = &rest.Config{Host: "https://" + closed} })
	eventually(t, "the log tells of both", func() error {
		return errors.Join(r.log.has(`"level":"WARN"`, "Redis cannot be reached"),
			r.log.has(`"level":"WARN"`, "The Kubernetes API cannot be read", "connection refused"))
	})
	status, body, err := get("http://" + a.Address() + "/readyz")
	if err != nil || status != http.StatusServiceUnavailable || !containsAll(body, []string{
		"the subscriptions are still being loaded: the Kubernetes API cannot be read", closed,
		`"name":"redis","status":"failed"`,
	}) {
		t.Errorf("/readyz: %d %s %v", status, body, err)
	}
	a.cancel()
	if err := a.end(5 * time.Second); err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestDeliveriesGoOnWithoutTheKubernetesAPI(t *testing.T) {
	r := newRig(t)
	sub := r.subscribe("away", "/ok/away", nil)
	a := r.start(nil)
	a.ready()
	r.gate.shut()
	eventually(t, "the watch has broken", func() error { return r.log.has("Watching the Kubernetes API was interrupted") })
	for _, id := range []string{"away-1", "away-2", "away-3"} {
		a.accepted("away", id)
	}
	r.arrived("/ok/away", 3)
	r.must(a.expect("/readyz", http.StatusOK))
	select {
	case <-a.ended:
		t.Fatalf("it ended: %v", a.err)
	default:
	}
	r.gate.open()
	r.status(sub, func(d *v1alpha1.DeliveryStatus) bool { return d.Successful == 3 })
}

// A subscription that is deleted while no dispatcher runs is found at the start, and what waits for it is cancelled.
func TestWhatWasDeletedMeanwhileIsCancelled(t *testing.T) {
	r := newRig(t)
	kept := r.subscribe("kept", "/ok/kept", func(s *v1alpha1.WebhookSubscriptionSpec) { s.Paused = new(true) })
	gone := r.subscribe("gone", "/ok/gone", func(s *v1alpha1.WebhookSubscriptionSpec) { s.Paused = new(true) })
	a := r.start(nil)
	a.ready()
	a.accepted("kept", "kept-1")
	a.accepted("gone", "gone-1")
	a.accepted("gone", "gone-2")
	r.must(a.stop())
	r.must(r.client.Delete(t.Context(), gone))
	b := r.start(func(o *dispatcher.Options) { o.ConfirmAfter = 100 * time.Millisecond })
	b.ready()
	eventually(t, "only what waits for the other is left", func() error {
		if !strings.Contains(b.metrics(), "\nnexus_webhook_queue_size 1\n") {
			return errors.New("queue size is not 1")
		}
		return nil
	})
	patch := client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"paused":false}}`))
	r.must(r.client.Patch(t.Context(), kept, patch))
	r.arrived("/ok/kept", 1)
	eventually(t, "the queue is empty", func() error {
		if !strings.Contains(b.metrics(), "\nnexus_webhook_queue_size 0\n") {
			return errors.New("queue size is not 0")
		}
		return nil
	})
	r.isEmpty()
	if n := len(r.receiver.Arrivals("/ok/gone")); n > 0 {
		t.Errorf("%d requests for a subscription that is gone", n)
	}
}

func TestMetricsAreThoseOfTheDocument(t *testing.T) {
	r := newRig(t)
	sub := r.subscribe("metrics", "/ok/metrics", nil)
	r.subscribe("flaky", "/flaky/2/metrics", func(s *v1alpha1.WebhookSubscriptionSpec) {
		s.Retry = &v1alpha1.RetryPolicy{InitialDelaySeconds: new(int32(1)), MaxDelaySeconds: new(int32(1))}
	})
	r.subscribe("failing", "/status/500/metrics", func(s *v1alpha1.WebhookSubscriptionSpec) {
		s.Retry = &v1alpha1.RetryPolicy{MaxRetries: new(int32(0))}
	})
	a := r.start(nil)
	a.ready()
	for _, project := range []string{"metrics", "flaky", "failing"} {
		a.accepted(project, project+"-1")
	}
	r.arrived("/flaky/2/metrics", 2)
	r.status(sub, func(d *v1alpha1.DeliveryStatus) bool { return d.Successful == 1 })
	want := []string{
		`nexus_webhook_deliveries_total\{event_type="build.completed",status="success"\} 2`,
		`nexus_webhook_deliveries_total\{event_type="build.completed",status="failed"\} 1`,
		`nexus_webhook_delivery_latency_seconds_bucket\{subscriber_id="sub_[0-9a-f]{12}",le="0.5"\} 1`,
		`nexus_webhook_delivery_latency_seconds_bucket\{subscriber_id="sub_[0-9a-f]{12}",le="1"\} 1`,
		`nexus_webhook_retries_total\{event_type="build.completed"\} 1`,
		`nexus_webhook_active_subscriptions\{event_type="build.completed"\} [1-9][0-9]*`,
		`nexus_webhook_build_info\{version="[^"]*"\} 1`,
		`go_goroutines [0-9]+`,
		`process_open_fds [0-9]+`,
	}
	all := append([]string{`nexus_webhook_queue_size 0`}, want...)
	eventually(t, "the metrics count", func() error { return lines(a.metrics(), all) })
	r.redis.Kill()
	if err := lines(a.metrics(), want); err != nil {
		t.Errorf("without Redis: %v", err)
	}
	r.must(r.redis.Restart())
	eventually(t, "the queue's size is back", func() error { return lines(a.metrics(), all) })
}

// lines tells which pattern no line of text matches.
func lines(text string, patterns []string) error {
	for _, pattern := range patterns {
		if !regexp.MustCompile(`(?m)^` + pattern + `$`).MatchString(text) {
			return errors.New("no line is " + pattern)
		}
	}
	return nil
}

func TestAStartThatFailsGivesBackWhatItOpened(t *testing.T) {
	r := newRig(t)
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	r.must(err)
	defer func() { _ = taken.Close() }()
	free, err := stack.FreeAddress()
	r.must(err)
	before := goleak.IgnoreCurrent()
	o := r.options()
	o.ListenAddress = free
	for name, change := range map[string]func(*dispatcher.Options){
		"--metrics-address":  func(o *dispatcher.Options) { o.MetricsAddress = taken.Addr().String() },
		"--listen-address":   func(o *dispatcher.Options) { o.ListenAddress = taken.Addr().String() },
		"--event-types-file": func(o *dispatcher.Options) { o.EventTypesFile = t.TempDir() + "/none" },
		"REDIS_URL":          func(o *dispatcher.Options) { o.RedisURL = "http://localhost" },
		"--egress-allow":     func(o *dispatcher.Options) { o.EgressNetworks = "nonsense" },
		"Kubernetes":         func(o *dispatcher.Options) { o.Kube = nil },
	} {
		changed := o
		change(&changed)
		if a, err := dispatcher.New(changed); err == nil || a != nil || !strings.Contains(err.Error(), name) {
			t.Errorf("New: %v, %v, want an error that names %s", a, err, name)
		}
	}
	a, err := dispatcher.New(o) // the address is free again
	r.must(err)
	r.must(a.Close())
	r.gate.shut()
	if err := goleak.Find(before); err != nil {
		t.Error(err)
	}
}
