package queue

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// publishCall is the part of a Publication that one shard takes in one step.
type publishCall struct {
	id          string // of the event, with that of a delivery behind it in all steps but the first
	fingerprint string
	receipt     string // the whole receipt, kept by the first part
	eventType   string
	payload     []byte // type, a newline, body; the leases of its deliveries share it
	further     bool   // the first part is queued: this one belongs to it and is not refused for want of room
	whole       int    // deliveries of the event in all its parts, for which the first must find room
	targets     []Target

	attempted bool // it was configured and sent again once
	done      chan struct{}
	outcome   Outcome
	earlier   string // the receipt of the first time
	full      []string
	unknown   []string // subscriptions that Redis does not know
	err       error
}

// Publish queues events with their deliveries and returns once Redis has them, a receipt for each in order. Calls that
// arrive together share a round trip.
//
// An event of up to 500 matches in one shard is queued in one step: wholly or not at all. A larger one takes several,
// and takes turns with others'. The error (it wraps ErrUnavailable) says that some events are Unqueued; the receipts of
// the others hold all the same.
func (q *Queue) Publish(ctx context.Context, publications []Publication) ([]Receipt, error) {
	receipts := make([]Receipt, len(publications))
	firsts, sound := make([]*publishCall, len(publications)), make([]*publishCall, 0, len(publications))
	for i := range publications {
		firsts[i] = q.firstPart(&publications[i])
		if err := q.doubtful(&publications[i]); err != nil {
			firsts[i].end(err)
			continue
		}
		sound = append(sound, firsts[i])
	}
	q.enqueue(sound)
	var trouble error
	parts := make([][]*publishCall, len(publications))
	for i := range publications {
		p, call := &publications[i], firsts[i]
		patience := ctx
		if !q.isWhole(p.Targets) {
			// Whoever goes away now must not leave an event behind that is queued in part: Redis answers soon, or not.
			patience = context.WithoutCancel(ctx)
		}
		if err := call.wait(patience); err != nil {
			receipts[i], trouble = Receipt{Outcome: Unqueued}, fmt.Errorf("publish event %s: %w", p.EventID, err)
			continue
		}
		receipts[i] = call.answer(p.Targets)
		parts[i] = q.furtherParts(p, call, receipts[i])
		q.enqueue(parts[i])
	}
	for i, calls := range parts {
		for _, call := range calls {
			if err := call.wait(ctx); err != nil {
				receipts[i], trouble = Receipt{Outcome: Unqueued}, fmt.Errorf("publish event %s: %w", call.id, err)
				break
			}
			receipts[i].BacklogFull = append(receipts[i].BacklogFull, call.full...)
		}
	}
	return receipts, trouble
}

// home is the shard that knows whether an event was seen: by its id alone, whatever it matches.
func (q *Queue) home(p *Publication) int {
	if p.Fingerprint == "" && len(p.Targets) > 0 {
		return shardOf(p.Targets[0].SubscriptionID, len(q.shards))
	}
	return shardOf(p.EventID, len(q.shards))
}

// firstPart goes to the event's home shard and decides whether it was seen before.
func (q *Queue) firstPart(p *Publication) *publishCall {
	call := &publishCall{
		id: p.EventID, fingerprint: p.Fingerprint, eventType: p.EventType, payload: payloadOf(p), whole: len(p.Targets),
		done: make(chan struct{}),
	}
	if q.isWhole(p.Targets) {
		call.targets = p.Targets
	} else if own := q.split(p.Targets)[q.home(p)]; len(own) > 0 {
		call.targets = own[0]
	}
	if p.Fingerprint != "" {
		call.receipt = encodeTargets(p.Targets)
	}
	return call
}

func payloadOf(p *Publication) []byte {
	payload := make([]byte, 0, len(p.EventType)+1+len(p.Body))
	payload = append(payload, p.EventType...)
	payload = append(payload, '\n')
	return append(payload, p.Body...)
}

