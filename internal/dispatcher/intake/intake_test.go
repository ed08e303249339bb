// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/dispatcher/rest"
	"nexus.io/webhooks/internal/event"
	"nexus.io/webhooks/internal/routing"
)

// memoryQueue is a Publisher that keeps the queue's promises about ids, and copies what it must not keep.
type memoryQueue struct {
	mu    sync.Mutex
	calls []int // publications of each call
	taken []queue.Publication
	seen  map[string]queue.Publication
	full  map[string]bool // event types that find the queue full
	fail  error
	lost  map[string]bool // event types that fail meets; nil: all
	late  []string        // subscriptions whose backlog is full
}

func (q *memoryQueue) Publish(_ context.Context, publications []queue.Publication) ([]queue.Receipt, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.calls = append(q.calls, len(publications))
	receipts := make([]queue.Receipt, len(publications))
	for i, p := range publications {
		if q.fail != nil && (q.lost == nil || q.lost[p.EventType]) {
			receipts[i].Outcome = queue.Unqueued
			continue
		}
		receipts[i] = q.take(p)
	}
	return receipts, q.fail
}

func (q *memoryQueue) take(p queue.Publication) queue.Receipt {
	first, known := q.seen[p.EventID]
	switch {
	case q.full[p.EventType]:
		return queue.Receipt{Outcome: queue.Full}
	case known && first.Fingerprint != p.Fingerprint:
		return queue.Receipt{Outcome: queue.Conflict}
	case known:
		return queue.Receipt{Outcome: queue.Duplicate, Targets: first.Targets}
	}
	p.Body = append([]byte(nil), p.Body...)
	q.taken = append(q.taken, p)
	if p.Fingerprint != "" {
		q.seen[p.EventID] = p
	}
	return queue.Receipt{Targets: p.Targets, BacklogFull: q.late}
}

type fixture struct {
	t        testing.TB
	queue    *memoryQueue
	table    *routing.Table
	registry *prometheus.Registry
	handler  http.Handler
}

// newFixture has sub_builds (build.*), sub_all (*) and sub_nexus (* of project NEXUS).
func newFixture(t testing.TB, change func(*Options)) *fixture {
	t.Helper()
	f := &fixture{
		t:        t,
		queue:    &memoryQueue{seen: map[string]queue.Publication{}},
		registry: prometheus.NewRegistry(),
		table: routing.Empty().With([]*routing.Route{
			{ID: "sub_builds", Active: true, Events: []string{"build.*"}},
			{ID: "sub_nexus", Active: true, Events: []string{"*"}, Filter: routing.Filter{Project: "NEXUS"}},
		}, nil),
	}
	o := Options{
		Publisher:  f.queue,
		Table:      func() *routing.Table { return f.table },
		Registerer: f.registry,
		Logger:     slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&o)
	}
	routes, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	f.handler = rest.Handler(routes, rest.HandlerOptions{
		Authenticator: rest.Anybody{}, Observe: rest.Durations(f.registry),
	})
	return f
}

// post sends a body as JSON; headers are pairs of name and value.
func (f *fixture) post(path, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	f.handler.ServeHTTP(w, r)
	return w
}

// wantProblem checks the form of a refusal and returns it.
func wantProblem(t *testing.T, w *httptest.ResponseRecorder, status int) rest.Problem {
	t.Helper()
	var p rest.Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatalf("answer %d %s: %v", w.Code, w.Body, err)
	}
	if w.Code != status || p.Status != status || p.Type != "about:blank" || p.Title != http.StatusText(status) ||
		w.Header().Get("Content-Type") != "application/problem+json" {
		t.Fatalf("answer %d %v %s\nwant a problem with status %d", w.Code, w.Header(), w.Body, status)
	}
	return p
}

type accepted struct {
	EventID    string `json:"event_id"`
	EventType  string `json:"event_type"`
	Matched    int    `json:"subscriptions_matched"`
	Deliveries []struct {
		Subscription string `json:"subscription_id"`
		Delivery     string `json:"delivery_id"`
		Status       string `json:"status"`
	} `json:"deliveries"`
	Index  int               `json:"index"`
	Status int               `json:"status"`
	Error  string            `json:"error"`
	Errors []rest.FieldError `json:"errors"`
}

