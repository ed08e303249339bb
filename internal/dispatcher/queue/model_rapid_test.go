package queue

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"
)

// The model's Redis keeps one shard at a time in a database of its own.
func TestQueueIsAsItsModel(t *testing.T) {
	client := redis.NewClient(&redis.Options{Addr: common.Address, DB: 1})
	t.Cleanup(func() { _ = client.Close() })
	rapid.Check(t, func(rt *rapid.T) {
		if err := client.FlushDB(t.Context()).Err(); err != nil {
			rt.Fatal(err)
		}
		m := newMachine(t, rt, client)
		rt.Repeat(map[string]func(*rapid.T){
			"":          m.compare,
			"configure": m.configure,
			"publish":   m.publish,
			"Publish":   m.publish,
			"lease":     m.lease,
			"Lease":     m.lease,
			"settle":    m.settle,
			"Settle":    m.settle,
			"extend":    m.extend,
			"cancel":    m.cancel,
			"file":      m.file,
			"retry":     m.retry,
			"Retry":     m.retryAgain,
			"end":       m.end,
			"trip":      m.trip,
			"Trip":      m.trip,
			"time":      m.pass,
		})
	})
}

// machine does the same to the scripts and to the model, and remembers what a consumer saw.
type machine struct {
	*rig
	model  *model
	events int
	made   int
	claims []modelClaim // all that were ever given
	began  map[string]bool
	order  map[string]int // of a delivery among those of its subscription
	queued int
	rates  map[string]int // the greatest ever configured
	sent   map[string][]int64

	retries map[string][2]string // what was retried, and the answer, by the delivery that could have been
}

type modelClaim struct {
	delivery, sub string
	token         int
	sendAt        int64 // when its request starts, if it is not over before
	over          bool
}

func newMachine(t *testing.T, rt *rapid.T, client *redis.Client) *machine {
	m := &machine{
		rig:   &rig{t: t, client: client, keys: newKeys("m", 0), now: begin, most: 14, bytes: 120},
		began: map[string]bool{}, order: map[string]int{}, rates: map[string]int{}, sent: map[string][]int64{},
		retries: map[string][2]string{},
	}
	m.model = newModel(m.most, m.bytes)
	for _, id := range []string{"s1", "s2", "s3"} {
		m.set(id, 1, rapid.IntRange(1, 4).Draw(rt, "rate"), rapid.IntRange(1, 4).Draw(rt, "places"), 8, true, false)
	}
	return m
}

func (m *machine) set(id string, generation, rate, places, backlog int, active, paused bool) {
	limits := fmt.Sprint(id, " ", generation, " ", rate, " ", places, " ", backlog, " ", flag(active), " ", flag(paused))
	answer := m.rig.configure(limits)
	code := m.model.configure(id, generation, rate, places, backlog, active, paused)
	if !strings.HasSuffix(answer, fmt.Sprintf(" %d]", code)) {
		m.t.Fatalf("configure %s answered %s, the model %d", limits, answer, code)
	}
	m.rates[id] = max(m.rates[id], rate)
}

var subIDs = []string{"s1", "s2", "s3"}

func (m *machine) configure(rt *rapid.T) {
	id := rapid.SampledFrom(subIDs).Draw(rt, "sub")
	generation := m.model.subs[id].generation + rapid.IntRange(-1, 1).Draw(rt, "generation")
	m.set(id, generation, rapid.IntRange(1, 4).Draw(rt, "rate"), rapid.IntRange(1, 4).Draw(rt, "places"),
		rapid.IntRange(1, 8).Draw(rt, "backlog"), rapid.IntRange(0, 5).Draw(rt, "active") > 0,
		rapid.IntRange(0, 5).Draw(rt, "paused") == 0)
}

// doing is a part of a trip: its arguments, and what holds the answer to the model.
type doing struct {
	args  []any
	check func(answer any)
}

func (m *machine) publish(rt *rapid.T) { m.one(publishPart, m.publishing(rt)) }
func (m *machine) settle(rt *rapid.T)  { m.one(settlePart, m.settling(rt)) }
func (m *machine) extend(rt *rapid.T)  { m.one(extendPart, m.extending(rt)) }
func (m *machine) lease(rt *rapid.T)   { m.one(leasePart, m.leasing(rt)) }

func (m *machine) one(n int, d doing) {
	if d.args != nil {
		d.check(m.part(n, d.args...))
	}
}

