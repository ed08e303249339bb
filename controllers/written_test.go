// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"nexus.io/webhooks/api/v1alpha1"
)

// lagging is a client whose cache still has the subscription cicd as it is now, whatever happens to it. Everything else is
// up to date, as Secrets are.
func (f *fixture) lagging(w *writes) client.Client {
	f.t.Helper()
	cached := f.getSubscription("cicd")
	return interceptor.NewClient(w.count(f.direct()), interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object,
			opts ...client.GetOption) error {
			sub, ok := o.(*v1alpha1.WebhookSubscription)
			if !ok {
				return c.Get(ctx, key, o, opts...)
			}
			cached.DeepCopyInto(sub)
			return nil
		},
	})
}

// expectReadiness looks at the subscription cicd as the API server has it, at once.
func (f *fixture) expectReadiness(want string) {
	f.t.Helper()
	conditions := f.getSubscription("cicd").Status.Conditions
	if ready := meta.FindStatusCondition(conditions, v1alpha1.ConditionReady); ready == nil || ready.Reason != want {
		f.t.Fatalf("Ready is %+v, want reason %s", ready, want)
	}
}

func TestSecretsReplacedQuicklyLeaveNoSubscriptionBehind(t *testing.T) {
	f := newManagedFixture(t)
	const subscriptions, rounds = 40, 3
	key := map[string]string{"secret": someKey}
	names := make([]string, subscriptions)
	for i := range names {
		names[i] = fmt.Sprintf("sub-%d", i)
		f.create(f.secret(names[i], key), f.signedWith(names[i], names[i]))
	}
	for _, name := range names {
		f.waitReady(name)
	}
	for round := range rounds {
		last := fmt.Sprintf("last-%d", round)
		f.create(f.signedWith(last, last))
		f.waitFor(last, v1alpha1.ConditionReady, v1alpha1.ReasonSecretNotFound)
		// The manager takes a few milliseconds to see and say that one is gone. Then it is back.
		for _, name := range names {
			f.delete(f.getSecret(name))
			f.create(f.secret(name, key))
		}
		// The manager hears of this Secret after all others: then it has looked at them, but for a few.
		f.create(f.secret(last, key))
		f.waitReady(last)
		for _, name := range names {
			f.waitReady(name)
		}
	}
}

func TestAStatusThatGoesBackIsWrittenThoughTheCacheLags(t *testing.T) {
	f := newFixture(t)
	secret := f.secret("my-key", map[string]string{"secret": someKey})
	f.create(secret, f.signedWith("cicd", "my-key"))
	w := &writes{}
	r := f.reconciler(w)
	must(t, f.reconcile(r, "cicd"))
	f.expectReadiness(v1alpha1.ReasonReady)

	upToDate := r.Client
	r.Client = f.lagging(w)
	f.delete(secret)
	must(t, f.reconcile(r, "cicd"))
	f.expectReadiness(v1alpha1.ReasonSecretNotFound)
	f.create(f.secret("my-key", map[string]string{"secret": someKey}))
	must(t, f.reconcile(r, "cicd"))
	f.expectReadiness(v1alpha1.ReasonReady)

	before := w.Load()
	must(t, f.reconcile(r, "cicd"))
	r.Client = upToDate
	must(t, f.reconcile(r, "cicd"))
	if got := w.Load() - before; got != 0 {
		t.Errorf("%d writes of what was there", got)
	}
	if got := len(r.written.versions); got != 0 {
		t.Errorf("%d writes are remembered though the cache has them", got)
	}
}

func TestAWriteWithoutAnAnswerMayHaveBeenMade(t *testing.T) {
	f := newFixture(t)
	secret := f.secret("my-key", map[string]string{"secret": someKey})
	f.create(secret, f.signedWith("cicd", "my-key"))
	w := &writes{}
	r := f.reconciler(w)
	must(t, f.reconcile(r, "cicd"))
	upToDate, lagging := r.Client, f.lagging(w)

	broken := errors.New("connection lost")
	r.Client = interceptor.NewClient(f.direct(), interceptor.Funcs{
		SubResourceApply: func(ctx context.Context, c client.Client, name string, o runtime.ApplyConfiguration,
			opts ...client.SubResourceApplyOption) error {
			unanswered, ok := o.(interface {
				DeepCopy() *unstructured.Unstructured
			})
			if !ok {
				return fmt.Errorf("%T cannot be copied", o)
			}
			must(t, c.SubResource(name).Apply(ctx, client.ApplyConfigurationFromUnstructured(unanswered.DeepCopy()), opts...))
			return broken
		},
	})
	f.delete(secret)
	if err := f.reconcile(r, "cicd"); !errors.Is(err, broken) {
		t.Fatalf("error is %v, want one that is tried again", err)
	}
	f.expectReadiness(v1alpha1.ReasonSecretNotFound)

	r.Client = lagging
	before := w.Load()
	must(t, f.reconcile(r, "cicd"))
	if got := w.Load() - before; got != 0 {
		t.Errorf("%d writes of what was there", got)
	}
	r.Client = upToDate
	must(t, f.reconcile(r, "cicd"))
	if got := len(r.written.versions); got != 0 {
		t.Errorf("%d writes are remembered though the cache has them", got)
	}
}

func TestWritesToWhatIsGoneAreForgotten(t *testing.T) {
	f := newFixture(t)
	f.create(f.subscription("cicd"))
	r := f.reconciler(&writes{})
	must(t, f.reconcile(r, "cicd"))
	if got := len(r.written.versions); got != 1 {
		t.Fatalf("%d writes are remembered, want 1", got)
	}
	f.delete(f.getSubscription("cicd"))
	must(t, f.reconcile(r, "cicd"))
	if got := len(r.written.versions); got != 0 {
		t.Errorf("%d writes are remembered", got)
	}
}
