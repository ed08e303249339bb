// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"nexus.io/webhooks/internal/dispatcher/history"
)

const (
	firstPause  = time.Second // between attempts to set up, doubling
	longPause   = 30 * time.Second
	tendEvery   = time.Hour
	tendAgain   = time.Minute // after one that failed
	complainAll = 10 * time.Minute
)

// state tells whether the schema is set up, and if not, why.
type state struct {
	mu    sync.Mutex
	ready bool
	cause error
	lost  chan struct{} // holds a token when the schema was found missing
}

var errStarting = errors.New("it is being set up")

func (st *state) set(ready bool, cause error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.ready, st.cause = ready, cause
}

// lose has Run set up anew.
func (st *state) lose(cause error) {
	st.set(false, cause)
	select {
	case st.lost <- struct{}{}:
	default:
	}
}

// check is nil once the schema is set up.
func (st *state) check() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.ready {
		return nil
	}
	cause := st.cause
	if cause == nil {
		cause = errStarting
	}
	return fmt.Errorf("%w: %w", history.ErrUnavailable, cause)
}

// Ready is nil when the history can be written and read now, and else says why not; within connectTimeout and a second.
func (s *Store) Ready(ctx context.Context) error {
	if err := s.state.check(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout+time.Second)
	defer cancel()
	return s.failed("reach PostgreSQL", s.readers.Ping(ctx))
}

// Run sets up the schema as soon as PostgreSQL lets it, and then tends the partitions, until ctx is done. Until it has
// set up, the other methods return ErrUnavailable.
func (s *Store) Run(ctx context.Context) {
	for ctx.Err() == nil {
		s.untilSetUp(ctx)
		s.untilLost(ctx)
	}
}

func (s *Store) untilSetUp(ctx context.Context) {
	var told time.Time
	for pause := firstPause; ctx.Err() == nil; pause = min(2*pause, longPause) {
		err := s.setUp(ctx)
		s.state.set(err == nil, err)
		if err == nil {
			s.log.InfoContext(ctx, "Delivery history is ready", "retention", s.retention.String())
			return
		}
		if ctx.Err() == nil && time.Since(told) >= complainAll {
			s.log.WarnContext(ctx, "Delivery history is not available, and is tried again", "error", err)
			told = time.Now()
		}
		wait(ctx, pause, nil)
	}
}

// untilLost tends the schema until it is found missing.
func (s *Store) untilLost(ctx context.Context) {
	pause := tendEvery
	for !wait(ctx, pause, s.state.lost) && ctx.Err() == nil {
		pause = tendEvery
		if err := s.tend(ctx); err != nil {
			s.log.WarnContext(ctx, "Partitions of the delivery history were not tended, and are tried again", "error", err)
			pause = tendAgain
		}
	}
}

// wait waits for pause, or until ctx is done or there is a token in early; it tells whether it was that.
func wait(ctx context.Context, pause time.Duration, early <-chan struct{}) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return false
	case <-early:
		return true
	}
}

func (s *Store) setUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, setUpTimeout)
	defer cancel()
	if err := s.migrate(ctx); err != nil {
		return err
	}
	return s.tend(ctx)
}
