package queue

import (
	"context"
	"fmt"
	"time"
)

const (
	configureBatch = 500
	cancelStep     = 1000
	knownPage      = 1000
	statisticsPage = 500
	reconfigureFor = 5 * time.Second
)

// Configure tells the queue the limits of subscriptions. It may be repeated; an older generation changes nothing.
func (q *Queue) Configure(ctx context.Context, limits []Limits) error {
	for index, part := range groupByShard(q, limits, func(l Limits) string { return l.SubscriptionID }) {
		for start := 0; start < len(part); start += configureBatch {
			chunk := part[start:min(start+configureBatch, len(part))]
			reply, err := q.run(ctx, configureScript, q.shards[index].keys, configureArgs(chunk))
			if err != nil {
				return fmt.Errorf("configure %d subscriptions: %w", len(chunk), err)
			}
			for i, l := range chunk {
				q.configured.Store(l.SubscriptionID, l)
				if number(reply[i+1]) == cancelled {
					q.Logger.WarnContext(ctx, "Subscription was cancelled as deleted, but is here again: it gets no deliveries "+
						"until it is made anew", "subscription", l.SubscriptionID)
				}
			}
			if number(reply[0]) >= 0 {
				q.shards[index].wakeUp()
			}
		}
	}
	return nil
}

// cancelled is configure's answer for a subscription that Cancel ended. Its id comes back only where an old state of
// the cluster is restored.
const cancelled = 3

func configureArgs(limits []Limits) []any {
	args := make([]any, 0, 1+8*len(limits))
	args = append(args, "")
	for _, l := range limits {
		args = append(args, l.SubscriptionID, l.Generation, l.RatePerMinute, l.MaxInFlight, l.MaxBacklog,
			flag(l.Active), flag(l.Paused), l.Namespace)
	}
	return args
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}

// reconfigure configures again what Redis has lost.
func (q *Queue) reconfigure(ids []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), reconfigureFor)
	defer cancel()
	limits := make([]Limits, 0, len(ids))
	for _, id := range ids {
		if l, ok := q.configured.Load(id); ok {
			limits = append(limits, l.(Limits)) //nolint:forcetypeassert // Configure alone stores here
		}
	}
	return q.Configure(ctx, limits)
}

// Cancel ends everything that waits for subscriptions that are gone, in bounded steps; attempts under way end as they
// end. It may be repeated, and by several dispatchers at once.
func (q *Queue) Cancel(ctx context.Context, subscriptionIDs []string) error {
	for _, id := range subscriptionIDs {
		q.configured.Delete(id)
		k := q.shards[shardOf(id, len(q.shards))].keys
		for left := int64(1); left > 0; {
			reply, err := q.run(ctx, cancelScript, k, []any{"", id, cancelStep})
			if err != nil {
				return fmt.Errorf("cancel the deliveries of subscription %s: %w", id, err)
			}
			left = number(reply[1])
		}
	}
	return nil
}

// Known lists the subscriptions that Redis knows, to find those that are gone.
func (q *Queue) Known(ctx context.Context) ([]string, error) {
	var ids []string
	for _, s := range q.shards {
		seen := map[string]bool{}
		for cursor := uint64(0); ; {
			page, next, err := q.client.SScan(ctx, s.keys.subs(), cursor, "", knownPage).Result()
			if err != nil {
				return nil, fmt.Errorf("list known subscriptions: %w", unavailable(err))
			}
			for _, id := range page {
				if !seen[id] {
					seen[id] = true
					ids = append(ids, id)
				}
			}
			if cursor = next; cursor == 0 {
				break
			}
		}
	}
	return ids, nil
}

// Changed gives statistics that were not reflected yet, longest waiting first, at most limit for each shard. Urgent are
// those whose health may have changed: the first success, the first failure after one, the third in a row, a backlog
// that became full or has room again.
func (q *Queue) Changed(ctx context.Context, limit int, urgentOnly bool) ([]Statistics, error) {
	list, key := "dirty", keys.dirty
	if urgentOnly {
		list, key = "urgent", keys.urgent
	}
	var all []Statistics
	for _, s := range q.shards {
		changed, err := q.client.ZCard(ctx, key(s.keys)).Result() // this is asked every second, mostly for nothing
		if err != nil {
			return nil, fmt.Errorf("count changed statistics: %w", unavailable(err))
		}
		if changed == 0 {
			continue
		}
		reply, err := q.run(ctx, changedScript, s.keys, []any{"", list, limit})
		if err != nil {
			return nil, fmt.Errorf("read changed statistics: %w", err)
		}
		all = append(all, parseStatistics(reply)...)
	}
	return all, nil
}

// Statistics of the named subscriptions; zero for those that the queue does not know.
func (q *Queue) Statistics(ctx context.Context, ids []string) ([]Statistics, error) {
	var all []Statistics
	for index, part := range groupByShard(q, ids, func(id string) string { return id }) {
		for start := 0; start < len(part); start += statisticsPage {
			args := []any{"", "", 0}
			for _, id := range part[start:min(start+statisticsPage, len(part))] {
				args = append(args, id)
			}
			reply, err := q.run(ctx, changedScript, q.shards[index].keys, args)
			if err != nil {
				return nil, fmt.Errorf("read statistics: %w", err)
			}
			all = append(all, parseStatistics(reply)...)
		}
	}
	return all, nil
}

// Reflected unmarks statistics that stand in the status now, unless they changed again meanwhile.
func (q *Queue) Reflected(ctx context.Context, statistics []Statistics) error {
	for index, part := range groupByShard(q, statistics, func(s Statistics) string { return s.SubscriptionID }) {
		args := []any{""}
		for _, st := range part {
			args = append(args, st.SubscriptionID, st.Version)
		}
		k := q.shards[index].keys
		node, err := q.node(ctx, k)
		if err == nil {
			err = reflectedScript.Run(ctx, node, k.declared(), args...).Err()
		}
		if err != nil {
			return fmt.Errorf("unmark %d reflected subscriptions: %w", len(part), unavailable(err))
		}
	}
	return nil
}

// parseStatistics reads {sub, {fields of scripts/changed.lua}, ...}.
func parseStatistics(reply []any) []Statistics {
	all := make([]Statistics, 0, len(reply)/2)
	for i := 0; i+1 < len(reply); i += 2 {
		f, _ := reply[i+1].([]any)
		for len(f) < 17 {
			f = append(f, nil)
		}
		all = append(all, Statistics{
			SubscriptionID: text(reply[i]), Version: number(f[16]),
			Successful: number(f[0]), Failed: number(f[1]), Canceled: number(f[2]),
			Pending: number(f[3]) + number(f[4]) + number(f[5]), Retrying: number(f[6]), ConsecutiveFailures: number(f[7]),
			LastAttempt: moment(f[8]), LastSuccess: moment(f[9]), LastStatusCode: int(number(f[10])),
			LastReason: text(f[11]), LastError: text(f[12]),
			LatencySum: time.Duration(number(f[13])) * time.Millisecond, LatencyCount: number(f[14]),
			BacklogFull: number(f[15]) == 1,
		})
	}
	return all
}

func moment(v any) time.Time {
	ms := number(v)
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

func groupByShard[T any](q *Queue, items []T, id func(T) string) map[int][]T {
	groups := map[int][]T{}
	for _, item := range items {
		index := shardOf(id(item), len(q.shards))
		groups[index] = append(groups[index], item)
	}
	return groups
}
