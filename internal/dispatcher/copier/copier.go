// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package copier brings what has ended from the queue's outbox into the long history.
//
// It promises that every delivery gets there, once, however many dispatchers copy and whichever of them dies or hangs,
// unless the outbox overflows, which is counted and told; that the store may be away or slow without anybody but the
// history feeling it; and that it works in bounded steps. It knows neither Redis nor PostgreSQL.
package copier

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"nexus.io/webhooks/internal/dispatcher/history"
	"nexus.io/webhooks/internal/dispatcher/queue"
)

const (
	// hold is for how long a shard is claimed: after it another dispatcher takes over from one that died. Claims are
	// made anew three times as often, so that one lost answer loses none.
	hold = 6 * time.Second
	// idle is the pause once nothing waits, and the time after which others ask for a shard.
	idle = time.Second
	// longPause bounds the pauses after failures, which double: so long after its return PostgreSQL waits at most.
	longPause = 10 * time.Second
	// together is how many shards are copied at once: as many as the store has connections to write, and as few batches
	// are in memory.
	together      = 2
	complainEvery = time.Minute
	// late is how old what waits may be before Check tells: more than it takes to replace a copier that died.
	late = 15 * time.Second
	// giveBack is the time to give a shard back when the copier stops.
	giveBack = time.Second
)

// Store is where copies go; *postgres.Store is one.
type Store interface {
	Write(ctx context.Context, batch history.Batch) (history.Written, error)
}

// Options of a Copier, all required.
type Options struct {
	Queue      *queue.Queue
	Store      Store
	Registerer prometheus.Registerer
	Logger     *slog.Logger
}

// Copier copies the outboxes of all shards that no other dispatcher copies.
type Copier struct {
	Options
	metrics  *metrics
	places   chan struct{}
	complain rate.Sometimes
	failing  atomic.Bool // the latest write failed
}

// New makes a Copier.
func New(o Options) *Copier {
	return &Copier{
		Options: o, metrics: newMetrics(o.Queue, o.Registerer), places: make(chan struct{}, together),
		complain: rate.Sometimes{First: 1, Interval: complainEvery},
	}
}

// Run copies until ctx ends.
func (c *Copier) Run(ctx context.Context) {
	var running sync.WaitGroup
	for _, outbox := range c.Queue.Outboxes() {
		running.Go(func() { c.copyShard(ctx, outbox) })
	}
	running.Go(func() { c.watchLosses(ctx) })
	running.Wait()
}

// copyShard takes its turn at a shard again and again.
func (c *Copier) copyShard(ctx context.Context, outbox *queue.Outbox) {
	pause := idle
	for wait(ctx, pause) {
		err := c.turn(ctx, outbox)
		if err == nil || ctx.Err() != nil {
			pause = idle
			continue
		}
		pause = min(2*pause, longPause)
		c.complain.Do(func() {
			c.Logger.WarnContext(ctx, "What has ended is not copied into the delivery history, and is tried again",
				"error", err)
		})
	}
}

// wait waits for pause or up to a half more, so that dispatchers do not come together; false once ctx has ended.
func wait(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause + rand.N(pause/2)) //nolint:gosec // no secret
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// turn copies what waits on a shard, unless another dispatcher does, and gives the shard back where that fails: another
// may reach what this one does not.
func (c *Copier) turn(ctx context.Context, outbox *queue.Outbox) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case c.places <- struct{}{}:
		defer func() { <-c.places }()
	}
	mine, err := outbox.Claim(ctx, hold)
	if err != nil || !mine {
		return err
	}
	err = c.drain(ctx, outbox)
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveBack)
		defer cancel()
		_, _ = outbox.Claim(ctx, 0) // or it runs out
	}
	return err
}

// drain copies batch by batch until nothing waits.
func (c *Copier) drain(ctx context.Context, outbox *queue.Outbox) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var keeping sync.WaitGroup
	keeping.Go(func() { keep(ctx, outbox, cancel) })
	defer keeping.Wait()
	defer cancel(nil)
	for {
		n, err := c.batch(ctx, outbox)
		if err != nil && errors.Is(context.Cause(ctx), errTaken) {
			return nil
		}
		if n == 0 || err != nil {
			return err
		}
	}
}

var errTaken = errors.New("another dispatcher copies the shard")

// keep claims the shard anew until ctx ends, and ends it where the claim is lost, or may be.
func keep(ctx context.Context, outbox *queue.Outbox, end context.CancelCauseFunc) {
	tick := time.NewTicker(hold / 3)
	defer tick.Stop()
	for held := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		begun := time.Now()
		mine, err := outbox.Claim(ctx, hold)
		switch {
		case err == nil && mine:
			held = begun
		case err == nil || time.Since(held) > hold:
			end(errTaken)
			return
		}
	}
}

// batch copies one batch and returns of how many. Only what is written is let go of, so that whoever dies or hangs
// between the two leaves what is written again, and changes nothing then.
func (c *Copier) batch(ctx context.Context, outbox *queue.Outbox) (int, error) {
	copies, err := outbox.Next(ctx)
	if err != nil || len(copies.Records) == 0 {
		return 0, err
	}
	for _, err := range copies.Unreadable {
		c.complain.Do(func() {
			c.Logger.WarnContext(ctx, "Attempts of a delivery cannot be read, and are left out of the history", "error", err)
		})
	}
	written, err := c.Store.Write(ctx, copies.Batch)
	c.metrics.count(written)
	if c.failing.Swap(err != nil) && err == nil {
		c.Logger.InfoContext(ctx, "What has ended is copied into the delivery history again")
	}
	if err != nil {
		return 0, fmt.Errorf("copy %d deliveries: %w", len(copies.Records), err)
	}
	return len(copies.Records), outbox.Copied(ctx, copies)
}

const lookForLosses = 5 * time.Second

// watchLosses tells when the outbox overflowed, and how often since.
func (c *Copier) watchLosses(ctx context.Context) {
	told, lately := int64(-1), rate.Sometimes{First: 1, Interval: complainEvery}
	for wait(ctx, lookForLosses) {
		backlog, err := c.Queue.Backlog(ctx)
		switch {
		case err != nil: // the queue tells that Redis is away
		case told < 0:
			told = backlog.Lost
		case backlog.Lost > told:
			lately.Do(func() {
				c.Logger.ErrorContext(ctx, "Deliveries that have ended will be missing from the history, since more waited "+
					"to be copied than may: make PostgreSQL available, or raise WEBHOOK_HISTORY_OUTBOX_MEBIBYTES",
					"deliveries", backlog.Lost-told, "waiting", backlog.Age.String(), "bytes", backlog.Bytes)
				told = backlog.Lost
			})
		}
	}
}

// Check tells whether copying keeps up, and how far it is behind where it does not.
func (c *Copier) Check(ctx context.Context) error {
	backlog, err := c.Queue.Backlog(ctx)
	switch {
	case err != nil:
		return errors.New("it cannot be told what waits to be copied, since Redis does not answer")
	case backlog.Age > late:
		return fmt.Errorf("what has ended is not copied to PostgreSQL: the oldest waits for %d s, all takes %d bytes",
			int64(backlog.Age.Seconds()), backlog.Bytes)
	}
	return nil
}
