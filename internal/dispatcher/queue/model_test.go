package queue

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// model is the queue as its contract has it, in plain Go: it counts anew what the scripts keep in counters.
type model struct {
	now        int64
	subs       map[string]*modelSub
	deliveries map[string]*modelDelivery
	payloads   map[string]string
	seen       map[string]pub
	ready      map[string]int64
	dirty      map[string]int64
	urgent     map[string]int64
	version    int64
	token      int
	totals     map[string]int64
	most       int
	bytes      int
	ended      []modelEnd            // not filed yet
	past       map[string]modelEnd   // the history, by delivery
	deferred   *unflushed            // not nil: marks and touches wait for flush
	filed      map[string][]modelEnd // by subscription, those included that have left the history since
}

// modelEnd is a delivery that has ended.
type modelEnd struct {
	id, sub, payload, record, tries, outcome string
	ordinal                                  int // among those of its subscription that have ended, 0 if that is gone
	attempts                                 int
	asked                                    asked
}

func (e modelEnd) bytes() int { return len(e.record) + 1 + len(e.tries) }

type modelSub struct {
	id                              string
	generation, rate, places, limit int
	active, paused, gone, known     bool
	fresh                           []string
	sent                            []int64 // when requests were sent, by the end of their second
	failures                        int
	counts                          map[string]string
	full                            bool
	cancelled                       bool // to its last delivery
}

type modelDelivery struct {
	id, sub, payload string
	attempts         int
	tries            []string // earlier attempts that are kept
	asked            asked
	created          int64
	due              int64  // -1: in fresh or leased
	lease            string // "token:delivery", "" if not leased
	expiry           int64
}

// asked is what somebody asked for a delivery.
type asked struct {
	ever         bool
	base, rounds int
	replay       string
	canceled     bool
}

func (a asked) text() string {
	if !a.ever {
		return ""
	}
	return fmt.Sprintf(":%d:%d:%s:%s", a.base, a.rounds, a.replay, map[bool]string{true: "c"}[a.canceled])
}

func newModel(most, bytes int) *model {
	return &model{
		now: begin, subs: map[string]*modelSub{}, deliveries: map[string]*modelDelivery{}, payloads: map[string]string{},
		seen: map[string]pub{}, ready: map[string]int64{}, dirty: map[string]int64{}, urgent: map[string]int64{},
		totals: map[string]int64{}, most: most, bytes: bytes, past: map[string]modelEnd{}, filed: map[string][]modelEnd{},
	}
}

func (m *model) of(sub string, in func(*modelDelivery) bool) []*modelDelivery {
	var list []*modelDelivery
	for _, d := range m.deliveries {
		if d.sub == sub && in(d) {
			list = append(list, d)
		}
	}
	slices.SortFunc(list, func(a, b *modelDelivery) int {
		return cmp.Or(cmp.Compare(a.due, b.due), cmp.Compare(a.id, b.id))
	})
	return list
}

func isDue(d *modelDelivery) bool    { return d.due >= 0 }
func isLeased(d *modelDelivery) bool { return d.lease != "" }

func (m *model) due(s *modelSub) []*modelDelivery { return m.of(s.id, isDue) }
func (m *model) inFlight(s *modelSub) int         { return len(m.of(s.id, isLeased)) }

func (m *model) used(s *modelSub) int {
	n := 0
	for _, end := range s.sent {
		if end+60_000 > m.now {
			n++
		}
	}
	return n
}

func (s *modelSub) placesNow() int {
	if s.failures >= 3 {
		return 1
	}
	return s.places
}

func (m *model) room(s *modelSub) int {
	return min(s.placesNow()-m.inFlight(s), s.rate-m.used(s)-m.inFlight(s))
}

// runs says when a subscription may next be leased from, -1 if a change of another kind must come first.
func (m *model) runs(s *modelSub) int64 {
	due := m.due(s)
	if s.gone || !s.active || s.paused || len(s.fresh)+len(due) == 0 || m.inFlight(s) >= s.placesNow() {
		return -1
	}
	at := m.now
	if len(s.fresh) == 0 {
		at = max(at, due[0].due)
	}
	if m.used(s)+m.inFlight(s) < s.rate {
		return at
	}
	var counted []int64
	for _, end := range s.sent {
		if end+60_000 > m.now {
			counted = append(counted, end)
		}
	}
	if len(counted) == 0 {
		return -1
	}
	return max(at, slices.Min(counted)+60_000)
}

// unflushed are marks and touches that wait.
type unflushed struct {
	marked, urgent []string
	touched        map[string]bool
}

// flush makes the changes that were deferred.
func (m *model) flush() {
	c := m.deferred
	m.deferred = nil
	m.mark(c.marked, c.urgent)
	m.touch(nil, slices.Collect(maps.Keys(c.touched))...)
}

