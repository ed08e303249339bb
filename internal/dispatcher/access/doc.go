// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package access says who calls the HTTP API and what they may do, as the Kubernetes API has it: a bearer token is
// looked at by a TokenReview, an action by a SubjectAccessReview.
//
// It promises that a caller who is known costs a look-up and no review; that a right which was revoked ends within
// Options.Fresh of the Kubernetes API knowing it; that while the Kubernetes API is away those whom it knew go on for
// Options.Outage at most, and never past the end of their token, and nobody else; and that however many tokens come,
// memory and the reviews that they cause are bounded. It keeps no token: only a hash tells one from another.
// It must not know what the actions do.
package access
