package queue

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"nexus.io/webhooks/test/redistest"
)

// What one call leased is extended until its last delivery is settled.
func TestALeaseIsExtendedForWhatIsLeftOfIt(t *testing.T) {
	p := onServer(t, common)
	q, c := p.run(t, func(o *Options, c *sink) { c.hold, o.LeaseTime = true, 900*time.Millisecond })
	configure(t, q, "s1", "s2", "s3")
	publish(t, q, publication("e1", "s1", "s2", "s3"))
	eventually(t, "they are in flight", func() bool { return len(c.got()) == 3 })
	c.settle(done(c.got()[0]))
	c.settle(done(c.got()[1]))
	<-time.After(3 * time.Second)
	if n := len(c.got()); n != 3 {
		t.Errorf("%d attempts at 3 deliveries: a lease ran out", n)
	}
	c.settle(done(c.got()[2]))
	empty(t, q)
	if n := counted(t, q.metrics.stale) + counted(t, q.metrics.lost); n != 0 {
		t.Errorf("%v leases were lost", n)
	}
}

// A Redis that lost its data gives tokens again that a dispatcher holds.
func TestATokenThatComesAgainIsAnotherLease(t *testing.T) {
	p := onServer(t, redistest.ForTest(t))
	q, c := p.run(t, func(o *Options, c *sink) { c.hold, o.LeaseTime = true, 900*time.Millisecond })
	configure(t, q, "s1", "s2")
	publish(t, q, publication("e1", "s1", "s2"))
	eventually(t, "they are in flight", func() bool { return len(c.got()) == 2 })
	if err := p.client.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	publish(t, q, publication("e2", "s1", "s2"))
	eventually(t, "the next are in flight", func() bool { return len(c.got()) == 4 })
	if got := c.got(); got[0].Token != got[3].Token {
		t.Fatalf("tokens %d and %d", got[0].Token, got[3].Token)
	}
	for _, lease := range c.got()[:2] {
		c.settle(done(lease))
	}
	<-time.After(3 * time.Second)
	if n := len(c.got()); n != 4 {
		t.Errorf("%d attempts at 4 deliveries: a lease ran out", n)
	}
	for _, lease := range c.got()[2:] {
		c.settle(done(lease))
	}
	empty(t, q)
}

// A dispatcher may hold as many tokens as deliveries, more than Lua's stack does. What fails in one part of a trip must
// not tear what the others did.
func TestATripTakesManyTokens(t *testing.T) {
	r := newRig(t)
	two(r)
	r.publish(pub{id: "e1", targets: "s1/d1 s2/d2"})
	r.lease(claim{})
	tokens := []any{leaseMillis}
	for n := range 20_000 {
		tokens = append(tokens, n+1)
	}
	r.calls++
	answers := r.trip([4][]any{
		r.publishArgs(r.calls, pub{id: "e2", targets: "s1/d3"}), settling(end{delivery: "d1", token: 1, result: Done}),
		tokens, r.leasing(claim{}),
	})
	if extended, _ := answers[extendPart].([]any); len(extended) != 20_000 || fmt.Sprint(extended[:2]) != "[1 0]" {
		t.Errorf("extended %d: %.20v", len(extended), extended)
	}
	r.audit()
}

func TestASettlementThatFailsLeavesTheOtherPartsWhole(t *testing.T) {
	r := newRig(t)
	two(r)
	r.publish(pub{id: "e1", targets: "s1/d1"})
	r.lease(claim{})
	bad := settling(end{delivery: "d1", token: 1, result: Retry})
	bad[6] = "soon" // ms until the next attempt
	r.calls++
	answers := r.trip([4][]any{r.publishArgs(r.calls, pub{id: "e2", targets: "s2/d2"}), bad, nil, r.leasing(claim{})})
	if told(answers[publishPart]) != "[0 [0]]" {
		t.Errorf("publish answered %v", answers[publishPart])
	}
	if failed, _ := answers[settlePart].(string); !strings.Contains(failed, "arithmetic") {
		t.Errorf("settle answered %v", answers[settlePart])
	}
	if leased, _ := answers[leasePart].([]any); fmt.Sprint(leased[4]) != "[d2 s2|0|1000000|4|t|e2]" {
		t.Errorf("lease answered %v", leased)
	}
	if state := r.state(); !strings.HasSuffix(state["sub:s2"], "inf=1 ver=2") || state["leases"] != "2:d2@1020000" {
		t.Errorf("leases %s, sub:s2 %s", state["leases"], state["sub:s2"])
	}
}
