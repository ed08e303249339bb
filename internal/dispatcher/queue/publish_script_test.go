package queue

import (
	"fmt"
	"strings"
	"testing"
)

// Two subscriptions that most cases use: 60 a minute, 2 at once, a backlog of 3.
func two(r *rig) { r.configure("s1 1 60 2 3 1 0", "s2 1 60 2 3 1 0") }

const limits = "g1 r60 c2 m3 a1 p0"

func TestPublishScript(t *testing.T) {
	runScriptCases(t, map[string]scriptCase{
		"a further part of an event is taken by a full shard": {
			seed: func(r *rig) {
				two(r)
				r.most, r.bytes = 0, 0
			},
			call: func(r *rig) string {
				return r.publish(pub{id: "e1#d1", targets: "s1/d1", further: true}, pub{id: "e2", targets: "s2/d2"})
			},
			answer: "[0 [0] [3]]",
			want: map[string]string{
				"deliveries": "d1=s1|0|1000000|7|t|e1#d1", "payloads": "e1#d1=t\ne1#d1", "fresh:s1": "d1",
				"ready": "s1@1000000", "sub:s1": limits + " fr=1 ver=1", "dirty": "s1@1",
				"totals": "bytes=7 version=1", "call:q (ttl)": "1|1|[0,[0],[3]]",
			},
		},
		"an event with two matches is stored once and waits for both": {
			seed:   two,
			call:   func(r *rig) string { return r.publish(pub{id: "e1", targets: "s1/d1 s2/d2"}) },
			answer: "[0 [0]]",
			want: map[string]string{
				"deliveries": "d1=s1|0|1000000|4|t|e1 d2=s2|0|1000000|4|t|e1", "payloads": "e1=t\ne1", "refs": "e1=2",
				"fresh:s1": "d1", "fresh:s2": "d2", "ready": "s1@1000000 s2@1000000",
				"sub:s1": limits + " fr=1 ver=1", "sub:s2": limits + " fr=1 ver=1", "dirty": "s1@1 s2@1",
				"totals": "bytes=4 events=1 version=1", "call:q (ttl)": "1|1|[0,[0]]",
			},
		},
		"a single match needs no count of references": {
			seed:   two,
			call:   func(r *rig) string { return r.publish(pub{id: "e1", targets: "s1/d1"}) },
			answer: "[0 [0]]",
			want: map[string]string{
				"deliveries": "d1=s1|0|1000000|4|t|e1", "payloads": "e1=t\ne1", "fresh:s1": "d1", "ready": "s1@1000000",
				"sub:s1": limits + " fr=1 ver=1", "dirty": "s1@1", "totals": "bytes=4 events=1 version=1",
				"call:q (ttl)": "1|1|[0,[0]]",
			},
		},
		"an event without matches is counted": {
			seed:   two,
			call:   func(r *rig) string { return r.publish(pub{id: "e1"}) },
			answer: "[0 [0]]",
			want:   map[string]string{"totals": "events=1", "call:q (ttl)": "1|1|[0,[0]]"},
		},
		"a paused subscription keeps what comes and does not run": {
			seed:   func(r *rig) { r.configure("s1 1 60 2 3 1 1") },
			call:   func(r *rig) string { return r.publish(pub{id: "e1", targets: "s1/d1"}) },
			answer: "[0 [0]]",
			want: map[string]string{
				"deliveries": "d1=s1|0|1000000|4|t|e1", "payloads": "e1=t\ne1", "fresh:s1": "d1",
				"sub:s1": "g1 r60 c2 m3 a1 p1 fr=1 ver=1", "dirty": "s1@1", "totals": "bytes=4 events=1 version=1",
				"call:q (ttl)": "1|1|[0,[0]]",
			},
		},
		"further work does not send a subscription to the end of the line": {
			seed: func(r *rig) {
				two(r)
				r.publish(pub{id: "e1", targets: "s1/d1"})
				r.now += 500
			},
			call:   func(r *rig) string { return r.publish(pub{id: "e2", targets: "s1/d2"}) },
			answer: "[0 [0]]",
			want: map[string]string{
				"deliveries": "d1=s1|0|1000000|4|t|e1 d2=s1|0|1000500|4|t|e2", "payloads": "e1=t\ne1 e2=t\ne2",
				"fresh:s1": "d1 d2", "sub:s1": limits + " fr=2 ver=2", "totals": "bytes=8 events=2 version=2",
				"call:q (ttl)": "2|1|[0,[0]]",
			},
		},
		"new work comes forward where only a later retry waited": {
			seed: func(r *rig) {
				two(r)
				r.publish(pub{id: "e1", targets: "s1/d1"})
				r.lease(claim{})
				r.settle(end{delivery: "d1", token: 1, result: Retry, delay: 5000, status: 500})
			},
			call:   func(r *rig) string { return r.publish(pub{id: "e2", targets: "s1/d2"}) },
			answer: "[0 [0]]",
			want: map[string]string{
				"deliveries": "d1=s1|1|1000000|4|t|e1 d2=s1|0|1000000|4|t|e2", "payloads": "e1=t\ne1 e2=t\ne2",
				"fresh:s1": "d2", "ready": "s1@1000000",
				"sub:s1": limits + " cf=1 du=1 fr=1 lat=1000000 lcnt=1 lst=500 rh=1000 rn=1 rs=1000 rtry=1 ru=1 ver=3",
				"totals": "bytes=8 events=2 lcnt=1 retrying=1 token=1 version=3", "call:q (ttl)": "2|1|[0,[0]]",
			},
		},
	})
}

