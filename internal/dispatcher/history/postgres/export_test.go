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

// Statement is the page's SQL.
func Statement(f history.Filter) (sql string, args []any) { return statement(&f) }

// MaxRows in a transaction.
const MaxRows = maxRows