// touch puts subscriptions into the line or takes them out. Who had a turn starts anew, others only move ahead.
func (m *model) touch(turn map[string]bool, ids ...string) {
	if m.deferred != nil {
		for _, id := range ids {
			m.deferred.touched[id] = true
		}
		return
	}
	for _, id := range ids {
		at := m.runs(m.subs[id])
		old, in := m.ready[id]
		switch {
		case at < 0:
			delete(m.ready, id)
		case turn[id] || !in || at < old:
			m.ready[id] = at
		}
	}
}

func (m *model) mark(changed, urgent []string) {
	if m.deferred != nil {
		m.deferred.marked = append(m.deferred.marked, changed...)
		m.deferred.urgent = append(m.deferred.urgent, urgent...)
		return
	}
	if len(changed) == 0 {
		return
	}
	m.version++
	for _, id := range changed {
		m.subs[id].counts["ver"] = strconv.FormatInt(m.version, 10)
		if _, ok := m.dirty[id]; !ok {
			m.dirty[id] = m.version
		}
	}
	for _, id := range urgent {
		m.urgent[id] = m.version
	}
}

func (s *modelSub) add(field string, n int) {
	old, _ := strconv.Atoi(s.counts[field])
	s.counts[field] = strconv.Itoa(old + n)
}

// ends is how many of the subscription's deliveries have ended.
func (s *modelSub) ends() (n int) {
	for _, field := range []string{"ok", "fail", "canc"} {
		count, _ := strconv.Atoi(s.counts[field])
		n += count
	}
	return n
}

func (m *model) configure(id string, generation, rate, places, limit int, active, paused bool) int {
	s := m.subs[id]
	if s == nil {
		s = &modelSub{id: id, counts: map[string]string{}}
		m.subs[id] = s
	}
	wanted := modelSub{generation: generation, rate: rate, places: places, limit: limit, active: active, paused: paused}
	is := modelSub{generation: s.generation, rate: s.rate, places: s.places, limit: s.limit, active: s.active, paused: s.paused}
	switch {
	case s.gone:
		return 3
	case generation < s.generation:
		return 2
	case s.known && fmt.Sprint(wanted) == fmt.Sprint(is):
		return 0
	}
	s.known, s.generation, s.rate, s.places, s.limit = true, generation, rate, places, limit
	s.active, s.paused = active, paused
	m.touch(nil, id)
	return 1
}

// storedBytes are those of the payloads of unfinished deliveries, keptBytes those of the history and of payloads that it
// alone needs.
func (m *model) storedBytes() (n int) {
	for name := range m.unfinished() {
		n += len(m.payloads[name])
	}
	return n
}

func (m *model) keptBytes() (n int) {
	unfinished := m.unfinished()
	for name, payload := range m.payloads {
		if !unfinished[name] {
			n += len(payload)
		}
	}
	for _, e := range m.past {
		n += e.bytes()
	}
	return n
}

func (m *model) triesBytes() (n int) {
	for _, d := range m.deliveries {
		n += len(strings.Join(d.tries, ""))
	}
	return n
}

// unfinished are the payloads of unfinished deliveries.
func (m *model) unfinished() map[string]bool {
	names := map[string]bool{}
	for _, d := range m.deliveries {
		names[d.payload] = true
	}
	return names
}

// early is what publish may lease at once, and what it leased.
type early struct {
	most, bytes int
	token       bool // taken
	place       int  // of the next target
	leased      []*modelDelivery
	places      []string
}

// line is who may run, longest waiting first.
func (m *model) line() []string {
	var line []string
	for id, at := range m.ready {
		if at <= m.now {
			line = append(line, id)
		}
	}
	sort.Slice(line, func(i, j int) bool {
		a, b := m.ready[line[i]], m.ready[line[j]]
		return a < b || a == b && line[i] < line[j]
	})
	return line
}

// lease gives a new delivery at once if nothing waits, neither of its subscription nor another's turn.
func (e *early) lease(m *model, s *modelSub, d *modelDelivery, fits bool) bool {
	if !fits || len(e.leased) >= e.most || len(m.line()) > 0 || len(s.fresh)+len(m.due(s)) > 0 || !s.active || s.paused {
		return false
	}
	if !e.token {
		e.token = true
		m.token++
	}
	if m.room(s) <= 0 {
		return false
	}
	d.lease, d.expiry = fmt.Sprintf("%d:%s", m.token, d.id), m.now+leaseMillis
	e.leased = append(e.leased, d)
	return true
}

