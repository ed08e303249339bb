// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package deliveries

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/dispatcher/rest"
)

// send posts a body and returns the answer.
func (r *rig) send(target, body string) *httptest.ResponseRecorder {
	r.t.Helper()
	request := httptest.NewRequest(http.MethodPost, target, strings.NewReader(body))
	request.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	r.handler.ServeHTTP(w, request)
	return w
}

// operate begins an operation and waits until it has finished.
func (r *rig) operate(target, body string) (o operationAnswer) {
	r.t.Helper()
	w := r.send(target, body)
	var b begun
	if err := unmarshal(w, &b); err != nil || w.Code != http.StatusAccepted {
		r.t.Fatalf("%s %s answered %d %s", target, body, w.Code, w.Body)
	}
	for deadline := time.Now().Add(20 * time.Second); o.FinishedAt == nil; {
		if status, _ := r.call("GET", operationsPath+"/"+b.OperationID, &o); status != http.StatusOK || time.Now().After(deadline) {
			r.t.Fatalf("%d %+v", status, o)
		}
	}
	if o.OperationID != b.OperationID || o.Matched != b.Matched || o.Status != finished {
		r.t.Errorf("%+v, begun as %+v", o, b)
	}
	return o
}

func TestAllThatMatchAreRetriedOrCanceled(t *testing.T) {
	r := newRig(t, caller{"*"}, "ok/a", "fails/a", "waits/a", "paused/a")
	all := r.publish("ok", "fails", "waits", "paused")
	for i, status := range []string{"success", "failed", "retrying", "pending"} {
		r.become(all[i], status)
	}
	if w := r.send(path+"/cancel", `{"status": "pending", "dry_run": true}`); w.Code != http.StatusOK ||
		strings.TrimSpace(w.Body.String()) != `{"matched":1}` {
		t.Errorf("a dry run answered %d %s", w.Code, w.Body)
	}
	if d := r.become(all[3], "pending"); d.CompletedAt != nil {
		t.Errorf("a dry run left %+v", d)
	}
	if o := r.operate(path+"/cancel", `{"status": "pending"}`); o.Matched != 1 || o.Done != 1 || o.Action != "cancel" {
		t.Errorf("%+v", o)
	}
	r.become(all[3], "canceled")
	r.become(all[2], "retrying")
	if o := r.operate(path+"/cancel", `{"event_type": "build.completed"}`); o.Done != 1 {
		t.Errorf("without a status what is unfinished: %+v", o)
	}
	r.become(all[2], "canceled")
	if o := r.operate(path+"/retry", `{"subscription_id": "fails"}`); o.Matched != 1 || o.Done != 1 || o.Skipped != 0 {
		t.Errorf("%+v", o)
	}
	eventuallyAttempts(r, all[1], "failed", 2)
	if o := r.operate(path+"/retry", `{"status": "failed", "until": "2020-01-01T00:00:00Z"}`); o.Matched != 0 {
		t.Errorf("of another time: %+v", o)
	}
}

func TestAnOperationIsOfWhatItsCallerMayChange(t *testing.T) {
	r := newRig(t, caller{"team-a"}, "fails-a/team-a", "fails-b/team-b")
	ids := r.publish("fails-a", "fails-b")
	admin := r.handlerFor(caller{"*"})
	for _, id := range ids {
		admin.become(id, "failed")
	}
	if w := r.send(path+"/retry", `{"subscription_id": "fails-b"}`); w.Code != http.StatusForbidden {
		t.Errorf("of another namespace: %d %s", w.Code, w.Body)
	}
	if w := r.send(path+"/retry?namespace=team-b", `{"status": "failed"}`); w.Code != http.StatusForbidden {
		t.Errorf("in another namespace: %d %s", w.Code, w.Body)
	}
	if o := r.operate(path+"/retry", `{"status": "failed"}`); o.Matched != 1 {
		t.Errorf("of all namespaces it takes what the caller may: %+v", o)
	}
	eventuallyAttempts(admin, ids[0], "failed", 2)
	o := admin.operate(path+"/retry", `{"status": "failed"}`)
	if o.Matched != 2 {
		t.Errorf("%+v", o)
	}
	if status, _ := r.call("GET", operationsPath+"/"+o.OperationID, nil); status != http.StatusForbidden {
		t.Errorf("one that has deliveries of another namespace was shown: %d", status)
	}
}

// Each endpoint takes its own verb in the delivery's namespace, and no other.
func TestEachEndpointTakesItsVerb(t *testing.T) {
	admin := newRig(t, caller{"*"}, "fails/a")
	id := admin.publish("fails")[0]
	admin.become(id, "failed")
	past := admin.operate(path+"/retry", `{"status": "failed", "limit": 1}`)
	admin.become(id, "failed")
	filter := `{"subscription_id": "fails", "dry_run": true}`
	for _, endpoint := range []struct{ method, target, body, verb string }{
		{"GET", path + "?namespace=a", "", "list"},
		{"GET", path + "/pending?namespace=a", "", "list"},
		{"GET", path + "/" + id, "", "get"},
		{"POST", path + "/" + id + "/retry", "", "create"},
		{"POST", path + "/" + id + "/cancel", "", "create"},
		{"POST", path + "/retry", filter, "create"},
		{"POST", path + "/cancel", filter, "create"},
		{"GET", operationsPath + "/" + past.OperationID, "", "get"},
	} {
		var others caller
		for _, verb := range []string{"get", "list", "watch", "create", "update", "patch", "delete"} {
			if verb != endpoint.verb {
				others = append(others, verb+" a")
			}
		}
		status := func(who caller) int {
			r := admin.handlerFor(who)
			if endpoint.body != "" {
				return r.send(endpoint.target, endpoint.body).Code
			}
			code, _ := r.call(endpoint.method, endpoint.target, nil)
			return code
		}
		if code := status(others); code != http.StatusForbidden {
			t.Errorf("%s %s answered %d to one who may all but %s", endpoint.method, endpoint.target, code, endpoint.verb)
		}
		if code := status(caller{endpoint.verb + " a"}); code == http.StatusForbidden {
			t.Errorf("%s %s refused one who may %s", endpoint.method, endpoint.target, endpoint.verb)
		}
	}
}

