// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package history

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// What is packed reads as Clean would have it.
func FuzzPackedAttemptsReadAsTheyWere(f *testing.F) {
	f.Add(1, int64(1_700_000_000_123_456), int64(1500), 503, true, "timeout", "it hung", []byte("no\x00\xff"), "192.0.2.1:443",
		"https://a.example/x", "X-Own", "v")
	f.Add(-1, int64(-1), int64(-1), 7_000, false, "\x00", "\xff", []byte{}, "", "", "Content-Type", "application/json")
	f.Fuzz(func(t *testing.T, number int, started, took int64, status int, reused bool, reason, message string, answer []byte,
		remote, address, name, value string) {
		const year = int64(365 * 24 * time.Hour / time.Microsecond)
		a := Attempt{
			Number: number % 1000, StartedAt: time.UnixMicro(started % (100 * year)), Duration: time.Duration(took % (year / 1000) * 1000),
			StatusCode: status % 1000, ConnectionReused: reused, Reason: reason, Error: message, ResponseBody: answer,
			RemoteAddress: remote,
		}
		r := Record{ID: "01890000-0000-7000-8000-000000000001", EventType: "build.completed"}
		packed := AppendAttempt(nil, &a, address, []Header{{name, value}, {"X-Nexus-Event", r.EventType}})
		a.RequestHeaders = map[string]string{text(name, MaxIdentifier): text(value, MaxText), "X-Nexus-Event": r.EventType}
		switch name {
		case "X-Nexus-Event", "X-Nexus-Delivery": // whose values are not packed, being the record's
			return
		}
		want := Clean(Record{Attempts: []Attempt{a}}).Attempts
		if len(name)+len(value) > maxPackedHeaders {
			want[0].RequestHeaders = nil // nor what comes behind
		}
		if err := ReadAttempts(packed, &r); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, r.Attempts, cmpopts.EquateEmpty()); diff != "" || r.RequestURL != text(address, MaxURL) {
			t.Errorf("%q (-want +got):\n%s", r.RequestURL, diff)
		}
		if ReadAttempts(packed[:len(packed)-1], &Record{}) == nil {
			t.Error("what is cut off is taken")
		}
	})
}