func wantAccepted(t *testing.T, w *httptest.ResponseRecorder) accepted {
	t.Helper()
	var a accepted
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || w.Code != http.StatusAccepted ||
		w.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("answer %d %v %s (%v), want 202 in JSON", w.Code, w.Header(), w.Body, err)
	}
	return a
}

const (
	buildFailed = `{"type":"build.failed","source":"ci","data":{"n":1},"metadata":{"project":"NEXUS"}}`
	released    = `{"type":"release.completed","source":"ci","data":{}}`
)

func TestEventIsQueuedForEachMatch(t *testing.T) {
	f := newFixture(t, nil)
	got := wantAccepted(t, f.post("/api/v1/events", buildFailed))
	p := f.queue.taken[0]
	if got.EventID != p.EventID || got.EventType != "build.failed" || got.Matched != 2 || len(got.Deliveries) != 2 {
		t.Errorf("answer %+v for publication %+v", got, p)
	}
	want := map[string]string{}
	for _, target := range p.Targets {
		want[target.SubscriptionID] = target.DeliveryID
	}
	shown := map[string]string{}
	for _, d := range got.Deliveries {
		shown[d.Subscription] = d.Delivery
		if d.Status != "queued" {
			t.Errorf("delivery %+v, want it queued", d)
		}
	}
	if diff := cmp.Diff(want, shown); diff != "" || want["sub_builds"] == "" || want["sub_nexus"] == "" {
		t.Errorf("deliveries (-queued +answered):\n%s", diff)
	}
	if p.Fingerprint != "" || !strings.HasPrefix(p.EventID, "evt_") {
		t.Errorf("publication %+v, want an id of our own, which cannot come twice", p)
	}
}

func TestEventThatMatchesNothingIsAccepted(t *testing.T) {
	f := newFixture(t, nil)
	w := f.post("/api/v1/events", released)
	got := wantAccepted(t, w)
	want := `{"event_id":"` + got.EventID +
		`","event_type":"release.completed","subscriptions_matched":0,"deliveries":[]}`
	if diff := cmp.Diff(want, w.Body.String()); diff != "" {
		t.Error(diff)
	}
}

