// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"nexus.io/webhooks/internal/dispatcher/apidocs"
	"nexus.io/webhooks/internal/dispatcher/rest"
)

const formType = "application/x-www-form-urlencoded"

// refuses wants a problem of the status that names the field and no other, "" for one that is not about a field, and
// that nothing was sent.
func (r *rig) refuses(what string, w *httptest.ResponseRecorder, status int, field string) {
	r.Helper()
	what = what[:min(len(what), 120)]
	var p rest.Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != status || p.Status != status || p.Title == "" ||
		p.Detail == "" || w.Header().Get("Content-Type") != "application/problem+json" {
		r.Errorf("%s: %d %.300s, want %d", what, w.Code, w.Body, status)
	}
	if field == "" && len(p.Errors) > 0 ||
		field != "" && (len(p.Errors) != 1 || p.Errors[0].Field != field || p.Errors[0].Message == "") {
		r.Errorf("%s: named %+v, want %q", what, p.Errors, field)
	}
	if w.Body.Len() > 4096 {
		r.Errorf("%s: the answer has %d bytes", what, w.Body.Len())
	}
	if len(r.arrived) > 0 {
		r.Fatalf("%s: it was sent all the same", what)
	}
}

// Each field with nothing, a wrong type, an extreme, something huge, and twice; and one too many.
func TestBadTargetsAreNamedAndNotSentTo(t *testing.T) {
	r := newRig(t, rest.Anybody{})
	long := func(n int) string { return strings.Repeat("x", n) }
	port := r.endpoint.Listener.Addr().String()
	fields := map[string][]string{
		"url": {
			`null`, `7`, `true`, `{}`, `["https://a.example"]`, `""`, `"/x"`, `"//a.example"`, `"a.example"`, `"https://"`, `"https:///x"`,
			`"ftp://a.example"`, `"mailto:a@a.example"`, `"https://u:p@a.example"`, `"https://@a.example"`, `"http://u@` + port + `"`,
			`"https://a.example:0"`, `"https://a.example:65536"`, `"https://a.example:99999999999999999999"`, `"https://a.example:"`,
			`"https://a.example:x"`, `"https://:443"`, `"https://[::1"`, `"https://a..example"`, `"https://.example"`, `"https://a.example/%zz"`,
			`"http://` + port + `/ b"`, `"http://` + port + `/\u3000"`, `"http://` + port + `/\n"`, `"http://` + port + `/\u0000"`, `" http://` + port + `"`,
			`"http://` + port + `/` + long(2048) + `"`, `"` + long(60_000) + `"`,
		},
		"secret":     {`7`, `false`, `[]`, `{}`, `""`, `"` + long(1025) + `"`, `"` + long(60_000) + `"`},
		"event_type": {`7`, `[]`, `{}`, `""`, `"*"`, `"build.*"`, `"build.faild"`, `"Build.Failed"`, `"\u0000"`, `"` + long(60_000) + `"`},
		"uri":        {`"http://` + port + `"`}, "URL": {`"http://` + port + `"`}, "eventType": {`"build.failed"`}, `""`: {`7`},
	}
	right := map[string]string{"url": `"http://` + port + `/x"`, "secret": `"s"`, "event_type": `"build.failed"`}
	for field, values := range fields {
		for _, value := range values {
			given := maps.Clone(right)
			given[strings.Trim(field, `"`)] = value
			w := r.post("/api/v1/test", "application/json", object(given))
			r.refuses(field+" "+value, w, 422, field)
		}
		if value := right[field]; value != "" {
			body := object(right)
			twice := body[:len(body)-1] + `,"` + field + `":` + value + "}"
			r.refuses(twice, r.post("/api/v1/test", "application/json", twice), 422, field)
			for _, notText := range []string{"\xff", `\ud800`, `\udc00\ud800`} {
				given := maps.Clone(right)
				given[field] = value[:len(value)-1] + notText + `"`
				r.refuses(object(given), r.post("/api/v1/test", "application/json", object(given)), 400, "")
			}
		}
	}
	r.refuses("without url", r.post("/api/v1/test", "application/json", `{"secret":"s"}`), 422, "url")
	r.refuses("a parameter", r.post("/api/v1/test?url=http://"+port, "application/json", object(right)), 422, "url")
	r.refuses("a parameter without a name", r.post("/api/v1/test?=1", "application/json", object(right)), 422, `""`)
	r.refuses("not text", r.post("/api/v1/test?url=%zz", "application/json", object(right)), 400, "url")
	r.refuses("a form", r.post("/api/v1/test", formType, "url=http://"+port), 415, "")
	for body, status := range map[string]int{
		``: 400, ` `: 400, `{"url":`: 400, `url=a`: 400, object(right) + `{}`: 400, strings.Repeat("[", 20_000): 400,
		object(right) + strings.Repeat(" ", maxBody): 413, `{"url":"` + long(maxBody) + `"}`: 413,
	} {
		r.refuses(body, r.post("/api/v1/test", "application/json", body), status, "")
	}
	for _, body := range []string{`null`, `[]`, `"http://` + port + `"`, `7`} {
		if w := r.post("/api/v1/test", "application/json", body); w.Code != 422 || !strings.Contains(w.Body.String(), "must be an object") {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
	if got := r.result("/api/v1/test", object(right)); !got.Success || len(r.arrived) != 1 {
		t.Errorf("what was right before each mistake: %+v", got)
	}
}

// object is JSON of values that are JSON.
func object(fields map[string]string) string {
	var parts []string
	for name, value := range fields {
		parts = append(parts, `"`+name+`":`+value)
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// It takes no more than an id, so all else that it is given would not be done.
func TestATestOfASubscriptionTakesNothingElse(t *testing.T) {
	r := newRig(t, rest.Anybody{})
	const at = "/api/v1/subscriptions/sub_works/test"
	for id, status := range map[string]int{
		"sub_none": 404, "%ff%00": 404, "a%2Fb": 404, "..%2Fsub_works": 404, strings.Repeat("x", 5000): 404, "": 404, "SUB_WORKS": 404,
		"sub_works%20": 404,
	} {
		r.refuses("id "+id, r.post("/api/v1/subscriptions/"+id+"/test", "", ""), status, "")
	}
	for query, field := range map[string]string{
		"event_type=build.failed": "event_type", "id=sub_works": "id", "force": "force", "%ff=1": "?", "=": `""`,
		strings.Repeat("x", 5000): strings.Repeat("x", 100) + "...",
	} {
		r.refuses(query, r.post(at+"?"+query, "", ""), 422, field)
	}
	r.refuses("a malformed parameter", r.post(at+"?a=%zz", "", ""), 400, "a")
	for body, field := range map[string]string{
		`{"event_type":"build.failed"}`: "event_type", `{"url":null}`: "url", `{"":1}`: `""`, `[]`: "", `null`: "", `7`: "", `x`: "",
		"event_type=build.failed": "", "{\"url\":\"\xff\"}": "", `{"a":`: "", strings.Repeat(" ", 5000): "", strings.Repeat("x", 1<<20): "",
	} {
		r.refuses(body, r.post(at, "application/json", body), 422, field)
		r.refuses(body, r.post(at, "", body), 422, field)
	}
	for i, body := range []string{"", " \n", "{}", " { } "} {
		if got := r.result(at, body); !got.Success || len(r.arrived) != i+1 {
			t.Errorf("%q: %+v", body, got)
		}
	}
}

// Each of the four in each place that it may come from, with nothing, a wrong type, an extreme, something huge, invalid
// UTF-8, and twice; and one too many. What a sender might have written is an answer, not a mistake.
func TestBadSignedRequestsAreNamed(t *testing.T) {
	r := newRig(t, rest.Anybody{})
	const at = "/api/v1/verify-signature"
	right := url.Values{"payload": {"{}"}, "timestamp": {"2025-11-30T10:30:00Z"}, "signature": {"sha256=abc"}, "secret": {"s"}}
	inQuery := func(query string) *httptest.ResponseRecorder { return r.post(at+"?"+query, "", "") }
	asForm := func(form string) *httptest.ResponseRecorder { return r.post(at, formType, form) }
	asJSON := func(text string) *httptest.ResponseRecorder { return r.post(at, "application/json", text) }
	asText := map[string]string{}
	for name, values := range right {
		quoted, _ := json.Marshal(values[0])
		asText[name] = string(quoted)
	}
	with := func(name, value string) string {
		given := maps.Clone(asText)
		given[name] = value
		return object(given)
	}
	for name := range right {
		others := maps.Clone(right)
		delete(others, name)
		for how, send := range map[string]func(string) *httptest.ResponseRecorder{"query": inQuery, "form": asForm} {
			r.refuses(how+" without "+name, send(others.Encode()), 422, name)
			for _, value := range []string{"%ff", "%zz", "a;b", "%"} {
				r.refuses(how+" "+name+"="+value, send(others.Encode()+"&"+name+"="+value), 400, name)
			}
			r.refuses(how+" "+name+" twice", send(right.Encode()+"&"+name+"=a"), 422, name)
			if name != "payload" {
				r.refuses(how+" huge "+name, send(others.Encode()+"&"+name+"="+strings.Repeat("x", 1025)), 422, name)
			}
		}
		for _, value := range []string{"null", "7", "1e400", "true", "[]", `["a"]`, "{}"} {
			r.refuses(name+" "+value, asJSON(with(name, value)), 422, name)
		}
		text := object(asText)
		r.refuses("JSON "+name+" twice", asJSON(text[:len(text)-1]+`,"`+name+`":"a"}`), 422, name)
		r.refuses(name+" in both", r.post(at+"?"+name+"=a", "application/json", text), 422, name)
		r.refuses(name+" not text", asJSON(with(name, "\"\xff\"")), 400, "")
		r.refuses(name+" half a pair", asJSON(with(name, `"\ud83d"`)), 400, "")
		if name != "payload" {
			r.refuses("JSON huge "+name, asJSON(with(name, `"`+strings.Repeat("x", 1<<20)+`"`)), 422, name)
		}
		for _, value := range []string{"", "x", "\x00", strings.Repeat("x", 1024)} {
			given := maps.Clone(right)
			given[name] = []string{value}
			if w := asForm(given.Encode()); w.Code != 200 || !strings.Contains(w.Body.String(), `"valid":false`) {
				t.Errorf("%s %q: %d %s", name, value, w.Code, w.Body)
			}
		}
	}
	for field, query := range map[string]string{"sekret": "sekret=x", "Secret": "Secret=s", `""`: "=x", "?": "%ff=x"} {
		r.refuses("query "+query, inQuery(right.Encode()+"&"+query), 422, field)
		r.refuses("form "+query, asForm(right.Encode()+"&"+query), 422, field)
	}
	r.refuses("JSON with one more", asJSON(with("sekret", `"x"`)), 422, "sekret")
	w := httptest.NewRecorder()
	request := httptest.NewRequest(http.MethodPost, at, strings.NewReader(right.Encode()))
	request.Header = map[string][]string{"Content-Type": {formType}, "Content-Encoding": {"gzip"}}
	r.handler.ServeHTTP(w, request)
	r.refuses("a compressed form", w, 415, "")
	if w := asForm("a=" + strings.Repeat("&", 10_000)); w.Code != 400 {
		t.Errorf("10,001 parameters: %d %s", w.Code, w.Body)
	}
}

// A client that is made of the document sends nothing that is refused for its length.
func TestTheDocumentBoundsWhatIsVerified(t *testing.T) {
	type schema struct {
		MaxLength  int
		Properties map[string]schema
	}
	var document struct {
		Paths map[string]struct {
			Post struct {
				Parameters []struct {
					Name   string
					Schema schema
				}
			}
		}
		Components struct{ Schemas map[string]schema }
	}
	text, err := apidocs.Document("1")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	want := map[string]int{"payload": 0, "timestamp": maxSecret, "signature": maxSecret, "secret": maxSecret}
	inQuery, inBody := map[string]int{}, map[string]int{}
	for _, p := range document.Paths["/api/v1/verify-signature"].Post.Parameters {
		inQuery[p.Name] = p.Schema.MaxLength
	}
	for name, s := range document.Components.Schemas["Signed"].Properties {
		inBody[name] = s.MaxLength
	}
	if !maps.Equal(want, inQuery) || !maps.Equal(want, inBody) {
		t.Errorf("the query has %v, the body %v, want %v", inQuery, inBody, want)
	}
}
