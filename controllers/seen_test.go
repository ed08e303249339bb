// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nexus.io/webhooks/api/v1alpha1"
)

const (
	seenName = "cicd-signing-seen"
	thirdKey = "a-third-key-of-somebody-0123"
)

func (f *fixture) expectGone(name string) {
	f.t.Helper()
	if err := f.client.Get(f.ctx, f.key(name), &corev1.Secret{}); !apierrors.IsNotFound(err) {
		f.t.Fatalf("Secret %s must not be there: get gives %v", name, err)
	}
}

// putKey puts another key into the Secret my-key.
func (f *fixture) putKey(key string) {
	f.t.Helper()
	edit(f, f.getSecret("my-key"), func(s *corev1.Secret) { s.Data["secret"] = []byte(key) })
}

func TestAnEditedSecretHasAnOverlapThatEnds(t *testing.T) {
	f := newManagedFixture(t)
	f.create(f.secret("my-key", map[string]string{"secret": someKey}), f.signedWith("cicd", "my-key"))
	sub := f.waitReady("cicd")
	seen := f.getSecret(seenName)
	if !metav1.IsControlledBy(seen, sub) || seen.Type != v1alpha1.SecretTypeSigningKey {
		t.Errorf("the copy is of type %s and belongs to %+v", seen.Type, seen.OwnerReferences)
	}
	f.expectKeys(seenName, someKey, "")
	before := time.Now()
	f.putKey(anotherKey)
	f.eventually("the edit is seen", func() error {
		if got := f.getSubscription("cicd").Status.SigningSecret; got == nil || got.PreviousValidUntil == nil {
			return fmt.Errorf("status.signingSecret is %+v", got)
		}
		return nil
	})
	f.expectKeys(seenName, anotherKey, someKey)
	status := f.getSubscription("cicd").Status.SigningSecret
	within(t, "previousValidUntil", status.PreviousValidUntil.Time, before.Add(24*time.Hour), time.Now().Add(24*time.Hour))
	within(t, "rotatedAt", status.RotatedAt.Time, before, time.Now())
	if status.Name != "my-key" {
		t.Errorf("status names %s", status.Name)
	}
	f.waitForEvent("cicd", `Normal SigningKeyChanged: Requests are signed with another key now, "secret" of Secret my-key; the previous one signs too until 2`)
}

func TestAnEditWhileNoManagerRunsHasItsOverlapLater(t *testing.T) {
	f := newFixture(t)
	sub := f.signedWith("cicd", "my-key")
	sub.Spec.Signing.Rotation = &v1alpha1.KeyRotation{GracePeriodSeconds: new(int32(600))}
	f.create(f.secret("my-key", map[string]string{"secret": someKey}), sub)
	c := f.clocked()
	f.expectKeys(seenName, someKey, "")

	f.putKey("a-key-that-nobody-ever-saw-01")
	f.putKey(anotherKey)
	c.start = c.now.Add(time.Hour).Truncate(time.Second)
	if got := c.at(0).look("cicd"); got != 10*time.Minute {
		t.Errorf("it looks for the end of the overlap after %s, want 10m", got)
	}
	f.expectKeys(seenName, anotherKey, someKey)
	c.at(time.Minute).look("cicd")
	f.expectKeys(seenName, anotherKey, someKey)

	// A second edit within the overlap: the key of just before goes on, the oldest stops.
	f.putKey(thirdKey)
	if got := c.look("cicd"); got != 10*time.Minute {
		t.Errorf("it looks for the end of the second overlap after %s, want 10m", got)
	}
	f.expectKeys(seenName, thirdKey, anotherKey)
	if got := c.at(11 * time.Minute).look("cicd"); got != 0 {
		t.Errorf("after the overlap it looks again after %s", got)
	}
	f.expectKeys(seenName, thirdKey, "")
	if got := f.getSubscription("cicd").Status.SigningSecret; got.PreviousValidUntil != nil || got.RotatedAt == nil {
		t.Errorf("status.signingSecret is %+v", got)
	}
}

