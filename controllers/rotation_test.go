// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"nexus.io/webhooks/api/v1alpha1"
)

func (f *fixture) requestRotation(name, value string) {
	f.t.Helper()
	edit(f, f.getSubscription(name), func(s *v1alpha1.WebhookSubscription) {
		metav1.SetMetaDataAnnotation(&s.ObjectMeta, v1alpha1.AnnotationRotateRequested, value)
	})
}

// waitRotated waits until the key of cicd answers a request, and returns the Secret.
func (f *fixture) waitRotated(value string) *corev1.Secret {
	f.t.Helper()
	f.eventually("the key answers "+value, func() error {
		if got := f.getSecret("cicd-signing").Annotations[v1alpha1.AnnotationRotatedFor]; got != value {
			return fmt.Errorf("it answers %q", got)
		}
		return nil
	})
	return f.getSecret("cicd-signing")
}

// keysOf are the present and the previous key of a Secret, "" for none.
func keysOf(secret *corev1.Secret) [2]string {
	return [2]string{string(secret.Data["secret"]), string(secret.Data["previous"])}
}

func (f *fixture) expectKeys(name, present, previous string) {
	f.t.Helper()
	if got, want := keysOf(f.getSecret(name)), [2]string{present, previous}; got != want {
		f.t.Fatalf("Secret %s holds %q, want %q", name, got, want)
	}
}

func within(t *testing.T, what string, got, from, to time.Time) {
	t.Helper()
	if got.Before(from.Truncate(time.Second)) || got.After(to.Add(time.Second)) {
		t.Errorf("%s is %s, want %s to %s", what, got, from, to)
	}
}

func TestEachNewRequestRotatesOnceAndTheOldKeyGoesOnForADay(t *testing.T) {
	f := newManagedFixture(t)
	f.create(f.subscription("cicd"))
	f.waitReady("cicd")
	first := keysOf(f.getSecret("cicd-signing"))[0]

	before := time.Now()
	f.requestRotation("cicd", "one")
	secret := f.waitRotated("one")
	second := keysOf(secret)[0]
	if keysOf(secret)[1] != first || second == first || len(second) != 64 {
		t.Errorf("the Secret holds a key of %d bytes, new: %t, and the first as the previous one: %t", len(second),
			second != first, keysOf(secret)[1] == first)
	}
	within(t, "previous-valid-until", v1alpha1.PreviousValidUntil(secret), before.Add(24*time.Hour), time.Now().Add(24*time.Hour))
	within(t, "rotated-at", v1alpha1.RotatedAt(secret), before, time.Now())
	f.eventually("the status tells of it", func() error {
		status := f.getSubscription("cicd").Status.SigningSecret
		if status == nil || status.RotatedAt == nil || status.PreviousValidUntil == nil ||
			!status.RotatedAt.Time.Equal(v1alpha1.RotatedAt(secret)) ||
			!status.PreviousValidUntil.Time.Equal(v1alpha1.PreviousValidUntil(secret)) {
			return fmt.Errorf("status.signingSecret is %+v", status)
		}
		return nil
	})
	f.waitForEvent("cicd", "Normal SigningKeyRotated: Put a new signing key into Secret cicd-signing; the previous one signs too until 2")

	f.requestRotation("cicd", "two")
	third := keysOf(f.waitRotated("two"))
	if third[1] != second || third[0] == second {
		t.Error("within an overlap the previous key must be the one that was in use, and the oldest must stop")
	}
	f.requestRotation("cicd", "one")
	f.waitRotated("one")
}

func TestARequestIsAnsweredOnceHoweverOftenItIsSeen(t *testing.T) {
	f := newFixture(t)
	f.create(f.subscription("cicd"))
	w := &writes{}
	r := f.reconciler(w)
	must(t, f.reconcile(r, "cicd"))
	f.requestRotation("cicd", "one")
	must(t, f.reconcile(r, "cicd"))
	rotated, count := f.getSecret("cicd-signing"), w.Load()
	for range 5 {
		must(t, f.reconcile(r, "cicd"))
	}
	if after := f.getSecret("cicd-signing"); after.ResourceVersion != rotated.ResourceVersion || w.Load() != count {
		t.Errorf("%d writes more", w.Load()-count)
	}
	edit(f, f.getSubscription("cicd"), func(s *v1alpha1.WebhookSubscription) { s.Annotations = nil })
	must(t, f.reconcile(r, "cicd"))
	f.expectKeys("cicd-signing", keysOf(rotated)[0], keysOf(rotated)[1])
}

