package queue

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// Three dispatchers share a rate limit: in no 60 s are there more requests than it allows, and it is used to the last.
// The window is kept by seconds, so that a place in it is free again after 60 to 61 s.
func TestRateIsExactOverDispatchersAndFullyUsed(t *testing.T) {
	const rate, rounds = 30, 5
	r := newRig(t)
	r.most = 10_000
	r.configure(fmt.Sprintf("s1 1 %d %d 1000 1 0", rate, rate))
	var targets []string
	for i := range 400 {
		targets = append(targets, fmt.Sprintf("s1/d%03d", i))
	}
	r.publish(pub{id: "e1", targets: strings.Join(targets, " ")})
	random := rand.New(rand.NewPCG(1, 2))
	var sent []int64
	var flying []modelClaim
	for last := r.now + rounds*61_100; r.now < last; r.now += random.Int64N(80) {
		dispatcher := fmt.Sprintf("dispatcher%d", random.IntN(3))
		reply := r.leaseRaw(claim{most: 1 + random.IntN(8), dispatcher: dispatcher})
		for i, v := range reply[4].([]any) {
			if i%2 == 0 {
				flying = append(flying, modelClaim{delivery: text(v), token: int(number(reply[0])),
					sendAt: r.now + random.Int64N(50)})
			}
		}
		flying = slices.DeleteFunc(flying, func(c modelClaim) bool {
			if c.sendAt > r.now || random.IntN(4) > 0 {
				return false
			}
			e := end{delivery: c.delivery, token: c.token, result: Result(random.IntN(4)), ago: int(r.now - c.sendAt)}
			if e.result != Release {
				sent = append(sent, c.sendAt)
			}
			r.settle(e)
			return true
		})
	}
	for _, c := range flying {
		sent = append(sent, c.sendAt)
	}
	r.audit()
	if n := mostIn(sent, 60_000); n > rate {
		t.Errorf("%d requests within 60 s, the rate is %d", n, rate)
	}
	if len(sent) < rounds*rate {
		t.Errorf("%d requests in %d windows, the rate is %d", len(sent), rounds, rate)
	}
}

// tried publishes a delivery of s1, and tells whether it was leased, and hence sent, at once.
func (r *rig) tried(delivery string) bool {
	r.t.Helper()
	r.publish(pub{id: "e" + delivery, targets: "s1/" + delivery})
	reply := r.leaseRaw(claim{})
	given := reply[4].([]any)
	for i := 0; i < len(given); i += 2 {
		r.settle(end{delivery: text(given[i]), token: int(number(reply[0])), result: Done})
	}
	return len(given) > 0
}

// The requests of several seconds count where Redis' clock goes back behind them all.
func TestRateHoldsWhereTheClockGoesBack(t *testing.T) {
	r := newRig(t)
	r.configure("s1 1 2 9 9 1 0")
	first := r.tried("d1")
	r.now += 1000
	if second := r.tried("d2"); !first || !second {
		t.Fatal("the rate is not used")
	}
	r.now -= 30_000
	if r.tried("d3") {
		t.Error("a third request at a rate of 2")
	}
	r.now += 61_000
	if !r.tried("d4") {
		t.Error("the window never ends")
	}
	r.audit()
}

// 2038 is when seconds leave a signed number of four bytes.
func TestRateHoldsBeyond2038(t *testing.T) {
	r := newRig(t)
	r.now = time.Date(2038, time.January, 19, 3, 15, 0, 0, time.UTC).UnixMilli()
	r.configure("s1 1 1 9 9 1 0")
	if !r.tried("d0") {
		t.Fatal("the rate is not used")
	}
	for i := range 59 {
		r.now += 1000
		if r.tried(fmt.Sprint("d1", i)) {
			t.Fatalf("another request after %d s at a rate of one a minute", i+1)
		}
		r.audit()
	}
	r.now += 3000
	if !r.tried("d2") {
		t.Error("the window never ends")
	}
}
