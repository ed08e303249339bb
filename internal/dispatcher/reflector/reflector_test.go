// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/dispatcher/queue"
)

func TestStatusFollowsTheDeliveries(t *testing.T) {
	b := newBench(t)
	id, sub := b.subscribe("follow")
	sub.Status.ID = id
	sub.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue,
		Reason: v1alpha1.ReasonReady, LastTransitionTime: metav1.Now()}}
	if err := b.client.Status().Update(t.Context(), sub, client.FieldOwner(v1alpha1.FieldOwnerManager)); err != nil {
		t.Fatal(err)
	}
	b.follow()
	b.start(nil)
	b.eventually("follow", v1alpha1.ReasonNoDeliveryYet)

	b.queue.set(true, success(id, 2))
	b.eventually("follow", v1alpha1.ReasonDelivered)
	at := metav1.NewTime(time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC))
	want := &v1alpha1.DeliveryStatus{Successful: 2, LastAttemptTime: &at, LastSuccessTime: &at, LastStatusCode: 200,
		AverageLatencyMilliseconds: 245}
	got := b.get("follow").Status
	if diff := cmp.Diff(want, got.Delivery); diff != "" {
		t.Error(diff)
	}
	if got.ID != id || len(got.Conditions) != 2 {
		t.Errorf("the manager's part changed: %+v", got)
	}

	failing := success(id, 2)
	failing.ConsecutiveFailures, failing.LastStatusCode, failing.LastReason = 3, 503, "server_error"
	b.queue.set(true, failing)
	b.eventually("follow", v1alpha1.ReasonEndpointFailing)
	b.queue.set(false, success(id, 9))
	within(t, patience, "counters arrive", func() bool { return b.get("follow").Status.Delivery.Successful == 9 })
	within(t, patience, "all is marked as reflected", func() bool { return b.queue.waiting() == 0 })
}

func TestWhatIsRightIsNotWritten(t *testing.T) {
	b := newBench(t)
	for i := range 5 {
		id, _ := b.subscribe(fmt.Sprintf("right-%d", i))
		b.queue.set(false, success(id, 1))
	}
	b.follow()
	stop := b.start(nil)
	within(t, patience, "all is written", func() bool { return b.queue.waiting() == 0 && b.writes.Load() >= 5 })
	for r := range b.source.Table().All() {
		b.queue.set(true, success(r.ID, 1))
	}
	within(t, patience, "it is marked without a write", func() bool { return b.queue.waiting() == 0 })
	stop()
	calls := b.queue.called()
	b.start(nil)
	within(t, patience, "the next term compares everything", func() bool { return b.queue.called() > calls+5 })
	if n := b.writes.Load(); n != 5 {
		t.Errorf("%d writes for 5 statuses", n)
	}
}

func TestNewGenerationIsObserved(t *testing.T) {
	b := newBench(t)
	b.subscribe("edited")
	b.follow()
	b.start(nil)
	b.eventually("edited", v1alpha1.ReasonNoDeliveryYet)
	paused := true
	sub := b.get("edited")
	sub.Spec.Paused = &paused
	if err := b.client.Update(t.Context(), sub); err != nil {
		t.Fatal(err)
	}
	b.source.route(sub)
	b.eventually("edited", v1alpha1.ReasonPaused)
	if got := b.delivering("edited").ObservedGeneration; got != 2 {
		t.Errorf("generation %d is observed, want 2", got)
	}
}

// TestReportThatGoesBackIsWritten: the cache still has the first state while the second stands in the API server.
func TestReportThatGoesBackIsWritten(t *testing.T) {
	b := newBench(t)
	id, _ := b.subscribe("back")
	b.follow()
	stop := b.start(nil)
	b.queue.set(true, success(id, 1))
	b.eventually("back", v1alpha1.ReasonDelivered)
	within(t, patience, "it is marked", func() bool { return b.queue.waiting() == 0 })
	stop()

	old := b.get("back")
	b.source.mu.Lock()
	b.source.read = func(string) *v1alpha1.WebhookSubscription { return old }
	b.source.mu.Unlock()
	b.start(nil)
	failing := success(id, 1)
	failing.ConsecutiveFailures = 3
	b.queue.set(true, failing)
	b.eventually("back", v1alpha1.ReasonEndpointFailing)
	b.queue.set(true, success(id, 1))
	b.eventually("back", v1alpha1.ReasonDelivered)
}

