// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package quickstart

import (
	"context"
	"sync"
	"time"
)

const (
	firstRestartDelay = 500 * time.Millisecond
	maxRestartDelay   = 10 * time.Second
	// A program that ran this long is healthy: its next restart is a quick one again.
	healthyAfter = 30 * time.Second
)

// supervisor keeps programs running from start to stop.
type supervisor struct {
	story   *story
	stopped []func() // in the order of starting
}

// start runs a program, returns once it is ready, and from then on starts it again whenever it ends.
// What goes wrong before it is ready is an error, and nothing of it is left running.
func (s *supervisor) start(ctx context.Context, p *process) error {
	// A Ctrl-C must not end everything at once: stop ends the programs, one after the other.
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c, err := p.spawn(running)
	if err == nil {
		err = p.await(ctx, c)
	}
	if err != nil {
		cancel()
		p.buried(c)
		return err
	}
	var keeper sync.WaitGroup
	keeper.Go(func() { s.keep(running, p, c) })
	s.stopped = append(s.stopped, func() {
		cancel()
		keeper.Wait()
		p.buried(nil)
	})
	return nil
}

// keep starts the program again whenever it ends, until ctx ends; then it waits for its end.
func (s *supervisor) keep(ctx context.Context, p *process, c *child) {
	delay := firstRestartDelay
	for {
		began := time.Now()
		if c != nil {
			<-c.exited
			if ctx.Err() != nil {
				return
			}
			if time.Since(began) > healthyAfter {
				delay = firstRestartDelay
			}
			s.story.tell(p.name, "pid %d ended (%v); starting it again in %v; its log ends with: %s", c.id, exitError(c),
				delay, p.lastLines(1))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(delay):
		}
		delay = min(2*delay, maxRestartDelay)
		c = s.restart(ctx, p)
	}
}

// restart returns nil if the program could not even be started.
func (s *supervisor) restart(ctx context.Context, p *process) *child {
	c, err := p.spawn(ctx)
	if err != nil {
		s.story.tell(p.name, "%v", err)
		return c
	}
	s.story.tell(p.name, "started again, pid %d", c.id)
	return c
}

// stop ends what was started, the last first, and returns when it has ended.
func (s *supervisor) stop() {
	for i := len(s.stopped) - 1; i >= 0; i-- {
		s.stopped[i]()
	}
	s.stopped = nil
}
