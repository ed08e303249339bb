// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Kind is the resource's kind, as manifests and owner references spell it.
const Kind = "WebhookSubscription"

var (
	// GroupVersion is the API group and version of this package.
	GroupVersion = schema.GroupVersion{Group: "webhooks.nexus.io", Version: "v1alpha1"}

	// SubscriptionResource is the plural under which the API server serves subscriptions.
	SubscriptionResource = GroupVersion.WithResource("webhooksubscriptions")

	// SubscriptionKind is the kind with its group and version.
	SubscriptionKind = GroupVersion.WithKind(Kind)

	// SchemeBuilder collects the functions that register this package's types.
	SchemeBuilder = runtime.NewSchemeBuilder(addKnownTypes)

	// AddToScheme registers this package's types with a scheme.
	AddToScheme = SchemeBuilder.AddToScheme
)

func addKnownTypes(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion, &WebhookSubscription{}, &WebhookSubscriptionList{})
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
