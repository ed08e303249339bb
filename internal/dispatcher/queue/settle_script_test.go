package queue

import "testing"

// oneLeased has d1 in flight with token 1, d2 waiting.
func oneLeased(r *rig) {
	two(r)
	r.publish(pub{id: "e1", targets: "s1/d1 s1/d2"})
	r.lease(claim{most: 1})
	r.now += 250
}

// retriedLeased has d1 in flight for the second time with token 2, nothing waiting.
func retriedLeased(r *rig) {
	two(r)
	r.publish(pub{id: "e1", targets: "s1/d1"})
	r.lease(claim{})
	r.settle(end{delivery: "d1", token: 1, result: Retry, delay: 1000, status: 500, took: 10, reason: "status",
		errorText: "500"})
	r.now += 1000
	r.lease(claim{})
}

func TestSettleScript(t *testing.T) {
	runScriptCases(t, map[string]scriptCase{
		"done: counted as sent when it was sent, gone from the queue": {
			seed: oneLeased,
			call: func(r *rig) string {
				return r.settle(end{delivery: "d1", token: 1, result: Done, ago: 251, took: 240, status: 204})
			},
			answer: "[1]",
			want: map[string]string{
				"deliveries": "d2=s1|0|1000000|4|t|e1", "refs": "e1=1+1", "ended": "[1:d1=1000250|s|1|4||n|s1|t|e1]", "leases": "-",
				"sub:s1": limits + " fr=1 lat=1000250 lcnt=1 lok=1000250 lst=204 lsum=240 ok=1 rh=999 rn=1 rs=999 ru=1 ver=2",
				"urgent": "s1@2", "totals": "bytes=4 events=1 lcnt=1 lsum=240 ok=1 token=1 version=2",
			},
		},
		"the payload is kept for the history once the last delivery has ended": {
			seed: retriedLeased,
			call: func(r *rig) string { return r.settle(end{delivery: "d1", token: 2, result: Done, status: 200}) },

			answer: "[1]",
			want: map[string]string{
				"deliveries": "-", "ended": "[1:d1=1001000|s|2|4||n|s1|t|e1]", "leases": "-", "rate:s1 (ttl)": "1000=1",
				"sub:s1": limits + " lat=1001000 lcnt=2 lok=1001000 lst=200 lsum=10 ok=1 rh=1000 rn=1 rs=1001 ru=2 ver=3",
				"urgent": "s1@3", "totals": "bytes=0 events=1 kept=4 lcnt=2 lsum=10 ok=1 retrying=0 token=2 version=3",
			},
		},
		"retry: due later, with one attempt more": {
			seed: oneLeased,
			call: func(r *rig) string {
				return r.settle(end{delivery: "d1", token: 1, result: Retry, delay: 5000, took: 100, status: 503,
					reason: "status", errorText: "503 Service Unavailable"})
			},
			answer: "[1]",
			want: map[string]string{
				"deliveries": "d1=s1|1|1000000|4|t|e1 d2=s1|0|1000000|4|t|e1", "due:s1": "d1@1005250", "leases": "-",
				"urgent": "s1@2", "totals": "bytes=4 events=1 lcnt=1 lsum=100 retrying=1 token=1 version=2",
				"sub:s1": limits + " cf=1 du=1 fr=1 lat=1000250 lcnt=1 ler=503 Service Unavailable lrs=status lst=503" +
					" lsum=100 rh=1000 rn=1 rs=1000 rtry=1 ru=1 ver=2",
			},
		},
		"without an answer there is no latency": {
			seed: oneLeased,
			call: func(r *rig) string {
				return r.settle(end{delivery: "d1", token: 1, result: Retry, took: 9000, reason: "timeout"})
			},
			answer: "[1]",
			want: map[string]string{
				"deliveries": "d1=s1|1|1000000|4|t|e1 d2=s1|0|1000000|4|t|e1", "due:s1": "d1@1000250", "leases": "-",
				"urgent": "s1@2", "totals": "bytes=4 events=1 retrying=1 token=1 version=2",
				"sub:s1": limits + " cf=1 du=1 fr=1 lat=1000250 lrs=timeout rh=1000 rn=1 rs=1000 rtry=1 ru=1 ver=2",
			},
		},
		"fail: finished, and no longer retrying": {
			seed:   retriedLeased,
			call:   func(r *rig) string { return r.settle(end{delivery: "d1", token: 2, result: Fail, status: 410}) },
			answer: "[1]",
			want: map[string]string{
				"deliveries": "-", "ended": "[1:d1=1001000|f|2|4||n|s1|t|e1]", "leases": "-", "rate:s1 (ttl)": "1000=1",
				"sub:s1": limits + " cf=2 fail=1 lat=1001000 lcnt=2 lst=410 lsum=10 rh=1000 rn=1 rs=1001 ru=2 ver=3",
				"totals": "bytes=0 events=1 failed=1 kept=4 lcnt=2 lsum=10 retrying=0 token=2 version=3",
			},
		},
		"a gone endpoint is urgent after whatever failure": {
			seed: retriedLeased,
			call: func(r *rig) string {
				return r.settle(end{delivery: "d1", token: 2, result: Fail, status: 410, reason: ReasonGone})
			},
			answer: "[1]",
			want: map[string]string{
				"deliveries": "-", "ended": "[1:d1=1001000|f|2|4|gone|n|s1|t|e1]", "leases": "-", "rate:s1 (ttl)": "1000=1", "urgent": "s1@3",
				"sub:s1": limits + " cf=2 fail=1 lat=1001000 lcnt=2 lrs=gone lst=410 lsum=10 rh=1000 rn=1 rs=1001 ru=2 ver=3",
				"totals": "bytes=0 events=1 failed=1 kept=4 lcnt=2 lsum=10 retrying=0 token=2 version=3",
			},
		},
		"the third failure in a row is urgent": {
			seed: func(r *rig) {
				two(r)
				r.publish(pub{id: "e1", targets: "s1/d1"}, pub{id: "e2", targets: "s1/d2"})
				r.lease(claim{})
				r.settle(end{delivery: "d1", token: 1, result: Retry, delay: 9000},
					end{delivery: "d2", token: 1, result: Retry, delay: 1000})
				r.now += 1000
				r.lease(claim{})
			},
			call:   func(r *rig) string { return r.settle(end{delivery: "d2", token: 2, result: Retry, delay: 2000}) },
			answer: "[1]",
			want: map[string]string{
				"deliveries": "d1=s1|1|1000000|4|t|e1 d2=s1|2|1000000|4|t|e2", "due:s1": "d2@1003000 d1@1009000",
				"leases": "-", "rate:s1 (ttl)": "1000=2", "ready": "s1@1003000", "urgent": "s1@3",
				"sub:s1": limits + " cf=3 du=2 lat=1001000 rh=1000 rn=1 rs=1001 rtry=2 ru=3 ver=3",
				"totals": "bytes=8 events=2 retrying=2 token=2 version=3",
			},
		},
		"release of a first attempt: back at the head, as if nothing had been": {
			seed:   oneLeased,
			call:   func(r *rig) string { return r.settle(end{delivery: "d1", token: 1, result: Release}) },
			answer: "[1]",
			want:   map[string]string{"fresh:s1": "d1 d2", "leases": "-", "sub:s1": limits + " fr=2 ver=1"},
		},
		"several released together keep their order": {
			seed: func(r *rig) {
				two(r)
				r.publish(pub{id: "e1", targets: "s1/d1 s1/d2 s1/d3"})
				r.lease(claim{})
			},
			call: func(r *rig) string {
				return r.settle(end{delivery: "d1", token: 1, result: Release}, end{delivery: "d2", token: 1, result: Release})
			},
			answer: "[1 1]",
			want: map[string]string{
				"fresh:s1": "d1 d2 d3", "leases": "-", "ready": "s1@1000000", "sub:s1": limits + " fr=3 ver=1",
			},
		},
		"release with a delay: not before that, and still a first attempt": {
			seed:   oneLeased,
			call:   func(r *rig) string { return r.settle(end{delivery: "d1", token: 1, result: Release, delay: 700}) },
			answer: "[1]",
			want: map[string]string{
				"due:s1": "d1@1000950", "leases": "-", "sub:s1": limits + " du=1 fr=1 ver=1",
			},
		},
		"release of a later attempt: due at once, no attempt counted": {
			seed:   retriedLeased,
			call:   func(r *rig) string { return r.settle(end{delivery: "d1", token: 2, result: Release}) },
			answer: "[1]",
			want: map[string]string{
				"due:s1": "d1@1001000", "leases": "-", "ready": "s1@1001000",
				"sub:s1": limits + " cf=1 du=1 lat=1000000 lcnt=1 ler=500 lrs=status lst=500 lsum=10 rh=1000 rn=1 rs=1000 rtry=1 ru=1 ver=2",
			},
		},
	})
}

