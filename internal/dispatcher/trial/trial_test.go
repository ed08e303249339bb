// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nexus.io/webhooks/internal/dispatcher/egress"
	"nexus.io/webhooks/internal/dispatcher/rest"
	"nexus.io/webhooks/internal/event"
	"nexus.io/webhooks/internal/routing"
	"nexus.io/webhooks/internal/signing"
)

const (
	key    = "the-key-that-nobody-may-see"
	header = "Bearer the-token-that-nobody-may-see"
)

// rig is the API, and an endpoint that repeats what it is sent.
type rig struct {
	*testing.T
	handler  http.Handler
	endpoint *httptest.Server
	arrived  []*http.Request
	bodies   []string
	table    *routing.Table
}

func newRig(t *testing.T, who rest.Authenticator) *rig {
	r := &rig{T: t}
	r.endpoint = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, got *http.Request) {
		body, _ := io.ReadAll(got.Body)
		r.arrived, r.bodies = append(r.arrived, got), append(r.bodies, string(body))
		if strings.HasPrefix(got.URL.Path, "/fail") {
			w.WriteHeader(http.StatusTeapot)
		}
		known := "" // to the endpoint of a subscription
		if !strings.HasPrefix(got.URL.Path, "/x") {
			known = key
		}
		_, _ = io.WriteString(w, "got "+got.Header.Get("Authorization")+" "+known+" \xff")
	}))
	t.Cleanup(r.endpoint.Close)
	transport := egress.NewTransport(egress.Options{Policy: egress.Policy{AllowedNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}})
	t.Cleanup(transport.CloseIdleConnections)
	r.table = routing.Empty().With([]*routing.Route{
		r.route("sub_works", nil),
		r.route("sub_paused", func(r *routing.Route) { r.Paused, r.Events = true, []string{"release.*"} }),
		r.route("sub_fails", func(route *routing.Route) { route.Endpoint = routing.ParseEndpoint(r.endpoint.URL + "/fail") }),
		r.route("sub_denied", func(r *routing.Route) { r.Endpoint = routing.ParseEndpoint("http://169.254.169.254/latest") }),
		r.route("sub_held", func(r *routing.Route) {
			r.Keys, r.Hold, r.HoldDetail = nil, "SecretNotFound", "Secret a is not there"
		}),
	}, nil)
	routes, err := New(Options{
		Table: func() *routing.Table { return r.table }, Transport: transport, Version: "1.2", Catalogue: event.Builtin(),
		Timeout: 5 * time.Second, Namespace: "default",
	})
	if err != nil {
		t.Fatal(err)
	}
	r.handler = rest.Handler(routes, rest.HandlerOptions{Authenticator: who})
	return r
}

func (r *rig) route(id string, change func(*routing.Route)) *routing.Route {
	route := &routing.Route{
		ID: id, Namespace: "a", Name: id[4:], Active: true, Events: []string{"*"}, Timeout: 5 * time.Second,
		Endpoint: routing.ParseEndpoint(r.endpoint.URL + "/ok"), Keys: [][]byte{[]byte(key)},
		Headers: []routing.Header{{Name: "authorization", Value: header, Secret: true}, {Name: "X-Team", Value: "t"}},
	}
	if change != nil {
		change(route)
	}
	return route
}

func (r *rig) post(target, contentType, body string) *httptest.ResponseRecorder {
	request := httptest.NewRequest(http.MethodPost, target, strings.NewReader(body))
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	w := httptest.NewRecorder()
	r.handler.ServeHTTP(w, request)
	return w
}

func (r *rig) result(target, body string) (found result) {
	r.Helper()
	w := r.post(target, "application/json", body)
	if err := json.Unmarshal(w.Body.Bytes(), &found); err != nil || w.Code != 200 {
		r.Fatalf("%s: %d %s", target, w.Code, w.Body)
	}
	if got := w.Header().Get("Cache-Control"); got != "no-store" {
		r.Errorf("%s: Cache-Control %q", target, got)
	}
	if strings.Contains(w.Body.String(), "nobody-may-see") {
		r.Errorf("a secret shows: %s", w.Body)
	}
	return found
}

