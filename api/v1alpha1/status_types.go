// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// WebhookSubscriptionStatus is how the subscription is doing. Two writers share it, each with its own fields: the
// manager (FieldOwnerManager) everything but delivery and the Delivering condition, which are the dispatcher's
// (FieldOwnerDispatcher).
type WebhookSubscriptionStatus struct {
	// observedGeneration is the generation of the spec that the manager last judged.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// id is the subscription's identifier in the HTTP API, in metrics and in logs (sub_…). It lasts as long as the
	// object does.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	ID string `json:"id,omitempty"`

	// host is the host of spec.url, with its port if it names one.
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	Host string `json:"host,omitempty"`

	// conditions are Ready (the summary), Accepted (the spec makes sense in this cluster), SecretReady (its Secrets can
	// be used) and Delivering (deliveries reach the URL). The observedGeneration of Delivering is the generation that
	// the dispatcher routes by.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// signingSecret names the Secret whose key signs the requests. It never holds the key itself.
	// +optional
	SigningSecret *SigningSecretStatus `json:"signingSecret,omitempty"`

	// delivery counts deliveries since the subscription was created. It follows events by some seconds.
	// +optional
	Delivery *DeliveryStatus `json:"delivery,omitempty"`
}

// SigningSecretStatus is about the key that signs the requests of a subscription.
type SigningSecretStatus struct {
	// name of the Secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// rotatedAt is when the key last took the place of another one: a generated key by rotation, a key that the spec
	// names when the manager saw the change. Absent if it never did.
	// +optional
	RotatedAt *metav1.Time `json:"rotatedAt,omitempty"`

	// previousValidUntil is until when requests are signed by the previous key too. Absent while there is none.
	// +optional
	PreviousValidUntil *metav1.Time `json:"previousValidUntil,omitempty"`
}

// DeliveryStatus counts the deliveries of a subscription over all dispatchers.
type DeliveryStatus struct {
	// successful deliveries: those that the URL answered with 2xx.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Successful int64 `json:"successful"`

	// failed deliveries: those that were given up, because their retries were used up, the URL answered that it is
	// gone, or too many were waiting already.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Failed int64 `json:"failed"`

	// pending deliveries: those that wait to be sent, the retrying ones included.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Pending int64 `json:"pending"`

	// retrying deliveries: those of the pending ones that failed at least once.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Retrying int64 `json:"retrying"`

	// consecutiveFailures are the failed attempts since the last successful one.
	// +optional
	// +kubebuilder:validation:Minimum=0
	ConsecutiveFailures int64 `json:"consecutiveFailures"`

	// lastAttemptTime is when a request was last made.
	// +optional
	LastAttemptTime *metav1.Time `json:"lastAttemptTime,omitempty"`

	// lastSuccessTime is when the URL last took a delivery.
	// +optional
	LastSuccessTime *metav1.Time `json:"lastSuccessTime,omitempty"`

	// lastStatusCode is the HTTP status of the last response. Absent if the last attempt got none.
	// +optional
	// +kubebuilder:validation:Minimum=100
	// +kubebuilder:validation:Maximum=999
	LastStatusCode int32 `json:"lastStatusCode,omitempty"`

	// lastError says why the last attempt failed, at most 1,024 characters. Absent if it did not.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	LastError string `json:"lastError,omitempty"`

	// averageLatencyMilliseconds is the mean duration of the attempts that got a response.
	// +optional
	// +kubebuilder:validation:Minimum=0
	AverageLatencyMilliseconds int64 `json:"averageLatencyMilliseconds"`
}
