package queue

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"nexus.io/webhooks/internal/dispatcher/history"
)

// Choice selects deliveries by what they are at the time that somebody looks.
type Choice struct {
	// Filter selects by subscription, type and time; and with its Statuses, which are then not all when empty but none,
	// what has ended. Limit, After and Namespaces are not heeded.
	history.Filter
	Pending  bool // what waits for its first attempt, or has it
	Retrying bool // what failed and waits for another, or has it
	Most     int  // deliveries; the oldest are taken
}

// Chosen is what a Choice found: the oldest first.
type Chosen []ChosenDelivery

// ChosenDelivery is one of them.
type ChosenDelivery struct {
	ID        string
	Namespace string // as the function that was asked says
	shard     int
}

// Place is a chosen delivery of a subscription.
func (q *Queue) Place(id, subscriptionID, namespace string) ChosenDelivery {
	return ChosenDelivery{id, namespace, shardOf(subscriptionID, len(q.shards))}
}

// Oldest are the oldest of what is chosen, each once.
func (c Chosen) Oldest(most int) Chosen {
	kept := &oldest{most: most, all: c}
	return kept.cut()
}

// Choose walks over all that the queue and its history hold, in bounded steps. May tells the namespace of a
// subscription's delivery, given the one that the history knows ("" for what is unfinished), and whether it may be
// chosen.
func (q *Queue) Choose(
	ctx context.Context, c Choice, may func(subscriptionID, namespace string) (string, bool),
) (Chosen, error) {
	kept := &oldest{most: c.Most}
	for _, s := range q.shards {
		if err := s.choose(ctx, &c, may, kept); err != nil {
			return nil, fmt.Errorf("choose deliveries: %w", err)
		}
	}
	return kept.cut(), nil
}

func (s *shard) choose(
	ctx context.Context, c *Choice, may func(subscriptionID, namespace string) (string, bool), kept *oldest,
) error {
	take := func(id, subscriptionID, namespace string) {
		if namespace, ok := may(subscriptionID, namespace); ok {
			kept.add(ChosenDelivery{id, namespace, s.index})
		}
	}
	if len(c.Statuses) > 0 {
		if err := s.file(ctx); err != nil {
			return err
		}
		_, err := s.eachPast(ctx, c.Filter, func(id, value string) (bool, error) {
			e, err := s.parseEnded(id, value, false)
			if err == nil && c.Match(&e.Record) {
				take(id, e.SubscriptionID, e.Namespace)
			}
			return true, err
		})
		if err != nil {
			return err
		}
	}
	if !c.Pending && !c.Retrying {
		return nil
	}
	return s.eachUnfinished(ctx, func(u *Unfinished) bool {
		if c.takes(u) {
			take(u.ID, u.SubscriptionID, "")
		}
		return true
	})
}

// takes tells whether an unfinished delivery is chosen.
func (c *Choice) takes(u *Unfinished) bool {
	low, high := c.Bounds()
	return (u.Attempts > 0 && c.Retrying || u.Attempts == 0 && c.Pending) &&
		low.String() <= u.ID && u.ID < high.String() &&
		(c.SubscriptionIDs == nil || slices.Contains(c.SubscriptionIDs, u.SubscriptionID)) &&
		(c.EventType == "" || c.EventType == u.EventType)
}

// oldest keeps the deliveries with the smallest ids, in memory for twice as many as it may keep.
type oldest struct {
	most int
	all  Chosen
}

func (o *oldest) add(d ChosenDelivery) {
	if o.all = append(o.all, d); len(o.all) >= 2*o.most+scanStep {
		o.cut()
	}
}

func (o *oldest) cut() Chosen {
	slices.SortFunc(o.all, func(a, b ChosenDelivery) int { return cmp.Compare(a.ID, b.ID) })
	o.all = slices.CompactFunc(o.all, func(a, b ChosenDelivery) bool { return a.ID == b.ID })
	o.all = o.all[:min(len(o.all), o.most)]
	return o.all
}
