package queue

import "slices"

// reservation is room of the consumer.
type reservation struct{ deliveries, bytes int }

// reserve takes the consumer's room for one lease call of a shard; give it back with unreserve once the leases were
// handed over. Shards that have work but got no room come first: what another takes leaves each of them a part.
func (q *Queue) reserve(s *shard) reservation {
	q.room.Lock()
	defer q.room.Unlock()
	if q.stopped || q.consumer == nil {
		return reservation{}
	}
	first := len(q.hungry) > 0 && q.hungry[0] == s
	q.hungry = slices.DeleteFunc(q.hungry, func(other *shard) bool { return other == s })
	r := q.free()
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

// free is the room that no lease call under way has asked for. Its caller holds q.room.
func (q *Queue) free() reservation {
	deliveries, bytes := q.consumer.Room()
	return reservation{min(deliveries-q.asked.deliveries, maxLease), min(bytes-q.asked.bytes, maxBatchBytes)}
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
	if r = q.free(); r.deliveries > 0 && r.bytes > 0 {
		q.hungry[0].wakeUp()
	}
}
