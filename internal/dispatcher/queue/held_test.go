package queue

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"nexus.io/webhooks/test/redistest"
)

// What one call leased is extended until its last delivery is settled.
func TestALeaseIsExtendedForWhatIsLeftOfIt(t *testing.T) {
	p := onServer(t, common)
	q, c := p.run(t, func(o *Options, c *sink) { c.hold, o.LeaseTime = true, 2*time.Second })
	configure(t, q, "s1", "s2", "s3")
	publish(t, q, publication("e1", "s1", "s2", "s3"))
	eventually(t, "they are in flight", func() bool { return len(c.got()) == 3 })
	c.settle(done(c.got()[0]))
	c.settle(done(c.got()[1]))
	<-time.After(5 * time.Second)
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
	q, c := p.run(t, func(o *Options, c *sink) { c.hold, o.LeaseTime = true, 2*time.Second })
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
	<-time.After(5 * time.Second)
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

// A part that fails, here for data that nobody wrote, leaves the others whole, and can come again.
func TestAPartThatFailsLeavesTheOthersWhole(t *testing.T) {
	const broken, sound = "sub:s1", "s2"
	tests := map[int]struct {
		parts func(*rig) [4][]any
		after string // of the other subscription
	}{
		publishPart: {func(r *rig) [4][]any {
			return [4][]any{
				r.publishArgs(r.calls, pub{id: "e2", targets: "s1/d3"}),
				settling(end{delivery: "d2", token: 1, result: Done}), nil, r.leasing(claim{}),
			}
		}, "ok=1"},
		settlePart: {func(r *rig) [4][]any {
			return [4][]any{
				r.publishArgs(r.calls, pub{id: "e2", targets: "s2/d3"}),
				settling(end{delivery: "d2", token: 1, result: Done}, end{delivery: "d1", token: 1, result: Done}), nil,
				r.leasing(claim{}),
			}
		}, "inf=2"},
		leasePart: {func(r *rig) [4][]any {
			r.client.ZAdd(r.t.Context(), r.keys.ready(), zOf("s1", 1))
			return [4][]any{
				r.publishArgs(r.calls, pub{id: "e2", targets: "s2/d3"}),
				settling(end{delivery: "d2", token: 1, result: Done}), nil, r.leasing(claim{}),
			}
		}, "ok=1"},
	}
	for part, test := range tests {
		t.Run(fmt.Sprint("part ", part), func(t *testing.T) {
			r := newRig(t)
			two(r)
			r.publish(pub{id: "e1", targets: "s1/d1 s2/d2"})
			r.lease(claim{})
			whole := r.client.Get(t.Context(), r.keys.prefix+broken).Val()
			r.client.Set(t.Context(), r.keys.prefix+broken, "x", 0)
			r.calls++
			parts := test.parts(r)
			for n, answer := range r.trip(parts) {
				if _, failed := answer.(string); failed != (n == part) {
					t.Errorf("part %d answered %v", n, answer)
				}
			}
			r.client.Set(t.Context(), r.keys.prefix+broken, whole, 0)
			r.client.ZRem(t.Context(), r.keys.ready(), "s1")
			if s := r.state()["sub:"+sound]; !strings.Contains(s, test.after) {
				t.Errorf("%s is %s, want %s", sound, s, test.after)
			}
			r.audit()
			if again := r.trip(parts); part == settlePart && fmt.Sprint(again[part]) != "[1 1]" {
				t.Errorf("the same again answered %v", again)
			}
			r.audit()
		})
	}
}

// What a part takes in hand before it meets data that it cannot read must not be lost: here those of s1, as a whole or
// their statistics alone. They are there again in the second trip.
func TestDataThatCannotBeReadLosesNothing(t *testing.T) {
	cuts := map[string]func(whole string) string{
		"all":        func(string) string { return "x" },
		"statistics": func(whole string) string { return whole[:len(whole)-1] },
	}
	settlements := settling(end{delivery: "d1", token: 1, result: Done}, end{delivery: "d2", token: 1, result: Done})
	tests := map[string]struct {
		settlements []any
		later       int64  // ms after the first lease
		settled     string // in the second trip
		leased      string // in each trip
	}{
		"settled": {settlements, 0, "[1 1]", "[d4] [] []"},
		"expired": {nil, leaseMillis + 1, "0", "[] [d2 d4] [d1]"},
	}
	for cut, broken := range cuts {
		for name, test := range tests {
			t.Run(name+", "+cut, func(t *testing.T) {
				r := newRig(t)
				two(r)
				r.publish(pub{id: "e1", targets: "s1/d1 s2/d2"})
				r.lease(claim{})
				r.publish(pub{id: "e2", targets: "s2/d4"})
				r.now += test.later
				key := r.keys.prefix + "sub:s1"
				whole := r.client.Get(t.Context(), key).Val()
				r.client.Set(t.Context(), key, broken(whole), 0)
				parts := [4][]any{settlePart: test.settlements, leasePart: r.leasing(claim{})}
				args := []any{0, len(test.settlements), 0, len(parts[leasePart])}
				reply, err := r.try(tripScript, append(append(args, test.settlements...), parts[leasePart]...)...)
				answers, _ := reply.([]any)
				if refused := err != nil || text(answers[settlePart]) != ""; !refused {
					t.Errorf("data that cannot be read were: %v", answers)
				}
				r.client.Set(t.Context(), key, whole, 0)
				r.audit()
				second := r.trip(parts)
				if got := fmt.Sprint(second[settlePart]); got != test.settled {
					t.Errorf("settled %s, want %s", got, test.settled)
				}
				third := r.trip([4][]any{leasePart: r.leasing(claim{})})
				if got := fmt.Sprint(leasedIn(answers), leasedIn(second), leasedIn(third)); got != test.leased {
					t.Errorf("leased %s, want %s", got, test.leased)
				}
				r.audit()
			})
		}
	}
}

// One that cannot be read leaves those in front of it their turn.
func TestWhatIsInFrontOfDataThatCannotBeReadIsLeased(t *testing.T) {
	r := newRig(t)
	var targets, want []string
	for n := range 40 {
		r.configure(fmt.Sprintf("s%02d 1 60 2 3 1 0", n))
		targets = append(targets, fmt.Sprintf("s%02d/d%02d", n, n))
		want = append(want, fmt.Sprintf("d%02d", n))
	}
	r.publish(pub{id: "e1", targets: strings.Join(targets, " ")})
	key := r.keys.prefix + "sub:s35"
	whole := r.client.Get(t.Context(), key).Val()
	r.client.Set(t.Context(), key, "x", 0)
	got := leasedIn(r.trip([4][]any{leasePart: r.leasing(claim{})}))
	if fmt.Sprint(got) != fmt.Sprint(want[:32]) {
		t.Errorf("leased %v", got)
	}
	r.client.Set(t.Context(), key, whole, 0)
	r.audit()
	if got := leasedIn(r.trip([4][]any{leasePart: r.leasing(claim{})})); fmt.Sprint(got) != fmt.Sprint(want[32:]) {
		t.Errorf("leased %v once it can be read", got)
	}
	r.audit()
}

// leasedIn returns the deliveries that a trip leased.
func leasedIn(answers []any) []string {
	ids := []string{}
	if len(answers) > leasePart {
		lease, _ := answers[leasePart].([]any)
		given, _ := lease[4].([]any)
		for i := 0; i < len(given); i += 2 {
			ids = append(ids, text(given[i]))
		}
	}
	return ids
}

// By what stands in front of the error go-redis leaves a server that is no master any more.
func TestATripOnAReplicaSaysSo(t *testing.T) {
	server := redistest.ForTest(t)
	r := newRig(t)
	r.client = server.ReplicaForTest(t).Client()
	t.Cleanup(func() { _ = r.client.Close() })
	for name, publishing := range map[string][]any{"nothing": nil, "an event": r.publishArgs(1, pub{id: "e1"})} {
		_, err := r.try(tripScript, append([]any{len(publishing), 0, 0, 8}, append(publishing, r.leasing(claim{})...)...)...)
		if !redis.HasErrorPrefix(err, "READONLY") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
