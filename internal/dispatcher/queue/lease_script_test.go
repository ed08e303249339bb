package queue

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestLeaseScript(t *testing.T) {
	runScriptCases(t, map[string]scriptCase{
		"Redis' clock went back: the requests of a second that is yet to come count as now": {
			seed: func(r *rig) {
				r.configure("s1 1 2 10 10 1 0")
				r.publish(pub{id: "e1", targets: "s1/d1 s1/d2 s1/d3"})
				r.now += 3_600_000
				r.lease(claim{})
				r.settle(end{delivery: "d1", token: 1, result: Done}, end{delivery: "d2", token: 1, result: Done})
				r.now -= 3_600_000
			},
			call:   func(r *rig) string { return r.configure("s1 2 2 10 10 1 0") },
			answer: "[1061000 1]",
			want: map[string]string{
				"ready":  "s1@1061000",
				"sub:s1": "g2 r2 c10 m10 a1 p0 fr=1 lat=4600000 lok=4600000 ok=2 rh=1000 rn=2 rs=1000 ru=2 ver=2",
			},
		},
		"nothing waits: the dispatcher sleeps as long as it may": {
			seed: two, call: func(r *rig) string { return r.lease(claim{}) },
			answer: "[0 1000000 -1 0 [] []]", want: map[string]string{"sleepers": "me@1005000"},
		},
		"what waits is claimed with a token, in order, the body once": {
			seed: func(r *rig) {
				two(r)
				r.publish(pub{id: "e1", targets: "s1/d1 s2/d2"}, pub{id: "e2", targets: "s1/d3"})
				r.now++
			},
			call: func(r *rig) string { return r.lease(claim{}) },
			answer: "[1 1000001 1020001 0 [d1 s1|0|1000000|4|t|e1 d3 s1|0|1000000|4|t|e2 d2 s2|0|1000000|4|t|e1]" +
				" [e1 t\ne1 e2 t\ne2]]",
			want: map[string]string{
				"fresh:s1": "-", "fresh:s2": "-", "ready": "-", "leases": "1:d1@1020001 1:d2@1020001 1:d3@1020001",
				"sub:s1": limits + " inf=2 ver=1", "sub:s2": limits + " inf=1 ver=1",
				"totals": "bytes=8 events=2 token=1 version=1", "sleepers": "me@1005001",
			},
		},
		"nothing is claimed for a caller that has given up, which may come again at once": {
			seed: func(r *rig) {
				two(r)
				r.publish(pub{id: "e1", targets: "s1/d1"})
				r.givesUp = r.now - 1
			},
			call:   func(r *rig) string { return r.lease(claim{}) },
			answer: "[0 1000000 1000000 0 [] []]",
			want:   map[string]string{},
		},
		"places bound what a subscription gets, and it leaves the line": {
			seed: func(r *rig) {
				two(r)
				r.publish(pub{id: "e1", targets: "s1/d1 s1/d2 s1/d3"})
			},
			call:   func(r *rig) string { return r.lease(claim{}) },
			answer: "[1 1000000 1020000 0 [d1 s1|0|1000000|4|t|e1 d2 s1|0|1000000|4|t|e1] [e1 t\ne1]]",
			want: map[string]string{
				"fresh:s1": "d3", "ready": "-", "leases": "1:d1@1020000 1:d2@1020000",
				"sub:s1": limits + " fr=1 inf=2 ver=1", "totals": "bytes=4 events=1 token=1 version=1",
				"sleepers": "me@1005000",
			},
		},
		"a subscription that failed three times in a row has one place": {
			seed: func(r *rig) {
				two(r)
				r.publish(pub{id: "e1", targets: "s1/d1 s1/d2"}, pub{id: "e2", targets: "s1/d3"})
				for token, id := range []string{"d1", "d2", "d3"} {
					r.lease(claim{most: 1})
					r.settle(end{delivery: id, token: token + 1, result: Fail})
				}
				r.publish(pub{id: "e3", targets: "s1/d4"}, pub{id: "e4", targets: "s1/d5"})
			},
			call:   func(r *rig) string { return r.lease(claim{}) },
			answer: "[4 1000000 1020000 0 [d4 s1|0|1000000|4|t|e3] [e3 t\ne3]]",
			want: map[string]string{
				"fresh:s1": "d5", "ready": "-", "leases": "4:d4@1020000",
				"sub:s1": limits + " cf=3 fail=3 fr=1 inf=1 lat=1000000 rh=1000 rn=3 rs=1000 ru=3 ver=5",
				"totals": "bytes=8 events=4 failed=3 kept=8 token=4 version=5",
			},
		},
		"retries that are due go first, the earliest first; the others stay": {
			seed: func(r *rig) {
				r.configure("s1 1 60 10 10 1 0")
				r.publish(pub{id: "e1", targets: "s1/d1 s1/d2 s1/d3"})
				r.lease(claim{})
				r.settle(end{delivery: "d1", token: 1, result: Retry, delay: 2000},
					end{delivery: "d2", token: 1, result: Retry, delay: 1000},
					end{delivery: "d3", token: 1, result: Done, status: 200})
				r.publish(pub{id: "e2", targets: "s1/d4"})
				r.now += 1999
			},
			call:   func(r *rig) string { return r.lease(claim{}) },
			answer: "[2 1001999 1002000 0 [d2 s1|1|1000000|4|t|e1 d4 s1|0|1000000|4|t|e2] [e1 t\ne1 e2 t\ne2]]",
			want: map[string]string{
				"fresh:s1": "-", "due:s1": "d1@1002000", "ready": "s1@1002000", "sleepers": "me@1002000",
				"leases": "2:d2@1021999 2:d4@1021999",
				"sub:s1": "g1 r60 c10 m10 a1 p0 du=1 inf=2 lat=1000000 lcnt=1 lok=1000000 lst=200 ok=1 rh=1000 rn=3 rs=1000" +
					" rtry=2 ru=3 ver=3",
				"totals": "bytes=8 events=2 lcnt=1 ok=1 retrying=2 token=2 version=3",
			},
		},
		"beyond the bytes, what is over goes back to where it was and keeps its turn": {
			seed: func(r *rig) {
				r.configure("s1 1 60 10 10 1 0", "s2 1 60 10 10 1 0")
				r.publish(pub{id: "e1", targets: "s1/d1"}, pub{id: "e2", targets: "s1/d2 s2/d3"}, pub{id: "e3", targets: "s2/d4"})
				r.now++
			},
			call:   func(r *rig) string { return r.lease(claim{bytes: 3}) },
			answer: "[1 1000001 1000000 0 [d1 s1|0|1000000|4|t|e1] [e1 t\ne1]]",
			want: map[string]string{
				"fresh:s1": "d2", "ready": "s2@1000000 s1@1000001", "leases": "1:d1@1020001",
				"sub:s1": "g1 r60 c10 m10 a1 p0 fr=1 inf=1 ver=1", "totals": "bytes=12 events=3 token=1 version=1",
			},
		},
		"a body that several share counts once": {
			seed: func(r *rig) {
				r.configure("s1 1 60 10 10 1 0")
				r.publish(pub{id: "e1", targets: "s1/d1 s1/d2"}, pub{id: "e2", targets: "s1/d3"})
			},
			call:   func(r *rig) string { return r.lease(claim{bytes: 7}) },
			answer: "[1 1000000 1000000 0 [d1 s1|0|1000000|4|t|e1 d2 s1|0|1000000|4|t|e1] [e1 t\ne1]]",
			want: map[string]string{
				"fresh:s1": "d3", "leases": "1:d1@1020000 1:d2@1020000",
				"sub:s1": "g1 r60 c10 m10 a1 p0 fr=1 inf=2 ver=1", "totals": "bytes=8 events=2 token=1 version=1",
			},
		},
		"without room it claims nothing, and is not called a sleeper": {
			seed: func(r *rig) {
				two(r)
				r.lease(claim{})
				r.publish(pub{id: "e1", targets: "s1/d1"})
			},
			call:   func(r *rig) string { return r.lease(claim{none: true}) },
			answer: "[0 1000000 1000000 0 [] []]", want: map[string]string{"sleepers": "-"},
		},
	})
}

