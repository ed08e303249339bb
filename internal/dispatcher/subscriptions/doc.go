// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package subscriptions is the HTTP API of subscriptions: another way to write the WebhookSubscription resources that
// kubectl writes, and to read them.
//
// It promises that what it makes and what kubectl makes is the same, that reading asks nothing of the Kubernetes API,
// that a client whose write was answered finds it in the next answer and the next event of this replica, and that a key
// is shown twice only: to who creates a subscription and to who rotates its key. It writes no Secret.
// It knows nothing of how events are taken and deliveries are sent.
package subscriptions
