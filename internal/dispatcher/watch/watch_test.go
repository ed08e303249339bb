// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"slices"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prometheus/client_golang/prometheus"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/event"
	"nexus.io/webhooks/internal/routing"
)

func TestTableHoldsWhatThereIsAtTheStart(t *testing.T) {
	b := newBench(t, nil)
	with, without := b.subscribe("with"), b.subscribe("without")
	b.key(with)
	b.ready()
	if r := b.route(with); r == nil || r.Hold != "" || !hasKey(signingKeyText)(r) {
		t.Errorf("route with a Secret: %v, hold %q", r, r.Hold)
	}
	if r := b.route(without); r == nil || r.Hold != v1alpha1.ReasonSecretNotFound {
		t.Errorf("route without a Secret: %v, hold %q", r, r.Hold)
	}
	want := queue.Limits{SubscriptionID: idOf(with), Namespace: with.Namespace, Generation: 1, RatePerMinute: 60,
		MaxInFlight: 10, MaxBacklog: 1000, Active: true}
	if got := b.queue.get(idOf(with)); got != want {
		t.Errorf("limits are %+v, want %+v", got, want)
	}
	if got := b.queue.get(idOf(without)); !got.Paused {
		t.Errorf("limits of a route on hold are %+v, want it paused", got)
	}
	sub, route := b.w.Subscription(idOf(with))
	if sub == nil || sub.Name != "with" || route != b.route(with) {
		t.Errorf("Subscription() = %v, %v", sub, route)
	}
	for _, f := range sub.ManagedFields {
		if f.FieldsV1 != nil {
			t.Errorf("the cache holds who wrote what: %v", f)
		}
	}
}

func TestTableFollowsTheSpec(t *testing.T) {
	b := newBench(t, nil)
	b.ready()
	sub := b.subscribe("follow")
	b.eventuallyRoute(sub, "is there", func(r *routing.Route) bool { return r.Generation == 1 })

	active, limit := false, int32(7)
	sub.Spec.Active, sub.Spec.RateLimitPerMinute = &active, &limit
	b.must(b.client.Update(t.Context(), sub))
	b.eventuallyRoute(sub, "generation 2", func(r *routing.Route) bool { return r.Generation == 2 && !r.Active })
	if got := b.queue.get(idOf(sub)); got.Active || got.RatePerMinute != 7 || got.Generation != 2 {
		t.Errorf("limits are %+v", got)
	}

	b.must(b.client.Delete(t.Context(), sub))
	eventually(t, "the route is gone", func() bool { return b.route(sub) == nil })
	eventually(t, "its deliveries are cancelled", func() bool { return b.queue.isCancelled(idOf(sub)) })

	again := b.subscribe("follow")
	b.eventuallyRoute(again, "is there again", func(r *routing.Route) bool { return r.Generation == 1 })
	if idOf(again) == idOf(sub) || b.queue.isCancelled(idOf(again)) {
		t.Errorf("the new subscription has id %s, cancelled: %v", idOf(again), b.queue.isCancelled(idOf(again)))
	}
}

func TestTableFollowsSecrets(t *testing.T) {
	b := newBench(t, nil)
	b.ready()
	sub := b.subscribe("secrets")
	b.eventuallyRoute(sub, "waits for the Secret", holds(v1alpha1.ReasonSecretNotFound))

	secret := b.key(sub)
	b.eventuallyRoute(sub, "has the key", holds(""))
	eventually(t, "the queue may send", func() bool { return !b.queue.get(idOf(sub)).Paused })

	secret.Data = map[string][]byte{v1alpha1.DefaultSigningKey: []byte("another-key-of-enough-bytes")}
	b.must(b.client.Update(t.Context(), secret))
	b.eventuallyRoute(sub, "has the new key", hasKey("another"))

	b.must(b.client.Delete(t.Context(), secret))
	b.eventuallyRoute(sub, "waits again", holds(v1alpha1.ReasonSecretNotFound))
	eventually(t, "the queue keeps what comes", func() bool { return b.queue.get(idOf(sub)).Paused })
}

func TestSecretSignsOnlyWhileTheSubscriptionControlsIt(t *testing.T) {
	b := newBench(t, nil)
	b.ready()
	sub := b.subscribe("owner")
	secret := b.key(sub)
	b.eventuallyRoute(sub, "has its own key", holds(""))

	owners := secret.OwnerReferences
	secret.OwnerReferences = nil
	b.must(b.client.Update(t.Context(), secret))
	b.eventuallyRoute(sub, "waits", holds(v1alpha1.ReasonSecretConflict))
	eventually(t, "the queue keeps what comes", func() bool { return b.queue.get(idOf(sub)).Paused })

	secret.OwnerReferences = owners
	b.must(b.client.Update(t.Context(), secret))
	b.eventuallyRoute(sub, "has its own key again", holds(""))
}