func TestASubscriptionIsTestedAsItIsDelivered(t *testing.T) {
	r := newRig(t, rest.Anybody{})
	got := r.result("/api/v1/subscriptions/sub_works/test", "")
	if !got.Success || got.StatusCode != http.StatusOK || got.Error != "" || got.SignatureSecret != nil ||
		got.ResponseBody != "got [redacted] [redacted] \uFFFD" {
		t.Errorf("%+v", got)
	}
	var sent struct {
		ID, Type string
		Data     struct{ Test bool }
	}
	if err := json.Unmarshal([]byte(r.bodies[0]), &sent); err != nil || sent.Type != "release.created" || !sent.Data.Test {
		t.Errorf("%s %v", r.bodies[0], err)
	}
	if got := r.result("/api/v1/subscriptions/sub_paused/test", ""); !got.Success || r.arrived[1].Header.Get("X-Nexus-Event") != "release.created" {
		t.Errorf("%+v", got)
	}
}

func TestWhatIsShownOfATestIsWhatWasSent(t *testing.T) {
	r := newRig(t, rest.Anybody{})
	got := r.result("/api/v1/subscriptions/sub_works/test", "")
	request := r.arrived[0]
	if !signing.Verify([]byte(key), request.Header.Get("X-Nexus-Timestamp"), []byte(r.bodies[0]), request.Header.Get("X-Nexus-Signature-256")) ||
		request.Header.Get("Authorization") != header || request.Header.Get("X-Team") != "t" || request.UserAgent() != "Nexus-Webhook/1.2" {
		t.Errorf("%v", request.Header)
	}
	for name, value := range got.HeadersSent {
		if want := request.Header.Get(name); value != want && (name != "Authorization" || value != "[redacted]") {
			t.Errorf("%s: %q is shown, %q was sent", name, value, want)
		}
	}
	if got.HeadersSent["X-Nexus-Event"] != "release.created" || got.HeadersSent["Authorization"] != "[redacted]" {
		t.Errorf("%v", got.HeadersSent)
	}
}

func TestATestUsesTheTLSOfItsSubscription(t *testing.T) {
	r := newRig(t, rest.Anybody{})
	secure := httptest.NewTLSServer(r.endpoint.Config.Handler)
	t.Cleanup(secure.Close)
	authorities := x509.NewCertPool()
	authorities.AddCert(secure.Certificate())
	r.table = routing.Empty().With([]*routing.Route{
		r.route("sub_without", func(r *routing.Route) { r.Endpoint = routing.ParseEndpoint(secure.URL + "/ok") }),
		r.route("sub_with", func(r *routing.Route) {
			r.Endpoint, r.TLS = routing.ParseEndpoint(secure.URL+"/ok"), &routing.TLS{ID: "test", RootCAs: authorities}
		}),
	}, nil)
	if got := r.result("/api/v1/subscriptions/sub_without/test", ""); got.Success || !strings.Contains(got.Error, "certificate") {
		t.Errorf("%+v", got)
	}
	if got := r.result("/api/v1/subscriptions/sub_with/test", ""); !got.Success || got.HeadersSent["X-Team"] != "t" {
		t.Errorf("%+v", got)
	}
}

