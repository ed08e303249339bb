// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/dispatcher/rest"
	"nexus.io/webhooks/internal/routing"
)

type store struct {
	totals queue.Totals
	err    error
}

func (s *store) Totals(context.Context) (queue.Totals, error) { return s.totals, s.err }

// caller may list the deliveries of one namespace, "" for all.
type caller struct{ namespace string }

func (c caller) Authenticate(*http.Request) (rest.Caller, *rest.Problem) { return c, nil }

func (c caller) May(_ context.Context, do rest.Action) error {
	if do == (rest.Action{
		Verb: "list", Resource: "webhooksubscriptions", Subresource: "deliveries", Namespace: c.namespace,
	}) {
		return nil
	}
	return &rest.Denied{Reason: "not there"}
}

func call(s *store, table *routing.Table, c caller, target string) *httptest.ResponseRecorder {
	handler := rest.Handler(New(s, func() *routing.Table { return table }, slog.Default()),
		rest.HandlerOptions{Authenticator: c})
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
	return w
}

const path = "/api/v1/stats"

func TestStatisticsAreThoseOfTheUsersDocument(t *testing.T) {
	table := routing.Empty().With([]*routing.Route{{ID: "a", Active: true}, {ID: "b"}}, nil)
	w := call(&store{totals: queue.Totals{
		Events: 5, Successful: 7, Failed: 2, Canceled: 1, Retrying: 3, AverageLatency: 245500 * time.Microsecond,
		EventsByType: map[string]int64{"build.completed": 5},
	}}, table, caller{}, path)
	want := `{"total_subscriptions":2,"active_subscriptions":1,"total_events_processed":5,"successful_deliveries":7,` +
		`"failed_deliveries":2,"pending_retries":3,"avg_delivery_time_ms":245.5,"events_by_type":{"build.completed":5}}`
	if diff := cmp.Diff(want, w.Body.String()); w.Code != http.StatusOK || diff != "" {
		t.Errorf("%d (-want +got):\n%s", w.Code, diff)
	}
}

func TestStatisticsAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		store  store
		table  *routing.Table
		caller caller
		target string
		status int
	}{
		"to who sees one namespace only":     {store{}, routing.Empty(), caller{"team-a"}, path, 403},
		"before the subscriptions are read":  {store{}, nil, caller{}, path, 503},
		"while Redis does not answer":        {store{err: errors.New("away")}, routing.Empty(), caller{}, path, 503},
		"with a parameter that there is not": {store{}, routing.Empty(), caller{}, path + "?namespace=a", 422},
		"with a query that is none":          {store{}, routing.Empty(), caller{}, path + "?%zz", 400},
	} {
		w := call(&c.store, c.table, c.caller, c.target)
		if w.Code != c.status || w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
		if (w.Header().Get("Retry-After") != "") != (c.status == 503) {
			t.Errorf("%s: Retry-After is %q", name, w.Header().Get("Retry-After"))
		}
	}
}
