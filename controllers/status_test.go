// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	ctrlevent "sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/yaml"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/event"
)

func TestTheStatusSaysWhatAUserAsks(t *testing.T) {
	f := newManagedFixture(t)
	f.create(f.subscription("cicd"))
	sub := f.waitReady("cicd")

	if sub.Status.ObservedGeneration != sub.Generation {
		t.Errorf("observedGeneration is %d, generation %d", sub.Status.ObservedGeneration, sub.Generation)
	}
	if want := event.SubscriptionID(string(sub.UID)); sub.Status.ID != want {
		t.Errorf("id is %q, want %q", sub.Status.ID, want)
	}
	if sub.Status.Host != "your-app.example:8443" {
		t.Errorf("host is %q", sub.Status.Host)
	}
	got := map[string]string{}
	for _, c := range sub.Status.Conditions {
		got[c.Type] = string(c.Status) + " " + c.Reason + ": " + c.Message
	}
	want := map[string]string{
		"Ready":       "True Ready: The subscription takes part",
		"Accepted":    "True Accepted: Every entry of spec.events can match an event",
		"SecretReady": `True SecretReady: Requests are signed with key "secret" of Secret "cicd-signing"`,
	}
	if difference := cmp.Diff(want, got); difference != "" {
		t.Errorf("conditions (-want +got):\n%s", difference)
	}
	f.waitForEvent("cicd", "Normal Ready: The subscription takes part")
}

func TestAnUnknownEventTypeIsNotAccepted(t *testing.T) {
	f := newManagedFixture(t)
	sub := f.subscription("cicd")
	sub.Spec.Events = []string{"build.completed", "build.complete"}
	f.create(sub)
	want := `spec.events[1]: "build.complete" is no event type of this cluster; did you mean "build.completed"?`
	for _, conditionType := range []string{v1alpha1.ConditionAccepted, v1alpha1.ConditionReady} {
		condition := f.waitFor("cicd", conditionType, v1alpha1.ReasonUnknownEventType)
		if condition.Message != want || condition.Status != metav1.ConditionFalse {
			t.Errorf("%s is %s: %q", conditionType, condition.Status, condition.Message)
		}
	}
	f.waitForEvent("cicd", "Warning UnknownEventType: "+want)
	f.waitFor("cicd", v1alpha1.ConditionSecretReady, v1alpha1.ReasonSecretReady)

	edit(f, sub, func(s *v1alpha1.WebhookSubscription) { s.Spec.Events = []string{"deployment.*", "*"} })
	f.waitReady("cicd")
}

// writes counts what goes to the API server, events included.
type writes struct{ atomic.Int64 }

func (w *writes) count(c client.WithWatch) client.WithWatch {
	return interceptor.NewClient(c, interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			w.Add(1)
			return c.Create(ctx, o, opts...)
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			w.Add(1)
			return c.Delete(ctx, o, opts...)
		},
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			w.Add(1)
			return c.Update(ctx, o, opts...)
		},
		SubResourceApply: func(ctx context.Context, c client.Client, name string, o runtime.ApplyConfiguration,
			opts ...client.SubResourceApplyOption) error {
			w.Add(1)
			return c.SubResource(name).Apply(ctx, o, opts...)
		},
	})
}

func (w *writes) Eventf(runtime.Object, runtime.Object, string, string, string, string, ...any) {
	w.Add(1)
}

// direct is a client that tests put something between.
func (f *fixture) direct() client.WithWatch {
	f.t.Helper()
	direct, err := client.NewWithWatch(cluster.Config, client.Options{Scheme: f.client.Scheme()})
	must(f.t, err)
	return direct
}

// reconciler is one that a test drives by hand.
func (f *fixture) reconciler(w *writes) *SubscriptionReconciler {
	f.t.Helper()
	direct := f.direct()
	return &SubscriptionReconciler{
		Client: w.count(direct), Live: direct, Events: w, Catalogue: event.Builtin(), Now: time.Now,
	}
}

var _ events.EventRecorder = &writes{}

func (f *fixture) reconcile(r *SubscriptionReconciler, name string) error {
	_, err := r.Reconcile(f.ctx, reconcile.Request{NamespacedName: f.key(name)})
	return err
}

