package queue

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// Totals are sums over all subscriptions, those included that are gone, since the queue's data began.
type Totals struct {
	Events       int64            // taken, each once however many it matched
	EventsByType map[string]int64 // the same, by type
	Successful   int64            // deliveries that ended so; one that was retried by hand each time
	Failed       int64
	Canceled     int64
	Retrying     int64 // deliveries that failed at least once and are not finished
	// AverageLatency is of the attempts that were answered, 0 before the first.
	AverageLatency time.Duration
}

// totalsFields are those of the hash that scripts/lib.lua keeps.
var totalsFields = []string{"events", "ok", "failed", "canceled", "retrying", "lsum", "lcnt"}

// Totals reads them in one round trip, whatever the number of subscriptions.
func (q *Queue) Totals(ctx context.Context) (Totals, error) {
	pipe := q.client.Pipeline()
	sums, types := make([]*redis.SliceCmd, len(q.shards)), make([]*redis.MapStringStringCmd, len(q.shards))
	for i, s := range q.shards {
		sums[i], types[i] = pipe.HMGet(ctx, s.keys.totals(), totalsFields...), pipe.HGetAll(ctx, s.keys.types())
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return Totals{}, fmt.Errorf("read the queue's totals: %w", unavailable(err))
	}
	t := Totals{EventsByType: map[string]int64{}}
	var latency, answered int64 // ms, attempts
	for i := range q.shards {
		for field, n := range []*int64{
			&t.Events, &t.Successful, &t.Failed, &t.Canceled, &t.Retrying, &latency, &answered,
		} {
			*n += number(sums[i].Val()[field])
		}
		for name, count := range types[i].Val() {
			n, _ := strconv.ParseInt(count, 10, 64)
			t.EventsByType[name] += n
		}
	}
	if answered > 0 {
		t.AverageLatency = time.Duration(latency) * time.Millisecond / time.Duration(answered)
	}
	return t, nil
}
