package queue

import (
	"fmt"
	"strings"
	"testing"
)

// someEnded has d1 (succeeded) and d2 (failed) of e1 and d3 of e2 ended, d4 of e2 waiting.
func someEnded(r *rig) {
	r.configure("s1 1 60 9 9 1 0", "s2 1 60 9 9 1 1")
	r.publish(pub{id: "e1", targets: "s1/d1 s1/d2"}, pub{id: "e2", targets: "s1/d3 s2/d4"})
	r.lease(claim{})
	r.settle(end{delivery: "d1", token: 1, result: Done, status: 200, attempt: "a1;"})
	r.settle(end{delivery: "d2", token: 1, result: Fail, status: 410, reason: "gone", attempt: "a2;"},
		end{delivery: "d3", token: 1, result: Done, status: 200, attempt: "a3;"})
}

const (
	pastD1 = "d1=1000000|s|1|4||n|s1|t|e1\na1;" // 28 bytes, as d3; d2 has 32
	pastD2 = "d2=1000000|f|1|4|gone|n|s1|t|e1\na2;"
	pastD3 = "d3=1000000|s|1|4||n|s1|t|e2\na3;"
)

// filedTotals are the shard's totals with what the history and the outbox hold.
func filedTotals(kept, outbox string) string {
	if outbox != "" {
		outbox += " "
	}
	return "bytes=4 events=2 failed=1 " + kept + " ok=2 " + outbox + "token=1 version=3"
}

func TestFileScript(t *testing.T) {
	file := func(f filing) func(*rig) string { return func(r *rig) string { return r.file(f) } }
	filed := func(f filing) func(*rig) {
		return func(r *rig) {
			someEnded(r)
			r.file(f)
		}
	}
	runScriptCases(t, map[string]scriptCase{
		"what has ended goes into the history": {
			seed: someEnded, call: file(filing{}), answer: "[3 0 0]",
			want: map[string]string{
				"ended": "-", "past:d1": pastD1, "past:d2": pastD2, "past:d3": pastD3, "pasts": "d1@0 d2@0 d3@0",
				"hist:s1 (ttl)": "d1 d2 d3", "totals": filedTotals("kept=92 lcnt=3", ""),
			},
		},
		"in steps": {
			seed: someEnded, call: file(filing{records: 1}), answer: "[1 1 0]",
			want: map[string]string{
				"ended":   "[2:d2=1000000|f|1|4|gone|n|s1|t|e1 a2; 3:d3=1000000|s|1|4||n|s1|t|e2 a3;]",
				"past:d1": pastD1, "pasts": "d1@0", "hist:s1 (ttl)": "d1", "totals": filedTotals("kept=32 lcnt=3", ""),
			},
		},
		"again changes nothing": {seed: filed(filing{}), call: file(filing{}), answer: "[0 0 0]"},
		"of a subscription the latest stay; the payload goes with its last record": {
			seed: someEnded, call: file(filing{perSub: 1}), answer: "[1 0 0]",
			want: map[string]string{
				"ended": "-", "past:d3": pastD3, "pasts": "d3@0", "hist:s1 (ttl)": "d3", "payloads": "e2=t\ne2",
				"refs": "e2=1+1", "totals": filedTotals("kept=28 lcnt=3", ""),
			},
		},
		"of all, as much stays as there is room for": {
			seed: someEnded, call: file(filing{bytes: 70}), answer: "[3 0 0]",
			want: map[string]string{
				"ended": "-", "past:d2": pastD2, "past:d3": pastD3, "pasts": "d2@0 d3@0", "hist:s1 (ttl)": "d1 d2 d3",
				"refs": "e2=1+1", "totals": filedTotals("kept=64 lcnt=3", ""),
			},
		},
		"not more is forgotten in one step than may be": {
			seed: someEnded, call: file(filing{bytes: 1, forget: 1}), answer: "[3 0 1]",
			want: map[string]string{
				"ended": "-", "past:d2": pastD2, "past:d3": pastD3, "pasts": "d2@0 d3@0", "hist:s1 (ttl)": "d1 d2 d3",
				"refs": "e2=1+1", "totals": filedTotals("kept=64 lcnt=3", ""),
			},
		},
		"where entries are copied they stay": {
			seed: someEnded, call: file(filing{copying: true}), answer: "[3 0 0]",
			want: map[string]string{
				"filed": "*", "past:d1": pastD1, "past:d2": pastD2, "past:d3": pastD3, "pasts": "d1@0 d2@0 d3@0",
				"hist:s1 (ttl)": "d1 d2 d3", "refs": "e1=0+4 e2=1+2", "totals": filedTotals("kept=92 lcnt=3", "outbox=97"),
			},
		},
		"but not more than the outbox holds, and what goes is counted": {
			seed: filed(filing{copying: true}), call: file(filing{copying: true, outbox: 80}), answer: "[0 0 0]",
			want: map[string]string{
				"ended": "[2:d2=1000000|f|1|4|gone|n|s1|t|e1 a2; 3:d3=1000000|s|1|4||n|s1|t|e2 a3;]",
				"refs":  "e1=0+3 e2=1+2", "totals": filedTotals("kept=92 lcnt=3 lost=1", "outbox=66"),
			},
		},
		"once nobody copies any more, they go": {
			seed: filed(filing{copying: true}), call: func(r *rig) string { return r.file(filing{}) + r.file(filing{}) },
			answer: "[0 0 0][0 0 0]",
			want: map[string]string{
				"ended": "-", "filed": "-", "refs": "e1=0+2 e2=1+1", "totals": filedTotals("kept=92 lcnt=3", "outbox=0"),
			},
		},
	})
}

