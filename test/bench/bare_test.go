// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"nexus.io/webhooks/internal/event"
	"nexus.io/webhooks/internal/signing"
)

func TestTheBareClientPostsTheBodyOfADelivery(t *testing.T) {
	requests := make(chan struct{}, 2)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		defer func() { requests <- struct{}{} }()
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		// A delivery's body is an event in its final form: to parse and render it again changes nothing.
		e, err := event.Parse(body, time.Time{})
		if again := string(e.AppendBody(nil)); err != nil || again != string(body) {
			t.Errorf("error %v, body\n%s\nwant\n%s", err, body, again)
		}
		want := signing.Sign([]byte("a secret of some length for bench"), r.Header.Get("X-Nexus-Timestamp"), body)
		if got := r.Header.Get("X-Nexus-Signature-256"); got != want {
			t.Errorf("signature %s, want %s", got, want)
		}
	}))
	defer server.Close()
	if err := bare(t.Context(), []string{server.URL, "2"}); err != nil {
		t.Fatal(err)
	}
	if got := len(requests); got != 2 {
		t.Errorf("%d requests, want 2", got)
	}
}