func TestSettleScriptFences(t *testing.T) {
	runScriptCases(t, map[string]scriptCase{
		"another token changes nothing": {
			seed:   oneLeased,
			call:   func(r *rig) string { return r.settle(end{delivery: "d1", token: 2, result: Done}) },
			answer: "[0]",
		},
		"what waits cannot be settled": {
			seed:   oneLeased,
			call:   func(r *rig) string { return r.settle(end{delivery: "d2", token: 1, result: Done}) },
			answer: "[0]",
		},
		"a lease that was taken back cannot be settled, also not once somebody else holds it": {
			seed: func(r *rig) {
				oneLeased(r)
				r.now += leaseMillis
				r.lease(claim{most: 1})
			},
			call:   func(r *rig) string { return r.settle(end{delivery: "d1", token: 1, result: Done}) },
			answer: "[0]",
		},
		"the second time changes nothing": {
			seed: func(r *rig) {
				oneLeased(r)
				r.settle(end{delivery: "d1", token: 1, result: Retry, delay: 10})
			},
			call:   func(r *rig) string { return r.settle(end{delivery: "d1", token: 1, result: Done}) },
			answer: "[0]",
		},
		"of several with their own tokens the last one that came counts as the last": {
			seed: func(r *rig) {
				r.configure("s1 1 60 5 9 1 0")
				r.publish(pub{id: "e1", targets: "s1/d1 s1/d2"})
				r.lease(claim{most: 1})
				r.lease(claim{most: 1})
			},
			call: func(r *rig) string {
				return r.settle(end{delivery: "d2", token: 2, result: Done, status: 200},
					end{delivery: "d1", token: 1, result: Retry, delay: 9, status: 500, reason: "server_error"})
			},
			answer: "[1 1]",
			want: map[string]string{
				"deliveries": "d1=s1|1|1000000|4|t|e1", "refs": "e1=1+1", "ended": "[1:d2=1000000|s|1|4||n|s1|t|e1]",
				"due:s1": "d1@1000009", "leases": "-", "ready": "s1@1000009", "urgent": "s1@2",
				"sub:s1": "g1 r60 c5 m9 a1 p0 cf=1 du=1 lat=1000000 lcnt=2 lok=1000000 lrs=server_error lst=500 ok=1 rh=1000" +
					" rn=2 rs=1000 rtry=1 ru=2 ver=2",
				"totals": "bytes=4 events=1 lcnt=2 ok=1 retrying=1 token=2 version=2",
			},
		},
		"the second time within one call too, and the others hold": {
			seed: func(r *rig) {
				two(r)
				r.publish(pub{id: "e1", targets: "s1/d1 s2/d2"})
				r.lease(claim{})
			},
			call: func(r *rig) string {
				return r.settle(end{delivery: "d1", token: 1, result: Done}, end{delivery: "d1", token: 1, result: Fail},
					end{delivery: "d2", token: 1, result: Done})
			},
			answer: "[1 0 1]",
			want: map[string]string{
				"deliveries": "-", "refs": "e1=0+2", "ended": "[1:d1=1000000|s|1|4||n|s1|t|e1 1:d2=1000000|s|1|4||n|s2|t|e1]",
				"leases": "-", "urgent": "s1@2 s2@2",

				"sub:s1": limits + " lat=1000000 lok=1000000 ok=1 rh=1000 rn=1 rs=1000 ru=1 ver=2",
				"sub:s2": limits + " lat=1000000 lok=1000000 ok=1 rh=1000 rn=1 rs=1000 ru=1 ver=2",
				"totals": "bytes=0 events=1 kept=4 ok=2 token=1 version=2",
			},
		},
		"of a subscription that is gone, success counts and everything ends": {
			seed: func(r *rig) {
				r.configure("s1 1 60 5 9 1 0")
				r.publish(pub{id: "e1", targets: "s1/d1 s1/d2 s1/d3 s1/d4"})
				r.lease(claim{})
				r.cancel("s1", 10)
			},
			call: func(r *rig) string {
				return r.settle(end{delivery: "d1", token: 1, result: Done}, end{delivery: "d2", token: 1, result: Retry},
					end{delivery: "d3", token: 1, result: Release}, end{delivery: "d4", token: 1, result: Fail})
			},
			answer: "[1 1 1 1]",
			want: map[string]string{
				"deliveries": "-", "refs": "e1=0+4", "ended": "[d1=1000000|s|1|4||n|s1|t|e1 d2=1000000|c|1|4|subscription_deleted|n|s1|t|e1" +
					" d3=1000000|c|0|4|subscription_deleted|n|s1|t|e1 d4=1000000|f|1|4||n|s1|t|e1]",
				"leases":       "-",
				"sub:s1 (ttl)": "g1 r60 c5 m9 a1 p0 gone=1 ver=1",
				"totals":       "bytes=0 canceled=2 events=1 failed=1 kept=4 ok=1 token=1 version=1",
			},
		},
		"nor does it stop at a record that is missing": {
			torn: true,
			seed: func(r *rig) {
				oneLeased(r)
				r.client.HDel(r.t.Context(), r.keys.deliveries(), "d1")
			},
			call:   func(r *rig) string { return r.settle(end{delivery: "d1", token: 1, result: Done}) },
			answer: "[1]", want: map[string]string{"leases": "-", "totals": "bytes=4 events=1 ok=1 token=1 version=1"},
		},
	})
}

func TestExtendScript(t *testing.T) {
	runScriptCases(t, map[string]scriptCase{
		"a lease that holds is prolonged, one that is lost stays lost": {
			seed: func(r *rig) {
				oneLeased(r)
				r.now += 7000
			},
			call:   func(r *rig) string { return r.extend(1, 9) },
			answer: "[1 0]", want: map[string]string{"leases": "1:d1@1027250"},
		},
		"nothing to prolong": {
			seed: two, call: func(r *rig) string { return r.extend(1) }, answer: "[0]",
		},
	})
}