func TestWhatTheAPIRefusesStaysWithTheQueue(t *testing.T) {
	b := newBench(t)
	const refused = 4
	b.refusal.Store(refused)
	id, _ := b.subscribe("refused")
	other, _ := b.subscribe("other")
	b.queue.set(true, success(id, 1))
	b.queue.set(false, success(other, 2))
	b.follow()
	b.start(nil)
	within(t, patience, "all but one are refused", func() bool {
		waiting := b.queue.waiting()
		left := b.refusal.Load()
		if left > 0 && waiting != 2 {
			t.Fatalf("%d wait while the API refuses", waiting)
		}
		return left < 0
	})
	b.eventually("refused", v1alpha1.ReasonDelivered)
	b.eventually("other", v1alpha1.ReasonDelivered)
	within(t, patience, "all is marked as reflected", func() bool { return b.queue.waiting() == 0 })
}

// TestEachWriterKeepsItsPart has manager and dispatcher write in turns, each as the field owner that it is.
func TestEachWriterKeepsItsPart(t *testing.T) {
	b := newBench(t)
	id, _ := b.subscribe("both")
	b.follow()
	b.start(nil)
	types := func() string {
		var all []string
		for _, c := range b.get("both").Status.Conditions {
			all = append(all, c.Type+"="+string(c.Status))
		}
		slices.Sort(all)
		return strings.Join(all, " ")
	}
	b.eventually("both", v1alpha1.ReasonNoDeliveryYet)
	b.manage("both", metav1.ConditionFalse)
	if got := types(); got != "Delivering=Unknown Ready=False" {
		t.Errorf("after the manager wrote: %s", got)
	}
	b.queue.set(true, success(id, 3))
	b.eventually("both", v1alpha1.ReasonDelivered)
	b.manage("both", metav1.ConditionTrue)
	status := b.get("both").Status
	if got := types(); got != "Delivering=True Ready=True" || status.Delivery.Successful != 3 || status.Host != "app.example" {
		t.Errorf("in the end: %s, %+v", got, status)
	}
}

func TestQueueAwayAndBack(t *testing.T) {
	b := newBench(t)
	b.queue.setDown(true)
	id, _ := b.subscribe("away")
	b.queue.set(true, success(id, 1))
	b.follow()
	b.start(nil)
	within(t, patience, "it is asked", func() bool { return b.queue.called() > 3 })
	b.queue.setDown(false)
	b.eventually("away", v1alpha1.ReasonDelivered)
}

func TestObjectThatIsGoneIsDropped(t *testing.T) {
	b := newBench(t)
	id, sub := b.subscribe("gone")
	if err := b.client.Delete(t.Context(), sub); err != nil {
		t.Fatal(err)
	}
	b.queue.set(true, success(id, 1))
	b.start(nil)
	within(t, patience, "it is dropped", func() bool { return b.queue.waiting() == 0 })
}

func TestObjectOfTheSameNameIsNotMistaken(t *testing.T) {
	b := newBench(t)
	id, sub := b.subscribe("again")
	if err := b.client.Delete(t.Context(), sub); err != nil {
		t.Fatal(err)
	}
	b.queue.set(true, success(id, 77))
	table := b.source.Table()
	second, _ := b.subscribe("again")
	b.source.remove(second)
	b.source.mu.Lock()
	b.source.table = table
	b.source.mu.Unlock()
	b.start(nil)
	within(t, patience, "a write was tried", func() bool { return b.writes.Load() > 0 })
	b.source.remove(id)
	within(t, patience, "it is dropped", func() bool { return b.queue.waiting() == 0 })
	if got := b.get("again").Status.Delivery; got != nil {
		t.Errorf("the new object has the counters of the old one: %+v", got)
	}
}