// trip does several parts in one call, in which the subscriptions are written once for all but the lease.
func (m *machine) trip(rt *rapid.T) {
	var parts [4][]any
	var checks [4]func(any)
	for n, part := range []func(*rapid.T) doing{m.publishing, m.settling, m.extending, m.leasing} {
		if rapid.IntRange(0, 4).Draw(rt, "part") > 0 {
			d := part(rt)
			parts[n], checks[n] = d.args, d.check
		}
	}
	answers := m.rig.trip(parts)
	m.model.deferred = &unflushed{touched: map[string]bool{}}
	for n, answer := range answers {
		if n == leasePart {
			m.model.flush()
		}
		if parts[n] != nil {
			checks[n](answer)
		}
	}
	m.repeat(rt, parts, answers)
}

// repeat does the same trip again, but for the lease: it must change nothing but how long leases hold.
func (m *machine) repeat(rt *rapid.T, parts [4][]any, answers []any) {
	token := 0
	if parts[extendPart] != nil {
		token = parts[extendPart][1].(int) //nolint:forcetypeassert // or the test stops
	}
	extended := []int{m.model.extend(token)}
	parts[leasePart] = nil
	again := m.rig.trip(parts)
	if parts[publishPart] != nil && told(again[publishPart]) != told(answers[publishPart]) {
		rt.Fatalf("the same trip published %v, then %v", answers[publishPart], again[publishPart])
	}
	if settled, _ := again[settlePart].([]any); slices.Contains(settled, any(int64(1))) {
		rt.Fatalf("the same trip settled %v, then %v", answers[settlePart], settled)
	}
	if parts[extendPart] != nil && fmt.Sprint(again[extendPart]) != fmt.Sprint(extended) {
		rt.Fatalf("the same trip extended %v, the model %v", again[extendPart], extended)
	}
}

func (m *machine) publishing(rt *rapid.T) doing {
	var events []pub
	var targets [][]Target
	for range rapid.IntRange(1, 3).Draw(rt, "events") {
		e, to := m.event(rt)
		events, targets = append(events, e), append(targets, to)
	}
	m.early, m.earlyBytes = rapid.IntRange(0, 4).Draw(rt, "early"), rapid.IntRange(0, 60).Draw(rt, "early bytes")
	m.calls++
	args := m.publishArgs(m.calls, events...)
	return doing{args, func(answer any) {
		before := len(m.model.deliveries)
		at := &early{most: m.early, bytes: m.earlyBytes}
		var want []string
		for _, words := range m.model.publish(events, targets, at) {
			want = append(want, fmt.Sprint(words))
		}
		if got, want := told(answer), "[0 "+strings.Join(want, " ")+"]"; got != want {
			rt.Fatalf("publish %v\nanswered %s\nthe model %s", events, got, want)
		}
		m.queued += len(m.model.deliveries) - before
		if again := m.publishAs(m.calls, events...); again != told(answer) {
			rt.Fatalf("the same call answered %s, then %s", told(answer), again)
		}
		m.given(rt, at.leased)
	}}
}

// given notes leases, each with a time at which its request starts.
func (m *machine) given(rt *rapid.T, leased []*modelDelivery) {
	for _, d := range leased {
		m.promise(rt, d)
		m.claims = append(m.claims, modelClaim{delivery: d.id, sub: d.sub, token: m.model.token,
			sendAt: m.now + int64(rapid.IntRange(0, leaseMillis).Draw(rt, "send"))})
	}
}

func (m *machine) event(rt *rapid.T) (pub, []Target) {
	e := pub{
		fingerprint: rapid.SampledFrom([]string{"", "", "f", "g"}).Draw(rt, "fingerprint"),
		payload:     strings.Repeat("x", rapid.IntRange(1, 20).Draw(rt, "bytes")),
	}
	if e.fingerprint == "" {
		m.events++
		e.id = "own" + strconv.Itoa(m.events)
	} else {
		e.id = rapid.SampledFrom([]string{"ea", "eb", "ec", "ed", "ee"}).Draw(rt, "id")
	}
	var targets []Target
	for _, id := range append(slices.Clone(subIDs), "s9") {
		if rapid.IntRange(0, 15).Draw(rt, "match "+id) < map[bool]int{true: 1, false: 9}[id == "s9"] {
			m.made++
			delivery := fmt.Sprintf("d%03d", m.made)
			m.order[delivery] = m.made
			targets = append(targets, Target{id, delivery})
			e.targets += " " + id + "/" + delivery
		}
	}
	e.receipt = encodeTargets(targets)
	return e, targets
}

