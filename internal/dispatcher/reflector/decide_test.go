// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/routing"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func TestDeliveringTellsWhatToActOnFirst(t *testing.T) {
	active := routing.Route{Active: true, Generation: 7}
	hold := routing.Route{Active: true, Hold: v1alpha1.ReasonSecretNotFound, HoldDetail: `Secret "x" is not there`}
	failing := queue.Statistics{ConsecutiveFailures: 3, LastStatusCode: 503, LastReason: "server_error", LastSuccess: noon}
	cases := map[string]struct {
		route   routing.Route
		s       queue.Statistics
		status  metav1.ConditionStatus
		reason  string
		message string
	}{
		"inactive, though failing": {routing.Route{Paused: true, Hold: "SecretNotFound"}, failing, metav1.ConditionUnknown,
			v1alpha1.ReasonInactive, "spec.active is false: no event is taken and nothing is sent."},
		"held for want of a Secret": {hold, queue.Statistics{Pending: 1}, metav1.ConditionFalse, v1alpha1.ReasonSecretNotFound,
			`Nothing can be sent: Secret "x" is not there. 1 delivery waits.`},
		"paused with a full backlog": {routing.Route{Active: true, Paused: true}, queue.Statistics{Pending: 9, BacklogFull: true},
			metav1.ConditionUnknown, v1alpha1.ReasonPaused, "spec.paused is true: deliveries are kept and not sent. " +
				"9 deliveries wait. The backlog is full: further deliveries are recorded as failed."},
		"a full backlog because the endpoint fails": {active, queue.Statistics{BacklogFull: true, Pending: 9, ConsecutiveFailures: 4,
			LastError: "connection refused"}, metav1.ConditionFalse, v1alpha1.ReasonBacklogFull,
			"New deliveries are recorded as failed, because too many wait. 9 deliveries wait. " +
				"4 attempts in a row failed; the last got no answer: connection refused."},
		"gone, and a full backlog of it": {active, queue.Statistics{ConsecutiveFailures: 9, LastStatusCode: 410,
			LastReason: queue.ReasonGone, BacklogFull: true}, metav1.ConditionFalse, v1alpha1.ReasonEndpointGone,
			"The URL answered 410 Gone: it wants no more. Change spec.url or delete the subscription. " +
				"The backlog is full: further deliveries are recorded as failed."},
		"denied, and a full backlog of it": {active, queue.Statistics{ConsecutiveFailures: 9, BacklogFull: true,
			LastReason: queue.ReasonEgressDenied, LastError: "10.0.0.1 is private"}, metav1.ConditionFalse,
			v1alpha1.ReasonEgressDenied, "The operator's egress policy does not allow the URL's address: " +
				"10.0.0.1 is private. The backlog is full: further deliveries are recorded as failed."},
		"held though paused, gone and full": {routing.Route{Active: true, Paused: true, Hold: v1alpha1.ReasonSecretConflict,
			HoldDetail: "it is another's"}, queue.Statistics{LastReason: queue.ReasonGone}, metav1.ConditionFalse,
			v1alpha1.ReasonSecretConflict, "Nothing can be sent: it is another's."},
		"paused though gone": {routing.Route{Active: true, Paused: true}, queue.Statistics{LastReason: queue.ReasonGone},
			metav1.ConditionUnknown, v1alpha1.ReasonPaused, "spec.paused is true: deliveries are kept and not sent."},
		"gone": {active, queue.Statistics{ConsecutiveFailures: 1, LastStatusCode: 410, LastReason: queue.ReasonGone},
			metav1.ConditionFalse, v1alpha1.ReasonEndpointGone,
			"The URL answered 410 Gone: it wants no more. Change spec.url or delete the subscription."},
		"denied by the egress policy": {active, queue.Statistics{ConsecutiveFailures: 1, LastReason: queue.ReasonEgressDenied,
			LastError: "10.0.0.1 is private"}, metav1.ConditionFalse, v1alpha1.ReasonEgressDenied,
			"The operator's egress policy does not allow the URL's address: 10.0.0.1 is private"},
		"failing": {active, failing, metav1.ConditionFalse, v1alpha1.ReasonEndpointFailing,
			"3 attempts in a row failed; the last answered 503."},
		"two failures after a success": {active, queue.Statistics{ConsecutiveFailures: 2, LastStatusCode: 503, LastSuccess: noon},
			metav1.ConditionTrue, v1alpha1.ReasonDelivered,
			"Deliveries reached the URL until lately. 2 attempts in a row failed; the last answered 503."},
		"one failure before any success": {active, queue.Statistics{ConsecutiveFailures: 1}, metav1.ConditionUnknown,
			v1alpha1.ReasonNoDeliveryYet, "Nothing was delivered yet. The last attempt failed; it got no answer."},
		"nothing sent": {active, queue.Statistics{}, metav1.ConditionUnknown, v1alpha1.ReasonNoDeliveryYet,
			"Nothing was delivered yet."},
		"delivered": {active, queue.Statistics{LastSuccess: noon, LastStatusCode: 200}, metav1.ConditionTrue,
			v1alpha1.ReasonDelivered, "The last attempt was a success."},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			want := metav1.Condition{Type: v1alpha1.ConditionDelivering, Status: c.status, Reason: c.reason,
				Message: c.message, ObservedGeneration: c.route.Generation, LastTransitionTime: metav1.NewTime(noon)}
			if diff := cmp.Diff(want, Delivering(&c.route, c.s, noon)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTransitionTimeMovesWithTheStatusOnly(t *testing.T) {
	route := &routing.Route{Active: true, Generation: 2}
	sub := &v1alpha1.WebhookSubscription{}
	later := noon.Add(time.Hour)
	delivered := queue.Statistics{LastSuccess: noon, Successful: 1}

	first := wanted(sub, route, delivered, noon)
	sub.Status.Conditions, sub.Status.Delivery = first.Conditions, first.Delivery
	if wanted(sub, route, delivered, later).differs(sub) {
		t.Error("what is right differs")
	}
	worse := delivered
	worse.ConsecutiveFailures = 1
	second := wanted(sub, route, worse, later)
	if got := second.Conditions[0].LastTransitionTime; !got.Time.Equal(noon) {
		t.Errorf("the time moved to %v while the status stayed", got)
	}
	if !second.differs(sub) {
		t.Error("another count does not differ")
	}
	worse.ConsecutiveFailures = queue.FailingAfter
	third := wanted(sub, route, worse, later)
	if got := third.Conditions[0].LastTransitionTime; !got.Time.Equal(later) {
		t.Errorf("the time is %v, want that of the change", got)
	}
	edited := &routing.Route{Active: true, Generation: 3}
	if !wanted(sub, edited, delivered, later).differs(sub) {
		t.Error("another generation does not differ")
	}
}

func TestTextsFitIntoAStatus(t *testing.T) {
	long := strings.Repeat("é", maxText)
	s := queue.Statistics{LastReason: queue.ReasonEgressDenied, LastError: long, ConsecutiveFailures: 1, Pending: -1}
	message := Delivering(&routing.Route{Active: true}, s, noon).Message
	d := delivery(s)
	for _, text := range []string{message, d.LastError} {
		if len(text) > maxText || !utf8.ValidString(text) || !strings.HasSuffix(text, "…") {
			t.Errorf("%d bytes, valid %v: …%q", len(text), utf8.ValidString(text), text[len(text)-8:])
		}
	}
	if d.Pending != 0 {
		t.Errorf("pending is %d", d.Pending)
	}
	if got := shorten("bad \xff byte"); !utf8.ValidString(got) {
		t.Errorf("%q", got)
	}
}

func TestConditionShowsNoSecret(t *testing.T) {
	route := routing.Route{Active: true, Keys: [][]byte{[]byte("hidden-key")},
		Headers: []routing.Header{{Name: "Authorization", Value: "hidden-value", Secret: true}}}
	held := route
	held.Hold, held.HoldDetail = v1alpha1.ReasonSecretKeyInvalid, `key "x" of Secret "y" is no value`
	for _, s := range []queue.Statistics{{}, {BacklogFull: true}, {ConsecutiveFailures: 3, LastError: "timeout"}} {
		for _, r := range []routing.Route{route, held} {
			if text := fmt.Sprint(Delivering(&r, s, noon)); strings.Contains(text, "hidden") {
				t.Errorf("shows a secret: %s", text)
			}
		}
	}
}