func TestATestThatFailsSaysWhy(t *testing.T) {
	r := newRig(t, rest.Anybody{})
	for id, want := range map[string]string{
		"sub_fails":  "the endpoint answered 418 I'm a teapot",
		"sub_denied": "169.254.169.254",
		"sub_held":   "nothing can be sent: Secret a is not there",
	} {
		got := r.result("/api/v1/subscriptions/"+id+"/test", "")
		if got.Success || !strings.Contains(got.Error, want) || got.HeadersSent == nil {
			t.Errorf("%s: %+v", id, got)
		}
	}
	if w := r.post("/api/v1/subscriptions/sub_other/test", "", ""); w.Code != 404 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	r.table = nil
	if w := r.post("/api/v1/subscriptions/sub_works/test", "", ""); w.Code != 503 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestAURLIsTested(t *testing.T) {
	r := newRig(t, rest.Anybody{})
	got := r.result("/api/v1/test", `{"url":"`+r.endpoint.URL+`/x"}`)
	if !got.Success || got.SignatureSecret == nil || len(*got.SignatureSecret) != 64 {
		t.Fatalf("%+v", got)
	}
	verify := func(i int, secret string) bool {
		h := r.arrived[i].Header
		return signing.Verify([]byte(secret), h.Get("X-Nexus-Timestamp"), []byte(r.bodies[i]), h.Get("X-Nexus-Signature-256"))
	}
	if !verify(0, *got.SignatureSecret) {
		t.Error("it is not signed with the secret that is shown")
	}
	got = r.result("/api/v1/test", `{"url":"`+r.endpoint.URL+`/x","secret":"optional-secret","event_type":"release.started"}`)
	if !got.Success || got.SignatureSecret != nil || !verify(1, "optional-secret") || got.HeadersSent["X-Nexus-Event"] != "release.started" {
		t.Errorf("%+v", got)
	}
	for body, field := range map[string]string{
		`{}`:                              "url",
		`{"url":null}`:                    "url",
		`{"url":""}`:                      "url",
		`{"url":7}`:                       "url",
		`{"url":"/x"}`:                    "url",
		`{"url":"ftp://a.example"}`:       "url",
		`{"url":"https://u:p@a.example"}`: "url",
		`{"url":"https://a.example/` + strings.Repeat("x", 2048) + `"}`:            "url",
		`{"url":"https://a.example","secret":""}`:                                  "secret",
		`{"url":"https://a.example","secret":"` + strings.Repeat("x", 1025) + `"}`: "secret",
		`{"url":"https://a.example","event_type":"release.start"}`:                 "event_type",
		`{"url":"https://a.example","uri":"b"}`:                                    "uri",
	} {
		w := r.post("/api/v1/test", "application/json", body)
		var p rest.Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != 422 || len(p.Errors) != 1 || p.Errors[0].Field != field {
			t.Errorf("%.80s: %d %s", body, w.Code, w.Body)
		}
	}
	if len(r.arrived) != 2 {
		t.Errorf("%d requests arrived", len(r.arrived))
	}
}

type nobody struct{}

func (n nobody) Authenticate(*http.Request) (rest.Caller, *rest.Problem) { return n, nil }
func (nobody) May(_ context.Context, do rest.Action) error {
	return &rest.Denied{Reason: "no " + do.Verb + " in " + do.Namespace, Unnamed: "no " + do.Verb + " of " + do.Name}
}

func TestTestsNeedTheRightToSubscribe(t *testing.T) {
	r := newRig(t, nobody{})
	for target, c := range map[string]struct{ body, want string }{
		"/api/v1/test":                         {`{"url":"` + r.endpoint.URL + `"}`, "no create in default"},
		"/api/v1/test?namespace=team-a":        {`{"url":"` + r.endpoint.URL + `"}`, "no create in team-a"},
		"/api/v1/subscriptions/sub_works/test": {"", "no patch of works"},
	} {
		if w := r.post(target, "application/json", c.body); w.Code != 403 || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
	if len(r.arrived) != 0 {
		t.Error("it was sent all the same")
	}
}

func TestSignaturesAreVerifiedHoweverTheyCome(t *testing.T) {
	r := newRig(t, rest.Anybody{})
	right := signing.Sign([]byte("s p+a&c"), "2025-11-30T10:30:00Z", []byte(`{"test": true}`))
	given := url.Values{"payload": {`{"test": true}`}, "timestamp": {"2025-11-30T10:30:00Z"}, "signature": {right}, "secret": {"s p+a&c"}}
	text, err := json.Marshal(map[string]string{"payload": given.Get("payload"), "timestamp": given.Get("timestamp"), "signature": right, "secret": "s p+a&c"})
	if err != nil {
		t.Fatal(err)
	}
	const form = "application/x-www-form-urlencoded"
	half := url.Values{"payload": given["payload"], "secret": given["secret"]}
	other := url.Values{"timestamp": given["timestamp"], "signature": given["signature"]}
	for name, w := range map[string]*httptest.ResponseRecorder{
		"query": r.post("/api/v1/verify-signature?"+given.Encode(), "", ""),
		"form":  r.post("/api/v1/verify-signature", form, given.Encode()),
		"JSON":  r.post("/api/v1/verify-signature", "application/json", string(text)),
		"both":  r.post("/api/v1/verify-signature?"+half.Encode(), form, other.Encode()),
	} {
		want := `{"valid":true,"timestamp":"2025-11-30T10:30:00Z","signature_provided":"` + right + `","reason":"the signature is right"}`
		if diff := cmp.Diff(want, w.Body.String()); diff != "" || w.Code != 200 {
			t.Errorf("%s: %d (-want +got):\n%s", name, w.Code, diff)
		}
	}
	for name, c := range map[string]struct {
		query, contentType, body string
		status                   int
		want                     string
	}{
		"the document's example": {"payload=%7B%22test%22%3A%20true%7D&timestamp=2025-11-30T10:30:00Z&signature=sha256=abc123&secret=your-secret", "", "", 200, `"valid":false`},
		"nothing":                {"", "", "", 422, `"field":"payload"`},
		"one missing":            {"payload=a&timestamp=b&signature=c", "", "", 422, `"field":"secret","message":"must be there`},
		"an empty payload":       {"payload=&timestamp=b&signature=c&secret=d", "", "", 200, `"valid":false`},
		"one twice":              {"payload=a&payload=a&timestamp=b&signature=c&secret=d", "", "", 422, `"field":"payload","message":"is there more than once`},
		"one in two places":      {"secret=d", "application/json", string(text), 422, `"field":"secret","message":"is there more than once`},
		"an unknown one":         {given.Encode() + "&sekret=x", "", "", 422, `"field":"sekret"`},
		"an unknown field":       {"", "application/json", `{"sekret":"x"}`, 422, `"field":"sekret"`},
		"a wrong type":           {"", "application/json", `{"payload":{}}`, 422, `"field":"payload","message":"must be a string`},
		"invalid UTF-8":          {"payload=%ff&timestamp=b&signature=c&secret=d", "", "", 400, `"field":"payload","message":"is not UTF-8"`},
		"a malformed query":      {"payload=%zz", "", "", 400, "percent-encoded"},
		"a malformed form":       {"", form, "payload=%zz", 400, "percent-encoded"},
		"another media type":     {"", "text/plain", "payload=a", 415, "application/json"},
		"too large":              {"", form, "payload=" + strings.Repeat("x", maxSigned), 413, "larger than"},
		"too large as JSON":      {"", "application/json", strings.Repeat(" ", maxSigned+1), 413, "larger than"},
	} {
		w := r.post("/api/v1/verify-signature?"+c.query, c.contentType, c.body)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.want) || strings.Contains(w.Body.String(), "your-secret") {
			t.Errorf("%s: %d %.300s", name, w.Code, w.Body)
		}
	}
}

func TestAURLWithASpaceIsToBeEncoded(t *testing.T) {
	for _, raw := range []string{"https://app.example/a b", "https://app.example/?a b", "https://app.example/\n"} {
		if wrong := wrongWithURL(raw); !strings.Contains(wrong, "percent-encode") {
			t.Errorf("%q: %q", raw, wrong)
		}
	}
}
