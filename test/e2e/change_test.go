// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/test/receiver"
	"nexus.io/webhooks/test/stack"
)

// accepted publishes an event that must be taken.
func accepted(t *testing.T, s *stack.Stack, project, id string) {
	t.Helper()
	status, answer, err := s.Publish(t.Context(), 0, event(project, id))
	if err != nil || status != http.StatusAccepted {
		t.Fatalf("publish %s: %d %s %v", id, status, answer, err)
	}
}

func wait(t *testing.T, s *stack.Stack, path string, count int) []receiver.Arrival {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	list, err := s.Receiver.Wait(ctx, path, func(l []receiver.Arrival) bool { return len(l) >= count })
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// A key that is edited signs what is sent from then on, without a restart.
func TestAKeyThatIsEditedSignsTheNextDelivery(t *testing.T) {
	s := start(t, 1)
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "own", Namespace: s.Namespace},
		Type:       v1alpha1.SecretTypeSigningKey,
		StringData: map[string]string{v1alpha1.DefaultSigningKey: "the-key-before-it-was-edited"},
	}
	if err := s.Client.Create(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	subscribe(t, s, "key", "/ok/key", func(spec *v1alpha1.WebhookSubscriptionSpec) {
		spec.Signing = &v1alpha1.Signing{SecretRef: &v1alpha1.SigningKeyReference{Name: "own"}}
	})
	accepted(t, s, "key", "before")
	if !wait(t, s, "/ok/key", 1)[0].Verify("the-key-before-it-was-edited") {
		t.Error("the first delivery is not signed by the first key")
	}
	patch := client.RawPatch("application/merge-patch+json",
		[]byte(`{"stringData":{"`+v1alpha1.DefaultSigningKey+`":"the-key-after-it-was-edited"}}`))
	if err := s.Client.Patch(t.Context(), secret, patch); err != nil {
		t.Fatal(err)
	}
	count := 1
	eventually(t, 10*time.Second, "the new key signs", func(context.Context) error {
		accepted(t, s, "key", fmt.Sprintf("after-%d", count))
		count++
		if last := wait(t, s, "/ok/key", count)[count-1]; !last.Verify("the-key-after-it-was-edited") {
			return fmt.Errorf("%s is not signed by it", last.EventID)
		}
		return nil
	})
	audit(t, s)
}

func TestWhatWaitsForADeletedSubscriptionIsCancelled(t *testing.T) {
	s := start(t, 2)
	sub := subscribe(t, s, "deleted", "/ok/deleted", func(spec *v1alpha1.WebhookSubscriptionSpec) {
		spec.Paused = new(true)
	})
	if p := publish(t.Context(), s, "deleted", 50, time.Millisecond, 0, 1); len(p.accepted) != 50 {
		t.Fatalf("%d events were refused", p.refused)
	}
	if err := s.Client.Delete(t.Context(), sub); err != nil {
		t.Fatal(err)
	}
	audit(t, s)
	status, answer, err := s.Publish(t.Context(), 0, event("deleted", "deleted-later"))
	if err != nil || status != http.StatusAccepted || !strings.Contains(answer, `"subscriptions_matched":0`) {
		t.Errorf("publish later: %d %s %v", status, answer, err)
	}
	if n := len(s.Receiver.Arrivals("/ok/deleted")); n > 0 {
		t.Errorf("%d requests came", n)
	}
}

// Without the manager deliveries go on; a subscription that is new meanwhile has no key, so its events wait for it.
func TestWithoutTheManagerNothingIsLost(t *testing.T) {
	s := start(t, 1)
	subscribe(t, s, "old", "/ok/old", nil)
	s.Manager.Kill()
	accepted(t, s, "old", "old-1")
	wait(t, s, "/ok/old", 1)

	late := &v1alpha1.WebhookSubscription{ObjectMeta: metav1.ObjectMeta{Name: "late", Namespace: s.Namespace}}
	late.Spec = v1alpha1.WebhookSubscriptionSpec{
		URL: s.Receiver.URL + "/ok/late", Events: []string{"*"}, Filter: &v1alpha1.EventFilter{Project: "late"},
	}
	create(t, s, late)
	eventually(t, 15*time.Second, "the status says what is missing", func(ctx context.Context) error {
		return condition(ctx, s, late, metav1.ConditionFalse, v1alpha1.ReasonSecretNotFound)
	})
	accepted(t, s, "late", "late-1")
	if err := s.Manager.Start(); err != nil {
		t.Fatal(err)
	}
	if got := wait(t, s, "/ok/late", 1)[0]; got.EventID != "late-1" {
		t.Errorf("arrived: %+v", got)
	}
	audit(t, s)
}

