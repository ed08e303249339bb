// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// WebhookSubscription asks for the events of this cluster at a URL: every event that matches is sent there as a signed
// HTTP POST, again and again until the URL takes it or the retries are used up, and never faster than the rate limit.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=webhooksubscriptions,singular=webhooksubscription,scope=Namespaced,shortName={whsub,whsubs},categories=nexus
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`,description="Whether the subscription is accepted and its Secrets can be used."
// +kubebuilder:printcolumn:name="Delivering",type=string,JSONPath=`.status.conditions[?(@.type=="Delivering")].status`,description="Whether deliveries reach the URL."
// +kubebuilder:printcolumn:name="Pending",type=integer,JSONPath=`.status.delivery.pending`,description="Deliveries that wait to be sent, retries included."
// +kubebuilder:printcolumn:name="Failed",type=integer,JSONPath=`.status.delivery.failed`,description="Deliveries that were given up."
// +kubebuilder:printcolumn:name="Last Success",type=date,JSONPath=`.status.delivery.lastSuccessTime`,description="When the URL last took a delivery."
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Host",type=string,priority=1,JSONPath=`.status.host`,description="The host of spec.url."
// +kubebuilder:printcolumn:name="Ready Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,description="Why the subscription is ready or not."
// +kubebuilder:printcolumn:name="Delivering Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Delivering")].reason`,description="Why deliveries reach the URL or not."
type WebhookSubscription struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec is what the owner of the subscription asks for.
	// +required
	Spec WebhookSubscriptionSpec `json:"spec"`

	// status is what the manager and the dispatcher report. Do not edit it.
	// +optional
	Status WebhookSubscriptionStatus `json:"status,omitzero"`
}

// WebhookSubscriptionList is a list of subscriptions.
//
// +kubebuilder:object:root=true
type WebhookSubscriptionList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []WebhookSubscription `json:"items"`
}

// WebhookSubscriptionSpec says which events go where, and how. A field that is left out stays out: its default is
// applied when an event is sent, so what is stored is what was applied.
type WebhookSubscriptionSpec struct {
	// url is where events are sent: an absolute http or https URL of at most 2,048 characters with a host and without
	// credentials (use headers for those). Percent-encode spaces and control characters. Plain http, and hosts that
	// resolve to private or loopback addresses, are sent to only if the operator's egress allow-list names their
	// network.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHostname() != ''",message="must be an absolute http:// or https:// URL with a host, such as https://your-app.example/webhooks/nexus",reason=FieldValueInvalid
	// +kubebuilder:validation:XValidation:rule="!self.matches('^[^/?#]*//[^/?#]*@')",message="must not contain credentials: remove the part before '@' and send credentials in spec.headers, taken from a Secret with valueFrom",reason=FieldValueInvalid
	// +kubebuilder:validation:XValidation:rule="!isURL(self) || url(self).getPort() == '' || (size(url(self).getPort()) <= 5 && int(url(self).getPort()) >= 1 && int(url(self).getPort()) <= 65535)",message="must have a port from 1 to 65535, or none",reason=FieldValueInvalid
	// +kubebuilder:validation:XValidation:rule="!self.matches('^[^/?#]*//[^/?#]*:([/?#]|$)')",message="must have a port after the ':', from 1 to 65535: add it or remove the ':'",reason=FieldValueInvalid
	// +kubebuilder:validation:XValidation:rule="!self.matches('^[^/?#]*//([.]|[^/?#]*[.][.])')",message="must have a host without empty parts: remove the dot at its start, or one of two dots in a row",reason=FieldValueInvalid
	// +kubebuilder:validation:XValidation:rule=`!self.matches(r"[\p{Z}\p{Cc}]")`,message="must not contain spaces or control characters: percent-encode them (a space is %20)",reason=FieldValueInvalid
	URL string `json:"url"`

	// displayName is a name for people, 1 to 100 characters. The HTTP API calls it "name". Default: metadata.name.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=100
	DisplayName string `json:"displayName,omitempty"`

	// description says what the subscription is for, at most 1,024 characters.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Description string `json:"description,omitempty"`

	// active says whether the subscription takes part at all. While it is false no new event is taken and nothing of
	// what waits is sent. Default: true.
	// +optional
	Active *bool `json:"active,omitempty"`

	// paused keeps events without sending them: while it is true new events are taken and wait, and they go out at the
	// rate limit once it is false again. Default: false.
	// +optional
	Paused *bool `json:"paused,omitempty"`

	// events are the types of events to send, 1 to 100 of them: an exact type (build.completed), a family (build.*),
	// or * for every type. GET /api/v1/event-types lists the types that this cluster knows.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=128
	// +kubebuilder:validation:items:XValidation:rule="self.matches('^([a-z0-9_]+[.]([a-z0-9_]+|[*])|[*])$')",message="must be an event type such as build.completed, a family such as build.*, or * for every type (lower-case letters, digits and underscores)",reason=FieldValueInvalid
	Events []string `json:"events"`

	// filter narrows the events further. An event has to pass every part of it that is set. Default: no filter.
	// +optional
	Filter *EventFilter `json:"filter,omitempty"`

	// rateLimitPerMinute is the highest number of requests that the URL gets in any 60 seconds, retries included, 1 to
	// 1,000,000. What is over it waits and is not lost. Default: the dispatcher's setting (WEBHOOK_RATE_LIMIT, 60).
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	RateLimitPerMinute *int32 `json:"rateLimitPerMinute,omitempty"`

	// timeoutSeconds bounds one attempt, from connecting to the last byte of the response, 1 to 300 seconds.
	// Default: the dispatcher's setting (WEBHOOK_TIMEOUT, 30).
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=300
	TimeoutSeconds *int32 `json:"timeoutSeconds,omitempty"`

	// maxInFlight is the highest number of requests to the URL at the same time, 1 to 1,000. Default: the dispatcher's
	// setting (WEBHOOK_MAX_IN_FLIGHT, 10).
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	MaxInFlight *int32 `json:"maxInFlight,omitempty"`

	// retry says how often and when a failed attempt is repeated. Default: the dispatcher's settings.
	// +optional
	Retry *RetryPolicy `json:"retry,omitempty"`

	// signing chooses the key that signs requests. Default: a generated key in the Secret that status.signingSecret
	// names.
	// +optional
	Signing *Signing `json:"signing,omitempty"`

	// headers are sent with every request beside the service's own, at most 32. Default: none.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:XValidation:rule="self.all(h, self.exists_one(o, o.name.lowerAscii() == h.name.lowerAscii()))",message="must not name a header twice: header names are the same whatever their case",reason=FieldValueInvalid
	Headers []Header `json:"headers,omitempty"`

	// tls adjusts how https connections to the URL are made. Default: the system's certificate authorities and no client
	// certificate.
	// +optional
	TLS *TLS `json:"tls,omitempty"`
}

