// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

// Annotations of a Namespace that grant events to its subscriptions, where the dispatcher asks for grants
// (--require-namespace-grant). Each is a list by commas, or * for all. An event must pass every one that is there;
// where neither is, no event passes.
const (
	// AnnotationAllowedProjects names projects whose events the Namespace's subscriptions may get.
	AnnotationAllowedProjects = "webhooks.nexus.io/allowed-projects"
	// AnnotationAllowedTeams names teams whose events the Namespace's subscriptions may get.
	AnnotationAllowedTeams = "webhooks.nexus.io/allowed-teams"
)

// ReasonNotGranted goes with Delivering=False: the dispatcher asks for grants, and those of the Namespace leave none of
// the events that the subscription asks for.
const ReasonNotGranted = "NotGranted"
