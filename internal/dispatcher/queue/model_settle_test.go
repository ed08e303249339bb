package queue

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

func (m *model) settle(ends []end) []int {
	answers := make([]int, len(ends))
	stats := map[string]*modelStats{}
	touched := map[string]bool{}
	var heads []*modelDelivery
	var loud []string // changed without an attempt
	for i, e := range ends {
		d := m.deliveries[e.delivery]
		if d == nil || d.lease != fmt.Sprintf("%d:%s", e.token, e.delivery) {
			continue
		}
		answers[i] = 1
		s := m.subs[d.sub]
		touched[s.id] = true
		d.lease, d.expiry = "", 0
		if s.gone {
			m.totals[map[Result]string{Done: "ok", Fail: "failed"}[e.result]]++
			m.endGone(d, e)
			continue
		}
		if e.result == Release && d.asked.canceled {
			m.quit(s, d, d.attempts, e.attempt)
			loud = append(loud, s.id)
			continue
		}
		if e.result == Release {
			if d.attempts == 0 && e.delay == 0 {
				heads = append(heads, d)
			} else {
				d.due = m.now + int64(e.delay)
			}
			continue
		}
		if stats[s.id] == nil {
			stats[s.id] = &modelStats{failures: s.failures, ok: s.counts["ok"]}
		}
		stats[s.id].last = e
		m.attempted(s, d, e)
	}
	m.totals["canceled"] += m.totals[""]
	delete(m.totals, "")
	m.putBack(heads)
	m.note(stats, loud)
	for id := range touched {
		m.touch(nil, id)
	}
	return answers
}

// quit ends a delivery that was cancelled while it was in flight.
func (m *model) quit(s *modelSub, d *modelDelivery, attempts int, attempt string) {
	s.add("canc", 1)
	m.totals["canceled"]++
	m.end(d.id, "c", attempts, canceled, attempt)
}

// endGone ends an attempt of a subscription that is gone.
func (m *model) endGone(d *modelDelivery, e end) {
	attempts, reason := d.attempts+1, gone
	switch e.result {
	case Done, Fail:
		reason = e.reason
	case Release:
		attempts = d.attempts
	case Retry:
	}
	m.end(d.id, map[Result]string{Done: "s", Fail: "f", Retry: "c", Release: "c"}[e.result], attempts, reason, e.attempt)
}

type modelStats struct {
	failures int    // before
	ok       string // before
	last     end
}

func (m *model) attempted(s *modelSub, d *modelDelivery, e end) {
	s.sent = append(s.sent, secondOf(m.now-int64(e.ago)))
	if e.status != 0 {
		s.add("lsum", e.took)
		s.add("lcnt", 1)
		m.totals["lsum"] += int64(e.took)
		m.totals["lcnt"]++
	}
	s.failures++
	switch e.result {
	case Done:
		s.failures = 0
		s.add("ok", 1)
		s.counts["lok"] = strconv.FormatInt(m.now, 10)
		m.totals["ok"]++
		m.end(d.id, "s", d.attempts+1, e.reason, e.attempt)
	case Fail:
		s.add("fail", 1)
		m.totals["failed"]++
		m.end(d.id, "f", d.attempts+1, e.reason, e.attempt)
	case Retry:
		if d.asked.canceled {
			m.quit(s, d, d.attempts+1, e.attempt)
			return
		}
		d.attempts++
		m.keepTry(d, e.attempt)
		d.due = m.now + int64(e.delay)
	case Release:
	}
}

// keepTry keeps an attempt of a delivery that goes on, if there is room, and of each the latest ones.
func (m *model) keepTry(d *modelDelivery, attempt string) {
	if attempt == "" || m.triesBytes()+len(attempt) > mostTriesBytes {
		return
	}
	d.tries = append(d.tries, attempt)
	d.tries = d.tries[max(0, len(d.tries)-mostTries):]
}

func (m *model) note(stats map[string]*modelStats, also []string) {
	var urgent []string
	for id, before := range stats {
		s := m.subs[id]
		s.counts["lat"] = strconv.FormatInt(m.now, 10)
		s.counts["lst"], s.counts["lrs"], s.counts["ler"] = strconv.Itoa(before.last.status), before.last.reason,
			before.last.errorText
		if health(before.failures) != health(s.failures) || before.ok == "" && s.counts["ok"] != "" {
			urgent = append(urgent, id)
		}
	}
	m.mark(append(slices.Collect(maps.Keys(stats)), also...), urgent)
}

// health has three levels: no failure since the last success, some, three or more.
func health(failures int) int {
	switch {
	case failures == 0:
		return 0
	case failures < 3:
		return 1
	default:
		return 2
	}
}

func (m *model) extend(token int) (prolonged int) {
	for _, d := range m.deliveries {
		if d.lease == fmt.Sprintf("%d:%s", token, d.id) {
			d.expiry, prolonged = m.now+leaseMillis, 1
		}
	}
	return prolonged
}

