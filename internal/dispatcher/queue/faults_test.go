package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"nexus.io/webhooks/test/redistest"
)

func TestScriptsThatTheServerForgotAreSentAgain(t *testing.T) {
	p := onServer(t, redistest.ForTest(t))
	q, c := p.run(t, nil)
	configure(t, q, "s1")
	for i := range 3 {
		if err := p.client.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		before := time.Now()
		e := publication(fmt.Sprintf("e%d", i), "s1")
		publish(t, q, e)
		empty(t, q)
		if took := time.Since(before); took > 2*time.Second {
			t.Errorf("event %d took %v", i, took)
		}
		if odd := once(c.got()[i:], e); odd != "" {
			t.Errorf("taken %s", odd)
		}
	}
}

func TestFirstEventAfterAStartIsLeasedAtOnce(t *testing.T) {
	p := onServer(t, redistest.ForTest(t))
	q, c := p.run(t, nil)
	configure(t, q, "s1")
	eventually(t, "it is idle", func() bool {
		return p.client.ZCard(t.Context(), newKeys(p.prefix, 0).prefix+"sleepers").Val() == 1
	})
	before := time.Now()
	publish(t, q, publication("e1", "s1"))
	eventually(t, "it is taken", func() bool { return len(c.got()) == 1 })
	if took := time.Since(before); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestRedisDiesAndComesBack(t *testing.T) {
	server := redistest.ForTest(t, "--appendonly", "yes", "--appendfsync", "always")
	p := onServer(t, server)
	q, c := p.run(t, func(o *Options, c *sink) { c.hold, o.LeaseTime = true, 3*time.Second })
	configure(t, q, "s1")
	accepted := []Publication{publication("e0", "s1"), publication("e1", "s1")}
	publish(t, q, accepted...)
	eventually(t, "they are in flight", func() bool { return len(c.got()) == 2 })
	server.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := q.Publish(ctx, []Publication{publication("e2", "s1")}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("publish while Redis is away: %v, want ErrUnavailable", err)
	}
	if ctx.Err() != nil {
		t.Error("the publisher was kept until its own patience ended")
	}
	c.letGo(Done) // meanwhile they end
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	empty(t, q)
	last := publication("e3", "s1")
	publish(t, q, last)
	accepted = append(accepted, last)
	empty(t, q)
	if odd := once(c.got(), accepted...); odd != "" {
		t.Errorf("taken %s", odd)
	}
}

// A Redis that hangs executes what it was sent meanwhile when it goes on, also what nobody waits for any more: that must
// not hold deliveries up until its leases run out, nor keep a dispatcher asleep beside them.
func TestRedisHangsForLongerThanACallMayTake(t *testing.T) {
	tests := map[string]struct {
		parameters string
		body       int // bytes; Redis reads a large call in pieces, between which it executes others
	}{
		"small calls":                       {"", 100},
		"large calls, a timeout of its own": {"?read_timeout=1s", 100_000},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.ForTest(t)
			client, err := Connect(server.URL() + test.parameters)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = client.Close() })
			q, c := place{client, newPrefix(), 1}.run(t, nil)
			configure(t, q, "s1")
			publish(t, q, publication("e1", "s1")) // the queue knows Redis' clock
			empty(t, q)
			abandoned := publication("e2", "s1")
			abandoned.Body = bytes.Repeat([]byte("x"), test.body)
			if err := server.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			if _, err := q.Publish(t.Context(), []Publication{abandoned}); !errors.Is(err, ErrUnavailable) {
				t.Errorf("publish while Redis hangs: %v, want ErrUnavailable", err)
			}
			<-time.After(500 * time.Millisecond) // Redis hangs on
			if err := server.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			before := time.Now()
			eventually(t, "what Redis took late is sent", func() bool { return len(c.got()) == 2 })
			if took := time.Since(before); took > 2*time.Second {
				t.Errorf("it took %v", took)
			}
			empty(t, q)
		})
	}
}

// Data that is gone is gone; but the queue works on, and knows the subscriptions again by itself.
func TestRedisLosesItsData(t *testing.T) {
	p := onServer(t, redistest.ForTest(t))
	q, c := p.run(t, func(_ *Options, c *sink) { c.hold = true })
	configure(t, q, "s1", "s2")
	publish(t, q, publication("e1", "s1"))
	eventually(t, "it is in flight", func() bool { return len(c.got()) == 1 })
	if err := p.client.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	c.letGo(Done)
	publish(t, q, publication("e2", "s1", "s2"))
	empty(t, q)
	if n := len(c.got()); n != 3 {
		t.Errorf("%d were taken, want 3", n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err := q.Publish(ctx, []Publication{publication("e3", "s9")})
	if !errors.Is(err, ErrUnavailable) || ctx.Err() != nil {
		t.Errorf("publish to a subscription that nobody configured: %v", err)
	}
}

// An event for a subscription that is not configured fails alone, not those that share its round trip.
func TestUnknownSubscriptionSpoilsOnlyItsEvent(t *testing.T) {
	p := onServer(t, common)
	q := p.queue(t, nil)
	configure(t, q, "s1")
	failed := make(chan error, 2)
	for _, id := range []string{"s1", "s9"} { // both wait for the first round trip
		go func() {
			_, err := q.Publish(t.Context(), []Publication{publication("e-"+id, id)})
			failed <- err
		}()
	}
	eventually(t, "both wait", func() bool {
		s := q.shards[0]
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.publishes) == 2
	})
	c := &sink{q: q, room: 10, ends: done}
	start(t, q, c)
	one, other := <-failed, <-failed
	if (one == nil) == (other == nil) {
		t.Errorf("publishing gave %v and %v, want one error", one, other)
	}
	if err := errors.Join(one, other); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "s9") {
		t.Errorf("publishing gave %v", err)
	}
	empty(t, q)
}

