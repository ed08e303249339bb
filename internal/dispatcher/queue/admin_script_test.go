package queue

import (
	"fmt"
	"testing"
)

func TestConfigureScript(t *testing.T) {
	runScriptCases(t, map[string]scriptCase{
		"a new subscription is known, and has nothing to run": {
			call:   func(r *rig) string { return r.configure("s1 1 60 2 3 1 0") },
			answer: "[-1 1]", want: map[string]string{"subs": "s1", "sub:s1": limits},
		},
		"the same again changes nothing": {
			seed: two, call: func(r *rig) string { return r.configure("s1 1 60 2 3 1 0") }, answer: "[-1 0]",
		},
		"an older generation changes nothing": {
			seed: func(r *rig) { r.configure("s1 5 60 2 3 1 0") },
			call: func(r *rig) string { return r.configure("s1 4 99 9 9 0 1") }, answer: "[-1 2]",
		},
		"a pause takes it out of the line": {
			seed: func(r *rig) {
				two(r)
				r.publish(pub{id: "e1", targets: "s1/d1"})
			},
			call:   func(r *rig) string { return r.configure("s1 2 60 2 3 1 1") },
			answer: "[-1 1]", want: map[string]string{"ready": "-", "sub:s1": "g2 r60 c2 m3 a1 p1 fr=1 ver=1"},
		},
		"the end of a pause puts it back, and says when it runs": {
			seed: func(r *rig) {
				r.configure("s1 1 60 2 3 1 1")
				r.publish(pub{id: "e1", targets: "s1/d1"})
				r.now += 10
			},
			call:   func(r *rig) string { return r.configure("s1 1 60 2 3 1 0") },
			answer: "[1000010 1]", want: map[string]string{"ready": "s1@1000010", "sub:s1": limits + " fr=1 ver=1"},
		},
		"one that is inactive sends nothing of what it has": {
			seed: func(r *rig) {
				two(r)
				r.publish(pub{id: "e1", targets: "s1/d1"})
			},
			call:   func(r *rig) string { return r.configure("s1 2 60 2 3 0 0") },
			answer: "[-1 1]", want: map[string]string{"ready": "-", "sub:s1": "g2 r60 c2 m3 a0 p0 fr=1 ver=1"},
		},
		"a raised rate lets it run at once": {
			seed: func(r *rig) {
				r.configure("s1 1 1 9 9 1 0")
				r.publish(pub{id: "e1", targets: "s1/d1 s1/d2"})
				r.lease(claim{})
				r.settle(end{delivery: "d1", token: 1, result: Done})
			},
			call:   func(r *rig) string { return r.configure("s1 2 2 9 9 1 0") },
			answer: "[1000000 1]",
			want: map[string]string{
				"ready":  "s1@1000000",
				"sub:s1": "g2 r2 c9 m9 a1 p0 fr=1 lat=1000000 lok=1000000 ok=1 rh=1000 rn=1 rs=1000 ru=1 ver=2",
			},
		},
		"the same subscription twice in a call: the later holds": {
			seed: func(r *rig) {
				two(r)
				r.publish(pub{id: "e1", targets: "s1/d1"})
			},
			call:   func(r *rig) string { return r.configure("s1 2 60 2 3 1 0", "s1 3 60 2 3 1 1") },
			answer: "[-1 1 1]", want: map[string]string{"ready": "-", "sub:s1": "g3 r60 c2 m3 a1 p1 fr=1 ver=1"},
		},
		"one that is gone does not come back": {
			seed: func(r *rig) {
				two(r)
				r.cancel("s1", 10)
			},
			call: func(r *rig) string { return r.configure("s1 2 60 2 3 1 0") }, answer: "[-1 3]",
		},
	})
}