func TestFileScriptForgetsWhatIsOld(t *testing.T) {
	const old, young = "00000000-3a00-7000-8000-000000000001", "00000000-ff00-7000-8000-000000000002" // 14,848 and 65,280 ms
	seed := func(r *rig) {
		r.now = 60_000
		r.configure("s1 1 60 9 9 1 0")
		r.publish(pub{id: "e1", targets: "s1/" + old}, pub{id: "e2", targets: "s1/" + young})
		r.lease(claim{})
		r.settle(end{delivery: old, token: 1, result: Done}, end{delivery: young, token: 1, result: Done})
	}
	const record = young + "=60000|s|1|4||n|s1|t|e2\n"
	runScriptCases(t, map[string]scriptCase{
		"it is not filed": {
			seed: seed, call: func(r *rig) string { return r.file(filing{age: 40_000}) }, answer: "[1 0 0]",
			want: map[string]string{
				"ended": "-", "past:00000000-f": record, "pasts": "00000000-f@0", "hist:s1 (ttl)": young,
				"payloads": "e2=t\ne2", "totals": "bytes=0 events=2 kept=27 ok=2 token=1 version=2",
			},
		},
		"it goes when its time has come": {
			seed: func(r *rig) {
				seed(r)
				r.file(filing{age: 60_000})
			},
			call: func(r *rig) string { return r.file(filing{age: 40_000}) }, answer: "[0 0 0]",
			want: map[string]string{
				"past:00000000-3": "-", "pasts": "00000000-f@0", "payloads": "e2=t\ne2",
				"totals": "bytes=0 events=2 kept=27 ok=2 token=1 version=2",
			},
		},
	})
}

