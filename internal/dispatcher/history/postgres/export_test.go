// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"time"

	"nexus.io/webhooks/internal/dispatcher/history"
)

// SetClock replaces PostgreSQL's clock.
func (s *Store) SetClock(now func() time.Time) {
	s.clock = func(context.Context, querier) (time.Time, error) { return now(), nil }
}

// Tend does now what Run does every hour.
func (s *Store) Tend(ctx context.Context) error { return s.tend(ctx) }

// Statement is the SQL that reads the first part of a page.
func (s *Store) Statement(f history.Filter) (sql string, args []any) {
	return statement(&f, spans(&f, s.known.newest())[0], f.PageSize()+1)
}

// SetUp does what Run does first, and has the other methods work.
func (s *Store) SetUp(ctx context.Context) error {
	err := s.setUp(ctx)
	s.state.set(err == nil, err)
	return err
}

// Migrate does what Run does first.
func (s *Store) Migrate(ctx context.Context) error { return s.migrate(ctx) }

// MaxRows in a transaction.
const MaxRows = maxRows