func TestLeaseScriptIsFair(t *testing.T) {
	flood := func(r *rig) {
		r.configure("s1 1 600 100 100 1 0", "s2 1 600 100 100 1 0", "s3 1 600 100 100 1 0")
		for i := range 6 {
			r.publish(pub{id: fmt.Sprintf("e%d", i), targets: fmt.Sprintf("s1/a%d s2/b%d s3/c%d", i, i, i)})
		}
		r.now++
	}
	given := func(c claim) func(*rig) string {
		return func(r *rig) string {
			var ids []string
			list, _ := r.leaseRaw(c)[4].([]any)
			for i := 0; i < len(list); i += 2 {
				ids = append(ids, fmt.Sprint(list[i]))
			}
			return strings.Join(ids, " ")
		}
	}
	cases := map[string]struct {
		claims []claim
		want   []string
	}{
		"everyone gets the same part":                     {[]claim{{most: 9, share: 1}}, []string{"a0 a1 a2 b0 b1 b2 c0 c1 c2"}},
		"nobody gets less than the smallest share":        {[]claim{{most: 6, share: 4}}, []string{"a0 a1 a2 a3 b0 b1"}},
		"who had no turn comes next":                      {[]claim{{most: 4, share: 4}, {most: 4, share: 4}}, []string{"a0 a1 a2 a3", "b0 b1 b2 b3"}},
		"who was given nothing for want of bytes is next": {[]claim{{bytes: 1}, {bytes: 1}, {bytes: 1}, {bytes: 1}}, []string{"a0", "b0", "c0", "a1"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			flood(r)
			for i, claimed := range c.claims {
				if got := given(claimed)(r); got != c.want[i] {
					t.Errorf("lease %d: got %s, want %s", i, got, c.want[i])
				}
				r.now++
				r.audit()
			}
		})
	}
}

