// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nexus.io/webhooks/internal/event"
	"nexus.io/webhooks/internal/routing"
)

func (f *fixture) do(method, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	f.handler.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w
}

func TestUnknownPathsAndMethodsAreProblems(t *testing.T) {
	f := newFixture(t, nil)
	for _, c := range []struct {
		method, path  string
		status        int
		allow, detail string
	}{
		{"GET", "/api/v1/event", 404, "", `there is nothing at "/api/v1/event"; events are posted to /api/v1/events`},
		{"GET", "/", 404, "", `there is nothing at "/"; events are posted to /api/v1/events`},
		{"POST", "/api/v1/events/", 404, "", `there is nothing at "/api/v1/events/"; events are posted to /api/v1/events`},
		{"POST", "/api//v1/events", 404, "", `there is nothing at "/api//v1/events"; events are posted to /api/v1/events`},
		{"POST", "/api/v1/../v1/events", 404, "",
			`there is nothing at "/api/v1/../v1/events"; events are posted to /api/v1/events`},
		{"GET", "/api/v1/events", 405, "POST", "/api/v1/events takes only POST"},
		{"DELETE", "/api/v1/events/batch", 405, "POST", "/api/v1/events/batch takes only POST"},
		{"POST", "/healthz", 405, "GET, HEAD", "/healthz takes only GET, HEAD"},
	} {
		w := f.do(c.method, c.path)
		p := wantProblem(t, w, c.status)
		if p.Detail != c.detail || w.Header().Get("Allow") != c.allow {
			t.Errorf("%s %s: Allow %q, detail %q", c.method, c.path, w.Header().Get("Allow"), p.Detail)
		}
	}
}

// A misspelt parameter must not pass for one that was heeded.
func TestParametersThatNobodyKnowsAreRefused(t *testing.T) {
	fix := newFixture(t, nil)
	for path, send := range map[string]func(string) *httptest.ResponseRecorder{
		"/api/v1/events":       func(target string) *httptest.ResponseRecorder { return fix.post(target, released) },
		"/api/v1/events/batch": func(target string) *httptest.ResponseRecorder { return fix.post(target, "["+released+"]") },
		"/api/v1/event-types":  func(target string) *httptest.ResponseRecorder { return fix.do("GET", target) },
	} {
		if p := wantProblem(t, send(path+"?dry_run=true"), 422); len(p.Errors) != 1 || p.Errors[0].Field != "dry_run" {
			t.Errorf("%s: %+v", path, p)
		}
		wantProblem(t, send(path+"?a=%zz"), 400)
	}
	if len(fix.queue.calls) != 0 {
		t.Error("it was queued all the same")
	}
}

func TestEventTypesAreThoseOfTheCatalogue(t *testing.T) {
	f := newFixture(t, nil)
	w := f.do("GET", "/api/v1/event-types")
	var got map[string][]event.TypeInfo
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string][]event.TypeInfo{"event_types": event.Builtin().Types()}, got); diff != "" || w.Code != 200 {
		t.Errorf("answer %d (-want +got):\n%s", w.Code, diff)
	}
}

func TestHealthIsAlwaysOK(t *testing.T) {
	f := newFixture(t, func(o *Options) {
		o.Checks = []Check{{Name: "redis", Check: func(context.Context) error { return errors.New("away") }}}
	})
	f.table = nil
	for _, path := range []string{"/health", "/healthz"} {
		if w := f.do("GET", path); w.Code != 200 || w.Body.String() != `{"status":"ok"}` {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
		if w := f.do("HEAD", path); w.Code != 200 {
			t.Errorf("HEAD %s: %d", path, w.Code)
		}
	}
}

func TestReadyOnceEveryCheckPasses(t *testing.T) {
	var redis, loading, history error
	f := newFixture(t, func(o *Options) {
		o.Checks = []Check{
			{Name: "redis", Check: func(context.Context) error { return redis }},
			{Name: "history", Check: func(context.Context) error { return history }, Dispensable: true},
		}
		o.Loading = func() error { return loading }
	})
	want := func(status int, body string) {
		t.Helper()
		if w := f.do("GET", "/readyz"); w.Code != status || w.Body.String() != body {
			t.Errorf("answer %d %s\nwant   %d %s", w.Code, w.Body, status, body)
		}
	}
	want(http.StatusOK, `{"status":"ok","checks":[{"name":"routingTable","status":"ok"},{"name":"redis","status":"ok"},`+
		`{"name":"history","status":"ok"}]}`)
	redis, f.table = errors.New("connection refused"), nil
	want(http.StatusServiceUnavailable, `{"status":"unavailable","checks":[{"name":"routingTable","status":"failed",`+
		`"error":"the subscriptions are still being loaded"},`+
		`{"name":"redis","status":"failed","error":"connection refused"},{"name":"history","status":"ok"}]}`)
	loading = errors.New("the API server is away")
	want(http.StatusServiceUnavailable, `{"status":"unavailable","checks":[{"name":"routingTable","status":"failed",`+
		`"error":"the subscriptions are still being loaded: the API server is away"},`+
		`{"name":"redis","status":"failed","error":"connection refused"},{"name":"history","status":"ok"}]}`)
	redis, f.table, history = nil, routing.Empty(), errors.New("it is behind")
	want(http.StatusOK, `{"status":"ok","checks":[{"name":"routingTable","status":"ok"},{"name":"redis","status":"ok"},`+
		`{"name":"history","status":"degraded","error":"it is behind"}]}`)
}
