// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package history

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func packed() ([]byte, Record) {
	r := Record{ID: "01890000-0000-7000-8000-000000000001", EventType: "build.completed"}
	signature := "sha256=" + strings.Repeat("0a", 32)
	first := Attempt{
		Number: 1, StartedAt: time.UnixMicro(1_700_000_000_123_456).UTC(), Duration: 1500 * time.Microsecond, StatusCode: 503,
		Reason: "server_error", Error: "the endpoint answered 503", ResponseBody: []byte("no\x00\xff"), RemoteAddress: "192.0.2.1:443",
	}
	second := first
	second.Number, second.StatusCode, second.Reason, second.Error, second.ConnectionReused = 2, 200, "", "", true
	b := AppendAttempt(nil, &first, "https://a.example/old", nil)
	b = AppendAttempt(b, &second, "https://a.example/x", []Header{
		{"Content-Type", "application/json"}, {"X-Nexus-Delivery", r.ID}, {"X-Nexus-Event", r.EventType},
		{"X-Nexus-Signature-256", signature}, {"X-Nexus-Signature-256-Alt", "sha256=odd"}, {"X-Own", ""},
	})
	second.RequestHeaders = map[string]string{
		"Content-Type": "application/json", "X-Nexus-Delivery": r.ID, "X-Nexus-Event": r.EventType,
		"X-Nexus-Signature-256": signature, "X-Nexus-Signature-256-Alt": "sha256=odd", "X-Own": "",
	}
	want := r
	want.RequestURL, want.Attempts = "https://a.example/x", []Attempt{first, second}
	return b, want
}

func TestPackedAttemptsReadAsTheyWere(t *testing.T) {
	b, want := packed()
	got := Record{ID: want.ID, EventType: want.EventType}
	if err := ReadAttempts(b, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestPackedAttemptsAreBounded(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	headers := make([]Header, 100)
	for i := range headers {
		headers[i] = Header{"X-" + long[:i], long[:100]}
	}
	a := Attempt{Number: 1, Reason: long, Error: long, ResponseBody: []byte(long), RemoteAddress: long}
	if n := len(AppendAttempt(nil, &a, long, headers)); n > 12<<10 {
		t.Errorf("%d bytes", n)
	}
}

func FuzzReadAttempts(f *testing.F) {
	b, _ := packed()
	f.Add(b)
	f.Add(b[:len(b)-1])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Record
		before := bytes.Clone(b)
		if err := ReadAttempts(b, &r); err == nil && len(r.Attempts) > MaxAttempts {
			t.Errorf("%d attempts", len(r.Attempts))
		}
		if !bytes.Equal(before, b) {
			t.Error("changed what it read")
		}
	})
}
