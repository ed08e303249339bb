// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package event knows what a publisher posts: the envelope and its rules, the catalogue of event types, and the ids of
// events, deliveries and subscriptions.
//
// It promises that data and metadata leave exactly as they came, byte for byte, that a hostile body costs no more than
// one pass over its bytes, and that every refusal names the field and says what to do. It is pure but for LoadCatalogue
// (which reads one file), and must not know of HTTP, Redis or Kubernetes.
package event
