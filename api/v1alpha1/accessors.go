// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"strings"
	"unicode"
)

// IsActive tells whether the subscription takes part: spec.active, true if absent.
func (s *WebhookSubscription) IsActive() bool {
	return s.Spec.Active == nil || *s.Spec.Active
}

// IsPaused tells whether deliveries are kept and not sent: spec.paused, false if absent.
func (s *WebhookSubscription) IsPaused() bool {
	return s.Spec.Paused != nil && *s.Spec.Paused
}

// Unsendable says why nothing may be sent for this spec, whatever Secrets there are: the reason of a condition, and a
// sentence without a full stop that says what to do. Both are "" if nothing stands in the way.
func (s *WebhookSubscription) Unsendable() (reason, message string) {
	if strings.ContainsFunc(s.Spec.URL, isSpaceOrControl) {
		return ReasonInvalidURL,
			"spec.url contains a space or a control character: percent-encode it (a space is %20)"
	}
	return "", ""
}

// isSpaceOrControl is what the pattern of spec.url refuses: the Unicode categories Z and Cc.
func isSpaceOrControl(r rune) bool {
	return unicode.In(r, unicode.Z, unicode.Cc)
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
