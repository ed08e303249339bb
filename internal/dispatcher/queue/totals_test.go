package queue

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

// An event counts once, over however many shards and parts it goes, and the sums are those of all shards.
func TestTotalsAreOverAllShards(t *testing.T) {
	for _, shards := range []int{1, 4} {
		t.Run(fmt.Sprintf("%d shards", shards), func(t *testing.T) { testTotals(t, shards) })
	}
}

func testTotals(t *testing.T, shards int) {
	client := common.Client()
	t.Cleanup(func() { _ = client.Close() })
	q, err := New(Options{
		Client: client, Prefix: newPrefix(), Shards: shards, Dispatcher: "d", Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	start(t, q, &sink{q: q})
	many := Publication{EventID: "evt_many", EventType: "release.completed", Body: []byte("{}"), Fingerprint: "f"}
	var limits []Limits
	for i := range maxTargets + 20 {
		id := fmt.Sprintf("sub_%d", i)
		limits = append(limits, Limits{
			SubscriptionID: id, Generation: 1, RatePerMinute: 1000, MaxInFlight: 10, MaxBacklog: 10, Paused: true, Active: true,
		})
		many.Targets = append(many.Targets, Target{SubscriptionID: id, DeliveryID: fmt.Sprintf("d_%d", i)})
	}
	if err := q.Configure(t.Context(), limits); err != nil {
		t.Fatal(err)
	}
	none := Publication{EventID: "evt_none", EventType: "build.completed", Body: []byte("{}")}
	for range 2 { // the second time it is a duplicate
		if _, err := q.Publish(t.Context(), []Publication{many}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := q.Publish(t.Context(), []Publication{none}); err != nil {
		t.Fatal(err)
	}
	got, err := q.Totals(t.Context())
	want := Totals{Events: 2, EventsByType: map[string]int64{"release.completed": 1, "build.completed": 1}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

// What is tried again is counted until it has ended, and the average is of the attempts that were answered.
func TestTotalsFollowTheAttempts(t *testing.T) {
	r := newRig(t)
	q := &Queue{client: r.client, shards: []*shard{{keys: r.keys}}}
	r.configure("s1 1 60 9 9 1 0")
	r.publish(pub{id: "e1", targets: "s1/d1 s1/d2"})
	r.lease(claim{})
	r.settle(end{delivery: "d1", token: 1, result: Retry, status: 500, took: 10},
		end{delivery: "d2", token: 1, result: Done, status: 200, took: 20})
	hold := func(want Totals) {
		t.Helper()
		want.Events, want.EventsByType = 1, map[string]int64{"t": 1}
		got, err := q.Totals(t.Context())
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
	}
	hold(Totals{Successful: 1, Retrying: 1, AverageLatency: 15 * time.Millisecond})
	r.now += 1000
	r.lease(claim{})
	r.settle(end{delivery: "d1", token: 2, result: Fail, status: 410, took: 30})
	hold(Totals{Successful: 1, Failed: 1, AverageLatency: 20 * time.Millisecond})
}