func (m *machine) leasing(rt *rapid.T) doing {
	c := claim{
		most: rapid.IntRange(1, 8).Draw(rt, "most"), bytes: rapid.IntRange(1, 60).Draw(rt, "bytes"),
		share: rapid.IntRange(1, 4).Draw(rt, "share"), expired: rapid.IntRange(1, 9).Draw(rt, "expired"),
	}
	return doing{m.rig.leasing(c), func(answer any) {
		reply := answer.([]any) //nolint:forcetypeassert // or the test stops
		given, expired := m.model.lease(c)
		var want []string
		for _, d := range given {
			want = append(want, d.id, m.model.recordText(d))
		}
		if got, want := fmt.Sprint(reply[4]), fmt.Sprint(want); got != want {
			rt.Fatalf("lease %+v\ngave      %s\nthe model %s", c, got, want)
		}
		if number(reply[3]) != int64(len(expired)) {
			rt.Fatalf("lease took back %v, the model %d", reply[3], len(expired))
		}
		m.checkBodies(rt, given, reply[5].([]any))
		m.requestsOf(expired)
		m.given(rt, given)
	}}
}

func (m *machine) checkBodies(rt *rapid.T, given []*modelDelivery, reply []any) {
	want, got := map[string]string{}, map[string]string{}
	for _, d := range given {
		want[d.payload] = m.model.payloads[d.payload]
	}
	for i := 0; i < len(reply); i += 2 {
		got[text(reply[i])] = text(reply[i+1])
	}
	if diff := cmp.Diff(want, got); diff != "" {
		rt.Fatalf("payloads (-model +lease):\n%s", diff)
	}
}

// promise checks what holds at the moment at which a delivery is given.
func (m *machine) promise(rt *rapid.T, d *modelDelivery) {
	s := m.model.subs[d.sub]
	if n := m.model.inFlight(s); n > s.placesNow() {
		rt.Fatalf("%s has %d in flight, its places are %d", s.id, n, s.placesNow())
	}
	if s.gone || s.paused || !s.active {
		rt.Fatalf("%s of %s was given although that must not run", d.id, s.id)
	}
	if m.began[d.id] {
		return
	}
	m.began[d.id] = true
	for other := range m.began {
		if od := m.model.deliveries[other]; od != nil && od.sub == d.sub && m.order[other] > m.order[d.id] {
			rt.Fatalf("%s began after %s, which was published later", d.id, other)
		}
	}
}

// requestsOf are leases that ran out: whoever held them sent in time.
func (m *machine) requestsOf(expired []*modelDelivery) {
	for _, d := range expired {
		for i, c := range m.claims {
			if c.delivery == d.id && !c.over {
				m.claims[i].over = true
				m.sent[c.sub] = append(m.sent[c.sub], c.sendAt)
			}
		}
	}
}

func (m *machine) settling(rt *rapid.T) doing {
	if len(m.claims) == 0 {
		return doing{}
	}
	var ends []end
	var of []int
	for range rapid.IntRange(1, 3).Draw(rt, "settlements") {
		i := rapid.IntRange(max(0, len(m.claims)-8), len(m.claims)-1).Draw(rt, "claim")
		c := m.claims[i]
		sendAt := min(c.sendAt, m.now)
		ends = append(ends, end{
			// An old token or one that was never given: the next could be that of a newer lease, sent at another time.
			delivery: c.delivery, token: c.token + rapid.SampledFrom([]int{0, 0, 0, 0, 0, -1, 1000}).Draw(rt, "token"),
			result: rapid.SampledFrom([]Result{Done, Retry, Retry, Fail, Release}).Draw(rt, "result"),
			delay:  rapid.SampledFrom([]int{0, 1, 999, 5000, 61_000}).Draw(rt, "delay"), ago: int(m.now - sendAt),
			took: rapid.IntRange(0, 300).Draw(rt, "took"), status: rapid.SampledFrom([]int{0, 200, 500}).Draw(rt, "status"),
			reason:  rapid.SampledFrom([]string{"", "status"}).Draw(rt, "reason"),
			attempt: rapid.SampledFrom([]string{"", "a;", "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb;"}).Draw(rt, "attempt"),
		})
		of = append(of, i)
	}
	return doing{settling(ends...), func(answer any) {
		settled := m.model.settle(ends)
		if got, want := fmt.Sprint(answer), fmt.Sprint(settled); got != want {
			rt.Fatalf("settle %v answered %s, the model %s", ends, got, want)
		}
		for i, yes := range settled {
			if yes == 0 {
				continue
			}
			c := &m.claims[of[i]]
			c.over = true
			if ends[i].result != Release {
				m.sent[c.sub] = append(m.sent[c.sub], m.now-int64(ends[i].ago))
			}
		}
	}}
}

