package queue

import (
	"strconv"
	"strings"
	"time"
)

func (s *shard) leaseArgs(room reservation, started time.Time) []any {
	return []any{
		room.deliveries, room.bytes, milliseconds(s.q.LeaseTime), fairShare, maxLease, s.q.Dispatcher,
		milliseconds(maxSleep), s.redisTime.at(started.Add(s.q.patience)),
	}
}

// leased hands what came to the consumer and returns how long the shard may sleep, and whether it lacks room.
func (s *shard) leased(p *part, started time.Time, room reservation) (sleep time.Duration, hungry bool) {
	if p.err != nil {
		return s.failed(p.err), false
	}
	s.recovered()
	leases := s.parseLeases(p.reply, started)
	s.take(leases, started)
	s.q.metrics.expired.Add(float64(number(p.reply[3])))
	wait := maxSleep
	if wake := number(p.reply[2]); wake >= 0 {
		wait = time.Duration(wake-number(p.reply[1])) * time.Millisecond
	}
	return s.pause(wait, len(leases), room.deliveries)
}

// redisTime is what is known of Redis' clock: what it told, and when that came. The zero one knows nothing.
type redisTime struct {
	told int64 // ms
	came time.Time
}

// at is what Redis' clock shows (ms) at a time of ours, or less, by what the answer was under way; 0: nobody knows.
// One that is too low costs a round trip that leases nothing, and tells the time anew.
func (c redisTime) at(t time.Time) int64 {
	if c.told == 0 {
		return 0
	}
	return c.told + t.Sub(c.came).Milliseconds()
}

// take hands the leases of one call to the consumer.
func (s *shard) take(leases []Lease, started time.Time) {
	if len(leases) == 0 {
		return
	}
	h := &holding{since: started, left: len(leases)}
	for i := range leases {
		leases[i].holding = h
	}
	s.held[leases[0].Token] = h
	s.q.consumer.Take(leases)
}

// parseLeases reads {token, now, wake, expired, {id, record...}, {event, payload...}}.
func (s *shard) parseLeases(reply []any, started time.Time) []Lease {
	given, _ := reply[4].([]any)
	if len(given) == 0 {
		return nil
	}
	payloads, _ := reply[5].([]any)
	type payload struct {
		eventType string
		body      []byte
	}
	bodies := make(map[string]payload, len(payloads)/2)
	for i := 0; i+1 < len(payloads); i += 2 {
		eventType, body, _ := strings.Cut(text(payloads[i+1]), "\n")
		bodies[text(payloads[i])] = payload{eventType, []byte(body)}
	}
	leases := make([]Lease, 0, len(given)/2)
	for i := 0; i+1 < len(given); i += 2 {
		l := parseRecord(text(given[i+1]))
		p := bodies[l.EventID]
		l.EventID, _, _ = strings.Cut(l.EventID, "#")
		l.DeliveryID, l.EventType, l.Body = text(given[i]), p.eventType, p.body
		l.Token, l.Deadline, l.shard = number(reply[0]), started.Add(s.q.LeaseTime), s.index
		leases = append(leases, l)
	}
	return leases
}

// parseRecord reads a delivery's record as scripts/lib.lua has it.
func parseRecord(record string) Lease {
	sub, attempts, _, created, _, key := splitRecord(record)
	at, _ := strconv.ParseInt(created, 10, 64)
	base := 0
	if more := strings.SplitN(record[len(sub):], ":", 3); len(more) == 3 && strings.Count(more[0], "|") == 1 {
		base, _ = strconv.Atoi(more[1])
	}
	return Lease{SubscriptionID: sub, Attempt: attempts + 1, Base: base, CreatedAt: time.UnixMilli(at), EventID: key}
}

// number reads an integer of a script's answer; Redis gives large sums as text.
func number(v any) int64 {
	switch v := v.(type) {
	case int64:
		return v
	case string:
		n, _ := strconv.ParseFloat(v, 64)
		return int64(n)
	default:
		return 0
	}
}

func texts(list []any) []string {
	var all []string
	for _, v := range list {
		all = append(all, text(v))
	}
	return all
}

func text(v any) string {
	s, _ := v.(string)
	return s
}
