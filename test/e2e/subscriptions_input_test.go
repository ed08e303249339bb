// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"nexus.io/webhooks/api/v1alpha1"
)

// problem is a refusal.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Errors []struct {
		Field   string `json:"field"`
		Message string `json:"message"`
	} `json:"errors"`
}

// refuses wants a problem of the status that names the field, "" for one that is not about a field.
func (r reply) refuses(t *testing.T, what string, status int, field string) {
	t.Helper()
	var p problem
	if err := json.Unmarshal([]byte(r.text), &p); err != nil || r.status != status || p.Status != status ||
		p.Title == "" || p.Detail == "" || r.header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%.120s: %d %.300s, want %d", what, r.status, r.text, status)
		return
	}
	for _, e := range p.Errors {
		if e.Field == field && e.Message != "" {
			return
		}
	}
	if field != "" || len(p.Errors) > 0 {
		t.Errorf("%.120s: %+v, want one of %q", what, p.Errors, field)
	}
}

// mistake is a value of a field of the body that must be refused; the field is the one that the answer names.
type mistake struct{ body, field string }

// mistakes of single fields, by what is wrong. %s is left to the other fields that a subscription needs.
func mistakes() []mistake {
	long := func(n int) string { return strings.Repeat("x", n) }
	list := func(n int, item string) string {
		return "[" + strings.TrimSuffix(strings.Repeat(item+",", n), ",") + "]"
	}
	many := func(n int) string {
		var items []string
		for i := range n {
			items = append(items, fmt.Sprintf(`{"name":"X-%d","value":"v"}`, i))
		}
		return "[" + strings.Join(items, ",") + "]"
	}
	return []mistake{
		{`"name":7`, "name"}, {`"name":""`, "name"}, {`"name":" \t"`, "name"}, {`"name":"a\u0000b"`, "name"}, {`"name":"` + long(101) + `"`, "name"}, {`"name":{}`, "name"},
		{`"url":7`, "url"}, {`"url":""`, "url"}, {`"url":null`, "url"}, {`"url":"/relative"`, "url"}, {`"url":"ftp://a.example"`, "url"},
		{`"url":"https://"`, "url"}, {`"url":"https://u:p@a.example"`, "url"}, {`"url":"https://a.example:99999"`, "url"},
		{`"url":"https://a.example/ b"`, "url"}, {`"url":"https://a.example/` + long(2048) + `"`, "url"},
		{`"events":"build.failed"`, "events"}, {`"events":[]`, "events"}, {`"events":null`, "events"}, {`"events":[7]`, "events[0]"},
		{`"events":["*",null]`, "events[1]"}, {`"events":["build.faild"]`, "events[0]"}, {`"events":["*","nope.*"]`, "events[1]"},
		{`"events":["Build.Failed"]`, "events[0]"}, {`"events":[""]`, "events[0]"}, {`"events":["*","*"]`, "events[1]"},
		{`"events":["` + long(129) + `.a"]`, "events[0]"}, {`"events":` + list(101, `"*"`), "events"},
		{`"project_filter":7`, "project_filter"}, {`"project_filter":""`, "project_filter"}, {`"project_filter":"` + long(257) + `"`, "project_filter"},
		{`"team_filter":[]`, "team_filter"}, {`"team_filter":""`, "team_filter"}, {`"team_filter":"` + long(257) + `"`, "team_filter"},
		{`"severity_filter":"high"`, "severity_filter"}, {`"severity_filter":[]`, "severity_filter"}, {`"severity_filter":[""]`, "severity_filter[0]"},
		{`"severity_filter":["` + long(65) + `"]`, "severity_filter[0]"}, {`"severity_filter":["a","a"]`, "severity_filter[1]"},
		{`"severity_filter":` + list(17, `"a"`), "severity_filter"},
		{`"description":7`, "description"}, {`"description":"` + long(1025) + `"`, "description"},
		{`"rate_limit":"60"`, "rate_limit"}, {`"rate_limit":0`, "rate_limit"}, {`"rate_limit":-1`, "rate_limit"}, {`"rate_limit":1.5`, "rate_limit"},
		{`"rate_limit":1000001`, "rate_limit"}, {`"rate_limit":1e400`, "rate_limit"}, {`"rate_limit":99999999999999999999`, "rate_limit"},
		{`"active":"yes"`, "active"}, {`"active":1`, "active"}, {`"paused":"no"`, "paused"},
		{`"timeout_seconds":0`, "timeout_seconds"}, {`"timeout_seconds":301`, "timeout_seconds"}, {`"timeout_seconds":"30s"`, "timeout_seconds"},
		{`"max_in_flight":0`, "max_in_flight"}, {`"max_in_flight":1001`, "max_in_flight"}, {`"max_in_flight":true`, "max_in_flight"},
		{`"retry":7`, "retry"}, {`"retry":{"max_retries":-1}`, "retry.max_retries"}, {`"retry":{"max_retries":101}`, "retry.max_retries"},
		{`"retry":{"initial_delay_seconds":0}`, "retry.initial_delay_seconds"}, {`"retry":{"max_delay_seconds":86401}`, "retry.max_delay_seconds"},
		{`"retry":{"initial_delay_seconds":9,"max_delay_seconds":8}`, "retry.max_delay_seconds"}, {`"retry":{"maxRetries":1}`, "retry.maxRetries"},
		{`"signing":[]`, "signing"}, {`"signing":{"secret_ref":{}}`, "signing.secret_ref.name"}, {`"signing":{"secret_ref":{"name":"A_b"}}`, "signing.secret_ref.name"},
		{`"signing":{"secret_ref":{"name":"a","key":"/"}}`, "signing.secret_ref.key"}, {`"signing":{"secret":"mine"}`, "signing.secret"},
		{`"signing":{"rotation":{"interval_seconds":1}}`, "signing.rotation.interval_seconds"},
		{`"signing":{"rotation":{"interval_seconds":3600,"grace_period_seconds":3601}}`, "signing.rotation.grace_period_seconds"},
		{`"headers":{}`, "headers"}, {`"headers":[{}]`, "headers[0].name"}, {`"headers":[{"name":"X-A"}]`, "headers[0]"},
		{`"headers":[{"name":"X A","value":"v"}]`, "headers[0].name"}, {`"headers":[{"name":"Host","value":"v"}]`, "headers[0].name"},
		{`"headers":[{"name":"X-Nexus-Event","value":"v"}]`, "headers[0].name"}, {`"headers":[{"name":"X-A","value":"a\nb"}]`, "headers[0].value"},
		{`"headers":[{"name":"X-A","value":7}]`, "headers[0].value"}, {`"headers":[{"name":"X-A","valueFrom":{}}]`, "headers[0].valueFrom"},
		{`"headers":[{"name":"X-A","value_from":{"secret_key_ref":{"name":"s"}}}]`, "headers[0].value_from.secret_key_ref.key"},
		{`"headers":` + many(33), "headers"}, {`"headers":[{"name":"X-A","value":"` + long(4097) + `"}]`, "headers[0].value"},
		{`"tls":7`, "tls"}, {`"tls":{"ca_bundle":{}}`, "tls.ca_bundle"}, {`"tls":{"client_certificate":{"secret_ref":{}}}`, "tls.client_certificate.secret_ref.name"},
		{`"project_fliter":"a"`, "project_fliter"}, {`"id":"sub_1"`, "id"}, {`"secret":"mine"`, "secret"}, {`"displayName":"a"`, "displayName"},
	}
}

