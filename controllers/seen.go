// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"bytes"
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nexus.io/webhooks/api/v1alpha1"
)

// rememberKey keeps the key that a subscription refers to in a Secret of ours, and beside it the one that was there
// before, for the time of the overlap. Who edits a Secret leaves nothing of what was in it, so a copy has to be made
// before; and since it lies in the cluster, an edit is noticed whenever the manager comes to look. A Secret that cannot
// be used changes nothing of what was seen, but one that has withdrawn its leave to be read is remembered no longer.
func (r *SubscriptionReconciler) rememberKey(
	ctx context.Context, sub *v1alpha1.WebhookSubscription, secrets map[string]*corev1.Secret,
) error {
	if sub.GeneratesSigningKey() || sub.KeyOverlap() == 0 {
		return nil
	}
	name := v1alpha1.SeenSecretName(sub.Name)
	seen := secrets[name]
	if seen != nil && !metav1.IsControlledBy(seen, sub) {
		return nil // checkSources says so
	}
	key, f := readKey(use{"", sub, v1alpha1.SecretSigns}, sub.SigningKey(), secrets)
	usable := f.ok && v1alpha1.UsableSigningKey(key)
	switch {
	case seen != nil && (!usable || bytes.Equal(seen.Data[v1alpha1.DefaultSigningKey], key)):
		return r.endOverlap(ctx, sub, seen)
	case !usable:
		return nil
	}
	current, err := r.readAgain(ctx, sub)
	if err != nil || current == nil || current.SigningKey() != sub.SigningKey() {
		return err
	}
	if seen == nil {
		secrets[name], err = r.createSeen(ctx, current, key)
		return err
	}
	replaceKey(seen, key, current.KeyOverlap(), r.Now())
	if err := r.updateOwned(ctx, seen); err != nil {
		return err
	}
	r.recordChanged(sub, seen)
	return nil
}

// createSeen begins to remember. A subscription that comes from a generated key has that one for its previous key.
func (r *SubscriptionReconciler) createSeen(
	ctx context.Context, sub *v1alpha1.WebhookSubscription, key []byte,
) (*corev1.Secret, error) {
	seen := ownSecret(sub, v1alpha1.SeenSecretName(sub.Name), key)
	owned, err := r.owns(ctx, sub, v1alpha1.GeneratedSecretName(sub.Name))
	if err != nil {
		return nil, err
	}
	changed := owned != nil && sub.SigningKey().Name != owned.Name
	if changed {
		generated, err := r.readSecret(ctx, sub.Namespace, owned.Name)
		if err != nil {
			return nil, err
		}
		if generated != nil && metav1.IsControlledBy(generated, sub) {
			seen.Data[v1alpha1.DefaultSigningKey] = generated.Data[v1alpha1.DefaultSigningKey]
			replaceKey(seen, key, sub.KeyOverlap(), r.Now())
		}
	}
	if err := r.createOwned(ctx, sub, seen); err != nil {
		return nil, err
	}
	if changed {
		r.recordChanged(sub, seen)
	}
	return seen, nil
}

// keepSeenKey makes the key that was seen last the previous one of a Secret that is about to be generated in its place.
func (r *SubscriptionReconciler) keepSeenKey(
	ctx context.Context, sub *v1alpha1.WebhookSubscription, generated *corev1.Secret,
) error {
	owned, err := r.owns(ctx, sub, v1alpha1.SeenSecretName(sub.Name))
	if err != nil || owned == nil {
		return err
	}
	seen, err := r.readSecret(ctx, sub.Namespace, owned.Name)
	if err != nil || seen == nil || !metav1.IsControlledBy(seen, sub) {
		return err
	}
	setPrevious(generated, seen.Data[v1alpha1.DefaultSigningKey], sub.KeyOverlap(), r.Now())
	return nil
}

// forgetKeys deletes the Secret with the keys that were seen where it has no use: no overlap is wanted, the key is a
// generated one, or its Secret may not be read.
func (r *SubscriptionReconciler) forgetKeys(
	ctx context.Context, sub *v1alpha1.WebhookSubscription, secrets map[string]*corev1.Secret,
) error {
	if !sub.GeneratesSigningKey() && sub.KeyOverlap() > 0 && !mayNotRead(sub, secrets) {
		return nil
	}
	name := v1alpha1.SeenSecretName(sub.Name)
	seen, err := r.owns(ctx, sub, name)
	if err != nil || seen == nil {
		return err
	}
	if err := r.deleteSecret(ctx, seen); err != nil {
		return err
	}
	delete(secrets, name)
	return nil
}

// mayNotRead tells whether the Secret that signs is there and may not be used.
func mayNotRead(sub *v1alpha1.WebhookSubscription, secrets map[string]*corev1.Secret) bool {
	secret := secrets[sub.SigningKey().Name]
	return secret != nil && sub.SecretRefusal(secret, string(secret.Type), v1alpha1.SecretSigns) != ""
}

func (r *SubscriptionReconciler) recordChanged(sub *v1alpha1.WebhookSubscription, seen *corev1.Secret) {
	ref := sub.SigningKey()
	r.Events.Eventf(sub, nil, corev1.EventTypeNormal, eventKeyChanged, actionRotate,
		"Requests are signed with another key now, %q of Secret %s; %s", ref.Key, ref.Name, aboutPrevious(seen))
}
