// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nexus.io/webhooks/internal/dispatcher/queue"
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
	want := []string{event.IDFromBatchKey("k", 0), event.IDFromBatchKey("k", 1), "own", "own"}
	if diff := cmp.Diff(want, ids); diff != "" {
		t.Errorf("ids (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(first.Body.String(), again.Body.String()); diff != "" || len(f.queue.taken) != 3 {
		t.Errorf("%d events queued; answers (-first +again):\n%s", len(f.queue.taken), diff)
	}
}

func TestKeyOfABatchIsNotThatOfAnEvent(t *testing.T) {
	f := newFixture(t, nil)
	wantBatch(t, f.post("/api/v1/events/batch", `[`+released+`]`, "Idempotency-Key", "k"))
	for _, key := range []string{"k", "k/0"} {
		wantAccepted(t, f.post("/api/v1/events", buildFailed, "Idempotency-Key", key))
	}
	got := wantBatch(t, f.post("/api/v1/events/batch", `[`+buildFailed+`]`, "Idempotency-Key", "k")).Results[0]
	if got.Status != 409 || !strings.HasPrefix(got.Error, "the Idempotency-Key came with another content") {
		t.Errorf("the key again with another event: %+v, want 409", got)
	}
}

func TestOutageRefusesOnlyWhatIsNotQueued(t *testing.T) {
	f := newFixture(t, nil)
	f.queue.fail, f.queue.lost = queue.ErrUnavailable, map[string]bool{"release.completed": true}
	first := strings.Repeat(buildFailed+`,`, 100) + strings.Repeat(released+`,`, 100)
	got := wantBatch(t, f.post("/api/v1/events/batch", `[`+first+buildFailed+`]`)).Results
	statuses := map[int]int{}
	for i, r := range got {
		statuses[r.Status]++
		if r.Status == 0 && r.EventID != f.queue.taken[i].EventID {
			t.Errorf("event %d: id %q, the queue has %q", i, r.EventID, f.queue.taken[i].EventID)
		}
	}
	if diff := cmp.Diff(map[int]int{0: 100, 503: 101}, statuses); diff != "" || got[200].Status != 503 {
		t.Errorf("refusals by status (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]int{200}, f.queue.calls); diff != "" {
		t.Errorf("calls of the queue, which is away (-want +got):\n%s", diff)
	}
}

// frugalQueue keeps nothing, and measures what a batch keeps alive.
type frugalQueue struct {
	most, calls int // targets of a call
	held        uint64
}

func (q *frugalQueue) Publish(_ context.Context, publications []queue.Publication) ([]queue.Receipt, error) {
	q.calls++
	targets := 0
	receipts := make([]queue.Receipt, len(publications))
	for i, p := range publications {
		targets += len(p.Targets)
		receipts[i].Targets = p.Targets
	}
	q.most = max(q.most, targets)
	if q.calls%20 == 0 {
		runtime.GC()
		var now runtime.MemStats
		runtime.ReadMemStats(&now)
		q.held = max(q.held, now.HeapAlloc)
	}
	return receipts, nil
}

func TestBatchOverManyMatchesTakesLittleMemory(t *testing.T) {
	q := &frugalQueue{}
	f := newFixture(t, func(o *Options) { o.Publisher = q })
	f.table = manyMatches(3000)
	w := f.post("/api/v1/events/batch", `[`+strings.Repeat(released+`,`, 199)+released+`]`)
	got := wantBatch(t, w)
	for i, r := range got.Results {
		if r.Matched != 3000 || len(r.Deliveries) != 100 || r.Deliveries[99].Delivery == "" {
			t.Fatalf("event %d: %d matches, %d deliveries", i, r.Matched, len(r.Deliveries))
		}
	}
	if q.most != 6000 || q.calls != 100 {
		t.Errorf("%d calls of up to %d targets, want 100 of 6000: two events of 3000 are above 5000", q.calls, q.most)
	}
	if q.held > 32<<20 { // all targets at once take more than 48 MB
		t.Errorf("%d bytes are held while the batch is taken in, want at most 32 MiB", q.held)
	}
}

func TestRefusedBatchIsAnsweredBriefly(t *testing.T) {
	f := newFixture(t, nil)
	hostile := `{"a":1` + strings.Repeat(`,"a":1`, 170_000) + `}`
	body := `[` + strings.Repeat(hostile+`,`, 14) + hostile + `]`
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	w := f.post("/api/v1/events/batch", body)
	runtime.ReadMemStats(&after)
	size := w.Body.Len()
	got := wantBatch(t, w)
	if size > 15*4<<10 {
		t.Errorf("the answer to 15 events has %d bytes, want at most 4 KiB each", size)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 8*uint64(len(body)) {
		t.Errorf("a body of %d bytes took %d bytes of memory", len(body), took)
	}
	r := got.Results[14]
	if r.Status != 422 || len(r.Errors) != 17 || !strings.HasPrefix(r.Errors[16].Message, "there may be more") {
		t.Errorf("result %+v", r)
	}
	if strings.Count(r.Error, ";") > 10 || !strings.HasSuffix(r.Error, "; and more") {
		t.Errorf("the text is %q", r.Error)
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
