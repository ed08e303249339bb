package queue

import (
	"fmt"
	"testing"
)

const retryMemory = 600_000 // ms, longer than any test takes

func (r *rig) retry(delivery, replay string) string {
	r.t.Helper()
	return fmt.Sprint(r.run(retryScript, delivery, replay, r.most, r.bytes, retryMemory))
}

func (r *rig) end(delivery string) string {
	r.t.Helper()
	return fmt.Sprint(r.run(endScript, delivery))
}

// retryable has d1 due later, d2 in flight, d3 waiting.
func retryable(r *rig) {
	r.configure("s1 1 60 2 9 1 0")
	r.publish(pub{id: "e1", targets: "s1/d1 s1/d2 s1/d3"})
	r.lease(claim{})
	r.settle(end{delivery: "d1", token: 1, result: Retry, delay: 5000, attempt: "a1;"})
}

// endedOnce has one delivery of the history, which ended with this result at its first attempt.
func endedOnce(result Result) func(*rig) {
	return func(r *rig) {
		r.configure("s1 1 60 2 9 1 0")
		r.publish(pub{id: "e1", targets: "s1/d1"})
		r.lease(claim{})
		r.settle(end{delivery: "d1", token: 1, result: result, status: 500, attempt: "a1;"})
		r.file(filing{})
		r.now += 10
	}
}

func TestRetryScript(t *testing.T) {
	retry := func(r *rig) string { return r.retry("d1", "n1") }
	failed := endedOnce(Fail)
	back := map[string]string{
		"deliveries": "d1=s1|1:1:1::|1000010|4|t|e1", "due:s1": "d1@1000010", "tries:d1": "a1;", "refs": "e1=1",
		"past:d1": "-", "pasts": "-", "hist:s1 (ttl)": "-", "ready": "s1@1000010", "retried:n1 (ttl)": "d1",
		"sub:s1": "g1 r60 c2 m9 a1 p0 cf=1 du=1 fail=1 lat=1000000 lcnt=1 lst=500 rh=1000 rn=1 rs=1000 rtry=1 ru=1 ver=3",
		"totals": "bytes=4 events=1 failed=1 kept=0 lcnt=1 retrying=1 token=1 tries=3 version=3",
	}
	replayed := map[string]string{
		"deliveries": "n1=s1|0:0:0:d1:|1000010|4|t|e1", "retried:n1 (ttl)": "n1", "fresh:s1": "n1", "refs": "e1=1+1", "ready": "s1@1000010",
		"sub:s1": "g1 r60 c2 m9 a1 p0 fr=1 lat=1000000 lcnt=1 lok=1000000 lst=500 ok=1 rh=1000 rn=1 rs=1000 ru=1 ver=3",
		"totals": "bytes=4 events=1 kept=28 lcnt=1 ok=1 token=1 version=3",
	}
	runScriptCases(t, map[string]scriptCase{
		"one that waits for its next attempt is due at once, with a fresh budget": {
			seed: retryable, call: retry, answer: "[0 d1]",
			want: map[string]string{
				"deliveries": "d1=s1|1:1:0::|1000000|4|t|e1 d2=s1|0|1000000|4|t|e1 d3=s1|0|1000000|4|t|e1",
				"due:s1":     "d1@1000000", "retried:n1 (ttl)": "d1",
			},
		},
		"one that waits for its turn keeps it": {
			seed: retryable, call: func(r *rig) string { return r.retry("d3", "n1") }, answer: "[0 d3]",
			want: map[string]string{"retried:n1 (ttl)": "d3"},
		},
		"one in flight is left alone": {
			seed: retryable, call: func(r *rig) string { return r.retry("d2", "n1") }, answer: "[1]",
		},
		"one that nobody knows": {seed: retryable, call: func(r *rig) string { return r.retry("d9", "n1") }, answer: "[2]"},
		"one that failed comes back under its id, with its attempts": {
			seed: failed, call: retry, answer: "[0 d1]", want: back,
		},
		"the same again changes nothing more": {
			seed: failed, call: func(r *rig) string { return retry(r) + retry(r) }, answer: "[0 d1][0 d1]", want: back,
		},
		"one that succeeded is repeated under another id": {
			seed: endedOnce(Done), call: retry, answer: "[0 n1]", want: replayed,
		},
		"the same repetition comes once": {
			seed: endedOnce(Done), call: func(r *rig) string { return retry(r) + retry(r) }, answer: "[0 n1][0 n1]",
			want: replayed,
		},
		"a repeated call does not care that its delivery has ended since": {
			seed: func(r *rig) {
				endedOnce(Done)(r)
				retry(r)
				r.lease(claim{})
				r.settle(end{delivery: "n1", token: 2, result: Done, status: 200})
				r.file(filing{})
			},
			call: retry, answer: "[0 n1]",
		},
		"not where its body is gone": {
			seed: func(r *rig) {
				failed(r)
				r.client.HDel(r.t.Context(), r.keys.prefix+"payloads", "e1")
			},
			call: retry, answer: "[3]", torn: true,
		},
		"not of a subscription that is gone": {
			seed: func(r *rig) {
				failed(r)
				r.cancel("s1", 9)
			},
			call: retry, answer: "[3]",
		},
		"not where the backlog is full": {
			seed: func(r *rig) {
				failed(r)
				r.configure("s1 2 60 2 0 1 0")
			},
			call: retry, answer: "[3]",
		},
		"not where the shard is full": {
			seed: func(r *rig) {
				failed(r)
				r.bytes = 3
			},
			call: retry, answer: "[3]",
		},
	})
}

