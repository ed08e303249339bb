package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"nexus.io/webhooks/internal/dispatcher/history"
	"nexus.io/webhooks/test/redistest"
)

// The same promises hold on everything that the queue runs on.
func TestQueueOnAServer(t *testing.T) {
	suite(t, func(t *testing.T) place { return onServer(t, common) })
}

func TestQueueOnACluster(t *testing.T) {
	cluster := redistest.ClusterForTest(t)
	suite(t, func(t *testing.T) place {
		client, err := Connect(cluster.URL())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = client.Close() })
		return place{client, newPrefix(), 4}
	})
}

func TestQueueOnAnEmbeddedServer(t *testing.T) {
	server := miniredis.RunT(t)
	suite(t, func(t *testing.T) place {
		client, err := Connect("redis://" + server.Addr() + "?read_timeout=20s") // its Lua takes seconds for an audit
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = client.Close() })
		return place{client, newPrefix(), 1}
	})
}

func suite(t *testing.T, at func(*testing.T) place) {
	t.Helper()
	tests := map[string]func(*testing.T, place){
		"a lease has all that a request needs":                      testLease,
		"a failed attempt comes again, counted, after its time":     testRetry,
		"a released attempt comes again as if it had not been":      testRelease,
		"a repeated id gives the first receipt, or is a conflict":   testRepeat,
		"a pause keeps what comes until it ends":                    testPause,
		"what waits for a subscription that is gone is cancelled":   testCancel,
		"statistics are told until they were reflected":             testReflection,
		"what has ended is in the history and can be retried":       testHistory,
		"a full backlog and a full queue refuse":                    testFull,
		"an event of many matches comes to each once":               testManyMatches,
		"an event of many that was begun is taken wholly":           testBegun,
		"an event of many that is forgotten may come again":         testForgotten,
		"a receipt holds whatever becomes of the other events":      testUnqueued,
		"many publishers and subscriptions lose and double nothing": testMany,
		"with room for one, everyone has a turn":                    testLittleRoom,
		"what was chosen is retried or cancelled, and nothing else": testOperations,
		"a data set of another layout is refused":                   testLayout,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { test(t, at(t)) })
	}
}

func testLease(t *testing.T, p place) {
	q, c := p.run(t, nil)
	configure(t, q, "s1")
	before := time.Now()
	e := publication("e1", "s1")
	receipts := publish(t, q, e)
	if diff := cmp.Diff([]Receipt{{Outcome: Queued, Targets: e.Targets}}, receipts); diff != "" {
		t.Errorf("receipts (-want +got):\n%s", diff)
	}
	empty(t, q)
	want := []Lease{{
		DeliveryID: e.Targets[0].DeliveryID, SubscriptionID: "s1", EventID: "e1", EventType: "build.completed", Attempt: 1,
		Body: e.Body, Token: 1,
	}}
	got := c.got()
	ignored := cmp.Options{cmpopts.IgnoreUnexported(Lease{}), cmpopts.IgnoreFields(Lease{}, "CreatedAt", "Deadline")}
	if diff := cmp.Diff(want, got, ignored); diff != "" {
		t.Fatalf("leases (-want +got):\n%s", diff)
	}
	if age := got[0].CreatedAt.Sub(before).Abs(); age > 5*time.Second {
		t.Errorf("created %v after it was", age)
	}
	if left := got[0].Deadline.Sub(before); left < 15*time.Second || left > 25*time.Second {
		t.Errorf("the lease holds %v, want about 20 s", left)
	}
	checkStatistics(t, q, Statistics{
		SubscriptionID: "s1", Successful: 1, LastStatusCode: 200, LatencySum: 7 * time.Millisecond, LatencyCount: 1, Version: 2,
	})
}

func checkStatistics(t *testing.T, q *Queue, want Statistics) {
	t.Helper()
	got, err := q.Statistics(t.Context(), []string{want.SubscriptionID})
	if err != nil {
		t.Fatal(err)
	}
	ignored := cmpopts.IgnoreFields(Statistics{}, "LastAttempt", "LastSuccess")
	if diff := cmp.Diff([]Statistics{want}, got, ignored); diff != "" {
		t.Errorf("statistics (-want +got):\n%s", diff)
	}
	if want.LatencyCount > 0 && time.Since(got[0].LastAttempt).Abs() > time.Minute {
		t.Errorf("last attempt at %v", got[0].LastAttempt)
	}
}

