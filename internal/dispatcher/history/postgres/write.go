// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"nexus.io/webhooks/internal/dispatcher/history"
)

// Bounds of one transaction.
const (
	maxRows  = 1000
	maxBytes = 16 << 20 // of bodies; a single one may be larger
)

var errTooEarly = errors.New("its id is of a time to come: check the clocks of the dispatchers and of PostgreSQL")

// Write stores a batch, in transactions of at most maxRows records and about maxBytes of bodies. After an error some of
// it may be stored: write it again until there is none, which stores each record once. A record that PostgreSQL cannot
// store whatever happens is rejected, and keeps none of the others from being stored. What it returns beside an error
// is what is known by then.
func (s *Store) Write(ctx context.Context, batch history.Batch) (history.Written, error) {
	var total history.Written
	if err := s.state.check(); err != nil {
		return total, err
	}
	for rest := s.prepare(batch.Records, &total); len(rest) > 0; {
		n := chunk(rest, batch.Bodies)
		err := s.writeChunk(ctx, rest[:n], batch.Bodies, &total)
		if err != nil {
			return total, s.failed("write the delivery history", err)
		}
		rest = rest[n:]
	}
	return total, nil
}

// prepare cleans the records, rejects what cannot be kept, and makes one of those with the same id.
func (s *Store) prepare(records []history.Record, total *history.Written) []history.Record {
	prepared := make([]history.Record, 0, len(records))
	places := make(map[string]int, len(records))
	for _, r := range records {
		r = history.Clean(r)
		if err := r.Check(); err != nil {
			s.reject(total, r.ID, err)
			continue
		}
		if i, ok := places[r.ID]; ok {
			prepared[i] = history.Merge(prepared[i], r)
			total.Repeated++
			continue
		}
		places[r.ID] = len(prepared)
		prepared = append(prepared, r)
	}
	return prepared
}

func (s *Store) reject(total *history.Written, id string, err error) {
	total.Rejected = append(total.Rejected, history.Rejection{ID: id, Err: err})
	s.complain.Do(func() { // the caller is told of all
		s.log.Warn("Record of a delivery cannot be kept, and is left out of the history", "deliveryId", id, "error", err)
	})
}

// chunk is how many of the records the next transaction takes, at least one.
func chunk(records []history.Record, bodies map[history.BodyRef][]byte) int {
	size := 0
	seen := map[history.BodyRef]bool{}
	for i := range records[:min(len(records), maxRows)] {
		if ref := records[i].Body; !seen[ref] {
			seen[ref] = true
			size += len(bodies[ref])
		}
		if size > maxBytes && i > 0 {
			return i
		}
	}
	return min(len(records), maxRows)
}

// writeChunk stores records in one transaction. Where PostgreSQL refuses what they hold it halves them until it has
// found which, so that each bad one costs some ten transactions, once.
func (s *Store) writeChunk(
	ctx context.Context, records []history.Record, bodies map[history.BodyRef][]byte, total *history.Written,
) error {
	if len(records) == 0 {
		return nil
	}
	rows, err := s.encode(ctx, records, total)
	if err != nil || len(rows) == 0 {
		return err
	}
	stored, err := s.store(ctx, rows, bodies)
	switch {
	case err == nil:
		total.Stored += stored
		total.Repeated += len(rows) - stored
		return nil
	case !poisoned(err):
		return err
	case len(rows) == 1:
		s.reject(total, rows[0].record.ID, err)
		return nil
	}
	records = records[:0:0]
	for i := range rows {
		records = append(records, rows[i].record)
	}
	half := len(records) / 2
	if err := s.writeChunk(ctx, records[:half], bodies, total); err != nil {
		return err
	}
	return s.writeChunk(ctx, records[half:], bodies, total)
}

// encode leaves out what is of a day that is not kept.
func (s *Store) encode(ctx context.Context, records []history.Record, total *history.Written) ([]row, error) {
	rows, err := encodeRows(records)
	if err != nil {
		return nil, err
	}
	days := map[day]bool{}
	for i := range rows {
		days[rows[i].day] = true
	}
	verdicts, err := s.admit(ctx, days)
	if err != nil {
		return nil, err
	}
	kept := rows[:0]
	for _, r := range rows {
		switch verdicts[r.day] {
		case keep:
			kept = append(kept, r)
		case tooOld:
			total.Expired++
		case tooEarly:
			s.reject(total, r.record.ID, errTooEarly)
		}
	}
	return kept, nil
}