func TestAnUnchangedSubscriptionIsNotWritten(t *testing.T) {
	broken := func(f *fixture) *v1alpha1.WebhookSubscription {
		sub := f.signedWith("cicd", "nowhere")
		sub.Spec.Events = []string{"no.such"}
		return sub
	}
	cases := map[string]struct {
		make func(f *fixture) *v1alpha1.WebhookSubscription
		want int64 // writes of the first time
	}{
		"a ready one":               {func(f *fixture) *v1alpha1.WebhookSubscription { return f.subscription("cicd") }, 4},
		"one with everything wrong": {broken, 2},
		"one whose name is taken by another's Secret": {func(f *fixture) *v1alpha1.WebhookSubscription {
			f.create(f.secret("cicd-signing", map[string]string{"secret": someKey}))
			return f.subscription("cicd")
		}, 2},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.create(c.make(f))
			w := &writes{}
			r := f.reconciler(w)
			must(t, f.reconcile(r, "cicd"))
			if got := w.Load(); got != c.want {
				t.Errorf("the first time took %d writes, want %d", got, c.want)
			}
			version := f.getSubscription("cicd").ResourceVersion
			for range 10 {
				must(t, f.reconcile(r, "cicd"))
			}
			if got := w.Load(); got != c.want {
				t.Errorf("10 times more took %d writes, want none", got-c.want)
			}
			if after := f.getSubscription("cicd").ResourceVersion; after != version {
				t.Errorf("the resource version moved from %s to %s", version, after)
			}
		})
	}
}

func TestTheTransitionTimeMovesOnlyWithTheStatus(t *testing.T) {
	f := newFixture(t)
	sub := f.subscription("cicd")
	f.create(sub)
	r := f.reconciler(&writes{})
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	r.Now = func() time.Time { return start }
	must(t, f.reconcile(r, "cicd"))

	r.Now = func() time.Time { return start.Add(time.Hour) }
	edit(f, sub, func(s *v1alpha1.WebhookSubscription) { s.Spec.Events = []string{"no.such"} })
	must(t, f.reconcile(r, "cicd"))
	conditions := f.getSubscription("cicd").Status.Conditions
	accepted := meta.FindStatusCondition(conditions, v1alpha1.ConditionAccepted)
	secretReady := meta.FindStatusCondition(conditions, v1alpha1.ConditionSecretReady)
	if !accepted.LastTransitionTime.Time.Equal(start.Add(time.Hour)) {
		t.Errorf("Accepted changed at %s", accepted.LastTransitionTime)
	}
	if !secretReady.LastTransitionTime.Time.Equal(start) || secretReady.ObservedGeneration != 2 {
		t.Errorf("SecretReady changed at %s, generation %d", secretReady.LastTransitionTime, secretReady.ObservedGeneration)
	}
}

// reflect writes the dispatcher's part of the status, as the dispatcher does.
func (f *fixture) reflect(name string, successful int64) {
	f.t.Helper()
	object := &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{
		"delivery": map[string]any{"successful": successful},
		"conditions": []any{map[string]any{
			"type": v1alpha1.ConditionDelivering, "status": "True", "reason": v1alpha1.ReasonDelivered, "message": "",
			"lastTransitionTime": "2030-01-01T00:00:00Z", "observedGeneration": int64(1),
		}},
	}}}
	object.SetGroupVersionKind(v1alpha1.SubscriptionKind)
	object.SetNamespace(f.namespace)
	object.SetName(name)
	must(f.t, f.client.Status().Apply(f.ctx, client.ApplyConfigurationFromUnstructured(object),
		client.FieldOwner(v1alpha1.FieldOwnerDispatcher)))
}

func TestManagerAndDispatcherKeepOutOfEachOthersStatus(t *testing.T) {
	f := newManagedFixture(t)
	sub := f.subscription("cicd")
	f.create(sub)
	before := f.waitReady("cicd").Status
	f.reflect("cicd", 7) // without force: a conflict fails the test
	edit(f, sub, func(s *v1alpha1.WebhookSubscription) { s.Spec.Events = []string{"no.such"} })
	f.waitFor("cicd", v1alpha1.ConditionReady, v1alpha1.ReasonUnknownEventType)
	f.reflect("cicd", 8)

	after := f.getSubscription("cicd").Status
	if after.Delivery == nil || after.Delivery.Successful != 8 {
		t.Errorf("status.delivery is %+v", after.Delivery)
	}
	if !meta.IsStatusConditionTrue(after.Conditions, v1alpha1.ConditionDelivering) || len(after.Conditions) != 4 {
		t.Errorf("conditions are %+v", after.Conditions)
	}
	if after.ID != before.ID || after.Host != before.Host {
		t.Errorf("the manager's part is %+v, was %+v", after, before)
	}
}

func TestStatisticsDoNotWakeTheManager(t *testing.T) {
	f := newFixture(t)
	f.create(f.subscription("cicd"))
	w := &writes{}
	r := f.reconciler(w)
	must(t, f.reconcile(r, "cicd"))
	f.reflect("cicd", 1)
	before := w.Load()
	must(t, f.reconcile(r, "cicd"))
	if w.Load() != before {
		t.Error("the manager wrote after the dispatcher had")
	}
}

