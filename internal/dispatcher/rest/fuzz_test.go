// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// What fits is taken and read as it was meant; the same with a field more, or cut off anywhere, is not.
func FuzzDecodeReadsWhatWasWritten(f *testing.F) {
	f.Add("name", "key", int32(7), 1.5, int64(1_767_323_045), "extra", 5)
	f.Add("\u2028<&>\"", "", int32(-1), -1e-300, int64(0), "name", 0)
	f.Fuzz(func(t *testing.T, name, key string, most int32, ratio float64, since int64, extra string, cut int) {
		at := time.Unix(since%253_402_300_799, 0).UTC()
		want := body{
			Name: name, Active: new(most > 0), Events: []string{name, key}, Since: &at, Ratio: ratio,
			Labels: map[string]string{key: name}, Any: []any{name, nil, ratio}, Raw: json.RawMessage(`{"a":[]}`),
		}
		want.Inner = &inner{Max: &most}
		text, err := json.Marshal(want)
		if err != nil || !utf8.ValidString(name) || !utf8.ValidString(key) || at.Year() < 0 {
			return // a number or a time that JSON has not, or texts that it changes
		}
		decode := func(text []byte, into *body) *Problem {
			r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(text))
			r.Header.Set("Content-Type", "application/json; charset=UTF-8")
			return Decode(httptest.NewRecorder(), r, int64(len(text)), into)
		}
		var got body
		if p := decode(text, &got); p != nil {
			t.Fatalf("%s is refused: %+v", text, p)
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(body{}), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("(-written +read):\n%s", diff)
		}
		more := append(append([]byte("{"), Marshal(extra)...), []byte(":1,"+string(text[1:]))...)
		if p := decode(more, new(body)); p == nil || p.Status != http.StatusUnprocessableEntity {
			t.Errorf("%s is taken: %+v", more, p)
		}
		if short := text[:len(text)-1-max(cut, -cut)%(len(text)-1)]; decode(short, new(body)) == nil {
			t.Errorf("%s is taken", short)
		}
	})
}

// A query is refused, or what is read of it is within the bounds that were asked for and means the same when it is
// written again; what nobody asked for is named.
func FuzzQuery(f *testing.F) {
	f.Add("name=a%20b&limit=7&active=False&since=2026-01-02T03:04:05Z&kind=two&cursor=eyJpZCI6IngifQ")
	f.Add("limit=+7&active=T&since=2026-01-02t03:04:05%2B01:00")
	f.Add("name=%ff&limit=9999999999999999999&x=1;y")
	f.Add("")
	f.Fuzz(func(t *testing.T, query string) {
		read, problem := readQuery(query)
		given, err := url.ParseQuery(query)
		if problem != nil {
			wantRefusal(t, problem, given, err)
			return
		}
		kinds := []string{"", "one", "two"}
		if err != nil || read.Limit < 1 || read.Limit > 10 || !slices.Contains(kinds, read.Kind) || !utf8.ValidString(read.Name) {
			t.Errorf("%q is taken as %+v", query, read)
		}
		for name, values := range given {
			if len(values) != 1 || !slices.Contains(readNames, name) {
				t.Errorf("%q is taken with %s=%q", query, name, values)
			}
		}
		if again, problem := readQuery(given.Encode()); problem != nil || !cmp.Equal(read, again) {
			t.Errorf("%q reads as %+v, %q as %+v", given.Encode(), again, query, read)
		}
	})
}

// readFrom is what a call with each kind of parameter reads.
type readFrom struct {
	Name, Kind, Place string
	Limit             int
	Active, Continued bool
	Since             time.Time
}

var readNames = []string{"name", "limit", "active", "since", "kind", "cursor"}

func readQuery(query string) (r readFrom, problem *Problem) {
	var place struct {
		ID string `json:"id"`
	}
	p := Query(&http.Request{URL: &url.URL{RawQuery: query}})
	r = readFrom{
		Name: p.String("name"), Limit: p.Int("limit", 1, 10, 5), Active: p.Bool("active", true), Since: p.Time("since"),
		Kind: p.Enum("kind", "one", "two"), Continued: p.Cursor("cursor", &place),
	}
	r.Place = place.ID
	return r, p.Problem()
}

func wantRefusal(t *testing.T, p *Problem, given url.Values, malformed error) {
	t.Helper()
	if p.Status != http.StatusBadRequest && p.Status != http.StatusUnprocessableEntity {
		t.Errorf("status %d", p.Status)
	}
	if len(p.Errors) == 0 || len(p.Errors) > maxMistakes || (malformed != nil && p.Status != http.StatusBadRequest) {
		t.Errorf("%d of %d, %v", p.Status, len(p.Errors), malformed)
	}
	for _, e := range p.Errors {
		shortened := strings.HasSuffix(e.Field, "...") || strings.Contains(e.Field, "?")
		if _, has := given[e.Field]; !has && e.Field != "" && e.Field != `""` && !shortened && malformed == nil {
			t.Errorf("names %q, which was not given", e.Field)
		}
		if !utf8.ValidString(e.Field + e.Message) {
			t.Errorf("%q: %q is not UTF-8", e.Field, e.Message)
		}
	}
}

// A cursor leads back to where it was made, and what is taken for one is.
func FuzzCursor(f *testing.F) {
	f.Add("sub_1", int64(7), true, Cursor(map[string]any{"id": "x", "n": 1}))
	f.Add("", int64(-1), false, "e30")
	type place struct {
		ID   string `json:"id"`
		N    int64  `json:"n"`
		Flag bool   `json:"flag"`
	}
	f.Fuzz(func(t *testing.T, id string, n int64, flag bool, foreign string) {
		id = strings.ToValidUTF8(id, "")
		want, got := place{id, n, flag}, place{}
		text := Cursor(want)
		err := decodeCursor(text, &got)
		if len(text) <= maxCursor && (err != nil || got != want) || len(text) > maxCursor && err == nil {
			t.Errorf("%+v comes back as %+v: %v", want, got, err)
		}
		if url.QueryEscape(text) != text {
			t.Errorf("%s has to be escaped", text)
		}
		var other, again place
		if decodeCursor(foreign, &other) != nil {
			return
		}
		if err := decodeCursor(Cursor(other), &again); (err != nil || other != again) && len(Cursor(other)) <= maxCursor {
			t.Errorf("%q is taken as %+v, which comes back as %+v: %v", foreign, other, again, err)
		}
	})
}
