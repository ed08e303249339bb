// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package contract

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestWhatIsNotDocumentedIsFound(t *testing.T) {
	c, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	const (
		js      = "application/json"
		problem = "application/problem+json"
		gone    = `{"type":"about:blank","title":"Not Found","status":404,"detail":"d"}`
		deleted = `{"status":"deleted","subscription_id":"sub_a"}`
	)
	for name, x := range map[string]struct {
		method, path, sent string
		status             int
		media, answer      string
		want               string
	}{
		"as documented":           {"DELETE", "/api/v1/subscriptions/sub_a", "", 200, js, deleted, ""},
		"a refusal":               {"DELETE", "/api/v1/subscriptions/sub_a", "", 404, problem, gone, ""},
		"nothing there":           {"GET", "/nothing", "", 404, problem, gone, ""},
		"no such operation":       {"PUT", "/api/v1/subscriptions/sub_a", "", 200, js, deleted, "is not documented"},
		"another status":          {"DELETE", "/api/v1/subscriptions/sub_a", "", 202, js, deleted, "the status is not documented"},
		"another media type":      {"DELETE", "/api/v1/subscriptions/sub_a", "", 200, "text/plain", deleted, "text/plain, which is not"},
		"a field too many":        {"DELETE", "/api/v1/subscriptions/sub_a", "", 200, js, `{"status":"deleted","subscription_id":"s","x":1}`, "'x' not allowed"},
		"a field too few":         {"DELETE", "/api/v1/subscriptions/sub_a", "", 200, js, `{"status":"deleted"}`, "missing property 'subscription_id'"},
		"another type":            {"DELETE", "/api/v1/subscriptions/sub_a", "", 200, js, `{"status":"deleted","subscription_id":1}`, "want string"},
		"no Retry-After":          {"DELETE", "/api/v1/subscriptions/sub_a", "", 503, problem, gone, "no Retry-After"},
		"a body that it refuses":  {"POST", "/api/v1/verify-signature", `{"payloads":"x"}`, 200, js, `{"valid":true,"timestamp":"","signature_provided":"","reason":""}`, "'payloads' not allowed"},
		"a literal path is first": {"POST", "/api/v1/events/batch", `[]`, 202, js, `{"total_events":0,"results":[]}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(x.method, x.path, nil)
			r.Header.Set("Content-Type", js)
			got := ""
			if err := c.Check(r, []byte(x.sent), x.status, http.Header{"Content-Type": {x.media}}, []byte(x.answer)); err != nil {
				got = err.Error()
			}
			if (x.want == "") != (got == "") || !strings.Contains(got, x.want) {
				t.Errorf("%q, want %q", got, x.want)
			}
		})
	}
}
