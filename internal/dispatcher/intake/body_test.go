// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// heldBody says when all but its end was read, and ends when it is told to.
type heldBody struct {
	rest    *strings.Reader
	holding chan struct{}
	goOn    chan struct{}
}

func (b *heldBody) Read(p []byte) (int, error) {
	if b.rest.Len() == 0 {
		close(b.holding)
		<-b.goOn
		return 0, io.EOF
	}
	return b.rest.Read(p)
}

func TestLargeBodiesShareABudget(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Limits.MaxBufferedBytes = 768 << 10 })
	large := `{"type":"build.failed","source":"ci","data":{"a":"` + strings.Repeat("x", 400<<10) + `"}}`
	held := &heldBody{rest: strings.NewReader(large), holding: make(chan struct{}), goOn: make(chan struct{})}
	answered := make(chan int)
	go func() {
		r := httptest.NewRequest(http.MethodPost, "/api/v1/events", held)
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		f.handler.ServeHTTP(w, r)
		answered <- w.Code
	}()
	<-held.holding
	refused := f.post("/api/v1/events", large)
	if p := wantProblem(t, refused, 503); !strings.Contains(p.Detail, "send this again later") ||
		refused.Header().Get("Retry-After") == "" {
		t.Errorf("Retry-After %q, detail %q", refused.Header().Get("Retry-After"), p.Detail)
	}
	wantAccepted(t, f.post("/api/v1/events", released)) // a small one goes on beside it
	close(held.goOn)
	if status := <-answered; status != http.StatusAccepted {
		t.Errorf("answer %d to the large event", status)
	}
	for range 3 { // fails if the budget is not given back
		wantAccepted(t, f.post("/api/v1/events", large))
	}
}

// Many bodies of a size that is not unusual, none of which ends, take no more than the budget either.
func TestManyBodiesShareABudget(t *testing.T) {
	const count, size, most = 40, 60 << 10, 512 << 10
	f := newFixture(t, func(o *Options) { o.Limits.MaxBufferedBytes = most })
	part := `{"type":"build.failed","source":"ci","data":{"a":"` + strings.Repeat("x", size)
	goOn, answered := make(chan struct{}), make(chan int, count)
	held := 0
	for range count {
		one := &heldBody{rest: strings.NewReader(part), holding: make(chan struct{}), goOn: goOn}
		go func() {
			r := httptest.NewRequest(http.MethodPost, "/api/v1/events", one)
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			f.handler.ServeHTTP(w, r)
			answered <- w.Code
		}()
		select {
		case <-one.holding:
			held++
		case status := <-answered:
			if status != http.StatusServiceUnavailable {
				t.Errorf("answer %d to a body that is one too many", status)
			}
		}
	}
	if held == 0 || held > 2*most/size {
		t.Errorf("%d bodies of %d bytes are held", held, size)
	}
	wantAccepted(t, f.post("/api/v1/events", released)) // a small one goes on beside them
	close(goOn)
	for range held {
		<-answered
	}
}

func TestReusedMemoryDoesNotMixRequests(t *testing.T) {
	f := newFixture(t, nil)
	first := `{"type":"build.failed","source":"first","data":{"a":"` + strings.Repeat("1", 3000) + `"}}`
	second := `{"type":"build.failed","source":"second","data":{"b":2}}`
	for _, body := range []string{first, second, first} {
		wantAccepted(t, f.post("/api/v1/events", body))
	}
	for i, want := range []string{first, second, first} {
		data := want[strings.Index(want, `"data":`) : len(want)-1]
		if got := string(f.queue.taken[i].Body); !strings.HasSuffix(got, data+`,"metadata":{}}`) {
			t.Errorf("event %d: body %.80q does not end in its data", i, got)
		}
	}
}
