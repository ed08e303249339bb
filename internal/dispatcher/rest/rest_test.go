// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

type inner struct {
	Max  *int32 `json:"max"`
	Deep []struct {
		Key string `json:"key"`
	} `json:"deep"`
}

type body struct {
	Name   string            `json:"name"`
	Active *bool             `json:"active"`
	Events []string          `json:"events"`
	Inner  *inner            `json:"inner"`
	Since  *time.Time        `json:"since"`
	Labels map[string]string `json:"labels"`
	Ratio  float64           `json:"ratio"`
	Any    any               `json:"any"`
	Raw    json.RawMessage   `json:"raw"`
	hidden int               //nolint:unused // it must not be reachable
	Not    string            `json:"-"`
}

func wantErrors(t *testing.T, p *Problem, status int, want ...string) {
	t.Helper()
	if p == nil {
		t.Fatalf("no problem, want %d %q", status, want)
	}
	var got []string
	for _, e := range p.Errors {
		got = append(got, e.Field+": "+e.Message)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" || p.Status != status {
		t.Errorf("status %d, want %d; errors (-want +got):\n%s", p.Status, status, diff)
	}
}

func TestBodiesThatFitAreRead(t *testing.T) {
	text := `{"name":"ü\ud83d\uDE00 \\ud83d \\\\","active":false,"events":["a","b"],"inner":{"max":7,"deep":[{"key":"k"}]},` +
		`"since":"2026-01-02T03:04:05+01:00","labels":{"a":"b"},"ratio":1.5,"any":{"x":[1]},"raw":[ 1 ]}`
	no, most := false, int32(7)
	var want, got body
	if err := json.Unmarshal([]byte(text), &want); err != nil || *want.Active != no || *want.Inner.Max != most {
		t.Fatal(err)
	}
	if p := Unmarshal([]byte(text), &got); p != nil {
		t.Fatalf("%+v", p)
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(body{})); diff != "" {
		t.Error(diff)
	}
}

func TestEveryMistakeOfABodyIsNamed(t *testing.T) {
	const fields = "active, any, events, inner, labels, name, ratio, raw, since"
	for name, c := range map[string]struct {
		text   string
		status int
		want   []string
	}{
		"an unknown field":               {`{"nam":"a"}`, 422, []string{"nam: is not known; the fields here are " + fields}},
		"a field in another case":        {`{"Name":"a"}`, 422, []string{"Name: is not known; the fields here are " + fields}},
		"the name of a Go field":         {`{"Not":"a"}`, 422, []string{"Not: is not known; the fields here are " + fields}},
		"a field that JSON does not see": {`{"hidden":1}`, 422, []string{"hidden: is not known; the fields here are " + fields}},
		"a field twice":                  {`{"name":"a","name":"b"}`, 422, []string{"name: is there twice: give it once"}},
		"twice within a map":             {`{"labels":{"a":"b","a":"c"}}`, 422, []string{"labels.a: is there twice: give it once"}},
		"an unknown field deep inside":   {`{"inner":{"deep":[{},{"k":1}]}}`, 422, []string{"inner.deep[1].k: is not known; the fields here are key"}},
		"several": {
			`{"name":1,"active":"yes","events":["a",2,null],"inner":[],"labels":{"a":1},"ratio":"x","since":"today"}`, 422,
			[]string{
				"name: must be a string, not 1", "active: must be true or false, not a string",
				"events[1]: must be a string, not 2", "events[2]: must be a string, not null",
				"inner: must be an object, not an array", "labels.a: must be a string, not 1",
				"ratio: must be a number, not a string",
				"since: must be a time in RFC 3339, such as 2026-01-02T15:04:05Z",
			},
		},
		"a fraction":               {`{"inner":{"max":1.5}}`, 422, []string{"inner.max: must be a whole number of at most 32 bits, not 1.5"}},
		"a number that is large":   {`{"inner":{"max":2147483648}}`, 422, []string{"inner.max: must be a whole number of at most 32 bits, not 2147483648"}},
		"a number that is huge":    {`{"ratio":1e999}`, 422, []string{"ratio: must be a number, not 1e999"}},
		"an object for a string":   {`{"name":{"a":1}}`, 422, []string{"name: must be a string, not an object"}},
		"an array at the top":      {`[]`, 422, []string{": must be an object, not an array"}},
		"null at the top":          {`null`, 422, []string{": must be an object, not null"}},
		"nothing":                  {``, 400, nil},
		"text":                     {`name=a`, 400, nil},
		"two values":               {`{} {}`, 400, nil},
		"half a value":             {`{"name":"a`, 400, nil},
		"invalid UTF-8":            {"{\"name\":\"\xff\"}", 400, nil},
		"endless nesting":          {strings.Repeat("[", 100_000), 400, nil},
		"a name that is empty":     {`{"":1,"labels":{"":1}}`, 422, []string{`"": is not known; the fields here are ` + fields, `labels."": must be a string, not 1`}},
		"the first half only":      {`{"name":"\ud83d"}`, 400, nil},
		"the second half only":     {`{"name":"\uDE00"}`, 400, nil},
		"halves in wrong order":    {`{"name":"\ude00\ud83d"}`, 400, nil},
		"half of a pair cut off":   {`{"name":"\\\ud83d\\ude00"}`, 400, nil},
		"half of a pair in a name": {`{"labels":{"\ud83d":"a"}}`, 400, nil},
	} {
		t.Run(name, func(t *testing.T) {
			wantErrors(t, Unmarshal([]byte(c.text), &body{}), c.status, c.want...)
		})
	}
}