func TestAConflictIsTriedAgain(t *testing.T) {
	f := newFixture(t)
	f.create(f.subscription("cicd"))
	w := &writes{}
	r := f.reconciler(w)
	taken := apierrors.NewAlreadyExists(corev1.Resource("secrets"), "cicd-signing")
	healthy := r.Client
	r.Client = interceptor.NewClient(f.direct(), interceptor.Funcs{
		Create: func(context.Context, client.WithWatch, client.Object, ...client.CreateOption) error { return taken },
	})
	// Another manager was faster between the read and the write.
	if err := f.reconcile(r, "cicd"); !apierrors.IsAlreadyExists(err) || !strings.Contains(err.Error(), "cicd-signing") {
		t.Fatalf("error is %v, want one that is tried again and names the Secret", err)
	}
	r.Client = healthy
	must(t, f.reconcile(r, "cicd"))
	if !isTrue(f.getSubscription("cicd").Status.Conditions, v1alpha1.ConditionReady) {
		t.Error("it is not ready")
	}
}

func TestASuccessorGetsItsOwnStatus(t *testing.T) {
	f := newFixture(t)
	old := f.subscription("cicd")
	f.create(old)
	r := f.reconciler(&writes{})
	gone := old.DeepCopy()
	f.delete(old)
	f.create(f.subscription("cicd"))

	// What was decided for the one that is gone arrives late, at its successor.
	must(t, r.report(f.ctx, gone, decide(gone, sources{}, r.Catalogue, r.Now())))
	must(t, f.reconcile(r, "cicd"))
	sub := f.getSubscription("cicd")
	if want := event.SubscriptionID(string(sub.UID)); sub.Status.ID != want {
		t.Errorf("id is %s, want %s", sub.Status.ID, want)
	}
	if !isTrue(sub.Status.Conditions, v1alpha1.ConditionReady) {
		t.Errorf("conditions are %+v", sub.Status.Conditions)
	}
}

func TestWhatWakesTheManager(t *testing.T) {
	object := func(uid types.UID, generation int64) *v1alpha1.WebhookSubscription {
		return &v1alpha1.WebhookSubscription{ObjectMeta: metav1.ObjectMeta{UID: uid, Generation: generation}}
	}
	cases := map[string]struct {
		before, after *v1alpha1.WebhookSubscription
		want          bool
	}{
		"another status":                        {object("a", 1), object("a", 1), false},
		"another spec":                          {object("a", 1), object("a", 2), true},
		"another subscription of the same name": {object("a", 1), object("b", 1), true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got := specChanged.Update(ctrlevent.UpdateEvent{ObjectOld: c.before, ObjectNew: c.after})
			if got != c.want {
				t.Errorf("wakes: %t, want %t", got, c.want)
			}
		})
	}
}

func TestADeletedSubscriptionIsLeftAlone(t *testing.T) {
	f := newFixture(t)
	w := &writes{}
	r := f.reconciler(w)
	must(t, f.reconcile(r, "never-was"))

	sub := f.subscription("cicd")
	sub.Finalizers = []string{"example.com/somebody"}
	f.create(sub)
	f.delete(sub)
	must(t, f.reconcile(r, "cicd"))
	if w.Load() != 0 {
		t.Errorf("%d writes for a subscription on its way out", w.Load())
	}
}

func TestNoSecretLeaks(t *testing.T) {
	f := newManagedFixture(t)
	const keyText, headerText, badText = "k3y-0123456789abcdef", "Bearer t0ken-xyz", "bad-value\n"
	sub := f.signedWith("referenced", "my-key")
	from := func(key string) *v1alpha1.HeaderValueSource {
		return &v1alpha1.HeaderValueSource{SecretKeyRef: v1alpha1.SecretKeyReference{Name: "my-key", Key: key}}
	}
	sub.Spec.Headers = []v1alpha1.Header{{Name: "A", ValueFrom: from("auth")}, {Name: "B", ValueFrom: from("bad")}}
	f.create(f.secret("my-key", map[string]string{"secret": keyText, "auth": headerText, "bad": badText}),
		sub, f.subscription("generated"))
	f.waitReady("generated")
	f.waitFor("referenced", v1alpha1.ConditionSecretReady, v1alpha1.ReasonSecretKeyInvalid)
	generated := string(f.getSecret("generated-signing").Data["secret"])
	f.delete(f.getSecret("generated-signing"))
	f.waitForEvent("generated", "Warning SigningKeyRegenerated")

	for _, name := range []string{"generated", "referenced"} {
		text, err := yaml.Marshal(f.getSubscription(name))
		must(t, err)
		all := string(text) + strings.Join(f.events(name), "\n") + f.log.String()
		for _, secret := range []string{keyText, headerText, "bad-value", generated} {
			if strings.Contains(all, secret) {
				t.Errorf("%s: %q is in its object, events or the log:\n%s", name, secret[:3]+"…", all)
			}
		}
	}
}

func TestManagerConditionsAreThoseThatDecideSets(t *testing.T) {
	f := &fixture{namespace: "n"}
	status := decide(f.subscription("a"), sources{}, event.Builtin(), time.Now())
	var types []string
	for _, c := range status.Conditions {
		types = append(types, c.Type)
	}
	slices.Sort(types)
	want := slices.Sorted(slices.Values(managerConditions))
	if difference := cmp.Diff(want, types); difference != "" {
		t.Errorf("condition types (-want +got):\n%s", difference)
	}
}
