package queue

import (
	"fmt"
	"strings"
	"testing"
)

// listed puts deliveries into the list of operation o1.
func (r *rig) listed(ids ...any) {
	r.t.Helper()
	pipe := r.client.Pipeline()
	pipe.RPush(r.t.Context(), r.keys.operationLeft("o1"), ids...)
	pipe.HSet(r.t.Context(), r.keys.operationCounts("o1"), "done", 0, "skipped", 0)
	if _, err := pipe.Exec(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

// next is the delivery of operation o1 whose turn it is.
func (r *rig) next() string {
	r.t.Helper()
	return strings.Join(r.client.LRange(r.t.Context(), r.keys.operationLeft("o1"), 0, 0).Val(), "")
}

func (r *rig) retryNext(states States) string {
	r.t.Helper()
	return fmt.Sprint(r.run(retryNextScript, "o1", string(states), int64(Requeued), r.next(), "", "n1", r.most, r.bytes, 0))
}

func (r *rig) cancelNext(states States) string {
	r.t.Helper()
	return fmt.Sprint(r.run(cancelNextScript, "o1", string(states), int64(InFlight), r.next(), ""))
}

func TestOperateScript(t *testing.T) {
	listing := func(seed func(*rig), ids ...any) func(*rig) {
		return func(r *rig) {
			seed(r)
			r.listed(ids...)
		}
	}
	next := func(states States) func(*rig) string {
		return func(r *rig) string { return r.retryNext(states) }
	}
	retried := map[string]string{
		"deliveries": "d1=s1|1:1:1::|1000010|4|t|e1", "due:s1": "d1@1000010", "tries:d1": "a1;", "refs": "e1=1",
		"past:d1": "-", "pasts": "-", "hist:s1 (ttl)": "-", "ready": "s1@1000010",
		"sub:s1": "g1 r60 c2 m9 a1 p0 cf=1 du=1 fail=1 lat=1000000 lcnt=1 lst=500 rh=1000 rn=1 rs=1000 rtry=1 ru=1 ver=3",
		"totals": "bytes=4 events=1 failed=1 kept=0 lcnt=1 retrying=1 token=1 tries=3 version=3",
	}
	with := func(changes map[string]string, left, counts string) map[string]string {
		all := map[string]string{"op:o1:left": left, "op:o1:counts": counts}
		for key, value := range changes {
			all[key] = value
		}
		return all
	}
	secondOf := func(r *rig) string {
		return fmt.Sprint(r.run(retryNextScript, "o1", "f", int64(Requeued), "d2", "", "n1", r.most, r.bytes, 0))
	}
	runScriptCases(t, map[string]scriptCase{
		"a step whose turn it is not changes nothing": {
			seed: listing(endedOnce(Fail), "d1", "d2"), call: secondOf, answer: "[-2]",
		},
		"the next one that failed is retried and counted": {
			seed: listing(endedOnce(Fail), "d1", "d2"), call: next("f"), answer: "[1]", want: with(retried, "d2", "done=1 skipped=0"),
		},
		"one that is there no longer is skipped": {
			seed: listing(endedOnce(Fail), "d9", "d1"), call: next("f"), answer: "[0]", want: with(nil, "d1", "done=0 skipped=1"),
		},
		"one that succeeded meanwhile is not repeated": {
			seed: listing(endedOnce(Done), "d1"), call: next("f"), answer: "[0]", want: with(nil, "-", "done=0 skipped=1"),
		},
		"one that waits again meanwhile is left to it": {
			seed: listing(retryable, "d1"), call: next("f"), answer: "[0]", want: with(nil, "-", "done=0 skipped=1"),
		},
		"one that waits for another attempt is hurried where that is asked for": {
			seed: listing(retryable, "d1"), call: next("r"), answer: "[1]", want: with(map[string]string{
				"deliveries": "d1=s1|1:1:0::|1000000|4|t|e1 d2=s1|0|1000000|4|t|e1 d3=s1|0|1000000|4|t|e1",
				"due:s1":     "d1@1000000",
			}, "-", "done=1 skipped=0"),
		},
		"what has no room is skipped": {
			seed: listing(func(r *rig) {
				endedOnce(Fail)(r)
				r.configure("s1 2 60 2 0 1 0")
			}, "d1"), call: next("f"), answer: "[0]", want: with(nil, "-", "done=0 skipped=1"),
		},
		"nothing is left": {seed: endedOnce(Fail), call: next("f"), answer: "[-1]"},
		"one that waits is cancelled": {
			seed: listing(retryable, "d1"), call: func(r *rig) string { return r.cancelNext("pr") }, answer: "[1]",
			want: with(map[string]string{
				"deliveries": "d2=s1|0|1000000|4|t|e1 d3=s1|0|1000000|4|t|e1", "due:s1": "-", "tries:d1": "-",
				"ended": "[1:d1=1000000|c|1|4|canceled|n|s1|t|e1 a1;]", "refs": "e1=2+1",
				"sub:s1": "g1 r60 c2 m9 a1 p0 canc=1 cf=1 fr=1 inf=1 lat=1000000 rh=1000 rn=1 rs=1000 ru=1 ver=3",
				"totals": "bytes=4 canceled=1 events=1 retrying=0 token=1 tries=0 version=3",
			}, "-", "done=1 skipped=0"),
		},
		"one in flight ends with its attempt": {
			seed: listing(retryable, "d2", "d1"), call: func(r *rig) string { return r.cancelNext("p") + r.cancelNext("p") },
			answer: "[1][0]", want: with(map[string]string{
				"deliveries": "d1=s1|1|1000000|4|t|e1 d2=s1|0:0:0::c|1000000|4|t|e1 d3=s1|0|1000000|4|t|e1",
			}, "-", "done=1 skipped=1"),
		},
	})
}

func TestBeginAndEndedScripts(t *testing.T) {
	const remembered = 1000
	begin := func(r *rig, id string, matched int) string {
		return fmt.Sprint(r.run(beginScript, id, 2, remembered, matched, "what"))
	}
	ended := func(r *rig, id string) string { return fmt.Sprint(r.run(endedScript, id, remembered)) }
	two := func(r *rig) {
		begin(r, "o1", 3)
		begin(r, "o2", 3)
		r.now += 10
	}
	runScriptCases(t, map[string]scriptCase{
		"one begins, once": {
			call: func(r *rig) string {
				first := begin(r, "o1", 3)
				r.now += 10
				return first + begin(r, "o1", 3)
			},
			answer: "[1 1000000][1 1000000]",
			want:   map[string]string{"op:o1 (ttl)": "matched=3 started=1000000 what=what", "ops": "o1@1000000"},
		},
		"one without deliveries is finished": {
			call:   func(r *rig) string { return begin(r, "o1", 0) },
			answer: "[1 1000000]", want: map[string]string{"op:o1 (ttl)": "finished=1000000 matched=0 started=1000000 what=what"},
		},
		"too many are refused, those without deliveries are not": {
			seed: two, call: func(r *rig) string { return begin(r, "o3", 3) + begin(r, "o4", 0) }, answer: "[0][1 1000010]",
			want: map[string]string{"op:o4 (ttl)": "finished=1000010 matched=0 started=1000010 what=what"},
		},
		"one ends, once": {
			seed: two,
			call: func(r *rig) string {
				first := ended(r, "o1")
				r.now += 10
				return first + ended(r, "o1")
			},
			answer: "[][]", want: map[string]string{
				"ops": "o2@1000000", "op:o1 (ttl)": "finished=1000010 matched=3 started=1000000 what=what",
			},
		},
		"one that is forgotten leaves nothing": {
			seed: func(r *rig) {
				two(r)
				r.client.Del(r.t.Context(), r.keys.operation("o1"))
			},
			call: func(r *rig) string { return ended(r, "o1") }, answer: "[]", want: map[string]string{"ops": "o2@1000000"},
		},
	})
}

func TestEnlistScript(t *testing.T) {
	enlist := func(r *rig, before int, ids ...any) string {
		return fmt.Sprint(r.run(enlistScript, append([]any{"o1", before, 1000, 2000}, ids...)...))
	}
	runScriptCases(t, map[string]scriptCase{
		"some, and more, each once": {
			call: func(r *rig) string {
				return enlist(r, 0, "d1", "d2") + enlist(r, 0, "d1", "d2") + enlist(r, 2, "d3") + enlist(r, 2, "d3")
			},
			answer: "[][][][]", want: map[string]string{
				"op:o1:left (ttl)": "d1 d2 d3", "op:o1:counts (ttl)": "done=0 skipped=0",
			},
		},
	})
}
