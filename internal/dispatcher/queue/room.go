package queue

import "slices"

// reservation is room of the consumer.
type reservation struct{ deliveries, bytes int }

// split divides a reservation into the part for what is published, wanted at most, and the rest, for one lease call.
func (r reservation) split(wanted reservation) (early, late reservation) {
	early = reservation{min(r.deliveries, wanted.deliveries), min(r.bytes, wanted.bytes)}
	late = reservation{min(r.deliveries-early.deliveries, maxLease), min(r.bytes-early.bytes, maxBatchBytes)}
	if late.deliveries <= 0 || late.bytes <= 0 {
		late = reservation{}
	}
	return early, late
}

// reserve takes the consumer's room for one round trip of a shard, for a lease call and what is wanted beside it; give
// it back with unreserve once the leases were handed over. Shards that have work but got no room come first: what
// another takes leaves each of them a part.
func (q *Queue) reserve(s *shard, wanted reservation) reservation {
	q.room.Lock()
	defer q.room.Unlock()
	if q.stopped || q.consumer == nil {
		return reservation{}
	}
	first := len(q.hungry) > 0 && q.hungry[0] == s
	q.hungry = slices.DeleteFunc(q.hungry, func(other *shard) bool { return other == s })
	r := q.free(wanted)
	if parts := 1 + len(q.hungry); parts > 1 && !first {
		r = reservation{r.deliveries / parts, r.bytes / parts}
		q.hungry[0].wakeUp()
	}
	if r.deliveries <= 0 || r.bytes <= 0 {
		return reservation{}
	}
	q.asked.deliveries += r.deliveries
	q.asked.bytes += r.bytes
	return r
}

// free is the room that no round trip under way has asked for, as far as one needs it. Its caller holds q.room.
func (q *Queue) free(wanted reservation) reservation {
	deliveries, bytes := q.consumer.Room()
	return reservation{
		min(deliveries-q.asked.deliveries, maxLease+wanted.deliveries),
		min(bytes-q.asked.bytes, maxBatchBytes+wanted.bytes),
	}
}

// unreserve ends a reservation. A shard that was given nothing although work waits there is hungry, to be woken when
// there is room: also at once, since another may have given room back while this one heard that it got none.
func (q *Queue) unreserve(s *shard, r reservation, hungry bool) {
	q.room.Lock()
	defer q.room.Unlock()
	q.asked.deliveries -= r.deliveries
	q.asked.bytes -= r.bytes
	if hungry && !slices.Contains(q.hungry, s) {
		q.hungry = append(q.hungry, s)
	}
	if len(q.hungry) == 0 || q.stopped {
		return
	}
	if r = q.free(reservation{}); r.deliveries > 0 && r.bytes > 0 {
		q.hungry[0].wakeUp()
	}
}