func (m *model) publish(events []pub, targets [][]Target, e *early) [][]string {
	var answers [][]string
	before := map[string]bool{}
	full, queued, touched := map[string]int{}, map[string]bool{}, map[string]bool{}
	for id, s := range m.subs {
		before[id] = s.full
	}
	for i, event := range events {
		answers = append(answers, m.publishOne(event, targets[i], e, full, queued, touched))
		e.place += len(targets[i])
	}
	if len(e.leased) > 0 {
		answers = append(answers, append([]string{strconv.Itoa(m.token), strconv.FormatInt(m.now, 10)}, e.places...))
	}
	var changed, urgent []string
	for id := range touched {
		s := m.subs[id]
		if full[id] > 0 || queued[id] {
			s.full = full[id] > 0
			changed = append(changed, id)
			if s.full != before[id] {
				urgent = append(urgent, id)
			}
		}
	}
	m.mark(changed, urgent)
	for id := range touched {
		m.touch(nil, id)
	}
	return answers
}

func (m *model) fits(deliveries, bytes int) bool {
	return len(m.deliveries)+deliveries <= m.most && m.storedBytes()+bytes <= m.bytes
}

func (m *model) publishOne(
	e pub, targets []Target, at *early, full map[string]int, queued, touched map[string]bool,
) []string {
	if first, ok := m.seen[e.id]; ok && e.fingerprint != "" {
		if first.fingerprint != e.fingerprint {
			return []string{"2"}
		}
		return []string{"1", first.receipt}
	}
	unknown := []string{"4"}
	for _, t := range targets {
		if s := m.subs[t.SubscriptionID]; s == nil {
			unknown = append(unknown, t.SubscriptionID)
		} else {
			touched[s.id] = true
		}
	}
	if len(unknown) > 1 {
		return unknown
	}
	if len(targets) > 0 && !m.fits(len(targets), len(e.payload)) {
		return []string{"3"}
	}
	answer, name := []string{"0"}, e.id
	if e.fingerprint != "" {
		m.seen[e.id] = e
		name += "#" + strconv.FormatInt(m.now, 10)
	}
	m.totals["events"]++
	fits, leased := len(e.payload) <= at.bytes, len(at.leased)
	for i, t := range targets {
		s := m.subs[t.SubscriptionID]
		switch {
		case s.gone:
			m.totals["canceled"]++
			m.record(&modelDelivery{id: t.DeliveryID, sub: s.id, payload: name}, e.payload, "c", 0, gone, "")
		case len(m.of(s.id, func(*modelDelivery) bool { return true })) >= s.limit:
			m.totals["failed"]++
			full[s.id]++
			s.add("fail", 1)
			m.record(&modelDelivery{id: t.DeliveryID, sub: s.id, payload: name}, e.payload, "f", 0, "backlog_full", "")
			answer = append(answer, s.id)
		default:
			d := &modelDelivery{id: t.DeliveryID, sub: s.id, payload: name, created: m.now, due: -1}
			m.deliveries[d.id] = d
			m.payloads[name] = e.payload
			queued[s.id] = true
			if at.lease(m, s, d, fits) {
				at.places = append(at.places, strconv.Itoa(at.place+i))
				continue
			}
			s.fresh = append(s.fresh, d.id)
		}
	}
	if len(at.leased) > leased {
		at.bytes -= len(e.payload)
	}
	return answer
}

const gone, canceled = "subscription_deleted", "canceled"

// end takes a delivery out of the queue.
func (m *model) end(id, outcome string, attempts int, reason, attempt string) {
	d := m.deliveries[id]
	delete(m.deliveries, id)
	m.record(d, m.payloads[d.payload], outcome, attempts, reason, attempt)
}

// record notes that a delivery has ended, for the history.
func (m *model) record(d *modelDelivery, payload, outcome string, attempts int, reason, attempt string) {
	m.payloads[d.payload] = payload
	ordinal := 0
	if s := m.subs[d.sub]; !s.gone {
		ordinal = s.ends()
	}
	m.ended = append(m.ended, modelEnd{
		ordinal: ordinal, id: d.id, sub: d.sub, payload: d.payload, outcome: outcome, attempts: attempts, asked: d.asked, tries: strings.Join(d.tries, "") + attempt,
		record: fmt.Sprintf("%d|%s|%d%s|%d|%s|n|%s|%s|%s", m.now, outcome, attempts, d.asked.text(), len(payload), reason, d.sub, typeOf(payload),
			d.payload),
	})
}

func typeOf(payload string) string {
	name, _, _ := strings.Cut(payload, "\n")
	return name
}

