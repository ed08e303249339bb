// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package deliveries

import (
	"cmp"
	"strconv"
	"time"
	"unicode/utf8"

	"nexus.io/webhooks/internal/dispatcher/history"
	"nexus.io/webhooks/internal/dispatcher/queue"
)

// Delivery is a delivery as a client sees it. What it does not have is null.
type Delivery struct {
	ID             string            `json:"id"`
	SubscriptionID string            `json:"subscription_id"`
	EventID        string            `json:"event_id"`
	EventType      string            `json:"event_type"`
	Status         string            `json:"status"`
	AttemptNumber  int               `json:"attempt_number"` // attempts that were made
	RequestURL     *string           `json:"request_url"`
	RequestHeaders map[string]string `json:"request_headers"`
	RequestBody    *string           `json:"request_body"`
	ResponseStatus *int              `json:"response_status"`
	ResponseBody   *string           `json:"response_body"`
	ResponseTime   *int64            `json:"response_time_ms"`
	ErrorMessage   *string           `json:"error_message"`
	CreatedAt      *time.Time        `json:"created_at"`
	CompletedAt    *time.Time        `json:"completed_at"`
	NextRetryAt    *time.Time        `json:"next_retry_at"`
	ReplayOf       *string           `json:"replay_of,omitempty"`
	Attempts       []Attempt         `json:"attempts,omitempty"`

	namespace string
	open      *queue.Unfinished // nil for one that has ended
	body      queue.Body        // in the store
	record    *history.Record   // of one that left the store's history, nil for others
	archived  bool              // its body is in the archive
}

// Attempt is an attempt as a client sees it.
type Attempt struct {
	Number           int               `json:"attempt_number"`
	StartedAt        time.Time         `json:"started_at"`
	Duration         int64             `json:"response_time_ms"`
	Status           *int              `json:"response_status"`
	Reason           *string           `json:"reason"`
	Error            *string           `json:"error_message"`
	ResponseBody     *string           `json:"response_body"`
	ConnectionReused bool              `json:"connection_reused"`
	RemoteAddress    *string           `json:"remote_address"`
	RequestHeaders   map[string]string `json:"request_headers"`
}

// orNull is nil for the zero value.
func orNull[T comparable](value T) *T {
	var zero T
	if value == zero {
		return nil
	}
	return &value
}

// readable is the beginning of an answer as text; what is none shows as the replacement character.
func readable(body []byte) *string {
	if len(body) == 0 {
		return nil
	}
	for n := 1; n < utf8.UTFMax && n < len(body); n++ { // a character that the bound cut
		if last := body[len(body)-n:]; utf8.RuneStart(last[0]) {
			if !utf8.FullRune(last) {
				body = body[:len(body)-n]
			}
			break
		}
	}
	text := string(body)
	return &text
}

func viewAttempt(a *history.Attempt) Attempt {
	return Attempt{
		Number: a.Number, StartedAt: a.StartedAt, Duration: a.Duration.Milliseconds(), Status: orNull(a.StatusCode),
		Reason: orNull(a.Reason), Error: orNull(a.Error), ResponseBody: readable(a.ResponseBody),
		ConnectionReused: a.ConnectionReused, RemoteAddress: orNull(a.RemoteAddress), RequestHeaders: a.RequestHeaders,
	}
}

// sentences are for what ended a delivery without an attempt.
var sentences = map[string]string{
	"backlog_full":         "the subscription's backlog was full",
	"subscription_deleted": "the subscription was deleted",
	"canceled":             "somebody canceled it",
}

func viewEnded(e *queue.Ended) *Delivery {
	d := &Delivery{
		ID: e.ID, SubscriptionID: e.SubscriptionID, EventID: e.EventID, EventType: e.EventType, Status: string(e.Status),
		CreatedAt: orNull(e.CreatedAt()), CompletedAt: orNull(e.CompletedAt), ReplayOf: orNull(e.ReplayOf),
		ErrorMessage: orNull(cmp.Or(e.Error, sentences[e.Reason])), namespace: e.Namespace, body: e.BodyAt,
	}
	d.last(&e.Record)
	return d
}

func (h *handler) viewUnfinished(u *queue.Unfinished) *Delivery {
	d := &Delivery{
		ID: u.ID, SubscriptionID: u.SubscriptionID, EventID: u.EventID, EventType: u.EventType, Status: statusOf(u),
		AttemptNumber: u.Attempts, CreatedAt: orNull(u.CreatedAt), NextRetryAt: orNull(u.DueAt),
		namespace: h.namespaceOf(u.SubscriptionID), open: u, body: u.Body,
	}
	return d
}

const (
	pending  = "pending"
	retrying = "retrying"
)

func statusOf(u *queue.Unfinished) string {
	if u.Attempts > 0 {
		return retrying
	}
	return pending
}

// last shows the record's last attempt as the delivery's own.
func (d *Delivery) last(r *history.Record) {
	a := r.LastAttempt()
	if a == nil {
		return
	}
	d.AttemptNumber, d.RequestURL, d.RequestHeaders = a.Number, orNull(r.RequestURL), a.RequestHeaders
	d.ResponseStatus, d.ResponseBody = orNull(a.StatusCode), readable(a.ResponseBody)
	ms := a.Duration.Milliseconds()
	d.ResponseTime = &ms
	if d.ErrorMessage == nil {
		d.ErrorMessage = orNull(a.Error)
	}
}

func (d *Delivery) withAttempts(r *history.Record) {
	for i := range r.Attempts {
		d.Attempts = append(d.Attempts, viewAttempt(&r.Attempts[i]))
	}
}

func quoted(id string) string { return strconv.Quote(id[:min(len(id), 64)]) }