// EventFilter narrows events by attributes: data.<attribute> of the event, or else metadata.<attribute>. An event that
// lacks an attribute does not pass a filter on it.
type EventFilter struct {
	// project passes only events of this project, compared exactly, 1 to 256 characters. Default: every project.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Project string `json:"project,omitempty"`

	// team passes only events of this team, compared exactly, 1 to 256 characters. Default: every team.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Team string `json:"team,omitempty"`

	// severities passes only events of one of these severities, compared exactly, 1 to 16 of them with 1 to 64
	// characters each. Default: every severity.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=64
	Severities []string `json:"severities,omitempty"`
}

// RetryPolicy is the schedule of attempts after a failed one: after the initial delay, then after twice the previous
// delay each time, up to the maximum delay.
//
// +kubebuilder:validation:XValidation:rule="!has(self.maxDelaySeconds) || !has(self.initialDelaySeconds) || self.maxDelaySeconds >= self.initialDelaySeconds",fieldPath=".maxDelaySeconds",message="must not be below initialDelaySeconds: raise maxDelaySeconds or lower initialDelaySeconds",reason=FieldValueInvalid
type RetryPolicy struct {
	// maxRetries is the number of attempts after the first one, 0 to 100. With 0 a delivery is tried once.
	// Default: the dispatcher's setting (WEBHOOK_MAX_RETRIES, 5).
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	MaxRetries *int32 `json:"maxRetries,omitempty"`

	// initialDelaySeconds is the delay before the second attempt, 1 to 86,400 seconds.
	// Default: the dispatcher's setting (WEBHOOK_INITIAL_DELAY, 5).
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=86400
	InitialDelaySeconds *int32 `json:"initialDelaySeconds,omitempty"`

	// maxDelaySeconds is the longest delay between two attempts, 1 to 86,400 seconds and never below
	// initialDelaySeconds. Default: the dispatcher's setting (WEBHOOK_MAX_DELAY, 3600), or initialDelaySeconds if the
	// spec sets that higher. Set without initialDelaySeconds, it also bounds the dispatcher's initial delay.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=86400
	MaxDelaySeconds *int32 `json:"maxDelaySeconds,omitempty"`
}

