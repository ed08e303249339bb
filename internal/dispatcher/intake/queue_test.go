// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/routing"
	"nexus.io/webhooks/test/redistest"
)

// noSender leaves everything in the queue.
type noSender struct{}

func (noSender) Room() (deliveries, bytes int) { return 0, 0 }
func (noSender) Take([]queue.Lease)            {}

// redisQueue is the real queue of so many shards, running until the test ends.
func redisQueue(t *testing.T, server *redistest.Server, shards int, subscriptions []string) *queue.Queue {
	t.Helper()
	client := server.Client()
	q, err := queue.New(queue.Options{
		Client: client, Dispatcher: "test", Shards: shards, Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- q.Run(ctx, noSender{}) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("run the queue: %v", err)
		}
		_ = client.Close()
	})
	var limits []queue.Limits
	for _, id := range subscriptions {
		limits = append(limits, queue.Limits{
			SubscriptionID: id, Generation: 1, RatePerMinute: 60, MaxInFlight: 10, MaxBacklog: 100, Active: true,
		})
	}
	if err := q.Configure(t.Context(), limits); err != nil {
		t.Fatal(err)
	}
	return q
}

func wantSize(t *testing.T, q *queue.Queue, want int64) {
	t.Helper()
	if size, err := q.Size(t.Context()); err != nil || size != want {
		t.Errorf("%d deliveries are queued (%v), want %d", size, err, want)
	}
}

func TestIDsAreTakenOnceOverAllShards(t *testing.T) {
	for _, shards := range []int{1, 8} {
		t.Run(fmt.Sprintf("%d shards", shards), func(t *testing.T) {
			var ids []string
			var routes []*routing.Route
			for i := range 20 {
				ids = append(ids, fmt.Sprintf("sub_%02d", i))
				routes = append(routes, &routing.Route{ID: ids[i], Active: true, Events: []string{"*"}})
			}
			q := redisQueue(t, redistest.ForTest(t), shards, ids)
			f := newFixture(t, func(o *Options) { o.Publisher = q })
			f.table = routing.Empty().With(routes, nil)
			body := `[{"id":"a",` + released[1:] + `,{"id":"a",` + released[1:] + `,{"id":"a",` + buildFailed[1:] + `]`
			first := f.post("/api/v1/events/batch", body)
			results := wantBatch(t, first).Results
			if diff := cmp.Diff(results[0], results[1]); diff != "" || results[0].Matched != 20 {
				t.Errorf("the second of an id in a batch (-first +second):\n%s", diff)
			}
			if results[2].Status != 409 || results[2].Index != 2 {
				t.Errorf("the same id with another content: %+v, want 409", results[2])
			}
			f.table = routing.Empty().With(routes[:10], nil) // what matches now does not count
			if diff := cmp.Diff(first.Body.String(), f.post("/api/v1/events/batch", body).Body.String()); diff != "" {
				t.Errorf("answers (-first +again):\n%s", diff)
			}
			wantSize(t, q, 20)
		})
	}
}

func TestIDOfAnEventWithoutMatchesIsTaken(t *testing.T) {
	q := redisQueue(t, redistest.ForTest(t), 1, []string{"sub_builds"})
	f := newFixture(t, func(o *Options) { o.Publisher = q })
	table := f.table
	f.table = routing.Empty()
	body := `{"id":"a","type":"build.failed","source":"ci","data":{}}`
	first := f.post("/api/v1/events", body)
	f.table = table
	again := f.post("/api/v1/events", body)
	if got := wantAccepted(t, again); got.Matched != 0 || first.Body.String() != again.Body.String() {
		t.Errorf("first %s\nagain %s", first.Body, again.Body)
	}
	wantSize(t, q, 0)
}

func TestRedisAwayAndBack(t *testing.T) {
	server := redistest.ForTest(t, "--appendonly", "yes", "--appendfsync", "always")
	q := redisQueue(t, server, 1, []string{"sub_builds", "sub_nexus"})
	f := newFixture(t, func(o *Options) { o.Publisher = q })
	post := func() int { return f.post("/api/v1/events", buildFailed, "Idempotency-Key", "k").Code }
	server.Kill()
	if p := wantProblem(t, f.post("/api/v1/events", buildFailed, "Idempotency-Key", "k"), 503); !strings.Contains(p.Detail,
		"Idempotency-Key") {
		t.Errorf("detail %q", p.Detail)
	}
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for post() != 202 {
		if time.Now().After(deadline) {
			t.Fatal("events are still refused although Redis is back")
		}
	}
	if status := post(); status != 202 {
		t.Errorf("answer %d to the same event again", status)
	}
	wantSize(t, q, 2)
}
