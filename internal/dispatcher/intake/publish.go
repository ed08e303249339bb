// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/dispatcher/rest"
	"nexus.io/webhooks/internal/event"
	"nexus.io/webhooks/internal/routing"
)

// maxPublications and maxTargets bound one call of the queue, so that a batch does not hold up the events of others for
// long, and has only so much in memory before the queue can say that it is full. The last event of a call may have
// more targets.
const (
	maxPublications = 200
	maxTargets      = 5000
)

// entry is one event of a request; it ends with an outcome or a refusal.
type entry struct {
	raw       json.RawMessage
	keyID     string // the id that the idempotency key stands for, "" without one
	id        string
	byKey     bool // the id is that of the key: the client does not know it
	eventType string
	outcome   outcome
	refused   *rest.Problem
}

// publishEvent serves POST /api/v1/events.
func (h *handler) publishEvent(w http.ResponseWriter, r *rest.Request) int {
	x := h.exchange()
	defer h.release(x)
	key, table, p := h.begin(w, r, x, h.Limits.MaxEventBytes)
	if p != nil {
		return p.Write(w)
	}
	e := entry{raw: x.request}
	if key != "" {
		e.keyID = event.IDFromKey(key)
	}
	x.entries = append(x.entries, e)
	h.accept(r.Context(), x, table)
	if p := x.entries[0].refused; p != nil {
		return p.Write(w)
	}
	x.answer = x.entries[0].append(x.answer)
	return rest.Answer(w, http.StatusAccepted, x.answer)
}

// publishBatch serves POST /api/v1/events/batch.
func (h *handler) publishBatch(w http.ResponseWriter, r *rest.Request) int {
	x := h.exchange()
	defer h.release(x)
	key, table, p := h.begin(w, r, x, h.Limits.MaxBatchBytes)
	if p != nil {
		return p.Write(w)
	}
	events, err := event.SplitBatch(x.request, h.Limits.MaxBatchEvents)
	if err != nil {
		return refusal(err).Write(w)
	}
	for i, raw := range events {
		e := entry{raw: raw}
		if key != "" {
			e.keyID = event.IDFromBatchKey(key, i)
		}
		x.entries = append(x.entries, e)
	}
	h.accept(r.Context(), x, table)
	if p := comeAgain(x.entries); p != nil {
		return p.Write(w)
	}
	x.answer = appendBatch(x.answer, x.entries)
	return rest.Answer(w, http.StatusAccepted, x.answer)
}

// publishing is what a publisher must be allowed to do: events lie in no namespace, since they reach subscriptions of
// all.
var publishing = rest.Action{Verb: "create", Resource: "events"}

// begin does what every publishing request needs first.
func (h *handler) begin(w http.ResponseWriter, r *rest.Request, x *exchange, limit int64) (
	key string, table *routing.Table, p *rest.Problem,
) {
	if p = rest.Refusal(r.Caller.May(r.Context(), publishing)); p != nil {
		return "", nil, p
	}
	if p = rest.Query(r.Request).Problem(); p != nil {
		return "", nil, p
	}
	if key, p = idempotencyKey(r.Header); p != nil {
		return "", nil, p
	}
	if p = h.read(w, r.Request, x, limit); p != nil {
		return "", nil, p
	}
	if table = h.Table(); table == nil {
		return "", nil, notReady()
	}
	return key, table, nil
}

func notReady() *rest.Problem {
	return rest.New(http.StatusServiceUnavailable,
		"this dispatcher is not ready to take events yet (GET /readyz tells why): send this again in a moment").
		Retry(retryUnready)
}

// idempotencyKey returns the request's key, "" if it has none.
func idempotencyKey(header http.Header) (string, *rest.Problem) {
	values := header["Idempotency-Key"]
	if len(values) == 0 {
		return "", nil
	}
	if key := values[0]; len(values) == 1 && printable(key) && len(key) <= 255 {
		return key, nil
	}
	return "", rest.New(http.StatusBadRequest, "the Idempotency-Key header must be given once, with 1 to 255 "+
		"printable ASCII characters")
}

func printable(key string) bool {
	for i := range len(key) {
		if key[i] < ' ' || key[i] > '~' {
			return false
		}
	}
	return key != ""
}

// accept takes the entries through parsing, matching and the queue.
func (h *handler) accept(ctx context.Context, x *exchange, table *routing.Table) {
	left := x.entries
	for len(left) > 0 {
		now := left[:h.prepareSome(x, table, left)]
		left = left[len(now):]
		if p := h.publish(ctx, x, now); p != nil {
			refuseAll(left, p)
			left = nil
		}
	}
	for i := range x.entries {
		h.count(&x.entries[i])
	}
}

func refuseAll(entries []entry, p *rest.Problem) {
	for i := range entries {
		entries[i].refused = p
	}
}

// prepareSome prepares entries for one call of the queue, and returns how many.
func (h *handler) prepareSome(x *exchange, table *routing.Table, entries []entry) int {
	clear(x.publications)
	x.publications, x.bodies = x.publications[:0], slices.Grow(x.bodies[:0], h.renderedBytes(entries))
	found := 0
	for i := range entries {
		if i == maxPublications || found >= maxTargets {
			return i
		}
		found += h.prepare(x, table, &entries[i])
	}
	return len(entries)
}

// renderedBytes is about how much the bodies of one call take, so that they are not copied as their number grows.
func (h *handler) renderedBytes(entries []entry) int {
	const envelope = 128 // an id, a time and empty metadata, where an event has none
	n := 0
	for _, e := range entries[:min(len(entries), maxPublications)] {
		n += min(len(e.raw), int(h.Limits.MaxEventBytes)) + envelope
	}
	return n
}