func TestPublishScriptLeasesWhatNeedNotWait(t *testing.T) {
	early := func(most, bytes int) func(*rig) {
		return func(r *rig) {
			two(r)
			r.early, r.earlyBytes = most, bytes
		}
	}
	publish := func(r *rig) string { return r.publish(pub{id: "e1", targets: "s1/d1"}) }
	waits := map[string]string{
		"deliveries": "d1=s1|0|1000000|4|t|e1", "payloads": "e1=t\ne1", "fresh:s1": "d1", "ready": "s1@1000000",
		"sub:s1": limits + " fr=1 ver=1", "dirty": "s1@1", "totals": "bytes=4 events=1 version=1",
		"call:q (ttl)": "1|1|[0,[0]]",
	}
	runScriptCases(t, map[string]scriptCase{
		"one that has a place": {
			seed: early(10, 100), call: publish, answer: "[0 [0] [1 1000000 0]]",
			want: map[string]string{
				"deliveries": "d1=s1|0|1000000|4|t|e1", "payloads": "e1=t\ne1", "leases": "1:d1@1020000",
				"sub:s1": limits + " inf=1 ver=1", "dirty": "s1@1", "totals": "bytes=4 events=1 token=1 version=1",
				"call:q (ttl)": "1|1|[0,[0],[1,1000000,0]]",
			},
		},
		"as many as there are places, and the places among all targets": {
			seed: early(10, 100),
			call: func(r *rig) string {
				return r.publish(pub{id: "e1", targets: "s1/d1"}, pub{id: "e2"}, pub{id: "e3", targets: "s1/d2 s2/d3"},
					pub{id: "e4", targets: "s1/d4 s2/d5"})
			},
			answer: "[0 [0] [0] [0] [0] [1 1000000 0 1 2 4]]",
			want: map[string]string{
				"deliveries": "d1=s1|0|1000000|4|t|e1 d2=s1|0|1000000|4|t|e3 d3=s2|0|1000000|4|t|e3 d4=s1|0|1000000|4|t|e4 " +
					"d5=s2|0|1000000|4|t|e4",
				"payloads": "e1=t\ne1 e3=t\ne3 e4=t\ne4", "refs": "e3=2 e4=2", "fresh:s1": "d4",
				"leases": "1:d1@1020000 1:d2@1020000 1:d3@1020000 1:d5@1020000",
				"sub:s1": limits + " fr=1 inf=2 ver=1", "sub:s2": limits + " inf=2 ver=1", "dirty": "s1@1 s2@1",
				"totals":       "bytes=12 events=4 token=1 version=1",
				"call:q (ttl)": "1|1|[0,[0],[0],[0],[0],[1,1000000,0,1,2,4]]",
			},
		},
		"none without room for deliveries": {seed: early(0, 100), call: publish, answer: "[0 [0]]", want: waits},
		"none without room for bytes":      {seed: early(10, 3), call: publish, answer: "[0 [0]]", want: waits},
		"none to a caller that has given up": {
			seed: func(r *rig) {
				early(10, 100)(r)
				r.givesUp = r.now - 1
			},
			call: publish, answer: "[0 [0]]", want: waits,
		},
		"one to a caller that gives up just now": {
			seed: func(r *rig) {
				early(10, 100)(r)
				r.givesUp = r.now
			},
			call: publish, answer: "[0 [0] [1 1000000 0]]",
			want: map[string]string{
				"deliveries": "d1=s1|0|1000000|4|t|e1", "payloads": "e1=t\ne1", "leases": "1:d1@1020000",
				"sub:s1": limits + " inf=1 ver=1", "dirty": "s1@1", "totals": "bytes=4 events=1 token=1 version=1",
				"call:q (ttl)": "1|1|[0,[0],[1,1000000,0]]",
			},
		},
		"none before what waits of the same subscription": {
			seed: func(r *rig) {
				early(10, 100)(r)
				r.configure("s1 2 60 2 3 1 1")
				r.publish(pub{id: "e0", targets: "s1/d0"})
				r.configure("s1 3 60 2 3 1 0")
			},
			call: publish, answer: "[0 [0]]",
			want: map[string]string{
				"deliveries": "d0=s1|0|1000000|4|t|e0 d1=s1|0|1000000|4|t|e1", "payloads": "e0=t\ne0 e1=t\ne1",
				"fresh:s1": "d0 d1", "sub:s1": "g3 r60 c2 m3 a1 p0 fr=2 ver=2",
				"totals": "bytes=8 events=2 version=2", "call:q (ttl)": "2|1|[0,[0]]",
			},
		},
		"none while another subscription waits for its turn": {
			seed: func(r *rig) {
				two(r)
				r.publish(pub{id: "e0", targets: "s2/d0"})
				r.early, r.earlyBytes = 10, 100
			},
			call: publish, answer: "[0 [0]]",
			want: map[string]string{
				"deliveries": "d0=s2|0|1000000|4|t|e0 d1=s1|0|1000000|4|t|e1", "payloads": "e0=t\ne0 e1=t\ne1",
				"fresh:s1": "d1", "ready": "s1@1000000 s2@1000000", "sub:s1": limits + " fr=1 ver=2",
				"dirty": "s2@1 s1@2", "totals": "bytes=8 events=2 version=2", "call:q (ttl)": "2|1|[0,[0]]",
			},
		},
		"none of a paused subscription": {
			seed: func(r *rig) {
				r.configure("s1 1 60 2 3 1 1")
				r.early, r.earlyBytes = 10, 100
			},
			call: publish, answer: "[0 [0]]",
			want: map[string]string{
				"deliveries": "d1=s1|0|1000000|4|t|e1", "payloads": "e1=t\ne1", "fresh:s1": "d1",
				"sub:s1": "g1 r60 c2 m3 a1 p1 fr=1 ver=1", "dirty": "s1@1", "totals": "bytes=4 events=1 version=1",
				"call:q (ttl)": "1|1|[0,[0]]",
			},
		},
		"none beyond the rate limit, until its window is over": {
			seed: func(r *rig) {
				r.configure("s1 1 1 2 3 1 0")
				r.early, r.earlyBytes = 10, 100
				r.publish(pub{id: "e0", targets: "s1/d0"})
				r.settle(end{delivery: "d0", token: 1, result: Done, status: 200})
			},
			call: func(r *rig) string {
				first := r.publish(pub{id: "e1", targets: "s1/d1"})
				r.now += 61_000
				r.lease(claim{})
				r.settle(end{delivery: "d1", token: 3, result: Done, status: 200})
				r.now += 61_000
				return first + r.publish(pub{id: "e2", targets: "s1/d2"})
			},
			answer: "[0 [0]][0 [0] [4 1122000 0]]",
			want: map[string]string{
				"deliveries": "d2=s1|0|1122000|4|t|e2", "payloads": "e0=t\ne0 e1=t\ne1 e2=t\ne2",
				"leases":   "4:d2@1142000",
				"ended":    "[1:d0=1000000|s|1|4||n|s1|t|e0] [2:d1=1061000|s|1|4||n|s1|t|e1]",
				"sub:s1":   "g1 r1 c2 m3 a1 p0 inf=1 lat=1061000 lcnt=2 lok=1061000 lst=200 ok=2 rs=1061 ver=5",
				"totals":   "bytes=4 events=3 kept=8 lcnt=2 ok=2 token=4 version=5",
				"sleepers": "me@1066000", "call:q (ttl)": "3|1|[0,[0],[4,1122000,0]]",
			},
		},
	})
}

