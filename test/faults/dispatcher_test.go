// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"
)

// whole is what one dispatcher has in flight at most: what it had sent and not settled when it died comes again.
const whole = inFlight * 3 // the hanging endpoint takes nothing

func TestDispatchersThatAreKilled(t *testing.T) {
	try(t, expectation{duplicates: func(kills int) int { return kills * whole }}, func(ctx context.Context, r *trial) int {
		return r.every(ctx, 2*time.Second, func(n int) {
			d := r.s.Dispatchers[n%dispatchers]
			d.Kill()
			r.must(d.Start())
		})
	})
}

// One that sleeps for longer than its leases last must not settle what others have done meanwhile.
func TestADispatcherThatIsStoppedForLongerThanItsLeases(t *testing.T) {
	r := newTrial(t, expectation{holdsUp: true, duplicates: func(stops int) int { return stops * (whole + inFlight) }})
	stops := 0
	r.subscribe("long", r.s.Receiver.URL+"/slow/1000/l")
	r.run(func(ctx context.Context, r *trial) int {
		for ; ctx.Err() == nil; stops++ {
			d := r.s.Dispatchers[stops%dispatchers]
			r.occupy(stops)
			r.must(d.Signal(syscall.SIGSTOP))
			r.pass(leaseTime + 2*time.Second)
			r.must(d.Signal(syscall.SIGCONT))
			r.pass(time.Second) // it wakes up
		}
		return stops
	})
	if n := r.stale(); n < stops {
		r.Errorf("%d leases were met that had run out, in %d sleeps", n, stops)
	}
}

// occupy gives the dispatcher whose turn it is deliveries that take a second, and returns while it has several in hand.
func (r *trial) occupy(turn int) {
	r.Helper()
	index, round := turn%dispatchers, 0
	d := r.s.Dispatchers[index]
	r.eventually(d.Name+" has attempts under way", func() error {
		const least = 4
		var group sync.WaitGroup
		for n := range inFlight {
			group.Go(func() { r.send(index, "long", fmt.Sprintf("held-%d-%d-%d", turn, round, n)) })
		}
		group.Wait()
		round++
		if n := r.metrics(d)("nexus_webhook_attempts_in_flight"); n < least {
			return fmt.Errorf("%.0f of %d", n, least)
		}
		return nil
	})
}

// stale counts leases that their dispatchers found to have run out: nothing was sent for them, or no longer settled.
func (r *trial) stale() (n int) {
	r.Helper()
	for _, d := range r.s.Dispatchers {
		metric := r.metrics(d)
		n += int(metric("nexus_webhook_stale_leases_total") + metric("nexus_webhook_stale_settlements_total") +
			metric("nexus_webhook_lost_leases_total"))
	}
	r.Logf("%d leases had run out when their dispatchers came back to them", n)
	return n
}

func TestARollingRestart(t *testing.T) {
	try(t, expectation{}, func(ctx context.Context, r *trial) int {
		restarts := 0
		for ; ctx.Err() == nil || restarts < dispatchers; restarts++ {
			d := r.s.Dispatchers[restarts%dispatchers]
			r.must(d.Stop())
			r.must(d.Start())
			r.must(d.WaitReady(r.Context()))
		}
		return restarts
	})
}