func TestFullRedisRefusesEventsAndFinishesDeliveries(t *testing.T) {
	p := onServer(t, redistest.ForTest(t))
	q, c := p.run(t, func(o *Options, c *sink) { c.hold, c.room, o.LeaseTime = true, 4, 900*time.Millisecond })
	configure(t, q, "s1", "s2")
	if _, err := q.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	accepted := []Publication{publication("e0", "s1"), publication("e1", "s1"), publication("e2", "s1")}
	publish(t, q, accepted...)
	eventually(t, "they are in flight", func() bool { return len(c.got()) == 3 })
	if err := p.client.ConfigSet(t.Context(), "maxmemory", "1mb").Err(); err != nil {
		t.Fatal(err)
	}
	deliveries := p.client.HGetAll(t.Context(), newKeys(p.prefix, 0).deliveries()).Val()
	_, err := q.Publish(t.Context(), []Publication{publication("e3", "s1")})
	if !errors.Is(err, ErrFull) || !errors.Is(err, ErrUnavailable) {
		t.Errorf("publish to a full Redis: %v, want ErrFull and ErrUnavailable", err)
	}
	after := p.client.HGetAll(t.Context(), newKeys(p.prefix, 0).deliveries()).Val()
	if diff := cmp.Diff(deliveries, after); diff != "" {
		t.Errorf("deliveries (-before +after):\n%s", diff)
	}
	time.AfterFunc(2*time.Second, func() { c.letGo(Retry) }) // leases must have been extended meanwhile
	eventually(t, "they are taken again", func() bool { return len(c.got()) == 6 })
	paused := open("s2")
	paused.Generation, paused.Paused = 2, true
	if err := q.Configure(t.Context(), []Limits{paused}); err != nil {
		t.Errorf("configure on a full Redis: %v", err)
	}
	if _, err := q.Check(t.Context()); err != nil {
		t.Errorf("check of a full Redis: %v", err)
	}
	empty(t, q)
	for _, lease := range c.got()[3:] {
		if lease.Attempt != 2 {
			t.Errorf("attempt %d: a lease ran out", lease.Attempt)
		}
	}
}

// Settlements make room, so they must not be held up by the events that come with them.
func TestAFullRedisRefusesOnlyTheEventsOfATrip(t *testing.T) {
	r := newRig(t)
	r.client = redistest.ForTest(t).Client()
	t.Cleanup(func() { _ = r.client.Close() })
	two(r)
	r.publish(pub{id: "e1", targets: "s1/d1 s2/d2"})
	r.lease(claim{most: 1})
	if err := r.client.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	r.calls++
	answers := r.trip([4][]any{
		publishPart: r.publishArgs(r.calls, pub{id: "e2", targets: "s1/d3"}),
		settlePart:  settling(end{delivery: "d1", token: 1, result: Done}),
		leasePart:   r.leasing(claim{}),
	})
	if refused, _ := answers[publishPart].(string); !strings.HasPrefix(refused, "OOM") {
		t.Errorf("publish answered %v", answers[publishPart])
	}
	if got := fmt.Sprint(answers[settlePart], answers[leasePart]); !strings.HasPrefix(got, "[1] [2 1000000") {
		t.Errorf("settle and lease answered %s", got)
	}
	r.audit()
	if state := r.state(); state["deliveries"] != "d2=s2|0|1000000|4|t|e1" {
		t.Errorf("deliveries: %s", state["deliveries"])
	}
	if extended := r.extend(2); extended != "[1]" {
		t.Errorf("extend answered %s", extended)
	}
	if slept := r.lease(claim{}); slept != "[0 1000000 1020000 0 [] []]" {
		t.Errorf("lease of nothing answered %s", slept)
	}
}