// condition tells whether Delivering is as wanted.
func condition(ctx context.Context, s *stack.Stack, sub *v1alpha1.WebhookSubscription, status metav1.ConditionStatus,
	reason string,
) error {
	if err := s.Client.Get(ctx, client.ObjectKeyFromObject(sub), sub); err != nil {
		return err
	}
	c := meta.FindStatusCondition(sub.Status.Conditions, v1alpha1.ConditionDelivering)
	if c == nil || c.Status != status || c.Reason != reason {
		return fmt.Errorf("condition is %+v, want %s %s", c, status, reason)
	}
	return nil
}

// What endpoints say beside success and failure: come back later, and never again.
func TestEndpointsAreHeard(t *testing.T) {
	s := start(t, 1)
	subscribe(t, s, "busy", "/busy/3/x", func(spec *v1alpha1.WebhookSubscriptionSpec) {
		spec.Retry = &v1alpha1.RetryPolicy{InitialDelaySeconds: new(int32(1)), MaxDelaySeconds: new(int32(60))}
	})
	gone := subscribe(t, s, "gone", "/status/410/x", nil)
	accepted(t, s, "busy", "busy-1")
	accepted(t, s, "gone", "gone-1")
	list := wait(t, s, "/busy/3/x", 2)
	if gap := list[1].At.Sub(list[0].At); gap < 3*time.Second-20*time.Millisecond || gap > 4500*time.Millisecond {
		t.Errorf("the next attempt came after %s, want 3 s and little more", gap)
	}
	eventually(t, 15*time.Second, "the status says that the endpoint is gone", func(ctx context.Context) error {
		if err := condition(ctx, s, gone, metav1.ConditionFalse, v1alpha1.ReasonEndpointGone); err != nil {
			return err
		}
		if d := gone.Status.Delivery; d == nil || d.Failed != 1 || d.LastStatusCode != http.StatusGone {
			return fmt.Errorf("status.delivery is %+v", d)
		}
		return nil
	})
	audit(t, s)
	if n := len(s.Receiver.Arrivals("/status/410/x")); n != 1 {
		t.Errorf("%d requests to an endpoint that is gone, want 1", n)
	}
}

func TestMaxInFlightHoldsOverDispatchersAndIsUsed(t *testing.T) {
	const most = 5
	s := start(t, 2)
	subscribe(t, s, "few", "/slow/50/few", func(spec *v1alpha1.WebhookSubscriptionSpec) {
		spec.MaxInFlight = new(int32(most))
	})
	p := publish(t.Context(), s, "few", 200, time.Millisecond, 0, 1)
	if n := arrived(t, s, "/slow/50/few", p.accepted, 30*time.Second); n > 0 {
		t.Errorf("%d of %d came twice", n, len(p.accepted))
	}
	if got := s.Receiver.MostAtOnce("/slow/50/few"); got != most {
		t.Errorf("%d requests at once at the most, want %d", got, most)
	}
	audit(t, s)
}

// A first signal waits for what is under way, a second one does not.
func TestASecondSignalEndsItAtOnce(t *testing.T) {
	s := start(t, 1, "--lease-time=3")
	subscribe(t, s, "impatient", "/hang/impatient", nil)
	accepted(t, s, "impatient", "impatient-1")
	wait(t, s, "/hang/impatient", 1)
	d := s.Dispatchers[0]
	if err := d.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "it has heard the first", func(context.Context) error {
		if !strings.Contains(d.Log(), `"Stopping"`) {
			return fmt.Errorf("its log ends: %s", d.Tail(1))
		}
		return nil
	})
	started := time.Now()
	if err := d.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Wait(); err == nil || time.Since(started) > 5*time.Second {
		t.Errorf("it ended with %v after %s", err, time.Since(started))
	}
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	if list := wait(t, s, "/hang/impatient", 2); list[1].DeliveryID != list[0].DeliveryID {
		t.Errorf("arrived: %+v", list)
	}
}