func TestDataPassesByteForByte(t *testing.T) {
	for name, data := range map[string]string{
		"big numbers":      `{"n":123456789012345678901234567890,"f":1.10,"e":1E400,"z":-0.0}`,
		"order of keys":    `{"z":1,"a":2,"m":{"b":1,"a":2}}`,
		"white space":      "{ \"a\" :\t[ 1 ,\n2 ] }",
		"unicode":          `{"a":"ü😀\u00fc\ud83d\ude00","<b>":"&"}`,
		"escapes":          `{"a":"\/\b\u0000\""}`,
		"a key twice":      `{"a":1,"a":2}`,
		"single surrogate": `{"a":"\ud800"}`,
		"empty":            `{}`,
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, nil)
			single := `{"metadata":` + data + `,"data":` + data + `,"type":"build.failed","source":"ci","id":"1",` +
				`"timestamp":"2025-11-30T10:30:00Z"}`
			want := `{"id":"1","type":"build.failed","timestamp":"2025-11-30T10:30:00Z","source":"ci","data":` + data +
				`,"metadata":` + data + `}`
			wantAccepted(t, f.post("/api/v1/events", single))
			wantAccepted(t, f.post("/api/v1/events/batch", `[`+strings.Replace(single, `"id":"1"`, `"id":"2"`, 1)+`]`))
			if diff := cmp.Diff(want, string(f.queue.taken[0].Body)); diff != "" {
				t.Errorf("single (-want +got):\n%s", diff)
			}
			want = strings.Replace(want, `"id":"1"`, `"id":"2"`, 1)
			if diff := cmp.Diff(want, string(f.queue.taken[1].Body)); diff != "" {
				t.Errorf("batch (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRefusalsSayWhatIsWrong(t *testing.T) {
	const sayJSON = ": send Content-Type: application/json"
	type header = []string
	for name, c := range map[string]struct {
		body    string
		headers header
		status  int
		detail  string
	}{
		"not JSON": {`type=build.failed`, nil, 400,
			"the body is not JSON: unexpected 'y' where true must be at line 1, column 2"},
		"nothing":       {``, nil, 400, "the body is not JSON: the text ends where a value must be at line 1, column 1"},
		"invalid UTF-8": {"{\"type\":\"\xff\"}", nil, 400, "the body is not JSON: invalid UTF-8 at line 1, column 10"},
		"deep": {`{"type":"build.failed","source":"ci","data":` + strings.Repeat(`{"a":`, 500), nil, 422,
			"data is nested deeper than 64 levels"},
		"field twice": {`{"type":"build.failed","type":"build.failed","source":"ci","data":{}}`, nil, 422,
			"type is given twice"},
		"missing": {`{"data":{}}`, nil, 422, "type is required; source is required"},
		"unknown field": {`{"type":"build.failed","source":"ci","data":{},"project_fliter":1}`, nil, 422,
			"project_fliter is not a field of an event; put your own fields into data or metadata"},
		"nearly known type": {`{"type":"build.fialed","source":"ci","data":{}}`, nil, 422,
			`type "build.fialed" is not a known event type; did you mean "build.failed"?`},
		"unknown type": {`{"type":"something.else","source":"ci","data":{}}`, nil, 422,
			`type "something.else" is not a known event type; GET /api/v1/event-types lists them`},
		"curl's default": {buildFailed, header{"Content-Type", "application/x-www-form-urlencoded"}, 415,
			`the body must be JSON in UTF-8, but the Content-Type header says "application/x-www-form-urlencoded"` + sayJSON},
		"no content type": {buildFailed, header{"Content-Type", ""}, 415,
			`the body must be JSON in UTF-8, but there is no Content-Type header` + sayJSON},
		"other charset": {buildFailed, header{"Content-Type", "application/json; charset=latin1"}, 415,
			`the body must be JSON in UTF-8, but the Content-Type header says "application/json; charset=latin1"` + sayJSON},
		"compressed": {buildFailed, header{"Content-Encoding", "gzip"}, 415,
			"the body must not be compressed: leave out Content-Encoding"},
		"too large": {`{"type":"build.failed","source":"ci","data":{"a":"` + strings.Repeat("x", 5000) + `"}}`, nil, 413,
			"the body is larger than 4096 bytes: send less at once, or a link to the data in place of the data"},
		"empty key": {buildFailed, header{"Idempotency-Key", ""}, 400,
			"the Idempotency-Key header must be given once, with 1 to 255 printable ASCII characters"},
		"long key": {buildFailed, header{"Idempotency-Key", strings.Repeat("k", 256)}, 400,
			"the Idempotency-Key header must be given once, with 1 to 255 printable ASCII characters"},
		"key not ASCII": {buildFailed, header{"Idempotency-Key", "schlüssel"}, 400,
			"the Idempotency-Key header must be given once, with 1 to 255 printable ASCII characters"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, func(o *Options) { o.Limits.MaxEventBytes = 4096 })
			p := wantProblem(t, f.post("/api/v1/events", c.body, c.headers...), c.status)
			if diff := cmp.Diff(c.detail, p.Detail); diff != "" {
				t.Errorf("detail (-want +got):\n%s", diff)
			}
			if (c.status == 422) != (len(p.Errors) > 0) {
				t.Errorf("errors %v", p.Errors)
			}
			if len(f.queue.calls) != 0 {
				t.Error("the queue was called")
			}
		})
	}
}

func TestRefusalNamesEachField(t *testing.T) {
	f := newFixture(t, nil)
	p := wantProblem(t, f.post("/api/v1/events", `{"type":"build.failed","source":"","data":[]}`), 422)
	want := []rest.FieldError{
		{Field: "source", Message: "must have 1 to 256 characters"},
		{Field: "data", Message: "must be a JSON object"},
	}
	if diff := cmp.Diff(want, p.Errors); diff != "" {
		t.Error(diff)
	}
}

func TestContentTypesThatAreJSON(t *testing.T) {
	f := newFixture(t, nil)
	for _, given := range []string{"application/json; charset=utf-8", "Application/JSON;charset=UTF-8", "application/json ;"} {
		wantAccepted(t, f.post("/api/v1/events", released, "Content-Type", given))
	}
}