func (m *machine) extending(rt *rapid.T) doing {
	if len(m.claims) == 0 {
		return doing{}
	}
	token := m.claims[rapid.IntRange(max(0, len(m.claims)-8), len(m.claims)-1).Draw(rt, "claim")].token
	return doing{[]any{leaseMillis, token}, func(answer any) {
		if got, want := fmt.Sprint(answer), fmt.Sprint([]int{m.model.extend(token)}); got != want {
			rt.Fatalf("extend answered %s, the model %s", got, want)
		}
	}}
}

func (m *machine) cancel(rt *rapid.T) {
	if rapid.IntRange(0, 3).Draw(rt, "really") > 0 {
		return
	}
	id, most := rapid.SampledFrom(subIDs).Draw(rt, "sub"), rapid.IntRange(1, 4).Draw(rt, "most")
	ended, left := m.model.cancel(id, most)
	if got, want := m.rig.cancel(id, most), fmt.Sprint([]int{ended, left}); got != want {
		rt.Fatalf("cancel answered %s, the model %s", got, want)
	}
}

func (m *machine) file(rt *rapid.T) {
	perSub := rapid.IntRange(1, 5).Draw(rt, "records")
	filed := m.model.file(perSub)
	if got, want := m.rig.file(filing{records: 1000, perSub: perSub}), fmt.Sprintf("[%d 0 0]", filed); got != want {
		rt.Fatalf("file answered %s, the model %s", got, want)
	}
}

func (m *machine) pass(rt *rapid.T) {
	m.now += int64(rapid.SampledFrom([]int{1, 999, 1000, 5000, 19_999, 20_000, 59_000, 60_000}).Draw(rt, "ms"))
	m.model.now = m.now
}

// compare holds the shard to the model and to the promises, after every operation.
func (m *machine) compare(rt *rapid.T) {
	if diff := cmp.Diff(m.model.state(), m.actual()); diff != "" {
		rt.Fatalf("state (-model +redis):\n%s", diff)
	}
	if reply, _ := m.run(auditScript, 1000).([]any); len(reply) != 1 {
		rt.Fatalf("audit found %v", reply)
	}
	for id, times := range m.sent {
		if n := mostIn(times, 60_000); n > m.rates[id] {
			rt.Fatalf("%s got %d requests within 60 s, its rate was never above %d: %v", id, n, m.rates[id], times)
		}
	}
	over := 0
	for _, s := range m.model.subs {
		for _, field := range []string{"ok", "canc"} {
			n, _ := strconv.Atoi(s.counts[field])
			over += n
		}
	}
	ended := int(m.model.totals["ok"] + m.model.totals["failed"] + m.model.totals["canceled"])
	if ended < m.queued-len(m.model.deliveries) || over > ended {
		rt.Fatalf("%d queued, %d wait, %d ended", m.queued, len(m.model.deliveries), ended)
	}
}

// mostIn counts the most times that fall into a window, whose end does not belong to it.
func mostIn(times []int64, window int64) int {
	times = slices.Sorted(slices.Values(times))
	most, first := 0, 0
	for i, at := range times {
		for at-times[first] >= window {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// actual is the shard's state in the form of the model's.
func (m *machine) actual() map[string]string {
	state := m.rig.state()
	var seen, past []string
	for name, content := range maps.Clone(state) {
		plain := strings.TrimSuffix(name, " (ttl)")
		delete(state, name)
		kind, id, _ := strings.Cut(plain, ":")
		switch kind {
		case "rate", "sleepers", "call", "refs", "pasts", "retried": // the audit counts the references and the windows
		case "past":
			past = append(past, strings.Fields(content)...)
		case "ended":
			state[plain] = join(strings.Fields(strings.NewReplacer("[", " ", "]", " ").Replace(content)))
		case "seen":
			seen = append(seen, id+"="+content)
		case "fresh", "tries":
			state[plain] = "[" + content + "]"
		case "sub":
			fields := m.subscription(m.t.Context(), m.keys.prefix+plain)
			for _, field := range []string{"ru", "rh", "rs", "rn"} {
				delete(fields, field)
			}
			state[plain] = hashText(fields)
		case "totals":
			words := strings.Fields(strings.ReplaceAll(content, "=", "@"))
			words = slices.DeleteFunc(words, func(w string) bool { return strings.HasSuffix(w, "@0") })
			state[plain] = join(words)
		default:
			state[plain] = join(strings.Fields(content))
		}
	}
	if len(seen) > 0 {
		state["seen"] = join(seen)
	}
	if len(past) > 0 {
		state["past"] = join(past)
	}
	return state
}