func TestSecretIsReadOnlyWhileItIsLabelled(t *testing.T) {
	b := newBench(t, nil)
	b.ready()
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: b.namespace, Name: "own"},
		StringData: map[string]string{v1alpha1.DefaultSigningKey: signingKeyText},
	}
	b.must(b.client.Create(t.Context(), secret))
	sub := b.subscribe("labelled")
	sub.Spec.Signing = &v1alpha1.Signing{SecretRef: &v1alpha1.SigningKeyReference{Name: "own"}}
	b.must(b.client.Update(t.Context(), sub))
	b.eventuallyRoute(sub, "does not see it", func(r *routing.Route) bool {
		return r.Generation == 2 && holds(v1alpha1.ReasonSecretNotFound)(r)
	})

	secret.Labels = map[string]string{v1alpha1.LabelReadable: v1alpha1.LabelReadableValue}
	b.must(b.client.Update(t.Context(), secret))
	b.eventuallyRoute(sub, "has the key", holds(""))

	secret.Labels = nil
	b.must(b.client.Update(t.Context(), secret))
	b.eventuallyRoute(sub, "does not see it any more", holds(v1alpha1.ReasonSecretNotFound))
}

func TestQueueKnowsTheLimitsBeforeTheTableHoldsTheRoute(t *testing.T) {
	b := newBench(t, nil)
	b.queue.onChange = func(ids []string) {
		for _, id := range ids {
			if b.w.Table().Route(id) != nil {
				t.Errorf("%s is in the table while the queue is told for the first time, or that it is gone", id)
			}
		}
	}
	before := b.subscribe("before")
	b.ready()
	after := b.subscribe("after")
	b.eventuallyRoute(after, "is there", func(*routing.Route) bool { return true })
	for _, sub := range []*v1alpha1.WebhookSubscription{before, after} {
		b.must(b.client.Delete(t.Context(), sub))
		eventually(t, "cancelled", func() bool { return b.queue.isCancelled(idOf(sub)) })
	}
}

func TestStatusChangesCostNothing(t *testing.T) {
	b := newBench(t, nil)
	sub := b.subscribe("status")
	b.ready()
	table := b.w.Table()
	configured, _ := b.queue.counts()
	sub.Status.ID = idOf(sub)
	b.must(b.client.Status().Update(t.Context(), sub))
	eventually(t, "the cache has the status", func() bool {
		cached, _ := b.w.Subscription(idOf(sub))
		return cached.Status.ID != ""
	})
	sentinel := b.subscribe("sentinel")
	b.eventuallyRoute(sentinel, "is there", func(*routing.Route) bool { return true })
	if b.w.Table().Route(idOf(sub)) != table.Route(idOf(sub)) {
		t.Error("a change of status made another route")
	}
	if now, _ := b.queue.counts(); now != configured+1 {
		t.Errorf("the queue was told of %d subscriptions, want 1", now-configured)
	}
}

func TestListenersHearOfEveryChange(t *testing.T) {
	b := newBench(t, nil)
	var mu sync.Mutex
	var heard []string
	stop := b.w.Subscribe(func(ids []string) {
		mu.Lock()
		defer mu.Unlock()
		heard = append(heard, ids...)
	})
	count := func(id string) int {
		mu.Lock()
		defer mu.Unlock()
		return len(slices.DeleteFunc(slices.Clone(heard), func(h string) bool { return h != id }))
	}
	b.ready()
	sub := b.subscribe("heard")
	eventually(t, "it is heard of", func() bool { return count(idOf(sub)) == 1 })
	b.key(sub)
	eventually(t, "its Secret is heard of", func() bool { return count(idOf(sub)) == 2 })
	stop()
	b.must(b.client.Delete(t.Context(), sub))
	eventually(t, "it is gone", func() bool { return b.route(sub) == nil })
	if n := count(idOf(sub)); n != 2 {
		t.Errorf("heard of it %d times", n)
	}
}

func TestNoChangeIsLostWhileTheQueueIsAway(t *testing.T) {
	b := newBench(t, nil)
	kept, deleted := b.subscribe("kept"), b.subscribe("deleted")
	b.ready()
	b.queue.setDown(true)
	added := b.subscribe("added")
	paused := true
	kept.Spec.Paused = &paused
	b.must(b.client.Update(t.Context(), kept))
	b.must(b.client.Delete(t.Context(), deleted))
	eventually(t, "what is deleted leaves the table", func() bool { return b.route(deleted) == nil })
	if b.route(added) != nil || b.route(kept).Paused || b.queue.isCancelled(idOf(deleted)) {
		t.Error("a change took effect without the queue")
	}
	b.queue.setDown(false)
	b.eventuallyRoute(added, "is there", func(*routing.Route) bool { return true })
	b.eventuallyRoute(kept, "is paused", func(r *routing.Route) bool { return r.Paused })
	eventually(t, "what is deleted is cancelled", func() bool { return b.queue.isCancelled(idOf(deleted)) })
}