func TestCopiedScript(t *testing.T) {
	copied := func(r *rig, last string, most int) string { return fmt.Sprint(r.run(copiedScript, last, most)) }
	entry := func(r *rig, n int) string {
		entries, err := r.client.XRange(r.t.Context(), r.keys.prefix+"ended", "-", "+").Result()
		if err != nil {
			r.t.Fatal(err)
		}
		return entries[n].ID
	}
	runScriptCases(t, map[string]scriptCase{
		"what is copied goes, up to the last": {
			seed: func(r *rig) {
				someEnded(r)
				r.file(filing{copying: true})
			},
			call: func(r *rig) string { return copied(r, entry(r, 0), 10) }, answer: "[1 0]",
			want: map[string]string{
				"ended": "[2:d2=1000000|f|1|4|gone|n|s1|t|e1 a2; 3:d3=1000000|s|1|4||n|s1|t|e2 a3;]",
				"refs":  "e1=0+3 e2=1+2", "totals": filedTotals("kept=92 lcnt=3", "outbox=66"),
			},
		},
		"the payload goes where only the copy needed it": {
			seed: func(r *rig) {
				someEnded(r)
				r.file(filing{copying: true, perSub: 1})
			},
			call: func(r *rig) string { return copied(r, entry(r, 1), 10) }, answer: "[2 0]",
			want: map[string]string{
				"ended": "-", "payloads": "e2=t\ne2", "refs": "e2=1+1", "totals": filedTotals("kept=28 lcnt=3", "outbox=0"),
			},
		},
		"what is not in the history yet stays": {
			seed: func(r *rig) {
				someEnded(r)
				r.file(filing{copying: true, records: 1})
			},
			call: func(r *rig) string { return copied(r, entry(r, 1), 10) }, answer: "[1 0]",
			want: map[string]string{
				"ended": "[2:d2=1000000|f|1|4|gone|n|s1|t|e1 a2; 3:d3=1000000|s|1|4||n|s1|t|e2 a3;]",
				"refs":  "e1=0+2 e2=1+1", "totals": filedTotals("kept=32 lcnt=3", "outbox=0"),
			},
		},
		"where nothing was filed nothing goes": {
			seed: someEnded, call: func(r *rig) string { return copied(r, entry(r, 1), 10) }, answer: "[0 0]",
		},
	})
}