// publish queues what is right among the entries in one call. The problem is that of the entries of which the queue
// does not know whether it has them, nil where it answered for each.
func (h *handler) publish(ctx context.Context, x *exchange, entries []entry) *rest.Problem {
	if len(x.publications) == 0 {
		return nil
	}
	receipts, err := h.Publisher.Publish(ctx, x.publications)
	if len(receipts) != len(x.publications) {
		err = errors.Join(err, fmt.Errorf("%d receipts for %d events", len(receipts), len(x.publications)))
		receipts = unqueued(len(x.publications))
	}
	outage := unavailable(err)
	for i := range entries {
		if e := &entries[i]; e.refused == nil {
			e.settle(receipts[0], outage)
			receipts = receipts[1:]
		}
	}
	if err == nil {
		return nil
	}
	if ctx.Err() == nil { // else only this client went away
		h.outages.Do(func() { h.Logger.Error("Events are refused, the queue cannot be written", "error", err) })
	}
	return outage
}

func unqueued(n int) []queue.Receipt {
	receipts := make([]queue.Receipt, n)
	for i := range receipts {
		receipts[i].Outcome = queue.Unqueued
	}
	return receipts
}

// prepare turns an entry into a publication with so many targets, or refuses it.
func (h *handler) prepare(x *exchange, table *routing.Table, e *entry) (found int) {
	parsed, p := h.parse(e)
	if p != nil {
		e.refused = p
		return 0
	}
	e.id, e.eventType = parsed.ID, parsed.Type
	start := len(x.bodies)
	x.bodies = parsed.AppendBody(x.bodies)
	publication := queue.Publication{
		EventID:   parsed.ID,
		EventType: parsed.Type,
		Body:      x.bodies[start:len(x.bodies):len(x.bodies)],
		Targets:   targets(table.Match(parsed.Type, parsed.Attributes())),
	}
	if parsed.ClientID {
		publication.Fingerprint = parsed.Fingerprint()
	}
	x.publications = append(x.publications, publication)
	return len(publication.Targets)
}

// parse reads an event whose type is known. An id in the event is its identity; without one, the idempotency key is.
func (h *handler) parse(e *entry) (event.Event, *rest.Problem) {
	if int64(len(e.raw)) > h.Limits.MaxEventBytes {
		return event.Event{}, rest.TooLarge(h.Limits.MaxEventBytes)
	}
	parsed, err := event.Parse(e.raw, time.Now())
	if err != nil {
		return event.Event{}, refusal(err)
	}
	if !h.Catalogue.Knows(parsed.Type) {
		return event.Event{}, h.unknownType(parsed.Type)
	}
	if e.keyID != "" && !parsed.ClientID {
		parsed.ID, parsed.ClientID, e.byKey = e.keyID, true, true
	}
	return parsed, nil
}

func (h *handler) unknownType(t string) *rest.Problem {
	message := fmt.Sprintf("%q is not a known event type", t)
	if near := h.Catalogue.Nearest(t); near != "" {
		message += fmt.Sprintf("; did you mean %q?", near)
	} else {
		message += "; GET /api/v1/event-types lists them"
	}
	return refusal(&event.InvalidError{Fields: []event.FieldError{{Field: "type", Message: message}}})
}

func targets(routes []*routing.Route) []queue.Target {
	if len(routes) == 0 {
		return nil
	}
	found := make([]queue.Target, len(routes))
	for i, r := range routes {
		found[i] = queue.Target{SubscriptionID: r.ID, DeliveryID: event.NewDeliveryID()}
	}
	return found
}

// settle takes the queue's answer; outage is why an event may be unqueued.
func (e *entry) settle(r queue.Receipt, outage *rest.Problem) {
	switch r.Outcome {
	case queue.Queued, queue.Duplicate:
		e.outcome = outcomeOf(r)
	case queue.Conflict:
		e.refused = e.conflict()
	case queue.Full:
		e.refused = queueFull()
	case queue.Unqueued:
		e.refused = outage
	}
}

func (e *entry) conflict() *rest.Problem {
	if e.byKey {
		return rest.New(http.StatusConflict, "the Idempotency-Key came with another content in the last 24 hours: give "+
			"each request a key of its own, and only a repeated one the same again")
	}
	return rest.New(http.StatusConflict, fmt.Sprintf("an event with the id %q but with another content came "+
		"in the last 24 hours: give each event an id of its own", e.id))
}

func queueFull() *rest.Problem {
	return rest.New(http.StatusTooManyRequests,
		"the queue is full: send this again later; nothing that was accepted before is lost").Retry(retryFull)
}

// unavailable says that the queue did not take an event.
func unavailable(err error) *rest.Problem {
	if errors.Is(err, queue.ErrFull) {
		return queueFull()
	}
	return rest.New(http.StatusServiceUnavailable,
		"the queue cannot be written just now, and the event was not accepted: send it again, with the same id or "+
			"Idempotency-Key where it has one").Retry(retryDown)
}

// comeAgain returns why a batch should be sent again as it is: nothing of it was accepted and some of it may be later.
func comeAgain(entries []entry) *rest.Problem {
	var reason *rest.Problem
	for i := range entries {
		p := entries[i].refused
		if p == nil {
			return nil
		}
		if reason == nil && p.Temporary() {
			reason = p
		}
	}
	return reason
}
