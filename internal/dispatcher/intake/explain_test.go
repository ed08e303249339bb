// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nexus.io/webhooks/internal/routing"
)

func wantExplanation(t *testing.T, w *httptest.ResponseRecorder) (e explanation) {
	t.Helper()
	if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	return e
}

func TestAnExplanationSaysForEachSubscriptionWhichRuleSaysNo(t *testing.T) {
	f := newFixture(t, nil)
	all := []string{"*"}
	route := func(id string, change func(*routing.Route)) *routing.Route {
		r := &routing.Route{ID: id, Namespace: "a", Name: id[4:], Active: true, Events: all}
		change(r)
		return r
	}
	f.table = routing.Empty().With([]*routing.Route{
		route("sub_matches", func(*routing.Route) {}),
		route("sub_paused", func(r *routing.Route) { r.Paused = true }),
		route("sub_held", func(r *routing.Route) { r.Hold, r.HoldDetail = "SecretNotFound", "its Secret is not there" }),
		route("sub_active", func(r *routing.Route) { r.Active = false }),
		route("sub_events", func(r *routing.Route) { r.Events = []string{"release.*", "build.started"} }),
		route("sub_project", func(r *routing.Route) { r.Filter.Project = "OTHER" }),
		route("sub_team", func(r *routing.Route) { r.Filter.Team = "t" }),
		route("sub_severity", func(r *routing.Route) { r.Filter.Severities = []string{"high", "low"} }),
	}, nil)
	const published = `{"type":"build.failed","source":"ci","data":{"project":"NEXUS"},"metadata":{"severity":"none"}}`
	got := wantExplanation(t, f.post("/api/v1/events/explain", published))
	want := explanation{
		EventType: "build.failed", Project: "NEXUS", Severity: "none", Matched: 3, Subscriptions: []explained{
			{SubscriptionID: "sub_held", Matches: true, Waits: "its Secret is not there"},
			{SubscriptionID: "sub_matches", Matches: true},
			{SubscriptionID: "sub_paused", Matches: true, Waits: "the subscription is paused"},
			{SubscriptionID: "sub_active", Rule: "active", Reason: "the subscription is not active"},
			{SubscriptionID: "sub_events", Rule: "events", Reason: `it asks for release.*, build.started, which "build.failed" is not among`},
			{SubscriptionID: "sub_project", Rule: "project_filter", Reason: `it asks for the project OTHER, and the event's is "NEXUS"`},
			{SubscriptionID: "sub_severity", Rule: "severity_filter", Reason: `it asks for the severity high, low, and the event's is "none"`},
			{SubscriptionID: "sub_team", Rule: "team_filter", Reason: "it asks for the team t, and the event has none: neither data.team nor metadata.team is a string"},
		},
	}
	for i := range want.Subscriptions {
		s := &want.Subscriptions[i]
		s.Namespace, s.ResourceName = "a", s.SubscriptionID[4:]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(f.queue.taken) != 0 {
		t.Error("it was queued")
	}
	if matches := wantAccepted(t, f.post("/api/v1/events", published)); matches.Matched != got.Matched {
		t.Errorf("the event matched %d, not %d", matches.Matched, got.Matched)
	}
	one := wantExplanation(t, f.post("/api/v1/events/explain?subscription_id=sub_team&namespace=a", published))
	if one.Matched != 0 || len(one.Subscriptions) != 1 || one.Subscriptions[0].Rule != "team_filter" {
		t.Errorf("%+v", one)
	}
}

func TestPagesOfAnExplanation(t *testing.T) {
	f := newFixture(t, nil)
	var routes []*routing.Route
	for i := range 20 {
		r := &routing.Route{ID: fmt.Sprintf("sub_%02d", i), Active: true, Events: []string{"build.*"}}
		if i%3 == 0 {
			r.Events[0] = "release.*"
		}
		routes = append(routes, r)
	}
	f.table = routing.Empty().With(routes, nil)
	whole := wantExplanation(t, f.post("/api/v1/events/explain", buildFailed))
	for _, limit := range []int{1, 3, 7, 13, 20} {
		var parts []explained
		target := fmt.Sprintf("/api/v1/events/explain?limit=%d", limit)
		for target != "" {
			w := f.post(target, buildFailed)
			part := wantExplanation(t, w)
			if part.Matched != whole.Matched || len(part.Subscriptions) == 0 {
				t.Fatalf("%+v", part)
			}
			parts = append(parts, part.Subscriptions...)
			target, _, _ = strings.Cut(strings.TrimPrefix(w.Header().Get("Link"), "<"), ">")
		}
		if diff := cmp.Diff(whole.Subscriptions, parts); diff != "" {
			t.Errorf("limit %d (-whole +parts):\n%s", limit, diff)
		}
	}
}

func TestAnExplanationRefusesWhatPublishingDoes(t *testing.T) {
	f := newFixture(t, nil)
	for target, body := range map[string]string{
		"":                    `{"type":"build.faild","source":"ci","data":{}}`,
		"?limit=0":            buildFailed,
		"?limit=1001":         buildFailed,
		"?cursor=x":           buildFailed,
		"?subscription=sub_1": buildFailed,
		"?namespace=":         buildFailed,
	} {
		w := f.post("/api/v1/events/explain"+target, body)
		if p := wantProblem(t, w, w.Code); w.Code < 400 || w.Code > 422 || len(p.Errors) != 1 {
			t.Errorf("%s: %d %+v", target, w.Code, p)
		}
	}
	f.table = nil
	if w := f.post("/api/v1/events/explain", buildFailed); w.Code != 503 {
		t.Errorf("%d", w.Code)
	}
}
