// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"nexus.io/webhooks/internal/dispatcher/rest"
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

// lister may list subscriptions of namespace a and do nothing else.
type lister struct{}

func (l lister) Authenticate(*http.Request) (rest.Caller, *rest.Problem) { return l, nil }

func (lister) May(_ context.Context, do rest.Action) error {
	if do == (rest.Action{Verb: "list", Resource: "webhooksubscriptions", Namespace: "a"}) {
		return nil
	}
	return &rest.Denied{Reason: "no"}
}

func TestAnExplanationShowsWhatItsCallerMayList(t *testing.T) {
	table := routing.Empty().With([]*routing.Route{
		{ID: "sub_a", Namespace: "a", Active: true, Events: []string{"*"}},
		{ID: "sub_b", Namespace: "b", Active: true, Events: []string{"*"}},
		{ID: "sub_c", Namespace: "b", Active: true, Events: []string{"release.*"}},
	}, nil)
	routes, err := New(Options{
		Publisher: &memoryQueue{}, Table: func() *routing.Table { return table }, Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	h := rest.Handler(routes, rest.HandlerOptions{Authenticator: lister{}})
	explain := func(query string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodPost, explainPath+query, strings.NewReader(plain))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	for _, query := range []string{"", "?namespace=a", "?subscription_id=sub_a"} {
		got := wantExplanation(t, explain(query))
		if got.Matched != 1 || len(got.Subscriptions) != 1 || got.Subscriptions[0].SubscriptionID != "sub_a" {
			t.Errorf("%s: %+v", query, got)
		}
	}
	if got := wantExplanation(t, explain("?subscription_id=sub_b")); got.Matched != 0 || len(got.Subscriptions) != 0 {
		t.Errorf("somebody else's: %+v", got)
	}
	wantProblem(t, explain("?namespace=b"), http.StatusForbidden)
}

const (
	explainPath = "/api/v1/events/explain"
	plain       = `{"type":"build.failed","source":"ci","data":{}}`
)

// wantNamed wants a problem of the status that names the field and no other, "" for one that is not about a field.
func wantNamed(t *testing.T, what string, w *httptest.ResponseRecorder, status int, field string) {
	t.Helper()
	what = what[:min(len(what), 100)]
	p := wantProblem(t, w, status)
	if p.Detail == "" || field == "" && len(p.Errors) > 0 ||
		field != "" && (len(p.Errors) != 1 || p.Errors[0].Field != field || p.Errors[0].Message == "") {
		t.Errorf("%s: %+v, want one mistake of %q", what, p, field)
	}
	if w.Body.Len() > 4096 {
		t.Errorf("%s: the answer has %d bytes", what, w.Body.Len())
	}
}

// Each parameter with nothing, a wrong type, an extreme, something huge, invalid UTF-8, and twice; and one too many.
func TestBadParametersOfAnExplanationAreNamed(t *testing.T) {
	f := newFixture(t, nil)
	everywhere := []string{"", strings.Repeat("x", 5000), "%ff", "%zz", "a;b"}
	for name, values := range map[string][]string{
		"subscription_id": nil, "namespace": nil, "limit": {"x", "0", "-1", "1001", "1.5", "99999999999999999999"},
		"cursor": {"x", "e30x", rest.Cursor(map[string]int{"id": 1}), rest.Cursor(map[string]string{"other": "x"})},
	} {
		for _, value := range slices.Concat(values, everywhere) {
			wantNamed(t, name+"="+value, f.post(explainPath+"?"+name+"="+value, plain), 400, name)
		}
		wantNamed(t, name+" twice", f.post(explainPath+"?"+name+"=1&"+name+"=1", plain), 422, name)
	}
	for query, field := range map[string]string{"subscription=a": "subscription", "Limit=1": "Limit", "=1": `""`, "%ff=1": "?"} {
		wantNamed(t, query, f.post(explainPath+"?"+query, plain), 422, field)
	}
}

// Each field in the same way.
func TestBadEventsToExplainAreNamed(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Limits.MaxEventBytes = 64 << 10 })
	long := func(n int) string { return `"` + strings.Repeat("x", n) + `"` }
	notTexts := []string{"7", "true", "[]", "{}", `""`}
	for name, values := range map[string][]string{
		"type":     append([]string{"null", `"build"`, `"build.*"`, `"build.faild"`, `"a.b.c"`, `"\ud800.a"`, `"a.` + long(127)[1:], long(60_000)}, notTexts...),
		"source":   append([]string{"null", long(257), long(60_000)}, notTexts...),
		"data":     {"null", "7", `"x"`, "[]", "true", strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100)},
		"metadata": {"7", `"x"`, "[]", "false", strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100)},
		"id":       append([]string{`"a b"`, `"ü"`, long(129), long(60_000)}, notTexts...),
		"timestamp": append([]string{`"yesterday"`, `"2025-11-30"`, `"2025-13-01T00:00:00Z"`, `"99999-01-01T00:00:00Z"`,
			`"0000-12-31T00:00:00Z"`, long(60_000)}, notTexts...),
		"tpye": {"7"}, "Type": {`"build.failed"`},
	} {
		given := func(value string) string { return eventWith(name, value) }
		for _, value := range values {
			wantNamed(t, name+" "+value, f.post(explainPath, given(value)), 422, name)
		}
		if name == "tpye" || name == "Type" {
			continue
		}
		wantNamed(t, name+" not text", f.post(explainPath, given("\"\xff\"")), 400, "")
		value := `{"a":1}`
		if name != "data" && name != "metadata" {
			value = map[string]string{"type": `"build.failed"`, "source": `"ci"`, "id": `"1"`, "timestamp": `"2025-11-30T10:30:00Z"`}[name]
		}
		twice := given(value)
		wantNamed(t, name+" twice", f.post(explainPath, twice[:len(twice)-1]+`,"`+name+`":`+value+"}"), 422, name)
	}
	for _, name := range []string{"type", "source", "data"} {
		wantNamed(t, "without "+name, f.post(explainPath, eventWith(name, "")), 422, name)
	}
	wantNamed(t, "a field without a name", f.post(explainPath, eventWith("", "7")), 422, `""`)
	for body, status := range map[string]int{
		"": 400, `{"type":`: 400, "type=build.failed": 400, plain + "{}": 400, strings.Repeat("x", 100_000): 413,
	} {
		wantNamed(t, body, f.post(explainPath, body), status, "")
	}
	wantNamed(t, "a form", f.post(explainPath, plain, "Content-Type", "application/x-www-form-urlencoded"), 415, "")
	if got := wantExplanation(t, f.post(explainPath, plain)); got.Matched != 1 || len(f.queue.calls) != 0 {
		t.Errorf("%+v, and %d calls of the queue", got, len(f.queue.calls))
	}
}

// eventWith is an event with a field of this value, or without it.
func eventWith(name, value string) string {
	fields := map[string]string{"type": `"build.failed"`, "source": `"ci"`, "data": "{}"}
	fields[name] = value
	var parts []string
	for name, value := range fields {
		if value != "" {
			parts = append(parts, `"`+name+`":`+value)
		}
	}
	return "{" + strings.Join(parts, ",") + "}"
}
