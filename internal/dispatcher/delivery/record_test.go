// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nexus.io/webhooks/internal/dispatcher/history"
	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/routing"
)

func TestAnAttemptIsRecordedAsItWas(t *testing.T) {
	var sent http.Header
	e := startEndpoint(t, func(w http.ResponseWriter, r *http.Request) {
		sent = r.Header.Clone()
		w.WriteHeader(http.StatusBadGateway)
		_, _ = w.Write([]byte(strings.Repeat("x", 3000)))
	}, plain)
	route := testRoute(e.URL + "/path?" + secretQuery)
	route.Headers = append(route.Headers, routing.Header{Name: "x-own", Value: "mine"},
		routing.Header{Name: "X-NEXUS-EVENT", Value: "not this"})
	r := newRig(newTransport(t, e), nil, route)
	for attempt := 1; attempt <= 2; attempt++ {
		got := history.Record{ID: testLease(1).DeliveryID, EventType: testLease(1).EventType}
		before := time.Now().Truncate(time.Microsecond)
		if err := history.ReadAttempts(r.wholeOne(testLease(attempt)).Attempt, &got); err != nil {
			t.Fatal(err)
		}
		a := got.Attempts[0]
		if a.StartedAt.Before(before) || a.Duration <= 0 {
			t.Errorf("started at %v for %v", a.StartedAt, a.Duration)
		}
		a.StartedAt, a.Duration = time.Time{}, 0
		headers := map[string]string{"X-Own": "mine"}
		for _, name := range ownHeaders {
			if value := sent.Get(name); value != "" {
				headers[name] = value
			}
		}
		want := history.Attempt{
			Number: attempt, StatusCode: 502, Reason: "server_error", Error: "the endpoint answered 502 Bad Gateway",
			ResponseBody: []byte(strings.Repeat("x", 1000)), ConnectionReused: attempt == 2,
			RemoteAddress: strings.TrimPrefix(strings.TrimPrefix(e.URL, "https://"), "http://"), RequestHeaders: headers,
		}
		if diff := cmp.Diff(want, a); diff != "" {
			t.Errorf("attempt (-want +got):\n%s", diff)
		}
		if got.RequestURL != e.URL+"/path" {
			t.Errorf("went to %s", got.RequestURL)
		}
	}
}

func TestWhatWasNotSentIsNoAttempt(t *testing.T) {
	if got := packed(testRoute("https://endpoint.test/"), queue.Settlement{Result: queue.Release}, Exchange{}); got != nil {
		t.Errorf("recorded %x", got)
	}
}