func TestSettleScriptKeepsAttempts(t *testing.T) {
	retried := func(attempts ...string) func(*rig) {
		return func(r *rig) {
			r.configure("s1 1 60 9 9 1 0")
			r.publish(pub{id: "e1", targets: "s1/d1"})
			for i, attempt := range attempts {
				r.lease(claim{})
				r.settle(end{delivery: "d1", token: i + 1, result: Retry, attempt: attempt})
			}
			r.lease(claim{})
		}
	}
	settle := func(token int, result Result) func(*rig) string {
		return func(r *rig) string {
			return r.settle(end{delivery: "d1", token: token, result: result, attempt: "last;"})
		}
	}
	long := "a123456789b123456789c123456789d123456789;"
	runScriptCases(t, map[string]scriptCase{
		"all of them, in order, once it has ended": {
			seed: retried("a1;", "a2;"), call: settle(3, Done), answer: "[1]",
			want: map[string]string{
				"deliveries": "-", "tries:d1": "-", "leases": "-",
				"ended":  "[1:d1=1000000|s|3|4||n|s1|t|e1 a1;a2;last;]",
				"sub:s1": "g1 r60 c9 m9 a1 p0 lat=1000000 lok=1000000 ok=1 rh=1000 rn=3 rs=1000 ru=3 ver=4", "urgent": "s1@4",
				"totals": "bytes=0 events=1 kept=4 ok=1 retrying=0 token=3 tries=0 version=4",
			},
		},
		"the latest ones, while it is unfinished": {
			seed: retried("a1;", "a2;", "a3;"), call: settle(4, Retry), answer: "[1]",
			want: map[string]string{
				"deliveries": "d1=s1|4|1000000|4|t|e1", "tries:d1": "a2; a3; last;", "leases": "-", "due:s1": "d1@1000000",
				"ready":  "s1@1000000",
				"sub:s1": "g1 r60 c9 m9 a1 p0 cf=4 du=1 lat=1000000 rh=1000 rn=4 rs=1000 rtry=1 ru=4 ver=5",
				"totals": "bytes=4 events=1 retrying=1 token=4 tries=11 version=5",
			},
		},
		"as many as there is room for": {
			seed: retried(long, long), call: settle(3, Retry), answer: "[1]",
			want: map[string]string{
				"deliveries": "d1=s1|3|1000000|4|t|e1", "tries:d1": long + " " + long + " last;", "leases": "-",
				"due:s1": "d1@1000000", "ready": "s1@1000000",
				"sub:s1": "g1 r60 c9 m9 a1 p0 cf=3 du=1 lat=1000000 rh=1000 rn=3 rs=1000 rtry=1 ru=3 ver=4", "urgent": "s1@4",
				"totals": "bytes=4 events=1 retrying=1 token=3 tries=87 version=4",
			},
		},
		"none where there is no room": {
			seed: retried(long, long), answer: "[1]",
			call: func(r *rig) string { return r.settle(end{delivery: "d1", token: 3, result: Retry, attempt: long}) },
			want: map[string]string{
				"deliveries": "d1=s1|3|1000000|4|t|e1", "leases": "-",
				"due:s1": "d1@1000000", "ready": "s1@1000000",
				"sub:s1": "g1 r60 c9 m9 a1 p0 cf=3 du=1 lat=1000000 rh=1000 rn=3 rs=1000 rtry=1 ru=3 ver=4", "urgent": "s1@4",
				"totals": "bytes=4 events=1 retrying=1 token=3 tries=82 version=4",
			},
		},
		"cancelled with its subscription": {
			seed: func(r *rig) {
				retried("a1;")(r)
				r.settle(end{delivery: "d1", token: 2, result: Retry, attempt: "a2;"})
			},
			call: func(r *rig) string { return r.cancel("s1", 9) }, answer: "[1 0]",
			want: map[string]string{
				"deliveries": "-", "tries:d1": "-", "due:s1": "-", "ready": "-", "subs": "-",
				"dirty": "-", "urgent": "-", "sub:s1": "-",
				"ended":        "[d1=1000000|c|2|4|subscription_deleted|n|s1|t|e1 a1;a2;]",
				"sub:s1 (ttl)": "g1 r60 c9 m9 a1 p0 canc=1 cf=2 gone=1 lat=1000000 ver=3",
				"totals":       "bytes=0 canceled=1 events=1 kept=4 retrying=0 token=2 tries=0 version=3",
			},
		},
	})
}

// A bucket with many records, as of an event with many deliveries, is forgotten in bounded steps too.
func TestFileScriptForgetsALargeBucketInSteps(t *testing.T) {
	const all, batch, most, page = 3000, 250, 100, 64
	r := newRig(t)
	r.early = batch
	r.configure(fmt.Sprintf("s1 1 1000000 %d %d 1 0", batch, batch))
	for n := 0; n < all; n += batch {
		var targets []string
		var ends []end
		for i := range batch {
			id := fmt.Sprintf("00000000-3a00-7000-8000-%012d", n+i)
			targets = append(targets, "s1/"+id)
			ends = append(ends, end{delivery: id, token: n/batch + 1, result: Done})
		}
		r.publish(pub{id: fmt.Sprint("e", n), targets: strings.Join(targets, " ")})
		r.settle(ends...)
	}
	bounds := filing{records: all, perSub: all, age: int(r.now), forget: most}
	r.file(bounds)
	bucket := r.keys.prefix + "past:00000000-3"
	left := r.client.HLen(t.Context(), bucket).Val()
	if left != all {
		t.Fatalf("%d records are filed", left)
	}
	bounds.bytes = 1
	for left > 0 {
		r.file(bounds)
		now := r.client.HLen(t.Context(), bucket).Val()
		if left-now > most+page || now == left {
			t.Fatalf("%d records were forgotten in a step", left-now)
		}
		left = now
	}
	r.audit()
}