func TestCancelScript(t *testing.T) {
	waiting := func(r *rig) {
		r.configure("s1 1 60 1 9 1 0", "s2 1 60 2 3 1 0")
		r.publish(pub{id: "e1", targets: "s1/d1 s1/d2 s2/d3"}, pub{id: "e2", targets: "s1/d4"})
		r.lease(claim{most: 1})
		r.settle(end{delivery: "d1", token: 1, result: Retry, delay: 5000})
		r.lease(claim{most: 1}) // d3 of s2
		r.lease(claim{most: 1}) // d2 of s1
	}
	runScriptCases(t, map[string]scriptCase{
		"what waits ends in steps, and until the last it is known": {
			seed:   waiting,
			call:   func(r *rig) string { return r.cancel("s1", 1) },
			answer: "[1 1]",
			want: map[string]string{
				"deliveries": "d1=s1|1|1000000|4|t|e1 d2=s1|0|1000000|4|t|e1 d3=s2|0|1000000|4|t|e1",
				"ended":      "[d4=1000000|c|0|4|subscription_deleted|n|s1|t|e2]",
				"fresh:s1":   "-", "totals": "bytes=4 canceled=1 events=2 kept=4 retrying=1 token=3 version=2",
				"sub:s1": "g1 r60 c1 m9 a1 p0 canc=1 cf=1 du=1 gone=1 inf=1 lat=1000000 rh=1000 rn=1 rs=1000 rtry=1 ru=1 ver=2",
			},
		},
		"the last step forgets it, but for what is in flight": {
			seed:   waiting,
			call:   func(r *rig) string { return r.cancel("s1", 9) },
			answer: "[2 0]",
			want: map[string]string{
				"deliveries": "d2=s1|0|1000000|4|t|e1 d3=s2|0|1000000|4|t|e1", "refs": "e1=2+1",
				"ended":    "[d4=1000000|c|0|4|subscription_deleted|n|s1|t|e2 d1=1000000|c|1|4|subscription_deleted|n|s1|t|e1]",
				"fresh:s1": "-", "due:s1": "-", "subs": "s2", "dirty": "s2@1", "urgent": "-",
				"totals": "bytes=4 canceled=2 events=2 kept=4 retrying=0 token=3 version=2", "sub:s1": "-",
				"sub:s1 (ttl)": "g1 r60 c1 m9 a1 p0 canc=2 cf=1 gone=1 inf=1 lat=1000000 ver=2",
			},
		},
		"the payload is kept for the history once nothing needs it": {
			seed: func(r *rig) {
				two(r)
				r.publish(pub{id: "e1", targets: "s1/d1 s1/d2"})
			},
			call:   func(r *rig) string { return r.cancel("s1", 9) },
			answer: "[2 0]",
			want: map[string]string{
				"deliveries": "-", "refs": "e1=0+2", "fresh:s1": "-", "ready": "-", "subs": "s2", "dirty": "-",
				"ended":  "[d1=1000000|c|0|4|subscription_deleted|n|s1|t|e1 d2=1000000|c|0|4|subscription_deleted|n|s1|t|e1]",
				"totals": "bytes=0 canceled=2 events=1 kept=4 version=1", "sub:s1": "-",
				"sub:s1 (ttl)": "g1 r60 c2 m3 a1 p0 canc=2 gone=1 ver=1",
			},
		},
		"a repetition does no harm": {
			seed: func(r *rig) {
				waiting(r)
				r.cancel("s1", 9)
			},
			call: func(r *rig) string { return r.cancel("s1", 9) }, answer: "[0 0]",
		},
		"nor does a subscription that nobody knows": {
			seed: two, call: func(r *rig) string { return r.cancel("s9", 9) }, answer: "[0 0]",
		},
	})
}

func TestChangedAndReflectedScripts(t *testing.T) {
	changed := func(list string, most int, subs ...any) func(*rig) string {
		return func(r *rig) string {
			return fmt.Sprint(r.run(changedScript, append([]any{list, most}, subs...)...))
		}
	}
	reflected := func(args ...any) func(*rig) string {
		return func(r *rig) string { return fmt.Sprint(r.run(reflectedScript, args...)) }
	}
	// s1 changed at versions 1, 2 (its first success) and 4, s2 at 3.
	seed := func(r *rig) {
		two(r)
		r.publish(pub{id: "e1", targets: "s1/d1"})
		r.lease(claim{})
		r.settle(end{delivery: "d1", token: 1, result: Done, status: 200, took: 5})
		r.publish(pub{id: "e2", targets: "s2/d2"})
		r.publish(pub{id: "e3", targets: "s1/d3"})
	}
	const s1 = "s1 [1 0 0 1 0 0 0 0 1000000 1000000 200   5 1 0 4]"
	const s2 = "s2 [0 0 0 1 0 0 0 0 0 0 0   0 0 0 3]"
	runScriptCases(t, map[string]scriptCase{
		"what was changed first comes first, whatever changed since": {
			seed: seed, call: changed("dirty", 9), answer: "[" + s1 + " " + s2 + "]",
		},
		"at most so many": {seed: seed, call: changed("dirty", 1), answer: "[" + s1 + "]"},
		"only the urgent": {seed: seed, call: changed("urgent", 9), answer: "[" + s1 + "]"},
		"the named ones":  {seed: seed, call: changed("", 0, "s2"), answer: "[" + s2 + "]"},
		"an unknown one has nothing": {
			seed: seed, call: changed("", 0, "s9"),
			answer: "[s9 []]",
		},
		"what was reflected as it is is unmarked": {
			seed: seed, call: reflected("s1", 4), answer: "1", want: map[string]string{"dirty": "s2@3", "urgent": "-"},
		},
		"what changed since stays marked, behind the others": {
			seed: seed, call: reflected("s1", 2), answer: "0",
			want: map[string]string{"dirty": "s2@3 s1@4", "urgent": "-"},
		},
		"an urgent change since stays urgent": {
			seed: seed, call: reflected("s1", 1), answer: "0", want: map[string]string{"dirty": "s2@3 s1@4"},
		},
		"one that is not marked stays so": {seed: two, call: reflected("s1", 0), answer: "0"},
		"one that is gone is forgotten all the same": {
			seed: func(r *rig) {
				seed(r)
				r.cancel("s1", 9)
			},
			call: reflected("s1", 99), answer: "0",
		},
	})
}