func TestSameIDGivesTheFirstAnswerAgain(t *testing.T) {
	for name, c := range map[string]struct{ first, again, key string }{
		"id of the event":          {`"id":"b-1",`, `"timestamp":"2025-11-30T10:30:00Z","id":"b-1",`, ""},
		"idempotency key":          {``, ``, "order 5"},
		"id wins over another key": {`"id":"b-1",`, `"id":"b-1",`, "order 5"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, nil)
			var headers []string
			if c.key != "" {
				headers = []string{"Idempotency-Key", c.key}
			}
			post := func(fields, n string) *httptest.ResponseRecorder {
				return f.post("/api/v1/events", `{`+fields+`"type":"build.failed","source":"ci","data":{"n":`+n+`}}`, headers...)
			}
			first := post(c.first, "1")
			f.table = routing.Empty() // what matches now does not count
			again := post(c.again, "1")
			if a := wantAccepted(t, first); a.Matched != 1 {
				t.Errorf("first answer %s", first.Body)
			}
			if diff := cmp.Diff(first.Body.String(), again.Body.String()); diff != "" || again.Code != 202 {
				t.Errorf("second answer %d (-first +second):\n%s", again.Code, diff)
			}
			p := wantProblem(t, post(c.again, "2"), http.StatusConflict)
			named := fmt.Sprintf("the id %q", wantAccepted(t, first).EventID)
			if c.first == "" {
				named = "the Idempotency-Key came with another content" // the client gave no id
			}
			if !strings.Contains(p.Detail, named) {
				t.Errorf("detail %q does not say %q", p.Detail, named)
			}
			if len(f.queue.taken) != 1 {
				t.Errorf("%d events are queued, want 1", len(f.queue.taken))
			}
		})
	}
}

func TestEventsOfDifferentIDsUnderOneKeyAreBothQueued(t *testing.T) {
	f := newFixture(t, nil)
	for _, id := range []string{"a", "b"} {
		body := `{"id":"` + id + `","type":"build.failed","source":"ci","data":{}}`
		if got := wantAccepted(t, f.post("/api/v1/events", body, "Idempotency-Key", "same")); got.EventID != id {
			t.Errorf("event id %q, want %q", got.EventID, id)
		}
	}
}

func TestQueueThatTakesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*fixture)
		status int
		retry  string
		detail string
	}{
		"away": {func(f *fixture) { f.queue.fail = fmt.Errorf("publish: %w", queue.ErrUnavailable) }, 503, "5",
			"the queue cannot be written just now, and the event was not accepted: send it again, with the same id or " +
				"Idempotency-Key where it has one"},
		"out of memory": {func(f *fixture) { f.queue.fail = fmt.Errorf("%w: %w", queue.ErrUnavailable, queue.ErrFull) }, 429,
			"10", "the queue is full: send this again later; nothing that was accepted before is lost"},
		"full": {func(f *fixture) { f.queue.full = map[string]bool{"build.failed": true} }, 429, "10",
			"the queue is full: send this again later; nothing that was accepted before is lost"},
		"table not loaded": {func(f *fixture) { f.table = nil }, 503, "2",
			"this dispatcher is not ready to take events yet (GET /readyz tells why): send this again in a moment"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, nil)
			c.change(f)
			for path, body := range map[string]string{
				"/api/v1/events":       buildFailed,
				"/api/v1/events/batch": `[` + buildFailed + `,` + buildFailed + `,{}]`,
			} {
				w := f.post(path, body)
				p := wantProblem(t, w, c.status)
				if p.Detail != c.detail || w.Header().Get("Retry-After") != c.retry {
					t.Errorf("%s: Retry-After %q, detail %q", path, w.Header().Get("Retry-After"), p.Detail)
				}
			}
		})
	}
}

func TestPublishedAgainAfterAnOutage(t *testing.T) {
	f := newFixture(t, nil)
	f.queue.fail = queue.ErrUnavailable
	wantProblem(t, f.post("/api/v1/events", buildFailed, "Idempotency-Key", "k"), 503)
	f.queue.fail = nil
	first := wantAccepted(t, f.post("/api/v1/events", buildFailed, "Idempotency-Key", "k"))
	again := wantAccepted(t, f.post("/api/v1/events", buildFailed, "Idempotency-Key", "k"))
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("answers (-first +again):\n%s", diff)
	}
}

