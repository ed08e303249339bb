// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// tend makes the partitions of the days to come, and drops those whose time has passed. One replica drops at a time.
func (s *Store) tend(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, tendTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, s.config.Copy())
	if err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := s.createAhead(ctx, conn); err != nil {
		return fmt.Errorf("make partitions: %w", err)
	}
	if err := s.dropExpired(ctx, conn); err != nil {
		return fmt.Errorf("drop partitions: %w", err)
	}
	return s.learn(ctx, conn)
}

func (s *Store) createAhead(ctx context.Context, conn *pgx.Conn) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		now, err := s.clock(ctx, tx)
		if err != nil {
			return err
		}
		days := map[day]bool{}
		for d := dayOf(now); d <= dayOf(now)+daysAhead; d++ {
			days[d] = true
		}
		return create(ctx, tx, days)
	})
}

func (s *Store) dropExpired(ctx context.Context, conn *pgx.Conn) error {
	var mine bool
	if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", lockDrop).Scan(&mine); err != nil || !mine {
		return err // another replica is at it; the lock ends with the connection
	}
	if _, err := conn.Exec(ctx, fmt.Sprintf("SET lock_timeout = %d", lockTimeout.Milliseconds())); err != nil {
		return err
	}
	now, err := s.clock(ctx, conn)
	if err != nil {
		return err
	}
	found, err := list(ctx, conn)
	if err != nil {
		return err
	}
	for _, p := range found {
		if !p.day.expired(now, s.retention) {
			continue
		}
		if err := drop(ctx, conn, p); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		s.log.InfoContext(ctx, "Dropped a day of the delivery history", "partition", p.name)
	}
	return nil
}

// drop takes a partition out beside the queries and writes that are under way, in steps each of which may be the last
// that a dispatcher lives to do: the next one goes on from there.
func drop(ctx context.Context, conn *pgx.Conn, p partition) error {
	how := "CONCURRENTLY"
	if p.detaching {
		how = "FINALIZE"
	}
	if p.attached {
		_, err := conn.Exec(ctx, fmt.Sprintf("ALTER TABLE %[1]s.%[2]s DETACH PARTITION %[1]s.%[3]s %[4]s",
			schema, p.parent, p.name, how))
		if err != nil {
			return err
		}
	}
	_, err := conn.Exec(ctx, fmt.Sprintf("DROP TABLE %s.%s", schema, p.name))
	return err
}
