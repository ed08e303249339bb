// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package v1alpha1 is the WebhookSubscription resource of the API group webhooks.nexus.io: its Go types, the rules that
// the API server enforces on it, and the words (condition types, reasons, labels) that the manager, the dispatcher and
// users agree on.
//
// It promises that an object which the API server accepted needs no further check of its shape, and that a field which
// a user left out stays out. It imports k8s.io/apimachinery only, and must not know who reads or writes the resource.
//
// +kubebuilder:object:generate=true
// +groupName=webhooks.nexus.io
package v1alpha1
