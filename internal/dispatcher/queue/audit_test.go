package queue

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// whole is a shard with something in every place: d1 in flight, d2 waiting, d3 due later, d4 paused, d5 in the history,
// d6 to be filed.
func whole(r *rig) {
	r.configure("s1 1 60 9 9 1 0", "s2 1 60 9 9 1 1", "s3 1 60 9 9 1 0")
	r.publish(pub{id: "e0", targets: "s3/d3"}, pub{id: "e1", targets: "s1/d1 s1/d2 s2/d4"})
	r.lease(claim{})
	r.settle(end{delivery: "d2", token: 1, result: Release}, end{delivery: "d3", token: 1, result: Retry, delay: 5000, attempt: "a;"})
	r.configure("s4 1 60 9 0 1 0")
	r.publish(pub{id: "e5", targets: "s4/d5"})
	r.file(filing{copying: true})
	r.publish(pub{id: "e6", targets: "s4/d6"})
}

// miscount is a command that adds n to a field of a subscription.
func miscount(r *rig, sub, field string, n int) []any {
	const script = `local layout = string.match(ARGV[3], '^[^I]*')
		local before = redis.call('GET', KEYS[1])
		local v = {struct.unpack(layout, before)}
		local texts = string.sub(before, table.remove(v))
		v[tonumber(ARGV[1])] = v[tonumber(ARGV[1])] + ARGV[2]
		return redis.call('SET', KEYS[1], struct.pack(layout, unpack(v)) .. texts)`
	return []any{"EVAL", script, 1, r.keys.prefix + "sub:" + sub, 1 + slices.Index(subscriptionFields, field), n, subscriptionLayout}
}

