// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"nexus.io/webhooks/api/v1alpha1"
)

const (
	someKey    = "a-key-of-somebody-0123456789"
	anotherKey = "another-key-of-somebody-0123"
)

func TestANewSubscriptionGetsAKeyThatItOwns(t *testing.T) {
	f := newManagedFixture(t)
	f.create(f.subscription("cicd"))
	sub := f.waitReady("cicd")

	secret := f.getSecret("cicd-signing")
	if !regexp.MustCompile("^[0-9a-f]{64}$").Match(secret.Data["secret"]) || len(secret.Data) != 1 {
		t.Errorf("the Secret must hold 64 lower-case hexadecimal characters under secret and nothing else")
	}
	if secret.Type != "webhooks.nexus.io/signing-key" {
		t.Errorf("type is %s", secret.Type)
	}
	if !metav1.IsControlledBy(secret, sub) {
		t.Errorf("owners are %+v, want the subscription", secret.OwnerReferences)
	}
	if sub.Status.SigningSecret == nil || sub.Status.SigningSecret.Name != secret.Name {
		t.Errorf("status.signingSecret is %+v", sub.Status.SigningSecret)
	}
	f.waitForEvent("cicd", "Normal SigningKeyGenerated: Generated a signing key in Secret cicd-signing")
}

func TestTwoSubscriptionsGetDifferentKeys(t *testing.T) {
	f := newManagedFixture(t)
	f.create(f.subscription("a"), f.subscription("b"))
	f.waitReady("a")
	f.waitReady("b")
	if string(f.getSecret("a-signing").Data["secret"]) == string(f.getSecret("b-signing").Data["secret"]) {
		t.Error("both have the same key")
	}
}

func TestTheLongestNameGetsAKey(t *testing.T) {
	f := newManagedFixture(t)
	name := strings.Repeat("a", 253)
	f.create(f.subscription(name))
	sub := f.waitReady(name)
	if !metav1.IsControlledBy(f.getSecret(sub.Status.SigningSecret.Name), sub) {
		t.Error("the Secret is not the subscription's")
	}
}

func TestADeletedKeyIsReplacedAndPeopleAreTold(t *testing.T) {
	f := newManagedFixture(t)
	f.create(f.subscription("cicd"))
	f.waitReady("cicd")
	first := f.getSecret("cicd-signing")
	f.delete(first)

	f.eventually("a new Secret", func() error {
		secret := &corev1.Secret{}
		if err := f.client.Get(f.ctx, f.key("cicd-signing"), secret); err != nil {
			return err
		}
		if secret.UID == first.UID {
			return fmt.Errorf("still the old one")
		}
		return nil
	})
	if string(f.getSecret("cicd-signing").Data["secret"]) == string(first.Data["secret"]) {
		t.Error("the key is the old one")
	}
	f.waitForEvent("cicd", "Warning SigningKeyRegenerated: Secret cicd-signing was gone")
	f.waitReady("cicd")
}

func TestAnEditedKeyIsNeverOverwritten(t *testing.T) {
	f := newManagedFixture(t)
	f.create(f.subscription("cicd"))
	f.waitReady("cicd")
	steps := []struct{ value, reason, message string }{
		{"", v1alpha1.ReasonSecretKeyMissing, `has nothing under key "secret"`},
		{someKey, v1alpha1.ReasonReady, ""},
		{"short", v1alpha1.ReasonSecretKeyInvalid, "must be 16 to 1024 bytes long"},
		{strings.Repeat("x", 1025), v1alpha1.ReasonSecretKeyInvalid, "must be 16 to 1024 bytes long"},
		{strings.Repeat("x", 16), v1alpha1.ReasonReady, ""},
	}
	for _, step := range steps {
		edit(f, f.getSecret("cicd-signing"), func(s *corev1.Secret) { s.Data["secret"] = []byte(step.value) })
		condition := f.waitFor("cicd", v1alpha1.ConditionReady, step.reason)
		if !strings.Contains(condition.Message, step.message) {
			t.Errorf("with a key of %d bytes the message is %q", len(step.value), condition.Message)
		}
		if step.reason != v1alpha1.ReasonReady && !strings.Contains(condition.Message, "delete the Secret to have a new key") {
			t.Errorf("message %q does not say how to get a new key", condition.Message)
		}
		if got := string(f.getSecret("cicd-signing").Data["secret"]); got != step.value {
			t.Errorf("the key was overwritten: it has %d bytes, want %d", len(got), len(step.value))
		}
	}
}

