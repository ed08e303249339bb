// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"nexus.io/webhooks/internal/dispatcher/rest"
	"nexus.io/webhooks/internal/routing"
)

// judge knows everybody, and answers what they may do with its error. It notes what was asked.
type judge struct {
	err   error
	asked []rest.Action
}

func (j *judge) Authenticate(*http.Request) (rest.Caller, *rest.Problem) { return j, nil }

func (j *judge) May(_ context.Context, do rest.Action) error {
	j.asked = append(j.asked, do)
	return j.err
}

// stranger knows nobody.
type stranger struct{}

func (stranger) Authenticate(*http.Request) (rest.Caller, *rest.Problem) {
	return nil, rest.New(http.StatusUnauthorized, "who are you?")
}

// unread is a body that must not be read.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, fmt.Errorf("no")
}

func guarded(t *testing.T, a rest.Authenticator) http.Handler {
	t.Helper()
	routes, err := New(Options{
		Publisher: &memoryQueue{}, Table: routing.Empty, Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return rest.Handler(routes, rest.HandlerOptions{Authenticator: a})
}

func TestWhoMayNotPublishIsRefusedUnread(t *testing.T) {
	cases := map[string]struct {
		err  error
		want int
	}{
		"a caller who may not":        {&rest.Denied{Reason: "no"}, http.StatusForbidden},
		"a caller whom nobody judges": {fmt.Errorf("%w: away", rest.ErrUnknown), http.StatusServiceUnavailable},
	}
	for name, c := range cases {
		for _, path := range []string{"/api/v1/events", "/api/v1/events/batch"} {
			t.Run(name+" at "+path, func(t *testing.T) {
				j := &judge{err: c.err}
				r := httptest.NewRequest(http.MethodPost, path, unread{t})
				r.Header.Set("Content-Type", "application/json")
				w := httptest.NewRecorder()
				guarded(t, j).ServeHTTP(w, r)
				wantProblem(t, w, c.want)
				if len(j.asked) != 1 || j.asked[0] != (rest.Action{Verb: "create", Resource: "events"}) {
					t.Errorf("asked %+v", j.asked)
				}
			})
		}
	}
}

func TestWhatNeedsCredentials(t *testing.T) {
	for target, want := range map[string]int{
		"POST /api/v1/events": 401, "POST /api/v1/events/batch": 401, "GET /api/v1/event-types": 401,
		"GET /health": 200, "GET /healthz": 200, "GET /readyz": 200,
	} {
		t.Run(target, func(t *testing.T) {
			method, path, _ := strings.Cut(target, " ")
			w := httptest.NewRecorder()
			guarded(t, stranger{}).ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader("{}")))
			if w.Code != want {
				t.Errorf("%d %s, want %d", w.Code, w.Body, want)
			}
			if w.Code == 401 && w.Header().Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("WWW-Authenticate: %q", w.Header().Get("WWW-Authenticate"))
			}
		})
	}
}

func TestEveryCallerMayReadTheEventTypes(t *testing.T) {
	w := httptest.NewRecorder()
	j := &judge{err: &rest.Denied{Reason: "no"}}
	guarded(t, j).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api/v1/event-types", nil))
	if w.Code != http.StatusOK || len(j.asked) > 0 {
		t.Errorf("%d after asking %v", w.Code, j.asked)
	}
}
