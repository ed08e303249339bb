// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/routing"
)

// Delivering judges how a subscription's deliveries go. Of several truths it tells the one to act on first: what the
// owner set, what is missing, what the endpoint or the policy says for good, and only then how the attempts went.
// The time of the transition is left to the caller.
func Delivering(route *routing.Route, s queue.Statistics) metav1.Condition {
	status, reason, message := judge(route, s)
	return metav1.Condition{
		Type: v1alpha1.ConditionDelivering, Status: status, Reason: reason, Message: message,
		ObservedGeneration: route.Generation,
	}
}

func judge(route *routing.Route, s queue.Statistics) (status metav1.ConditionStatus, reason, message string) {
	switch {
	case !route.Active:
		return metav1.ConditionUnknown, v1alpha1.ReasonInactive,
			"The subscription is not active: it takes no events and sends nothing of what it has."
	case route.Hold != "":
		return metav1.ConditionFalse, route.Hold, held(route)
	case route.Paused:
		return metav1.ConditionUnknown, v1alpha1.ReasonPaused,
			"The subscription is paused: events are kept and sent once it is resumed."
	case s.LastReason == queue.ReasonGone:
		return metav1.ConditionFalse, v1alpha1.ReasonEndpointGone,
			"The URL answered 410 Gone: it wants no more of these events."
	case s.LastReason == queue.ReasonEgressDenied:
		return metav1.ConditionFalse, v1alpha1.ReasonEgressDenied,
			"The operator's egress policy does not allow this URL: " + s.LastError
	case s.BacklogFull:
		return metav1.ConditionFalse, v1alpha1.ReasonBacklogFull,
			"So many deliveries wait that further ones are recorded as failed."
	default:
		return byAttempts(s)
	}
}

func held(route *routing.Route) string {
	detail := route.HoldDetail
	if detail == "" {
		detail = "Something that is needed to send is missing."
	}
	return detail + " Events are kept meanwhile."
}

func byAttempts(s queue.Statistics) (status metav1.ConditionStatus, reason, message string) {
	switch {
	case s.ConsecutiveFailures >= queue.FailingAfter:
		return metav1.ConditionFalse, v1alpha1.ReasonEndpointFailing,
			fmt.Sprintf("%d attempts in a row failed, the last one: %s", s.ConsecutiveFailures, s.LastError)
	case !s.LastSuccess.IsZero() && s.ConsecutiveFailures > 0:
		return metav1.ConditionTrue, v1alpha1.ReasonDelivered,
			"The URL took deliveries, but not the last one, which is tried again: " + s.LastError
	case !s.LastSuccess.IsZero():
		return metav1.ConditionTrue, v1alpha1.ReasonDelivered, "The URL took the last delivery."
	case s.ConsecutiveFailures > 0:
		return metav1.ConditionUnknown, v1alpha1.ReasonNoDeliveryYet,
			"The URL took no delivery yet; the last attempt failed: " + s.LastError
	default:
		return metav1.ConditionUnknown, v1alpha1.ReasonNoDeliveryYet, "No event was sent so far."
	}
}
