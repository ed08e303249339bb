// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/routing"
)

// whole compares what the queue keeps for itself in its types too.
var whole = cmp.Exporter(func(reflect.Type) bool { return true })

// routes is a table that a test changes.
type routes struct {
	mu   sync.Mutex
	byID map[string]*routing.Route
}

func routesOf(all ...*routing.Route) *routes {
	r := &routes{byID: map[string]*routing.Route{}}
	for _, route := range all {
		r.byID[route.ID] = route
	}
	return r
}

func (r *routes) Route(id string) *routing.Route {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byID[id]
}

func (r *routes) remove(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byID, id)
}

// settlements keeps what was settled and what room there was at that moment.
type settlements struct {
	pool *Pool
	all  chan queue.Settlement
	room chan int
}

func (s *settlements) Settle(settlement queue.Settlement) {
	deliveries, _ := s.pool.Room()
	s.room <- deliveries
	s.all <- settlement
}

// rig is a pool with its surroundings.
type rig struct {
	*Pool
	routes  *routes
	settled *settlements
	logged  *bytes.Buffer
	gather  *prometheus.Registry
}

func newRig(transport http.RoundTripper, shape func(*Options), all ...*routing.Route) *rig {
	r := &rig{
		routes:  routesOf(all...),
		settled: &settlements{all: make(chan queue.Settlement, 1000), room: make(chan int, 1000)},
		logged:  &bytes.Buffer{},
		gather:  prometheus.NewRegistry(),
	}
	o := Options{
		Routes: r.routes, Settler: r.settled, Transport: transport, Registerer: r.gather,
		Logger: slog.New(slog.NewJSONHandler(r.logged, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if shape != nil {
		shape(&o)
	}
	r.Pool = NewPool(o)
	r.settled.pool = r.Pool
	return r
}

// one takes a lease and returns its settlement, without what differs each time.
func (r *rig) one(lease queue.Lease) queue.Settlement {
	s := r.wholeOne(lease)
	s.Lease = queue.Lease{}
	s.Duration, s.ArrivedAgo, s.Attempt = 0, 0, nil
	return s
}

func (r *rig) wholeOne(lease queue.Lease) queue.Settlement {
	r.Take([]queue.Lease{lease})
	return <-r.settled.all
}

// answers reads the request and gives status.
func answers(status int, header ...string) roundTrip {
	return func(req *http.Request) (*http.Response, error) {
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return nil, err
		}
		res := &http.Response{StatusCode: status, Body: http.NoBody, Header: http.Header{}}
		for i := 0; i+1 < len(header); i += 2 {
			res.Header.Set(header[i], header[i+1])
		}
		return res, nil
	}
}

// repeats answers with the headers that it got, behind so many bytes.
func repeats(before int) roundTrip {
	return func(req *http.Request) (*http.Response, error) {
		text := strings.Repeat(".", before) + req.Header.Get("Authorization") + secretKey
		return &http.Response{StatusCode: http.StatusInternalServerError, Body: io.NopCloser(strings.NewReader(text)), Header: http.Header{}}, nil
	}
}

// hangs until the attempt is cut off.
func hangs(req *http.Request) (*http.Response, error) {
	<-req.Context().Done()
	return nil, req.Context().Err()
}

func TestARefusedDeliveryIsTriedAgainByTheScheduleUntilTheBudgetIsUsedUp(t *testing.T) {
	r := newRig(answers(500), nil, testRoute("https://endpoint.test/"))
	for i, seconds := range []time.Duration{5, 10, 20, 40, 80} {
		s := r.one(testLease(i + 1))
		if s.Result != queue.Retry || s.RetryAfter < seconds*time.Second || s.RetryAfter > seconds*time.Second*11/10 {
			t.Errorf("attempt %d: result %v, after %v; want a retry after %d s", i+1, s.Result, s.RetryAfter, seconds)
		}
	}
	want := queue.Settlement{
		Result: queue.Fail, StatusCode: 500, Reason: "server_error",
		Error: "the endpoint answered 500 Internal Server Error",
	}
	if diff := cmp.Diff(want, r.one(testLease(6)), whole); diff != "" {
		t.Errorf("attempt 6 (-want +got):\n%s", diff)
	}
}

func TestWhatAnAnswerMeansForTheQueue(t *testing.T) {
	cases := map[string]struct {
		transport roundTrip
		want      queue.Settlement
	}{
		"200": {answers(200), queue.Settlement{Result: queue.Done, StatusCode: 200}},
		"410": {answers(410), queue.Settlement{
			Result: queue.Fail, StatusCode: 410, Reason: "gone", Error: "the endpoint answered 410 Gone",
		}},
		"a longer Retry-After": {answers(429, "Retry-After", "600"), queue.Settlement{
			Result: queue.Retry, RetryAfter: 10 * time.Minute, StatusCode: 429, Reason: "throttled",
			Error: "the endpoint answered 429 Too Many Requests",
		}},
		"a Retry-After beyond the maximum": {answers(503, "Retry-After", "86400"), queue.Settlement{
			Result: queue.Retry, RetryAfter: time.Hour, StatusCode: 503, Reason: "server_error",
			Error: "the endpoint answered 503 Service Unavailable",
		}},
		"a redirect": {answers(302, "Location", "https://elsewhere.test/"), queue.Settlement{
			Result: queue.Retry, RetryAfter: 5 * time.Second, StatusCode: 302, Reason: "redirect",
			Error: "the endpoint answered 302 Found; redirects are not followed",
		}},
		"a Retry-After shorter than the schedule": {answers(429, "Retry-After", "1"), queue.Settlement{
			Result: queue.Retry, RetryAfter: 5 * time.Second, StatusCode: 429, Reason: "throttled",
			Error: "the endpoint answered 429 Too Many Requests",
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := newRig(c.transport, nil, testRoute("https://endpoint.test/"))
			got := r.one(testLease(1))
			if got.RetryAfter > 5*time.Second && got.RetryAfter <= 5500*time.Millisecond {
				got.RetryAfter = 5 * time.Second // without the jitter
			}
			if diff := cmp.Diff(c.want, got, whole); diff != "" {
				t.Errorf("settlement (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhatCannotBeSentNowIsGivenBackUnsent(t *testing.T) {
	change := func(f func(*routing.Route)) *routing.Route {
		route := testRoute("https://endpoint.test/")
		f(route)
		return route
	}
	later := queue.Settlement{Result: queue.Release, RetryAfter: time.Second}
	stale := testLease(1)
	stale.Deadline = time.Now()
	cases := map[string]struct {
		route *routing.Route
		lease queue.Lease
		want  queue.Settlement
	}{
		"no such route":      {change(func(r *routing.Route) { r.ID = "sub_2" }), testLease(1), later},
		"paused":             {change(func(r *routing.Route) { r.Paused = true }), testLease(1), later},
		"inactive":           {change(func(r *routing.Route) { r.Active = false }), testLease(1), later},
		"held":               {change(func(r *routing.Route) { r.Hold = "SecretNotFound" }), testLease(1), later},
		"without a key":      {change(func(r *routing.Route) { r.Keys = nil }), testLease(1), later},
		"a lease that ended": {testRoute("https://endpoint.test/"), stale, queue.Settlement{Result: queue.Release}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := newRig(roundTrip(func(*http.Request) (*http.Response, error) {
				t.Error("it was sent")
				return nil, io.EOF
			}), nil, c.route)
			if diff := cmp.Diff(c.want, r.one(c.lease), whole); diff != "" {
				t.Errorf("settlement (-want +got):\n%s", diff)
			}
		})
	}
}

func TestASettlementCarriesItsLease(t *testing.T) {
	r := newRig(answers(200), nil, testRoute("https://endpoint.test/"))
	lease := testLease(3)
	r.Take([]queue.Lease{lease})
	if diff := cmp.Diff(lease, (<-r.settled.all).Lease, whole); diff != "" {
		t.Errorf("lease (-want +got):\n%s", diff)
	}
}

func TestRoomShrinksWithWhatIsInFlightAndIsBackBeforeTheSettlement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(roundTrip(hangs), func(o *Options) {
			o.MaxInFlight, o.MaxInFlightBytes = 3, 100
		}, testRoute("https://endpoint.test/"))
		lease := testLease(1)
		wantRoom(t, r.Pool, 3, 100)
		r.Take([]queue.Lease{lease})
		wantRoom(t, r.Pool, 2, 100-len(payload))
		r.Take([]queue.Lease{lease, lease})
		wantRoom(t, r.Pool, 0, 0)
		synctest.Wait()
		<-time.After(11 * time.Second) // the route's timeout has passed
		wantRoom(t, r.Pool, 3, 100)
		last := 0
		for range 3 {
			last = max(last, <-r.settled.room)
			<-r.settled.all
		}
		if last != 3 {
			t.Errorf("room for %d at the last settlement, want 3", last)
		}
	})
}

func wantRoom(t *testing.T, p *Pool, deliveries, bytes int) {
	t.Helper()
	if d, b := p.Room(); d != deliveries || b != bytes {
		t.Errorf("room for %d deliveries and %d bytes, want %d and %d", d, b, deliveries, bytes)
	}
}

func TestDrainWaitsForWhatIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(roundTrip(func(req *http.Request) (*http.Response, error) {
			<-time.After(3 * time.Second)
			return answers(200)(req)
		}), nil, testRoute("https://endpoint.test/"))
		r.Take([]queue.Lease{testLease(1), testLease(1)})
		started := time.Now()
		if err := r.Drain(context.Background()); err != nil {
			t.Error(err)
		}
		if took := time.Since(started); took != 3*time.Second {
			t.Errorf("it took %v", took)
		}
		for range 2 {
			if s := <-r.settled.all; s.Result != queue.Done {
				t.Errorf("settlement: %+v", s)
			}
		}
	})
}

