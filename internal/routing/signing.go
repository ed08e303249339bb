// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"bytes"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nexus.io/webhooks/api/v1alpha1"
)

// compileKeys fills in the signing keys, or says why there are none.
func compileKeys(r *Route, sub *v1alpha1.WebhookSubscription, from Sources) *hold {
	current, problem := signingKey(sub, from)
	if problem != nil {
		return problem
	}
	r.Keys = [][]byte{current}
	if previous, until := previousKey(sub, current, from); previous != nil {
		r.Keys, r.PreviousUntil = append(r.Keys, previous), until
	}
	return nil
}

func signingKey(sub *v1alpha1.WebhookSubscription, from Sources) ([]byte, *hold) {
	ref := sub.SigningKey()
	// Whoever can make a Secret of that name must not choose the key of a subscription that did not name it.
	s := from.Secret(sub.Namespace, ref.Name)
	if sub.GeneratesSigningKey() && s != nil && !metav1.IsControlledBy(s, sub) {
		return nil, &hold{v1alpha1.ReasonSecretConflict,
			fmt.Sprintf("Secret %q does not belong to this subscription: delete or rename it, "+
				"or name it in spec.signing.secretRef", ref.Name)}
	}
	value, problem := lookUp(sub, ref, v1alpha1.SecretSigns, from)
	if problem != nil {
		return nil, problem
	}
	if !v1alpha1.UsableSigningKey(value) {
		return nil, &hold{v1alpha1.ReasonSecretKeyInvalid,
			fmt.Sprintf("key %q of Secret %q has %d bytes; a signing key has %d to %d", ref.Key, ref.Name, len(value),
				v1alpha1.MinSigningKeyLength, v1alpha1.MaxSigningKeyLength)}
	}
	return value, nil
}

// previousKey is the key that signs beside the current one, and until when; nil if there is none. The time is zero
// where nobody has set it yet: the key in use changed and the manager, which keeps the one that it saw last, has not
// come to say so. Then the old key goes on signing, however long the manager is away.
func previousKey(sub *v1alpha1.WebhookSubscription, current []byte, from Sources) ([]byte, time.Time) {
	kept := keptKeys(sub, from)
	if kept == nil || sub.KeyOverlap() == 0 {
		return nil, time.Time{}
	}
	last, previous := kept.Data[v1alpha1.DefaultSigningKey], kept.Data[v1alpha1.PreviousSigningKey]
	if v1alpha1.UsableSigningKey(last) && !bytes.Equal(last, current) {
		return last, time.Time{}
	}
	until := v1alpha1.PreviousValidUntil(kept)
	if !from.Now.Before(until) || !v1alpha1.UsableSigningKey(previous) || bytes.Equal(previous, current) {
		return nil, time.Time{}
	}
	return previous, until
}

// keptKeys is the Secret in which the manager keeps the keys of a subscription, nil if there is none: the generated
// one, or for a key that the spec names the one with the keys that were seen. Until that is there a subscription which
// has just come to name a key has the generated one still.
func keptKeys(sub *v1alpha1.WebhookSubscription, from Sources) *corev1.Secret {
	if !sub.GeneratesSigningKey() {
		if seen := ownSecret(sub, v1alpha1.SeenSecretName(sub.Name), from); seen != nil {
			return seen
		}
	}
	return ownSecret(sub, v1alpha1.GeneratedSecretName(sub.Name), from)
}

func ownSecret(sub *v1alpha1.WebhookSubscription, name string, from Sources) *corev1.Secret {
	secret := from.Secret(sub.Namespace, name)
	if secret == nil || !metav1.IsControlledBy(secret, sub) {
		return nil
	}
	return secret
}