func TestMistakesAreBoundedInNumberAndSize(t *testing.T) {
	long := strings.Repeat("ü", 100_000)
	p := Unmarshal([]byte(`{"`+long+`":1,"events":[`+strings.Repeat("1,", 1000)+`1]}`), &body{})
	if len(p.Errors) != maxMistakes || len(p.Errors[0].Field) > 2*maxNameShown || !utf8.ValidString(p.Errors[0].Field) {
		t.Errorf("%d mistakes, the first at %q", len(p.Errors), p.Errors[0].Field)
	}
}

func TestNullLeavesAFieldOut(t *testing.T) {
	got := body{}
	if p := Unmarshal([]byte(`{"name":null,"active":null,"inner":{"max":null},"since":null}`), &got); p != nil {
		t.Fatalf("%+v", p)
	}
}

func TestCallsThatTakeNoBodyRefuseOne(t *testing.T) {
	for text, want := range map[string][]string{
		"": nil, " \n": nil, "{}": nil, `{"a":1,"a":2,"":3}`: {
			"a: is not known; this call takes no body", "a: is there twice: give it once", `"": is not known; this call takes no body`,
		},
		"null": {}, "[]": {}, "a=1": {}, "{": {}, "\xff": {}, "{}" + strings.Repeat(" ", maxIgnored): {}, strings.Repeat("x", 1<<20): {},
	} {
		for _, length := range []int64{int64(len(text)), -1} {
			r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(text))
			r.ContentLength = length
			p := NoBody(httptest.NewRecorder(), r)
			if want != nil {
				wantErrors(t, p, 422, want...)
			} else if p != nil {
				t.Errorf("%q is refused: %+v", text, p)
			}
		}
	}
}

