// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package access

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// pace is a rate.Limiter that is asked with times in order. Asked by many at once, of whom some were held up between
// the clock and its lock, a Limiter goes back to their time and gives for the time since then again.
type pace struct {
	now     func() time.Time
	mu      sync.Mutex
	limiter *rate.Limiter
}

func newPace(perSecond rate.Limit, burst int) *pace {
	return &pace{now: time.Now, limiter: rate.NewLimiter(perSecond, burst)}
}

// wait returns when it is the caller's turn, and fails at once where that would be after ctx has ended.
func (p *pace) wait(ctx context.Context) error {
	turn, delay := p.reserve(ctx)
	if turn == nil {
		return errBusy
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		p.cancel(turn)
		return errBusy
	}
}

// reserve returns nil where the turn would come too late.
func (p *pace) reserve(ctx context.Context) (turn *rate.Reservation, delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	turn = p.limiter.ReserveN(now, 1)
	delay = turn.DelayFrom(now)
	if deadline, bounded := ctx.Deadline(); ctx.Err() != nil || bounded && now.Add(delay).After(deadline) {
		turn.CancelAt(now)
		return nil, 0
	}
	return turn, delay
}

func (p *pace) cancel(turn *rate.Reservation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	turn.CancelAt(p.now())
}
