// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nexus.io/webhooks/internal/dispatcher/history"
	"nexus.io/webhooks/internal/dispatcher/history/postgres"
)

func TestARecordIsReadAsItWasWritten(t *testing.T) {
	r := newRig(t)
	now := time.Now()
	body := []byte(`{"id":"evt_1"}`)
	want := record(now)
	want.ReplayOf, want.Body = idAt(now.Add(-time.Hour)), history.RefOf(body)
	want.Status, want.Reason, want.Error = history.Failed, "http_status", "the endpoint answered 500"
	want.Attempts = []history.Attempt{
		{Number: 1, Reason: "timeout", Error: "there was no answer in time", Duration: 30 * time.Second},
		{Number: 2, StartedAt: want.CompletedAt, Duration: 1234 * time.Microsecond, StatusCode: 500, Reason: "http_status",
			Error: "the endpoint answered 500", ResponseBody: []byte("<html>"), ConnectionReused: true,
			RemoteAddress: "192.0.2.1:443", RequestHeaders: map[string]string{"X-Nexus-Signature-256": "sha256=00"}},
	}
	written, err := r.Write(t.Context(), history.Batch{
		Records: []history.Record{want}, Bodies: map[history.BodyRef][]byte{want.Body: body},
	})
	if diff := cmp.Diff(history.Written{Stored: 1}, written); err != nil || diff != "" {
		t.Fatalf("error %v, written:\n%s", err, diff)
	}
	if diff := cmp.Diff(want, r.get(want.ID)); diff != "" {
		t.Error("read by its id (-want +got):\n" + diff)
	}
	page, err := r.List(t.Context(), history.Filter{})
	want.Attempts = want.Attempts[1:]
	if diff := cmp.Diff(history.Page{Records: []history.Record{want}}, page); err != nil || diff != "" {
		t.Errorf("listed: error %v (-want +got):\n%s", err, diff)
	}
	bodies, err := r.Bodies(t.Context(), page.Records, 1000)
	if diff := cmp.Diff(map[history.BodyRef][]byte{want.Body: body}, bodies); err != nil || diff != "" {
		t.Errorf("bodies: error %v (-want +got):\n%s", err, diff)
	}
	if _, err := r.Get(t.Context(), idAt(now)); !errors.Is(err, history.ErrNotFound) {
		t.Errorf("another id: %v", err)
	}
}

func TestWithoutAttemptsAndBody(t *testing.T) {
	r := newRig(t)
	want := record(time.Now())
	want.Status, want.Reason, want.Attempts = history.Canceled, "canceled", nil
	r.write(want)
	if diff := cmp.Diff(want, r.get(want.ID)); diff != "" {
		t.Error("(-want +got):\n" + diff)
	}
}

func TestHostileBytesAreKeptOrCleanedAndNeverFailABatch(t *testing.T) {
	r := newRig(t)
	hostile := []string{"\x00", "\xff\xfe", `\u0000`, "\u2028\x00", "\xed\xa0\x80", `"}`, "\\", "\t\\N\n\\.\n", strings.Repeat("\xf0", 4000)}
	batch := records(2, time.Now())
	for _, text := range hostile {
		bad := record(time.Now())
		bad.Error, bad.Reason, bad.RequestURL = text, text, text
		bad.Attempts = []history.Attempt{{Number: 1, ResponseBody: []byte(text), Error: text, Reason: text, RemoteAddress: text,
			RequestHeaders: map[string]string{text: text}}, {Number: 2, ResponseBody: []byte(text)}}
		batch = append(batch, bad)
	}
	if diff := cmp.Diff(history.Written{Stored: len(batch)}, r.write(batch...)); diff != "" {
		t.Fatal(diff)
	}
	for i := range batch {
		got := r.get(batch[i].ID)
		if diff := cmp.Diff(history.Clean(batch[i]), got); diff != "" {
			t.Errorf("record %d (-want +got):\n%s", i, diff)
		}
		if want := batch[i].Attempts[0].ResponseBody; string(got.Attempts[0].ResponseBody) != string(want[:min(len(want), 1000)]) {
			t.Errorf("record %d: the answer became %q", i, got.Attempts[0].ResponseBody)
		}
	}
}

func TestABatchWrittenAgainChangesNothing(t *testing.T) {
	r := newRig(t)
	batch := records(3, time.Now())
	r.write(batch[:2]...)
	changed := batch[0]
	changed.Error = "something else"
	written := r.write(changed, batch[1], batch[2], batch[2])
	if diff := cmp.Diff(history.Written{Stored: 1, Repeated: 3}, written); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(batch[0], r.get(batch[0].ID)); diff != "" {
		t.Error("(-want +got):\n" + diff)
	}
	if got := r.count(); got != "3" {
		t.Errorf("there are %s rows", got)
	}
}

