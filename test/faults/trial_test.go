// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/test/kube"
	"nexus.io/webhooks/test/receiver"
	"nexus.io/webhooks/test/stack"
)

const (
	dispatchers = 3
	leaseTime   = 5 * time.Second
	calm        = time.Second // of load before a fault and after it
	// drain is what may pass from the end of the load to the last arrival: leases that are lost come back, and what
	// failed is tried again.
	drain = 60 * time.Second
	// inFlight is what each subscription has in flight at most.
	inFlight = 20
)

// trial is one fault under load.
type trial struct {
	*testing.T
	want expectation
	s    *stack.Stack
	subs map[string]*v1alpha1.WebhookSubscription
	load *load
	// still is the longest time under load without an arrival at the healthy endpoint.
	still time.Duration
}

// expectation is what is promised beside that nothing is lost.
type expectation struct {
	redis      []string             // flags of the server
	redisURL   string               // of one that the test starts; "": a server with these flags
	shards     int                  // of the queue, where it is a Redis Cluster
	loses      bool                 // something must be lost, or the fault shows nothing
	holdsUp    bool                 // publishers: who is asked hangs, and has no place for more
	api        *kube.Cluster        // by which the manager reaches the Kubernetes API; nil: directly
	flags      []string             // of the dispatchers
	duplicates func(faults int) int // at most, after so many faults; nil: none
}

// try runs a fault, which returns how often it struck, under load, and compares what was accepted with what arrived.
func try(t *testing.T, want expectation, fault func(ctx context.Context, r *trial) int) {
	t.Helper()
	newTrial(t, want).run(fault)
}

// newTrial starts everything but the load.
func newTrial(t *testing.T, want expectation) *trial {
	t.Helper()
	r := &trial{T: t, want: want, load: newLoad(), subs: map[string]*v1alpha1.WebhookSubscription{}}
	takesTime(t)
	r.s = stack.Start(t, stack.Options{
		Cluster: cmp.Or(want.api, cluster), Dispatchers: dispatchers, RedisFlags: want.redis, RedisURL: want.redisURL,
		Flags: append([]string{
			"--lease-time=" + fmt.Sprint(int(leaseTime.Seconds())), "--queue-shards=" + fmt.Sprint(max(want.shards, 1)),
		}, want.flags...),
	})
	var err error
	if r.s.Client, err = stack.NewClient(cluster.Config); err != nil { // past what breaks the manager's way
		t.Fatal(err)
	}
	for kind, path := range kinds {
		r.create(kind, r.s.Receiver.URL+path)
	}
	for kind := range kinds {
		r.routed(r.subs[kind])
	}
	return r
}

func (r *trial) run(fault func(ctx context.Context, r *trial) int) {
	r.Helper()
	ctx, stop := context.WithCancel(r.Context())
	published := make(chan struct{})
	started := time.Now()
	go func() {
		defer close(published)
		r.load.publish(ctx, slices.Clone(r.s.Dispatchers))
	}()
	r.pass(calm) // the load runs
	faulty, end := context.WithTimeout(r.Context(), *faultTime)
	struck := fault(faulty, r)
	end()
	r.pass(calm) // the load runs
	stop()
	<-published
	ended := time.Now()
	r.s.Receiver.Recover() // else the last of what is tried again takes several seconds
	if err := r.s.Client.Delete(r.Context(), r.subs["hanging"]); err != nil {
		r.Error(err)
	}
	bound := 0
	if r.want.duplicates != nil {
		bound = r.want.duplicates(struck)
	}
	r.compare(started, ended, bound)
}

// subscribe takes the events of a kind to an endpoint, and returns once they are routed there.
func (r *trial) subscribe(kind, url string) {
	r.Helper()
	r.create(kind, url)
	r.routed(r.subs[kind])
}

func (r *trial) create(kind, url string, changes ...func(*v1alpha1.WebhookSubscriptionSpec)) {
	r.Helper()
	sub := &v1alpha1.WebhookSubscription{ObjectMeta: metav1.ObjectMeta{Name: kind, Namespace: r.s.Namespace}}
	sub.Spec.URL = url
	sub.Spec.Events = []string{"build.completed"}
	sub.Spec.Filter = &v1alpha1.EventFilter{Project: kind}
	sub.Spec.RateLimitPerMinute, sub.Spec.MaxInFlight = new(int32(1_000_000)), new(int32(inFlight))
	sub.Spec.TimeoutSeconds = new(int32(2))
	sub.Spec.Retry = &v1alpha1.RetryPolicy{
		MaxRetries: new(int32(50)), InitialDelaySeconds: new(int32(1)), MaxDelaySeconds: new(int32(1)),
	}
	for _, change := range changes {
		change(&sub.Spec)
	}
	if err := r.s.Client.Create(r.Context(), sub); err != nil {
		r.Fatal(err)
	}
	r.subs[kind] = sub
	r.Cleanup(func() { _ = r.s.Client.Delete(context.Background(), sub) })
}