// A dispatcher without room hands its work to one that sleeps.
func TestSleepingDispatcherIsWoken(t *testing.T) {
	p := onServer(t, common)
	busy, first := p.run(t, func(_ *Options, c *sink) { c.hold, c.room = true, 1 })
	_, second := p.run(t, nil)
	configure(t, busy, "s1")
	eventually(t, "both sleep", func() bool {
		return p.client.ZCard(t.Context(), newKeys(p.prefix, 0).prefix+"sleepers").Val() == 2
	})
	var all []Publication
	for i := range 200 {
		all = append(all, publication(fmt.Sprintf("e%d", i), "s1"))
	}
	before := time.Now()
	publish(t, busy, all...)
	eventually(t, "the other took the rest", func() bool { return len(first.got())+len(second.got()) == 200 })
	if took := time.Since(before); took > 3*time.Second {
		t.Errorf("it took %v: nobody woke the other", took)
	}
	first.letGo(Done)
	empty(t, busy)
	if odd := once(append(first.got(), second.got()...), all...); odd != "" {
		t.Errorf("taken %s", odd)
	}
}

// The same when the work becomes due while the one that knows of it has no room.
func TestSleepingDispatcherIsWokenForARetry(t *testing.T) {
	p := onServer(t, common)
	busy, first := p.run(t, func(_ *Options, c *sink) { c.hold, c.room = true, 1 })
	configure(t, busy, "s1")
	publish(t, busy, publication("e0", "s1"))
	eventually(t, "one is in flight", func() bool { return len(first.got()) == 1 })
	_, second := p.run(t, func(_ *Options, c *sink) { c.room = 1 })
	eventually(t, "the other sleeps", func() bool {
		return p.client.ZCard(t.Context(), newKeys(p.prefix, 0).prefix+"sleepers").Val() == 1
	})
	before := time.Now()
	first.mu.Lock()
	lease := first.held[0]
	first.mu.Unlock()
	busy.Settle(Settlement{Lease: lease, Result: Retry, RetryAfter: time.Second}) // and its room stays taken
	eventually(t, "the other took the retry", func() bool { return len(second.got()) == 1 })
	if took := time.Since(before); took < 990*time.Millisecond || took > 3*time.Second {
		t.Errorf("it took %v, want 1 s", took)
	}
	empty(t, busy)
}

func TestDeliveriesOfADeadDispatcherGoOn(t *testing.T) {
	p := onServer(t, common)
	dying := &sink{room: 2, hold: true}
	dying.q = p.queue(t, func(o *Options) { o.LeaseTime = time.Second })
	configure(t, dying.q, "s1")
	e := publication("e1", "s1")
	stopped := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { stopped <- dying.q.Run(ctx, dying) }()
	publish(t, dying.q, e)
	eventually(t, "it is in flight", func() bool { return len(dying.got()) == 1 })
	cancel()
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	q, c := p.run(t, nil)
	empty(t, q)
	if got := c.got(); len(got) != 1 || got[0].Attempt != 1 || got[0].Token <= dying.got()[0].Token {
		t.Errorf("taken %+v", got)
	}
}

func TestIdleDispatcherIsSilent(t *testing.T) {
	server := redistest.ForTest(t)
	p := onServer(t, server)
	q, _ := p.run(t, nil)
	configure(t, q, "s1")
	publish(t, q, publication("e1", "s1"))
	empty(t, q)
	counter := server.Client()
	defer func() { _ = counter.Close() }()
	commands := func() float64 {
		n := 0.0
		for line := range strings.Lines(counter.Info(t.Context(), "commandstats").Val()) {
			if name, rest, ok := strings.Cut(line, ":calls="); ok && name != "cmdstat_info" {
				calls, _, _ := strings.Cut(rest, ",")
				count, _ := strconv.ParseFloat(calls, 64)
				n += count
			}
		}
		return n
	}
	first, began := commands(), time.Now()
	<-time.After(6 * time.Second)
	rate := (commands() - first) / time.Since(began).Seconds()
	if rate >= 5 {
		t.Errorf("%.1f commands a second", rate)
	}
	if rate == 0 {
		t.Error("no commands at all: the test sees nothing")
	}
}

func TestRunSettlesWhatWasBroughtBeforeItEnds(t *testing.T) {
	p := onServer(t, common)
	c := &sink{room: 100, hold: true}
	registry := prometheus.NewRegistry()
	c.q = p.queue(t, func(o *Options) { o.Registerer = registry })
	configure(t, c.q, "s1")
	stop := start(t, c.q, c)
	var all []Publication
	for i := range 20 {
		all = append(all, publication(fmt.Sprintf("e%d", i), "s1"))
	}
	publish(t, c.q, all...)
	eventually(t, "all are in flight", func() bool { return len(c.got()) == 20 })
	c.q.StopLeasing()
	more := publication("more", "s1")
	publish(t, c.q, more)
	c.letGo(Done)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if n := size(t, c.q); n != 1 {
		t.Errorf("%d are left, want the one that was published after leasing had stopped", n)
	}
	if odd := once(c.got(), all...); odd != "" {
		t.Errorf("taken %s", odd)
	}
	audited(t, c.q)
	if _, err := c.q.Publish(t.Context(), []Publication{publication("late", "s1")}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("publish after the end: %v, want ErrUnavailable", err)
	}
	if n := counted(t, c.q.metrics.stale); n != 0 {
		t.Errorf("%v stale settlements", n)
	}
}

func counted(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}
