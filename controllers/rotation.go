// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"bytes"
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"nexus.io/webhooks/api/v1alpha1"
)

// overdueAgain is when to look again at what was due and did not happen, because the cache lags behind.
const overdueAgain = 100 * time.Millisecond

// rotateKey replaces the generated key where that is asked for or due, and ends an overlap that is over. A rotation
// that was missed while no manager ran happens once. The request and the interval are read again from the API server
// first: an older request from the cache would look like a new one.
func (r *SubscriptionReconciler) rotateKey(
	ctx context.Context, sub *v1alpha1.WebhookSubscription, secrets map[string]*corev1.Secret,
) error {
	secret := secrets[v1alpha1.GeneratedSecretName(sub.Name)]
	if !sub.GeneratesSigningKey() || secret == nil || !metav1.IsControlledBy(secret, sub) {
		return nil
	}
	if !rotationDue(sub, secret, r.Now()) {
		return r.endOverlap(ctx, sub, secret)
	}
	current, err := r.readAgain(ctx, sub)
	if err != nil || current == nil || !current.GeneratesSigningKey() || !rotationDue(current, secret, r.Now()) {
		return err
	}
	now := r.Now()
	replaceKey(secret, newSigningKey(), current.KeyOverlap(), now)
	answerRequest(secret, current)
	if err := r.updateOwned(ctx, secret); err != nil {
		return err
	}
	r.Events.Eventf(sub, nil, corev1.EventTypeNormal, eventKeyRotated, actionRotate,
		"Put a new signing key into Secret %s; %s", secret.Name, aboutPrevious(secret))
	return nil
}

// endOverlap removes the previous key from a Secret of ours once its time is over, or cannot be told.
func (r *SubscriptionReconciler) endOverlap(
	ctx context.Context, sub *v1alpha1.WebhookSubscription, secret *corev1.Secret,
) error {
	if !overlapOver(sub, secret, r.Now()) {
		return nil
	}
	_, had := secret.Data[v1alpha1.PreviousSigningKey]
	forgetPrevious(secret)
	if err := r.updateOwned(ctx, secret); err != nil {
		return err
	}
	if had {
		r.Events.Eventf(sub, nil, corev1.EventTypeNormal, eventOverlapEnded, actionRotate,
			"Removed the previous signing key from Secret %s: it signs no longer", secret.Name)
	}
	return nil
}

// updateOwned writes a Secret of ours, if nobody wrote it since it was read: keys and annotations change together or
// not at all.
func (r *SubscriptionReconciler) updateOwned(ctx context.Context, secret *corev1.Secret) error {
	if err := r.Client.Update(ctx, secret, client.FieldOwner(v1alpha1.FieldOwnerManager)); err != nil {
		return fmt.Errorf("update Secret %s: %w", secret.Name, err)
	}
	return nil
}

// rotationDue tells whether a generated key is to be replaced: a request that it does not answer yet, or its age.
func rotationDue(sub *v1alpha1.WebhookSubscription, secret *corev1.Secret, now time.Time) bool {
	request := sub.Annotations[v1alpha1.AnnotationRotateRequested]
	if request != "" && request != secret.Annotations[v1alpha1.AnnotationRotatedFor] {
		return true
	}
	due := nextRotation(sub, secret)
	return !due.IsZero() && !now.Before(due)
}

// nextRotation is when a generated key reaches the age at which it is replaced, the zero time for never.
func nextRotation(sub *v1alpha1.WebhookSubscription, secret *corev1.Secret) time.Time {
	interval := sub.KeyRotationInterval()
	if interval == 0 {
		return time.Time{}
	}
	if at := v1alpha1.RotatedAt(secret); !at.IsZero() {
		return at.Add(interval)
	}
	return secret.CreationTimestamp.Add(interval)
}