func TestNotReadyUntilTheQueueKnowsAll(t *testing.T) {
	b := newBench(t, nil)
	sub := b.subscribe("early")
	b.queue.setDown(true)
	b.start()
	eventually(t, "the caches are filled", func() bool { return b.w.objects.subscription(keyOf(sub)) != nil })
	if b.w.Ready() || b.route(sub) != nil {
		t.Error("ready without the queue")
	}
	b.queue.setDown(false)
	eventually(t, "ready", b.w.Ready)
	if b.route(sub) == nil {
		t.Error("ready without the route")
	}
}

func TestTableStaysWhileTheKubernetesAPIIsAway(t *testing.T) {
	p, config := newProxy(t)
	b := newBench(t, func(o *Options) { o.Config = config })
	kept, deleted := b.subscribe("kept"), b.subscribe("deleted")
	b.ready()
	p.down()
	table := b.w.Table()
	b.must(b.client.Delete(t.Context(), deleted))
	added := b.subscribe("added")
	b.w.compareSoon()
	if b.w.Table() != table || !b.w.Ready() {
		t.Error("the table changed without the API server")
	}
	p.up(t)
	b.eventuallyRoute(added, "is there", func(*routing.Route) bool { return true })
	eventually(t, "what was deleted meanwhile is gone", func() bool { return b.route(deleted) == nil })
	eventually(t, "and cancelled", func() bool { return b.queue.isCancelled(idOf(deleted)) })
	if b.route(kept) == nil || b.queue.isCancelled(idOf(kept)) {
		t.Error("what was there all the time is gone")
	}
}

func TestMetricsCountActiveSubscriptionsByType(t *testing.T) {
	b := newBench(t, nil)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(b.w.Collector([]string{"only_here.completed", "only_here.failed"}))
	b.w.publish([]*routing.Route{
		{ID: "sub_1", Active: true, Events: []string{"only_here.*"}},
		{ID: "sub_2", Active: true, Events: []string{"only_here.failed"}},
		{ID: "sub_3", Events: []string{"*"}},
	}, nil)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			got[name] = m.GetGauge().GetValue()
		}
	}
	if got["nexus_webhook_active_subscriptions only_here.completed"] != 1 ||
		got["nexus_webhook_active_subscriptions only_here.failed"] != 2 ||
		got["nexus_webhook_routing_table_routes"] != 3 ||
		got["nexus_webhook_routing_table_last_change_timestamp_seconds"] == 0 {
		t.Errorf("metrics: %v", got)
	}
}

func TestPendingCoalescesAndGivesBack(t *testing.T) {
	p := newPending()
	k := key{"a", "b"}
	p.touch(k)
	p.reconfigure(k)
	p.touch(k)
	p.forget(k, "uid")
	p.delete(k, "uid")
	p.forget(k, "uid")
	if p.len() != 2 {
		t.Fatalf("%d changes wait, want 2", p.len())
	}
	got := p.take(1)
	if !got.touched[k] || !got.deleted["uid"].certain || p.len() != 0 {
		t.Errorf("took %+v, %d left", got, p.len())
	}
	p.putBack(got.touched)
	if again := p.take(1); !again.touched[k] || len(again.deleted) != 0 {
		t.Errorf("took %+v again", again)
	}
}

func TestReferencesFollowTheSpec(t *testing.T) {
	r := newReferences()
	a, b := key{"ns", "a"}, key{"ns", "b"}
	r.set(a, []string{"one", "two"})
	r.set(b, []string{"two"})
	r.set(key{"other", "a"}, []string{"two"})
	r.set(a, []string{"two", "three"})
	for secret, want := range map[string][]key{"one": nil, "two": {a, b}, "three": {a}} {
		if got := slices.Collect(r.to(key{"ns", secret})); !slices.Equal(got, want) {
			t.Errorf("%s is referred to by %v, want %v", secret, got, want)
		}
	}
	r.set(a, nil)
	r.set(b, nil)
	r.set(key{"other", "a"}, nil)
	if r.bySource.Len() != 0 || len(r.sources) != 0 {
		t.Error("references are left behind")
	}
}

func TestIDsAreThoseOfTheEventPackage(t *testing.T) {
	b := newBench(t, nil)
	sub := b.subscribe("id")
	b.ready()
	if r := b.route(sub); r == nil || r.ID != event.SubscriptionID(string(sub.UID)) {
		t.Errorf("route %v", r)
	}
}
