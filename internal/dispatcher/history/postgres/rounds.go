// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"nexus.io/webhooks/internal/dispatcher/history"
)

const (
	selectOtherRounds = `
SELECT ` + dColumns + `, d.earlier_attempts
FROM nexus_webhooks.deliveries d
WHERE d.id = ANY($1::uuid[]) AND EXISTS (
    SELECT FROM pg_temp.deliveries_staging_1 s WHERE s.id = d.id AND s.round <> d.round)
ORDER BY d.id FOR UPDATE OF d`
	updateRow = `
UPDATE nexus_webhooks.deliveries SET (` + columns + `) =
    ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
WHERE id = $1`
)

// mergeRounds looks after deliveries that have ended more than once, after all rows of the staging table that are new
// have been inserted. It returns how many rows of an earlier round were replaced by one of a later.
func mergeRounds(ctx context.Context, tx pgx.Tx, rows []row) (merged int, err error) {
	ids := make([][16]byte, len(rows))
	staged := make(map[string]*history.Record, len(rows))
	for i := range rows {
		ids[i] = rows[i].id
		staged[rows[i].record.ID] = &rows[i].record
	}
	found, err := tx.Query(ctx, selectOtherRounds, ids)
	if err != nil {
		return 0, fmt.Errorf("look for other rounds: %w", err)
	}
	known, err := pgx.CollectRows(found, scanWhole)
	if err != nil {
		return 0, fmt.Errorf("look for other rounds: %w", err)
	}
	for i := range known {
		record := history.Merge(known[i], *staged[known[i].ID])
		encoded, err := encodeRow(&record)
		if err != nil {
			return 0, err
		}
		if _, err := tx.Exec(ctx, updateRow, encoded.values...); err != nil {
			return 0, fmt.Errorf("merge rounds: %w", err)
		}
		if record.Round > known[i].Round {
			merged++
		}
	}
	return merged, nil
}