func manyMatches(n int) *routing.Table {
	var routes []*routing.Route
	for i := range n {
		routes = append(routes, &routing.Route{ID: fmt.Sprintf("sub_%05d", i), Active: true, Events: []string{"*"}})
	}
	return routing.Empty().With(routes, nil)
}

func TestAnswerListsTheFirstHundredDeliveriesAndCountsAll(t *testing.T) {
	f := newFixture(t, nil)
	f.table = manyMatches(150)
	got := wantAccepted(t, f.post("/api/v1/events", released))
	if got.Matched != 150 || len(got.Deliveries) != 100 || len(f.queue.taken[0].Targets) != 150 {
		t.Errorf("matched %d, listed %d, queued %d", got.Matched, len(got.Deliveries), len(f.queue.taken[0].Targets))
	}
}

// shortPublisher answers for fewer events than it was given.
type shortPublisher struct{}

func (shortPublisher) Publish(context.Context, []queue.Publication) ([]queue.Receipt, error) {
	return nil, nil
}

// unsurePublisher does not say why it did not queue the events.
type unsurePublisher struct{}

func (unsurePublisher) Publish(_ context.Context, p []queue.Publication) ([]queue.Receipt, error) {
	return unqueued(len(p)), nil
}

func TestNothingIsAcceptedWithoutAReceipt(t *testing.T) {
	for _, p := range []Publisher{shortPublisher{}, unsurePublisher{}} {
		f := newFixture(t, func(o *Options) { o.Publisher = p })
		wantProblem(t, f.post("/api/v1/events", buildFailed), 503)
		wantProblem(t, f.post("/api/v1/events/batch", `[`+buildFailed+`]`), 503)
	}
}

func TestLateDeliveriesShowAmongManyMatches(t *testing.T) {
	f := newFixture(t, nil)
	f.table = manyMatches(150)
	f.queue.late = []string{"sub_00000", "sub_00149"}
	got := wantAccepted(t, f.post("/api/v1/events", released))
	failed := map[string]bool{}
	for _, d := range got.Deliveries {
		if d.Status == "failed" {
			failed[d.Subscription] = true
		}
	}
	want := map[string]bool{}
	for _, target := range f.queue.taken[0].Targets[:100] {
		if target.SubscriptionID == "sub_00000" || target.SubscriptionID == "sub_00149" {
			want[target.SubscriptionID] = true
		}
	}
	if diff := cmp.Diff(want, failed); diff != "" || len(want) == 0 {
		t.Errorf("failed deliveries (-want +got):\n%s", diff)
	}
}

func TestDeliveryWhoseBacklogIsFullShowsAsFailed(t *testing.T) {
	f := newFixture(t, nil)
	f.queue.late = []string{"sub_builds"}
	got := wantAccepted(t, f.post("/api/v1/events", buildFailed))
	for _, d := range got.Deliveries {
		want := map[string]string{"sub_builds": "failed", "sub_nexus": "queued"}[d.Subscription]
		if d.Status != want {
			t.Errorf("delivery %+v, want status %s", d, want)
		}
	}
}

func TestEventsAreCountedByTypeAndOutcome(t *testing.T) {
	f := newFixture(t, nil)
	f.queue.full = map[string]bool{"release.failed": true}
	withID := `{"id":"1",` + released[1:]
	for _, body := range []string{buildFailed, withID, withID, strings.Replace(withID, "{}", `{"a":1}`, 1), `{}`,
		`{"type":"evil.x","source":"a","data":{}}`, `{"type":"release.failed","source":"a","data":{}}`} {
		f.post("/api/v1/events", body)
	}
	f.queue.fail = queue.ErrUnavailable
	f.post("/api/v1/events/batch", `[`+buildFailed+`,`+buildFailed+`]`)
	want := map[string]uint64{
		"build.failed accepted":       1,
		"build.failed unavailable":    2,
		"release.completed accepted":  1,
		"release.completed conflict":  1,
		"release.completed duplicate": 1,
		"release.failed full":         1,
		"unknown invalid":             2,
	}
	if diff := cmp.Diff(want, f.series("nexus_webhook_events_total")); diff != "" {
		t.Errorf("counted (-want +got):\n%s", diff)
	}
}