// Signing chooses the key of the HMAC-SHA256 signature that every request carries.
type Signing struct {
	// secretRef names a Secret of this namespace that holds the key. The Secret must opt in to being read, by the type
	// webhooks.nexus.io/signing-key or the label webhooks.nexus.io/readable: "true", and must not be the one that was
	// generated for another subscription. Default: the manager generates a key and keeps it in a Secret that it owns.
	// +optional
	SecretRef *SigningKeyReference `json:"secretRef,omitempty"`

	// rotation says when a generated key is replaced, and how long requests are signed by the previous key too after any
	// change of the key: a rotation, an edit of the Secret that secretRef names, or another secretRef. A key that
	// secretRef names is never replaced. To rotate a generated key now, annotate the subscription with a new value of
	// webhooks.nexus.io/rotate-requested. Default: replaced on request only, and the previous key signs for a day.
	// +optional
	Rotation *KeyRotation `json:"rotation,omitempty"`
}

// KeyRotation says when a generated key is replaced, and how long the previous key signs too.
//
// +kubebuilder:validation:XValidation:rule="!has(self.gracePeriodSeconds) || !has(self.intervalSeconds) || self.gracePeriodSeconds <= self.intervalSeconds",fieldPath=".gracePeriodSeconds",message="must not exceed intervalSeconds: lower gracePeriodSeconds or raise intervalSeconds",reason=FieldValueInvalid
type KeyRotation struct {
	// intervalSeconds is the age at which a generated key is replaced, 3,600 (an hour) to 63,072,000 seconds (two
	// years). A key that is older when this is set is replaced at once. Default: never.
	// +optional
	// +kubebuilder:validation:Minimum=3600
	// +kubebuilder:validation:Maximum=63072000
	IntervalSeconds int32 `json:"intervalSeconds,omitempty"`

	// gracePeriodSeconds is how long requests are signed by the previous key too, 0 to 2,592,000 seconds (30 days) and
	// not above intervalSeconds. With 0 a key stops at once. A change of it holds from the next change of the key on.
	// Default: 86,400 (a day), or intervalSeconds if that is shorter.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=2592000
	GracePeriodSeconds *int32 `json:"gracePeriodSeconds,omitempty"`
}

// Header is an HTTP header that is sent with every request of a subscription.
//
// +kubebuilder:validation:XValidation:rule="has(self.value) != has(self.valueFrom)",message="must have either value or valueFrom: set exactly one of them",reason=FieldValueInvalid
type Header struct {
	// name of the header, 1 to 128 characters, whatever case. The service's own headers (X-Nexus-*, Content-Type,
	// Content-Length, User-Agent, Host) and those of a single connection (Connection, Keep-Alive, Proxy-*, TE, Trailer,
	// Transfer-Encoding, Upgrade) cannot be set.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule=`self.matches(r"^[!#$%&'*+.^_\x60|~0-9A-Za-z-]+$")`,message="must be an HTTP header name such as X-Team: letters, digits and hyphens, without spaces and colons",reason=FieldValueInvalid
	// +kubebuilder:validation:XValidation:rule="!self.lowerAscii().startsWith('x-nexus-') && !(self.lowerAscii() in ['content-type', 'content-length', 'user-agent', 'host'])",message="is set by the service itself (X-Nexus-*, Content-Type, Content-Length, User-Agent, Host): choose another header name",reason=FieldValueForbidden
	// +kubebuilder:validation:XValidation:rule="!self.lowerAscii().startsWith('proxy-') && !(self.lowerAscii() in ['connection', 'keep-alive', 'te', 'trailer', 'transfer-encoding', 'upgrade'])",message="belongs to a single connection (Connection, Keep-Alive, Proxy-*, TE, Trailer, Transfer-Encoding, Upgrade): choose another header name",reason=FieldValueForbidden
	Name string `json:"name"`

	// value of the header, at most 4,096 characters on one line. Everybody who may read the subscription sees it: use
	// valueFrom for credentials.
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:XValidation:rule=`!self.matches(r"[\x00-\x08\x0a-\x1f\x7f]")`,message="must be one line without control characters: remove newlines and the like",reason=FieldValueInvalid
	Value *string `json:"value,omitempty"`

	// valueFrom takes the value of the header from elsewhere.
	// +optional
	ValueFrom *HeaderValueSource `json:"valueFrom,omitempty"`
}

