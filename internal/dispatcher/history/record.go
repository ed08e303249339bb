// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package history

import (
	"crypto/sha256"
	"errors"
	"time"
)

// Status says how a delivery ended.
type Status string

// How a delivery ends.
const (
	Success  Status = "success"
	Failed   Status = "failed"
	Canceled Status = "canceled"
)

// Statuses are all there are.
func Statuses() []Status { return []Status{Success, Failed, Canceled} }

// Bounds of what is kept of a delivery. Clean cuts what is longer; Check refuses what it cannot cut.
const (
	MaxResponseBody = 1000 // bytes of an answer
	MaxText         = 1024 // bytes of an error, reason, address or header value
	MaxURL          = 2048 // bytes
	MaxHeaders      = 64   // of one request
	MaxAttempts     = 128  // the latest ones
	MaxIdentifier   = 256  // bytes of the ids of event and subscription, of a type and of a namespace
)

// Record is what is kept of a delivery once it has ended. It holds no secret: whoever makes one leaves them out.
type Record struct {
	ID string // the delivery's, X-Nexus-Delivery: a UUID of version 7, whose time is CreatedAt
	// Round counts how often the delivery has ended, from 1. It ends again when somebody retries one that had failed,
	// under the same ID: of two records with one ID, the later round's stands (see Merge).
	Round          int
	SubscriptionID string
	Namespace      string // of the subscription
	EventID        string
	EventType      string
	Status         Status
	// Reason and Error say why it is not a success, "" for one that is: those of the last attempt, or else what ended
	// it without one (its subscription's backlog was full, somebody canceled it, ...). Reason is of a closed set.
	Reason string
	Error  string
	// RequestURL is where the last attempt went, or would have gone.
	RequestURL string
	// Body names the body that was sent. Bodies are kept once, not with each delivery.
	Body BodyRef
	// Attempts by their Number. A record to be written holds those of its round at least; a store adds what it knows of
	// earlier ones. One that was read by its ID holds them all (the latest MaxAttempts), one from a Page only the last.
	Attempts    []Attempt
	CompletedAt time.Time
	ReplayOf    string // the delivery that had succeeded and that this one repeats under an ID of its own, or ""
}

// CreatedAt is the time of the record's ID, in milliseconds, UTC; zero where that is none. Since it is part of the ID,
// the same delivery has the same time in every store, and the order of IDs is that of time.
func (r *Record) CreatedAt() time.Time {
	id, err := ParseID(r.ID)
	if err != nil {
		return time.Time{}
	}
	return id.Time()
}

// LastAttempt is the latest of r's attempts, whose Number is how many there were. It is nil where there was none.
func (r *Record) LastAttempt() *Attempt {
	if len(r.Attempts) == 0 {
		return nil
	}
	return &r.Attempts[len(r.Attempts)-1]
}

// Attempt is one HTTP request of a delivery and its outcome.
type Attempt struct {
	Number     int // from 1, and on through all rounds
	StartedAt  time.Time
	Duration   time.Duration // in microseconds
	StatusCode int           // 0 where there was no answer
	Reason     string        // of a closed set, "" on success
	Error      string        // for people, "" on success
	// ResponseBody is the beginning of the answer, any bytes at all.
	ResponseBody     []byte
	ConnectionReused bool
	RemoteAddress    string // host:port that was dialled, "" where none was
	// RequestHeaders are the headers as they were sent, by their canonical names, signatures too; not those whose value
	// comes from a Secret.
	RequestHeaders map[string]string
}

// BodyRef names a body by its SHA-256. The zero value names none.
type BodyRef [sha256.Size]byte

// RefOf names body. An empty body is none.
func RefOf(body []byte) BodyRef {
	if len(body) == 0 {
		return BodyRef{}
	}
	return sha256.Sum256(body)
}

// Batch is what is written in one go: records, and the bodies that they name. A body that was written before with
// another record of the same day (UTC, by CreatedAt) may be left out.
type Batch struct {
	Records []Record
	Bodies  map[BodyRef][]byte
}

// Written says what became of a Batch. The four numbers add up to its records.
type Written struct {
	Stored   int // new, or of a later round than what was there
	Repeated int // nothing changed: written before
	Expired  int // older than what is kept
	// Rejected can never be stored: what is wrong with each. Writing them again is of no use.
	Rejected []Rejection
}

// Rejection is a record that no store can take.
type Rejection struct {
	ID  string // as it came; it may be anything
	Err error
}

// Errors of a store.
var (
	// ErrNotFound: there is no such delivery, or it is no longer kept.
	ErrNotFound = errors.New("no such delivery in the history")
	// ErrUnavailable: the store cannot be reached or is not set up yet. The same call may succeed later.
	ErrUnavailable = errors.New("the delivery history is not available")
)
