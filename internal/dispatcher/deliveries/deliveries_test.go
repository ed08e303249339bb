// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package deliveries

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"nexus.io/webhooks/internal/dispatcher/history"
	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/dispatcher/rest"
	"nexus.io/webhooks/internal/routing"
	"nexus.io/webhooks/test/redistest"
)

// consumer ends each delivery as its subscription's name says: ok, fails or waits (fails, and is tried in an hour).
type consumer struct{ q *queue.Queue }

func (c *consumer) Room() (deliveries, bytes int) { return 100, 1 << 20 }

func (c *consumer) Take(leases []queue.Lease) {
	for _, l := range leases {
		s := queue.Settlement{Lease: l, Result: queue.Done, StatusCode: 200}
		switch {
		case strings.HasPrefix(l.SubscriptionID, "fails"):
			s.Result, s.StatusCode, s.Reason = queue.Fail, 410, "gone"
		case strings.HasPrefix(l.SubscriptionID, "waits"):
			s.Result, s.StatusCode, s.Reason, s.RetryAfter = queue.Retry, 500, "server_error", time.Hour
		}
		s.Attempt = history.AppendAttempt(nil, &history.Attempt{
			Number: l.Attempt, StartedAt: time.UnixMilli(1_700_000_000_000), Duration: 7 * time.Millisecond,
			StatusCode: s.StatusCode, Reason: s.Reason, ResponseBody: []byte("answer"), RemoteAddress: "192.0.2.1:443",
		}, "https://a.example/x", []history.Header{{Name: "X-Nexus-Delivery", Value: l.DeliveryID}})
		c.q.Settle(s)
	}
}

// table has a subscription for each name and namespace, as in ok/team-a.
type table map[string]*routing.Route

func (t table) Route(id string) *routing.Route { return t[id] }

func (t table) All() iter.Seq[*routing.Route] { return maps.Values(t) }

type rig struct {
	t       *testing.T
	q       *queue.Queue
	client  queue.Client
	routes  table
	handler http.Handler
	made    int
}

// caller may do everything in these namespaces, * being all; "get a" is one verb in namespace a.
type caller []string

func (c caller) Authenticate(*http.Request) (rest.Caller, *rest.Problem) { return c, nil }

func (c caller) May(_ context.Context, do rest.Action) error {
	if do.Resource == "webhooksubscriptions" && do.Subresource == "deliveries" &&
		(slices.Contains(c, do.Namespace) || slices.Contains(c, "*") || slices.Contains(c, do.Verb+" "+do.Namespace)) {
		return nil
	}
	return &rest.Denied{Reason: "may not " + do.Verb + " in " + do.Namespace}
}