func TestAnotherSecretHasAnOverlapWithTheOneBefore(t *testing.T) {
	f := newFixture(t)
	sub := f.subscription("cicd")
	refer := func(name string) {
		edit(f, sub, func(s *v1alpha1.WebhookSubscription) {
			s.Spec.Signing = &v1alpha1.Signing{}
			if name != "" {
				s.Spec.Signing.SecretRef = &v1alpha1.SigningKeyReference{Name: name}
			}
		})
	}
	f.create(f.secret("one", map[string]string{"secret": someKey}), f.secret("two", map[string]string{"secret": anotherKey}), sub)
	c := f.clocked()
	generated := keysOf(f.getSecret("cicd-signing"))[0]

	refer("one")
	c.look("cicd")
	f.expectKeys(seenName, someKey, generated)
	f.expectGone("cicd-signing")
	refer("missing")
	c.look("cicd")
	f.expectKeys(seenName, someKey, generated)
	refer("two")
	c.look("cicd")
	f.expectKeys(seenName, anotherKey, someKey)

	refer("")
	c.look("cicd")
	f.expectGone(seenName)
	again := keysOf(f.getSecret("cicd-signing"))
	if again[0] == generated || again[0] == anotherKey || again[1] != anotherKey {
		t.Error("the generated Secret must hold a new key, and for the previous one that which was in use")
	}
	if got := f.getSubscription("cicd").Status.SigningSecret; got.Name != "cicd-signing" || got.PreviousValidUntil == nil {
		t.Errorf("status.signingSecret is %+v", got)
	}
	c.at(25 * time.Hour).look("cicd")
	f.expectKeys("cicd-signing", again[0], "")
}

func TestASecretThatCannotBeUsedChangesNothingOfWhatWasSeen(t *testing.T) {
	f := newFixture(t)
	f.create(f.secret("my-key", map[string]string{"secret": someKey}), f.signedWith("cicd", "my-key"))
	c := f.clocked()
	f.putKey("short")
	c.look("cicd")
	f.delete(f.getSecret("my-key"))
	c.look("cicd")
	f.expectKeys(seenName, someKey, "")
	f.create(f.secret("my-key", map[string]string{"secret": anotherKey}))
	c.look("cicd")
	f.expectKeys(seenName, anotherKey, someKey)
}

func TestNothingIsRememberedThatMustNotBe(t *testing.T) {
	cases := map[string]func(f *fixture){
		"the Secret may be read no longer": func(f *fixture) {
			edit(f, f.getSecret("my-key"), func(s *corev1.Secret) { s.Labels = nil })
		},
		"no overlap is wanted": func(f *fixture) {
			edit(f, f.getSubscription("cicd"), func(s *v1alpha1.WebhookSubscription) {
				s.Spec.Signing.Rotation = &v1alpha1.KeyRotation{GracePeriodSeconds: new(int32(0))}
			})
		},
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.create(f.secret("my-key", map[string]string{"secret": someKey}), f.signedWith("cicd", "my-key"))
			c := f.clocked()
			f.putKey(anotherKey)
			c.look("cicd")
			f.expectKeys(seenName, anotherKey, someKey)
			change(f)
			c.look("cicd")
			f.expectGone(seenName)
			if got := f.getSubscription("cicd").Status.SigningSecret; got.PreviousValidUntil != nil {
				t.Errorf("status.signingSecret is %+v", got)
			}
			c.look("cicd")
			f.expectGone(seenName)
		})
	}
}

func TestASecretInTheWayOfTheCopyStaysAndPeopleAreTold(t *testing.T) {
	f := newFixture(t)
	theirs := f.secret(seenName, map[string]string{"secret": thirdKey})
	f.create(theirs, f.secret("my-key", map[string]string{"secret": someKey}), f.signedWith("cicd", "my-key"))
	c := f.clocked()
	f.putKey(anotherKey)
	c.look("cicd")
	if after := f.getSecret(seenName); after.ResourceVersion != theirs.ResourceVersion {
		t.Error("the Secret was written")
	}
	condition := f.waitFor("cicd", v1alpha1.ConditionSecretReady, v1alpha1.ReasonSecretReady)
	if !strings.Contains(condition.Message, "a change of it will have no overlap") {
		t.Errorf("message is %q", condition.Message)
	}
	if got := f.getSubscription("cicd").Status.SigningSecret; got.PreviousValidUntil != nil {
		t.Errorf("status.signingSecret is %+v", got)
	}
}

func TestTheCopyIsNobodysToUse(t *testing.T) {
	f := newFixture(t)
	thief := f.sends("thief", seenName)
	f.create(f.secret("my-key", map[string]string{"secret": someKey}), f.signedWith("cicd", "my-key"),
		f.signedWith("forger", seenName), thief)
	c := f.clocked()
	c.look("thief")
	c.look("forger")
	f.expectRefusal("thief", "spec.headers[0].valueFrom.secretKeyRef", "never sent as headers")
	f.expectRefusal("forger", "spec.signing.secretRef", "generated for another subscription (cicd)")
	edit(f, f.getSubscription("cicd"), func(s *v1alpha1.WebhookSubscription) { s.Spec.Signing.SecretRef.Name = seenName })
	c.look("cicd")
	f.expectGone(seenName)
	f.waitFor("cicd", v1alpha1.ConditionSecretReady, v1alpha1.ReasonSecretNotFound)
}
