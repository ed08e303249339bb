// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package subscriptions

import (
	"encoding/json"
	"strings"
	"testing"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/dispatcher/rest"
)

// What a body asks for would not be done, so these calls take none: somebody might take {"force":true} for ?force=true.
func TestCallsWithoutABodyRefuseOne(t *testing.T) {
	s := sub("a", "one", 1, "*")
	cache := &seen{subs: []*v1alpha1.WebhookSubscription{s}}
	at := path + "/" + idOf(s)
	for _, c := range [][2]string{
		{"DELETE", at}, {"POST", at + "/pause"}, {"POST", at + "/resume"}, {"POST", at + "/toggle"},
		{"POST", at + "/rotate-secret"},
	} {
		for body, field := range map[string]string{`{"force":true}`: "force", `[]`: "", `x`: "", strings.Repeat("x", 1<<20): ""} {
			w := ask(cache, rest.Anybody{}, c[0], c[1], body)
			var p rest.Problem
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != 422 || !strings.Contains(p.Detail, "takes no body") {
				t.Errorf("%s %s with %.20s: %d %s", c[0], c[1], body, w.Code, w.Body)
			}
			if field != "" && (len(p.Errors) != 1 || p.Errors[0].Field != field) {
				t.Errorf("%s %s: %+v, want %s", c[0], c[1], p.Errors, field)
			}
		}
		for _, body := range []string{"", "{}", " \n"} { // which ask for nothing
			if w := ask(cache, grants{}, c[0], c[1], body); w.Code != 403 {
				t.Errorf("%s %s with %q: %d %s", c[0], c[1], body, w.Code, w.Body)
			}
		}
	}
}