func TestASecretOfSomebodyElseIsNotTouched(t *testing.T) {
	f := newManagedFixture(t)
	theirs := f.secret("cicd-signing", map[string]string{"secret": someKey})
	f.create(theirs, f.subscription("cicd"))
	condition := f.waitFor("cicd", v1alpha1.ConditionSecretReady, v1alpha1.ReasonSecretConflict)
	if !strings.Contains(condition.Message, `Secret "cicd-signing" exists and does not belong to this subscription`) {
		t.Errorf("message is %q", condition.Message)
	}
	f.waitFor("cicd", v1alpha1.ConditionReady, v1alpha1.ReasonSecretConflict)
	if after := f.getSecret("cicd-signing"); after.ResourceVersion != theirs.ResourceVersion {
		t.Error("the Secret was written")
	}

	f.delete(theirs)
	sub := f.waitReady("cicd")
	if !metav1.IsControlledBy(f.getSecret("cicd-signing"), sub) {
		t.Error("the Secret is not the subscription's")
	}
}

func TestASubscriptionThatComesAgainDoesNotInheritTheKey(t *testing.T) {
	f := newManagedFixture(t)
	f.create(f.subscription("cicd"))
	first := f.waitReady("cicd")
	f.delete(first)
	old := f.getSecret("cicd-signing")
	f.create(f.subscription("cicd"))
	// The garbage collector never comes by here: the old key is there and belongs to the subscription that was.
	second := f.waitReady("cicd")
	secret := f.getSecret("cicd-signing")
	if string(secret.Data["secret"]) == string(old.Data["secret"]) || !metav1.IsControlledBy(secret, second) {
		t.Error("the key is the old one, or still the other's")
	}
}

func TestOnlyWhatWasGeneratedForThisNameIsLeftBehind(t *testing.T) {
	sub := &v1alpha1.WebhookSubscription{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: "cicd", UID: "new"}}
	cases := map[string]struct {
		change func(*corev1.Secret)
		want   bool
	}{
		"generated for the one that was": {func(*corev1.Secret) {}, true},
		"its own":                        {func(s *corev1.Secret) { s.OwnerReferences[0].UID = "new" }, false},
		"another name's":                 {func(s *corev1.Secret) { s.OwnerReferences[0].Name = "other" }, false},
		"another kind's":                 {func(s *corev1.Secret) { s.OwnerReferences[0].Kind = "Deployment" }, false},
		"another group's":                {func(s *corev1.Secret) { s.OwnerReferences[0].APIVersion = "v1" }, false},
		"not controlled":                 {func(s *corev1.Secret) { s.OwnerReferences[0].Controller = new(bool) }, false},
		"nobody's":                       {func(s *corev1.Secret) { s.OwnerReferences = nil }, false},
		"of another type":                {func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque }, false},
		"not made by the manager":        {func(s *corev1.Secret) { s.Labels = nil }, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			secret := ownSecret(sub, "cicd-signing", []byte(someKey))
			controls := true
			secret.OwnerReferences = []metav1.OwnerReference{{
				APIVersion: v1alpha1.GroupVersion.String(), Kind: v1alpha1.Kind, Name: "cicd", UID: "old", Controller: &controls,
			}}
			c.change(secret)
			if got := isLeftBehind(secret, sub); got != c.want {
				t.Errorf("left behind: %v, want %v", got, c.want)
			}
		})
	}
}