func TestLeaseScriptTakesBackWhatExpired(t *testing.T) {
	leased := func(r *rig) {
		r.configure("s1 1 60 10 10 1 0")
		r.publish(pub{id: "e1", targets: "s1/d1 s1/d2"}, pub{id: "e2", targets: "s1/d3"})
		r.lease(claim{most: 2})
	}
	runScriptCases(t, map[string]scriptCase{
		"a lease holds to its last millisecond": {
			seed: func(r *rig) {
				leased(r)
				r.now += leaseMillis - 1
			},
			call:   func(r *rig) string { return r.lease(claim{none: true}) },
			answer: "[0 1019999 1000000 0 [] []]",
		},
		"then first attempts go back to the head in their order, and count as sent": {
			seed: func(r *rig) {
				leased(r)
				r.now += leaseMillis
			},
			call:   func(r *rig) string { return r.lease(claim{none: true}) },
			answer: "[0 1020000 1000000 2 [] []]",
			want: map[string]string{
				"fresh:s1": "d1 d2 d3", "leases": "-",
				"sub:s1": "g1 r60 c10 m10 a1 p0 fr=3 rh=1020 rn=2 rs=1020 ru=2 ver=1",
			},
		},
		"later attempts are due at once": {
			seed: func(r *rig) {
				leased(r)
				r.settle(end{delivery: "d1", token: 1, result: Retry}, end{delivery: "d2", token: 1, result: Done})
				r.lease(claim{})
				r.now += leaseMillis
			},
			call:   func(r *rig) string { return r.lease(claim{none: true}) },
			answer: "[0 1020000 1020000 2 [] []]",
			want: map[string]string{
				"fresh:s1": "d3", "due:s1": "d1@1020000", "leases": "-", "rate:s1 (ttl)": "1000=2",
				"sub:s1": "g1 r60 c10 m10 a1 p0 du=1 fr=1 lat=1000000 lok=1000000 ok=1 rh=1000 rn=2 rs=1020 rtry=1 ru=4 ver=2",
				"ready":  "s1@1020000", "sleepers": "-",
			},
		},
		"and may be claimed in the same step, with a new token": {
			seed: func(r *rig) {
				leased(r)
				r.now += leaseMillis
			},
			call:   func(r *rig) string { return r.lease(claim{}) },
			answer: "[2 1020000 1040000 2 [d1 s1|0|1000000|4|t|e1 d2 s1|0|1000000|4|t|e1 d3 s1|0|1000000|4|t|e2] [e1 t\ne1 e2 t\ne2]]",
			want: map[string]string{
				"fresh:s1": "-", "leases": "2:d1@1040000 2:d2@1040000 2:d3@1040000",
				"sub:s1": "g1 r60 c10 m10 a1 p0 inf=3 rh=1020 rn=2 rs=1020 ru=2 ver=1", "ready": "-", "sleepers": "me@1025000",
				"totals": "bytes=8 events=2 token=2 version=1",
			},
		},
		"a bounded number at a time": {
			seed: func(r *rig) {
				leased(r)
				r.now += leaseMillis
			},
			call:   func(r *rig) string { return r.lease(claim{none: true, expired: 1}) },
			answer: "[0 1020000 1000000 1 [] []]",
			want: map[string]string{
				"fresh:s1": "d1 d3", "leases": "1:d2@1020000",
				"sub:s1": "g1 r60 c10 m10 a1 p0 fr=2 inf=1 rh=1020 rn=1 rs=1020 ru=1 ver=1",
			},
		},
		"those of a subscription that is gone end as cancelled": {
			seed: func(r *rig) {
				leased(r)
				r.cancel("s1", 10)
				r.now += leaseMillis
			},
			call:   func(r *rig) string { return r.lease(claim{}) },
			answer: "[0 1020000 -1 2 [] []]",
			want: map[string]string{
				"deliveries": "-", "refs": "e1=0+2", "leases": "-", "sleepers": "me@1025000",
				"ended":        "[d3=1000000|c|0|4|subscription_deleted|n|s1|t|e2] [d2=1020000|c|0|4|subscription_deleted|n|s1|t|e1 d1=1020000|c|0|4|subscription_deleted|n|s1|t|e1]",
				"sub:s1 (ttl)": "g1 r60 c10 m10 a1 p0 canc=1 gone=1 ver=1",
				"totals":       "bytes=0 canceled=3 events=2 kept=8 token=1 version=1",
			},
		},
	})
}

