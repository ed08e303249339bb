package queue

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
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
