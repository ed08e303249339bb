// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package brief

import "testing"

func TestTheUsersDocument(t *testing.T) {
	w := newWorld(t)
	retried := w.startRetries(t) // looked at later, since it takes its time

	t.Run("the quick start works", w.quickStart)
	t.Run("its functions verify what is delivered", w.functionsVerify)
	t.Run("the handler receives", w.handlerReceives)
	t.Run("the idempotent handler handles a delivery once", w.idempotentHandlerHandlesOnce)
	t.Run("the integrations are called with what they need", w.integrationsAreCalled)
	t.Run("headers and payload are as shown", w.deliveryIsAsShown)
	t.Run("every call of the reference is answered", w.callsAreAnswered)
	t.Run("the signature can be debugged", w.signatureCanBeDebugged)
	t.Run("event types are those of its tables", w.eventTypes)
	t.Run("the rate limit is kept by default", w.rateLimitIsKept)
	t.Run("retries come by its table", func(t *testing.T) { w.retriesComeByTheTable(t, retried) })
	t.Run("the statistics have its fields", w.statistics)
	t.Run("metrics have its names and labels", w.metrics)
	t.Run("settings have its names and defaults", w.settings)
	if !t.Failed() {
		w.allTaken(t)
	}
}