func TestARequestThatTheCacheStillHasIsNotAnsweredAgain(t *testing.T) {
	f := newFixture(t)
	f.create(f.subscription("cicd"))
	w := &writes{}
	r := f.reconciler(w)
	must(t, f.reconcile(r, "cicd"))
	f.requestRotation("cicd", "one")
	lagging := f.lagging(w)
	f.requestRotation("cicd", "two")
	must(t, f.reconcile(r, "cicd"))
	rotated := f.waitRotated("two")
	next := f.reconciler(w) // another manager, which remembers no write of the first
	next.Client = lagging
	must(t, f.reconcile(next, "cicd"))
	must(t, f.reconcile(r, "cicd"))
	f.expectKeys("cicd-signing", keysOf(rotated)[0], keysOf(rotated)[1])
}

func TestARequestOfTheBeginningIsAnsweredByTheFirstKey(t *testing.T) {
	f := newFixture(t)
	sub := f.subscription("cicd")
	sub.Annotations = map[string]string{v1alpha1.AnnotationRotateRequested: "from the manifest"}
	f.create(sub)
	r := f.reconciler(&writes{})
	must(t, f.reconcile(r, "cicd"))
	first := keysOf(f.waitRotated("from the manifest"))
	must(t, f.reconcile(r, "cicd"))
	f.expectKeys("cicd-signing", first[0], "")
}

// clocked is a reconciler by hand with a clock that the test sets.
type clocked struct {
	*fixture
	r     *SubscriptionReconciler
	start time.Time // when the first Secret was made, about
	now   time.Time
}

func (f *fixture) clocked() *clocked {
	f.t.Helper()
	c := &clocked{fixture: f, r: f.reconciler(&writes{})}
	c.now = time.Now()
	c.r.Now = func() time.Time { return c.now }
	c.look("cicd")
	if secret, err := c.r.readSecret(f.ctx, f.namespace, "cicd-signing"); err == nil && secret != nil {
		c.now = secret.CreationTimestamp.Time
	}
	c.start = c.now
	return c
}

// look reconciles and returns after how long it wants to again.
func (c *clocked) look(name string) time.Duration {
	c.t.Helper()
	result, err := c.r.Reconcile(c.ctx, reconcile.Request{NamespacedName: c.key(name)})
	must(c.t, err)
	return result.RequeueAfter
}

func (c *clocked) at(after time.Duration) *clocked {
	c.now = c.start.Add(after)
	return c
}

func rotating(interval, grace int32) *v1alpha1.Signing {
	return &v1alpha1.Signing{Rotation: &v1alpha1.KeyRotation{IntervalSeconds: interval, GracePeriodSeconds: &grace}}
}

func TestAKeyIsReplacedAtItsAgeAndThePreviousOneGoesAtItsTime(t *testing.T) {
	f := newFixture(t)
	sub := f.subscription("cicd")
	sub.Spec.Signing = rotating(3600, 600)
	f.create(sub)
	c := f.clocked()
	first := keysOf(f.getSecret("cicd-signing"))[0]

	if got := c.at(time.Minute).look("cicd"); got != 59*time.Minute {
		t.Errorf("a minute after the start it looks again after %s, want 59m", got)
	}
	if got := c.at(time.Hour - time.Second).look("cicd"); got != time.Second {
		t.Errorf("a second before the age it looks again after %s", got)
	}
	f.expectKeys("cicd-signing", first, "")

	if got := c.at(time.Hour).look("cicd"); got != 10*time.Minute {
		t.Errorf("it looks for the end of the overlap after %s, want 10m", got)
	}
	second := keysOf(f.getSecret("cicd-signing"))[0]
	f.expectKeys("cicd-signing", second, first)

	c.at(70*time.Minute - time.Second).look("cicd")
	f.expectKeys("cicd-signing", second, first)
	if got := c.at(70 * time.Minute).look("cicd"); got != 50*time.Minute {
		t.Errorf("after the overlap it looks again after %s, want 50m", got)
	}
	f.expectKeys("cicd-signing", second, "")
	if secret := f.getSecret("cicd-signing"); !v1alpha1.PreviousValidUntil(secret).IsZero() ||
		!v1alpha1.RotatedAt(secret).Equal(c.start.Add(time.Hour)) {
		t.Errorf("annotations are %v", secret.Annotations)
	}
	if status := f.getSubscription("cicd").Status.SigningSecret; status.PreviousValidUntil != nil || status.RotatedAt == nil {
		t.Errorf("status.signingSecret is %+v", status)
	}

	// Nobody looks for five intervals: the next rotation is one, and counts from then.
	if got := c.at(7 * time.Hour).look("cicd"); got != 10*time.Minute {
		t.Errorf("it looks for the end of the overlap after %s, want 10m", got)
	}
	third := keysOf(f.getSecret("cicd-signing"))[0]
	f.expectKeys("cicd-signing", third, second)
	c.look("cicd")
	f.expectKeys("cicd-signing", third, second)
	c.at(8*time.Hour - time.Second).look("cicd")
	f.expectKeys("cicd-signing", third, "")
}

