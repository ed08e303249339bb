// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"testing"
	"time"

	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/test/redistest"
)

const (
	// sound is what a disk takes for an fsync, so that deaths fall amid one; busy is what one takes that has much to do.
	sound, busy = 5 * time.Millisecond, 1500 * time.Millisecond
	// unsynced is how old what appendfsync everysec has not on the disk may be: two seconds, since Redis asks for an fsync
	// once a second, and one for the time between an event's publication and its answer, on a busy machine.
	unsynced = 3 * time.Second
)

// Redis' machine loses its power: of the append-only file remains what a completed fsync covers. With everysec
// something must be lost, or the simulation shows nothing of the others, and nothing older than Redis says. Where a
// process dies alone that has everysec and waits for its disk, what it holds back meanwhile is lost, although it has
// been answered.
func TestAMachineThatLosesItsPower(t *testing.T) {
	tests := map[string]struct {
		program, fsync string
		durability     queue.Durability
		disk           time.Duration
		alone          bool          // the process dies, and its machine does not
		oldest         time.Duration // that may be lost; 0: nothing may
	}{
		"appendfsync always":                     {redistest.Redis, "always", queue.ByRedis, sound, false, 0},
		"appendfsync everysec":                   {redistest.Redis, "everysec", queue.ByRedis, sound, false, unsynced},
		"appendfsync always and durability disk": {redistest.Valkey, "always", queue.ByDisk, sound, false, 0},
		"a process alone, on a busy disk":        {redistest.Redis, "everysec", queue.ByRedis, busy, true, unsynced},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			machine := redistest.MachineForTest(t, test.program, test.disk, "--appendfsync", test.fsync)
			want := expectation{
				redisURL: machine.URL(), loses: test.oldest > 0, flags: []string{"--durability=" + string(test.durability)},
				holdsUp: true,
				// What had arrived, and whose end was lost, comes again.
				duplicates: func(deaths int) int { return outage(deaths) + deaths*int(test.oldest/pace) },
			}
			var deaths []time.Time
			r := newTrial(t, want)
			r.run(func(ctx context.Context, r *trial) int {
				// No whole seconds, so that each death comes at another time since the last fsync.
				return r.every(ctx, 2700*time.Millisecond, func(int) {
					if test.alone {
						machine.Kill()
					} else {
						r.losePower(machine)
					}
					deaths = append(deaths, time.Now())
					r.must(machine.Restart())
				})
			})
			oldest := r.oldestLost(deaths)
			r.Logf("the oldest lost event was %s old when Redis died", oldest.Round(time.Millisecond))
			if oldest > test.oldest {
				r.Errorf("an event that was lost was %s old, at most %s may be", oldest, test.oldest)
			}
		})
	}
}

func (r *trial) losePower(machine *redistest.Machine) {
	r.Helper()
	lost, err := machine.LosePower()
	r.must(err)
	r.Logf("%d bytes of the append-only file were lost", lost)
}

// oldestLost is the age, since its publication, of the oldest lost event when Redis died.
func (r *trial) oldestLost(deaths []time.Time) (oldest time.Duration) {
	counts := taken(r.s.Receiver.Arrivals("/"))
	for kind, ids := range r.load.accepted {
		for _, id := range ids {
			if kind == "hanging" || counts[id] > 0 {
				continue
			}
			for _, death := range deaths {
				if age := death.Sub(r.load.begun[id]); age >= 0 {
					oldest = max(oldest, age)
					break
				}
			}
		}
	}
	return oldest
}