// holding is a store whose Choose waits until it may leave.
type holding struct {
	Store
	entered, leave chan struct{}
}

func (h *holding) Choose(context.Context, queue.Choice, func(_, _ string) (string, bool)) (queue.Chosen, error) {
	h.entered <- struct{}{}
	<-h.leave
	return nil, nil
}

func TestFewLookForDeliveriesAtOnce(t *testing.T) {
	r := newRig(t, caller{"*"})
	store := &holding{Store: r.q, entered: make(chan struct{}), leave: make(chan struct{})}
	r.handler = rest.Handler(New(store, nil, r.routes, slog.Default()), rest.HandlerOptions{Authenticator: caller{"*"}})
	dry := func() *httptest.ResponseRecorder {
		return r.send(path+"/retry", `{"status": "failed", "dry_run": true}`)
	}
	answers := make(chan int, mostChoosing)
	for range mostChoosing {
		go func() { answers <- dry().Code }()
		<-store.entered
	}
	if w := dry(); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
		t.Errorf("one more was answered %d %s", w.Code, w.Body)
	}
	close(store.leave)
	for range mostChoosing {
		if code := <-answers; code != http.StatusOK {
			t.Errorf("one of the first was answered %d", code)
		}
	}
}

// An operation over very many namespaces names none of them: who looks at it must be allowed to in all.
func TestAnOperationOverManyNamespacesIsForThoseWhoMaySeeAll(t *testing.T) {
	var chosen queue.Chosen
	for i := range maxNamespaces {
		chosen = append(chosen, queue.ChosenDelivery{Namespace: fmt.Sprint("n", i)})
	}
	if got := namespacesOf(chosen); len(got) != maxNamespaces {
		t.Errorf("%d namespaces are named", len(got))
	}
	chosen = append(chosen, queue.ChosenDelivery{Namespace: "one-more"})
	if got := namespacesOf(chosen); !slices.Equal(got, []string{""}) {
		t.Errorf("%d namespaces are named", len(got))
	}
}

func TestBadFiltersAreNamed(t *testing.T) {
	r := newRig(t, caller{"*"})
	huge := strings.Repeat("x", 20<<10)
	for body, want := range map[string]string{
		`{}`:                      "status",
		`{"limit": 5}`:            "status",
		`{"subscription_id": ""}`: "subscription_id",
		`{"subscription_id": 5}`:  "subscription_id",
		`{"subscription_id": "` + huge[:300] + `"}`: "subscription_id",
		`{"event_type": "build.*"}`:                 "event_type",
		`{"event_type": ["build.completed"]}`:       "event_type",
		`{"status": "pending"}`:                     "status", // only what has ended, or failed once, is retried
		`{"status": true}`:                          "status",
		`{"since": "yesterday"}`:                    "since",
		`{"until": 5}`:                              "until",
		`{"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}`: "until",
		`{"status": "failed", "limit": 0}`:                                   "limit",
		`{"status": "failed", "limit": 100001}`:                              "limit",
		`{"status": "failed", "limit": "5"}`:                                 "limit",
		`{"status": "failed", "limit": 1e99}`:                                "limit",
		`{"status": "failed", "dry_run": "yes"}`:                             "dry_run",
		`{"status": "failed", "dryrun": true}`:                               "dryrun",
	} {
		r.named(path+"/retry", body, 422, want)
	}
	r.named(path+"/cancel", `{"status": "failed"}`, 422, "status")
	r.named(path+"/retry?limit=5", `{"status": "failed"}`, 422, "limit")
	for body, status := range map[string]int{
		``: 400, `[]`: 422, `{"status": "failed"`: 400, "{\"status\": \"\xff\"}": 400, `{"status": "` + huge + `"}`: 413,
	} {
		if w := r.send(path+"/retry", body); w.Code != status || w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%.40q answered %d %s", body, w.Code, w.Body)
		}
	}
	for _, id := range []string{"no", "op_", "op_" + strings.Repeat("0", 32)} {
		if status, _ := r.call("GET", operationsPath+"/"+id, nil); status != http.StatusNotFound {
			t.Errorf("an operation %q that there is not answered %d", id, status)
		}
	}
}

// named holds the answer to a body to a problem that names the field and says more.
func (r *rig) named(target, body string, status int, field string) {
	r.t.Helper()
	w := r.send(target, body)
	var p rest.Problem
	if err := unmarshal(w, &p); err != nil || w.Code != status {
		r.t.Errorf("%.80s answered %d %s", body, w.Code, w.Body)
		return
	}
	if len(p.Errors) != 1 || p.Errors[0].Field != field || p.Errors[0].Message == "" {
		r.t.Errorf("%.80s named %s", body, fmt.Sprint(p.Errors))
	}
}