func TestWritesStayWithinTheBudgetAndUrgentOnesDoNotStarveTheOthers(t *testing.T) {
	b := newBench(t)
	const half, perSecond, burst = 100, 20, 10
	for i := range half {
		urgent, _ := b.subscribe(fmt.Sprintf("urgent-%d", i))
		counters, _ := b.subscribe(fmt.Sprintf("counters-%d", i))
		b.queue.set(true, success(urgent, 1))
		b.queue.set(false, success(counters, 1))
	}
	b.start(func(o *Options) { o.WritesPerSecond, o.Burst = perSecond, burst })
	within(t, patience, "all is reflected", func() bool { return b.queue.waiting() == 0 })
	if n := b.writes.Load(); n != 2*half {
		t.Errorf("%d writes for %d statuses", n, 2*half)
	}
	// One more than the budget: the clock of this side of the connection is not that of the budget.
	if n := b.log.most(time.Second); n > perSecond+burst+1 {
		t.Errorf("%d writes in one second", n)
	}
	if n := b.log.most(5 * time.Second); n > 5*perSecond+burst+1 {
		t.Errorf("%d writes in five seconds", n)
	}
	if n := b.log.first(half, "urgent"); n < half*7/10 || n > half*9/10 {
		t.Errorf("%d of the first %d writes were urgent", n, half)
	}
}

func TestChangeOfStateOvertakesTheScanOfANewTerm(t *testing.T) {
	b := newBench(t)
	const others = 100
	for i := range others {
		b.subscribe(fmt.Sprintf("scanned-%d", i))
	}
	id, _ := b.subscribe("overtakes")
	b.start(func(o *Options) { o.UrgentEvery, o.WritesPerSecond, o.Burst = 0, 10, 10 })
	within(t, patience, "the budget is used up", func() bool { return b.writes.Load() > 20 })
	if b.writes.Load() > others/2 {
		t.Fatal("there is too little left to overtake")
	}
	b.queue.set(true, success(id, 1))
	within(t, 2*time.Second, "the state", func() bool { return b.delivering("overtakes").Reason == v1alpha1.ReasonDelivered })
}

func TestOneAtATimeIsInOffice(t *testing.T) {
	b := newBench(t)
	b.subscribe("first")
	b.follow()
	stop := b.start(nil)
	b.eventually("first", v1alpha1.ReasonNoDeliveryYet)
	other := newMemoryQueue()
	b.start(func(o *Options) { o.Identity, o.Queue = "two", other })
	id, sub := b.subscribe("second")
	b.follow()
	b.queue.set(true, success(id, 1))
	b.eventually("second", v1alpha1.ReasonDelivered)
	if other.called() > 0 {
		t.Error("two are in office")
	}
	stop()
	other.set(true, success(idOf(sub), 5))
	within(t, patience, "the other takes over", func() bool { return b.get("second").Status.Delivery.Successful == 5 })
}

func TestStateArrivesWithinTwoSecondsAndCountersWithinTen(t *testing.T) {
	b := newBench(t)
	id, _ := b.subscribe("timely")
	b.follow()
	b.start(func(o *Options) {
		o.UrgentEvery, o.CountersEvery, o.CountersPause, o.WritesPerSecond, o.Burst = 0, 0, 0, 0, 0
	})
	b.eventually("timely", v1alpha1.ReasonNoDeliveryYet)
	b.queue.set(true, success(id, 1))
	within(t, 2*time.Second, "the state", func() bool { return b.delivering("timely").Reason == v1alpha1.ReasonDelivered })
	b.queue.set(false, success(id, 2))
	within(t, 10*time.Second, "the counters", func() bool { return b.get("timely").Status.Delivery.Successful == 2 })
}

func TestCountersThatChangeAllTheTimeAreWrittenNowAndThen(t *testing.T) {
	b := newBench(t)
	const pause, busy = time.Second, 3500 * time.Millisecond
	id, _ := b.subscribe("busy")
	b.follow()
	b.start(func(o *Options) { o.CountersPause = pause })
	b.eventually("busy", v1alpha1.ReasonNoDeliveryYet)
	before, n := b.writes.Load(), int64(0)
	for end := time.Now().Add(busy); time.Now().Before(end); {
		n++
		b.queue.set(false, success(id, n))
		<-time.After(10 * time.Millisecond)
	}
	if writes := b.writes.Load() - before; writes < int64(busy/pause)-2 || writes > int64(busy/pause)+1 {
		t.Errorf("%d writes in %s, with a pause of %s", writes, busy, pause)
	}
	within(t, 2*pause, "the last counters", func() bool { return b.get("busy").Status.Delivery.Successful == n })
}