func testRetry(t *testing.T, p place) {
	var mu sync.Mutex
	var times []time.Time
	q, c := p.run(t, func(_ *Options, c *sink) {
		c.ends = func(l Lease) Settlement {
			mu.Lock()
			times = append(times, time.Now())
			mu.Unlock()
			if l.Attempt < 3 {
				return Settlement{Lease: l, Result: Retry, RetryAfter: 300 * time.Millisecond, StatusCode: 500,
					Reason: "status", Error: "500"}
			}
			return Settlement{Lease: l, Result: Fail, StatusCode: 410, Reason: "gone", Error: "410 Gone"}
		}
	})
	configure(t, q, "s1")
	publish(t, q, publication("e1", "s1"))
	empty(t, q)
	for i, lease := range c.got() {
		if lease.Attempt != i+1 {
			t.Errorf("attempt %d came as number %d", lease.Attempt, i+1)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for i := 1; i < len(times); i++ {
		// The next is due after the settlement reached Redis, whose clock ticks in milliseconds.
		if gap := times[i].Sub(times[i-1]); gap < 298*time.Millisecond || gap > 5*time.Second {
			t.Errorf("attempt %d came after %v, want 300 ms", i+1, gap)
		}
	}
	checkStatistics(t, q, Statistics{
		SubscriptionID: "s1", Failed: 1, ConsecutiveFailures: 3, LastStatusCode: 410, LastReason: "gone",
		LastError: "410 Gone", LatencyCount: 3, Version: 4,
	})
}

func testRelease(t *testing.T, p place) {
	var once sync.Once
	q, c := p.run(t, func(_ *Options, c *sink) {
		c.ends = func(l Lease) Settlement {
			s := done(l)
			once.Do(func() { s = Settlement{Lease: l, Result: Release} })
			return s
		}
	})
	configure(t, q, "s1")
	publish(t, q, publication("e1", "s1"))
	empty(t, q)
	got := c.got()
	if len(got) != 2 || got[0].Attempt != 1 || got[1].Attempt != 1 || got[1].Token <= got[0].Token {
		t.Errorf("leases %+v, want two first attempts with growing tokens", got)
	}
}

func testRepeat(t *testing.T, p place) {
	q, c := p.run(t, nil)
	configure(t, q, "s1", "s2")
	first := publication("e1", "s1", "s2")
	first.Fingerprint = "f"
	again, other := publication("e1", "s2", "s1"), publication("e1", "s1")
	again.Fingerprint, other.Fingerprint = "f", "g"
	got := slices.Concat(publish(t, q, first), publish(t, q, again, other))
	want := []Receipt{{Targets: first.Targets}, {Outcome: Duplicate, Targets: first.Targets}, {Outcome: Conflict}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("receipts (-want +got):\n%s", diff)
	}
	empty(t, q)
	if odd := once(c.got(), first); odd != "" {
		t.Errorf("taken %s", odd)
	}
}

func TestAnEventIDIsRememberedForADay(t *testing.T) {
	q, _ := onServer(t, common).run(t, nil)
	configure(t, q, "s1")
	p := publication("e1", "s1")
	p.Fingerprint = "f"
	publish(t, q, p)
	left := q.client.PTTL(t.Context(), q.shards[0].keys.prefix+"seen:e1").Val()
	if left > 24*time.Hour || left <= 24*time.Hour-time.Minute {
		t.Errorf("for %v", left)
	}
}

func testPause(t *testing.T, p place) {
	q, c := p.run(t, nil)
	paused := open("s1")
	paused.Paused = true
	configure(t, q, "s2")
	if err := q.Configure(t.Context(), []Limits{paused}); err != nil {
		t.Fatal(err)
	}
	publish(t, q, publication("e1", "s1"), publication("e2", "s2"))
	eventually(t, "the other is taken", func() bool { return len(c.got()) == 1 })
	if got := c.got()[0].SubscriptionID; got != "s2" || size(t, q) > 2 {
		t.Errorf("taken for %s", got)
	}
	configure(t, q, "s1")
	empty(t, q)
	if n := len(c.got()); n != 2 {
		t.Errorf("%d were taken", n)
	}
}

func testCancel(t *testing.T, p place) {
	q, c := p.run(t, func(_ *Options, c *sink) { c.room, c.hold = 2, true })
	configure(t, q, "s1", "s2")
	var all []Publication
	for i := range 2500 {
		all = append(all, publication(fmt.Sprintf("e%d", i), "s1"))
	}
	publish(t, q, all...)
	eventually(t, "two are in flight", func() bool { return len(c.got()) == 2 })
	if err := q.Cancel(t.Context(), []string{"s1", "s9"}); err != nil {
		t.Fatal(err)
	}
	audited(t, q)
	known, err := q.Known(t.Context())
	if diff := cmp.Diff([]string{"s2"}, known); diff != "" || err != nil {
		t.Errorf("known: %v %s", err, diff)
	}
	checkStatistics(t, q, Statistics{SubscriptionID: "s1", Canceled: 2498, Pending: 2, Version: statisticsOf(t, q, "s1").Version})
	if changed, err := q.Changed(t.Context(), 10, false); len(changed) > 0 || err != nil {
		t.Errorf("changed: %v %v", changed, err)
	}
	configure(t, q, "s1") // a replica that has not heard yet
	publish(t, q, publication("late", "s1"))
	c.letGo(Retry)
	empty(t, q)
	if n := len(c.got()); n != 2 {
		t.Errorf("%d were taken", n)
	}
}

func statisticsOf(t *testing.T, q *Queue, id string) Statistics {
	t.Helper()
	got, err := q.Statistics(t.Context(), []string{id})
	if err != nil || len(got) != 1 {
		t.Fatal(got, err)
	}
	return got[0]
}

func testReflection(t *testing.T, p place) {
	q, _ := p.run(t, nil)
	ids := subscriptions(20)
	configure(t, q, ids...)
	publish(t, q, publication("e1", ids...))
	empty(t, q)
	names := func(urgent bool) (ids []string, all []Statistics) {
		all, err := q.Changed(t.Context(), 100, urgent)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range all {
			ids = append(ids, s.SubscriptionID)
		}
		sort.Strings(ids)
		return ids, all
	}
	urgent, _ := names(true)
	changed, all := names(false)
	if diff := cmp.Diff([][]string{ids, ids}, [][]string{urgent, changed}); diff != "" {
		t.Errorf("urgent and changed (-want +got):\n%s", diff)
	}
	if limited, err := q.Changed(t.Context(), 2, false); err != nil || len(limited) > 2*p.shards {
		t.Errorf("%d where at most 2 a shard were asked for: %v", len(limited), err)
	}
	publish(t, q, publication("e2", ids[0]))
	empty(t, q)
	if err := q.Reflected(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	urgent, _ = names(true)
	changed, _ = names(false)
	if diff := cmp.Diff([][]string{nil, {ids[0]}}, [][]string{urgent, changed}); diff != "" {
		t.Errorf("urgent and changed afterwards (-want +got):\n%s", diff)
	}
}

func testFull(t *testing.T, p place) {
	q, c := p.run(t, func(o *Options, c *sink) {
		o.MaxDeliveries = 3 * o.Shards
		c.hold = true
	})
	few := open("s1")
	few.MaxBacklog = 2
	if err := q.Configure(t.Context(), []Limits{few}); err != nil {
		t.Fatal(err)
	}
	var outcomes []Outcome
	var late [][]string
	for i := range 3 {
		r := publish(t, q, publication(fmt.Sprintf("e%d", i), "s1"))[0]
		outcomes, late = append(outcomes, r.Outcome), append(late, r.BacklogFull)
	}
	if diff := cmp.Diff([][]string{nil, nil, {"s1"}}, late); diff != "" {
		t.Errorf("full backlogs (-want +got):\n%s", diff)
	}
	if s := statisticsOf(t, q, "s1"); s.Failed != 1 || s.Pending != 2 || !s.BacklogFull {
		t.Errorf("statistics %+v", s)
	}
	configure(t, q, "s2", "s3", "s4", "s5")
	for i := 0; !slices.Contains(outcomes, Full); i++ {
		if i > 100 {
			t.Fatal("the queue takes more than it may")
		}
		r := publish(t, q, publication(fmt.Sprintf("f%d", i), "s2", "s3", "s4", "s5"))[0]
		outcomes = append(outcomes, r.Outcome)
	}
	c.letGo(Done)
	empty(t, q)
}

func testManyMatches(t *testing.T, p place) {
	q, c := p.run(t, nil)
	ids := subscriptions(2500)
	configure(t, q, ids...)
	e := publication("e1", ids...)
	e.Fingerprint = "f"
	again := publication("e1", ids...)
	again.Fingerprint = "f"
	own := publication("own", ids...)
	got := slices.Concat(publish(t, q, e), publish(t, q, again), publish(t, q, own))
	want := []Receipt{{Targets: e.Targets}, {Outcome: Duplicate, Targets: e.Targets}, {Targets: own.Targets}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("receipts (-want +got):\n%s", diff)
	}
	empty(t, q)
	if odd := once(c.got(), e, own); odd != "" {
		t.Errorf("taken %s", odd)
	}
	for _, lease := range c.got() {
		if lease.EventID != "e1" && lease.EventID != "own" {
			t.Fatalf("a lease of event %s", lease.EventID)
		}
	}
}

// There must be room for all of a large event, and then nothing that comes between its steps takes it away.
func testBegun(t *testing.T, p place) {
	p.shards = 1
	q, c := p.run(t, func(o *Options, c *sink) { o.MaxDeliveries, c.hold = 1400, true })
	ids := subscriptions(1401)
	configure(t, q, ids...)
	if got := publish(t, q, publication("e0", ids...))[0].Outcome; got != Full {
		t.Errorf("outcome %v of an event without room, want Full", got)
	}
	ids = ids[:1400]
	e := publication("e1", ids...)
	if got := publish(t, q, e)[0]; got.Outcome != Queued || len(got.Targets) != 1400 {
		t.Fatalf("outcome %v of %d", got.Outcome, len(got.Targets))
	}
	if got := publish(t, q, publication("e2", ids[0]))[0].Outcome; got != Full {
		t.Errorf("outcome %v of the next event, want Full", got)
	}
	c.letGo(Done)
	empty(t, q)
	if odd := once(c.got(), e); odd != "" {
		t.Errorf("taken %s", odd)
	}
}

// The memory of the first part has just run out, that of the others not yet.
func testForgotten(t *testing.T, p place) {
	q, c := p.run(t, nil)
	ids := subscriptions(1400)
	configure(t, q, ids...)
	first, second := publication("e1", ids...), publication("e1", ids...)
	first.Fingerprint, second.Fingerprint = "f", "f"
	publish(t, q, first)
	home := q.shards[q.home(&first)].keys
	if err := p.client.Del(t.Context(), home.prefix+"seen:e1").Err(); err != nil {
		t.Fatal(err)
	}
	if got := publish(t, q, second)[0]; got.Outcome != Queued {
		t.Fatalf("outcome %v", got.Outcome)
	}
	empty(t, q)
	if odd := once(c.got(), first, second); odd != "" {
		t.Errorf("taken %s", odd)
	}
}

func testUnqueued(t *testing.T, p place) {
	q, c := p.run(t, nil)
	configure(t, q, "known")
	good, bad, last := publication("e1", "known"), publication("e2", "unknown"), publication("e3", "known")
	got, err := q.Publish(t.Context(), []Publication{good, bad, last})
	if !errors.Is(err, ErrUnavailable) {
		t.Errorf("error %v, want ErrUnavailable", err)
	}
	want := []Receipt{{Targets: good.Targets}, {Outcome: Unqueued}, {Targets: last.Targets}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("receipts (-want +got):\n%s", diff)
	}
	empty(t, q)
	if odd := once(c.got(), good, last); odd != "" {
		t.Errorf("taken %s", odd)
	}
}

func testMany(t *testing.T, p place) {
	q, c := p.run(t, nil)
	ids := subscriptions(50)
	configure(t, q, ids...)
	all := make([]Publication, 1000)
	for i := range all {
		all[i] = publication(fmt.Sprintf("e%d", i), ids[i%50], ids[(i*7+1)%50])
	}
	failed := make(chan error, len(all))
	for part := range slices.Chunk(all, 20) {
		go func() {
			for i := range part {
				_, err := q.Publish(t.Context(), part[i:i+1])
				failed <- err
			}
		}()
	}
	var err error
	for range all {
		err = errors.Join(err, <-failed)
	}
	if err != nil {
		t.Fatal(err)
	}
	empty(t, q)
	if odd := once(c.got(), all...); odd != "" {
		t.Errorf("taken %s", odd)
	}
}

func testLittleRoom(t *testing.T, p place) {
	q, c := p.run(t, func(_ *Options, c *sink) { c.room = 1 })
	ids := subscriptions(12)
	configure(t, q, ids...)
	var all []Publication
	for i := range 5 {
		all = append(all, publication(fmt.Sprintf("e%d", i), ids...))
	}
	before := time.Now()
	publish(t, q, all...)
	empty(t, q)
	if odd := once(c.got(), all...); odd != "" {
		t.Errorf("taken %s", odd)
	}
	if took := time.Since(before); took > 4*time.Second {
		t.Errorf("it took %v: a shard slept although it had work and room", took)
	}
	if c.most > 1 {
		t.Errorf("%d at once in room for one", c.most)
	}
}

func testLayout(t *testing.T, p place) {
	q := p.queue(t, nil)
	if _, err := q.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.shards += 2
	findings, err := p.queue(t, nil).Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(findings, func(f Finding) bool { return f.Fatal }) {
		t.Errorf("findings %v: none is fatal", findings)
	}
}

func testHistory(t *testing.T, p place) {
	var healthy atomic.Bool
	q, _ := p.run(t, func(o *Options, c *sink) {
		o.MaxHistory = 3
		c.ends = func(l Lease) Settlement {
			s := Settlement{Lease: l, Result: Fail, StatusCode: 410}
			if healthy.Load() {
				s.Result, s.StatusCode = Done, 200
			}
			s.Attempt = history.AppendAttempt(nil, &history.Attempt{Number: l.Attempt, StatusCode: s.StatusCode}, "u", nil)
			return s
		}
	})
	configure(t, q, "s1")
	var ids []string
	for i := range 5 {
		e := publication(fmt.Sprintf("e%d", i), "s1")
		e.Targets[0].DeliveryID = uuid.Must(uuid.NewV7()).String()
		ids = append(ids, e.Targets[0].DeliveryID)
		publish(t, q, e)
		empty(t, q)
	}
	_, next := pageOf(t, q, history.Filter{Limit: 2}, ids[4], ids[3])
	if next == "" {
		t.Fatal("the first page is said to be the last")
	}
	page, next := pageOf(t, q, history.Filter{SubscriptionIDs: []string{"s1"}, After: next}, ids[2])
	if next != "" {
		t.Errorf("there is more after the last page, behind %s", next)
	}
	bodies, err := q.Bodies(t.Context(), []Body{page[0].BodyAt})
	if err != nil || string(bodies[0]) != `{"id":"e2"}` {
		t.Errorf("body %q, %v", bodies, err)
	}
	healthy.Store(true)
	retriedOnce(t, q, ids[3])
	audited(t, q)
}

func pageOf(t *testing.T, q *Queue, f history.Filter, want ...string) ([]Ended, history.Cursor) {
	t.Helper()
	page, next, err := q.History(t.Context(), f, func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range page {
		got = append(got, e.ID)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("page (-want +got):\n%s", diff)
	}
	return page, next
}

// retriedOnce retries a delivery that had failed, and it succeeds.
func retriedOnce(t *testing.T, q *Queue, id string) {
	t.Helper()
	if c, err := q.Retry(t.Context(), id); err != nil || c != (Changed{Requeued, id}) {
		t.Fatalf("retry: %+v, %v", c, err)
	}
	empty(t, q)
	_, found, err := q.Find(t.Context(), id)
	if err != nil || found == nil {
		t.Fatalf("after a retry it is %+v, %v", found, err)
	}
	if found.Status != history.Success || found.Round != 2 || len(found.Attempts) != 2 || found.Attempts[1].Number != 2 {
		t.Errorf("after a retry it is %+v", found)
	}
	if c, err := q.CancelDelivery(t.Context(), id); err != nil || c.Outcome != AlreadyEnded {
		t.Errorf("cancel: %+v, %v", c, err)
	}
}

// Few look through the unfinished deliveries at once; who would have to wait longer than it can hears so.
func TestFewWalkAtOnce(t *testing.T) {
	q := onServer(t, common).queue(t, nil)
	for range maxWalks {
		q.walks <- struct{}{}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := q.Unfinished(ctx, Selection{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one more walks, or ends with %v", err)
	}
	<-q.walks
	if _, err := q.Unfinished(t.Context(), Selection{}); err != nil || len(q.walks) != maxWalks-1 {
		t.Errorf("%v, and %d walk", err, len(q.walks))
	}
}
