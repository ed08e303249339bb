package queue

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"pgregory.net/rapid"
)

// retry is what somebody asks for: it answers as the script does.
func (m *model) retry(id, replay string) []string {
	if d := m.deliveries[id]; d != nil {
		return m.hurry(d)
	}
	e, known := m.past[id]
	if !known {
		return []string{"2"}
	}
	s := m.subs[e.sub]
	payload, bytes := m.payloads[e.payload], m.storedBytes()
	if !m.unfinished()[e.payload] {
		bytes += len(payload)
	}
	all := len(m.of(s.id, func(*modelDelivery) bool { return true }))
	if s.gone || all >= s.limit || len(m.deliveries) >= m.most || bytes > m.bytes {
		return []string{"3"}
	}
	d := &modelDelivery{id: id, sub: s.id, payload: e.payload, created: m.now, due: -1, attempts: e.attempts}
	if e.outcome == "s" {
		d.id, d.attempts, d.asked = replay, 0, asked{ever: true, replay: id}
	} else {
		m.takeBack(d, e)
	}
	m.deliveries[d.id] = d
	if d.attempts > 0 {
		d.due = m.now
	} else {
		s.fresh = append(s.fresh, d.id)
	}
	m.mark([]string{s.id}, nil)
	m.touch(nil, s.id)
	return []string{"0", d.id}
}

// hurry makes one that waits due at once.
func (m *model) hurry(d *modelDelivery) []string {
	s := m.subs[d.sub]
	switch {
	case s.gone:
		return []string{"3"}
	case d.due >= 0:
		d.due = m.now
		d.asked.ever, d.asked.base, d.asked.canceled = true, d.attempts, false
		m.touch(nil, s.id)
	case d.lease != "":
		return []string{"1"}
	}
	return []string{"0", d.id}
}

// takeBack moves a record from the history into the queue.
func (m *model) takeBack(d *modelDelivery, e modelEnd) {
	d.asked = asked{ever: true, base: e.attempts, rounds: e.asked.rounds + 1, replay: e.asked.replay}
	if e.tries != "" && e.attempts > 0 {
		d.tries = []string{e.tries}
	}
	delete(m.past, e.id)
	for i, filed := range m.filed[e.sub] {
		if filed.id == e.id {
			m.filed[e.sub] = slices.Delete(m.filed[e.sub], i, i+1)
			break
		}
	}
}

// endOne cancels one delivery.
func (m *model) endOne(id string) []string {
	d := m.deliveries[id]
	if d == nil {
		return []string{"2"}
	}
	if d.lease != "" {
		d.asked.ever, d.asked.canceled = true, true
		return []string{"1"}
	}
	s := m.subs[d.sub]
	s.fresh = slices.DeleteFunc(s.fresh, func(other string) bool { return other == id })
	m.quit(s, d, d.attempts, "")
	m.mark([]string{s.id}, nil)
	m.touch(nil, s.id)
	return []string{"0"}
}

// some draws a delivery that was ever made.
func (m *machine) some(rt *rapid.T) string {
	return fmt.Sprintf("d%03d", rapid.IntRange(max(1, m.made-20), m.made+1).Draw(rt, "delivery"))
}

func (m *machine) retry(rt *rapid.T) {
	id := m.some(rt)
	m.made++
	replay := fmt.Sprintf("d%03d", m.made)
	m.order[replay] = m.made
	before := len(m.model.deliveries)
	_, ended := m.model.past[id]
	want := fmt.Sprint(m.model.retry(id, replay))
	m.queued += len(m.model.deliveries) - before
	if got := m.rig.retry(id, replay); got != want {
		rt.Fatalf("retry %s answered %s, the model %s", id, got, want)
	}
	if strings.HasPrefix(want, "[0 ") {
		m.retries[replay] = [2]string{id, want}
	}
	// One that was never tried stands behind what was published before; the others go first, as retries do.
	if d := m.model.deliveries[id]; ended && d != nil && d.attempts == 0 {
		m.order[id] = m.made
		delete(m.began, id)
	}
}

// retryAgain repeats an earlier call, whose answer may have got lost: nothing changes.
func (m *machine) retryAgain(rt *rapid.T) {
	if len(m.retries) == 0 {
		return
	}
	replay := rapid.SampledFrom(slices.Sorted(maps.Keys(m.retries))).Draw(rt, "retry")
	earlier := m.retries[replay]
	if again := m.rig.retry(earlier[0], replay); again != earlier[1] {
		rt.Fatalf("the same retry of %s answered %s, then %s", earlier[0], earlier[1], again)
	}
}

func (m *machine) end(rt *rapid.T) {
	id := m.some(rt)
	want := fmt.Sprint(m.model.endOne(id))
	if got := m.rig.end(id); got != want {
		rt.Fatalf("end %s answered %s, the model %s", id, got, want)
	}
}
