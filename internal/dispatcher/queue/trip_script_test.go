package queue

import (
	"fmt"
	"testing"
)

// The parts of a trip see what those before them did, and write what they share once.
func TestTripScript(t *testing.T) {
	leased := func(r *rig) {
		r.configure("s1 1 60 2 3 1 0")
		r.publish(pub{id: "e1", targets: "s1/d1 s1/d2 s1/d3"})
		r.lease(claim{})
		r.now += 250
	}
	call := func(c claim, ends []end, events ...pub) func(*rig) string {
		return func(r *rig) string {
			r.calls++
			answers := r.trip([4][]any{
				publishPart: r.publishArgs(r.calls, events...), settlePart: settling(ends...), leasePart: r.leasing(c),
			})
			return fmt.Sprint(told(answers[publishPart]), answers[settlePart:])
		}
	}
	runScriptCases(t, map[string]scriptCase{
		"what is published, settled and leased of one subscription at a time counts once": {
			seed: func(r *rig) {
				r.configure("s1 1 60 2 9 1 0")
				r.publish(pub{id: "e1", targets: "s1/d1 s1/d2"})
				r.lease(claim{most: 1})
				r.now += 250
			},
			call: call(claim{}, []end{{delivery: "d1", token: 1, result: Retry, delay: 1000, status: 503, took: 100}},
				pub{id: "e2", targets: "s1/d3"}),
			answer: "[0 [0]][[1] 0 [2 1000250 1020250 0 [d2 s1|0|1000000|4|t|e1 d3 s1|0|1000250|4|t|e2] [e1 t\ne1 e2 t\ne2]]]",
			want: map[string]string{
				"deliveries": "d1=s1|1|1000000|4|t|e1 d2=s1|0|1000000|4|t|e1 d3=s1|0|1000250|4|t|e2",
				"payloads":   "e1=t\ne1 e2=t\ne2", "fresh:s1": "-", "due:s1": "d1@1001250", "ready": "-",
				"leases": "2:d2@1020250 2:d3@1020250", "sleepers": "me@1005250", "urgent": "s1@2",
				"sub:s1": "g1 r60 c2 m9 a1 p0 cf=1 du=1 inf=2 lat=1000250 lcnt=1 lst=503 lsum=100 rh=1000 rn=1 rs=1000" +
					" rtry=1 ru=1 ver=2",
				"totals":       "bytes=8 events=2 lcnt=1 lsum=100 retrying=1 token=2 version=2",
				"call:q (ttl)": "2|1|[0,[0]]",
			},
		},
		"a full backlog refuses before the settlement behind it makes room, which holds": {
			seed: leased,
			call: call(claim{none: true}, []end{{delivery: "d1", token: 1, result: Done, status: 200}},
				pub{id: "e2", targets: "s1/d4"}),
			answer: "[0 [0 s1]][[1] 0 [0 1000250 1000250 0 [] []]]",
			want: map[string]string{
				"deliveries": "d2=s1|0|1000000|4|t|e1 d3=s1|0|1000000|4|t|e1", "payloads": "e1=t\ne1 e2=t\ne2",
				"refs": "e1=2+1", "leases": "1:d2@1020000", "ready": "s1@1000250", "sleepers": "-", "urgent": "s1@2",
				"ended": "[1:d4=1000250|f|0|4|backlog_full|n|s1|t|e2] [2:d1=1000250|s|1|4||n|s1|t|e1]",
				"sub:s1": "g1 r60 c2 m3 a1 p0 fail=1 fr=1 full=1 inf=1 lat=1000250 lcnt=1 lok=1000250 lst=200 ok=1 rh=1000" +
					" rn=1 rs=1000 ru=1 ver=2",
				"totals":       "bytes=4 events=2 failed=1 kept=4 lcnt=1 ok=1 token=1 version=2",
				"call:q (ttl)": `2|1|[0,[0,"s1"]]`,
			},
		},
		"an event that a full shard refuses leaves the settlement": {
			seed: func(r *rig) {
				leased(r)
				r.most = 3
			},
			call: call(claim{}, []end{{delivery: "d1", token: 1, result: Done, status: 200}},
				pub{id: "e2", targets: "s1/d4"}),
			answer: "[0 [3]][[1] 0 [2 1000250 1020000 0 [d3 s1|0|1000000|4|t|e1] [e1 t\ne1]]]",
			want: map[string]string{
				"deliveries": "d2=s1|0|1000000|4|t|e1 d3=s1|0|1000000|4|t|e1", "refs": "e1=2+1", "fresh:s1": "-",
				"ended": "[1:d1=1000250|s|1|4||n|s1|t|e1]", "leases": "1:d2@1020000 2:d3@1020250",
				"sub:s1": "g1 r60 c2 m3 a1 p0 inf=2 lat=1000250 lcnt=1 lok=1000250 lst=200 ok=1 rh=1000 rn=1 rs=1000 ru=1 ver=2",
				"totals": "bytes=4 events=1 lcnt=1 ok=1 token=2 version=2", "sleepers": "me@1005250", "urgent": "s1@2",
				"call:q (ttl)": "2|1|[0,[3]]",
			},
		},
	})
}