func TestDrainCutsOffWhatTakesTooLongAndLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(roundTrip(hangs), nil, testRoute("https://endpoint.test/"))
		const lastAttempt = 6
		r.Take([]queue.Lease{testLease(1), testLease(lastAttempt)})
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		err := r.Drain(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "2 attempts") {
			t.Errorf("drain: %v", err)
		}
		for range 2 {
			s := <-r.settled.all
			if s.Result != queue.Retry || s.Reason != string(ReasonShutdown) || s.RetryAfter < 5*time.Second {
				t.Errorf("settlement: %+v", s)
			}
		}
		wantRoom(t, r.Pool, 0, 0)
		r.Take([]queue.Lease{testLease(1)})
		if s := <-r.settled.all; s.Result != queue.Release || s.RetryAfter != 0 {
			t.Errorf("a lease that came late: %+v", s)
		}
	})
}

func TestDrainOfAnIdlePoolReturnsAtOnce(t *testing.T) {
	r := newRig(answers(200), nil)
	if err := r.Drain(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestManyAttemptsAtOnceAreAllSettledOnce(t *testing.T) {
	const leases = 500
	e := startEndpoint(t, func(w http.ResponseWriter, r *http.Request) {
		if _, _ = io.Copy(io.Discard, r.Body); strings.HasSuffix(r.Header.Get("X-Nexus-Delivery"), "7") {
			w.WriteHeader(http.StatusBadGateway)
		}
	}, plain)
	r := newRig(newTransport(t), nil, testRoute(e.url()))
	batch := make([]queue.Lease, leases)
	for i := range batch {
		batch[i] = testLease(1)
		batch[i].DeliveryID = fmt.Sprintf("delivery-%03d", i)
	}
	r.Take(batch)
	got := map[string]queue.Result{}
	for range leases {
		s := <-r.settled.all
		got[s.Lease.DeliveryID] = s.Result
	}
	if err := r.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	failed := 0
	for _, result := range got {
		if result == queue.Retry {
			failed++
		}
	}
	if len(got) != leases || failed != leases/10 || len(r.settled.all) != 0 {
		t.Errorf("%d deliveries settled, %d of them failed, %d too many", len(got), failed, len(r.settled.all))
	}
}

func TestMetricsCountOutcomesRetriesAndReasons(t *testing.T) {
	status := 200
	r := newRig(roundTrip(func(req *http.Request) (*http.Response, error) { return answers(status)(req) }),
		nil, testRoute("https://endpoint.test/"))
	r.one(testLease(1))
	r.one(testLease(2))
	status = 500
	r.one(testLease(3))
	r.one(testLease(6))
	status = 410
	r.one(testLease(1))
	got := r.samples(t)
	for name, want := range map[string]float64{
		`nexus_webhook_deliveries_total{event_type="build.failed",status="success"}`: 2,
		`nexus_webhook_deliveries_total{event_type="build.failed",status="failed"}`:  2,
		`nexus_webhook_retries_total{event_type="build.failed"}`:                     3,
		`nexus_webhook_delivery_latency_seconds{subscriber_id="sub_1"}`:              5,
		`nexus_webhook_attempts_total{reason="none"}`:                                2,
		`nexus_webhook_attempts_total{reason="server_error"}`:                        2,
		`nexus_webhook_attempts_total{reason="gone"}`:                                1,
		`nexus_webhook_attempts_total{reason="timeout"}`:                             0,
		`nexus_webhook_attempts_in_flight{}`:                                         0,
		`nexus_webhook_in_flight_bytes{}`:                                            0,
		`nexus_webhook_stale_leases_total{}`:                                         0,
		`nexus_webhook_held_leases_total{}`:                                          0,
	} {
		if value, ok := got[name]; !ok || value != want {
			t.Errorf("%s is %v (there: %v), want %v", name, value, ok, want)
		}
	}
}

// samples returns the value of every series by its name, for a histogram the number of observations.
func (r *rig) samples(t *testing.T) map[string]float64 {
	t.Helper()
	families, err := r.gather.Gather()
	if err != nil {
		t.Fatal(err)
	}
	samples := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			value := m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			samples[family.GetName()+"{"+strings.Join(labels, ",")+"}"] = value
		}
	}
	return samples
}

