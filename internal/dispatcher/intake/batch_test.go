// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nexus.io/webhooks/internal/event"
)

type batchAnswer struct {
	Total   int        `json:"total_events"`
	Results []accepted `json:"results"`
}

func wantBatch(t *testing.T, w *httptest.ResponseRecorder) batchAnswer {
	t.Helper()
	var b batchAnswer
	if err := json.Unmarshal(w.Body.Bytes(), &b); err != nil || w.Code != http.StatusAccepted {
		t.Fatalf("answer %d %s (%v), want 202", w.Code, w.Body, err)
	}
	if b.Total != len(b.Results) {
		t.Fatalf("%d events, %d results: %s", b.Total, len(b.Results), w.Body)
	}
	return b
}

func TestBatchIsOneCallOfTheQueue(t *testing.T) {
	f := newFixture(t, nil)
	for _, body := range []string{`[` + buildFailed + `,` + released + `]`, `{"events":[` + buildFailed + `,` + released + `]}`} {
		got := wantBatch(t, f.post("/api/v1/events/batch", body))
		if got.Results[0].Matched != 2 || got.Results[1].Matched != 0 || got.Results[1].EventType != "release.completed" {
			t.Errorf("answer %+v", got)
		}
	}
	if diff := cmp.Diff([]int{2, 2}, f.queue.calls); diff != "" {
		t.Errorf("calls of the queue (-want +got):\n%s", diff)
	}
}

func TestLargeBatchIsPublishedInParts(t *testing.T) {
	f := newFixture(t, nil)
	body := `[` + strings.Repeat(released+`,`, 449) + released + `]`
	if got := wantBatch(t, f.post("/api/v1/events/batch", body)); got.Total != 450 {
		t.Errorf("%d events", got.Total)
	}
	if diff := cmp.Diff([]int{200, 200, 50}, f.queue.calls); diff != "" {
		t.Errorf("calls of the queue (-want +got):\n%s", diff)
	}
}

func TestBadEventDoesNotSpoilTheOthers(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Limits.MaxEventBytes = 1000 })
	f.queue.full = map[string]bool{"ticket.created": true}
	body := `[` + strings.Join([]string{
		buildFailed,
		`{"type":"build.fialed","source":"<ci>","data":{}}`,
		`5`,
		`{"type":"ticket.created","source":"ci","data":{}}`,
		`{"type":"build.failed","source":"ci","data":{"a":"` + strings.Repeat("x", 1000) + `"}}`,
		`{"type":"build.failed","source":"ci","data":` + strings.Repeat(`[`, 100) + strings.Repeat(`]`, 100) + `}`,
		released,
	}, ",") + `]`
	w := f.post("/api/v1/events/batch", body)
	got := wantBatch(t, w)
	type outcome struct {
		Index, Status int
		Error         string
		Fields        int
	}
	var outcomes []outcome
	for _, r := range got.Results {
		outcomes = append(outcomes, outcome{r.Index, r.Status, r.Error, len(r.Errors)})
	}
	want := []outcome{
		{},
		{1, 422, `type "build.fialed" is not a known event type; did you mean "build.failed"?`, 1},
		{2, 422, "an event must be a JSON object with the fields type, source and data", 1},
		{3, 429, "the queue is full: send this again later; nothing that was accepted before is lost", 0},
		{4, 413, "the body is larger than 1000 bytes: send less at once, or a link to the data in place of the data", 0},
		{5, 422, "data is nested deeper than 64 levels", 1},
		{},
	}
	if diff := cmp.Diff(want, outcomes); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
	if len(f.queue.taken) != 2 {
		t.Errorf("%d events are queued, want 2", len(f.queue.taken))
	}
}

func TestBatchOfBadEventsIsAnsweredOneByOne(t *testing.T) {
	f := newFixture(t, nil)
	if got := wantBatch(t, f.post("/api/v1/events/batch", `[{},{}]`)); got.Results[1].Status != 422 {
		t.Errorf("answer %+v", got)
	}
	w := f.post("/api/v1/events/batch", `[]`)
	if got := w.Body.String(); got != `{"total_events":0,"results":[]}` || w.Code != 202 {
		t.Errorf("an empty batch: %d %s", w.Code, got)
	}
	if len(f.queue.calls) != 0 {
		t.Errorf("the queue was called for nothing")
	}
}

func TestEachEventOfABatchHasItsOwnKey(t *testing.T) {
	f := newFixture(t, nil)
	body := `[` + released + `,` + released + `,{"id":"own",` + released[1:] + `,{"id":"own",` + released[1:] + `]`
	post := func() *httptest.ResponseRecorder {
		return f.post("/api/v1/events/batch", body, "Idempotency-Key", "k")
	}
	first, again := post(), post()
	var ids []string
	for _, r := range wantBatch(t, first).Results {
		ids = append(ids, r.EventID)
	}
	want := []string{event.IDFromKey("k/0"), event.IDFromKey("k/1"), "own", "own"}
	if diff := cmp.Diff(want, ids); diff != "" {
		t.Errorf("ids (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(first.Body.String(), again.Body.String()); diff != "" || len(f.queue.taken) != 3 {
		t.Errorf("%d events queued; answers (-first +again):\n%s", len(f.queue.taken), diff)
	}
}

func TestBatchesThatAreRefusedAsAWhole(t *testing.T) {
	for name, c := range map[string]struct {
		body   string
		status int
		detail string
	}{
		"not JSON":     {`[{}`, 400, "the body is not JSON: the text ends where a comma or ']' must be at line 1, column 4"},
		"broken event": {`[{},{"a"]`, 400, "the body is not JSON: unexpected ']' where a colon must be at line 1, column 9"},
		"single event": {released, 422, `type is not a field of a batch, which is an array of events, or {"events": […]}`},
		"many":         {`[` + strings.Repeat("1,", 1000) + `1]`, 413, "a batch may hold at most 1000 events: send it in parts"},
		"large": {`[` + strings.Repeat(" ", 1<<20), 413,
			"the body is larger than 1048576 bytes: send less at once, or a link to the data in place of the data"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, func(o *Options) { o.Limits.MaxBatchBytes = 1 << 20 })
			p := wantProblem(t, f.post("/api/v1/events/batch", c.body), c.status)
			if diff := cmp.Diff(c.detail, p.Detail); diff != "" {
				t.Errorf("detail (-want +got):\n%s", diff)
			}
		})
	}
}