func FuzzUnmarshal(f *testing.F) {
	f.Add([]byte(`{"name":"a","inner":{"deep":[{"key":"k"}]},"since":"2026-01-02T03:04:05Z"}`))
	f.Add([]byte(`{"any":{"a":[1,{"b":null}]},"labels":{"a":null}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var got, want body
		p := Unmarshal(text, &got)
		if p != nil {
			if p.Status != 400 && p.Status != 422 {
				t.Errorf("status %d", p.Status)
			}
			return
		}
		if err := json.Unmarshal(text, &want); err != nil || !utf8.Valid(text) {
			t.Errorf("taken, although %v", err)
		}
		given := strings.ToLower(string(text))
		if replaced := "\uFFFD"; strings.Contains(fmt.Sprintf("%v", got), replaced) && !strings.Contains(given, replaced) &&
			!strings.Contains(given, `\ufffd`) {
			t.Errorf("%q is read as %+v", text, got)
		}
	})
}

func TestParameters(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	type place struct {
		ID string `json:"id"`
	}
	query := "name=a%20b&limit=7&active=False&since=2026-01-02T03:04:05Z&kind=two&cursor=" + Cursor(place{"x"})
	p := Query(httptest.NewRequest(http.MethodGet, "/x?"+query, nil))
	type read struct {
		Name, Kind, Place string
		Limit             int
		Active, Continued bool
		Since             time.Time
	}
	all := func(p *Params) (r read) {
		var from place
		r = read{
			Name: p.String("name"), Limit: p.Int("limit", 1, 10, 5), Active: p.Bool("active", true), Since: p.Time("since"),
			Kind: p.Enum("kind", "one", "two"), Continued: p.Cursor("cursor", &from),
		}
		r.Place = from.ID
		if problem := p.Problem(); problem != nil {
			t.Errorf("%+v", problem)
		}
		return r
	}
	want := read{Name: "a b", Limit: 7, Active: false, Since: at, Kind: "two", Continued: true, Place: "x"}
	if diff := cmp.Diff(want, all(p)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	none := all(Query(httptest.NewRequest(http.MethodGet, "/x", nil)))
	if diff := cmp.Diff(read{Limit: 5, Active: true}, none); diff != "" {
		t.Errorf("without parameters (-want +got):\n%s", diff)
	}
}

func TestEveryMistakeOfTheParametersIsNamed(t *testing.T) {
	const extra = "is not a parameter of this call, which takes name, limit, active, since, kind, cursor"
	for query, c := range map[string]struct {
		status int
		want   []string
	}{
		"nam=a":                           {422, []string{"nam: " + extra}},
		"b=1&a=2":                         {422, []string{"a: " + extra, "b: " + extra}},
		"name=a&name=b":                   {422, []string{"name: is there more than once: give it once"}},
		"name=":                           {400, []string{"name: is empty: give it a value or leave it out"}},
		"name=%ff":                        {400, []string{"name: is not UTF-8"}},
		"%ff=1":                           {422, []string{"?: " + extra}},
		"=1":                              {422, []string{`"": ` + extra}},
		"name=%zz":                        {400, []string{"name: is malformed: write it as name=value, with & between and special characters percent-encoded"}},
		"limit=1&name=a;limit=2":          {400, []string{"name: is malformed: write it as name=value, with & between and special characters percent-encoded"}},
		"%zz=1":                           {400, []string{": the query or form is malformed: write it as name=value, with & between and special characters percent-encoded"}},
		"na;me=1":                         {400, []string{": the query or form is malformed: write it as name=value, with & between and special characters percent-encoded"}},
		"limit=0":                         {400, []string{"limit: must be a whole number from 1 to 10"}},
		"limit=11":                        {400, []string{"limit: must be a whole number from 1 to 10"}},
		"limit=1.5":                       {400, []string{"limit: must be a whole number from 1 to 10"}},
		"limit=99999999999999999999":      {400, []string{"limit: must be a whole number from 1 to 10"}},
		"active=yes":                      {400, []string{"active: must be true or false"}},
		"since=today":                     {400, []string{"since: must be a time in RFC 3339, such as 2026-01-02T15:04:05Z; a + in it is written %2B"}},
		"since=2026-01-02T15:04:05+01:00": {400, []string{"since: must be a time in RFC 3339, such as 2026-01-02T15:04:05Z; a + in it is written %2B"}},
		"kind=three":                      {400, []string{"kind: must be one of one, two"}},
		"cursor=x":                        {400, []string{"cursor: is none that this list gave out: take it from a Link header, or leave it out to start anew"}},
		"cursor=" + Cursor(map[string]int{"other": 1}): {400, []string{"cursor: is none that this list gave out: take it from a Link header, or leave it out to start anew"}},
		"limit=0&active=x&nam=1":                       {400, []string{"limit: must be a whole number from 1 to 10", "active: must be true or false", "nam: " + extra}},
	} {
		t.Run(query, func(t *testing.T) {
			p := Query(&http.Request{URL: httptest.NewRequest(http.MethodGet, "/x?"+query, nil).URL})
			var from struct{ ID string }
			p.String("name")
			p.Int("limit", 1, 10, 5)
			p.Bool("active", false)
			p.Time("since")
			p.Enum("kind", "one", "two")
			p.Cursor("cursor", &from)
			wantErrors(t, p.Problem(), c.status, c.want...)
		})
	}
}

func TestTheNextPageKeepsTheParameters(t *testing.T) {
	w := httptest.NewRecorder()
	NextPage(w, httptest.NewRequest(http.MethodGet, "/api/v1/things?limit=2&cursor=old&q=a%26b", nil), map[string]string{"id": "1"})
	want := `</api/v1/things?cursor=` + Cursor(map[string]string{"id": "1"}) + `&limit=2&q=a%26b>; rel="next"`
	if diff := cmp.Diff(want, w.Header().Get("Link")); diff != "" {
		t.Error(diff)
	}
}

// named knows only callers who show a name, and lets them do nothing.
type named struct{}

func (named) Authenticate(r *http.Request) (Caller, *Problem) {
	if r.Header.Get("Authorization") == "" {
		return nil, New(http.StatusUnauthorized, "show who you are")
	}
	return nobody{}, nil
}

func get(h http.Handler, method, path, name string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	if name != "" {
		r.Header.Set("Authorization", name)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestRoutesAreServedToThoseWhoAreKnown(t *testing.T) {
	serve := func(text string) Endpoint {
		return func(w http.ResponseWriter, r *Request) int {
			if r.Caller == nil || Refusal(r.Caller.May(r.Context(), Action{})).Status != http.StatusForbidden {
				t.Error("there must be a caller, who may do nothing")
			}
			return JSON(w, http.StatusOK, text+r.PathValue("id"))
		}
	}
	var observed []string
	h := Handler([]Route{
		{Method: "GET", Path: "/a/{id}", Serve: serve("get ")},
		{Method: "DELETE", Path: "/a/{id}", Serve: serve("delete ")},
		{Method: "POST", Path: "/a/all", Serve: serve("post all ")},
		{Method: "GET", Path: "/open", Serve: serve("open"), Open: true},
	}, HandlerOptions{Authenticator: named{}, Observe: func(route string, status int, _ time.Duration) {
		observed = append(observed, fmt.Sprint(route, " ", status))
	}})
	for _, c := range []struct{ method, path, name, want, observed string }{
		{"GET", "/a/1", "me", `200 "get 1"`, "/a/{id} 200"},
		{"HEAD", "/a/1", "me", `200 "get 1"`, "/a/{id} 200"},
		{"DELETE", "/a/1", "me", `200 "delete 1"`, "/a/{id} 200"},
		{"GET", "/a/1", "", `401`, "/a/{id} 401"},
		{"POST", "/a/all", "me", `200 "post all "`, "/a/all 200"},
		{"GET", "/a/all", "me", `405`, "/a/all 405"},
		{"PUT", "/a/1", "me", `405`, "/a/{id} 405"},
		{"GET", "/open", "", `200 "open"`, "/open 200"},
		{"GET", "/b", "me", `404`, "other 404"},
		{"GET", "/a//1", "me", `404`, "other 404"},
		{"GET", "/a/../open", "me", `404`, "other 404"},
	} {
		observed = nil
		w := get(h, c.method, c.path, c.name)
		if got := fmt.Sprint(w.Code, " ", w.Body); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s %s: %s, want %s", c.method, c.path, got, c.want)
		}
		if diff := cmp.Diff([]string{c.observed}, observed); diff != "" {
			t.Errorf("%s %s (-want +got):\n%s", c.method, c.path, diff)
		}
		if allow := w.Header().Get("Allow"); (w.Code == 405) != (allow != "") {
			t.Errorf("%s %s: Allow %q", c.method, c.path, allow)
		}
		if (w.Code == 401) != (w.Header().Get("WWW-Authenticate") == "Bearer") {
			t.Errorf("%s %s: WWW-Authenticate %q", c.method, c.path, w.Header().Get("WWW-Authenticate"))
		}
	}
}

func TestRefusalsOfAccess(t *testing.T) {
	if p := Refusal(Anybody{}.May(context.Background(), Action{})); p != nil {
		t.Errorf("anybody: %+v", p)
	}
	if p := Refusal(fmt.Errorf("ask: %w", &Denied{Reason: "you lack it"})); p.Status != 403 || p.Detail != "you lack it" {
		t.Errorf("denied: %+v", p)
	}
	both := fmt.Errorf("ask: %w", &Denied{Reason: "not in a", Unnamed: "not there"})
	if p, q := Refusal(both), RefusalByID(both); p.Detail != "not in a" || q.Status != 403 || q.Detail != "not there" {
		t.Errorf("denied: %+v, by ID: %+v", p, q)
	}
	if p := RefusalByID(&Denied{Reason: "you lack it"}); p.Status != 403 || p.Detail != "you lack it" {
		t.Errorf("denied by ID: %+v", p)
	}
	if p := RefusalByID(ErrUnknown); p.Status != 503 || RefusalByID(nil) != nil {
		t.Errorf("unknown by ID: %+v", p)
	}
	w := httptest.NewRecorder()
	if Refusal(fmt.Errorf("ask 10.0.0.1: %w", ErrUnknown)).Write(w) != 503 || w.Header().Get("Retry-After") != "5" ||
		strings.Contains(w.Body.String(), "10.0.0.1") {
		t.Errorf("unknown: %d %v %s", w.Code, w.Header(), w.Body)
	}
}

func TestBodiesThatAreRefusedUnread(t *testing.T) {
	for name, c := range map[string]struct {
		method, contentType, encoding, text string
		status                              int
	}{
		"JSON":                           {"POST", "application/json; charset=UTF-8", "", `{}`, 0},
		"no type":                        {"POST", "", "", `{}`, 415},
		"a form":                         {"POST", "application/x-www-form-urlencoded", "", `{}`, 415},
		"another charset":                {"POST", "application/json; charset=latin1", "", `{}`, 415},
		"compressed":                     {"POST", "application/json", "gzip", `{}`, 415},
		"a merge patch":                  {"PATCH", "application/merge-patch+json", "", `{}`, 0},
		"a merge patch, but not patched": {"POST", "application/merge-patch+json", "", `{}`, 415},
		"as large as may be":             {"POST", "application/json", "", `{"name":"12345678"}`, 0},
		"too large":                      {"POST", "application/json", "", `{"name":"123456789"}`, 413},
	} {
		t.Run(name, func(t *testing.T) {
			for _, length := range []int64{int64(len(c.text)), -1} {
				r := httptest.NewRequest(c.method, "/", strings.NewReader(c.text))
				r.ContentLength = length
				r.Header = http.Header{"Content-Type": {c.contentType}, "Content-Encoding": {c.encoding}}
				p := Decode(httptest.NewRecorder(), r, 19, &body{})
				if (p == nil) != (c.status == 0) || (p != nil && p.Status != c.status) {
					t.Errorf("length %d: %+v, want %d", length, p, c.status)
				}
			}
		})
	}
}

// allowed lets a caller list in these namespaces; of "?" nobody can tell.
type allowed map[string]bool

func (a allowed) May(_ context.Context, do Action) error {
	switch {
	case do.Namespace == "?":
		return ErrUnknown
	case do.Verb == "list" && a[do.Namespace]:
		return nil
	default:
		return &Denied{Reason: "no"}
	}
}

func TestAScopeHoldsWhatTheCallerMayList(t *testing.T) {
	for name, c := range map[string]struct {
		may       allowed
		namespace string
		status    int // of the refusal at once
		holds     []string
		later     bool // nobody can tell of one
	}{
		"all":                          {allowed{"": true}, "", 0, []string{"a", "b", "?"}, false},
		"all, but asks for one":        {allowed{"": true, "a": true}, "a", 0, []string{"a"}, false},
		"one":                          {allowed{"b": true}, "", 0, []string{"b"}, true},
		"one, and asks for it":         {allowed{"b": true}, "b", 0, []string{"b"}, false},
		"one, and asks for another":    {allowed{"b": true}, "a", 403, nil, false},
		"asks for one nobody can tell": {allowed{"": true}, "?", 503, nil, false},
	} {
		scope, p := NewScope(t.Context(), c.may, Action{Verb: "list", Namespace: c.namespace})
		if c.status != 0 {
			if p == nil || p.Status != c.status {
				t.Errorf("%s: %+v", name, p)
			}
			continue
		}
		var holds []string
		for _, namespace := range []string{"a", "b", "b", "?"} {
			if scope.Holds(namespace) && (len(holds) == 0 || holds[len(holds)-1] != namespace) {
				holds = append(holds, namespace)
			}
		}
		if diff := cmp.Diff(c.holds, holds); diff != "" || (scope.Problem() != nil) != c.later {
			t.Errorf("%s: %+v (-want +got):\n%s", name, scope.Problem(), diff)
		}
	}
}

// A defect is answered and logged, and counted as what it is.
func TestAPanicIsToldToBothSides(t *testing.T) {
	var log bytes.Buffer
	seen := 0
	handler := Handler([]Route{{Method: http.MethodGet, Path: "/x/{id}", Open: true, Serve: func(http.ResponseWriter, *Request) int {
		panic("out of range")
	}}}, HandlerOptions{
		Authenticator: Anybody{}, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Observe: func(_ string, status int, _ time.Duration) { seen = status },
	})
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/x/y", nil))
	if w.Code != http.StatusInternalServerError || seen != w.Code || w.Header().Get("Content-Type") != "application/problem+json" {
		t.Errorf("answer %d %s, observed as %d", w.Code, w.Body, seen)
	}
	if strings.Contains(w.Body.String(), "out of range") {
		t.Errorf("the client is told of our insides: %s", w.Body)
	}
	for _, want := range []string{"level=ERROR", "route=/x/{id}", "out of range", "rest_test.go"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q: %s", want, &log)
		}
	}
}