func newRig(t *testing.T, who caller, subs ...string) *rig {
	t.Helper()
	client, err := queue.Connect(redistest.ForTest(t).URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	q, err := queue.New(queue.Options{Client: client, Dispatcher: "d", Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- q.Run(ctx, &consumer{q}) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	routes := table{}
	for _, sub := range subs {
		id, namespace, _ := strings.Cut(sub, "/")
		routes[id] = &routing.Route{ID: id, Namespace: namespace}
		if err := q.Configure(t.Context(), []queue.Limits{{
			SubscriptionID: id, Namespace: namespace, Generation: 1, RatePerMinute: 1000, MaxInFlight: 10, MaxBacklog: 100,
			Active: true, Paused: strings.HasPrefix(id, "paused"),
		}}); err != nil {
			t.Fatal(err)
		}
	}
	return (&rig{t: t, q: q, client: client, routes: routes}).handlerFor(who)
}

// handlerFor is the same rig for another caller.
func (r *rig) handlerFor(who caller) *rig {
	other := *r
	other.handler = rest.Handler(New(r.q, nil, r.routes, slog.Default()), rest.HandlerOptions{Authenticator: who})
	return &other
}

func unmarshal(w *httptest.ResponseRecorder, into any) error {
	return json.Unmarshal(w.Body.Bytes(), into)
}

// publish returns the ids of an event's deliveries, which are greater than all before.
func (r *rig) publish(subs ...string) (ids []string) {
	r.t.Helper()
	r.made++
	p := queue.Publication{EventID: fmt.Sprintf("evt_%d", r.made), EventType: "build.completed", Body: []byte(`{"n":1}`)}
	for _, sub := range subs {
		id := uuid.Must(uuid.NewV7()).String()
		ids = append(ids, id)
		p.Targets = append(p.Targets, queue.Target{SubscriptionID: sub, DeliveryID: id})
	}
	if _, err := r.q.Publish(r.t.Context(), []queue.Publication{p}); err != nil {
		r.t.Fatal(err)
	}
	return ids
}

// call returns the status and the answer.
func (r *rig) call(method, target string, into any) (int, http.Header) {
	r.t.Helper()
	w := httptest.NewRecorder()
	r.handler.ServeHTTP(w, httptest.NewRequest(method, target, nil))
	if into != nil {
		if err := json.Unmarshal(w.Body.Bytes(), into); err != nil {
			r.t.Fatalf("%s: %v", w.Body, err)
		}
	}
	return w.Code, w.Header()
}

func (r *rig) list(query string) (ids []string) {
	r.t.Helper()
	var page []Delivery
	if status, _ := r.call("GET", path+query, &page); status != http.StatusOK {
		r.t.Fatalf("%s answered %d", query, status)
	}
	for _, d := range page {
		ids = append(ids, d.ID)
	}
	return ids
}

func (r *rig) become(id, status string) Delivery {
	r.t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		var d Delivery
		if code, _ := r.call("GET", path+"/"+id, &d); code == http.StatusOK && d.Status == status {
			return d
		}
		select {
		case <-deadline:
			r.t.Fatalf("delivery %s is %s, not %s", id, d.Status, status)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func TestTheListHasWhatWaitsAndWhatHasEndedNewestFirst(t *testing.T) {
	r := newRig(t, caller{"*"}, "ok/a", "fails/a", "waits/a", "paused/a")
	all := r.publish("ok", "fails", "waits", "paused")
	for i, status := range []string{"success", "failed", "retrying", "pending"} {
		r.become(all[i], status)
	}
	newest := slices.Clone(all)
	slices.Reverse(newest)
	for query, want := range map[string][]string{
		"":                             newest,
		"?status=success":              {all[0]},
		"?status=failed":               {all[1]},
		"?status=retrying":             {all[2]},
		"?status=pending":              {all[3]},
		"?status=canceled":             nil,
		"?subscription_id=waits":       {all[2]},
		"?subscription_id=fails":       {all[1]},
		"?event_id=evt_1":              newest,
		"?event_id=evt_2":              nil,
		"?event_type=build.completed":  newest,
		"?event_type=build.failed":     nil,
		"?since=2020-01-01T00:00:00Z":  newest,
		"?until=2020-01-01T00:00:00Z":  nil,
		"?subscription_id=no&limit=10": nil,
	} {
		if diff := cmp.Diff(want, r.list(query)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", query, diff)
		}
	}
	var tried []Delivery
	r.call("GET", path+"?status=retrying", &tried)
	if d := tried[0]; *d.ResponseStatus != 500 || *d.ResponseBody != "answer" || d.AttemptNumber != 1 || d.RequestURL == nil {
		t.Errorf("one that is tried again shows %+v of its last attempt", d)
	}
	var paged []string
	for target := path + "?limit=1"; target != ""; {
		var page []Delivery
		_, header := r.call("GET", target, &page)
		for _, d := range page {
			paged = append(paged, d.ID)
		}
		target, _, _ = strings.Cut(strings.TrimPrefix(header.Get("Link"), "<"), ">")
	}
	if diff := cmp.Diff(newest, paged); diff != "" {
		t.Errorf("page by page (-want +got):\n%s", diff)
	}
}

func TestADeliveryIsShownWithItsAttempts(t *testing.T) {
	r := newRig(t, caller{"*"}, "fails/a")
	id := r.publish("fails")[0]
	d := r.become(id, "failed")
	if d.CompletedAt == nil || d.CreatedAt == nil || d.NextRetryAt != nil {
		t.Errorf("times %v %v %v", d.CreatedAt, d.CompletedAt, d.NextRetryAt)
	}
	d.CompletedAt, d.CreatedAt = nil, nil
	address, body, answer, remote, gone, ms := "https://a.example/x", `{"n":1}`, "answer", "192.0.2.1:443", "gone", int64(7)
	status, headers := 410, map[string]string{"X-Nexus-Delivery": id}
	want := Delivery{
		ID: id, SubscriptionID: "fails", EventID: "evt_1", EventType: "build.completed", Status: "failed", AttemptNumber: 1,
		RequestURL: &address, RequestHeaders: headers, RequestBody: &body, ResponseStatus: &status, ResponseBody: &answer,
		ResponseTime: &ms, Attempts: []Attempt{{
			Number: 1, StartedAt: time.UnixMilli(1_700_000_000_000).UTC(), Duration: 7, Status: &status, Reason: &gone,
			ResponseBody: &answer, RemoteAddress: &remote, RequestHeaders: headers,
		}},
	}
	if diff := cmp.Diff(want, d, cmp.AllowUnexported(Delivery{}, queue.Body{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestPendingIsSoonestFirst(t *testing.T) {
	r := newRig(t, caller{"*"}, "waits/a", "paused/a", "ok/a")
	later := r.publish("waits", "ok")
	r.become(later[0], "retrying")
	r.become(later[1], "success")
	soon := r.publish("paused")
	var got pendingAnswer
	r.call("GET", path+"/pending", &got)
	if got.Count != 2 || got.Pending[0].DeliveryID != soon[0] || got.Pending[1].DeliveryID != later[0] {
		t.Fatalf("%+v", got)
	}
	if d := time.Until(got.Pending[1].ScheduledAt); got.Pending[1].Attempt != 2 || d < 50*time.Minute || d > time.Hour {
		t.Errorf("attempt %d in %v", got.Pending[1].Attempt, d)
	}
}

func TestRetryAndCancel(t *testing.T) {
	r := newRig(t, caller{"*"}, "ok/a", "fails/a", "waits/a")
	ids := r.publish("ok", "fails", "waits")
	post := func(id, do string, want int) changed {
		t.Helper()
		var c changed
		var into any = &c
		if want >= http.StatusBadRequest {
			into = nil
		}
		if status, _ := r.call("POST", path+"/"+id+"/"+do, into); status != want {
			t.Fatalf("%s %s answered %d", do, id, status)
		}
		return c
	}
	r.become(ids[0], "success")
	again := post(ids[0], "retry", http.StatusAccepted)
	if again.DeliveryID == ids[0] || again.ReplayOf != ids[0] {
		t.Errorf("a repetition of %s is %+v", ids[0], again)
	}
	if d := r.become(again.DeliveryID, "success"); d.ReplayOf == nil || *d.ReplayOf != ids[0] {
		t.Errorf("replay of %v", d.ReplayOf)
	}
	for n := 1; n <= 3; n++ {
		eventuallyAttempts(r, ids[1], "failed", n)
		if n < 3 {
			post(ids[1], "retry", http.StatusAccepted)
		}
	}
	eventuallyAttempts(r, ids[2], "retrying", 1)
	post(ids[2], "retry", http.StatusAccepted)
	eventuallyAttempts(r, ids[2], "retrying", 2)
	if c := post(ids[2], "cancel", http.StatusOK); c.Status != "canceled" {
		t.Errorf("%+v", c)
	}
	eventuallyAttempts(r, ids[2], "canceled", 2)
	post(ids[1], "cancel", http.StatusConflict)
	post("0199aa00-0000-7000-8000-000000000001", "retry", http.StatusNotFound)
	post("nonsense", "cancel", http.StatusNotFound)
	if found, _, err := r.q.Audit(t.Context()); err != nil || len(found) > 0 {
		t.Errorf("audit: %v %v", found, err)
	}
}

func eventuallyAttempts(r *rig, id, status string, attempts int) {
	r.t.Helper()
	deadline := time.After(10 * time.Second)
	for d := r.become(id, status); len(d.Attempts) != attempts; d = r.become(id, status) {
		select {
		case <-deadline:
			r.t.Fatalf("%s has %d attempts, not %d", id, len(d.Attempts), attempts)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func TestACallerSeesWhatItMaySee(t *testing.T) {
	r := newRig(t, caller{"a"}, "ok-a/a", "ok-b/b", "paused-a/a", "paused-b/b")
	ids := r.publish("ok-a", "ok-b", "paused-a", "paused-b")
	r.become(ids[0], "success")
	if diff := cmp.Diff([]string{ids[2], ids[0]}, r.list("")); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	var waits pendingAnswer
	r.call("GET", path+"/pending", &waits)
	if waits.Count != 1 || waits.Pending[0].DeliveryID != ids[2] {
		t.Errorf("pending %+v", waits)
	}
	for _, target := range []string{
		"GET " + path + "/" + ids[1], "GET " + path + "/" + ids[3], "POST " + path + "/" + ids[1] + "/retry",
		"POST " + path + "/" + ids[3] + "/cancel", "GET " + path + "?namespace=b", "GET " + path + "/pending?namespace=b",
	} {
		method, target, _ := strings.Cut(target, " ")
		if status, _ := r.call(method, target, nil); status != http.StatusForbidden {
			t.Errorf("%s %s answered %d", method, target, status)
		}
	}
}

func TestAnEventIsShownWithItsDeliveries(t *testing.T) {
	r := newRig(t, caller{"a"}, "ok-a/a", "ok-b/b", "paused-a/a")
	ids := r.publish("ok-a", "ok-b", "paused-a")
	r.publish("ok-a")
	r.become(ids[0], "success")
	var got eventAnswer
	status, _ := r.call("GET", "/api/v1/events/evt_1", &got)
	if status != http.StatusOK || got.EventID != "evt_1" || got.EventType != "build.completed" || len(got.Deliveries) != 2 ||
		got.Deliveries[0].ID != ids[2] || got.Deliveries[1].ID != ids[0] {
		t.Errorf("answered %d %+v", status, got)
	}
	var pages []string
	for target := "/api/v1/events/evt_1?limit=1"; target != ""; {
		var page eventAnswer
		status, header := r.call("GET", target, &page)
		if status != http.StatusOK || len(page.Deliveries) != 1 {
			t.Fatalf("%s answered %d %+v", target, status, page)
		}
		pages = append(pages, page.Deliveries[0].ID)
		target, _, _ = strings.Cut(strings.TrimPrefix(header.Get("Link"), "<"), ">")
	}
	if diff := cmp.Diff([]string{ids[2], ids[0]}, pages); diff != "" {
		t.Errorf("pages (-want +got):\n%s", diff)
	}
	var behind eventAnswer
	target := "/api/v1/events/evt_1?cursor=" + rest.Cursor(place{ids[0]})
	if status, _ := r.call("GET", target, &behind); status != http.StatusOK || len(behind.Deliveries) != 0 {
		t.Errorf("behind the last one: %d %+v", status, behind)
	}
	if status, _ := r.call("GET", "/api/v1/events/evt_9", nil); status != http.StatusNotFound {
		t.Errorf("an unknown one answered %d", status)
	}
}

// Each parameter with nothing, a wrong type, an extreme, something huge, invalid UTF-8, and twice; and one too many.
func TestBadParametersAreNamed(t *testing.T) {
	r := newRig(t, caller{"*"})
	huge, notText := strings.Repeat("x", 5000), url.QueryEscape("\xff")
	everywhere := []string{"", huge, notText, "a&%s=a"}
	numbers := append([]string{"x", "0", "-1", "1001", "1.5", "99999999999999999999"}, everywhere...)
	times := append([]string{"yesterday", "1", "2026-13-01T00:00:00Z", "99999-01-01T00:00:00Z"}, everywhere...)
	namespaces := append([]string{"NOPE", "a_b", "-a", strings.Repeat("a", 64)}, everywhere...)
	cursors := append([]string{"x", rest.Cursor(place{"x"})}, everywhere...)
	lists := map[string]map[string][]string{
		path: {
			"subscription_id": everywhere, "event_id": everywhere, "namespace": namespaces,
			"status": append([]string{"done", "SUCCESS"}, everywhere...), "limit": numbers, "since": times, "until": times,
			"cursor": cursors, "event_type": append([]string{"nope", "build.*", "*"}, everywhere...),
			"recent": append([]string{"maybe", "2"}, everywhere...), "stat": {"failed"},
		},
		path + "/pending":             {"subscription_id": everywhere, "namespace": namespaces, "limit": numbers, "status": {"failed"}},
		path + "/" + uuid.NewString(): {"limit": {"1"}},
		"/api/v1/events/" + "evt_1":   {"limit": numbers, "cursor": cursors, "status": {"failed"}},
	}
	for target, params := range lists {
		for name, values := range params {
			for _, value := range values {
				r.refuses(target, name, strings.ReplaceAll(value, "%s", name))
			}
		}
	}
}

func TestATimeThatEndsBeforeItBeginsIsNamed(t *testing.T) {
	r := newRig(t, caller{"*"})
	var p rest.Problem
	status, _ := r.call("GET", path+"?since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z", &p)
	if status != http.StatusBadRequest || len(p.Errors) != 1 || p.Errors[0].Field != "until" {
		t.Errorf("answered %d %+v", status, p)
	}
}

// refuses holds the answer to a parameter's value to a problem that names it and says more.
func (r *rig) refuses(target, name, value string) {
	r.t.Helper()
	var p rest.Problem
	status, header := r.call("GET", target+"?"+name+"="+value, &p)
	shown := value[:min(len(value), 40)]
	if status != 400 && status != 422 || header.Get("Content-Type") != "application/problem+json" {
		r.t.Errorf("%s %s=%s answered %d", target, name, shown, status)
	}
	if len(p.Errors) != 1 || p.Errors[0].Field != name || p.Errors[0].Message == "" {
		r.t.Errorf("%s %s=%s named %+v", target, name, shown, p.Errors)
	}
}