// store runs one transaction, and returns how many rows it changed. It fails where another replica has dropped a
// partition since we last looked; the next try looks again.
func (s *Store) store(ctx context.Context, rows []row, bodies map[history.BodyRef][]byte) (stored int, err error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	err = pgx.BeginFunc(ctx, s.writers, func(tx pgx.Tx) error {
		if err := storeBodies(ctx, tx, rows, bodies); err != nil {
			return fmt.Errorf("store bodies: %w", err)
		}
		stored, err = storeRows(ctx, tx, rows)
		return err
	})
	if noPartition(err) {
		s.known.set(nil)
		return 0, fmt.Errorf("%w: a partition was dropped meanwhile: %w", history.ErrUnavailable, err)
	}
	return stored, err
}

// storeBodies stores those that are not there. In order of their names, as rows in that of their ids, so that two
// replicas that store the same wait for each other and not both.
const insertBodies = `
INSERT INTO nexus_webhooks.bodies (ref, day, body)
SELECT * FROM unnest($1::bytea[], $2::date[], $3::bytea[]) AS b (ref, day, body) ORDER BY ref, day
ON CONFLICT DO NOTHING`

func storeBodies(ctx context.Context, tx pgx.Tx, rows []row, bodies map[history.BodyRef][]byte) error {
	type key struct {
		ref history.BodyRef
		day day
	}
	seen := map[key]bool{}
	var refs, contents [][]byte
	var days []time.Time
	for i := range rows {
		ref := rows[i].record.Body
		body := bodies[ref]
		if len(body) == 0 || seen[key{ref, rows[i].day}] {
			continue
		}
		seen[key{ref, rows[i].day}] = true
		refs, contents, days = append(refs, ref[:]), append(contents, body), append(days, rows[i].day.start())
	}
	if len(refs) == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, insertBodies, refs, days, contents)
	return err
}

const (
	// A session keeps the table and each transaction leaves it empty, so that batches do not churn the catalogue. Its
	// name goes with its columns: a session of an older version, kept by a pooler, has another.
	createStaging = `
CREATE TEMPORARY TABLE IF NOT EXISTS deliveries_staging_1 (
    id uuid, replay_of uuid, created_at timestamptz, completed_at timestamptz, round integer, status text,
    subscription_id text, namespace text, event_id text, event_type text, request_url text, reason text, error text,
    body bytea, last_attempt jsonb, earlier_attempts jsonb
) ON COMMIT DELETE ROWS`
	insertStaged = `
INSERT INTO nexus_webhooks.deliveries (` + columns + `)
SELECT id, replay_of, created_at, completed_at, round, status::nexus_webhooks.delivery_status,
    subscription_id, namespace, event_id, event_type, request_url, reason, error, body, last_attempt, earlier_attempts
FROM pg_temp.deliveries_staging_1 ORDER BY id
ON CONFLICT DO NOTHING`
)

func storeRows(ctx context.Context, tx pgx.Tx, rows []row) (int, error) {
	if _, err := tx.Exec(ctx, createStaging); err != nil {
		return 0, fmt.Errorf("make the staging table: %w", err)
	}
	source := pgx.CopyFromSlice(len(rows), func(i int) ([]any, error) { return rows[i].values, nil })
	if _, err := tx.CopyFrom(ctx, pgx.Identifier{"pg_temp", "deliveries_staging_1"}, columnNames, source); err != nil {
		return 0, fmt.Errorf("copy records: %w", err)
	}
	tag, err := tx.Exec(ctx, insertStaged)
	if err != nil {
		return 0, fmt.Errorf("insert records: %w", err)
	}
	stored := int(tag.RowsAffected())
	if stored == len(rows) {
		return stored, nil
	}
	merged, err := mergeRounds(ctx, tx, rows)
	return stored + merged, err
}