func TestAChangeOfStateDoesNotWaitForThePauseOfCounters(t *testing.T) {
	b := newBench(t)
	id, _ := b.subscribe("urgent")
	b.follow()
	b.start(func(o *Options) { o.CountersPause = time.Hour })
	b.eventually("urgent", v1alpha1.ReasonNoDeliveryYet)
	b.queue.set(true, success(id, 1))
	b.eventually("urgent", v1alpha1.ReasonDelivered)
}

func TestReflectorWithoutAQueueAsksItOnceInAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, q := newMemorySource(), newMemoryQueue()
		source.route(&v1alpha1.WebhookSubscription{ObjectMeta: metav1.ObjectMeta{Name: "a", UID: "a"}})
		q.setDown(true)
		var log strings.Builder
		r, err := New(Options{Config: &rest.Config{Host: "127.0.0.1:1"}, Queue: q, Subscriptions: source, Namespace: "n",
			Identity: "i", Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		const seconds = 60
		ctx, cancel := context.WithTimeout(t.Context(), seconds*time.Second)
		defer cancel()
		r.serve(ctx)
		if n := q.called(); n > 3*seconds {
			t.Errorf("%d calls in %d s", n, seconds)
		}
		if n := strings.Count(log.String(), "level=WARN"); n < 1 || n > 3 {
			t.Errorf("%d warnings in a minute: %s", n, log.String())
		}
	})
}

func TestIdleReflectorAsksTheQueueLessThanTwiceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, q := newMemorySource(), newMemoryQueue()
		for i := range 3 * scanPage / 2 {
			sub := &v1alpha1.WebhookSubscription{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint(i), UID: types.UID(fmt.Sprint(i))},
				Spec: v1alpha1.WebhookSubscriptionSpec{URL: "https://app.example", Events: []string{"*"}}}
			id := source.route(sub)
			route := source.table.Route(id)
			r := wanted(sub, route, queue.Statistics{SubscriptionID: id}, time.Now())
			source.objects[id].Status.Conditions, source.objects[id].Status.Delivery = r.Conditions, r.Delivery
		}
		r, err := New(Options{Config: &rest.Config{Host: "127.0.0.1:1"}, Queue: q, Subscriptions: source, Namespace: "n",
			Identity: "i"})
		if err != nil {
			t.Fatal(err)
		}
		const seconds = 60
		ctx, cancel := context.WithTimeout(t.Context(), seconds*time.Second)
		defer cancel()
		r.serve(ctx)
		if n := q.called(); n >= 2*seconds || n < seconds {
			t.Errorf("%d calls in %d s", n, seconds)
		}
	})
}

func TestNobodyStandsForElectionWithAnIncompleteTable(t *testing.T) {
	b := newBench(t)
	b.source.setLoading(true)
	b.subscribe("loading")
	b.follow()
	other := newMemoryQueue()
	b.start(func(o *Options) { o.Queue = other })
	ready := newMemorySource()
	stop := b.start(func(o *Options) { o.Identity, o.Subscriptions = "ready", ready })
	within(t, patience, "the one that is ready is in office", func() bool { return b.queue.called() > 0 })
	if other.called() > 0 {
		t.Error("the one that is loading is in office")
	}
	b.source.setLoading(false)
	stop()
	b.eventually("loading", v1alpha1.ReasonNoDeliveryYet)
}

func TestElectionWithoutTheAPIIsCalmInTheLogAndGoesOn(t *testing.T) {
	b := newBench(t)
	b.away.Store(true)
	var log lockedBuilder
	b.subscribe("later")
	b.follow()
	b.start(func(o *Options) {
		o.LeaseDuration = time.Second
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
	})
	within(t, patience, "it tries again and again", func() bool { return b.turnedAway.Load() > 5 })
	if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "level=WARN") {
		t.Errorf("the log has %d lines: %s", n, log.String())
	}
	b.away.Store(false)
	b.eventually("later", v1alpha1.ReasonNoDeliveryYet)
}