// series returns what a metric counted, by the values of its labels.
func (f *fixture) series(name string) map[string]uint64 {
	f.t.Helper()
	families, err := f.registry.Gather()
	if err != nil {
		f.t.Fatal(err)
	}
	counted := map[string]uint64{}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, metric := range family.GetMetric() {
			var labels []string
			for _, pair := range metric.GetLabel() {
				labels = append(labels, pair.GetValue())
			}
			counted[strings.Join(labels, " ")] = uint64(metric.GetCounter().GetValue()) +
				metric.GetHistogram().GetSampleCount()
		}
	}
	return counted
}

func TestRequestsAreTimedUnderAFixedSetOfRoutes(t *testing.T) {
	f := newFixture(t, nil)
	f.post("/api/v1/events", released)
	for i := range 5 {
		f.post(fmt.Sprintf("/some/path/%d", i), "")
	}
	want := map[string]uint64{"/api/v1/events 202": 1, "other 404": 5}
	if diff := cmp.Diff(want, f.series("nexus_webhook_http_request_duration_seconds")); diff != "" {
		t.Errorf("timed (-want +got):\n%s", diff)
	}
}

func TestNewNamesWhatIsMissing(t *testing.T) {
	if _, err := New(Options{}); err == nil || err.Error() != "intake needs a publisher, a table and a registerer" {
		t.Errorf("error %v", err)
	}
}

// nowhere is a ResponseWriter that costs nothing.
type nowhere struct{ header http.Header }

func (n nowhere) Header() http.Header         { return n.header }
func (n nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (n nowhere) WriteHeader(int)             {}

type takeAll struct{ receipts [1]queue.Receipt }

func (q *takeAll) Publish(_ context.Context, p []queue.Publication) ([]queue.Receipt, error) {
	q.receipts[0] = queue.Receipt{Targets: p[0].Targets}
	return q.receipts[:], nil
}

func BenchmarkPublishEvent(b *testing.B) {
	f := newFixture(b, func(o *Options) { o.Publisher = &takeAll{} })
	text := `{"type":"build.failed","source":"orchestrator","data":{"project":"NEXUS","log":"` +
		strings.Repeat("compile ", 110) + `"},"metadata":{"team":"platform"}}`
	reader := strings.NewReader(text)
	r := httptest.NewRequest(http.MethodPost, "/api/v1/events", io.NopCloser(reader))
	r.Header.Set("Content-Type", "application/json")
	r.ContentLength = int64(len(text))
	w := nowhere{http.Header{}}
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		reader.Reset(text)
		f.handler.ServeHTTP(w, r)
	}
}

func BenchmarkHTTPAlone(b *testing.B) {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v1/events", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusAccepted)
	})
	r := httptest.NewRequest(http.MethodPost, "/api/v1/events", nil)
	w := nowhere{http.Header{}}
	for b.Loop() {
		mux.ServeHTTP(w, r)
	}
}

// FuzzPublish checks that whatever comes is answered with one of the documented statuses, and that only what was
// queued is accepted.
func FuzzPublish(f *testing.F) {
	f.Add(buildFailed, "")
	f.Add(released, "key")
	f.Add(`{"type":"build.failed"}`, "ü")
	f.Add(`[`+released+`]`, "k")
	f.Fuzz(func(t *testing.T, body, key string) {
		fix := newFixture(t, nil)
		for _, path := range []string{"/api/v1/events", "/api/v1/events/batch"} {
			before := len(fix.queue.calls)
			w := fix.post(path, body, "Idempotency-Key", key)
			if !json.Valid(w.Body.Bytes()) {
				t.Errorf("%s: answer %d is not JSON: %s", path, w.Code, w.Body)
			}
			switch w.Code {
			case 400, 413, 422:
				if len(fix.queue.calls) != before {
					t.Errorf("%s: answer %d, yet the queue was called", path, w.Code)
				}
			case 202:
				if got := (event.Event{}); path == "/api/v1/events" && json.Unmarshal([]byte(body), &got) != nil {
					t.Errorf("%s: %q was accepted", path, body)
				}
			default:
				t.Errorf("%s: answer %d %s", path, w.Code, w.Body)
			}
		}
	})
}
