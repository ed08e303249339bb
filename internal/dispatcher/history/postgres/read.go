// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"nexus.io/webhooks/internal/dispatcher/history"
)

// List returns a page of what f selects, newest first, within readTimeout. The records have their last attempt only.
func (s *Store) List(ctx context.Context, f history.Filter) (history.Page, error) {
	if err := f.Check(); err != nil {
		return history.Page{}, err
	}
	if err := s.state.check(); err != nil || f.Empty() {
		return history.Page{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	records, err := s.collect(ctx, &f)
	if err != nil {
		return history.Page{}, s.failed("list deliveries", err)
	}
	if len(records) <= f.PageSize() {
		return history.Page{Records: records}, nil
	}
	records = records[:f.PageSize()]
	return history.Page{Records: records, Next: history.CursorBehind(&records[len(records)-1])}, nil
}

// collect reads a page and one record more, by which one sees that there is more.
func (s *Store) collect(ctx context.Context, f *history.Filter) ([]history.Record, error) {
	wanted := f.PageSize() + 1
	var records []history.Record
	for _, in := range spans(f, s.known.newest()) {
		sql, args := statement(f, in, wanted-len(records))
		rows, err := s.readers.Query(ctx, sql, args...)
		if err != nil {
			return nil, err
		}
		if records, err = pgx.AppendRows(records, rows, scanShort); err != nil {
			return nil, err
		}
		if len(records) >= wanted {
			break
		}
	}
	return records, nil
}

// Get returns the record of a delivery with all its attempts, or ErrNotFound, within readTimeout.
func (s *Store) Get(ctx context.Context, id string) (history.Record, error) {
	parsed, err := history.ParseID(id)
	if err != nil {
		return history.Record{}, history.ErrNotFound
	}
	if err := s.state.check(); err != nil {
		return history.Record{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	rows, err := s.readers.Query(ctx,
		"SELECT "+dColumns+", d.earlier_attempts FROM nexus_webhooks.deliveries d WHERE d.id = $1", [16]byte(parsed))
	if err != nil {
		return history.Record{}, s.failed("read a delivery", err)
	}
	record, err := pgx.CollectExactlyOneRow(rows, scanWhole)
	if errors.Is(err, pgx.ErrNoRows) {
		return history.Record{}, history.ErrNotFound
	}
	return record, s.failed("read delivery "+id, err)
}

// The total is of sizes, which are known without reading what is large.
const selectBodies = `
SELECT DISTINCT ref, body FROM (
    SELECT b.ref, b.body, sum(octet_length(b.body)) OVER (ORDER BY w.place) AS total
    FROM unnest($1::bytea[], $2::date[]) WITH ORDINALITY AS w (ref, day, place)
    JOIN nexus_webhooks.bodies b ON b.ref = w.ref AND b.day = w.day) t
WHERE total <= $3`

// Bodies returns the bodies that records name, those of the first ones, as many as fit into maxBytes. A body that was
// never written, or is no longer kept, is not among them. It takes readTimeout at most.
func (s *Store) Bodies(
	ctx context.Context, records []history.Record, maxBytes int,
) (map[history.BodyRef][]byte, error) {
	if err := s.state.check(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	refs, days := named(records)
	rows, err := s.readers.Query(ctx, selectBodies, refs, days, maxBytes)
	if err != nil {
		return nil, s.failed("read bodies", err)
	}
	bodies := make(map[history.BodyRef][]byte, len(refs))
	var name, body []byte
	_, err = pgx.ForEachRow(rows, []any{&name, &body}, func() error {
		var ref history.BodyRef
		copy(ref[:], name)
		bodies[ref] = slices.Clone(body)
		return nil
	})
	if err != nil {
		return nil, s.failed("read bodies", err)
	}
	return bodies, nil
}

// named are the bodies that records name and the days under which they are kept, each ref once.
func named(records []history.Record) (refs [][]byte, days []time.Time) {
	seen := map[history.BodyRef]bool{{}: true}
	for i := range records {
		ref := records[i].Body
		if seen[ref] {
			continue
		}
		seen[ref] = true
		refs, days = append(refs, ref[:]), append(days, dayOf(records[i].CreatedAt()).start())
	}
	return refs, days
}