// file brings what has ended into the history, but for what its subscription's later ones would push out.
func (m *model) file(perSub int) (filed int) {
	touched := map[string]bool{}
	for _, e := range m.ended {
		if e.ordinal > 0 && m.subs[e.sub].ends()-e.ordinal >= perSub {
			continue
		}
		filed++
		m.past[e.id] = e
		m.filed[e.sub] = append(m.filed[e.sub], e)
		touched[e.sub] = true
	}
	m.ended = nil
	for sub := range touched {
		for len(m.filed[sub]) > perSub {
			delete(m.past, m.filed[sub][0].id)
			m.filed[sub] = m.filed[sub][1:]
		}
	}
	m.forgetPayloads()
	return filed
}

// forgetPayloads drops those that neither an unfinished delivery nor a record needs.
func (m *model) forgetPayloads() {
	needed := m.unfinished()
	for _, e := range m.ended {
		needed[e.payload] = true
	}
	for _, e := range m.past {
		needed[e.payload] = true
	}
	maps.DeleteFunc(m.payloads, func(name, _ string) bool { return !needed[name] })
}

// putBack lets deliveries wait again: first attempts at the head in their order, later ones at once.
func (m *model) putBack(list []*modelDelivery) {
	heads := map[string][]string{}
	for _, d := range list {
		d.lease, d.expiry, d.due = "", 0, -1
		if d.attempts > 0 {
			d.due = m.now
			continue
		}
		heads[d.sub] = append(heads[d.sub], d.id)
	}
	for sub, ids := range heads {
		m.subs[sub].fresh = append(ids, m.subs[sub].fresh...)
	}
}

func secondOf(ms int64) int64 { return (ms/1000 + 1) * 1000 }

func (m *model) reclaim(most int) (expired []*modelDelivery) {
	for _, d := range m.deliveries {
		if d.lease != "" && d.expiry <= m.now {
			expired = append(expired, d)
		}
	}
	slices.SortFunc(expired, func(a, b *modelDelivery) int {
		return cmp.Or(cmp.Compare(a.expiry, b.expiry), cmp.Compare(a.lease, b.lease))
	})
	expired = expired[:min(most, len(expired))]
	var back []*modelDelivery
	var loud []string
	for _, d := range slices.Backward(expired) { // what ends goes into the history in this order
		s := m.subs[d.sub]
		if s.gone {
			m.totals["canceled"]++
			m.end(d.id, "c", d.attempts, map[bool]string{true: canceled, false: gone}[d.asked.canceled], "")
			continue
		}
		s.sent = append(s.sent, secondOf(m.now))
		if d.asked.canceled {
			s.add("canc", 1)
			m.totals["canceled"]++
			m.end(d.id, "c", d.attempts, canceled, "")
			loud = append(loud, s.id)
			continue
		}
		back = append(back, d)
	}
	m.mark(loud, nil)
	slices.Reverse(back)
	m.putBack(back)
	return expired
}

// lease gives the deliveries in order, and those that were taken back.
func (m *model) lease(c claim) (given, expired []*modelDelivery) {
	expired = m.reclaim(c.expired)
	touched, turn := map[string]bool{}, map[string]bool{}
	for _, d := range expired {
		touched[d.sub] = true
	}
	line := m.line()
	line = line[:min(len(line), c.most)]
	var picked []*modelDelivery
	for _, id := range line {
		touched[id] = true
		mine := m.pick(m.subs[id], min(m.share(c, len(line)), c.most-len(picked)))
		turn[id] = len(mine) == 0
		if picked = append(picked, mine...); len(picked) >= c.most {
			break
		}
	}
	if len(picked) > 0 {
		m.token++
	}
	given = m.claim(picked, c.bytes, turn)
	for id := range touched {
		m.touch(turn, id)
	}
	return given, expired
}

func (m *model) share(c claim, subs int) int { return max(c.share, (c.most+subs-1)/subs) }

func (m *model) pick(s *modelSub, most int) []*modelDelivery {
	n := min(most, m.room(s))
	var picked []*modelDelivery
	for _, d := range m.due(s) {
		if len(picked) < n && d.due <= m.now {
			picked = append(picked, d)
		}
	}
	for len(picked) < n && len(s.fresh) > 0 {
		picked = append(picked, m.deliveries[s.fresh[0]])
		s.fresh = s.fresh[1:]
	}
	for _, d := range picked {
		d.due, d.lease = -1, "picked"
	}
	return picked
}

func (m *model) claim(picked []*modelDelivery, most int, turn map[string]bool) (given []*modelDelivery) {
	bytes, bodies := 0, map[string]bool{}
	for i, d := range picked {
		if !bodies[d.payload] {
			bytes += len(m.payloads[d.payload])
		}
		if bytes > most && i > 0 {
			m.putBack(picked[i:])
			break
		}
		bodies[d.payload] = true
		d.lease, d.expiry = fmt.Sprintf("%d:%s", m.token, d.id), m.now+leaseMillis
		turn[d.sub] = true
		given = append(given, d)
	}
	return given
}