func TestNothingThatIsDueByTimeAloneIsLookedFor(t *testing.T) {
	f := newFixture(t)
	f.create(f.subscription("cicd"))
	if got := f.clocked().look("cicd"); got != 0 {
		t.Errorf("it looks again after %s", got)
	}
}

func TestAnEditOfTheRotationHoldsAtOnce(t *testing.T) {
	f := newFixture(t)
	sub := f.subscription("cicd")
	f.create(sub)
	c := f.clocked()
	first := keysOf(f.getSecret("cicd-signing"))[0]
	set := func(interval, grace int32) {
		edit(f, sub, func(s *v1alpha1.WebhookSubscription) { s.Spec.Signing = rotating(interval, grace) })
	}

	c.at(2 * time.Hour)
	set(86400, 600)
	c.look("cicd")
	f.expectKeys("cicd-signing", first, "")
	set(3600, 600)
	c.look("cicd")
	second := keysOf(f.getSecret("cicd-signing"))[0]
	f.expectKeys("cicd-signing", second, first)
	until := v1alpha1.PreviousValidUntil(f.getSecret("cicd-signing"))

	set(3600, 1200)
	c.look("cicd")
	f.expectKeys("cicd-signing", second, first)
	if got := v1alpha1.PreviousValidUntil(f.getSecret("cicd-signing")); !got.Equal(until) {
		t.Errorf("an overlap that people were told of has moved from %s to %s", until, got)
	}
	set(3600, 0)
	c.look("cicd")
	f.expectKeys("cicd-signing", second, "")
	c.at(4 * time.Hour).look("cicd")
	if got := keysOf(f.getSecret("cicd-signing")); got[0] == second || got[1] != "" {
		t.Error("without a grace period the key must change and the old one must stop at once")
	}
}

func TestAKeyThatIsLostInItsOverlapIsReplacedAndNothingOfItIsLeft(t *testing.T) {
	f := newFixture(t)
	f.create(f.subscription("cicd"))
	c := f.clocked()
	f.requestRotation("cicd", "one")
	c.look("cicd")
	lost := f.getSecret("cicd-signing")
	f.delete(lost)
	c.look("cicd")
	found := keysOf(f.getSecret("cicd-signing"))
	if found[0] == keysOf(lost)[0] || found[1] != "" || len(found[0]) != 64 {
		t.Error("there must be one key, a new one")
	}
	c.look("cicd")
	f.expectKeys("cicd-signing", found[0], "") // which answers the request too
	if status := f.getSubscription("cicd").Status.SigningSecret; status.RotatedAt != nil || status.PreviousValidUntil != nil {
		t.Errorf("status.signingSecret is %+v", status)
	}
}

func TestAKeyThatCannotSignIsNoPreviousKey(t *testing.T) {
	f := newFixture(t)
	f.create(f.subscription("cicd"))
	c := f.clocked()
	edit(f, f.getSecret("cicd-signing"), func(s *corev1.Secret) { s.Data["secret"] = []byte("short") })
	f.requestRotation("cicd", "one")
	c.look("cicd")
	if got := keysOf(f.getSecret("cicd-signing")); len(got[0]) != 64 || got[1] != "" {
		t.Errorf("the Secret holds keys of %d and %d bytes", len(got[0]), len(got[1]))
	}
}

func TestWhatIsSaidOfAPreviousKeyThatCannotBeIsRemoved(t *testing.T) {
	later := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	cases := map[string]func(s *corev1.Secret){
		"a key without a date": func(s *corev1.Secret) { s.Data["previous"] = []byte(someKey) },
		"a key with a date that is none": func(s *corev1.Secret) {
			s.Data["previous"] = []byte(someKey)
			metav1.SetMetaDataAnnotation(&s.ObjectMeta, v1alpha1.AnnotationPreviousValidUntil, "tomorrow")
		},
		"a date without a key": func(s *corev1.Secret) {
			metav1.SetMetaDataAnnotation(&s.ObjectMeta, v1alpha1.AnnotationPreviousValidUntil, later)
		},
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.create(f.subscription("cicd"))
			c := f.clocked()
			before := f.getSecret("cicd-signing")
			edit(f, f.getSecret("cicd-signing"), change)
			c.look("cicd")
			after := f.getSecret("cicd-signing")
			if diff := cmp.Diff(before.Data, after.Data); diff != "" || len(after.Annotations) != 0 {
				t.Errorf("annotations are %v, data (-want +got):\n%s", after.Annotations, diff)
			}
		})
	}
}