// HeaderValueSource says where a header's value comes from.
//
// +kubebuilder:validation:XValidation:rule="has(self.configMapKeyRef) != has(self.secretKeyRef)",message="must have either secretKeyRef or configMapKeyRef: set exactly one of them",reason=FieldValueInvalid
type HeaderValueSource struct {
	// secretKeyRef takes the value from a key of a Secret in this namespace. The Secret must opt in to being read, by
	// the label webhooks.nexus.io/readable: "true" or the type webhooks.nexus.io/signing-key. A generated signing key is
	// never sent.
	// +optional
	SecretKeyRef SecretKeyReference `json:"secretKeyRef,omitzero"`

	// configMapKeyRef takes the value from a key of a ConfigMap in this namespace that opts in to being read, by the
	// label webhooks.nexus.io/readable: "true".
	// +optional
	ConfigMapKeyRef *ConfigMapKeyReference `json:"configMapKeyRef,omitempty"`
}

// TLS adjusts how https connections are made. What it names is picked up when it changes, without a restart; a request
// that is under way goes on with what it began with.
type TLS struct {
	// caBundle names the certificate authorities (PEM) that may vouch for the URL's host, instead of the system's.
	// Default: the system's certificate authorities.
	// +optional
	CABundle *CABundleSource `json:"caBundle,omitempty"`

	// clientCertificate is shown to the URL's host where it asks for one. Default: none.
	// +optional
	ClientCertificate *ClientCertificateSource `json:"clientCertificate,omitempty"`
}

// CABundleSource says where PEM certificates come from. Certificates are not secret: a ConfigMap will do.
//
// +kubebuilder:validation:XValidation:rule="has(self.configMapKeyRef) != has(self.secretKeyRef)",message="must have either configMapKeyRef or secretKeyRef: set exactly one of them",reason=FieldValueInvalid
type CABundleSource struct {
	// configMapKeyRef takes the certificates from a key of a ConfigMap in this namespace that opts in to being read, by
	// the label webhooks.nexus.io/readable: "true".
	// +optional
	ConfigMapKeyRef *ConfigMapKeyReference `json:"configMapKeyRef,omitempty"`

	// secretKeyRef takes the certificates from a key of a Secret in this namespace that opts in to being read, by the
	// label webhooks.nexus.io/readable: "true".
	// +optional
	SecretKeyRef *SecretKeyReference `json:"secretKeyRef,omitempty"`
}

// ClientCertificateSource says where a client certificate comes from.
type ClientCertificateSource struct {
	// secretRef names a Secret in this namespace with the keys tls.crt (the certificate, and those that lead to its
	// authority) and tls.key, as Secrets of type kubernetes.io/tls have them. It must opt in to being read, by the label
	// webhooks.nexus.io/readable: "true".
	// +required
	SecretRef SecretReference `json:"secretRef"`
}

// SecretReference names a Secret of the subscription's namespace.
type SecretReference struct {
	// name of the Secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Subdomain().validate(self).hasValue()",message="must be the name of a Secret: lower-case letters, digits, hyphens and dots",reason=FieldValueInvalid
	Name string `json:"name"`
}

// SigningKeyReference names a signing key in a Secret of the subscription's namespace.
type SigningKeyReference struct {
	// name of the Secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Subdomain().validate(self).hasValue()",message="must be the name of a Secret: lower-case letters, digits, hyphens and dots",reason=FieldValueInvalid
	Name string `json:"name"`

	// key within the Secret; its value signs, byte for byte, and is 16 to 1,024 bytes long. Default: secret.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[-._a-zA-Z0-9]+$')",message="must be a key of a Secret: letters, digits, hyphens, underscores and dots",reason=FieldValueInvalid
	Key string `json:"key,omitempty"`
}

// SecretKeyReference names a key in a Secret of the subscription's namespace.
type SecretKeyReference struct {
	// name of the Secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Subdomain().validate(self).hasValue()",message="must be the name of a Secret: lower-case letters, digits, hyphens and dots",reason=FieldValueInvalid
	Name string `json:"name"`

	// key within the Secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[-._a-zA-Z0-9]+$')",message="must be a key of a Secret: letters, digits, hyphens, underscores and dots",reason=FieldValueInvalid
	Key string `json:"key"`
}

// ConfigMapKeyReference names a key in a ConfigMap of the subscription's namespace.
type ConfigMapKeyReference struct {
	// name of the ConfigMap.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Subdomain().validate(self).hasValue()",message="must be the name of a ConfigMap: lower-case letters, digits, hyphens and dots",reason=FieldValueInvalid
	Name string `json:"name"`

	// key within the ConfigMap.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[-._a-zA-Z0-9]+$')",message="must be a key of a ConfigMap: letters, digits, hyphens, underscores and dots",reason=FieldValueInvalid
	Key string `json:"key"`
}