// with makes a whole subscription with the mistake in it.
func (m mistake) with() string {
	rest := map[string]string{"name": `"name":"bad"`, "url": `"url":"https://a.example"`, "events": `"events":["*"]`}
	name, _, _ := strings.Cut(strings.TrimPrefix(m.body, `"`), `"`)
	delete(rest, name)
	parts := []string{m.body}
	for _, part := range rest {
		parts = append(parts, part)
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func TestBadSubscriptionsAreRefusedAndNothingIsHalfDone(t *testing.T) {
	s := start(t, 1)
	target := "/api/v1/subscriptions?namespace=" + s.Namespace
	good := made(t, s, `{"name":"good","url":"https://a.example","events":["build.*"]}`)
	before := resourceOf(t, s, good)
	at := "/api/v1/subscriptions/" + good.ID
	for _, m := range mistakes() {
		call(t, s, 0, "POST", target, m.with()).refuses(t, "POST "+m.body, 422, m.field)
		call(t, s, 0, "PATCH", at, "{"+m.body+"}").refuses(t, "PATCH "+m.body, 422, m.field)
	}
	for field, body := range map[string]string{
		"name": `{"url":"https://a.example","events":["*"]}`, "url": `{"name":"bad","events":["*"]}`,
		"events": `{"name":"bad","url":"https://a.example"}`,
	} {
		call(t, s, 0, "POST", target, body).refuses(t, "without "+field, 422, field)
	}
	for body, status := range map[string]int{
		`{"name":`: 400, `name=bad`: 400, "{\"name\":\"\xff\"}": 400, `{} {}`: 400, `[]`: 422, `null`: 422, `"x"`: 422,
		strings.Repeat("[", 20_000): 400, `{"name":"` + strings.Repeat("x", 300<<10) + `"}`: 413,
	} {
		field := ""
		call(t, s, 0, "POST", target, body).refuses(t, body, status, field)
		call(t, s, 0, "PATCH", at, body).refuses(t, body, status, field)
	}
	call(t, s, 0, "POST", target, `{"name":"a","name":"b","url":"https://a.example","events":["*"]}`).refuses(t, "a field twice", 422, "name")
	if diff := cmp.Diff(before.Spec, resourceOf(t, s, good).Spec); diff != "" {
		t.Errorf("the subscription changed (-before +after):\n%s", diff)
	}
	list := &v1alpha1.WebhookSubscriptionList{}
	if err := s.Client.List(t.Context(), list, client.InNamespace(s.Namespace)); err != nil || len(list.Items) != 1 {
		t.Errorf("%d subscriptions are there, want 1 (%v)", len(list.Items), err)
	}
}

func TestBadParametersOfSubscriptionsAreRefused(t *testing.T) {
	s := start(t, 1)
	good := made(t, s, `{"name":"good","url":"https://a.example","events":["build.*"]}`)
	at := "/api/v1/subscriptions/" + good.ID
	draft := `{"name":"bad","url":"https://a.example","events":["*"]}`
	for _, c := range []struct {
		method, target, body string
		status               int
		field                string
	}{
		{"GET", "/api/v1/subscriptions?active_only=perhaps", "", 400, "active_only"},
		{"GET", "/api/v1/subscriptions?active_only=", "", 400, "active_only"},
		{"GET", "/api/v1/subscriptions?active_only=true&active_only=false", "", 422, "active_only"},
		{"GET", "/api/v1/subscriptions?event_type=build.faild", "", 400, "event_type"},
		{"GET", "/api/v1/subscriptions?event_type=" + strings.Repeat("x", 5000), "", 400, "event_type"},
		{"GET", "/api/v1/subscriptions?event_type=%ff", "", 400, "event_type"},
		{"GET", "/api/v1/subscriptions?namespace=A_B", "", 400, "namespace"},
		{"GET", "/api/v1/subscriptions?namespace=..%2Fx", "", 400, "namespace"},
		{"GET", "/api/v1/subscriptions?limit=0", "", 400, "limit"},
		{"GET", "/api/v1/subscriptions?limit=1001", "", 400, "limit"},
		{"GET", "/api/v1/subscriptions?limit=ten", "", 400, "limit"},
		{"GET", "/api/v1/subscriptions?limit=99999999999999999999", "", 400, "limit"},
		{"GET", "/api/v1/subscriptions?cursor=abc", "", 400, "cursor"},
		{"GET", "/api/v1/subscriptions?cursor=" + strings.Repeat("A", 5000), "", 400, "cursor"},
		{"GET", "/api/v1/subscriptions?activeonly=true", "", 422, "activeonly"},
		{"GET", "/api/v1/subscriptions?%zz", "", 400, ""},
		{"GET", at + "?namespace=a", "", 422, "namespace"},
		{"GET", "/api/v1/subscriptions/sub_000000000000", "", 404, ""},
		{"GET", "/api/v1/subscriptions/" + strings.Repeat("x", 5000), "", 404, ""},
		{"GET", "/api/v1/subscriptions/%ff%00", "", 404, ""},
		{"GET", "/api/v1/subscriptions/a%2Fb", "", 404, ""},
		{"PUT", at, draft, 405, ""},
		{"POST", "/api/v1/subscriptions?namespace=A_B", draft, 400, "namespace"},
		{"POST", "/api/v1/subscriptions?namespace=", draft, 400, "namespace"},
		{"POST", "/api/v1/subscriptions?namespace=no-such-namespace", draft, 404, ""},
		{"POST", "/api/v1/subscriptions?name=a", draft, 422, "name"},
		{"POST", "/api/v1/subscriptions", "", 415, ""},
		{"PATCH", at + "?force=maybe", "{}", 400, "force"},
		{"PATCH", at + "?forse=true", "{}", 422, "forse"},
		{"DELETE", at + "?force=maybe", "", 400, "force"},
		{"DELETE", at + "?froce=true", "", 422, "froce"},
		{"POST", at + "/pause?force=maybe", "", 400, "force"},
		{"POST", at + "/resume?x=1", "", 422, "x"},
		{"POST", at + "/toggle?force=", "", 400, "force"},
		{"POST", at + "/rotate-secret?force=true", "", 422, "force"},
		{"POST", at + "/test?x=1", "", 422, "x"},
	} {
		call(t, s, 0, c.method, c.target, c.body).refuses(t, c.method+" "+c.target, c.status, c.field)
	}
	call(t, s, 0, "GET", at, "").want(t, 200)
}
