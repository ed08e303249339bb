// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/event"
)

// finding is what a check says: fine, or what is wrong and what to do about it.
type finding struct {
	ok      bool
	reason  string
	message string
}

func wrong(reason, format string, arguments ...any) finding {
	return finding{reason: reason, message: fmt.Sprintf(format, arguments...)}
}

// managerConditions are the condition types that the manager writes.
var managerConditions = []string{
	v1alpha1.ConditionReady, v1alpha1.ConditionAccepted, v1alpha1.ConditionSecretReady,
}

// decide computes the manager's part of the status from what was read. It is pure: now becomes the transition time of
// conditions that change.
func decide(
	sub *v1alpha1.WebhookSubscription, from sources, catalogue Catalogue, now time.Time,
) v1alpha1.WebhookSubscriptionStatus {
	accepted := checkSpec(sub, catalogue)
	secretReady := checkSources(sub, from)

	status := managerPart(sub.Status)
	status.ObservedGeneration = sub.Generation
	status.ID = event.SubscriptionID(string(sub.UID))
	status.Host = hostOf(sub.Spec.URL)
	status.SigningSecret = signingSecretStatus(sub, from.secrets)
	set := func(conditionType string, f finding) {
		meta.SetStatusCondition(&status.Conditions, f.condition(conditionType, sub.Generation, now))
	}
	set(v1alpha1.ConditionReady, summary(accepted, secretReady))
	set(v1alpha1.ConditionAccepted, accepted)
	set(v1alpha1.ConditionSecretReady, secretReady)
	return status
}

// managerPart is the part of a status that the manager writes.
func managerPart(status v1alpha1.WebhookSubscriptionStatus) v1alpha1.WebhookSubscriptionStatus {
	part := *status.DeepCopy()
	part.Delivery = nil
	part.Conditions = slices.DeleteFunc(part.Conditions, func(c metav1.Condition) bool {
		return !slices.Contains(managerConditions, c.Type)
	})
	return part
}

func (f finding) condition(conditionType string, generation int64, now time.Time) metav1.Condition {
	status := metav1.ConditionFalse
	if f.ok {
		status = metav1.ConditionTrue
	}
	return metav1.Condition{
		Type: conditionType, Status: status, Reason: f.reason, Message: f.message,
		ObservedGeneration: generation, LastTransitionTime: metav1.NewTime(now),
	}
}

// summary is what Ready says: the first thing that is wrong, or that nothing is.
func summary(parts ...finding) finding {
	for _, part := range parts {
		if !part.ok {
			return part
		}
	}
	return finding{ok: true, reason: v1alpha1.ReasonReady, message: "The subscription takes part"}
}

func isTrue(conditions []metav1.Condition, conditionType string) bool {
	return meta.IsStatusConditionTrue(conditions, conditionType)
}

func hostOf(rawURL string) string {
	parsed, err := url.Parse(rawURL)
	if err != nil {
		return ""
	}
	return parsed.Host
}

func signingSecretStatus(
	sub *v1alpha1.WebhookSubscription, secrets map[string]*corev1.Secret,
) *v1alpha1.SigningSecretStatus {
	name := sub.SigningKey().Name
	if secrets[name] == nil {
		return nil
	}
	status := &v1alpha1.SigningSecretStatus{Name: name}
	if secret := overlapSecret(sub, secrets); secret != nil {
		status.RotatedAt = statusTime(v1alpha1.RotatedAt(secret))
		status.PreviousValidUntil = statusTime(v1alpha1.PreviousValidUntil(secret))
	}
	return status
}

// statusTime is nil for the zero time. Its location is the one that a time read from the API server has.
func statusTime(t time.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	return &metav1.Time{Time: t.Local()}
}

// checkSpec tells whether the spec makes sense in this cluster and to this version.
func checkSpec(sub *v1alpha1.WebhookSubscription, catalogue Catalogue) finding {
	if reason, message := sub.Unsendable(); reason != "" {
		return finding{reason: reason, message: message}
	}
	return checkEvents(sub.Spec.Events, catalogue)
}

// checkEvents tells whether every entry of spec.events can match an event of this cluster.
func checkEvents(patterns []string, catalogue Catalogue) finding {
	for i, pattern := range patterns {
		family, isFamily := strings.CutSuffix(pattern, ".*")
		switch {
		case pattern == "*", isFamily && catalogue.KnowsPattern(pattern), !isFamily && catalogue.Knows(pattern):
		case isFamily:
			return wrong(v1alpha1.ReasonUnknownEventType, "spec.events[%d]: no event type of this cluster begins with %q; %s",
				i, family+".", suggestion(pattern, catalogue))
		default:
			return wrong(v1alpha1.ReasonUnknownEventType, "spec.events[%d]: %q is no event type of this cluster; %s",
				i, pattern, suggestion(pattern, catalogue))
		}
	}
	return finding{ok: true, reason: v1alpha1.ReasonAccepted, message: "Every entry of spec.events can match an event"}
}

// suggestion is what to do about a pattern that matches nothing.
func suggestion(pattern string, catalogue Catalogue) string {
	if nearest := catalogue.Nearest(pattern); nearest != "" {
		return fmt.Sprintf("did you mean %q?", nearest)
	}
	return "GET /api/v1/event-types lists the types that it knows"
}
