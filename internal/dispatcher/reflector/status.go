// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/routing"
)

// part is the dispatcher's part of the status.
type part struct {
	Conditions []metav1.Condition       `json:"conditions"`
	Delivery   *v1alpha1.DeliveryStatus `json:"delivery"`
}

// desired is what the status should say, and whether it says something else.
func desired(sub *v1alpha1.WebhookSubscription, route *routing.Route, s queue.Statistics, now time.Time) (part, bool) {
	condition := Delivering(route, s)
	condition.LastTransitionTime = metav1.NewTime(now.UTC().Truncate(time.Second))
	old := meta.FindStatusCondition(sub.Status.Conditions, v1alpha1.ConditionDelivering)
	if old != nil && old.Status == condition.Status {
		condition.LastTransitionTime = old.LastTransitionTime
	}
	p := part{[]metav1.Condition{condition}, delivery(s)}
	same := old != nil && equality.Semantic.DeepEqual(*old, condition) &&
		equality.Semantic.DeepEqual(sub.Status.Delivery, p.Delivery)
	return p, !same
}

func delivery(s queue.Statistics) *v1alpha1.DeliveryStatus {
	d := &v1alpha1.DeliveryStatus{
		Successful: s.Successful, Failed: s.Failed, Pending: s.Pending, Retrying: s.Retrying,
		ConsecutiveFailures: s.ConsecutiveFailures, LastAttemptTime: seconds(s.LastAttempt),
		LastSuccessTime: seconds(s.LastSuccess), LastError: s.LastError,
	}
	if s.LastStatusCode >= 100 && s.LastStatusCode <= 999 {
		d.LastStatusCode = int32(s.LastStatusCode) //nolint:gosec // bounded by the line above
	}
	if s.LatencyCount > 0 {
		d.AverageLatencyMilliseconds = s.LatencySum.Milliseconds() / s.LatencyCount
	}
	return d
}

// seconds is a time as the API keeps it, nil for none.
func seconds(t time.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	return &metav1.Time{Time: t.UTC().Truncate(time.Second)}
}

// apply writes the part by server-side apply, so that the manager's part stays the manager's.
func (r *Reflector) apply(ctx context.Context, sub *v1alpha1.WebhookSubscription, p part) error {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&p)
	if err != nil {
		return fmt.Errorf("convert the status: %w", err)
	}
	object := &unstructured.Unstructured{Object: map[string]any{"status": content}}
	object.SetGroupVersionKind(v1alpha1.SubscriptionKind)
	object.SetNamespace(sub.Namespace)
	object.SetName(sub.Name)
	return r.client.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(object),
		client.FieldOwner(v1alpha1.FieldOwnerDispatcher), client.ForceOwnership)
}
