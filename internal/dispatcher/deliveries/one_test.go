// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package deliveries

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"nexus.io/webhooks/internal/dispatcher/rest"
)

// What a body asks for would not be done, so these calls take none.
func TestARetryAndACancellationOfOneRefuseABody(t *testing.T) {
	r := newRig(t, caller{"*"}, "waits/a", "paused/a")
	ids := r.publish("waits", "paused")
	r.become(ids[0], "retrying")
	call := func(target, body string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		r.handler.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path+"/"+target, strings.NewReader(body)))
		return w
	}
	for _, target := range []string{ids[0] + "/retry", ids[1] + "/cancel"} {
		for body, field := range map[string]string{`{"dry_run":true}`: "dry_run", `[]`: "", `x`: ""} {
			w := call(target, body)
			var p rest.Problem
			if err := unmarshal(w, &p); err != nil || w.Code != 422 || !strings.Contains(p.Detail, "takes no body") {
				t.Errorf("%s with %s: %d %s", target, body, w.Code, w.Body)
			}
			if field != "" && (len(p.Errors) != 1 || p.Errors[0].Field != field) {
				t.Errorf("%s: %+v, want %s", target, p.Errors, field)
			}
		}
	}
	r.become(ids[0], "retrying")
	r.become(ids[1], "pending")
	for target, want := range map[string]int{ids[0] + "/retry": 202, ids[1] + "/cancel": 200} {
		if w := call(target, " {} "); w.Code != want {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
}