// routed waits until the dispatchers follow the subscription as it is now.
func (r *trial) routed(sub *v1alpha1.WebhookSubscription) {
	r.Helper()
	r.eventually(sub.Name+" is routed", func() error {
		if err := r.s.Client.Get(r.Context(), client.ObjectKeyFromObject(sub), sub); err != nil {
			return err
		}
		for _, condition := range []string{v1alpha1.ConditionReady, v1alpha1.ConditionDelivering} {
			c := meta.FindStatusCondition(sub.Status.Conditions, condition)
			if c == nil || c.ObservedGeneration != sub.Generation {
				return fmt.Errorf("condition %s is %+v", condition, c)
			}
		}
		return nil
	})
}

// compare waits for what was accepted, and reports.
func (r *trial) compare(started, ended time.Time, bound int) {
	r.Helper()
	counts := map[string]int{}
	wanted := 0
	lost := func() (n int) {
		counts = taken(r.s.Receiver.Arrivals("/"))
		wanted = 0
		for kind, ids := range r.load.accepted {
			if kind == "hanging" {
				continue // it takes nothing
			}
			wanted += len(ids)
			for _, id := range ids {
				if counts[id] == 0 {
					n++
				}
			}
		}
		return n
	}
	patience := drain
	if r.want.loses {
		r.audit() // what then has not arrived will not
		patience = 0
	}
	for deadline := time.Now().Add(patience); lost() > 0 && time.Now().Before(deadline); {
		r.pass(200 * time.Millisecond) // the receiver goes on
	}
	if !r.want.loses {
		r.audit() // what comes twice, after its lease, has come
	}
	missing, duplicates := lost(), 0
	for _, n := range counts {
		duplicates += n - 1
	}
	r.still = r.gap(started, ended)
	r.Logf("accepted %d, delivered %d, lost %d, duplicates %d (at most %d), longest gap %s, refused %v, unsent %d",
		wanted, wanted-missing, missing, duplicates, bound, r.still.Round(time.Millisecond), r.load.refused,
		r.load.unsent)
	if missing > 0 && !r.want.loses {
		r.Errorf("%d accepted events were lost", missing)
	}
	if missing == 0 && r.want.loses {
		r.Error("nothing was lost: then the fault does not show that what is promised elsewhere is worth something")
	}
	if duplicates > bound {
		r.Errorf("%d duplicates, at most %d are to be explained", duplicates, bound)
	}
	r.loaded(wanted)
}

// loaded holds the publishers to their pace: what they posted, and what they would have posted had there been a place.
func (r *trial) loaded(accepted int) {
	r.Helper()
	due, tried := int(r.load.lasted/pace), r.load.posted
	if r.want.holdsUp {
		tried += r.load.unsent
	}
	if tried < due*95/100 {
		r.Errorf("only %d of %d events were posted: that is not the load that is promised", tried, due)
	}
	if accepted < due/10 {
		r.Errorf("only %d of %d events were accepted: that is no load", accepted, due)
	}
}

// gap is the longest time under load without an arrival at the healthy endpoint.
func (r *trial) gap(started, ended time.Time) time.Duration {
	times := []time.Time{started, ended}
	for _, a := range r.s.Receiver.Arrivals(kinds["healthy"]) {
		if a.At.Before(ended) {
			times = append(times, a.At)
		}
	}
	slices.SortFunc(times, time.Time.Compare)
	longest := time.Duration(0)
	for i := 1; i < len(times); i++ {
		longest = max(longest, times[i].Sub(times[i-1]))
	}
	return longest
}

// taken counts by event what was answered 2xx, as far as the sender still listened.
func taken(list []receiver.Arrival) map[string]int {
	counts := map[string]int{}
	for _, a := range list {
		if a.Status < http.StatusMultipleChoices && !strings.HasPrefix(a.Path, kinds["hanging"]) {
			counts[a.EventID]++
		}
	}
	return counts
}

// audit waits until all leases are settled or have come back, and looks at the whole queue.
func (r *trial) audit() {
	r.Helper()
	redis, err := queue.Connect(r.s.RedisURL)
	if err != nil {
		r.Fatal(err)
	}
	defer func() { _ = redis.Close() }()
	q, err := queue.New(queue.Options{
		Client: redis, Dispatcher: "audit", Registerer: prometheus.NewRegistry(), Shards: r.want.shards,
	})
	if err != nil {
		r.Fatal(err)
	}
	r.eventually("the queue is empty", func() error {
		size, err := q.Size(r.Context())
		if err == nil && size > 0 {
			err = fmt.Errorf("%d deliveries are not finished", size)
		}
		return err
	})
	violations, _, err := q.Audit(r.Context())
	if err != nil || len(violations) > 0 {
		r.Errorf("audit: %v %v", violations, err)
	}
}

func (r *trial) eventually(what string, check func() error) {
	r.Helper()
	for deadline := time.Now().Add(drain); ; r.pass(50 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			r.Fatalf("%s: not within %s: %v", what, drain, err)
		}
	}
}

// every strikes at this interval until ctx ends, and returns how often.
func (r *trial) every(ctx context.Context, interval time.Duration, strike func(n int)) (struck int) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return struck
		case <-tick.C:
			strike(struck)
			struck++
		}
	}
}

// pass lets this much time go by, in which others do what they do; it ends with the test.
func (r *trial) pass(d time.Duration) {
	r.Helper()
	select {
	case <-time.After(d):
	case <-r.Context().Done():
		r.Fatal("the test ended")
	}
}

func (r *trial) must(err error) {
	r.Helper()
	if err != nil {
		r.Error(err)
	}
}