func TestAReferencedSecretHasToExistOptInAndHoldAKey(t *testing.T) {
	f := newManagedFixture(t)
	f.create(f.signedWith("cicd", "my-key"))
	expect := func(reason, message string) {
		t.Helper()
		condition := f.waitFor("cicd", v1alpha1.ConditionSecretReady, reason)
		if !strings.Contains(condition.Message, `Secret "my-key" (spec.signing.secretRef)`) ||
			!strings.Contains(condition.Message, message) {
			t.Errorf("message %q does not say %q", condition.Message, message)
		}
	}
	expect(v1alpha1.ReasonSecretNotFound, "create it")

	secret := f.secret("my-key", map[string]string{"secret": someKey})
	secret.Labels = nil
	f.create(secret)
	expect(v1alpha1.ReasonSecretNotReadable, "webhooks.nexus.io/readable=true")
	edit(f, secret, func(s *corev1.Secret) { s.Labels = map[string]string{v1alpha1.LabelReadable: "false"} })
	expect(v1alpha1.ReasonSecretNotReadable, "webhooks.nexus.io/readable=true")

	edit(f, secret, func(s *corev1.Secret) { s.Labels[v1alpha1.LabelReadable] = "true" })
	sub := f.waitReady("cicd")
	if sub.Status.SigningSecret.Name != "my-key" {
		t.Errorf("status.signingSecret is %+v", sub.Status.SigningSecret)
	}

	edit(f, secret, func(s *corev1.Secret) { s.Data = map[string][]byte{"other": []byte(someKey)} })
	expect(v1alpha1.ReasonSecretKeyMissing, `nothing under key "secret"`)
	edit(f, sub, func(s *v1alpha1.WebhookSubscription) { s.Spec.Signing.SecretRef.Key = "other" })
	f.waitReady("cicd")
	f.delete(secret)
	expect(v1alpha1.ReasonSecretNotFound, "create it")
	f.waitForEvent("cicd", "Warning SecretNotFound: ")

	err := f.client.Get(f.ctx, f.key("cicd-signing"), &corev1.Secret{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("a key was generated beside the referenced one: %v", err)
	}
}

func TestATypeOptsInToo(t *testing.T) {
	f := newManagedFixture(t)
	secret := f.secret("my-key", map[string]string{"secret": someKey})
	secret.Labels, secret.Type = nil, v1alpha1.SecretTypeSigningKey
	f.create(secret, f.signedWith("cicd", "my-key"))
	f.waitReady("cicd")
}

func TestTheGeneratedKeyGoesOnceAnotherOneCanBeUsed(t *testing.T) {
	f := newManagedFixture(t)
	sub := f.subscription("cicd")
	f.create(sub, f.secret("my-key", map[string]string{"secret": someKey}))
	f.waitReady("cicd")
	generated := f.getSecret("cicd-signing")

	sign := func(name string) {
		edit(f, sub, func(s *v1alpha1.WebhookSubscription) {
			s.Spec.Signing = &v1alpha1.Signing{SecretRef: &v1alpha1.SigningKeyReference{Name: name}}
		})
	}
	sign("my-kye")
	f.waitFor("cicd", v1alpha1.ConditionSecretReady, v1alpha1.ReasonSecretNotFound)
	if f.getSecret("cicd-signing").UID != generated.UID {
		t.Error("a misspelt name cost the generated key")
	}
	sign("my-key")
	f.waitReady("cicd")
	f.eventually("the generated Secret goes", func() error {
		err := f.client.Get(f.ctx, f.key("cicd-signing"), &corev1.Secret{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("get gives %w", err)
	})
	f.waitForEvent("cicd", "Normal SigningKeyRemoved: Deleted Secret cicd-signing")

	edit(f, sub, func(s *v1alpha1.WebhookSubscription) { s.Spec.Signing = nil })
	if sub := f.waitReady("cicd"); sub.Status.SigningSecret.Name != "cicd-signing" {
		t.Errorf("status.signingSecret is %+v", sub.Status.SigningSecret)
	}
	if string(f.getSecret("my-key").Data["secret"]) != someKey {
		t.Error("the Secret that was referenced is not as it was")
	}
}

func TestAGeneratedKeyThatIsStillReferencedStays(t *testing.T) {
	f := newManagedFixture(t)
	sub := f.subscription("cicd")
	f.create(sub)
	f.waitReady("cicd")
	before := f.getSecret("cicd-signing")
	edit(f, sub, func(s *v1alpha1.WebhookSubscription) {
		s.Spec.Signing = &v1alpha1.Signing{SecretRef: &v1alpha1.SigningKeyReference{Name: "cicd-signing"}}
	})
	f.waitReady("cicd")
	if after := f.getSecret("cicd-signing"); after.ResourceVersion != before.ResourceVersion {
		t.Error("the Secret is not as it was")
	}
}

func (f *fixture) expectSecret(name string, uid types.UID) {
	f.t.Helper()
	if got := f.getSecret(name).UID; got != uid {
		f.t.Errorf("Secret %s is another one: its UID is %s, want %s", name, got, uid)
	}
}

func TestAGeneratedKeyThatIsUsedAgainStaysThoughTheCacheLags(t *testing.T) {
	f := newFixture(t)
	sub := f.subscription("cicd")
	f.create(sub, f.secret("my-key", map[string]string{"secret": someKey}))
	w := &writes{}
	r := f.reconciler(w)
	must(t, f.reconcile(r, "cicd"))
	generated := f.getSecret("cicd-signing")

	edit(f, sub, func(s *v1alpha1.WebhookSubscription) {
		s.Spec.Signing = &v1alpha1.Signing{SecretRef: &v1alpha1.SigningKeyReference{Name: "my-key"}}
	})
	r.Client = f.lagging(w)
	edit(f, sub, func(s *v1alpha1.WebhookSubscription) { s.Spec.Signing = nil })
	must(t, f.reconcile(r, "cicd"))
	f.expectSecret("cicd-signing", generated.UID)
}

func TestASecretThatTookThePlaceOfTheUnusedKeyStays(t *testing.T) {
	f := newFixture(t)
	sub := f.subscription("cicd")
	theirs := f.secret("cicd-signing", map[string]string{"secret": anotherKey})
	f.create(sub, f.secret("my-key", map[string]string{"secret": someKey}))
	r := f.reconciler(&writes{})
	must(t, f.reconcile(r, "cicd"))
	edit(f, sub, func(s *v1alpha1.WebhookSubscription) {
		s.Spec.Signing = &v1alpha1.Signing{SecretRef: &v1alpha1.SigningKeyReference{Name: "my-key"}}
	})

	healthy := r.Client
	r.Client = interceptor.NewClient(f.direct(), interceptor.Funcs{
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			f.delete(f.getSecret("cicd-signing"))
			f.create(theirs)
			return c.Delete(ctx, o, opts...)
		},
	})
	if err := f.reconcile(r, "cicd"); !apierrors.IsConflict(err) {
		t.Errorf("error is %v, want a conflict that is tried again", err)
	}
	f.expectSecret("cicd-signing", theirs.UID)
	r.Client = healthy
	must(t, f.reconcile(r, "cicd"))
	f.expectSecret("cicd-signing", theirs.UID)
}

func TestASecretOfSomebodyElseUnderTheGeneratedNameStaysWhenTheKeyChangesOwner(t *testing.T) {
	f := newManagedFixture(t)
	f.create(f.secret("cicd-signing", map[string]string{"secret": anotherKey}),
		f.secret("my-key", map[string]string{"secret": someKey}), f.signedWith("cicd", "my-key"))
	f.waitReady("cicd")
	if string(f.getSecret("cicd-signing").Data["secret"]) != anotherKey {
		t.Error("the Secret is not as it was")
	}
}

func TestTwoSubscriptionsShareASecret(t *testing.T) {
	f := newManagedFixture(t)
	secret := f.secret("my-key", map[string]string{"secret": someKey})
	f.create(secret, f.signedWith("a", "my-key"), f.signedWith("b", "my-key"))
	f.waitReady("a")
	f.waitReady("b")

	edit(f, secret, func(s *corev1.Secret) { s.Data["secret"] = nil })
	f.waitFor("a", v1alpha1.ConditionReady, v1alpha1.ReasonSecretKeyMissing)
	f.waitFor("b", v1alpha1.ConditionReady, v1alpha1.ReasonSecretKeyMissing)

	f.delete(f.getSubscription("a"))
	edit(f, secret, func(s *corev1.Secret) { s.Data["secret"] = []byte(someKey) })
	f.waitReady("b")
	if owners := f.getSecret("my-key").OwnerReferences; len(owners) != 0 {
		t.Errorf("the Secret has come to belong to %+v", owners)
	}
}

func TestTheSecretsOfHeadersAreCheckedToo(t *testing.T) {
	f := newManagedFixture(t)
	sub := f.subscription("cicd")
	plain := "plain"
	sub.Spec.Headers = []v1alpha1.Header{
		{Name: "X-Team", Value: &plain},
		{Name: "Authorization", ValueFrom: &v1alpha1.HeaderValueSource{
			SecretKeyRef: v1alpha1.SecretKeyReference{Name: "token", Key: "auth"},
		}},
	}
	f.create(sub)
	condition := f.waitFor("cicd", v1alpha1.ConditionSecretReady, v1alpha1.ReasonSecretNotFound)
	if !strings.Contains(condition.Message, `Secret "token" (spec.headers[1].valueFrom.secretKeyRef)`) {
		t.Errorf("message is %q", condition.Message)
	}
	secret := f.secret("token", map[string]string{"auth": "Bearer abc\n"})
	f.create(secret)
	condition = f.waitFor("cicd", v1alpha1.ConditionSecretReady, v1alpha1.ReasonSecretKeyInvalid)
	if !strings.Contains(condition.Message, "a newline at its end is one too many") {
		t.Errorf("message is %q", condition.Message)
	}
	edit(f, secret, func(s *corev1.Secret) { s.Data["auth"] = []byte("Bearer\tabc") })
	f.waitReady("cicd")
}
