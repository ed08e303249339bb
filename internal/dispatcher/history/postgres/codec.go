// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"nexus.io/webhooks/internal/dispatcher/history"
)

const columns = "id, replay_of, created_at, completed_at, round, status, subscription_id, namespace, event_id, " +
	"event_type, request_url, reason, error, body, last_attempt, earlier_attempts"

// dColumns are what scan reads, of the table's alias d. Made of the id alone, the time of creation is not read.
const dColumns = "d.id, d.replay_of, d.completed_at, d.round, d.status::text, d.subscription_id, d.namespace, " +
	"d.event_id, d.event_type, d.request_url, d.reason, d.error, d.body, d.last_attempt"

//nolint:gochecknoglobals // a list that nothing changes
var columnNames = strings.Split(columns, ", ")

// row is a record on its way into the table.
type row struct {
	record history.Record
	id     history.UUID
	day    day
	values []any // by columns
}

func encodeRows(records []history.Record) ([]row, error) {
	rows := make([]row, len(records))
	for i := range records {
		var err error
		if rows[i], err = encodeRow(&records[i]); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

func encodeRow(r *history.Record) (row, error) {
	id, err := history.ParseID(r.ID)
	if err != nil {
		return row{}, err // cannot be: it was checked
	}
	last, earlier, err := encodeAttempts(r.Attempts)
	if err != nil {
		return row{}, fmt.Errorf("encode the attempts of delivery %s: %w", r.ID, err)
	}
	var body []byte
	if r.Body != (history.BodyRef{}) {
		body = r.Body[:]
	}
	var replayOf any
	if replayed, err := history.ParseID(r.ReplayOf); err == nil {
		replayOf = [16]byte(replayed)
	}
	return row{record: *r, id: id, day: dayOf(id.Time()), values: []any{
		[16]byte(id), replayOf, id.Time(), r.CompletedAt, r.Round, string(r.Status), r.SubscriptionID, r.Namespace,
		r.EventID, r.EventType, r.RequestURL, r.Reason, r.Error, body, last, earlier,
	}}, nil
}

// scanShort reads a row by dColumns.
func scanShort(rows pgx.CollectableRow) (history.Record, error) { return scan(rows) }

// scanWhole reads a row by dColumns and its earlier attempts.
func scanWhole(rows pgx.CollectableRow) (history.Record, error) {
	var earlier []byte
	r, err := scan(rows, &earlier)
	if err != nil || earlier == nil {
		return r, err
	}
	var stored []storedAttempt
	if err := json.Unmarshal(earlier, &stored); err != nil {
		return r, fmt.Errorf("decode the earlier attempts of delivery %s: %w", r.ID, err)
	}
	attempts := make([]history.Attempt, 0, len(stored)+1)
	for i := range stored {
		attempts = append(attempts, stored[i].attempt())
	}
	r.Attempts = append(attempts, r.Attempts...)
	return r, nil
}

func scan(rows pgx.CollectableRow, further ...any) (r history.Record, err error) {
	var id [16]byte
	var replayOf *[16]byte
	var body, last []byte
	err = rows.Scan(append([]any{
		&id, &replayOf, &r.CompletedAt, &r.Round, (*string)(&r.Status), &r.SubscriptionID, &r.Namespace,
		&r.EventID, &r.EventType, &r.RequestURL, &r.Reason, &r.Error, &body, &last,
	}, further...)...)
	if err != nil {
		return r, err
	}
	r.ID, r.CompletedAt = history.UUID(id).String(), r.CompletedAt.UTC()
	if replayOf != nil {
		r.ReplayOf = history.UUID(*replayOf).String()
	}
	copy(r.Body[:], body)
	if last == nil {
		return r, nil
	}
	var stored storedAttempt
	if err := json.Unmarshal(last, &stored); err != nil {
		return r, fmt.Errorf("decode the last attempt of delivery %s: %w", r.ID, err)
	}
	r.Attempts = []history.Attempt{stored.attempt()}
	return r, nil
}

// storedAttempt is an attempt as JSON that people can query. An answer that is no text, or holds NUL, which jsonb
// cannot hold, is in Base64.
type storedAttempt struct {
	Number             int               `json:"number"`
	StartedAt          time.Time         `json:"started_at,omitzero"`
	Microseconds       int64             `json:"duration_microseconds"`
	StatusCode         int               `json:"status_code,omitzero"`
	Reason             string            `json:"reason,omitzero"`
	Error              string            `json:"error,omitzero"`
	ResponseBody       string            `json:"response_body,omitzero"`
	ResponseBodyBase64 []byte            `json:"response_body_base64,omitempty"`
	ConnectionReused   bool              `json:"connection_reused,omitzero"`
	RemoteAddress      string            `json:"remote_address,omitzero"`
	RequestHeaders     map[string]string `json:"request_headers,omitempty"`
}

// encodeAttempts returns JSON of the last attempt, and of an array of the others; each nil where there are none.
func encodeAttempts(attempts []history.Attempt) (last, earlier []byte, err error) {
	if len(attempts) == 0 {
		return nil, nil, nil
	}
	stored := make([]storedAttempt, len(attempts))
	for i := range attempts {
		stored[i] = newStoredAttempt(&attempts[i])
	}
	end := len(stored) - 1
	if end > 0 {
		if earlier, err = json.Marshal(stored[:end]); err != nil {
			return nil, nil, err
		}
	}
	last, err = json.Marshal(stored[end])
	return last, earlier, err
}

func newStoredAttempt(a *history.Attempt) storedAttempt {
	stored := storedAttempt{
		Number: a.Number, StartedAt: a.StartedAt, Microseconds: a.Duration.Microseconds(), StatusCode: a.StatusCode,
		Reason: a.Reason, Error: a.Error, ConnectionReused: a.ConnectionReused, RemoteAddress: a.RemoteAddress,
		RequestHeaders: a.RequestHeaders,
	}
	if utf8.Valid(a.ResponseBody) && !bytes.Contains(a.ResponseBody, []byte{0}) {
		stored.ResponseBody = string(a.ResponseBody)
	} else {
		stored.ResponseBodyBase64 = a.ResponseBody
	}
	return stored
}

func (s *storedAttempt) attempt() history.Attempt {
	a := history.Attempt{
		Number: s.Number, StartedAt: s.StartedAt, Duration: time.Duration(s.Microseconds) * time.Microsecond,
		StatusCode: s.StatusCode, Reason: s.Reason, Error: s.Error, ConnectionReused: s.ConnectionReused,
		RemoteAddress: s.RemoteAddress, RequestHeaders: s.RequestHeaders, ResponseBody: s.ResponseBodyBase64,
	}
	if s.ResponseBody != "" {
		a.ResponseBody = []byte(s.ResponseBody)
	}
	return a
}