func TestLeaseScriptSurvivesWhatIsMissing(t *testing.T) {
	runScriptCases(t, map[string]scriptCase{
		"a delivery without record is dropped, the others are claimed": {
			torn: true,
			seed: func(r *rig) {
				two(r)
				r.publish(pub{id: "e1", targets: "s1/d1 s1/d2"})
				r.client.HDel(r.t.Context(), r.keys.deliveries(), "d1")
			},
			call:   func(r *rig) string { return r.lease(claim{}) },
			answer: "[1 1000000 1020000 0 [d2 s1|0|1000000|4|t|e1] [e1 t\ne1]]",
			want: map[string]string{
				"fresh:s1": "-", "ready": "-", "leases": "1:d2@1020000", "sub:s1": limits + " inf=1 ver=1",
				"totals": "bytes=4 events=1 token=1 version=1", "sleepers": "me@1005000",
			},
		},
		"a subscription that nobody knows leaves the line": {
			seed:   func(r *rig) { r.client.ZAdd(r.t.Context(), r.keys.ready(), zOf("s9", 5)) },
			call:   func(r *rig) string { return r.lease(claim{}) },
			answer: "[0 1000000 -1 0 [] []]", want: map[string]string{"ready": "-", "sleepers": "me@1005000"},
		},
		"a lease without record is forgotten": {
			seed: func(r *rig) {
				r.client.ZAdd(r.t.Context(), r.keys.prefix+"leases", zOf("7", 5))
				r.client.SAdd(r.t.Context(), r.keys.prefix+"claims:7", "d7")
			},
			call:   func(r *rig) string { return r.lease(claim{}) },
			answer: "[0 1000000 -1 1 [] []]", want: map[string]string{"leases": "-", "sleepers": "me@1005000"},
		},
	})
}