func TestTheLatencyLabelIsBoundedAndForgetsWhoIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all []*routing.Route
		for i := range 4 {
			route := testRoute("https://endpoint.test/")
			route.ID = fmt.Sprintf("sub_%d", i)
			all = append(all, route)
		}
		r := newRig(answers(200), func(o *Options) { o.MaxSubscriberLabels = 2 }, all...)
		send := func(id string) {
			lease := testLease(1)
			lease.SubscriptionID = id
			r.one(lease)
		}
		for _, id := range []string{"sub_0", "sub_1", "sub_2", "sub_0"} {
			send(id)
		}
		wantLatencies(t, r, map[string]float64{"sub_0": 2, "sub_1": 1, "other": 1})
		r.routes.remove("sub_1")
		<-time.After(2 * sweepInterval)
		send("sub_3")
		send("sub_2")
		wantLatencies(t, r, map[string]float64{"sub_0": 2, "sub_3": 1, "other": 2})
	})
}

func wantLatencies(t *testing.T, r *rig, want map[string]float64) {
	t.Helper()
	got := map[string]float64{}
	for name, value := range r.samples(t) {
		if id, ok := strings.CutPrefix(name, `nexus_webhook_delivery_latency_seconds{subscriber_id="`); ok {
			got[strings.TrimSuffix(id, `"}`)] = value
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("latencies (-want +got):\n%s", diff)
	}
}

func TestARepeatingOutageIsLoggedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(answers(500), nil, testRoute("https://endpoint.test/"))
		for range 61 {
			r.one(testLease(1))
			<-time.After(time.Second)
		}
		r.one(testLease(6)) // another outcome: the end of the delivery
		var left []float64
		for line := range strings.Lines(r.logged.String()) {
			var fields map[string]any
			if err := json.Unmarshal([]byte(line), &fields); err != nil {
				t.Fatal(err)
			}
			n, ok := fields["similarLeftOut"].(float64)
			if !ok || fields["msg"] != "Attempt failed" || fields["reason"] != "server_error" {
				t.Errorf("line %s", line)
			}
			left = append(left, n)
		}
		if diff := cmp.Diff([]float64{0, 59, 0}, left); diff != "" {
			t.Errorf("lines left out before each line (-want +got):\n%s", diff)
		}
	})
}

