// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nexus.io/webhooks/api/v1alpha1"
)

// sends is a subscription with a header that takes the signing key of a Secret.
func (f *fixture) sends(name, secret string) *v1alpha1.WebhookSubscription {
	sub := f.subscription(name)
	sub.Spec.Headers = []v1alpha1.Header{{Name: "X-Loot", ValueFrom: &v1alpha1.HeaderValueSource{
		SecretKeyRef: v1alpha1.SecretKeyReference{Name: secret, Key: v1alpha1.DefaultSigningKey},
	}}}
	return sub
}

// expectRefusal waits until the Secret is said to be not readable in that field, with what to do about it.
func (f *fixture) expectRefusal(name, field, message string) {
	f.t.Helper()
	condition := f.waitFor(name, v1alpha1.ConditionSecretReady, v1alpha1.ReasonSecretNotReadable)
	if condition.Status != metav1.ConditionFalse || !strings.Contains(condition.Message, "("+field+")") ||
		!strings.Contains(condition.Message, message) {
		f.t.Errorf("SecretReady of %s is %s: %q; it must name %s and say %q",
			name, condition.Status, condition.Message, field, message)
	}
	f.waitFor(name, v1alpha1.ConditionReady, v1alpha1.ReasonSecretNotReadable)
}

func TestAGeneratedKeyIsOnlyForItsSubscription(t *testing.T) {
	const (
		header  = "spec.headers[0].valueFrom.secretKeyRef"
		signing = "spec.signing.secretRef"
	)
	f := newManagedFixture(t)
	f.create(f.subscription("victim"))
	f.waitReady("victim")

	f.create(f.sends("thief", "victim-signing"), f.sends("careless", "careless-signing"),
		f.signedWith("forger", "victim-signing"))
	f.expectRefusal("thief", header, "never sent as headers: name a Secret of your own")
	f.expectRefusal("careless", header, "never sent as headers: name a Secret of your own")
	f.expectRefusal("forger", signing, "generated for another subscription (victim): name a Secret of your own")

	edit(f, f.getSecret("victim-signing"), func(s *corev1.Secret) {
		s.Labels[v1alpha1.LabelReadable] = v1alpha1.LabelReadableValue
	})
	edit(f, f.getSubscription("thief"), func(s *v1alpha1.WebhookSubscription) { s.Spec.Events = []string{"*"} })
	f.expectRefusal("thief", header, "never sent as headers")

	edit(f, f.getSubscription("forger"), func(s *v1alpha1.WebhookSubscription) { s.Spec.Signing = nil })
	f.waitReady("forger")
	f.waitReady("victim")
}

func TestAGeneratedKeyThatIsOrphanedIsNotSentEither(t *testing.T) {
	f := newManagedFixture(t)
	f.create(f.subscription("victim"))
	sub := f.waitReady("victim")
	edit(f, f.getSecret("victim-signing"), func(s *corev1.Secret) { s.OwnerReferences = nil })
	f.delete(sub)
	f.create(f.sends("thief", "victim-signing"))
	f.expectRefusal("thief", "spec.headers[0].valueFrom.secretKeyRef", "never sent as headers")
}