func TestAuditFindsWhatIsBroken(t *testing.T) {
	key := func(r *rig, name string) string { return r.keys.prefix + name }
	cases := map[string]struct {
		torn func(*rig) []any // commands that break the shard
		code int
		want string
	}{
		"a delivery that is nowhere": {code: 1, want: "d2", torn: func(r *rig) []any {
			return []any{[]any{"LREM", key(r, "fresh:s1"), 1, "d2"}, miscount(r, "s1", "fr", -1),
				[]any{"ZREM", r.keys.ready(), "s1"}}
		}},
		"a delivery that waits twice": {code: 2, want: "d2", torn: func(r *rig) []any {
			return []any{[]any{"RPUSH", key(r, "fresh:s1"), "d2"}, miscount(r, "s1", "fr", 1)}
		}},
		"a delivery that waits and is in flight": {code: 2, want: "d1", torn: func(r *rig) []any {
			return []any{[]any{"RPUSH", key(r, "fresh:s1"), "d1"}, miscount(r, "s1", "fr", 1)}
		}},
		"a place without a record": {code: 3, want: "d9", torn: func(r *rig) []any {
			return []any{[]any{"RPUSH", key(r, "fresh:s1"), "d9"}, miscount(r, "s1", "fr", 1)}
		}},
		"a lease without a record": {code: 3, want: "d9", torn: func(r *rig) []any {
			return []any{[]any{"ZADD", key(r, "leases"), 1, "9"}, []any{"SADD", key(r, "claims:9"), "d9"}}
		}},
		"a lease of nothing": {code: 23, want: "9", torn: func(r *rig) []any {
			return []any{[]any{"ZADD", key(r, "leases"), 1, "9"}}
		}},
		"a record of another subscription": {code: 4, want: "d2", torn: func(r *rig) []any {
			return []any{[]any{"HSET", r.keys.deliveries(), "d2", "s2|0|1000000|4|t|e1"}}
		}},
		"a payload that is missing": {code: 5, want: "e1", torn: func(r *rig) []any {
			return []any{[]any{"HDEL", key(r, "payloads"), "e1"}}
		}},
		"a payload that nobody needs": {code: 6, want: "e9", torn: func(r *rig) []any {
			return []any{[]any{"HSET", key(r, "payloads"), "e9", "x"}}
		}},
		"references that nobody holds": {code: 6, want: "e9", torn: func(r *rig) []any {
			return []any{[]any{"HSET", key(r, "refs"), "e9", 2}}
		}},
		"too many references": {code: 7, want: "e1", torn: func(r *rig) []any {
			return []any{[]any{"HINCRBY", key(r, "refs"), "e1", 1}}
		}},
		"references that are missing": {code: 7, want: "e1", torn: func(r *rig) []any {
			return []any{[]any{"HDEL", key(r, "refs"), "e1"}}
		}},
		"a wrong number that waits": {code: 8, want: "s1", torn: func(r *rig) []any {
			return []any{miscount(r, "s1", "fr", 1)}
		}},
		"a wrong number that is due": {code: 8, want: "s3", torn: func(r *rig) []any {
			return []any{miscount(r, "s3", "du", 1)}
		}},
		"a wrong number in flight": {code: 8, want: "s1", torn: func(r *rig) []any {
			return []any{miscount(r, "s1", "inf", -1)}
		}},
		"a wrong number that retries": {code: 8, want: "s3", torn: func(r *rig) []any {
			return []any{miscount(r, "s3", "rtry", -1)}
		}},
		"one in the line that is paused": {code: 9, want: "s2", torn: func(r *rig) []any {
			return []any{[]any{"ZADD", r.keys.ready(), 1, "s2"}}
		}},
		"one in the line that nobody knows": {code: 9, want: "s9", torn: func(r *rig) []any {
			return []any{[]any{"ZADD", r.keys.ready(), 1, "s9"}}
		}},
		"one that may run and is not in the line": {code: 10, want: "s1", torn: func(r *rig) []any {
			return []any{[]any{"ZREM", r.keys.ready(), "s1"}}
		}},
		"wrong bytes": {code: 11, want: "8", torn: func(r *rig) []any {
			return []any{[]any{"HINCRBY", r.keys.totals(), "bytes", 1}}
		}},
		"a subscription without limits": {code: 12, want: "s9", torn: func(r *rig) []any {
			return []any{[]any{"SADD", r.keys.subs(), "s9"}}
		}},
		"a wrong sum of the rate window": {code: 13, want: "s3", torn: func(r *rig) []any {
			return []any{[]any{"HINCRBY", key(r, "rate:s3"), "1000", 1}}
		}},
		"a record that its subscription does not list": {code: 15, want: "d5", torn: func(r *rig) []any {
			return []any{[]any{"LREM", key(r, "hist:s4"), 1, "d5"}}
		}},
		"a bucket without records": {code: 16, want: "d9", torn: func(r *rig) []any {
			return []any{[]any{"ZADD", key(r, "pasts"), 0, "d9"}}
		}},
		"wrong bytes of the history": {code: 17, want: "45", torn: func(r *rig) []any {
			return []any{[]any{"HINCRBY", r.keys.totals(), "kept", 1}}
		}},
		"wrong bytes of the outbox": {code: 18, want: "40", torn: func(r *rig) []any {
			return []any{[]any{"HINCRBY", r.keys.totals(), "outbox", 1}}
		}},
		"wrong bytes of earlier attempts": {code: 19, want: "2", torn: func(r *rig) []any {
			return []any{[]any{"DEL", key(r, "tries:d3")}, []any{"RPUSH", key(r, "tries:d3"), "a", "b"},
				[]any{"HINCRBY", r.keys.totals(), "tries", 1}}
		}},
		"one that has ended and waits": {code: 20, want: "d2", torn: func(r *rig) []any {
			return []any{[]any{"XADD", key(r, "ended"), "*", "|d2|1000000|f|0|4||n|s1|t|e1", ""},
				[]any{"HINCRBY", key(r, "refs"), "e1", keptOne}}
		}},
		"a mark of the reflector that its subscription does not know": {code: 21, want: "s2", torn: func(r *rig) []any {
			return []any{[]any{"ZREM", key(r, "dirty"), "s2"}}
		}},
		"a wrong count of the retrying": {code: 22, want: "1", torn: func(r *rig) []any {
			return []any{[]any{"HINCRBY", r.keys.totals(), "retrying", 1}}
		}},
		"one that comes too late": {code: 14, want: "s3", torn: func(r *rig) []any {
			return []any{[]any{"ZADD", r.keys.ready(), begin + 5001, "s3"}}
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			whole(r)
			r.audit()
			for _, command := range c.torn(r) {
				if err := r.client.Do(t.Context(), command.([]any)...).Err(); err != nil {
					t.Fatal(err)
				}
			}
			before := r.state()
			reply, _ := r.run(auditScript, 100_000).([]any)
			if got, want := fmt.Sprint(reply[1:]), fmt.Sprint([]any{c.code, c.want}); got != want {
				t.Errorf("found %s, want %s", got, want)
			}
			if violations[int64(c.code)] == "" {
				t.Errorf("code %d has no words", c.code)
			}
			if diff := changes(before, r.state()); len(diff) > 0 {
				t.Errorf("the audit wrote %v", diff)
			}
		})
	}
}

func TestAuditLeavesAnOverdueRateWindowAlone(t *testing.T) {
	r := newRig(t)
	r.configure("s1 1 1 9 9 1 0")
	r.publish(pub{id: "e1", targets: "s1/d1 s1/d2"})
	r.lease(claim{})
	r.settle(end{delivery: "d1", token: 1, result: Done})
	r.now += 120_000
	before := r.state()
	r.audit()
	if diff := cmp.Diff(before, r.state()); diff != "" {
		t.Errorf("the audit wrote (-before +after):\n%s", diff)
	}
}

func TestAuditRefusesAShardThatIsTooLarge(t *testing.T) {
	r := newRig(t)
	whole(r)
	if got := fmt.Sprint(r.run(auditScript, 4)); got != "[-1 5]" {
		t.Errorf("answered %s", got)
	}
}
