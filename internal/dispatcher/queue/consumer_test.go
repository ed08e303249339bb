package queue

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"nexus.io/webhooks/test/redistest"
)

// sink is a consumer: it ends each delivery as the test says, at once or, with hold, when the test says so.
type sink struct {
	q    *Queue
	room int // deliveries at once
	ends func(Lease) Settlement
	hold bool

	mu       sync.Mutex
	inFlight int
	most     int // that were ever in flight at once
	taken    []Lease
	held     []Lease
}

func (c *sink) Room() (deliveries, bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.room - c.inFlight, 64 << 20
}

func (c *sink) Take(leases []Lease) {
	c.mu.Lock()
	c.inFlight += len(leases)
	c.most = max(c.most, c.inFlight)
	c.taken = append(c.taken, leases...)
	if c.hold {
		c.held = append(c.held, leases...)
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	for _, lease := range leases {
		c.settle(c.ends(lease))
	}
}

func (c *sink) settle(s Settlement) {
	c.mu.Lock()
	c.inFlight--
	c.mu.Unlock()
	c.q.Settle(s)
}

// letGo ends what was held with the result, and holds nothing more.
func (c *sink) letGo(result Result) {
	c.mu.Lock()
	held := c.held
	c.hold, c.held = false, nil
	c.mu.Unlock()
	for _, lease := range held {
		c.settle(Settlement{Lease: lease, Result: result, StatusCode: 200})
	}
}

// got are the leases so far.
func (c *sink) got() []Lease {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Lease(nil), c.taken...)
}

func done(l Lease) Settlement {
	return Settlement{Lease: l, Result: Done, StatusCode: 200, Duration: 7 * time.Millisecond}
}

// place is a Redis and the prefix of the queues that share it.
type place struct {
	client redis.UniversalClient
	prefix string
	shards int
}

func onServer(t testing.TB, s *redistest.Server) place {
	t.Helper()
	client, err := Connect(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return place{client, newPrefix(), 1}
}

// queue makes a queue that does not run yet.
func (p place) queue(t testing.TB, change func(*Options)) *Queue {
	t.Helper()
	o := Options{
		Client: p.client, Dispatcher: uuid.NewString(), Prefix: p.prefix, Shards: p.shards,
		Registerer: prometheus.NewRegistry(),
	}
	if change != nil {
		change(&o)
	}
	q, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// run starts a queue with a consumer that takes everything, changed by the test; both end with the test.
func (p place) run(t testing.TB, change func(*Options, *sink)) (*Queue, *sink) {
	t.Helper()
	c := &sink{room: 1000, ends: done}
	c.q = p.queue(t, func(o *Options) {
		if change != nil {
			change(o, c)
		}
	})
	start(t, c.q, c)
	return c.q, c
}

// start runs the queue until the returned function is called, or the test ends.
func start(t testing.TB, q *Queue, c Consumer) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	var err error
	go func() {
		err = q.Run(ctx, c)
		close(ended)
	}()
	stop = func() error {
		cancel()
		<-ended
		return err
	}
	t.Cleanup(func() { _ = stop() })
	return stop
}

// configure makes subscriptions that nothing limits.
func configure(t testing.TB, q *Queue, ids ...string) {
	t.Helper()
	var limits []Limits
	for _, id := range ids {
		limits = append(limits, open(id))
	}
	if err := q.Configure(t.Context(), limits); err != nil {
		t.Fatal(err)
	}
}

func open(id string) Limits {
	return Limits{
		SubscriptionID: id, Generation: 1, RatePerMinute: 1_000_000, MaxInFlight: 1000, MaxBacklog: 100_000, Active: true,
	}
}

func subscriptions(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("sub%04d", i)
	}
	return ids
}

// publication is an event for the subscriptions, with new delivery ids.
func publication(id string, subs ...string) Publication {
	p := Publication{EventID: id, EventType: "build.completed", Body: []byte(`{"id":"` + id + `"}`)}
	for _, sub := range subs {
		p.Targets = append(p.Targets, Target{sub, uuid.NewString()})
	}
	return p
}

func publish(t testing.TB, q *Queue, publications ...Publication) []Receipt {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	receipts, err := q.Publish(ctx, publications)
	if err != nil {
		t.Fatal(err)
	}
	return receipts
}

// empty waits until nothing is unfinished, and audits.
func empty(t testing.TB, q *Queue) {
	t.Helper()
	eventually(t, "the queue is empty", func() bool { return size(t, q) == 0 })
	audited(t, q)
}

func size(t testing.TB, q *Queue) int64 {
	t.Helper()
	n, err := q.Size(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func audited(t testing.TB, q *Queue) {
	t.Helper()
	found, _, err := q.Audit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(found) > 0 {
		t.Fatalf("audit found %v", found)
	}
}

// once tells how often each delivery was taken, as text: "" where each target was taken exactly once and nothing else.
func once(leases []Lease, publications ...Publication) string {
	times := map[string]int{}
	for _, p := range publications {
		for _, target := range p.Targets {
			times[target.DeliveryID]--
		}
	}
	for _, lease := range leases {
		times[lease.DeliveryID]++
	}
	var odd []string
	for id, n := range times {
		if n != 0 {
			odd = append(odd, fmt.Sprintf("%s: %+d", id, n))
		}
	}
	return strings.Join(odd, ", ")
}
