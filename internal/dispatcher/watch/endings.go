// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"time"

	"github.com/tidwall/btree"
)

// endings knows when the previous keys of subscriptions stop signing, so that they do at that time, whether or not
// anybody changes the Secret then.
type endings struct {
	byTime *btree.BTreeG[ending]
	times  map[key]time.Time
}

type ending struct {
	at           time.Time
	subscription key
}

func newEndings() *endings {
	less := func(a, b ending) bool {
		if !a.at.Equal(b.at) {
			return a.at.Before(b.at)
		}
		if a.subscription.namespace != b.subscription.namespace {
			return a.subscription.namespace < b.subscription.namespace
		}
		return a.subscription.name < b.subscription.name
	}
	return &endings{
		byTime: btree.NewBTreeGOptions(less, btree.Options{NoLocks: true}),
		times:  map[key]time.Time{},
	}
}

// set makes this the time at which something of a subscription ends; the zero time forgets the subscription.
func (e *endings) set(subscription key, at time.Time) {
	if before, known := e.times[subscription]; known {
		e.byTime.Delete(ending{before, subscription})
		delete(e.times, subscription)
	}
	if !at.IsZero() {
		e.times[subscription] = at
		e.byTime.Set(ending{at, subscription})
	}
}

// until lists up to n subscriptions of which something ended by now.
func (e *endings) until(now time.Time, n int) []key {
	var over []key
	e.byTime.Scan(func(next ending) bool {
		if next.at.After(now) || len(over) == n {
			return false
		}
		over = append(over, next.subscription)
		return true
	})
	return over
}

// next fires when the next one ends, and never if there is none.
func (e *endings) next() <-chan time.Time {
	first, ok := e.byTime.Min()
	if !ok {
		return nil
	}
	return time.After(time.Until(first.at))
}
