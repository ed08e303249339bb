// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package quickstart

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"nexus.io/webhooks/internal/signing"
)

func TestTheReceiverTakesOnlyWhatIsSignedWithTheKey(t *testing.T) {
	const key, timestamp, body = "0123456789abcdef", "2026-01-02T03:04:05Z", `{"id":"evt_1"}`
	cases := map[string]struct {
		key       func(context.Context) ([]byte, error)
		signature string
		status    int
		told      string
	}{
		"a good signature": {
			given(key), signing.Sign([]byte(key), timestamp, []byte(body)), http.StatusOK,
			"took build.completed, delivery d-1, signature verified: " + body,
		},
		"a signature by another key": {
			given(key), signing.Sign([]byte("another key here"), timestamp, []byte(body)), http.StatusUnauthorized,
			"the signature is not by the subscription's key",
		},
		"no signature": {given(key), "", http.StatusUnauthorized, "the signature is not by the subscription's key"},
		"no key to be had": {
			func(context.Context) ([]byte, error) { return nil, errors.New("gone") },
			signing.Sign([]byte(key), timestamp, []byte(body)), http.StatusInternalServerError, "cannot verify: gone",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var told transcript
			s := &supervisor{story: newStory(&told)}
			defer s.stop()
			r, err := startReceiver(t.Context(), s, tc.key)
			if err != nil {
				t.Fatal(err)
			}
			header := http.Header{
				"X-Nexus-Event": {"build.completed"}, "X-Nexus-Delivery": {"d-1"},
				"X-Nexus-Timestamp": {timestamp}, "X-Nexus-Signature-256": {tc.signature},
			}
			if got := post(t, r.url, body, header); got != tc.status {
				t.Errorf("status = %d, want %d", got, tc.status)
			}
			if !strings.Contains(told.String(), tc.told) {
				t.Errorf("told %q, want %q in it", told.String(), tc.told)
			}
			if arrived := len(r.arrivals) == 1; arrived != (tc.status == http.StatusOK) {
				t.Errorf("an arrival was reported: %t", arrived)
			}
		})
	}
}

func given(key string) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) { return []byte(key), nil }
}

func post(t *testing.T, url, body string, header http.Header) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header = header
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	if err := response.Body.Close(); err != nil {
		t.Error(err)
	}
	return response.StatusCode
}
