// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package brief

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/test/kube"
	"nexus.io/webhooks/test/postgrestest"
)

// The document holds for whoever tries the service out, and for whoever runs it with all that it has.
func TestTheUsersDocument(t *testing.T) {
	for name, start := range map[string]func(*testing.T) *world{"open": newWorld, "guarded": newGuardedWorld} {
		t.Run(name, func(t *testing.T) { start(t).holds(t) }) // one after the other: they share an API server
	}
}

func (w *world) holds(t *testing.T) {
	w.startsAlone(t)
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
	if w.postgres != "" {
		t.Run("what was delivered is kept", w.deliveriesAreKept)
	}
	if !t.Failed() {
		w.allTaken(t)
	}
}

// startsAlone wants no subscriptions left of another world, whose events would go there.
func (w *world) startsAlone(t *testing.T) {
	t.Helper()
	var left v1alpha1.WebhookSubscriptionList
	if err := w.stack.Client.List(t.Context(), &left); err != nil || len(left.Items) > 0 {
		t.Fatalf("%d subscriptions are left: %v", len(left.Items), err)
	}
}

// newGuardedWorld has callers who may do what the roles of config/rbac allow and no more, and a PostgreSQL. Redis keeps
// one ended delivery of each subscription, so that the others are found in PostgreSQL alone.
func newGuardedWorld(t *testing.T) *world {
	url, err := postgrestest.ForTest(t).Database(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w := startWorld(t, "--auth=kubernetes", "--postgres-url="+url, "--history-max-per-subscription=1")
	w.postgres = url
	const user, operator = "brief-user", "brief-operator"
	w.token = cluster.Token(t.Context(), t, namespace, user, audience)
	w.operator = cluster.Token(t.Context(), t, namespace, operator, audience)
	cluster.Grant(t.Context(), t, "webhooksubscription_admin_role", namespace, kube.Subject(namespace, user))
	cluster.Grant(t.Context(), t, "event_publisher_role", "", kube.Subject(namespace, user))
	cluster.Grant(t.Context(), t, "webhooksubscription_viewer_role", "", kube.Subject(namespace, operator))
	return w
}

// deliveriesAreKept looks for all that was published and has ended.
func (w *world) deliveriesAreKept(t *testing.T) {
	conn, err := pgx.Connect(t.Context(), w.postgres)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	if len(w.ended) < 10 {
		t.Errorf("only %d deliveries are known to have ended", len(w.ended))
	}
	recent := w.call(t, http.MethodGet, "/api/v1/deliveries?recent=true&limit=1000", "")
	forgotten := 0
	for id, status := range w.ended {
		if !strings.Contains(recent.text, id) {
			forgotten++
		}
		eventually(t, "delivery "+id+" is copied", func() error {
			var kept string
			err := conn.QueryRow(t.Context(), "SELECT status FROM nexus_webhooks.deliveries WHERE id = $1", id).Scan(&kept)
			if err == nil && kept != status {
				err = fmt.Errorf("it is %s there", kept)
			}
			return err
		})
		got := w.call(t, http.MethodGet, "/api/v1/deliveries/"+id, "").object(t, http.StatusOK)
		if attempts, _ := got["attempts"].([]any); got["status"] != status || len(attempts) == 0 {
			t.Errorf("delivery %s is shown as %v, it ended as %s", id, got, status)
		}
	}
	if forgotten == 0 {
		t.Error("Redis still has all of them, so nothing was read from PostgreSQL")
	}
}
