// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package controllers is the manager: it judges subscriptions beyond what the API server can, provides the Secret that
// signs their requests, and says in the status whether they are ready.
//
// It promises that what it writes depends only on what the Kubernetes API holds, that a status which would not change
// is not written, that a Secret which it does not own is never written, and that no byte of a Secret's data appears in
// a status, an event, a log or an error.
//
// It must not know the dispatcher: no queue, no HTTP, nothing of internal/dispatcher.
package controllers
