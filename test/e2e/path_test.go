// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/test/receiver"
	"nexus.io/webhooks/test/stack"
)

func secretOf(t *testing.T, s *stack.Stack, sub *v1alpha1.WebhookSubscription) string {
	t.Helper()
	var secret corev1.Secret
	key := client.ObjectKey{Namespace: sub.Namespace, Name: sub.Status.SigningSecret.Name}
	if err := s.Client.Get(t.Context(), key, &secret); err != nil {
		t.Fatal(err)
	}
	return string(secret.Data[v1alpha1.DefaultSigningKey])
}

// From kubectl apply and an event to a signed delivery and a status that tells.
func TestWholePath(t *testing.T) {
	s := start(t, 1)
	sub := subscribe(t, s, "path", "/ok/path", nil)

	data := `{"project":"path", "big":12345678901234567890.10, "z":1,"a":"\u00e9é"}`
	status, answer, err := s.Publish(t.Context(), 0,
		`{"type":"build.completed","source":"ci","data":`+data+`,"metadata":{"team":"x"}}`)
	if err != nil || status != 202 {
		t.Fatalf("publish: %d %s %v", status, answer, err)
	}
	var accepted struct {
		EventID    string `json:"event_id"`
		Matched    int    `json:"subscriptions_matched"`
		Deliveries []struct {
			SubscriptionID string `json:"subscription_id"`
			DeliveryID     string `json:"delivery_id"`
		} `json:"deliveries"`
	}
	if err := json.Unmarshal([]byte(answer), &accepted); err != nil || accepted.Matched != 1 {
		t.Fatalf("answer %s: %v", answer, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	list, err := s.Receiver.Wait(ctx, "/ok/path", func(l []receiver.Arrival) bool { return len(l) > 0 })
	if err != nil {
		t.Fatal(err)
	}
	got := list[0]
	if !got.Verify(secretOf(t, s, sub)) {
		t.Error("the signature does not verify with the subscription's Secret")
	}
	if !strings.Contains(got.Body, `"data":`+data+`,`) {
		t.Errorf("data is not byte for byte what was published: %s", got.Body)
	}
	d := accepted.Deliveries[0]
	if got.DeliveryID != d.DeliveryID || got.EventID != accepted.EventID || sub.Status.ID != d.SubscriptionID {
		t.Errorf("ids differ: %+v, answer %s, status.id %s", got, answer, sub.Status.ID)
	}
	statusTells(t, s, sub)
	audit(t, s)
}

func statusTells(t *testing.T, s *stack.Stack, sub *v1alpha1.WebhookSubscription) {
	t.Helper()
	eventually(t, 15*time.Second, "the status tells of the delivery", func(ctx context.Context) error {
		if err := s.Client.Get(ctx, client.ObjectKeyFromObject(sub), sub); err != nil {
			return err
		}
		d := sub.Status.Delivery
		if d == nil || d.Successful != 1 || d.Pending != 0 || d.LastSuccessTime == nil || d.LastStatusCode != 200 {
			return fmt.Errorf("status.delivery is %+v", d)
		}
		if !meta.IsStatusConditionTrue(sub.Status.Conditions, v1alpha1.ConditionDelivering) {
			return fmt.Errorf("conditions are %+v", sub.Status.Conditions)
		}
		return nil
	})
}

func TestAttemptsKeepIdAndBodyAndTheirSchedule(t *testing.T) {
	s := start(t, 1)
	sub := subscribe(t, s, "retry", "/flaky/3", func(spec *v1alpha1.WebhookSubscriptionSpec) {
		spec.Retry = &v1alpha1.RetryPolicy{InitialDelaySeconds: new(int32(1)), MaxDelaySeconds: new(int32(5))}
	})
	if status, answer, err := s.Publish(t.Context(), 0, event("retry", "retry-1")); err != nil || status != 202 {
		t.Fatalf("publish: %d %s %v", status, answer, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	list, err := s.Receiver.Wait(ctx, "/flaky/3", func(l []receiver.Arrival) bool { return len(l) == 3 })
	if err != nil {
		t.Fatal(err)
	}
	secret := secretOf(t, s, sub)
	for i, a := range list {
		if a.DeliveryID != list[0].DeliveryID || a.Body != list[0].Body || !a.Verify(secret) {
			t.Errorf("attempt %d differs from the first or is not signed: %+v", i+1, a)
		}
	}
	for i, want := range []time.Duration{time.Second, 2 * time.Second} {
		if gap := list[i+1].At.Sub(list[i].At); gap < want-20*time.Millisecond || gap > want+want/10+500*time.Millisecond {
			t.Errorf("attempt %d came %s after the one before, want %s to a tenth more", i+2, gap, want)
		}
	}
	if list[2].Timestamp == list[0].Timestamp {
		t.Error("the last attempt carries the timestamp of the first")
	}
	audit(t, s)
}

// What a paused subscription gets waits, and goes out when it is resumed.
func TestPausedKeepsAndInactiveDropsNothingItHas(t *testing.T) {
	s := start(t, 1)
	sub := subscribe(t, s, "pause", "/ok/pause", func(spec *v1alpha1.WebhookSubscriptionSpec) { spec.Paused = new(true) })
	p := publish(t.Context(), s, "pause", 5, time.Millisecond, 0)
	eventually(t, 15*time.Second, "the status shows what waits", func(ctx context.Context) error {
		err := s.Client.Get(ctx, client.ObjectKeyFromObject(sub), sub)
		if err == nil && (sub.Status.Delivery == nil || sub.Status.Delivery.Pending != 5) {
			err = fmt.Errorf("status.delivery is %+v", sub.Status.Delivery)
		}
		return err
	})
	if n := len(s.Receiver.Arrivals("/ok/pause")); n > 0 {
		t.Fatalf("%d requests came while it was paused", n)
	}
	patch := client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"paused":false}}`))
	if err := s.Client.Patch(t.Context(), sub, patch); err != nil {
		t.Fatal(err)
	}
	if n := arrived(t, s, "/ok/pause", p.accepted, 10*time.Second); n > 0 || len(p.accepted) != 5 {
		t.Errorf("%d accepted, %d duplicates", len(p.accepted), n)
	}
}

// Promise 8: Redis gone means 503 and nothing half accepted; back, delivery goes on by itself.
func TestRedisAwayRefusesAndGoesOn(t *testing.T) {
	s := start(t, 1)
	subscribe(t, s, "away", "/slow/100/away", nil)
	before := publish(t.Context(), s, "away", 20, time.Millisecond, 0)
	s.Redis.Kill()
	status, answer, err := s.Publish(t.Context(), 0, event("away", "away-refused"))
	if err != nil || status != 503 || !strings.Contains(answer, "problem") && !strings.Contains(answer, "title") {
		t.Errorf("publish without Redis: %d %s %v, want 503", status, answer, err)
	}
	if err := s.Redis.Restart(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 15*time.Second, "events are accepted again", func(ctx context.Context) error {
		status, answer, err := s.Publish(ctx, 0, event("away", "away-again"))
		if err == nil && status != 202 {
			err = fmt.Errorf("%d %s", status, answer)
		}
		return err
	})
	arrived(t, s, "/slow/100/away", append(before.accepted, "away-again"), 60*time.Second)
	audit(t, s)
}

// SIGTERM loses nothing, duplicates nothing, and ends with 0.
func TestShutdownLosesAndDuplicatesNothing(t *testing.T) {
	s := start(t, 2, "--lease-time=3") // what the one that stops leaves behind comes soon
	subscribe(t, s, "stop", "/slow/300/stop", func(spec *v1alpha1.WebhookSubscriptionSpec) {
		spec.MaxInFlight = new(int32(50))
	})
	load := make(chan *publishing, 1)
	go func() { load <- publish(t.Context(), s, "stop", 600, 2*time.Millisecond, 0, 1) }()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := s.Receiver.Wait(ctx, "/slow/300/stop", func(l []receiver.Arrival) bool { return len(l) > 60 }); err != nil {
		t.Fatal(err)
	}
	if err := s.Dispatchers[0].Stop(); err != nil {
		t.Errorf("exit: %v\n%s", err, s.Dispatchers[0].Tail(20))
	}
	p := <-load
	if n := arrived(t, s, "/slow/300/stop", p.accepted, 60*time.Second); n > 0 {
		t.Errorf("%d of %d came twice", n, len(p.accepted))
	}
}

// Promises 1 and 2: whatever dispatcher dies, every accepted event arrives, and no more come twice than it had in
// flight.
func TestCrashLosesNothing(t *testing.T) {
	const inFlight = 20
	s := start(t, 2, "--lease-time=5")
	subscribe(t, s, "crash", "/slow/100/crash", func(spec *v1alpha1.WebhookSubscriptionSpec) {
		spec.MaxInFlight = new(int32(inFlight))
	})
	load := make(chan *publishing, 1)
	go func() { load <- publish(t.Context(), s, "crash", 1000, 2*time.Millisecond, 0, 1) }()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := s.Receiver.Wait(ctx, "/slow/100/crash", func(l []receiver.Arrival) bool { return len(l) > 100 }); err != nil {
		t.Fatal(err)
	}
	if err := s.Dispatchers[0].Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	p := <-load
	n := arrived(t, s, "/slow/100/crash", p.accepted, 90*time.Second)
	if n > inFlight {
		t.Errorf("%d came twice, at most %d were in flight", n, inFlight)
	}
	t.Logf("accepted %d, refused %d, lost 0, twice %d", len(p.accepted), p.refused, n)
}