func TestPublishScriptKnowsWhatItSaw(t *testing.T) {
	first := pub{id: "e1", fingerprint: "f", receipt: "s1 d1", targets: "s1/d1"}
	seen := func(r *rig) {
		two(r)
		r.publish(first)
	}
	runScriptCases(t, map[string]scriptCase{
		"the publisher's id is remembered, and its payload has a name of its own": {
			seed: two, call: func(r *rig) string { return r.publish(first) }, answer: "[0 [0]]",
			want: map[string]string{
				"deliveries": "d1=s1|0|1000000|4|t|e1#1000000", "payloads": "e1#1000000=t\ne1", "fresh:s1": "d1",
				"ready": "s1@1000000", "sub:s1": limits + " fr=1 ver=1", "dirty": "s1@1",
				"totals": "bytes=4 events=1 version=1", "seen:e1 (ttl)": "f|s1 d1", "call:q (ttl)": "1|1|[0,[0]]",
			},
		},
		"the same id and content again gives the first receipt": {
			seed: seen,
			call: func(r *rig) string {
				return r.publish(pub{id: "e1", fingerprint: "f", receipt: "s1 d9", targets: "s1/d9"})
			},
			answer: "[0 [1 s1 d1]]", want: map[string]string{"call:q (ttl)": `2|1|[0,[1,"s1 d1"]]`},
		},
		"it does so even where the matches are unknown by now": {
			seed: seen,
			call: func(r *rig) string {
				return r.publish(pub{id: "e1", fingerprint: "f", receipt: "s9 d9", targets: "s9/d9"})
			},
			answer: "[0 [1 s1 d1]]", want: map[string]string{"call:q (ttl)": `2|1|[0,[1,"s1 d1"]]`},
		},
		"the same id with other content is a conflict": {
			seed: seen,
			call: func(r *rig) string {
				return r.publish(pub{id: "e1", fingerprint: "g", receipt: "s1 d9", targets: "s1/d9"})
			},
			answer: "[0 [2]]", want: map[string]string{"call:q (ttl)": "2|1|[0,[2]]"},
		},
		"within one call the second is a duplicate of the first": {
			seed: two,
			call: func(r *rig) string {
				return r.publish(first, pub{id: "e1", fingerprint: "f", receipt: "s1 d9", targets: "s1/d9"},
					pub{id: "e1", fingerprint: "g", receipt: "s1 d8", targets: "s1/d8"})
			},
			answer: "[0 [0] [1 s1 d1] [2]]",
			want: map[string]string{
				"deliveries": "d1=s1|0|1000000|4|t|e1#1000000", "payloads": "e1#1000000=t\ne1", "fresh:s1": "d1",
				"ready": "s1@1000000", "sub:s1": limits + " fr=1 ver=1", "dirty": "s1@1",
				"totals": "bytes=4 events=1 version=1", "seen:e1 (ttl)": "f|s1 d1",
				"call:q (ttl)": `1|1|[0,[0],[1,"s1 d1"],[2]]`,
			},
		},
		"the same call again changes nothing and gets the first answer": {
			seed: func(r *rig) {
				two(r)
				r.publish(pub{id: "e1", targets: "s1/d1"}, pub{id: "e9", targets: "s9/d9"})
			},
			call: func(r *rig) string {
				return r.publishAs(1, pub{id: "e1", targets: "s1/d1"}, pub{id: "e9", targets: "s9/d9"})
			},
			answer: "[0 [0] [4 s9]]",
		},
		"a late copy of an earlier call changes nothing": {
			seed: func(r *rig) {
				two(r)
				r.publish(pub{id: "e1", targets: "s1/d1"})
				r.publish(pub{id: "e2", targets: "s1/d2"})
			},
			call:   func(r *rig) string { return r.publishAs(1, pub{id: "e1", targets: "s1/d1"}) },
			answer: "[1]",
		},
	})
}

