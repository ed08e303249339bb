// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package e2e proves the promises of the whole path on real processes: a real API server, real Redis, the manager and
// dispatchers as they ship, and a receiver that checks what arrives.
package e2e

import (
	"context"
	"fmt"
	"os"
	"sync"
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

var cluster *kube.Cluster

func TestMain(m *testing.M) {
	code := kube.Run(m, func(c *kube.Cluster) { cluster = c })
	stack.Cleanup()
	os.Exit(code)
}

func start(t *testing.T, dispatchers int, flags ...string) *stack.Stack {
	t.Helper()
	s := stack.Start(t, stack.Options{Cluster: cluster, Dispatchers: dispatchers, Flags: flags})
	return s
}

// subscribe applies a subscription to path for events of one project, and waits until every dispatcher routes to it.
func subscribe(t *testing.T, s *stack.Stack, name, path string, change func(*v1alpha1.WebhookSubscriptionSpec),
) *v1alpha1.WebhookSubscription {
	t.Helper()
	sub := &v1alpha1.WebhookSubscription{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.Namespace}}
	sub.Spec.URL = s.Receiver.URL + path
	sub.Spec.Events = []string{"build.completed"}
	sub.Spec.Filter = &v1alpha1.EventFilter{Project: name}
	sub.Spec.RateLimitPerMinute = new(int32(1_000_000))
	if change != nil {
		change(&sub.Spec)
	}
	create(t, s, sub)
	eventually(t, 30*time.Second, "subscription "+name+" is ready and routed", func(ctx context.Context) error {
		if err := s.Client.Get(ctx, client.ObjectKeyFromObject(sub), sub); err != nil {
			return err
		}
		for _, condition := range []string{v1alpha1.ConditionReady, v1alpha1.ConditionDelivering} {
			c := meta.FindStatusCondition(sub.Status.Conditions, condition)
			if c == nil || c.ObservedGeneration != sub.Generation {
				return fmt.Errorf("condition %s is %+v", condition, c)
			}
		}
		if !meta.IsStatusConditionTrue(sub.Status.Conditions, v1alpha1.ConditionReady) {
			return fmt.Errorf("not ready: %+v", sub.Status.Conditions)
		}
		return nil
	})
	return sub
}

// create makes a subscription that ends with the test: the cluster is shared, and so every stack sees it.
func create(t *testing.T, s *stack.Stack, sub *v1alpha1.WebhookSubscription) {
	t.Helper()
	if err := s.Client.Create(t.Context(), sub); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.IgnoreNotFound(s.Client.Delete(context.Background(), sub)); err != nil {
			t.Error(err)
		}
	})
}

// eventually polls until check returns nil.
func eventually(t *testing.T, limit time.Duration, what string, check func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := check(ctx)
		if err == nil {
			return
		}
		if ctx.Err() == nil { // else it may only tell of its end
			last = err
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %s: %v", what, limit, last)
		case <-tick.C:
		}
	}
}

func event(project, id string) string {
	return fmt.Sprintf(`{"id":%q,"type":"build.completed","source":"e2e","data":{"project":%q,"n":1.50}}`, id, project)
}

// publishing is a load of numbered events and what was accepted of it.
type publishing struct {
	mu       sync.Mutex
	accepted []string
	refused  int
}

// publish posts count events at the given pace, by turns to the dispatchers that are named, and notes which were
// accepted.
func publish(ctx context.Context, s *stack.Stack, project string, count int, pace time.Duration, dispatchers ...int,
) *publishing {
	var p publishing
	var group sync.WaitGroup
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for i := range count {
		group.Go(func() {
			id := fmt.Sprintf("%s-%d", project, i)
			status, _, err := s.Publish(ctx, dispatchers[i%len(dispatchers)], event(project, id))
			p.mu.Lock()
			defer p.mu.Unlock()
			if err == nil && status == 202 {
				p.accepted = append(p.accepted, id)
			} else {
				p.refused++
			}
		})
		<-tick.C
	}
	group.Wait()
	return &p
}

// arrived waits until every accepted event was answered 2xx at least once, then until the queue is empty and whole, so
// that leases that were lost have come back too. It returns how many events came more than once.
func arrived(t *testing.T, s *stack.Stack, path string, accepted []string, limit time.Duration) (duplicates int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	_, err := s.Receiver.Wait(ctx, path, func(list []receiver.Arrival) bool {
		return len(list) >= len(accepted) && missing(taken(list), accepted) == 0
	})
	if err != nil {
		t.Fatalf("%d of %d accepted events did not arrive: %v", missing(taken(s.Receiver.Arrivals(path)), accepted),
			len(accepted), err)
	}
	audit(t, s)
	for _, n := range taken(s.Receiver.Arrivals(path)) {
		duplicates += n - 1
	}
	return duplicates
}

// taken counts by event what was answered 2xx.
func taken(list []receiver.Arrival) map[string]int {
	counts := map[string]int{}
	for _, a := range list {
		if a.Status < 300 {
			counts[a.EventID]++
		}
	}
	return counts
}

func missing(taken map[string]int, accepted []string) int {
	n := 0
	for _, id := range accepted {
		if taken[id] == 0 {
			n++
		}
	}
	return n
}

// audit proves that the queue lost nothing and counts right, and that nothing is left in it.
func audit(t *testing.T, s *stack.Stack) {
	t.Helper()
	redis := s.Redis.Client()
	defer func() { _ = redis.Close() }()
	q, err := queue.New(queue.Options{Client: redis, Dispatcher: "audit", Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "the queue is empty", func(ctx context.Context) error {
		size, err := q.Size(ctx)
		if err == nil && size > 0 {
			err = fmt.Errorf("%d deliveries are not finished", size)
		}
		return err
	})
	violations, _, err := q.Audit(t.Context())
	if err != nil || len(violations) > 0 {
		t.Errorf("audit: %v %v", violations, err)
	}
}