// A request counts until the last instant of its second is 60 s old, and what is in flight counts as sent now.
func TestLeaseScriptKeepsTheRate(t *testing.T) {
	sent := func(r *rig) {
		r.configure("s1 1 2 10 10 1 0")
		r.publish(pub{id: "e1", targets: "s1/d1 s1/d2 s1/d3"})
		r.lease(claim{})
		r.settle(end{delivery: "d1", token: 1, result: Done, ago: 1}) // at 999,999: counts until 1,060,000
		r.settle(end{delivery: "d2", token: 1, result: Done})         // at 1,000,000: counts until 1,061,000
	}
	const tail = " lat=1000000 lok=1000000 ok=2 ver=3"
	runScriptCases(t, map[string]scriptCase{
		"a used up window lets it wait for the second that leaves first": {
			seed:   sent,
			call:   func(r *rig) string { return r.lease(claim{}) },
			answer: "[0 1000000 1060000 0 [] []]",
		},
		"a millisecond before that it waits": {
			seed: func(r *rig) {
				sent(r)
				r.now = 1_059_999
			},
			call:   func(r *rig) string { return r.lease(claim{}) },
			answer: "[0 1059999 1060000 0 [] []]", want: map[string]string{"sleepers": "me@1060000"},
		},
		"then one more goes": {
			seed: func(r *rig) {
				sent(r)
				r.publish(pub{id: "e2", targets: "s1/d4"})
				r.now = 1_060_000
			},
			call:   func(r *rig) string { return r.lease(claim{}) },
			answer: "[2 1060000 1061000 0 [d3 s1|0|1000000|4|t|e1] [e1 t\ne1]]",
			want: map[string]string{
				"fresh:s1": "d4", "ready": "s1@1061000", "leases": "2:d3@1080000", "rate:s1 (ttl)": "-",
				"sub:s1": "g1 r2 c10 m10 a1 p0 fr=1 inf=1 lat=1000000 lok=1000000 ok=2 rh=1000 rn=1 rs=1000 ru=1 ver=4",
				"totals": "bytes=8 events=2 ok=2 token=2 version=4", "sleepers": "me@1061000",
			},
		},
		"while all of the rate is in flight only a settlement opens it": {
			seed: func(r *rig) {
				r.configure("s1 1 2 10 10 1 0")
				r.publish(pub{id: "e1", targets: "s1/d1 s1/d2 s1/d3"})
			},
			call:   func(r *rig) string { return r.lease(claim{}) },
			answer: "[1 1000000 1020000 0 [d1 s1|0|1000000|4|t|e1 d2 s1|0|1000000|4|t|e1] [e1 t\ne1]]",
			want: map[string]string{
				"fresh:s1": "d3", "ready": "-", "leases": "1:d1@1020000 1:d2@1020000",
				"sub:s1": "g1 r2 c10 m10 a1 p0 fr=1 inf=2 ver=1", "totals": "bytes=4 events=1 token=1 version=1",
				"sleepers": "me@1005000",
			},
		},
		"what is in flight counts as sent": {
			seed: func(r *rig) {
				r.configure("s1 1 2 10 10 1 0")
				r.publish(pub{id: "e1", targets: "s1/d1 s1/d2 s1/d3"})
				r.lease(claim{most: 1})
			},
			call:   func(r *rig) string { return r.lease(claim{}) },
			answer: "[2 1000000 1020000 0 [d2 s1|0|1000000|4|t|e1] [e1 t\ne1]]",
			want: map[string]string{
				"fresh:s1": "d3", "ready": "-", "leases": "1:d1@1020000 2:d2@1020000", "sleepers": "me@1005000",
				"sub:s1": "g1 r2 c10 m10 a1 p0 fr=1 inf=2 ver=1", "totals": "bytes=4 events=1 token=2 version=1",
			},
		},
		"a lowered rate sends it to the end of its window": {
			seed: func(r *rig) {
				sent(r)
				r.configure("s1 2 1 10 10 1 0")
				r.now = 1_060_000
			},
			call:   func(r *rig) string { return r.lease(claim{}) },
			answer: "[0 1060000 1061000 0 [] []]",
			want: map[string]string{
				"ready": "s1@1061000", "rate:s1 (ttl)": "-", "sleepers": "me@1061000",
				"sub:s1": "g2 r1 c10 m10 a1 p0 fr=1" + strings.Replace(tail, " ok=2", " ok=2 rh=1000 rn=1 rs=1000 ru=1", 1),
			},
		},
	})
}

