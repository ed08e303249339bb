// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/test/stack"
)

// An installation's own event type is as good as a built-in one, once both programs have the file that names it.
// Not parallel: the managers of other tests see the same subscriptions, and do not know the type.
func TestEventTypesOfAFileAreServed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "event-types.yaml")
	file := "eventTypes:\n- {type: order.paid, category: Order, description: An order was paid}\n"
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := []string{"--event-types-file=" + path}
	s := stack.Start(t, stack.Options{Cluster: cluster, Dispatchers: 1, Flags: flags, ManagerFlags: flags})

	listed := call(t, s, 0, http.MethodGet, "/api/v1/event-types", "")
	listed.want(t, http.StatusOK)
	for _, want := range []string{`"order.paid"`, `"An order was paid"`, `"build.completed"`} {
		if !strings.Contains(listed.text, want) {
			t.Errorf("%s is not in the list: %s", want, listed.text)
		}
	}
	subscribe(t, s, "orders", "/ok/orders", func(spec *v1alpha1.WebhookSubscriptionSpec) {
		spec.Events = []string{"order.paid"}
		spec.Filter = nil
	})
	const event = `{"id":"order-1","type":"order.paid","source":"shop","data":{"total":"12.50"}}`
	call(t, s, 0, http.MethodPost, "/api/v1/events", event).want(t, http.StatusAccepted)
	if arrival := waitFor(t, s, "/ok/orders", 1)[0]; arrival.EventID != "order-1" {
		t.Errorf("event %s arrived, want order-1", arrival.EventID)
	}
}