func TestEndScript(t *testing.T) {
	runScriptCases(t, map[string]scriptCase{
		"one that waits for its next attempt": {
			seed: retryable, call: func(r *rig) string { return r.end("d1") }, answer: "[0]",
			want: map[string]string{
				"deliveries": "d2=s1|0|1000000|4|t|e1 d3=s1|0|1000000|4|t|e1", "due:s1": "-", "tries:d1": "-",
				"ended": "[1:d1=1000000|c|1|4|canceled|n|s1|t|e1 a1;]", "refs": "e1=2+1",
				"sub:s1": "g1 r60 c2 m9 a1 p0 canc=1 cf=1 fr=1 inf=1 lat=1000000 rh=1000 rn=1 rs=1000 ru=1 ver=3",
				"totals": "bytes=4 canceled=1 events=1 retrying=0 token=1 tries=0 version=3",
			},
		},
		"one that waits for its turn": {
			seed: func(r *rig) {
				r.configure("s1 1 60 2 9 1 0")
				r.publish(pub{id: "e1", targets: "s1/d1"})
			},
			call: func(r *rig) string { return r.end("d1") }, answer: "[0]",
			want: map[string]string{
				"deliveries": "-", "fresh:s1": "-", "ready": "-", "ended": "[1:d1=1000000|c|0|4|canceled|n|s1|t|e1]",
				"sub:s1": "g1 r60 c2 m9 a1 p0 canc=1 ver=2",
				"totals": "bytes=0 canceled=1 events=1 kept=4 version=2",
			},
		},
		"one in flight is marked, once": {
			seed: retryable, call: func(r *rig) string { return r.end("d2") + r.end("d2") }, answer: "[1][1]",
			want: map[string]string{
				"deliveries": "d1=s1|1|1000000|4|t|e1 d2=s1|0:0:0::c|1000000|4|t|e1 d3=s1|0|1000000|4|t|e1",
			},
		},
		"one that nobody knows": {seed: retryable, call: func(r *rig) string { return r.end("d9") }, answer: "[2]"},
	})
}

func TestACanceledDeliveryEndsWithItsAttempt(t *testing.T) {
	marked := func(r *rig) {
		r.configure("s1 1 60 2 9 1 0")
		r.publish(pub{id: "e1", targets: "s1/d1"})
		r.lease(claim{})
		r.end("d1")
	}
	settle := func(result Result) func(*rig) string {
		return func(r *rig) string { return r.settle(end{delivery: "d1", token: 1, result: result, reason: "timeout"}) }
	}
	ends := func(record, sub, totals string) map[string]string {
		return map[string]string{
			"deliveries": "-", "leases": "-", "ended": "[1:d1=" + record + "|n|s1|t|e1]",
			"sub:s1": "g1 r60 c2 m9 a1 p0 " + sub, "totals": totals,
		}
	}
	attempted := func(changes map[string]string) map[string]string {
		changes["urgent"] = "s1@2"
		return changes
	}
	expired := ends("1020000|c|0:0:0::c|4|canceled", "canc=1 rh=1020 rn=1 rs=1020 ru=1 ver=2", "bytes=0 canceled=1 events=1 kept=4 token=1 version=2")
	expired["sleepers"] = "me@1025000"
	runScriptCases(t, map[string]scriptCase{
		"a failed attempt is the last": {
			seed: marked, call: settle(Retry), answer: "[1]",
			want: attempted(ends("1000000|c|1:0:0::c|4|canceled", "canc=1 cf=1 lat=1000000 lrs=timeout rh=1000 rn=1 rs=1000 ru=1 ver=2",
				"bytes=0 canceled=1 events=1 kept=4 token=1 version=2")),
		},
		"a success is one": {
			seed: marked, call: settle(Done), answer: "[1]",
			want: attempted(ends("1000000|s|1:0:0::c|4|timeout", "lat=1000000 lok=1000000 lrs=timeout ok=1 rh=1000 rn=1 rs=1000 ru=1 ver=2",
				"bytes=0 events=1 kept=4 ok=1 token=1 version=2")),
		},
		"one that was not sent ends unsent": {
			seed: marked, call: settle(Release), answer: "[1]",
			want: ends("1000000|c|0:0:0::c|4|canceled", "canc=1 ver=2", "bytes=0 canceled=1 events=1 kept=4 token=1 version=2"),
		},
		"one whose lease ran out ends too": {
			seed: func(r *rig) {
				marked(r)
				r.now += leaseMillis
			},
			call: func(r *rig) string { return r.lease(claim{}) }, answer: "[0 1020000 -1 1 [] []]", want: expired,
		},
	})
}