func TestPublishScriptRefuses(t *testing.T) {
	runScriptCases(t, map[string]scriptCase{
		"an event for a subscription that must be configured first, and no other": {
			seed: two,
			call: func(r *rig) string {
				return r.publish(pub{id: "e1", targets: "s8/d8 s1/d1 s9/d9"}, pub{id: "e2", targets: "s1/d2"})
			},
			answer: "[0 [4 s8 s9] [0]]",
			want: map[string]string{
				"deliveries": "d2=s1|0|1000000|4|t|e2", "payloads": "e2=t\ne2", "fresh:s1": "d2", "ready": "s1@1000000",
				"sub:s1": limits + " fr=1 ver=1", "dirty": "s1@1", "totals": "bytes=4 events=1 version=1",
				"call:q (ttl)": `1|1|[0,[4,"s8","s9"],[0]]`,
			},
		},
		"the delivery of a subscription that is gone ends as cancelled": {
			seed: func(r *rig) {
				two(r)
				r.cancel("s1", 10)
			},
			call:   func(r *rig) string { return r.publish(pub{id: "e1", targets: "s1/d1 s2/d2"}) },
			answer: "[0 [0]]",
			want: map[string]string{
				"ended":      "[d1=1000000|c|0|4|subscription_deleted|n|s1|t|e1]",
				"refs":       "e1=1+1",
				"deliveries": "d2=s2|0|1000000|4|t|e1", "payloads": "e1=t\ne1", "fresh:s2": "d2", "ready": "s2@1000000",
				"sub:s2": limits + " fr=1 ver=1", "dirty": "s2@1", "totals": "bytes=4 canceled=1 events=1 version=1",
				"call:q (ttl)": "1|1|[0,[0]]",
			},
		},
		"what is beyond a subscription's own backlog fails, and its health is urgent": {
			seed: func(r *rig) {
				two(r)
				r.publish(pub{id: "e1", targets: "s1/d1"}, pub{id: "e2", targets: "s1/d2"})
				r.lease(claim{most: 1})
			},
			call: func(r *rig) string {
				return r.publish(pub{id: "e3", targets: "s1/d3"}, pub{id: "e4", targets: "s1/d4 s2/d5"})
			},
			answer: "[0 [0] [0 s1]]",
			want: map[string]string{
				"deliveries": "d1=s1|0|1000000|4|t|e1 d2=s1|0|1000000|4|t|e2 d3=s1|0|1000000|4|t|e3 d5=s2|0|1000000|4|t|e4",
				"payloads":   "e1=t\ne1 e2=t\ne2 e3=t\ne3 e4=t\ne4", "fresh:s1": "d2 d3", "fresh:s2": "d5",
				"sub:s1": limits + " fail=1 fr=2 full=1 inf=1 ver=2", "sub:s2": limits + " fr=1 ver=2",
				"ended": "[1:d4=1000000|f|0|4|backlog_full|n|s1|t|e4]",
				"refs":  "e4=1+1", "ready": "s1@1000000 s2@1000000", "dirty": "s1@1 s2@2", "urgent": "s1@2",
				"totals": "bytes=16 events=4 failed=1 token=1 version=2", "call:q (ttl)": `2|1|[0,[0],[0,"s1"]]`,
			},
		},
		"a backlog that has room again is urgent too": {
			seed: func(r *rig) {
				r.configure("s1 1 60 2 1 1 0")
				r.publish(pub{id: "e1", targets: "s1/d1"}, pub{id: "e2", targets: "s1/d2"})
				r.lease(claim{})
				r.settle(end{delivery: "d1", token: 1, result: Done, status: 200, took: 7})
			},
			call:   func(r *rig) string { return r.publish(pub{id: "e3", targets: "s1/d3"}) },
			answer: "[0 [0]]",
			want: map[string]string{
				"deliveries": "d3=s1|0|1000000|4|t|e3", "payloads": "e1=t\ne1 e2=t\ne2 e3=t\ne3", "fresh:s1": "d3", "ready": "s1@1000000",
				"sub:s1": "g1 r60 c2 m1 a1 p0 fail=1 fr=1 lat=1000000 lcnt=1 lok=1000000 lst=200 lsum=7 ok=1 rh=1000 rn=1 rs=1000 ru=1 ver=3",
				"urgent": "s1@3", "totals": "bytes=4 events=3 failed=1 kept=8 lcnt=1 lsum=7 ok=1 token=1 version=3", "call:q (ttl)": "2|1|[0,[0]]",
			},
		},
		"what does not fit into the shard by number, wholly": {
			seed: func(r *rig) {
				two(r)
				r.most = 2
			},
			call: func(r *rig) string {
				return r.publish(pub{id: "e1", targets: "s1/d1"}, pub{id: "e2", targets: "s1/d2 s2/d3"},
					pub{id: "e3", fingerprint: "f", targets: "s2/d4"})
			},
			answer: "[0 [0] [3] [0]]",
			want: map[string]string{
				"deliveries": "d1=s1|0|1000000|4|t|e1 d4=s2|0|1000000|4|t|e3#1000000", "payloads": "e1=t\ne1 e3#1000000=t\ne3",
				"fresh:s1": "d1", "fresh:s2": "d4", "ready": "s1@1000000 s2@1000000", "seen:e3 (ttl)": "f|",
				"sub:s1": limits + " fr=1 ver=1", "sub:s2": limits + " fr=1 ver=1", "dirty": "s1@1 s2@1",
				"totals": "bytes=8 events=2 version=1", "call:q (ttl)": "1|1|[0,[0],[3],[0]]",
			},
		},
		"what does not fit into the shard by bytes, without remembering its id": {
			seed: func(r *rig) {
				two(r)
				r.bytes = 5
			},
			call: func(r *rig) string {
				return r.publish(pub{id: "e1", targets: "s1/d1"}, pub{id: "e2", fingerprint: "f", targets: "s1/d2"})
			},
			answer: "[0 [0] [3]]",
			want: map[string]string{
				"deliveries": "d1=s1|0|1000000|4|t|e1", "payloads": "e1=t\ne1", "fresh:s1": "d1", "ready": "s1@1000000",
				"sub:s1": limits + " fr=1 ver=1", "dirty": "s1@1", "totals": "bytes=4 events=1 version=1",
				"call:q (ttl)": "1|1|[0,[0],[3]]",
			},
		},
	})
}

// Redis' Lua holds about 8,000 values on its stack; a batch may be larger.
func TestPublishAndLeaseScriptsTakeLargeBatches(t *testing.T) {
	r := newRig(t)
	r.configure("s1 1 1000000 10000 10000 1 0", "s2 1 1000000 10000 10000 1 0")
	r.most = 100_000
	var targets []string
	for i := range 4500 {
		targets = append(targets, fmt.Sprintf("s%d/d%04d", 1+i%2, i))
	}
	if answer := r.publish(pub{id: "e1", targets: strings.Join(targets, " ")}); answer != "[0 [0]]" {
		t.Fatal(answer)
	}
	r.audit()
	reply := r.leaseRaw(claim{most: 4500})
	given, _ := reply[4].([]any)
	if len(given) != 9000 {
		t.Fatalf("leased %d values, want 9000", len(given))
	}
	r.audit()
	ends := make([]end, 4500)
	for i := range ends {
		ends[i] = end{delivery: fmt.Sprintf("d%04d", i), token: 1, result: Done, status: 200}
	}
	r.settle(ends...)
	r.audit()
	if left := r.client.HLen(t.Context(), r.keys.deliveries()).Val(); left != 0 {
		t.Errorf("%d deliveries are left", left)
	}
}
