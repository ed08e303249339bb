// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
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
	try(t, expectation{duplicates: func(stops int) int { return stops * whole }}, func(ctx context.Context, r *trial) int {
		stops := 0
		for ; ctx.Err() == nil; stops++ {
			d := r.s.Dispatchers[stops%dispatchers]
			r.must(d.Signal(syscall.SIGSTOP))
			r.pass(leaseTime + 2*time.Second)
			r.must(d.Signal(syscall.SIGCONT))
			r.pass(time.Second) // it wakes up
		}
		return stops
	})
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
