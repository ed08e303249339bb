// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/routing"
)

// maxText bounds a message or an error in a status, in bytes.
const maxText = 1024

// report is the part of a status that is the dispatcher's.
type report struct {
	Conditions []metav1.Condition       `json:"conditions"` // Delivering alone
	Delivery   *v1alpha1.DeliveryStatus `json:"delivery"`
}

// wanted is what the status of an object should say. The time of the last transition stays unless the condition changes
// between True, False and Unknown.
func wanted(sub *v1alpha1.WebhookSubscription, route *routing.Route, s queue.Statistics, now time.Time) report {
	condition := Delivering(route, s, now)
	before := meta.FindStatusCondition(sub.Status.Conditions, v1alpha1.ConditionDelivering)
	if before != nil && before.Status == condition.Status {
		condition.LastTransitionTime = before.LastTransitionTime
	}
	return report{Conditions: []metav1.Condition{condition}, Delivery: delivery(s)}
}

// differs tells whether an object says something else.
func (r report) differs(sub *v1alpha1.WebhookSubscription) bool {
	is := meta.FindStatusCondition(sub.Status.Conditions, v1alpha1.ConditionDelivering)
	return is == nil || !equality.Semantic.DeepEqual(*is, r.Conditions[0]) ||
		!equality.Semantic.DeepEqual(sub.Status.Delivery, r.Delivery)
}

// delivery converts counters to what the API server takes: times in seconds, no number below zero.
func delivery(s queue.Statistics) *v1alpha1.DeliveryStatus {
	d := &v1alpha1.DeliveryStatus{
		Successful:          max(0, s.Successful),
		Failed:              max(0, s.Failed),
		Pending:             max(0, s.Pending),
		Retrying:            max(0, s.Retrying),
		ConsecutiveFailures: max(0, s.ConsecutiveFailures),
		LastAttemptTime:     moment(s.LastAttempt),
		LastSuccessTime:     moment(s.LastSuccess),
		LastError:           shorten(s.LastError),
	}
	if s.LastStatusCode >= 100 && s.LastStatusCode <= 999 {
		d.LastStatusCode = int32(s.LastStatusCode)
	}
	if s.LatencyCount > 0 {
		d.AverageLatencyMilliseconds = max(0, s.LatencySum.Milliseconds()/s.LatencyCount)
	}
	return d
}

func moment(t time.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	m := metav1.NewTime(t.Truncate(time.Second).UTC())
	return &m
}

// Delivering says whether the deliveries of a route reach its URL, with a sentence for people. Its observedGeneration
// is the generation that the route was compiled from, its transition is now.
func Delivering(route *routing.Route, s queue.Statistics, now time.Time) metav1.Condition {
	status, reason, message := held(route)
	if reason == "" {
		status, reason, message = sent(s)
	} else if s.Pending > 0 && route.Active {
		message += " " + waiting(s.Pending)
	}
	if s.BacklogFull && reason != v1alpha1.ReasonBacklogFull {
		message = strings.TrimRight(message, ". ") + ". The backlog is full: further deliveries are recorded as failed."
	}
	return metav1.Condition{
		Type: v1alpha1.ConditionDelivering, Status: status, Reason: reason, Message: shorten(message),
		ObservedGeneration: route.Generation, LastTransitionTime: metav1.NewTime(now.Truncate(time.Second).UTC()),
	}
}

// held judges a route whose deliveries wait, whatever became of earlier ones. No reason means that they do not.
func held(route *routing.Route) (status metav1.ConditionStatus, reason, message string) {
	switch {
	case !route.Active:
		return metav1.ConditionUnknown, v1alpha1.ReasonInactive,
			"spec.active is false: no event is taken and nothing is sent."
	case route.Hold != "":
		return metav1.ConditionFalse, route.Hold, "Nothing can be sent: " + route.HoldDetail + "."
	case route.Paused:
		return metav1.ConditionUnknown, v1alpha1.ReasonPaused, "spec.paused is true: deliveries are kept and not sent."
	default:
		return "", "", ""
	}
}

// sent judges by what became of the attempts so far.
func sent(s queue.Statistics) (status metav1.ConditionStatus, reason, message string) {
	switch {
	case s.LastReason == queue.ReasonGone:
		return metav1.ConditionFalse, v1alpha1.ReasonEndpointGone,
			"The URL answered 410 Gone: it wants no more. Change spec.url or delete the subscription."
	case s.LastReason == queue.ReasonEgressDenied:
		return metav1.ConditionFalse, v1alpha1.ReasonEgressDenied,
			"The operator's egress policy does not allow the URL's address: " + s.LastError
	case s.BacklogFull:
		return metav1.ConditionFalse, v1alpha1.ReasonBacklogFull,
			"New deliveries are recorded as failed, because too many wait. " + waiting(s.Pending) + failures(s)
	case s.ConsecutiveFailures >= queue.FailingAfter:
		return metav1.ConditionFalse, v1alpha1.ReasonEndpointFailing, strings.TrimSpace(failures(s))
	case s.LastSuccess.IsZero():
		return metav1.ConditionUnknown, v1alpha1.ReasonNoDeliveryYet, "Nothing was delivered yet." + failures(s)
	case s.ConsecutiveFailures > 0:
		return metav1.ConditionTrue, v1alpha1.ReasonDelivered, "Deliveries reached the URL until lately." + failures(s)
	default:
		return metav1.ConditionTrue, v1alpha1.ReasonDelivered, "The last attempt was a success."
	}
}

// failures is a sentence about the attempts that failed since the last success, "" if none did.
func failures(s queue.Statistics) string {
	if s.ConsecutiveFailures <= 0 {
		return ""
	}
	how := "got no answer"
	if s.LastStatusCode != 0 {
		how = fmt.Sprintf("answered %d", s.LastStatusCode)
	} else if s.LastError != "" {
		how += ": " + s.LastError
	}
	if s.ConsecutiveFailures == 1 {
		return " The last attempt failed; it " + how + "."
	}
	return fmt.Sprintf(" %d attempts in a row failed; the last %s.", s.ConsecutiveFailures, how)
}

func waiting(n int64) string {
	if n == 1 {
		return "1 delivery waits."
	}
	return fmt.Sprintf("%d deliveries wait.", n)
}

// shorten cuts a text to what a status holds, at the border of a character.
func shorten(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= maxText {
		return text
	}
	const ellipsis = "…"
	cut := maxText - len(ellipsis)
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + ellipsis
}