func TestALaterRoundReplacesAnEarlierWhicheverComesFirst(t *testing.T) {
	for name, order := range map[string][]int{"in order": {0, 1, 2}, "the other way round": {2, 1, 0}, "repeated": {0, 1, 0, 2, 1}} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			rounds := []history.Record{record(time.Now())}
			rounds[0].Status, rounds[0].Reason = history.Failed, "timeout"
			rounds = append(rounds, rounds[0], rounds[0])
			rounds[1].Round, rounds[1].Attempts = 2, []history.Attempt{{Number: 2, Error: "again"}, {Number: 3}}
			rounds[2].Round, rounds[2].Attempts, rounds[2].Status, rounds[2].Reason = 3, []history.Attempt{{Number: 4, StatusCode: 204}}, history.Success, ""
			stored := 0
			for _, i := range order {
				stored += r.write(rounds[i], record(time.Now())).Stored
			}
			want := rounds[2]
			want.Attempts = []history.Attempt{rounds[0].Attempts[0], rounds[1].Attempts[0], rounds[1].Attempts[1], rounds[2].Attempts[0]}
			if diff := cmp.Diff(want, r.get(want.ID)); diff != "" {
				t.Error("(-want +got):\n" + diff)
			}
			if want := map[string]int{"in order": 6, "the other way round": 4, "repeated": 8}[name]; stored != want {
				t.Errorf("%d records were stored, want %d", stored, want)
			}
		})
	}
}

func TestRoundsInOneBatchAreMerged(t *testing.T) {
	r := newRig(t)
	first := record(time.Now())
	first.Status, first.Reason = history.Failed, "timeout"
	second, third := first, first
	second.Round, second.Attempts = 2, []history.Attempt{{Number: 2}}
	third.Round, third.Attempts, third.Status, third.Reason = 3, []history.Attempt{{Number: 3}}, history.Success, ""
	if diff := cmp.Diff(history.Written{Stored: 1, Repeated: 2}, r.write(third, first, second)); diff != "" {
		t.Error(diff)
	}
	want := third
	want.Attempts = []history.Attempt{first.Attempts[0], second.Attempts[0], third.Attempts[0]}
	if diff := cmp.Diff(want, r.get(first.ID)); diff != "" {
		t.Error("(-want +got):\n" + diff)
	}
}

func TestAnEventsBodyIsStoredOnceADay(t *testing.T) {
	r := newRig(t)
	body := []byte(strings.Repeat("x", 5000))
	today := time.Now()
	batch := append(records(5, today), records(5, today.AddDate(0, 0, -1))...)
	for i := range batch {
		batch[i].Body = history.RefOf(body)
	}
	bodies := map[history.BodyRef][]byte{history.RefOf(body): body}
	for _, part := range [][]history.Record{batch[:3], batch[2:]} {
		if _, err := r.Write(t.Context(), history.Batch{Records: part, Bodies: bodies}); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.value("SELECT count(*)::text FROM nexus_webhooks.bodies"); got != "2" {
		t.Errorf("there are %s bodies", got)
	}
	for i := range batch {
		if got, err := r.Bodies(t.Context(), batch[i:i+1], 5000); err != nil || string(got[batch[i].Body]) != string(body) {
			t.Errorf("record %d has another body, or error %v", i, err)
		}
	}
	other := record(today)
	other.Body = history.RefOf([]byte("{}"))
	if _, err := r.Write(t.Context(), history.Batch{
		Records: []history.Record{other}, Bodies: map[history.BodyRef][]byte{other.Body: []byte("{}")},
	}); err != nil {
		t.Fatal(err)
	}
	if got, err := r.Bodies(t.Context(), []history.Record{other}, 2); err != nil || string(got[other.Body]) != "{}" {
		t.Errorf("a body of today alone is %q, or error %v", got[other.Body], err)
	}
	if got, err := r.Bodies(t.Context(), batch, 4999); err != nil || len(got) != 0 {
		t.Errorf("%d bodies are beyond the bound, or error %v", len(got), err)
	}
}

func TestManyRecordsGoInSeveralTransactions(t *testing.T) {
	r := newRig(t)
	n := 2*postgres.MaxRows + 1
	batch := records(n, time.Now())
	if got := r.write(batch...).Stored; got != n {
		t.Errorf("%d of %d were stored", got, n)
	}
	if got := r.write(batch...).Repeated; got != n {
		t.Errorf("%d of %d were repeated", got, n)
	}
}

func TestWhatNobodyCanStoreIsRejectedAndTheRestStored(t *testing.T) {
	r := newRig(t)
	r.value("ALTER TABLE nexus_webhooks.deliveries ADD CHECK (event_type <> 'poison')")
	batch := records(100, time.Now())
	batch[3].ID = "poison"
	batch[17].EventType = "poison"
	batch[18].EventType = "poison"
	batch[99].EventType = "poison"
	batch[50].ID = idAt(time.Now().AddDate(0, 0, 4))
	batch[51].Status = "pending"
	written := r.write(batch...)
	if written.Stored != 94 || len(written.Rejected) != 6 {
		t.Errorf("%d stored and %d rejected", written.Stored, len(written.Rejected))
	}
	rejected := map[string]bool{}
	for _, rejection := range written.Rejected {
		rejected[rejection.ID] = rejection.Err != nil
	}
	for _, i := range []int{3, 17, 18, 99, 50, 51} {
		if !rejected[batch[i].ID] {
			t.Errorf("record %d is not named with its error: %v", i, written.Rejected)
		}
	}
	if got := r.count(); got != "94" {
		t.Errorf("there are %s rows", got)
	}
}

func TestACallEndsWithItsContext(t *testing.T) {
	r := newRig(t)
	r.write(record(time.Now()))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Write(ctx, history.Batch{Records: records(1, time.Now())}); !errors.Is(err, context.Canceled) {
		t.Errorf("write: %v", err)
	}
	if _, err := r.List(ctx, history.Filter{}); !errors.Is(err, context.Canceled) {
		t.Errorf("list: %v", err)
	}
}
