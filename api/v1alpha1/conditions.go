// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

// Condition types of a subscription. The manager writes the first three, the dispatcher the last.
const (
	// ConditionReady sums up Accepted and SecretReady: the subscription takes part.
	ConditionReady = "Ready"
	// ConditionAccepted says whether the spec makes sense in this cluster, beyond what the API server checks.
	ConditionAccepted = "Accepted"
	// ConditionSecretReady says whether every Secret and ConfigMap that the subscription needs is there, may be read and
	// is usable.
	ConditionSecretReady = "SecretReady"
	// ConditionDelivering says whether deliveries reach the URL. Its observedGeneration is the generation that the
	// dispatcher routes by.
	ConditionDelivering = "Delivering"
)

// Reasons of Ready, beside those that it takes over from the condition that holds it up.
const (
	// ReasonReady goes with Ready=True.
	ReasonReady = "Ready"
)

// Reasons of Accepted. The dispatcher gives the last one for Delivering too, where it holds deliveries back for it.
const (
	// ReasonAccepted goes with Accepted=True.
	ReasonAccepted = "Accepted"
	// ReasonUnknownEventType: an entry of spec.events matches no event type that this cluster knows.
	ReasonUnknownEventType = "UnknownEventType"
	// ReasonInvalidURL: spec.url cannot be sent to as it is. The API server accepted it before it knew that rule.
	ReasonInvalidURL = "InvalidURL"
)

// Reasons of SecretReady. The dispatcher gives those of the False ones for Delivering too, where it holds deliveries
// back because of the Secret or ConfigMap.
const (
	// ReasonSecretReady goes with SecretReady=True.
	ReasonSecretReady = "SecretReady"
	// ReasonSecretNotFound: a Secret that the spec names is not there.
	ReasonSecretNotFound = "SecretNotFound"
	// ReasonSecretNotReadable: a Secret that the spec names has not opted in to being read, or holds a generated key that
	// is not this subscription's to use.
	ReasonSecretNotReadable = "SecretNotReadable"
	// ReasonSecretKeyMissing: a Secret that the spec names has no such key, or an empty one.
	ReasonSecretKeyMissing = "SecretKeyMissing"
	// ReasonSecretKeyInvalid: the key is there and cannot be used: too short or too long to sign, no header value, no
	// certificate, or one that its private key does not belong to.
	ReasonSecretKeyInvalid = "SecretKeyInvalid"
	// ReasonConfigMapNotFound: a ConfigMap that the spec names is not there, or has not opted in to being read.
	ReasonConfigMapNotFound = "ConfigMapNotFound"
	// ReasonConfigMapKeyMissing: a ConfigMap that the spec names has no such key, or an empty one.
	ReasonConfigMapKeyMissing = "ConfigMapKeyMissing"
	// ReasonConfigMapKeyInvalid: the key of the ConfigMap is there and cannot be used as what the spec wants it for.
	ReasonConfigMapKeyInvalid = "ConfigMapKeyInvalid"
	// ReasonSecretConflict: the name of the Secret to generate is taken by a Secret of somebody else.
	ReasonSecretConflict = "SecretConflict"
)

// Reasons of Delivering.
const (
	// ReasonDelivered goes with True: the last attempt was a success.
	ReasonDelivered = "Delivered"
	// ReasonNoDeliveryYet goes with Unknown: nothing was sent so far.
	ReasonNoDeliveryYet = "NoDeliveryYet"
	// ReasonPaused goes with Unknown: spec.paused is true.
	ReasonPaused = "Paused"
	// ReasonInactive goes with Unknown: spec.active is false.
	ReasonInactive = "Inactive"
	// ReasonHeld goes with False: deliveries wait for something that has no reason of its own.
	ReasonHeld = "Held"
	// ReasonEndpointFailing goes with False: the last attempts failed.
	ReasonEndpointFailing = "EndpointFailing"
	// ReasonEndpointGone goes with False: the URL answered 410 Gone.
	ReasonEndpointGone = "EndpointGone"
	// ReasonEgressDenied goes with False: the operator's egress policy does not allow the URL's address.
	ReasonEgressDenied = "EgressDenied"
	// ReasonBacklogFull goes with False: so much waits that new deliveries are recorded as failed.
	ReasonBacklogFull = "BacklogFull"
)