// overlapOver tells whether a Secret of ours holds something about a previous key that signs no longer.
func overlapOver(sub *v1alpha1.WebhookSubscription, secret *corev1.Secret, now time.Time) bool {
	_, held := secret.Data[v1alpha1.PreviousSigningKey]
	_, dated := secret.Annotations[v1alpha1.AnnotationPreviousValidUntil]
	if !held && !dated {
		return false
	}
	return !held || sub.KeyOverlap() == 0 || !now.Before(v1alpha1.PreviousValidUntil(secret))
}

// replaceKey makes key the one that signs, and the one before it the previous one for the time of the overlap. Of a
// previous key that was there already nothing is left: two signatures is what a request carries at most.
func replaceKey(secret *corev1.Secret, key []byte, overlap time.Duration, now time.Time) {
	before := secret.Data[v1alpha1.DefaultSigningKey]
	if secret.Data == nil {
		secret.Data = map[string][]byte{}
	}
	secret.Data[v1alpha1.DefaultSigningKey] = key
	metav1.SetMetaDataAnnotation(&secret.ObjectMeta, v1alpha1.AnnotationRotatedAt, now.UTC().Format(time.RFC3339))
	setPrevious(secret, before, overlap, now)
}

// setPrevious makes a key the previous one for the time of the overlap, if it can sign and is not the present one.
func setPrevious(secret *corev1.Secret, previous []byte, overlap time.Duration, now time.Time) {
	forgetPrevious(secret)
	if overlap == 0 || !v1alpha1.UsableSigningKey(previous) ||
		bytes.Equal(previous, secret.Data[v1alpha1.DefaultSigningKey]) {
		return
	}
	until := now.Add(overlap + time.Second - 1).UTC().Truncate(time.Second) // never less than was asked for
	secret.Data[v1alpha1.PreviousSigningKey] = previous
	metav1.SetMetaDataAnnotation(&secret.ObjectMeta, v1alpha1.AnnotationPreviousValidUntil, until.Format(time.RFC3339))
}

func forgetPrevious(secret *corev1.Secret) {
	delete(secret.Data, v1alpha1.PreviousSigningKey)
	delete(secret.Annotations, v1alpha1.AnnotationPreviousValidUntil)
}

// answerRequest notes that the key in a Secret answers the request for a rotation that the subscription makes, if any.
func answerRequest(secret *corev1.Secret, sub *v1alpha1.WebhookSubscription) {
	if request := sub.Annotations[v1alpha1.AnnotationRotateRequested]; request != "" {
		metav1.SetMetaDataAnnotation(&secret.ObjectMeta, v1alpha1.AnnotationRotatedFor, request)
	}
}

// aboutPrevious is the rest of a sentence about a key that was replaced.
func aboutPrevious(secret *corev1.Secret) string {
	until, dated := secret.Annotations[v1alpha1.AnnotationPreviousValidUntil]
	if !dated {
		return "the previous one signs no longer"
	}
	return "the previous one signs too until " + until
}

// overlapSecret is the Secret of ours that says which key signs beside the present one, nil if there is none: the
// generated one, or the one with the keys that were seen.
func overlapSecret(sub *v1alpha1.WebhookSubscription, secrets map[string]*corev1.Secret) *corev1.Secret {
	name := v1alpha1.SeenSecretName(sub.Name)
	if sub.GeneratesSigningKey() {
		name = v1alpha1.GeneratedSecretName(sub.Name)
	}
	secret := secrets[name]
	if secret == nil || !metav1.IsControlledBy(secret, sub) {
		return nil
	}
	return secret
}

// wakeAfter is how long nothing becomes due by the passing of time alone, 0 for ever.
func wakeAfter(
	sub *v1alpha1.WebhookSubscription, secrets map[string]*corev1.Secret, now time.Time,
) time.Duration {
	secret := overlapSecret(sub, secrets)
	if secret == nil {
		return 0
	}
	next := v1alpha1.PreviousValidUntil(secret)
	if sub.GeneratesSigningKey() {
		if due := nextRotation(sub, secret); next.IsZero() || !due.IsZero() && due.Before(next) {
			next = due
		}
	}
	if next.IsZero() {
		return 0
	}
	return max(next.Sub(now), overdueAgain)
}
