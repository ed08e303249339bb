// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package subscriptions

import (
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/event"
)

// Subscription is a subscription as the API shows it, never with its secret but for the one answer to its creation.
type Subscription struct {
	ID             string   `json:"id"`
	Name           string   `json:"name"`
	Namespace      string   `json:"namespace"`
	ResourceName   string   `json:"resource_name"`
	URL            string   `json:"url"`
	Secret         string   `json:"secret,omitempty"`
	Events         []string `json:"events"`
	ProjectFilter  *string  `json:"project_filter"`
	TeamFilter     *string  `json:"team_filter"`
	SeverityFilter []string `json:"severity_filter"` // null: every severity
	Description    *string  `json:"description"`
	RateLimit      int      `json:"rate_limit"` // that holds, also where the spec leaves it out
	Active         bool     `json:"active"`
	Paused         bool     `json:"paused"`

	TimeoutSeconds *int32 `json:"timeout_seconds,omitempty"`
	MaxInFlight    *int32 `json:"max_in_flight,omitempty"`
	Retry          any    `json:"retry,omitempty"`
	Signing        any    `json:"signing,omitempty"`
	Headers        any    `json:"headers,omitempty"`
	TLS            any    `json:"tls,omitempty"`

	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"` // of the last change of anything but the status

	Total        int64      `json:"total_deliveries"`
	Successful   int64      `json:"successful_deliveries"`
	Failed       int64      `json:"failed_deliveries"`
	Pending      int64      `json:"pending_deliveries"`
	LastDelivery *time.Time `json:"last_delivery_at"`
	LastStatus   *string    `json:"last_delivery_status"` // success or failed
	Health       string     `json:"health"`               // one of the constants below
}

// What a subscription's health is, by its spec and conditions; the first that holds.
const (
	HealthInactive = "inactive"  // active is false
	HealthNotReady = "not_ready" // Ready is False: an event type or a Secret stands in the way
	HealthPaused   = "paused"    // paused is true
	HealthFailing  = "failing"   // Delivering is False: the endpoint fails, or is not allowed
	HealthHealthy  = "healthy"   // Delivering is True
	HealthUnknown  = "unknown"   // nothing was delivered yet
)

func (h *handler) show(sub *v1alpha1.WebhookSubscription) *Subscription {
	spec := &sub.Spec
	s := &Subscription{
		ID: idOf(sub), Name: nameOf(sub), Namespace: sub.Namespace, ResourceName: sub.Name,
		URL: spec.URL, Events: spec.Events, Description: given(spec.Description),
		RateLimit: h.RateLimit, Active: sub.IsActive(), Paused: sub.IsPaused(),
		TimeoutSeconds: spec.TimeoutSeconds, MaxInFlight: spec.MaxInFlight,
		CreatedAt: sub.CreationTimestamp.UTC(), UpdatedAt: updatedAt(sub), Health: health(sub),
	}
	if spec.RateLimitPerMinute != nil {
		s.RateLimit = int(*spec.RateLimitPerMinute)
	}
	if f := spec.Filter; f != nil {
		s.ProjectFilter, s.TeamFilter, s.SeverityFilter = given(f.Project), given(f.Team), f.Severities
	}
	if spec.Retry != nil || spec.Signing != nil || spec.Headers != nil || spec.TLS != nil {
		if fields, err := fieldsOf(spec); err == nil { // a spec has JSON
			s.Retry, s.Signing, s.Headers, s.TLS = fields["retry"], fields["signing"], fields["headers"], fields["tls"]
		}
	}
	s.count(sub.Status.Delivery)
	return s
}

func (s *Subscription) count(d *v1alpha1.DeliveryStatus) {
	if d == nil {
		return
	}
	s.Successful, s.Failed, s.Pending = d.Successful, d.Failed, d.Pending
	s.Total = d.Successful + d.Failed + d.Pending
	if d.LastAttemptTime == nil {
		return
	}
	at, status := d.LastAttemptTime.UTC(), "success"
	if d.ConsecutiveFailures > 0 {
		status = "failed"
	}
	s.LastDelivery, s.LastStatus = &at, &status
}

func given(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

func idOf(sub *v1alpha1.WebhookSubscription) string { return event.SubscriptionID(string(sub.UID)) }

func nameOf(sub *v1alpha1.WebhookSubscription) string {
	if sub.Spec.DisplayName != "" {
		return sub.Spec.DisplayName
	}
	return sub.Name
}

// updatedAt is when anything but the status was last written, as far as managed fields tell.
func updatedAt(sub *v1alpha1.WebhookSubscription) time.Time {
	last := sub.CreationTimestamp.Time
	for _, m := range sub.ManagedFields {
		if m.Subresource == "" && m.Time != nil && m.Time.After(last) {
			last = m.Time.Time
		}
	}
	return last.UTC()
}

func health(sub *v1alpha1.WebhookSubscription) string {
	conditions := sub.Status.Conditions
	delivering := meta.FindStatusCondition(conditions, v1alpha1.ConditionDelivering)
	switch {
	case !sub.IsActive():
		return HealthInactive
	case meta.IsStatusConditionFalse(conditions, v1alpha1.ConditionReady):
		return HealthNotReady
	case sub.IsPaused():
		return HealthPaused
	case delivering == nil || delivering.Status == metav1.ConditionUnknown:
		return HealthUnknown
	case delivering.Status == metav1.ConditionTrue:
		return HealthHealthy
	default:
		return HealthFailing
	}
}