// A call that comes late wakes the one that slept last, which may be its own caller, since it lives.
func TestALateLeaseWakesTheLatestSleeper(t *testing.T) {
	tests := map[string]func(*rig){
		"what waits": func(r *rig) { r.publish(pub{id: "e1", targets: "s1/d1"}) },
		"what will be due": func(r *rig) {
			r.early = 1
			r.publish(pub{id: "e1", targets: "s1/d1"})
			r.settle(end{delivery: "d1", token: 1, result: Retry, delay: 60_000, status: 500})
		},
	}
	for name, bring := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			two(r)
			woken := r.wakeUps("other", "me")
			r.lease(claim{dispatcher: "other"})
			r.now++
			r.lease(claim{dispatcher: "me"})
			bring(r)
			r.givesUp = r.now - 1
			r.lease(claim{dispatcher: "me"})
			if left := r.state()["sleepers"]; left != "other@1005000" {
				t.Errorf("sleepers: %q", left)
			}
			if name := woken(); name != "me" {
				t.Errorf("%s was woken, want the latest", name)
			}
			r.audit()
		})
	}
}

func TestLeaseScriptWakesOneThatSleeps(t *testing.T) {
	r := newRig(t)
	two(r)
	woken := r.wakeUps("other", "me", "dead")
	r.lease(claim{dispatcher: "dead"})
	r.now += 5001
	r.lease(claim{dispatcher: "me"})
	r.lease(claim{dispatcher: "other"})
	r.publish(pub{id: "e1", targets: "s1/d1"}, pub{id: "e2", targets: "s2/d2"})
	before := r.state()
	r.lease(claim{most: 1, dispatcher: "me"})
	if after := r.state(); before["sleepers"] != "dead@1005000 me@1010001 other@1010001" || after["sleepers"] != "" {
		t.Errorf("sleepers: %q, then %q", before["sleepers"], after["sleepers"])
	}
	if name := woken(); name != "other" {
		t.Errorf("%s was woken, want the other", name)
	}
	r.audit()
}

// wakeUps listens for these dispatchers. The function that it returns names the one that is woken next.
func (r *rig) wakeUps(dispatchers ...string) (next func() string) {
	r.t.Helper()
	names, channels := map[string]string{}, []string{}
	for _, name := range dispatchers {
		names[r.keys.wake(name)] = name
		channels = append(channels, r.keys.wake(name))
	}
	heard := r.client.Subscribe(r.t.Context(), channels...)
	r.t.Cleanup(func() { _ = heard.Close() })
	for range channels {
		if _, err := heard.Receive(r.t.Context()); err != nil {
			r.t.Fatal(err)
		}
	}
	return func() string {
		r.t.Helper()
		ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Second)
		defer cancel()
		message, err := heard.ReceiveMessage(ctx)
		if err != nil {
			r.t.Fatal(err)
		}
		return names[message.Channel]
	}
}