// furtherParts are the others. After a duplicate they are sent again with the deliveries of the first time, since the
// dispatcher may have died between them. Each is itself queued once: it is known by a delivery of its own, which the
// same event gets again only while its first part is remembered.
func (q *Queue) furtherParts(p *Publication, first *publishCall, r Receipt) []*publishCall {
	if r.Outcome == Conflict || r.Outcome == Full || q.isWhole(r.Targets) {
		return nil
	}
	var calls []*publishCall
	for index, groups := range q.split(r.Targets) {
		for n, group := range groups {
			if index == q.home(p) && n == 0 {
				continue
			}
			calls = append(calls, &publishCall{
				id: p.EventID + "#" + group[0].DeliveryID, fingerprint: p.Fingerprint, eventType: p.EventType,
				payload: first.payload, further: true, targets: group, done: make(chan struct{}),
			})
		}
	}
	return calls
}

// isWhole tells whether one step may hold all of these.
func (q *Queue) isWhole(targets []Target) bool {
	return len(q.shards) == 1 && len(targets) <= maxTargets
}

// split groups targets by shard, in groups that one step may hold.
func (q *Queue) split(targets []Target) map[int][][]Target {
	parts := map[int][][]Target{}
	for _, t := range targets {
		index := shardOf(t.SubscriptionID, len(q.shards))
		groups := parts[index]
		if len(groups) == 0 || len(groups[len(groups)-1]) == maxTargets {
			groups = append(groups, nil)
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], t)
		parts[index] = groups
	}
	return parts
}

func (q *Queue) enqueue(calls []*publishCall) {
	kicked := map[*shard]bool{}
	for _, call := range calls {
		index := shardOf(call.id, len(q.shards))
		if len(call.targets) > 0 {
			index = shardOf(call.targets[0].SubscriptionID, len(q.shards))
		}
		s := q.shards[index]
		s.bring(call)
		kicked[s] = true
	}
	for s := range kicked {
		s.wakeUp()
	}
}

func (c *publishCall) wait(ctx context.Context) error {
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
}

func (c *publishCall) answer(targets []Target) Receipt {
	r := Receipt{Outcome: c.outcome, BacklogFull: c.full}
	switch c.outcome {
	case Queued:
		r.Targets = targets
	case Duplicate:
		r.Targets = decodeTargets(c.earlier)
	case Conflict, Full, Unqueued:
	}
	return r
}

func (c *publishCall) end(err error) {
	c.err = err
	close(c.done)
}

// publishArgs asks to lease at most so much at once.
func (s *shard) publishArgs(calls []*publishCall, owed debt, room reservation, started time.Time) []any {
	s.calls++
	args := make([]any, 0, 12+10*len(calls))
	args = append(args, s.q.instance, s.calls, milliseconds(callMemory), milliseconds(s.q.DeduplicationTime),
		s.q.MaxDeliveries/len(s.q.shards)-owed.deliveries, s.q.MaxBytes/int64(len(s.q.shards))-int64(owed.bytes),
		room.deliveries, room.bytes, milliseconds(s.q.LeaseTime), s.answered,
		s.redisTime.at(started.Add(s.q.patience)), len(calls))
	for _, c := range calls {
		parts := (c.whole + maxTargets - 1) / maxTargets
		args = append(args, c.id, c.fingerprint, c.receipt, c.payload, c.whole, parts*len(c.payload), len(c.targets))
		for _, t := range c.targets {
			args = append(args, t.SubscriptionID, t.DeliveryID)
		}
	}
	return args
}

// bring puts a call into the shard's next round trip.
func (s *shard) bring(call *publishCall) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		call.end(errStopped)
		return
	}
	if s.unconfirmed.doubt != nil && !call.further {
		call.end(s.unconfirmed.doubt)
		return
	}
	if call.further {
		s.parts = append(s.parts, call)
		s.owed.add(call, 1)
		return
	}
	s.publishes = append(s.publishes, call)
}