func (m *model) cancel(id string, most int) (ended, left int) {
	s := m.subs[id]
	if s == nil {
		return 0, 0
	}
	s.gone = true
	for ; ended < most && len(s.fresh) > 0; ended++ {
		m.end(s.fresh[0], "c", 0, gone, "")
		s.fresh = s.fresh[1:]
	}
	for _, d := range m.due(s) {
		if ended == most {
			break
		}
		m.end(d.id, "c", d.attempts, gone, "")
		ended++
	}
	if ended > 0 {
		s.add("canc", ended)
		m.totals["canceled"] += int64(ended)
	}
	left = len(s.fresh) + len(m.due(s))
	if left == 0 {
		s.cancelled = true
		s.sent = nil
		delete(m.dirty, id)
		delete(m.urgent, id)
	}
	m.touch(nil, id)
	return ended, left
}

// state is what the shard should hold, in the form of rig.state without what no promise rests on: the windows' sums
// (the audit compares those), the sleepers and the last call.
func (m *model) state() map[string]string {
	state := map[string]string{}
	put := func(name string, words []string) {
		if len(words) > 0 {
			state[name] = join(words)
		}
	}
	var records, payloads, leases, subs, seen []string
	for _, d := range m.deliveries {
		records = append(records, d.id+"="+m.recordText(d))
		if len(d.tries) > 0 {
			state["tries:"+d.id] = fmt.Sprint(d.tries)
		}
		if d.lease != "" {
			leases = append(leases, fmt.Sprintf("%s@%d", d.lease, d.expiry))
		}
	}
	for name, payload := range m.payloads {
		payloads = append(payloads, name+"="+payload)
	}
	for id, e := range m.seen {
		seen = append(seen, fmt.Sprintf("%s=%s|%s", id, e.fingerprint, e.receipt))
	}
	for id, s := range m.subs {
		if !s.cancelled {
			subs = append(subs, id)
		}
		var due []string
		for _, d := range m.due(s) {
			due = append(due, fmt.Sprintf("%s@%d", d.id, d.due))
		}
		if len(s.fresh) > 0 {
			state["fresh:"+id] = fmt.Sprint(s.fresh)
		}
		put("due:"+id, due)
		state["sub:"+id] = m.subText(s)
	}
	put("deliveries", records)
	m.historyState(put)
	put("payloads", payloads)
	put("leases", leases)
	put("subs", subs)
	put("seen", seen)
	put("ready", scores(m.ready))
	put("dirty", scores(m.dirty))
	put("urgent", scores(m.urgent))
	totals := maps.Clone(m.totals)
	totals["kept"], totals["tries"] = int64(m.keptBytes()), int64(m.triesBytes())
	totals["bytes"], totals["version"], totals["token"] = int64(m.storedBytes()), m.version, int64(m.token)
	for _, d := range m.deliveries {
		totals["retrying"] += int64(min(d.attempts, 1))
	}
	maps.DeleteFunc(totals, func(_ string, n int64) bool { return n == 0 })
	put("totals", scores(totals))
	return state
}

// recordText is a delivery's record in the queue.
func (m *model) recordText(d *modelDelivery) string {
	payload := m.payloads[d.payload]
	return fmt.Sprintf("%s|%d%s|%d|%d|%s|%s", d.sub, d.attempts, d.asked.text(), d.created, len(payload), typeOf(payload), d.payload)
}

// historyState adds what has ended: the entries of the stream in no order, the records, and what was filed.
func (m *model) historyState(put func(string, []string)) {
	var ended, past []string
	for _, e := range m.ended {
		ended = append(ended, strings.Fields(ordinalText(e.ordinal)+e.id+"="+e.record+" "+e.tries)...)
	}
	for _, e := range m.past {
		past = append(past, strings.Fields(e.id+"="+e.record+" "+e.tries)...)
	}
	put("ended", ended)
	put("past", past)
	for sub, list := range m.filed {
		var ids []string
		for _, e := range list {
			ids = append(ids, e.id)
		}
		put("hist:"+sub, ids)
	}
}

func ordinalText(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n) + ":"
}

func scores(m map[string]int64) []string {
	var words []string
	for id, score := range m {
		words = append(words, fmt.Sprintf("%s@%d", id, score))
	}
	return words
}

func join(words []string) string {
	slices.Sort(words)
	return fmt.Sprint(words)
}

// subText gives a subscription's hash in the form of rig.state, without the rate window.
func (m *model) subText(s *modelSub) string {
	fields := maps.Clone(s.counts)
	retrying := len(m.of(s.id, func(d *modelDelivery) bool { return d.attempts > 0 }))
	if s.gone {
		fields["gone"] = "1"
	}
	for name, n := range map[string]int{
		"gen": s.generation, "rate": s.rate, "cap": s.places, "max": s.limit, "act": flag(s.active), "pau": flag(s.paused),
		"fr": len(s.fresh), "du": len(m.due(s)), "inf": m.inFlight(s), "cf": s.failures, "rtry": retrying,
		"full": flag(s.full),
	} {
		fields[name] = strconv.Itoa(n)
	}
	return hashText(fields)
}