func TestTheLogRemembersABoundedNumberOfOutcomes(t *testing.T) {
	l := newAttemptLog(slog.New(slog.DiscardHandler))
	lines := 0
	for i := range 3 * maxRepeats {
		if _, ok := l.due(outcome{subscriptionID: fmt.Sprint(i)}, noon); ok {
			lines++
		}
	}
	if lines != maxRepeats+1 || len(l.repeats) != maxRepeats+1 {
		t.Errorf("%d lines and %d outcomes, want %d of each", lines, len(l.repeats), maxRepeats+1)
	}
	if _, ok := l.due(outcome{subscriptionID: "new"}, noon.Add(2*repeatInterval)); !ok || len(l.repeats) != 1 {
		t.Errorf("after a while %d outcomes are remembered, want 1", len(l.repeats))
	}
}

func TestASuccessIsOneWideLineAtDebugLevel(t *testing.T) {
	r := newRig(answers(200), nil, testRoute("https://endpoint.test/"))
	r.one(testLease(2))
	var got map[string]any
	if err := json.Unmarshal(r.logged.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	delete(got, "time")
	delete(got, "durationMs")
	want := map[string]any{
		"level": "DEBUG", "msg": "Delivered", "namespace": "team-a", "name": "notifier", "subscriptionId": "sub_1",
		"deliveryId": "0199aa00-0000-7000-8000-000000000001", "eventId": "evt_1", "eventType": "build.failed",
		"attempt": 2.0, "maxRetries": 5.0, "statusCode": 200.0,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("line (-want +got):\n%s", diff)
	}
}

func TestNoSecretLeavesThePoolButInTheRequest(t *testing.T) {
	leaky := func(req *http.Request) (*http.Response, error) {
		leaked := fmt.Errorf("%s %s %s", req.URL, req.Header.Get("Authorization"), secretKey)
		return nil, &url.Error{Op: "Post", URL: req.URL.String(), Err: leaked}
	}
	for name, transport := range map[string]roundTrip{
		"an error that shows it all": leaky, "a success": answers(200),
		"an answer that repeats it all": repeats(0), "one whose beginning ends in a secret": repeats(maxSnippet - 10),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(transport, nil, testRoute("https://endpoint.test/?"+secretQuery))
			s := r.wholeOne(testLease(1))
			wantNoSecret(t, string(s.Attempt))
			s.Attempt = nil
			wantNoSecret(t, fmt.Sprintf("%+v", s))
			wantNoSecret(t, r.logged.String())
			if r.logged.Len() == 0 {
				t.Error("nothing was logged")
			}
			families, err := r.gather.Gather()
			if err != nil {
				t.Fatal(err)
			}
			wantNoSecret(t, fmt.Sprint(families))
		})
	}
}
