// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

// IsActive tells whether the subscription takes part: spec.active, true if absent.
func (s *WebhookSubscription) IsActive() bool {
	return s.Spec.Active == nil || *s.Spec.Active
}

// IsPaused tells whether deliveries are kept and not sent: spec.paused, false if absent.
func (s *WebhookSubscription) IsPaused() bool {
	return s.Spec.Paused != nil && *s.Spec.Paused
}

// GeneratesSigningKey tells whether the manager makes the signing key: the spec names none.
func (s *WebhookSubscription) GeneratesSigningKey() bool {
	return s.Spec.Signing == nil || s.Spec.Signing.SecretRef == nil
}

// SigningKey names the Secret and the key within it that sign the subscription's requests: the one that the spec names,
// or else the generated one.
func (s *WebhookSubscription) SigningKey() SecretKeyReference {
	if s.GeneratesSigningKey() {
		return SecretKeyReference{Name: GeneratedSecretName(s.Name), Key: DefaultSigningKey}
	}
	ref := s.Spec.Signing.SecretRef
	if ref.Key == "" {
		return SecretKeyReference{Name: ref.Name, Key: DefaultSigningKey}
	}
	return SecretKeyReference{Name: ref.Name, Key: ref.Key}
}
