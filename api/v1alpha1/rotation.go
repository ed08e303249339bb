// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// DefaultKeyOverlap is how long the previous key signs too where spec.signing.rotation does not say.
const DefaultKeyOverlap = 24 * time.Hour

// KeyOverlap is how long requests are signed by the previous key too once the signing key changed, 0 for not at all.
func (s *WebhookSubscription) KeyOverlap() time.Duration {
	interval := s.KeyRotationInterval()
	switch {
	case s.Spec.Signing != nil && s.Spec.Signing.Rotation != nil && s.Spec.Signing.Rotation.GracePeriodSeconds != nil:
		return time.Duration(*s.Spec.Signing.Rotation.GracePeriodSeconds) * time.Second
	case interval > 0:
		return min(DefaultKeyOverlap, interval)
	}
	return DefaultKeyOverlap
}

// KeyRotationInterval is the age at which a generated key is replaced, 0 for never.
func (s *WebhookSubscription) KeyRotationInterval() time.Duration {
	if s.Spec.Signing == nil || s.Spec.Signing.Rotation == nil {
		return 0
	}
	return time.Duration(s.Spec.Signing.Rotation.IntervalSeconds) * time.Second
}

// UsableSigningKey tells whether a value may sign: whether its length is right.
func UsableSigningKey(value []byte) bool {
	return len(value) >= MinSigningKeyLength && len(value) <= MaxSigningKeyLength
}

// PreviousValidUntil is when the previous key in a Secret stops signing, the zero time if the Secret does not say so in
// a way that can be read: then that key signs nothing.
func PreviousValidUntil(secret metav1.Object) time.Time {
	return annotatedTime(secret, AnnotationPreviousValidUntil)
}

// RotatedAt is when the key in a Secret took the place of another one, the zero time if it did not.
func RotatedAt(secret metav1.Object) time.Time {
	return annotatedTime(secret, AnnotationRotatedAt)
}

func annotatedTime(object metav1.Object, annotation string) time.Time {
	at, err := time.Parse(time.RFC3339, object.GetAnnotations()[annotation])
	if err != nil {
		return time.Time{}
	}
	return at.UTC()
}
