// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"nexus.io/webhooks/internal/dispatcher/rest"
	"nexus.io/webhooks/internal/signing"
)

func verified(target, contentType, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/api/v1/verify-signature", strings.NewReader(body))
	r.URL.RawQuery = target
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	w := httptest.NewRecorder()
	verify(w, &rest.Request{Request: r})
	return w
}

// Whichever way the four come, the answer is the same, and right.
func FuzzVerifyReadsAllFormsAlike(f *testing.F) {
	f.Add(`{"test": true}`, "2025-11-30T10:30:00Z", "sha256=abc123", "your-secret", true)
	f.Add("a+b c&d=e;f%", "+", " ", "\u2028\x00", false)
	f.Fuzz(func(t *testing.T, payload, timestamp, signature, secret string, sign bool) {
		if sign {
			signature = signing.Sign([]byte(secret), timestamp, []byte(payload))
		}
		given := map[string]string{"payload": payload, "timestamp": timestamp, "signature": signature, "secret": secret}
		values, isText := url.Values{}, true
		for name, value := range given {
			values.Set(name, value)
			isText = isText && utf8.ValidString(value)
		}
		text, err := json.Marshal(given)
		if err != nil {
			t.Fatal(err)
		}
		query := verified(values.Encode(), "", "")
		if form := verified("", "application/x-www-form-urlencoded", values.Encode()); form.Body.String() != query.Body.String() {
			t.Errorf("as a form: %s, in the query: %s", form.Body, query.Body)
		}
		if !isText {
			if query.Code != http.StatusBadRequest {
				t.Errorf("%d %s", query.Code, query.Body)
			}
			return
		}
		if as := verified("", "application/json", string(text)); as.Body.String() != query.Body.String() {
			t.Errorf("as JSON: %s, in the query: %s", as.Body, query.Body)
		}
		if max(len(timestamp), len(signature), len(secret)) > maxSecret {
			if query.Code != http.StatusUnprocessableEntity {
				t.Errorf("%d %s", query.Code, query.Body)
			}
			return
		}
		right := signing.Verify([]byte(secret), timestamp, []byte(payload), signature)
		wantVerdict(t, query, verdict{Valid: right, Timestamp: timestamp, Signature: signature})
	})
}

// wantVerdict wants this verdict, with any reason.
func wantVerdict(t *testing.T, w *httptest.ResponseRecorder, want verdict) {
	t.Helper()
	var got verdict
	err := json.Unmarshal(w.Body.Bytes(), &got)
	want.Reason = got.Reason
	if err != nil || w.Code != http.StatusOK || got.Reason == "" || got != want {
		t.Errorf("%d %s %v, want %+v", w.Code, w.Body, err, want)
	}
}

// What comes raw is refused with a reason, or all four were there once.
func FuzzVerifyTakesEachOnce(f *testing.F) {
	const form, jsonType = "application/x-www-form-urlencoded", "application/json"
	f.Add("payload=a&timestamp=b&signature=c&secret=d", "", "")
	f.Add("payload=a&secret=d", form, "timestamp=b&signature=c&secret=e")
	f.Add("", jsonType, `{"payload":"a","timestamp":"b","signature":"c","secret":null}`)
	f.Add("a;b", jsonType+"; charset=x", "%")
	f.Fuzz(func(t *testing.T, query, contentType, body string) {
		w := verified(query, contentType, body)
		var p rest.Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
			t.Fatalf("%d %s: %v", w.Code, w.Body, err)
		}
		switch w.Code {
		case http.StatusOK:
			for _, name := range []string{"payload", "timestamp", "signature", "secret"} {
				if n := strings.Count(query+body, name); n < 1 && !strings.ContainsAny(query+body, `%\`) {
					t.Errorf("taken without %s: %q %q", name, query, body)
				}
			}
		case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusUnsupportedMediaType:
			if p.Status != w.Code || (p.Detail == "" && len(p.Errors) == 0) {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		default:
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}
