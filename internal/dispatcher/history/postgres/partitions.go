// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"nexus.io/webhooks/internal/dispatcher/history"
)

const (
	daysAhead = 3
	// daysEarly is how far an id may lie ahead of PostgreSQL's clock. One beyond is a mistake that would otherwise make
	// partitions up to the end of the calendar.
	daysEarly = 2
)

// day counts days of UTC since 1970. Each is one partition of either table.
type day int64

func dayOf(t time.Time) day { return day(t.Unix() / 86400) }

func (d day) start() time.Time { return time.Unix(int64(d)*86400, 0).UTC() }

func (d day) suffix() string { return "_" + d.start().Format("20060102") }

// expired: every moment of d is longer ago than retention.
func (d day) expired(now time.Time, retention time.Duration) bool {
	return !(d + 1).start().After(now.Add(-retention))
}

// dayOfPartition reads a partition's name.
func dayOfPartition(name string) (day, bool) {
	_, date, ok := strings.Cut(name, "_")
	t, err := time.Parse("20060102", date)
	return dayOf(t), ok && err == nil
}

// partitions are the days that have a partition in both tables, as far as we know.
type partitions struct {
	mu   sync.Mutex
	days map[day]bool
}

// missing are those of days that have none.
func (p *partitions) missing(days map[day]bool) map[day]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	missing := map[day]bool{}
	for d := range days {
		if !p.days[d] {
			missing[d] = true
		}
	}
	return missing
}

func (p *partitions) set(days map[day]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.days = days
}

// newest is the latest of them.
func (p *partitions) newest() (newest day) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for d := range p.days {
		newest = max(newest, d)
	}
	return newest
}

type querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// serverTime is the one clock that all replicas share.
func serverTime(ctx context.Context, q querier) (now time.Time, err error) {
	err = q.QueryRow(ctx, "SELECT now()").Scan(&now)
	return now, err
}

// verdict says what becomes of a day's records.
type verdict int

const (
	keep verdict = iota
	tooOld
	tooEarly
)

// admit makes the partitions that days need, where they are not there and not too old to be kept, and says which are.
func (s *Store) admit(ctx context.Context, days map[day]bool) (map[day]verdict, error) {
	missing := s.known.missing(days)
	if len(missing) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	verdicts := map[day]verdict{}
	err := pgx.BeginFunc(ctx, s.writers, func(tx pgx.Tx) error {
		now, err := s.clock(ctx, tx)
		if err != nil {
			return err
		}
		for d := range missing {
			switch {
			case d.expired(now, s.retention):
				verdicts[d] = tooOld
				delete(missing, d)
			case d > dayOf(now)+daysEarly:
				verdicts[d] = tooEarly
				delete(missing, d)
			}
		}
		return create(ctx, tx, missing)
	})
	if err != nil {
		return nil, fmt.Errorf("make partitions: %w", err)
	}
	if len(missing) > 0 {
		err = s.learn(ctx, s.writers)
	}
	return verdicts, err
}

// create makes the partitions of days in both tables, those that are not there. Making a table and attaching it holds
// up no query and no write; making it in place would hold up all.
func create(ctx context.Context, tx pgx.Tx, days map[day]bool) error {
	if len(days) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, fmt.Sprintf("SET LOCAL lock_timeout = %d", lockTimeout.Milliseconds())); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", lockCreate); err != nil {
		return err
	}
	found, err := list(ctx, tx)
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, p := range found {
		there[p.name] = true
	}
	for d := range days {
		if err := createDay(ctx, tx, d, there); err != nil {
			return err
		}
	}
	return nil
}

// createPartition names the schema, the table, the partition and its bounds.
const createPartition = `
CREATE TABLE %[1]s.%[3]s (LIKE %[1]s.%[2]s INCLUDING ALL);
ALTER TABLE %[1]s.%[2]s ATTACH PARTITION %[1]s.%[3]s FOR VALUES FROM ('%[4]s') TO ('%[5]s')`

func createDay(ctx context.Context, tx pgx.Tx, d day, there map[string]bool) error {
	bounds := map[string][2]string{
		"deliveries": {history.FirstID(d.start()).String(), history.FirstID((d + 1).start()).String()},
		"bodies":     {d.start().Format(time.DateOnly), (d + 1).start().Format(time.DateOnly)},
	}
	for table, bound := range bounds {
		name := table + d.suffix()
		if there[name] {
			continue
		}
		if _, err := tx.Exec(ctx, fmt.Sprintf(createPartition, schema, table, name, bound[0], bound[1])); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// partition is a table of ours, attached or not.
type partition struct {
	name, parent string
	day          day
	attached     bool
	detaching    bool // it was begun and not ended
}

const listPartitions = `
SELECT c.relname, split_part(c.relname, '_', 1), i.inhrelid IS NOT NULL, coalesce(i.inhdetachpending, false)
FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid
WHERE c.relnamespace = to_regnamespace($1) AND c.relkind = 'r' AND c.relname ~ '^(deliveries|bodies)_[0-9]{8}$'
ORDER BY c.relname DESC`

func list(ctx context.Context, q querier) ([]partition, error) {
	rows, err := q.Query(ctx, listPartitions, schema)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (p partition, err error) {
		err = row.Scan(&p.name, &p.parent, &p.attached, &p.detaching)
		p.day, _ = dayOfPartition(p.name)
		return p, err
	})
}

// learn reads which partitions there are.
func (s *Store) learn(ctx context.Context, q querier) error {
	found, err := list(ctx, q)
	if err != nil {
		return fmt.Errorf("list the partitions: %w", err)
	}
	usable := map[day]int{}
	for _, p := range found {
		if p.attached && !p.detaching {
			usable[p.day]++
		}
	}
	days := map[day]bool{}
	for d, tables := range usable {
		days[d] = tables == 2
	}
	s.known.set(days)
	return nil
}