func TestARotationThatBreaksOffLeavesTheOldStateOrTheNew(t *testing.T) {
	broken := errors.New("connection lost")
	for name, written := range map[string]bool{"before it is written": false, "after it is written": true} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.create(f.subscription("cicd"))
			c := f.clocked()
			first := keysOf(f.getSecret("cicd-signing"))[0]
			f.requestRotation("cicd", "one")
			healthy := c.r.Client
			c.r.Client = interceptor.NewClient(f.direct(), interceptor.Funcs{
				Update: func(ctx context.Context, w client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
					if written {
						must(t, w.Update(ctx, o, opts...))
					}
					return broken
				},
			})
			if err := f.reconcile(c.r, "cicd"); !errors.Is(err, broken) {
				t.Fatalf("error is %v, want one that is tried again", err)
			}
			left := f.getSecret("cicd-signing")
			if !written {
				f.expectKeys("cicd-signing", first, "")
			} else if keysOf(left)[1] != first || left.Annotations[v1alpha1.AnnotationRotatedFor] != "one" ||
				v1alpha1.PreviousValidUntil(left).IsZero() || v1alpha1.RotatedAt(left).IsZero() {
				t.Errorf("half of it is written: %v", left.Annotations)
			}
			c.r.Client = healthy
			c.look("cicd")
			after := f.waitRotated("one")
			if keysOf(after)[1] != first || written && keysOf(after)[0] != keysOf(left)[0] {
				t.Error("the request was not answered exactly once")
			}
		})
	}
}

func TestARotationDoesNotOverwriteWhatSomebodyWroteMeanwhile(t *testing.T) {
	f := newFixture(t)
	f.create(f.subscription("cicd"))
	c := f.clocked()
	f.requestRotation("cicd", "one")
	healthy := c.r.Client
	c.r.Client = interceptor.NewClient(f.direct(), interceptor.Funcs{
		Update: func(ctx context.Context, w client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			edit(f, f.getSecret("cicd-signing"), func(s *corev1.Secret) { s.Data["secret"] = []byte(someKey) })
			return w.Update(ctx, o, opts...)
		},
	})
	if err := f.reconcile(c.r, "cicd"); !apierrors.IsConflict(err) {
		t.Errorf("error is %v, want a conflict that is tried again", err)
	}
	f.expectKeys("cicd-signing", someKey, "")
	c.r.Client = healthy
	c.look("cicd")
	if got := keysOf(f.getSecret("cicd-signing")); got[1] != someKey {
		t.Error("the key that somebody put there is not the previous one")
	}
}

func TestNoSecretOfSomebodyElseIsRotated(t *testing.T) {
	f := newFixture(t)
	theirs, referenced := f.secret("cicd-signing", map[string]string{"secret": someKey}),
		f.secret("my-key", map[string]string{"secret": anotherKey})
	other := f.signedWith("other", "my-key")
	other.Spec.Signing.Rotation = &v1alpha1.KeyRotation{IntervalSeconds: 3600}
	sub := f.subscription("cicd")
	sub.Spec.Signing = rotating(3600, 60)
	f.create(theirs, referenced, sub, other)
	c := f.clocked()
	f.requestRotation("cicd", "one")
	f.requestRotation("other", "one")
	c.at(2 * time.Hour)
	for _, name := range []string{"cicd", "other"} {
		if got := c.look(name); got != 0 {
			t.Errorf("%s is looked at again after %s", name, got)
		}
	}
	for _, secret := range []*corev1.Secret{theirs, referenced} {
		if after := f.getSecret(secret.Name); after.ResourceVersion != secret.ResourceVersion {
			t.Errorf("Secret %s was written", secret.Name)
		}
	}
	f.waitFor("cicd", v1alpha1.ConditionSecretReady, v1alpha1.ReasonSecretConflict)
	condition := f.waitFor("other", v1alpha1.ConditionSecretReady, v1alpha1.ReasonSecretReady)
	const want = `Requests are signed with key "secret" of Secret "my-key"; the annotation ` +
		`webhooks.nexus.io/rotate-requested does nothing here, as only a generated key is rotated: put a new key into the Secret instead`
	if condition.Message != want {
		t.Errorf("message is %q", condition.Message)
	}
}