// answer tells each publisher what became of its event, and starts what was leased with it. Events for subscriptions
// that Redis does not know go again once these are configured.
func (s *shard) answer(calls []*publishCall, p *part, started time.Time) {
	err := p.err
	if err == nil && (len(p.reply) < 3 || int(number(p.reply[1])) != len(calls)) {
		err = fmt.Errorf("%w: the call was overtaken by a later one", ErrUnavailable)
	}
	if err != nil {
		for _, c := range calls {
			c.end(err)
		}
		return
	}
	s.answered = s.calls
	var again []*publishCall
	for _, reply := range p.reply[3:] {
		entry, _ := reply.([]any)
		if c := calls[number(entry[0])-1]; number(entry[1]) == unknownSubscriptions {
			c.unknown = texts(entry[2:])
			again = append(again, c)
		} else {
			c.take(entry[1:])
		}
	}
	taken := calls
	if len(again) > 0 {
		taken = slices.DeleteFunc(slices.Clone(calls), func(c *publishCall) bool { return slices.Contains(again, c) })
		go s.republish(again)
	}
	s.accepted(taken)
	if leased, ok := p.reply[2].([]any); ok {
		s.take(leasedWith(calls, leased, Lease{Deadline: started.Add(s.q.LeaseTime), shard: s.index}), started)
	}
}

// leasedWith are the deliveries that were leased as they were published, from the script's {token, now, how many,
// place...}.
func leasedWith(calls []*publishCall, leased []any, common Lease) []Lease {
	common.Token, common.Attempt, common.CreatedAt = number(leased[0]), 1, time.UnixMilli(number(leased[1]))
	leases := make([]Lease, 0, number(leased[2]))
	places := leased[3:]
	all := len(places) == 0
	place := 0
	for _, c := range calls {
		lease := common
		lease.EventID, _, _ = strings.Cut(c.id, "#")
		lease.EventType, lease.Body = c.eventType, c.payload[len(c.eventType)+1:]
		for _, t := range c.targets {
			if !all && (len(places) == 0 || int(number(places[0])) != place) {
				place++
				continue
			}
			if !all {
				places = places[1:]
			}
			place++
			lease.SubscriptionID, lease.DeliveryID = t.SubscriptionID, t.DeliveryID
			leases = append(leases, lease)
		}
	}
	return leases
}

// unknownSubscriptions is the script's answer for an event with subscriptions that must be configured first.
const unknownSubscriptions = 4

func (c *publishCall) take(entry []any) {
	c.outcome = Outcome(number(entry[0]))
	switch c.outcome {
	case Queued:
		c.full = texts(entry[1:])
	case Duplicate:
		c.earlier = text(entry[1])
	case Conflict, Full, Unqueued:
	}
}

// republish configures subscriptions that Redis does not know (it may have lost its data) and sends the calls again,
// once.
func (s *shard) republish(calls []*publishCall) {
	var ids []string
	for _, c := range calls {
		ids = append(ids, c.unknown...)
	}
	err := s.q.reconfigure(ids)
	for _, c := range calls {
		switch {
		case err != nil:
			c.end(err)
		case c.attempted:
			c.end(fmt.Errorf("%w: subscriptions %s are not configured", ErrUnavailable, strings.Join(c.unknown, ", ")))
		default:
			c.attempted = true
			s.bring(c)
		}
	}
	s.wakeUp()
}

func encodeTargets(targets []Target) string {
	var b strings.Builder
	for i, t := range targets {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(t.SubscriptionID)
		b.WriteByte(' ')
		b.WriteString(t.DeliveryID)
	}
	return b.String()
}

func decodeTargets(receipt string) []Target {
	words := strings.Fields(receipt)
	targets := make([]Target, 0, len(words)/2)
	for i := 0; i+1 < len(words); i += 2 {
		targets = append(targets, Target{SubscriptionID: words[i], DeliveryID: words[i+1]})
	}
	return targets
}
